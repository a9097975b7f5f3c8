//! `modchain run` and `modchain quote`: how a job is described by flags.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use modchain_types::money::BadAmount;
use modchain_types::{DockerTask, LlmTask, Micro, Name, Policy, Span, SubmitKey};

use super::{EXAMPLES_FIRST, parse_key, parse_name, parse_span};
use crate::text;

/// `modchain run`.
#[derive(Debug, Args)]
#[command(help_template = EXAMPLES_FIRST, before_help = "Examples:\n  modchain run -i alpine:3 --max-cost 0.05 -- echo hello\n  \
                        modchain run -i python:3.13 --gpus 1 --gpu-memory 40GiB --max-cost 2 -- python -c 'print(1 + 1)'\n  \
                        modchain run -m smollm2:135m -p 'Why is the sky blue?' --max-cost 0.05\n  \
                        modchain run -m smollm2:135m --history chat.json -p 'Shorter, please.' --max-cost 0.05\n  \
                        echo hi | modchain run --stdin --wasm echo.wat --max-cost 0.05\n  \
                        id=$(modchain run -d -q -f job.toml)", after_help = "A node's owner can read everything that a job is given, prompts \
                        too: do not send secrets to machines that you do not trust.")]
pub(crate) struct RunArgs {
    /// Do not follow the job: print its id and leave
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Print the whole specification and the quote, and submit nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Let the first Ctrl-C cancel the job instead of detaching from it
    #[arg(long)]
    pub(crate) cancel_on_interrupt: bool,
    /// Key of this job: the same key is the same job, however often it is sent, for as long as the orchestrator keeps the job's
    /// record. Random by default
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    pub(crate) id: Option<SubmitKey>,
    #[command(flatten)]
    pub(crate) job: JobFlags,
}

/// `modchain job rerun`.
#[derive(Debug, Args)]
#[command(help_template = EXAMPLES_FIRST, before_help = "Examples:\n  modchain job rerun @last\n  \
                        modchain job rerun j-7f3a --max-cost 0.20 --node rig-1\n  \
                        modchain job rerun j-7f3a --without node,label --label sweep=b\n  \
                        modchain job rerun j-7f3a -d -q -- 2000", after_help = "What is not said is as it was: a module and what was \
                        asked of a language model are not sent again. They are kept for an hour after their last job has ended.")]
pub(crate) struct RerunArgs {
    /// The earlier job: id, unique prefix, name, or @last
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    /// What the earlier job said and this one does not, by the words of a job file: node,time-limit
    #[arg(long, value_name = "WORD,...", value_delimiter = ',')]
    pub(crate) without: Vec<String>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// `modchain job spec`.
#[derive(Debug, Args)]
#[command(help_template = EXAMPLES_FIRST, before_help = "Examples:\n  modchain job spec @last > job.toml\n  \
                        modchain job spec j-7f3a --module primes.wat > job.toml\n  modchain job spec j-7f3a -o json")]
pub(crate) struct SpecArgs {
    /// The job: id, unique prefix, name, or @last
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    /// Save the WebAssembly module here, and name it in the job file
    #[arg(long, value_name = "FILE")]
    pub(crate) module: Option<PathBuf>,
    /// Save what was said before the question here, and name it in the job file
    #[arg(long, value_name = "FILE")]
    pub(crate) history: Option<PathBuf>,
}

/// `modchain quote`.
#[derive(Debug, Args)]
#[command(help_template = EXAMPLES_FIRST, before_help = "Examples:\n  modchain quote --wasm primes.wat --max-cost 0.10\n  \
                        modchain quote -m smollm2:135m -p hello --max-cost 0.05\n  \
                        modchain quote -f job.toml -o json")]
pub(crate) struct QuoteArgs {
    #[command(flatten)]
    pub(crate) job: JobFlags,
}

/// What kind of job it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum JobType {
    /// A WebAssembly module with WASI preview 1
    Wasm,
    /// A container
    Docker,
    /// A language model
    Llm,
}

impl JobType {
    /// The word of `--type`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Docker => "docker",
            Self::Llm => "llm",
        }
    }

    /// What people call such jobs.
    pub(crate) fn people(self) -> &'static str {
        match self {
            Self::Wasm => "a WebAssembly job",
            Self::Docker => "a container",
            Self::Llm => "a job for a language model",
        }
    }
}

/// What an unreachable job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnDisconnectFlag {
    /// Goes on; two attempts may overlap, one is billed
    Keep,
    /// Ends with its lease
    Stop,
}

/// Which node is best among those that fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PolicyFlag {
    /// The one that costs least per hour
    Cheapest,
    /// The one that has the image or model and the newest GPUs, and of which least is reserved, whatever it costs
    Fastest,
    /// The one of which least is reserved
    Spread,
}

impl From<PolicyFlag> for Policy {
    fn from(flag: PolicyFlag) -> Self {
        match flag {
            PolicyFlag::Cheapest => Self::Cheapest,
            PolicyFlag::Fastest => Self::Fastest,
            PolicyFlag::Spread => Self::Spread,
        }
    }
}

impl From<Policy> for PolicyFlag {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Cheapest => Self::Cheapest,
            Policy::Fastest => Self::Fastest,
            Policy::Spread => Self::Spread,
        }
    }
}

/// What is asked of the machine has a heading of its own in the help.
const MACHINES: &str = "Machines";

/// A job by flags. Everything is optional here: a job file may say it instead.
#[derive(Debug, Default, Args)]
pub(crate) struct JobFlags {
    /// Kind of job; may be left out where another flag decides
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    pub(crate) kind: Option<JobType>,
    /// Job file (TOML); `-` reads standard input. Flags override it
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// WebAssembly module, .wasm or .wat
    #[arg(long, value_name = "FILE")]
    pub(crate) wasm: Option<PathBuf>,
    /// The most the job may cost: held until it has ended
    #[arg(long, value_name = "AMOUNT", allow_hyphen_values = true, value_parser = parse_positive_micro)]
    pub(crate) max_cost: Option<Micro>,
    /// What to call the job
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Cores, such as 2 or 0.5; 1 by default, and 0.1 for language models, whose server computes
    #[arg(long, help_heading = MACHINES, value_name = "N", allow_hyphen_values = true, value_parser = text::parse_cpus)]
    pub(crate) cpus: Option<u32>,
    /// Memory: reserved, and the job's limit; 256MiB by default, and 64MiB for language models
    #[arg(long, help_heading = MACHINES, value_name = "SIZE", allow_hyphen_values = true, value_parser = parse_memory)]
    pub(crate) memory: Option<u64>,
    /// The one node to use
    #[arg(long, help_heading = MACHINES, value_name = "NAME", value_parser = parse_name)]
    pub(crate) node: Option<Name>,
    /// Only nodes with this label; may be repeated
    #[arg(long, help_heading = MACHINES, value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) require: Vec<(String, String)>,
    /// Environment of the job; a name alone takes the value from here; may be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = parse_env)]
    pub(crate) env: Vec<(String, Option<String>)>,
    /// File with one NAME=VALUE a line; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Send environment variables that look like secrets all the same
    #[arg(long)]
    pub(crate) allow_secrets_on_node: bool,
    /// Longest run
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = parse_span)]
    pub(crate) time_limit: Option<Span>,
    /// Longest wait in the queue
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = parse_span)]
    pub(crate) start_by: Option<Span>,
    /// Silence of a node after which the job moves on, 15s to 24h; 60s by default
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = parse_span)]
    pub(crate) lost_after: Option<Span>,
    /// What the job does while its node cannot reach the orchestrator
    #[arg(long, value_name = "WHAT")]
    pub(crate) on_disconnect: Option<OnDisconnectFlag>,
    /// Which of the nodes that fit; the cheapest by default
    #[arg(long, value_name = "POLICY")]
    pub(crate) policy: Option<PolicyFlag>,
    /// Higher goes first among your own jobs, -100 to 100; below 0 gives way to the jobs of others too
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i8).range(-100..=100))]
    pub(crate) priority: Option<i8>,
    /// Label of the job; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) label: Vec<(String, String)>,
    /// Attempts beyond the first, 0 to 19; 2 by default
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(0..=19))]
    pub(crate) retries: Option<u32>,
    /// Send standard input to the job
    #[arg(long)]
    pub(crate) stdin: bool,
    /// Refuse the job if it cannot start now
    #[arg(long)]
    pub(crate) no_queue: bool,
    /// Arguments of the module, or the command of the container
    #[arg(last = true, value_name = "ARG")]
    pub(crate) args: Vec<String>,
    // A heading stays for all that follows it: groups come last.
    #[command(flatten)]
    pub(crate) container: ContainerFlags,
    #[command(flatten)]
    pub(crate) llm: LlmFlags,
    #[command(flatten)]
    pub(crate) machine: MachineFlags,
}

/// What only containers have. A job file says the same with the same words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Containers")]
pub(crate) struct ContainerFlags {
    /// Image: NAME, NAME:TAG, NAME@sha256:..., or the id of one that the node has. A tag is resolved once for all attempts
    #[arg(short, long, value_name = "IMAGE", value_parser = parse_image)]
    pub(crate) image: Option<String>,
    /// Instead of the image's entry point; repeat it for arguments, "" for none at all
    #[arg(long, value_name = "CMD", allow_hyphen_values = true)]
    pub(crate) entrypoint: Option<Vec<String>>,
    /// Working directory, an absolute path
    #[arg(long, value_name = "PATH", value_parser = parse_workdir)]
    pub(crate) workdir: Option<String>,
    /// Longest pull of the image, never billed; 10m by default
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = parse_pull_timeout)]
    pub(crate) pull_timeout: Option<Span>,
    /// Processes and threads at once, 1 to 4096; 512 by default
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=i64::from(DockerTask::PIDS_MAX)))]
    pub(crate) pids: Option<u32>,
    /// Size of /tmp, which is in memory and counts as such; 256MiB by default
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = parse_memory)]
    pub(crate) tmp_size: Option<u64>,
    /// Let the container write to its own root, on nodes whose owner allows it
    #[arg(long)]
    pub(crate) writable_root: bool,
    /// Give the container a network, on nodes whose owner allows it
    #[arg(long)]
    pub(crate) network: bool,
}

/// What only jobs for language models have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Language models")]
pub(crate) struct LlmFlags {
    /// Model: NAME:TAG, or NAME for `latest`
    #[arg(short, long, value_name = "MODEL", value_parser = parse_model)]
    pub(crate) model: Option<String>,
    /// What to ask; `-` reads standard input
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// How the model is to behave
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// How freely it chooses, 0 to 10; the model's own by default
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = parse_temperature)]
    pub(crate) temperature: Option<u32>,
    /// Most tokens to make
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_tokens: Option<u32>,
    /// Makes the choice repeatable
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) seed: Option<u32>,
    /// Let it answer with one JSON document
    #[arg(long)]
    pub(crate) json: bool,
    /// The conversation so far, a JSON list of {"role", "content"}; question and answer are added once the job is completed.
    /// A file that is not there begins a new one
    #[arg(long, value_name = "FILE")]
    pub(crate) history: Option<PathBuf>,
    /// Turn this text into a vector instead of answering; may be repeated; `-` reads standard input
    #[arg(long, value_name = "TEXT")]
    pub(crate) embed: Vec<String>,
}

/// What is asked of the machine, beside cores and memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = MACHINES)]
pub(crate) struct MachineFlags {
    /// GPUs, 0 to 64
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(0..=i64::from(GPUS_MAX)))]
    pub(crate) gpus: Option<u32>,
    /// Least memory of each GPU; asks for one GPU where --gpus says nothing
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = parse_memory)]
    pub(crate) gpu_memory: Option<u64>,
    /// A part of the GPU's name, such as H100; asks for one GPU where --gpus says nothing
    #[arg(long, value_name = "NAME")]
    pub(crate) gpu_model: Option<String>,
    /// Only nodes of this region
    #[arg(long, value_name = "TEXT")]
    pub(crate) region: Option<String>,
    /// Only nodes where all that is reserved costs no more than this for an hour
    #[arg(long, value_name = "AMOUNT", allow_hyphen_values = true, value_parser = parse_positive_micro)]
    pub(crate) price_per_hour: Option<Micro>,
}

/// Most GPUs that a job may ask for.
pub(crate) const GPUS_MAX: u32 = 64;

/// A name without spaces and other strange characters.
fn parse_plain(text: &str, what: &str) -> Result<String, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("`{text}` is not {what}"));
    }
    Ok(text.into())
}

/// An image by name or id.
pub(crate) fn parse_image(text: &str) -> Result<String, String> {
    let image = parse_plain(text, IMAGE)?;
    if is_image(&image) { Ok(image) } else { Err(format!("`{text}` is not {IMAGE}")) }
}

const IMAGE: &str = "an image: write NAME, NAME:TAG, NAME@sha256:64 HEX DIGITS, or an id";

/// Whether it is `[HOST[:PORT]/]NAME[:TAG][@DIGEST]` with a name in lower case, or an id. What no engine takes is no image, and
/// would be found out only on a node.
fn is_image(image: &str) -> bool {
    let is_digest = |text: &str| match text.split_once(':') {
        Some(("sha256", hex)) => hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
        Some(_) | None => false,
    };
    let (named, digest) = image.split_once('@').map_or((image, None), |(named, digest)| (named, Some(digest)));
    if is_digest(image) {
        return true;
    }
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return false;
    }
    let (path, tag) = match named.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        Some(_) | None => (named, None),
    };
    let is_tag = |tag: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        (1..=128).contains(&tag.len()) && tag.bytes().all(known) && !tag.starts_with(['.', '-'])
    };
    let is_part = |part: &str| {
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let (first, last) = (part.bytes().next(), part.bytes().last());
        first.is_some_and(word)
            && last.is_some_and(word)
            && part.bytes().all(|b| word(b) || matches!(b, b'.' | b'_' | b'-'))
    };
    // What looks like a host may have capitals and a port.
    let is_host = |host: &str| {
        let (name, port) = host.split_once(':').unwrap_or((host, "0"));
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
        !name.is_empty()
            && name.bytes().all(known)
            && !port.is_empty()
            && port.bytes().all(|byte| byte.is_ascii_digit())
    };
    let path = match path.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => {
            if !is_host(host) {
                return false;
            }
            rest
        }
        Some(_) | None => path,
    };
    path.split('/').all(is_part) && tag.is_none_or(is_tag)
}

/// A model with its tag: `smollm2` is `smollm2:latest`.
pub(crate) fn parse_model(text: &str) -> Result<String, String> {
    let name = parse_plain(text, "a model: write a name such as smollm2:135m")?;
    let (_, last) = name.rsplit_once('/').unwrap_or(("", &name));
    match last.split_once(':') {
        None if !last.is_empty() => Ok(format!("{name}:latest")),
        Some((model, tag)) if !model.is_empty() && !tag.is_empty() => Ok(name),
        None | Some(_) => Err(format!("`{text}` is not a model: write a name such as smollm2:135m")),
    }
}

/// An absolute path in a container.
pub(crate) fn parse_workdir(text: &str) -> Result<String, String> {
    if !text.starts_with('/') || text.contains('\0') {
        return Err(format!("`{text}` is not an absolute path"));
    }
    Ok(text.into())
}

/// A time to pull an image in.
pub(crate) fn parse_pull_timeout(text: &str) -> Result<Span, String> {
    let span = parse_span(text)?;
    if !(Span::from_secs(1)..=DockerTask::PULL_TIMEOUT_MAX).contains(&span) {
        return Err(format!("`{text}` is out of bounds: a pull may take 1s to 90m"));
    }
    Ok(span)
}

/// Thousandths of a temperature.
pub(crate) fn parse_temperature(text: &str) -> Result<u32, String> {
    text::decimal(text.trim(), 1_000, 3)
        .and_then(|milli| u32::try_from(milli).ok())
        .filter(|milli| *milli <= LlmTask::TEMPERATURE_MILLI_MAX)
        .ok_or_else(|| format!("`{text}` is not a temperature: write 0 to 10 with at most three decimals"))
}

/// An amount above zero.
pub(crate) fn parse_positive_micro(text: &str) -> Result<Micro, String> {
    let amount: Micro = text.parse().map_err(|error: BadAmount| error.to_string())?;
    if amount == Micro::ZERO {
        return Err("the amount must be more than zero".into());
    }
    Ok(amount)
}

/// Memory of any kind: at least one page of WebAssembly, at most 64 TiB.
pub(crate) fn parse_memory(text: &str) -> Result<u64, String> {
    let bytes = text::parse_bytes(text)?;
    if !(64 << 10..=64 << 40).contains(&bytes) {
        return Err(format!("`{text}` is out of bounds: 64KiB to 64TiB may be asked for"));
    }
    Ok(bytes)
}

/// `KEY=VALUE` with a key.
fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err(format!("`{text}` is not KEY=VALUE")),
    }
}

fn parse_env(text: &str) -> Result<(String, Option<String>), String> {
    match text.split_once('=') {
        Some(("", _)) => Err(format!("`{text}` has no name before `=`")),
        Some((name, value)) => Ok((name.into(), Some(value.into()))),
        None if text.is_empty() => Err("the name is empty".into()),
        None => Ok((text.into(), None)),
    }
}

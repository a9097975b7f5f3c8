//! `modchain run` and `modchain quote`: how a job is described by flags.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use modchain_types::money::BadAmount;
use modchain_types::{Micro, Name, Span, SubmitKey};

use super::{EXAMPLES_FIRST, parse_key, parse_name, parse_span};
use crate::text;

/// `modchain run`.
#[derive(Debug, Args)]
#[command(help_template = EXAMPLES_FIRST, before_help = "Examples:\n  modchain run --wasm primes.wat --max-cost 0.10 -- 1000\n  \
                        echo hi | modchain run --stdin --wasm echo.wat --max-cost 0.05\n  \
                        id=$(modchain run -d -q -f job.toml)", after_help = "A node's owner can read everything that a job is given: do not \
                        send secrets to machines that you do not trust.")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) job: JobFlags,
    /// Do not follow the job: print its id and leave
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Print the whole specification and the quote, and submit nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Let the first Ctrl-C cancel the job instead of detaching from it
    #[arg(long)]
    pub(crate) cancel_on_interrupt: bool,
    /// Key of this job: the same key is the same job, however often it is sent. Random by default
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    pub(crate) id: Option<SubmitKey>,
}

/// `modchain quote`.
#[derive(Debug, Args)]
#[command(help_template = EXAMPLES_FIRST, before_help = "Examples:\n  modchain quote --wasm primes.wat --max-cost 0.10\n  \
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
}

/// What an unreachable job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnDisconnectFlag {
    /// Goes on; two attempts may overlap, one is billed
    Keep,
    /// Ends with its lease
    Stop,
}

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
    /// Cores, such as 2 or 0.5; 1 by default
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = text::parse_cpus)]
    pub(crate) cpus: Option<u32>,
    /// Memory: reserved, and the job's limit; 256MiB by default
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = parse_memory)]
    pub(crate) memory: Option<u64>,
    /// The one node to use
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub(crate) node: Option<Name>,
    /// Only nodes with this label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) require: Vec<(String, String)>,
    /// Environment of the job; a name alone takes the value from here; may be repeated
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = parse_env)]
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
    /// Higher goes first, -100 to 100
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
    /// Arguments of the job
    #[arg(last = true, value_name = "ARG")]
    pub(crate) args: Vec<String>,
}

/// An amount above zero.
pub(crate) fn parse_positive_micro(text: &str) -> Result<Micro, String> {
    let amount: Micro = text.parse().map_err(|error: BadAmount| error.to_string())?;
    if amount == Micro::ZERO {
        return Err("the amount must be more than zero".into());
    }
    Ok(amount)
}

/// Memory of a job: at least one page of WebAssembly, at most 64 TiB.
pub(crate) fn parse_memory(text: &str) -> Result<u64, String> {
    let bytes = text::parse_bytes(text)?;
    if !(64 << 10..=64 << 40).contains(&bytes) {
        return Err(format!("`{text}` is out of bounds: a job's memory is 64KiB to 64TiB"));
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

//! The agent's program.

mod doctor;
mod failure;
mod join;
mod start;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use modchain_agent::config::{Config, Settings};
use modchain_agent::executor::wasm::child_main;
use modchain_agent::probe::{Findings, SystemProbe};
use modchain_types::{Micro, Offer};
use modchain_wire::WIRE_VERSION;
use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;

use crate::failure::{FAILED, Failure};

/// Examples first: that is what most people look for.
const EXAMPLES_FIRST: &str = "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

/// Offers this machine to a Modchain pool and runs the jobs that it is given.
#[derive(Debug, Parser)]
#[command(
    name = "modchain-agent",
    version,
    help_template = EXAMPLES_FIRST,
    before_help = "Examples:\n  modchain-agent join --orchestrator pool.example:7444 --token-file token.txt\n  \
                   modchain-agent start\n  modchain-agent doctor\n  modchain-agent info -o json\n\n"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Become a node of a pool, with a token that its operator made
    #[command(
        help_template = EXAMPLES_FIRST,
        before_help = "Examples:\n  modchain-agent join --orchestrator pool.example:7444 --token-file token.txt\n  \
                       modchain-agent join --orchestrator pool.example:7444 --token-file - --name oslo-03\n  \
                       modchain-agent join --orchestrator [2001:db8::1]:7444 --token-file token.txt --replace -o json\n\n",
        after_help = "Exit codes: 0 joined; 2 not a token, or not one for a node; 4 refused; 5 not reached; 7 joined already"
    )]
    Join(join::Join),
    /// Connect to an orchestrator and run jobs until stopped
    #[command(
        help_template = EXAMPLES_FIRST,
        before_help = "Examples:\n  modchain-agent start\n  modchain-agent start --slots 4 --memory 12GiB --label pool=a100\n  \
                       modchain-agent start --orchestrator 127.0.0.1:7443 --identity DIR --data DIR\n\n"
    )]
    Start(Start),
    /// Check everything that this node needs, and say what to do about what is amiss
    #[command(
        help_template = EXAMPLES_FIRST,
        before_help = "Examples:\n  modchain-agent doctor\n  modchain-agent doctor -o json | jq '.checks[] | select(.status != \"ok\")'\n\n",
        after_help = "Exit codes: 0 no problem (warnings are none); 1 a problem"
    )]
    Doctor(Doctor),
    /// Show what this machine would offer
    Info(Info),
    /// Show the version
    Version {
        /// How to print it
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
}

#[derive(Debug, clap::Args)]
struct Start {
    #[command(flatten)]
    member: Member,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Doctor {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    member: Member,
    #[command(flatten)]
    common: Common,
}

/// Who this node is, and to whom it belongs.
#[derive(Debug, clap::Args)]
struct Member {
    /// Where the orchestrator listens [default: where this node joined]
    #[arg(long, env = "MODCHAIN_AGENT_ORCHESTRATOR", value_name = "HOST:PORT")]
    orchestrator: Option<String>,
    /// The folder with this node's key and certificates [default: where joining put them]
    #[arg(long, env = "MODCHAIN_AGENT_IDENTITY", value_name = "DIR")]
    identity: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Info {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Settings in TOML [default: /etc/modchain/agent.toml for root, else $XDG_CONFIG_HOME/modchain/agent.toml]
    #[arg(long, env = "MODCHAIN_AGENT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// How to print an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

fn main() -> ExitCode {
    // First of all: the child of a job must not do anything else that the agent does. It holds no keys.
    child_main();
    if let Err(error) = modchain_certs::harden_process() {
        eprintln!("warning: a crash may leave an image of memory on the disk: {error}");
    }
    modchain_certs::install_crypto_provider();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return complain(&error),
    };
    log_to_stderr(match cli.command {
        Command::Start(_) => tracing::Level::INFO,
        Command::Join(_) | Command::Doctor(_) | Command::Info(_) | Command::Version { .. } => tracing::Level::WARN,
    });
    let as_json = cli.command.output() == Output::Json;
    match run(cli.command) {
        Ok(code) => code,
        Err(failure) => {
            failure.print(as_json);
            ExitCode::from(failure.exit)
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Join(arguments) => join::join(arguments)?,
        Command::Start(Start { member, common }) => start::start(member.config(&common)?)?,
        Command::Doctor(Doctor { output, member, common }) => {
            let well = doctor::doctor(&member.config(&common)?, output)?;
            return Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(FAILED) });
        }
        Command::Info(Info { output, common }) => info(output, &common)?,
        Command::Version { output } => print_version(output),
    }
    Ok(ExitCode::SUCCESS)
}

impl Command {
    fn output(&self) -> Output {
        match self {
            Self::Join(join) => join.output,
            Self::Start(_) => Output::Text,
            Self::Doctor(Doctor { output, .. }) | Self::Info(Info { output, .. }) | Self::Version { output } => *output,
        }
    }
}

impl Member {
    /// With what joining left where nobody says otherwise.
    fn config(self, common: &Common) -> anyhow::Result<Config> {
        Config::load(self.orchestrator, self.identity, &common.settings, common.config.as_deref())?.with_joined()
    }
}

/// Help and the version go to standard output; what makes no sense is a failure like any other, and JSON where JSON was asked
/// for.
fn complain(error: &clap::Error) -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let as_json = arguments.windows(2).any(|pair| (pair[0] == "-o" || pair[0] == "--output") && pair[1] == "json")
        || arguments.iter().any(|argument| argument == "-ojson" || argument == "--output=json");
    if as_json && error.use_stderr() {
        let said = error.render().to_string();
        // The first paragraph is what is wrong; how it should be is in the help.
        let what = said.split("\n\n").next().unwrap_or(&said).split_whitespace().collect::<Vec<_>>().join(" ");
        let failure = Failure::usage(what.trim_start_matches("error: ")).hint("see --help");
        failure.print(true);
        return ExitCode::from(failure.exit);
    }
    // Where standard error or output is closed there is nobody to tell.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(failure::USAGE))
}

/// Lines for people on a terminal, JSON elsewhere. `MODCHAIN_LOG` chooses what is said, such as `debug` or
/// `modchain_agent=debug,warn`.
fn log_to_stderr(level: tracing::Level) {
    let filter =
        EnvFilter::builder().with_default_directive(level.into()).with_env_var("MODCHAIN_LOG").from_env_lossy();
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        logs.with_target(false).init();
    } else {
        logs.json().flatten_event(true).init();
    }
}

fn print_version(output: Output) {
    let version = env!("CARGO_PKG_VERSION");
    match output {
        Output::Text => println!("modchain-agent {version}"),
        Output::Json => println!(
            "{}",
            json!({
                "schema": "modchain.version/v1",
                "program": "modchain-agent",
                "version": version,
                "wire": WIRE_VERSION,
            })
        ),
    }
}

fn info(output: Output, common: &Common) -> anyhow::Result<()> {
    let config = Config::load(None, None, &common.settings, common.config.as_deref())?;
    // The data folder may not be there yet: its nearest parent tells how much room it will have.
    let place = config.data.ancestors().find(|folder| folder.exists()).unwrap_or(&config.data);
    let machine = SystemProbe::new(place).machine();
    let offer = config.offer(&machine, &Findings::default(), false)?;
    match output {
        Output::Json => {
            let mut document = offer_json(&offer);
            document["data"] = json!(config.data);
            document["machine"] = json!({
                "cores": machine.cores,
                "memory_bytes": machine.memory_bytes,
                "disk_free_bytes": machine.disk_free_bytes,
            });
            println!("{document}");
        }
        Output::Text => print!("{}", offer_text(&config, &offer)),
    }
    Ok(())
}

/// What currency an amount is in is the orchestrator's to say.
fn amount_json(amount: Micro) -> Value {
    json!({ "micro": amount.0, "currency": null })
}

fn offer_json(offer: &Offer) -> Value {
    let (capabilities, tariff) = (&offer.capabilities, &offer.tariff);
    let gpu_hour: serde_json::Map<String, Value> =
        tariff.gpu_hour.iter().map(|(model, price)| (model.to_string(), amount_json(*price))).collect();
    let labels: serde_json::Map<String, Value> =
        capabilities.labels.iter().map(|(key, value)| (key.to_string(), json!(value.as_str()))).collect();
    json!({
        "schema": "modchain.agent_info/v1",
        "program": "modchain-agent",
        "version": offer.agent_version.as_str(),
        "wire": WIRE_VERSION,
        "adapters": capabilities.adapters.iter().map(|adapter| adapter.word()).collect::<Vec<_>>(),
        "slots": capabilities.slots,
        "cpu_milli": capabilities.cpu_milli,
        "memory_bytes": capabilities.memory_bytes,
        "disk_bytes": capabilities.disk_bytes,
        "gpus": capabilities.gpus.iter().map(|gpu| json!({
            "uuid": gpu.uuid.as_str(),
            "vendor": gpu.vendor.as_str(),
            "model": gpu.model.as_str(),
            "memory_bytes": gpu.memory_bytes,
        })).collect::<Vec<_>>(),
        "labels": labels,
        "region": capabilities.region.as_str(),
        "prices": {
            "core_hour": amount_json(tariff.core_hour),
            "gib_hour": amount_json(tariff.gib_hour),
            "gpu_hour": gpu_hour,
            "million_prompt_tokens": amount_json(tariff.million_prompt_tokens),
            "million_output_tokens": amount_json(tariff.million_output_tokens),
            "minimum": amount_json(tariff.minimum),
        },
    })
}

fn offer_text(config: &Config, offer: &Offer) -> String {
    let (capabilities, tariff) = (&offer.capabilities, &offer.tariff);
    let adapters: Vec<&str> = capabilities.adapters.iter().map(|adapter| adapter.word()).collect();
    let labels: Vec<String> = capabilities.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let gib = |bytes: u64| format!("{}.{} GiB", bytes >> 30, ((bytes % (1 << 30)) * 10) >> 30);
    let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let rows = [
        ("version", offer.agent_version.to_string()),
        ("adapters", adapters.join(", ")),
        ("slots", capabilities.slots.to_string()),
        ("cores", format!("{}.{:03}", capabilities.cpu_milli / 1000, capabilities.cpu_milli % 1000)),
        ("memory", gib(capabilities.memory_bytes)),
        ("disk", gib(capabilities.disk_bytes)),
        ("labels", or_none(labels.join(", "))),
        ("region", or_none(capabilities.region.to_string())),
        ("core price", format!("{} an hour", tariff.core_hour)),
        ("memory price", format!("{} a GiB and hour", tariff.gib_hour)),
        ("minimum", format!("{} a job", tariff.minimum)),
        ("data", config.data.display().to_string()),
    ];
    rows.iter().map(|(name, value)| format!("{name:<13} {value}\n")).collect()
}

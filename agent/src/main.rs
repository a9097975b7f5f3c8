//! The agent's program.

mod start;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use modchain_agent::config::{Config, Settings};
use modchain_agent::executor::wasm::child_main;
use modchain_agent::probe::SystemProbe;
use modchain_types::{Micro, Offer};
use modchain_wire::WIRE_VERSION;
use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;

/// Offers this machine to a Modchain pool and runs the jobs that it is given.
#[derive(Debug, Parser)]
#[command(name = "modchain-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Connect to an orchestrator and run jobs until stopped
    Start(Start),
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
    /// Where the orchestrator listens
    #[arg(long, env = "MODCHAIN_AGENT_ORCHESTRATOR", value_name = "HOST:PORT")]
    orchestrator: Option<String>,
    /// The folder with this node's key and certificates
    #[arg(long, env = "MODCHAIN_AGENT_IDENTITY", value_name = "DIR")]
    identity: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
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
    // First of all: the child of a job must not do anything else that the agent does.
    child_main();
    modchain_certs::install_crypto_provider();
    let cli = Cli::parse();
    log_to_stderr();
    let result = match cli.command {
        Command::Start(Start { orchestrator, identity, common }) => {
            Config::load(orchestrator, identity, &common.settings, common.config.as_deref()).and_then(start::start)
        }
        Command::Info(Info { output, common }) => info(output, &common),
        Command::Version { output } => {
            print_version(output);
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Lines for people on a terminal, JSON elsewhere. `MODCHAIN_LOG` chooses what is said, such as `debug` or
/// `modchain_agent=debug,warn`.
fn log_to_stderr() {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .with_env_var("MODCHAIN_LOG")
        .from_env_lossy();
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
    let offer = config.offer(&machine)?;
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

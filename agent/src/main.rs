//! The agent's program.

mod ask;
mod doctor;
mod failure;
mod info;
mod init;
mod join;
mod service;
mod start;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use modchain_agent::config::{ConfigSource, Settings};
use modchain_agent::executor::wasm::child_main;
use modchain_wire::WIRE_VERSION;
use serde_json::json;
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
                   modchain-agent init\n  modchain-agent start\n  sudo modchain-agent service install\n  \
                   modchain-agent status\n  modchain-agent doctor\n\n"
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
    /// Write the owner's file: prices, limits and what is allowed, each with its default and what it means
    #[command(
        help_template = EXAMPLES_FIRST,
        before_help = "Examples:\n  modchain-agent init\n  modchain-agent init --config ./agent.toml --force\n\n",
        after_help = "Exit codes: 0 written; 7 there is a file already"
    )]
    Init(init::Init),
    /// Show what this machine would offer, and what it would not and why
    Info(Info),
    /// Show how the running agent is: whom it is connected to, what it runs, what it offers
    #[command(
        help_template = EXAMPLES_FIRST,
        before_help = "Examples:\n  modchain-agent status\n  modchain-agent status -o json | jq .connection\n  \
                       sudo modchain-agent status      # of the service\n\n",
        after_help = "Exit codes: 0 it runs; 5 it does not"
    )]
    Status(ask::Ask),
    /// Take no new jobs, restarts included, until `resume`; what runs goes on
    #[command(after_help = "Exit codes: 0 done; 5 no agent runs")]
    Pause(ask::Ask),
    /// Take new jobs again, after `pause` or `drain`
    #[command(after_help = "Exit codes: 0 done; 5 no agent runs")]
    Resume(ask::Ask),
    /// Take no new jobs until the agent is started again or `resume`; with a deadline, end what still runs then: it goes on
    /// elsewhere, and nobody pays for it here
    #[command(
        help_template = EXAMPLES_FIRST,
        before_help = "Examples:\n  modchain-agent drain --wait\n  modchain-agent drain --deadline 10m --wait && reboot\n\n",
        after_help = "Exit codes: 0 done (with --wait: nothing runs any more); 5 no agent runs"
    )]
    Drain(ask::Drain),
    /// Read the settings again: prices, limits and what is allowed count for the jobs that come after
    #[command(
        after_help = "Exit codes: 0 done; 1 the file is not in order, and the old settings hold on; 5 no agent runs"
    )]
    Reload(ask::Ask),
    /// Run the agent as a service of systemd
    #[command(subcommand)]
    Service(service::Service),
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
        Command::Join(_)
        | Command::Doctor(_)
        | Command::Init(_)
        | Command::Info(_)
        | Command::Status(_)
        | Command::Pause(_)
        | Command::Resume(_)
        | Command::Drain(_)
        | Command::Reload(_)
        | Command::Service(_)
        | Command::Version { .. } => tracing::Level::WARN,
    });
    let as_json = cli.command.output() == Output::Json;
    if !cli.command.has_sockets() {
        restore_sigpipe();
    }
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
        Command::Start(Start { member, common }) => start::start(member.source(common))?,
        Command::Doctor(Doctor { output, member, common }) => {
            let well = doctor::doctor(&member.source(common).load()?, output)?;
            return Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(FAILED) });
        }
        Command::Init(arguments) => init::init(arguments)?,
        Command::Info(Info { output, common }) => info::info(output, &common)?,
        Command::Status(arguments) => ask::status(&arguments)?,
        Command::Pause(arguments) => ask::pause(&arguments)?,
        Command::Resume(arguments) => ask::resume(&arguments)?,
        Command::Drain(arguments) => ask::drain(&arguments)?,
        Command::Reload(arguments) => ask::reload(&arguments)?,
        Command::Service(service) => return service::service(service),
        Command::Version { output } => print_version(output),
    }
    Ok(ExitCode::SUCCESS)
}

/// From here on whoever has read enough ends this quietly, as `status | head -1` should: Rust ignores SIGPIPE. A socket that the other
/// side closes does the same then, so programs with sockets come here when they are done with them.
fn restore_sigpipe() {
    // SAFETY: sets a signal's disposition to the default; no handler is involved.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

impl Command {
    /// Whether it speaks over connections in which a write may fail.
    fn has_sockets(&self) -> bool {
        match self {
            Self::Start(_)
            | Self::Doctor(_)
            | Self::Status(_)
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::Drain(_)
            | Self::Reload(_) => true,
            Self::Join(_) | Self::Init(_) | Self::Info(_) | Self::Service(_) | Self::Version { .. } => false,
        }
    }

    fn output(&self) -> Output {
        match self {
            Self::Join(join) => join.output,
            Self::Start(_) | Self::Init(_) => Output::Text,
            Self::Status(ask) | Self::Pause(ask) | Self::Resume(ask) | Self::Reload(ask) => ask.output,
            Self::Drain(drain) => drain.ask.output,
            Self::Service(service) => service.output(),
            Self::Doctor(Doctor { output, .. }) | Self::Info(Info { output, .. }) | Self::Version { output } => *output,
        }
    }
}

impl Member {
    fn source(self, common: Common) -> ConfigSource {
        let Self { orchestrator, identity } = self;
        ConfigSource { orchestrator, identity, settings: common.settings, file: common.config }
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

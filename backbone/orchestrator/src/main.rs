//! `modchain-orchestrator`: the program around the library.

mod print;
mod service;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use modchain_orchestrator::accept::{accept_restore, look_at_restore};
use modchain_orchestrator::backup::{backup, restore};
use modchain_orchestrator::config::{self, Overrides, Settings};
use modchain_orchestrator::export::{ExportFormat, export};
use modchain_orchestrator::init::{InitOptions, init};
use modchain_orchestrator::rebuild::rebuild_view;
use modchain_orchestrator::serve::{Ended, serve};
use modchain_orchestrator::verify::verify;
use modchain_types::{AccountId, Asset, Name, Span};
use modchain_wire::WIRE_VERSION;
use serde_json::json;
use tracing_subscriber::EnvFilter;

/// What cannot be taken back was not confirmed.
const NOT_CONFIRMED: u8 = 2;

/// Help begins with what the command does and how it is used, before what it takes.
const EXAMPLES_FIRST: &str = "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

/// Runs a pool of machines: holds the clients' money in escrow, places jobs, meters and settles them.
#[derive(Parser)]
#[command(name = "modchain-orchestrator", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a data directory, its certificate authority and its journal, and print the token of the first operator. Can be
    /// repeated: what is there stays
    #[command(before_help = "Examples:\n  modchain-orchestrator init --name lab && modchain-orchestrator serve\n  \
                             modchain-orchestrator init --operator-token", help_template = EXAMPLES_FIRST)]
    Init(Init),
    /// Serve agents, consoles and joiners until SIGTERM or Ctrl-C
    #[command(before_help = "Examples:\n  modchain-orchestrator serve\n  \
                             modchain-orchestrator serve --data ./pool --listen 192.0.2.1:7443 --advertise pool.example", help_template = EXAMPLES_FIRST)]
    Serve(Serve),
    /// Look at the ledger
    #[command(subcommand)]
    Ledger(Ledger),
    /// Copy the data directory, also while it is being served: journal, snapshot, blobs, input, output, keys. The copy is whole in
    /// itself and appears under its name once all of it is on disk
    #[command(before_help = "Examples:\n  modchain-orchestrator backup /mnt/backups/2026-11-29\n  \
                             modchain-orchestrator backup --data ./pool ./pool-copy -o json", help_template = EXAMPLES_FIRST)]
    Backup {
        /// The copy, a new or an empty folder; made with mode 0700. Whoever has it has the pool's keys
        #[arg(value_name = "TO")]
        to: PathBuf,
        /// The data directory
        #[arg(long, value_name = "DIR", env = "MODCHAIN_ORCHESTRATOR_DATA", default_value = config::DATA_DIR)]
        data: PathBuf,
        /// How to print the result
        #[arg(short, long, value_enum, default_value_t = Output::Human)]
        output: Output,
    },
    /// Make a data directory of a copy, once all of the copy was checked. Never overwrites one: an empty folder that is there, such
    /// as a mounted disk, is filled
    #[command(before_help = "Examples:\n  modchain-orchestrator restore /mnt/backups/2026-11-29\n  \
                             modchain-orchestrator restore ./pool-copy --data ./pool", help_template = EXAMPLES_FIRST)]
    Restore {
        /// The copy, made by `backup`
        #[arg(value_name = "FROM")]
        from: PathBuf,
        /// The data directory to make, or an empty folder to make it in
        #[arg(long, value_name = "DIR", env = "MODCHAIN_ORCHESTRATOR_DATA", default_value = config::DATA_DIR)]
        data: PathBuf,
        /// How to print the result
        #[arg(short, long, value_enum, default_value_t = Output::Human)]
        output: Output,
    },
    /// Go on with a restored copy although nodes have seen more than it knows. What happened after the copy is lost: work that nodes
    /// hold and it does not know is ended, unbilled. Nobody may serve meanwhile
    #[command(before_help = "Examples:\n  modchain-orchestrator accept-restore --yes\n  \
                             modchain-orchestrator accept-restore --data ./pool --yes", help_template = EXAMPLES_FIRST)]
    AcceptRestore {
        /// The data directory
        #[arg(long, value_name = "DIR", env = "MODCHAIN_ORCHESTRATOR_DATA", default_value = config::DATA_DIR)]
        data: PathBuf,
        /// Do it. Without this it only says what would be lost
        #[arg(short, long)]
        yes: bool,
        /// How to print the result
        #[arg(short, long, value_enum, default_value_t = Output::Human)]
        output: Output,
    },
    /// The view of ended jobs, which is made from the journal
    #[command(subcommand)]
    View(ViewVerb),
    /// Run the orchestrator as a service of systemd
    #[command(subcommand)]
    Service(service::Service),
    /// Show the version
    Version {
        /// How to print it
        #[arg(short, long, value_enum, default_value_t = Output::Human)]
        output: Output,
    },
}

#[derive(clap::Args)]
struct Init {
    /// The data directory; made with mode 0700
    #[arg(long, value_name = "DIR", env = "MODCHAIN_ORCHESTRATOR_DATA", default_value = config::DATA_DIR)]
    data: PathBuf,
    /// What to call the pool; members see it [default: modchain]
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    /// Print a token for an operator though the pool is not new: the way back in for whoever holds this machine. It is taken
    /// in by the next start of `serve`
    #[arg(long)]
    operator_token: bool,
    /// What the journal's money is: fixed for ever. Test credits if not given
    #[arg(long, value_enum)]
    asset: Option<AssetArg>,
    /// A ready-made client, for a pool on one machine: submits jobs and pays for them from the account of this name
    #[arg(long = "client", value_name = "NAME")]
    clients: Vec<Name>,
    /// A ready-made operator: sees everything, gives test credits, lets others join
    #[arg(long = "operator", value_name = "NAME")]
    operators: Vec<Name>,
    /// A ready-made node, and the account that its earnings go to: without `=ACCOUNT` that of the node's own name. An account that is
    /// named must belong to an identity that is known or made in the same command
    #[arg(long = "node", value_name = "NAME[=ACCOUNT]", value_parser = node)]
    nodes: Vec<(Name, Option<AccountId>)>,
    /// Where the identities' folders go: NAME/{key,cert,ca}.pem [default: DATA/identities]
    #[arg(long, value_name = "DIR")]
    identities: Option<PathBuf>,
    /// How to print what was made
    #[arg(short, long, value_enum, default_value_t = Output::Human)]
    output: Output,
}

#[derive(clap::Args)]
struct Serve {
    /// The data directory, made by `init` [default: /var/lib/modchain/orchestrator]
    #[arg(long, value_name = "DIR", env = "MODCHAIN_ORCHESTRATOR_DATA")]
    data: Option<PathBuf>,
    /// Address and UDP port to listen on; port 0 takes a free one [default: 0.0.0.0:7443]
    #[arg(long, value_name = "ADDR:PORT", env = "MODCHAIN_ORCHESTRATOR_LISTEN")]
    listen: Option<SocketAddr>,
    /// Address and UDP port for joining; port 0 takes a free one [default: the address of --listen, and the port after its
    /// port]
    #[arg(long, value_name = "ADDR:PORT", env = "MODCHAIN_ORCHESTRATOR_JOIN_LISTEN")]
    join_listen: Option<SocketAddr>,
    /// Host name or address that members are told to connect to, if it is not the one that they join at
    #[arg(long, value_name = "HOST", env = "MODCHAIN_ORCHESTRATOR_ADVERTISE")]
    advertise: Option<String>,
    /// How long the certificates of members live; they are renewed by themselves at two thirds of it [default: 24h]
    #[arg(long, value_name = "DURATION", env = "MODCHAIN_ORCHESTRATOR_CERT_LIFE", value_parser = span)]
    cert_life: Option<Span>,
    /// Settings, TOML with the keys data, listen, join_listen, advertise, cert_life, storage_low_mib, ballast_mib,
    /// priority_ceiling (how far priorities count against other accounts, 0 by default), priority_ceilings (a table of
    /// accounts for which that differs), keep_output_for (7d), keep_output_mib (a quarter of the disk), keep_jobs_for (90d),
    /// keep_jobs (1000000), log; flags and environment go before it
    /// [default: /etc/modchain/orchestrator.toml, if there is one]
    #[arg(long, value_name = "FILE", env = "MODCHAIN_ORCHESTRATOR_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Ledger {
    /// Check every byte of the journal, replay it, audit the result. Reads only; works beside a running orchestrator
    Verify {
        /// The data directory
        #[arg(long, value_name = "DIR", env = "MODCHAIN_ORCHESTRATOR_DATA", default_value = config::DATA_DIR)]
        data: PathBuf,
        /// How to print the result
        #[arg(short, long, value_enum, default_value_t = Output::Human)]
        output: Output,
    },
    /// Print every posting there ever was, one line for each leg; all amounts of one number sum to zero. Reads only; works
    /// beside a running orchestrator
    #[command(before_help = "Examples:\n  modchain-orchestrator ledger export > postings.csv\n  \
                             modchain-orchestrator ledger export -o jsonl", help_template = EXAMPLES_FIRST)]
    Export {
        /// The data directory
        #[arg(long, value_name = "DIR", env = "MODCHAIN_ORCHESTRATOR_DATA", default_value = config::DATA_DIR)]
        data: PathBuf,
        /// How to print them
        #[arg(short, long, value_enum, default_value_t = Postings::Csv)]
        output: Postings,
    },
}

/// How postings are printed.
#[derive(Clone, Copy, ValueEnum)]
enum Postings {
    Csv,
    Jsonl,
}

#[derive(Subcommand)]
enum ViewVerb {
    /// Make it anew. `serve` does so by itself where it is missing, behind or broken; nobody may serve meanwhile
    Rebuild {
        /// The data directory
        #[arg(long, value_name = "DIR", env = "MODCHAIN_ORCHESTRATOR_DATA", default_value = config::DATA_DIR)]
        data: PathBuf,
        /// How to print the result
        #[arg(short, long, value_enum, default_value_t = Output::Human)]
        output: Output,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Human,
    Json,
}

#[derive(Clone, Copy, ValueEnum)]
enum AssetArg {
    Test,
    Usdc,
}

impl From<AssetArg> for Asset {
    fn from(asset: AssetArg) -> Self {
        match asset {
            AssetArg::Test => Self::Test,
            AssetArg::Usdc => Self::Usdc,
        }
    }
}

fn span(text: &str) -> Result<Span, String> {
    modchain_types::time::parse_span(text).map_err(|error| error.to_string())
}

fn node(text: &str) -> Result<(Name, Option<AccountId>), String> {
    let (name, account) = text.split_once('=').map_or((text, None), |(name, account)| (name, Some(account)));
    let account = account.map(str::parse).transpose().map_err(|error: modchain_types::id::BadId| error.to_string())?;
    Ok((name.parse().map_err(|error: modchain_types::id::BadId| error.to_string())?, account))
}

fn main() -> ExitCode {
    if let Err(error) = modchain_certs::harden_process() {
        eprintln!("warning: a crash may leave keys in an image of this program's memory: {error}");
    }
    let verb = Cli::parse().command;
    if !matches!(verb, Verb::Serve(_)) {
        restore_sigpipe();
    }
    let hint = if_denied(&verb);
    match run(verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            let denied = |io: &std::io::Error| io.kind() == std::io::ErrorKind::PermissionDenied;
            if error.chain().any(|cause| cause.downcast_ref().is_some_and(denied)) {
                eprintln!("  hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Whoever has read enough ends this quietly, as `ledger export | head` and `ledger verify | grep -q` should: Rust ignores SIGPIPE.
fn restore_sigpipe() {
    // SAFETY: sets a signal's disposition to the default before any thread exists; no handler is involved.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// What to do where the system denies something.
fn if_denied(verb: &Verb) -> &'static str {
    match verb {
        Verb::Backup { .. } => {
            "run this as the user that the data folder belongs to, and name a place that this user may write to"
        }
        Verb::Restore { .. } => {
            "run this as the user that is to serve: the data folder, empty, and every file of the copy must belong to it"
        }
        _ => "run this as the user that the data folder belongs to, or name another with --data DIR",
    }
}

fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Init(args) => {
            let options = InitOptions {
                data: args.data,
                name: args.name,
                operator_token: args.operator_token,
                asset: args.asset.map(Into::into),
                clients: args.clients,
                operators: args.operators,
                nodes: args.nodes,
                identities: args.identities,
            };
            let made = init(&options)?;
            print::init(&options, &made, args.output);
            Ok(ExitCode::SUCCESS)
        }
        Verb::Serve(args) => {
            let file = config::read_file(args.config.as_deref())?;
            let Serve { data, listen, join_listen, advertise, cert_life, config: _ } = args;
            let overrides = Overrides { data, listen, join_listen, advertise, cert_life };
            let settings = Settings::resolve(overrides, file)?;
            start_log(settings.log.as_deref())?;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let ended = runtime.block_on(serve(&settings));
            // Whatever still blocks has nothing to say that matters: acknowledged is what is on disk.
            runtime.shutdown_background();
            match ended? {
                Ended::Asked => Ok(ExitCode::SUCCESS),
                Ended::Died(part) => anyhow::bail!("{part} died; see the log, then start again"),
            }
        }
        Verb::Ledger(Ledger::Verify { data, output }) => match verify(&data) {
            Ok(verified) => {
                print::verified(&verified, output);
                Ok(ExitCode::SUCCESS)
            }
            Err(error) => {
                if output == Output::Json {
                    println!("{}", json!({ "schema": "modchain.verify/v1", "ok": false, "error": error.to_string() }));
                }
                Err(anyhow::Error::new(error).context("the journal does not pass"))
            }
        },
        Verb::Ledger(Ledger::Export { data, output }) => {
            let format = match output {
                Postings::Csv => ExportFormat::Csv,
                Postings::Jsonl => ExportFormat::JsonLines,
            };
            export(&data, format, &mut std::io::BufWriter::new(std::io::stdout().lock()))?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Backup { to, data, output } => {
            print::backup(&backup(&data, &to, &mut |how_far| eprintln!("copied so far: {how_far}"))?, output);
            Ok(ExitCode::SUCCESS)
        }
        Verb::Restore { from, data, output } => {
            print::restored(&restore(&from, &data, &mut |how_far| eprintln!("restored so far: {how_far}"))?, output);
            Ok(ExitCode::SUCCESS)
        }
        Verb::AcceptRestore { data, yes, output } => {
            let acceptance = if yes { accept_restore(&data)? } else { look_at_restore(&data)? };
            print::acceptance(&acceptance, output);
            Ok(if yes { ExitCode::SUCCESS } else { ExitCode::from(NOT_CONFIRMED) })
        }
        Verb::View(ViewVerb::Rebuild { data, output }) => {
            let events = rebuild_view(&data)?;
            match output {
                Output::Human => println!("the view is made anew: it has all {events} events"),
                Output::Json => println!("{}", json!({ "schema": "modchain.view_rebuild/v1", "events": events })),
            }
            Ok(ExitCode::SUCCESS)
        }
        Verb::Service(service) => service::service(service),
        Verb::Version { output } => {
            let version = env!("CARGO_PKG_VERSION");
            match output {
                Output::Human => println!("modchain-orchestrator {version} (wire {WIRE_VERSION})"),
                Output::Json => println!(
                    "{}",
                    json!({
                        "schema": "modchain.version/v1",
                        "program": "modchain-orchestrator",
                        "version": version,
                        "wire": WIRE_VERSION,
                    })
                ),
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Human lines on a terminal, JSON otherwise, always on standard error: standard output is for the ready line.
fn start_log(from_file: Option<&str>) -> anyhow::Result<()> {
    let filter = match std::env::var("MODCHAIN_LOG") {
        Ok(filter) => EnvFilter::try_new(filter),
        Err(_) => EnvFilter::try_new(from_file.unwrap_or("info")),
    };
    let filter = filter.map_err(|error| anyhow::anyhow!("the log filter makes no sense: {error}"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        log.init()
    } else {
        log.json().init()
    }
    Ok(())
}

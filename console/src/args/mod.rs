//! The command line as clap reads it: global flags and one struct per command. Nothing here does anything.

mod access;
mod complaint;
mod run;

pub(crate) use access::{CertCommand, JoinArgs, LogoutArgs, TokenCommand, TokenCreateArgs};
pub(crate) use complaint::complaint;
pub(crate) use run::{
    ContainerFlags, GPUS_MAX, JobFlags, JobType, LlmFlags, MachineFlags, OnDisconnectFlag, PolicyFlag, QuoteArgs,
    RerunArgs, RunArgs, SpecArgs, parse_image, parse_memory, parse_model, parse_positive_micro, parse_pull_timeout,
    parse_temperature, parse_workdir,
};

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use modchain_types::id::BadId;
use modchain_types::{AccountId, Micro, Name, Span, SubmitKey};

/// Help begins with what the command does and how it is used, before what it takes.
const EXAMPLES_FIRST: &str = "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

/// Rent machines, run jobs, pay for what was used.
#[derive(Debug, Parser)]
#[command(
    name = "modchain",
    version,
    disable_help_subcommand = true,
    help_template = EXAMPLES_FIRST,
    before_help = "Examples:\n  modchain up -- run --wasm examples/primes.wat --max-cost 0.10\n  modchain run -d -q -f job.toml\n  \
                   modchain logs -f @last",
    after_help = "More: modchain help exit-codes|output|filters|environment|security|console|keys"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    /// The console if none is named
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Flags that every command takes, anywhere on the line.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Which context to use
    #[arg(short, long, global = true, env = "MODCHAIN_CONTEXT", value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Address of the orchestrator, instead of the context's
    #[arg(long, global = true, env = "MODCHAIN_ORCHESTRATOR", value_name = "HOST:PORT")]
    pub(crate) orchestrator: Option<String>,
    /// How to print results
    #[arg(short, long, global = true, env = "MODCHAIN_OUTPUT", value_name = "FORMAT")]
    pub(crate) output: Option<FormatFlag>,
    /// Say nothing but results
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Log more on standard error; repeat for more still
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// When to colour
    #[arg(long, global = true, value_name = "WHEN")]
    pub(crate) color: Option<ColorWhen>,
    /// Use plain characters only in tables and in the console
    #[arg(long, global = true)]
    pub(crate) ascii: bool,
    /// Never ask
    #[arg(long, global = true)]
    pub(crate) no_input: bool,
    /// Answer yes to every question
    #[arg(short, long, global = true)]
    pub(crate) yes: bool,
    /// Longest time to wait for a connection, 5s by default
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_span)]
    pub(crate) connect_timeout: Option<Span>,
    /// Show times in UTC
    #[arg(long, global = true)]
    pub(crate) utc: bool,
    /// The configuration file; the contexts are kept beside it
    #[arg(long, global = true, env = "MODCHAIN_CONFIG", value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FormatFlag {
    /// For people
    Table,
    /// For people, with more columns and whole ids
    Wide,
    /// One JSON document
    Json,
    /// One JSON object a line
    Jsonl,
    /// The same document in YAML
    Yaml,
    /// Lists only: every column, separated by commas
    Csv,
    /// Names or ids only, one a line
    Name,
}

impl FormatFlag {
    /// What a command makes for it.
    pub(crate) fn format(self) -> Format {
        match self {
            Self::Table | Self::Wide | Self::Csv => Format::Table,
            Self::Json | Self::Yaml => Format::Json,
            Self::Jsonl => Format::Jsonl,
            Self::Name => Format::Name,
        }
    }
}

/// What a command makes of its results. The shell sees to the rest: which columns, and in which notation a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Text for people.
    Table,
    /// One document, in JSON or YAML.
    Json,
    /// One JSON object a line.
    Jsonl,
    /// Names or ids only, one a line.
    Name,
}

impl Format {
    /// Whether programs read it.
    pub(crate) fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::Jsonl)
    }
}

/// How a list is shown.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TableArgs {
    /// Only these columns, by their lower-case names, in this order
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    pub(crate) columns: Vec<String>,
    /// Sort by a column; with a `-` before it the largest first
    #[arg(long, value_name = "[-]COLUMN", allow_hyphen_values = true)]
    pub(crate) sort: Option<String>,
    /// No line of names above the columns
    #[arg(long)]
    pub(crate) no_header: bool,
}

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ColorWhen {
    /// On terminals that can
    Auto,
    /// Everywhere
    Always,
    /// Nowhere
    Never,
}

/// One command each.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Open the terminal console; `modchain` alone does the same
    Console(ConsoleArgs),
    /// Start a local stack of the real programs: one orchestrator, agents, clients with test credits
    Up(UpArgs),
    /// Run a job and follow it
    Run(Box<RunArgs>),
    /// Tell what a job would cost and where it could run
    Quote(Box<QuoteArgs>),
    /// Print a job's output
    Logs(LogsArgs),
    /// List jobs
    Jobs(JobsArgs),
    /// Show one job, or explain why it is where it is
    Job(JobArgs),
    /// Cancel jobs
    Cancel(CancelArgs),
    /// Wait for jobs
    Wait(WaitArgs),
    /// Tell how things are
    Status(StatusArgs),
    /// List nodes
    Nodes(NodesArgs),
    /// Show one node, close nodes to new jobs, drain them, open them again
    #[command(
        subcommand,
        help_template = EXAMPLES_FIRST,
        before_help = "Examples:\n  modchain node show rig-1\n  modchain node cordon rig-1 --reason \"new disk\"\n  \
                       modchain node drain rig-1 --deadline 10m --wait -y\n  modchain node resume rig-1"
    )]
    Node(NodeCommand),
    /// Show the balance
    Account(AccountArgs),
    /// List what moved the balance
    Ledger(LedgerArgs),
    /// List what happened
    Events(EventsArgs),
    /// Give test credits to an account (operators)
    Credit(CreditArgs),
    /// Become a member of a pool with a token, and save a context for it
    Join(JoinArgs),
    /// Forget a context, and wipe the key that `join` made for it
    Logout(LogoutArgs),
    /// Make tokens with which others can join; list and revoke them
    #[command(
        subcommand,
        help_template = EXAMPLES_FIRST,
        before_help = "Examples:\n  modchain token create --role node --name rig-1\n  modchain token list\n  \
                       modchain token revoke mzxw6ytb"
    )]
    Token(TokenCommand),
    /// List who is in, and put somebody out
    #[command(
        subcommand,
        help_template = EXAMPLES_FIRST,
        before_help = "Examples:\n  modchain cert list\n  modchain cert revoke node/rig-1 --reason sold"
    )]
    Cert(CertCommand),
    /// Tell who the orchestrator takes you for, and until when
    Whoami,
    /// Look for what is wrong here and on the way to the orchestrator, and say what to do
    #[command(
        help_template = EXAMPLES_FIRST,
        before_help = "Examples:\n  modchain doctor\n  modchain doctor -c lab -o json",
        after_help = "Ends with 1 if anything does not work; what is merely worth a look is no problem."
    )]
    Doctor,
    /// Tell versions
    Version(VersionArgs),
    /// Manage contexts: an orchestrator and an identity, by a name
    #[command(subcommand)]
    Context(ContextCommand),
    /// Show and change the settings in the configuration file
    #[command(
        subcommand,
        help_template = EXAMPLES_FIRST,
        before_help = "Examples:\n  modchain config get\n  modchain config set max-cost 2.00\n  modchain config set theme \"\"\n  \
                       modchain config edit"
    )]
    Config(ConfigCommand),
    /// Print the manual page, or write one for each command
    #[command(
        help_template = EXAMPLES_FIRST,
        before_help = "Examples:\n  modchain man | man -l -\n  modchain man --dir ~/.local/share/man/man1"
    )]
    Man(ManArgs),
    /// Print completions for a shell
    #[command(
        help_template = EXAMPLES_FIRST,
        before_help = "Examples:\n  modchain completions zsh > ~/.zfunc/_modchain    commands and flags\n  \
                       source <(COMPLETE=bash modchain)                jobs, nodes and contexts too, asked as you type\n  \
                       COMPLETE=fish modchain | source                 the same for fish"
    )]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Explain a command or a topic: exit-codes, output, filters, environment, security, console, keys
    Help {
        /// Command or topic
        #[arg(value_name = "COMMAND|TOPIC")]
        topic: Vec<String>,
    },
}

/// `modchain console`.
#[derive(Debug, Default, Args)]
#[command(help_template = EXAMPLES_FIRST, before_help = "Examples:\n  modchain\n  modchain console --view jobs --filter 'state:running'\n  \
                        modchain console --record session.jsonl\n  modchain console --replay session.jsonl --speed 4")]
pub(crate) struct ConsoleArgs {
    /// The view to begin with: overview, nodes, jobs, events, account, access
    #[arg(long, value_name = "VIEW")]
    pub(crate) view: Option<String>,
    /// The filter of that view (modchain help filters)
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// Change nothing
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Show a recording instead of an orchestrator
    #[arg(long, value_name = "FILE", conflicts_with = "record")]
    pub(crate) replay: Option<PathBuf>,
    /// How many times faster a recording is shown than it was; 0 shows its end at once
    #[arg(long, value_name = "N", default_value_t = 1.0, requires = "replay", value_parser = parse_speed)]
    pub(crate) speed: f64,
    /// Write what comes into a new file, for --replay; it holds names and output of jobs
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
}

/// `modchain up`.
#[derive(Debug, Args)]
#[command(help_template = EXAMPLES_FIRST, before_help = "Examples:\n  modchain up\n  modchain up -- run --wasm examples/primes.wat --max-cost 0.10\n  \
                        modchain up --data /tmp/pool --agents 3 --headless")]
pub(crate) struct UpArgs {
    /// Where to keep everything, instead of the state directory
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// How many agents to start
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub(crate) agents: u16,
    /// Print one line when ready and then nothing; end on SIGTERM
    #[arg(long, conflicts_with = "command")]
    pub(crate) headless: bool,
    /// Any modchain command: run it against the stack, then stop everything and end with its exit code
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// `modchain logs`.
#[derive(Debug, Args)]
#[command(help_template = EXAMPLES_FIRST, before_help = "Examples:\n  modchain logs -f @last\n  \
                        modchain logs j-7f3a --tail 20 --timestamps --prefix\n  modchain logs -f j-7f3a --exit-code -o jsonl")]
pub(crate) struct LogsArgs {
    /// The job: id, unique prefix, name, or @last
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    /// Go on until the job has ended
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the last N lines
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(0..))]
    pub(crate) tail: Option<u32>,
    /// Only from this time on: a duration ago, or a time
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<String>,
    /// Only standard output
    #[arg(long, conflicts_with = "stderr")]
    pub(crate) stdout: bool,
    /// Only standard error
    #[arg(long)]
    pub(crate) stderr: bool,
    /// Begin each line with its time
    #[arg(long)]
    pub(crate) timestamps: bool,
    /// Begin each line with its stream, and print all on standard output
    #[arg(long)]
    pub(crate) prefix: bool,
    /// Print control characters to a terminal as they are
    #[arg(long)]
    pub(crate) raw: bool,
    /// End with the job's exit code
    #[arg(long)]
    pub(crate) exit_code: bool,
}

/// `modchain jobs`.
#[derive(Debug, Args)]
#[command(
    help_template = EXAMPLES_FIRST,
    before_help = "Examples:\n  modchain jobs state:running\n  modchain jobs --all --since 1h -o jsonl\n  \
                   modchain jobs --all 'cost>1 !node:rig-1' --sort -cost --columns job,name,cost\n  \
                   modchain jobs label:sweep=a -o name | modchain cancel -y -",
    after_help = "Filter words: modchain help filters"
)]
pub(crate) struct JobsArgs {
    /// Words that must all fit
    #[arg(value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
    /// Go on with what changes, as it changes; with --all, ended jobs are the newest 200
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Ended jobs too
    #[arg(long)]
    pub(crate) all: bool,
    /// Only one's own account's jobs
    #[arg(long)]
    pub(crate) mine: bool,
    #[command(flatten)]
    pub(crate) table: TableArgs,
    /// Only jobs submitted since: a duration ago, or a time
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<String>,
    /// At most this many
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
}

/// `modchain job`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true,
    help_template = EXAMPLES_FIRST,
    before_help = "Examples:\n  modchain job @last\n  modchain job @last --watch\n  modchain job j-7f3a -o json\n  modchain job explain j-7f3a\n  \
                   modchain job rerun @last --max-cost 0.20"
)]
pub(crate) struct JobArgs {
    #[command(subcommand)]
    pub(crate) command: Option<JobCommand>,
    /// Jobs: ids, unique prefixes, names, or @last; `-` reads them from standard input
    #[arg(value_name = "JOB", required = true)]
    pub(crate) jobs: Vec<String>,
    /// Go on with what changes, until all of them have ended
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// `modchain job ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Show jobs
    Show {
        /// Jobs: ids, unique prefixes, names, or @last; `-` reads them from standard input
        #[arg(value_name = "JOB", required = true)]
        jobs: Vec<String>,
        /// Go on with what changes, until all of them have ended
        #[arg(short, long)]
        watch: bool,
    },
    /// Explain why a job is where it is, node by node
    Explain {
        /// The job
        job: String,
    },
    /// List what happened to a job
    #[command(
        help_template = EXAMPLES_FIRST,
        before_help = "Examples:\n  modchain job events @last\n  modchain job events j-7f3a -f -o jsonl"
    )]
    Events {
        /// The job: id, unique prefix, name, or @last
        #[arg(value_name = "JOB")]
        job: String,
        /// Go on with new ones as they come
        #[arg(short, long)]
        follow: bool,
    },
    /// Print a job file that describes what was submitted
    Spec(SpecArgs),
    /// Submit what an earlier job was once more; flags override it
    Rerun(Box<RerunArgs>),
}

/// `modchain cancel`.
#[derive(Debug, Args)]
#[command(help_template = EXAMPLES_FIRST, before_help = "Examples:\n  modchain cancel @last\n  modchain cancel -y --wait j-7f3a\n  \
                        modchain jobs state:queued -o name | modchain cancel -y -")]
pub(crate) struct CancelArgs {
    /// Jobs; `-` reads ids from standard input
    #[arg(value_name = "JOB", required_unless_present = "all")]
    pub(crate) jobs: Vec<String>,
    /// Time between asking and killing
    #[arg(long, value_name = "DURATION", default_value = "10s", allow_hyphen_values = true, value_parser = parse_span)]
    pub(crate) grace: Span,
    /// Wait until they have ended
    #[arg(long)]
    pub(crate) wait: bool,
    /// For the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// Jobs that have ended already are no error
    #[arg(long)]
    pub(crate) if_running: bool,
    /// Every job that has not ended
    #[arg(long, conflicts_with = "jobs")]
    pub(crate) all: bool,
    /// With --all: only one's own account's jobs
    #[arg(long, requires = "all")]
    pub(crate) mine: bool,
}

/// `modchain wait`.
#[derive(Debug, Args)]
#[command(help_template = EXAMPLES_FIRST, before_help = "Examples:\n  modchain wait @last --timeout 2h\n  \
                        modchain wait j-7f3a j-70c4 --for any")]
pub(crate) struct WaitArgs {
    /// Jobs; `-` reads ids from standard input
    #[arg(value_name = "JOB", required = true)]
    pub(crate) jobs: Vec<String>,
    /// What to wait for
    #[arg(long = "for", value_name = "WHAT", default_value = "ended")]
    pub(crate) what: WaitFor,
    /// Longest wait; then the exit code is 124 and the jobs go on
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = parse_span)]
    pub(crate) timeout: Option<Span>,
}

/// What `wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WaitFor {
    /// Every job has ended
    Ended,
    /// Every job runs or has ended
    Running,
    /// One of the jobs has ended
    Any,
}

/// `modchain status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Go on with what changes, as it changes
    #[arg(short, long, conflicts_with = "check")]
    pub(crate) watch: bool,
    /// End with 1 if anything is wrong, or a node is lost
    #[arg(long)]
    pub(crate) check: bool,
}

/// `modchain nodes`.
#[derive(Debug, Args)]
#[command(
    help_template = EXAMPLES_FIRST,
    before_help = "Examples:\n  modchain nodes\n  modchain nodes 'gpu>=80 pool:a100' --sort -gpu\n  \
                   modchain nodes state:ready -o json\n  modchain nodes --watch",
    after_help = "Filter words: modchain help filters"
)]
pub(crate) struct NodesArgs {
    /// Words that must all fit
    #[arg(value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
    /// Go on with what changes, as it changes
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Only nodes of this pool
    #[arg(long, value_name = "NAME")]
    pub(crate) pool: Option<String>,
    /// Only nodes in this state
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Option<String>,
    #[command(flatten)]
    pub(crate) table: TableArgs,
    /// At most this many
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
}

/// `modchain node ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Show one node, with its GPUs and their last five minutes
    #[command(
        help_template = EXAMPLES_FIRST,
        before_help = "Examples:\n  modchain node show rig-1\n  modchain node show rig-1 -o json | jq '.history[-1]'"
    )]
    Show {
        /// Its name
        #[arg(value_name = "NODE", value_parser = parse_name)]
        node: Name,
    },
    /// Give nodes no new jobs; what runs goes on (owners and operators)
    #[command(
        help_template = EXAMPLES_FIRST,
        before_help = "Examples:\n  modchain node cordon rig-1 --reason \"new disk\"\n  \
                       modchain nodes pool:a -o name | modchain node cordon -"
    )]
    Cordon(NodeNames),
    /// Give cordoned nodes new jobs again (owners and operators)
    #[command(help_template = EXAMPLES_FIRST, before_help = "Examples:\n  modchain node uncordon rig-1")]
    Uncordon(NodeNames),
    /// Give nodes no new jobs until theirs have ended; with a deadline, what still runs then moves to other nodes (owners
    /// and operators)
    #[command(
        help_template = EXAMPLES_FIRST,
        before_help = "Examples:\n  modchain node drain rig-1 --wait\n  modchain node drain rig-1 --deadline 10m --wait --timeout 15m -y",
        after_help = "A drained node stays closed: modchain node resume opens it again. What moves is not billed for its first try."
    )]
    Drain(DrainArgs),
    /// Give nodes new jobs again, cordoned and drained ones alike (owners and operators)
    #[command(help_template = EXAMPLES_FIRST, before_help = "Examples:\n  modchain node resume rig-1 --reason \"disk is in\"")]
    Resume(NodeNames),
}

/// Which nodes, and why.
#[derive(Debug, Args)]
pub(crate) struct NodeNames {
    /// Their names; `-` reads them from standard input
    #[arg(value_name = "NODE", required = true)]
    pub(crate) nodes: Vec<String>,
    /// For the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
}

/// `modchain node drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    pub(crate) names: NodeNames,
    /// How long jobs may go on; for ever by default
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = parse_span)]
    pub(crate) deadline: Option<Span>,
    /// Wait until nothing runs on them any more
    #[arg(long)]
    pub(crate) wait: bool,
    /// Longest wait; then the exit code is 124 and the drain goes on
    #[arg(long, value_name = "DURATION", requires = "wait", allow_hyphen_values = true, value_parser = parse_span)]
    pub(crate) timeout: Option<Span>,
}

/// `modchain account`.
#[derive(Debug, Args)]
pub(crate) struct AccountArgs {
    /// Whose, instead of one's own (operators)
    #[arg(value_name = "ACCOUNT", value_parser = parse_account)]
    pub(crate) account: Option<AccountId>,
    /// Go on with what changes in one's own, as it changes
    #[arg(short, long, conflicts_with = "account")]
    pub(crate) watch: bool,
}

/// `modchain ledger`.
#[derive(Debug, Args)]
#[command(help_template = EXAMPLES_FIRST, before_help = "Examples:\n  modchain ledger --since 1d\n  modchain ledger --job @last\n  \
                        modchain ledger 'type:settle,release amount>1'")]
pub(crate) struct LedgerArgs {
    /// Words that must all fit
    #[arg(value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
    /// Whose, instead of one's own (operators)
    #[arg(long, value_name = "NAME", value_parser = parse_account)]
    pub(crate) account: Option<AccountId>,
    /// Only since: a duration ago, or a time
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<String>,
    /// Only of this kind: deposit, hold, settle, release, earning, fee
    #[arg(long = "type", value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// Only about this job
    #[arg(long, value_name = "JOB")]
    pub(crate) job: Option<String>,
    #[command(flatten)]
    pub(crate) table: TableArgs,
    /// At most this many
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
}

/// `modchain events`.
#[derive(Debug, Args)]
#[command(help_template = EXAMPLES_FIRST, before_help = "Examples:\n  modchain events --since 10m\n  \
                        modchain events -f --kind job -o jsonl")]
pub(crate) struct EventsArgs {
    /// Go on with new ones as they come
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only since: a duration ago, or a time
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<String>,
    /// Only of this kind: job, node, account, system
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// Only about this job
    #[arg(long, value_name = "JOB")]
    pub(crate) job: Option<String>,
    /// Only about this node
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub(crate) node: Option<Name>,
    #[command(flatten)]
    pub(crate) table: TableArgs,
}

/// `modchain credit`.
#[derive(Debug, Args)]
#[command(help_template = EXAMPLES_FIRST, before_help = "Examples:\n  modchain credit alice 50.00 --reason welcome")]
pub(crate) struct CreditArgs {
    /// To whom
    #[arg(value_parser = parse_account)]
    pub(crate) account: AccountId,
    /// How much
    #[arg(allow_negative_numbers = true, value_parser = parse_positive_micro)]
    pub(crate) amount: Micro,
    /// For the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// Key of this credit: repeating it is harmless. Random by default
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    pub(crate) id: Option<SubmitKey>,
}

/// `modchain version`.
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// The orchestrator's too
    #[arg(long)]
    pub(crate) server: bool,
}

/// `modchain man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write the page of every command into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// `modchain config ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print what is set, or one setting
    Get {
        /// Which
        #[arg(value_name = "SETTING")]
        key: Option<String>,
    },
    /// Change a setting; what else is in the file stays
    Set {
        /// Which
        #[arg(value_name = "SETTING")]
        key: String,
        /// To what; "" takes the setting away
        value: String,
    },
    /// Print where the file is
    Path,
    /// Edit the file with $VISUAL or $EDITOR; it is changed only if it is right
    Edit,
}

/// `modchain context ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// Add a context, or change it
    #[command(
        help_template = EXAMPLES_FIRST,
        before_help = "Examples:\n  modchain context add lab --orchestrator orch.example.org:7443 --identity ./alice"
    )]
    Add {
        /// What to call it
        #[arg(value_parser = parse_name)]
        name: Name,
        /// Folder with key.pem, cert.pem and ca.pem
        #[arg(long, value_name = "DIR")]
        identity: PathBuf,
        /// Address of the port where others join, one above the other by default
        #[arg(long, value_name = "HOST:PORT")]
        join: Option<String>,
    },
    /// List contexts
    List(TableArgs),
    /// Make a context the one that is used where none is named
    Use {
        /// Which
        #[arg(value_name = "CONTEXT")]
        name: String,
    },
    /// Forget a context; its identity folder stays
    Remove {
        /// Which
        #[arg(value_name = "CONTEXT")]
        name: String,
    },
    /// Show one context, the current one by default
    Show {
        /// Which
        #[arg(value_name = "CONTEXT")]
        name: Option<String>,
    },
}

/// A duration as a flag takes it.
pub(crate) fn parse_span(text: &str) -> Result<Span, String> {
    modchain_types::time::parse_span(text).map_err(|error| error.to_string())
}

fn parse_speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if (0.0..=1_000_000.0).contains(&speed) => Ok(speed),
        _ => Err("write a number from 0 to 1000000".into()),
    }
}

fn parse_account(text: &str) -> Result<AccountId, String> {
    text.parse().map_err(|error: BadId| error.to_string())
}

fn parse_name(text: &str) -> Result<Name, String> {
    text.parse().map_err(|error: BadId| error.to_string())
}

fn parse_key(text: &str) -> Result<SubmitKey, String> {
    text.parse().map_err(|error: BadId| error.to_string())
}

#[cfg(test)]
mod tests;

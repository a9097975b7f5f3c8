//! The flags of getting in and putting out: `join`, `logout`, `token`, `cert`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use modchain_types::{AccountId, Name, Role, Span};

use super::{EXAMPLES_FIRST, TableArgs, parse_account, parse_name, parse_span};

/// Shortest life of a token: less than this nobody can carry it anywhere.
const TOKEN_TTL_MIN: Span = Span::from_secs(1);
/// Longest life of a token. Whoever needs longer makes another.
const TOKEN_TTL_MAX: Span = Span::from_secs(24 * 3600);

/// `modchain join`.
#[derive(Debug, Args)]
#[command(
    help_template = EXAMPLES_FIRST,
    before_help = "Examples:\n  modchain join --orchestrator orch.example.org:7444 --token-file token.txt\n  \
                   modchain join --orchestrator orch.example.org:7444 --token-file - < token.txt\n  \
                   modchain join --orchestrator orch.example.org:7444          (asks for the token)",
    after_help = "Where a token comes from: modchain help security"
)]
pub(crate) struct JoinArgs {
    /// File with the token; `-` reads it from standard input
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub(crate) token_file: Option<PathBuf>,
    /// The token itself; others on this machine can read it there
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// The name to have, where the token gives none
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub(crate) name: Option<Name>,
}

/// `modchain logout`.
#[derive(Debug, Args)]
#[command(help_template = EXAMPLES_FIRST, before_help = "Examples:\n  modchain logout\n  modchain logout lab -y")]
pub(crate) struct LogoutArgs {
    /// Which context, the current one by default
    #[arg(value_name = "CONTEXT")]
    pub(crate) name: Option<String>,
}

/// `modchain token ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token, with which one machine or person can join, once
    #[command(
        help_template = EXAMPLES_FIRST,
        before_help = "Examples:\n  modchain token create --role node --name rig-1\n  \
                       modchain token create --role client --name alice --ttl 1h\n  \
                       modchain token create --role node -q > token.txt\n  \
                       modchain token create --role node --name rig-1 --rejoin"
    )]
    Create(TokenCreateArgs),
    /// List tokens that wait to be used
    #[command(help_template = EXAMPLES_FIRST, before_help = "Examples:\n  modchain token list\n  modchain token list --all -o json")]
    List {
        /// Those that can no longer be used, too
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        table: TableArgs,
    },
    /// Let nobody join with these tokens any more
    #[command(help_template = EXAMPLES_FIRST, before_help = "Examples:\n  modchain token revoke mzxw6ytb")]
    Revoke {
        /// Tokens: their ids of 8 characters, or their whole text; `-` reads them from standard input
        #[arg(value_name = "TOKEN", required = true)]
        tokens: Vec<String>,
    },
}

/// `modchain token create`.
#[derive(Debug, Args)]
pub(crate) struct TokenCreateArgs {
    /// What its user becomes; clients can let nodes join, nobody else
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: RoleFlag,
    /// The name that its user gets; its own wish, or one that is made up, by default
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub(crate) name: Option<Name>,
    /// The account that a node earns for, or that a client pays from (operators)
    #[arg(long, value_name = "ACCOUNT", value_parser = parse_account)]
    pub(crate) account: Option<AccountId>,
    /// For one who is known by that name already and whose certificate has ended
    #[arg(long, requires = "name")]
    pub(crate) rejoin: bool,
    /// How long it can be used, at most 24h
    #[arg(long, value_name = "DURATION", default_value = "15m", allow_hyphen_values = true, value_parser = parse_ttl)]
    pub(crate) ttl: Span,
}

/// `modchain cert ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// List who is in, and until when
    #[command(help_template = EXAMPLES_FIRST, before_help = "Examples:\n  modchain cert list\n  modchain cert list --role node\n  \
                                                             modchain cert list --all -o json")]
    List {
        /// Only of this role
        #[arg(long, value_name = "ROLE")]
        role: Option<RoleFlag>,
        /// Revoked ones too
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        table: TableArgs,
    },
    /// Put somebody out at once and for good (operators)
    #[command(
        help_template = EXAMPLES_FIRST,
        before_help = "Examples:\n  modchain cert revoke node/rig-1 --reason sold\n  modchain cert revoke client/mallory -y"
    )]
    Revoke {
        /// Who: ROLE/NAME, a name, or an id; `-` reads them from standard input
        #[arg(value_name = "IDENTITY", required = true)]
        identities: Vec<String>,
        /// For the record
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
}

/// What one can join as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleFlag {
    /// Runs jobs
    Node,
    /// Submits jobs and pays for them
    Client,
    /// Runs the pool
    Operator,
}

impl From<RoleFlag> for Role {
    fn from(flag: RoleFlag) -> Self {
        match flag {
            RoleFlag::Node => Self::Node,
            RoleFlag::Client => Self::Client,
            RoleFlag::Operator => Self::Operator,
        }
    }
}

fn parse_ttl(text: &str) -> Result<Span, String> {
    let ttl = parse_span(text)?;
    if !(TOKEN_TTL_MIN..=TOKEN_TTL_MAX).contains(&ttl) {
        return Err(format!("a token can be used for 1s to 24h, not for {ttl}"));
    }
    Ok(ttl)
}

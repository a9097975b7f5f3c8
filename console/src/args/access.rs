//! The flags of getting in and putting out: `join`, `logout`.

use std::path::PathBuf;

use clap::Args;
use modchain_types::Name;

use super::{EXAMPLES_FIRST, parse_name};

/// `modchain join`.
#[derive(Debug, Args)]
#[command(
    help_template = EXAMPLES_FIRST,
    before_help = "Examples:\n  modchain join --orchestrator orch.example.org:7444 --token-file token.txt\n  \
                   modchain join --orchestrator orch.example.org:7444 --token-file - < token.txt\n  \
                   modchain join --orchestrator orch.example.org:7444          (asks for the token)"
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

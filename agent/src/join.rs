//! `join`: makes a key on this machine, gets a certificate for it with a token, and leaves what every later `start` needs.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use modchain_agent::clock;
use modchain_agent::config::{Config, Settings};
use modchain_agent::joined::{Joined, identity_dir};
use modchain_certs::files::ensure_private_dir;
use modchain_certs::{Credentials, JoinToken};
use modchain_link::enrol::{self, JoinWish};
use modchain_types::{Name, Role};
use serde_json::json;
use zeroize::Zeroizing;

use crate::Output;
use crate::failure::{CONFLICT, Failure, USAGE};

/// Most that is read where a token is expected.
const TOKEN_FILE_BYTES_MAX: usize = 4096;

/// The orchestrator's join port, unless the operator chose another.
const JOIN_PORT: u16 = 7444;

/// What the command line says.
#[derive(Debug, clap::Args)]
pub(crate) struct Join {
    /// The orchestrator's join port [default port: 7444]
    #[arg(long, value_name = "HOST:PORT")]
    orchestrator: String,
    /// The file with the token, or - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// The token itself; everybody on this machine can see it with `ps` while this runs, so prefer --token-file
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// What to call this node, where the token does not say it
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    /// Take the place of the identity that is there
    #[arg(long)]
    replace: bool,
    /// Where everything about this node is kept [default: /var/lib/modchain/agent for root, else
    /// $XDG_STATE_HOME/modchain/agent]
    #[arg(long, env = "MODCHAIN_AGENT_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// The identity folder, where it is not below that
    #[arg(long, env = "MODCHAIN_AGENT_IDENTITY", value_name = "DIR", hide = true)]
    identity: Option<PathBuf>,
    /// Settings in TOML [default: /etc/modchain/agent.toml for root, else $XDG_CONFIG_HOME/modchain/agent.toml]
    #[arg(long, env = "MODCHAIN_AGENT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// Joins.
pub(crate) fn join(arguments: Join) -> Result<(), Failure> {
    let Join { orchestrator, token_file, token, name, replace, data, identity, config: file, output } = arguments;
    let settings = Settings { data: data.clone(), ..Settings::default() };
    let config = Config::load(None, identity, &settings, file.as_deref())?;
    let dir = config.identity.clone().unwrap_or_else(|| identity_dir(&config.data));
    // Whoever reads the answer may be in another folder.
    let dir = std::path::absolute(&dir).unwrap_or(dir);
    // Before the token is looked at: it is still good after a refusal.
    if Credentials::exist(&dir) && !replace {
        let message = format!("this machine has joined already: there is an identity in {}", dir.display());
        return Err(Failure::new("already_joined", CONFLICT, message).hint(
            "run `modchain-agent start`; or give --replace, to become another node, or with a --rejoin token the same \
                   one again",
        ));
    }
    let token = read_token(token_file.as_deref(), token)?;
    if token.role() != Role::Node {
        let (role, program) = (token.role(), "modchain join");
        let message = format!("this token is for the role {role}, and an agent joins as a node");
        return Err(Failure::new("role_mismatch", USAGE, message)
            .hint(format!("use it with `{program}`, or ask for a token made with --role node")));
    }
    ensure_private_dir(&config.data).context("failed to use the data folder")?;
    let join = with_port(&orchestrator);
    let (token_id, note_join, note_data) = (token.id(), join.clone(), config.data.clone());
    let wish = JoinWish { token, address: join, dir: dir.clone(), name };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("failed to start")?;
    let joined = runtime.block_on(enrol::join_noting(wish, move |joined| {
        Joined::new(joined, &note_join, token_id).write(&note_data)
    }))?;
    print(&joined, &dir, data.as_deref(), output);
    if let Some(other) = config.orchestrator.filter(|other| *other != joined.main_address) {
        eprintln!(
            "warning: the settings file says orchestrator = \"{other}\", which goes before what was joined just now"
        );
    }
    Ok(())
}

fn print(joined: &enrol::Joined, dir: &Path, data: Option<&Path>, output: Output) {
    let enrol::Joined { identity, pool, main_address, trust_domain, expires_at, renews_at, existing, .. } = joined;
    let (expires_at, renews_at) = (clock::utc(*expires_at), clock::utc(*renews_at));
    match output {
        Output::Json => println!(
            "{}",
            json!({
                "schema": "modchain.joined/v1",
                "name": identity.name.to_string(),
                "id": identity.id.to_string(),
                "role": identity.role.word(),
                "account": identity.account.to_string(),
                "pool": pool.to_string(),
                "orchestrator": main_address,
                "identity": dir,
                "expires_at": expires_at,
                "renews_at": renews_at,
                "trust_domain": trust_domain.as_str(),
                "existing": existing,
            })
        ),
        Output::Text => {
            let again = if *existing { " (again: the first answer was lost)" } else { "" };
            println!("joined pool {pool} as node {}{again}", identity.name);
            println!("  account       {}", identity.account);
            println!("  orchestrator  {main_address}");
            println!("  identity      {}", dir.display());
            println!("  certificate   until {expires_at}; the agent renews it from {renews_at} on");
            let data = data.map(|data| format!(" --data {}", data.display())).unwrap_or_default();
            println!("  next          modchain-agent start{data}");
        }
    }
}

/// The join port is the usual one where none is given.
fn with_port(address: &str) -> String {
    if address.contains(':') && !address.ends_with(']') { address.to_owned() } else { format!("{address}:{JOIN_PORT}") }
}

fn read_token(file: Option<&Path>, argument: Option<String>) -> Result<JoinToken, Failure> {
    let text = match (file, argument) {
        (None, Some(token)) => {
            eprintln!("warning: others on this machine can see the token with `ps`; prefer --token-file");
            Zeroizing::new(token.into_bytes())
        }
        (Some(file), _) if file == Path::new("-") => {
            // Past the library's buffer, which would keep a copy.
            let stdin = rustix::stdio::stdin().try_clone_to_owned().map(File::from);
            stdin.and_then(read_line).map_err(|error| Failure::usage(format!("cannot read the token: {error}")))?
        }
        (Some(file), _) => File::open(file)
            .and_then(read_line)
            .map_err(|error| Failure::usage(format!("cannot read the token from {}: {error}", file.display())))?,
        (None, None) => {
            return Err(Failure::usage("there is no token: say --token-file FILE, or --token-file - and write it")
                .hint("an operator makes one with `modchain token create --role node`"));
        }
    };
    JoinToken::parse(&text).map_err(|error| Failure::new("token_invalid", USAGE, error.to_string()))
}

/// The first line that is not empty, or as much as a token can have: on a terminal the end of the line is enough.
fn read_line(mut from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for all of it at once, so that no copy is left behind; and one byte at a time, so that nothing after it is read.
    let mut line = Zeroizing::new(Vec::with_capacity(TOKEN_FILE_BYTES_MAX));
    let mut byte = Zeroizing::new([0]);
    while line.len() < TOKEN_FILE_BYTES_MAX && from.read(&mut *byte)? > 0 {
        match byte[0] {
            b'\n' if line.trim_ascii().is_empty() => line.clear(),
            b'\n' => break,
            byte => line.push(byte),
        }
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_port_is_added_only_where_there_is_none() {
        for (given, expected) in [
            ("pool.example", "pool.example:7444"),
            ("pool.example:9000", "pool.example:9000"),
            ("10.0.0.1", "10.0.0.1:7444"),
            ("[::1]", "[::1]:7444"),
            ("[::1]:9", "[::1]:9"),
        ] {
            assert_eq!(with_port(given), expected);
        }
    }

    #[test]
    fn one_line_is_read_and_empty_ones_before_it_are_not_it() {
        assert_eq!(*read_line(&b"\n  \nMCJ1-x\nmore"[..]).expect("reads"), b"MCJ1-x");
        assert_eq!(*read_line(&b"MCJ1-x"[..]).expect("reads"), b"MCJ1-x");
        assert_eq!(read_line(io::repeat(b'x')).expect("reads").len(), TOKEN_FILE_BYTES_MAX);
    }
}

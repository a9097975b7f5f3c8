//! Live completions: `source <(COMPLETE=bash modchain)` lets the shell ask this program what may come next. Jobs, nodes and
//! identities are asked from the orchestrator, in a moment or not at all: a person waits with the finger on the key. Nothing is
//! ever said to the terminal, and only text that stays on its line and means nothing to a shell gets there.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use clap::{Arg, Command, CommandFactory};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::CompleteEnv;
use modchain_wire::console::{IdentitiesQuery, JobsQuery};

use super::settings::SETTINGS;
use super::topics::TOPICS;
use super::{cert, context, events, jobs, money, pool, table, token};
use crate::args::{Cli, Global};
use crate::client::Client;
use crate::exit::Failure;
use crate::shell::Shell;
use crate::text;

/// Longest wait for an answer in all.
const PATIENCE: Duration = Duration::from_millis(500);
/// Most jobs and identities that are offered.
const OFFERED_MAX: u32 = 200;

/// Answers a shell that asks, and ends; does nothing if none does.
pub(crate) fn answer() {
    CompleteEnv::with_factory(|| completing(Cli::command())).complete();
}

/// The command, with what its arguments may be.
fn completing(command: Command) -> Command {
    completing_below(command, "")
}

fn completing_below(command: Command, parent: &str) -> Command {
    let path = format!("{parent} {}", command.get_name());
    let columns = columns(&path);
    let command = command.mut_args(|arg| match columns.clone() {
        Some(keys) if matches!(arg.get_id().as_str(), "columns" | "sort") => {
            arg.add(ArgValueCompleter::new(move |word: &OsStr| offer(word, column_names(&keys, word))))
        }
        Some(_) | None => with_completer(arg),
    });
    command.mut_subcommands(|sub| completing_below(sub, &path))
}

/// The columns of the list that this command shows.
fn columns(path: &str) -> Option<Vec<&'static str>> {
    Some(match path {
        " modchain jobs" => table::keys(&jobs::COLUMNS),
        " modchain nodes" => table::keys(&pool::COLUMNS),
        " modchain ledger" => table::keys(&money::COLUMNS),
        " modchain events" => table::keys(&events::COLUMNS),
        " modchain cert list" => table::keys(&cert::COLUMNS),
        " modchain token list" => table::keys(&token::COLUMNS),
        " modchain context list" => table::keys(&context::COLUMNS),
        _ => return None,
    })
}

/// With a `-` before each if one is written already, as `--sort` takes them.
fn column_names(keys: &[&str], word: &OsStr) -> Vec<Offer> {
    let sign = if word.to_str().is_some_and(|word| word.starts_with('-')) { "-" } else { "" };
    keys.iter().map(|key| (format!("{sign}{key}"), String::new())).collect()
}

fn with_completer(arg: Arg) -> Arg {
    let value = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string).unwrap_or_default();
    let completer: fn(&OsStr) -> Vec<CompletionCandidate> = match (value.as_str(), arg.get_id().as_str()) {
        ("JOB", _) => |word| offer(word, ask(job_names)),
        ("NODE", _) | (_, "node") => |word| offer(word, ask(node_names)),
        ("IDENTITY", "identities") => |word| offer(word, ask(identity_names)),
        ("CONTEXT", _) | (_, "context") => |word| offer(word, contexts()),
        ("SETTING", _) => |word| offer(word, named(&SETTINGS)),
        ("COMMAND|TOPIC", _) => |word| offer(word, help_topics()),
        _ => return arg,
    };
    arg.add(ArgValueCompleter::new(completer))
}

/// Something that could be written, and what it is.
type Offer = (String, String);

/// Those that begin with what is written already, and that can stand on a line.
fn offer(word: &OsStr, offers: Vec<Offer>) -> Vec<CompletionCandidate> {
    let Some(word) = word.to_str() else { return Vec::new() };
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | '/' | ':' | '+' | '=');
    offers
        .into_iter()
        .filter(|(value, _)| value.starts_with(word) && !value.is_empty() && value.chars().all(is_plain))
        .map(|(value, what)| CompletionCandidate::new(value).help(Some(text::one_line(&what).into())))
        .collect()
}

/// The global flags of a line that is not finished: only those that say whom to ask.
fn flags(line: &[OsString]) -> Global {
    let mut global = Global {
        context: std::env::var("MODCHAIN_CONTEXT").ok(),
        orchestrator: std::env::var("MODCHAIN_ORCHESTRATOR").ok(),
        config: std::env::var_os("MODCHAIN_CONFIG").map(Into::into),
        quiet: true,
        no_input: true,
        ..Global::default()
    };
    let words: Vec<&str> = line.iter().filter_map(|word| word.to_str()).collect();
    for (position, word) in words.iter().enumerate() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (*word, words.get(position + 1).copied()),
        };
        let value = value.filter(|value| !value.is_empty()).map(str::to_owned);
        match (name, value) {
            ("-c" | "--context", Some(value)) => global.context = Some(value),
            ("--orchestrator", Some(value)) => global.orchestrator = Some(value),
            ("--config", Some(value)) => global.config = Some(value.into()),
            _ => {}
        }
    }
    global
}

fn shell() -> Option<Shell> {
    // What follows the second program's name is the line; before it is what the shell says about itself.
    let line: Vec<OsString> = std::env::args_os().skip_while(|word| word != "--").skip(1).collect();
    Shell::new(flags(&line)).ok()
}

/// What the orchestrator answers in time.
fn ask<F>(question: impl FnOnce(Client) -> F) -> Vec<Offer>
where
    F: Future<Output = Result<Vec<Offer>, Failure>>,
{
    let Some(shell) = shell() else { return Vec::new() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let Ok(runtime) = runtime else { return Vec::new() };
    let answer = runtime.block_on(async {
        let answer = async { question(shell.connect().await?).await };
        tokio::time::timeout(PATIENCE, answer).await
    });
    runtime.shutdown_background();
    answer.ok().and_then(Result::ok).unwrap_or_default()
}

async fn job_names(client: Client) -> Result<Vec<Offer>, Failure> {
    let query = JobsQuery { ended: true, limit: OFFERED_MAX, ..jobs::live() };
    let jobs = client.jobs(query).await?.items.into_vec();
    let mut offers = vec![("@last".to_owned(), "the job that was submitted last from here".to_owned())];
    for job in &jobs {
        let short = job.id.short();
        let is_one = jobs.iter().filter(|other| other.id.short() == short).count() == 1;
        let id = if is_one { short } else { job.id.to_string() };
        let called = if job.name.is_empty() { job.what.as_str() } else { job.name.as_str() };
        offers.push((id.clone(), format!("{called}, {}", job.state)));
        let has_name = !job.name.is_empty() && jobs.iter().filter(|other| other.name == job.name).count() == 1;
        offers.extend(has_name.then(|| (job.name.to_string(), format!("{id}, {}", job.state))));
    }
    Ok(offers)
}

async fn node_names(client: Client) -> Result<Vec<Offer>, Failure> {
    let nodes = pool::all(&client).await?;
    Ok(nodes.into_iter().map(|node| (node.name.to_string(), node.state.to_string())).collect())
}

async fn identity_names(client: Client) -> Result<Vec<Offer>, Failure> {
    let query = IdentitiesQuery { role: None, revoked: false, limit: OFFERED_MAX, after: None };
    let page = client.identities(query).await?;
    let offer = |identity: &modchain_types::Identity| {
        (format!("{}/{}", identity.role, identity.name), format!("account {}", identity.account))
    };
    Ok(page.items.iter().map(|view| offer(&view.identity)).collect())
}

fn named(all: &[(&str, &str)]) -> Vec<Offer> {
    all.iter().map(|(name, what)| ((*name).to_owned(), (*what).to_owned())).collect()
}

fn help_topics() -> Vec<Offer> {
    let command = Cli::command();
    let commands = command.get_subcommands().map(|command| {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        (command.get_name().to_owned(), about)
    });
    commands.chain(TOPICS.iter().map(|(name, _)| ((*name).to_owned(), "topic".to_owned()))).collect()
}

fn contexts() -> Vec<Offer> {
    let contexts = shell().and_then(|shell| shell.contexts().ok()).unwrap_or_default();
    contexts.contexts.into_iter().map(|(name, context)| (name, context.orchestrator)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_begins_so_and_stays_on_its_line_is_offered() {
        let all = ["rig-1", "rig-2", "lyon", "rig $(reboot)", "rig\n3", "rig\u{202e}", "rig;x", ""];
        let offers = all.map(|value| (value.to_owned(), "ready\x1b[2J".to_owned())).to_vec();
        let offered = offer(OsStr::new("rig"), offers);
        let values: Vec<&OsStr> = offered.iter().map(CompletionCandidate::get_value).collect();
        assert_eq!(values, ["rig-1", "rig-2"]);
        assert!(offered.iter().all(|one| one.get_help().is_some_and(|help| !help.to_string().contains('\x1b'))));
    }

    #[test]
    fn the_line_says_whom_to_ask() {
        let line = |words: &[&str]| flags(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(line(&["modchain", "-c", "lab", "job", ""]).context.as_deref(), Some("lab"));
        assert_eq!(line(&["modchain", "--context=lab", "--orchestrator", "h:1"]).orchestrator.as_deref(), Some("h:1"));
        assert_eq!(line(&["modchain", "job", "-c"]).context, None);
    }

    #[test]
    fn every_argument_that_names_something_live_is_completed() {
        let command = completing(Cli::command());
        let completes = |path: &[&str], id: &str| {
            let command = path.iter().fold(&command, |command, name| command.find_subcommand(name).expect("a command"));
            let arg = command.get_arguments().find(|arg| arg.get_id() == id).expect("an argument");
            arg.get::<ArgValueCompleter>().is_some()
        };
        for (path, id) in [
            (&["logs"][..], "job"),
            (&["cancel"], "jobs"),
            (&["job"], "jobs"),
            (&["wait"], "jobs"),
            (&["ledger"], "job"),
            (&["events"], "node"),
            (&["node", "show"], "node"),
            (&["node", "drain"], "nodes"),
            (&["cert", "revoke"], "identities"),
            (&["context", "use"], "name"),
            (&["logout"], "name"),
            (&[], "context"),
            (&["config", "set"], "key"),
            (&["help"], "topic"),
            (&["jobs"], "columns"),
            (&["nodes"], "sort"),
            (&["ledger"], "columns"),
            (&["events"], "columns"),
            (&["cert", "list"], "sort"),
            (&["token", "list"], "columns"),
            (&["context", "list"], "columns"),
        ] {
            assert!(completes(path, id), "{path:?} {id}");
        }
        assert!(!completes(&["credit"], "amount"));
    }
}

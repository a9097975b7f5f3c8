//! `up`: the local stack of the real programs, for trying things and for running one command against it.

mod child;
mod siblings;
mod stack;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches};
use tokio::sync::mpsc;

use self::stack::Stack;
use crate::args::{Cli, Command, Format, Global, UpArgs, complaint};
use crate::cli::docs::UpDoc;
use crate::cli::{console, dispatch};
use crate::client::config::Contexts;
use crate::exit::{self, Failure, Outcome};
use crate::shell::{OnInterrupt, Shell};
use crate::signal::Signals;
use crate::tui::{self, Settings};

/// A job to begin with: it prints some lines, and costs next to nothing.
const SAMPLE: &str = include_str!("../../../examples/primes.wat");
/// Things that the programs of the stack have said and the console has not shown yet.
const SAID_MAX: usize = 64;
/// Time in which an agent finds what this machine has to run jobs with; what comes later shows in `nodes`.
const FOUND_BY: Duration = Duration::from_secs(2);

/// `modchain up`.
pub(crate) async fn up(shell: &Shell, args: UpArgs, signals: &mut Signals) -> Outcome {
    // What cannot be run is refused before anything is started.
    let inner = match parse(&args.command, shell.global()) {
        Ok(inner) => inner,
        Err(failure) => return Ok(own_way(&failure, shell.format().is_json() || crate::wants_json(&args.command))),
    };
    let data = args.data.clone().unwrap_or_else(|| shell.paths.state.join("up"));
    let loud = !shell.quiet() && !shell.format().is_json() && !args.headless;
    let (said, heard) = mpsc::channel(SAID_MAX);
    let talk = Talk { shown: Arc::default(), said };
    let tell = {
        let talk = talk.clone();
        move |line: String| talk.tell(line, loud)
    };
    let stack = tokio::select! {
        stack = Stack::start(&data, args.agents, tell) => stack?,
        // The children are killed with the futures that hold them.
        wish = signals.next() => return Ok(wish.exit()),
    };
    let outcome = run(shell, &args, inner, &stack, signals, (talk, heard)).await;
    stack.stop().await;
    outcome
}

/// Where what happens to the programs of the stack is told: on standard error, and in the console while that has the terminal.
#[derive(Clone)]
struct Talk {
    /// Whether the console has the terminal.
    shown: Arc<AtomicBool>,
    said: mpsc::Sender<String>,
}

impl Talk {
    fn tell(&self, line: String, loud: bool) {
        if self.shown.load(Ordering::Relaxed) {
            // A full queue has enough to tell already, and the logs have the rest.
            let _ = self.said.try_send(line);
        } else if loud {
            // Nobody may read standard error, and that changes nothing.
            let _ = writeln!(std::io::stderr().lock(), "{}", crate::text::one_line(&line));
        }
    }
}

async fn run(
    shell: &Shell,
    args: &UpArgs,
    inner: Option<Cli>,
    stack: &Stack,
    signals: &mut Signals,
    (talk, heard): (Talk, mpsc::Receiver<String>),
) -> Outcome {
    let saved = save_contexts(shell, stack);
    if let Some(inner) = inner {
        // The command has contexts of its own, so it does not need the file.
        // The surroundings may name a context of elsewhere, which is not meant; one that stands on the line is.
        let meant = |name: &String| is_ours(stack, name) || std::env::var("MODCHAIN_CONTEXT").as_ref() != Ok(name);
        let global = Global { context: inner.global.context.clone().filter(meant), ..inner.global };
        let global = Global { orchestrator: None, ..global };
        let inside = shell.inside(global, stack.private_contexts(), OnInterrupt::CancelAlways)?;
        let command = inner.command.unwrap_or_else(|| Command::Console(crate::args::ConsoleArgs::default()));
        let outcome = dispatch(&inside, command, signals).await;
        return Ok(outcome.unwrap_or_else(|failure| own_way(&failure, inside.format().is_json())));
    }
    saved?;
    if !args.headless && shell.format() == Format::Table && console::has_terminal() {
        return show(shell, stack, signals, talk, heard).await;
    }
    announce(shell, args, stack)?;
    // Whatever signal it is: that is how one leaves, and nothing went wrong.
    tokio::select! {
        () = tell_offers(shell, args, stack) => drop(signals.next().await),
        _ = signals.next() => {}
    }
    if !args.headless {
        shell.say("stopping");
    }
    Ok(exit::OK)
}

/// Opens the console on the stack; the stack lives as long as that.
async fn show(
    shell: &Shell,
    stack: &Stack,
    signals: &mut Signals,
    talk: Talk,
    heard: mpsc::Receiver<String>,
) -> Outcome {
    let module = stack.data.join("primes.wat");
    crate::client::config::replace_file(&module, SAMPLE.as_bytes())?;
    let global = Global { context: Some("local".into()), orchestrator: None, ..shell.global().clone() };
    let inside = shell.inside(global, stack.private_contexts(), OnInterrupt::Detach)?;
    let sample = ["run", "--name", "primes", "--wasm", &module.display().to_string(), "--max-cost", "0.10"];
    let settings =
        Settings { sample: Some(sample.map(str::to_owned).to_vec()), said: Some(heard), ..Settings::default() };
    talk.shown.store(true, Ordering::Relaxed);
    let outcome = tui::run(&inside, settings, signals).await;
    talk.shown.store(false, Ordering::Relaxed);
    shell.say(&format!("stopping the local stack; what it knows stays in {}", stack.data.display()));
    outcome
}

/// Says what the nodes run, once their agents have looked for a container engine, a model server and GPUs.
async fn tell_offers(shell: &Shell, args: &UpArgs, stack: &Stack) {
    if args.headless || shell.quiet() || shell.format() != Format::Table {
        return;
    }
    tokio::time::sleep(FOUND_BY).await;
    // Who cannot be asked is in trouble of which more is said elsewhere.
    stack.offers().await.unwrap_or_default().iter().for_each(|offer| shell.say(offer));
}

fn is_ours(stack: &Stack, name: &str) -> bool {
    stack.contexts().iter().any(|(ours, _)| ours == name)
}

/// Says why the command could not be done as the command's line wants it, which may differ from that of `up`.
fn own_way(failure: &Failure, json: bool) -> u8 {
    crate::report(failure, json);
    failure.exit
}

/// The command's own line, with the flags before `up` where it has none of its own; `None` where there is no command. What stands
/// before `up` goes before what the surroundings say.
fn parse(command: &[OsString], outer: &Global) -> Result<Option<Cli>, Failure> {
    if command.is_empty() {
        return Ok(None);
    }
    let line = std::iter::once(OsString::from("modchain")).chain(command.iter().cloned());
    let parsed =
        Cli::command().try_get_matches_from(line).and_then(|found| Ok((Cli::from_arg_matches(&found)?, found)));
    let (mut cli, found) = match parsed {
        Ok(parsed) => parsed,
        Err(error) if error.use_stderr() => return Err(complaint(&error)),
        // Help and version: said, and nothing to start for it.
        Err(error) => error.exit(),
    };
    if matches!(cli.command, Some(Command::Up(_))) {
        return Err(Failure::usage("`up` cannot run inside `up`"));
    }
    let stands_there = |flag| found.value_source(flag) == Some(ValueSource::CommandLine);
    let inner = &mut cli.global;
    if !stands_there("output") {
        inner.output = outer.output;
    }
    if !stands_there("config") {
        inner.config = outer.config.clone();
    }
    inner.color = inner.color.or(outer.color);
    inner.connect_timeout = inner.connect_timeout.or(outer.connect_timeout);
    inner.quiet |= outer.quiet;
    inner.no_input |= outer.no_input;
    inner.yes |= outer.yes;
    inner.utc |= outer.utc;
    inner.ascii |= outer.ascii;
    Ok(Some(cli))
}

/// Saves the contexts where every terminal finds them. `local` becomes the current one if there is none.
fn save_contexts(shell: &Shell, stack: &Stack) -> Result<PathBuf, Failure> {
    let path = shell.paths.contexts.clone();
    Contexts::update(&path, |contexts| {
        for (name, context) in stack.contexts() {
            let max_cost = contexts.contexts.get(&name).and_then(|old| old.max_cost.clone());
            let context = crate::client::config::Context { max_cost, ..context };
            contexts.current.get_or_insert_with(|| name.clone());
            contexts.contexts.insert(name, context);
        }
        Ok(())
    })?;
    Ok(path)
}

/// What to type to call this program: as it was called, if by its path.
fn called() -> String {
    std::env::args().next().filter(|path| path.contains('/')).unwrap_or_else(|| "modchain".into())
}

/// Where things are, and how to use them from another terminal.
fn announce(shell: &Shell, args: &UpArgs, stack: &Stack) -> Result<(), Failure> {
    if shell.format().is_json() {
        return shell.print_document(&UpDoc {
            schema: "modchain.up/v1",
            orchestrator: stack.address.clone(),
            data: stack.data.display().to_string(),
            contexts: stack.contexts().into_iter().map(|(name, _)| name).collect(),
            nodes: stack.nodes(),
            pid: std::process::id(),
        });
    }
    if args.headless || shell.format() == Format::Name {
        return shell.print(&format!("{}\n", stack.address));
    }
    let current = shell.contexts()?.current;
    let flag = if current.as_deref() == Some("local") { "" } else { "-c local " };
    shell.say(&format!("ready: orchestrator {}, nodes {}", stack.address, stack.nodes().join(" ")));
    shell.say(&format!("data and logs in {}", stack.data.display()));
    shell.say("");
    shell.say("from another terminal:");
    let me = called();
    shell.say(&format!("  {me} {flag}run --wasm examples/primes.wat --max-cost 0.10"));
    shell.say(&format!("  {me} {flag}status"));
    shell.say("contexts: local and local-second (clients), local-owner (earns), local-operator");
    shell.say("");
    shell.say("Ctrl-C stops it.");
    Ok(())
}

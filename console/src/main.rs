//! `modchain`: the command line of the compute pool. Standard output is data, standard error is talk, and the exit code says
//! how it went (`modchain help exit-codes`).
//!
//! Reading order: [`args`] (what can be asked), [`cli`] (the commands), [`client`] (the link and the user's files), [`local`]
//! (the stack of `up`), [`shell`] (settings and printing), [`exit`] (how things end).

mod args;
mod clean;
mod cli;
mod client;
mod exit;
mod filter;
#[cfg(test)]
mod fuzz;
mod local;
mod shell;
mod signal;
mod text;
mod tui;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::args::{Cli, Command};
use crate::exit::{Failure, Outcome};
use crate::shell::Shell;
use crate::signal::Signals;

/// Threads for the link. The command itself has the main thread, so that a slow terminal never stalls a connection.
const WORKERS: usize = 2;

fn main() -> ExitCode {
    // Before anything else: keys in this process's memory must not end up in a file. A sandbox that forbids even that has
    // rules of its own, and is no reason not to work.
    let _ = modchain_certs::harden_process();
    restore_sigpipe();
    modchain_certs::install_crypto_provider();
    cli::complete::answer();
    let line: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&line) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(refuse(&error, &line)),
    };
    let json = cli.global.output.is_some_and(|flag| flag.format().is_json());
    if cli.command.is_none() && !cli::console::has_terminal() {
        // Somebody who pipes it wants to know what it is.
        let _ = writeln!(std::io::stderr().lock(), "{}", Cli::command().render_help());
        return ExitCode::from(exit::USAGE);
    }
    log_to_stderr(cli.global.verbose);
    match run(cli) {
        Ok(code) => leave(code),
        Err((failure, configured_json)) => {
            report(&failure, json || configured_json);
            leave(failure.exit)
        }
    }
}

fn run(cli: Cli) -> Result<u8, (Failure, bool)> {
    let shell = match cli.command {
        // What puts the settings right, tells what is wrong with them, or has no use for them.
        Some(
            Command::Config(_)
            | Command::Doctor
            | Command::Help { .. }
            | Command::Version(_)
            | Command::Man(_)
            | Command::Completions { .. },
        ) => Shell::lenient(cli.global),
        _ => Shell::new(cli.global),
    };
    let shell = shell.map_err(|failure| (failure, false))?;
    let command = cli.command.unwrap_or_else(|| Command::Console(args::ConsoleArgs::default()));
    let json = shell.format().is_json();
    let outcome: Outcome = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))
        .and_then(|runtime| {
            let outcome = runtime.block_on(async {
                let mut signals = Signals::install()
                    .map_err(|error| Failure::failed(format!("cannot take over signals: {error}")))?;
                let outcome = cli::dispatch(&shell, command, &mut signals).await;
                let hurry = matches!(outcome, Ok(exit::INTERRUPTED | exit::TERMINATED | exit::HUNG_UP));
                client::link::let_goodbyes_out(hurry).await;
                outcome
            });
            // A thread may be blocked in reading standard input for ever.
            runtime.shutdown_background();
            outcome
        });
    outcome.map_err(|failure| (failure, json))
}

/// Ends the process without waiting for threads that are blocked in reading or writing.
fn leave(code: u8) -> ! {
    let _ = std::io::stdout().lock().flush();
    std::process::exit(i32::from(code))
}

/// Prints an error: two lines for people, one object for programs.
pub(crate) fn report(failure: &Failure, json: bool) {
    let text = if json { failure.to_json() } else { failure.to_string() };
    // The message may quote a stranger; line ends are ours alone.
    let text = if json { text } else { text.lines().map(text::one_line).collect::<Vec<_>>().join("\n") };
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// What clap has to say: help and version on standard output with 0, errors on standard error with 2. Who gives no command
/// at all gets the help as an error.
fn refuse(error: &clap::Error, line: &[OsString]) -> u8 {
    let json = wants_json(line);
    let is_help = !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if is_help && !(error.use_stderr() && json) {
        let text = error.render();
        // Nobody may be there to read it.
        let _ = match (flag_of(line, "--color", "--color"), error.use_stderr()) {
            (Some("never"), false) => write!(std::io::stdout(), "{text}"),
            (Some("never"), true) => write!(std::io::stderr(), "{text}"),
            (Some("always"), false) => write!(std::io::stdout(), "{}", text.ansi()),
            (Some("always"), true) => write!(std::io::stderr(), "{}", text.ansi()),
            // It knows the environment and the stream as we do.
            (_, _) => error.print(),
        };
    } else {
        report(&args::complaint(error), json);
    }
    if error.use_stderr() { exit::USAGE } else { exit::OK }
}

/// What a flag says on a line that does not parse.
fn flag_of<'a>(line: &'a [OsString], short: &str, long: &str) -> Option<&'a str> {
    let words: Vec<&str> = line.iter().filter_map(|word| word.to_str()).take_while(|word| *word != "--").collect();
    words.iter().enumerate().find_map(|(position, word)| {
        if *word == short || *word == long {
            return words.get(position + 1).copied();
        }
        let value = word.strip_prefix(long).filter(|value| value.starts_with('='));
        value.or_else(|| word.strip_prefix(short)).map(|value| value.trim_start_matches('='))
    })
}

/// Whether a line that does not parse asks for JSON all the same.
pub(crate) fn wants_json(line: &[OsString]) -> bool {
    let is_json = |word: &str| matches!(word, "json" | "jsonl" | "yaml");
    match flag_of(line, "-o", "--output") {
        Some(format) => is_json(format),
        None => std::env::var("MODCHAIN_OUTPUT").is_ok_and(|format| is_json(&format)),
    }
}

/// Rust ignores SIGPIPE, and then `modchain jobs | head` would end with an error instead of quietly.
fn restore_sigpipe() {
    // SAFETY: sets a signal's disposition to the default before any thread exists; no handler is involved.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

fn log_to_stderr(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let default = match verbose {
        0 => "off",
        1 => "modchain=info,modchain_link=info",
        2 => "modchain=debug,modchain_link=debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("MODCHAIN_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_does_not_parse_still_says_how_to_answer() {
        let asks = |line: &[&str]| wants_json(&line.iter().map(OsString::from).collect::<Vec<_>>());
        for line in [
            &["m", "-o", "json", "x"][..],
            &["m", "--output=jsonl"],
            &["m", "-ojson"],
            &["m", "-o=json"],
            &["m", "-o", "yaml"],
        ] {
            assert!(asks(line), "{line:?}");
        }
        for line in [&["m", "x"][..], &["m", "-o", "table"], &["m", "run", "--", "-o", "json"]] {
            assert!(!asks(line), "{line:?}");
        }
    }
}

//! The commands: one file for each kind. They speak to the orchestrator through [`crate::client`], print through
//! [`crate::shell`], and give back an exit code.

pub(crate) mod about;
pub(crate) mod again;
pub(crate) mod cert;
pub(crate) mod complete;
pub(crate) mod console;
pub(crate) mod context;
pub(crate) mod docs;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod job_file;
pub(crate) mod jobs;
pub(crate) mod join;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod money;
pub(crate) mod node;
pub(crate) mod pool;
pub(crate) mod run;
pub(crate) mod settings;
pub(crate) mod spec;
pub(crate) mod table;
pub(crate) mod token;
pub(crate) mod wait;
pub(crate) mod yaml;

pub(crate) mod follow;
mod history;
mod input;
mod log_printer;
mod output;
mod progress;
mod secret;
mod topics;
mod watch;

use std::future::Future;
use std::pin::Pin;

use crate::args::{CertCommand, Command, ContextCommand, JobArgs, JobCommand, TokenCommand};
use crate::exit::{Failure, Outcome};
use crate::local;
use crate::shell::Shell;
use crate::signal::Signals;

/// Runs a command to its end. Boxed, because `up` runs another one inside.
pub(crate) fn dispatch<'a>(
    shell: &'a Shell,
    command: Command,
    signals: &'a mut Signals,
) -> Pin<Box<dyn Future<Output = Outcome> + 'a>> {
    Box::pin(async move {
        // Whoever has it in the configuration means lists.
        if shell.asks_for_csv() && !is_list(&command) {
            return Err(Failure::usage("only lists are comma separated values").hint(
                "-o csv goes with jobs, nodes, ledger, events, token list, cert list and context list, without --watch",
            ));
        }
        match command {
            // These know what a wish to stop means to them.
            Command::Console(args) => console::console(shell, args, signals).await,
            Command::Up(args) => local::up(shell, args, signals).await,
            Command::Run(args) => run::run(shell, *args, signals).await,
            Command::Logs(args) => logs::logs(shell, args, signals).await,
            Command::Job(JobArgs { command: Some(JobCommand::Rerun(args)), .. }) => {
                again::rerun(shell, *args, signals).await
            }
            // All others stop.
            command => tokio::select! {
                outcome = plain(shell, command) => outcome,
                wish = signals.next() => Ok(wish.exit()),
            },
        }
    })
}

/// Whether a command prints a list, once.
fn is_list(command: &Command) -> bool {
    match command {
        Command::Jobs(args) => !args.watch,
        Command::Nodes(args) => !args.watch,
        Command::Ledger(_) | Command::Events(_) => true,
        Command::Job(args) => matches!(args.command, Some(JobCommand::Events { .. })),
        Command::Token(command) => matches!(command, TokenCommand::List { .. }),
        Command::Cert(command) => matches!(command, CertCommand::List { .. }),
        Command::Context(command) => matches!(command, ContextCommand::List { .. }),
        _ => false,
    }
}

async fn plain(shell: &Shell, command: Command) -> Outcome {
    match command {
        Command::Console(_) | Command::Up(_) | Command::Run(_) | Command::Logs(_) => unreachable!("they are not plain"),
        Command::Quote(args) => run::quote(shell, *args).await,
        Command::Jobs(args) => jobs::list(shell, args).await,
        Command::Job(args) => jobs::job(shell, args).await,
        Command::Cancel(args) => wait::cancel(shell, args).await,
        Command::Wait(args) => wait::wait(shell, args).await,
        Command::Status(args) => pool::status(shell, &args).await,
        Command::Nodes(args) => pool::nodes(shell, args).await,
        Command::Node(command) => node::node(shell, command).await,
        Command::Account(args) => money::account(shell, args).await,
        Command::Ledger(args) => money::ledger(shell, args).await,
        Command::Events(args) => events::events(shell, args).await,
        Command::Credit(args) => money::credit(shell, args).await,
        Command::Join(args) => join::join(shell, args).await,
        Command::Logout(args) => context::logout(shell, &args).await,
        Command::Token(command) => token::token(shell, command).await,
        Command::Cert(command) => cert::cert(shell, command).await,
        Command::Whoami => about::whoami(shell).await,
        Command::Doctor => doctor::doctor(shell).await,
        Command::Version(args) => about::version(shell, &args).await,
        Command::Context(command) => context::context(shell, command),
        Command::Config(command) => settings::config(shell, command),
        Command::Man(args) => man::man(shell, &args),
        Command::Completions { shell: of } => about::completions(shell, of),
        Command::Help { topic } => about::help(shell, &topic),
    }
}

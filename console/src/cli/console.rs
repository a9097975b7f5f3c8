//! `modchain console`, and `modchain` alone: the terminal console.

use std::io::IsTerminal;

use crate::args::ConsoleArgs;
use crate::exit::{Failure, Outcome};
use crate::shell::Shell;
use crate::signal::Signals;
use crate::tui::{self, Settings};

/// `modchain console`.
pub(crate) async fn console(shell: &Shell, args: ConsoleArgs, signals: &mut Signals) -> Outcome {
    if !has_terminal() {
        return Err(Failure::usage("the console needs a terminal on standard input and standard output")
            .hint("commands need none: modchain --help"));
    }
    let settings = Settings {
        view: args.view,
        filter: args.filter,
        read_only: args.read_only,
        replay: args.replay,
        speed: args.speed,
        record: args.record,
        sample: None,
        said: None,
    };
    tui::run(shell, settings, signals).await
}

/// Whether a console can be shown.
pub(crate) fn has_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

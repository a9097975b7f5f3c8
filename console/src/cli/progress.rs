//! The moving line on a terminal while a job has not said anything yet. It is gone before anything else is printed.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::shell::Shell;

/// Time between two pictures: lively, and nothing to a processor.
const TICK: Duration = Duration::from_millis(120);

/// The line.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    prefix: String,
    stopped: bool,
}

impl Progress {
    /// Nothing is shown before the first [`Progress::show`], and nothing at all where no person looks.
    pub(crate) fn start(shell: &Shell, prefix: &str) -> Self {
        let bar = shell.progress().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let template =
                if shell.color() { "{spinner:.cyan} {msg} {elapsed:.dim}" } else { "{spinner} {msg} {elapsed}" };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, prefix: prefix.to_owned(), stopped: false }
    }

    /// Shows what is waited for, until [`Progress::stop`].
    pub(crate) fn show(&self, what: &str) {
        if let Some(bar) = self.bar.as_ref().filter(|_| !self.stopped) {
            bar.set_message(format!("{}  {}", self.prefix, crate::text::one_line(what)));
            bar.enable_steady_tick(TICK);
        }
    }

    /// Takes the line away for good: from now on other things are printed.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

//! The moving line on a terminal while a job has not said anything yet. It is gone before anything else is printed.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::shell::{Shell, Stream};

/// Time between two pictures: lively, and nothing to a processor.
const TICK: Duration = Duration::from_millis(120);

/// The line.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    prefix: String,
}

impl Progress {
    /// Nothing is shown before the first [`Progress::show`], and nothing at all where no person looks.
    pub(crate) fn start(shell: &Shell, prefix: &str) -> Self {
        let bar = shell.progress().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let template = if shell.color(Stream::Stderr) {
                "{spinner:.cyan} {msg} {elapsed:.dim}"
            } else {
                "{spinner} {msg} {elapsed}"
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, prefix: prefix.to_owned() }
    }

    /// Shows what is waited for, until [`Progress::stop`]; tells whether anybody can see it.
    pub(crate) fn show(&self, what: &str) -> bool {
        let Some(bar) = &self.bar else { return false };
        bar.set_message(format!("{}  {}", self.prefix, crate::text::one_line(what)));
        bar.enable_steady_tick(TICK);
        true
    }

    /// Says a line above the moving one.
    pub(crate) fn say(&self, shell: &Shell, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| shell.say(line)),
            None => shell.say(line),
        }
    }

    /// Takes the line away for good: from now on other things are printed.
    pub(crate) fn stop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

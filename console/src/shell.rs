//! What every command needs to know about the call it belongs to: settings by their precedence (flag, environment, context,
//! configuration, default), which of the standard streams are terminals, and how to print.

use std::io::{IsTerminal, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use modchain_types::{JobId, Micro};
use serde::Serialize;

use crate::args::{ColorWhen, Format, FormatFlag, Global};
use crate::cli::table::Look;
use crate::cli::yaml;
use crate::client::Client;
use crate::client::config::{Config, Contexts, Paths, configured_amount, nearest};
use crate::client::identities::Identities;
use crate::client::renewal::Tell;
use crate::client::state::Submits;
use crate::exit::Failure;
use crate::tui::ThemeName;

/// How long to wait for a connection where nothing else is said.
const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// What the first Ctrl-C means to a followed job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnInterrupt {
    /// Leave; the job runs on.
    Detach,
    /// Cancel the job and wait for its end; the second one leaves. Other signals detach.
    Cancel,
    /// As `Cancel`, and other signals too: the whole stack goes away with this program.
    CancelAlways,
}

/// One call of the program.
pub(crate) struct Shell {
    global: Global,
    pub(crate) paths: Paths,
    config: Config,
    /// `up` gives its own, which need no file.
    private: Option<Contexts>,
    pub(crate) on_interrupt: OnInterrupt,
    stdin_tty: bool,
    stdout_tty: bool,
    stderr_tty: bool,
}

/// One of the streams that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Whether the terminal says that it can do nothing but letters.
fn is_dumb() -> bool {
    std::env::var("TERM").is_ok_and(|term| term == "dumb")
}

/// Whether colour may be used: a flag wins, then whoever wants none anywhere, then whoever wants it everywhere, then the
/// stream itself.
fn may_color(when: ColorWhen, tty: bool, variable: &dyn Fn(&str) -> String) -> bool {
    match when {
        ColorWhen::Always => true,
        ColorWhen::Never => false,
        ColorWhen::Auto if !variable("NO_COLOR").is_empty() => false,
        ColorWhen::Auto if !matches!(variable("CLICOLOR_FORCE").as_str(), "" | "0") => true,
        ColorWhen::Auto => tty && variable("TERM") != "dumb",
    }
}

/// Where to connect, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The context's name.
    pub(crate) context: String,
    /// `HOST:PORT`.
    pub(crate) orchestrator: String,
    /// `HOST:PORT` of the port where others join.
    pub(crate) join: String,
    /// Folder of the identity.
    pub(crate) identity: PathBuf,
    /// What a job of this context may cost that does not say.
    pub(crate) max_cost: Option<Micro>,
}

fn no_document(error: serde_json::Error) -> Failure {
    Failure::failed(format!("cannot make a document: {error}"))
}

/// Where an orchestrator lets others join if nothing else is known: one port above its main one.
fn next_port(address: &str) -> String {
    match address.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>().ok().and_then(|p| p.checked_add(1)))) {
        Some((host, Some(port))) => format!("{host}:{port}"),
        _ => address.to_owned(),
    }
}

impl Shell {
    /// From the global flags, the environment and the files.
    pub(crate) fn new(global: Global) -> Result<Self, Failure> {
        let paths = Paths::find(global.config.as_deref())?;
        let config = Config::load(&paths.config)?;
        Ok(Self::with(global, paths, config))
    }

    fn with(global: Global, paths: Paths, config: Config) -> Self {
        Self {
            global,
            paths,
            config,
            private: None,
            on_interrupt: OnInterrupt::Detach,
            stdin_tty: std::io::stdin().is_terminal(),
            stdout_tty: std::io::stdout().is_terminal(),
            stderr_tty: std::io::stderr().is_terminal(),
        }
    }

    /// The same for a command that works whatever the configuration is like: one that cannot be read says nothing.
    pub(crate) fn lenient(global: Global) -> Result<Self, Failure> {
        let paths = Paths::find(global.config.as_deref())?;
        let config = Config::load_whole(&paths.config).unwrap_or_default();
        Ok(Self::with(global, paths, config))
    }

    /// The same call with other global flags and contexts of its own: a command under `up`.
    pub(crate) fn inside(
        &self,
        global: Global,
        contexts: Contexts,
        on_interrupt: OnInterrupt,
    ) -> Result<Self, Failure> {
        Ok(Self { private: Some(contexts), on_interrupt, ..Self::new(global)? })
    }

    /// The global flags.
    pub(crate) fn global(&self) -> &Global {
        &self.global
    }

    /// What a command makes of its results.
    pub(crate) fn format(&self) -> Format {
        self.flag().format()
    }

    fn flag(&self) -> FormatFlag {
        self.global.output.or(self.config.output).unwrap_or(FormatFlag::Table)
    }

    /// Whether documents are written as YAML.
    pub(crate) fn is_yaml(&self) -> bool {
        self.flag() == FormatFlag::Yaml
    }

    /// Whether this call asks for comma separated values, itself or by its environment.
    pub(crate) fn asks_for_csv(&self) -> bool {
        self.global.output == Some(FormatFlag::Csv)
    }

    /// Whether lists are comma separated values.
    pub(crate) fn is_csv(&self) -> bool {
        self.flag() == FormatFlag::Csv
    }

    /// How tables look in this call.
    pub(crate) fn look(&self) -> Look {
        let csv = self.is_csv();
        let wide = csv || self.flag() == FormatFlag::Wide;
        let short = self.stdout_tty && !wide;
        Look { now: crate::text::wall_now(), utc: self.utc(), wide, short, still: false, csv }
    }

    /// Whether only plain characters are shown.
    pub(crate) fn ascii(&self) -> bool {
        self.global.ascii || self.config.ascii
    }

    /// What the console looks like: without colours where none may be used, else as it was asked for.
    pub(crate) fn theme(&self) -> Result<ThemeName, Failure> {
        let asked = match std::env::var("MODCHAIN_THEME") {
            Ok(word) if !word.is_empty() => Some(ThemeName::from_str(&word, true).map_err(|_| {
                let words = ThemeName::ALL.map(ThemeName::word);
                let failure = Failure::usage(format!("MODCHAIN_THEME: `{word}` is not a theme"));
                match nearest(&word, words.into_iter()) {
                    Some(near) => failure.hint(format!("did you mean `{near}`?")),
                    None => failure.hint(format!("there are: {}", words.join(", "))),
                }
            })?),
            _ => self.config.theme,
        };
        Ok(if self.color(Stream::Stdout) { asked.unwrap_or(ThemeName::Dark) } else { ThemeName::Mono })
    }

    /// Whether nobody but the console itself has chosen a theme, and there may be colours.
    pub(crate) fn theme_is_open(&self) -> bool {
        let asked = std::env::var_os("MODCHAIN_THEME").is_some_and(|word| !word.is_empty());
        !asked && self.config.theme.is_none() && self.color(Stream::Stdout)
    }

    /// Whether only results are printed.
    pub(crate) fn quiet(&self) -> bool {
        self.global.quiet
    }

    /// Whether times are shown in UTC.
    pub(crate) fn utc(&self) -> bool {
        self.global.utc || self.config.utc
    }

    /// Whether standard output is a terminal.
    pub(crate) fn stdout_tty(&self) -> bool {
        self.stdout_tty
    }

    /// Whether standard error is a terminal.
    pub(crate) fn stderr_tty(&self) -> bool {
        self.stderr_tty
    }

    /// Whether a line that redraws itself may be shown on standard error.
    pub(crate) fn progress(&self) -> bool {
        self.stderr_tty && !self.quiet() && !is_dumb() && !self.format().is_json()
    }

    /// Whether colour may be used on a stream.
    pub(crate) fn color(&self, stream: Stream) -> bool {
        let tty = match stream {
            Stream::Stdout => self.stdout_tty,
            Stream::Stderr => self.stderr_tty,
        };
        let when = self.global.color.or(self.config.color).unwrap_or(ColorWhen::Auto);
        may_color(when, tty, &|name| std::env::var(name).unwrap_or_default())
    }

    /// Longest time to wait for a connection.
    pub(crate) fn connect_timeout(&self) -> Result<Duration, Failure> {
        if let Some(span) = self.global.connect_timeout {
            return Ok(span.into());
        }
        let place = self.paths.config.display().to_string();
        Ok(self.config.connect_timeout(&place)?.unwrap_or(CONNECT_TIMEOUT_DEFAULT))
    }

    /// Every context that this call knows.
    pub(crate) fn contexts(&self) -> Result<Contexts, Failure> {
        match &self.private {
            Some(contexts) => Ok(contexts.clone()),
            None => Contexts::load(&self.paths.contexts),
        }
    }

    /// Where to connect, and as whom.
    pub(crate) fn target(&self) -> Result<Target, Failure> {
        let contexts = self.contexts()?;
        let name = self.global.context.as_ref().or(contexts.current.as_ref()).or(self.config.context.as_ref());
        let Some(name) = name else {
            return Err(Failure::not_logged_in("no context is chosen").hint(if contexts.contexts.is_empty() {
                "modchain join --orchestrator HOST:PORT --token-file FILE with a token of its operator, or `modchain up` for a \
                 local stack"
            } else {
                "modchain context use NAME; modchain context list shows them"
            }));
        };
        self.target_of(name, self.global.orchestrator.as_deref())
    }

    /// Where to connect in this context; `instead` takes the place of its orchestrator's address.
    fn target_of(&self, name: &str, instead: Option<&str>) -> Result<Target, Failure> {
        let contexts = self.contexts()?;
        let context = contexts.get(name)?;
        let max_cost = match (&context.max_cost, &self.config.max_cost) {
            (Some(text), _) => Some(configured_amount(text, &format!("the context `{name}`"))?),
            (None, Some(text)) => Some(configured_amount(text, &self.paths.config.display().to_string())?),
            (None, None) => None,
        };
        let orchestrator = instead.map_or_else(|| context.orchestrator.clone(), str::to_owned);
        let join = match &context.join {
            Some(join) if instead.is_none() => join.clone(),
            _ => next_port(&orchestrator),
        };
        Ok(Target { context: name.to_owned(), orchestrator, join, identity: context.identity.clone(), max_cost })
    }

    /// Where to connect in another context than this call's.
    pub(crate) fn target_named(&self, name: &str) -> Result<Target, Failure> {
        self.target_of(name, None)
    }

    /// Connects to the target.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        let target = self.target()?;
        Client::connect(&target.orchestrator, &target.identity, self.connect_timeout()?, self.tell()).await
    }

    /// As [`Shell::say`], for those who live longer than a call of it.
    pub(crate) fn tell(&self) -> Tell {
        let silent = self.quiet() || self.format().is_json();
        Arc::new(move |line| {
            if !silent {
                // Nobody may read standard error, and that changes nothing.
                let _ = writeln!(std::io::stderr().lock(), "{}", crate::text::one_line(line));
            }
        })
    }

    /// The identities that `join` made.
    pub(crate) fn identities(&self) -> Identities {
        Identities::new(&self.paths.identities)
    }

    /// The list of submits.
    pub(crate) fn submits(&self) -> Submits {
        Submits::new(&self.paths.state)
    }

    /// A job as the orchestrator is asked for it: `@last` becomes an id here.
    pub(crate) fn job_ref(&self, word: &str) -> Result<modchain_wire::console::JobRef, Failure> {
        let word = if word == "@last" { self.submits().last(&self.target()?.context)? } else { word.to_owned() };
        if word.is_empty() {
            return Err(Failure::usage("the job's name is empty")
                .hint("write an id, a prefix of at least 3 characters, a name or @last"));
        }
        modchain_wire::console::JobRef::new(word)
            .map_err(|error| Failure::usage(format!("the job's name is too long: {error}")))
    }

    /// An id in a result: short on a terminal.
    pub(crate) fn id(&self, id: &JobId) -> String {
        crate::text::job_id(id, self.look().short)
    }

    /// An id in a remark: short on a terminal.
    pub(crate) fn id_said(&self, id: &JobId) -> String {
        crate::text::job_id(id, self.stderr_tty)
    }

    /// Prints a result.
    pub(crate) fn print(&self, text: &str) -> Result<(), Failure> {
        let plain = (self.ascii() && self.format() == Format::Table).then(|| crate::text::plain(text));
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(plain.as_deref().unwrap_or(text).as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|error| Failure::failed(format!("cannot write to standard output: {error}")))
    }

    /// Prints a document, indented where a person may read it.
    pub(crate) fn print_document(&self, document: &impl Serialize) -> Result<(), Failure> {
        let text = match self.flag() {
            FormatFlag::Yaml => return self.print(&yaml::document(document).map_err(no_document)?),
            FormatFlag::Json if self.stdout_tty => serde_json::to_string_pretty(document),
            FormatFlag::Json
            | FormatFlag::Jsonl
            | FormatFlag::Table
            | FormatFlag::Wide
            | FormatFlag::Csv
            | FormatFlag::Name => serde_json::to_string(document),
        };
        let mut text = text.map_err(no_document)?;
        text.push('\n');
        self.print(&text)
    }

    /// Says something on standard error, unless only results are wanted or a program reads them.
    pub(crate) fn say(&self, line: &str) {
        if !self.quiet() && !self.format().is_json() {
            // Nobody may read standard error, and that changes nothing.
            let line = crate::text::one_line(line);
            let line = if self.ascii() { crate::text::plain(&line) } else { line };
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        }
    }

    /// Whether standard input is a terminal.
    pub(crate) fn stdin_tty(&self) -> bool {
        self.stdin_tty
    }

    /// Whether there is a person who may be asked.
    pub(crate) fn can_ask(&self) -> bool {
        !self.global.no_input && self.stdin_tty && self.stderr_tty
    }

    /// Asks a person. Without one, the answer must have been given before.
    pub(crate) async fn confirm(&self, question: &str) -> Result<bool, Failure> {
        if self.global.yes {
            return Ok(true);
        }
        if !self.can_ask() {
            return Err(Failure { code: "confirmation_needed", ..Failure::usage(format!("needs a yes: {question}")) }
                .hint("add -y to say yes"));
        }
        let question = crate::text::one_line(question);
        // On a thread of its own, so that Ctrl-C is heard meanwhile.
        let answer = tokio::task::spawn_blocking(move || {
            let mut stderr = std::io::stderr().lock();
            let mut answer = String::new();
            write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush())?;
            drop(stderr);
            std::io::stdin().read_line(&mut answer).map(|_| answer)
        });
        let answer = answer
            .await
            .map_err(std::io::Error::other)
            .flatten()
            .map_err(|error| Failure::failed(format!("cannot ask: {error}")))?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }
}

/// Opens the user's editor (`VISUAL`, `EDITOR`, else `vi`) on a text in a file of this name, and gives back what it is then.
pub(crate) fn edit_text(text: &str, name: &str) -> Result<String, Failure> {
    let editor = ["VISUAL", "EDITOR"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|word| !word.trim().is_empty()));
    let editor = editor.unwrap_or_else(|| "vi".to_owned());
    let failed = |what: &str, error: &dyn std::fmt::Display| Failure::failed(format!("cannot {what}: {error}"));
    let folder = std::env::temp_dir().join(format!("modchain-edit-{}", std::process::id()));
    // One that is there already is somebody else's, and what they can write is not for our editor.
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&folder)
        .map_err(|error| failed("make a folder to edit in", &error))?;
    let path = folder.join(name);
    let outcome = std::fs::write(&path, text).map_err(|error| failed("write a file to edit", &error)).and_then(|()| {
        let mut words = editor.split_whitespace();
        let program = words.next().unwrap_or("vi");
        let status = std::process::Command::new(program).args(words).arg(&path).status();
        let status = status.map_err(|error| failed(&format!("start the editor `{program}`"), &error))?;
        if !status.success() {
            return Err(Failure::failed(format!("the editor `{program}` ended with {status}: nothing is changed")));
        }
        std::fs::read_to_string(&path).map_err(|error| failed("read the edited file", &error))
    });
    let _ = std::fs::remove_dir_all(&folder);
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_a_question_of_the_flag_the_environment_and_the_stream() {
        use ColorWhen::{Always, Auto, Never};
        for (when, tty, set, expected) in [
            (Auto, true, &[][..], true),
            (Auto, false, &[], false),
            (Auto, true, &[("NO_COLOR", "1")], false),
            (Auto, true, &[("NO_COLOR", "")], true),
            (Auto, true, &[("TERM", "dumb")], false),
            (Auto, true, &[("TERM", "xterm")], true),
            (Auto, false, &[("CLICOLOR_FORCE", "1")], true),
            (Auto, false, &[("CLICOLOR_FORCE", "0")], false),
            (Auto, false, &[("CLICOLOR_FORCE", "1"), ("TERM", "dumb")], true),
            (Auto, true, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false),
            (Always, false, &[("NO_COLOR", "1")], true),
            (Never, true, &[("CLICOLOR_FORCE", "1")], false),
        ] {
            let variable = |name: &str| {
                set.iter().find(|(known, _)| *known == name).map_or_else(String::new, |(_, value)| (*value).to_owned())
            };
            assert_eq!(may_color(when, tty, &variable), expected, "{when:?} {tty} {set:?}");
        }
    }
}

//! The one loop of the console: waits for keys, the link, signals and the next deadline, feeds [`update()`], does what follows, and draws
//! when something has changed. Everything that touches the world is here.

use std::fs::OpenOptions;
use std::future::Future;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossterm::event::{Event, MouseButton, MouseEventKind};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::app::{Caps, Now, View};
use super::keyboard::Keyboard;
use super::keys::Keymap;
use super::msg::{Drawn, Mouse, Secret};
use super::remember::{self, Remembered};
use super::terminal::{Screen, give_back_after_failure, to_the_end, watch, word};
use super::update::deadline;
use super::{App, Effect, Msg, ThemeName, command, update};
use crate::args::{Command, JobArgs, JobCommand, TokenCommand};
use crate::cli::spec::{self, Earlier, Plan};
use crate::client::live::recording::{Recorder, Replay, ReplayClock, replay};
use crate::client::live::{self, AskId, FromLive, Inbox, LiveHandle, ToLive};
use crate::client::state::random_key;
use crate::exit::{self, Failure, Outcome};
use crate::shell::{Shell, Target};
use crate::signal::Signals;
use crate::text::wall_now;

/// Shortest time between two frames: a burst becomes one frame.
const FRAME: Duration = Duration::from_millis(33);
/// The same where somebody has done something and waits to see it.
const KEY_FRAME: Duration = Duration::from_millis(8);
/// The file of what was typed, in the state directory.
const HISTORY: &str = "history";
/// The file of how things were looked at, in the state directory.
const UI: &str = "ui.json";
/// Longest time for messages before keys and the screen have their turn again.
const BURST: Duration = Duration::from_millis(4);
/// Results of work in the background that may wait.
const RESULTS_MAX: usize = 64;
/// Longest text that goes into a terminal's clipboard; more is often dropped without a word.
const COPY_BYTES_MAX: usize = 74_994;

/// How the console is to be.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// The view to begin with.
    pub(crate) view: Option<String>,
    /// The filter of that view.
    pub(crate) filter: Option<String>,
    /// Nothing may be changed.
    pub(crate) read_only: bool,
    /// Show this recording instead of an orchestrator.
    pub(crate) replay: Option<PathBuf>,
    /// How much faster than it was; 0 means at once.
    pub(crate) speed: f64,
    /// Write what comes into this file.
    pub(crate) record: Option<PathBuf>,
    /// The command line of a sample job that is one key away, and that first steps are shown.
    pub(crate) sample: Option<Vec<String>>,
    /// What the program that opened the console has to say while it is open.
    pub(crate) said: Option<mpsc::Receiver<String>>,
}

/// Shows the console until its user leaves.
pub(crate) async fn run(shell: &Shell, mut settings: Settings, signals: &mut Signals) -> Outcome {
    let keymap = keymap(shell)?;
    let theme = shell.theme()?;
    let target = if settings.replay.is_some() { None } else { Some(shell.target()?) };
    let view = settings.view.as_deref().map(view_named).transpose()?;
    let (columns, rows) = crossterm::terminal::size().unwrap_or((80, 24));
    let caps = Caps {
        columns,
        rows,
        ascii: shell.ascii() || !speaks_utf8(),
        read_only: settings.read_only,
        replay: settings.replay.is_some(),
        context: target.as_ref().map_or_else(|| "recording".into(), |target| target.context.clone()),
        accent: None,
        contexts: shell.contexts().map(|all| all.contexts.into_keys().collect()).unwrap_or_default(),
        keymap,
        sample: settings.sample.clone(),
        folder: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
        max_cost: target.as_ref().and_then(|target| target.max_cost),
    };
    let started = Instant::now();
    let (link, inbox, clock) = open_link(shell, &settings, target.as_ref())?;
    let mut app = App::new(caps, theme, shell.utc(), now(started, clock.as_ref()));
    app.ui.hint = settings.sample.is_some();
    let remembered = if settings.replay.is_some() { None } else { remember(shell, &mut app) };
    if let Some(view) = view {
        app.ui.view = view;
    }
    if let Some(filter) = &settings.filter
        && let Some(fault) = super::update::set_filter(&mut app, filter)
    {
        return Err(Failure::usage(format!("--filter: {fault}")));
    }
    let recorder = settings.record.as_deref().map(|path| Recorder::create(path, wall_now())).transpose()?;
    ignore_sigpipe();
    restore_on_panic(shell.paths.state.clone());
    let mut screen =
        Screen::enter().map_err(|error| Failure::failed(format!("cannot take the terminal over: {error}")))?;
    let (results, finished) = mpsc::channel(RESULTS_MAX);
    if let Some(mut said) = settings.said.take() {
        let results = results.clone();
        tokio::spawn(async move {
            while let Some(line) = said.recv().await {
                if results.send(Msg::Said(line)).await.is_err() {
                    break;
                }
            }
        });
    }
    let mut console = Console { shell, target, link, clock, recorder, results, app, started, dirty: true, leave: None };
    let outcome = console.serve(&mut screen, inbox, finished, signals).await;
    drop(screen);
    for what in console.app.unanswered() {
        shell.say(&format!("{what}: no answer came before the console was left; look whether it was done"));
    }
    if settings.replay.is_none() {
        let chosen = console.app.ui.theme.name;
        let chosen = if shell.theme_is_open() { Some(chosen).filter(|chosen| *chosen != theme) } else { remembered };
        to_the_end(|| keep(shell, &console.app, chosen));
    }
    if let Some(link) = console.link.take() {
        link.close().await;
    }
    outcome
}

/// Lets the console look as it did, and know what was typed; gives back the theme that was chosen.
fn remember(shell: &Shell, app: &mut App) -> Option<ThemeName> {
    // A file that cannot be read is as good as none: it is no reason not to open.
    let read = |name: &str| crate::client::config::read_if_there(&shell.paths.state.join(name)).ok().flatten();
    if let Some(text) = read(HISTORY) {
        remember::recall(app, &text);
    }
    let remembered = Remembered::read(&read(UI)?)?;
    remembered.apply(app);
    let theme = remembered.theme();
    if let Some(name) = theme.filter(|_| shell.theme_is_open()) {
        app.ui.theme = super::theme::Theme { name };
    }
    theme
}

/// Writes down how things were looked at and what was typed.
fn keep(shell: &Shell, app: &App, theme: Option<ThemeName>) {
    let write = |name: &str, text: String| {
        crate::client::config::create_private_dir(&shell.paths.state)?;
        crate::client::config::replace_file(&shell.paths.state.join(name), text.as_bytes())
    };
    for (name, text) in [(HISTORY, remember::history(app)), (UI, Remembered::of(app, theme).text())] {
        // What cannot be kept is typed again.
        let _ = write(name, text);
    }
}

/// What the loop holds.
struct Console<'a> {
    shell: &'a Shell,
    target: Option<Target>,
    link: Option<LiveHandle>,
    /// The time that a recording shows.
    clock: Option<ReplayClock>,
    /// What comes is written down too.
    recorder: Option<Recorder>,
    results: mpsc::Sender<Msg>,
    app: App,
    started: Instant,
    dirty: bool,
    leave: Option<u8>,
}

impl Console<'_> {
    async fn serve(
        &mut self,
        screen: &mut Screen,
        mut inbox: Inbox,
        mut finished: mpsc::Receiver<Msg>,
        signals: &mut Signals,
    ) -> Outcome {
        let mut keys = Keyboard::open().map_err(gone)?;
        let mut gone_away = watch().map_err(gone)?;
        let mut drawn_at = Instant::now();
        let mut frame_at = drawn_at;
        let mut link_open = true;
        self.feed(screen, &mut keys, Msg::Deadline)?;
        loop {
            if let Some(code) = self.leave {
                return Ok(code);
            }
            let now_at = Instant::now();
            if self.dirty && now_at >= frame_at {
                screen.draw(&self.app).map_err(gone)?;
                self.app.drawn();
                self.dirty = false;
                drawn_at = now_at;
                frame_at = now_at + FRAME;
            }
            let due = deadline(&self.app).map(|ms| self.started + Duration::from_millis(ms));
            let wake = match (self.dirty, due) {
                (true, Some(due)) => Some(due.min(frame_at)),
                (true, None) => Some(frame_at),
                (false, due) => due,
            };
            let message = tokio::select! {
                biased;
                wish = signals.next() => return Ok(wish.exit()),
                _ = &mut gone_away => return Ok(exit::HUNG_UP),
                event = keys.next() => match event {
                    Some(Ok(event)) => {
                        #[cfg(debug_assertions)]
                        super::mishap::on(&event);
                        self.heard(screen, event)
                    }
                    // The terminal is gone.
                    Some(Err(_)) | None => return Ok(exit::HUNG_UP),
                },
                Some(message) = finished.recv() => Some(message),
                message = inbox.recv(), if link_open => match message {
                    Some(message) => Some(self.came(message)),
                    None => {
                        link_open = false;
                        None
                    }
                },
                () = at(wake) => due.is_some_and(|due| Instant::now() >= due).then_some(Msg::Deadline),
            };
            let Some(message) = message else { continue };
            if matches!(message, Msg::Key(_) | Msg::Paste(_) | Msg::Mouse(_) | Msg::Resize(..)) {
                frame_at = frame_at.min(drawn_at + KEY_FRAME);
            }
            self.feed(screen, &mut keys, message)?;
            // One burst is one frame; keys have their turn in between.
            let until = Instant::now() + BURST;
            while self.leave.is_none() && Instant::now() < until {
                let Some(message) = inbox.try_recv() else { break };
                let message = self.came(message);
                self.feed(screen, &mut keys, message)?;
            }
        }
    }

    /// Something has come over the link.
    fn came(&mut self, message: FromLive) -> Msg {
        if let Some(said) = self.recorder.as_mut().and_then(|recorder| recorder.write(&message, wall_now())) {
            self.tell(said);
        }
        Msg::Live(Box::new(message))
    }

    fn feed(&mut self, screen: &mut Screen, keys: &mut Keyboard, message: Msg) -> Result<(), Failure> {
        self.app.now = now(self.started, self.clock.as_ref());
        self.dirty = true;
        for effect in update(&mut self.app, message) {
            self.perform(screen, keys, effect)?;
        }
        Ok(())
    }

    fn heard(&self, screen: &Screen, event: Event) -> Option<Msg> {
        match event {
            Event::Key(key) => word(key).map(Msg::Key),
            Event::Paste(text) => Some(Msg::Paste(text)),
            Event::Resize(columns, rows) => {
                let (columns, rows) = screen.size().unwrap_or((columns, rows));
                Some(Msg::Resize(columns, rows))
            }
            Event::Mouse(mouse) => Some(Msg::Mouse(match mouse.kind {
                MouseEventKind::Down(MouseButton::Left) => Mouse::Click(mouse.column, mouse.row),
                MouseEventKind::ScrollUp => Mouse::WheelUp(mouse.column, mouse.row),
                MouseEventKind::ScrollDown => Mouse::WheelDown(mouse.column, mouse.row),
                _ => return None,
            })),
            Event::FocusGained | Event::FocusLost => None,
        }
    }

    fn perform(&mut self, screen: &mut Screen, keys: &mut Keyboard, effect: Effect) -> Result<(), Failure> {
        match effect {
            Effect::Send(message) => {
                if let Some(link) = &self.link {
                    link.send(message);
                }
            }
            Effect::Plan(edit, line, earlier) => {
                let max_cost = self.target.as_ref().and_then(|target| target.max_cost);
                self.background(async move {
                    let plan = tokio::task::spawn_blocking(move || planned(&line, earlier, max_cost)).await;
                    let plan = plan.unwrap_or_else(|error| Err(Failure::failed(error.to_string())));
                    Msg::Planned(edit, plan.map(Box::new))
                });
            }
            Effect::Submit(ask, plan) => self.submit(ask, *plan),
            Effect::DrawToken(edit, line) => {
                let drawn = self.target.as_ref().ok_or_else(|| Failure::usage("there is no orchestrator"));
                let drawn = drawn.and_then(|target| drawn_token(target, &line)).map(Box::new);
                self.results.try_send(Msg::Drawn(edit, drawn)).ok();
            }
            Effect::DrawKey(edit, line) => {
                self.results.try_send(Msg::Keyed(edit, line, random_key())).ok();
            }
            Effect::Copy(text) => {
                if text.len() > COPY_BYTES_MAX {
                    self.tell(format!(
                        "{} is too much for a clipboard: Ctrl-s writes a file",
                        crate::text::bytes(text.len() as u64)
                    ));
                } else {
                    screen.copy(&text).map_err(gone)?;
                }
            }
            Effect::Write(path, bytes) => self.background(async move {
                let written = path.clone();
                let outcome = tokio::task::spawn_blocking(move || write_new(&written, &bytes)).await;
                let outcome = outcome.unwrap_or_else(|error| Err(Failure::failed(error.to_string())));
                Msg::Written(path, outcome)
            }),
            Effect::Edit(text) => {
                let edited = self.aside(screen, keys, || edit(&text))?;
                self.results.try_send(Msg::Edited(edited)).ok();
            }
            Effect::UseContext(name) => match self.shell.target_named(&name) {
                Ok(target) => {
                    self.app.caps.context = target.context.clone();
                    self.app.caps.max_cost = target.max_cost;
                    if let Some(link) = &self.link {
                        link.send(ToLive::UseTarget(Box::new(target.clone())));
                    }
                    self.target = Some(target);
                    self.app.begin_anew();
                }
                Err(failure) => self.tell(failure.said()),
            },
            Effect::Mouse(on) => screen.set_mouse(on).map_err(gone)?,
            Effect::Suspend => {
                self.aside(screen, keys, || {
                    // SAFETY: stops this process as the shell's job control does; it goes on here when it is continued.
                    unsafe { libc::raise(libc::SIGTSTP) };
                })?;
                self.results.try_send(Msg::Resumed).ok();
            }
            Effect::Repaint => screen.repaint().map_err(gone)?,
            Effect::Quit(code) => self.leave = Some(code),
        }
        Ok(())
    }

    /// Gives the terminal to somebody else meanwhile.
    fn aside<T>(&mut self, screen: &mut Screen, keys: &mut Keyboard, work: impl FnOnce() -> T) -> Result<T, Failure> {
        keys.pause();
        screen.pause();
        let outcome = work();
        screen.resume().map_err(gone)?;
        keys.resume().map_err(gone)?;
        if let Ok((columns, rows)) = screen.size() {
            (self.app.caps.columns, self.app.caps.rows) = (columns, rows);
        }
        self.dirty = true;
        Ok(outcome)
    }

    /// The key is on disk before anything is sent: whoever loses the answer asks again with the same key.
    fn submit(&mut self, ask: AskId, plan: Plan) {
        let Some(context) = self.target.as_ref().map(|target| target.context.clone()) else { return };
        let submits = self.shell.submits();
        let remembered = random_key().and_then(|key| {
            submits.remember(&context, &key, None).map_err(Failure::from)?;
            Ok(key)
        });
        match (remembered, &self.link) {
            (Ok(key), Some(link)) => {
                let account = self.app.mirror.my_account().cloned();
                let request =
                    modchain_wire::console::Submit { key: key.clone(), spec: plan.spec, no_queue: plan.no_queue };
                link.send(ToLive::Submit(ask, Box::new(request), plan.blob));
                if let Some(account) = account {
                    let job = modchain_types::JobId::derive(&account, &key);
                    // What `@last` means from here on; the job is found by its key even if this line is lost.
                    let _ = submits.remember(&context, &key, Some(&job.to_string()));
                    self.results.try_send(Msg::Sent(job)).ok();
                }
            }
            (Err(failure), _) => {
                self.results.try_send(Msg::NotSubmitted(ask, failure)).ok();
            }
            (Ok(_), None) => {}
        }
    }

    fn tell(&self, text: String) {
        // A full queue has enough to tell already.
        self.results.try_send(Msg::Said(text)).ok();
    }

    fn background(&self, work: impl Future<Output = Msg> + Send + 'static) {
        let results = self.results.clone();
        tokio::spawn(async move {
            // The console may have been left meanwhile.
            let _ = results.send(work.await).await;
        });
    }
}

fn now(started: Instant, clock: Option<&ReplayClock>) -> Now {
    Now {
        wall: clock.map_or_else(wall_now, ReplayClock::now),
        ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn gone(error: std::io::Error) -> Failure {
    Failure { exit: exit::HUNG_UP, ..Failure::failed(format!("the terminal is gone: {error}")) }
}

fn open_link(
    shell: &Shell,
    settings: &Settings,
    target: Option<&Target>,
) -> Result<(Option<LiveHandle>, Inbox, Option<ReplayClock>), Failure> {
    match (&settings.replay, target) {
        (Some(path), _) => {
            let Replay { inbox, clock } = replay(path, settings.speed)?;
            Ok((None, inbox, Some(clock)))
        }
        (None, Some(target)) => {
            let (handle, inbox) = live::start(target.clone(), shell.connect_timeout()?);
            Ok((Some(handle), inbox, None))
        }
        (None, None) => Err(Failure::usage("there is nothing to show")),
    }
}

/// The user's own keys, if there are any.
fn keymap(shell: &Shell) -> Result<Keymap, Failure> {
    let path = shell.paths.config.with_file_name("keys.toml");
    match crate::client::config::read_if_there(&path)? {
        None => Ok(Keymap::default()),
        Some(text) => Keymap::with(&text).map_err(|why| Failure::usage(format!("{}: {why}", path.display()))),
    }
}

/// Whether the locale says that the terminal shows more than ASCII.
fn speaks_utf8() -> bool {
    let first =
        ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    first.is_some_and(|locale| {
        let locale = locale.to_uppercase();
        locale.contains("UTF-8") || locale.contains("UTF8")
    })
}

fn view_named(word: &str) -> Result<View, Failure> {
    let wanted = word.to_lowercase();
    View::ALL.into_iter().find(|view| view.names().0.to_lowercase() == wanted).ok_or_else(|| {
        let names: Vec<String> = View::ALL.iter().map(|view| view.names().0.to_lowercase()).collect();
        Failure::usage(format!("`{word}` is no view")).hint(format!("views: {}", names.join(", ")))
    })
}

/// What a command line would submit.
pub(super) fn planned(
    line: &[String],
    earlier: Option<Box<Earlier>>,
    max_cost: Option<modchain_types::Micro>,
) -> Result<Plan, Failure> {
    let (job, earlier) = match (command::parse(line)?, earlier) {
        (Command::Run(args), _) => (args.job, None),
        (Command::Quote(args), _) => (args.job, None),
        (Command::Job(JobArgs { command: Some(JobCommand::Rerun(args)), .. }), Some(mut earlier)) => {
            earlier.without(&args.without)?;
            (args.run.job, Some(*earlier))
        }
        _ => return Err(Failure::usage("this is no job")),
    };
    spec::plan_apart(job, earlier, max_cost)
}

/// The token that a command line asks for.
fn drawn_token(target: &Target, line: &[String]) -> Result<Drawn, Failure> {
    let Command::Token(TokenCommand::Create(args)) = command::parse(line)? else {
        return Err(Failure::usage("this makes no token"));
    };
    let (token, request) = crate::cli::token::drawn(target, args)?;
    Ok(Drawn { secret: Secret(token.text()), request, join: target.join.clone() })
}

/// Writes a file that is not there yet.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("cannot write {}: {error}", path.display()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_data()).map_err(|error| {
        // Half a file is worse than none.
        let _ = std::fs::remove_file(path);
        failed(error)
    })
}

/// Opens the user's editor on a text.
fn edit(text: &str) -> Result<String, Failure> {
    crate::shell::edit_text(text, "job.toml")
}

/// A terminal that goes away must not kill us before we have said good-bye.
fn ignore_sigpipe() {
    // SAFETY: sets a signal's disposition to ignored; no handler is involved.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// A bug must not leave a broken terminal behind: it is given back first, and what happened is kept in a file.
fn restore_on_panic(state: PathBuf) {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        give_back_after_failure();
        let report = format!(
            "modchain {}\n{panic}\n{}\n",
            env!("CARGO_PKG_VERSION"),
            std::backtrace::Backtrace::force_capture()
        );
        let path = state.join(format!("crash-{}.txt", wall_now().0));
        if write_new(&path, report.as_bytes()).is_ok() {
            let _ = writeln!(std::io::stderr().lock(), "the console has failed; {} says where", path.display());
        }
        usual(panic);
        // A thread of the link that has failed would leave a console that shows old data as new.
        std::process::exit(101);
    }));
}

//! The life of one container, from its image to its removal.
//!
//! ```text
//!             stop                                     stop: SIGTERM, grace, SIGKILL
//!              │                                          │
//!   image ─────┼─▶ create ─▶ compare ─▶ command? ─▶ start ─┴─▶ wait ─▶ rest of the log ─▶ Ended ─▶ removed, see below
//!     │        ▼      │          │          │         │          │
//!     └────▶ Ended ◀──┴──────────┴──────────┴─────────┘          └─ engine away: back with the container? go on
//!                     (and removed)                                  else the node's fault, and removed
//! ```
//!
//! A container that was seen to end is left where it is: as long as its end is not written down, it alone knows it, and an
//! agent that died just then finds it again. Whoever has written it down calls [`super::DockerExecutor::remove`].
//!
//! While the engine is away nobody can look at a container, or end it. One whose engine stays away for more than a minute is
//! given up as the node's fault although it may still run; it is removed as soon as the engine is found again.
//!
//! The engine says how a container ended only in one number. 128 + n stands for signal n by the convention that the init of the
//! container, the engine and every shell share; a program that exits with such a number by itself looks the same and is told as
//! the signal, which its client sees as the same exit code and pays for in the same way. What the engine does know (out of
//! memory) and what the kernel counts (processes) is looked at first; a signal that somebody sent through the engine is neither
//! ours nor the job's and makes it the node's fault.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{ContainerState, ContainerStateStatusEnum};
use bollard::query_parameters::{CreateContainerOptions, EventsOptions, StartContainerOptions, WaitContainerOptions};
use futures::StreamExt;
use modchain_types::{AttemptId, DockerTask, Ending, Fault, Span, Timestamp, Usage};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::cursor::{Cursor, Position};
use super::engine::{Engine, Trouble};
use super::input::{Feeding, Input};
use super::limits::{self, PidsWatch};
use super::logs::{Log, Lost};
use super::{DockerPolicy, ResumeRequest, command, image, reap, sandbox, told};
use crate::clock;
use crate::executor::{ExecutorEvent, StartRequest, StopAs, Wish};

/// Longest absence of the engine that a running container is waited for. It lives through a restart of its engine only where
/// the engine is told to let it; where not it is dead when the engine is back.
const ENGINE_BACK_MAX: Duration = Duration::from_secs(60);

/// Time between two looks for an engine that is away.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Pause before a signal that could not be sent is sent again.
const SIGNAL_AGAIN: Duration = Duration::from_secs(1);

/// Looks for a word of the engine about memory, which it may say a moment after the end.
const MEMORY_LOOKS: u32 = 4;

/// Longest wait for the engine's memory of who sent signals.
const EVENTS_MAX: Duration = Duration::from_secs(5);

/// Grace that no wish exceeds, so that none overflows a timer.
const GRACE_MAX: Duration = Duration::from_secs(24 * 3600);

/// One attempt in a container.
pub(super) struct Job {
    pub(super) engine: Engine,
    pub(super) name: String,
    pub(super) attempt: AttemptId,
    pub(super) events: mpsc::Sender<ExecutorEvent>,
    pub(super) wish: watch::Receiver<Wish>,
}

/// How it ended, and how long it ran.
struct End {
    ending: Ending,
    ran: Span,
    /// Whether the container is there, has run, and was seen to have ended: then it is left for whoever writes the end down.
    at_rest: bool,
}

impl From<Ending> for End {
    fn from(ending: Ending) -> Self {
        Self { ending, ran: Span::ZERO, at_rest: false }
    }
}

/// How the reading of a container's output ended.
type Read = Result<Result<(), Lost>, tokio::task::JoinError>;

/// How a container that had started came to rest.
enum Rest {
    /// It ended, and the engine was there to see it.
    Ended(ContainerState),
    /// Nobody knows how: the engine was away.
    Unseen(String),
}

impl Job {
    /// From the image to the end.
    pub(super) async fn start(
        mut self,
        request: StartRequest,
        task: DockerTask,
        policy: DockerPolicy,
        labels: HashMap<String, String>,
        input: Option<Input>,
    ) {
        let end = match self.create(&request, &task, &policy, labels).await {
            Ok(()) => {
                let end = self.run(request, input).await;
                if !end.at_rest {
                    self.remove().await;
                }
                end
            }
            Err(ending) => ending.into(),
        };
        self.end(end).await;
    }

    /// Goes on with a container that another agent started.
    pub(super) async fn resume(mut self, request: ResumeRequest) {
        let end = self.go_on(&request).await;
        if !end.at_rest {
            self.remove().await;
        }
        self.end(end).await;
    }

    async fn end(self, End { ending, ran, at_rest }: End) {
        tracing::debug!(attempt = %self.attempt, ?ending, %ran, "the container has ended");
        let usage = Usage { ran, ..Usage::default() };
        let told = self.events.send(ExecutorEvent::Ended { ending, usage }).await;
        if told.is_err() && at_rest {
            // Nobody is left who would write the end down.
            self.remove().await;
        }
    }

    /// Everything up to a container that is as it was asked for, and not started.
    async fn create(
        &mut self,
        request: &StartRequest,
        task: &DockerTask,
        policy: &DockerPolicy,
        labels: HashMap<String, String>,
    ) -> Result<(), Ending> {
        if !policy.exceptions.allow(request.exceptions) {
            return Err(node_cannot("this node's owner does not allow what the container asks for beyond the sandbox"));
        }
        let (engine, events) = (self.engine.clone(), self.events.clone());
        let image = tokio::select! {
            image = image::ensure(&engine, policy, task, request.image.as_ref(), &events) => image?,
            ending = self.stopped() => return Err(ending),
        };
        let pinned = ExecutorEvent::Pinned { image: image.pin.clone() };
        if self.events.send(pinned).await.is_err() {
            return Err(Ending::Stopped);
        }
        let body = sandbox::settings(request, task, &image, labels)?;
        let (docker, _) = self.engine.docker().await.map_err(node_trouble)?;
        let named = CreateContainerOptions { name: Some(self.name.clone()), platform: String::new() };
        // From here on nothing is given up half way: the engine would finish it alone.
        if let Err(error) = docker.create_container(Some(named), body.clone()).await {
            let trouble = self.engine.trouble(error).await;
            if !matches!(trouble, Trouble::Refused { .. }) {
                // Whether it was created nobody knows.
                self.remove().await;
            }
            return Err(create_failed(trouble));
        }
        let examined = self.examine(&body, &image).await;
        if examined.is_err() {
            self.remove().await;
        }
        examined
    }

    /// Whether the container is what was asked for, and can be started.
    async fn examine(
        &mut self,
        body: &bollard::models::ContainerCreateBody,
        image: &image::Image,
    ) -> Result<(), Ending> {
        let made = match self.engine.inspect(&self.name).await {
            Ok(Some(made)) => made,
            Ok(None) => return Err(node_cannot("the container vanished before its start")),
            Err(trouble) => return Err(node_trouble(trouble)),
        };
        if let Err(field) = sandbox::compare(body, &made, image) {
            tracing::error!(attempt = %self.attempt, field, "the container engine did not build what it was asked for");
            let why = format!("the container differs from what was asked for in {field}, and was not started");
            return Err(node_cannot(why));
        }
        let config = made.config.unwrap_or_default();
        let (env, workdir) = (config.env.unwrap_or_default(), config.working_dir.unwrap_or_default());
        command::check(&self.engine, &self.name, &made.path.unwrap_or_default(), &env, &workdir).await?;
        let wish = *self.wish.borrow_and_update();
        match wish {
            Wish::Run => Ok(()),
            Wish::Stop { stop_as, .. } | Wish::Kill { stop_as } => Err(stop_as.ending()),
        }
    }

    /// From the start to the end.
    async fn run(&mut self, request: StartRequest, input: Option<Input>) -> End {
        let feeding = match input {
            None => None,
            Some(input) => match Feeding::attach(&self.engine, &self.name, input).await {
                Ok(feeding) => Some(feeding),
                Err(trouble) => return node_trouble(trouble).into(),
            },
        };
        let (docker, _) = match self.engine.docker().await {
            Ok(docker) => docker,
            Err(trouble) => return node_trouble(trouble).into(),
        };
        if let Err(error) = docker.start_container(&self.name, None::<StartContainerOptions>).await {
            return start_failed(self.engine.trouble(error).await).into();
        }
        let started = clock::now();
        let _ = self.events.send(ExecutorEvent::Started).await;
        self.watch(started, Cursor::new(request.state), false, false, feeding).await
    }

    async fn go_on(&mut self, request: &ResumeRequest) -> End {
        let container = match self.engine.inspect(&self.name).await {
            Ok(Some(container)) => container,
            Ok(None) => return node_fault("the container is gone").into(),
            Err(trouble) => return node_fault(trouble.to_string()).into(),
        };
        let state = container.state.unwrap_or_default();
        let mut held = false;
        match state.status {
            Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::EXITED) => {}
            // It waited for a reader that died.
            Some(ContainerStateStatusEnum::PAUSED) => held = true,
            _ => return node_fault("the container never started").into(),
        }
        let position = Position { stdout: request.stdout, stderr: request.stderr };
        let cursor = Cursor::load(request.state.clone(), position).await;
        let mut end = self.watch(request.started, cursor, request.full, held, None).await;
        if state.running != Some(true) {
            // It ended while nobody watched: what the engine wrote down is nearer to the truth than now.
            let seen = reap::moment(state.started_at.as_deref()).zip(reap::moment(state.finished_at.as_deref()));
            end.ran = seen.map_or(end.ran, |(started, finished)| finished.since(started).min(end.ran));
        }
        end
    }

    /// Watches a started container until it has ended and its output has been handed out.
    async fn watch(
        &mut self,
        started: Timestamp,
        cursor: Cursor,
        full: bool,
        held: bool,
        mut feeding: Option<Feeding>,
    ) -> End {
        let (ended_in, ended) = watch::channel(false);
        let log = Log {
            engine: self.engine.clone(),
            name: self.name.clone(),
            attempt: self.attempt,
            cursor,
            full,
            events: self.events.clone(),
            ended,
            held,
            behind: 0,
            messages: 0,
            long: false,
        };
        let mut reading = AbortOnDropHandle::new(tokio::spawn(log.read()));
        let container = self.engine.inspect(&self.name).await.ok().flatten().unwrap_or_default();
        let pids = PidsWatch::new(container.state.and_then(|state| state.pid).filter(|pid| *pid > 0));
        let id = container.id.unwrap_or_default();
        let (rest, stopped, read) = self.wait(&mut reading, &mut feeding).await;
        let ran = clock::now().since(started);
        let at_rest = matches!(rest, Rest::Ended(_));
        let ending = match rest {
            // Its output may come to an end, or not: nothing of it counts.
            Rest::Unseen(why) => node_fault(why),
            Rest::Ended(state) => {
                ended_in.send_replace(true);
                let ending = self.ending(state, stopped, &pids, &id, started).await;
                let read = match read {
                    Some(read) => read,
                    None => reading.await,
                };
                let is_input_lost = match &mut feeding {
                    Some(feeding) => feeding.is_lost().await,
                    None => false,
                };
                match read {
                    Ok(Ok(())) if is_input_lost => {
                        node_fault("the container engine went away before the container had all of its input")
                    }
                    Ok(Ok(())) => ending,
                    Ok(Err(Lost(why))) => node_fault(why),
                    Err(error) => node_fault(format!("the reader of the output failed: {error}")),
                }
            }
        };
        End { ending, ran, at_rest }
    }

    /// Waits for the container's end and does what is wished meanwhile. Says as well how it was stopped, if it was, and how the
    /// reading of its output ended, if that came first.
    async fn wait(
        &mut self,
        reading: &mut AbortOnDropHandle<Result<(), Lost>>,
        feeding: &mut Option<Feeding>,
    ) -> (Rest, Option<StopAs>, Option<Read>) {
        let (engine, name) = (self.engine.clone(), self.name.clone());
        let rest = wait_for_rest(&engine, &name);
        tokio::pin!(rest);
        let mut stopped = None;
        let mut kill: Option<(Instant, StopAs)> = None;
        let mut wish_open = true;
        // What was wished before the start counts as well.
        self.wish.mark_changed();
        let mut listened = true;
        let mut read = None;
        let input_lost = async {
            match feeding {
                Some(feeding) => feeding.lost().await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(input_lost);
        let mut fed = true;
        loop {
            let now = tokio::select! {
                rest = &mut rest => return (rest, stopped, read),
                done = &mut *reading, if read.is_none() => {
                    let failed = !matches!(done, Ok(Ok(())));
                    read = Some(done);
                    if !failed {
                        continue;
                    }
                    // What it prints from here on is worth nothing.
                    Wish::Kill { stop_as: StopAs::Stopped }
                }
                () = &mut input_lost, if fed => {
                    fed = false;
                    tracing::warn!(attempt = %self.attempt, "the container cannot get the rest of its input: it is killed");
                    // What it makes of half of it is worth nothing.
                    Wish::Kill { stop_as: StopAs::Stopped }
                }
                changed = self.wish.changed(), if wish_open => match changed {
                    Ok(()) => *self.wish.borrow_and_update(),
                    Err(_) => { wish_open = false; continue }
                },
                () = self.events.closed(), if listened => {
                    listened = false;
                    tracing::warn!(attempt = %self.attempt, "nobody listens to this attempt any more: it is killed");
                    Wish::Kill { stop_as: StopAs::Stopped }
                }
                () = tokio::time::sleep_until(kill.map_or_else(Instant::now, |(at, _)| at)), if kill.is_some() => {
                    let (_, stop_as) = kill.expect("only then");
                    Wish::Kill { stop_as }
                }
            };
            match now {
                Wish::Run => {}
                Wish::Stop { stop_as, grace } => {
                    kill = Some((Instant::now() + grace.min(GRACE_MAX), stop_as));
                    if let Ok(true) = engine.signal(&name, "SIGTERM").await {
                        stopped = Some(stop_as);
                    }
                }
                Wish::Kill { stop_as } => {
                    // Again and again: the engine may be away just now, and its answer may be lost.
                    kill = Some((Instant::now() + SIGNAL_AGAIN, stop_as));
                    if let Ok(true) = engine.signal(&name, "SIGKILL").await {
                        stopped.get_or_insert(stop_as);
                    }
                }
            }
        }
    }

    /// What the end of a container is to be told as.
    async fn ending(
        &self,
        mut state: ContainerState,
        stopped: Option<StopAs>,
        pids: &PidsWatch,
        id: &str,
        started: Timestamp,
    ) -> Ending {
        if let Some(stop_as) = stopped {
            return stop_as.ending();
        }
        let Ok(code) = u8::try_from(state.exit_code.unwrap_or(-1)) else {
            return node_fault("the container engine does not tell how the container ended");
        };
        if code == 0 {
            return Ending::Exited { code };
        }
        for look in 0..MEMORY_LOOKS {
            if state.oom_killed == Some(true) {
                return Ending::MemoryLimit;
            }
            if code != 128 + 9 || look + 1 == MEMORY_LOOKS {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN / 4).await;
            if let Ok(Some(container)) = self.engine.inspect(&self.name).await {
                state = container.state.unwrap_or_default();
            }
        }
        if code == 128 + 9 && !id.is_empty() && limits::ran_out_of_memory(id).await {
            return Ending::MemoryLimit;
        }
        if !id.is_empty() && pids.refused(id).await {
            return Ending::PidsLimit { code };
        }
        match signal_of(code) {
            Some(_) if self.signalled_from_outside(started).await => {
                node_fault("somebody else sent the container a signal through the container engine")
            }
            Some(signal) => Ending::Signalled { signal },
            None => Ending::Exited { code },
        }
    }

    /// Whether the engine remembers that it was asked to send this container a signal. We have not.
    async fn signalled_from_outside(&self, started: Timestamp) -> bool {
        let Ok((docker, _)) = self.engine.reach().await else { return false };
        let second = |at: i64| at.div_euclid(1000).to_string();
        let now = clock::wall();
        let ago = i64::try_from(clock::now().since(started).as_millis()).unwrap_or(i64::MAX);
        let filters = HashMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            ("event".to_owned(), vec!["kill".to_owned()]),
            ("container".to_owned(), vec![self.name.clone()]),
        ]);
        let options = EventsOptions {
            since: Some(second(now.0.saturating_sub(ago).saturating_sub(1000))),
            // To the end of this second: the engine answers when that has come.
            until: Some(second(now.0 + 1000)),
            filters: Some(filters),
        };
        let mut events = Box::pin(docker.events(Some(options)));
        matches!(tokio::time::timeout(EVENTS_MAX, events.next()).await, Ok(Some(Ok(_))))
    }

    /// Waits until it is to be stopped before it has started, or until nobody listens.
    async fn stopped(&mut self) -> Ending {
        loop {
            match *self.wish.borrow_and_update() {
                Wish::Run => {}
                Wish::Stop { stop_as, .. } | Wish::Kill { stop_as } => return stop_as.ending(),
            }
            tokio::select! {
                changed = self.wish.changed() => if changed.is_err() {
                    // Nobody can wish any more, but somebody may still listen.
                    self.events.closed().await;
                    return Ending::Stopped;
                },
                () = self.events.closed() => return Ending::Stopped,
            }
        }
    }

    /// Removes the container. One that cannot be removed now is removed when the engine has been found again.
    async fn remove(&self) {
        if let Err(trouble) = self.engine.remove(&self.name).await {
            tracing::warn!(attempt = %self.attempt, %trouble, "a container could not be removed, and is left for later");
            self.engine.leave(self.name.clone());
        }
    }
}

/// Waits until the container does not run any more.
async fn wait_for_rest(engine: &Engine, name: &str) -> Rest {
    let mut away_since: Option<Instant> = None;
    loop {
        // Whether the engine told the end itself: where it broke off instead, it was on its own way out, and may have taken the
        // container with it.
        let mut told_end = false;
        if away_since.is_none()
            && let Ok((docker, _)) = engine.reach().await
        {
            let until = WaitContainerOptions { condition: "not-running".into() };
            let mut waiting = Box::pin(docker.wait_container(name, Some(until)));
            told_end = match waiting.next().await {
                Some(Ok(_)) => true,
                Some(Err(bollard::errors::Error::DockerContainerWaitError { .. })) => true,
                Some(Err(_)) | None => false,
            };
        }
        match engine.inspect(name).await {
            Ok(Some(container)) => {
                let state = container.state.unwrap_or_default();
                match state.status {
                    Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD) if told_end => {
                        return Rest::Ended(state);
                    }
                    Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD) => {
                        return Rest::Unseen("the container engine went away while the container ran".into());
                    }
                    _ => {
                        if away_since.take().is_some() {
                            tracing::info!(name, "the container engine is back, and the container still runs");
                        }
                    }
                }
            }
            Ok(None) => return Rest::Unseen("somebody else removed the container".into()),
            Err(trouble) => {
                let since = *away_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= ENGINE_BACK_MAX {
                    return Rest::Unseen(format!("the container engine went away while the container ran: {trouble}"));
                }
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Signals that end a program which does nothing about them. Of the others no exit code tells.
const ENDING_SIGNALS: [i32; 18] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGKILL,
    libc::SIGUSR1,
    libc::SIGSEGV,
    libc::SIGUSR2,
    libc::SIGPIPE,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGSYS,
];

/// The signal that an exit code stands for, if it ends programs.
fn signal_of(code: u8) -> Option<u8> {
    let signal = code.checked_sub(128)?;
    ENDING_SIGNALS.contains(&i32::from(signal)).then_some(signal)
}

fn node_cannot(message: impl AsRef<str>) -> Ending {
    Ending::CannotStart { fault: Fault::Node, message: told(message) }
}

fn node_trouble(trouble: Trouble) -> Ending {
    node_cannot(trouble.to_string())
}

fn node_fault(message: impl AsRef<str>) -> Ending {
    Ending::NodeFault { message: told(message) }
}

/// Whose fault it is that a container could not be created.
fn create_failed(trouble: Trouble) -> Ending {
    let (status, message) = match trouble {
        Trouble::Refused { status, message } => (status, message),
        trouble => return node_trouble(trouble),
    };
    let lower = message.to_lowercase();
    // What this engine or machine lacks, another may have.
    let lacking = ["range of cpus", "not supported", "is not enabled", "not available", "kernel"];
    let fault = match status {
        400 if !lacking.iter().any(|words| lower.contains(words)) => Fault::Job,
        _ => Fault::Node,
    };
    Ending::CannotStart { fault, message: told(format!("the container cannot be created: {message}")) }
}

/// Whose fault it is that a container could not be started, by the words of the runtime.
fn start_failed(trouble: Trouble) -> Ending {
    let message = match trouble {
        Trouble::Refused { message, .. } => message,
        trouble => return node_trouble(trouble),
    };
    let lower = message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let fault = if says(&["executable file not found"]) {
        Fault::Command
    } else if says(&["chdir to cwd", "exec format error", "not a directory", "mkdir "]) {
        Fault::Job
    } else {
        Fault::Node
    };
    Ending::CannotStart { fault, message: told(format!("the container cannot be started: {message}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codes_of_signals_that_end_programs_stand_for_signals() {
        for (code, signal) in [(0, None), (1, None), (128, None), (137, Some(9)), (139, Some(11)), (143, Some(15))] {
            assert_eq!(signal_of(code), signal, "{code}");
        }
        for code in [128 + 17, 128 + 18, 128 + 19, 200, 255] {
            assert_eq!(signal_of(code), None, "{code}");
        }
    }

    #[test]
    fn what_the_engine_refuses_is_the_jobs_fault_only_when_no_engine_could_do_it() {
        let fault = |ending| match ending {
            Ending::CannotStart { fault, .. } => fault,
            other => panic!("{other:?}"),
        };
        let refused = |status, message: &str| Trouble::Refused { status, message: message.into() };
        assert_eq!(fault(create_failed(refused(400, "No command specified"))), Fault::Job);
        assert_eq!(fault(create_failed(refused(400, "Minimum memory limit allowed is 6MB"))), Fault::Job);
        assert_eq!(fault(create_failed(refused(400, "Range of CPUs is from 0.01 to 2.00"))), Fault::Node);
        assert_eq!(fault(create_failed(refused(409, "The container name is already in use"))), Fault::Node);
        assert_eq!(fault(create_failed(refused(500, "no space left on device"))), Fault::Node);
        let runc = "OCI runtime create failed: container_linux.go:380: starting container process caused: ";
        let start = |words: &str| fault(start_failed(refused(400, &format!("{runc}{words}: unknown"))));
        assert_eq!(start("exec: \"x\": executable file not found in $PATH"), Fault::Command);
        assert_eq!(start("chdir to cwd (\"/root\") set in config.json failed: permission denied"), Fault::Job);
        assert_eq!(start("could not select device driver \"nvidia\" with capabilities: [[gpu]]"), Fault::Node);
    }
}

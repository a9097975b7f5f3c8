//! The link task: makes connections for ever, tells of each try, and hands what comes to the console through two queues, so that
//! a noisy output waits while states and answers pass it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use modchain_link::Backoff;
use modchain_types::{JobId, Span, WallTime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::kept::{Kept, What};
use super::session::{Ended, Session};
use super::{AskId, FromLive, LinkState, LogItem, ToLive, Welcome};
use crate::client::Client;
use crate::client::feed::Feed;
use crate::client::renewal::Tell;
use crate::exit::Failure;
use crate::shell::Target;
use crate::text::wall_now;

/// Messages besides output that may wait for the console. Pages of a snapshot are the largest: some hundred KiB each.
const MESSAGES_MAX: usize = 16;
/// Pieces of output that may wait for the console: at most 4 MiB.
const LOGS_MAX: usize = 64;
/// Bounds of the waits between tries.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(15);
/// Between tries that cannot work unless somebody does something elsewhere, such as renewing the certificate.
const REFUSED_RETRY: Duration = Duration::from_secs(60);
/// Pieces of input of one job that may wait to be sent.
const INPUT_PIECES_MAX: usize = 1024;
/// How long the end of the link is waited for.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// Starts the link. `patience` bounds each try to connect.
pub(crate) fn start(target: Target, patience: Duration) -> (LiveHandle, Inbox) {
    let (commands, commanded) = mpsc::unbounded_channel();
    let (out, inbox) = queues();
    let link = Link { target, patience, commands: commanded, out, shared: Shared::default(), inputs: BTreeMap::new() };
    (LiveHandle { commands, task: tokio::spawn(link.run()) }, inbox)
}

/// The console's hold on its link, which ends when this is dropped.
pub(crate) struct LiveHandle {
    commands: mpsc::UnboundedSender<ToLive>,
    task: JoinHandle<()>,
}

impl LiveHandle {
    /// Wants something of the link. Never waits.
    pub(crate) fn send(&self, wish: ToLive) {
        // The task ends only with this handle, or with the inbox: nobody waits for an answer then.
        let _ = self.commands.send(wish);
    }

    /// Ends the link and waits until that is done, so that the good-bye is on its way.
    pub(crate) async fn close(self) {
        let Self { commands, task } = self;
        drop(commands);
        // One that hangs ends with the process.
        let _ = tokio::time::timeout(CLOSE_TIME, task).await;
    }
}

/// The console's end of the queues.
pub(crate) struct Inbox {
    messages: mpsc::Receiver<Parcel>,
    pub(super) logs: mpsc::Receiver<FromLive>,
}

/// What stands in the queue of messages.
enum Parcel {
    Message(FromLive),
    /// Output comes from here now; what waited in the old queue belongs to another context.
    Logs(mpsc::Receiver<FromLive>),
}

impl Inbox {
    /// The next message; output only when nothing else waits. `None` when the link has ended. May be dropped and asked again.
    pub(crate) async fn recv(&mut self) -> Option<FromLive> {
        loop {
            tokio::select! {
                biased;
                parcel = self.messages.recv() => match parcel {
                    Some(Parcel::Message(message)) => return Some(message),
                    Some(Parcel::Logs(logs)) => self.logs = logs,
                    None => return self.logs.recv().await,
                },
                Some(log) = self.logs.recv() => return Some(log),
            }
        }
    }

    /// The next message if one waits.
    pub(crate) fn try_recv(&mut self) -> Option<FromLive> {
        loop {
            match self.messages.try_recv() {
                Ok(Parcel::Message(message)) => return Some(message),
                Ok(Parcel::Logs(logs)) => self.logs = logs,
                Err(_) => return self.logs.try_recv().ok(),
            }
        }
    }
}

/// Both queues, empty.
pub(super) fn queues() -> (Outbox, Inbox) {
    let (message_sender, messages) = mpsc::channel(MESSAGES_MAX);
    let (log_sender, logs) = mpsc::channel(LOGS_MAX);
    (Outbox { messages: message_sender, logs: log_sender }, Inbox { messages, logs })
}

/// The link's end of the queues. Nobody may read them any more; whoever sends need not know.
#[derive(Clone)]
pub(super) struct Outbox {
    messages: mpsc::Sender<Parcel>,
    logs: mpsc::Sender<FromLive>,
}

impl Outbox {
    /// Waits for room and hands a message over. Not handed over if dropped before.
    pub(super) async fn say(&self, message: FromLive) {
        let _ = self.messages.send(Parcel::Message(message)).await;
    }

    /// As [`Outbox::say`] for output.
    pub(super) async fn log(&self, job: JobId, item: LogItem) {
        let _ = self.logs.send(FromLive::Log(job, item)).await;
    }

    /// Waits until nobody reads any more.
    pub(super) async fn closed(&self) {
        self.messages.closed().await;
    }

    /// Forgets the output that waits.
    async fn forget_logs(&mut self) {
        let (sender, logs) = mpsc::channel(LOGS_MAX);
        self.logs = sender;
        let _ = self.messages.send(Parcel::Logs(logs)).await;
    }
}

/// What is kept, for all tasks.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Kept>>);

impl Shared {
    /// Looks at it or changes it; briefly.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Kept) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What an input gave so far; locked by whoever sends it.
pub(super) type Feeding = Arc<tokio::sync::Mutex<Feed>>;

/// The input of one job.
pub(super) struct Input {
    /// `None` once the end was said.
    pieces: Option<mpsc::Sender<std::io::Result<Bytes>>>,
    /// What came out at the other end.
    pub(super) feed: Feeding,
}

/// The task.
struct Link {
    target: Target,
    patience: Duration,
    commands: mpsc::UnboundedReceiver<ToLive>,
    out: Outbox,
    shared: Shared,
    inputs: BTreeMap<JobId, Input>,
}

/// What a wish means beyond what is kept.
enum Turn {
    /// Nothing.
    Stay,
    /// The next try is wanted now.
    Now,
    /// Everything begins anew there.
    Elsewhere(Box<Target>),
    /// The console is gone.
    Over,
}

/// Since when there is no connection, and how often one was tried.
#[derive(Clone, Copy)]
struct Lost {
    since: WallTime,
    tries: u32,
}

impl Link {
    async fn run(mut self) {
        while let Some(target) = self.stay().await {
            let failure = Failure::failed("another context was chosen before the answer came")
                .hint("what was asked for may have been done: look there");
            let given_up = self.shared.with(Kept::clear);
            self.refuse(given_up, &failure).await;
            self.inputs.clear();
            self.out.forget_logs().await;
            self.target = target;
        }
    }

    /// Serves one target; gives the next one, if there is one.
    async fn stay(&mut self) -> Option<Target> {
        self.out.say(FromLive::Target(self.target.context.clone())).await;
        self.out.say(FromLive::Link(LinkState::Connecting)).await;
        let mut backoff = Backoff::new().between(RETRY_FIRST, RETRY_MAX);
        let mut lost: Option<Lost> = None;
        loop {
            let failure = match self.connect().await {
                Ok(Ok(client)) => {
                    lost = None;
                    match self.serve(client, &mut backoff).await {
                        Ok(failure) => failure,
                        Err(turn) => return turn.target(),
                    }
                }
                Ok(Err(failure)) => failure,
                Err(turn) => return turn.target(),
            };
            let now = wall_now();
            let Lost { since, tries } = lost.get_or_insert(Lost { since: now, tries: 0 });
            let why = crate::text::one_line(&failure.message);
            let state = |retry_at, tries| LinkState::Lost { since: *since, why: why.clone(), retry_at, tries };
            let wait = if failure.lost {
                let wait = backoff.next_delay();
                self.out.say(FromLive::Link(state(Some(now.plus(Span::from(wait))), *tries))).await;
                wait
            } else {
                self.out.say(FromLive::Link(LinkState::Refused(failure))).await;
                REFUSED_RETRY
            };
            if let Err(turn) = self.pause(wait).await {
                return turn.target();
            }
            *tries = tries.saturating_add(1);
            self.out.say(FromLive::Link(state(None, *tries))).await;
        }
    }

    /// One try to connect.
    async fn connect(&mut self) -> Result<Result<Client, Failure>, Turn> {
        let (target, patience, tell) = (self.target.clone(), self.patience, self.tell());
        let connecting = Client::connect(&target.orchestrator, &target.identity, patience, tell);
        tokio::pin!(connecting);
        loop {
            tokio::select! {
                biased;
                wish = self.wish() => match self.take(wish).await {
                    // That is what it does.
                    Turn::Stay | Turn::Now => {}
                    turn @ (Turn::Elsewhere(_) | Turn::Over) => return Err(turn),
                },
                connected = &mut connecting => return Ok(connected),
            }
        }
    }

    /// One connection, to its end and why it came.
    async fn serve(&mut self, client: Client, backoff: &mut Backoff) -> Result<Failure, Turn> {
        let welcome = Welcome {
            welcome: client.welcome().clone(),
            address: client.address().to_owned(),
            clock_ahead_ms: client.clock_ahead_ms(),
        };
        self.out.say(FromLive::Welcome(Box::new(welcome))).await;
        self.out.say(FromLive::Link(LinkState::Live)).await;
        let begun = Instant::now();
        let mut session = Session::start(client, self.shared.clone(), self.out.clone());
        let ended = loop {
            session.tend(&self.inputs);
            tokio::select! {
                wish = self.wish() => match self.take(wish).await {
                    Turn::Stay | Turn::Now => {}
                    turn @ (Turn::Elsewhere(_) | Turn::Over) => break Err(turn),
                },
                ended = session.next() => match ended {
                    Ended::State(failure) => break Ok(failure),
                    Ended::Input(job) => drop(self.inputs.remove(&job)),
                    Ended::Ask | Ended::Log(_) => {}
                },
            }
        };
        session.end().await;
        let failure = ended?;
        // One that breaks as soon as it is made must not be made again at once.
        if self.shared.with(Kept::has_moved) || begun.elapsed() > RETRY_MAX {
            backoff.reset();
        }
        let given_up = self.shared.with(|kept| kept.connection_lost(wall_now()));
        self.refuse(given_up, &failure).await;
        Ok(failure)
    }

    /// Waits before the next try, unless it is wanted now.
    async fn pause(&mut self, wait: Duration) -> Result<(), Turn> {
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                biased;
                wish = self.wish() => match self.take(wish).await {
                    Turn::Stay => {}
                    Turn::Now => return Ok(()),
                    turn @ (Turn::Elsewhere(_) | Turn::Over) => return Err(turn),
                },
                () = tokio::time::sleep_until(until) => return Ok(()),
            }
        }
    }

    /// The next wish; `None` when the console is gone. May be dropped and asked again.
    async fn wish(&mut self) -> Option<ToLive> {
        tokio::select! {
            wish = self.commands.recv() => wish,
            () = self.out.closed() => None,
        }
    }

    /// Takes a wish in.
    async fn take(&mut self, wish: Option<ToLive>) -> Turn {
        match wish {
            None => Turn::Over,
            Some(ToLive::Reconnect) => Turn::Now,
            Some(ToLive::UseTarget(target)) => Turn::Elsewhere(target),
            Some(ToLive::Ask(id, request)) => self.ask(id, What::Ask(request)).await,
            Some(ToLive::Submit(id, submit, blob)) => self.ask(id, What::Submit(submit, blob)).await,
            Some(ToLive::Follow(job, cursor)) => {
                self.shared.with(|kept| kept.follow(job, cursor));
                Turn::Stay
            }
            Some(ToLive::Unfollow(job)) => {
                self.shared.with(|kept| kept.unfollow(job));
                Turn::Stay
            }
            Some(ToLive::Input(job, piece)) => self.input(job, piece).await,
        }
    }

    async fn ask(&mut self, id: AskId, what: What) -> Turn {
        if let Err(what) = self.shared.with(|kept| kept.ask(id, what)) {
            let failure = Failure::failed("too many requests wait for the orchestrator's answer");
            self.refuse(vec![(id, what)], &failure).await;
        }
        Turn::Stay
    }

    async fn input(&mut self, job: JobId, piece: Bytes) -> Turn {
        let input = self.inputs.entry(job).or_insert_with(|| {
            let (pieces, feed) = mpsc::channel(INPUT_PIECES_MAX);
            Input { pieces: Some(pieces), feed: Arc::new(tokio::sync::Mutex::new(Feed::going_on(feed))) }
        });
        let refused = match &input.pieces {
            None => Some("its input has ended"),
            Some(_) if piece.is_empty() => {
                input.pieces = None;
                None
            }
            Some(pieces) => pieces.try_send(Ok(piece)).err().map(|_| "too much input waits to be sent"),
        };
        if let Some(why) = refused {
            self.out.say(FromLive::Input(job, Err(Failure::failed(why)))).await;
        }
        Turn::Stay
    }

    /// Answers requests that will not be sent any more.
    async fn refuse(&self, requests: Vec<(AskId, What)>, failure: &Failure) {
        for (id, what) in requests {
            self.out.say(FromLive::Answer(id, what.request(), Err(failure.clone()))).await;
        }
    }

    /// Remarks on the certificate go where everything goes.
    fn tell(&self) -> Tell {
        let out = self.out.clone();
        Arc::new(move |line| {
            let (out, line) = (out.clone(), line.to_owned());
            tokio::spawn(async move { out.say(FromLive::Said(line)).await });
        })
    }
}

impl Turn {
    fn target(self) -> Option<Target> {
        match self {
            Self::Elsewhere(target) => Some(*target),
            Self::Stay | Self::Now | Self::Over => None,
        }
    }
}

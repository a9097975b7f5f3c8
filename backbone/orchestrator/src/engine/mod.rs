//! The engine: one thread that owns [`Control`]. *Remember before you speak.*
//!
//! It takes what waits (at most [`BATCH_MAX`]), has each command decided, lets deadlines fire, appends all events as one
//! record, syncs it, tells the [`Gate`], and only then lets out effects, events, replies and the answers to queries. While one
//! batch syncs the next one gathers: that is the throughput story too.
//!
//! A journal that fails ends the process: what is on disk is decided at the next start, from the disk alone.

mod outlet;
mod run;
mod snapshots;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use modchain_core::scheduler::queue::Ceilings;
use modchain_core::{Command, Control, ControlConfig, Effect, Event, Refused, Reply};
use modchain_types::{JournalId, Text, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::{Clock, Past, TimeSource};
use crate::founders::{FirstToken, Founder, Founders};
use crate::gate::Gate;
use crate::store::journal::{self, AppendError, Disk, Journal, JournalReader, OpenError, RealDisk};
use crate::store::snapshot::{Newest, Snapshots};
use crate::store::space::{Level, Space};
use outlet::Outlet;
pub use outlet::OutletReceiver;

/// Most commands and queries of one batch: many enough to share a sync, few enough that its record stays small and the first
/// of them does not wait for long.
pub const BATCH_MAX: usize = 256;

/// Commands and queries that may wait: some batches. Whoever comes then waits outside.
const QUEUE_MAX: usize = 4 * BATCH_MAX;

/// Time between two looks at the free space, and between two tries to append a batch that there is no room for.
const STORAGE_EVERY: Duration = Duration::from_secs(1);

/// Time between two audits of the whole state.
const AUDIT_EVERY: Duration = Duration::from_secs(3600);

/// The engine has stopped; the process is about to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the engine has stopped")]
pub struct EngineGone;

/// Why the engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// What was observed of the journal is not in it any more.
    #[error(
        "the journal ends with event {last}, and event {observed} was known: what was acknowledged in between is gone"
    )]
    Gone {
        /// The last event that was known.
        observed: u64,
        /// The journal's.
        last: u64,
    },
    /// The journal replays to a state that breaks an invariant.
    #[error("the journal replays to a broken state, nothing is served: {0}")]
    Audit(modchain_core::audit::Breach),
    /// The first batch cannot be written.
    #[error("the start cannot be recorded")]
    Append(#[from] AppendError),
    /// The token that `init` made cannot be recorded.
    #[error("the token of the first operator cannot be recorded: {why}")]
    FirstToken {
        /// What the machine said.
        why: Refused,
    },
    /// The thread cannot be started.
    #[error("the engine's thread cannot be started: {0}")]
    Thread(std::io::Error),
}

/// Something to be asked of the state; it sends its answer itself.
type Question = Box<dyn FnOnce(&Control, Timestamp) + Send>;

enum Message {
    Command { command: Command, reply: Option<oneshot::Sender<(Reply, u64)>> },
    Query(Question),
    Stop,
}

/// What everybody may look at without asking the engine's thread.
#[derive(Debug)]
struct Health {
    space: Arc<Space>,
    frozen: OnceLock<String>,
    /// The moment on the journal's timeline, in the pauses between two tries to append a batch that there is no room for.
    no_room: watch::Sender<Option<Timestamp>>,
}

/// The one way to change or ask live state. Cheap to clone.
#[derive(Clone)]
pub struct EngineHandle {
    sender: mpsc::Sender<Message>,
    health: Arc<Health>,
}

impl EngineHandle {
    /// Has a command decided, and waits until its events are on disk.
    pub async fn command(&self, command: Command) -> Result<Reply, EngineGone> {
        self.command_numbered(command).await.map(|(reply, _)| reply)
    }

    /// As [`EngineHandle::command`], and tells the number of the last event on disk then: a reader of the feed that has
    /// come this far sees what the command did.
    pub async fn command_numbered(&self, command: Command) -> Result<(Reply, u64), EngineGone> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Command { command, reply: Some(reply) }).await?;
        answer.await.map_err(|_| EngineGone)
    }

    /// Hands a command over without waiting for its reply; waits only for room in the queue.
    pub async fn tell(&self, command: Command) -> Result<(), EngineGone> {
        self.send(Message::Command { command, reply: None }).await
    }

    /// Asks the state as it is on disk. The closure runs on the engine's thread: keep it short, never block in it.
    pub async fn query<R: Send + 'static>(
        &self,
        question: impl FnOnce(&Control, Timestamp) -> R + Send + 'static,
    ) -> Result<R, EngineGone> {
        let (reply, answer) = oneshot::channel();
        let question = Box::new(move |control: &Control, now| {
            let _ = reply.send(question(control, now)); // the asker may have gone
        });
        self.send(Message::Query(question)).await?;
        answer.await.map_err(|_| EngineGone)
    }

    /// Comes back while the engine waits for room for a batch, and tells the moment on the journal's timeline. Until there is
    /// room no command and no query is answered. An engine that hangs in a write does not wait so.
    pub async fn no_room(&self) -> Timestamp {
        let mut told = self.health.no_room.subscribe();
        loop {
            if let Some(now) = *told.borrow_and_update() {
                return now;
            }
            let _ = told.changed().await; // the sender lives as long as this handle
        }
    }

    /// The moment on the journal's timeline, also while the engine waits for room.
    pub async fn now(&self) -> Result<Timestamp, EngineGone> {
        tokio::select! {
            biased; // a question that is not waited for would keep its place in the queue
            now = self.no_room() => Ok(now),
            now = self.query(|_, now| now) => now,
        }
    }

    /// The room under the data directory.
    pub fn space(&self) -> &Arc<Space> {
        &self.health.space
    }

    /// Whether the disk is too full to accept new jobs, blobs, input or credits.
    pub fn storage_low(&self) -> bool {
        self.space().level() != Level::Enough
    }

    /// What the hourly audit found broken, if anything: no new money moves until somebody has looked.
    pub fn frozen(&self) -> Option<&str> {
        self.health.frozen.get().map(String::as_str)
    }

    /// Has everything that waits before it decided and committed, then ends the thread.
    pub async fn stop(&self) -> Result<(), EngineGone> {
        self.send(Message::Stop).await
    }

    /// Comes back once the thread has ended, for whatever reason.
    pub async fn ended(&self) {
        self.sender.closed().await;
    }

    async fn send(&self, message: Message) -> Result<(), EngineGone> {
        self.sender.send(message).await.map_err(|_| EngineGone)
    }
}

/// What the engine lets out after each commit.
pub struct Outlets {
    /// For `dispatch`, in order.
    pub effects: OutletReceiver<Vec<Effect>>,
    /// For `feed`, in order, without a gap after what was replayed at the start.
    pub events: OutletReceiver<Arc<Vec<Event>>>,
}

/// What is called when the journal fails. The default says so and aborts.
pub type OnFatal = Box<dyn FnOnce(&AppendError) + Send>;

/// What removes something while the start waits for room: gets the state and the moment on its timeline. May block.
pub type MakeRoom = Box<dyn FnMut(&Control, Timestamp) + Send>;

/// What the engine is made of.
pub struct EngineOptions {
    /// The data directory, whose lock the caller holds.
    pub data: PathBuf,
    /// Version of the program, for the journal.
    pub version: Text<64>,
    /// Where time comes from.
    pub time: Box<dyn TimeSource>,
    /// What `init` has prepared; what the journal lacks of it is added to it.
    pub founders: Founders,
    /// Learns of every certificate before anybody hears of it.
    pub gate: Arc<Gate>,
    /// Writing and syncing.
    pub disk: Box<dyn Disk>,
    /// The room under the data directory.
    pub space: Arc<Space>,
    /// When a snapshot is written.
    pub snapshot_every: SnapshotEvery,
    /// How far priorities count between accounts.
    pub ceilings: Ceilings,
    /// Called once a second as long as there is no room to record the start.
    pub make_room: MakeRoom,
    /// What happens when the journal fails.
    pub on_fatal: OnFatal,
}

/// When a snapshot is written: whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotEvery {
    /// So many events after the one before.
    pub events: u64,
    /// So many bytes of journal after the one before.
    pub bytes: u64,
}

impl Default for SnapshotEvery {
    /// 200,000 events are replayed in a second or two.
    fn default() -> Self {
        Self { events: 200_000, bytes: 64 << 20 }
    }
}

impl EngineOptions {
    /// The real disk, an abort when it fails, and nothing that makes room.
    pub fn new(
        data: &Path,
        version: Text<64>,
        time: Box<dyn TimeSource>,
        founders: Founders,
        space: Arc<Space>,
    ) -> Self {
        let on_fatal = |error: &AppendError| {
            tracing::error!("{error}; stopping at once, the next start decides from the disk what was kept");
            std::process::abort();
        };
        Self {
            data: data.to_owned(),
            version,
            time,
            founders,
            gate: Arc::default(),
            disk: Box::new(RealDisk),
            space,
            snapshot_every: SnapshotEvery::default(),
            ceilings: Ceilings::default(),
            make_room: Box::new(|_, _| {}),
            on_fatal: Box::new(on_fatal),
        }
    }
}

/// An engine that has replayed its journal and recorded its start, ready to run.
pub struct Engine {
    control: Control,
    clock: Clock,
    journal: Journal,
    space: Arc<Space>,
    gate: Arc<Gate>,
    snapshots: snapshots::Writer,
    on_fatal: OnFatal,
    /// Effects of the start.
    effects: Vec<Effect>,
}

/// The engine's thread. The process must not go on without it: see [`EngineHandle::ended`].
pub struct EngineThread {
    thread: thread::JoinHandle<()>,
}

impl EngineThread {
    /// Waits for the thread's end; tells whether it ended by [`EngineHandle::stop`] and not by a panic. Blocks.
    pub fn join(self) -> bool {
        self.thread.join().is_ok()
    }
}

impl Engine {
    /// Goes on from the newest snapshot or replays the journal, audits the state, records the start and the identities that
    /// are missing. Every event behind `observed`, which must be in the journal, goes to `observe`, in order; without it those of
    /// the start alone do. What follows comes out of the outlets. Blocks, also for as long as there is no room to record the
    /// start: it makes some as it is told to, and says that it waits.
    pub fn open(
        options: EngineOptions,
        observed: Option<u64>,
        mut observe: impl FnMut(&Event),
    ) -> Result<Self, StartError> {
        let EngineOptions { data, version, time, founders, gate, disk, space, .. } = options;
        let EngineOptions { snapshot_every, ceilings, mut make_room, on_fatal, .. } = options;
        let dir = journal_dir(&data);
        let (id, asset) = journal::identify(&dir).map_err(OpenError::from)?;
        let snapshots = Snapshots::at(&snapshots_dir(&data));
        let config = ControlConfig { ceilings, ..ControlConfig::new(asset) };
        let (mut control, mut past) = match restore(&snapshots, id, &config, &dir)? {
            Some((control, past)) => {
                gate.seed(control.members());
                (control, past)
            }
            None => (Control::new(config), Past::default()),
        };
        let known = control.last_number();
        let replay = |events: Vec<Event>| {
            for event in &events {
                if event.number > known {
                    gate.take(std::slice::from_ref(event));
                    control.evolve(event);
                    past.observe(event);
                }
                if observed.is_some_and(|observed| event.number > observed) {
                    observe(event);
                }
            }
        };
        let after = observed.map_or(known, |observed| observed.min(known));
        let mut journal = Journal::open_after(&dir, after, replay, disk, journal::SEGMENT_BYTES_MAX)?;
        let last = control.last_number();
        if let Some(observed) = observed.filter(|observed| *observed > last) {
            // Before anything is added: an old copy that is started often enough must not catch up.
            return Err(StartError::Gone { observed, last });
        }
        control.audit().map_err(StartError::Audit)?;

        let mut clock = Clock::resume(time, &past);
        let now = clock.now();
        let started = Command::EngineStarted {
            boot: clock.source().boot(),
            boot_clock: clock.source().boot_clock(),
            wall: clock.source().wall(),
            version,
        };
        let mut first = control.apply(now, started);
        let Founders { members, token } = founders;
        for Founder { identity, certificate } in members {
            let name = identity.name.clone();
            let decision = control.apply(now, Command::AddIdentity { identity, certificate });
            if let Some(Reply::Refused(why)) = decision.reply {
                // No reason not to start: somebody may have joined under this name meanwhile. What the journal does not
                // know is not let in.
                tracing::error!(%name, %why, "an identity that `init` made stays out: run `init` with another name");
            }
            first.events.extend(decision.events);
            first.effects.extend(decision.effects);
        }
        if let Some(FirstToken { id, verifier, ttl }) = token {
            let decision = control.apply(now, Command::AddFirstToken { token: id, verifier, ttl });
            if let Some(Reply::Refused(why)) = decision.reply {
                return Err(StartError::FirstToken { why });
            }
            first.events.extend(decision.events);
            first.effects.extend(decision.effects);
        }
        append_waiting(&mut journal, &first.events, &space, || {
            make_room(&control, clock.now());
            thread::sleep(STORAGE_EVERY);
        })?;
        gate.take(&first.events);
        for event in &first.events {
            past.observe(event);
            observe(event);
        }
        let snapshots = snapshots::Writer::new(snapshots, snapshot_every, past, known);
        Ok(Self { control, clock, journal, space, gate, snapshots, on_fatal, effects: first.effects })
    }

    /// The state as it is now.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// A reader of what is committed.
    pub fn reader(&self) -> JournalReader {
        self.journal.reader()
    }

    /// The journal's id.
    pub fn journal_id(&self) -> modchain_types::JournalId {
        self.journal.id()
    }

    /// What members know the journal by: its id, or what it was called when an old copy of it was accepted.
    pub fn goes_by(&self) -> JournalId {
        self.control.accepted().map_or(self.journal.id(), |(journal, _)| journal)
    }

    /// Starts the thread.
    pub fn spawn(self) -> Result<(EngineHandle, Outlets, EngineThread), StartError> {
        let (sender, messages) = mpsc::channel(QUEUE_MAX);
        let (effects, effects_out) = outlet::outlet();
        let (events, events_out) = outlet::outlet();
        let (space, no_room) = (Arc::clone(&self.space), watch::Sender::new(None));
        let health = Arc::new(Health { space, frozen: OnceLock::new(), no_room });
        let handle = EngineHandle { sender, health: Arc::clone(&health) };
        let thread = thread::Builder::new()
            .name("engine".into())
            .spawn(move || run::Runner::new(self, messages, effects, events, health).run())
            .map_err(StartError::Thread)?;
        Ok((handle, Outlets { effects: effects_out, events: events_out }, EngineThread { thread }))
    }
}

/// Appends; where there is no room, with that of the ballast.
fn append_with_ballast(journal: &mut Journal, events: &[Event], space: &Space) -> Result<(), AppendError> {
    match journal.append(events) {
        Err(AppendError::Full { .. }) if space.exhausted() => journal.append(events),
        result => result,
    }
}

/// Appends, however long it takes until there is room: nobody was told of the batch, so waiting loses nothing, and what it
/// decided stands. `pause` is called between two tries.
fn append_waiting(
    journal: &mut Journal,
    events: &[Event],
    space: &Space,
    mut pause: impl FnMut(),
) -> Result<(), AppendError> {
    let mut said = false;
    loop {
        match append_with_ballast(journal, events, space) {
            Err(AppendError::Full { cause }) => {
                if !said {
                    tracing::error!("{cause}: {}; everything waits until there is room", space.alarm());
                    said = true;
                }
                pause();
            }
            result => {
                if said {
                    tracing::warn!("there is room again");
                }
                return result;
            }
        }
    }
}

/// The state of the newest snapshot that is good and sound, if there is one.
fn restore(
    snapshots: &Snapshots,
    journal: JournalId,
    config: &ControlConfig,
    dir: &Path,
) -> Result<Option<(Control, Past)>, StartError> {
    if let Err(error) = snapshots.remove_temporaries() {
        tracing::warn!(%error, "what is left of a snapshot cannot be removed");
    }
    let snapshot = match snapshots.newest(journal, dir).map_err(OpenError::from)? {
        Newest::Use(snapshot) => snapshot,
        Newest::None => return Ok(None),
        Newest::Lost { last, known } => {
            let snapshots = snapshots.dir().display().to_string();
            return Err(OpenError::Lost { last, known, snapshots }.into());
        }
    };
    let (past, number) = (snapshot.past(), snapshot.place.number);
    let control = Control::restore(config.clone(), snapshot.state);
    if let Err(breach) = control.audit() {
        tracing::error!(number, %breach, "the newest snapshot is not sound: replaying the whole journal");
        return Ok(None);
    }
    Ok(Some((control, past)))
}

/// Where the snapshots of a data directory are.
pub fn snapshots_dir(data: &Path) -> PathBuf {
    data.join("snapshots")
}

/// Where the journal of a data directory is.
pub fn journal_dir(data: &Path) -> PathBuf {
    data.join("journal")
}

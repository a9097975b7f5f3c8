//! The loop around the [`Supervisor`]: what happens goes in, what it says is done, in its order.
//!
//! ```text
//!   session ──┐                        ┌──▶ outbox (disk)
//!   runners ──┼─▶ inputs ─▶ Supervisor ┼──▶ runners: start, stop
//!   main ─────┘      ▲                 └──▶ session: reports, streams to serve
//!                  timer
//! ```
//!
//! One task owns all of it, on a thread that may wait for the disk; everything else asks by message. It waits for nothing but
//! its inputs and the disk: a session that does not take its messages is dropped, never waited for. *Remember before you
//! speak*: a report of an end leaves only after it is on disk, and nothing starts before its assignment is. What waits
//! together is decided together and shares one sync (`Engine::settle`); while it goes on, the next inputs gather.

mod deeds;
mod messages;
mod run;
mod stdin;
mod survivors;

pub use messages::{AttemptSight, EngineInput, HelloFacts, Serving, Sight, ToSession};
pub use stdin::{StdinFeed, StdinPiece};
pub use survivors::Survivors;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use modchain_core::supervisor::{Action, Input, Recovered, Supervisor, SupervisorConfig};
use modchain_types::{
    Adapter, Assignment, AttemptId, BootId, Ending, Fence, InventoryItem, JournalId, Offer, Report, ReportBody, Span,
    Text, Timestamp, Usage, WallTime,
};
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinSet};

use crate::blobs::BlobFetcher;
use crate::clock;
use crate::executor::Executors;
use crate::outbox::{FenceSeen, Outbox};
use crate::spool::Spool;

/// Inputs that may wait. The engine is busy for one disk write at most, so this is never full for long; then senders wait.
pub const INPUTS_WAITING_MAX: usize = 256;

/// Inputs that are decided before what was decided is made durable and carried out.
const BATCH_MAX: usize = 64;

/// Messages that may wait for the session: a few for each attempt that can be live. A session that lets more gather is dead.
pub const MESSAGES_WAITING_MAX: usize = 1024;

/// Longest sleep while a deadline is set. Timers stop while the machine sleeps and the clock does not, so the clock is read
/// this often.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Between two tries to write what could not be written.
const WRITE_RETRY: Span = Span::from_secs(2);

/// Between two times that the log of attempts is written anew because of what is forgotten in it: what clients gave and jobs
/// printed stays on disk no longer than this after its attempt, and jobs in a row do not pay for it one by one.
const TIDY_EVERY: Span = Span::from_secs(30);

/// How politely attempts are ended when the agent stops.
const SHUTDOWN_GRACE: Span = Span::from_secs(5);

/// How politely attempts are ended when the owner's time for a drain is over: what `docker stop` gives.
pub const EVICTION_GRACE: Span = Span::from_secs(10);

/// Longest shutdown; what still runs then is killed.
const SHUTDOWN_MAX: Span = Span::from_secs(15);

/// Longest wait for containers to be removed at the end.
const SHUTDOWN_CLEAR_MAX: Duration = Duration::from_secs(10);

/// Longest wait for acknowledgements once nothing runs any more. What is not acknowledged is sent after the next start.
const SHUTDOWN_ACK_MAX: Span = Span::from_secs(3);

/// One attempt in the engine's hands.
#[derive(Debug)]
struct Held {
    fence: Fence,
    /// `None` for what an earlier run left.
    assignment: Option<Box<Assignment>>,
    /// `None` where the attempt's folder could not be made.
    spool: Option<Spool>,
    stdin: Option<StdinFeed>,
    /// How it is to be stopped.
    stop: Option<watch::Sender<Option<Span>>>,
    /// Its output, if that goes into the record of its result.
    short_output: Vec<u8>,
}

impl Held {
    /// Whether it may have left a container on the machine, as what an earlier run left may have, whatever it was.
    fn may_have_container(&self) -> bool {
        self.assignment.as_deref().is_none_or(|assignment| assignment.spec.requirements.adapter == Adapter::Docker)
    }
}

/// The owner of the supervisor.
#[derive(Debug)]
pub struct Engine {
    supervisor: Supervisor,
    offer: Offer,
    /// Whether the offer is another one than the newest hello said.
    offer_unsaid: bool,
    outbox: Outbox,
    executors: Executors,
    blobs: BlobFetcher,
    inputs: mpsc::Receiver<EngineInput>,
    inputs_in: mpsc::Sender<EngineInput>,
    attempts: BTreeMap<AttemptId, Held>,
    runners: JoinSet<()>,
    runner_of: BTreeMap<Id, AttemptId>,
    connection: Option<Line>,
    /// What was decided and is neither durable nor done.
    decided: Vec<Action>,
    /// Results that could not be made durable.
    unrecorded: Vec<Report>,
    retry_at: Option<Timestamp>,
    /// When the log was last to be tidied.
    tidied_at: Option<Timestamp>,
    shutdown: Option<Shutdown>,
    /// This boot of the machine; `None` where it does not tell, and then nothing is ever taken up again.
    boot: Option<BootId>,
}

/// The way to the session of one connection.
#[derive(Debug)]
struct Line {
    journal: JournalId,
    /// When the welcome came.
    since: WallTime,
    messages: mpsc::Sender<ToSession>,
    /// Whether the verdicts have come: attempts are served from then on.
    reconciled: bool,
    /// Attempts whose result was sent over this connection.
    results_sent: BTreeSet<AttemptId>,
}

#[derive(Debug, Clone, Copy)]
struct Shutdown {
    until: Timestamp,
    /// Since when nothing runs.
    idle_since: Option<Timestamp>,
}

impl Engine {
    /// Takes over what an earlier run left on disk and, in `survivors`, on the machine. The sender is how everybody talks to
    /// the engine.
    pub fn new(
        offer: Offer,
        outbox: Outbox,
        executors: Executors,
        blobs: BlobFetcher,
        survivors: &Survivors,
    ) -> io::Result<(Self, mpsc::Sender<EngineInput>)> {
        let (inputs_in, inputs) = mpsc::channel(INPUTS_WAITING_MAX);
        let mut supervisor = Supervisor::new(SupervisorConfig { capabilities: offer.capabilities.clone() });
        supervisor.set_paused(offer.paused);
        executors.wasm.set_slots(offer.capabilities.slots);
        let mut engine = Self {
            supervisor,
            offer,
            offer_unsaid: false,
            outbox,
            executors,
            blobs,
            inputs,
            inputs_in: inputs_in.clone(),
            attempts: BTreeMap::new(),
            runners: JoinSet::new(),
            runner_of: BTreeMap::new(),
            connection: None,
            decided: Vec::new(),
            unrecorded: Vec::new(),
            retry_at: None,
            tidied_at: None,
            shutdown: None,
            boot: clock::boot_id().ok(),
        };
        engine.recover(survivors)?;
        Ok((engine, inputs_in))
    }

    /// Runs until a shutdown is complete. To be called where waiting for the disk is allowed, within a tokio runtime.
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while !self.is_done() {
            let sleep = self.sleep();
            tokio::select! {
                // The engine holds a sender itself, so there always is one.
                _ = self.inputs.recv_many(&mut batch, BATCH_MAX) => {
                    for input in batch.drain(..) {
                        self.on_input(input);
                    }
                }
                Some(ended) = self.runners.join_next_with_id() => self.on_runner_gone(ended),
                () = tokio::time::sleep(sleep.unwrap_or(Duration::MAX)), if sleep.is_some() => {}
            }
            self.on_time();
            self.settle();
            self.tidy_if_due();
        }
        if !self.runners.is_empty() {
            tracing::warn!(attempts = self.runners.len(), "attempts still run; they are killed");
        }
        self.runners.shutdown().await;
        if tokio::time::timeout(SHUTDOWN_CLEAR_MAX, self.executors.cleared()).await.is_err() {
            tracing::warn!("containers are still being removed; the next start goes on with that");
        }
        self.tidy();
    }

    fn recover(&mut self, survivors: &Survivors) -> io::Result<()> {
        let left = self.outbox.recover()?;
        let mut found = Vec::with_capacity(left.len());
        for one in left {
            let fence = one.assignment.claim.fence;
            let survivor = survivors.of(&one);
            let output = one.spool.state().lengths;
            let spool = Some(one.spool);
            let held = Held { fence, assignment: None, spool, stdin: None, stop: None, short_output: Vec::new() };
            self.attempts.insert(one.attempt, held);
            found.push(Recovered { attempt: one.attempt, fence, result: one.result, survivor, output });
        }
        if !found.is_empty() {
            tracing::info!(attempts = found.len(), "an earlier run left attempts");
        }
        self.decided = self.supervisor.recover(clock::now(), found);
        self.settle();
        Ok(())
    }

    fn on_input(&mut self, input: EngineInput) {
        if !input.gathers() {
            self.settle();
        }
        match input {
            EngineInput::Hello(reply) => {
                let facts = HelloFacts {
                    inventory: self.supervisor.inventory(),
                    fence: self.outbox.fence(),
                    offer: self.offer.clone(),
                };
                self.offer_unsaid = false;
                // A session that gave up in between asks again.
                let _ = reply.send(facts);
            }
            EngineInput::Connected { journal, lease, sent, line } => {
                self.connection = Some(Line {
                    journal,
                    since: clock::wall(),
                    messages: line,
                    reconciled: false,
                    results_sent: BTreeSet::new(),
                });
                self.handle(Input::Connected { lease, sent });
                self.settle();
                // What changed while the hello was on its way has not been heard by anybody.
                if self.offer_unsaid {
                    self.tell(ToSession::Offer(Box::new(self.offer.clone())));
                }
            }
            EngineInput::Disconnected => {
                self.connection = None;
                self.handle(Input::Disconnected);
            }
            EngineInput::HeartbeatAnswered { sent } => self.handle(Input::HeartbeatAnswered { sent }),
            EngineInput::Reconcile(verdicts) => {
                self.handle(Input::Reconcile(verdicts));
                self.settle();
                self.after_reconcile();
            }
            EngineInput::Assign(assignment) => self.handle(Input::Assign(assignment)),
            EngineInput::Stop { attempt, fence, grace, cause } => {
                tracing::info!(%attempt, ?cause, %grace, "told to stop an attempt");
                self.handle(Input::Stop { attempt, fence, grace, cause });
            }
            EngineInput::Ack { attempt, fence } => self.handle(Input::Ack { attempt, fence }),
            EngineInput::Preparing { attempt, message } => self.handle(Input::Preparing { attempt, message }),
            EngineInput::Pinned { attempt, image } => self.handle(Input::Pinned { attempt, image }),
            EngineInput::OfferChanged(offer) if *offer != self.offer => {
                self.supervisor.set_capabilities(offer.capabilities.clone());
                self.supervisor.set_paused(offer.paused);
                self.executors.wasm.set_slots(offer.capabilities.slots);
                self.offer = (*offer).clone();
                self.offer_unsaid = true;
                self.tell(ToSession::Offer(offer));
            }
            EngineInput::OfferChanged(_) => {}
            EngineInput::Started { attempt } => {
                tracing::info!(%attempt, "started");
                self.note_start(attempt);
                self.handle(Input::Started { attempt });
            }
            EngineInput::Ended { attempt, ending, usage, output, short_output } => {
                tracing::info!(%attempt, ?ending, ran = %usage.ran, "ended");
                if let Some(held) = self.attempts.get_mut(&attempt) {
                    held.short_output = short_output;
                }
                self.handle(Input::Ended { attempt, ending, usage, output });
            }
            EngineInput::Cleared { attempt } => self.on_cleared(attempt),
            // Whoever asked may have gone.
            EngineInput::Look(reply) => drop(reply.send(self.sight())),
            EngineInput::Evict => {
                tracing::info!(attempts = self.supervisor.live_attempts(), "ending what runs, as the owner wishes");
                self.handle(Input::Evict { grace: EVICTION_GRACE });
            }
            EngineInput::ShutDown if self.shutdown.is_none() => {
                tracing::info!(attempts = self.supervisor.live_attempts(), "stopping");
                self.shutdown = Some(Shutdown { until: clock::now() + SHUTDOWN_MAX, idle_since: None });
                self.handle(Input::ShutDown { grace: SHUTDOWN_GRACE });
            }
            EngineInput::ShutDown => {}
        }
    }

    fn sight(&self) -> Sight {
        let sight = |item: InventoryItem| {
            let held = self.attempts.get(&item.attempt);
            let job = held
                .and_then(|held| held.assignment.as_deref())
                .map(|assignment| (assignment.spec.name.clone(), assignment.spec.requirements.adapter));
            let lengths = held.and_then(|held| held.spool.as_ref()).map(|spool| spool.state().lengths);
            let spool_bytes = lengths.map_or(0, |lengths| lengths.stdout + lengths.stderr);
            AttemptSight { attempt: item.attempt, fence: item.fence, job, state: item.state, spool_bytes }
        };
        Sight {
            connected_at: self.connection.as_ref().map(|line| line.since),
            attempts: self.supervisor.inventory().into_iter().map(sight).collect(),
            stopping: self.shutdown.is_some(),
        }
    }

    /// A deadline may have passed while an input was handled, or while the machine slept.
    fn on_time(&mut self) {
        let now = clock::now();
        if self.supervisor.next_deadline().is_some_and(|deadline| deadline <= now) {
            let actions = self.supervisor.handle(now, Input::Tick);
            self.decided.extend(actions);
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_writes();
        }
    }

    fn handle(&mut self, input: Input) {
        let now = clock::now();
        let actions = self.supervisor.handle(now, input);
        self.decided.extend(actions);
    }

    /// Makes what was decided durable, all of it with one sync, and then does it, in its order.
    fn settle(&mut self) {
        while !self.decided.is_empty() || (self.retry_at.is_none() && !self.outbox.is_committed()) {
            let decided = std::mem::take(&mut self.decided);
            decided.iter().for_each(|action| self.note(action));
            let written = self.outbox.commit().inspect_err(|error| {
                tracing::error!(%error, "what the agent must not forget cannot be written down; trying again");
                self.retry_soon();
            });
            for action in decided {
                self.carry_out(action, &written);
            }
        }
    }

    /// Hands what must not be forgotten to the outbox.
    fn note(&mut self, action: &Action) {
        match action {
            Action::Begin(assignment) => self.outbox.begin(assignment),
            Action::Record(report) => {
                let held = self.attempts.get_mut(&report.attempt);
                let output = held.map(|held| std::mem::take(&mut held.short_output)).unwrap_or_default();
                let assignment = self.attempts.get(&report.attempt).and_then(|held| held.assignment.as_deref());
                self.outbox.record(assignment, report, &output);
            }
            Action::Discard { attempt } => self.outbox.discard(*attempt),
            Action::RememberFence(claim) => match &self.connection {
                Some(line) => self.outbox.remember_fence(FenceSeen { journal: line.journal, claim: *claim }),
                None => tracing::warn!(fence = claim.fence.0, "a fence came without a connection"),
            },
            Action::Resume { .. } | Action::Stop { .. } | Action::Send(_) => {}
        }
    }

    fn send(&mut self, report: Report) {
        if let Some(line) = &mut self.connection
            && matches!(report.body, ReportBody::Ended { .. })
        {
            line.results_sent.insert(report.attempt);
        }
        self.tell(ToSession::Report(Box::new(report)));
    }

    /// Hands a message to the session, if there is one.
    fn tell(&mut self, message: ToSession) {
        let Some(line) = &self.connection else { return };
        match line.messages.try_send(message) {
            Ok(()) => {}
            // It is about to say that it lost its connection.
            Err(mpsc::error::TrySendError::Closed(_)) => self.connection = None,
            Err(mpsc::error::TrySendError::Full(_)) => {
                // Without the sender the session ends, and what was not sent is sent again over the next connection.
                tracing::warn!("the session does not take its messages; it is dropped");
                self.connection = None;
            }
        }
    }

    /// The streams of all that is left, and results that came between the hello and the verdicts.
    fn after_reconcile(&mut self) {
        let serve = self
            .attempts
            .iter()
            .filter_map(|(attempt, held)| {
                let (fence, stdin) = (held.fence, held.stdin.clone());
                held.spool.clone().map(|spool| Serving { attempt: *attempt, fence, spool, stdin })
            })
            .collect();
        self.tell(ToSession::Serve(serve));
        if let Some(line) = &mut self.connection {
            line.reconciled = true;
        }
        let Some(line) = &self.connection else { return };
        let unsent: Vec<Report> = self
            .supervisor
            .unacknowledged()
            .into_iter()
            .filter(|report| !line.results_sent.contains(&report.attempt))
            .filter(|report| !self.is_unrecorded(report))
            .collect();
        for report in unsent {
            self.send(report);
        }
    }

    fn retry_soon(&mut self) {
        self.retry_at.get_or_insert(clock::now() + WRITE_RETRY);
    }

    fn retry_writes(&mut self) {
        self.retry_at = None;
        match self.outbox.commit() {
            Ok(()) => {
                for report in std::mem::take(&mut self.unrecorded) {
                    self.recorded(report);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "still not");
                self.retry_soon();
            }
        }
    }

    /// When the log is to be tidied; `None` if there is nothing to do, or nothing can be written anyway.
    fn tidy_at(&self) -> Option<Timestamp> {
        (self.outbox.is_untidy() && self.outbox.is_committed())
            .then(|| self.tidied_at.map_or(Timestamp::default(), |at| at + TIDY_EVERY))
    }

    fn tidy_if_due(&mut self) {
        if self.tidy_at().is_some_and(|at| at <= clock::now()) {
            self.tidied_at = Some(clock::now());
            self.tidy();
        }
    }

    fn tidy(&mut self) {
        if let Err(error) = self.outbox.tidy() {
            tracing::warn!(%error, "what is forgotten cannot be removed from the log of attempts yet");
        }
    }

    fn on_runner_gone(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let Some(attempt) = self.runner_of.remove(&id) else { return };
        if let Err(error) = ended {
            tracing::error!(%attempt, %error, "the task that ran an attempt failed");
            let output = self.keep_what_was_printed(attempt);
            let ending = Ending::NodeFault { message: Text::cut("the agent failed while it ran the attempt") };
            self.handle(Input::Ended { attempt, ending, usage: Usage::default(), output });
        }
    }

    /// How long to sleep if nothing happens; `None` for ever.
    fn sleep(&self) -> Option<Duration> {
        let shutdown = self.shutdown.map(|shutdown| shutdown.until);
        let wake = [self.supervisor.next_deadline(), self.retry_at, self.tidy_at(), shutdown];
        let wake = wake.into_iter().flatten().min()?;
        let wait = Duration::from(wake.since(clock::now()));
        // Not shorter than a tick of the timer, lest a deadline that is just due makes the loop spin.
        Some(wait.clamp(Duration::from_millis(1), SLEEP_MAX))
    }

    fn is_done(&mut self) -> bool {
        let live = self.supervisor.live_attempts();
        let Some(shutdown) = &mut self.shutdown else { return false };
        let now = clock::now();
        if now >= shutdown.until {
            return true;
        }
        if live > 0 || !self.unrecorded.is_empty() {
            shutdown.idle_since = None;
            return false;
        }
        let idle_since = *shutdown.idle_since.get_or_insert(now);
        self.connection.is_none()
            || self.supervisor.unacknowledged().is_empty()
            || now.since(idle_since) >= SHUTDOWN_ACK_MAX
    }
}

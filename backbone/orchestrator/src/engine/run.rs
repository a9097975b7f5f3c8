//! The engine's thread.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use modchain_core::{Command, Control, Effect, Event, Refused, Reply};
use modchain_types::{Span, Timestamp};
use tokio::sync::{mpsc, oneshot};

use super::snapshots::Writer;
use super::{
    AUDIT_EVERY, BATCH_MAX, Engine, Health, Message, OnFatal, Outlet, Question, STORAGE_EVERY, append_waiting,
};
use crate::clock::Clock;
use crate::gate::Gate;
use crate::store::journal::{AppendError, Journal};
use crate::store::space::{Level, Space};

/// The longest sleep: the machine's clock is read again after it, because timers do not count the machine's sleep.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// The shortest: a deadline that has passed and does not go away must not become a busy loop.
const SLEEP_MIN: Duration = Duration::from_millis(1);

/// Batches that a reader may be behind before the engine slows down.
const BEHIND_MAX: usize = 4096;
/// How long each batch is put off then.
const SLOW_DOWN: Duration = Duration::from_millis(10);

/// A pause between two rounds, or in one, that is no waiting: the process was stopped, or its machine slept. Well above the
/// longest sleep and a slow sync, well below the silence that makes a node suspect.
const STANDSTILL: Span = Span::from_secs(5);

pub(super) struct Runner {
    control: Control,
    clock: Clock,
    journal: Journal,
    space: Arc<Space>,
    gate: Arc<Gate>,
    snapshots: Writer,
    on_fatal: Option<OnFatal>,
    messages: mpsc::Receiver<Message>,
    effects: Outlet<Vec<Effect>>,
    events: Outlet<Arc<Vec<Event>>>,
    health: Arc<Health>,
    /// When it decided last.
    decided: Timestamp,
    audited: Instant,
    storage_seen: Option<Instant>,
}

/// What becomes of a batch once it is on disk.
#[derive(Default)]
struct Batch {
    events: Vec<Event>,
    effects: Vec<Effect>,
    replies: Vec<(oneshot::Sender<(Reply, u64)>, Reply)>,
    queries: Vec<Question>,
    stop: bool,
}

impl Runner {
    pub(super) fn new(
        engine: Engine,
        messages: mpsc::Receiver<Message>,
        effects: Outlet<Vec<Effect>>,
        events: Outlet<Arc<Vec<Event>>>,
        health: Arc<Health>,
    ) -> Self {
        let Engine { control, mut clock, journal, space, gate, snapshots, on_fatal, effects: first } = engine;
        let decided = clock.now();
        if !first.is_empty() {
            effects.send(first);
        }
        let on_fatal = Some(on_fatal);
        let audited = Instant::now();
        Self {
            control,
            clock,
            journal,
            space,
            gate,
            snapshots,
            on_fatal,
            messages,
            effects,
            events,
            health,
            decided,
            audited,
            storage_seen: None,
        }
    }

    pub(super) fn run(mut self) {
        // Only for waiting on the channel with a limit; nothing else runs on it.
        let waiting = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::error!("the engine cannot wait for commands: {error}");
                return;
            }
        };
        let mut messages = Vec::with_capacity(BATCH_MAX);
        loop {
            self.look_at_storage();
            let sleep = self.sleep();
            let received = waiting.block_on(async {
                tokio::time::timeout(sleep, self.messages.recv_many(&mut messages, BATCH_MAX)).await
            });
            let closed = received == Ok(0);
            let batch = self.decide(messages.drain(..));
            let stop = batch.stop || closed;
            if !self.commit(batch) {
                return;
            }
            self.take_snapshot();
            if stop {
                self.snapshots.finish();
                return;
            }
            self.audit();
            if self.effects.waiting().max(self.events.waiting()) > BEHIND_MAX {
                thread::sleep(SLOW_DOWN);
            }
        }
    }

    fn sleep(&mut self) -> Duration {
        let due = self.control.next_deadline();
        let until = due.map_or(Span::MAX, |due| due.since(self.clock.now()));
        Duration::from(until).clamp(SLEEP_MIN, SLEEP_MAX)
    }

    /// Decides everything in memory. Nothing of it may be seen outside before it is committed.
    fn decide(&mut self, messages: impl Iterator<Item = Message>) -> Batch {
        let now = self.clock.now();
        let gap = now.since(std::mem::replace(&mut self.decided, now));
        if gap >= STANDSTILL {
            tracing::warn!("nothing was decided for {gap}: nodes get the time to be heard that a start gives them");
            self.control.stood_still(now);
        }
        let mut batch = Batch::default();
        for message in messages {
            match message {
                Message::Query(question) => batch.queries.push(question),
                Message::Stop => batch.stop = true,
                Message::Command { command, reply } => {
                    let answer = match self.refuse(&command) {
                        Some(refused) => Some(Reply::Refused(refused)),
                        None => {
                            let decision = self.control.apply(now, command);
                            batch.events.extend(decision.events);
                            batch.effects.extend(decision.effects);
                            decision.reply
                        }
                    };
                    if let Some(reply) = reply {
                        batch.replies.push((reply, answer.unwrap_or(Reply::Done)));
                    }
                }
            }
        }
        let decision = self.control.advance(now);
        batch.events.extend(decision.events);
        batch.effects.extend(decision.effects);
        batch
    }

    /// After the hourly audit found a breach no new money moves, and nothing is forgotten; what runs goes on.
    fn refuse(&self, command: &Command) -> Option<Refused> {
        let why = self.health.frozen.get()?;
        waits_while_frozen(command).then(|| Refused::Frozen { why: why.clone() })
    }

    /// Syncs the batch and lets it out; tells whether to go on.
    fn commit(&mut self, batch: Batch) -> bool {
        let Batch { events, effects, replies, queries, stop: _ } = batch;
        if let Err(error) = self.append(&events) {
            // Nobody has been told of this batch, and nobody will be: the memory is ahead of the disk and worth nothing now.
            if let Some(on_fatal) = self.on_fatal.take() {
                on_fatal(&error);
            }
            return false;
        }
        // Before anybody hears of it: who is told that an identity is revoked can rely on it.
        self.gate.take(&events);
        if !events.is_empty() {
            self.events.send(Arc::new(events));
        }
        if !effects.is_empty() {
            self.effects.send(effects);
        }
        let upto = self.journal.last_number();
        for (reply, answer) in replies {
            let _ = reply.send((answer, upto)); // the asker may have gone
        }
        let now = self.clock.now();
        for question in queries {
            question(&self.control, now);
        }
        true
    }

    /// Not while there is little room: the journal has everything that a snapshot has. Nor of an old copy, which lets pass the
    /// deadlines that would give work up: the next start arms them again, from the journal.
    fn take_snapshot(&mut self) {
        if self.space.level() == Level::Enough && !self.control.is_rolled_back() {
            let bytes = self.journal.take_appended();
            self.snapshots.look(self.journal.id(), self.journal.place(), bytes, &self.control);
        }
    }

    /// Appends, and while there is no room for it tells those who can do without an answer.
    fn append(&mut self, events: &[Event]) -> Result<(), AppendError> {
        let Self { journal, space, clock, health, .. } = self;
        append_waiting(journal, events, space, || {
            health.no_room.send_replace(Some(clock.now()));
            thread::sleep(STORAGE_EVERY);
            // Not during the next try: an engine that hangs in it must not look alive.
            health.no_room.send_replace(None);
        })
    }

    fn audit(&mut self) {
        if self.audited.elapsed() < AUDIT_EVERY {
            return;
        }
        self.audited = Instant::now();
        if let Err(breach) = self.control.audit() {
            tracing::error!("{breach}; money is frozen: no new jobs, no credits");
            let _ = self.health.frozen.set(breach.to_string()); // the first breach is the one to look at
        }
    }

    fn look_at_storage(&mut self) {
        if self.storage_seen.is_some_and(|seen| seen.elapsed() < STORAGE_EVERY) {
            return;
        }
        self.storage_seen = Some(Instant::now());
        let level = self.space.look();
        self.control.set_output_waits(level == Level::Full);
    }
}

fn waits_while_frozen(command: &Command) -> bool {
    matches!(command, Command::Submit { .. } | Command::Credit { .. } | Command::ForgetJobs { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use modchain_core::Actor;
    use modchain_types::{AccountId, IdentityId, Micro, Role, Text, TokenId};

    #[test]
    fn while_money_is_frozen_people_still_join_and_are_revoked() {
        let account: AccountId = "boss".parse().expect("an account");
        let by = Actor { id: IdentityId([1; 16]), role: Role::Operator, account: account.clone() };
        let key = "k".parse().expect("a key");
        let credit = Command::Credit { by: by.clone(), account, amount: Micro(1), key, why: Text::default() };
        assert!(waits_while_frozen(&credit) && waits_while_frozen(&Command::ForgetJobs { jobs: Vec::new() }));
        let token = TokenId([1; 5]);
        let create = Command::CreateToken {
            by: by.clone(),
            token,
            verifier: [0; 32],
            role: Role::Node,
            name: None,
            account: None,
            rejoin: false,
            ttl: Span::from_secs(60),
        };
        let revoke = Command::RevokeIdentity {
            wall: modchain_types::WallTime(0),
            by,
            identity: IdentityId([2; 16]),
            why: Text::default(),
        };
        for goes_on in [create, Command::WrongProof { token }, revoke] {
            assert!(!waits_while_frozen(&goes_on), "{goes_on:?}");
        }
    }
}

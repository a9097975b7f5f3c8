//! The shell around `Control`: it appends events to a journal before it lets anything out, keeps sessions, and dies.

use std::collections::{BTreeMap, BTreeSet};

use modchain_core::control::Durable;
use modchain_core::ledger::Account;
use modchain_core::membership::Token;
#[cfg(feature = "planted")]
use modchain_core::planted::{self, Bug};
use modchain_core::{
    Command, Control, ControlConfig, Decision, Effect, Event, EventBody, Refused, Reply, SessionEnd, SessionId,
};
use modchain_types::{Asset, AttemptId, JobId, NodeId, NodeState, Reason, Span, Text, Timestamp, WallTime};

use super::log::{Fate, Log};
use super::network::{ConnectionId, Direction, FromAgent, ToAgent};
use super::timeline::Timeline;
use super::{Happening, World};
use crate::auditor::{Breach, Rule, rule};

/// Events between two looks at the whole state.
const EVENTS_PER_AUDIT: usize = 64;
/// Time after a start within which nothing is lost for being silent.
const TIME_TO_COME_BACK: Span = Span::from_secs(60);
/// A standstill that the engine notices.
const NOTICED_STANDSTILL: Span = Span::from_secs(5);
/// More than a word needs to arrive at an agent that answers.
const TIME_TO_HEAR: Span = Span::from_secs(60);
/// Calls of `advance` at one moment after which it is taken to go round in circles.
const ADVANCES_MAX: usize = 1_000;
/// Outputs of which more is still to come, in 100,000, each time that one is looked at.
const SLOW_OUTPUT: u32 = 10_000;
/// How often more of it comes.
const OUTPUT_COMES_EVERY: Span = Span::from_secs(40);

#[derive(Debug)]
pub(super) struct Orchestrator {
    /// `None` while it is down.
    pub(super) control: Option<Control>,
    log: Log,
    pub(super) timeline: Timeline,
    /// What is let out once the record in the making is synced, in order.
    held_back: Vec<Out>,
    /// Whether the sync of the record in the making is planned.
    commit_planned: bool,
    /// When it started last, or stood still last, on its own timeline.
    listening_since: Timestamp,
    /// Connections that were welcomed in this run.
    sessions: BTreeMap<ConnectionId, NodeId>,
    /// When the next wake-up is planned, by the world's clock.
    wakes_at: Option<Timestamp>,
    /// When it was stopped last, on its own timeline.
    pub(super) stopped_at: Timestamp,
    /// It is stopped, and goes on after this moment.
    pub(super) stopped_until: Timestamp,
    /// Until then its disk takes nothing more.
    pub(super) full_until: Timestamp,
    /// Until then its disk is so nearly full that nothing new is taken.
    pub(super) nearly_full_until: Timestamp,
    /// Events of the journal at the last look at the whole.
    audited: usize,
    /// The newest snapshot, and how many events it stands for.
    snapshot: Option<(usize, Box<Durable>)>,
}

/// What happened to a command.
pub(super) enum Answer {
    Reply(Reply),
    /// The orchestrator died over it; nobody knows whether it is remembered.
    Died,
}

/// Something that waits for a sync.
#[derive(Debug)]
enum Out {
    Effect(Effect),
    /// The answer to a heartbeat.
    Echo(ConnectionId, Timestamp),
}

impl Orchestrator {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            control: None,
            log: Log::default(),
            timeline: Timeline::new(now),
            held_back: Vec::new(),
            commit_planned: false,
            listening_since: Timestamp::ZERO,
            sessions: BTreeMap::new(),
            wakes_at: None,
            stopped_at: Timestamp::ZERO,
            stopped_until: Timestamp::ZERO,
            full_until: Timestamp::ZERO,
            nearly_full_until: Timestamp::ZERO,
            audited: 0,
            snapshot: None,
        }
    }

    pub(super) fn journal(&self) -> &[Event] {
        self.log.synced()
    }

    pub(super) fn into_journal(self) -> Vec<Event> {
        self.log.into_synced()
    }

    /// What a start makes of its disk: the snapshot, if there is one, and the events after it.
    fn recovered(&self) -> Control {
        let config = ControlConfig::new(Asset::Test);
        let (events, mut control) = match self.snapshot.clone() {
            Some((events, durable)) => (events, Control::restore(config, *durable)),
            None => (0, Control::new(config)),
        };
        self.log.synced()[events..].iter().for_each(|event| control.evolve(event));
        control
    }

    /// What a start without a snapshot would make of everything that was decided.
    fn replayed(&self) -> Control {
        let mut control = Control::new(ControlConfig::new(Asset::Test));
        self.log.decided().for_each(|event| control.evolve(event));
        control
    }
}

impl World {
    pub(super) fn orchestrator_starts(&mut self) -> Result<(), Breach> {
        self.note(|| "the orchestrator starts".into());
        let now = self.now;
        let orchestrator = &mut self.orchestrator;
        orchestrator.timeline.resume(now, orchestrator.log.synced());
        let mut control = orchestrator.recovered();
        control.set_output_waits(now < orchestrator.nearly_full_until);
        orchestrator.control = Some(control);
        let timeline = &orchestrator.timeline;
        orchestrator.listening_since = timeline.now(now);
        let started = Command::EngineStarted {
            boot: timeline.boot(),
            boot_clock: timeline.boot_clock(now),
            wall: timeline.wall(now),
            version: Text::cut("sim"),
        };
        if let Answer::Died = self.command(started)? {
            return Ok(());
        }
        self.introduce_everybody()
    }

    /// The moment on the journal's timeline.
    pub(super) fn engine_now(&self) -> Timestamp {
        self.orchestrator.timeline.now(self.now)
    }

    /// What the orchestrator's wall clock shows.
    pub(super) fn wall(&self) -> WallTime {
        self.orchestrator.timeline.wall(self.now)
    }

    /// Gives a command to the control, syncs what follows, and only then lets it out. The answer is for the caller to let
    /// out.
    pub(super) fn command(&mut self, command: Command) -> Result<Answer, Breach> {
        self.command_then(command, |_, _| {})
    }

    /// As [`World::command`]; `answer` is called with the reply before any effect goes out.
    pub(super) fn command_then(
        &mut self,
        command: Command,
        answer: impl FnOnce(&mut Self, &Reply),
    ) -> Result<Answer, Breach> {
        let answer = self.decide(command, answer)?;
        self.advance()?;
        Ok(answer)
    }

    /// As [`World::command`], with others to follow: nothing that is due comes in between.
    pub(super) fn command_in_batch(&mut self, command: Command) -> Result<Answer, Breach> {
        self.decide(command, |_, _| {})
    }

    fn decide(&mut self, command: Command, answer: impl FnOnce(&mut Self, &Reply)) -> Result<Answer, Breach> {
        // What was decided before is on disk before it, or lost before it.
        if !self.commit()? {
            return Ok(Answer::Died);
        }
        let Some(reply) = self.apply(command)? else { return Ok(Answer::Died) };
        #[cfg(feature = "planted")]
        if planted::is(Bug::AckBeforeSync) {
            answer(self, &reply);
            self.commit()?;
            return Ok(Answer::Reply(reply));
        }
        if !self.sync()? {
            return Ok(Answer::Died);
        }
        answer(self, &reply);
        self.let_out()?;
        Ok(Answer::Reply(reply))
    }

    /// Decides what nobody waits for: it is synced together with what else comes within a moment. Tells the answer, which
    /// nobody has heard yet.
    pub(super) fn command_grouped(&mut self, command: Command) -> Result<Option<Reply>, Breach> {
        let reply = self.apply(command)?;
        self.commit_soon()?;
        Ok(reply)
    }

    fn commit_soon(&mut self) -> Result<(), Breach> {
        if self.swarm.commit_window == Span::ZERO {
            return self.advance();
        }
        if !self.orchestrator.commit_planned {
            self.orchestrator.commit_planned = true;
            let at = self.soon(self.swarm.commit_window);
            self.at(at, Happening::Commit);
        }
        Ok(())
    }

    /// The process goes on, and notices by its clock for how long it did not.
    pub(super) fn orchestrator_goes_on(&mut self) {
        let now = self.engine_now();
        if let Some(control) = &mut self.orchestrator.control
            && now.since(self.orchestrator.stopped_at) >= NOTICED_STANDSTILL
        {
            control.stood_still(now);
            self.orchestrator.listening_since = now;
        }
    }

    /// The orchestrator's disk is nearly full, or has room again: output waits as long as that lasts.
    pub(super) fn orchestrator_looks_at_its_disk(&mut self) {
        let nearly_full = self.now < self.orchestrator.nearly_full_until;
        if let Some(control) = &mut self.orchestrator.control {
            control.set_output_waits(nearly_full);
        }
    }

    pub(super) fn commit_is_due(&mut self) -> Result<(), Breach> {
        if std::mem::take(&mut self.orchestrator.commit_planned) { self.advance() } else { Ok(()) }
    }

    pub(super) fn control_wakes(&mut self) -> Result<(), Breach> {
        if self.orchestrator.wakes_at.is_none_or(|at| at > self.now) {
            return Ok(()); // an earlier one has been planned and has come since
        }
        self.orchestrator.wakes_at = None;
        self.advance()
    }

    /// Lets the control do what is due, until nothing is.
    pub(super) fn advance(&mut self) -> Result<(), Breach> {
        for _ in 0..ADVANCES_MAX {
            let now = self.engine_now();
            let Some(control) = &mut self.orchestrator.control else { return Ok(()) };
            let decision = control.advance(now);
            decision.events.iter().try_for_each(|event| self.is_its_time(event))?;
            self.gather(decision)?;
            if !self.commit()? {
                return Ok(());
            }
            let Some(control) = &self.orchestrator.control else { return Ok(()) };
            match control.next_deadline() {
                Some(at) if at <= now => {}
                Some(at) => {
                    let at = self.orchestrator.timeline.world(at);
                    if self.orchestrator.wakes_at.is_none_or(|planned| at < planned) {
                        self.orchestrator.wakes_at = Some(at);
                        self.at(at, Happening::ControlWakes);
                    }
                    return Ok(());
                }
                None => return Ok(()),
            }
        }
        Err(Breach { rule: Rule::SelfAudit, what: "advance always has something due".into() })
    }

    /// Decides a command; its events and effects wait for the next sync. `None` while the orchestrator is down.
    fn apply(&mut self, command: Command) -> Result<Option<Reply>, Breach> {
        let now = self.engine_now();
        self.note(|| format!("command {command:?}"));
        let hello = matches!(command, Command::AgentConnected { .. });
        let Some(control) = &mut self.orchestrator.control else { return Ok(None) };
        let mut decision = control.apply(now, command);
        let reply = decision.reply.take().expect("every command has an answer");
        if hello {
            decision.events.iter().try_for_each(|event| self.witness.result_is_not_missed(event))?;
        }
        self.note(|| format!("  answer {reply:?}"));
        self.gather(decision)?;
        Ok(Some(reply))
    }

    fn gather(&mut self, decision: Decision) -> Result<(), Breach> {
        for event in &decision.events {
            self.note(|| format!("  event {} {:?}", event.number, event.body));
        }
        self.orchestrator.log.gather(decision.events);
        self.orchestrator.held_back.extend(decision.effects.into_iter().map(Out::Effect));
        let control = self.orchestrator.control.as_ref().expect("it has just decided");
        let problems = control.problems();
        rule(Rule::SelfAudit, problems.is_empty(), || problems.join("; "))
    }

    /// Syncs what was decided and lets it out. Tells whether the orchestrator lived through it.
    pub(super) fn commit(&mut self) -> Result<bool, Breach> {
        let lives = self.sync()?;
        if lives {
            self.let_out()?;
        }
        Ok(lives)
    }

    /// Makes the record in the making durable, unless the orchestrator dies before or just after that. Tells whether it lives.
    fn sync(&mut self) -> Result<bool, Breach> {
        if self.orchestrator.control.is_none() {
            return Ok(false);
        }
        if !self.orchestrator.log.is_open() {
            return Ok(true);
        }
        if self.now < self.orchestrator.full_until {
            self.orchestrator_dies("its disk is full", Fate::Lost)?;
            return Ok(false);
        }
        if self.random.chance(self.swarm.crash_before_sync) {
            self.orchestrator_dies("before its events are synced", Fate::Lost)?;
            return Ok(false);
        }
        let from = self.orchestrator.log.sync();
        self.take_in(from)?;
        if self.orchestrator.log.synced().len() >= self.orchestrator.audited + EVENTS_PER_AUDIT {
            self.look_at_the_whole()?;
        }
        if self.random.chance(self.swarm.crash_after_sync) {
            self.compare_with_replay()?;
            self.orchestrator_dies("before anything is let out", Fate::Lost)?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Gives the events that are on disk, from this one on, to those who watch.
    fn take_in(&mut self, from: usize) -> Result<(), Breach> {
        let Self { orchestrator, auditor, witness, clients, now, .. } = self;
        for event in &orchestrator.log.synced()[from..] {
            auditor.take(event)?;
            witness.take(*now, event)?;
            if let EventBody::JobsForgotten { jobs } = &event.body {
                clients.forget(jobs);
            }
        }
        Ok(())
    }

    fn let_out(&mut self) -> Result<(), Breach> {
        for out in std::mem::take(&mut self.orchestrator.held_back) {
            match out {
                Out::Effect(effect) => self.carry_out(effect)?,
                Out::Echo(connection, sent) => self.send_down(connection, ToAgent::HeartbeatEcho { sent }),
            }
        }
        Ok(())
    }

    /// Some of the oldest ended jobs are forgotten, but for one that somebody still reads of; of the youngest nobody has heard yet
    /// that they have ended.
    pub(super) fn some_jobs_are_forgotten(&mut self) -> Result<(), Breach> {
        let synced = self.orchestrator.journal().len() as u64;
        let (Some(control), Some(forgets)) = (&self.orchestrator.control, &mut self.forgets) else { return Ok(()) };
        let known = control.ended_oldest().take_while(|(_, job)| job.finished <= synced);
        let mut jobs: Vec<JobId> = known.map(|(id, _)| id).collect();
        jobs.truncate(forgets.below(jobs.len() as u64 + 1) as usize);
        if jobs.is_empty() || self.now <= self.orchestrator.stopped_until {
            return Ok(());
        }
        if forgets.chance(50_000) {
            jobs.remove(forgets.below(jobs.len() as u64) as usize);
        }
        let Some(reply) = self.command_grouped(Command::ForgetJobs { jobs })? else { return Ok(()) };
        let forgotten = matches!(reply, Reply::Forgotten { .. });
        rule(Rule::AnswersKept, forgotten, || format!("forgetting gives {reply:?}"))
    }

    /// What a deadline brings about must not come before its time.
    fn is_its_time(&self, event: &Event) -> Result<(), Breach> {
        let attempt = match &event.body {
            EventBody::AttemptEnded { attempt, reason: Reason::NodeLost, .. } => Some(*attempt),
            EventBody::JobFinished { job, attempt: Some(number), outcome, .. } => match outcome.reason {
                Reason::NodeLost => Some(AttemptId { job: *job, number: *number }),
                Reason::Cancelled => return self.cancel_was_heard(AttemptId { job: *job, number: *number }),
                _ => None,
            },
            _ => None,
        };
        let Some(attempt) = attempt else { return Ok(()) };
        // One that its lease ended is lost by its agent's word; where its output never came, a deadline settles that.
        let by_silence = self.auditor.live(attempt).is_some_and(|live| !live.has_result);
        let early = self.engine_now().since(self.orchestrator.listening_since) < TIME_TO_COME_BACK;
        rule(Rule::TimeToComeBack, !(by_silence && early), || format!("{attempt} is lost just after a start"))
    }

    /// A node that was there all the time, and answers, was told to stop what the orchestrator gives up.
    fn cancel_was_heard(&self, attempt: AttemptId) -> Result<(), Breach> {
        let Some(live) = self.auditor.live(attempt) else { return Ok(()) };
        let deaf = live.stop_wished_at.is_some_and(|at| self.should_know(live.node, at))
            && self.runs_untold(live.node, attempt);
        rule(Rule::CancelIsHeard, !deaf, || format!("{} was never told to stop {attempt}", live.node))
    }

    /// What ends by itself, long after it was over for its job, was told to end before.
    pub(super) fn did_not_run_in_vain(&self, node: NodeId, attempt: AttemptId) -> Result<(), Breach> {
        let over = self.auditor.over_since(attempt);
        let in_vain = over.is_some_and(|at| self.should_know(node, at)) && self.runs_untold(node, attempt);
        rule(Rule::NothingRunsInVain, !in_vain, || format!("{node} was never told that {attempt} is over"))
    }

    /// Whether the node has been there for long enough to know by now what was decided at this moment.
    fn should_know(&self, node: NodeId, decided: Timestamp) -> bool {
        let now = self.engine_now();
        let long_ago = |at: Timestamp| at + TIME_TO_HEAR <= now;
        let known = self.orchestrator.control.as_ref().and_then(|control| control.node(node));
        let connected = known.is_some_and(|node| {
            let there = node.session().is_some() && !node.revoked;
            there && long_ago(node.presence.connected_at) && node.silence(now) < TIME_TO_HEAR
        });
        connected && long_ago(decided) && !self.is_excused(node)
    }

    /// Everything that is slow to check.
    pub(super) fn look_at_the_whole(&mut self) -> Result<(), Breach> {
        self.orchestrator.audited = self.orchestrator.log.synced().len();
        let Some(control) = &self.orchestrator.control else { return Ok(()) };
        control.audit().map_err(|breach| Breach { rule: Rule::SelfAudit, what: breach.what })?;
        if self.random.chance(self.swarm.snapshots) {
            let snapshot = (self.orchestrator.audited, Box::new(control.durable()));
            self.orchestrator.snapshot = Some(snapshot);
        }
        let books = self.auditor.books();
        let ours: BTreeMap<Account, i128> = books
            .available
            .iter()
            .map(|(account, balance)| (Account::Available(account.clone()), *balance))
            .chain(books.held.iter().map(|(job, balance)| (Account::Held(*job), *balance)))
            .chain(books.earnings.iter().map(|(owner, balance)| (Account::Earnings(owner.clone()), *balance)))
            .chain([(Account::Fees, books.fees), (Account::Custody, -books.deposited)])
            .filter(|(_, balance)| *balance != 0)
            .collect();
        let theirs: BTreeMap<Account, i128> =
            control.ledger().balances().map(|(account, balance)| (account.clone(), balance)).collect();
        rule(Rule::BooksAgree, ours == theirs, || format!("the auditor has {ours:?}, the ledger {theirs:?}"))?;
        for member in control.members() {
            let ours = self.auditor.accepted(member.identity.id);
            let theirs: BTreeSet<_> = member.certificates.iter().map(|known| known.certificate.serial).collect();
            rule(Rule::BooksAgree, ours == theirs, || format!("the auditor accepts {ours:?} of {member:?}"))?;
        }
        Ok(())
    }

    /// A fresh control with the same journal must stand where the live one stands.
    pub(super) fn compare_with_replay(&self) -> Result<(), Breach> {
        let Some(live) = &self.orchestrator.control else { return Ok(()) };
        let replayed = self.orchestrator.replayed();
        let same = |what: &str, same: bool| rule(Rule::ReplayIsLive, same, || format!("{what} differ"));
        same("numbers", (live.last_number(), live.last_at()) == (replayed.last_number(), replayed.last_at()))?;
        same("ledgers", live.ledger() == replayed.ledger())?;
        same("open jobs", live.jobs().eq(replayed.jobs()))?;
        same("ended jobs", live.ended_oldest().eq(replayed.ended_oldest()))?;
        same("members", live.members().eq(replayed.members()))?;
        // Wrong proofs are forgiven.
        let tokens = |control: &Control| -> Vec<Token> {
            control.tokens().iter().map(|token| Token { wrong_proofs: 0, ..token.clone() }).collect()
        };
        same("tokens", tokens(live) == tokens(&replayed))?;
        let nodes = |control: &Control| -> Vec<_> {
            control
                .nodes()
                .map(|node| {
                    let (offer, placed, taken) = (node.offer.clone(), node.placed.clone(), node.taken.clone());
                    (node.id, offer, placed, taken, node.standing, node.lost, node.revoked)
                })
                .collect()
        };
        same("nodes", nodes(live) == nodes(&replayed))?;
        let queue = |control: &Control| -> BTreeSet<_> {
            control.jobs().map(|job| (job.id, control.jobs_ahead(job.id))).collect()
        };
        same("queues", queue(live) == queue(&replayed))?;
        replayed.audit().map_err(|breach| Breach { rule: Rule::ReplayIsLive, what: breach.what })
    }

    /// It dies, and every connection with it. What becomes of the record in the making is the disk's to decide.
    pub(super) fn orchestrator_dies(&mut self, why: &str, fate: Fate) -> Result<(), Breach> {
        if self.orchestrator.control.take().is_none() {
            return Ok(());
        }
        self.note(|| format!("the orchestrator dies: {why}, its last record is {fate:?}"));
        let from = self.orchestrator.log.crash(fate);
        self.take_in(from)?;
        self.orchestrator.held_back.clear();
        self.orchestrator.sessions.clear();
        self.orchestrator.wakes_at = None;
        self.orchestrator.stopped_until = self.now;
        self.auditor.forget_silence();
        let open: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for connection in open {
            self.cut(connection);
        }
        let longest = self.random.pick(&[1, 20, 120]);
        let at = self.soon(Span::from_secs(longest));
        self.at(at, Happening::OrchestratorStarts);
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), Breach> {
        match effect {
            Effect::ToNode { session, message, .. } => {
                self.note(|| format!("  to {}: {message:?}", session.0));
                self.send_down(session.0, ToAgent::Node(message));
            }
            Effect::EndSession { session, why: SessionEnd::Superseded, .. } => {
                self.orchestrator.sessions.remove(&session.0);
                self.send_down(session.0, ToAgent::Close);
            }
            Effect::Preparing { .. } => {}
            Effect::NodeChanged { node, state } => {
                self.note(|| format!("  {node} is {state}"));
                match state {
                    NodeState::Ready | NodeState::Cordoned | NodeState::Draining | NodeState::Paused => {
                        self.auditor.mark_unreachable(node, false);
                    }
                    NodeState::Suspect => self.auditor.mark_unreachable(node, true),
                    NodeState::Lost => {}
                }
            }
            Effect::JobClosed { job, .. } => {
                let ended = self.auditor.ended(job).is_some();
                rule(Rule::EverythingEnds, ended, || format!("{job} is closed before it has ended"))?;
            }
        }
        Ok(())
    }

    /// The welcomed connections of a node.
    pub(super) fn sessions_of(&self, node: NodeId) -> Vec<ConnectionId> {
        self.orchestrator.sessions.iter().filter(|(_, other)| **other == node).map(|(id, _)| *id).collect()
    }

    pub(super) fn orchestrator_notices(&mut self, connection: ConnectionId) -> Result<(), Breach> {
        if let Some(node) = self.orchestrator.sessions.remove(&connection) {
            self.command_grouped(Command::AgentDisconnected { node, session: SessionId(connection) })?;
        }
        Ok(())
    }

    pub(super) fn arrives_at_orchestrator(
        &mut self,
        connection: ConnectionId,
        message: FromAgent,
    ) -> Result<(), Breach> {
        if !self.gets_through(connection, Direction::Up) || self.orchestrator.control.is_none() {
            return Ok(());
        }
        let node = self.connections[&connection].node;
        let session = SessionId(connection);
        let welcomed = self.orchestrator.sessions.contains_key(&connection);
        match message {
            FromAgent::Hello(arrival) => {
                if !self.comes_in(node.into())? && !self.auditor.is_revoked(node.into()) {
                    return Ok(()); // the orchestrator died over it
                }
                let lease = self.orchestrator.control.as_ref().map_or(Span::ZERO, |control| control.config().lease);
                let hello = Command::AgentConnected { node, session, arrival };
                self.command_then(hello, |world, reply| {
                    let admitted = matches!(reply, Reply::Welcome);
                    if admitted {
                        world.orchestrator.sessions.insert(connection, node);
                    }
                    let answer = if admitted { ToAgent::Welcome { lease } } else { ToAgent::Close };
                    world.send_down(connection, answer);
                })?;
            }
            FromAgent::Heartbeat { sent } if welcomed => {
                // An echo renews the agent's lease: only what the control has heard may be echoed.
                if let Some(Reply::Done) = self.apply(Command::AgentHeard { node, session })? {
                    self.orchestrator.held_back.push(Out::Echo(connection, sent));
                }
                self.commit_soon()?;
            }
            FromAgent::ProbeAnswer if welcomed => {
                self.command_grouped(Command::AgentHeard { node, session })?;
            }
            FromAgent::Report(report) if welcomed => {
                self.count_ending(node, &report);
                let answer = self.command_grouped(Command::Report { node, session, report })?;
                if let Some(Reply::Refused(refused)) = answer {
                    let stale = matches!(refused, Refused::StaleSession);
                    rule(Rule::AnswersKept, stale, || format!("a report of a live session is refused: {refused}"))?;
                }
            }
            FromAgent::OutputEnd { .. } if welcomed && self.now <= self.orchestrator.nearly_full_until => {
                // Its stream waits.
                let at = self.orchestrator.nearly_full_until + Span(1);
                self.at(at, Happening::ToOrchestrator(connection, message));
            }
            FromAgent::OutputEnd { attempt, fence, .. } if welcomed && self.random.chance(SLOW_OUTPUT) => {
                // Much of it, over a slow line.
                self.command_grouped(Command::OutputComes { attempt, fence })?;
                self.at(self.now + OUTPUT_COMES_EVERY, Happening::ToOrchestrator(connection, message));
            }
            FromAgent::OutputEnd { attempt, fence, lengths } if welcomed => {
                self.command_grouped(Command::OutputStored { attempt, fence, stored: lengths })?;
            }
            FromAgent::Offer(offer) if welcomed => {
                self.command_grouped(Command::OfferChanged { node, session, offer })?;
            }
            // From a session that has been replaced.
            FromAgent::Heartbeat { .. }
            | FromAgent::ProbeAnswer
            | FromAgent::Report(_)
            | FromAgent::Offer(_)
            | FromAgent::OutputEnd { .. } => {}
        }
        Ok(())
    }
}

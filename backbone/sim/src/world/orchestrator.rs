//! The shell around `Control`: it appends events to a journal before it lets anything out, keeps sessions, and dies.

use std::collections::{BTreeMap, BTreeSet};

use modchain_core::ledger::Account;
use modchain_core::membership::Token;
use modchain_core::{Command, Control, ControlConfig, Decision, Effect, Event, Refused, Reply, SessionEnd, SessionId};
use modchain_types::{Asset, BootId, NodeId, NodeState, Span, Text, Timestamp, WallTime};

use super::network::{ConnectionId, FromAgent, ToAgent};
use super::{Happening, World};
use crate::auditor::{Breach, Rule, rule};

/// Events between two looks at the whole state.
const EVENTS_PER_AUDIT: u64 = 64;
/// Calls of `advance` at one moment after which it is taken to go round in circles.
const ADVANCES_MAX: usize = 1_000;

#[derive(Debug)]
pub(super) struct Orchestrator {
    /// `None` while it is down.
    pub(super) control: Option<Control>,
    journal: Vec<Event>,
    /// Connections that were welcomed in this run.
    sessions: BTreeMap<ConnectionId, NodeId>,
    /// When the next wake-up is planned.
    wakes_at: Option<Timestamp>,
    audited: u64,
}

/// What happened to a command.
pub(super) enum Answer {
    Reply(Reply),
    /// The orchestrator died over it; nobody knows whether it is remembered.
    Died,
}

impl Orchestrator {
    pub(super) fn new() -> Self {
        Self { control: None, journal: Vec::new(), sessions: BTreeMap::new(), wakes_at: None, audited: 0 }
    }

    pub(super) fn journal(&self) -> &[Event] {
        &self.journal
    }

    pub(super) fn into_journal(self) -> Vec<Event> {
        self.journal
    }

    fn replayed(&self) -> Control {
        let mut control = Control::new(ControlConfig::new(Asset::Test));
        self.journal.iter().for_each(|event| control.evolve(event));
        control
    }
}

impl World {
    pub(super) fn orchestrator_starts(&mut self) -> Result<(), Breach> {
        self.note(|| "the orchestrator starts".into());
        self.orchestrator.control = Some(self.orchestrator.replayed());
        let started = Command::EngineStarted {
            boot: BootId([1; 16]),
            boot_clock: self.now.since(Timestamp::ZERO),
            wall: WallTime(0),
            version: Text::cut("sim"),
        };
        if let Answer::Died = self.command(started)? {
            return Ok(());
        }
        self.introduce_everybody()
    }

    /// Gives a command to the control, remembers what follows, and only then lets it out. The answer is for the caller to
    /// let out; effects that follow go out after `first` has been let out.
    pub(super) fn command(&mut self, command: Command) -> Result<Answer, Breach> {
        self.command_then(command, |_, _| {})
    }

    /// As [`World::command`]; `let_out` is called with the reply before any effect goes out.
    pub(super) fn command_then(
        &mut self,
        command: Command,
        let_out: impl FnOnce(&mut Self, &Reply),
    ) -> Result<Answer, Breach> {
        let answer = self.decide(command, let_out)?;
        self.advance()?;
        Ok(answer)
    }

    /// As [`World::command`], with others to follow in the same batch: nothing that is due comes in between.
    pub(super) fn command_in_batch(&mut self, command: Command) -> Result<Answer, Breach> {
        self.decide(command, |_, _| {})
    }

    fn decide(&mut self, command: Command, let_out: impl FnOnce(&mut Self, &Reply)) -> Result<Answer, Breach> {
        let now = self.now;
        self.note(|| format!("command {command:?}"));
        let Some(control) = &mut self.orchestrator.control else { return Ok(Answer::Died) };
        let mut decision = control.apply(now, command);
        let reply = decision.reply.take();
        let Some(effects) = self.remember(decision)? else { return Ok(Answer::Died) };
        let reply = reply.expect("every command has an answer");
        self.note(|| format!("  answer {reply:?}"));
        let_out(self, &reply);
        self.carry_out(effects)?;
        Ok(Answer::Reply(reply))
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
            let Some(control) = &mut self.orchestrator.control else { return Ok(()) };
            let decision = control.advance(self.now);
            let Some(effects) = self.remember(decision)? else { return Ok(()) };
            self.carry_out(effects)?;
            let Some(control) = &self.orchestrator.control else { return Ok(()) };
            match control.next_deadline() {
                Some(at) if at <= self.now => {}
                Some(at) => {
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

    /// Appends events to the journal, unless the orchestrator dies first. Tells the effects to carry out, unless it dies then.
    fn remember(&mut self, decision: Decision) -> Result<Option<Vec<Effect>>, Breach> {
        let something = !decision.events.is_empty();
        if something && self.random.chance(self.swarm.crash_before_sync) {
            self.note(|| format!("the orchestrator dies before {} events are synced", decision.events.len()));
            self.orchestrator_dies();
            return Ok(None);
        }
        for event in decision.events {
            self.note(|| format!("  event {} {:?}", event.number, event.body));
            let taken = self.auditor.take(&event).and_then(|()| self.witness.take(&event));
            self.orchestrator.journal.push(event);
            taken?;
        }
        let control = self.orchestrator.control.as_ref().expect("it has just decided");
        let problems = control.problems();
        rule(Rule::SelfAudit, problems.is_empty(), || problems.join("; "))?;
        if self.orchestrator.journal.len() as u64 >= self.orchestrator.audited + EVENTS_PER_AUDIT {
            self.look_at_the_whole()?;
        }
        if something && self.random.chance(self.swarm.crash_after_sync) {
            self.note(|| "the orchestrator dies before anything is let out".into());
            self.compare_with_replay()?;
            self.orchestrator_dies();
            return Ok(None);
        }
        Ok(Some(decision.effects))
    }

    /// Everything that is slow to check.
    pub(super) fn look_at_the_whole(&mut self) -> Result<(), Breach> {
        self.orchestrator.audited = self.orchestrator.journal.len() as u64;
        let Some(control) = &self.orchestrator.control else { return Ok(()) };
        control.audit().map_err(|breach| Breach { rule: Rule::SelfAudit, what: breach.what })?;
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
        same("ended jobs", live.ended_count() == replayed.ended_count())?;
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

    /// It dies: every connection with it, and all that was not synced.
    pub(super) fn orchestrator_dies(&mut self) {
        if self.orchestrator.control.take().is_none() {
            return;
        }
        self.orchestrator.sessions.clear();
        self.orchestrator.wakes_at = None;
        self.auditor.forget_silence();
        let open: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for connection in open {
            self.cut(connection);
        }
        let longest = self.random.pick(&[1, 20, 120]);
        let at = self.soon(Span::from_secs(longest));
        self.at(at, Happening::OrchestratorStarts);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) -> Result<(), Breach> {
        for effect in effects {
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
        }
        Ok(())
    }

    /// The welcomed connections of a node.
    pub(super) fn sessions_of(&self, node: NodeId) -> Vec<ConnectionId> {
        self.orchestrator.sessions.iter().filter(|(_, other)| **other == node).map(|(id, _)| *id).collect()
    }

    pub(super) fn orchestrator_notices(&mut self, connection: ConnectionId) -> Result<(), Breach> {
        if let Some(node) = self.orchestrator.sessions.remove(&connection) {
            self.command(Command::AgentDisconnected { node, session: SessionId(connection) })?;
        }
        Ok(())
    }

    pub(super) fn arrives_at_orchestrator(
        &mut self,
        connection: ConnectionId,
        message: FromAgent,
    ) -> Result<(), Breach> {
        if !self.gets_through(connection) || self.orchestrator.control.is_none() {
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
                let heard = self.command(Command::AgentHeard { node, session })?;
                // An echo renews the agent's lease: only what the control has heard may be echoed.
                if let Answer::Reply(Reply::Done) = heard {
                    self.send_down(connection, ToAgent::HeartbeatEcho { sent });
                }
            }
            FromAgent::ProbeAnswer if welcomed => {
                self.command(Command::AgentHeard { node, session })?;
            }
            FromAgent::Report(report) if welcomed => {
                let answer = self.command(Command::Report { node, session, report })?;
                if let Answer::Reply(Reply::Refused(refused)) = answer {
                    let stale = matches!(refused, Refused::StaleSession);
                    rule(Rule::AnswersKept, stale, || format!("a report of a live session is refused: {refused}"))?;
                }
            }
            FromAgent::OutputEnd { attempt, fence, lengths } if welcomed => {
                self.command(Command::OutputStored { attempt, fence, stored: lengths })?;
            }
            FromAgent::Offer(offer) if welcomed => {
                self.command(Command::OfferChanged { node, session, offer })?;
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

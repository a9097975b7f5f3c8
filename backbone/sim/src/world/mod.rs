//! The world: a queue of things that will happen, and everybody to whom they happen.
//!
//! One step of [`World::live`] takes the next thing out of the queue, moves the clock there, and lets it happen. Whatever
//! follows later is put into the queue; whatever breaks a rule ends the world with a [`Failure`].
//!
//! * `network.rs`: connections, delays, cuts, lost directions
//! * `orchestrator.rs`: the shell around `Control`: batches, sessions, crash and replay
//! * `log.rs`: its journal; `timeline.rs`: its clocks
//! * `agent.rs`: the shell around `Supervisor`: disk, connection, crash and recovery
//! * `executor.rs`: what jobs do
//! * `client.rs`: the workload, and what clients may expect of answers
//! * `member.rs`: joining, renewing, revoking
//! * `trouble.rs`: faults that come from outside
//! * `liar.rs`: agents that say what is not true
//! * `healing.rs`: the end, in which everything must come to rest

mod agent;
mod client;
mod executor;
mod healing;
mod liar;
mod log;
mod member;
mod network;
mod orchestrator;
mod timeline;
mod trouble;

use std::collections::{BTreeMap, VecDeque};

use modchain_core::Event;
use modchain_core::job::Progress;
use modchain_types::{AttemptId, IdentityId, InstanceId, NodeId, Report, ReportBody, Span, Timestamp};

use crate::auditor::{Auditor, Breach};
use crate::random::Random;
use crate::swarm::Swarm;
use crate::witness::Witness;
use crate::{EndingMet, Failure, Tally};

use agent::Agent;
use client::Clients;
use member::Members;
use network::{Connection, ConnectionId, FromAgent, ToAgent};
use orchestrator::Orchestrator;

/// Lines of the way to a failure that are kept.
const TRACE_LINES_MAX: usize = 120;

/// Longest line of it, in bytes; specifications are long and seldom the point.
const TRACE_LINE: usize = 400;

/// Sets the draws of forgetting apart from the others of a seed: worlds that forget nothing are what they were without it.
const FORGETS: u64 = 0xf0c6_e775_0bad_5eed;

/// That a world forgets ended jobs, in 100,000.
const FORGETFUL: u32 = 25_000;

/// Whether the way to a failure is written down; it costs more than all the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// No.
    Off,
    /// Yes.
    On,
}

/// Something that will happen.
#[derive(Debug)]
enum Happening {
    /// A message arrives at the orchestrator.
    ToOrchestrator(ConnectionId, FromAgent),
    /// A message arrives at the agent.
    ToAgent(ConnectionId, ToAgent),
    /// The orchestrator notices that a connection is dead.
    OrchestratorNotices(ConnectionId),
    /// The agent notices that a connection is dead.
    AgentNotices(ConnectionId),
    /// A connection that is lost in one direction dies.
    ConnectionDies(ConnectionId),
    /// An agent that has no connection tries to get one.
    Connect(NodeId, InstanceId),
    /// The next heartbeat of this connection is due.
    Heartbeat(ConnectionId),
    /// A deadline of the supervisor may have come.
    SupervisorWakes(NodeId, InstanceId),
    /// Something of this attempt's executor is due.
    Executor(NodeId, InstanceId, AttemptId),
    /// A stopped or crashed agent starts.
    AgentStarts(NodeId),
    /// There is room again on an agent's disk.
    AgentDiskFrees(NodeId, InstanceId),
    /// An agent that shuts down stops at last, whatever still runs.
    AgentStops(NodeId, InstanceId),
    /// A deadline of the control may have come.
    ControlWakes,
    /// What was decided is synced.
    Commit,
    /// There is room again on the orchestrator's disk.
    OrchestratorDiskFrees,
    /// An orchestrator that stood still goes on.
    OrchestratorGoesOn,
    /// The orchestrator starts after a crash.
    OrchestratorStarts,
    /// A client does something.
    ClientActs,
    /// A client's request arrives at the orchestrator.
    Request(u64),
    /// Somebody who is not in yet takes the next step.
    Joins(IdentityId),
    /// Somebody renews its certificate.
    Renews(IdentityId),
    /// Something befalls the world.
    Trouble,
}

/// What is counted on the way.
#[derive(Debug, Default)]
struct Counts {
    endings: BTreeMap<EndingMet, u64>,
    faults: BTreeMap<&'static str, u64>,
}

/// Everything there is.
#[derive(Debug)]
pub struct World {
    seed: u64,
    random: Random,
    /// When to forget ended jobs and how many, where this world does; drawn apart from everything else.
    forgets: Option<Random>,
    swarm: Swarm,
    now: Timestamp,
    queue: BTreeMap<(Timestamp, u64), Happening>,
    queued: u64,

    connections: BTreeMap<ConnectionId, Connection>,
    last_connection: u64,
    orchestrator: Orchestrator,
    agents: BTreeMap<NodeId, Agent>,
    clients: Clients,
    members: Members,

    auditor: Auditor,
    witness: Witness,
    counts: Counts,
    trace: Option<VecDeque<String>>,
}

impl World {
    /// A world at its beginning.
    pub fn new(seed: u64, trace: Trace) -> Self {
        Self::with(seed, trace, |_| {})
    }

    /// The world of a seed with other faults than it has drawn.
    pub fn with(seed: u64, trace: Trace, change: impl FnOnce(&mut Swarm)) -> Self {
        let mut random = Random::new(seed);
        let mut swarm = Swarm::draw(&mut random);
        change(&mut swarm);
        let mut forgets = Random::new(seed ^ FORGETS);
        let now = Timestamp(1_000_000);
        let mut world = Self {
            seed,
            random,
            forgets: forgets.chance(FORGETFUL).then_some(forgets),
            now,
            queue: BTreeMap::new(),
            queued: 0,
            connections: BTreeMap::new(),
            last_connection: 0,
            orchestrator: Orchestrator::new(now),
            agents: BTreeMap::new(),
            clients: Clients::default(),
            members: Members::default(),
            auditor: Auditor::default(),
            witness: Witness::default(),
            counts: Counts::default(),
            trace: (trace == Trace::On).then(VecDeque::new),
            swarm,
        };
        world.populate();
        world
    }

    /// Lives through the workload with its faults, and through the healing.
    pub fn live(mut self) -> Result<Self, Box<Failure>> {
        match self.workload().and_then(|()| self.healing()) {
            Ok(()) => Ok(self),
            Err(breach) => Err(Box::new(Failure {
                seed: self.seed,
                at: self.now,
                breach,
                trace: self.trace.unwrap_or_default().into(),
            })),
        }
    }

    /// What it went through.
    pub fn tally(&self) -> Tally {
        Tally {
            worlds: 1,
            edges: self.auditor.edges().clone(),
            endings: self.counts.endings.clone(),
            faults: self.counts.faults.clone(),
            forgotten: self.auditor.forgotten().0,
            made_again: self.auditor.forgotten().1,
            events: self.orchestrator.journal().len() as u64,
            elapsed: self.now.since(Timestamp::ZERO),
        }
    }

    /// Everything that was remembered.
    pub fn into_journal(self) -> Vec<Event> {
        self.orchestrator.into_journal()
    }

    /// Puts everybody into the world.
    fn populate(&mut self) {
        self.note(|| "a world begins".into());
        self.populate_agents();
        self.populate_clients();
        self.populate_members();
        self.at(self.now, Happening::OrchestratorStarts);
        let soon = self.soon(self.swarm.trouble_every);
        self.at(soon, Happening::Trouble);
    }

    fn workload(&mut self) -> Result<(), Breach> {
        let steps = self.swarm.steps;
        while self.clients.steps < steps {
            self.next()?;
        }
        Ok(())
    }

    /// Lets the next thing happen.
    fn next(&mut self) -> Result<(), Breach> {
        let ((at, _), happening) = self.queue.pop_first().expect("the control and the clients always have a next step");
        self.now = at;
        self.happen(happening)
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Breach> {
        if let Some(until) = self.stopped_until(&happening).filter(|until| self.now <= *until) {
            // Whoever is stopped meets everything afterwards, in the same order.
            self.at(until + Span(1), happening);
            return Ok(());
        }
        match happening {
            Happening::ToOrchestrator(connection, message) => self.arrives_at_orchestrator(connection, message),
            Happening::ToAgent(connection, message) => self.arrives_at_agent(connection, message),
            Happening::OrchestratorNotices(connection) => self.orchestrator_notices(connection),
            Happening::AgentNotices(connection) => self.agent_notices(connection),
            Happening::Connect(node, instance) => self.connect(node, instance),
            Happening::Heartbeat(connection) => self.heartbeat(connection),
            Happening::SupervisorWakes(node, instance) => self.supervisor_wakes(node, instance),
            Happening::Executor(node, instance, attempt) => self.executor_due(node, instance, attempt),
            Happening::AgentStarts(node) => self.agent_starts(node),
            Happening::AgentStops(node, instance) => self.agent_stops(node, instance),
            Happening::ControlWakes => self.control_wakes(),
            Happening::Commit => self.commit_is_due(),
            Happening::OrchestratorDiskFrees => {
                self.orchestrator_looks_at_its_disk();
                Ok(())
            }
            Happening::OrchestratorGoesOn => {
                self.orchestrator_goes_on();
                Ok(())
            }
            Happening::ConnectionDies(connection) => {
                self.cut(connection);
                Ok(())
            }
            Happening::AgentDiskFrees(node, instance) => self.agent_disk_frees(node, instance),
            Happening::OrchestratorStarts => self.orchestrator_starts(),
            Happening::ClientActs => self.client_acts(),
            Happening::Request(request) => self.request_arrives(request),
            Happening::Joins(identity) => self.joins(identity),
            Happening::Renews(identity) => self.renews(identity),
            Happening::Trouble => self.trouble(),
        }
    }

    /// Until when whoever this happens to is stopped, if it can be.
    fn stopped_until(&self, happening: &Happening) -> Option<Timestamp> {
        let of = |node: &NodeId| self.agents.get(node).map(|agent| agent.stopped_until);
        match happening {
            Happening::ToOrchestrator(..)
            | Happening::OrchestratorNotices(_)
            | Happening::ControlWakes
            | Happening::Commit
            | Happening::Request(_)
            | Happening::Joins(_)
            | Happening::Renews(_) => Some(self.orchestrator.stopped_until),
            Happening::ToAgent(connection, _)
            | Happening::AgentNotices(connection)
            | Happening::Heartbeat(connection) => of(&self.connections.get(connection)?.node),
            Happening::Connect(node, _)
            | Happening::SupervisorWakes(node, _)
            | Happening::Executor(node, ..)
            | Happening::AgentDiskFrees(node, _)
            | Happening::AgentStops(node, _) => of(node),
            Happening::AgentStarts(_)
            | Happening::ConnectionDies(_)
            | Happening::OrchestratorStarts
            | Happening::OrchestratorGoesOn
            | Happening::OrchestratorDiskFrees
            | Happening::ClientActs
            | Happening::Trouble => None,
        }
    }

    /// Plans something. Things of one moment happen in the order in which they were planned.
    fn at(&mut self, at: Timestamp, happening: Happening) {
        self.queued += 1;
        self.queue.insert((at, self.queued), happening);
    }

    /// A moment within this span from now.
    fn soon(&mut self, within: Span) -> Timestamp {
        self.now + Span(self.random.below(within.0 + 1))
    }

    /// A fault has befallen the world.
    fn fault(&mut self, what: &'static str) {
        *self.counts.faults.entry(what).or_default() += 1;
    }

    /// An agent says how the attempt ended that is placed on it.
    fn count_ending(&mut self, node: NodeId, report: &Report) {
        let ReportBody::Ended { ending, .. } = &report.body else { return };
        let Some(control) = &self.orchestrator.control else { return };
        let Some(job) = control.job(report.attempt.job) else { return };
        let fresh = job
            .placement_of(report.attempt, report.fence)
            .is_some_and(|placement| placement.node == node && !matches!(placement.progress, Progress::Done(_)));
        if fresh {
            let met = EndingMet::of(ending, job.stop.as_ref().map(|wish| &wish.cause));
            *self.counts.endings.entry(met).or_default() += 1;
        }
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            if trace.len() == TRACE_LINES_MAX {
                trace.pop_front();
            }
            let line = modchain_types::Text::<TRACE_LINE>::cut(line());
            trace.push_back(format!("{:>12.6} s  {line}", self.now.0 as f64 / 1e6));
        }
    }
}

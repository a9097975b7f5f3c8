//! The world: a queue of things that will happen, and everybody to whom they happen.
//!
//! One step of [`World::live`] takes the next thing out of the queue, moves the clock there, and lets it happen. Whatever
//! follows later is put into the queue; whatever breaks a rule ends the world with a [`Failure`].
//!
//! * `network.rs`: connections, delays, cuts
//! * `orchestrator.rs`: the shell around `Control`: journal, sessions, crash and replay
//! * `agent.rs`: the shell around `Supervisor`: disk, connection, crash and recovery
//! * `executor.rs`: what jobs do
//! * `client.rs`: the workload, and what clients may expect of answers
//! * `member.rs`: joining, renewing, revoking
//! * `trouble.rs`: faults that come from outside
//! * `healing.rs`: the end, in which everything must come to rest

mod agent;
mod client;
mod executor;
mod healing;
mod member;
mod network;
mod orchestrator;
mod trouble;

use std::collections::{BTreeMap, VecDeque};

use modchain_core::Event;
use modchain_types::{AttemptId, IdentityId, InstanceId, NodeId, Timestamp};

use crate::auditor::{Auditor, Breach};
use crate::random::Random;
use crate::swarm::Swarm;
use crate::witness::Witness;
use crate::{Failure, Tally};

use agent::Agent;
use client::Clients;
use member::Members;
use network::{Connection, ConnectionId, FromAgent, ToAgent};
use orchestrator::Orchestrator;

/// Lines of the way to a failure that are kept.
const TRACE_LINES_MAX: usize = 120;

/// Longest line of it, in bytes; specifications are long and seldom the point.
const TRACE_LINE: usize = 400;

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
    /// An agent that shuts down stops at last, whatever still runs.
    AgentStops(NodeId, InstanceId),
    /// A deadline of the control may have come.
    ControlWakes,
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

/// Everything there is.
#[derive(Debug)]
pub struct World {
    seed: u64,
    random: Random,
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
    trace: Option<VecDeque<String>>,
}

impl World {
    /// A world at its beginning.
    pub fn new(seed: u64, trace: Trace) -> Self {
        let mut random = Random::new(seed);
        let swarm = Swarm::draw(&mut random);
        let mut world = Self {
            seed,
            random,
            now: Timestamp(1_000_000),
            queue: BTreeMap::new(),
            queued: 0,
            connections: BTreeMap::new(),
            last_connection: 0,
            orchestrator: Orchestrator::new(),
            agents: BTreeMap::new(),
            clients: Clients::default(),
            members: Members::default(),
            auditor: Auditor::default(),
            witness: Witness::default(),
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
            edges: self.auditor.edges().clone(),
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
            Happening::OrchestratorStarts => self.orchestrator_starts(),
            Happening::ClientActs => self.client_acts(),
            Happening::Request(request) => self.request_arrives(request),
            Happening::Joins(identity) => self.joins(identity),
            Happening::Renews(identity) => self.renews(identity),
            Happening::Trouble => self.trouble(),
        }
    }

    /// Plans something. Things of one moment happen in the order in which they were planned.
    fn at(&mut self, at: Timestamp, happening: Happening) {
        self.queued += 1;
        self.queue.insert((at, self.queued), happening);
    }

    /// A moment within this span from now.
    fn soon(&mut self, within: modchain_types::Span) -> Timestamp {
        self.now + modchain_types::Span(self.random.below(within.0 + 1))
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

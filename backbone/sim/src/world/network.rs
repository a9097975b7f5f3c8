//! Connections. Within one that lives, nothing is lost and each lane keeps its order, as QUIC promises for streams; when it
//! is cut, everything that is on its way is gone, and each side notices in its own time.

use modchain_core::{AgentArrival, NodeMessage};
use modchain_types::{AttemptId, Fence, NodeId, Offer, OutputLengths, Report, Span, Timestamp};

use super::{Happening, World};

/// Longest time until both sides notice that nothing arrives in one direction.
const IDLE_MAX: Span = Span::from_secs(30);

/// One connection of one agent; also the number of its session.
pub(super) type ConnectionId = u64;

/// From an agent to the orchestrator.
#[derive(Debug)]
pub(super) enum FromAgent {
    Hello(Box<AgentArrival>),
    Heartbeat { sent: Timestamp },
    Report(Report),
    OutputEnd { attempt: AttemptId, fence: Fence, lengths: OutputLengths },
    Offer(Box<Offer>),
    ProbeAnswer,
}

/// From the orchestrator to an agent.
#[derive(Debug)]
pub(super) enum ToAgent {
    Welcome {
        lease: Span,
    },
    /// Not admitted, or replaced: the connection is closed.
    Close,
    Node(NodeMessage),
    HeartbeatEcho {
        sent: Timestamp,
    },
}

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the agent to the orchestrator.
    Up,
    /// From the orchestrator to the agent.
    Down,
}

/// Streams of one connection that do not wait for each other.
#[derive(Debug, Clone, Copy)]
enum Lane {
    Control,
    Heartbeats,
    Output,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) node: NodeId,
    life: Life,
    /// When the last message of each lane arrives: up, then down.
    arrivals: [[Timestamp; 3]; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Whole,
    /// Nothing arrives any more in this direction; neither side has noticed yet.
    Lost(Direction),
    /// What is on its way is lost.
    Cut,
}

impl Connection {
    pub(super) fn new(node: NodeId) -> Self {
        Self { node, life: Life::Whole, arrivals: [[Timestamp::ZERO; 3]; 2] }
    }
}

impl World {
    pub(super) fn send_up(&mut self, connection: ConnectionId, message: FromAgent) {
        let lane = match message {
            FromAgent::Hello(_) | FromAgent::Report(_) | FromAgent::Offer(_) | FromAgent::ProbeAnswer => Lane::Control,
            FromAgent::Heartbeat { .. } => Lane::Heartbeats,
            FromAgent::OutputEnd { .. } => Lane::Output,
        };
        if let FromAgent::Report(report) = &message
            && self.random.chance(self.swarm.report_twice)
            && let Some(at) = self.arrival(connection, Direction::Up, lane)
        {
            self.fault("report sent twice");
            self.at(at, Happening::ToOrchestrator(connection, FromAgent::Report(report.clone())));
        }
        if let Some(at) = self.arrival(connection, Direction::Up, lane) {
            self.at(at, Happening::ToOrchestrator(connection, message));
        }
    }

    pub(super) fn send_down(&mut self, connection: ConnectionId, message: ToAgent) {
        let lane = match message {
            ToAgent::Welcome { .. } | ToAgent::Close | ToAgent::Node(_) => Lane::Control,
            ToAgent::HeartbeatEcho { .. } => Lane::Heartbeats,
        };
        if let Some(at) = self.arrival(connection, Direction::Down, lane) {
            self.at(at, Happening::ToAgent(connection, message));
        }
    }

    /// Whether a message gets through now; by chance the connection is cut just then.
    pub(super) fn gets_through(&mut self, connection: ConnectionId, direction: Direction) -> bool {
        if self.random.chance(self.swarm.cut_at_message) {
            self.fault("connection cut at a message");
            self.cut(connection);
        }
        self.connections.get(&connection).is_some_and(|connection| match connection.life {
            Life::Whole => true,
            Life::Lost(lost) => lost != direction,
            Life::Cut => false,
        })
    }

    /// From now on nothing arrives in one direction, until both sides notice within half a minute.
    pub(super) fn loses_a_direction(&mut self, id: ConnectionId) {
        let direction = self.random.pick(&[Direction::Up, Direction::Down]);
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| connection.life == Life::Whole) else {
            return;
        };
        connection.life = Life::Lost(direction);
        self.note(|| format!("connection {id} loses what goes {direction:?}"));
        let at = self.soon(IDLE_MAX);
        self.at(at, Happening::ConnectionDies(id));
    }

    /// Cuts a connection, if it lives.
    pub(super) fn cut(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| connection.life != Life::Cut) else {
            return;
        };
        connection.life = Life::Cut;
        self.note(|| format!("connection {id} is cut"));
        let agent = self.soon(self.swarm.notice_max);
        self.at(agent, Happening::AgentNotices(id));
        let orchestrator = self.soon(self.swarm.notice_max);
        self.at(orchestrator, Happening::OrchestratorNotices(id));
    }

    /// When a message that is sent now will arrive; `None` on a connection that is cut.
    fn arrival(&mut self, id: ConnectionId, direction: Direction, lane: Lane) -> Option<Timestamp> {
        let at = self.soon(self.swarm.delay_max);
        let connection = self.connections.get_mut(&id).filter(|connection| connection.life != Life::Cut)?;
        let last = &mut connection.arrivals[direction as usize][lane as usize];
        *last = (*last).max(at);
        Some(*last)
    }
}

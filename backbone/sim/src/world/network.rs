//! Connections. Within one that lives, nothing is lost and each lane keeps its order, as QUIC promises for streams; when it
//! is cut, everything that is on its way is gone, and each side notices in its own time.

use modchain_core::{AgentArrival, NodeMessage};
use modchain_types::{AttemptId, Fence, NodeId, Offer, OutputLengths, Report, Span, Timestamp};

use super::{Happening, World};

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
        if let Some(at) = self.arrival(connection, 0, lane) {
            self.at(at, Happening::ToOrchestrator(connection, message));
        }
    }

    pub(super) fn send_down(&mut self, connection: ConnectionId, message: ToAgent) {
        let lane = match message {
            ToAgent::Welcome { .. } | ToAgent::Close | ToAgent::Node(_) => Lane::Control,
            ToAgent::HeartbeatEcho { .. } => Lane::Heartbeats,
        };
        if let Some(at) = self.arrival(connection, 1, lane) {
            self.at(at, Happening::ToAgent(connection, message));
        }
    }

    /// Whether a message gets through now; by chance the connection is cut just then.
    pub(super) fn gets_through(&mut self, connection: ConnectionId) -> bool {
        if self.random.chance(self.swarm.cut_at_message) {
            self.cut(connection);
        }
        self.connections.get(&connection).is_some_and(|connection| connection.life == Life::Whole)
    }

    /// Cuts a connection, if it lives.
    pub(super) fn cut(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| connection.life == Life::Whole) else {
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
    fn arrival(&mut self, id: ConnectionId, direction: usize, lane: Lane) -> Option<Timestamp> {
        let at = self.soon(self.swarm.delay_max);
        let connection = self.connections.get_mut(&id).filter(|connection| connection.life == Life::Whole)?;
        let last = &mut connection.arrivals[direction][lane as usize];
        *last = (*last).max(at);
        Some(*last)
    }
}

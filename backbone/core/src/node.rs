//! A node: what it offers, what is placed on it, and whether it is heard.
//!
//! ```text
//!          hello            15 s of silence           60 s of silence
//!  (new) --------> ready ---------------------> suspect -------------> lost
//!                    ^------- heard again --------+                     |
//!                    ^------------------- hello ------------------------+
//! ```
//!
//! A node that is heard and may take no new jobs is shown as `draining`, `cordoned` or `paused` instead of `ready`.

use std::collections::BTreeSet;

use modchain_types::{
    AccountId, InstanceId, JobId, Name, NodeId, NodeState, NodeWish, Offer, Reservation, Span, Timestamp,
};

use crate::command::SessionId;

/// Silence after which a node is suspect and its jobs unreachable: three heartbeats.
pub const SUSPECT_AFTER: Span = Span::from_secs(15);
/// Silence after which a node is lost.
pub const LOST_AFTER: Span = Span::from_secs(60);
/// How long a node that refused or failed an attempt gets no new one.
pub const COOL_DOWN: Span = Span::from_secs(5);

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// By its certificate.
    pub id: NodeId,
    /// Unique.
    pub name: Name,
    /// Whose earnings.
    pub account: AccountId,
    /// What it offers; `None` until it has connected once.
    pub offer: Option<Box<Offer>>,
    /// Jobs that are placed on it.
    pub placed: BTreeSet<JobId>,
    /// What they hold, all together.
    pub taken: Taken,
    /// Whether it may take new jobs, by the wish of its owner's account or an operator.
    pub standing: Standing,
    /// Whether the journal says that it is lost.
    pub lost: bool,
    /// Whether its identity was revoked: it never comes back.
    pub revoked: bool,
    /// What is known of its connection. Not durable.
    pub presence: Presence,
}

/// Whether a node may take new jobs. Durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may.
    Open,
    /// It may not; what runs goes on.
    Cordoned,
    /// It may not, and what still runs then moves; `None` is never.
    Draining(Option<Timestamp>),
}

impl Standing {
    /// What becomes of a node by this wish at this moment.
    pub fn of(wish: NodeWish, at: Timestamp) -> Self {
        match wish {
            NodeWish::Open => Self::Open,
            NodeWish::Cordon => Self::Cordoned,
            NodeWish::Drain { within } => Self::Draining(within.map(|within| at + within)),
        }
    }

    /// The state of a node that is heard and has this offer.
    pub fn state(self, offer: Option<&Offer>) -> NodeState {
        match self {
            Self::Draining(_) => NodeState::Draining,
            Self::Cordoned => NodeState::Cordoned,
            Self::Open if offer.is_some_and(|offer| offer.paused) => NodeState::Paused,
            Self::Open => NodeState::Ready,
        }
    }
}

/// What is known of a node's connection; forgotten when the engine stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Its connection, if there is one.
    pub session: Option<(SessionId, InstanceId)>,
    /// When it was last heard; after a start of the engine, that start.
    pub heard: Timestamp,
    /// When this connection began.
    pub connected_at: Timestamp,
    /// How often it has connected.
    pub connections: u64,
    /// Whether a deadline watches its silence.
    pub watched: bool,
    /// When the connection was probed because another instance was knocking.
    pub probed: Option<Timestamp>,
    /// No new attempts before this moment.
    pub cool_until: Timestamp,
    /// The state that was told last.
    pub told: NodeState,
}

impl Node {
    /// A node that never connected.
    pub fn new(id: NodeId, name: Name, account: AccountId, now: Timestamp) -> Self {
        Self {
            id,
            name,
            account,
            offer: None,
            placed: BTreeSet::new(),
            taken: Taken::default(),
            standing: Standing::Open,
            lost: true,
            revoked: false,
            presence: Presence {
                session: None,
                heard: now,
                connected_at: now,
                connections: 0,
                watched: false,
                probed: None,
                cool_until: Timestamp::ZERO,
                told: NodeState::Lost,
            },
        }
    }

    /// Its session, if it is connected.
    pub fn session(&self) -> Option<SessionId> {
        self.presence.session.map(|(session, _)| session)
    }

    /// How long nothing was heard of it.
    pub fn silence(&self, now: Timestamp) -> Span {
        now.since(self.presence.heard)
    }

    /// Its state as people see it.
    pub fn state(&self, now: Timestamp) -> NodeState {
        if self.lost {
            NodeState::Lost
        } else if self.silence(now) >= SUSPECT_AFTER {
            NodeState::Suspect
        } else {
            self.heard_state(None)
        }
    }

    /// Its state as long as it is heard, with this offer or the one that is known.
    pub fn heard_state(&self, offer: Option<&Offer>) -> NodeState {
        self.standing.state(offer.or(self.offer.as_deref()))
    }
}

/// What the attempts on a node hold together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Taken {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of disk.
    pub disk_bytes: u64,
    /// Attempts.
    pub slots: u32,
    /// GPUs by uuid.
    pub gpus: BTreeSet<String>,
}

impl Taken {
    /// Adds one reservation.
    pub fn add(&mut self, reservation: &Reservation) {
        self.cpu_milli += u64::from(reservation.cpu_milli);
        self.memory_bytes = self.memory_bytes.saturating_add(reservation.memory_bytes);
        self.disk_bytes = self.disk_bytes.saturating_add(reservation.disk_bytes);
        self.slots += 1;
        self.gpus.extend(reservation.gpus.iter().map(|(uuid, _)| uuid.as_str().to_owned()));
    }

    /// Takes one reservation away again.
    pub fn remove(&mut self, reservation: &Reservation) {
        self.cpu_milli = self.cpu_milli.saturating_sub(u64::from(reservation.cpu_milli));
        self.memory_bytes = self.memory_bytes.saturating_sub(reservation.memory_bytes);
        self.disk_bytes = self.disk_bytes.saturating_sub(reservation.disk_bytes);
        self.slots = self.slots.saturating_sub(1);
        for (uuid, _) in reservation.gpus.iter() {
            self.gpus.remove(uuid.as_str());
        }
    }
}

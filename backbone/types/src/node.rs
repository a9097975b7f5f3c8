//! Nodes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bounded::Text;
use crate::resources::Capabilities;
use crate::tariff::Tariff;
use crate::time::Span;

/// The state of a node as everybody sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodeState {
    /// Connected and taking jobs.
    Ready,
    /// Silent for 15 s: its jobs are unreachable.
    Suspect,
    /// Silent for 60 s, or never seen since the start.
    Lost,
    /// Takes no new jobs, by the operator's wish.
    Cordoned,
    /// As cordoned, and its jobs move at a deadline.
    Draining,
    /// Takes no new jobs, by its owner's wish.
    Paused,
}

impl NodeState {
    /// The word used in screens, filters and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Suspect => "suspect",
            Self::Lost => "lost",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
            Self::Paused => "paused",
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What a node offers: what it can do, and for how much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// What it can do.
    pub capabilities: Capabilities,
    /// For how much.
    pub tariff: Tariff,
    /// Version of the agent program.
    pub agent_version: Text<64>,
    /// Whether the owner wants no new jobs for now.
    pub paused: bool,
}

/// What is wanted of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeWish {
    /// Take new jobs again.
    Open,
    /// Take no new jobs; what runs goes on.
    Cordon,
    /// Take no new jobs, and what still runs after `within` moves to other nodes, unbilled; `None` waits for ever.
    Drain {
        /// How long jobs may go on.
        within: Option<Span>,
    },
}

//! Nodes.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use crate::bounded::{List, Text};
use crate::image::{IMAGE_MARKS_MAX, ImageMark};
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
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Read")]
pub struct Offer {
    /// What it can do.
    pub capabilities: Capabilities,
    /// For how much.
    pub tariff: Tariff,
    /// Version of the agent program.
    pub agent_version: Text<64>,
    /// Whether the owner wants no new jobs for now.
    pub paused: bool,
    /// The container images that are there, as far as it tells them.
    pub images: List<ImageMark, IMAGE_MARKS_MAX>,
}

impl Offer {
    /// Whether the image is among those that it tells.
    pub fn has_image(&self, image: ImageMark) -> bool {
        self.images.contains(&image)
    }
}

/// The end of an offer's bytes. The codec has no optional fields; what joined the offer later is in variants that were
/// appended here, so that the first two are the bytes of the flag that they once were.
#[derive(Serialize, Deserialize)]
enum End {
    Open,
    Paused,
    OpenWith(List<ImageMark, IMAGE_MARKS_MAX>),
    PausedWith(List<ImageMark, IMAGE_MARKS_MAX>),
}

/// An offer as it is read.
#[derive(Deserialize)]
struct Read {
    capabilities: Capabilities,
    tariff: Tariff,
    agent_version: Text<64>,
    end: End,
}

/// An offer as it is written: the same fields.
#[derive(Serialize)]
struct Written<'a> {
    capabilities: &'a Capabilities,
    tariff: &'a Tariff,
    agent_version: &'a Text<64>,
    end: End,
}

impl From<Read> for Offer {
    fn from(read: Read) -> Self {
        let Read { capabilities, tariff, agent_version, end } = read;
        let (paused, images) = match end {
            End::Open => (false, List::default()),
            End::Paused => (true, List::default()),
            End::OpenWith(images) => (false, images),
            End::PausedWith(images) => (true, images),
        };
        Self { capabilities, tariff, agent_version, paused, images }
    }
}

impl Serialize for Offer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { capabilities, tariff, agent_version, paused, images } = self;
        let end = match (paused, images.is_empty()) {
            (false, true) => End::Open,
            (true, true) => End::Paused,
            (false, false) => End::OpenWith(images.clone()),
            (true, false) => End::PausedWith(images.clone()),
        };
        Written { capabilities, tariff, agent_version, end }.serialize(serializer)
    }
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

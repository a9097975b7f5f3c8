//! What goes into the engine, and what comes out of it for others.

use modchain_types::{
    Adapter, Assignment, AttemptId, Ending, Fence, ImagePin, InventoryItem, ItemState, JournalId, Offer, OutputLengths,
    Report, Span, StopCause, Text, Timestamp, Usage, Verdict, WallTime,
};
use tokio::sync::{mpsc, oneshot};

use super::stdin::StdinFeed;
use crate::outbox::FenceSeen;
use crate::spool::Spool;

/// What the engine is told.
#[derive(Debug)]
pub enum EngineInput {
    /// The session is about to say hello.
    Hello(oneshot::Sender<HelloFacts>),
    /// The orchestrator said welcome.
    Connected {
        /// The journal behind it.
        journal: JournalId,
        /// As in the welcome.
        lease: Span,
        /// When the hello was sent.
        sent: Timestamp,
        /// The way to the session.
        line: mpsc::Sender<ToSession>,
    },
    /// The connection is gone.
    Disconnected,
    /// A heartbeat was answered.
    HeartbeatAnswered {
        /// When it was sent.
        sent: Timestamp,
    },
    /// Verdicts on the inventory.
    Reconcile(Vec<(AttemptId, Fence, Verdict)>),
    /// Run this.
    Assign(Box<Assignment>),
    /// End this.
    Stop {
        /// Which attempt.
        attempt: AttemptId,
        /// Under which fence.
        fence: Fence,
        /// Between asking and killing.
        grace: Span,
        /// Why.
        cause: StopCause,
    },
    /// The orchestrator remembers this attempt's end.
    Ack {
        /// Which attempt.
        attempt: AttemptId,
        /// Under which fence.
        fence: Fence,
    },
    /// A runner: how far the preparation is.
    Preparing {
        /// Which attempt.
        attempt: AttemptId,
        /// For people.
        message: Text<256>,
    },
    /// A runner: what the job's image name means here.
    Pinned {
        /// Which attempt.
        attempt: AttemptId,
        /// The image.
        image: ImagePin,
    },
    /// The node offers something else from now on.
    OfferChanged(Box<Offer>),
    /// A runner: the job's own code runs.
    Started {
        /// Which attempt.
        attempt: AttemptId,
    },
    /// A runner: it is over and all of its output is in the spool.
    Ended {
        /// Which attempt.
        attempt: AttemptId,
        /// How.
        ending: Ending,
        /// What it used.
        usage: Usage,
        /// How much it printed.
        output: OutputLengths,
        /// The spool's file, where only the record of the result makes it durable.
        short_output: Vec<u8>,
    },
    /// Nothing is left on the machine of an attempt whose result is on disk.
    Cleared {
        /// Which attempt.
        attempt: AttemptId,
    },
    /// How is it? The answer comes from the engine's own loop, so it tells too that the loop goes round.
    Look(oneshot::Sender<Sight>),
    /// The owner wants nothing to run here any more: what runs is ended, and goes on elsewhere.
    Evict,
    /// The agent is to stop.
    ShutDown,
}

impl EngineInput {
    /// Whether what follows from it may wait for what else is there, to share its sync. Whatever asks how things stand, or
    /// changes who is told, comes after all that was decided before it is done.
    pub(super) fn gathers(&self) -> bool {
        match self {
            Self::Assign(_)
            | Self::Stop { .. }
            | Self::Ack { .. }
            | Self::HeartbeatAnswered { .. }
            | Self::Preparing { .. }
            | Self::Pinned { .. }
            | Self::Started { .. }
            | Self::Ended { .. } => true,
            Self::Hello(_)
            | Self::Connected { .. }
            | Self::Disconnected
            | Self::Reconcile(_)
            | Self::OfferChanged(_)
            | Self::Cleared { .. }
            | Self::Look(_)
            | Self::Evict
            | Self::ShutDown => false,
        }
    }
}

/// How the engine is, for its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// Since when there has been a connection that was welcomed; `None` while there is none.
    pub connected_at: Option<WallTime>,
    /// Every attempt held, the results that wait to be acknowledged included.
    pub attempts: Vec<AttemptSight>,
    /// Whether the agent stops.
    pub stopping: bool,
}

impl Sight {
    /// Attempts of which something may run.
    pub fn live(&self) -> usize {
        self.attempts.iter().filter(|attempt| attempt.state != ItemState::Ended).count()
    }

    /// Bytes of output kept on this machine's disk.
    pub fn spool_bytes(&self) -> u64 {
        self.attempts.iter().map(|attempt| attempt.spool_bytes).sum()
    }
}

/// One attempt, for the owner of the machine that it runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptSight {
    /// Which one.
    pub attempt: AttemptId,
    /// Under which fence.
    pub fence: Fence,
    /// What its job is called, and its kind; `None` for what an earlier run of the agent left.
    pub job: Option<(Text<64>, Adapter)>,
    /// How far it is.
    pub state: ItemState,
    /// Bytes of its output on this machine's disk.
    pub spool_bytes: u64,
}

/// What the session is told.
#[derive(Debug)]
pub enum ToSession {
    /// Say what the node offers now.
    Offer(Box<Offer>),
    /// Send this.
    Report(Box<Report>),
    /// Serve the streams of these attempts from now on.
    Serve(Vec<Serving>),
    /// This attempt is settled: its stream is not needed any more.
    Forget(AttemptId),
}

/// What the session needs to serve the stream of one attempt.
#[derive(Debug, Clone)]
pub struct Serving {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Under which fence.
    pub fence: Fence,
    /// Its output.
    pub spool: Spool,
    /// Its input; `None` if it reads none.
    pub stdin: Option<StdinFeed>,
}

/// What the hello says about attempts.
#[derive(Debug, Clone)]
pub struct HelloFacts {
    /// Every attempt held.
    pub inventory: Vec<InventoryItem>,
    /// The highest fence seen.
    pub fence: Option<FenceSeen>,
    /// What the node offers.
    pub offer: Offer,
}

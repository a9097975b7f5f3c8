//! Every timer there is. A deadline is armed when something begins to wait and checked again when it comes: one whose reason
//! has passed does nothing. So disarming only saves memory, and only those are disarmed that can be far away.

use std::collections::BTreeSet;

use modchain_types::{AttemptId, CertificateSerial, Fence, IdentityId, JobId, NodeId, Span, Timestamp, TokenId};

/// How long a connected node may take from the assignment to accepting it. Answering takes no work, so a silence of this
/// length on a live connection is a broken agent.
pub const ACCEPT_WITHIN: Span = Span::from_secs(30);
/// How long preparing may take: pulls of large images and models are the slowest.
pub const PREPARE_WITHIN: Span = Span::from_secs(2 * 3600);
/// How much longer than its run limit an attempt may take to be reported: the agent's grace before it kills, and the way here.
pub const OVERDUE_MARGIN: Span = Span::from_secs(60);
/// How much longer than its grace time a stop may take to be confirmed.
pub const STOP_MARGIN: Span = Span::from_secs(60);
/// How long a result waits for its output when nothing more comes.
pub const OUTPUT_WITHIN: Span = Span::from_secs(60);
/// How long it waits in all, however slowly more comes: a node must not hold a client's money for ever, a byte at a time. The most
/// that is kept of a job, 64 MiB, comes within it over a line of 20 KB a second.
pub const OUTPUT_AT_MOST: Span = Span::from_secs(3600);
/// How much longer than the lease of a `stop` job the orchestrator waits before it places it again: clocks drift.
pub const LEASE_MARGIN: Span = Span::from_secs(5);
/// How long after its start the engine declares no node lost: they need time to come back.
pub const RECOVERY_WINDOW: Span = Span::from_secs(60);
/// How long a probed connection has to answer before it counts as dead.
pub const PROBE_WITHIN: Span = Span::from_secs(1);
/// After this long a probe says nothing any more.
pub const PROBE_FORGOTTEN: Span = Span::from_secs(30);

/// What a timer is about; what its coming means stands at each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deadline {
    /// The job found no node in time: it expires.
    StartBy(JobId),
    /// The node did not accept the attempt: it is at fault.
    Accept(AttemptId, Fence),
    /// The node did not finish preparing: it is at fault.
    Prepare(AttemptId, Fence),
    /// The attempt should have ended long ago: its node is at fault.
    Overdue(AttemptId, Fence),
    /// The stop was not confirmed: the job is cancelled, and nothing is paid.
    StopConfirm(AttemptId, Fence),
    /// The output did not come: the job is settled with what there is.
    Output(AttemptId, Fence),
    /// The attempt's node may have been silent for too long.
    AttemptLost(AttemptId, Fence),
    /// The node may be suspect.
    NodeSuspect(NodeId),
    /// The node may be lost.
    NodeLost(NodeId),
    /// The node may take attempts again.
    CoolDown(NodeId),
    /// The token's time is over.
    TokenExpires(TokenId),
    /// Whoever redeemed the token has had its time to ask for a lost answer.
    TokenBound(TokenId),
    /// A newer certificate has been in use for long enough: this one is no longer accepted.
    CertificateRetires(IdentityId, CertificateSerial),
    /// What still runs on a node that is being drained moves.
    Drained(NodeId),
    /// The identity was revoked and may still have work: it moves or is cancelled.
    RevokedWork(IdentityId),
}

impl Deadline {
    /// Whether its coming can end a job or an attempt.
    pub(crate) fn ends_work(self) -> bool {
        match self {
            Self::StartBy(..)
            | Self::Accept(..)
            | Self::Prepare(..)
            | Self::Overdue(..)
            | Self::StopConfirm(..)
            | Self::Output(..)
            | Self::AttemptLost(..)
            | Self::Drained(..)
            | Self::RevokedWork(..) => true,
            Self::NodeSuspect(..)
            | Self::NodeLost(..)
            | Self::CoolDown(..)
            | Self::TokenExpires(..)
            | Self::TokenBound(..)
            | Self::CertificateRetires(..) => false,
        }
    }
}

/// Armed deadlines in order of time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Deadlines(BTreeSet<(Timestamp, Deadline)>);

impl Deadlines {
    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Timestamp, Deadline)> {
        self.0.iter().copied()
    }

    /// Those of a snapshot.
    pub(crate) fn restore(armed: Vec<(Timestamp, Deadline)>) -> Self {
        Self(armed.into_iter().collect())
    }

    /// Arms one.
    pub fn arm(&mut self, at: Timestamp, deadline: Deadline) {
        self.0.insert((at, deadline));
    }

    /// Forgets one, if it is armed for just this moment.
    pub fn disarm(&mut self, at: Timestamp, deadline: Deadline) {
        self.0.remove(&(at, deadline));
    }

    /// The earliest.
    pub fn next(&self) -> Option<Timestamp> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes the earliest out if it has come.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<Deadline> {
        if self.next()? > now {
            return None;
        }
        self.0.pop_first().map(|(_, deadline)| deadline)
    }
}

//! How long attempts may go on without the orchestrator.
//!
//! Counted from the *sending* of the last heartbeat that was answered: the orchestrator has heard of it later than that, so
//! what it waits for, counted from its own last sign of life, is never shorter than what the agent allows itself.

use modchain_types::{Span, Timestamp};

/// The lease of every attempt with `on_disconnect = stop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    length: Span,
    /// When the last answered heartbeat was sent, by the agent's own clock.
    renewed: Timestamp,
}

impl Lease {
    /// Begins with a welcome whose hello was sent at `sent`.
    pub(super) fn new(length: Span, sent: Timestamp) -> Self {
        Self { length, renewed: sent }
    }

    /// The heartbeat that was sent at `sent` is answered. Answers may overtake one another; only the newest counts.
    pub(super) fn renew(&mut self, sent: Timestamp) {
        self.renewed = self.renewed.max(sent);
    }

    /// When it ends unless it is renewed.
    pub(super) fn end(&self) -> Timestamp {
        self.renewed + self.length
    }
}

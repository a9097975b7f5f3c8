//! The way of a job's input from the session to its runner. It outlives connections: a session that comes back goes on
//! where the last one stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

/// Pieces that may wait for the job: 256 KiB at most. Then the stream fills, and the orchestrator waits.
const PIECES_WAITING_MAX: usize = 4;

/// A piece of input, or its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StdinPiece {
    /// At least one byte.
    Bytes(Bytes),
    /// Nothing follows.
    End,
}

/// The session's end. Only one session uses it at a time: the next one begins when the last one has ended.
#[derive(Debug, Clone)]
pub struct StdinFeed {
    pieces: mpsc::Sender<StdinPiece>,
    taken: Arc<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    bytes: AtomicU64,
    ended: AtomicBool,
}

/// A way into a job's input.
pub(super) fn channel() -> (StdinFeed, mpsc::Receiver<StdinPiece>) {
    let (pieces, receiver) = mpsc::channel(PIECES_WAITING_MAX);
    (StdinFeed { pieces, taken: Arc::default() }, receiver)
}

impl StdinFeed {
    /// Where the input is to go on, in bytes; `None` when the job takes no more.
    pub fn wants_from(&self) -> Option<u64> {
        if self.pieces.is_closed() || self.taken.ended.load(Ordering::Acquire) {
            None
        } else {
            Some(self.taken.bytes.load(Ordering::Acquire))
        }
    }

    /// Hands over the bytes that begin at `offset` of the input; waits while the job does not read. What was handed over
    /// before is skipped. `false` for a gap, which is a mistake of the sender's.
    pub async fn give(&self, offset: u64, bytes: Bytes) -> bool {
        let Some(wanted) = self.wants_from() else { return true };
        let Some(skip) = wanted.checked_sub(offset) else { return false };
        let Some(rest) = usize::try_from(skip).ok().filter(|skip| *skip < bytes.len()).map(|skip| bytes.slice(skip..))
        else {
            return true;
        };
        // Nothing waits between the permit and the count: a session that is cut off here has given all or nothing.
        if let Ok(permit) = self.pieces.reserve().await {
            self.taken.bytes.fetch_add(rest.len() as u64, Ordering::AcqRel);
            permit.send(StdinPiece::Bytes(rest));
        }
        true
    }

    /// Ends the input, which has `total` bytes. `false` if some of them are missing.
    pub async fn end(&self, total: u64) -> bool {
        let Some(wanted) = self.wants_from() else { return true };
        if wanted != total {
            return false;
        }
        if let Ok(permit) = self.pieces.reserve().await {
            self.taken.ended.store(true, Ordering::Release);
            permit.send(StdinPiece::End);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn input_goes_on_where_it_stopped_and_repeats_are_skipped() {
        let (feed, mut pieces) = channel();
        assert_eq!(feed.wants_from(), Some(0));
        assert!(feed.give(0, Bytes::from_static(b"abc")).await);
        assert!(feed.give(0, Bytes::from_static(b"abc")).await, "a repeat is harmless");
        assert!(feed.give(1, Bytes::from_static(b"bcde")).await, "an overlap gives its rest");
        assert!(!feed.give(9, Bytes::from_static(b"x")).await, "a gap is refused");
        assert_eq!(feed.wants_from(), Some(5));
        assert!(!feed.end(6).await, "bytes are missing");
        assert!(feed.end(5).await);
        assert_eq!(feed.wants_from(), None);
        let mut got = Vec::new();
        while let Ok(piece) = pieces.try_recv() {
            got.push(piece);
        }
        assert_eq!(
            got,
            [
                StdinPiece::Bytes(Bytes::from_static(b"abc")),
                StdinPiece::Bytes(Bytes::from_static(b"de")),
                StdinPiece::End
            ]
        );
    }

    #[tokio::test]
    async fn a_job_that_closed_its_input_takes_and_drops_the_rest() {
        let (feed, pieces) = channel();
        drop(pieces);
        assert_eq!(feed.wants_from(), None);
        assert!(feed.give(0, Bytes::from_static(b"abc")).await);
        assert!(feed.end(3).await);
    }
}

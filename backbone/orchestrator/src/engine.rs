//! The engine: one thread that owns [`Control`]. Remember before you speak.

use std::sync::Arc;

use modchain_core::{Command, Control, Effect, Event, Reply};
use modchain_types::Timestamp;

/// The engine has stopped; the process is about to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the engine has stopped")]
pub struct EngineGone;

/// The one way to change or ask live state. Cheap to clone.
#[derive(Clone)]
pub struct EngineHandle {}

impl EngineHandle {
    /// Has a command decided, and waits until its events are on disk.
    pub async fn command(&self, command: Command) -> Result<Reply, EngineGone> {
        self.command_numbered(command).await.map(|(reply, _)| reply)
    }

    /// As [`EngineHandle::command`], and tells the number of the last event on disk then: a reader of the feed that has
    /// come this far sees what the command did.
    pub async fn command_numbered(&self, _command: Command) -> Result<(Reply, u64), EngineGone> {
        todo!()
    }

    /// Hands a command over without waiting for its reply; waits only for room in the queue.
    pub async fn tell(&self, _command: Command) -> Result<(), EngineGone> {
        todo!()
    }

    /// Asks the state as it is on disk. The closure runs on the engine's thread: keep it short, never block in it.
    pub async fn query<R: Send + 'static>(
        &self,
        _question: impl FnOnce(&Control, Timestamp) -> R + Send + 'static,
    ) -> Result<R, EngineGone> {
        todo!()
    }

    /// Whether the disk is too full to accept new jobs, blobs or input.
    pub fn storage_low(&self) -> bool {
        todo!()
    }
}

/// What the engine lets out after each commit.
pub struct Outlets {
    /// For `dispatch`, in order.
    pub effects: OutletReceiver<Vec<Effect>>,
    /// For `feed`, in order, without a gap after what was replayed at the start.
    pub events: OutletReceiver<Arc<Vec<Event>>>,
}

/// The receiving end of an outlet. The engine never waits for it, but slows down while it is far behind.
pub struct OutletReceiver<T> {
    _marker: std::marker::PhantomData<T>,
}

impl<T> OutletReceiver<T> {
    /// The next batch; `None` once the engine has stopped and all is drained.
    pub async fn recv(&mut self) -> Option<T> {
        todo!()
    }
}

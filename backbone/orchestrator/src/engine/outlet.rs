//! The way out of the engine. It never waits for a reader: a reader that waits for the engine in turn would stop both for
//! ever. Instead the engine slows down while a reader is far behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

/// The sending end.
pub(super) struct Outlet<T> {
    sender: mpsc::UnboundedSender<T>,
    waiting: Arc<AtomicUsize>,
}

/// The receiving end of an outlet.
#[derive(Debug)]
pub struct OutletReceiver<T> {
    receiver: mpsc::UnboundedReceiver<T>,
    waiting: Arc<AtomicUsize>,
}

pub(super) fn outlet<T>() -> (Outlet<T>, OutletReceiver<T>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    (Outlet { sender, waiting: Arc::clone(&waiting) }, OutletReceiver { receiver, waiting })
}

impl<T> Outlet<T> {
    /// Lets it out; a reader that is gone misses it.
    pub(super) fn send(&self, item: T) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _ = self.sender.send(item);
    }

    /// Items that were not received yet; none if nobody will receive them.
    pub(super) fn waiting(&self) -> usize {
        if self.sender.is_closed() { 0 } else { self.waiting.load(Ordering::Relaxed) }
    }
}

impl<T> OutletReceiver<T> {
    /// The next batch; `None` once the engine has stopped and all is drained.
    pub async fn recv(&mut self) -> Option<T> {
        let item = self.receiver.recv().await?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(item)
    }
}

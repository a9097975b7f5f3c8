//! What the terminal sends, read on a thread of its own.
//!
//! The reader of events takes the end of a terminal for a key that is not whole yet, and asks for the rest of it for ever. It is not
//! asked once the terminal is gone, but a terminal can go away between the question and the read. Then this thread never comes back,
//! and who waits for keys still can.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::task::Poll;
use std::time::Duration;

use crossterm::event::{Event, EventStream};
use futures::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::terminal::is_gone;

/// Events that were read and not taken, at most.
const WAITING_MAX: usize = 1024;
/// Longest wait for the thread to end: longer only if it never does.
const ENDING_MAX: Duration = Duration::from_millis(500);

/// The keys, and whatever else the terminal sends.
pub(super) struct Keyboard {
    /// Read before a pause, and not taken yet.
    before: VecDeque<io::Result<Event>>,
    reader: Option<Reader>,
}

/// The thread.
struct Reader {
    events: mpsc::Receiver<io::Result<Event>>,
    /// Dropped to end it.
    stop: Option<oneshot::Sender<()>>,
    /// Its other end is dropped when nothing is read any more.
    stopped: Receiver<()>,
}

impl Keyboard {
    /// Begins to read. Within a runtime.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { before: VecDeque::new(), reader: Some(Reader::start()?) })
    }

    /// The next event; `None` once the terminal is gone. May be dropped and asked again without losing one.
    pub(super) async fn next(&mut self) -> Option<io::Result<Event>> {
        if let Some(event) = self.before.pop_front() {
            return Some(event);
        }
        self.reader.as_mut()?.events.recv().await
    }

    /// Reads no more until [`Keyboard::resume`]: two readers of one terminal would each get half of the keys.
    pub(super) fn pause(&mut self) {
        if let Some(mut reader) = self.reader.take() {
            reader.end();
            self.before.extend(std::iter::from_fn(|| reader.events.try_recv().ok()));
        }
    }

    /// Reads again.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        self.reader = Some(Reader::start()?);
        Ok(())
    }
}

impl Reader {
    fn start() -> io::Result<Self> {
        let runtime = Handle::current();
        let (sender, events) = mpsc::channel(WAITING_MAX);
        let (stop, stopping) = oneshot::channel();
        let (ended, stopped) = sync_channel(0);
        let read = move || runtime.block_on(read(sender, stopping, ended));
        std::thread::Builder::new().name("keyboard".into()).spawn(read)?;
        Ok(Self { events, stop: Some(stop), stopped })
    }

    fn end(&mut self) {
        self.stop = None;
        // It has ended or never will: nobody else can do anything about it.
        let _ = self.stopped.recv_timeout(ENDING_MAX);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Before the terminal is given back, or a key for the shell would be read here.
        self.end();
    }
}

async fn read(sender: mpsc::Sender<io::Result<Event>>, mut stop: oneshot::Receiver<()>, _ended: SyncSender<()>) {
    let mut events = EventStream::new();
    loop {
        let event = tokio::select! {
            biased;
            _ = &mut stop => return,
            event = next(&mut events) => event,
        };
        let Some(event) = event else { return };
        if sender.send(event).await.is_err() {
            return;
        }
    }
}

/// The next event; `None` once the terminal is gone.
async fn next(events: &mut EventStream) -> Option<io::Result<Event>> {
    // One look before the wait would not do: it goes away meanwhile.
    poll_fn(|context| if is_gone(Some(Duration::ZERO)) { Poll::Ready(None) } else { events.poll_next_unpin(context) })
        .await
}

//! Job output on its way to standard output and standard error: exact bytes, written as they come. A thread of its own
//! writes, so that a reader that does not read (a pager, a full pipe) stops neither the link nor Ctrl-C.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::clean::Cleaner;
use crate::exit::Failure;
use crate::shell::Shell;

/// Pieces that may wait for a slow reader; then the orchestrator waits too. At 64 KiB a piece at most 2 MiB.
const PIECES_MAX: usize = 32;

/// Where a piece goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The way to the two streams.
pub(crate) struct Output {
    pieces: mpsc::Sender<(To, Bytes)>,
    done: oneshot::Receiver<std::io::Result<()>>,
    stdout_cleaner: Option<Cleaner>,
    stderr_cleaner: Option<Cleaner>,
}

impl Output {
    /// Starts the writer. On a terminal the bytes are cleaned, unless `raw`.
    pub(crate) fn start(shell: &Shell, raw: bool) -> Self {
        let (pieces, receiver) = mpsc::channel(PIECES_MAX);
        let (finished, done) = oneshot::channel();
        std::thread::spawn(move || {
            // Nobody may be left to hear it.
            let _ = finished.send(write_all(receiver));
        });
        Self {
            pieces,
            done,
            stdout_cleaner: (shell.stdout_tty() && !raw).then(Cleaner::default),
            stderr_cleaner: (shell.stderr_tty() && !raw).then(Cleaner::default),
        }
    }

    /// Hands a piece over; waits while the reader is behind.
    pub(crate) async fn write(&mut self, to: To, bytes: Bytes) -> Result<(), Failure> {
        let cleaner = match to {
            To::Stdout => &mut self.stdout_cleaner,
            To::Stderr => &mut self.stderr_cleaner,
        };
        let bytes = cleaner.as_mut().map_or(bytes.clone(), |cleaner| Bytes::from(cleaner.clean(&bytes)));
        // The writer ends early only when it cannot write; `finish` says why.
        self.pieces.send((to, bytes)).await.map_err(|_| Failure::failed("cannot write the output: its reader is gone"))
    }

    /// Waits until everything is written.
    pub(crate) async fn finish(self) -> Result<(), Failure> {
        drop(self.pieces);
        match self.done.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::failed(format!("cannot write the output: {error}"))),
            Err(_) => Err(Failure::failed("cannot write the output")),
        }
    }
}

/// Writes to the streams themselves: whoever waits here for a reader must hold no lock that the end of the program needs.
fn write_all(mut pieces: mpsc::Receiver<(To, Bytes)>) -> std::io::Result<()> {
    let mut stdout = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    let mut stderr = File::from(std::io::stderr().as_fd().try_clone_to_owned()?);
    while let Some((to, bytes)) = pieces.blocking_recv() {
        match to {
            To::Stdout => stdout.write_all(&bytes)?,
            // Standard error may be closed; that is no reason to lose standard output.
            To::Stderr => drop(stderr.write_all(&bytes)),
        }
    }
    Ok(())
}

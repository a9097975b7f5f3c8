//! SIGINT, SIGTERM and SIGHUP as a queue of wishes. Only one place of the program reads it at a time; whoever follows a job
//! decides there what the first and the second wish mean.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::exit;

/// Wishes that may wait: more than a person types before the program is gone.
const WISHES_MAX: usize = 16;

/// Somebody wants this program to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// The terminal is gone.
    HangUp,
}

impl Wish {
    /// The exit code of a program that obeys at once.
    pub(crate) fn exit(self) -> u8 {
        match self {
            Self::Interrupt => exit::INTERRUPTED,
            Self::Terminate => exit::TERMINATED,
            Self::HangUp => exit::HUNG_UP,
        }
    }
}

/// The queue of wishes.
pub(crate) struct Signals(mpsc::Receiver<Wish>);

impl Signals {
    /// Takes the three signals over from the system's defaults. Needs a running runtime.
    pub(crate) fn install() -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel(WISHES_MAX);
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        // Ends with the receiver, or with the runtime.
        tokio::spawn(async move {
            loop {
                let wish = tokio::select! {
                    _ = interrupt.recv() => Wish::Interrupt,
                    _ = terminate.recv() => Wish::Terminate,
                    _ = hang_up.recv() => Wish::HangUp,
                    () = sender.closed() => return,
                };
                // A full queue means that nobody listens; one wish more would not change that.
                let _ = sender.try_send(wish);
            }
        });
        Ok(Self(receiver))
    }

    /// The next wish. May be dropped and asked again without losing one.
    pub(crate) async fn next(&mut self) -> Wish {
        match self.0.recv().await {
            Some(wish) => wish,
            None => std::future::pending().await,
        }
    }
}

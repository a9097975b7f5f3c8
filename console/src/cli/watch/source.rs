//! The link that a command keeps while it watches, with what came over it.

use std::time::Duration;

use modchain_wire::FromConsole;
use tokio::time::{Instant, timeout_at};

use crate::client::live::{self, AskId, FromLive, Inbox, LinkState, LiveHandle, ToLive};
use crate::client::mirror::Mirror;
use crate::exit::Failure;
use crate::shell::Shell;
use crate::text::wall_now;

/// Changes that come within this time of the first are shown together.
const TOGETHER: Duration = Duration::from_millis(50);

/// Everything as it is now, as long as there is a connection; as it was last, while there is none.
pub(crate) struct Source<'a> {
    shell: &'a Shell,
    pub(super) mirror: Mirror,
    /// Whether the connection is gone.
    pub(super) is_lost: bool,
    link: LiveHandle,
    inbox: Inbox,
    asked: u64,
}

impl<'a> Source<'a> {
    /// Begins to connect.
    pub(crate) fn start(shell: &'a Shell) -> Result<Self, Failure> {
        let (link, inbox) = live::start(shell.target()?, shell.connect_timeout()?);
        Ok(Self { shell, mirror: Mirror::default(), is_lost: false, link, inbox, asked: 0 })
    }

    /// Waits until something has changed, or the connection is gone or back. `hear` hears each message before the mirror takes
    /// it in. Fails only when the orchestrator refuses for good.
    pub(crate) async fn next(&mut self, mut hear: impl FnMut(&FromLive)) -> Result<&Mirror, Failure> {
        loop {
            let mut next = self.inbox.recv().await;
            let until = Instant::now() + TOGETHER;
            loop {
                let message = next.ok_or_else(|| Failure::lost("the link has ended"))?;
                match &message {
                    FromLive::Link(LinkState::Refused(failure)) => return Err(failure.clone()),
                    FromLive::Link(LinkState::Lost { .. }) => self.is_lost = true,
                    FromLive::Link(LinkState::Live) => self.is_lost = false,
                    FromLive::Said(line) => self.shell.say(line),
                    _ => {}
                }
                hear(&message);
                self.mirror.apply(message, wall_now());
                match timeout_at(until, self.inbox.recv()).await {
                    Ok(more) => next = more,
                    Err(_) => break,
                }
            }
            // Half of a snapshot is nothing yet.
            if self.mirror.mark.is_some() {
                return Ok(&self.mirror);
            }
        }
    }

    /// Ends the link.
    pub(super) async fn end(self) {
        self.link.close().await;
    }

    /// Asks something; the answer comes as a message.
    pub(super) fn ask(&mut self, question: FromConsole) {
        self.asked += 1;
        self.link.send(ToLive::Ask(AskId(self.asked), Box::new(question)));
    }
}

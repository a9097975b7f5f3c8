//! Every node as it is now, pushed over the state stream and kept over as many connections as it takes.

use std::collections::BTreeMap;
use std::time::Duration;

use modchain_link::Backoff;
use modchain_types::Name;
use modchain_wire::ToConsole;
use modchain_wire::console::StateOpen;
use modchain_wire::view::NodeView;
use tokio::time::Instant;

use crate::client::Client;
use crate::client::link::Replies;
use crate::exit::Failure;
use crate::shell::Shell;

/// Longest time without a connection.
const RECONNECT_MAX: Duration = Duration::from_secs(10 * 60);

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nodes changed, or all are known for the first time.
    Change,
    /// The connection is gone: what is known is old until the next change.
    Lost,
}

/// The mirror.
pub(crate) struct Mirror<'a> {
    shell: &'a Shell,
    /// The nodes, by name.
    pub(crate) nodes: BTreeMap<Name, NodeView>,
    client: Option<Client>,
    replies: Option<Replies>,
    /// What a snapshot that is not complete has brought.
    fresh: BTreeMap<Name, NodeView>,
    backoff: Backoff,
    lost_since: Option<Instant>,
}

impl<'a> Mirror<'a> {
    /// A mirror that is empty until the first change.
    pub(crate) fn new(shell: &'a Shell, client: Client) -> Self {
        Self {
            shell,
            nodes: BTreeMap::new(),
            client: Some(client),
            replies: None,
            fresh: BTreeMap::new(),
            backoff: Backoff::new(),
            lost_since: None,
        }
    }

    /// Waits for the next thing to happen. May be dropped and asked again without losing one.
    pub(crate) async fn next(&mut self) -> Result<Seen, Failure> {
        match self.step().await {
            Err(failure) if failure.lost => {
                (self.client, self.replies) = (None, None);
                self.fresh = BTreeMap::new();
                let since = *self.lost_since.get_or_insert_with(Instant::now);
                if since.elapsed() > RECONNECT_MAX { Err(failure) } else { Ok(Seen::Lost) }
            }
            other => other,
        }
    }

    async fn step(&mut self) -> Result<Seen, Failure> {
        if self.client.is_none() {
            tokio::time::sleep(self.backoff.next_delay()).await;
            self.client = Some(self.shell.connect().await?);
        }
        let client = self.client.as_ref().expect("just connected");
        let replies = match &mut self.replies {
            Some(replies) => replies,
            none => none.insert(client.open(StateOpen { job: None, resume: None }).await?),
        };
        loop {
            match replies.next().await? {
                ToConsole::StateSnapshot(page) => {
                    self.fresh.extend(page.nodes.into_vec().into_iter().map(|view| (view.name.clone(), view)));
                    if page.last {
                        self.nodes = std::mem::take(&mut self.fresh);
                        self.lost_since = None;
                        self.backoff.reset();
                        return Ok(Seen::Change);
                    }
                }
                ToConsole::StateDelta(delta) if delta.nodes.is_empty() && delta.gone.is_empty() => {}
                ToConsole::StateDelta(delta) => {
                    for name in delta.gone.into_vec() {
                        self.nodes.remove(&name);
                    }
                    self.nodes.extend(delta.nodes.into_vec().into_iter().map(|view| (view.name.clone(), view)));
                    return Ok(Seen::Change);
                }
                other => return Err(crate::client::link::unexpected(Some(&other))),
            }
        }
    }
}

//! Carries effects out, after the commit that caused them: messages to the agents' sessions, closes, changes of nodes'
//! states to the feed, and the removal of what an ended job no longer needs.
//!
//! One task owns the list of the agents' sessions. It never waits for a session: one that does not take its instructions is
//! closed, because reconciling with the agent when it comes back brings about again whatever was lost.

use std::collections::HashMap;

use modchain_core::{Effect, NodeMessage, SessionEnd, SessionId};
use modchain_link::{CloseCode, Connection};
use modchain_types::{JobId, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::engine::OutletReceiver;
use crate::feed::FeedHandle;
use crate::retention::Retention;
use crate::store::blobs::BlobStore;
use crate::store::input::InputStore;

/// Messages that wait for one agent. An agent has at most 60 streams' worth of attempts; each has a handful of messages.
pub const MAILBOX_MESSAGES: usize = 1024;
/// Sessions that may wait to be entered or removed.
const REGISTRATIONS_MAX: usize = 256;
/// Ended jobs whose files wait to be removed.
const CLOSED_JOBS_MAX: usize = 4096;

/// What dispatch puts into a session's mailbox.
pub type Mailbox = mpsc::Sender<NodeMessage>;

/// A job that has ended, the number of the event that ended it, and its moment.
type Closed = (JobId, u64, Timestamp);

enum Registration {
    Enter { session: SessionId, mailbox: Mailbox, connection: Connection, done: oneshot::Sender<()> },
    Leave { session: SessionId },
}

/// Where agents' sessions say that they are there. Cheap to clone.
#[derive(Clone)]
pub struct DispatchHandle {
    registrations: mpsc::Sender<Registration>,
}

impl DispatchHandle {
    /// Enters a session; returns when effects for it will be delivered. Must come before its `AgentConnected`.
    pub async fn enter(&self, session: SessionId, mailbox: Mailbox, connection: Connection) {
        let (done, entered) = oneshot::channel();
        // Errors mean that dispatch has ended, and with it the program.
        if self.registrations.send(Registration::Enter { session, mailbox, connection, done }).await.is_ok() {
            let _ = entered.await;
        }
    }

    /// Removes a session.
    pub async fn leave(&self, session: SessionId) {
        let _ = self.registrations.send(Registration::Leave { session }).await;
    }
}

/// Begins to carry out effects. The task ends by itself after the engine has.
pub fn start(
    effects: OutletReceiver<Vec<Effect>>,
    feed: FeedHandle,
    input: InputStore,
    blobs: BlobStore,
    retention: Retention,
) -> (DispatchHandle, JoinHandle<()>) {
    let (registrations, inbox) = mpsc::channel(REGISTRATIONS_MAX);
    let task = tokio::spawn(async move {
        let (closed_jobs, to_remove) = mpsc::channel(CLOSED_JOBS_MAX);
        let janitor = remove_files(to_remove, input, blobs, retention);
        // The janitor ends when dispatch lets go of its queue.
        tokio::join!(carry_out(effects, inbox, feed, closed_jobs), janitor);
    });
    (DispatchHandle { registrations }, task)
}

struct Session {
    mailbox: Mailbox,
    connection: Connection,
}

async fn carry_out(
    mut effects: OutletReceiver<Vec<Effect>>,
    mut registrations: mpsc::Receiver<Registration>,
    feed: FeedHandle,
    closed_jobs: mpsc::Sender<Closed>,
) {
    let mut sessions: HashMap<SessionId, Session> = HashMap::new();
    loop {
        tokio::select! {
            Some(registration) = registrations.recv() => match registration {
                Registration::Enter { session, mailbox, connection, done } => {
                    sessions.insert(session, Session { mailbox, connection });
                    let _ = done.send(());
                }
                Registration::Leave { session } => drop(sessions.remove(&session)),
            },
            batch = effects.recv() => {
                let Some(batch) = batch else { return };
                for effect in batch {
                    carry_out_one(effect, &mut sessions, &feed, &closed_jobs).await;
                }
            }
        }
    }
}

async fn carry_out_one(
    effect: Effect,
    sessions: &mut HashMap<SessionId, Session>,
    feed: &FeedHandle,
    closed_jobs: &mpsc::Sender<Closed>,
) {
    match effect {
        Effect::ToNode { node, session, message } => {
            let Some(entry) = sessions.get(&session) else { return };
            if entry.mailbox.try_send(message).is_err() {
                tracing::warn!(%node, ?session, "the agent does not take its instructions; closing its connection");
                entry.connection.close(CloseCode::Internal, "instructions were not taken in time");
                sessions.remove(&session);
            }
        }
        Effect::EndSession { session, why, .. } => {
            let Some(entry) = sessions.remove(&session) else { return };
            match why {
                SessionEnd::Superseded => entry.connection.close(CloseCode::Superseded, ""),
            }
        }
        Effect::NodeChanged { node, state } => {
            // An error means that the feed has ended, and with it the program.
            let _ = feed.node_changed(node, state).await;
        }
        Effect::Preparing { attempt, message } => {
            let _ = feed.preparing(attempt, message).await;
        }
        Effect::JobClosed { job, finished, at } => {
            let _ = closed_jobs.send((job, finished, at)).await;
        }
    }
}

/// Removes what was kept for running a job. Its output stays for a while.
async fn remove_files(
    mut closed_jobs: mpsc::Receiver<Closed>,
    input: InputStore,
    blobs: BlobStore,
    retention: Retention,
) {
    while let Some((job, finished, at)) = closed_jobs.recv().await {
        blobs.release(job);
        if let Err(error) = input.remove(job).await {
            tracing::warn!(%job, %error, "the input of an ended job cannot be removed");
        }
        // Last: from here on the job may be forgotten, and its id be another one's.
        retention.job_ended(job, finished, at).await;
    }
}

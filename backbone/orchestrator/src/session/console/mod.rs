//! One connection of a console or command line: hello, then one task for each request.
//!
//! Each request is checked against the one table of roles and verbs, and against who owns what it names. A refusal says what,
//! why and what next; a job that the asker may not see is answered as one that does not exist.

mod download;
mod logs;
mod members;
mod refuse;
mod requests;
mod state;
mod submit;
mod upload;
mod verbs;

use std::sync::Arc;
use std::time::Duration;

use modchain_core::Actor;
use modchain_link::{CloseCode, Connection, FrameReader, FrameWriter, Priority, ReadError, StreamCode, WriteError};
use modchain_types::{Identity, JobId, Span};
use modchain_wire::console::{ConsoleWelcome, GoingAway, JobRef, Refusal, RefusalCode};
use modchain_wire::{FromConsole, Message, ToConsole};
use tokio::task::JoinSet;

use super::{Context, FIRST_FRAME_TIMEOUT, LINGER, log_panic, version, wall_now};
use crate::engine::EngineGone;
use crate::feed::{FeedError, FeedGone, Unresolved};

use verbs::Verb;

/// Longest wait for a console to take the goodbye on a stream that is being followed.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);
/// Requests of one identity that may be under way at once: four for each connection it may have. Each may hold a file open.
const REQUESTS_MAX: usize = 512;
/// When consoles are asked to come back: a restart takes about as long.
const COME_BACK_AFTER: Span = Span::from_secs(1);

pub(super) type Writer = FrameWriter<ToConsole>;
pub(super) type Reader = FrameReader<FromConsole>;

/// Why a request ends without its answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Said to the asker.
    Refused(Refusal),
    /// The asker sent what cannot be read.
    Read(ReadError),
    /// The asker does not read.
    Write(WriteError),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        match error {
            // Ours to answer for: a view that does not fit into its frame.
            WriteError::Message(error) => Self::Refused(refuse::internal(error)),
            WriteError::Stopped(_) | WriteError::Ended | WriteError::Closed(_) => Self::Write(error),
        }
    }
}

impl From<EngineGone> for Failure {
    fn from(_: EngineGone) -> Self {
        Self::Refused(refuse::stopping())
    }
}

impl From<FeedGone> for Failure {
    fn from(_: FeedGone) -> Self {
        Self::Refused(refuse::stopping())
    }
}

impl From<FeedError> for Failure {
    fn from(error: FeedError) -> Self {
        match error {
            FeedError::Gone(gone) => gone.into(),
            FeedError::View(error) => Self::Refused(refuse::internal(error)),
        }
    }
}

/// One console that was let in.
pub(super) struct ConsoleSession {
    context: Arc<Context>,
    connection: Connection,
    identity: Identity,
    actor: Actor,
}

/// Serves a connection until it ends.
pub(super) async fn serve(connection: Connection, identity: Identity, context: Arc<Context>) {
    let actor = Actor { id: identity.id, role: identity.role, account: identity.account.clone() };
    let session = Arc::new(ConsoleSession { context, connection: connection.clone(), identity, actor });
    if !session.welcome().await {
        connection.close(CloseCode::HelloExpected, "");
        return;
    }
    tracing::debug!(who = %session.identity.name, "console connected");
    let mut requests = JoinSet::new();
    loop {
        tokio::select! {
            () = session.context.stopping.cancelled() => break,
            accepted = connection.accept_bi::<ToConsole, FromConsole>() => match accepted {
                Ok((writer, reader)) => drop(requests.spawn(session.clone().request(writer, reader))),
                Err(_) => break,
            },
            Some(ended) = requests.join_next() => log_panic(ended, "a console's request"),
        }
    }
    // None is cut off in the middle of what it does: with the connection gone each ends by itself, and at a stop each says
    // goodbye on its own stream.
    while let Some(ended) = requests.join_next().await {
        log_panic(ended, "a console's request");
    }
    if connection.close_reason().is_none() {
        let _ = tokio::time::timeout(LINGER, connection.closed()).await;
        connection.close(CloseCode::GoingAway, "the orchestrator is stopping");
    }
}

impl ConsoleSession {
    /// Waits for the hello, in time, and answers it.
    async fn welcome(&self) -> bool {
        let connection = &self.connection;
        let hello = async {
            let (mut writer, mut reader) = connection.accept_bi::<ToConsole, FromConsole>().await.ok()?;
            let Ok(Some(FromConsole::Hello(_))) = reader.read().await else { return None };
            let welcome = ConsoleWelcome {
                types: FromConsole::known_types(),
                version: version(),
                pool: self.context.services.pool.clone(),
                identity: self.identity.clone(),
                journal: self.context.services.journal_id,
                asset: self.context.services.asset,
                streams_max: connection.authorise(connection.protocol().streams_max()),
                wall: wall_now(),
            };
            writer.write(&welcome.into()).await.ok()?;
            writer.finish().await.ok()
        };
        tokio::time::timeout(FIRST_FRAME_TIMEOUT, hello).await.ok().flatten().is_some()
    }

    /// One request from its first frame to the end of its stream.
    async fn request(self: Arc<Self>, mut writer: Writer, mut reader: Reader) {
        writer.set_priority(Priority::Commands);
        let _counted = self.context.requests.enter(self.identity.id);
        let stopping = self.context.stopping.clone();
        let outcome = tokio::select! {
            outcome = self.answer(&mut writer, &mut reader) => outcome,
            () = stopping.cancelled() => {
                let goodbye = GoingAway { after: COME_BACK_AFTER };
                let said = async {
                    writer.write(&goodbye.into()).await?;
                    writer.finish().await?;
                    writer.delivered().await
                };
                // One that does not listen learns it from the close.
                let _ = tokio::time::timeout(GOODBYE_TIMEOUT, said).await;
                return;
            }
        };
        match outcome {
            Ok(()) => {
                let _ = writer.finish().await;
            }
            Err(Failure::Refused(refusal)) => {
                if refusal.code == RefusalCode::Internal {
                    tracing::error!(who = %self.identity.name, message = %refusal.message, "a request failed");
                }
                reader.stop(StreamCode::Refused);
                let _ = writer.write(&refusal.into()).await;
                let _ = writer.finish().await;
            }
            Err(Failure::Read(error)) => {
                if let Some(code) = error.stream_code() {
                    writer.reset(code);
                }
            }
            Err(Failure::Write(error)) => {
                tracing::debug!(who = %self.identity.name, %error, "a console does not take its answer");
                reader.stop(StreamCode::Cancelled);
            }
        }
    }

    async fn answer(&self, writer: &mut Writer, reader: &mut Reader) -> Result<(), Failure> {
        if self.context.requests.of(self.identity.id) > REQUESTS_MAX {
            return Err(refuse::too_many_requests(REQUESTS_MAX).into());
        }
        let first = tokio::time::timeout(FIRST_FRAME_TIMEOUT, reader.read()).await.map_err(|_| ReadError::Stalled)?;
        let Some(request) = first? else { return Ok(()) };
        match Verb::of(&request) {
            Some(verb) if !verb.allowed(self.actor.role) => {
                return Err(refuse::not_allowed(verb, self.actor.role).into());
            }
            Some(_) => {}
            None => return Err(refuse::invalid("this message does not begin a request", "").into()),
        }
        match request {
            FromConsole::Submit(submit) => self.submit(writer, submit).await,
            FromConsole::Quote(quote) => self.quote(writer, quote).await,
            FromConsole::Explain(query) => self.explain(writer, query).await,
            FromConsole::Cancel(cancel) => self.cancel(writer, cancel).await,
            FromConsole::Jobs(query) => self.jobs(writer, query).await,
            FromConsole::Job(query) => self.job(writer, query).await,
            FromConsole::Nodes(query) => self.nodes(writer, query).await,
            FromConsole::Account(query) => self.account(writer, query).await,
            FromConsole::Ledger(query) => self.ledger(writer, query).await,
            FromConsole::Status(_) => self.status(writer).await,
            FromConsole::Credit(credit) => self.credit(writer, credit).await,
            FromConsole::Events(open) => self.events(writer, reader, open).await,
            FromConsole::State(open) => self.state(writer, reader, open).await,
            FromConsole::Logs(open) => self.logs(writer, reader, open).await,
            FromConsole::BlobPut(put) => self.blob_put(writer, reader, put).await,
            FromConsole::InputOpen(open) => self.input(writer, reader, open).await,
            FromConsole::Whoami(_) => self.whoami(writer).await,
            FromConsole::Renew(request) => self.renew(writer, request).await,
            FromConsole::Identities(query) => self.identities(writer, query).await,
            FromConsole::Revoke(revoke) => self.revoke(writer, revoke).await,
            FromConsole::TokenCreate(create) => self.token_create(writer, create).await,
            FromConsole::Tokens(query) => self.tokens(writer, query).await,
            FromConsole::TokenRevoke(revoke) => self.token_revoke(writer, revoke).await,
            FromConsole::Link(_) => self.link(writer).await,
            FromConsole::Node(query) => self.node(writer, query).await,
            FromConsole::NodeSet(set) => self.node_set(writer, set).await,
            FromConsole::Spec(query) => self.spec(writer, query).await,
            FromConsole::BlobFetch(fetch) => self.blob_fetch(writer, reader, fetch).await,
            FromConsole::Hello(_)
            | FromConsole::BlobPiece(_)
            | FromConsole::InputPiece(_)
            | FromConsole::InputDone(_) => Err(refuse::invalid("this message does not begin a request", "").into()),
        }
    }

    /// The disk is nearly full.
    fn storage_full(&self) -> Refusal {
        refuse::storage_full(self.context.services.engine.space().complaint())
    }

    /// No such job, or none that the asker may see.
    fn no_job(&self, name: &str) -> Refusal {
        refuse::no_job(name, &self.context.services.retention.jobs_rule())
    }

    /// The job that the asker means, among those that he may see.
    async fn resolve(&self, name: &JobRef) -> Result<JobId, Failure> {
        match self.context.feed.resolve(&self.actor, name).await? {
            Ok(job) => Ok(job),
            Err(Unresolved::NotFound) => Err(self.no_job(name).into()),
            Err(Unresolved::Ambiguous(some, total)) => Err(refuse::ambiguous(name, &some, total).into()),
        }
    }

    /// Ends when the asker is gone, gives its stream up, or says something more: whoever follows has nothing more to say.
    /// `unwanted` tells when it reads no more; with nothing to tell it, nothing else would.
    ///
    /// A stream that the asker has merely finished goes on: that is how commands ask.
    async fn hung_up(&self, reader: &mut Reader, unwanted: impl Future<Output = ()>) -> Failure {
        let more = async {
            match reader.read().await {
                Ok(None) => std::future::pending().await,
                Ok(Some(_)) => refuse::invalid("nothing more can be said on this stream", "").into(),
                Err(error) => error.into(),
            }
        };
        tokio::select! {
            failure = more => failure,
            () = unwanted => WriteError::Stopped(Some(StreamCode::Cancelled)).into(),
        }
    }
}

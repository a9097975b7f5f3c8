//! One connection of an agent: hello, control stream, heartbeats, blobs; attempts' streams go to the relay.
//!
//! Nothing is decided here. Reports go to the engine and their acknowledgements come back as effects; a reply of the engine
//! decides about the connection alone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use modchain_certs::DenyList;
use modchain_core::{AgentArrival, Command, NodeMessage, Refused, Reply, SessionId};
use modchain_link::{CloseCode, CloseReason, Connection, FrameReader, FrameWriter, Priority, ReadError, StreamCode};
use modchain_types::{
    Assignment, BootId, Identity, List, NodeId, Report, ReportBody, Span, TaskBody, Text, Timestamp, WallTime,
};
use modchain_wire::agent::{
    AgentHello, AgentWelcome, BlobChunk, BlobGet, BlobHead, GoAway, Heartbeat, HeartbeatEcho, Probe, Reconcile,
    ReportAck, Stop, StreamRefused,
};
use modchain_wire::join::RenewRequest;
use modchain_wire::{CHUNK_BYTES_MAX, Data, FromAgent, Message, Sentence, ToAgent};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::jobs_blobs::{named_by, task_of};
use super::{Context, FIRST_FRAME_TIMEOUT, LINGER, Suspicion, certify, log_panic, version, wall_now};
use crate::dispatch::MAILBOX_MESSAGES;
use crate::feed::{Pulse, Tick};
use crate::relay;
use crate::store::blobs::BlobError;

/// Time between heartbeats.
const HEARTBEAT: Span = Span::from_secs(5);
/// How long attempts with `on_disconnect = stop` may go on after the last answered heartbeat was sent.
const LEASE: Span = Span::from_secs(30);
/// Longest wait that agents are asked to make before they come back: spreads a thousand of them.
const COME_BACK_WITHIN: Duration = Duration::from_secs(5);
/// Longest wait for an agent to take the welcome.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for an agent to take the goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest lifetime of a stream that carries one blob at a time: a slow line and 32 MiB.
const BLOB_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Time between two tries to read the task of an assignment.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Tries before a task that cannot be read counts as unreadable for good: sooner than its node counts as at fault because it has not
/// accepted the assignment, or the job would go round for ever.
const READ_TRIES_MAX: u32 = 20;

/// Looks at a node's GPUs that wait for a busy feed: a minute of them. Older ones are let go.
const UNTOLD_TICKS_MAX: usize = 60;

type Writer = FrameWriter<ToAgent>;
type Reader = FrameReader<FromAgent>;

/// One admitted agent.
pub(crate) struct AgentSession {
    pub(crate) context: Arc<Context>,
    pub(crate) identity: Identity,
    pub(crate) node: NodeId,
    id: SessionId,
    /// What the agent's clock counts from.
    boot: BootId,
    connection: Connection,
}

/// Serves a connection until it ends.
pub(super) async fn serve(connection: Connection, identity: Identity, context: Arc<Context>) {
    let Some((writer, reader, hello)) = hello(&connection).await else {
        connection.close(CloseCode::HelloExpected, "");
        return;
    };
    let (id, node) = (context.next_session(), NodeId::from(identity.id));
    let (mailbox, messages) = mpsc::channel(MAILBOX_MESSAGES);
    context.dispatch.enter(id, mailbox, connection.clone()).await;
    let boot = hello.boot;
    let session = Arc::new(AgentSession { context, identity, node, id, boot, connection: connection.clone() });
    if session.admit(&connection, &hello).await {
        tracing::info!(node = %session.identity.name, session = id.0, "agent connected");
        session.clone().run(&connection, writer, reader, messages).await;
        session.leave().await;
        tracing::info!(node = %session.identity.name, session = id.0, reason = ?connection.close_reason(), "agent gone");
    }
    session.context.dispatch.leave(id).await;
}

/// The first stream's first frame, in time.
async fn hello(connection: &Connection) -> Option<(Writer, Reader, AgentHello)> {
    let first = async {
        let (writer, mut reader) = connection.accept_bi::<ToAgent, FromAgent>().await.ok()?;
        match reader.read().await {
            Ok(Some(FromAgent::Hello(hello))) => Some((writer, reader, hello)),
            _ => None,
        }
    };
    tokio::time::timeout(FIRST_FRAME_TIMEOUT, first).await.ok().flatten()
}

impl AgentSession {
    /// Asks the engine; closes the connection if it says no.
    async fn admit(&self, connection: &Connection, hello: &AgentHello) -> bool {
        let services = &self.context.services;
        if self.context.offers.take(self.identity.id, Instant::now()).is_err() {
            tracing::info!(node = %self.identity.name, "the agent comes too often");
            connection.close(CloseCode::TooManyConnections, "");
            return false;
        }
        let of_this_journal = hello.journal == Some(services.journal_id);
        let claim = hello.highest_fence.filter(|_| of_this_journal);
        let arrival = AgentArrival {
            instance: hello.instance,
            highest_fence: claim.and_then(|claim| services.fence_key.verify(&claim)),
            inventory: hello.inventory.to_vec(),
            offer: hello.offer.clone(),
        };
        let command = Command::AgentConnected { node: self.node, session: self.id, arrival: Box::new(arrival) };
        let (code, why) = match services.engine.command(command).await {
            // Its identity may have been joined again between the handshake and the hello. What the engine decided before
            // this answer, the gate knows.
            Ok(Reply::Welcome) if services.gate.denies(&self.identity.id, &self.connection.peer().serial) => {
                // The engine must not assign to a session that nobody serves.
                self.leave().await;
                (CloseCode::Revoked, "a newer certificate took its place".into())
            }
            Ok(Reply::Welcome) => return true,
            Ok(Reply::Refused(refused)) => {
                if refused == Refused::DuplicateInstance {
                    let name = &self.identity.name;
                    let text = format!(
                        "node {name}: a second agent with the same identity came from {} while the first one is there; unless \
                         that was on purpose, revoke it: modchain cert revoke {name}",
                        connection.remote_address().ip().to_canonical(),
                    );
                    self.context.suspicions.note(Suspicion::TwoAgents, self.identity.id, text, Instant::now());
                }
                (close_code(&refused), refused.to_string())
            }
            Ok(_) => {
                tracing::error!("the engine answered a hello with something else");
                (CloseCode::Internal, String::new())
            }
            Err(gone) => (CloseCode::GoingAway, gone.to_string()),
        };
        tracing::info!(node = %self.identity.name, %code, why, "agent refused");
        connection.close(code, &why);
        false
    }

    /// Tells engine and feed that the connection is gone, unless a newer one has taken its place.
    async fn leave(&self) {
        let (node, session, engine) = (self.node, self.id, &self.context.services.engine);
        let _ = engine.tell(Command::AgentDisconnected { node, session }).await;
        let gone = move |control: &modchain_core::Control, _| {
            control.node(node).filter(|node| node.session().is_none()).map(|_| control.last_number())
        };
        // Errors mean that the program is about to end.
        if let Ok(Some(upto)) = engine.query(gone).await {
            let _ = self.context.feed.disconnected(node, upto).await;
        }
    }

    async fn run(
        self: Arc<Self>,
        connection: &Connection,
        mut writer: Writer,
        reader: Reader,
        messages: mpsc::Receiver<NodeMessage>,
    ) {
        writer.set_priority(Priority::Control);
        let welcome = AgentWelcome {
            types: FromAgent::known_types(),
            version: version(),
            journal: self.context.services.journal_id,
            heartbeat: HEARTBEAT,
            lease: LEASE,
            // Not by its slots of now: they may change while it is here, and each attempt needs a stream.
            streams_max: connection.authorise(connection.protocol().streams_max()),
            wall: wall_now(),
        };
        if !matches!(tokio::time::timeout(WELCOME_TIMEOUT, writer.write(&welcome.into())).await, Ok(Ok(()))) {
            connection.close(CloseCode::Internal, "the welcome was not taken in time");
            return;
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().streams(connection.clone()));
        tokio::select! {
            () = self.clone().instruct(&mut writer, messages) => {}
            () = self.listen(reader) => connection.close(CloseCode::Done, "the control stream ended"),
            _ = connection.closed() => {}
            () = self.context.stopping.cancelled() => {
                let after = come_back_after();
                let goodbye = GoAway { after, why: Text::cut("the orchestrator is stopping") };
                let said = async {
                    writer.write(&goodbye.into()).await?;
                    writer.finish().await?;
                    writer.delivered().await
                };
                // One that does not listen learns it from the close.
                let _ = tokio::time::timeout(GOODBYE_TIMEOUT, said).await;
                let _ = tokio::time::timeout(LINGER, connection.closed()).await;
                connection.close(CloseCode::GoingAway, "the orchestrator is stopping");
            }
        }
        tasks.shutdown().await;
        if connection.close_reason().is_none() {
            connection.close(CloseCode::Internal, "");
        }
    }

    /// Instructions down, in the order of their effects. But an assignment whose task cannot be read at the moment does not keep
    /// the others waiting.
    async fn instruct(self: Arc<Self>, writer: &mut Writer, mut messages: mpsc::Receiver<NodeMessage>) {
        let mut probes = 0;
        let mut unread: VecDeque<Unread> = VecDeque::new();
        loop {
            let due = unread.front().map(|first| first.again);
            let (message, tries) = tokio::select! {
                message = messages.recv() => (message, 0),
                () = reached(due) => match unread.pop_front() {
                    Some(first) => (Some(NodeMessage::Assign(first.assignment)), first.tries),
                    None => continue,
                },
            };
            let Some(message) = message else { return };
            let frame: ToAgent = match message {
                NodeMessage::Reconcile(verdicts) => Reconcile { verdicts: List::cut(verdicts) }.into(),
                NodeMessage::Assign(assignment) => match self.complete(*assignment).await {
                    Ok(assignment) => assignment.into(),
                    Err(Unsent::Needless) => continue,
                    Err(Unsent::Unread(assignment, error)) => {
                        let (attempt, tries) = (assignment.attempt, tries + 1);
                        if passes(&error) && tries < READ_TRIES_MAX {
                            tracing::warn!(%attempt, %error, tries, "the task of an assignment cannot be read now");
                            unread.push_back(Unread { assignment, tries, again: Instant::now() + READ_AGAIN_AFTER });
                        } else {
                            self.unreadable(&assignment, &error.to_string()).await;
                        }
                        continue;
                    }
                },
                NodeMessage::Stop { attempt, fence, grace, cause } => {
                    let of =
                        |other: &Unread| other.assignment.attempt == attempt && other.assignment.claim.fence == fence;
                    // The node has never heard of it, and does not have to: that it did not take it is said for it.
                    if unread.iter().position(of).and_then(|at| unread.remove(at)).is_some() {
                        let message = Text::cut("stopped before its task could be read");
                        let report = Report { attempt, fence, body: ReportBody::Refused { message } };
                        let report = Command::Report { node: self.node, session: self.id, report };
                        let _ = self.context.services.engine.tell(report).await; // an engine that is gone stops nothing
                        continue;
                    }
                    Stop { attempt, fence, grace, cause }.into()
                }
                NodeMessage::Ack { attempt, fence } => ReportAck { attempt, fence }.into(),
                NodeMessage::Probe => {
                    probes += 1;
                    Probe { number: probes }.into()
                }
            };
            if let Err(error) = writer.write(&frame).await {
                tracing::debug!(node = %self.identity.name, %error, "control stream");
                return;
            }
        }
    }

    /// Marks the fence and puts the body inline.
    async fn complete(&self, mut assignment: Assignment) -> Result<Assignment, Unsent> {
        let services = &self.context.services;
        let (attempt, fence) = (assignment.attempt, assignment.claim.fence);
        assignment.claim = services.fence_key.claim(fence);
        if let TaskBody::Inline(_) = &assignment.spec.body {
            return Ok(assignment);
        }
        // A job that is gone by now needs no assignment any more, and neither does an attempt that was given up.
        let account = move |control: &modchain_core::Control, _| {
            let job = control.job(attempt.job)?;
            job.placement_of(attempt, fence).map(|_| job.account.clone())
        };
        let Ok(Some(account)) = services.engine.query(account).await else { return Err(Unsent::Needless) };
        match task_of(&services.blobs, &account, &assignment.spec).await {
            Ok(task) => {
                assignment.spec.body = TaskBody::Inline(task);
                Ok(assignment)
            }
            Err(error) => Err(Unsent::Unread(Box::new(assignment), error)),
        }
    }

    /// The assignment will not be sent; the engine ends the job.
    async fn unreadable(&self, assignment: &Assignment, why: &str) {
        let (attempt, fence, message) = (assignment.attempt, assignment.claim.fence, Text::cut(why));
        tracing::error!(%attempt, why, "the task of an assignment cannot be read");
        let _ = self.context.services.engine.tell(Command::BodyUnreadable { attempt, fence, message }).await;
    }

    /// Reports up.
    async fn listen(&self, mut reader: Reader) {
        loop {
            let (node, session) = (self.node, self.id);
            let command = match reader.read().await {
                Ok(Some(FromAgent::Report(report))) => Command::Report { node, session, report },
                Ok(Some(FromAgent::OfferChanged(changed))) => {
                    // Whoever changes it all the time waits, and with it whatever else it has to say here.
                    while let Err(wait) = self.context.offers.take(self.identity.id, Instant::now()) {
                        tokio::time::sleep(wait).await;
                    }
                    Command::OfferChanged { node, session, offer: Box::new(changed.offer) }
                }
                Ok(Some(FromAgent::ProbeAnswer(_))) => Command::AgentHeard { node, session },
                Ok(Some(other)) => {
                    tracing::warn!(node = %self.identity.name, kind = other.kind(), "not on the control stream");
                    reader.stop(StreamCode::Refused);
                    return;
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(node = %self.identity.name, %error, "control stream");
                    return;
                }
            };
            if self.context.services.engine.tell(command).await.is_err() {
                return;
            }
        }
    }

    /// Takes the agent's other streams; each has a task that ends with this one.
    async fn streams(self: Arc<Self>, connection: Connection) {
        let mut streams = JoinSet::new();
        loop {
            tokio::select! {
                accepted = connection.accept_bi::<ToAgent, FromAgent>() => match accepted {
                    Ok((writer, reader)) => drop(streams.spawn(self.clone().stream(writer, reader))),
                    Err(reason) => {
                        let reason: CloseReason = reason;
                        tracing::debug!(node = %self.identity.name, %reason, "connection");
                        return;
                    }
                },
                Some(ended) = streams.join_next() => log_panic(ended, "an agent's stream"),
            }
        }
    }

    async fn stream(self: Arc<Self>, mut writer: Writer, mut reader: Reader) {
        let first = tokio::time::timeout(FIRST_FRAME_TIMEOUT, reader.read()).await;
        match first {
            Ok(Ok(Some(FromAgent::Heartbeat(first)))) => self.heartbeats(writer, reader, first).await,
            Ok(Ok(Some(FromAgent::AttemptOpen(open)))) => relay::serve(&self, writer, reader, open).await,
            Ok(Ok(Some(FromAgent::BlobGet(get)))) => {
                if tokio::time::timeout(BLOB_TIMEOUT, self.blob(&mut writer, get)).await.is_err() {
                    writer.reset(StreamCode::Stalled);
                }
            }
            Ok(Ok(Some(FromAgent::Renew(request)))) => self.renew(&mut writer, &request).await,
            Ok(Ok(Some(_))) => {
                reader.stop(StreamCode::Refused);
                writer.reset(StreamCode::Refused);
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => give_up(&mut writer, &error),
            Err(_) => {
                reader.stop(StreamCode::Stalled);
                writer.reset(StreamCode::Stalled);
            }
        }
    }

    /// Echoed at once: the agent's lease hangs on it.
    async fn heartbeats(&self, mut writer: Writer, mut reader: Reader, first: Heartbeat) {
        writer.set_priority(Priority::Heartbeat);
        let mut heartbeat = first;
        // Looks at the GPUs that the feed has not taken yet.
        let mut untold: Vec<Tick> = Vec::new();
        loop {
            let echo = HeartbeatEcho { number: heartbeat.number, sent: heartbeat.sent };
            if writer.write(&echo.into()).await.is_err() {
                return;
            }
            let heard = Command::AgentHeard { node: self.node, session: self.id };
            if self.context.services.engine.tell(heard).await.is_err() {
                return;
            }
            let seen = wall_now();
            untold.extend(heartbeat.gpus.into_vec().into_iter().map(|tick| {
                let ago = i64::try_from(tick.ago.0 / 1000).unwrap_or(i64::MAX);
                let taken = Timestamp(heartbeat.sent.0.saturating_sub(tick.ago.0));
                Tick { taken, at: WallTime(seen.0.saturating_sub(ago)), gpus: tick.gpus }
            }));
            untold.drain(..untold.len().saturating_sub(UNTOLD_TICKS_MAX));
            let (load, rtt, boot) = (heartbeat.load, heartbeat.rtt, self.boot);
            let pulse = Pulse { load, rtt, seen, boot, ticks: untold.clone() };
            if self.context.feed.heartbeat(self.node, pulse) {
                untold.clear();
            }
            heartbeat = match reader.read().await {
                Ok(Some(FromAgent::Heartbeat(next))) => next,
                Ok(Some(_)) => {
                    reader.stop(StreamCode::Refused);
                    writer.reset(StreamCode::Refused);
                    return;
                }
                Ok(None) => return,
                Err(error) => return give_up(&mut writer, &error),
            };
        }
    }

    /// A certificate for a new key of this node.
    async fn renew(&self, writer: &mut Writer, request: &RenewRequest) {
        let answer: ToAgent = match certify::renew(&self.context, &self.connection, &self.identity, request).await {
            Ok(renewed) => renewed.into(),
            Err(error) => {
                tracing::warn!(node = %self.identity.name, %error, "the certificate is not renewed");
                StreamRefused { why: Sentence::cut(error.to_string()), retryable: error.retryable() }.into()
            }
        };
        // Whoever does not hear it asks again.
        let _ = writer.write(&answer).await;
        let _ = writer.finish().await;
    }

    /// A blob, only if the attempt that is live on this node under this fence names it.
    async fn blob(&self, writer: &mut Writer, get: BlobGet) {
        writer.set_priority(Priority::Bulk);
        match self.send_blob(writer, get).await {
            Ok(()) => drop(writer.finish().await),
            Err(BlobFailure::Refused(refused)) => {
                let _ = writer.write(&refused.into()).await;
                let _ = writer.finish().await;
            }
            // Half a blob must not look like a whole one.
            Err(BlobFailure::Broken) => writer.reset(StreamCode::Internal),
        }
    }

    async fn send_blob(&self, writer: &mut Writer, get: BlobGet) -> Result<(), BlobFailure> {
        let services = &self.context.services;
        let node = self.node;
        let live = move |control: &modchain_core::Control, _| {
            let job = control.job(get.attempt.job)?;
            job.placement_of(get.attempt, get.fence).filter(|placement| placement.node == node)?;
            Some((job.account.clone(), job.spec.clone()))
        };
        let (account, spec) = services
            .engine
            .query(live)
            .await
            .map_err(|gone| refused(gone.to_string(), true))?
            .ok_or_else(|| refused("this attempt does not run here under this fence", false))?;
        let task = task_of(&services.blobs, &account, &spec).await.map_err(blob_refused)?;
        if !named_by(&task).contains(&get.digest) {
            return Err(refused("the attempt does not name this blob", false));
        }
        let mut blob = services.blobs.open_blob(&account, &get.digest).await.map_err(blob_refused)?;
        let broken = |_| BlobFailure::Broken;
        writer.write(&BlobHead { bytes: blob.bytes() }.into()).await.map_err(broken)?;
        loop {
            let piece = blob.next(CHUNK_BYTES_MAX).await.map_err(|error| {
                tracing::error!(digest = %get.digest, %error, "a blob cannot be read");
                BlobFailure::Broken
            })?;
            let Some(piece) = piece else { return Ok(()) };
            let data = Data::new(piece).map_err(|_| BlobFailure::Broken)?;
            writer.write(&BlobChunk { data }.into()).await.map_err(broken)?;
        }
    }
}

/// An assignment whose task is to be read again.
struct Unread {
    assignment: Box<Assignment>,
    /// How often it was tried.
    tries: u32,
    again: Instant,
}

/// Why an assignment is not sent.
enum Unsent {
    /// Nobody needs it any more.
    Needless,
    /// Its task cannot be read.
    Unread(Box<Assignment>, BlobError),
}

/// Comes back at this moment, or never.
async fn reached(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

enum BlobFailure {
    Refused(StreamRefused),
    Broken,
}

fn refused(why: impl Into<String>, retryable: bool) -> BlobFailure {
    BlobFailure::Refused(StreamRefused { why: Sentence::cut(why), retryable })
}

/// Whether it may be otherwise in a while: too many files are open, or the disk fails now and then.
fn passes(error: &BlobError) -> bool {
    match error {
        BlobError::Full | BlobError::Disk(_) => true,
        BlobError::TooLarge { .. }
        | BlobError::Quota { .. }
        | BlobError::TooMany { .. }
        | BlobError::Mismatch { .. }
        | BlobError::Missing
        | BlobError::Damaged => false,
    }
}

fn blob_refused(error: BlobError) -> BlobFailure {
    refused(error.to_string(), passes(&error))
}

/// Lets the agent know why its stream ends.
pub(crate) fn give_up(writer: &mut Writer, error: &ReadError) {
    if let Some(code) = error.stream_code() {
        writer.reset(code);
    }
}

/// How a connection that the engine refuses is closed.
fn close_code(refused: &Refused) -> CloseCode {
    match refused {
        Refused::DuplicateInstance => CloseCode::DuplicateInstance,
        // It may come back in a second, when the older connection has answered or has not.
        Refused::Probing => CloseCode::TooManyConnections,
        Refused::UnknownNode => CloseCode::UnknownIdentity,
        Refused::StaleSession => CloseCode::Superseded,
        Refused::Revoked => CloseCode::Revoked,
        Refused::Frozen { .. }
        | Refused::NotAllowed { .. }
        | Refused::Invalid { .. }
        | Refused::UnknownJob
        | Refused::UnknownAccount { .. }
        | Refused::NameTaken { .. }
        | Refused::IdempotencyConflict { .. }
        | Refused::InsufficientFunds { .. }
        | Refused::Limit { .. }
        | Refused::NoFit { .. }
        | Refused::AlreadyEnded { .. }
        | Refused::NotTestMoney
        | Refused::UnknownIdentity
        | Refused::AlreadyRevoked { .. }
        | Refused::LastOperator { .. }
        | Refused::UnknownToken
        | Refused::TokenTaken
        | Refused::TokenExpired
        | Refused::TokenUsed
        | Refused::TokenRevoked
        | Refused::WrongProof
        | Refused::WrongRole { .. }
        | Refused::WrongName { .. } => CloseCode::Internal,
    }
}

/// Evenly between now and [`COME_BACK_WITHIN`].
fn come_back_after() -> Span {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut random = [0; 8];
    if SystemRandom::new().fill(&mut random).is_err() {
        return Span::from(COME_BACK_WITHIN);
    }
    let within = Span::from(COME_BACK_WITHIN).0;
    Span(u64::from_le_bytes(random) % (within + 1))
}

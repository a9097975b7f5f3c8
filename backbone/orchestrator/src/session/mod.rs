//! Connections: who comes in, what may be said, and who stops it.
//!
//! ```text
//! accept → identity known? ─┬─ agent   (control, heartbeats, attempts → relay, blobs)
//!                           └─ console (one task for each request)
//! join port ── join (one short conversation)
//! ```
//!
//! [`Server`] owns the accept loop, which owns a task for each connection, which owns a task for each stream: stopping the
//! server stops them all.

mod agent;
mod certify;
mod console;
mod counts;
mod jobs_blobs;
mod join;
mod rate;
mod sources;
mod suspicions;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use modchain_certs::{Credentials, TlsError};
use modchain_core::{Command, SessionId};
use modchain_link::{Accepted, CloseCode, Endpoint, JoinEndpoint, Protocol};
use modchain_types::{IdentityId, JobId, Role, Text, WallTime};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::dispatch::DispatchHandle;
use crate::feed::FeedHandle;
use crate::serve::Services;

pub(crate) use agent::AgentSession;
pub(crate) use counts::Counts;
pub(crate) use jobs_blobs::named_by;
pub use jobs_blobs::reference_blobs;
pub(crate) use suspicions::{Suspicion, Suspicions};

/// Longest wait for the first frame of a connection, and of a stream.
pub(crate) const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait, at the end, for sessions to say goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for peers to hear of the close of the endpoint.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a peer that was told to come back later may take to read that, before its connection is closed under it.
pub(crate) const LINGER: Duration = Duration::from_millis(200);

/// What every session works with.
pub(crate) struct Context {
    pub(crate) services: Services,
    pub(crate) feed: FeedHandle,
    dispatch: DispatchHandle,
    endpoint: Arc<Endpoint>,
    sessions: AtomicU64,
    /// Streams that send a job's standard input.
    pub(crate) input_writers: Counts<JobId>,
    /// Requests of an identity on all its connections.
    requests: Counts<IdentityId>,
    submits: rate::RateLimit,
    offers: rate::RateLimit,
    renewals: rate::RateLimit,
    tokens: rate::RateLimit,
    sources: sources::Sources,
    pub(crate) suspicions: Suspicions,
    pub(crate) stopping: CancellationToken,
}

impl Context {
    fn next_session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed))
    }
}

/// Shows newcomers of both ports another certificate.
pub struct Shower {
    main: Arc<Endpoint>,
    join: Arc<JoinEndpoint>,
}

impl Shower {
    /// From now on; connections that are there stay.
    pub fn show(&self, credentials: &Credentials) -> Result<(), TlsError> {
        self.main.show(credentials)?;
        self.join.show(credentials)
    }
}

/// The orchestrator's connections.
pub struct Server {
    join_endpoint: Arc<JoinEndpoint>,
    context: Arc<Context>,
    accepting: JoinHandle<()>,
    joining: JoinHandle<()>,
}

impl Server {
    /// Begins to take connections.
    pub fn start(
        endpoint: Endpoint,
        join_endpoint: JoinEndpoint,
        services: Services,
        feed: FeedHandle,
        dispatch: DispatchHandle,
    ) -> Self {
        let (endpoint, join_endpoint) = (Arc::new(endpoint), Arc::new(join_endpoint));
        let context = Arc::new(Context {
            services,
            feed,
            dispatch,
            endpoint: endpoint.clone(),
            sessions: AtomicU64::new(1),
            input_writers: Counts::default(),
            requests: Counts::default(),
            submits: rate::RateLimit::new(rate::Rate::SUBMITS),
            offers: rate::RateLimit::new(rate::Rate::OFFERS),
            renewals: rate::RateLimit::new(rate::Rate::RENEWALS),
            tokens: rate::RateLimit::new(rate::Rate::TOKENS),
            sources: sources::Sources::default(),
            suspicions: Suspicions::default(),
            stopping: CancellationToken::new(),
        });
        let accepting = tokio::spawn(accept(endpoint, context.clone()));
        let joining = tokio::spawn(join::accept(join_endpoint.clone(), context.clone()));
        Self { join_endpoint, context, accepting, joining }
    }

    /// Where it listens.
    pub fn local_address(&self) -> std::io::Result<std::net::SocketAddr> {
        self.context.endpoint.local_address()
    }

    /// Where it listens for joiners.
    pub fn join_address(&self) -> std::io::Result<std::net::SocketAddr> {
        self.join_endpoint.local_address()
    }

    /// What shows newcomers a new certificate.
    pub fn shower(&self) -> Shower {
        Shower { main: self.context.endpoint.clone(), join: self.join_endpoint.clone() }
    }

    /// Takes no more connections, tells every peer to come back later, and closes. Bounded: a few seconds at most.
    pub async fn shutdown(mut self) {
        self.context.stopping.cancel();
        let both = async { tokio::join!(&mut self.accepting, &mut self.joining) };
        if tokio::time::timeout(GOODBYE_TIMEOUT, both).await.is_err() {
            tracing::info!("some sessions did not end in time");
            self.accepting.abort();
            self.joining.abort();
        }
        let why = "the orchestrator is stopping";
        tokio::join!(
            self.context.endpoint.close(CloseCode::GoingAway, why, CLOSE_TIMEOUT),
            self.join_endpoint.close(CloseCode::GoingAway, why, CLOSE_TIMEOUT),
        );
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.context.stopping.cancel();
        self.accepting.abort();
        self.joining.abort();
    }
}

async fn accept(endpoint: Arc<Endpoint>, context: Arc<Context>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = context.stopping.cancelled() => break,
            accepted = endpoint.accept() => match accepted {
                Some(accepted) => drop(connections.spawn(serve(accepted, context.clone()))),
                None => break,
            },
            Some(ended) = connections.join_next() => log_panic(ended, "a connection's task"),
        }
    }
    while let Some(ended) = connections.join_next().await {
        log_panic(ended, "a connection's task");
    }
}

pub(crate) fn log_panic(ended: Result<(), tokio::task::JoinError>, what: &'static str) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "{what} panicked");
    }
}

/// A certificate of ours is not enough: the journal must know its identity, with just this role.
async fn serve(accepted: Accepted, context: Arc<Context>) {
    let Accepted { connection, peer, protocol } = accepted;
    let Ok(known) = context.feed.identity(peer.id).await else {
        connection.close(CloseCode::GoingAway, "the orchestrator is stopping");
        return;
    };
    let Some(identity) = known.filter(|identity| identity.role == peer.role) else {
        // Certificates are signed only after the journal knows their identity, so an honest one of a past that this journal
        // does not have; or `init` has made it since the start.
        let text = format!(
            "a certificate of this pool came from {}, and the journal does not know its identity ({} {}): if `init` did not \
             make it since the start, this data is an old copy, and whoever was revoked or has used a token since then may \
             come in again: look at `modchain cert list`",
            connection.remote_address().ip().to_canonical(),
            peer.role,
            peer.id,
        );
        context.suspicions.note(Suspicion::Stranger, peer.id, text, Instant::now());
        connection.close(CloseCode::UnknownIdentity, "");
        return;
    };
    if context.services.gate.is_unused(&peer.id, &peer.serial) {
        let used = Command::CertificateUsed { identity: peer.id, serial: peer.serial };
        let _ = context.services.engine.tell(used).await; // an engine that is gone ends everything
    }
    match (protocol, identity.role) {
        (Protocol::Agent, Role::Node) => agent::serve(connection, identity, context).await,
        (Protocol::Console, Role::Client | Role::Operator) => console::serve(connection, identity, context).await,
        (Protocol::Agent, Role::Client | Role::Operator | Role::Orchestrator)
        | (Protocol::Console, Role::Node | Role::Orchestrator) => connection.close(CloseCode::WrongRole, ""),
    }
}

/// By this machine's wall clock, for display.
pub(crate) fn wall_now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Of this program.
pub(crate) fn version() -> Text<64> {
    Text::cut(env!("CARGO_PKG_VERSION"))
}

//! One connection to the orchestrator: hello and welcome, one method per request, and streams of replies. Every failure comes
//! out as a [`Failure`] that says whether trying again may help ([`Failure::lost`]).

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use modchain_certs::{Credentials, PeerIdentity, TrustDomain};
use modchain_link::{
    CertificateRefusal, ConnectError, Connection, FrameReader, FrameWriter, OpenError, Protocol, ReadError, WriteError,
};
use modchain_types::{Digest, Span, Text, WallTime};
use modchain_wire::console::{
    AccountQuery, BlobFetch, BlobPiece, BlobPut, BlobStored, Cancel, ConsoleHello, ConsoleWelcome, Credit,
    ExplainQuery, IdentitiesPage, IdentitiesQuery, JobQuery, JobsPage, JobsQuery, LedgerPage, LedgerQuery, LinkQuery,
    NodeQuery, NodeSet, NodesPage, NodesQuery, QuoteRequest, RefusalCode, Revoke, SpecQuery, SpecView, StatusQuery,
    Submit, Submitted, TokenCreate, TokenRevoke, TokensPage, TokensQuery, WhoamiQuery,
};
use modchain_wire::view::{
    AccountView, ExplanationView, IdentityView, JobView, LinkView, NodeHistoryView, NodeView, QuoteView, RevokedView,
    StatusView, TokenView,
};
use modchain_wire::{CHUNK_BYTES_MAX, Data, FromConsole, Message, ToConsole};

use super::identities::read_joined;
use super::renewal::{self, Renewal, Tell};
use crate::exit::Failure;
use crate::text::{self, wall_now};

/// Longest wait for the answer to one request. The orchestrator answers from memory, or after one sync of its disk.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for each next piece of a blob to be taken, and for the word that it is stored.
const BLOB_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait for the reason of a close, which travels on its own.
const CLOSE_REASON_TIMEOUT: Duration = Duration::from_secs(1);

/// An admitted connection.
pub(crate) struct Client {
    connection: Connection,
    welcome: ConsoleWelcome,
    address: String,
    certificate: PeerIdentity,
    trust_domain: TrustDomain,
    /// How far the orchestrator's clock was ahead of this one when it welcomed us, in milliseconds; half a round trip is
    /// taken off.
    clock_ahead_ms: i64,
    /// `None` only while it is dropped.
    renewal: Option<Renewal>,
    /// The first stream stays open as long as the connection is used.
    _control: (FrameWriter<FromConsole>, FrameReader<ToConsole>),
}

/// How long a port on which nothing listens is tried again: an orchestrator that died is back within that.
const RESTART_PATIENCE: Duration = Duration::from_secs(2);
/// Between two such tries.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// Connects; an orchestrator that is just being restarted is waited for.
async fn dial(credentials: &Credentials, address: &str) -> Result<Connection, ConnectError> {
    let begun = tokio::time::Instant::now();
    loop {
        match modchain_link::connect(credentials, address, Protocol::Console).await {
            Err(ConnectError::Refused { .. }) if begun.elapsed() < RESTART_PATIENCE => {
                tokio::time::sleep(RESTART_PAUSE).await;
            }
            answer => return answer,
        }
    }
}

impl Client {
    /// Connects as the identity in this folder. `patience` bounds the whole of it; `tell` hears what its user should know
    /// of the certificate, as long as the connection is held.
    pub(crate) async fn connect(
        address: &str,
        identity: &Path,
        patience: Duration,
        tell: Tell,
    ) -> Result<Self, Failure> {
        if !Credentials::exist(identity) {
            return Err(Failure::not_logged_in(format!("there is no identity in {}", identity.display())).hint(
                "modchain join makes one with a token: modchain join --orchestrator HOST:PORT --token-file FILE",
            ));
        }
        let credentials = Credentials::load(identity).map_err(|error| {
            Failure::not_logged_in(format!("cannot use the identity in {}: {}", identity.display(), chain(&error)))
        })?;
        tokio::time::timeout(patience, Self::connect_with(&credentials, identity, address, tell))
            .await
            .unwrap_or_else(|_| Err(cannot_reach(address, &format!("no answer within {}", Span::from(patience)))))
    }

    async fn connect_with(
        credentials: &Credentials,
        identity: &Path,
        address: &str,
        tell: Tell,
    ) -> Result<Self, Failure> {
        let certificate = *credentials.identity();
        let failed = |error: &ConnectError| connect_failure(address, error, identity, &certificate);
        let connection = dial(credentials, address).await.map_err(|error| failed(&error))?;
        let asked = tokio::time::Instant::now();
        let hello = ConsoleHello {
            types: ToConsole::known_types(),
            version: Text::cut(env!("CARGO_PKG_VERSION")),
            wall: wall_now(),
        };
        let welcomed = async {
            let (mut writer, mut reader) = connection.open_bi().await.map_err(|error| open_failure(&error))?;
            writer.write(&FromConsole::from(hello)).await.map_err(|error| write_failure(&error))?;
            match next(&mut reader).await? {
                Some(ToConsole::Welcome(welcome)) => Ok((welcome, (writer, reader))),
                other => Err(unexpected(other.as_ref())),
            }
        };
        match welcomed.await {
            Ok((welcome, control)) => {
                let half_way = i64::try_from(asked.elapsed().as_millis() / 2).unwrap_or(i64::MAX);
                let clock_ahead_ms = welcome.wall.0.saturating_add(half_way).saturating_sub(wall_now().0);
                let renewal = Renewal::start(connection.clone(), identity, certificate, tell);
                Ok(Self {
                    connection,
                    welcome,
                    address: address.to_owned(),
                    certificate,
                    trust_domain: credentials.trust_domain().clone(),
                    clock_ahead_ms,
                    renewal: Some(renewal),
                    _control: control,
                })
            }
            // The certificate is judged only after the handshake: the reason is that of the close.
            Err(failure) if failure.lost => {
                match tokio::time::timeout(CLOSE_REASON_TIMEOUT, connection.why_refused()).await {
                    Ok(error) => Err(failed(&error)),
                    Err(_) => Err(failure),
                }
            }
            Err(failure) => Err(failure),
        }
    }

    /// What the orchestrator said at the start.
    pub(crate) fn welcome(&self) -> &ConsoleWelcome {
        &self.welcome
    }

    /// Where it is.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The certificate that this connection was made with.
    pub(crate) fn certificate(&self) -> &PeerIdentity {
        &self.certificate
    }

    /// The name of everything that the orchestrator's root has issued.
    pub(crate) fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// How far the orchestrator's clock is ahead of this one, in milliseconds; negative when it is behind.
    pub(crate) fn clock_ahead_ms(&self) -> i64 {
        self.clock_ahead_ms
    }

    /// The path's current round trip.
    pub(crate) fn rtt(&self) -> Span {
        self.connection.rtt().into()
    }

    /// Datagrams that have come so far: the only ones that a quiet connection has are those that keep it alive.
    pub(crate) fn datagrams_received(&self) -> u64 {
        self.connection.datagrams_received()
    }

    /// Waits for the end of the connection, and says how it came.
    pub(crate) async fn closed(&self) -> Failure {
        Failure::lost(chain(&self.connection.closed().await))
    }

    /// Where the other end is now.
    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// Whether the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    /// One request whose answer is looked at by somebody else.
    pub(crate) async fn request(&self, request: FromConsole) -> Result<ToConsole, Failure> {
        self.ask(request, Ok).await
    }

    /// Opens a stream with this request. Its replies come as long as the stream is kept.
    pub(crate) async fn open(&self, request: impl Into<FromConsole>) -> Result<Replies, Failure> {
        let (mut writer, reader) = self.connection.open_bi().await.map_err(|error| open_failure(&error))?;
        writer.write(&request.into()).await.map_err(|error| write_failure(&error))?;
        Ok(Replies { writer, reader })
    }

    /// One request, one answer.
    async fn ask<T>(
        &self,
        request: impl Into<FromConsole>,
        pick: impl FnOnce(ToConsole) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let answer = async {
            let mut replies = self.open(request).await?;
            replies.writer.finish().await.map_err(|error| write_failure(&error))?;
            let reply = replies.next().await?;
            pick(reply)
        };
        tokio::time::timeout(REPLY_TIMEOUT, answer)
            .await
            .unwrap_or_else(|_| Err(Failure::lost(format!("{} does not answer", self.address))))
    }
}

/// Whoever lets go of a connection says good-bye: the orchestrator counts connections, and would count this one until its
/// silence is noticed.
impl Drop for Client {
    fn drop(&mut self) {
        if let Some(renewal) = self.renewal.take() {
            renewal.part();
        }
        GOODBYE_SAID.store(true, Ordering::Relaxed);
    }
}

/// Whether a good-bye may still be on its way out.
static GOODBYE_SAID: AtomicBool = AtomicBool::new(false);

/// Time for the link's own thread to hand the good-bye to the system. Waiting for the answer would cost every command a
/// tenth of a second; if the word is lost, silence says the same later.
const GOODBYE_TIME: Duration = Duration::from_millis(5);

/// To be called before the process ends; in a `hurry` if a signal ends it.
pub(crate) async fn let_goodbyes_out(hurry: bool) {
    if GOODBYE_SAID.load(Ordering::Relaxed) {
        renewal::let_finish(hurry).await;
        tokio::time::sleep(GOODBYE_TIME).await;
    }
}

macro_rules! requests {
    ($($(#[$doc:meta])* $method:ident($request:ty) -> $reply:ty: $variant:ident;)+) => {
        impl Client {
            $($(#[$doc])*
            pub(crate) async fn $method(&self, request: $request) -> Result<$reply, Failure> {
                self.ask(request, |reply| match reply {
                    ToConsole::$variant(body) => Ok(body),
                    other => Err(unexpected(Some(&other))),
                })
                .await
            })+
        }
    };
}

requests! {
    /// Submits a job.
    submit(Submit) -> Submitted: Submitted;
    /// Asks what a job would cost.
    quote(QuoteRequest) -> QuoteView: Quote;
    /// Cancels a job; the answer is the job as it is once the wish is durable.
    cancel(Cancel) -> JobView: Job;
    /// Asks for a page of jobs.
    jobs(JobsQuery) -> JobsPage: Jobs;
    /// Asks for one job.
    job(JobQuery) -> JobView: Job;
    /// Asks for the specification that a job was submitted with.
    spec(SpecQuery) -> SpecView: Spec;
    /// Asks why a job is where it is.
    explain(ExplainQuery) -> ExplanationView: Explanation;
    /// Asks for a page of nodes.
    nodes(NodesQuery) -> NodesPage: Nodes;
    /// Asks for one node with the last minutes of its GPUs.
    node(NodeQuery) -> NodeHistoryView: NodeHistory;
    /// Closes a node to new jobs, drains it, or opens it again.
    node_set(NodeSet) -> NodeView: NodeIs;
    /// Asks for an account.
    account(AccountQuery) -> AccountView: Account;
    /// Asks for a page of a statement.
    ledger(LedgerQuery) -> LedgerPage: Ledger;
    /// Asks how things are.
    status(StatusQuery) -> StatusView: Status;
    /// Gives test credits.
    credit(Credit) -> AccountView: Account;
    /// Asks about oneself.
    whoami(WhoamiQuery) -> IdentityView: Identity;
    /// Asks for a page of identities.
    identities(IdentitiesQuery) -> IdentitiesPage: Identities;
    /// Puts somebody out; the answer comes once every connection is cut.
    revoke(Revoke) -> RevokedView: Revoked;
    /// Lets somebody join, once.
    token_create(TokenCreate) -> TokenView: Token;
    /// Asks for tokens.
    tokens(TokensQuery) -> TokensPage: Tokens;
    /// Lets nobody join with a token any more.
    token_revoke(TokenRevoke) -> TokenView: Token;
    /// Asks how the orchestrator's sockets are.
    link(LinkQuery) -> LinkView: Link;
}

impl Client {
    /// Puts a blob into the account's store; one that is there already is not sent.
    pub(crate) async fn put_blob(&self, bytes: &Bytes) -> Result<BlobStored, Failure> {
        let request = BlobPut { digest: Digest::of(bytes), bytes: bytes.len() as u64 };
        let Replies { mut writer, mut reader } = self.open(request).await?;
        let slow = || Failure::lost(format!("{} does not take what was to be uploaded", self.address));
        let send = async {
            for start in (0..bytes.len()).step_by(CHUNK_BYTES_MAX) {
                let piece = bytes.slice(start..bytes.len().min(start + CHUNK_BYTES_MAX));
                let data = Data::new(piece).expect("a piece is no longer than a chunk");
                let piece = FromConsole::from(BlobPiece { data });
                tokio::time::timeout(BLOB_TIMEOUT, writer.write(&piece))
                    .await
                    .map_err(|_| slow())?
                    .map_err(|error| write_failure(&error))?;
            }
            writer.finish().await.map_err(|error| write_failure(&error))
        };
        // The answer may come before the last piece: when the blob is there already, or is refused.
        let answer = async {
            match next(&mut reader).await? {
                Some(ToConsole::BlobStored(stored)) => Ok(stored),
                Some(ToConsole::Refusal(refusal)) => Err(refusal.into()),
                other => Err(unexpected(other.as_ref())),
            }
        };
        tokio::pin!(answer);
        tokio::select! {
            biased;
            stored = &mut answer => return stored,
            sent = send => match sent {
                Ok(()) => {}
                // The other side stopped reading: its answer says why, if there is one.
                Err(failure) => return tokio::time::timeout(CLOSE_REASON_TIMEOUT, answer).await.unwrap_or(Err(failure)),
            },
        }
        tokio::time::timeout(BLOB_TIMEOUT, answer).await.unwrap_or_else(|_| Err(slow()))
    }
}

impl Client {
    /// A blob of one's own account, at most `max` bytes and checked against its digest; `None` if it is not there.
    pub(crate) async fn fetch_blob(&self, digest: Digest, max: u64) -> Result<Option<Bytes>, Failure> {
        let slow = || Failure::lost(format!("{} does not send what was asked for", self.address));
        let damaged = || Failure::failed(format!("the orchestrator's copy of {digest} is damaged"));
        let mut replies = self.open(BlobFetch { digest }).await?;
        let mut bytes = Vec::new();
        let mut left = None;
        while left != Some(0) {
            let reply = tokio::time::timeout(BLOB_TIMEOUT, replies.next()).await.map_err(|_| slow())?;
            match (reply, left) {
                (Err(failure), None) if failure.code == RefusalCode::MissingBlob.word() => return Ok(None),
                (Err(failure), _) => return Err(failure),
                (Ok(ToConsole::BlobHead(head)), None) if head.bytes > max => return Err(damaged()),
                (Ok(ToConsole::BlobHead(head)), None) => left = Some(head.bytes),
                (Ok(ToConsole::BlobChunk(chunk)), Some(due)) => {
                    left = Some(due.checked_sub(chunk.data.len() as u64).ok_or_else(damaged)?);
                    bytes.extend_from_slice(&chunk.data);
                }
                (Ok(other), _) => return Err(unexpected(Some(&other))),
            }
        }
        let bytes = Bytes::from(bytes);
        if Digest::of(&bytes) == digest { Ok(Some(bytes)) } else { Err(damaged()) }
    }
}

/// A stream of replies to one request.
pub(crate) struct Replies {
    writer: FrameWriter<FromConsole>,
    reader: FrameReader<ToConsole>,
}

impl Replies {
    /// The next reply; an end before the last one is a lost connection. Waits for ever. May be dropped and asked again.
    pub(crate) async fn next(&mut self) -> Result<ToConsole, Failure> {
        match next(&mut self.reader).await? {
            Some(ToConsole::Refusal(refusal)) => Err(refusal.into()),
            Some(ToConsole::GoingAway(_)) => Err(Failure::lost("the orchestrator is shutting down")),
            Some(reply) => Ok(reply),
            None => Err(Failure::lost("the orchestrator ended the stream")),
        }
    }

    /// Both halves, for requests that go on in both directions.
    pub(crate) fn split(&mut self) -> (&mut FrameWriter<FromConsole>, &mut FrameReader<ToConsole>) {
        (&mut self.writer, &mut self.reader)
    }
}

/// The next message as it is, refusals included; `None` at the end of the stream.
pub(crate) async fn next(reader: &mut FrameReader<ToConsole>) -> Result<Option<ToConsole>, Failure> {
    reader.read().await.map_err(|error| read_failure(&error))
}

/// A message that does not belong there.
pub(crate) fn unexpected(message: Option<&ToConsole>) -> Failure {
    match message {
        Some(ToConsole::Refusal(refusal)) => refusal.clone().into(),
        Some(ToConsole::GoingAway(_)) => Failure::lost("the orchestrator is shutting down"),
        Some(message) => {
            Failure::failed(format!("the orchestrator answered with a message of type {:#04x}", message.kind()))
                .hint("modchain version --server")
        }
        None => Failure::lost("the orchestrator ended the stream"),
    }
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

fn cannot_reach(address: &str, why: &str) -> Failure {
    Failure::unreachable(format!("cannot reach {address}: {why}"))
        .hint("modchain doctor looks for the reason; `modchain up` starts a local stack")
}

fn connect_failure(address: &str, error: &ConnectError, identity: &Path, certificate: &PeerIdentity) -> Failure {
    let why = text::one_line(&chain(error));
    let failure = match error {
        ConnectError::Resolve { .. }
        | ConnectError::Socket(_)
        | ConnectError::Refused { .. }
        | ConnectError::Silent { .. }
        | ConnectError::OrchestratorExpired { .. }
        | ConnectError::TooManyConnections
        | ConnectError::Busy { .. }
        | ConnectError::Closed { .. } => cannot_reach(address, &why),
        ConnectError::NotTrusted { .. } => Failure::untrusted(format!("cannot reach {address}: {why}"))
            .hint("look at the context's address and identity: modchain context show"),
        ConnectError::Version { .. } | ConnectError::OtherThanToken { .. } | ConnectError::NotJoinPort { .. } => {
            Failure::untrusted(format!("cannot reach {address}: {why}"))
        }
        ConnectError::CertificateRefused { why: CertificateRefusal::Expired, .. } => {
            expired(identity, certificate, wall_now())
        }
        ConnectError::CertificateRefused { why: CertificateRefusal::Revoked | CertificateRefusal::Unknown, .. } => {
            Failure::not_logged_in(why)
                .hint("with a new token: modchain join --orchestrator HOST:PORT --token-file FILE")
        }
        ConnectError::Credentials(_) | ConnectError::CertificateRefused { .. } | ConnectError::WrongRole => {
            Failure::not_logged_in(why).hint("look at the context's identity: modchain context show")
        }
    };
    Failure { lost: error.retryable(), ..failure }
}

/// The orchestrator says that our certificate has ended.
fn expired(identity: &Path, certificate: &PeerIdentity, now: WallTime) -> Failure {
    let ended = text::rfc3339(certificate.not_after);
    if now < certificate.not_after {
        return Failure::certificate_expired(format!(
            "by the orchestrator's clock the certificate of this identity is not valid now; by this machine's clock it is, \
             until {ended}"
        ))
        .hint("one of the two clocks is wrong: modchain doctor");
    }
    let role = certificate.role;
    let (join, name) = match read_joined(identity) {
        Some(joined) => (joined.join, joined.name.to_string()),
        None => ("HOST:PORT".into(), "NAME".into()),
    };
    Failure::certificate_expired(format!(
        "the certificate of this identity ended {} ago ({ended})",
        now.since(certificate.not_after)
    ))
    .hint(format!(
        "ask for a token, which is made with `modchain token create --role {role} --name {name} --rejoin`; then: \
         modchain join --orchestrator {join} --token-file FILE"
    ))
}

fn open_failure(error: &OpenError) -> Failure {
    Failure::lost(chain(error))
}

fn read_failure(error: &ReadError) -> Failure {
    match error {
        ReadError::Frame(_) => Failure::failed(format!("the orchestrator's answer cannot be read: {}", chain(error))),
        ReadError::Truncated | ReadError::Stalled | ReadError::Reset(_) | ReadError::Closed(_) => {
            Failure::lost(chain(error))
        }
    }
}

fn write_failure(error: &WriteError) -> Failure {
    match error {
        WriteError::Message(_) => Failure::usage(format!("the request is too large: {}", chain(error))),
        WriteError::Stopped(_) | WriteError::Ended | WriteError::Closed(_) => Failure::lost(chain(error)),
    }
}

#[cfg(test)]
mod tests {
    use modchain_types::{CertificateSerial, IdentityId, KeyDigest, Role};

    use super::*;

    #[test]
    fn who_comes_too_late_is_told_how_to_join_again_and_a_wrong_clock_is_told_apart() {
        let folder = tempfile::tempdir().expect("folder");
        let certificate = PeerIdentity {
            role: Role::Client,
            id: IdentityId([1; 16]),
            serial: CertificateSerial([2; 16]),
            key: KeyDigest([3; 32]),
            not_before: WallTime(0),
            not_after: WallTime(1_000_000),
        };
        let late = expired(folder.path(), &certificate, WallTime(8_200_000));
        assert!(late.message.contains("ended 2h00m ago"), "{late}");
        let hint = late.hint.expect("says what next");
        for word in ["token create --role client --name NAME --rejoin", "modchain join --orchestrator"] {
            assert!(hint.contains(word), "{hint}");
        }
        assert_eq!((late.exit, late.code), (4, "certificate_expired"));
        let early = expired(folder.path(), &certificate, WallTime(500_000));
        assert!(early.hint.expect("says what next").contains("clocks is wrong"));
    }
}

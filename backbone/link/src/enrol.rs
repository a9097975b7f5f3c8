//! The client's side of getting certificates: the first one with a token ([`join`]), and every later one over a connection
//! that the one before has opened ([`renew`]). For agents and consoles alike.
//!
//! ```text
//! key.pem.new ─▶ handshake, pinned ─▶ hello ─▶ challenge, clocks ─▶ request ─▶ accept ─▶ checked ─▶ noted ─▶ in place
//! ```
//!
//! Whatever dies in between, the same command with the same token goes on: the key is kept before anybody hears of it and is
//! used again, and the orchestrator gives the same key the same answer. Nothing that comes back is believed before
//! [`KeyRequest::accept`] has judged it, and nothing that is in use is touched before that. Every wait has a limit.
//!
//! The token's secret is used for one signature and wiped right after; nothing here may print it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use modchain_certs::files::ensure_private_dir;
use modchain_certs::{AcceptError, Credentials, CredentialsError, JoinToken, KeyRequest, PeerIdentity, TrustDomain};
use modchain_types::{Chunk, Identity, JournalId, Name, Span, Text, WallTime};
use modchain_wire::join::{ChainDer, JoinAccept, JoinChallenge, JoinHello, JoinRefused, JoinRequest, RenewRequest};
use modchain_wire::{FromAgent, FromConsole, FromJoiner, Message, ToAgent, ToConsole, ToJoiner};
use quinn::rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use crate::code::CloseCode;
use crate::connection::{Connection, OpenError};
use crate::dial::ConnectError;
use crate::join::{JoinLink, join_connect};
use crate::settings::Protocol;
use crate::stream::{FrameReader, FrameWriter, ReadError, WriteError};

/// Longest wait for one answer: it takes the orchestrator one write to its disk, and it lets nobody stay longer than this
/// on the join port anyway.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Longest wait for the end of a stream whose answer is there already: to let go of it sooner looks like a refusal.
const ENDING_MAX: Duration = Duration::from_secs(1);

/// Longest wait for the reason why a connection ended.
const REASON_MAX: Duration = Duration::from_secs(2);

/// How far this machine's clock may be off the orchestrator's: certificates are dated back by as much, so a clock that is
/// further behind finds its own certificate not yet valid.
pub const CLOCKS_APART_MAX: Span = Span::from_secs(10 * 60);

/// The file whose lock says who gets certificates for an identity.
const LOCK_FILE: &str = "enrol.lock";

/// Where Linux tells the name of the machine.
const HOST_FILE: &str = "/proc/sys/kernel/hostname";
/// Where Linux tells its version.
const KERNEL_FILE: &str = "/proc/sys/kernel/osrelease";

/// What a joiner brings.
pub struct JoinWish {
    /// The token.
    pub token: JoinToken,
    /// The join port, as `HOST:PORT` with the brackets of IPv6.
    pub address: String,
    /// The identity folder; made where it is not there.
    pub dir: PathBuf,
    /// The name to ask for, where the token names none.
    pub name: Option<Name>,
}

/// A joiner that became a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Who it is.
    pub identity: Identity,
    /// What the operator calls the pool.
    pub pool: Name,
    /// The journal behind it.
    pub journal: JournalId,
    /// The main port, as `HOST:PORT`.
    pub main_address: String,
    /// The name of everything that the orchestrator's root has issued.
    pub trust_domain: TrustDomain,
    /// The certificate's end.
    pub expires_at: WallTime,
    /// When it is renewed.
    pub renews_at: WallTime,
    /// Whether an earlier request of this key had got it, and its answer was lost.
    pub existing: bool,
}

/// Why nobody else may get certificates for the identity just now.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another program, or another part of this one, does.
    #[error("another program joins or renews in {} just now", dir.display())]
    Busy {
        /// The identity folder.
        dir: PathBuf,
    },
    /// The lock cannot be had.
    #[error("cannot lock {}", path.display())]
    Io {
        /// The lock's file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why somebody did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// A key or a certificate cannot be kept or read here.
    #[error("cannot keep the identity in {}", dir.display())]
    Files {
        /// The identity folder.
        dir: PathBuf,
        /// What is wrong.
        #[source]
        source: CredentialsError,
    },
    /// Somebody else is at it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// What the caller wanted to note before the identity is in place could not be noted.
    #[error("cannot write down what was joined")]
    Note(#[source] io::Error),
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The orchestrator said no.
    #[error("{}", .0.message)]
    Refused(JoinRefused),
    /// The two clocks are too far apart.
    #[error(
        "this machine's clock is {} {}: it says {}, and the orchestrator's says {}",
        apart(*.here, *.there), if .here < .there { "slow" } else { "fast" }, utc(*.here), utc(*.there)
    )]
    Clock {
        /// By this machine.
        here: WallTime,
        /// By the orchestrator.
        there: WallTime,
    },
    /// The connection ended before the answer, which may have been given.
    #[error("the connection ended before the orchestrator answered ({0})")]
    Lost(String),
    /// No answer came in time.
    #[error("the orchestrator did not answer within {} seconds", ANSWER_MAX.as_secs())]
    NoAnswer,
    /// What came is no answer to what was asked.
    #[error("the orchestrator sent what does not belong here ({0}); one of the two programs is too old")]
    Unexpected(String),
    /// The certificate that came is not taken.
    #[error("the orchestrator sent a certificate that is not the one that was asked for")]
    Certificate(#[from] AcceptError),
}

impl JoinError {
    /// Whether the same command may succeed when it is given again later, with nothing changed here.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Connect(error) => error.retryable(),
            Self::Refused(refused) => refused.code.retryable(),
            Self::Lost(_) | Self::NoAnswer | Self::Lock(LockError::Busy { .. }) => true,
            Self::Files { .. }
            | Self::Note(_)
            | Self::Lock(LockError::Io { .. })
            | Self::Clock { .. }
            | Self::Unexpected(_)
            | Self::Certificate(_) => false,
        }
    }

    /// What next; empty where the message says it.
    pub fn hint(&self) -> String {
        match self {
            Self::Refused(refused) => refused.hint.to_string(),
            Self::Clock { .. } => "set the clock (timedatectl set-ntp true, or chronyc makestep) and join again".into(),
            Self::Lost(_) | Self::NoAnswer => {
                "give the same command again: if the answer was lost on the way, it is given once more".into()
            }
            Self::Files { .. } | Self::Note(_) => "mend that and give the same command again within 10 minutes".into(),
            Self::Lock(LockError::Busy { .. }) => "give the same command again in a moment".into(),
            Self::Lock(LockError::Io { .. }) | Self::Connect(_) | Self::Unexpected(_) | Self::Certificate(_) => {
                String::new()
            }
        }
    }
}

/// Joins with a token and leaves the identity in its folder. Call it again after a failure, with the same token and folder.
pub async fn join(wish: JoinWish) -> Result<Joined, JoinError> {
    join_noting(wish, |_| Ok(())).await
}

/// As [`join`]. `note` is called when all is decided and nothing is in place yet: what it writes down is there whenever the
/// identity is. May block.
pub async fn join_noting(
    wish: JoinWish,
    note: impl FnOnce(&Joined) -> io::Result<()> + Send + 'static,
) -> Result<Joined, JoinError> {
    let JoinWish { token, address, dir, name } = wish;
    let role = token.role();
    let files = |source| JoinError::Files { dir: dir.clone(), source };
    let key_dir = dir.clone();
    let begun = on_disk(move || {
        ensure_private_dir(&key_dir).map_err(CredentialsError::from)?;
        let lock = lock(&key_dir);
        Ok::<_, CredentialsError>((lock, KeyRequest::load_or_create(&key_dir)?))
    });
    let (lock, request) = begun.await.map_err(files)?;
    let lock = lock?;
    let link = join_connect(token.root(), &address).await?;
    let answer = converse(&link, token, name, &request).await;
    let root = link.root().clone();
    // A program that ends now would leave the other side waiting for more.
    link.close_and_wait(CloseCode::Done, "").await;
    let accept = answer?;
    let chain = certificates(&accept.chain);
    let credentials = request.accept(chain, root, role, accept.identity.id, wall())?;
    if accept.identity.role != role {
        return Err(JoinError::Unexpected(format!("a name for the role {}", accept.identity.role)));
    }
    let certified = credentials.identity();
    let joined = Joined {
        main_address: main_address(&address, &accept),
        trust_domain: credentials.trust_domain().clone(),
        expires_at: certified.not_after,
        renews_at: certified.renews_at(),
        identity: accept.identity,
        pool: accept.pool,
        journal: accept.journal,
        existing: accept.existing,
    };
    let noted = joined.clone();
    let keep_dir = dir.clone();
    on_disk(move || {
        // Let go of when the files are in place, even if nobody waits for that any more.
        let _lock = lock;
        note(&noted).map_err(JoinError::Note)?;
        credentials.save(&keep_dir).map_err(|source| JoinError::Files { dir: keep_dir, source })
    })
    .await?;
    Ok(joined)
}

/// The whole conversation. The token is gone when this returns, and before the last answer is waited for.
async fn converse(
    link: &JoinLink,
    token: JoinToken,
    name: Option<Name>,
    request: &KeyRequest,
) -> Result<JoinAccept, JoinError> {
    let (mut up, mut down) = link.open_bi::<FromJoiner, ToJoiner>().await.map_err(|error| match error {
        OpenError::NoStream => JoinError::Unexpected("it takes no stream".into()),
        OpenError::Closed(reason) => JoinError::Lost(reason.sentence()),
    })?;
    let hello = JoinHello {
        types: ToJoiner::known_types(),
        version: Text::cut(env!("CARGO_PKG_VERSION")),
        token: token.id(),
        wall: wall(),
    };
    say(link, &mut up, &hello.into()).await?;
    let JoinChallenge { nonce, wall: there } = match hear(link, &mut down).await? {
        ToJoiner::Challenge(challenge) => challenge,
        ToJoiner::Refused(refused) => return Err(JoinError::Refused(refused)),
        other @ ToJoiner::Accept(_) => return Err(unexpected(&other)),
    };
    let here = wall();
    if apart(here, there) > CLOCKS_APART_MAX {
        return Err(JoinError::Clock { here, there });
    }
    let proof = token.prove(&nonce, &link.exporter(), request.der());
    let message = JoinRequest {
        role: token.role(),
        request: Chunk::new(request.der().to_vec()).expect("a request of ours is short"),
        proof: Chunk::new(proof.to_vec()).expect("a proof of ours is short"),
        name,
        host: line_of(HOST_FILE),
        system: Text::cut(
            format!("{} {} {}", std::env::consts::OS, line_of::<64>(KERNEL_FILE), std::env::consts::ARCH)
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" "),
        ),
    };
    drop(token);
    say(link, &mut up, &message.into()).await?;
    match hear(link, &mut down).await? {
        ToJoiner::Accept(accept) => Ok(accept),
        ToJoiner::Refused(refused) => Err(JoinError::Refused(refused)),
        other @ ToJoiner::Challenge(_) => Err(unexpected(&other)),
    }
}

async fn say(link: &JoinLink, up: &mut FrameWriter<FromJoiner>, message: &FromJoiner) -> Result<(), JoinError> {
    match timeout(ANSWER_MAX, up.write(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(WriteError::Closed(reason))) => Err(JoinError::Lost(reason.sentence())),
        Ok(Err(error)) => Err(why_lost(link, &error.to_string()).await),
        Err(_) => Err(JoinError::NoAnswer),
    }
}

async fn hear(link: &JoinLink, down: &mut FrameReader<ToJoiner>) -> Result<ToJoiner, JoinError> {
    match timeout(ANSWER_MAX, down.read()).await {
        Ok(Ok(Some(message))) => Ok(message),
        Ok(Ok(None)) => Err(why_lost(link, "it ended the stream").await),
        Ok(Err(ReadError::Closed(reason))) => Err(JoinError::Lost(reason.sentence())),
        Ok(Err(ReadError::Frame(error))) => Err(JoinError::Unexpected(error.to_string())),
        Ok(Err(error)) => Err(why_lost(link, &error.to_string()).await),
        Err(_) => Err(JoinError::NoAnswer),
    }
}

/// The reason why the connection ended, if it has; else what was seen of it.
async fn why_lost(link: &JoinLink, seen: &str) -> JoinError {
    match timeout(REASON_MAX, link.closed()).await {
        Ok(reason) => JoinError::Lost(reason.sentence()),
        Err(_) => JoinError::Lost(seen.to_owned()),
    }
}

fn unexpected(message: &ToJoiner) -> JoinError {
    JoinError::Unexpected(format!("a frame of type {:#04x}", message.kind()))
}

/// Where members connect: the host that was joined at, unless the orchestrator says another.
fn main_address(joined_at: &str, accept: &JoinAccept) -> String {
    let host = match &accept.main_host {
        Some(host) if host.contains(':') && !host.starts_with('[') => format!("[{host}]"),
        Some(host) => host.to_string(),
        None => joined_at.rsplit_once(':').map_or(joined_at, |(host, _)| host).to_owned(),
    };
    format!("{host}:{}", accept.main_port)
}

/// A certificate that took the place of an older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// What the new one says.
    pub identity: PeerIdentity,
}

/// Why a certificate was not renewed. The old one and its key are as they were.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// Somebody else is at it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A key or a certificate cannot be kept or read here.
    #[error("cannot keep the identity")]
    Files(#[from] CredentialsError),
    /// No stream for it can be had.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The connection, or the stream, ended before the answer, which may have been given.
    #[error("the stream ended before the orchestrator answered ({0})")]
    Lost(String),
    /// No answer came in time.
    #[error("the orchestrator did not answer within {} seconds", ANSWER_MAX.as_secs())]
    NoAnswer,
    /// The orchestrator said no.
    #[error("{message}")]
    Refused {
        /// Its words.
        message: String,
    },
    /// What came is no answer to what was asked.
    #[error("the orchestrator sent what does not belong here ({0}); one of the two programs is too old")]
    Unexpected(String),
    /// The certificate that came is not taken.
    #[error("the orchestrator sent a certificate that is not the one that was asked for")]
    Certificate(#[source] AcceptError),
}

/// Asks on a stream of its own for a certificate for a new key of the identity in `dir`, which must be the one that
/// `connection` was made with, and puts both in place of the old ones. The connection goes on with the old certificate. Safe to
/// cancel: the files are the old three or the new three.
pub async fn renew(connection: &Connection, dir: &Path) -> Result<Renewal, RenewError> {
    let (lock, here) = (lock(dir)?, dir.to_owned());
    let (lock, old, request) = on_disk(move || {
        let old = Credentials::load(&here)?;
        let request = KeyRequest::load_or_create(&here)?;
        Ok::<_, CredentialsError>((lock, old, request))
    })
    .await?;
    let proof = request.prove_renewal(&connection.exporter());
    let message = RenewRequest {
        request: Chunk::new(request.der().to_vec()).expect("a request of ours is short"),
        proof: Chunk::new(proof).expect("a proof of ours is short"),
    };
    let chain = match connection.protocol() {
        Protocol::Agent => exchange(connection, FromAgent::from(message), of_agent).await?,
        Protocol::Console => exchange(connection, FromConsole::from(message), of_console).await?,
    };
    let PeerIdentity { role, id, .. } = *old.identity();
    let root = old.root().clone();
    let here = dir.to_owned();
    on_disk(move || {
        // Let go of when the files are in place, even if nobody waits for that any more.
        let _lock = lock;
        match request.accept(certificates(&chain), root, role, id, wall()) {
            Ok(new) => {
                new.save(&here)?;
                Ok(Renewal { identity: *new.identity() })
            }
            Err(error) => {
                // Whatever it is that goes with this key, another key does not have it. An answer to an earlier request
                // that was lost long ago, for one, comes back as the certificate that it was then.
                KeyRequest::discard(&here)?;
                Err(RenewError::Certificate(error))
            }
        }
    })
    .await
}

/// What came back for a request.
enum Answer {
    Chain(ChainDer),
    Refused(String),
    Other(u8),
}

fn of_agent(message: ToAgent) -> Answer {
    match message {
        ToAgent::Renewed(renewed) => Answer::Chain(renewed.chain),
        ToAgent::Refused(refused) => Answer::Refused(refused.why.into_string()),
        other => Answer::Other(other.kind()),
    }
}

fn of_console(message: ToConsole) -> Answer {
    match message {
        ToConsole::Renewed(renewed) => Answer::Chain(renewed.chain),
        ToConsole::Refusal(refusal) => Answer::Refused(refusal.message.into_string()),
        other => Answer::Other(other.kind()),
    }
}

async fn exchange<Out: Message, In: Message>(
    connection: &Connection,
    message: Out,
    read: fn(In) -> Answer,
) -> Result<ChainDer, RenewError> {
    let (mut up, mut down) = connection.open_bi::<Out, In>().await?;
    let answer = timeout(ANSWER_MAX, async {
        up.write(&message).await.map_err(|error| RenewError::Lost(error.to_string()))?;
        // An error means that the stream has ended, which the answer, or that there is none, says better.
        let _ = up.finish().await;
        match down.read().await {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(RenewError::Lost("it ended the stream".into())),
            Err(ReadError::Frame(error)) => Err(RenewError::Unexpected(error.to_string())),
            Err(ReadError::Closed(reason)) => Err(RenewError::Lost(reason.sentence())),
            Err(error) => Err(RenewError::Lost(error.to_string())),
        }
    });
    let answer = answer.await.map_err(|_| RenewError::NoAnswer)??;
    // Whatever else comes, or does not come, the answer is there.
    let _ = timeout(ENDING_MAX, down.read()).await;
    match read(answer) {
        Answer::Chain(chain) => Ok(chain),
        Answer::Refused(message) => Err(RenewError::Refused { message }),
        Answer::Other(kind) => Err(RenewError::Unexpected(format!("a frame of type {kind:#04x}"))),
    }
}

/// Who holds it gets certificates for the identity: two at once would put each other's in place, and one that renews the old
/// identity while another replaces it would bring the old one back. Goes with the process, however that ends.
fn lock(dir: &Path) -> Result<File, LockError> {
    let path = dir.join(LOCK_FILE);
    let failed = |source| LockError::Io { path: path.clone(), source };
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LockError::Busy { dir: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn certificates(chain: &ChainDer) -> Vec<CertificateDer<'static>> {
    chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect()
}

/// Runs what waits for the disk where that may be waited for. Goes on to its end even if nobody waits for it any more.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // Nobody aborts it, so it can only have panicked.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    WallTime::default().plus(since.into())
}

/// The first line of a file of the system's, empty where there is none.
fn line_of<const MAX: usize>(path: &str) -> Text<MAX> {
    Text::cut(fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or_default())
}

fn apart(left: WallTime, right: WallTime) -> Span {
    left.since(right).max(right.since(left))
}

/// RFC 3339, to the second. A time that no calendar has is given as it is.
fn utc(at: WallTime) -> String {
    match jiff::Timestamp::from_second(at.0.div_euclid(1000)) {
        Ok(timestamp) => timestamp.to_string(),
        Err(_) => format!("{} ms", at.0),
    }
}

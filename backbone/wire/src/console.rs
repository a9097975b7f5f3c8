//! The console protocol, `modchain-console/1`, spoken by consoles and command lines. All streams are bidirectional and opened
//! by the console. The first stream of a connection carries [`ConsoleHello`] up and [`ConsoleWelcome`] down. Every other
//! stream begins with one request; any request may be answered by a [`Refusal`].
//!
//! | request | answer |
//! |---|---|
//! | [`Submit`] | [`Submitted`] |
//! | [`QuoteRequest`] | [`QuoteView`] |
//! | [`Cancel`] | [`JobView`]: the job as it is once the wish is durable |
//! | [`JobsQuery`] | [`JobsPage`] |
//! | [`JobQuery`] | [`JobView`] |
//! | [`SpecQuery`] | [`SpecView`] |
//! | [`ExplainQuery`] | [`ExplanationView`] |
//! | [`NodesQuery`] | [`NodesPage`] |
//! | [`AccountQuery`] | [`AccountView`] |
//! | [`LedgerQuery`] | [`LedgerPage`] |
//! | [`StatusQuery`] | [`StatusView`] |
//! | [`Credit`] | [`AccountView`] |
//! | [`WhoamiQuery`] | [`IdentityView`]: one's own |
//! | [`IdentitiesQuery`] | [`IdentitiesPage`] |
//! | [`Revoke`] | [`RevokedView`]: once every connection is cut |
//! | [`TokenCreate`] | [`TokenView`] |
//! | [`TokensQuery`] | [`TokensPage`] |
//! | [`TokenRevoke`] | [`TokenView`] |
//! | [`RenewRequest`] | [`Renewed`] |
//! | [`LinkQuery`] | [`LinkView`] |
//! | [`NodeSet`] | [`NodeView`]: the node as it is once the wish is durable |
//! | [`NodeQuery`] | [`NodeHistoryView`] |
//! | [`EventsOpen`] | [`EventsPage`]s, [`CaughtUp`] once, then with `follow` more pages until the stream is closed |
//! | [`LogsOpen`] | [`LogChunk`]s, [`CaughtUp`] once, with `follow` more chunks, then [`LogEnd`] |
//! | [`StateOpen`] | [`StateSnapshot`]s (the last has `last`), then [`StateDelta`]s |
//! | [`BlobPut`] and [`BlobPiece`]s, then the end of the stream | [`BlobStored`]; at once if it is there already |
//! | [`BlobFetch`] | [`BlobHead`], then [`BlobChunk`]s with all of its bytes |
//! | [`InputOpen`], after [`InputReady`] then [`InputPiece`]s and [`InputDone`] | [`InputReady`], [`InputStored`]s |

use modchain_types::{
    AccountId, Asset, Digest, Identity, JobId, JobSpec, JobState, JournalId, List, Micro, Name, NodeWish, Role, Span,
    SubmitKey, Text, TokenId, WallTime,
};
use serde::{Deserialize, Serialize};

use crate::agent::{BlobChunk, BlobHead, OutputStream};
use crate::join::{RenewRequest, Renewed};
use crate::protocol::protocol;
use crate::view::{
    AccountView, EventKind, EventView, ExplanationView, IdentityView, JobView, LedgerEntryView, LedgerKind, LinkView,
    NodeHistoryView, NodeView, QuoteView, RevokedView, StatusView, TokenView,
};
use crate::{Data, KnownTypes, Sentence};

protocol! {
    /// From a console to the orchestrator.
    FromConsole {
        0x41 Hello(ConsoleHello) CONTROL_BYTES_MAX,
        0x43 Renew(RenewRequest) HEARTBEAT_BYTES_MAX,
        0x45 Whoami(WhoamiQuery) HEARTBEAT_BYTES_MAX,
        0x47 Identities(IdentitiesQuery) CONTROL_BYTES_MAX,
        0x49 Revoke(Revoke) CONTROL_BYTES_MAX,
        0x4b TokenCreate(TokenCreate) CONTROL_BYTES_MAX,
        0x4d Tokens(TokensQuery) CONTROL_BYTES_MAX,
        0x4f TokenRevoke(TokenRevoke) CONTROL_BYTES_MAX,
        0x50 Submit(Submit) SPEC_BYTES_MAX,
        0x52 Quote(QuoteRequest) SPEC_BYTES_MAX,
        0x54 Cancel(Cancel) CONTROL_BYTES_MAX,
        0x56 Jobs(JobsQuery) CONTROL_BYTES_MAX,
        0x58 Job(JobQuery) CONTROL_BYTES_MAX,
        0x5a Explain(ExplainQuery) CONTROL_BYTES_MAX,
        0x5c Nodes(NodesQuery) CONTROL_BYTES_MAX,
        0x5e Account(AccountQuery) CONTROL_BYTES_MAX,
        0x60 Ledger(LedgerQuery) CONTROL_BYTES_MAX,
        0x62 Events(EventsOpen) CONTROL_BYTES_MAX,
        0x65 Status(StatusQuery) CONTROL_BYTES_MAX,
        0x67 Credit(Credit) CONTROL_BYTES_MAX,
        0x6a Logs(LogsOpen) CONTROL_BYTES_MAX,
        0x6d State(StateOpen) CONTROL_BYTES_MAX,
        0x70 BlobPut(BlobPut) CONTROL_BYTES_MAX,
        0x71 BlobPiece(BlobPiece) DATA_BYTES_MAX,
        0x73 InputOpen(InputOpen) CONTROL_BYTES_MAX,
        0x75 InputPiece(InputPiece) DATA_BYTES_MAX,
        0x76 InputDone(InputDone) CONTROL_BYTES_MAX,
        0x78 Link(LinkQuery) HEARTBEAT_BYTES_MAX,
        0x7a NodeSet(NodeSet) CONTROL_BYTES_MAX,
        0x7c Node(NodeQuery) CONTROL_BYTES_MAX,
        0x90 Spec(SpecQuery) CONTROL_BYTES_MAX,
        0x92 BlobFetch(BlobFetch) CONTROL_BYTES_MAX,
    }
}

protocol! {
    /// From the orchestrator to a console.
    ToConsole {
        0x42 Welcome(ConsoleWelcome) CONTROL_BYTES_MAX,
        0x44 Renewed(Renewed) CONTROL_BYTES_MAX,
        0x46 Identity(IdentityView) CONTROL_BYTES_MAX,
        0x48 Identities(IdentitiesPage) PAGE_BYTES_MAX,
        0x4a Revoked(RevokedView) CONTROL_BYTES_MAX,
        0x4c Token(TokenView) CONTROL_BYTES_MAX,
        0x4e Tokens(TokensPage) PAGE_BYTES_MAX,
        0x51 Submitted(Submitted) CONTROL_BYTES_MAX,
        0x53 Quote(QuoteView) PAGE_BYTES_MAX,
        0x57 Jobs(JobsPage) PAGE_BYTES_MAX,
        0x59 Job(JobView) CONTROL_BYTES_MAX,
        0x5b Explanation(ExplanationView) PAGE_BYTES_MAX,
        0x5d Nodes(NodesPage) PAGE_BYTES_MAX,
        0x5f Account(AccountView) CONTROL_BYTES_MAX,
        0x61 Ledger(LedgerPage) PAGE_BYTES_MAX,
        0x63 Events(EventsPage) PAGE_BYTES_MAX,
        0x64 CaughtUp(CaughtUp) CONTROL_BYTES_MAX,
        0x66 Status(StatusView) CONTROL_BYTES_MAX,
        0x6b LogChunk(LogChunk) DATA_BYTES_MAX,
        0x6c LogEnd(LogEnd) CONTROL_BYTES_MAX,
        0x6e StateSnapshot(StateSnapshot) PAGE_BYTES_MAX,
        0x6f StateDelta(StateDelta) PAGE_BYTES_MAX,
        0x72 BlobStored(BlobStored) CONTROL_BYTES_MAX,
        0x74 InputReady(InputReady) CONTROL_BYTES_MAX,
        0x77 InputStored(InputStored) CONTROL_BYTES_MAX,
        0x79 Link(LinkView) CONTROL_BYTES_MAX,
        0x7b NodeIs(NodeView) PAGE_BYTES_MAX,
        0x7d NodeHistory(NodeHistoryView) PAGE_BYTES_MAX,
        0x7e GoingAway(GoingAway) CONTROL_BYTES_MAX,
        0x7f Refusal(Refusal) CONTROL_BYTES_MAX,
        0x91 Spec(SpecView) PAGE_BYTES_MAX,
        0x93 BlobHead(BlobHead) CONTROL_BYTES_MAX,
        0x94 BlobChunk(BlobChunk) DATA_BYTES_MAX,
    }
}

/// How a person names a job: its id, a unique prefix of 3 or more characters, or its name where that is unique. Always
/// resolved among the jobs that the asker may see.
pub type JobRef = Text<64>;

/// The first frame of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleHello {
    /// Frame types that this program understands ([`ToConsole`]).
    pub types: KnownTypes,
    /// Version of this program.
    pub version: Text<64>,
    /// For showing clock skew.
    pub wall: WallTime,
}

/// The connection counts from here on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleWelcome {
    /// Frame types that the orchestrator understands ([`FromConsole`]).
    pub types: KnownTypes,
    /// Version of the orchestrator program.
    pub version: Text<64>,
    /// What the pool is called.
    pub pool: Name,
    /// Whom it takes this connection for.
    pub identity: Identity,
    /// The journal behind it.
    pub journal: JournalId,
    /// What its money is.
    pub asset: Asset,
    /// Streams that the console may have open at once.
    pub streams_max: u32,
    /// For showing clock skew.
    pub wall: WallTime,
}

/// Submit a job. Repeating it with the same key and the same specification is harmless and gives the same answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submit {
    /// The submitter's own key for this job.
    pub key: SubmitKey,
    /// The job; the body is inline and the blobs it names have been put.
    pub spec: JobSpec,
    /// Refuse the job if it cannot start now.
    pub no_queue: bool,
}

/// The job is accepted: durable, and its price is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// The job.
    pub job: JobId,
    /// Its state now.
    pub state: JobState,
    /// What is held for it.
    pub held: Micro,
    /// Whether an earlier submit with this key had made it.
    pub existing: bool,
}

/// What would this job cost, and where could it run?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuoteRequest {
    /// The job.
    pub spec: JobSpec,
}

/// End a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// Which job.
    pub job: JobRef,
    /// Time between asking and killing.
    pub grace: Span,
    /// For the record.
    pub why: Text<256>,
}

/// Ask for jobs, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobsQuery {
    /// Only in these states; empty means all.
    pub states: List<JobState, 16>,
    /// Ended jobs too.
    pub ended: bool,
    /// Only those of this account. Clients see their own whatever they ask.
    pub account: Option<AccountId>,
    /// Only with this label and value.
    pub labels: List<(Text<64>, Text<256>), 32>,
    /// Only those whose name or id begins so; empty means all.
    pub prefix: Text<64>,
    /// Only those created at or after this moment.
    pub since: Option<WallTime>,
    /// At most this many, 1 to 500.
    pub limit: u32,
    /// Continue after this job of the last page.
    pub after: Option<JobId>,
}

/// A page of jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobsPage {
    /// The jobs.
    pub items: List<JobView, 500>,
    /// How many there are in all.
    pub total: u64,
    /// Whether there are more after the last one.
    pub more: bool,
}

/// Ask for one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobQuery {
    /// Which job.
    pub job: JobRef,
}

/// Ask for the specification that a job was submitted with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecQuery {
    /// Which job.
    pub job: JobRef,
}

/// A job's specification, whole: its task is inline even where the orchestrator keeps it apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecView {
    /// The job.
    pub job: JobId,
    /// As its client sent it.
    pub spec: JobSpec,
}

/// Ask why a job is where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainQuery {
    /// Which job.
    pub job: JobRef,
}

/// Ask for nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodesQuery {
    /// At most this many, 1 to 500.
    pub limit: u32,
    /// Continue after this node's name.
    pub after: Option<Name>,
}

/// Ask for one node with the last five minutes of its GPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeQuery {
    /// Which node.
    pub node: Name,
}

/// Whether a node is to take new jobs. For operators, and for clients whose account the node earns for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSet {
    /// Which node.
    pub node: Name,
    /// What is wanted.
    pub wish: NodeWish,
    /// For the record.
    pub why: Text<256>,
}

/// A page of nodes, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodesPage {
    /// The nodes.
    pub items: List<NodeView, 500>,
    /// How many there are in all.
    pub total: u64,
    /// Whether there are more after the last one.
    pub more: bool,
}

/// Ask for an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountQuery {
    /// Which; one's own if `None`. Only operators may name another.
    pub account: Option<AccountId>,
}

/// Ask for ledger entries, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerQuery {
    /// Whose; one's own if `None`. Only operators may name another.
    pub account: Option<AccountId>,
    /// Only at or after this moment.
    pub since: Option<WallTime>,
    /// Only of this kind.
    pub kind: Option<LedgerKind>,
    /// Only about this job.
    pub job: Option<JobRef>,
    /// At most this many, 1 to 1000.
    pub limit: u32,
    /// Continue before this journal number of the last page.
    pub before: Option<u64>,
}

/// A page of ledger entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerPage {
    /// Whose.
    pub account: AccountId,
    /// The entries.
    pub items: List<LedgerEntryView, 1000>,
    /// Whether there are more before the last one.
    pub more: bool,
}

/// Ask for events, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsOpen {
    /// Only with a journal number above this.
    pub after: Option<u64>,
    /// Only at or after this moment.
    pub since: Option<WallTime>,
    /// Only of this kind.
    pub kind: Option<EventKind>,
    /// Only about this job.
    pub job: Option<JobRef>,
    /// Only about the node of this name.
    pub node: Option<Name>,
    /// Go on with new ones as they come.
    pub follow: bool,
}

/// Some events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsPage {
    /// In journal order.
    pub items: List<EventView, 500>,
}

/// All that was there when the request came has been sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaughtUp {
    /// Journal number up to which the answer is complete.
    pub upto: u64,
}

/// Ask how things are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusQuery {
    /// Reserved; `false`.
    pub detail: bool,
}

/// Give test credits to an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    /// To whom.
    pub account: AccountId,
    /// How much.
    pub amount: Micro,
    /// The asker's own key: repeating it is harmless.
    pub key: SubmitKey,
    /// For the record.
    pub why: Text<256>,
}

/// How a person names an identity: `ROLE/NAME`, its name, or its id.
pub type IdentityRef = Text<64>;

/// Ask about oneself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoamiQuery {
    /// Reserved; `false`.
    pub detail: bool,
}

/// Ask for identities and their certificates, by name. Clients see those of their own account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentitiesQuery {
    /// Only of this role.
    pub role: Option<Role>,
    /// Revoked ones too.
    pub revoked: bool,
    /// At most this many, 1 to 500.
    pub limit: u32,
    /// Continue after this name of the last page.
    pub after: Option<Name>,
}

/// A page of identities, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentitiesPage {
    /// The identities.
    pub items: List<IdentityView, 500>,
    /// How many there are in all.
    pub total: u64,
    /// Whether there are more after the last one.
    pub more: bool,
}

/// End an identity for good: its connections are cut, its certificates are worth nothing, its jobs move or are cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoke {
    /// Which.
    pub identity: IdentityRef,
    /// For the record.
    pub why: Text<256>,
}

/// Let somebody join, once. Repeating it with the same token is harmless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCreate {
    /// The token's public part, drawn by the asker.
    pub token: TokenId,
    /// What proofs of its secret part are checked with; the secret itself stays with the asker.
    pub verifier: [u8; 32],
    /// What the joiner becomes. Clients may let nodes join, nobody else.
    pub role: Role,
    /// The joiner's name; its own wish, or one that is made up, if `None`.
    pub name: Option<Name>,
    /// The account that a node earns for, or that a client pays from: the asker's own for a node if `None`, one of the
    /// joiner's own name for a client. Only operators may name another.
    pub account: Option<AccountId>,
    /// Whether the joiner is to become an identity that exists: a machine whose certificate ended.
    pub rejoin: bool,
    /// How long it may be used, by the orchestrator's clock.
    pub ttl: Span,
}

/// Ask for tokens, newest first. Clients see those that they made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokensQuery {
    /// Those that can no longer be used, too.
    pub ended: bool,
}

/// Tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokensPage {
    /// The newest first.
    pub items: List<TokenView, 500>,
    /// How many there are in all.
    pub total: u64,
}

/// Let nobody join with this token any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRevoke {
    /// Which.
    pub token: TokenId,
}

/// Ask how the orchestrator's sockets are; for operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkQuery {
    /// Reserved; `false`.
    pub detail: bool,
}

/// Read a job's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsOpen {
    /// Which job.
    pub job: JobRef,
    /// Go on until the job has ended.
    pub follow: bool,
    /// Begin here: what a reader that was cut off has seen last.
    pub from: Option<LogCursor>,
    /// Only output at or after this moment.
    pub since: Option<WallTime>,
}

/// A place in a job's output, just after a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogCursor {
    /// Which attempt.
    pub attempt: u32,
    /// Records of that attempt before this place.
    pub records: u64,
}

/// A piece of a job's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChunk {
    /// The place after it.
    pub cursor: LogCursor,
    /// Where it belongs.
    pub stream: OutputStream,
    /// Bytes of this stream of this attempt before it.
    pub offset: u64,
    /// By the node's wall clock.
    pub at: WallTime,
    /// The bytes.
    pub data: Data,
}

/// The job has ended and all its output was sent; or, without `follow`, all that there is was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEnd {
    /// The job as it is now.
    pub job: JobView,
}

/// Watch state: a snapshot and then every change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateOpen {
    /// Of one job, or of all that the asker may see.
    pub job: Option<JobRef>,
    /// Where an earlier stream of this journal ended: only what changed since is sent, if that is still known.
    pub resume: Option<(JournalId, u64)>,
}

/// Everything as it was at `upto`, in one or more frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateSnapshot {
    /// The journal that `upto` counts in.
    pub journal: JournalId,
    /// The number of the last event in it.
    pub upto: u64,
    /// Jobs that have not ended, and the newest that have.
    pub jobs: List<JobView, 200>,
    /// Nodes.
    pub nodes: List<NodeView, 200>,
    /// One's own account.
    pub account: Option<AccountView>,
    /// Whether this is the last frame of the snapshot.
    pub last: bool,
}

/// What changed. A reader whose last `upto` is not `prev` asks again. One that may see nothing of a change still gets the
/// new watermark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateDelta {
    /// The last event before it.
    pub prev: u64,
    /// The last event in it.
    pub upto: u64,
    /// Jobs as they are now.
    pub jobs: List<JobView, 200>,
    /// Nodes as they are now.
    pub nodes: List<NodeView, 200>,
    /// Nodes that are there no more, because they were revoked. A name of `nodes` is never among them.
    pub gone: List<Name, 200>,
    /// One's own account, if it changed.
    pub account: Option<AccountView>,
    /// The events themselves, for the feed.
    pub events: List<EventView, 500>,
}

/// Put a blob into the store of one's own account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobPut {
    /// Of all the bytes.
    pub digest: Digest,
    /// How many.
    pub bytes: u64,
}

/// A piece of it, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobPiece {
    /// The bytes, at least one.
    pub data: Data,
}

/// Ask for a blob of one's own account: nobody else's, whatever the role, because prompts are blobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobFetch {
    /// Of all its bytes.
    pub digest: Digest,
}

/// The blob is on the orchestrator's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobStored {
    /// Its digest.
    pub digest: Digest,
    /// Whether it was there before.
    pub existing: bool,
}

/// Send a job's standard input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputOpen {
    /// Which job; it must have been submitted with input.
    pub job: JobRef,
}

/// Go on from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputReady {
    /// Bytes that are on the orchestrator's disk already.
    pub offset: u64,
    /// Whether the input is at its end already.
    pub done: bool,
}

/// A piece of the input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputPiece {
    /// Bytes before this piece.
    pub offset: u64,
    /// The bytes, at least one.
    pub data: Data,
}

/// The input is at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputDone {
    /// Bytes in all.
    pub offset: u64,
}

/// What is on the orchestrator's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputStored {
    /// Bytes.
    pub offset: u64,
    /// Whether that is all of it.
    pub done: bool,
}

/// The orchestrator is about to stop: this stream ends here, come back after a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoingAway {
    /// Wait this long before connecting again.
    pub after: Span,
}

/// A request was not granted. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// What and why, in lower case without a final dot.
    pub message: Sentence,
    /// What next; may be empty.
    pub hint: Sentence,
}

/// Why a request was not granted. A closed list; the command line's exit codes follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RefusalCode {
    /// The request makes no sense.
    Invalid,
    /// No such thing, or none that the asker may see.
    NotFound,
    /// The name fits several.
    Ambiguous,
    /// The role may not do this at all.
    NotAllowed,
    /// Not enough money.
    InsufficientFunds,
    /// Over a quota.
    Limit,
    /// No node can run it, and `no_queue` was asked for.
    NoFit,
    /// The state does not allow it, such as cancelling what has ended.
    Conflict,
    /// The same key was used for another specification.
    IdempotencyConflict,
    /// A blob that the job names has not been put.
    MissingBlob,
    /// The orchestrator is not taking this now; later it may.
    Busy,
    /// Its disk is full.
    StorageFull,
    /// Money is frozen because an invariant broke or the data was rolled back.
    Frozen,
    /// This side does not know the request.
    Unsupported,
    /// A bug or a broken disk.
    Internal,
}

impl RefusalCode {
    /// The word used in JSON (`modchain.error/v1`).
    pub fn word(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Ambiguous => "ambiguous_id",
            Self::NotAllowed => "not_allowed",
            Self::InsufficientFunds => "insufficient_funds",
            Self::Limit => "limit",
            Self::NoFit => "no_fit",
            Self::Conflict => "conflict",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::MissingBlob => "missing_blob",
            Self::Busy => "busy",
            Self::StorageFull => "storage_full",
            Self::Frozen => "frozen",
            Self::Unsupported => "unsupported",
            Self::Internal => "internal",
        }
    }
}

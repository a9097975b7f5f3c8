//! What consoles see: read-only documents made by the orchestrator's feed. Times are wall times for display; amounts are
//! micro-units of the journal's asset.

use modchain_types::{
    AccountId, Adapter, AttemptId, CertificateSerial, Exit, Fence, Identity, ImagePin, JobId, JobState, List, Map,
    Micro, ModelPlace, Name, NodeId, NodeState, Offer, OutputLengths, Reason, Reservation, Role, Span, Text, TokenId,
    Usage, WallTime,
};
use serde::{Deserialize, Serialize};

use crate::Sentence;
use crate::agent::{GpuSample, HostLoad};

/// One job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    /// The job.
    pub id: JobId,
    /// As submitted; may be empty.
    pub name: Text<64>,
    /// Who pays.
    pub account: AccountId,
    /// Which executor.
    pub adapter: Adapter,
    /// What runs, in one line: the module or image and its arguments, or the model and what it is asked for.
    pub what: Text<256>,
    /// Its state now.
    pub state: JobState,
    /// Why it ended; `None` while it has not.
    pub reason: Option<Reason>,
    /// Its exit code; `None` while it has not ended.
    pub exit: Option<Exit>,
    /// More about the end, or why it waits; may be empty.
    pub message: Sentence,
    /// Node of the newest attempt.
    pub node: Option<Name>,
    /// The newest attempts, oldest first.
    pub attempts: List<AttemptView, 64>,
    /// The most it may cost. Held while it has not ended.
    pub hold: Micro,
    /// What it cost; while it runs, what it would cost if it ended now.
    pub cost: Micro,
    /// The platform's part of the cost; zero while it has not ended.
    pub fee: Micro,
    /// What came back; zero while it has not ended.
    pub refund: Micro,
    /// What it costs per hour on its node; `None` while it has none.
    pub price_per_hour: Option<Micro>,
    /// The client's labels.
    pub labels: Map<Text<64>, Text<256>, 32>,
    /// The longest run of its attempt on its node.
    pub run_limit: Option<Span>,
    /// As submitted.
    pub time_limit: Option<Span>,
    /// Attempts allowed.
    pub attempts_max: u32,
    /// What the billed attempt used.
    pub usage: Usage,
    /// Bytes of output of the newest attempt.
    pub output: OutputLengths,
    /// How far the preparation of its attempt is, while it is prepared; may be empty.
    pub preparing: Text<256>,
    /// The image that its attempts run, once one was found.
    pub image: Option<ImagePin>,
    /// The language model that it asks for.
    pub model: Option<Text<256>>,
    /// GPUs that its attempt holds, by uuid and model.
    pub gpus: List<(Text<64>, Text<64>), 64>,
    /// Accepted.
    pub created_at: WallTime,
    /// The newest attempt's code began to run.
    pub started_at: Option<WallTime>,
    /// Ended.
    pub ended_at: Option<WallTime>,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptView {
    /// Counts from 1.
    pub number: u32,
    /// Where.
    pub node: Name,
    /// Under which fence.
    pub fence: Fence,
    /// The job's words.
    pub state: JobState,
    /// Why it ended.
    pub reason: Option<Reason>,
    /// More about it; may be empty.
    pub message: Sentence,
    /// The node was told.
    pub assigned_at: WallTime,
    /// Its code began to run.
    pub started_at: Option<WallTime>,
    /// It ended.
    pub ended_at: Option<WallTime>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// The node.
    pub id: NodeId,
    /// Its name.
    pub name: Name,
    /// Whose earnings.
    pub account: AccountId,
    /// Its state now.
    pub state: NodeState,
    /// What it offers; `None` until it has connected once.
    pub offer: Option<Offer>,
    /// What live attempts hold.
    pub reserved: Reservation,
    /// Live attempts.
    pub attempts: u32,
    /// Load of the machine, from the last heartbeat.
    pub load: Option<HostLoad>,
    /// Round trip of the last heartbeat.
    pub rtt: Option<Span>,
    /// When it was last heard.
    pub seen_at: Option<WallTime>,
    /// When this connection began; `None` while there is none.
    pub connected_at: Option<WallTime>,
    /// How its GPUs are, in the order of its offer, from the last heartbeat; empty while that is not known.
    pub gpus: List<GpuSample, 64>,
    /// When its remaining jobs move to other nodes, if it is being drained with a deadline.
    pub drains_at: Option<WallTime>,
}

/// One node with the last five minutes of its GPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeHistoryView {
    /// The node.
    pub node: NodeView,
    /// One look a second, oldest first.
    pub ticks: List<GpuTickView, 320>,
}

/// One look at all GPUs of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuTickView {
    /// When, by the orchestrator's clock.
    pub at: WallTime,
    /// In the order of the node's offer.
    pub gpus: List<GpuSample, 64>,
}

/// One account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountView {
    /// Whose.
    pub id: AccountId,
    /// Free to spend.
    pub available: Micro,
    /// In escrow for jobs that have not ended.
    pub held: Micro,
    /// Earned by its nodes.
    pub earned: Micro,
    /// Jobs that have not ended.
    pub open_jobs: u64,
    /// What its running jobs cost per hour together.
    pub burn_per_hour: Micro,
}

/// What a ledger entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LedgerKind {
    /// Money came in.
    Deposit,
    /// Moved into escrow for a job.
    Hold,
    /// Left escrow to pay for a job.
    Settle,
    /// Came back from escrow.
    Release,
    /// Earned by a node.
    Earning,
    /// The platform's part.
    Fee,
}

impl LedgerKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Deposit, Self::Hold, Self::Settle, Self::Release, Self::Earning, Self::Fee];

    /// The word used in filters and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Deposit => "deposit",
            Self::Hold => "hold",
            Self::Settle => "settle",
            Self::Release => "release",
            Self::Earning => "earning",
            Self::Fee => "fee",
        }
    }
}

/// One line of an account's statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntryView {
    /// Journal number of the event.
    pub number: u64,
    /// When.
    pub at: WallTime,
    /// What kind.
    pub kind: LedgerKind,
    /// Change of the available balance (of earnings or fees for those kinds), in micro-units.
    pub amount: i64,
    /// That balance afterwards.
    pub balance: Micro,
    /// About which job.
    pub job: Option<JobId>,
    /// More; may be empty.
    pub text: Text<256>,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EventKind {
    /// A job.
    Job,
    /// A node.
    Node,
    /// An account.
    Account,
    /// The orchestrator.
    System,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Job, Self::Node, Self::Account, Self::System];

    /// The word used in filters and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Node => "node",
            Self::Account => "account",
            Self::System => "system",
        }
    }
}

/// One event of the journal, as far as the asker may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// Journal number.
    pub number: u64,
    /// When.
    pub at: WallTime,
    /// What kind.
    pub kind: EventKind,
    /// About which job.
    pub job: Option<JobId>,
    /// About which attempt of it.
    pub attempt: Option<AttemptId>,
    /// About which node.
    pub node: Option<Name>,
    /// About which account.
    pub account: Option<AccountId>,
    /// The job's state before.
    pub from: Option<JobState>,
    /// The job's state after.
    pub to: Option<JobState>,
    /// Why it ended.
    pub reason: Option<Reason>,
    /// One line for people.
    pub text: Text<512>,
}

/// Why a job is where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplanationView {
    /// The job.
    pub job: JobView,
    /// One line for people.
    pub summary: Sentence,
    /// How it stands in the queue; `None` unless it is queued.
    pub queue: Option<QueueView>,
    /// Every node with what speaks against it; nothing speaks against a node that fits.
    pub nodes: List<NodeVerdictView, 500>,
}

/// How a queued job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueView {
    /// How many jobs go before it, if each takes as much room as it does.
    pub ahead: u64,
    /// How many of those are its own account's.
    pub ahead_own: u64,
    /// Its priority, as submitted.
    pub priority: i8,
    /// What that counts for against the jobs of other accounts.
    pub counts_as: i8,
    /// It starts within this time if every job before it is like it, and they and what runs take as long as they may; `None`
    /// where nothing is known.
    pub starts_within: Option<Span>,
}

/// One node's fitness for a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeVerdictView {
    /// The node.
    pub node: Name,
    /// Whether it could run the job now.
    pub fits: bool,
    /// What speaks against it.
    pub reasons: List<Sentence, 16>,
    /// What the job's reservation costs there per hour.
    pub price_per_hour: Option<Micro>,
}

/// What a job would cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuoteView {
    /// Held at submit.
    pub hold: Micro,
    /// The asker's free balance now.
    pub available: Micro,
    /// Whether the balance covers the hold.
    pub affordable: bool,
    /// Nodes that could run it now, best first.
    pub offers: List<OfferView, 100>,
    /// Nodes that could not, with what speaks against them.
    pub refusals: List<NodeVerdictView, 400>,
    /// The platform's part of the cost, in hundredths of a percent.
    pub fee_basis_points: u16,
}

/// One node's price for a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferView {
    /// The node.
    pub node: Name,
    /// Per hour, for the whole reservation.
    pub price_per_hour: Micro,
    /// The least it costs there once it ran.
    pub minimum: Micro,
    /// How long it may run there before the hold or the time limit ends it.
    pub run_limit: Span,
    /// Whether the hold ends it before its own time limit.
    pub budget_bound: bool,
    /// Per million tokens of the prompt; `None` for what is no job for a language model.
    pub million_prompt_tokens: Option<Micro>,
    /// Per million tokens that the model makes.
    pub million_output_tokens: Option<Micro>,
    /// How near its language model is.
    pub model: Option<ModelPlace>,
}

/// How things are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// Version of the orchestrator program.
    pub version: Text<64>,
    /// Since its start.
    pub uptime: Span,
    /// By its clock.
    pub at: WallTime,
    /// Nodes per state; states without nodes are left out.
    pub nodes: List<(NodeState, u64), 16>,
    /// Jobs per state that have not ended; those of one's own account only, for clients.
    pub jobs: List<(JobState, u64), 16>,
    /// How long the oldest queued job has waited.
    pub oldest_queued: Option<Span>,
    /// GPUs in all.
    pub gpus: u64,
    /// GPUs reserved.
    pub gpus_reserved: u64,
    /// How busy those that tell it are, on average, in percent; `None` where none does.
    pub gpus_busy_pct: Option<u8>,
    /// One's own account.
    pub account: Option<AccountView>,
    /// What is wrong, worst first; empty when all is well.
    pub problems: List<Sentence, 32>,
}

/// One certificate of an identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateView {
    /// Its number.
    pub serial: CertificateSerial,
    /// When it was issued; it is dated ten minutes earlier, because clocks differ.
    pub issued_at: WallTime,
    /// Its end.
    pub expires_at: WallTime,
    /// When its holder renews it.
    pub renews_at: WallTime,
    /// Whether its holder has used it.
    pub used: bool,
}

/// How an identity stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum IdentityState {
    /// Its certificate is good.
    Active,
    /// Its last certificate has ended: it has to join again.
    Expired,
    /// Ended for good.
    Revoked,
}

impl IdentityState {
    /// The word used in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// One identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityView {
    /// Who.
    pub identity: Identity,
    /// How it stands.
    pub state: IdentityState,
    /// When it became a member.
    pub joined_at: WallTime,
    /// Its certificates that are accepted, the newest first; at most two.
    pub certificates: List<CertificateView, 2>,
    /// How often its certificate was renewed.
    pub renewals: u64,
    /// Its connections now.
    pub connections: u32,
    /// When it was revoked.
    pub revoked_at: Option<WallTime>,
    /// Why it was revoked.
    pub why: Text<256>,
}

/// What a revocation did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedView {
    /// The identity as it is now.
    pub identity: IdentityView,
    /// Connections that were cut.
    pub connections_closed: u32,
    /// Jobs that move to other nodes or are cancelled.
    pub jobs: u64,
    /// Tokens of its making that are revoked with it.
    pub tokens: u32,
    /// From the request to the last connection's cut, the sync of the journal included.
    pub took: Span,
}

/// How a join token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TokenState {
    /// It waits to be used.
    Issued,
    /// A key has got a certificate for it and has not shown it yet.
    Bound,
    /// It was used.
    Spent,
    /// It was revoked.
    Revoked,
    /// Its time was over before anybody used it.
    Expired,
}

impl TokenState {
    /// The word used in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Bound => "bound",
            Self::Spent => "spent",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

/// One join token, without its secret, which the orchestrator never had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    /// Its public part.
    pub id: TokenId,
    /// What its user becomes.
    pub role: Role,
    /// The name that it gives.
    pub name: Option<Name>,
    /// The account that it joins, if it says one.
    pub account: Option<AccountId>,
    /// Who made it; `None` for the first one, which `init` made.
    pub issued_by: Option<Name>,
    /// When it was made.
    pub issued_at: WallTime,
    /// When it ends, or was to end.
    pub expires_at: WallTime,
    /// How it stands.
    pub state: TokenState,
    /// Who joined with it.
    pub identity: Option<Name>,
    /// From where, in the joiner's own words and with its address.
    pub from: Option<Text<192>>,
    /// What is suspicious about it: uses with another key or a wrong secret.
    pub alarms: List<Sentence, 4>,
}

/// How the orchestrator's sockets are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkView {
    /// Where the main endpoint listens.
    pub main: Text<64>,
    /// Where the join endpoint listens.
    pub join: Text<64>,
    /// Bytes of the main socket's buffer for packets that come, as the system counts them.
    pub receive_buffer_bytes: u64,
    /// Bytes of its buffer for packets that go.
    pub send_buffer_bytes: u64,
    /// What was asked for, for each.
    pub asked_buffer_bytes: u64,
    /// Packets that this machine has dropped since its boot because a UDP buffer was full; `None` where it does not tell.
    pub receive_buffer_errors: Option<u64>,
    /// Connections now.
    pub connections: u64,
    /// Handshakes now.
    pub handshakes: u64,
    /// End of the orchestrator's own certificate.
    pub expires_at: WallTime,
}

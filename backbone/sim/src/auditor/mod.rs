//! An independent check of the journal: naive books kept from the events alone, with plain maps and other formulae than
//! core's. Slower, longer and obviously right is what it is meant to be.
//!
//! [`Auditor::take`] is given every event, in order, and tells the first [`Rule`] that is broken. It never looks into
//! `Control`; that its books and core's agree is checked from outside, with [`Auditor::books`].

mod books;
mod job;
mod member;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use modchain_core::{Event, EventBody};
use modchain_types::{
    AccountId, AttemptId, Capabilities, Identity, IdentityId, JobId, JobState, NodeId, NodeWish, Reason, Reservation,
    Role, SubmitKey, Timestamp,
};

pub use books::Books;
use job::JobRecord;
pub use job::LiveAttempt;
use member::Membership;

/// What must always hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Events are numbered from 1 without a gap.
    NumbersWithoutGap,
    /// No event is before the one before it.
    TimeGoesOn,
    /// Every assignment has a higher fence than all before it.
    FencesRise,
    /// What an event names was introduced before.
    Known,
    /// What can exist once exists once.
    Once,
    /// No account but custody is below zero.
    NoOverdraft,
    /// What came in is what is there.
    MoneyConserved,
    /// What is held is the sum of the holds of the open jobs.
    HeldIsOpenHolds,
    /// `net + fee = gross` and `gross + refund = hold`.
    SplitAddsUp,
    /// `fee = floor(gross × basis points / 10,000)`.
    FeeIsFloored,
    /// No bill is above the prices frozen at the assignment times the orchestrator's own interval.
    BillWithinInterval,
    /// No bill is below what the reported usage costs.
    BillCoversUsage,
    /// Only endings that the client answers for are paid, and only once an attempt ran.
    PaidOnlyForWork,
    /// The owner of the node that did the work is paid.
    OwnerIsPaid,
    /// An ended job has no more events; a closing happens once.
    EndedIsEnded,
    /// A job is forgotten once it has ended and nothing is held for it, and never before.
    OnlyEndedForgotten,
    /// Only the newest attempt of a job counts.
    NewestAttemptOnly,
    /// Attempt numbers rise one by one, and not above what was allowed.
    AttemptNumbersRise,
    /// States move along the table only.
    StateTable,
    /// A cancelled job ends as cancelled.
    CancelIsFinal,
    /// What attempts reserve on a node fits it.
    NodeNotOverbooked,
    /// No GPU is reserved twice.
    GpuOnce,
    /// A node that is closed to new jobs gets none.
    ClosedGetsNothing,
    /// Nobody who was revoked gets a certificate, work or pay, lets others in, or has work done.
    RevokedStaysOut,
    /// Who joins by a token becomes what the token is for, in its time.
    GrantKept,
    /// A certificate is dropped only when a newer one has been in use for long enough.
    RetiredInTurn,
    /// No stranger fills the journal with alarms.
    AlarmsBounded,

    /// The bill is for something that really ran, and the outcome is what really happened.
    TrueOutcome,
    /// An attempt begins once.
    BegunOnce,
    /// With `on_disconnect = stop` no two attempts of a job run at one time.
    AtMostOneRuns,
    /// What was acknowledged is never lost, and the same question gets the same answer.
    AnswersKept,
    /// Whoever has a certificate by an answer that arrived comes in, unless it was revoked.
    NobodyLockedOut,
    /// What an agent has written down is not missed when it comes back.
    ResultsKept,
    /// After a start nobody is lost before there was time to come back.
    TimeToComeBack,
    /// What is to end is told so, also over a new connection.
    CancelIsHeard,
    /// What is over for its job is told to end, wherever a connection allows.
    NothingRunsInVain,
    /// Replaying the journal gives the same state.
    ReplayIsLive,
    /// `Control` finds nothing wrong with itself.
    SelfAudit,
    /// The auditor's books and core's agree.
    BooksAgree,
    /// A queued job that fits somewhere is placed.
    NothingWaitsInVain,
    /// Once everything has healed, every job ends and nothing is left over.
    EverythingEnds,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// Which.
    pub rule: Rule,
    /// How, with the numbers.
    pub what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broken rule {}: {}", self.rule, self.what)
    }
}

/// `Ok` if it holds; else the breach, whose words are made only then.
pub(crate) fn rule(rule: Rule, holds: bool, what: impl FnOnce() -> String) -> Result<(), Breach> {
    if holds { Ok(()) } else { Err(Breach { rule, what: what() }) }
}

/// One move of a job along the state table, with the reason that the event gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// `None` for the submit.
    pub from: Option<JobState>,
    /// Where to.
    pub to: JobState,
    /// Why, for moves that have a reason.
    pub cause: Option<Reason>,
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.from.map_or("-", JobState::word);
        let cause = self.cause.map_or(String::new(), |cause| format!(" ({cause})"));
        write!(f, "{from} -> {}{cause}", self.to)
    }
}

/// A node as the events tell.
#[derive(Debug, Clone)]
struct NodeRecord {
    owner: AccountId,
    capabilities: Option<Capabilities>,
    /// Whether somebody wants it to take no new jobs.
    closed: bool,
    placed: BTreeMap<JobId, Reservation>,
}

/// The books.
#[derive(Debug, Clone, Default)]
pub struct Auditor {
    number: u64,
    at: Timestamp,
    last_fence: u64,
    identities: BTreeMap<IdentityId, Identity>,
    membership: Membership,
    deposits: BTreeSet<SubmitKey>,
    books: Books,
    jobs: BTreeMap<JobId, JobRecord>,
    /// Jobs that were forgotten, with how often their keys made another one.
    forgotten: BTreeMap<JobId, u64>,
    nodes: BTreeMap<NodeId, NodeRecord>,
    /// When each attempt that is over was over for its job.
    over: BTreeMap<AttemptId, Timestamp>,
    edges: BTreeMap<Edge, u64>,
}

impl Auditor {
    /// Takes the next event into the books.
    pub fn take(&mut self, event: &Event) -> Result<(), Breach> {
        if let EventBody::AttemptAssigned { .. } = event.body {
            rule(Rule::FencesRise, event.number > self.last_fence, || {
                format!("fence {} after {}", event.number, self.last_fence)
            })?;
            self.last_fence = event.number;
        }
        rule(Rule::NumbersWithoutGap, event.number == self.number + 1, || {
            format!("event {} after {}", event.number, self.number)
        })?;
        rule(Rule::TimeGoesOn, event.at >= self.at, || format!("event {} is before the one before", event.number))?;
        (self.number, self.at) = (event.number, event.at);
        self.take_body(event)?;
        self.books.check()
    }

    /// The balances.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// How often each move of the state table was made.
    pub fn edges(&self) -> &BTreeMap<Edge, u64> {
        &self.edges
    }

    /// Whether a job was accepted, and not forgotten since.
    pub fn knows(&self, job: JobId) -> bool {
        self.jobs.contains_key(&job)
    }

    /// How many jobs were forgotten, and how often the key of one made another one.
    pub fn forgotten(&self) -> (u64, u64) {
        (self.forgotten.len() as u64, self.forgotten.values().sum())
    }

    /// Whose earnings a node's are; `None` for a node that nobody introduced.
    pub fn owner_of(&self, node: NodeId) -> Option<&AccountId> {
        self.nodes.get(&node).map(|record| &record.owner)
    }

    /// The final state of a job that has ended.
    pub fn ended(&self, job: JobId) -> Option<JobState> {
        self.jobs.get(&job).and_then(JobRecord::ended)
    }

    /// An attempt, if it is its job's live one.
    pub fn live(&self, attempt: AttemptId) -> Option<LiveAttempt> {
        self.jobs.get(&attempt.job)?.live(attempt.number)
    }

    /// When an attempt was over for its job, whatever still runs of it.
    pub fn over_since(&self, attempt: AttemptId) -> Option<Timestamp> {
        self.over.get(&attempt).copied()
    }

    /// The node is silent, or is heard again: its live jobs are, or are no longer, unreachable.
    pub fn mark_unreachable(&mut self, node: NodeId, unreachable: bool) {
        let Some(record) = self.nodes.get(&node) else { return };
        for job in record.placed.keys() {
            let Some(job) = self.jobs.get_mut(job) else { continue };
            if job.unreachable == unreachable {
                continue;
            }
            let from = job.state();
            job.unreachable = unreachable;
            *self.edges.entry(Edge { from: Some(from), to: job.state(), cause: None }).or_default() += 1;
        }
    }

    /// The engine stopped: what is not durable is forgotten.
    pub fn forget_silence(&mut self) {
        self.jobs.values_mut().for_each(|job| job.unreachable = false);
    }

    fn take_body(&mut self, event: &Event) -> Result<(), Breach> {
        match &event.body {
            // No orchestrator of this world is ever restored from a copy that its operator accepts.
            EventBody::EngineStarted { .. } | EventBody::RestoreAccepted { .. } => Ok(()),
            EventBody::IdentityAdded { identity } => self.identity_added(identity),
            EventBody::Deposited { key, account, amount, .. } => {
                rule(Rule::Once, self.deposits.insert(key.clone()), || format!("deposit {key} again"))?;
                self.books.deposit(account, *amount);
                Ok(())
            }
            EventBody::JobQueued { .. }
            | EventBody::AttemptAssigned { .. }
            | EventBody::AttemptStarting { .. }
            | EventBody::AttemptStarted { .. }
            | EventBody::CancelRequested { .. }
            | EventBody::InputFailed { .. }
            | EventBody::ImagePinned { .. }
            | EventBody::ResultRecorded { .. }
            | EventBody::AttemptEnded { .. }
            | EventBody::JobFinished { .. }
            | EventBody::JobsForgotten { .. } => self.job_event(event),
            EventBody::NodeConnected { node, offer } => {
                let revoked = self.is_revoked((*node).into());
                rule(Rule::RevokedStaysOut, !revoked, || format!("{node} connects"))?;
                let record = self.node(*node)?;
                if let Some(offer) = offer {
                    record.capabilities = Some(offer.capabilities.clone());
                }
                Ok(())
            }
            EventBody::NodeLost { node } => self.node(*node).map(|_| ()),
            EventBody::NodeSet { node, wish, .. } => {
                let revoked = self.is_revoked((*node).into());
                rule(Rule::RevokedStaysOut, !revoked, || format!("{node} is set to {wish:?}"))?;
                self.node(*node)?.closed = match wish {
                    NodeWish::Open => false,
                    NodeWish::Cordon | NodeWish::Drain { .. } => true,
                };
                Ok(())
            }
            EventBody::TokenCreated { .. }
            | EventBody::MemberJoined { .. }
            | EventBody::TokenEnded { .. }
            | EventBody::TokenAlarm { .. }
            | EventBody::CertificateIssued { .. }
            | EventBody::CertificateUsed { .. }
            | EventBody::CertificateRetired { .. }
            | EventBody::IdentityRevoked { .. } => self.member_event(event),
        }
    }

    fn identity_added(&mut self, identity: &Identity) -> Result<(), Breach> {
        let new = !self.identities.contains_key(&identity.id)
            && self.identities.values().all(|other| other.name != identity.name);
        rule(Rule::Once, new, || format!("identity {} again", identity.name))?;
        if identity.role == Role::Node {
            let record = NodeRecord {
                owner: identity.account.clone(),
                capabilities: None,
                closed: false,
                placed: BTreeMap::new(),
            };
            self.nodes.insert(identity.id.into(), record);
        }
        self.identities.insert(identity.id, identity.clone());
        Ok(())
    }

    fn node(&mut self, node: NodeId) -> Result<&mut NodeRecord, Breach> {
        self.nodes.get_mut(&node).ok_or_else(|| Breach { rule: Rule::Known, what: format!("node {node}") })
    }
}

//! What is remembered. Events are the only thing that changes durable state, and the journal keeps nothing else.

use modchain_types::{
    AccountId, AttemptId, BootId, CertificateSerial, Digest, Ending, Exit, Identity, IdentityId, ImagePin, JobId,
    JobSpec, JobState, JournalId, Micro, NodeId, NodeWish, Offer, OutputLengths, Reason, Reservation, Span, SubmitKey,
    Tariff, Text, Timestamp, TokenId, Usage, WallTime,
};

use crate::membership::{Certificate, TokenEnd, TokenGrant};

/// Ended jobs that one event forgets at most: a batch with it is decided and written as quickly as any.
pub const JOBS_FORGOTTEN_MAX: usize = 1000;

/// One event: its place in the journal, its moment on the logical timeline, what happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Counts from 1 without a gap.
    pub number: u64,
    /// Never before the event before it.
    pub at: Timestamp,
    /// What happened.
    pub body: EventBody,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventBody {
    /// The engine began to work. Ties the logical timeline to this boot's clock and to the calendar.
    EngineStarted {
        /// This boot of the machine.
        boot: BootId,
        /// The machine's clock since that boot, counting sleep.
        boot_clock: Span,
        /// By the wall clock.
        wall: WallTime,
        /// Of the program.
        version: Text<64>,
    },
    /// An identity is known from here on.
    IdentityAdded {
        /// Who.
        identity: Identity,
    },
    /// Money came in. Its transfer is `("deposit", provider, key)` and exists once.
    Deposited {
        /// Where from; `credit` for test credits.
        provider: Text<32>,
        /// The provider's or asker's key.
        key: SubmitKey,
        /// To whom.
        account: AccountId,
        /// How much.
        amount: Micro,
        /// For the record.
        why: Text<256>,
    },
    /// A job is accepted and its maximum price held, in one.
    JobQueued {
        /// The job.
        job: JobId,
        /// Who pays.
        account: AccountId,
        /// The submitter's key.
        key: SubmitKey,
        /// The job; `max_cost` is what is held.
        spec: Box<JobSpec>,
        /// Of the specification as the client sent it.
        spec_digest: Digest,
        /// The platform's part of the cost, in hundredths of a percent: frozen here.
        fee_basis_points: u16,
    },
    /// A node is chosen. The event's number is the attempt's fence, above the base of fences.
    AttemptAssigned {
        /// Which attempt.
        attempt: AttemptId,
        /// Where.
        node: NodeId,
        /// The prices in force: frozen here.
        tariff: Box<Tariff>,
        /// What it holds there.
        reservation: Reservation,
        /// Longest run.
        run_limit: Span,
        /// What reaching it means: time limit or budget.
        run_limit_reason: Reason,
    },
    /// The node accepted it and prepares it.
    AttemptStarting {
        /// Which attempt.
        attempt: AttemptId,
    },
    /// The job's own code runs: the billing clock starts.
    AttemptStarted {
        /// Which attempt.
        attempt: AttemptId,
    },
    /// From here on every attempt of the job runs this image, whatever its name comes to mean.
    ImagePinned {
        /// The attempt that found it.
        attempt: AttemptId,
        /// The image.
        image: ImagePin,
    },
    /// The client wants it to end.
    CancelRequested {
        /// Which job.
        job: JobId,
        /// Time between asking and killing.
        grace: Span,
        /// For the record.
        why: Text<256>,
    },
    /// The attempt is over by the agent's word, but not all of its output is here yet.
    ResultRecorded {
        /// Which attempt.
        attempt: AttemptId,
        /// How it ended.
        ending: Ending,
        /// What it used.
        usage: Usage,
        /// How much output there is in all.
        output: OutputLengths,
    },
    /// The attempt is over and unpaid; its job is queued again.
    AttemptEnded {
        /// Which attempt.
        attempt: AttemptId,
        /// Why.
        reason: Reason,
        /// For people.
        message: Text<512>,
    },
    /// The job is over: outcome and all the legs of its closing transfer, in one.
    JobFinished {
        /// Which job.
        job: JobId,
        /// The attempt that it ended with, if there was one.
        attempt: Option<u32>,
        /// What became of it.
        outcome: Outcome,
        /// Who got what.
        settlement: Settlement,
    },
    /// Nothing is remembered any more of these jobs, which had ended: their keys are free, and what still comes of them is of
    /// unknown jobs. No money moves.
    JobsForgotten {
        /// Each once: at least one, at most [`JOBS_FORGOTTEN_MAX`].
        jobs: Vec<JobId>,
    },
    /// A node connected.
    NodeConnected {
        /// Which.
        node: NodeId,
        /// What it offers, if that is new.
        offer: Option<Box<Offer>>,
    },
    /// A node was silent for too long.
    NodeLost {
        /// Which.
        node: NodeId,
    },
    /// Somebody wants a node to take new jobs or none.
    NodeSet {
        /// Which.
        node: NodeId,
        /// By whom.
        by: IdentityId,
        /// What is wanted; a drain's time runs from this event on.
        wish: NodeWish,
        /// For the record.
        why: Text<256>,
    },
    /// The job's standard input can never be completed: its attempt is stopped, and it fails by its own fault.
    InputFailed {
        /// Which job.
        job: JobId,
        /// Why.
        message: Text<512>,
    },
    /// Somebody may join with a token.
    TokenCreated {
        /// Its public part.
        token: TokenId,
        /// What proofs of its secret are checked with.
        verifier: [u8; 32],
        /// What it is for.
        grant: TokenGrant,
        /// Who made it; `None` for the first one of a pool.
        by: Option<IdentityId>,
        /// How long it may be used.
        ttl: Span,
    },
    /// A key has redeemed a token: identity, certificate and the token's use, in one.
    MemberJoined {
        /// Which token.
        token: TokenId,
        /// Who it is from here on, or is again.
        identity: Identity,
        /// Its certificate.
        certificate: Certificate,
        /// From where, for people.
        from: Text<192>,
    },
    /// Nobody can join with a token any more.
    TokenEnded {
        /// Which token.
        token: TokenId,
        /// Why.
        end: TokenEnd,
    },
    /// A second key came with a token that one key had used.
    TokenAlarm {
        /// Which token.
        token: TokenId,
        /// From where, for people.
        from: Text<192>,
    },
    /// A known identity has one more certificate.
    CertificateIssued {
        /// Who.
        identity: IdentityId,
        /// Which.
        certificate: Certificate,
        /// The one that stays accepted beside it; any other no longer is.
        beside: Option<CertificateSerial>,
    },
    /// A certificate was used for the first time.
    CertificateUsed {
        /// Whose.
        identity: IdentityId,
        /// Which.
        serial: CertificateSerial,
    },
    /// A certificate is no longer accepted, because a newer one is in use.
    CertificateRetired {
        /// Whose.
        identity: IdentityId,
        /// Which.
        serial: CertificateSerial,
    },
    /// An identity was ended for good.
    IdentityRevoked {
        /// Which.
        identity: IdentityId,
        /// By whom.
        by: Option<IdentityId>,
        /// For the record.
        why: Text<256>,
    },
    /// The operator goes on with an old copy of the journal: what came after it is lost, and nothing that it led to counts.
    RestoreAccepted {
        /// What the journal is called from here on, by everybody who knew the one that is lost.
        journal: JournalId,
        /// Fences from here on are this and the number of their event: above any that was handed out in what is lost.
        fence_base: u64,
    },
}

/// What became of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// One of the five final states.
    pub state: JobState,
    /// Why.
    pub reason: Reason,
    /// The exit code of its command line.
    pub exit: Exit,
    /// For people; may be empty.
    pub message: Text<512>,
    /// What its last attempt used.
    pub usage: Usage,
    /// Its output.
    pub output: OutputLengths,
}

/// Who got what of the hold: `gross + refund = hold`, `net + fee = gross`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// What the job cost.
    pub gross: Micro,
    /// The platform's part of it, rounded down.
    pub fee: Micro,
    /// The owner's part of it.
    pub net: Micro,
    /// What came back to the client.
    pub refund: Micro,
    /// Whose earnings; `None` when nothing was earned.
    pub owner: Option<AccountId>,
}

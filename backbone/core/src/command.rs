//! What comes into [`Control`](crate::Control), and the answers to it.

use modchain_types::{
    AccountId, AttemptId, BootId, CertificateSerial, Digest, Fence, Identity, IdentityId, InstanceId, InventoryItem,
    JobId, JobSpec, JobState, JournalId, Micro, Name, NodeId, NodeWish, Offer, OutputLengths, Report, Role, Span,
    SubmitKey, Text, TokenId, WallTime,
};

use crate::membership::{Certificate, TokenGrant};

/// One connection of one agent, numbered by the shell. Numbers are never used twice in one run of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Who asks, as the certificate and the journal say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Who.
    pub id: IdentityId,
    /// What it may do at all.
    pub role: Role,
    /// Its own account.
    pub account: AccountId,
}

impl Actor {
    /// Whether it may see and touch what belongs to `account`.
    pub fn may_touch(&self, account: &AccountId) -> bool {
        self.role == Role::Operator || (self.role == Role::Client && self.account == *account)
    }
}

/// Something that happened outside, or that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The engine begins to work on a replayed or empty journal. Always the first command.
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
    /// The operator goes on with an old copy. Given between two starts of the engine: what an agent has shown of the lost past is
    /// forgotten by the next one.
    AcceptRestore {
        /// What the journal is called from here on; drawn anew.
        journal: JournalId,
        /// By the wall clock: what a lost past can have handed out until now.
        wall: WallTime,
    },
    /// Record an identity that was made on the orchestrator's own machine. The same one again changes nothing; a name or id
    /// in use otherwise is refused.
    AddIdentity {
        /// Who.
        identity: Identity,
        /// Its certificate; recorded if it is newer than those that are known.
        certificate: Option<Certificate>,
    },
    /// Let somebody join, once.
    CreateToken {
        /// Who asks: an operator, or a client for a node of its own account.
        by: Actor,
        /// Its public part; repeating the command with the same one is harmless.
        token: TokenId,
        /// What proofs of its secret are checked with.
        verifier: [u8; 32],
        /// What its user becomes.
        role: Role,
        /// Under which name.
        name: Option<Name>,
        /// In which account.
        account: Option<AccountId>,
        /// Whether its user becomes the identity of that name again.
        rejoin: bool,
        /// How long it may be used.
        ttl: Span,
    },
    /// Record the token that `init` made for a pool's first operator. The same one again changes nothing.
    AddFirstToken {
        /// Its public part.
        token: TokenId,
        /// What proofs of its secret are checked with.
        verifier: [u8; 32],
        /// How long it may be used from now on.
        ttl: Span,
    },
    /// Let nobody join with this token any more.
    RevokeToken {
        /// Who asks: an operator, or its maker.
        by: Actor,
        /// Which.
        token: TokenId,
    },
    /// A joiner has proved that it knows the token's secret and holds the key.
    Redeem(Box<Redemption>),
    /// A joiner came with a wrong proof.
    WrongProof {
        /// For which token.
        token: TokenId,
    },
    /// A member has proved that it holds a new key, on a connection of its own.
    Renew {
        /// Who.
        identity: IdentityId,
        /// The certificate of that connection.
        using: CertificateSerial,
        /// The new one.
        certificate: Certificate,
    },
    /// A member was let in with this certificate for the first time.
    CertificateUsed {
        /// Who.
        identity: IdentityId,
        /// With which.
        serial: CertificateSerial,
    },
    /// End an identity for good.
    RevokeIdentity {
        /// Who asks: an operator.
        by: Actor,
        /// Which.
        identity: IdentityId,
        /// By the wall clock: whose certificate has ended cannot come in.
        wall: WallTime,
        /// For the record.
        why: Text<256>,
    },
    /// Give test credits.
    Credit {
        /// Who asks: an operator.
        by: Actor,
        /// To whom: an account of some identity.
        account: AccountId,
        /// How much, more than zero.
        amount: Micro,
        /// The asker's own key; repeating it gives the same answer and nothing else.
        key: SubmitKey,
        /// For the record.
        why: Text<256>,
    },
    /// Accept a job, hold its price.
    Submit {
        /// Who asks: a client.
        by: Actor,
        /// The asker's own key for this job.
        key: SubmitKey,
        /// The job; a large body has been moved into the blob store.
        spec: Box<JobSpec>,
        /// Of the specification as the client sent it.
        spec_digest: Digest,
        /// Refuse if no node could take it now.
        no_queue: bool,
    },
    /// End a job.
    Cancel {
        /// Who asks.
        by: Actor,
        /// Which job.
        job: JobId,
        /// Time between asking and killing.
        grace: Span,
        /// For the record.
        why: Text<256>,
    },
    /// Forget ended jobs. What they printed is gone already. Those that have not ended, or in this very moment, are passed over.
    ForgetJobs {
        /// At most [`JOBS_FORGOTTEN_MAX`](crate::event::JOBS_FORGOTTEN_MAX) of these.
        jobs: Vec<JobId>,
    },
    /// An agent said hello on a new connection.
    AgentConnected {
        /// Which node, by its certificate.
        node: NodeId,
        /// The new connection.
        session: SessionId,
        /// What it said.
        arrival: Box<AgentArrival>,
    },
    /// A connection of an agent is gone.
    AgentDisconnected {
        /// Which node.
        node: NodeId,
        /// Which connection.
        session: SessionId,
    },
    /// A sign of life: a heartbeat, or the answer to a probe.
    AgentHeard {
        /// Which node.
        node: NodeId,
        /// On which connection.
        session: SessionId,
    },
    /// An owner changed prices or capabilities.
    OfferChanged {
        /// Which node.
        node: NodeId,
        /// On which connection.
        session: SessionId,
        /// The whole new offer.
        offer: Box<Offer>,
    },
    /// Let a node take new jobs, or none.
    NodeSet {
        /// Who asks: an operator, or a client whose account the node earns for.
        by: Actor,
        /// Which node.
        node: NodeId,
        /// What is wanted.
        wish: NodeWish,
        /// For the record.
        why: Text<256>,
    },
    /// An agent reports about an attempt.
    Report {
        /// Which node.
        node: NodeId,
        /// On which connection.
        session: SessionId,
        /// What.
        report: Report,
    },
    /// This much output of an attempt is synced to disk, and the agent says that it has sent all of it.
    OutputStored {
        /// Which attempt.
        attempt: AttemptId,
        /// Under which fence.
        fence: Fence,
        /// How much.
        stored: OutputLengths,
    },
    /// More output of an attempt was synced to disk, and there is more to come: a result that waits for it waits on. Said now and
    /// then, more often than [`crate::deadline::OUTPUT_WITHIN`].
    OutputComes {
        /// Which attempt.
        attempt: AttemptId,
        /// Under which fence.
        fence: Fence,
    },
    /// The task of an assignment cannot be read from the blob store.
    BodyUnreadable {
        /// Which attempt.
        attempt: AttemptId,
        /// Under which fence.
        fence: Fence,
        /// What the disk said.
        message: Text<512>,
    },
    /// The job's standard input cannot be completed: over its cap, or its client went away for too long.
    InputFailed {
        /// Which job.
        job: JobId,
        /// Why.
        message: Text<512>,
    },
}

impl Command {
    /// Who asks, where somebody does.
    pub fn actor(&self) -> Option<&Actor> {
        match self {
            Self::CreateToken { by, .. }
            | Self::RevokeToken { by, .. }
            | Self::RevokeIdentity { by, .. }
            | Self::Credit { by, .. }
            | Self::NodeSet { by, .. }
            | Self::Submit { by, .. }
            | Self::Cancel { by, .. } => Some(by),
            Self::EngineStarted { .. }
            | Self::AcceptRestore { .. }
            | Self::AddIdentity { .. }
            | Self::AddFirstToken { .. }
            | Self::Redeem(_)
            | Self::WrongProof { .. }
            | Self::ForgetJobs { .. }
            | Self::Renew { .. }
            | Self::CertificateUsed { .. }
            | Self::AgentConnected { .. }
            | Self::AgentDisconnected { .. }
            | Self::AgentHeard { .. }
            | Self::OfferChanged { .. }
            | Self::Report { .. }
            | Self::OutputStored { .. }
            | Self::OutputComes { .. }
            | Self::BodyUnreadable { .. }
            | Self::InputFailed { .. } => None,
        }
    }
}

/// What a joiner asks for, its proofs checked already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redemption {
    /// The public part of its token.
    pub token: TokenId,
    /// The role that it expects.
    pub role: Role,
    /// The name that it wishes for.
    pub name: Option<Name>,
    /// An id that nobody has, for a new identity.
    pub fresh: IdentityId,
    /// The certificate that it would get.
    pub certificate: Certificate,
    /// From where, for people.
    pub from: Text<192>,
}

/// What an agent says when it connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentArrival {
    /// This start of the agent.
    pub instance: InstanceId,
    /// The highest fence that this node was ever given, if its mark is authentic and of this journal.
    pub highest_fence: Option<Fence>,
    /// Every attempt that the agent still knows of.
    pub inventory: Vec<InventoryItem>,
    /// What the node offers.
    pub offer: Offer,
}

/// The answer to a command; let out only after its events are on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Nothing more to say.
    Done,
    /// The job is accepted.
    Submitted {
        /// The job.
        job: JobId,
        /// Its state.
        state: JobState,
        /// What is held for it.
        held: Micro,
        /// Whether an earlier submit had made it.
        existing: bool,
    },
    /// The wish to cancel is recorded, or the job was queued and is cancelled.
    Cancelling {
        /// The job.
        job: JobId,
        /// Its state.
        state: JobState,
    },
    /// So many jobs are forgotten.
    Forgotten {
        /// None, if none of them had ended.
        jobs: usize,
    },
    /// The agent is admitted.
    Welcome,
    /// The token is recorded.
    Token {
        /// What it is for, with what was left open filled in.
        grant: TokenGrant,
    },
    /// The joiner is a member: sign this certificate.
    Joined {
        /// Who it is.
        identity: Identity,
        /// What to sign.
        certificate: Certificate,
        /// Whether the same key had got it before: its answer was lost.
        existing: bool,
    },
    /// The identity is revoked.
    Revoked {
        /// Its jobs, which move or are cancelled.
        jobs: u64,
        /// Its tokens, which are revoked with it.
        tokens: u32,
    },
    /// Not granted; nothing has changed.
    Refused(Refused),
}

/// Why a command is not granted. The first reason in the order of the checks wins: frozen, allowed, valid, known, possible,
/// affordable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// An invariant broke or the data was rolled back: no new money moves.
    #[error("money is frozen: {why}")]
    Frozen {
        /// What is wrong.
        why: String,
    },
    /// The role may not do this at all.
    #[error("{what} is not allowed for this role")]
    NotAllowed {
        /// What was asked.
        what: &'static str,
    },
    /// A value is out of its bounds.
    #[error("{what}")]
    Invalid {
        /// Which, and what it may be.
        what: String,
    },
    /// No such job, or none that the asker may see.
    #[error("there is no such job")]
    UnknownJob,
    /// No such account.
    #[error("there is no account `{account}`")]
    UnknownAccount {
        /// Which.
        account: AccountId,
    },
    /// No such node.
    #[error("this node is not known here")]
    UnknownNode,
    /// Name or id in use.
    #[error("the name `{name}` is taken")]
    NameTaken {
        /// Which.
        name: Name,
    },
    /// The key was used for something else.
    #[error("the key was used before for another specification")]
    IdempotencyConflict {
        /// The job that it made.
        job: JobId,
    },
    /// Not enough money.
    #[error("insufficient funds: need {need}, have {have}")]
    InsufficientFunds {
        /// To be held.
        need: Micro,
        /// Free.
        have: Micro,
    },
    /// Over a quota.
    #[error("{what}")]
    Limit {
        /// Which, and what it is.
        what: String,
    },
    /// No node can take it now.
    #[error("no node can take this job now: {why}")]
    NoFit {
        /// The reasons, node by node.
        why: String,
    },
    /// The job has ended.
    #[error("the job has already ended")]
    AlreadyEnded {
        /// How.
        state: JobState,
    },
    /// The asset of this journal cannot be given away.
    #[error("credits are only for journals of test money")]
    NotTestMoney,
    /// Another live agent uses the same certificate.
    #[error("another agent with this certificate is connected and alive")]
    DuplicateInstance,
    /// An older connection of this node is being probed: come back in a second.
    #[error("an older connection of this node is being probed")]
    Probing,
    /// The session has been replaced, or the certificate that it was opened with.
    #[error("this connection has been replaced")]
    StaleSession,
    /// Who asks was revoked.
    #[error("this identity was revoked")]
    Revoked,
    /// No such identity, or none that the asker may see.
    #[error("there is no such identity")]
    UnknownIdentity,
    /// It was revoked before.
    #[error("`{name}` was revoked already")]
    AlreadyRevoked {
        /// Which.
        name: Name,
    },
    /// Without it nobody could let anybody join.
    #[error("`{name}` is the only operator")]
    LastOperator {
        /// Which.
        name: Name,
    },
    /// No such token, or none that the asker may see.
    #[error("there is no such token")]
    UnknownToken,
    /// Its public part is in use.
    #[error("there is a token with this id already")]
    TokenTaken,
    /// Its time was over.
    #[error("this token has expired")]
    TokenExpired,
    /// It has been used.
    #[error("this token was used already")]
    TokenUsed,
    /// It was revoked.
    #[error("this token was revoked")]
    TokenRevoked,
    /// Its secret is not known to who came with it.
    #[error("this is not the token's secret")]
    WrongProof,
    /// It is for another role.
    #[error("this token is for the role {role}")]
    WrongRole {
        /// Which.
        role: Role,
    },
    /// It gives another name.
    #[error("this token is for the name `{name}`")]
    WrongName {
        /// Which.
        name: Name,
    },
}

//! What a snapshot keeps: a list of items, of which the first is the head.

use modchain_core::control::{Durable, DurableNode, EndedJob};
use modchain_core::deadline::Deadline as CoreDeadline;
use modchain_core::job as j;
use modchain_core::ledger::Account as CoreAccount;
use modchain_core::membership as m;
use modchain_core::node as n;
use modchain_core::scheduler::needs::Needs;
use modchain_core::scheduler::shares::Served;
use modchain_types as t;
use serde::{Deserialize, Serialize};

use super::job::{Ending, JobSpec, JobState, Reason};
use super::member::{Certificate, Identity, TokenEnd, TokenGrant};
use super::node::{Offer, Reservation, Tariff};
use super::{Attempt, OutOfBounds, OutputLengths, Result, Usage};

/// One of many.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(in super::super) struct Item(Body);

/// The head comes first, all others in the order of the variants.
#[derive(Serialize, Deserialize)]
enum Body {
    Head {
        asset: Asset,
        number: u64,
        at: u64,
        started_at: u64,
        last_fence: u64,
        accepted: Option<[u8; 16]>,
        fence_base: u64,
    },
    Balance {
        account: Account,
        amount: i128,
    },
    Deposit {
        provider: String,
        key: String,
        account: String,
        amount: u64,
    },
    Account(String),
    Member(Box<Member>),
    Token(Box<Token>),
    EndedTokens {
        by: Option<[u8; 16]>,
        tokens: Vec<[u8; 5]>,
    },
    Job(Box<Job>),
    Ended {
        job: [u8; 16],
        account: String,
        spec_digest: [u8; 32],
        state: JobState,
        hold: u64,
        finished: u64,
        at: u64,
    },
    Node(Box<Node>),
    Deadline {
        at: u64,
        what: Deadline,
    },
    Newcomer {
        account: String,
        since: u64,
    },
    Served {
        account: String,
        number: u64,
    },
}

#[derive(Serialize, Deserialize)]
enum Asset {
    Test,
    Usdc,
}

#[derive(Serialize, Deserialize)]
enum Account {
    Available(String),
    Held([u8; 16]),
    Earnings(String),
    Fees,
    Custody,
}

#[derive(Serialize, Deserialize)]
struct Member {
    identity: Identity,
    joined_at: u64,
    certificates: Vec<Accepted>,
    renewals: u64,
    revoked: Option<Revocation>,
}

#[derive(Serialize, Deserialize)]
struct Accepted {
    certificate: Certificate,
    issued_at: u64,
    used_at: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Revocation {
    at: u64,
    by: Option<[u8; 16]>,
    why: String,
}

#[derive(Serialize, Deserialize)]
struct Token {
    id: [u8; 5],
    verifier: [u8; 32],
    grant: TokenGrant,
    by: Option<[u8; 16]>,
    issued_at: u64,
    expires_at: u64,
    state: TokenState,
    ended_at: Option<u64>,
    binding: Option<Binding>,
    alarms: Vec<(u64, String)>,
}

#[derive(Serialize, Deserialize)]
enum TokenState {
    Issued,
    Bound,
    Ended(TokenEnd),
}

#[derive(Serialize, Deserialize)]
struct Binding {
    identity: [u8; 16],
    certificate: Certificate,
    at: u64,
    from: String,
}

#[derive(Serialize, Deserialize)]
struct Job {
    id: [u8; 16],
    account: String,
    key: String,
    spec: JobSpec,
    spec_digest: [u8; 32],
    fee_basis_points: u16,
    queued_at: u64,
    queued_number: u64,
    attempts_made: u32,
    attempts_counted: u32,
    avoided: Vec<[u8; 16]>,
    image: Option<String>,
    stop: Option<StopWish>,
    placement: Option<Box<Placement>>,
}

#[derive(Serialize, Deserialize)]
struct StopWish {
    grace: u64,
    /// Why its input failed; the client wants it to end if there is nothing here.
    input_failed: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Placement {
    attempt: Attempt,
    fence: u64,
    node: [u8; 16],
    tariff: Tariff,
    reservation: Reservation,
    run_limit: u64,
    run_limit_reason: Reason,
    assigned_at: u64,
    progress: Progress,
}

#[derive(Serialize, Deserialize)]
enum Progress {
    Assigned,
    Starting,
    Running { started_at: u64 },
    Done { ending: Ending, usage: Usage, output: OutputLengths, at: u64 },
}

#[derive(Serialize, Deserialize)]
struct Node {
    id: [u8; 16],
    name: String,
    account: String,
    offer: Option<Box<Offer>>,
    standing: Standing,
    lost: bool,
    revoked: bool,
}

#[derive(Serialize, Deserialize)]
enum Standing {
    Open,
    Cordoned,
    Draining { until: Option<u64> },
}

#[derive(Serialize, Deserialize)]
enum Deadline {
    StartBy([u8; 16]),
    Accept(Attempt, u64),
    Prepare(Attempt, u64),
    Overdue(Attempt, u64),
    StopConfirm(Attempt, u64),
    Output(Attempt, u64),
    AttemptLost(Attempt, u64),
    NodeSuspect([u8; 16]),
    NodeLost([u8; 16]),
    CoolDown([u8; 16]),
    TokenExpires([u8; 5]),
    TokenBound([u8; 5]),
    CertificateRetires([u8; 16], [u8; 16]),
    Drained([u8; 16]),
    RevokedWork([u8; 16]),
}

/// Gives every item of a state to `each`, in order.
pub(in super::super) fn items<E>(
    state: &Durable,
    mut each: impl FnMut(Item) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let Durable {
        asset,
        number,
        at,
        started_at,
        last_fence,
        accepted,
        fence_base,
        balances,
        deposits,
        accounts,
        members,
        tokens,
        ended_tokens,
        jobs,
        ended,
        nodes,
        deadlines,
        served,
    } = state;
    let mut each = |body| each(Item(body));
    let asset = match asset {
        t::Asset::Test => Asset::Test,
        t::Asset::Usdc => Asset::Usdc,
    };
    each(Body::Head {
        asset,
        number: *number,
        at: at.0,
        started_at: started_at.0,
        last_fence: last_fence.0,
        accepted: accepted.map(|journal| journal.0),
        fence_base: *fence_base,
    })?;
    for (account, amount) in balances {
        each(Body::Balance { account: account.into(), amount: *amount })?;
    }
    for (provider, key, account, amount) in deposits {
        each(Body::Deposit {
            provider: provider.to_string(),
            key: key.to_string(),
            account: account.to_string(),
            amount: amount.0,
        })?;
    }
    for account in accounts {
        each(Body::Account(account.to_string()))?;
    }
    for member in members {
        each(Body::Member(Box::new(member.into())))?;
    }
    for token in tokens {
        each(Body::Token(Box::new(token.into())))?;
    }
    for (by, tokens) in ended_tokens {
        each(Body::EndedTokens { by: by.map(|by| by.0), tokens: tokens.iter().map(|token| token.0).collect() })?;
    }
    for job in jobs {
        each(Body::Job(Box::new(job.into())))?;
    }
    for (job, EndedJob { account, spec_digest, state, hold, finished, at }) in ended {
        let (account, spec_digest, state) = (account.to_string(), spec_digest.0, (*state).into());
        let (hold, finished, at) = (hold.0, *finished, at.0);
        each(Body::Ended { job: job.0, account, spec_digest, state, hold, finished, at })?;
    }
    for node in nodes {
        each(Body::Node(Box::new(node.into())))?;
    }
    for (at, deadline) in deadlines {
        each(Body::Deadline { at: at.0, what: deadline.into() })?;
    }
    for (account, served) in served {
        let account = account.to_string();
        each(match served {
            Served::Never(since) => Body::Newcomer { account, since: *since },
            Served::At(number) => Body::Served { account, number: *number },
        })?;
    }
    Ok(())
}

/// A state from its items, the head first.
pub(in super::super) struct Assembly(Durable);

impl Assembly {
    /// Begins with the first item, which must be the head.
    pub(in super::super) fn begin(head: Item) -> Result<Self> {
        let Body::Head { asset, number, at, started_at, last_fence, accepted, fence_base } = head.0 else {
            return Err(OutOfBounds("it does not begin with its head".into()));
        };
        Ok(Self(Durable {
            asset: match asset {
                Asset::Test => t::Asset::Test,
                Asset::Usdc => t::Asset::Usdc,
            },
            number,
            at: t::Timestamp(at),
            started_at: t::Timestamp(started_at),
            last_fence: t::Fence(last_fence),
            accepted: accepted.map(t::JournalId),
            fence_base,
            balances: Vec::new(),
            deposits: Vec::new(),
            accounts: Vec::new(),
            members: Vec::new(),
            tokens: Vec::new(),
            ended_tokens: Vec::new(),
            jobs: Vec::new(),
            ended: Vec::new(),
            nodes: Vec::new(),
            deadlines: Vec::new(),
            served: Vec::new(),
        }))
    }

    /// Takes the next item.
    pub(in super::super) fn take(&mut self, item: Item) -> Result<()> {
        let state = &mut self.0;
        match item.0 {
            Body::Head { .. } => return Err(OutOfBounds("it has two heads".into())),
            Body::Balance { account, amount } => state.balances.push((account.into_core()?, amount)),
            Body::Deposit { provider, key, account, amount } => {
                state.deposits.push((t::Text::new(provider)?, key.parse()?, account.parse()?, t::Micro(amount)));
            }
            Body::Account(account) => state.accounts.push(account.parse()?),
            Body::Member(member) => state.members.push(member.into_core()?),
            Body::Token(token) => state.tokens.push(token.into_core()?),
            Body::EndedTokens { by, tokens } => {
                state.ended_tokens.push((by.map(t::IdentityId), tokens.into_iter().map(t::TokenId).collect()));
            }
            Body::Job(job) => state.jobs.push(job.into_core()?),
            Body::Ended { job, account, spec_digest, state: ended, hold, finished, at } => {
                let ended = EndedJob {
                    account: account.parse()?,
                    spec_digest: t::Digest(spec_digest),
                    state: ended.into(),
                    hold: t::Micro(hold),
                    finished,
                    at: t::Timestamp(at),
                };
                state.ended.push((t::JobId(job), ended));
            }
            Body::Node(node) => state.nodes.push(node.into_core()?),
            Body::Deadline { at, what } => state.deadlines.push((t::Timestamp(at), what.into())),
            Body::Newcomer { account, since } => state.served.push((account.parse()?, Served::Never(since))),
            Body::Served { account, number } => state.served.push((account.parse()?, Served::At(number))),
        }
        Ok(())
    }

    /// All of it.
    pub(in super::super) fn finish(self) -> Durable {
        self.0
    }
}

impl From<&CoreAccount> for Account {
    fn from(account: &CoreAccount) -> Self {
        match account {
            CoreAccount::Available(account) => Self::Available(account.to_string()),
            CoreAccount::Held(job) => Self::Held(job.0),
            CoreAccount::Earnings(account) => Self::Earnings(account.to_string()),
            CoreAccount::Fees => Self::Fees,
            CoreAccount::Custody => Self::Custody,
        }
    }
}

impl Account {
    fn into_core(self) -> Result<CoreAccount> {
        Ok(match self {
            Self::Available(account) => CoreAccount::Available(account.parse()?),
            Self::Held(job) => CoreAccount::Held(t::JobId(job)),
            Self::Earnings(account) => CoreAccount::Earnings(account.parse()?),
            Self::Fees => CoreAccount::Fees,
            Self::Custody => CoreAccount::Custody,
        })
    }
}

impl From<&m::Member> for Member {
    fn from(member: &m::Member) -> Self {
        let m::Member { identity, joined_at, certificates, renewals, revoked } = member;
        let accepted = |known: &m::Accepted| Accepted {
            certificate: (&known.certificate).into(),
            issued_at: known.issued_at.0,
            used_at: known.used_at.map(|at| at.0),
        };
        Self {
            identity: identity.into(),
            joined_at: joined_at.0,
            certificates: certificates.iter().map(accepted).collect(),
            renewals: *renewals,
            revoked: revoked.as_ref().map(|revoked| Revocation {
                at: revoked.at.0,
                by: revoked.by.map(|by| by.0),
                why: revoked.why.to_string(),
            }),
        }
    }
}

impl Member {
    fn into_core(self) -> Result<m::Member> {
        let accepted = |known: Accepted| m::Accepted {
            certificate: known.certificate.into(),
            issued_at: t::Timestamp(known.issued_at),
            used_at: known.used_at.map(t::Timestamp),
        };
        let revocation = |revoked: Revocation| -> Result<m::Revocation> {
            let (at, by) = (t::Timestamp(revoked.at), revoked.by.map(t::IdentityId));
            Ok(m::Revocation { at, by, why: t::Text::new(revoked.why)? })
        };
        Ok(m::Member {
            identity: self.identity.into_core()?,
            joined_at: t::Timestamp(self.joined_at),
            certificates: self.certificates.into_iter().map(accepted).collect(),
            renewals: self.renewals,
            revoked: self.revoked.map(revocation).transpose()?,
        })
    }
}

impl From<&m::Token> for Token {
    fn from(token: &m::Token) -> Self {
        let m::Token {
            id,
            verifier,
            grant,
            by,
            issued_at,
            expires_at,
            state,
            ended_at,
            binding,
            alarms,
            wrong_proofs: _, // not durable
        } = token;
        Self {
            id: id.0,
            verifier: *verifier,
            grant: grant.into(),
            by: by.map(|by| by.0),
            issued_at: issued_at.0,
            expires_at: expires_at.0,
            state: match state {
                m::TokenState::Issued => TokenState::Issued,
                m::TokenState::Bound => TokenState::Bound,
                m::TokenState::Ended(end) => TokenState::Ended((*end).into()),
            },
            ended_at: ended_at.map(|at| at.0),
            binding: binding.as_ref().map(|binding| Binding {
                identity: binding.identity.0,
                certificate: (&binding.certificate).into(),
                at: binding.at.0,
                from: binding.from.to_string(),
            }),
            alarms: alarms.iter().map(|alarm| (alarm.at.0, alarm.from.to_string())).collect(),
        }
    }
}

impl Token {
    fn into_core(self) -> Result<m::Token> {
        let binding = |binding: Binding| -> Result<m::Binding> {
            Ok(m::Binding {
                identity: t::IdentityId(binding.identity),
                certificate: binding.certificate.into(),
                at: t::Timestamp(binding.at),
                from: t::Text::new(binding.from)?,
            })
        };
        let alarm =
            |(at, from)| -> Result<m::Alarm> { Ok(m::Alarm { at: t::Timestamp(at), from: t::Text::new(from)? }) };
        Ok(m::Token {
            id: t::TokenId(self.id),
            verifier: self.verifier,
            grant: self.grant.into_core()?,
            by: self.by.map(t::IdentityId),
            issued_at: t::Timestamp(self.issued_at),
            expires_at: t::Timestamp(self.expires_at),
            state: match self.state {
                TokenState::Issued => m::TokenState::Issued,
                TokenState::Bound => m::TokenState::Bound,
                TokenState::Ended(end) => m::TokenState::Ended(end.into()),
            },
            ended_at: self.ended_at.map(t::Timestamp),
            binding: self.binding.map(binding).transpose()?,
            alarms: self.alarms.into_iter().map(alarm).collect::<Result<_>>()?,
            wrong_proofs: 0,
        })
    }
}

impl From<&j::Job> for Job {
    fn from(job: &j::Job) -> Self {
        let j::Job {
            id,
            account,
            key,
            spec,
            spec_digest,
            fee_basis_points,
            queued_at,
            queued_number,
            attempts_made,
            attempts_counted,
            avoided,
            image,
            needs: _, // follow from the specification and the image
            stop,
            phase,
        } = job;
        Self {
            id: id.0,
            account: account.to_string(),
            key: key.to_string(),
            spec: (&**spec).into(),
            spec_digest: spec_digest.0,
            fee_basis_points: *fee_basis_points,
            queued_at: queued_at.0,
            queued_number: *queued_number,
            attempts_made: *attempts_made,
            attempts_counted: *attempts_counted,
            avoided: avoided.iter().map(|node| node.0).collect(),
            image: image.as_ref().map(ToString::to_string),
            stop: stop.as_ref().map(|wish| StopWish {
                grace: wish.grace.0,
                input_failed: match &wish.cause {
                    j::WishCause::Client => None,
                    j::WishCause::InputFailed(why) => Some(why.to_string()),
                },
            }),
            placement: match phase {
                j::Phase::Queued => None,
                j::Phase::Placed(placement) => Some(Box::new((&**placement).into())),
            },
        }
    }
}

impl Job {
    fn into_core(self) -> Result<j::Job> {
        let wish = |wish: StopWish| -> Result<j::StopWish> {
            let cause = match wish.input_failed {
                None => j::WishCause::Client,
                Some(why) => j::WishCause::InputFailed(t::Text::new(why)?),
            };
            Ok(j::StopWish { grace: t::Span(wish.grace), cause })
        };
        let spec = Box::new(self.spec.into_core()?);
        let image = self.image.map(t::Text::new).transpose()?;
        Ok(j::Job {
            needs: Needs::of(&spec, image.as_ref()).into(),
            id: t::JobId(self.id),
            account: self.account.parse()?,
            key: self.key.parse()?,
            spec,
            spec_digest: t::Digest(self.spec_digest),
            fee_basis_points: self.fee_basis_points,
            queued_at: t::Timestamp(self.queued_at),
            queued_number: self.queued_number,
            attempts_made: self.attempts_made,
            attempts_counted: self.attempts_counted,
            avoided: self.avoided.into_iter().map(t::NodeId).collect(),
            image,
            stop: self.stop.map(wish).transpose()?,
            phase: match self.placement {
                None => j::Phase::Queued,
                Some(placement) => j::Phase::Placed(Box::new(placement.into_core()?)),
            },
        })
    }
}

impl From<&j::Placement> for Placement {
    fn from(placement: &j::Placement) -> Self {
        let j::Placement {
            attempt,
            fence,
            node,
            tariff,
            reservation,
            run_limit,
            run_limit_reason,
            assigned_at,
            progress,
        } = placement;
        Self {
            attempt: attempt.into(),
            fence: fence.0,
            node: node.0,
            tariff: (&**tariff).into(),
            reservation: reservation.into(),
            run_limit: run_limit.0,
            run_limit_reason: (*run_limit_reason).into(),
            assigned_at: assigned_at.0,
            progress: match progress {
                j::Progress::Assigned => Progress::Assigned,
                j::Progress::Starting => Progress::Starting,
                j::Progress::Running { started_at } => Progress::Running { started_at: started_at.0 },
                j::Progress::Done(done) => Progress::Done {
                    ending: (&done.ending).into(),
                    usage: (&done.usage).into(),
                    output: (&done.output).into(),
                    at: done.at.0,
                },
            },
        }
    }
}

impl Placement {
    fn into_core(self) -> Result<j::Placement> {
        Ok(j::Placement {
            attempt: self.attempt.into(),
            fence: t::Fence(self.fence),
            node: t::NodeId(self.node),
            tariff: Box::new(self.tariff.into_core()?),
            reservation: self.reservation.into_core()?,
            run_limit: t::Span(self.run_limit),
            run_limit_reason: self.run_limit_reason.into(),
            assigned_at: t::Timestamp(self.assigned_at),
            progress: match self.progress {
                Progress::Assigned => j::Progress::Assigned,
                Progress::Starting => j::Progress::Starting,
                Progress::Running { started_at } => j::Progress::Running { started_at: t::Timestamp(started_at) },
                Progress::Done { ending, usage, output, at } => j::Progress::Done(Box::new(j::Done {
                    ending: ending.into_core()?,
                    usage: usage.into(),
                    output: output.into(),
                    at: t::Timestamp(at),
                })),
            },
        })
    }
}

impl From<&DurableNode> for Node {
    fn from(node: &DurableNode) -> Self {
        let DurableNode { id, name, account, offer, standing, lost, revoked } = node;
        Self {
            id: id.0,
            name: name.to_string(),
            account: account.to_string(),
            offer: offer.as_deref().map(|offer| Box::new(offer.into())),
            standing: match standing {
                n::Standing::Open => Standing::Open,
                n::Standing::Cordoned => Standing::Cordoned,
                n::Standing::Draining(until) => Standing::Draining { until: until.map(|until| until.0) },
            },
            lost: *lost,
            revoked: *revoked,
        }
    }
}

impl Node {
    fn into_core(self) -> Result<DurableNode> {
        Ok(DurableNode {
            id: t::NodeId(self.id),
            name: self.name.parse()?,
            account: self.account.parse()?,
            offer: self.offer.map(|offer| offer.into_core().map(Box::new)).transpose()?,
            standing: match self.standing {
                Standing::Open => n::Standing::Open,
                Standing::Cordoned => n::Standing::Cordoned,
                Standing::Draining { until } => n::Standing::Draining(until.map(t::Timestamp)),
            },
            lost: self.lost,
            revoked: self.revoked,
        })
    }
}

impl From<&CoreDeadline> for Deadline {
    fn from(deadline: &CoreDeadline) -> Self {
        match deadline {
            CoreDeadline::StartBy(job) => Self::StartBy(job.0),
            CoreDeadline::Accept(attempt, fence) => Self::Accept(attempt.into(), fence.0),
            CoreDeadline::Prepare(attempt, fence) => Self::Prepare(attempt.into(), fence.0),
            CoreDeadline::Overdue(attempt, fence) => Self::Overdue(attempt.into(), fence.0),
            CoreDeadline::StopConfirm(attempt, fence) => Self::StopConfirm(attempt.into(), fence.0),
            CoreDeadline::Output(attempt, fence) => Self::Output(attempt.into(), fence.0),
            CoreDeadline::AttemptLost(attempt, fence) => Self::AttemptLost(attempt.into(), fence.0),
            CoreDeadline::NodeSuspect(node) => Self::NodeSuspect(node.0),
            CoreDeadline::NodeLost(node) => Self::NodeLost(node.0),
            CoreDeadline::CoolDown(node) => Self::CoolDown(node.0),
            CoreDeadline::TokenExpires(token) => Self::TokenExpires(token.0),
            CoreDeadline::TokenBound(token) => Self::TokenBound(token.0),
            CoreDeadline::CertificateRetires(identity, serial) => Self::CertificateRetires(identity.0, serial.0),
            CoreDeadline::Drained(node) => Self::Drained(node.0),
            CoreDeadline::RevokedWork(identity) => Self::RevokedWork(identity.0),
        }
    }
}

impl From<Deadline> for CoreDeadline {
    fn from(deadline: Deadline) -> Self {
        let fence = t::Fence;
        match deadline {
            Deadline::StartBy(job) => Self::StartBy(t::JobId(job)),
            Deadline::Accept(attempt, at) => Self::Accept(attempt.into(), fence(at)),
            Deadline::Prepare(attempt, at) => Self::Prepare(attempt.into(), fence(at)),
            Deadline::Overdue(attempt, at) => Self::Overdue(attempt.into(), fence(at)),
            Deadline::StopConfirm(attempt, at) => Self::StopConfirm(attempt.into(), fence(at)),
            Deadline::Output(attempt, at) => Self::Output(attempt.into(), fence(at)),
            Deadline::AttemptLost(attempt, at) => Self::AttemptLost(attempt.into(), fence(at)),
            Deadline::NodeSuspect(node) => Self::NodeSuspect(t::NodeId(node)),
            Deadline::NodeLost(node) => Self::NodeLost(t::NodeId(node)),
            Deadline::CoolDown(node) => Self::CoolDown(t::NodeId(node)),
            Deadline::TokenExpires(token) => Self::TokenExpires(t::TokenId(token)),
            Deadline::TokenBound(token) => Self::TokenBound(t::TokenId(token)),
            Deadline::CertificateRetires(identity, serial) => {
                Self::CertificateRetires(t::IdentityId(identity), t::CertificateSerial(serial))
            }
            Deadline::Drained(node) => Self::Drained(t::NodeId(node)),
            Deadline::RevokedWork(identity) => Self::RevokedWork(t::IdentityId(identity)),
        }
    }
}

//! Version 2 of the disk types. The order of fields and variants is the format: append variants, never reorder; anything
//! else is version 3.
//!
//! The events are here, specifications in `job`, what nodes offer in `node`, who belongs in `member`, what snapshots keep in
//! `durable`.

mod durable;
mod job;
mod member;
mod node;

pub(super) use durable::{Assembly, Item, items};

use modchain_core::event::JOBS_FORGOTTEN_MAX;
use modchain_core::{self as core, EventBody};
use modchain_types as t;
use serde::{Deserialize, Serialize};

use job::{Ending, ExitFrom, JobSpec, JobState, Reason};
use member::{Certificate, Identity, TokenEnd, TokenGrant};
use node::{NodeWish, Offer, Reservation, Tariff};

/// A value on disk that is outside its bounds: damage that the checksums did not see, or a bug.
#[derive(Debug)]
pub(super) struct OutOfBounds(pub(super) String);

impl<E: std::error::Error> From<E> for OutOfBounds {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

type Result<T> = std::result::Result<T, OutOfBounds>;

/// One event, without its number: that follows from its place.
#[derive(Serialize, Deserialize)]
pub(super) struct Event {
    at: u64,
    body: Body,
}

#[derive(Serialize, Deserialize)]
struct Attempt {
    job: [u8; 16],
    number: u32,
}

#[derive(Serialize, Deserialize)]
struct Usage {
    ran: u64,
    prompt_tokens: u64,
    output_tokens: u64,
    fuel: u64,
    load: u64,
    first_token: u64,
    generating: u64,
}

#[derive(Serialize, Deserialize)]
struct OutputLengths {
    stdout: u64,
    stderr: u64,
    dropped: u64,
}

#[derive(Serialize, Deserialize)]
struct Outcome {
    state: JobState,
    reason: Reason,
    exit_code: u8,
    exit_from: ExitFrom,
    message: String,
    usage: Usage,
    output: OutputLengths,
}

#[derive(Serialize, Deserialize)]
struct Settlement {
    gross: u64,
    fee: u64,
    net: u64,
    refund: u64,
    owner: Option<String>,
}

#[derive(Serialize, Deserialize)]
enum Body {
    EngineStarted {
        boot: [u8; 16],
        boot_clock: u64,
        wall: i64,
        version: String,
    },
    IdentityAdded(Identity),
    Deposited {
        provider: String,
        key: String,
        account: String,
        amount: u64,
        why: String,
    },
    JobQueued {
        job: [u8; 16],
        account: String,
        key: String,
        spec: Box<JobSpec>,
        spec_digest: [u8; 32],
        fee_basis_points: u16,
    },
    AttemptAssigned {
        attempt: Attempt,
        node: [u8; 16],
        tariff: Tariff,
        reservation: Reservation,
        run_limit: u64,
        run_limit_reason: Reason,
    },
    AttemptStarting(Attempt),
    AttemptStarted(Attempt),
    CancelRequested {
        job: [u8; 16],
        grace: u64,
        why: String,
    },
    ResultRecorded {
        attempt: Attempt,
        ending: Ending,
        usage: Usage,
        output: OutputLengths,
    },
    AttemptEnded {
        attempt: Attempt,
        reason: Reason,
        message: String,
    },
    JobFinished {
        job: [u8; 16],
        attempt: Option<u32>,
        outcome: Outcome,
        settlement: Settlement,
    },
    NodeConnected {
        node: [u8; 16],
        offer: Option<Box<Offer>>,
    },
    NodeLost {
        node: [u8; 16],
    },
    InputFailed {
        job: [u8; 16],
        message: String,
    },
    TokenCreated {
        token: [u8; 5],
        verifier: [u8; 32],
        grant: TokenGrant,
        by: Option<[u8; 16]>,
        ttl: u64,
    },
    MemberJoined {
        token: [u8; 5],
        identity: Identity,
        certificate: Certificate,
        from: String,
    },
    TokenEnded {
        token: [u8; 5],
        end: TokenEnd,
    },
    TokenAlarm {
        token: [u8; 5],
        from: String,
    },
    CertificateIssued {
        identity: [u8; 16],
        certificate: Certificate,
        beside: Option<[u8; 16]>,
    },
    CertificateUsed {
        identity: [u8; 16],
        serial: [u8; 16],
    },
    CertificateRetired {
        identity: [u8; 16],
        serial: [u8; 16],
    },
    IdentityRevoked {
        identity: [u8; 16],
        by: Option<[u8; 16]>,
        why: String,
    },
    ImagePinned {
        attempt: Attempt,
        image: String,
    },
    NodeSet {
        node: [u8; 16],
        by: [u8; 16],
        wish: NodeWish,
        why: String,
    },
    RestoreAccepted {
        journal: [u8; 16],
        fence_base: u64,
    },
    JobsForgotten {
        jobs: Vec<[u8; 16]>,
    },
}

impl From<&core::Event> for Event {
    fn from(event: &core::Event) -> Self {
        Self { at: event.at.0, body: Body::from(&event.body) }
    }
}

impl Event {
    pub(super) fn into_core(self, number: u64) -> Result<core::Event> {
        Ok(core::Event { number, at: t::Timestamp(self.at), body: self.body.into_core()? })
    }
}

impl From<&EventBody> for Body {
    fn from(body: &EventBody) -> Self {
        match body {
            EventBody::EngineStarted { boot, boot_clock, wall, version } => Self::EngineStarted {
                boot: boot.0,
                boot_clock: boot_clock.0,
                wall: wall.0,
                version: version.to_string(),
            },
            EventBody::IdentityAdded { identity } => Self::IdentityAdded(identity.into()),
            EventBody::Deposited { provider, key, account, amount, why } => Self::Deposited {
                provider: provider.to_string(),
                key: key.to_string(),
                account: account.to_string(),
                amount: amount.0,
                why: why.to_string(),
            },
            EventBody::JobQueued { job, account, key, spec, spec_digest, fee_basis_points } => Self::JobQueued {
                job: job.0,
                account: account.to_string(),
                key: key.to_string(),
                spec: Box::new((&**spec).into()),
                spec_digest: spec_digest.0,
                fee_basis_points: *fee_basis_points,
            },
            EventBody::AttemptAssigned { attempt, node, tariff, reservation, run_limit, run_limit_reason } => {
                Self::AttemptAssigned {
                    attempt: attempt.into(),
                    node: node.0,
                    tariff: (&**tariff).into(),
                    reservation: reservation.into(),
                    run_limit: run_limit.0,
                    run_limit_reason: (*run_limit_reason).into(),
                }
            }
            EventBody::AttemptStarting { attempt } => Self::AttemptStarting(attempt.into()),
            EventBody::AttemptStarted { attempt } => Self::AttemptStarted(attempt.into()),
            EventBody::CancelRequested { job, grace, why } => {
                Self::CancelRequested { job: job.0, grace: grace.0, why: why.to_string() }
            }
            EventBody::ResultRecorded { attempt, ending, usage, output } => Self::ResultRecorded {
                attempt: attempt.into(),
                ending: ending.into(),
                usage: usage.into(),
                output: output.into(),
            },
            EventBody::AttemptEnded { attempt, reason, message } => {
                Self::AttemptEnded { attempt: attempt.into(), reason: (*reason).into(), message: message.to_string() }
            }
            EventBody::JobFinished { job, attempt, outcome, settlement } => Self::JobFinished {
                job: job.0,
                attempt: *attempt,
                outcome: outcome.into(),
                settlement: settlement.into(),
            },
            EventBody::NodeConnected { node, offer } => {
                Self::NodeConnected { node: node.0, offer: offer.as_deref().map(|offer| Box::new(offer.into())) }
            }
            EventBody::NodeLost { node } => Self::NodeLost { node: node.0 },
            EventBody::InputFailed { job, message } => Self::InputFailed { job: job.0, message: message.to_string() },
            EventBody::TokenCreated { token, verifier, grant, by, ttl } => Self::TokenCreated {
                token: token.0,
                verifier: *verifier,
                grant: grant.into(),
                by: by.map(|by| by.0),
                ttl: ttl.0,
            },
            EventBody::MemberJoined { token, identity, certificate, from } => Self::MemberJoined {
                token: token.0,
                identity: identity.into(),
                certificate: certificate.into(),
                from: from.to_string(),
            },
            EventBody::TokenEnded { token, end } => Self::TokenEnded { token: token.0, end: (*end).into() },
            EventBody::TokenAlarm { token, from } => Self::TokenAlarm { token: token.0, from: from.to_string() },
            EventBody::CertificateIssued { identity, certificate, beside } => Self::CertificateIssued {
                identity: identity.0,
                certificate: certificate.into(),
                beside: beside.map(|serial| serial.0),
            },
            EventBody::CertificateUsed { identity, serial } => {
                Self::CertificateUsed { identity: identity.0, serial: serial.0 }
            }
            EventBody::CertificateRetired { identity, serial } => {
                Self::CertificateRetired { identity: identity.0, serial: serial.0 }
            }
            EventBody::IdentityRevoked { identity, by, why } => {
                Self::IdentityRevoked { identity: identity.0, by: by.map(|by| by.0), why: why.to_string() }
            }
            EventBody::ImagePinned { attempt, image } => {
                Self::ImagePinned { attempt: attempt.into(), image: image.to_string() }
            }
            EventBody::RestoreAccepted { journal, fence_base } => {
                Self::RestoreAccepted { journal: journal.0, fence_base: *fence_base }
            }
            EventBody::JobsForgotten { jobs } => Self::JobsForgotten { jobs: jobs.iter().map(|job| job.0).collect() },
            EventBody::NodeSet { node, by, wish, why } => {
                Self::NodeSet { node: node.0, by: by.0, wish: (*wish).into(), why: why.to_string() }
            }
        }
    }
}

impl Body {
    fn into_core(self) -> Result<EventBody> {
        Ok(match self {
            Self::EngineStarted { boot, boot_clock, wall, version } => EventBody::EngineStarted {
                boot: t::BootId(boot),
                boot_clock: t::Span(boot_clock),
                wall: t::WallTime(wall),
                version: t::Text::new(version)?,
            },
            Self::IdentityAdded(identity) => EventBody::IdentityAdded { identity: identity.into_core()? },
            Self::Deposited { provider, key, account, amount, why } => EventBody::Deposited {
                provider: t::Text::new(provider)?,
                key: key.parse()?,
                account: account.parse()?,
                amount: t::Micro(amount),
                why: t::Text::new(why)?,
            },
            Self::JobQueued { job, account, key, spec, spec_digest, fee_basis_points } => EventBody::JobQueued {
                job: t::JobId(job),
                account: account.parse()?,
                key: key.parse()?,
                spec: Box::new(spec.into_core()?),
                spec_digest: t::Digest(spec_digest),
                fee_basis_points,
            },
            Self::AttemptAssigned { attempt, node, tariff, reservation, run_limit, run_limit_reason } => {
                EventBody::AttemptAssigned {
                    attempt: attempt.into(),
                    node: t::NodeId(node),
                    tariff: Box::new(tariff.into_core()?),
                    reservation: reservation.into_core()?,
                    run_limit: t::Span(run_limit),
                    run_limit_reason: run_limit_reason.into(),
                }
            }
            Self::AttemptStarting(attempt) => EventBody::AttemptStarting { attempt: attempt.into() },
            Self::AttemptStarted(attempt) => EventBody::AttemptStarted { attempt: attempt.into() },
            Self::CancelRequested { job, grace, why } => {
                EventBody::CancelRequested { job: t::JobId(job), grace: t::Span(grace), why: t::Text::new(why)? }
            }
            Self::ResultRecorded { attempt, ending, usage, output } => EventBody::ResultRecorded {
                attempt: attempt.into(),
                ending: ending.into_core()?,
                usage: usage.into(),
                output: output.into(),
            },
            Self::AttemptEnded { attempt, reason, message } => EventBody::AttemptEnded {
                attempt: attempt.into(),
                reason: reason.into(),
                message: t::Text::new(message)?,
            },
            Self::JobFinished { job, attempt, outcome, settlement } => EventBody::JobFinished {
                job: t::JobId(job),
                attempt,
                outcome: outcome.into_core()?,
                settlement: settlement.into_core()?,
            },
            Self::NodeConnected { node, offer } => EventBody::NodeConnected {
                node: t::NodeId(node),
                offer: offer.map(|offer| offer.into_core().map(Box::new)).transpose()?,
            },
            Self::NodeLost { node } => EventBody::NodeLost { node: t::NodeId(node) },
            Self::InputFailed { job, message } => {
                EventBody::InputFailed { job: t::JobId(job), message: t::Text::new(message)? }
            }
            Self::TokenCreated { token, verifier, grant, by, ttl } => EventBody::TokenCreated {
                token: t::TokenId(token),
                verifier,
                grant: grant.into_core()?,
                by: by.map(t::IdentityId),
                ttl: t::Span(ttl),
            },
            Self::MemberJoined { token, identity, certificate, from } => EventBody::MemberJoined {
                token: t::TokenId(token),
                identity: identity.into_core()?,
                certificate: certificate.into(),
                from: t::Text::new(from)?,
            },
            Self::TokenEnded { token, end } => EventBody::TokenEnded { token: t::TokenId(token), end: end.into() },
            Self::TokenAlarm { token, from } => {
                EventBody::TokenAlarm { token: t::TokenId(token), from: t::Text::new(from)? }
            }
            Self::CertificateIssued { identity, certificate, beside } => EventBody::CertificateIssued {
                identity: t::IdentityId(identity),
                certificate: certificate.into(),
                beside: beside.map(t::CertificateSerial),
            },
            Self::CertificateUsed { identity, serial } => {
                EventBody::CertificateUsed { identity: t::IdentityId(identity), serial: t::CertificateSerial(serial) }
            }
            Self::CertificateRetired { identity, serial } => EventBody::CertificateRetired {
                identity: t::IdentityId(identity),
                serial: t::CertificateSerial(serial),
            },
            Self::IdentityRevoked { identity, by, why } => EventBody::IdentityRevoked {
                identity: t::IdentityId(identity),
                by: by.map(t::IdentityId),
                why: t::Text::new(why)?,
            },
            Self::ImagePinned { attempt, image } => {
                EventBody::ImagePinned { attempt: attempt.into(), image: t::Text::new(image)? }
            }
            Self::RestoreAccepted { journal, fence_base } => {
                EventBody::RestoreAccepted { journal: t::JournalId(journal), fence_base }
            }
            Self::JobsForgotten { jobs } => {
                if jobs.is_empty() || jobs.len() > JOBS_FORGOTTEN_MAX {
                    return Err(OutOfBounds(format!("{} jobs are forgotten by one event", jobs.len())));
                }
                EventBody::JobsForgotten { jobs: jobs.into_iter().map(t::JobId).collect() }
            }
            Self::NodeSet { node, by, wish, why } => EventBody::NodeSet {
                node: t::NodeId(node),
                by: t::IdentityId(by),
                wish: wish.into(),
                why: t::Text::new(why)?,
            },
        })
    }
}

impl From<&t::AttemptId> for Attempt {
    fn from(id: &t::AttemptId) -> Self {
        let t::AttemptId { job, number } = id;
        Self { job: job.0, number: *number }
    }
}

impl From<Attempt> for t::AttemptId {
    fn from(id: Attempt) -> Self {
        Self { job: t::JobId(id.job), number: id.number }
    }
}

impl From<&t::Usage> for Usage {
    fn from(usage: &t::Usage) -> Self {
        let t::Usage { ran, prompt_tokens, output_tokens, fuel, load, first_token, generating } = *usage;
        Self {
            ran: ran.0,
            prompt_tokens,
            output_tokens,
            fuel,
            load: load.0,
            first_token: first_token.0,
            generating: generating.0,
        }
    }
}

impl From<Usage> for t::Usage {
    fn from(usage: Usage) -> Self {
        let Usage { ran, prompt_tokens, output_tokens, fuel, load, first_token, generating } = usage;
        Self {
            ran: t::Span(ran),
            prompt_tokens,
            output_tokens,
            fuel,
            load: t::Span(load),
            first_token: t::Span(first_token),
            generating: t::Span(generating),
        }
    }
}

impl From<&t::OutputLengths> for OutputLengths {
    fn from(lengths: &t::OutputLengths) -> Self {
        let t::OutputLengths { stdout, stderr, dropped } = *lengths;
        Self { stdout, stderr, dropped }
    }
}

impl From<OutputLengths> for t::OutputLengths {
    fn from(lengths: OutputLengths) -> Self {
        let OutputLengths { stdout, stderr, dropped } = lengths;
        Self { stdout, stderr, dropped }
    }
}

impl From<&core::Outcome> for Outcome {
    fn from(outcome: &core::Outcome) -> Self {
        let core::Outcome { state, reason, exit, message, usage, output } = outcome;
        Self {
            state: (*state).into(),
            reason: (*reason).into(),
            exit_code: exit.code,
            exit_from: exit.from.into(),
            message: message.to_string(),
            usage: usage.into(),
            output: output.into(),
        }
    }
}

impl Outcome {
    fn into_core(self) -> Result<core::Outcome> {
        Ok(core::Outcome {
            state: self.state.into(),
            reason: self.reason.into(),
            exit: t::Exit { code: self.exit_code, from: self.exit_from.into() },
            message: t::Text::new(self.message)?,
            usage: self.usage.into(),
            output: self.output.into(),
        })
    }
}

impl From<&core::Settlement> for Settlement {
    fn from(settlement: &core::Settlement) -> Self {
        let core::Settlement { gross, fee, net, refund, owner } = settlement;
        Self {
            gross: gross.0,
            fee: fee.0,
            net: net.0,
            refund: refund.0,
            owner: owner.as_ref().map(ToString::to_string),
        }
    }
}

impl Settlement {
    fn into_core(self) -> Result<core::Settlement> {
        Ok(core::Settlement {
            gross: t::Micro(self.gross),
            fee: t::Micro(self.fee),
            net: t::Micro(self.net),
            refund: t::Micro(self.refund),
            owner: self.owner.map(|owner| owner.parse()).transpose()?,
        })
    }
}

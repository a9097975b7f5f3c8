//! Every invariant. [`event`] checks what one event touches before it is written, in production too; [`whole`] checks the
//! whole state.

use std::collections::{BTreeMap, BTreeSet};

use modchain_types::{AttemptId, Identity, JobId, Micro, NodeId, Role, TokenId};

use crate::control::Control;
use crate::event::{Event, EventBody, JOBS_FORGOTTEN_MAX, Outcome, Settlement};
use crate::job::{Job, Phase, Placement, Progress};
use crate::ledger::{self, Account};
use crate::membership::{Certificate, TokenEnd, TokenState};
use crate::meter;
use crate::node::Taken;

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invariant broken: {what}")]
pub struct Breach {
    /// Which, with the numbers.
    pub what: String,
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), Breach> {
    if holds { Ok(()) } else { Err(Breach { what: what() }) }
}

fn open(control: &Control, id: JobId) -> Result<&Job, Breach> {
    control.job(id).ok_or_else(|| Breach { what: format!("{id} is not open") })
}

fn placed(control: &Control, attempt: AttemptId) -> Result<&Placement, Breach> {
    open(control, attempt.job)?
        .placement()
        .filter(|placement| placement.attempt == attempt)
        .ok_or_else(|| Breach { what: format!("{attempt} is not the current attempt of its job") })
}

/// The node must be known, and not revoked: nothing that it says counts any more.
fn trusted(control: &Control, node: NodeId) -> Result<(), Breach> {
    let node = control.node(node).ok_or_else(|| Breach { what: format!("{node} is not known") })?;
    ensure(!node.revoked, || format!("node {} was revoked", node.name))
}

/// Whether the event may follow the state. Numbers are not looked at: the journal checks those, over all records.
pub fn event(control: &Control, event: &Event) -> Result<(), Breach> {
    ensure(event.number > control.last_number() && event.at >= control.last_at(), || {
        format!(
            "event {} at {} does not follow {} at {}",
            event.number,
            event.at.0,
            control.last_number(),
            control.last_at().0
        )
    })?;
    match &event.body {
        EventBody::EngineStarted { .. } => Ok(()),
        EventBody::RestoreAccepted { fence_base, .. } => {
            let last = control.last_fence().0;
            ensure(*fence_base > last, || format!("fences from {fence_base} on would not be above {last}"))
        }
        EventBody::IdentityAdded { identity } => {
            let fresh = control.identity(identity.id).is_none() && control.identity_named(&identity.name).is_none();
            ensure(fresh && identity.role != Role::Orchestrator, || format!("identity {} is not new", identity.name))
        }
        EventBody::Deposited { provider, key, account, amount, why: _ } => {
            control.ledger().check(&ledger::deposit(provider, key, account, *amount))
        }
        EventBody::JobQueued { job, account, spec, .. } => {
            let fresh = control.job(*job).is_none() && control.ended(*job).is_none();
            ensure(fresh, || format!("{job} exists already"))?;
            control.ledger().check(&ledger::hold(*job, account, spec.max_cost))
        }
        EventBody::AttemptAssigned { attempt, node, .. } => {
            let job = open(control, attempt.job)?;
            ensure(job.phase == Phase::Queued, || format!("{} is placed already", job.id))?;
            ensure(job.stop.is_none(), || format!("{} is being stopped", job.id))?;
            ensure(attempt.number == job.attempts_made + 1, || format!("{attempt} skips a number"))?;
            trusted(control, *node)
        }
        EventBody::AttemptStarting { attempt } => {
            let placement = placed(control, *attempt)?;
            trusted(control, placement.node)?;
            ensure(placement.progress == Progress::Assigned, || format!("{attempt} would go back to starting"))
        }
        EventBody::AttemptStarted { attempt } => {
            let placement = placed(control, *attempt)?;
            trusted(control, placement.node)?;
            match placement.progress {
                // Assigned, if its own starting event is in the same decision.
                Progress::Assigned | Progress::Starting => Ok(()),
                Progress::Running { .. } | Progress::Done(_) => {
                    ensure(false, || format!("{attempt} would start twice"))
                }
            }
        }
        EventBody::ImagePinned { attempt, .. } => {
            let placement = placed(control, *attempt)?;
            trusted(control, placement.node)?;
            let free = open(control, attempt.job)?.image.is_none();
            ensure(free, || format!("{} would have two images", attempt.job))
        }
        EventBody::CancelRequested { job, grace, .. } => {
            let job = open(control, *job)?;
            let is_urgent = job.stop.as_ref().is_none_or(|wish| *grace < wish.grace);
            ensure(is_urgent, || format!("{} is being stopped already, within {grace} at least", job.id))
        }
        EventBody::InputFailed { job, .. } => {
            let job = open(control, *job)?;
            ensure(job.stop.is_none(), || format!("{} is being stopped already", job.id))
        }
        EventBody::ResultRecorded { attempt, .. } => {
            let placement = placed(control, *attempt)?;
            trusted(control, placement.node)?;
            let done = matches!(placement.progress, Progress::Done(_));
            ensure(!done, || format!("{attempt} would have two results"))
        }
        EventBody::AttemptEnded { attempt, .. } => {
            placed(control, *attempt)?;
            let job = open(control, attempt.job)?;
            ensure(job.stop.is_none(), || format!("{} is being stopped and would be queued again", job.id))
        }
        EventBody::JobFinished { job, attempt, outcome, settlement } => {
            finished(control, open(control, *job)?, *attempt, outcome, settlement)
        }
        EventBody::JobsForgotten { jobs } => forgotten(control, event, jobs),
        EventBody::NodeConnected { node, .. } | EventBody::NodeLost { node } | EventBody::NodeSet { node, .. } => {
            trusted(control, *node)
        }
        EventBody::TokenCreated { token, .. } => {
            ensure(control.tokens().get(*token).is_none(), || format!("token {token} exists already"))
        }
        EventBody::MemberJoined { token, identity, certificate, .. } => {
            joined(control, *token, identity)?;
            new_certificate(control, certificate)
        }
        EventBody::TokenEnded { token, .. } => {
            let live = control.tokens().get(*token).is_some_and(|token| !matches!(token.state, TokenState::Ended(_)));
            ensure(live, || format!("token {token} would end twice"))
        }
        EventBody::TokenAlarm { token, .. } => {
            let bound = control.tokens().get(*token).is_some_and(|token| token.binding.is_some());
            ensure(bound, || format!("token {token} was not used"))
        }
        // Its identity may be new in the same decision.
        EventBody::CertificateIssued { identity, certificate, beside } => {
            let member = control.member(*identity);
            let revoked = member.is_some_and(|member| member.revoked.is_some());
            ensure(!revoked, || format!("identity {identity} is revoked"))?;
            if let Some(serial) = beside {
                ensure(member.is_some_and(|member| member.accepts(serial)), || {
                    format!("certificate {serial} of {identity}, which stays, is not accepted")
                })?;
            }
            new_certificate(control, certificate)
        }
        EventBody::CertificateUsed { identity, serial } => {
            let accepted = control.member(*identity).is_some_and(|member| member.accepts(serial));
            ensure(accepted, || format!("certificate {serial} of {identity} is not accepted"))
        }
        EventBody::CertificateRetired { identity, serial } => {
            let replaced = control.member(*identity).is_some_and(|member| member.newer_in_use_since(serial).is_some());
            ensure(replaced, || format!("certificate {serial} of {identity} would go without another one in use"))
        }
        EventBody::IdentityRevoked { identity, .. } => {
            let live = control.member(*identity).is_some_and(|member| member.revoked.is_none());
            ensure(live, || format!("identity {identity} is not known, or revoked already"))
        }
    }
}

/// A token is used once, and never to become somebody else's or a revoked identity.
fn joined(control: &Control, token: TokenId, identity: &Identity) -> Result<(), Breach> {
    let token = control.tokens().get(token).ok_or_else(|| Breach { what: format!("token {token} is not known") })?;
    ensure(token.state == TokenState::Issued, || format!("token {} would be used twice", token.id))?;
    ensure(token.grant.role == identity.role, || format!("token {} is for a {}", token.id, token.grant.role))?;
    let name = &identity.name;
    match token.grant.rejoins {
        Some(id) => {
            let member = control.member(id).filter(|member| member.revoked.is_none());
            ensure(member.is_some_and(|member| member.identity == *identity), || format!("{name} cannot rejoin"))
        }
        None => {
            let fresh = control.identity(identity.id).is_none() && control.identity_named(name).is_none();
            ensure(fresh && identity.role != Role::Orchestrator, || format!("identity {name} is not new"))
        }
    }
}

fn new_certificate(control: &Control, certificate: &Certificate) -> Result<(), Breach> {
    let known = control.members().any(|member| member.accepts(&certificate.serial));
    ensure(!known, || format!("certificate {} exists already", certificate.serial))
}

fn finished(
    control: &Control,
    job: &Job,
    attempt: Option<u32>,
    outcome: &Outcome,
    settlement: &Settlement,
) -> Result<(), Breach> {
    let Settlement { gross, fee, net, refund, owner } = settlement;
    let (hold, id) = (job.hold(), job.id);
    ensure(outcome.state.is_ended(), || format!("{id} would end as {}", outcome.state))?;
    ensure(attempt == job.placement().map(|placement| placement.attempt.number), || {
        format!("{id} would end with attempt {attempt:?}, which is not its current one")
    })?;
    ensure(gross.checked_add(*refund) == Some(hold), || format!("{id}: {gross} + {refund} is not the hold of {hold}"))?;
    ensure(net.checked_add(*fee) == Some(*gross), || format!("{id}: {net} + {fee} is not the cost of {gross}"))?;
    ensure(*fee == meter::fee(*gross, job.fee_basis_points), || format!("{id}: {fee} is not the fee on {gross}"))?;
    ensure(*gross == Micro::ZERO || (attempt.is_some() && owner.is_some()), || {
        format!("{id}: {gross} would be paid to nobody")
    })?;
    if let Some(placement) = job.placement().filter(|_| *gross > Micro::ZERO) {
        trusted(control, placement.node)?;
    }
    control.ledger().check(&ledger::close(id, &job.account, settlement))
}

/// Only ended jobs are forgotten, none in the moment in which it ended, and nothing is held for any.
fn forgotten(control: &Control, event: &Event, jobs: &[JobId]) -> Result<(), Breach> {
    let few = (1..=JOBS_FORGOTTEN_MAX).contains(&jobs.len());
    ensure(few, || format!("{} jobs would be forgotten by one event", jobs.len()))?;
    let mut seen = BTreeSet::new();
    for job in jobs {
        let ended = control.ended(*job).is_some_and(|ended| ended.at < event.at);
        ensure(ended, || format!("{job} has not ended, or just now, and would be forgotten"))?;
        ensure(seen.insert(job), || format!("{job} would be forgotten twice"))?;
        let held = control.ledger().held(*job);
        ensure(held == Micro::ZERO, || format!("{job} would be forgotten and holds {held}"))?;
    }
    Ok(())
}

/// Every invariant over the whole state; tells the first that is broken.
pub fn whole(control: &Control) -> Result<(), Breach> {
    let ledger = control.ledger();
    ledger.audit()?;
    let mut held_in_jobs = 0u64;
    let mut taken: BTreeMap<_, Taken> = BTreeMap::new();
    for job in control.jobs() {
        held_in_jobs += 1;
        ensure(ledger.held(job.id) == job.hold(), || {
            format!("{} holds {} instead of {}", job.id, ledger.held(job.id), job.hold())
        })?;
        ensure(control.ended(job.id).is_none(), || format!("{} is open and ended", job.id))?;
        if let Some(placement) = job.placement() {
            taken.entry(placement.node).or_default().add(&placement.reservation);
            let on_node = control.node(placement.node).is_some_and(|node| node.placed.contains(&job.id));
            ensure(on_node, || format!("{} is placed on a node that does not know it", job.id))?;
        }
    }
    let holds = ledger.balances().filter(|(account, _)| matches!(account, Account::Held(_))).count() as u64;
    ensure(holds <= held_in_jobs, || format!("{holds} holds for {held_in_jobs} open jobs"))?;
    for node in control.nodes() {
        let expected = taken.remove(&node.id).unwrap_or_default();
        ensure(node.taken == expected, || {
            format!("{} counts {:?} taken instead of {expected:?}", node.name, node.taken)
        })?;
    }
    members(control)?;
    control.queue_agrees()
}

/// Who belongs: names and certificates are one member's alone, and nobody who was revoked is in.
fn members(control: &Control) -> Result<(), Breach> {
    let (mut names, mut serials) = (BTreeSet::new(), BTreeSet::new());
    for member in control.members() {
        let (name, certificates) = (&member.identity.name, member.certificates.len());
        ensure(names.insert(name), || format!("two are called {name}"))?;
        ensure(certificates <= 2, || format!("{certificates} certificates of {name} are accepted"))?;
        let out = member.revoked.is_none() || certificates == 0;
        ensure(out, || format!("{name} is revoked and a certificate of it is accepted"))?;
        for known in &member.certificates {
            let serial = known.certificate.serial;
            ensure(serials.insert(serial), || {
                format!("certificate {serial} is accepted of {name} and of another one")
            })?;
        }
    }
    for node in control.nodes() {
        let revoked = control.member(node.id.into()).is_some_and(|member| member.revoked.is_some());
        ensure(node.revoked == revoked, || format!("{} is revoked as a node or as a member only", node.name))?;
        ensure(!revoked || node.session().is_none(), || format!("{} is revoked and connected", node.name))?;
    }
    for token in control.tokens().iter() {
        let used = matches!(token.state, TokenState::Bound | TokenState::Ended(TokenEnd::Spent));
        let bound = token.binding.as_ref().is_some_and(|binding| control.member(binding.identity).is_some());
        ensure(used == bound, || format!("token {} is {:?} and bound to {:?}", token.id, token.state, token.binding))?;
    }
    Ok(())
}

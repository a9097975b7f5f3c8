//! Events into state. May not refuse: what could be refused was refused before the event was written.

use modchain_types::{
    AttemptId, CertificateSerial, Fence, Identity, IdentityId, JobId, NodeId, NodeState, NodeWish, Role, Span, Text,
    Timestamp, TokenId,
};

use super::{Control, EndedJob};
use crate::deadline::{self, Deadline, Deadlines};
use crate::event::{Event, EventBody};
use crate::job::{Done, Job, Phase, Placement, Progress, StopWish, WishCause};
use crate::ledger;
use crate::membership::{Alarm, BOUND_FOR, Binding, Certificate, Member, RETIRE_AFTER, Revocation, Token, TokenState};
use crate::node::{Node, Standing};
use crate::scheduler::needs::Needs;

impl Control {
    /// Takes an event into the state; may not refuse. Replay and live work are the same calls.
    pub fn evolve(&mut self, event: &Event) {
        self.number = event.number;
        self.at = event.at;
        match &event.body {
            EventBody::EngineStarted { .. } => self.engine_started(event.at),
            EventBody::IdentityAdded { identity } => self.identity_added(identity.clone(), event.at),
            EventBody::Deposited { provider, key, account, amount, why: _ } => {
                self.accounts.insert(account.clone());
                self.ledger.post(ledger::deposit(provider, key, account, *amount));
            }
            EventBody::JobQueued { job: id, account, key, spec, spec_digest, fee_basis_points } => {
                let needs = self.queue.shared(Needs::of(spec, None));
                let job = Job {
                    id: *id,
                    account: account.clone(),
                    key: key.clone(),
                    spec: spec.clone(),
                    spec_digest: *spec_digest,
                    fee_basis_points: *fee_basis_points,
                    queued_at: event.at,
                    queued_number: event.number,
                    attempts_made: 0,
                    attempts_counted: 0,
                    avoided: Default::default(),
                    image: None,
                    needs,
                    stop: None,
                    phase: Phase::Queued,
                };
                self.job_queued(job);
            }
            EventBody::AttemptAssigned { attempt, node, tariff, reservation, run_limit, run_limit_reason } => {
                self.last_fence = Fence(self.fence_base + event.number);
                self.assigned(Placement {
                    attempt: *attempt,
                    fence: self.last_fence,
                    node: *node,
                    tariff: tariff.clone(),
                    reservation: reservation.clone(),
                    run_limit: *run_limit,
                    run_limit_reason: *run_limit_reason,
                    assigned_at: event.at,
                    progress: Progress::Assigned,
                });
            }
            EventBody::AttemptStarting { attempt } => {
                let job = self.jobs.get_mut(&attempt.job).expect("checked: the job is open");
                job.attempts_counted += 1;
                let fence = set_progress(job, Progress::Starting);
                self.deadlines.arm(event.at + deadline::PREPARE_WITHIN, Deadline::Prepare(*attempt, fence));
            }
            EventBody::AttemptStarted { attempt } => {
                let job = self.jobs.get_mut(&attempt.job).expect("checked: the job is open");
                let fence = set_progress(job, Progress::Running { started_at: event.at });
                let limit = job.placement().expect("checked: the job is placed").run_limit;
                self.deadlines.arm(overdue_at(event.at, limit), Deadline::Overdue(*attempt, fence));
            }
            EventBody::ImagePinned { attempt, image } => {
                let job = self.jobs.get_mut(&attempt.job).expect("checked: the job is open");
                job.needs = self.queue.shared(Needs::of(&job.spec, Some(image)));
                job.image = Some(image.clone());
            }
            EventBody::CancelRequested { job: id, grace, why: _ } => {
                self.stop_wished(*id, StopWish { grace: *grace, cause: WishCause::Client }, event.at);
            }
            EventBody::ResultRecorded { attempt, ending, usage, output } => {
                let job = self.jobs.get_mut(&attempt.job).expect("checked: the job is open");
                let done = Done { ending: ending.clone(), usage: *usage, output: *output, at: event.at };
                if let Some(placement) = job.placement() {
                    disarm_overdue(&mut self.deadlines, placement);
                }
                let fence = set_progress(job, Progress::Done(Box::new(done)));
                self.deadlines.arm(event.at + deadline::OUTPUT_WITHIN, Deadline::Output(*attempt, fence));
            }
            EventBody::AttemptEnded { attempt, .. } => self.attempt_ended(*attempt),
            EventBody::JobFinished { job: id, outcome, settlement, .. } => {
                let job = self.jobs.remove(id).expect("checked: the job is open");
                self.unplace(&job);
                if let Some(span) = job.spec.limits.start_by {
                    self.deadlines.disarm(job.queued_at + span, Deadline::StartBy(*id));
                }
                if self.queue.remove(&job) {
                    self.shortlists.class_gone(&job.needs);
                    self.hopeless.remove(&job.needs);
                }
                self.ledger.post(ledger::close(*id, &job.account, settlement));
                let open = self.open_jobs.get_mut(&job.account).expect("counted when it was queued");
                *open -= 1;
                if *open == 0 {
                    self.open_jobs.remove(&job.account);
                }
                let (spec_digest, state, hold) = (job.spec_digest, outcome.state, job.hold());
                let (account, finished, at) = (job.account, event.number, event.at);
                self.ended.insert(*id, EndedJob { account, spec_digest, state, hold, finished, at });
                self.look_again = true;
            }
            EventBody::JobsForgotten { jobs } => {
                self.ended.forget(jobs);
                self.ledger.forget(jobs);
            }
            EventBody::NodeConnected { node, offer } => self.node_connected(*node, offer.clone()),
            EventBody::RestoreAccepted { journal, fence_base } => {
                (self.accepted, self.fence_base) = (Some(*journal), *fence_base);
            }
            EventBody::InputFailed { job: id, message } => {
                let cause = WishCause::InputFailed(message.clone());
                self.stop_wished(*id, StopWish { grace: Span::ZERO, cause }, event.at);
            }
            EventBody::NodeSet { node, wish, by: _, why: _ } => self.node_set_to(*node, *wish, event.at),
            EventBody::NodeLost { node } => {
                self.nodes.get_mut(node).expect("checked: the node is known").lost = true;
            }
            EventBody::TokenCreated { token, verifier, grant, by, ttl } => {
                let expires_at = event.at + *ttl;
                self.deadlines.arm(expires_at, Deadline::TokenExpires(*token));
                self.tokens.insert(Token {
                    id: *token,
                    verifier: *verifier,
                    grant: grant.clone(),
                    by: *by,
                    issued_at: event.at,
                    expires_at,
                    state: TokenState::Issued,
                    ended_at: None,
                    binding: None,
                    alarms: Vec::new(),
                    wrong_proofs: 0,
                });
            }
            EventBody::MemberJoined { token, identity, certificate, from } => {
                self.member_joined(*token, identity, *certificate, from.clone(), event.at);
            }
            EventBody::TokenEnded { token, end } => self.tokens.end(*token, *end, event.at),
            EventBody::TokenAlarm { token, from } => {
                if let Some(token) = self.tokens.get_mut(*token) {
                    token.alarms.push(Alarm { at: event.at, from: from.clone() });
                }
            }
            EventBody::CertificateIssued { identity, certificate, beside } => {
                self.known_member(*identity).certify(*certificate, *beside, event.at);
            }
            EventBody::CertificateUsed { identity, serial } => {
                self.certificate_first_used(*identity, *serial, event.at)
            }
            EventBody::CertificateRetired { identity, serial } => {
                self.known_member(*identity).certificates.retain(|known| known.certificate.serial != *serial);
            }
            EventBody::IdentityRevoked { identity, by, why } => {
                self.identity_is_revoked(*identity, Revocation { at: event.at, by: *by, why: why.clone() });
            }
        }
    }

    /// Nobody is connected, and everybody has a minute to come back.
    fn engine_started(&mut self, at: Timestamp) {
        self.started_at = at;
        self.stored.clear();
        self.output_came.clear();
        self.late.clear();
        self.look_again = true;
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in nodes {
            let node = self.nodes.get_mut(&id).expect("just listed");
            node.presence.session = None;
            node.presence.probed = None;
            node.presence.watched = false;
            node.presence.cool_until = Timestamp::ZERO;
            node.presence.heard = at;
            let (lost, idle) = (node.lost, node.placed.is_empty());
            if !lost {
                node.presence.told = node.heard_state(None);
            }
            // Jobs can be willing to wait for longer than it takes until their node is lost.
            if !lost || !idle {
                self.watch(id);
            }
        }
    }

    fn known_member(&mut self, id: IdentityId) -> &mut Member {
        self.members.get_mut(&id).expect("checked: the identity is known")
    }

    fn member_joined(
        &mut self,
        token: TokenId,
        identity: &Identity,
        certificate: Certificate,
        from: Text<192>,
        at: Timestamp,
    ) {
        if !self.members.contains_key(&identity.id) {
            self.identity_added(identity.clone(), at);
        }
        // Whoever joins again has lost what it had: nothing older is accepted any more, and no connection made with it.
        self.known_member(identity.id).certify(certificate, None, at);
        if let Some(node) = self.nodes.get_mut(&NodeId::from(identity.id)) {
            node.presence.session = None;
            node.presence.probed = None;
        }
        self.deadlines.arm(at + BOUND_FOR, Deadline::TokenBound(token));
        let token = self.tokens.get_mut(token).expect("checked: the token is known");
        token.state = TokenState::Bound;
        token.binding = Some(Binding { identity: identity.id, certificate, at, from });
    }

    /// From now on time runs for the certificates before it.
    fn certificate_first_used(&mut self, id: IdentityId, serial: CertificateSerial, at: Timestamp) {
        let member = self.known_member(id);
        let newest = member.certificates.last().is_some_and(|newest| newest.certificate.serial == serial);
        let mut older = Vec::new();
        for known in &mut member.certificates {
            if known.certificate.serial == serial {
                known.used_at = Some(at);
            } else if newest {
                older.push(known.certificate.serial);
            }
        }
        for serial in older {
            self.deadlines.arm(at + RETIRE_AFTER, Deadline::CertificateRetires(id, serial));
        }
    }

    fn identity_is_revoked(&mut self, id: IdentityId, revocation: Revocation) {
        let at = revocation.at;
        let member = self.known_member(id);
        member.revoked = Some(revocation);
        member.certificates.clear();
        if let Some(node) = self.nodes.get_mut(&NodeId::from(id)) {
            self.queue.offered(node.offer.as_deref(), None);
            node.revoked = true;
            node.lost = true;
            node.presence.session = None;
            node.presence.told = NodeState::Lost;
        }
        self.deadlines.arm(at, Deadline::RevokedWork(id));
        self.look_again = true;
    }

    fn identity_added(&mut self, identity: Identity, at: Timestamp) {
        self.accounts.insert(identity.account.clone());
        if identity.role == Role::Node {
            let id = NodeId::from(identity.id);
            self.nodes.insert(id, Node::new(id, identity.name.clone(), identity.account.clone(), at));
        }
        self.members.insert(identity.id, Member::new(identity, at));
    }

    fn job_queued(&mut self, job: Job) {
        self.ledger.post(ledger::hold(job.id, &job.account, job.hold()));
        *self.open_jobs.entry(job.account.clone()).or_insert(0) += 1;
        if let Some(span) = job.spec.limits.start_by {
            self.deadlines.arm(job.queued_at + span, Deadline::StartBy(job.id));
        }
        self.queue.insert(&job);
        self.jobs.insert(job.id, job);
        self.look_again = true;
    }

    fn assigned(&mut self, placement: Placement) {
        let attempt = placement.attempt;
        let job = self.jobs.get_mut(&attempt.job).expect("checked: the job is open");
        if self.queue.remove(job) {
            self.shortlists.class_gone(&job.needs);
            self.hopeless.remove(&job.needs);
        }
        self.queue.placed(&job.account, &placement.reservation, placement.fence.0);
        let node = self.nodes.get_mut(&placement.node).expect("checked: the node is known");
        node.placed.insert(job.id);
        node.taken.add(&placement.reservation);
        let due = placement.assigned_at + deadline::ACCEPT_WITHIN;
        self.deadlines.arm(due, Deadline::Accept(attempt, placement.fence));
        job.attempts_made = attempt.number;
        job.phase = Phase::Placed(Box::new(placement));
    }

    fn attempt_ended(&mut self, attempt: AttemptId) {
        let job = self.jobs.get(&attempt.job).expect("checked: the job is open").clone();
        self.unplace(&job);
        let job = self.jobs.get_mut(&attempt.job).expect("just found");
        if let Phase::Placed(placement) = std::mem::replace(&mut job.phase, Phase::Queued) {
            job.avoided.insert(placement.node);
        }
        if let Some(span) = job.spec.limits.start_by {
            // Missed while it was placed: the wait ends at once if it is over.
            self.deadlines.arm(job.queued_at + span, Deadline::StartBy(job.id));
        }
        let job = &self.jobs[&attempt.job];
        self.queue.insert(job);
        self.look_again = true;
    }

    /// The attempt is told to stop, and has its time to confirm that.
    fn stop_wished(&mut self, id: JobId, wish: StopWish, at: Timestamp) {
        let job = self.jobs.get_mut(&id).expect("checked: the job is open");
        if let Some(placement) = job.placement() {
            let due = at + wish.grace + deadline::STOP_MARGIN;
            self.deadlines.arm(due, Deadline::StopConfirm(placement.attempt, placement.fence));
        }
        job.stop = Some(wish);
    }

    /// Gives back what the job holds on its node.
    fn unplace(&mut self, job: &Job) {
        let Some(placement) = job.placement() else { return };
        self.stored.remove(&placement.attempt);
        self.output_came.remove(&placement.attempt);
        disarm_overdue(&mut self.deadlines, placement);
        let node = self.nodes.get_mut(&placement.node).expect("checked: the node is known");
        node.placed.remove(&job.id);
        node.taken.remove(&placement.reservation);
        self.queue.unplaced(&job.account, &placement.reservation);
        self.shortlists.changed(placement.node);
    }

    fn node_set_to(&mut self, id: NodeId, wish: NodeWish, at: Timestamp) {
        let node = self.nodes.get_mut(&id).expect("checked: the node is known");
        node.standing = Standing::of(wish, at);
        if let Standing::Draining(Some(until)) = node.standing {
            self.deadlines.arm(until, Deadline::Drained(id));
        }
        self.may_be_better(id);
    }

    fn node_connected(&mut self, id: NodeId, offer: Option<Box<modchain_types::Offer>>) {
        let node = self.nodes.get_mut(&id).expect("checked: the node is known");
        node.lost = false;
        if let Some(offer) = offer {
            self.queue.offered(node.offer.as_deref(), Some(&offer));
            node.offer = Some(offer);
        }
        self.may_be_better(id);
    }

    /// Jobs may fit on the node that did not, or it may be better for them than it was.
    pub(super) fn may_be_better(&mut self, node: NodeId) {
        self.shortlists.changed(node);
        self.hopeless.clear();
        self.look_again = true;
    }
}

/// An attempt that runs no longer: its run limit can be a month away.
fn disarm_overdue(deadlines: &mut Deadlines, placement: &Placement) {
    if let Progress::Running { started_at } = placement.progress {
        let due = overdue_at(started_at, placement.run_limit);
        deadlines.disarm(due, Deadline::Overdue(placement.attempt, placement.fence));
    }
}

/// When an attempt should long have ended.
fn overdue_at(started_at: Timestamp, run_limit: Span) -> Timestamp {
    started_at + run_limit + deadline::OVERDUE_MARGIN
}

/// Moves a placed job's attempt on; returns its fence.
fn set_progress(job: &mut Job, progress: Progress) -> Fence {
    match &mut job.phase {
        Phase::Placed(placement) => {
            placement.progress = progress;
            placement.fence
        }
        Phase::Queued => unreachable!("checked: the job is placed"),
    }
}

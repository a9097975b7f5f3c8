//! Events into state. May not refuse: what could be refused was refused before the event was written.

use modchain_types::{AttemptId, Fence, IdentityId, JobId, NodeId, NodeState, Role, Span, Timestamp};

use super::{Control, EndedJob};
use crate::deadline::{self, Deadline};
use crate::event::{Event, EventBody};
use crate::job::{Done, Job, Phase, Placement, Progress, StopWish, WishCause};
use crate::ledger;
use crate::node::Node;

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
                    stop: None,
                    phase: Phase::Queued,
                };
                self.job_queued(job);
            }
            EventBody::AttemptAssigned { attempt, node, tariff, reservation, run_limit, run_limit_reason } => {
                self.last_fence = Fence(event.number);
                self.assigned(Placement {
                    attempt: *attempt,
                    fence: Fence(event.number),
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
                let due = event.at + limit + deadline::OVERDUE_MARGIN;
                self.deadlines.arm(due, Deadline::Overdue(*attempt, fence));
            }
            EventBody::CancelRequested { job: id, grace, why: _ } => {
                self.stop_wished(*id, StopWish { grace: *grace, cause: WishCause::Client }, event.at);
            }
            EventBody::ResultRecorded { attempt, ending, usage, output } => {
                let job = self.jobs.get_mut(&attempt.job).expect("checked: the job is open");
                let done = Done { ending: ending.clone(), usage: *usage, output: *output, at: event.at };
                let fence = set_progress(job, Progress::Done(Box::new(done)));
                self.deadlines.arm(event.at + deadline::OUTPUT_WITHIN, Deadline::Output(*attempt, fence));
            }
            EventBody::AttemptEnded { attempt, .. } => self.attempt_ended(*attempt),
            EventBody::JobFinished { job: id, outcome, settlement, .. } => {
                let job = self.jobs.remove(id).expect("checked: the job is open");
                self.unplace(&job);
                self.queue.remove(&job);
                self.ledger.post(ledger::close(*id, &job.account, settlement));
                let open = self.open_jobs.get_mut(&job.account).expect("counted when it was queued");
                *open -= 1;
                if *open == 0 {
                    self.open_jobs.remove(&job.account);
                }
                let (spec_digest, state, hold) = (job.spec_digest, outcome.state, job.hold());
                self.ended.insert(*id, EndedJob { account: job.account, spec_digest, state, hold });
                self.look_again = true;
            }
            EventBody::NodeConnected { node, offer } => self.node_connected(*node, offer.clone()),
            EventBody::InputFailed { job: id, message } => {
                let cause = WishCause::InputFailed(message.clone());
                self.stop_wished(*id, StopWish { grace: Span::ZERO, cause }, event.at);
            }
            EventBody::NodeLost { node } => {
                self.nodes.get_mut(node).expect("checked: the node is known").lost = true;
            }
        }
    }

    /// Nobody is connected, and everybody has a minute to come back.
    fn engine_started(&mut self, at: Timestamp) {
        self.started_at = at;
        self.stored.clear();
        self.look_again = true;
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in nodes {
            let node = self.nodes.get_mut(&id).expect("just listed");
            node.presence.session = None;
            node.presence.probed = None;
            node.presence.watched = false;
            node.presence.cool_until = Timestamp::ZERO;
            node.presence.heard = at;
            if !node.lost {
                node.presence.told = NodeState::Ready;
                self.watch(id);
            }
        }
    }

    fn identity_added(&mut self, identity: modchain_types::Identity, at: Timestamp) {
        self.accounts.insert(identity.account.clone());
        if identity.role == Role::Node {
            let id = NodeId::from(identity.id);
            self.nodes.insert(id, Node::new(id, identity.name.clone(), identity.account.clone(), at));
        }
        let id: IdentityId = identity.id;
        self.identities.insert(id, identity);
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
        self.queue.remove(job);
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
        let node = self.nodes.get_mut(&placement.node).expect("checked: the node is known");
        node.placed.remove(&job.id);
        node.taken.remove(&placement.reservation);
    }

    fn node_connected(&mut self, id: NodeId, offer: Option<Box<modchain_types::Offer>>) {
        let node = self.nodes.get_mut(&id).expect("checked: the node is known");
        node.lost = false;
        if let Some(offer) = offer {
            node.offer = Some(offer);
        }
        self.look_again = true;
    }
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

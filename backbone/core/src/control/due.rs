//! What time brings about: deadlines, and placing what waits.

use modchain_types::{
    AttemptId, Fence, JobId, JobState, NodeId, NodeState, OnDisconnect, Reason, Span, StopCause, Text, Timestamp,
};

use super::{Control, Decision, Draft};
use crate::deadline::{self, Deadline};
use crate::effect::NodeMessage;
use crate::event::EventBody;
use crate::job::{Job, Phase, Placement, Progress};
use crate::node::{self, Node};
#[cfg(feature = "planted")]
use crate::planted::{self, Bug};
use crate::scheduler::explain::Kept;
use crate::scheduler::feasible::Fit;
use crate::scheduler::outlook;
use crate::scheduler::shortlist::Except;

/// How long a job gives way to smaller ones that fit where it does not. After that a node is kept free for it: one node at
/// a time, for the first in the order, so that room adds up for it and the rest of the pool works on.
pub(super) const KEEP_AFTER: Span = Span::from_secs(60);
/// Jobs that a node to keep is looked for in one pass, at all nodes each. Those behind them have their turn in the next pass.
const KEPT_FOR_PER_PASS_MAX: usize = 16;
/// Classes that a pass looks at in vain without a rest after it.
const LOOKS_IN_VAIN_FREE: u64 = 1_024;
/// Rest for each further one: some seven times what a look takes where ten thousand wait, and twice where a hundred thousand do.
/// A client whose jobs all need something else leaves the engine the rest of its time for others, and they wait no longer than that.
const REST_PER_LOOK: Span = Span::from_micros(10);
/// Attempts assigned in one pass. Bounds one journal record; the next pass follows at once.
const ASSIGNMENTS_PER_PASS_MAX: usize = 512;

/// Connections that a node can make after its time is over and have it anew with each. Then it has had it: one that comes
/// and goes for ever must not hold a job for as long.
const COMES_BACK_MAX: u64 = 16;

/// A deadline that has come before its node had had its time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Late {
    /// When it came first.
    since: Timestamp,
    /// How often the node had connected by then.
    connections: u64,
}

impl Control {
    pub(super) fn fire(&mut self, deadline: Deadline, draft: &mut Draft) {
        // An old copy gives nothing up and refunds nobody. Only another start ends that, and arms them all again.
        if self.rollback.is_some() && deadline.ends_work() {
            return;
        }
        let late = self.late.remove(&deadline);
        match deadline {
            Deadline::StartBy(job) => self.start_by(job, draft),
            Deadline::Accept(attempt, fence) => self.accept_overdue(attempt, fence, late, draft),
            Deadline::Prepare(attempt, fence) => self.prepare_overdue(attempt, fence, late, draft),
            Deadline::Overdue(attempt, fence) => self.run_overdue(attempt, fence, late, draft),
            Deadline::StopConfirm(attempt, fence) => self.stop_overdue(attempt, fence, late, draft),
            Deadline::Output(attempt, fence) => self.output_overdue(attempt, fence, draft),
            Deadline::AttemptLost(attempt, fence) => self.attempt_lost(attempt, fence, draft),
            Deadline::NodeSuspect(node) => self.node_suspect(node, draft),
            Deadline::NodeLost(node) => self.node_lost(node, draft),
            Deadline::CoolDown(node) => self.may_be_better(node),
            Deadline::TokenExpires(token) => self.token_expires(token, draft),
            Deadline::TokenBound(token) => self.token_bound(token, draft),
            Deadline::CertificateRetires(identity, serial) => self.certificate_retires(identity, serial, draft),
            Deadline::Drained(node) => self.drained(node, draft),
            Deadline::RevokedWork(identity) => self.revoked_work(identity, draft),
        }
    }

    fn start_by(&self, id: JobId, draft: &mut Draft) {
        let Some(job) = self.jobs.get(&id) else { return };
        let due = job.spec.limits.start_by.is_some_and(|span| job.queued_at + span <= draft.now);
        if due && job.phase == Phase::Queued {
            let message = Text::cut("no node took it before its start-by time");
            self.finish_unpaid(job, None, JobState::Expired, Reason::Expired, message, draft);
        }
    }

    /// The job and placement that a deadline is about, if they are still current.
    fn current(&self, attempt: AttemptId, fence: Fence) -> Option<(Job, Placement)> {
        let job = self.jobs.get(&attempt.job)?;
        let placement = job.placement_of(attempt, fence)?;
        Some((job.clone(), placement.clone()))
    }

    /// Whether the node has been connected for at least `wait`, and somebody has listened here for as long: only then has it
    /// failed to answer. So has one that came back [`COMES_BACK_MAX`] times since the deadline came first. If not, the deadline
    /// is armed again.
    fn has_had(&mut self, node: NodeId, wait: Span, deadline: Deadline, late: Option<Late>, now: Timestamp) -> bool {
        let Some((due, late)) = self.answers_by(node, wait, late, now) else { return false };
        self.has_come(due, deadline, late, now)
    }

    /// Whether the node has failed to answer, as [`Control::has_had`] says, and the job may begin elsewhere. One that was promised
    /// to run in one place only has to wait for longer: until the node's lease would be over, had it fallen silent when its time
    /// was over, and where it is silent, until it is. What still answers after that and has not told of the attempt does not run it.
    fn may_move(
        &mut self,
        job: &Job,
        placement: &Placement,
        wait: Span,
        deadline: Deadline,
        late: Option<Late>,
        now: Timestamp,
    ) -> bool {
        if job.spec.limits.on_disconnect == OnDisconnect::Keep {
            return self.has_had(placement.node, wait, deadline, late, now);
        }
        let lease_over = self.config.lease.saturating_add(deadline::LEASE_MARGIN);
        let answers_by = self.answers_by(placement.node, wait.saturating_add(lease_over), late, now);
        let Some((mut due, late)) = answers_by else { return false };
        due = due.max(late.since + lease_over);
        let node = &self.nodes[&placement.node];
        if (node::SUSPECT_AFTER..lease_over).contains(&node.silence(now)) {
            due = due.max(node.presence.heard + lease_over);
        }
        self.has_come(due, deadline, late, now)
    }

    /// When the node will have had its time, and what is to be remembered until then.
    fn answers_by(&self, node: NodeId, wait: Span, late: Option<Late>, now: Timestamp) -> Option<(Timestamp, Late)> {
        let presence = &self.nodes.get(&node)?.presence;
        let late = late.unwrap_or(Late { since: now, connections: presence.connections });
        let due = if presence.connections - late.connections >= COMES_BACK_MAX {
            now
        } else if presence.session.is_some() {
            presence.connected_at.max(self.listening_since()) + wait
        } else {
            now + wait
        };
        Some((due, late))
    }

    fn has_come(&mut self, due: Timestamp, deadline: Deadline, late: Late, now: Timestamp) -> bool {
        if due > now {
            self.deadlines.arm(due, deadline);
            self.late.insert(deadline, late);
        }
        due <= now
    }

    fn accept_overdue(&mut self, attempt: AttemptId, fence: Fence, late: Option<Late>, draft: &mut Draft) {
        let Some((job, placement)) = self.current(attempt, fence) else { return };
        let deadline = Deadline::Accept(attempt, fence);
        if placement.progress == Progress::Assigned
            && self.may_move(&job, &placement, deadline::ACCEPT_WITHIN, deadline, late, draft.now)
        {
            self.give_up(&job, &placement, Reason::NodeFault, "the node did not answer the assignment", draft);
        }
    }

    fn prepare_overdue(&mut self, attempt: AttemptId, fence: Fence, late: Option<Late>, draft: &mut Draft) {
        let Some((job, placement)) = self.current(attempt, fence) else { return };
        // One that has started unheard says so when it comes back; and over a connection it can be told to end.
        let deadline = Deadline::Prepare(attempt, fence);
        if placement.progress == Progress::Starting
            && self.may_move(&job, &placement, deadline::ACCEPT_WITHIN, deadline, late, draft.now)
        {
            self.give_up(&job, &placement, Reason::NodeFault, "the node took too long to prepare it", draft);
        }
    }

    fn run_overdue(&mut self, attempt: AttemptId, fence: Fence, late: Option<Late>, draft: &mut Draft) {
        let Some((job, placement)) = self.current(attempt, fence) else { return };
        let Progress::Running { started_at } = placement.progress else { return };
        if job.stop.is_some() {
            return; // it has the time that its stop has
        }
        let deadline = Deadline::Overdue(attempt, fence);
        // Over a reboot the timeline may have leapt: what ran before a start has its whole time again, which its node keeps by
        // its own clock.
        let again = self.listening_since() + placement.run_limit + deadline::OVERDUE_MARGIN;
        if started_at < self.listening_since() && again > draft.now {
            self.deadlines.arm(again, deadline);
        } else if self.may_move(&job, &placement, deadline::OVERDUE_MARGIN, deadline, late, draft.now) {
            self.give_up(&job, &placement, Reason::NodeFault, "the node did not end it at its run limit", draft);
        }
    }

    fn stop_overdue(&mut self, attempt: AttemptId, fence: Fence, late: Option<Late>, draft: &mut Draft) {
        let Some((job, placement)) = self.current(attempt, fence) else { return };
        let Some(wish) = &job.stop else { return };
        if matches!(placement.progress, Progress::Done(_)) {
            return; // its own deadline ends the wait for output
        }
        let wait = wish.grace.saturating_add(deadline::STOP_MARGIN);
        if self.has_had(placement.node, wait, Deadline::StopConfirm(attempt, fence), late, draft.now) {
            self.give_up(&job, &placement, Reason::NodeFault, "the node did not confirm the stop", draft);
        }
    }

    fn output_overdue(&mut self, attempt: AttemptId, fence: Fence, draft: &mut Draft) {
        let Some((job, placement)) = self.current(attempt, fence) else { return };
        if self.output_waits {
            // It is not the agent that is late: once there is room it has its whole time again.
            self.deadlines.arm(draft.now + deadline::OUTPUT_WITHIN, Deadline::Output(attempt, fence));
            return;
        }
        let Progress::Done(done) = &placement.progress else { return };
        // Time in which nobody listened here is no time that the node had, and as long as more comes it is not late.
        let comes = self.output_came.get(&attempt).map(|at| *at + deadline::OUTPUT_WITHIN);
        let comes = comes.map(|due| due.min(done.at + deadline::OUTPUT_AT_MOST));
        let due = (self.listening_since() + deadline::OUTPUT_WITHIN).max(comes.unwrap_or_default());
        if due > draft.now {
            self.deadlines.arm(due, Deadline::Output(attempt, fence));
        } else {
            self.conclude(&job, &placement, done, draft);
        }
    }

    /// How long the attempt's node may be silent before the attempt is given up.
    fn patience(&self, job: &Job) -> Span {
        let limits = &job.spec.limits;
        match limits.on_disconnect {
            OnDisconnect::Keep => limits.lost_after,
            // Its lease must be over, by the slower of two clocks, before it may run elsewhere.
            OnDisconnect::Stop => limits.lost_after.max(self.config.lease.saturating_add(deadline::LEASE_MARGIN)),
        }
    }

    /// The moment at which a silence that began when the node was last heard has lasted `patience`; never within the minute
    /// after a start or a standstill of the engine.
    fn given_up_at(&self, heard: Timestamp, patience: Span) -> Timestamp {
        #[cfg(feature = "planted")]
        if planted::is(Bug::NoTimeToComeBack) {
            return heard + patience;
        }
        (heard + patience).max(self.listening_since() + deadline::RECOVERY_WINDOW)
    }

    fn attempt_lost(&mut self, attempt: AttemptId, fence: Fence, draft: &mut Draft) {
        let Some((job, placement)) = self.current(attempt, fence) else { return };
        let Some(node) = self.nodes.get(&placement.node) else { return };
        let due = self.given_up_at(node.presence.heard, self.patience(&job));
        if due <= draft.now {
            let message = Text::cut(format!("node {} was silent for {}", node.name, node.silence(draft.now)));
            let output = modchain_types::OutputLengths::default();
            match &placement.progress {
                // Its result is here: only output is missing, and that has its own deadline.
                Progress::Done(_) => {}
                Progress::Assigned | Progress::Starting | Progress::Running { .. } => {
                    // A connection that lives although nothing came over it must not leave the attempt running.
                    let (grace, cause) = (Span::ZERO, StopCause::Superseded);
                    let stop = NodeMessage::Stop { attempt, fence, grace, cause };
                    #[cfg(feature = "planted")]
                    let stop = if planted::is(Bug::LostNotTold) { NodeMessage::Probe } else { stop };
                    self.tell(placement.node, stop, draft);
                    self.retry_or_fail(&job, &placement, Reason::NodeLost, message, output, draft);
                }
            }
        } else if node.silence(draft.now) >= node::SUSPECT_AFTER {
            self.deadlines.arm(due, Deadline::AttemptLost(attempt, fence));
        }
    }

    fn node_suspect(&mut self, id: NodeId, draft: &mut Draft) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let heard = node.presence.heard;
        if node.silence(draft.now) < node::SUSPECT_AFTER {
            self.deadlines.arm(heard + node::SUSPECT_AFTER, Deadline::NodeSuspect(id));
            return;
        }
        node.presence.watched = false;
        let lost = node.lost;
        let placed: Vec<JobId> = node.placed.iter().copied().collect();
        if !lost {
            self.announce(id, NodeState::Suspect, draft);
            self.deadlines.arm(self.given_up_at(heard, node::LOST_AFTER), Deadline::NodeLost(id));
        }
        // Also where an old deadline has made it lost first, as it can after a pause: its attempts wait for this one.
        for job in placed {
            let job = &self.jobs[&job];
            if let Some(placement) = job.placement() {
                let due = self.given_up_at(heard, self.patience(job));
                self.deadlines.arm(due, Deadline::AttemptLost(placement.attempt, placement.fence));
            }
        }
    }

    fn node_lost(&mut self, id: NodeId, draft: &mut Draft) {
        let Some(node) = self.nodes.get(&id) else { return };
        let due = self.given_up_at(node.presence.heard, node::LOST_AFTER);
        if node.lost || node.silence(draft.now) < node::SUSPECT_AFTER {
            return;
        }
        if due > draft.now {
            self.deadlines.arm(due, Deadline::NodeLost(id));
            return;
        }
        draft.emit(EventBody::NodeLost { node: id });
        self.announce(id, NodeState::Lost, draft);
    }

    /// Places what fits, in the order of turns.
    pub(super) fn place(&mut self, now: Timestamp, whole: &mut Decision) {
        if !self.look_again || self.rollback.is_some() || now < self.no_pass_before {
            return;
        }
        let before = self.kept.take();
        let mut turns = self.queue.turns();
        let (mut assigned, mut kept_for, mut in_vain) = (0, 0, 0_u64);
        while assigned < ASSIGNMENTS_PER_PASS_MAX
            && let Some((turn, needs)) = turns.pop_first()
        {
            let Some((current, id)) = self.queue.head(&needs) else { continue };
            if current != turn {
                // Its account has got something meanwhile: others go first.
                turns.insert(current, needs);
                continue;
            }
            let job = &self.jobs[&id];
            let mut draft = Draft::new(self, now);
            let except = Except { avoided: &job.avoided, kept: self.kept.map(|kept| kept.node) };
            let Some((node, fit)) = self.shortlists.plan(&self.nodes, draft.now, &needs, except) else {
                // Nor does any other of its class fit.
                in_vain += 1;
                let waited = draft.now.since(job.queued_at) >= KEEP_AFTER;
                let looks = self.kept.is_none() && kept_for < KEPT_FOR_PER_PASS_MAX;
                if looks && waited && !self.hopeless.contains(&needs) {
                    kept_for += 1;
                    self.kept = self.keep_for(job, before, draft.now);
                    self.shortlists.looked_at(self.nodes.len());
                    if self.kept.is_none() {
                        self.hopeless.insert(needs);
                    }
                }
                continue;
            };
            self.assign(job, node, fit, &mut draft);
            let before = whole.events.len();
            whole.absorb(self.take(draft.decision));
            if whole.events.len() == before {
                break; // the assignment would have broken an invariant: money is frozen now
            }
            self.announce_assignment(id, now, whole);
            assigned += 1;
            if let Some((next, _)) = self.queue.head(&needs) {
                turns.insert(next, needs);
            }
        }
        // Everything left waits for a change, unless the pass ended at its bound.
        self.look_again = !turns.is_empty() && self.breach.is_none();
        let rest = REST_PER_LOOK.0.saturating_mul(in_vain.saturating_sub(LOOKS_IN_VAIN_FREE));
        self.no_pass_before = now + Span(rest);
    }

    /// The node that is kept free for a job which fits nowhere and has waited for so long that what is smaller must have
    /// passed it by: the one that has room for it soonest, and as long as that can be, the one that was kept for it before.
    /// `None` if no node that is there could ever take it.
    fn keep_for(&self, job: &Job, before: Option<Kept>, now: Timestamp) -> Option<Kept> {
        let room = |node: &Node| outlook::room_at(node, &self.jobs, now, &job.needs);
        let of_before = before.filter(|kept| kept.job == job.id && self.nodes.get(&kept.node).and_then(room).is_some());
        of_before.or_else(|| {
            let best = self
                .nodes
                .values()
                .filter_map(|node| room(node).map(|at| (job.avoided.contains(&node.id), at, &node.name, node.id)));
            best.min().map(|(_, _, _, node)| Kept { job: job.id, node })
        })
    }

    fn assign(&self, job: &Job, node: NodeId, fit: Fit, draft: &mut Draft) {
        let attempt = AttemptId { job: job.id, number: job.attempts_made + 1 };
        let offer = self.nodes[&node].offer.as_ref().expect("a node that fits has an offer");
        draft.emit(EventBody::AttemptAssigned {
            attempt,
            node,
            tariff: Box::new(offer.tariff.clone()),
            reservation: fit.reservation,
            run_limit: fit.run_limit,
            run_limit_reason: fit.run_limit_reason,
        });
    }

    /// The node is told by what the state says once the assignment is in it.
    fn announce_assignment(&self, id: JobId, now: Timestamp, whole: &mut Decision) {
        let job = &self.jobs[&id];
        let placement = job.placement().expect("just assigned");
        let mut draft = Draft::new(self, now);
        self.send_assignment(job, placement, &mut draft);
        whole.effects.extend(draft.decision.effects);
    }
}

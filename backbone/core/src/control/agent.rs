//! What agents say: hello, heartbeats, reports, and how far their output is.

use std::collections::BTreeMap;

use modchain_types::{
    Assignment, AttemptId, Ending, Fence, FenceClaim, InventoryItem, ItemState, JobId, NodeId, NodeState, Offer,
    OutputLengths, Reason, Report, ReportBody, Span, StopCause, Text, Timestamp, Verdict,
};

use super::{Control, Draft};
use crate::command::{AgentArrival, Refused, Reply, SessionId};
use crate::deadline::{self, Deadline};
use crate::effect::{Effect, NodeMessage, SessionEnd};
use crate::event::EventBody;
use crate::job::{Done, Job, Placement, Progress};
#[cfg(feature = "planted")]
use crate::planted::{self, Bug};
use crate::{meter, node, settle};

impl Control {
    pub(super) fn agent_connected(
        &mut self,
        id: NodeId,
        session: SessionId,
        arrival: AgentArrival,
        draft: &mut Draft,
    ) -> Result<Reply, Refused> {
        self.make_room(id, &arrival, draft)?;
        if let Some(fence) = arrival.highest_fence
            && fence > self.last_fence
        {
            self.rollback = Some(self.rollback.map_or(fence, |known| known.max(fence)));
        }
        #[cfg(feature = "planted")]
        if planted::is(Bug::FenceNotAbove) && arrival.highest_fence == Some(self.last_fence) {
            self.rollback = arrival.highest_fence;
        }
        let entry = self.nodes.get_mut(&id).expect("make_room knows the node");
        if let Some((old, _)) = entry.presence.session.replace((session, arrival.instance)) {
            draft.effect(Effect::EndSession { node: id, session: old, why: SessionEnd::Superseded });
        }
        entry.presence.heard = draft.now;
        entry.presence.connected_at = draft.now;
        entry.presence.connections += 1;
        entry.presence.probed = None;
        let offer = (entry.offer.as_deref() != Some(&arrival.offer)).then(|| Box::new(arrival.offer));
        let state = entry.heard_state(offer.as_deref());
        draft.emit(EventBody::NodeConnected { node: id, offer });
        self.watch(id);
        self.may_be_better(id);
        self.announce(id, state, draft);
        self.reconcile(id, session, &arrival.inventory, draft);
        Ok(Reply::Welcome)
    }

    /// Whether the arrival may take the node's place: a live connection of another instance is probed first.
    fn make_room(&mut self, id: NodeId, arrival: &AgentArrival, draft: &mut Draft) -> Result<(), Refused> {
        let now = draft.now;
        let entry = self.nodes.get_mut(&id).ok_or(Refused::UnknownNode)?;
        if entry.revoked {
            return Err(Refused::Revoked);
        }
        let Some((old, instance)) = entry.presence.session else { return Ok(()) };
        if instance == arrival.instance || now.since(entry.presence.heard) >= node::SUSPECT_AFTER {
            return Ok(());
        }
        match entry.presence.probed.filter(|probed| now.since(*probed) < deadline::PROBE_FORGOTTEN) {
            Some(probed) if entry.presence.heard > probed => {
                entry.presence.probed = None;
                Err(Refused::DuplicateInstance)
            }
            Some(probed) if now.since(probed) >= deadline::PROBE_WITHIN => Ok(()),
            Some(_) => Err(Refused::Probing),
            None => {
                entry.presence.probed = Some(now);
                draft.effect(Effect::ToNode { node: id, session: old, message: NodeMessage::Probe });
                Err(Refused::Probing)
            }
        }
    }

    /// Settles what the agent has against what we think it has.
    fn reconcile(&mut self, id: NodeId, session: SessionId, inventory: &[InventoryItem], draft: &mut Draft) {
        let verdicts = inventory.iter().map(|item| (item.attempt, item.fence, self.verdict(id, item))).collect();
        draft.effect(Effect::ToNode { node: id, session, message: NodeMessage::Reconcile(verdicts) });
        if self.rollback.is_some() {
            return;
        }
        let placed: Vec<JobId> =
            self.nodes.get(&id).map(|node| node.placed.iter().copied().collect()).unwrap_or_default();
        let held: BTreeMap<_, _> = inventory.iter().map(|item| ((item.attempt, item.fence), item)).collect();
        for job in placed {
            let job = self.jobs.get(&job).expect("what is placed exists").clone();
            let placement = job.placement().expect("what is placed has a placement").clone();
            let held = held.get(&(placement.attempt, placement.fence)).copied();
            self.reconcile_one(&job, &placement, held, draft);
        }
    }

    fn verdict(&self, node: NodeId, item: &InventoryItem) -> Verdict {
        let ours = self.jobs.get(&item.attempt.job).and_then(|job| job.placement_of(item.attempt, item.fence));
        let ours = ours.filter(|placement| placement.node == node);
        match (ours.map(|placement| &placement.progress), item.state) {
            (Some(_), ItemState::Ended) => Verdict::SendResult,
            // Only its output is waited for: what still runs there belongs to nobody.
            (Some(Progress::Done(_)), ItemState::Starting | ItemState::Running) => Verdict::Kill,
            (Some(_), ItemState::Starting | ItemState::Running) => Verdict::Keep,
            // What we were never told after a roll-back may still be somebody's work: touch nothing.
            (None, _) if self.rollback.is_some() => Verdict::Keep,
            (None, ItemState::Ended) => Verdict::Forget,
            (None, ItemState::Starting | ItemState::Running) => Verdict::Kill,
        }
    }

    fn reconcile_one(&mut self, job: &Job, placement: &Placement, held: Option<&InventoryItem>, draft: &mut Draft) {
        let attempt = placement.attempt;
        match (&placement.progress, held.map(|item| item.state)) {
            (Progress::Assigned, None) => self.send_assignment(job, placement, draft),
            (Progress::Starting | Progress::Running { .. }, None) => {
                let message = Text::cut("the node came back without it");
                self.retry_or_fail(job, placement, Reason::NodeFault, message, OutputLengths::default(), draft);
                return;
            }
            (Progress::Assigned, Some(ItemState::Starting)) => {
                draft.emit(EventBody::AttemptStarting { attempt });
            }
            (Progress::Assigned, Some(ItemState::Running)) => {
                draft.emit(EventBody::AttemptStarting { attempt });
                draft.emit(EventBody::AttemptStarted { attempt });
            }
            (Progress::Starting, Some(ItemState::Running)) => {
                draft.emit(EventBody::AttemptStarted { attempt });
            }
            (Progress::Assigned | Progress::Starting, Some(ItemState::Ended))
            | (Progress::Starting, Some(ItemState::Starting))
            | (Progress::Running { .. }, Some(_))
            | (Progress::Done(_), _) => {}
        }
        #[cfg(feature = "planted")]
        if planted::is(Bug::CancelNotRepeated) {
            return;
        }
        if let Some(wish) = &job.stop {
            let (fence, grace) = (placement.fence, wish.grace);
            let stop = NodeMessage::Stop { attempt, fence, grace, cause: StopCause::Cancelled };
            self.tell(placement.node, stop, draft);
        }
    }

    /// Tells the node to run the attempt. The shell marks the fence.
    pub(super) fn send_assignment(&self, job: &Job, placement: &Placement, draft: &mut Draft) {
        let assignment = Assignment {
            attempt: placement.attempt,
            claim: FenceClaim { fence: placement.fence, mac: [0; 16] },
            spec: (*job.spec).clone(),
            reservation: placement.reservation.clone(),
            tariff: (*placement.tariff).clone(),
            run_limit: placement.run_limit,
            run_limit_reason: placement.run_limit_reason,
            image: job.image.clone(),
            output_tokens_max: meter::output_tokens_max(&placement.tariff, job.hold()),
        };
        self.tell(placement.node, NodeMessage::Assign(Box::new(assignment)), draft);
    }

    pub(super) fn agent_disconnected(&mut self, id: NodeId, session: SessionId) -> Result<Reply, Refused> {
        let entry = self.nodes.get_mut(&id).ok_or(Refused::UnknownNode)?;
        if entry.session() == Some(session) {
            entry.presence.session = None;
            entry.presence.probed = None;
        }
        Ok(Reply::Done)
    }

    pub(super) fn agent_heard(&mut self, id: NodeId, session: SessionId, draft: &mut Draft) -> Result<Reply, Refused> {
        self.heard(id, session, draft)?;
        Ok(Reply::Done)
    }

    /// The node is alive on this connection.
    fn heard(&mut self, id: NodeId, session: SessionId, draft: &mut Draft) -> Result<(), Refused> {
        let entry = self.nodes.get_mut(&id).ok_or(Refused::UnknownNode)?;
        if entry.session() != Some(session) {
            return Err(Refused::StaleSession);
        }
        entry.presence.heard = draft.now;
        let state = entry.heard_state(None);
        // Where it was passed over for its silence that was told: deadlines come before placing.
        if entry.lost || entry.presence.told != state {
            if entry.lost {
                draft.emit(EventBody::NodeConnected { node: id, offer: None });
            }
            self.may_be_better(id);
            self.announce(id, state, draft);
        }
        self.watch(id);
        Ok(())
    }

    pub(super) fn offer_changed(
        &mut self,
        id: NodeId,
        session: SessionId,
        offer: Box<Offer>,
        draft: &mut Draft,
    ) -> Result<Reply, Refused> {
        self.heard(id, session, draft)?;
        let state = self.nodes[&id].heard_state(Some(&offer));
        draft.emit(EventBody::NodeConnected { node: id, offer: Some(offer) });
        self.announce(id, state, draft);
        Ok(Reply::Done)
    }

    pub(super) fn report(
        &mut self,
        id: NodeId,
        session: SessionId,
        report: Report,
        draft: &mut Draft,
    ) -> Result<Reply, Refused> {
        self.heard(id, session, draft)?;
        // What an old copy would settle may be settled already, and what it acknowledged its agent would forget.
        if self.rollback.is_some() {
            return Ok(Reply::Done);
        }
        let Report { attempt, fence, body } = report;
        #[cfg(feature = "planted")]
        let (id, attempt, fence) = match self.jobs.get(&attempt.job).and_then(Job::placement) {
            Some(newest) if planted::is(Bug::LostResultAccepted) => (newest.node, newest.attempt, newest.fence),
            Some(_) | None => (id, attempt, fence),
        };
        #[cfg(feature = "planted")]
        if let (true, Some(ended), ReportBody::Ended { output, .. }) =
            (planted::is(Bug::SettledByAttempt), self.ended.get(&attempt.job), &body)
        {
            self.settle_once_more(attempt, ended.state, *output, draft);
        }
        let ours = self
            .jobs
            .get(&attempt.job)
            .filter(|job| job.placement_of(attempt, fence).is_some_and(|placement| placement.node == id));
        let Some(job) = ours.cloned() else {
            // Settled or replaced long ago: the agent is to forget it, or to end it first.
            let (grace, cause) = (Span::ZERO, StopCause::Superseded);
            match body {
                ReportBody::Refused { .. } | ReportBody::Preparing { .. } => {}
                ReportBody::Starting | ReportBody::Pinned { .. } | ReportBody::Started => {
                    self.tell(id, NodeMessage::Stop { attempt, fence, grace, cause }, draft);
                }
                ReportBody::Ended { .. } => self.tell(id, NodeMessage::Ack { attempt, fence }, draft),
            }
            return Ok(Reply::Done);
        };
        let placement = job.placement().expect("just found").clone();
        match body {
            ReportBody::Refused { message } => self.refused(&job, &placement, message, draft),
            ReportBody::Starting => self.starting(&placement, draft),
            ReportBody::Preparing { message } => {
                draft.effect(Effect::Preparing { attempt, message });
            }
            ReportBody::Pinned { image } => {
                if job.image.is_none() && !matches!(placement.progress, Progress::Done(_)) {
                    draft.emit(EventBody::ImagePinned { attempt, image });
                }
            }
            ReportBody::Started => self.started(&placement, draft),
            ReportBody::Ended { ending, usage, output } => {
                let done = Done { ending, usage, output, at: draft.now };
                self.attempt_done(&job, &placement, done, draft);
            }
        }
        Ok(Reply::Done)
    }

    #[cfg(feature = "planted")]
    fn settle_once_more(
        &self,
        attempt: AttemptId,
        state: modchain_types::JobState,
        output: OutputLengths,
        draft: &mut Draft,
    ) {
        let (reason, exit) = (Reason::Exit, modchain_types::Exit::job(0));
        let (message, usage) = (Text::default(), modchain_types::Usage::default());
        let outcome = crate::event::Outcome { state, reason, exit, message, usage, output };
        let settlement = settle::split(modchain_types::Micro::ZERO, modchain_types::Micro::ZERO, 0, None);
        draft.emit(EventBody::JobFinished { job: attempt.job, attempt: Some(attempt.number), outcome, settlement });
    }

    fn refused(&mut self, job: &Job, placement: &Placement, message: Text<512>, draft: &mut Draft) {
        match (&placement.progress, &job.stop) {
            (Progress::Assigned, None) => {
                draft.emit(EventBody::AttemptEnded { attempt: placement.attempt, reason: Reason::Refused, message });
            }
            (Progress::Assigned, Some(stop)) => self.finish_stopped(job, &stop.cause, placement, draft),
            #[cfg(feature = "planted")]
            (Progress::Starting, None) if planted::is(Bug::RefusedAfterTaking) => {
                draft.emit(EventBody::AttemptEnded { attempt: placement.attempt, reason: Reason::Refused, message });
            }
            // It had taken it: that was one of the job's attempts, or a node could have it tried for ever.
            (Progress::Starting, _) => {
                self.retry_or_fail(job, placement, Reason::NodeFault, message, OutputLengths::default(), draft);
            }
            (Progress::Running { .. } | Progress::Done(_), _) => return,
        }
        self.cool_down(placement.node, draft.now);
    }

    fn starting(&self, placement: &Placement, draft: &mut Draft) {
        match placement.progress {
            Progress::Assigned => {
                draft.emit(EventBody::AttemptStarting { attempt: placement.attempt });
            }
            Progress::Starting | Progress::Running { .. } | Progress::Done(_) => {}
        }
    }

    fn started(&self, placement: &Placement, draft: &mut Draft) {
        self.starting(placement, draft);
        match placement.progress {
            Progress::Assigned | Progress::Starting => {
                draft.emit(EventBody::AttemptStarted { attempt: placement.attempt });
            }
            Progress::Running { .. } | Progress::Done(_) => {}
        }
    }

    /// The attempt is over. It counts once its output is on our disk.
    fn attempt_done(&mut self, job: &Job, placement: &Placement, done: Done, draft: &mut Draft) {
        if matches!(placement.progress, Progress::Done(_)) {
            return; // said before; it is acknowledged when it is settled
        }
        // That it was begun was lost with a connection, or never said: it is one of the job's attempts all the same, or a node
        // could have it tried for ever.
        let unheard = placement.progress == Progress::Assigned;
        let mut counted = job.clone();
        let has_begun = settle::implies_started(&done.ending);
        if has_begun {
            self.started(placement, draft);
        } else {
            self.starting(placement, draft);
        }
        counted.attempts_counted += u32::from(unheard);
        let job = &counted;
        let faulty = match &done.ending {
            _ if unheard && !has_begun => true,
            // What a node could not start may be this job's own bad luck, such as an image that nobody has: it costs the job
            // one of its attempts, and others nothing.
            Ending::NodeFault { .. } => true,
            Ending::Exited { .. }
            | Ending::Signalled { .. }
            | Ending::Trapped { .. }
            | Ending::MemoryLimit
            | Ending::PidsLimit { .. }
            | Ending::RunLimit
            | Ending::Stopped
            | Ending::CannotStart { .. }
            | Ending::LeaseEnded => false,
        };
        if faulty {
            self.cool_down(placement.node, draft.now);
        }
        let stored = self.stored.get(&placement.attempt).copied().unwrap_or_default();
        if stored.covers(&done.output) {
            self.conclude(job, placement, &done, draft);
        } else {
            let Done { ending, usage, output, at: _ } = done;
            draft.emit(EventBody::ResultRecorded { attempt: placement.attempt, ending, usage, output });
        }
    }

    pub(super) fn output_stored(&mut self, attempt: AttemptId, fence: Fence, stored: OutputLengths, draft: &mut Draft) {
        let Some(job) = self.jobs.get(&attempt.job).filter(|job| job.placement_of(attempt, fence).is_some()) else {
            return;
        };
        let (job, placement) = (job.clone(), job.placement().expect("just found").clone());
        self.stored.insert(attempt, stored);
        if self.rollback.is_none()
            && let Progress::Done(done) = &placement.progress
            && stored.covers(&done.output)
        {
            self.conclude(&job, &placement, done, draft);
        }
    }

    pub(super) fn output_comes(&mut self, attempt: AttemptId, fence: Fence, now: Timestamp) {
        let placement = self.jobs.get(&attempt.job).and_then(|job| job.placement_of(attempt, fence));
        if placement.is_some_and(|placement| matches!(placement.progress, Progress::Done(_))) {
            self.output_came.insert(attempt, now);
        }
    }

    pub(super) fn body_unreadable(&self, attempt: AttemptId, fence: Fence, message: Text<512>, draft: &mut Draft) {
        let Some(job) = self.jobs.get(&attempt.job) else { return };
        let Some(placement) = job.placement_of(attempt, fence) else { return };
        if self.rollback.is_some() || placement.progress != Progress::Assigned {
            return; // said by an old copy, or of an assignment that was delivered after all
        }
        if let Some(stop) = &job.stop {
            self.finish_stopped(job, &stop.cause, placement, draft);
        } else {
            let state = modchain_types::JobState::Failed;
            self.finish_unpaid(job, Some(placement), state, Reason::Refused, message, draft);
        }
    }

    /// The job can never be completed: its attempt is stopped and paid like a cancelled one, and it fails.
    pub(super) fn input_failed(&self, id: JobId, message: Text<512>, draft: &mut Draft) {
        if self.rollback.is_some() {
            return;
        }
        let Some(job) = self.jobs.get(&id) else { return };
        let Some(placement) = job.placement() else {
            let state = modchain_types::JobState::Failed;
            return self.finish_unpaid(job, None, state, Reason::Refused, message, draft);
        };
        if job.stop.is_some() || matches!(placement.progress, Progress::Done(_)) {
            return; // it is being stopped already, or it has ended without the rest of its input
        }
        draft.emit(EventBody::InputFailed { job: id, message });
        let (attempt, fence) = (placement.attempt, placement.fence);
        let stop = NodeMessage::Stop { attempt, fence, grace: Span::ZERO, cause: StopCause::Cancelled };
        self.tell(placement.node, stop, draft);
    }

    /// Tells the read model if the node's state is not the one told last.
    pub(super) fn announce(&mut self, id: NodeId, state: NodeState, draft: &mut Draft) {
        let Some(entry) = self.nodes.get_mut(&id) else { return };
        if entry.presence.told != state {
            entry.presence.told = state;
            draft.effect(Effect::NodeChanged { node: id, state });
        }
    }

    /// Sees to it that one deadline watches the node's silence.
    pub(super) fn watch(&mut self, id: NodeId) {
        let Some(entry) = self.nodes.get_mut(&id) else { return };
        if !entry.presence.watched {
            entry.presence.watched = true;
            self.deadlines.arm(entry.presence.heard + node::SUSPECT_AFTER, Deadline::NodeSuspect(id));
        }
    }
}

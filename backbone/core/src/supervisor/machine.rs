//! The machine itself.

use std::collections::BTreeMap;

use modchain_types::{
    Assignment, AttemptId, Capabilities, Ending, Fence, ImagePin, InventoryItem, OnDisconnect, OutputLengths, Report,
    ReportBody, Span, StopCause, Text, Timestamp, Usage, Verdict,
};

use super::admission::{Objection, admit};
use super::attempt::{Attempt, Live, Phase, StopReason, node_fault};
use super::lease::Lease;
use super::{Action, Input, Recovered, Survivor};
#[cfg(feature = "planted")]
use crate::planted::{self, Bug};

/// Grace time of an attempt that reaches its run limit: what `docker stop` gives, and what a client's cancel gives unless it
/// says otherwise. It is not billed beyond the hold.
pub const RUN_LIMIT_GRACE: Span = Span::from_secs(10);

/// What the machine is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupervisorConfig {
    /// What this node offers; assignments beyond it are refused.
    pub capabilities: Capabilities,
}

/// The agent's root machine.
#[derive(Debug)]
pub struct Supervisor {
    config: SupervisorConfig,
    /// Every attempt that is not forgotten. At most one per job is live without being void: the one with its highest fence.
    attempts: BTreeMap<AttemptId, Attempt>,
    /// `None` before the first welcome.
    lease: Option<Lease>,
    /// The highest fence seen since the start of the agent or found on its disk.
    highest_fence: Fence,
    availability: Availability,
    /// The owner's wish, see [`Supervisor::set_paused`].
    paused: bool,
}

/// Whether new attempts are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Availability {
    Open,
    ShuttingDown,
}

impl Supervisor {
    /// A machine that holds nothing.
    pub fn new(config: SupervisorConfig) -> Self {
        Self {
            config,
            attempts: BTreeMap::new(),
            lease: None,
            highest_fence: Fence::default(),
            availability: Availability::Open,
            paused: false,
        }
    }

    /// Takes over what an earlier run of the agent left on disk. Attempts without a result are over, unless they survived it:
    /// the actions record that.
    ///
    /// How long an attempt that is over ran is not known, and its usage is not needed: nobody pays for a node's fault.
    pub fn recover(&mut self, now: Timestamp, found: Vec<Recovered>) -> Vec<Action> {
        let mut actions = Vec::new();
        for Recovered { attempt, fence, result, survivor, output } in found {
            self.highest_fence = self.highest_fence.max(fence);
            if let (None, Some(survivor)) = (&result, survivor) {
                self.take_up(now, attempt, fence, survivor, &mut actions);
                continue;
            }
            let report = result.unwrap_or_else(|| {
                let ending = node_fault("agent restarted while it ran");
                let report =
                    Report { attempt, fence, body: ReportBody::Ended { ending, usage: Usage::default(), output } };
                actions.push(Action::Record(report.clone()));
                report
            });
            self.attempts.insert(attempt, Attempt::Ended(report));
        }
        actions
    }

    fn take_up(
        &mut self,
        now: Timestamp,
        attempt: AttemptId,
        fence: Fence,
        survivor: Survivor,
        actions: &mut Vec<Action>,
    ) {
        let Survivor { assignment, since } = survivor;
        let live = Live {
            fence,
            reservation: assignment.reservation.clone(),
            on_disconnect: assignment.spec.limits.on_disconnect,
            run_limit: assignment.run_limit,
            image: assignment.image.clone(),
            phase: Phase::Running { since: since.min(now) },
            stopping: None,
        };
        let ends = live.on_disconnect == OnDisconnect::Stop;
        self.attempts.insert(attempt, Attempt::Live(live));
        actions.push(Action::Resume { assignment, since: since.min(now) });
        if ends {
            self.stop(now, attempt, Span::ZERO, StopReason::LeaseEnded, actions);
        }
    }

    /// The owner changed the offer: later assignments are judged by it.
    pub fn set_capabilities(&mut self, capabilities: Capabilities) {
        self.config.capabilities = capabilities;
    }

    /// Whether the owner wants no new attempts for now. What runs goes on; an assignment that crosses this wish on its way is
    /// refused.
    pub fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Takes one input, at the agent's monotonic time `now`; returns what to do, in order.
    pub fn handle(&mut self, now: Timestamp, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        // What has passed has passed, whatever comes in: after a pause of the machine the answer to an old heartbeat must not
        // bring an ended lease back. Only an end is looked at first, because what has ended need not be stopped.
        if let Input::Ended { attempt, ending, usage, output } = input {
            self.on_ended(now, attempt, ending, usage, output, &mut actions);
            self.fire(now, &mut actions);
            return actions;
        }
        self.fire(now, &mut actions);
        match input {
            #[cfg(feature = "planted")]
            Input::Disconnected if planted::is(Bug::ResultForgotten) => {
                self.attempts.retain(|_, attempt| matches!(attempt, Attempt::Live(_)));
            }
            #[cfg(feature = "planted")]
            Input::HeartbeatAnswered { .. } if planted::is(Bug::LeaseFromAnswer) => {
                if let Some(lease) = &mut self.lease {
                    lease.renew(now);
                }
            }
            Input::Connected { lease, sent } => self.lease = Some(Lease::new(lease, sent)),
            // What follows from it follows from the lease.
            Input::Disconnected => {}
            Input::HeartbeatAnswered { sent } => {
                if let Some(lease) = &mut self.lease {
                    lease.renew(sent);
                }
            }
            Input::Reconcile(verdicts) => {
                for (attempt, fence, verdict) in verdicts {
                    self.on_verdict(now, attempt, fence, verdict, &mut actions);
                }
            }
            Input::Assign(assignment) => self.on_assign(now, assignment, &mut actions),
            Input::Stop { attempt, fence, grace, cause } => {
                let why = match cause {
                    StopCause::Cancelled => StopReason::Cancelled,
                    StopCause::Superseded | StopCause::Overdue => StopReason::Void,
                };
                if self.holds(attempt, fence) {
                    self.stop(now, attempt, grace, why, &mut actions);
                }
            }
            Input::Ack { attempt, fence } => {
                if self.holds(attempt, fence) && matches!(self.attempts[&attempt], Attempt::Ended(_)) {
                    self.discard(attempt, &mut actions);
                }
            }
            Input::Preparing { attempt, message } => {
                self.on_said(attempt, ReportBody::Preparing { message }, &mut actions);
            }
            Input::Pinned { attempt, image } => self.on_pinned(attempt, image, &mut actions),
            Input::Started { attempt } => self.on_started(now, attempt, &mut actions),
            Input::Ended { .. } => unreachable!("handled above"),
            Input::ShutDown { grace } => {
                self.availability = Availability::ShuttingDown;
                for attempt in self.live_ids(|_| true) {
                    self.stop(now, attempt, grace, StopReason::ShutDown, &mut actions);
                }
            }
            Input::Evict { grace } => {
                for attempt in self.live_ids(|_| true) {
                    self.stop(now, attempt, grace, StopReason::Evicted, &mut actions);
                }
            }
            Input::Tick => {}
        }
        actions
    }

    /// When to call again with [`Input::Tick`] if nothing else happens.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let lease_end = self.lease.map(|lease| lease.end());
        self.live()
            .flat_map(|(_, live)| [live.limit_at(), lease_end.filter(|end| live.ends_with_lease(*end))])
            .flatten()
            .min()
    }

    /// Every attempt that is held, for the hello.
    pub fn inventory(&self) -> Vec<InventoryItem> {
        self.attempts
            .iter()
            .map(|(id, attempt)| InventoryItem { attempt: *id, fence: attempt.fence(), state: attempt.item_state() })
            .collect()
    }

    /// The recorded results that are not acknowledged yet.
    pub fn unacknowledged(&self) -> Vec<Report> {
        self.attempts
            .values()
            .filter_map(|attempt| match attempt {
                Attempt::Ended(report) => Some(report.clone()),
                Attempt::Live(_) => None,
            })
            .collect()
    }

    /// Attempts that run or prepare; zero means that a shutdown may go on.
    pub fn live_attempts(&self) -> usize {
        self.live().count()
    }

    /// Fires every deadline that has come.
    fn fire(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let limits = self.live().filter_map(|(id, live)| Some((id, live.limit_at()?, live.stopping.is_some())));
        let reached: Vec<_> = limits.filter(|(_, limit, _)| *limit <= now).collect();
        for (attempt, limit, is_stopping) in reached {
            // Whoever is being stopped anyway has this from the limit on, however late it is.
            let grace = if is_stopping { (limit + RUN_LIMIT_GRACE).since(now) } else { RUN_LIMIT_GRACE };
            self.stop(now, attempt, grace, StopReason::RunLimit, actions);
        }
        let Some(lease_end) = self.lease.map(|lease| lease.end()).filter(|end| *end <= now) else { return };
        for attempt in self.live_ids(|live| live.ends_with_lease(lease_end)) {
            // No grace: the orchestrator counts on nothing running once the lease is over.
            self.stop(now, attempt, Span::ZERO, StopReason::LeaseEnded, actions);
        }
    }

    fn on_assign(&mut self, now: Timestamp, assignment: Box<Assignment>, actions: &mut Vec<Action>) {
        let (attempt, fence) = (assignment.attempt, assignment.claim.fence);
        match self.attempts.get(&attempt) {
            Some(Attempt::Ended(report)) if report.fence == fence => {
                actions.push(Action::Send(report.clone()));
                return;
            }
            Some(Attempt::Live(live)) if live.fence == fence => return,
            Some(_) | None => {}
        }
        let of_job = self.of_job(attempt);
        if of_job.iter().any(|older| self.attempts[older].fence() >= fence) {
            return; // void since a higher fence was given out: whatever is said under it changes nothing
        }
        for older in of_job {
            self.stop(now, older, Span::ZERO, StopReason::Void, actions);
        }
        if fence > self.highest_fence {
            self.highest_fence = fence;
            actions.push(Action::RememberFence(assignment.claim));
        }
        if let Err(message) = self.admit(now, &assignment) {
            actions.push(Action::Send(Report { attempt, fence, body: ReportBody::Refused { message } }));
            return;
        }
        let live = Live {
            fence,
            reservation: assignment.reservation.clone(),
            on_disconnect: assignment.spec.limits.on_disconnect,
            run_limit: assignment.run_limit,
            image: None,
            phase: Phase::Starting,
            stopping: None,
        };
        self.attempts.insert(attempt, Attempt::Live(live));
        actions.push(Action::Begin(assignment));
        actions.push(Action::Send(Report { attempt, fence, body: ReportBody::Starting }));
    }

    fn admit(&self, now: Timestamp, assignment: &Assignment) -> Result<(), Objection> {
        if self.availability == Availability::ShuttingDown {
            return Err(Text::cut("this agent is shutting down"));
        }
        if self.paused {
            return Err(Text::cut("the node's owner wants no new jobs for now"));
        }
        if self.attempts.contains_key(&assignment.attempt) {
            return Err(Text::cut("an older run of this attempt is still being stopped"));
        }
        // An assignment that was long on its way must not begin after the orchestrator has stopped waiting for it.
        let leased = self.lease.is_some_and(|lease| now < lease.end());
        if assignment.spec.limits.on_disconnect == OnDisconnect::Stop && !leased {
            return Err(Text::cut("the lease has ended: the orchestrator was silent for too long"));
        }
        admit(&self.config.capabilities, self.live().map(|(_, live)| &live.reservation), assignment)
    }

    fn on_verdict(
        &mut self,
        now: Timestamp,
        attempt: AttemptId,
        fence: Fence,
        verdict: Verdict,
        actions: &mut Vec<Action>,
    ) {
        if !self.holds(attempt, fence) {
            return;
        }
        match verdict {
            // What happened since the hello was written may have been said to a connection that was not open yet.
            Verdict::Keep | Verdict::SendResult => {
                // Before what says that it runs: the pin belongs to whatever the job does.
                actions.extend(self.pin(attempt).map(Action::Send));
                actions.extend(self.progress(attempt).map(Action::Send));
            }
            Verdict::Kill | Verdict::Forget => self.stop(now, attempt, Span::ZERO, StopReason::Void, actions),
        }
    }

    /// Passes on what is said of an attempt that is being prepared.
    fn on_said(&mut self, attempt: AttemptId, body: ReportBody, actions: &mut Vec<Action>) {
        let Some(Attempt::Live(live)) = self.attempts.get(&attempt) else { return };
        if live.phase == Phase::Starting && live.stopping.is_none() {
            actions.push(Action::Send(Report { attempt, fence: live.fence, body }));
        }
    }

    fn on_pinned(&mut self, attempt: AttemptId, image: ImagePin, actions: &mut Vec<Action>) {
        if let Some(Attempt::Live(live)) = self.attempts.get_mut(&attempt) {
            live.image = Some(image.clone());
        }
        self.on_said(attempt, ReportBody::Pinned { image }, actions);
    }

    fn on_started(&mut self, now: Timestamp, attempt: AttemptId, actions: &mut Vec<Action>) {
        let Some(Attempt::Live(live)) = self.attempts.get_mut(&attempt) else { return };
        if live.phase != Phase::Starting {
            return;
        }
        live.phase = Phase::Running { since: now };
        actions.extend(self.progress(attempt).map(Action::Send));
    }

    fn on_ended(
        &mut self,
        now: Timestamp,
        attempt: AttemptId,
        ending: Ending,
        usage: Usage,
        output: OutputLengths,
        actions: &mut Vec<Action>,
    ) {
        let Some(Attempt::Live(live)) = self.attempts.get(&attempt) else { return };
        match live.conclude(now, ending, usage, output) {
            Some(body) => {
                let report = Report { attempt, fence: live.fence, body };
                self.attempts.insert(attempt, Attempt::Ended(report.clone()));
                actions.push(Action::Record(report));
            }
            None => self.discard(attempt, actions),
        }
    }

    /// The last report that still matters of an attempt that is held: that it runs, or how it ended.
    fn progress(&self, attempt: AttemptId) -> Option<Report> {
        match self.attempts.get(&attempt)? {
            Attempt::Ended(report) => Some(report.clone()),
            Attempt::Live(live) => match (live.phase, live.stopping.map(|stopping| stopping.why)) {
                (Phase::Starting, _) | (_, Some(StopReason::Void)) => None,
                (Phase::Running { .. }, _) => Some(Report { attempt, fence: live.fence, body: ReportBody::Started }),
            },
        }
    }

    /// What a live attempt runs, to be said again to a new connection.
    fn pin(&self, attempt: AttemptId) -> Option<Report> {
        match self.attempts.get(&attempt)? {
            Attempt::Live(Live { image: Some(image), fence, .. }) => {
                let body = ReportBody::Pinned { image: image.clone() };
                Some(Report { attempt, fence: *fence, body })
            }
            Attempt::Live(_) | Attempt::Ended(_) => None,
        }
    }

    /// Stops an attempt that is held. One that has ended already is left to the acknowledgement, unless it is void.
    fn stop(&mut self, now: Timestamp, attempt: AttemptId, grace: Span, why: StopReason, actions: &mut Vec<Action>) {
        match self.attempts.get_mut(&attempt) {
            Some(Attempt::Live(live)) => {
                let told = live.stop(now, grace, why);
                actions.extend(told.map(|grace| Action::Stop { attempt, grace }));
            }
            Some(Attempt::Ended(_)) if why == StopReason::Void => self.discard(attempt, actions),
            Some(Attempt::Ended(_)) | None => {}
        }
    }

    fn discard(&mut self, attempt: AttemptId, actions: &mut Vec<Action>) {
        self.attempts.remove(&attempt);
        actions.push(Action::Discard { attempt });
    }

    /// Whether this very attempt is held under this very fence; whatever is said about another is out of date.
    fn holds(&self, attempt: AttemptId, fence: Fence) -> bool {
        self.attempts.get(&attempt).is_some_and(|held| held.fence() == fence)
    }

    fn live(&self) -> impl Iterator<Item = (AttemptId, &Live)> {
        self.attempts.iter().filter_map(|(id, attempt)| match attempt {
            Attempt::Live(live) => Some((*id, live)),
            Attempt::Ended(_) => None,
        })
    }

    fn live_ids(&self, wanted: impl Fn(&Live) -> bool) -> Vec<AttemptId> {
        self.live().filter(|(_, live)| wanted(live)).map(|(id, _)| id).collect()
    }

    /// Every attempt held for the same job.
    fn of_job(&self, attempt: AttemptId) -> Vec<AttemptId> {
        let whole_job = AttemptId { number: 0, ..attempt }..=AttemptId { number: u32::MAX, ..attempt };
        self.attempts.range(whole_job).map(|(id, _)| *id).collect()
    }
}

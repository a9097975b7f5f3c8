//! From an attempt's ending to a settlement or a retry. Everything that ends a job passes through here.

use modchain_types::{
    Adapter, Ending, Exit, ExitFrom, JobState, Micro, OutputLengths, Reason, StopCause, Task, TaskBody, Text, Usage,
};

use super::nodes::DRAINED;
use super::{Control, Draft};
use crate::effect::{Effect, NodeMessage};
use crate::event::{EventBody, Outcome};
use crate::job::{Done, Job, Placement, Progress, WishCause};
use crate::settle::{self, Fate, Pays, Wish};
use crate::{meter, node};

/// The exit code of a job that no node could start: an image that cannot be pulled, a refusal.
const COULD_NOT_START: u8 = 126;

impl Control {
    /// An attempt is over and its output is here, or will not come: settle or retry.
    pub(super) fn conclude(&self, job: &Job, placement: &Placement, done: &Done, draft: &mut Draft) {
        if self.nodes.get(&placement.node).is_some_and(|node| node.revoked) {
            // Output that was on its way, or its deadline, may come before the job is moved: nothing is believed any more.
            return self.node_revoked(job, placement, draft);
        }
        let started = matches!(placement.progress, Progress::Running { .. })
            || settle::implies_started(&done.ending)
            || done.usage.ran.0 > 0;
        let (wish, message) = match job.stop.as_ref().map(|stop| &stop.cause) {
            // Its client did not want that: only a drain stops what was not told to stop.
            None if done.ending == Ending::Stopped => (Wish::GoOn, Text::cut(DRAINED)),
            None => (Wish::GoOn, message_of(&done.ending)),
            Some(WishCause::Client) => (Wish::Cancel, message_of(&done.ending)),
            Some(WishCause::InputFailed(message)) => (Wish::GiveUp, message.clone()),
        };
        let seen = done.at.since(placement.assigned_at);
        let request_bytes = match &job.spec.body {
            TaskBody::Inline(Task::Llm(task)) => task.request_bytes,
            TaskBody::Inline(Task::Wasm(_) | Task::Docker(_)) | TaskBody::Blob { .. } => 0,
        };
        // What is here, not what the node says that there was.
        let answer_bytes = match job.spec.requirements.adapter {
            Adapter::Llm => self.stored.get(&placement.attempt).map_or(0, |stored| stored.stdout + stored.stderr),
            Adapter::Wasm | Adapter::Docker | Adapter::Mcp => 0,
        };
        #[cfg(feature = "planted")]
        let answer_bytes = if crate::planted::is(crate::planted::Bug::TokensOfAnyJob) {
            done.output.stdout.saturating_add(done.output.stderr)
        } else {
            answer_bytes
        };
        let usage = meter::believed(&done.usage, seen, request_bytes, answer_bytes);
        let tokens_max = meter::output_tokens_max(&placement.tariff, job.hold());
        let limit_reason = match tokens_max {
            // The hold pays for so many tokens and no more, however much time is left.
            Some(most) if usage.output_tokens >= most => Reason::Budget,
            Some(_) | None => placement.run_limit_reason,
        };
        match settle::fate(&done.ending, wish, limit_reason, started) {
            Fate::Retry { reason } => {
                // Where nothing ever ran, the job could not start: that is its own exit code.
                let exit = match done.ending {
                    Ending::CannotStart { .. } => Some(Exit { code: COULD_NOT_START, from: ExitFrom::Node }),
                    _ => None,
                };
                self.retry_or_fail_with(job, placement, reason, message, done.output, exit, draft);
            }
            Fate::Finish { state, reason, exit, pays } => {
                let gross = match pays {
                    Pays::Metered => meter::charge(&placement.tariff, &placement.reservation, &usage, job.hold()),
                    Pays::Nobody => Micro::ZERO,
                };
                let outcome = Outcome { state, reason, exit, message, usage, output: done.output };
                self.finish(job, Some(placement), outcome, gross, draft);
            }
        }
        let ack = NodeMessage::Ack { attempt: placement.attempt, fence: placement.fence };
        self.tell(placement.node, ack, draft);
    }

    /// The attempt failed and it was not the job's fault: unpaid; another one if one is left.
    pub(super) fn retry_or_fail(
        &self,
        job: &Job,
        placement: &Placement,
        reason: Reason,
        message: Text<512>,
        output: OutputLengths,
        draft: &mut Draft,
    ) {
        self.retry_or_fail_with(job, placement, reason, message, output, None, draft);
    }

    /// The same, with the exit code of a job that has no attempt left; `None` is the one of its reason.
    #[allow(clippy::too_many_arguments, reason = "an ending has so many parts")]
    fn retry_or_fail_with(
        &self,
        job: &Job,
        placement: &Placement,
        reason: Reason,
        message: Text<512>,
        output: OutputLengths,
        exit: Option<Exit>,
        draft: &mut Draft,
    ) {
        if let Some(stop) = &job.stop {
            return self.finish_stopped(job, &stop.cause, placement, draft);
        }
        let allowed = job.spec.limits.attempts_max;
        if job.attempts_counted < allowed {
            draft.emit(EventBody::AttemptEnded { attempt: placement.attempt, reason, message });
            return;
        }
        let (reason, message) = if allowed > 1 {
            let message = format!("{} of {allowed} attempts failed; the last: {message}", job.attempts_counted);
            (Reason::Attempts, Text::cut(message))
        } else {
            (reason, message)
        };
        let exit = exit.or(Exit::of(reason)).expect("a node's fault has an exit code of its own");
        let outcome = Outcome { state: JobState::Failed, reason, exit, message, usage: Usage::default(), output };
        self.finish(job, Some(placement), outcome, Micro::ZERO, draft);
    }

    /// The attempt's node was revoked: it is not paid, and the job goes on elsewhere.
    pub(super) fn node_revoked(&self, job: &Job, placement: &Placement, draft: &mut Draft) {
        let (message, output) = (Text::cut("its node was revoked"), OutputLengths::default());
        self.retry_or_fail(job, placement, Reason::Revoked, message, output, draft);
    }

    /// The client's wish is fulfilled and nothing is paid.
    pub(super) fn finish_cancelled(&self, job: &Job, placement: Option<&Placement>, draft: &mut Draft) {
        self.finish_unpaid(job, placement, JobState::Cancelled, Reason::Cancelled, Text::default(), draft);
    }

    /// The job was to end, and nothing of it is paid.
    pub(super) fn finish_stopped(&self, job: &Job, cause: &WishCause, placement: &Placement, draft: &mut Draft) {
        match cause {
            WishCause::Client => self.finish_cancelled(job, Some(placement), draft),
            WishCause::InputFailed(message) => {
                let message = message.clone();
                self.finish_unpaid(job, Some(placement), JobState::Failed, Reason::Refused, message, draft);
            }
        }
    }

    /// The job is over and everything that was held goes back.
    pub(super) fn finish_unpaid(
        &self,
        job: &Job,
        placement: Option<&Placement>,
        state: JobState,
        reason: Reason,
        message: Text<512>,
        draft: &mut Draft,
    ) {
        let exit = Exit::of(reason).expect("what ends unpaid has an exit code of its own");
        let (usage, output) = (Usage::default(), OutputLengths::default());
        self.finish(job, placement, Outcome { state, reason, exit, message, usage, output }, Micro::ZERO, draft);
    }

    /// The job is over: one event with the outcome and all the legs.
    pub(super) fn finish(
        &self,
        job: &Job,
        placement: Option<&Placement>,
        outcome: Outcome,
        gross: Micro,
        draft: &mut Draft,
    ) {
        let owner = placement.and_then(|placement| self.owner_of(placement.node));
        let settlement = settle::split(job.hold(), gross, job.fee_basis_points, owner);
        let attempt = placement.map(|placement| placement.attempt.number);
        let finished = draft.emit(EventBody::JobFinished { job: job.id, attempt, outcome, settlement });
        draft.effect(Effect::JobClosed { job: job.id, finished, at: draft.now });
    }

    /// The attempt's node is at fault by our own judgement: it is told to drop the attempt, whether it hears it or not.
    pub(super) fn give_up(
        &mut self,
        job: &Job,
        placement: &Placement,
        reason: Reason,
        message: &str,
        draft: &mut Draft,
    ) {
        let stop = NodeMessage::Stop {
            attempt: placement.attempt,
            fence: placement.fence,
            grace: modchain_types::Span::ZERO,
            cause: StopCause::Superseded,
        };
        self.tell(placement.node, stop, draft);
        self.retry_or_fail(job, placement, reason, Text::cut(message), OutputLengths::default(), draft);
        self.cool_down(placement.node, draft.now);
    }

    /// No new attempts for this node for a moment.
    pub(super) fn cool_down(&mut self, node: modchain_types::NodeId, now: modchain_types::Timestamp) {
        if let Some(entry) = self.nodes.get_mut(&node) {
            entry.presence.cool_until = now + node::COOL_DOWN;
            self.deadlines.arm(entry.presence.cool_until, crate::deadline::Deadline::CoolDown(node));
        }
    }
}

/// What people read about an ending.
fn message_of(ending: &Ending) -> Text<512> {
    match ending {
        Ending::Exited { .. } | Ending::Stopped => Text::default(),
        Ending::Signalled { signal } => Text::cut(format!("killed by signal {signal}")),
        Ending::Trapped { message } | Ending::CannotStart { message, .. } | Ending::NodeFault { message } => {
            message.clone()
        }
        Ending::MemoryLimit => Text::cut("went over its memory limit"),
        Ending::PidsLimit { .. } => Text::cut("wanted more processes than it may have"),
        Ending::RunLimit => Text::cut("reached its run limit"),
        Ending::LeaseEnded => Text::cut("its lease ended while the orchestrator was away"),
    }
}

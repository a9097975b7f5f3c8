//! One job as the feed remembers it as long as it has not ended.

use std::collections::VecDeque;

use modchain_core::{Event, Outcome, Settlement, meter};
use modchain_types::{
    AccountId, Adapter, Fence, ImagePin, JobId, JobSpec, JobState, List, LlmKind, Map, Micro, NodeId, OutputLengths,
    Reason, Reservation, Span, Tariff, Task, TaskBody, Text, Timestamp, Usage,
};
use modchain_wire::Sentence;
use modchain_wire::view::{AttemptView, JobView};
use serde::{Deserialize, Serialize};

use super::model::Model;

/// Attempts of one job that are remembered, newest first to stay: what a [`JobView`] can carry.
const ATTEMPTS_KEPT: usize = 64;

/// One job that has not ended. As the view keeps it too, but for what is not in the journal.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) account: AccountId,
    pub(super) name: Text<64>,
    adapter: Adapter,
    what: Text<256>,
    model: Option<Text<256>>,
    pub(super) labels: Map<Text<64>, Text<256>, 32>,
    time_limit: Option<Span>,
    attempts_max: u32,
    pub(super) hold: Micro,
    /// Number of the event that made it.
    pub(super) number: u64,
    pub(super) created_at: Timestamp,
    pub(super) attempts: VecDeque<Attempt>,
    pub(super) cancelling: bool,
    /// Why it waits again.
    message: Text<512>,
    pub(super) image: Option<ImagePin>,
    usage: Usage,
    #[serde(skip)]
    outcome: Option<Outcome>,
    #[serde(skip)]
    pub(super) settlement: Option<Settlement>,
    #[serde(skip)]
    ended_at: Option<Timestamp>,
    /// Numbers of all events about it.
    pub(super) events: Vec<u64>,
    /// The last event that changed what is shown of it.
    pub(super) changed_by: u64,
    #[serde(skip)]
    pub(super) changed: u64,
}

/// One attempt.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Attempt {
    pub(super) number: u32,
    pub(super) node: NodeId,
    pub(super) fence: Fence,
    state: JobState,
    reason: Option<Reason>,
    message: Text<512>,
    #[serde(skip)]
    preparing: Text<256>,
    tariff: Tariff,
    pub(super) reservation: Reservation,
    run_limit: Span,
    assigned_at: Timestamp,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    /// As its agent reported it in the end.
    reported: Option<OutputLengths>,
    /// As much as is on disk, before that.
    #[serde(skip)]
    stored: OutputLengths,
}

impl Attempt {
    /// As it is assigned.
    pub(super) fn new(
        event: &Event,
        fence: Fence,
        number: u32,
        node: NodeId,
        tariff: &Tariff,
        reservation: &Reservation,
        run_limit: Span,
    ) -> Self {
        Self {
            number,
            node,
            fence,
            state: JobState::Assigned,
            reason: None,
            message: Text::default(),
            preparing: Text::default(),
            tariff: tariff.clone(),
            reservation: reservation.clone(),
            run_limit,
            assigned_at: event.at,
            started_at: None,
            ended_at: None,
            reported: None,
            stored: OutputLengths::default(),
        }
    }
}

impl Job {
    /// As it is accepted.
    pub(super) fn new(id: JobId, account: AccountId, spec: &JobSpec, number: u64, at: Timestamp) -> Self {
        Self {
            id,
            account,
            name: spec.name.clone(),
            adapter: spec.requirements.adapter,
            what: what(spec),
            model: spec.requirements.model.clone(),
            labels: spec.labels.clone(),
            time_limit: spec.limits.time_limit,
            attempts_max: spec.limits.attempts_max,
            hold: spec.max_cost,
            number,
            created_at: at,
            attempts: VecDeque::new(),
            cancelling: false,
            message: Text::default(),
            image: None,
            usage: Usage::default(),
            outcome: None,
            settlement: None,
            ended_at: None,
            events: Vec::new(),
            changed_by: number,
            changed: 0,
        }
    }

    pub(super) fn assigned(&mut self, attempt: Attempt) {
        if self.attempts.len() == ATTEMPTS_KEPT {
            self.attempts.pop_front();
        }
        self.attempts.push_back(attempt);
        self.message = Text::default();
    }

    pub(super) fn starting(&mut self, number: u32) {
        if let Some(attempt) = self.attempt_mut(number) {
            attempt.state = JobState::Starting;
        }
    }

    pub(super) fn preparing(&mut self, number: u32, message: Text<256>) {
        if let Some(attempt) = self.attempt_mut(number)
            && matches!(attempt.state, JobState::Assigned | JobState::Starting)
        {
            attempt.preparing = message;
        }
    }

    pub(super) fn started(&mut self, number: u32, at: Timestamp) {
        if let Some(attempt) = self.attempt_mut(number) {
            attempt.state = JobState::Running;
            attempt.preparing = Text::default();
            attempt.started_at = Some(at);
        }
    }

    /// The agent's word is in; the job goes on to be shown as it was until its output is here too.
    pub(super) fn result(&mut self, number: u32, usage: Usage, output: OutputLengths, at: Timestamp) {
        self.usage = usage;
        if let Some(attempt) = self.attempt_mut(number) {
            attempt.reported = Some(output);
            attempt.ended_at = Some(at);
        }
    }

    pub(super) fn attempt_ended(&mut self, number: u32, reason: Reason, message: &Text<512>, at: Timestamp) {
        if let Some(attempt) = self.attempt_mut(number) {
            attempt.state = JobState::Failed;
            attempt.reason = Some(reason);
            attempt.message = message.clone();
            attempt.ended_at.get_or_insert(at);
        }
        let why = if message.is_empty() { String::new() } else { format!(": {}", message.as_str()) };
        self.message = Text::cut(format!("attempt {number} ended ({reason}){why}; it waits for a node again"));
    }

    pub(super) fn finished(&mut self, number: Option<u32>, outcome: &Outcome, settlement: &Settlement, at: Timestamp) {
        if let Some(attempt) = number.and_then(|number| self.attempt_mut(number)) {
            attempt.state = outcome.state;
            attempt.reason = Some(outcome.reason);
            attempt.message = outcome.message.clone();
            attempt.ended_at.get_or_insert(at);
            attempt.reported = Some(outcome.output);
        }
        self.usage = outcome.usage;
        self.outcome = Some(outcome.clone());
        self.settlement = Some(settlement.clone());
        self.ended_at = Some(at);
    }

    /// Lengths on disk only grow; what a report said before stays.
    pub(super) fn output_grew(&mut self, number: u32, stored: OutputLengths) {
        if let Some(attempt) = self.attempt_mut(number)
            && attempt.ended_at.is_none()
        {
            attempt.stored = stored;
        }
    }

    fn attempt_mut(&mut self, number: u32) -> Option<&mut Attempt> {
        self.attempts.iter_mut().rev().find(|attempt| attempt.number == number)
    }

    /// The attempt that holds something on its node.
    pub(super) fn live_attempt(&self) -> Option<&Attempt> {
        self.attempts.back().filter(|attempt| {
            matches!(attempt.state, JobState::Assigned | JobState::Starting | JobState::Running)
                && self.outcome.is_none()
        })
    }

    /// As [`super::known::Known::state`].
    pub(super) fn state(&self, model: &Model) -> JobState {
        self.state_if(|node| model.is_silent(node))
    }

    /// The state by the journal alone, which events tell of: the same whenever they are told.
    pub(super) fn recorded_state(&self, model: &Model) -> JobState {
        self.state_if(|node| model.is_lost(node))
    }

    fn state_if(&self, unheard: impl Fn(NodeId) -> bool) -> JobState {
        if let Some(outcome) = &self.outcome {
            return outcome.state;
        }
        match self.live_attempt() {
            _ if self.cancelling => JobState::Cancelling,
            Some(attempt) if unheard(attempt.node) => JobState::Unreachable,
            Some(attempt) => attempt.state,
            None => JobState::Queued,
        }
    }

    /// Whether its own code runs, or may run, at a price.
    pub(super) fn is_billed(&self) -> bool {
        self.live_attempt().is_some_and(|attempt| attempt.state == JobState::Running)
    }

    /// What it costs per hour on its node.
    pub(super) fn price_per_hour(&self) -> Option<Micro> {
        self.attempts.back().map(|attempt| meter::price_per_hour(&attempt.tariff, &attempt.reservation))
    }

    /// What it would cost if it ended now, never more than is held; what it did cost if it has ended.
    fn cost(&self, now: Timestamp) -> Micro {
        if let Some(settlement) = &self.settlement {
            return settlement.gross;
        }
        let Some(attempt) = self.live_attempt() else { return Micro::ZERO };
        let Some(started) = attempt.started_at else { return Micro::ZERO };
        let ran = attempt.ended_at.unwrap_or(now).since(started).min(attempt.run_limit);
        meter::charge(&attempt.tariff, &attempt.reservation, &Usage { ran, ..Usage::default() }, self.hold)
    }

    /// As [`super::known::Known::view`].
    pub(super) fn view(&self, model: &Model, now: Timestamp) -> JobView {
        let newest = self.attempts.back();
        let message = match &self.outcome {
            Some(outcome) => outcome.message.as_str(),
            None => self.message.as_str(),
        };
        JobView {
            id: self.id,
            name: self.name.clone(),
            account: self.account.clone(),
            adapter: self.adapter,
            what: self.what.clone(),
            state: self.state(model),
            reason: self.outcome.as_ref().map(|outcome| outcome.reason),
            exit: self.outcome.as_ref().map(|outcome| outcome.exit),
            message: Sentence::cut(message),
            node: newest.and_then(|attempt| model.node_name(attempt.node)).cloned(),
            attempts: List::cut(
                self.attempts.iter().filter_map(|attempt| attempt_view(attempt, self, model)).collect(),
            ),
            hold: self.hold,
            cost: self.cost(now),
            fee: self.settlement.as_ref().map_or(Micro::ZERO, |settlement| settlement.fee),
            refund: self.settlement.as_ref().map_or(Micro::ZERO, |settlement| settlement.refund),
            price_per_hour: self.price_per_hour(),
            labels: self.labels.clone(),
            run_limit: newest.map(|attempt| attempt.run_limit),
            time_limit: self.time_limit,
            attempts_max: self.attempts_max,
            usage: self.usage,
            output: match (&self.outcome, newest) {
                (Some(outcome), _) => outcome.output,
                (None, Some(attempt)) => attempt.reported.unwrap_or(attempt.stored),
                (None, None) => OutputLengths::default(),
            },
            preparing: self.live_attempt().map(|attempt| attempt.preparing.clone()).unwrap_or_default(),
            image: self.image.clone(),
            model: self.model.clone(),
            gpus: self.live_attempt().map(|attempt| attempt.reservation.gpus.clone()).unwrap_or_default(),
            created_at: model.wall(self.created_at),
            started_at: newest.and_then(|attempt| attempt.started_at).map(|at| model.wall(at)),
            ended_at: self.ended_at.map(|at| model.wall(at)),
        }
    }

    /// As [`super::known::Known::weight`].
    pub(super) fn weight(&self) -> usize {
        let labels: usize = self.labels.iter().map(|(key, value)| key.len() + value.len() + 8).sum();
        let attempts: usize = self.attempts.iter().map(|attempt| attempt.message.len() + 128).sum();
        let model = self.model.as_ref().map_or(0, |model| model.len());
        let texts = self.name.len() + self.what.len() + model + 512;
        // With a pinned image, the words of a preparation and its GPUs.
        let more = self.attempts.back().map_or(0, |attempt| attempt.reservation.gpus.len() * 136 + 256) + 640;
        640 + more + labels + attempts + texts
    }
}

/// As [`super::known::Known::weight`], of a view.
pub(super) fn weight_of(view: &JobView) -> usize {
    let labels: usize = view.labels.iter().map(|(key, value)| key.len() + value.len() + 8).sum();
    let attempts: usize = view.attempts.iter().map(|attempt| attempt.message.len() + 128).sum();
    let model = view.model.as_ref().map_or(0, |model| model.len());
    1_792 + labels + attempts + view.name.len() + view.what.len() + model + view.gpus.len() * 136 + 256
}

fn attempt_view(attempt: &Attempt, job: &Job, model: &Model) -> Option<AttemptView> {
    let live = job.live_attempt().is_some_and(|live| live.number == attempt.number);
    Some(AttemptView {
        number: attempt.number,
        node: model.node_name(attempt.node)?.clone(),
        fence: attempt.fence,
        state: if live { job.state(model) } else { attempt.state },
        reason: attempt.reason,
        message: Sentence::cut(attempt.message.as_str()),
        assigned_at: model.wall(attempt.assigned_at),
        started_at: attempt.started_at.map(|at| model.wall(at)),
        ended_at: attempt.ended_at.map(|at| model.wall(at)),
    })
}

/// What runs, in one line.
fn what(spec: &JobSpec) -> Text<256> {
    match &spec.body {
        TaskBody::Inline(Task::Wasm(task)) => line_of(&task.module_name, task.args.iter()),
        TaskBody::Inline(Task::Docker(task)) => {
            let words = task.entrypoint.iter().flat_map(|words| words.iter()).chain(task.command.iter());
            line_of(&task.image, words)
        }
        TaskBody::Inline(Task::Llm(task)) => {
            let what = match task.kind {
                LlmKind::Generate => "generate",
                LlmKind::Chat => "chat",
                LlmKind::Embed => "embed",
            };
            Text::cut(format!("{} {what}", task.model.as_str()))
        }
        // Long arguments or a large environment were moved out of the journal; the name is what is left.
        TaskBody::Blob { adapter, .. } => Text::cut(format!("{adapter} task")),
    }
}

/// A name and its arguments, as much as fits.
fn line_of<'a>(name: &str, words: impl Iterator<Item = &'a Text<4096>>) -> Text<256> {
    let mut line = name.to_owned();
    for word in words {
        line.push(' ');
        line.push_str(word);
        if line.len() > 256 {
            break;
        }
    }
    Text::cut(line)
}

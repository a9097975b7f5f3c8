//! Events in words.

use modchain_core::{Event, EventBody};
use modchain_types::{AccountId, AttemptId, JobId, JobState, NodeId, Text};
use modchain_wire::view::{EventKind, EventView};

use super::job::Job;
use super::model::Model;

/// The job that an event is about.
pub(super) fn job_of(body: &EventBody) -> Option<JobId> {
    match body {
        EventBody::JobQueued { job, .. }
        | EventBody::CancelRequested { job, .. }
        | EventBody::InputFailed { job, .. }
        | EventBody::JobFinished { job, .. } => Some(*job),
        EventBody::AttemptAssigned { attempt, .. }
        | EventBody::AttemptStarting { attempt }
        | EventBody::AttemptStarted { attempt }
        | EventBody::ResultRecorded { attempt, .. }
        | EventBody::AttemptEnded { attempt, .. } => Some(attempt.job),
        EventBody::EngineStarted { .. }
        | EventBody::IdentityAdded { .. }
        | EventBody::Deposited { .. }
        | EventBody::NodeConnected { .. }
        | EventBody::NodeLost { .. } => None,
    }
}

/// Whose event it is; `None` for those that everybody may see.
pub(super) fn owner(model: &Model, body: &EventBody, job: Option<&Job>) -> Option<AccountId> {
    match body {
        EventBody::EngineStarted { .. } => None,
        EventBody::IdentityAdded { identity } => Some(identity.account.clone()),
        EventBody::Deposited { account, .. } => Some(account.clone()),
        EventBody::NodeConnected { node, .. } | EventBody::NodeLost { node } => {
            model.nodes.get(node).map(|node| node.identity.account.clone())
        }
        EventBody::JobQueued { .. }
        | EventBody::CancelRequested { .. }
        | EventBody::InputFailed { .. }
        | EventBody::JobFinished { .. }
        | EventBody::AttemptAssigned { .. }
        | EventBody::AttemptStarting { .. }
        | EventBody::AttemptStarted { .. }
        | EventBody::ResultRecorded { .. }
        | EventBody::AttemptEnded { .. } => job.map(|job| job.account.clone()),
    }
}

/// The event as people see it; `before` and `after` are the states of its job.
pub(super) fn event(
    model: &Model,
    event: &Event,
    job: Option<&Job>,
    before: Option<JobState>,
    after: Option<JobState>,
) -> EventView {
    let mut view = EventView {
        number: event.number,
        at: model.wall(event.at),
        kind: EventKind::Job,
        job: job_of(&event.body),
        attempt: None,
        node: None,
        account: job.map(|job| job.account.clone()),
        from: None,
        to: None,
        reason: None,
        text: Text::default(),
    };
    if before != after {
        (view.from, view.to) = (before, after);
    }
    let about_node = |view: &mut EventView, node: NodeId| view.node = model.node_name(node).cloned();
    let about_attempt = |view: &mut EventView, attempt: AttemptId| {
        view.attempt = Some(attempt);
        let known = job.and_then(|job| job.attempts.iter().rev().find(|known| known.number == attempt.number));
        view.node = known.and_then(|known| model.node_name(known.node)).cloned();
    };
    let name = |view: &EventView| view.node.as_ref().map_or("a node".to_owned(), ToString::to_string);
    let text = match &event.body {
        EventBody::EngineStarted { version, .. } => {
            view.kind = EventKind::System;
            format!("orchestrator {version} started")
        }
        EventBody::IdentityAdded { identity } => {
            view.kind = EventKind::Account;
            view.account = Some(identity.account.clone());
            format!("{} {} added, account {}", identity.role, identity.name, identity.account)
        }
        EventBody::Deposited { provider, account, amount, why, .. } => {
            view.kind = EventKind::Account;
            view.account = Some(account.clone());
            let why = if why.is_empty() { String::new() } else { format!(": {}", why.as_str()) };
            format!("{amount} {} by {provider}{why}", model.asset)
        }
        EventBody::JobQueued { spec, .. } => format!("submitted, {} {} held", spec.max_cost, model.asset),
        EventBody::AttemptAssigned { attempt, node, .. } => {
            about_attempt(&mut view, *attempt);
            about_node(&mut view, *node);
            format!("attempt {} assigned to {}", attempt.number, name(&view))
        }
        EventBody::AttemptStarting { attempt } => {
            about_attempt(&mut view, *attempt);
            format!("starting on {}", name(&view))
        }
        EventBody::AttemptStarted { attempt } => {
            about_attempt(&mut view, *attempt);
            format!("running on {}", name(&view))
        }
        EventBody::CancelRequested { why, .. } => {
            if why.is_empty() {
                "told to stop".to_owned()
            } else {
                format!("told to stop: {}", why.as_str())
            }
        }
        EventBody::InputFailed { message, .. } => format!("told to stop: {}", message.as_str()),
        EventBody::ResultRecorded { attempt, .. } => {
            about_attempt(&mut view, *attempt);
            "ended on its node; waiting for the last of its output".to_owned()
        }
        EventBody::AttemptEnded { attempt, reason, message } => {
            about_attempt(&mut view, *attempt);
            view.reason = Some(*reason);
            let why = if message.is_empty() { String::new() } else { format!(": {}", message.as_str()) };
            format!("attempt {} ended unpaid ({reason}){why}", attempt.number)
        }
        EventBody::JobFinished { job, attempt, outcome, settlement } => {
            if let Some(number) = attempt {
                about_attempt(&mut view, AttemptId { job: *job, number: *number });
            }
            view.reason = Some(outcome.reason);
            format!(
                "{} ({}, exit {}), cost {}, {} came back",
                outcome.state, outcome.reason, outcome.exit.code, settlement.gross, settlement.refund
            )
        }
        EventBody::NodeConnected { node, .. } => {
            view.kind = EventKind::Node;
            about_node(&mut view, *node);
            format!("{} connected", name(&view))
        }
        EventBody::NodeLost { node } => {
            view.kind = EventKind::Node;
            about_node(&mut view, *node);
            format!("{} is lost: silent for too long", name(&view))
        }
    };
    view.text = Text::cut(text);
    view
}

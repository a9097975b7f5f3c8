//! Events in words.

use modchain_core::membership::TokenEnd;
use modchain_core::{Actor, Event, EventBody};
use modchain_types::{AccountId, AttemptId, IdentityId, JobId, JobState, NodeId, NodeWish, Role, Text};
use modchain_wire::view::{EventKind, EventView};

use super::job::Job;
use super::model::Model;
use super::query::Sight;

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
        | EventBody::ImagePinned { attempt, .. }
        | EventBody::ResultRecorded { attempt, .. }
        | EventBody::AttemptEnded { attempt, .. } => Some(attempt.job),
        EventBody::EngineStarted { .. }
        | EventBody::RestoreAccepted { .. }
        | EventBody::JobsForgotten { .. }
        | EventBody::IdentityAdded { .. }
        | EventBody::Deposited { .. }
        | EventBody::NodeConnected { .. }
        | EventBody::NodeLost { .. }
        | EventBody::NodeSet { .. }
        | EventBody::TokenCreated { .. }
        | EventBody::MemberJoined { .. }
        | EventBody::TokenEnded { .. }
        | EventBody::TokenAlarm { .. }
        | EventBody::CertificateIssued { .. }
        | EventBody::CertificateUsed { .. }
        | EventBody::CertificateRetired { .. }
        | EventBody::IdentityRevoked { .. } => None,
    }
}

/// Who may see an event, besides operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Audience {
    /// Everybody.
    All,
    /// Whoever holds this account.
    Account(AccountId),
    /// Nobody else.
    Operators,
}

impl Audience {
    /// As the view keeps it.
    pub(super) fn to_row(&self) -> Option<Text<32>> {
        match self {
            Self::All => Some(Text::default()),
            Self::Account(account) => Some(Text::cut(account.as_str())),
            Self::Operators => None,
        }
    }

    /// From what the view keeps.
    pub(super) fn from_row(row: Option<&Text<32>>) -> Self {
        match row {
            None => Self::Operators,
            Some(account) if account.is_empty() => Self::All,
            Some(account) => account.parse().map_or(Self::Operators, Self::Account),
        }
    }

    /// Whether this actor may see the event.
    pub(super) fn has(&self, actor: &Actor) -> bool {
        match self {
            Self::All => true,
            Self::Account(account) => actor.may_touch(account),
            Self::Operators => actor.may_touch_all(),
        }
    }
}

/// Whose event it is.
pub(super) fn audience(model: &Model, body: &EventBody, job: Option<&Job>) -> Audience {
    let of = |account: Option<&AccountId>| account.map_or(Audience::Operators, |a| Audience::Account(a.clone()));
    let member = |id: &IdentityId| of(model.identities.get(id).map(|identity| &identity.account));
    match body {
        EventBody::EngineStarted { .. } | EventBody::RestoreAccepted { .. } => Audience::All,
        EventBody::JobsForgotten { .. } => Audience::Operators,
        EventBody::IdentityAdded { identity } | EventBody::MemberJoined { identity, .. } => of(Some(&identity.account)),
        EventBody::Deposited { account, .. } => of(Some(account)),
        EventBody::NodeConnected { node, .. } | EventBody::NodeLost { node } | EventBody::NodeSet { node, .. } => {
            of(model.nodes.get(node).map(|node| &node.identity.account))
        }
        EventBody::TokenCreated { token, .. }
        | EventBody::TokenEnded { token, .. }
        | EventBody::TokenAlarm { token, .. } => {
            let maker = model.token_makers.get(token).and_then(|by| model.identities.get(by));
            of(maker.map(|maker| &maker.account))
        }
        EventBody::CertificateIssued { identity, .. }
        | EventBody::CertificateUsed { identity, .. }
        | EventBody::CertificateRetired { identity, .. }
        | EventBody::IdentityRevoked { identity, .. } => member(identity),
        EventBody::JobQueued { .. }
        | EventBody::CancelRequested { .. }
        | EventBody::InputFailed { .. }
        | EventBody::JobFinished { .. }
        | EventBody::AttemptAssigned { .. }
        | EventBody::AttemptStarting { .. }
        | EventBody::AttemptStarted { .. }
        | EventBody::ImagePinned { .. }
        | EventBody::ResultRecorded { .. }
        | EventBody::AttemptEnded { .. } => of(job.map(|job| &job.account)),
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
    // As people name it; an event about a node is also found by its name.
    let who = |view: &mut EventView, id: IdentityId| match model.identities.get(&id) {
        Some(identity) => {
            view.account = Some(identity.account.clone());
            if identity.role == Role::Node {
                view.node = Some(identity.name.clone());
            }
            format!("{}/{}", identity.role, identity.name)
        }
        None => id.to_string(),
    };
    let name = |view: &EventView| view.node.as_ref().map_or("a node".to_owned(), ToString::to_string);
    let text = match &event.body {
        EventBody::EngineStarted { version, .. } => {
            view.kind = EventKind::System;
            format!("orchestrator {version} started")
        }
        EventBody::RestoreAccepted { journal, .. } => {
            view.kind = EventKind::System;
            format!("the operator went on with an old copy, as journal {journal}: what happened after the copy is lost")
        }
        EventBody::JobsForgotten { jobs } => {
            view.kind = EventKind::System;
            match jobs.len() {
                1 => "the record of one ended job is no longer kept".to_owned(),
                several => format!("the records of {several} ended jobs are no longer kept"),
            }
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
        EventBody::ImagePinned { attempt, image } => {
            about_attempt(&mut view, *attempt);
            format!("its image is {}", image.as_str())
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
        EventBody::NodeSet { node, by, wish, why } => {
            view.kind = EventKind::Node;
            about_node(&mut view, *node);
            let by = model.identities.get(by).map_or(String::new(), |by| format!(" by {}", by.name));
            let why = if why.is_empty() { String::new() } else { format!(": {}", why.as_str()) };
            let what = match wish {
                NodeWish::Open => "may take new jobs again".to_owned(),
                NodeWish::Cordon => "was cordoned".to_owned(),
                NodeWish::Drain { within: None } => "is being drained".to_owned(),
                NodeWish::Drain { within: Some(within) } => format!("is being drained within {within}"),
            };
            format!("{} {what}{by}{why}", name(&view))
        }
        EventBody::TokenCreated { token, grant, by, .. } => {
            view.kind = EventKind::Account;
            let by = by.map_or("init".to_owned(), |by| who(&mut view, by));
            let name = grant.name.as_ref().map_or(String::new(), |name| format!(" {name}"));
            format!("token {token} for the {}{name} made by {by}", grant.role)
        }
        EventBody::MemberJoined { token, identity, from, .. } => {
            view.kind = EventKind::Account;
            let who = who(&mut view, identity.id);
            format!("{who} joined with token {token} from {}, account {}", from.as_str(), identity.account)
        }
        EventBody::TokenEnded { token, end } => {
            view.kind = EventKind::Account;
            match end {
                TokenEnd::Spent => format!("token {token} is spent"),
                TokenEnd::Expired => format!("token {token} expired unused"),
                TokenEnd::Revoked => format!("token {token} was revoked"),
                TokenEnd::Misused => format!("token {token} was revoked: too many wrong secrets were tried"),
            }
        }
        EventBody::TokenAlarm { token, from } => {
            view.kind = EventKind::Account;
            format!("ALARM: token {token} came a second time with another key, from {}", from.as_str())
        }
        EventBody::CertificateIssued { identity, certificate, .. } => {
            view.kind = EventKind::Account;
            format!("{} got the certificate {}", who(&mut view, *identity), certificate.serial)
        }
        EventBody::CertificateUsed { identity, serial } => {
            view.kind = EventKind::Account;
            format!("{} uses the certificate {serial}", who(&mut view, *identity))
        }
        EventBody::CertificateRetired { identity, serial } => {
            view.kind = EventKind::Account;
            format!("{}'s older certificate {serial} is no longer accepted", who(&mut view, *identity))
        }
        EventBody::IdentityRevoked { identity, by, why } => {
            view.kind = EventKind::Account;
            let by = by.and_then(|by| model.identities.get(&by)).map_or(String::new(), |by| format!(" by {}", by.name));
            let why = if why.is_empty() { String::new() } else { format!(": {}", why.as_str()) };
            format!("{} was revoked{by}{why}", who(&mut view, *identity))
        }
    };
    view.text = Text::cut(text);
    view
}

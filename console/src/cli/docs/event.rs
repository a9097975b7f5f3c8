//! Documents of what happened.

use modchain_wire::view::EventView;
use serde::Serialize;

use super::time;

/// `modchain.event/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct EventDoc {
    schema: &'static str,
    seq: u64,
    at: String,
    kind: &'static str,
    job: Option<String>,
    attempt: Option<u32>,
    node: Option<String>,
    account: Option<String>,
    from: Option<&'static str>,
    to: Option<&'static str>,
    reason: Option<&'static str>,
    text: String,
}

/// The document of one event.
pub(crate) fn event(view: &EventView) -> EventDoc {
    EventDoc {
        schema: "modchain.event/v1",
        seq: view.number,
        at: time(view.at),
        kind: view.kind.word(),
        job: view.job.map(|job| job.to_string()),
        attempt: view.attempt.map(|attempt| attempt.number),
        node: view.node.as_ref().map(ToString::to_string),
        account: view.account.as_ref().map(ToString::to_string),
        from: view.from.map(|state| state.word()),
        to: view.to.map(|state| state.word()),
        reason: view.reason.map(|reason| reason.word()),
        text: view.text.as_str().to_owned(),
    }
}

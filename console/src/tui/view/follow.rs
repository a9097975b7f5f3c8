//! What is to be asked for because of what is on the screen: output of the job that is looked at, the ledger when the balance has
//! changed, history of the node that is looked at. Everything else is pushed.

use std::collections::BTreeSet;

use modchain_types::{JobId, Micro, Name};
use modchain_wire::console::{IdentitiesQuery, LedgerQuery, NodeQuery, TokensQuery};

use super::super::app::{App, Place, View};
use super::super::msg::Effect;
use super::super::table::{RowId, TableId};
use super::super::update::quietly;
use crate::client::live::{LinkState, ToLive};

/// Ledger entries asked for at once: a day of a busy account.
const LEDGER_PAGE: u32 = 1_000;
/// Members asked for at once.
const MEMBERS_PAGE: u32 = 500;

/// What was asked for already.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// The account as it was when the ledger was asked for.
    ledger: Option<(Micro, Micro, Micro)>,
    /// The node whose history was asked for.
    node: Option<Name>,
    /// Whether members and tokens were asked for, and as of which event.
    access: Option<u64>,
}

/// What follows from the screen as it is now.
pub(crate) fn wants(app: &mut App) -> Vec<Effect> {
    let mut effects = outputs(app);
    if app.mirror.link != LinkState::Live || app.mirror.mark.is_none() || app.caps.replay {
        return effects;
    }
    effects.extend(ledger(app));
    effects.extend(history(app));
    effects.extend(access(app));
    effects
}

/// The output that is looked at is followed; what is no longer looked at is given up.
fn outputs(app: &mut App) -> Vec<Effect> {
    let wanted: BTreeSet<JobId> = super::jobs::output_shown(app).into_iter().collect();
    let mut effects = Vec::new();
    for job in app.ui.followed.difference(&wanted) {
        effects.push(Effect::Send(ToLive::Unfollow(*job)));
    }
    for job in wanted.difference(&app.ui.followed) {
        let from = app.mirror.logs.get(job).and_then(|log| log.cursor());
        let over = app.mirror.logs.get(job).is_some_and(|log| log.end.is_some());
        if !over {
            effects.push(Effect::Send(ToLive::Follow(*job, from)));
        }
    }
    app.ui.followed = wanted;
    effects
}

/// The balance is pushed; the entries behind a change are asked for, once for each change.
fn ledger(app: &mut App) -> Option<Effect> {
    let account = app.mirror.account.as_ref()?;
    let now = (account.available, account.held, account.earned);
    if app.ui.asked.ledger == Some(now) {
        return None;
    }
    app.ui.asked.ledger = Some(now);
    // From the last entry that is known on; what is known is not taken twice.
    let since = app.mirror.ledger.back().map(|entry| entry.at);
    let query = LedgerQuery { account: None, since, kind: None, job: None, limit: LEDGER_PAGE, before: None };
    Some(quietly(app, query))
}

/// Five minutes of the GPUs of the node that is looked at.
fn history(app: &mut App) -> Option<Effect> {
    let wanted = match app.place() {
        Place::Node(node) => Some(node),
        Place::Nodes => match &app.ui.table(TableId::Nodes).selected {
            Some(RowId::Node(node)) => Some(node.clone()),
            _ => None,
        },
        _ => None,
    }?;
    let has_gpus = app.mirror.nodes.get(&wanted).is_some_and(|node| !node.gpus.is_empty());
    if !has_gpus || app.ui.asked.node.as_ref() == Some(&wanted) {
        return None;
    }
    app.ui.asked.node = Some(wanted.clone());
    Some(quietly(app, NodeQuery { node: wanted }))
}

/// Members and tokens, when they are looked at and whenever something has happened since.
fn access(app: &mut App) -> Vec<Effect> {
    let upto = app.mirror.mark.map(|mark| mark.upto);
    if app.ui.view != View::Access || app.ui.asked.access == upto {
        return Vec::new();
    }
    app.ui.asked.access = upto;
    let members = IdentitiesQuery { role: None, revoked: true, limit: MEMBERS_PAGE, after: None };
    vec![quietly(app, members), quietly(app, TokensQuery { ended: true })]
}

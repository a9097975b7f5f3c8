//! What is to be asked for because of what is on the screen: output of the job that is looked at, the ledger when the balance has
//! changed, history of the node that is looked at, older jobs at the end of the list. Everything else is pushed.
//!
//! A selection that runs over a thousand rows asks for nothing: what belongs to a row is asked for when the selection rests on it.
//! What changes many times a second is asked for once a second.

use std::collections::{BTreeMap, BTreeSet};

use modchain_types::{JobId, List, Micro, Name, Text, WallTime};
use modchain_wire::console::{IdentitiesQuery, JobQuery, JobsQuery, LedgerQuery, NodeQuery, TokensQuery};
use modchain_wire::{FromConsole, ToConsole};

use super::super::app::{App, Place, View};
use super::super::msg::Effect;
use super::super::table::{RowId, TableId};
use super::super::update::quietly;
use super::{job, nodes};
use crate::client::live::ToLive;
use crate::exit::Failure;

/// Ledger entries asked for at once: a day of a busy account.
const LEDGER_PAGE: u32 = 1_000;
/// Members asked for at once.
const MEMBERS_PAGE: u32 = 500;
/// Older jobs asked for at once.
const JOBS_PAGE: u32 = 200;
/// Ended jobs that a snapshot has; if it has fewer, there are no more.
const SNAPSHOT_ENDED: usize = 200;
/// How long the selection rests on a row before what belongs to it is asked for.
const REST_MS: u64 = 150;
/// What changes again and again is asked for no more often than this.
const AGAIN_MS: u64 = 1_000;

/// What was asked for already.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// The row that belongs to what is looked at, and since when.
    rest: Option<(RowId, u64)>,
    /// The account as it was when the ledger was asked for, and when that was.
    ledger: Option<((Micro, Micro, Micro), u64)>,
    /// Nodes whose history was asked for over this connection.
    nodes: BTreeSet<Name>,
    /// The one of them that was asked for last.
    node: Option<Name>,
    /// As of which event members and tokens were asked for, and when that was.
    access: Option<(u64, u64)>,
    /// Jobs that are looked at and were not known: what became of asking for them.
    jobs: BTreeMap<JobId, Found>,
    /// How far back the list of jobs goes.
    older: Older,
    /// The last key that had older jobs asked for.
    older_key: Option<u64>,
    /// The job whose explanation opens a window when it comes.
    pub(super) explained: Option<JobId>,
}

/// What became of asking for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// No answer yet.
    Asked,
    /// It is not to be had.
    Refused(String),
}

/// How far back the list of jobs goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Older {
    /// As far as the snapshot.
    #[default]
    Snapshot,
    /// A page is on its way.
    Asked,
    /// To this job, and there are more.
    Until(JobId),
    /// To the first one.
    All,
}

/// What follows from the screen as it is now.
pub(crate) fn wants(app: &mut App) -> Vec<Effect> {
    settle(app);
    let mut effects = outputs(app);
    if !app.mirror.link.is_connected() {
        // What happened meanwhile is missing in what was asked for over another connection.
        app.ui.asked.nodes.clear();
        app.ui.asked.node = None;
        app.ui.asked.jobs.clear();
        app.ui.asked.older = Older::Snapshot;
        return effects;
    }
    if app.mirror.mark.is_none() || app.caps.replay {
        return effects;
    }
    effects.extend(ledger(app));
    effects.extend(history(app));
    effects.extend(access(app));
    effects.extend(unknown(app));
    effects.extend(older(app));
    effects
}

/// When something is asked for although nothing happens, in milliseconds since the start.
pub(crate) fn deadline(app: &App) -> Option<u64> {
    let asks = app.mirror.link.is_connected() && app.mirror.mark.is_some() && !app.caps.replay;
    let (output, history) = (output_wanted(app).is_some(), asks && history_wanted(app).is_some());
    let rest = app.ui.asked.rest.as_ref().map(|(_, since)| since + REST_MS).filter(|_| output || history);
    let access = app.ui.asked.access.filter(|_| asks && access_wanted(app)).map(|(_, at)| at + AGAIN_MS);
    let ledger = app.ui.asked.ledger.filter(|_| asks && ledger_wanted(app)).map(|(_, at)| at + AGAIN_MS);
    [rest, access, ledger].into_iter().flatten().min()
}

/// Notes since when the selection is where it is. What was opened was meant: nothing waits there.
fn settle(app: &mut App) {
    let now = app.now.ms;
    let job = super::jobs::output_shown(app).map(RowId::Job);
    let Some(row) = job.or_else(|| nodes::shown(app).map(RowId::Node)) else {
        app.ui.asked.rest = None;
        return;
    };
    let at_once = matches!(app.place(), Place::Output(_) | Place::Node(_));
    let since = match &app.ui.asked.rest {
        Some((resting, since)) if *resting == row => *since,
        Some(_) | None => now,
    };
    let since = if at_once { since.min(now.saturating_sub(REST_MS)) } else { since };
    app.ui.asked.rest = Some((row, since));
}

/// Whether the selection rests.
fn rests(app: &App) -> bool {
    app.ui.asked.rest.as_ref().is_some_and(|(_, since)| app.now.ms >= since + REST_MS)
}

/// The output that is looked at and neither followed nor all here. One that was refused is asked for again only by who opens it.
fn output_wanted(app: &App) -> Option<JobId> {
    let job = super::jobs::output_shown(app)?;
    let opened = matches!(app.place(), Place::Output(_));
    let over = app.mirror.logs.get(&job).is_some_and(|log| log.end.is_some() || (log.refused.is_some() && !opened));
    (!over && !app.ui.followed.contains(&job)).then_some(job)
}

/// The output that is looked at is followed; what is no longer looked at is given up.
fn outputs(app: &mut App) -> Vec<Effect> {
    let looked_at = super::jobs::output_shown(app);
    let left: Vec<JobId> = app.ui.followed.iter().copied().filter(|job| Some(*job) != looked_at).collect();
    let mut effects = Vec::new();
    for job in left {
        app.ui.followed.remove(&job);
        effects.push(Effect::Send(ToLive::Unfollow(job)));
    }
    if let Some(job) = output_wanted(app).filter(|_| rests(app)) {
        let from = app.mirror.logs.get(&job).and_then(|log| log.cursor());
        app.ui.followed.insert(job);
        effects.push(Effect::Send(ToLive::Follow(job, from)));
    }
    effects
}

/// What there is to see of the account.
fn balance(app: &App) -> Option<(Micro, Micro, Micro)> {
    app.mirror.account.as_ref().map(|account| (account.available, account.held, account.earned))
}

fn ledger_wanted(app: &App) -> bool {
    balance(app).is_some_and(|now| app.ui.asked.ledger.is_none_or(|(asked, _)| asked != now))
}

/// The balance is pushed; the entries behind a change are asked for, once for all changes of a second.
fn ledger(app: &mut App) -> Option<Effect> {
    let now = app.now.ms;
    let balance = balance(app).filter(|_| ledger_wanted(app))?;
    if app.ui.asked.ledger.is_some_and(|(_, at)| now < at + AGAIN_MS) {
        return None;
    }
    app.ui.asked.ledger = Some((balance, now));
    // From the last entry that is known on; what is known is not taken twice.
    let since = app.mirror.ledger.back().map(|entry| entry.at);
    let query = LedgerQuery { account: None, since, kind: None, job: None, limit: LEDGER_PAGE, before: None };
    Some(quietly(app, query))
}

/// The node that is looked at, if its history was not asked for, or is forgotten again.
fn history_wanted(app: &App) -> Option<Name> {
    let node = nodes::shown(app)?;
    let has_gpus = app.mirror.nodes.get(&node).is_some_and(|node| !node.gpus.is_empty());
    let asked = app.ui.asked.nodes.contains(&node);
    let known = app.mirror.histories.contains_key(&node) || app.ui.asked.node.as_ref() == Some(&node);
    (has_gpus && !(asked && known)).then_some(node)
}

/// Five minutes of the GPUs of the node that is looked at.
fn history(app: &mut App) -> Option<Effect> {
    let node = history_wanted(app).filter(|_| rests(app))?;
    app.ui.asked.nodes.insert(node.clone());
    app.ui.asked.node = Some(node.clone());
    Some(quietly(app, NodeQuery { node }))
}

fn access_wanted(app: &App) -> bool {
    let upto = app.mirror.mark.map(|mark| mark.upto);
    app.ui.view == View::Access && app.ui.asked.access.map(|(asked, _)| asked) != upto
}

/// Members and tokens, when they are looked at and when something has happened since, once a second.
fn access(app: &mut App) -> Vec<Effect> {
    let now = app.now.ms;
    let Some(mark) = app.mirror.mark.filter(|_| access_wanted(app)) else { return Vec::new() };
    if app.ui.asked.access.is_some_and(|(_, at)| now < at + AGAIN_MS) {
        return Vec::new();
    }
    app.ui.asked.access = Some((mark.upto, now));
    let members = IdentitiesQuery { role: None, revoked: true, limit: MEMBERS_PAGE, after: None };
    vec![quietly(app, members), quietly(app, TokensQuery { ended: true })]
}

/// A job that is looked at and not known: an old one, that an event or an entry of the ledger speaks of.
fn unknown(app: &mut App) -> Option<Effect> {
    let (Place::Job(id) | Place::Output(id)) = app.place() else { return None };
    if app.mirror.jobs.contains_key(&id) || app.ui.asked.jobs.contains_key(&id) {
        return None;
    }
    app.ui.asked.jobs.insert(id, Found::Asked);
    Some(quietly(app, JobQuery { job: Text::cut(id.to_string()) }))
}

/// Why a job that is looked at is not known, if that is known.
pub(crate) fn refused(app: &App, id: JobId) -> Option<&str> {
    match app.ui.asked.jobs.get(&id) {
        Some(Found::Refused(why)) => Some(why),
        Some(Found::Asked) | None => None,
    }
}

/// Older jobs, when a key has brought the selection to the end of the list: one page for each key.
fn older(app: &mut App) -> Option<Effect> {
    let table = app.ui.table(TableId::Jobs);
    let at_end = !table.order.is_empty() && table.index() + 1 == table.order.len();
    let looked_at = app.place() == Place::Jobs && app.focus() == 0 && app.ui.ended && app.ui.paused.is_none();
    if !at_end || !looked_at || app.ui.key_ms.is_none() || app.ui.asked.older_key == app.ui.key_ms {
        return None;
    }
    let after = match app.ui.asked.older {
        Older::Asked | Older::All => return None,
        Older::Until(job) => job,
        Older::Snapshot => match end_of_snapshot(app) {
            Some(job) => job,
            None => {
                app.ui.asked.older = Older::All;
                return None;
            }
        },
    };
    app.ui.asked.older_key = app.ui.key_ms;
    app.ui.asked.older = Older::Asked;
    let query = JobsQuery {
        states: List::default(),
        ended: true,
        account: None,
        labels: List::default(),
        prefix: Text::default(),
        since: None,
        limit: JOBS_PAGE,
        after: Some(after),
    };
    Some(quietly(app, query))
}

/// Whether there may be older jobs than those in the list.
pub(crate) fn has_older(app: &App) -> bool {
    match app.ui.asked.older {
        Older::All => false,
        Older::Asked | Older::Until(_) => true,
        Older::Snapshot => !app.caps.replay && app.mirror.ended_count() >= SNAPSHOT_ENDED,
    }
}

/// The oldest job above which nothing can be missing: a snapshot has so many ended jobs, and what ended after it was heard of. `None`
/// if it had fewer: then that were all.
fn end_of_snapshot(app: &App) -> Option<JobId> {
    let ended = app.mirror.jobs.values().filter(|job| job.state.is_ended());
    let mut ended: Vec<(WallTime, JobId)> = ended.map(|job| (job.created_at, job.id)).collect();
    if ended.len() < SNAPSHOT_ENDED {
        return None;
    }
    ended.sort_unstable_by(|one, two| two.cmp(one));
    Some(ended[SNAPSHOT_ENDED - 1].1)
}

/// An answer came to something that may have been asked for here.
pub(crate) fn answered(app: &mut App, asked: &FromConsole, reply: &Result<Box<ToConsole>, Failure>) {
    match (asked, reply.as_ref().map(|reply| &**reply)) {
        (FromConsole::Jobs(query), Ok(ToConsole::Jobs(page))) if query.after.is_some() => {
            app.ui.asked.older = match page.items.last().filter(|_| page.more) {
                Some(job) => Older::Until(job.id),
                None => Older::All,
            };
        }
        (FromConsole::Jobs(query), Err(_)) if app.ui.asked.older == Older::Asked => {
            app.ui.asked.older = query.after.map_or(Older::Snapshot, Older::Until);
        }
        (FromConsole::Job(query), Ok(_)) => {
            if let Ok(id) = query.job.parse() {
                app.ui.asked.jobs.remove(&id);
            }
        }
        (FromConsole::Job(query), Err(failure)) => {
            if let Ok(id) = query.job.parse()
                && let Some(found) = app.ui.asked.jobs.get_mut(&id)
            {
                *found = Found::Refused(failure.said());
            }
        }
        (FromConsole::Explain(_), Ok(ToConsole::Explanation(view))) => job::explained(app, view),
        (FromConsole::Explain(_), Err(_)) => app.ui.asked.explained = None,
        _ => {}
    }
}

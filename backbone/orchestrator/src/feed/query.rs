//! Questions about the model, each answered within what the asker may see.

use std::ops::Bound;

use modchain_core::Actor;
use modchain_core::node::Standing;
use modchain_types::{
    AccountId, JobId, JobState, List, Micro, Name, NodeId, NodeState, Reservation, Text, Timestamp, WallTime,
};
use modchain_wire::console::{JobsPage, JobsQuery, LedgerPage, NodesPage, NodesQuery};
use modchain_wire::view::{
    AccountView, EventKind, EventView, JobView, LedgerKind, NodeHistoryView, NodeView, StatusView,
};

use super::job::{Job, weight_of};
use super::known::Known;
use super::model::{Model, Node};

/// Most jobs or nodes on one page.
const PAGE_ITEMS_MAX: usize = 500;
/// Most ledger entries on one page; one event makes at most four entries of one account, which are never torn apart.
const LEDGER_ITEMS_MAX: usize = 1_000 - 4;
/// Bytes of views on one page: below the cap on its frame, with room for the rest of it.
pub(super) const PAGE_WEIGHT_MAX: usize = 900 * 1024;
/// Candidates named when a name is ambiguous.
const CANDIDATES_SHOWN: usize = 5;
/// Fewest characters of an id that stand for it.
const PREFIX_CHARS_MIN: usize = 3;

/// Why a name for a job does not lead to one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unresolved {
    /// No such job, or none that the asker may see: the two cannot be told apart.
    NotFound,
    /// It fits several; some of them.
    Ambiguous(Vec<JobId>, usize),
}

/// What a reader of events asks for.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Only at or after this moment.
    pub since: Option<WallTime>,
    /// Only of this kind.
    pub kind: Option<EventKind>,
    /// Only about this job.
    pub job: Option<JobId>,
    /// Only about this node.
    pub node: Option<Name>,
}

impl EventFilter {
    pub(super) fn takes(&self, view: &EventView) -> bool {
        self.since.is_none_or(|since| view.at >= since)
            && self.kind.is_none_or(|kind| view.kind == kind)
            && self.job.is_none_or(|job| view.job == Some(job))
            && self.node.as_ref().is_none_or(|node| view.node.as_ref() == Some(node))
    }
}

/// What a reader of a ledger asks for.
#[derive(Debug, Clone, Default)]
pub struct LedgerFilter {
    /// Only at or after this moment.
    pub since: Option<WallTime>,
    /// Only of this kind.
    pub kind: Option<LedgerKind>,
    /// Only about this job.
    pub job: Option<JobId>,
    /// Continue before this journal number.
    pub before: Option<u64>,
    /// At most this many.
    pub limit: u32,
}

impl LedgerFilter {
    /// How many entries a page may have.
    pub(super) fn page_limit(&self) -> usize {
        (self.limit.max(1) as usize).min(LEDGER_ITEMS_MAX)
    }
}

/// Ids that begin with these characters: the first and the last one, or `None` if the text is not of the alphabet.
pub(super) fn prefix_range(prefix: &str) -> Option<(JobId, JobId)> {
    const CHARS: usize = 26;
    if prefix.len() < PREFIX_CHARS_MIN || prefix.len() > CHARS || !prefix.is_ascii() {
        return None;
    }
    let fill = |with: char| {
        let mut text = format!("j-{prefix}");
        text.extend(std::iter::repeat_n(with, CHARS - prefix.len()));
        text.parse::<JobId>().ok()
    };
    Some((fill('0')?, fill('z')?))
}

/// The one job among all that the asker may mean.
pub(super) fn one_of(mut found: Vec<JobId>) -> Result<JobId, Unresolved> {
    found.sort_unstable();
    found.dedup();
    match found.as_slice() {
        [] => Err(Unresolved::NotFound),
        [one] => Ok(*one),
        several => {
            let total = several.len();
            found.truncate(CANDIDATES_SHOWN);
            Err(Unresolved::Ambiguous(found, total))
        }
    }
}

/// Jobs of a page with the numbers of the events that made them, newest first.
#[derive(Debug, Default)]
pub(super) struct JobsPart {
    pub(super) items: Vec<(u64, JobView)>,
    pub(super) total: u64,
    pub(super) more: bool,
}

impl JobsPart {
    /// One page of two parts that have no job in common but by chance: one that moves from the first to the second meanwhile.
    pub(super) fn merge(self, other: Self, limit: usize) -> JobsPage {
        let (mut total, mut more) = (self.total + other.total, self.more || other.more);
        let mut items = self.items;
        for item in other.items {
            if items.iter().any(|(number, _)| *number == item.0) {
                total -= 1;
            } else {
                items.push(item);
            }
        }
        items.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
        let mut weight = 0;
        let fitting = items.iter().take(limit).take_while(|(_, view)| {
            weight += weight_of(view);
            weight <= PAGE_WEIGHT_MAX
        });
        let fitting = fitting.count().max(1).min(items.len());
        more |= fitting < items.len();
        items.truncate(fitting);
        JobsPage { items: List::cut(items.into_iter().map(|(_, view)| view).collect()), total, more }
    }
}

/// How many jobs a page may have.
pub(super) fn page_limit(query: &JobsQuery) -> usize {
    (query.limit.max(1) as usize).min(PAGE_ITEMS_MAX)
}

impl Model {
    /// The jobs here that the asker may mean.
    pub(super) fn candidates(&self, actor: &Actor, text: &str) -> Vec<JobId> {
        if let Ok(id) = text.parse::<JobId>() {
            return self.visible_job(actor, id).map(Known::id).into_iter().collect();
        }
        let mut found: Vec<JobId> = Vec::new();
        if let Some((first, last)) = prefix_range(text.strip_prefix("j-").unwrap_or(text)) {
            found.extend(
                self.jobs.range(first..=last).filter(|(_, job)| actor.may_touch(job.account())).map(|(id, _)| *id),
            );
        }
        if !text.is_empty() {
            let named = self.ages(actor, None).filter_map(|(_, id)| self.jobs.get(id)).filter(|job| job.name() == text);
            found.extend(named.map(Known::id));
        }
        found
    }

    /// Jobs that the actor may see, or those of one account of them, by age, oldest first.
    pub(super) fn ages<'a>(
        &'a self,
        actor: &Actor,
        account: Option<&AccountId>,
    ) -> Box<dyn DoubleEndedIterator<Item = (&'a u64, &'a JobId)> + 'a> {
        let everything = actor.may_touch_all();
        let of = if everything { account } else { Some(&actor.account) };
        match of {
            None => Box::new(self.by_age.iter()),
            Some(account) if actor.may_touch(account) => match self.accounts.get(account) {
                Some(entry) => Box::new(entry.jobs.iter()),
                None => Box::new(std::iter::empty()),
            },
            Some(_) => Box::new(std::iter::empty()),
        }
    }

    /// Those jobs of a page that ended after the event `applied` or have not, made by events before `below`.
    pub(super) fn jobs_part(
        &self,
        actor: &Actor,
        query: &JobsQuery,
        below: u64,
        applied: u64,
        now: Timestamp,
    ) -> JobsPart {
        let (limit, mut part) = (page_limit(query), JobsPart::default());
        for (number, id) in self.ages(actor, query.account.as_ref()).rev() {
            let job = self.jobs.get(id).filter(|job| job.ended().is_none_or(|row| row.finished > applied));
            let Some(job) = job.filter(|job| self.matches(job, query)) else { continue };
            part.total += 1;
            if *number >= below {
                continue;
            }
            if part.items.len() == limit {
                part.more = true;
            } else {
                part.items.push((*number, job.view(self, now)));
            }
        }
        part
    }

    fn matches(&self, job: &Known, query: &JobsQuery) -> bool {
        let id_begins = || job.id().to_string().starts_with(query.prefix.as_str());
        (query.ended || job.ended().is_none() || query.states.iter().any(|state| state.is_ended()))
            && (query.states.is_empty() || query.states.contains(&job.state(self)))
            && query.labels.iter().all(|(key, value)| job.labels().get(key) == Some(value))
            && (query.prefix.is_empty() || job.name().starts_with(query.prefix.as_str()) || id_begins())
            && query.since.is_none_or(|since| job.created_at(self) >= since)
    }

    /// A page of nodes by name. What nodes offer is public.
    pub(super) fn nodes_page(&self, query: &NodesQuery) -> NodesPage {
        let limit = (query.limit.max(1) as usize).min(PAGE_ITEMS_MAX);
        let (mut items, mut weight, mut more) = (Vec::new(), 0, false);
        for node in self.nodes_after(query.after.as_ref()) {
            weight += node.weight();
            if items.len() == limit || (weight > PAGE_WEIGHT_MAX && !items.is_empty()) {
                more = true;
                break;
            }
            items.push(node.view(self));
        }
        NodesPage { items: List::cut(items), total: self.node_names.len() as u64, more }
    }

    /// One node with what is kept of its GPUs.
    pub(super) fn node_history(&self, name: &Name) -> Option<NodeHistoryView> {
        let node = self.nodes.get(self.node_names.get(name)?)?;
        Some(NodeHistoryView { node: node.view(self), ticks: node.history.ticks() })
    }

    /// Nodes by name after this one.
    pub(super) fn nodes_after<'a>(&'a self, after: Option<&Name>) -> impl Iterator<Item = &'a Node> + use<'a> {
        let from = after.map_or(Bound::Unbounded, |name| Bound::Excluded(name.clone()));
        self.node_names.range((from, Bound::Unbounded)).filter_map(|(_, id)| self.nodes.get(id))
    }

    /// An account; `None` if it does not exist.
    pub(super) fn account_view(&self, id: &AccountId) -> Option<AccountView> {
        let account = self.accounts.get(id)?;
        let running = account.live.iter().filter_map(|id| self.jobs.get(id)?.live()).filter(|job| job.is_billed());
        let burn = running.filter_map(Job::price_per_hour).fold(0u64, |sum, price| sum.saturating_add(price.0));
        Some(AccountView {
            id: id.clone(),
            available: Micro(account.statement.available),
            held: Micro(account.statement.held),
            earned: Micro(account.statement.earned),
            open_jobs: account.live.len() as u64,
            burn_per_hour: Micro(burn),
        })
    }

    /// The entries of an account that the view may not have, those after the event `applied`, newest first; `None` if the account
    /// does not exist.
    pub(super) fn ledger_part(&self, id: &AccountId, filter: &LedgerFilter, applied: u64) -> Option<LedgerPage> {
        let account = self.accounts.get(id)?;
        let limit = filter.page_limit();
        let (mut items, mut more): (Vec<modchain_wire::view::LedgerEntryView>, _) = (Vec::new(), false);
        let wanted = account.statement.entries.iter().rev().filter(|entry| {
            entry.number > applied
                && filter.before.is_none_or(|before| entry.number < before)
                && filter.since.is_none_or(|since| entry.at >= since)
                && filter.kind.is_none_or(|kind| entry.kind == kind)
                && filter.job.is_none_or(|job| entry.job == Some(job))
        });
        for entry in wanted {
            if items.len() >= limit && items.last().is_some_and(|last| last.number != entry.number) {
                more = true;
                break;
            }
            items.push(entry.clone());
        }
        Some(LedgerPage { account: id.clone(), items: List::cut(items), more })
    }

    /// Events after `after` that are here and that the filter takes, at most `max`; and how far the answer goes.
    pub(super) fn events_after(
        &self,
        actor: &Actor,
        filter: &EventFilter,
        after: u64,
        max: usize,
    ) -> (Vec<EventView>, u64) {
        let mut found = Vec::new();
        for row in self.rows_after(after) {
            if row.visible_to(actor) && filter.takes(&row.view) {
                found.push(row.view.clone());
                if found.len() == max {
                    return (found, row.view.number);
                }
            }
        }
        (found, self.upto().max(after))
    }

    /// How things are, as far as the feed knows.
    pub(super) fn status(&self, actor: &Actor, uptime: modchain_types::Span, now: Timestamp) -> StatusView {
        let mut nodes: std::collections::BTreeMap<NodeState, u64> = std::collections::BTreeMap::new();
        let (mut gpus, mut gpus_reserved) = (0, 0);
        let (mut telling, mut busy_pct) = (0, 0);
        for node in self.nodes.values().filter(|node| !node.revoked) {
            *nodes.entry(node.state).or_default() += 1;
            gpus += node.offer.as_ref().map_or(0, |offer| offer.capabilities.gpus.len() as u64);
            gpus_reserved += node.attempts.values().map(|reservation| reservation.gpus.len() as u64).sum::<u64>();
            if node.state != NodeState::Lost {
                for busy in node.history.latest(node.seen_at).iter().filter_map(|sample| sample.busy_pct) {
                    telling += 1;
                    busy_pct += u64::from(busy);
                }
            }
        }
        let mut jobs: std::collections::BTreeMap<JobState, u64> = std::collections::BTreeMap::new();
        let mut oldest: Option<Timestamp> = None;
        let live =
            if actor.may_touch_all() { Some(&self.live) } else { self.accounts.get(&actor.account).map(|a| &a.live) };
        for job in live.into_iter().flatten().filter_map(|id| self.jobs.get(id)?.live()) {
            let state = job.state(self);
            *jobs.entry(state).or_default() += 1;
            if state == JobState::Queued {
                oldest = Some(oldest.map_or(job.created_at, |oldest| oldest.min(job.created_at)));
            }
        }
        StatusView {
            version: Text::cut(env!("CARGO_PKG_VERSION")),
            uptime,
            at: self.wall(now),
            nodes: List::cut(nodes.into_iter().collect()),
            jobs: List::cut(jobs.into_iter().collect()),
            oldest_queued: oldest.map(|oldest| now.since(oldest)),
            gpus,
            gpus_reserved,
            gpus_busy_pct: busy_pct.checked_div(telling).and_then(|mean| u8::try_from(mean).ok()),
            account: self.account_view(&actor.account),
            problems: List::default(),
        }
    }
}

/// Small questions about an actor that the read model asks again and again.
pub(super) trait Sight {
    /// Whether everything is visible to it.
    fn may_touch_all(&self) -> bool;
}

impl Sight for Actor {
    fn may_touch_all(&self) -> bool {
        self.role == modchain_types::Role::Operator
    }
}

impl super::model::Row {
    /// Whether this actor may see the event.
    pub(super) fn visible_to(&self, actor: &Actor) -> bool {
        self.audience.has(actor)
    }
}

impl Node {
    /// The whole view.
    pub(super) fn view(&self, model: &Model) -> NodeView {
        let mut reserved = Reservation::default();
        let mut gpus = Vec::new();
        for reservation in self.attempts.values() {
            reserved.cpu_milli = reserved.cpu_milli.saturating_add(reservation.cpu_milli);
            reserved.memory_bytes = reserved.memory_bytes.saturating_add(reservation.memory_bytes);
            reserved.disk_bytes = reserved.disk_bytes.saturating_add(reservation.disk_bytes);
            gpus.extend(reservation.gpus.iter().cloned());
        }
        reserved.gpus = List::cut(gpus);
        NodeView {
            id: NodeId::from(self.identity.id),
            name: self.identity.name.clone(),
            account: self.identity.account.clone(),
            state: self.state,
            offer: self.offer.clone(),
            reserved,
            attempts: u32::try_from(self.attempts.len()).unwrap_or(u32::MAX),
            load: self.load,
            rtt: self.rtt,
            seen_at: self.seen_at,
            connected_at: self.connected_at,
            gpus: self.history.latest(self.seen_at),
            drains_at: match self.standing {
                Standing::Draining(until) => until.map(|until| model.wall(until)),
                Standing::Open | Standing::Cordoned => None,
            },
        }
    }

    /// Bytes that its view takes in a frame, at most.
    pub(super) fn weight(&self) -> usize {
        let offer = self.offer.as_ref().map_or(0, |offer| {
            let labels: usize = offer.capabilities.labels.iter().map(|(key, value)| key.len() + value.len() + 4).sum();
            let prices: usize = offer.tariff.gpu_hour.keys().map(|model| model.len() + 12).sum();
            let models: usize = offer.capabilities.models.iter().map(|model| model.name.len() + 88).sum();
            let pullable: usize = offer.capabilities.pullable.iter().map(|name| name.len() + 2).sum();
            labels + prices + models + pullable + offer.capabilities.gpus.len() * 336 + 384
        });
        let reserved: usize = self.attempts.values().map(|reservation| reservation.gpus.len() * 136).sum();
        512 + offer + self.history.weight() + reserved.min(64 * 136)
    }
}

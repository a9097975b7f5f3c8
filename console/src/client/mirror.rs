//! What the console knows of its orchestrator: the one place where messages of the link become state. Pure: no clock, no I/O,
//! no terminal.
//!
//! Everything is bounded: events, ledger and ended jobs keep the newest; outputs, explanations and histories those that were
//! heard of last. What screens ask for at every frame (totals, problems) is counted when it changes, not when it is asked.

mod changes;
mod money;
mod pools;
mod problems;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use modchain_types::{AccountId, Asset, Identity, JobId, JobState, Name, NodeState, WallTime};
use modchain_wire::console::{StateDelta, StateSnapshot};
use modchain_wire::view::{
    AccountView, EventView, ExplanationView, IdentityView, JobView, LedgerEntryView, LedgerKind, NodeHistoryView,
    NodeView, TokenView,
};
use modchain_wire::{FromConsole, ToConsole};

use super::live::{FromLive, LinkState, LogItem, Mark};
use super::log_buffer::{LogBuffer, Setting};
use super::series::Series;

/// Events that are kept; older ones are forgotten.
pub(crate) const EVENTS_MAX: usize = 10_000;
/// Ledger entries that are kept.
pub(crate) const LEDGER_MAX: usize = 10_000;
/// Ended jobs that are kept, besides those that were asked for page by page.
pub(crate) const ENDED_MAX: usize = 5_000;
/// Outputs that are kept, and bytes of all of them together. The one that was heard of last always is.
const LOGS_MAX: usize = 8;
/// See [`LOGS_MAX`].
const LOGS_BYTES_MAX: usize = 24 << 20;
/// Explanations that are kept.
const EXPLANATIONS_MAX: usize = 64;
/// Histories of nodes that are kept: some hundred KiB each.
const HISTORIES_MAX: usize = 8;

pub(crate) use changes::Changes;
pub(crate) use money::{Spending, midnight};
pub(crate) use pools::{Pools, pool, price};
pub(crate) use problems::{About, Problem, Severity};

/// Everything that is known. Cheap to copy: a screen that stands still keeps one.
#[derive(Debug, Clone)]
pub(crate) struct Mirror {
    /// Whether times in remarks are in UTC.
    pub(crate) utc: bool,
    /// The state of the link.
    pub(crate) link: LinkState,
    /// Round trip of the path, once it was measured.
    pub(crate) rtt: Option<Duration>,
    /// Who we are there, once it was said.
    pub(crate) me: Option<Me>,
    /// Whose history this is, and how much of it; `None` until the first snapshot is whole.
    pub(crate) mark: Option<Mark>,
    /// When something last came, by this machine's clock.
    pub(crate) heard_at: Option<WallTime>,
    /// The jobs that are not ended, and the newest that are.
    pub(crate) jobs: BTreeMap<JobId, Arc<JobView>>,
    /// The nodes.
    pub(crate) nodes: BTreeMap<Name, Arc<NodeView>>,
    /// Our own account.
    pub(crate) account: Option<AccountView>,
    /// Our own statement, oldest first.
    pub(crate) ledger: VecDeque<LedgerEntryView>,
    /// What happened, oldest first, by number without a repetition.
    pub(crate) events: VecDeque<EventView>,
    /// The last five minutes of each node, and of all together.
    pub(crate) series: Series,
    /// Output of the jobs that are followed, or were.
    pub(crate) logs: BTreeMap<JobId, LogBuffer>,
    /// The newest explanation of each job that was asked about.
    pub(crate) explanations: BTreeMap<JobId, ExplanationView>,
    /// The last five minutes of the GPUs of nodes that were asked about.
    pub(crate) histories: BTreeMap<Name, NodeHistoryView>,
    /// Who is in, once it was asked for.
    pub(crate) identities: Option<Vec<IdentityView>>,
    /// Tokens, once they were asked for.
    pub(crate) tokens: Option<Vec<TokenView>>,
    /// Changes of jobs: who shows them need not look at 50,000 jobs to see which one changed.
    pub(crate) job_changes: Changes<JobId>,
    /// Changes of nodes.
    pub(crate) node_changes: Changes<Name>,
    /// Changes of events, by number.
    pub(crate) event_changes: Changes<u64>,
    /// Counts changes of the ledger.
    pub(crate) ledger_revision: u64,
    /// Counts changes of members and tokens.
    pub(crate) members_revision: u64,
    /// The snapshot that is coming, until it is whole.
    fresh: Option<Fresh>,
    /// What follows from jobs and nodes.
    index: Index,
    /// Ended jobs that may be kept.
    ended_max: usize,
    /// What was heard of last, at the end.
    recent_logs: VecDeque<JobId>,
    recent_explanations: VecDeque<JobId>,
    recent_histories: VecDeque<Name>,
}

/// What follows from jobs and nodes, kept up with every change of one.
#[derive(Debug, Clone, Default)]
struct Index {
    totals: Totals,
    /// Sum of the busy shares of all GPUs that tell it, and how many those are.
    busy: (u64, u64),
    /// Jobs that have ended, by when.
    ended: BTreeSet<(WallTime, JobId)>,
    /// Jobs that wait, by since when.
    waiting: BTreeSet<(WallTime, JobId)>,
    /// Nodes that are silent.
    silent: BTreeSet<Name>,
    /// What nodes are and do together.
    pools: Pools,
    /// Jobs that have a node and have not ended, by node.
    on_nodes: BTreeMap<Name, BTreeSet<JobId>>,
}

/// What there is in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    /// Nodes.
    pub(crate) nodes: u64,
    /// Those that take jobs.
    pub(crate) nodes_ready: u64,
    /// GPUs of all nodes.
    pub(crate) gpus: u64,
    /// Those that jobs hold.
    pub(crate) gpus_reserved: u64,
    /// Mean busy share of all GPUs that tell it, in percent.
    pub(crate) gpu_busy_pct: Option<u64>,
    /// Jobs that have a node.
    pub(crate) jobs_running: u64,
    /// Jobs that wait for one.
    pub(crate) jobs_waiting: u64,
}

/// Who we are to the orchestrator.
#[derive(Debug, Clone)]
pub(crate) struct Me {
    /// Our identity.
    pub(crate) identity: Identity,
    /// What its money is.
    pub(crate) asset: Asset,
    /// Version of the orchestrator program.
    pub(crate) version: String,
    /// `HOST:PORT`.
    pub(crate) address: String,
    /// How far its clock is ahead of ours, in milliseconds.
    pub(crate) clock_ahead_ms: i64,
}

/// A snapshot that is not whole yet.
#[derive(Debug, Clone, Default)]
struct Fresh {
    jobs: BTreeMap<JobId, Arc<JobView>>,
    nodes: BTreeMap<Name, Arc<NodeView>>,
}

impl Default for Mirror {
    fn default() -> Self {
        Self {
            utc: false,
            link: LinkState::Connecting,
            rtt: None,
            me: None,
            mark: None,
            heard_at: None,
            jobs: BTreeMap::new(),
            nodes: BTreeMap::new(),
            account: None,
            ledger: VecDeque::new(),
            events: VecDeque::new(),
            series: Series::default(),
            logs: BTreeMap::new(),
            explanations: BTreeMap::new(),
            histories: BTreeMap::new(),
            identities: None,
            tokens: None,
            job_changes: Changes::default(),
            node_changes: Changes::default(),
            event_changes: Changes::default(),
            ledger_revision: 0,
            members_revision: 0,
            fresh: None,
            index: Index::default(),
            ended_max: ENDED_MAX,
            recent_logs: VecDeque::new(),
            recent_explanations: VecDeque::new(),
            recent_histories: VecDeque::new(),
        }
    }
}

impl Mirror {
    /// Takes in what happened at `now` by this machine's clock.
    pub(crate) fn apply(&mut self, message: FromLive, now: WallTime) {
        match &message {
            FromLive::Target(_) | FromLive::Link(_) | FromLive::Said(_) | FromLive::Answer(_, _, Err(_)) => {}
            FromLive::Welcome(_)
            | FromLive::Snapshot(_)
            | FromLive::Delta(_)
            | FromLive::Events(_)
            | FromLive::Log(..)
            | FromLive::Answer(_, _, Ok(_))
            | FromLive::Input(..)
            | FromLive::Rtt(_) => {
                self.heard_at = Some(now);
                if matches!(self.link, LinkState::Silent { .. }) {
                    self.link = LinkState::Live;
                }
            }
        }
        match message {
            FromLive::Target(_) => self.begin_anew(),
            FromLive::Link(state) => self.link = state,
            FromLive::Welcome(welcome) => {
                // The rest of an older connection's snapshot will not come.
                self.fresh = None;
                self.me = Some(Me {
                    identity: welcome.welcome.identity,
                    asset: welcome.welcome.asset,
                    version: welcome.welcome.version.to_string(),
                    address: welcome.address,
                    clock_ahead_ms: welcome.clock_ahead_ms,
                });
            }
            FromLive::Snapshot(page) => self.take_page(*page, now),
            // Only what is known can change.
            FromLive::Delta(delta) if self.mark.is_some() => self.take_delta(*delta, now),
            FromLive::Delta(_) => {}
            FromLive::Events(events) => self.take_events(events),
            FromLive::Log(job, item) => self.take_log(job, item, now),
            FromLive::Answer(_, asked, Ok(reply)) => self.take_answer(*asked, *reply),
            FromLive::Answer(_, _, Err(_)) | FromLive::Input(..) | FromLive::Said(_) => {}
            FromLive::Rtt(rtt) => self.rtt = Some(rtt),
        }
    }

    /// Forgets everything; the counts of changes go on, so that whoever remembers one notices.
    fn begin_anew(&mut self) {
        let old = std::mem::take(self);
        *self = Self {
            utc: old.utc,
            job_changes: old.job_changes,
            node_changes: old.node_changes,
            event_changes: old.event_changes,
            ledger_revision: old.ledger_revision + 1,
            members_revision: old.members_revision + 1,
            ..Self::default()
        };
        self.job_changes.anew();
        self.node_changes.anew();
        self.event_changes.anew();
    }

    /// A frame of a snapshot. What is as it was is not kept twice while both are here.
    fn take_page(&mut self, page: StateSnapshot, now: WallTime) {
        let fresh = self.fresh.get_or_insert_default();
        for job in page.jobs.into_vec() {
            let known = self.jobs.get(&job.id).filter(|known| ***known == job).cloned();
            fresh.jobs.insert(job.id, known.unwrap_or_else(|| Arc::new(job)));
        }
        for node in page.nodes.into_vec() {
            let known = self.nodes.get(&node.name).filter(|known| ***known == node).cloned();
            fresh.nodes.insert(node.name.clone(), known.unwrap_or_else(|| Arc::new(node)));
        }
        if !page.last {
            return;
        }
        let mut fresh = self.fresh.take().unwrap_or_default();
        if self.mark.is_none_or(|mark| mark.journal != page.journal) {
            if self.mark.is_some() {
                self.forget_history();
            }
        } else {
            // What has ended does not change; a snapshot has only the newest of it.
            for (_, id) in &self.index.ended {
                if let (false, Some(job)) = (fresh.jobs.contains_key(id), self.jobs.get(id)) {
                    fresh.jobs.insert(*id, job.clone());
                }
            }
        }
        self.series.retain(|name| fresh.nodes.contains_key(name));
        self.histories.retain(|name, _| fresh.nodes.contains_key(name));
        self.index = Index::default();
        (self.jobs, self.nodes) = (fresh.jobs, fresh.nodes);
        self.jobs.values().for_each(|job| self.index.count_job(job, true));
        for node in self.nodes.values() {
            self.series.take(node, now);
            self.index.count_node(node, true);
        }
        self.trim_ended();
        self.account = page.account;
        self.mark = Some(Mark { journal: page.journal, upto: page.upto });
        self.job_changes.anew();
        self.node_changes.anew();
    }

    /// Another journal: numbers mean something else there, and what belongs to the old one is over.
    fn forget_history(&mut self) {
        let old = std::mem::take(self);
        *self = Self {
            utc: old.utc,
            link: old.link,
            rtt: old.rtt,
            me: old.me,
            heard_at: old.heard_at,
            job_changes: old.job_changes,
            node_changes: old.node_changes,
            event_changes: old.event_changes,
            ledger_revision: old.ledger_revision + 1,
            members_revision: old.members_revision + 1,
            ..Self::default()
        };
        self.event_changes.anew();
    }

    fn take_delta(&mut self, delta: StateDelta, now: WallTime) {
        for name in delta.gone.into_vec() {
            self.remove_node(&name);
        }
        for job in delta.jobs.into_vec() {
            self.put_job(Arc::new(job));
        }
        self.trim_ended();
        for node in delta.nodes.into_vec() {
            self.series.take(&node, now);
            self.put_node(Arc::new(node));
        }
        if delta.account.is_some() {
            self.account = delta.account;
        }
        if let Some(mark) = &mut self.mark {
            mark.upto = delta.upto;
        }
        self.take_events(delta.events.into_vec());
    }

    fn put_job(&mut self, job: Arc<JobView>) {
        self.job_changes.note(job.id);
        self.index.count_job(&job, true);
        if let Some(old) = self.jobs.insert(job.id, job.clone()) {
            self.index.count_job(&old, false);
            // The new one may stand at the same place.
            self.index.place_job(&job);
        }
    }

    /// Forgets the jobs that ended first.
    fn trim_ended(&mut self) {
        while self.index.ended.len() > self.ended_max {
            let Some((_, id)) = self.index.ended.pop_first() else { return };
            self.jobs.remove(&id);
            self.job_changes.note(id);
        }
    }

    fn put_node(&mut self, node: Arc<NodeView>) {
        if let Some(old) = self.nodes.get(&node.name) {
            self.index.count_node(old, false);
        }
        self.index.count_node(&node, true);
        self.node_changes.note(node.name.clone());
        self.nodes.insert(node.name.clone(), node);
    }

    fn remove_node(&mut self, name: &Name) {
        if let Some(old) = self.nodes.remove(name) {
            self.index.count_node(&old, false);
        }
        self.series.remove(name);
        self.histories.remove(name);
        self.node_changes.note(name.clone());
    }

    /// The account that we pay from.
    pub(crate) fn my_account(&self) -> Option<&AccountId> {
        self.me.as_ref().map(|me| &me.identity.account)
    }

    /// The orchestrator's clock when ours shows `now`.
    pub(crate) fn server_time(&self, now: WallTime) -> WallTime {
        WallTime(now.0.saturating_add(self.me.as_ref().map_or(0, |me| me.clock_ahead_ms)))
    }

    /// Whether what is shown may be old.
    pub(crate) fn is_stale(&self) -> bool {
        self.link != LinkState::Live
    }

    /// The event of this number, if it is kept.
    pub(crate) fn event(&self, number: u64) -> Option<&EventView> {
        let place = self.events.binary_search_by_key(&number, |event| event.number).ok()?;
        self.events.get(place)
    }

    /// The ledger entry of this number and kind, if it is kept.
    pub(crate) fn entry(&self, number: u64, kind: LedgerKind) -> Option<&LedgerEntryView> {
        let place = self.ledger.binary_search_by_key(&(number, kind), |entry| (entry.number, entry.kind)).ok()?;
        self.ledger.get(place)
    }

    /// How many of the jobs have ended.
    pub(crate) fn ended_count(&self) -> usize {
        self.index.ended.len()
    }

    /// The jobs that a node has and that have not ended, by id.
    pub(crate) fn jobs_on(&self, node: &Name) -> impl Iterator<Item = JobId> {
        self.index.on_nodes.get(node).into_iter().flatten().copied()
    }

    /// What nodes are and do together, by pool.
    pub(crate) fn pools(&self) -> &Pools {
        &self.index.pools
    }

    /// What there is in all.
    pub(crate) fn totals(&self) -> Totals {
        let (busy, measured) = self.index.busy;
        Totals { gpu_busy_pct: busy.checked_div(measured), ..self.index.totals }
    }

    fn take_events(&mut self, events: Vec<EventView>) {
        for event in events {
            let number = event.number;
            match self.events.binary_search_by_key(&number, |known| known.number) {
                Ok(_) => continue,
                Err(place) => self.events.insert(place, event),
            }
            self.event_changes.note(number);
        }
        while self.events.len() > EVENTS_MAX {
            self.events.pop_front().into_iter().for_each(|event| self.event_changes.note(event.number));
        }
    }

    fn take_log(&mut self, job: JobId, item: LogItem, now: WallTime) {
        let asset = self.me.as_ref().map_or(Asset::Test, |me| me.asset);
        self.logs.entry(job).or_default().take(item, Setting { now, utc: self.utc, asset });
        move_to_end(&mut self.recent_logs, &job);
        while self.recent_logs.len() > 1
            && (self.recent_logs.len() > LOGS_MAX
                || self.logs.values().map(LogBuffer::bytes).sum::<usize>() > LOGS_BYTES_MAX)
        {
            let oldest = self.recent_logs.pop_front();
            oldest.and_then(|job| self.logs.remove(&job));
        }
    }

    fn take_answer(&mut self, asked: FromConsole, reply: ToConsole) {
        match (asked, reply) {
            (_, ToConsole::Job(job)) => self.take_asked_jobs(vec![job]),
            (FromConsole::Jobs(_), ToConsole::Jobs(page)) => self.take_asked_jobs(page.items.into_vec()),
            (_, ToConsole::NodeIs(node)) => self.take_nodes(vec![node]),
            (FromConsole::Nodes(_), ToConsole::Nodes(page)) => self.take_nodes(page.items.into_vec()),
            (_, ToConsole::NodeHistory(history)) => {
                let name = history.node.name.clone();
                self.take_nodes(vec![history.node.clone()]);
                self.histories.insert(name.clone(), history);
                move_to_end(&mut self.recent_histories, &name);
                if self.recent_histories.len() > HISTORIES_MAX {
                    self.recent_histories.pop_front().and_then(|name| self.histories.remove(&name));
                }
            }
            (_, ToConsole::Explanation(why)) => {
                let id = why.job.id;
                self.take_asked_jobs(vec![why.job.clone()]);
                self.explanations.insert(id, why);
                move_to_end(&mut self.recent_explanations, &id);
                if self.recent_explanations.len() > EXPLANATIONS_MAX {
                    self.recent_explanations.pop_front().and_then(|job| self.explanations.remove(&job));
                }
            }
            (FromConsole::Ledger(_), ToConsole::Ledger(page)) => {
                for entry in page.items.into_vec() {
                    match self
                        .ledger
                        .binary_search_by_key(&(entry.number, entry.kind), |known| (known.number, known.kind))
                    {
                        Ok(_) => continue,
                        Err(place) => self.ledger.insert(place, entry),
                    }
                    self.ledger_revision += 1;
                }
                while self.ledger.len() > LEDGER_MAX {
                    self.ledger.pop_front();
                }
            }
            (FromConsole::Identities(_), ToConsole::Identities(page)) => {
                self.identities = Some(page.items.into_vec());
                self.members_revision += 1;
            }
            (FromConsole::Tokens(_), ToConsole::Tokens(page)) => {
                self.tokens = Some(page.items.into_vec());
                self.members_revision += 1;
            }
            (_, ToConsole::Account(account)) if Some(&account.id) == self.my_account() => {
                self.account = Some(account);
            }
            _ => {}
        }
    }

    /// Who asks for older ones means to see them.
    fn take_asked_jobs(&mut self, jobs: Vec<JobView>) {
        let new = |job: &&JobView| job.state.is_ended() && !self.jobs.contains_key(&job.id);
        self.ended_max += jobs.iter().filter(new).count();
        self.take_jobs(jobs);
    }

    fn take_jobs(&mut self, jobs: Vec<JobView>) {
        for job in jobs {
            self.put_job(Arc::new(job));
        }
        self.trim_ended();
    }

    fn take_nodes(&mut self, nodes: Vec<NodeView>) {
        for node in nodes {
            self.put_node(Arc::new(node));
        }
    }
}

impl Index {
    fn count_job(&mut self, job: &JobView, here: bool) {
        let change = if here { 1 } else { u64::MAX };
        if job.state.is_ended() {
            self.ended.remove(&ended_at(job));
        } else if job.state == JobState::Queued {
            self.totals.jobs_waiting = self.totals.jobs_waiting.wrapping_add(change);
            self.waiting.remove(&(job.created_at, job.id));
        } else {
            self.totals.jobs_running = self.totals.jobs_running.wrapping_add(change);
        }
        if let Some(node) = &job.node
            && let Some(jobs) = self.on_nodes.get_mut(node)
        {
            jobs.remove(&job.id);
            if jobs.is_empty() {
                self.on_nodes.remove(node);
            }
        }
        if here {
            self.place_job(job);
        }
    }

    fn place_job(&mut self, job: &JobView) {
        if job.state.is_ended() {
            self.ended.insert(ended_at(job));
        } else {
            if job.state == JobState::Queued {
                self.waiting.insert((job.created_at, job.id));
            }
            if let Some(node) = &job.node {
                self.on_nodes.entry(node.clone()).or_default().insert(job.id);
            }
        }
    }

    fn count_node(&mut self, node: &NodeView, here: bool) {
        let add = |sum: &mut u64, count: u64| {
            *sum = if here { sum.wrapping_add(count) } else { sum.wrapping_sub(count) };
        };
        add(&mut self.totals.nodes, 1);
        add(&mut self.totals.nodes_ready, u64::from(node.state == NodeState::Ready));
        let gpus = node.offer.as_ref().map_or(0, |offer| offer.capabilities.gpus.len() as u64);
        add(&mut self.totals.gpus, gpus);
        add(&mut self.totals.gpus_reserved, node.reserved.gpus.len() as u64);
        for percent in node.gpus.iter().filter_map(|gpu| gpu.busy_pct) {
            add(&mut self.busy.0, u64::from(percent));
            add(&mut self.busy.1, 1);
        }
        self.pools.count(node, here);
        if here && matches!(node.state, NodeState::Suspect | NodeState::Lost) {
            self.silent.insert(node.name.clone());
        } else {
            self.silent.remove(&node.name);
        }
    }
}

fn ended_at(job: &JobView) -> (WallTime, JobId) {
    (job.ended_at.unwrap_or(job.created_at), job.id)
}

fn move_to_end<T: PartialEq + Clone>(recent: &mut VecDeque<T>, one: &T) {
    recent.retain(|other| other != one);
    recent.push_back(one.clone());
}

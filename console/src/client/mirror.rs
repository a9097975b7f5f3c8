//! What the console knows of its orchestrator: the one place where messages of the link become state. Pure: no clock, no I/O,
//! no terminal.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use modchain_types::{AccountId, Asset, Identity, JobId, JobState, Name, NodeState, WallTime};
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
    /// Counts changes of jobs: who shows them need not look at 50,000 jobs to see whether one changed.
    pub(crate) jobs_revision: u64,
    /// Counts changes of nodes.
    pub(crate) nodes_revision: u64,
    /// Counts changes of events.
    pub(crate) events_revision: u64,
    /// Counts changes of the ledger.
    pub(crate) ledger_revision: u64,
    /// Counts changes of members and tokens.
    pub(crate) members_revision: u64,
    /// The snapshot that is coming, until it is whole.
    fresh: Option<Fresh>,
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
            jobs_revision: 0,
            nodes_revision: 0,
            events_revision: 0,
            ledger_revision: 0,
            members_revision: 0,
            fresh: None,
        }
    }
}

impl Mirror {
    /// Takes in what happened at `now` by this machine's clock.
    pub(crate) fn apply(&mut self, message: FromLive, now: WallTime) {
        self.heard_at = Some(now);
        match message {
            FromLive::Target(_) => *self = Self::default(),
            FromLive::Link(state) => self.link = state,
            FromLive::Welcome(welcome) => {
                self.me = Some(Me {
                    identity: welcome.welcome.identity,
                    asset: welcome.welcome.asset,
                    version: welcome.welcome.version.to_string(),
                    address: welcome.address,
                    clock_ahead_ms: welcome.clock_ahead_ms,
                });
            }
            FromLive::Snapshot(page) => {
                let fresh = self.fresh.get_or_insert_default();
                fresh.jobs.extend(page.jobs.into_vec().into_iter().map(|job| (job.id, Arc::new(job))));
                fresh.nodes.extend(page.nodes.into_vec().into_iter().map(|node| (node.name.clone(), Arc::new(node))));
                if page.last {
                    let fresh = self.fresh.take().unwrap_or_default();
                    (self.jobs, self.nodes) = (fresh.jobs, fresh.nodes);
                    self.account = page.account;
                    self.mark = Some(Mark { journal: page.journal, upto: page.upto });
                    self.jobs_revision += 1;
                    self.nodes_revision += 1;
                }
            }
            FromLive::Delta(delta) => {
                if !delta.jobs.is_empty() {
                    self.jobs_revision += 1;
                }
                if !(delta.nodes.is_empty() && delta.gone.is_empty()) {
                    self.nodes_revision += 1;
                }
                for name in delta.gone.into_vec() {
                    self.nodes.remove(&name);
                    self.series.nodes.remove(&name);
                    self.histories.remove(&name);
                }
                for job in delta.jobs.into_vec() {
                    self.jobs.insert(job.id, Arc::new(job));
                }
                for node in delta.nodes.into_vec() {
                    self.series.take(&node, now);
                    self.nodes.insert(node.name.clone(), Arc::new(node));
                }
                if delta.account.is_some() {
                    self.account = delta.account;
                }
                if let Some(mark) = &mut self.mark {
                    mark.upto = delta.upto;
                }
                self.take_events(delta.events.into_vec());
            }
            FromLive::Events(events) => self.take_events(events),
            FromLive::Log(job, item) => self.take_log(job, item, now),
            FromLive::Answer(_, asked, Ok(reply)) => self.take_answer(*asked, *reply),
            FromLive::Answer(_, _, Err(_)) | FromLive::Input(..) | FromLive::Said(_) => {}
            FromLive::Rtt(rtt) => self.rtt = Some(rtt),
        }
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

    /// What there is in all.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        let (mut busy, mut measured) = (0u64, 0u64);
        for node in self.nodes.values() {
            totals.nodes += 1;
            totals.nodes_ready += u64::from(node.state == NodeState::Ready);
            totals.gpus += node.offer.as_ref().map_or(0, |offer| offer.capabilities.gpus.len() as u64);
            totals.gpus_reserved += node.reserved.gpus.len() as u64;
            for percent in node.gpus.iter().filter_map(|gpu| gpu.busy_pct) {
                (busy, measured) = (busy + u64::from(percent), measured + 1);
            }
        }
        totals.gpu_busy_pct = busy.checked_div(measured);
        for job in self.jobs.values() {
            match job.state {
                JobState::Queued => totals.jobs_waiting += 1,
                state if state.is_ended() => {}
                _ => totals.jobs_running += 1,
            }
        }
        totals
    }

    fn take_events(&mut self, events: Vec<EventView>) {
        for event in events {
            match self.events.binary_search_by_key(&event.number, |known| known.number) {
                Ok(_) => continue,
                Err(place) => self.events.insert(place, event),
            }
            self.events_revision += 1;
        }
        while self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
    }

    fn take_log(&mut self, job: JobId, item: LogItem, now: WallTime) {
        let asset = self.me.as_ref().map_or(Asset::Test, |me| me.asset);
        self.logs.entry(job).or_default().take(item, Setting { now, utc: self.utc, asset });
    }

    fn take_answer(&mut self, asked: FromConsole, reply: ToConsole) {
        match (asked, reply) {
            (_, ToConsole::Job(job)) => {
                self.jobs.insert(job.id, Arc::new(job));
                self.jobs_revision += 1;
            }
            (FromConsole::Jobs(_), ToConsole::Jobs(page)) => {
                self.jobs.extend(page.items.into_vec().into_iter().map(|job| (job.id, Arc::new(job))));
                self.jobs_revision += 1;
            }
            (_, ToConsole::NodeIs(node)) => {
                self.nodes.insert(node.name.clone(), Arc::new(node));
                self.nodes_revision += 1;
            }
            (_, ToConsole::NodeHistory(history)) => {
                self.histories.insert(history.node.name.clone(), history);
            }
            (_, ToConsole::Explanation(why)) => {
                self.explanations.insert(why.job.id, why);
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
            (_, ToConsole::Account(account)) => {
                if Some(&account.id) == self.my_account() {
                    self.account = Some(account);
                }
            }
            _ => {}
        }
    }
}

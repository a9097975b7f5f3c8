//! What is known from the journal, in the shape that questions come in. Only committed events change it, and two things that
//! are not in the journal because they follow from silence or pass at once: a node's state, and its heartbeats.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use modchain_core::node::Standing;
use modchain_core::{Actor, Event, EventBody};
use modchain_types::{
    AccountId, Asset, AttemptId, Fence, Identity, IdentityId, JobId, JournalId, List, Name, NodeId, NodeState, Offer,
    OutputLengths, Reservation, Role, Span, Text, Timestamp, TokenId, WallTime,
};
use modchain_wire::agent::HostLoad;

use super::describe::{self, Audience};
use super::history::{History, Pulse};
use super::job::{Attempt, Job};
use super::kept::Fresh;
use super::known::{Ended, Known};
use super::statement::Statement;
use crate::store::view::{EventRow, JobRow, Rows, ViewError};

/// Events that stay in memory when the view has them: far more than a reader may be behind.
pub(super) const EVENTS_KEPT: usize = 10_000;
/// Ended jobs of one account that stay in memory, the last to end: what a console is shown at first.
pub(super) const ENDED_KEPT: usize = 200;

/// The read model.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) journal: JournalId,
    /// What fences are above.
    pub(super) fence_base: u64,
    pub(super) asset: Asset,
    /// Where the logical timeline meets the calendar, in order.
    pub(super) anchors: Vec<(Timestamp, WallTime)>,
    /// Every change of anything gets the next number; readers ask for what changed after the last one they saw.
    pub(super) revision: u64,
    pub(super) identities: BTreeMap<IdentityId, Identity>,
    /// Who made each join token: whoever holds its account may see what becomes of it.
    pub(super) token_makers: BTreeMap<TokenId, IdentityId>,
    /// The account that the platform's fees are shown under: the first operator's.
    pub(super) platform: Option<AccountId>,
    pub(super) jobs: BTreeMap<JobId, Known>,
    /// Jobs by the number of the event that made them.
    pub(super) by_age: BTreeMap<u64, JobId>,
    pub(super) live: BTreeSet<JobId>,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) node_names: BTreeMap<Name, NodeId>,
    pub(super) accounts: BTreeMap<AccountId, Account>,
    /// The newest of them: those behind `forgotten`, in order.
    pub(super) events: VecDeque<Row>,
    /// How many events before those the view has and this forgot.
    pub(super) forgotten: u64,
    /// What the events since somebody asked led to, for the view: each of these ends with an event that forgets jobs, because the
    /// same keys may make others behind it.
    whole_rows: VecDeque<Result<Rows, ViewError>>,
    /// What the events behind those led to.
    rows: Rows,
    /// Jobs that were forgotten, with the number of the event, as long as the view may have them.
    gone: BTreeMap<JobId, u64>,
    /// What the view keeps of the feed's own, as far as it has changed since then.
    pub(super) fresh: Fresh,
    /// The event that is being taken in; 0 between two.
    taking: u64,
    /// Accounts with entries that the view may have by now.
    posted: BTreeSet<AccountId>,
    /// Accounts with more ended jobs than are kept.
    crowded: BTreeSet<AccountId>,
    /// Ended jobs that are still here, by account, in the order of their ends.
    pub(super) ended: BTreeMap<AccountId, VecDeque<JobId>>,
    /// Jobs by the revision of their last change.
    pub(super) changed_jobs: BTreeMap<u64, JobId>,
    /// Nodes by the revision of their last change of state.
    pub(super) changed_nodes: BTreeMap<u64, NodeId>,
    /// Nodes by the revision of their last heartbeat.
    pub(super) measured_nodes: BTreeMap<u64, NodeId>,
}

/// An event with what a reader's filter asks about.
#[derive(Debug)]
pub(super) struct Row {
    /// Who may see it.
    pub(super) audience: Audience,
    /// The revision that it led to.
    pub(super) revision: u64,
    pub(super) view: modchain_wire::view::EventView,
}

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) identity: Identity,
    pub(super) state: NodeState,
    pub(super) offer: Option<Offer>,
    /// Whether its identity was revoked: it is shown no more.
    pub(super) revoked: bool,
    pub(super) standing: Standing,
    pub(super) attempts: BTreeMap<JobId, Reservation>,
    pub(super) load: Option<HostLoad>,
    pub(super) history: History,
    pub(super) rtt: Option<Span>,
    pub(super) seen_at: Option<WallTime>,
    pub(super) connected_at: Option<WallTime>,
    /// Number of the event that let the newest connection in.
    pub(super) connected_by: u64,
    /// When that was.
    pub(super) let_in_at: Option<WallTime>,
    /// Whether the journal says that it is lost. Its state follows from its silence too.
    pub(super) lost: bool,
    /// The last event that changed what is shown of it.
    pub(super) changed_by: u64,
    pub(super) changed: u64,
    pub(super) measured: u64,
}

impl Node {
    /// One that never connected.
    pub(super) fn new(identity: Identity) -> Self {
        Self {
            identity,
            state: NodeState::Lost,
            offer: None,
            revoked: false,
            standing: Standing::Open,
            attempts: BTreeMap::new(),
            load: None,
            history: History::default(),
            rtt: None,
            seen_at: None,
            connected_at: None,
            connected_by: 0,
            let_in_at: None,
            lost: true,
            changed_by: 0,
            changed: 0,
            measured: 0,
        }
    }

    /// Its state as long as it is heard.
    pub(super) fn heard_state(&self) -> NodeState {
        self.standing.state(self.offer.as_ref())
    }
}

/// One account.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) statement: Statement,
    pub(super) jobs: BTreeMap<u64, JobId>,
    pub(super) live: BTreeSet<JobId>,
    /// The last event that changed what is shown of it.
    pub(super) changed_by: u64,
    pub(super) changed: u64,
}

impl Model {
    /// Knows nothing yet.
    pub(super) fn new(journal: JournalId, asset: Asset) -> Self {
        Self {
            journal,
            fence_base: 0,
            asset,
            anchors: Vec::new(),
            revision: 0,
            identities: BTreeMap::new(),
            token_makers: BTreeMap::new(),
            platform: None,
            jobs: BTreeMap::new(),
            by_age: BTreeMap::new(),
            live: BTreeSet::new(),
            nodes: BTreeMap::new(),
            node_names: BTreeMap::new(),
            accounts: BTreeMap::new(),
            events: VecDeque::new(),
            forgotten: 0,
            whole_rows: VecDeque::new(),
            rows: Rows::default(),
            gone: BTreeMap::new(),
            fresh: Fresh::default(),
            taking: 0,
            posted: BTreeSet::new(),
            crowded: BTreeSet::new(),
            ended: BTreeMap::new(),
            changed_jobs: BTreeMap::new(),
            changed_nodes: BTreeMap::new(),
            measured_nodes: BTreeMap::new(),
        }
    }

    /// The number of the last event.
    pub(super) fn upto(&self) -> u64 {
        self.forgotten + self.events.len() as u64
    }

    /// The events behind `after` that are here, or those that are left of them.
    pub(super) fn rows_after(&self, after: u64) -> impl Iterator<Item = &Row> {
        let first = usize::try_from(after.saturating_sub(self.forgotten)).unwrap_or(usize::MAX);
        self.events.range(first.min(self.events.len())..)
    }

    /// What the events since the call before led to, for the view, as far as it may be written at once. Call it until it gives
    /// nothing.
    pub(super) fn take_rows(&mut self) -> Result<Option<Rows>, ViewError> {
        match self.whole_rows.pop_front() {
            Some(rows) => rows.map(Some),
            None if self.rows.events.is_empty() => Ok(None),
            None => self.newest_rows().map(Some),
        }
    }

    fn newest_rows(&mut self) -> Result<Rows, ViewError> {
        let (upto, kept) = (self.upto(), self.take_fresh()?);
        Ok(Rows { upto, kept, ..std::mem::take(&mut self.rows) })
    }

    /// How many events and forgotten jobs wait for [`Model::take_rows`].
    pub(super) fn rows_waiting(&self) -> usize {
        let whole = self.whole_rows.iter().flatten().map(|rows| rows.events.len() + rows.forgotten.len());
        whole.sum::<usize>() + self.rows.events.len()
    }

    /// The event that forgot a job, as long as the view may have it.
    pub(super) fn forgotten_by(&self, job: JobId) -> Option<u64> {
        self.gone.get(&job).copied()
    }

    /// Jobs that were forgotten and that the view may have, with the numbers of the events.
    pub(super) fn being_forgotten(&self) -> BTreeMap<JobId, u64> {
        self.gone.clone()
    }

    /// Forgets what the view has, but for the newest: those are what most readers ask for.
    pub(super) fn forget(&mut self, applied: u64) {
        self.gone.retain(|_, number| *number > applied);
        while self.events.len() > EVENTS_KEPT && self.forgotten < applied {
            self.events.pop_front();
            self.forgotten += 1;
        }
        let crowded = std::mem::take(&mut self.crowded);
        for id in crowded {
            let Some(ended) = self.ended.get_mut(&id) else { continue };
            let mut gone = Vec::new();
            while ended.len() > ENDED_KEPT
                && let Some(oldest) = ended.front()
                && self.jobs.get(oldest).and_then(Known::ended).is_none_or(|row| row.finished <= applied)
            {
                gone.extend(ended.pop_front());
            }
            if ended.len() > ENDED_KEPT {
                self.crowded.insert(id.clone());
            }
            gone.into_iter().for_each(|job| self.drop_ended(job));
        }
        for id in std::mem::take(&mut self.posted) {
            if let Some(account) = self.accounts.get_mut(&id) {
                account.statement.forget(applied);
                if !account.statement.entries.is_empty() {
                    self.posted.insert(id);
                }
            }
        }
    }

    /// Lets go of a job that has ended.
    fn drop_ended(&mut self, id: JobId) {
        let Some(job) = self.jobs.remove(&id) else { return };
        self.by_age.remove(&job.number());
        self.changed_jobs.remove(&job.changed());
        if let Some(account) = self.accounts.get_mut(job.account()) {
            account.jobs.remove(&job.number());
        }
    }

    /// Jobs are no longer kept: nothing of them is here from now on, and the view is told.
    fn jobs_forgotten(&mut self, number: u64, jobs: &[JobId]) {
        let mut accounts = BTreeSet::new();
        for id in jobs {
            if let Some(job) = self.jobs.get(id).filter(|job| job.ended().is_some()) {
                accounts.insert(job.account().clone());
                self.drop_ended(*id);
            }
            self.gone.insert(*id, number);
        }
        for account in accounts {
            if let Some(ended) = self.ended.get_mut(&account) {
                ended.retain(|id| self.jobs.contains_key(id));
            }
        }
        self.rows.forgotten.extend_from_slice(jobs);
    }

    /// A moment of the timeline by the calendar.
    pub(super) fn wall(&self, at: Timestamp) -> WallTime {
        let after = self.anchors.partition_point(|(anchor, _)| *anchor <= at);
        match self.anchors[..after].last() {
            Some((anchor, wall)) => wall.plus(at.since(*anchor)),
            None => WallTime(0),
        }
    }

    /// The job, if the actor may see it.
    pub(super) fn visible_job(&self, actor: &Actor, job: JobId) -> Option<&Known> {
        self.jobs.get(&job).filter(|job| actor.may_touch(job.account()))
    }

    /// A job that has not ended.
    pub(super) fn live_job(&self, job: JobId) -> Option<&Job> {
        self.jobs.get(&job)?.live()
    }

    /// Whether nobody can tell how the node's jobs are, because it is silent.
    pub(super) fn is_silent(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| matches!(node.state, NodeState::Suspect | NodeState::Lost))
    }

    /// Whether the journal says that the node is lost.
    pub(super) fn is_lost(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.lost)
    }

    /// The name of a node for people.
    pub(super) fn node_name(&self, node: NodeId) -> Option<&Name> {
        self.nodes.get(&node).map(|node| &node.identity.name)
    }

    /// Takes one event in.
    pub(super) fn apply(&mut self, event: &Event) {
        debug_assert_eq!(event.number, self.upto() + 1, "events come without a gap");
        let of = describe::job_of(&event.body);
        let before = of.and_then(|job| self.live_job(job)).map(|job| job.recorded_state(self));
        self.taking = event.number;
        self.change(event);
        self.taking = 0;
        if let Some(Known::Live(job)) = of.and_then(|job| self.jobs.get_mut(&job)) {
            job.events.push(event.number);
            self.fresh.jobs.insert(job.id);
        }
        let job = of.and_then(|job| self.live_job(job));
        let after = job.map(|job| job.recorded_state(self));
        let view = describe::event(self, event, job, before, after);
        let audience = describe::audience(self, &event.body, job);
        if let (Some(job), EventBody::JobFinished { .. }) = (job, &event.body) {
            let (number, finished, events) = (job.number, event.number, job.events.clone());
            let row = JobRow { number, finished, events, view: job.view(self, event.at) };
            self.has_ended(row);
        }
        self.rows.events.push(EventRow { audience: audience.to_row(), view: view.clone() });
        self.events.push_back(Row { audience, revision: self.revision, view });
        if !self.rows.forgotten.is_empty() {
            let rows = self.newest_rows();
            self.whole_rows.push_back(rows);
        }
    }

    /// Keeps of a job only what never changes again.
    fn has_ended(&mut self, row: JobRow) {
        let (id, account) = (row.view.id, row.view.account.clone());
        let kept = self.ended.entry(account.clone()).or_default();
        kept.push_back(id);
        if kept.len() > ENDED_KEPT {
            self.crowded.insert(account);
        }
        let changed = self.jobs.get(&id).map_or(0, Known::changed);
        self.jobs.insert(id, Known::Ended(Box::new(Ended { row: row.clone(), changed })));
        self.rows.jobs.push(row);
    }

    /// Notes for the view what an event has entered into a statement.
    fn entered(&mut self, account: &AccountId, number: u64) {
        let Some(entry) = self.accounts.get(account) else { return };
        let fresh = entry.statement.entries_of(number).map(|entry| (account.clone(), entry.clone()));
        self.rows.entries.extend(fresh);
        self.posted.insert(account.clone());
    }

    /// An old copy was accepted: consoles that knew what is lost begin anew.
    pub(super) fn goes_on_as(&mut self, journal: JournalId, fence_base: u64) {
        (self.journal, self.fence_base) = (journal, fence_base);
        self.fresh.accepted = true;
    }

    fn change(&mut self, event: &Event) {
        let at = event.at;
        match &event.body {
            EventBody::EngineStarted { wall, .. } => {
                self.anchors.push((at, *wall));
                self.fresh.anchors.push((event.number, at, *wall));
            }
            EventBody::RestoreAccepted { journal, fence_base } => self.goes_on_as(*journal, *fence_base),
            EventBody::IdentityAdded { identity } => self.add_identity(identity.clone()),
            EventBody::Deposited { account, amount, why, .. } => {
                let wall = self.wall(at);
                self.account(account).statement.deposited(event.number, wall, *amount, why);
                self.entered(account, event.number);
                self.touch_account(account);
            }
            EventBody::JobQueued { job, account, spec, .. } => {
                let wall = self.wall(at);
                let (id, hold) = (*job, spec.max_cost);
                let made = Job::new(id, account.clone(), spec, event.number, at);
                self.jobs.insert(id, Known::Live(Box::new(made)));
                self.by_age.insert(event.number, id);
                self.live.insert(id);
                let account_entry = self.account(account);
                account_entry.jobs.insert(event.number, id);
                account_entry.live.insert(id);
                account_entry.statement.held(event.number, wall, id, hold);
                self.entered(account, event.number);
                self.touch_account(account);
                self.touch_job(id);
            }
            EventBody::AttemptAssigned { attempt, node, tariff, reservation, run_limit, .. } => {
                if let Some(entry) = self.nodes.get_mut(node) {
                    entry.attempts.insert(attempt.job, reservation.clone());
                }
                self.touch_node(*node);
                let fence = Fence(self.fence_base + event.number);
                self.with_job(attempt.job, |job| {
                    job.assigned(Attempt::new(event, fence, attempt.number, *node, tariff, reservation, *run_limit));
                });
            }
            EventBody::AttemptStarting { attempt } => {
                self.with_job(attempt.job, |job| job.starting(attempt.number));
            }
            EventBody::AttemptStarted { attempt } => {
                self.with_job(attempt.job, |job| job.started(attempt.number, at));
            }
            EventBody::ImagePinned { attempt, image } => {
                self.with_job(attempt.job, |job| job.image = Some(image.clone()));
            }
            EventBody::CancelRequested { job, .. } | EventBody::InputFailed { job, .. } => {
                self.with_job(*job, |job| job.cancelling = true)
            }
            EventBody::ResultRecorded { attempt, usage, output, .. } => {
                self.with_job(attempt.job, |job| job.result(attempt.number, *usage, *output, at));
            }
            EventBody::AttemptEnded { attempt, reason, message } => {
                self.free_node_of(attempt.job);
                self.with_job(attempt.job, |job| job.attempt_ended(attempt.number, *reason, message, at));
            }
            EventBody::JobFinished { job, attempt, outcome, settlement } => {
                self.free_node_of(*job);
                self.with_job(*job, |job| job.finished(*attempt, outcome, settlement, at));
                self.settled(event.number, at, *job);
            }
            EventBody::JobsForgotten { jobs } => self.jobs_forgotten(event.number, jobs),
            EventBody::NodeConnected { node, offer } => {
                let wall = self.wall(at);
                if let Some(entry) = self.nodes.get_mut(node) {
                    if let Some(offer) = offer {
                        let before = entry.offer.as_ref().map(|offer| &*offer.capabilities.gpus).unwrap_or_default();
                        entry.history.offered(before, &offer.capabilities.gpus);
                        // Which images are there is between the node and the scheduler.
                        entry.offer = Some(Offer { images: List::default(), ..(**offer).clone() });
                    }
                    entry.connected_at = Some(wall);
                    entry.connected_by = event.number;
                    entry.let_in_at = Some(wall);
                    entry.lost = false;
                    entry.seen_at = Some(wall);
                    entry.state = entry.heard_state();
                }
                self.node_state_changed(*node);
            }
            EventBody::NodeSet { node, wish, .. } => {
                if let Some(entry) = self.nodes.get_mut(node) {
                    entry.standing = Standing::of(*wish, at);
                    if !matches!(entry.state, NodeState::Suspect | NodeState::Lost) {
                        entry.state = entry.heard_state();
                    }
                }
                self.node_state_changed(*node);
            }
            EventBody::NodeLost { node } => {
                if let Some(entry) = self.nodes.get_mut(node) {
                    entry.state = NodeState::Lost;
                    entry.lost = true;
                    entry.connected_at = None;
                }
                self.node_state_changed(*node);
            }
            EventBody::MemberJoined { identity, .. } => {
                if !self.identities.contains_key(&identity.id) {
                    self.add_identity(identity.clone());
                }
            }
            EventBody::TokenCreated { token, by: Some(by), .. } => {
                self.token_makers.insert(*token, *by);
                self.fresh.tokens.push(*token);
            }
            EventBody::IdentityRevoked { identity, .. } => self.remove_node(NodeId::from(*identity)),
            EventBody::TokenCreated { by: None, .. }
            | EventBody::TokenEnded { .. }
            | EventBody::TokenAlarm { .. }
            | EventBody::CertificateIssued { .. }
            | EventBody::CertificateUsed { .. }
            | EventBody::CertificateRetired { .. } => {}
        }
    }

    /// A node that was revoked is lost for good; its name stays in the jobs that ran there.
    fn remove_node(&mut self, node: NodeId) {
        if let Some(entry) = self.nodes.get_mut(&node) {
            entry.state = NodeState::Lost;
            entry.lost = true;
            entry.connected_at = None;
            entry.revoked = true;
            self.node_names.remove(&entry.identity.name);
        }
        self.node_state_changed(node);
    }

    fn add_identity(&mut self, identity: Identity) {
        if identity.role == Role::Operator && self.platform.is_none() {
            self.platform = Some(identity.account.clone());
            self.fresh.platform = true;
        }
        self.account(&identity.account);
        self.fresh.accounts.insert(identity.account.clone());
        self.fresh.identities.insert(identity.id);
        if identity.role == Role::Node {
            let node = NodeId::from(identity.id);
            self.node_names.insert(identity.name.clone(), node);
            self.nodes.insert(node, Node::new(identity.clone()));
            self.touch_node(node);
        }
        self.identities.insert(identity.id, identity);
    }

    /// Posts the legs of a closing transfer to the statements they belong to.
    fn settled(&mut self, number: u64, at: Timestamp, id: JobId) {
        let wall = self.wall(at);
        let Some(job) = self.live_job(id) else { return };
        let (account, hold, settlement) = (job.account.clone(), job.hold, job.settlement.clone());
        let Some(settlement) = settlement else { return };
        let entry = self.account(&account);
        entry.live.remove(&id);
        entry.statement.closed(number, wall, id, hold, &settlement);
        self.live.remove(&id);
        self.touch_account(&account);
        let mut posted = BTreeSet::from([account]);
        if let Some(owner) = &settlement.owner {
            self.account(owner).statement.earned(number, wall, settlement.net);
            self.touch_account(owner);
            posted.insert(owner.clone());
        }
        if let Some(platform) = self.platform.clone() {
            self.account(&platform).statement.fee(number, wall, id, settlement.fee);
            self.touch_account(&platform);
            posted.insert(platform);
        }
        // One account can have several parts in it.
        posted.iter().for_each(|account| self.entered(account, number));
    }

    /// A node's state as the engine derives it from silence. What is wished of one that is heard is in the events: they come
    /// another way, and may be ahead of this.
    pub(super) fn node_changed(&mut self, node: NodeId, state: NodeState) {
        let Some(entry) = self.nodes.get_mut(&node) else { return };
        entry.state = match state {
            NodeState::Suspect | NodeState::Lost => state,
            NodeState::Ready | NodeState::Cordoned | NodeState::Draining | NodeState::Paused => entry.heard_state(),
        };
        if state == NodeState::Lost {
            entry.connected_at = None;
        }
        self.node_state_changed(node);
    }

    /// The engine has started again: nobody is connected, whatever the journal said last.
    pub(super) fn replayed(&mut self) {
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for node in nodes {
            if let Some(entry) = self.nodes.get_mut(&node)
                && !matches!(entry.state, NodeState::Suspect | NodeState::Lost)
            {
                entry.state = NodeState::Suspect;
                entry.connected_at = None;
                self.node_state_changed(node);
            }
        }
    }

    /// The last heartbeat wins.
    pub(super) fn heartbeat(&mut self, node: NodeId, pulse: Pulse) {
        let revision = self.revision + 1;
        let Some(entry) = self.nodes.get_mut(&node) else { return };
        entry.load = Some(pulse.load);
        entry.rtt = pulse.rtt;
        entry.seen_at = Some(pulse.seen);
        entry.history.add(pulse.boot, pulse.ticks);
        self.revision = revision;
        self.measured_nodes.remove(&entry.measured);
        entry.measured = revision;
        self.measured_nodes.insert(revision, node);
    }

    /// A node had no connection after this event; its state follows by itself when it stays silent.
    pub(super) fn disconnected(&mut self, node: NodeId, upto: u64) {
        if let Some(entry) = self.nodes.get_mut(&node)
            && entry.connected_by <= upto
        {
            entry.connected_at = None;
            self.touch_node(node);
        }
    }

    /// How far an attempt's preparation is; the last word wins.
    pub(super) fn preparing(&mut self, attempt: AttemptId, message: Text<256>) {
        self.with_job(attempt.job, |job| job.preparing(attempt.number, message));
    }

    /// How much output of an attempt is on disk.
    pub(super) fn output(&mut self, job: JobId, number: u32, stored: OutputLengths) {
        self.with_job(job, |job| job.output_grew(number, stored));
    }

    fn node_state_changed(&mut self, node: NodeId) {
        self.touch_node(node);
        // Its jobs are shown as unreachable, or no longer so.
        let jobs: Vec<JobId> =
            self.nodes.get(&node).map(|node| node.attempts.keys().copied().collect()).unwrap_or_default();
        for job in jobs {
            self.touch_job(job);
        }
    }

    fn free_node_of(&mut self, job: JobId) {
        let node = self.live_job(job).and_then(Job::live_attempt).map(|attempt| attempt.node);
        if let Some(node) = node {
            if let Some(entry) = self.nodes.get_mut(&node) {
                entry.attempts.remove(&job);
            }
            self.touch_node(node);
        }
    }

    fn with_job(&mut self, id: JobId, change: impl FnOnce(&mut Job)) {
        if let Some(Known::Live(job)) = self.jobs.get_mut(&id) {
            change(job);
            self.touch_job(id);
        }
    }

    fn account(&mut self, account: &AccountId) -> &mut Account {
        self.accounts.entry(account.clone()).or_default()
    }

    fn touch_account(&mut self, id: &AccountId) {
        self.revision += 1;
        let (revision, taking) = (self.revision, self.taking);
        let account = self.account(id);
        account.changed = revision;
        if taking != 0 {
            account.changed_by = taking;
            self.fresh.accounts.insert(id.clone());
        }
    }

    fn touch_job(&mut self, id: JobId) {
        self.revision += 1;
        let Some(job) = self.jobs.get_mut(&id) else { return };
        self.changed_jobs.remove(&job.changed());
        job.set_changed(self.revision);
        self.changed_jobs.insert(self.revision, id);
        if self.taking != 0
            && let Known::Live(job) = job
        {
            job.changed_by = self.taking;
            self.fresh.jobs.insert(id);
        }
    }

    fn touch_node(&mut self, id: NodeId) {
        self.revision += 1;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        self.changed_nodes.remove(&node.changed);
        node.changed = self.revision;
        self.changed_nodes.insert(self.revision, id);
        if self.taking != 0 {
            node.changed_by = self.taking;
            self.fresh.nodes.insert(id);
        }
    }
}

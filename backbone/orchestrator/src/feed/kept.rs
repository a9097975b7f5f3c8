//! What the view keeps of the feed's own, so that a start needs no event that the view has passed.
//!
//! Each batch for the view has, as the journal alone makes them, the live jobs, nodes, accounts, identities, makers of tokens and
//! anchors that its events have changed, and drops the jobs that have ended: these have rows. The view writes that together with
//! the number of the last event, all or nothing. So whatever a crash takes, the view has the state behind one event, whole, and
//! the journal has what came after it.
//!
//! What is not in the journal (silence, heartbeats, how far a preparation is, how much output is here) is not kept, as it is not
//! after a replay either.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use modchain_core::node::Standing;
use modchain_types::{
    AccountId, Asset, Identity, IdentityId, JobId, JournalId, NodeId, Offer, Role, Timestamp, TokenId, WallTime,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::describe::Audience;
use super::job::Job;
use super::known::{Ended, Known};
use super::model::{ENDED_KEPT, EVENTS_KEPT, Model, Node, Row};
use crate::store::record::{decode_row, encode_row};
use crate::store::view::{Kept, View, ViewError};

// The first byte of a key says what is under it. In this order they are read: accounts and identities before what is of them.
const ANCHOR: u8 = b'a';
const ACCEPTED: u8 = b'b';
const ACCOUNT: u8 = b'c';
const IDENTITY: u8 = b'i';
const JOB: u8 = b'j';
const NODE: u8 = b'n';
const PLATFORM: u8 = b'p';
const TOKEN: u8 = b't';

/// What events have changed since the last batch for the view.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    /// With the numbers of their events.
    pub(super) anchors: Vec<(u64, Timestamp, WallTime)>,
    /// Whether an old copy was accepted.
    pub(super) accepted: bool,
    pub(super) identities: BTreeSet<IdentityId>,
    pub(super) tokens: Vec<TokenId>,
    pub(super) platform: bool,
    pub(super) jobs: BTreeSet<JobId>,
    pub(super) nodes: BTreeSet<NodeId>,
    pub(super) accounts: BTreeSet<AccountId>,
}

/// A node without its identity: offer, whether it is revoked, whether it is lost, standing, event and moment of its newest
/// connection, the last event that changed it.
type NodeRow<O> = (O, bool, bool, (u8, Option<Timestamp>), u64, Option<WallTime>, u64);
/// What an account has available, held, earned; the last event that changed it.
type AccountRow = (u64, u64, u64, u64);

impl Model {
    /// What has changed since the call before, for the view.
    pub(super) fn take_fresh(&mut self) -> Result<Vec<Kept>, ViewError> {
        let fresh = std::mem::take(&mut self.fresh);
        let mut kept = Vec::new();
        let mut keep = |kind: u8, id: &[u8], row: Result<Vec<u8>, ViewError>| {
            kept.push((at(kind, id), Some(row?)));
            Ok::<(), ViewError>(())
        };
        for (number, at, wall) in fresh.anchors {
            keep(ANCHOR, &number.to_be_bytes(), encoded(&(at, wall)))?;
        }
        if fresh.accepted {
            keep(ACCEPTED, &[], encoded(&(self.journal, self.fence_base)))?;
        }
        for (id, identity) in fresh.identities.iter().filter_map(|id| self.identities.get_key_value(id)) {
            keep(IDENTITY, &id.0, encoded(identity))?;
        }
        for (token, maker) in fresh.tokens.iter().filter_map(|token| self.token_makers.get_key_value(token)) {
            keep(TOKEN, &token.0, encoded(maker))?;
        }
        if let Some(platform) = self.platform.as_ref().filter(|_| fresh.platform) {
            keep(PLATFORM, &[], encoded(platform))?;
        }
        for (id, node) in fresh.nodes.iter().filter_map(|id| self.nodes.get_key_value(id)) {
            let standing = match node.standing {
                Standing::Open => (0, None),
                Standing::Cordoned => (1, None),
                Standing::Draining(until) => (2, until),
            };
            let Node { revoked, lost, connected_by, let_in_at, changed_by, .. } = *node;
            let row: NodeRow<_> = (&node.offer, revoked, lost, standing, connected_by, let_in_at, changed_by);
            keep(NODE, &id.0, encoded(&row))?;
        }
        for (id, account) in fresh.accounts.iter().filter_map(|id| self.accounts.get_key_value(id)) {
            let statement = &account.statement;
            let row: AccountRow = (statement.available, statement.held, statement.earned, account.changed_by);
            keep(ACCOUNT, id.as_str().as_bytes(), encoded(&row))?;
        }
        for id in fresh.jobs {
            let row = self.live_job(id).map(encoded).transpose()?;
            kept.push((at(JOB, &id.0), row));
        }
        Ok(kept)
    }

    /// Takes one thing in that the view has kept.
    fn take_kept(&mut self, key: &[u8], bytes: &[u8]) -> Result<(), ViewError> {
        let (kind, id) = key.split_first().ok_or_else(|| ViewError::garbled("a key is empty"))?;
        match *kind {
            ANCHOR => self.anchors.push(decoded(bytes)?),
            ACCEPTED => (self.journal, self.fence_base) = decoded(bytes)?,
            ACCOUNT => {
                let id = std::str::from_utf8(id).ok().and_then(|id| id.parse::<AccountId>().ok());
                let account = self.accounts.entry(id.ok_or_else(|| ViewError::garbled("an account is garbled"))?);
                let account = account.or_default();
                let (available, held, earned, changed_by): AccountRow = decoded(bytes)?;
                account.changed_by = changed_by;
                account.statement.balances(available, held, earned);
            }
            IDENTITY => {
                let identity: Identity = decoded(bytes)?;
                if identity.role == Role::Node {
                    self.nodes.insert(NodeId::from(identity.id), Node::new(identity.clone()));
                }
                self.identities.insert(identity.id, identity);
            }
            JOB => {
                let job: Job = decoded(bytes)?;
                let (id, number) = (job.id, job.number);
                let account = self.accounts.entry(job.account.clone()).or_default();
                account.jobs.insert(number, id);
                account.live.insert(id);
                self.by_age.insert(number, id);
                self.live.insert(id);
                self.jobs.insert(id, Known::Live(Box::new(job)));
            }
            NODE => {
                let node = <[u8; 16]>::try_from(id).ok().and_then(|id| self.nodes.get_mut(&NodeId(id)));
                let node = node.ok_or_else(|| ViewError::garbled("a node is nobody's"))?;
                let row: NodeRow<Option<Offer>> = decoded(bytes)?;
                let (offer, revoked, lost, (standing, until), connected_by, let_in_at, changed_by) = row;
                node.standing = match standing {
                    0 => Standing::Open,
                    1 => Standing::Cordoned,
                    _ => Standing::Draining(until),
                };
                (node.offer, node.revoked, node.lost) = (offer, revoked, lost);
                (node.connected_by, node.let_in_at, node.seen_at) = (connected_by, let_in_at, let_in_at);
                node.changed_by = changed_by;
                if !lost {
                    node.state = node.heard_state();
                    node.connected_at = let_in_at;
                }
            }
            PLATFORM => self.platform = Some(decoded(bytes)?),
            TOKEN => {
                let token = id.try_into().map_err(|_| ViewError::garbled("a token is garbled"))?;
                self.token_makers.insert(TokenId(token), decoded(bytes)?);
            }
            _ => return Err(ViewError::garbled("it keeps something that is not known")),
        }
        Ok(())
    }

    /// Puts together what belongs together, once everything has been taken in.
    fn join(&mut self) {
        let attempts = self.jobs.values().filter_map(Known::live).filter_map(|job| Some((job.id, job.live_attempt()?)));
        for (job, attempt) in attempts {
            if let Some(node) = self.nodes.get_mut(&attempt.node) {
                node.attempts.insert(job, attempt.reservation.clone());
            }
        }
        let named = self.nodes.iter().filter(|(_, node)| !node.revoked);
        self.node_names = named.map(|(id, node)| (node.identity.name.clone(), *id)).collect();
    }

    /// Gives everything the place in the order of changes that it had.
    fn number_changes(&mut self, events: Vec<crate::store::view::EventRow>) {
        enum Thing {
            Job(JobId),
            Node(NodeId),
            Account(AccountId),
        }
        let jobs = self.jobs.iter().map(|(id, job)| match job {
            Known::Live(job) => (job.changed_by, Thing::Job(*id)),
            Known::Ended(ended) => (ended.row.finished, Thing::Job(*id)),
        });
        let nodes = self.nodes.iter().map(|(id, node)| (node.changed_by, Thing::Node(*id)));
        let accounts = self.accounts.iter().map(|(id, account)| (account.changed_by, Thing::Account(id.clone())));
        let mut things: Vec<(u64, Thing)> = jobs.chain(nodes).chain(accounts).filter(|(by, _)| *by > 0).collect();
        things.sort_by_key(|(by, _)| *by);
        let mut things = things.into_iter().peekable();
        for event in events {
            while let Some((_, thing)) = things.next_if(|(by, _)| *by <= event.view.number) {
                self.revision += 1;
                match thing {
                    Thing::Job(id) => {
                        self.changed_jobs.insert(self.revision, id);
                        if let Some(job) = self.jobs.get_mut(&id) {
                            job.set_changed(self.revision);
                        }
                    }
                    Thing::Node(id) => {
                        self.changed_nodes.insert(self.revision, id);
                        if let Some(node) = self.nodes.get_mut(&id) {
                            node.changed = self.revision;
                        }
                    }
                    Thing::Account(id) => {
                        if let Some(account) = self.accounts.get_mut(&id) {
                            account.changed = self.revision;
                        }
                    }
                }
            }
            let audience = Audience::from_row(event.audience.as_ref());
            self.events.push_back(Row { audience, revision: self.revision, view: event.view });
        }
    }
}

/// What the feed knew behind the last event that the view has passed. Errors mean that the view must be made anew. Blocks.
pub(super) fn restore(journal: JournalId, asset: Asset, view: &View) -> Result<Model, ViewError> {
    // The store may panic on damage.
    catch_unwind(AssertUnwindSafe(|| try_restore(journal, asset, view)))
        .unwrap_or_else(|_| Err(ViewError::garbled("it is damaged")))
}

fn try_restore(journal: JournalId, asset: Asset, view: &View) -> Result<Model, ViewError> {
    let mut model = Model::new(journal, asset);
    let applied = view.applied();
    view.kept(|key, bytes| model.take_kept(key, bytes))?;
    model.join();
    let accounts: Vec<AccountId> = model.accounts.keys().cloned().collect();
    for account in accounts {
        let mut rows = view.last_ended(&account, ENDED_KEPT)?;
        rows.reverse();
        for row in rows {
            let (id, number) = (row.view.id, row.number);
            model.ended.entry(account.clone()).or_default().push_back(id);
            model.by_age.insert(number, id);
            if let Some(account) = model.accounts.get_mut(&account) {
                account.jobs.insert(number, id);
            }
            model.jobs.insert(id, Known::Ended(Box::new(Ended { row, changed: 0 })));
        }
    }
    let events = view.last_events(EVENTS_KEPT)?;
    model.forgotten = applied.saturating_sub(events.len() as u64);
    if events.len() < EVENTS_KEPT && model.forgotten > 0
        || events.iter().zip(model.forgotten + 1..).any(|(row, number)| row.view.number != number)
    {
        return Err(ViewError::garbled("events are missing"));
    }
    model.number_changes(events);
    Ok(model)
}

fn at(kind: u8, id: &[u8]) -> Vec<u8> {
    [&[kind], id].concat()
}

fn encoded<T: Serialize>(row: &T) -> Result<Vec<u8>, ViewError> {
    encode_row(row).map_err(ViewError::garbled)
}

fn decoded<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ViewError> {
    decode_row(bytes).map_err(ViewError::garbled)
}

//! The durable part of the state as plain data: what a snapshot keeps instead of the events that led to it.
//!
//! Everything that the journal stands for is here, and nothing that is learnt again after a start. What follows from it (the
//! queue, what nodes' attempts hold together, counts) is made anew. [`Control::durable`] names every field of the machine, so
//! that one that is added cannot be forgotten here.

use std::collections::{BTreeMap, BTreeSet};

use modchain_types::{
    AccountId, Asset, Fence, JobId, JournalId, Micro, Name, NodeId, Offer, SubmitKey, Text, Timestamp,
};

use super::ended::EndedJobs;
use super::{Control, ControlConfig, EndedJob};
use crate::deadline::{Deadline, Deadlines};
use crate::job::Job;
use crate::ledger::{Account, Ledger};
use crate::membership::{EndedTokens, Member, Token, Tokens};
use crate::node::{Node, Standing};
use crate::scheduler::needs::Needs;
use crate::scheduler::queue::Queue;
use crate::scheduler::shares::Served;

/// What the journal stands for after the event `number`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Durable {
    /// What the money is.
    pub asset: Asset,
    /// The last event.
    pub number: u64,
    /// Its moment.
    pub at: Timestamp,
    /// The last start of the engine.
    pub started_at: Timestamp,
    /// The last fence that was handed out.
    pub last_fence: Fence,
    /// What the journal is called since an old copy of it was accepted.
    pub accepted: Option<JournalId>,
    /// What fences are above.
    pub fence_base: u64,
    /// Accounts with a balance.
    pub balances: Vec<(Account, i128)>,
    /// Deposits ever made: provider and key, to whom, how much.
    pub deposits: Vec<(Text<32>, SubmitKey, AccountId, Micro)>,
    /// Those that money may go to.
    pub accounts: Vec<AccountId>,
    /// Identities and what is accepted of them.
    pub members: Vec<Member>,
    /// Tokens that are remembered. Wrong proofs are not durable and zero here.
    pub tokens: Vec<Token>,
    /// Those of them that have ended, by maker, oldest first.
    pub ended_tokens: EndedTokens,
    /// Jobs that have not ended.
    pub jobs: Vec<Job>,
    /// Jobs that have, and are remembered; the holds of exactly these count as closed.
    pub ended: Vec<(JobId, EndedJob)>,
    /// Nodes.
    pub nodes: Vec<DurableNode>,
    /// Armed deadlines that can still mean something.
    pub deadlines: Vec<(Timestamp, Deadline)>,
    /// When each account that ever had a job was last given something. Without this the order among those who hold the same
    /// would begin anew with every start.
    pub served: Vec<(AccountId, Served)>,
}

/// A node without what follows from its jobs and its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurableNode {
    /// By its certificate.
    pub id: NodeId,
    /// Unique.
    pub name: Name,
    /// Whose earnings.
    pub account: AccountId,
    /// What it offers.
    pub offer: Option<Box<Offer>>,
    /// Whether it may take new jobs.
    pub standing: Standing,
    /// Whether it is lost.
    pub lost: bool,
    /// Whether its identity was revoked.
    pub revoked: bool,
}

impl Control {
    /// Copies the durable part of the state.
    pub fn durable(&self) -> Durable {
        let Self {
            config,
            number,
            at,
            started_at,
            ledger,
            members,
            tokens,
            accounts,
            jobs,
            ended,
            nodes,
            deadlines,
            last_fence,
            accepted,
            fence_base,
            // Made anew, but for when accounts were served.
            queue,
            open_jobs: _,
            shortlists: _,
            // Learnt again.
            stood_still_at: _,
            stored: _,
            output_came: _,
            late: _,
            output_waits: _,
            look_again: _,
            no_pass_before: _,
            kept: _,
            hopeless: _,
            rollback: _,
            breach: _,
        } = self;
        let (tokens, ended_tokens) = tokens.durable();
        Durable {
            asset: config.asset,
            number: *number,
            at: *at,
            started_at: *started_at,
            last_fence: *last_fence,
            accepted: *accepted,
            fence_base: *fence_base,
            balances: ledger.balances().map(|(account, balance)| (account.clone(), balance)).collect(),
            deposits: ledger.deposits().collect(),
            accounts: accounts.iter().cloned().collect(),
            members: members.values().cloned().collect(),
            tokens,
            ended_tokens,
            jobs: jobs.values().cloned().collect(),
            ended: ended.iter().map(|(id, job)| (*id, job.clone())).collect(),
            nodes: nodes.values().map(DurableNode::from).collect(),
            deadlines: deadlines.iter().filter(|(at, deadline)| self.may_matter(*at, *deadline)).collect(),
            served: queue.shares().served().map(|(account, served)| (account.clone(), served)).collect(),
        }
    }

    /// Whether a deadline is not about a job or an attempt that is over.
    fn may_matter(&self, at: Timestamp, deadline: Deadline) -> bool {
        match deadline {
            // One at another moment is of a job of the same key that was forgotten.
            Deadline::StartBy(job) => self
                .jobs
                .get(&job)
                .is_some_and(|job| job.spec.limits.start_by.is_some_and(|span| job.queued_at + span == at)),
            Deadline::Accept(attempt, fence)
            | Deadline::Prepare(attempt, fence)
            | Deadline::Overdue(attempt, fence)
            | Deadline::StopConfirm(attempt, fence)
            | Deadline::Output(attempt, fence)
            | Deadline::AttemptLost(attempt, fence) => {
                self.jobs.get(&attempt.job).is_some_and(|job| job.placement_of(attempt, fence).is_some())
            }
            Deadline::NodeSuspect(_)
            | Deadline::NodeLost(_)
            | Deadline::CoolDown(_)
            | Deadline::TokenExpires(_)
            | Deadline::TokenBound(_)
            | Deadline::CertificateRetires(..)
            | Deadline::Drained(_)
            | Deadline::RevokedWork(_) => true,
        }
    }

    /// The machine that had this durable state; go on with the events after it. [`Control::audit`] tells whether it is sound.
    pub fn restore(config: ControlConfig, durable: Durable) -> Self {
        let Durable {
            asset,
            number,
            at,
            started_at,
            last_fence,
            accepted,
            fence_base,
            balances,
            deposits,
            accounts,
            members,
            tokens,
            ended_tokens,
            mut jobs,
            ended,
            nodes,
            deadlines,
            served,
        } = durable;
        let mut nodes: BTreeMap<NodeId, Node> = nodes.into_iter().map(|node| (node.id, node.into_node(at))).collect();
        let (mut queue, mut open_jobs) = (Queue::new(config.ceilings.clone()), BTreeMap::new());
        for (account, served) in served {
            queue.was_served(account, served);
        }
        for node in nodes.values().filter(|node| !node.revoked) {
            queue.offered(None, node.offer.as_deref());
        }
        for job in &mut jobs {
            job.needs = queue.shared(Needs::clone(&job.needs));
            *open_jobs.entry(job.account.clone()).or_insert(0) += 1;
            match job.placement() {
                None => queue.insert(job),
                Some(placement) => {
                    queue.placed(&job.account, &placement.reservation, placement.fence.0);
                    if let Some(node) = nodes.get_mut(&placement.node) {
                        node.placed.insert(job.id);
                        node.taken.add(&placement.reservation);
                    }
                }
            }
        }
        let closed: BTreeSet<JobId> = ended.iter().map(|(id, _)| *id).collect();
        Self {
            number,
            at,
            started_at,
            last_fence,
            accepted,
            fence_base,
            ledger: Ledger::restore(balances, deposits, closed),
            members: members.into_iter().map(|member| (member.identity.id, member)).collect(),
            tokens: Tokens::restore(tokens, ended_tokens),
            accounts: accounts.into_iter().collect(),
            jobs: jobs.into_iter().map(|job| (job.id, job)).collect(),
            ended: EndedJobs::restore(ended),
            nodes,
            queue,
            open_jobs,
            deadlines: Deadlines::restore(deadlines),
            look_again: true,
            ..Self::new(ControlConfig { asset, ..config })
        }
    }
}

impl From<&Node> for DurableNode {
    fn from(node: &Node) -> Self {
        let Node { id, name, account, offer, placed: _, taken: _, standing, lost, revoked, presence: _ } = node;
        Self {
            id: *id,
            name: name.clone(),
            account: account.clone(),
            offer: offer.clone(),
            standing: *standing,
            lost: *lost,
            revoked: *revoked,
        }
    }
}

impl DurableNode {
    fn into_node(self, now: Timestamp) -> Node {
        let Self { id, name, account, offer, standing, lost, revoked } = self;
        Node { offer, standing, lost, revoked, ..Node::new(id, name, account, now) }
    }
}

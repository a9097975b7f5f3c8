//! The orchestrator's root machine.
//!
//! [`Control::decide`] looks at a command and says what follows; [`Control::evolve`] takes an event into the state and is the
//! only thing that changes what the journal stands for. Connections, silence and cool-downs are not durable: after a restart
//! they are learnt again from the agents' hellos, and for a minute nobody is declared lost.
//!
//! * `membership.rs`: identities, tokens, certificates, revocation
//! * `client.rs`: money, submit, cancel
//! * `agent.rs`: hello and reconciling, reports, output
//! * `ending.rs`: from an attempt's ending to a settlement or a retry
//! * `ended.rs`: what is remembered of jobs that have ended, and when it is forgotten
//! * `nodes.rs`: cordon, drain, open
//! * `due.rs`: deadlines and placing
//! * `evolve.rs`: events into state
//! * `durable.rs`: the durable state as plain data, for snapshots

mod agent;
mod client;
mod due;
mod durable;
mod ended;
mod ending;
mod evolve;
mod membership;
mod nodes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use modchain_types::{
    AccountId, Asset, AttemptId, Fence, Identity, IdentityId, JobId, JobSpec, JournalId, Name, NodeId, OutputLengths,
    Span, Timestamp,
};

pub use durable::{Durable, DurableNode};
pub use ended::EndedJob;

use due::Late;
use ended::EndedJobs;

use crate::audit::{self, Breach};
use crate::command::{Command, Refused, Reply};
use crate::deadline::{Deadline, Deadlines};
use crate::effect::{Effect, NodeMessage};
use crate::event::{Event, EventBody};
use crate::job::Job;
use crate::ledger::Ledger;
use crate::membership::{ALARM_SHOWN_FOR, Member, TokenEnd, TokenState, Tokens, WRONG_PROOFS_MAX};
use crate::node::Node;
use crate::scheduler::amounts::Amounts;
use crate::scheduler::explain::{self, Kept, NodeFit};
use crate::scheduler::needs::{Needs, SharedNeeds};
use crate::scheduler::outlook::{self, Outlook};
use crate::scheduler::queue::{Ceilings, Queue};
use crate::scheduler::shortlist::Shortlists;

/// Events that deadlines bring about in one pass. Bounds one journal record; the next pass follows at once.
const EVENTS_PER_PASS_MAX: usize = 4096;

/// Fences that a lost past can have handed out at the very most: a trillion, which no journal comes to.
const FENCES_LOST_MAX: u64 = 1 << 40;
/// And in a second. So the calendar keeps fences apart that begin anew from the same copy, or from an even older one.
const FENCES_PER_SECOND_MAX: u64 = 1 << 20;

/// What the machine is made with. Everything that could change a bill is frozen in events when it is first used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlConfig {
    /// What the journal's money is.
    pub asset: Asset,
    /// The platform's part of each cost, in hundredths of a percent: 500 is 5 %.
    pub fee_basis_points: u16,
    /// Jobs of one account that may be open at once.
    pub open_jobs_max: u32,
    /// Lease of attempts with `on_disconnect = stop`.
    pub lease: Span,
    /// How far priorities count between accounts.
    pub ceilings: Ceilings,
}

impl ControlConfig {
    /// 5 % fee, 100,000 open jobs an account, 30 s lease, no priority above 0 between accounts.
    pub fn new(asset: Asset) -> Self {
        Self {
            asset,
            fee_basis_points: 500,
            open_jobs_max: 100_000,
            lease: Span::from_secs(30),
            ceilings: Ceilings::default(),
        }
    }
}

/// What a command or the passing of time led to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// To be appended to the journal as one record, synced before anything below is let out.
    pub events: Vec<Event>,
    /// To be done afterwards, in order.
    pub effects: Vec<Effect>,
    /// The answer, for commands.
    pub reply: Option<Reply>,
}

/// The orchestrator's root machine.
#[derive(Debug, Clone)]
pub struct Control {
    config: ControlConfig,

    // What the journal stands for.
    number: u64,
    at: Timestamp,
    started_at: Timestamp,
    ledger: Ledger,
    members: BTreeMap<IdentityId, Member>,
    tokens: Tokens,
    /// Every account of an identity: those that money may go to.
    accounts: BTreeSet<AccountId>,
    jobs: BTreeMap<JobId, Job>,
    ended: EndedJobs,
    nodes: BTreeMap<NodeId, Node>,
    /// What the journal is called since an old copy of it was accepted; before that by its own id.
    accepted: Option<JournalId>,
    /// Added to the numbers of assignments, so that no fence is handed out that a lost past has handed out already.
    fence_base: u64,

    // What follows from it, kept beside it.
    /// Exactly the jobs in `Phase::Queued`.
    queue: Queue,
    /// The best nodes for each class of them.
    shortlists: Shortlists,
    /// Jobs in `jobs` per account.
    open_jobs: BTreeMap<AccountId, u32>,
    deadlines: Deadlines,

    // What is forgotten when the engine stops.
    /// When it last stood still.
    stood_still_at: Timestamp,
    /// Synced output of live attempts whose agents have sent all of it.
    stored: BTreeMap<AttemptId, OutputLengths>,
    /// When output of live attempts whose result waits for it came last.
    output_came: BTreeMap<AttemptId, Timestamp>,
    /// Deadlines that have come and wait once more, until their node has had its time.
    late: BTreeMap<Deadline, Late>,
    /// Whether output cannot be stored for want of room: results wait for theirs as long as that lasts.
    output_waits: bool,
    /// Whether something changed that could let a queued job be placed.
    look_again: bool,
    /// No pass before this: the last one has looked at many classes in vain.
    no_pass_before: Timestamp,
    /// The node that the last pass kept free for a job that has waited for long.
    kept: Option<Kept>,
    /// Classes that no node could ever take, unless one has become better since: looking for one each time would take as many
    /// looks as there are such classes and nodes.
    hopeless: BTreeSet<SharedNeeds>,
    /// The last fence that was handed out.
    last_fence: Fence,
    /// A node's authentic fence above our last one: we were rolled back. Not compared with our number, which every start
    /// and every connection raises: an old copy that is restarted a few times would forget what it lacks.
    rollback: Option<Fence>,
    breach: Option<Breach>,
}

impl Control {
    /// A machine without a past. Replay the journal into it with [`Control::evolve`], then give it
    /// [`Command::EngineStarted`].
    pub fn new(config: ControlConfig) -> Self {
        Self {
            queue: Queue::new(config.ceilings.clone()),
            config,
            number: 0,
            at: Timestamp::ZERO,
            started_at: Timestamp::ZERO,
            ledger: Ledger::default(),
            members: BTreeMap::new(),
            tokens: Tokens::default(),
            accounts: BTreeSet::new(),
            jobs: BTreeMap::new(),
            ended: EndedJobs::default(),
            nodes: BTreeMap::new(),
            accepted: None,
            fence_base: 0,
            shortlists: Shortlists::default(),
            open_jobs: BTreeMap::new(),
            deadlines: Deadlines::default(),
            stood_still_at: Timestamp::ZERO,
            stored: BTreeMap::new(),
            output_came: BTreeMap::new(),
            late: BTreeMap::new(),
            output_waits: false,
            look_again: false,
            no_pass_before: Timestamp::ZERO,
            kept: None,
            hopeless: BTreeSet::new(),
            last_fence: Fence(0),
            rollback: None,
            breach: None,
        }
    }

    /// Decides a command. Changes nothing durable: only [`Control::evolve`] does. `now` is never before the last event.
    pub fn decide(&mut self, now: Timestamp, command: Command) -> Decision {
        let mut draft = Draft::new(self, now);
        let revoked = command.actor().is_some_and(|by| self.member(by.id).is_some_and(|by| by.revoked.is_some()));
        if revoked {
            // It was sent before its connection was cut, and comes after the revocation.
            draft.decision.reply = Some(Reply::Refused(Refused::Revoked));
            return draft.decision;
        }
        let reply = match command {
            Command::EngineStarted { boot, boot_clock, wall, version } => {
                draft.emit(EventBody::EngineStarted { boot, boot_clock, wall, version });
                Ok(Reply::Done)
            }
            Command::AcceptRestore { journal, wall } => {
                let seconds = u64::try_from(wall.0 / 1_000).unwrap_or(0);
                let by_calendar = seconds.saturating_mul(FENCES_PER_SECOND_MAX);
                let fence_base = self.fence_base.saturating_add(FENCES_LOST_MAX).max(by_calendar);
                draft.emit(EventBody::RestoreAccepted { journal, fence_base });
                Ok(Reply::Done)
            }
            Command::AddIdentity { identity, certificate } => self.add_identity(identity, certificate, &mut draft),
            Command::CreateToken { by, token, verifier, role, name, account, rejoin, ttl } => {
                let wish = membership::TokenWish { role, name, account, rejoin };
                self.create_token(&by, token, verifier, wish, ttl, &mut draft)
            }
            Command::AddFirstToken { token, verifier, ttl } => self.add_first_token(token, verifier, ttl, &mut draft),
            Command::RevokeToken { by, token } => self.revoke_token(&by, token, &mut draft),
            Command::Redeem(redemption) => self.redeem(*redemption, &mut draft),
            Command::WrongProof { token } => self.wrong_proof(token, &mut draft),
            Command::Renew { identity, using, certificate } => self.renew(identity, using, certificate, &mut draft),
            Command::CertificateUsed { identity, serial } => Ok(self.certificate_used(identity, serial, &mut draft)),
            Command::RevokeIdentity { by, identity, wall, why } => {
                self.revoke_identity(&by, identity, wall, why, &mut draft)
            }
            Command::Credit { by, account, amount, key, why } => self.credit(by, account, amount, key, why, &mut draft),
            Command::Submit { by, key, spec, spec_digest, no_queue } => {
                self.submit(by, key, spec, spec_digest, no_queue, &mut draft)
            }
            Command::Cancel { by, job, grace, why } => self.cancel(by, job, grace, why, &mut draft),
            Command::ForgetJobs { jobs } => self.forget_jobs(jobs, &mut draft),
            Command::AgentConnected { node, session, arrival } => {
                self.agent_connected(node, session, *arrival, &mut draft)
            }
            Command::AgentDisconnected { node, session } => self.agent_disconnected(node, session),
            Command::AgentHeard { node, session } => self.agent_heard(node, session, &mut draft),
            Command::NodeSet { by, node, wish, why } => self.node_set(&by, node, wish, why, &mut draft),
            Command::OfferChanged { node, session, offer } => self.offer_changed(node, session, offer, &mut draft),
            Command::Report { node, session, report } => self.report(node, session, report, &mut draft),
            Command::OutputStored { attempt, fence, stored } => {
                self.output_stored(attempt, fence, stored, &mut draft);
                Ok(Reply::Done)
            }
            Command::OutputComes { attempt, fence } => {
                self.output_comes(attempt, fence, now);
                Ok(Reply::Done)
            }
            Command::BodyUnreadable { attempt, fence, message } => {
                self.body_unreadable(attempt, fence, message, &mut draft);
                Ok(Reply::Done)
            }
            Command::InputFailed { job, message } => {
                self.input_failed(job, message, &mut draft);
                Ok(Reply::Done)
            }
        };
        draft.decision.reply = Some(reply.unwrap_or_else(Reply::Refused));
        draft.decision
    }

    /// Decides a command and takes its events in.
    pub fn apply(&mut self, now: Timestamp, command: Command) -> Decision {
        let decision = self.decide(now, command);
        self.take(decision)
    }

    /// Fires every deadline that has come, places every job that fits, and takes the events in, as far as one pass goes. Call
    /// after each batch of commands and as long as [`Control::next_deadline`] has come.
    pub fn advance(&mut self, now: Timestamp) -> Decision {
        let now = now.max(self.at);
        let mut whole = Decision::default();
        while whole.events.len() < EVENTS_PER_PASS_MAX
            && let Some(deadline) = self.deadlines.pop_due(now)
        {
            let mut draft = Draft::new(self, now);
            self.fire(deadline, &mut draft);
            whole.absorb(self.take(draft.decision));
        }
        // What is overdue goes first, over as many passes as that takes: a job that is to end must not be placed before.
        if self.deadlines.next().is_none_or(|at| at > now) {
            self.place(now, &mut whole);
        }
        whole
    }

    /// Tells whether output cannot be stored at present, because there is no room for it. Not durable.
    pub fn set_output_waits(&mut self, waits: bool) {
        self.output_waits = waits;
    }

    /// The engine could not look for a while (it was stopped, or its machine slept): what nodes said meanwhile may still wait
    /// to be heard. Their silence is counted from now on, and everybody has the time to come back that a start gives.
    pub fn stood_still(&mut self, now: Timestamp) {
        self.stood_still_at = now;
        let connected = self.nodes.values_mut().filter(|node| node.session().is_some());
        let heard: Vec<NodeId> = connected
            .map(|node| {
                node.presence.heard = now;
                node.id
            })
            .collect();
        // What waits for the end of a silence lets go of it when a node is heard: that of these begins again.
        heard.into_iter().for_each(|id| self.watch(id));
    }

    /// Since when it has been listening: its start, or the end of a standstill.
    fn listening_since(&self) -> Timestamp {
        self.started_at.max(self.stood_still_at)
    }

    /// When to call [`Control::advance`] if no command comes.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let looks = self.look_again && self.rollback.is_none() && !self.queue.is_empty();
        let pass = looks.then(|| self.at.max(self.no_pass_before));
        pass.into_iter().chain(self.deadlines.next()).min()
    }

    /// The number of the last event; 0 before the first.
    pub fn last_number(&self) -> u64 {
        self.number
    }

    /// The moment of the last event.
    pub fn last_at(&self) -> Timestamp {
        self.at
    }

    /// Every node with its fitness for a job that would be queued, best first among those that fit, then by name.
    pub fn fitness(&self, now: Timestamp, spec: &JobSpec) -> Vec<NodeFit> {
        self.judge(now, &Needs::of(spec, None), &BTreeSet::new(), self.kept)
    }

    /// Every node with its fitness for a job that is queued; `None` unless it is.
    pub fn fitness_of(&self, now: Timestamp, job: JobId) -> Option<Vec<NodeFit>> {
        let job = self.queued(job)?;
        let kept = self.kept.filter(|kept| kept.job != job.id);
        Some(self.judge(now, &job.needs, &job.avoided, kept))
    }

    fn judge(&self, now: Timestamp, needs: &Needs, avoided: &BTreeSet<NodeId>, kept: Option<Kept>) -> Vec<NodeFit> {
        explain::fitness(self.nodes.values().filter(|node| !node.revoked), now, needs, avoided, kept)
    }

    /// How a queued job stands; `None` unless it is queued.
    pub fn outlook(&self, now: Timestamp, job: JobId) -> Option<Outlook> {
        let job = self.queued(job)?;
        let ahead = self.queue.ahead(job);
        let counts_as = self.queue.ceilings().counts_as(&job.account, job.spec.priority);
        let nodes = self.nodes.values().filter(|node| !node.revoked);
        let starts_within = outlook::starts_within(nodes, &self.jobs, now, &job.needs, ahead.all);
        Some(Outlook { ahead, counts_as, starts_within })
    }

    /// How many queued jobs go before this one; `None` unless it is queued.
    pub fn jobs_ahead(&self, job: JobId) -> Option<u64> {
        self.queued(job).map(|job| self.queue.ahead(job).all)
    }

    fn queued(&self, job: JobId) -> Option<&Job> {
        self.jobs.get(&job).filter(|job| job.placement().is_none())
    }

    /// How often a node was judged for a placement so far: what placing costs, whatever the machine.
    pub fn nodes_judged(&self) -> u64 {
        self.shortlists.judged()
    }

    /// The specification of a job that has not ended.
    pub fn spec(&self, job: JobId) -> Option<&JobSpec> {
        self.jobs.get(&job).map(|job| &*job.spec)
    }

    /// A job that has not ended.
    pub fn job(&self, job: JobId) -> Option<&Job> {
        self.jobs.get(&job)
    }

    /// Every job that has not ended.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// What is remembered of a job that has ended; `None` also once that is forgotten.
    pub fn ended(&self, job: JobId) -> Option<&EndedJob> {
        self.ended.get(&job)
    }

    /// How many ended jobs are remembered.
    pub fn ended_count(&self) -> usize {
        self.ended.len()
    }

    /// Every ended job that is remembered, the one that ended first before the others.
    pub fn ended_oldest(&self) -> impl Iterator<Item = (JobId, &EndedJob)> {
        self.ended.oldest()
    }

    /// A node.
    pub fn node(&self, node: NodeId) -> Option<&Node> {
        self.nodes.get(&node)
    }

    /// Every node.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// An identity.
    pub fn identity(&self, id: IdentityId) -> Option<&Identity> {
        self.members.get(&id).map(|member| &member.identity)
    }

    /// The identity of this name.
    pub fn identity_named(&self, name: &Name) -> Option<&Identity> {
        self.member_named(name).map(|member| &member.identity)
    }

    /// A member.
    pub fn member(&self, id: IdentityId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// The member of this name.
    pub fn member_named(&self, name: &Name) -> Option<&Member> {
        self.members.values().find(|member| member.identity.name == *name)
    }

    /// Every member.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Every token that is remembered.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// What looks like theft or tampering, newest first: a key that came with a token after another one had used it, and a
    /// token that was tried with wrong secrets until it was ended.
    pub fn alarms(&self, now: Timestamp) -> Vec<String> {
        let shown = |at: &Timestamp| now.since(*at) < ALARM_SHOWN_FOR;
        let mut alarms: Vec<(Timestamp, String)> = Vec::new();
        for token in self.tokens.iter() {
            if let (TokenState::Ended(TokenEnd::Misused), Some(at)) = (token.state, token.ended_at.filter(shown)) {
                let text = format!(
                    "token {} came {WRONG_PROOFS_MAX} times with a wrong secret and was ended: \
                     whoever should join needs a new one",
                    token.id
                );
                alarms.push((at, text));
            }
            let Some(binding) = &token.binding else { continue };
            let Some(member) = self.members.get(&binding.identity).filter(|member| member.revoked.is_none()) else {
                continue;
            };
            let Identity { role, name, .. } = &member.identity;
            alarms.extend(token.alarms.iter().filter(|alarm| shown(&alarm.at)).map(|alarm| {
                let text = format!(
                    "token {} came a second time with another key, from {}; the first user is {role}/{name}, from {}: \
                     if one of them is a stranger, revoke {role}/{name}",
                    token.id, alarm.from, binding.from,
                );
                (alarm.at, text)
            }));
        }
        alarms.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        alarms.into_iter().map(|(_, text)| text).collect()
    }

    /// The money.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What the machine was made with.
    pub fn config(&self) -> &ControlConfig {
        &self.config
    }

    /// The last fence that was handed out.
    pub fn last_fence(&self) -> Fence {
        self.last_fence
    }

    /// What the journal is called, if an old copy of it was accepted, and what its fences are above.
    pub fn accepted(&self) -> Option<(JournalId, u64)> {
        self.accepted.map(|journal| (journal, self.fence_base))
    }

    /// What is wrong with the whole, if anything: a breached invariant or a rolled-back journal. Money is frozen then.
    pub fn problems(&self) -> Vec<String> {
        self.rolled_back().into_iter().chain(self.breach.as_ref().map(ToString::to_string)).collect()
    }

    /// Whether something has shown that the journal is an old copy.
    pub fn is_rolled_back(&self) -> bool {
        self.rollback.is_some()
    }

    /// What shows that the journal is an old copy, if anything does. Who joined or was revoked since then is not known.
    fn rolled_back(&self) -> Option<String> {
        let fence = self.rollback?;
        Some(format!(
            "a node has seen fence {}, and the last one in this journal is {}: it was rolled back; nothing is scheduled, and \
             who joined or was revoked since then is not known. The operator stops the orchestrator and brings the newest data \
             back or, if there is none, goes on from this one: `modchain-orchestrator accept-restore --yes`",
            fence.0, self.last_fence.0,
        ))
    }

    /// Checks every invariant over the whole state; tells the first that is broken.
    pub fn audit(&self) -> Result<(), Breach> {
        audit::whole(self)
    }

    /// Whether the queue and the counts kept beside the jobs are what the jobs say.
    pub(crate) fn queue_agrees(&self) -> Result<(), Breach> {
        if !self.tokens.agree() {
            return Err(Breach { what: "the list of ended tokens is not what the tokens say".into() });
        }
        if !self.ended.agree() {
            return Err(Breach { what: "the order of the ended jobs is not what they say".into() });
        }
        if !self.ledger.closed().eq(self.ended.iter().map(|(id, _)| id)) {
            return Err(Breach { what: "the jobs whose holds were closed are not those that have ended".into() });
        }
        let queued = self.jobs.values().filter(|job| job.placement().is_none()).count();
        let open: u64 = self.open_jobs.values().map(|count| u64::from(*count)).sum();
        if queued != self.queue.len() || open != self.jobs.len() as u64 {
            let what = format!(
                "{queued} jobs wait and {} are queued; {} are open and {open} counted",
                self.queue.len(),
                self.jobs.len()
            );
            return Err(Breach { what });
        }
        self.shares_agree()
    }

    /// Whether what accounts are said to hold is what their jobs hold, and the whole what the nodes offer.
    fn shares_agree(&self) -> Result<(), Breach> {
        let mut held: BTreeMap<&AccountId, Amounts> = BTreeMap::new();
        for job in self.jobs.values() {
            if let Some(placement) = job.placement() {
                let entry = held.entry(&job.account).or_default();
                *entry = entry.plus((&placement.reservation).into());
            }
        }
        let known: BTreeMap<&AccountId, Amounts> = self
            .queue
            .shares()
            .held()
            .filter(|(_, held)| **held != Amounts::default())
            .map(|(account, held)| (account, *held))
            .collect();
        let offers = self.nodes.values().filter(|node| !node.revoked).filter_map(|node| node.offer.as_deref());
        let whole = offers.fold(Amounts::default(), |sum, offer| sum.plus((&offer.capabilities).into()));
        if held != known || whole != *self.queue.shares().whole() {
            let what = format!("accounts hold {held:?} of {whole:?}, and the queue goes by {:?}", self.queue.shares());
            return Err(Breach { what });
        }
        Ok(())
    }

    /// Takes the events of a decision in, after checking each. One that would break an invariant is dropped whole: nothing of
    /// it happens, and money is frozen.
    fn take(&mut self, decision: Decision) -> Decision {
        if let Err(breach) = decision.events.iter().try_for_each(|event| audit::event(self, event)) {
            let why = breach.what.clone();
            self.breach.get_or_insert(breach);
            return Decision {
                reply: decision.reply.map(|_| Reply::Refused(Refused::Frozen { why })),
                ..Decision::default()
            };
        }
        decision.events.iter().for_each(|event| self.evolve(event));
        decision
    }

    /// Why no new money may move, if so.
    fn frozen(&self) -> Result<(), Refused> {
        match self.problems().into_iter().next() {
            Some(why) => Err(Refused::Frozen { why }),
            None => Ok(()),
        }
    }

    /// Tells a node something, if it is connected.
    fn tell(&self, node: NodeId, message: NodeMessage, draft: &mut Draft) {
        if let Some(session) = self.nodes.get(&node).and_then(Node::session) {
            draft.effect(Effect::ToNode { node, session, message });
        }
    }
}

impl Decision {
    fn absorb(&mut self, other: Decision) {
        self.events.extend(other.events);
        self.effects.extend(other.effects);
    }
}

/// A decision in the making.
struct Draft {
    decision: Decision,
    next: u64,
    now: Timestamp,
}

impl Draft {
    fn new(control: &Control, now: Timestamp) -> Self {
        // A clock that went back would break the order of events; standing still is harmless.
        Self { decision: Decision::default(), next: control.number + 1, now: now.max(control.at) }
    }

    /// Adds an event; returns its number.
    fn emit(&mut self, body: EventBody) -> u64 {
        let number = self.next;
        self.next += 1;
        self.decision.events.push(Event { number, at: self.now, body });
        number
    }

    fn effect(&mut self, effect: Effect) {
        self.decision.effects.push(effect);
    }
}

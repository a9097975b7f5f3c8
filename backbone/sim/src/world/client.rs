//! The workload, and what clients may expect of answers. A client repeats its request, with the same key, until it has an
//! answer; so the orchestrator sees some requests several times, also after it has died over them.

use std::collections::BTreeMap;

use modchain_core::{Actor, Command, Refused, Reply};
use modchain_types::{
    AccountId, Adapter, Digest, Exceptions, GpuRequest, IdentityId, Input, JobId, JobSpec, Limits, List, Map, Micro,
    NodeId, NodeWish, OnDisconnect, Policy, Requirements, Role, Span, SubmitKey, Task, TaskBody, Text, WasmTask,
};

use super::member::owner_with;
use super::orchestrator::Answer;
use super::{Happening, World};
use crate::auditor::{Breach, Rule, rule};
use crate::random::Random;

/// That a step of the workload makes a world forget that does so at all, in 100,000: some twenty times.
const FORGETS_AT_STEP: u32 = 5_000;

#[derive(Debug, Default)]
pub(super) struct Clients {
    accounts: Vec<AccountId>,
    /// What was asked for and not answered yet.
    requests: BTreeMap<u64, Wish>,
    asked: u64,
    /// Steps of the workload so far.
    pub(super) steps: u64,
    /// Every job that was ever asked for, by what it was asked with.
    submits: Vec<Submit>,
    /// What each accepted job was accepted with, unless it is forgotten: the digest and the hold.
    accepted: BTreeMap<JobId, (Digest, Micro)>,
    introduced: bool,
}

impl Clients {
    pub(super) fn accounts(&self) -> &[AccountId] {
        &self.accounts
    }

    /// What the keys of these jobs made is gone: they make others from here on.
    pub(super) fn forget(&mut self, jobs: &[JobId]) {
        for job in jobs {
            self.accepted.remove(job);
        }
    }

    pub(super) fn introduced(&self) -> bool {
        self.introduced
    }
}

#[derive(Debug, Clone)]
struct Submit {
    job: JobId,
    account: AccountId,
    key: SubmitKey,
    spec: Box<JobSpec>,
    digest: Digest,
    no_queue: bool,
    /// Whether a bound is broken on purpose.
    valid: bool,
}

#[derive(Debug, Clone)]
enum Wish {
    Submit(Submit),
    Cancel { by: Actor, job: JobId, grace: Span },
    Credit { account: AccountId, amount: Micro, key: SubmitKey },
    NodeSet { by: Actor, node: NodeId, wish: NodeWish },
}

pub(super) fn operator() -> Actor {
    Actor { id: IdentityId([0; 16]), role: Role::Operator, account: account("operator") }
}

fn account(name: &str) -> AccountId {
    name.parse().expect("a valid name")
}

fn key(text: String) -> SubmitKey {
    text.parse().expect("a valid key")
}

impl World {
    pub(super) fn populate_clients(&mut self) {
        self.clients.accounts = (0..self.swarm.clients).map(|number| account(&format!("client-{number}"))).collect();
        self.at(self.now + Span::from_secs(3), Happening::ClientActs);
    }

    fn client(&self, account: &AccountId) -> Actor {
        let number = self.clients.accounts.iter().position(|known| known == account).expect("one of the accounts");
        Actor { id: IdentityId([100 + number as u8; 16]), role: Role::Client, account: account.clone() }
    }

    /// Everybody who does not join by a token; again after each start until all of it is known.
    pub(super) fn introduce_everybody(&mut self) -> Result<(), Breach> {
        if self.clients.introduced {
            return Ok(());
        }
        for command in self.introductions() {
            match self.command(command)? {
                Answer::Reply(reply) => {
                    rule(Rule::AnswersKept, reply == Reply::Done, || format!("introducing gives {reply:?}"))?;
                }
                Answer::Died => return Ok(()),
            }
        }
        self.clients.introduced = true;
        Ok(())
    }

    /// Credit for a client that has come in.
    pub(super) fn welcome(&mut self, account: &AccountId) {
        let key = key(format!("first-{account}"));
        self.ask(Wish::Credit { account: account.clone(), amount: Micro(20_000_000), key });
    }

    pub(super) fn client_acts(&mut self) -> Result<(), Breach> {
        if self.clients.steps >= self.swarm.steps {
            return Ok(());
        }
        self.clients.steps += 1;
        let next = self.soon(self.swarm.pace);
        self.at(next, Happening::ClientActs);
        let wish = self.draw_wish();
        self.ask(wish);
        if self.forgets.as_mut().is_some_and(|forgets| forgets.chance(FORGETS_AT_STEP)) {
            self.some_jobs_are_forgotten()?;
        }
        Ok(())
    }

    /// An operator, the node's owner, or a client whom it does not concern has a wish for a node.
    pub(super) fn node_is_set(&mut self, node: NodeId) {
        let account = self.clients.accounts[self.random.below(self.clients.accounts.len() as u64) as usize].clone();
        let who = self.random.below(10);
        let by = match (who, self.auditor.owner_of(node).and_then(owner_with)) {
            (0, _) => self.client(&account),
            (1..5, Some(owner)) => owner,
            _ => operator(),
        };
        let within = Some(Span::from_secs(self.random.pick(&[0, 1, 30, 300])));
        let drain = NodeWish::Drain { within };
        let wishes = [NodeWish::Open, NodeWish::Open, NodeWish::Cordon, NodeWish::Drain { within: None }, drain, drain];
        let wish = self.random.pick(&wishes);
        self.ask(Wish::NodeSet { by, node, wish });
    }

    /// Cancels every job that is still open.
    pub(super) fn cancel_everything(&mut self) -> Result<(), Breach> {
        let control = self.orchestrator.control.as_ref().expect("it came back");
        let open: Vec<JobId> = control.jobs().map(|job| job.id).collect();
        for job in open {
            let grace = Span::from_secs(self.random.below(60));
            self.ask(Wish::Cancel { by: operator(), job, grace });
        }
        Ok(())
    }

    /// Jobs whose acceptance a client has heard of, or may have.
    pub(super) fn accepted(&self) -> impl Iterator<Item = JobId> {
        self.clients.accepted.keys().copied()
    }

    /// Requests that were never answered.
    pub(super) fn unanswered(&self) -> Vec<u64> {
        self.clients.requests.keys().copied().collect()
    }

    fn ask(&mut self, wish: Wish) {
        self.clients.asked += 1;
        let number = self.clients.asked;
        self.clients.requests.insert(number, wish);
        let at = self.soon(self.swarm.delay_max);
        self.at(at, Happening::Request(number));
        if self.random.chance(self.swarm.request_twice) {
            self.fault("request sent twice");
            let at = self.soon(self.swarm.delay_max);
            self.at(at, Happening::Request(number));
        }
    }

    pub(super) fn request_arrives(&mut self, number: u64) -> Result<(), Breach> {
        let Some(wish) = self.clients.requests.get(&number).cloned() else { return Ok(()) };
        let is_full = self.now < self.orchestrator.nearly_full_until.max(self.orchestrator.full_until);
        if is_full && matches!(wish, Wish::Submit(_) | Wish::Credit { .. }) {
            // Refused before it is decided: it may come again.
            self.ask_again(number);
            return Ok(());
        }
        if !self.commit()? {
            self.ask_again(number);
            return Ok(());
        }
        let command = self.command_of(&wish);
        let by = command.actor().expect("somebody asks").clone();
        // Operators and owners of nodes are introduced, and have no certificate here.
        let introduced = by.role == Role::Operator || owner_with(&by.account).is_some();
        let admitted = introduced || self.auditor.is_revoked(by.id) || self.comes_in(by.id)?;
        let before = self.expectation(&wish, &by);
        let answer = match self.orchestrator.control {
            Some(_) if self.clients.introduced && admitted => self.command(command)?,
            Some(_) | None => Answer::Died,
        };
        if let Answer::Reply(reply) = answer {
            let expected = is_expected(&wish, &before, &reply);
            rule(Rule::AnswersKept, expected, || format!("{wish:?} gives {reply:?} where it stood so: {before:?}"))?;
            if let (Wish::Submit(submit), Reply::Submitted { job, held, existing: false, .. }) = (&wish, &reply) {
                self.clients.accepted.insert(*job, (submit.digest, *held));
            }
            if !self.random.chance(self.swarm.answer_lost) {
                self.clients.requests.remove(&number);
                return Ok(());
            }
        } else if let Wish::Submit(submit) = &wish {
            // It may have been remembered before the orchestrator died.
            if self.auditor.knows(submit.job) {
                self.clients.accepted.entry(submit.job).or_insert((submit.digest, submit.spec.max_cost));
            }
        }
        self.ask_again(number);
        Ok(())
    }

    fn ask_again(&mut self, number: u64) {
        let again = self.soon(Span::from_secs(5)) + Span::from_millis(100);
        self.at(again, Happening::Request(number));
    }

    fn command_of(&self, wish: &Wish) -> Command {
        match wish.clone() {
            Wish::Submit(Submit { job: _, account, key, spec, digest, no_queue, valid: _ }) => {
                Command::Submit { by: self.client(&account), key, spec, spec_digest: digest, no_queue }
            }
            Wish::Cancel { by, job, grace } => Command::Cancel { by, job, grace, why: Text::cut("no longer needed") },
            Wish::Credit { account, amount, key } => {
                Command::Credit { by: operator(), account, amount, key, why: Text::cut("more") }
            }
            Wish::NodeSet { by, node, wish } => Command::NodeSet { by, node, wish, why: Text::cut("maintenance") },
        }
    }

    /// What the books say before the request is decided.
    fn expectation(&self, wish: &Wish, by: &Actor) -> Before {
        match wish {
            _ if self.auditor.is_revoked(by.id) => Before::Revoked,
            Wish::Submit(submit) => Before::Submit {
                known: self.clients.accepted.get(&submit.job).copied(),
                free: self.auditor.books().free(&submit.account),
            },
            Wish::Cancel { by, job, .. } => {
                let owner = self.clients.submits.iter().find(|submit| submit.job == *job);
                let visible = owner.is_some_and(|submit| by.may_touch(&submit.account)) && self.auditor.knows(*job);
                Before::Cancel { visible, ended: self.auditor.ended(*job) }
            }
            Wish::Credit { account, .. } => Before::Credit { known: self.auditor.has_account(account) },
            Wish::NodeSet { by, node, .. } => {
                let owner = self.auditor.owner_of(*node).filter(|_| !self.auditor.is_revoked((*node).into()));
                Before::NodeSet { visible: owner.is_some_and(|owner| by.may_touch(owner)) }
            }
        }
    }

    fn draw_wish(&mut self) -> Wish {
        let account = self.clients.accounts[self.random.below(self.clients.accounts.len() as u64) as usize].clone();
        let past = (!self.clients.submits.is_empty())
            .then(|| self.clients.submits[self.random.below(self.clients.submits.len() as u64) as usize].clone());
        match (self.random.below(100), past) {
            // The same again, to the letter.
            (0..10, Some(submit)) => Wish::Submit(submit),
            // The same key with another specification.
            (10..14, Some(mut submit)) => {
                submit.digest = Digest(*b"another specification altogether");
                submit.spec.name = Text::cut("other");
                Wish::Submit(submit)
            }
            (14..30, Some(submit)) => {
                let job = submit.job;
                let by = if self.random.chance(10_000) { self.client(&account) } else { self.client(&submit.account) };
                Wish::Cancel { by, job, grace: Span::from_secs(self.random.pick(&[0, 10, 60, 600])) }
            }
            (30..33, _) => Wish::Credit {
                account,
                amount: Micro(self.random.between(1, 5_000_000)),
                key: key(format!("credit-{}", self.random.below(50))),
            },
            _ => {
                let number = self.clients.submits.len();
                let mut spec = draw_spec(&mut self.random, self.swarm.nodes);
                let valid = !self.random.chance(3_000);
                if !valid {
                    match self.random.below(4) {
                        0 => spec.max_cost = Micro::ZERO,
                        1 => spec.requirements.cpu_milli = 0,
                        2 => spec.limits.lost_after = Span::from_secs(1),
                        _ => spec.limits.attempts_max = 0,
                    }
                }
                // Two accounts use the same keys for their own jobs.
                let before = self.clients.submits.iter().filter(|submit| submit.account == account).count();
                let key = key(format!("k{before}"));
                let submit = Submit {
                    job: JobId::derive(&account, &key),
                    account,
                    key,
                    digest: Digest::of(&(number as u64).to_le_bytes()),
                    spec: Box::new(spec),
                    no_queue: self.random.chance(5_000),
                    valid,
                };
                self.clients.submits.push(submit.clone());
                Wish::Submit(submit)
            }
        }
    }
}

/// Where the books stood.
#[derive(Debug)]
enum Before {
    Revoked,
    Submit { known: Option<(Digest, Micro)>, free: i128 },
    Cancel { visible: bool, ended: Option<modchain_types::JobState> },
    Credit { known: bool },
    NodeSet { visible: bool },
}

fn is_expected(wish: &Wish, before: &Before, reply: &Reply) -> bool {
    match (wish, before, reply) {
        (_, Before::Revoked, reply) => *reply == Reply::Refused(Refused::Revoked),
        (Wish::Submit(submit), Before::Submit { known: Some((digest, hold)), .. }, reply) => match reply {
            Reply::Submitted { held, existing, .. } => submit.digest == *digest && *existing && held == hold,
            Reply::Refused(Refused::IdempotencyConflict { .. }) => submit.digest != *digest,
            _ => false,
        },
        (Wish::Submit(submit), Before::Submit { known: None, free }, reply) => {
            let need = i128::from(submit.spec.max_cost.0);
            match reply {
                Reply::Submitted { existing, held, .. } => {
                    submit.valid && !existing && need <= *free && *held == submit.spec.max_cost
                }
                Reply::Refused(Refused::InsufficientFunds { have, .. }) => {
                    submit.valid && need > *free && i128::from(have.0) == *free
                }
                Reply::Refused(Refused::Invalid { .. }) => !submit.valid,
                Reply::Refused(Refused::NoFit { .. }) => submit.valid && submit.no_queue,
                _ => false,
            }
        }
        (Wish::Cancel { .. }, Before::Cancel { visible, ended }, reply) => match reply {
            Reply::Cancelling { .. } => *visible && ended.is_none(),
            Reply::Refused(Refused::AlreadyEnded { state }) => *visible && *ended == Some(*state),
            Reply::Refused(Refused::UnknownJob) => !visible,
            _ => false,
        },
        // Keys are drawn from a few: another amount or account under a used key is refused.
        (Wish::Credit { .. }, Before::Credit { known }, reply) => match reply {
            Reply::Refused(Refused::UnknownAccount { .. }) => !known,
            reply => *known && matches!(reply, Reply::Done | Reply::Refused(Refused::Invalid { .. })),
        },
        (Wish::NodeSet { .. }, Before::NodeSet { visible }, reply) => match reply {
            Reply::Done => *visible,
            Reply::Refused(Refused::UnknownNode) => !visible,
            _ => false,
        },
        _ => false,
    }
}

fn draw_spec(random: &mut Random, nodes: u64) -> JobSpec {
    let task = WasmTask {
        module: Digest([1; 32]),
        module_bytes: 100,
        module_name: Text::cut("m.wasm"),
        args: List::default(),
        env: Map::default(),
    };
    let seconds = |random: &mut Random, choices: &[u64]| Span::from_secs(random.pick(choices));
    let pinned = random.chance(3_000).then(|| format!("node-{}", random.below(nodes + 1)));
    JobSpec {
        name: Text::default(),
        body: TaskBody::Inline(Task::Wasm(task)),
        requirements: Requirements {
            adapter: Adapter::Wasm,
            cpu_milli: random.pick(&[100, 500, 1_000, 1_000, 4_000, 64_000]),
            memory_bytes: random.pick(&[1 << 20, 1 << 28, 1 << 30, 8 << 30]),
            disk_bytes: random.pick(&[0, 1 << 20, 1 << 30]),
            gpus: GpuRequest { count: random.pick(&[0, 0, 0, 0, 1, 2]), memory_bytes_min: 0, model: None },
            labels: Default::default(),
            region: None,
            node: pinned.map(|name| name.parse().expect("a valid name")),
            price_per_hour_max: random.chance(5_000).then_some(Micro(1_000_000)),
            model: None,
            exceptions: Exceptions::default(),
        },
        limits: Limits {
            time_limit: random.chance(50_000).then(|| seconds(random, &[1, 5, 30, 300])),
            start_by: random.chance(30_000).then(|| seconds(random, &[1, 30, 120])),
            lost_after: seconds(random, &[15, 20, 60, 300]),
            on_disconnect: random.pick(&[OnDisconnect::Keep, OnDisconnect::Stop]),
            attempts_max: random.pick(&[1, 2, 3, 5]),
            output_bytes_max: 1 << 20,
        },
        max_cost: Micro(random.pick(&[1, 100, 1_000, 5_000, 100_000, 1_000_000, 6_000_000])),
        priority: random.pick(&[0, 0, 0, 5, -5]),
        labels: Map::default(),
        input: Input::None,
        policy: random.pick(&[Policy::Cheapest, Policy::Cheapest, Policy::Fastest, Policy::Spread]),
    }
}

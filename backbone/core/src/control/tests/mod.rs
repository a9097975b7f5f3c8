//! One small world: a client with money, two nodes with prices, and a hand that moves time.

use std::collections::BTreeMap;

use modchain_types::*;

use super::*;
use crate::command::{Actor, AgentArrival, SessionId};
use crate::effect::NodeMessage;
use crate::event::EventBody;
use crate::ledger::Account;

mod closing;
mod durable;
mod forgetting;
mod gpus;
mod jobs;
mod jobs_model;
mod members;
mod membership_model;
mod models;
mod nodes;
mod placing;
mod policies;
mod turns;

const HOLD: u64 = 100_000;

struct World {
    control: Control,
    now: Timestamp,
    journal: Vec<Event>,
    sessions: u64,
    inbox: Vec<(NodeId, NodeMessage)>,
    changes: Vec<(NodeId, NodeState)>,
}

fn account(name: &str) -> AccountId {
    name.parse().expect("an account")
}

const PEOPLE: [(u8, &str); 3] = [(101, "alice"), (102, "bob"), (103, "owen")];

fn client(name: &str) -> Actor {
    let (id, _) = PEOPLE.into_iter().find(|(_, known)| *known == name).expect("one of the people");
    Actor { id: IdentityId([id; 16]), role: Role::Client, account: account(name) }
}

fn operator() -> Actor {
    Actor { id: IdentityId([0; 16]), role: Role::Operator, account: account("root") }
}

fn node(number: u8) -> NodeId {
    NodeId([number; 16])
}

fn offer(core_hour: u64) -> Offer {
    Offer {
        capabilities: Capabilities {
            adapters: List::new(vec![Adapter::Wasm]).expect("few"),
            cpu_milli: 4_000,
            memory_bytes: 8 << 30,
            disk_bytes: 0,
            slots: 4,
            gpus: List::default(),
            models: List::default(),
            pullable: List::default(),
            exceptions: Exceptions::default(),
            container_gpus: false,
            labels: Map::default(),
            region: Text::default(),
        },
        tariff: Tariff { core_hour: Micro(core_hour), minimum: Micro(1_000), ..Tariff::default() },
        agent_version: Text::cut("0"),
        paused: false,
        images: List::default(),
    }
}

fn spec() -> JobSpec {
    JobSpec {
        name: Text::default(),
        body: TaskBody::Inline(Task::Wasm(WasmTask {
            module: Digest([0; 32]),
            module_bytes: 1,
            module_name: Text::cut("m.wat"),
            args: List::default(),
            env: Map::default(),
        })),
        requirements: Requirements {
            adapter: Adapter::Wasm,
            cpu_milli: 1_000,
            memory_bytes: 1 << 28,
            disk_bytes: 0,
            gpus: GpuRequest { count: 0, memory_bytes_min: 0, model: None },
            labels: Default::default(),
            region: None,
            node: None,
            price_per_hour_max: None,
            model: None,
            exceptions: Exceptions::default(),
        },
        limits: Limits::default(),
        max_cost: Micro(HOLD),
        priority: 0,
        labels: Map::default(),
        input: Input::None,
        policy: Policy::Cheapest,
    }
}

impl World {
    /// Root is the operator, Alice and Bob have a unit each, the nodes belong to Owen; nobody is connected.
    fn new() -> Self {
        let control = Control::new(ControlConfig::new(Asset::Test));
        let mut world = Self {
            control,
            now: Timestamp::ZERO,
            journal: Vec::new(),
            sessions: 0,
            inbox: Vec::new(),
            changes: Vec::new(),
        };
        world.start();
        for (id, name) in PEOPLE {
            world.identity(id, Role::Client, name, name);
        }
        world.identity(1, Role::Node, "n1", "owen");
        world.identity(2, Role::Node, "n2", "owen");
        for name in ["alice", "bob"] {
            let key = name.parse().expect("a key");
            let (by, account) = (operator(), account(name));
            world.done(Command::Credit { by, account, amount: Micro::UNIT, key, why: Text::default() });
        }
        world
    }

    fn start(&mut self) {
        let (boot, boot_clock) = (BootId([0; 16]), Span::ZERO);
        let started = Command::EngineStarted { boot, boot_clock, wall: WallTime(0), version: Text::cut("0") };
        self.done(started);
    }

    fn identity(&mut self, id: u8, role: Role, name: &str, account_name: &str) {
        let name = name.parse().expect("a name");
        let identity = Identity { id: IdentityId([id; 16]), role, name, account: account(account_name) };
        self.done(Command::AddIdentity { identity, certificate: None });
    }

    fn absorb(&mut self, decision: Decision) -> Option<Reply> {
        for event in &decision.events {
            assert_eq!(event.number, self.journal.len() as u64 + 1, "numbers have no gap");
            self.journal.push(event.clone());
        }
        for effect in decision.effects {
            match effect {
                Effect::ToNode { node, message, .. } => self.inbox.push((node, message)),
                Effect::NodeChanged { node, state } => self.changes.push((node, state)),
                Effect::EndSession { .. } | Effect::Preparing { .. } | Effect::JobClosed { .. } => {}
            }
        }
        self.control.audit().expect("every invariant holds");
        assert_eq!(self.control.problems(), Vec::<String>::new());
        decision.reply
    }

    fn tell(&mut self, command: Command) -> Reply {
        let decision = self.control.apply(self.now, command);
        let reply = self.absorb(decision).expect("commands are answered");
        self.settle_down();
        reply
    }

    fn done(&mut self, command: Command) {
        assert_eq!(self.tell(command), Reply::Done);
    }

    fn settle_down(&mut self) {
        while self.control.next_deadline().is_some_and(|at| at <= self.now) {
            let decision = self.control.advance(self.now);
            self.absorb(decision);
        }
    }

    /// Time goes on, and every deadline on the way fires in its moment.
    fn wait(&mut self, span: Span) {
        let end = self.now + span;
        while let Some(at) = self.control.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.settle_down();
        }
        self.now = end;
    }

    /// Like `wait`, while this node's heartbeats go on.
    fn wait_heard(&mut self, span: Span, node: NodeId, session: SessionId) {
        let end = self.now + span;
        while self.now < end {
            self.wait(Span::from_secs(5).min(end.since(self.now)));
            self.done(Command::AgentHeard { node, session });
        }
    }

    fn arrival(instance: u8, price: u64) -> Box<AgentArrival> {
        let instance = InstanceId([instance; 16]);
        Box::new(AgentArrival { instance, highest_fence: None, inventory: Vec::new(), offer: offer(price) })
    }

    fn connect_with(&mut self, node: NodeId, arrival: Box<AgentArrival>) -> (SessionId, Reply) {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let reply = self.tell(Command::AgentConnected { node, session, arrival });
        (session, reply)
    }

    fn connect(&mut self, number: u8, price: u64) -> SessionId {
        let (session, reply) = self.connect_with(node(number), Self::arrival(number, price));
        assert_eq!(reply, Reply::Welcome);
        session
    }

    fn connect_holding(&mut self, number: u8, items: Vec<InventoryItem>) -> SessionId {
        let mut arrival = Self::arrival(number, 36_000);
        arrival.inventory = items;
        let (session, reply) = self.connect_with(node(number), arrival);
        assert_eq!(reply, Reply::Welcome);
        session
    }

    fn submit_as(&mut self, name: &str, key: &str, spec: JobSpec) -> Reply {
        let mut spec_digest = [0; 32];
        spec_digest[..8].copy_from_slice(&spec.max_cost.0.to_le_bytes());
        let (by, key) = (client(name), key.parse().expect("a key"));
        let spec_digest = Digest(spec_digest);
        self.tell(Command::Submit { by, key, spec: Box::new(spec), spec_digest, no_queue: false })
    }

    fn submit(&mut self, key: &str, change: impl FnOnce(&mut JobSpec)) -> JobId {
        let mut spec = spec();
        change(&mut spec);
        match self.submit_as("alice", key, spec) {
            Reply::Submitted { job, existing: false, .. } => job,
            reply => panic!("not accepted: {reply:?}"),
        }
    }

    fn report(&mut self, job: JobId, session: SessionId, body: ReportBody) {
        let placement = self.control.job(job).and_then(Job::placement).expect("placed").clone();
        let report = Report { attempt: placement.attempt, fence: placement.fence, body };
        self.done(Command::Report { node: placement.node, session, report });
    }

    fn run(&mut self, job: JobId, session: SessionId) {
        self.report(job, session, ReportBody::Starting);
        self.report(job, session, ReportBody::Started);
    }

    fn ended(ending: Ending, ran: Span) -> ReportBody {
        let usage = Usage { ran, ..Usage::default() };
        ReportBody::Ended { ending, usage, output: OutputLengths::default() }
    }

    fn finished(&self, job: JobId) -> (&crate::event::Outcome, &crate::event::Settlement) {
        let mut found = self.journal.iter().filter_map(|event| match &event.body {
            EventBody::JobFinished { job: id, outcome, settlement, .. } if *id == job => Some((outcome, settlement)),
            _ => None,
        });
        let first = found.next().expect("the job has finished");
        assert!(found.next().is_none(), "and only once");
        first
    }

    fn fate(&self, job: JobId) -> (JobState, Reason, u64) {
        let (outcome, settlement) = self.finished(job);
        (outcome.state, outcome.reason, settlement.gross.0)
    }

    fn state(&self, job: JobId) -> JobState {
        self.control.job(job).map(Job::state).unwrap_or_else(|| self.control.ended(job).expect("known").state)
    }

    fn available(&self, name: &str) -> u64 {
        self.control.ledger().available(&account(name)).0
    }

    fn sent(&mut self) -> Vec<(NodeId, NodeMessage)> {
        std::mem::take(&mut self.inbox)
    }

    fn item(&self, job: JobId, state: ItemState) -> InventoryItem {
        let placement = self.control.job(job).and_then(Job::placement).expect("placed");
        InventoryItem { attempt: placement.attempt, fence: placement.fence, state }
    }

    /// What a restart would make of the journal.
    fn replayed(&self) -> Control {
        let mut control = Control::new(self.control.config.clone());
        self.journal.iter().for_each(|event| control.evolve(event));
        control
    }
}

fn assignments(sent: &[(NodeId, NodeMessage)]) -> Vec<(NodeId, AttemptId)> {
    sent.iter()
        .filter_map(|(node, message)| match message {
            NodeMessage::Assign(assignment) => Some((*node, assignment.attempt)),
            _ => None,
        })
        .collect()
}

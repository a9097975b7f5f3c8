//! One small world: a client with money, two nodes with prices, and a hand that moves time.

use std::collections::BTreeMap;

use modchain_types::*;

use super::*;
use crate::command::{Actor, AgentArrival, SessionId};
use crate::effect::NodeMessage;
use crate::event::EventBody;
use crate::ledger::Account;

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

fn client(name: &str) -> Actor {
    Actor { role: Role::Client, account: account(name) }
}

fn operator() -> Actor {
    Actor { role: Role::Operator, account: account("root") }
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
            labels: Map::default(),
            region: Text::default(),
        },
        tariff: Tariff { core_hour: Micro(core_hour), minimum: Micro(1_000), ..Tariff::default() },
        agent_version: Text::cut("0"),
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
        },
        limits: Limits::default(),
        max_cost: Micro(HOLD),
        priority: 0,
        labels: Map::default(),
        input: Input::None,
    }
}

impl World {
    /// Alice and Bob have a unit each; the nodes belong to Owen; nobody is connected.
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
        let people = [(101, Role::Client, "alice"), (102, Role::Client, "bob"), (103, Role::Client, "owen")];
        for (id, role, name) in people {
            world.identity(id, role, name, name);
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
        self.done(Command::AddIdentity { identity });
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
                Effect::EndSession { .. } | Effect::JobClosed { .. } => {}
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

#[test]
fn a_job_is_held_run_on_the_cheapest_node_metered_and_settled() {
    let mut world = World::new();
    world.connect(1, 72_000);
    let session = world.connect(2, 36_000);
    let job = world.submit("k", |_| {});
    assert_eq!(assignments(&world.sent()), [(node(2), AttemptId { job, number: 1 })]);
    assert_eq!((world.available("alice"), world.control.ledger().held(job).0), (900_000, HOLD));
    world.wait(Span::from_secs(3));
    world.run(job, session);
    world.wait_heard(Span::from_secs(600), node(2), session);
    world.report(job, session, World::ended(Ending::Exited { code: 0 }, Span::from_secs(600)));
    // 10 minutes of one core at 0.036 an hour
    assert_eq!(world.fate(job), (JobState::Completed, Reason::Exit, 6_000));
    assert_eq!(world.available("alice"), 994_000);
    assert_eq!(world.control.ledger().balance(&Account::Earnings(account("owen"))), 5_700);
    assert_eq!(world.control.ledger().balance(&Account::Fees), 300);
    assert!(world.sent().iter().any(|(_, message)| matches!(message, NodeMessage::Ack { .. })));
}

#[test]
fn the_same_key_is_the_same_job_and_another_specification_under_it_is_refused() {
    let mut world = World::new();
    let job = world.submit("k", |_| {});
    for _ in 0..64 {
        let again = Reply::Submitted { job, state: JobState::Queued, held: Micro(HOLD), existing: true };
        assert_eq!(world.submit_as("alice", "k", spec()), again);
    }
    assert_eq!(world.available("alice"), 900_000);
    let other = JobSpec { max_cost: Micro(5), ..spec() };
    assert_eq!(world.submit_as("alice", "k", other), Reply::Refused(Refused::IdempotencyConflict { job }));
    match world.submit_as("bob", "k", spec()) {
        Reply::Submitted { job: bobs, existing: false, .. } => assert_ne!(bobs, job, "another account, another job"),
        reply => panic!("{reply:?}"),
    }
    // An ended job still answers for its key.
    world.tell(Command::Cancel { by: client("alice"), job, grace: Span::ZERO, why: Text::default() });
    let ended = Reply::Submitted { job, state: JobState::Cancelled, held: Micro(HOLD), existing: true };
    assert_eq!(world.submit_as("alice", "k", spec()), ended);
}

#[test]
fn bad_submits_change_nothing_and_say_why() {
    type Change = fn(&mut JobSpec);
    let cases: [(Change, &str); 8] = [
        (|s| s.max_cost = Micro(1_000_001), "insufficient funds: need 1.000001, have 1.00"),
        (|s| s.max_cost = Micro(0), "the maximum cost must be more than zero"),
        (|s| s.requirements.cpu_milli = 0, "cpus must be between 0.001 and 1024"),
        (|s| s.requirements.memory_bytes = 5, "memory must be between 1 MiB and 16 TiB"),
        (|s| s.limits.lost_after = Span::from_secs(1), "lost-after must be between 15s and 24h"),
        (|s| s.limits.attempts_max = 0, "retries must be between 0 and 19"),
        (|s| s.limits.time_limit = Some(Span::ZERO), "the time limit must be more than zero"),
        (|s| s.name = Text::cut("a\u{1b}[31mb"), "the name must be printable ASCII without spaces"),
    ];
    let mut world = World::new();
    for (change, message) in cases {
        let mut bad = spec();
        change(&mut bad);
        let before = world.journal.len();
        match world.submit_as("alice", "k", bad) {
            Reply::Refused(refused) => assert_eq!(refused.to_string(), message),
            reply => panic!("{message}: {reply:?}"),
        }
        assert_eq!((world.journal.len(), world.available("alice")), (before, 1_000_000), "{message}");
    }
}

#[test]
fn another_client_s_job_looks_like_none_at_all() {
    let mut world = World::new();
    let job = world.submit("k", |_| {});
    let absent = JobId([9; 16]);
    for ended in [false, true] {
        for id in [job, absent] {
            let cancel = Command::Cancel { by: client("bob"), job: id, grace: Span::ZERO, why: Text::default() };
            assert_eq!(world.tell(cancel), Reply::Refused(Refused::UnknownJob), "{ended}");
        }
        let cancel = Command::Cancel { by: client("alice"), job, grace: Span::ZERO, why: Text::default() };
        let answer = world.tell(cancel);
        assert_eq!(matches!(answer, Reply::Refused(Refused::AlreadyEnded { .. })), ended);
    }
}

#[test]
fn a_cancel_stops_the_attempt_and_pays_to_the_confirmed_stop() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let job = world.submit("k", |_| {});
    world.run(job, session);
    world.wait_heard(Span::from_secs(300), node(1), session);
    world.sent();
    let grace = Span::from_secs(10);
    let cancel = Command::Cancel { by: client("alice"), job, grace, why: Text::default() };
    assert_eq!(world.tell(cancel), Reply::Cancelling { job, state: JobState::Cancelling });
    assert!(matches!(world.sent()[..], [(_, NodeMessage::Stop { cause: StopCause::Cancelled, .. })]));
    world.report(job, session, World::ended(Ending::Stopped, Span::from_secs(300)));
    assert_eq!(world.fate(job), (JobState::Cancelled, Reason::Cancelled, 3_000));
}

#[test]
fn a_cancel_before_the_start_gives_everything_back() {
    let mut world = World::new();
    let queued = world.submit("a", |_| {});
    world.tell(Command::Cancel { by: client("alice"), job: queued, grace: Span::ZERO, why: Text::default() });
    assert_eq!(world.fate(queued), (JobState::Cancelled, Reason::Cancelled, 0));
    let session = world.connect(1, 36_000);
    let starting = world.submit("b", |_| {});
    world.report(starting, session, ReportBody::Starting);
    world.tell(Command::Cancel { by: client("alice"), job: starting, grace: Span::ZERO, why: Text::default() });
    world.report(starting, session, World::ended(Ending::Stopped, Span::ZERO));
    assert_eq!(world.fate(starting), (JobState::Cancelled, Reason::Cancelled, 0));
    assert_eq!(world.available("alice"), 1_000_000);
}

#[test]
fn a_job_whose_input_failed_is_stopped_paid_for_what_ran_and_fails() {
    let mut world = World::new();
    let message = || Text::cut("input over its cap");
    let queued = world.submit("queued", |_| {});
    world.done(Command::InputFailed { job: queued, message: message() });
    assert_eq!(world.fate(queued), (JobState::Failed, Reason::Refused, 0));
    let session = world.connect(1, 36_000);
    let job = world.submit("k", |_| {});
    world.run(job, session);
    world.wait_heard(Span::from_secs(300), node(1), session);
    world.sent();
    world.done(Command::InputFailed { job, message: message() });
    assert!(matches!(world.sent()[..], [(_, NodeMessage::Stop { cause: StopCause::Cancelled, .. })]));
    let cancel = Command::Cancel { by: client("alice"), job, grace: Span::ZERO, why: Text::default() };
    assert_eq!(world.tell(cancel), Reply::Cancelling { job, state: JobState::Cancelling }, "the first reason stands");
    world.report(job, session, World::ended(Ending::Stopped, Span::from_secs(300)));
    assert_eq!(world.fate(job), (JobState::Failed, Reason::Refused, 3_000));
    assert_eq!(world.finished(job).0.message, message());
}

#[test]
fn the_bill_is_never_above_what_was_seen_from_here_nor_above_the_hold() {
    let mut world = World::new();
    let session = world.connect(1, 3_600_000);
    let liar = world.submit("liar", |_| {});
    world.run(liar, session);
    world.wait(Span::from_secs(10));
    world.report(liar, session, World::ended(Ending::Exited { code: 0 }, Span::from_secs(99_999)));
    assert_eq!(world.fate(liar).2, 10_000, "ten seconds at one unit per thousand seconds");
    let long = world.submit("long", |_| {});
    world.run(long, session);
    world.wait_heard(Span::from_secs(150), node(1), session);
    world.report(long, session, World::ended(Ending::RunLimit, Span::from_secs(150)));
    assert_eq!(world.fate(long), (JobState::TimedOut, Reason::Budget, HOLD));
}

#[test]
fn a_silent_node_is_suspect_then_lost_and_its_job_runs_elsewhere_unpaid_for_the_first_try() {
    let mut world = World::new();
    let first = world.connect(1, 36_000);
    let job = world.submit("k", |_| {});
    world.run(job, first);
    let second = world.connect(2, 72_000);
    world.changes.clear();
    world.wait_heard(Span::from_secs(59), node(2), second);
    assert_eq!(world.changes, [(node(1), NodeState::Suspect)]);
    assert_eq!(world.control.job(job).and_then(Job::placement).map(|p| p.node), Some(node(1)));
    world.sent();
    world.wait_heard(Span::from_secs(2), node(2), second);
    assert_eq!(assignments(&world.sent()), [(node(2), AttemptId { job, number: 2 })]);
    world.run(job, second);
    world.wait_heard(Span::from_secs(100), node(2), second);
    world.report(job, second, World::ended(Ending::Exited { code: 0 }, Span::from_secs(100)));
    assert_eq!(world.fate(job), (JobState::Completed, Reason::Exit, 2_000), "only the second attempt is paid");
}

#[test]
fn a_node_that_is_heard_again_in_time_goes_on_as_if_nothing_had_happened() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let job = world.submit("k", |_| {});
    world.run(job, session);
    world.wait(Span::from_secs(50));
    let item = world.item(job, ItemState::Running);
    world.sent();
    let session = world.connect_holding(1, vec![item]);
    assert_eq!(world.sent(), [(node(1), NodeMessage::Reconcile(vec![(item.attempt, item.fence, Verdict::Keep)]))]);
    world.wait_heard(Span::from_secs(100), node(1), session);
    world.report(job, session, World::ended(Ending::Exited { code: 0 }, Span::from_secs(150)));
    assert_eq!(world.fate(job), (JobState::Completed, Reason::Exit, 1_500));
}

#[test]
fn reconciling_sends_again_what_never_arrived_and_retries_what_is_gone() {
    let mut world = World::new();
    world.connect(1, 36_000);
    let (assigned, running) = (world.submit("a", |_| {}), world.submit("b", |_| {}));
    let session = world.connect_holding(1, vec![]);
    world.run(running, session);
    let before = world.item(running, ItemState::Running);
    world.sent();
    world.connect_holding(1, vec![]);
    let sent = assignments(&world.sent());
    assert!(sent.contains(&(node(1), AttemptId { job: assigned, number: 1 })), "the same attempt again: {sent:?}");
    assert!(sent.contains(&(node(1), AttemptId { job: running, number: 2 })), "a new one: {sent:?}");
    // The old attempt turns up after all: it is void.
    let items = vec![before, InventoryItem { state: ItemState::Ended, ..before }];
    world.connect_holding(1, items);
    let verdicts = world.sent().into_iter().find_map(|(_, message)| match message {
        NodeMessage::Reconcile(verdicts) => Some(verdicts.into_iter().map(|(_, _, v)| v).collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(verdicts, Some(vec![Verdict::Kill, Verdict::Forget]));
}

#[test]
fn a_late_result_of_a_replaced_attempt_is_acknowledged_and_changes_nothing() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let job = world.submit("k", |_| {});
    world.run(job, session);
    let old = world.item(job, ItemState::Running);
    let session = world.connect_holding(1, vec![]);
    let body = World::ended(Ending::Exited { code: 0 }, Span::from_secs(1));
    let (attempt, fence) = (old.attempt, old.fence);
    world.sent();
    let before = world.journal.len();
    world.done(Command::Report { node: node(1), session, report: Report { attempt, fence, body } });
    assert_eq!(world.sent(), [(node(1), NodeMessage::Ack { attempt, fence })]);
    assert_eq!(world.journal.len(), before);
    assert_eq!(world.control.job(job).map(|job| job.attempts_made), Some(2));
}

#[test]
fn attempts_are_bounded_and_only_those_that_were_starting_count() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let job = world.submit("k", |spec| spec.limits.attempts_max = 2);
    for _ in 0..5 {
        world.report(job, session, ReportBody::Refused { message: Text::cut("busy") });
        assert_eq!(world.state(job), JobState::Queued);
        world.wait(crate::node::COOL_DOWN);
        assert_eq!(world.state(job), JobState::Assigned);
        world.done(Command::AgentHeard { node: node(1), session });
    }
    for _ in 0..2 {
        world.run(job, session);
        let fault = Ending::NodeFault { message: Text::cut("engine died") };
        world.report(job, session, World::ended(fault, Span::from_secs(1)));
        world.wait(crate::node::COOL_DOWN);
    }
    assert_eq!(world.fate(job), (JobState::Failed, Reason::Attempts, 0));
    assert_eq!(world.finished(job).0.message.as_str(), "2 of 2 attempts failed; the last: engine died");
}

#[test]
fn a_result_waits_for_its_output_but_not_for_ever() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let output = OutputLengths { stdout: 10, stderr: 5, dropped: 0 };
    let body = |ran| ReportBody::Ended {
        ending: Ending::Exited { code: 0 },
        usage: Usage { ran, ..Usage::default() },
        output,
    };
    let [early, late, never] = ["a", "b", "c"].map(|key| world.submit(key, |_| {}));
    for job in [early, late, never] {
        world.run(job, session);
    }
    let stored = |world: &mut World, job, stored| {
        let item = world.item(job, ItemState::Ended);
        world.done(Command::OutputStored { attempt: item.attempt, fence: item.fence, stored });
    };
    stored(&mut world, early, output);
    for job in [early, late, never] {
        world.report(job, session, body(Span::from_secs(1)));
    }
    assert_eq!(world.state(early), JobState::Completed);
    assert_eq!(world.state(late), JobState::Running);
    stored(&mut world, late, OutputLengths { stdout: 9, ..output });
    assert_eq!(world.state(late), JobState::Running, "one byte is missing");
    stored(&mut world, late, output);
    assert_eq!(world.state(late), JobState::Completed);
    world.wait_heard(Span::from_secs(60), node(1), session);
    assert_eq!(world.fate(never), (JobState::Completed, Reason::Exit, 1_000));
}

#[test]
fn an_agent_that_does_not_answer_stop_or_end_does_not_keep_the_money() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let silent = world.submit("silent", |spec| spec.limits.attempts_max = 1);
    world.wait_heard(Span::from_secs(40), node(1), session);
    assert_eq!(world.control.job(silent).map(|job| job.attempts_made >= 2), Some(true), "not accepted in 30 s");
    world.tell(Command::Cancel { by: client("alice"), job: silent, grace: Span::ZERO, why: Text::default() });
    let hostage = world.submit("hostage", |spec| {
        spec.limits.attempts_max = 1;
        spec.limits.time_limit = Some(Span::from_secs(20));
    });
    world.wait_heard(Span::from_secs(10), node(1), session);
    world.run(hostage, session);
    let deaf = world.submit("deaf", |_| {});
    world.run(deaf, session);
    let grace = Span::from_secs(10);
    world.tell(Command::Cancel { by: client("alice"), job: deaf, grace, why: Text::default() });
    world.wait_heard(Span::from_secs(90), node(1), session);
    assert_eq!(world.fate(hostage), (JobState::Failed, Reason::NodeFault, 0));
    assert_eq!(world.fate(deaf), (JobState::Cancelled, Reason::Cancelled, 0));
    assert_eq!(world.fate(silent), (JobState::Cancelled, Reason::Cancelled, 0));
}

#[test]
fn jobs_wait_in_order_of_priority_and_acceptance_and_expire_at_their_start_by() {
    let mut world = World::new();
    let whole_node = |spec: &mut JobSpec| spec.requirements.cpu_milli = 4_000;
    let first = world.submit("first", whole_node);
    let second = world.submit("second", whole_node);
    let urgent = world.submit("urgent", |spec| {
        whole_node(spec);
        spec.priority = 5;
    });
    let hasty = world.submit("hasty", |spec| {
        whole_node(spec);
        spec.limits.start_by = Some(Span::from_secs(30));
    });
    assert_eq!([urgent, first, second, hasty].map(|job| world.control.jobs_ahead(job)), [0, 1, 2, 3].map(Some));
    let session = world.connect(1, 36_000);
    assert_eq!(world.state(urgent), JobState::Assigned);
    world.run(urgent, session);
    world.wait_heard(Span::from_secs(31), node(1), session);
    assert_eq!(world.fate(hasty), (JobState::Expired, Reason::Expired, 0));
    world.report(urgent, session, World::ended(Ending::Exited { code: 0 }, Span::from_secs(1)));
    assert_eq!((world.state(first), world.state(second)), (JobState::Assigned, JobState::Queued));
}

#[test]
fn a_job_that_fits_nowhere_is_told_every_reason_and_does_not_block_others() {
    let mut world = World::new();
    world.connect(1, 36_000);
    let huge = world.submit("huge", |spec| {
        spec.requirements.cpu_milli = 8_500;
        spec.requirements.region = Some(Text::cut("eu"));
    });
    let small = world.submit("small", |_| {});
    assert_eq!((world.state(huge), world.state(small)), (JobState::Queued, JobState::Assigned));
    let fits = world.control.fitness(world.now, world.control.spec(huge).expect("open"));
    let reasons: BTreeMap<_, _> = fits.iter().map(|fit| (fit.name.as_str(), fit.reasons.clone())).collect();
    assert_eq!(reasons["n1"], ["it is not in region eu", "cpus: 8.5 asked, it offers 4"]);
    assert_eq!(reasons["n2"], ["it has never connected"]);
    let no_queue = Command::Submit {
        by: client("alice"),
        key: "now".parse().expect("a key"),
        spec: Box::new(JobSpec { max_cost: Micro(999), ..spec() }),
        spec_digest: Digest([1; 32]),
        no_queue: true,
    };
    match world.tell(no_queue) {
        Reply::Refused(Refused::NoFit { why }) => {
            assert_eq!(
                why,
                "n1: price: its minimum of 0.001 is over the maximum cost of 0.000999; n2: it has never connected"
            );
        }
        reply => panic!("{reply:?}"),
    }
}

#[test]
fn a_restart_forgets_nothing_and_declares_nobody_lost_for_a_minute() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let running = world.submit("a", |spec| spec.limits.lost_after = Span::from_secs(15));
    world.run(running, session);
    let queued = world.submit("b", |spec| spec.requirements.cpu_milli = 4_000);
    let item = world.item(running, ItemState::Running);
    let (before, balances) = (world.control.clone(), world.available("alice"));
    world.control = world.replayed();
    assert_eq!(world.control.jobs, before.jobs);
    assert_eq!((&world.control.ledger, &world.control.queue), (&before.ledger, &before.queue));
    assert_eq!(world.available("alice"), balances);
    world.start();
    world.changes.clear();
    world.wait(Span::from_secs(59));
    assert_eq!(world.changes, [(node(1), NodeState::Suspect)], "silent, but not lost");
    assert_eq!(world.control.job(running).map(|job| job.attempts_made), Some(1));
    let session = world.connect_holding(1, vec![item]);
    world.report(running, session, World::ended(Ending::Exited { code: 0 }, Span::from_secs(60)));
    assert_eq!(world.fate(running).0, JobState::Completed);
    assert_eq!(world.state(queued), JobState::Assigned);
}

#[test]
fn a_second_live_agent_with_one_certificate_is_refused_and_a_dead_one_replaced() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let clone = || World::arrival(77, 36_000);
    assert_eq!(world.connect_with(node(1), clone()).1, Reply::Refused(Refused::Probing));
    assert!(matches!(world.sent()[..], [.., (_, NodeMessage::Probe)]));
    world.wait(Span::from_millis(100));
    world.done(Command::AgentHeard { node: node(1), session });
    world.wait(Span::from_secs(2));
    assert_eq!(world.connect_with(node(1), clone()).1, Reply::Refused(Refused::DuplicateInstance));
    assert_eq!(world.connect_with(node(1), clone()).1, Reply::Refused(Refused::Probing));
    world.wait(Span::from_secs(2));
    let (new, reply) = world.connect_with(node(1), clone());
    assert_eq!(reply, Reply::Welcome, "the first one did not answer the probe");
    assert_eq!(world.tell(Command::AgentHeard { node: node(1), session }), Reply::Refused(Refused::StaleSession));
    world.done(Command::AgentHeard { node: node(1), session: new });
}

#[test]
fn a_fence_from_the_future_means_a_roll_back_and_stops_scheduling_and_money() {
    let mut world = World::new();
    let mut arrival = World::arrival(1, 36_000);
    arrival.highest_fence = Some(Fence(10_000));
    let foreign = AttemptId { job: JobId([5; 16]), number: 1 };
    arrival.inventory = vec![InventoryItem { attempt: foreign, fence: Fence(10_000), state: ItemState::Running }];
    let session = SessionId(1);
    let connected = Command::AgentConnected { node: node(1), session, arrival };
    let decision = world.control.apply(world.now, connected);
    let kept = |effect: &Effect| {
        matches!(effect, Effect::ToNode { message: NodeMessage::Reconcile(verdicts), .. }
            if verdicts.iter().all(|(_, _, verdict)| *verdict == Verdict::Keep))
    };
    assert!(decision.effects.iter().any(kept), "nothing is killed: {:?}", decision.effects);
    assert!(world.control.problems()[0].contains("fence 10000"), "{:?}", world.control.problems());
    let by = client("alice");
    let key = "k".parse().expect("a key");
    let submit = Command::Submit { by, key, spec: Box::new(spec()), spec_digest: Digest([0; 32]), no_queue: false };
    let reply = world.control.apply(world.now, submit).reply;
    assert!(matches!(reply, Some(Reply::Refused(Refused::Frozen { .. }))), "{reply:?}");
}

#[test]
fn an_old_copy_stays_found_out_however_often_it_is_started_again() {
    let mut world = World::new();
    let mut arrival = World::arrival(1, 36_000);
    // Starts and connections have raised the number past the fence; no job was ever assigned under it.
    let seen = Fence(world.control.last_number());
    assert!(seen > Fence(0));
    arrival.highest_fence = Some(seen);
    world.control.apply(world.now, Command::AgentConnected { node: node(1), session: SessionId(1), arrival });
    assert!(world.control.problems()[0].contains("rolled back"), "{:?}", world.control.problems());
}

#[test]
fn a_stop_job_is_not_placed_again_before_its_lease_is_surely_over() {
    let mut world = World::new();
    world.wait(crate::deadline::RECOVERY_WINDOW);
    let first = world.connect(1, 36_000);
    let job = world.submit("k", |spec| {
        spec.limits.lost_after = Span::from_secs(15);
        spec.limits.on_disconnect = OnDisconnect::Stop;
    });
    world.run(job, first);
    let second = world.connect(2, 72_000);
    world.wait_heard(Span::from_secs(34), node(2), second);
    assert_eq!(world.control.job(job).map(|job| job.attempts_made), Some(1));
    world.wait_heard(Span::from_secs(5), node(2), second);
    assert_eq!(world.control.job(job).map(|job| job.attempts_made), Some(2), "30 s of lease and 5 s of margin");
}

#[test]
fn credits_are_for_operators_and_happen_once() {
    let mut world = World::new();
    let credit = |by, amount| Command::Credit {
        by,
        account: account("alice"),
        amount: Micro(amount),
        key: "gift".parse().expect("a key"),
        why: Text::default(),
    };
    assert!(matches!(world.tell(credit(client("alice"), 5)), Reply::Refused(Refused::NotAllowed { .. })));
    world.done(credit(operator(), 5));
    world.done(credit(operator(), 5));
    assert!(matches!(world.tell(credit(operator(), 6)), Reply::Refused(Refused::Invalid { .. })));
    assert_eq!(world.available("alice"), 1_000_005);
}

#[test]
fn an_event_that_breaks_an_invariant_is_dropped_and_freezes_money() {
    let mut world = World::new();
    let job = world.submit("k", |_| {});
    let mut draft = Draft::new(&world.control, world.now);
    let open = world.control.job(job).expect("open").clone();
    world.control.finish_cancelled(&open, None, &mut draft);
    let EventBody::JobFinished { settlement, .. } = &mut draft.decision.events[0].body else { panic!("finished") };
    settlement.refund = Micro(HOLD + 1);
    let before = world.control.ledger.clone();
    let decision = world.control.take(draft.decision);
    assert_eq!((decision.events.len(), &world.control.ledger), (0, &before));
    assert!(world.control.problems()[0].contains("is not the hold"), "{:?}", world.control.problems());
}

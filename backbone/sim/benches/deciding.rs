//! How many commands a second the orchestrator's machine decides and takes in, and how many jobs it places, on one thread and
//! without a disk.
//!
//! ```text
//! cargo bench -p modchain-sim --bench deciding               # everything; a name after -- runs one part
//! ```

use std::time::{Duration, Instant};

use modchain_core::command::{Actor, AgentArrival, SessionId};
use modchain_core::effect::{Effect, NodeMessage};
use modchain_core::{Command, Control, ControlConfig, Decision, Reply};
use modchain_types::*;

const NODES: u64 = 10_000;
const SLOTS: u32 = 4;
const ACCOUNTS: u64 = 1_000;
const POLICIES: [Policy; 5] = [Policy::Cheapest, Policy::Cheapest, Policy::Spread, Policy::Fastest, Policy::Cheapest];
/// Jobs that end, each making room for one that waits.
const TURNOVER: usize = 20_000;
/// How long lives are lived through.
const LIVES_FOR: Duration = Duration::from_secs(3);

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let wanted = |part: &str| chosen.is_empty() || chosen.iter().any(|name| name == part);
    if wanted("lives") {
        lives();
    }
    if wanted("placements") {
        for queued in [50_000, 1_000_000] {
            placements(queued);
        }
    }
    if wanted("classes") {
        for needs in [1_000, 10_000, 100_000] {
            classes(needs);
        }
    }
}

/// One job after another, from its submission to its end, on a pool of one node.
fn lives() {
    let mut pool = Pool::new(1, 1);
    pool.connect_all();
    let (mut jobs, mut commands) = (0_u64, 0_u64);
    let begun = Instant::now();
    while begun.elapsed() < LIVES_FOR {
        for _ in 0..64 {
            pool.submit(jobs);
            pool.place();
            let assigned = pool.assigned.pop().expect("the node has room");
            pool.live(&assigned);
            jobs += 1;
            commands += 4;
        }
    }
    let took = begun.elapsed().as_secs_f64();
    println!("lives: {:.0} commands/s, {:.0} jobs/s", commands as f64 / took, jobs as f64 / took);
}

/// A pool that fills, and then goes on full.
fn placements(queued: u64) {
    let mut pool = Pool::new(NODES, ACCOUNTS);
    let before = resident_bytes();
    let begun = Instant::now();
    (0..queued).for_each(|number| pool.submit(number));
    let took = begun.elapsed().as_secs_f64();
    let bytes = resident_bytes().saturating_sub(before) / queued;
    println!("{queued} jobs queued: {:.0} submits/s, {bytes} bytes of memory each", queued as f64 / took);

    pool.connect_all();
    let begun = Instant::now();
    pool.place();
    let (took, placed) = (begun.elapsed().as_secs_f64(), pool.assigned.len());
    assert_eq!(placed as u64, (NODES * u64::from(SLOTS)).min(queued), "the pool is full");
    println!("{queued} jobs queued: {:.0} placements/s while {placed} places fill", placed as f64 / took);

    let running: Vec<Assigned> = pool.assigned.drain(..).take(TURNOVER).collect();
    let begun = Instant::now();
    for assigned in &running {
        pool.live(assigned);
        pool.place();
    }
    let took = begun.elapsed().as_secs_f64();
    assert!(!pool.assigned.is_empty(), "others took their places");
    let turned = pool.assigned.len();
    println!(
        "{queued} jobs queued: {:.0} placements/s as jobs end one by one, their ends included",
        turned as f64 / took
    );
}

/// One client's jobs that all need something else, and fit nowhere, beside the jobs of another, of which one comes every 10 ms.
fn classes(needs: u64) {
    const TICK: Span = Span::from_millis(10);
    const TICKS: u64 = 300;
    let mut pool = Pool::new(10, 2);
    pool.connect_all();
    for number in 0..needs {
        pool.submit_as(0, number, |spec| {
            spec.requirements.cpu_milli = 1_000_000;
            spec.max_cost = Micro(spec.max_cost.0 + number);
        });
    }
    pool.place();
    let (begun, mut placed) = (Instant::now(), 0);
    for tick in 0..TICKS {
        pool.now = pool.now + TICK;
        pool.submit_as(1, needs + tick, |_| {});
        pool.place();
        for assigned in std::mem::take(&mut pool.assigned) {
            pool.live(&assigned);
            placed += 1;
        }
        pool.place();
    }
    let share = begun.elapsed().as_secs_f64() / (TICK.0 * TICKS) as f64 * 1e6;
    println!(
        "{needs} different needs wait in vain: {placed} of {TICKS} others' jobs have run, {:.0} % of a core",
        100.0 * share
    );
}

/// An attempt, and where it is.
struct Assigned {
    node: NodeId,
    attempt: AttemptId,
    fence: Fence,
}

struct Pool {
    control: Control,
    nodes: u64,
    accounts: u64,
    now: Timestamp,
    assigned: Vec<Assigned>,
}

impl Pool {
    fn new(nodes: u64, accounts: u64) -> Self {
        let control = Control::new(ControlConfig::new(Asset::Test));
        let mut pool = Self { control, nodes, accounts, now: Timestamp(1_000_000), assigned: Vec::new() };
        let (boot, boot_clock, wall) = (BootId([0; 16]), Span::ZERO, WallTime(0));
        pool.done(Command::EngineStarted { boot, boot_clock, wall, version: Text::cut("0") });
        pool.identity(Role::Operator, 0, "root".to_owned());
        for number in 0..accounts {
            pool.identity(Role::Client, number, format!("a{number}"));
            let account = account(number);
            let (by, amount) = (operator(), Micro(1_000_000_000_000));
            let key = format!("a{number}").parse().expect("a key");
            pool.done(Command::Credit { by, account, amount, key, why: Text::default() });
        }
        for number in 0..nodes {
            pool.identity(Role::Node, number, format!("n{number}"));
        }
        pool
    }

    fn identity(&mut self, role: Role, number: u64, name: String) {
        let account = if role == Role::Client { account(number) } else { "root".parse().expect("an account") };
        let identity = Identity { id: identity(role, number), role, name: name.parse().expect("a name"), account };
        self.done(Command::AddIdentity { identity, certificate: None });
    }

    fn connect_all(&mut self) {
        for number in 0..self.nodes {
            let arrival = AgentArrival {
                instance: InstanceId([1; 16]),
                highest_fence: None,
                inventory: Vec::new(),
                offer: offer(1_000 + (number * 7_919) % 1_000),
            };
            let (node, session) = (NodeId(identity(Role::Node, number).0), SessionId(number + 1));
            self.tell(Command::AgentConnected { node, session, arrival: Box::new(arrival) });
        }
    }

    fn submit(&mut self, number: u64) {
        self.submit_as(number / POLICIES.len() as u64 % self.accounts, number, |_| {});
    }

    fn submit_as(&mut self, owner: u64, number: u64, change: impl FnOnce(&mut JobSpec)) {
        let by = Actor { id: identity(Role::Client, owner), role: Role::Client, account: account(owner) };
        let mut spec = Box::new(spec(number as usize % POLICIES.len()));
        change(&mut spec);
        let key = format!("j{number}").parse().expect("a key");
        let reply = self.tell(Command::Submit { by, key, spec, spec_digest: Digest([0; 32]), no_queue: false });
        assert!(matches!(reply, Reply::Submitted { existing: false, .. }), "{reply:?}");
    }

    /// The node takes it, runs it, and tells its end.
    fn live(&mut self, assigned: &Assigned) {
        let Assigned { node, attempt, fence } = *assigned;
        let session = self.control.node(node).and_then(|node| node.session()).expect("it is connected");
        let usage = Usage { ran: Span::from_millis(10), ..Usage::default() };
        let ended = ReportBody::Ended { ending: Ending::Exited { code: 0 }, usage, output: OutputLengths::default() };
        for body in [ReportBody::Starting, ReportBody::Started, ended] {
            self.done(Command::Report { node, session, report: Report { attempt, fence, body } });
        }
    }

    /// As the engine does: passes, until nothing more can be placed now.
    fn place(&mut self) {
        while self.control.next_deadline().is_some_and(|at| at <= self.now) {
            let decision = self.control.advance(self.now);
            self.absorb(decision);
        }
    }

    fn absorb(&mut self, decision: Decision) -> Option<Reply> {
        for effect in decision.effects {
            if let Effect::ToNode { node, message: NodeMessage::Assign(assignment), .. } = effect {
                self.assigned.push(Assigned { node, attempt: assignment.attempt, fence: assignment.claim.fence });
            }
        }
        decision.reply
    }

    fn tell(&mut self, command: Command) -> Reply {
        let decision = self.control.apply(self.now, command);
        self.absorb(decision).expect("commands are answered")
    }

    fn done(&mut self, command: Command) {
        assert_eq!(self.tell(command), Reply::Done);
    }
}

fn identity(role: Role, number: u64) -> IdentityId {
    let mut id = [role as u8; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    IdentityId(id)
}

fn account(number: u64) -> AccountId {
    format!("a{number}").parse().expect("an account")
}

fn operator() -> Actor {
    Actor { id: identity(Role::Operator, 0), role: Role::Operator, account: "root".parse().expect("an account") }
}

fn offer(core_hour: u64) -> Offer {
    Offer {
        capabilities: Capabilities {
            adapters: List::cut(vec![Adapter::Wasm]),
            cpu_milli: 64_000,
            memory_bytes: 64 << 30,
            disk_bytes: 0,
            slots: SLOTS,
            gpus: List::default(),
            models: List::default(),
            pullable: List::default(),
            exceptions: Exceptions::default(),
            container_gpus: false,
            labels: Map::default(),
            region: Text::default(),
        },
        tariff: Tariff { core_hour: Micro(core_hour), ..Tariff::default() },
        agent_version: Text::default(),
        paused: false,
        images: List::default(),
    }
}

fn spec(class: usize) -> JobSpec {
    JobSpec {
        name: Text::default(),
        body: TaskBody::Blob { digest: Digest([0; 32]), adapter: Adapter::Wasm },
        requirements: Requirements {
            adapter: Adapter::Wasm,
            cpu_milli: 100 * (1 + class as u32),
            memory_bytes: 1 << 20,
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
        max_cost: Micro::UNIT,
        priority: 0,
        labels: Map::default(),
        input: Input::None,
        policy: POLICIES[class],
    }
}

/// Memory of this process that is in use, in bytes; 0 where the kernel does not tell.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).map_or(0, |kib: u64| kib * 1024)
}

//! Placing against a naive reference: every job by its turn, on the best of all nodes, in random lives of a pool.

use std::cmp::Reverse;

use proptest::prelude::*;

use super::*;
use crate::scheduler::needs::{Needs, SharedNeeds};
use crate::scheduler::shortlist::Except;
use crate::scheduler::{self, amounts::Amounts};
use modchain_types::{DockerTask, ImageMark, LlmKind, LlmTask, ModelInfo, Policy};

/// More than a shortlist of a test has room for.
const NODES: u8 = 12;
const ACCOUNTS: [&str; 3] = ["alice", "bob", "owen"];
const MODEL: &str = "m:1";
const IMAGE: &str = "tool:1";
const CAPABILITY: [&str; 3] = ["8.6", "9.0", ""];

#[derive(Debug, Clone)]
enum Step {
    Connect { node: u8, price: u64, shape: u8 },
    Disconnect(u8),
    Offer { node: u8, price: u64, shape: u8, paused: bool },
    Set(u8, NodeWish),
    Submit { account: u8, kind: u8, policy: u8, priority: i8, pinned: bool },
    End { pick: usize, how: u8 },
    Cancel { pick: usize },
    Revoke(u8),
    Wait(u64),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (node, price, shape) = (1..=NODES, 0u64..4, 0u8..8);
    let offer = (node.clone(), price, shape, prop::bool::weighted(0.2));
    let wish = prop_oneof![
        Just(NodeWish::Open),
        Just(NodeWish::Cordon),
        Just(NodeWish::Drain { within: Some(Span::from_secs(5)) })
    ];
    let submit = (0u8..3, 0u8..7, 0u8..3, prop_oneof![3 => Just(0i8), 1 => -2i8..4], prop::bool::weighted(0.05));
    let step = prop_oneof![
        6 => offer.clone().prop_map(|(node, price, shape, _)| Step::Connect { node, price, shape }),
        1 => node.clone().prop_map(Step::Disconnect),
        2 => offer.prop_map(|(node, price, shape, paused)| Step::Offer { node, price, shape, paused }),
        1 => (node.clone(), wish).prop_map(|(node, wish)| Step::Set(node, wish)),
        12 => submit.prop_map(|(account, kind, policy, priority, pinned)| {
            Step::Submit { account, kind, policy, priority, pinned }
        }),
        8 => (any::<usize>(), 0u8..4).prop_map(|(pick, how)| Step::End { pick, how }),
        1 => any::<usize>().prop_map(|pick| Step::Cancel { pick }),
        1 => node.prop_map(Step::Revoke),
        3 => prop_oneof![Just(1u64), Just(4), Just(16), Just(61)].prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..120)
}

fn shaped(price: u64, shape: u8) -> Offer {
    let mut offer = offer(36_000 * price);
    let gpu = |number: u8| GpuInfo {
        uuid: Text::cut(format!("GPU-{number}")),
        vendor: Text::cut("nvidia"),
        model: Text::cut(if number.is_multiple_of(2) { "H100" } else { "L4" }),
        memory_bytes: 40 << 30,
        driver: Text::cut("570.1"),
        compute: Text::cut(CAPABILITY[usize::from(number) % CAPABILITY.len()]),
    };
    offer.tariff.gpu_hour =
        Map::new(BTreeMap::from([(Text::cut("H100"), Micro(2_000)), (Text::cut("*"), Micro(500))])).expect("few");
    let capabilities = &mut offer.capabilities;
    capabilities.adapters = List::cut(vec![Adapter::Wasm, Adapter::Docker, Adapter::Llm]);
    capabilities.slots = 2 + u32::from(shape % 3);
    capabilities.gpus = List::cut((0..shape % 4).map(gpu).collect());
    let model = ModelInfo { name: Text::cut(MODEL), digest: Text::cut("ab"), bytes: 1, warm: shape.is_multiple_of(2) };
    capabilities.models = List::cut(if shape % 3 == 1 { vec![model] } else { vec![] });
    capabilities.pullable = List::cut(if shape % 3 == 2 { vec![Text::cut("*")] } else { vec![] });
    offer.images = List::cut(if shape < 3 { vec![ImageMark::of(IMAGE)] } else { vec![] });
    offer
}

fn kind_of_job(spec: &mut JobSpec, kind: u8) {
    spec.max_cost = Micro(50_000);
    spec.limits.time_limit = Some(Span::from_secs(600));
    match kind {
        0 => spec.requirements.cpu_milli = 4_000,
        1 => spec.requirements.gpus.count = 1,
        2 => spec.requirements.gpus.count = 2,
        3 => {
            let (model, request) = (Text::cut(MODEL), Digest([1; 32]));
            spec.requirements.adapter = Adapter::Llm;
            spec.requirements.model = Some(Text::cut(MODEL));
            spec.body = TaskBody::Inline(Task::Llm(LlmTask {
                model,
                request,
                request_bytes: 100,
                kind: LlmKind::Generate,
                temperature_milli: None,
                max_tokens: None,
                seed: None,
                json: false,
            }));
        }
        4 => {
            spec.requirements.adapter = Adapter::Docker;
            spec.body = TaskBody::Inline(Task::Docker(DockerTask {
                image: Text::cut(IMAGE),
                command: List::default(),
                entrypoint: None,
                env: Map::default(),
                workdir: None,
                tmp_bytes: DockerTask::TMP_BYTES_DEFAULT,
                pids_max: DockerTask::PIDS_DEFAULT,
                pull_timeout: DockerTask::PULL_TIMEOUT_DEFAULT,
            }));
        }
        5 => spec.max_cost = Micro(600), // under the minimum of every node
        _ => {}
    }
}

/// The pool, and the sessions that are open.
struct Life {
    world: World,
    sessions: BTreeMap<u8, SessionId>,
    submitted: u32,
    needs: Vec<SharedNeeds>,
}

impl Life {
    fn new() -> Self {
        let mut world = World::new();
        world.control.config.ceilings.accounts.insert(account("bob"), 2);
        // The ceilings are in the queue from the start.
        world.control = Control::new(world.control.config.clone());
        let journal = std::mem::take(&mut world.journal);
        journal.iter().for_each(|event| world.control.evolve(event));
        world.journal = journal;
        world.start();
        for number in 3..=NODES {
            world.identity(number, Role::Node, &format!("n{number}"), "owen");
        }
        for name in ACCOUNTS {
            let key = format!("more-{name}").parse().expect("a key");
            let (by, account, amount) = (operator(), account(name), Micro(1_000_000_000));
            world.done(Command::Credit { by, account, amount, key, why: Text::default() });
        }
        Self { world, sessions: BTreeMap::new(), submitted: 0, needs: all_needs() }
    }

    fn pick(&self, pick: usize, placed: bool) -> Option<JobId> {
        let jobs: Vec<JobId> =
            self.world.control.jobs().filter(|job| job.placement().is_some() == placed).map(|job| job.id).collect();
        jobs.get(pick % jobs.len().max(1)).copied()
    }

    fn live(&mut self, step: Step) {
        let now = self.world.now;
        match step {
            Step::Connect { node: number, price, shape } => {
                let id = node(number);
                let inventory = self.world.control.jobs().filter(|job| job.placement().is_some_and(|p| p.node == id));
                let inventory = inventory.map(|job| self.world.item(job.id, ItemState::Running)).collect();
                let instance = InstanceId([number; 16]);
                let offer = shaped(price, shape);
                self.world.sessions += 1;
                let session = SessionId(self.world.sessions);
                let arrival = Box::new(AgentArrival { instance, highest_fence: None, inventory, offer });
                let command = Command::AgentConnected { node: id, session, arrival };
                if self.command(command) == Some(Reply::Welcome) {
                    self.sessions.insert(number, session);
                }
            }
            Step::Disconnect(number) => {
                if let Some(session) = self.sessions.remove(&number) {
                    self.command(Command::AgentDisconnected { node: node(number), session });
                }
            }
            Step::Offer { node: number, price, shape, paused } => {
                if let Some(session) = self.sessions.get(&number).copied() {
                    let offer = Box::new(Offer { paused, ..shaped(price, shape) });
                    self.command(Command::OfferChanged { node: node(number), session, offer });
                }
            }
            Step::Set(number, wish) => {
                self.command(Command::NodeSet { by: operator(), node: node(number), wish, why: Text::default() });
            }
            Step::Submit { account, kind, policy, priority, pinned } => {
                self.submitted += 1;
                let mut spec = spec();
                kind_of_job(&mut spec, kind);
                spec.policy = Policy::ALL[usize::from(policy)];
                spec.priority = priority;
                spec.requirements.node = pinned.then(|| "n3".parse().expect("a name"));
                let key = self.submitted.to_string().parse().expect("a key");
                let by = client(ACCOUNTS[usize::from(account)]);
                let spec_digest = Digest([0; 32]);
                let submit = Command::Submit { by, key, spec: Box::new(spec), spec_digest, no_queue: false };
                assert!(matches!(self.command(submit), Some(Reply::Submitted { .. })));
            }
            Step::End { pick, how } => {
                let Some(job) = self.pick(pick, true) else { return };
                let placement = self.world.control.job(job).and_then(Job::placement).expect("placed").clone();
                let number = placement.node.0[0];
                let Some(session) = self.sessions.get(&number).copied() else { return };
                let body = match how {
                    0 => ReportBody::Refused { message: Text::default() },
                    1 => World::ended(Ending::NodeFault { message: Text::default() }, Span::ZERO),
                    _ => World::ended(Ending::Exited { code: 0 }, Span::ZERO),
                };
                let report = Report { attempt: placement.attempt, fence: placement.fence, body };
                self.command(Command::Report { node: placement.node, session, report });
            }
            Step::Cancel { pick } => {
                let Some(job) = self.pick(pick, false) else { return };
                let grace = Span::ZERO;
                self.command(Command::Cancel { by: operator(), job, grace, why: Text::default() });
            }
            Step::Revoke(number) => {
                if number > NODES / 2 {
                    let (by, wall, why) = (operator(), WallTime(0), Text::default());
                    let identity = IdentityId([number; 16]);
                    self.command(Command::RevokeIdentity { by, identity, wall, why });
                }
            }
            Step::Wait(seconds) => {
                // Half of the nodes are heard in between.
                self.world.now = now + Span::from_secs(seconds);
                for (number, session) in self.sessions.clone() {
                    if number % 2 == 0 {
                        self.command(Command::AgentHeard { node: node(number), session });
                    }
                }
            }
            Step::Restart => {
                self.world.control = self.world.replayed();
                self.sessions.clear();
                self.world.start();
            }
        }
        self.pass();
    }

    fn command(&mut self, command: Command) -> Option<Reply> {
        let decision = self.world.control.apply(self.world.now, command);
        self.world.absorb(decision)
    }

    /// Deadlines and placing, with every placement looked at.
    fn pass(&mut self) {
        let now = self.world.now;
        while self.world.control.next_deadline().is_some_and(|at| at <= now) {
            let mut before = self.world.control.clone();
            let decision = self.world.control.advance(now);
            // What is not durable follows from no event, and deadlines come before placing.
            for (node, after) in before.nodes.values_mut().zip(self.world.control.nodes.values()) {
                node.presence = after.presence.clone();
            }
            let kept = self.world.control.kept;
            let mut pass = Pass { kept, is_kept: false, blocked: Vec::new() };
            for event in &decision.events {
                if let EventBody::AttemptAssigned { attempt, node, .. } = &event.body {
                    let (job, planned) = pass.next(&before, now);
                    assert_eq!((attempt.job, *node), (job, planned), "not whose turn it is, or not the best node");
                }
                before.evolve(event);
            }
            self.world.absorb(decision);
        }
        self.lists_agree();
        assert_eq!(self.world.replayed().queue.shares(), self.world.control.queue.shares());
    }

    /// What the lists say is what judging every node says, for every kind of job there is. Asking keeps a list, so these are
    /// as old as the pool.
    fn lists_agree(&mut self) {
        let (control, now) = (&mut self.world.control, self.world.now);
        for needs in &self.needs {
            for (avoided, kept) in [(vec![], None), (vec![node(1), node(4)], Some(node(2))), (all_nodes(), None)] {
                let avoided = avoided.into_iter().collect();
                let except = Except { avoided: &avoided, kept };
                let naive = scheduler::plan(control.nodes.values(), now, needs, except);
                let listed = control.shortlists.plan(&control.nodes, now, needs, except);
                assert_eq!(listed, naive, "{needs:?}");
            }
        }
    }
}

fn all_needs() -> Vec<SharedNeeds> {
    let needs = |kind, policy| {
        let mut spec = spec();
        kind_of_job(&mut spec, kind);
        spec.policy = policy;
        Needs::of(&spec, None).into()
    };
    (0u8..7).flat_map(|kind| Policy::ALL.map(|policy| needs(kind, policy))).collect()
}

fn all_nodes() -> Vec<NodeId> {
    (1..=NODES).map(node).collect()
}

/// What one pass over the queue knows.
struct Pass {
    /// The node that it keeps free in the end.
    kept: Option<Kept>,
    /// Whether it has come to the job that the node is kept for: who comes before that one is not kept from the node.
    is_kept: bool,
    /// Classes that fit nowhere.
    blocked: Vec<Needs>,
}

impl Pass {
    /// Whose turn it is, and the best node for it: by sorting all jobs and judging all nodes.
    fn next(&mut self, control: &Control, now: Timestamp) -> (JobId, NodeId) {
        let mut waiting: Vec<&Job> = control.jobs.values().filter(|job| job.placement().is_none()).collect();
        waiting.sort_by_key(|job| turn(control, job));
        for job in waiting {
            if self.blocked.contains(&job.needs) {
                continue;
            }
            let kept = self.kept.filter(|_| self.is_kept).map(|kept| kept.node);
            let except = Except { avoided: &job.avoided, kept };
            match scheduler::plan(control.nodes.values(), now, &job.needs, except) {
                Some((node, _)) => return (job.id, node),
                None => {
                    self.is_kept |= self.kept.is_some_and(|kept| kept.job == job.id);
                    self.blocked.push((*job.needs).clone());
                }
            }
        }
        panic!("a job was placed, and none fits");
    }
}

fn turn(control: &Control, job: &Job) -> impl Ord + use<> {
    let whole = control.nodes.values().filter(|node| !node.revoked).filter_map(|node| node.offer.as_deref());
    let whole = whole.fold(Amounts::default(), |sum, offer| sum.plus((&offer.capabilities).into()));
    let placed = control.jobs.values().filter(|other| other.account == job.account).filter_map(Job::placement);
    let held = placed.fold(Amounts::default(), |sum, placement| sum.plus((&placement.reservation).into()));
    let counts_as = control.config.ceilings.counts_as(&job.account, job.spec.priority);
    let served = control.queue.shares().of(&job.account).served;
    (Reverse(counts_as), held.part_of(&whole), served, Reverse(job.spec.priority), job.queued_number)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn placing_is_what_sorting_all_jobs_and_judging_all_nodes_says(steps in steps()) {
        let mut life = Life::new();
        for step in steps {
            life.live(step);
        }
    }
}

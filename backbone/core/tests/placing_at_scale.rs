//! What a placement costs with ten thousand nodes, counted in judgements and not in time: as much with a million jobs waiting
//! as with ten thousand.

use std::collections::{BTreeMap, BTreeSet};

use modchain_core::command::SessionId;
use modchain_core::job::{Job, Phase};
use modchain_core::node::Node;
use modchain_core::scheduler::feasible::Fit;
use modchain_core::scheduler::needs::{Needs, SharedNeeds};
use modchain_core::scheduler::queue::{Ceilings, Queue, Turn};
use modchain_core::scheduler::shortlist::{Except, Shortlists};
use modchain_types::*;

const NODES: usize = 10_000;
const SLOTS: u32 = 4;
const ACCOUNTS: usize = 1_000;
const POLICIES: [Policy; 5] = [Policy::Cheapest, Policy::Cheapest, Policy::Spread, Policy::Fastest, Policy::Cheapest];

struct Pool {
    nodes: BTreeMap<NodeId, Node>,
    queue: Queue,
    shortlists: Shortlists,
    templates: Vec<Job>,
    running: Vec<(usize, NodeId, Reservation)>,
}

fn template(class: usize) -> Job {
    let spec = JobSpec {
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
    };
    Job {
        id: JobId([0; 16]),
        account: account(0),
        key: "k".parse().expect("a key"),
        needs: Needs::of(&spec, None).into(),
        spec: Box::new(spec),
        spec_digest: Digest([0; 32]),
        fee_basis_points: 500,
        queued_at: Timestamp::ZERO,
        queued_number: 0,
        attempts_made: 0,
        attempts_counted: 0,
        avoided: BTreeSet::new(),
        image: None,
        stop: None,
        phase: Phase::Queued,
    }
}

fn account(number: usize) -> AccountId {
    format!("a{}", number % ACCOUNTS).parse().expect("an account")
}

fn node(number: usize) -> Node {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(number as u64).to_be_bytes());
    let name = format!("n{number}").parse().expect("a name");
    let mut node = Node::new(NodeId(id), name, account(0), Timestamp::ZERO);
    node.lost = false;
    node.presence.session = Some((SessionId(1), InstanceId([1; 16])));
    let core_hour = Micro(1_000 + (number as u64 * 7_919) % 1_000);
    node.offer = Some(Box::new(Offer {
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
        tariff: Tariff { core_hour, ..Tariff::default() },
        agent_version: Text::default(),
        paused: false,
        images: List::default(),
    }));
    node
}

impl Pool {
    fn new(queued: usize) -> Self {
        let mut pool = Self {
            nodes: (0..NODES).map(node).map(|node| (node.id, node)).collect(),
            queue: Queue::new(Ceilings::default()),
            shortlists: Shortlists::default(),
            templates: (0..POLICIES.len()).map(template).collect(),
            running: Vec::new(),
        };
        for node in pool.nodes.values() {
            pool.queue.offered(None, node.offer.as_deref());
        }
        for number in 0..queued {
            let job = pool.job(number).clone();
            pool.queue.insert(&job);
        }
        pool
    }

    /// The job of this number. Jobs are not kept: a million of them would test the machine's memory.
    fn job(&mut self, number: usize) -> &Job {
        let class = number % POLICIES.len();
        let job = &mut self.templates[class];
        job.id.0[..8].copy_from_slice(&(number as u64).to_be_bytes());
        job.queued_number = number as u64;
        job.account = account(number / POLICIES.len());
        job
    }

    /// A pass over the queue, as the machine makes it; tells how many were placed.
    fn pass(&mut self, most: usize) -> usize {
        let mut turns: BTreeMap<Turn, SharedNeeds> = self.queue.turns();
        let mut placed = 0;
        while placed < most
            && let Some((turn, needs)) = turns.pop_first()
        {
            let Some((current, id)) = self.queue.head(&needs) else { continue };
            if current != turn {
                turns.insert(current, needs);
                continue;
            }
            let except = Except { avoided: &BTreeSet::new(), kept: None };
            let plan = self.shortlists.plan(&self.nodes, Timestamp::ZERO, &needs, except);
            let Some((node, Fit { reservation, .. })) = plan else { continue };
            let number = u64::from_be_bytes(*id.0.first_chunk().expect("16 bytes")) as usize;
            let job = self.job(number).clone();
            self.queue.remove(&job);
            self.queue.placed(&job.account, &reservation, number as u64);
            self.nodes.get_mut(&node).expect("known").taken.add(&reservation);
            self.running.push((number, node, reservation));
            placed += 1;
            if let Some((next, _)) = self.queue.head(&needs) {
                turns.insert(next, needs);
            }
        }
        placed
    }

    /// The job that has run for longest ends.
    fn end(&mut self, at: usize) {
        let (number, node, reservation) = self.running[at].clone();
        self.nodes.get_mut(&node).expect("known").taken.remove(&reservation);
        self.queue.unplaced(&account(number / POLICIES.len()), &reservation);
        self.shortlists.changed(node);
    }
}

/// Judgements for each placement: while the pool fills, and while jobs end and others take their place.
fn judgements(queued: usize) -> (f64, f64) {
    let mut pool = Pool::new(queued);
    let mut filled = 0;
    loop {
        match pool.pass(512) {
            0 => break,
            placed => filled += placed,
        }
    }
    assert_eq!(filled, (NODES * SLOTS as usize).min(queued), "the pool is full, or nothing waits");
    let filling = pool.shortlists.judged();
    let ends = 5_000;
    for at in 0..ends {
        pool.end(at);
        assert_eq!(pool.pass(512), 1);
    }
    let going_on = pool.shortlists.judged() - filling;
    (filling as f64 / filled as f64, going_on as f64 / ends as f64)
}

#[test]
fn a_placement_judges_as_few_nodes_with_a_million_jobs_as_with_fifty_thousand() {
    let (few, many) = (judgements(50_000), judgements(1_000_000));
    println!("judgements a placement, filling and going on: {few:?} with 50,000 jobs, {many:?} with 1,000,000");
    for (few, many) in [(few.0, many.0), (few.1, many.1)] {
        assert!(many <= few * 1.05 + 0.1, "{few} with few, {many} with many");
        // Each of the five classes judges each change once, and all nodes once in thousands of placements.
        assert!(many < 10.0, "{many}");
    }
}

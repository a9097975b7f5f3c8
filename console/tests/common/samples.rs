//! Views as an orchestrator sends them, for tests that show them: every field is filled as it is on a real pool. Also taken in by
//! the program's own unit tests.

use std::collections::BTreeMap;

use modchain_types::*;
use modchain_wire::agent::{GpuSample, HostLoad};
use modchain_wire::view::*;

/// The moment that all samples count from.
pub(crate) const AT: WallTime = WallTime(1_795_356_201_114);

fn text<const MAX: usize>(text: &str) -> Text<MAX> {
    Text::new(text).expect("fits")
}

/// The id of the job of this number.
pub(crate) fn job_id(number: u64) -> JobId {
    let mut bytes = [0; 16];
    // Ids begin with what tells them apart, as real ones do.
    bytes[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    JobId(bytes)
}

/// A job that runs on `zurich-01` and began 90 seconds after [`AT`].
pub(crate) fn job_view(number: u64) -> JobView {
    let begun = AT.plus(Span::from_secs(90));
    JobView {
        id: job_id(number),
        name: text(&format!("sweep-{number}")),
        account: "alice".parse().expect("an account"),
        adapter: Adapter::Wasm,
        what: text(&format!("train.wasm --rate 0.1 --seed {number}")),
        state: JobState::Running,
        reason: None,
        exit: None,
        message: text(""),
        node: Some("zurich-01".parse().expect("a name")),
        attempts: List::new(vec![AttemptView {
            number: 1,
            node: "zurich-01".parse().expect("a name"),
            fence: Fence(9),
            state: JobState::Running,
            reason: None,
            message: text(""),
            assigned_at: AT,
            started_at: Some(begun),
            ended_at: None,
        }])
        .expect("fits"),
        hold: Micro(2_000_000),
        cost: Micro(410_000),
        fee: Micro::ZERO,
        refund: Micro::ZERO,
        price_per_hour: Some(Micro(1_310_000)),
        labels: Map::new(BTreeMap::from([(text("sweep"), text("a"))])).expect("fits"),
        run_limit: Some(Span::from_secs(3_600)),
        time_limit: None,
        attempts_max: 3,
        usage: Usage::default(),
        output: OutputLengths { stdout: 10_240, stderr: 512, dropped: 0 },
        preparing: text(""),
        image: None,
        model: None,
        gpus: List::default(),
        created_at: AT,
        started_at: Some(begun),
        ended_at: None,
    }
}

/// The same as it waits in the queue.
pub(crate) fn queued_job(number: u64) -> JobView {
    JobView {
        state: JobState::Queued,
        message: text("no node has 2 free GPUs"),
        node: None,
        attempts: List::default(),
        cost: Micro::ZERO,
        price_per_hour: None,
        started_at: None,
        ..job_view(number)
    }
}

/// The same as it ended: completed, or failed with this exit code.
pub(crate) fn ended_job(number: u64, code: u8) -> JobView {
    let state = if code == 0 { JobState::Completed } else { JobState::Failed };
    let ended = AT.plus(Span::from_secs(600));
    let job = job_view(number);
    let mut attempts = job.attempts.clone().into_vec();
    for attempt in &mut attempts {
        (attempt.state, attempt.reason, attempt.ended_at) = (state, Some(Reason::Exit), Some(ended));
    }
    JobView {
        state,
        reason: Some(Reason::Exit),
        exit: Some(Exit::job(code)),
        attempts: List::cut(attempts),
        fee: Micro(20_500),
        refund: Micro(1_590_000),
        usage: Usage { ran: Span::from_secs(510), ..Usage::default() },
        ended_at: Some(ended),
        ..job
    }
}

/// A node that takes jobs, with so many GPUs, half of them reserved.
pub(crate) fn node_view(name: &str, gpus: usize) -> NodeView {
    let infos = (0..gpus).map(|number| GpuInfo {
        uuid: text(&format!("GPU-{name}-{number}")),
        vendor: text("nvidia"),
        model: text("NVIDIA H100 80GB HBM3"),
        memory_bytes: 80 << 30,
        driver: text("570.1"),
        compute: text("9.0"),
    });
    let samples = (0..gpus).map(|number| GpuSample {
        busy_pct: Some(u8::try_from(92 - number % 90).expect("fits")),
        memory_used_bytes: Some(61 << 30),
        temperature_c: Some(67),
        power_mw: Some(397_600),
    });
    let mut id = [0; 16];
    for (place, byte) in name.bytes().enumerate() {
        id[place % 16] ^= byte.rotate_left(u32::try_from(place / 16).expect("fits"));
    }
    let held = |number| (text(&format!("GPU-{name}-{number}")), text("NVIDIA H100 80GB HBM3"));
    let reserved = List::cut((0..gpus / 2).map(held).collect());
    NodeView {
        id: NodeId(id),
        name: name.parse().expect("a name"),
        account: "owner".parse().expect("an account"),
        state: NodeState::Ready,
        offer: Some(Offer {
            capabilities: Capabilities {
                adapters: List::new(vec![Adapter::Wasm, Adapter::Docker]).expect("fits"),
                cpu_milli: 64_000,
                memory_bytes: 512 << 30,
                disk_bytes: 2 << 40,
                slots: 16,
                gpus: List::cut(infos.collect()),
                models: List::default(),
                pullable: List::default(),
                exceptions: Exceptions::default(),
                container_gpus: gpus > 0,
                labels: Map::new(BTreeMap::from([(text("pool"), text("lab"))])).expect("fits"),
                region: text("eu-central"),
            },
            tariff: Tariff {
                core_hour: Micro(30_000),
                gib_hour: Micro(4_000),
                gpu_hour: Map::new(BTreeMap::from([(text("*"), Micro(1_200_000))])).expect("fits"),
                minimum: Micro(1_000),
                ..Tariff::default()
            },
            agent_version: text("0.1.0"),
            paused: false,
            images: List::default(),
        }),
        reserved: Reservation { cpu_milli: 8_000, memory_bytes: 32 << 30, gpus: reserved, ..Reservation::default() },
        attempts: 2,
        load: Some(HostLoad {
            cpu_permille: Some(125),
            memory_used_bytes: 40 << 30,
            memory_total_bytes: 512 << 30,
            disk_free_bytes: 1 << 40,
        }),
        rtt: Some(Span::from_millis(9)),
        seen_at: Some(AT),
        connected_at: Some(AT),
        gpus: List::cut(samples.collect()),
        drains_at: None,
    }
}

/// The account of `alice` with so much free.
pub(crate) fn account_view(available: Micro) -> AccountView {
    AccountView {
        id: "alice".parse().expect("an account"),
        available,
        held: Micro(63_100_000),
        earned: Micro::ZERO,
        open_jobs: 24,
        burn_per_hour: Micro(6_020_000),
    }
}

/// An event of this number, as many seconds after [`AT`]: the job of the same number begins to run.
pub(crate) fn event_view(number: u64) -> EventView {
    EventView {
        number,
        at: AT.plus(Span::from_secs(number)),
        kind: EventKind::Job,
        job: Some(job_id(number)),
        attempt: Some(AttemptId { job: job_id(number), number: 1 }),
        node: Some("zurich-01".parse().expect("a name")),
        account: Some("alice".parse().expect("an account")),
        from: Some(JobState::Assigned),
        to: Some(JobState::Running),
        reason: None,
        text: text("runs on zurich-01"),
    }
}

/// A line of a statement.
pub(crate) fn ledger_entry(number: u64, at: WallTime, kind: LedgerKind, amount: i64) -> LedgerEntryView {
    LedgerEntryView { number, at, kind, amount, balance: Micro(98_000_000), job: Some(job_id(number)), text: text("") }
}

/// Who `alice` is.
pub(crate) fn identity() -> Identity {
    Identity {
        id: IdentityId([9; 16]),
        role: Role::Client,
        account: "alice".parse().expect("an account"),
        name: "alice".parse().expect("a name"),
    }
}

/// A pool of so many nodes and jobs: of ten jobs one has ended, five run and four wait. One was submitted every second, in an order
/// that is not that of their ids.
pub(crate) fn large(nodes: usize, jobs: u64) -> (Vec<JobView>, Vec<NodeView>) {
    let job = |number| {
        let job = match number % 10 {
            0 => ended_job(number, u8::try_from(number % 3).expect("small")),
            1..=5 => job_view(number),
            _ => queued_job(number),
        };
        let earlier = i64::try_from((1_000 + number * 7_919 % jobs) * 1_000).expect("some hours");
        let moved = |at: WallTime| WallTime(at.0 - earlier);
        JobView {
            created_at: moved(job.created_at),
            started_at: job.started_at.map(moved),
            ended_at: job.ended_at.map(moved),
            ..job
        }
    };
    let nodes = (0..nodes).map(|number| node_view(&format!("node-{number:05}"), number % 3));
    ((0..jobs).map(job).collect(), nodes.collect())
}

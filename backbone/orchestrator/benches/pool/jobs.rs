//! Jobs that do nothing: how long one takes, how many a second, and what those that wait cost.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::stream::{self, StreamExt};
use modchain_types::{JobSpec, JobState, Micro};
use modchain_wire::ToConsole;
use modchain_wire::console::StatusQuery;

use crate::peers::Console;
use crate::pool::{Pool, names};
use crate::programs::{NOTHING, RealAgent, SLOTS, client, computed, follow, nothing, run, sibling};
use crate::report::{self, millis};

/// Jobs one by one that are counted, after some that are not.
const ONE_BY_ONE: usize = 200;
const WARM_UP: usize = 20;

/// Jobs at once, and who submits them: one client may not send that many in one go.
const AT_ONCE: usize = 10_000;
const CLIENTS: usize = 10;
/// Submits of one client that are under way at once.
const IN_FLIGHT: usize = 32;
/// Longest time for all of them.
const AT_ONCE_MAX: Duration = Duration::from_secs(50);
/// Between two looks whether they are done.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One job after another: over an open connection, and as commands of their own.
pub(crate) async fn latency() {
    let pool = Pool::start(&["client"], &["node"]);
    let _agent = RealAgent::start(&pool, "node");
    let console = client(&pool, "client").await;
    let (mut acks, mut results) = (Vec::new(), Vec::new());
    for number in 0..WARM_UP + ONE_BY_ONE {
        let begun = Instant::now();
        let submitted = console.submit_spec(&format!("one-{number}"), nothing(1_000)).await.expect("it is accepted");
        let acked = begun.elapsed();
        let job = follow(&console, &submitted.job.to_string()).await;
        let ended = begun.elapsed();
        assert_eq!(job.state, JobState::Completed, "{}", job.message);
        if number >= WARM_UP {
            acks.push(acked);
            results.push(ended);
        }
    }
    report::spread("submit acknowledged", &acks);
    report::spread("submit to result, over an open connection", &results);
    report::spread("the same as one `modchain run`", &commands(&pool));
}

/// The whole command each time: a new process, a handshake, the job, its end.
fn commands(pool: &Pool) -> Vec<Duration> {
    let home = pool.folder().join("home");
    let config = home.join(".config/modchain");
    fs::create_dir_all(&config).expect("a folder");
    let contexts = format!(
        "current = \"bench\"\n[contexts.bench]\norchestrator = \"{}\"\nidentity = \"{}\"\n",
        pool.main,
        pool.identity("client").display()
    );
    fs::write(config.join("contexts.toml"), contexts).expect("a file");
    let module = home.join("nothing.wat");
    fs::write(&module, NOTHING).expect("a file");
    let run = |_| {
        let mut command = Command::new(sibling("modchain"));
        command.args(["run", "--max-cost", "0.1", "--wasm"]).arg(&module).env_clear().env("HOME", &home);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let begun = Instant::now();
        let status = command.status().expect("it starts");
        assert!(status.success(), "{status}");
        begun.elapsed()
    };
    (0..WARM_UP + ONE_BY_ONE).map(run).skip(WARM_UP).collect()
}

/// Submits so many jobs, spread over all clients; gives the time of every answer.
async fn submit_all(consoles: &[Console], jobs: usize, spec: &JobSpec) -> Vec<Duration> {
    let each = jobs / consoles.len();
    let clients = consoles.iter().enumerate().map(|(who, console)| async move {
        let submit = |number: usize| async move {
            let begun = Instant::now();
            console.submit_spec(&format!("{who}-{number}"), spec.clone()).await.expect("it is accepted");
            begun.elapsed()
        };
        stream::iter(0..each).map(submit).buffer_unordered(IN_FLIGHT).collect::<Vec<_>>().await
    });
    join_all(clients).await.concat()
}

/// Jobs that have not ended.
async fn open_jobs(operator: &Console) -> u64 {
    match operator.ask(StatusQuery { detail: false }).await {
        ToConsole::Status(status) => status.jobs.iter().map(|(_, count)| *count).sum(),
        other => panic!("{other:?}"),
    }
}

async fn clients(pool: &Pool, names: &[String]) -> Vec<Console> {
    let mut consoles = Vec::with_capacity(names.len());
    for name in names {
        consoles.push(client(pool, name).await);
    }
    consoles
}

/// Ten thousand at once, all of it durable, escrowed and settled.
pub(crate) async fn at_once() {
    let names = names("client", CLIENTS);
    let pool = Pool::start(&names, &["node".to_owned()]);
    let agent = RealAgent::start(&pool, "node");
    let (operator, consoles) = (pool.console("boss").await, clients(&pool, &names).await);
    // Small shares of the cores, so that all slots are taken.
    let spec = nothing(1_900 / SLOTS);
    run(&consoles[0], "warm-up", spec.clone()).await;
    let before = sums(&consoles).await;
    let (server_before, agent_before) = (pool.server().computed(), computed(agent.pid()));

    let begun = Instant::now();
    let acks = submit_all(&consoles, AT_ONCE, &spec).await;
    let submitted = begun.elapsed();
    let mut open = open_jobs(&operator).await;
    while open > 0 && begun.elapsed() < AT_ONCE_MAX {
        tokio::time::sleep(LOOK_EVERY).await;
        open = open_jobs(&operator).await;
    }
    let took = begun.elapsed();
    let done = AT_ONCE as u64 - open;
    report::spread(&format!("submit acknowledged, {} in flight", CLIENTS * IN_FLIGHT), &acks);
    report::line(
        &format!("{AT_ONCE} jobs submitted"),
        &format!("in {:.2} s: {:.0} a second", submitted.as_secs_f64(), AT_ONCE as f64 / submitted.as_secs_f64()),
    );
    report::line(
        "run and settled",
        &format!("{done} in {:.2} s: {:.0} a second", took.as_secs_f64(), done as f64 / took.as_secs_f64()),
    );
    let (server, agent) = (pool.server().computed() - server_before, computed(agent.pid()) - agent_before);
    report::line("computing per job, orchestrator", &millis(server / u32::try_from(done.max(1)).expect("few")));
    report::line(
        "computing per job, agent and its children",
        &millis(agent / u32::try_from(done.max(1)).expect("few")),
    );
    if open == 0 {
        let after = sums(&consoles).await;
        assert_eq!(after.held, Micro::ZERO, "something is still held");
        assert!(after.available < before.available, "nothing was paid");
    }
}

struct Sums {
    available: Micro,
    held: Micro,
}

/// What all clients have together.
async fn sums(consoles: &[Console]) -> Sums {
    let mut sums = Sums { available: Micro::ZERO, held: Micro::ZERO };
    for console in consoles {
        let account = console.account().await;
        sums.available = Micro(sums.available.0 + account.available.0);
        sums.held = Micro(sums.held.0 + account.held.0);
    }
    sums
}

/// Ten thousand jobs that wait because there is no node.
pub(crate) async fn memory() {
    let names = names("client", CLIENTS);
    let pool = Pool::start(&names, &[]);
    let consoles = clients(&pool, &names).await;
    let (before, _) = pool.server().memory();
    submit_all(&consoles, AT_ONCE, &nothing(1_000)).await;
    let (after, _) = pool.server().memory();
    let grown = after.saturating_sub(before);
    report::line(
        &format!("memory of {AT_ONCE} queued jobs"),
        &format!("{:.1} MB: {} bytes each", grown as f64 / 1e6, grown / AT_ONCE as u64),
    );
}

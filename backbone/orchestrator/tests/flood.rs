//! Garbage and half-open handshakes while jobs run: the jobs, the heartbeats and the honest go on as if nothing were.

mod peers;
mod pool;
mod process;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use modchain_link::Protocol;
use modchain_types::{Digest, JobState, Micro};
use modchain_wire::agent::OutputEnd;
use modchain_wire::console::LinkQuery;
use modchain_wire::{ALPN_JOIN, ToConsole};
use peers::{Agent, CREDIT, Console, MINIMUM, MODULE, acked, read_output, send, soon, spec};
use pool::garbage::{Damage, begin_handshakes, offend, pester};
use pool::heart::{Beat, Heart};
use pool::raw::Raw;
use pool::{Pool, Spread, count, names};
use process::lost_at;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Jobs that run meanwhile, each on a node of its own.
const JOBS: usize = 20;
/// Streams of garbage in all, as the issue wants them: `MODCHAIN_TEST_GARBAGE`.
const GARBAGE: usize = 10_000;
/// Handshakes that never go on, on each of the two ports: `MODCHAIN_TEST_HALF_OPEN`.
const HALF_OPEN: usize = 5_000;
/// Identities that send what is an offence. Each is kept out soon, so they are many.
const OFFENDERS: usize = 15;
/// Identities that send what is none.
const PESTERERS: usize = 5;
/// How often each agent beats.
const BEATS: Duration = Duration::from_millis(50);
/// How often each job prints.
const PRINTS: Duration = Duration::from_millis(20);
/// How much a job prints each time.
const PIECE_BYTES: usize = 2 * 1024;
/// How long it is quiet, for comparison.
const QUIET: Duration = Duration::from_secs(2);
/// How much more memory the orchestrator may hold than before, at its peak: what 20 jobs and all that is allowed to wait may
/// take, and far below what 10,000 streams would with a window each.
const GROWTH_MAX: u64 = 200 << 20;

/// How far behind everybody else the hostile compute, as `nice` has it.
const BEHIND: i32 = 15;

/// What a job prints from one byte to another.
fn printed(job: usize, bytes: Range<usize>) -> Vec<u8> {
    bytes.map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ job.wrapping_mul(97)) as u8).collect()
}

/// Runs one job and prints until it is told to end; gives how much that was.
async fn print_until(mut agent: Agent, number: usize, mut end: watch::Receiver<bool>) -> (Agent, usize) {
    let assignment = agent.run().await;
    let (mut out, mut input, have) = agent.attempt(&assignment, None).await;
    assert_eq!(have, 0);
    let mut bytes = 0;
    while !*end.borrow_and_update() {
        send(&mut out, bytes as u64, &printed(number, bytes..bytes + PIECE_BYTES)).await;
        bytes += PIECE_BYTES;
        acked(&mut input, bytes as u64).await;
        tokio::select! {
            () = tokio::time::sleep(PRINTS) => {}
            changed = end.changed() => changed.expect("it is held"),
        }
    }
    let whole = OutputEnd { stdout: bytes as u64, stderr: 0, dropped: 0 };
    out.write(&whole.into()).await.expect("it is taken");
    out.finish().await.expect("it ends");
    agent.exited(&assignment, 0, bytes as u64).await;
    (agent, bytes)
}

/// An honest client, while all this goes on: comes in anew, submits, asks. Gives how long each time took.
async fn go_on_honestly(pool: Arc<Pool>, mut end: watch::Receiver<bool>) -> Vec<Duration> {
    let mut times = Vec::new();
    while !*end.borrow_and_update() {
        let began = Instant::now();
        let honest = pool.console("honest").await;
        let key = format!("job-{}", times.len());
        let mut waits = spec(&key);
        waits.requirements.node = Some("late".parse().expect("a name"));
        honest.submit_spec(&key, waits).await.expect("it is accepted");
        times.push(began.elapsed());
        tokio::time::sleep(BEATS).await;
    }
    times
}

/// Where the hostile compute: behind everybody else, as if on machines of their own. What is measured is what they cost the
/// orchestrator, not that they take the processor from it.
fn elsewhere() -> tokio::runtime::Runtime {
    // Of the thread that calls it alone, which is how Linux has it.
    let step_back = || {
        let _ = rustix::process::setpriority_process(None, BEHIND); // where that is not allowed they compute beside us
    };
    let threads =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).on_thread_start(step_back).enable_all().build();
    threads.expect("threads")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_half_open_handshakes_disturb_neither_jobs_nor_heartbeats_nor_newcomers() {
    let garbage = count("MODCHAIN_TEST_GARBAGE", GARBAGE);
    let half_open = count("MODCHAIN_TEST_HALF_OPEN", HALF_OPEN);
    let nodes = names("node", JOBS);
    let (offenders, pesterers) = (names("offender", OFFENDERS), names("pesterer", PESTERERS));
    let own = ["alice", "honest"].map(str::to_owned);
    let clients = [&own[..], &offenders, &pesterers].concat();
    let pool = Arc::new(Pool::start(&clients, &[&nodes[..], &["late".to_owned()]].concat()));
    let (boss, alice) = (pool.console("boss").await, pool.console("alice").await);
    // The honest one submits for as long as the flood lasts, which a slow machine makes long.
    for (account, times) in own.iter().zip([10, 1_000]) {
        boss.credit(account, Micro(times * CREDIT.0), account).await.expect("credit");
        pool.console(account).await.put(MODULE, Digest::of(MODULE)).await.expect("it is stored");
    }

    let (end, ends) = watch::channel(false);
    let (mut jobs, mut hearts, mut working) = (Vec::new(), Vec::new(), Vec::new());
    for (number, node) in nodes.iter().enumerate() {
        let agent = pool.agent(node).await;
        hearts.push(Heart::start(&agent.connection, BEATS));
        let mut here = spec(node);
        here.requirements.node = Some(node.parse().expect("a name"));
        jobs.push(alice.submit_spec(node, here).await.expect("it is accepted").job.to_string());
        working.push(tokio::spawn(print_until(agent, number, ends.clone())));
    }
    for job in &jobs {
        alice.job_until(job, |job| job.state == JobState::Running).await;
    }
    let honest = tokio::spawn(go_on_honestly(pool.clone(), ends.clone()));
    tokio::time::sleep(QUIET).await;

    let (quiet_memory, _) = pool.server().memory();
    let (computed, began) = (pool.server().computed(), Instant::now());
    let damage = Arc::new(Damage::default());
    let elsewhere = elsewhere();
    let mut hostile = JoinSet::new();
    for (address, alpn) in [(&pool.main, Protocol::Agent.alpn()), (&pool.join, ALPN_JOIN)] {
        let tls = modchain_certs::client_config(&pool.credentials("offender-0"), &[alpn]).expect("settings");
        let remote = address.parse().expect("an address");
        hostile.spawn_blocking_on(move || begin_handshakes(tls, remote, half_open), elsewhere.handle());
    }
    for name in offenders {
        let (pool, damage) = (pool.clone(), damage.clone());
        let offending = async move { offend(&Raw::new(&pool.credentials(&name), &pool.main, |_| {}), &damage).await };
        hostile.spawn_on(offending, elsewhere.handle());
    }
    for name in pesterers {
        let (pool, damage) = (pool.clone(), damage.clone());
        let pestering = async move {
            pester(&Raw::new(&pool.credentials(&name), &pool.main, |_| {}), &damage, garbage).await;
        };
        hostile.spawn_on(pestering, elsewhere.handle());
    }
    while let Some(done) = hostile.join_next().await {
        done.expect("it did its worst");
    }
    let flooded = began.elapsed();
    elsewhere.shutdown_background();
    let (memory, peak) = pool.server().memory();
    let computing = pool.server().computed() - computed;
    tokio::time::sleep(BEATS).await;
    end.send(true).expect("somebody works");

    let honest = honest.await.expect("the honest were served throughout");
    let mut beats = Vec::new();
    for heart in hearts {
        beats.extend(heart.stop().await);
    }
    for ((number, work), job) in working.into_iter().enumerate().zip(&jobs) {
        let (_agent, bytes) = soon("the end of a job", work).await.expect("it worked throughout");
        let done = alice.job_until(job, |job| job.state.is_ended()).await;
        assert_eq!((done.state, done.cost), (JobState::Completed, MINIMUM));
        let (_out, mut input) = alice.logs(job, false).await;
        assert!(read_output(&mut input, usize::MAX).await == printed(number, 0..bytes), "every byte of job {number}");
    }
    let account = alice.account().await;
    assert_eq!(account.available, Micro(10 * CREDIT.0 - JOBS as u64 * MINIMUM.0));
    works_after(&pool).await;

    let during = |beat: &&Beat| beat.sent >= began && beat.sent < began + flooded;
    let (within, before): (Vec<&Beat>, Vec<&Beat>) =
        beats.iter().filter(|beat| beat.sent < began + flooded).partition(during);
    let spread = |beats: &[&Beat]| Spread::of(beats.iter().map(|beat| beat.took));
    println!(
        "flood: {} garbage streams on {} connections, {} of them cut, {} identities kept out, {half_open} half-open \
         handshakes on each port, in {flooded:.1?}",
        damage.streams.load(Relaxed),
        damage.connections.load(Relaxed),
        damage.cut.load(Relaxed),
        damage.kept_out.load(Relaxed),
    );
    let lost = |address: &str| lost_at(address).map_or("not told".to_owned(), |packets| packets.to_string());
    println!("flood: {} heartbeats before, {}", before.len(), spread(&before));
    println!("flood: {} heartbeats during, {}", within.len(), spread(&within));
    println!("flood: {} honest clients came in and submitted, {}", honest.len(), Spread::of(honest));
    println!(
        "flood: memory {} MiB before, {} MiB after, {} MiB at most; {computing:.1?} computed; packets lost at the two ports: {} and {}; {}",
        quiet_memory >> 20,
        memory >> 20,
        peak >> 20,
        lost(&pool.main),
        lost(&pool.join),
        left(&boss).await,
    );
    assert!(damage.streams.load(Relaxed) >= garbage);
    assert!(damage.kept_out.load(Relaxed) >= OFFENDERS, "each of them was kept out in the end");
    assert!(peak.saturating_sub(quiet_memory) < GROWTH_MAX, "{peak} bytes at most, {quiet_memory} before");
}

/// A node that comes in only now, and its job, of those that the honest client submitted.
async fn works_after(pool: &Pool) {
    let honest = pool.console("honest").await;
    let mut late = pool.agent("late").await;
    let assignment = late.run().await;
    late.finish(&assignment, b"hello", 0).await;
    let job = assignment.attempt.job.to_string();
    assert_eq!(honest.job_until(&job, |job| job.state.is_ended()).await.state, JobState::Completed);
}

/// What the orchestrator still has.
async fn left(boss: &Console) -> String {
    match boss.ask(LinkQuery { detail: false }).await {
        ToConsole::Link(link) => format!("{} connections and {} handshakes left", link.connections, link.handshakes),
        other => panic!("{other:?}"),
    }
}

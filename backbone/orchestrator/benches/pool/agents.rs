//! Agents that have nothing to do: their memory, their heartbeats, and their return after a crash. They are scripts that speak
//! the protocol, and their load on the machine is not counted.

use std::time::{Duration, Instant};

use crate::pool::herd::{Herd, Return};
use crate::pool::{Pool, names};
use crate::report;

const IDLE: usize = 2_000;
/// How many of them are back after a kill.
const BACK: usize = 1_000;
/// How long heartbeats are watched: four of every agent.
const WATCHED: Duration = Duration::from_secs(20);
/// After this all are settled: those that come back after less than ten seconds wait longer, as agents do.
const SETTLED: Duration = Duration::from_secs(11);

pub(crate) async fn measure() {
    idle().await;
    back().await;
}

async fn idle() {
    let nodes = names("node", IDLE);
    let pool = Pool::start(&[], &nodes);
    let (before, _) = pool.server().memory();
    let mut herd = Herd::start(&pool, &nodes);
    herd.all_back(Return::begin()).await;
    // The first beats of all fall together.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (after, _) = pool.server().memory();
    let (begun, computed) = (Instant::now(), pool.server().computed());
    tokio::time::sleep(WATCHED).await;
    let share = (pool.server().computed() - computed).as_secs_f64() / begun.elapsed().as_secs_f64();
    assert!(herd.all_live(), "an agent has given up");
    let grown = after.saturating_sub(before);
    report::line(
        &format!("memory of {IDLE} connected agents"),
        &format!("{:.1} MB: {:.1} KiB each", grown as f64 / 1e6, grown as f64 / 1024.0 / IDLE as f64),
    );
    report::line(&format!("computing for {IDLE} idle agents"), &format!("{:.1} % of a core", 100.0 * share));
}

async fn back() {
    let nodes = names("node", BACK);
    let mut pool = Pool::start(&[], &nodes);
    let mut herd = Herd::start(&pool, &nodes);
    herd.all_back(Return::begin()).await;
    tokio::time::sleep(SETTLED).await;
    let killed = Return::begin();
    pool.kill();
    pool.serve();
    let again = killed.from.elapsed();
    let back = herd.all_back(killed).await;
    let seconds = |percent| back.percent(percent).as_secs_f64();
    report::line(
        &format!("{BACK} agents back after kill -9"),
        &format!(
            "half in {:.2} s, all in {:.2} s (it served again after {:.2} s)",
            seconds(50),
            seconds(100),
            again.as_secs_f64()
        ),
    );
}

//! The orchestrator is killed or stopped and starts again: all its agents are back soon, and do not trample one another.

mod peers;
mod pool;
mod process;

use std::time::Duration;

use modchain_wire::ToConsole;
use modchain_wire::console::LinkQuery;
use pool::herd::{Herd, Return};
use pool::{Pool, count, names};

/// Agents, as the issue wants them: `MODCHAIN_TEST_AGENTS`.
const AGENTS: usize = 200;
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_agents_are_back_soon_after_a_kill_and_after_a_stop() {
    let agents = count("MODCHAIN_TEST_AGENTS", AGENTS);
    let nodes = names("node", agents);
    let mut pool = Pool::start(&[], &nodes);
    let first = Return::begin();
    let mut herd = Herd::start(&pool, &nodes);
    herd.all_back(first).await.print("for the first time, all at once", None);
    let buffers = buffers(&pool).await;
    println!("herd: {buffers}");

    let settled = count("MODCHAIN_TEST_SETTLED", 0);
    tokio::time::sleep(Duration::from_secs(settled as u64)).await;
    let killed = Return::begin();
    pool.kill();
    pool.serve();
    let again = Some(killed.from.elapsed());
    let what = format!("after kill -9, {settled} s after they had connected");
    herd.all_back(killed).await.print(&what, again);

    let stopped = Return::begin();
    pool.stop();
    pool.serve();
    let again = Some(stopped.from.elapsed());
    herd.all_back(stopped).await.print("after a stop", again);
    assert!(herd.all_live(), "an agent has given up");
}

async fn buffers(pool: &Pool) -> String {
    match pool.console("boss").await.ask(LinkQuery { detail: false }).await {
        ToConsole::Link(link) => format!(
            "buffers granted: {} bytes to receive and {} to send, of {} asked",
            link.receive_buffer_bytes, link.send_buffer_bytes, link.asked_buffer_bytes
        ),
        other => panic!("{other:?}"),
    }
}

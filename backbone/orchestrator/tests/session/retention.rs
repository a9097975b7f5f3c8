//! What ended jobs printed is removed after a while; whoever asks for it is told so, whoever reads it reads on, and the money stays.

use std::time::Duration;

use modchain_orchestrator::retention::Keep;
use modchain_types::{JobState, Span};
use modchain_wire::ToConsole;
use modchain_wire::console::{LedgerQuery, Refusal, RefusalCode};

use super::world::{Console, World, read_output, soon, text};

/// More than all windows of a connection hold, so that a reader who does not read is in the middle of it.
const LONG: usize = 6 << 20;

/// The refusal of a job's output, once there is one.
async fn removed(console: &Console, job: &str) -> Refusal {
    soon("the output is removed", async {
        loop {
            let (_open, mut reader) = console.logs(job, false).await;
            loop {
                match reader.read().await.expect("it can be read") {
                    Some(ToConsole::Refusal(refusal)) => return refusal,
                    Some(ToConsole::LogEnd(_)) | None => break,
                    Some(_) => {}
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_output_is_refused_with_a_sentence_and_everything_else_of_its_job_stays() {
    let mut world = World::start().await;
    world.stop().await;
    world.keep = Keep { age: Span::from_secs(1), ..Keep::default() };
    world.serve().await;
    let (mut agent, alice) = (world.agent().await, world.console("alice").await);
    let lives = alice.submit("lives").await.job.to_string();
    let living = agent.run().await;
    let (mut up, mut down, _) = agent.attempt(&living, None).await;
    super::world::send(&mut up, 0, b"still here\n").await;
    super::world::acked(&mut down, 11).await;

    let old = alice.submit("old").await.job.to_string();
    let assignment = agent.run().await;
    // Reads from before the end on, and slowly.
    let (_open, mut reader) = alice.logs(&old, true).await;
    let output: Vec<u8> = (0..LONG).map(|at| (at % 251) as u8).collect();
    agent.finish(&assignment, &output, 0).await;
    let cost = alice.job_until(&old, |job| job.state.is_ended()).await.cost;

    // On a connection of its own: the windows of the other one are full of what the reader does not take.
    let refusal = removed(&world.console("alice").await, &old).await;
    assert_eq!(refusal.code, RefusalCode::NotFound);
    assert!(refusal.message.contains("was removed: output of ended jobs is kept for 1.0s"), "{refusal:?}");
    assert!(refusal.hint.contains(&format!("modchain job {old} still shows")), "{refusal:?}");
    let folder = world.place().join("output").join(&old);
    assert!(folder.exists(), "somebody reads it");
    assert!(read_output(&mut reader, LONG).await == output, "to the last byte");
    soon("the end", async { while !matches!(reader.read().await, Ok(Some(ToConsole::LogEnd(_)))) {} }).await;
    drop((_open, reader));
    soon("it is gone from the disk", async {
        while folder.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;

    let (_open, mut reader) = alice.logs(&lives, false).await;
    assert_eq!(read_output(&mut reader, 11).await, b"still here\n", "its job has not ended");
    for start in 0..2 {
        let alice = world.console("alice").await;
        let job = alice.job(&old).await.expect("the job");
        assert_eq!((job.state, job.cost, job.output.stdout), (JobState::Completed, cost, LONG as u64), "{start}");
        let query =
            LedgerQuery { account: None, since: None, kind: None, job: Some(text(&old)), limit: 10, before: None };
        let ToConsole::Ledger(page) = alice.ask(query).await else { panic!("no ledger") };
        assert_eq!(page.items.len(), 3, "its hold, its cost, and what came back");
        assert_eq!(removed(&alice, &old).await.code, RefusalCode::NotFound);
        if start == 0 {
            world.stop().await;
            world.keep = Keep::default();
            world.serve().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_too_much_output_the_oldest_is_removed_and_a_silent_job_has_none_to_remove() {
    let mut world = World::start().await;
    world.stop().await;
    world.keep = Keep { bytes: Some(2_500_000), fresh: Span::ZERO, ..Keep::default() };
    world.serve().await;
    let (mut agent, alice) = (world.agent().await, world.console("alice").await);
    let mut jobs = Vec::new();
    for (name, bytes) in [("silent", 0), ("first", 1_000_000), ("second", 1_000_000), ("third", 1_000_000)] {
        jobs.push(alice.submit(name).await.job.to_string());
        let assignment = agent.run().await;
        agent.finish(&assignment, &vec![b'x'; bytes], 0).await;
    }
    removed(&alice, &jobs[1]).await;
    for (job, bytes) in [(&jobs[0], 0), (&jobs[2], 1_000_000), (&jobs[3], 1_000_000)] {
        let (_open, mut reader) = alice.logs(job, false).await;
        assert_eq!(read_output(&mut reader, usize::MAX).await.len(), bytes);
    }
}

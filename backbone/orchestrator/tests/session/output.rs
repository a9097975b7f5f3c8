//! Output: never lost, never repeated, and nobody waits for a slow reader.

use modchain_types::{InstanceId, InventoryItem, ItemState, JobState};
use modchain_wire::ToConsole;
use modchain_wire::agent::OutputEnd;

use super::world::{World, acked, read_output, send, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_goes_on_after_a_reconnection_without_gap_or_repeat() {
    let world = World::start().await;
    let (mut agent, alice) = (world.agent().await, world.console("alice").await);
    let id = alice.submit("one").await.job.to_string();
    let output: Vec<u8> = (0..200_000u32).flat_map(|number| number.to_le_bytes()).collect();
    let assignment = agent.run().await;
    alice.job_until(&id, |job| job.state == JobState::Running).await;
    let (mut up, mut down, have) = agent.attempt(&assignment, None).await;
    assert_eq!(have, 0);
    send(&mut up, 0, &output[..300_000]).await;
    acked(&mut down, 300_000).await;
    agent.connection.close(modchain_link::CloseCode::Done, "");
    drop((up, down, agent));

    let item = InventoryItem { attempt: assignment.attempt, fence: assignment.claim.fence, state: ItemState::Running };
    let mut agent = world.agent_with(InstanceId([1; 16]), vec![item], None).await;
    let (mut up, mut down, have) = agent.attempt(&assignment, None).await;
    assert_eq!(have, 300_000);
    // An agent that did not hear the last acknowledgement sends some of it again.
    send(&mut up, 250_000, &output[250_000..]).await;
    let end = OutputEnd { stdout: output.len() as u64, stderr: 0, dropped: 0 };
    up.write(&end.into()).await.expect("it is taken");
    acked(&mut down, output.len() as u64).await;
    agent.exited(&assignment, 0, output.len() as u64).await;
    let job = alice.job_until(&id, |job| job.state.is_ended()).await;
    assert_eq!((job.state, job.output.stdout), (JobState::Completed, output.len() as u64));
    let (_open, mut reader) = alice.logs(&id, false).await;
    assert_eq!(read_output(&mut reader, usize::MAX).await, output);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_never_reads_stalls_neither_the_job_nor_another_follower() {
    let world = World::start().await;
    let (mut agent, alice) = (world.agent().await, world.console("alice").await);
    let id = alice.submit("one").await.job.to_string();
    let lazy = world.console("alice").await;
    let _never_read = lazy.logs(&id, true).await;
    let (_open, mut follower) = alice.logs(&id, true).await;
    let assignment = agent.run().await;
    let output = vec![b'x'; 8 << 20];
    let reading = tokio::spawn(async move { read_output(&mut follower, 8 << 20).await });
    agent.finish(&assignment, &output, 0).await;
    assert!(reading.await.expect("it reads") == output);
    alice.job_until(&id, |job| job.state == JobState::Completed).await;
    // Its other requests are answered too.
    lazy.job(&id).await.expect("an answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_that_leaves_a_gap_ends_its_stream_and_stores_nothing_wrong() {
    let world = World::start().await;
    let (mut agent, alice) = (world.agent().await, world.console("alice").await);
    let id = alice.submit("one").await.job.to_string();
    let assignment = agent.run().await;
    let (mut up, mut down, _) = agent.attempt(&assignment, None).await;
    send(&mut up, 10, b"later").await;
    soon("a reset", async { while let Ok(Some(_)) = down.read().await {} }).await;
    let (_up, _down, have) = agent.attempt(&assignment, None).await;
    assert_eq!(have, 0);
    agent.finish(&assignment, b"ok\n", 0).await;
    let (_open, mut reader) = alice.logs(&id, true).await;
    assert_eq!(read_output(&mut reader, 3).await, b"ok\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_without_follow_gets_what_is_there_and_its_end() {
    let world = World::start().await;
    let alice = world.console("alice").await;
    let id = alice.submit("one").await.job.to_string();
    let (_open, mut reader) = alice.logs(&id, false).await;
    assert!(matches!(soon("caught up", reader.read()).await, Ok(Some(ToConsole::CaughtUp(_)))));
    assert!(matches!(soon("end", reader.read()).await, Ok(Some(ToConsole::LogEnd(end))) if !end.job.state.is_ended()));
    assert!(matches!(soon("nothing more", reader.read()).await, Ok(None)));
}

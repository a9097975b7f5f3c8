//! Output: never lost, never repeated, and nobody waits for a slow reader.

use std::time::Duration;

use modchain_link::StreamCode;
use modchain_types::{
    Ending, InstanceId, InventoryItem, ItemState, JobState, OutputLengths, ReportBody, Usage, WallTime,
};
use modchain_wire::agent::{OutputChunk, OutputEnd, OutputStream};
use modchain_wire::view::JobView;
use modchain_wire::{Data, ToAgent, ToConsole};

use super::world::{In, MODULE, World, acked, read_output, send, soon, spec, text};

/// All chunks of a job's output: which attempt, which stream, the text.
async fn read_chunks(input: &mut In) -> Vec<(u32, OutputStream, String)> {
    let mut chunks = Vec::new();
    soon("the end of the output", async {
        loop {
            match input.read().await.expect("it can be read") {
                Some(ToConsole::LogChunk(chunk)) => {
                    let text = String::from_utf8(chunk.data.to_vec()).expect("it is text");
                    chunks.push((chunk.cursor.attempt, chunk.stream, text));
                }
                Some(ToConsole::CaughtUp(_)) => {}
                Some(ToConsole::LogEnd(_)) | None => return,
                Some(other) => panic!("{other:?}"),
            }
        }
    })
    .await;
    chunks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_over_the_cap_is_cut_with_a_remark_and_the_job_goes_on() {
    let world = World::start().await;
    let (mut agent, alice) = (world.agent().await, world.console("alice").await);
    alice.put(MODULE, modchain_types::Digest::of(MODULE)).await.expect("it is stored");
    let mut chatty = spec("chatty");
    chatty.limits.output_bytes_max = 10;
    let id = alice.submit_spec("chatty", chatty).await.expect("it is accepted").job.to_string();
    let assignment = agent.run().await;
    // A node that does not keep to the limit is not believed.
    let (mut up, mut down, _) = agent.attempt(&assignment, None).await;
    send(&mut up, 0, b"0123456789abc").await;
    let refused = soon("a refusal", down.read()).await;
    assert!(matches!(&refused, Ok(Some(ToAgent::Refused(no))) if !no.retryable), "{refused:?}");
    // One that does says how much it dropped; it may say so twice.
    for _repetition in 0..2 {
        let (mut up, mut down, have) = agent.attempt(&assignment, None).await;
        send(&mut up, have, &b"0123456789"[have as usize..]).await;
        up.write(&OutputEnd { stdout: 10, stderr: 0, dropped: 3 }.into()).await.expect("it is taken");
        up.finish().await.expect("it ends");
        acked(&mut down, 10).await;
        soon("the stream's end", async { while let Ok(Some(_)) = down.read().await {} }).await;
    }
    let output = OutputLengths { stdout: 10, stderr: 0, dropped: 3 };
    let body = ReportBody::Ended { ending: Ending::Exited { code: 0 }, usage: Usage::default(), output };
    agent.report(assignment.attempt, assignment.claim.fence, body).await;
    let job = alice.job_until(&id, |job| job.state.is_ended()).await;
    assert_eq!((job.state, job.output.stdout, job.output.dropped), (JobState::Completed, 10, 3));
    let (_open, mut reader) = alice.logs(&id, false).await;
    let chunks = read_chunks(&mut reader).await;
    let remark = "3 bytes of output over the limit were dropped\n".to_owned();
    assert_eq!(chunks, [(1, OutputStream::Out, "0123456789".to_owned()), (1, OutputStream::Note, remark)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_that_is_gone_is_told_and_not_passed_over() {
    let mut world = World::start().await;
    let (mut agent, alice) = (world.agent().await, world.console("alice").await);
    let id = alice.submit("one").await.job.to_string();
    let assignment = agent.run().await;
    let (mut up, mut down, _) = agent.attempt(&assignment, None).await;
    send(&mut up, 0, b"0123456789").await;
    up.write(&OutputEnd { stdout: 10, stderr: 0, dropped: 0 }.into()).await.expect("it is taken");
    up.finish().await.expect("it ends");
    soon("the stream's end", async { while let Ok(Some(_)) = down.read().await {} }).await;
    let output = OutputLengths { stdout: 10, stderr: 0, dropped: 0 };
    let body = ReportBody::Ended { ending: Ending::Exited { code: 0 }, usage: Usage::default(), output };
    agent.report(assignment.attempt, assignment.claim.fence, body).await;
    alice.job_until(&id, |job| job.state.is_ended()).await;
    drop(alice);
    // Whoever has the file open reads on although it is gone; after a stop nobody has.
    world.stop().await;
    std::fs::remove_dir_all(world.data.path().join("orchestrator/output").join(&id)).expect("it was stored");
    world.serve().await;
    let alice = world.console("alice").await;
    let (_open, mut reader) = alice.logs(&id, false).await;
    let remark = "10 bytes of output are missing here: they were never stored, or were removed\n".to_owned();
    assert_eq!(read_chunks(&mut reader).await, [(1, OutputStream::Note, remark)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_attempt_begins_with_a_remark_and_readers_go_on_to_it() {
    let world = World::start().await;
    let (mut agent, alice) = (world.agent().await, world.console("alice").await);
    let id = alice.submit("one").await.job.to_string();
    let (_open, mut follower) = alice.logs(&id, true).await;
    let first = agent.run().await;
    let (mut up, mut down, _) = agent.attempt(&first, None).await;
    send(&mut up, 0, b"half\n").await;
    up.write(&OutputEnd { stdout: 5, stderr: 0, dropped: 0 }.into()).await.expect("it is taken");
    acked(&mut down, 5).await;
    let ending = Ending::NodeFault { message: text("no disk") };
    let output = OutputLengths { stdout: 5, stderr: 0, dropped: 0 };
    let body = ReportBody::Ended { ending, usage: Usage::default(), output };
    agent.report(first.attempt, first.claim.fence, body).await;
    let ended = |job: &JobView| job.attempts.first().is_some_and(|attempt| attempt.reason.is_some());
    alice.job_until(&id, |job| job.state == JobState::Queued && ended(job)).await;
    // A node at fault cools down; coming back anew ends that.
    agent.connection.close(modchain_link::CloseCode::Done, "");
    let mut agent = world.agent_with(InstanceId([1; 16]), Vec::new(), None).await;
    let second = agent.run().await;
    assert_eq!((second.attempt.job, second.attempt.number), (first.attempt.job, 2));
    agent.finish(&second, b"whole\n", 0).await;
    let expected = [
        (1, OutputStream::Out, "half\n".to_owned()),
        (2, OutputStream::Note, "attempt 2 on rig-1\n".to_owned()),
        (2, OutputStream::Out, "whole\n".to_owned()),
    ];
    assert_eq!(read_chunks(&mut follower).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absurd_times_and_remarks_of_a_node_harm_nobody() {
    let world = World::start().await;
    let (mut agent, alice) = (world.agent().await, world.console("alice").await);
    let id = alice.submit("one").await.job.to_string();
    let assignment = agent.run().await;
    let chunk = |stream, offset, at| OutputChunk {
        stream,
        offset,
        at: WallTime(at),
        data: Data::new(b"x".to_vec()).expect("it fits"),
    };
    let (mut up, mut down, _) = agent.attempt(&assignment, None).await;
    up.write(&chunk(OutputStream::Note, 0, 0).into()).await.expect("it is taken");
    soon("a reset", async { while let Ok(Some(_)) = down.read().await {} }).await;
    let (mut up, mut down, have) = agent.attempt(&assignment, None).await;
    assert_eq!(have, 0, "remarks are not for nodes to make");
    for (offset, at) in [(0, i64::MAX), (1, i64::MIN), (2, 1), (3, i64::MIN)] {
        up.write(&chunk(OutputStream::Out, offset, at).into()).await.expect("it is taken");
    }
    acked(&mut down, 4).await;
    agent.finish(&assignment, b"xxxx", 0).await;
    let (_open, mut reader) = alice.logs(&id, true).await;
    assert_eq!(read_output(&mut reader, 4).await, b"xxxx");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_break_while_their_output_waits_to_be_synced_hold_no_other_up() {
    let world = World::start().await;
    let (mut agent, alice) = (world.agent().await, world.console("alice").await);
    alice.submit("one").await;
    let assignment = agent.run().await;
    for round in 0..20 {
        // All of them send the same byte at once: one syncs, and the others wait for their turn.
        let (mut up, mut down, have) = agent.attempt(&assignment, None).await;
        let mut others = Vec::new();
        for _ in 0..4 {
            others.push(agent.attempt(&assignment, None).await);
        }
        send(&mut up, have, b"x").await;
        for (other, ..) in &mut others {
            send(other, have, b"x").await;
        }
        tokio::time::sleep(Duration::from_micros(200) * round).await;
        others.iter_mut().for_each(|(other, ..)| other.reset(StreamCode::Cancelled));
        acked(&mut down, have + 1).await;
    }
}

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

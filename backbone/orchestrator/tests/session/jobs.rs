//! From submit to settlement.

use modchain_types::{Digest, Exit, Input, JobState, List, Micro, Reason, Task, TaskBody};
use modchain_wire::agent::{AttemptOpen, BlobGet};
use modchain_wire::console::{BlobFetch, Cancel, InputDone, InputOpen, InputPiece, LedgerQuery, RefusalCode, Submit};
use modchain_wire::view::LedgerKind;
use modchain_wire::{CHUNK_BYTES_MAX, Data, FromAgent, ToAgent, ToConsole, encode_task, spec_digest};

use super::world::{CREDIT, HOLD, MINIMUM, MODULE, World, acked, read_output, send, soon, spec, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_runs_streams_and_settles_with_the_right_money() {
    let world = World::start().await;
    let (mut agent, alice) = (world.agent().await, world.console("alice").await);
    let submitted = alice.submit("one").await;
    let id = submitted.job.to_string();
    assert_eq!((submitted.held, submitted.existing), (HOLD, false));
    assert_eq!(alice.account().await.held, HOLD);

    let (_open, mut follower) = alice.logs(&id, true).await;
    let assignment = agent.run().await;
    let running = alice.job_until(&id, |job| job.state == JobState::Running).await;
    assert_eq!((running.node.map(|node| node.to_string()), running.cost), (Some("rig-1".into()), MINIMUM));

    // The module comes from the orchestrator, for this attempt alone.
    let (mut out, mut blob) = agent.connection.open_bi().await.expect("a stream");
    let digest = modchain_types::Digest::of(MODULE);
    let (attempt, fence) = (assignment.attempt, assignment.claim.fence);
    out.write(&modchain_wire::FromAgent::from(BlobGet { attempt, fence, digest })).await.expect("it is taken");
    assert!(matches!(soon("head", blob.read()).await, Ok(Some(ToAgent::BlobHead(head))) if head.bytes == 8));
    assert!(matches!(soon("piece", blob.read()).await, Ok(Some(ToAgent::BlobChunk(chunk))) if *chunk.data == *MODULE));
    assert!(matches!(soon("end", blob.read()).await, Ok(None)));

    agent.finish(&assignment, b"hello\n", 3).await;
    assert_eq!(read_output(&mut follower, 6).await, b"hello\n");
    let end = soon("the end", async {
        loop {
            match follower.read().await {
                Ok(Some(ToConsole::CaughtUp(_))) => {}
                Ok(Some(ToConsole::LogEnd(end))) => return end,
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(end.await.job.exit, Some(Exit::job(3)));
    let job = alice.job_until(&id, |job| job.state.is_ended()).await;
    assert_eq!((job.state, job.reason), (JobState::Failed, Some(Reason::Exit)));
    assert_eq!((job.cost, job.fee, job.refund), (MINIMUM, Micro(50), Micro(HOLD.0 - MINIMUM.0)));
    let account = alice.account().await;
    assert_eq!((account.available, account.held), (Micro(CREDIT.0 - MINIMUM.0), Micro(0)));
    assert_eq!(world.console("owner").await.account().await.earned, Micro(950));
    assert_eq!(world.console("boss").await.account().await.earned, Micro(50));
    let query = LedgerQuery { account: None, since: None, kind: None, job: Some(text(&*id)), limit: 10, before: None };
    let ToConsole::Ledger(page) = alice.ask(query).await else { panic!("no ledger") };
    let kinds: Vec<_> = page.items.iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [LedgerKind::Release, LedgerKind::Settle, LedgerKind::Hold]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_submits_of_one_job_at_once_make_one_job_and_one_hold() {
    let world = World::start().await;
    let alice = std::sync::Arc::new(world.console("alice").await);
    alice.put(MODULE, modchain_types::Digest::of(MODULE)).await.expect("it is stored");
    let mut submits = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let alice = alice.clone();
        submits.spawn(async move {
            // The orchestrator allows fewer streams than this at once; the others wait their turn.
            alice.submit_spec("same", spec("same")).await.expect("it is accepted")
        });
    }
    let answers = soon("all submits", submits.join_all()).await;
    assert_eq!(answers.iter().filter(|answer| !answer.existing).count(), 1);
    assert!(answers.iter().all(|answer| answer.job == answers[0].job));
    let account = alice.account().await;
    assert_eq!((account.held, account.open_jobs), (HOLD, 1));

    let mut other = spec("same");
    other.max_cost = Micro(HOLD.0 * 2);
    let refusal = alice.submit_spec("same", other).await.expect_err("another specification");
    assert_eq!(refusal.code, RefusalCode::IdempotencyConflict);
    assert_eq!(alice.account().await.held, HOLD);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_task_leaves_the_journal_and_reaches_its_node_whole() {
    let world = World::start().await;
    let (mut agent, alice) = (world.agent().await, world.console("alice").await);
    alice.put(MODULE, modchain_types::Digest::of(MODULE)).await.expect("it is stored");
    let mut large = spec("large");
    let modchain_types::TaskBody::Inline(modchain_types::Task::Wasm(task)) = &mut large.body else { panic!("wasm") };
    task.args = modchain_types::List::new((0..4).map(|_| text("x".repeat(4_000))).collect()).expect("it fits");
    alice.submit_spec("large", large.clone()).await.expect("it is accepted");
    assert_eq!(agent.assignment().await.spec.body, large.body);
    assert!(alice.submit_spec("large", large).await.expect("the same again").existing);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_cannot_be_read_for_a_moment_is_assigned_later_and_holds_up_no_other() {
    let world = World::start().await;
    let alice = world.console("alice").await;
    let large = |name: &str| {
        let mut large = spec(name);
        let TaskBody::Inline(Task::Wasm(task)) = &mut large.body else { panic!("wasm") };
        task.args = List::new((0..4).map(|_| text(name.repeat(4_000))).collect()).expect("it fits");
        large
    };
    alice.put(MODULE, Digest::of(MODULE)).await.expect("it is stored");
    let first = alice.submit_spec("a", large("a")).await.expect("it is accepted").job.to_string();
    let second = alice.submit_spec("b", large("b")).await.expect("it is accepted").job.to_string();
    // A folder can be opened and not read, by whoever it is.
    let blobs = world.place().join("blobs").join("alice");
    let aside = world.place().join("aside");
    let files = std::fs::read_dir(&blobs).expect("it is there").map(|file| file.expect("a file").path());
    let tasks: Vec<_> = files.filter(|file| file.metadata().expect("a file").len() > 4_000).collect();
    assert_eq!(tasks.len(), 2);
    std::fs::create_dir(&aside).expect("makes");
    for task in &tasks {
        std::fs::rename(task, aside.join(task.file_name().expect("a name"))).expect("moves");
        std::os::unix::fs::symlink(&aside, task).expect("makes");
    }
    let mut agent = world.agent().await;
    let small = alice.submit("small").await.job;
    let assignment = agent.assignment().await;
    assert_eq!(assignment.attempt.job, small, "what comes behind them is not held up");

    let cancel = Cancel { job: text(&*second), grace: modchain_types::Span::from_secs(1), why: text("") };
    assert!(matches!(alice.ask(cancel).await, ToConsole::Job(_)));
    let ended = alice.job_until(&second, |job| job.state.is_ended()).await;
    assert_eq!((ended.state, ended.cost), (JobState::Cancelled, Micro(0)));
    for task in &tasks {
        // In the place of the link, so that the file is missing at no moment: then it would count as lost.
        std::fs::rename(aside.join(task.file_name().expect("a name")), task).expect("moves");
    }
    let assignment = agent.assignment().await;
    assert_eq!((assignment.attempt.job.to_string(), assignment.spec.body), (first, large("a").body));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queued_job_is_explained_and_cancelled_without_cost() {
    let world = World::start().await;
    let alice = world.console("alice").await;
    let id = alice.submit("one").await.job.to_string();
    let explain = modchain_wire::console::ExplainQuery { job: text(&*id) };
    match alice.ask(explain).await {
        ToConsole::Explanation(view) => {
            assert_eq!((view.queue.map(|queue| queue.ahead), view.nodes.len()), (Some(0), 1));
            assert!(!view.nodes[0].fits && view.summary.contains("the only node does not fit"), "{:?}", view.summary);
        }
        other => panic!("{other:?}"),
    }
    let cancel = || Cancel { job: text(&*id), grace: modchain_types::Span::from_secs(1), why: text("") };
    assert!(matches!(alice.ask(cancel()).await, ToConsole::Job(job) if job.state == JobState::Cancelled));
    assert!(matches!(alice.ask(cancel()).await, ToConsole::Refusal(no) if no.code == RefusalCode::Conflict));
    assert_eq!(alice.account().await.available, CREDIT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_paid_or_was_not_uploaded_is_refused_and_changes_nothing() {
    let world = World::start().await;
    let alice = world.console("alice").await;
    let missing = alice.submit_spec("one", spec("one")).await.expect_err("no module");
    assert_eq!(missing.code, RefusalCode::MissingBlob);
    let wrong = alice.put(b"other", modchain_types::Digest::of(MODULE)).await.expect_err("other bytes");
    assert_eq!(wrong.code, RefusalCode::Invalid);
    assert_eq!(alice.submit_spec("one", spec("one")).await.expect_err("still none").code, RefusalCode::MissingBlob);
    alice.put(MODULE, modchain_types::Digest::of(MODULE)).await.expect("it is stored");
    let mut dear = spec("one");
    dear.max_cost = Micro(CREDIT.0 + 1);
    let refusal = alice.submit_spec("one", dear).await.expect_err("too dear");
    assert_eq!(refusal.code, RefusalCode::InsufficientFunds);
    assert!(refusal.message.contains("10.00"), "{}", refusal.message.as_str());
    let no_queue = Submit { key: "two".parse().expect("a key"), spec: spec("two"), no_queue: true };
    assert!(matches!(alice.ask(no_queue).await, ToConsole::Refusal(no) if no.code == RefusalCode::NoFit));
    assert_eq!(alice.account().await.available, CREDIT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_is_spooled_resumed_and_read_again_from_the_start() {
    let world = World::start().await;
    let (mut agent, alice) = (world.agent().await, world.console("alice").await);
    alice.put(MODULE, modchain_types::Digest::of(MODULE)).await.expect("it is stored");
    let mut reads = spec("reads");
    reads.input = Input::Stream;
    let id = alice.submit_spec("reads", reads).await.expect("it is accepted").job.to_string();
    let piece = |offset, bytes: &[u8]| InputPiece { offset, data: Data::new(bytes.to_vec()).expect("it fits") };

    let (mut out, mut answers) = alice.open(InputOpen { job: text(&*id) }).await;
    assert!(matches!(soon("ready", answers.read()).await, Ok(Some(ToConsole::InputReady(ready))) if ready.offset == 0));
    out.write(&piece(0, b"hel").into()).await.expect("it is taken");
    assert!(matches!(soon("stored", answers.read()).await, Ok(Some(ToConsole::InputStored(to))) if to.offset == 3));
    drop((out, answers));

    let (mut out, mut answers) = alice.open(InputOpen { job: text(&*id) }).await;
    assert!(matches!(soon("ready", answers.read()).await, Ok(Some(ToConsole::InputReady(ready))) if ready.offset == 3));
    let assignment = agent.run().await;
    for _attempt_stream in 0..2 {
        let (_up, mut down, _) = agent.attempt(&assignment, Some(0)).await;
        let chunk = soon("input", down.read()).await.expect("it can be read");
        assert!(matches!(chunk, Some(ToAgent::InputChunk(chunk)) if chunk.offset == 0 && *chunk.data == *b"hel"));
    }
    let (_up, mut down, _) = agent.attempt(&assignment, Some(3)).await;
    out.write(&piece(3, b"lo").into()).await.expect("it is taken");
    let chunk = soon("more input", down.read()).await.expect("it can be read");
    assert!(matches!(chunk, Some(ToAgent::InputChunk(chunk)) if chunk.offset == 3 && *chunk.data == *b"lo"));
    out.write(&InputDone { offset: 5 }.into()).await.expect("it is taken");
    let end = soon("the end of input", down.read()).await.expect("it can be read");
    assert!(matches!(end, Some(ToAgent::InputEnd(end)) if end.offset == 5));

    let dumb = alice.submit("dumb").await.job.to_string();
    let refused = alice.ask(InputOpen { job: text(dumb) }).await;
    assert!(matches!(refused, ToConsole::Refusal(no) if no.code == RefusalCode::Conflict));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_is_taken_while_its_job_has_more_input_than_is_here() {
    let world = World::start().await;
    let (mut agent, alice) = (world.agent().await, world.console("alice").await);
    alice.put(MODULE, modchain_types::Digest::of(MODULE)).await.expect("it is stored");
    let mut reads = spec("reads");
    reads.input = Input::Stream;
    let id = alice.submit_spec("reads", reads).await.expect("it is accepted").job.to_string();
    let piece = |offset, bytes: &[u8]| InputPiece { offset, data: Data::new(bytes.to_vec()).expect("it fits") };
    let (mut out, mut answers) = alice.open(InputOpen { job: text(&*id) }).await;
    assert!(matches!(soon("ready", answers.read()).await, Ok(Some(ToConsole::InputReady(_)))));
    out.write(&piece(0, b"hel").into()).await.expect("it is taken");
    assert!(matches!(soon("stored", answers.read()).await, Ok(Some(ToConsole::InputStored(_)))));

    // As where a copy was brought back that lacks the last bytes.
    let assignment = agent.run().await;
    let (mut up, mut down, have) = agent.attempt(&assignment, Some(4)).await;
    send(&mut up, have, b"printed").await;
    acked(&mut down, 7).await;
    out.write(&piece(3, b"lo").into()).await.expect("it is taken");
    let chunk = soon("more input", down.read()).await.expect("it can be read");
    assert!(matches!(chunk, Some(ToAgent::InputChunk(chunk)) if chunk.offset == 4 && *chunk.data == *b"o"));

    // More than all of it nobody has had.
    out.write(&InputDone { offset: 5 }.into()).await.expect("it is taken");
    assert!(matches!(soon("the end", down.read()).await, Ok(Some(ToAgent::InputEnd(end))) if end.offset == 5));
    let (mut up, mut down) = agent.connection.open_bi::<FromAgent, ToAgent>().await.expect("a stream");
    let (attempt, fence) = (assignment.attempt, assignment.claim.fence);
    up.write(&AttemptOpen { attempt, fence, input_from: Some(6) }.into()).await.expect("it is taken");
    // It may overtake what was said before it.
    let said = async { while let Ok(Some(ToAgent::AttemptResume(_) | ToAgent::OutputAck(_))) = down.read().await {} };
    soon("a reset", said).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_told_that_his_job_is_accepted_finds_it_at_once() {
    let world = World::start().await;
    let alice = world.console("alice").await;
    for number in 0..50 {
        let job = alice.submit(&format!("job-{number}")).await.job.to_string();
        alice.job(&job).await.expect("it was just accepted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_cannot_be_read_any_more_fails_its_job_unpaid_and_keeps_the_node() {
    let world = World::start().await;
    let alice = world.console("alice").await;
    alice.put(MODULE, modchain_types::Digest::of(MODULE)).await.expect("it is stored");
    let mut large = spec("large");
    let modchain_types::TaskBody::Inline(modchain_types::Task::Wasm(task)) = &mut large.body else { panic!("wasm") };
    task.args = modchain_types::List::new((0..4).map(|_| text("x".repeat(4_000))).collect()).expect("it fits");
    let id = alice.submit_spec("large", large).await.expect("it is accepted").job.to_string();
    let blobs = world.data.path().join("orchestrator/blobs/alice");
    for blob in std::fs::read_dir(blobs).expect("its blobs") {
        let path = blob.expect("a blob").path();
        if path.metadata().expect("its size").len() > 4_096 {
            std::fs::write(path, b"damaged").expect("it is written");
        }
    }
    let mut agent = world.agent().await;
    let job = alice.job_until(&id, |job| job.state.is_ended()).await;
    assert_eq!((job.state, job.reason, job.cost), (JobState::Failed, Some(Reason::Refused), Micro(0)));
    assert!(job.message.contains("damaged"), "{:?}", job.message);
    assert_eq!(alice.account().await.available, CREDIT);
    alice.submit("next").await;
    agent.run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_that_comes_while_its_job_is_cancelled_leaves_no_file() {
    let world = World::start().await;
    let alice = std::sync::Arc::new(world.console("alice").await);
    alice.put(MODULE, modchain_types::Digest::of(MODULE)).await.expect("it is stored");
    for number in 0..60 {
        let mut reads = spec("reads");
        reads.input = Input::Stream;
        let id = alice.submit_spec(&format!("r{number}"), reads).await.expect("it is accepted").job.to_string();
        let (mut out, mut answers) = alice.open(InputOpen { job: text(&*id) }).await;
        assert!(matches!(soon("ready", answers.read()).await, Ok(Some(ToConsole::InputReady(_)))));
        let piece = InputPiece { offset: 0, data: Data::new(b"x".to_vec()).expect("it fits") }.into();
        let cancel = Cancel { job: text(&*id), grace: modchain_types::Span::from_secs(1), why: text("") };
        // The piece may come before, in the middle of, or after the end of its job.
        let (_, cancelled) = tokio::join!(out.write(&piece), alice.ask(cancel));
        assert!(matches!(cancelled, ToConsole::Job(job) if job.state == JobState::Cancelled));
        soon("the end of the input", async { while let Ok(Some(ToConsole::InputStored(_))) = answers.read().await {} })
            .await;
    }
    let input = world.data.path().join("orchestrator/input");
    soon("the inputs' removal", async {
        while std::fs::read_dir(&input).expect("the inputs").next().is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_specification_comes_back_as_it_was_sent_also_after_the_end_and_from_where_large_tasks_are_kept() {
    let world = World::start().await;
    let (mut agent, alice) = (world.agent().await, world.console("alice").await);
    let small = alice.submit("small").await.job;
    let mut wide = spec("large");
    let TaskBody::Inline(Task::Wasm(task)) = &mut wide.body else { panic!("inline") };
    task.args = List::cut((0..64).map(|number| text(format!("{number:0200}"))).collect());
    let kept = Digest::of(&encode_task(&Task::Wasm(task.clone())));
    let large = alice.submit_spec("large", wide.clone()).await.expect("it is accepted").job;
    let file = world.place().join("blobs/alice").join(kept.to_string());
    assert!(file.is_file(), "such a task is kept beside the journal");
    for (job, sent) in [(small, spec("small")), (large, wide.clone())] {
        let view = alice.spec(&job.to_string()).await.expect("its own");
        assert_eq!((view.job, &view.spec), (job, &sent));
        assert_eq!(spec_digest(&view.spec), spec_digest(&sent));
    }
    assert_eq!(world.console("boss").await.spec("large").await.expect("operators see all").spec, wide);
    let assignment = agent.run().await;
    assert_eq!(assignment.attempt.job, small);
    agent.finish(&assignment, b"", 0).await;
    alice.job_until(&small.to_string(), |job| job.state.is_ended()).await;
    assert_eq!(alice.spec("small").await.expect("it has ended and is known").spec, spec("small"));
    std::fs::remove_file(file).expect("it is there");
    let gone = alice.spec("large").await.expect_err("half of it is no specification");
    assert_eq!(gone.code, RefusalCode::MissingBlob);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_comes_back_in_pieces_to_its_own_account() {
    let world = World::start().await;
    let alice = world.console("alice").await;
    let large: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    for (blob, pieces) in [(MODULE, 1), (&large, large.len().div_ceil(CHUNK_BYTES_MAX))] {
        alice.put(blob, Digest::of(blob)).await.expect("it is stored");
        assert!(alice.fetch(Digest::of(blob)).await.expect("its own") == (blob.to_vec(), pieces));
    }
    let absent = alice.fetch(Digest::of(b"other")).await.expect_err("nobody put it");
    assert_eq!(absent.code, RefusalCode::MissingBlob);
    // One that is asked for and not read holds nobody up.
    let (_out, _unread) = alice.open(BlobFetch { digest: Digest::of(&large) }).await;
    alice.submit("one").await;
}

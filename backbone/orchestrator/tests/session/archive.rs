//! What has ended and left the memory is found as before: jobs, names, statements, events, output, after restarts too.

use std::collections::BTreeSet;

use modchain_types::{JobId, JobState, List, Span, Text};
use modchain_wire::ToConsole;
use modchain_wire::console::{Cancel, EventsOpen, JobsQuery, LedgerQuery, NodesQuery, RefusalCode, StatusQuery};
use modchain_wire::view::LedgerKind;

use super::world::{Console, HOLD, World, read_output, soon, text};

/// More than stay in memory.
const JOBS: usize = 230;

async fn all_jobs(console: &Console, states: &[JobState]) -> (Vec<JobId>, u64) {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let query = JobsQuery {
            states: List::cut(states.to_vec()),
            ended: true,
            account: None,
            labels: List::default(),
            prefix: Text::default(),
            since: None,
            limit: 70,
            after,
        };
        let ToConsole::Jobs(page) = console.ask(query).await else { panic!("no jobs") };
        after = page.items.last().map(|job| job.id);
        found.extend(page.items.iter().map(|job| job.id));
        if !page.more {
            return (found, page.total);
        }
    }
}

async fn whole_statement(console: &Console, kind: Option<LedgerKind>) -> Vec<(u64, LedgerKind)> {
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let query = LedgerQuery { account: None, since: None, kind, job: None, limit: 90, before };
        let ToConsole::Ledger(page) = console.ask(query).await else { panic!("no ledger") };
        before = page.items.last().map(|entry| entry.number);
        found.extend(page.items.iter().map(|entry| (entry.number, entry.kind)));
        if !page.more {
            return found;
        }
    }
}

async fn check(world: &World, made: &[JobId]) {
    let (alice, bob, boss) = (world.console("alice").await, world.console("bob").await, world.console("boss").await);
    let newest: Vec<JobId> = made.iter().rev().copied().collect();
    assert_eq!(all_jobs(&alice, &[]).await, (newest.clone(), made.len() as u64));
    assert_eq!(all_jobs(&boss, &[]).await, (newest.clone(), made.len() as u64));
    assert_eq!(all_jobs(&bob, &[]).await, (Vec::new(), 0));
    assert_eq!(all_jobs(&alice, &[JobState::Completed]).await, (vec![made[0]], 1));
    assert_eq!(all_jobs(&alice, &[JobState::Cancelled]).await.1, made.len() as u64 - 2);

    let first = made[0].to_string();
    for name in [&first[..], &first[..10], &first[2..10], "the-first"] {
        let job = alice.job(name).await.expect("an old job");
        assert_eq!((job.id, job.state, job.output.stdout), (made[0], JobState::Completed, 6), "{name}");
        assert_eq!(bob.job(name).await.expect_err("somebody else's").code, RefusalCode::NotFound, "{name}");
    }
    alice.spec(&first).await.expect("what it was submitted with");
    let (_open, mut reader) = alice.logs(&first, true).await;
    assert_eq!(read_output(&mut reader, 6).await, b"hello\n");
    let end = soon("the end", async {
        loop {
            match reader.read().await {
                Ok(Some(ToConsole::CaughtUp(_))) => {}
                Ok(Some(ToConsole::LogEnd(end))) => return end,
                other => panic!("{other:?}"),
            }
        }
    });
    assert!(end.await.job.state.is_ended());
    let cancel = Cancel { job: text(&*first), grace: Span::ZERO, why: text("") };
    let ToConsole::Refusal(refusal) = alice.ask(cancel).await else { panic!("it has ended") };
    assert_eq!(refusal.code, RefusalCode::Conflict);

    let statement = whole_statement(&alice, None).await;
    let numbers: BTreeSet<u64> = statement.iter().map(|(number, _)| *number).collect();
    // A deposit, a hold for each, and one or two entries at each end; one is live.
    assert_eq!(statement.len(), 1 + made.len() + (made.len() - 1) + 1);
    assert!(statement.windows(2).all(|pair| pair[0].0 >= pair[1].0) && numbers.len() == 2 * made.len());
    assert_eq!(whole_statement(&alice, Some(LedgerKind::Deposit)).await.len(), 1);
    assert_eq!(alice.account().await.held, HOLD);

    let query =
        EventsOpen { since: None, kind: None, job: Some(text(&*first)), node: None, follow: false, after: None };
    let (mut out, mut input) = alice.open(query).await;
    out.finish().await.expect("it ends");
    let mut seen = Vec::new();
    soon("the events of the first job", async {
        while let Ok(Some(message)) = input.read().await {
            if let ToConsole::Events(page) = message {
                seen.extend(page.items.iter().map(|event| event.number));
            }
        }
    })
    .await;
    assert!(seen.len() >= 4 && seen.is_sorted(), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_left_the_memory_is_found_as_before() {
    let mut world = World::start().await;
    let mut agent = world.agent().await;
    let alice = world.console("alice").await;
    let mut made = vec![alice.submit("the-first").await.job];
    let assignment = agent.run().await;
    agent.finish(&assignment, b"hello\n", 0).await;
    agent.connection.close(modchain_link::CloseCode::Done, "");
    alice.job_until(&made[0].to_string(), |job| job.state.is_ended()).await;
    // What is submitted from here on is to wait.
    soon("the node's leaving", async {
        loop {
            match alice.ask(NodesQuery { limit: 10, after: None }).await {
                ToConsole::Nodes(page) if page.items[0].connected_at.is_none() => return,
                ToConsole::Nodes(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
    for number in 1..JOBS {
        let job = alice.submit(&format!("job-{number}")).await.job;
        let cancel = Cancel { job: text(job.to_string()), grace: Span::ZERO, why: text("") };
        assert!(matches!(alice.ask(cancel).await, ToConsole::Job(_)));
        made.push(job);
    }
    made.push(alice.submit("live").await.job);
    drop(alice);
    check(&world, &made).await;
    world.stop().await;
    world.serve().await;
    check(&world, &made).await;
    // Without its view it makes another.
    world.stop().await;
    std::fs::remove_dir_all(world.place().join("view")).expect("it was there");
    world.serve().await;
    check(&world, &made).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_cannot_be_written_is_a_problem_that_operators_see_until_it_is_made_anew() {
    let mut world = World::start().await;
    let cancelled = async |world: &World, key: &str| {
        let alice = world.console("alice").await;
        let job = alice.submit(key).await.job;
        let cancel = Cancel { job: text(job.to_string()), grace: Span::ZERO, why: text("") };
        assert!(matches!(alice.ask(cancel).await, ToConsole::Job(_)));
        job
    };
    let first = cancelled(&world, "first").await;
    world.stop().await;
    // What is added to is garbled; a start does not look at it.
    let garbled = {
        let database = loop {
            match sled::open(world.place().join("view")) {
                // A view that was closed in this process lets go of its files a moment later.
                Err(sled::Error::Io(error)) if error.to_string().contains("acquire lock") => {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
                opened => break opened.expect("opens"),
            }
        };
        let tree = database.open_tree("view").expect("it has rows");
        let keys: Vec<_> = tree.scan_prefix(b"S").keys().map(|key| key.expect("reads")).collect();
        keys.iter().for_each(|key| drop(tree.insert(key, &[0xff; 3]).expect("writes")));
        keys.len()
    };
    assert_eq!(garbled, 1, "the state that a job has ended in");
    world.serve().await;
    let complaint = async |world: &World, who: &str| {
        let ToConsole::Status(status) = world.console(who).await.ask(StatusQuery { detail: false }).await else {
            panic!("no status")
        };
        status.problems.iter().any(|problem| problem.contains("what has ended stays in memory"))
    };
    assert!(!complaint(&world, "boss").await);
    let second = cancelled(&world, "second").await;
    soon("the complaint", async {
        while !complaint(&world, "boss").await {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(!complaint(&world, "alice").await, "she can do nothing about it");
    let third = cancelled(&world, "third").await;
    for _ in 0..2 {
        let alice = world.console("alice").await;
        for job in [first, second, third] {
            assert!(alice.job(&job.to_string()).await.expect("it is there").state.is_ended());
        }
        drop(alice);
        world.stop().await;
        world.serve().await;
        assert!(!complaint(&world, "boss").await, "made anew");
    }
}

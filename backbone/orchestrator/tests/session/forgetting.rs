//! Ended jobs are forgotten after a while: whoever asks hears for how long they are kept, their keys make new jobs, and money stays.

use std::time::Duration;

use modchain_orchestrator::retention::{Keep, KeepJobs};
use modchain_types::{JobId, JobState, List, Span, Text};
use modchain_wire::ToConsole;
use modchain_wire::console::{
    Cancel, EventsOpen, ExplainQuery, JobsPage, JobsQuery, LedgerQuery, Refusal, RefusalCode,
};

use super::world::{Console, MINIMUM, World, read_output, soon, text};

/// The refusal of a job, once there is one.
async fn forgotten(console: &Console, job: &str) -> Refusal {
    soon("the job is forgotten", async {
        loop {
            match console.job(job).await {
                Err(refusal) => return refusal,
                Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await
}

async fn jobs(console: &Console, state: Option<JobState>) -> JobsPage {
    let query = JobsQuery {
        states: List::cut(state.into_iter().collect()),
        ended: true,
        account: None,
        labels: List::default(),
        prefix: Text::default(),
        since: None,
        limit: 100,
        after: None,
    };
    let ToConsole::Jobs(page) = console.ask(query).await else { panic!("no jobs") };
    page
}

/// How many entries of the statement are about the job.
async fn entries(console: &Console, job: JobId) -> usize {
    let query = LedgerQuery { account: None, since: None, kind: None, job: None, limit: 100, before: None };
    let ToConsole::Ledger(page) = console.ask(query).await else { panic!("no ledger") };
    page.items.iter().filter(|entry| entry.job == Some(job)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_job_is_told_from_no_other_that_never_was_and_its_key_makes_a_new_one() {
    let mut world = World::start().await;
    let (mut agent, alice) = (world.agent().await, world.console("alice").await);
    let job = alice.submit("old").await.job;
    let name = job.to_string();
    let assignment = agent.run().await;
    agent.finish(&assignment, b"hello\n", 0).await;
    alice.job_until(&name, |job| job.state.is_ended()).await;
    let folder = world.place().join("output").join(&name);
    assert!(folder.exists());
    drop((agent, alice));
    world.stop().await;
    world.keep = Keep { jobs: KeepJobs { age: Span::from_secs(1), ..KeepJobs::USUAL }, ..Keep::default() };
    world.serve().await;

    let alice = world.console("alice").await;
    let refusal = forgotten(&alice, &name).await;
    assert_eq!(refusal.code, RefusalCode::NotFound);
    assert!(refusal.hint.contains("records of ended jobs are kept for 1.0s, up to 1000000 of them"), "{refusal:?}");
    let never = alice.job("j-00000000000000000000000000").await.expect_err("there is none");
    assert_eq!((never.code, &never.hint), (refusal.code, &refusal.hint), "one that never was");
    let cancel = Cancel { job: text(&name), grace: Span::ZERO, why: Text::default() };
    for answer in [
        alice.ask(cancel).await,
        alice.ask(ExplainQuery { job: text(&name) }).await,
        soon("an answer", async { alice.logs(&name, false).await.1.read().await }).await.expect("reads").expect("one"),
    ] {
        let ToConsole::Refusal(other) = answer else { panic!("{answer:?}") };
        assert_eq!(other, refusal);
    }
    assert_eq!(alice.job("old").await.expect_err("nor by its name").code, RefusalCode::NotFound);
    assert!(!folder.exists(), "its output went before");
    let page = jobs(&alice, None).await;
    assert_eq!((page.items.len(), page.total), (0, 0));
    assert_eq!(entries(&alice, job).await, 3, "its hold, its cost, and what came back");
    let open = EventsOpen { since: None, kind: None, job: None, node: None, after: None, follow: false };
    for (who, told) in [("boss", true), ("alice", false)] {
        let (_open, mut reader) = world.console(who).await.open(open.clone()).await;
        let mut found = false;
        while let Some(message) = soon("events", reader.read()).await.expect("reads") {
            if let ToConsole::Events(page) = message {
                found |=
                    page.items.iter().any(|event| event.text.contains("record of one ended job is no longer kept"));
            }
        }
        assert_eq!(found, told, "{who}");
    }

    drop(alice);
    world.stop().await;
    world.keep = Keep::default();
    world.serve().await;
    let (mut agent, alice) = (world.agent().await, world.console("alice").await);
    assert_eq!(alice.job(&name).await.expect_err("after a start, too").code, RefusalCode::NotFound);
    let again = alice.submit("old").await;
    assert_eq!((again.job, again.existing), (job, false), "a new job under the same id");
    let assignment = agent.run().await;
    agent.finish(&assignment, b"once more\n", 0).await;
    let view = alice.job_until(&name, |job| job.state.is_ended()).await;
    assert_eq!((view.state, view.cost, view.attempts.len()), (JobState::Completed, MINIMUM, 1));
    let (_open, mut reader) = alice.logs(&name, false).await;
    assert_eq!(read_output(&mut reader, usize::MAX).await, b"once more\n", "and nothing of the one before");
    assert_eq!(jobs(&alice, Some(JobState::Completed)).await.total, 1);
    assert_eq!(entries(&alice, job).await, 6);
}

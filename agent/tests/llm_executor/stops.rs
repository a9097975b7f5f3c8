//! Stops: each takes effect at once and closes the connection, which is what stops a model server.

use std::time::Duration;

use modchain_agent::executor::llm::LlmPolicy;
use modchain_agent::executor::{ExecutorEvent, StopAs};
use modchain_types::{Ending, Span};

use crate::harness::{Question, executor, until};
use crate::ollama;
use crate::scripted::{Scripted, Step, last, lines};

const A: &str = r#"{"response":"a","done":false}"#;

#[tokio::test]
async fn a_cancelled_answer_ends_at_once_and_the_server_answers_the_next() {
    let Some(url) = ollama::shared() else { return };
    let executor = executor(&url, LlmPolicy::default());
    let mut attempt = Question::story().start(&executor);
    attempt.started().await;
    for _ in 0..5 {
        attempt.piece().await;
    }
    // A grace time is of no use to a model.
    attempt.control.stop(StopAs::Stopped, Span::from_secs(3_600));
    let story = attempt.story().await;
    assert_eq!(*story.ending(), Ending::Stopped);
    let made = 5 + story.pieces.len() as u64;
    assert_eq!(story.usage.output_tokens, made, "what was handed on is what was made");
    assert!(made < 30, "it went on to its {made}th token: what waits for the shell is bounded");
    assert_eq!(story.usage.prompt_tokens, 0, "the server tells those in its last record");
    assert!(story.usage.ran > story.usage.first_token && story.usage.first_token > Span::ZERO, "{:?}", story.usage);
    Question::prompt("Say hello.").max_tokens(3).run(&executor).await.assert_answered();
}

#[tokio::test]
async fn every_stop_closes_the_connection_and_is_reported_as_what_it_was() {
    for (stop_as, ending) in [
        (Some(StopAs::Stopped), Ending::Stopped),
        (Some(StopAs::RunLimit), Ending::RunLimit),
        (Some(StopAs::LeaseEnded), Ending::LeaseEnded),
        (None, Ending::Stopped),
    ] {
        let mut steps = lines(&[A, A]);
        steps.push(Step::Hang);
        let server = Scripted::loading_then((200, steps)).await;
        let mut attempt = Question::prompt("p").start(&executor(&server.url, LlmPolicy::default()));
        attempt.started().await;
        assert_eq!((attempt.piece().await, attempt.piece().await), ("a".into(), "a".into()));
        match stop_as {
            Some(stop_as) => attempt.control.stop(stop_as, Span::ZERO),
            None => attempt.control.kill(),
        }
        let story = attempt.story().await;
        assert_eq!((story.ending(), story.usage.output_tokens), (&ending, 2));
        assert!(story.pieces.is_empty(), "nothing is added to an answer that was cut off");
        until("the server is let go", async || server.hung_up() == 1).await;
    }
}

#[tokio::test]
async fn a_stop_before_the_start_leaves_nothing_to_pay() {
    let hangs = || (200, vec![Step::Hang]);
    for replies in [vec![hangs()], vec![(404, Vec::new()), hangs()]] {
        let asked = replies.len();
        let server = Scripted::answering(replies).await;
        let policy = crate::harness::policy(&["*"]);
        let attempt = Question::prompt("p").start(&executor(&server.url, policy));
        until("the server is asked", async || server.paths().len() == asked).await;
        attempt.control.stop(StopAs::Stopped, Span::ZERO);
        let story = attempt.story().await;
        assert_eq!(*story.ending(), Ending::Stopped);
        assert!(story.ran_for_nothing());
        until("the server is let go", async || server.hung_up() == 1).await;
    }
}

#[tokio::test]
async fn an_attempt_that_nobody_listens_to_is_stopped() {
    let mut steps = lines(&[A]);
    steps.push(Step::Hang);
    let server = Scripted::loading_then((200, steps)).await;
    let mut attempt = Question::prompt("p").start(&executor(&server.url, LlmPolicy::default()));
    attempt.started().await;
    attempt.piece().await;
    drop(attempt);
    until("the server is let go", async || server.hung_up() == 1).await;
}

#[tokio::test]
async fn a_slow_taker_holds_the_server_up_and_loses_nothing() {
    let line = format!(r#"{{"response":"{}"}}{}"#, "x".repeat(30_000), "\n");
    let server = Scripted::loading_then((200, vec![Step::Flood(line.into_bytes())])).await;
    let mut attempt = Question::prompt("p").start(&executor(&server.url, LlmPolicy::default()));
    attempt.started().await;
    let mut before = 0;
    until("the server cannot send any more", async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let sent = server.sent();
        std::mem::replace(&mut before, sent) == sent && sent > 0
    })
    .await;
    attempt.control.stop(StopAs::Stopped, Span::ZERO);
    let story = attempt.story().await;
    assert_eq!(*story.ending(), Ending::Stopped);
    assert_eq!(story.usage.output_tokens, story.pieces.len() as u64, "what is counted is what was handed on");
    assert!(story.pieces.len() >= 16, "a full channel is handed on: {}", story.pieces.len());
}

#[tokio::test]
async fn a_stop_that_comes_too_late_changes_nothing() {
    let server = Scripted::loading_then((200, lines(&[A, &last(3, 1)]))).await;
    let mut attempt = Question::prompt("p").start(&executor(&server.url, LlmPolicy::default()));
    attempt.started().await;
    let mut ending = None;
    while ending.is_none() {
        if let ExecutorEvent::Ended { ending: how, .. } = attempt.next().await {
            ending = Some(how);
        }
    }
    attempt.control.stop(StopAs::RunLimit, Span::ZERO);
    attempt.control.kill();
    assert_eq!((ending, attempt.events.recv().await), (Some(Ending::Exited { code: 0 }), None));
}

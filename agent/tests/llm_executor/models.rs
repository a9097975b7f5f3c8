//! Which models a real server holds, and what becomes of questions to those that it does not.

use modchain_agent::executor::llm::LlmPolicy;
use modchain_agent::probe::{Findings, ollama::watch};
use modchain_types::{Fault, LlmRole, Span};
use tokio::sync::watch;

use crate::harness::{PATIENCE, Question, executor, policy};
use crate::ollama::{self, MODEL};

#[tokio::test]
async fn a_model_that_is_not_there_is_not_pulled_unless_its_owner_lets_it() {
    let Some(url) = ollama::shared() else { return };
    let stranger = executor(&url, policy(&["smollm2:*"]));
    for question in [
        Question::prompt("p").model("nobody:1b"),
        Question::chat(&[(LlmRole::User, "p")]).model("nobody:1b"),
        Question::embed(&["p"]).model("nobody:1b"),
    ] {
        let story = question.run(&stranger).await;
        let why = "this node does not hold the model nobody:1b, and its owner does not let it be pulled";
        story.assert_cannot_start(Fault::Node, why);
        assert!(story.ran_for_nothing());
    }
    // The tests' server reaches no registry.
    let friend = executor(&url, policy(&["nobody:1b"]));
    let story = Question::prompt("p").model("nobody:1b").run(&friend).await;
    story.assert_cannot_start(Fault::Node, "the model nobody:1b cannot be pulled: the model server failed: ");
    assert!(story.prepared.contains(&"pulling nobody:1b".to_owned()), "{:?}", story.prepared);
    assert!(story.ran_for_nothing());
    stranger.set_policy(policy(&["nobody:*"]));
    let story = Question::prompt("p").model("nobody:1b").run(&stranger).await;
    story.assert_cannot_start(Fault::Node, "cannot be pulled");
}

#[tokio::test]
async fn the_probe_sees_models_come_into_memory_and_leave_it_and_the_server_go() {
    let Some(server) = ollama::own() else { return };
    let executor = executor(server.url(), LlmPolicy { keep_alive: Some(Span::ZERO), ..LlmPolicy::default() });
    let (findings_in, mut findings) = watch::channel(Findings::default());
    let probe = tokio::spawn(watch(executor.clone(), findings_in));

    let models = seen(&mut findings, |models| models.is_some()).await.expect("there");
    let [model] = &models[..] else { panic!("{models:?}") };
    assert_eq!((model.name.as_str(), model.warm), (MODEL, false), "nothing has asked it");
    assert!(model.digest.len() == 64 && model.digest.chars().all(|c| c.is_ascii_hexdigit()), "{model:?}");
    assert!((50 << 20..500 << 20).contains(&model.bytes), "{model:?}");

    let mut attempt = Question::story().start(&executor);
    seen(&mut findings, |models| models.as_ref().is_some_and(|models| models[0].warm)).await;
    attempt.started().await;
    attempt.piece().await;
    attempt.control.kill();
    attempt.story().await;
    // Told to keep it for no time, the server lets it go.
    seen(&mut findings, |models| models.as_ref().is_some_and(|models| !models[0].warm)).await;

    drop(server);
    seen(&mut findings, |models| models.is_none()).await;
    let story = Question::prompt("p").run(&executor).await;
    story.assert_cannot_start(Fault::Node, "the model server cannot be reached");
    assert!(!probe.is_finished(), "a probe looks for ever");
    probe.abort();
}

type Models = Option<Vec<modchain_types::ModelInfo>>;

/// Waits until the probe sees this, and returns it.
async fn seen(findings: &mut watch::Receiver<Findings>, what: impl Fn(&Models) -> bool) -> Models {
    let found = findings.wait_for(|findings| what(&findings.models));
    tokio::time::timeout(PATIENCE, found).await.expect("seen in time").expect("the probe runs").models.clone()
}

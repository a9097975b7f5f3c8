//! Answers of a real model.

use modchain_agent::executor::llm::LlmPolicy;
use modchain_types::{Ending, LlmRole, Span};

use crate::harness::{EXITED_0, NO_TIME, Question, executor};
use crate::ollama;

#[tokio::test]
async fn an_answer_comes_token_by_token_and_is_counted() {
    let Some(url) = ollama::shared() else { return };
    let executor = executor(&url, LlmPolicy::default());
    let story = Question::story().max_tokens(12).run(&executor).await;
    story.assert_answered();
    assert!(story.pieces.len() > 6, "{:?}", story.pieces);
    let usage = story.usage;
    assert_eq!(usage.output_tokens, 12, "as many as were wanted");
    assert!((8..60).contains(&usage.prompt_tokens), "{usage:?} for a prompt of seven words in a template");
    assert!(usage.load > NO_TIME && usage.first_token > NO_TIME, "{usage:?}");
    assert!(usage.generating > Span::from_millis(1) && usage.ran > usage.first_token, "{usage:?}");
    assert_eq!(usage.fuel, 0);
}

#[tokio::test]
async fn a_conversation_goes_on() {
    let Some(url) = ollama::shared() else { return };
    let executor = executor(&url, LlmPolicy::default());
    let conversation = [
        (LlmRole::System, "You answer in one word."),
        (LlmRole::User, "What is the capital of France?"),
        (LlmRole::Assistant, "Paris"),
        (LlmRole::User, "And of Italy?"),
    ];
    let whole = Question::chat(&conversation).max_tokens(8).seed(1).run(&executor).await;
    whole.assert_answered();
    let last = Question::chat(&conversation[3..]).max_tokens(8).seed(1).run(&executor).await;
    last.assert_answered();
    assert!(
        whole.usage.prompt_tokens >= last.usage.prompt_tokens + 10,
        "the model has read what was said before: {:?} and {:?}",
        whole.usage,
        last.usage
    );
}

#[tokio::test]
async fn an_answer_in_json_is_one_document() {
    let Some(url) = ollama::shared() else { return };
    let question = Question::prompt("Write the JSON object {\"name\": \"Ada\"} and nothing else.");
    let story = question.json().seed(7).temperature(0).max_tokens(60).run(&executor(&url, LlmPolicy::default())).await;
    story.assert_answered();
    let out = story.out();
    assert!(out.trim_start().starts_with('{'), "{out}");
    if story.usage.output_tokens < 60 {
        serde_json::from_str::<serde_json::Value>(&out).expect("a whole answer is JSON");
    }
}

#[tokio::test]
async fn the_same_seed_gives_the_same_answer_and_another_one_another() {
    // What a server works on for others at the same time changes how it computes, and with it the answer.
    let Some(server) = ollama::own() else { return };
    let executor = executor(server.url(), LlmPolicy::default());
    let say = async |seed| {
        let question = Question::story().temperature(2_000).seed(seed).max_tokens(16);
        let story = question.run(&executor).await;
        story.assert_answered();
        story.out()
    };
    // The first reads the prompt anew, the others may remember it.
    say(1).await;
    let (one, again, other) = (say(1).await, say(1).await, say(2).await);
    assert_eq!(one, again);
    assert_ne!(one, other);
}

#[tokio::test]
async fn vectors_come_a_line_each_and_like_texts_are_alike() {
    let Some(url) = ollama::shared() else { return };
    // More than one request's worth of them.
    let mut texts: Vec<String> = (0..17).map(|number| format!("number {number}")).collect();
    texts.push("number 3".into());
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let story = Question::embed(&texts).run(&executor(&url, LlmPolicy::default())).await;
    story.assert_answered();
    #[derive(serde::Deserialize)]
    struct Line {
        index: usize,
        embedding: Vec<f32>,
    }
    let lines: Vec<Line> =
        story.out().lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!(lines.iter().map(|line| line.index).collect::<Vec<_>>(), (0..18).collect::<Vec<_>>());
    assert!(lines.iter().all(|line| line.embedding.len() == 576), "the model's vectors have 576 numbers");
    let like = |one: usize, other: usize| -> f32 {
        lines[one].embedding.iter().zip(&lines[other].embedding).map(|(a, b)| a * b).sum()
    };
    assert!(like(3, 17) > 0.999 && like(3, 17) >= like(3, 4), "{} and {}", like(3, 17), like(3, 4));
    let usage = story.usage;
    assert!(usage.prompt_tokens >= 18 * 2 && usage.output_tokens == 0 && usage.first_token == NO_TIME, "{usage:?}");
    assert!(usage.ran > NO_TIME && usage.load > NO_TIME, "{usage:?}");
}

#[tokio::test]
async fn what_the_hold_pays_for_ends_an_answer_as_its_limit_and_what_the_client_wanted_does_not() {
    let Some(url) = ollama::shared() else { return };
    let executor = executor(&url, LlmPolicy::default());
    for (wanted, paid, ending, tokens) in
        [(Some(4), Some(9), EXITED_0, 4), (Some(9), Some(4), Ending::RunLimit, 4), (None, Some(4), Ending::RunLimit, 4)]
    {
        let mut question = Question::story();
        question.task.max_tokens = wanted;
        question.output_tokens_max = paid;
        let story = question.run(&executor).await;
        assert_eq!((story.ending(), story.usage.output_tokens), (&ending, tokens), "{wanted:?} {paid:?}");
        assert!(story.out().ends_with('\n'));
    }
}

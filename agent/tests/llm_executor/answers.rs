//! Answers of a real model.

use modchain_agent::executor::llm::LlmPolicy;
use modchain_types::{LlmRole, Span};

use crate::harness::{NO_TIME, Question, executor};
use crate::ollama;

#[tokio::test]
async fn an_answer_comes_token_by_token_and_is_counted() {
    let Some(url) = ollama::shared() else { return };
    let story = Question::prompt("Tell a long story about the sea.")
        .max_tokens(12)
        .run(&executor(&url, LlmPolicy::default()))
        .await;
    story.assert_answered();
    assert!(story.pieces.len() > 6, "{:?}", story.pieces);
    assert_eq!(story.usage.output_tokens, 12, "as many as were wanted");
    let prompt = story.usage.prompt_tokens;
    assert!((8..60).contains(&prompt), "{prompt} tokens in a prompt of eight words and a template");
    assert!(story.usage.load > NO_TIME && story.usage.first_token > NO_TIME, "{:?}", story.usage);
    assert!(
        story.usage.generating > Span::from_millis(1) && story.usage.ran > story.usage.first_token,
        "{:?}",
        story.usage
    );
}

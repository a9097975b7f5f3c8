//! What the model server answers, read into what matters of it.

use modchain_types::Span;
use ollama_rs::models::pull::PullModelStatus;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::server::{ServerError, words};

/// One record of an answer. Most are a token.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Piece {
    /// Of the answer.
    pub(super) said: String,
    /// Of what a model thinks before it answers.
    pub(super) thought: String,
    /// In the last record.
    pub(super) last: Option<Last>,
}

/// What the last record tells of the whole answer.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Last {
    /// It ended because it was long enough, not because it was complete.
    pub(super) cut: bool,
    pub(super) prompt_tokens: u64,
    pub(super) output_tokens: Option<u64>,
    /// By the server's own clock.
    pub(super) generating: Span,
    /// Getting the model into memory for this request, by the server's own clock.
    pub(super) load: Span,
}

impl Piece {
    /// Reads a line. One that tells an error is the end of the answer.
    pub(super) fn read(line: &[u8]) -> Result<Self, ServerError> {
        #[derive(Deserialize)]
        struct Record {
            #[serde(default)]
            response: String,
            thinking: Option<String>,
            message: Option<Message>,
            #[serde(default)]
            done: bool,
            done_reason: Option<String>,
            prompt_eval_count: Option<u64>,
            eval_count: Option<u64>,
            eval_duration: Option<u64>,
            load_duration: Option<u64>,
            error: Option<Value>,
        }
        #[derive(Deserialize)]
        struct Message {
            #[serde(default)]
            content: String,
            thinking: Option<String>,
        }
        let record: Record = serde_json::from_slice(line).map_err(nonsense)?;
        if let Some(error) = record.error {
            return Err(ServerError::Failed(words(&error)));
        }
        let (said, thought) = match record.message {
            Some(message) => (message.content, message.thinking),
            None => (record.response, record.thinking),
        };
        let last = record.done.then(|| Last {
            cut: record.done_reason.as_deref() == Some("length"),
            prompt_tokens: record.prompt_eval_count.unwrap_or(0),
            output_tokens: record.eval_count,
            generating: nanos(record.eval_duration),
            load: nanos(record.load_duration),
        });
        Ok(Self { said, thought: thought.unwrap_or_default(), last })
    }
}

/// The vectors of some texts, in their order.
#[derive(Debug, PartialEq)]
pub(super) struct Vectors {
    pub(super) vectors: Vec<Vec<f32>>,
    pub(super) prompt_tokens: u64,
    /// As in [`Last`].
    pub(super) load: Span,
}

impl Vectors {
    /// Reads the answer about this many texts.
    pub(super) fn read(body: &[u8], texts: usize) -> Result<Self, ServerError> {
        #[derive(Deserialize)]
        struct Answer {
            embeddings: Vec<Vec<f32>>,
            prompt_eval_count: Option<u64>,
            load_duration: Option<u64>,
        }
        let answer: Answer = serde_json::from_slice(body).map_err(nonsense)?;
        let got = answer.embeddings.len();
        if got != texts {
            return Err(ServerError::Nonsense(format!("{got} vectors for {texts} texts")));
        }
        let prompt_tokens = answer.prompt_eval_count.unwrap_or(0);
        Ok(Self { vectors: answer.embeddings, prompt_tokens, load: nanos(answer.load_duration) })
    }
}

/// A vector as the job's output has it: a line of JSON.
pub(super) fn vector_line(index: usize, embedding: &[f32]) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        index: usize,
        embedding: &'a [f32],
    }
    serde_json::to_string(&Line { index, embedding }).expect("numbers are JSON") + "\n"
}

/// Reads a line about a pull.
pub(super) fn pull_status(line: &[u8]) -> Result<PullModelStatus, ServerError> {
    #[derive(Deserialize)]
    struct Failure {
        error: Option<Value>,
    }
    let Failure { error } = serde_json::from_slice(line).map_err(nonsense)?;
    match error {
        Some(error) => Err(ServerError::Failed(words(&error))),
        None => serde_json::from_slice(line).map_err(nonsense),
    }
}

fn nonsense(error: serde_json::Error) -> ServerError {
    ServerError::Nonsense(error.to_string())
}

fn nanos(nanos: Option<u64>) -> Span {
    Span::from_micros(nanos.unwrap_or(0) / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(said: &str) -> Piece {
        Piece { said: said.into(), ..Piece::default() }
    }

    #[test]
    fn records_of_texts_and_of_conversations_mean_the_same() {
        let generate = br#"{"model":"m","created_at":"t","response":"a","done":false}"#;
        let chat = br#"{"model":"m","message":{"role":"assistant","content":"a"},"done":false}"#;
        assert_eq!(Piece::read(generate), Ok(said("a")));
        assert_eq!(Piece::read(chat), Ok(said("a")));
        let thought = Piece { thought: "hm".into(), ..Piece::default() };
        assert_eq!(Piece::read(br#"{"response":"","thinking":"hm"}"#).as_ref(), Ok(&thought));
        assert_eq!(Piece::read(br#"{"message":{"thinking":"hm"}}"#).as_ref(), Ok(&thought));
    }

    #[test]
    fn the_last_record_counts_and_says_why_it_is_the_last() {
        let last = Last {
            cut: true,
            prompt_tokens: 11,
            output_tokens: Some(3),
            generating: Span::from_millis(48),
            load: Span::from_micros(8_838),
        };
        let line = br#"{"response":"","done":true,"done_reason":"length","context":[1,2],"load_duration":8838749,
            "prompt_eval_count":11,"prompt_eval_duration":118000000,"eval_count":3,"eval_duration":48000000}"#;
        assert_eq!(Piece::read(line), Ok(Piece { last: Some(last), ..Piece::default() }));
        let bare = Piece { last: Some(Last::default()), ..Piece::default() };
        assert_eq!(Piece::read(br#"{"done":true,"done_reason":"stop"}"#), Ok(bare));
    }

    #[test]
    fn an_error_is_no_answer_whatever_stands_beside_it() {
        for (line, words) in [
            (r#"{"error":"out of memory","response":"a"}"#, "out of memory"),
            (r#"{"error":{}}"#, "without words ({})"),
        ] {
            assert_eq!(Piece::read(line.as_bytes()), Err(ServerError::Failed(words.into())), "{line}");
            assert!(matches!(pull_status(line.as_bytes()), Err(ServerError::Failed(told)) if told == words), "{line}");
        }
        for line in ["", "{", "[]", r#"{"response":7}"#, r#"{"done":true,"eval_count":-1}"#] {
            assert!(matches!(Piece::read(line.as_bytes()), Err(ServerError::Nonsense(_))), "{line}");
        }
    }

    #[test]
    fn vectors_come_one_for_each_text() {
        let body = br#"{"embeddings":[[-0.012318301,1.0],[]],"prompt_eval_count":2}"#;
        let vectors = Vectors::read(body, 2).expect("reads");
        assert_eq!((vectors.vectors.len(), vectors.prompt_tokens), (2, 2));
        assert_eq!(vector_line(1, &vectors.vectors[0]), "{\"index\":1,\"embedding\":[-0.012318301,1.0]}\n");
        assert!(matches!(Vectors::read(body, 3), Err(ServerError::Nonsense(_))));
    }
}

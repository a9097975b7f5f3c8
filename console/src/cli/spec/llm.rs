//! What is asked of a language model. The request itself is a blob: prompts are long, and the journal keeps none.

use std::io::Read;

use bytes::Bytes;
use modchain_types::{Digest, LlmKind, LlmRequest, LlmTask, Text};

use super::super::history::{self, Conversation};
use super::earlier::KeptRequest;
use super::too_long;
use crate::args::LlmFlags;
use crate::exit::Failure;
use crate::text;

/// Cores of a job that does not say how many it needs: the model server computes, the job itself only passes tokens on. What
/// the model takes is in the owner's price of tokens.
pub(super) const CPU_MILLI_DEFAULT: u32 = 100;
/// Memory of a job that does not say how much it needs; the model's is the server's, for the same reason.
pub(super) const MEMORY_BYTES_DEFAULT: u64 = 64 << 20;

/// A task with the request that it names, and where its answer is kept.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) task: LlmTask,
    /// `None` where it is what an earlier job has asked.
    pub(super) request: Option<Bytes>,
    pub(super) conversation: Option<Conversation>,
}

/// Standard input, which can be read once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stdin {
    /// Nobody has read it.
    Free,
    /// The job file came from it, or a prompt did.
    Taken,
}

/// What the flags, joined with the file, ask for; what an earlier job asked, where they say nothing else.
pub(super) fn asked(mut flags: LlmFlags, kept: Option<KeptRequest>, mut stdin: Stdin) -> Result<Asked, Failure> {
    let so_far = match kept {
        Some(kept) if !kept.changed && !says_something(&flags) => return as_before(flags, kept),
        Some(kept) => kept.beneath(&mut flags)?,
        None => None,
    };
    let LlmFlags { model, prompt, system, temperature, max_tokens, seed, json, history, embed } = flags;
    let model = model.ok_or_else(|| {
        Failure::usage("it is not said which model to ask")
            .hint("name one with -m MODEL; `modchain nodes` shows who has which")
    })?;
    let kind = match (&prompt, &history, embed.is_empty()) {
        (None, _, true) => {
            return Err(Failure::usage("there is nothing to ask")
                .hint("say it with -p TEXT, read it from standard input with -p -, or give texts to --embed"));
        }
        (None, None, false) => LlmKind::Embed,
        (Some(_), Some(_), true) => LlmKind::Chat,
        (Some(_), None, true) if so_far.is_some() => LlmKind::Chat,
        (Some(_), None, true) => LlmKind::Generate,
        (Some(_), _, false) => return Err(no_answer("prompt")),
        (None, Some(_), false) => return Err(no_answer("history")),
    };
    if kind == LlmKind::Embed {
        no_answer_is_described(system.is_some(), temperature, max_tokens, seed, json)?;
    }
    let prompt = prompt.map(|prompt| heard(prompt, &mut stdin, "prompt")).transpose()?;
    let inputs: Result<Vec<String>, Failure> =
        embed.into_iter().map(|input| heard(input, &mut stdin, "text to embed")).collect();
    let (request, conversation) = match (prompt, history, so_far) {
        (None, _, _) => (LlmRequest::Embed { inputs: inputs? }, None),
        (Some(prompt), None, None) => (LlmRequest::Generate { prompt, system }, None),
        (Some(prompt), None, Some(mut messages)) => {
            history::ask(&mut messages, system.as_deref(), &prompt);
            (LlmRequest::Chat { messages }, None)
        }
        (Some(prompt), Some(path), _) => {
            let (conversation, messages) = Conversation::begin(path, system, prompt)?;
            (LlmRequest::Chat { messages }, Some(conversation))
        }
    };
    let bytes = serde_json::to_vec(&request).map_err(|error| Failure::failed(format!("cannot make JSON: {error}")))?;
    let request = Bytes::from(bytes);
    if request.len() as u64 > LlmTask::REQUEST_BYTES_MAX {
        let what = if kind == LlmKind::Chat { "the conversation" } else { "what is asked" };
        let most = text::bytes(LlmTask::REQUEST_BYTES_MAX);
        return Err(Failure::usage(format!("{what} has more than {most}, with all that belongs to it")));
    }
    let task = LlmTask {
        model: Text::new(model).map_err(too_long("model"))?,
        request: Digest::of(&request),
        request_bytes: request.len() as u64,
        kind,
        temperature_milli: temperature,
        max_tokens,
        seed,
        json,
    };
    Ok(Asked { task, request: Some(request), conversation })
}

/// Whether anything is said that changes what is asked.
pub(super) fn says_something(flags: &LlmFlags) -> bool {
    flags.prompt.is_some() || flags.system.is_some() || flags.history.is_some() || !flags.embed.is_empty()
}

/// What an earlier job asked, of another model perhaps, and with other words about the answer.
fn as_before(flags: LlmFlags, kept: KeptRequest) -> Result<Asked, Failure> {
    let LlmFlags { model, temperature, max_tokens, seed, json, .. } = flags;
    if kept.kind == LlmKind::Embed {
        no_answer_is_described(false, temperature, max_tokens, seed, json)?;
    }
    let task = LlmTask {
        model: Text::new(model.unwrap_or_default()).map_err(too_long("model"))?,
        request: kept.digest,
        request_bytes: kept.bytes,
        kind: kept.kind,
        temperature_milli: temperature,
        max_tokens,
        seed,
        json,
    };
    Ok(Asked { task, request: None, conversation: None })
}

/// What asks for vectors says nothing about an answer.
fn no_answer_is_described(
    system: bool,
    temperature: Option<u32>,
    max_tokens: Option<u32>,
    seed: Option<u32>,
    json: bool,
) -> Result<(), Failure> {
    let answering = [
        ("system", system),
        ("temperature", temperature.is_some()),
        ("max-tokens", max_tokens.is_some()),
        ("seed", seed.is_some()),
        ("json", json),
    ];
    answering.iter().find(|(_, said)| *said).map_or(Ok(()), |(word, _)| Err(no_answer(word)))
}

fn no_answer(word: &str) -> Failure {
    Failure::usage(format!("`{word}` is about an answer, and `embed` asks for none")).hint("leave one of the two out")
}

/// A text as it was said, or standard input for `-`.
fn heard(said: String, stdin: &mut Stdin, what: &str) -> Result<String, Failure> {
    let text = match (said.as_str(), &stdin) {
        ("-", Stdin::Taken) => {
            return Err(Failure::usage(format!("the {what} cannot come from standard input: something else does")));
        }
        ("-", Stdin::Free) => {
            *stdin = Stdin::Taken;
            read_stdin(what)?
        }
        (_, _) => said,
    };
    if text.trim().is_empty() {
        return Err(Failure::usage(format!("the {what} is empty")));
    }
    Ok(text)
}

fn read_stdin(what: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let mut input = std::io::stdin().lock().take(LlmTask::REQUEST_BYTES_MAX + 1);
    input
        .read_to_string(&mut text)
        .map_err(|error| Failure::usage(format!("cannot read the {what} from standard input: {error}")))?;
    if text.len() as u64 > LlmTask::REQUEST_BYTES_MAX {
        return Err(Failure::usage(format!("the {what} has more than {}", text::bytes(LlmTask::REQUEST_BYTES_MAX))));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(prompt: &str) -> LlmFlags {
        LlmFlags { model: Some("smollm2:135m".into()), prompt: Some(prompt.into()), ..LlmFlags::default() }
    }

    fn said(flags: LlmFlags) -> Failure {
        let failure = asked(flags, None, Stdin::Taken).expect_err("refused");
        assert_eq!(failure.exit, 2, "{failure}");
        failure
    }

    #[test]
    fn a_prompt_becomes_a_request_whose_digest_the_task_names() {
        let flags = LlmFlags {
            system: Some("be short".into()),
            temperature: Some(700),
            max_tokens: Some(9),
            seed: Some(3),
            json: true,
            ..asks("hi")
        };
        let asked = asked(flags, None, Stdin::Free).expect("builds");
        let request = asked.request.expect("it is sent");
        assert_eq!(&request[..], br#"{"generate":{"prompt":"hi","system":"be short"}}"#);
        let task = asked.task;
        assert_eq!((task.request, task.request_bytes), (Digest::of(&request), request.len() as u64));
        assert_eq!((task.kind, task.model.as_str(), task.json), (LlmKind::Generate, "smollm2:135m", true));
        assert_eq!((task.temperature_milli, task.max_tokens, task.seed), (Some(700), Some(9), Some(3)));
        assert!(asked.conversation.is_none());
    }

    #[test]
    fn a_history_makes_it_a_chat_and_texts_to_embed_a_list() {
        let folder = tempfile::tempdir().expect("folder");
        let history = Some(folder.path().join("chat.json"));
        let chat = asked(LlmFlags { history, ..asks("hi") }, None, Stdin::Free).expect("builds");
        assert_eq!(
            &chat.request.expect("it is sent")[..],
            br#"{"chat":{"messages":[{"role":"user","content":"hi"}]}}"#
        );
        assert!(chat.task.kind == LlmKind::Chat && chat.conversation.is_some());
        let embed = LlmFlags { prompt: None, embed: vec!["a".into(), "b".into()], ..asks("") };
        let embed = asked(embed, None, Stdin::Free).expect("builds");
        assert_eq!(&embed.request.expect("it is sent")[..], br#"{"embed":{"inputs":["a","b"]}}"#);
        assert_eq!(embed.task.kind, LlmKind::Embed);
    }

    #[test]
    fn what_cannot_be_asked_is_refused_before_anything_is_sent() {
        assert!(said(LlmFlags { model: None, ..asks("hi") }).message.contains("which model"));
        assert!(said(LlmFlags { prompt: None, ..asks("") }).message.contains("nothing to ask"));
        assert!(said(asks(" \n")).message.contains("the prompt is empty"));
        assert!(said(asks("-")).message.contains("cannot come from standard input"));
        assert!(
            said(LlmFlags { embed: vec!["a".into()], ..asks("hi") }).message.contains("`prompt` is about an answer")
        );
        let embed = LlmFlags { prompt: None, embed: vec!["a".into()], ..asks("") };
        for (word, flags) in [
            ("system", LlmFlags { system: Some("x".into()), ..embed.clone() }),
            ("temperature", LlmFlags { temperature: Some(1), ..embed.clone() }),
            ("max-tokens", LlmFlags { max_tokens: Some(1), ..embed.clone() }),
            ("seed", LlmFlags { seed: Some(1), ..embed.clone() }),
            ("json", LlmFlags { json: true, ..embed.clone() }),
            ("history", LlmFlags { history: Some("x".into()), ..embed.clone() }),
        ] {
            assert!(said(flags).message.contains(&format!("`{word}` is about an answer")), "{word}");
        }
        assert!(said(LlmFlags { embed: vec![" ".into()], ..embed }).message.contains("text to embed is empty"));
        assert!(said(asks(&"a".repeat(1 << 20))).message.contains("has more than 1 MiB"));
    }
}

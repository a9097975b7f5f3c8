//! From a task and its request to what the server is asked: checked here, because a server's own words about a bad request are
//! poor, and some of them it takes for another request.

use std::time::Duration;

use bytes::Bytes;
use modchain_types::{LlmKind, LlmMessage, LlmRequest, LlmRole, LlmTask, Span};
use ollama_rs::generation::chat::request::ChatMessageRequest;
use ollama_rs::generation::chat::{ChatMessage, MessageRole};
use ollama_rs::generation::completion::request::GenerationRequest;
use ollama_rs::generation::embeddings::request::{EmbeddingsInput, GenerateEmbeddingsRequest};
use ollama_rs::generation::parameters::{FormatType, KeepAlive, TimeUnit};
use ollama_rs::models::ModelOptions;
use serde::Serialize;
use serde_json::Value;

use super::policy::LlmPolicy;
use super::server::Verb;

/// Most tokens of one answer, whatever the client and the hold allow. A model that has lost its thread may go on for ever.
const OUTPUT_TOKENS_MAX: u32 = 65_536;

/// Texts whose vectors are asked for in one request, so that an answer stays small and the first vectors come early.
const EMBED_BATCH: usize = 16;

/// Least time that a model is kept between being loaded for a job and being asked: told to keep it for no time at all, a server
/// answers a request without a prompt by unloading it. The question itself says how long to keep it afterwards.
const LOADED_MIN: Duration = Duration::from_secs(60);

/// Longest time that is told as one; more is for ever.
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// What the server is asked for an attempt.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) verb: Verb,
    /// To have the model in memory: the same request with nothing in it.
    pub(super) load: Bytes,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// One text.
    Text { body: Bytes, limit: TokenLimit },
    /// Vectors, one request after the other.
    Vectors { batches: Vec<Batch> },
}

/// Some of the texts whose vectors are asked for.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) body: Bytes,
    pub(super) inputs: usize,
}

/// Where an answer is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TokenLimit {
    /// At least one.
    pub(super) tokens: u32,
    /// Whether the client wanted it so. Otherwise it is what the hold pays for.
    pub(super) wanted: bool,
}

impl TokenLimit {
    fn of(task: &LlmTask, output_tokens_max: Option<u64>) -> Result<Self, String> {
        let most = output_tokens_max
            .map_or(OUTPUT_TOKENS_MAX, |most| u32::try_from(most).unwrap_or(u32::MAX).min(OUTPUT_TOKENS_MAX));
        match task.max_tokens {
            Some(0) => Err("it asks for no token at all".into()),
            _ if most == 0 => Err("its hold pays for no token at all".into()),
            Some(tokens) if tokens <= most => Ok(Self { tokens, wanted: true }),
            Some(_) | None => Ok(Self { tokens: most, wanted: false }),
        }
    }
}

/// What to ask. Fails with the reason why no server could be asked that, which is the job's fault.
pub(super) fn asked(
    task: &LlmTask,
    request: LlmRequest,
    policy: &LlmPolicy,
    output_tokens_max: Option<u64>,
) -> Result<Asked, String> {
    let model = || task.model.to_string();
    if !is_model_name(&task.model) {
        return Err(format!("`{}` is not the name of a model", super::printable(&task.model)));
    }
    if task.temperature_milli.is_some_and(|milli| milli > LlmTask::TEMPERATURE_MILLI_MAX) {
        return Err("its temperature is out of range".into());
    }
    let keep = policy.keep_alive.map(keep_alive);
    let keep_loaded = policy.keep_alive.map(|span| keep_alive(span.max(LOADED_MIN.into())));
    let to_load = loading_options(policy);
    match (task.kind, request) {
        (LlmKind::Generate, LlmRequest::Generate { prompt, system }) => {
            if prompt.is_empty() {
                return Err("its prompt is empty".into());
            }
            let limit = TokenLimit::of(task, output_tokens_max)?;
            let mut load = GenerationRequest::new(model(), "").options(to_load);
            load.keep_alive = keep_loaded;
            let mut body = GenerationRequest::new(model(), prompt).options(options(task, policy, limit));
            body.system = system.map(Into::into);
            body.format = task.json.then_some(FormatType::Json);
            body.keep_alive = keep;
            let what = What::Text { body: text_of(&body, true), limit };
            Ok(Asked { verb: Verb::Generate, load: text_of(&load, false), what })
        }
        (LlmKind::Chat, LlmRequest::Chat { messages }) => {
            if messages.is_empty() {
                return Err("its conversation is empty".into());
            }
            let limit = TokenLimit::of(task, output_tokens_max)?;
            let mut load = ChatMessageRequest::new(model(), Vec::new()).options(to_load);
            load.keep_alive = keep_loaded;
            let messages = messages.into_iter().map(message).collect();
            let mut body = ChatMessageRequest::new(model(), messages).options(options(task, policy, limit));
            body.format = task.json.then_some(FormatType::Json);
            body.keep_alive = keep;
            let what = What::Text { body: text_of(&body, true), limit };
            Ok(Asked { verb: Verb::Chat, load: text_of(&load, false), what })
        }
        (LlmKind::Embed, LlmRequest::Embed { inputs }) => {
            if inputs.is_empty() {
                return Err("it has no text to embed".into());
            }
            if let Some(empty) = inputs.iter().position(String::is_empty) {
                return Err(format!("its text {empty} is empty"));
            }
            let ask = |inputs: &[String], keep: &Option<KeepAlive>| {
                let mut body = GenerateEmbeddingsRequest::new(model(), EmbeddingsInput::Multiple(inputs.to_vec()))
                    .options(loading_options(policy))
                    .truncate(false);
                body.keep_alive = keep.clone();
                Bytes::from(serde_json::to_vec(&body).expect("a request is JSON"))
            };
            let batches = inputs
                .chunks(EMBED_BATCH)
                .map(|inputs| Batch { body: ask(inputs, &keep), inputs: inputs.len() })
                .collect();
            Ok(Asked { verb: Verb::Embed, load: ask(&[], &keep_loaded), what: What::Vectors { batches } })
        }
        (LlmKind::Generate | LlmKind::Chat | LlmKind::Embed, _) => {
            Err("its request is of another kind than its task".into())
        }
    }
}

/// The body of a request for text. Servers that know the word refuse a prompt that the context has no room for; the older ones
/// cut it.
fn text_of(request: &impl Serialize, stream: bool) -> Bytes {
    let mut body = serde_json::to_value(request).expect("a request is JSON");
    let fields = body.as_object_mut().expect("a request is an object");
    fields.insert("stream".into(), Value::Bool(stream));
    fields.insert("truncate".into(), Value::Bool(false));
    Bytes::from(serde_json::to_vec(&body).expect("JSON can be written"))
}

/// The options that a server would load the model again for.
fn loading_options(policy: &LlmPolicy) -> ModelOptions {
    match policy.context_tokens {
        Some(tokens) => ModelOptions::default().num_ctx(tokens.into()),
        None => ModelOptions::default(),
    }
}

fn options(task: &LlmTask, policy: &LlmPolicy, limit: TokenLimit) -> ModelOptions {
    let mut options = loading_options(policy).num_predict(i32::try_from(limit.tokens).unwrap_or(i32::MAX));
    if let Some(milli) = task.temperature_milli {
        options = options.temperature(milli as f32 / 1_000.0);
    }
    if let Some(seed) = task.seed {
        // A server takes 31 bits of a seed.
        options = options.seed(i32::try_from(seed & i32::MAX.unsigned_abs()).expect("31 bits fit"));
    }
    options
}

fn keep_alive(span: Span) -> KeepAlive {
    let kept = Duration::from(span);
    if kept.is_zero() {
        KeepAlive::UnloadOnCompletion
    } else if kept > KEEP_ALIVE_MAX {
        KeepAlive::Indefinitely
    } else {
        KeepAlive::Until { time: kept.as_secs().max(1), unit: TimeUnit::Seconds }
    }
}

fn message(message: LlmMessage) -> ChatMessage {
    let role = match message.role {
        LlmRole::System => MessageRole::System,
        LlmRole::User => MessageRole::User,
        LlmRole::Assistant => MessageRole::Assistant,
    };
    ChatMessage::new(role, message.content)
}

/// Whether it can be a model's name: `[[HOST/]NAMESPACE/]NAME[:TAG]`, with the letters of those and nothing that leads elsewhere.
pub(crate) fn is_model_name(name: &str) -> bool {
    !name.is_empty()
        && name.split('/').count() <= 3
        && name.split('/').all(|part| part.starts_with(|c: char| c.is_ascii_alphanumeric()))
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-:/".contains(c))
        && !name.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use modchain_types::{Digest, Text};
    use serde_json::json;

    fn task(kind: LlmKind) -> LlmTask {
        LlmTask {
            model: Text::cut("m:1"),
            request: Digest([0; 32]),
            request_bytes: 0,
            kind,
            temperature_milli: None,
            max_tokens: None,
            seed: None,
            json: false,
        }
    }

    fn prompt(text: &str) -> LlmRequest {
        LlmRequest::Generate { prompt: text.into(), system: None }
    }

    fn read(body: &Bytes) -> Value {
        serde_json::from_slice(body).expect("JSON")
    }

    fn text_body(asked: &Asked) -> (Value, TokenLimit) {
        match &asked.what {
            What::Text { body, limit } => (read(body), *limit),
            What::Vectors { .. } => panic!("a text was asked for"),
        }
    }

    #[test]
    fn a_request_holds_what_the_task_says_and_nothing_else() {
        let policy = LlmPolicy { keep_alive: Some(Span::from_secs(30)), ..LlmPolicy::default() };
        let task = LlmTask {
            temperature_milli: Some(700),
            max_tokens: Some(20),
            seed: Some(u32::MAX),
            json: true,
            ..task(LlmKind::Generate)
        };
        let request = LlmRequest::Generate { prompt: "p".into(), system: Some("s".into()) };
        let asked = asked(&task, request, &policy, None).expect("can be asked");
        let (body, limit) = text_body(&asked);
        let temperature = body["options"]["temperature"].as_f64().expect("a number");
        assert!((temperature - 0.7).abs() < 1e-6, "{temperature}");
        assert_eq!(
            body,
            json!({
                "model": "m:1", "prompt": "p", "system": "s", "format": "json", "stream": true, "truncate": false,
                "keep_alive": "30s",
                "options": {"num_ctx": 4096, "num_predict": 20, "seed": i32::MAX, "temperature": temperature},
            })
        );
        assert_eq!(limit, TokenLimit { tokens: 20, wanted: true });
        assert_eq!(
            read(&asked.load),
            json!({
                "model": "m:1", "prompt": "", "stream": false, "truncate": false, "keep_alive": "60s",
                "options": {"num_ctx": 4096},
            })
        );
    }

    #[test]
    fn the_smaller_limit_of_tokens_counts_and_is_known_by_who_set_it() {
        for (max_tokens, hold, tokens, wanted) in [
            (None, None, OUTPUT_TOKENS_MAX, false),
            (Some(5), None, 5, true),
            (Some(5), Some(5), 5, true),
            (Some(6), Some(5), 5, false),
            (None, Some(5), 5, false),
            (Some(u32::MAX), Some(u64::MAX), OUTPUT_TOKENS_MAX, false),
        ] {
            let task = LlmTask { max_tokens, ..task(LlmKind::Generate) };
            assert_eq!(TokenLimit::of(&task, hold), Ok(TokenLimit { tokens, wanted }), "{max_tokens:?} {hold:?}");
        }
        let none = LlmTask { max_tokens: Some(0), ..task(LlmKind::Generate) };
        assert!(TokenLimit::of(&none, None).is_err());
        assert!(TokenLimit::of(&task(LlmKind::Generate), Some(0)).is_err());
    }

    #[test]
    fn what_no_server_could_answer_is_refused_with_its_reason() {
        let refuse = |task: LlmTask, request: LlmRequest| {
            asked(&task, request, &LlmPolicy::default(), None).map(|_| ()).expect_err("refused")
        };
        let of = |kind| task(kind);
        assert_eq!(refuse(of(LlmKind::Generate), prompt("")), "its prompt is empty");
        assert_eq!(refuse(of(LlmKind::Chat), prompt("p")), "its request is of another kind than its task");
        assert_eq!(refuse(of(LlmKind::Chat), LlmRequest::Chat { messages: Vec::new() }), "its conversation is empty");
        assert_eq!(refuse(of(LlmKind::Embed), LlmRequest::Embed { inputs: Vec::new() }), "it has no text to embed");
        let inputs = vec!["a".into(), String::new()];
        assert_eq!(refuse(of(LlmKind::Embed), LlmRequest::Embed { inputs }), "its text 1 is empty");
        let named = LlmTask { model: Text::cut("../etc\u{1b}"), ..of(LlmKind::Generate) };
        assert_eq!(refuse(named, prompt("p")), "`../etc\u{fffd}` is not the name of a model");
    }

    #[test]
    fn texts_are_embedded_in_batches_and_never_cut() {
        let inputs: Vec<String> = (0..EMBED_BATCH + 1).map(|number| format!("text {number}")).collect();
        let request = LlmRequest::Embed { inputs };
        let asked = asked(&task(LlmKind::Embed), request, &LlmPolicy::default(), None).expect("can be asked");
        let What::Vectors { batches } = &asked.what else { panic!("vectors were asked for") };
        assert_eq!(batches.iter().map(|batch| batch.inputs).collect::<Vec<_>>(), [EMBED_BATCH, 1]);
        assert_eq!(
            read(&batches[1].body),
            json!({"model": "m:1", "input": ["text 16"], "truncate": false, "options": {"num_ctx": 4096}})
        );
        assert_eq!(read(&asked.load)["input"], json!([]));
    }

    #[test]
    fn a_model_stays_as_long_as_its_owner_says_and_is_never_unloaded_before_it_is_asked() {
        for (kept, written, loaded) in [
            (Some(Span::ZERO), json!(0), json!("60s")),
            (Some(Span::from_millis(1)), json!("1s"), json!("60s")),
            (Some(Span::from_secs(3_600)), json!("3600s"), json!("3600s")),
            (Some(Span::MAX), json!(-1), json!(-1)),
            (None, Value::Null, Value::Null),
        ] {
            let policy = LlmPolicy { keep_alive: kept, ..LlmPolicy::default() };
            let asked = asked(&task(LlmKind::Generate), prompt("p"), &policy, None).expect("can be asked");
            assert_eq!((&text_body(&asked).0["keep_alive"], &read(&asked.load)["keep_alive"]), (&written, &loaded));
        }
    }

    #[test]
    fn names_of_models_lead_nowhere_else() {
        for good in ["smollm2:135m", "a", "user/model:tag", "hf.co/user/repo:Q4_0", "127.0.0.1:80/a/b"] {
            assert!(is_model_name(good), "{good}");
        }
        for bad in ["", "a b", "../a", "a/../b", "/a", "a//b", "http://h/a/b", "a/b/c/d", "a?b", "a#b", "a%2fb", "ä"] {
            assert!(!is_model_name(bad), "{bad}");
        }
    }
}

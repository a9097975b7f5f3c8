//! What a model server may do wrong, and whose fault it is.

use std::time::Duration;

use modchain_agent::executor::llm::{LlmExecutor, LlmPolicy, LlmSettings, Patience, URL_DEFAULT};
use modchain_types::{Ending, Fault, LlmRole, Span};

use crate::harness::{EXITED_0, NO_TIME, Question, executor, policy, until};
use crate::ollama;
use crate::scripted::{Reply, Scripted, Step, last, lines, loaded, status};

const A: &str = r#"{"response":"a","done":false}"#;
const B: &str = r#"{"response":"b","done":false}"#;

fn said(reply: Vec<Step>) -> Reply {
    (200, reply)
}

fn ordinary(url: &str) -> LlmExecutor {
    executor(url, LlmPolicy::default())
}

#[tokio::test]
async fn lines_and_characters_may_be_split_anywhere_and_joined_any_way() {
    let text = format!("{}\n{}\n\n{}\n", r#"{"response":"ü","done":false}"#, r#"{"response":"🌍\n"}"#, last(5, 2));
    let bytes = text.as_bytes();
    for chunk in [1, 2, 3, 7, bytes.len()] {
        let steps = bytes.chunks(chunk).map(|chunk| Step::Send(chunk.to_vec())).collect();
        let server = Scripted::loading_then(said(steps)).await;
        let story = Question::prompt("p").run(&ordinary(&server.url)).await;
        story.assert_answered();
        assert_eq!(story.pieces, ["ü", "🌍\n"], "in chunks of {chunk}");
        assert_eq!((story.usage.prompt_tokens, story.usage.output_tokens), (5, 2));
        assert_eq!(server.paths(), ["POST /api/generate", "POST /api/generate"]);
    }
    let unended = vec![Step::Send(format!("{A}\n{}", last(5, 2)).into_bytes())];
    let server = Scripted::loading_then(said(unended)).await;
    let story = Question::prompt("p").run(&ordinary(&server.url)).await;
    assert_eq!((story.ending(), story.out().as_str()), (&EXITED_0, "a\n"), "the last line may lack its end");
}

#[tokio::test]
async fn an_answer_without_its_last_record_is_the_node_s_fault() {
    let error = r#"{"error":"an error was encountered while running the model"}"#;
    let mut cut = lines(&[A, B]);
    cut.push(Step::Cut);
    let mut torn = lines(&[A, B]);
    torn.push(Step::Send(last(5, 2)[..20].into()));
    for (reply, expected) in [
        (lines(&[A, B]), "the answer of the model server broke off"),
        (cut, "the connection to the model server broke"),
        (torn, "does not make sense"),
        (lines(&[A, B, error, &last(5, 2)]), "the model server failed: an error was encountered"),
        (lines(&[A, B, "garbage", &last(5, 2)]), "does not make sense"),
    ] {
        let server = Scripted::loading_then(said(reply)).await;
        let story = Question::prompt("p").run(&ordinary(&server.url)).await;
        story.assert_node_fault(expected);
        assert_eq!(story.out(), "ab", "what came before is kept, and nothing is added to it");
        assert_eq!((story.usage.output_tokens, story.usage.prompt_tokens), (2, 0));
    }
    let server = Scripted::loading_then(said(Vec::new())).await;
    Question::prompt("p").run(&ordinary(&server.url)).await.assert_node_fault("broke off");
}

#[tokio::test]
async fn a_line_without_an_end_is_not_collected_for_ever() {
    let server = Scripted::loading_then(said(vec![Step::Flood(vec![b' '; 64 << 10])])).await;
    let story = Question::prompt("p").run(&ordinary(&server.url)).await;
    story.assert_node_fault("a line of more than 4194304 bytes");
    until("the server is let go", async || server.hung_up() == 1).await;
    for (reply, expected) in [
        (vec![(200, vec![Step::Flood(vec![b' '; 64 << 10])])], "an answer of more than"),
        (vec![status(404, "{}"), said(vec![Step::Flood(vec![b' '; 64 << 10])])], "a line of more than"),
        (vec![(500, vec![Step::Flood(vec![b' '; 64 << 10])])], "answered 500"),
    ] {
        let server = Scripted::answering(reply).await;
        let story = Question::prompt("p").run(&executor(&server.url, policy(&["*"]))).await;
        story.assert_cannot_start(Fault::Node, expected);
    }
}

#[tokio::test]
async fn a_server_that_refuses_says_whose_fault_it_is() {
    for (code, body, fault, expected) in [
        (400, r#"{"error":"\"m\" does not support generate"}"#, Fault::Job, "does not support generate"),
        (500, r#"{"error":"model requires more system memory"}"#, Fault::Node, "requires more system memory"),
        (500, r#"{"error":{}}"#, Fault::Node, "without words"),
        (503, r#"{"error":"server busy, please try again"}"#, Fault::Node, "server busy"),
        (401, "go away\u{1b}[2J", Fault::Node, "go away\u{fffd}[2J"),
        (302, "", Fault::Node, "answered 302"),
    ] {
        let server = Scripted::answering(vec![status(code, body)]).await;
        let story = Question::prompt("p").run(&ordinary(&server.url)).await;
        story.assert_cannot_start(fault, expected);
        assert!(story.ran_for_nothing());
        assert_eq!(server.paths().len(), 1, "nothing more was asked");
    }
    // After the start: nothing was made, so what is wrong with the request still costs nothing.
    let server =
        Scripted::loading_then(status(400, r#"{"error":"the input length exceeds the context length"}"#)).await;
    let story = Question::prompt("p").run(&ordinary(&server.url)).await;
    story.assert_cannot_start(Fault::Job, "exceeds the context length");
    assert!(story.started);
    let server = Scripted::loading_then(status(500, r#"{"error":"boom"}"#)).await;
    Question::prompt("p")
        .run(&ordinary(&server.url))
        .await
        .assert_node_fault("answered 500 Internal Server Error: boom");
    let server = Scripted::loading_then(status(404, r#"{"error":"model not found"}"#)).await;
    Question::prompt("p").run(&ordinary(&server.url)).await.assert_node_fault("model not found");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_waited_for_and_no_longer() {
    let wait = Duration::from_millis(200);
    let hasty = |server: &Scripted, patience| executor(&server.url, policy(&["*"])).with_patience(patience);
    let silent = || said(vec![Step::Hang]);
    let server = Scripted::answering(vec![silent()]).await;
    let story = Question::prompt("p").run(&hasty(&server, Patience { load: wait, ..Patience::default() })).await;
    story.assert_cannot_start(Fault::Node, "the model server said nothing");
    let server = Scripted::answering(vec![status(404, "{}"), silent()]).await;
    let story = Question::prompt("p").run(&hasty(&server, Patience { pull: wait, ..Patience::default() })).await;
    story.assert_cannot_start(Fault::Node, "cannot be pulled: the model server said nothing");
    let server = Scripted::loading_then(silent()).await;
    let story = Question::prompt("p").run(&hasty(&server, Patience { first: wait, ..Patience::default() })).await;
    story.assert_node_fault("said nothing");
    let mut stalls = lines(&[A]);
    stalls.push(Step::Hang);
    let server = Scripted::loading_then(said(stalls)).await;
    let story = Question::prompt("p").run(&hasty(&server, Patience { next: wait, ..Patience::default() })).await;
    story.assert_node_fault("said nothing");
    assert_eq!(story.out(), "a");
    until("the server is let go", async || server.hung_up() == 1).await;
}

#[tokio::test]
async fn a_server_that_is_away_is_the_node_s_fault_and_its_address_is_nobody_s_business() {
    // Taken, so that nobody else gets it, and not listened on.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let away = socket.local_addr().unwrap();
    let story = Question::prompt("p").run(&ordinary(&format!("http://{away}"))).await;
    story.assert_cannot_start(Fault::Node, "the model server cannot be reached: ");
    let Ending::CannotStart { message, .. } = story.ending() else { unreachable!("checked above") };
    assert!(!message.contains(&away.port().to_string()) && !message.contains("127.0.0.1"), "{message}");
}

#[tokio::test]
async fn a_pull_is_shown_and_then_the_question_is_asked() {
    const MIB: u64 = 1 << 20;
    let layer = |completed| {
        format!(r#"{{"status":"pulling a","digest":"sha256:a","total":{},"completed":{completed}}}"#, 91 * MIB)
    };
    let pull = said(lines(&[
        r#"{"status":"pulling manifest"}"#,
        &layer(45 * MIB),
        &layer(91 * MIB),
        r#"{"status":"verifying sha256 digest"}"#,
        r#"{"status":"success"}"#,
    ]));
    let not_found = status(404, r#"{"error":"model 'm:1' not found"}"#);
    let answer = said(lines(&[A, &last(5, 1)]));
    let server = Scripted::answering(vec![not_found, pull, loaded(), answer]).await;
    let story = Question::prompt("p").model("m:1").run(&executor(&server.url, policy(&["m:*"]))).await;
    story.assert_answered();
    assert_eq!(story.prepared.first().map(String::as_str), Some("loading m:1"));
    assert_eq!(story.prepared[1], "pulling m:1", "{:?}", story.prepared);
    assert_eq!(story.prepared.last().map(String::as_str), Some("loading m:1"));
    let seen = server.seen();
    assert_eq!(server.paths(), ["POST /api/generate", "POST /api/pull", "POST /api/generate", "POST /api/generate"]);
    assert_eq!(seen[1].1, serde_json::json!({"model": "m:1", "stream": true}));
    assert_eq!(seen[0].1["prompt"], "");
    assert_eq!(seen[3].1["prompt"], "p");
}

#[tokio::test]
async fn a_pull_that_fails_says_whether_there_is_such_a_model_at_all() {
    let unknown = r#"{"error":"pull model manifest: file does not exist"}"#;
    let away = r#"{"error":"pull model manifest: Get \"https://registry.example/v2\": dial tcp: no such host"}"#;
    let manifest = r#"{"status":"pulling manifest"}"#;
    for (pull, fault, expected) in [
        (said(lines(&[manifest, unknown])), Fault::NotFound, "there is no model m:1"),
        (said(lines(&[manifest, away])), Fault::Node, "the model m:1 cannot be pulled"),
        (said(lines(&[manifest])), Fault::Node, "stopped pulling"),
        (status(400, r#"{"error":"invalid model name"}"#), Fault::Job, "invalid model name"),
        (status(500, "boom"), Fault::Node, "boom"),
    ] {
        let server = Scripted::answering(vec![status(404, "{}"), pull]).await;
        let story = Question::prompt("p").model("m:1").run(&executor(&server.url, policy(&["*"]))).await;
        story.assert_cannot_start(fault, expected);
        assert!(story.ran_for_nothing());
        assert_eq!(server.paths(), ["POST /api/generate", "POST /api/pull"]);
    }
    let server = Scripted::answering(vec![status(404, "{}")]).await;
    let story = Question::prompt("p").model("10.0.0.1:80/a/b").run(&executor(&server.url, policy(&["*"]))).await;
    story.assert_cannot_start(Fault::Node, "its owner does not let it be pulled");
    assert_eq!(server.paths(), ["POST /api/generate"], "the server was not sent to another host");
}

#[tokio::test]
async fn a_bad_question_never_reaches_the_server() {
    let server = Scripted::answering(Vec::new()).await;
    let executor = ordinary(&server.url);
    let mut broken = Question::prompt("p");
    broken.request = b"{\"generate\":{}}".to_vec();
    let mut unknown_field = Question::prompt("p");
    unknown_field.request = br#"{"generate":{"prompt":"p","system":null,"context":[1]}}"#.to_vec();
    let mut huge = Question::prompt("p");
    huge.request = vec![b' '; (1 << 20) + 1];
    for (question, expected) in [
        (broken, "cannot be understood"),
        (unknown_field, "unknown field `context`"),
        (huge, "more than 1048576 bytes"),
        (Question::prompt(""), "prompt is empty"),
        (Question::prompt("p").model("a/../b"), "not the name of a model"),
        (Question::prompt("p").max_tokens(0), "no token at all"),
        (Question::chat(&[]), "conversation is empty"),
    ] {
        let story = question.run(&executor).await;
        story.assert_cannot_start(Fault::Job, expected);
        assert!(story.ran_for_nothing() && story.prepared.is_empty());
    }
    assert_eq!(server.paths(), [""; 0]);
}

#[tokio::test]
async fn loading_is_never_billed_even_if_it_comes_again() {
    let hour = 3_600_000_000_000u64;
    let line = format!(r#"{{"done":true,"done_reason":"stop","eval_count":1,"load_duration":{hour}}}"#);
    let server = Scripted::loading_then(said(lines(&[A, &line]))).await;
    let usage = Question::prompt("p").run(&ordinary(&server.url)).await.usage;
    assert_eq!((usage.ran, usage.first_token), (NO_TIME, NO_TIME), "all of it was loading");
    assert!(usage.load > Span::from_secs(3_600), "{usage:?}");
}

#[tokio::test]
async fn what_a_model_thinks_is_kept_apart_from_what_it_answers() {
    let answer = said(lines(&[
        r#"{"message":{"role":"assistant","content":"","thinking":"h"},"done":false}"#,
        r#"{"message":{"role":"assistant","content":"","thinking":"m"},"done":false}"#,
        r#"{"message":{"role":"assistant","content":"yes"},"done":false}"#,
        &last(9, 3),
    ]));
    let server = Scripted::loading_then(answer).await;
    let story = Question::chat(&[(LlmRole::User, "p")]).run(&ordinary(&server.url)).await;
    assert_eq!((story.ending(), story.out().as_str(), story.err.as_str()), (&EXITED_0, "yes\n", "hm\n"));
    assert_eq!(story.usage.output_tokens, 3);
    assert_eq!(server.paths(), ["POST /api/chat", "POST /api/chat"]);
}

#[tokio::test]
async fn a_long_piece_is_cut_into_pieces_that_fit_a_chunk_on_the_wire() {
    let text = "x".repeat(100_000);
    let line = format!(r#"{{"response":"{text}"}}"#);
    let server = Scripted::loading_then(said(lines(&[&line, &last(1, 1)]))).await;
    let story = Question::prompt("p").run(&ordinary(&server.url)).await;
    story.assert_answered();
    assert_eq!(story.out().trim_end(), text);
    assert!(story.pieces.iter().all(|piece| piece.len() <= 32 << 10));
}

#[tokio::test]
async fn vectors_that_were_made_before_a_bad_text_are_paid_and_a_wrong_number_of_them_is_not() {
    let texts: Vec<String> = (0..17).map(|number| format!("text {number}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let batch = format!(r#"{{"embeddings":[{}],"prompt_eval_count":32}}"#, vec!["[0.5]"; 16].join(","));
    let refusal = || status(400, r#"{"error":"input length exceeds maximum context length"}"#);
    let empty = || (200, lines(&[r#"{"embeddings":[]}"#]));

    let server = Scripted::answering(vec![empty(), (200, lines(&[&batch])), refusal()]).await;
    let story = Question::embed(&texts).run(&ordinary(&server.url)).await;
    assert_eq!((story.ending(), story.usage.prompt_tokens), (&Ending::Exited { code: 1 }, 32));
    assert_eq!(story.out().lines().count(), 16);
    assert!(story.err.starts_with("texts 16 to 16: ") && story.err.contains("maximum context length"), "{}", story.err);
    assert_eq!(server.paths(), ["POST /api/embed"; 3]);

    let server = Scripted::answering(vec![empty(), refusal()]).await;
    let story = Question::embed(&["text"]).run(&ordinary(&server.url)).await;
    story.assert_cannot_start(Fault::Job, "maximum context length");

    let server = Scripted::answering(vec![empty(), empty()]).await;
    let story = Question::embed(&["text"]).run(&ordinary(&server.url)).await;
    story.assert_node_fault("0 vectors for 1 texts");
}

#[tokio::test]
async fn a_real_server_that_dies_in_the_middle_of_an_answer_is_the_node_s_fault() {
    let Some(server) = ollama::own() else { return };
    let mut attempt = Question::story().start(&ordinary(server.url()));
    attempt.started().await;
    for _ in 0..3 {
        attempt.piece().await;
    }
    drop(server);
    let mut story = attempt.story().await;
    story.started = true;
    story.assert_node_fault("the model server");
    assert!(story.usage.output_tokens >= 3 && story.usage.prompt_tokens == 0, "{:?}", story.usage);
}

#[test]
fn only_a_plain_address_is_taken() {
    let new = |url: &str| LlmExecutor::new(LlmSettings { url: url.into(), policy: LlmPolicy::default() });
    assert!(new(URL_DEFAULT).is_ok());
    let error = new("https://user:secret@host/").expect_err("refused").to_string();
    assert_eq!(error, "`https://user:secret@host/` must be http://HOST[:PORT] and nothing more");
}

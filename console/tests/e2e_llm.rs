//! Questions to a real language model through the whole system: the three real programs and a real Ollama server.
#![allow(missing_docs, reason = "a test is documented by its name")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;
#[path = "../../agent/tests/support/ollama.rs"]
mod ollama;

use std::io::Read;
use std::process::{Child, Stdio};

use common::money::{adds_up, micro, unbilled};
use common::{Stack, eventually, signal};
use ollama::MODEL;
use serde_json::Value;

/// Only tokens cost something: a thousandth each that is made, a ten-thousandth each that is read.
const TOKENS_ONLY: &str = "[prices]\ncore_hour = \"0\"\ngib_hour = \"0\"\nminimum = \"0\"\n\
                           million_prompt_tokens = \"100\"\nmillion_output_tokens = \"1000\"\n";

/// A stack with a node for each of these model servers; `prices` begin the settings of the first.
fn stack_with(prices: &[&str], servers: &[&str]) -> Stack {
    let count = servers.len().to_string();
    let stack = Stack::start_with(|home, command| {
        let folder = home.path().join(".local/state/modchain/up");
        std::fs::create_dir_all(&folder).expect("a folder");
        for (index, (server, prices)) in servers.iter().zip(prices).enumerate() {
            let settings = format!("{prices}\n[llm]\nurl = \"{server}\"\n");
            std::fs::write(folder.join(format!("agent-{}.toml", index + 1)), settings).expect("writes");
        }
        command.args(["--agents", &count]);
    });
    eventually("every node holds the model", || {
        let quote = stack.run(&["quote", "-m", MODEL, "-p", "hi", "--max-cost", "1", "-o", "json"]);
        quote.code == Some(0) && quote.json()["offers"].as_array().map(Vec::len) == Some(servers.len())
    });
    stack
}

fn stack() -> Option<Stack> {
    Some(stack_with(&[TOKENS_ONLY], &[&ollama::shared()?]))
}

/// The line of a question.
fn ask<'a>(prompt: &'a str, flags: &[&'a str]) -> Vec<&'a str> {
    let cost: &[&str] = if flags.contains(&"--max-cost") { &[] } else { &["--max-cost", "5"] };
    [&["run", "-m", MODEL, "-p", prompt][..], cost, flags].concat()
}

/// Follows a long answer until this many bytes of it have come: more than so many tokens have been made by then.
fn follow_until(stack: &Stack, line: &[&str], bytes: usize) -> (Child, Vec<u8>) {
    let mut command = stack.home.command(line);
    let mut run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut begun = vec![0; bytes];
    if let Err(error) = run.stdout.as_mut().expect("is piped").read_exact(&mut begun) {
        panic!("{error}: {}", String::from_utf8_lossy(&run.wait_with_output().expect("ends").stderr));
    }
    (run, begun)
}

fn tokens(job: &Value, field: &str) -> u64 {
    job["usage"][field].as_u64().unwrap_or_else(|| panic!("no {field}: {job:#}"))
}

const LONG: &str = "Tell me a long story about a lighthouse and the sea.";

#[test]
fn an_answer_comes_token_by_token_and_is_paid_by_the_token() {
    let Some(stack) = stack() else { return };
    let line = ask(LONG, &["--max-tokens", "100", "--seed", "7", "--system", "You are a sailor.", "--name", "asks"]);
    let (run, begun) = follow_until(&stack, &line, 1);
    let done = run.wait_with_output().expect("ends");
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{said}");
    let answer = String::from_utf8([begun, done.stdout].concat()).expect("text");
    assert!(!answer.trim().is_empty() && stack.run(&["logs", "asks"]).expect(0).stdout == answer, "{answer}");
    // What comes at once is kept as one piece.
    let logs = stack.run(&["logs", "asks", "-o", "jsonl"]).expect(0).stdout;
    let documents = logs.lines().map(|line| serde_json::from_str::<Value>(line).expect("a document"));
    let pieces = documents.filter(|document| document["stream"] == "out").count();
    assert!(pieces > 1, "the first token came before the last: {logs}");
    for word in ["running on local-1", " tokens read, ", " made, ", " a second, the first after ", "(fee "] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let job = stack.job("asks");
    assert_eq!(
        (&job["type"], &job["model"], &job["what"]),
        (&"llm".into(), &MODEL.into(), &format!("{MODEL} generate").into())
    );
    let (read, made) = (tokens(&job, "prompt_tokens"), tokens(&job, "output_tokens"));
    assert!(read > 5 && (1..=100).contains(&made), "{job:#}");
    assert_eq!(micro(&job, "cost"), read * 100 + made * 1_000, "{job:#}");
    adds_up(&job);
    for field in ["load_ms", "first_token_ms", "generating_ms"] {
        assert!(tokens(&job, field) <= tokens(&job, "ran_ms") + tokens(&job, "load_ms"), "{field}: {job:#}");
    }
    assert!(job["usage"]["tokens_per_s"].as_f64().is_some_and(|speed| speed > 0.0), "{job:#}");
    let shown = stack.run(&["job", "asks"]).expect(0).stdout;
    assert!(shown.contains(&format!("\nmodel      {MODEL}\n")) && shown.contains("\ntokens     "), "{shown}");
    // The node looks at its server now and then.
    eventually("the quote says that it is in memory now", || {
        let quote = stack.run(&["quote", "-m", MODEL, "-p", "hi", "--max-cost", "1"]).expect(0).stdout;
        quote.contains("READ/M") && quote.contains("  1000.00  warm ")
    });
}

#[test]
fn a_cancelled_answer_stops_and_what_was_made_is_paid() {
    let Some(stack) = stack() else { return };
    let line = ask(LONG, &["--max-tokens", "2000", "--seed", "5", "--name", "long", "--cancel-on-interrupt"]);
    // No token of this model has more than some ten letters, most have four.
    let (run, _) = follow_until(&stack, &line, 60);
    signal(&run, "INT");
    let done = run.wait_with_output().expect("ends");
    assert_eq!(done.status.code(), Some(143), "{}", String::from_utf8_lossy(&done.stderr));
    let job = stack.job("long");
    assert_eq!((&job["state"], &job["reason"]), (&"cancelled".into(), &"cancelled".into()), "{job:#}");
    let made = tokens(&job, "output_tokens");
    assert!((5..2_000).contains(&made), "{job:#}");
    assert!(micro(&job, "cost") >= made * 1_000, "{job:#}");
    adds_up(&job);
    // The server is free again: the next answer does not wait for the rest of this one.
    stack.run(&ask("Say yes.", &["--max-tokens", "3"])).expect(0);
}

#[test]
fn what_the_hold_pays_for_ends_an_answer() {
    let Some(stack) = stack() else { return };
    let job = stack.run(&ask(LONG, &["--max-cost", "0.012", "--seed", "5", "-o", "json"])).expect(124).json();
    assert_eq!((&job["state"], &job["reason"]), (&"timed_out".into(), &"budget".into()), "{job:#}");
    assert!(tokens(&job, "output_tokens") <= 12 && micro(&job, "cost") <= 12_000, "{job:#}");
    adds_up(&job);
    // Tokens that were asked for are no budget.
    let short = stack.run(&ask(LONG, &["--max-tokens", "3", "-o", "json"])).expect(0).json();
    assert_eq!(tokens(&short, "output_tokens"), 3);
}

#[test]
fn a_server_that_is_killed_in_mid_answer_costs_nobody_anything() {
    let Some(server) = ollama::own() else { return };
    let stack = stack_with(&[TOKENS_ONLY], &[server.url()]);
    let line = ask(LONG, &["--max-tokens", "2000", "--seed", "5", "--retries", "0", "--name", "dies"]);
    let (run, _) = follow_until(&stack, &line, 40);
    drop(server);
    let done = run.wait_with_output().expect("ends");
    assert_eq!(done.status.code(), Some(125), "{}", String::from_utf8_lossy(&done.stderr));
    let job = stack.job("dies");
    assert_eq!((&job["state"], &job["exit"]["from"]), (&"failed".into(), &"node".into()), "{job:#}");
    assert_eq!(job["attempts"][0]["reason"], "node_fault", "{job:#}");
    unbilled(&job);
    eventually("the node offers no models any more", || {
        !stack.node()["types"].as_array().expect("kinds").iter().any(|kind| kind == "llm")
    });
    let refused = stack.run(&ask("hi", &["--no-queue"])).expect(126);
    assert!(refused.stderr.contains("it does not run llm jobs"), "{refused:#?}");
}

#[test]
fn another_node_answers_from_the_beginning_and_is_paid_alone() {
    let Some(first) = ollama::own() else { return };
    let Some(second) = ollama::shared() else { return };
    // The same, and a core costs something on the second node: the first one is asked first.
    let dearer = TOKENS_ONLY.replace("core_hour = \"0\"", "core_hour = \"0.01\"");
    let stack = stack_with(&[TOKENS_ONLY, &dearer], &[first.url(), &second]);
    let line = ask(LONG, &["--max-tokens", "240", "--seed", "5", "--name", "moves"]);
    let (run, begun) = follow_until(&stack, &line, 40);
    drop(first);
    let done = run.wait_with_output().expect("ends");
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{said}");
    let marked = "attempt 1 on local-1 ended (node_fault) and is not paid; the job is queued again";
    assert!(said.contains(marked) && said.contains("running on local-2") && said.contains(", attempt 2"), "{said}");
    let job = stack.job("moves");
    assert_eq!((job["attempts"].as_array().map(Vec::len), &job["node"]), (Some(2), &"local-2".into()), "{job:#}");
    assert!((1..=240).contains(&tokens(&job, "output_tokens")), "{job:#}");
    let tokens_cost = tokens(&job, "prompt_tokens") * 100 + tokens(&job, "output_tokens") * 1_000;
    // Time on the second node is a tenth of a core for a cent an hour.
    assert!((tokens_cost..tokens_cost + 1_000).contains(&micro(&job, "cost")), "{job:#}");
    adds_up(&job);
    let logs = stack.run(&["logs", "moves", "-o", "jsonl"]).expect(0).stdout;
    let attempts: Vec<u64> = logs
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a document"))
        .filter(|document| document["stream"] == "out")
        .filter_map(|document| document["attempt"].as_u64())
        .collect();
    assert!(attempts.contains(&1) && attempts.contains(&2) && attempts.is_sorted(), "{logs}");
    assert!(!begun.is_empty());
}

#[test]
fn a_conversation_is_kept_in_a_file_and_a_failure_leaves_it_as_it_was() {
    let Some(stack) = stack() else { return };
    let chat = stack.home.path().join("chat.json");
    let path = chat.display().to_string();
    let messages = || -> Vec<Value> { serde_json::from_slice(&std::fs::read(&chat).expect("reads")).expect("a list") };
    let talk = |prompt, flags: &[&str]| {
        let flags = [&["--history", &path, "--max-tokens", "12", "--seed", "7"][..], flags].concat();
        stack.run(&ask(prompt, &flags))
    };
    let refused = talk("hi", &["-d"]).expect(2);
    assert!(refused.stderr.contains("--detach") && !chat.exists(), "{refused:#?}");
    let first = talk("My name is Ada.", &["--system", "Be brief."]).expect(0);
    let roles = |messages: &[Value]| -> Vec<String> {
        messages.iter().map(|message| message["role"].as_str().expect("a role").to_owned()).collect()
    };
    assert_eq!(roles(&messages()), ["system", "user", "assistant"]);
    assert_eq!(messages()[2]["content"], first.stdout.strip_suffix('\n').unwrap_or(&first.stdout));
    talk("And yours?", &[]).expect(0);
    assert_eq!(roles(&messages()), ["system", "user", "assistant", "user", "assistant"]);
    let job = stack.job("@last");
    assert_eq!(job["what"], format!("{MODEL} chat"));
    let before = messages();
    let failed =
        stack.run(&["run", "-m", "no-such-model", "-p", "hi", "--history", &path, "--max-cost", "1", "--no-queue"]);
    failed.expect(126);
    let poor = talk("hi", &["--max-cost", "0.002"]).expect(124);
    assert!(poor.stderr.contains("chat.json is as it was"), "{poor:#?}");
    assert_eq!(messages(), before);
}

#[test]
fn texts_become_vectors_and_answers_become_json() {
    let Some(stack) = stack() else { return };
    let embed = ["run", "-m", MODEL, "--embed", "the sea", "--embed", "a lighthouse", "--max-cost", "1"];
    let vectors = stack.run(&embed).expect(0);
    let vectors: Vec<Value> = vectors.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((vectors.len(), &vectors[1]["index"]), (2, &1.into()));
    let length = |vector: &Value| vector["embedding"].as_array().map(Vec::len).expect("a vector");
    assert!(length(&vectors[0]) > 100 && length(&vectors[0]) == length(&vectors[1]));
    let job = stack.job("@last");
    assert_eq!((&job["usage"]["tokens_per_s"], tokens(&job, "output_tokens")), (&Value::Null, 0), "{job:#}");
    assert_eq!(micro(&job, "cost"), tokens(&job, "prompt_tokens") * 100, "{job:#}");
    adds_up(&job);
    // The prompt comes from standard input.
    let line = ask("-", &["--json", "--temperature", "0", "--seed", "7", "--max-tokens", "200"]);
    let input = "Answer with a JSON object that has one key, colour, and a short value.";
    let answer = stack.home.run_with_input(&line, input.as_bytes()).expect(0);
    let answer: Value = serde_json::from_str(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {answer:#?}"));
    assert!(answer.is_object(), "{answer:#}");
}

#[test]
fn a_model_that_no_node_has_is_refused_with_the_reason() {
    let Some(stack) = stack() else { return };
    let line = ["run", "-m", "no-such-model", "-p", "hi", "--max-cost", "1"];
    let why = "it does not hold the model no-such-model:latest, and its owner does not let it be pulled";
    let refused = stack.run(&[&line[..], &["--no-queue"]].concat()).expect(126);
    assert!(refused.stderr.contains(why), "{refused:#?}");
    let waited = stack.run(&[&line[..], &["--start-by", "15s"]].concat()).expect(126);
    assert!(waited.stderr.contains(why) && waited.stdout.is_empty(), "{waited:#?}");
    let job = stack.job("@last");
    assert_eq!((&job["state"], &job["exit"]["from"]), (&"expired".into(), &"modchain".into()));
    unbilled(&job);
    let quote = stack.run(&["quote", "-m", "no-such-model", "-p", "hi", "--max-cost", "1"]).expect(6);
    assert!(quote.stdout.contains(why), "{quote:#?}");
}

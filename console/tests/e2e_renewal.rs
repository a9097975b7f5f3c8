//! Certificates of nodes are renewed while their jobs stream output, and nobody notices.
//!
//! `RENEWALS=200 cargo test -p modchain --test e2e_renewal -- --nocapture` is the long run.
#![allow(missing_docs, reason = "a test is documented by its name")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

use common::Home;
use common::pool::{Pool, certs, token};

/// Renewals in the test command.
const RENEWALS: u64 = 12;
/// How often each node renews, about: more renewals take more nodes, and no longer.
const RENEWALS_OF_A_NODE: u64 = 10;
/// Nodes at least.
const NODES_MIN: u64 = 4;
/// Life of the certificates: the shortest that there is. A renewal comes after 6 to 7.2 s of it.
const LIFE: &str = "10s";
/// Longest time between two renewals of one node, in milliseconds, with room for a busy machine.
const RENEWAL_MS: u64 = 9_000;
/// Bytes of each piece of output.
const PIECE_BYTES: usize = 1024;
/// Time between two pieces, in milliseconds.
const PIECE_MS: u64 = 10;

/// The number of the piece, and dots.
fn piece(number: u64) -> String {
    format!("{number:08}{}", ".".repeat(PIECE_BYTES - 8))
}

/// A module that prints this many pieces, one every 10 ms.
fn module(pieces: u64) -> String {
    let dots = ".".repeat(PIECE_BYTES);
    let nanos: String = (PIECE_MS * 1_000_000).to_le_bytes().iter().map(|byte| format!("\\{byte:02x}")).collect();
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\00\08\00\00\00\04\00\00")
  (data (i32.const 80) "\01\00\00\00")
  (data (i32.const 88) "{nanos}")
  (data (i32.const 2048) "{dots}")
  (func (export "_start") (local $piece i32) (local $rest i32) (local $digit i32)
    (loop $next
      (local.set $rest (local.get $piece))
      (local.set $digit (i32.const 8))
      (loop $digits
        (local.set $digit (i32.sub (local.get $digit) (i32.const 1)))
        (i32.store8 (i32.add (i32.const 2048) (local.get $digit))
          (i32.add (i32.const 48) (i32.rem_u (local.get $rest) (i32.const 10))))
        (local.set $rest (i32.div_u (local.get $rest) (i32.const 10)))
        (br_if $digits (local.get $digit)))
      (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))
        (then (call $proc_exit (i32.const 1))))
      (local.set $piece (i32.add (local.get $piece) (i32.const 1)))
      (if (i32.lt_u (local.get $piece) (i32.const {pieces}))
        (then
          (if (call $poll_oneoff (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 12))
            (then (call $proc_exit (i32.const 1))))
          (br $next))))))
"#
    )
}

/// A node that has joined and runs.
fn node(pool: &Pool, alice: &Home, name: &str) -> (Home, common::pool::Running) {
    let home = Home::new();
    pool.agent_join(&home, &token(alice, &["--role", "node", "--name", name])).expect(0);
    let running = Pool::agent_start(&home, "agent.log");
    (home, running)
}

/// Said where a machine was too busy to look at the clock for a second or two, which is much of so short a life.
const LATE: &str = "should have been renewed long ago";

fn warnings(home: &Home) -> Vec<String> {
    let log = std::fs::read_to_string(home.path().join("agent.log")).expect("reads");
    let worries = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR"));
    worries.filter(|line| !line.contains(LATE)).map(str::to_owned).collect()
}

#[test]
fn renewals_interrupt_no_job_and_lose_no_byte_of_its_output() {
    let wanted = std::env::var("RENEWALS").ok().map_or(RENEWALS, |text| text.parse().expect("a number"));
    let nodes = wanted.div_ceil(RENEWALS_OF_A_NODE).max(NODES_MIN);
    let pieces = wanted.div_ceil(nodes) * RENEWAL_MS / PIECE_MS;

    let pool = Pool::start(&["--cert-life", LIFE]);
    let operator = pool.operator();
    let (alice, _) = pool.person(&token(&operator, &["--role", "client", "--name", "alice"]));
    operator.run(&["credit", "alice", "50.00"]).expect(0);
    let names: Vec<String> = (1..=nodes).map(|number| format!("rig-{number}")).collect();
    let running: Vec<_> = names.iter().map(|name| node(&pool, &alice, name)).collect();

    let path = alice.path().join("pieces.wat");
    std::fs::write(&path, module(pieces)).expect("writes");
    let file = path.to_str().expect("utf-8");
    let submit = |name: &String| {
        let line = ["run", "-d", "-q", "--wasm", file, "--node", name, "--cpus", "0.1", "--max-cost", "0.50"];
        alice.run(&line).expect(0).stdout.trim_end().to_owned()
    };
    let jobs: Vec<String> = names.iter().map(submit).collect();
    let expected: String = (0..pieces).map(piece).collect();
    for id in &jobs {
        alice.run(&["wait", id]).expect(0);
        let job = alice.run(&["job", id, "-o", "json"]).expect(0).json();
        assert_eq!(job["state"], "completed", "{job:#}");
        assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "it was interrupted: {job:#}");
        let output = alice.run(&["logs", id]).expect(0).stdout;
        assert!(output == expected, "{} bytes came of {}", output.len(), expected.len());
    }
    let of_nodes = |cert: &serde_json::Value| cert["identity"]["role"] == "node";
    // Alice's own certificate is renewed by the commands that wait for her jobs; the operator's has ended meanwhile.
    let renewals: u64 =
        certs(&alice).iter().filter(|cert| of_nodes(cert)).filter_map(|cert| cert["renewals"].as_u64()).sum();
    println!("renewals under load: {renewals} of {nodes} nodes, {} bytes of output each, none lost", expected.len());
    assert!(renewals >= wanted, "{renewals} renewals of {wanted}");
    for (home, _) in &running {
        assert_eq!(warnings(home), Vec::<String>::new(), "nothing was worth a warning");
    }
}

//! From nothing to a paid job and out again with the real programs: tokens, joining, renewing, revoking.
#![allow(missing_docs, reason = "a test is documented by its name")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use common::pool::{Pool, Running, cert, certs, error, token};
use common::{Done, Home, eventually};
use modchain_certs::{Credentials, JoinToken, RootPin};
use modchain_types::Role;
use serde_json::Value;

/// Whether the agent with this log was told that it is revoked.
fn refused_as_revoked(home: &Home, log: &str) -> bool {
    let log = std::fs::read_to_string(home.path().join(log)).expect("reads");
    log.lines().any(|line| line.contains("ERROR") && line.contains("certificate was revoked"))
}

#[test]
fn five_commands_lead_from_nothing_to_a_paid_job_and_one_more_puts_the_node_out() {
    let pool = Pool::start(&[]);
    let (operator, joined) = pool.person(&pool.operator_token);
    assert_eq!((&joined["role"], &joined["pool"]), (&"operator".into(), &"lab".into()));
    let (alice, joined) = pool.person(&token(&operator, &["--role", "client", "--name", "alice"]));
    assert_eq!(
        (&joined["name"], &joined["account"], &joined["context"]),
        (&"alice".into(), &"alice".into(), &"alice".into())
    );
    operator.run(&["credit", "alice", "5.00", "--reason", "welcome"]).expect(0);

    let rig = Home::new();
    let node_token = token(&alice, &["--role", "node", "--name", "rig-1"]);
    pool.agent_join(&rig, &node_token).expect(0);
    let agent = Pool::agent_start(&rig, "first.log");
    eventually("the node is ready", || {
        let nodes = alice.run(&["nodes", "-o", "json"]).expect(0).json();
        nodes["items"].as_array().expect("items").iter().any(|n| n["name"] == "rig-1" && n["state"] == "ready")
    });
    let job = alice.run(&["run", "--wasm", "hello.wat", "--max-cost", "0.10", "-o", "json"]).expect(0).json();
    assert_eq!((&job["state"], &job["node"]), (&"completed".into(), &"rig-1".into()), "{job:#}");

    let node = cert(&operator, "node", "rig-1");
    assert_eq!((&node["identity"]["account"], &node["state"]), (&"alice".into(), &"active".into()), "{node:#}");
    assert!(node["connections"].as_u64() >= Some(1) && node["used"] == true, "{node:#}");
    let own: Vec<Value> = certs(&alice);
    assert!(own.iter().all(|cert| cert["identity"]["account"] == "alice") && own.len() == 2, "{own:#?}");

    alice.run(&["cert", "revoke", "node/rig-1", "-y"]).expect(4);
    let gone = operator.run(&["cert", "revoke", "node/rig-1", "--reason", "sold", "-y", "-o", "json"]).expect(0).json();
    assert_eq!(
        (&gone["schema"], &gone["state"], &gone["reason"]),
        (&"modchain.revoked/v1".into(), &"revoked".into(), &"sold".into())
    );
    assert!(gone["connections_closed"].as_u64() >= Some(1), "{gone:#}");
    println!("revoked in {} ms", gone["took_ms"]);
    eventually("the agent hears why", || refused_as_revoked(&rig, "first.log"));
    drop(agent);
    let _again = Pool::agent_start(&rig, "second.log");
    eventually("a new start is kept out", || refused_as_revoked(&rig, "second.log"));
    let node = cert(&operator, "node", "rig-1");
    assert_eq!((&node["state"], &node["connections"]), (&"revoked".into(), &0.into()), "{node:#}");
    operator.run(&["cert", "revoke", "node/nobody", "-y"]).expect(3);
}

#[test]
fn each_token_that_cannot_be_used_has_its_own_sentence_and_exit_code() {
    let pool = Pool::start(&[]);
    let operator = pool.operator();
    let client = || token(&operator, &["--role", "client"]);
    let nobody = Home::new();
    let mut said = Vec::new();
    let mut refused = |what: &str, done: Done, exit: i32, code: &str| {
        let error = error(&done.expect(exit));
        assert_eq!(error["code"], code, "{what}: {error:#}");
        assert!(error["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{what}: says what next: {error:#}");
        said.push(error["message"].as_str().expect("a message").to_owned());
    };

    let mut mistyped = client().into_bytes();
    mistyped[80] = if mistyped[80] == b'a' { b'b' } else { b'a' };
    let mistyped = String::from_utf8(mistyped).expect("text");
    refused("mistyped", pool.join(&nobody, &mistyped), 2, "token_invalid");

    let node = token(&operator, &["--role", "node"]);
    refused("for a node", pool.join(&nobody, &node), 2, "usage");
    assert_eq!(pool.agent_join(&nobody, &client()).code, Some(2), "and the other way round");

    let used = client();
    pool.join(&Home::new(), &used).expect(0);
    refused("used", pool.join(&nobody, &used), 4, "token_used");
    let alarmed = operator.run(&["token", "list", "--all", "-o", "json"]).expect(0).json();
    let of_used = |token: &&Value| token["id"] == used[60..68];
    let alarmed = alarmed["items"].as_array().expect("items").iter().find(of_used).expect("listed").clone();
    assert!(alarmed["alarms"].as_array().is_some_and(|alarms| !alarms.is_empty()), "{alarmed:#}");

    let expired = token(&operator, &["--role", "client", "--ttl", "1s"]);
    eventually("the token expires", || {
        let listed = operator.run(&["token", "list", "--all", "-o", "jsonl"]).expect(0).stdout;
        listed.lines().any(|line| line.contains(&expired[60..68]) && line.contains("\"expired\""))
    });
    refused("expired", pool.join(&nobody, &expired), 4, "token_expired");

    let revoked = client();
    operator.run(&["token", "revoke", &revoked[60..68]]).expect(0);
    refused("revoked", pool.join(&nobody, &revoked), 4, "token_revoked");

    let unknown = unknown_token(&operator);
    refused("unknown", pool.join(&nobody, &unknown), 4, "token_unknown");

    let elsewhere = Pool::start(&[]);
    refused("another pool's", pool.join(&nobody, &elsewhere.operator_token), 5, "untrusted");

    said.sort_unstable();
    let count = said.len();
    said.dedup();
    assert_eq!(said.len(), count, "each has its own sentence: {said:#?}");
    nobody.run(&["context", "show"]).expect(4);

    let (alice, _) = pool.person(&client());
    let denied = alice.run(&["token", "create", "--role", "client", "-o", "json"]).expect(4);
    assert_eq!(error(&denied)["code"], "not_allowed");

    // What the operator calls the pool is said by it, and known here since the join.
    for (line, place) in [(&["whoami"][..], ""), (&["context", "show"], ""), (&["version", "--server"], "/server")] {
        let line = [line, &["-o", "json"]].concat();
        let told = alice.run(&line).expect(0).json();
        assert_eq!(told.pointer(&format!("{place}/pool")), Some(&"lab".into()), "{line:?}: {told:#}");
    }
}

/// One that is sound and for this pool, and that nobody made.
fn unknown_token(operator: &Home) -> String {
    let shown = operator.run(&["context", "show", "-o", "json"]).expect(0).json();
    let folder = PathBuf::from(shown["identity"].as_str().expect("a path"));
    let credentials = Credentials::load(&folder).unwrap_or_else(|error| panic!("{error}"));
    let pin = RootPin::of_root(credentials.root()).expect("a root");
    JoinToken::generate(Role::Client, pin).expect("a role that joins").text().to_string()
}

#[test]
fn certificates_are_renewed_by_commands_and_by_one_that_only_listens_and_nothing_notices() {
    // Renewed after twelve to fifteen seconds: a busy machine has a few more before the end.
    let pool = Pool::start(&["--cert-life", "20s"]);
    let operator = pool.operator();
    let (alice, joined) = pool.person(&token(&operator, &["--role", "client", "--name", "alice"]));
    let folder = joined["identity"].as_str().expect("a path").to_owned();
    let serial = |folder: &str| Credentials::load(Path::new(folder)).map(|c| c.identity().serial).ok();
    let first = serial(&folder);
    let mut listening = alice.command(&["events", "-f", "-o", "jsonl"]);
    let mut listening = Running(listening.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts"));
    eventually("whoever only listens renews", || serial(&folder) != first);
    let second = serial(&folder);
    eventually("and renews again", || serial(&folder) != second);
    assert!(listening.0.try_wait().expect("waits").is_none(), "and goes on listening");
    let who = alice.run(&["whoami", "-o", "json"]).expect(0).json();
    assert!(who["renewals"].as_u64() >= Some(2), "{who:#}");
    assert!(who["renews_at"].as_str() < who["expires_at"].as_str(), "times in one form sort as they are: {who:#}");
}

#[test]
fn who_was_away_for_too_long_joins_again_as_the_same_member() {
    let pool = Pool::start(&["--cert-life", "10s"]);
    let operator = pool.operator();
    let (alice, before) = pool.person(&token(&operator, &["--role", "client", "--name", "alice"]));
    let id = alice.run(&["whoami", "-o", "json"]).expect(0).json()["id"].clone();
    let folder = PathBuf::from(before["identity"].as_str().expect("a path"));
    let ends = Credentials::load(&folder).unwrap_or_else(|error| panic!("{error}")).identity().not_after;
    // Only the operator goes on, and so stays in. TLS counts whole seconds.
    eventually("the certificate ends", || {
        operator.run(&["whoami"]).expect(0);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis();
        i64::try_from(now).expect("fits") > ends.0 + 1_000
    });
    assert_eq!(cert(&operator, "client", "alice")["state"], "expired");
    let late = alice.run(&["status", "-o", "json"]).expect(4);
    assert_eq!(error(&late)["code"], "certificate_expired", "{late:#?}");
    let again = token(&operator, &["--role", "client", "--name", "alice", "--rejoin"]);
    let after = pool.join(&alice, &again).expect(0).json();
    for field in ["name", "account", "context", "identity", "trust_domain"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!(alice.run(&["whoami", "-o", "json"]).expect(0).json()["id"], id);
}

//! Joining, renewing, tokens and revocations against an orchestrator that loses answers, refuses, and stands still when it is
//! told to.
#![allow(missing_docs, reason = "a test is documented by its name")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;
mod fake;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Done, Home, eventually};
use fake::{Fake, Joins, Renews, id_of, serial_in};
use modchain_types::Role;
use modchain_wire::join::JoinRefusal;

/// Life of certificates that are due to be renewed.
const LIFE: Duration = Duration::from_secs(1000);
/// Past the latest moment at which they are renewed, and before anybody has to worry.
const DUE: Duration = Duration::from_secs(750);
/// Where it is time to worry.
const LATE: Duration = Duration::from_secs(900);

/// Runs `join` with this token.
fn join(home: &Home, fake: &Fake, token: &str, more: &[&str]) -> Done {
    let address = fake.join.to_string();
    let line = [&["join", "--orchestrator", &address, "--token-file", "-"][..], more].concat();
    home.run_with_input(&line, token.as_bytes())
}

/// Gives commands until the certificate in the folder is another one: each waits only so long for its renewal.
fn until_renewed(home: &Home, folder: &Path, before: &str) {
    eventually("it is renewed", || {
        let is_renewed = serial_in(folder) != before;
        if !is_renewed {
            home.run(&["whoami"]).expect(0);
        }
        is_renewed
    });
}

/// A home with one context for an identity that lies elsewhere.
fn member(fake: &Fake, role: Role, life: Duration, ago: Duration) -> (Home, PathBuf) {
    let home = Home::new();
    let folder = fake.identity(role, life, ago);
    let (address, join) = (fake.main.to_string(), fake.join.to_string());
    let identity = folder.display().to_string();
    home.run(&["context", "add", "lab", "--orchestrator", &address, "--join", &join, "--identity", &identity])
        .expect(0);
    (home, folder)
}

#[test]
fn a_token_becomes_an_identity_a_context_and_the_current_one_and_logging_out_wipes_it() {
    let (home, fake) = (Home::new(), Fake::start());
    let done = join(&home, &fake, &fake.token(Role::Client).text(), &["-o", "json"]).expect(0);
    assert!(done.stderr.is_empty(), "{done:#?}");
    let joined = done.json();
    for (field, value) in [
        ("schema", "modchain.joined/v1"),
        ("name", "alice"),
        ("role", "client"),
        ("account", "alice"),
        ("pool", "lab"),
        ("context", "alice"),
        ("orchestrator", &fake.main.to_string()),
    ] {
        assert_eq!(joined[field], value, "{joined:#}");
    }
    let folder = PathBuf::from(joined["identity"].as_str().expect("a path"));
    assert_eq!(folder, home.path().join(".local/share/modchain/identities/alice"));
    let who = home.run(&["whoami", "-o", "json"]).expect(0).json();
    assert_eq!((&who["name"], &who["context"], &who["renewals"]), (&"alice".into(), &"alice".into(), &3.into()));
    assert_eq!((&who["expires_at"], &who["renews_at"]), (&joined["expires_at"], &joined["renews_at"]));
    assert_eq!((&who["serial"], &who["trust_domain"]), (&serial_in(&folder).into(), &joined["trust_domain"]));
    let context = home.run(&["context", "show", "-o", "json"]).expect(0).json();
    assert_eq!((&context["join"], &context["role"]), (&fake.join.to_string().into(), &"client".into()));
    assert_eq!(context["expires_at"], joined["expires_at"]);

    home.run(&["logout"]).expect(2);
    assert!(folder.exists(), "nothing is wiped without a yes");
    let out = home.run(&["logout", "-y"]).expect(0);
    assert!(out.stderr.contains("modchain cert revoke client/alice") && !folder.exists(), "{out:#?}");
    home.run(&["whoami"]).expect(4);
}

#[test]
fn a_lost_answer_is_asked_for_again_with_the_same_key_by_itself_and_by_the_same_command() {
    let (home, fake) = (Home::new(), Fake::start());
    let token = fake.token(Role::Client).text();
    // The command tries three times; the fourth try is another command.
    *fake.state.joins.lock().expect("lock") = vec![Joins::Vanish; 3];
    let lost = join(&home, &fake, &token, &[]).expect(5);
    assert!(lost.stderr.contains("give the same command again"), "{lost:#?}");
    join(&home, &fake, &token, &[]).expect(0);
    let keys = fake.state.keys.lock().expect("lock").clone();
    assert_eq!(keys, [keys[0]; 4], "one key all along");
    // Once more is harmless too, and needs nobody.
    let again = join(&home, &fake, &token, &["-o", "json"]).expect(0).json();
    assert_eq!((&again["context"], again["name"].as_str()), (&"alice".into(), Some("alice")));
    assert_eq!(fake.state.keys.lock().expect("lock").len(), 4, "nobody was asked");
    assert_eq!(home.run(&["context", "list", "-o", "name"]).expect(0).stdout, "alice\n");
}

#[test]
fn each_refusal_has_its_own_code_and_exit_code_and_nothing_is_left_of_it() {
    let (home, fake) = (Home::new(), Fake::start());
    for code in JoinRefusal::ALL {
        let exit = match code {
            JoinRefusal::RoleMismatch => 2,
            JoinRefusal::Version | JoinRefusal::Busy => 5,
            JoinRefusal::BadRequest | JoinRefusal::Internal => 1,
            _ => 4,
        };
        *fake.state.joins.lock().expect("lock") = vec![Joins::Refuse(code)];
        let done = join(&home, &fake, &fake.token(Role::Client).text(), &["-o", "json"]).expect(exit);
        let error: serde_json::Value = serde_json::from_str(&done.stderr).expect("one document");
        assert_eq!((&error["code"], &error["exit"]), (&code.word().into(), &exit.into()), "{error:#}");
        assert_eq!(
            (&error["message"], &error["hint"]),
            (&format!("refused with {}", code.word()).into(), &"what next".into())
        );
        let waiting = std::fs::read_dir(home.path().join(".local/share/modchain/identities")).expect("lists").count();
        assert_eq!(
            waiting > 0,
            code.retryable(),
            "{code:?}: a key that may still be certified is kept, another is not"
        );
        std::fs::remove_dir_all(home.path().join(".local/share/modchain/identities")).expect("removes");
    }
    for (off, word) in [(700_000, "slow"), (-700_000, "fast")] {
        *fake.state.joins.lock().expect("lock") = vec![Joins::Clock(off)];
        let done = join(&home, &fake, &fake.token(Role::Client).text(), &[]).expect(4);
        assert!(done.stderr.contains(word) && done.stderr.contains("set the clock"), "{done:#?}");
    }
    home.run(&["context", "show"]).expect(4);
}

#[test]
fn the_wrong_orchestrator_and_the_wrong_port_are_told_apart_and_get_nothing() {
    let (home, fake, other) = (Home::new(), Fake::start(), Fake::start());
    let done = join(&home, &other, &fake.token(Role::Operator).text(), &["-o", "json"]).expect(5);
    let error: serde_json::Value = serde_json::from_str(&done.stderr).expect("one document");
    assert_eq!(error["code"], "untrusted", "{error:#}");
    assert!(other.state.keys.lock().expect("lock").is_empty());
    let main = fake.main.to_string();
    let token = fake.token(Role::Operator).text();
    let done = home.run_with_input(&["join", "--orchestrator", &main, "--token-file", "-"], token.as_bytes()).expect(5);
    assert!(done.stderr.contains("main port") && done.stderr.contains("7444"), "{done:#?}");
}

#[test]
fn names_that_are_taken_by_another_pool_get_the_pools_name_before_them() {
    let (home, lab, other) = (Home::new(), Fake::start(), Fake::start());
    let context = |fake: &Fake, more: &[&str]| {
        let line = [&["-o", "json"][..], more].concat();
        join(&home, fake, &fake.token(Role::Client).text(), &line).expect(0).json()["context"].clone()
    };
    assert_eq!(context(&lab, &[]), "alice");
    assert_eq!(context(&other, &[]), "lab-alice");
    assert_eq!(context(&lab, &[]), "alice", "who joins again keeps the name");
    assert_eq!(context(&lab, &["-c", "mine"]), "mine");
    let taken = join(&home, &other, &other.token(Role::Client).text(), &["-c", "mine"]).expect(7);
    assert!(taken.stderr.contains("for another pool"), "{taken:#?}");
    assert_eq!(other.state.keys.lock().expect("lock").len(), 1, "refused before anything was sent");
    lab.call_them("bob");
    assert_eq!(context(&lab, &[]), "bob");
    assert_eq!(home.run(&["context", "list", "-o", "name"]).expect(0).stdout, "alice\nbob\nlab-alice\nmine\n");
}

#[test]
fn a_certificate_that_is_due_is_renewed_beside_the_command() {
    let fake = Fake::start();
    let (home, folder) = member(&fake, Role::Client, LIFE, DUE);
    let before = serial_in(&folder);
    let who = home.run(&["whoami", "-o", "json"]).expect(0).json();
    assert_eq!(who["serial"], before.as_str(), "the connection was made with the old one");
    until_renewed(&home, &folder, &before);
    let after = serial_in(&folder);
    let who = home.run(&["whoami", "-o", "json"]).expect(0).json();
    assert_eq!(who["serial"], after.as_str());
    assert_eq!(serial_in(&folder), after, "a fresh one is left alone");
    let left: Vec<_> = std::fs::read_dir(&folder).expect("lists").flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".new")), "{left:?}");
}

#[test]
fn a_renewal_that_fails_or_hangs_fails_no_command_and_is_told_of_when_the_end_is_near() {
    for (renews, ago, told) in
        [(Renews::Refused, DUE, false), (Renews::Refused, LATE, true), (Renews::Hangs, LATE, false)]
    {
        let fake = Fake::start();
        *fake.state.renews.lock().expect("lock") = renews;
        let (home, folder) = member(&fake, Role::Client, LIFE, ago);
        let before = serial_in(&folder);
        let begun = Instant::now();
        let mut done = home.run(&["whoami"]).expect(0);
        println!("{renews:?}: {:?}", begun.elapsed());
        let tells = |done: &Done| done.stderr.contains("could not be renewed: nobody is renewed today");
        if told {
            // A command waits only so long for the answer.
            eventually("it is told of", || {
                done = home.run(&["whoami"]).expect(0);
                tells(&done)
            });
        }
        assert_eq!(tells(&done), told, "{done:#?}");
        assert!(done.stdout.starts_with("name"), "{done:#?}");
        assert_eq!(serial_in(&folder), before);
        let document = home.run(&["whoami", "-o", "json"]).expect(0);
        assert!(document.stderr.is_empty(), "programs read expires_at: {document:#?}");
    }
}

#[test]
fn commands_side_by_side_renew_once_at_a_time_and_all_succeed() {
    let fake = Fake::start();
    let (home, folder) = member(&fake, Role::Client, LIFE, DUE);
    let before = serial_in(&folder);
    let children: Vec<_> = (0..8)
        .map(|_| home.command(&["whoami", "-o", "name"]).stdout(Stdio::null()).spawn().expect("starts"))
        .collect();
    for mut child in children {
        assert!(child.wait().expect("ends").success());
    }
    until_renewed(&home, &folder, &before);
    home.run(&["whoami"]).expect(0);
}

#[test]
fn a_certificate_that_has_ended_says_how_to_join_again() {
    let fake = Fake::start();
    let (home, _) = member(&fake, Role::Client, LIFE, Duration::from_secs(1_065));
    let done = home.run(&["status"]).expect(4);
    for word in ["ended 1m", "token create --role client", "--rejoin", "modchain join"] {
        assert!(done.stderr.contains(word), "{word}: {done:#?}");
    }
    let doctor = home.run(&["doctor", "-o", "json"]).expect(1).json();
    let check = |name: &str| {
        let checks = doctor["checks"].as_array().expect("checks");
        checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name}: {doctor:#}")).clone()
    };
    assert_eq!(
        (&check("certificate")["status"], &check("orchestrator")["status"]),
        (&"problem".into(), &"problem".into())
    );
    assert_eq!(check("join port")["status"], "ok");
}

#[test]
fn doctor_finds_nothing_wrong_where_nothing_is_and_shows_operators_the_sockets() {
    let fake = Fake::start();
    let (home, _) = member(&fake, Role::Operator, LIFE, Duration::ZERO);
    let done = home.run(&["doctor"]).expect(0);
    for line in [
        "ok    orchestrator",
        "ok    clock",
        "ok    join port",
        "ok    certificate",
        "warn  server buffers      1 MiB to receive, 8 MiB to send, 8 MiB asked",
        "sysctl -w net.core.rmem_max=8388608",
        "ok    server certificate",
    ] {
        assert!(done.stdout.contains(line), "{line}: {done:#?}");
    }
}

#[test]
fn a_token_is_made_once_however_often_its_answer_is_lost_and_shown_once() {
    let fake = Fake::start();
    let (home, _) = member(&fake, Role::Client, LIFE, Duration::ZERO);
    *fake.state.tokens_lost.lock().expect("lock") = 2;
    let done = home.run(&["token", "create", "--role", "node", "--name", "rig-1"]).expect(0);
    let text = done.stdout.trim_end();
    let id = id_of(text);
    assert_eq!(done.stdout, format!("{text}\n"), "the token and nothing else");
    assert!(
        done.stderr.contains(&format!("modchain-agent join --orchestrator {} --token-file -", fake.join)),
        "{done:#?}"
    );
    assert!(done.stderr.contains(&id.to_string()) && !done.stderr.contains(text), "{done:#?}");
    {
        let asked = fake.state.tokens.lock().expect("lock");
        assert_eq!(asked.iter().map(|create| create.token).collect::<Vec<_>>(), [id; 3]);
        assert!(asked.iter().all(|create| *create == asked[0]) && asked[0].ttl.as_millis() == 900_000);
    }
    let quiet = home.run(&["token", "create", "--role", "node", "-q"]).expect(0);
    assert!(quiet.stderr.is_empty() && id_of(quiet.stdout.trim_end()) != id, "{quiet:#?}");
    let made = home.run(&["token", "create", "--role", "node", "--ttl", "1h", "-o", "json"]).expect(0).json();
    let text = made["token"].as_str().expect("the text");
    assert_eq!(made["id"], id_of(text).to_string());
    let listed = home.run(&["token", "list", "-o", "jsonl"]).expect(0);
    assert!(!listed.stdout.contains("MCJ1") && listed.stdout.lines().count() == 5, "{listed:#?}");
    // Its whole text names it as well.
    assert_eq!(home.run(&["token", "revoke", text]).expect(0).stdout, format!("{}  revoked\n", id_of(text)));
    let some = home.run(&["token", "revoke", &id.to_string(), "mzxw6ytb"]).expect(3);
    assert!(some.stdout.contains(&id.to_string()) && some.stderr.contains("revoked before that"), "{some:#?}");
}

#[test]
fn who_is_in_is_listed_and_put_out_with_a_yes_only() {
    let fake = Fake::start();
    let (home, _) = member(&fake, Role::Operator, LIFE, Duration::ZERO);
    let table = home.run(&["cert", "list"]).expect(0).stdout;
    assert!(
        table.starts_with("NAME            ACCOUNT  STATE   EXPIRES") && table.contains("operator/alice"),
        "{table}"
    );
    let listed = home.run(&["cert", "list", "-o", "json"]).expect(0).json();
    assert_eq!((&listed["schema"], &listed["items"][0]["renewals"]), (&"modchain.certs/v1".into(), &3.into()));
    home.run(&["cert", "revoke", "node/rig-1"]).expect(2);
    let done = home.run(&["cert", "revoke", "node/rig-1", "--reason", "sold", "-y"]).expect(0);
    assert_eq!(
        done.stdout,
        "operator/alice  revoked, 1 connection closed in 3.2 ms, 2 jobs cancelled, 1 token revoked\n"
    );
    let document = home.run(&["cert", "revoke", "node/rig-1", "--reason", "sold", "-y", "-o", "json"]).expect(0).json();
    assert_eq!((&document["schema"], &document["took_ms"]), (&"modchain.revoked/v1".into(), &4.into()));
    assert_eq!((&document["state"], &document["reason"]), (&"revoked".into(), &"sold".into()));
    let some = home.run(&["cert", "revoke", "node/rig-1", "node/nobody", "-y"]).expect(3);
    assert!(some.stdout.contains("revoked, ") && some.stderr.contains("revoked before that"), "{some:#?}");
}

//! The program from the outside: `init`, `serve`, `ledger verify`, `version`.

mod process;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use process::{Server, program};

/// Longest wait for the program to end.
const END_MAX: Duration = Duration::from_secs(60);

fn run(args: &[&str]) -> Output {
    Command::new(program()).args(args).output().expect("runs")
}

fn ok(args: &[&str]) -> serde_json::Value {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("json")
}

fn fails(code: i32, args: &[&str]) -> String {
    let output = run(args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn data(dir: &tempfile::TempDir) -> (std::path::PathBuf, String) {
    let data = dir.path().join("data");
    let text = data.to_str().expect("utf-8").to_owned();
    (data, text)
}

#[test]
fn init_is_additive_and_keeps_identities() {
    let dir = tempfile::tempdir().expect("directory");
    let (path, data) = data(&dir);
    let first = ok(&["init", "--data", &data, "--client", "alice", "--node", "rig=alice", "-o", "json"]);
    assert_eq!(first["schema"], "modchain.init/v1");
    assert_eq!((&first["asset"], &first["created"]), (&"TEST".into(), &true.into()));
    let key = fs::read(path.join("fence.key")).expect("reads");
    let second =
        ok(&["init", "--data", &data, "--client", "alice", "--operator", "root", "--node", "solo", "-o", "json"]);
    assert_eq!((&second["journal"], &second["created"]), (&first["journal"], &false.into()));
    assert_eq!(second["identities"][0]["id"], first["identities"][0]["id"], "the same identity, a new certificate");
    let made: Vec<_> = second["identities"].as_array().expect("a list").iter().map(|one| &one["created"]).collect();
    assert_eq!(made, [false, true, true]);
    assert_eq!(second["identities"][2]["account"], "solo");
    assert_eq!(fs::read(path.join("fence.key")).expect("reads"), key);
    for file in ["fence.key", "identities.jsonl", "identities/alice/key.pem", "tls/key.pem"] {
        let mode = fs::metadata(path.join(file)).expect(file).permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file}");
    }
    assert_eq!(fs::metadata(&path).expect("data").permissions().mode() & 0o777, 0o700);

    assert!(fails(1, &["init", "--data", &data, "--node", "alice"]).contains("is a client already"));
    assert!(fails(1, &["init", "--data", &data, "--node", "rig=solo"]).contains("earns for the account `alice`"));
    assert!(fails(1, &["init", "--data", &data, "--node", "new=nobody"]).contains("there is no account `nobody`"));
    assert!(fails(1, &["init", "--data", &data, "--asset", "usdc"]).contains("of TEST, and that is fixed"));
    assert!(fails(2, &["init", "--data", &data, "--client", "Not A Name"]).contains("is not a name"));
}

/// What may be the text of a token for an operator.
fn is_operator_token(text: &str) -> bool {
    text.starts_with("MCJ1-o-") && text.len() == modchain_certs::token::TOKEN_CHARS
}

#[test]
fn init_prints_the_first_operators_token_once() {
    let dir = tempfile::tempdir().expect("directory");
    let (path, data) = data(&dir);
    let first = ok(&["init", "--name", "lab", "--data", &data, "-o", "json"]);
    let token = first["operator_token"].as_str().expect("a token");
    assert!(is_operator_token(token), "{} characters", token.len());
    assert_eq!(first["name"], "lab");
    let kept = fs::read_to_string(path.join("first-token.json")).expect("reads");
    assert!(!kept.contains(&token[69..95]), "not the secret");
    assert_eq!(fs::metadata(path.join("first-token.json")).expect("file").permissions().mode() & 0o777, 0o600);
    let second = ok(&["init", "--data", &data, "-o", "json"]);
    assert_eq!((&second["operator_token"], &second["name"]), (&serde_json::Value::Null, &"lab".into()));
    assert_eq!(fs::read_to_string(path.join("first-token.json")).expect("reads"), kept, "the first one stays good");

    let human = |args: &[&str]| {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stderr.is_empty());
        String::from_utf8(output.stdout).expect("text")
    };
    let said = human(&["init", "--data", &data]);
    assert!(!said.contains("MCJ1-") && said.contains("found pool lab"), "{said}");
    let said = human(&["init", "--data", &data, "--operator-token"]);
    let tokens: Vec<&str> = said.lines().filter(|line| is_operator_token(line)).collect();
    assert_eq!((tokens.len(), said.matches("MCJ1-").count()), (1, 1), "alone on its line, once: {said}");
    assert!(said.contains("modchain join --orchestrator HOST:7444 --token-file -"), "{said}");

    let other = dir.path().join("other").to_str().expect("utf-8").to_owned();
    let made = ok(&["init", "--data", &other, "--operator", "root", "-o", "json"]);
    assert_eq!(made["operator_token"], serde_json::Value::Null, "there is an operator already");
}

#[test]
fn a_first_init_that_cannot_be_granted_leaves_a_pool_that_is_still_new() {
    let dir = tempfile::tempdir().expect("directory");
    let (_, data) = data(&dir);
    assert!(fails(1, &["init", "--data", &data, "--node", "rig=nobody"]).contains("there is no account `nobody`"));
    let made = ok(&["init", "--data", &data, "--client", "somebody", "--node", "rig=somebody", "-o", "json"]);
    assert_eq!(made["created"], true);
    assert!(made["operator_token"].as_str().is_some_and(is_operator_token));
}

#[test]
fn serve_tells_both_ports_and_says_what_to_do_when_it_cannot_have_them() {
    let dir = tempfile::tempdir().expect("directory");
    let (_, data) = data(&dir);
    ok(&["init", "--data", &data, "-o", "json"]);
    let (mut server, ready) = Server::start(Path::new(&data));
    let port = |key: &str| {
        let address: std::net::SocketAddr = ready[key].as_str().expect("an address").parse().expect("an address");
        assert!(address.ip().is_loopback());
        address.port()
    };
    assert!(port("listen") != port("join") && port("listen") > 0 && port("join") > 0, "{ready}");
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.ended(END_MAX).code(), Some(0));

    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let taken = taken.local_addr().map(|address| (taken, address.to_string())).expect("bound");
    let address = taken.1.as_str();
    let free = "127.0.0.1:0";
    let serve =
        |listen: &str, join: &str| fails(1, &["serve", "--data", &data, "--listen", listen, "--join-listen", join]);
    let said = serve(address, free);
    assert!(said.contains("choose another with --listen") && said.contains(address), "{said}");
    let said = serve(free, address);
    assert!(said.contains("choose another with --join-listen") && said.contains(address), "{said}");
    let said = serve(address, address);
    assert!(said.contains("give --join-listen another port"), "{said}");
    let said = fails(1, &["serve", "--data", &data, "--listen", free, "--advertise", "pool.example:7443"]);
    assert!(said.contains("without a port"), "{said}");
    fails(2, &["serve", "--data", &data, "--join-listen", "nowhere"]);
}

#[test]
fn serve_says_when_it_is_ready_keeps_others_out_verifies_meanwhile_and_stops_when_told() {
    let dir = tempfile::tempdir().expect("directory");
    let (_, data) = data(&dir);
    ok(&["init", "--data", &data, "--client", "alice", "-o", "json"]);
    let (mut server, ready) = Server::start(Path::new(&data));
    assert_eq!(ready["schema"], "modchain.serving/v1");
    assert_eq!(ready["pid"], server.pid());
    assert!(ready["listen"].as_str().expect("an address").starts_with("127.0.0.1:"));
    assert!(fails(1, &["serve", "--data", &data, "--listen", "127.0.0.1:0"]).contains("another process is serving"));
    let verified = ok(&["ledger", "verify", "--data", &data, "-o", "json"]);
    assert_eq!(
        (&verified["ok"], &verified["events"]),
        (&true.into(), &4.into()),
        "a start, an identity, its certificate, the first token"
    );
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.ended(END_MAX).code(), Some(0));
}

#[test]
fn a_killed_server_comes_back_and_takes_in_what_init_added_meanwhile() {
    let dir = tempfile::tempdir().expect("directory");
    let (_, data) = data(&dir);
    ok(&["init", "--data", &data, "--client", "alice", "-o", "json"]);
    for name in ["bob", "carol", "dave"] {
        let (mut server, _) = Server::start(Path::new(&data));
        ok(&["init", "--data", &data, "--client", name, "-o", "json"]);
        server.signal(rustix::process::Signal::KILL);
        server.ended(END_MAX);
    }
    let (mut server, _) = Server::start(Path::new(&data));
    server.signal(rustix::process::Signal::INT);
    assert_eq!(server.ended(END_MAX).code(), Some(0));
    let verified = ok(&["ledger", "verify", "--data", &data, "-o", "json"]);
    assert_eq!(verified["events"], 4 + 4 + 4 + 1, "starts, identities, certificates, the first token");
}

#[test]
fn a_changed_byte_is_named_and_a_damaged_journal_is_not_served() {
    let dir = tempfile::tempdir().expect("directory");
    let (path, data) = data(&dir);
    ok(&["init", "--data", &data, "--client", "alice", "-o", "json"]);
    for _ in 0..2 {
        let (mut server, _) = Server::start(&path);
        server.signal(rustix::process::Signal::TERM);
        server.ended(END_MAX);
    }
    let segment = path.join("journal/00000000000000000001.seg");
    let mut bytes = fs::read(&segment).expect("reads");
    bytes[76 + 30] ^= 1; // in the first of two batches
    fs::write(&segment, bytes).expect("writes");
    let said = fails(1, &["ledger", "verify", "--data", &data]);
    assert!(said.contains("event 1, segment 00000000000000000001.seg, offset 76"), "{said}");
    assert_eq!(said.matches("offset 76").count(), 1, "said once: {said}");
    let said = fails(1, &["serve", "--data", &data, "--listen", "127.0.0.1:0"]);
    assert!(said.contains("the journal is damaged") && said.contains("offset 76"), "{said}");
}

#[test]
fn mistakes_are_answered_with_what_to_do() {
    let dir = tempfile::tempdir().expect("directory");
    let (_, data) = data(&dir);
    assert!(fails(1, &["ledger", "verify", "--data", &data]).contains("modchain-orchestrator init --data"));
    assert!(fails(1, &["serve", "--data", &data]).contains("init"));
    fails(2, &["serve", "--nonsense"]);
    fails(2, &["serve", "--listen", "nowhere"]);
    let config = dir.path().join("o.toml");
    fs::write(&config, "lisen = '127.0.0.1:0'\n").expect("writes");
    let said = fails(1, &["serve", "--data", &data, "--config", config.to_str().expect("utf-8")]);
    assert!(said.contains("line 1") && said.contains("lisen"), "{said}");
    assert_eq!(
        ok(&["version", "-o", "json"]),
        serde_json::json!({
            "schema": "modchain.version/v1",
            "program": "modchain-orchestrator",
            "version": env!("CARGO_PKG_VERSION"),
            "wire": 1,
        })
    );
}

#[test]
fn a_service_manager_hears_that_it_is_ready_alive_and_stopping() {
    let dir = tempfile::tempdir().expect("directory");
    let (path, data) = data(&dir);
    ok(&["init", "--data", &data, "-o", "json"]);
    let notify = dir.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&notify).expect("binds");
    manager.set_read_timeout(Some(Duration::from_secs(60))).expect("sets");
    let hears = |beginning: &str| {
        let mut bytes = [0; 1024];
        loop {
            let length = match manager.recv(&mut bytes) {
                // A machine that stands still for a moment interrupts a wait that has a limit.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                told => told.unwrap_or_else(|error| panic!("{beginning} never came: {error}")),
            };
            let said = String::from_utf8_lossy(&bytes[..length]).trim_end().to_owned();
            if said.starts_with(beginning) {
                return said;
            }
        }
    };
    let managed = [("NOTIFY_SOCKET", notify.to_str().expect("utf-8")), ("WATCHDOG_USEC", "300000")];
    let (mut server, ready) = Server::start_managed(&path, &managed);
    assert_eq!(hears("READY="), "READY=1");
    let listen = ready["listen"].as_str().expect("an address");
    assert_eq!(hears("STATUS="), format!("STATUS=serving on {listen}, 0 nodes connected, 0 open jobs"));
    for _ in 0..5 {
        assert_eq!(hears("WATCHDOG="), "WATCHDOG=1");
    }
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(hears("STOPPING="), "STOPPING=1");
    assert!(server.ended(END_MAX).success());
}

#[test]
fn the_unit_is_one_that_systemd_has_nothing_to_say_about() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("modchain-orchestrator.service");
    for more in [&[][..], &["--data", "/srv/a pool", "--user", "daemon"]] {
        let output = run(&[&["service", "install", "--dry-run"], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let unit = String::from_utf8(output.stdout).expect("text");
        assert!(unit.contains("\nType=notify\n") && unit.contains("\nWatchdogSec="), "{unit}");
        fs::write(&file, &unit).expect("writes");
        match Command::new("systemd-analyze").arg("verify").arg(&file).output() {
            Ok(output) => {
                let said = [output.stdout, output.stderr].concat();
                assert!(output.status.success() && said.is_empty(), "{}\n{unit}", String::from_utf8_lossy(&said));
            }
            Err(error) if std::env::var("CI").as_deref() != Ok("true") => {
                println!("not verified, because systemd-analyze is not there: {error}");
            }
            Err(error) => panic!("systemd-analyze must be there in CI (Debian: apt-get install systemd): {error}"),
        }
    }
}

#[test]
fn the_view_is_rebuilt_while_nobody_serves() {
    let dir = tempfile::tempdir().expect("directory");
    let (path, data) = data(&dir);
    ok(&["init", "--data", &data, "--client", "alice", "-o", "json"]);
    {
        let (server, _) = Server::start(&path);
        assert!(path.join("view").exists());
        let busy = fails(1, &["view", "rebuild", "--data", &data]);
        assert!(busy.contains("another process is serving"), "{busy}");
        drop(server);
    }
    let events = ok(&["ledger", "verify", "--data", &data, "-o", "json"])["events"].clone();
    fs::write(path.join("view/db"), b"nonsense").expect("writes");
    let rebuilt = ok(&["view", "rebuild", "--data", &data, "-o", "json"]);
    assert_eq!((&rebuilt["schema"], &rebuilt["events"]), (&"modchain.view_rebuild/v1".into(), &events));
    let (_server, ready) = Server::start(&path);
    assert_eq!(ready["schema"], "modchain.serving/v1");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    const SIGPIPE: i32 = 13;
    let dir = tempfile::tempdir().expect("directory");
    let (_, data) = data(&dir);
    ok(&["init", "--data", &data, "--client", "alice", "-o", "json"]);
    drop(Server::start(Path::new(&data)));
    let at = ["--data", &data];
    for line in [&["ledger", "verify"][..], &["ledger", "export"], &["init"], &["version"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let line = if line == ["version"] { line.to_vec() } else { [line, &at].concat() };
        let done = Command::new(program()).args(&line).stdout(writer).stderr(Stdio::piped()).output().expect("runs");
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!((done.status.signal(), &*said), (Some(SIGPIPE), ""), "{line:?}");
    }
}

#[test]
fn what_is_not_there_or_in_the_way_is_named_and_a_pool_that_is_renamed_says_so() {
    let dir = tempfile::tempdir().expect("directory");
    let (path, data) = data(&dir);
    let said = fails(1, &["serve", "--data", &data, "--listen", "127.0.0.1:0"]);
    assert!(said.contains("there is no pool in") && said.contains("modchain-orchestrator init"), "{said}");
    assert_eq!(said.matches("os error").count(), 1, "{said}");
    ok(&["init", "--data", &data, "--name", "lab", "-o", "json"]);
    let renamed = ok(&["init", "--data", &data, "--name", "other", "-o", "json"]);
    assert_eq!((&renamed["name"], &renamed["renamed_from"]), (&"other".into(), &"lab".into()));
    assert_eq!(ok(&["init", "--data", &data, "-o", "json"])["renamed_from"], serde_json::Value::Null);
    // The view is made anew, whatever is in its place.
    fs::write(path.join("view"), "not a folder").expect("writes");
    drop(Server::start(&path));
    assert!(path.join("view").is_dir());
    fs::remove_dir_all(path.join("output")).expect("removes");
    fs::write(path.join("output"), "not a folder").expect("writes");
    let said = fails(1, &["serve", "--data", &data, "--listen", "127.0.0.1:0"]);
    assert!(said.contains(&format!("the folder {} cannot be used", path.join("output").display())), "{said}");
}

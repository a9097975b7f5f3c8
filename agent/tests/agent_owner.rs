//! The owner's commands to a running agent, and what a service manager hears of it.

mod scripted;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use modchain_types::{Ending, Input, Micro, Offer, ReportBody, Verdict};
use modchain_wire::FromAgent;
use scripted::modules::{FOREVER, HELLO};
use scripted::{PATIENCE, Peer, World, soon};

/// The agent's next offer.
async fn offer(peer: &mut Peer) -> Offer {
    match peer.hear().await {
        FromAgent::OfferChanged(changed) => changed.offer,
        other => panic!("not an offer: {other:?}"),
    }
}

/// Looks until the agent's own word for something is what it should be.
async fn until(world: &World, what: &str, is_so: impl Fn(&serde_json::Value) -> bool) {
    let limit = Instant::now() + PATIENCE;
    loop {
        let status = world.ask_json(&["status"]);
        if is_so(&status) {
            return;
        }
        assert!(Instant::now() < limit, "{what}: {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_whom_it_serves_what_runs_and_what_is_offered() {
    let mut world = World::new();
    let assignment = world.assignment(1, FOREVER, Input::None);
    let agent = world.start_agent();
    let mut peer = world.welcome(Verdict::Forget).await;
    peer.say(assignment.clone()).await;
    peer.started().await;
    let status = world.ask_json(&["status"]);
    assert_eq!(status["schema"], "modchain.agent_status/v1");
    assert_eq!((&status["running"], &status["pid"]), (&true.into(), &agent.0.id().into()));
    assert_eq!(status["connection"]["state"], "connected");
    assert!(status["connection"]["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{status}");
    assert_eq!(
        (&status["door"], &status["paused"], &status["live_attempts"]),
        (&"open".into(), &false.into(), &1.into())
    );
    let attempt = &status["attempts"][0];
    assert_eq!(attempt["attempt"], assignment.attempt.to_string());
    assert_eq!(
        (&attempt["name"], &attempt["adapter"], &attempt["state"]),
        (&"test".into(), &"wasm".into(), &"running".into())
    );
    assert_eq!(status["offer"]["adapters"], serde_json::json!(["wasm"]));
    assert_eq!(status["missing"]["docker"], "the owner does not take such jobs");
    let text = String::from_utf8(world.ask(&["status"]).stdout).expect("text");
    assert!(text.contains("connected since") && text.contains("running  wasm   test"), "{text}");

    peer.cut();
    until(&world, "the cut is seen", |status| status["connection"]["state"] == "connecting").await;
    let _peer = world.welcome(Verdict::Keep).await;
    until(&world, "it is back", |status| status["connection"]["state"] == "connected").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_holds_over_a_restart_and_what_crosses_it_is_refused() {
    let mut world = World::new();
    let assignment = world.assignment(1, HELLO, Input::None);
    let mut agent = world.start_agent();
    let mut peer = world.welcome(Verdict::Forget).await;
    assert!(!peer.hello.offer.paused);
    assert_eq!(world.ask_json(&["pause"])["door"], "paused");
    assert!(offer(&mut peer).await.paused);
    peer.say(assignment.clone()).await;
    let refused = peer.report().await;
    assert!(matches!(&refused.body, ReportBody::Refused { message } if message.contains("no new jobs")), "{refused:?}");
    agent.kill();
    drop(peer);

    assert_eq!(world.ask(&["status"]).status.code(), Some(5), "the socket that it left is nobody's");
    let _agent = world.start_agent();
    let mut peer = world.welcome(Verdict::Forget).await;
    assert!(peer.hello.offer.paused, "as before");
    assert_eq!(world.ask_json(&["resume"])["door"], "open");
    assert!(!offer(&mut peer).await.paused);
    peer.say(assignment).await;
    peer.started().await;
    assert_eq!(peer.ending().await.1, Ending::Exited { code: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_is_read_again_on_a_hang_up_and_on_command_and_a_bad_one_changes_nothing() {
    let world = World::new();
    let file = world.dir.path().join("agent.toml");
    fs::write(&file, "[prices]\nminimum = \"0.01\"\n").expect("writes");
    let mut command = world.command();
    let agent = scripted::Agent(command.arg("--config").arg(&file).spawn().expect("starts"));
    let mut peer = world.welcome(Verdict::Forget).await;
    assert_eq!(peer.hello.offer.tariff.minimum, Micro(10_000));

    fs::write(&file, "[prices]\nminimum = \"0.02\"\n").expect("writes");
    agent.signal("-HUP");
    assert_eq!(offer(&mut peer).await.tariff.minimum, Micro(20_000));

    fs::write(&file, "[prices]\nminimum = \"0.03\"\n\n[limits]\nslots = 0\n").expect("writes");
    let refused = world.ask(&["reload"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains(&format!("{}:5: 0 slots: write 1 to 48", file.display())), "{said}");
    let status = world.ask_json(&["status"]);
    assert_eq!(status["offer"]["prices"]["minimum"]["micro"], 20_000);
    assert!(status["config_refused"].as_str().is_some_and(|why| why.contains("0 slots")), "{status}");

    fs::write(&file, "orchestrator = \"elsewhere:7443\"\n[prices]\nminimum = \"0.03\"\n[llm]\nurl = \"http://x:1\"\n")
        .expect("writes");
    // The flag says who the orchestrator is, so the file's word for it changes nothing.
    let reloaded = world.ask_json(&["reload"]);
    assert_eq!(
        (&reloaded["offer_changed"], &reloaded["needs_restart"]),
        (&true.into(), &serde_json::json!(["llm.url"]))
    );
    assert_eq!(offer(&mut peer).await.tariff.minimum, Micro(30_000));
    assert_eq!(world.ask_json(&["status"])["config_refused"], serde_json::Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_what_runs_at_its_deadline_as_the_nodes_fault() {
    let mut world = World::new();
    let assignment = world.assignment(1, FOREVER, Input::None);
    let mut agent = world.start_agent();
    let mut peer = world.welcome(Verdict::Forget).await;
    peer.say(assignment.clone()).await;
    peer.started().await;
    let draining = world.ask_json(&["drain"]);
    assert_eq!(
        (&draining["door"], &draining["live_attempts"]),
        (&"draining".into(), &1.into()),
        "it may go on to its end"
    );
    assert!(offer(&mut peer).await.paused);

    let waiting = {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_modchain-agent"));
        command.env_clear().args(["drain", "--deadline", "0", "--wait", "--data"]).arg(world.data());
        tokio::task::spawn_blocking(move || command.output().expect("runs"))
    };
    let (report, ending) = peer.ending().await;
    assert!(matches!(&ending, Ending::NodeFault { message } if message.contains("drained by its owner")), "{ending:?}");
    peer.ack(&report).await;
    let drained = soon("the drain", waiting).await.expect("runs");
    assert!(drained.status.success());
    assert!(String::from_utf8_lossy(&drained.stdout).starts_with("drained: nothing runs"));

    agent.signal("-TERM");
    assert_eq!(agent.exit_code().await, Some(0));
    assert!(!world.data().join("control.sock").exists());
    let _agent = world.start_agent();
    assert!(!world.welcome(Verdict::Forget).await.hello.offer.paused, "a drain ends with the agent");
}

/// A service manager that notes what it is told.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(world: &World) -> Self {
        let path = world.dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("binds");
        socket.set_read_timeout(Some(PATIENCE)).expect("sets");
        Self { socket, path }
    }

    /// Reads until it is told something that begins so.
    fn hears(&self, beginning: &str) -> String {
        let mut bytes = [0; 1024];
        loop {
            let length = match self.socket.recv(&mut bytes) {
                // A machine that stands still for a moment interrupts a wait that has a limit.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                told => told.unwrap_or_else(|error| panic!("{beginning} never came: {error}")),
            };
            let said = String::from_utf8_lossy(&bytes[..length]).trim_end().to_owned();
            if said.starts_with(beginning) {
                return said;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_hears_that_it_is_ready_alive_and_stopping() {
    let world = World::new();
    let manager = Manager::new(&world);
    let mut command = world.command();
    command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "300000");
    let mut agent = scripted::Agent(command.spawn().expect("starts"));
    assert_eq!(manager.hears("READY="), "READY=1", "without any orchestrator");
    assert!(manager.path.exists() && world.data().join("control.sock").exists(), "the owner's commands work by then");
    assert!(manager.hears("STATUS=").starts_with("STATUS=not connected to 127.0.0.1:"));
    let _peer = world.welcome(Verdict::Forget).await;
    assert!(manager.hears("STATUS=connected to 127.0.0.1:").ends_with(", 0 attempts"));
    for _ in 0..5 {
        assert_eq!(manager.hears("WATCHDOG="), "WATCHDOG=1");
    }
    world.ask_json(&["pause"]);
    assert!(manager.hears("STATUS=").ends_with(", 0 attempts, no new jobs"));
    agent.signal("-TERM");
    assert_eq!(manager.hears("STOPPING="), "STOPPING=1");
    assert_eq!(agent.exit_code().await, Some(0));
}

#[test]
fn the_unit_is_one_that_systemd_has_nothing_to_say_about() {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("modchain-agent.service");
    let printed = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_modchain-agent"));
        let output = command.env_clear().args(["service", "install", "--dry-run"]).args(more).output().expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let elsewhere =
        ["--data", "/srv/a pool", "--config", "/etc/modchain/other.toml", "--drain", "10m", "--user", "daemon"];
    for more in [&[][..], &elsewhere] {
        let unit = printed(more);
        assert!(unit.contains("\nType=notify\n") && unit.contains("\nWatchdogSec="), "{unit}");
        fs::write(&file, &unit).expect("writes");
        match std::process::Command::new("systemd-analyze").arg("verify").arg(&file).output() {
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
    let unit = printed(&elsewhere);
    assert!(unit.contains("start --config /etc/modchain/other.toml --data \"/srv/a pool\"\n"), "{unit}");
    assert!(unit.contains("drain --wait --deadline 600s") && unit.contains("\nTimeoutStopSec=645\n"), "{unit}");
    assert!(unit.contains("\nUser=daemon\n") && unit.contains("\nReadWritePaths=\"/srv/a pool\"\n"), "{unit}");
}

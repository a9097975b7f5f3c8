//! An engine that ends, crashes and comes back. A second one, with a network of its own, so that the machine's own goes on.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use modchain_agent::executor::docker::{DockerExecutor, DockerPolicy};
use modchain_agent::probe::{self, Findings};
use modchain_types::{Ending, Fault};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::harness::*;
use crate::image::{docker, engine_is_there, must_test_all};

/// A container engine of this test alone.
struct SecondEngine {
    dir: TempDir,
    daemon: Child,
    live_restore: bool,
}

impl SecondEngine {
    /// `None`, with the reason said, where this cannot be had.
    async fn start() -> Option<Self> {
        let allowed = Command::new("unshare").args(["--net", "--mount", "true"]).output();
        if !allowed.is_ok_and(|output| output.status.success()) || !in_path("dockerd") {
            assert!(
                !must_test_all(),
                "CI=true, and a second container engine cannot be started: root and dockerd are needed"
            );
            eprintln!("skipped: a second container engine needs root and dockerd");
            return None;
        }
        // The engine's sockets have long names of their own.
        let dir = tempfile::Builder::new().prefix("mc").tempdir_in("/tmp").unwrap();
        let daemon = Self::spawn(&dir, false);
        let mut engine = Self { dir, daemon, live_restore: false };
        engine.answers().await;
        engine.docker_script();
        Some(engine)
    }

    fn spawn(dir: &TempDir, live_restore: bool) -> Child {
        let below = |name: &str| dir.path().join(name);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(below("log")).unwrap();
        // The machine's own settings are not for this one.
        std::fs::write(below("daemon.json"), "{}").unwrap();
        let mut command = Command::new("unshare");
        command.args([
            "--net",
            "--mount",
            "dockerd",
            "--bridge",
            "none",
            "--iptables=false",
            "--storage-driver",
            "vfs",
        ]);
        command.arg("--config-file").arg(below("daemon.json"));
        command.arg("--data-root").arg(below("data")).arg("--exec-root").arg(below("exec"));
        command.arg("--pidfile").arg(below("pid")).arg("--host").arg(format!("unix://{}", below("s").display()));
        if live_restore {
            command.arg("--live-restore");
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    fn host(&self) -> String {
        format!("unix://{}", self.dir.path().join("s").display())
    }

    async fn answers(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !Command::new("docker").args(["--host", &self.host(), "version"]).output().unwrap().status.success() {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(self.daemon.try_wait().unwrap().is_none(), "the second engine has ended: {log}");
            assert!(Instant::now() < deadline, "the second engine does not come up: {log}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn docker_script(&self) {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docker/test/test-image.sh");
        let output = Command::new(script).env("DOCKER_HOST", self.host()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// A signal to what runs in a container, past the engine.
    fn signal_within(&self, container: &str, signal: i32) {
        let pid = docker(&["--host", &self.host(), "inspect", "--format", "{{.State.Pid}}", container]);
        // SAFETY: the call takes no memory; the process is of a container that ends only when this test lets it.
        assert_eq!(unsafe { libc::kill(pid.parse().unwrap(), signal) }, 0);
    }

    fn stop(&mut self, signal: i32) {
        let pid = i32::try_from(self.daemon.id()).unwrap();
        // SAFETY: the call takes no memory; the process is a child of ours that has not been waited for.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
        self.daemon.wait().unwrap();
    }

    async fn start_again(&mut self) {
        // Its own containerd has died with it. Where nobody buries the dead, such as in some containers, it would be taken for
        // alive and waited for.
        let _ = std::fs::remove_file(self.dir.path().join("exec/containerd/containerd.pid"));
        self.daemon = Self::spawn(&self.dir, self.live_restore);
        self.answers().await;
    }
}

impl Drop for SecondEngine {
    fn drop(&mut self) {
        // A test that failed may have left it dead; its containers end only by its own hand.
        if !matches!(self.daemon.try_wait(), Ok(None)) {
            self.daemon = Self::spawn(&self.dir, false);
            std::thread::sleep(Duration::from_secs(3));
        }
        let pid = i32::try_from(self.daemon.id()).unwrap();
        // SAFETY: as in `stop`.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let _ = self.daemon.wait();
    }
}

fn in_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]).any(|folder| folder.join(program).exists())
    })
}

async fn offered(findings: &mut watch::Receiver<Findings>, expected: bool) {
    let change = findings.wait_for(|findings| findings.docker.is_some() == expected);
    tokio::time::timeout(PATIENCE, change).await.expect("in time").expect("the probe goes on");
}

#[tokio::test]
async fn an_engine_that_goes_away_is_the_nodes_fault_and_is_taken_up_again_when_it_is_back() {
    if !engine_is_there() {
        return;
    }
    let Some(mut engine) = SecondEngine::start().await else { return };
    let node = Node::beside(engine.host(), DockerPolicy::default());
    let (findings_in, mut findings) = watch::channel(Findings::default());
    let probe = tokio::spawn(probe::docker::watch(node.executor.clone(), findings_in));
    offered(&mut findings, true).await;
    assert!(findings.borrow().docker.as_ref().is_some_and(|found| found.version.starts_with(char::is_numeric)));

    // The orderly end of an engine ends its containers politely: what they make of that is not what they would have done.
    let polite = "trap 'exit 0' TERM; echo on; while :; do sleep 0.1; done";
    for (signal, script) in [(libc::SIGTERM, polite), (libc::SIGKILL, "echo on; sleep 1000")] {
        let mut attempt = Container::shell(script).start(&node);
        attempt.started().await;
        attempt.output_until("on\n").await;
        engine.stop(signal);
        offered(&mut findings, false).await;
        Container::shell("true").start(&node).story().await.assert_cannot_start(Fault::Node, "engine is away");
        engine.start_again().await;
        let story = attempt.story().await;
        let Ending::NodeFault { message } = story.ending() else { panic!("{story:?}") };
        assert!(message.contains("the container engine went away"), "{message}");
        offered(&mut findings, true).await;
        node.assert_clean();
        assert_eq!(*Container::shell("true").run(&node).await.ending(), EXITED_0);
    }

    // An engine that lets containers live while it is away gives them back whole.
    engine.stop(libc::SIGTERM);
    engine.live_restore = true;
    engine.start_again().await;
    offered(&mut findings, true).await;
    // It counts until it is told that it has done enough; if the test fails it does not go on for ever.
    let counting = "trap 'echo back' USR1; trap 'enough=1' USR2; cat; i=0; \
                    while [ -z \"$enough\" ] && [ $i -lt 3000 ]; do i=$((i+1)); echo $i; sleep 0.1; done; echo end";
    let mut attempt = Container::shell(counting).input().start(&node);
    attempt.started().await;
    let mut stdin = attempt.stdin.take().expect("it reads");
    stdin.write(b"0\n").await.expect("it reads");
    stdin.close().await.expect("it is handed over");
    let mut counted = attempt.output_until("1\n").await;
    // Another one has not got all that it is to read, and never will.
    let mut half_fed = Container::shell("head -n 1; cat; sleep 300").input().start(&node);
    half_fed.started().await;
    let mut half = half_fed.stdin.take().expect("it reads");
    half.write(b"half\n").await.expect("it reads");
    half_fed.output_until("half\n").await;
    engine.stop(libc::SIGTERM);
    offered(&mut findings, false).await;
    engine.start_again().await;
    // What it says from now on is heard while it runs, and it ends only then.
    engine.signal_within(&attempt.container_id(), libc::SIGUSR1);
    while !counted.contains("back\n") {
        counted += &attempt.output_until("\n").await;
    }
    engine.signal_within(&attempt.container_id(), libc::SIGUSR2);
    let story = attempt.story().await;
    counted += story.out();
    assert_eq!(*story.ending(), EXITED_0);
    let counted = counted.replacen("back\n", "", 1);
    let numbers = (0..counted.lines().count() - 1).map(|number| format!("{number}\n")).collect::<String>();
    assert_eq!(counted, numbers + "end\n");
    let story = half_fed.story().await;
    let Ending::NodeFault { message } = story.ending() else { panic!("{story:?}") };
    assert!(message.contains("the container engine went away"), "{message}");
    assert!(half.write(b"the rest").await.is_err());
    node.assert_clean();
    probe.abort();
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_an_answer() {
    let settings = modchain_agent::executor::docker::DockerSettings {
        host: Some("/no/such/engine.sock".into()),
        node: modchain_types::NodeId([1; 16]),
        policy: DockerPolicy::default(),
    };
    let executor = DockerExecutor::new(settings);
    let trouble = executor.survivors().await.unwrap_err();
    assert!(trouble.to_string().contains("no socket at /no/such/engine.sock"), "{trouble}");
}

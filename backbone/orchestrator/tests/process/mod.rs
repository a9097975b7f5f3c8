//! The program as a process of its own.
#![allow(dead_code, reason = "each test program uses its part")]

use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The program; the one of another build where the environment names it, for comparing the two.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("MODCHAIN_TEST_PROGRAM")
        .map_or_else(|| env!("CARGO_BIN_EXE_modchain-orchestrator").into(), PathBuf::from)
}

/// Somewhere free on this machine.
pub(crate) const ANYWHERE: &str = "127.0.0.1:0";

/// Longest wait for a port that is wanted again and that another program has got meanwhile.
const PORT_FREE_MAX: Duration = Duration::from_secs(30);
/// Time between two tries to have it.
const PORT_FREE_EVERY: Duration = Duration::from_millis(100);

/// How the system counts computing time in `/proc`: the same on every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// A running `serve`. Ends with the test.
pub(crate) struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Starts it on a free port; gives its ready line.
    pub(crate) fn start(data: &Path) -> (Self, serde_json::Value) {
        Self::start_at(data, ANYWHERE, ANYWHERE)
    }

    /// Starts it on these addresses, for members and for joiners.
    pub(crate) fn start_at(data: &Path, listen: &str, join: &str) -> (Self, serde_json::Value) {
        Self::start_with(data, listen, join, &[])
    }

    /// Starts it on a free port, in the surroundings of a service manager.
    pub(crate) fn start_managed(data: &Path, surroundings: &[(&str, &str)]) -> (Self, serde_json::Value) {
        Self::start_with(data, ANYWHERE, ANYWHERE, surroundings)
    }

    fn start_with(data: &Path, listen: &str, join: &str, surroundings: &[(&str, &str)]) -> (Self, serde_json::Value) {
        let until = Instant::now() + PORT_FREE_MAX;
        loop {
            match Self::try_start(data, listen, join, surroundings) {
                Ok(started) => return started,
                Err(said) if said.contains("port cannot be opened") && Instant::now() < until => {
                    std::thread::sleep(PORT_FREE_EVERY);
                }
                Err(said) => panic!("it is not ready: {said}"),
            }
        }
    }

    /// As [`Server::start_with`], once; an error is what it has said instead of its ready line.
    fn try_start(
        data: &Path,
        listen: &str,
        join: &str,
        surroundings: &[(&str, &str)],
    ) -> Result<(Self, serde_json::Value), String> {
        let mut said = tempfile::tempfile().expect("a file");
        let mut child = Command::new(program())
            .args(["serve", "--listen", listen, "--join-listen", join, "--data"])
            .arg(data)
            .envs(surroundings.iter().copied())
            .stdout(Stdio::piped())
            .stderr(said.try_clone().expect("a file"))
            .spawn()
            .expect("starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        let server = Self(child);
        BufReader::new(stdout).read_line(&mut line).expect("reads");
        if let Ok(ready) = serde_json::from_str(&line) {
            return Ok((server, ready));
        }
        drop(server);
        let mut text = Vec::new();
        said.rewind().and_then(|()| said.read_to_end(&mut text)).expect("reads");
        Err(format!("{line}{}", String::from_utf8_lossy(&text)))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("signals");
    }

    pub(crate) fn ended(&mut self, limit: Duration) -> ExitStatus {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait().expect("waits") {
                return status;
            }
            assert!(Instant::now() < until, "it did not end in time");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Memory that it holds, in bytes: now, and the most that it ever held.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let kib = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the system tells");
            line.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        (kib("VmRSS:") << 10, kib("VmHWM:") << 10)
    }

    /// Time that it has spent computing, in all its threads.
    pub(crate) fn computed(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        // The name, in brackets, may have spaces; user and system time are the 12th and 13th fields after it.
        let (_, fields) = stat.rsplit_once(") ").expect("a name");
        let ticks = |at: usize| -> u64 { fields.split(' ').nth(at).expect("a field").parse().expect("a number") };
        Duration::from_millis((ticks(11) + ticks(12)) * 1_000 / TICKS_PER_SECOND)
    }
}

/// Packets that the system has dropped at this port of ours because its buffer was full; `None` where it does not tell.
pub(crate) fn lost_at(address: &str) -> Option<u64> {
    let port = address.rsplit_once(':')?.1.parse::<u16>().ok()?;
    let table = std::fs::read_to_string("/proc/net/udp").ok()?;
    let own = table.lines().find(|line| {
        let local = line.split_whitespace().nth(1);
        local.is_some_and(|local| local.ends_with(&format!(":{port:04X}")))
    })?;
    own.split_whitespace().last()?.parse().ok()
}

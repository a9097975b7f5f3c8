//! A pool whose orchestrator is a program of its own, which can be killed; its members are in this process and talk to it
//! over QUIC on loopback.
#![allow(dead_code, reason = "each test program uses its part")]

pub(crate) mod garbage;
pub(crate) mod heart;
pub(crate) mod herd;
pub(crate) mod raw;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use modchain_certs::Credentials;
use modchain_link::ConnectError;
use modchain_orchestrator::init::{InitOptions, Initialised, init};
use modchain_types::{AccountId, InstanceId, Name};
use rustix::process::{Resource, Signal, getrlimit, setrlimit};

use crate::peers::{Agent, Console};
use crate::process::{ANYWHERE, Server};

/// Longest wait for the program to end.
const END_MAX: Duration = Duration::from_secs(60);

pub(crate) struct Pool {
    dir: tempfile::TempDir,
    /// Folders of the identities.
    _identities: tempfile::TempDir,
    made: Initialised,
    server: Option<Server>,
    /// Where members connect.
    pub(crate) main: String,
    /// Where newcomers join.
    pub(crate) join: String,
}

/// Names `PREFIX-0`, `PREFIX-1`, and so on.
pub(crate) fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number}")).collect()
}

/// A number that an issue asks for, or what the environment says instead where a machine is slower or should do more.
pub(crate) fn count(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

impl Pool {
    /// Makes a pool with these members, the operators boss and deputy, and serves it. A node earns for the account of its own
    /// name, or for the client that follows it after a `=`.
    pub(crate) fn start<S: AsRef<str>>(clients: &[S], nodes: &[S]) -> Self {
        allow_many_files();
        let name = |text: &str| text.parse::<Name>().expect("a name");
        let node = |text: &str| match text.split_once('=') {
            Some((node, account)) => (name(node), Some(account.parse::<AccountId>().expect("an account"))),
            None => (name(text), None),
        };
        let (dir, identities) = (tempfile::tempdir().expect("a directory"), in_memory());
        let options = InitOptions {
            data: dir.path().join("orchestrator"),
            clients: clients.iter().map(|text| name(text.as_ref())).collect(),
            operators: vec![name("boss"), name("deputy")],
            nodes: nodes.iter().map(|text| node(text.as_ref())).collect(),
            identities: Some(identities.path().to_owned()),
            ..InitOptions::default()
        };
        let made = init(&options).expect("a data directory");
        let mut pool =
            Self { dir, _identities: identities, made, server: None, main: ANYWHERE.into(), join: ANYWHERE.into() };
        pool.serve();
        pool
    }

    /// Its folder, for others that belong to it.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// The folder of somebody's key and certificates.
    pub(crate) fn identity(&self, name: &str) -> &Path {
        let issued = self.made.identities.iter().find(|issued| issued.identity.name.as_str() == name);
        &issued.expect("it was made").dir
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("orchestrator")
    }

    /// Starts the program, where it was before if it ran before.
    pub(crate) fn serve(&mut self) {
        let (server, ready) = Server::start_at(&self.data(), &self.main, &self.join);
        let place = |what: &str| ready[what].as_str().expect("an address").to_owned();
        (self.main, self.join) = (place("listen"), place("join"));
        self.server = Some(server);
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().expect("it runs")
    }

    /// Ends it without a chance to say or write anything.
    pub(crate) fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(&mut self) {
        assert_eq!(self.end(Signal::TERM).code(), Some(0));
    }

    fn end(&mut self, signal: Signal) -> std::process::ExitStatus {
        let mut server = self.server.take().expect("it runs");
        server.signal(signal);
        server.ended(END_MAX)
    }

    pub(crate) fn credentials(&self, name: &str) -> Credentials {
        Credentials::load(self.identity(name)).expect("its certificate")
    }

    pub(crate) async fn console(&self, name: &str) -> Console {
        self.try_console(name).await.expect("a welcome")
    }

    pub(crate) async fn agent(&self, name: &str) -> Agent {
        self.try_agent(name).await.expect("a welcome")
    }

    pub(crate) async fn try_console(&self, name: &str) -> Result<Console, ConnectError> {
        Console::join(&self.credentials(name), &self.main).await
    }

    pub(crate) async fn try_agent(&self, name: &str) -> Result<Agent, ConnectError> {
        Agent::join(&self.credentials(name), &self.main, InstanceId([1; 16]), Vec::new(), None).await
    }
}

/// A thousand folders with synced files take half a minute on a disk, and nobody asks whether those outlive the machine. What
/// the orchestrator writes is on a disk.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

/// Every member has a socket.
fn allow_many_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the limit may be raised to the most that is allowed");
}

/// How times spread: for printing.
pub(crate) struct Spread {
    sorted: Vec<Duration>,
}

impl Spread {
    pub(crate) fn of(times: impl IntoIterator<Item = Duration>) -> Self {
        let mut sorted: Vec<Duration> = times.into_iter().collect();
        assert!(!sorted.is_empty(), "nothing was measured");
        sorted.sort_unstable();
        Self { sorted }
    }

    /// The shortest time that so many percent do not exceed.
    pub(crate) fn percent(&self, percent: usize) -> Duration {
        let rank = (self.sorted.len() * percent).div_ceil(100).max(1);
        self.sorted[rank - 1]
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |percent| self.percent(percent).as_secs_f64() * 1e3;
        write!(f, "p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms", millis(50), millis(99), millis(100))
    }
}

//! The real programs as processes of their own, to be killed, stopped and started again at any moment.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::engine::docker;
use super::money::micro;
use super::{Done, Home, eventually, program, require_siblings, signal};

/// Money that every client is given at the start, in micro-units.
pub(crate) const GIVEN: u64 = 1_000_000_000;

/// A program that is killed when the test ends, stopped or not.
pub(crate) struct Process(Child);

impl Process {
    /// Sends it a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        signal(&self.0, name);
    }

    /// What it has started and what still runs, one process each.
    pub(crate) fn children(&self) -> usize {
        let listed = Command::new("ps").args(["-o", "pid=", "--ppid", &self.0.id().to_string()]).output();
        String::from_utf8(listed.expect("ps is there").stdout).expect("text").lines().count()
    }

    /// Kills it, as a power cut would.
    pub(crate) fn kill(&mut self) {
        // One that is gone already is not killed again.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(&mut self) {
        self.signal("TERM");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One orchestrator, some agents `n0`, `n1`…, each of which earns into an account of its own name, some clients, and an operator
/// `root`, whose account shows the platform's fees.
pub(crate) struct Fleet {
    pub(crate) site: Site,
    pub(crate) orchestrator: Process,
    pub(crate) agents: Vec<Process>,
}

impl Fleet {
    /// With this many agents and one client, `alice`.
    pub(crate) fn start(agents: usize) -> Self {
        Self::start_with(agents, &["alice"], |site, number| site.agent(number))
    }

    /// With these clients, and agents that are started so.
    pub(crate) fn start_with(agents: usize, clients: &[&str], start: impl Fn(&Site, usize) -> Process) -> Self {
        let (site, orchestrator) = Site::new(agents, clients);
        let agents: Vec<Process> = (0..agents).map(|number| start(&site, number)).collect();
        let fleet = Self { site, orchestrator, agents };
        eventually("all nodes are ready", || fleet.site.ready() == fleet.agents.len());
        fleet
    }

    /// Starts the orchestrator again where it was, and waits until it serves.
    pub(crate) fn restart_orchestrator(&mut self) {
        self.orchestrator.kill();
        self.orchestrator = self.site.serve();
        eventually("it serves again", || self.site.run(&["-c", "root", "status"]).code == Some(0));
    }
}

/// A port on which an orchestrator can listen, and does again after each time that it was killed. One that the system gives away by
/// itself could be given to somebody else meanwhile, so this one lies below those, if there are any there. Orchestrators listen on UDP
/// only: holding the same port of TCP keeps it from the tests that run beside this one.
fn keep_port() -> TcpListener {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let given_away = range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768);
    let keep = |port: u16| {
        let kept = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        UdpSocket::bind(kept.local_addr().ok()?).ok()?;
        Some(kept)
    };
    (1_024..given_away).rev().chain([0]).find_map(keep).expect("a port is free")
}

/// Where a fleet has its files, and commands against it. Any thread may use it while another one kills.
pub(crate) struct Site {
    pub(crate) home: Home,
    /// Of the orchestrator, over all its starts.
    pub(crate) address: String,
    /// Keeps the port of the address for this site.
    _port: TcpListener,
    /// Nodes that were made.
    nodes: usize,
    clients: Vec<String>,
}

impl Site {
    fn new(nodes: usize, clients: &[&str]) -> (Self, Process) {
        require_siblings();
        let clients: Vec<String> = clients.iter().copied().map(String::from).collect();
        let port = keep_port();
        let address = port.local_addr().expect("is bound").to_string();
        let site = Self { home: Home::new(), address, _port: port, nodes, clients };
        let names = site.clients.iter().flat_map(|name| ["--client".to_owned(), name.clone()]);
        let names = names.chain(["--operator", "root"].map(String::from));
        let names = names.chain((0..nodes).flat_map(|number| ["--node".to_owned(), format!("n{number}")]));
        let made = site
            .command("modchain-orchestrator")
            .args(["init", "--data", "data", "--identities", "ids"])
            .args(names)
            .output()
            .expect("starts");
        assert!(made.status.success(), "{made:?}");
        let mut child = site.serving().stdout(Stdio::piped()).spawn().expect("starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("is piped")).read_line(&mut line).expect("reads");
        let orchestrator = Process(child);
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {}", site.log("data")));
        assert_eq!(ready["listen"], site.address.as_str());
        let members = site.clients.iter().map(String::as_str).chain(["root"]);
        members.for_each(|name| site.add_context(name, name, &site.address));
        for client in &site.clients {
            let amount = (GIVEN / 1_000_000).to_string();
            site.run(&["-c", "root", "credit", client, &amount]).expect(0);
        }
        (site, orchestrator)
    }

    /// Another context for this identity, whose orchestrator is at this address.
    pub(crate) fn add_context(&self, context: &str, identity: &str, address: &str) {
        let identity = self.home.path().join("ids").join(identity);
        let identity = identity.to_str().expect("text");
        self.run(&["context", "add", context, "--orchestrator", address, "--identity", identity]).expect(0);
    }

    /// A command of another of the programs, in the home of this fleet.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program().with_file_name(name));
        command.current_dir(self.home.path()).env("HOME", self.home.path()).stdin(Stdio::null());
        command
    }

    fn serving(&self) -> Command {
        let mut command = self.command("modchain-orchestrator");
        // Nobody joins here, so this port may be another one at each start.
        command.args(["serve", "--data", "data", "--listen", &self.address, "--join-listen", "127.0.0.1:0"]);
        let settings = self.home.path().join("orchestrator.toml");
        if settings.exists() {
            command.arg("--config").arg(settings);
        }
        command.stderr(self.append("data"));
        command
    }

    /// Starts the orchestrator; it does not serve yet.
    pub(crate) fn serve(&self) -> Process {
        Process(self.serving().stdout(Stdio::null()).spawn().expect("starts"))
    }

    /// Starts an agent.
    pub(crate) fn agent(&self, number: usize) -> Process {
        self.agent_at(number, &self.address)
    }

    /// Starts an agent whose orchestrator is at this address.
    pub(crate) fn agent_at(&self, number: usize, address: &str) -> Process {
        let data = format!("agent{number}");
        let child = self
            .command("modchain-agent")
            .args(["start", "--config", "/dev/null", "--orchestrator", address, "--memory", "1GiB"])
            .args(["--identity", &format!("ids/n{number}"), "--data", &data])
            .stderr(self.append(&data))
            .spawn();
        Process(child.expect("starts"))
    }

    /// Where the program with this data folder writes its log, all its starts one after the other.
    fn log_file(&self, data: &str) -> PathBuf {
        self.home.path().join(format!("{data}.log"))
    }

    fn append(&self, data: &str) -> File {
        OpenOptions::new().create(true).append(true).open(self.log_file(data)).expect("a log")
    }

    /// What the program with this data folder has written into its log.
    pub(crate) fn log(&self, data: &str) -> String {
        std::fs::read_to_string(self.log_file(data)).expect("reads")
    }

    /// Runs a command of the console to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        self.home.run(args)
    }

    /// Nodes that are ready; none while there is no orchestrator.
    pub(crate) fn ready(&self) -> usize {
        self.nodes().iter().filter(|node| node["state"] == "ready").count()
    }

    /// Waits until every node runs containers.
    pub(crate) fn wait_for_containers(&self) {
        eventually("all nodes run containers", || {
            let runs = |node: &&Value| node["types"].as_array().is_some_and(|types| types.contains(&"docker".into()));
            self.nodes().iter().filter(runs).count() == self.nodes
        });
    }

    fn nodes(&self) -> Vec<Value> {
        let done = self.run(&["-c", "root", "nodes", "-o", "json"]);
        if done.code == Some(0) { done.json()["items"].as_array().expect("a list").clone() } else { Vec::new() }
    }

    /// Containers on the engine of any of the nodes, whatever their state.
    pub(crate) fn containers(&self) -> Vec<String> {
        let of = |node: &Value| {
            let label = format!("label=modchain.node={}", node["id"].as_str().expect("an id"));
            docker(&["ps", "--all", "--filter", &label, "--format", "{{.Names}} {{.Status}}"])
        };
        self.nodes().iter().flat_map(|node| of(node).lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    /// One job.
    pub(crate) fn job(&self, id: &str) -> Value {
        self.run(&["-c", "root", "job", id, "-o", "json"]).expect(0).json()
    }

    /// The number of the agent on which the job is.
    pub(crate) fn place(&self, id: &str) -> usize {
        let job = self.job(id);
        let name = job["node"].as_str().unwrap_or_else(|| panic!("it is nowhere: {job:#}"));
        name.trim_start_matches('n').parse().expect("a number")
    }

    /// Every job of every client.
    pub(crate) fn jobs(&self) -> Vec<Value> {
        let done = self.run(&["-c", "root", "jobs", "--all", "--limit", "100000", "-o", "json"]).expect(0).json();
        done["items"].as_array().expect("a list").clone()
    }

    /// The lines of an account's statement, newest first.
    pub(crate) fn statement(&self, context: &str) -> Vec<Value> {
        let done = self.run(&["-c", context, "ledger", "--limit", "100000", "-o", "json"]).expect(0).json();
        done["items"].as_array().expect("a list").clone()
    }

    /// What the job's attempt of this number wrote to this stream, `out` or `err`.
    pub(crate) fn output(&self, id: &str, attempt: u64, stream: &str) -> String {
        let lines = self.run(&["-c", "root", "logs", id, "-o", "jsonl"]).expect(0).stdout;
        let pieces = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("a document a line"));
        let pieces = pieces.filter(|piece| piece["attempt"] == attempt && piece["stream"] == stream);
        pieces.map(|piece| piece["text"].as_str().expect("text").to_owned()).collect()
    }

    /// What the agent keeps of attempts.
    pub(crate) fn folders_of_attempts(&self, agent: usize) -> Vec<PathBuf> {
        let folder = self.home.path().join(format!("agent{agent}/attempts"));
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        entries.map(|entry| entry.expect("reads").path()).collect()
    }

    /// Results that the agent keeps, by its own word: it tells of none that is not on its disk.
    pub(crate) fn results_kept(&self, agent: usize) -> usize {
        let data = format!("agent{agent}");
        let asked = self.command("modchain-agent").args(["status", "-o", "json", "--data", &data]).output();
        let Ok(status) = serde_json::from_slice::<Value>(&asked.expect("starts").stdout) else { return 0 };
        let attempts = status["attempts"].as_array().expect("a list");
        attempts.iter().filter(|attempt| attempt["state"] == "ended").count()
    }

    /// Amounts of an account: available, held, earned. One that nothing was ever paid into is not known, and has none.
    pub(crate) fn account(&self, account: &str) -> [u64; 3] {
        let done = self.run(&["-c", "root", "account", account, "-o", "json"]);
        if done.code == Some(3) {
            return [0; 3];
        }
        let account = done.expect(0).json();
        ["available", "held", "earned"].map(|field| micro(&account, field))
    }

    /// A module that prints ten lines, with such a pause between them: see [`Home::ticking`].
    pub(crate) fn ticking(&self, nanoseconds: u32) -> String {
        self.home.ticking(nanoseconds)
    }

    /// The journal offline: whole, with every job ended and settled, and all the money that was given, to the micro-unit. The same is
    /// what the accounts say: what clients have left, what nodes earned and what the platform kept.
    #[track_caller]
    pub(crate) fn assert_money_is_whole(&self) {
        let given = GIVEN * self.clients.len() as u64;
        let earned: u64 = self.earners().iter().map(|account| self.account(account)[2]).sum();
        let clients = self.clients.iter().map(|client| self.account(client)).map(|[available, held, earned]| {
            assert_eq!((held, earned), (0, 0), "nothing is held any more, and clients earn nothing");
            available
        });
        assert_eq!(clients.sum::<u64>() + earned, given, "the accounts together");
        let verified = self.verify();
        assert_eq!((&verified["ok"], &verified["open_jobs"]), (&true.into(), &0.into()), "{verified:#}");
        assert_eq!(micro(&verified, "money"), given, "{verified:#}");
    }

    /// Accounts that jobs are paid into.
    fn earners(&self) -> Vec<String> {
        (0..self.nodes).map(|number| format!("n{number}")).chain(["root".to_owned()]).collect()
    }

    /// `ledger verify`.
    #[track_caller]
    pub(crate) fn verify(&self) -> Value {
        self.operate(&["ledger", "verify", "--data", "data"])
    }

    /// Runs a command of the orchestrator's program to its end; gives its document.
    #[track_caller]
    pub(crate) fn operate(&self, args: &[&str]) -> Value {
        let done = self.command("modchain-orchestrator").args(args).args(["-o", "json"]).output().expect("starts");
        assert!(done.status.success(), "{args:?}: {done:?}");
        serde_json::from_slice(&done.stdout).expect("one document")
    }

    /// No program has said that it broke.
    #[track_caller]
    pub(crate) fn assert_nobody_panicked(&self) {
        let logs = (0..self.nodes).map(|number| format!("agent{number}")).chain(["data".to_owned()]);
        for data in logs {
            let log = self.log(&data);
            let line = log.lines().find(|line| line.contains("panicked") || line.contains("breach"));
            assert_eq!(line, None, "in the log of {data}");
        }
    }
}

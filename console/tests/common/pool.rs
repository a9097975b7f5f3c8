//! A pool of the real programs that people join: an orchestrator of its own, and homes for whoever comes.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Done, Home, program, require_siblings, signal};

/// Longest wait for a program to end by itself.
const END_MAX: Duration = Duration::from_secs(20);

/// A program that is stopped when the test is over.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        signal(&self.0, "TERM");
        let until = Instant::now() + END_MAX;
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        // One that is gone already is not killed again.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A pool in a folder of its own: the orchestrator runs, and nobody is in but who joined.
pub(crate) struct Pool {
    _home: Home,
    /// Where people join.
    pub(crate) join: String,
    /// The first operator's token.
    pub(crate) operator_token: String,
    _orchestrator: Running,
}

impl Pool {
    /// Makes a pool and serves it, with these flags besides.
    pub(crate) fn start(serve: &[&str]) -> Self {
        require_siblings();
        let home = Home::new();
        let data = home.path().join("orchestrator").display().to_string();
        let made =
            sibling(&home, "modchain-orchestrator", &["init", "--name", "lab", "--data", &data, "-o", "json"], "");
        let made = made.expect(0).json();
        let operator_token = made["operator_token"].as_str().unwrap_or_else(|| panic!("{made:#}")).to_owned();
        let line = [&["serve", "--data", &data, "--listen", "127.0.0.1:0"][..], serve].concat();
        let mut child = sibling_command(&home, "modchain-orchestrator")
            .args(line)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("is piped")).read_line(&mut ready).expect("reads");
        let ready: Value = serde_json::from_str(&ready).unwrap_or_else(|error| panic!("{error}: {ready}"));
        let join = ready["join"].as_str().unwrap_or_else(|| panic!("{ready:#}")).to_owned();
        Self { _home: home, join, operator_token, _orchestrator: Running(child) }
    }

    /// A person with a home of its own who joins with this token.
    pub(crate) fn person(&self, token: &str) -> (Home, Value) {
        let home = Home::new();
        let joined = self.join(&home, token).expect(0).json();
        (home, joined)
    }

    /// Joins from this home.
    pub(crate) fn join(&self, home: &Home, token: &str) -> Done {
        let line = ["join", "--orchestrator", &self.join, "--token-file", "-", "-o", "json"];
        home.run_with_input(&line, token.as_bytes())
    }

    /// The home of the first operator, who has joined.
    pub(crate) fn operator(&self) -> Home {
        self.person(&self.operator_token).0
    }

    /// Joins a node from this home.
    pub(crate) fn agent_join(&self, home: &Home, token: &str) -> Done {
        let data = agent_data(home);
        let line = ["join", "--orchestrator", &self.join, "--token-file", "-", "--data", &data, "-o", "json"];
        sibling(home, "modchain-agent", &line, token)
    }

    /// Starts the agent of this home; what it says goes into this file there.
    pub(crate) fn agent_start(home: &Home, log: &str) -> Running {
        Self::agent_start_with(home, log, &[])
    }

    /// The same, with these variables.
    pub(crate) fn agent_start_with(home: &Home, log: &str, variables: &[(&str, &Path)]) -> Running {
        let mut command = sibling_command(home, "modchain-agent");
        // Whatever else runs on this machine is not for these tests to touch.
        command.env("MODCHAIN_AGENT_ADAPTERS", "wasm").envs(variables.iter().copied());
        let log = File::create(home.path().join(log)).expect("a log");
        command.args(["start", "--data", &agent_data(home)]).stdout(Stdio::null()).stderr(log);
        Running(command.spawn().expect("starts"))
    }
}

/// Where the agent of a home keeps everything.
pub(crate) fn agent_data(home: &Home) -> String {
    home.path().join("agent").display().to_string()
}

/// Another of the three programs, in this home.
pub(crate) fn sibling_command(home: &Home, name: &str) -> Command {
    let mut command = Command::new(program().with_file_name(name));
    for (key, value) in home.command(&[]).get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    command.stdin(Stdio::null()).current_dir(home.path());
    command
}

/// Runs another of the three programs to its end.
pub(crate) fn sibling(home: &Home, name: &str, args: &[&str], input: &str) -> Done {
    let mut command = sibling_command(home, name);
    command.args(args);
    Done::with_input(command, args, input.as_bytes())
}

/// A new token.
pub(crate) fn token(home: &Home, args: &[&str]) -> String {
    let line = [&["token", "create", "-q"][..], args].concat();
    home.run(&line).expect(0).stdout.trim_end().to_owned()
}

/// The one object of an error.
pub(crate) fn error(done: &Done) -> Value {
    serde_json::from_str(&done.stderr).unwrap_or_else(|error| panic!("{error}: {done:#?}"))
}

/// Every identity, revoked ones too.
pub(crate) fn certs(home: &Home) -> Vec<Value> {
    let listed = home.run(&["cert", "list", "--all", "-o", "json"]).expect(0).json();
    listed["items"].as_array().expect("items").clone()
}

/// One identity.
pub(crate) fn cert(home: &Home, role: &str, name: &str) -> Value {
    let found = certs(home).into_iter().find(|c| c["identity"]["role"] == role && c["identity"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {role}/{name}"))
}

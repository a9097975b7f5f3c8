//! A local stack of the real programs in a folder of its own, and commands against it.

pub(crate) mod chaos;
pub(crate) mod engine;
pub(crate) mod fleet;
pub(crate) mod money;
pub(crate) mod pool;
pub(crate) mod term;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for anything in these tests: machines that build at the same time are slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The program under test.
pub(crate) fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_modchain"))
}

/// A folder that stands for a user's home, so that tests touch nobody's files.
pub(crate) struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A command in this home, with nothing of the surroundings in it.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(args).current_dir(examples()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MODCHAIN_") || name.to_string_lossy().starts_with("XDG_") {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.path()).env("XDG_RUNTIME_DIR", self.path());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        Done::of(self.command(args).output().expect("starts"), args)
    }

    /// Runs a command with this on its standard input.
    pub(crate) fn run_with_input(&self, args: &[&str], input: &[u8]) -> Done {
        Done::with_input(self.command(args), args, input)
    }

    /// A module of the examples that prints ten lines, with another pause between them, in nanoseconds below 2³².
    pub(crate) fn ticking(&self, nanoseconds: u32) -> String {
        let text = std::fs::read_to_string(examples().join("slow.wat")).expect("the example is there");
        let bytes = |number: u32| number.to_le_bytes().map(|byte| format!("\\{byte:02x}")).concat();
        let (second, pause) = (bytes(1_000_000_000), bytes(nanoseconds));
        assert!(text.contains(&second), "it waits a second");
        let path = self.path().join(format!("ticking-{nanoseconds}.wat"));
        std::fs::write(&path, text.replace(&second, &pause)).expect("writes");
        path.display().to_string()
    }
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) line: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    /// Runs a command with this on its standard input; `args` is what to call it by.
    pub(crate) fn with_input(mut command: Command, args: &[&str], input: &[u8]) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        // A program that ends early closes the pipe, and that is for the assertions to judge.
        let _ = child.stdin.take().expect("is piped").write_all(input);
        Self::of(child.wait_with_output().expect("ends"), args)
    }

    fn of(output: Output, args: &[&str]) -> Self {
        Self {
            line: args.join(" "),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The same, if it ended with this code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Its standard output as a document.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// Where the example programs lie.
pub(crate) fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// The two other programs must lie beside this one.
pub(crate) fn require_siblings() {
    for name in ["modchain-orchestrator", "modchain-agent"] {
        let path = program().with_file_name(name);
        assert!(path.is_file(), "{} is missing: run cargo test --workspace", path.display());
    }
}

/// A running `up --headless`.
pub(crate) struct Stack {
    pub(crate) home: Home,
    pub(crate) up: Child,
}

impl Stack {
    pub(crate) fn start() -> Self {
        Self::start_with(|_, _| {})
    }

    /// With what `prepare` puts into the home or changes about the command.
    pub(crate) fn start_with(prepare: impl FnOnce(&Home, &mut Command)) -> Self {
        require_siblings();
        let home = Home::new();
        let mut command = home.command(&["up", "--headless", "-o", "json"]);
        prepare(&home, &mut command);
        let mut up = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        let mut line = String::new();
        BufReader::new(up.stdout.take().expect("is piped")).read_line(&mut line).expect("reads");
        if line.is_empty() {
            let mut said = String::new();
            std::io::Read::read_to_string(&mut up.stderr.take().expect("is piped"), &mut said).expect("reads");
            panic!("up is not ready: {said}");
        }
        let ready: serde_json::Value = serde_json::from_str(&line).expect("one document");
        assert_eq!(ready["schema"], "modchain.up/v1");
        Self { home, up }
    }

    pub(crate) fn run(&self, args: &[&str]) -> Done {
        self.home.run(args)
    }

    /// One job.
    pub(crate) fn job(&self, job: &str) -> serde_json::Value {
        self.run(&["job", job, "-o", "json"]).expect(0).json()
    }

    /// Waits until the only node runs jobs of this kind.
    pub(crate) fn wait_for_adapter(&self, adapter: &str) {
        eventually(&format!("the node runs {adapter} jobs"), || {
            let node = self.node();
            node["types"].as_array().is_some_and(|types| types.iter().any(|known| *known == adapter))
        });
    }

    /// The only node.
    pub(crate) fn node(&self) -> serde_json::Value {
        self.run(&["nodes", "-o", "json"]).expect(0).json()["items"][0].clone()
    }

    /// Kills the orchestrator, which is the child of `up` that serves; `up` starts it again.
    pub(crate) fn kill_orchestrator(&self) {
        self.signal_orchestrator("KILL");
    }

    /// The orchestrator's process.
    pub(crate) fn orchestrator(&self) -> String {
        let pids = Command::new("ps").args(["-o", "pid=,args=", "--ppid", &self.up.id().to_string()]).output();
        let pids = String::from_utf8(pids.expect("ps is there").stdout).expect("text");
        let orchestrator = pids.lines().find(|line| line.contains("modchain-orchestrator")).expect("it runs");
        orchestrator.split_whitespace().next().expect("a number").to_owned()
    }

    /// Sends the orchestrator a signal by its name.
    pub(crate) fn signal_orchestrator(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.orchestrator()]).status();
        assert!(sent.expect("kill is there").success());
    }

    /// Available balance in micro-units.
    pub(crate) fn available(&self, context: &str) -> u64 {
        let account = self.run(&["-c", context, "account", "-o", "json"]).expect(0).json();
        account["available"]["micro"].as_u64().expect("a number")
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // A test that failed may have left it stopped, and then it would hear nothing.
        signal(&self.up, "CONT");
        signal(&self.up, "TERM");
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if matches!(self.up.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.up.kill();
    }
}

/// A command that goes on until it is told to stop.
pub(crate) struct Watching {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Watching {
    /// Starts it; what it says goes nowhere.
    pub(crate) fn start(home: &Home, args: &[&str]) -> Self {
        let mut child = home.command(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("is piped")).lines();
        Self { child, lines }
    }

    /// Reads on to the first line that fits.
    pub(crate) fn until(&mut self, mut wanted: impl FnMut(&str) -> bool) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let line = self.lines.next().expect("it goes on").expect("reads");
            assert!(Instant::now() < until, "not in time; the last line is {line}");
            if wanted(&line) {
                return line;
            }
        }
    }

    /// Its exit code when it ends by itself.
    pub(crate) fn end(mut self) -> Option<i32> {
        while self.lines.next().is_some_and(|line| line.is_ok()) {}
        self.child.wait().expect("ends").code()
    }

    /// Its exit code after Ctrl-C.
    pub(crate) fn interrupt(mut self) -> Option<i32> {
        signal(&self.child, "INT");
        self.child.wait().expect("ends").code()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal by its name.
pub(crate) fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status();
    assert!(sent.is_ok(), "kill is there");
}

/// Asks again and again until it is so.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(30));
    }
}

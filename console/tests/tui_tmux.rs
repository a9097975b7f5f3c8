//! The console under tmux, a second terminal that was not written for these tests, with a real shell around it.
#![allow(missing_docs, reason = "a test is documented by its name")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

use std::process::Command;

use common::{Stack, eventually, program};

/// Whether there is a tmux. Without one a test says so and passes, except where everything must be tested.
fn tmux_is_there() -> bool {
    let there = Command::new("tmux").arg("-V").output().is_ok_and(|output| output.status.success());
    if !there {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI=true, and there is no tmux");
        eprintln!("skipped: there is no tmux here");
    }
    there
}

/// A tmux server of its own with one window, in which a shell runs.
struct Tmux<'a> {
    stack: &'a Stack,
}

impl<'a> Tmux<'a> {
    fn start(stack: &'a Stack) -> Self {
        let tmux = Self { stack };
        tmux.run(&["new-session", "-d", "-x", "120", "-y", "36", "sh"]);
        tmux.run(&["set-option", "-g", "escape-time", "0"]);
        tmux
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.stack.home.path().join("tmux")).args(["-f", "/dev/null"]).args(args);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.stack.home.path()).env("XDG_RUNTIME_DIR", self.stack.home.path());
        command.env("LC_ALL", "C.UTF-8").env("PS1", "$ ").env("TERM", "xterm-256color");
        command
    }

    fn run(&self, args: &[&str]) -> String {
        let done = self.command(args).output().expect("tmux starts");
        assert!(done.status.success(), "{args:?}: {done:?}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    fn keys(&self, keys: &[&str]) {
        self.run(&[&["send-keys"], keys].concat());
    }

    /// Types a line into the shell.
    fn line(&self, line: &str) {
        self.run(&["send-keys", "-l", line]);
        self.keys(&["Enter"]);
    }

    fn screen(&self) -> String {
        self.run(&["capture-pane", "-p"])
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        eventually(&format!("{text} is on the screen"), || self.screen().contains(text));
    }

    #[track_caller]
    fn wait_gone(&self, text: &str) {
        eventually(&format!("{text} is gone"), || !self.screen().contains(text));
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        // Only this server: it has a socket of its own.
        let _ = self.command(&["kill-server"]).output();
    }
}

#[test]
fn it_starts_and_leaves_a_shell_as_it_was() {
    if !tmux_is_there() {
        return;
    }
    let stack = Stack::start();
    let tmux = Tmux::start(&stack);
    // What is waited for is the answer, not the line that asks.
    tmux.line("stty -g; echo before-$((6 * 7))");
    tmux.wait_for("before-42");
    tmux.line(&program().display().to_string());
    tmux.wait_for("● live");
    assert!(!tmux.screen().contains("before-42"), "it has a screen of its own");
    tmux.keys(&["q"]);
    tmux.wait_for("before-42");
    tmux.line("echo code-$?; stty -g; echo after-$((6 * 7))");
    tmux.wait_for("after-42");
    assert!(tmux.screen().contains("code-0"), "{}", tmux.screen());
    let screen = tmux.screen();
    // The shell may have shown its first prompt only when the line was typed already.
    let modes: Vec<&str> = screen.lines().filter(|line| line.matches(':').count() > 20).collect();
    let modes: Vec<&str> = modes.into_iter().map(|line| line.trim_start_matches(['#', '$', ' '])).collect();
    assert!(modes.len() == 2 && modes[0] == modes[1], "{screen}");
    assert_eq!(
        tmux.run(&["display-message", "-p", "#{cursor_flag} #{alternate_on} #{mouse_any_flag}"]).trim(),
        "1 0 0"
    );
}

#[test]
fn it_takes_every_size() {
    if !tmux_is_there() {
        return;
    }
    let stack = Stack::start();
    let tmux = Tmux::start(&stack);
    tmux.line(&program().display().to_string());
    tmux.wait_for("● live");
    for step in 0..40 {
        let (columns, rows) = (10 + step * 37 % 220, 2 + step * 23 % 70);
        tmux.run(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }
    tmux.run(&["resize-window", "-x", "40", "-y", "10"]);
    tmux.wait_for("needs 60x16, is 40x10");
    tmux.run(&["resize-window", "-x", "100", "-y", "30"]);
    eventually("the lines around the view are where they belong", || {
        let screen = tmux.screen();
        let lines: Vec<&str> = screen.lines().collect();
        lines.len() == 30 && lines[0].starts_with(" MODCHAIN") && lines[29].contains("Enter open")
    });
    assert_eq!(tmux.screen().matches("MODCHAIN").count(), 1);
    tmux.keys(&["q"]);
    tmux.wait_gone("MODCHAIN");
}

#[test]
fn ctrl_z_gives_the_shell_back_and_fg_the_console() {
    if !tmux_is_there() {
        return;
    }
    let stack = Stack::start();
    let tmux = Tmux::start(&stack);
    tmux.line("set -m");
    tmux.line(&program().display().to_string());
    tmux.wait_for("● live");
    tmux.keys(&["3"]);
    tmux.wait_for("[3 Jobs]");
    tmux.keys(&["C-z"]);
    tmux.wait_gone("[3 Jobs]");
    // The shell has a line that works as one is used to.
    tmux.line("echo in the shell $((6 * 7))");
    tmux.wait_for("in the shell 42");
    assert_eq!(tmux.run(&["display-message", "-p", "#{cursor_flag} #{alternate_on}"]).trim(), "1 0");
    // What happens meanwhile is there afterwards.
    stack.run(&["run", "-q", "--wasm", "hello.wat", "--max-cost", "0.10", "--name", "meanwhile"]).expect(0);
    tmux.line("fg");
    tmux.wait_for("[3 Jobs]");
    tmux.wait_for("meanwhile");
    // Once more: what was good the first time must not have been luck.
    tmux.keys(&["C-z"]);
    tmux.wait_gone("[3 Jobs]");
    tmux.line("fg");
    tmux.wait_for("meanwhile");
    tmux.keys(&["q"]);
    tmux.wait_gone("meanwhile");
}

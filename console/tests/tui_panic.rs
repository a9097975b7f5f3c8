//! What is left behind when the console fails: the real program on a pseudo-terminal, with a bug on purpose that only builds with debug
//! assertions have.
#![cfg(debug_assertions)]
#![allow(missing_docs, reason = "a test is documented by its name")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

use common::Stack;
use common::term::{Start, Term};

const F12: &str = "\x1b[24~";

#[test]
fn a_bug_gives_the_terminal_back_and_is_written_down_wherever_it_is() {
    if std::env::var_os("MODCHAIN_TEST_PROGRAM").is_some() {
        println!("skipped: a program that is built to be shipped has no bug on purpose");
        return;
    }
    let stack = Stack::start();
    for (place, message) in [("screen", "a test wants the screen to fail"), ("task", "a test wants a task to fail")] {
        let start = Start { env: &[("MODCHAIN_TEST_PANIC", place)], ..Start::default() };
        let mut term = Term::open_with(&stack.home, &["console", "--view", "jobs"], start);
        term.wait_for("● live");
        // With everything on that can be on.
        term.keys(":mouse on\r");
        term.wait("the mouse is on", |screen| screen.mouse_protocol_mode() != vt100::MouseProtocolMode::None);
        term.press("?", "type to search keys");
        term.keys(F12);
        term.ends_clean(101);
        // People are told where to read more, on the screen that was there before.
        let said = term.text();
        assert!(said.contains("the console has failed") && said.contains(message), "{}", term.picture());
        let state = stack.home.path().join(".local/state/modchain");
        let crashes: Vec<_> = std::fs::read_dir(&state)
            .expect("the folder is there")
            .map(|entry| entry.expect("reads").path())
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("crash-")))
            .collect();
        let [crash] = &crashes[..] else { panic!("{crashes:?}") };
        let text = std::fs::read_to_string(crash).expect("reads");
        let version = format!("modchain {}", env!("CARGO_PKG_VERSION"));
        assert!(text.starts_with(&version) && text.contains(message) && text.contains("mishap.rs"), "{text}");
        std::fs::remove_file(crash).expect("removes");
    }
    // Without the variable the key is a key like any other.
    let mut term = Term::open(&stack.home, &["console", "--view", "jobs"]);
    term.wait_for("● live");
    term.keys(F12);
    term.press("?", "type to search keys");
    term.keys("\x1b");
    term.wait_gone("type to search keys");
    term.keys("q");
    term.ends_clean(0);
}

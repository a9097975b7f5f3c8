//! What people see and do in the console: the real program on a pseudo-terminal against a real orchestrator.
#![allow(missing_docs, reason = "a test is documented by its name")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

use std::path::PathBuf;

use common::term::{ENTER, ESC, Term, rows};
use common::{Home, Stack, eventually};

/// More than any table has columns.
const COLUMNS_MAX: usize = 40;

/// A console that has everything that its orchestrator knows.
fn live(stack: &Stack, args: &[&str]) -> Term {
    let mut term = Term::open(&stack.home, args);
    term.wait_for("● live");
    term
}

/// Submits a job and does not wait for its end.
fn submit(stack: &Stack, program: &str, more: &[&str]) -> String {
    let line = ["run", "-d", "-q", "--wasm", program, "--max-cost", "0.10"];
    let line: Vec<&str> = line.iter().chain(more).copied().collect();
    stack.run(&line).expect(0).stdout.trim().to_owned()
}

/// A program that writes these bytes and ends.
fn printer(home: &Home, bytes: &[u8]) -> PathBuf {
    let text: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let length: String = (bytes.len() as u32).to_le_bytes().iter().map(|byte| format!("\\{byte:02x}")).collect();
    let source = format!(
        r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00{length}")
  (data (i32.const 16) "{text}")
  (func (export "_start") (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    );
    let path = home.path().join("printer.wat");
    std::fs::write(&path, source).expect("writes");
    path
}

#[test]
fn the_first_frame_waits_for_nobody() {
    let mut stack = Stack::start();
    common::signal(&stack.up, "TERM");
    stack.up.wait().expect("ends");
    let mut term = Term::open(&stack.home, &[]);
    term.wait_for("MODCHAIN");
    println!("first frame after {:?}", term.age());
    term.wait_for("LINK LOST");
    // It does not leave by itself, and everything that needs no link works.
    for (key, tab) in [("3", "[3 Jobs]"), ("2", "[2 Nodes]")] {
        term.press(key, tab);
    }
    term.press("R", "LINK LOST");
    term.press("?", "type to search keys");
    term.keys(ESC);
    term.wait_gone("type to search keys");
    term.keys("q");
    term.ends_clean(0);
}

#[test]
fn every_view_is_one_key_away_and_back() {
    let stack = Stack::start();
    let mut term = live(&stack, &["-c", "local-operator"]);
    for (key, tab) in
        [("2", "[2 Nodes]"), ("3", "[3 Jobs]"), ("4", "[4 Events]"), ("5", "[5 Account]"), ("6", "[6 Access]")]
    {
        term.press(key, tab);
    }
    term.press("-", "[5 Account]");
    term.press("2", "[2 Nodes]");
    term.wait_selected("local-1");
    term.press(ENTER, "Nodes › local-1");
    term.keys(ESC);
    term.wait_gone("› local-1");
    term.press("1", "[1 Overview]");
}

#[test]
fn a_job_of_the_command_line_appears_by_itself_and_its_output_is_followed_to_the_end() {
    let stack = Stack::start();
    let mut term = live(&stack, &["console", "--view", "jobs"]);
    term.wait_for("no jobs yet");
    submit(&stack, "slow.wat", &["--name", "slow"]);
    term.wait_selected("slow");
    term.wait_selected("running");
    term.press("l", "› output");
    // A line is there while the job runs, without a key.
    term.wait_for("line 0");
    let job = stack.job("slow");
    assert_eq!(job["state"], "running", "a line came before the end: {job:#}\n{}", term.picture());
    term.wait_for("line 9");
    term.wait_for("completed, exit code 0");
    let job = stack.job("slow");
    assert_eq!(job["state"], "completed", "{job:#}");
    let lines = rows(term.screen()).filter(|row| row.contains("line ")).count();
    assert_eq!(lines, 10, "each line once:\n{}", term.picture());
    term.press(ESC, "[3 Jobs]");
    term.wait_selected("✓ done");
}

#[test]
fn tables_are_filtered_sorted_and_marked() {
    let stack = Stack::start();
    for name in ["alpha-1", "alpha-2", "beta-1"] {
        stack.run(&["run", "--wasm", "hello.wat", "--max-cost", "0.10", "--name", name]).expect(0);
    }
    let mut term = live(&stack, &["console", "--view", "jobs"]);
    term.wait_for("3 jobs");
    // The filter works while one types; Enter keeps it.
    term.keys("/");
    term.press("name:alpha", "2 of 3");
    term.wait_gone("beta-1");
    term.press(ENTER, "Esc clears");
    term.keys(ESC);
    term.wait_for("beta-1");
    // One that makes no sense says why, and the last good one stays.
    term.keys("/");
    term.keys("~[");
    term.wait("a reason", |screen| rows(screen).any(|row| row.starts_with(" /~[") && row.contains("column")));
    term.wait_for("beta-1");
    term.keys(ESC);
    term.wait_gone("/~[");
    // By name, and the other way round.
    let order = |screen: &vt100::Screen| -> Vec<String> {
        let names = rows(screen);
        names
            .filter_map(|row| {
                ["alpha-1", "alpha-2", "beta-1"].iter().find(|name| row.contains(*name)).map(ToString::to_string)
            })
            .collect()
    };
    term.press("s", "Sort by");
    term.keys(ESC);
    term.wait_gone("Sort by");
    for _ in 0..COLUMNS_MAX {
        let title =
            |screen: &vt100::Screen| rows(screen).find_map(|row| row.split_once(" · by ").map(|(_, by)| by.to_owned()));
        let before = title(term.screen());
        if before.as_ref().is_some_and(|by| by.starts_with("NAME")) {
            break;
        }
        term.keys(">");
        term.wait("another order", |screen| title(screen).is_some_and(|by| Some(by) != before));
    }
    let sorted = |up: bool| {
        let mut names = vec!["alpha-1".to_owned(), "alpha-2".to_owned(), "beta-1".to_owned()];
        if !up {
            names.reverse();
        }
        names
    };
    term.wait("sorted by name", |screen| order(screen) == sorted(true) || order(screen) == sorted(false));
    let up = order(term.screen()) == sorted(true);
    term.keys("S");
    term.wait("the other way round", |screen| order(screen) == sorted(!up));
    // Marks are counted.
    term.keys("g");
    term.keys("g");
    term.press(" ", "1 marked");
    term.press(" ", "2 marked");
    term.keys(ESC);
    term.wait_gone("marked");
    // More columns.
    term.press("w", "columns: ");
    term.keys("q");
    term.ends_clean(0);
}

#[test]
fn cancel_asks_first_and_enter_means_no() {
    let stack = Stack::start();
    let id = submit(&stack, "forever.wat", &["--name", "endless"]);
    let mut term = live(&stack, &["console", "--view", "jobs"]);
    term.wait_selected("running");
    for no in [ENTER, "N", "n", ESC] {
        term.press("x", "Cancel job?");
        // What the same would be on a command line is shown.
        term.wait_for("modchain cancel -y");
        term.keys(no);
        term.wait_gone("Cancel job?");
    }
    assert_eq!(stack.job(&id)["state"], "running");
    term.press("x", "Cancel job?");
    term.keys("y");
    term.wait_gone("Cancel job?");
    term.wait_selected("cancelled");
    let job = stack.job(&id);
    let micro = |field: &str| job[field]["micro"].as_u64().expect("a number");
    assert_eq!(micro("cost") + micro("refund"), micro("hold"), "{job:#}");
    // The account on the screen is the account.
    let whole = stack.available("local");
    term.press("5", "[5 Account]");
    let shown = format!("{}.{:06}", whole / 1_000_000, whole % 1_000_000);
    let shown = &shown[..6];
    term.wait_for(shown);
}

#[test]
fn a_read_only_console_changes_nothing_and_filters_come_from_the_command_line() {
    let stack = Stack::start();
    let id = submit(&stack, "forever.wat", &["--name", "endless"]);
    stack.run(&["run", "--wasm", "hello.wat", "--max-cost", "0.10", "--name", "other"]).expect(0);
    let mut term = live(&stack, &["console", "--view", "jobs", "--filter", "name:endless", "--read-only"]);
    term.wait_selected("endless");
    term.wait_for("1 of 2");
    assert!(term.row_with("other").is_none(), "{}", term.picture());
    term.press("x", "read-only");
    term.keys("y");
    term.keys("q");
    term.ends_clean(0);
    assert_eq!(stack.job(&id)["state"], "running");
}

#[test]
fn hostile_output_and_names_do_nothing_to_the_terminal() {
    let stack = Stack::start();
    let output = "safe \x1b[31mred\x1b[0m end\n\
        \x1b]52;c;aGFja2Vk\x07clip\n\
        \x1b]0;evil title\x07title\n\
        \x1b[2J\x1b[Hcleared\n\
        \x1b[?1049lleft\n\
        \x1b[?1003hmouse\n\
        \u{202e}bidi\n\
        \x1bP1;2|dcs\x1b\\string\n\
        wide \u{4f60}\u{597d} end\n\
        last\n";
    let program = printer(&stack.home, output.as_bytes());
    let program = program.display().to_string();
    // A name is printable ASCII, or no name at all.
    let named = stack.run(&["run", "--wasm", &program, "--max-cost", "0.10", "--name", "\u{202e}gnp"]).expect(2);
    assert!(named.stderr.contains("printable ASCII"), "{named:#?}");
    stack.run(&["run", "--wasm", &program, "--max-cost", "0.10", "--name", "printer"]).expect(0);
    let mut term = live(&stack, &["console", "--view", "jobs"]);
    term.wait_selected("printer");
    term.wait_selected("✓ done");
    term.press("l", "› output");
    term.wait_for("last");
    term.wait("the colour is kept", |screen| {
        let (rows, columns) = screen.size();
        (0..rows.get()).any(|row| {
            (0..columns.get()).any(|column| {
                let text = |at: u16| screen.cell(row, at).map_or("", |cell| cell.contents());
                let is_red = text(column) == "r" && text(column + 1) == "e" && text(column + 2) == "d";
                is_red && screen.cell(row, column).is_some_and(|cell| cell.fgcolor() != vt100::Color::Default)
            })
        })
    });
    for word in
        ["safe red end", "clip", "title", "cleared", "left", "mouse", "bidi", "string", "wide \u{4f60}\u{597d} end"]
    {
        term.wait_for(word);
    }
    let screen = term.screen();
    assert!(screen.alternate_screen(), "{}", term.picture());
    assert_eq!(screen.mouse_protocol_mode(), vt100::MouseProtocolMode::None);
    let raw = String::from_utf8_lossy(&term.raw);
    for evil in ["\x1b]", "\x1bP", "\x1b[?1003h", "\u{202e}", "aGFja2Vk", "evil title"] {
        assert!(!raw.contains(evil), "{evil:?} came through");
    }
    // The edges are where they belong, wide characters or not.
    term.keys(ESC);
    term.wait_selected("✓ done");
    let row = term.row_with("✓ done").expect("a row");
    let edge = (0..120).rev().find(|column| term.screen().cell(row, *column).is_some_and(|cell| cell.has_contents()));
    assert_eq!(edge, Some(119), "{}", term.picture());
}

#[test]
fn another_context_is_one_command_away() {
    let stack = Stack::start();
    submit(&stack, "hello.wat", &["--name", "mine"]);
    let mut term = live(&stack, &["console", "--view", "jobs"]);
    term.wait_selected("mine");
    // A second client sees none of it, the operator all.
    term.keys(":");
    term.press("ctx local-second\r", "acct local-second");
    term.wait_for("no jobs yet");
    term.keys(":");
    term.press("ctx local-operator\r", "ctx local-operator");
    term.wait_selected("mine");
    term.keys(":q\r");
    term.ends_clean(0);
}

#[test]
fn what_is_copied_goes_into_the_clipboard_of_the_terminal() {
    let stack = Stack::start();
    let id = submit(&stack, "hello.wat", &["--name", "copied"]);
    let mut term = live(&stack, &["console", "--view", "jobs"]);
    term.wait_selected("copied");
    term.press("c", "copied");
    let encoded = {
        let line = format!("printf %s '{id}' | base64 -w0");
        let done = std::process::Command::new("sh").args(["-c", &line]).output().expect("starts");
        String::from_utf8(done.stdout).expect("text")
    };
    let wanted = format!("\x1b]52;c;{encoded}\x07");
    eventually("the clipboard has it", || {
        term.pump(std::time::Duration::from_millis(5));
        String::from_utf8_lossy(&term.raw).contains(&wanted)
    });
}

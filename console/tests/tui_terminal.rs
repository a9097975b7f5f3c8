//! What the console does to a terminal, and that it gives it back: the real program on a pseudo-terminal against a real orchestrator.
#![allow(missing_docs, reason = "a test is documented by its name")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

use std::time::Duration;

use common::term::{CTRL_C, ENTER, ESC, Start, Term};
use common::{Stack, eventually};

/// The keys of the views, and how they show that one is there.
const TABS: [(&str, &str); 6] = [
    ("2", "[2 Nodes]"),
    ("3", "[3 Jobs]"),
    ("4", "[4 Events]"),
    ("5", "[5 Account]"),
    ("6", "[6 Access]"),
    ("1", "[1 Overview]"),
];

/// A console that has everything that its orchestrator knows.
fn live(stack: &Stack, args: &[&str]) -> Term {
    let mut term = Term::open(&stack.home, args);
    term.wait_for("● live");
    term
}

#[test]
fn q_leaves_and_the_terminal_is_as_it_was() {
    let stack = Stack::start();
    let mut term = live(&stack, &[]);
    let screen = term.screen();
    assert!(screen.alternate_screen() && screen.hide_cursor() && screen.bracketed_paste());
    assert_eq!(screen.mouse_protocol_mode(), vt100::MouseProtocolMode::None, "selecting text with the mouse works");
    term.keys("q");
    term.ends_clean(0);
}

#[test]
fn the_second_ctrl_c_leaves_and_the_first_says_so() {
    let stack = Stack::start();
    let mut term = live(&stack, &[]);
    term.press("?", "type to search keys");
    term.keys(CTRL_C);
    term.wait_gone("type to search keys");
    term.press(CTRL_C, "Ctrl-C again, or :q, to quit");
    // The word holds for two seconds: if they are over, the first of these is a first one again.
    term.keys(&CTRL_C.repeat(2));
    term.ends_clean(0);
}

#[test]
fn ctrl_l_paints_everything_anew_and_the_terminal_is_never_asked_anything() {
    let stack = Stack::start();
    let mut term = live(&stack, &["console", "--view", "jobs"]);
    term.wait_for("no jobs yet");
    let before = term.raw.len();
    term.keys("\x0c");
    eventually("the screen is drawn once more", || {
        term.pump(Duration::from_millis(5));
        String::from_utf8_lossy(&term.raw[before..]).contains("MODCHAIN")
    });
    term.wait_for("no jobs yet");
    term.keys("q");
    term.ends_clean(0);
    // Nobody answers here: who asks where the cursor is, or what this terminal is, would wait for ever.
    let raw = String::from_utf8_lossy(&term.raw);
    assert!(!raw.contains("\x1b[6n") && !raw.contains("\x1b[c"), "a question to the terminal");
}

#[test]
fn signals_give_the_terminal_back_too() {
    let stack = Stack::start();
    for (name, code) in [("TERM", 143), ("HUP", 129)] {
        let mut term = live(&stack, &["console", "--view", "jobs"]);
        // With everything on that can be on.
        term.keys(":mouse on\r");
        term.wait("the mouse is on", |screen| screen.mouse_protocol_mode() != vt100::MouseProtocolMode::None);
        term.press("?", "type to search keys");
        term.signal(name);
        term.ends_clean(code);
    }
}

#[test]
fn a_terminal_that_goes_away_ends_the_console() {
    let stack = Stack::start();
    let mut term = live(&stack, &[]);
    term.hang_up();
    assert_eq!(term.ended(), 129);
}

/// Whoever polls first: the reader of keys, which is told of an end in no way, the signals, or what looks at the terminal itself.
#[test]
fn a_terminal_that_goes_away_while_keys_come_ends_the_console() {
    let stack = Stack::start();
    // What `env` blocks stays blocked: the program hears of nothing but the end of its input.
    let silent = ["env", "--block-signal=HUP"];
    for round in 0..16 {
        let by = if round % 2 == 0 { &silent[..] } else { &[] };
        let mut term = Term::open_with(&stack.home, &[], Start { by, ..Start::default() });
        term.wait_for("● live");
        for _ in 0..round {
            term.keys("123");
        }
        term.hang_up();
        assert_eq!(term.ended(), 129, "round {round}");
    }
}

#[test]
fn what_was_typed_and_chosen_is_kept_when_the_terminal_goes_away() {
    let stack = Stack::start();
    let kept = |name: &str| std::fs::read_to_string(stack.home.path().join(".local/state/modchain").join(name));
    let mut term = live(&stack, &[]);
    term.keys(":mouse on\r");
    term.wait("the mouse is on", |screen| screen.mouse_protocol_mode() != vt100::MouseProtocolMode::None);
    assert!(kept("ui.json").is_err(), "it is written at the end");
    term.hang_up();
    assert_eq!(term.ended(), 129);
    assert!(kept("history").expect("is kept").contains("mouse on"));
    kept("ui.json").expect("is kept");
}

/// The loop of the console waits for the editor then, and sees nothing.
#[test]
fn a_terminal_that_goes_away_under_an_editor_ends_the_console() {
    let stack = Stack::start();
    let editor = stack.home.path().join("editor");
    // It does not mind, and is there as long as the console is.
    let script = "#!/bin/sh\ntrap '' HUP\necho the editor is open\nexec tail --pid=$PPID -f /dev/null\n";
    std::fs::write(&editor, script).expect("writes");
    let editor = format!("sh {}", editor.display());
    let temporary = stack.home.path().display().to_string();
    let env = [("EDITOR", editor.as_str()), ("TMPDIR", temporary.as_str())];
    let mut term = Term::open_with(&stack.home, &[], Start { env: &env, ..Start::default() });
    term.wait_for("● live");
    term.press("n", "New job");
    term.press("\x05", "the editor is open");
    term.hang_up();
    assert_eq!(term.ended(), 129);
}

#[test]
fn a_small_terminal_says_what_it_needs_and_can_be_left() {
    let stack = Stack::start();
    let mut term = Term::open_with(&stack.home, &[], Start { size: (60, 16), ..Start::default() });
    term.wait_for("● live");
    term.press("3", "no jobs yet");
    term.resize(59, 16);
    term.wait_for("needs 60x16, is 59x16");
    term.resize(20, 3);
    term.wait_for("needs 60x16, is 20x3");
    term.resize(1, 1);
    term.wait("nothing but one letter", |screen| screen.contents() == "n");
    term.resize(30, 2);
    term.wait_for("needs 60x16, is 30x2");
    term.keys("q");
    term.ends_clean(0);
}

#[test]
fn a_storm_of_sizes_ends_with_a_whole_screen() {
    let stack = Stack::start();
    stack.run(&["run", "--wasm", "hello.wat", "--max-cost", "0.10", "--name", "steady"]).expect(0);
    let mut term = live(&stack, &["console", "--view", "jobs"]);
    term.wait_selected("steady");
    for step in 0..120_u16 {
        let (columns, rows) = (1 + step * 37 % 240, 1 + step * 23 % 79);
        term.resize(columns, rows);
        // One look in between, so that frames are drawn for sizes that are no longer.
        term.pump(Duration::from_millis(2));
    }
    for (columns, rows) in [(60, 16), (80, 24), (120, 36), (200, 60)] {
        term.resize(columns, rows);
        term.wait_selected("steady");
        // First and last line are where they belong, and nothing of other sizes is left between them.
        term.wait("whole lines", |screen| {
            let lines: Vec<String> = common::term::rows(screen).collect();
            lines.first().is_some_and(|line| line.starts_with(" MODCHAIN  "))
                && lines.last().is_some_and(|line| line.contains("Enter open"))
                && lines.iter().filter(|line| line.contains("MODCHAIN")).count() == 1
                && lines.iter().filter(|line| line.contains("Enter open")).count() == 1
        });
    }
    term.keys("q");
    term.ends_clean(0);
}

#[test]
fn without_colours_bold_and_reverse_are_left() {
    let stack = Stack::start();
    stack.run(&["run", "--wasm", "hello.wat", "--max-cost", "0.10", "--name", "plain"]).expect(0);
    let start = Start { env: &[("NO_COLOR", "1")], ..Start::default() };
    let mut term = Term::open_with(&stack.home, &["console", "--view", "jobs"], start);
    term.wait_selected("plain");
    for (key, tab) in TABS {
        term.press(key, tab);
    }
    term.press("?", "type to search keys");
    term.keys(ESC);
    term.wait_gone("type to search keys");
    term.press("3", "[3 Jobs]");
    term.wait_selected("plain");
    let row = term.row_with("plain").expect("a row");
    let cell = term.screen().cell(row, 4).expect("a cell");
    assert!(cell.inverse(), "{}", term.picture());
    let colours = coloured(&term.raw);
    assert!(colours.is_empty(), "{colours:?}");
    term.keys("q");
    term.ends_clean(0);
    // With colours the same test finds some.
    let mut term = live(&stack, &["console", "--view", "jobs"]);
    term.wait_selected("plain");
    assert!(!coloured(&term.raw).is_empty());
}

/// The sequences that set a colour.
fn coloured(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let sequences = text.split("\x1b[").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
        (rest.as_bytes()[end] == b'm').then(|| rest[..end].to_owned())
    });
    let sets = |sequence: &String| {
        sequence.split(';').any(|number| {
            number.parse::<u16>().is_ok_and(|number| matches!(number, 30..=38 | 40..=48 | 90..=97 | 100..=107))
        })
    };
    sequences.filter(sets).collect()
}

#[test]
fn a_terminal_of_ascii_gets_nothing_else() {
    let stack = Stack::start();
    stack.run(&["run", "--wasm", "hello.wat", "--max-cost", "0.10", "--name", "plain"]).expect(0);
    let start = Start { env: &[("LC_ALL", "C")], ..Start::default() };
    let mut term = Term::open_with(&stack.home, &[], start);
    term.wait_for("* live");
    for (key, text) in TABS {
        term.press(key, text);
    }
    term.press("?", "type to search keys");
    term.keys(ESC);
    term.wait_gone("type to search keys");
    term.keys("3");
    term.wait_selected("plain");
    term.press(ENTER, "> j-");
    let strange: String = String::from_utf8_lossy(&term.raw).chars().filter(|c| !c.is_ascii()).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

#[test]
fn the_console_needs_a_terminal() {
    let stack = Stack::start();
    let done = stack.run(&["console"]).expect(2);
    assert!(done.stderr.contains("needs a terminal") && done.stdout.is_empty(), "{done:#?}");
    // Alone, the program says in short what it can do.
    let done = stack.run(&[]).expect(2);
    assert!(done.stderr.contains("modchain") && done.stdout.is_empty(), "{done:#?}");
}

#[test]
fn what_makes_no_sense_is_said_before_the_terminal_is_taken() {
    let stack = Stack::start();
    for (args, said, code) in [
        (&["console", "--view", "kitchen"][..], "`kitchen` is no view", 2),
        (&["console", "--view", "jobs", "--filter", "state>"], "--filter", 2),
        (&["console", "-c", "nowhere"], "nowhere", 3),
    ] {
        let mut term = Term::open(&stack.home, args);
        term.wait_for(said);
        assert!(!String::from_utf8_lossy(&term.raw).contains("\x1b[?1049h"), "{}", term.picture());
        term.ends_clean(code);
    }
}

//! From `modchain up` to a job that is done and paid, and to a job of one's own, by reading the screen alone: the real programs on a
//! pseudo-terminal.
#![allow(missing_docs, reason = "a test is documented by its name")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

use common::Home;
use common::term::{ESC, Term};

/// Function key 5, as terminals send it.
const F5: &str = "\x1b[15~";

#[test]
fn a_new_user_gets_from_up_to_a_paid_job_and_one_of_his_own() {
    let home = Home::new();
    let mut term = Term::open(&home, &["up"]);
    term.wait_for("new here? a runs a sample job");
    term.wait_for("● live");
    term.press("a", "› output");
    term.wait_for("completed, exit code 0");
    term.wait_for("97");
    // What it cost is said by itself, and what comes next.
    term.wait_for("5 shows the money");
    term.press("5", "[5 Account]");
    term.wait_for("settle");
    // The same again, but for its name and its arguments.
    term.press("3", "[3 Jobs]");
    term.keys(ESC);
    term.wait_selected("primes");
    term.press("r", "(rerun)");
    term.wait_for("would run on");
    term.press("\t3", "-- 3");
    term.wait_for("would run on");
    term.press(F5, "submitted, 0.10 held");
    term.wait_selected("primes");
    term.wait_for("2 jobs");
    term.keys("q");
    term.wait_for("stopping the local stack");
    term.ends_clean(0);
    assert!(home.path().join(".local/state/modchain/ui.json").exists());
}

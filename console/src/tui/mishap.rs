//! A bug on purpose, so that a test of the whole program can see what follows one. Built with debug assertions only: the program that is
//! shipped does not have it.

use crossterm::event::{Event, KeyCode};

/// The variable that says where F12 fails: `screen`, in the loop that has the terminal, or `task`, in another thread.
const VARIABLE: &str = "MODCHAIN_TEST_PANIC";

/// Fails if this is the key for it.
pub(super) fn on(event: &Event) {
    if !event.as_key_event().is_some_and(|key| key.code == KeyCode::F(12)) {
        return;
    }
    match std::env::var(VARIABLE).as_deref() {
        Ok("screen") => panic!("a test wants the screen to fail"),
        Ok("task") => drop(tokio::spawn(async { panic!("a test wants a task to fail") })),
        Ok(_) | Err(_) => {}
    }
}

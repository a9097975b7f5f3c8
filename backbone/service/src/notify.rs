//! What a program tells its service manager: that it is ready, how it is, that it is alive, that it stops.
//!
//! The watchdog is only worth something if it is the part that matters that answers. So [`report`] asks a question on every
//! round and pings only when it was answered: where the answer comes out of the engine's own loop, an engine that hangs
//! misses its pings, and systemd starts the program again.

use std::time::Duration;

use sd_notify::NotifyState;

/// Rounds between two pings that the manager waits for: one that is late is made good by the next.
const ROUNDS_PER_WATCHDOG: u32 = 3;

/// Time between two rounds where no watchdog is asked for: as old as a status may be.
const ROUND: Duration = Duration::from_secs(5);

/// The shortest round, whatever a unit says: asking costs little, but not nothing.
const ROUND_MIN: Duration = Duration::from_millis(50);

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// It has started: whoever waited for it may go on.
    Ready,
    /// It is alive.
    Alive,
    /// How it is, in a few words for `systemctl status`.
    Status(String),
    /// It stops, because it was told to.
    Stopping,
}

/// Whether there is a manager that listens.
pub fn is_managed() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Tells the manager, if there is one, from a task of a runtime with several threads: a manager that does not read its socket
/// makes this task wait and no other.
pub fn tell(note: &Note) {
    if is_managed() {
        tokio::task::block_in_place(|| send(note));
    }
}

fn send(note: &Note) {
    let state = match note {
        Note::Ready => NotifyState::Ready,
        Note::Alive => NotifyState::Watchdog,
        Note::Status(status) => NotifyState::Status(status),
        Note::Stopping => NotifyState::Stopping,
    };
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// How often to ask: some times as often as the manager waits for a ping.
pub fn round() -> Duration {
    sd_notify::watchdog_enabled().map_or(ROUND, |limit| (limit / ROUNDS_PER_WATCHDOG).max(ROUND_MIN))
}

/// Asks `look` once a round and tells what follows: ready and the status after the first answer, alive after each one, the
/// status whenever it changes. While an answer is outstanding nothing is told. Ends when there is nobody left to answer.
pub async fn report<Look, Answer>(round: Duration, mut look: Look, mut tell: impl FnMut(&Note))
where
    Look: FnMut() -> Answer,
    Answer: Future<Output = Option<String>>,
{
    let mut told: Option<String> = None;
    while let Some(status) = look().await {
        if told.is_none() {
            tell(&Note::Ready);
        }
        tell(&Note::Alive);
        if told.as_ref() != Some(&status) {
            tell(&Note::Status(status.clone()));
            told = Some(status);
        }
        tokio::time::sleep(round).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::VecDeque;

    #[tokio::test]
    async fn it_is_ready_at_the_first_answer_and_alive_at_each_and_the_status_is_told_when_it_changes() {
        let mut answers = VecDeque::from(["a", "a", "b"]);
        let mut notes = Vec::new();
        let look = || std::future::ready(answers.pop_front().map(str::to_owned));
        report(Duration::ZERO, look, |note| notes.push(note.clone())).await;
        let status = |text: &str| Note::Status(text.into());
        let expected = [Note::Ready, Note::Alive, status("a"), Note::Alive, Note::Alive, status("b")];
        assert_eq!(notes, expected);
    }

    #[tokio::test]
    async fn what_does_not_answer_is_not_called_alive() {
        let notes = RefCell::new(Vec::new());
        let asked_again = tokio::sync::Notify::new();
        let mut asked = 0;
        let look = || {
            asked += 1;
            let hangs = asked > 2;
            let asked_again = &asked_again;
            async move {
                if hangs {
                    asked_again.notify_one();
                    std::future::pending::<()>().await;
                }
                Some(String::new())
            }
        };
        tokio::select! {
            biased;
            () = report(Duration::ZERO, look, |note| notes.borrow_mut().push(note.clone())) => panic!("it waits"),
            () = asked_again.notified() => {}
        }
        assert_eq!(notes.borrow().iter().filter(|note| **note == Note::Alive).count(), 2);
    }
}

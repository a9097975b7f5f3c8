//! A certificate lasts a day, and nobody should have to think of that: whatever command is connected when its certificate is
//! due has it renewed beside its own work. Only one program renews an identity at a time; the files' lock sees to that.
//!
//! ```text
//! connected ─▶ not due: sleep, look again ─▶ due: renew ─▶ files replaced; this connection goes on with the old certificate
//!                                                    └▶ failed: wait, try again; said once when the end comes near
//! ```
//!
//! It must never fail a command, and delays its end by [`PARTING_TIME`] at most.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use modchain_certs::{Credentials, PeerIdentity};
use modchain_link::enrol::{self, LockError, RenewError};
use modchain_link::{Backoff, CloseCode, Connection};
use modchain_types::{Span, WallTime};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::link::chain;
use crate::text::wall_now;

/// Hears what a person should know although nobody asked.
pub(crate) type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// Longest sleep before a look at the clock: a wall clock may be set, and a machine may sleep.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Bounds of the waits between tries that failed. Lives of a few minutes have shorter ones, so that there are several tries
/// before the end.
const RETRY_FIRST: Duration = Duration::from_secs(30);
const RETRY_MAX: Duration = Duration::from_secs(10 * 60);
/// As parts of a life.
const RETRY_FIRST_PART: u32 = 50;
const RETRY_MAX_PART: u32 = 10;
/// Hundredths of a certificate's life after which a failure to renew it is worth a word.
const WORRY_PERCENT: u64 = 80;
/// How long a command that is done waits for a renewal that is not.
const PARTING_TIME: Duration = Duration::from_secs(2);

/// Renewals that were not done when their command was.
static PARTING: Mutex<Vec<Renewal>> = Mutex::new(Vec::new());

/// Renews the certificate of one connection's identity as long as the connection is held.
pub(crate) struct Renewal {
    connection: Connection,
    task: JoinHandle<()>,
    /// Whether a renewal is on its way.
    busy: watch::Receiver<bool>,
}

impl Renewal {
    /// Begins to watch the certificate in `folder`, with which `connection` was made.
    pub(crate) fn start(connection: Connection, folder: &Path, certificate: PeerIdentity, tell: Tell) -> Self {
        // Known at once, so that a short command waits for what has not even begun.
        let (busy, watched) = watch::channel(is_due(&certificate, wall_now()));
        let keeper = Keeper { connection: connection.clone(), folder: folder.to_owned(), certificate, tell, busy };
        Self { connection, task: tokio::spawn(keeper.keep()), busy: watched }
    }

    /// The connection is needed no more. It is closed now, or by [`let_finish`] if it is being used to renew.
    pub(crate) fn part(self) {
        if *self.busy.borrow() && self.connection.close_reason().is_none() {
            PARTING.lock().unwrap_or_else(PoisonError::into_inner).push(self);
        } else {
            self.end();
        }
    }

    fn end(self) {
        self.task.abort();
        self.connection.close(CloseCode::Done, "");
    }
}

/// Closes the connections of commands that are done. Those that are being used to renew are waited for, [`PARTING_TIME`] at
/// most and not at all if somebody is in a hurry: a renewal that is cut off is made up for by the next command.
pub(crate) async fn let_finish(hurry: bool) {
    let parting = std::mem::take(&mut *PARTING.lock().unwrap_or_else(PoisonError::into_inner));
    let deadline = tokio::time::Instant::now() + if hurry { Duration::ZERO } else { PARTING_TIME };
    for mut renewal in parting {
        // Whatever it is, the next command goes on from there.
        let _ = tokio::time::timeout_at(deadline, renewal.busy.wait_for(|busy| !busy)).await;
        renewal.end();
    }
}

struct Keeper {
    connection: Connection,
    folder: PathBuf,
    certificate: PeerIdentity,
    tell: Tell,
    busy: watch::Sender<bool>,
}

impl Keeper {
    async fn keep(mut self) {
        let mut backoff = backoff_for(&self.certificate);
        let mut told = false;
        loop {
            let now = wall_now();
            if is_due(&self.certificate, now) {
                // Another program may have done it.
                self.reload().await;
            }
            if !is_due(&self.certificate, now) {
                self.busy.send_replace(false);
                let left: Duration = self.certificate.renews_at().since(now).into();
                tokio::time::sleep(left.min(LOOK_AGAIN)).await;
                continue;
            }
            self.busy.send_replace(true);
            match enrol::renew(&self.connection, &self.folder).await {
                Ok(renewal) => {
                    self.certificate = renewal.identity;
                    let pause = pause_after(&self.certificate, wall_now(), &mut backoff);
                    self.busy.send_replace(false);
                    tokio::time::sleep(pause).await;
                }
                Err(error) => {
                    let lost = self.connection.close_reason().is_some();
                    // Said before anybody may go on: a command that is done waits for nothing else.
                    if let Some(words) = worry(&self.certificate, wall_now(), &error).filter(|_| !told && !lost) {
                        (self.tell)(&words);
                        told = true;
                    }
                    self.busy.send_replace(false);
                    if lost {
                        return;
                    }
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    async fn reload(&mut self) {
        let folder = self.folder.clone();
        let loaded = tokio::task::spawn_blocking(move || Credentials::load(&folder).ok());
        if let Ok(Some(credentials)) = loaded.await {
            self.certificate = *credentials.identity();
        }
    }
}

fn is_due(certificate: &PeerIdentity, now: WallTime) -> bool {
    certificate.renews_at() <= now
}

/// Waits for the tries to renew this certificate; another one that takes its place lives about as long.
fn backoff_for(certificate: &PeerIdentity) -> Backoff {
    let life = Duration::from(certificate.life());
    Backoff::new().between(RETRY_FIRST.min(life / RETRY_FIRST_PART), RETRY_MAX.min(life / RETRY_MAX_PART))
}

/// How long to leave a certificate alone that was just got. By a clock that is far ahead it is due at once, and so is every one
/// after it: those must not be asked for without a pause.
fn pause_after(fresh: &PeerIdentity, now: WallTime, backoff: &mut Backoff) -> Duration {
    if is_due(fresh, now) {
        return backoff.next_delay();
    }
    backoff.reset();
    Duration::ZERO
}

/// What to say of a renewal that failed; nothing while there is plenty of time, or while another program is at it.
fn worry(certificate: &PeerIdentity, now: WallTime, error: &RenewError) -> Option<String> {
    let share = Span(certificate.life().0 / 100 * WORRY_PERCENT);
    if matches!(error, RenewError::Lock(LockError::Busy { .. })) || now < certificate.begins_at().plus(share) {
        return None;
    }
    let left = certificate.not_after.since(now);
    Some(format!("warning: this certificate ends in {left} and could not be renewed: {}", chain(error)))
}

#[cfg(test)]
mod tests {
    use modchain_types::{CertificateSerial, IdentityId, KeyDigest, Role};

    use super::*;

    const DAY_MS: i64 = 86_400_000;

    fn certificate() -> PeerIdentity {
        // Dated back by ten minutes, so its real beginning is zero.
        PeerIdentity {
            role: Role::Client,
            id: IdentityId([1; 16]),
            serial: CertificateSerial([2; 16]),
            key: KeyDigest([3; 32]),
            not_before: WallTime(-600_000),
            not_after: WallTime(DAY_MS),
        }
    }

    #[test]
    fn a_certificate_is_due_from_its_own_moment_on() {
        let certificate = certificate();
        let due = certificate.renews_at();
        assert!(!is_due(&certificate, WallTime(due.0 - 1)) && is_due(&certificate, due));
        assert!((DAY_MS / 100 * 60..=DAY_MS / 100 * 72).contains(&due.0), "{due:?}");
    }

    #[test]
    fn a_clock_that_is_far_ahead_does_not_make_it_renew_without_a_pause() {
        let certificate = certificate();
        let mut backoff = backoff_for(&certificate);
        assert_eq!(pause_after(&certificate, WallTime(DAY_MS / 2), &mut backoff), Duration::ZERO);
        let total: Duration = (0..50).map(|_| pause_after(&certificate, WallTime(DAY_MS - 1), &mut backoff)).sum();
        assert!(total > RETRY_MAX && total <= 50 * RETRY_MAX, "{total:?}");
    }

    #[test]
    fn short_lives_have_short_waits() {
        let mut backoff = backoff_for(&PeerIdentity { not_after: WallTime(10_000), ..certificate() });
        let waits: Vec<Duration> = (0..50).map(|_| backoff.next_delay()).collect();
        assert!(waits[0] <= Duration::from_millis(200), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(1)), "{waits:?}");
    }

    #[test]
    fn a_failure_is_told_of_only_when_the_end_comes_near_and_nobody_else_is_at_it() {
        let certificate = certificate();
        let (early, late) = (WallTime(DAY_MS / 100 * 79), WallTime(DAY_MS / 6 * 5));
        let busy = RenewError::Lock(LockError::Busy { dir: "/identity".into() });
        assert_eq!(worry(&certificate, early, &RenewError::NoAnswer), None);
        assert_eq!(worry(&certificate, late, &busy), None);
        let words = worry(&certificate, late, &RenewError::NoAnswer).expect("is told of");
        assert!(words.starts_with("warning: this certificate ends in 4h00m and could not be renewed: "), "{words}");
    }
}

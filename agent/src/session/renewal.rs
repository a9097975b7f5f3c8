//! The certificate's renewal, while the agent serves: a new key and certificate are asked for over the live connection, put in
//! place, and shown on a second connection, which takes the first one's place when the orchestrator has welcomed it.
//!
//! ```text
//!  look at the clock, at least once a minute
//!    │ due                                  │ the files hold another certificate than the connection has shown
//!    ▼                                      ▼
//!  ask, over the live connection          connect with it ─▶ Handover ─▶ the session: hello, welcome, old one closed
//!    │ refused, lost                        │ refused, lost
//!    └▶ wait 30 s to 10 min, drawn          └▶ the old connection goes on; wait, drawn
//! ```
//!
//! What to do follows from the files and the clock alone, so whatever died at whatever step, the next look goes on from there,
//! in this process or in the next. This task keeps no certificate of its own and touches no attempt.

use std::time::Duration;

use modchain_certs::PeerIdentity;
use modchain_link::{Backoff, Connection, Protocol};
use modchain_types::{CertificateSerial, Span, Timestamp, WallTime};
use tokio::sync::{mpsc, oneshot};

use super::{SessionConfig, chain, load_credentials};
use crate::clock;

/// Longest time between two looks at the wall clock, which may be set, or go on while the machine sleeps.
const LOOK_MAX: Duration = Duration::from_secs(60);

/// Bounds of the wait after a failure. Lives of a few minutes have shorter ones, so that there are several tries before the
/// end.
const RETRY_FIRST: Duration = Duration::from_secs(30);
const RETRY_MAX: Duration = Duration::from_secs(600);
/// As parts of a life.
const RETRY_FIRST_PART: u32 = 50;
const RETRY_MAX_PART: u32 = 10;

/// Hundredths of its life after which a certificate that is still in use deserves a warning, and then an error.
const LATE_PERCENT: u64 = 80;
const VERY_LATE_PERCENT: u64 = 95;
/// And from where on a wait that is under way is cut short, once.
const LAST_TRY_PERCENT: u64 = 90;

/// Looks after the certificate of one connection.
pub(super) struct Renewal {
    pub(super) config: SessionConfig,
    pub(super) connection: Connection,
    /// The certificate that the connection was made with.
    pub(super) shown: PeerIdentity,
    pub(super) schedule: Schedule,
    pub(super) handovers: mpsc::Sender<Handover>,
}

/// A second connection, made with a newer certificate, that may take the first one's place.
pub(super) struct Handover {
    pub(super) connection: Connection,
    pub(super) shown: PeerIdentity,
    pub(super) schedule: Schedule,
    /// Told why not; dropped when it has.
    pub(super) failed: oneshot::Sender<String>,
}

impl Renewal {
    /// Runs until it is dropped, which is safe at any time.
    pub(super) async fn run(mut self) {
        let mut foreign = false;
        loop {
            let wait = match load_credentials(self.config.identity.clone()).await {
                Ok(credentials) if credentials.identity().id != self.shown.id => {
                    if !std::mem::replace(&mut foreign, true) {
                        tracing::warn!(
                            now = %credentials.identity().id,
                            "the identity folder holds another identity now; restart the agent to use it"
                        );
                    }
                    LOOK_MAX
                }
                Ok(credentials) => {
                    let on_disk = *credentials.identity();
                    self.tell_lateness(&on_disk);
                    if on_disk.serial != self.shown.serial && self.schedule.may_hand_over(&on_disk, clock::now()) {
                        // Returns only if it failed.
                        let why = self.hand_over(credentials).await;
                        let wait = self.schedule.not_handed_over(&on_disk, clock::now());
                        tracing::warn!(
                            why,
                            wait = %Span::from(wait),
                            "the new certificate could not be shown; serving with the old one and trying again"
                        );
                    }
                    match self.schedule.look(&on_disk, clock::wall(), clock::now()) {
                        Look::Wait(wait) => wait,
                        Look::Renew => {
                            self.renew(&on_disk).await;
                            Duration::ZERO
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(why = format!("{error:#}"), "the certificate's dates cannot be looked at");
                    LOOK_MAX
                }
            };
            let wait = self.schedule.until_handover(clock::now()).map_or(wait, |handover| wait.min(handover));
            tokio::time::sleep(wait).await;
        }
    }

    async fn renew(&mut self, old: &PeerIdentity) {
        match modchain_link::enrol::renew(&self.connection, &self.config.identity).await {
            Ok(renewal) => {
                let new = renewal.identity;
                tracing::info!(
                    serial = %new.serial,
                    expires_at = clock::utc(new.not_after),
                    renews_at = clock::utc(new.renews_at()),
                    "the certificate is renewed"
                );
                self.schedule.renewed(&new, clock::wall(), clock::now());
            }
            Err(error) => {
                let wait = Span::from(self.schedule.not_renewed(clock::now()));
                let (why, expires_at) = (chain(&error), clock::utc(old.not_after));
                match Lateness::of(old, clock::wall()) {
                    Lateness::VeryLate => {
                        tracing::error!(why, %wait, expires_at, "the certificate cannot be renewed; trying again");
                    }
                    Lateness::InTime | Lateness::Late => {
                        tracing::warn!(why, %wait, expires_at, "the certificate cannot be renewed; trying again");
                    }
                }
            }
        }
    }

    /// Connects with the certificate that is in place now, and lets the session do the rest; gives the reason if it stays as
    /// it was.
    async fn hand_over(&self, credentials: modchain_certs::Credentials) -> String {
        let connected = modchain_link::connect(&credentials, &self.config.orchestrator, Protocol::Agent).await;
        let connection = match connected {
            Ok(connection) => connection,
            Err(error) => return chain(&error),
        };
        let (failed, why) = oneshot::channel();
        let handover = Handover { connection, shown: *credentials.identity(), schedule: self.schedule.clone(), failed };
        if self.handovers.send(handover).await.is_err() {
            return "the session ends".into();
        }
        match why.await {
            Ok(why) => why,
            // It took over, and is about to end this task.
            Err(_) => std::future::pending().await,
        }
    }

    fn tell_lateness(&mut self, on_disk: &PeerIdentity) {
        let Some(lateness) = self.schedule.news(on_disk, clock::wall()) else { return };
        let expires_at = clock::utc(on_disk.not_after);
        match lateness {
            Lateness::InTime => {}
            Lateness::Late => tracing::warn!(expires_at, "the certificate should have been renewed long ago"),
            Lateness::VeryLate => tracing::error!(
                expires_at,
                "the certificate is about to end and is not renewed; without it this node needs a new token"
            ),
        }
    }
}

/// How long a certificate has been in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lateness {
    InTime,
    Late,
    VeryLate,
}

impl Lateness {
    fn of(certificate: &PeerIdentity, wall: WallTime) -> Self {
        match wall {
            wall if wall >= part_of_life(certificate, VERY_LATE_PERCENT) => Self::VeryLate,
            wall if wall >= part_of_life(certificate, LATE_PERCENT) => Self::Late,
            _ => Self::InTime,
        }
    }
}

/// The moment when so many hundredths of its life are over.
fn part_of_life(certificate: &PeerIdentity, percent: u64) -> WallTime {
    let millis = certificate.life().as_millis() / 100 * percent;
    certificate.begins_at().plus(Span::from_millis(millis))
}

/// What to do about the renewal just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Look again after this time.
    Wait(Duration),
    /// Ask for a certificate.
    Renew,
}

/// Decides when what is tried. Goes from one connection to the next with the certificate, so that a clock that is far off
/// cannot make the agent renew without a pause: a new certificate that is due already has to wait longer each time.
#[derive(Debug, Clone, Default)]
pub(super) struct Schedule {
    /// The certificate that everything below is about.
    serial: Option<CertificateSerial>,
    renewing: Pause,
    showing: Pause,
    /// A wait was cut short because the certificate's end was near.
    last_try: bool,
    told: Option<Lateness>,
    /// Renewals in a row that gave a certificate which was due at once.
    in_vain: u32,
}

/// A wait between two tries.
#[derive(Debug, Clone, Default)]
struct Pause {
    backoff: Backoff,
    until: Option<Timestamp>,
}

impl Pause {
    fn for_life(life: Span) -> Self {
        let life = Duration::from(life);
        let (first, max) = (RETRY_FIRST.min(life / RETRY_FIRST_PART), RETRY_MAX.min(life / RETRY_MAX_PART));
        Self { backoff: Backoff::new().between(first, max), until: None }
    }

    fn begin(&mut self, now: Timestamp) -> Duration {
        let wait = self.backoff.next_delay();
        self.until = Some(now + wait.into());
        wait
    }

    /// What is left of it.
    fn left(&self, now: Timestamp) -> Option<Duration> {
        self.until.filter(|until| now < *until).map(|until| until.since(now).into())
    }
}

impl Schedule {
    /// A certificate that was not there before begins with no waits.
    fn turn_to(&mut self, certificate: &PeerIdentity) {
        if self.serial != Some(certificate.serial) {
            self.serial = Some(certificate.serial);
            self.renewing = Pause::for_life(certificate.life());
            self.showing = Pause::for_life(certificate.life());
            self.last_try = false;
            self.told = None;
        }
    }

    /// `wall` by the calendar, which may jump; `now` by the clock that cannot.
    fn look(&mut self, certificate: &PeerIdentity, wall: WallTime, now: Timestamp) -> Look {
        self.turn_to(certificate);
        let renews_at = certificate.renews_at();
        if wall < renews_at {
            return Look::Wait(Duration::from(renews_at.since(wall)).min(LOOK_MAX));
        }
        let near_end = wall >= part_of_life(certificate, LAST_TRY_PERCENT);
        if let Some(left) = self.renewing.left(now)
            && (!near_end || self.last_try)
        {
            return Look::Wait(left.min(LOOK_MAX));
        }
        self.last_try |= near_end;
        Look::Renew
    }

    fn renewed(&mut self, new: &PeerIdentity, wall: WallTime, now: Timestamp) {
        self.turn_to(new);
        if wall < new.renews_at() {
            self.in_vain = 0;
            return;
        }
        let life = Duration::from(new.life());
        let wait = RETRY_FIRST.saturating_mul(1 << self.in_vain.min(16)).min(life / RETRY_MAX_PART);
        self.in_vain += 1;
        self.last_try = true;
        self.renewing.until = Some(now + wait.into());
    }

    fn not_renewed(&mut self, now: Timestamp) -> Duration {
        self.renewing.begin(now)
    }

    fn may_hand_over(&mut self, certificate: &PeerIdentity, now: Timestamp) -> bool {
        self.turn_to(certificate);
        self.showing.left(now).is_none()
    }

    fn not_handed_over(&mut self, certificate: &PeerIdentity, now: Timestamp) -> Duration {
        self.turn_to(certificate);
        self.showing.begin(now)
    }

    fn until_handover(&self, now: Timestamp) -> Option<Duration> {
        self.showing.left(now)
    }

    /// How late it is, if that was not told yet.
    fn news(&mut self, certificate: &PeerIdentity, wall: WallTime) -> Option<Lateness> {
        self.turn_to(certificate);
        let lateness = Lateness::of(certificate, wall);
        (self.told.unwrap_or(Lateness::InTime) < lateness).then(|| {
            self.told = Some(lateness);
            lateness
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use modchain_types::{IdentityId, KeyDigest, Role};

    const HOUR_MS: i64 = 3_600_000;

    /// Issued at 100 h by the calendar, for a day.
    fn certificate(serial: u8) -> PeerIdentity {
        let begins = 100 * HOUR_MS;
        PeerIdentity {
            role: Role::Node,
            id: IdentityId([7; 16]),
            serial: CertificateSerial([serial; 16]),
            key: KeyDigest([serial; 32]),
            not_before: WallTime(begins - 600_000),
            not_after: WallTime(begins + 24 * HOUR_MS),
        }
    }

    fn at(percent: i64) -> WallTime {
        WallTime(100 * HOUR_MS + 24 * HOUR_MS * percent / 100)
    }

    fn minutes(minutes: u64) -> Timestamp {
        Timestamp::ZERO + Span::from_secs(60 * minutes)
    }

    #[test]
    fn a_jump_of_the_wall_clock_is_seen_within_a_minute_whichever_way_it_goes() {
        let (certificate, mut schedule) = (certificate(1), Schedule::default());
        for percent in [0, 30, 59] {
            let Look::Wait(wait) = schedule.look(&certificate, at(percent), minutes(0)) else { panic!("{percent} %") };
            assert_eq!(wait, LOOK_MAX, "hours are left, and it looks again after a minute");
        }
        // The machine slept, or its clock was set: the other clock has gone on for one minute only.
        assert_eq!(schedule.look(&certificate, at(73), minutes(1)), Look::Renew);
        assert_eq!(schedule.look(&certificate, at(-400), minutes(2)), Look::Wait(LOOK_MAX), "and back");
        assert_eq!(schedule.look(&certificate, at(99), minutes(3)), Look::Renew, "near its end, at once");
        let soon = WallTime(certificate.renews_at().0 - 5_000);
        assert_eq!(schedule.look(&certificate, soon, minutes(4)), Look::Wait(Duration::from_secs(5)));
        assert_eq!(schedule.look(&certificate, certificate.renews_at(), minutes(4)), Look::Renew);
    }

    #[test]
    fn failures_are_waited_out_from_half_a_minute_to_ten_but_not_into_the_last_tenth() {
        let (certificate, mut schedule) = (certificate(1), Schedule::default());
        assert_eq!(schedule.look(&certificate, at(73), minutes(0)), Look::Renew);
        let mut waits = Vec::new();
        for _ in 0..40 {
            waits.push(schedule.not_renewed(minutes(0)));
        }
        assert!(waits[0] <= RETRY_FIRST && waits.iter().all(|wait| *wait <= RETRY_MAX));
        assert!(waits.iter().any(|wait| *wait > RETRY_MAX / 2), "{waits:?}");
        while schedule.renewing.left(minutes(0)).is_none_or(|left| left < Duration::from_secs(120)) {
            schedule.not_renewed(minutes(0));
        }
        assert_eq!(schedule.look(&certificate, at(74), minutes(0)), Look::Wait(LOOK_MAX));
        assert_eq!(schedule.look(&certificate, at(90), minutes(1)), Look::Renew, "the wait is cut short");
        assert_eq!(schedule.look(&certificate, at(91), minutes(1)), Look::Wait(LOOK_MAX), "once");
        assert_eq!(schedule.look(&certificate, at(91), minutes(11)), Look::Renew);
    }

    #[test]
    fn a_clock_that_is_days_fast_does_not_make_it_renew_without_a_pause() {
        let mut schedule = Schedule::default();
        let (mut now, mut renewals) = (Timestamp::ZERO, 0);
        while now < minutes(24 * 60) {
            // Every certificate is long over by this clock.
            match schedule.look(&certificate(renewals), at(500), now) {
                Look::Wait(wait) => now = now + Span::from(wait.max(Duration::from_secs(1))),
                Look::Renew => {
                    renewals += 1;
                    schedule.renewed(&certificate(renewals), at(500), now);
                }
            }
        }
        assert!((10..30).contains(&renewals), "{renewals} renewals in a day");
    }

    #[test]
    fn lateness_is_told_once_each() {
        let (certificate, mut schedule) = (certificate(1), Schedule::default());
        let told: Vec<_> =
            [10, 73, 80, 81, 94, 95, 99, 120].map(|percent| schedule.news(&certificate, at(percent))).into();
        let (late, very_late) = (Some(Lateness::Late), Some(Lateness::VeryLate));
        assert_eq!(told, [None, None, late, None, None, very_late, None, None]);
        assert_eq!(schedule.news(&self::certificate(2), at(81)), late, "a new certificate has its own");
    }

    #[test]
    fn short_lives_have_short_waits() {
        let mut short = certificate(1);
        short.not_after = WallTime(100 * HOUR_MS + 10_000);
        let mut schedule = Schedule::default();
        assert_eq!(schedule.look(&short, WallTime(100 * HOUR_MS + 8_000), minutes(0)), Look::Renew);
        let waits: Vec<_> = (0..50).map(|_| schedule.not_renewed(minutes(0))).collect();
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(1)), "{waits:?}");
    }
}

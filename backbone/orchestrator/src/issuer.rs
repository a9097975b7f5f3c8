//! The certificate authority of a running orchestrator, and its own certificate. Both are replaced at half their lives, by the
//! start or by the hourly look of a program that runs for months; nobody's connection is disturbed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use anyhow::Context;
use modchain_certs::{Authority, AuthorityError, Credentials};
use modchain_types::WallTime;

use crate::init;

/// What signs and what is shown now.
pub struct Issuer {
    data: PathBuf,
    now: RwLock<Now>,
}

struct Now {
    authority: Arc<Authority>,
    own: Arc<Credentials>,
}

impl Issuer {
    /// Loads both from a data directory, and renews what is past half its life.
    pub fn open(data: &Path, now: SystemTime) -> anyhow::Result<Self> {
        Ok(Self { data: data.to_owned(), now: RwLock::new(Now::load(data, now, Authority::load, init::WHENEVER)?) })
    }

    /// What signs.
    pub fn authority(&self) -> Arc<Authority> {
        self.read().authority.clone()
    }

    /// What newcomers are shown.
    pub fn own(&self) -> Arc<Credentials> {
        self.read().own.clone()
    }

    /// End of what newcomers are shown.
    pub fn own_ends(&self) -> WallTime {
        self.read().own.identity().not_after
    }

    /// Looks again; gives the new certificate to show if there is one. By now the clock has been set, so that what begins only later
    /// was made while it was ahead, and is replaced. Blocks.
    pub fn look(&self, now: SystemTime) -> anyhow::Result<Option<Arc<Credentials>>> {
        let fresh = Now::load(&self.data, now, Authority::load_in_time, init::wall(now))?;
        let changed = fresh.own.identity().serial != self.own().identity().serial;
        let own = fresh.own.clone();
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(changed.then_some(own))
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Now> {
        // It is replaced in one step.
        self.now.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Now {
    fn load(
        data: &Path,
        now: SystemTime,
        load: impl Fn(&Path, SystemTime) -> Result<Authority, AuthorityError>,
        begun_by: WallTime,
    ) -> anyhow::Result<Self> {
        let authority = load(&init::authority_dir(data), now).with_context(|| {
            format!("there is no certificate authority in {}: run `modchain-orchestrator init` first", data.display())
        })?;
        let own = init::own_credentials(data, &authority, now, begun_by)?;
        Ok(Self { authority: Arc::new(authority), own: Arc::new(own) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use modchain_certs::Subject;

    use super::*;

    #[test]
    fn what_is_past_half_its_life_is_replaced_while_the_program_runs() {
        let dir = tempfile::tempdir().expect("directory");
        let (data, start) = (dir.path().join("data"), SystemTime::now());
        init::init(&init::InitOptions { data: data.clone(), ..Default::default() }).expect("a data directory");
        let issuer = Issuer::open(&data, start).expect("opens");
        let first = issuer.own();
        let day = Duration::from_secs(24 * 3600);
        assert!(issuer.look(start + day).expect("looks").is_none(), "it is young");
        let second = issuer.look(start + 50 * day).expect("looks").expect("a new one");
        assert_ne!(second.identity().serial, first.identity().serial);
        assert_eq!(issuer.own_ends(), second.identity().not_after);
        assert!(second.identity().not_after > first.identity().not_after);
        // The authority that signs is replaced after half a year; its root stays.
        issuer.look(start + 200 * day).expect("looks");
        assert_eq!(issuer.authority().root(), first.root());
    }

    #[test]
    fn what_a_clock_that_was_ahead_has_made_is_replaced_once_it_is_right_and_not_at_a_start() {
        let dir = tempfile::tempdir().expect("directory");
        let (data, start) = (dir.path().join("data"), SystemTime::now());
        init::init(&init::InitOptions { data: data.clone(), ..Default::default() }).expect("a data directory");
        let year = Duration::from_secs(365 * 24 * 3600);
        let ahead = Issuer::open(&data, start + year).expect("opens").own();
        assert!(ahead.identity().not_before > init::wall(start));
        let issuer = Issuer::open(&data, start).expect("opens");
        assert_eq!(issuer.own().identity().serial, ahead.identity().serial, "the clock may be behind for a moment");
        let right = issuer.look(start).expect("looks").expect("a new one");
        assert!(right.identity().not_before <= init::wall(start) && right.identity().not_after > init::wall(start));
        let member = issuer.authority().issue(Subject::ORCHESTRATOR, Duration::from_secs(3600), start).expect("issues");
        assert!(member.identity().not_after > init::wall(start), "the authority that signs is of today, too");
        assert!(issuer.look(start).expect("looks").is_none(), "once");
    }
}

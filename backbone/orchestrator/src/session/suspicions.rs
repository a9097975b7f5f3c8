//! What looks as if a key had been copied, or as if this data were an old copy: shown to operators in the status for a day.
//!
//! Each is evidence and no proof, so nothing is stopped for it: a person has to look. It is kept in memory only, the newest of
//! each kind and identity; a restart forgets it, and whoever caused it causes it again.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use modchain_core::membership::ALARM_SHOWN_FOR;
use modchain_types::IdentityId;

/// Suspicions that are remembered: a screen full.
const REMEMBERED: usize = 32;

/// Of what kind a suspicion is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suspicion {
    /// A certificate of this pool names somebody whom the journal does not know.
    Stranger,
    /// Two live agents use one identity.
    TwoAgents,
}

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Suspicions {
    /// The newest first.
    seen: Mutex<VecDeque<Seen>>,
}

#[derive(Debug)]
struct Seen {
    at: Instant,
    kind: Suspicion,
    identity: IdentityId,
    text: String,
}

impl Suspicions {
    /// Notes one; the same one again takes the place of the earlier.
    pub(crate) fn note(&self, kind: Suspicion, identity: IdentityId, text: String, now: Instant) {
        tracing::warn!(%identity, ?kind, text, "this needs a person to look at it");
        // Changed in whole steps: at worst one is missing.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|other| (other.kind, other.identity) != (kind, identity));
        seen.push_front(Seen { at: now, kind, identity, text });
        seen.truncate(REMEMBERED);
    }

    /// What to show, newest first.
    pub(crate) fn shown(&self, now: Instant) -> Vec<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |one: &&Seen| now.saturating_duration_since(one.at) < Duration::from(ALARM_SHOWN_FOR);
        seen.iter().filter(fresh).map(|one| one.text.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_each_is_shown_for_a_day_and_memory_is_bounded() {
        let (suspicions, start) = (Suspicions::default(), Instant::now());
        let id = |number: u8| IdentityId([number; 16]);
        suspicions.note(Suspicion::TwoAgents, id(1), "first".into(), start);
        suspicions.note(Suspicion::Stranger, id(1), "other".into(), start);
        suspicions.note(Suspicion::TwoAgents, id(1), "second".into(), start + Duration::from_secs(60));
        assert_eq!(suspicions.shown(start), ["second", "other"]);
        let day = Duration::from(ALARM_SHOWN_FOR);
        assert_eq!(suspicions.shown(start + day), ["second"]);
        assert_eq!(suspicions.shown(start + 2 * day), Vec::<String>::new());
        for number in 0..=255 {
            suspicions.note(Suspicion::Stranger, id(number), number.to_string(), start);
        }
        let shown = suspicions.shown(start);
        assert_eq!((shown.len(), shown[0].as_str()), (REMEMBERED, "255"));
    }
}

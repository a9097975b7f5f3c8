//! How many connections each identity has, so that one of them cannot use up the orchestrator, and which are kept out for a
//! while because of what they sent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use modchain_types::IdentityId;

use crate::bad_frames::Offenders;
use crate::connection::Inner;
use crate::stats::Refusal;

/// The live connections of every identity.
#[derive(Default)]
pub(crate) struct Admission {
    // Weak, because a connection ends when its last user lets go of it. Entries of identities without connections do not
    // stay: the last connection's `Drop` removes them.
    connections: Mutex<HashMap<IdentityId, Vec<Weak<Inner>>>>,
    offenders: Mutex<Offenders>,
}

impl Admission {
    /// Counts the connection if its identity has fewer than `max` live ones and is not kept out. From then on
    /// [`Admission::of`] gives it.
    pub(crate) fn register(&self, id: IdentityId, connection: &Arc<Inner>, max: usize) -> Result<(), Refusal> {
        if self.offenders().cools_off(&id, Instant::now()) {
            return Err(Refusal::CoolingOff);
        }
        // Dropped after the lock: ours may be the last hold on a connection, and its `Drop` takes the lock.
        let mut held = Vec::new();
        let mut connections = self.lock();
        let own = connections.entry(id).or_default();
        own.retain(|other| match other.upgrade() {
            // A connection that is closed no longer counts, even while somebody still holds it.
            Some(other) => {
                let live = other.quinn.close_reason().is_none();
                held.push(other);
                live
            }
            None => false,
        });
        if own.len() >= max {
            return Err(Refusal::TooManyConnections);
        }
        own.push(Arc::downgrade(connection));
        Ok(())
    }

    /// How many connections live.
    pub(crate) fn live(&self) -> usize {
        // Asked outside the lock, because ours may be the last hold on one of them.
        let held: Vec<_> = self.lock().values().flatten().filter_map(Weak::upgrade).collect();
        held.iter().filter(|connection| connection.quinn.close_reason().is_none()).count()
    }

    /// Notes a bad frame of this identity; tells whether it is kept out from now on.
    pub(crate) fn offended(&self, id: IdentityId) -> bool {
        self.offenders().record(id, Instant::now())
    }

    /// The live connections of this identity.
    pub(crate) fn of(&self, id: &IdentityId) -> Vec<Arc<Inner>> {
        let connections = self.lock();
        connections.get(id).map(|own| own.iter().filter_map(Weak::upgrade).collect()).unwrap_or_default()
    }

    /// Called when a connection's last user has let go of it.
    pub(crate) fn forget(&self, id: &IdentityId) {
        let mut connections = self.lock();
        if let Some(own) = connections.get_mut(id) {
            own.retain(|other| other.strong_count() > 0);
            if own.is_empty() {
                connections.remove(id);
            }
        }
    }

    fn offenders(&self) -> std::sync::MutexGuard<'_, Offenders> {
        // At worst a frame is not counted.
        self.offenders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IdentityId, Vec<Weak<Inner>>>> {
        // Nothing in the critical sections can leave the map half changed.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The gate: which certificates are let in, as the journal says. Asked in every handshake, so it answers from memory at once.
//!
//! It learns only from events that are on disk, and learns them *before* anybody hears of their consequences (see
//! [`crate::engine`]): whoever is told that an identity is revoked, or gets a certificate, can rely on the gate. It is filled
//! by the replay, before any socket is bound. It must never let anybody in because it does not know better: an identity
//! that it does not know is turned away later, by name, when the connection is served.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use modchain_certs::DenyList;
use modchain_core::membership::{ALARM_SHOWN_FOR, Accepted, Member};
use modchain_core::{Event, EventBody};
use modchain_types::{CertificateSerial, IdentityId};

/// What is let in.
#[derive(Debug, Default)]
pub struct Gate {
    members: RwLock<HashMap<IdentityId, Entry>>,
}

#[derive(Debug, Clone, Default)]
struct Entry {
    revoked: bool,
    /// Accepted certificates, at most two, and whether each has been used.
    accepted: Vec<(CertificateSerial, bool)>,
    /// When another certificate of it last came, while it was not revoked.
    other_came: Option<Instant>,
}

impl Gate {
    /// Takes members in as a snapshot has them.
    pub fn seed<'a>(&self, members: impl Iterator<Item = &'a Member>) {
        let mut known = self.members.write().unwrap_or_else(PoisonError::into_inner);
        for member in members {
            let accepted = |known: &Accepted| (known.certificate.serial, known.used_at.is_some());
            let entry = Entry {
                revoked: member.revoked.is_some(),
                accepted: member.certificates.iter().map(accepted).collect(),
                other_came: None,
            };
            known.insert(member.identity.id, entry);
        }
    }

    /// Takes committed events in.
    pub fn take(&self, events: &[Event]) {
        if !events.iter().any(|event| concerns(&event.body)) {
            return;
        }
        // The map is changed event by event, each whole.
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            match &event.body {
                // Nobody is let in before a certificate is known.
                EventBody::IdentityAdded { identity } => drop(members.entry(identity.id).or_default()),
                EventBody::MemberJoined { identity, certificate, .. } => {
                    members.entry(identity.id).or_default().accepted = vec![(certificate.serial, false)];
                }
                EventBody::CertificateIssued { identity, certificate, beside } => {
                    let entry = members.entry(*identity).or_default();
                    entry.accepted.retain(|(serial, _)| Some(*serial) == *beside);
                    entry.accepted.push((certificate.serial, false));
                }
                EventBody::CertificateUsed { identity, serial } => {
                    let entry = members.entry(*identity).or_default();
                    for (known, used) in &mut entry.accepted {
                        *used |= known == serial;
                    }
                }
                EventBody::CertificateRetired { identity, serial } => {
                    members.entry(*identity).or_default().accepted.retain(|(known, _)| known != serial);
                }
                EventBody::IdentityRevoked { identity, .. } => {
                    *members.entry(*identity).or_default() = Entry { revoked: true, ..Entry::default() };
                }
                _ => {}
            }
        }
    }

    /// Whether this certificate is let in for the first time.
    pub fn is_unused(&self, id: &IdentityId, serial: &CertificateSerial) -> bool {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        members.get(id).is_some_and(|entry| entry.accepted.contains(&(*serial, false)))
    }

    /// Whose certificates came in the last day although another one had taken their place, or without being in the journal:
    /// a key was copied, or these data are an old copy. At most `max`.
    pub fn others_came(&self, now: Instant, max: usize) -> Vec<IdentityId> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let fresh = |at: Instant| now.saturating_duration_since(at) < Duration::from(ALARM_SHOWN_FOR);
        let of_last_day = members.iter().filter(|(_, entry)| !entry.revoked && entry.other_came.is_some_and(fresh));
        of_last_day.map(|(id, _)| *id).take(max).collect()
    }
}

impl DenyList for Gate {
    fn denies(&self, id: &IdentityId, serial: &CertificateSerial) -> bool {
        {
            let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
            match members.get(id) {
                None => return false,
                Some(entry) if entry.accepted.iter().any(|(known, _)| known == serial) => return false,
                Some(entry) if entry.revoked => return true,
                Some(_) => {}
            }
        }
        if let Some(entry) = self.members.write().unwrap_or_else(PoisonError::into_inner).get_mut(id) {
            entry.other_came = Some(Instant::now());
        }
        true
    }
}

fn concerns(body: &EventBody) -> bool {
    matches!(
        body,
        EventBody::IdentityAdded { .. }
            | EventBody::MemberJoined { .. }
            | EventBody::CertificateIssued { .. }
            | EventBody::CertificateUsed { .. }
            | EventBody::CertificateRetired { .. }
            | EventBody::IdentityRevoked { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use modchain_core::membership::Certificate;
    use modchain_types::{KeyDigest, Text, Timestamp, WallTime};

    const ID: IdentityId = IdentityId([1; 16]);

    fn serial(number: u8) -> CertificateSerial {
        CertificateSerial([number; 16])
    }

    fn issued(number: u8, beside: Option<u8>) -> EventBody {
        let certificate = Certificate {
            serial: serial(number),
            key: KeyDigest([number; 32]),
            not_before: WallTime(0),
            not_after: WallTime(1),
        };
        EventBody::CertificateIssued { identity: ID, certificate, beside: beside.map(serial) }
    }

    fn take(gate: &Gate, bodies: impl IntoIterator<Item = EventBody>) {
        let events: Vec<Event> =
            bodies.into_iter().map(|body| Event { number: 1, at: Timestamp::ZERO, body }).collect();
        gate.take(&events);
    }

    #[test]
    fn only_the_certificates_that_the_journal_accepts_are_let_in() {
        let gate = Gate::default();
        assert!(!gate.denies(&ID, &serial(1)), "who is not known is turned away elsewhere");
        take(&gate, [issued(1, None)]);
        assert!(!gate.denies(&ID, &serial(1)) && gate.denies(&ID, &serial(2)));
        assert!(gate.is_unused(&ID, &serial(1)));
        take(&gate, [EventBody::CertificateUsed { identity: ID, serial: serial(1) }, issued(2, Some(1))]);
        assert!(!gate.denies(&ID, &serial(1)) && !gate.denies(&ID, &serial(2)), "both while it is renewed");
        assert!(!gate.is_unused(&ID, &serial(1)) && gate.is_unused(&ID, &serial(2)));
        take(&gate, [issued(3, Some(1))]);
        assert!(gate.denies(&ID, &serial(2)), "its answer was lost and another took its place");
        take(&gate, [EventBody::CertificateRetired { identity: ID, serial: serial(1) }]);
        assert!(gate.denies(&ID, &serial(1)) && !gate.denies(&ID, &serial(3)));
        let now = Instant::now();
        assert_eq!(gate.others_came(now, 9), [ID]);
        assert_eq!(gate.others_came(now + Duration::from(ALARM_SHOWN_FOR), 9), []);
        take(&gate, [EventBody::IdentityRevoked { identity: ID, by: None, why: Text::default() }]);
        assert!(gate.denies(&ID, &serial(3)) && gate.denies(&ID, &serial(4)));
        assert_eq!(gate.others_came(now, 9), [], "who is revoked may try as often as it likes");
    }
}

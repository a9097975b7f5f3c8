//! What strangers cost before anybody knows who they are: how many places they take, in all and from one source, when they
//! must prove their address, and how they are counted. Both ports take newcomers through here.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quinn::Incoming;
use tokio::task::JoinSet;

use crate::code::CloseReason;
use crate::settings::{HANDSHAKE_TIMEOUT, HANDSHAKES_BEFORE_RETRY, HANDSHAKES_PER_SOURCE};
use crate::stats::{Refusal, Tally};

/// The bits of an IPv6 address that name a network: whoever has one address of it has the others too.
const IPV6_NETWORK_BITS: u32 = 64;

/// Whom newcomers from an address are counted with; `None` for an address without a limit of its own.
pub(crate) type Classify = fn(IpAddr) -> Option<IpAddr>;

/// An IPv4 address counts alone, an IPv6 address with its network. This machine's own programs are not limited: a whole pool
/// may run on it, and whoever is on it has cheaper ways to disturb.
pub fn source_of(address: IpAddr) -> Option<IpAddr> {
    match address.to_canonical() {
        address if address.is_loopback() => None,
        IpAddr::V4(address) => Some(address.into()),
        IpAddr::V6(address) => Some(Ipv6Addr::from_bits(address.to_bits() & !0 << (128 - IPV6_NETWORK_BITS)).into()),
    }
}

/// When a newcomer must prove by a retry, which costs it a round trip, that it is where its packets say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// From so many handshakes on: [`HANDSHAKES_BEFORE_RETRY`].
    UnderLoad,
    /// Always.
    Always,
}

/// The rules of one port, and what came of them so far.
pub(crate) struct Gate {
    pub(crate) places: Arc<Places>,
    pub(crate) tally: Tally,
    places_max: usize,
    proof: Proof,
}

/// What becomes of a newcomer.
enum Verdict {
    /// It may go on, in this place.
    In(Place),
    /// It must prove its address first.
    Prove,
    /// There are too many of its kind.
    Refuse,
}

impl Gate {
    pub(crate) fn new(places_max: usize, proof: Proof, classify: Classify) -> Self {
        let places = Arc::new(Places { classify, counts: Mutex::default() });
        Self { places, tally: Tally::default(), places_max, proof }
    }

    /// Answers to an address that somebody else wrote on the packet must stay few, and must not use up that address's
    /// places: unproven newcomers are counted apart, and where there are too many the next one is asked for proof.
    fn judge(&self, address: IpAddr, proven: bool, half_open: usize) -> Verdict {
        let must_prove = match self.proof {
            Proof::UnderLoad => half_open > HANDSHAKES_BEFORE_RETRY,
            Proof::Always => true,
        };
        if must_prove && !proven {
            return Verdict::Prove;
        }
        match self.places.take(address, proven) {
            Some(place) => Verdict::In(place),
            None if proven => Verdict::Refuse,
            None => Verdict::Prove,
        }
    }
}

/// Takes newcomers and owns what `welcome` does for each: all of it ends with this.
pub(crate) async fn take_newcomers<F>(
    endpoint: quinn::Endpoint,
    gate: Arc<Gate>,
    welcome: impl Fn(Incoming, Place) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut welcomes = JoinSet::new();
    loop {
        tokio::select! {
            // Above the limit newcomers wait in the endpoint, whose queue is bounded.
            incoming = endpoint.accept(), if welcomes.len() < gate.places_max => {
                let Some(incoming) = incoming else { return };
                let (address, proven) = (incoming.remote_address().ip(), incoming.remote_address_validated());
                match gate.judge(address, proven, welcomes.len()) {
                    Verdict::In(place) => drop(welcomes.spawn(welcome(incoming, place))),
                    Verdict::Prove => {
                        gate.tally.retry();
                        // Who is unproven may retry, so this cannot fail; if it did, the newcomer would send again.
                        let _ = incoming.retry();
                    }
                    Verdict::Refuse => {
                        tracing::info!(%address, "too many handshakes from one source");
                        gate.tally.refuse(Refusal::Source);
                        incoming.refuse();
                    }
                }
            }
            Some(ended) = welcomes.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(%error, "a handshake panicked");
                }
            }
        }
    }
}

/// The handshake, within [`HANDSHAKE_TIMEOUT`]; `None` if there is no connection, which is counted.
pub(crate) async fn shake_hands(incoming: Incoming, gate: &Gate) -> Option<quinn::Connection> {
    let remote = incoming.remote_address();
    let failed = |error: quinn::ConnectionError| {
        tracing::info!(%remote, %error, "handshake failed");
        gate.tally.refuse(Refusal::of_handshake(&CloseReason::from(error)));
    };
    let connecting = incoming.accept().map_err(failed).ok()?;
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(failed).ok(),
        Err(_) => {
            tracing::info!(%remote, "handshake too slow");
            gate.tally.refuse(Refusal::TooSlow);
            None
        }
    }
}

/// The places of one port that are taken.
pub(crate) struct Places {
    classify: Classify,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    half_open: usize,
    established: usize,
    /// No entry is zero, so there are no more of them than places.
    by_source: HashMap<Source, usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Source {
    network: IpAddr,
    /// Whether it has shown to be there. Anybody can write an address on a packet, so those who have not shown it must not
    /// take the places of those who have.
    proven: bool,
}

/// A newcomer's place, given back when dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    source: Option<Source>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    HalfOpen,
    Established,
}

impl Places {
    /// A place, unless the source has [`HANDSHAKES_PER_SOURCE`] already.
    fn take(self: &Arc<Self>, address: IpAddr, proven: bool) -> Option<Place> {
        let source = (self.classify)(address).map(|network| Source { network, proven });
        let mut counts = self.lock();
        if let Some(source) = source {
            let count = counts.by_source.get(&source).copied().unwrap_or(0);
            if count >= HANDSHAKES_PER_SOURCE {
                return None;
            }
            counts.by_source.insert(source, count + 1);
        }
        counts.half_open += 1;
        Some(Place { places: self.clone(), source, stage: Stage::HalfOpen })
    }

    /// Handshakes in progress.
    pub(crate) fn half_open(&self) -> usize {
        self.lock().half_open
    }

    /// Places that are kept after their handshake.
    pub(crate) fn established(&self) -> usize {
        self.lock().established
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Nothing in the critical sections can leave the counts half changed.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The handshake is over and the place is kept.
    pub(crate) fn keep(mut self) -> Self {
        let mut counts = self.places.lock();
        counts.half_open -= 1;
        counts.established += 1;
        drop(counts);
        self.stage = Stage::Established;
        self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.places.lock();
        match self.stage {
            Stage::HalfOpen => counts.half_open -= 1,
            Stage::Established => counts.established -= 1,
        }
        if let Some(source) = self.source
            && let Some(count) = counts.by_source.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                counts.by_source.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn gate(proof: Proof) -> Gate {
        Gate::new(usize::MAX, proof, source_of)
    }

    #[test]
    fn an_ipv6_network_is_one_source_and_this_machine_none() {
        for (text, source) in [
            ("192.0.2.7", Some("192.0.2.7")),
            ("::ffff:192.0.2.7", Some("192.0.2.7")),
            ("2001:db8:1:2:3:4:5:6", Some("2001:db8:1:2::")),
            ("2001:db8:1:2:ffff::", Some("2001:db8:1:2::")),
            ("2001:db8:1:3::1", Some("2001:db8:1:3::")),
            ("127.0.0.1", None),
            ("127.9.9.9", None),
            ("::1", None),
            ("::ffff:127.0.0.1", None),
        ] {
            assert_eq!(source_of(address(text)), source.map(address), "{text}");
        }
    }

    #[test]
    fn one_source_cannot_take_every_place_and_gets_them_back_one_by_one() {
        let gate = gate(Proof::UnderLoad);
        let enter = |text: &str, proven| match gate.judge(address(text), proven, 0) {
            Verdict::In(place) => Ok(place),
            Verdict::Prove => Err("prove"),
            Verdict::Refuse => Err("refuse"),
        };
        let mut held: Vec<_> = (0..HANDSHAKES_PER_SOURCE).map(|_| enter("192.0.2.7", true).expect("room")).collect();
        assert_eq!(enter("192.0.2.7", true).err(), Some("refuse"));
        // Others have theirs, and this machine's own programs have no limit.
        let _other = enter("192.0.2.8", true).expect("room");
        let _own: Vec<_> = (0..4 * HANDSHAKES_PER_SOURCE).map(|_| enter("127.0.0.1", true).expect("room")).collect();
        held.pop();
        held.push(enter("192.0.2.7", true).expect("one went"));
        assert_eq!(enter("192.0.2.7", true).err(), Some("refuse"));
        // A handshake that is over but keeps its place counts still.
        let kept = held.pop().expect("some").keep();
        assert_eq!(enter("192.0.2.7", true).err(), Some("refuse"));
        assert_eq!((gate.places.half_open(), gate.places.established()), (5 * HANDSHAKES_PER_SOURCE, 1));
        drop((held, kept));
        assert_eq!(gate.places.lock().by_source.len(), 1, "who is gone is forgotten");
    }

    #[test]
    fn packets_with_somebodys_address_on_them_do_not_use_up_its_places() {
        let gate = gate(Proof::UnderLoad);
        let forged: Vec<_> = (0..2 * HANDSHAKES_PER_SOURCE)
            .filter_map(|_| match gate.judge(address("192.0.2.7"), false, 0) {
                Verdict::In(place) => Some(place),
                Verdict::Prove | Verdict::Refuse => None,
            })
            .collect();
        assert_eq!(forged.len(), HANDSHAKES_PER_SOURCE);
        assert!(matches!(gate.judge(address("192.0.2.7"), false, 0), Verdict::Prove), "not refused: it may be honest");
        assert!(matches!(gate.judge(address("192.0.2.7"), true, 0), Verdict::In(_)));
    }

    #[test]
    fn proof_is_asked_for_under_load_or_always() {
        let asks = |gate: &Gate, proven, half_open| {
            matches!(gate.judge(address("127.0.0.1"), proven, half_open), Verdict::Prove)
        };
        let (loaded, always) = (gate(Proof::UnderLoad), gate(Proof::Always));
        assert!(!asks(&loaded, false, HANDSHAKES_BEFORE_RETRY) && asks(&loaded, false, HANDSHAKES_BEFORE_RETRY + 1));
        assert!(!asks(&loaded, true, HANDSHAKES_BEFORE_RETRY + 1));
        assert!(asks(&always, false, 0) && !asks(&always, true, 0));
    }
}

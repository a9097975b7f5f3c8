//! Whom a certificate names: the forms we write are read, and nothing else is.

mod common;

use std::time::SystemTime;

use common::{ID, LIFETIME, World, any_ca, dns, uri, wall};
use modchain_certs::identity::key_digest;
use modchain_certs::leaf::BACKDATED;
use modchain_certs::{IdentityError, ORCHESTRATOR_ID, ORCHESTRATOR_NAME, PeerIdentity, RootPin, TrustDomain};
use modchain_types::{CertificateSerial, KeyDigest, Role, Span, WallTime};
use proptest::prelude::*;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType, SerialNumber};

#[test]
fn what_was_issued_reads_back_for_every_role() {
    let world = World::new();
    for role in [Role::Node, Role::Client, Role::Operator] {
        let credentials = world.member(role);
        let peer = PeerIdentity::from_certificate(&credentials.chain()[0], world.domain()).expect("reads");
        assert_eq!((peer.role, peer.id), (role, ID));
        assert_eq!(&peer, credentials.identity());
        assert!(peer.serial.0[0] < 0x80 && peer.serial.0 != [0; 16]);
    }
    assert_eq!(world.orchestrator().identity().role, Role::Orchestrator);
    assert_eq!(world.orchestrator().identity().id, ORCHESTRATOR_ID);
}

#[test]
fn hostile_names_are_refused() {
    let world = World::new();
    let forger = world.forger();
    let domain = world.domain().as_str().to_owned();
    let spiffe = |path: &str| uri(&format!("spiffe://{domain}{path}"));
    let node = format!("/node/{ID}");
    use IdentityError::{ForeignDomain, Names, UnknownPath};
    let cases: Vec<(&str, Vec<SanType>, IdentityError)> = vec![
        ("no name", vec![], Names),
        ("no URI", vec![dns("node.modchain")], Names),
        ("two URIs", vec![spiffe(&node), spiffe(&node)], Names),
        ("two URIs, one foreign", vec![uri("https://example.com/"), spiffe(&node)], Names),
        ("a DNS name beside it", vec![spiffe(&node), dns("node.modchain")], Names),
        ("the orchestrator's DNS name", vec![spiffe(&node), dns(ORCHESTRATOR_NAME)], Names),
        ("an address beside it", vec![spiffe(&node), SanType::IpAddress([127, 0, 0, 1].into())], Names),
        ("an e-mail beside it", vec![spiffe(&node), SanType::Rfc822Name("a@b.c".try_into().expect("ASCII"))], Names),
        ("another domain", vec![uri(&format!("spiffe://aaaaaaaaaaaaaaaa.modchain{node}"))], ForeignDomain),
        ("a domain that begins alike", vec![uri(&format!("spiffe://{domain}.evil{node}"))], ForeignDomain),
        ("the domain in upper case", vec![uri(&format!("spiffe://{}{node}", domain.to_uppercase()))], ForeignDomain),
        ("user and port", vec![uri(&format!("spiffe://{domain}@evil:1{node}"))], ForeignDomain),
        ("no domain", vec![uri(&format!("spiffe://{node}"))], ForeignDomain),
        ("another scheme", vec![uri(&format!("https://{domain}{node}"))], UnknownPath),
        ("the scheme in upper case", vec![uri(&format!("SPIFFE://{domain}{node}"))], UnknownPath),
        ("no path", vec![uri(&format!("spiffe://{domain}"))], UnknownPath),
        ("an empty path", vec![spiffe("/")], UnknownPath),
        ("an unknown role", vec![spiffe(&format!("/root/{ID}"))], UnknownPath),
        ("a role in upper case", vec![spiffe(&format!("/Node/{ID}"))], UnknownPath),
        ("a role without id", vec![spiffe("/node")], UnknownPath),
        ("an empty id", vec![spiffe("/node/")], UnknownPath),
        ("a short id", vec![spiffe("/node/0123")], UnknownPath),
        ("an id in upper case", vec![spiffe(&format!("/node/{}", ID.to_string().to_uppercase()))], UnknownPath),
        ("more after the id", vec![spiffe(&format!("{node}/operator"))], UnknownPath),
        ("a slash after the id", vec![spiffe(&format!("{node}/"))], UnknownPath),
        ("a query", vec![spiffe(&format!("{node}?x"))], UnknownPath),
        ("a way out", vec![spiffe(&format!("/node/../operator/{ID}"))], UnknownPath),
        ("an escape", vec![spiffe(&format!("/%6eode/{ID}"))], UnknownPath),
        ("two slashes", vec![spiffe(&format!("/{node}"))], UnknownPath),
        ("an orchestrator with an id", vec![spiffe(&format!("/orchestrator/{ID}"))], UnknownPath),
        ("the orchestrator's id", vec![spiffe(&format!("/node/{ORCHESTRATOR_ID}"))], UnknownPath),
        ("an orchestrator without its name", vec![spiffe("/orchestrator")], Names),
        ("an orchestrator of another name", vec![spiffe("/orchestrator"), dns("evil.modchain")], Names),
    ];
    for (what, names, error) in cases {
        let der = forger.forge(|params| params.subject_alt_names = names);
        assert_eq!(PeerIdentity::from_certificate(&der, world.domain()), Err(error), "{what}");
    }
}

#[test]
fn hostile_uses_are_refused() {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, ServerAuth};
    let world = World::new();
    let forger = world.forger();
    let node = world.domain().uri(Role::Node, ID);
    let orchestrator = world.domain().uri(Role::Orchestrator, ORCHESTRATOR_ID);
    let read = |change: &dyn Fn(&mut CertificateParams)| {
        PeerIdentity::from_certificate(&forger.forge(|params| change(params)), world.domain())
    };
    for usages in [vec![], vec![ServerAuth], vec![ClientAuth, ServerAuth], vec![Any], vec![ClientAuth, CodeSigning]] {
        let result = read(&|params| {
            params.subject_alt_names = vec![uri(&node)];
            params.extended_key_usages = usages.clone();
        });
        assert_eq!(result, Err(IdentityError::Usage { role: Role::Node }), "{usages:?}");
    }
    for usages in [vec![], vec![ClientAuth], vec![ClientAuth, ServerAuth]] {
        let result = read(&|params| {
            params.subject_alt_names = vec![uri(&orchestrator), dns(ORCHESTRATOR_NAME)];
            params.extended_key_usages = usages.clone();
        });
        assert_eq!(result, Err(IdentityError::Usage { role: Role::Orchestrator }), "{usages:?}");
    }
    let authority = read(&|params| {
        params.subject_alt_names = vec![uri(&node)];
        params.is_ca = any_ca();
    });
    assert_eq!(authority, Err(IdentityError::Authority));
    let long = read(&|params| {
        params.subject_alt_names = vec![uri(&node)];
        params.serial_number = Some(SerialNumber::from_slice(&[1; 17]));
    });
    assert_eq!(long, Err(IdentityError::Serial));
}

#[test]
fn serials_are_padded_and_keep_their_top_bit() {
    let world = World::new();
    let forger = world.forger();
    for serial in [[0x7f; 16], [0xff; 16], {
        let mut low = [0; 16];
        low[15] = 1;
        low
    }] {
        let der = forger.forge(|params| {
            params.subject_alt_names = vec![uri(&world.domain().uri(Role::Node, ID))];
            params.serial_number = Some(SerialNumber::from_slice(&serial));
        });
        assert_eq!(PeerIdentity::from_certificate(&der, world.domain()).expect("reads").serial.0, serial);
    }
}

fn identity_of(serial: [u8; 16], life: Span) -> PeerIdentity {
    let not_before = WallTime(1_700_000_000_000);
    PeerIdentity {
        role: Role::Node,
        id: ID,
        serial: CertificateSerial(serial),
        key: KeyDigest([0; 32]),
        not_before,
        not_after: not_before.plus(BACKDATED.into()).plus(life),
    }
}

const DAY: Span = Span::from_secs(24 * 3600);

#[test]
fn dates_and_key_are_read_and_the_real_life_is_told() {
    let world = World::new();
    let before = wall(SystemTime::now());
    let credentials = world.member(Role::Node);
    let peer = credentials.identity();
    assert_eq!(peer.life(), Span::from(LIFETIME));
    assert_eq!(peer.begins_at(), peer.not_before.plus(BACKDATED.into()));
    assert!(before.since(peer.begins_at()) < Span::from_secs(60) && peer.begins_at() <= wall(SystemTime::now()));
    let (_, leaf) = x509_parser::parse_x509_certificate(&credentials.chain()[0]).expect("parses");
    assert_eq!(peer.key, key_digest(leaf.public_key().raw));
    assert_eq!(peer.key.0, ring::digest::digest(&ring::digest::SHA256, leaf.public_key().raw).as_ref());
}

#[test]
fn the_renewals_moment_is_the_one_that_it_always_was() {
    // Computed by another program than ours.
    let serial = std::array::from_fn(|index| u8::try_from(index).expect("small"));
    assert_eq!(identity_of(serial, DAY).renews_at(), WallTime(1_700_054_971_519));
    assert_eq!(identity_of(serial, DAY).renews_at(), identity_of(serial, DAY).renews_at());
}

#[test]
fn renewals_are_spread_evenly_over_their_part_of_the_life() {
    const CERTIFICATES: u32 = 10_000;
    let mut slices = [0u32; 12];
    for number in 0..CERTIFICATES {
        // The same numbers in every run.
        let digest = ring::digest::digest(&ring::digest::SHA256, &number.to_be_bytes());
        let peer = identity_of(digest.as_ref()[..16].try_into().expect("16 bytes"), DAY);
        let percent = peer.renews_at().since(peer.begins_at()).as_millis() as f64 / DAY.as_millis() as f64 * 100.0;
        assert!((60.0..72.0).contains(&percent), "{percent} %");
        slices[(percent - 60.0) as usize] += 1;
    }
    // 833 are expected in each, give or take 28.
    assert!(slices.iter().all(|count| (700..970).contains(count)), "{slices:?}");
}

#[test]
fn a_root_has_one_pin_and_two_roots_have_two() {
    let (one, two) = (World::new(), World::new());
    let pin = |world: &World| RootPin::of_root(world.authority.root()).expect("reads");
    let (_, root) = x509_parser::parse_x509_certificate(one.authority.root()).expect("parses");
    assert_eq!(pin(&one).0, key_digest(root.public_key().raw).0);
    assert!(pin(&one) == pin(&one) && pin(&one) != pin(&two));
    for at in 0..32 {
        let mut other = pin(&one);
        other.0[at] ^= 1;
        assert_ne!(other, pin(&one));
    }
    // Everything is named after the pin's beginning.
    assert!(one.domain().as_str().starts_with(&format!("{:?}", pin(&one))[..16]));
    assert_eq!(RootPin::of_root(b"no certificate"), Err(IdentityError::Garbled));
}

#[test]
fn a_root_has_one_trust_domain_and_two_roots_have_two() {
    let (one, two) = (World::new(), World::new());
    let domain = TrustDomain::of_root(one.authority.root()).expect("reads");
    assert_eq!(&domain, one.domain());
    assert_ne!(one.domain(), two.domain());
    let (name, suffix) = domain.as_str().split_once('.').expect("two parts");
    assert_eq!((name.len(), suffix), (16, "modchain"));
    let foreign = PeerIdentity::from_certificate(&two.member(Role::Node).chain()[0], one.domain());
    assert_eq!(foreign, Err(IdentityError::ForeignDomain));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let domain = TrustDomain::of_public_key(b"x");
        prop_assert!(PeerIdentity::from_certificate(&bytes, &domain).is_err());
    }

    #[test]
    fn renewal_is_always_within_its_part_of_the_life(serial: [u8; 16], secs in 1u64..200_000_000_000) {
        let peer = identity_of(serial, Span::from_secs(secs));
        let after = peer.renews_at().since(peer.begins_at()).as_millis();
        prop_assert_eq!(peer.life().as_millis(), secs * 1000);
        prop_assert!((secs * 600..=secs * 720).contains(&after), "{} of {} s", after, secs);
    }

    #[test]
    fn no_dates_make_the_renewal_panic(serial: [u8; 16], not_before: i64, not_after: i64) {
        let dates = PeerIdentity {
            not_before: WallTime(not_before),
            not_after: WallTime(not_after),
            ..identity_of(serial, DAY)
        };
        prop_assert!(dates.renews_at() >= dates.begins_at());
        prop_assert!(dates.renews_at() <= dates.not_after.max(dates.begins_at()));
    }

    #[test]
    fn a_damaged_certificate_never_panics_nor_names_another(at in any::<prop::sample::Index>(), flip in 1u8..) {
        // One certificate is enough for all cases.
        static SAMPLE: std::sync::OnceLock<(Vec<u8>, TrustDomain)> = std::sync::OnceLock::new();
        let (der, domain) = SAMPLE.get_or_init(|| {
            let world = World::new();
            (world.member(Role::Node).chain()[0].to_vec(), world.domain().clone())
        });
        let mut damaged = der.clone();
        *at.get_mut(&mut damaged) ^= flip;
        if let Ok(peer) = PeerIdentity::from_certificate(&damaged, domain) {
            prop_assert!(peer.role != Role::Orchestrator);
        }
        prop_assert!(PeerIdentity::from_certificate(&der[..at.index(der.len())], domain).is_err());
    }
}

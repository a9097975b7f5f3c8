//! A key on its way to a certificate: what the holder asks and takes, and what the orchestrator reads of it.

mod common;

use std::error::Error;
use std::fmt::Debug;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use common::{ID, LIFETIME, World, any_ca, lacks, node_like, uri, wall};
use modchain_certs::authority::ISSUING_LIFETIME;
use modchain_certs::request::REQUEST_BYTES_MAX;
use modchain_certs::{
    AcceptError, Authority, BadRequest, Credentials, CredentialsError, Exporter, FileError, Issued, KeyRequest,
    PrivateKey, RequestedKey, Subject,
};
use modchain_types::{IdentityId, Role, Span, WallTime};
use proptest::prelude::*;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};
use rustls_pki_types::CertificateDer;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

const EXPORTER: Exporter = Exporter([9; 32]);
const HOUR: Span = Span::from_secs(3600);

/// Made by another program than ours: a request for a P-256 key, the digest of the key, and its proof over an exporter
/// of nines.
const KNOWN_REQUEST: &str = "\
    3081ba306202010030003059301306072a8648ce3d020106082a8648ce3d03010703420004d512ba0539c9c8b2f915c520fe\
    0963c9659a94fe907377e8adc2716a8cfe49915d9ad903956172ad720ffbc3e3eaf32979ce6cbea92d0f92484d67292d8cf6\
    70a000300a06082a8648ce3d04030203480030450221008bb1ca414074ecb6123f19042b6ffc24bcf9494fcb335dffd53c86\
    19d29bc00e022033a88587ea55fc8c3a2cfa1c6e51c1081a91719023c78569f02d5bd41aa7c3a8";
const KNOWN_DIGEST: &str = "e7dea7716254e4bf2dd52f8b8c7921ecf6c83bf00b25232e2ab008e47aadeb5a";
const KNOWN_PROOF: &str = "\
    3045022100ea99928cb2f6420421f09da0676b98882f1c8b47e7d0cb1f193f416f85f334b5022023ed2ead6f55017a7a9523\
    67dfc57c5413d3d3e2a502387411a31e522bbd7104";

lacks!(KeyRequest: Debug);
lacks!(KeyRequest: Clone);
lacks!(PrivateKey: Debug);
lacks!(PrivateKey: Clone);
lacks!(Credentials: Debug);
lacks!(Credentials: Clone);

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
}

fn now() -> WallTime {
    wall(SystemTime::now())
}

fn node() -> Subject {
    Subject::member(Role::Node, ID).expect("a member")
}

fn issue(world: &World, request: &KeyRequest) -> Issued {
    issue_as(&world.authority, request, node())
}

fn issue_as(authority: &Authority, request: &KeyRequest, subject: Subject) -> Issued {
    let key = RequestedKey::read(request.der()).expect("sound");
    authority.sign(&key, &authority.plan(subject, HOUR, now()).expect("plans")).expect("signs")
}

fn accept(world: &World, request: KeyRequest, chain: Vec<CertificateDer<'static>>) -> Result<Credentials, AcceptError> {
    request.accept(chain, world.authority.root().clone(), Role::Node, ID, now())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("metadata").permissions().mode() & 0o7777
}

/// The whole of what would be printed.
fn told(error: &dyn Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[test]
fn a_request_asks_for_nothing_but_its_key() {
    let request = KeyRequest::generate();
    let (rest, parsed) = X509CertificationRequest::from_der(request.der()).expect("parses");
    let info = &parsed.certification_request_info;
    assert!(rest.is_empty() && info.attributes().is_empty() && info.subject.iter().next().is_none());
    assert_eq!(request.der(), request.der(), "proofs cover these bytes");
    let read = RequestedKey::read(request.der()).expect("sound");
    assert_eq!(read.key_digest(), request.key_digest());
    assert_eq!(read.public_key_der(), info.subject_pki.raw);
    assert_ne!(KeyRequest::generate().key_digest(), request.key_digest());
}

#[test]
fn the_known_request_and_proof_are_taken() {
    let read = RequestedKey::read(&bytes(KNOWN_REQUEST)).expect("sound");
    assert_eq!(read.key_digest().to_string(), KNOWN_DIGEST);
    assert!(read.is_possessed(&EXPORTER, &bytes(KNOWN_PROOF)));
    assert!(!read.is_possessed(&Exporter([8; 32]), &bytes(KNOWN_PROOF)));
}

#[test]
fn of_a_request_full_of_wishes_only_the_key_is_read() {
    let world = World::new();
    let key = KeyPair::generate().expect("key");
    let mut wishes = CertificateParams::default();
    wishes.is_ca = any_ca();
    wishes.subject_alt_names = vec![uri(&world.domain().uri(Role::Operator, ID))];
    wishes.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let request = wishes.serialize_request(&key).expect("request");
    let read = RequestedKey::read(request.der()).expect("sound");
    assert_eq!(read.public_key_der(), rcgen::PublicKeyData::subject_public_key_info(&key));
    let plan = world.authority.plan(node(), HOUR, now()).expect("plans");
    let issued = world.authority.sign(&read, &plan).expect("signs");
    let (_, leaf) = x509_parser::parse_x509_certificate(&issued.chain[0]).expect("parses");
    assert!(!leaf.is_ca());
    assert!(!leaf.subject().to_string().contains("rcgen"), "the request's subject");
    assert_eq!((issued.identity.role, issued.identity.id), (Role::Node, ID));
    assert_eq!((issued.identity.key, leaf.public_key().raw), (read.key_digest(), read.public_key_der()));
}

#[test]
fn unsound_requests_are_refused() {
    let request = |key: &KeyPair| CertificateParams::default().serialize_request(key).expect("request").der().to_vec();
    let sound = request(&KeyPair::generate().expect("key"));
    assert!(RequestedKey::read(&sound).is_ok());
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).expect("key");
        assert_eq!(RequestedKey::read(&request(&key)), Err(BadRequest));
    }
    // Somebody else's key in a request of one's own.
    let other = KeyPair::generate().expect("key");
    let stolen = replaced(&sound, &rcgen::PublicKeyData::der_bytes(&KeyPair::generate().expect("key"))[1..], 1);
    let unsigned = {
        let mut unsigned = sound.clone();
        *unsigned.last_mut().expect("bytes") ^= 1;
        unsigned
    };
    let longer = [&sound[..], &[0]].concat();
    let mut wordy = CertificateParams::default();
    wordy.subject_alt_names = vec![uri(&"a".repeat(REQUEST_BYTES_MAX))];
    let wordy = wordy.serialize_request(&other).expect("request").der().to_vec();
    for bad in [&stolen[..], &unsigned, &longer, &wordy, &sound[..sound.len() - 1], &sound[1..], b""] {
        assert_eq!(RequestedKey::read(bad), Err(BadRequest));
    }
}

/// The request with other coordinates in the place of its key's.
fn replaced(request: &[u8], coordinates: &[u8], skip: usize) -> Vec<u8> {
    let (_, parsed) = X509CertificationRequest::from_der(request).expect("parses");
    let point = &parsed.certification_request_info.subject_pki.subject_public_key.data[skip..];
    let at = request.windows(point.len()).position(|window| window == point).expect("in there");
    let mut changed = request.to_vec();
    changed[at..at + point.len()].copy_from_slice(coordinates);
    changed
}

#[test]
fn a_renewals_proof_fits_one_channel_one_request_and_one_key() {
    let (request, other) = (KeyRequest::generate(), KeyRequest::generate());
    let read = |request: &KeyRequest| RequestedKey::read(request.der()).expect("sound");
    let proof = request.prove_renewal(&EXPORTER);
    assert!(proof.len() <= 72);
    assert!(read(&request).is_possessed(&EXPORTER, &proof));
    assert!(!read(&request).is_possessed(&Exporter([8; 32]), &proof));
    assert!(!read(&other).is_possessed(&EXPORTER, &proof));
    assert!(!read(&request).is_possessed(&EXPORTER, &other.prove_renewal(&EXPORTER)));
    for at in 0..proof.len() {
        let mut changed = proof.clone();
        changed[at] ^= 1;
        assert!(!read(&request).is_possessed(&EXPORTER, &changed), "byte {at}");
        assert!(!read(&request).is_possessed(&EXPORTER, &proof[..at]), "cut at {at}");
    }
    // The same key in another request: the same holder, but not what was proved.
    let dir = tempfile::tempdir().expect("directory");
    let dir = dir.path().join("identity");
    let one = KeyRequest::load_or_create(&dir).expect("makes");
    let two = KeyRequest::load_or_create(&dir).expect("loads");
    assert_eq!(one.key_digest(), two.key_digest());
    assert_ne!(one.der(), two.der());
    assert!(!read(&two).is_possessed(&EXPORTER, &one.prove_renewal(&EXPORTER)));
}

#[test]
fn what_was_issued_for_it_is_accepted() {
    let world = World::new();
    for role in [Role::Node, Role::Client, Role::Operator] {
        let request = KeyRequest::generate();
        let digest = request.key_digest();
        let issued = issue_as(&world.authority, &request, Subject::member(role, ID).expect("a member"));
        let root = world.authority.root().clone();
        let credentials = request.accept(issued.chain.clone(), root, role, ID, now()).expect("accepted");
        assert_eq!((credentials.identity(), credentials.identity().key), (&issued.identity, digest));
        assert_eq!((credentials.chain(), credentials.root()), (&issued.chain[..], world.authority.root()));
        assert_eq!(credentials.trust_domain(), world.domain());
    }
}

#[test]
fn certificates_of_two_issuing_authorities_are_accepted_side_by_side() {
    let world = World::new();
    let later = SystemTime::now() + ISSUING_LIFETIME / 2 + LIFETIME;
    let (one, two) = (KeyRequest::generate(), KeyRequest::generate());
    let before = issue(&world, &one);
    let rotated = Authority::load(&world.ca_dir(), later).expect("loads and rotates");
    let key = RequestedKey::read(two.der()).expect("sound");
    let after = rotated.sign(&key, &rotated.plan(node(), HOUR, wall(later)).expect("plans")).expect("signs");
    assert_ne!(before.chain[1], after.chain[1]);
    assert!(accept(&world, one, before.chain.clone()).is_ok());
    // A chain may carry the other issuer as well.
    let both = [after.chain, before.chain[1..].to_vec()].concat();
    assert!(two.accept(both, world.authority.root().clone(), Role::Node, ID, wall(later)).is_ok());
}

#[test]
fn what_was_not_issued_for_it_is_refused_each_with_its_reason() {
    let (world, foreign) = (World::new(), World::new());
    let issued = |request: &KeyRequest| issue(&world, request).chain;
    let refused = |change: &dyn Fn(&KeyRequest) -> Vec<CertificateDer<'static>>| {
        let request = KeyRequest::generate();
        let chain = change(&request);
        accept(&world, request, chain).err().expect("refused")
    };
    assert!(matches!(refused(&|_| vec![]), AcceptError::Count { found: 0 }));
    let five = |request: &KeyRequest| [&issued(request)[..1], &vec![issued(request)[1].clone(); 4]].concat();
    assert!(matches!(refused(&five), AcceptError::Count { found: 5 }));
    assert!(matches!(refused(&|request| issued(request)[..1].to_vec()), AcceptError::Chain(_)));
    assert!(matches!(refused(&|request| issued(request)[1..].to_vec()), AcceptError::Chain(_)));
    assert!(matches!(refused(&|request| issue(&foreign, request).chain), AcceptError::Chain(_)));
    assert!(matches!(refused(&|_| vec![CertificateDer::from(vec![1, 2, 3])]), AcceptError::Chain(_)));
    assert!(matches!(refused(&|_| issued(&KeyRequest::generate())), AcceptError::Key));
    assert!(matches!(refused(&|_| world.orchestrator().chain().to_vec()), AcceptError::Chain(_)));
    for (role, id) in [(Role::Client, ID), (Role::Operator, ID), (Role::Node, IdentityId([7; 16]))] {
        let subject = Subject::member(role, id).expect("a member");
        let error = refused(&|request| issue_as(&world.authority, request, subject).chain);
        assert!(matches!(error, AcceptError::Other { role: r, id: i } if (r, i) == (role, id)), "{error}");
    }
    // Signed by the real issuing key, for the right key, but with two names.
    let dir = world.dir.path().join("forged");
    let request = KeyRequest::load_or_create(&dir).expect("makes");
    let key = KeyPair::from_pem(&fs::read_to_string(dir.join("key.pem.new")).expect("reads")).expect("key");
    let mut params = node_like();
    params.subject_alt_names = [Role::Node, Role::Operator].map(|role| uri(&world.domain().uri(role, ID))).to_vec();
    let chain = vec![world.forger().sign(&params, &key), world.forger().issuing.clone()];
    assert!(matches!(accept(&world, request, chain), Err(AcceptError::Identity(_))));
    // A root that is none.
    let request = KeyRequest::generate();
    let chain = issued(&request);
    let result = request.accept(chain, CertificateDer::from(vec![1]), Role::Node, ID, now());
    assert!(matches!(result, Err(AcceptError::Root(_))));
}

#[test]
fn a_clock_that_is_off_is_named_as_the_reason() {
    let world = World::new();
    let ten_minutes = 10 * 60 * 1000;
    let at = |offset: i64| {
        let request = KeyRequest::generate();
        let chain = issue(&world, &request).chain;
        request.accept(chain, world.authority.root().clone(), Role::Node, ID, WallTime(now().0 + offset))
    };
    assert!(at(0).is_ok() && at(ten_minutes).is_ok());
    assert!(at(5000 - ten_minutes).is_ok(), "certificates are dated back for this");
    for offset in [-ten_minutes - 60_000, 3601 * 1000, i64::MIN / 2] {
        let error = at(offset).err().expect("refused");
        assert!(matches!(error, AcceptError::Dates(_)), "{error}");
        assert!(error.to_string().contains("set the clock"), "{error}");
    }
}

fn waiting(dir: &Path) -> PathBuf {
    dir.join("key.pem.new")
}

#[test]
fn a_key_waits_on_disk_for_its_certificate_and_then_takes_its_place() {
    let world = World::new();
    let dir = world.dir.path().join("agent/identity");
    let first = KeyRequest::load_or_create(&dir).expect("makes");
    assert_eq!((mode(&dir), mode(&waiting(&dir))), (0o700, 0o600));
    assert_eq!(fs::read_dir(&dir).expect("lists").count(), 1);
    assert!(!Credentials::exist(&dir));
    // The reply was lost, the program began again.
    let digest = first.key_digest();
    drop(first);
    let again = KeyRequest::load_or_create(&dir).expect("loads");
    assert_eq!(again.key_digest(), digest);

    let chain = issue(&world, &again).chain;
    let before = fs::read(waiting(&dir)).expect("reads");
    accept(&world, again, chain).expect("accepted").save(&dir).expect("saves");
    assert_eq!(fs::read(dir.join("key.pem")).expect("reads"), before, "the very file that waited");
    assert!(!waiting(&dir).exists());
    assert_eq!(Credentials::load(&dir).expect("loads").identity().key, digest);

    // Renewal: a new key, and the old one stays in use until its certificate has come.
    let renewal = KeyRequest::load_or_create(&dir).expect("makes");
    assert_ne!(renewal.key_digest(), digest);
    assert_eq!(Credentials::load(&dir).expect("loads").identity().key, digest);
    let (renewed, chain) = (renewal.key_digest(), issue(&world, &renewal).chain);
    accept(&world, renewal, chain).expect("accepted").save(&dir).expect("saves");
    assert_eq!(Credentials::load(&dir).expect("loads").identity().key, renewed);
    assert_eq!(fs::read_dir(&dir).expect("lists").count(), 3);
}

#[test]
fn a_refused_certificate_leaves_the_waiting_key_and_the_old_certificate() {
    let world = World::new();
    let dir = world.dir.path().join("identity");
    world.member(Role::Node).save(&dir).expect("saves");
    let old = *Credentials::load(&dir).expect("loads").identity();
    let request = KeyRequest::load_or_create(&dir).expect("makes");
    let digest = request.key_digest();
    assert!(accept(&world, request, issue(&world, &KeyRequest::generate()).chain).is_err());
    assert_eq!(Credentials::load(&dir).expect("loads").identity(), &old);
    assert_eq!(KeyRequest::load_or_create(&dir).expect("loads").key_digest(), digest);
}

#[test]
fn a_waiting_key_can_be_forgotten_but_not_one_that_is_certified() {
    let world = World::new();
    let dir = world.dir.path().join("identity");
    assert!(KeyRequest::discard(&dir).is_err(), "there is no such folder");
    let digest = KeyRequest::load_or_create(&dir).expect("makes").key_digest();
    KeyRequest::discard(&dir).expect("forgets");
    KeyRequest::discard(&dir).expect("has nothing to forget");
    let request = KeyRequest::load_or_create(&dir).expect("makes another");
    assert_ne!(request.key_digest(), digest);
    let (digest, chain) = (request.key_digest(), issue(&world, &request).chain);
    // It was killed after the certificate was in place and before the key was.
    accept(&world, request, chain).expect("accepted").save(&dir).expect("saves");
    fs::rename(dir.join("key.pem"), waiting(&dir)).expect("moves back");
    KeyRequest::discard(&dir).expect("finishes the move");
    assert_eq!(Credentials::load(&dir).expect("loads").identity().key, digest);
}

#[test]
fn a_key_whose_certificate_was_kept_does_not_wait_any_more() {
    let world = World::new();
    let dir = world.dir.path().join("identity");
    let request = KeyRequest::load_or_create(&dir).expect("makes");
    let digest = request.key_digest();
    let chain = issue(&world, &request).chain;
    accept(&world, request, chain).expect("accepted").save(&dir).expect("saves");
    // As if the program had ended just before it moved the key.
    fs::rename(dir.join("key.pem"), waiting(&dir)).expect("renames");
    let next = KeyRequest::load_or_create(&dir).expect("makes");
    assert_ne!(next.key_digest(), digest);
    assert_eq!(Credentials::load(&dir).expect("loads").identity().key, digest);
}

#[test]
fn what_is_no_key_is_replaced_and_what_is_not_safe_is_refused() {
    let dir = tempfile::tempdir().expect("directory");
    let dir = dir.path().join("identity");
    let first = KeyRequest::load_or_create(&dir).expect("makes").key_digest();
    let sound = fs::read_to_string(waiting(&dir)).expect("reads");
    let other_kind = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("key").serialize_pem();
    for text in ["", "nonsense", &sound[..sound.len() / 2], &other_kind] {
        fs::write(waiting(&dir), text).expect("writes");
        let replaced = KeyRequest::load_or_create(&dir).expect("makes").key_digest();
        assert_ne!(replaced, first);
        assert_eq!(KeyRequest::load_or_create(&dir).expect("loads").key_digest(), replaced);
        assert_eq!(mode(&waiting(&dir)), 0o600);
    }
    let refused = || KeyRequest::load_or_create(&dir).err().expect("refused");
    fs::write(waiting(&dir), &sound).expect("writes");
    for loose in [0o640, 0o604, 0o660] {
        fs::set_permissions(waiting(&dir), fs::Permissions::from_mode(loose)).expect("opens");
        let error = refused();
        assert!(error.to_string().contains("chmod 0600"), "{error}");
    }
    let target = dir.with_file_name("elsewhere");
    for there in [true, false] {
        fs::remove_file(waiting(&dir)).expect("removes");
        if there {
            fs::write(&target, &sound).expect("writes");
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).expect("closes");
        } else {
            fs::remove_file(&target).expect("removes");
        }
        symlink(&target, waiting(&dir)).expect("links");
        assert!(matches!(refused(), CredentialsError::File(FileError::WrongKind { .. })), "a link is not followed");
        assert_eq!(target.exists(), there);
    }
    fs::remove_file(waiting(&dir)).expect("removes");
    fs::create_dir(waiting(&dir)).expect("makes");
    assert!(matches!(refused(), CredentialsError::File(FileError::WrongKind { .. })));
    fs::remove_dir(waiting(&dir)).expect("removes");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).expect("opens");
    fs::write(dir.join("something"), "").expect("writes");
    assert!(matches!(refused(), CredentialsError::File(FileError::LooseMode { .. })));
}

#[test]
fn errors_tell_nothing_of_a_key() {
    let world = World::new();
    let dir = world.dir.path().join("identity");
    world.member(Role::Node).save(&dir).expect("saves");
    let sound = fs::read_to_string(dir.join("key.pem")).expect("reads");
    let body: String = sound.lines().filter(|line| !line.starts_with("-----")).collect();
    let tells = |text: &str| (0..=body.len() - 8).any(|at| text.contains(&body[at..at + 8]));
    assert!(tells(&sound.replace('\n', "")), "the test can see a key");
    let mut told_of = 0;
    for at in (0..sound.len()).step_by(7) {
        for damaged in [sound[..at].to_owned(), sound[at..].to_owned(), format!("{}!{}", &sound[..at], &sound[at..])] {
            fs::write(dir.join("key.pem"), damaged).expect("writes");
            if let Err(error) = Credentials::load(&dir) {
                assert!(!tells(&told(&error)), "{error:?}");
                told_of += 1;
            }
        }
    }
    assert!(told_of > 50, "{told_of} were damaged");
    let request = KeyRequest::generate();
    let other = issue(&world, &KeyRequest::generate()).chain;
    let error = accept(&world, request, other).err().expect("refused");
    assert!(told(&error).contains("another key") && !told(&error).contains('['), "{}", told(&error));
}

/// One request is enough for all cases.
fn sample() -> &'static [u8] {
    static SAMPLE: OnceLock<Vec<u8>> = OnceLock::new();
    SAMPLE.get_or_init(|| KeyRequest::generate().der().to_vec())
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert_eq!(RequestedKey::read(&bytes), Err(BadRequest));
    }

    #[test]
    fn a_damaged_request_gives_no_other_key(at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut damaged = sample().to_vec();
        *at.get_mut(&mut damaged) ^= flip;
        // Around the signed part a few bits say the same either way. What such a request proves is bound to its own
        // bytes.
        if let Ok(read) = RequestedKey::read(&damaged) {
            let sound = RequestedKey::read(sample()).expect("sound");
            prop_assert_eq!(read.key_digest(), sound.key_digest());
            prop_assert_ne!(read, sound);
        }
        prop_assert_eq!(RequestedKey::read(&sample()[..at.index(sample().len())]), Err(BadRequest));
    }
}

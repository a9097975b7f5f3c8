//! Issuing, keeping and loading.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use common::{ID, LIFETIME, World, wall};
use modchain_certs::authority::{ISSUING_LIFETIME, ROOT_LIFETIME};
use modchain_certs::leaf::BACKDATED;
use modchain_certs::{
    Authority, AuthorityError, CertificatePlan, Credentials, CredentialsError, FileError, Issued, KeyRequest,
    RequestedKey, Subject,
};
use modchain_types::{CertificateSerial, IdentityId, Role, Span, WallTime};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};

fn node() -> Subject {
    Subject::member(Role::Node, ID).expect("a member")
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> X509Certificate<'a> {
    X509Certificate::from_der(der).expect("parses").1
}

fn life(certificate: &X509Certificate<'_>) -> (SystemTime, SystemTime) {
    let validity = certificate.validity();
    (validity.not_before.to_datetime().into(), validity.not_after.to_datetime().into())
}

fn near(one: SystemTime, two: SystemTime) -> bool {
    let apart = one.duration_since(two).unwrap_or_else(|error| error.duration());
    apart < Duration::from_secs(60)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("metadata").permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("sets the mode");
}

#[test]
fn root_issuer_and_leaf_keep_to_the_profile() {
    let world = World::new();
    let now = SystemTime::now();
    let credentials = world.member(Role::Node);
    let [leaf, issuing] = credentials.chain() else { panic!("leaf and issuer") };
    let (root, issuing, leaf) = (parse(world.authority.root()), parse(issuing), parse(leaf));
    for (certificate, signer, path_len) in
        [(&root, &root, Some(1)), (&issuing, &root, Some(0)), (&leaf, &issuing, None)]
    {
        certificate.verify_signature(Some(signer.public_key())).expect("signed by its issuer");
        assert_eq!(certificate.issuer(), signer.subject());
        let constraints = certificate.basic_constraints().expect("parses").expect("there");
        assert!(constraints.critical);
        assert_eq!((constraints.value.ca, constraints.value.path_len_constraint), (path_len.is_some(), path_len));
        let usage = certificate.key_usage().expect("parses").expect("there");
        assert!(usage.critical);
        assert_eq!(usage.value.key_cert_sign(), path_len.is_some());
        assert_eq!(usage.value.digital_signature(), path_len.is_none());
        assert!(!usage.value.crl_sign());
        assert!(certificate.name_constraints().expect("parses").is_none());
        assert!(certificate.raw_serial().len() >= 12 && certificate.raw_serial()[0] < 0x80);
    }
    assert_ne!(root.raw_serial(), issuing.raw_serial());
    for (certificate, lifetime) in [(&root, ROOT_LIFETIME), (&issuing, ISSUING_LIFETIME), (&leaf, LIFETIME)] {
        let (from, to) = life(certificate);
        assert!(near(from, now - BACKDATED) && near(to, now + lifetime));
    }
    let names = leaf.extensions().iter().filter(|extension| {
        matches!(extension.parsed_extension(), ParsedExtension::SubjectAlternativeName(names) if names.general_names.len() == 1)
    });
    assert_eq!(names.count(), 1);
}

#[test]
fn two_certificates_for_one_subject_have_their_own_serials_and_keys() {
    let world = World::new();
    let (one, two) = (world.member(Role::Client), world.member(Role::Client));
    assert_eq!(one.identity().id, two.identity().id);
    assert_ne!(one.identity().serial, two.identity().serial);
    assert_ne!(parse(&one.chain()[0]).public_key().raw, parse(&two.chain()[0]).public_key().raw);
}

#[test]
fn nobody_gets_the_orchestrators_role_or_id() {
    assert!(Subject::member(Role::Orchestrator, ID).is_none());
    assert!(Subject::member(Role::Node, IdentityId([0; 16])).is_none());
}

#[test]
fn a_certificate_does_not_outlive_its_issuer() {
    let world = World::new();
    let credentials = world.authority.issue(node(), 2 * ISSUING_LIFETIME, SystemTime::now()).expect("issues");
    assert_eq!(life(&parse(&credentials.chain()[0])).1, life(&parse(&credentials.chain()[1])).1);
    let late = SystemTime::now() + 2 * ISSUING_LIFETIME;
    assert!(matches!(world.authority.issue(node(), LIFETIME, late), Err(AuthorityError::Expired { .. })));
}

#[test]
fn an_authority_loads_as_it_was_and_is_never_overwritten() {
    let world = World::new();
    assert!(Authority::exists(&world.ca_dir()));
    assert!(!Authority::exists(world.dir.path()));
    let again = Authority::load(&world.ca_dir(), SystemTime::now()).expect("loads");
    assert_eq!(again.root(), world.authority.root());
    let issuer = |authority: &Authority| {
        authority.issue(node(), LIFETIME, SystemTime::now()).expect("issues").chain()[1].clone()
    };
    assert_eq!(issuer(&again), issuer(&world.authority));
    let second = Authority::create(&world.ca_dir(), SystemTime::now());
    assert!(matches!(second, Err(AuthorityError::Exists { .. })));
    assert_eq!((mode(&world.ca_dir()), mode(&world.ca_dir().join("root.pem"))), (0o700, 0o400));
    assert_eq!(mode(&world.ca_dir().join("issuing.pem")), 0o400);
}

#[test]
fn a_crash_between_root_and_issuer_heals() {
    let world = World::new();
    fs::remove_file(world.ca_dir().join("issuing.pem")).expect("removes");
    let again = Authority::load(&world.ca_dir(), SystemTime::now()).expect("heals");
    assert_eq!(again.root(), world.authority.root());
    assert!(world.ca_dir().join("issuing.pem").exists());
}

#[test]
fn a_check_changes_nothing_and_refuses_what_loading_would() {
    let (world, other) = (World::new(), World::new());
    let (root, issuing) = (world.ca_dir().join("root.pem"), world.ca_dir().join("issuing.pem"));
    Authority::check(&world.ca_dir()).expect("whole");
    fs::remove_file(&issuing).expect("removes");
    Authority::check(&world.ca_dir()).expect("the next one that loads it makes it");
    assert!(!issuing.exists());
    fs::copy(other.ca_dir().join("issuing.pem"), &issuing).expect("copies");
    assert!(matches!(Authority::check(&world.ca_dir()), Err(AuthorityError::Damaged { .. })));
    fs::remove_file(&root).expect("removes");
    assert!(matches!(Authority::check(&world.ca_dir()), Err(AuthorityError::File(FileError::Missing { .. }))));
}

#[test]
fn the_issuer_is_replaced_at_half_its_life_and_the_root_is_not() {
    let world = World::new();
    let before = world.member(Role::Node);
    let later = SystemTime::now() + ISSUING_LIFETIME / 2 + Duration::from_secs(3600);
    let again = Authority::load(&world.ca_dir(), later).expect("loads");
    let after = again.issue(node(), LIFETIME, later).expect("issues");
    assert_ne!(before.chain()[1], after.chain()[1]);
    assert_eq!(before.root(), after.root());
    assert_eq!(before.identity().role, after.identity().role);
    let end = SystemTime::now() + ROOT_LIFETIME + Duration::from_secs(3600);
    assert!(matches!(Authority::load(&world.ca_dir(), end), Err(AuthorityError::Expired { .. })));
}

#[test]
fn loose_modes_are_refused_with_file_mode_and_remedy() {
    let world = World::new();
    let root = world.ca_dir().join("root.pem");
    for loose in [0o600, 0o440, 0o404] {
        set_mode(&root, loose);
        let error = Authority::load(&world.ca_dir(), SystemTime::now()).err().expect("refused").to_string();
        for part in ["root.pem", &format!("{loose:04o}"), "chmod 0400"] {
            assert!(error.contains(part), "{error}");
        }
    }
    set_mode(&root, 0o400);
    set_mode(&world.ca_dir(), 0o755);
    let error = Authority::load(&world.ca_dir(), SystemTime::now()).err().expect("refused").to_string();
    assert!(error.contains("chmod 0700"), "{error}");
}

#[test]
fn a_damaged_authority_is_refused() {
    let (world, other) = (World::new(), World::new());
    let root = world.ca_dir().join("root.pem");
    let own = fs::read_to_string(&root).expect("reads");
    let foreign = fs::read_to_string(other.ca_dir().join("root.pem")).expect("reads");
    let key_end = |text: &str| text.find("-----BEGIN CERTIFICATE").expect("a certificate");
    let mixed = format!("{}{}", &own[..key_end(&own)], &foreign[key_end(&foreign)..]);
    for text in ["", "nonsense", &own[..key_end(&own)], &own[key_end(&own)..], &mixed] {
        set_mode(&root, 0o600);
        fs::write(&root, text).expect("writes");
        set_mode(&root, 0o400);
        assert!(matches!(Authority::load(&world.ca_dir(), SystemTime::now()), Err(AuthorityError::Damaged { .. })));
    }
}

#[test]
fn an_issuing_authority_of_another_root_is_refused() {
    let (world, other) = (World::new(), World::new());
    let issuing = |world: &World| world.ca_dir().join("issuing.pem");
    let own = fs::read(issuing(&world)).expect("reads");
    fs::remove_file(issuing(&world)).expect("removes");
    fs::copy(issuing(&other), issuing(&world)).expect("copies");
    let error = Authority::load(&world.ca_dir(), SystemTime::now()).err().expect("refused").to_string();
    assert!(error.contains("issuing.pem") && error.contains("not issued by root.pem"), "{error}");
    set_mode(&issuing(&world), 0o600);
    fs::write(issuing(&world), own).expect("writes");
    set_mode(&issuing(&world), 0o400);
    assert!(Authority::load(&world.ca_dir(), SystemTime::now()).is_ok());
}

#[test]
fn credentials_load_as_they_were_saved() {
    let world = World::new();
    let dir = world.dir.path().join("identities/alice");
    let saved = world.member(Role::Client);
    assert!(!Credentials::exist(&dir));
    saved.save(&dir).expect("saves");
    assert!(Credentials::exist(&dir));
    let loaded = Credentials::load(&dir).expect("loads");
    assert_eq!(loaded.identity(), saved.identity());
    assert_eq!((loaded.chain(), loaded.root()), (saved.chain(), saved.root()));
    assert_eq!((mode(&dir), mode(&dir.join("key.pem")), mode(&dir.join("cert.pem"))), (0o700, 0o600, 0o644));
    assert_eq!(fs::read_dir(&dir).expect("lists").count(), 3);

    let newer = world.member(Role::Client);
    newer.save(&dir).expect("replaces");
    assert_eq!(Credentials::load(&dir).expect("loads").identity(), newer.identity());

    set_mode(&dir.join("key.pem"), 0o644);
    let error = Credentials::load(&dir).err().expect("refused");
    assert!(matches!(error, CredentialsError::File(FileError::LooseMode { mode: 0o644, .. })), "{error}");
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let world = World::new();
    let (one, two) = (world.dir.path().join("one"), world.dir.path().join("two"));
    world.member(Role::Client).save(&one).expect("saves");
    world.member(Role::Client).save(&two).expect("saves");
    fs::copy(two.join("key.pem"), one.join("key.pem")).expect("copies");
    assert!(matches!(Credentials::load(&one), Err(CredentialsError::Mismatch)));
}

#[test]
fn a_plan_is_in_whole_seconds_and_ends_no_later_than_its_issuer() {
    let world = World::new();
    let plan = |lifetime, now: i64| world.authority.plan(node(), lifetime, WallTime(now)).expect("plans");
    let now = wall(SystemTime::now()).0 / 1000 * 1000;
    let (early, late) = (plan(Span::from_millis(10_999), now), plan(Span::from_millis(10_000), now + 999));
    for plan in [early, late] {
        assert_eq!((plan.not_before.0, plan.not_after.0, plan.subject), (now - 600_000, now + 10_000, node()));
    }
    assert_ne!(early.serial, late.serial);
    assert_eq!(plan(Span::ZERO, now).not_after.0, now + 1000);
    let (_, end) = life(&parse(&world.member(Role::Node).chain()[1]));
    assert_eq!(plan(Span::MAX, now).not_after, wall(end));
    assert_eq!(plan(Span::from_secs(10), wall(end).0 - 3000).not_after, wall(end));
    for after in [wall(end).0, wall(end).0 + 1, i64::MAX] {
        let result = world.authority.plan(node(), Span::from_secs(10), WallTime(after));
        assert!(matches!(result, Err(AuthorityError::Expired { .. })));
    }
}

#[test]
fn what_was_planned_is_signed_and_after_a_crash_the_same_again() {
    let world = World::new();
    let request = KeyRequest::generate();
    let key = RequestedKey::read(request.der()).expect("sound");
    let plan = world.authority.plan(node(), Span::from_secs(3600), wall(SystemTime::now())).expect("plans");
    let first = world.authority.sign(&key, &plan).expect("signs");
    assert_eq!((first.identity.serial, first.identity.key), (plan.serial, request.key_digest()));
    assert_eq!((first.identity.not_before, first.identity.not_after), (plan.not_before, plan.not_after));
    assert_eq!(first.identity.life(), Span::from_secs(3600));

    let again = Authority::load(&world.ca_dir(), SystemTime::now()).expect("loads");
    let second = again.sign(&key, &plan).expect("signs");
    let signed = |issued: &Issued| parse(&issued.chain[0]).tbs_certificate.as_ref().to_vec();
    assert_eq!(signed(&first), signed(&second));
    assert_eq!((first.identity, &first.chain[1]), (second.identity, &second.chain[1]));
    let root = world.authority.root().clone();
    assert!(request.accept(second.chain, root, Role::Node, ID, wall(SystemTime::now())).is_ok());
}

#[test]
fn a_plan_that_no_certificate_can_say_is_not_signed() {
    let world = World::new();
    let key = RequestedKey::read(KeyRequest::generate().der()).expect("sound");
    let plan = world.authority.plan(node(), Span::from_secs(3600), wall(SystemTime::now())).expect("plans");
    let (from, to) = (plan.not_before.0, plan.not_after.0);
    let far = wall(SystemTime::now() + 2 * ISSUING_LIFETIME).0 / 1000 * 1000;
    for (from, to) in [
        (from + 1, to),
        (from, to + 1),
        (to, from),
        (from, from),
        (from, far),
        (-1000, to),
        (i64::MIN, to),
        (from, i64::MAX),
        (i64::MAX - 1, i64::MAX),
    ] {
        let plan = CertificatePlan { not_before: WallTime(from), not_after: WallTime(to), ..plan };
        assert!(matches!(world.authority.sign(&key, &plan), Err(AuthorityError::Dates)), "{from} to {to}");
    }
    for serial in [[0xff; 16], [0; 16], [0x80; 16]] {
        let plan = CertificatePlan { serial: CertificateSerial(serial), ..plan };
        assert_eq!(
            world.authority.sign(&key, &plan).expect("signs").identity.serial,
            plan.serial,
            "any number will do"
        );
    }
}

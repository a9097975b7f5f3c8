//! Issuing, keeping and loading.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use common::{ID, LIFETIME, World, any_ca, uri};
use modchain_certs::authority::{ISSUING_LIFETIME, ROOT_LIFETIME};
use modchain_certs::leaf::BACKDATED;
use modchain_certs::{Authority, AuthorityError, Credentials, CredentialsError, FileError, Subject};
use modchain_types::{IdentityId, Role};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};

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
    let subject = Subject::member(Role::Node, ID).expect("a member");
    let credentials = world.authority.issue(subject, 2 * ISSUING_LIFETIME, SystemTime::now()).expect("issues");
    assert_eq!(life(&parse(&credentials.chain()[0])).1, life(&parse(&credentials.chain()[1])).1);
    let late = SystemTime::now() + 2 * ISSUING_LIFETIME;
    assert!(matches!(world.authority.issue(subject, LIFETIME, late), Err(AuthorityError::Expired { .. })));
}

#[test]
fn an_authority_loads_as_it_was_and_is_never_overwritten() {
    let world = World::new();
    assert!(Authority::exists(&world.ca_dir()));
    assert!(!Authority::exists(world.dir.path()));
    let again = Authority::load(&world.ca_dir(), SystemTime::now()).expect("loads");
    assert_eq!(again.root(), world.authority.root());
    let issuer = |authority: &Authority| {
        let subject = Subject::member(Role::Node, ID).expect("a member");
        authority.issue(subject, LIFETIME, SystemTime::now()).expect("issues").chain()[1].clone()
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
fn the_issuer_is_replaced_at_half_its_life_and_the_root_is_not() {
    let world = World::new();
    let before = world.member(Role::Node);
    let later = SystemTime::now() + ISSUING_LIFETIME / 2 + Duration::from_secs(3600);
    let again = Authority::load(&world.ca_dir(), later).expect("loads");
    let subject = Subject::member(Role::Node, ID).expect("a member");
    let after = again.issue(subject, LIFETIME, later).expect("issues");
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
fn a_request_gives_its_key_and_nothing_else() {
    let world = World::new();
    let key = KeyPair::generate().expect("key");
    let mut wishes = CertificateParams::default();
    wishes.is_ca = any_ca();
    wishes.subject_alt_names = vec![uri(&world.domain().uri(Role::Operator, ID))];
    wishes.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let request = wishes.serialize_request(&key).expect("request");
    let subject = Subject::member(Role::Node, ID).expect("a member");
    let now = SystemTime::now();
    let issued = world.authority.issue_for_request(request.der(), subject, LIFETIME, now).expect("issues");
    assert_eq!((issued.identity.role, issued.identity.id), (Role::Node, ID));
    let leaf = parse(&issued.chain[0]);
    assert!(!leaf.is_ca());
    assert_eq!(leaf.public_key().raw, rcgen::PublicKeyData::subject_public_key_info(&key));
    assert!(near(life(&leaf).1, now + LIFETIME));
}

#[test]
fn unsound_requests_are_refused() {
    let world = World::new();
    let subject = Subject::member(Role::Node, ID).expect("a member");
    let issue = |der: &[u8]| world.authority.issue_for_request(der, subject, LIFETIME, SystemTime::now());
    let request = |key: &KeyPair| CertificateParams::default().serialize_request(key).expect("request").der().to_vec();
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).expect("key");
        assert!(matches!(issue(&request(&key)), Err(AuthorityError::BadRequest)));
    }
    let sound = request(&KeyPair::generate().expect("key"));
    assert!(issue(&sound).is_ok());
    let mut unsigned = sound.clone();
    *unsigned.last_mut().expect("bytes") ^= 1;
    for bad in [&unsigned[..], &sound[..sound.len() - 1], b""] {
        assert!(matches!(issue(bad), Err(AuthorityError::BadRequest)));
    }
}

//! What strangers hand in to get a certificate, and the certificates themselves, against mutants and bombs. How to run it for
//! longer: `README.md` of `modchain-fuzz`.
//!
//! Certificates need an authority, and that is drawn by chance; so the corpus is written once, by `MODCHAIN_GOLDEN=write cargo
//! test -p modchain-certs --test fuzz`, and its keys are thrown away. The one private key here is known to everybody.

mod common;

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::SystemTime;

use common::{Forger, ID, World, any_ca, dns, node_like, uri};
use modchain_certs::{
    Authority, Credentials, IdentityError, JoinToken, ORCHESTRATOR_ID, ORCHESTRATOR_NAME, PeerIdentity, RequestedKey,
    RootPin, Subject, TrustDomain,
};
use modchain_fuzz::{Bomb, Counting, Fuzz, read_bombs, read_hex, signature, spend};
use modchain_types::{Role, Span, WallTime, base32};
use rcgen::{CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, KeyPair, SerialNumber};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate};

#[global_allocator]
static MEMORY: Counting = Counting;

/// A P-256 key in PKCS #8: that of RFC 6979, A.2.5, which is printed there for everybody.
const KNOWN_KEY: &str = "
    308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420
    c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721
    a14403420004
    60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6
    7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299";

fn known_key() -> KeyPair {
    let pkcs8 = read_hex(KNOWN_KEY);
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &rcgen::PKCS_ECDSA_P256_SHA256)
        .expect("a key")
}

/// The folder with the corpus, written anew where that is asked for.
fn corpus() -> PathBuf {
    static WRITTEN: Once = Once::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    if std::env::var("MODCHAIN_GOLDEN").is_ok_and(|value| value == "write") {
        WRITTEN.call_once(|| write_corpus(&folder));
    }
    folder
}

fn write_corpus(folder: &Path) {
    let world = World::new();
    let forger = world.forger();
    for target in ["certificate", "credentials", "token", "bombs"] {
        fs::create_dir_all(folder.join(target)).expect("makes the folder");
    }
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).expect("writes");
    write("root.der", world.authority.root());
    write("certificate/root.der", world.authority.root());
    write("certificate/issuing.der", &forger.issuing);
    for role in [Role::Node, Role::Client, Role::Operator] {
        write(&format!("certificate/{role}.der"), &world.member(role).chain()[0]);
    }
    write("certificate/orchestrator.der", &world.orchestrator().chain()[0]);

    let mut params = node_like();
    params.subject_alt_names = vec![uri(&world.domain().uri(Role::Node, ID))];
    write("credentials/cert.pem", certificates_pem(&[&forger.sign(&params, &known_key()), &forger.issuing]).as_bytes());
    write("credentials/ca.pem", certificates_pem(&[world.authority.root()]).as_bytes());

    let pin = RootPin::of_root(world.authority.root()).expect("a root");
    for role in [Role::Node, Role::Client, Role::Operator] {
        let token = JoinToken::generate(role, pin).expect("a role that joins");
        write(&format!("token/{role}.txt"), token.text().as_bytes());
    }
    for (name, answer, why, der) in certificate_bombs(&forger, world.domain()) {
        let mut text = format!("# certificate: {answer}\n# {why}\n");
        for line in der.chunks(60) {
            line.iter().for_each(|byte| write!(text, "{byte:02x}").expect("into memory"));
            text.push('\n');
        }
        write(&format!("bombs/certificate-{name}.hex"), text.as_bytes());
    }
}

/// Base 64 in lines of 64 characters, as every tool writes it.
fn certificates_pem(ders: &[&[u8]]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for der in ders {
        let mut body = String::new();
        for group in der.chunks(3) {
            let number =
                group.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
            for position in 0..4 {
                let letter = char::from(ALPHABET[(number >> (18 - 6 * position) & 63) as usize]);
                body.push(if position <= group.len() { letter } else { '=' });
            }
        }
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in body.as_bytes().chunks(64) {
            text.push_str(std::str::from_utf8(line).expect("ASCII"));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

type CertificateBomb = (&'static str, IdentityError, &'static str, Vec<u8>);

fn certificate_bombs(forger: &Forger, domain: &TrustDomain) -> Vec<CertificateBomb> {
    let node = domain.uri(Role::Node, ID);
    let orchestrator = domain.uri(Role::Orchestrator, ORCHESTRATOR_ID);
    let forged = |change: &dyn Fn(&mut CertificateParams)| {
        let sound = |params: &mut CertificateParams| {
            params.subject_alt_names = vec![uri(&node)];
            change(params);
        };
        forger.forge(sound).to_vec()
    };
    let names =
        |names: Vec<&str>| forged(&|params| params.subject_alt_names = names.iter().map(|name| uri(name)).collect());
    let serial = |serial: &[u8]| forged(&|params| params.serial_number = Some(SerialNumber::from_slice(serial)));
    let usage = |usages: &[ExtendedKeyUsagePurpose]| forged(&|params| params.extended_key_usages = usages.to_vec());
    let usage_error = IdentityError::Usage { role: Role::Node };
    let operator = node.replace("/node/", "/operator/");
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, Other, ServerAuth};
    vec![
        ("two-uris", IdentityError::Names, "A node that is an operator as well.", names(vec![&node, &operator])),
        ("same-uri-twice", IdentityError::Names, "One name, twice.", names(vec![&node, &node])),
        ("no-name", IdentityError::Names, "Nobody.", forged(&|params| params.subject_alt_names.clear())),
        ("a-hundred-uris", IdentityError::Names, "A hundred names.", names(vec![&node; 100])),
        (
            "uri-with-nul",
            IdentityError::UnknownPath,
            "A zero byte after the id.",
            names(vec![&format!("{node}\0.evil")]),
        ),
        (
            "uri-of-4-kib",
            IdentityError::UnknownPath,
            "A name that goes on.",
            names(vec![&format!("{node}{}", "a".repeat(4096))]),
        ),
        (
            "uri-way-out",
            IdentityError::UnknownPath,
            "A path that goes up.",
            names(vec![&node.replace("/node/", "/node/../operator/")]),
        ),
        (
            "uri-foreign",
            IdentityError::ForeignDomain,
            "Of another orchestrator.",
            names(vec![&node.replace(domain.as_str(), "aaaaaaaaaaaaaaaa.modchain")]),
        ),
        (
            "dns-beside",
            IdentityError::Names,
            "A node that answers to the orchestrator's name.",
            forged(&|params| params.subject_alt_names.push(dns(ORCHESTRATOR_NAME))),
        ),
        (
            "orchestrator-id",
            IdentityError::UnknownPath,
            "A node with the orchestrator's id.",
            names(vec![&domain.uri(Role::Node, ORCHESTRATOR_ID)]),
        ),
        (
            "orchestrator-without-name",
            IdentityError::Names,
            "An orchestrator that does not answer to its name.",
            names(vec![&orchestrator]),
        ),
        ("authority", IdentityError::Authority, "CA:TRUE.", forged(&|params| params.is_ca = any_ca())),
        ("usage-server", usage_error.clone(), "A node that serves.", usage(&[ServerAuth])),
        ("usage-both", usage_error.clone(), "A node that serves and asks.", usage(&[ClientAuth, ServerAuth])),
        ("usage-any", usage_error.clone(), "For everything.", usage(&[Any])),
        ("usage-none", usage_error.clone(), "For nothing that is named.", usage(&[])),
        ("usage-code", usage_error.clone(), "For signing programs too.", usage(&[ClientAuth, CodeSigning])),
        (
            "usage-unknown",
            usage_error,
            "For something else too.",
            usage(&[ClientAuth, Other(vec![1, 3, 6, 1, 4, 1, 99999, 1])]),
        ),
        ("serial-of-17-bytes", IdentityError::Serial, "A number that is a byte too long.", serial(&[1; 17])),
        ("serial-of-4-kib", IdentityError::Serial, "A number that goes on.", serial(&[1; 4096])),
        (
            "constraints-twice",
            IdentityError::Garbled,
            "A second extension that says CA:TRUE, after one that says it is none.",
            forged(&|params| {
                params.custom_extensions =
                    vec![CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 0x03, 0x01, 0x01, 0xff])];
            }),
        ),
        (
            "names-twice",
            IdentityError::Names,
            "A second extension with names.",
            forged(&|params| {
                let mut content = vec![0x30, 0x82];
                let name = operator.as_bytes();
                content.extend_from_slice(&(name.len() as u16 + 2).to_be_bytes());
                content.extend_from_slice(&[0x86, name.len() as u8]);
                content.extend_from_slice(name);
                params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], content)];
            }),
        ),
        ("trailing-byte", IdentityError::Garbled, "A byte after the end.", [forged(&|_| {}), vec![0]].concat()),
        ("cut-off", IdentityError::Garbled, "The last byte is missing.", {
            let mut der = forged(&|_| {});
            der.pop();
            der
        }),
    ]
}

fn domain() -> TrustDomain {
    TrustDomain::of_root(&fs::read(corpus().join("root.der")).expect("the corpus")).expect("a root")
}

fn told(error: &impl std::fmt::Display) -> u64 {
    signature(&error.to_string().chars().filter(|c| c.is_ascii_alphabetic()).collect::<String>())
}

/// Whoever is named stands in the certificate, in exactly one form; whatever else it says, reading it comes to an end.
#[test]
fn certificates() {
    let domain = domain();
    let words: [&[u8]; 9] = [
        &[0x55, 0x1d, 0x11],
        &[0x55, 0x1d, 0x13],
        &[0x55, 0x1d, 0x25],
        &[0x30, 0x80],
        &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
        &[0x01, 0x01, 0xff],
        b"/operator/",
        b"/orchestrator",
        &[0x86],
    ];
    Fuzz::target("certificate").corpus(corpus().join("certificate")).words(&words).run(|der| {
        let _ = TrustDomain::of_root(der);
        let _ = RootPin::of_root(der);
        match PeerIdentity::from_certificate(der, &domain) {
            Ok(peer) => {
                let name = domain.uri(peer.role, peer.id);
                assert!(der.windows(name.len()).any(|part| part == name.as_bytes()), "{name} stands nowhere in it");
                let (_, parsed) = X509Certificate::from_der(der).expect("it was read");
                assert!(!parsed.is_ca());
                // Whatever the dates are, these come to an end as well.
                let (begins, renews) = (peer.begins_at(), peer.renews_at());
                assert!(peer.life() == Span::ZERO || (begins <= renews && renews <= peer.not_after));
                signature(&(peer.role.word(), peer.life().0.checked_ilog2()))
            }
            Err(error) => signature(&(told(&error), der.len().checked_ilog2())),
        }
    });
}

/// Signing requests as they come: most mutants fail at the signature.
#[test]
fn requests() {
    let (folder, authority) = (corpus().join("request"), authority());
    Fuzz::target("request").corpus(folder).executions(10_000).run(|der| request(&authority, der));
}

/// Mutants of what a request asks for, each signed anew: only these get behind the signature.
#[test]
fn requests_that_are_signed() {
    let authority = authority();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &read_hex(KNOWN_KEY), &SystemRandom::new())
        .expect("a key");
    let wishes = [vec![], vec![uri("spiffe://aaaaaaaaaaaaaaaa.modchain/operator/x"), dns(ORCHESTRATOR_NAME)]];
    let seeds = wishes.map(|names| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let request = params.serialize_request(&known_key()).expect("a request");
        let (_, parsed) = X509CertificationRequest::from_der(request.der()).expect("parses");
        parsed.certification_request_info.raw.to_vec()
    });
    Fuzz::target("request_signed").seed_inputs(seeds).executions(3_000).run(|info| {
        let signed = key.sign(&SystemRandom::new(), info).expect("signs");
        let algorithm = read_hex("300a06082a8648ce3d040302");
        let der = tagged(0x30, &[info, &algorithm, &tagged(0x03, &[&[0], signed.as_ref()].concat())].concat());
        request(&authority, &der)
    });
}

/// A value in DER, which knows only the shortest form of a length.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    match length {
        0..128 => [&[tag, length as u8], content].concat(),
        128..256 => [&[tag, 0x81, length as u8], content].concat(),
        _ => [&[tag, 0x82, (length >> 8) as u8, length as u8], content].concat(),
    }
}

fn authority() -> Authority {
    let dir = tempfile::tempdir().expect("directory");
    Authority::create(&dir.path().join("ca"), SystemTime::now()).expect("makes an authority")
}

/// Whatever a request asks for, it gets its key certified under the name that we give, and nothing else.
fn request(authority: &Authority, der: &[u8]) -> u64 {
    let key = match RequestedKey::read(der) {
        Ok(key) => key,
        Err(error) => return signature(&(told(&error), der.len().checked_ilog2())),
    };
    assert!(der.windows(key.public_key_der().len()).any(|part| part == key.public_key_der()));
    let subject = Subject::member(Role::Node, ID).expect("a member");
    let now =
        WallTime(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis() as i64);
    let plan = authority.plan(subject, Span::from_secs(3600), now).expect("plans");
    let issued = authority.sign(&key, &plan).expect("a sound key can be certified");
    let (_, certificate) = X509Certificate::from_der(&issued.chain[0]).expect("parses");
    assert_eq!(certificate.tbs_certificate.subject_pki.raw, key.public_key_der());
    assert_eq!((issued.identity.role, issued.identity.id), (Role::Node, ID));
    // Key usage, extended key usage, names, basic constraints, both key identifiers at the most.
    assert!(certificate.extensions().len() <= 6 && !certificate.is_ca());
    assert_eq!(certificate.subject_alternative_name().expect("parses").expect("there").value.general_names.len(), 1);
    signature(&("issued", der.len().checked_ilog2()))
}

/// The files of a folder of credentials: the first byte says which is another than it should be.
#[test]
fn credentials_files() {
    let folder = corpus().join("credentials");
    let sound = [
        known_key().serialize_pem(),
        fs::read_to_string(folder.join("cert.pem")).expect("the corpus"),
        fs::read_to_string(folder.join("ca.pem")).expect("the corpus"),
    ];
    let dir = keep(&sound);
    let original = *Credentials::load(dir.path()).unwrap_or_else(|error| panic!("{error}")).identity();
    let seeds: Vec<Vec<u8>> = (0u8..3).map(|which| [&[which], sound[usize::from(which)].as_bytes()].concat()).collect();
    let words = ["-----BEGIN ", "-----END ", "CERTIFICATE-----", "PRIVATE KEY-----", "\r\n", "\n", "=", "MII", "EC "];
    let fuzz = Fuzz::target("credentials").seed_inputs(seeds).words(&words).executions(5_000);
    fuzz.run(|input| {
        let Some((which, text)) = input.split_first() else { return 0 };
        let which = usize::from(which % 3);
        let files: [&[u8]; 3] = std::array::from_fn(|file| if file == which { text } else { sound[file].as_bytes() });
        for (name, bytes) in FILES.iter().zip(files) {
            fs::write(dir.path().join(name), bytes).expect("writes");
        }
        match Credentials::load(dir.path()) {
            Ok(credentials) => {
                // What a certificate says is judged by TLS, with its signature; here it must belong to the key.
                assert_eq!(credentials.identity().key, original.key);
                assert!(which == 1 || credentials.identity() == &original, "neither key nor root says who somebody is");
                signature(&(which, credentials.chain().len()))
            }
            Err(error) => signature(&(which, told(&chain(&error)))),
        }
    });
}

const FILES: [&str; 3] = ["key.pem", "cert.pem", "ca.pem"];

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    causes.collect::<Vec<_>>().join(": ")
}

/// A folder with these three files: in memory where there is such a place, because thousands are written.
fn keep(files: &[String; 3]) -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).expect("sets the mode");
    for (name, text) in FILES.iter().zip(files) {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("sets the mode");
    }
    dir
}

/// One token has one text. Half of the mutants get the check characters that they should have, or none would get far.
#[test]
fn tokens() {
    let words = ["MCJ1-", "MCJ2-", "-n-", "-o-", "-", " ", "\n", "A", "2"];
    Fuzz::target("token").corpus(corpus().join("token")).words(&words).longest(256).run(|input| {
        let mut input = input.to_vec();
        if input.len() == 99 && input[0] == b'M' {
            let digest = ring::digest::digest(&ring::digest::SHA256, &[b"mcj1", &input[..95]].concat());
            input[95..].copy_from_slice(&base32::encode(digest.as_ref()).as_bytes()[..4]);
        }
        match JoinToken::parse(&input) {
            Ok(token) => {
                let text = token.text();
                assert_eq!(input.trim_ascii().to_ascii_lowercase(), text.to_ascii_lowercase().as_bytes());
                let again = JoinToken::parse(text.as_bytes()).expect("reads back");
                assert_eq!((again.role(), again.id(), again.root()), (token.role(), token.id(), token.root()));
                assert_eq!(again.verifier(), token.verifier());
                signature(&(token.role().word(), input.len()))
            }
            Err(error) => signature(&(told(&error), input.len().checked_ilog2())),
        }
    });
}

#[test]
fn bombs_are_refused_for_the_right_reason_within_their_memory() {
    let (folder, domain, authority) = (corpus(), domain(), authority());
    let text = |name: &str| fs::read_to_string(folder.join("credentials").join(name)).expect("the corpus");
    let sound = [known_key().serialize_pem(), text("cert.pem"), text("ca.pem")];
    for bomb in read_bombs(&folder.join("bombs")) {
        let Bomb { reader, input, name, .. } = &bomb;
        let (said, spent) = spend(|| match reader.as_str() {
            "certificate" => {
                PeerIdentity::from_certificate(input, &domain).map(drop).map_err(|error| error.to_string())
            }
            "request" => RequestedKey::read(input).map(drop).map_err(|error| error.to_string()),
            "token" => JoinToken::parse(input).map(drop).map_err(|error| error.to_string()),
            file => {
                let dir = keep(&sound);
                assert!(FILES.contains(&file), "{name}: there is no reader {file}");
                fs::write(dir.path().join(file), input).expect("writes");
                Credentials::load(dir.path()).map(drop).map_err(|error| chain(&error))
            }
        });
        assert!(spent.peak_bytes <= 128 * 1024 + 64 * input.len(), "{name} takes {} bytes", spent.peak_bytes);
        if reader == "request" && bomb.answer == "fine" {
            request(&authority, input);
        }
        bomb.check(said);
    }
}

//! What secrets look like, and a search for any part of them.

use std::collections::HashMap;
use std::fmt::Write as _;

use modchain_certs::JoinToken;
use modchain_types::base32;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

/// So many bytes of a secret in a row are a find, in whatever form: fewer come about by chance.
const WINDOW: usize = 8;
/// Characters that hold as much, in base 32 and in base 64.
const BASE32_WINDOW: usize = 13;
const BASE64_WINDOW: usize = 11;
/// What goes before the number itself in a private key on P-256 (RFC 5915): the version, and an octet string of 32
/// bytes.
const SCALAR_AFTER: [u8; 5] = [0x02, 0x01, 0x01, 0x04, 0x20];

type Prefix = [u8; 2];

struct Needle {
    part: Vec<u8>,
    /// Of which secret.
    what: &'static str,
    form: &'static str,
}

/// Parts of secrets to search for.
#[derive(Default)]
pub(crate) struct Needles {
    by_prefix: HashMap<Prefix, Vec<Needle>>,
}

impl Needles {
    /// Everything that lets somebody join: the secret, and the key that follows from it.
    pub(crate) fn token(&mut self, what: &'static str, token: &JoinToken) {
        let text = token.text();
        let mut secret = [0; 16];
        assert!(base32::decode_into(&text.as_bytes()[69..95], &mut secret));
        self.secret(what, &secret);
        let mut seed = ring::digest::Context::new(&ring::digest::SHA256);
        seed.update(b"modchain token v1");
        seed.update(&secret);
        self.secret(what, seed.finish().as_ref());
    }

    /// A private key on P-256 in PEM.
    pub(crate) fn key_pem(&mut self, what: &'static str, pem: &[u8]) {
        let key = PrivateKeyDer::from_pem_slice(pem).expect("a private key");
        let der = key.secret_der();
        let at = der.windows(SCALAR_AFTER.len()).position(|window| window == SCALAR_AFTER).expect("a number");
        self.secret(what, &der[at + SCALAR_AFTER.len()..][..32]);
    }

    /// Bytes, in every form that a program may write them in.
    pub(crate) fn secret(&mut self, what: &'static str, secret: &[u8]) {
        for window in secret.windows(WINDOW) {
            let hex = |upper: bool| {
                window.iter().fold(String::new(), |mut text, byte| {
                    let _ = if upper { write!(text, "{byte:02X}") } else { write!(text, "{byte:02x}") };
                    text
                })
            };
            let decimal = window.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
            self.part(what, "raw", window);
            self.part(what, "backwards", &window.iter().rev().copied().collect::<Vec<_>>());
            self.part(what, "hexadecimal", hex(false).as_bytes());
            self.part(what, "hexadecimal", hex(true).as_bytes());
            self.part(what, "decimal", decimal.as_bytes());
            self.part(what, "decimal", decimal.replace(' ', "").as_bytes());
            self.part(what, "escaped", window.escape_ascii().to_string().as_bytes());
        }
        let text = base32::encode(secret);
        for window in text.as_bytes().windows(BASE32_WINDOW) {
            self.part(what, "base 32", window);
            self.part(what, "base 32", &window.to_ascii_uppercase());
        }
        // In base 64 it depends on what goes before, as in a PEM file.
        for before in 0..3 {
            let text = base64(&[&vec![0; before], secret].concat());
            let known = (before * 4).div_ceil(3)..text.len() - 1;
            for window in text.as_bytes()[known].windows(BASE64_WINDOW) {
                self.part(what, "base 64", window);
            }
        }
    }

    /// These very bytes.
    pub(crate) fn part(&mut self, what: &'static str, form: &'static str, part: &[u8]) {
        self.by_prefix.entry([part[0], part[1]]).or_default().push(Needle { part: part.to_vec(), what, form });
    }

    /// What is found in there, each at its first place.
    pub(crate) fn find(&self, haystack: &[u8]) -> Vec<String> {
        let mut may_begin = vec![false; 1 << 16];
        self.by_prefix.keys().for_each(|prefix| may_begin[usize::from(u16::from_be_bytes(*prefix))] = true);
        let mut found: HashMap<(&str, &str), usize> = HashMap::new();
        for at in 0..haystack.len().saturating_sub(1) {
            let prefix = [haystack[at], haystack[at + 1]];
            if !may_begin[usize::from(u16::from_be_bytes(prefix))] {
                continue;
            }
            for Needle { part, what, form } in &self.by_prefix[&prefix] {
                if haystack[at..].starts_with(part) {
                    found.entry((what, form)).or_insert(at);
                }
            }
        }
        let mut found: Vec<String> =
            found.into_iter().map(|((what, form), at)| format!("{what}, {form}, at {at}")).collect();
        found.sort();
        found
    }
}

/// Without padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    text
}

#[test]
fn every_form_of_a_planted_secret_is_found_and_nothing_else_is() {
    let secret: Vec<u8> = (0..16).map(|byte: u8| byte.wrapping_mul(37).wrapping_add(11)).collect();
    let mut needles = Needles::default();
    needles.secret("it", &secret);
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let planted: [(&str, Vec<u8>); 13] = [
        ("raw", secret.clone()),
        ("raw", secret[3..11].to_vec()),
        ("hexadecimal", hex.to_uppercase().into_bytes()),
        ("hexadecimal", hex.into_bytes()),
        ("base 32", base32::encode(&secret).to_uppercase().into_bytes()),
        ("base 32", base32::encode(&secret).into_bytes()),
        ("base 64", base64(&[b"ab", &secret[..], b"c"].concat()).into_bytes()),
        // Whatever goes before it, no more than a window of its beginning.
        ("base 64", base64(&secret[..9]).into_bytes()),
        ("base 64", base64(&[b"a", &secret[..10]].concat()).into_bytes()),
        ("base 64", base64(&[b"ab", &secret[..10]].concat()).into_bytes()),
        ("backwards", secret.iter().rev().copied().collect()),
        ("decimal", format!("{secret:?}").into_bytes()),
        ("escaped", secret.escape_ascii().to_string().into_bytes()),
    ];
    for (form, planted) in planted {
        let found = needles.find(&[b"before ", &planted[..], b" after"].concat());
        assert!(found.iter().any(|found| found.contains(form)), "{form}: {found:?}");
    }
    assert_eq!(base64(b"Many hands"), "TWFueSBoYW5kcw");
    let pseudorandom: Vec<u8> = (0..1 << 20_u32).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    assert_eq!(needles.find(&pseudorandom), Vec::<String>::new());
}

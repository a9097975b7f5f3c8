//! What is left of a token's secret in this process's memory once the token is gone. In a file of its own, because
//! nothing else may hold a token meanwhile. The search uses the stack itself, and so cannot see what it has just
//! written over.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use modchain_certs::{Exporter, JoinToken, RootPin};
use modchain_types::{Role, base32};
use zeroize::Zeroizing;

/// Bytes of the secret, or of its text, in a row that count as a find.
const WINDOW: usize = 8;
/// The windows are kept for the search in a form that the search does not find.
const MASK: u64 = 0xa5a5_a5a5_a5a5_a5a5;
const BUFFER_BYTES: usize = 1 << 20;

fn masked_windows(token: &JoinToken) -> BTreeSet<u64> {
    let text = token.text();
    let secret = &text.as_bytes()[69..95];
    let mut raw = Zeroizing::new([0; 16]);
    assert!(base32::decode_into(secret, &mut raw[..]));
    raw.windows(WINDOW).chain(secret.windows(WINDOW)).map(|window| number(window) ^ MASK).collect()
}

fn number(window: &[u8]) -> u64 {
    u64::from_le_bytes(window.try_into().expect("eight bytes"))
}

/// Where in the writable memory of this process a part of the secret lies.
fn finds(secret: &BTreeSet<u64>) -> Vec<String> {
    let memory = File::open("/proc/self/mem").expect("opens");
    let first: BTreeSet<u8> = secret.iter().map(|window| (window ^ MASK) as u8).collect();
    let may_begin: [bool; 256] = std::array::from_fn(|byte| first.contains(&(byte as u8)));
    let mut buffer = Zeroizing::new(vec![0; BUFFER_BYTES]);
    let mut found = Vec::new();
    for line in fs::read_to_string("/proc/self/maps").expect("reads").lines().filter(|line| line.contains(" rw")) {
        let (range, _) = line.split_once(' ').expect("a range");
        let (from, to) = range.split_once('-').expect("a range");
        let [mut from, to] = [from, to].map(|end| u64::from_str_radix(end, 16).expect("an address"));
        while from < to {
            // What was found once must not be found again in here.
            buffer.fill(0);
            let length = usize::try_from(to - from).map_or(BUFFER_BYTES, |left| left.min(BUFFER_BYTES));
            if memory.read_exact_at(&mut buffer[..length], from).is_err() {
                break;
            }
            for (at, window) in buffer[..length].windows(WINDOW).enumerate() {
                if may_begin[usize::from(window[0])] && secret.contains(&(number(window) ^ MASK)) {
                    found.push(format!("{:x} in {line}", from + at as u64));
                }
            }
            from += length as u64;
        }
    }
    found
}

#[inline(never)]
fn join_once() -> BTreeSet<u64> {
    let made = JoinToken::generate(Role::Node, RootPin([1; 32])).expect("a node");
    let secret = masked_windows(&made);
    assert!(!finds(&secret).is_empty(), "the search sees a secret that is there");
    let read = JoinToken::parse(made.text().as_bytes()).expect("reads");
    assert_eq!(read.verifier(), made.verifier());
    read.prove(&[2; 32], &Exporter([3; 32]), b"request");
    secret
}

#[test]
fn nothing_of_the_secret_is_left_in_memory() {
    let secret = join_once();
    let left = finds(&secret);
    assert!(left.is_empty(), "{} places:\n{}", left.len(), left.join("\n"));
}

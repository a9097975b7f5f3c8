//! Join tokens: what is written is read, what is mistyped is found, and nothing tells the secret.

mod common;

use std::collections::BTreeSet;
use std::fmt::{Debug, Display};

use common::lacks;
use modchain_certs::token::{PROOF_BYTES, TOKEN_CHARS, proves};
use modchain_certs::{Exporter, JoinToken, RootPin, TokenError};
use modchain_types::{Role, TokenId, base32};
use proptest::prelude::*;
use ring::digest::{SHA256, digest};

/// Fixed for ever: a token in somebody's hands must not stop working. The id is 01 to 05, the secret 10 to 1f, the pin
/// a0 to bf; all of this was computed by another program than ours.
const KNOWN: &str =
    "MCJ1-n-ucq2fi5euwtkpkfjvkv2zlnov6yldmvtws23nn5yxg5lxpf5x27q-aebagbaf-caireeyuculbogazdinryhi6d4mswo";
const KNOWN_VERIFIER: &str = "f5d09ff1037456a358a76933b66b21060e6f05e9f75513f08bdbb203cd87d405";
/// Over a nonce of sevens, an exporter of nines and the request `request`.
const KNOWN_PROOF: &str = "ce29a61e2dc15785b62464ef991110356ce3c1e07ae6f620982c01c1fea825d6\
                           edbfb8f9978f14c1923fe9957862e5ee15e9f72a3ca27bf0f745927ca5f3f209";

const NONCE: [u8; 32] = [7; 32];
const EXPORTER: Exporter = Exporter([9; 32]);
const REQUEST: &[u8] = b"request";

lacks!(JoinToken: Debug);
lacks!(JoinToken: Display);
lacks!(JoinToken: Clone);
lacks!(Exporter: Debug);

fn parse(text: &str) -> Result<JoinToken, TokenError> {
    JoinToken::parse(text.as_bytes())
}

fn error(text: &[u8]) -> Option<TokenError> {
    JoinToken::parse(text).err()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a token as the description says, for any letters in the place of the parts.
fn written(role: &str, pin: &str, id: &str, secret: &str) -> String {
    let before = format!("MCJ1-{role}-{pin}-{id}-{secret}");
    let check = base32::encode(digest(&SHA256, format!("mcj1{before}").as_bytes()).as_ref());
    format!("{before}{}", &check[..4])
}

/// Tokens that are the same in every run, so that the chance of one in a million is drawn once and for all.
fn fixed_tokens() -> Vec<String> {
    let part = |number: u8, what: &str| digest(&SHA256, format!("{number} {what}").as_bytes());
    (0..6)
        .map(|number| {
            let [pin, id, secret] = ["pin", "id", "secret"].map(|what| part(number, what));
            written(
                ["n", "c", "o"][usize::from(number) % 3],
                &base32::encode(pin.as_ref()),
                &base32::encode(&id.as_ref()[..5]),
                &base32::encode(&secret.as_ref()[..16]),
            )
        })
        .collect()
}

#[test]
fn the_known_token_reads_and_proves_as_it_always_did() {
    let token = parse(KNOWN).expect("reads");
    assert_eq!((token.role(), token.id(), KNOWN.len()), (Role::Node, TokenId([1, 2, 3, 4, 5]), TOKEN_CHARS));
    assert_eq!(token.root().0.to_vec(), (0xa0..0xc0).collect::<Vec<u8>>());
    assert_eq!(token.text().as_str(), KNOWN);
    assert_eq!(hex(&token.verifier()), KNOWN_VERIFIER);
    assert_eq!(hex(&token.prove(&NONCE, &EXPORTER, REQUEST)), KNOWN_PROOF);
}

#[test]
fn what_is_made_reads_back_for_every_role_but_the_orchestrators() {
    let pin = RootPin([3; 32]);
    let mut ids = BTreeSet::new();
    for role in [Role::Node, Role::Client, Role::Operator] {
        for _ in 0..20 {
            let made = JoinToken::generate(role, pin).expect("a role to join in");
            let text = made.text();
            assert_eq!((text.len(), text.capacity()), (TOKEN_CHARS, TOKEN_CHARS), "it never grew");
            let read = parse(&text).expect("reads");
            assert_eq!((read.role(), read.id(), read.root()), (role, made.id(), pin));
            assert_eq!((read.verifier(), read.text()), (made.verifier(), text));
            ids.insert((made.id(), made.verifier()));
        }
    }
    assert_eq!(ids.len(), 60, "each has an id and a secret of its own");
    assert!(JoinToken::generate(Role::Orchestrator, pin).is_none());
}

#[test]
fn white_space_around_it_and_upper_case_are_taken() {
    let token = parse(KNOWN).expect("reads");
    for text in [format!("  {KNOWN}\r\n"), format!("\n\t{KNOWN}"), KNOWN.to_uppercase(), {
        let (front, back) = KNOWN.split_at(40);
        format!("{front}{}", back.to_uppercase())
    }] {
        assert_eq!(parse(&text).map(|read| read.verifier()), Ok(token.verifier()), "{text}");
        assert_eq!(parse(&text).map(|read| read.text()), Ok(token.text()), "{text}");
    }
}

#[test]
fn each_kind_of_wrong_text_is_told_apart_and_told_what_next() {
    let known = |from: usize, to: usize| &KNOWN[from..to];
    let replaced = |at: usize, with: &str| format!("{}{with}{}", known(0, at), known(at + 1, TOKEN_CHARS));
    let moved_dash = format!("{}b-{}", known(0, 59), known(61, TOKEN_CHARS));
    let cases: Vec<(String, TokenError, &str)> = vec![
        (String::new(), TokenError::NotAToken, "copy"),
        (" \n".into(), TokenError::NotAToken, "copy"),
        ("hello".into(), TokenError::NotAToken, "copy"),
        ("MCJ".into(), TokenError::NotAToken, "copy"),
        ("MCJ-n-".into(), TokenError::NotAToken, "copy"),
        ("MCJ0-n-".into(), TokenError::NotAToken, "copy"),
        ("MCJ1234-n-".into(), TokenError::NotAToken, "copy"),
        (KNOWN.replacen("MCJ1", "mcj1", 1), TokenError::NotAToken, "copy"),
        (format!("token: {KNOWN}"), TokenError::NotAToken, "copy"),
        (KNOWN.replacen("MCJ1", "MCJ2", 1), TokenError::NewerVersion { version: 2 }, "MCJ2"),
        ("MCJ12-whatever comes then".into(), TokenError::NewerVersion { version: 12 }, "install"),
        ("MCJ1".into(), TokenError::Length { found: 4 }, "4 characters"),
        (known(0, 98).into(), TokenError::Length { found: 98 }, "whole line"),
        (known(0, 40).into(), TokenError::Length { found: 40 }, "whole line"),
        (format!("{KNOWN}a"), TokenError::Length { found: 100 }, "nothing else"),
        (format!("{KNOWN}{KNOWN}"), TokenError::Character { position: 103 }, "character 103"),
        (format!("{} {}", known(0, 50), known(50, 99)), TokenError::Character { position: 51 }, "character 51"),
        (replaced(30, "0"), TokenError::Character { position: 31 }, "character 31"),
        (replaced(98, "1"), TokenError::Character { position: 99 }, "copy"),
        (replaced(70, "ä"), TokenError::Character { position: 71 }, "copy"),
        (replaced(70, "\0"), TokenError::Character { position: 71 }, "copy"),
        (replaced(70, "-"), TokenError::Character { position: 71 }, "copy"),
        (replaced(4, "a"), TokenError::Character { position: 5 }, "copy"),
        (moved_dash, TokenError::Character { position: 60 }, "copy"),
        (replaced(30, "a"), TokenError::Mistyped, "typing error"),
        (replaced(5, "c"), TokenError::Mistyped, "typing error"),
        (replaced(98, "p"), TokenError::Mistyped, "typing error"),
        (written("x", known(7, 59), known(60, 68), known(69, 95)), TokenError::UnknownRole, "role"),
        // One bit more than the bytes have.
        (written("n", &replaced(58, "r")[7..59], known(60, 68), known(69, 95)), TokenError::Mistyped, "typing error"),
        (written("n", known(7, 59), known(60, 68), &replaced(94, "5")[69..95]), TokenError::Mistyped, "typing error"),
    ];
    for (text, wanted, word) in cases {
        assert_eq!(error(text.as_bytes()), Some(wanted), "{text:?}");
        let sentence = wanted.to_string();
        assert!(sentence.contains(word) && sentence.contains(": ") && !sentence.ends_with('.'), "{sentence}");
    }
    assert_eq!(error(b"MCJ1-n-\xff\xfe"), Some(TokenError::Character { position: 8 }));
}

#[test]
fn every_change_of_one_character_is_found_offline() {
    let mut changes = 0;
    for token in fixed_tokens() {
        assert!(parse(&token).is_ok(), "{token}");
        for at in 0..TOKEN_CHARS {
            for byte in 0..=u8::MAX {
                let mut text = token.clone().into_bytes();
                let same = if at < 4 { byte == text[at] } else { byte.eq_ignore_ascii_case(&text[at]) };
                if same {
                    continue;
                }
                text[at] = byte;
                let found = error(&text).expect("refused");
                let letter = base32::value(byte).is_some() && token.as_bytes()[at] != b'-';
                let expected = match at {
                    0..4 => matches!(found, TokenError::NotAToken | TokenError::NewerVersion { .. }),
                    // Two digits make another version.
                    4 if byte.is_ascii_digit() => found == TokenError::NotAToken,
                    98 if byte.is_ascii_whitespace() => found == TokenError::Length { found: 98 },
                    _ if letter => found == TokenError::Mistyped,
                    _ => found == TokenError::Character { position: at + 1 },
                };
                assert!(expected, "{found:?} for byte {byte} at {at}");
                changes += 1;
            }
        }
    }
    assert!(changes > 6 * TOKEN_CHARS * 250, "{changes} changes were tried");
}

#[test]
fn every_swap_loss_and_repetition_is_found_offline() {
    for token in fixed_tokens() {
        let characters: Vec<char> = token.chars().collect();
        for at in 0..TOKEN_CHARS {
            for other in at + 1..TOKEN_CHARS {
                let mut swapped = characters.clone();
                swapped.swap(at, other);
                // All pairs, not the neighbours alone.
                if swapped != characters {
                    let text: String = swapped.iter().collect();
                    assert!(parse(&text).is_err(), "{at} and {other} swapped");
                }
            }
            let mut lost = characters.clone();
            lost.remove(at);
            let mut repeated = characters.clone();
            repeated.insert(at, characters[at]);
            for text in [lost, repeated] {
                assert!(parse(&text.iter().collect::<String>()).is_err(), "one more or less at {at}");
            }
            assert!(parse(&token[..at]).is_err(), "cut off at {at}");
        }
    }
}

#[test]
fn a_proof_fits_one_token_one_challenge_one_channel_and_one_request() {
    let (token, other) =
        (parse(KNOWN).expect("reads"), JoinToken::generate(Role::Node, RootPin([0; 32])).expect("a node"));
    let proof = token.prove(&NONCE, &EXPORTER, REQUEST);
    let (verifier, id) = (token.verifier(), token.id());
    assert!(proves(&verifier, id, &NONCE, &EXPORTER, REQUEST, &proof));
    assert!(!proves(&other.verifier(), id, &NONCE, &EXPORTER, REQUEST, &proof));
    assert!(!proves(&verifier, other.id(), &NONCE, &EXPORTER, REQUEST, &proof));
    assert!(!proves(&verifier, id, &[8; 32], &EXPORTER, REQUEST, &proof));
    assert!(!proves(&verifier, id, &EXPORTER.0, &Exporter(NONCE), REQUEST, &proof));
    assert!(!proves(&verifier, id, &NONCE, &Exporter([8; 32]), REQUEST, &proof));
    assert!(!proves(&verifier, id, &NONCE, &EXPORTER, b"requests", &proof));
    assert!(!proves(&verifier, id, &NONCE, &EXPORTER, b"", &proof));
    for at in 0..PROOF_BYTES {
        let mut changed = proof;
        changed[at] ^= 1;
        assert!(!proves(&verifier, id, &NONCE, &EXPORTER, REQUEST, &changed), "byte {at}");
        assert!(!proves(&verifier, id, &NONCE, &EXPORTER, REQUEST, &proof[..at]), "cut at {at}");
    }
    assert!(!proves(&verifier, id, &NONCE, &EXPORTER, REQUEST, &[&proof[..], &[0]].concat()));
    for odd in [[0; 32], [0xff; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        assert!(!proves(&odd, id, &NONCE, &EXPORTER, REQUEST, &proof), "a verifier that is no key of ours");
    }
}

/// Any six characters of a secret in a text would tell 30 bits of it.
fn tells_of(text: &str, secret: &str) -> bool {
    let text = text.to_lowercase();
    (0..=secret.len() - 6).any(|at| text.contains(&secret[at..at + 6]))
}

#[test]
fn neither_errors_nor_proofs_nor_verifiers_tell_of_the_secret() {
    let secret = &KNOWN[69..95];
    assert!(tells_of(KNOWN, secret), "the test can see a secret");
    for at in 0..TOKEN_CHARS {
        for text in [&KNOWN[at..], &KNOWN[..at], &KNOWN.replacen(&KNOWN[at..=at], "!", 1)] {
            if let Some(error) = error(text.as_bytes()) {
                assert!(!tells_of(&format!("{error} {error:?}"), secret), "{error:?}");
            }
        }
    }
    let token = parse(KNOWN).expect("reads");
    let raw: Vec<u8> = (0x10..0x20).collect();
    let shown = [&token.prove(&NONCE, &EXPORTER, REQUEST)[..], &token.verifier()].concat();
    assert!(!shown.windows(4).any(|window| raw.windows(4).any(|part| part == window)));
    assert!(!tells_of(&format!("{:?} {:?} {}", token.root(), token.id(), token.role()), secret));
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(JoinToken::parse(&bytes).is_err());
        prop_assert!(JoinToken::parse(&[b"MCJ1-n-", &bytes[..]].concat()).is_err());
    }

    #[test]
    fn texts_of_the_right_shape_are_judged_without_a_panic(
        role in "[a-z2-7]", pin in "[a-z2-7]{52}", id in "[a-z2-7]{8}", secret in "[a-z2-7]{26}",
    ) {
        let text = written(&role, &pin, &id, &secret);
        match parse(&text) {
            // One token has one text.
            Ok(token) => prop_assert!(*token.text() == text),
            Err(error) => prop_assert!(matches!(error, TokenError::UnknownRole | TokenError::Mistyped)),
        }
    }

    #[test]
    fn every_token_reads_back(pin: [u8; 32], role in 0usize..3) {
        let role = [Role::Node, Role::Client, Role::Operator][role];
        let token = JoinToken::generate(role, RootPin(pin)).expect("a role to join in");
        let read = parse(&token.text()).expect("reads");
        prop_assert_eq!((read.role(), read.root()), (role, RootPin(pin)));
        prop_assert_eq!((read.id(), read.verifier()), (token.id(), token.verifier()));
    }
}

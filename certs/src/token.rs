//! Join tokens: the one line of text with which somebody without a certificate gets one.
//!
//! ```text
//! MCJ1-n-<pin, 52>-<id, 8>-<secret, 26><check, 4>
//!      │    │         │        │           └ a typing error is found before anything is sent
//!      │    │         │        └ 128 bits that only the maker and the joiner of the token ever hold
//!      │    │         └ 40 bits, public: what lists and logs call the token
//!      │    └ the SHA-256 of the root's public key: with whom to speak
//!      └ role: n(ode), c(lient), o(perator)
//! ```
//!
//! Base 32 of RFC 4648 in lower case, without padding. One token has one text: reading takes upper case and white space
//! around it, and nothing else.
//!
//! The secret goes over no wire. An Ed25519 key follows from it; the orchestrator has its public half
//! ([`JoinToken::verifier`]) and the joiner signs with the private one ([`JoinToken::prove`]), over a challenge, the
//! TLS channel and its signing request. So neither a false orchestrator nor a reader of the journal learns what would
//! let him join. Nothing here may print a secret: the token has no `Debug`, cannot be cloned, is wiped when dropped,
//! and no error repeats what was read. What the library of cryptography leaves on the stack while it works is beyond
//! that.
//!
//! The check characters are the first 20 bits of a SHA-256 over all characters before them: of a million wrong texts
//! that look like tokens, one passes. It then fails at the orchestrator like every wrong secret.

use std::ops::Range;

use modchain_types::{Role, TokenId, base32};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use zeroize::Zeroizing;

use crate::channel::Exporter;
use crate::identity::{RootPin, sha256};

const FAMILY: &[u8] = b"MCJ";
const VERSION: &[u8] = b"1";
const PREFIX: &str = "MCJ1-";
/// Most digits of a version that is believed to be one.
const VERSION_DIGITS_MAX: usize = 3;

const ROLE_AT: usize = 5;
const PIN: Range<usize> = 7..59;
const ID: Range<usize> = 60..68;
const SECRET: Range<usize> = 69..95;
const CHECK: Range<usize> = 95..99;
const DASHES_AT: [usize; 4] = [4, 6, 59, 68];

/// Characters of a token's text.
pub const TOKEN_CHARS: usize = CHECK.end;
/// Bytes of a proof.
pub const PROOF_BYTES: usize = 64;

const SECRET_BYTES: usize = 16;
const CHECK_CHARS: usize = CHECK.end - CHECK.start;

// Each goes before what is hashed or signed, so that a digest or a signature made for one purpose fits no other.
const CHECK_LABEL: &[u8] = b"mcj1";
const KEY_LABEL: &[u8] = b"modchain token v1";
const PROOF_LABEL: &[u8] = b"modchain join v1";

/// Why a text is not a token that can be used. Repeats nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin like one.
    #[error("this is not a join token: copy the whole line that begins with {PREFIX} from where the token was made")]
    NotAToken,
    /// Made by a newer program.
    #[error(
        "the token is of version MCJ{version}, and this program knows MCJ1 only: install the newer Modchain here first"
    )]
    NewerVersion {
        /// Its version.
        version: u16,
    },
    /// A character that no token has at this place.
    #[error(
        "character {position} of the token cannot stand there: copy the token again (its parts have a-z and 2-7, and \
         dashes between them)"
    )]
    Character {
        /// Which character, counted from 1, white space before the token not counted.
        position: usize,
    },
    /// Cut off, or something was added.
    #[error("the token has {found} characters instead of {TOKEN_CHARS}: copy the whole line, and nothing else")]
    Length {
        /// How many it has.
        found: usize,
    },
    /// The check characters do not fit the rest.
    #[error("there is a typing error in the token: compare it with the original, or copy it again")]
    Mistyped,
    /// Sound, but for a role that nobody knew when this program was made.
    #[error("the token is for a role that this program does not know: install the newer Modchain here first")]
    UnknownRole,
}

/// A join token with its secret. See the module's documentation.
pub struct JoinToken {
    role: Role,
    root: RootPin,
    id: TokenId,
    // Boxed, so that moving the token leaves no copy of it behind.
    secret: Box<Zeroizing<[u8; SECRET_BYTES]>>,
}

impl JoinToken {
    /// A new token, with an id and a secret of the system's random numbers. `None` for the orchestrator's role, which
    /// nobody joins in.
    pub fn generate(role: Role, root: RootPin) -> Option<Self> {
        let mut id = TokenId([0; 5]);
        let mut secret = Box::new(Zeroizing::new([0; SECRET_BYTES]));
        for bytes in [&mut id.0[..], &mut secret[..]] {
            SystemRandom::new().fill(bytes).expect("the system's random numbers do not run out");
        }
        letter(role).map(|_| Self { role, root, id, secret })
    }

    /// Reads a token's text. White space around it and upper case are taken; everything else must be as it was made.
    pub fn parse(text: &[u8]) -> Result<Self, TokenError> {
        let text = text.trim_ascii();
        check_version(text)?;
        let strange = text.iter().skip(PREFIX.len() - 1).position(|&c| c != b'-' && base32::value(c).is_none());
        if let Some(index) = strange {
            return Err(TokenError::Character { position: PREFIX.len() + index });
        }
        if text.len() != TOKEN_CHARS {
            return Err(TokenError::Length { found: text.len() });
        }
        let misplaced =
            (PREFIX.len() - 1..TOKEN_CHARS).find(|index| (text[*index] == b'-') != DASHES_AT.contains(index));
        if let Some(index) = misplaced {
            return Err(TokenError::Character { position: index + 1 });
        }
        let mut canonical = Zeroizing::new([0; TOKEN_CHARS]);
        canonical.copy_from_slice(text);
        canonical[ROLE_AT..].make_ascii_lowercase();
        if check(&canonical[..CHECK.start]).as_bytes() != &canonical[CHECK] {
            return Err(TokenError::Mistyped);
        }
        let role = [Role::Node, Role::Client, Role::Operator]
            .into_iter()
            .find(|role| letter(*role) == Some(char::from(canonical[ROLE_AT])))
            .ok_or(TokenError::UnknownRole)?;
        let (mut root, mut id) = (RootPin([0; 32]), TokenId([0; 5]));
        let mut secret = Box::new(Zeroizing::new([0; SECRET_BYTES]));
        // Can fail only where bits that mean nothing are not zero: then another text is this token's.
        let exact = base32::decode_into(&canonical[PIN], &mut root.0)
            && base32::decode_into(&canonical[ID], &mut id.0)
            && base32::decode_into(&canonical[SECRET], &mut secret[..]);
        if exact { Ok(Self { role, root, id, secret }) } else { Err(TokenError::Mistyped) }
    }

    /// The text to hand over, with the secret in it. Wiped when dropped.
    pub fn text(&self) -> Zeroizing<String> {
        let letter = letter(self.role).expect("a token is for a role that has one");
        // Made once at its full length: a text that grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(TOKEN_CHARS));
        text.push_str(PREFIX);
        text.push(letter);
        let secret = Zeroizing::new(base32::encode(&self.secret[..]));
        for part in [&base32::encode(&self.root.0), &base32::encode(&self.id.0), &*secret] {
            text.push('-');
            text.push_str(part);
        }
        let check = check(text.as_bytes());
        text.push_str(&check);
        text
    }

    /// What its holder becomes.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The root of the orchestrator that it is for.
    pub fn root(&self) -> RootPin {
        self.root
    }

    /// The public part.
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// What the orchestrator checks proofs with: an Ed25519 public key that follows from the secret, and from which the
    /// secret does not follow.
    pub fn verifier(&self) -> [u8; 32] {
        use ring::signature::KeyPair;
        self.key().public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes")
    }

    /// Proves that the holder of the secret makes this signing request (PKCS #10, DER), here and now: over the
    /// orchestrator's `nonce` and the TLS channel, exported with [`JOIN_CONTEXT`](crate::channel::JOIN_CONTEXT).
    pub fn prove(&self, nonce: &[u8; 32], exporter: &Exporter, request_der: &[u8]) -> [u8; PROOF_BYTES] {
        let proof = self.key().sign(&message(self.id, nonce, exporter, request_der));
        proof.as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }

    fn key(&self) -> Ed25519KeyPair {
        let seed = Zeroizing::new(sha256(&[KEY_LABEL, &self.secret[..]]));
        Ed25519KeyPair::from_seed_unchecked(&seed[..]).expect("the seed has 32 bytes")
    }
}

/// Whether `proof` is what [`JoinToken::prove`] gives for the token with this id and verifier.
pub fn proves(
    verifier: &[u8; 32],
    id: TokenId,
    nonce: &[u8; 32],
    exporter: &Exporter,
    request_der: &[u8],
    proof: &[u8],
) -> bool {
    UnparsedPublicKey::new(&ED25519, verifier).verify(&message(id, nonce, exporter, request_der), proof).is_ok()
}

fn message(id: TokenId, nonce: &[u8; 32], exporter: &Exporter, request_der: &[u8]) -> Vec<u8> {
    // All parts but the label have fixed lengths, so no two different ones make the same message.
    [PROOF_LABEL, &id.0, nonce, &exporter.0, &sha256(&[request_der])].concat()
}

fn letter(role: Role) -> Option<char> {
    match role {
        Role::Node => Some('n'),
        Role::Client => Some('c'),
        Role::Operator => Some('o'),
        Role::Orchestrator => None,
    }
}

fn check(before: &[u8]) -> String {
    let mut check = base32::encode(&sha256(&[CHECK_LABEL, before]));
    check.truncate(CHECK_CHARS);
    check
}

/// Looks at the beginning only: what comes after it in another version is not ours to judge.
fn check_version(text: &[u8]) -> Result<(), TokenError> {
    let rest = text.strip_prefix(FAMILY).ok_or(TokenError::NotAToken)?;
    let (digits, rest) = rest.split_at(rest.iter().take_while(|c| c.is_ascii_digit()).count());
    if digits == VERSION {
        return Ok(());
    }
    let version = match digits {
        [b'1'..=b'9', ..] if digits.len() <= VERSION_DIGITS_MAX && rest.first() == Some(&b'-') => digits,
        _ => return Err(TokenError::NotAToken),
    };
    Err(TokenError::NewerVersion { version: version.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')) })
}

//! Each id is its own type; none of them is ever passed as a bare number or string.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::base32;

/// Crockford's base 32 alphabet in lower case: no `i`, `l`, `o`, `u`.
const CROCKFORD: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Characters needed for 128 bits.
const CROCKFORD_CHARS: usize = 26;

fn write_crockford(bytes: &[u8; 16], f: &mut impl fmt::Write) -> fmt::Result {
    let number = u128::from_be_bytes(*bytes);
    for position in (0..CROCKFORD_CHARS).rev() {
        let index = (number >> (5 * position)) & 31;
        f.write_char(char::from(CROCKFORD[index as usize]))?;
    }
    Ok(())
}

fn read_crockford(text: &str) -> Option<[u8; 16]> {
    if text.len() != CROCKFORD_CHARS {
        return None;
    }
    let mut number: u128 = 0;
    for (position, byte) in text.bytes().enumerate() {
        let value = CROCKFORD.iter().position(|&c| c == byte.to_ascii_lowercase())? as u128;
        if position == 0 && value > 7 {
            return None; // 26 characters hold 130 bits: the first two must be zero
        }
        number = number << 5 | value;
    }
    Some(number.to_be_bytes())
}

/// A text that is not an id of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}: {rule}")]
pub struct BadId {
    /// What was given.
    pub text: String,
    /// What was asked for.
    pub kind: &'static str,
    /// How it would have to look.
    pub rule: &'static str,
}

macro_rules! id_128 {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = String::from($prefix);
                write_crockford(&self.0, &mut text)?;
                f.pad(&text)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                text.strip_prefix($prefix).and_then(read_crockford).map(Self).ok_or_else(|| BadId {
                    text: text.into(),
                    kind: $kind,
                    rule: concat!("write ", $prefix, " and 26 characters of base 32"),
                })
            }
        }
    };
}

id_128!(
    /// A job: `j-` and 26 characters. Derived from the account and the submitter's key, see [`JobId::derive`].
    JobId, "job id", "j-"
);
id_128!(
    /// A node: `n-` and 26 characters. The same 128 bits as the node's [`IdentityId`].
    NodeId, "node id", "n-"
);
id_128!(
    /// Whoever a certificate was issued to. Stands in the certificate's URI.
    IdentityId, "identity id", ""
);
id_128!(
    /// One journal, drawn when its data directory is made; a restored one gets another.
    JournalId, "journal id", ""
);
id_128!(
    /// One start of one agent program. Two live instances with one certificate are a cloned disk.
    InstanceId, "instance id", ""
);
id_128!(
    /// One boot of one machine.
    BootId, "boot id", ""
);

impl JobId {
    /// The job that `account` means by `key`: BLAKE3 over both, each with its length before it, cut to 128 bits.
    /// The same key of the same account is always the same job, and nobody can compute his way into another's.
    pub fn derive(account: &AccountId, key: &SubmitKey) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in [account.as_str(), key.as_str()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(id)
    }

    /// The form people see: `j-` and the first 6 characters.
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

impl From<IdentityId> for NodeId {
    fn from(id: IdentityId) -> Self {
        Self(id.0)
    }
}

impl From<NodeId> for IdentityId {
    fn from(id: NodeId) -> Self {
        Self(id.0)
    }
}

/// One try at running a job. Numbers start at 1 and always rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    /// The job.
    pub job: JobId,
    /// Which try.
    pub number: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.job, self.number)
    }
}

/// The journal number of an assignment: strictly increasing over the whole system. Work under a lower fence than the
/// newest of its job is void.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Fence(pub u64);

fn read_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        for &character in pair {
            // Digit by digit: the standard library's reader of numbers takes a sign as well.
            *byte = *byte << 4 | u8::try_from(char::from(character).to_digit(16)?).ok()?;
        }
    }
    Some(bytes)
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $kind:literal, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $bytes]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                read_hex(text).map(Self).ok_or_else(|| BadId {
                    text: text.chars().take(80).collect(),
                    kind: $kind,
                    rule: $rule,
                })
            }
        }
    };
}

hex_id!(
    /// A BLAKE3 digest: 64 lower-case hexadecimal characters.
    Digest, 32, "digest", "write 64 hexadecimal characters"
);
hex_id!(
    /// A certificate's serial number, padded on the left with zeros: 32 lower-case hexadecimal characters.
    CertificateSerial, 16, "serial number", "write 32 hexadecimal characters"
);
hex_id!(
    /// The SHA-256 of a public key (DER `SubjectPublicKeyInfo`): 64 lower-case hexadecimal characters.
    KeyDigest, 32, "key digest", "write 64 hexadecimal characters"
);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

/// The public part of a join token: 40 bits, written as 8 characters of RFC 4648 base 32. Stands in lists and logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenId(pub [u8; 5]);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&base32::encode(&self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TokenId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        base32::decode(text).map(Self).ok_or_else(|| BadId {
            text: text.chars().take(80).collect(),
            kind: "token id",
            rule: "write 8 characters of a-z and 2-7",
        })
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(BadId { text: text.chars().take(80).collect(), kind: $kind, rule: $rule })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = crate::Text::<256>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
}

text_id!(
    /// The name of a client, node, operator or pool: unique per orchestrator.
    Name, "name", "write 1 to 32 of a-z, 0-9 and -, not beginning with -", is_name
);
text_id!(
    /// An account, by its name. Never part of a certificate.
    AccountId, "account", "write 1 to 32 of a-z, 0-9 and -, not beginning with -", is_name
);
text_id!(
    /// The submitter's own key for one job. The same key of the same account is the same job, until that is forgotten.
    SubmitKey, "submit key", "write 1 to 128 printable ASCII characters without spaces",
    |text| (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
);

impl From<Name> for AccountId {
    fn from(name: Name) -> Self {
        Self(name.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_what_they_show() {
        for bytes in [[0; 16], [255; 16], *b"0123456789abcdef"] {
            let id = JobId(bytes);
            assert_eq!(id.to_string().len(), 28);
            assert_eq!(id.to_string().parse::<JobId>(), Ok(id));
        }
        for text in
            ["j-", "n-00000000000000000000000000", "j-zzzzzzzzzzzzzzzzzzzzzzzzzz", "j-0000000000000000000000000u"]
        {
            assert!(text.parse::<JobId>().is_err(), "{text}");
        }
        let digest = Digest::of(b"x");
        assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
        let serial = CertificateSerial([0x0f; 16]);
        assert_eq!(serial.to_string(), "0f".repeat(16));
        assert_eq!(serial.to_string().parse::<CertificateSerial>(), Ok(serial));
        assert!("0f".parse::<CertificateSerial>().is_err() && "zz".repeat(16).parse::<CertificateSerial>().is_err());
        let token = TokenId(*b"fooba");
        assert_eq!((token.to_string(), "MZXW6YTB".parse()), ("mzxw6ytb".into(), Ok(token)));
        assert!("mzxw6yt".parse::<TokenId>().is_err() && "mzxw6yt1".parse::<TokenId>().is_err());
    }

    #[test]
    fn a_digest_is_hexadecimal_digits_and_nothing_else() {
        let sound = "0123456789abcdef".repeat(4);
        let digest: Digest = sound.parse().expect("hexadecimal");
        assert_eq!((digest.to_string(), &digest.0[..3]), (sound.clone(), &[0x01, 0x23, 0x45][..]));
        assert_eq!(sound.to_uppercase().parse(), Ok(digest));
        for other in ["+1", "-1", " 1", "0x", "0g", "ä", "1", "001"] {
            let text = sound.replacen("01", other, 1);
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn job_ids_depend_on_account_and_key_and_on_where_one_ends() {
        let id =
            |account: &str, key: &str| JobId::derive(&account.parse().expect("account"), &key.parse().expect("key"));
        assert_eq!(id("alice", "k"), id("alice", "k"));
        assert_ne!(id("alice", "k"), id("bob", "k"));
        assert_ne!(id("ab", "c"), id("a", "bc"));
    }

    #[test]
    fn names_keep_to_their_alphabet() {
        for text in ["a", "rig-1", "0", &"a".repeat(32)] {
            assert!(text.parse::<Name>().is_ok(), "{text}");
        }
        for text in ["", "-a", "A", "a b", "a/b", "ä", &"a".repeat(33)] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }
}

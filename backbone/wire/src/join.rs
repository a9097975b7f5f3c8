//! The join protocol, `modchain-join/1`, spoken on a port of its own by a program that has a token and no certificate yet. One
//! connection carries one stream, and that carries one conversation:
//!
//! | up | down |
//! |---|---|
//! | [`JoinHello`] | [`JoinChallenge`] |
//! | [`JoinRequest`] | [`JoinAccept`] |
//!
//! At each step [`JoinRefused`] may come instead. The token's secret is in none of these messages: the joiner signs with a key
//! that follows from it (see `modchain_certs::token`), and the signature covers the challenge, this very TLS channel and the
//! signing request.

use modchain_types::{Chunk, Identity, JournalId, List, Name, Role, Text, TokenId, WallTime};
use serde::{Deserialize, Serialize};

use crate::protocol::protocol;
use crate::{KnownTypes, Sentence};

/// Largest signing request, in bytes: one for a P-256 key has about 240.
pub const REQUEST_BYTES_MAX: usize = 2048;
/// Largest certificate, in bytes: ours have about 600.
pub const CERTIFICATE_BYTES_MAX: usize = 4096;
/// Largest signature, in bytes: Ed25519 has 64, ECDSA on P-256 in DER up to 72.
pub const PROOF_BYTES_MAX: usize = 128;
/// Most certificates of a chain: the holder's, its issuer's, and room for a change of issuers.
pub const CHAIN_MAX: usize = 4;

/// A signing request (PKCS #10, DER).
pub type RequestDer = Chunk<REQUEST_BYTES_MAX>;
/// A signature.
pub type Proof = Chunk<PROOF_BYTES_MAX>;
/// Certificates in DER, the holder's first, without the root.
pub type ChainDer = List<Chunk<CERTIFICATE_BYTES_MAX>, CHAIN_MAX>;

protocol! {
    /// From a joiner to the orchestrator.
    FromJoiner {
        0x81 Hello(JoinHello) HEARTBEAT_BYTES_MAX,
        0x83 Request(JoinRequest) HEARTBEAT_BYTES_MAX,
    }
}

protocol! {
    /// From the orchestrator to a joiner.
    ToJoiner {
        0x82 Challenge(JoinChallenge) HEARTBEAT_BYTES_MAX,
        0x84 Accept(JoinAccept) CONTROL_BYTES_MAX,
        0x8f Refused(JoinRefused) HEARTBEAT_BYTES_MAX,
    }
}

/// The first frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinHello {
    /// Frame types that this program understands ([`ToJoiner`]).
    pub types: KnownTypes,
    /// Version of this program.
    pub version: Text<64>,
    /// The public part of the token.
    pub token: TokenId,
    /// By this machine's clock: certificates of a machine whose clock is far off would be refused later.
    pub wall: WallTime,
}

/// What the proof must cover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinChallenge {
    /// Fresh for this connection.
    pub nonce: [u8; 32],
    /// By the orchestrator's clock.
    pub wall: WallTime,
}

/// Asks for a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The role that the token's text names.
    pub role: Role,
    /// For a key that was made on this machine and stays there. Nothing but its public key is used.
    pub request: RequestDer,
    /// That the token's secret is known here.
    pub proof: Proof,
    /// The name that the joiner wishes for, where its token names none.
    pub name: Option<Name>,
    /// Name of the machine, for people.
    pub host: Text<64>,
    /// Its system, for people.
    pub system: Text<64>,
}

/// The joiner is a member from here on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAccept {
    /// Whom the certificate names.
    pub identity: Identity,
    /// The certificate.
    pub chain: ChainDer,
    /// What the operator calls this pool.
    pub pool: Name,
    /// The journal behind it.
    pub journal: JournalId,
    /// Port of the main endpoint.
    pub main_port: u16,
    /// Host of the main endpoint, where it is not the one that was joined at.
    pub main_host: Option<Text<256>>,
    /// Whether an earlier request with this token and this key had got it: its answer was lost.
    pub existing: bool,
}

/// The joiner gets nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRefused {
    /// For programs.
    pub code: JoinRefusal,
    /// What and why, in lower case without a final dot.
    pub message: Sentence,
    /// What next; may be empty.
    pub hint: Sentence,
}

/// Why a joiner gets nothing. A closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum JoinRefusal {
    /// No such token, or one so old that it is forgotten.
    TokenUnknown,
    /// Its time is over.
    TokenExpired,
    /// It has been used.
    TokenUsed,
    /// It was revoked.
    TokenRevoked,
    /// The proof is wrong: the secret part of the token is not the right one.
    WrongProof,
    /// The token is for another role.
    RoleMismatch,
    /// The two clocks differ by more than certificates allow for.
    ClockTooFar,
    /// The name is in use, or not the token's.
    Name,
    /// No protocol version in common.
    Version,
    /// The signing request is not a sound one.
    BadRequest,
    /// Too many wrong tokens came from this address; later it may try again.
    Blocked,
    /// The orchestrator is not taking this now; later it may.
    Busy,
    /// A bug or a broken disk.
    Internal,
}

impl JoinRefusal {
    /// Every code.
    pub const ALL: [Self; 13] = [
        Self::TokenUnknown,
        Self::TokenExpired,
        Self::TokenUsed,
        Self::TokenRevoked,
        Self::WrongProof,
        Self::RoleMismatch,
        Self::ClockTooFar,
        Self::Name,
        Self::Version,
        Self::BadRequest,
        Self::Blocked,
        Self::Busy,
        Self::Internal,
    ];

    /// The word used in JSON (`modchain.error/v1`).
    pub fn word(self) -> &'static str {
        match self {
            Self::TokenUnknown => "token_unknown",
            Self::TokenExpired => "token_expired",
            Self::TokenUsed => "token_used",
            Self::TokenRevoked => "token_revoked",
            Self::WrongProof => "token_wrong",
            Self::RoleMismatch => "role_mismatch",
            Self::ClockTooFar => "clock_too_far",
            Self::Name => "name",
            Self::Version => "version",
            Self::BadRequest => "bad_request",
            Self::Blocked => "blocked",
            Self::Busy => "busy",
            Self::Internal => "internal",
        }
    }

    /// Whether the same token may succeed later.
    pub fn retryable(self) -> bool {
        match self {
            Self::Blocked | Self::Busy | Self::Internal | Self::ClockTooFar => true,
            Self::TokenUnknown
            | Self::TokenExpired
            | Self::TokenUsed
            | Self::TokenRevoked
            | Self::WrongProof
            | Self::RoleMismatch
            | Self::Name
            | Self::Version
            | Self::BadRequest => false,
        }
    }
}

/// Asks, on a connection that is authenticated already, for a certificate for a new key of the same identity. Spoken in the
/// agent and the console protocol alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// For a new key. Nothing but its public key is used.
    pub request: RequestDer,
    /// By the new key, over this very TLS channel and the request.
    pub proof: Proof,
}

/// The new certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// It and its issuer's.
    pub chain: ChainDer,
}

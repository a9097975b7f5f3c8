//! Members and how one becomes one: identities with the certificates that are accepted of them, and join tokens.
//!
//! ```text
//!              a key redeems it              its certificate is used, or ten minutes pass
//!  issued ------------------------> bound ------------------------------------------------> spent
//!     |--- its time is over -----> expired
//!     |--- revoked, or five wrong proofs -> revoked
//! ```
//!
//! Nothing secret is here: a token is known by its public part, and proofs are checked outside with its verifier. Certificates
//! are known by their serial numbers; they are signed outside, only after the event that names them is on disk.

use std::collections::{BTreeMap, VecDeque};

use modchain_types::{
    AccountId, CertificateSerial, Identity, IdentityId, KeyDigest, Name, Role, Span, Text, Timestamp, TokenId, WallTime,
};

/// Shortest life of a token.
pub const TOKEN_TTL_MIN: Span = Span::from_secs(1);
/// Longest life of a token: whoever finds it later finds nothing.
pub const TOKEN_TTL_MAX: Span = Span::from_secs(24 * 3600);
/// Tokens of one maker that may wait to be used.
pub const LIVE_TOKENS_MAX: usize = 100;
/// How long the key that redeemed a token may ask for the same answer again: its first answer was lost.
pub const BOUND_FOR: Span = Span::from_secs(600);
/// Wrong proofs for one token that end it.
pub const WRONG_PROOFS_MAX: u8 = 5;
/// Alarms about one token that are recorded; more say nothing new and would let a stranger fill the journal.
pub const ALARMS_MAX: usize = 3;
/// Ended tokens that are remembered, so that who comes with one learns what became of it; fairly among their makers.
pub const ENDED_TOKENS_MAX: usize = 1000;
/// How long a certificate is still accepted after a newer one of its identity was used for the first time.
pub const RETIRE_AFTER: Span = Span::from_secs(15 * 60);
/// How long an alarm is shown in the status.
pub const ALARM_SHOWN_FOR: Span = Span::from_secs(24 * 3600);

/// What the journal knows of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certificate {
    /// Its number.
    pub serial: CertificateSerial,
    /// The key that it is for.
    pub key: KeyDigest,
    /// Its beginning as written in it, dated back.
    pub not_before: WallTime,
    /// Its end.
    pub not_after: WallTime,
}

/// A certificate that is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Which.
    pub certificate: Certificate,
    /// When it was recorded.
    pub issued_at: Timestamp,
    /// When its holder connected with it for the first time.
    pub used_at: Option<Timestamp>,
}

/// The end of an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: Option<IdentityId>,
    /// For the record.
    pub why: Text<256>,
}

/// An identity and what is accepted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub identity: Identity,
    /// When it became known.
    pub joined_at: Timestamp,
    /// At most two, the newest last: while one is renewed both are good.
    pub certificates: Vec<Accepted>,
    /// Certificates recorded after the first.
    pub renewals: u64,
    /// Its end, if it was revoked.
    pub revoked: Option<Revocation>,
}

impl Member {
    /// Without a certificate yet.
    pub fn new(identity: Identity, at: Timestamp) -> Self {
        Self { identity, joined_at: at, certificates: Vec::new(), renewals: 0, revoked: None }
    }

    /// Whether this certificate of it is accepted.
    pub fn accepts(&self, serial: &CertificateSerial) -> bool {
        self.revoked.is_none() && self.certificates.iter().any(|known| known.certificate.serial == *serial)
    }

    /// When a certificate that came after this one was used for the first time; `None` if none was, or this one is unknown.
    pub fn newer_in_use_since(&self, serial: &CertificateSerial) -> Option<Timestamp> {
        let place = self.certificates.iter().position(|known| known.certificate.serial == *serial)?;
        self.certificates[place + 1..].iter().filter_map(|newer| newer.used_at).min()
    }

    /// A certificate, which takes the place of all but the one named `beside`.
    pub(crate) fn certify(&mut self, certificate: Certificate, beside: Option<CertificateSerial>, at: Timestamp) {
        if !self.certificates.is_empty() || self.renewals > 0 {
            self.renewals += 1;
        }
        self.certificates.retain(|known| Some(known.certificate.serial) == beside);
        self.certificates.push(Accepted { certificate, issued_at: at, used_at: None });
    }
}

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenGrant {
    /// What its user becomes.
    pub role: Role,
    /// The name that it gives.
    pub name: Option<Name>,
    /// The account that its user joins; one of its own name if `None`.
    pub account: Option<AccountId>,
    /// The identity that its user becomes again.
    pub rejoins: Option<IdentityId>,
}

/// A join token without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its public part.
    pub id: TokenId,
    /// What proofs of its secret are checked with.
    pub verifier: [u8; 32],
    /// What it is for.
    pub grant: TokenGrant,
    /// Who made it; `None` for the first one of a pool.
    pub by: Option<IdentityId>,
    /// When it was made.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// How it stands.
    pub state: TokenState,
    /// When it ended, if it has.
    pub ended_at: Option<Timestamp>,
    /// Who used it, if somebody did.
    pub binding: Option<Binding>,
    /// Uses with another key.
    pub alarms: Vec<Alarm>,
    /// Wrong proofs. Not durable: a restart forgives them.
    pub wrong_proofs: u8,
}

impl Token {
    /// Whether somebody may still join with it.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.state == TokenState::Issued && now < self.expires_at
    }

    /// How long it may be used.
    pub fn ttl(&self) -> Span {
        self.expires_at.since(self.issued_at)
    }
}

/// How a token stands, by the journal. That its time is over follows from the clock as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenState {
    /// It waits.
    Issued,
    /// A key has a certificate for it and has not shown it yet.
    Bound,
    /// It is over.
    Ended(TokenEnd),
}

/// How a token ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenEnd {
    /// Used.
    Spent,
    /// Its time was over.
    Expired,
    /// Somebody ended it, or its maker was revoked.
    Revoked,
    /// Too many wrong proofs.
    Misused,
}

/// Who used a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The identity.
    pub identity: IdentityId,
    /// Its certificate.
    pub certificate: Certificate,
    /// When.
    pub at: Timestamp,
    /// From where, for people.
    pub from: Text<192>,
}

/// A second key came with a token that one key had used: one of the two stole it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// When.
    pub at: Timestamp,
    /// From where, for people.
    pub from: Text<192>,
}

/// Ended tokens by maker, oldest first.
pub type EndedTokens = Vec<(Option<IdentityId>, Vec<TokenId>)>;

/// All tokens that are remembered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tokens {
    known: BTreeMap<TokenId, Token>,
    /// Those that have ended, by maker, oldest first.
    ended: BTreeMap<Option<IdentityId>, VecDeque<TokenId>>,
}

impl Tokens {
    /// One of them.
    pub fn get(&self, id: TokenId) -> Option<&Token> {
        self.known.get(&id)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Token> {
        self.known.values()
    }

    pub(crate) fn get_mut(&mut self, id: TokenId) -> Option<&mut Token> {
        self.known.get_mut(&id)
    }

    pub(crate) fn insert(&mut self, token: Token) {
        self.known.insert(token.id, token);
    }

    /// Notes an end. When there are too many ended ones, the maker of most of them loses its oldest: nobody can make others'
    /// be forgotten, and the alarms about them, by making and ending tokens of its own.
    pub(crate) fn end(&mut self, id: TokenId, end: TokenEnd, at: Timestamp) {
        let Some(token) = self.known.get_mut(&id) else { return };
        if matches!(token.state, TokenState::Ended(_)) {
            return;
        }
        token.state = TokenState::Ended(end);
        token.ended_at = Some(at);
        self.ended.entry(token.by).or_default().push_back(id);
        if self.ended_count() > ENDED_TOKENS_MAX
            && let Some(most) = self.ended.values_mut().max_by_key(|ended| ended.len())
            && let Some(oldest) = most.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// All of them without what is not durable, and those that have ended, by maker, oldest first.
    pub(crate) fn durable(&self) -> (Vec<Token>, EndedTokens) {
        let tokens = self.known.values().map(|token| Token { wrong_proofs: 0, ..token.clone() }).collect();
        let ended = self.ended.iter().filter(|(_, ended)| !ended.is_empty());
        (tokens, ended.map(|(by, ended)| (*by, ended.iter().copied().collect())).collect())
    }

    /// Those of a snapshot.
    pub(crate) fn restore(tokens: Vec<Token>, ended: EndedTokens) -> Self {
        Self {
            known: tokens.into_iter().map(|token| (token.id, token)).collect(),
            ended: ended.into_iter().map(|(by, ended)| (by, ended.into())).collect(),
        }
    }

    fn ended_count(&self) -> usize {
        self.ended.values().map(VecDeque::len).sum()
    }

    /// Whether the counts kept beside the tokens are what the tokens say.
    pub(crate) fn agree(&self) -> bool {
        let ended = self.known.values().filter(|token| matches!(token.state, TokenState::Ended(_))).count();
        ended == self.ended_count() && ended <= ENDED_TOKENS_MAX
    }
}

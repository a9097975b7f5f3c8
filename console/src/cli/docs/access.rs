//! Documents of who is in and how one gets in: tokens, certificates, revocations.

use modchain_types::{Identity, Span};
use modchain_wire::view::{IdentityView, RevokedView, TokenView};
use serde::Serialize;

use super::{some, time};

/// `modchain.token/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct TokenDoc {
    schema: &'static str,
    /// The text to hand over. Only in the answer to its making: nobody else has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    id: String,
    role: &'static str,
    name: Option<String>,
    account: Option<String>,
    state: &'static str,
    issued_at: String,
    expires_at: String,
    issued_by: Option<String>,
    identity: Option<String>,
    from: Option<String>,
    alarms: Vec<String>,
}

/// The document of one token; with its text where it was just made.
pub(crate) fn token(view: &TokenView, text: Option<&str>) -> TokenDoc {
    TokenDoc {
        schema: "modchain.token/v1",
        token: text.map(str::to_owned),
        id: view.id.to_string(),
        role: view.role.word(),
        name: view.name.as_ref().map(ToString::to_string),
        account: view.account.as_ref().map(ToString::to_string),
        state: view.state.word(),
        issued_at: time(view.issued_at),
        expires_at: time(view.expires_at),
        issued_by: view.issued_by.as_ref().map(ToString::to_string),
        identity: view.identity.as_ref().map(ToString::to_string),
        from: view.from.as_ref().map(|from| from.as_str().to_owned()),
        alarms: view.alarms.iter().map(|alarm| alarm.as_str().to_owned()).collect(),
    }
}

#[derive(Debug, Serialize)]
struct IdentityDoc {
    id: String,
    role: &'static str,
    name: String,
    account: String,
}

fn identity(identity: &Identity) -> IdentityDoc {
    IdentityDoc {
        id: identity.id.to_string(),
        role: identity.role.word(),
        name: identity.name.to_string(),
        account: identity.account.to_string(),
    }
}

/// `modchain.cert/v1`: an identity and its newest certificate.
#[derive(Debug, Serialize)]
pub(crate) struct CertDoc {
    schema: &'static str,
    identity: IdentityDoc,
    state: &'static str,
    serial: Option<String>,
    issued_at: Option<String>,
    expires_at: Option<String>,
    renews_at: Option<String>,
    used: Option<bool>,
    renewals: u64,
    connections: u32,
    joined_at: String,
    revoked_at: Option<String>,
    reason: Option<String>,
}

/// The document of one identity.
pub(crate) fn cert(view: &IdentityView) -> CertDoc {
    let newest = view.certificates.first();
    CertDoc {
        schema: "modchain.cert/v1",
        identity: identity(&view.identity),
        state: view.state.word(),
        serial: newest.map(|certificate| certificate.serial.to_string()),
        issued_at: newest.map(|certificate| time(certificate.issued_at)),
        expires_at: newest.map(|certificate| time(certificate.expires_at)),
        renews_at: newest.map(|certificate| time(certificate.renews_at)),
        used: newest.map(|certificate| certificate.used),
        renewals: view.renewals,
        connections: view.connections,
        joined_at: time(view.joined_at),
        revoked_at: view.revoked_at.map(time),
        reason: some(&view.why),
    }
}

/// `modchain.revoked/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct RevokedDoc {
    schema: &'static str,
    identity: IdentityDoc,
    state: &'static str,
    revoked_at: Option<String>,
    reason: Option<String>,
    connections_closed: u32,
    jobs: u64,
    tokens: u32,
    took_ms: u64,
}

/// The document of what a revocation did.
pub(crate) fn revoked(view: &RevokedView) -> RevokedDoc {
    RevokedDoc {
        schema: "modchain.revoked/v1",
        identity: identity(&view.identity.identity),
        state: view.identity.state.word(),
        revoked_at: view.identity.revoked_at.map(time),
        reason: some(&view.identity.why),
        connections_closed: view.connections_closed,
        jobs: view.jobs,
        tokens: view.tokens,
        took_ms: millis_up(view.took),
    }
}

/// Rounded up: nothing takes no time.
fn millis_up(span: Span) -> u64 {
    span.0.div_ceil(1_000)
}

/// What a `modchain.joined/v1` says.
#[derive(Debug, Serialize)]
pub(crate) struct JoinedDoc {
    /// `modchain.joined/v1`.
    pub(crate) schema: &'static str,
    /// Whom the certificate names.
    pub(crate) name: String,
    /// As what.
    pub(crate) role: &'static str,
    /// Whose money.
    pub(crate) account: String,
    /// What the operator calls the pool.
    pub(crate) pool: String,
    /// The context that was saved.
    pub(crate) context: String,
    /// `HOST:PORT`.
    pub(crate) orchestrator: String,
    /// The folder of the identity.
    pub(crate) identity: String,
    /// End of the certificate.
    pub(crate) expires_at: String,
    /// When it is renewed.
    pub(crate) renews_at: String,
    /// Of the root that issued it.
    pub(crate) trust_domain: String,
}

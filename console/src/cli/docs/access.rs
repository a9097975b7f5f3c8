//! Documents of who is in and how one gets in.

use serde::Serialize;

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

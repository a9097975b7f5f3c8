//! Certificates: from a proved key and a committed event to a chain. The event comes first; whatever happens after it, the
//! same certificate can be signed again.

use std::time::Instant;

use modchain_certs::{CertificatePlan, RequestedKey, Subject};
use modchain_core::membership::Certificate;
use modchain_core::{Command, Refused, Reply};
use modchain_link::Connection;
use modchain_types::{Chunk, Identity, List};
use modchain_wire::join::{ChainDer, RenewRequest, Renewed};

use super::{Context, wall_now};

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotRenewed {
    /// The request is unsound, or its proof is.
    #[error("the signing request is not a sound one for a P-256 key, or its proof is wrong")]
    BadRequest,
    /// The identity asks too often.
    #[error("this identity asks for certificates too often")]
    TooOften,
    /// The engine says no.
    #[error(transparent)]
    Refused(Refused),
    /// A bug, a broken disk, or the end of the program.
    #[error("{0}")]
    Internal(String),
}

impl NotRenewed {
    /// Whether trying again later can help.
    pub(super) fn retryable(&self) -> bool {
        match self {
            Self::TooOften | Self::Internal(_) | Self::Refused(Refused::Frozen { .. }) => true,
            Self::BadRequest | Self::Refused(_) => false,
        }
    }
}

/// What the journal keeps of a planned certificate.
pub(super) fn planned(plan: &CertificatePlan, key: &RequestedKey) -> Certificate {
    let CertificatePlan { serial, not_before, not_after, .. } = *plan;
    Certificate { serial, key: key.key_digest(), not_before, not_after }
}

/// Signs what the journal has.
pub(super) fn sign(
    context: &Context,
    key: &RequestedKey,
    identity: &Identity,
    certificate: &Certificate,
) -> Result<ChainDer, String> {
    let Certificate { serial, not_before, not_after, .. } = *certificate;
    let subject = Subject::member(identity.role, identity.id).ok_or("it cannot be a member")?;
    let plan = CertificatePlan { subject, serial, not_before, not_after };
    let issued = context.services.issuer.authority().sign(key, &plan).map_err(|error| error.to_string())?;
    let chain = issued.chain.iter().map(|der| Chunk::new(der.to_vec())).collect::<Result<Vec<_>, _>>();
    chain.and_then(List::new).map_err(|error| error.to_string())
}

/// A new certificate for who is at the other end of this connection, and nobody else.
pub(super) async fn renew(
    context: &Context,
    connection: &Connection,
    identity: &Identity,
    request: &RenewRequest,
) -> Result<Renewed, NotRenewed> {
    let internal = |why: String| NotRenewed::Internal(why);
    let services = &context.services;
    if context.renewals.take(identity.id, Instant::now()).is_err() {
        return Err(NotRenewed::TooOften);
    }
    let key = RequestedKey::read(&request.request).map_err(|_| NotRenewed::BadRequest)?;
    if !key.is_possessed(&connection.exporter(), &request.proof) {
        return Err(NotRenewed::BadRequest);
    }
    let subject = Subject::member(identity.role, identity.id).ok_or(NotRenewed::BadRequest)?;
    let plan = services
        .issuer
        .authority()
        .plan(subject, services.cert_life, wall_now())
        .map_err(|error| internal(error.to_string()))?;
    let certificate = planned(&plan, &key);
    let command = Command::Renew { identity: identity.id, using: connection.peer().serial, certificate };
    match services.engine.command(command).await.map_err(|gone| internal(gone.to_string()))? {
        Reply::Done => {}
        Reply::Refused(refused) => return Err(NotRenewed::Refused(refused)),
        _ => return Err(internal("the engine answered something else".into())),
    }
    let chain = sign(context, &key, identity, &certificate).map_err(internal)?;
    tracing::info!(who = %identity.name, serial = %certificate.serial, "certificate renewed");
    Ok(Renewed { chain })
}

//! Who belongs, from the events alone: a token is used once, a certificate is issued once, and who was revoked stays out.

use std::collections::{BTreeMap, BTreeSet};

use modchain_core::EventBody;
use modchain_core::membership::TokenEnd;
use modchain_types::{CertificateSerial, IdentityId, TokenId};

use super::{Auditor, Breach, Rule, rule};

/// What is known of tokens and certificates.
#[derive(Debug, Clone, Default)]
pub(super) struct Membership {
    tokens: BTreeMap<TokenId, TokenRecord>,
    /// Every certificate that was ever issued, and whose it is.
    certificates: BTreeMap<CertificateSerial, IdentityId>,
    /// Those that are accepted now.
    accepted: BTreeMap<IdentityId, BTreeSet<CertificateSerial>>,
    revoked: BTreeSet<IdentityId>,
}

#[derive(Debug, Clone, Default)]
struct TokenRecord {
    used: bool,
    ended: bool,
}

impl Membership {
    /// Whether the identity was revoked.
    pub(super) fn is_revoked(&self, identity: IdentityId) -> bool {
        self.revoked.contains(&identity)
    }

    fn token(&mut self, token: TokenId) -> Result<&mut TokenRecord, Breach> {
        self.tokens.get_mut(&token).ok_or_else(|| Breach { rule: Rule::Known, what: format!("token {token}") })
    }

    fn issue(
        &mut self,
        identity: IdentityId,
        serial: CertificateSerial,
        beside: Option<CertificateSerial>,
    ) -> Result<(), Breach> {
        rule(Rule::RevokedStaysOut, !self.is_revoked(identity), || format!("{identity} gets a certificate"))?;
        let before = self.certificates.insert(serial, identity);
        rule(Rule::Once, before.is_none(), || format!("certificate {serial} again"))?;
        let accepted = self.accepted.entry(identity).or_default();
        accepted.retain(|known| Some(*known) == beside);
        accepted.insert(serial);
        Ok(())
    }

    fn accepted(&self, identity: IdentityId, serial: CertificateSerial) -> Result<(), Breach> {
        let accepted = self.accepted.get(&identity).is_some_and(|known| known.contains(&serial));
        rule(Rule::Known, accepted, || format!("certificate {serial} of {identity} is not accepted"))
    }
}

impl Auditor {
    pub(super) fn member_event(&mut self, body: &EventBody) -> Result<(), Breach> {
        match body {
            EventBody::TokenCreated { token, .. } => {
                let before = self.membership.tokens.insert(*token, TokenRecord::default());
                rule(Rule::Once, before.is_none(), || format!("token {token} again"))
            }
            EventBody::MemberJoined { token, identity, certificate, .. } => {
                let record = self.membership.token(*token)?;
                rule(Rule::Once, !record.used && !record.ended, || format!("token {token} is used again"))?;
                record.used = true;
                if !self.identities.contains_key(&identity.id) {
                    self.identity_added(identity)?;
                }
                self.membership.issue(identity.id, certificate.serial, None)
            }
            EventBody::TokenEnded { token, end } => {
                let record = self.membership.token(*token)?;
                rule(Rule::Once, !record.ended, || format!("token {token} ends again"))?;
                record.ended = true;
                let fits = record.used == (*end == TokenEnd::Spent);
                rule(Rule::StateTable, fits, || format!("token {token} ends as {end:?}"))
            }
            EventBody::TokenAlarm { token, .. } => {
                let used = self.membership.token(*token)?.used;
                rule(Rule::StateTable, used, || format!("token {token} was not used by anybody"))
            }
            EventBody::CertificateIssued { identity, certificate, beside } => {
                rule(Rule::Known, self.identities.contains_key(identity), || format!("identity {identity}"))?;
                self.membership.issue(*identity, certificate.serial, *beside)
            }
            EventBody::CertificateUsed { identity, serial } => self.membership.accepted(*identity, *serial),
            EventBody::CertificateRetired { identity, serial } => {
                self.membership.accepted(*identity, *serial)?;
                if let Some(known) = self.membership.accepted.get_mut(identity) {
                    known.remove(serial);
                    let left = !known.is_empty();
                    return rule(Rule::StateTable, left, || format!("{identity} is left without a certificate"));
                }
                Ok(())
            }
            EventBody::IdentityRevoked { identity, .. } => {
                rule(Rule::Known, self.identities.contains_key(identity), || format!("identity {identity}"))?;
                self.membership.accepted.remove(identity);
                rule(Rule::Once, self.membership.revoked.insert(*identity), || format!("{identity} is revoked again"))
            }
            _ => Ok(()),
        }
    }
}

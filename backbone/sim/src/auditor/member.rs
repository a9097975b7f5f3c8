//! Who belongs, from the events alone: a token is used once, in time, and for what it was made; a certificate is issued once
//! and goes only when a newer one is in use; who was revoked stays out and earns nothing more.

use std::collections::{BTreeMap, BTreeSet};

use modchain_core::membership::{ALARMS_MAX, RETIRE_AFTER, TokenEnd, TokenGrant};
use modchain_core::{Event, EventBody};
use modchain_types::{AccountId, CertificateSerial, Identity, IdentityId, Role, Timestamp, TokenId};

use super::{Auditor, Breach, Rule, rule};

/// What is known of tokens and certificates.
#[derive(Debug, Clone, Default)]
pub(super) struct Membership {
    tokens: BTreeMap<TokenId, TokenRecord>,
    /// Every certificate that was ever issued, and whose it is.
    certificates: BTreeMap<CertificateSerial, IdentityId>,
    /// Those that are accepted now.
    accepted: BTreeMap<IdentityId, BTreeMap<CertificateSerial, CertificateRecord>>,
    revoked: BTreeMap<IdentityId, Timestamp>,
}

#[derive(Debug, Clone)]
struct TokenRecord {
    grant: TokenGrant,
    expires_at: Timestamp,
    used: bool,
    ended: bool,
    alarms: usize,
}

#[derive(Debug, Clone, Copy)]
struct CertificateRecord {
    /// Number of the event that issued it.
    issued: u64,
    used_at: Option<Timestamp>,
}

impl Membership {
    /// Whether the identity was revoked.
    pub(super) fn is_revoked(&self, identity: IdentityId) -> bool {
        self.revoked.contains_key(&identity)
    }

    fn token(&mut self, token: TokenId) -> Result<&mut TokenRecord, Breach> {
        self.tokens.get_mut(&token).ok_or_else(|| Breach { rule: Rule::Known, what: format!("token {token}") })
    }

    fn issue(
        &mut self,
        issued: u64,
        identity: IdentityId,
        serial: CertificateSerial,
        beside: Option<CertificateSerial>,
    ) -> Result<(), Breach> {
        rule(Rule::RevokedStaysOut, !self.is_revoked(identity), || format!("{identity} gets a certificate"))?;
        let before = self.certificates.insert(serial, identity);
        rule(Rule::Once, before.is_none(), || format!("certificate {serial} again"))?;
        let accepted = self.accepted.entry(identity).or_default();
        let stays = beside.is_none_or(|beside| accepted.contains_key(&beside));
        rule(Rule::Known, stays, || format!("certificate {beside:?} of {identity}, which stays, is not accepted"))?;
        accepted.retain(|known, _| Some(*known) == beside);
        accepted.insert(serial, CertificateRecord { issued, used_at: None });
        Ok(())
    }

    fn accepted(
        &mut self,
        identity: IdentityId,
        serial: CertificateSerial,
    ) -> Result<&mut BTreeMap<CertificateSerial, CertificateRecord>, Breach> {
        let accepted = self.accepted.get_mut(&identity).filter(|known| known.contains_key(&serial));
        accepted.ok_or_else(|| {
            let what = format!("certificate {serial} of {identity} is not accepted");
            Breach { rule: Rule::Known, what }
        })
    }
}

impl Auditor {
    /// Whether the identity was revoked.
    pub fn is_revoked(&self, identity: IdentityId) -> bool {
        self.membership.is_revoked(identity)
    }

    /// The certificates of an identity that are accepted.
    pub fn accepted(&self, identity: IdentityId) -> BTreeSet<CertificateSerial> {
        self.membership.accepted.get(&identity).map_or_else(BTreeSet::new, |known| known.keys().copied().collect())
    }

    /// Whether somebody is or was of this account.
    pub fn has_account(&self, account: &AccountId) -> bool {
        self.identities.values().any(|who| who.account == *account)
    }

    /// When the last client of an account was revoked; `None` while somebody holds it.
    pub(super) fn left_at(&self, account: &AccountId) -> Option<Timestamp> {
        let holders = self.identities.values().filter(|who| who.role == Role::Client && who.account == *account);
        let ends: Option<Vec<Timestamp>> = holders.map(|who| self.membership.revoked.get(&who.id).copied()).collect();
        ends?.into_iter().max()
    }

    pub(super) fn member_event(&mut self, event: &Event) -> Result<(), Breach> {
        match &event.body {
            EventBody::TokenCreated { token, grant, by, ttl, .. } => {
                let revoked = by.is_some_and(|by| self.is_revoked(by));
                rule(Rule::RevokedStaysOut, !revoked, || format!("token {token} is made by {by:?}"))?;
                let (grant, expires_at) = (grant.clone(), event.at + *ttl);
                let record = TokenRecord { grant, expires_at, used: false, ended: false, alarms: 0 };
                let before = self.membership.tokens.insert(*token, record);
                rule(Rule::Once, before.is_none(), || format!("token {token} again"))
            }
            EventBody::MemberJoined { token, identity, certificate, .. } => {
                let record = self.membership.token(*token)?;
                rule(Rule::Once, !record.used && !record.ended, || format!("token {token} is used again"))?;
                record.used = true;
                let (grant, in_time) = (record.grant.clone(), event.at < record.expires_at);
                rule(Rule::GrantKept, in_time, || format!("token {token} is used after its time"))?;
                self.joined(&grant, identity)?;
                self.membership.issue(event.number, identity.id, certificate.serial, None)
            }
            EventBody::TokenEnded { token, end } => {
                let record = self.membership.token(*token)?;
                rule(Rule::Once, !record.ended, || format!("token {token} ends again"))?;
                record.ended = true;
                let fits = record.used == (*end == TokenEnd::Spent);
                rule(Rule::StateTable, fits, || format!("token {token} ends as {end:?}"))
            }
            EventBody::TokenAlarm { token, .. } => {
                let record = self.membership.token(*token)?;
                record.alarms += 1;
                let (used, alarms) = (record.used, record.alarms);
                rule(Rule::StateTable, used, || format!("token {token} was not used by anybody"))?;
                rule(Rule::AlarmsBounded, alarms <= ALARMS_MAX, || format!("alarm {alarms} about token {token}"))
            }
            EventBody::CertificateIssued { identity, certificate, beside } => {
                rule(Rule::Known, self.identities.contains_key(identity), || format!("identity {identity}"))?;
                self.membership.issue(event.number, *identity, certificate.serial, *beside)
            }
            EventBody::CertificateUsed { identity, serial } => {
                let accepted = self.membership.accepted(*identity, *serial)?;
                let before = accepted.get_mut(serial).and_then(|known| known.used_at.replace(event.at));
                rule(Rule::Once, before.is_none(), || format!("certificate {serial} is used for the first time again"))
            }
            EventBody::CertificateRetired { identity, serial } => {
                let accepted = self.membership.accepted(*identity, *serial)?;
                let issued = accepted.remove(serial).map_or(0, |known| known.issued);
                let replaced = accepted.values().any(|newer| {
                    let long = newer.used_at.is_some_and(|used| event.at.since(used) >= RETIRE_AFTER);
                    newer.issued > issued && long
                });
                rule(Rule::RetiredInTurn, replaced, || {
                    format!("certificate {serial} of {identity} goes, and no newer one has been in use for long")
                })
            }
            EventBody::IdentityRevoked { identity, .. } => {
                rule(Rule::Known, self.identities.contains_key(identity), || format!("identity {identity}"))?;
                self.membership.accepted.remove(identity);
                let before = self.membership.revoked.insert(*identity, event.at);
                rule(Rule::Once, before.is_none(), || format!("{identity} is revoked again"))
            }
            _ => Ok(()),
        }
    }

    /// Who joins becomes what the token says, and gets into no name or account but what the token says.
    fn joined(&mut self, grant: &TokenGrant, identity: &Identity) -> Result<(), Breach> {
        let Identity { id, role, name, account } = identity;
        let role_and_name = *role == grant.role && grant.name.as_ref().is_none_or(|given| given == name);
        rule(Rule::GrantKept, role_and_name, || format!("{role} {name} joined by a token for {grant:?}"))?;
        if let Some(known) = grant.rejoins {
            let same = known == *id && self.identities.get(&known) == Some(identity);
            return rule(Rule::GrantKept, same, || format!("{name} of {account} rejoined as {known}"));
        }
        let own_account = match &grant.account {
            Some(given) => given == account,
            None => {
                let new = self.identities.values().all(|other| other.account != *account);
                new && account.as_str() == name.as_str()
            }
        };
        rule(Rule::GrantKept, own_account, || format!("{name} got into the account {account} by {grant:?}"))?;
        self.identity_added(identity)
    }
}

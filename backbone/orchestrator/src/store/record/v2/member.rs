//! Who belongs: identities, certificates, join tokens.

use modchain_core::membership as m;
use modchain_types as t;
use serde::{Deserialize, Serialize};

use super::Result;
use super::job::mirror;

mirror!(Role { Operator, Client, Node, Orchestrator });
mirror!(TokenEnd of m { Spent, Expired, Revoked, Misused });

#[derive(Serialize, Deserialize)]
pub(super) struct Identity {
    id: [u8; 16],
    role: Role,
    name: String,
    account: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Certificate {
    serial: [u8; 16],
    key: [u8; 32],
    not_before: i64,
    not_after: i64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct TokenGrant {
    role: Role,
    name: Option<String>,
    account: Option<String>,
    rejoins: Option<[u8; 16]>,
}

impl From<&t::Identity> for Identity {
    fn from(identity: &t::Identity) -> Self {
        let t::Identity { id, role, name, account } = identity;
        Self { id: id.0, role: (*role).into(), name: name.to_string(), account: account.to_string() }
    }
}

impl Identity {
    pub(super) fn into_core(self) -> Result<t::Identity> {
        Ok(t::Identity {
            id: t::IdentityId(self.id),
            role: self.role.into(),
            name: self.name.parse()?,
            account: self.account.parse()?,
        })
    }
}

impl From<&m::Certificate> for Certificate {
    fn from(certificate: &m::Certificate) -> Self {
        let m::Certificate { serial, key, not_before, not_after } = *certificate;
        Self { serial: serial.0, key: key.0, not_before: not_before.0, not_after: not_after.0 }
    }
}

impl From<Certificate> for m::Certificate {
    fn from(certificate: Certificate) -> Self {
        let Certificate { serial, key, not_before, not_after } = certificate;
        Self {
            serial: t::CertificateSerial(serial),
            key: t::KeyDigest(key),
            not_before: t::WallTime(not_before),
            not_after: t::WallTime(not_after),
        }
    }
}

impl From<&m::TokenGrant> for TokenGrant {
    fn from(grant: &m::TokenGrant) -> Self {
        let m::TokenGrant { role, name, account, rejoins } = grant;
        Self {
            role: (*role).into(),
            name: name.as_ref().map(ToString::to_string),
            account: account.as_ref().map(ToString::to_string),
            rejoins: rejoins.map(|id| id.0),
        }
    }
}

impl TokenGrant {
    pub(super) fn into_core(self) -> Result<m::TokenGrant> {
        Ok(m::TokenGrant {
            role: self.role.into(),
            name: self.name.map(|name| name.parse()).transpose()?,
            account: self.account.map(|account| account.parse()).transpose()?,
            rejoins: self.rejoins.map(t::IdentityId),
        })
    }
}

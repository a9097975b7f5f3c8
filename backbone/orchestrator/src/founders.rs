//! What `init` prepares for the journal, which it must not touch because a running orchestrator may be writing it: identities
//! with their certificates, and the token of a pool's first operator. `serve` takes them in at its start.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use anyhow::Context;
use modchain_certs::files;
use modchain_core::membership::Certificate;
use modchain_types::{Identity, KeyDigest, Name, Span, TokenId, WallTime};
use serde::{Deserialize, Serialize};

const IDENTITIES_FILE: &str = "identities.jsonl";
const TOKEN_FILE: &str = "first-token.json";
const NAME_FILE: &str = "pool-name";
const LOCK_FILE: &str = "init.lock";
/// What a pool is called that was given no name.
const NAME_DEFAULT: &str = "modchain";
/// Mode of these files: they are nobody else's business, though they hold no secret.
const MODE: u32 = 0o600;

/// How long the first operator has to join, from the first start of `serve` on: longer than for other tokens, because it is
/// made before there is anything to join.
pub const FIRST_TOKEN_TTL: Span = Span::from_secs(3600);

/// An identity that was made on the orchestrator's own machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founder {
    /// Who.
    pub identity: Identity,
    /// The newest certificate that `init` issued to it.
    pub certificate: Option<Certificate>,
}

/// The token of a pool's first operator, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstToken {
    /// Its public part.
    pub id: TokenId,
    /// What proofs of its secret are checked with.
    pub verifier: [u8; 32],
    /// How long it may be used.
    pub ttl: Span,
}

/// All that the journal is to take in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Founders {
    /// Oldest first.
    pub members: Vec<Founder>,
    /// If there is one that was not taken in yet.
    pub token: Option<FirstToken>,
}

/// One line of the identities' file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityLine {
    id: String,
    role: String,
    name: String,
    account: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<CertificateLine>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificateLine {
    serial: String,
    key: String,
    not_before_ms: i64,
    not_after_ms: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenLine {
    id: String,
    /// Hexadecimal, as a key digest is: both are 32 public bytes.
    verifier: String,
    ttl_ms: u64,
}

impl Founders {
    /// Reads what `init` has left in this data directory.
    pub fn read(data: &Path) -> anyhow::Result<Self> {
        Ok(Self { members: read_members(data)?, token: read_token(data)? })
    }

    /// This token is in the journal: were it taken in again after the journal has forgotten it, it could be used twice.
    /// One that `init` has left since is kept for the next start.
    pub fn forget_token(data: &Path, taken_in: &FirstToken) -> anyhow::Result<()> {
        let _lock = lock(data)?;
        if read_token(data)?.as_ref() != Some(taken_in) {
            return Ok(());
        }
        let path = data.join(TOKEN_FILE);
        fs::remove_file(&path).with_context(|| format!("{} cannot be removed", path.display()))?;
        Ok(files::sync_dir(data)?)
    }
}

/// Held by whoever changes these files: two `init` at once would each forget the other's identities.
pub fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join(LOCK_FILE);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("the lock file {} cannot be opened", path.display()))?;
    file.lock().with_context(|| format!("{} cannot be locked", path.display()))?;
    Ok(file)
}

fn read_file(data: &Path, file: &str) -> anyhow::Result<Option<String>> {
    let path = data.join(file);
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        text => text.map(Some).with_context(|| format!("{} cannot be read", path.display())),
    }
}

/// The identities that `init` has made in this data directory, oldest first.
pub fn read_members(data: &Path) -> anyhow::Result<Vec<Founder>> {
    let text = read_file(data, IDENTITIES_FILE)?.unwrap_or_default();
    let founder = |line: &str| -> anyhow::Result<Founder> {
        let line: IdentityLine = serde_json::from_str(line)?;
        let identity = Identity {
            id: line.id.parse()?,
            role: line.role.parse()?,
            name: line.name.parse()?,
            account: line.account.parse()?,
        };
        let certificate = |line: CertificateLine| -> anyhow::Result<Certificate> {
            Ok(Certificate {
                serial: line.serial.parse()?,
                key: line.key.parse()?,
                not_before: WallTime(line.not_before_ms),
                not_after: WallTime(line.not_after_ms),
            })
        };
        Ok(Founder { identity, certificate: line.certificate.map(certificate).transpose()? })
    };
    text.lines()
        .enumerate()
        .map(|(at, line)| founder(line).with_context(|| format!("{IDENTITIES_FILE} line {}", at + 1)))
        .collect()
}

/// Replaces the list, whole or not at all.
pub fn write_members(data: &Path, members: &[Founder]) -> anyhow::Result<()> {
    let mut text = String::new();
    for Founder { identity: Identity { id, role, name, account }, certificate } in members {
        let certificate = certificate.map(|certificate| CertificateLine {
            serial: certificate.serial.to_string(),
            key: certificate.key.to_string(),
            not_before_ms: certificate.not_before.0,
            not_after_ms: certificate.not_after.0,
        });
        let line = IdentityLine {
            id: id.to_string(),
            role: role.to_string(),
            name: name.to_string(),
            account: account.to_string(),
            certificate,
        };
        text.push_str(&serde_json::to_string(&line)?);
        text.push('\n');
    }
    Ok(files::write_atomic(&data.join(IDENTITIES_FILE), text.as_bytes(), MODE)?)
}

fn read_token(data: &Path) -> anyhow::Result<Option<FirstToken>> {
    let Some(text) = read_file(data, TOKEN_FILE)? else { return Ok(None) };
    let token = || -> anyhow::Result<FirstToken> {
        let line: TokenLine = serde_json::from_str(&text)?;
        let verifier: KeyDigest = line.verifier.parse()?;
        Ok(FirstToken { id: line.id.parse()?, verifier: verifier.0, ttl: Span::from_millis(line.ttl_ms) })
    };
    token().map(Some).with_context(|| format!("{TOKEN_FILE} makes no sense"))
}

/// Leaves a token for the next start of `serve`; one that was left before is worth nothing from now on.
pub fn write_token(data: &Path, token: &FirstToken) -> anyhow::Result<()> {
    let line = TokenLine {
        id: token.id.to_string(),
        verifier: KeyDigest(token.verifier).to_string(),
        ttl_ms: token.ttl.as_millis(),
    };
    Ok(files::write_atomic(&data.join(TOKEN_FILE), serde_json::to_string(&line)?.as_bytes(), MODE)?)
}

/// What the operator calls the pool. A label and nothing more: it can be changed by another `init`.
pub fn pool_name(data: &Path) -> anyhow::Result<Name> {
    match read_file(data, NAME_FILE)? {
        Some(text) => Ok(text.trim().parse().with_context(|| format!("{NAME_FILE} makes no sense"))?),
        None => Ok(NAME_DEFAULT.parse().expect("our own name is a name")),
    }
}

/// Calls the pool so.
pub fn write_pool_name(data: &Path, name: &Name) -> anyhow::Result<()> {
    Ok(files::write_atomic(&data.join(NAME_FILE), format!("{name}\n").as_bytes(), MODE)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_that_was_taken_in_is_forgotten() {
        let dir = tempfile::tempdir().expect("directory");
        let token = |number: u8| FirstToken { id: TokenId([number; 5]), verifier: [number; 32], ttl: FIRST_TOKEN_TTL };
        write_token(dir.path(), &token(1)).expect("writes");
        let taken_in = Founders::read(dir.path()).expect("reads").token.expect("a token");
        // Another `init --operator-token`, while `serve` starts.
        write_token(dir.path(), &token(2)).expect("writes");
        Founders::forget_token(dir.path(), &taken_in).expect("forgets");
        assert_eq!(Founders::read(dir.path()).expect("reads").token, Some(token(2)));
        Founders::forget_token(dir.path(), &token(2)).expect("forgets");
        Founders::forget_token(dir.path(), &token(2)).expect("is forgotten already");
        assert_eq!(Founders::read(dir.path()).expect("reads").token, None);
    }
}

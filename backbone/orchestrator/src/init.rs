//! `init`: makes a data directory, its certificate authority, its journal, and identities.
//!
//! It is additive and can be repeated: what is there stays, a name that is known gets a new certificate for the same
//! identity, a new name gets a new identity. Identities are recorded in `identities.jsonl`, whole or not at all, *before*
//! their certificates are written; `serve` adds those to the journal that it lacks. So `init` never touches a journal that
//! somebody may be writing, and a crash between any two steps is repaired by running it again.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use modchain_certs::{Authority, Credentials, Subject, files, leaf::LOCAL_LIFETIME};
use modchain_types::{AccountId, Asset, Identity, IdentityId, JournalId, Name, Role, WallTime};
use serde::{Deserialize, Serialize};

use crate::engine::journal_dir;
use crate::fence::FenceKey;
use crate::store::journal::{self, Journal};

const IDENTITIES_FILE: &str = "identities.jsonl";
const LOCK_FILE: &str = "init.lock";

/// What `init` is to make.
#[derive(Debug, Clone, Default)]
pub struct InitOptions {
    /// The data directory.
    pub data: PathBuf,
    /// What the journal's money is; `None` keeps what is there, or means test credits.
    pub asset: Option<Asset>,
    /// Clients.
    pub clients: Vec<Name>,
    /// Operators.
    pub operators: Vec<Name>,
    /// Nodes, and the accounts that their earnings go to: those of their own names if `None`.
    pub nodes: Vec<(Name, Option<AccountId>)>,
    /// Where the identities' folders go; `DATA/identities` if `None`.
    pub identities: Option<PathBuf>,
}

/// What `init` made or found.
#[derive(Debug, Clone)]
pub struct Initialised {
    /// The journal's id.
    pub journal: JournalId,
    /// What its money is.
    pub asset: Asset,
    /// Whether the journal was made now.
    pub created: bool,
    /// The identities that were asked for.
    pub identities: Vec<Issued>,
}

/// One identity with its folder.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Who.
    pub identity: Identity,
    /// Where its key and certificate are.
    pub dir: PathBuf,
    /// Whether it was made now; otherwise it got a new certificate.
    pub created: bool,
    /// End of its certificate.
    pub expires: WallTime,
}

/// One line of the identities' file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: String,
    role: String,
    name: String,
    account: String,
}

/// Random bytes from the system.
pub(crate) fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    use ring::rand::SecureRandom;
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| anyhow::anyhow!("the system has no random numbers to give"))?;
    Ok(bytes)
}

/// Where the certificate authority of a data directory is.
pub fn authority_dir(data: &Path) -> PathBuf {
    data.join("ca")
}

/// Where the orchestrator's own certificate is.
pub fn own_identity_dir(data: &Path) -> PathBuf {
    data.join("tls")
}

/// Makes what is missing. Safe to repeat, also after a crash and while the orchestrator runs.
pub fn init(options: &InitOptions) -> anyhow::Result<Initialised> {
    let data = &options.data;
    files::ensure_private_dir(data)?;
    let _lock = lock(data)?;
    let now = SystemTime::now();

    let dir = authority_dir(data);
    let authority = if Authority::exists(&dir) { Authority::load(&dir, now) } else { Authority::create(&dir, now) }
        .context("the certificate authority")?;
    own_credentials(data, &authority, now)?;
    FenceKey::ensure(data)?;
    let (journal, asset, created) = ensure_journal(data, options.asset)?;

    let mut known = read_identities(data)?;
    let before = known.len();
    let wanted = wanted(options, &mut known)?;
    if known.len() > before {
        write_identities(data, &known)?;
    }
    let parent = options.identities.clone().unwrap_or_else(|| data.join("identities"));
    files::ensure_private_dir(&parent)?;
    let mut issued = Vec::new();
    for (identity, created) in wanted {
        let dir = parent.join(identity.name.as_str());
        let subject = Subject::member(identity.role, identity.id)
            .with_context(|| format!("`{}` cannot be a member", identity.name))?;
        let credentials = authority
            .issue(subject, LOCAL_LIFETIME, now)
            .with_context(|| format!("no certificate for `{}`", identity.name))?;
        credentials.save(&dir).with_context(|| format!("the identity `{}` cannot be kept", identity.name))?;
        issued.push(Issued { expires: credentials.identity().not_after, identity, dir, created });
    }
    Ok(Initialised { journal, asset, created, identities: issued })
}

/// Two `init` at once would each forget the other's identities.
fn lock(data: &Path) -> anyhow::Result<File> {
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

/// The orchestrator's own certificate; a new one where there is none, where the one there is past half its life, or where it
/// is of another authority.
pub fn own_credentials(data: &Path, authority: &Authority, now: SystemTime) -> anyhow::Result<Credentials> {
    let dir = own_identity_dir(data);
    if Credentials::exist(&dir) {
        let there = Credentials::load(&dir).context("the orchestrator's own certificate")?;
        let left = there.identity().not_after.since(wall(now));
        if there.trust_domain() == authority.trust_domain() && Duration::from(left) > LOCAL_LIFETIME / 2 {
            return Ok(there);
        }
    }
    let fresh =
        authority.issue(Subject::ORCHESTRATOR, LOCAL_LIFETIME, now).context("the orchestrator's certificate")?;
    fresh.save(&dir).context("the orchestrator's certificate cannot be kept")?;
    Ok(fresh)
}

fn wall(now: SystemTime) -> WallTime {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn ensure_journal(data: &Path, asset: Option<Asset>) -> anyhow::Result<(JournalId, Asset, bool)> {
    let dir = journal_dir(data);
    files::ensure_private_dir(&dir)?;
    match journal::identify(&dir) {
        Ok((id, there)) => {
            if let Some(asset) = asset {
                ensure!(
                    asset == there,
                    "the journal in {} is of {there}, and that is fixed: use another data directory for {asset}",
                    dir.display()
                );
            }
            Ok((id, there, false))
        }
        Err(journal::WalkError::Missing { .. }) => {
            let (id, asset) = (JournalId(random()?), asset.unwrap_or(Asset::Test));
            Journal::create(&dir, id, asset).with_context(|| format!("no journal can be made in {}", dir.display()))?;
            Ok((id, asset, true))
        }
        Err(error) => Err(error.into()),
    }
}

/// The identities that were asked for, each with whether it is new; new ones are added to `known`.
fn wanted(options: &InitOptions, known: &mut Vec<Identity>) -> anyhow::Result<Vec<(Identity, bool)>> {
    let clients = options.clients.iter().map(|name| (Role::Client, name, None));
    let operators = options.operators.iter().map(|name| (Role::Operator, name, None));
    let nodes = options.nodes.iter().map(|(name, account)| (Role::Node, name, account.clone()));
    let mut wanted: Vec<(Identity, bool)> = Vec::new();
    // Nodes last: their accounts may be those of clients in the same command.
    for (role, name, account) in clients.chain(operators).chain(nodes) {
        ensure!(name.as_str() != modchain_certs::ORCHESTRATOR_NAME, "`{name}` is the orchestrator's own name");
        if let Some(there) = known.iter().find(|identity| identity.name == *name) {
            if there.role != role {
                bail!("`{name}` is a {} already and cannot become a {role}: choose another name", there.role);
            }
            if account.as_ref().is_some_and(|account| *account != there.account) {
                bail!("`{name}` earns for the account `{}` already, and that is fixed", there.account);
            }
            if !wanted.iter().any(|(identity, _)| identity.name == *name) {
                wanted.push((there.clone(), false));
            }
            continue;
        }
        let own = AccountId::from(name.clone());
        let account = account.unwrap_or_else(|| own.clone());
        let exists = account == own || known.iter().any(|identity| identity.account == account);
        ensure!(exists, "there is no account `{account}` for `{name}` to earn for: add --client {account}");
        let identity = Identity { id: IdentityId(random()?), role, name: name.clone(), account };
        known.push(identity.clone());
        wanted.push((identity, true));
    }
    Ok(wanted)
}

/// The identities that `init` has made in this data directory, oldest first.
pub fn read_identities(data: &Path) -> anyhow::Result<Vec<Identity>> {
    let path = data.join(IDENTITIES_FILE);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.with_context(|| format!("{} cannot be read", path.display()))?,
    };
    let identity = |line: &str| -> anyhow::Result<Identity> {
        let line: Line = serde_json::from_str(line)?;
        Ok(Identity {
            id: line.id.parse()?,
            role: line.role.parse()?,
            name: line.name.parse()?,
            account: line.account.parse()?,
        })
    };
    text.lines()
        .enumerate()
        .map(|(at, line)| identity(line).with_context(|| format!("{} line {}", path.display(), at + 1)))
        .collect()
}

fn write_identities(data: &Path, identities: &[Identity]) -> anyhow::Result<()> {
    let mut text = String::new();
    for Identity { id, role, name, account } in identities {
        let line =
            Line { id: id.to_string(), role: role.to_string(), name: name.to_string(), account: account.to_string() };
        text.push_str(&serde_json::to_string(&line)?);
        text.push('\n');
    }
    files::write_atomic(&data.join(IDENTITIES_FILE), text.as_bytes(), 0o600)?;
    Ok(())
}

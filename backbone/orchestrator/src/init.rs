//! `init`: makes a data directory, its certificate authority, its journal, and either the token with which a first operator
//! joins or, for a pool on one machine, ready-made identities.
//!
//! It is additive and can be repeated: what is there stays, a name that is known gets a new certificate for the same
//! identity, a new name gets a new identity. Identities are recorded (see [`crate::founders`]), whole or not at all, *before*
//! their certificates are written; `serve` adds those to the journal that it lacks. So `init` never touches a journal that
//! somebody may be writing, and a crash between any two steps is repaired by running it again.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use modchain_certs::{Authority, Credentials, JoinToken, PeerIdentity, RootPin, Subject, files, leaf::LOCAL_LIFETIME};
use modchain_core::membership::Certificate;
use modchain_types::{AccountId, Asset, Identity, IdentityId, JournalId, Name, Role, WallTime};
use zeroize::Zeroizing;

use crate::backup::check_finished;
use crate::engine::journal_dir;
use crate::fence::FenceKey;
use crate::founders::{self, FIRST_TOKEN_TTL, FirstToken, Founder};
use crate::store::journal::{self, Journal};

/// What `init` is to make.
#[derive(Debug, Clone, Default)]
pub struct InitOptions {
    /// The data directory.
    pub data: PathBuf,
    /// What to call the pool; `None` keeps what is there.
    pub name: Option<Name>,
    /// Make a token for an operator even if this is not a new pool: the way back in for who holds the machine.
    pub operator_token: bool,
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
    /// What the pool is called.
    pub name: Name,
    /// What it was called before, if it was renamed now.
    pub renamed_from: Option<Name>,
    /// The token of the first operator, told here and nowhere else.
    pub operator_token: Option<OperatorToken>,
}

/// A token's text, which no log shows; wiped when dropped.
#[derive(Clone)]
pub struct OperatorToken(pub Zeroizing<String>);

impl std::fmt::Debug for OperatorToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OperatorToken(..)")
    }
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
    check_finished(data)?;
    files::ensure_private_dir(data)?;
    let _lock = founders::lock(data)?;
    let now = SystemTime::now();

    let dir = authority_dir(data);
    let authority = if Authority::exists(&dir) { Authority::load(&dir, now) } else { Authority::create(&dir, now) }
        .context("the certificate authority")?;
    own_credentials(data, &authority, now, WHENEVER)?;
    FenceKey::ensure(data)?;
    // Before the journal is made: a wish that cannot be granted must leave a pool that is still new, so that the
    // corrected command prints the token of its first operator.
    let mut known = founders::read_members(data)?;
    let wanted = wanted(options, &mut known)?;
    let (journal, asset, created) = ensure_journal(data, options.asset)?;

    let before = founders::pool_name(data)?;
    if let Some(name) = &options.name {
        founders::write_pool_name(data, name)?;
    }
    let parent = options.identities.clone().unwrap_or_else(|| data.join("identities"));
    files::ensure_private_dir(&parent)?;
    let mut fresh = Vec::new();
    for (identity, created) in wanted {
        let subject = Subject::member(identity.role, identity.id)
            .with_context(|| format!("`{}` cannot be a member", identity.name))?;
        let credentials = authority
            .issue(subject, LOCAL_LIFETIME, now)
            .with_context(|| format!("no certificate for `{}`", identity.name))?;
        let founder =
            known.iter_mut().find(|founder| founder.identity.id == identity.id).context("it was just added")?;
        founder.certificate = Some(certificate(credentials.identity()));
        fresh.push((identity, created, credentials));
    }
    if !fresh.is_empty() {
        founders::write_members(data, &known)?;
    }
    let mut issued = Vec::new();
    for (identity, created, credentials) in fresh {
        let dir = parent.join(identity.name.as_str());
        credentials.save(&dir).with_context(|| format!("the identity `{}` cannot be kept", identity.name))?;
        issued.push(Issued { expires: credentials.identity().not_after, identity, dir, created });
    }
    let wants_token = options.operator_token || (created && options.operators.is_empty());
    let operator_token = wants_token.then(|| first_token(data, &authority)).transpose()?;
    let name = founders::pool_name(data)?;
    let renamed_from = Some(before).filter(|before| !created && *before != name);
    Ok(Initialised { journal, asset, created, identities: issued, name, renamed_from, operator_token })
}

/// What the journal keeps of a certificate.
fn certificate(peer: &PeerIdentity) -> Certificate {
    let PeerIdentity { serial, key, not_before, not_after, .. } = *peer;
    Certificate { serial, key, not_before, not_after }
}

/// Makes a token for the first operator. Only what its proofs are checked with is kept.
fn first_token(data: &Path, authority: &Authority) -> anyhow::Result<OperatorToken> {
    let root = RootPin::of_root(authority.root()).context("the root certificate")?;
    let token = JoinToken::generate(Role::Operator, root).context("operators join by tokens")?;
    founders::write_token(data, &FirstToken { id: token.id(), verifier: token.verifier(), ttl: FIRST_TOKEN_TTL })?;
    Ok(OperatorToken(token.text()))
}

/// The orchestrator's own certificate; a new one where there is none, where the one there is past half its life, where it
/// is of another authority, or where its life begins later than `begun_by`.
pub fn own_credentials(
    data: &Path,
    authority: &Authority,
    now: SystemTime,
    begun_by: WallTime,
) -> anyhow::Result<Credentials> {
    let dir = own_identity_dir(data);
    if Credentials::exist(&dir) {
        let there = Credentials::load(&dir).context("the orchestrator's own certificate")?;
        let left = there.identity().not_after.since(wall(now));
        let is_good = there.identity().not_before <= begun_by && Duration::from(left) > LOCAL_LIFETIME / 2;
        if there.trust_domain() == authority.trust_domain() && is_good {
            return Ok(there);
        }
    }
    let fresh =
        authority.issue(Subject::ORCHESTRATOR, LOCAL_LIFETIME, now).context("the orchestrator's certificate")?;
    fresh.save(&dir).context("the orchestrator's certificate cannot be kept")?;
    Ok(fresh)
}

/// The clock may be behind for a moment, as after the start of a machine: what begins later than now may be good.
pub(crate) const WHENEVER: WallTime = WallTime(i64::MAX);

/// A moment by the calendar.
pub(crate) fn wall(now: SystemTime) -> WallTime {
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
fn wanted(options: &InitOptions, known: &mut Vec<Founder>) -> anyhow::Result<Vec<(Identity, bool)>> {
    let clients = options.clients.iter().map(|name| (Role::Client, name, None));
    let operators = options.operators.iter().map(|name| (Role::Operator, name, None));
    let nodes = options.nodes.iter().map(|(name, account)| (Role::Node, name, account.clone()));
    let mut wanted: Vec<(Identity, bool)> = Vec::new();
    // Nodes last: their accounts may be those of clients in the same command.
    for (role, name, account) in clients.chain(operators).chain(nodes) {
        ensure!(name.as_str() != modchain_certs::ORCHESTRATOR_NAME, "`{name}` is the orchestrator's own name");
        if let Some(Founder { identity: there, .. }) = known.iter().find(|known| known.identity.name == *name) {
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
        let exists = account == own || known.iter().any(|known| known.identity.account == account);
        ensure!(exists, "there is no account `{account}` for `{name}` to earn for: add --client {account}");
        let identity = Identity { id: IdentityId(random()?), role, name: name.clone(), account };
        known.push(Founder { identity: identity.clone(), certificate: None });
        wanted.push((identity, true));
    }
    Ok(wanted)
}

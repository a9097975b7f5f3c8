//! `join`: from a token to a context with which everything else works.
//!
//! What can be judged here is judged before anything is sent: the token's text, its role, the address, the context's name.
//! From there on the same command may be given again however it ended, see [`crate::client::identities`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use modchain_certs::{Credentials, JoinToken, RootPin};
use modchain_link::ConnectError;
use modchain_link::enrol::{self, JoinError, JoinWish, LockError};
use modchain_types::{Role, TokenId};
use modchain_wire::join::JoinRefusal;

use super::context::check_address;
use super::docs::JoinedDoc;
use super::secret::{Source, read_token};
use super::table::pairs;
use crate::args::{Format, JoinArgs};
use crate::client::config::{Context, Contexts};
use crate::client::identities::{Holder, Identities, Joined, write_joined};
use crate::client::link::chain;
use crate::exit::{self, Failure, Outcome};
use crate::shell::Shell;
use crate::text;

/// Tries before giving up: the answer to the first one may have been lost, and asking again with the same key is harmless.
const TRIES: u32 = 3;
/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// `modchain join`.
pub(crate) async fn join(shell: &Shell, args: JoinArgs) -> Outcome {
    let address = shell.global().orchestrator.clone().ok_or_else(|| {
        Failure::usage("the orchestrator's address is missing").hint("add --orchestrator HOST:PORT, usually port 7444")
    })?;
    check_address(&address)?;
    let source = Source::of(args.token_file, args.token);
    let text = read_token(shell, source).await?;
    let token = parse(&text)?;
    drop(text);
    if token.role() == Role::Node {
        return Err(Failure::usage("this token is for a node, and this program is for people").hint(format!(
            "on the machine that is to be the node: modchain-agent join --orchestrator {address} --token-file FILE"
        )));
    }
    let wanted = shell.global().context.as_deref();
    if let Some(name) = wanted {
        check_context(&shell.contexts()?, name, &token)?;
    }
    let identities = shell.identities();
    let (folder, joined) = match earlier(&identities, token.id())? {
        Some(found) => {
            shell.say(
                "this token was used here before, and what came of it is here; nothing was asked of the orchestrator",
            );
            found
        }
        None => enrol(&identities, token, &address, args.name).await?,
    };
    let credentials = Credentials::load(&folder).map_err(|error| {
        Failure::failed(format!("cannot use the identity in {}: {}", folder.display(), chain(&error)))
    })?;
    let context = save_context(shell, wanted, &folder, &joined)?;
    show(shell, &joined, &context, &folder, &credentials)?;
    shell.say(&format!("{context} is the current context; try: modchain status"));
    Ok(exit::OK)
}

/// A token from its text. What is wrong with it is said without repeating any of it.
pub(crate) fn parse(text: &[u8]) -> Result<JoinToken, Failure> {
    if text.trim_ascii().is_empty() {
        return Err(Failure::bad_token("the token is empty").hint("give the whole line that begins with MCJ1-"));
    }
    JoinToken::parse(text).map_err(|error| {
        let words = error.to_string();
        let (what, next) = words.split_once(": ").unwrap_or((&words, ""));
        Failure::bad_token(what).hint(next)
    })
}

/// A context that points to another pool is not replaced by the way.
fn check_context(contexts: &Contexts, name: &str, token: &JoinToken) -> Result<(), Failure> {
    let Some(context) = contexts.contexts.get(name) else { return Ok(()) };
    match pin_of(&context.identity) {
        Some(pin) if pin != token.root() => {
            Err(Failure::conflict(format!("the context {name} is there already, for another pool"))
                .hint(format!("name another one with -c, or forget that one: modchain logout {name}")))
        }
        // One that points nowhere, or to this pool, may be replaced.
        Some(_) | None => Ok(()),
    }
}

fn pin_of(folder: &Path) -> Option<RootPin> {
    if !Credentials::exist(folder) {
        return None;
    }
    RootPin::of_root(Credentials::load(folder).ok()?.root()).ok()
}

/// What an earlier use of this token left here, if its certificate has not ended.
fn earlier(identities: &Identities, token: TokenId) -> Result<Option<(PathBuf, Joined)>, Failure> {
    let found = identities.joined_with(token)?;
    Ok(found.filter(|(folder, _)| {
        Credentials::load(folder).is_ok_and(|credentials| credentials.identity().not_after > text::wall_now())
    }))
}

async fn enrol(
    identities: &Identities,
    token: JoinToken,
    address: &str,
    name: Option<modchain_types::Name>,
) -> Result<(PathBuf, Joined), Failure> {
    let id = token.id();
    let pending = identities.pending(id)?;
    // Each try takes a token of its own and wipes it.
    let text = token.text();
    let mut token = Some(token);
    let mut tries = 0;
    loop {
        let this = match token.take() {
            Some(token) => token,
            None => parse(text.as_bytes())?,
        };
        let wish = JoinWish { token: this, address: address.to_owned(), dir: pending.clone(), name: name.clone() };
        let (noted, join) = (pending.clone(), address.to_owned());
        let result = enrol::join_noting(wish, move |joined| {
            write_joined(&noted, &record(joined, id, &join)).map_err(std::io::Error::other)
        });
        tries += 1;
        match result.await {
            Ok(joined) => {
                let joined = record(&joined, id, address);
                return Ok((identities.settle(&pending, &joined)?, joined));
            }
            Err(JoinError::Lost(_) | JoinError::NoAnswer) if tries < TRIES => tokio::time::sleep(PAUSE).await,
            Err(error) => {
                if matches!(&error, JoinError::Refused(refused) if !refused.code.retryable()) {
                    // Nobody has certified the key for this token, and nobody will.
                    identities.forget(&pending);
                }
                return Err(join_failure(&error));
            }
        }
    }
}

fn record(joined: &enrol::Joined, token: TokenId, join: &str) -> Joined {
    Joined {
        token: token.to_string(),
        name: joined.identity.name.clone(),
        role: joined.identity.role,
        account: joined.identity.account.clone(),
        pool: joined.pool.clone(),
        journal: joined.journal,
        orchestrator: joined.main_address.clone(),
        join: join.to_owned(),
    }
}

/// Saves a context for the identity and makes it the current one; gives its name.
fn save_context(shell: &Shell, wanted: Option<&str>, folder: &Path, joined: &Joined) -> Result<String, Failure> {
    // An older context of the same member, wherever its files are, is this one's.
    let holder = Holder::of(folder);
    Contexts::update(&shell.paths.contexts, |contexts| {
        let free = |name: &String| {
            let taken = contexts.contexts.get(name);
            taken.is_none_or(|context| context.identity == folder || Holder::of(&context.identity) == holder)
        };
        let name = match wanted {
            Some(name) => name.to_owned(),
            None => joined
                .names()
                .find(free)
                .ok_or_else(|| Failure::conflict("every name for the context is taken").hint("name one with -c"))?,
        };
        let max_cost = contexts.contexts.get(&name).and_then(|old| old.max_cost.clone());
        let context = Context {
            orchestrator: joined.orchestrator.clone(),
            join: Some(joined.join.clone()),
            identity: folder.to_owned(),
            max_cost,
        };
        contexts.contexts.insert(name.clone(), context);
        contexts.current = Some(name.clone());
        Ok(name)
    })
}

fn show(
    shell: &Shell,
    joined: &Joined,
    context: &str,
    folder: &Path,
    credentials: &Credentials,
) -> Result<(), Failure> {
    let certificate = credentials.identity();
    match shell.format() {
        Format::Json | Format::Jsonl => shell.print_document(&JoinedDoc {
            schema: "modchain.joined/v1",
            name: joined.name.to_string(),
            role: joined.role.word(),
            account: joined.account.to_string(),
            pool: joined.pool.to_string(),
            context: context.to_owned(),
            orchestrator: joined.orchestrator.clone(),
            identity: folder.display().to_string(),
            expires_at: text::rfc3339(certificate.not_after),
            renews_at: text::rfc3339(certificate.renews_at()),
            trust_domain: credentials.trust_domain().to_string(),
        }),
        Format::Name => shell.print(&format!("{context}\n")),
        Format::Table if shell.quiet() => shell.print(&format!("{context}\n")),
        Format::Table => shell.print(&pairs(&[
            ("name", joined.name.to_string()),
            ("role", joined.role.to_string()),
            ("account", joined.account.to_string()),
            ("pool", joined.pool.to_string()),
            ("context", context.to_owned()),
            ("orchestrator", joined.orchestrator.clone()),
            ("identity", folder.display().to_string()),
            ("expires", text::date_time(certificate.not_after, shell.utc())),
            ("renews", format!("{} by itself", text::date_time(certificate.renews_at(), shell.utc()))),
        ])),
    }
}

fn join_failure(error: &JoinError) -> Failure {
    let why = text::one_line(&chain(error));
    let hint = text::one_line(&error.hint());
    let failure = match error {
        JoinError::Refused(refused) => Failure::join_refused(refused.code.word(), exit_of(refused.code), why),
        JoinError::Clock { .. } => {
            Failure::join_refused(JoinRefusal::ClockTooFar.word(), exit_of(JoinRefusal::ClockTooFar), why)
        }
        JoinError::Connect(ConnectError::NotTrusted { .. } | ConnectError::OtherThanToken { .. }) => {
            return Failure::untrusted(why).hint("nothing of the token was sent; is it the address that came with it?");
        }
        JoinError::Connect(ConnectError::OrchestratorExpired { .. }) => {
            return Failure::unreachable(why).hint("nothing of the token was sent; look at this machine's clock first");
        }
        JoinError::Connect(error) => {
            let failure = if error.retryable() { Failure::unreachable(why) } else { Failure::untrusted(why) };
            return failure.hint("the address is HOST:PORT with the port for joining, usually 7444");
        }
        JoinError::Lost(_) | JoinError::NoAnswer => Failure::lost(why),
        JoinError::Lock(LockError::Busy { .. }) => Failure::conflict(why),
        JoinError::Lock(LockError::Io { .. })
        | JoinError::Files { .. }
        | JoinError::Note(_)
        | JoinError::Unexpected(_)
        | JoinError::Certificate(_) => Failure::failed(why),
    };
    Failure { lost: error.retryable(), ..failure.hint(hint) }
}

/// The exit code of a refusal to let somebody join.
fn exit_of(code: JoinRefusal) -> u8 {
    match code {
        JoinRefusal::RoleMismatch => exit::USAGE,
        JoinRefusal::TokenUnknown
        | JoinRefusal::TokenExpired
        | JoinRefusal::TokenUsed
        | JoinRefusal::TokenRevoked
        | JoinRefusal::WrongProof
        | JoinRefusal::ClockTooFar
        | JoinRefusal::Name
        | JoinRefusal::Blocked => exit::NOT_ALLOWED,
        JoinRefusal::Version | JoinRefusal::Busy => exit::UNREACHABLE,
        JoinRefusal::BadRequest | JoinRefusal::Internal => exit::FAILED,
    }
}

//! `cert`: who is in, and putting somebody out.

use modchain_types::id::BadId;
use modchain_types::{IdentityId, Name, Role, Text, WallTime};
use modchain_wire::console::{IdentitiesQuery, IdentityRef, Revoke};
use modchain_wire::view::{CertificateView, IdentityView, RevokedView};

use super::docs::{self, ListDoc};
use super::jobs::ids;
use super::table::{Column, Columns, Look, or_none};
use crate::args::{CertCommand, Format, TableArgs};
use crate::client::Client;
use crate::exit::{self, Failure, Outcome};
use crate::filter::Unit;
use crate::shell::Shell;
use crate::text;

/// Identities asked for at once.
const PAGE: u32 = 500;

/// `modchain cert ...`.
pub(crate) async fn cert(shell: &Shell, command: CertCommand) -> Outcome {
    match command {
        CertCommand::List { role, all, table } => list(shell, role.map(Role::from), all, &table).await,
        CertCommand::Revoke { identities, reason } => revoke(shell, identities, reason).await,
    }
}

async fn list(shell: &Shell, role: Option<Role>, revoked: bool, table: &TableArgs) -> Outcome {
    let look = shell.look();
    let columns = Columns::new(&COLUMNS, table, look.wide)?;
    let client = shell.connect().await?;
    let (mut views, total) = pages(&client, role, revoked).await?;
    columns.sort(&mut views, &look);
    match shell.format() {
        Format::Json => {
            let items = views.iter().map(docs::cert).collect();
            shell.print_document(&ListDoc { schema: "modchain.certs/v1", items, total: Some(total) })?;
        }
        Format::Jsonl => views.iter().try_for_each(|view| shell.print_document(&docs::cert(view)))?,
        Format::Name => shell.print(&views.iter().map(|view| who(view) + "\n").collect::<String>())?,
        Format::Table => shell.print(&columns.text(&views, &look))?,
    }
    Ok(exit::OK)
}

async fn pages(client: &Client, role: Option<Role>, revoked: bool) -> Result<(Vec<IdentityView>, u64), Failure> {
    let mut views: Vec<IdentityView> = Vec::new();
    loop {
        let after = views.last().map(|view| view.identity.name.clone());
        let page = client.identities(IdentitiesQuery { role, revoked, limit: PAGE, after }).await?;
        let (total, more, count) = (page.total, page.more, page.items.len());
        views.extend(page.items);
        if !more || count == 0 {
            return Ok((views, total));
        }
    }
}

/// As [`IdentityRef`] takes it.
fn who(view: &IdentityView) -> String {
    format!("{}/{}", view.identity.role, view.identity.name)
}

/// One of them.
type IdentityColumn = Column<IdentityView>;

/// The columns of identities.
pub(crate) static COLUMNS: [IdentityColumn; 11] = [
    IdentityColumn::text("name", "NAME", |view, _| who(view)),
    IdentityColumn::text("account", "ACCOUNT", |view, _| view.identity.account.to_string()),
    IdentityColumn::text("state", "STATE", |view, _| view.state.word().into()),
    IdentityColumn::text("expires", "EXPIRES", |view, look| newest(view, look, |certificate| certificate.expires_at)),
    IdentityColumn::text("renews", "RENEWS", |view, look| newest(view, look, |certificate| certificate.renews_at)),
    IdentityColumn::number(
        "renewals",
        "RENEWALS",
        Unit::Plain,
        |view, _| view.renewals.to_string(),
        |view, _| Some(view.renewals as f64),
    ),
    IdentityColumn::number(
        "connections",
        "CONNECTIONS",
        Unit::Plain,
        |view, _| view.connections.to_string(),
        |view, _| Some(f64::from(view.connections)),
    ),
    IdentityColumn::text("joined", "JOINED", |view, look| text::date_time(view.joined_at, look.utc)).extra(),
    IdentityColumn::text("revoked", "REVOKED", |view, look| {
        or_none(view.revoked_at.map(|at| text::date_time(at, look.utc)))
    })
    .extra(),
    IdentityColumn::text("reason", "REASON", |view, _| or_none(Some(&view.why).filter(|why| !why.is_empty()))).extra(),
    IdentityColumn::text("id", "ID", |view, _| view.identity.id.to_string()).extra(),
];

/// A time of the newest certificate.
fn newest(view: &IdentityView, look: &Look, at: fn(&CertificateView) -> WallTime) -> String {
    or_none(view.certificates.first().map(|certificate| text::date_time(at(certificate), look.utc)))
}

async fn revoke(shell: &Shell, words: Vec<String>, reason: String) -> Outcome {
    let why = Text::new(reason).map_err(|error| Failure::usage(format!("reason: {error}")))?;
    let identities = ids(words).await?.iter().map(|word| reference(word)).collect::<Result<Vec<_>, _>>()?;
    if identities.is_empty() {
        return Err(Failure::usage("no identity was named").hint("modchain cert list shows them"));
    }
    if !shell.confirm(&question(&identities)).await? {
        return Err(Failure::failed("nobody was revoked"));
    }
    let client = shell.connect().await?;
    let mut views = Vec::new();
    for identity in identities {
        let request = Revoke { identity: identity.clone(), why: Text::clone(&why) };
        let view = client.revoke(request).await.map_err(|failure| not_revoked(failure, &identity, &views))?;
        // Said as it is done: the next one may fail.
        match shell.format() {
            Format::Json => {}
            Format::Jsonl => shell.print_document(&docs::revoked(&view))?,
            Format::Name => shell.print(&(who(&view.identity) + "\n"))?,
            Format::Table if shell.quiet() => {}
            Format::Table => shell.print(&line(&view))?,
        }
        views.push(view);
    }
    match (shell.format(), views.as_slice()) {
        (Format::Json, [view]) => shell.print_document(&docs::revoked(view))?,
        (Format::Json, views) => {
            let items: Vec<_> = views.iter().map(docs::revoked).collect();
            let total = Some(items.len() as u64);
            shell.print_document(&ListDoc { schema: "modchain.revocations/v1", items, total })?;
        }
        _ => {}
    }
    Ok(exit::OK)
}

/// `ROLE/NAME`, a name or an id, as far as that can be judged here.
fn reference(word: &str) -> Result<IdentityRef, Failure> {
    let bad =
        |error: BadId| Failure::usage(error.to_string()).hint("write node/rig-1, a name or an id; modchain cert list");
    match word.split_once('/') {
        Some((role, name)) => {
            if role.parse::<Role>().map_err(bad)? == Role::Orchestrator {
                return Err(Failure::usage("the orchestrator itself cannot be revoked"));
            }
            name.parse::<Name>().map_err(bad)?;
        }
        None if word.parse::<IdentityId>().is_ok() => {}
        None => drop(word.parse::<Name>().map_err(bad)?),
    }
    Ok(Text::new(word).expect("roles, names and ids are short"))
}

fn question(identities: &[IdentityRef]) -> String {
    let who = match identities {
        [identity] => identity.to_string(),
        more => format!("{} identities", more.len()),
    };
    format!("Revoke {who}? Cut off at once and for good; a node's jobs move to others, a client's are cancelled.")
}

fn line(view: &RevokedView) -> String {
    let count = |number: u64, one: &str, more: &str| match number {
        1 => format!("1 {one}"),
        number => format!("{number} {more}"),
    };
    // Tenths of a millisecond, rounded up: nothing takes no time.
    let tenths = view.took.0.div_ceil(100);
    let mut line = format!(
        "{}  revoked, {} closed in {}.{} ms",
        who(&view.identity),
        count(view.connections_closed.into(), "connection", "connections"),
        tenths / 10,
        tenths % 10
    );
    if view.jobs > 0 {
        let what = if view.identity.identity.role == Role::Node { "moved" } else { "cancelled" };
        line.push_str(&format!(", {} {what}", count(view.jobs, "job", "jobs")));
    }
    if view.tokens > 0 {
        line.push_str(&format!(", {} revoked", count(view.tokens.into(), "token", "tokens")));
    }
    text::one_line(&line) + "\n"
}

/// A failure in the middle of several must not hide what was done before it, nor that an answer may be all that is lost.
fn not_revoked(failure: Failure, identity: &IdentityRef, views: &[RevokedView]) -> Failure {
    let mut hints = Vec::new();
    if failure.lost {
        hints.push(format!("{identity} may have been revoked: modchain cert list --all"));
    } else {
        hints.extend(failure.hint.clone());
    }
    if !views.is_empty() {
        let done: Vec<String> = views.iter().map(|view| who(&view.identity)).collect();
        hints.push(format!("revoked before that: {}", done.join(", ")));
    }
    failure.hint(hints.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_meant_is_judged_as_far_as_it_can_be_before_anything_is_asked() {
        for word in ["node/rig-1", "client/alice", "operator/root", "rig-1", "00000000000000000000000001"] {
            assert_eq!(reference(word).expect(word).as_str(), word);
        }
        for word in ["", "node/", "/rig", "robot/rig-1", "node/Rig", "orchestrator/x", "a b", "node/a/b"] {
            assert_eq!(reference(word).expect_err(word).exit, exit::USAGE, "{word}");
        }
    }
}

//! `context` and `logout`: with which orchestrator one speaks, and as whom.

use std::path::Path;

use modchain_certs::Credentials;

use super::docs::{self, ContextDoc, ListDoc};
use super::table::{Column, Columns, or_unknown, pairs};
use crate::args::{ContextCommand, Format, LogoutArgs};
use crate::client::config::{Context, Contexts};
use crate::client::identities::read_joined;
use crate::client::link::chain;
use crate::exit::{self, Failure, Outcome};
use crate::shell::Shell;
use crate::text;

/// `modchain context ...`.
pub(crate) fn context(shell: &Shell, command: ContextCommand) -> Outcome {
    let path = &shell.paths.contexts;
    match command {
        ContextCommand::Add { name, identity, join } => {
            let orchestrator = shell.global().orchestrator.clone().ok_or_else(|| {
                Failure::usage("the orchestrator's address is missing").hint("add --orchestrator HOST:PORT")
            })?;
            check_address(&orchestrator)?;
            let identity = identity.canonicalize().map_err(|error| {
                Failure::usage(format!("cannot use the identity in {}: {error}", identity.display()))
            })?;
            Credentials::load(&identity).map_err(|error| {
                let why = chain(&error);
                Failure::not_logged_in(format!("cannot use the identity in {}: {why}", identity.display()))
                    .hint("the folder holds key.pem, cert.pem and ca.pem, and the key is readable by its owner alone")
            })?;
            let name = name.to_string();
            if let Some(join) = &join {
                check_address(join)?;
            }
            Contexts::update(path, |contexts| {
                let old = contexts.contexts.get(&name);
                let max_cost = old.and_then(|old| old.max_cost.clone());
                // The other port of the same orchestrator is still there.
                let same = old.filter(|old| old.orchestrator == orchestrator);
                let join = join.or_else(|| same.and_then(|old| old.join.clone()));
                contexts.contexts.insert(name.clone(), Context { orchestrator, join, identity, max_cost });
                contexts.current.get_or_insert_with(|| name.clone());
                Ok(())
            })?;
            shell.say(&format!("context {name} added"));
            show_changed(shell, &name, &shell.contexts()?)?;
        }
        ContextCommand::Use { name } => {
            Contexts::update(path, |contexts| {
                contexts.get(&name)?;
                contexts.current = Some(name.clone());
                Ok(())
            })?;
            shell.say(&format!("{name} is the current context"));
            show_changed(shell, &name, &shell.contexts()?)?;
        }
        ContextCommand::Remove { name } => {
            let before = Contexts::update(path, |contexts| {
                contexts.get(&name)?;
                let before = contexts.clone();
                contexts.contexts.remove(&name);
                contexts.current.take_if(|current| *current == name);
                Ok(before)
            })?;
            let folder = before.get(&name)?.identity.display();
            shell.say(&format!("context {name} removed; its identity stays in {folder}"));
            show_changed(shell, &name, &Contexts { current: None, ..before })?;
        }
        ContextCommand::List(args) => {
            let look = shell.look();
            let columns = Columns::new(&COLUMNS, &args, look.wide)?;
            let contexts = shell.contexts()?;
            let mut rows: Vec<Row> = contexts
                .contexts
                .iter()
                .map(|(name, context)| Row {
                    document: document(name, context, &contexts),
                    expires: expiry(shell, &context.identity),
                })
                .collect();
            columns.sort(&mut rows, &look);
            match shell.format() {
                Format::Json => {
                    let total = Some(rows.len() as u64);
                    let items = rows.into_iter().map(|row| row.document).collect();
                    shell.print_document(&ListDoc { schema: "modchain.contexts/v1", items, total })?;
                }
                Format::Jsonl => rows.iter().try_for_each(|row| shell.print_document(&row.document))?,
                Format::Name => {
                    shell.print(&rows.iter().map(|row| format!("{}\n", row.document.name)).collect::<String>())?;
                }
                Format::Table => shell.print(&columns.text(&rows, &look))?,
            }
        }
        ContextCommand::Show { name } => {
            let contexts = shell.contexts()?;
            let name = match name {
                Some(name) => name,
                None => shell.target()?.context,
            };
            let context = contexts.get(&name)?;
            let document = document(&name, context, &contexts);
            match shell.format() {
                Format::Json | Format::Jsonl => shell.print_document(&document)?,
                Format::Name => shell.print(&format!("{name}\n"))?,
                Format::Table => shell.print(&pairs(&[
                    ("name", document.name),
                    ("pool", document.pool.unwrap_or_else(|| "?".into())),
                    ("orchestrator", document.orchestrator),
                    ("join", document.join.unwrap_or_else(|| "?".into())),
                    ("identity", document.identity),
                    ("role", document.role.unwrap_or("?").into()),
                    ("expires", expiry(shell, &context.identity)),
                    ("current", if document.current { "yes" } else { "no" }.into()),
                ]))?,
            }
        }
    }
    Ok(exit::OK)
}

/// A context that was changed, for programs: people are told.
fn show_changed(shell: &Shell, name: &str, contexts: &Contexts) -> Result<(), Failure> {
    if !shell.format().is_json() {
        return Ok(());
    }
    shell.print_document(&document(name, contexts.get(name)?, contexts))
}

/// A context in a list.
pub(crate) struct Row {
    document: ContextDoc,
    /// When its certificate ends.
    expires: String,
}

/// One of them.
type ContextColumn = Column<Row>;

/// The columns of contexts.
pub(crate) static COLUMNS: [ContextColumn; 9] = [
    ContextColumn::text("current", "CURRENT", |row, _| if row.document.current { "*" } else { "" }.into()),
    ContextColumn::text("name", "NAME", |row, _| row.document.name.clone()),
    ContextColumn::text("pool", "POOL", |row, _| or_unknown(row.document.pool.as_ref())),
    ContextColumn::text("role", "ROLE", |row, _| or_unknown(row.document.role)),
    ContextColumn::text("orchestrator", "ORCHESTRATOR", |row, _| row.document.orchestrator.clone()),
    ContextColumn::text("expires", "EXPIRES", |row, _| row.expires.clone()),
    ContextColumn::text("identity", "IDENTITY", |row, _| row.document.identity.clone()),
    ContextColumn::text("join", "JOIN", |row, _| or_unknown(row.document.join.as_ref())).extra(),
    ContextColumn::text("domain", "TRUST DOMAIN", |row, _| or_unknown(row.document.trust_domain.as_ref())).extra(),
];

fn document(name: &str, context: &Context, contexts: &Contexts) -> ContextDoc {
    // A context may point to what is not there any more.
    let credentials = credentials(&context.identity);
    let certificate = credentials.as_ref().map(|found| docs::certificate(found.identity(), found.trust_domain(), None));
    ContextDoc {
        schema: "modchain.context/v1",
        name: name.to_owned(),
        orchestrator: context.orchestrator.clone(),
        pool: read_joined(&context.identity).map(|joined| joined.pool.to_string()),
        join: context.join.clone(),
        identity: context.identity.display().to_string(),
        current: contexts.current.as_deref() == Some(name),
        role: credentials.as_ref().map(|found| found.identity().role.word()),
        trust_domain: certificate.as_ref().map(|found| found.trust_domain.clone()),
        expires_at: certificate.as_ref().map(|found| found.expires_at.clone()),
        renews_at: certificate.map(|found| found.renews_at),
    }
}

/// What lies in an identity's folder, if it can be used.
fn credentials(folder: &Path) -> Option<Credentials> {
    if Credentials::exist(folder) { Credentials::load(folder).ok() } else { None }
}

fn expiry(shell: &Shell, folder: &Path) -> String {
    let Some(credentials) = credentials(folder) else { return "?".into() };
    let end = credentials.identity().not_after;
    let past = if end <= text::wall_now() { "  ended" } else { "" };
    format!("{}{past}", text::date_time(end, shell.utc()))
}

/// A host and a port; whether anybody is there shows later.
pub(crate) fn check_address(address: &str) -> Result<(), Failure> {
    let bad =
        || Failure::usage(format!("`{address}` is not HOST:PORT")).hint("such as orch.example.org:7443 or [::1]:7443");
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    let bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    if host.is_empty() || bare_ipv6 || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(bad());
    }
    Ok(())
}

/// `modchain logout`.
pub(crate) async fn logout(shell: &Shell, args: &LogoutArgs) -> Outcome {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => shell.target()?.context,
    };
    let contexts = shell.contexts()?;
    let folder = contexts.get(&name)?.identity.clone();
    let identities = shell.identities();
    let shared = contexts.contexts.iter().find(|(other, context)| **other != name && context.identity == folder);
    let wipes = identities.holds(&folder) && shared.is_none();
    let credentials = credentials(&folder);
    // As it was: afterwards nobody could read it.
    let context = document(&name, contexts.get(&name)?, &Contexts { current: None, ..contexts.clone() });
    let question = format!("Log out of {name}? Its key is wiped, and only a new token brings one back.");
    if wipes && !shell.confirm(&question).await? {
        return Err(Failure::failed("nothing was removed"));
    }
    if wipes {
        // Before the context: whoever is stopped in between can log out again.
        let joined = read_joined(&folder);
        identities.wipe(&folder)?;
        if let Some(certificate) = credentials.as_ref().map(|found| *found.identity()) {
            let who =
                joined.map_or_else(|| certificate.id.to_string(), |joined| format!("{}/{}", joined.role, joined.name));
            let until = text::date_time(certificate.not_after, shell.utc());
            shell.say(&format!("the key is wiped; wherever a copy of it is, its certificate is good until {until}"));
            shell.say(&format!("to end it now, an operator runs: modchain cert revoke {who}"));
        }
    }
    Contexts::update(&shell.paths.contexts, |contexts| {
        contexts.contexts.remove(&name);
        contexts.current.take_if(|current| *current == name);
        Ok(())
    })?;
    shell.say(&format!("context {name} removed"));
    match shared {
        _ if wipes => {}
        Some((other, _)) => shell.say(&format!("its identity stays, because the context {other} uses it too")),
        None => shell.say(&format!("its identity stays in {}", folder.display())),
    }
    if shell.format().is_json() {
        shell.print_document(&context)?;
    }
    Ok(exit::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_a_host_and_a_port() {
        for address in ["h:1", "orch.example.org:7443", "[::1]:7443", "127.0.0.1:65535"] {
            assert!(check_address(address).is_ok(), "{address}");
        }
        for address in ["", "h", ":1", "h:", "h:0", "h:65536", "::1:7443", "h:port"] {
            assert_eq!(check_address(address).expect_err("refused").exit, exit::USAGE, "{address}");
        }
    }
}

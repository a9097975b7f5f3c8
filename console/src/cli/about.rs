//! `whoami`, `version`, `context`, `help` and `completions`: the program about itself.

use clap::CommandFactory;

use super::docs::{self, ContextDoc, ListDoc, ServerVersionDoc};
use super::table::{Align, Table, pairs};
use crate::args::{Cli, ContextCommand, Format, VersionArgs};
use crate::client::config::{Context, Contexts, nearest};
use crate::exit::{self, Failure, Outcome};
use crate::shell::Shell;

/// `modchain whoami`.
pub(crate) async fn whoami(shell: &Shell) -> Outcome {
    let target = shell.target()?;
    let client = shell.connect().await?;
    let welcome = client.welcome();
    let identity = &welcome.identity;
    match shell.format() {
        Format::Json | Format::Jsonl => {
            shell.print_document(&docs::whoami(welcome, &target.context, client.address()))?;
        }
        Format::Name => shell.print(&format!("{}\n", identity.name))?,
        Format::Table => shell.print(&pairs(&[
            ("name", identity.name.to_string()),
            ("role", identity.role.to_string()),
            ("account", identity.account.to_string()),
            ("context", target.context),
            ("orchestrator", client.address().to_owned()),
            ("money", welcome.asset.to_string()),
        ]))?,
    }
    Ok(exit::OK)
}

/// `modchain version`.
pub(crate) async fn version(shell: &Shell, args: &VersionArgs) -> Outcome {
    let server = if args.server {
        let client = shell.connect().await?;
        Some(ServerVersionDoc {
            addr: client.address().to_owned(),
            version: client.welcome().version.as_str().to_owned(),
        })
    } else {
        None
    };
    match shell.format() {
        Format::Json | Format::Jsonl => shell.print_document(&docs::version(server))?,
        Format::Name | Format::Table => {
            let mut text = format!("modchain {} (wire {})\n", env!("CARGO_PKG_VERSION"), modchain_wire::WIRE_VERSION);
            if let Some(server) = server {
                text.push_str(&crate::text::one_line(&format!("server {} at {}", server.version, server.addr)));
                text.push('\n');
            }
            shell.print(&text)?;
        }
    }
    Ok(exit::OK)
}

/// `modchain context ...`.
pub(crate) fn context(shell: &Shell, command: ContextCommand) -> Outcome {
    let path = &shell.paths.contexts;
    match command {
        ContextCommand::Add { name, identity } => {
            let orchestrator = shell.global().orchestrator.clone().ok_or_else(|| {
                Failure::usage("the orchestrator's address is missing").hint("add --orchestrator HOST:PORT")
            })?;
            check_address(&orchestrator)?;
            let identity = identity.canonicalize().map_err(|error| {
                Failure::usage(format!("cannot use the identity in {}: {error}", identity.display()))
            })?;
            modchain_certs::Credentials::load(&identity).map_err(|error| {
                let why = anyhow::Error::new(error);
                Failure::not_logged_in(format!("cannot use the identity in {}: {why:#}", identity.display()))
                    .hint("the folder holds key.pem, cert.pem and ca.pem, and the key is readable by its owner alone")
            })?;
            let name = name.to_string();
            Contexts::update(path, |contexts| {
                let max_cost = contexts.contexts.get(&name).and_then(|old| old.max_cost.clone());
                contexts.contexts.insert(name.clone(), Context { orchestrator, identity, max_cost });
                contexts.current.get_or_insert_with(|| name.clone());
                Ok(())
            })?;
            shell.say(&format!("context {name} added"));
        }
        ContextCommand::Use { name } => {
            Contexts::update(path, |contexts| {
                contexts.get(&name)?;
                contexts.current = Some(name.clone());
                Ok(())
            })?;
            shell.say(&format!("{name} is the current context"));
        }
        ContextCommand::Remove { name } => {
            Contexts::update(path, |contexts| {
                contexts.get(&name)?;
                contexts.contexts.remove(&name);
                contexts.current.take_if(|current| *current == name);
                Ok(())
            })?;
            shell.say(&format!("context {name} removed"));
        }
        ContextCommand::List => {
            let contexts = shell.contexts()?;
            let documents: Vec<ContextDoc> =
                contexts.contexts.iter().map(|(name, context)| document(name, context, &contexts)).collect();
            match shell.format() {
                Format::Json => {
                    let total = Some(documents.len() as u64);
                    shell.print_document(&ListDoc { schema: "modchain.contexts/v1", items: documents, total })?;
                }
                Format::Jsonl => documents.iter().try_for_each(|document| shell.print_document(document))?,
                Format::Name => shell.print(&documents.iter().map(|d| format!("{}\n", d.name)).collect::<String>())?,
                Format::Table => {
                    let columns = ["CURRENT", "NAME", "ORCHESTRATOR", "IDENTITY"].map(|name| (name, Align::Left));
                    let mut table = Table::new(&columns);
                    for document in documents {
                        let mark = if document.current { "*" } else { "" };
                        table.row(vec![mark.into(), document.name, document.orchestrator, document.identity]);
                    }
                    shell.print(&table.render())?;
                }
            }
        }
        ContextCommand::Show { name } => {
            let contexts = shell.contexts()?;
            let name = match name {
                Some(name) => name,
                None => shell.target()?.context,
            };
            let document = document(&name, contexts.get(&name)?, &contexts);
            match shell.format() {
                Format::Json | Format::Jsonl => shell.print_document(&document)?,
                Format::Name => shell.print(&format!("{name}\n"))?,
                Format::Table => shell.print(&pairs(&[
                    ("name", document.name),
                    ("orchestrator", document.orchestrator),
                    ("identity", document.identity),
                    ("current", if document.current { "yes" } else { "no" }.into()),
                ]))?,
            }
        }
    }
    Ok(exit::OK)
}

fn document(name: &str, context: &Context, contexts: &Contexts) -> ContextDoc {
    ContextDoc {
        schema: "modchain.context/v1",
        name: name.to_owned(),
        orchestrator: context.orchestrator.clone(),
        identity: context.identity.display().to_string(),
        current: contexts.current.as_deref() == Some(name),
    }
}

/// A host and a port; whether anybody is there shows later.
fn check_address(address: &str) -> Result<(), Failure> {
    let bad =
        || Failure::usage(format!("`{address}` is not HOST:PORT")).hint("such as orch.example.org:7443 or [::1]:7443");
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    let bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    if host.is_empty() || bare_ipv6 || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(bad());
    }
    Ok(())
}

/// `modchain help`.
pub(crate) fn help(shell: &Shell, topic: &[String]) -> Outcome {
    let [word, rest @ ..] = topic else {
        return shell.print(&Cli::command().render_long_help().to_string()).map(|()| exit::OK);
    };
    if let Some((_, text)) = TOPICS.iter().find(|(name, _)| name == word) {
        return shell.print(text).map(|()| exit::OK);
    }
    let mut command = Cli::command();
    command.build();
    let mut path = "modchain".to_owned();
    for word in std::iter::once(word).chain(rest) {
        let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
        let Some(found) = command.find_subcommand(word) else {
            let topics = TOPICS.iter().map(|(name, _)| *name);
            let failure = Failure::usage(format!("there is no command or topic `{word}`"));
            return Err(match nearest(word, names.iter().map(String::as_str).chain(topics)) {
                Some(near) => failure.hint(format!("did you mean `{near}`?")),
                None => failure.hint("modchain help"),
            });
        };
        path = format!("{path} {word}");
        command = found.clone();
    }
    shell.print(&command.bin_name(path).render_long_help().to_string()).map(|()| exit::OK)
}

/// `modchain completions`.
pub(crate) fn completions(shell: &Shell, of: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(of, &mut Cli::command(), "modchain", &mut script);
    shell.print(&String::from_utf8_lossy(&script)).map(|()| exit::OK)
}

const TOPICS: &[(&str, &str)] = &[
    ("exit-codes", include_str!("help/exit-codes.txt")),
    ("output", include_str!("help/output.txt")),
    ("filters", include_str!("help/filters.txt")),
    ("environment", include_str!("help/environment.txt")),
];

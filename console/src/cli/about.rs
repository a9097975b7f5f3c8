//! `whoami`, `version`, `help` and `completions`: the program about itself.

use clap::CommandFactory;

use modchain_wire::console::{RefusalCode, WhoamiQuery};

use super::docs::{self, ServerVersionDoc};
use super::table::pairs;
use super::topics::TOPICS;
use crate::args::{Cli, Format, VersionArgs};
use crate::client::config::nearest;
use crate::exit::{self, Failure, Outcome};
use crate::shell::Shell;
use crate::text;

/// `modchain whoami`.
pub(crate) async fn whoami(shell: &Shell) -> Outcome {
    let target = shell.target()?;
    let client = shell.connect().await?;
    let renewals = match client.whoami(WhoamiQuery { detail: false }).await {
        Ok(view) => Some(view.renewals),
        // An older orchestrator does not count them.
        Err(failure) if failure.code == RefusalCode::Unsupported.word() => None,
        Err(failure) => return Err(failure),
    };
    let welcome = client.welcome();
    let identity = &welcome.identity;
    let certificate = client.certificate();
    let domain = client.trust_domain();
    match shell.format() {
        Format::Json | Format::Jsonl => {
            let certificate = docs::certificate(certificate, domain, renewals);
            shell.print_document(&docs::whoami(welcome, &target.context, client.address(), certificate))?;
        }
        Format::Name => shell.print(&format!("{}\n", identity.name))?,
        Format::Table => {
            let now = text::wall_now();
            let until = |at: modchain_types::WallTime, past: &str| {
                let when = text::date_time(at, shell.utc());
                if at > now { format!("{when}  in {}", at.since(now)) } else { format!("{when}  {past}") }
            };
            shell.print(&pairs(&[
                ("name", identity.name.to_string()),
                ("role", identity.role.to_string()),
                ("account", identity.account.to_string()),
                ("context", target.context),
                ("orchestrator", client.address().to_owned()),
                ("pool", welcome.pool.to_string()),
                ("money", welcome.asset.to_string()),
                ("trust domain", domain.to_string()),
                ("certificate", certificate.serial.to_string()),
                ("expires", until(certificate.not_after, "ended")),
                ("renews", until(certificate.renews_at(), "now")),
                ("renewals", renewals.map_or_else(|| "?".into(), |count| count.to_string())),
            ]))?;
        }
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
            pool: client.welcome().pool.to_string(),
        })
    } else {
        None
    };
    match shell.format() {
        Format::Json | Format::Jsonl => shell.print_document(&docs::version(server))?,
        Format::Name | Format::Table => {
            let mut text = format!("modchain {} (wire {})\n", env!("CARGO_PKG_VERSION"), modchain_wire::WIRE_VERSION);
            if let Some(server) = server {
                text.push_str(&crate::text::one_line(&format!(
                    "server {} at {}, pool {}",
                    server.version, server.addr, server.pool
                )));
                text.push('\n');
            }
            shell.print(&text)?;
        }
    }
    Ok(exit::OK)
}

/// `modchain help`.
pub(crate) fn help(shell: &Shell, topic: &[String]) -> Outcome {
    let [word, rest @ ..] = topic else {
        return shell.print(&Cli::command().render_long_help().to_string()).map(|()| exit::OK);
    };
    if let Some((_, text)) = TOPICS.iter().find(|(name, _)| name == word) {
        return shell.print(&text()).map(|()| exit::OK);
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

//! `doctor`: looks at everything that this node needs, one thing a line, and says what to do about what is amiss. It changes
//! nothing, disturbs no running agent, and is done within seconds.

mod neighbours;

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use modchain_agent::clock;
use modchain_agent::config::Config;
use modchain_agent::joined::identity_dir;
use modchain_agent::session::REFUSAL_FILE;
use modchain_certs::files::check_private_dir;
use modchain_certs::{Credentials, CredentialsError, FileError, PeerIdentity, RootPin};
use modchain_link::{ConnectError, Protocol, reach};
use modchain_types::{NodeId, Role, Span, TokenId, WallTime};
use serde_json::json;

use crate::Output;
use crate::failure::clean;

/// Longest time for one check.
const CHECK_MAX: Duration = Duration::from_secs(15);

/// A difference between two clocks that can be told from the time that an answer takes, …
const SKEW_SEEN: Span = Span::from_secs(3);
/// … one that is worth a warning, …
const SKEW_WARNED: Span = Span::from_secs(60);
/// … and one with which certificates are refused.
const SKEW_MAX: Span = modchain_link::enrol::CLOCKS_APART_MAX;

/// What helps where there is no sound identity.
const JOIN_AGAIN: &str =
    "ask the operator for a token (`modchain token create --role node`) and run `modchain-agent join`";

/// How one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Ok,
    /// It works, or is not needed, and could be better.
    Warn,
    /// Jobs will not run, or soon will not.
    Problem,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Problem => "problem",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug)]
struct Check {
    name: &'static str,
    status: Status,
    /// What was seen.
    detail: String,
    /// What to do; empty where nothing is.
    hint: String,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, detail: detail.into(), hint: String::new() }
    }

    fn warn(name: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { name, status: Status::Warn, detail: detail.into(), hint: hint.into() }
    }

    fn problem(name: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { name, status: Status::Problem, detail: detail.into(), hint: hint.into() }
    }
}

/// Looks, prints, and tells whether there is no problem.
pub(crate) fn doctor(config: &Config, output: Output) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("failed to start")?;
    let checks = runtime.block_on(look(config));
    // Name services may still be asked on threads of their own.
    runtime.shutdown_background();
    let well = checks.iter().all(|check| check.status != Status::Problem);
    let mut text = String::new();
    match output {
        Output::Json => {
            let checks: Vec<_> = checks
                .iter()
                .map(|Check { name, status, detail, hint }| {
                    let hint = Some(hint).filter(|hint| !hint.is_empty());
                    json!({ "name": name, "status": status.word(), "detail": detail, "hint": hint })
                })
                .collect();
            text = json!({ "schema": "modchain.doctor/v1", "checks": checks, "ok": well }).to_string() + "\n";
        }
        Output::Text => {
            for Check { name, status, detail, hint } in &checks {
                text.push_str(&format!("{:<8} {name:<13} {}\n", status.word(), clean(detail)));
                if !hint.is_empty() {
                    text.push_str(&format!("{:<22} {}\n", "", clean(hint)));
                }
            }
        }
    }
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough, as `head` does.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("failed to print"),
        _ => Ok(well),
    }
}

async fn look(config: &Config) -> Vec<Check> {
    let dir = config.identity.clone().unwrap_or_else(|| identity_dir(&config.data));
    let credentials = Credentials::load(&dir);
    let identity = identity(&dir, config, &credentials);
    let credentials = credentials.ok().filter(|credentials| credentials.identity().role == Role::Node);
    let running = running(config, credentials.as_ref());
    let mut checks = vec![data_folder(&config.data), identity];
    checks.extend(credentials.as_ref().map(|credentials| certificate(credentials.identity(), clock::wall())));
    checks.push(agent(&running));
    let (main, join, docker, ollama) = tokio::join!(
        main_port(config, credentials.as_ref(), &running),
        join_port(config, credentials.as_ref()),
        neighbours::docker(config),
        neighbours::ollama(config),
    );
    checks.push(main);
    checks.extend(join);
    checks.extend([buffers(), docker, ollama]);
    checks
}

fn data_folder(data: &Path) -> Check {
    let shown = data.display();
    match check_private_dir(data) {
        Ok(()) => Check::ok("data", format!("{shown} is this user's alone")),
        Err(FileError::Missing { .. }) => Check::warn("data", format!("{shown} is not there yet"), JOIN_AGAIN),
        Err(error) => Check::problem("data", format!("{:#}", anyhow::Error::new(error)), ""),
    }
}

fn identity(dir: &Path, config: &Config, credentials: &Result<Credentials, CredentialsError>) -> Check {
    let name = "identity";
    match credentials {
        Ok(credentials) if credentials.identity().role == Role::Node => {
            let called = config
                .joined
                .as_ref()
                .map(|joined| format!("{} of pool {}, account {}; ", joined.name, joined.pool, joined.account));
            let PeerIdentity { id, .. } = credentials.identity();
            let (called, domain) = (called.unwrap_or_default(), credentials.trust_domain());
            Check::ok(name, format!("{called}node {id} of {domain}, in {}", dir.display()))
        }
        Ok(credentials) => {
            let role = credentials.identity().role;
            let detail = format!("the identity in {} is of the role {role}; an agent is a node", dir.display());
            Check::problem(name, detail, JOIN_AGAIN)
        }
        Err(CredentialsError::File(FileError::Missing { path })) => {
            Check::problem(name, format!("this machine has not joined: there is no {}", path.display()), JOIN_AGAIN)
        }
        // The message of a file says how to mend it.
        Err(CredentialsError::File(error)) => Check::problem(name, error.to_string(), ""),
        Err(error) => {
            let hint = format!("restore the folder, or {JOIN_AGAIN} with --replace");
            Check::problem(name, format!("{}: {error}", dir.display()), hint)
        }
    }
}

fn certificate(certificate: &PeerIdentity, wall: WallTime) -> Check {
    let name = "certificate";
    let (expires_at, renews_at) = (clock::utc(certificate.not_after), clock::utc(certificate.renews_at()));
    if wall < certificate.not_before {
        let from = clock::utc(certificate.not_before);
        let detail = format!("it begins at {from}, and this machine's clock says {}", clock::utc(wall));
        return Check::problem(name, detail, "set the clock");
    }
    if wall >= certificate.not_after {
        return Check::problem(
            name,
            format!("it ended at {expires_at}"),
            "set the clock if it is wrong; else ask for a token made with `modchain token create --role node --name NAME \
             --rejoin`, and run `modchain-agent join --replace` with it",
        );
    }
    let overdue = wall.since(certificate.renews_at());
    // A tenth of its life late: a few failures in a row are nothing.
    if overdue > Span(certificate.life().0 / 10) {
        let detail = format!("it ends at {expires_at} and should have been renewed at {renews_at}");
        return Check::warn(
            name,
            detail,
            "start the agent, which renews it; if it runs, its log says why it could not",
        );
    }
    let left = certificate.not_after.since(wall);
    Check::ok(name, format!("until {expires_at} ({left} left); renewed from {renews_at} on"))
}

/// Whether an agent uses the data folder.
enum Running {
    Yes {
        /// Its number.
        process: String,
        /// Why the orchestrator does not take it, if it does not.
        refused: Option<String>,
    },
    No,
    /// The lock's file cannot be looked at.
    Unknown(String),
}

fn running(config: &Config, credentials: Option<&Credentials>) -> Running {
    let data = match credentials {
        Some(credentials) => config.node_data(NodeId::from(credentials.identity().id)),
        None => config.data.clone(),
    };
    let path = data.join("lock");
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Running::No,
        Err(error) => return Running::Unknown(format!("cannot look at {}: {error}", path.display())),
    };
    // Shared, so that two who look do not take each other for an agent; an agent that starts within this moment says so and
    // is started again.
    match file.try_lock_shared() {
        Ok(()) => Running::No,
        Err(std::fs::TryLockError::WouldBlock) => {
            let mut process = String::new();
            // Which process it is helps, and no more.
            let _ = (&mut file).take(32).read_to_string(&mut process);
            let refused = std::fs::read_to_string(data.join(REFUSAL_FILE)).ok();
            Running::Yes { process: process.trim().to_owned(), refused }
        }
        Err(std::fs::TryLockError::Error(error)) => Running::Unknown(error.to_string()),
    }
}

fn agent(running: &Running) -> Check {
    match running {
        Running::Yes { process, refused: None } => Check::ok("agent", format!("it runs, as process {process}")),
        Running::Yes { process, refused: Some(why) } => Check::problem(
            "agent",
            format!("it runs, as process {process}, but the orchestrator does not take it: {why}"),
            "once that is mended, restart it, or wait a minute",
        ),
        Running::No => Check::warn("agent", "it does not run", "run `modchain-agent start`, or enable its service"),
        Running::Unknown(why) => Check::warn("agent", why, "run this as the user whom the agent runs as"),
    }
}

async fn main_port(config: &Config, credentials: Option<&Credentials>, running: &Running) -> Check {
    let name = "orchestrator";
    let Some(address) = &config.orchestrator else {
        return Check::problem(name, "nobody has said where the orchestrator is", JOIN_AGAIN);
    };
    let Some(credentials) = credentials else {
        return Check::problem(
            name,
            format!("{address} was not tried: without an identity nobody is trusted"),
            JOIN_AGAIN,
        );
    };
    let asked = async {
        match running {
            Running::No => reach::certificate(credentials, address, Protocol::Agent).await,
            // One more connection of this node could be one too many while the agent comes back or renews.
            Running::Yes { .. } | Running::Unknown(_) => reach::main_port(credentials, address, Protocol::Agent).await,
        }
    };
    match (tokio::time::timeout(CHECK_MAX, asked).await, running) {
        (Ok(Ok(())), Running::No) => Check::ok(name, format!("{address} is there, and takes this certificate")),
        (Ok(Ok(())), Running::Yes { .. } | Running::Unknown(_)) => {
            Check::ok(name, format!("{address} is there (the running agent's connection was left alone)"))
        }
        (Ok(Err(error)), _) => unreachable(name, error),
        (Err(_), _) => Check::problem(name, format!("{address} did not answer in time"), FIREWALL),
    }
}

/// What helps where UDP does not get through.
const FIREWALL: &str = "see whether the orchestrator runs, and whether a firewall on the way lets UDP through";

fn unreachable(name: &'static str, error: ConnectError) -> Check {
    // What can be said about it is in its words.
    Check::problem(name, format!("{:#}", anyhow::Error::new(error)), "")
}

/// The join port, and the clock, which only that one tells to somebody who does not come to work.
async fn join_port(config: &Config, credentials: Option<&Credentials>) -> Vec<Check> {
    let name = "join port";
    let (Some(joined), Some(credentials)) = (&config.joined, credentials) else { return Vec::new() };
    let pin = match RootPin::of_root(credentials.root()) {
        Ok(pin) => pin,
        Err(error) => return vec![Check::problem(name, error.to_string(), "")],
    };
    let token = joined.token.parse::<TokenId>().ok();
    let asked = reach::join_port(pin, &joined.join, token, clock::wall());
    match tokio::time::timeout(CHECK_MAX, asked).await {
        Ok(Ok(there)) => {
            let port = Check::ok(name, format!("{} is there", joined.join));
            let clock = there.map(|there| clocks(clock::wall(), there));
            std::iter::once(port).chain(clock).collect()
        }
        // A member does not need it, so it may well be closed.
        Ok(Err(error)) => {
            let Check { detail, .. } = unreachable(name, error);
            vec![Check::warn(name, detail, "it is needed only to join")]
        }
        Err(_) => {
            vec![Check::warn(name, format!("{} did not answer in time", joined.join), "it is needed only to join")]
        }
    }
}

fn clocks(here: WallTime, there: WallTime) -> Check {
    let name = "clock";
    let apart = here.since(there).max(there.since(here));
    let which = if here < there { "behind" } else { "ahead of" };
    let hint = "set the clock (timedatectl set-ntp true, or chronyc makestep)";
    let detail = match apart {
        // The answer's way takes time too.
        apart if apart < SKEW_SEEN => "it agrees with the orchestrator's".to_owned(),
        apart => format!("{apart} {which} the orchestrator's"),
    };
    match apart {
        apart if apart > SKEW_MAX => Check::problem(name, format!("{detail}; certificates are refused"), hint),
        apart if apart > SKEW_WARNED => Check::warn(name, detail, hint),
        _ => Check::ok(name, detail),
    }
}

fn buffers() -> Check {
    let name = "UDP buffers";
    match reach::buffers() {
        Ok(buffers) => {
            let detail = format!(
                "{} KiB to receive and {} KiB to send",
                buffers.receive_bytes / 1024,
                buffers.send_bytes / 1024
            );
            match buffers.ample() {
                true => Check::ok(name, detail),
                // One connection needs little; only much output at once would be faster with more.
                false => Check::ok(name, format!("{detail}, which is enough for a node")),
            }
        }
        Err(error) => Check::problem(name, format!("cannot open a UDP socket: {error}"), ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use modchain_types::{CertificateSerial, IdentityId, KeyDigest};

    #[test]
    fn a_certificate_is_judged_by_its_dates() {
        let hour = 3_600_000;
        let certificate_of_a_day = PeerIdentity {
            role: Role::Node,
            id: IdentityId([7; 16]),
            serial: CertificateSerial([1; 16]),
            key: KeyDigest([1; 32]),
            not_before: WallTime(100 * hour - 600_000),
            not_after: WallTime(124 * hour),
        };
        for (hours, status) in [
            (99, Status::Problem),
            (100, Status::Ok),
            (114, Status::Ok),
            (117, Status::Ok),
            (121, Status::Warn),
            (124, Status::Problem),
        ] {
            let check = certificate(&certificate_of_a_day, WallTime(hours * hour));
            assert_eq!(check.status, status, "{hours}: {check:?}");
            assert_eq!(check.hint.is_empty(), status == Status::Ok, "{check:?}");
        }
    }

    #[test]
    fn clocks_may_differ_a_little() {
        let minutes = |minutes: i64| WallTime(1_000_000_000 + minutes * 60_000);
        for (apart, status) in [(0, Status::Ok), (1, Status::Ok), (5, Status::Warn), (11, Status::Problem)] {
            assert_eq!(clocks(minutes(apart), minutes(0)).status, status);
            assert_eq!(clocks(minutes(0), minutes(apart)).status, status);
        }
        assert!(clocks(minutes(0), minutes(5)).detail.contains("behind"));
    }
}

//! `service`: the agent as a service of systemd.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use modchain_agent::config::{Config, SERVICE_DATA, Settings};
use modchain_service::machine::{self, Then};
use modchain_service::unit::{Needs, Unit, config_dir};
use modchain_types::{Adapter, Span};
use serde_json::json;

use crate::failure::{Failure, UNREACHABLE};
use crate::{Output, init};

/// The unit's name, and the usual user's.
const NAME: &str = "modchain-agent";

/// How long what runs may go on when the service is stopped, unless the owner says otherwise: with what follows it stays
/// within the minute and a half that a machine gives its services when it goes down.
const DRAIN: Span = Span::from_secs(30);

/// After the drain: ending what still runs, saying so, and stopping.
const STOP_AFTER_DRAIN: Duration = Duration::from_secs(45);

/// The group that may use a container engine.
const DOCKER_GROUP: &str = "docker";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Service {
    /// Put the unit in place, enable it, and start it once this machine has joined. Can be repeated
    #[command(
        after_help = "Examples:\n  sudo modchain-agent service install\n  modchain-agent service install --dry-run\n  \
                            sudo modchain-agent service install --drain 10m --data /srv/modchain"
    )]
    Install(Install),
    /// Drain and stop the service, and remove its unit. Data and settings stay
    Uninstall(Named),
    /// Show how systemd sees the service
    #[command(after_help = "Exit codes: 0 it runs; 5 it does not")]
    Status(Named),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Install {
    /// Whom it runs as; made if there is no such user
    #[arg(long, value_name = "NAME", default_value = NAME)]
    user: String,
    /// Settings in TOML, written if there are none [default: /etc/modchain/agent.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where it keeps its data [default: /var/lib/modchain/agent]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How long jobs may go on when it is stopped; then they go on elsewhere [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = span)]
    drain: Option<Span>,
    /// Print the unit and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Service {
    pub(crate) fn output(&self) -> Output {
        match self {
            Self::Install(_) => Output::Text,
            Self::Uninstall(named) | Self::Status(named) => named.output,
        }
    }
}

pub(crate) fn service(service: Service) -> Result<ExitCode, Failure> {
    match service {
        Service::Install(arguments) => install(&arguments)?,
        Service::Uninstall(Named { output }) => uninstall(output)?,
        Service::Status(Named { output }) => return status(output),
    }
    Ok(ExitCode::SUCCESS)
}

fn span(text: &str) -> Result<Span, String> {
    modchain_types::time::parse_span(text).map_err(|error| error.to_string())
}

fn install(arguments: &Install) -> anyhow::Result<()> {
    let file = arguments.config.clone().unwrap_or_else(|| config_dir().join("agent.toml"));
    ensure!(file.is_absolute(), "{} must be named from the root on", file.display());
    // With the file that will hold, or the defaults where there is none yet.
    let settings = Settings { data: Some(data(arguments)), ..Settings::default() };
    let config = Config::load(None, None, &settings, Some(&file).filter(|file| file.exists()).map(|file| &**file))?;
    let unit = unit(arguments, &config)?;
    if arguments.dry_run {
        print!("{}", unit.text());
        return Ok(());
    }
    machine::check(&unit)?;
    let joined = has_joined(&unit.data);
    let then = if joined { Then::Start } else { Then::EnableOnly };
    let config_made = init::ensure(&file)?;
    let installed = machine::install(&unit, then)?;
    println!("installed {}", installed.file.display());
    if installed.user_made {
        println!("made the user {}", unit.user);
    }
    if config_made {
        println!("wrote {}: set your prices in it, then `systemctl reload {NAME}`", file.display());
    }
    println!("data in {}, which belongs to {}", unit.data.display(), unit.user);
    match (joined, installed.ran_already) {
        (true, true) => println!("it runs; what has changed counts from the next start on: systemctl restart {NAME}"),
        (true, false) => println!("it runs: modchain-agent status"),
        (false, _) => {
            let (data, user) = (unit.data.display(), &unit.user);
            println!(
                "next: sudo -u {user} modchain-agent join --data {data} --orchestrator HOST:7444 --token-file - &&"
            );
            println!("      sudo systemctl start {NAME}");
        }
    }
    Ok(())
}

fn data(arguments: &Install) -> PathBuf {
    arguments.data.clone().unwrap_or_else(|| SERVICE_DATA.into())
}

fn unit(arguments: &Install, config: &Config) -> anyhow::Result<Unit> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    // Where everything is in its usual place the unit says nothing about places, and so need the owner's commands not.
    let mut places = Vec::new();
    if let Some(file) = &arguments.config {
        places.extend(["--config".to_owned(), file.display().to_string()]);
    }
    if let Some(data) = &arguments.data {
        places.extend(["--data".to_owned(), data.display().to_string()]);
    }
    let with_places = |command: &[&str]| [words(command), places.clone()].concat();
    let drain = arguments.drain.unwrap_or(DRAIN);
    let deadline = format!("{}s", drain.0.div_ceil(1_000_000));
    let docker = config.adapters.contains(&Adapter::Docker) && group_exists(DOCKER_GROUP)?;
    Ok(Unit {
        name: NAME,
        description: "Modchain agent: offers this machine to a compute pool",
        program: std::env::current_exe().context("failed to find this program's own file")?,
        start: with_places(&["start"]),
        reload: Some(with_places(&["reload"])),
        before_stop: Some(with_places(&["drain", "--wait", "--deadline", &deadline])),
        stop_max: Duration::from(drain) + STOP_AFTER_DRAIN,
        user: arguments.user.clone(),
        groups: if docker { words(&[DOCKER_GROUP]) } else { Vec::new() },
        data: data(arguments),
        after: vec!["docker.service", "ollama.service", "nvidia-persistenced.service"],
        needs: Needs::Jobs,
    })
}

/// Whether there is a node's identity below the folder. For root, who may look everywhere.
fn has_joined(data: &Path) -> bool {
    modchain_agent::joined::identity_dir(data).exists()
}

fn group_exists(name: &str) -> anyhow::Result<bool> {
    let groups = std::fs::read_to_string("/etc/group").context("failed to read /etc/group")?;
    Ok(groups.lines().any(|line| line.split(':').next() == Some(name)))
}

fn uninstall(output: Output) -> anyhow::Result<()> {
    let shown = machine::show(NAME)?;
    let user = shown.user().to_owned();
    let was_there = machine::uninstall(NAME)?;
    match output {
        Output::Json => println!("{}", json!({ "schema": "modchain.service/v1", "name": NAME, "removed": was_there })),
        Output::Text if was_there => {
            println!("removed {NAME}.service");
            println!(
                "kept: the data with this node's identity, the settings in {}, the user {user}",
                config_dir().display()
            );
        }
        Output::Text => println!("there was no {NAME}.service"),
    }
    Ok(())
}

fn status(output: Output) -> Result<ExitCode, Failure> {
    let shown = machine::show(NAME)?;
    match output {
        Output::Json => println!("{}", shown.document(NAME)),
        Output::Text => print!("{}", shown.text(NAME)),
    }
    Ok(if shown.is_active() { ExitCode::SUCCESS } else { ExitCode::from(UNREACHABLE) })
}

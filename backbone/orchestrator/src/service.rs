//! `service`: the orchestrator as a service of systemd.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use modchain_orchestrator::config::{self, DATA_DIR};
use modchain_service::machine::{self, Then};
use modchain_service::unit::{Needs, Unit, config_dir};
use serde_json::json;

use crate::Output;

/// The unit's name, and the usual user's.
const NAME: &str = "modchain-orchestrator";

/// Longest stop: goodbyes, and what was accepted is committed. Killing it then loses nothing that was acknowledged.
const STOP_MAX: Duration = Duration::from_secs(30);

/// It is not running.
const NOT_RUNNING: u8 = 5;

#[derive(clap::Subcommand)]
pub(crate) enum Service {
    /// Put the unit in place, enable it, and start it once `init` has made its data. Can be repeated
    #[command(after_help = "Examples:\n  sudo modchain-orchestrator service install\n  \
                            modchain-orchestrator service install --dry-run")]
    Install(Install),
    /// Stop the service and remove its unit. The data, with everybody's money, stays
    Uninstall {
        /// How to print it
        #[arg(short, long, value_enum, default_value_t = Output::Human)]
        output: Output,
    },
    /// Show how systemd sees the service
    #[command(after_help = "Exit codes: 0 it runs; 5 it does not")]
    Status {
        /// How to print it
        #[arg(short, long, value_enum, default_value_t = Output::Human)]
        output: Output,
    },
}

#[derive(clap::Args)]
pub(crate) struct Install {
    /// Whom it runs as; made if there is no such user
    #[arg(long, value_name = "NAME", default_value = NAME)]
    user: String,
    /// Settings, TOML [default: /etc/modchain/orchestrator.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory [default: what the settings say, else /var/lib/modchain/orchestrator]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print the unit and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn service(service: Service) -> anyhow::Result<ExitCode> {
    match service {
        Service::Install(arguments) => install(&arguments)?,
        Service::Uninstall { output } => uninstall(output)?,
        Service::Status { output } => return status(output),
    }
    Ok(ExitCode::SUCCESS)
}

fn install(arguments: &Install) -> anyhow::Result<()> {
    let unit = unit(arguments)?;
    if arguments.dry_run {
        print!("{}", unit.text());
        return Ok(());
    }
    machine::check(&unit)?;
    let has_journal = has_journal(&unit.data);
    let then = if has_journal { Then::Start } else { Then::EnableOnly };
    let installed = machine::install(&unit, then)?;
    println!("installed {}", installed.file.display());
    if installed.user_made {
        println!("made the user {}", unit.user);
    }
    println!("data in {}, which belongs to {}", unit.data.display(), unit.user);
    match (has_journal, installed.ran_already) {
        (true, true) => println!("it runs; what has changed counts from the next start on: systemctl restart {NAME}"),
        (true, false) => println!("it runs: {NAME} service status"),
        (false, _) => {
            let (data, user) = (unit.data.display(), &unit.user);
            println!("next: sudo -u {user} {NAME} init --data {data} --name lab && sudo systemctl start {NAME}");
        }
    }
    Ok(())
}

fn unit(arguments: &Install) -> anyhow::Result<Unit> {
    let file = config::read_file(arguments.config.as_deref())?;
    let data = arguments.data.clone().or(file.data).unwrap_or_else(|| DATA_DIR.into());
    let mut start = vec!["serve".to_owned()];
    if let Some(file) = &arguments.config {
        ensure!(file.is_absolute(), "{} must be named from the root on", file.display());
        start.extend(["--config".to_owned(), file.display().to_string()]);
    }
    if let Some(data) = &arguments.data {
        start.extend(["--data".to_owned(), data.display().to_string()]);
    }
    Ok(Unit {
        name: NAME,
        description: "Modchain orchestrator: runs a compute pool",
        program: std::env::current_exe().context("this program's own file cannot be found")?,
        start,
        reload: None,
        before_stop: None,
        stop_max: STOP_MAX,
        user: arguments.user.clone(),
        groups: Vec::new(),
        data,
        after: Vec::new(),
        needs: Needs::Nothing,
    })
}

/// Whether `init` was there. For root, who may look everywhere.
fn has_journal(data: &Path) -> bool {
    modchain_orchestrator::engine::journal_dir(data).exists()
}

fn uninstall(output: Output) -> anyhow::Result<()> {
    let shown = machine::show(NAME)?;
    let was_there = machine::uninstall(NAME)?;
    match output {
        Output::Json => println!("{}", json!({ "schema": "modchain.service/v1", "name": NAME, "removed": was_there })),
        Output::Human if was_there => {
            println!("removed {NAME}.service");
            println!("kept: the data, the settings in {}, the user {}", config_dir().display(), shown.user());
        }
        Output::Human => println!("there was no {NAME}.service"),
    }
    Ok(())
}

fn status(output: Output) -> anyhow::Result<ExitCode> {
    let shown = machine::show(NAME)?;
    match output {
        Output::Json => println!("{}", shown.document(NAME)),
        Output::Human => print!("{}", shown.text(NAME)),
    }
    Ok(if shown.is_active() { ExitCode::SUCCESS } else { ExitCode::from(NOT_RUNNING) })
}

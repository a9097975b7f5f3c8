//! The other two programs: they lie beside this one and must be of the same version.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;

use crate::exit::Failure;

/// Longest time for a program to tell its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the programs are.
#[derive(Debug, Clone)]
pub(crate) struct Siblings {
    pub(crate) orchestrator: PathBuf,
    pub(crate) agent: PathBuf,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    wire: u8,
}

impl Siblings {
    /// Finds both and asks them for their versions.
    pub(crate) async fn find() -> Result<Self, Failure> {
        let own = std::env::current_exe()
            .and_then(|path| path.canonicalize())
            .map_err(|error| Failure::failed(format!("cannot find this program's own file: {error}")))?;
        let folder = own.parent().unwrap_or(Path::new("/"));
        let siblings =
            Self { orchestrator: folder.join("modchain-orchestrator"), agent: folder.join("modchain-agent") };
        let (orchestrator, agent) = tokio::join!(check(&siblings.orchestrator), check(&siblings.agent));
        orchestrator.and(agent)?;
        Ok(siblings)
    }
}

async fn check(program: &Path) -> Result<(), Failure> {
    let shown = program.display();
    if !program.is_file() {
        return Err(Failure::failed(format!(
            "{shown} is not there: the local stack needs all three programs in one folder"
        ))
        .hint("cargo build --release --workspace"));
    }
    let asked = Command::new(program)
        .args(["version", "-o", "json"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(VERSION_TIMEOUT, asked)
        .await
        .map_err(|_| Failure::failed(format!("{shown} does not tell its version")))?
        .map_err(|error| Failure::failed(format!("cannot start {shown}: {error}")))?;
    let version: Version = serde_json::from_slice(&output.stdout).map_err(|_| {
        Failure::failed(format!("{shown} does not tell its version")).hint("build all programs together")
    })?;
    let (own, wire) = (env!("CARGO_PKG_VERSION"), modchain_wire::WIRE_VERSION);
    if version.version != own || version.wire != wire {
        let (other, other_wire) = (version.version, version.wire);
        return Err(Failure::failed(format!(
            "{shown} is version {other} (wire {other_wire}), this program is {own} (wire {wire})"
        ))
        .hint("cargo build --release --workspace"));
    }
    Ok(())
}

//! `init`: writes the owner's file.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use modchain_agent::config::{default_file, example};

use crate::failure::{CONFLICT, Failure};

/// Everybody may read it: the service's user must, and there is nothing secret in it.
const MODE: u32 = 0o644;

#[derive(Debug, clap::Args)]
pub(crate) struct Init {
    /// Where to write it [default: /etc/modchain/agent.toml for root, else $XDG_CONFIG_HOME/modchain/agent.toml]
    #[arg(long, env = "MODCHAIN_AGENT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write it anew though there is one
    #[arg(long)]
    force: bool,
}

pub(crate) fn init(arguments: Init) -> Result<(), Failure> {
    let Init { config, force } = arguments;
    let path = config
        .or_else(default_file)
        .ok_or_else(|| Failure::from(anyhow!("HOME is not set: say where to write it with --config FILE")))?;
    let shown = path.display();
    match write(&path, force) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(Failure::new("exists", CONFLICT, format!("{shown} is there already"))
                .hint("edit it, or write it anew with --force"));
        }
        Err(error) => return Err(Failure::from(anyhow!(error).context(format!("failed to write {shown}")))),
    }
    println!("wrote {shown}");
    println!(
        "next: set your prices in it, then `modchain-agent info` shows what follows; a running agent takes it up with"
    );
    println!("      `modchain-agent reload`");
    Ok(())
}

/// Writes the file unless there is one, for `service install`; tells whether it did.
pub(crate) fn ensure(path: &Path) -> anyhow::Result<bool> {
    match write(path, false) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).with_context(|| format!("failed to write {}", path.display())),
    }
}

fn write(path: &Path, force: bool) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.write(true);
    match force {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    let mut file = options.open(path)?;
    file.write_all(example().as_bytes())?;
    file.set_permissions(Permissions::from_mode(MODE))
}

//! Puts a unit in place on this machine, and takes it away again. Everything is asked of systemd's own programs.
//!
//! Installing can be repeated: it writes the unit anew, and gives the data to the user it runs as, so that what `root` made
//! there meanwhile can be read. Uninstalling never touches data: it is somebody's identity, results or money.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use crate::unit::{Unit, is_hidden_from_services};

/// Where an administrator's units are.
const UNITS: &str = "/etc/systemd/system";

/// Properties that tell how a service is.
const PROPERTIES: &str = "LoadState,UnitFileState,ActiveState,SubState,Result,MainPID,NRestarts,StatusText,\
                          ActiveEnterTimestamp,WatchdogUSec,FragmentPath,User";

/// What to do once the unit is in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Start it now and at every boot.
    Start,
    /// Start it at every boot; not now, because something is still missing.
    EnableOnly,
}

/// What became of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The unit's file.
    pub file: PathBuf,
    /// Whether the user had to be made.
    pub user_made: bool,
    /// Whether it ran already, with the unit as it was before.
    pub ran_already: bool,
}

/// Installs the unit. For root, on a machine that systemd runs; [`check`] comes first.
pub fn install(unit: &Unit, then: Then) -> anyhow::Result<Installed> {
    let user_made = ensure_user(unit)?;
    give_data(unit)?;
    let file = Path::new(UNITS).join(unit.file_name());
    let ran_already = show(unit.name)?.is_active();
    write(&file, &unit.text()).with_context(|| format!("failed to write {}", file.display()))?;
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", unit.name])?;
    match then {
        Then::Start => systemctl(&["start", unit.name])?,
        Then::EnableOnly => {}
    }
    Ok(Installed { file, user_made, ran_already })
}

/// Stops the service, which ends or moves what it runs, and removes its unit. Tells whether there was one.
pub fn uninstall(name: &str) -> anyhow::Result<bool> {
    check_machine()?;
    let file = Path::new(UNITS).join(format!("{name}.service"));
    let was_there = file.exists();
    if was_there {
        systemctl(&["disable", "--now", name])?;
        fs::remove_file(&file).with_context(|| format!("failed to remove {}", file.display()))?;
    }
    let changes = Path::new(UNITS).join(format!("{name}.service.d"));
    if changes.exists() {
        fs::remove_dir_all(&changes).with_context(|| format!("failed to remove {}", changes.display()))?;
    }
    systemctl(&["daemon-reload"])?;
    // A service that never failed has nothing to forget.
    let _ = systemctl(&["reset-failed", name]);
    Ok(was_there)
}

/// How a service is, as systemd sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shown {
    properties: Vec<(String, String)>,
}

impl Shown {
    /// A property of `systemctl show`; empty where it is not told.
    pub fn get(&self, name: &str) -> &str {
        self.properties.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// Whether there is such a unit.
    pub fn is_installed(&self) -> bool {
        self.get("LoadState") == "loaded"
    }

    /// Whether it runs.
    pub fn is_active(&self) -> bool {
        matches!(self.get("ActiveState"), "active" | "reloading" | "deactivating")
    }

    /// Whom it runs as.
    pub fn user(&self) -> &str {
        self.get("User")
    }

    /// `modchain.service/v1`.
    pub fn document(&self, name: &str) -> serde_json::Value {
        let number = |name: &str| self.get(name).parse::<u64>().ok();
        serde_json::json!({
            "schema": "modchain.service/v1",
            "name": name,
            "installed": self.is_installed(),
            "active": self.is_active(),
            "state": format!("{}/{}", self.get("ActiveState"), self.get("SubState")),
            "enabled": self.get("UnitFileState") == "enabled",
            "result": self.get("Result"),
            "pid": number("MainPID").filter(|pid| *pid != 0),
            "restarts": number("NRestarts"),
            "status": self.get("StatusText"),
            "since": self.get("ActiveEnterTimestamp"),
            "watchdog": self.get("WatchdogUSec"),
            "file": self.get("FragmentPath"),
            "user": self.user(),
        })
    }

    /// The same for people.
    pub fn text(&self, name: &str) -> String {
        if !self.is_installed() {
            return format!("{name}.service is not installed: sudo {name} service install\n");
        }
        let rows = [
            ("service", format!("{name}, {}, {}", self.get("FragmentPath"), self.get("UnitFileState"))),
            (
                "state",
                format!(
                    "{} ({}), since {}",
                    self.get("ActiveState"),
                    self.get("SubState"),
                    self.get("ActiveEnterTimestamp")
                ),
            ),
            ("process", format!("{}, user {}, {} restarts", self.get("MainPID"), self.user(), self.get("NRestarts"))),
            ("watchdog", self.get("WatchdogUSec").to_owned()),
            ("says", self.get("StatusText").to_owned()),
        ];
        rows.iter().map(|(name, value)| format!("{name:<13} {value}\n")).collect()
    }

    fn read(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Self { properties: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect() }
    }
}

/// Asks systemd how the service is.
pub fn show(name: &str) -> anyhow::Result<Shown> {
    ensure!(is_booted(), "systemd does not run this machine");
    let output = Command::new("systemctl")
        .args(["show", name, "--property", PROPERTIES])
        .stdin(Stdio::null())
        .output()
        .context("failed to run systemctl")?;
    ensure!(output.status.success(), "systemctl show: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(Shown::read(&String::from_utf8_lossy(&output.stdout)))
}

/// Refuses what would make the service fail for sure, before anything is changed.
pub fn check(unit: &Unit) -> anyhow::Result<()> {
    check_machine()?;
    let program = unit.program.display();
    if is_hidden_from_services(&unit.program) {
        bail!(
            "{program} is where services cannot see it; put it elsewhere first: install -m 755 {program} \
             /usr/local/bin/, and run it from there"
        );
    }
    let data = unit.data.display();
    ensure!(unit.data.is_absolute(), "the data folder {data} must be named from the root on");
    ensure!(
        !is_hidden_from_services(&unit.data),
        "services cannot see {data}; keep the data elsewhere, such as in /srv"
    );
    ensure!(
        may_be_given(&unit.data)?,
        "{data} is in use and others may enter it, so it is not this service's alone: name an empty folder, or one of mode \
         0700"
    );
    Ok(())
}

fn check_machine() -> anyhow::Result<()> {
    ensure!(is_booted(), "systemd does not run this machine; --dry-run prints the unit");
    ensure!(rustix::process::geteuid().is_root(), "only root installs and removes services: use sudo");
    Ok(())
}

fn is_booted() -> bool {
    sd_notify::booted().unwrap_or(false)
}

/// Whether giving the folder to the service takes it from nobody: a folder that is named by mistake, such as /srv, is left
/// alone.
fn may_be_given(data: &Path) -> anyhow::Result<bool> {
    let looked = || format!("failed to look at {}", data.display());
    match fs::metadata(data) {
        Ok(metadata) if metadata.permissions().mode() & 0o077 == 0 => Ok(metadata.is_dir()),
        Ok(metadata) => Ok(metadata.is_dir() && fs::read_dir(data).with_context(looked)?.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).with_context(looked),
    }
}

/// Tells whether it had to be made.
fn ensure_user(unit: &Unit) -> anyhow::Result<bool> {
    let Unit { user, name, data, .. } = unit;
    let known = Command::new("id").args(["-u", user]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if known.context("failed to run id")?.success() {
        return Ok(false);
    }
    let line = format!("u {user} - {name} {} /usr/sbin/nologin", data.display());
    run("systemd-sysusers", &["--inline", &line]).with_context(|| format!("failed to make the user {user}"))?;
    Ok(true)
}

/// Makes the data folder, and gives it and all in it to the user: an agent that was joined by root is root's until then.
fn give_data(unit: &Unit) -> anyhow::Result<()> {
    let Unit { user, data, .. } = unit;
    let made = || format!("failed to make {}", data.display());
    if let Some(parent) = data.parent() {
        fs::create_dir_all(parent).with_context(made)?;
    }
    // Folders on the way that both programs share may have been made by root's `init` or `join`, for root alone.
    for shared in unit.shared_folders() {
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).with_context(made)?;
    }
    if !data.exists() {
        DirBuilder::new().mode(0o700).create(data).with_context(made)?;
    }
    fs::set_permissions(data, fs::Permissions::from_mode(0o700)).with_context(made)?;
    // With the user's own group. Links are left alone: they may lead anywhere.
    run("chown", &["-R", "-h", "-P", "--", &format!("{user}:"), &data.to_string_lossy()])
}

/// In one step: systemd never reads half of it.
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    let temporary = file.with_extension("new");
    fs::write(&temporary, text)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o644))?;
    fs::rename(&temporary, file)
}

fn systemctl(arguments: &[&str]) -> anyhow::Result<()> {
    run("systemctl", arguments)
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), said.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_folder_that_is_nobody_elses_is_given_away() {
        let dir = std::env::temp_dir().join(format!("modchain-service-{}", std::process::id()));
        fs::create_dir(&dir).expect("makes");
        let mode = |mode: u32| fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).expect("sets");
        mode(0o755);
        let empty = may_be_given(&dir).expect("looks");
        fs::write(dir.join("somebody's"), "").expect("writes");
        let in_use = may_be_given(&dir).expect("looks");
        mode(0o700);
        let private = may_be_given(&dir).expect("looks");
        let file = may_be_given(&dir.join("somebody's")).expect("looks");
        fs::remove_dir_all(&dir).expect("removes");
        assert_eq!((empty, in_use, private, file), (true, false, true, false));
        assert!(may_be_given(&dir).expect("looks"), "what is not there is nobody's");
    }

    #[test]
    fn what_systemd_shows_is_read_by_name() {
        let shown = Shown::read("LoadState=loaded\nActiveState=active\nStatusText=connected to a=b, 2 attempts\n");
        assert!(shown.is_installed() && shown.is_active());
        assert_eq!((shown.get("StatusText"), shown.get("MainPID")), ("connected to a=b, 2 attempts", ""));
        let missing = Shown::read("LoadState=not-found\nActiveState=inactive\n");
        assert!(!missing.is_installed() && !missing.is_active());
    }
}

//! What a unit says. Everything that both programs share stands here once, with its reason; what differs is in [`Unit`].

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A program that answers for its engine at least this often is alive. Longer than a busy disk makes a sync take.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Longest start: a journal of millions of events is replayed in this time.
const START_MAX: Duration = Duration::from_secs(300);

/// Between the end of a failed run and the next one.
const RESTART_AFTER: Duration = Duration::from_secs(2);

/// Where systemd keeps the state of services.
const STATE_ROOT: &str = "/var/lib";

/// Where systemd keeps the settings of services.
const CONFIG_ROOT: &str = "/etc";

/// One service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// The program's name, which is the unit's and the usual user's too.
    pub name: &'static str,
    /// What it is, in a line.
    pub description: &'static str,
    /// The program.
    pub program: PathBuf,
    /// What starts it.
    pub start: Vec<String>,
    /// What makes it read its settings again, where it can.
    pub reload: Option<Vec<String>>,
    /// What comes before the signal when it is stopped.
    pub before_stop: Option<Vec<String>>,
    /// Longest stop; then it is killed.
    pub stop_max: Duration,
    /// Whom it runs as.
    pub user: String,
    /// What other groups its user is in.
    pub groups: Vec<String>,
    /// Where it keeps its data.
    pub data: PathBuf,
    /// Services that are started before it, if they are there.
    pub after: Vec<&'static str>,
    /// What it needs of the machine.
    pub needs: Needs,
}

/// What a service needs of its machine beyond its data, the network and computing time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// It runs other people's programs: WebAssembly in a child that makes machine code and locks itself in, and it looks at
    /// GPUs.
    Jobs,
}

impl Unit {
    /// Its file's name.
    pub fn file_name(&self) -> String {
        format!("{}.service", self.name)
    }

    /// The folder below systemd's own for state, if the data is there.
    pub fn state_directory(&self) -> Option<&Path> {
        self.data.strip_prefix(STATE_ROOT).ok().filter(|below| !below.as_os_str().is_empty())
    }

    /// The folders between systemd's own for state and the data: nobody's alone.
    pub fn shared_folders(&self) -> Vec<PathBuf> {
        let Some(below) = self.state_directory() else { return Vec::new() };
        let ancestors = below.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
        ancestors.map(|folder| Path::new(STATE_ROOT).join(folder)).collect()
    }

    /// The unit's text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // A `String` takes everything.
        self.write(&mut text).expect("a string has room");
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Self { name, description, user, .. } = self;
        let seconds = |span: Duration| span.as_secs();
        writeln!(out, "# Made by `{name} service install`, which writes it anew: put changes into")?;
        writeln!(out, "# `systemctl edit {name}`.")?;
        writeln!(out, "\n[Unit]\nDescription={description}\nWants=network-online.target")?;
        writeln!(out, "After={}", [&["network-online.target"], self.after.as_slice()].concat().join(" "))?;
        writeln!(out, "# A machine that nobody watches: it is tried again for as long as it takes.")?;
        writeln!(out, "StartLimitIntervalSec=0")?;

        writeln!(out, "\n[Service]\nType=notify\nNotifyAccess=main")?;
        writeln!(out, "ExecStart={}", self.command(&self.start))?;
        // A program that has ended by itself cannot be asked any more, and that is no failure.
        for (key, arguments) in [("ExecReload=", &self.reload), ("ExecStop=-", &self.before_stop)] {
            if let Some(arguments) = arguments {
                writeln!(out, "{key}{}", self.command(arguments))?;
            }
        }
        writeln!(out, "Restart=on-failure\nRestartSec={}", seconds(RESTART_AFTER))?;
        writeln!(out, "TimeoutStartSec={}\nTimeoutStopSec={}", seconds(START_MAX), seconds(self.stop_max))?;
        writeln!(out, "# The engine itself answers; one that hangs is ended at once, and started again.")?;
        writeln!(out, "WatchdogSec={}\nWatchdogSignal=SIGKILL", seconds(WATCHDOG))?;
        writeln!(out, "# The program is asked to end; what it started is killed only if it stays behind.")?;
        writeln!(out, "KillMode=mixed")?;

        writeln!(out, "\nUser={user}")?;
        if !self.groups.is_empty() {
            writeln!(out, "SupplementaryGroups={}", self.groups.join(" "))?;
        }
        match self.state_directory() {
            Some(below) => {
                writeln!(out, "StateDirectory={}\nStateDirectoryMode=0700", escape(&below.to_string_lossy()))?
            }
            None => writeln!(out, "ReadWritePaths={}", quote(&self.data.to_string_lossy()))?,
        }
        writeln!(out, "# Holds no secrets, and belongs to root: the service reads it and cannot change it.")?;
        writeln!(out, "ConfigurationDirectory=modchain\nConfigurationDirectoryMode=0755")?;
        writeln!(out, "UMask=0077")?;

        writeln!(out, "\n# Keys are in its memory, and strangers talk to it: it gets what it needs and no more.")?;
        out.push_str(HARDENING);
        match self.needs {
            Needs::Nothing => out.push_str(HARDENING_WITHOUT_JOBS),
            Needs::Jobs => out.push_str(HARDENING_WITH_JOBS),
        }
        writeln!(out, "\n[Install]\nWantedBy=multi-user.target")
    }

    fn command(&self, arguments: &[String]) -> String {
        let program = quote(&self.program.to_string_lossy());
        std::iter::once(program).chain(arguments.iter().map(|argument| quote(argument))).collect::<Vec<_>>().join(" ")
    }
}

/// For both.
const HARDENING: &str = "\
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
PrivateTmp=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
LimitCORE=0
LimitNOFILE=524288
";

/// For one that runs nobody's programs. No PrivateUsers: it fails where the kernel has no user namespaces, and without any
/// capability there is little to gain.
const HARDENING_WITHOUT_JOBS: &str = "\
SystemCallFilter=~@resources @privileged
SystemCallFilter=prlimit64 setrlimit
MemoryDenyWriteExecute=yes
PrivateDevices=yes
";

/// For one that runs jobs.
const HARDENING_WITH_JOBS: &str = "\
# A child that runs WebAssembly locks itself in, and makes machine code: no MemoryDenyWriteExecute.
SystemCallFilter=landlock_create_ruleset landlock_restrict_self
# PrivateDevices would hide the GPUs: the plain devices and theirs, no others.
DevicePolicy=closed
DeviceAllow=char-nvidia* rw
";

/// A word of a command line or a list, as systemd reads it.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.,:=+@[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("\"{}\"", escape(word).replace('\\', "\\\\").replace('"', "\\\""))
}

/// `%` and `$` have a meaning of their own.
fn escape(text: &str) -> String {
    text.replace('%', "%%").replace('$', "$$")
}

/// Folders that a service does not see under this hardening: a program or data there could not be reached.
pub fn is_hidden_from_services(path: &Path) -> bool {
    ["/home", "/root", "/run/user", "/tmp", "/var/tmp"].iter().any(|hidden| path.starts_with(hidden))
}

/// Where the settings of both programs are.
pub fn config_dir() -> PathBuf {
    Path::new(CONFIG_ROOT).join("modchain")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(data: &str) -> Unit {
        Unit {
            name: "modchain-test",
            description: "A test",
            program: "/bin/true".into(),
            start: vec!["start".into(), "--config".into(), "/etc/a b%.toml".into()],
            reload: None,
            before_stop: Some(vec!["drain".into()]),
            stop_max: Duration::from_secs(90),
            user: "somebody".into(),
            groups: vec!["docker".into()],
            data: data.into(),
            after: vec!["docker.service"],
            needs: Needs::Jobs,
        }
    }

    #[test]
    fn words_are_quoted_as_systemd_reads_them() {
        for (word, quoted) in
            [("--data", "--data"), ("a b", "\"a b\""), ("100%", "\"100%%\""), ("$HOME", "\"$$HOME\""), ("", "\"\"")]
        {
            assert_eq!(quote(word), quoted);
        }
        assert_eq!(quote("a\"\\"), "\"a\\\"\\\\\"");
    }

    #[test]
    fn data_below_systemds_own_folder_is_made_by_it_and_other_data_is_let_through() {
        let usual = unit("/var/lib/modchain/agent").text();
        assert!(usual.contains("\nStateDirectory=modchain/agent\n") && !usual.contains("ReadWritePaths"), "{usual}");
        assert_eq!(unit("/var/lib/modchain/agent").shared_folders(), [Path::new("/var/lib/modchain")]);
        assert!(unit("/var/lib/agent").shared_folders().is_empty() && unit("/srv/a/b").shared_folders().is_empty());
        let elsewhere = unit("/srv/my pool").text();
        assert!(elsewhere.contains("\nReadWritePaths=\"/srv/my pool\"\n"), "{elsewhere}");
        assert!(!elsewhere.contains("StateDirectory"), "{elsewhere}");
        assert!(usual.contains("ExecStart=/bin/true start --config \"/etc/a b%%.toml\"\n"), "{usual}");
        assert!(usual.contains("After=network-online.target docker.service\n"), "{usual}");
    }

    #[test]
    fn jobs_are_allowed_machine_code_and_devices_of_gpus_and_nothing_else_is() {
        let jobs = unit("/srv/a").text();
        assert!(jobs.contains("DeviceAllow=char-nvidia*") && !jobs.contains("PrivateDevices=yes"), "{jobs}");
        assert!(!jobs.contains("MemoryDenyWriteExecute=yes"), "{jobs}");
        let none = Unit { needs: Needs::Nothing, ..unit("/srv/a") }.text();
        assert!(none.contains("PrivateDevices=yes") && none.contains("MemoryDenyWriteExecute=yes"), "{none}");
    }

    #[test]
    fn homes_and_temporary_folders_are_not_for_services() {
        for (path, hidden) in [
            ("/home/me/agent", true),
            ("/root/x", true),
            ("/tmp/x", true),
            ("/usr/local/bin/x", false),
            ("/homes", false),
        ] {
            assert_eq!(is_hidden_from_services(Path::new(path)), hidden, "{path}");
        }
    }
}

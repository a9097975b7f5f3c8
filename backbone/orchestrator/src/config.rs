//! Settings of `serve`: flag, then environment, then file, then default.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use modchain_core::scheduler::queue::Ceilings;
use modchain_types::Span;
use serde::Deserialize;

use crate::retention::{Keep, KeepJobs};

/// Where the settings' file is looked for when none is named. It may be missing.
pub const CONFIG_FILE: &str = "/etc/modchain/orchestrator.toml";
/// Where the data is when nobody says otherwise.
pub const DATA_DIR: &str = "/var/lib/modchain/orchestrator";
/// Port for agents and consoles, UDP. Joining has the next one.
pub const PORT: u16 = 7443;
/// Longest name of a host (RFC 1035).
const HOST_CHARS_MAX: usize = 253;
/// Life of the certificates of those who join.
pub const CERT_LIFE: Span = Span::from_secs(24 * 3600);
/// Shortest life that can be set: for trying renewal out, not for use.
pub const CERT_LIFE_MIN: Span = Span::from_secs(10);
/// Longest life that can be set.
pub const CERT_LIFE_MAX: Span = Span::from_secs(90 * 24 * 3600);
/// What a priority can be.
const PRIORITIES: std::ops::RangeInclusive<i8> = -100..=100;

/// The settings' file. Unknown keys are errors: a key that is misspelt must not be a setting that is silently not made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSettings {
    /// The data directory.
    pub data: Option<PathBuf>,
    /// Address to listen on.
    pub listen: Option<SocketAddr>,
    /// Address for joining.
    pub join_listen: Option<SocketAddr>,
    /// Host that joiners are told for the main port.
    pub advertise: Option<String>,
    /// Life of the certificates of those who join, such as `24h`.
    pub cert_life: Option<String>,
    /// Mebibytes that are kept free: with less nothing new is taken.
    pub storage_low_mib: Option<u64>,
    /// Mebibytes of the ballast, which is given up when the disk is full.
    pub ballast_mib: Option<u64>,
    /// How far priorities count against other accounts, for accounts that are not named below.
    pub priority_ceiling: Option<i8>,
    /// How far they do for these accounts.
    #[serde(default)]
    pub priority_ceilings: BTreeMap<String, i8>,
    /// How long output of ended jobs is kept, such as `7d`.
    pub keep_output_for: Option<String>,
    /// Mebibytes of it that are kept together.
    pub keep_output_mib: Option<u64>,
    /// How long records of ended jobs are kept, such as `90d`.
    pub keep_jobs_for: Option<String>,
    /// How many of them are kept.
    pub keep_jobs: Option<usize>,
    /// Filter of the log.
    pub log: Option<String>,
}

/// What `serve` runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The data directory.
    pub data: PathBuf,
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Address for joining; port 0 takes a free one.
    pub join_listen: SocketAddr,
    /// Host that joiners are told for the main port; the one that they joined at if `None`.
    pub advertise: Option<String>,
    /// Life of the certificates of those who join.
    pub cert_life: Span,
    /// Bytes that are kept free: with less nothing new is taken. By the size of the disk if `None`.
    pub storage_low: Option<u64>,
    /// Bytes of the ballast, which is given up when the disk is full. By the size of the disk if `None`.
    pub ballast: Option<u64>,
    /// How far priorities count against other accounts.
    pub ceilings: Ceilings,
    /// How much of ended jobs is kept.
    pub keep: Keep,
    /// Filter of the log.
    pub log: Option<String>,
}

/// What flags and environment say. It goes before the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The data directory.
    pub data: Option<PathBuf>,
    /// Address to listen on.
    pub listen: Option<SocketAddr>,
    /// Address for joining.
    pub join_listen: Option<SocketAddr>,
    /// Host that joiners are told for the main port.
    pub advertise: Option<String>,
    /// Life of the certificates of those who join.
    pub cert_life: Option<Span>,
}

/// Reads the settings' file: the one that is named, which must exist, or else [`CONFIG_FILE`], if it does.
pub fn read_file(named: Option<&Path>) -> anyhow::Result<FileSettings> {
    let path = named.unwrap_or(Path::new(CONFIG_FILE));
    let text = match fs::read_to_string(path) {
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => return Ok(FileSettings::default()),
        text => text.with_context(|| format!("the settings {} cannot be read", path.display()))?,
    };
    // The parser's message shows the line.
    toml::from_str(&text).with_context(|| format!("the settings {} make no sense", path.display()))
}

impl Settings {
    /// What flags and environment say goes before the file, the file before the defaults.
    pub fn resolve(overrides: Overrides, file: FileSettings) -> anyhow::Result<Self> {
        let Overrides { data, listen, join_listen, advertise, cert_life } = overrides;
        let everywhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT);
        let listen = listen.or(file.listen).unwrap_or(everywhere);
        let join_listen = match join_listen.or(file.join_listen) {
            Some(address) => address,
            None => SocketAddr::new(listen.ip(), next_port(listen.port())?),
        };
        ensure!(
            listen != join_listen || listen.port() == 0,
            "agents and joiners cannot both have {listen}: give --join-listen another port"
        );
        let advertise = advertise.or(file.advertise);
        advertise.as_deref().map(check_host).transpose()?;
        let cert_life = match (cert_life, &file.cert_life) {
            (Some(life), _) => life,
            (None, Some(text)) => modchain_types::time::parse_span(text).context("cert_life")?,
            (None, None) => CERT_LIFE,
        };
        ensure!(
            (CERT_LIFE_MIN..=CERT_LIFE_MAX).contains(&cert_life),
            "certificates may live from {CERT_LIFE_MIN} to {CERT_LIFE_MAX}, not {cert_life}"
        );
        let age = file.keep_output_for.as_deref().map_or(Ok(Keep::AGE), modchain_types::time::parse_span);
        let age = age.context("keep_output_for")?;
        ensure!(age >= Keep::AGE_MIN, "output is kept for {} at least, not {age}", Keep::AGE_MIN);
        let bytes = file.keep_output_mib.map(mib).transpose().context("keep_output_mib")?;
        let jobs_age = file.keep_jobs_for.as_deref().map_or(Ok(KeepJobs::AGE), modchain_types::time::parse_span);
        let jobs_age = jobs_age.context("keep_jobs_for")?;
        let least = KeepJobs::AGE_MIN;
        ensure!(jobs_age >= least, "records of jobs are kept for {least} at least, not {jobs_age}");
        let count = file.keep_jobs.unwrap_or(KeepJobs::COUNT);
        let jobs = KeepJobs { age: jobs_age, count, ..KeepJobs::USUAL };
        let keep = Keep { age, bytes, jobs, ..Keep::default() };
        Ok(Self {
            data: data.or(file.data).unwrap_or_else(|| DATA_DIR.into()),
            listen,
            join_listen,
            advertise,
            cert_life,
            storage_low: file.storage_low_mib.map(mib).transpose().context("storage_low_mib")?,
            ballast: file.ballast_mib.map(mib).transpose().context("ballast_mib")?,
            ceilings: ceilings(file.priority_ceiling, &file.priority_ceilings)?,
            keep,
            log: file.log,
        })
    }
}

fn ceilings(default: Option<i8>, accounts: &BTreeMap<String, i8>) -> anyhow::Result<Ceilings> {
    let default = default.unwrap_or_default();
    let (least, most) = PRIORITIES.into_inner();
    for ceiling in accounts.values().chain([&default]) {
        ensure!(PRIORITIES.contains(ceiling), "priorities go from {least} to {most}: none can be {ceiling}");
    }
    let read = |(account, ceiling): (&String, &i8)| {
        Ok((account.parse().with_context(|| format!("priority_ceilings: `{account}` is no account"))?, *ceiling))
    };
    Ok(Ceilings { default, accounts: accounts.iter().map(read).collect::<anyhow::Result<_>>()? })
}

/// Mebibytes in bytes.
fn mib(mib: u64) -> anyhow::Result<u64> {
    mib.checked_mul(1 << 20).with_context(|| format!("{mib} MiB are more than any disk has"))
}

/// Members put a port behind it, so it must be a host and nothing else.
fn check_host(host: &str) -> anyhow::Result<()> {
    let is_name = |host: &str| {
        let is_label = |label: &str| !label.is_empty() && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
        host.len() <= HOST_CHARS_MAX && host.strip_suffix('.').unwrap_or(host).split('.').all(is_label)
    };
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_ipv6 = inner.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok());
    ensure!(
        is_name(host) || is_ipv6,
        "`{host}` cannot be advertised: give a host name or an address alone, IPv6 in brackets, without a port"
    );
    Ok(())
}

/// A free main port has a free join port beside it.
fn next_port(port: u16) -> anyhow::Result<u16> {
    match port {
        0 => Ok(0),
        port => port.checked_add(1).context("there is no port after 65535 for joining: give --join-listen"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_go_before_the_file_and_the_file_before_defaults() {
        let listen: SocketAddr = "127.0.0.1:1".parse().expect("address");
        let file: FileSettings = toml::from_str("data = '/d'\nlisten = '127.0.0.1:2'").expect("settings");
        let resolve = |overrides, file: &FileSettings| Settings::resolve(overrides, file.clone()).expect("settings");
        let overrides = Overrides { listen: Some(listen), ..Overrides::default() };
        assert_eq!(resolve(overrides, &file).listen, listen);
        let settings = resolve(Overrides::default(), &file);
        assert_eq!((settings.listen.port(), settings.join_listen.port(), settings.data), (2, 3, "/d".into()));
        let settings = resolve(Overrides::default(), &FileSettings::default());
        assert_eq!((settings.listen.port(), settings.join_listen.port()), (PORT, PORT + 1));
        assert_eq!(settings.cert_life, CERT_LIFE);
    }

    #[test]
    fn lives_of_certificates_and_ports_keep_within_their_bounds() {
        for (text, fits) in [("10s", true), ("24h", true), ("9s", false), ("91d", false)] {
            let file = FileSettings { cert_life: Some(text.into()), ..FileSettings::default() };
            assert_eq!(Settings::resolve(Overrides::default(), file).is_ok(), fits, "{text}");
        }
        for (listen, join) in [("127.0.0.1:0", Some(0)), ("127.0.0.1:65535", None)] {
            let overrides = Overrides { listen: Some(listen.parse().expect("address")), ..Overrides::default() };
            let settings = Settings::resolve(overrides, FileSettings::default());
            assert_eq!(settings.ok().map(|settings| settings.join_listen.port()), join, "{listen}");
        }
    }

    #[test]
    fn priorities_count_as_far_as_the_file_says() {
        let read = |text: &str| {
            let file: FileSettings = toml::from_str(text).expect("settings");
            Settings::resolve(Overrides::default(), file).map(|settings| settings.ceilings)
        };
        let count =
            |text: &str, account: &str| read(text).expect("fits").counts_as(&account.parse().expect("an account"), 70);
        assert_eq!(count("", "alice"), 0);
        let some = "priority_ceiling = -5\n[priority_ceilings]\nalice = 50";
        assert_eq!((count(some, "alice"), count(some, "bob")), (50, -5));
        for bad in
            ["priority_ceiling = 101", "priority_ceilings = { alice = -101 }", "priority_ceilings = { 'A b' = 1 }"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_two_ports_differ_and_what_is_advertised_is_a_host_alone() {
        let file = FileSettings { listen: "127.0.0.1:1".parse().ok(), ..FileSettings::default() };
        let overrides = Overrides { join_listen: file.listen, ..Overrides::default() };
        let error = Settings::resolve(overrides, file).expect_err("one port").to_string();
        assert!(error.contains("--join-listen"), "{error}");
        for (host, fits) in [
            ("pool.example", true),
            ("pool.example.", true),
            ("192.0.2.1", true),
            ("[2001:db8::1]", true),
            ("2001:db8::1", false),
            ("pool.example:7443", false),
            ("[2001:db8::1]:7443", false),
            ("https://pool.example", false),
            ("pool example", false),
            ("", false),
            (".", false),
        ] {
            let overrides = Overrides { advertise: Some(host.into()), ..Overrides::default() };
            let settings = Settings::resolve(overrides, FileSettings::default());
            assert_eq!(settings.is_ok(), fits, "{host}: {settings:?}");
        }
    }

    #[test]
    fn what_is_kept_of_ended_jobs_is_said_by_the_file_within_bounds() {
        let read = |text: &str| {
            let file: FileSettings = toml::from_str(text).expect("settings");
            Settings::resolve(Overrides::default(), file).map(|settings| settings.keep)
        };
        assert_eq!(read("").expect("defaults"), Keep::default());
        let keep =
            read("keep_output_for = '2d'\nkeep_output_mib = 3\nkeep_jobs_for = '1s'\nkeep_jobs = 0").expect("fits");
        let day = Span::from_secs(24 * 3600);
        assert_eq!((keep.age, keep.bytes), (Span(2 * day.0), Some(3 << 20)));
        assert_eq!((keep.jobs.age, keep.jobs.count, keep.jobs.fresh), (Span::from_secs(1), 0, KeepJobs::USUAL.fresh));
        assert_eq!(KeepJobs::AGE, Span(90 * day.0));
        for bad in ["keep_output_for = '999ms'", "keep_jobs_for = '999ms'", "keep_jobs_for = 'long'"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_its_line() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("orchestrator.toml");
        fs::write(&path, "data = '/d'\nlisen = '127.0.0.1:2'\n").expect("writes");
        let error = format!("{:#}", read_file(Some(&path)).expect_err("unknown key"));
        assert!(error.contains("line 2") && error.contains("lisen"), "{error}");
        assert!(read_file(Some(&dir.path().join("missing"))).is_err(), "a file that is named must exist");
    }
}

//! Settings of `serve`: flag, then environment, then file, then default.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

/// Where the settings' file is looked for when none is named. It may be missing.
pub const CONFIG_FILE: &str = "/etc/modchain/orchestrator.toml";
/// Where the data is when nobody says otherwise.
pub const DATA_DIR: &str = "/var/lib/modchain/orchestrator";
/// Port for agents and consoles, UDP.
pub const PORT: u16 = 7443;

/// The settings' file. Unknown keys are errors: a key that is misspelt must not be a setting that is silently not made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSettings {
    /// The data directory.
    pub data: Option<PathBuf>,
    /// Address to listen on.
    pub listen: Option<SocketAddr>,
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
    /// Filter of the log.
    pub log: Option<String>,
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
    pub fn resolve(data: Option<PathBuf>, listen: Option<SocketAddr>, file: FileSettings) -> Self {
        let everywhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT);
        Self {
            data: data.or(file.data).unwrap_or_else(|| DATA_DIR.into()),
            listen: listen.or(file.listen).unwrap_or(everywhere),
            log: file.log,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_go_before_the_file_and_the_file_before_defaults() {
        let listen: SocketAddr = "127.0.0.1:1".parse().expect("address");
        let file: FileSettings = toml::from_str("data = '/d'\nlisten = '127.0.0.1:2'").expect("settings");
        assert_eq!(Settings::resolve(None, Some(listen), file.clone()).listen, listen);
        let settings = Settings::resolve(None, None, file);
        assert_eq!((settings.listen.port(), settings.data), (2, "/d".into()));
        assert_eq!(Settings::resolve(None, None, FileSettings::default()).listen.port(), PORT);
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

//! What the program keeps for its user: the configuration file, which only the user writes; the contexts beside it, which
//! `context` and `up` write; and the state directory with the keys of what was submitted.
//!
//! Files that the program writes are replaced as a whole: temporary file, fsync, rename, fsync of the directory.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use etcetera::BaseStrategy;
use modchain_types::Micro;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::args::{ColorWhen, FormatFlag};
use crate::exit::Failure;
use crate::tui::ThemeName;

/// Where everything lies.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// The user's configuration file.
    pub(crate) config: PathBuf,
    /// The contexts, beside it.
    pub(crate) contexts: PathBuf,
    /// State: submit keys, the local stack.
    pub(crate) state: PathBuf,
    /// The identities that `join` made, one folder each.
    pub(crate) identities: PathBuf,
}

impl Paths {
    /// By the XDG rules; `config` is the file of `--config`, if one was named.
    pub(crate) fn find(config: Option<&Path>) -> Result<Self, Failure> {
        let base = etcetera::choose_base_strategy().map_err(|_| {
            Failure::failed("there is no home directory")
                .hint("set HOME, or XDG_CONFIG_HOME, XDG_STATE_HOME and XDG_DATA_HOME")
        })?;
        let config = config.map_or_else(|| base.config_dir().join("modchain/config.toml"), Path::to_owned);
        let state = base.state_dir().unwrap_or_else(|| base.data_dir()).join("modchain");
        let identities = base.data_dir().join("modchain/identities");
        Ok(Self { contexts: config.with_file_name("contexts.toml"), config, state, identities })
    }
}

/// The configuration file. Everything may be left out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// As `--output`.
    pub(crate) output: Option<FormatFlag>,
    /// As `--color`.
    pub(crate) color: Option<ColorWhen>,
    /// As `--utc`.
    pub(crate) utc: bool,
    /// As `--ascii`.
    pub(crate) ascii: bool,
    /// What the console looks like.
    pub(crate) theme: Option<ThemeName>,
    /// As `--max-cost`, for every job that says nothing else.
    #[serde(rename = "max-cost")]
    pub(crate) max_cost: Option<String>,
    /// As `--connect-timeout`.
    #[serde(rename = "connect-timeout")]
    pub(crate) connect_timeout: Option<String>,
    /// The context to use where no flag, variable or `context use` names one.
    pub(crate) context: Option<String>,
}

impl Config {
    /// Reads the file; one that does not exist says nothing.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let Some(text) = read_if_there(path)? else { return Ok(Self::default()) };
        Self::read(&text, path)
    }

    /// The same, and each value has to be a good one, whether it is used or not.
    pub(crate) fn load_whole(path: &Path) -> Result<Self, Failure> {
        let Some(text) = read_if_there(path)? else { return Ok(Self::default()) };
        Self::parse(&text, path)
    }

    fn read(text: &str, path: &Path) -> Result<Self, Failure> {
        toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            Failure::usage(format!("{}:{line}: {}", path.display(), error.message()))
        })
    }

    /// Reads the text of the file at `path`, with what else is looked at only when it is used.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, Failure> {
        let config = Self::read(text, path)?;
        let place = path.display().to_string();
        config.max_cost.as_deref().map(|amount| configured_amount(amount, &place)).transpose()?;
        config.connect_timeout(&place)?;
        Ok(config)
    }

    /// How long to wait for a connection, if `place` says so.
    pub(crate) fn connect_timeout(&self, place: &str) -> Result<Option<Duration>, Failure> {
        let span = self.connect_timeout.as_deref().map(crate::args::parse_span).transpose();
        let span = span.map_err(|why| Failure::usage(format!("{place}: connect-timeout: {why}")))?;
        Ok(span.map(Duration::from))
    }
}

/// The 1-based line of a byte position.
pub(crate) fn line_of(text: &str, position: usize) -> usize {
    text.as_bytes().iter().take(position).filter(|byte| **byte == b'\n').count() + 1
}

/// An orchestrator and an identity, by a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// `HOST:PORT`.
    pub(crate) orchestrator: String,
    /// `HOST:PORT` of the port where others join, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) join: Option<String>,
    /// Folder with `key.pem`, `cert.pem` and `ca.pem`; absolute.
    pub(crate) identity: PathBuf,
    /// As `--max-cost`, for jobs of this context that say nothing else.
    #[serde(rename = "max-cost", default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_cost: Option<String>,
}

/// All contexts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Contexts {
    /// The one to use where none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    /// By name.
    pub(crate) contexts: BTreeMap<String, Context>,
}

impl Contexts {
    /// Reads the file; one that does not exist holds none.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let Some(text) = read_if_there(path)? else { return Ok(Self::default()) };
        toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(&text, span.start));
            Failure::failed(format!("{}:{line}: {}", path.display(), error.message()))
                .hint("correct the file, or delete it and add the contexts again")
        })
    }

    /// Reads, changes and replaces the file while no other process does.
    pub(crate) fn update<T>(path: &Path, change: impl FnOnce(&mut Self) -> Result<T, Failure>) -> Result<T, Failure> {
        let folder = path.parent().unwrap_or(Path::new("."));
        create_private_dir(folder)?;
        let lock_path = path.with_extension("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .with_context(|| format!("cannot open {}", lock_path.display()))?;
        flock(&lock, FlockOperation::LockExclusive).with_context(|| format!("cannot lock {}", lock_path.display()))?;
        let mut contexts = Self::load(path)?;
        let before = contexts.clone();
        let result = change(&mut contexts)?;
        if contexts != before {
            let text = toml::to_string(&contexts).map_err(|error| anyhow!(error))?;
            replace_file(path, text.as_bytes())?;
        }
        Ok(result)
    }

    /// The context of this name, or an error that lists those there are.
    pub(crate) fn get(&self, name: &str) -> Result<&Context, Failure> {
        self.contexts.get(name).ok_or_else(|| {
            let near = nearest(name, self.contexts.keys().map(String::as_str));
            let names: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let failure = Failure::not_found(format!("there is no context `{name}`"));
            match (near, names.is_empty()) {
                (Some(near), _) => failure.hint(format!("did you mean `{near}`?")),
                (None, true) => failure.hint("modchain join, or modchain context add"),
                (None, false) => failure.hint(format!("there are: {}", names.join(", "))),
            }
        })
    }
}

/// The word of `words` that `word` was probably meant to be.
pub(crate) fn nearest<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // As clap: similar enough that a person would agree, not merely the least different.
    const SIMILARITY_MIN: f64 = 0.75;
    words
        .map(|known| (strsim::jaro_winkler(&word.to_lowercase(), known), known))
        .filter(|(similarity, _)| *similarity > SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// An amount from a configuration file.
pub(crate) fn configured_amount(text: &str, place: &str) -> Result<Micro, Failure> {
    crate::args::parse_positive_micro(text).map_err(|why| Failure::usage(format!("max-cost of {place}: {why}")))
}

/// The text of a file; `None` if there is none.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::failed(format!("cannot read {}: {error}", path.display()))),
    }
}

/// Makes a folder and its parents, for this user alone.
pub(crate) fn create_private_dir(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make the folder {}", path.display()))
}

/// Replaces a file as a whole: whoever reads it sees the old or the new one, also after a crash.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display())).inspect_err(|_| {
        // Best effort: the error that matters is the first one.
        let _ = fs::remove_file(&temporary);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(address: &str) -> Context {
        Context { orchestrator: address.into(), join: None, identity: "/id".into(), max_cost: None }
    }

    #[test]
    fn contexts_are_kept_and_read_back() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("deep/contexts.toml");
        Contexts::update(&path, |contexts| {
            contexts.contexts.insert("local".into(), context("h:1"));
            contexts.current = Some("local".into());
            Ok(())
        })
        .expect("writes");
        let contexts = Contexts::load(&path).expect("reads");
        assert_eq!(contexts.get("local").expect("there").orchestrator, "h:1");
        let failure = contexts.get("locla").expect_err("not there");
        assert_eq!((failure.exit, failure.hint.as_deref()), (3, Some("did you mean `local`?")));
        let left: Vec<_> = fs::read_dir(path.parent().expect("parent")).expect("lists").flatten().collect();
        assert_eq!(left.len(), 2, "the file and its lock, no temporary file: {left:?}");
    }

    #[test]
    fn a_change_that_fails_changes_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("contexts.toml");
        let result = Contexts::update(&path, |contexts| {
            contexts.contexts.insert("x".into(), context("h:1"));
            Err::<(), _>(Failure::failed("no"))
        });
        assert!(result.is_err() && !path.exists());
    }

    #[test]
    fn a_bad_configuration_names_file_and_line() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("config.toml");
        fs::write(&path, "utc = true\ncolour = \"never\"\n").expect("writes");
        let failure = Config::load(&path).expect_err("unknown key");
        assert!(failure.message.contains("config.toml:2:") && failure.message.contains("colour"), "{failure}");
        assert_eq!(failure.exit, 2);
    }

    #[test]
    fn any_text_is_a_configuration_or_a_complaint_with_its_line() {
        let folder = crate::fuzz::scratch();
        let (config, contexts) = (folder.path().join("config.toml"), folder.path().join("contexts.toml"));
        let words = ["context", "utc", "output", "=", "[contexts.", "]", "orchestrator", "identity", "\"", "\n"];
        let fuzz = crate::fuzz::target("config").words(&words).longest(4096).executions(10_000);
        // The parser keeps a token for every character in the worst case.
        fuzz.memory(|input| (256 << 10) + 256 * input.len()).run(|input| {
            let mut said = Vec::new();
            for path in [&config, &contexts] {
                fs::write(path, input).expect("writes");
                let loaded =
                    if path == &config { Config::load(path).map(drop) } else { Contexts::load(path).map(drop) };
                said.push(match loaded {
                    Ok(()) => 0,
                    Err(failure) => crate::fuzz::complaint(&failure.message.replace(&path.display().to_string(), "")),
                });
            }
            modchain_fuzz::signature(&said)
        });
    }
}

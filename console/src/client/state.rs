//! The keys of what was submitted, written down before anything is sent: whoever loses the answer can ask again with the
//! same key and gets the same job. Also what `@last` means.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use modchain_types::SubmitKey;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::config::{create_private_dir, replace_file};
use crate::exit::Failure;

/// The file is cut down when it is longer: some thousand submits.
const SUBMITS_BYTES_MAX: u64 = 512 * 1024;
/// Lines that stay when it is cut down.
const SUBMITS_KEPT: usize = 500;

/// One line: a key before it is sent (without a job), or what became of it.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    at: String,
    context: String,
    key: String,
    job: Option<String>,
}

/// The list of submits.
#[derive(Debug, Clone)]
pub(crate) struct Submits {
    path: PathBuf,
}

impl Submits {
    /// The list in this state directory.
    pub(crate) fn new(state: &Path) -> Self {
        Self { path: state.join("submits.jsonl") }
    }

    /// Remembers a key that is about to be sent (`job` is `None`) or what the orchestrator made of it.
    pub(crate) fn remember(&self, context: &str, key: &SubmitKey, job: Option<&str>) -> anyhow::Result<()> {
        if let Some(folder) = self.path.parent() {
            create_private_dir(folder)?;
        }
        let line = Line {
            at: crate::text::rfc3339(crate::text::wall_now()),
            context: context.into(),
            key: key.to_string(),
            job: job.map(Into::into),
        };
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        let failed = || format!("cannot write {}", self.path.display());
        let mut file =
            OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path).with_context(failed)?;
        file.write_all(text.as_bytes()).with_context(failed)?;
        file.sync_data().with_context(failed)?;
        if file.metadata().with_context(failed)?.len() > SUBMITS_BYTES_MAX {
            self.cut_down()?;
        }
        Ok(())
    }

    /// Another process may append between reading and replacing; its line would be lost, so whoever cannot have the lock
    /// leaves the work to the next one, and appenders are few and short.
    fn cut_down(&self) -> anyhow::Result<()> {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.path.with_extension("lock"))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(());
        }
        let text = fs::read_to_string(&self.path)?;
        let lines: Vec<&str> = text.lines().collect();
        let kept = lines[lines.len().saturating_sub(SUBMITS_KEPT)..].join("\n") + "\n";
        replace_file(&self.path, kept.as_bytes())
    }

    /// The job that was submitted last in this context: what `@last` means.
    pub(crate) fn last(&self, context: &str) -> Result<String, Failure> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Failure::failed(format!("cannot read {}: {error}", self.path.display()))),
        };
        text.lines()
            .rev()
            // A line that was cut by a crash is no line.
            .filter_map(|line| serde_json::from_str::<Line>(line).ok())
            .find_map(|line| line.job.filter(|_| line.context == context))
            .ok_or_else(|| {
                Failure::not_found(format!("@last: no job was submitted from here in the context `{context}`"))
                    .hint("modchain jobs --all")
            })
    }
}

/// A key that nobody has used before: 128 random bits.
pub(crate) fn random_key() -> Result<SubmitKey, Failure> {
    let mut bytes = [0u8; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
            .map_err(|error| Failure::failed(format!("the system gives no random numbers: {error}")))?;
    }
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    text.parse().map_err(|error: modchain_types::id::BadId| Failure::failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_is_the_newest_job_of_the_context_and_a_key_alone_is_none() {
        let folder = tempfile::tempdir().expect("folder");
        let submits = Submits::new(&folder.path().join("state"));
        assert_eq!(submits.last("a").expect_err("none").exit, 3);
        let key: SubmitKey = "k".parse().expect("key");
        submits.remember("a", &key, Some("j-1")).expect("writes");
        submits.remember("b", &key, Some("j-2")).expect("writes");
        submits.remember("a", &key, None).expect("writes");
        OpenOptions::new().append(true).open(&submits.path).expect("opens").write_all(b"{\"at\"").expect("writes");
        assert_eq!(submits.last("a").expect("there"), "j-1");
        assert_eq!(submits.last("b").expect("there"), "j-2");
    }

    #[test]
    fn the_list_is_cut_down_and_keeps_the_newest() {
        let folder = tempfile::tempdir().expect("folder");
        let submits = Submits::new(folder.path());
        let line = r#"{"at":"x","context":"a","key":"k","job":"j-old"}"#.to_owned() + "\n";
        fs::write(&submits.path, line.repeat(12_000)).expect("writes");
        let key: SubmitKey = "k".parse().expect("key");
        submits.remember("a", &key, Some("j-new")).expect("writes");
        assert_eq!(fs::read_to_string(&submits.path).expect("reads").lines().count(), SUBMITS_KEPT);
        assert_eq!(submits.last("a").expect("there"), "j-new");
    }

    #[test]
    fn random_keys_differ() {
        assert_ne!(random_key().expect("key"), random_key().expect("key"));
    }
}

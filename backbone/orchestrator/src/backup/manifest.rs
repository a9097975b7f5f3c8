//! What is in a copy: `backup.jsonl`, a line about the whole, a line for each file, and a line with the digest of all lines before.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail, ensure};
use modchain_types::{Digest, JournalId};
use serde::{Deserialize, Serialize};

use super::folder::Copied;
use crate::store::journal::Place;

/// The file.
pub(super) const FILE: &str = "backup.jsonl";
const SCHEMA: &str = "modchain.backup_files/v1";

/// All files of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) journal: JournalId,
    /// Where the copy's journal ends.
    pub(super) place: Place,
    /// What was missing where it was copied from, in words.
    pub(super) lacking: Vec<String>,
    pub(super) files: BTreeMap<PathBuf, Copied>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    schema: String,
    program: String,
    journal: String,
    events: u64,
    head: String,
    lacking: Vec<String>,
    files: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    path: String,
    bytes: u64,
    blake3: String,
    mode: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    blake3: String,
}

impl Manifest {
    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }

    /// The file's text.
    pub(super) fn encode(&self) -> anyhow::Result<String> {
        let head = Head {
            schema: SCHEMA.to_owned(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            journal: self.journal.to_string(),
            events: self.place.number,
            head: Digest(self.place.hash).to_string(),
            lacking: self.lacking.clone(),
            files: self.files.len(),
        };
        let mut text = serde_json::to_string(&head)? + "\n";
        for (path, file) in &self.files {
            let path = path.to_str().with_context(|| format!("the name {} is not text", path.display()))?.to_owned();
            let (blake3, mode) = (file.digest.to_hex().to_string(), format!("{:04o}", file.mode));
            writeln!(text, "{}", serde_json::to_string(&Line { path, bytes: file.bytes, blake3, mode })?)?;
        }
        let end = End { blake3: blake3::hash(text.as_bytes()).to_hex().to_string() };
        writeln!(text, "{}", serde_json::to_string(&end)?)?;
        Ok(text)
    }

    /// Reads that of a copy.
    pub(super) fn read(copy: &Path) -> anyhow::Result<Self> {
        let path = copy.join(FILE);
        let text = fs::read_to_string(&path).with_context(|| {
            format!("{} cannot be read: is {} a copy made by `backup`?", path.display(), copy.display())
        })?;
        Self::decode(&text).with_context(|| format!("{} does not say what is in the copy", path.display()))
    }

    fn decode(text: &str) -> anyhow::Result<Self> {
        let lines = text.trim_end_matches('\n');
        let (before, end) = lines.rsplit_once('\n').context("it is cut off")?;
        let end: End = serde_json::from_str(end).context("its last line")?;
        let digest = blake3::hash(format!("{before}\n").as_bytes());
        ensure!(digest.to_hex().as_str() == end.blake3, "it is not as it was written: its digest does not match");
        let mut lines = before.lines();
        let head: Head = serde_json::from_str(lines.next().context("it is empty")?).context("its first line")?;
        ensure!(head.schema == SCHEMA, "this program reads {SCHEMA}, not {}", head.schema);
        let mut files = BTreeMap::new();
        for line in lines {
            let Line { path, bytes, blake3, mode } = serde_json::from_str(line)?;
            let path = PathBuf::from(path);
            let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
            ensure!(inside && path.components().next().is_some(), "{} is not a place in a copy", path.display());
            let mode = u32::from_str_radix(&mode, 8).ok().filter(|mode| *mode <= 0o777);
            let Some(mode) = mode else { bail!("{} has no permissions", path.display()) };
            let digest = blake3::Hash::from_hex(&blake3)?;
            files.insert(path, Copied { bytes, digest, mode });
        }
        ensure!(files.len() == head.files, "it names {} files and should name {}", files.len(), head.files);
        let hash = head.head.parse::<Digest>()?.0;
        Ok(Self {
            journal: head.journal.parse()?,
            place: Place { number: head.events, hash },
            lacking: head.lacking,
            files,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let file = Copied { bytes: 3, digest: blake3::hash(b"abc"), mode: 0o400 };
        Manifest {
            journal: JournalId([7; 16]),
            place: Place { number: 12, hash: [9; 32] },
            lacking: vec!["a blob".into()],
            files: BTreeMap::from([(PathBuf::from("ca/key.pem"), file), (PathBuf::from("journal/1.seg"), file)]),
        }
    }

    #[test]
    fn it_reads_back_and_any_change_is_seen() {
        let text = sample().encode().expect("encodes");
        assert_eq!(Manifest::decode(&text).expect("decodes"), sample());
        for at in (0..text.len()).step_by(7) {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(bytes).expect("text");
            assert!(Manifest::decode(&changed).is_err(), "byte {at} of {changed}");
        }
        let lines: Vec<&str> = text.lines().collect();
        for cut in 0..lines.len() {
            assert!(Manifest::decode(&lines[..cut].join("\n")).is_err(), "{cut} lines");
        }
    }

    #[test]
    fn no_file_is_outside_of_the_copy() {
        for path in ["/etc/passwd", "../key", "a/../../key", ""] {
            let mut manifest = sample();
            let file = *manifest.files.values().next().expect("one");
            manifest.files.insert(path.into(), file);
            let text = manifest.encode().expect("encodes");
            assert!(Manifest::decode(&text).is_err(), "{path}");
        }
    }
}

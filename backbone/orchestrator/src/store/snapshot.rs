//! Snapshots: `DATA/snapshots/NUMBER.snap`, the durable state behind an event, so that a start replays what came after it and
//! not everything.
//!
//! The journal stays the truth and is kept whole: a snapshot that is broken, of another journal or of a newer program is passed
//! over with a warning, and the one before it or the journal alone is used. It is written beside the journal and gets its name
//! once it is on disk. The two newest are kept.
//!
//! All numbers are little endian.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | magic `MODCSNAP` |
//! | 4 | format version |
//! | 16 | journal id |
//! | 8 | number of the event that it stands behind |
//! | 32 | the journal's chain there |
//! | 8 + 16 + 8 + 8 | the last start of the engine: moment, boot, clock since that boot, wall clock |
//! | | the state's items |
//! | 32 | BLAKE3 of all before |

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use modchain_core::control::Durable;
use modchain_types::{BootId, JournalId, Span, Timestamp, WallTime};

use super::journal::{Found, Place, WalkError, find};
use super::record;
use crate::clock::{Past, Started};

const MAGIC: &[u8; 8] = b"MODCSNAP";
/// The version that is written.
pub const SNAPSHOT_VERSION: u32 = 2;
const HEAD_BYTES: usize = 108;
const HASH_BYTES: usize = 32;
const SUFFIX: &str = ".snap";
const TEMPORARY_SUFFIX: &str = ".tmp";
/// How many stay: the newest, and the one before in case the newest is damaged.
const KEPT: usize = 2;

/// A state and the place in the journal that it stands at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Of the journal.
    pub journal: JournalId,
    /// Behind the last event that is in the state.
    pub place: Place,
    /// The last start of the engine.
    pub started: Started,
    /// The state.
    pub state: Durable,
}

impl Snapshot {
    /// The file's bytes.
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        let items = record::encode_durable(&self.state).map_err(|error| error.to_string())?;
        let mut bytes = Vec::with_capacity(HEAD_BYTES + items.len() + HASH_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&SNAPSHOT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.journal.0);
        bytes.extend_from_slice(&self.place.number.to_le_bytes());
        bytes.extend_from_slice(&self.place.hash);
        let Started { at, boot, boot_clock, wall } = self.started;
        bytes.extend_from_slice(&at.0.to_le_bytes());
        bytes.extend_from_slice(&boot.0);
        bytes.extend_from_slice(&boot_clock.0.to_le_bytes());
        bytes.extend_from_slice(&wall.0.to_le_bytes());
        bytes.extend_from_slice(&items);
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        Ok(bytes)
    }

    /// From a file's bytes; errors say what is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < HEAD_BYTES + HASH_BYTES {
            return Err(format!("{} bytes are too few", bytes.len()));
        }
        let (bytes, hash) = bytes.split_at(bytes.len() - HASH_BYTES);
        if &bytes[..8] != MAGIC {
            return Err("it is not a snapshot".into());
        }
        let version = u32::from_le_bytes(array(bytes, 8));
        if version != SNAPSHOT_VERSION {
            return Err(format!("its format version is {version}, this program reads {SNAPSHOT_VERSION}"));
        }
        if blake3::hash(bytes).as_bytes() != hash {
            return Err("its checksum does not match".into());
        }
        let place = Place { number: u64::from_le_bytes(array(bytes, 28)), hash: array(bytes, 36) };
        let started = Started {
            at: Timestamp(u64::from_le_bytes(array(bytes, 68))),
            boot: BootId(array(bytes, 76)),
            boot_clock: Span(u64::from_le_bytes(array(bytes, 92))),
            wall: WallTime(i64::from_le_bytes(array(bytes, 100))),
        };
        let state = record::decode_durable(&bytes[HEAD_BYTES..])?;
        if state.number != place.number {
            return Err(format!("its state is of event {}, not {}", state.number, place.number));
        }
        Ok(Self { journal: JournalId(array(bytes, 12)), place, started, state })
    }

    /// What it says about time.
    pub fn past(&self) -> Past {
        Past { started: Some(self.started), last: self.state.at }
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the range has this length")
}

/// The snapshots of a data directory.
#[derive(Debug, Clone)]
pub struct Snapshots {
    dir: PathBuf,
}

/// What a search for a snapshot found.
#[derive(Debug)]
pub enum Newest {
    /// The newest that can be used.
    Use(Box<Snapshot>),
    /// None.
    None,
    /// A good one stands at a later event than the journal's last.
    Lost {
        /// The journal's.
        last: u64,
        /// The snapshot's.
        known: u64,
    },
}

impl Snapshots {
    /// Those in `dir`, which need not exist.
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Where they are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Files with the numbers of the events that they stand behind, newest first.
    pub fn files(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some(number) = name.strip_suffix(SUFFIX).and_then(|digits| digits.parse().ok()) {
                found.push((number, path));
            }
        }
        found.sort_unstable_by(|one, other| other.cmp(one));
        Ok(found)
    }

    /// The newest good snapshot of the journal in `journal_dir`. Blocks.
    pub fn newest(&self, journal: JournalId, journal_dir: &Path) -> Result<Newest, WalkError> {
        let files = self.files().unwrap_or_else(|error| {
            tracing::warn!(%error, "snapshots cannot be looked for");
            Vec::new()
        });
        for (_, path) in files {
            let pass_over = |why: &str| tracing::warn!(snapshot = %path.display(), why, "passing over a snapshot");
            let decoded = fs::read(&path).map_err(|error| error.to_string()).and_then(|bytes| Snapshot::decode(&bytes));
            let snapshot = match decoded {
                Ok(snapshot) if snapshot.journal == journal => snapshot,
                Ok(_) => {
                    pass_over("it is of another journal");
                    continue;
                }
                Err(why) => {
                    pass_over(&why);
                    continue;
                }
            };
            match find(journal_dir, &snapshot.place)? {
                Found::Here => return Ok(Newest::Use(Box::new(snapshot))),
                Found::Elsewhere => pass_over("the journal has other events there"),
                Found::Beyond(last) => return Ok(Newest::Lost { last, known: snapshot.place.number }),
            }
        }
        Ok(Newest::None)
    }

    /// Writes one and removes those that it takes the place of. Blocks.
    pub fn write(&self, snapshot: &Snapshot) -> io::Result<PathBuf> {
        let bytes = snapshot.encode().map_err(io::Error::other)?;
        fs::create_dir_all(&self.dir)?;
        let path = self.dir.join(format!("{:020}{SUFFIX}", snapshot.place.number));
        let temporary = path.with_extension(&TEMPORARY_SUFFIX[1..]);
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&temporary, &path));
        if let Err(error) = written {
            let _ = fs::remove_file(temporary);
            return Err(error);
        }
        for dir in path.ancestors().skip(1).take(2) {
            fs::File::open(dir)?.sync_all()?;
        }
        for (_, old) in self.files()?.into_iter().skip(KEPT) {
            fs::remove_file(old)?;
        }
        Ok(path)
    }

    /// Removes what a crash left half written.
    pub fn remove_temporaries(&self) -> io::Result<()> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(TEMPORARY_SUFFIX) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

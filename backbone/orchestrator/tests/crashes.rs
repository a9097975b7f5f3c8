//! The journal on a disk that loses power: after every operation of a script, and for each way in which what was not synced may
//! have reached the platter or not, the next start finds everything that was acknowledged and nothing by halves.
//!
//! `SCRIPTS=n` runs so many scripts, each with other batches and another size of segments.

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use modchain_core::Event;
use modchain_orchestrator::store::journal::{Disk, Journal, RealDisk};
use modchain_types::Asset;
use support::{JOURNAL, bodies, numbered};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// Operations of a script at least.
const OPERATIONS: usize = 300;

/// One thing that was asked of the disk. Files are known by their inode.
#[derive(Debug, Clone)]
enum Operation {
    Create { file: u64, name: PathBuf },
    Write { file: u64, at: usize, bytes: Vec<u8> },
    Cut { file: u64, length: usize },
    Sync { file: u64 },
    Rename { from: PathBuf, to: PathBuf },
    Remove { name: PathBuf },
    SyncDir,
}

/// A disk that does what it is asked at once, and remembers what that was.
#[derive(Clone, Default)]
struct RecordingDisk {
    done: Arc<Mutex<Vec<Operation>>>,
}

impl RecordingDisk {
    fn note(&self, operation: Operation) {
        self.done.lock().expect("lock").push(operation);
    }

    fn length(&self) -> usize {
        self.done.lock().expect("lock").len()
    }
}

fn inode(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.ino())
}

fn name(path: &Path) -> PathBuf {
    path.file_name().expect("a name").into()
}

impl Disk for RecordingDisk {
    fn write(&mut self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        RealDisk.write(file, bytes, at)?;
        self.note(Operation::Write { file: inode(file)?, at: at as usize, bytes: bytes.to_vec() });
        Ok(())
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        self.note(Operation::Sync { file: inode(file)? });
        Ok(())
    }

    fn prepare(&mut self, file: &File, from: u64, to: u64) -> io::Result<()> {
        self.write(file, &vec![0; (to - from) as usize], from)
    }

    fn create(&mut self, path: &Path) -> io::Result<File> {
        let file = RealDisk.create(path)?;
        self.note(Operation::Create { file: inode(&file)?, name: name(path) });
        Ok(file)
    }

    fn cut(&mut self, file: &File, length: u64) -> io::Result<()> {
        RealDisk.cut(file, length)?;
        self.note(Operation::Cut { file: inode(file)?, length: length as usize });
        Ok(())
    }

    fn sync_all(&mut self, file: &File) -> io::Result<()> {
        self.sync(file)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)?;
        self.note(Operation::Rename { from: name(from), to: name(to) });
        Ok(())
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)?;
        self.note(Operation::Remove { name: name(path) });
        Ok(())
    }

    fn sync_dir(&mut self, _dir: &Path) -> io::Result<()> {
        self.note(Operation::SyncDir);
        Ok(())
    }
}

/// A disk, as far as it survives the loss of power, and what was asked of it since.
#[derive(Debug, Clone, Default)]
struct Platter {
    contents: BTreeMap<u64, Vec<u8>>,
    names: BTreeMap<PathBuf, u64>,
    /// Writes and cuts that are not synced, in order.
    data: Vec<Operation>,
    /// Names that are not synced, in order.
    naming: Vec<Operation>,
}

impl Platter {
    /// A disk with these files, all of it synced.
    fn of(files: &Files) -> Self {
        let mut platter = Self::default();
        for (number, (name, bytes)) in files.iter().enumerate() {
            // No inode is so small that it could be taken for one of these: the first ones are the file system's own.
            platter.contents.insert(number as u64, bytes.clone());
            platter.names.insert(name.clone(), number as u64);
        }
        platter
    }

    fn ask(&mut self, operation: &Operation) {
        match operation {
            Operation::Create { file, .. } => {
                self.contents.insert(*file, Vec::new());
                self.naming.push(operation.clone());
            }
            Operation::Rename { .. } | Operation::Remove { .. } => self.naming.push(operation.clone()),
            Operation::Write { .. } | Operation::Cut { .. } => self.data.push(operation.clone()),
            Operation::Sync { file: synced } => {
                let (now, later) = std::mem::take(&mut self.data).into_iter().partition(|operation| {
                    matches!(operation, Operation::Write { file, .. } | Operation::Cut { file, .. } if file == synced)
                });
                self.data = later;
                let now: Vec<Operation> = now;
                now.iter().for_each(|operation| apply(&mut self.contents, &mut self.names, operation));
            }
            Operation::SyncDir => {
                let naming = std::mem::take(&mut self.naming);
                naming.iter().for_each(|operation| apply(&mut self.contents, &mut self.names, operation));
            }
        }
    }

    /// The files after a loss of power that these of the operations that were not synced had survived.
    fn after(&self, survived: &[Operation]) -> Files {
        let (mut contents, mut names) = (self.contents.clone(), self.names.clone());
        survived.iter().for_each(|operation| apply(&mut contents, &mut names, operation));
        names.into_iter().map(|(name, file)| (name, contents.get(&file).cloned().unwrap_or_default())).collect()
    }

    /// Every way in which power may be lost now, by name: none of what was not synced survives, all of it, all but a torn last
    /// write, or some of it without what came before.
    fn losses(&self) -> Vec<(String, Files)> {
        let all = || self.naming.iter().chain(&self.data).cloned().collect::<Vec<_>>();
        let mut losses = vec![("drop".to_owned(), self.after(&[])), ("keep".to_owned(), self.after(&all()))];
        if self.naming.is_empty() && self.data.is_empty() {
            losses.truncate(1);
            return losses;
        }
        losses.push(("names only".into(), self.after(&self.naming)));
        losses.push(("data only".into(), self.after(&self.data)));
        for skipped in 0..all().len() {
            let mut some = all();
            some.remove(skipped);
            losses.push((format!("reorder: all but {skipped}"), self.after(&some)));
        }
        if let Some(Operation::Write { file, at, bytes }) = self.data.last() {
            let before = || all()[..all().len() - 1].to_vec();
            // Where sectors end in the file, seen from the write's beginning.
            let first = SECTOR - at % SECTOR;
            for end in (first..bytes.len()).step_by(SECTOR).take(TEARS_MAX) {
                let part = |at: usize, bytes: &[u8]| {
                    let part = Operation::Write { file: *file, at, bytes: bytes.to_vec() };
                    self.after(&[before(), vec![part]].concat())
                };
                losses.push((format!("tear at {end}"), part(*at, &bytes[..end])));
                losses.push((format!("reorder: sectors from {end} on"), part(at + end, &bytes[end..])));
            }
        }
        losses
    }
}

/// Tears of one write that are tried: zeros written ahead have many sectors, all alike.
const TEARS_MAX: usize = 8;

/// A directory.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn apply(contents: &mut BTreeMap<u64, Vec<u8>>, names: &mut BTreeMap<PathBuf, u64>, operation: &Operation) {
    match operation {
        Operation::Create { file, name } => {
            names.insert(name.clone(), *file);
        }
        Operation::Rename { from, to } => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        Operation::Remove { name } => {
            names.remove(name);
        }
        Operation::Write { file, at, bytes } => {
            let content = contents.entry(*file).or_default();
            content.resize(content.len().max(at + bytes.len()), 0);
            content[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        Operation::Cut { file, length } => contents.entry(*file).or_default().resize(*length, 0),
        Operation::Sync { .. } | Operation::SyncDir => {}
    }
}

fn write_out(files: &Files) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("directory");
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).expect("writes");
    }
    dir
}

/// A script: batches, one after the other, on segments of a size.
struct Script {
    batches: Vec<Vec<Event>>,
    operations: Vec<Operation>,
    /// For each batch, how many operations had been done when it was acknowledged.
    acknowledged: Vec<usize>,
    segment_bytes_max: u64,
}

impl Script {
    fn run(seed: u64) -> Self {
        let segment_bytes_max = 3_000 + 1_700 * (seed % 7);
        let dir = tempfile::tempdir().expect("directory");
        let disk = RecordingDisk::default();
        Journal::create_with(dir.path(), JOURNAL, Asset::Test, &mut disk.clone()).expect("makes");
        let mut journal =
            Journal::open_with(dir.path(), |_| {}, Box::new(disk.clone()), segment_bytes_max).expect("opens");
        let (mut batches, mut acknowledged, mut state) = (Vec::new(), Vec::new(), seed);
        while disk.length() < OPERATIONS {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let count = 1 + (state >> 33) as usize % 9;
            let skip = (state >> 40) as usize % 20;
            let batch = numbered(journal.last_number() + 1, bodies().into_iter().cycle().skip(skip).take(count));
            journal.append(&batch).expect("appends");
            acknowledged.push(disk.length());
            batches.push(batch);
        }
        let operations = disk.done.lock().expect("lock").clone();
        Self { batches, operations, acknowledged, segment_bytes_max }
    }

    /// A start on these files, on a disk that remembers what it is asked.
    fn start(&self, files: &Files, when: &str) -> (tempfile::TempDir, Journal, Vec<Event>, RecordingDisk) {
        let dir = write_out(files);
        let disk = RecordingDisk::default();
        let mut events = Vec::new();
        let each = |batch: Vec<Event>| events.extend(batch);
        let journal = Journal::open_with(dir.path(), each, Box::new(disk.clone()), self.segment_bytes_max)
            .unwrap_or_else(|error| panic!("{when}: {error}"));
        (dir, journal, events, disk)
    }

    /// Everything acknowledged by then is there, and what is there are whole batches in order, of which at most one was not
    /// acknowledged.
    fn check(&self, events: &[Event], done: usize, when: &str) {
        let sure = self.acknowledged.iter().filter(|at| **at <= done).count();
        let fits = |batches: usize| {
            self.batches.get(..batches).is_some_and(|batches| batches.iter().flatten().eq(events.iter()))
        };
        assert!(fits(sure) || fits(sure + 1), "{when}: {} events for {sure} acknowledged batches", events.len());
    }
}

fn scripts() -> u64 {
    match std::env::var("SCRIPTS") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("SCRIPTS={text} is not a number")),
        Err(_) => 1,
    }
}

#[test]
fn power_lost_after_any_operation_in_any_way_loses_nothing_acknowledged_and_leaves_nothing_by_halves() {
    let (mut points, mut losses_tried, mut starts_cut) = (0, 0, 0);
    for seed in 1..=scripts() {
        let script = Script::run(seed);
        let mut platter = Platter::default();
        let made = script.operations.iter().position(|operation| matches!(operation, Operation::SyncDir));
        let made = made.expect("making a journal ends with that");
        for (done, operation) in script.operations.iter().enumerate() {
            platter.ask(operation);
            if done < made {
                continue; // `init` has not said that there is a journal
            }
            points += 1;
            for (how, files) in platter.losses() {
                losses_tried += 1;
                let when = format!("script {seed}, {how} after operation {done}, {operation:.60?}");
                let (dir, mut journal, events, disk) = script.start(&files, &when);
                script.check(&events, done + 1, &when);

                // It goes on, and what it adds is found behind what was there.
                let batch = numbered(journal.last_number() + 1, bodies().into_iter().take(2));
                journal.append(&batch).unwrap_or_else(|error| panic!("{when}: {error}"));
                drop(journal);
                let mut again = Vec::new();
                Journal::open_with(dir.path(), |batch| again.extend(batch), Box::new(disk.clone()), u64::MAX)
                    .unwrap_or_else(|error| panic!("{when}, goes on: {error}"));
                assert_eq!(again.len(), events.len() + batch.len(), "{when}");

                // Power is lost while the start repairs the end: the start after that finds the same.
                if done % 16 != 0 {
                    continue;
                }
                let (_dir, _journal, _, disk) = script.start(&files, &when);
                let repairs = disk.done.lock().expect("lock").clone();
                for cut in 1..=repairs.len() {
                    // The files are other inodes in this directory, by the same names.
                    let mut repaired = Platter::of(&files);
                    let known = inodes(&files, _dir.path());
                    repairs[..cut].iter().for_each(|operation| repaired.ask(&translate(operation, &known)));
                    for (how_again, files) in repaired.losses() {
                        starts_cut += 1;
                        let when = format!("{when}, then {how_again} after repair {cut}");
                        let (_, _, found, _) = script.start(&files, &when);
                        script.check(&found, done + 1, &when);
                    }
                }
            }
        }
    }
    println!("{points} points, {losses_tried} losses of power and {starts_cut} during a repair: all recovered");
    assert!(points > 250 && losses_tried > 1_000 && starts_cut > 100);
}

/// The number that a file has in `Platter::of`, by its inode in the directory.
fn inodes(files: &Files, dir: &Path) -> BTreeMap<u64, u64> {
    let number = |(number, name): (usize, &PathBuf)| Some((fs::metadata(dir.join(name)).ok()?.ino(), number as u64));
    files.keys().enumerate().filter_map(number).collect()
}

fn translate(operation: &Operation, known: &BTreeMap<u64, u64>) -> Operation {
    let of = |file: &u64| known.get(file).copied().unwrap_or(*file);
    match operation {
        Operation::Write { file, at, bytes } => Operation::Write { file: of(file), at: *at, bytes: bytes.clone() },
        Operation::Cut { file, length } => Operation::Cut { file: of(file), length: *length },
        Operation::Sync { file } => Operation::Sync { file: of(file) },
        other => other.clone(),
    }
}

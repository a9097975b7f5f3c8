//! What ended jobs printed goes by age, by size and for want of room, the oldest first; a crash at any point of it leaves nothing that
//! looks whole.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use modchain_core::control::EndedJob;
use modchain_core::{Control, ControlConfig};
use modchain_orchestrator::retention::{Keep, KeepJobs, Retention};
use modchain_orchestrator::store::output::OutputStore;
use modchain_orchestrator::store::removed;
use modchain_orchestrator::store::space::{BALLAST_FILE, Files, Level, Marks, Room, Short, Space};
use modchain_types::*;
use modchain_wire::agent::OutputStream::Out;

const MIB: u64 = 1 << 20;
/// No room is missing.
const NOTHING: Short = Short { bytes: 0, files: 0 };
/// The last event.
const LAST: u64 = 1_000;

fn job(number: u64) -> JobId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    JobId(id)
}

fn second(number: u64) -> Timestamp {
    Timestamp(number * 1_000_000)
}

/// Job n was ended by event 10 n at second n.
fn control(jobs: u64) -> Control {
    control_at(LAST, jobs)
}

fn control_at(last: u64, jobs: u64) -> Control {
    let mut state = Control::new(ControlConfig::new(Asset::Test)).durable();
    (state.number, state.at) = (last, second(100));
    let ended = |number| EndedJob {
        account: "alice".parse().expect("an account"),
        spec_digest: Digest([1; 32]),
        state: JobState::Completed,
        hold: Micro(1),
        finished: 10 * number,
        at: second(number),
    };
    state.ended = (1..=jobs).map(|number| (job(number), ended(number))).collect();
    Control::restore(ControlConfig::new(Asset::Test), state)
}

async fn print(store: &OutputStore, number: u64, attempts: u32) {
    for attempt in 1..=attempts {
        let log = store.open(AttemptId { job: job(number), number: attempt }).await.expect("opens");
        log.append(Out, 0, WallTime(0), Bytes::from(vec![number as u8; 1000]), u64::MAX).expect("is taken");
        log.sync().await.expect("is synced");
    }
}

struct Place {
    dir: tempfile::TempDir,
    store: OutputStore,
}

impl Place {
    /// With output of these jobs, one attempt each.
    async fn with(jobs: impl IntoIterator<Item = u64>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = OutputStore::at(&dir.path().join("output")).expect("opens");
        for number in jobs {
            print(&store, number, 1).await;
        }
        Self { dir, store }
    }

    fn output(&self) -> PathBuf {
        self.dir.path().join("output")
    }

    fn open(&self, keep: Keep, jobs: u64) -> Retention {
        Retention::open(&self.output(), self.store.clone(), keep, &control(jobs)).expect("opens")
    }

    /// Bytes that one job of the test takes on disk: its folder, and a file of 1033 bytes.
    fn one(&self) -> u64 {
        let folder = self.output().join(job(1).to_string());
        let taken = |path: &Path| fs::metadata(path).expect("it is there").blocks() * 512;
        taken(&folder) + taken(&folder.join("1.log"))
    }

    /// The jobs that have a folder.
    fn there(&self) -> Vec<u64> {
        (0..100).filter(|number| self.output().join(job(*number).to_string()).exists()).collect()
    }

    fn space(&self) -> Space {
        Space::open(self.dir.path(), Some(0), Some(0)).expect("a disk")
    }
}

const WEEK: Keep =
    Keep { age: Span::from_secs(7 * 24 * 3600), bytes: Some(u64::MAX), fresh: Span::ZERO, jobs: KeepJobs::USUAL };

#[tokio::test]
async fn output_goes_by_age_on_the_journals_timeline_and_open_jobs_keep_theirs() {
    // Job 9 has not ended, and of job 8 nothing is known.
    let place = Place::with(1..=9).await;
    let keep = Keep { age: Span::from_secs(10), ..WEEK };
    let (retention, space) = (place.open(keep, 7), place.space());
    assert_eq!(retention.sweep(second(10), NOTHING, &space).await.expect("sweeps"), 0);
    assert_eq!(retention.sweep(second(13), NOTHING, &space).await.expect("sweeps"), 3);
    assert_eq!(place.there(), [4, 5, 6, 7, 8, 9]);
    assert_eq!(removed::read(&place.output()).expect("reads"), 30);
    let gone: Vec<u64> = (1..=7).filter(|number| retention.is_removed(10 * number)).collect();
    assert_eq!(gone, [1, 2, 3]);
    assert_eq!(retention.sweep(second(13), NOTHING, &space).await.expect("sweeps"), 0, "once");
    // Time that stands still removes nothing, and none of it comes back.
    assert_eq!(place.open(keep, 7).sweep(second(5), NOTHING, &space).await.expect("sweeps"), 0);
    assert_eq!(retention.sweep(second(1000), NOTHING, &space).await.expect("sweeps"), 4);
    assert_eq!(place.there(), [8, 9]);
}

#[tokio::test]
async fn the_oldest_goes_when_there_is_too_much_but_nothing_that_is_fresh() {
    let place = Place::with(1..=5).await;
    let keep = Keep { bytes: Some(3 * place.one()), fresh: Span::from_secs(60), ..WEEK };
    let (retention, space) = (place.open(keep, 5), place.space());
    assert_eq!(retention.sweep(second(50), NOTHING, &space).await.expect("sweeps"), 0, "fresh");
    assert_eq!(retention.sweep(second(70), NOTHING, &space).await.expect("sweeps"), 2);
    assert_eq!(place.there(), [3, 4, 5]);
    print(&place.store, 6, 2).await;
    retention.job_ended(job(6), 60, second(6)).await;
    assert_eq!(retention.sweep(second(70), NOTHING, &space).await.expect("sweeps"), 2);
    assert_eq!(place.there(), [5, 6]);
    assert!(retention.rule().contains("kept for 7d0h"), "{}", retention.rule());
}

#[tokio::test]
async fn so_much_goes_as_the_disk_lacks_before_the_low_mark_is_met() {
    let place = Place::with(1..=6).await;
    let dir = place.dir.path().to_owned();
    // A disk that is full but for 149 MiB, and what was removed of the output.
    let output = place.output();
    let gauge = move |_: &Path| {
        let kept = (1..=6).filter(|number| output.join(job(*number).to_string()).exists()).count() as u64;
        Ok(Room { free: 149 * MIB + (6 - kept) * MIB / 2, total: 1000 * MIB, files: None })
    };
    let marks = Marks { low: 100 * MIB, full: MIB, ballast: 0 };
    let space = Space::with(&dir, marks, Box::new(gauge));
    assert_eq!((space.look(), space.short()), (Level::Enough, Short { bytes: MIB, files: 0 }));
    space.tight().await; // whoever waits for it is told
    let retention = place.open(WEEK, 6);
    // By what the files say 1 MiB is all of it and more; the disk says when it is enough.
    let two = Short { bytes: 2 * place.one(), files: 0 };
    let gone = retention.sweep(second(100), two, &space).await.expect("sweeps");
    assert_eq!((gone, place.there()), (2, vec![3, 4, 5, 6]));
    space.look();
    assert_eq!(space.short(), NOTHING);
    assert_eq!(retention.sweep(second(100), space.short(), &space).await.expect("sweeps"), 0);
    assert!(!dir.join(BALLAST_FILE).exists());
}

#[tokio::test]
async fn so_much_goes_as_the_disk_lacks_files_and_no_more() {
    let place = Place::with(1..=6).await;
    let output = place.output();
    // Each job has a folder and a file; of 8192 that are low, and half as many, four are missing.
    let gauge = move |_: &Path| {
        let kept = (1..=6).filter(|number| output.join(job(*number).to_string()).exists()).count() as u64;
        let files = Files { free: 12_284 + 2 * (6 - kept), total: 1_000_000 };
        Ok(Room { free: 900 * MIB, total: 1000 * MIB, files: Some(files) })
    };
    let marks = Marks { low: 100 * MIB, full: MIB, ballast: 0 };
    let space = Space::with(place.dir.path(), marks, Box::new(gauge));
    assert_eq!((space.look(), space.short()), (Level::Enough, Short { bytes: 0, files: 4 }));
    space.tight().await; // whoever waits for it is told
    let retention = place.open(WEEK, 6);
    assert_eq!(retention.sweep(second(100), space.short(), &space).await.expect("sweeps"), 2);
    assert_eq!(place.there(), [3, 4, 5, 6]);
    space.look();
    assert_eq!(space.short(), NOTHING);
}

#[tokio::test]
async fn what_is_being_read_stays_until_it_was_read_and_nobody_begins_anew() {
    let place = Place::with(1..=3).await;
    let (retention, space) = (place.open(WEEK, 3), place.space());
    let long_ago = second(30 * 24 * 3600);
    let (one, two) = (retention.reading(job(2)), retention.reading(job(2)));
    assert_eq!(retention.sweep(long_ago, NOTHING, &space).await.expect("sweeps"), 2);
    assert_eq!(place.there(), [2]);
    assert!((1..=3).all(|number| retention.is_removed(10 * number)), "also for who comes now");
    let log = place.store.open(AttemptId { job: job(2), number: 1 }).await.expect("opens");
    assert_eq!(log.read(0, 10_000).await.expect("reads")[0].data, vec![2; 1000]);
    drop(one);
    assert_eq!(retention.sweep(long_ago, NOTHING, &space).await.expect("sweeps"), 0);
    drop(two);
    assert_eq!(retention.sweep(long_ago, NOTHING, &space).await.expect("sweeps"), 1);
    assert!(place.there().is_empty());
}

#[tokio::test]
async fn a_removal_that_was_cut_short_anywhere_is_gone_on_with() {
    // Two attempts a job: the states that a crash can leave are each prefix of what is written and removed.
    let keep = Keep { age: Span::from_secs(10), ..WEEK };
    for cut in 0..=4 {
        let place = Place::with([]).await;
        for number in 1..=3 {
            print(&place.store, number, 2).await;
        }
        if cut > 0 {
            removed::write(&place.output(), 20).expect("writes");
        }
        let file = |number, attempt: u32| place.output().join(job(number).to_string()).join(format!("{attempt}.log"));
        if cut > 1 {
            fs::remove_file(file(1, 2)).expect("removes");
        }
        if cut > 2 {
            fs::remove_file(file(1, 1)).expect("removes");
        }
        if cut > 3 {
            fs::remove_dir(place.output().join(job(1).to_string())).expect("removes");
        }
        let (retention, space) = (place.open(keep, 3), place.space());
        if cut > 0 {
            assert!(retention.is_removed(10) && retention.is_removed(20), "{cut}: nobody sees half of it");
        }
        retention.sweep(second(12), NOTHING, &space).await.expect("sweeps");
        assert_eq!(place.there(), [3], "{cut}");
        assert!(retention.is_removed(20) && !retention.is_removed(30), "{cut}");
        assert!(file(3, 1).exists() && file(3, 2).exists(), "{cut}");
    }
}

#[tokio::test]
async fn a_mark_of_a_later_journal_hides_nothing_that_is_still_to_come() {
    let place = Place::with([1]).await;
    removed::write(&place.output(), 5_000).expect("writes");
    let retention = place.open(WEEK, 1);
    assert!(retention.is_removed(10) && retention.is_removed(LAST) && !retention.is_removed(LAST + 1));
    // Nor after the next start, when the journal has come as far as the mark.
    drop(retention);
    print(&place.store, 200, 1).await;
    let later = control_at(6_000, 200);
    let retention = Retention::open(&place.output(), place.store.clone(), WEEK, &later).expect("opens");
    assert!(retention.is_removed(LAST) && !retention.is_removed(2_000), "job 200 is younger");
    assert_eq!(retention.sweep(second(201), NOTHING, &place.space()).await.expect("sweeps"), 1, "job 1");
    assert_eq!(removed::read(&place.output()).expect("reads"), LAST);
    assert!(place.output().join(job(200).to_string()).exists());
    fs::write(place.output().join("removed"), "soon").expect("writes");
    let store = place.store.clone();
    let error = Retention::open(&place.output(), store, WEEK, &control(1)).expect_err("it is garbled");
    assert!(error.to_string().contains("the number of an event"), "{error}");
}

//! How many commits a second the journal makes, each with a true sync, beside what the disk makes of bare syncs in the same
//! run.
//!
//! ```text
//! cargo bench -p modchain-orchestrator --bench journal
//! ```
//!
//! The file lies below `TMPDIR`: it has to be on the disk that is meant.

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use modchain_core::{Actor, Command, Reply};
use modchain_orchestrator::clock::SystemSource;
use modchain_orchestrator::engine::{Engine, EngineHandle, EngineOptions, EngineThread, Outlets, journal_dir};
use modchain_orchestrator::founders::{Founder, Founders};
use modchain_orchestrator::store::journal::Journal;
use modchain_orchestrator::store::space::Space;
use modchain_types::{Asset, Identity, IdentityId, Micro, Name, Role, Text};
use support::{JOURNAL, bodies, numbered};

/// How long each is measured.
const EACH: Duration = Duration::from_secs(4);
/// Writers that wait at once.
const WRITERS: [usize; 3] = [1, 8, 32];
/// Bytes of a bare write: about those of the record that it stands beside.
const BARE_BYTES: usize = 256;

/// Times of single commits, and what they are together.
struct Measured {
    times: Vec<Duration>,
    took: Duration,
}

impl Measured {
    /// Commits a second.
    fn rate(&self) -> f64 {
        self.times.len() as f64 / self.took.as_secs_f64()
    }

    fn print(&mut self, what: &str, limit: Option<f64>) {
        self.times.sort_unstable();
        let percent = |percent: usize| self.times[(self.times.len() * percent / 100).min(self.times.len() - 1)];
        let beside = limit.map_or(String::new(), |limit| format!(", {:.2} of bare syncs", self.rate() / limit));
        println!(
            "  {what:<40} {:>8.0}/s  p50 {:>5} µs  p99 {:>5} µs{beside}",
            self.rate(),
            percent(50).as_micros(),
            percent(99).as_micros()
        );
    }
}

/// Does it again and again for [`EACH`].
fn again(mut one: impl FnMut(u64)) -> Measured {
    let begun = Instant::now();
    let mut times = Vec::new();
    while begun.elapsed() < EACH {
        let at = Instant::now();
        one(times.len() as u64);
        times.push(at.elapsed());
    }
    Measured { times, took: begun.elapsed() }
}

fn bare(file: &File) -> Measured {
    let bytes = [1; BARE_BYTES];
    again(|number| {
        file.write_all_at(&bytes, number * BARE_BYTES as u64).and_then(|()| file.sync_data()).expect("it is synced");
    })
}

fn member(role: Role, name: &str) -> Founder {
    let name: Name = name.parse().expect("a name");
    let identity = Identity { id: IdentityId([role as u8; 16]), role, account: name.clone().into(), name };
    Founder { identity, certificate: None }
}

/// An engine with a client that credits go to.
fn engine(data: &Path) -> (EngineHandle, Outlets, EngineThread) {
    std::fs::create_dir_all(journal_dir(data)).expect("a folder");
    Journal::create(&journal_dir(data), JOURNAL, Asset::Test).expect("a journal");
    let founders =
        Founders { members: vec![member(Role::Operator, "boss"), member(Role::Client, "alice")], token: None };
    let time = SystemSource::new().expect("a clock");
    let space = Arc::new(Space::open(data, Some(0), Some(0)).expect("a disk"));
    let options = EngineOptions::new(data, Text::cut("0"), Box::new(time), founders, space);
    let engine = Engine::open(options, Some(0), |_| {});
    engine.expect("it opens").spawn().expect("it starts")
}

fn credit(key: &str) -> Command {
    Command::Credit {
        by: Actor { id: IdentityId([0; 16]), role: Role::Operator, account: "boss".parse().expect("an account") },
        account: "alice".parse().expect("an account"),
        amount: Micro(1),
        key: key.parse().expect("a key"),
        why: Text::default(),
    }
}

/// Transfers, each waited for by the one who asked for it, of so many at once.
fn commits(data: &Path, writers: usize) -> Measured {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (handle, mut outlets, thread) = engine(data);
    let measured = runtime.block_on(async {
        // What comes out has to be taken, or the engine slows down.
        let draining = tokio::spawn(async move {
            loop {
                tokio::select! {
                    taken = outlets.events.recv() => if taken.is_none() { return },
                    _ = outlets.effects.recv() => {}
                }
            }
        });
        let begun = Instant::now();
        let write = |writer: usize| {
            let handle = handle.clone();
            async move {
                let mut times = Vec::new();
                while begun.elapsed() < EACH {
                    let at = Instant::now();
                    let reply = handle.command(credit(&format!("{writer}-{}", times.len()))).await;
                    assert_eq!(reply, Ok(Reply::Done));
                    times.push(at.elapsed());
                }
                times
            }
        };
        let tasks: Vec<_> = (0..writers).map(|writer| tokio::spawn(write(writer))).collect();
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await.expect("it ends"));
        }
        let took = begun.elapsed();
        handle.stop().await.expect("it runs");
        draining.await.expect("it ends");
        Measured { times, took }
    });
    assert!(thread.join(), "the engine failed");
    measured
}

fn main() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str| {
        let path = dir.path().join(name);
        OpenOptions::new().create(true).truncate(true).write(true).open(path).expect("a file")
    };
    let mut growing = bare(&file("growing"));
    growing.print("bare: write and fdatasync, growing file", None);
    let there = file("there");
    there.write_all_at(&vec![0; 32 << 20], 0).and_then(|()| there.sync_all()).expect("it is written");
    let mut limit = bare(&there);
    limit.print("bare: the same, space that was there", None);
    let limit = limit.rate();

    let path = dir.path().join("journal");
    std::fs::create_dir(&path).expect("a folder");
    Journal::create(&path, JOURNAL, Asset::Test).expect("a journal");
    let mut journal = Journal::open(&path, |_| {}).expect("it opens");
    let bodies = bodies();
    let mut single = again(|number| {
        let body = bodies[number as usize % bodies.len()].clone();
        journal.append(&numbered(journal.last_number() + 1, [body])).expect("it is appended");
    });
    single.print("journal: one event after another", Some(limit));
    drop(journal);

    for writers in WRITERS {
        commits(&dir.path().join(format!("engine-{writers}")), writers)
            .print(&format!("engine: credits of {writers} waiting writers"), Some(limit));
    }
}

//! A disk that is really full: a small file system in memory, of this test's own, that a file fills to the last byte.
//!
//! Mounting one takes a namespace. Where the system gives none the test says so and passes; it fails instead where `CI` is
//! set and it runs as root, because there it is meant to be had.

mod peers;
#[path = "session/world.rs"]
mod world;

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use modchain_orchestrator::store::removed;
use modchain_orchestrator::store::space::{self, BALLAST_FILE, Marks};
use modchain_orchestrator::verify::verify;
use modchain_types::{Assignment, Digest, JobState, Micro};
use modchain_wire::agent::{AttemptOpen, OutputEnd};
use modchain_wire::console::{RefusalCode, StatusQuery};
use modchain_wire::view::StatusView;
use modchain_wire::{FromAgent, ToAgent, ToConsole};
use world::{Agent, Console, HOLD, MINIMUM, World, read_output, soon, spec};

/// Where the test within finds its small disk.
const PLACE: &str = "MODCHAIN_TEST_SMALL_DISK";
/// Mebibytes of it.
const SIZE_MIB: u64 = 64;

#[test]
fn a_full_disk_refuses_new_work_and_loses_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = rustix::process::geteuid().is_root();
    let script = format!("mount -t tmpfs -o size={SIZE_MIB}m small \"${PLACE}\" || exit 77; exec \"$@\"");
    let mut unshare = Command::new("unshare");
    unshare.args(if root { &["-m"][..] } else { &["-U", "-r", "-m"] }).args(["sh", "-c", &script, "sh"]);
    unshare.arg(std::env::current_exe().expect("this program"));
    unshare.args(["--exact", "within_a_small_disk", "--ignored", "--nocapture"]);
    let place = dir.path().canonicalize().expect("it is there");
    let output = unshare.env(PLACE, &place).env("TMPDIR", &place).output();
    let why = match output {
        Ok(output) if output.status.success() => return,
        Ok(output) if output.status.code() == Some(77) || output.stderr.starts_with(b"unshare:") => {
            String::from_utf8_lossy(&output.stderr).into_owned()
        }
        Ok(output) => {
            panic!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        }
        Err(error) => format!("unshare: {error}"),
    };
    let wanted = root && std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!wanted, "no file system can be mounted: {why}");
    eprintln!("skipped: no file system can be mounted here: {why}");
}

/// Takes room until so many bytes are left, or none.
struct Filler {
    dir: PathBuf,
    file: File,
}

impl Filler {
    fn new(dir: &Path) -> Self {
        let file = OpenOptions::new().append(true).create(true).open(dir.join("filler")).expect("a file");
        Self { dir: dir.to_owned(), file }
    }

    /// Tells how many bytes it took.
    fn leave(&mut self, bytes: u64) -> u64 {
        let mut taken = 0;
        while let left = space::room(&self.dir).expect("it is measured").free
            && left > bytes
        {
            let wanted = (left - bytes).min(64 << 10) as usize;
            match self.file.write(&vec![1; wanted]) {
                Ok(written) => taken += written as u64,
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
        taken
    }

    /// To the last byte, the ballast included.
    async fn leave_nothing(&mut self, ballast: &Path) {
        let bytes = fs::metadata(ballast).expect("the ballast").len();
        self.leave(0);
        soon("the ballast is given up", async {
            // Its name is gone before its room is there. Others may take some of it.
            let mut taken = 0;
            while ballast.exists() || taken < bytes / 2 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                if !ballast.exists() {
                    taken += self.leave(0);
                }
            }
        })
        .await;
    }

    fn give_back(self) {
        fs::remove_file(self.dir.join("filler")).expect("it was there");
    }
}

async fn status(console: &Console) -> StatusView {
    match console.ask(StatusQuery { detail: false }).await {
        ToConsole::Status(view) => view,
        other => panic!("{other:?}"),
    }
}

async fn until(console: &Console, what: &str, full: bool) {
    soon(what, async {
        while status(console).await.problems.iter().any(|problem| problem.contains("nearly full")) != full {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Sends output from what is stored on, and its end where the job has ended. What was said against it, if anything was.
async fn offered(agent: &Agent, assignment: &Assignment, output: &[u8], ended: bool) -> Option<ToAgent> {
    let (attempt, fence) = (assignment.attempt, assignment.claim.fence);
    let (mut up, mut down) = agent.connection.open_bi::<FromAgent, ToAgent>().await.expect("a stream");
    up.write(&AttemptOpen { attempt, fence, input_from: None }.into()).await.expect("it is taken");
    let have = match soon("resume", down.read()).await {
        Ok(Some(ToAgent::AttemptResume(resume))) => resume.stdout as usize,
        other => panic!("{other:?}"),
    };
    let mut open = true;
    for piece in output[have..].chunks(16 * 1024) {
        let data = modchain_wire::Data::new(piece.to_vec()).expect("it fits");
        let offset = have as u64 + (piece.as_ptr() as u64 - output[have..].as_ptr() as u64);
        let chunk = modchain_wire::agent::OutputChunk {
            stream: modchain_wire::agent::OutputStream::Out,
            offset,
            at: modchain_types::WallTime(1),
            data,
        };
        // Whoever is refused may hear of it here first.
        open = open && up.write(&chunk.into()).await.is_ok();
    }
    if ended && open {
        let end = OutputEnd { stdout: output.len() as u64, stderr: 0, dropped: 0 };
        let _ = up.write(&end.into()).await;
    }
    soon("an answer", async {
        loop {
            match down.read().await {
                Ok(Some(ToAgent::OutputAck(ack))) if ended && ack.stdout >= output.len() as u64 => return None,
                Ok(Some(ToAgent::OutputAck(_))) => {}
                Ok(Some(no)) => return Some(no),
                other => panic!("{other:?}"),
            }
        }
    })
    .await
}

/// Sends output until it is refused, and as an agent does, keeps it.
async fn refused_for_now(agent: &Agent, assignment: &Assignment, output: &[u8]) {
    let said = offered(agent, assignment, output, false).await;
    assert!(matches!(&said, Some(ToAgent::Refused(no)) if no.retryable && no.why.contains("no room")), "{said:?}");
}

/// Sends output, again and again as an agent does, until all of it is stored.
async fn taken_in_the_end(agent: &Agent, assignment: &Assignment, output: &[u8]) {
    soon("all of it is stored", async {
        while let Some(said) = offered(agent, assignment, output, true).await {
            match said {
                ToAgent::Refused(no) if no.retryable => tokio::time::sleep(Duration::from_millis(20)).await,
                // All was stored although the answer was another one: the job has ended since.
                ToAgent::Refused(no) if no.why.contains("is over here") => break,
                said => panic!("{said:?}"),
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs within the small disk that the other test mounts"]
async fn within_a_small_disk() {
    let place = PathBuf::from(std::env::var_os(PLACE).expect("a small disk"));
    let marks = Marks::choose(space::room(&place).expect("it is measured").total, None, None);
    let world = World::start().await;
    let ballast = world.place().join(BALLAST_FILE);
    assert_eq!(fs::metadata(&ballast).expect("the ballast").len(), marks.ballast);
    let (mut agent, alice, boss) = (world.agent().await, world.console("alice").await, world.console("boss").await);
    let output: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    for round in 0..3u64 {
        let name = |what: &str| format!("{what}-{round}");
        let (first, second) = (alice.submit(&name("first")).await.job, alice.submit(&name("second")).await.job);
        let _alive = agent.heartbeat(1).await;
        let (one, two) = (agent.run().await, agent.run().await);
        let (one, two) = if one.attempt.job == first { (one, two) } else { (two, one) };

        // Low: nothing new is taken, what runs goes on and is paid.
        let mut filler = Filler::new(&place);
        filler.leave(marks.low - (round << 18) - (256 << 10));
        until(&boss, "the disk is low", true).await;
        let refused = alice.submit_spec(&name("late"), spec("late")).await.expect_err("no room for new jobs");
        assert_eq!(refused.code, RefusalCode::StorageFull);
        assert!(refused.message.contains("MiB are free") && !refused.hint.is_empty(), "{refused:?}");
        let blob = vec![round as u8; 50_000];
        let put = alice.put(&blob, Digest::of(&blob)).await.expect_err("no room for blobs");
        assert_eq!(put.code, RefusalCode::StorageFull);
        let credit = boss.credit("alice", Micro(1), &name("more")).await.expect_err("no room for credits");
        assert_eq!(credit.code, RefusalCode::StorageFull);
        let again = alice.submit_spec(&name("first"), spec(&name("first"))).await.expect("the first answer again");
        assert!(again.existing);
        agent.finish(&one, &output[..200_000], 0).await;
        let job = alice.job_until(&first.to_string(), |job| job.state.is_ended()).await;
        assert_eq!((job.state, job.cost, job.output.stdout), (JobState::Completed, MINIMUM, 200_000));

        // Full: what cannot be stored stays where it is, and nobody is the worse for it.
        let mark = tempfile::tempdir_in(&place).expect("a directory");
        removed::write(mark.path(), 9).expect("there is room");
        filler.leave_nothing(&ballast).await;
        removed::write(mark.path(), 10).expect("what makes room needs none");
        assert_eq!(removed::read(mark.path()).expect("reads"), 10);
        let _alive = agent.heartbeat(1).await;
        refused_for_now(&agent, &two, &output).await;
        agent.exited(&two, 0, output.len() as u64).await;
        refused_for_now(&agent, &two, &output).await;
        // All this may have taken so long that the node counts as silent.
        let _alive = agent.heartbeat(1).await;
        alice.job_until(&second.to_string(), |job| job.state == JobState::Running).await;
        assert!(status(&boss).await.problems.iter().any(|problem| problem.contains("free some space")));
        assert_eq!(alice.account().await.held, HOLD);

        // Room: everything goes on by itself, from where it was.
        filler.give_back();
        until(&boss, "there is room again", false).await;
        taken_in_the_end(&agent, &two, &output).await;
        let job = alice.job_until(&second.to_string(), |job| job.state.is_ended()).await;
        assert_eq!((job.state, job.output.stdout), (JobState::Completed, output.len() as u64));
        let (_open, mut reader) = alice.logs(&second.to_string(), false).await;
        assert!(read_output(&mut reader, usize::MAX).await == output);
        soon("the ballast", async {
            while !ballast.exists() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
    let mut world = world;
    drop((agent, alice, boss));
    world.stop().await;
    let verified = verify(&world.place()).expect("whole");
    assert_eq!((verified.open_jobs, verified.ended_jobs), (0, 6));
}

//! Copies of a data directory: whole in themselves whatever goes on meanwhile, never half there, and nothing is made of one that is
//! not as it was.

mod process;
mod support;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command as Program, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use modchain_certs::{Authority, Subject};
use modchain_core::{Actor, Command, Control, ControlConfig, Reply};
use modchain_orchestrator::backup::{Backup, backup, restore};
use modchain_orchestrator::clock::SystemSource;
use modchain_orchestrator::engine::{
    Engine, EngineHandle, EngineOptions, EngineThread, Outlets, SnapshotEvery, journal_dir,
};
use modchain_orchestrator::founders::Founders;
use modchain_orchestrator::init::{InitOptions, init};
use modchain_orchestrator::store::blobs::BlobStore;
use modchain_orchestrator::store::input::InputStore;
use modchain_orchestrator::store::space::Space;
use modchain_orchestrator::verify::verify;
use modchain_types::*;
use process::{Server, program};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use support::{TestDisk, bare_spec, text, wasm_task};

/// A pool of one client and one operator.
fn pool(dir: &Path) -> PathBuf {
    let data = dir.join("data");
    let name = |name: &str| name.parse().expect("a name");
    let options = InitOptions {
        data: data.clone(),
        clients: vec![name("alice")],
        operators: vec![name("root")],
        ..InitOptions::default()
    };
    init(&options).expect("a data directory");
    data
}

fn copy(data: &Path, to: &Path) -> Backup {
    backup(data, to, &mut |_| {}).unwrap_or_else(|error| panic!("{error:#}"))
}

/// Tries again where jobs ended faster than their blobs could be copied: here those go the moment their jobs end.
fn copy_at_last(data: &Path, to: &Path) -> Backup {
    for _ in 0..100 {
        match backup(data, to, &mut |_| {}) {
            Ok(made) => return made,
            Err(error) => assert!(error.to_string().contains("try again"), "{error:#}"),
        }
        assert!(!to.exists(), "nothing is there under its name");
    }
    panic!("no copy could be made in a hundred tries")
}

/// Every file below a folder, with its permissions and bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let mode = fs::metadata(&path).expect("a file").permissions().mode() & 0o7777;
                let name = path.strip_prefix(dir).expect("is below").to_owned();
                found.insert(name, (mode, fs::read(&path).expect("reads")));
            }
        }
    }
    found
}

fn run(args: &[&str]) -> Output {
    Program::new(program()).args(args).output().expect("runs")
}

fn ok(args: &[&str]) -> serde_json::Value {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("json")
}

fn fails(args: &[&str]) -> String {
    let output = run(args);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

#[test]
fn a_pool_that_is_being_served_is_copied_and_the_copy_becomes_the_same_pool() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = pool(dir.path());
    let (to, back) = (dir.path().join("copy"), dir.path().join("back"));
    let (server, _) = Server::start(&data);
    fs::write(data.join(".half"), "being written").expect("writes");
    let made = ok(&["backup", utf8(&to), "--data", utf8(&data), "-o", "json"]);
    assert_eq!((&made["schema"], &made["lacking"]), (&"modchain.backup/v1".into(), &serde_json::json!([])));
    let verified = ok(&["ledger", "verify", "--data", utf8(&data), "-o", "json"]);
    assert_eq!((&made["events"], &made["head"]), (&verified["events"], &verified["head"]));
    drop(server);

    let restored = ok(&["restore", utf8(&to), "--data", utf8(&back), "-o", "json"]);
    assert_eq!((&restored["schema"], &restored["head"]), (&"modchain.restore/v1".into(), &made["head"]));
    let (original, again) = (files(&data), files(&back));
    for (path, (mode, bytes)) in &original {
        let top = path.iter().next().and_then(|part| part.to_str()).expect("a part");
        let nothing_removed = path == Path::new("output/removed") && bytes == b"0\n";
        if nothing_removed || ["ballast", "init.lock", "lock", "view", ".half"].contains(&top) {
            assert!(!again.contains_key(path), "{}", path.display());
        } else if top == "journal" {
            let (_, there) = &again[path];
            assert!(bytes.starts_with(there) && there.len() < bytes.len(), "without the zeros at its end");
        } else {
            assert_eq!(again.get(path), Some(&(*mode, bytes.clone())), "{}", path.display());
        }
    }
    let keys: Vec<_> = again.iter().filter(|(path, _)| path.starts_with("ca")).collect();
    assert!(!keys.is_empty() && keys.iter().all(|(_, (mode, _))| mode & 0o077 == 0), "{:?}", again.keys());
    for folder in [&to, &back] {
        assert_eq!(fs::metadata(folder).expect("a folder").permissions().mode() & 0o777, 0o700);
    }
    let (_server, ready) = Server::start(&back);
    assert_eq!(ready["schema"], "modchain.serving/v1");
}

#[test]
fn nothing_is_overwritten_and_what_cannot_be_is_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = pool(dir.path());
    let (to, nowhere) = (dir.path().join("copy"), dir.path().join("no/where"));
    let said = fails(&["backup", utf8(&nowhere), "--data", utf8(&data)]);
    assert!(said.contains("is not a folder: make it first"), "{said}");
    fs::create_dir(&to).expect("makes");
    copy(&data, &to); // an empty folder is no data
    let before = files(&to);
    for args in [["backup", utf8(&to), "--data", utf8(&data)], ["restore", utf8(&to), "--data", utf8(&data)]] {
        let said = fails(&args);
        assert!(said.contains("is there already, and nothing is overwritten"), "{said}");
    }
    let file = dir.path().join("file");
    fs::write(&file, "mine").expect("writes");
    assert!(fails(&["backup", utf8(&file), "--data", utf8(&data)]).contains("is there already"));
    assert_eq!((files(&to), fs::read(&file).expect("reads")), (before, b"mine".to_vec()));
    let said = fails(&["restore", utf8(&data), "--data", utf8(&dir.path().join("back"))]);
    assert!(said.contains("a copy made by `backup`"), "{said}");
    let said = fails(&["backup", utf8(&data.join("copy")), "--data", utf8(&data)]);
    assert!(said.contains("lies in the data that it is to be a copy of"), "{said}");
    let said = fails(&["backup", utf8(&dir.path().join("other")), "--data", utf8(dir.path())]);
    assert!(said.contains("there is no journal"), "{said}");
    let mut left: Vec<_> = fs::read_dir(dir.path()).expect("lists").map(|e| e.expect("e").file_name()).collect();
    left.sort();
    assert_eq!(left, ["copy", "data", "file"]);
}

#[test]
fn two_copies_do_not_meet_in_one_place_and_what_a_killed_one_left_is_gone() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, to) = (pool(dir.path()), dir.path().join("copy"));
    let partial = dir.path().join(".copy.partial");
    fs::create_dir(&partial).expect("makes");
    fs::create_dir(partial.join("journal")).expect("makes");
    fs::write(partial.join("journal/old.seg"), "of a run that was killed").expect("writes");
    let other = File::open(&partial).expect("opens");
    other.try_lock().expect("nobody has it");
    let said = fails(&["backup", utf8(&to), "--data", utf8(&data)]);
    assert!(said.contains("another program is just making"), "{said}");
    assert!(partial.join("journal/old.seg").exists(), "it is the other one's");
    drop(other);
    copy(&data, &to);
    assert!(!partial.exists() && !to.join("journal/old.seg").exists());
}

#[test]
fn a_copy_with_one_changed_or_missing_file_is_not_restored() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, to, back) = (pool(dir.path()), dir.path().join("copy"), dir.path().join("back"));
    drop(Server::start(&data));
    fs::create_dir_all(data.join("blobs/alice")).expect("makes");
    fs::write(data.join("blobs/alice").join(Digest::of(b"module").to_string()), "module").expect("writes");
    copy(&data, &to);
    let whole = files(&to);
    assert!(whole.len() > 10, "{:?}", whole.keys());
    for (path, (mode, bytes)) in &whole {
        let file = to.join(path);
        fs::remove_file(&file).expect("removes");
        for change in [None, Some(bytes.len() / 2)] {
            if let Some(at) = change.filter(|at| *at < bytes.len()) {
                let mut bytes = bytes.clone();
                bytes[at] ^= 0x20;
                fs::write(&file, bytes).expect("writes");
            }
            let error = restore(&to, &back, &mut |_| {}).expect_err("it is not whole");
            let named = path.file_name().and_then(|name| name.to_str()).expect("a name");
            assert!(format!("{error:#}").contains(named), "{}: {error:#}", path.display());
            assert!(!back.exists() && !dir.path().join(".back.partial").exists(), "{}", path.display());
        }
        let _ = fs::remove_file(&file);
        fs::write(&file, bytes)
            .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(*mode)))
            .expect("back");
    }
    restore(&to, &back, &mut |_| {}).expect("it is as it was");
}

#[test]
fn a_copy_ends_with_the_last_whole_batch_and_none_is_made_of_a_damaged_journal() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = pool(dir.path());
    for _ in 0..3 {
        drop(Server::start(&data)); // killed
    }
    let whole = verify(&data).expect("whole");
    let segment = journal_dir(&data).join("00000000000000000001.seg");
    let bytes = fs::read(&segment).expect("reads");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("records") + 1;
    // A record that is just being written: its first bytes, and then zeros.
    let mut torn = bytes[..end].to_vec();
    torn.extend_from_slice(&bytes[76..76 + 60]);
    torn.extend_from_slice(&[0; 4096]);
    fs::write(&segment, &torn).expect("writes");
    let made = copy(&data, &dir.path().join("torn"));
    assert_eq!((made.last_number, made.head), (whole.last_number, whole.head));
    restore(&dir.path().join("torn"), &dir.path().join("back"), &mut |_| {}).expect("it is whole");

    let mut damaged = bytes.clone();
    damaged[76 + 30] ^= 1;
    fs::write(&segment, &damaged).expect("writes");
    let error = backup(&data, &dir.path().join("damaged"), &mut |_| {}).expect_err("it is damaged");
    assert!(format!("{error:#}").contains("offset 76"), "{error:#}");
    assert!(!dir.path().join("damaged").exists());
}

fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < Duration::from_secs(100), "it never {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Puts a pipe where a file is or could be: whoever reads that waits there.
fn put_pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("makes a pipe");
}

/// The other end of a pipe, as soon as somebody waits at it.
fn other_end(pipe: &Path) -> File {
    let (mut end, flags) = (None, OFlags::NONBLOCK.bits().cast_signed());
    until("comes to the pipe", || {
        end = OpenOptions::new().write(true).custom_flags(flags).open(pipe).ok();
        end.is_some()
    });
    end.expect("it was opened")
}

/// Reports whether a program whose process ended made the copy, and restores it if it is there.
fn whole_or_not_there(to: &Path, back: &Path) -> bool {
    if !to.exists() {
        return false;
    }
    restore(to, back, &mut |_| {}).expect("what is there is whole");
    fs::remove_dir_all(back).and_then(|()| fs::remove_dir_all(to)).expect("removes");
    true
}

#[test]
fn a_copy_that_is_killed_is_whole_or_not_there_and_the_next_one_is_whole() {
    const BLOBS: u32 = 60;
    const ROUNDS: u32 = 6;
    let dir = tempfile::tempdir().expect("a directory");
    let (data, to, back) = (pool(dir.path()), dir.path().join("copy"), dir.path().join("back"));
    drop(Server::start(&data));
    let blobs = data.join("blobs/alice");
    fs::create_dir_all(&blobs).expect("makes");
    let mut digests: Vec<String> = (0..BLOBS)
        .map(|number| {
            let bytes = number.to_le_bytes().repeat(4_096);
            let digest = Digest::of(&bytes).to_string();
            fs::write(blobs.join(&digest), bytes).expect("writes");
            digest
        })
        .collect();
    digests.sort();
    let start = || {
        let line = ["backup", utf8(&to), "--data", utf8(&data)];
        Program::new(program()).args(line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts")
    };
    let kill = |mut child: std::process::Child| {
        let _ = child.kill(); // it may have ended
        child.wait().expect("ends");
    };

    // In the middle: it stands at a blob that is a pipe, and that nobody writes to.
    for round in 0..ROUNDS {
        let pipe = blobs.join(&digests[(round * BLOBS / ROUNDS) as usize]);
        let bytes = fs::read(&pipe).and_then(|bytes| fs::remove_file(&pipe).map(|()| bytes)).expect("moves away");
        put_pipe(&pipe);
        let child = start();
        let end = other_end(&pipe);
        kill(child);
        drop(end);
        assert!(!whole_or_not_there(&to, &back), "it stood in round {round}");
        assert!(dir.path().join(".copy.partial/journal").exists(), "it had begun");
        fs::remove_file(&pipe).and_then(|()| fs::write(&pipe, bytes)).expect("puts it back");
    }
    // The moment that it gets its name.
    let mut took = Duration::ZERO;
    for round in 0..ROUNDS {
        let (child, began) = (start(), Instant::now());
        until("appears", || to.exists());
        took = took.max(began.elapsed());
        kill(child);
        assert!(whole_or_not_there(&to, &back), "it was there in round {round}");
    }
    // And any other moment, as this machine is now.
    let whole = (0..ROUNDS)
        .filter(|round| {
            let child = start();
            std::thread::sleep(took * *round / ROUNDS);
            kill(child);
            whole_or_not_there(&to, &back)
        })
        .count();
    println!(
        "backup: {ROUNDS} copies cut short in the middle, {ROUNDS} killed when they had their names, {whole} of {ROUNDS} whole \
         at other moments"
    );
    copy(&data, &to);
    restore(&to, &back, &mut |_| {}).expect("it is whole");
    assert!(!dir.path().join(".copy.partial").exists());
}

/// Runs a script as root of a namespace of its own, in which it may mount; `None` where this machine lets nobody do that.
fn with_mounts(script: &str, arguments: &[&str]) -> Option<Output> {
    let run = |script: &str, arguments: &[&str]| {
        let line = ["--user", "--map-root-user", "--mount", "sh", "-euc", script, "sh"];
        Program::new("unshare").args(line).args(arguments).output()
    };
    match run("mount -t tmpfs none /tmp", &[]) {
        Ok(output) if output.status.success() => Some(run(script, arguments).expect("runs")),
        Ok(output) => {
            println!("backup: skipped, nothing can be mounted: {}", String::from_utf8_lossy(&output.stderr).trim());
            None
        }
        Err(error) => {
            println!("backup: skipped, there is no unshare: {error}");
            None
        }
    }
}

#[test]
fn a_copy_and_a_data_directory_can_be_where_a_disk_begins() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, copies, back) = (pool(dir.path()), dir.path().join("copies"), dir.path().join("back"));
    fs::create_dir(&copies).and_then(|()| fs::create_dir(&back)).expect("makes");
    // A fresh disk has this; in a data directory it is the disk's too, and nobody but root may look into it.
    let script = r#"
        for disk in "$2" "$3"; do
            mount -t tmpfs -o mode=0755 none "$disk"
            mkdir -m 0700 "$disk/lost+found"
            echo "found by the disk" >"$disk/lost+found/1"
        done
        "$0" backup "$2" --data "$1"
        "$0" restore "$2" --data "$3"
        "$0" ledger verify --data "$3"
        test ! -e "$2/.partial" -a ! -e "$3/.partial"
        stat -c %a "$2" "$3"
        umount "$2"
        mount -t tmpfs none "$2"
        "$0" backup "$2" --data "$3"
        test ! -e "$2/lost+found"
    "#;
    let script = script.replace("$0", utf8(&program()));
    let Some(output) = with_mounts(&script, &[utf8(&data), utf8(&copies), utf8(&back)]) else { return };
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{wrong}");
    assert_eq!(said.lines().filter(|line| *line == "700").count(), 2, "{said}");
}

#[test]
fn nobody_makes_or_serves_a_pool_where_a_restore_was_cut_short() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, to, back) = (pool(dir.path()), dir.path().join("copy"), dir.path().join("back"));
    copy(&data, &to);
    fs::create_dir_all(back.join(".partial/journal")).expect("makes");
    fs::write(back.join(".partial/journal/old.seg"), "of a run that was killed").expect("writes");
    for args in [["serve", "--data", utf8(&back)], ["init", "--data", utf8(&back)]] {
        let said = fails(&args);
        assert!(said.contains("`restore` fills it just now, or was cut short"), "{said}");
        assert_eq!(fs::read_dir(&back).expect("lists").count(), 1, "{args:?} left nothing");
    }
    ok(&["restore", utf8(&to), "--data", utf8(&back), "-o", "json"]);
    assert!(!back.join(".partial").exists() && !back.join("journal/old.seg").exists());
    let (_server, ready) = Server::start(&back);
    assert_eq!(ready["schema"], "modchain.serving/v1");
}

#[test]
fn keys_that_are_due_for_renewal_are_copied_as_they_are() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = pool(dir.path());
    let (ca, tls) = (data.join("ca"), data.join("tls"));
    // Past half its life; not there at all; and a key that was not moved into its place to the end.
    let long_ago = SystemTime::now() - Duration::from_secs(300 * 24 * 3600);
    let old = Authority::create(&dir.path().join("old"), long_ago).expect("an authority");
    fs::remove_dir_all(&ca).and_then(|()| fs::rename(dir.path().join("old"), &ca)).expect("takes its place");
    let own = old.issue(Subject::ORCHESTRATOR, Duration::from_secs(3600), SystemTime::now()).expect("issues");
    own.save(&tls).expect("is kept");
    let same = |name: &str| {
        let (before, to, back) = (files(&data), dir.path().join(name), dir.path().join(format!("{name}-back")));
        copy(&data, &to);
        assert_eq!(files(&data), before, "{name}: nothing is changed where it is copied from");
        restore(&to, &back, &mut |_| {}).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        for keys in ["ca", "tls"] {
            assert_eq!(files(&back.join(keys)), files(&data.join(keys)), "{name}");
        }
    };
    same("old-issuer");
    fs::remove_file(ca.join("issuing.pem")).expect("removes");
    same("no-issuer");
    fs::rename(tls.join("key.pem"), tls.join("key.pem.new")).expect("renames");
    same("half-moved");
    fs::remove_file(tls.join("key.pem.new")).expect("removes");
    let error = backup(&data, &dir.path().join("none"), &mut |_| {}).expect_err("there is no key");
    assert!(format!("{error:#}").contains("the orchestrator's keys are not whole where they are"), "{error:#}");
}

#[test]
fn a_mode_that_means_more_than_permissions_is_copied_without_that() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, to, back) = (pool(dir.path()), dir.path().join("copy"), dir.path().join("back"));
    for (name, mode) in [("set-user", 0o4640), ("set-group", 0o2640), ("sticky", 0o1640)] {
        fs::write(data.join(name), name).expect("writes");
        fs::set_permissions(data.join(name), fs::Permissions::from_mode(mode)).expect("sets");
    }
    copy(&data, &to);
    restore(&to, &back, &mut |_| {}).unwrap_or_else(|error| panic!("{error:#}"));
    let again = files(&back);
    for name in ["set-user", "set-group", "sticky"] {
        assert_eq!(again[Path::new(name)], (0o640, name.into()), "{name}");
    }
}

/// What a client was told before a moment.
#[derive(Clone, Default)]
struct Told {
    jobs: Vec<JobId>,
    inputs: BTreeMap<JobId, usize>,
}

/// An engine with the stores of its data, and one client with credit.
struct Work {
    engine: EngineHandle,
    thread: EngineThread,
    _outlets: Outlets,
    blobs: BlobStore,
    inputs: InputStore,
    account: AccountId,
}

impl Work {
    async fn begin(data: &Path) -> Self {
        let space = Arc::new(Space::open(data, Some(0), Some(0)).expect("a disk"));
        let time = SystemSource::new().expect("a clock");
        let founders = Founders::read(data).expect("reads");
        let mut options = EngineOptions::new(data, text("0.1.0"), Box::new(time), founders, space);
        options.disk = Box::new(TestDisk::default());
        options.snapshot_every = SnapshotEvery { events: 100, bytes: u64::MAX };
        let engine = Engine::open(options, None, |_| {}).expect("opens");
        let (engine, outlets, thread) = engine.spawn().expect("spawns");
        let blobs = BlobStore::with_limits(&data.join("blobs"), u64::MAX, Duration::ZERO).expect("opens");
        let inputs = InputStore::at(&data.join("input")).expect("opens");
        let account: AccountId = "alice".parse().expect("an account");
        let credit = Command::Credit {
            by: by(Role::Operator, &"root".parse().expect("an account")),
            account: account.clone(),
            amount: Micro(1_000_000_000),
            key: "k".parse().expect("a key"),
            why: text("test"),
        };
        assert_eq!(engine.command(credit).await, Ok(Reply::Done));
        Self { engine, thread, _outlets: outlets, blobs, inputs, account }
    }

    /// Submits a job with a module of its own: each second one reads, each third one has a long task, a blob that names the module.
    async fn submit(&self, number: u64, told: &Mutex<Told>) -> JobId {
        let Self { engine, blobs, inputs, account, .. } = self;
        let digest = blobs.put(account, Bytes::from(module(number))).await.expect("is put");
        let Task::Wasm(task) = wasm_task() else { panic!("another task") };
        let task = Task::Wasm(WasmTask { module: digest, ..task });
        let (body, long) = if number.is_multiple_of(3) {
            let long = blobs.put(account, Bytes::from(modchain_wire::encode_task(&task))).await.expect("is put");
            (TaskBody::Blob { digest: long, adapter: Adapter::Wasm }, Some(long))
        } else {
            (TaskBody::Inline(task), None)
        };
        let input = if number.is_multiple_of(2) { Input::Stream } else { Input::None };
        let spec = JobSpec { body, input, max_cost: Micro(1_000), ..bare_spec() };
        let key = format!("{number}").parse().expect("a key");
        let (spec, spec_digest) = (Box::new(spec), Digest([1; 32]));
        let submit = Command::Submit { by: by(Role::Client, account), key, spec, spec_digest, no_queue: false };
        let Ok(Reply::Submitted { job, .. }) = engine.command(submit).await else { panic!("refused") };
        blobs.reference(job, account, &[Some(digest), long].into_iter().flatten().collect::<Vec<_>>());
        if input == Input::Stream {
            let spool = inputs.open(job).await.expect("opens");
            spool.append(0, Bytes::from_static(b"what the job reads")).expect("is taken");
            spool.sync().await.expect("is synced");
            told.lock().expect("lock").inputs.insert(job, 18);
        }
        told.lock().expect("lock").jobs.push(job);
        job
    }

    /// Cancels a job that waits, and removes whatever no job needs.
    async fn cancel(&self, job: JobId) {
        let by = by(Role::Client, &self.account);
        let cancel = Command::Cancel { by, job, grace: Span::ZERO, why: text("") };
        assert!(matches!(self.engine.command(cancel).await, Ok(Reply::Cancelling { .. })));
        self.blobs.release(job);
        self.inputs.remove(job).await.expect("is removed");
        self.blobs.collect().await.expect("collects");
    }

    async fn end(self) {
        let Self { engine, thread, .. } = self;
        engine.stop().await.expect("stops");
        assert!(tokio::task::spawn_blocking(move || thread.join()).await.expect("joins"));
    }
}

fn by(role: Role, account: &AccountId) -> Actor {
    Actor { id: IdentityId([0; 16]), role, account: account.clone() }
}

fn module(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(300)
}

/// Submits jobs with modules and standard input and cancels them again, as fast as it can; whatever no job needs is removed at once.
async fn churn(data: PathBuf, told: Arc<Mutex<Told>>, submitted: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    let work = Work::begin(&data).await;
    let mut open = std::collections::VecDeque::new();
    for number in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        open.push_back(work.submit(number, &told).await);
        submitted.fetch_add(1, Ordering::Relaxed);
        if open.len() > 40 {
            work.cancel(open.pop_front().expect("many")).await;
        }
    }
    work.end().await;
}

#[test]
fn output_is_copied_once_no_job_is_waited_for_any_more() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, to) = (pool(dir.path()), dir.path().join("copy"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runs");
    let told = Mutex::default();
    let work = runtime.block_on(Work::begin(&data));
    let submit = |number| runtime.block_on(work.submit(number, &told));
    let (ended, _waits, ends) = (submit(1), submit(5), submit(7));
    runtime.block_on(work.cancel(ended));
    let blob = |number| data.join("blobs/alice").join(Digest::of(&module(number)).to_string());
    let (needed, printed) = (blob(5), data.join("output").join(ended.to_string()).join("1.log"));
    fs::create_dir_all(printed.parent().expect("a folder")).expect("makes");
    fs::remove_file(&needed).expect("was there");
    put_pipe(&needed);
    put_pipe(&printed);
    // This one's job ends before the copy has come past the pipe, so that the journal must be followed further.
    fs::remove_file(blob(7)).expect("was there");
    let copying = std::thread::spawn({
        let (data, to) = (data.clone(), to.clone());
        move || backup(&data, &to, &mut |_| {})
    });
    let mut end = other_end(&needed);
    runtime.block_on(work.cancel(ends));
    let last = runtime.block_on(work.engine.query(|control, _| control.last_number())).expect("answers");
    end.write_all(&module(5)).expect("is taken");
    drop(end);

    let end = other_end(&printed);
    let copied = verify(&dir.path().join(".copy.partial")).expect("whole");
    assert!(copied.last_number >= last, "{} of {last}: it is not followed to the end yet", copied.last_number);
    drop(end);
    let made = copying.join().expect("no panic").unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!((made.last_number, made.lacking), (copied.last_number, Vec::new()));
    runtime.block_on(work.end());
}

#[test]
fn copies_that_are_made_while_jobs_come_and_go_have_all_that_their_journals_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = pool(dir.path());
    let (told, stop) = (Arc::new(Mutex::new(Told::default())), Arc::new(AtomicBool::new(false)));
    let submitted = Arc::new(AtomicU64::new(0));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runs");
    let working = runtime.spawn(churn(data.clone(), told.clone(), submitted.clone(), stop.clone()));
    let (mut checked, mut snapshots) = (0, 0);
    for round in 0..12 {
        // So that each copy has something of its own to miss.
        let wanted = submitted.load(Ordering::Relaxed) + 60;
        while submitted.load(Ordering::Relaxed) < wanted {
            assert!(!working.is_finished(), "it works on");
            std::thread::sleep(Duration::from_millis(2));
        }
        let before = told.lock().expect("lock").clone();
        let (to, back) = (dir.path().join(format!("copy{round}")), dir.path().join(format!("back{round}")));
        let made = copy_at_last(&data, &to);
        assert_eq!(made.lacking, Vec::<String>::new());
        let restored = restore(&to, &back, &mut |_| {}).unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!((restored.verified.last_number, restored.verified.head), (made.last_number, made.head));
        let mut control = Control::new(ControlConfig::new(Asset::Test));
        modchain_orchestrator::store::journal::walk(&journal_dir(&back), |events| {
            events.iter().for_each(|event| control.evolve(event));
        })
        .expect("whole");
        for job in &before.jobs {
            assert!(control.job(*job).is_some() || control.ended(*job).is_some(), "{job} was acknowledged before");
        }
        for job in control.jobs() {
            let TaskBody::Inline(Task::Wasm(task)) = &job.spec.body else { continue };
            let module = fs::read(back.join("blobs/alice").join(task.module.to_string())).expect("its module");
            assert_eq!(Digest::of(&module), task.module);
            checked += 1;
        }
        for (job, length) in before.inputs.iter().filter(|(job, _)| control.job(**job).is_some()) {
            let input = runtime.block_on(async {
                let spool = InputStore::at(&back.join("input")).expect("opens").open(*job).await.expect("opens");
                spool.read(0, 100).await.expect("reads")
            });
            assert_eq!(input.len(), *length, "{job}");
        }
        snapshots += usize::from(back.join("snapshots").exists());
        // The restored pool opens, from its snapshot.
        let space = Arc::new(Space::open(&back, Some(0), Some(0)).expect("a disk"));
        let founders = Founders::read(&back).expect("reads");
        let time = Box::new(SystemSource::new().expect("a clock"));
        Engine::open(EngineOptions::new(&back, text("0.1.0"), time, founders, space), Some(0), |_| {}).expect("opens");
    }
    stop.store(true, Ordering::Relaxed);
    runtime.block_on(working).expect("it ended well");
    let jobs = told.lock().expect("lock").jobs.len();
    println!(
        "backup: 12 copies while {jobs} jobs came and went; {checked} modules of open jobs there, {snapshots} snapshots"
    );
    assert!(checked > 0 && snapshots > 0);
}

#[test]
fn a_blob_that_an_open_job_needs_and_that_is_gone_is_said_and_the_copy_is_made() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = pool(dir.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runs");
    runtime.block_on(async {
        let (work, told) = (Work::begin(&data).await, Mutex::default());
        for number in 0..10 {
            work.submit(number, &told).await;
        }
        work.end().await;
    });
    let blob = |number: u64| {
        let digest = Digest::of(&module(number));
        (data.join("blobs/alice").join(digest.to_string()), digest)
    };
    let ((gone, first), (damaged, second)) = (blob(1), blob(2));
    fs::remove_file(gone).expect("was there");
    OpenOptions::new().append(true).open(damaged).and_then(|mut file| file.write_all(b"x")).expect("writes");
    let to = dir.path().join("copy");
    let made = copy(&data, &to);
    let lacks = |digest: Digest, how: &str| {
        made.lacking.iter().any(|what| what.contains(&digest.to_string()) && what.ends_with(how))
    };
    assert!(made.lacking.len() == 2 && lacks(first, "is gone") && lacks(second, "is damaged"), "{:?}", made.lacking);
    let restored = restore(&to, &dir.path().join("back"), &mut |_| {}).expect("it says what it lacks");
    assert_eq!(restored.lacking, made.lacking);
}

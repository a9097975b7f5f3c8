//! Secrets stay where they are made: whoever stands between a joiner and its orchestrator, reads the disk or the log of
//! the orchestrator, or looks into its memory, finds nothing that would let him in.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use modchain_certs::{Credentials, JoinToken, KeyRequest, RootPin};
use modchain_link::{CloseReason, ConnectError, Protocol, connect, join_connect};
use modchain_orchestrator::init::own_identity_dir;
use modchain_types::{BootId, Chunk, InstanceId, List, Role, Text};
use modchain_wire::agent::AgentHello;
use modchain_wire::console::Revoke;
use modchain_wire::join::RenewRequest;
use modchain_wire::{FromAgent, FromJoiner, Message, ToAgent, ToConsole, ToJoiner};

use super::eavesdropper::{Impostor, Shown, Wiretap};
use super::joiner::{Joiner, Outcome, now, wish};
use super::needles::Needles;
use super::world::{Console, PATIENCE, World, offer, soon, text};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_modchain-orchestrator");
/// Of another process's memory, at once.
const MEMORY_BYTES_AT_ONCE: usize = 1 << 20;
/// A find may lie across two pieces of memory; no needle is longer.
const OVERLAP: usize = 128;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn join_mitm_wrong_ca() {
    let world = World::start().await;
    let boss = world.console("boss").await;
    let (token, key) = (boss.token(&world, Role::Node).await, KeyRequest::generate());
    let mut needles = Needles::default();
    needles.token("the token's secret", &token);
    let dir = tempfile::tempdir().expect("a directory");

    // That the apparatus hears: a joiner who takes the attacker for its orchestrator tells him everything that it says.
    let (shown, attacker) = Shown::of_other_authority(&dir.path().join("attacker"));
    let impostor = Impostor::listen(shown);
    let pin = RootPin::of_root(attacker.root()).expect("a root");
    let naive = soon("a connection", join_connect(pin, &impostor.address)).await.expect("a connection");
    let (mut out, mut input) = naive.open_bi::<FromJoiner, ToJoiner>().await.expect("a stream");
    let mut hello = Joiner::new(&token, &key).hello();
    hello.version = Text::cut(token.text().as_str()[69..].to_owned());
    out.write(&hello.into()).await.expect("it is taken");
    assert!(matches!(soon("a challenge", input.read()).await, Ok(Some(ToJoiner::Challenge(_)))));
    assert_eq!(impostor.seen(), (1, 0));
    assert!(!needles.find(&impostor.read()).is_empty(), "what is planted is found");

    // Another authority; another authority that shows the true root as well.
    for with_true_root in [false, true] {
        let (mut shown, _) = Shown::of_other_authority(&dir.path().join(format!("other-{with_true_root}")));
        if with_true_root {
            shown.chain.push(world.authority().root().clone());
        }
        let impostor = Impostor::listen(shown);
        let wire = Wiretap::before(&impostor.address).await;
        let error = soon("a refusal", join_connect(token.root(), &wire.address)).await.err().expect("it refuses");
        assert!(matches!(error, ConnectError::OtherThanToken { .. }), "{error:?}");
        assert!(!error.retryable());
        // With the last that the joiner says of it.
        soon("the end", async {
            while impostor.seen() == (0, 0) {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(impostor.seen(), (0, 1), "the handshake came to no end");
        let (up, down) = wire.bytes();
        assert!(up > 1200 && down > 600, "they did talk: {up} and {down} bytes");
        assert_eq!(impostor.read(), b"", "not a byte of what is said inside");
        assert_eq!(needles.find(&wire.recorded()), Vec::<String>::new());
        println!("with the true root {with_true_root}: {up} bytes up, {down} down, nothing said");
    }

    // Whoever has even the orchestrator's own key reads a proof for this one channel, and no secret.
    let impostor = Impostor::listen(Shown::load(&own_identity_dir(&world.place())));
    let joiner = Joiner::new(&token, &key);
    let asked = match joiner.ask(&impostor.address).await {
        Ok(asked) => asked,
        Err(outcome) => panic!("{outcome:?}"),
    };
    soon("the request", async {
        while impostor.read().len() < key.der().len() + 64 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let read = impostor.read();
    assert!(read.windows(key.der().len()).any(|part| part == key.der()), "the request is read");
    assert_eq!(needles.find(&read), Vec::<String>::new());
    drop(asked);

    // A listener before the true orchestrator is in nobody's way, and learns nothing.
    let wire = Wiretap::before(&world.join_address).await;
    joiner.join(&wire.address).await.accepted();
    let recorded = wire.recorded();
    assert!(wire.datagrams() > 5, "{}", wire.datagrams());
    assert_eq!(needles.find(&recorded), Vec::<String>::new());
    needles.part("the proof's token", "raw", &token.id().0);
    assert_eq!(needles.find(&recorded), Vec::<String>::new(), "nor which token it was");
}

/// The program, with everything that it says.
pub(crate) struct Program {
    child: Child,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
    pub(crate) main: String,
    pub(crate) join: String,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads to the end, in a thread of its own.
fn keep(from: impl std::io::Read + Send + 'static) -> (Arc<Mutex<Vec<u8>>>, JoinHandle<()>) {
    let kept: Arc<Mutex<Vec<u8>>> = Arc::default();
    let into = kept.clone();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n') {
            let line = line.expect("it can be read");
            let mut kept = into.lock().expect("sound");
            kept.extend_from_slice(&line);
            kept.push(b'\n');
        }
    });
    (kept, reader)
}

/// A shell's command with as large images of crashed processes as the system allows, in this folder.
fn with_images(dir: &Path) -> Command {
    let mut command = Command::new("sh");
    command.current_dir(dir).args(["-c", "ulimit -c unlimited; exec \"$@\"", "sh"]);
    command
}

impl Program {
    fn serve(data: &Path, images: &Path) -> Self {
        let mut command = with_images(images);
        command.args([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data"]).arg(data).env("MODCHAIN_LOG", "trace");
        Self::start(command)
    }

    /// Waits until it serves.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let (stdout, out) = keep(child.stdout.take().expect("piped"));
        let (stderr, err) = keep(child.stderr.take().expect("piped"));
        let mut program =
            Self { child, stdout, stderr, readers: vec![out, err], main: String::new(), join: String::new() };
        let until = Instant::now() + PATIENCE;
        let ready = loop {
            if let Some(line) = program.line("modchain.serving/v1") {
                break line;
            }
            assert!(Instant::now() < until, "it is not ready in time: {}", program.log());
            std::thread::sleep(std::time::Duration::from_millis(10));
        };
        program.main = ready["listen"].as_str().expect("an address").into();
        program.join = ready["join"].as_str().expect("an address").into();
        program
    }

    /// A line of this schema, if it was written.
    fn line(&self, schema: &str) -> Option<serde_json::Value> {
        let said = self.stdout.lock().expect("sound");
        let mut lines = said.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
        lines.find(|line: &serde_json::Value| line["schema"] == schema)
    }

    /// What `init` said before it.
    pub(crate) fn made(&self) -> serde_json::Value {
        self.line("modchain.init/v1").expect("it was made before")
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().expect("sound")).into_owned()
    }

    /// Ends it, and gives all that it has said.
    pub(crate) fn end(mut self, signal: rustix::process::Signal) -> (ExitStatus, Vec<u8>) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it gets the signal");
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                break status;
            }
            assert!(Instant::now() < until, "it does not end");
            std::thread::sleep(std::time::Duration::from_millis(10));
        };
        self.readers.drain(..).for_each(|reader| reader.join().expect("no panic"));
        let said = [&self.stdout.lock().expect("sound")[..], &self.stderr.lock().expect("sound")].concat();
        (status, said)
    }

    /// What of it is in its writable memory. `None` where the system does not let this process look, which is as it
    /// should be for all but root.
    fn memory(&self, needles: &Needles) -> Option<(usize, Vec<String>)> {
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        let memory = File::open(proc.join("mem")).ok()?;
        let maps = fs::read_to_string(proc.join("maps")).ok()?;
        let (mut looked_at, mut found) = (0, Vec::new());
        let mut buffer = vec![0; MEMORY_BYTES_AT_ONCE];
        for line in maps.lines().filter(|line| line.contains(" rw")) {
            let (range, _) = line.split_once(' ').expect("a range");
            let (from, to) = range.split_once('-').expect("a range");
            let [mut from, to] = [from, to].map(|end| u64::from_str_radix(end, 16).expect("an address"));
            while from < to {
                let length = usize::try_from(to - from).map_or(buffer.len(), |left| left.min(buffer.len()));
                if memory.read_exact_at(&mut buffer[..length], from).is_err() {
                    break;
                }
                looked_at += length;
                found.extend(needles.find(&buffer[..length]).into_iter().map(|what| format!("{what} in {line}")));
                if from + length as u64 == to {
                    break;
                }
                from += (length - OVERLAP) as u64;
            }
        }
        Some((looked_at, found))
    }
}

fn files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("it can be read") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() { files(&path, into) } else { into.push(path) }
    }
}

/// What is found in the files of a folder, but for those named.
fn on_disk(dir: &Path, but_for: &[&str], needles: &Needles) -> (usize, Vec<String>) {
    let mut all = Vec::new();
    files(dir, &mut all);
    all.retain(|path| !but_for.iter().any(|name| path.ends_with(name)));
    let found = all.iter().flat_map(|path| {
        let found = needles.find(&fs::read(path).expect("it can be read"));
        found.into_iter().map(move |what| format!("{what} in {}", path.display()))
    });
    let found = found.collect();
    (all.len(), found)
}

/// Joins with a key that is kept in a folder, as programs do, and gives the folder.
async fn join_into(dir: &Path, token: &JoinToken, address: &str, name: &str) -> Credentials {
    let key = KeyRequest::load_or_create(dir).expect("a key");
    let link = soon("a connection", join_connect(token.root(), address)).await.expect("a connection");
    let root = link.root().clone();
    drop(link);
    let accept = Joiner::new(token, &key).named(name).join(address).await.accepted();
    let chain = accept.chain.iter().map(|der| der.to_vec().into()).collect();
    let credentials = key.accept(chain, root, token.role(), accept.identity.id, now()).expect("a certificate");
    credentials.save(dir).expect("it is kept");
    credentials
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_leaves_a_trace() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = |name: &str| {
        let place = dir.path().join(name);
        fs::create_dir(&place).expect("a directory");
        fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("its mode");
        place
    };
    let (images, operator_dir, node_dir) = (place("images"), place("root"), place("rig"));
    let data = dir.path().join("data");
    let init = Command::new(PROGRAM).args(["init", "--name", "lab", "-o", "json", "--data"]).arg(&data).output();
    let made: serde_json::Value = serde_json::from_slice(&init.expect("it runs").stdout).expect("json");
    let operator_token = made["operator_token"].as_str().expect("it is printed");
    let operator_token = JoinToken::parse(operator_token.as_bytes()).expect("a token");

    // A pool's first day: an operator joins, makes a token, a node joins and says hello, a certificate is renewed,
    // strangers come with wrong secrets and other keys, and the node is revoked.
    let program = Program::serve(&data, &images);
    let (join, main) = (Wiretap::before(&program.join).await, Wiretap::before(&program.main).await);
    let operator = join_into(&operator_dir, &operator_token, &join.address, "root").await;
    let root = Console::connect(&operator, &main.address, "root").await;
    let node_token = JoinToken::generate(Role::Node, operator_token.root()).expect("a token");
    root.make(wish(&node_token)).await.expect("a token");
    let other = JoinToken::generate(Role::Node, operator_token.root()).expect("a token");
    let stranger = KeyRequest::generate();
    let wrong = Joiner { secret_of: &other, ..Joiner::new(&node_token, &stranger) };
    assert!(matches!(wrong.join(&join.address).await, Outcome::Refused(_)));
    let node = join_into(&node_dir, &node_token, &join.address, "rig").await;
    assert!(matches!(Joiner::new(&node_token, &stranger).join(&join.address).await, Outcome::Refused(_)));
    let connection = soon("a connection", connect(&node, &main.address, Protocol::Agent)).await.expect("a connection");
    let (mut out, mut control) = connection.open_bi::<FromAgent, ToAgent>().await.expect("a stream");
    let hello = AgentHello {
        types: ToAgent::known_types(),
        instance: InstanceId([1; 16]),
        boot: BootId([1; 16]),
        highest_fence: None,
        journal: None,
        inventory: List::default(),
        offer: offer(),
        wall: now(),
    };
    out.write(&hello.into()).await.expect("it is taken");
    assert!(matches!(soon("a welcome", control.read()).await, Ok(Some(ToAgent::Welcome(_)))));
    let fresh_dir = place("fresh");
    let fresh = KeyRequest::load_or_create(&fresh_dir).expect("a key");
    let proof = fresh.prove_renewal(&root.connection.exporter());
    let (request, proof) = (Chunk::new(fresh.der().to_vec()).expect("it fits"), Chunk::new(proof).expect("it fits"));
    assert!(matches!(root.ask(RenewRequest { request, proof }).await, ToConsole::Renewed(_)));

    let mut needles = Needles::default();
    needles.token("the operator's token", &operator_token);
    needles.token("the node's token", &node_token);
    needles.token("a token that nobody made", &other);
    needles.key_pem("the operator's key", &fs::read(operator_dir.join("key.pem")).expect("it is there"));
    needles.key_pem("the node's key", &fs::read(node_dir.join("key.pem")).expect("it is there"));
    needles.key_pem("the operator's next key", &fs::read(fresh_dir.join("key.pem.new")).expect("it is there"));

    // The memory of the living program. It has the keys of the authority and its own in there, necessarily; but nobody
    // else's. First that the search sees what is there: the half of a token that is public.
    let mut verifier = Needles::default();
    verifier.part("the verifier of the node's token", "raw", &node_token.verifier());
    match program.memory(&verifier) {
        Some((_, found)) => {
            assert!(!found.is_empty(), "the search sees what is there");
            let (looked_at, found) = program.memory(&needles).expect("as just before");
            println!("memory: {} MiB looked at, {} finds", looked_at >> 20, found.len());
            assert_eq!(found, Vec::<String>::new());
        }
        None => println!("memory: this user may not look into it, as it should be"),
    }

    let revoke = Revoke { identity: text("node/rig"), why: text("sold") };
    assert!(matches!(root.ask(revoke).await, ToConsole::Revoked(_)));
    let reason: CloseReason = soon("a close", connection.closed()).await;
    assert!(format!("{reason:?}").contains("Revoked"), "{reason:?}");
    // What has crashed leaves no image of its memory.
    let control = with_images(&images).args(["sh", "-c", "kill -ABRT $$"]).status().expect("it runs");
    let leaves_images = control.core_dumped();
    for image in fs::read_dir(&images).expect("it can be read") {
        fs::remove_file(image.expect("it can be read").path()).expect("it is removed");
    }
    let (status, mut said) = program.end(rustix::process::Signal::ABORT);
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false));
    assert_eq!(fs::read_dir(&images).expect("it can be read").count(), 0, "no image of the memory");
    println!("image: none, where another program's crash leaves one: {leaves_images}");

    // The next start replays all of it, and ends in order.
    let (status, said_later) = Program::serve(&data, &images).end(rustix::process::Signal::TERM);
    assert!(status.success(), "{status:?}");
    said.extend(said_later);
    assert!(said.len() > 10_000, "it was to say everything");

    let keys = ["ca/root.pem", "ca/issuing.pem", "tls/key.pem"];
    for (what, file) in [("the root's key", keys[0]), ("the issuing key", keys[1]), ("its own key", keys[2])] {
        needles.key_pem(what, &fs::read(data.join(file)).expect("it is there"));
    }
    assert!(on_disk(&data, &[], &needles).1.len() >= 3, "the search sees the keys in their files");
    let (count, found) = on_disk(&data, &keys, &needles);
    assert_eq!(found, Vec::<String>::new());
    assert_eq!(needles.find(&said), Vec::<String>::new(), "in the log");
    let recorded = [join.recorded(), main.recorded()].concat();
    assert_eq!(needles.find(&recorded), Vec::<String>::new(), "on the wire");
    println!(
        "no secret in {count} files, {} KiB of log, {} datagrams of {} KiB",
        said.len() >> 10,
        join.datagrams() + main.datagrams(),
        recorded.len() >> 10,
    );
    // And once more that it would be found there.
    for (planted, into) in [(&operator_token, said), (&node_token, recorded)] {
        assert!(!needles.find(&[&into[..], planted.text().as_bytes()].concat()).is_empty());
    }
}

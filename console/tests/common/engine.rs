//! The container engine of this machine, and a registry beside it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};

/// A static busybox and nothing else.
pub(crate) const IMAGE: &str = "modchain-test/busybox:1";

/// Whether there is an engine. Without one a test says so and passes, except where everything must be tested.
pub(crate) fn engine_is_there() -> bool {
    static THERE: OnceLock<bool> = OnceLock::new();
    *THERE.get_or_init(|| {
        let there = Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]).output();
        let there = there.is_ok_and(|output| output.status.success());
        if there {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker/test/test-image.sh");
            let made = Command::new(&script).output().expect("the script runs");
            assert!(made.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&made.stderr));
        } else if std::env::var_os("CI").is_some_and(|ci| ci == "true") {
            panic!("CI=true, and there is no container engine: install docker.io and start dockerd");
        } else {
            eprintln!("skipped: there is no container engine here");
        }
        there
    })
}

/// What the engine's own client says.
pub(crate) fn docker(args: &[&str]) -> String {
    run("docker", args)
}

/// Containers of this job, whatever their state.
pub(crate) fn containers(job: &str) -> String {
    docker(&["ps", "--all", "--quiet", "--filter", &format!("label=modchain.job={job}")])
}

/// An image registry on this machine, for tests that have no other. It serves until the test program ends.
pub(crate) struct Registry {
    /// `HOST:PORT`.
    pub(crate) address: String,
    /// Of the manifest of its image.
    pub(crate) digest: String,
}

/// What a registry serves.
#[derive(Default)]
struct Shelf {
    /// Blobs and manifests by the last part of their path, with what kind of file they are.
    files: BTreeMap<String, (&'static str, Vec<u8>)>,
    /// The one that is sent little by little.
    slow: Option<String>,
}

/// Bytes of the layer that is sent slowly: random ones, so that no engine has them.
const SLOW_BYTES: usize = 2 << 20;
/// Pieces that it is sent in, and the pause after each: some three seconds.
const SLOW_PIECES: usize = 30;
const SLOW_PAUSE: Duration = Duration::from_millis(100);

impl Registry {
    /// One that has no image.
    pub(crate) fn empty() -> Self {
        Self::serve(Shelf::default(), String::new())
    }

    /// One that has `some/image:1`: the test's image with a file on top, which takes a while to come.
    pub(crate) fn with_image() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        run("docker", &["save", "--output", &path("saved.tar"), IMAGE]);
        run("tar", &["-x", "-f", &path("saved.tar"), "-C", &path("")]);
        let saved: Value = serde_json::from_slice(&read(&path("manifest.json"))).expect("JSON");
        let base = read(&path(saved[0]["Layers"][0].as_str().expect("a layer")));
        let mut random = vec![0; SLOW_BYTES];
        File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random)).expect("random bytes");
        std::fs::write(path("ballast"), random).expect("writes");
        run("tar", &["-c", "-f", &path("top.tar"), "-C", &path(""), "ballast"]);
        let top = read(&path("top.tar"));

        let mut shelf = Shelf::default();
        let mut layer = |name: &str, bytes: Vec<u8>| {
            std::fs::write(path(name), &bytes).expect("writes");
            let sum = run("sha256sum", &[&path(name)]);
            let digest = format!("sha256:{}", sum.split(' ').next().expect("a sum"));
            let size = bytes.len();
            shelf.files.insert(digest.clone(), ("application/octet-stream", bytes));
            (digest, size)
        };
        let (base, top) = (layer("base", base), layer("top", top));
        let config = json!({
            "architecture": docker(&["version", "--format", "{{.Server.Arch}}"]), "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [base.0, top.0]},
        });
        let config = layer("config", config.to_string().into_bytes());
        let kind = |kind: &str| format!("application/vnd.docker.{kind}");
        let entry =
            |of: &str, (digest, size): &(String, usize)| json!({"mediaType": kind(of), "size": size, "digest": digest});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind("distribution.manifest.v2+json"),
            "config": entry("container.image.v1+json", &config),
            "layers": [entry("image.rootfs.diff.tar", &base), entry("image.rootfs.diff.tar", &top)],
        });
        let manifest = manifest.to_string().into_bytes();
        let (digest, _) = layer("manifest", manifest.clone());
        for name in [&digest, "1"] {
            let kind = "application/vnd.docker.distribution.manifest.v2+json";
            shelf.files.insert(name.to_owned(), (kind, manifest.clone()));
        }
        shelf.slow = Some(top.0);
        Self::serve(shelf, digest)
    }

    /// The image that it has, in the engine's words.
    pub(crate) fn image(&self) -> String {
        format!("{}/some/image", self.address)
    }

    fn serve(shelf: Shelf, digest: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let (shelf, of) = (Arc::new(shelf), digest.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shelf, digest) = (shelf.clone(), of.clone());
                // An engine that leaves has its answer.
                std::thread::spawn(move || drop(shelf.answer(stream, &digest)));
            }
        });
        Self { address, digest }
    }
}

impl Shelf {
    /// One request, and then the end: clients come back with another connection.
    fn answer(&self, mut stream: TcpStream, digest: &str) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let request = lines.next().unwrap_or(Ok(String::new()))?;
        // The head ends with an empty line.
        lines.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
        let mut words = request.split(' ');
        let (verb, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let name = path.rsplit('/').next().unwrap_or_default();
        let missing = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#.to_vec();
        let (status, kind, body) = match self.files.get(name) {
            Some((kind, body)) => ("200 OK", *kind, body.clone()),
            None if path == "/v2/" => ("200 OK", "application/json", b"{}".to_vec()),
            None => ("404 Not Found", "application/json", missing),
        };
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\
             Docker-Distribution-Api-Version: registry/2.0\r\nDocker-Content-Digest: {digest}\r\n\r\n"
        )?;
        if verb == "HEAD" {
            return Ok(());
        }
        let slow = self.slow.as_deref() == Some(name);
        for piece in body.chunks(if slow { length.div_ceil(SLOW_PIECES) } else { length.max(1) }) {
            stream.write_all(piece)?;
            std::thread::sleep(if slow { SLOW_PAUSE } else { Duration::ZERO });
        }
        Ok(())
    }
}

fn read(path: &str) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().expect("it runs");
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

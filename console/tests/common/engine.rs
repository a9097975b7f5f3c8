//! The container engine of this machine, and a registry that has nothing.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

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
    let output = Command::new("docker").args(args).output().expect("docker runs");
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// Containers of this job, whatever their state.
pub(crate) fn containers(job: &str) -> String {
    docker(&["ps", "--all", "--quiet", "--filter", &format!("label=modchain.job={job}")])
}

/// A registry on this machine that answers, and knows no image: gives its address. It serves until the test program ends.
pub(crate) fn empty_registry() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().expect("a socket")).lines();
            let request = lines.next().and_then(Result::ok).unwrap_or_default();
            // The head ends with an empty line.
            lines.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
            let (status, body) = match request.split(' ').nth(1) {
                Some("/v2/") => ("200 OK", "{}"),
                _ => ("404 Not Found", r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#),
            };
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len());
            let version = "Docker-Distribution-Api-Version: registry/2.0\r\nConnection: close\r\n\r\n";
            // An engine that leaves has its answer.
            let _ = stream.write_all(format!("{head}{version}{body}").as_bytes());
        }
    });
    address
}

//! The image that the stories run, and whether there is an engine to run it on.

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
            make_image();
        } else if must_test_all() {
            panic!("CI=true, and there is no container engine: install docker.io and start dockerd");
        } else {
            eprintln!("skipped: there is no container engine here");
        }
        there
    })
}

/// Whether what is missing is a failure.
pub(crate) fn must_test_all() -> bool {
    std::env::var_os("CI").is_some_and(|ci| ci == "true")
}

fn make_image() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker/test/test-image.sh");
    let output = Command::new(&script).output().expect("the script runs");
    assert!(output.status.success(), "{} failed: {}", script.display(), String::from_utf8_lossy(&output.stderr));
}

/// What the engine's own client says.
pub(crate) fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().expect("docker runs");
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

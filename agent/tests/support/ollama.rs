//! A real Ollama server with a real small model, for the tests of any crate: include it with `#[path]`.
//!
//! [`shared`] gives the one that `OLLAMA_HOST` names, or one that is started for the whole test program; [`own`] starts one that
//! a test may kill. Both start `.ci/ollama-server.sh`, which ends the server when this program ends, however that happens. Where
//! nothing is installed and `CI` is not `true`, they print why and give nothing: the test returns then.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// The model that every such server has.
pub(crate) const MODEL: &str = "smollm2:135m";

/// A server that was started here. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct OllamaServer {
    script: Child,
    url: String,
}

/// The server that all tests of this program may share. Nobody may kill it.
pub(crate) fn shared() -> Option<String> {
    static SHARED: OnceLock<Option<(String, Option<OllamaServer>)>> = OnceLock::new();
    let server = SHARED.get_or_init(|| match std::env::var("OLLAMA_HOST") {
        Ok(host) if host.starts_with("http://") => Some((host, None)),
        Ok(host) if !host.is_empty() => Some((format!("http://{host}"), None)),
        Ok(_) | Err(_) => own().map(|server| (server.url.clone(), Some(server))),
    });
    server.as_ref().map(|(url, _)| url.clone())
}

/// A server of one's own.
pub(crate) fn own() -> Option<OllamaServer> {
    let dir = installed_in();
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    if !ci && !dir.join("installed").exists() {
        eprintln!("NOT TESTED: no Ollama in {}; `.ci/ollama-server.sh {0} install` brings one", dir.display());
        return None;
    }
    Some(OllamaServer::start(&dir))
}

fn installed_in() -> PathBuf {
    match std::env::var_os("MODCHAIN_TEST_OLLAMA_DIR") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools").join("ollama"),
    }
}

impl OllamaServer {
    fn start(dir: &Path) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/ollama-server.sh");
        for _ in 0..3 {
            // Somebody else may take the port before the server does; then another one is tried.
            let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address").port();
            let mut script = Command::new(&script)
                .arg(dir)
                .arg("serve")
                .env("OLLAMA_HOST", format!("127.0.0.1:{port}"))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .process_group(0)
                .spawn()
                .expect("the script starts");
            let stdout = BufReader::new(script.stdout.take().expect("a pipe"));
            let ready =
                stdout.lines().map_while(Result::ok).find_map(|line| line.strip_prefix("ready: ").map(str::to_owned));
            let server = Self { script, url: ready.clone().unwrap_or_default() };
            if ready.is_some() {
                return server;
            }
        }
        panic!("no Ollama server could be started in {}", dir.display());
    }

    /// `http://HOST:PORT`.
    #[allow(dead_code, reason = "not every program that includes this file starts servers of its own")]
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for OllamaServer {
    /// The script, the server, and the processes that hold models, all at once.
    fn drop(&mut self) {
        let group = i32::try_from(self.script.id()).expect("a process id");
        // SAFETY: the call takes no memory; the group is of a child that has not been waited for.
        unsafe { libc::kill(-group, libc::SIGKILL) };
        // It was killed, and so it ends.
        let _ = self.script.wait();
    }
}

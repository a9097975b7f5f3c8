//! An engine that says what a story needs, for what the real one cannot be brought to here: a registry, and lies.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// A digest for tests.
pub(crate) const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// One answer.
#[derive(Clone)]
pub(crate) enum Answer {
    Json(u16, Value),
    /// Lines, each after a pause.
    Lines(Duration, Vec<Value>),
    /// None at all.
    Silence,
}

/// The answers to requests whose line contains a text; the last answer to each stays.
pub(crate) type Script = Vec<(&'static str, VecDeque<Answer>)>;

/// A listening engine.
pub(crate) struct Engine {
    pub(crate) host: String,
    requests: Arc<Mutex<Vec<String>>>,
    _dir: TempDir,
}

impl Engine {
    pub(crate) fn start(mut script: Script) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("engine.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let info = json!({
            "ServerVersion": "20.10.24", "OSType": "linux", "Architecture": "x86_64", "MemoryLimit": true,
            "SwapLimit": true, "PidsLimit": true, "CpuCfsQuota": true,
            "SecurityOptions": ["name=seccomp,profile=default"],
        });
        script.push(("GET /version", [Answer::Json(200, json!({ "ApiVersion": "1.41" }))].into()));
        script.push(("/info ", [Answer::Json(200, info)].into()));
        let script = Arc::new(Mutex::new(script));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, script.clone(), seen.clone()));
            }
        });
        Self { host: format!("unix://{}", socket.display()), requests, _dir: dir }
    }

    /// The lines of the requests so far that contain this.
    pub(crate) fn requests(&self, part: &str) -> Vec<String> {
        self.requests.lock().unwrap().iter().filter(|line| line.contains(part)).cloned().collect()
    }
}

async fn serve(mut stream: UnixStream, script: Arc<Mutex<Script>>, seen: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    seen.lock().unwrap().push(line.clone());
    let answer = script.lock().unwrap().iter_mut().find(|(part, _)| line.contains(part)).map(|(_, answers)| {
        if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }.expect("one stays")
    });
    let missing = Answer::Json(404, json!({ "message": format!("nothing is scripted for {line}") }));
    match answer.unwrap_or(missing) {
        Answer::Json(status, body) => {
            let body = body.to_string();
            let head = format!(
                "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all((head + &body).as_bytes()).await;
        }
        Answer::Lines(pause, lines) => {
            let head = "HTTP/1.1 200 x\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
            if stream.write_all(head.as_bytes()).await.is_err() {
                return;
            }
            for line in lines {
                tokio::time::sleep(pause).await;
                if stream.write_all(format!("{line}\r\n").as_bytes()).await.is_err() {
                    return;
                }
            }
        }
        // Until the other side gives up.
        Answer::Silence => while stream.read(&mut [0; 64]).await.is_ok_and(|bytes| bytes > 0) {},
    }
}

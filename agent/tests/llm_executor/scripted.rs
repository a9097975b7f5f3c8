//! A model server that does as it is told, for what a real one will not do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What a scripted server does about a request.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Sends these bytes, in a chunk of their own.
    Send(Vec<u8>),
    /// Sends these bytes again and again until nobody takes them.
    Flood(Vec<u8>),
    /// Says nothing until the connection is closed by the other side.
    Hang,
    /// Closes the connection in the middle of the answer.
    Cut,
}

/// Status and steps.
pub(crate) type Reply = (u16, Vec<Step>);

/// The lines, each in a chunk.
pub(crate) fn lines(lines: &[&str]) -> Vec<Step> {
    lines.iter().map(|line| Step::Send(format!("{line}\n").into_bytes())).collect()
}

/// An answer with a status.
pub(crate) fn status(status: u16, body: &str) -> Reply {
    (status, vec![Step::Send(body.into())])
}

/// What a server says when the model is in memory.
pub(crate) fn loaded() -> Reply {
    (200, lines(&[r#"{"response":"","done":true,"done_reason":"load"}"#]))
}

/// The last line of an answer with so many tokens read and made.
pub(crate) fn last(prompt: u64, made: u64) -> String {
    format!(r#"{{"response":"","done":true,"done_reason":"stop","prompt_eval_count":{prompt},"eval_count":{made}}}"#)
}

/// A running server.
pub(crate) struct Scripted {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
    hung_up: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Scripted {
    /// Answers the requests in their order.
    pub(crate) async fn answering(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, hung_up, sent) = (Arc::default(), Arc::default(), Arc::default());
        let replies = Arc::new(Mutex::new(replies.into_iter()));
        let serving = {
            let (seen, hung_up, sent): (Arc<Mutex<Vec<_>>>, Arc<AtomicUsize>, Arc<AtomicUsize>) =
                (Arc::clone(&seen), Arc::clone(&hung_up), Arc::clone(&sent));
            tokio::spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (seen, replies) = (Arc::clone(&seen), Arc::clone(&replies));
                    let (hung_up, sent) = (Arc::clone(&hung_up), Arc::clone(&sent));
                    tokio::spawn(async move {
                        let mut stream = BufReader::new(stream);
                        let request = read_request(&mut stream).await;
                        seen.lock().unwrap().push(request);
                        let reply = replies.lock().unwrap().next();
                        let reply = reply.unwrap_or_else(|| status(500, "no more was expected"));
                        if !play(&mut stream, reply, &sent).await {
                            hung_up.fetch_add(1, Ordering::SeqCst);
                        }
                    });
                }
            })
        };
        Self { url, seen, hung_up, sent, serving }
    }

    /// Loads, and then answers so.
    pub(crate) async fn loading_then(reply: Reply) -> Self {
        Self::answering(vec![loaded(), reply]).await
    }

    /// The requests so far: method and path, and the body.
    pub(crate) fn seen(&self) -> Vec<(String, Value)> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.seen().into_iter().map(|(path, _)| path).collect()
    }

    /// How many connections the other side has closed before the answer was whole.
    pub(crate) fn hung_up(&self) -> usize {
        self.hung_up.load(Ordering::SeqCst)
    }

    /// Bytes that floods have sent.
    pub(crate) fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> (String, Value) {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    let request = line.rsplit_once(' ').expect("a request's line").0.to_owned();
    let mut length = 0;
    loop {
        line.clear();
        stream.read_line(&mut line).await.unwrap();
        let header = line.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    (request, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// Whether the other side has heard it to its end.
async fn play(stream: &mut BufReader<TcpStream>, (status, steps): Reply, sent: &AtomicUsize) -> bool {
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\
         connection: close\r\n\r\n"
    );
    if stream.write_all(head.as_bytes()).await.is_err() {
        return false;
    }
    for step in steps {
        match step {
            Step::Send(bytes) => {
                if send(stream, &bytes).await.is_err() {
                    return false;
                }
            }
            Step::Flood(bytes) => {
                while send(stream, &bytes).await.is_ok() {
                    sent.fetch_add(bytes.len(), Ordering::SeqCst);
                }
                return false;
            }
            Step::Hang => {
                let mut byte = [0];
                // The other side has nothing more to say: this returns when it closes.
                let _ = stream.read(&mut byte).await;
                return false;
            }
            Step::Cut => return true,
        }
    }
    let _ = stream.write_all(b"0\r\n\r\n").await;
    true
}

async fn send(stream: &mut BufReader<TcpStream>, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
    stream.write_all(bytes).await?;
    stream.write_all(b"\r\n").await?;
    stream.flush().await
}

//! How the owner's commands reach a running agent: a socket in its folder.
//!
//! One connection is one question: a line of JSON in, a line of JSON out. Only the user that the agent runs as and root are
//! heard; the file's mode says so, and the kernel is asked again who is there. Everything is bounded: lines, time, and how
//! many ask at once.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use modchain_types::Span;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::describe::{self, Facts};
use crate::engine::{EngineInput, Sight};
use crate::owner::{OwnerSight, Wish};
use crate::session::REFUSAL_FILE;

/// The socket's name in the node's folder.
pub const SOCKET_FILE: &str = "control.sock";

/// Longest question: a verb and a number.
const QUESTION_BYTES_MAX: u64 = 1024;

/// Longest answer: an offer of 64 GPUs and 256 models, and some attempts.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Most connections at once; another one waits.
const CONNECTIONS_MAX: usize = 8;

/// Longest time for one question and its answer.
const EXCHANGE_MAX: Duration = Duration::from_secs(10);

/// After a connection could not be taken, for want of descriptors most likely.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// How is it?
    Status,
    /// Take no new jobs until told otherwise.
    Pause,
    /// Take new jobs again.
    Resume,
    /// Take no new jobs, and end what still runs after a time.
    Drain {
        /// How long what runs may go on, in milliseconds; without it to its end.
        within_ms: Option<u64>,
    },
    /// Read the settings again.
    Reload,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// `modchain.agent_status/v1`, after what was asked has been done.
    Status(Value),
    /// It was done, and these settings wait for a restart.
    Reloaded {
        /// Their names.
        needs_restart: Vec<String>,
        /// Whether the offer is another one now.
        offer_changed: bool,
    },
    /// It was not done.
    Refused(String),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("no agent runs on {}", data.display())]
    NotRunning {
        /// The folder.
        data: PathBuf,
    },
    /// Somebody else's agent.
    #[error("the agent on {} belongs to another user", data.display())]
    Denied {
        /// The folder.
        data: PathBuf,
    },
    /// It did not answer, or not so that it is understood.
    #[error("the agent on {} does not answer", data.display())]
    Broken {
        /// The folder.
        data: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
}

/// The parts of a running agent that know the answers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Agent {
    /// What does not change.
    pub facts: Arc<Facts>,
    /// The owner's side.
    pub owner: mpsc::Sender<Wish>,
    /// The engine.
    pub engine: mpsc::Sender<EngineInput>,
}

impl Agent {
    /// Asks both sides how they are; `None` if one of them is gone. While the engine hangs, so does this.
    pub async fn look(&self) -> Option<(Sight, OwnerSight)> {
        let (reply, engine) = oneshot::channel();
        self.engine.send(EngineInput::Look(reply)).await.ok()?;
        let (reply, owner) = oneshot::channel();
        self.owner.send(Wish::Look(reply)).await.ok()?;
        Some((engine.await.ok()?, owner.await.ok()?))
    }

    async fn answer(&self, question: Question) -> Answer {
        match question {
            Question::Status => self.status().await,
            Question::Pause => self.wish(Wish::Pause).await,
            Question::Resume => self.wish(Wish::Resume).await,
            Question::Drain { within_ms } => {
                let within = within_ms.map(Span::from_millis);
                self.wish(|reply| Wish::Drain { within, reply }).await
            }
            Question::Reload => {
                let (reply, answer) = oneshot::channel();
                // Nobody who is gone answers.
                let _ = self.owner.send(Wish::Reload(reply)).await;
                match answer.await {
                    Ok(Ok(reloaded)) => Answer::Reloaded {
                        needs_restart: reloaded.needs_restart.into_iter().map(str::to_owned).collect(),
                        offer_changed: reloaded.offer_changed,
                    },
                    Ok(Err(why)) => Answer::Refused(why),
                    Err(_) => stopping(),
                }
            }
        }
    }

    async fn wish(&self, wish: impl FnOnce(oneshot::Sender<Result<(), String>>) -> Wish) -> Answer {
        let (reply, answer) = oneshot::channel();
        let _ = self.owner.send(wish(reply)).await;
        match answer.await {
            Ok(Ok(())) => self.status().await,
            Ok(Err(why)) => Answer::Refused(why),
            Err(_) => stopping(),
        }
    }

    async fn status(&self) -> Answer {
        let Some((engine, owner)) = self.look().await else { return stopping() };
        let refused = fs::read_to_string(self.facts.data.join(REFUSAL_FILE)).ok();
        Answer::Status(describe::status(&self.facts, &engine, &owner, refused.as_deref()))
    }
}

fn stopping() -> Answer {
    Answer::Refused("the agent is stopping".into())
}

/// The socket, listening.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Listens in this folder, which is this agent's alone: whoever left a socket there is gone.
    pub fn bind(data: &Path) -> io::Result<Self> {
        let path = data.join(SOCKET_FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let folder = File::open(data)?;
        let listener = UnixListener::bind(short_path(&folder))?;
        // The folder lets nobody in before this.
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// Answers until it is dropped.
    pub async fn serve(self, agent: Agent) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut exchanges = JoinSet::new();
        loop {
            // Never closed, so there is a place some time.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a question cannot be taken");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            while exchanges.try_join_next().is_some() {}
            let agent = agent.clone();
            exchanges.spawn(async move {
                let _place = place;
                match tokio::time::timeout(EXCHANGE_MAX, exchange(stream, &agent)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "a question came to nothing"),
                    Err(_) => tracing::warn!("a question was not answered in time"),
                }
            });
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // The next start removes what cannot be removed now.
        let _ = fs::remove_file(&self.path);
    }
}

async fn exchange(stream: UnixStream, agent: &Agent) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let own = rustix::process::geteuid().as_raw();
    if peer != own && peer != 0 {
        tracing::warn!(uid = peer, "somebody else asked, and was not heard");
        return Ok(());
    }
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(QUESTION_BYTES_MAX)).read_line(&mut line).await?;
    let answer = match serde_json::from_str::<Question>(&line) {
        Ok(question) => {
            tracing::debug!(?question, "asked by the owner");
            agent.answer(question).await
        }
        Err(error) => Answer::Refused(format!("this agent does not understand the question: {error}")),
    };
    let mut bytes = serde_json::to_vec(&answer)?;
    bytes.push(b'\n');
    write.write_all(&bytes).await?;
    write.shutdown().await
}

/// Asks the agent that runs on this folder.
pub async fn ask(data: &Path, question: Question) -> Result<Answer, AskError> {
    let data = data.to_owned();
    let asked = async {
        let folder = File::open(&data)?;
        let stream = UnixStream::connect(short_path(&folder)).await?;
        let (read, mut write) = stream.into_split();
        let mut bytes = serde_json::to_vec(&question)?;
        bytes.push(b'\n');
        write.write_all(&bytes).await?;
        let mut answer = Vec::new();
        read.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        if answer.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_slice(&answer).map_err(io::Error::from)
    };
    // A little longer than the other side takes, so that its word counts.
    let asked = match tokio::time::timeout(EXCHANGE_MAX + Duration::from_secs(1), asked).await {
        Ok(asked) => asked,
        Err(_) => Err(ErrorKind::TimedOut.into()),
    };
    asked.map_err(|source: io::Error| match source.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => AskError::NotRunning { data },
        ErrorKind::PermissionDenied => AskError::Denied { data },
        _ => AskError::Broken { data, source },
    })
}

/// The folders at or below `data` in which an agent has a socket: one for each node of this machine.
pub fn find(data: &Path) -> io::Result<Vec<PathBuf>> {
    let has_socket = |folder: &PathBuf| folder.join(SOCKET_FILE).exists();
    let mut found: Vec<PathBuf> = Some(data.to_owned()).filter(has_socket).into_iter().collect();
    match fs::read_dir(data) {
        Ok(entries) => found.extend(entries.flatten().map(|entry| entry.path()).filter(has_socket)),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(found)
}

/// The name of a socket holds about a hundred bytes, and a folder's path may be longer: this one goes by the open folder.
fn short_path(folder: &File) -> PathBuf {
    format!("/proc/self/fd/{}/{SOCKET_FILE}", folder.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(data: &Path) -> Agent {
        let facts = Facts {
            node: modchain_types::NodeId([1; 16]),
            name: None,
            orchestrator: "pool:7443".into(),
            data: data.into(),
            started_at: modchain_types::WallTime(0),
        };
        // Nobody is there to answer: whatever needs an answer is refused, and what is malformed is refused before.
        Agent { facts: Arc::new(facts), owner: mpsc::channel(1).0, engine: mpsc::channel(1).0 }
    }

    async fn say(data: &Path, bytes: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(data.join(SOCKET_FILE)).await.expect("listens");
        // It may have heard enough before all is said.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn only_its_user_may_ask_and_nonsense_is_refused_within_bounds() {
        let dir = tempfile::tempdir().expect("dir");
        let data = dir.path();
        assert!(matches!(ask(data, Question::Status).await, Err(AskError::NotRunning { .. })));
        assert_eq!(find(data).expect("looks"), Vec::<PathBuf>::new());
        fs::write(data.join(SOCKET_FILE), "left by somebody").expect("writes");
        let socket = ControlSocket::bind(data).expect("binds");
        let mode = fs::metadata(data.join(SOCKET_FILE)).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(find(data).expect("looks"), [data]);
        assert!(find(data.parent().expect("has one")).expect("looks").contains(&data.to_owned()));
        let serving = tokio::spawn(socket.serve(agent(data)));

        for nonsense in
            [&b"{}\n"[..], b"{\"verb\":\"format\"}\n", b"\n", b"{\"verb\":\"status\",\"x\":1}\n", &[b'a'; 9000]]
        {
            let answer = String::from_utf8(say(data, nonsense).await).expect("text");
            assert!(answer.starts_with("{\"refused\":") && answer.ends_with("\n"), "{answer}");
        }
        assert_eq!(ask(data, Question::Status).await.expect("answers"), stopping());
        serving.abort();
        let _ = serving.await;
        assert!(!data.join(SOCKET_FILE).exists(), "it is gone with its listener");
    }

    #[tokio::test]
    async fn a_long_path_is_no_obstacle() {
        let dir = tempfile::tempdir().expect("dir");
        let data = dir.path().join("d".repeat(120)).join("e".repeat(120));
        fs::create_dir_all(&data).expect("makes");
        let socket = ControlSocket::bind(&data).expect("binds");
        let serving = tokio::spawn(socket.serve(agent(&data)));
        assert_eq!(ask(&data, Question::Resume).await.expect("answers"), stopping());
        serving.abort();
    }
}

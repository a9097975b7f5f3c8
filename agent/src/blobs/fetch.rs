//! Fetching blobs from the orchestrator: one download for all who want the same blob, over whatever connection there is.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use modchain_link::{Backoff, Connection, Priority};
use modchain_types::{AttemptId, Digest, Fence};
use modchain_wire::agent::{BlobGet, FromAgent, ToAgent};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::BlobCache;

/// Longest time for one blob, waiting for a connection included. Longer than any module needs on any usable path.
const FETCH_MAX: Duration = Duration::from_secs(600);

/// Longest wait for the next piece.
const PIECE_MAX: Duration = Duration::from_secs(30);

/// Downloads at once: enough to hide the round trips of one while another is written, and few of the connection's streams.
pub(crate) const DOWNLOADS_MAX: usize = 4;

/// Requests that may wait for the task that sorts them; more wait in their senders.
const REQUESTS_WAITING_MAX: usize = 64;

/// A blob that an attempt needs.
#[derive(Debug, Clone)]
pub struct BlobRequest {
    /// Which attempt: a digest alone opens nothing.
    pub attempt: AttemptId,
    /// Under which fence.
    pub fence: Fence,
    /// Which blob.
    pub digest: Digest,
    /// Bytes that it should have.
    pub bytes: u64,
    /// Where it is to be put.
    pub place: PathBuf,
}

/// Why a blob cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// The orchestrator does not give it.
    #[error("the orchestrator refused it: {why}")]
    Refused {
        /// Its words.
        why: String,
    },
    /// It has another size than the job says.
    #[error("it has {got} bytes, and the job says {expected}")]
    Size {
        /// Bytes that the job says.
        expected: u64,
        /// Bytes that it has.
        got: u64,
    },
    /// What came has another digest.
    #[error("what the orchestrator sent has another digest")]
    Digest,
    /// The node's disk failed.
    #[error("the node cannot write it: {0}")]
    Disk(Arc<io::Error>),
    /// It took too long.
    #[error("it did not come within {} minutes", FETCH_MAX.as_secs() / 60)]
    TimedOut,
    /// The agent is stopping.
    #[error("the agent is stopping")]
    Stopped,
}

impl FetchError {
    /// Whether it is about the one who asked: another who wants the same blob may have more luck.
    fn concerns_asker_alone(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::Size { .. } => true,
            Self::Digest | Self::Disk(_) | Self::TimedOut | Self::Stopped => false,
        }
    }
}

impl From<io::Error> for FetchError {
    fn from(error: io::Error) -> Self {
        Self::Disk(Arc::new(error))
    }
}

struct Asker {
    request: BlobRequest,
    reply: oneshot::Sender<Result<(), FetchError>>,
}

/// Gets blobs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BlobFetcher {
    cache: Arc<BlobCache>,
    askers: mpsc::Sender<Asker>,
}

impl BlobFetcher {
    /// Starts the task that downloads, which ends when its handle is dropped. `connection` is the one to use, while there is
    /// one.
    pub fn start(cache: BlobCache, connection: watch::Receiver<Option<Connection>>) -> (Self, AbortOnDropHandle<()>) {
        let cache = Arc::new(cache);
        let (askers, asked) = mpsc::channel(REQUESTS_WAITING_MAX);
        let task = tokio::spawn(sort(cache.clone(), connection, asked));
        (Self { cache, askers }, AbortOnDropHandle::new(task))
    }

    /// Puts the blob at its place, from the cache or from the orchestrator. Waits for a connection if there is none.
    pub async fn fetch(&self, request: BlobRequest) -> Result<(), FetchError> {
        // Between the download and the placing another blob may take its room: then once more.
        for _ in 0..3 {
            let (cache, digest, place) = (self.cache.clone(), request.digest, request.place.clone());
            if let Some(got) = on_disk(move || cache.place(digest, &place)).await? {
                let expected = request.bytes;
                return if got == expected { Ok(()) } else { Err(FetchError::Size { expected, got }) };
            }
            let (reply, answer) = oneshot::channel();
            let asker = Asker { request: request.clone(), reply };
            self.askers.send(asker).await.map_err(|_| FetchError::Stopped)?;
            answer.await.map_err(|_| FetchError::Stopped)??;
        }
        Err(io::Error::other("the cache is too small").into())
    }
}

/// Joins those who want the same blob.
async fn sort(
    cache: Arc<BlobCache>,
    connection: watch::Receiver<Option<Connection>>,
    mut asked: mpsc::Receiver<Asker>,
) {
    let places = Arc::new(Semaphore::new(DOWNLOADS_MAX));
    let mut waiting: HashMap<Digest, VecDeque<Asker>> = HashMap::new();
    let mut downloads = JoinSet::new();
    let download = |request: BlobRequest| {
        let (cache, connection, places) = (cache.clone(), connection.clone(), places.clone());
        async move {
            let digest = request.digest;
            let limited = tokio::time::timeout(FETCH_MAX, download(cache, connection, places, request));
            (digest, limited.await.unwrap_or(Err(FetchError::TimedOut)))
        }
    };
    loop {
        tokio::select! {
            asker = asked.recv() => {
                let Some(asker) = asker else { return };
                let askers = waiting.entry(asker.request.digest).or_default();
                if askers.is_empty() {
                    downloads.spawn(download(asker.request.clone()));
                }
                askers.push_back(asker);
            }
            Some(done) = downloads.join_next() => {
                let (digest, result) = match done {
                    Ok(done) => done,
                    Err(error) => {
                        // Its askers wait in vain; without this task they learn of it.
                        tracing::error!(%error, "a download failed");
                        return;
                    }
                };
                let mut askers = waiting.remove(&digest).unwrap_or_default();
                let alone = matches!(&result, Err(error) if error.concerns_asker_alone());
                let answered = if alone { askers.len().min(1) } else { askers.len() };
                for asker in askers.drain(..answered) {
                    // Whoever has given up needs no answer.
                    let _ = asker.reply.send(result.clone());
                }
                askers.retain(|asker| !asker.reply.is_closed());
                if let Some(next) = askers.front() {
                    downloads.spawn(download(next.request.clone()));
                    waiting.insert(digest, askers);
                }
            }
        }
    }
}

/// Why one try failed.
enum Trouble {
    /// Trying again is of no use.
    Final(FetchError),
    /// The connection or the orchestrator may do better soon.
    Again(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Final(error.into())
    }
}

/// Tries until it is there or hopeless.
async fn download(
    cache: Arc<BlobCache>,
    mut connection: watch::Receiver<Option<Connection>>,
    places: Arc<Semaphore>,
    request: BlobRequest,
) -> Result<(), FetchError> {
    let _place = places.acquire_owned().await.map_err(|_| FetchError::Stopped)?;
    // Who asked may have looked for it just before an earlier download put it there.
    let (blobs, digest) = (cache.clone(), request.digest);
    if on_disk(move || blobs.has(digest)).await? {
        return Ok(());
    }
    let mut backoff = Backoff::new();
    loop {
        let live = connection.wait_for(Option::is_some).await.map_err(|_| FetchError::Stopped)?.clone();
        let Some(live) = live else { continue };
        match try_once(&cache, &live, &request).await {
            Ok(()) => return Ok(()),
            Err(Trouble::Final(error)) => return Err(error),
            Err(Trouble::Again(why)) => {
                tracing::debug!(digest = %request.digest, why, "a download is tried again");
                drop(live);
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }
}

async fn try_once(cache: &Arc<BlobCache>, connection: &Connection, request: &BlobRequest) -> Result<(), Trouble> {
    let again = |error: &dyn std::error::Error| Trouble::Again(error.to_string());
    let (mut up, mut down) = connection.open_bi::<FromAgent, ToAgent>().await.map_err(|error| again(&error))?;
    up.set_priority(Priority::Bulk);
    let get = BlobGet { attempt: request.attempt, fence: request.fence, digest: request.digest };
    up.write(&get.into()).await.map_err(|error| again(&error))?;
    up.finish().await.map_err(|error| again(&error))?;
    let mut writer = None;
    let mut missing = request.bytes;
    loop {
        let piece = tokio::time::timeout(PIECE_MAX, down.read())
            .await
            .map_err(|_| Trouble::Again("the orchestrator stopped sending".into()))?
            .map_err(|error| again(&error))?;
        match (piece, writer.take()) {
            (Some(ToAgent::BlobHead(head)), None) => {
                if head.bytes != request.bytes {
                    let size = FetchError::Size { expected: request.bytes, got: head.bytes };
                    return Err(Trouble::Final(size));
                }
                let (cache, digest) = (cache.clone(), request.digest);
                writer = Some(on_disk(move || cache.begin(digest)).await?);
            }
            (Some(ToAgent::BlobChunk(chunk)), Some(mut open)) => {
                missing = missing
                    .checked_sub(chunk.data.len() as u64)
                    .ok_or_else(|| Trouble::Again("the orchestrator sent more than it said".into()))?;
                writer = Some(
                    on_disk(move || {
                        open.write(&chunk.data)?;
                        Ok(open)
                    })
                    .await?,
                );
            }
            (Some(ToAgent::Refused(refused)), _) => {
                let why = refused.why.into_string();
                return Err(if refused.retryable {
                    Trouble::Again(why)
                } else {
                    Trouble::Final(FetchError::Refused { why })
                });
            }
            (None, Some(open)) if missing == 0 => {
                let (cache, digest) = (cache.clone(), request.digest);
                return match on_disk(move || cache.finish(open, digest)).await? {
                    true => Ok(()),
                    false => Err(Trouble::Final(FetchError::Digest)),
                };
            }
            (None, _) => return Err(Trouble::Again("the stream ended before the blob".into())),
            (Some(_), _) => return Err(Trouble::Again("the orchestrator sent what does not belong there".into())),
        }
    }
}

async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_came_after_its_asker_had_looked_is_not_downloaded_again() {
        let dir = tempfile::tempdir().expect("dir");
        let cache = Arc::new(BlobCache::open(dir.path(), 100).expect("opens"));
        let digest = Digest::of(b"blob");
        let mut writer = cache.begin(digest).expect("begins");
        writer.write(b"blob").expect("writes");
        assert!(cache.finish(writer, digest).expect("finishes"));
        let request = BlobRequest {
            attempt: AttemptId { job: modchain_types::JobId([1; 16]), number: 1 },
            fence: Fence(1),
            digest,
            bytes: 4,
            place: dir.path().join("module"),
        };
        // Without a connection a download would wait for one.
        let (_connection, none) = watch::channel(None);
        let done = download(cache, none, Arc::new(Semaphore::new(1)), request);
        tokio::time::timeout(Duration::from_secs(60), done).await.expect("waits for nothing").expect("it is there");
    }
}

//! The connection to the orchestrator: kept, and made again whenever it is lost.
//!
//! ```text
//!   connect ─▶ hello ─▶ welcome ─▶ verdicts on the inventory ─▶ control loop ─┐
//!      ▲                                                                      │
//!      └── wait: backoff, or as long as a GoAway says, or long if hopeless ◀──┘
//! ```
//!
//! With a renewed certificate a second connection is made while the first one serves (see [`renewal`]). From its hello to its
//! welcome nothing that comes on the first one's control stream is acted on, because the hello says what the agent holds; if
//! there is a welcome the second takes over, and if there is none the first goes on as if nothing had been.
//!
//! Nothing but a probe is acted on before the verdicts. Attempts do not notice connections coming and going: what they print
//! lies in their spools, and every connection goes on where the last one stopped. This module decides nothing about attempts;
//! it hands what comes to the [`engine`](crate::engine), and sends what the engine says.

mod attempt;
mod heartbeat;
mod renewal;

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use modchain_certs::{Credentials, PeerIdentity};
use modchain_link::{
    Backoff, CertificateRefusal, CloseCode, ConnectError, Connection, FrameReader, FrameWriter, Priority, Protocol,
};
use modchain_types::{AttemptId, BootId, InstanceId, InventoryItem, ItemState, List, Span, StopCause};
use modchain_wire::Message;
use modchain_wire::agent::{AgentHello, AgentWelcome, FromAgent, HostLoad, OfferChanged, ProbeAnswer, ToAgent};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::blobs::DOWNLOADS_MAX;
use crate::clock;
use crate::engine::{EngineInput, HelloFacts, MESSAGES_WAITING_MAX, Serving, ToSession};
use crate::files;
use crate::probe::GpuTicks;
use renewal::{Handover, Renewal, Schedule};

/// Longest wait for the welcome, and then for the verdicts.
const WELCOME_MAX: Duration = Duration::from_secs(10);

/// Longest wait for the reason why a connection ended.
const REASON_MAX: Duration = Duration::from_secs(2);

/// Between two tries when nothing but a person can help: a new certificate may be put in place, or a clock set right.
const HOPELESS_RETRY: Duration = Duration::from_secs(60);

/// A connection that served for less than this is made again after up to [`SHORT_LIVED_WAIT`], lest an orchestrator that
/// drops every connection is asked without a pause.
const SHORT_LIVED: Duration = Duration::from_secs(10);

/// Longest wait after a connection that served for a short time: an orchestrator that was restarted twice in a row must
/// have its agents back within seconds, so this does not grow.
const SHORT_LIVED_WAIT: Span = Span::from_secs(2);

/// Longest wait that a GoAway can ask for.
const AWAY_MAX: Duration = Duration::from_secs(300);

/// A difference between the two clocks that is worth a warning: certificates allow for ten minutes.
const SKEW_TOLD: Span = Span::from_secs(60);

/// The usual name of [`SessionConfig::refusal`], beside the lock.
pub const REFUSAL_FILE: &str = "refused";

/// Who this agent is, and where it goes.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Host and port of the orchestrator.
    pub orchestrator: String,
    /// The folder of the key and the certificates; read again for every connection, because they are renewed.
    pub identity: PathBuf,
    /// Where the reason stands while the orchestrator does not take this agent and only a person can help; else there is no
    /// such file. For `doctor`, which must not connect beside this session.
    pub refusal: PathBuf,
    /// This start of the program.
    pub instance: InstanceId,
    /// This boot of the machine.
    pub boot: BootId,
}

/// Keeps a connection until `stop`, and closes it then.
pub struct Session {
    config: SessionConfig,
    engine: mpsc::Sender<EngineInput>,
    load: watch::Receiver<HostLoad>,
    gpus: GpuTicks,
    connection: watch::Sender<Option<Connection>>,
    stop: CancellationToken,
}

/// A connection that was welcomed.
struct Link {
    connection: Connection,
    /// The certificate that it was made with.
    shown: PeerIdentity,
    schedule: Schedule,
    control: Control,
    welcome: AgentWelcome,
    line: mpsc::Receiver<ToSession>,
}

/// How a connection, or the try to make one, ended.
enum End {
    /// This agent stops.
    Stopped,
    /// The orchestrator asked to come back after this time.
    Away(Duration),
    /// It broke, or could not be made.
    Lost(String),
    /// It was refused, and trying again with nothing changed will not help.
    Hopeless(String),
    /// This node is no longer a member, or another machine has taken its place: what runs here is void.
    Revoked(String),
}

impl End {
    fn why(self) -> String {
        match self {
            Self::Lost(why) | Self::Hopeless(why) | Self::Revoked(why) => why,
            Self::Stopped | Self::Away(_) => "the connection was not welcomed".into(),
        }
    }
}

impl From<ConnectError> for End {
    fn from(error: ConnectError) -> Self {
        let why = chain(&error);
        match error {
            ConnectError::CertificateRefused { why: CertificateRefusal::Revoked, .. } => Self::Revoked(why),
            error if error.retryable() => Self::Lost(why),
            _ => Self::Hopeless(why),
        }
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl Session {
    /// A session that has not begun. `connection` gets every connection once attempts may use it.
    pub fn new(
        config: SessionConfig,
        engine: mpsc::Sender<EngineInput>,
        load: watch::Receiver<HostLoad>,
        connection: watch::Sender<Option<Connection>>,
        stop: CancellationToken,
    ) -> Self {
        Self { config, engine, load, gpus: GpuTicks::default(), connection, stop }
    }

    /// With looks at the GPUs for its heartbeats.
    pub fn with_gpus(self, gpus: GpuTicks) -> Self {
        Self { gpus, ..self }
    }

    /// Runs until it is stopped, or the engine is gone.
    pub async fn run(self) {
        // What an earlier start was told may no longer be so.
        self.note_refusal(None);
        let mut backoff = Backoff::new();
        while !self.engine.is_closed() {
            let began = clock::now();
            let (end, served) = self.connect_and_serve().await;
            if served {
                backoff.reset();
            }
            if matches!(end, End::Revoked(_)) {
                self.abandon().await;
            }
            let short_lived = served && Duration::from(clock::now().since(began)) < SHORT_LIVED;
            let wait = match end {
                End::Stopped => return,
                End::Away(after) => {
                    backoff.reset();
                    after
                }
                End::Lost(why) => {
                    let wait = if short_lived {
                        Duration::from(clock::jitter(SHORT_LIVED_WAIT))
                    } else {
                        backoff.next_delay()
                    };
                    tracing::warn!(why, wait = %Span::from(wait), "no connection; trying again");
                    wait
                }
                End::Hopeless(why) | End::Revoked(why) => {
                    self.note_refusal(Some(&why));
                    tracing::error!(
                        why,
                        wait = %Span::from(HOPELESS_RETRY),
                        "the orchestrator does not take this agent; this needs a person"
                    );
                    HOPELESS_RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Notes or forgets the reason in [`SessionConfig::refusal`].
    fn note_refusal(&self, why: Option<&str>) {
        let path = &self.config.refusal;
        let noted = match why {
            Some(why) => files::create_private(path).and_then(|mut file| file.write_all(why.as_bytes())),
            None => match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        };
        // It is for people who look; this agent goes on without.
        if let Err(error) = noted {
            tracing::warn!(%error, path = %path.display(), "what doctor is to say could not be noted");
        }
    }

    /// Ends every attempt at once: nobody pays for it any more, and its client's data is no longer this machine's to work on.
    async fn abandon(&self) {
        let (ask, facts) = oneshot::channel();
        if self.engine.send(EngineInput::Hello(ask)).await.is_err() {
            return;
        }
        let Ok(facts) = facts.await else { return };
        for InventoryItem { attempt, fence, state } in facts.inventory {
            match state {
                ItemState::Ended => {}
                ItemState::Starting | ItemState::Running => {
                    tracing::warn!(%attempt, "ended, because this node was revoked");
                    let (grace, cause) = (Span::ZERO, StopCause::Superseded);
                    // A closed channel means that the engine is gone, and its attempts with it.
                    let _ = self.engine.send(EngineInput::Stop { attempt, fence, grace, cause }).await;
                }
            }
        }
    }

    /// One connection from its beginning to its end, with those that took its place; tells whether it got as far as the
    /// verdicts.
    async fn connect_and_serve(&self) -> (End, bool) {
        let connected = tokio::select! {
            connected = self.connect() => connected,
            () = self.stop.cancelled() => return (End::Stopped, false),
        };
        let mut link = match connected {
            Ok(link) => link,
            Err(end) => return (end, false),
        };
        let mut served = false;
        loop {
            let connection = link.connection.clone();
            let mut tasks = JoinSet::new();
            let handed_over = self.serve(link, &mut tasks).await;
            // The next connection takes over what these tasks use, so they must be gone before it is served.
            served |= self.connection.send_replace(None).is_some();
            tasks.shutdown().await;
            let end = match handed_over {
                Ok(next) => {
                    connection.close(CloseCode::Done, "");
                    link = next;
                    continue;
                }
                Err(end) => end,
            };
            match &end {
                End::Stopped => connection.close_and_wait(CloseCode::GoingAway, "the agent stops").await,
                End::Away(_) | End::Lost(_) | End::Hopeless(_) | End::Revoked(_) => {
                    connection.close(CloseCode::Done, "");
                }
            }
            // A closed channel means that the engine is gone, and the session with it.
            let _ = self.engine.send(EngineInput::Disconnected).await;
            return (end, served);
        }
    }

    async fn connect(&self) -> Result<Link, End> {
        let credentials = load_credentials(self.config.identity.clone()).await.map_err(|error| {
            // New files may be on their way into the folder just now.
            End::Lost(format!("{error:#}"))
        })?;
        let connection = modchain_link::connect(&credentials, &self.config.orchestrator, Protocol::Agent)
            .await
            .map_err(End::from)?;
        self.greet(connection, *credentials.identity(), Schedule::default()).await
    }

    /// Hello and welcome. A connection that is not welcomed is closed.
    async fn greet(&self, connection: Connection, shown: PeerIdentity, schedule: Schedule) -> Result<Link, End> {
        match self.say_hello(&connection).await {
            Ok((control, welcome, line)) => Ok(Link { connection, shown, schedule, control, welcome, line }),
            Err(what) => match tokio::time::timeout(REASON_MAX, connection.why_refused()).await {
                Ok(refused) => Err(refused.into()),
                Err(_) => {
                    connection.close(CloseCode::HelloExpected, "no welcome");
                    Err(End::Lost(what))
                }
            },
        }
    }

    async fn say_hello(
        &self,
        connection: &Connection,
    ) -> Result<(Control, AgentWelcome, mpsc::Receiver<ToSession>), String> {
        let (mut up, mut down) = connection.open_bi::<FromAgent, ToAgent>().await.map_err(|error| chain(&error))?;
        up.set_priority(Priority::Control);
        let (ask, facts) = oneshot::channel();
        let gone = |_| "the engine is gone".to_owned();
        self.engine.send(EngineInput::Hello(ask)).await.map_err(|_| "the engine is gone".to_owned())?;
        let facts: HelloFacts = facts.await.map_err(gone)?;
        let sent = clock::now();
        let hello = AgentHello {
            types: ToAgent::known_types(),
            instance: self.config.instance,
            boot: self.config.boot,
            highest_fence: facts.fence.map(|seen| seen.claim),
            journal: facts.fence.map(|seen| seen.journal),
            inventory: List::cut(facts.inventory),
            offer: facts.offer,
            wall: clock::wall(),
        };
        up.write(&hello.into()).await.map_err(|error| chain(&error))?;
        let welcome = match tokio::time::timeout(WELCOME_MAX, down.read()).await {
            Ok(Ok(Some(ToAgent::Welcome(welcome)))) => welcome,
            Ok(Ok(Some(other))) => {
                return Err(format!("instead of a welcome came a frame of type {:#04x}", other.kind()));
            }
            Ok(Ok(None)) => return Err("the control stream ended".into()),
            Ok(Err(error)) => return Err(chain(&error)),
            Err(_) => return Err("the orchestrator did not say welcome in time".into()),
        };
        let (line, messages) = mpsc::channel(MESSAGES_WAITING_MAX);
        let connected = EngineInput::Connected { journal: welcome.journal, lease: welcome.lease, sent, line };
        self.engine.send(connected).await.map_err(|_| "the engine is gone".to_owned())?;
        tracing::info!(
            orchestrator = self.config.orchestrator,
            version = %welcome.version,
            journal = %welcome.journal,
            "connected"
        );
        self.note_refusal(None);
        let (here, there) = (clock::wall(), welcome.wall);
        let apart = here.since(there).max(there.since(here));
        if apart > SKEW_TOLD {
            tracing::warn!(
                %apart,
                here = clock::utc(here),
                there = clock::utc(there),
                "this machine's clock and the orchestrator's differ; set the clock before certificates are refused"
            );
        }
        Ok((Control { up, down }, welcome, messages))
    }

    /// The control loop of one connection, until it ends or another takes its place.
    async fn serve(&self, link: Link, tasks: &mut JoinSet<Option<String>>) -> Result<Link, End> {
        let Link { connection, shown, schedule, mut control, welcome, mut line } = link;
        let connection = &connection;
        let beats = heartbeat::Heartbeats {
            connection: connection.clone(),
            interval: welcome.heartbeat,
            load: self.load.clone(),
            gpus: self.gpus.clone(),
            engine: self.engine.clone(),
        };
        tasks.spawn(async move { Some(beats.run().await) });
        let (handovers_in, mut handovers) = mpsc::channel(1);
        let renewal = Renewal {
            config: self.config.clone(),
            connection: connection.clone(),
            shown,
            schedule,
            handovers: handovers_in,
        };
        let mut renewal = Some(renewal);
        // One stream for control, one for heartbeats, some for blobs; the rest is for attempts.
        let for_attempts = (welcome.streams_max as usize).saturating_sub(2 + DOWNLOADS_MAX).max(1);
        let mut streams = Streams {
            connection: connection.clone(),
            places: Arc::new(Semaphore::new(for_attempts)),
            tasks: HashMap::new(),
        };
        let mut reconciled = false;
        let verdicts_due = tokio::time::sleep(WELCOME_MAX);
        tokio::pin!(verdicts_due);
        let mut probe = None;
        let mut unsent = false;
        loop {
            if !unsent && let Some(number) = probe.take() {
                match control.up.queue(&ProbeAnswer { number }.into()) {
                    Ok(()) => unsent = true,
                    Err(error) => return Err(End::Lost(chain(&error))),
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return Err(End::Stopped),
                () = &mut verdicts_due, if !reconciled => {
                    return Err(End::Lost("the orchestrator did not judge the inventory in time".into()));
                }
                frame = control.down.read() => {
                    let frame = match frame {
                        Ok(Some(frame)) => frame,
                        Ok(None) => return Err(lost(connection, "the control stream ended").await),
                        Err(error) => return Err(lost(connection, &chain(&error)).await),
                    };
                    match on_frame(frame, &mut reconciled, &mut probe) {
                        Ok(Next::Tell(input)) => {
                            let verdicts = matches!(input, EngineInput::Reconcile(_));
                            if self.engine.send(input).await.is_err() {
                                return Err(End::Stopped);
                            }
                            if verdicts {
                                self.connection.send_replace(Some(connection.clone()));
                                if let Some(renewal) = renewal.take() {
                                    tasks.spawn(async move {
                                        renewal.run().await;
                                        None
                                    });
                                }
                            }
                        }
                        Ok(Next::Nothing) => {}
                        Err(end) => return Err(end),
                    }
                }
                message = line.recv(), if !unsent => match message {
                    Some(ToSession::Report(report)) => match control.up.queue(&FromAgent::Report(*report)) {
                        Ok(()) => unsent = true,
                        Err(error) => return Err(End::Lost(chain(&error))),
                    },
                    Some(ToSession::Offer(offer)) => match control.up.queue(&OfferChanged { offer: *offer }.into()) {
                        Ok(()) => unsent = true,
                        Err(error) => return Err(End::Lost(chain(&error))),
                    },
                    Some(ToSession::Serve(attempts)) => attempts.into_iter().for_each(|one| streams.serve(one, tasks)),
                    Some(ToSession::Forget(attempt)) => streams.forget(attempt),
                    None if self.engine.is_closed() => return Err(End::Stopped),
                    None => return Err(End::Lost("the engine gave this connection up".into())),
                },
                sent = control.up.flush(), if unsent => match sent {
                    Ok(()) => unsent = false,
                    Err(error) => return Err(lost(connection, &chain(&error)).await),
                },
                Some(Handover { connection, shown, schedule, failed }) = handovers.recv() => {
                    // Nothing else here goes on meanwhile: what the hello says of attempts must stay true until the
                    // orchestrator has judged it. Heartbeats and output have tasks of their own.
                    let greeted = tokio::select! {
                        greeted = self.greet(connection, shown, schedule) => greeted,
                        () = self.stop.cancelled() => return Err(End::Stopped),
                    };
                    match greeted {
                        Ok(link) => return Ok(link),
                        // Whoever waits for the answer may have ended with the connection.
                        Err(end) => drop(failed.send(end.why())),
                    }
                }
                Some(done) = tasks.join_next() => match done {
                    Ok(None) => {}
                    Ok(Some(why)) => return Err(lost(connection, &why).await),
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => return Err(End::Lost(format!("a task of the session failed: {error}"))),
                },
            }
        }
    }
}

/// The control stream.
struct Control {
    up: FrameWriter<FromAgent>,
    down: FrameReader<ToAgent>,
}

/// The streams of attempts over one connection.
struct Streams {
    connection: Connection,
    places: Arc<Semaphore>,
    tasks: HashMap<AttemptId, AbortHandle>,
}

impl Streams {
    fn serve(&mut self, serving: Serving, tasks: &mut JoinSet<Option<String>>) {
        let attempt = serving.attempt;
        let stream =
            attempt::AttemptStream { connection: self.connection.clone(), places: self.places.clone(), serving };
        let handle = tasks.spawn(async move {
            stream.run().await;
            None
        });
        self.tasks.insert(attempt, handle);
    }

    fn forget(&mut self, attempt: AttemptId) {
        if let Some(task) = self.tasks.remove(&attempt) {
            task.abort();
        }
    }
}

/// What a frame on the control stream asks for.
enum Next {
    Tell(EngineInput),
    Nothing,
}

fn on_frame(frame: ToAgent, reconciled: &mut bool, probe: &mut Option<u64>) -> Result<Next, End> {
    match frame {
        ToAgent::Probe(asked) => {
            *probe = Some(asked.number);
            Ok(Next::Nothing)
        }
        ToAgent::GoAway(away) => {
            tracing::info!(why = %away.why, after = %away.after, "the orchestrator says to come back later");
            Err(End::Away(away_wait(away.after)))
        }
        ToAgent::Reconcile(verdicts) if !*reconciled => {
            *reconciled = true;
            Ok(Next::Tell(EngineInput::Reconcile(verdicts.verdicts.into_vec())))
        }
        _ if !*reconciled => Err(End::Lost("the orchestrator gave orders before its verdicts".into())),
        ToAgent::Assign(assignment) => Ok(Next::Tell(EngineInput::Assign(Box::new(assignment)))),
        ToAgent::Stop(stop) => Ok(Next::Tell(EngineInput::Stop {
            attempt: stop.attempt,
            fence: stop.fence,
            grace: stop.grace,
            cause: stop.cause,
        })),
        ToAgent::ReportAck(ack) => Ok(Next::Tell(EngineInput::Ack { attempt: ack.attempt, fence: ack.fence })),
        ToAgent::Welcome(_)
        | ToAgent::Reconcile(_)
        | ToAgent::HeartbeatEcho(_)
        | ToAgent::AttemptResume(_)
        | ToAgent::OutputAck(_)
        | ToAgent::InputChunk(_)
        | ToAgent::InputEnd(_)
        | ToAgent::BlobHead(_)
        | ToAgent::BlobChunk(_)
        | ToAgent::Renewed(_)
        | ToAgent::Refused(_) => Err(End::Lost("a frame came on the control stream that does not belong there".into())),
    }
}

fn away_wait(after: Span) -> Duration {
    Duration::from(after).min(AWAY_MAX)
}

/// The reason why the connection ended, if it has; else `what` was seen on one of its streams.
async fn lost(connection: &Connection, what: &str) -> End {
    match tokio::time::timeout(REASON_MAX, connection.closed()).await {
        Ok(reason) if reason.code() == Some(CloseCode::Revoked) => End::Revoked(reason.sentence()),
        Ok(reason) if reason.retryable() => End::Lost(reason.sentence()),
        Ok(reason) => End::Hopeless(reason.sentence()),
        Err(_) => End::Lost(what.to_owned()),
    }
}

/// Reads the key and the certificates, and checks that they are a node's.
pub async fn load_credentials(identity: PathBuf) -> anyhow::Result<Credentials> {
    tokio::task::spawn_blocking(move || {
        let credentials = Credentials::load(&identity)
            .with_context(|| format!("failed to load the identity in {}", identity.display()))?;
        let role = credentials.identity().role;
        anyhow::ensure!(
            role == modchain_types::Role::Node,
            "the identity in {} is of the role {role}; an agent needs one of the role node",
            identity.display()
        );
        Ok(credentials)
    })
    .await
    .context("failed to load the identity")?
}

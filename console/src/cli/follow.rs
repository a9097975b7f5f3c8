//! Following one job to its end: its output, its state, its input, over as many connections as it takes. Nothing is printed
//! twice and nothing is left out, because the log goes on from the place after the last piece that was handed over.

use std::time::Duration;

use modchain_link::Backoff;
use modchain_types::{Asset, JobId, JobState, Reason, Span, Text, WallTime};
use modchain_wire::ToConsole;
use modchain_wire::console::{Cancel, ExplainQuery, JobRef, LogChunk, LogCursor, LogsOpen, RefusalCode, StateOpen};
use modchain_wire::view::JobView;
use tokio::time::Instant;

use super::input::Feed;
use super::log_printer::LogPrinter;
use super::progress::Progress;
use crate::client::Client;
use crate::exit::{self, Failure};
use crate::shell::{OnInterrupt, Shell};
use crate::signal::{Signals, Wish};
use crate::text;

/// How long to try for a new connection before giving up on it. The job runs on; an orchestrator is back in seconds, a
/// machine in minutes.
const RECONNECT_MAX: Duration = Duration::from_secs(10 * 60);
/// A job that waits longer than this is worth an explanation: most start within a heartbeat of the engine.
const EXPLAIN_AFTER: Duration = Duration::from_secs(1);
/// Nodes whose reasons an explanation shows at most; `job explain` shows all.
const EXPLAINED_NODES_MAX: usize = 8;
/// Time between asking and killing when Ctrl-C cancels.
pub(crate) const CANCEL_GRACE: Span = Span::from_secs(10);

/// What to follow, and how to show it.
pub(crate) struct Follow<'a> {
    pub(crate) shell: &'a Shell,
    /// The job.
    pub(crate) job: JobId,
    /// What its money is.
    pub(crate) asset: Asset,
    /// Only output at or after this moment.
    pub(crate) since: Option<WallTime>,
    /// Where the output goes.
    pub(crate) printer: LogPrinter,
    /// Standard input, if the job reads it.
    pub(crate) feed: Option<Feed>,
    /// What the first Ctrl-C means.
    pub(crate) on_interrupt: OnInterrupt,
    /// Whether changes of state are told on standard error.
    pub(crate) narrate: bool,
}

/// How the following ended.
pub(crate) enum End {
    /// The job is over.
    Ended(Box<JobView>),
    /// Somebody wanted to leave; the job runs on. What it may still cost is in the last view of it.
    Detached(Wish, Option<Box<JobView>>),
}

/// What changes while a job is followed.
struct Progressing {
    cursor: Option<LogCursor>,
    told: Told,
    /// When to tell why the job still waits.
    explain_at: Option<Instant>,
    seen: Option<Box<JobView>>,
    cancelling: bool,
    /// The wish to cancel has reached the orchestrator.
    cancel_sent: bool,
    progress: Progress,
}

/// What was last said about the job's state.
#[derive(Default, PartialEq, Eq)]
struct Told {
    state: Option<JobState>,
    attempt: u32,
    message: String,
}

impl Follow<'_> {
    /// Follows the job over this connection and, when it breaks, over new ones.
    pub(crate) async fn run(mut self, client: Client, signals: &mut Signals) -> Result<End, Failure> {
        let mut going = Progressing {
            cursor: None,
            told: Told::default(),
            explain_at: None,
            seen: None,
            cancelling: false,
            cancel_sent: false,
            progress: Progress::start(self.shell, &self.shell.id_said(&self.job)),
        };
        let mut client = Some(client);
        let mut backoff = Backoff::new();
        let mut lost_since: Option<Instant> = None;
        let end = loop {
            let failure = match self.connected(client.take()).await {
                Ok(connected) => {
                    if lost_since.take().is_some() {
                        self.shell.say("connected again");
                    }
                    let round = self.round(&connected, &mut going, signals).await;
                    if going.cursor.is_some() || going.seen.is_some() {
                        backoff.reset();
                    }
                    match round {
                        Ok(end) => break Ok(end),
                        Err(failure) => failure,
                    }
                }
                Err(failure) => failure,
            };
            if !failure.lost {
                break Err(failure);
            }
            if lost_since.is_none() {
                going.progress.stop();
                self.shell.say(&format!("connection lost ({}); trying again, the job goes on", failure.message));
            }
            let since = *lost_since.get_or_insert_with(Instant::now);
            if since.elapsed() > RECONNECT_MAX {
                let id = self.shell.id_said(&self.job);
                break Err(Failure { exit: exit::MODCHAIN_FAILED, ..failure }
                    .hint(format!("the job runs on: modchain logs -f {id}")));
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next_delay()) => {}
                wish = signals.next() => if let Some(wish) = self.wish(wish, &mut going) {
                    break Ok(End::Detached(wish, going.seen.take()));
                },
            }
        };
        going.progress.stop();
        self.printer.finish().await?;
        end
    }

    async fn connected(&self, client: Option<Client>) -> Result<Client, Failure> {
        match client {
            Some(client) => Ok(client),
            None => self.shell.connect().await,
        }
    }

    /// One connection's share of it.
    async fn round(&mut self, client: &Client, going: &mut Progressing, signals: &mut Signals) -> Result<End, Failure> {
        let job: JobRef = Text::cut(self.job.to_string());
        let logs = LogsOpen { job: job.clone(), follow: true, from: going.cursor, since: self.since };
        let mut logs = client.open(logs).await?;
        let mut states = client.open(StateOpen { job: Some(job.clone()), resume: None }).await?;
        let mut states_open = true;
        let mut feed = self.feed.take();
        let result = async {
            let pump = async {
                if let Some(feed) = &mut feed
                    && let Err(failure) = feed.pump(client, job.clone()).await
                {
                    return failure;
                }
                std::future::pending().await
            };
            tokio::pin!(pump);
            loop {
                if going.cancelling && !going.cancel_sent {
                    self.cancel(client, going).await?;
                }
                tokio::select! {
                    failure = &mut pump => return Err(failure),
                    wish = signals.next() => if let Some(wish) = self.wish(wish, going) {
                        return Ok(End::Detached(wish, going.seen.take()));
                    },
                    () = at(going.explain_at) => self.explain(client, going).await?,
                    reply = states.next(), if states_open => match reply {
                        Ok(ToConsole::StateSnapshot(snapshot)) => self.tell(&snapshot.jobs, going),
                        Ok(ToConsole::StateDelta(delta)) => self.tell(&delta.jobs, going),
                        // The output alone says all that matters; without states it is told less.
                        Ok(_) => states_open = false,
                        Err(failure) if failure.lost => return Err(failure),
                        Err(_) => states_open = false,
                    },
                    reply = logs.next() => match reply? {
                        ToConsole::LogChunk(chunk) => self.chunk(chunk, going).await?,
                        ToConsole::CaughtUp(_) => self.printer.release().await?,
                        ToConsole::LogEnd(end) if end.job.state.is_ended() => return Ok(End::Ended(Box::new(end.job))),
                        ToConsole::LogEnd(_) => return Err(Failure::lost("the log ended before the job")),
                        other => return Err(crate::client::link::unexpected(Some(&other))),
                    },
                }
            }
        }
        .await;
        self.feed = feed;
        result
    }

    async fn chunk(&mut self, chunk: LogChunk, going: &mut Progressing) -> Result<(), Failure> {
        going.progress.stop();
        let cursor = chunk.cursor;
        self.printer.chunk(chunk).await?;
        going.cursor = Some(cursor);
        Ok(())
    }

    /// What a wish means; gives it back when it is to leave.
    fn wish(&self, wish: Wish, going: &mut Progressing) -> Option<Wish> {
        let cancels = match self.on_interrupt {
            OnInterrupt::CancelAlways => true,
            OnInterrupt::Cancel => wish == Wish::Interrupt,
            OnInterrupt::Detach => false,
        };
        if !cancels || going.cancelling {
            return Some(wish);
        }
        going.cancelling = true;
        going.progress.stop();
        self.shell.say(&format!("cancelling {}; once more to leave it", self.shell.id_said(&self.job)));
        None
    }

    async fn cancel(&self, client: &Client, going: &mut Progressing) -> Result<(), Failure> {
        let request =
            Cancel { job: Text::cut(self.job.to_string()), grace: CANCEL_GRACE, why: Text::cut("interrupted") };
        match client.cancel(request).await {
            Ok(_) => {}
            // It ended by itself in the meantime.
            Err(failure) if failure.code == RefusalCode::Conflict.word() => {}
            Err(failure) => return Err(failure),
        }
        going.cancel_sent = true;
        Ok(())
    }

    /// One line per change that a person wants to hear of.
    fn tell(&self, jobs: &[JobView], going: &mut Progressing) {
        let Some(job) = jobs.iter().find(|job| job.id == self.job) else { return };
        let attempt = job.attempts.last();
        let told = Told {
            state: Some(job.state),
            attempt: attempt.map_or(0, |attempt| attempt.number),
            message: job.message.as_str().to_owned(),
        };
        if self.narrate && told != going.told {
            if going.told.attempt > 0 && told.attempt > going.told.attempt && going.told.state != Some(JobState::Queued)
            {
                // The job was in the queue for too short a time to be seen there.
                going.progress.stop();
                self.shell.say(&format!("{}  {}", self.shell.id_said(&self.job), lost(job, going.told.attempt)));
            }
            let waits = job.state == JobState::Queued;
            going.explain_at = waits.then(|| going.explain_at.unwrap_or(Instant::now() + EXPLAIN_AFTER));
            if let Some(line) = self.line(job, &told, &going.told) {
                going.progress.stop();
                self.shell.say(&format!("{}  {line}", self.shell.id_said(&self.job)));
            }
            going.progress.show(&waiting_for(job));
        }
        going.told = told;
        going.seen = Some(Box::new(job.clone()));
    }

    /// Why the job waits, node by node: a job that no node will ever take must not wait in silence.
    async fn explain(&self, client: &Client, going: &mut Progressing) -> Result<(), Failure> {
        going.explain_at = None;
        let why = client.explain(ExplainQuery { job: Text::cut(self.job.to_string()) }).await?;
        if why.job.state != JobState::Queued {
            return Ok(());
        }
        going.progress.stop();
        let id = self.shell.id_said(&self.job);
        self.shell.say(&format!("{id}  queued: {}", why.summary));
        let refusals: Vec<_> = why.nodes.iter().filter(|node| !node.fits).cloned().collect();
        let shown = &refusals[..refusals.len().min(EXPLAINED_NODES_MAX)];
        super::jobs::verdicts(shown).lines().for_each(|line| self.shell.say(line));
        if refusals.len() > shown.len() {
            self.shell.say(&format!("  and {} more nodes: modchain job explain {id}", refusals.len() - shown.len()));
        }
        Ok(())
    }

    fn line(&self, job: &JobView, now: &Told, before: &Told) -> Option<String> {
        let node = job.node.as_ref().map(ToString::to_string).unwrap_or_default();
        match job.state {
            JobState::Running if before.state != now.state || before.attempt != now.attempt => {
                let price = job.price_per_hour.map(|price| format!(" ({}/h)", text::money(price, self.asset)));
                let again = if now.attempt > 1 { format!(", attempt {}", now.attempt) } else { String::new() };
                Some(format!("running on {node}{}{again}", price.unwrap_or_default()))
            }
            JobState::Queued if before.attempt > 0 && before.state != now.state => {
                Some(lost(job, before.attempt))
            }
            JobState::Queued if !now.message.is_empty() && before.message != now.message => {
                Some(format!("queued: {}", now.message))
            }
            JobState::Unreachable if before.state != now.state => {
                Some(format!("{node} is silent; the work may go on"))
            }
            JobState::Cancelling if before.state != now.state => Some("cancelling".into()),
            JobState::Queued
            | JobState::Assigned
            | JobState::Starting
            | JobState::Running
            | JobState::Unreachable
            | JobState::Cancelling
            // The end has lines of its own.
            | JobState::Completed
            | JobState::Failed
            | JobState::TimedOut
            | JobState::Cancelled
            | JobState::Expired => None,
        }
    }
}

/// The moment, if there is one to wait for.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// How an attempt ended that is not the last one: nobody pays for it.
fn lost(job: &JobView, number: u32) -> String {
    let attempt = job.attempts.iter().find(|attempt| attempt.number == number);
    let node = attempt.map(|attempt| format!(" on {}", attempt.node)).unwrap_or_default();
    let why = attempt.and_then(|attempt| attempt.reason).map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!("attempt {number}{node} ended{why} and is not paid; the job is queued again")
}

/// What the moving line says while there is no output yet.
fn waiting_for(job: &JobView) -> String {
    match (&job.node, job.state) {
        (Some(node), JobState::Assigned) => format!("assigned to {node}"),
        (Some(node), JobState::Starting | JobState::Running) => format!("{} on {node}", job.state.word()),
        _ => job.state.word().to_owned(),
    }
}

/// The exit code of an ended job.
pub(crate) fn exit_of(job: &JobView) -> u8 {
    job.exit.or_else(|| job.reason.and_then(modchain_types::Exit::of)).map_or_else(
        || if job.state == JobState::Completed { exit::OK } else { exit::MODCHAIN_FAILED },
        |exit| exit.code,
    )
}

/// How a job ended, in a line: `completed, exit 0`, `failed (trap), exit 134: unreachable executed`.
pub(crate) fn ending(job: &JobView) -> String {
    with_message(job, outcome(job))
}

/// As [`ending`], without the message.
pub(crate) fn outcome(job: &JobView) -> String {
    let mut line = job.state.word().to_owned();
    if let Some(reason) = job.reason
        && reason != Reason::Exit
        && reason.word() != job.state.word()
    {
        line.push_str(&format!(" ({})", reason.word()));
    }
    if let Some(exit) = job.exit {
        line.push_str(&format!(", exit {}", exit.code));
    }
    line
}

/// The line with what more there is to say about the job.
pub(crate) fn with_message(job: &JobView, line: String) -> String {
    if job.message.is_empty() { line } else { format!("{line}: {}", job.message) }
}

/// The two lines at the end of an attached run.
pub(crate) fn summary(job: &JobView, id: &str, asset: Asset) -> [String; 2] {
    [
        with_message(job, format!("{id}  {}{}", outcome(job), place(job))),
        format!(
            "{id}  cost {} (fee {}), {} came back",
            text::money(job.cost, asset),
            job.fee,
            text::money(job.refund, asset)
        ),
    ]
}

/// Where an ended job ran, and how long: ` on local-1, ran 3.2s`. Empty if it never ran.
pub(crate) fn place(job: &JobView) -> String {
    match (&job.node, job.started_at) {
        (Some(node), Some(started)) => {
            let ran = ran(job, started, job.ended_at.unwrap_or(started));
            format!(" on {node}, ran {ran}")
        }
        (Some(_) | None, _) => String::new(),
    }
}

/// How long a job ran, of which `until` is the last moment that counts: what its node measured, where that is known.
pub(crate) fn ran(job: &JobView, started: WallTime, until: WallTime) -> Span {
    if job.state.is_ended() && job.usage.ran > Span::ZERO { job.usage.ran } else { until.since(started) }
}

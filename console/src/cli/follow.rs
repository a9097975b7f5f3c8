//! Following one job to its end: its output, its state, its input, over as many connections as it takes. Nothing is printed
//! twice and nothing is left out, because the log goes on from the place after the last piece that was handed over.

use std::time::Duration;

use modchain_link::Backoff;
use modchain_types::{Adapter, Asset, JobId, JobState, Reason, Span, Text, WallTime};
use modchain_wire::ToConsole;
use modchain_wire::console::{Cancel, ExplainQuery, JobRef, LogChunk, LogCursor, LogsOpen, RefusalCode, StateOpen};
use modchain_wire::view::JobView;
use tokio::time::Instant;

use super::docs;
use super::history::Answer;
use super::input::Feed;
use super::log_printer::LogPrinter;
use super::progress::Progress;
use crate::client::Client;
use crate::exit::{self, Failure};
use crate::shell::{OnInterrupt, Shell};
use crate::signal::{Signals, Wish};
use crate::text;

/// Longest wait of one who leaves for what was printed before to be read.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);
/// How long to try for a new connection before giving up on it. The job runs on; an orchestrator is back in seconds, a
/// machine in minutes.
const RECONNECT_MAX: Duration = Duration::from_secs(10 * 60);
/// A job that waits longer than this is worth an explanation: most start within a heartbeat of the engine.
const EXPLAIN_AFTER: Duration = Duration::from_secs(1);
/// Time between two lines about a preparation, where no moving line shows it: a pull tells of itself several times a second.
const PREPARING_INTERVAL: Duration = Duration::from_secs(1);
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
    /// Gets what the newest attempt writes to its standard output, if somebody needs it whole.
    pub(crate) answer: Option<&'a mut Answer>,
}

/// How the following ended.
pub(crate) enum End {
    /// The job is over.
    Ended(Box<JobView>),
    /// Somebody wanted to leave; the job runs on. What it may still cost is in the last view of it.
    Detached(Wish, Option<Box<JobView>>),
}

/// What wishes to stop mean.
struct Wishes<'a> {
    shell: &'a Shell,
    job: JobId,
    on_interrupt: OnInterrupt,
}

impl Wishes<'_> {
    /// Gives the wish back when it is to leave.
    fn take(&self, wish: Wish, going: &mut Progressing) -> Option<Wish> {
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
}

/// Tells the orchestrator that the job is to end, once.
async fn cancel(client: &Client, job: JobId, going: &mut Progressing) -> Result<(), Failure> {
    if going.cancel_sent {
        return Ok(());
    }
    let request = Cancel { job: Text::cut(job.to_string()), grace: CANCEL_GRACE, why: Text::cut("interrupted") };
    match client.cancel(request).await {
        Ok(_) => {}
        // It ended by itself in the meantime.
        Err(failure) if failure.code == RefusalCode::Conflict.word() => {}
        Err(failure) => return Err(failure),
    }
    going.cancel_sent = true;
    Ok(())
}

/// What changes while a job is followed.
struct Progressing {
    cursor: Option<LogCursor>,
    told: Told,
    /// When to tell why the job still waits.
    explain_at: Option<Instant>,
    /// How far the preparation was when it was last heard of.
    preparing: String,
    /// When to tell that.
    prepare_at: Option<Instant>,
    /// When it may be told again.
    prepare_next: Instant,
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
    pub(crate) async fn run(&mut self, client: Client, signals: &mut Signals) -> Result<End, Failure> {
        let mut going = Progressing {
            cursor: None,
            told: Told::default(),
            explain_at: None,
            preparing: String::new(),
            prepare_at: None,
            prepare_next: Instant::now(),
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
        // A reader that does not read keeps nobody from leaving.
        let leaves = matches!(end, Ok(End::Detached(..)));
        tokio::select! {
            finished = self.printer.finish() => finished?,
            () = tokio::time::sleep(LAST_WORDS_MAX), if leaves => {}
            wish = signals.next() => match end {
                Ok(End::Ended(job)) => return Ok(End::Detached(wish, Some(job))),
                end => return end,
            },
        }
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
                    && let Err(failure) = feed.pump(client, job.clone(), |_| {}).await
                {
                    return failure;
                }
                std::future::pending().await
            };
            tokio::pin!(pump);
            loop {
                if going.cancelling && !going.cancel_sent {
                    cancel(client, self.job, going).await?;
                }
                tokio::select! {
                    failure = &mut pump => return Err(failure),
                    wish = signals.next() => if let Some(wish) = self.wish(wish, going) {
                        return Ok(End::Detached(wish, going.seen.take()));
                    },
                    () = at(going.explain_at) => self.explain(client, going).await?,
                    () = at(going.prepare_at) => self.tell_preparing(going),
                    reply = states.next(), if states_open => match reply {
                        Ok(ToConsole::StateSnapshot(snapshot)) => self.tell(&snapshot.jobs, going),
                        Ok(ToConsole::StateDelta(delta)) => self.tell(&delta.jobs, going),
                        // The output alone says all that matters; without states it is told less.
                        Ok(_) => states_open = false,
                        Err(failure) if failure.lost => return Err(failure),
                        Err(_) => states_open = false,
                    },
                    reply = logs.next() => match reply? {
                        ToConsole::LogChunk(chunk) => {
                            if let Some(wish) = self.chunk(chunk, client, going, signals).await? {
                                return Ok(End::Detached(wish, going.seen.take()));
                            }
                        }
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

    /// Shows a piece; gives the wish to leave if one comes while nobody reads.
    async fn chunk(
        &mut self,
        chunk: LogChunk,
        client: &Client,
        going: &mut Progressing,
        signals: &mut Signals,
    ) -> Result<Option<Wish>, Failure> {
        going.progress.stop();
        let cursor = chunk.cursor;
        if let Some(answer) = &mut self.answer {
            answer.take(&chunk);
        }
        let (wishes, job) = (Wishes { shell: self.shell, job: self.job, on_interrupt: self.on_interrupt }, self.job);
        let showing = self.printer.chunk(chunk);
        tokio::pin!(showing);
        loop {
            tokio::select! {
                biased;
                shown = &mut showing => break shown?,
                wish = signals.next() => {
                    if let Some(wish) = wishes.take(wish, going) {
                        return Ok(Some(wish));
                    }
                    match cancel(client, job, going).await {
                        // Once more over the next connection; what is being shown must not be begun again for it.
                        Err(failure) if !failure.lost => return Err(failure),
                        Ok(()) | Err(_) => {}
                    }
                }
            }
        }
        going.cursor = Some(cursor);
        Ok(None)
    }

    /// What a wish means; gives it back when it is to leave.
    fn wish(&self, wish: Wish, going: &mut Progressing) -> Option<Wish> {
        Wishes { shell: self.shell, job: self.job, on_interrupt: self.on_interrupt }.take(wish, going)
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
            let id = self.shell.id_said(&self.job);
            if going.told.attempt > 0 && told.attempt > going.told.attempt && going.told.state != Some(JobState::Queued)
            {
                // The job was in the queue for too short a time to be seen there.
                going.progress.say(self.shell, &format!("{id}  {}", lost(job, going.told.attempt)));
            }
            let waits = job.state == JobState::Queued;
            going.explain_at = waits.then(|| going.explain_at.unwrap_or(Instant::now() + EXPLAIN_AFTER));
            if let Some(line) = self.line(job, &told, &going.told) {
                going.progress.say(self.shell, &format!("{id}  {line}"));
            }
            match job.state {
                // From here on the job speaks.
                JobState::Running => going.progress.stop(),
                _ => drop(going.progress.show(&waiting_for(job))),
            }
        }
        self.preparing(job, going);
        going.told = told;
        going.seen = Some(Box::new(job.clone()));
    }

    /// How far its preparation is: in the moving line, or now and then in a line of its own.
    fn preparing(&self, job: &JobView, going: &mut Progressing) {
        if !self.narrate || job.preparing.as_str() == going.preparing {
            return;
        }
        going.preparing = job.preparing.as_str().to_owned();
        let told = going.preparing.is_empty() || going.progress.show(&waiting_for(job));
        going.prepare_at = (!told).then_some(going.prepare_next);
    }

    fn tell_preparing(&self, going: &mut Progressing) {
        going.prepare_at = None;
        going.prepare_next = Instant::now() + PREPARING_INTERVAL;
        self.shell.say(&format!("{}  {}", self.shell.id_said(&self.job), going.preparing));
    }

    /// Why the job waits, node by node: a job that no node will ever take must not wait in silence.
    async fn explain(&self, client: &Client, going: &mut Progressing) -> Result<(), Failure> {
        going.explain_at = None;
        let why = client.explain(ExplainQuery { job: Text::cut(self.job.to_string()) }).await?;
        if why.job.state != JobState::Queued {
            return Ok(());
        }
        let say = |line: &str| going.progress.say(self.shell, line);
        let id = self.shell.id_said(&self.job);
        say(&format!("{id}  queued: {}", why.summary));
        let refusals: Vec<_> = why.nodes.iter().filter(|node| !node.fits).cloned().collect();
        let shown = &refusals[..refusals.len().min(EXPLAINED_NODES_MAX)];
        super::jobs::verdicts(shown).lines().for_each(say);
        if refusals.len() > shown.len() {
            say(&format!("  and {} more nodes: modchain job explain {id}", refusals.len() - shown.len()));
        }
        Ok(())
    }

    fn line(&self, job: &JobView, now: &Told, before: &Told) -> Option<String> {
        let node = job.node.as_ref().map(ToString::to_string).unwrap_or_default();
        match job.state {
            JobState::Running if before.state != now.state || before.attempt != now.attempt => {
                let price = job.price_per_hour.map(|price| format!("{}/h", text::money(price, self.asset)));
                let what: Vec<String> = gpus(job).into_iter().chain(price).collect();
                let what = if what.is_empty() { String::new() } else { format!(" ({})", what.join(", ")) };
                let again = if now.attempt > 1 { format!(", attempt {}", now.attempt) } else { String::new() };
                Some(format!("running on {node}{what}{again}"))
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
        (Some(node), JobState::Starting) if !job.preparing.is_empty() => {
            format!("starting on {node}: {}", job.preparing)
        }
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

/// The GPUs of its attempt by model: `2x NVIDIA H100`.
pub(crate) fn gpus(job: &JobView) -> Vec<String> {
    let mut models = std::collections::BTreeMap::<&str, usize>::new();
    for (_, model) in job.gpus.iter() {
        *models.entry(model.as_str()).or_default() += 1;
    }
    models.into_iter().map(|(model, count)| format!("{count}x {model}")).collect()
}

/// What a language model did for the job; `None` for other jobs and for one that has not answered.
pub(crate) fn tokens(job: &JobView) -> Option<String> {
    let usage = &job.usage;
    if job.adapter != Adapter::Llm || usage.prompt_tokens + usage.output_tokens == 0 {
        return None;
    }
    let mut parts = vec![format!("{} tokens read", usage.prompt_tokens)];
    if usage.output_tokens > 0 {
        let speed = docs::tokens_per_second(usage).map(|speed| format!(", {speed:.1} a second")).unwrap_or_default();
        parts.push(format!("{} made{speed}", usage.output_tokens));
        parts.push(format!("the first after {}", usage.first_token));
    }
    if usage.load > Span::ZERO {
        parts.push(format!("model loaded in {}, not billed", usage.load));
    }
    Some(parts.join(", "))
}

/// The lines at the end of an attached run.
pub(crate) fn summary(job: &JobView, id: &str, asset: Asset) -> Vec<String> {
    let mut lines = vec![with_message(job, format!("{id}  {}{}", outcome(job), place(job)))];
    lines.extend(tokens(job).map(|tokens| format!("{id}  {tokens}")));
    lines.push(format!(
        "{id}  cost {} (fee {}), {} came back",
        text::money(job.cost, asset),
        job.fee,
        text::money(job.refund, asset)
    ));
    lines
}

/// Where an ended job ran, and how long: ` on local-1, ran 3.2s`. Empty if it never ran.
pub(crate) fn place(job: &JobView) -> String {
    match (&job.node, job.started_at) {
        (Some(node), Some(started)) => {
            let ran = text::lasted(text::ran(job, started).unwrap_or_default());
            format!(" on {node}, ran {ran}")
        }
        (Some(_) | None, _) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use modchain_types::{List, Usage};

    use super::super::docs::tests::ended_job;
    use super::*;

    #[test]
    fn the_end_of_a_job_for_a_language_model_tells_tokens_speed_and_what_was_not_billed() {
        let usage = Usage {
            ran: Span::from_secs(4),
            prompt_tokens: 31,
            output_tokens: 55,
            load: Span::from_millis(900),
            first_token: Span::from_millis(120),
            generating: Span::from_millis(3_880),
            ..Usage::default()
        };
        let job = JobView { adapter: Adapter::Llm, usage, ..ended_job() };
        let lines = summary(&job, "j-1", Asset::Test);
        assert_eq!(
            lines[1],
            "j-1  31 tokens read, 55 made, 14.1 a second, the first after 120ms, model loaded in 900ms, not billed"
        );
        assert_eq!(lines[2], "j-1  cost 0.001 TEST (fee 0.00005), 0.099 TEST came back");
        let embedded = Usage { output_tokens: 0, load: Span::ZERO, ..usage };
        let lines = summary(&JobView { usage: embedded, ..job.clone() }, "j-1", Asset::Test);
        assert_eq!(lines[1], "j-1  31 tokens read");
        assert_eq!(summary(&ended_job(), "j-1", Asset::Test).len(), 2, "a module reads no tokens");
    }

    #[test]
    fn gpus_are_counted_by_model() {
        let gpu = |uuid, model| (Text::cut(uuid), Text::cut(model));
        let gpus = List::new(vec![gpu("1", "L4"), gpu("2", "H100"), gpu("3", "L4")]).expect("fits");
        assert_eq!(self::gpus(&JobView { gpus, ..ended_job() }), ["1x H100", "2x L4"]);
    }

    #[test]
    fn a_pull_shows_in_the_moving_line() {
        let pulling =
            JobView { state: JobState::Starting, preparing: Text::cut("pulling: 3 of 7 layers"), ..ended_job() };
        assert_eq!(waiting_for(&pulling), "starting on zurich-01: pulling: 3 of 7 layers");
    }
}

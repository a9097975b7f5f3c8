//! `wait` and `cancel`: what is done to several jobs at once.

use std::time::Duration;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use modchain_link::Backoff;
use modchain_types::{Asset, JobId, JobState, Text};
use modchain_wire::ToConsole;
use modchain_wire::console::{Cancel, JobQuery, JobRef, JobsQuery, RefusalCode, StateOpen};
use modchain_wire::view::JobView;
use tokio::task::JoinSet;

use super::docs::{self, ListDoc};
use super::{follow, jobs};
use crate::args::{CancelArgs, Format, WaitArgs, WaitFor};
use crate::client::Client;
use crate::exit::{self, Failure, Outcome};
use crate::shell::Shell;
use crate::text;

/// Jobs waited for at once: each takes a stream of the connection, which has some thirty.
const WAITED_AT_ONCE: usize = 16;
/// Longest time without a connection while waiting.
const RECONNECT_MAX: Duration = Duration::from_secs(10 * 60);
/// Jobs that one `cancel --all` ends at most.
const CANCEL_ALL_MAX: u32 = 10_000;

/// `modchain wait`.
pub(crate) async fn wait(shell: &Shell, args: WaitArgs) -> Outcome {
    let words = jobs::ids(args.jobs).await?;
    let client = shell.connect().await?;
    let asset = client.welcome().asset;
    let mut ids = Vec::new();
    for word in &words {
        ids.push(jobs::resolve(shell, &client, word).await?.0);
    }
    let waiting = wait_for(shell, client, &ids, args.what);
    let views = match args.timeout {
        Some(timeout) => tokio::time::timeout(timeout.into(), waiting).await.unwrap_or_else(|_| {
            Err(Failure::timeout(format!("{timeout} passed; the jobs go on"))
                .hint("modchain wait again, or modchain cancel"))
        })?,
        None => waiting.await?,
    };
    show(shell, &views, asset)?;
    // The first job, in the order of the line, that did not end well.
    let codes = views.iter().filter(|view| view.state.is_ended()).map(follow::exit_of);
    Ok(codes.into_iter().find(|code| *code != exit::OK).unwrap_or(exit::OK))
}

fn show(shell: &Shell, views: &[JobView], asset: Asset) -> Result<(), Failure> {
    match (shell.format(), views) {
        (Format::Json, [view]) => shell.print_document(&docs::job(view, asset)),
        (Format::Json, views) => {
            let items: Vec<_> = views.iter().map(|view| docs::job(view, asset)).collect();
            let total = Some(items.len() as u64);
            shell.print_document(&ListDoc { schema: "modchain.jobs/v1", items, total })
        }
        (Format::Jsonl, views) => views.iter().try_for_each(|view| shell.print_document(&docs::job(view, asset))),
        (Format::Name, views) => shell.print(&views.iter().map(|view| format!("{}\n", view.id)).collect::<String>()),
        (Format::Table, _) if shell.quiet() => Ok(()),
        (Format::Table, views) => {
            let line = |view: &JobView| format!("{}  {}", shell.id(&view.id), follow::ending(view));
            shell.print(&views.iter().map(|view| text::one_line(&line(view)) + "\n").collect::<String>())
        }
    }
}

/// Waits for the jobs, over as many connections as it takes; gives those waited for, in order.
async fn wait_for(shell: &Shell, client: Client, ids: &[JobId], what: WaitFor) -> Result<Vec<JobView>, Failure> {
    let mut client = Some(client);
    let mut backoff = Backoff::new();
    let mut lost_since = None;
    let heard = Arc::new(AtomicBool::new(false));
    loop {
        let attempt = async {
            let client = match client.take() {
                Some(client) => client,
                None => shell.connect().await?,
            };
            wait_connected(client, ids, what, &heard).await
        };
        match attempt.await {
            Err(failure) if failure.lost => {
                if heard.swap(false, Ordering::Relaxed) {
                    // It was there: this is another loss.
                    lost_since = None;
                    backoff.reset();
                }
                let since = *lost_since.get_or_insert_with(tokio::time::Instant::now);
                if since.elapsed() > RECONNECT_MAX {
                    return Err(Failure { exit: exit::MODCHAIN_FAILED, ..failure });
                }
                tokio::time::sleep(backoff.next_delay()).await;
            }
            other => return other,
        }
    }
}

/// Waits over this connection; notes when it has heard something over it.
async fn wait_connected(
    client: Client,
    ids: &[JobId],
    what: WaitFor,
    heard: &Arc<AtomicBool>,
) -> Result<Vec<JobView>, Failure> {
    let client = Arc::new(client);
    let mut waits = JoinSet::new();
    let mut found: Vec<Option<JobView>> = vec![None; ids.len()];
    let mut next = 0;
    loop {
        while waits.len() < WAITED_AT_ONCE && next < ids.len() {
            let (client, heard, id, index) = (client.clone(), heard.clone(), ids[next], next);
            waits.spawn(async move { wait_one(&client, id, what, &heard).await.map(|view| (index, view)) });
            next += 1;
        }
        // Dropping the set ends the other waits.
        let Some(ended) = waits.join_next().await else { break };
        let (index, view) = ended.map_err(|error| Failure::failed(format!("a wait broke: {error}")))??;
        if what == WaitFor::Any {
            return Ok(vec![view]);
        }
        found[index] = Some(view);
    }
    Ok(found.into_iter().flatten().collect())
}

async fn wait_one(client: &Client, id: JobId, what: WaitFor, heard: &AtomicBool) -> Result<JobView, Failure> {
    let job = JobRef::cut(id.to_string());
    let reached = |view: &JobView| match what {
        WaitFor::Ended | WaitFor::Any => view.state.is_ended(),
        WaitFor::Running => view.state == JobState::Running || view.state.is_ended(),
    };
    // The stream first, then the question: what changes in between is in the stream.
    let mut states = client.open(StateOpen { job: Some(job.clone()), resume: None }).await?;
    let view = client.job(JobQuery { job }).await?;
    heard.store(true, Ordering::Relaxed);
    if reached(&view) {
        return Ok(view);
    }
    loop {
        let jobs = match states.next().await? {
            ToConsole::StateSnapshot(snapshot) => snapshot.jobs,
            ToConsole::StateDelta(delta) => delta.jobs,
            other => return Err(crate::client::link::unexpected(Some(&other))),
        };
        if let Some(view) = jobs.iter().find(|view| view.id == id && reached(view)) {
            return Ok(view.clone());
        }
    }
}

/// `modchain cancel`.
pub(crate) async fn cancel(shell: &Shell, args: CancelArgs) -> Outcome {
    let client = shell.connect().await?;
    let asset = client.welcome().asset;
    let views =
        if args.all { all(&client, args.mine).await? } else { named(shell, &client, args.jobs.clone()).await? };
    let (ended, live): (Vec<_>, Vec<_>) = views.into_iter().partition(|view| view.state.is_ended());
    if let Some(view) = ended.first().filter(|_| !args.if_running && live.is_empty()) {
        let what = follow::ending(view);
        return Err(Failure::conflict(format!("{} already ended ({what})", shell.id_said(&view.id)))
            .hint("with --if-running that is no error"));
    }
    if live.is_empty() {
        shell.say("nothing to cancel");
        return show_cancelled(shell, &ended, asset);
    }
    if !shell.confirm(&question(shell, &live, asset)).await? {
        return Err(Failure::failed("nothing was cancelled"));
    }
    let mut views = Vec::new();
    for view in &live {
        let request =
            Cancel { job: JobRef::cut(view.id.to_string()), grace: args.grace, why: Text::cut(args.reason.clone()) };
        match client.cancel(request).await {
            Ok(view) => views.push(view),
            // It ended between the question and the wish.
            Err(failure) if failure.code == RefusalCode::Conflict.word() && (args.if_running || live.len() > 1) => {
                views.push(client.job(JobQuery { job: JobRef::cut(view.id.to_string()) }).await?);
            }
            Err(failure) => return Err(failure),
        }
    }
    if args.wait {
        let ids: Vec<JobId> = views.iter().map(|view| view.id).collect();
        views = wait_for(shell, client, &ids, WaitFor::Ended).await?;
    }
    show_cancelled(shell, &views, asset)
}

async fn all(client: &Client, mine: bool) -> Result<Vec<JobView>, Failure> {
    let account = mine.then(|| client.welcome().identity.account.clone());
    Ok(jobs::pages(client, JobsQuery { account, ..jobs::live() }, CANCEL_ALL_MAX, |_| true).await?.0)
}

async fn named(shell: &Shell, client: &Client, words: Vec<String>) -> Result<Vec<JobView>, Failure> {
    let mut views = Vec::new();
    for word in jobs::ids(words).await? {
        views.push(jobs::resolve(shell, client, &word).await?.1);
    }
    Ok(views)
}

fn question(shell: &Shell, live: &[JobView], asset: Asset) -> String {
    match live {
        [view] => {
            let id = shell.id_said(&view.id);
            let name = if view.name.is_empty() { String::new() } else { format!(" {}", view.name) };
            format!("Cancel {id}{name}? {}, {} so far.", view.state, text::money(view.cost, asset))
        }
        views => format!("Cancel {} jobs?", views.len()),
    }
}

fn show_cancelled(shell: &Shell, views: &[JobView], asset: Asset) -> Outcome {
    match shell.format() {
        Format::Json if views.len() == 1 => shell.print_document(&docs::cancelled(&views[0], asset))?,
        Format::Json => {
            let items: Vec<_> = views.iter().map(|view| docs::cancelled(view, asset)).collect();
            let total = Some(items.len() as u64);
            shell.print_document(&ListDoc { schema: "modchain.cancellations/v1", items, total })?;
        }
        Format::Jsonl => views.iter().try_for_each(|view| shell.print_document(&docs::cancelled(view, asset)))?,
        Format::Name => shell.print(&views.iter().map(|view| format!("{}\n", view.id)).collect::<String>())?,
        Format::Table if shell.quiet() => {}
        Format::Table => {
            let line = |view: &JobView| {
                let id = shell.id(&view.id);
                if view.state.is_ended() {
                    let (cost, refund) = (text::money(view.cost, asset), text::money(view.refund, asset));
                    format!("{id}  {}, cost {cost}, {refund} came back\n", view.state)
                } else {
                    format!("{id}  {}\n", view.state)
                }
            };
            shell.print(&views.iter().map(line).collect::<String>())?;
        }
    }
    Ok(exit::OK)
}

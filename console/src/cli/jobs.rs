//! `jobs` and `job`: lists, one job, and why it is where it is.

use modchain_types::{Asset, JobId, JobState, List, Micro, Text, WallTime};
use modchain_wire::console::{ExplainQuery, JobQuery, JobsQuery};
use modchain_wire::view::{ExplanationView, JobView, NodeVerdictView};

use super::docs::{self, ListDoc};
use super::table::{Align, Table, pairs};
use super::watch::{self, JobsWatch};
use super::{again, events, follow};
use crate::args::{EventsArgs, Format, JobArgs, JobCommand, JobsArgs};
use crate::client::Client;
use crate::client::config::nearest;
use crate::exit::{self, Failure, Outcome};
use crate::shell::Shell;
use crate::text;

/// Characters of what a job runs that a table on a terminal shows.
const WHAT_CHARS_MAX: usize = 40;
/// Jobs asked for at once.
const PAGE: u32 = 500;

/// `modchain jobs`.
pub(crate) async fn list(shell: &Shell, args: JobsArgs) -> Outcome {
    let mut query = filter(&args.filter)?;
    query.ended |= args.all;
    query.since = args
        .since
        .as_deref()
        .map(|since| text::parse_since(since, text::wall_now()))
        .transpose()
        .map_err(Failure::usage)?;
    let client = shell.connect().await?;
    if args.mine {
        query.account = Some(client.welcome().identity.account.clone());
    }
    let asset = client.welcome().asset;
    if args.watch {
        let watched = JobsWatch { query, limit: args.limit as usize, asset, short: shell.stdout_tty() };
        return watch::watch(shell, client, watched).await;
    }
    let (jobs, total) = pages(&client, query, args.limit).await?;
    match shell.format() {
        Format::Json => {
            let items = jobs.iter().map(|job| docs::job(job, asset)).collect();
            shell.print_document(&ListDoc { schema: "modchain.jobs/v1", items, total: Some(total) })?;
        }
        Format::Jsonl => jobs.iter().try_for_each(|job| shell.print_document(&docs::job(job, asset)))?,
        Format::Name => shell.print(&jobs.iter().map(|job| format!("{}\n", job.id)).collect::<String>())?,
        Format::Table => {
            shell.print(&table(shell.stdout_tty(), &jobs))?;
            if total > jobs.len() as u64 && shell.stderr_tty() {
                shell.say(&format!("{} of {total} jobs; --limit shows more", jobs.len()));
            }
        }
    }
    Ok(exit::OK)
}

/// Every job that fits the query, up to `limit`, newest first.
pub(crate) async fn pages(client: &Client, mut query: JobsQuery, limit: u32) -> Result<(Vec<JobView>, u64), Failure> {
    let limit = limit as usize;
    let mut jobs: Vec<JobView> = Vec::new();
    loop {
        query.limit = u32::try_from(limit - jobs.len()).unwrap_or(PAGE).min(PAGE);
        let page = client.jobs(query.clone()).await?;
        let (total, more) = (page.total, page.more);
        let count = page.items.len();
        jobs.extend(page.items);
        if !more || count == 0 || jobs.len() >= limit {
            jobs.truncate(limit);
            return Ok((jobs, total));
        }
        query.after = jobs.last().map(|job| job.id);
    }
}

/// A query for every job of one's own that has not ended.
pub(crate) fn live() -> JobsQuery {
    JobsQuery {
        states: List::default(),
        ended: false,
        account: None,
        labels: List::default(),
        prefix: Text::default(),
        since: None,
        limit: PAGE,
        after: None,
    }
}

/// Filter words as a query.
fn filter(words: &[String]) -> Result<JobsQuery, Failure> {
    let mut query = live();
    let (mut states, mut labels) = (Vec::new(), Vec::new());
    for word in words.iter().flat_map(|word| word.split_whitespace()) {
        match word.split_once(':') {
            Some(("state", list)) => states.extend(list.split(',').map(state).collect::<Result<Vec<_>, _>>()?),
            Some(("label", pair)) => {
                let Some((key, value)) = pair.split_once('=') else {
                    return Err(Failure::usage(format!("`{word}`: write label:KEY=VALUE")));
                };
                let too_long = |error| Failure::usage(format!("`{word}`: {error}"));
                labels.push((Text::new(key).map_err(too_long)?, Text::new(value).map_err(too_long)?));
            }
            Some(("name", prefix)) => query.prefix = Text::new(prefix).map_err(|e| Failure::usage(e.to_string()))?,
            Some(("account", name)) => {
                query.account =
                    Some(name.parse().map_err(|e: modchain_types::id::BadId| Failure::usage(e.to_string()))?);
            }
            Some((key, _)) => {
                let failure = Failure::usage(format!("unknown filter `{key}:`"));
                let known = ["state", "label", "name", "account"];
                return Err(match nearest(key, known.into_iter()) {
                    Some(near) => failure.hint(format!("did you mean `{near}:`?")),
                    None => failure.hint("write state:, label:, name: or account:"),
                });
            }
            None => query.prefix = Text::new(word).map_err(|e| Failure::usage(e.to_string()))?,
        }
    }
    query.ended = states.iter().any(|state: &JobState| state.is_ended());
    let too_many = |error| Failure::usage(format!("filter: {error}"));
    query.states = List::new(states).map_err(too_many)?;
    query.labels = List::new(labels).map_err(too_many)?;
    Ok(query)
}

fn state(word: &str) -> Result<JobState, Failure> {
    JobState::ALL.into_iter().find(|state| state.word() == word).ok_or_else(|| {
        let words = JobState::ALL.map(JobState::word);
        let failure = Failure::usage(format!("`{word}` is not a state of jobs"));
        match nearest(word, words.into_iter()) {
            Some(near) => failure.hint(format!("did you mean `{near}`?")),
            None => failure.hint(format!("states: {}", words.join(", "))),
        }
    })
}

/// A table of jobs; `short` where there is a person who reads it.
pub(super) fn table(short: bool, jobs: &[JobView]) -> String {
    let mut table = Table::new(&[
        ("JOB", Align::Left),
        ("NAME", Align::Left),
        ("STATE", Align::Left),
        ("EXIT", Align::Right),
        ("NODE", Align::Left),
        ("TIME", Align::Right),
        ("COST", Align::Right),
        ("HOLD", Align::Right),
        ("ACCOUNT", Align::Left),
        ("AGE", Align::Right),
    ]);
    let now = text::wall_now();
    for job in jobs {
        table.row(vec![
            text::job_id(&job.id, short),
            called(job, short),
            job.state.word().into(),
            job.exit.map_or_else(|| "-".into(), |exit| exit.code.to_string()),
            job.node.as_ref().map_or_else(|| "-".into(), ToString::to_string),
            ran(job, now).map_or_else(|| "-".into(), |span| span.to_string()),
            job.cost.to_string(),
            job.hold.to_string(),
            job.account.to_string(),
            now.since(job.created_at).to_string(),
        ]);
    }
    table.render()
}

/// The job's name, or what it runs: on a terminal no more of it than leaves room for the rest.
pub(super) fn called(job: &JobView, short: bool) -> String {
    if !job.name.is_empty() {
        return job.name.to_string();
    }
    let mut what: String = job.what.chars().take(if short { WHAT_CHARS_MAX } else { usize::MAX }).collect();
    if what.len() < job.what.len() {
        what.push('…');
    }
    what
}

fn ran(job: &JobView, now: WallTime) -> Option<modchain_types::Span> {
    job.started_at.map(|started| follow::ran(job, started, job.ended_at.unwrap_or(now)))
}

/// `modchain job`.
pub(crate) async fn job(shell: &Shell, args: JobArgs) -> Outcome {
    let jobs = match args.command {
        Some(JobCommand::Explain { job }) => return explain(shell, &job).await,
        Some(JobCommand::Events { job, follow }) => {
            let about = EventsArgs { follow, since: None, kind: None, job: Some(job), node: None };
            return events::events(shell, about).await;
        }
        Some(JobCommand::Spec(args)) => return again::spec(shell, args).await,
        Some(JobCommand::Rerun(_)) => unreachable!("it listens to signals itself"),
        Some(JobCommand::Show { jobs }) => jobs,
        None => args.jobs,
    };
    let client = shell.connect().await?;
    let asset = client.welcome().asset;
    let mut views = Vec::new();
    for job in &jobs {
        views.push(client.job(JobQuery { job: shell.job_ref(job)? }).await?);
    }
    match (shell.format(), views.as_slice()) {
        (Format::Json, [view]) => shell.print_document(&docs::job(view, asset))?,
        (Format::Json, views) => {
            let items: Vec<_> = views.iter().map(|view| docs::job(view, asset)).collect();
            let total = Some(items.len() as u64);
            shell.print_document(&ListDoc { schema: "modchain.jobs/v1", items, total })?;
        }
        (Format::Jsonl, views) => views.iter().try_for_each(|view| shell.print_document(&docs::job(view, asset)))?,
        (Format::Name, views) => shell.print(&views.iter().map(|view| format!("{}\n", view.id)).collect::<String>())?,
        (Format::Table, views) => {
            let texts: Vec<String> = views.iter().map(|view| details(shell, view, asset)).collect();
            shell.print(&texts.join("\n"))?;
        }
    }
    Ok(exit::OK)
}

fn details(shell: &Shell, job: &JobView, asset: Asset) -> String {
    let now = text::wall_now();
    let place = match (&job.node, ran(job, now)) {
        _ if job.state.is_ended() => follow::place(job),
        (Some(node), Some(span)) => format!(" {span} on {node}"),
        (Some(node), None) => format!(" on {node}"),
        (None, _) => String::new(),
    };
    let name = if job.name.is_empty() { String::new() } else { format!("{}  ", job.name) };
    let state = follow::with_message(job, format!("{}{place}", follow::outcome(job)));
    let title = text::one_line(&format!("{}  {name}{state}", shell.id(&job.id)));
    let mut lines = vec![("what", format!("{} {}", job.adapter, job.what))];
    if let Some(model) = &job.model {
        lines.push(("model", model.to_string()));
    }
    if let Some(image) = &job.image {
        lines.push(("image", image.to_string()));
    }
    match follow::gpus(job).join(", ") {
        gpus if gpus.is_empty() => {}
        gpus => lines.push(("gpus", gpus)),
    }
    if !job.preparing.is_empty() {
        lines.push(("preparing", job.preparing.to_string()));
    }
    lines.extend(follow::tokens(job).map(|tokens| ("tokens", tokens)));
    lines.push(("cost", format!("{} of {}", job.cost, text::money(job.hold, asset))));
    if job.state.is_ended() {
        lines.push(("fee", text::money(job.fee, asset)));
        lines.push(("came back", text::money(job.refund, asset)));
    } else if let Some(price) = job.price_per_hour {
        lines.push(("price", format!("{}/h", text::money(price, asset))));
    }
    if let Some(limit) = job.time_limit {
        lines.push(("time limit", limit.to_string()));
    }
    if !job.labels.is_empty() {
        let labels: Vec<String> = job.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        lines.push(("labels", labels.join(" ")));
    }
    if job.output.dropped > 0 {
        lines.push(("output", format!("{} were cut off", text::bytes(job.output.dropped))));
    }
    lines.push(("account", job.account.to_string()));
    lines.push(("submitted", text::date_time(job.created_at, shell.utc())));
    for attempt in &job.attempts {
        let mut line = format!("{} on {}", attempt.state, attempt.node);
        if let Some(reason) = attempt.reason {
            line.push_str(&format!(" ({reason})"));
        }
        for (what, at) in [("started", attempt.started_at), ("ended", attempt.ended_at)] {
            if let Some(at) = at {
                line.push_str(&format!(", {what} {}", text::time_of_day(at, shell.utc())));
            }
        }
        if !attempt.message.is_empty() {
            line.push_str(&format!(": {}", attempt.message));
        }
        lines.push(("attempt", format!("{}  {line}", attempt.number)));
    }
    format!("{title}\n{}", pairs(&lines))
}

async fn explain(shell: &Shell, job: &str) -> Outcome {
    let client = shell.connect().await?;
    let asset = client.welcome().asset;
    let view = client.explain(ExplainQuery { job: shell.job_ref(job)? }).await?;
    match shell.format() {
        Format::Json | Format::Jsonl => shell.print_document(&docs::explanation(&view, asset))?,
        Format::Name => shell.print(&format!("{}\n", view.job.id))?,
        Format::Table => shell.print(&explanation(&view, &shell.id(&view.job.id)))?,
    }
    Ok(exit::OK)
}

fn explanation(view: &ExplanationView, id: &str) -> String {
    let mut text = text::one_line(&format!("{id}  {}: {}", view.job.state, view.summary));
    text.push('\n');
    text.push_str(&verdicts(&view.nodes));
    text
}

/// One line per node with what speaks against it.
pub(crate) fn verdicts(nodes: &[NodeVerdictView]) -> String {
    let lines: Vec<(String, String)> = nodes
        .iter()
        .map(|verdict| {
            let price = verdict.price_per_hour.map(|price: Micro| format!(" ({price}/h)")).unwrap_or_default();
            let reasons: Vec<&str> = verdict.reasons.iter().map(|reason| reason.as_str()).collect();
            let what = if verdict.fits { format!("fits{price}") } else { reasons.join("; ") };
            (format!("  {}", verdict.node), what)
        })
        .collect();
    pairs(&lines.iter().map(|(node, what)| (node.as_str(), what.clone())).collect::<Vec<_>>())
}

/// Ids from the command line; `-` stands for those on standard input.
pub(crate) fn ids(words: Vec<String>) -> Result<Vec<String>, Failure> {
    let mut ids = Vec::new();
    for word in words {
        if word != "-" {
            ids.push(word);
            continue;
        }
        let text = std::io::read_to_string(std::io::stdin())
            .map_err(|error| Failure::usage(format!("cannot read ids from standard input: {error}")))?;
        ids.extend(text.split_whitespace().map(str::to_owned));
    }
    Ok(ids)
}

/// A job's id in full, from any way to name it.
pub(crate) async fn resolve(shell: &Shell, client: &Client, word: &str) -> Result<(JobId, JobView), Failure> {
    let view = client.job(JobQuery { job: shell.job_ref(word)? }).await?;
    Ok((view.id, view))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Result<JobsQuery, Failure> {
        filter(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_job_without_a_name_is_called_by_what_it_runs() {
        let job = docs::tests::ended_job();
        assert_eq!(called(&job, true), "primes");
        let what = Text::cut(format!("alpine:3 sh -c {}", "x".repeat(50)));
        let job = JobView { name: Text::default(), what, ..job };
        assert_eq!(called(&job, false), job.what.as_str());
        assert_eq!(called(&job, true), format!("alpine:3 sh -c {}…", "x".repeat(25)));
    }

    #[test]
    fn filter_words_become_a_query() {
        let query = words(&["state:queued,running label:sweep=a=b", "train"]).expect("parses");
        assert_eq!(query.states.to_vec(), [JobState::Queued, JobState::Running]);
        assert_eq!(query.labels[0].1.as_str(), "a=b");
        assert_eq!((query.prefix.as_str(), query.ended), ("train", false));
        assert!(words(&["state:failed"]).expect("parses").ended, "ended jobs are asked for by their state");
    }

    #[test]
    fn filter_words_that_make_no_sense_are_refused_with_a_near_miss() {
        for (word, hint) in [
            ("state:runing", "did you mean `running`?"),
            ("stat:running", "did you mean `state:`?"),
            ("xyz:1", "write state:"),
            ("label:x", ""),
        ] {
            let failure = words(&[word]).expect_err(word);
            assert_eq!(failure.exit, 2);
            assert!(failure.hint.unwrap_or_default().starts_with(hint), "{word}");
        }
    }

    #[test]
    fn any_filter_words_are_a_query_or_a_complaint() {
        let words = ["state:", "label:", "name:", "account:", "queued,", "running", "=", " "];
        crate::fuzz::target("filter").words(&words).longest(512).run(|input| {
            let Ok(text) = std::str::from_utf8(input) else { return 0 };
            match filter(&[text.to_owned()]) {
                Ok(query) => modchain_fuzz::signature(&(query.states.len(), query.labels.len().min(3), query.ended)),
                Err(failure) => crate::fuzz::complaint(&failure.message),
            }
        });
    }
}

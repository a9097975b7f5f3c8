//! `jobs` and `job`: lists, one job, and why it is where it is.

use modchain_types::id::BadId;
use modchain_types::{Asset, JobId, JobState, List, Micro, Text};
use modchain_wire::console::{ExplainQuery, JobQuery, JobsQuery};
use modchain_wire::view::{ExplanationView, JobView, NodeVerdictView};

use super::docs::{self, ListDoc};
use super::table::{self, Column, Columns, Look, NONE, millis, or_none, pairs};
use super::watch::{self, JobWatch, JobsWatch};
use super::{again, events, follow};
use crate::args::{EventsArgs, Format, JobArgs, JobCommand, JobsArgs, TableArgs};
use crate::client::Client;
use crate::exit::{self, Failure, Outcome};
use crate::filter::{Demand, Filter, Kind, Unit};
use crate::shell::Shell;
use crate::text;

/// Characters of what a job runs that a table on a terminal shows.
const WHAT_CHARS_MAX: usize = 40;
/// Jobs asked for at once.
const PAGE: u32 = 500;

/// Jobs that are looked at to find out which are first by another order, at most.
const SORTED_MAX: u32 = 100_000;

/// `modchain jobs`.
pub(crate) async fn list(shell: &Shell, args: JobsArgs) -> Outcome {
    let look = shell.look();
    let columns = Columns::new(&COLUMNS, &args.table, look.wide)?;
    let (mut query, filter) = filter(&args.filter)?;
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
        let watched = JobsWatch { query, filter, columns, look, limit: args.limit as usize, asset };
        return watch::watch(shell, client, watched).await;
    }
    let enough = if columns.sorts() { SORTED_MAX } else { args.limit };
    let (mut jobs, total) = pages(&client, query, enough, |job| columns.fits(&filter, job, &look)).await?;
    columns.sort(&mut jobs, &look);
    jobs.truncate(args.limit as usize);
    match shell.format() {
        Format::Json => {
            let items = jobs.iter().map(|job| docs::job(job, asset)).collect();
            shell.print_document(&ListDoc { schema: "modchain.jobs/v1", items, total })?;
        }
        Format::Jsonl => jobs.iter().try_for_each(|job| shell.print_document(&docs::job(job, asset)))?,
        Format::Name => shell.print(&jobs.iter().map(|job| format!("{}\n", job.id)).collect::<String>())?,
        Format::Table => {
            shell.print(&columns.text(&jobs, &look))?;
            if let Some(total) = total.filter(|total| *total > jobs.len() as u64 && shell.stderr_tty()) {
                shell.say(&format!("{} of {total} jobs; --limit shows more", jobs.len()));
            }
        }
    }
    Ok(exit::OK)
}

/// Every job that fits the query and what is tested here, up to `limit`, newest first; and how many fit in all, where that
/// is known.
pub(crate) async fn pages(
    client: &Client,
    mut query: JobsQuery,
    limit: u32,
    fits: impl Fn(&JobView) -> bool,
) -> Result<(Vec<JobView>, Option<u64>), Failure> {
    let limit = limit as usize;
    let mut jobs: Vec<JobView> = Vec::new();
    let mut unfit = 0;
    loop {
        // Nobody knows how many of a page will do.
        let wanted = if unfit > 0 { PAGE as usize } else { limit - jobs.len() };
        query.limit = u32::try_from(wanted).unwrap_or(PAGE).min(PAGE);
        let page = client.jobs(query.clone()).await?;
        let (total, more) = (page.total, page.more);
        let count = page.items.len();
        query.after = page.items.last().map(|job| job.id);
        jobs.extend(page.items.into_iter().filter(|job| {
            let is_fit = fits(job);
            unfit += usize::from(!is_fit);
            is_fit
        }));
        if !more || count == 0 || jobs.len() >= limit {
            let cut = jobs.len() > limit || more;
            jobs.truncate(limit);
            let known = match (unfit, cut) {
                (0, _) => Some(total),
                (_, false) => Some(jobs.len() as u64),
                (_, true) => None,
            };
            return Ok((jobs, known));
        }
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

/// The words of every state of jobs.
const STATES: &[&str] = &[
    "queued",
    "assigned",
    "starting",
    "running",
    "unreachable",
    "cancelling",
    "completed",
    "failed",
    "timed_out",
    "cancelled",
    "expired",
];

/// Filter words: a query for what the orchestrator can look for, and the rest, which is tested here. So are names and accounts
/// once more: it finds a name's beginning in ids as well, and shows clients their own jobs whatever account is asked for.
fn filter(words: &[String]) -> Result<(JobsQuery, Filter), Failure> {
    let mut filter = table::filter(words, &COLUMNS)?;
    let mut query = live();
    let (mut states, mut labels) = (Vec::new(), Vec::new());
    let mut bad = None;
    filter.hand_over(|demand| match demand {
        Demand::OneOf("state", words) => {
            states.extend(JobState::ALL.into_iter().filter(|state| words.iter().any(|word| word == state.word())));
            true
        }
        Demand::OneOf("account" | "owner", [name]) if query.account.is_none() => {
            match name.parse() {
                Ok(name) => query.account = Some(name),
                Err(error) => bad = Some(BadId::to_string(&error)),
            }
            false
        }
        Demand::OneOf(label, [value]) => match (label.strip_prefix("label."), Text::new(value.as_str())) {
            (Some(key), Ok(value)) => Text::new(key).map(|key| labels.push((key, value))).is_ok(),
            (Some(_), Err(_)) | (None, _) => false,
        },
        Demand::Begins("name", start) if query.prefix.is_empty() => {
            query.prefix = Text::new(start).unwrap_or_default();
            false
        }
        Demand::OneOf(..) | Demand::Begins(..) => false,
    });
    if let Some(why) = bad {
        return Err(Failure::usage(why));
    }
    query.ended = states.iter().any(|state| state.is_ended());
    let too_many = |error| Failure::usage(format!("filter: {error}"));
    query.states = List::new(states).map_err(too_many)?;
    query.labels = List::new(labels).map_err(too_many)?;
    Ok((query, filter))
}

/// One of them.
type JobColumn = Column<JobView>;

/// The columns of jobs. The hidden ones are what stands above the same columns in the console.
pub(crate) static COLUMNS: [JobColumn; 23] = [
    JobColumn::text("job", "JOB", |job, look| text::job_id(&job.id, look.short)).of(Kind::Name),
    JobColumn::text("name", "NAME", |job, look| called(job, look.short)).of(Kind::Name),
    JobColumn::text("state", "STATE", |job, _| job.state.word().into()).of(Kind::Words(STATES)),
    JobColumn::number(
        "exit",
        "EXIT",
        Unit::Plain,
        |job, _| or_none(job.exit.map(|exit| exit.code)),
        |job, _| job.exit.map(|exit| f64::from(exit.code)),
    ),
    JobColumn::text("node", "NODE", |job, _| or_none(job.node.as_ref())),
    JobColumn::number(
        "time",
        "TIME",
        Unit::Millis,
        |job, look| or_none(text::ran(job, look.now)),
        |job, look| text::ran(job, look.now).map(millis),
    )
    .restless(),
    JobColumn::number(
        "cost",
        "COST",
        Unit::Micro,
        // As long as it runs it is another one every time.
        |job, look| or_none(Some(job.cost).filter(|_| !look.still || job.state.is_ended())),
        |job, _| Some(job.cost.0 as f64),
    ),
    JobColumn::number("hold", "HOLD", Unit::Micro, |job, _| job.hold.to_string(), |job, _| Some(job.hold.0 as f64)),
    JobColumn::text("account", "ACCOUNT", |job, _| job.account.to_string()).of(Kind::Whole),
    JobColumn::number(
        "age",
        "AGE",
        Unit::Millis,
        |job, look| look.now.since(job.created_at).to_string(),
        |job, look| Some(millis(look.now.since(job.created_at))),
    )
    .restless(),
    JobColumn::text("type", "TYPE", |job, _| job.adapter.word().into()).extra(),
    JobColumn::text("reason", "REASON", |job, _| or_none(job.reason)).extra(),
    JobColumn::number(
        "gpus",
        "GPUS",
        Unit::Plain,
        |job, _| job.gpus.len().to_string(),
        |job, _| Some(job.gpus.len() as f64),
    )
    .extra(),
    JobColumn::number(
        "price",
        "PRICE/H",
        Unit::Micro,
        |job, _| or_none(job.price_per_hour),
        |job, _| job.price_per_hour.map(|price| price.0 as f64),
    )
    .extra(),
    JobColumn::number(
        "attempts",
        "ATTEMPTS",
        Unit::Plain,
        |job, _| tries(job).to_string(),
        |job, _| Some(f64::from(tries(job))),
    )
    .extra(),
    JobColumn::text("submitted", "SUBMITTED", |job, look| text::date_time(job.created_at, look.utc)).extra(),
    JobColumn::text("label", "LABELS", |job, _| labels(job))
        .pairs(|job, name| job.labels.iter().find(|(key, _)| key.as_str() == name).map(|(_, value)| value.to_string()))
        .extra(),
    JobColumn::text("model", "MODEL", |job, _| or_none(job.model.as_ref())).extra(),
    JobColumn::number("cap", "CAP", Unit::Micro, |job, _| job.hold.to_string(), |job, _| Some(job.hold.0 as f64))
        .hidden(),
    JobColumn::text("owner", "OWNER", |job, _| job.account.to_string()).of(Kind::Whole).hidden(),
    JobColumn::number("try", "TRY", Unit::Plain, |job, _| tries(job).to_string(), |job, _| Some(f64::from(tries(job))))
        .hidden(),
    JobColumn::text("what", "WHAT", |job, _| job.what.to_string()).extra(),
    JobColumn::text("message", "MESSAGE", |job, _| job.message.to_string()).extra(),
];

/// How many attempts there were.
fn tries(job: &JobView) -> u32 {
    job.attempts.last().map_or(0, |attempt| attempt.number)
}

fn labels(job: &JobView) -> String {
    let labels: Vec<String> = job.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if labels.is_empty() { NONE.into() } else { labels.join(" ") }
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

/// `modchain job`.
pub(crate) async fn job(shell: &Shell, args: JobArgs) -> Outcome {
    let (jobs, watch) = match args.command {
        Some(JobCommand::Explain { job }) => return explain(shell, &job).await,
        Some(JobCommand::Events { job, follow }) => {
            let about =
                EventsArgs { follow, since: None, kind: None, job: Some(job), node: None, table: TableArgs::default() };
            return events::events(shell, about).await;
        }
        Some(JobCommand::Spec(args)) => return again::spec(shell, args).await,
        Some(JobCommand::Rerun(_)) => unreachable!("it listens to signals itself"),
        Some(JobCommand::Show { jobs, watch }) => (jobs, watch),
        None => (args.jobs, args.watch),
    };
    let jobs = ids(jobs).await?;
    let client = shell.connect().await?;
    let asset = client.welcome().asset;
    let mut views = Vec::new();
    for job in &jobs {
        views.push(client.job(JobQuery { job: shell.job_ref(job)? }).await?);
    }
    if watch {
        let columns = Columns::new(&COLUMNS, &TableArgs::default(), shell.look().wide)?;
        return watch::watch(shell, client, JobWatch { jobs: views, columns, look: shell.look(), asset }).await;
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
            let texts: Vec<String> = views.iter().map(|view| details(view, &shell.look(), asset)).collect();
            shell.print(&texts.join("\n"))?;
        }
    }
    Ok(exit::OK)
}

/// All of a job, for a person.
pub(super) fn details(job: &JobView, look: &Look, asset: Asset) -> String {
    let place = match (&job.node, text::ran(job, look.now)) {
        _ if job.state.is_ended() => follow::place(job),
        (Some(node), Some(span)) => format!(" {span} on {node}"),
        (Some(node), None) => format!(" on {node}"),
        (None, _) => String::new(),
    };
    let name = if job.name.is_empty() { String::new() } else { format!("{}  ", job.name) };
    let state = follow::with_message(job, format!("{}{place}", follow::outcome(job)));
    let title = text::one_line(&format!("{}  {name}{state}", text::job_id(&job.id, look.short)));
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
    lines.push(("submitted", text::date_time(job.created_at, look.utc)));
    for attempt in &job.attempts {
        let mut line = format!("{} on {}", attempt.state, attempt.node);
        if let Some(reason) = attempt.reason {
            line.push_str(&format!(" ({reason})"));
        }
        for (what, at) in [("started", attempt.started_at), ("ended", attempt.ended_at)] {
            if let Some(at) = at {
                line.push_str(&format!(", {what} {}", text::time_of_day(at, look.utc)));
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

/// Why a job is where it is, and one line per node.
pub(crate) fn explanation(view: &ExplanationView, id: &str) -> String {
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
pub(crate) async fn ids(words: Vec<String>) -> Result<Vec<String>, Failure> {
    let mut ids = Vec::new();
    for word in words {
        if word != "-" {
            ids.push(word);
            continue;
        }
        // On a thread of its own, so that a signal is heard while nobody types.
        let read = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin())).await;
        let text = read
            .map_err(std::io::Error::other)
            .flatten()
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
    use modchain_types::WallTime;

    use super::*;
    use crate::cli::table::Look;

    fn words(words: &[&str]) -> Result<(JobsQuery, Filter), Failure> {
        filter(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn filters_know_every_state() {
        assert_eq!(STATES, JobState::ALL.map(JobState::word));
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
    fn what_the_orchestrator_can_look_for_becomes_a_query() {
        let (query, rest) = words(&["state:queued,running label:sweep=a=b", "name:train"]).expect("parses");
        assert_eq!(query.states.to_vec(), [JobState::Queued, JobState::Running]);
        assert_eq!(query.labels[0].1.as_str(), "a=b");
        assert_eq!((query.prefix.as_str(), query.ended), ("train", false));
        assert!(!rest.is_empty(), "ids that begin with it are none of those jobs");
        assert!(words(&["state:failed label:a=b"]).expect("parses").1.is_empty());
        assert!(words(&["state:failed"]).expect("parses").0.ended, "ended jobs are asked for by their state");
        let (query, rest) = words(&["account:alice !state:failed cost>1 train"]).expect("parses");
        assert_eq!(query.account.map(|account| account.to_string()), Some("alice".into()));
        assert!(!rest.is_empty() && query.states.is_empty() && query.prefix.is_empty());
    }

    #[test]
    fn the_rest_is_tested_on_every_column() {
        let job = docs::tests::ended_job();
        let look = Look {
            now: WallTime(job.created_at.0 + 60_000),
            utc: true,
            wide: false,
            short: false,
            still: false,
            csv: false,
        };
        let columns = Columns::new(&COLUMNS, &TableArgs::default(), false).expect("columns");
        let fits = |text: &str| columns.fits(&words(&[text]).expect(text).1, &job, &look);
        for text in [
            "prim",
            "cost>=0.001",
            "exit=3",
            "age:1m",
            "!state:running",
            "what:wasm|type:wasm",
            "!node:nowhere",
            "name:prim",
        ] {
            assert!(fits(text), "{text}");
        }
        for text in
            ["nothing", "cost>100", "exit=0", "age<1m", "!state:failed", "name:j", "account:nobody", "owner:nobody"]
        {
            assert!(!fits(text), "{text}");
        }
    }

    #[test]
    fn filter_words_that_make_no_sense_are_refused_with_a_near_miss() {
        for (word, hint) in [
            ("state:runing", "did you mean `running`?"),
            ("stat:running", "did you mean `state:`?"),
            ("xyz:1", "there are: job, name, state"),
            ("label:x", "write label:KEY=VALUE"),
            ("cost>much", "write cost>1.50"),
        ] {
            let failure = words(&[word]).map(|_| ()).expect_err(word);
            assert_eq!(failure.exit, 2);
            assert!(failure.hint.unwrap_or_default().starts_with(hint), "{word}");
        }
    }
}

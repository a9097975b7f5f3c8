//! `logs`: a job's output, as much as there is or until the job has ended.

use modchain_types::Asset;
use modchain_wire::ToConsole;
use modchain_wire::console::{JobRef, LogsOpen};
use modchain_wire::view::JobView;

use super::follow::{self, End, Follow};
use super::log_printer::{LogPrinter, Streams, Style};
use super::{docs, jobs, run};
use crate::args::{Format, LogsArgs};
use crate::client::Client;
use crate::client::link::unexpected;
use crate::exit::{self, Failure, Outcome};
use crate::shell::Shell;
use crate::signal::Signals;
use crate::text;

/// `modchain logs`.
pub(crate) async fn logs(shell: &Shell, args: LogsArgs, signals: &mut Signals) -> Outcome {
    let since = args.since.as_deref().map(|since| text::parse_since(since, text::wall_now())).transpose();
    let since = since.map_err(Failure::usage)?;
    let client = shell.connect().await?;
    let asset = client.welcome().asset;
    let (job, view) = jobs::resolve(shell, &client, &args.job).await?;
    let streams = match (args.stdout, args.stderr) {
        (true, _) => Streams::Stdout,
        (_, true) => Streams::Stderr,
        (false, false) => Streams::All,
    };
    let style = match shell.format() {
        Format::Json => Style::Items,
        Format::Jsonl => Style::Documents,
        Format::Table | Format::Name if args.timestamps || args.prefix => {
            Style::Lines { timestamps: args.timestamps, prefix: args.prefix }
        }
        Format::Table | Format::Name => Style::Bytes,
    };
    let mut printer = LogPrinter::start(shell, job, streams, style, args.raw, args.tail.map(|lines| lines as usize));
    let request = LogsOpen { job: JobRef::cut(job.to_string()), follow: false, from: None, since };

    let end = if args.follow {
        let mut follow = Follow {
            shell,
            job,
            asset,
            since,
            printer,
            feed: None,
            on_interrupt: shell.on_interrupt,
            narrate: false,
            answer: None,
        };
        let end = follow.run(client, signals).await?;
        printer = follow.printer;
        match end {
            End::Ended(job) => *job,
            End::Detached(wish, seen) => {
                let seen = seen.map_or(view, |seen| *seen);
                close(shell, style, &printer, &seen, asset)?;
                run::say_detached(shell, &shell.id_said(&job), Some(&seen), seen.hold, asset);
                return Ok(wish.exit());
            }
        }
    } else {
        tokio::select! {
            end = once(&client, request, &mut printer) => end?,
            wish = signals.next() => return Ok(wish.exit()),
        }
    };
    close(shell, style, &printer, &end, asset)?;
    if !args.exit_code {
        return Ok(exit::OK);
    }
    if !end.state.is_ended() {
        return Err(Failure::conflict(format!("{} has not ended, it has no exit code yet", shell.id_said(&job)))
            .hint("follow it with -f"));
    }
    Ok(follow::exit_of(&end))
}

/// Ends the documents: with the job as it is by then.
fn close(shell: &Shell, style: Style, printer: &LogPrinter, job: &JobView, asset: Asset) -> Result<(), Failure> {
    let end = docs::log_end(job, asset);
    match style {
        Style::Documents => shell.print_document(&end),
        Style::Items => {
            let as_yaml = shell.is_yaml();
            let begin = if printer.has_begun() { String::new() } else { docs::logs_empty(&job.id, as_yaml) };
            let rest = docs::logs_end(&end, as_yaml);
            let rest = rest.map_err(|error| Failure::failed(format!("cannot make a document: {error}")))?;
            shell.print(&(begin + &rest))
        }
        Style::Bytes | Style::Lines { .. } | Style::Nothing => Ok(()),
    }
}

/// All there is now.
async fn once(client: &Client, request: LogsOpen, printer: &mut LogPrinter) -> Result<JobView, Failure> {
    let mut replies = client.open(request).await?;
    loop {
        match replies.next().await? {
            ToConsole::LogChunk(chunk) => printer.chunk(chunk).await?,
            ToConsole::CaughtUp(_) => {}
            ToConsole::LogEnd(end) => {
                printer.finish().await?;
                return Ok(end.job);
            }
            other => return Err(unexpected(Some(&other))),
        }
    }
}

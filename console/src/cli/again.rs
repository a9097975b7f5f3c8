//! `job spec` and `job rerun`: what a job was submitted with, as a job file or as another job.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use modchain_types::{Digest, LlmRequest, LlmTask};
use modchain_wire::console::{SpecQuery, SpecView};

use super::docs;
use super::run::{planned, submit_and_follow};
use super::spec::{self, Earlier};
use crate::args::{Format, RerunArgs, SpecArgs};
use crate::client::Client;
use crate::exit::{self, Failure, Outcome};
use crate::shell::Shell;
use crate::signal::Signals;

/// Largest module that is saved: what the orchestrator keeps at most.
const MODULE_BYTES_MAX: u64 = 32 << 20;

/// `modchain job spec`.
pub(crate) async fn spec(shell: &Shell, args: SpecArgs) -> Outcome {
    let client = shell.connect().await?;
    let SpecView { job, spec } = client.spec(SpecQuery { job: shell.job_ref(&args.job)? }).await?;
    let mut earlier = Earlier::of(job, &spec)?;
    let request = match earlier.request() {
        Some(digest) => request(&client, digest).await?,
        None => None,
    };
    if let Some(request) = &request {
        earlier.said(request.clone());
    }
    if let Some(path) = &args.module {
        let (digest, bytes, _) = earlier.module().ok_or_else(|| no_such_part("WebAssembly module"))?;
        let module = client.fetch_blob(digest, bytes.min(MODULE_BYTES_MAX)).await?;
        save(path, &module.ok_or_else(|| not_kept("the module"))?)?;
    }
    if let Some(path) = &args.history {
        if !earlier.is_conversation() {
            return Err(no_such_part("conversation"));
        }
        let messages = earlier.said_before().ok_or_else(|| not_kept("the conversation"))?;
        let text = serde_json::to_string_pretty(messages).map_err(|e| Failure::failed(format!("no JSON: {e}")))?;
        save(path, (text + "\n").as_bytes())?;
    }
    match shell.format() {
        Format::Json | Format::Jsonl => {
            shell.print_document(&docs::job_spec(job, &spec, request, client.welcome().asset))?;
        }
        Format::Name => shell.print(&format!("{job}\n"))?,
        Format::Table => shell.print(&earlier.job_file(args.module.as_deref(), args.history.as_deref()))?,
    }
    Ok(exit::OK)
}

/// `modchain job rerun`.
pub(crate) async fn rerun(shell: &Shell, args: RerunArgs, signals: &mut Signals) -> Outcome {
    let RerunArgs { job, without, mut run } = args;
    let (flags, max_cost) = (std::mem::take(&mut run.job), shell.target()?.max_cost);
    let planning = async {
        let client = shell.connect().await?;
        let SpecView { job, spec } = client.spec(SpecQuery { job: shell.job_ref(&job)? }).await?;
        let mut earlier = Earlier::of(job, &spec)?;
        if let Some(digest) = earlier.request().filter(|_| earlier.is_asked_otherwise(&flags, &without))
            && let Some(request) = request(&client, digest).await?
        {
            earlier.said(request);
        }
        earlier.without(&without)?;
        let conversation = earlier.is_conversation();
        let plan = planned(move || spec::again(flags, earlier, max_cost)).await?;
        Ok::<_, Failure>((client, plan, conversation))
    };
    let (client, mut plan, conversation) = tokio::select! {
        planned = planning => planned?,
        wish = signals.next() => return Ok(wish.exit()),
    };
    if conversation && plan.conversation.is_none() {
        plan.warnings.push("the answer is added to no conversation: --history FILE names one".into());
    }
    submit_and_follow(shell, run, plan, Some(client), signals).await
}

/// What was asked of a language model, if it is still there and one's own.
async fn request(client: &Client, digest: Digest) -> Result<Option<LlmRequest>, Failure> {
    let Some(bytes): Option<Bytes> = client.fetch_blob(digest, LlmTask::REQUEST_BYTES_MAX).await? else {
        return Ok(None);
    };
    let request = serde_json::from_slice(&bytes);
    request.map(Some).map_err(|error| Failure::failed(format!("what was asked cannot be read: {error}")))
}

fn no_such_part(what: &str) -> Failure {
    Failure::usage(format!("this job has no {what}"))
}

fn not_kept(what: &str) -> Failure {
    Failure::not_found(format!("{what} of this job is not kept any more, or is another account's"))
        .hint("what no open job needs goes after an hour")
}

/// Writes a new file: what is there already may be dear to somebody.
fn save(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    file.and_then(|mut file| file.write_all(bytes)).map_err(|error| {
        let failure = Failure::failed(format!("cannot write {}: {error}", path.display()));
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => failure.hint("name another file"),
            _ => failure,
        }
    })
}

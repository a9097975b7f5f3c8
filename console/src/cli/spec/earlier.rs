//! An earlier job as the beginning of a new one: from its specification back to what describes it, as a job file says it.
//!
//! What was sent beside it stays where it is: the orchestrator keeps it for a while. What no word of a job file says is told.

use std::collections::BTreeMap;
use std::path::Path;

use modchain_types::{
    Digest, DockerTask, GpuRequest, Input, JobId, JobSpec, Limits, LlmKind, LlmMessage, LlmRequest, LlmRole, LlmTask,
    OnDisconnect, Policy, Span, Task, TaskBody, Text, WasmTask, is_hidden,
};

use super::super::job_file::{JobFile, SCHEMA};
use crate::args::{ContainerFlags, JobFlags, JobType, LlmFlags, MachineFlags, OnDisconnectFlag};
use crate::client::config::nearest;
use crate::exit::Failure;
use crate::text;

/// An earlier job.
#[derive(Debug, Clone)]
pub(crate) struct Earlier {
    id: JobId,
    pub(super) file: JobFile,
    pub(super) kept: Kept,
    /// What no word of a job file says.
    unsaid: Vec<String>,
}

/// What an earlier job has left.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    pub(super) module: Option<KeptModule>,
    pub(super) request: Option<KeptRequest>,
    /// Variables that the owner of a node has been given before.
    pub(super) env: BTreeMap<String, String>,
    /// Names of variables that were left out: what they held, the owner of a node has been given all the same.
    pub(super) left_out: Vec<String>,
}

/// What can be left out of an earlier job, by the words of a job file: it is as if nothing had been said.
pub(crate) const LEFT_OUT: [&str; 33] = [
    "args",
    "cpus",
    "entrypoint",
    "env",
    "gpu-memory",
    "gpu-model",
    "gpus",
    "json",
    "label",
    "lost-after",
    "max-tokens",
    "memory",
    "name",
    "network",
    "node",
    "on-disconnect",
    "pids",
    "policy",
    "price-per-hour",
    "priority",
    "pull-timeout",
    "region",
    "require",
    "retries",
    "seed",
    "start-by",
    "stdin",
    "system",
    "temperature",
    "time-limit",
    "tmp-size",
    "workdir",
    "writable-root",
];

/// A module.
#[derive(Debug, Clone)]
pub(super) struct KeptModule {
    pub(super) digest: Digest,
    pub(super) bytes: u64,
    pub(super) name: Text<256>,
}

/// What was asked of a language model.
#[derive(Debug, Clone)]
pub(super) struct KeptRequest {
    pub(super) digest: Digest,
    pub(super) bytes: u64,
    pub(super) kind: LlmKind,
    /// Its words, where they were asked for and are still there.
    said: Option<LlmRequest>,
    /// Whether they are other words now than those of the blob.
    pub(super) changed: bool,
}

impl Earlier {
    /// What describes this specification, whose task is inline.
    pub(crate) fn of(id: JobId, spec: &JobSpec) -> Result<Self, Failure> {
        let TaskBody::Inline(task) = &spec.body else {
            return Err(Failure::failed("the orchestrator gave no task with the specification"));
        };
        let (requirements, limits) = (&spec.requirements, &spec.limits);
        let mut earlier = Self { id, file: JobFile::default(), kept: Kept::default(), unsaid: Vec::new() };
        let file = &mut earlier.file;
        let texts = |texts: &[Text<4096>]| -> Vec<String> { texts.iter().map(ToString::to_string).collect() };
        let (kind, word, env) = match task {
            Task::Wasm(WasmTask { module, module_bytes, module_name, args, env }) => {
                file.args = Some(texts(args));
                let module = KeptModule { digest: *module, bytes: *module_bytes, name: module_name.clone() };
                earlier.kept.module = Some(module);
                (JobType::Wasm, "wasm", Some(env))
            }
            Task::Docker(task) => {
                let DockerTask { image, command, entrypoint, env, workdir, tmp_bytes, pids_max, pull_timeout } = task;
                file.args = Some(texts(command));
                file.container = ContainerFlags {
                    image: Some(image.to_string()),
                    entrypoint: entrypoint.as_ref().map(|words| texts(words)),
                    workdir: workdir.as_ref().map(ToString::to_string),
                    pull_timeout: Some(*pull_timeout),
                    pids: Some(*pids_max),
                    tmp_size: Some(*tmp_bytes),
                    writable_root: requirements.exceptions.writable_root,
                    network: requirements.exceptions.network,
                };
                (JobType::Docker, "image", Some(env))
            }
            Task::Llm(task) => {
                let LlmTask { model, request, request_bytes, kind, temperature_milli, max_tokens, seed, json } = task;
                file.llm = LlmFlags {
                    model: Some(model.to_string()),
                    temperature: *temperature_milli,
                    max_tokens: *max_tokens,
                    seed: *seed,
                    json: *json,
                    ..LlmFlags::default()
                };
                let request =
                    KeptRequest { digest: *request, bytes: *request_bytes, kind: *kind, said: None, changed: false };
                earlier.kept.request = Some(request);
                (JobType::Llm, "model", None)
            }
        };
        for (name, value) in env.into_iter().flat_map(|env| env.iter()) {
            earlier.kept.env.insert(name.to_string(), value.to_string());
        }
        // So that a flag of another kind is told what it does not fit to.
        let place = format!("job {}", id.short());
        file.places = [("type", place.clone()), (word, place)].into();
        file.kind = Some(kind);
        file.name = (!spec.name.is_empty()).then(|| spec.name.to_string());
        file.max_cost = Some(spec.max_cost);
        file.cpus = Some(requirements.cpu_milli);
        file.memory = Some(requirements.memory_bytes);
        let GpuRequest { count, memory_bytes_min, model } = &requirements.gpus;
        file.machine = MachineFlags {
            gpus: (*count > 0).then_some(*count),
            gpu_memory: (*memory_bytes_min > 0).then_some(*memory_bytes_min),
            gpu_model: model.as_ref().map(ToString::to_string),
            region: requirements.region.as_ref().map(ToString::to_string),
            price_per_hour: requirements.price_per_hour_max,
        };
        file.node = requirements.node.clone();
        file.require = requirements.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        file.time_limit = limits.time_limit;
        file.start_by = limits.start_by;
        file.lost_after = Some(limits.lost_after);
        file.on_disconnect = Some(match limits.on_disconnect {
            OnDisconnect::Keep => OnDisconnectFlag::Keep,
            OnDisconnect::Stop => OnDisconnectFlag::Stop,
        });
        file.policy = Some(spec.policy.into());
        file.priority = Some(spec.priority);
        file.retries = Some(limits.attempts_max.saturating_sub(1));
        file.stdin = Some(spec.input == Input::Stream);
        file.labels = spec.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        for (what, bytes, usual) in [
            ("its disk", requirements.disk_bytes, 0),
            ("the most it may print", limits.output_bytes_max, Limits::OUTPUT_BYTES_MAX),
        ] {
            if bytes != usual {
                earlier.unsaid.push(format!("{what}, {bytes} bytes, which no word of a job file says"));
            }
        }
        Ok(earlier)
    }

    /// What describes it, its environment beside it.
    pub(crate) fn described(&self) -> (&JobFile, &BTreeMap<String, String>) {
        (&self.file, &self.kept.env)
    }

    /// The module that it ran: its digest, its size and what its file was called.
    pub(crate) fn module(&self) -> Option<(Digest, u64, &str)> {
        self.kept.module.as_ref().map(|module| (module.digest, module.bytes, module.name.as_str()))
    }

    /// Which job it was.
    pub(crate) fn job(&self) -> JobId {
        self.id
    }

    /// The words of what it asked of a language model, where they are known.
    pub(crate) fn words(&self) -> Option<&LlmRequest> {
        self.kept.request.as_ref()?.said.as_ref()
    }

    /// What it asked of a language model.
    pub(crate) fn request(&self) -> Option<Digest> {
        self.kept.request.as_ref().map(|request| request.digest)
    }

    /// Whether flags, or words that are left out, change a part of what it asked: then the whole of it must be known.
    pub(crate) fn is_asked_otherwise(&self, flags: &JobFlags, without: &[String]) -> bool {
        let system_goes = without.iter().any(|word| word.trim() == "system");
        self.kept.request.is_some() && (flags.file.is_some() || system_goes || super::llm::says_something(&flags.llm))
    }

    /// Forgets what it said with these words. The words of what it asked must be known where one of them is about those.
    ///
    /// # Errors
    /// One of them is no word that can be left out.
    pub(crate) fn without(&mut self, words: &[String]) -> Result<(), Failure> {
        let Self { file, kept, .. } = self;
        let JobFile { container, llm, machine, .. } = file;
        for word in words {
            match word.trim() {
                "args" => file.args = None,
                "cpus" => file.cpus = None,
                "entrypoint" => container.entrypoint = None,
                "env" => kept.left_out.extend(std::mem::take(&mut kept.env).into_keys()),
                "gpu-memory" => machine.gpu_memory = None,
                "gpu-model" => machine.gpu_model = None,
                "gpus" => machine.gpus = None,
                "json" => llm.json = false,
                "label" | "labels" => file.labels.clear(),
                "lost-after" => file.lost_after = None,
                "max-tokens" => llm.max_tokens = None,
                "memory" => file.memory = None,
                "name" => file.name = None,
                "network" => container.network = false,
                "node" => file.node = None,
                "on-disconnect" => file.on_disconnect = None,
                "pids" => container.pids = None,
                "policy" => file.policy = None,
                "price-per-hour" => machine.price_per_hour = None,
                "priority" => file.priority = None,
                "pull-timeout" => container.pull_timeout = None,
                "region" => machine.region = None,
                "require" => file.require.clear(),
                "retries" => file.retries = None,
                "seed" => llm.seed = None,
                "start-by" => file.start_by = None,
                "stdin" => file.stdin = None,
                "system" => kept.request.as_mut().map_or(Ok(()), KeptRequest::without_system)?,
                "temperature" => llm.temperature = None,
                "time-limit" => file.time_limit = None,
                "tmp-size" => container.tmp_size = None,
                "workdir" => container.workdir = None,
                "writable-root" => container.writable_root = false,
                other => {
                    let failure = Failure::usage(format!("without: `{other}` is nothing that can be left out"));
                    return Err(match nearest(other, LEFT_OUT.iter().copied()) {
                        Some(near) => failure.hint(format!("did you mean `{near}`?")),
                        None => failure.hint(format!("there are: {}", LEFT_OUT.join(", "))),
                    });
                }
            }
        }
        Ok(())
    }

    /// Whether it asked with a conversation.
    pub(crate) fn is_conversation(&self) -> bool {
        self.kept.request.as_ref().is_some_and(|request| request.kind == LlmKind::Chat)
    }

    /// Takes in the words of what it asked.
    pub(crate) fn said(&mut self, said: LlmRequest) {
        if let Some(request) = &mut self.kept.request {
            request.said = Some(said);
        }
    }

    /// The job file that describes it. A module and a conversation are files of their own: `module` and `history` are where
    /// they were saved, if they were.
    pub(crate) fn job_file(&self, module: Option<&Path>, history: Option<&Path>) -> String {
        let id = self.id;
        let mut out = Writer(format!(
            "# What job {id} was submitted with. Once more: modchain run -f FILE\nschema = \"{SCHEMA}\"\n"
        ));
        for unsaid in &self.unsaid {
            out.comment(&format!("Not in this file: {unsaid}."));
        }
        let file = &self.file;
        out.word("type", file.kind.map(JobType::word));
        out.word("name", file.name.as_deref());
        if let Some(kept) = &self.kept.module {
            let called = module.map_or_else(|| kept.name.to_string(), |path| path.display().to_string());
            if module.is_none() {
                let size = text::bytes(kept.bytes);
                out.comment(&format!(
                    "The module ({size}) lies beside this file. To save it: modchain job spec {id} --module {called}"
                ));
            }
            out.word("wasm", Some(&called));
        }
        self.container(&mut out);
        self.llm(&mut out, history);
        if let Some(args) = file.args.as_ref().filter(|args| !args.is_empty()) {
            out.words("args", args);
        }
        out.plain("max-cost", file.max_cost);
        out.word("node", file.node.as_ref().map(|node| node.as_str()));
        out.word("region", file.machine.region.as_deref());
        out.plain("price-per-hour", file.machine.price_per_hour);
        out.word("time-limit", file.time_limit.map(span).as_deref());
        out.word("start-by", file.start_by.map(span).as_deref());
        let lost_after = file.lost_after.filter(|after| *after != Limits::default().lost_after);
        out.word("lost-after", lost_after.map(span).as_deref());
        match file.on_disconnect {
            None | Some(OnDisconnectFlag::Keep) => {}
            Some(OnDisconnectFlag::Stop) => out.word("on-disconnect", Some("stop")),
        }
        let policy = file.policy.map(Policy::from).filter(|policy| *policy != Policy::default());
        out.word("policy", policy.map(Policy::word));
        out.plain("priority", file.priority.filter(|priority| *priority != 0));
        out.plain("retries", file.retries.filter(|retries| *retries + 1 != Limits::default().attempts_max));
        out.plain("stdin", file.stdin.filter(|stdin| *stdin));
        out.0.push_str("\n[resources]\n");
        out.plain("cpus", file.cpus.map(text::cpus));
        out.word("memory", file.memory.map(size).as_deref());
        out.plain("gpus", file.machine.gpus);
        out.word("gpu-memory", file.machine.gpu_memory.map(size).as_deref());
        out.word("gpu-model", file.machine.gpu_model.as_deref());
        for (table, pairs) in [("env", &self.kept.env), ("labels", &file.labels), ("require", &file.require)] {
            if pairs.is_empty() {
                continue;
            }
            out.0.push_str(&format!("\n[{table}]\n"));
            if table == "env" && pairs.keys().any(|name| super::looks_like_secret(name)) {
                out.comment("What looks like a secret is sent with --allow-secrets-on-node only.");
            }
            pairs.iter().for_each(|(name, value)| out.word(name, Some(value)));
        }
        out.0
    }

    fn container(&self, out: &mut Writer) {
        let container = &self.file.container;
        out.word("image", container.image.as_deref());
        match container.entrypoint.as_deref() {
            None => {}
            Some([]) => out.word("entrypoint", Some("")),
            Some(words) => out.words("entrypoint", words),
        }
        out.word("workdir", container.workdir.as_deref());
        let pull_timeout = container.pull_timeout.filter(|span| *span != DockerTask::PULL_TIMEOUT_DEFAULT);
        out.word("pull-timeout", pull_timeout.map(span).as_deref());
        out.plain("pids", container.pids.filter(|pids| *pids != DockerTask::PIDS_DEFAULT));
        let tmp_size = container.tmp_size.filter(|bytes| *bytes != DockerTask::TMP_BYTES_DEFAULT);
        out.word("tmp-size", tmp_size.map(size).as_deref());
        out.plain("writable-root", container.writable_root.then_some(true));
        out.plain("network", container.network.then_some(true));
    }

    fn llm(&self, out: &mut Writer, history: Option<&Path>) {
        let Some(kept) = &self.kept.request else { return };
        let llm = &self.file.llm;
        out.word("model", llm.model.as_deref());
        match &kept.said {
            None => out.comment(
                "What was asked is not here: it is its own account's to read, and is kept for an hour after the last job \
                 that needs it. Write prompt = \"...\" below.",
            ),
            Some(LlmRequest::Generate { prompt, system }) => {
                out.word("system", system.as_deref());
                out.word("prompt", Some(prompt));
            }
            Some(LlmRequest::Embed { inputs }) => out.words("embed", inputs),
            Some(LlmRequest::Chat { messages }) => {
                let called = history.map_or_else(|| "chat.json".into(), |path| path.display().to_string());
                if history.is_none() {
                    out.comment(&format!(
                        "What was said before lies beside this file. To save it: modchain job spec {} --history {called}",
                        self.id
                    ));
                }
                out.word("history", Some(&called));
                out.word("prompt", question(messages));
            }
        }
        out.plain("temperature", llm.temperature.map(|milli| format!("{}.{:03}", milli / 1_000, milli % 1_000)));
        out.plain("max-tokens", llm.max_tokens);
        out.plain("seed", llm.seed);
        out.plain("json", llm.json.then_some(true));
    }

    /// The question that its conversation ended with, where its words are known.
    pub(crate) fn question(&self) -> Option<&str> {
        match self.words()? {
            LlmRequest::Chat { messages } => question(messages),
            LlmRequest::Generate { .. } | LlmRequest::Embed { .. } => None,
        }
    }

    /// What was said before the question that it asked, if it asked with a conversation whose words are known.
    pub(crate) fn said_before(&self) -> Option<&[LlmMessage]> {
        match self.kept.request.as_ref()?.said.as_ref()? {
            LlmRequest::Chat { messages } => {
                Some(&messages[..messages.len() - usize::from(question(messages).is_some())])
            }
            LlmRequest::Generate { .. } | LlmRequest::Embed { .. } => None,
        }
    }
}

/// What a conversation ends with, if it is a question.
fn question(messages: &[LlmMessage]) -> Option<&str> {
    messages.last().filter(|last| last.role == LlmRole::User).map(|last| last.content.as_str())
}

impl KeptRequest {
    /// Forgets how the model was to behave.
    fn without_system(&mut self) -> Result<(), Failure> {
        match &mut self.said {
            None => return Err(unknown()),
            Some(LlmRequest::Generate { system, .. }) => *system = None,
            Some(LlmRequest::Chat { messages }) => messages.retain(|message| message.role != LlmRole::System),
            Some(LlmRequest::Embed { .. }) => {}
        }
        self.changed = true;
        Ok(())
    }

    /// Puts what was asked beneath what is said now. Gives what was said before the question, if it was a conversation and
    /// goes on from there.
    pub(super) fn beneath(self, flags: &mut LlmFlags) -> Result<Option<Vec<LlmMessage>>, Failure> {
        let alone = !flags.embed.is_empty() || (flags.prompt.is_some() && flags.history.is_some());
        if alone {
            return Ok(None);
        }
        match self.said {
            None if flags.prompt.is_some() && (flags.system.is_some() || self.kind == LlmKind::Embed) => Ok(None),
            None => Err(unknown()),
            Some(LlmRequest::Generate { prompt, system }) => {
                flags.prompt.get_or_insert(prompt);
                flags.system = flags.system.take().or(system);
                Ok(None)
            }
            Some(LlmRequest::Embed { inputs }) => {
                if flags.prompt.is_none() && flags.history.is_none() {
                    flags.embed = inputs;
                }
                Ok(None)
            }
            Some(LlmRequest::Chat { mut messages }) => {
                if let Some(question) = question(&messages).map(str::to_owned) {
                    messages.pop();
                    flags.prompt.get_or_insert(question);
                }
                Ok(flags.history.is_none().then_some(messages))
            }
        }
    }
}

fn unknown() -> Failure {
    Failure::usage("the words of what the earlier job asked are not here, so no part of them can be changed")
        .hint("say all of it: --prompt with --system, or --embed")
}

/// Lines of a job file.
struct Writer(String);

impl Writer {
    fn comment(&mut self, text: &str) {
        self.0.push_str(&format!("# {}\n", text::one_line(text)));
    }

    fn word(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.0.push_str(&format!("{} = {}\n", self::key(key), quoted(value)));
        }
    }

    fn words(&mut self, key: &str, values: &[String]) {
        let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
        self.0.push_str(&format!("{key} = [{}]\n", values.join(", ")));
    }

    fn plain(&mut self, key: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.0.push_str(&format!("{key} = {value}\n"));
        }
    }
}

fn key(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if bare { key.to_owned() } else { quoted(key) }
}

/// A string that moves no cursor and hides nothing when it is printed. A text of several lines stays one.
fn quoted(text: &str) -> String {
    let lines = text.contains('\n');
    let mut out = String::from(if lines { "\"\"\"\n" } else { "\"" });
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push('\n'),
            c if c.is_control() || is_hidden(c) => out.push_str(&format!("\\U{:08X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push_str(if lines { "\"\"\"" } else { "\"" });
    out
}

/// A duration in the largest unit that says it exactly; what is finer than a millisecond no word says.
pub(crate) fn span(span: Span) -> String {
    let millis = span.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match units.into_iter().find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit)) {
        Some((unit, word)) => format!("{}{word}", millis / unit),
        None => format!("{millis}ms"),
    }
}

/// A size in the largest unit that says it exactly.
pub(crate) fn size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(shift, _)| bytes > 0 && bytes.is_multiple_of(1 << shift)) {
        Some((shift, word)) => format!("{}{word}", bytes >> shift),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use clap::Parser;
    use modchain_types::{List, Map, Micro};

    use super::super::{Left, Plan, again, plan};
    use super::*;
    use crate::args::{Cli, Command};

    const ID: JobId = JobId([7; 16]);

    /// What a line of `run` describes; a file `m.wat` lies in the folder.
    fn flags(folder: &Path, line: &[&str]) -> JobFlags {
        let cli = Cli::try_parse_from(["modchain", "run"].iter().chain(line)).expect("a line");
        let Some(Command::Run(run)) = cli.command else { panic!("run") };
        let mut flags = run.job;
        for path in [&mut flags.wasm, &mut flags.file, &mut flags.llm.history].into_iter().flatten() {
            *path = folder.join(&*path);
        }
        flags
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("m.wat"), "(module)").expect("writes");
        let said = r#"[{"role":"system","content":"be short"},{"role":"user","content":"a"},{"role":"assistant","content":"b"}]"#;
        std::fs::write(folder.path().join("said.json"), said).expect("writes");
        folder
    }

    /// An earlier job, with the words of what it asked.
    fn earlier(of: &Plan) -> Earlier {
        let mut earlier = Earlier::of(ID, &of.spec).expect("the task is inline");
        if let (Some(blob), Some(_)) = (&of.blob, earlier.request()) {
            earlier.said(serde_json::from_slice(blob).expect("a request"));
        }
        earlier
    }

    const LINES: &[&[&str]] = &[
        &["--wasm", "m.wat", "--max-cost", "0.10"],
        &[
            "--wasm",
            "m.wat",
            "--max-cost",
            "0.0021",
            "--name",
            "a \"b\"",
            "--cpus",
            "0.25",
            "--memory",
            "1000001",
            "--env",
            "A=1\n2",
            "--env",
            "a b=\u{202e}",
            "--env",
            "API_KEY=x",
            "--allow-secrets-on-node",
            "--label",
            "l=1",
            "--label",
            "a.b=",
            "--require",
            "pool=a",
            "--node",
            "rig-1",
            "--region",
            "eu",
            "--price-per-hour",
            "1.5",
            "--time-limit",
            "1h30m",
            "--start-by",
            "1500ms",
            "--lost-after",
            "2m",
            "--on-disconnect",
            "stop",
            "--policy",
            "fastest",
            "--priority=-5",
            "--retries",
            "0",
            "--stdin",
            "--",
            "1000",
            "-v",
            "\\",
            "\u{1b}[2J",
            "",
        ],
        &["-i", "alpine:3", "--max-cost", "1"],
        &[
            "-i",
            "ghcr.io/a/alpine:3@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "--max-cost",
            "1",
            "--entrypoint",
            "",
            "--workdir",
            "/srv",
            "--pull-timeout",
            "90s",
            "--pids",
            "9",
            "--tmp-size",
            "1GiB",
            "--writable-root",
            "--network",
            "--gpus",
            "2",
            "--gpu-memory",
            "40GiB",
            "--gpu-model",
            "H100",
            "--retries",
            "2",
            "--",
            "sh",
            "-c",
            "echo '\"\"\"'\necho",
        ],
        &["-i", "alpine:3", "--max-cost", "1", "--entrypoint", "sh", "--entrypoint=-c", "--entrypoint", "ls"],
        &["-m", "smollm2", "-p", "hi", "--max-cost", "0.05"],
        &[
            "-m",
            "a:b",
            "-p",
            "one\ntwo \"\"\" \\ three\r\n",
            "--system",
            "be short",
            "--temperature",
            "0.7",
            "--max-tokens",
            "9",
            "--seed",
            "1",
            "--json",
            "--max-cost",
            "0.05",
            "--gpu-model",
            "L4",
        ],
        &["-m", "a:b", "--embed", "one", "--embed", "two", "--max-cost", "0.05"],
        &["-m", "a:b", "-p", "and now?", "--history", "said.json", "--max-cost", "0.05"],
        &["-m", "a:b", "-p", "hi", "--history", "none.json", "--max-cost", "0.05"],
    ];

    #[test]
    fn a_specification_becomes_a_job_file_and_the_same_specification_again() {
        for line in LINES {
            let folder = folder();
            let first = plan(flags(folder.path(), line), None).expect("builds");
            let earlier = earlier(&first);
            if let Some(messages) = earlier.said_before() {
                let text = serde_json::to_string(messages).expect("JSON");
                std::fs::write(folder.path().join("saved.json"), text).expect("writes");
            }
            let text = earlier.job_file(Some(Path::new("m.wat")), Some(Path::new("saved.json")));
            assert!(text.chars().all(|c| c == '\n' || !(c.is_control() || is_hidden(c))), "{text}");
            std::fs::write(folder.path().join("job.toml"), &text).expect("writes");
            let from_file = JobFlags {
                file: Some(folder.path().join("job.toml")),
                allow_secrets_on_node: line.contains(&"--allow-secrets-on-node"),
                ..JobFlags::default()
            };
            let second = plan(from_file, None).unwrap_or_else(|failure| panic!("{failure}\n{text}"));
            assert_eq!(second.spec, first.spec, "{text}");
            assert_eq!(second.blob, first.blob, "{text}");
        }
    }

    #[test]
    fn a_job_again_is_the_same_and_sends_nothing_but_itself() {
        for line in LINES {
            let folder = folder();
            let first = plan(flags(folder.path(), line), None).expect("builds");
            // Nobody asked for the words of what it asked.
            let known = Earlier::of(ID, &first.spec).expect("the task is inline");
            assert!(!known.is_asked_otherwise(&JobFlags::default(), &[]));
            let second = again(JobFlags::default(), known, Some(Micro(1))).expect("builds");
            assert_eq!((&second.spec, &second.blob), (&first.spec, &None));
            assert_eq!(second.left.is_some(), first.blob.is_some());
        }
    }

    #[test]
    fn flags_and_a_file_override_an_earlier_job() {
        let folder = folder();
        let first = plan(flags(folder.path(), LINES[1]), None).expect("builds");
        let more = &["--max-cost", "0.20", "--env", "A=3", "--env", "B=4", "--label", "l=2", "--cpus", "1", "--", "7"];
        let second = again(flags(folder.path(), more), earlier(&first), None).expect("builds");
        let mut expected = first.spec.clone();
        expected.max_cost = Micro(200_000);
        expected.requirements.cpu_milli = 1_000;
        expected.labels =
            Map::new([("l", "2"), ("a.b", "")].map(|(k, v)| (Text::cut(k), Text::cut(v))).into()).expect("two");
        let TaskBody::Inline(Task::Wasm(task)) = &mut expected.body else { panic!("inline") };
        task.args = List::cut(vec![Text::cut("7")]);
        let env = [("A", "3"), ("B", "4"), ("a b", "\u{202e}"), ("API_KEY", "x")];
        task.env = Map::new(env.map(|(name, value)| (Text::cut(name), Text::cut(value))).into()).expect("four");
        assert_eq!((second.spec, second.left), (expected, Some(Left::Module)));
        assert!(second.warnings[0].contains("API_KEY"), "it was allowed before, and is still said");
        let secret = again(flags(folder.path(), &["--env", "TOKEN=x"]), earlier(&first), None).expect_err("is new");
        assert!(secret.message.contains("TOKEN"), "{secret}");

        let toml = "schema = \"modchain.job/v1\"\nwasm = \"m.wat\"\nname = \"c\"\nenv-file = \"e\"\n";
        std::fs::write(folder.path().join("job.toml"), toml).expect("writes");
        std::fs::write(folder.path().join("e"), "A=5\n").expect("writes");
        let third = again(flags(folder.path(), &["-f", "job.toml"]), earlier(&first), None).expect("builds");
        assert_eq!((third.spec.name.as_str(), third.left, third.spec.priority), ("c", None, -5));
        let TaskBody::Inline(Task::Wasm(task)) = &third.spec.body else { panic!("inline") };
        assert_eq!(task.env.iter().find(|(name, _)| name.as_str() == "A").map(|(_, value)| value.as_str()), Some("5"));

        let other = again(flags(folder.path(), &["-i", "alpine"]), earlier(&first), None).expect_err("another kind");
        assert!(other.message.contains("`type` (job j-"), "{other}");
        let other = again(flags(folder.path(), &["-t", "docker", "-i", "alpine"]), earlier(&first), None);
        assert!(other.expect_err("another kind").message.contains("`wasm`"));
    }

    #[test]
    fn what_is_left_out_is_as_if_it_had_never_been_said() {
        let folder = folder();
        let of = |line: &[&str]| plan(flags(folder.path(), line), None).expect("builds");
        let all: Vec<String> = LEFT_OUT.iter().map(|word| (*word).to_owned()).collect();
        let image = LINES[3][1];
        for (line, alone) in [
            (LINES[1], &["--wasm", "m.wat", "--max-cost", "0.0021"][..]),
            (LINES[3], &["-i", image, "--max-cost", "1"]),
        ] {
            let mut known = earlier(&of(line));
            known.without(&all).expect("words");
            let spec = again(JobFlags::default(), known, None).expect("builds").spec;
            assert_eq!(spec, of(alone).spec);
        }
        // What was asked stays; what was said about the answer goes.
        let first = of(LINES[6]);
        let mut known = Earlier::of(ID, &first.spec).expect("the task is inline");
        known.without(&["temperature".to_owned(), " seed".to_owned(), "json".to_owned()]).expect("words");
        let second = again(flags(folder.path(), &["--max-tokens", "10"]), known, None).expect("builds");
        let TaskBody::Inline(Task::Llm(task)) = &second.spec.body else { panic!("inline") };
        assert_eq!((task.temperature_milli, task.seed, task.json, task.max_tokens), (None, None, false, Some(10)));
        assert_eq!((second.left, second.blob), (Some(Left::Request), None));
        // How the model was to behave goes if the words are known.
        let system = ["system".to_owned()];
        assert!(Earlier::of(ID, &first.spec).expect("inline").without(&system).is_err(), "they are not");
        let mut known = earlier(&first);
        known.without(&system).expect("they are");
        let LlmRequest::Generate { prompt, system: None } = asked(known, &[]).expect("builds") else { panic!("gone") };
        assert!(prompt.starts_with("one\ntwo"));
        // One of several labels is left out by saying the others, and a variable that was allowed stays allowed.
        let mut known = earlier(&of(LINES[1]));
        known.without(&["label".to_owned(), "env".to_owned()]).expect("words");
        let second =
            again(flags(folder.path(), &["--label", "l=1", "--env", "API_KEY=x"]), known, None).expect("builds");
        assert_eq!(second.spec.labels.len(), 1);
        let TaskBody::Inline(Task::Wasm(task)) = &second.spec.body else { panic!("inline") };
        assert_eq!(task.env.len(), 1);
        for (word, hint) in [("wasm", "there are"), ("temprature", "`temperature`")] {
            let refused = earlier(&first).without(&[word.to_owned()]).expect_err("no word");
            assert!(refused.hint.clone().unwrap_or_default().contains(hint), "{word}: {refused:?}");
        }
    }

    fn asked(earlier: Earlier, line: &[&str]) -> Result<LlmRequest, Failure> {
        let again = again(flags(&PathBuf::new(), line), earlier, None)?;
        Ok(serde_json::from_slice(&again.blob.expect("it is sent")).expect("a request"))
    }

    #[test]
    fn a_part_of_what_was_asked_may_change() {
        let folder = folder();
        let of = |line: &[&str]| plan(flags(folder.path(), line), None).expect("builds");
        let generate = of(LINES[6]);
        let changed = asked(earlier(&generate), &["-p", "other"]).expect("builds");
        assert_eq!(changed, LlmRequest::Generate { prompt: "other".into(), system: Some("be short".into()) });
        let LlmRequest::Generate { prompt, system } =
            asked(earlier(&generate), &["--system", "be long"]).expect("builds")
        else {
            panic!("a prompt")
        };
        assert_eq!((prompt.starts_with("one\ntwo"), system.as_deref()), (true, Some("be long")));
        let chat = of(LINES[8]);
        let LlmRequest::Chat { messages } = asked(earlier(&chat), &["-p", "why?"]).expect("builds") else {
            panic!("chat")
        };
        let words: Vec<&str> = messages.iter().map(|message| message.content.as_str()).collect();
        assert_eq!(words, ["be short", "a", "b", "why?"]);
        let embed = of(LINES[7]);
        assert!(asked(earlier(&embed), &["--system", "x"]).expect_err("no answer").message.contains("`system`"));
        let other = asked(earlier(&embed), &["--embed", "three"]).expect("builds");
        assert_eq!(other, LlmRequest::Embed { inputs: vec!["three".into()] });

        let gone = || Earlier::of(ID, &generate.spec).expect("inline");
        assert!(gone().is_asked_otherwise(&flags(folder.path(), &["-p", "other"]), &[]));
        let unknown = asked(gone(), &["-p", "other"]).expect_err("how it was to behave is not known");
        assert!(unknown.hint.expect("what to do").contains("--system"));
        let whole = asked(gone(), &["-p", "other", "--system", "x"]).expect("all of it is said");
        assert_eq!(whole, LlmRequest::Generate { prompt: "other".into(), system: Some("x".into()) });
        let file = gone().job_file(None, None);
        assert!(file.contains("# What was asked is not here"), "{file}");
    }
}

//! From flags and job file to the specification that is sent: flags override the file, the environment is checked for
//! secrets, and what is sent beside it is looked at before anything leaves this machine.

mod earlier;
mod kind;
mod llm;
mod wasm;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use modchain_types::{
    Adapter, Digest, DockerTask, Exceptions, GpuRequest, Input, JobSpec, Limits, List, Map, Micro, OnDisconnect,
    Policy, Requirements, Task, TaskBody, Text, TooLong, WasmTask, resources::LabelPairs,
};

use super::history::Conversation;
use super::job_file::{JOB_FILE_BYTES_MAX, JobFile};
use crate::args::{ContainerFlags, JobFlags, JobType, LlmFlags, MachineFlags, OnDisconnectFlag};
use crate::exit::Failure;
pub(crate) use earlier::{Earlier, LEFT_OUT, size, span};
use earlier::{Kept, KeptModule};
use llm::Stdin;
use modchain_wire::console::RefusalCode;

/// Largest file of environment variables: more than the environment may hold.
const ENV_FILE_BYTES_MAX: u64 = 1 << 20;
/// What a job gets that does not say how much memory it needs.
const MEMORY_BYTES_DEFAULT: u64 = 256 << 20;
/// What a job gets that does not say how many cores it needs.
const CPU_MILLI_DEFAULT: u32 = 1000;

/// Everything that one submit sends.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The job.
    pub(crate) spec: JobSpec,
    /// Refuse it if it cannot start now.
    pub(crate) no_queue: bool,
    /// A module, or what is asked of a language model: put before the job is submitted.
    pub(crate) blob: Option<Bytes>,
    /// Where question and answer are kept once the job is completed.
    pub(crate) conversation: Option<Conversation>,
    /// What a person should know before it is sent.
    pub(crate) warnings: Vec<String>,
    /// What an earlier job left with the orchestrator and this one needs, if it does.
    pub(crate) left: Option<Left>,
}

/// Something that is not sent because the orchestrator should have it, and goes some time after its last job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// The module.
    Module,
    /// What is asked of a language model.
    Request,
}

impl Left {
    /// A refusal because of what an earlier job had left, in the words of whoever relied on it.
    pub(crate) fn missed(left: Option<Self>, failure: Failure) -> Failure {
        let Some(left) = left.filter(|_| failure.code == RefusalCode::MissingBlob.word()) else { return failure };
        let (what, hint) = match left {
            Self::Module => ("the module", "give it again with --wasm FILE"),
            Self::Request => ("what was asked", "ask again with --prompt and --system, or with --embed"),
        };
        let message =
            format!("{what} of the earlier job is not kept any more: it goes an hour after its last job has ended");
        Failure { message, ..failure }.hint(hint)
    }
}

/// What a job runs, with what is sent beside it.
struct Work {
    task: Task,
    blob: Option<Bytes>,
    conversation: Option<Conversation>,
    exceptions: Exceptions,
    left: Option<Left>,
}

/// Builds a job from flags and the file they name. `max_cost` is what the context or the configuration says.
pub(crate) fn plan(flags: JobFlags, max_cost: Option<Micro>) -> Result<Plan, Failure> {
    let file = read_file_of(&flags)?;
    let stdin = stdin_beside(&flags);
    put_together(flags, file, Kept::default(), max_cost, stdin)
}

/// Builds a job where standard input is taken by something else: a console reads its keys from it.
pub(crate) fn plan_apart(flags: JobFlags, earlier: Option<Earlier>, max_cost: Option<Micro>) -> Result<Plan, Failure> {
    if flags.file.as_deref() == Some(Path::new("-")) {
        return Err(Failure::usage("the job file cannot come from standard input here").hint("write it into a file"));
    }
    let file = read_file_of(&flags)?;
    let (file, kept) = match earlier {
        Some(earlier) => (file.over(earlier.file), earlier.kept),
        None => (file, Kept::default()),
    };
    put_together(flags, file, kept, max_cost, Stdin::Taken)
}

/// Builds a job like an earlier one, with flags and the file that they name over it.
pub(crate) fn again(flags: JobFlags, earlier: Earlier, max_cost: Option<Micro>) -> Result<Plan, Failure> {
    let file = read_file_of(&flags)?.over(earlier.file);
    let stdin = stdin_beside(&flags);
    put_together(flags, file, earlier.kept, max_cost, stdin)
}

/// What is left of standard input when the job file is read.
fn stdin_beside(flags: &JobFlags) -> Stdin {
    if flags.file.as_deref() == Some(Path::new("-")) { Stdin::Taken } else { Stdin::Free }
}

fn read_file_of(flags: &JobFlags) -> Result<JobFile, Failure> {
    flags.file.as_deref().map_or_else(|| Ok(JobFile::default()), read_job_file)
}

fn put_together(
    flags: JobFlags,
    file: JobFile,
    kept: Kept,
    max_cost: Option<Micro>,
    left_of_stdin: Stdin,
) -> Result<Plan, Failure> {
    let reads_file_from_stdin = flags.file.as_deref() == Some(Path::new("-"));
    let kind = kind::kind(&flags, &file)?;
    let stdin = flags.stdin || file.stdin.unwrap_or(false);
    if reads_file_from_stdin && stdin {
        return Err(Failure::usage("standard input cannot be both the job file and the job's input"));
    }
    let max_cost = flags.max_cost.or(file.max_cost).or(max_cost).ok_or_else(|| {
        Failure::usage("the most that the job may cost is not known: it is held until the job has ended")
            .hint("say it with --max-cost 0.10")
    })?;
    let known: Vec<String> = kept.env.keys().chain(&kept.left_out).cloned().collect();
    let env = environment(kept.env, file.env, &file.env_file, flags.env, &flags.env_file)?;
    let warnings = secrets(&env, |name| flags.allow_secrets_on_node || known.iter().any(|known| known == name))?;
    let args = if flags.args.is_empty() { file.args.unwrap_or_default() } else { flags.args };
    let mut labels = file.labels;
    labels.extend(flags.label);
    let mut require = file.require;
    require.extend(flags.require);

    let lost_after = flags.lost_after.or(file.lost_after).unwrap_or(Limits::default().lost_after);
    if !(Limits::LOST_AFTER_MIN..=Limits::LOST_AFTER_MAX).contains(&lost_after) {
        return Err(Failure::usage(format!("lost-after is {lost_after}, it may be 15s to 24h")));
    }
    for (what, span) in
        [("time-limit", flags.time_limit.or(file.time_limit)), ("start-by", flags.start_by.or(file.start_by))]
    {
        if span == Some(modchain_types::Span::ZERO) {
            return Err(Failure::usage(format!("{what} must be more than zero")));
        }
    }
    let machine = flags.machine.over(file.machine);
    let gpus = gpus(&machine)?;

    let work = match kind {
        JobType::Wasm => module(flags.wasm.or(file.wasm), kept.module, args, env)?,
        JobType::Docker => container(flags.container.over(file.container), args, env)?,
        JobType::Llm => {
            let asked = llm::asked(flags.llm.over(file.llm), kept.request, left_of_stdin)?;
            Work {
                task: Task::Llm(asked.task),
                left: asked.request.is_none().then_some(Left::Request),
                blob: asked.request,
                conversation: asked.conversation,
                exceptions: Exceptions::default(),
            }
        }
    };
    let (cpu_milli, memory_bytes) = match kind {
        JobType::Wasm | JobType::Docker => (CPU_MILLI_DEFAULT, MEMORY_BYTES_DEFAULT),
        JobType::Llm => (llm::CPU_MILLI_DEFAULT, llm::MEMORY_BYTES_DEFAULT),
    };
    let (adapter, model) = match &work.task {
        Task::Wasm(_) => (Adapter::Wasm, None),
        Task::Docker(_) => (Adapter::Docker, None),
        Task::Llm(task) => (Adapter::Llm, Some(task.model.clone())),
    };
    let spec = JobSpec {
        name: Text::new(flags.name.or(file.name).unwrap_or_default()).map_err(too_long("name"))?,
        body: TaskBody::Inline(work.task),
        requirements: Requirements {
            adapter,
            cpu_milli: flags.cpus.or(file.cpus).unwrap_or(cpu_milli),
            memory_bytes: flags.memory.or(file.memory).unwrap_or(memory_bytes),
            disk_bytes: 0,
            gpus,
            labels: label_pairs(require)?,
            region: machine.region.map(Text::new).transpose().map_err(too_long("region"))?,
            node: flags.node.or(file.node),
            price_per_hour_max: machine.price_per_hour,
            model,
            exceptions: work.exceptions,
        },
        limits: Limits {
            time_limit: flags.time_limit.or(file.time_limit),
            start_by: flags.start_by.or(file.start_by),
            lost_after,
            on_disconnect: match flags.on_disconnect.or(file.on_disconnect) {
                None | Some(OnDisconnectFlag::Keep) => OnDisconnect::Keep,
                Some(OnDisconnectFlag::Stop) => OnDisconnect::Stop,
            },
            attempts_max: flags.retries.or(file.retries).map_or(Limits::default().attempts_max, |retries| retries + 1),
            output_bytes_max: Limits::OUTPUT_BYTES_MAX,
        },
        max_cost,
        priority: flags.priority.or(file.priority).unwrap_or(0),
        labels: texts(labels, "labels")?,
        input: if stdin { Input::Stream } else { Input::None },
        policy: flags.policy.or(file.policy).map(Policy::from).unwrap_or_default(),
    };
    let no_queue = flags.no_queue || file.no_queue.unwrap_or(false);
    Ok(Plan { spec, no_queue, blob: work.blob, conversation: work.conversation, warnings, left: work.left })
}

/// A WebAssembly job.
fn module(
    path: Option<PathBuf>,
    kept: Option<KeptModule>,
    args: Vec<String>,
    env: BTreeMap<String, String>,
) -> Result<Work, Failure> {
    let (module, blob) = match (path, kept) {
        (Some(path), _) => {
            let (bytes, name) = wasm::read_module(&path)?;
            (KeptModule { digest: Digest::of(&bytes), bytes: bytes.len() as u64, name }, Some(bytes))
        }
        (None, Some(kept)) => (kept, None),
        (None, None) => {
            return Err(Failure::usage("there is nothing to run").hint("name a module with --wasm FILE"));
        }
    };
    let task = WasmTask {
        module: module.digest,
        module_bytes: module.bytes,
        module_name: module.name,
        args: list(args, "arguments")?,
        env: texts(env, "environment")?,
    };
    let left = blob.is_none().then_some(Left::Module);
    Ok(Work { task: Task::Wasm(task), blob, conversation: None, exceptions: Exceptions::default(), left })
}

/// A container.
fn container(flags: ContainerFlags, args: Vec<String>, env: BTreeMap<String, String>) -> Result<Work, Failure> {
    let ContainerFlags { image, entrypoint, workdir, pull_timeout, pids, tmp_size, writable_root, network } = flags;
    let image = image.ok_or_else(|| Failure::usage("there is nothing to run").hint("name an image with -i IMAGE"))?;
    // One empty word is how a line says that there is none.
    let entrypoint = entrypoint.map(|words| if words == [""] { Vec::new() } else { words });
    let task = DockerTask {
        image: Text::new(image).map_err(too_long("image"))?,
        command: list(args, "arguments")?,
        entrypoint: entrypoint.map(|words| list(words, "entrypoint")).transpose()?,
        env: texts(env, "environment")?,
        workdir: workdir.map(Text::new).transpose().map_err(too_long("workdir"))?,
        tmp_bytes: tmp_size.unwrap_or(DockerTask::TMP_BYTES_DEFAULT),
        pids_max: pids.unwrap_or(DockerTask::PIDS_DEFAULT),
        pull_timeout: pull_timeout.unwrap_or(DockerTask::PULL_TIMEOUT_DEFAULT),
    };
    let exceptions = Exceptions { writable_root, network };
    Ok(Work { task: Task::Docker(task), blob: None, conversation: None, exceptions, left: None })
}

/// The GPUs asked for. Who says what they must be like, and not how many, wants one.
fn gpus(machine: &MachineFlags) -> Result<GpuRequest, Failure> {
    let described = machine.gpu_memory.is_some() || machine.gpu_model.is_some();
    if machine.gpus == Some(0) && described {
        return Err(Failure::usage("no GPU is asked for, and it is said what it must be like")
            .hint("leave gpus out, or gpu-memory and gpu-model"));
    }
    Ok(GpuRequest {
        count: machine.gpus.unwrap_or(u32::from(described)),
        memory_bytes_min: machine.gpu_memory.unwrap_or(0),
        model: machine.gpu_model.clone().map(Text::new).transpose().map_err(too_long("gpu-model"))?,
    })
}

impl ContainerFlags {
    /// These where they say something, else those of the file.
    fn over(self, file: Self) -> Self {
        Self {
            image: self.image.or(file.image),
            entrypoint: self.entrypoint.or(file.entrypoint),
            workdir: self.workdir.or(file.workdir),
            pull_timeout: self.pull_timeout.or(file.pull_timeout),
            pids: self.pids.or(file.pids),
            tmp_size: self.tmp_size.or(file.tmp_size),
            writable_root: self.writable_root || file.writable_root,
            network: self.network || file.network,
        }
    }
}

impl LlmFlags {
    /// These where they say something, else those of the file.
    fn over(self, file: Self) -> Self {
        Self {
            model: self.model.or(file.model),
            prompt: self.prompt.or(file.prompt),
            system: self.system.or(file.system),
            temperature: self.temperature.or(file.temperature),
            max_tokens: self.max_tokens.or(file.max_tokens),
            seed: self.seed.or(file.seed),
            json: self.json || file.json,
            history: self.history.or(file.history),
            embed: if self.embed.is_empty() { file.embed } else { self.embed },
        }
    }
}

impl MachineFlags {
    /// These where they say something, else those of the file.
    fn over(self, file: Self) -> Self {
        Self {
            gpus: self.gpus.or(file.gpus),
            gpu_memory: self.gpu_memory.or(file.gpu_memory),
            gpu_model: self.gpu_model.or(file.gpu_model),
            region: self.region.or(file.region),
            price_per_hour: self.price_per_hour.or(file.price_per_hour),
        }
    }
}

impl JobFile {
    /// What this file says where it says something, else what an earlier job was. The environment is joined elsewhere.
    fn over(self, earlier: Self) -> Self {
        let joined = |mut beneath: BTreeMap<String, String>, pairs| {
            beneath.extend(pairs);
            beneath
        };
        let mut places = earlier.places;
        places.extend(self.places);
        Self {
            places,
            kind: self.kind.or(earlier.kind),
            wasm: self.wasm.or(earlier.wasm),
            container: self.container.over(earlier.container),
            llm: self.llm.over(earlier.llm),
            machine: self.machine.over(earlier.machine),
            args: self.args.or(earlier.args),
            name: self.name.or(earlier.name),
            max_cost: self.max_cost.or(earlier.max_cost),
            cpus: self.cpus.or(earlier.cpus),
            memory: self.memory.or(earlier.memory),
            node: self.node.or(earlier.node),
            env_file: self.env_file,
            time_limit: self.time_limit.or(earlier.time_limit),
            start_by: self.start_by.or(earlier.start_by),
            lost_after: self.lost_after.or(earlier.lost_after),
            on_disconnect: self.on_disconnect.or(earlier.on_disconnect),
            policy: self.policy.or(earlier.policy),
            priority: self.priority.or(earlier.priority),
            retries: self.retries.or(earlier.retries),
            stdin: self.stdin.or(earlier.stdin),
            no_queue: self.no_queue.or(earlier.no_queue),
            env: self.env,
            labels: joined(earlier.labels, self.labels),
            require: joined(earlier.require, self.require),
        }
    }
}

fn read_job_file(path: &Path) -> Result<JobFile, Failure> {
    if path == Path::new("-") {
        let mut text = String::new();
        let mut input = std::io::stdin().lock().take(JOB_FILE_BYTES_MAX + 1);
        input
            .read_to_string(&mut text)
            .map_err(|error| Failure::usage(format!("cannot read the job file: {error}")))?;
        if text.len() as u64 > JOB_FILE_BYTES_MAX {
            return Err(Failure::usage("the job file has more than 1 MiB"));
        }
        return JobFile::parse(&text, "-", Path::new("."));
    }
    let bytes = read_bounded(path, JOB_FILE_BYTES_MAX, "job file")?;
    let text =
        String::from_utf8(bytes).map_err(|_| Failure::usage(format!("the job file {} is not text", path.display())))?;
    JobFile::parse(&text, &path.display().to_string(), path.parent().unwrap_or(Path::new("")))
}

/// The file's bytes, which must be no more than `max`.
fn read_bounded(path: &Path, max: u64, what: &str) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| {
        let failure = Failure::usage(format!("cannot read the {what} {}: {error}", path.display()));
        match error.kind() {
            std::io::ErrorKind::NotFound => failure.hint("look at the spelling and at the folder it is relative to"),
            _ => failure,
        }
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(Failure::usage(format!("cannot read the {what} {}: it is a folder", path.display())));
    }
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max {
        return Err(Failure::usage(format!("the {what} {} has more than {}", path.display(), crate::text::bytes(max))));
    }
    Ok(bytes)
}

/// Later ones win: those of an earlier job, the file's env-files, its table, the flags' env-files, the flags.
fn environment(
    mut env: BTreeMap<String, String>,
    table: BTreeMap<String, String>,
    table_files: &[PathBuf],
    flags: Vec<(String, Option<String>)>,
    flag_files: &[PathBuf],
) -> Result<BTreeMap<String, String>, Failure> {
    for path in table_files {
        env.extend(read_env_file(path)?);
    }
    env.extend(table);
    for path in flag_files {
        env.extend(read_env_file(path)?);
    }
    for (name, value) in flags {
        let value = match value {
            Some(value) => value,
            None => std::env::var(&name).map_err(|_| {
                Failure::usage(format!("--env {name}: the variable is not set here"))
                    .hint(format!("--env {name}=VALUE"))
            })?,
        };
        env.insert(name, value);
    }
    if let Some(name) = env.keys().find(|name| name.contains(['=', '\0'])) {
        return Err(Failure::usage(format!("`{name}` cannot be the name of an environment variable")));
    }
    Ok(env)
}

/// Keeps variables that look like secrets here, unless they were meant: then it is said who can read them.
fn secrets(env: &BTreeMap<String, String>, allowed: impl Fn(&str) -> bool) -> Result<Vec<String>, Failure> {
    let names: Vec<&str> = env.keys().map(String::as_str).filter(|name| looks_like_secret(name)).collect();
    match names.iter().find(|name| !allowed(name)) {
        None if names.is_empty() => Ok(Vec::new()),
        None => {
            Ok(vec![format!("warning: the owner of the node can read {}, which look like secrets", names.join(", "))])
        }
        Some(name) => Err(Failure::usage(format!(
            "the environment variable {name} looks like a secret, and the owner of the node can read it"
        ))
        .hint("leave it out, or send it all the same with --allow-secrets-on-node")),
    }
}

/// Names that people give to secrets.
fn looks_like_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["_KEY", "_TOKEN", "_SECRET"].iter().any(|end| name.ends_with(end) || name == end[1..])
        || ["PASSWORD", "PASSWD", "PASSPHRASE"].iter().any(|end| name.ends_with(end))
}

fn read_env_file(path: &Path) -> Result<Vec<(String, String)>, Failure> {
    let bytes = read_bounded(path, ENV_FILE_BYTES_MAX, "environment file")?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::usage(format!("the environment file {} is not text", path.display())))?;
    let mut pairs = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end_matches('\r');
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        match line.split_once('=') {
            // Such as `export NAME=VALUE`: no shell reads this.
            Some((name, _)) if name.trim_start().contains(char::is_whitespace) => {
                let place = format!("{}:{}", path.display(), number + 1);
                return Err(Failure::usage(format!("{place}: `{}` is not a name: it has a blank", name.trim_start()))
                    .hint("write NAME=VALUE, without `export` and without blanks around the `=`"));
            }
            Some((name, value)) if !name.trim().is_empty() => pairs.push((name.trim().into(), value.into())),
            _ => {
                let place = format!("{}:{}", path.display(), number + 1);
                return Err(Failure::usage(format!("{place}: expected NAME=VALUE")));
            }
        }
    }
    Ok(pairs)
}

fn too_long(what: &str) -> impl Fn(TooLong) -> Failure {
    move |error| Failure::usage(format!("{what}: {error}"))
}

fn list<const LENGTH: usize, const ITEMS: usize>(
    items: Vec<String>,
    what: &'static str,
) -> Result<List<Text<LENGTH>, ITEMS>, Failure> {
    let items: Result<Vec<_>, _> = items.into_iter().map(Text::new).collect();
    List::new(items.map_err(too_long(what))?).map_err(too_long(what))
}

fn texts<const KEY: usize, const VALUE: usize, const ITEMS: usize>(
    pairs: BTreeMap<String, String>,
    what: &'static str,
) -> Result<Map<Text<KEY>, Text<VALUE>, ITEMS>, Failure> {
    let pairs: Result<BTreeMap<_, _>, TooLong> =
        pairs.into_iter().map(|(key, value)| Ok((Text::new(key)?, Text::new(value)?))).collect();
    Map::new(pairs.map_err(too_long(what))?).map_err(too_long(what))
}

fn label_pairs(pairs: BTreeMap<String, String>) -> Result<LabelPairs, Failure> {
    let pairs: Result<Vec<_>, TooLong> =
        pairs.into_iter().map(|(key, value)| Ok((Text::new(key)?, Text::new(value)?))).collect();
    LabelPairs::new(pairs.map_err(too_long("require"))?).map_err(too_long("require"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("writes");
        }
        folder
    }

    fn flags(folder: &tempfile::TempDir) -> JobFlags {
        JobFlags { wasm: Some(folder.path().join("m.wat")), max_cost: Some(Micro::UNIT), ..JobFlags::default() }
    }

    fn said(flags: JobFlags) -> String {
        let failure = plan(flags, None).expect_err("refused");
        assert_eq!(failure.exit, 2, "{failure}");
        failure.to_string()
    }

    #[test]
    fn flags_override_the_file_and_add_to_its_tables() {
        let folder = folder_with(&[
            ("m.wat", "(module)"),
            (
                "job.toml",
                "schema = \"modchain.job/v1\"\nwasm = \"m.wat\"\nmax-cost = 2\nname = \"a\"\nargs = [\"x\"]\n\
                 retries = 0\n[env]\nA = \"1\"\nB = \"1\"\n[labels]\nl = \"1\"\n",
            ),
        ]);
        let flags = JobFlags {
            file: Some(folder.path().join("job.toml")),
            name: Some("b".into()),
            env: vec![("B".into(), Some("2".into()))],
            ..JobFlags::default()
        };
        let plan = plan(flags, Some(Micro(5))).expect("builds");
        assert_eq!((plan.spec.name.as_str(), plan.spec.max_cost), ("b", Micro(2_000_000)));
        assert_eq!(plan.spec.limits.attempts_max, 1);
        let TaskBody::Inline(Task::Wasm(task)) = plan.spec.body else { panic!("inline") };
        assert_eq!(task.args.iter().map(|arg| arg.as_str()).collect::<Vec<_>>(), ["x"]);
        let env: Vec<_> = task.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(env, ["A=1", "B=2"]);
        assert_eq!((task.module, task.module_bytes), (Digest::of(b"(module)"), 8));
    }

    #[test]
    fn the_price_comes_from_the_flag_then_the_file_then_the_context() {
        let folder = folder_with(&[("m.wat", "(module)")]);
        let without = JobFlags { max_cost: None, ..flags(&folder) };
        assert_eq!(plan(without, Some(Micro(7))).expect("builds").spec.max_cost, Micro(7));
        assert!(said(JobFlags { max_cost: None, ..flags(&folder) }).contains("--max-cost 0.10"));
    }

    #[test]
    fn what_is_no_module_is_refused_before_anything_is_sent() {
        for (text, module) in [
            ("(module)", true),
            (";; a comment\n  (; and (; a nested ;) one ;)\n(module $x)", true),
            ("(func (export \"_start\"))", true),
            ("", false),
            ("#!/bin/sh\n", false),
            ("(modulo)", false),
            ("(; endless", false),
        ] {
            assert_eq!(wasm::looks_like_module(text.as_bytes()), module, "{text:?}");
        }
        assert!(wasm::looks_like_module(b"\0asm\x01\0\0\0"));
        assert!(!wasm::looks_like_module(b"\0asm\x0d\0\x01\0"), "a component");
        assert!(!wasm::looks_like_module(b"\x7fELF\xff"));
        let folder = folder_with(&[("m.wat", "hello")]);
        assert!(said(flags(&folder)).contains("is not a WebAssembly module"));
        assert!(said(JobFlags { wasm: Some(folder.path().join("none.wat")), ..flags(&folder) }).contains("none.wat"));
        assert!(said(JobFlags { wasm: Some(folder.path().into()), ..flags(&folder) }).contains("it is a folder"));
        assert!(said(JobFlags { wasm: None, ..flags(&folder) }).contains("nothing to run"));
        assert!(said(JobFlags { wasm: None, kind: Some(JobType::Wasm), ..flags(&folder) }).contains("--wasm FILE"));
    }

    #[test]
    fn variables_that_look_like_secrets_stay_here_unless_asked() {
        for name in ["AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "db_password", "CLIENT_SECRET", "PGPASSWORD", "TOKEN"] {
            assert!(looks_like_secret(name), "{name}");
        }
        for name in ["KEYBOARD", "PATH", "MONKEY", "TOKENS_MAX"] {
            assert!(!looks_like_secret(name), "{name}");
        }
        let folder = folder_with(&[("m.wat", "(module)")]);
        let env = vec![("API_KEY".to_owned(), Some("x".to_owned()))];
        assert!(said(JobFlags { env: env.clone(), ..flags(&folder) }).contains("--allow-secrets-on-node"));
        let sent = plan(JobFlags { env, allow_secrets_on_node: true, ..flags(&folder) }, None).expect("builds");
        assert!(sent.warnings[0].contains("can read API_KEY"), "{:?}", sent.warnings);
        assert!(plan(flags(&folder), None).expect("builds").warnings.is_empty());
        let env = vec![("API_KEY".to_owned(), Some("x".to_owned()))];
        assert!(said(JobFlags { env, ..image() }).contains("--allow-secrets-on-node"), "containers have secrets too");
    }

    fn image() -> JobFlags {
        let container = ContainerFlags { image: Some("alpine:3".into()), ..ContainerFlags::default() };
        JobFlags { container, max_cost: Some(Micro::UNIT), ..JobFlags::default() }
    }

    #[test]
    fn a_container_is_described_by_flags_over_a_file() {
        let folder = folder_with(&[(
            "job.toml",
            "schema = \"modchain.job/v1\"\nimage = \"alpine:3\"\nargs = [\"ls\"]\nworkdir = \"/srv\"\npids = 9\nnetwork = true\n\
             max-cost = 1\n[resources]\ngpus = 2\ngpu-memory = \"40GiB\"\n",
        )]);
        let container = ContainerFlags {
            entrypoint: Some(vec![String::new()]),
            workdir: Some("/tmp".into()),
            tmp_size: Some(1 << 20),
            ..ContainerFlags::default()
        };
        let machine = MachineFlags {
            gpu_model: Some("H100".into()),
            region: Some("eu".into()),
            price_per_hour: Some(Micro(5)),
            ..MachineFlags::default()
        };
        let file = Some(folder.path().join("job.toml"));
        let plan = plan(JobFlags { file, container, machine, ..JobFlags::default() }, None).expect("builds");
        assert!(plan.blob.is_none(), "an image is pulled by the node");
        let (requirements, body) = (plan.spec.requirements, plan.spec.body);
        let TaskBody::Inline(Task::Docker(task)) = body else { panic!("a container") };
        assert_eq!((task.image.as_str(), task.workdir.as_deref()), ("alpine:3", Some("/tmp")));
        assert_eq!((task.command.len(), task.entrypoint.map(|words| words.len())), (1, Some(0)));
        assert_eq!((task.pids_max, task.tmp_bytes), (9, 1 << 20));
        assert_eq!(task.pull_timeout, DockerTask::PULL_TIMEOUT_DEFAULT);
        assert_eq!(requirements.exceptions, Exceptions { writable_root: false, network: true });
        let gpus = GpuRequest { count: 2, memory_bytes_min: 40 << 30, model: Some(Text::cut("H100")) };
        assert_eq!((requirements.adapter, requirements.gpus), (Adapter::Docker, gpus));
        assert_eq!((requirements.region.as_deref(), requirements.price_per_hour_max), (Some("eu"), Some(Micro(5))));
        assert_eq!((requirements.cpu_milli, requirements.memory_bytes), (1000, 256 << 20));
    }

    #[test]
    fn who_describes_a_gpu_wants_one() {
        let asks = |gpus, gpu_memory| gpus_of(MachineFlags { gpus, gpu_memory, ..MachineFlags::default() });
        assert_eq!(asks(None, None).expect("none").count, 0);
        assert_eq!(asks(None, Some(1 << 30)).expect("one").count, 1);
        assert_eq!(asks(Some(4), Some(1 << 30)).expect("four").count, 4);
        assert_eq!(asks(Some(0), None).expect("none").count, 0);
        assert_eq!(asks(Some(0), Some(1 << 30)).expect_err("nonsense").exit, 2);
    }

    fn gpus_of(machine: MachineFlags) -> Result<GpuRequest, Failure> {
        gpus(&machine)
    }

    #[test]
    fn a_job_for_a_language_model_takes_little_of_the_node_and_brings_its_request() {
        let llm = LlmFlags { model: Some("smollm2:135m".into()), prompt: Some("hi".into()), ..LlmFlags::default() };
        let plan = plan(JobFlags { llm, ..JobFlags::default() }, Some(Micro::UNIT)).expect("builds");
        let requirements = plan.spec.requirements;
        assert_eq!((requirements.adapter, requirements.model.as_deref()), (Adapter::Llm, Some("smollm2:135m")));
        assert_eq!((requirements.cpu_milli, requirements.memory_bytes), (100, 64 << 20));
        let TaskBody::Inline(Task::Llm(task)) = plan.spec.body else { panic!("a model") };
        assert_eq!(Some(task.request), plan.blob.as_deref().map(Digest::of));
    }

    #[test]
    fn standard_input_is_one_thing_only() {
        let folder = folder_with(&[("job.toml", "schema = \"modchain.job/v1\"\nmodel = \"a\"\nprompt = \"hi\"\n")]);
        let file = Some(folder.path().join("job.toml"));
        let stdin = JobFlags { file, stdin: true, max_cost: Some(Micro::UNIT), ..JobFlags::default() };
        assert!(said(stdin).contains("-p - takes the prompt from standard input"));
    }

    #[test]
    fn environment_files_are_read_line_by_line() {
        let folder = folder_with(&[("m.wat", "(module)"), ("e", "# c\n\nA=1=2\nB=\n"), ("bad", "A=1\nno\n")]);
        let path = |name: &str| vec![folder.path().join(name)];
        assert_eq!(
            read_env_file(&path("e")[0]).expect("reads"),
            [("A".to_owned(), "1=2".to_owned()), ("B".to_owned(), String::new())]
        );
        assert!(said(JobFlags { env_file: path("bad"), ..flags(&folder) }).contains("bad:2: expected NAME=VALUE"));
        std::fs::write(folder.path().join("shell"), "A=1\nexport C=3\n").expect("writes");
        assert!(
            said(JobFlags { env_file: path("shell"), ..flags(&folder) }).contains("shell:2: `export C` is not a name")
        );
    }

    #[test]
    fn absurd_numbers_are_refused() {
        let folder = folder_with(&[("m.wat", "(module)")]);
        let span = modchain_types::Span::from_secs;
        assert!(said(JobFlags { lost_after: Some(span(1)), ..flags(&folder) }).contains("15s to 24h"));
        assert!(said(JobFlags { time_limit: Some(span(0)), ..flags(&folder) }).contains("time-limit"));
        assert!(said(JobFlags { name: Some("n".repeat(65)), ..flags(&folder) }).contains("name: 65 bytes"));
    }

    #[test]
    fn any_bytes_are_a_module_or_none_and_any_environment_file_is_pairs_or_a_complaint() {
        crate::fuzz::target("module")
            .words(&["(;", ";)", ";;", "\n", "(module", "\0asm\x01\0\0\0"])
            .run(|input| modchain_fuzz::signature(&(wasm::looks_like_module(input), input.len().checked_ilog2())));
        let folder = crate::fuzz::scratch();
        let path = folder.path().join("env");
        let fuzz = crate::fuzz::target("environment").words(&["=", "\n", "#", "\r\n", "\0"]).executions(10_000);
        fuzz.run(|input| {
            std::fs::write(&path, input).expect("writes");
            match environment(BTreeMap::new(), BTreeMap::new(), std::slice::from_ref(&path), Vec::new(), &[]) {
                Ok(pairs) => {
                    assert!(pairs.keys().all(|name| !name.is_empty() && !name.contains(['=', '\0', '\n'])));
                    modchain_fuzz::signature(&pairs.len().checked_ilog2())
                }
                Err(failure) => crate::fuzz::complaint(&failure.message.replace(&path.display().to_string(), "")),
            }
        });
    }
}

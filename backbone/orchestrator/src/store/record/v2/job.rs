//! Specifications of jobs, and the words for what becomes of them.

use modchain_types as t;
use serde::{Deserialize, Serialize};

use super::Result;
use super::node::{Adapter, Exceptions};

#[derive(Serialize, Deserialize)]
pub(super) struct JobSpec {
    name: String,
    body: TaskBody,
    requirements: Requirements,
    limits: Limits,
    max_cost: u64,
    priority: i8,
    labels: Vec<(String, String)>,
    end: End,
}

/// Standard input, and what joined the specification later: there are no optional fields, and variants may be appended.
#[derive(Serialize, Deserialize)]
enum End {
    None,
    Stream,
    NoneBy(Policy),
    StreamBy(Policy),
}

#[derive(Serialize, Deserialize)]
enum TaskBody {
    Inline(Task),
    Blob { digest: [u8; 32], adapter: Adapter },
}

#[derive(Serialize, Deserialize)]
enum Task {
    Wasm {
        module: [u8; 32],
        module_bytes: u64,
        module_name: String,
        args: Vec<String>,
        env: Vec<(String, String)>,
    },
    Docker {
        image: String,
        command: Vec<String>,
        entrypoint: Option<Vec<String>>,
        env: Vec<(String, String)>,
        workdir: Option<String>,
        tmp_bytes: u64,
        pids_max: u32,
        pull_timeout: u64,
    },
    Llm {
        model: String,
        request: [u8; 32],
        request_bytes: u64,
        kind: LlmKind,
        temperature_milli: Option<u32>,
        max_tokens: Option<u32>,
        seed: Option<u32>,
        json: bool,
    },
}

#[derive(Serialize, Deserialize)]
struct Requirements {
    adapter: Adapter,
    cpu_milli: u32,
    memory_bytes: u64,
    disk_bytes: u64,
    gpu_count: u32,
    gpu_memory_bytes_min: u64,
    gpu_model: Option<String>,
    labels: Vec<(String, String)>,
    region: Option<String>,
    node: Option<String>,
    price_per_hour_max: Option<u64>,
    model: Option<String>,
    exceptions: Exceptions,
}

#[derive(Serialize, Deserialize)]
struct Limits {
    time_limit: Option<u64>,
    start_by: Option<u64>,
    lost_after: u64,
    on_disconnect: OnDisconnect,
    attempts_max: u32,
    output_bytes_max: u64,
}

/// Mirrors a plain enum of the vocabulary, both ways and exhaustively.
macro_rules! mirror {
    ($name:ident { $($variant:ident),+ $(,)? }) => {
        mirror!($name of t { $($variant),+ });
    };
    ($name:ident of $source:ident { $($variant:ident),+ $(,)? }) => {
        #[derive(Clone, Copy, Serialize, Deserialize)]
        pub(super) enum $name { $($variant,)+ }

        impl From<$source::$name> for $name {
            fn from(value: $source::$name) -> Self {
                match value { $($source::$name::$variant => Self::$variant,)+ }
            }
        }

        impl From<$name> for $source::$name {
            fn from(value: $name) -> Self {
                match value { $($name::$variant => Self::$variant,)+ }
            }
        }
    };
}
pub(super) use mirror;

mirror!(Policy { Cheapest, Fastest, Spread });
mirror!(LlmKind { Generate, Chat, Embed });
mirror!(OnDisconnect { Keep, Stop });
mirror!(ExitFrom { Job, Limit, Node, Modchain, Client });
mirror!(Fault { Job, NotFound, Node, Command });
mirror!(JobState {
    Queued,
    Assigned,
    Starting,
    Running,
    Unreachable,
    Cancelling,
    Completed,
    Failed,
    TimedOut,
    Cancelled,
    Expired,
});
mirror!(Reason {
    Exit,
    Signal,
    Trap,
    Memory,
    TimeLimit,
    Budget,
    Cancelled,
    Expired,
    Refused,
    NotFound,
    NodeLost,
    NodeFault,
    Revoked,
    Attempts,
    CommandNotFound,
    Pids,
});

#[derive(Serialize, Deserialize)]
pub(super) enum Ending {
    Exited { code: u8 },
    Signalled { signal: u8 },
    Trapped { message: String },
    MemoryLimit,
    RunLimit,
    Stopped,
    CannotStart { fault: Fault, message: String },
    NodeFault { message: String },
    LeaseEnded,
    PidsLimit { code: u8 },
}

fn pairs<'a, K: ToString + 'a, V: ToString + 'a>(
    pairs: impl IntoIterator<Item = (&'a K, &'a V)>,
) -> Vec<(String, String)> {
    pairs.into_iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn texts<const K: usize, const V: usize>(pairs: Vec<(String, String)>) -> Result<Vec<(t::Text<K>, t::Text<V>)>> {
    pairs.into_iter().map(|(key, value)| Ok((t::Text::new(key)?, t::Text::new(value)?))).collect()
}

impl From<&t::JobSpec> for JobSpec {
    fn from(spec: &t::JobSpec) -> Self {
        let t::JobSpec { name, body, requirements, limits, max_cost, priority, labels, input, policy } = spec;
        Self {
            name: name.to_string(),
            body: body.into(),
            requirements: requirements.into(),
            limits: limits.into(),
            max_cost: max_cost.0,
            priority: *priority,
            labels: pairs(labels.iter()),
            end: match (input, policy) {
                (t::Input::None, t::Policy::Cheapest) => End::None,
                (t::Input::Stream, t::Policy::Cheapest) => End::Stream,
                (t::Input::None, policy) => End::NoneBy((*policy).into()),
                (t::Input::Stream, policy) => End::StreamBy((*policy).into()),
            },
        }
    }
}

impl JobSpec {
    pub(super) fn into_core(self) -> Result<t::JobSpec> {
        let (input, policy) = match self.end {
            End::None => (t::Input::None, t::Policy::default()),
            End::Stream => (t::Input::Stream, t::Policy::default()),
            End::NoneBy(policy) => (t::Input::None, policy.into()),
            End::StreamBy(policy) => (t::Input::Stream, policy.into()),
        };
        Ok(t::JobSpec {
            name: t::Text::new(self.name)?,
            body: self.body.into_core()?,
            requirements: self.requirements.into_core()?,
            limits: self.limits.into(),
            max_cost: t::Micro(self.max_cost),
            priority: self.priority,
            labels: t::Map::new(texts(self.labels)?.into_iter().collect())?,
            input,
            policy,
        })
    }
}

impl From<&t::TaskBody> for TaskBody {
    fn from(body: &t::TaskBody) -> Self {
        match body {
            t::TaskBody::Inline(task) => Self::Inline(task.into()),
            t::TaskBody::Blob { digest, adapter } => Self::Blob { digest: digest.0, adapter: (*adapter).into() },
        }
    }
}

impl TaskBody {
    fn into_core(self) -> Result<t::TaskBody> {
        Ok(match self {
            Self::Inline(task) => t::TaskBody::Inline(task.into_core()?),
            Self::Blob { digest, adapter } => t::TaskBody::Blob { digest: t::Digest(digest), adapter: adapter.into() },
        })
    }
}

impl From<&t::Task> for Task {
    fn from(task: &t::Task) -> Self {
        match task {
            t::Task::Wasm(t::WasmTask { module, module_bytes, module_name, args, env }) => Self::Wasm {
                module: module.0,
                module_bytes: *module_bytes,
                module_name: module_name.to_string(),
                args: args.iter().map(ToString::to_string).collect(),
                env: pairs(env.iter()),
            },
            t::Task::Docker(t::DockerTask {
                image,
                command,
                entrypoint,
                env,
                workdir,
                tmp_bytes,
                pids_max,
                pull_timeout,
            }) => Self::Docker {
                image: image.to_string(),
                command: command.iter().map(ToString::to_string).collect(),
                entrypoint: entrypoint.as_ref().map(|words| words.iter().map(ToString::to_string).collect()),
                env: pairs(env.iter()),
                workdir: workdir.as_ref().map(ToString::to_string),
                tmp_bytes: *tmp_bytes,
                pids_max: *pids_max,
                pull_timeout: pull_timeout.0,
            },
            t::Task::Llm(t::LlmTask {
                model,
                request,
                request_bytes,
                kind,
                temperature_milli,
                max_tokens,
                seed,
                json,
            }) => Self::Llm {
                model: model.to_string(),
                request: request.0,
                request_bytes: *request_bytes,
                kind: (*kind).into(),
                temperature_milli: *temperature_milli,
                max_tokens: *max_tokens,
                seed: *seed,
                json: *json,
            },
        }
    }
}

fn words(words: Vec<String>) -> Result<t::List<t::Text<4096>, 256>> {
    Ok(t::List::new(words.into_iter().map(t::Text::new).collect::<std::result::Result<_, _>>()?)?)
}

impl Task {
    fn into_core(self) -> Result<t::Task> {
        Ok(match self {
            Self::Wasm { module, module_bytes, module_name, args, env } => t::Task::Wasm(t::WasmTask {
                module: t::Digest(module),
                module_bytes,
                module_name: t::Text::new(module_name)?,
                args: words(args)?,
                env: t::Map::new(texts(env)?.into_iter().collect())?,
            }),
            Self::Docker { image, command, entrypoint, env, workdir, tmp_bytes, pids_max, pull_timeout } => {
                t::Task::Docker(t::DockerTask {
                    image: t::Text::new(image)?,
                    command: words(command)?,
                    entrypoint: entrypoint.map(words).transpose()?,
                    env: t::Map::new(texts(env)?.into_iter().collect())?,
                    workdir: workdir.map(t::Text::new).transpose()?,
                    tmp_bytes,
                    pids_max,
                    pull_timeout: t::Span(pull_timeout),
                })
            }
            Self::Llm { model, request, request_bytes, kind, temperature_milli, max_tokens, seed, json } => {
                t::Task::Llm(t::LlmTask {
                    model: t::Text::new(model)?,
                    request: t::Digest(request),
                    request_bytes,
                    kind: kind.into(),
                    temperature_milli,
                    max_tokens,
                    seed,
                    json,
                })
            }
        })
    }
}

impl From<&t::Requirements> for Requirements {
    fn from(requirements: &t::Requirements) -> Self {
        let t::Requirements {
            adapter,
            cpu_milli,
            memory_bytes,
            disk_bytes,
            gpus: t::GpuRequest { count, memory_bytes_min, model },
            labels,
            region,
            node,
            price_per_hour_max,
            model: llm,
            exceptions,
        } = requirements;
        Self {
            adapter: (*adapter).into(),
            cpu_milli: *cpu_milli,
            memory_bytes: *memory_bytes,
            disk_bytes: *disk_bytes,
            gpu_count: *count,
            gpu_memory_bytes_min: *memory_bytes_min,
            gpu_model: model.as_ref().map(ToString::to_string),
            labels: pairs(labels.iter().map(|(key, value)| (key, value))),
            region: region.as_ref().map(ToString::to_string),
            node: node.as_ref().map(ToString::to_string),
            price_per_hour_max: price_per_hour_max.map(|price| price.0),
            model: llm.as_ref().map(ToString::to_string),
            exceptions: (*exceptions).into(),
        }
    }
}

impl Requirements {
    fn into_core(self) -> Result<t::Requirements> {
        Ok(t::Requirements {
            adapter: self.adapter.into(),
            cpu_milli: self.cpu_milli,
            memory_bytes: self.memory_bytes,
            disk_bytes: self.disk_bytes,
            gpus: t::GpuRequest {
                count: self.gpu_count,
                memory_bytes_min: self.gpu_memory_bytes_min,
                model: self.gpu_model.map(t::Text::new).transpose()?,
            },
            labels: t::resources::Vec32::new(texts(self.labels)?)?,
            region: self.region.map(t::Text::new).transpose()?,
            node: self.node.map(|node| node.parse()).transpose()?,
            price_per_hour_max: self.price_per_hour_max.map(t::Micro),
            model: self.model.map(t::Text::new).transpose()?,
            exceptions: self.exceptions.into(),
        })
    }
}

impl From<&t::Limits> for Limits {
    fn from(limits: &t::Limits) -> Self {
        let t::Limits { time_limit, start_by, lost_after, on_disconnect, attempts_max, output_bytes_max } = limits;
        Self {
            time_limit: time_limit.map(|span| span.0),
            start_by: start_by.map(|span| span.0),
            lost_after: lost_after.0,
            on_disconnect: (*on_disconnect).into(),
            attempts_max: *attempts_max,
            output_bytes_max: *output_bytes_max,
        }
    }
}

impl From<Limits> for t::Limits {
    fn from(limits: Limits) -> Self {
        Self {
            time_limit: limits.time_limit.map(t::Span),
            start_by: limits.start_by.map(t::Span),
            lost_after: t::Span(limits.lost_after),
            on_disconnect: limits.on_disconnect.into(),
            attempts_max: limits.attempts_max,
            output_bytes_max: limits.output_bytes_max,
        }
    }
}

impl From<&t::Ending> for Ending {
    fn from(ending: &t::Ending) -> Self {
        match ending {
            t::Ending::Exited { code } => Self::Exited { code: *code },
            t::Ending::Signalled { signal } => Self::Signalled { signal: *signal },
            t::Ending::Trapped { message } => Self::Trapped { message: message.to_string() },
            t::Ending::MemoryLimit => Self::MemoryLimit,
            t::Ending::RunLimit => Self::RunLimit,
            t::Ending::Stopped => Self::Stopped,
            t::Ending::CannotStart { fault, message } => {
                Self::CannotStart { fault: (*fault).into(), message: message.to_string() }
            }
            t::Ending::NodeFault { message } => Self::NodeFault { message: message.to_string() },
            t::Ending::LeaseEnded => Self::LeaseEnded,
            t::Ending::PidsLimit { code } => Self::PidsLimit { code: *code },
        }
    }
}

impl Ending {
    pub(super) fn into_core(self) -> Result<t::Ending> {
        Ok(match self {
            Self::Exited { code } => t::Ending::Exited { code },
            Self::Signalled { signal } => t::Ending::Signalled { signal },
            Self::Trapped { message } => t::Ending::Trapped { message: t::Text::new(message)? },
            Self::MemoryLimit => t::Ending::MemoryLimit,
            Self::RunLimit => t::Ending::RunLimit,
            Self::Stopped => t::Ending::Stopped,
            Self::CannotStart { fault, message } => {
                t::Ending::CannotStart { fault: fault.into(), message: t::Text::new(message)? }
            }
            Self::NodeFault { message } => t::Ending::NodeFault { message: t::Text::new(message)? },
            Self::LeaseEnded => t::Ending::LeaseEnded,
            Self::PidsLimit { code } => t::Ending::PidsLimit { code },
        })
    }
}

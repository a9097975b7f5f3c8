//! The walls of a container: what it is created with, read back from the engine and compared before anything runs.
//!
//! Every setting that could open a wall is set here explicitly, so that neither a default of the engine nor the image decides.
//! Then [`compare`] looks at what the engine says it made. Settings are compared as the engine's own documents, key by key, so
//! that one which is not named here must be empty; what an engine always fills in is listed in [`FILLED_IN`].

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, DeviceRequest, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum,
    HostConfigLogConfig, Mount, MountTmpfsOptions, MountType, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use modchain_types::{DockerTask, Ending, Fault, Input, Text};
use serde_json::Value;

use super::image::Image;
use super::printable;
use crate::executor::StartRequest;

/// The user and group that every job runs as: nobody, on every Linux.
const NOBODY: &str = "65534:65534";

/// Files and the like that `/tmp` may hold, so that empty files cannot eat the kernel's memory.
const TMP_INODES_MAX: u32 = 65_536;

/// Bytes of `/dev/shm`; they count as the job's memory.
const SHM_BYTES: i64 = 64 << 20;

/// Open files of one process.
const FILES_MAX: i64 = 4096;

/// Above zero: when the machine is short of memory its jobs go first, not the agent and not the engine.
const OOM_SCORE: i64 = 500;

/// Volumes that an image may declare. Each becomes a folder in memory, because a volume on disk has no size.
const VOLUMES_MAX: usize = 16;

/// Settings that engines fill in themselves, all of them harmless: the default runtime, and which parts of `/proc` and `/sys`
/// are hidden or read-only (that they are is looked at too).
const FILLED_IN: [&str; 5] = ["Runtime", "MaskedPaths", "ReadonlyPaths", "ConsoleSize", "Isolation"];

/// Paths of `/proc` that must be hidden from a container. Part of every engine's own list.
const MASKED: [&str; 3] = ["/proc/kcore", "/proc/keys", "/sys/firmware"];

/// Paths of `/proc` that must be read-only. Part of every engine's own list.
const READ_ONLY: [&str; 3] = ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq"];

/// What to create for an attempt, or why there is no such container.
pub(super) fn settings(
    request: &StartRequest,
    task: &DockerTask,
    image: &Image,
    labels: HashMap<String, String>,
) -> Result<ContainerCreateBody, Ending> {
    let job = |why: String| Ending::CannotStart { fault: Fault::Job, message: Text::cut(why) };
    let config = image.inspect.config.clone().unwrap_or_default();
    let volumes = config.volumes.unwrap_or_default();
    if volumes.len() > VOLUMES_MAX {
        return Err(job(format!("the image declares {} volumes, at most {VOLUMES_MAX} are allowed", volumes.len())));
    }
    if let Some((name, _)) = task.env.iter().find(|(name, _)| steers_gpus(name, Origin::Client(request))) {
        return Err(job(format!(
            "the environment may not set {}, which steers how GPUs are handed out",
            printable(name)
        )));
    }
    let mut env: Vec<String> = task.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    for entry in config.env.iter().flatten() {
        let name = entry.split('=').next().unwrap_or_default();
        if steers_gpus(name, Origin::Image(request)) && !task.env.keys().any(|key| **key == *name) {
            // A name without a value takes the variable away.
            env.push(name.to_owned());
        }
    }
    let texts = |list: &[Text<4096>]| list.iter().map(|text| text.as_str().to_owned()).collect::<Vec<_>>();
    let reads = request.input == Input::Stream;
    let no = Some(false);
    Ok(ContainerCreateBody {
        hostname: Some("job".into()),
        domainname: Some(String::new()),
        user: Some(NOBODY.into()),
        attach_stdin: Some(reads),
        attach_stdout: no,
        attach_stderr: no,
        tty: no,
        open_stdin: Some(reads),
        stdin_once: Some(reads),
        env: Some(env),
        cmd: (!task.command.is_empty()).then(|| texts(&task.command)),
        entrypoint: task.entrypoint.as_ref().map(|entrypoint| texts(entrypoint)),
        // The image's check would be one more program that runs beside the job.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".into()]), ..HealthConfig::default() }),
        image: Some(image.id.clone()),
        working_dir: task.workdir.as_ref().map(|workdir| workdir.as_str().to_owned()),
        labels: Some(labels),
        stop_signal: Some("SIGTERM".into()),
        stop_timeout: Some(10),
        host_config: Some(walls(request, task, &volumes)),
        ..ContainerCreateBody::default()
    })
}

fn walls(request: &StartRequest, task: &DockerTask, volumes: &[String]) -> HostConfig {
    // To the engine no limit is nothing, and nothing is no limit.
    let memory = i64::try_from(request.memory_bytes.max(1)).unwrap_or(i64::MAX);
    let ulimit = |name: &str, limit| ResourcesUlimits { name: Some(name.into()), soft: Some(limit), hard: Some(limit) };
    let nothing = || Some(Vec::<String>::new());
    let text = |text: &str| Some(text.to_owned());
    let tmp = format!(
        "rw,noexec,nosuid,nodev,size={},nr_inodes={TMP_INODES_MAX},mode=1777",
        task.tmp_bytes.max(4096) // to the kernel no size is no limit
    );
    let folder_in_memory = |target: &String| Mount {
        target: Some(target.clone()),
        typ: Some(MountType::TMPFS),
        tmpfs_options: Some(MountTmpfsOptions {
            size_bytes: Some(i64::try_from(task.tmp_bytes.max(4096)).unwrap_or(i64::MAX)),
            mode: Some(0o1777),
            options: None,
        }),
        ..Mount::default()
    };
    HostConfig {
        memory: Some(memory),
        // Memory and swap together: none of it is swap.
        memory_swap: Some(memory),
        memory_reservation: Some(0),
        oom_kill_disable: Some(false),
        oom_score_adj: Some(OOM_SCORE),
        nano_cpus: Some(i64::from(request.cpu_milli.max(10)).saturating_mul(1_000_000)),
        pids_limit: Some(i64::from(task.pids_max.max(1))),
        ulimits: Some(vec![ulimit("nofile", FILES_MAX), ulimit("core", 0)]),
        shm_size: Some(SHM_BYTES),
        privileged: Some(false),
        cap_add: nothing(),
        cap_drop: Some(vec!["ALL".into()]),
        // The default filter of system calls stays: naming none means that one.
        security_opt: Some(vec!["no-new-privileges:true".into()]),
        readonly_rootfs: Some(!request.exceptions.writable_root),
        tmpfs: Some(HashMap::from([("/tmp".to_owned(), tmp)])),
        group_add: nothing(),
        network_mode: text(if request.exceptions.network { "bridge" } else { "none" }),
        port_bindings: Some(HashMap::new()),
        publish_all_ports: Some(false),
        links: nothing(),
        extra_hosts: nothing(),
        dns: nothing(),
        dns_options: nothing(),
        dns_search: nothing(),
        ipc_mode: text("private"),
        // Neither the machine's nor another container's: the engine has no other word for private.
        pid_mode: text(""),
        uts_mode: text(""),
        userns_mode: text(""),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        cgroup_parent: text(""),
        cgroup: text(""),
        binds: nothing(),
        mounts: Some(volumes.iter().map(folder_in_memory).collect()),
        volumes_from: nothing(),
        volume_driver: text(""),
        devices: Some(Vec::new()),
        device_cgroup_rules: nothing(),
        device_requests: Some(if request.gpus.is_empty() { Vec::new() } else { vec![gpus(request)] }),
        sysctls: Some(HashMap::new()),
        storage_opt: Some(HashMap::new()),
        log_config: Some(HostConfigLogConfig {
            typ: text("local"),
            config: Some(HashMap::from([
                ("max-size".to_owned(), super::LOG_FILE_MAX.to_owned()),
                ("max-file".to_owned(), super::LOG_FILES_MAX.to_owned()),
                // Engine 20.10 leaves out whole files when it is asked for a packed log from a certain time on.
                ("compress".to_owned(), "false".to_owned()),
            ])),
        }),
        // Reaps the orphans of the job, and passes signals on to a program that is not made to be process 1.
        init: Some(true),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: Some(0) }),
        auto_remove: Some(false),
        ..HostConfig::default()
    }
}

fn gpus(request: &StartRequest) -> DeviceRequest {
    DeviceRequest {
        driver: Some("nvidia".into()),
        count: Some(0),
        device_ids: Some(request.gpus.iter().map(|uuid| uuid.as_str().to_owned()).collect()),
        capabilities: Some(vec![vec!["gpu".into()]]),
        options: Some(HashMap::new()),
    }
}

/// Who sets a variable.
enum Origin<'a> {
    Image(&'a StartRequest),
    Client(&'a StartRequest),
}

/// Whether a variable would reach into the program that hands GPUs to containers, which runs outside of them: `NVIDIA_*` asks
/// it for GPUs, even for a container that was given none, and `LD_*` is the way of CVE-2025-23266. What CUDA reads is the
/// program's own business, unless the image says it.
fn steers_gpus(name: &str, origin: Origin<'_>) -> bool {
    if name.starts_with("NVIDIA_") {
        return true;
    }
    match origin {
        Origin::Image(request) => !request.gpus.is_empty() && (name.starts_with("LD_") || name.starts_with("CUDA_")),
        Origin::Client(request) => !request.gpus.is_empty() && name.starts_with("LD_"),
    }
}

/// The first setting in which the container that the engine made differs from the one that was asked for.
pub(super) fn compare(
    wanted: &ContainerCreateBody,
    made: &ContainerInspectResponse,
    image: &Image,
) -> Result<(), String> {
    let Some(config) = &made.config else { return Err("Config".into()) };
    let Some(got) = &made.host_config else { return Err("HostConfig".into()) };
    let document = |value| serde_json::to_value(value).map_err(|_| "HostConfig".to_owned());
    let (asked, got_all) = (document(wanted.host_config.as_ref().expect("set by settings"))?, document(got)?);
    let (Value::Object(asked), Value::Object(got_all)) = (asked, got_all) else { return Err("HostConfig".into()) };
    for (key, value) in &got_all {
        let expected = asked.get(key).unwrap_or(&Value::Null);
        let filled_in = FILLED_IN.contains(&key.as_str()) || may_be_on(key, value);
        if !(same(expected, value) || is_nothing(expected) && filled_in) {
            return Err(format!("HostConfig.{key}"));
        }
    }
    if let Some((key, _)) = asked.iter().find(|(key, value)| !is_nothing(value) && !got_all.contains_key(*key)) {
        return Err(format!("HostConfig.{key}"));
    }
    let holds = |paths: &Option<Vec<String>>, part: &[&str]| {
        paths.as_ref().is_some_and(|paths| part.iter().all(|path| paths.iter().any(|held| held == path)))
    };
    let env = config.env.clone().unwrap_or_default();
    let env_is_right = wanted.env.iter().flatten().all(|entry| match entry.split_once('=') {
        Some(_) => env.contains(entry),
        // Taken away: it may be named, and has no value.
        None => !env.iter().any(|held| held.split_once('=').is_some_and(|(name, _)| name == entry)),
    });
    let labels = config.labels.clone().unwrap_or_default();
    let checks = [
        ("HostConfig.MaskedPaths", holds(&got.masked_paths, &MASKED)),
        ("HostConfig.ReadonlyPaths", holds(&got.readonly_paths, &READ_ONLY)),
        ("Image", made.image.as_deref() == Some(image.id.as_str())),
        ("Config.User", config.user == wanted.user),
        ("Config.Tty", config.tty == wanted.tty),
        ("Config.OpenStdin", config.open_stdin == wanted.open_stdin),
        ("Config.StdinOnce", config.stdin_once == wanted.stdin_once),
        ("Config.AttachStdin", config.attach_stdin == wanted.attach_stdin),
        ("Config.Hostname", config.hostname == wanted.hostname),
        ("Config.StopSignal", config.stop_signal == wanted.stop_signal),
        ("Config.Cmd", wanted.cmd.is_none() || config.cmd == wanted.cmd),
        (
            "Config.Entrypoint",
            wanted.entrypoint.as_ref().is_none_or(|asked| *asked == config.entrypoint.clone().unwrap_or_default()),
        ),
        ("Config.WorkingDir", wanted.working_dir.is_none() || config.working_dir == wanted.working_dir),
        ("Config.Env", env_is_right),
        (
            "Config.Healthcheck",
            config.healthcheck.as_ref().and_then(|check| check.test.as_deref()).is_some_and(is_none),
        ),
        ("Config.Labels", wanted.labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value))),
        ("Mounts", made.mounts.iter().flatten().all(|mount| mount.typ.as_deref() == Some("tmpfs"))),
        ("AppArmorProfile", made.app_armor_profile.as_deref() != Some("unconfined")),
    ];
    match checks.iter().find(|(_, right)| !right) {
        None => Ok(()),
        Some((name, _)) => Err((*name).into()),
    }
}

fn is_none(test: &[String]) -> bool {
    test == ["NONE"]
}

/// Settings whose default in the kernel is on, and which say so as -1 or not at all.
fn may_be_on(key: &str, value: &Value) -> bool {
    key == "MemorySwappiness" && value.as_i64() == Some(-1)
}

/// Engines write nothing in many ways.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_nothing),
    }
}

/// Whether two settings mean the same: what one of them leaves out must be nothing in the other.
fn same(asked: &Value, got: &Value) -> bool {
    match (asked, got) {
        (Value::Object(left), Value::Object(right)) => left
            .keys()
            .chain(right.keys())
            .all(|key| same(left.get(key).unwrap_or(&Value::Null), right.get(key).unwrap_or(&Value::Null))),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        _ => asked == got || (is_nothing(asked) && is_nothing(got)),
    }
}

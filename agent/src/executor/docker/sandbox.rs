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
    mut labels: HashMap<String, String>,
) -> Result<ContainerCreateBody, Ending> {
    // For an agent that goes on with it: another attempt of the job must run the same.
    labels.insert(super::label::IMAGE.into(), image.pin.to_string());
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

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::{
        ContainerConfig, DeviceMapping, HostConfigCgroupnsModeEnum, ImageConfig, ImageInspect, MountPoint,
    };
    use modchain_types::{AttemptId, Exceptions, Fence, ImagePin, JobId, List, Map, Span, Task};

    fn request() -> (StartRequest, DockerTask) {
        let task = DockerTask {
            image: Text::cut("a"),
            command: List::new(vec![Text::cut("run")]).expect("one"),
            entrypoint: None,
            env: Map::default(),
            workdir: None,
            tmp_bytes: 1 << 20,
            pids_max: 10,
            pull_timeout: Span::from_secs(1),
        };
        let request = StartRequest {
            attempt: AttemptId { job: JobId([1; 16]), number: 1 },
            fence: Fence(1),
            spec_digest: modchain_types::Digest([0; 32]),
            task: Task::Docker(task.clone()),
            memory_bytes: 1 << 26,
            cpu_milli: 500,
            module: "/module".into(),
            compiled: None,
            state: "/state".into(),
            gpus: Vec::new(),
            exceptions: Exceptions::default(),
            image: None,
            output_tokens_max: None,
            input: Input::None,
        };
        (request, task)
    }

    fn image(env: &[&str], volumes: &[&str]) -> Image {
        let texts = |list: &[&str]| Some(list.iter().map(|&text| text.to_owned()).collect());
        let config = ImageConfig { env: texts(env), volumes: texts(volumes), ..ImageConfig::default() };
        let inspect = ImageInspect { config: Some(config), ..ImageInspect::default() };
        Image { id: "sha256:1".into(), pin: ImagePin::cut("sha256:1"), inspect }
    }

    /// As an engine that does as it is told describes it.
    fn made(body: &ContainerCreateBody) -> ContainerInspectResponse {
        let mut walls = body.host_config.clone().expect("set");
        walls.runtime = Some("runc".into());
        walls.memory_swappiness = Some(-1);
        walls.masked_paths = Some(MASKED.map(str::to_owned).to_vec());
        walls.readonly_paths = Some(READ_ONLY.map(str::to_owned).to_vec());
        // Engines write nothing in many ways.
        walls.devices = None;
        walls.binds = None;
        let config = ContainerConfig {
            hostname: body.hostname.clone(),
            user: body.user.clone(),
            tty: body.tty,
            open_stdin: body.open_stdin,
            stdin_once: body.stdin_once,
            attach_stdin: body.attach_stdin,
            env: Some(vec!["PATH=/bin".into(), "LD_PRELOAD".into()]),
            cmd: body.cmd.clone(),
            healthcheck: body.healthcheck.clone(),
            labels: body.labels.clone(),
            stop_signal: body.stop_signal.clone(),
            ..ContainerConfig::default()
        };
        ContainerInspectResponse {
            image: Some("sha256:1".into()),
            config: Some(config),
            host_config: Some(walls),
            ..ContainerInspectResponse::default()
        }
    }

    #[test]
    fn every_wall_that_is_missing_is_noticed_and_named() {
        let (mut request, task) = request();
        request.gpus = vec![Text::cut("GPU-1")];
        let image = image(&["LD_PRELOAD=/evil", "PATH=/bin"], &["/data"]);
        let labels = HashMap::from([("modchain.fence".to_owned(), "1".to_owned())]);
        let body = settings(&request, &task, &image, labels).expect("can be had");
        assert_eq!(compare(&body, &made(&body), &image), Ok(()));

        type Change = fn(&mut ContainerInspectResponse);
        fn walls(made: &mut ContainerInspectResponse) -> &mut HostConfig {
            made.host_config.as_mut().expect("set")
        }
        fn config(made: &mut ContainerInspectResponse) -> &mut ContainerConfig {
            made.config.as_mut().expect("set")
        }
        let changes: [(&str, Change); 38] = [
            ("HostConfig.Privileged", |made| walls(made).privileged = Some(true)),
            ("HostConfig.CapAdd", |made| walls(made).cap_add = Some(vec!["SYS_ADMIN".into()])),
            ("HostConfig.CapDrop", |made| walls(made).cap_drop = None),
            ("HostConfig.ReadonlyRootfs", |made| walls(made).readonly_rootfs = Some(false)),
            ("HostConfig.SecurityOpt", |made| walls(made).security_opt = Some(Vec::new())),
            ("HostConfig.NetworkMode", |made| walls(made).network_mode = Some("host".into())),
            ("HostConfig.IpcMode", |made| walls(made).ipc_mode = Some("host".into())),
            ("HostConfig.PidMode", |made| walls(made).pid_mode = Some("host".into())),
            ("HostConfig.UTSMode", |made| walls(made).uts_mode = Some("host".into())),
            ("HostConfig.UsernsMode", |made| walls(made).userns_mode = Some("host".into())),
            ("HostConfig.CgroupnsMode", |made| {
                walls(made).cgroupns_mode = Some(HostConfigCgroupnsModeEnum::HOST);
            }),
            ("HostConfig.CgroupParent", |made| walls(made).cgroup_parent = Some("/".into())),
            ("HostConfig.Memory", |made| walls(made).memory = Some(0)),
            ("HostConfig.MemorySwap", |made| walls(made).memory_swap = Some(-1)),
            ("HostConfig.NanoCpus", |made| walls(made).nano_cpus = None),
            ("HostConfig.PidsLimit", |made| walls(made).pids_limit = None),
            ("HostConfig.Ulimits", |made| walls(made).ulimits = None),
            ("HostConfig.OomKillDisable", |made| walls(made).oom_kill_disable = Some(true)),
            ("HostConfig.OomScoreAdj", |made| walls(made).oom_score_adj = Some(-999)),
            ("HostConfig.Tmpfs", |made| walls(made).tmpfs = Some(HashMap::from([("/tmp".into(), "exec".into())]))),
            ("HostConfig.Binds", |made| walls(made).binds = Some(vec!["/:/host".into()])),
            ("HostConfig.Mounts", |made| walls(made).mounts = None),
            ("HostConfig.VolumesFrom", |made| walls(made).volumes_from = Some(vec!["other".into()])),
            ("HostConfig.Devices", |made| {
                walls(made).devices =
                    Some(vec![DeviceMapping { path_on_host: Some("/dev/kmsg".into()), ..DeviceMapping::default() }])
            }),
            ("HostConfig.DeviceRequests", |made| walls(made).device_requests = None),
            ("HostConfig.LogConfig", |made| walls(made).log_config = None),
            ("HostConfig.RestartPolicy", |made| {
                walls(made).restart_policy.as_mut().expect("set").name = Some(RestartPolicyNameEnum::ALWAYS)
            }),
            ("HostConfig.Init", |made| walls(made).init = None),
            ("HostConfig.Sysctls", |made| {
                walls(made).sysctls = Some(HashMap::from([("kernel.msgmax".into(), "1".into())]));
            }),
            ("HostConfig.MaskedPaths", |made| walls(made).masked_paths = Some(Vec::new())),
            ("HostConfig.ReadonlyPaths", |made| walls(made).readonly_paths = None),
            ("Image", |made| made.image = Some("sha256:2".into())),
            ("Config.User", |made| config(made).user = Some("0".into())),
            ("Config.Env", |made| config(made).env = Some(vec!["LD_PRELOAD=/evil".into()])),
            ("Config.Healthcheck", |made| config(made).healthcheck = None),
            ("Config.Labels", |made| config(made).labels = None),
            ("Mounts", |made| {
                made.mounts = Some(vec![MountPoint { typ: Some("volume".into()), ..MountPoint::default() }]);
            }),
            ("AppArmorProfile", |made| made.app_armor_profile = Some("unconfined".into())),
        ];
        for (name, change) in changes {
            let mut other = made(&body);
            change(&mut other);
            assert_eq!(compare(&body, &other, &image), Err(name.to_owned()));
        }
    }

    #[test]
    fn an_image_cannot_steer_what_hands_out_gpus_nor_bring_volumes_without_end() {
        let (mut request, task) = request();
        let steering = ["LD_PRELOAD=/x", "NVIDIA_VISIBLE_DEVICES=all", "CUDA_CACHE_PATH=/x", "PATH=/bin"];
        let env = |request: &StartRequest| {
            let body = settings(request, &task, &image(&steering, &[]), HashMap::new()).expect("can be had");
            body.env.expect("set")
        };
        assert_eq!(env(&request), ["NVIDIA_VISIBLE_DEVICES"]);
        request.gpus = vec![Text::cut("GPU-1")];
        assert_eq!(env(&request), ["LD_PRELOAD", "NVIDIA_VISIBLE_DEVICES", "CUDA_CACHE_PATH"]);
        let volumes: Vec<String> = (0..=VOLUMES_MAX).map(|number| format!("/v{number}")).collect();
        let volumes: Vec<&str> = volumes.iter().map(String::as_str).collect();
        let ending = settings(&request, &task, &image(&[], &volumes), HashMap::new()).expect_err("too many");
        assert!(matches!(ending, Ending::CannotStart { fault: Fault::Job, .. }), "{ending:?}");
    }

    #[test]
    fn zero_is_never_no_limit() {
        let (mut request, mut task) = request();
        (request.memory_bytes, request.cpu_milli, task.pids_max, task.tmp_bytes) = (0, 0, 0, 0);
        let body = settings(&request, &task, &image(&[], &[]), HashMap::new()).expect("can be had");
        let walls = body.host_config.expect("set");
        assert!(walls.memory > Some(0) && walls.memory_swap == walls.memory);
        assert!(walls.nano_cpus > Some(0) && walls.pids_limit > Some(0));
        assert!(walls.tmpfs.expect("set")["/tmp"].contains("size=4096,"));
    }
}

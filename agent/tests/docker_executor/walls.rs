//! What a container cannot do: ways out of it, and ways to take what it was not given. Each is tried for real.

use std::time::{Duration, Instant};

use modchain_agent::executor::StopAs;
use modchain_agent::executor::docker::DockerPolicy;
use modchain_types::{Ending, Exceptions, Fault, Span, Text};

use crate::harness::*;
use crate::image::{docker, engine_is_there};

/// A way out, as a script that says `ESCAPED` when it worked, and what stops it.
const PROBES: [(&str, &str, &str); 18] = [
    ("write to the root file system", "echo x > /etc/passwd && echo ESCAPED", "read-only root"),
    ("write beside the root's folders", "mkdir /new && echo ESCAPED", "read-only root"),
    ("mount a file system", "mount -t tmpfs none /tmp && echo ESCAPED", "no capability, seccomp"),
    ("open a device it makes itself", "mknod /tmp/m c 1 1 && echo ESCAPED", "no capability, nodev"),
    ("send raw packets", "ping -c 1 -W 1 127.0.0.1 && echo ESCAPED", "no capability"),
    (
        "become root by a set-user-id program",
        "su -c 'id -u' root </dev/null | grep -qx 0 && echo ESCAPED",
        "no-new-privileges",
    ),
    ("be root", "[ $(id -u) = 0 -o $(id -g) = 0 ] && echo ESCAPED", "user nobody"),
    (
        "have a capability",
        "grep -E 'Cap(Prm|Eff|Bnd|Amb):.*[1-9a-f]' /proc/self/status && echo ESCAPED",
        "capabilities dropped",
    ),
    ("reach the engine", "ls /var/run/docker.sock /run/docker.sock && echo ESCAPED", "no mounts"),
    ("reach the cloud's metadata", "nc -w 1 169.254.169.254 80 </dev/null && echo ESCAPED", "no network"),
    ("reach the machine's network", "nc -w 1 172.17.0.1 22 </dev/null && echo ESCAPED", "no network"),
    ("have a network card", "ls /sys/class/net | grep -v '^lo$' && echo ESCAPED", "no network"),
    ("change the kernel's settings", "echo x > /proc/sys/kernel/core_pattern && echo ESCAPED", "read-only /proc/sys"),
    ("see the machine's processes", "[ $(ls -d /proc/[0-9]* | wc -l) -gt 12 ] && echo ESCAPED", "own processes"),
    ("make namespaces of its own", "unshare -U true && echo ESCAPED || unshare -m true && echo ESCAPED", "seccomp"),
    ("run a program that it has written", "cp /bin/busybox /tmp/true && /tmp/true && echo ESCAPED", "noexec /tmp"),
    ("leave core files", "[ $(ulimit -c) = 0 ] || echo ESCAPED", "core limit"),
    ("open files without end", "[ $(ulimit -Hn) -gt 4096 ] && echo ESCAPED", "file limit"),
];

#[tokio::test]
async fn every_way_out_that_is_tried_is_blocked() {
    if !engine_is_there() {
        return;
    }
    let node = Node::new();
    let mut script = String::new();
    for (number, (_, probe, _)) in PROBES.iter().enumerate() {
        script += &format!("echo {number}; ( {probe} ) 2>/dev/null\n");
    }
    script += "echo over; exit 0";
    let story = Container::shell(&script).run(&node).await;
    assert_eq!(*story.ending(), EXITED_0, "{story:?}");
    assert!(story.out().ends_with("over\n"), "{story:?}");
    for (number, (what, _, wall)) in PROBES.iter().enumerate() {
        let (_, rest) = story.out().split_once(&format!("{number}\n")).expect("it was tried");
        let said = rest.lines().next().unwrap();
        assert_ne!(said, "ESCAPED", "a container can {what}");
        println!("blocked by {wall}: {what}");
    }
    assert!(!story.out().contains("ESCAPED"), "{}", story.out());
}

#[tokio::test]
async fn the_probes_find_a_way_where_there_is_one() {
    if !engine_is_there() {
        return;
    }
    // The same probes in a container without walls: one that would be blocked everywhere shows nothing.
    for (what, probe, _) in PROBES {
        let open = ["core files", "metadata", "engine", "machine's network", "namespaces", "set-user-id"];
        if open.iter().any(|part| what.contains(part)) {
            // What these would find depends on the machine.
            continue;
        }
        let said = docker(&[
            "run",
            "--rm",
            "--cap-add",
            "SYS_ADMIN",
            "--security-opt",
            "seccomp=unconfined",
            "--security-opt",
            "apparmor=unconfined",
            "--security-opt",
            "systempaths=unconfined",
            "--pid",
            "host",
            "--ulimit",
            "nofile=5000",
            "--tmpfs",
            "/tmp:exec,dev",
            crate::image::IMAGE,
            "/bin/sh",
            "-c",
            &format!("( {} ) 2>/dev/null; true", probe.replace("/proc/sys/kernel/core_pattern", "/proc/self/comm")),
        ]);
        assert!(said.contains("ESCAPED"), "the probe `{what}` finds nothing where there is no wall: {said}");
    }
}

#[tokio::test]
async fn hogs_get_what_they_were_given_and_no_more() {
    if !engine_is_there() {
        return;
    }
    let node = Node::new();
    let mut other = Container::shell("while read line; do echo $line; done").input().start(&node);
    other.started().await;
    let small = |script: &str| {
        Container::shell(script).with(|request, task| {
            request.memory_bytes = 32 * MIB;
            task.tmp_bytes = 4 * MIB;
            task.pids_max = 20;
        })
    };
    // A full /tmp is the job's own trouble, in bytes and in files.
    let story = small("head -c 9000000 /dev/zero > /tmp/a; wc -c < /tmp/a").run_beside(&node).await;
    assert_eq!((story.ending(), story.out()), (&EXITED_0, "4194304\n"));
    let files = "i=0; while [ $i -lt 70000 ] && true > /tmp/$i; do i=$((i+1)); done 2>/dev/null; [ $i -lt 70000 ]";
    let story = small(files).with(|request, _| request.memory_bytes = 512 * MIB).run_beside(&node).await;
    assert_eq!(*story.ending(), EXITED_0, "files without end: {story:?}");
    // Filling it does not get around the limit on memory either.
    let full = small("head -c 60000000 /dev/zero > /tmp/a").with(|_, task| task.tmp_bytes = 256 * MIB);
    assert_eq!(*full.run_beside(&node).await.ending(), Ending::MemoryLimit);
    // A fork bomb stays within its number until it is stopped.
    let mut bomb = small("echo on; b() { b | b & }; b; while :; do b; done 2>/dev/null").start(&node);
    bomb.started().await;
    bomb.output_until("on\n").await;
    let id = bomb.container_id();
    let deadline = Instant::now() + Duration::from_secs(2);
    while Instant::now() < deadline {
        // It may have come to its end by itself: then there is nothing to count.
        let Some(processes) = processes_of(&id) else { break };
        assert!(processes <= 20, "{processes} processes");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bomb.control.stop(StopAs::Stopped, Span::ZERO);
    let story = bomb.story().await;
    assert!(
        matches!(story.ending(), Ending::Stopped | Ending::PidsLimit { .. } | Ending::Signalled { .. }),
        "{story:?}"
    );
    // And the neighbour has not noticed.
    let mut stdin = other.stdin.take().expect("it reads");
    stdin.write(b"still here\n").await.unwrap();
    other.output_until("still here\n").await;
    drop(stdin);
    assert_eq!(*other.story().await.ending(), EXITED_0);
    node.assert_clean();
}

fn processes_of(id: &str) -> Option<usize> {
    let output = std::process::Command::new("docker").args(["top", id]).output().expect("docker runs");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).lines().count() - 1)
}

#[tokio::test]
async fn a_container_is_made_with_every_wall_and_labelled() {
    if !engine_is_there() {
        return;
    }
    let node = Node::new();
    let mut attempt = Container::shell("echo on; cat").input().start(&node);
    attempt.started().await;
    let id = attempt.container_id();
    let said = |format: &str| docker(&["inspect", "--format", format, &id]);
    for (format, expected) in [
        ("{{.HostConfig.ReadonlyRootfs}}", "true"),
        ("{{.HostConfig.CapDrop}} {{.HostConfig.CapAdd}}", "[ALL] []"),
        ("{{.HostConfig.SecurityOpt}}", "[no-new-privileges:true]"),
        ("{{.HostConfig.NetworkMode}} {{.HostConfig.IpcMode}} {{.HostConfig.PidMode}}.", "none private ."),
        ("{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}", "134217728 134217728"),
        ("{{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}", "1000000000 64"),
        ("{{.HostConfig.Tmpfs}}", "map[/tmp:rw,noexec,nosuid,nodev,size=16777216,nr_inodes=65536,mode=1777]"),
        ("{{.HostConfig.LogConfig.Type}}", "local"),
        ("{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.Init}} {{.HostConfig.Privileged}}", "no true false"),
        ("{{.Config.User}} {{.Config.StopSignal}} {{.Config.Tty}}", "65534:65534 SIGTERM false"),
        ("{{len .Mounts}} {{len .HostConfig.Binds}} {{len .HostConfig.Devices}}", "0 0 0"),
        ("{{index .Config.Labels \"modchain.attempt\"}} {{index .Config.Labels \"modchain.fence\"}}", "1 1"),
        ("{{index .Config.Labels \"modchain.job\"}}", &attempt.attempt.job.to_string()),
        ("{{index .Config.Labels \"modchain.node\"}}", &node.id.to_string()),
        ("{{index .Config.Labels \"modchain.spec_digest\"}}", &"03".repeat(32)),
        ("{{index .Config.Labels \"modchain.boot\"}}", &modchain_agent::clock::boot_id().unwrap().to_string()),
    ] {
        assert_eq!(said(format), expected, "{format}");
    }
    drop(attempt.stdin.take());
    assert_eq!(*attempt.story().await.ending(), EXITED_0);
    node.assert_clean();
}

#[tokio::test]
async fn exceptions_are_had_only_where_the_owner_allows_them() {
    if !engine_is_there() {
        return;
    }
    let wanted = Exceptions { writable_root: true, network: true };
    let script = "echo x > /root-of-it && ls /sys/class/net | grep -q eth && echo both";
    let asks = || Container::shell(script).with(|request, _| request.exceptions = wanted);
    let strict = Node::new();
    asks().run(&strict).await.assert_cannot_start(Fault::Node, "does not allow");
    let lax = Node::with(DockerPolicy { exceptions: wanted, ..DockerPolicy::default() });
    let story = asks().run(&lax).await;
    // The root belongs to root, which the job is not: what it may write to is what its image lets everybody write to.
    assert_eq!(story.out(), "", "{story:?}");
    let script = "echo x > /var/open/file && ls /sys/class/net | grep -q eth && echo both";
    let story = Container::shell(script).with(|request, _| request.exceptions = wanted).run(&lax).await;
    assert_eq!((story.ending(), story.out()), (&EXITED_0, "both\n"), "{story:?}");
    // Allowed, and not asked for.
    let story = Container::shell(script).run(&lax).await;
    assert_eq!(story.out(), "");
    lax.executor.set_policy(DockerPolicy::default());
    asks().run(&lax).await.assert_cannot_start(Fault::Node, "does not allow");
}

#[tokio::test]
async fn gpus_are_asked_for_by_uuid_and_what_steers_their_driver_is_kept_out() {
    if !engine_is_there() {
        return;
    }
    let node = Node::new();
    let gpu = |request: &mut modchain_agent::executor::StartRequest| {
        request.gpus = vec![Text::new("GPU-00000000-0000-0000-0000-000000000000").unwrap()];
    };
    // No engine here has that GPU: it says so, and the node is at fault.
    let story = Container::shell("true").with(|request, _| gpu(request)).run(&node).await;
    assert!(matches!(story.ending(), Ending::CannotStart { fault: Fault::Node, .. }), "{story:?}");
    let job = Container::shell("true").env("NVIDIA_VISIBLE_DEVICES", "all");
    job.run(&node).await.assert_cannot_start(Fault::Job, "NVIDIA_VISIBLE_DEVICES");
    let job = Container::shell("true").env("LD_PRELOAD", "/x").with(|request, _| gpu(request));
    job.run(&node).await.assert_cannot_start(Fault::Job, "LD_PRELOAD");
    // Without a GPU a library path is nobody's business.
    assert_eq!(*Container::shell("true").env("LD_LIBRARY_PATH", "/x").run(&node).await.ending(), EXITED_0);
}

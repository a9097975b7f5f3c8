//! Nodes and their GPUs through the real programs: what they show live and what is kept, and closing, draining and opening
//! them. The GPUs are those of a library without a driver.
#![allow(missing_docs, reason = "a test is documented by its name")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;
#[path = "../../agent/tests/fake_nvml/mod.rs"]
mod fake_nvml;

use common::pool::{Pool, Running, error, token};
use common::{Home, Watching, eventually};
use serde_json::Value;

/// An operator, alice who has money and owns the nodes, bob who does not, and running nodes named `rig-1` …
struct World {
    _pool: Pool,
    operator: Home,
    alice: Home,
    bob: Home,
    _nodes: Vec<(Home, Running)>,
}

impl World {
    fn start(nodes: usize) -> Self {
        let pool = Pool::start(&[]);
        let operator = pool.operator();
        let [alice, bob] =
            ["alice", "bob"].map(|name| pool.person(&token(&operator, &["--role", "client", "--name", name])).0);
        operator.run(&["credit", "alice", "5.00"]).expect(0);
        let nodes = (1..=nodes).map(|number| {
            let home = Home::new();
            let name = format!("rig-{number}");
            pool.agent_join(&home, &token(&alice, &["--role", "node", "--name", &name])).expect(0);
            let library = fake_nvml::build(home.path());
            let agent = Pool::agent_start_with(&home, "agent.log", &[("MODCHAIN_AGENT_NVML_LIBRARY", &library)]);
            (home, agent)
        });
        let world = Self { _nodes: nodes.collect(), _pool: pool, operator, alice, bob };
        eventually("all nodes are ready, with their GPUs", || {
            let nodes = world.nodes();
            let ready = |node: &&Value| node["state"] == "ready" && node["gpus"][1]["busy_pct"].is_u64();
            nodes.iter().filter(ready).count() == world._nodes.len()
        });
        world
    }

    fn nodes(&self) -> Vec<Value> {
        let nodes = self.alice.run(&["nodes", "-o", "json"]).expect(0).json();
        nodes["items"].as_array().expect("items").clone()
    }

    fn node(&self, name: &str) -> Value {
        self.alice.run(&["node", "show", name, "-o", "json"]).expect(0).json()
    }

    /// A job that does not end by itself; on which node it runs.
    fn forever(&self, args: &[&str]) -> (String, String) {
        let line = [&["run", "-d", "-q", "--wasm", "forever.wat", "--max-cost", "1.00"][..], args].concat();
        let id = self.alice.run(&line).expect(0).stdout.trim().to_owned();
        (id.clone(), self.runs_on(&id, 1))
    }

    /// The node of this attempt of a job, once it runs.
    fn runs_on(&self, id: &str, attempt: u64) -> String {
        let mut node = String::new();
        eventually("the job runs", || {
            let job = self.alice.run(&["job", id, "-o", "json"]).expect(0).json();
            let attempts = job["attempts"].as_array().expect("attempts");
            let newest = attempts.last().is_some_and(|newest| newest["number"] == attempt);
            node = job["node"].as_str().unwrap_or_default().to_owned();
            job["state"] == "running" && newest
        });
        node
    }
}

#[test]
fn gpu_load_is_shown_live_and_the_history_has_one_sample_a_second() {
    let world = World::start(1);
    let nodes = world.nodes();
    let [first, second] = [0, 1].map(|index| nodes[0]["gpus"][index].clone());
    assert_eq!((&first["uuid"], &first["model"]), (&fake_nvml::UUIDS[0].into(), &"NVIDIA H100 80GB HBM3".into()));
    assert_eq!((&first["driver"], &first["compute"]), (&"570.86.10".into(), &"9.0".into()));
    assert_eq!((&first["memory_bytes"], &first["vram_total"]), (&(80_u64 << 30).into(), &(80_u64 << 30).into()));
    for gpu in [&first, &second] {
        for field in ["busy_pct", "vram_used", "temp_c"] {
            assert!(gpu[field].is_u64(), "{field}: {gpu:#}");
        }
        assert_eq!(gpu["reserved"], false);
    }
    assert!(first["power_w"].is_u64() && second["power_w"].is_null(), "the second has no such sensor");
    let load = &nodes[0]["load"];
    for field in ["cpu_busy_permille", "memory_used_bytes", "memory_total_bytes", "disk_free_bytes"] {
        eventually("the load of the machine is known", || world.nodes()[0]["load"][field].is_u64());
    }
    assert!(load["memory_used_bytes"].as_u64() <= load["memory_total_bytes"].as_u64(), "{load:#}");

    let times = || -> Vec<i64> {
        let history = world.node("rig-1")["history"].as_array().expect("a history").clone();
        let time = |tick: &Value| {
            assert_eq!(tick["gpus"].as_array().expect("samples").len(), 2, "{tick:#}");
            let at: jiff::Timestamp = tick["at"].as_str().expect("a time").parse().expect("a time");
            at.as_millisecond()
        };
        history.iter().map(time).collect()
    };
    let before = times().len();
    eventually("there are ten more", || times().len() >= before + 10);
    let mut apart: Vec<i64> = times().windows(2).map(|pair| pair[1] - pair[0]).collect();
    apart.sort_unstable();
    assert!(apart[0] > 0, "in order, and none twice: {apart:?}");
    assert!((500..=1_500).contains(&apart[apart.len() / 2]), "one a second: {apart:?}");

    let shown = world.alice.run(&["node", "show", "rig-1"]).expect(0).stdout;
    for word in ["rig-1  ready", "NVIDIA L4", "last 5 min", "/80 GiB"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    let table = world.alice.run(&["nodes"]).expect(0).stdout;
    let head: Vec<&str> = table.lines().next().expect("a head").split_whitespace().collect();
    assert!(["GPUS", "GPU%", "VRAM", "CPU%", "PRICE/H"].iter().all(|column| head.contains(column)), "{table}");
    assert!(table.lines().nth(1).is_some_and(|row| row.contains("/104 GiB")), "{table}");
    world.alice.run(&["node", "show", "rig-9"]).expect(3);
}

#[test]
fn what_changes_is_pushed_to_whoever_watches() {
    let world = World::start(2);
    let mut ops = Watching::start(&world.alice, &["nodes", "--watch", "-o", "jsonl"]);
    let op = |line: &str| -> Value { serde_json::from_str(line).expect("one object a line") };
    let is = |what: &'static str, name: &'static str| {
        move |line: &str| op(line)["op"] == what && op(line)["node"]["name"] == name
    };
    let first = op(&ops.until(is("add", "rig-1")));
    assert_eq!(
        (&first["schema"], &first["node"]["schema"]),
        (&"modchain.node_change/v1".into(), &"modchain.node/v1".into())
    );
    ops.until(is("add", "rig-2"));
    let mut rows = Watching::start(&world.alice, &["nodes", "name:rig-1", "--watch"]);
    assert!(rows.until(|_| true).starts_with("NODE"));
    rows.until(|line| line.starts_with("rig-1") && line.contains("ready"));
    let mut ready = Watching::start(&world.alice, &["nodes", "state:ready", "--watch", "-o", "jsonl"]);
    ready.until(is("add", "rig-1"));

    world.alice.run(&["node", "cordon", "rig-1"]).expect(0);
    ops.until(|line| is("change", "rig-1")(line) && op(line)["node"]["state"] == "cordoned");
    rows.until(|line| line.starts_with("rig-1") && line.contains("cordoned"));
    ready.until(is("remove", "rig-1"));
    // The load comes with every heartbeat.
    let busy = |line: &str| op(line)["node"]["gpus"][0]["busy_pct"].clone();
    let before = busy(&ops.until(is("change", "rig-2")));
    ops.until(|line| is("change", "rig-2")(line) && busy(line) != before);

    world.operator.run(&["cert", "revoke", "node/rig-2", "-y"]).expect(0);
    ops.until(is("remove", "rig-2"));
    for watching in [ops, rows, ready] {
        assert_eq!(watching.interrupt(), Some(130));
    }
}

#[test]
fn nodes_are_closed_drained_and_opened_with_the_exit_codes_that_are_promised() {
    let world = World::start(2);
    let state = |name: &str| world.node(name)["state"].as_str().expect("a state").to_owned();
    world.alice.run(&["node", "cordon", "rig-2", "--reason", "later"]).expect(0);
    let (job, on) = world.forever(&[]);
    assert_eq!((on.as_str(), state("rig-2").as_str()), ("rig-1", "cordoned"));
    let waits = world.alice.run(&["quote", "--wasm", "hello.wat", "--max-cost", "0.10"]).expect(0).stdout;
    assert!(waits.contains("it is cordoned: it takes no new jobs"), "{waits}");

    // Who may not, what is not there, what cannot be, and what needs a yes.
    for command in ["cordon", "uncordon", "drain", "resume"] {
        let refused = error(&world.bob.run(&["node", command, "rig-1", "-o", "json"]).expect(4));
        assert_eq!(refused["code"], "not_allowed", "{refused:#}");
        world.bob.run(&["node", command, "rig-9"]).expect(3);
        world.alice.run(&["node", command]).expect(2);
    }
    let unsure = error(&world.alice.run(&["node", "drain", "rig-1", "--deadline", "1s", "-o", "json"]).expect(2));
    assert_eq!(unsure["code"], "confirmation_needed", "{unsure:#}");
    assert!(unsure["message"].as_str().is_some_and(|text| text.contains("1 job on it")), "{unsure:#}");
    assert_eq!(state("rig-1"), "ready");

    // Without a deadline nothing moves, so nobody is asked.
    let late = world.alice.run(&["node", "drain", "rig-1", "--wait", "--timeout", "10s"]).expect(124);
    assert!(late.stderr.contains("1 job left") && late.stderr.contains("the drain goes on"), "{late:#?}");
    assert_eq!(state("rig-1"), "draining");
    let refused = error(&world.alice.run(&["node", "uncordon", "rig-1", "-o", "json"]).expect(7));
    assert_eq!(refused["code"], "conflict", "{refused:#}");
    world.alice.run(&["node", "resume", "rig-1"]).expect(0);
    assert_eq!(state("rig-1"), "ready");

    world.operator.run(&["node", "uncordon", "rig-2"]).expect(0);
    let line = ["node", "drain", "rig-1", "--deadline", "1s", "--wait", "-y", "-o", "json"];
    let drained = world.operator.run(&line).expect(0).json();
    assert_eq!((&drained["state"], &drained["jobs"]), (&"draining".into(), &0.into()), "{drained:#}");
    assert!(drained["drains_at"].is_string(), "{drained:#}");
    assert_eq!(world.runs_on(&job, 2), "rig-2");
    let moved = world.alice.run(&["job", &job, "-o", "json"]).expect(0).json();
    assert_eq!(moved["attempts"][0]["message"], "its node was drained", "{moved:#}");
    let names = world.alice.run(&["nodes", "state:draining", "-o", "name"]).expect(0).stdout;
    let opened = world.alice.run_with_input(&["node", "resume", "-", "-o", "name"], names.as_bytes()).expect(0);
    assert_eq!((opened.stdout.as_str(), state("rig-1").as_str()), ("rig-1\n", "ready"));
    world.alice.run(&["cancel", "-y", &job, "--grace", "0s", "--wait"]).expect(0);
}

#[test]
fn a_policy_chooses_the_node_and_who_holds_nothing_goes_before_who_waits_with_more() {
    let world = World::start(2);
    world.operator.run(&["credit", "bob", "5.00"]).expect(0);
    // Both cost the same: the name decides, unless the job wants the one of which less is reserved.
    let (_, cheapest) = world.forever(&[]);
    let (_, spread) = world.forever(&["--policy", "spread"]);
    assert_eq!((cheapest.as_str(), spread.as_str()), ("rig-1", "rig-2"));
    world.alice.run(&["node", "cordon", "rig-2"]).expect(0);

    // Each of these wants all that is left of rig-1.
    let node = world.node("rig-1");
    let amount = |key: &str| node[key].as_u64().expect("a number");
    let milli = amount("cpu_milli") - amount("cpu_milli_reserved");
    let cores = format!("{}.{:03}", milli / 1_000, milli % 1_000);
    let submit = |home: &Home, more: &[&str]| {
        let line = ["run", "-d", "-q", "--wasm", "forever.wat", "--max-cost", "0.10", "--cpus", &cores];
        home.run(&[&line[..], more].concat()).expect(0).stdout.trim().to_owned()
    };
    let first = submit(&world.alice, &[]);
    world.runs_on(&first, 1);
    let waits = submit(&world.alice, &[]);
    let urgent = submit(&world.alice, &["--priority", "50"]);
    let of_bob = submit(&world.bob, &[]);
    let explained = |home: &Home, id: &str| home.run(&["job", "explain", id, "-o", "json"]).expect(0).json();
    let place = |home: &Home, id: &str| {
        let why = explained(home, id);
        (why["ahead"].as_u64(), why["ahead_own"].as_u64(), why["priority_counts_as"].as_i64())
    };
    assert_eq!(place(&world.bob, &of_bob), (Some(0), Some(0), Some(0)));
    assert_eq!(place(&world.alice, &urgent), (Some(1), Some(0), Some(0)), "urgent among her own only");
    assert_eq!(place(&world.alice, &waits), (Some(2), Some(1), Some(0)));
    let words = explained(&world.alice, &waits)["summary"].as_str().expect("words").to_owned();
    assert!(words.contains("2 jobs go before it, 1 of its own account"), "{words}");

    for (ends, begins, whose) in
        [(&first, &of_bob, &world.bob), (&of_bob, &urgent, &world.alice), (&urgent, &waits, &world.alice)]
    {
        world.operator.run(&["cancel", "-y", ends, "--grace", "0s", "--wait"]).expect(0);
        eventually("the one whose turn it is runs", || {
            whose.run(&["job", begins, "-o", "json"]).expect(0).json()["state"] == "running"
        });
    }
}

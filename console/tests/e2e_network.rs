//! The five commands of joining over a network: the orchestrator on one host, people and nodes on another. The hosts are two
//! network namespaces with addresses of their own where this machine lets the test make them (root, and the `ip` program),
//! else two loopback addresses; which of the two it was is printed.
#![allow(missing_docs, reason = "a test is documented by its name")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use common::pool::{Running, agent_data, sibling_command};
use common::{Done, Home, eventually, program, require_siblings};

/// Two hosts that reach each other.
struct Hosts {
    /// Their namespaces, if they have any.
    namespaces: Option<[String; 2]>,
    addresses: [&'static str; 2],
}

/// Where the orchestrator is.
const THERE: usize = 0;
/// Where everybody else is.
const HERE: usize = 1;

impl Hosts {
    fn make() -> Self {
        let namespaces = ["there", "here"].map(|host| format!("modchain-{}-{host}", std::process::id()));
        let hosts = Self { namespaces: Some(namespaces), addresses: ["10.213.77.1", "10.213.77.2"] };
        match hosts.connect() {
            Ok(()) => {
                println!("network: two namespaces, {} and {}", hosts.addresses[THERE], hosts.addresses[HERE]);
                hosts
            }
            Err(why) => {
                let alone = Self { namespaces: None, addresses: ["127.0.0.2", "127.0.0.3"] };
                println!("network: two loopback addresses, because namespaces cannot be had here: {why}");
                alone
            }
        }
    }

    fn connect(&self) -> Result<(), String> {
        let [there, here] = self.namespaces.as_ref().ok_or("there are none")?;
        // Names of interfaces have 15 characters at most.
        let link = [format!("mt{}", std::process::id()), format!("mh{}", std::process::id())];
        ip(&["netns", "add", there])?;
        ip(&["netns", "add", here])?;
        ip(&["link", "add", &link[0], "type", "veth", "peer", "name", &link[1]])?;
        for ((namespace, link), address) in [there, here].into_iter().zip(&link).zip(self.addresses) {
            ip(&["link", "set", link, "netns", namespace])?;
            ip(&["-n", namespace, "address", "add", &format!("{address}/24"), "dev", link])?;
            ip(&["-n", namespace, "link", "set", link, "up"])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    /// The same command on one of the hosts.
    fn on(&self, host: usize, command: Command) -> Command {
        let Some(namespaces) = &self.namespaces else { return command };
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &namespaces[host]]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside.current_dir(command.get_current_dir().expect("it has one")).stdin(Stdio::null());
        inside
    }

    /// Runs one of the programs here to its end.
    fn run(&self, home: &Home, name: &str, args: &[&str], input: &str) -> Done {
        let mut command = sibling_command(home, name);
        command.args(args);
        Done::with_input(self.on(HERE, command), args, input.as_bytes())
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for namespace in self.namespaces.iter().flatten() {
            // Its end of the link goes with it. One that was never made cannot be removed.
            let _ = ip(&["netns", "delete", namespace]);
        }
    }
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().map_err(|error| format!("ip: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim_end())),
    }
}

fn serve(hosts: &Hosts, home: &Home, data: &str) -> (Running, String) {
    let listen = format!("{}:0", hosts.addresses[THERE]);
    let mut command = sibling_command(home, "modchain-orchestrator");
    command.args(["serve", "--data", data, "--listen", &listen]);
    let mut command = hosts.on(THERE, command);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
    let mut ready = String::new();
    BufReader::new(child.stdout.take().expect("is piped")).read_line(&mut ready).expect("reads");
    let ready: serde_json::Value = serde_json::from_str(&ready).unwrap_or_else(|error| panic!("{error}: {ready}"));
    (Running(child), ready["join"].as_str().unwrap_or_else(|| panic!("{ready:#}")).to_owned())
}

#[test]
fn people_and_nodes_of_another_host_join_work_and_are_put_out() {
    require_siblings();
    let hosts = Hosts::make();
    let modchain = program();
    let modchain = modchain.file_name().and_then(OsStr::to_str).expect("a name");
    let (server, operator, alice, rig) = (Home::new(), Home::new(), Home::new(), Home::new());

    // modchain-orchestrator init --name lab && modchain-orchestrator serve
    let data = server.path().join("orchestrator").display().to_string();
    let mut init = sibling_command(&server, "modchain-orchestrator");
    init.args(["init", "--name", "lab", "--data", &data, "-o", "json"]);
    let made = Done::with_input(hosts.on(THERE, init), &["init"], b"").expect(0).json();
    let (_orchestrator, join) = serve(&hosts, &server, &data);

    // modchain join --orchestrator HOST:7444 --token-file -
    let join_line = ["join", "--orchestrator", &join, "--token-file", "-"];
    let operator_token = made["operator_token"].as_str().expect("a token");
    hosts.run(&operator, modchain, &join_line, operator_token).expect(0);
    // modchain token create ...
    let create = ["token", "create", "-q", "--role", "client", "--name", "alice"];
    let token = hosts.run(&operator, modchain, &create, "").expect(0).stdout;
    hosts.run(&alice, modchain, &join_line, &token).expect(0);
    hosts.run(&operator, modchain, &["credit", "alice", "1.00"], "").expect(0);
    let create = ["token", "create", "-q", "--role", "node", "--name", "rig-1"];
    let token = hosts.run(&alice, modchain, &create, "").expect(0).stdout;
    // modchain-agent join ... && modchain-agent start
    let agent = agent_data(&rig);
    let agent_join = [&join_line[..], &["--data", &agent]].concat();
    hosts.run(&rig, "modchain-agent", &agent_join, &token).expect(0);
    let mut start = sibling_command(&rig, "modchain-agent");
    start.args(["start", "--data", &agent]);
    let log = File::create(rig.path().join("agent.log")).expect("a log");
    let _agent = Running(hosts.on(HERE, start).stdout(Stdio::null()).stderr(log).spawn().expect("starts"));

    let module = common::examples().join("hello.wat").display().to_string();
    let run = ["run", "--wasm", &module, "--max-cost", "0.10", "-o", "json"];
    let job = hosts.run(&alice, modchain, &run, "").expect(0).json();
    assert_eq!((&job["state"], &job["node"]), (&"completed".into(), &"rig-1".into()), "{job:#}");

    // modchain cert list ; modchain cert revoke node/rig-1 --reason "sold"
    let tokens = hosts.run(&operator, modchain, &["token", "list", "--all", "-o", "json"], "").expect(0).json();
    let from = |token: &serde_json::Value| token["from"].as_str().unwrap_or_default().to_owned();
    let used: Vec<String> = tokens["items"].as_array().expect("items").iter().map(from).collect();
    if hosts.namespaces.is_some() {
        assert!(used.len() == 3 && used.iter().all(|from| from.contains(hosts.addresses[HERE])), "{used:?}");
    }
    let revoke = ["cert", "revoke", "node/rig-1", "--reason", "sold", "-y", "-o", "json"];
    let gone = hosts.run(&operator, modchain, &revoke, "").expect(0).json();
    assert_eq!((&gone["state"], &gone["reason"]), (&"revoked".into(), &"sold".into()), "{gone:#}");
    assert!(gone["connections_closed"].as_u64() >= Some(1), "{gone:#}");
    eventually("the agent hears why", || {
        let log = std::fs::read_to_string(rig.path().join("agent.log")).expect("reads");
        log.lines().any(|line| line.contains("ERROR") && line.contains("revoked"))
    });
}

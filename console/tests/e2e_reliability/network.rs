//! Bad networks between everybody: jobs are done once, by the node that began them, whatever is lost, repeated, late, slow or cut on the
//! way, as long as it is cut for less than jobs wait for their node.
//!
//! `NETWORK_JOBS=100` submits that many jobs under each profile; `SLOW_BLOCKS=1000` prints 64 MB over the slow line; `SEED`
//! repeats what the network did in another run.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::chaos::{Chaos, Counts, Profile};
use crate::common::fleet::{Fleet, Site};
use crate::common::money::adds_up;
use crate::common::{PATIENCE, eventually, examples};
use crate::{asked, seed};

/// Jobs under each profile in the test command.
const JOBS: u64 = 4;
/// Clients that submit at once.
const CLIENTS: u64 = 4;
/// How often a client asks for one job before it gives up.
const TRIES_MAX: u32 = 100;

const ALL_LINES: &str = "line 0\nline 1\nline 2\nline 3\nline 4\nline 5\nline 6\nline 7\nline 8\nline 9\n";

/// What the network does, and for how long if not throughout.
struct Case {
    name: &'static str,
    profile: Profile,
    lasts: Option<Duration>,
}

fn cases() -> Vec<Case> {
    let throughout = |name, profile| Case { name, profile, lasts: None };
    let for_a_while = |name, profile| Case { name, profile, lasts: Some(Duration::from_secs(3)) };
    let good = Profile::default();
    let ms = Duration::from_millis;
    vec![
        throughout("good", good),
        throughout("5 % lost", Profile { loss_permille: 50, ..good }),
        throughout("30 % lost", Profile { loss_permille: 300, ..good }),
        throughout("30 % twice, 30 % late", Profile { twice_permille: 300, late_permille: 300, late: ms(50), ..good }),
        throughout("150 ms each way", Profile { delay: ms(150), ..good }),
        throughout("64 KiB/s", Profile { rate: 64 << 10, ..good }),
        throughout("at most 1,252 bytes", Profile { mtu: 1252, ..good }),
        throughout("a new port each second", Profile { rebind_every: ms(1000), ..good }),
        for_a_while("3 s nothing to the server", Profile { cut_to_server: true, ..good }),
        for_a_while("3 s nothing back", Profile { cut_to_client: true, ..good }),
        throughout(
            "all of it, mildly",
            Profile {
                loss_permille: 50,
                twice_permille: 50,
                late_permille: 100,
                late: ms(30),
                delay: ms(20),
                rate: 256 << 10,
                rebind_every: ms(2000),
                ..good
            },
        ),
    ]
}

/// A fleet whose first node is behind the relay, as its clients with the context `far` are.
fn fleet_behind(network: &OnceLock<Chaos>, agents: usize, seed: u64) -> Fleet {
    let fleet = Fleet::start_with(agents, &["alice"], |site, number| match number {
        0 => site.agent_at(0, &network.get_or_init(|| Chaos::start(&site.address, seed)).address),
        _ => site.agent(number),
    });
    fleet.site.add_context("far", "alice", &network.get().expect("it has started").address);
    fleet
}

/// Submits a job through the bad network until it is acknowledged. Gives its id and how long that took.
fn submit(site: &Site, module: &str, key: &str) -> (String, Duration) {
    let begun = Instant::now();
    let line = ["-c", "far", "run", "-d", "-q", "--id", key, "--wasm", module, "--max-cost", "0.05"];
    for _ in 0..TRIES_MAX {
        let done = site.run(&[&line[..], &["--cpus", "0.2", "--memory", "64MiB"]].concat());
        match done.code {
            Some(0) => return (done.stdout.trim().to_owned(), begun.elapsed()),
            // The network was too bad: the answer is not known.
            Some(5) => {}
            _ => panic!("{done:#?}"),
        }
    }
    panic!("{key} was never acknowledged")
}

fn attempts(job: &Value) -> usize {
    job["attempts"].as_array().expect("a list").len()
}

/// The job was done by its first attempt, with every byte.
#[track_caller]
fn assert_undisturbed(site: &Site, id: &str) {
    let job = site.job(id);
    assert_eq!(job["state"], "completed", "{job:#}");
    assert_eq!(attempts(&job), 1, "nobody was lost: {job:#}");
    adds_up(&job);
    assert_eq!(site.output(id, 1, "out"), ALL_LINES, "{job:#}");
}

#[test]
fn jobs_are_done_once_whatever_the_network_does() {
    let (jobs, seed) = (asked("NETWORK_JOBS", JOBS), seed());
    let network = OnceLock::new();
    let fleet = fleet_behind(&network, 1, seed);
    let (site, network) = (&fleet.site, network.get().expect("it has started"));
    let module = site.ticking(100_000_000);
    println!("network: seed {seed}, {jobs} jobs a profile, {CLIENTS} clients");
    println!(
        "network: {:26} {:>5} {:>9} {:>9} {:>6} {:>8} {:>6} {:>6} {:>6} {:>6}",
        "profile", "done", "p50", "p99", "again", "relayed", "lost", "twice", "late", "ports"
    );
    for (number, Case { name, profile, lasts }) in cases().into_iter().enumerate() {
        let before = numbers(network.counts());
        network.set(profile);
        let (mut ids, mut times) = (Vec::new(), Vec::new());
        thread::scope(|scope| {
            let module = &module;
            let client = |client| {
                let keys = (client..jobs).step_by(CLIENTS as usize).map(|job| format!("network-{number}-{job}"));
                keys.map(|key| submit(site, module, &key)).collect::<Vec<_>>()
            };
            let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
            if let Some(lasts) = lasts {
                thread::sleep(lasts);
                network.set(Profile::default());
            }
            for client in clients {
                let (mut of_client, mut took) = client.join().expect("it submitted all").into_iter().unzip();
                ids.append(&mut of_client);
                times.append(&mut took);
            }
        });
        let patience = format!("{}s", PATIENCE.as_secs());
        ids.iter().for_each(|id| drop(site.run(&["-c", "alice", "wait", id, "--timeout", &patience]).expect(0)));
        network.set(Profile::default());
        times.sort_unstable();
        let percent = |percent: usize| format!("{} ms", times[(times.len() * percent).div_ceil(100) - 1].as_millis());
        let after = numbers(network.counts());
        let [relayed, lost, twice, late, ports] = std::array::from_fn(|index| after[index] - before[index]);
        let again: usize = ids.iter().map(|id| attempts(&site.job(id)) - 1).sum();
        println!(
            "network: {name:26} {:>5} {:>9} {:>9} {again:>6} {relayed:>8} {lost:>6} {twice:>6} {late:>6} {ports:>6}",
            ids.len(),
            percent(50),
            percent(99),
        );
        ids.iter().for_each(|id| assert_undisturbed(site, id));
    }
    let counts = numbers(network.counts());
    assert!(counts.iter().all(|count| *count > 0), "it did everything that it can do: {counts:?}");
    assert_nobody_was_lost(site);
    site.assert_money_is_whole();
    site.assert_nobody_panicked();
}

fn numbers(counts: &Counts) -> [u64; 5] {
    let Counts { relayed, lost, repeated, late, rebound } = counts;
    [relayed, lost, repeated, late, rebound].map(|count| count.load(Relaxed))
}

/// No node was ever declared lost.
#[track_caller]
fn assert_nobody_was_lost(site: &Site) {
    let events = site.run(&["-c", "root", "events", "--since", "1d", "-o", "jsonl"]).expect(0).stdout;
    assert!(events.contains("\"modchain.event/v1\""), "{events}");
    let lost: Vec<&str> = events.lines().filter(|event| event.contains("lost")).collect();
    assert!(lost.is_empty(), "{lost:#?}");
}

#[test]
fn a_cut_of_ten_seconds_is_as_if_nothing_had_been() {
    let network = OnceLock::new();
    let fleet = fleet_behind(&network, 2, 1);
    let (site, network) = (&fleet.site, network.get().expect("it has started"));
    // Nobody else may have it before, and anybody could have it afterwards.
    site.run(&["-c", "root", "node", "cordon", "n1"]).expect(0);
    let module = site.ticking(1_000_000_000);
    let (id, _) = submit(site, &module, "cut");
    eventually("it prints", || site.output(&id, 1, "out").contains("line 0\n"));
    site.run(&["-c", "root", "node", "resume", "n1"]).expect(0);
    network.set(Profile::cut());
    thread::sleep(Duration::from_secs(10));
    network.set(Profile::default());
    site.run(&["-c", "alice", "wait", &id, "--timeout", "100s"]).expect(0);
    assert_undisturbed(site, &id);
    assert_nobody_was_lost(site);
    site.assert_money_is_whole();
}

/// Bytes that one block of the example prints.
const BLOCK_BYTES: u64 = 64_000;
/// Blocks to print: at 64 KiB a second they take 90 seconds, half as long again as a result waits for output of which nothing comes.
const BLOCKS: u64 = 92;

#[test]
fn much_output_over_a_slow_line_is_all_there_though_its_result_came_long_before() {
    let blocks = asked("SLOW_BLOCKS", BLOCKS);
    let network = OnceLock::new();
    let fleet = fleet_behind(&network, 1, 1);
    let (site, network) = (&fleet.site, network.get().expect("it has started"));
    network.set(Profile { rate: 64 << 10, ..Profile::default() });
    let text = std::fs::read_to_string(examples().join("flood.wat")).expect("the example is there");
    let all = "(i32.const 1250)";
    assert_eq!(text.matches(all).count(), 1, "it counts its blocks");
    let module = site.home.path().join("much.wat");
    std::fs::write(&module, text.replace(all, &format!("(i32.const {blocks})"))).expect("writes");
    let module = module.display().to_string();
    let line = ["-c", "alice", "run", "-d", "-q", "--wasm", &module, "--max-cost", "0.50"];
    let id = site.run(&line).expect(0).stdout.trim().to_owned();
    site.run(&["-c", "alice", "wait", &id, "--timeout", "1h"]).expect(0);
    let job = site.job(&id);
    assert_eq!((&job["state"], attempts(&job)), (&Value::from("completed"), 1), "{job:#}");
    let output = site.run(&["-c", "root", "logs", &id]).expect(0).stdout;
    assert_eq!(output.len() as u64, blocks * BLOCK_BYTES, "{job:#}");
    let numbers = output.lines().enumerate().filter(|(number, line)| line.parse() != Ok(*number));
    assert_eq!(numbers.count(), 0, "every line once, in order");
    assert_nobody_was_lost(site);
    site.assert_money_is_whole();
}

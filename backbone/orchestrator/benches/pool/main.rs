//! The three real programs on this machine, measured from outside, beside what the machine itself can do in the same run.
//!
//! ```text
//! cargo build --release -p modchain -p modchain-agent -p modchain-orchestrator
//! cargo bench -p modchain-orchestrator --bench pool              # everything
//! cargo bench -p modchain-orchestrator --bench pool -- latency   # one part
//! ```
//!
//! `MODCHAIN_TEST_PROGRAM=DIR/modchain-orchestrator` measures the programs of another build, so that two can take turns.
//!
//! Data goes to a folder below `TMPDIR`: it has to be on the disk that is meant. No part takes longer than a minute on two
//! cores. `BENCHMARKS.md` has numbers.

#[path = "../../tests/peers/mod.rs"]
mod peers;
#[path = "../../tests/pool/mod.rs"]
mod pool;
#[path = "../../tests/process/mod.rs"]
mod process;

mod agents;
mod jobs;
mod machine;
mod output;
mod programs;
mod report;

use std::process::ExitCode;

/// Every part by its name, in the order in which they run.
const PARTS: [&str; 6] = ["machine", "latency", "jobs", "memory", "agents", "output"];

fn main() -> ExitCode {
    // Cargo's own flags for benchmarks begin with dashes.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if let Some(unknown) = wanted.iter().find(|part| !PARTS.contains(&part.as_str())) {
        eprintln!("there is no part `{unknown}`; there are: {}", PARTS.join(", "));
        return ExitCode::from(2);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    for part in PARTS {
        if !wanted.is_empty() && !wanted.iter().any(|one| one == part) {
            continue;
        }
        println!("\n{part} (load of the machine: {})", report::load());
        match part {
            "machine" => runtime.block_on(machine::measure()),
            "latency" => runtime.block_on(jobs::latency()),
            "jobs" => runtime.block_on(jobs::at_once()),
            "memory" => runtime.block_on(jobs::memory()),
            "agents" => runtime.block_on(agents::measure()),
            "output" => runtime.block_on(output::measure()),
            _ => unreachable!("looked for above"),
        }
    }
    ExitCode::SUCCESS
}

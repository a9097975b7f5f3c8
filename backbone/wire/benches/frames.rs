//! How many frames a second are written and read by one thread.
//!
//! ```text
//! cargo bench -p modchain-wire --bench frames
//! ```

#[path = "../tests/samples/mod.rs"]
#[allow(dead_code, reason = "a few of them are enough")]
mod samples;

use std::hint::black_box;
use std::time::{Duration, Instant};

use modchain_types::{ReportBody, WallTime};
use modchain_wire::agent::{OutputChunk, OutputStream};
use modchain_wire::{CHUNK_BYTES_MAX, Data, FromAgent, FromConsole, Message, ToAgent, ToConsole};

/// How long each is measured.
const EACH: Duration = Duration::from_millis(1_500);
/// Frames between two looks at the clock.
const BETWEEN: u32 = 256;

/// How often a second this can be done.
fn rate(mut one: impl FnMut()) -> f64 {
    let begun = Instant::now();
    let mut times = 0.0;
    while begun.elapsed() < EACH {
        (0..BETWEEN).for_each(|_| one());
        times += f64::from(BETWEEN);
    }
    times / begun.elapsed().as_secs_f64()
}

fn measure<M: Message>(what: &str, message: &M) {
    let frame = message.to_frame().expect("it fits");
    let write = rate(|| drop(black_box(black_box(message).to_frame())));
    let read = rate(|| drop(black_box(M::from_frame(black_box(&frame)))));
    println!("  {what:<28} {:>6} bytes  written {write:>10.0}/s  read {read:>10.0}/s", frame.len());
}

fn find<M>(samples: Vec<M>, wanted: impl Fn(&M) -> bool) -> M {
    samples.into_iter().find(wanted).expect("there is a sample of every message")
}

fn main() {
    measure("submit", &find(samples::from_console(), |message| matches!(message, FromConsole::Submit(_))));
    measure("submitted", &find(samples::to_console(), |message| matches!(message, ToConsole::Submitted(_))));
    measure("assignment", &find(samples::to_agent(), |message| matches!(message, ToAgent::Assign(_))));
    let ended = |message: &FromAgent| matches!(message, FromAgent::Report(report) if matches!(report.body, ReportBody::Ended { .. }));
    measure("report of an end", &find(samples::from_agent(), ended));
    let heartbeat = |message: &FromAgent| matches!(message, FromAgent::Heartbeat(_));
    measure("heartbeat", &find(samples::from_agent(), heartbeat));
    let data = Data::new(vec![7; CHUNK_BYTES_MAX]).expect("it fits");
    let chunk = OutputChunk { stream: OutputStream::Out, offset: 1 << 20, at: WallTime(1), data };
    measure::<FromAgent>("output, the largest piece", &chunk.into());
}

//! The logical timeline never goes back and never follows the wall clock while the machine is up.

use std::sync::{Arc, Mutex};

use modchain_core::{Event, EventBody};
use modchain_orchestrator::clock::{Clock, Past, SystemSource, TimeSource};
use modchain_types::{BootId, NodeId, Span, Text, Timestamp, WallTime};
use proptest::prelude::*;

#[derive(Clone, Copy)]
struct Machine {
    boot: u8,
    clock: u64,
    wall: i64,
}

#[derive(Clone)]
struct Fake(Arc<Mutex<Machine>>);

impl TimeSource for Fake {
    fn boot(&self) -> BootId {
        BootId([self.0.lock().expect("lock").boot; 16])
    }
    fn boot_clock(&self) -> Span {
        Span(self.0.lock().expect("lock").clock)
    }
    fn wall(&self) -> WallTime {
        WallTime(self.0.lock().expect("lock").wall)
    }
}

fn started(at: Timestamp, source: &Fake) -> Event {
    let body = EventBody::EngineStarted {
        boot: source.boot(),
        boot_clock: source.boot_clock(),
        wall: source.wall(),
        version: Text::cut("0.1.0"),
    };
    Event { number: 1, at, body }
}

fn other(at: Timestamp) -> Event {
    Event { number: 2, at, body: EventBody::NodeLost { node: NodeId([0; 16]) } }
}

#[test]
fn a_restart_in_the_same_boot_counts_the_gap_by_the_boot_clock_whatever_the_wall_says() {
    let machine = Arc::new(Mutex::new(Machine { boot: 1, clock: 5_000_000, wall: 1_000_000 }));
    let fake = Fake(machine.clone());
    let mut clock = Clock::resume(Box::new(fake.clone()), &Past::default());
    assert_eq!(clock.now(), Timestamp::ZERO);
    let mut past = Past::default();
    past.observe(&started(clock.now(), &fake));
    *machine.lock().expect("lock") = Machine { boot: 1, clock: 9_000_000, wall: -5_000_000_000 };
    assert_eq!(clock.now(), Timestamp(4_000_000));
    past.observe(&other(Timestamp(3_000_000)));
    machine.lock().expect("lock").clock = 65_000_000;
    assert_eq!(Clock::resume(Box::new(fake), &past).now(), Timestamp(60_000_000));
}

#[test]
fn after_a_reboot_the_wall_clock_says_how_long_the_gap_was_and_never_a_negative_one() {
    let machine = Arc::new(Mutex::new(Machine { boot: 1, clock: 5_000_000, wall: 100_000 }));
    let fake = Fake(machine.clone());
    let mut past = Past::default();
    past.observe(&started(Timestamp(1_000), &fake));
    past.observe(&other(Timestamp(2_000_000)));
    *machine.lock().expect("lock") = Machine { boot: 2, clock: 7, wall: 160_000 };
    assert_eq!(Clock::resume(Box::new(fake.clone()), &past).now(), Timestamp(60_001_000));
    machine.lock().expect("lock").wall = 0;
    assert_eq!(Clock::resume(Box::new(fake), &past).now(), Timestamp(2_000_000));
}

#[test]
fn this_machine_has_a_boot_id_and_a_clock_that_runs() {
    let source = SystemSource::new().expect("a boot id");
    assert_ne!(source.boot(), BootId([0; 16]));
    assert_eq!(source.boot(), SystemSource::new().expect("a boot id").boot());
    assert!(source.boot_clock() > Span::ZERO);
    assert!(source.wall() > WallTime(1_700_000_000_000));
}

proptest! {
    #[test]
    fn time_never_goes_back_over_any_restarts_reboots_and_jumps(
        steps in proptest::collection::vec((0u8..4, 0u64..1 << 40, any::<i64>()), 1..40)
    ) {
        let machine = Arc::new(Mutex::new(Machine { boot: 0, clock: 1 << 41, wall: 0 }));
        let fake = Fake(machine.clone());
        let mut past = Past::default();
        let mut clock = Clock::resume(Box::new(fake.clone()), &past);
        let mut last = clock.now();
        past.observe(&started(last, &fake));
        for (what, clock_moves, wall) in steps {
            {
                let mut machine = machine.lock().expect("lock");
                machine.wall = wall;
                match what {
                    // A broken machine's clock may even go back: the timeline must not.
                    0 => machine.clock = machine.clock.saturating_sub(clock_moves),
                    3 => (machine.boot, machine.clock) = (machine.boot + 1, clock_moves),
                    _ => machine.clock += clock_moves,
                }
            }
            if what >= 2 {
                clock = Clock::resume(Box::new(fake.clone()), &past);
            }
            let now = clock.now();
            prop_assert!(now >= last);
            last = now;
            past.observe(&if what >= 2 { started(now, &fake) } else { other(now) });
        }
    }
}

#![no_main]

#[path = "../../tests/targets/mod.rs"]
mod targets;

use libfuzzer_sys::fuzz_target;

#[global_allocator]
static MEMORY: modchain_fuzz::Counting = modchain_fuzz::Counting;

fuzz_target!(|input: &[u8]| {
    targets::frame(input);
});

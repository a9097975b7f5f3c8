//! The agent's program.

fn main() {
    modchain_agent::executor::wasm::child_main();
}

//! What keeps keys inside a process that holds them.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Leaves no image of this process's memory, keys in it, when it crashes, and lets no other program of the same user read it:
/// the limit of core files becomes zero, and on Linux the process becomes undumpable, because where cores go to a program the
/// limit alone is not heeded. Child processes inherit the limit and, once they run another program, not the rest.
///
/// Call it first thing in `main`. Fails only where the system forbids even that, in a narrow sandbox.
pub fn harden_process() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

//! Locks the calling thread in: after [`apply`] it can open no file, reach no network and start nothing.
//!
//! The engine's own sandbox is the first wall; this is what stands behind it should it have a hole. Both locks are the
//! kernel's and hold for the thread that takes them and for threads it starts. A kernel without one of them is an answer, told
//! in the [`LockdownReport`], not an error.

use std::io;

use super::protocol::LockdownReport;

/// Locks this thread in, for ever.
pub(super) fn apply() -> io::Result<LockdownReport> {
    // Both locks are only for those who can gain no privileges any more.
    rustix::thread::set_no_new_privs(true)?;
    Ok(LockdownReport { landlock: landlock()?, seccomp: seccomp()? })
}

/// Takes away the file system, and, where the kernel knows how, TCP, abstract sockets and signals to others.
fn landlock() -> io::Result<bool> {
    /// `struct landlock_ruleset_attr`. Older kernels take a longer struct whose unknown fields are zero.
    #[repr(C)]
    struct RulesetAttr {
        handled_access_fs: u64,
        handled_access_net: u64,
        scoped: u64,
    }
    /// `LANDLOCK_CREATE_RULESET_VERSION`.
    const VERSION: u32 = 1;

    // SAFETY: with this flag the call takes no memory and returns the version of the interface.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<RulesetAttr>(), 0usize, VERSION) };
    if version < 1 {
        return Ok(false);
    }
    // Bits by the version that brought them: a kernel refuses those it does not know.
    let file_system_bits = match version {
        1 => 13,
        2 => 14,
        3 | 4 => 15,
        _ => 16,
    };
    let attr = RulesetAttr {
        handled_access_fs: (1 << file_system_bits) - 1,
        handled_access_net: if version >= 4 { 0b11 } else { 0 },
        scoped: if version >= 6 { 0b11 } else { 0 },
    };
    // SAFETY: `attr` lives through the call and the size is its own.
    let ruleset = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, std::mem::size_of::<RulesetAttr>(), 0u32)
    };
    let ruleset = i32::try_from(ruleset).map_err(io::Error::other)?;
    if ruleset < 0 {
        return Err(io::Error::last_os_error());
    }
    // No rule is added: nothing is allowed.
    // SAFETY: the descriptor is the one just made; both calls take no memory.
    let restricted = unsafe {
        let restricted = libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0u32);
        let error = io::Error::last_os_error();
        libc::close(ruleset);
        if restricted == 0 { Ok(()) } else { Err(error) }
    };
    restricted.map(|()| true)
}

/// System calls of a running guest and its compiler: memory, threads that exist, pipes that are open, clocks.
///
/// None of them opens, connects, starts or traces anything. Those not listed fail with `EPERM`, so that a library that asks
/// for one out of curiosity goes on.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_close,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    libc::SYS_futex,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
];

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: Option<u32> = Some(0xc000_00b7);
/// Elsewhere the numbers have not been checked: no filter, and the report says so.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const AUDIT_ARCH: Option<u32> = None;

/// Installs the filter for [`ALLOWED`].
fn seccomp() -> io::Result<bool> {
    let Some(arch) = AUDIT_ARCH else { return Ok(false) };
    let mut program = filter(arch, std::process::id());
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).expect("the filter has about a hundred instructions"),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `program` points to as many instructions as it says, which live through the call; the kernel checks them.
    let installed = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if installed == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // The kernel was built without it.
        Some(libc::EINVAL | libc::ENOSYS) => Ok(false),
        _ => Err(error),
    }
}

/// The filter as the kernel's own small language has it.
fn filter(arch: u32, pid: u32) -> Vec<libc::sock_filter> {
    /// Offsets in `struct seccomp_data`; of the arguments the low half, both machines being little-endian.
    const NUMBER: u32 = 0;
    const ARCH: u32 = 4;
    const FIRST_ARGUMENT: u32 = 16;

    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let load = |offset: u32| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let answer = |action: u32| statement(libc::BPF_RET | libc::BPF_K, action);
    // When the loaded word is not `k`, skips so many instructions.
    let expect = |k: u32, else_skip: u8| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf: else_skip,
        k,
    };
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let number = |call: libc::c_long| u32::try_from(call).expect("system calls have small numbers");

    // Numbers mean other calls on other machines, so a foreign one is not even looked at.
    let mut program = vec![
        load(ARCH),
        libc::sock_filter { jt: 1, ..expect(arch, 0) },
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
    ];
    for call in ALLOWED {
        program.extend([expect(number(*call), 1), answer(libc::SECCOMP_RET_ALLOW)]);
    }
    // To itself alone: its own limits (below the hard ones), and its own abort.
    for (call, owner) in [(libc::SYS_prlimit64, 0), (libc::SYS_tgkill, pid)] {
        program.extend([
            expect(number(call), 4),
            load(FIRST_ARGUMENT),
            expect(owner, 1),
            answer(libc::SECCOMP_RET_ALLOW),
            answer(refuse),
        ]);
    }
    program.push(answer(refuse));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a thread can do once it is locked in. The locks are the thread's own, so the rest of the tests is free.
    #[test]
    fn a_locked_thread_computes_and_can_reach_nothing() {
        let parent = rustix::process::getppid();
        let report = std::thread::spawn(move || {
            let report = apply().unwrap();
            let numbers: Vec<u64> = (0..100_000).collect();
            assert_eq!(numbers.iter().sum::<u64>(), 4_999_950_000);
            if report.landlock || report.seccomp {
                assert!(std::fs::read("/proc/self/status").is_err(), "a file was opened");
                assert!(std::fs::write("/tmp/modchain-locked-in", "x").is_err(), "a file was made");
            }
            if report.seccomp {
                assert!(std::net::UdpSocket::bind("127.0.0.1:0").is_err(), "a socket was opened");
                assert!(std::os::unix::net::UnixStream::pair().is_err(), "a socket was opened");
                assert!(std::process::Command::new("/bin/true").status().is_err(), "a program was started");
                assert!(std::thread::Builder::new().spawn(|| ()).is_err(), "a thread was started");
                let others = rustix::process::prlimit(parent, rustix::process::Resource::Core, LIMIT);
                assert_eq!(others.unwrap_err(), rustix::io::Errno::PERM, "another's limits were changed");
                assert!(rustix::process::prlimit(None, rustix::process::Resource::Core, LIMIT).is_ok());
            }
            report
        })
        .join()
        .unwrap();
        // Once more, on a thread of its own: the answer is the machine's.
        assert_eq!(std::thread::spawn(|| apply().unwrap()).join().unwrap(), report);
    }

    const LIMIT: rustix::process::Rlimit = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };

    #[test]
    fn a_call_of_another_machine_is_never_allowed() {
        let program = filter(0xc000_003e, 7);
        let kill = program[2];
        assert_eq!((program[1].jt, program[1].jf, kill.k), (1, 0, libc::SECCOMP_RET_KILL_PROCESS));
        assert_eq!(program.last().unwrap().k, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    }
}

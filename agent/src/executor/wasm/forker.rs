//! The template's program: whenever the agent asks, it forks a child, hands it what came with the request, and tells when it
//! has ended.
//!
//! It has one thread, so that a child may do whatever its parent might have done, and it never reads anything of a job: what a
//! child gets of one comes over the child's own socket, after the child has locked itself in. Its children do not outlive it.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, getppid, kill_process, set_parent_process_death_signal, setpgid, wait, waitpid,
};

use super::handing;
use super::protocol::{REQUEST_BYTES, Request, Told};

/// What a child is given.
pub(super) struct Handed {
    /// Its way to the agent.
    pub socket: UnixStream,
    /// The guest's, as are the others.
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Forks children as the agent asks for them over this socket. Returns in each of them, and in the template with nothing once
/// the agent is gone or has no more use for it. It leaves no child: a dead one that it has not waited for would be left to
/// whoever is the first process here, and that may be an agent, which waits for no stranger.
pub(super) fn serve(socket: UnixStream) -> io::Result<Option<Handed>> {
    let mut children = HashMap::new();
    let served = fork_for(&socket, &mut children);
    for child in children.into_values() {
        let _ = kill_process(child, Signal::KILL);
        while matches!(waitpid(Some(child), WaitOptions::empty()), Err(Errno::INTR)) {}
    }
    served
}

/// [`serve`], with its children that live in the end; in a child there are none.
fn fork_for(socket: &UnixStream, children: &mut HashMap<u64, Pid>) -> io::Result<Option<Handed>> {
    let template = getpid();
    let signals = Signals::new()?;
    loop {
        let wake = wait_for(socket, &signals)?;
        if wake.ended {
            signals.drain();
            while let Some((pid, status)) = wait_for_child()? {
                let ended = children.extract_if(|_, child| *child == pid).next();
                if let Some((child, _)) = ended {
                    tell(socket, Told::Ended { child, status })?;
                }
            }
        }
        if !wake.asked {
            continue;
        }
        let mut bytes = [0; REQUEST_BYTES];
        let (length, handed) = handing::take_over(socket, &mut bytes)?;
        if length == 0 {
            return Ok(None);
        }
        match Request::from_bytes(&bytes[..length]) {
            Some(Request::Fork { child }) => {
                let handed = <[OwnedFd; 4]>::try_from(handed).map_err(|_| io::Error::other("four are handed over"))?;
                // SAFETY: this process has one thread, so nothing is in the middle of anything that the child would miss.
                match unsafe { libc::fork() } {
                    -1 => {
                        let error = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EAGAIN);
                        tell(socket, Told::NotForked { child, error })?;
                    }
                    0 => {
                        children.clear();
                        begin(template)?;
                        signals.unblock()?;
                        let [socket, stdin, stdout, stderr] = handed;
                        return Ok(Some(Handed { socket: socket.into(), stdin, stdout, stderr }));
                    }
                    pid => {
                        children.insert(child, Pid::from_raw(pid).expect("a child has a number"));
                    }
                }
            }
            // One that has been waited for is not listed, so its number cannot be another's by now.
            Some(Request::Kill { child }) => {
                if let Some(pid) = children.get(&child) {
                    let _ = kill_process(*pid, Signal::KILL);
                }
            }
            None => return Err(io::Error::other("the agent does not make sense")),
        }
    }
}

/// The first steps of a child: its own group, and an end with its template.
fn begin(template: Pid) -> io::Result<()> {
    setpgid(None, None)?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    match getppid() == Some(template) {
        true => Ok(()),
        false => Err(io::Error::other("the template is gone")),
    }
}

fn tell(socket: &UnixStream, told: Told) -> io::Result<()> {
    use std::io::Write;
    (&*socket).write_all(&told.to_bytes())
}

/// A child that has ended, if there is one that nobody has waited for.
fn wait_for_child() -> io::Result<Option<(Pid, i32)>> {
    match wait(WaitOptions::NOHANG) {
        Ok(ended) => Ok(ended.map(|(pid, status)| (pid, status.as_raw()))),
        Err(Errno::CHILD) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Why the template woke up.
struct Wake {
    asked: bool,
    ended: bool,
}

fn wait_for(socket: &UnixStream, signals: &Signals) -> io::Result<Wake> {
    let polled = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut both = [polled(socket.as_raw_fd()), polled(signals.descriptor.as_raw_fd())];
    loop {
        // SAFETY: there are two entries, and they live through the call.
        if unsafe { libc::poll(both.as_mut_ptr(), 2, -1) } >= 0 {
            return Ok(Wake { asked: both[0].revents != 0, ended: both[1].revents != 0 });
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// The signal that a child has ended, as something to wait for.
struct Signals {
    descriptor: OwnedFd,
    set: libc::sigset_t,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: the first call makes the set that the others change and read; the disposition is the default, which is no
        // pointer; `signalfd` returns a descriptor that nobody else owns, or fails.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            let mut set = set.assume_init();
            libc::sigaddset(&raw mut set, libc::SIGCHLD);
            // Where it is ignored children cannot be waited for.
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            let descriptor = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if descriptor < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self { descriptor: OwnedFd::from_raw_fd(descriptor), set })
        }
    }

    /// Forgets the signal; several are one.
    fn drain(&self) {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        let _ = rustix::io::read(&self.descriptor, &mut info);
    }

    /// Lets it through again, as in any other process.
    fn unblock(&self) -> io::Result<()> {
        // SAFETY: the set lives as long as this.
        match unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, &raw const self.set, std::ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

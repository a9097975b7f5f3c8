//! One program of the local stack: started, watched, started again with a growing pause when it dies, stopped with SIGTERM
//! and after a while with SIGKILL. It dies with this process, whatever kills that.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::exit::Failure;

/// First pause before a dead child is started again; doubles each time.
const RESTART_PAUSE_FIRST: Duration = Duration::from_millis(200);
/// Longest pause.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(10);
/// A child that lived this long begins with the first pause again.
const RESTART_RESET: Duration = Duration::from_secs(30);
/// Time between SIGTERM and SIGKILL.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);
/// Bytes of a log that are shown when something went wrong.
const LOG_TAIL_BYTES: u64 = 4096;
/// A log is begun anew at the start when it is longer than this; the old one is kept beside it.
const LOG_BYTES_MAX: u64 = 16 << 20;

/// How to start a program.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    /// What people call it.
    pub(crate) name: String,
    /// Its file.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) args: Vec<std::ffi::OsString>,
    /// Where its standard error (and output) goes.
    pub(crate) log: PathBuf,
}

impl Recipe {
    /// Starts the program, in a process group of its own: Ctrl-C in the terminal is for this process alone to act on.
    pub(crate) fn spawn(&self, stdout: Stdio) -> Result<Child, Failure> {
        let failed =
            |error: std::io::Error| Failure::failed(format!("cannot start {}: {error}", self.program.display()));
        let log = self.open_log().map_err(failed)?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null()).stdout(stdout).stderr(log).process_group(0).kill_on_drop(true);
        forget_own_settings(&mut command);
        die_with_parent(&mut command);
        command.spawn().map_err(failed)
    }

    /// The log, to append to. Kept small between starts.
    pub(crate) fn open_log(&self) -> std::io::Result<File> {
        if std::fs::metadata(&self.log).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
            std::fs::rename(&self.log, self.log.with_extension("log.old"))?;
        }
        OpenOptions::new().create(true).append(true).mode(0o600).open(&self.log)
    }

    /// The end of the log, for a person.
    pub(crate) fn log_tail(&self) -> String {
        log_tail(&self.log).unwrap_or_default()
    }
}

fn log_tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Settings meant for this program are not meant for its children; only the log filter is for all.
pub(crate) fn forget_own_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MODCHAIN_") && name != "MODCHAIN_LOG" {
            command.env_remove(name);
        }
    }
}

/// The kernel kills the child when this process is gone, however that came about. The children keep what matters on disk
/// before they speak, so that being killed costs them nothing.
#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let set = move || {
        // SAFETY: both calls are async-signal-safe and touch no memory of this process.
        let (set, parent_now) =
            unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0), libc::getppid()) };
        if set != 0 {
            return Err(std::io::Error::last_os_error());
        }
        // The parent may have died between fork and prctl: then nobody would send the signal.
        if u32::try_from(parent_now) != Ok(parent) {
            return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec and does only the two calls above.
    unsafe { command.pre_exec(set) };
}

/// Other systems have no such signal: there the children outlive a killed parent until they are stopped by hand.
#[cfg(not(target_os = "linux"))]
fn die_with_parent(_command: &mut Command) {}

/// A child with its keeper.
pub(crate) struct Keeper {
    stop: CancellationToken,
    deaths: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Keeps this child: when it dies, `recipe` starts the next one. `tell` hears of deaths.
    pub(crate) fn keep(recipe: Recipe, child: Child, tell: impl Fn(String) + Send + 'static) -> Self {
        let stop = CancellationToken::new();
        let deaths = Arc::new(AtomicU32::new(0));
        let task = tokio::spawn(keep(recipe, child, stop.clone(), deaths.clone(), tell));
        Self { stop, deaths, task }
    }

    /// How often it died.
    pub(crate) fn deaths(&self) -> u32 {
        self.deaths.load(Ordering::Relaxed)
    }

    /// Stops the child and waits until it is gone; bounded by [`STOP_TIMEOUT`] and a kill.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        // A keeper that panicked has dropped its child, and dropping kills.
        let _ = self.task.await;
    }
}

async fn keep(recipe: Recipe, child: Child, stop: CancellationToken, deaths: Arc<AtomicU32>, tell: impl Fn(String)) {
    let mut child = Some(child);
    let mut pause = RESTART_PAUSE_FIRST;
    loop {
        let began = Instant::now();
        let why = match child.take() {
            Some(mut running) => tokio::select! {
                () = stop.cancelled() => return end(running).await,
                status = running.wait() => how(status),
            },
            None => match recipe
                .open_log()
                .map_err(|error| Failure::failed(error.to_string()))
                .and_then(|log| recipe.spawn(log.into()))
            {
                Ok(next) => {
                    child = Some(next);
                    continue;
                }
                Err(failure) => failure.message,
            },
        };
        deaths.fetch_add(1, Ordering::Relaxed);
        if began.elapsed() > RESTART_RESET {
            pause = RESTART_PAUSE_FIRST;
        }
        tell(format!("{} ended ({why}); starting it again in {}", recipe.name, modchain_types::Span::from(pause)));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(RESTART_PAUSE_MAX);
    }
}

/// How a child ended, in words.
pub(crate) fn how(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}

/// Asks a child to stop, waits, and kills it in the end.
pub(crate) async fn end(mut child: Child) {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
        // It may be gone already; then the wait returns at once.
        let _ = kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(STOP_TIMEOUT, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(folder: &Path, script: &str) -> Recipe {
        Recipe {
            name: "test".into(),
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            log: folder.join("test.log"),
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_child_that_dies_is_started_again_until_it_is_stopped() {
        let folder = tempfile::tempdir().expect("folder");
        let recipe = recipe(folder.path(), "echo started >&2; exit 3");
        let (sender, mut deaths) = tokio::sync::mpsc::unbounded_channel();
        let child = recipe.spawn(Stdio::null()).expect("starts");
        let keeper = Keeper::keep(recipe.clone(), child, move |line| drop(sender.send(line)));
        for _ in 0..2 {
            let line =
                tokio::time::timeout(Duration::from_secs(20), deaths.recv()).await.expect("in time").expect("a line");
            assert!(line.contains("exit status: 3"), "{line}");
        }
        assert!(keeper.deaths() >= 2);
        keeper.stop().await;
        assert!(recipe.log_tail().lines().count() >= 2, "{}", recipe.log_tail());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_child_is_asked_to_stop_and_is_gone_afterwards() {
        let folder = tempfile::tempdir().expect("folder");
        let script = "trap 'echo bye >&2; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
        let recipe = recipe(folder.path(), script);
        let mut child = recipe.spawn(Stdio::piped()).expect("starts");
        let mut stdout = child.stdout.take().expect("piped");
        let mut byte = [0; 1];
        tokio::io::AsyncReadExt::read_exact(&mut stdout, &mut byte).await.expect("is ready");
        let keeper = Keeper::keep(recipe.clone(), child, |_| {});
        keeper.stop().await;
        assert_eq!(recipe.log_tail(), "bye\n");
    }
}

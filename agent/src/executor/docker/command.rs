//! Whether a container's command exists, looked up in the created container before it starts.
//!
//! The program that runs as process 1 would only exit with 127 for a command that is not there, and so does many a script that
//! ran for an hour. A job that never ran must not be billed, and one that ran must not be able to look like it; so the
//! question is answered before.

use bollard::query_parameters::ContainerArchiveInfoOptions;
use modchain_types::{Ending, Fault};

use super::engine::{Engine, Trouble};
use super::told;

/// Where commands are looked for in an image that does not say it: the engine's own default.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Folders of `PATH` that are looked at. Should there be more, the command counts as found and may fail by itself.
const FOLDERS_MAX: usize = 32;

/// Bits of a mode as Go writes it.
const GO_DIRECTORY: u32 = 1 << 31;
const GO_SYMLINK: u32 = 1 << 27;
const EXECUTABLE: u32 = 0o111;

/// What is at a path of a container.
enum There {
    Nothing,
    Program,
    NoProgram,
}

/// Looks for the command and says so when there is none. Any other trouble is no answer: the start will tell.
pub(super) async fn check(
    engine: &Engine,
    name: &str,
    command: &str,
    env: &[String],
    workdir: &str,
) -> Result<(), Ending> {
    let mut seen_none = None;
    for path in candidates(command, env, workdir) {
        match look(engine, name, &path).await {
            Ok(There::Program) | Err(_) => return Ok(()),
            Ok(There::NoProgram) => seen_none = Some(path),
            Ok(There::Nothing) => {}
        }
    }
    let (fault, message) = match seen_none {
        Some(path) => (Fault::Job, format!("the command {path} of the image is not a program")),
        None => (Fault::Command, format!("there is no command `{command}` in the image")),
    };
    Err(Ending::CannotStart { fault, message: told(message) })
}

/// Where the command may be, in the order in which it would be run.
fn candidates(command: &str, env: &[String], workdir: &str) -> Vec<String> {
    let below = |folder: &str, path: &str| format!("{}/{path}", folder.trim_end_matches('/'));
    let workdir = if workdir.starts_with('/') { workdir } else { "/" };
    if command.starts_with('/') {
        return vec![command.to_owned()];
    }
    if command.contains('/') {
        return vec![below(workdir, command)];
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(PATH_DEFAULT);
    path.split(':')
        .take(FOLDERS_MAX)
        .map(
            |folder| {
                if folder.starts_with('/') { below(folder, command) } else { below(&below(workdir, folder), command) }
            },
        )
        .collect()
}

async fn look(engine: &Engine, name: &str, path: &str) -> Result<There, Trouble> {
    let (docker, _) = engine.reach().await?;
    let mut path = path.to_owned();
    // The engine resolves a link to its very end, so one more look is enough.
    for _ in 0..2 {
        let stat = match docker
            .get_container_archive_info(name, Some(ContainerArchiveInfoOptions { path: path.clone() }))
            .await
        {
            Ok(stat) => stat,
            Err(error) => match engine.trouble(error).await {
                trouble if trouble.is_missing() => return Ok(There::Nothing),
                trouble => return Err(trouble),
            },
        };
        if stat.file_mode & GO_SYMLINK != 0 {
            path = stat.link_target;
        } else if stat.file_mode & GO_DIRECTORY != 0 || stat.file_mode & EXECUTABLE == 0 {
            return Ok(There::NoProgram);
        } else {
            return Ok(There::Program);
        }
    }
    Ok(There::Nothing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_looked_for_where_it_would_be_run_from() {
        let env = ["A=1".to_owned(), "PATH=/a:b:/c/".to_owned()];
        assert_eq!(candidates("run", &env, "/srv"), ["/a/run", "/srv/b/run", "/c/run"]);
        assert_eq!(candidates("./run", &env, "/srv/"), ["/srv/./run"]);
        assert_eq!(candidates("/x/run", &env, ""), ["/x/run"]);
        assert_eq!(candidates("sh", &[], "").len(), 6);
    }
}

//! Programs beside the agent that some kinds of jobs need: Docker and Ollama. That one is not there is an answer and no fault.
//! Both speak HTTP, of which this knows as much as one question takes.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

use modchain_agent::config::Config;
use modchain_types::Adapter;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::Check;

/// Longest wait for one answer: they are on this machine, which may be busy.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Most of an answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Where Docker listens unless it is told otherwise.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// The first Ollama that does not hand out its memory to whoever may create models (CVE-2026-7482).
const OLLAMA_MIN: [u64; 3] = [0, 17, 1];

/// What is said of a neighbour that the owner has no use for.
fn not_wanted(name: &'static str) -> Check {
    Check::ok(name, "the owner takes no jobs that need it")
}

/// Docker, by its socket.
pub(super) async fn docker(config: &Config) -> Check {
    let name = "docker";
    if !config.adapters.contains(&Adapter::Docker) {
        return not_wanted(name);
    }
    let host = config.docker.host.as_deref().unwrap_or_default();
    let socket = match host.strip_prefix("unix://") {
        Some(socket) => PathBuf::from(socket),
        None if host.is_empty() => DOCKER_SOCKET.into(),
        None => {
            let detail = format!("{host} is not a socket on this machine");
            return Check::warn(name, detail, "see DOCKER_HOST and [docker] host; a socket is written unix:///path");
        }
    };
    let shown = socket.display();
    let asked = timeout(ANSWER_MAX, async {
        let pong = get(UnixStream::connect(&socket).await?, "/_ping").await?;
        let version = get(UnixStream::connect(&socket).await?, "/version").await?;
        Ok::<_, io::Error>((pong, version))
    });
    match asked.await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())) {
        Ok((pong, version)) if pong.trim_ascii() == b"OK" => {
            let version: Value = serde_json::from_slice(&version).unwrap_or_default();
            let word = |key: &str| version[key].as_str().unwrap_or("?").to_owned();
            Check::ok(name, format!("version {} (API {}) at {shown}", word("Version"), word("ApiVersion")))
        }
        Ok(_) => {
            Check::warn(name, format!("what listens at {shown} is not Docker"), "see DOCKER_HOST and [docker] host")
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Check::ok(name, format!("there is none at {shown}; jobs that need it do not come here"))
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let hint = "put the agent's user into the group docker if this node is to run containers";
            Check::warn(name, format!("{shown} is there, and this user may not use it"), hint)
        }
        Err(error) => Check::warn(name, format!("{shown} does not answer: {error}"), "systemctl status docker"),
    }
}

/// Ollama, by its port.
pub(super) async fn ollama(config: &Config) -> Check {
    let name = "ollama";
    if !config.adapters.contains(&Adapter::Llm) {
        return not_wanted(name);
    }
    let address = address_of(&config.llm.url);
    let asked = timeout(ANSWER_MAX, async { get(TcpStream::connect(address).await?, "/api/version").await });
    let answer = match asked.await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())) {
        Ok(answer) => answer,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            return Check::ok(name, format!("there is none at {address}; jobs that need it do not come here"));
        }
        Err(error) => {
            return Check::warn(name, format!("{address} does not answer: {error}"), "see OLLAMA_HOST and [llm] url");
        }
    };
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
    match answer["version"].as_str() {
        Some(version) if is_old(version) => {
            let [major, minor, patch] = OLLAMA_MIN;
            let detail = format!("version {version} at {address} has known holes");
            Check::warn(name, detail, format!("update it to {major}.{minor}.{patch} or later"))
        }
        Some(version) => Check::ok(name, format!("version {version} at {address}")),
        None => Check::warn(name, format!("what listens at {address} is not Ollama"), "see OLLAMA_HOST and [llm] url"),
    }
}

/// Host and port of the server's address.
fn address_of(url: &str) -> &str {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    rest.split('/').next().unwrap_or(rest)
}

/// Whether it is older than [`OLLAMA_MIN`]. A version that cannot be read is not called old.
fn is_old(version: &str) -> bool {
    let mut parts = version.split(['.', '-', '+']).map(|part| part.parse::<u64>().ok());
    match (parts.next().flatten(), parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor), Some(patch)) => [major, minor, patch] < OLLAMA_MIN,
        _ => false,
    }
}

/// The body of the answer, whatever its status. Version 1.0, so that the other side ends the answer by closing.
async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> io::Result<Vec<u8>> {
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n");
    head.map(|head| answer.split_off(head + 4)).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "it is not HTTP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_known() {
        for (version, old) in [
            ("0.17.0", true),
            ("0.9.12", true),
            ("0.17.1", false),
            ("0.17.1-rc0", false),
            ("1.0.0", false),
            ("x", false),
        ] {
            assert_eq!(is_old(version), old, "{version}");
        }
    }
}

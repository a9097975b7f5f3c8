//! `doctor`: what is wrong here and on the way to the orchestrator, and what to do. Looks at everything, however much of it is
//! broken, and every wait has a limit. It changes nothing but what every command does: a certificate that is due is renewed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use modchain_certs::{Credentials, RootPin};
use modchain_link::{enrol, reach};
use modchain_types::{Role, Span, WallTime};
use modchain_wire::console::LinkQuery;
use modchain_wire::view::LinkView;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::docs::{CheckDoc, DoctorDoc};
use super::table::pairs;
use crate::args::Format;
use crate::client::Client;
use crate::client::config::{Config, Contexts};
use crate::client::identities::read_joined;
use crate::client::link::chain;
use crate::exit::{self, Failure, Outcome};
use crate::shell::{Shell, Target};
use crate::text;

/// Clocks that differ by less than this are as good as equal: a command takes longer to type.
const CLOCK_OK: Span = Span::from_secs(5);
/// Longest wait for a program on this machine.
const LOCAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest answer read from it.
const LOCAL_BYTES_MAX: u64 = 64 * 1024;
/// Mode bits with which others can change a file.
const WRITABLE_BY_OTHERS: u32 = 0o022;
const DOCKER_SOCKET: &str = "/var/run/docker.sock";
const OLLAMA_ADDRESS: &str = "127.0.0.1:11434";

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Ok,
    /// Something may go wrong later, or goes less well than it could.
    Warn,
    /// Something does not work.
    Problem,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Problem => "problem",
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Check {
    name: &'static str,
    status: Status,
    detail: String,
    hint: Option<String>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, detail: detail.into(), hint: None }
    }

    fn warn(name: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { name, status: Status::Warn, detail: detail.into(), hint: Some(hint.into()) }
    }

    fn problem(name: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { name, status: Status::Problem, detail: detail.into(), hint: Some(hint.into()) }
    }

    /// What another command would have said.
    fn failed(name: &'static str, failure: Failure) -> Self {
        Self { name, status: Status::Problem, detail: failure.message, hint: failure.hint }
    }
}

/// `modchain doctor`.
pub(crate) async fn doctor(shell: &Shell) -> Outcome {
    let mut checks = files(shell);
    match shell.target() {
        Ok(target) => {
            checks.push(Check::ok("context", format!("{}, at {}", target.context, target.orchestrator)));
            match credentials(&target, &mut checks) {
                Some(credentials) => reachable(shell, &target, &credentials, &mut checks).await?,
                None => checks.push(Check::warn(
                    "orchestrator",
                    "not asked, because there is no identity to ask with",
                    "mend the identity first",
                )),
            }
        }
        Err(failure) => checks.push(Check::failed("context", failure)),
    }
    checks.push(buffers());
    let (docker, ollama) = tokio::join!(docker(), ollama());
    checks.extend([docker, ollama]);
    show(shell, &checks)?;
    let well = checks.iter().all(|check| check.status != Status::Problem);
    Ok(if well { exit::OK } else { exit::FAILED })
}

fn show(shell: &Shell, checks: &[Check]) -> Result<(), Failure> {
    match shell.format() {
        Format::Json | Format::Jsonl => {
            let document = |check: &Check| CheckDoc {
                name: check.name,
                status: check.status.word(),
                detail: check.detail.clone(),
                hint: check.hint.clone(),
            };
            let ok = checks.iter().all(|check| check.status != Status::Problem);
            let checks = checks.iter().map(document).collect();
            shell.print_document(&DoctorDoc { schema: "modchain.doctor/v1", checks, ok })
        }
        Format::Name => {
            let problems = checks.iter().filter(|check| check.status == Status::Problem);
            shell.print(&problems.map(|check| format!("{}\n", check.name)).collect::<String>())
        }
        Format::Table => shell.print(&lines(checks)),
    }
}

fn lines(checks: &[Check]) -> String {
    let mut rows: Vec<(&str, String)> = Vec::new();
    let widest = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    for check in checks {
        rows.push((check.status.word(), format!("{:widest$}  {}", check.name, check.detail)));
        // What is well needs no advice.
        if let Some(hint) = check.hint.as_ref().filter(|_| check.status != Status::Ok) {
            rows.push(("", format!("{:widest$}  {hint}", "")));
        }
    }
    pairs(&rows)
}

/// Where everything lies, and whether others could change it.
fn files(shell: &Shell) -> Vec<Check> {
    let paths = &shell.paths;
    let mut checks = vec![
        file("config", &paths.config, Config::load_whole(&paths.config).err()),
        file("contexts", &paths.contexts, Contexts::load(&paths.contexts).err()),
        file("state", &paths.state, None),
    ];
    let unfinished = shell.identities().unfinished();
    checks.push(if unfinished.is_empty() {
        file("identities", &paths.identities, None)
    } else {
        let names: Vec<String> = unfinished.iter().map(|path| path.display().to_string()).collect();
        Check::warn(
            "identities",
            format!("{} began to join and did not end: {}", unfinished.len(), names.join(", ")),
            "repeat modchain join with the same token; a folder whose token is no longer good can be removed",
        )
    });
    checks
}

fn file(name: &'static str, path: &Path, unreadable: Option<Failure>) -> Check {
    if let Some(failure) = unreadable {
        return Check::failed(name, failure);
    }
    let shown = path.display();
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Check::ok(name, format!("{shown} (not there yet)"));
        }
        Err(error) => {
            return Check::problem(name, format!("{shown}: {error}"), "make it readable for this user");
        }
    };
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        let detail = format!("{shown} belongs to user {}, and this is user {user}", metadata.uid());
        return Check::problem(name, detail, format!("chown {user} '{shown}'"));
    }
    if metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        let detail = format!("{shown} has mode {:04o}: others can change it", metadata.mode() & 0o7777);
        return Check::problem(name, detail, format!("chmod go-w '{shown}'"));
    }
    Check::ok(name, shown.to_string())
}

/// The identity's files and its certificate's dates.
fn credentials(target: &Target, checks: &mut Vec<Check>) -> Option<Credentials> {
    let folder = target.identity.display();
    let join = format!("modchain join --orchestrator {} --token-file FILE", target.join);
    if !Credentials::exist(&target.identity) {
        checks.push(Check::problem("identity", format!("there is none in {folder}"), format!("with a token: {join}")));
        return None;
    }
    let credentials = match Credentials::load(&target.identity) {
        Ok(credentials) => credentials,
        Err(error) => {
            let why = chain(&error);
            let hint = format!("if it cannot be mended, with a new token: {join}");
            checks.push(Check::problem("identity", format!("{folder}: {why}"), hint));
            return None;
        }
    };
    let certificate = credentials.identity();
    let name = read_joined(&target.identity).map(|joined| format!(" {}", joined.name)).unwrap_or_default();
    checks.push(Check::ok("identity", format!("{}{name} in {folder}", certificate.role)));
    let (now, end) = (text::wall_now(), certificate.not_after);
    let until = text::rfc3339(end);
    checks.push(if end <= now {
        let token = format!("modchain token create --role {} --name{name} --rejoin", certificate.role);
        let hint = format!("with a token, which is made with `{token}`: {join}");
        Check::problem("certificate", format!("ended {} ago ({until})", now.since(end)), hint)
    } else if now < certificate.not_before {
        let begin = text::rfc3339(certificate.not_before);
        Check::problem("certificate", format!("begins only at {begin}"), "set this machine's clock")
    } else if now >= certificate.renews_at() {
        let detail = format!("ends in {} ({until}); due to be renewed", end.since(now));
        Check::warn("certificate", detail, "any command that reaches the orchestrator renews it: modchain whoami")
    } else {
        let renews = certificate.renews_at().since(now);
        Check::ok("certificate", format!("ends in {} ({until}), is renewed in {renews}", end.since(now)))
    });
    Some(credentials)
}

/// Both ports, the clocks, and what an operator may see of the orchestrator's sockets.
async fn reachable(
    shell: &Shell,
    target: &Target,
    credentials: &Credentials,
    checks: &mut Vec<Check>,
) -> Result<(), Failure> {
    let patience = shell.connect_timeout()?;
    let (client, join) = tokio::join!(shell.connect(), join_port(target, credentials, patience));
    let (join, time_there) = join;
    match client {
        Ok(client) => {
            let welcome = client.welcome();
            checks.push(Check::ok(
                "orchestrator",
                format!(
                    "{} answers in {}, version {}, and takes this for {} {}",
                    client.address(),
                    client.rtt(),
                    welcome.version,
                    welcome.identity.role,
                    welcome.identity.name
                ),
            ));
            checks.push(clock(client.clock_ahead_ms()));
            checks.push(join);
            if welcome.identity.role == Role::Operator {
                checks.extend(sockets(&client).await);
            }
        }
        Err(failure) => {
            checks.push(Check::failed("orchestrator", failure));
            checks.push(match time_there {
                Some(there) => clock(there.0.saturating_sub(text::wall_now().0)),
                None => Check::warn("clock", "not compared, because the orchestrator was not reached", "try again"),
            });
            checks.push(join);
        }
    }
    Ok(())
}

/// Whether others could join, and the time there if it is told.
async fn join_port(target: &Target, credentials: &Credentials, patience: Duration) -> (Check, Option<WallTime>) {
    let address = &target.join;
    let pin = match RootPin::of_root(credentials.root()) {
        Ok(pin) => pin,
        Err(error) => return (Check::problem("join port", chain(&error), "join again with a new token"), None),
    };
    let token = read_joined(&target.identity).and_then(|joined| joined.token.parse().ok());
    let hint = "only whoever joins needs it; is UDP let through to this port?";
    match tokio::time::timeout(patience, reach::join_port(pin, address, token, text::wall_now())).await {
        Ok(Ok(time)) => (Check::ok("join port", format!("{address} answers")), time),
        Ok(Err(error)) => (Check::warn("join port", text::one_line(&chain(&error)), hint), None),
        Err(_) => (Check::warn("join port", format!("nothing answers at {address}"), hint), None),
    }
}

fn clock(ahead_ms: i64) -> Check {
    let apart = Span::from_millis(ahead_ms.unsigned_abs());
    let detail = match ahead_ms {
        0 => "is the orchestrator's to the millisecond".to_owned(),
        1.. => format!("is {apart} behind the orchestrator's"),
        ..0 => format!("is {apart} ahead of the orchestrator's"),
    };
    let hint = "set the clock: timedatectl set-ntp true, or chronyc makestep";
    if apart <= CLOCK_OK {
        Check::ok("clock", detail)
    } else if apart <= enrol::CLOCKS_APART_MAX {
        Check::warn("clock", detail, hint)
    } else {
        Check::problem("clock", format!("{detail}; certificates allow for {}", enrol::CLOCKS_APART_MAX), hint)
    }
}

async fn sockets(client: &Client) -> Vec<Check> {
    match client.link(LinkQuery { detail: false }).await {
        Ok(view) => judge_sockets(&view, text::wall_now()),
        Err(failure) => vec![Check::failed("server sockets", failure)],
    }
}

fn judge_sockets(view: &LinkView, now: WallTime) -> Vec<Check> {
    let (receive, send) = (text::bytes(view.receive_buffer_bytes), text::bytes(view.send_buffer_bytes));
    let asked = text::bytes(view.asked_buffer_bytes);
    let detail = format!("{receive} to receive, {send} to send, {asked} asked");
    let bytes = view.asked_buffer_bytes;
    let buffers = if view.receive_buffer_bytes < bytes || view.send_buffer_bytes < bytes {
        let hint =
            format!("on the orchestrator's machine: sysctl -w net.core.rmem_max={bytes} net.core.wmem_max={bytes}");
        Check::warn("server buffers", detail, hint)
    } else {
        Check::ok("server buffers", detail)
    };
    let lost = match view.receive_buffer_errors {
        None => Check::ok("server drops", "the orchestrator's machine does not count them"),
        Some(0) => Check::ok("server drops", "no packet was lost to a full buffer since that machine's start"),
        Some(count) => Check::warn(
            "server drops",
            format!("{count} packets were lost to a full buffer since that machine's start"),
            "if the number grows: larger buffers, or fewer other programs on that machine",
        ),
    };
    let until = text::rfc3339(view.expires_at);
    let certificate = if view.expires_at <= now {
        Check::problem("server certificate", format!("ended at {until}"), "start the orchestrator again")
    } else {
        Check::ok("server certificate", format!("ends in {} ({until})", view.expires_at.since(now)))
    };
    vec![buffers, lost, certificate]
}

fn buffers() -> Check {
    match reach::buffers() {
        Ok(granted) => {
            let bytes = |count: usize| text::bytes(count as u64);
            let (receive, send) = (bytes(granted.receive_bytes), bytes(granted.send_bytes));
            // Plenty for one connection; only an orchestrator needs what it asks for.
            Check::ok("UDP buffers", format!("{receive} to receive, {send} to send"))
        }
        Err(error) => Check::problem(
            "UDP buffers",
            format!("no UDP socket can be opened: {error}"),
            "ask whoever runs this machine",
        ),
    }
}

async fn docker() -> Check {
    let named = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    let socket = match named.as_deref().map(|host| host.strip_prefix("unix://").ok_or(host)) {
        None => PathBuf::from(DOCKER_SOCKET),
        Some(Ok(path)) => PathBuf::from(path),
        Some(Err(host)) => return Check::ok("docker", format!("at {host} (DOCKER_HOST), not looked at")),
    };
    let answer = tokio::time::timeout(LOCAL_TIMEOUT, async {
        let stream = UnixStream::connect(&socket).await?;
        ask(stream, "/version").await
    });
    let shown = socket.display();
    match answer.await {
        Ok(Ok(body)) => Check::ok("docker", format!("version {} at {shown}", field(&body, "Version"))),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::PermissionDenied => Check::warn(
            "docker",
            format!("{shown} is there, but not for this user"),
            "only nodes that run containers need it: add the user to the group of that file",
        ),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            Check::ok("docker", "not here; only nodes that run containers need it")
        }
        Ok(Err(error)) => Check::warn("docker", format!("{shown}: {error}"), "only nodes that run containers need it"),
        Err(_) => Check::warn("docker", format!("{shown} does not answer"), "only nodes that run containers need it"),
    }
}

async fn ollama() -> Check {
    let named = std::env::var("OLLAMA_HOST").ok().filter(|host| !host.is_empty());
    let address = named.map_or_else(
        || OLLAMA_ADDRESS.to_owned(),
        |host| {
            let host = host.trim_start_matches("http://").trim_end_matches('/').to_owned();
            if host.contains(':') { host } else { format!("{host}:11434") }
        },
    );
    let answer = tokio::time::timeout(LOCAL_TIMEOUT, async {
        let stream = TcpStream::connect(&address).await?;
        ask(stream, "/api/version").await
    });
    match answer.await {
        Ok(Ok(body)) => Check::ok("ollama", format!("version {} at {address}", field(&body, "version"))),
        Ok(Err(_)) | Err(_) => {
            Check::ok("ollama", format!("not at {address}; only nodes that run language models need it"))
        }
    }
}

/// The body of the answer to a question so simple that it needs no library.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> std::io::Result<Vec<u8>> {
    // The older version of the protocol: the answer comes in one piece and then the stream ends.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LOCAL_BYTES_MAX).read_to_end(&mut answer).await?;
    let body = answer.windows(4).position(|window| window == b"\r\n\r\n").map(|at| answer.split_off(at + 4));
    body.ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}

fn field(body: &[u8], name: &str) -> String {
    let document: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let value = document.as_ref().and_then(|document| document[name].as_str());
    text::one_line(value.unwrap_or("unknown"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use modchain_types::Text;

    use super::*;

    #[test]
    fn clocks_are_judged_by_what_certificates_allow_for() {
        for (ahead_ms, status, words) in [
            (0, Status::Ok, "to the millisecond"),
            (4_000, Status::Ok, "4.0s behind"),
            (-4_000, Status::Ok, "4.0s ahead"),
            (60_000, Status::Warn, "1m00s behind"),
            (-601_000, Status::Problem, "10m01s ahead"),
        ] {
            let check = clock(ahead_ms);
            assert_eq!(check.status, status, "{check:?}");
            assert!(check.detail.contains(words) && (status == Status::Ok) == check.hint.is_none(), "{check:?}");
        }
    }

    #[test]
    fn files_that_others_can_change_are_problems_with_a_remedy() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("contexts.toml");
        assert_eq!(file("contexts", &path, None).status, Status::Ok, "not there yet is fine");
        fs::write(&path, "").expect("writes");
        for (mode, status) in [(0o600, Status::Ok), (0o644, Status::Ok), (0o664, Status::Problem)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode");
            let check = file("contexts", &path, None);
            assert_eq!(check.status, status, "{mode:o}: {check:?}");
            assert!(check.hint.is_none_or(|hint| hint.contains("chmod go-w")));
        }
        fs::write(&path, "x = 1\n").expect("writes");
        let check = file("contexts", &path, Contexts::load(&path).err());
        assert!(check.status == Status::Problem && check.detail.contains("contexts.toml:1"), "{check:?}");
    }

    #[test]
    fn the_orchestrators_sockets_are_judged_by_what_it_asked_for() {
        let well = LinkView {
            main: Text::cut("127.0.0.1:7443"),
            join: Text::cut("127.0.0.1:7444"),
            receive_buffer_bytes: 8 << 20,
            send_buffer_bytes: 8 << 20,
            asked_buffer_bytes: 8 << 20,
            receive_buffer_errors: Some(0),
            connections: 1,
            handshakes: 0,
            expires_at: WallTime(1_000),
        };
        let statuses = |view: &LinkView| judge_sockets(view, WallTime(0)).iter().map(|c| c.status).collect::<Vec<_>>();
        assert_eq!(statuses(&well), [Status::Ok; 3]);
        let small = LinkView { receive_buffer_bytes: 1 << 20, receive_buffer_errors: Some(7), ..well.clone() };
        assert_eq!(statuses(&small), [Status::Warn, Status::Warn, Status::Ok]);
        assert_eq!(statuses(&LinkView { expires_at: WallTime(0), ..well })[2], Status::Problem);
    }

    #[test]
    fn each_line_has_its_verdict_first_and_its_advice_below() {
        let checks = [Check::ok("config", "/c"), Check::problem("certificate", "ended", "join again")];
        assert_eq!(
            lines(&checks),
            "ok       config       /c\nproblem  certificate  ended\n                      join again\n"
        );
    }

    #[tokio::test]
    async fn a_local_program_is_asked_for_its_version() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let answer = async {
            let mut question = [0; 21];
            theirs.read_exact(&mut question).await.expect("a question");
            theirs.write_all(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n{\"Version\":\"27\\u001b\"}").await.expect("an answer");
            drop(theirs);
        };
        let (body, ()) = tokio::join!(ask(ours, "/version"), answer);
        assert_eq!(field(&body.expect("a body"), "Version"), "27·");
        assert_eq!(field(b"no JSON", "Version"), "unknown");
    }
}

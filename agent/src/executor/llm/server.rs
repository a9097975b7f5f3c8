//! The model server: the only requests that are ever made of it, and what may go wrong with them.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;

use super::printable;

/// Longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Most bytes of a refusal that are read for its message.
const REFUSAL_BYTES_MAX: usize = 16 << 10;

/// The server's address cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not a URL.
    #[error("`{url}` is not a URL such as http://127.0.0.1:11434: {why}")]
    Unreadable {
        /// As it was written.
        url: String,
        /// What the reader of URLs says.
        why: String,
    },
    /// A URL with another scheme, without a host, or with more than host and port.
    #[error("`{url}` must be http://HOST[:PORT] and nothing more")]
    NotPlain {
        /// As it was written.
        url: String,
    },
    /// The system has no room for an HTTP client.
    #[error("an HTTP client cannot be made: {why}")]
    NoClient {
        /// What the system says.
        why: String,
    },
}

/// What a job, or the preparation of one, asks for. The only requests with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Generate,
    Chat,
    Embed,
    Pull,
}

impl Verb {
    fn path(self) -> &'static str {
        match self {
            Self::Generate => "/api/generate",
            Self::Chat => "/api/chat",
            Self::Embed => "/api/embed",
            Self::Pull => "/api/pull",
        }
    }
}

/// What the probe looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// The models on disk.
    Tags,
    /// The models in memory.
    Ps,
    /// The server's version.
    Version,
}

impl Look {
    fn path(self) -> &'static str {
        match self {
            Self::Tags => "/api/tags",
            Self::Ps => "/api/ps",
            Self::Version => "/api/version",
        }
    }
}

/// Why a request came to nothing. The messages go to the job's client and leave out the server's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ServerError {
    /// Nothing was said.
    #[error("the model server cannot be reached: {0}")]
    Away(String),
    /// Nothing was answered for this long.
    #[error("the model server said nothing for {} s", .0.as_secs())]
    Silent(Duration),
    /// It answered with an error's status.
    #[error("the model server answered {status}: {message}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// Its words.
        message: String,
    },
    /// It broke off.
    #[error("the connection to the model server broke: {0}")]
    Broken(String),
    /// It had begun to answer, and then said that it failed.
    #[error("the model server failed: {0}")]
    Failed(String),
    /// It cannot be understood.
    #[error("the model server does not make sense: {0}")]
    Nonsense(String),
}

impl ServerError {
    pub(super) fn broken(error: reqwest::Error) -> Self {
        Self::Broken(reasons(error))
    }

    /// Whether it is what was asked that is wrong, so that every other server would say the same.
    pub(super) fn blames_request(&self) -> bool {
        match self {
            Self::Refused { status, .. } => {
                [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNPROCESSABLE_ENTITY]
                    .contains(status)
            }
            Self::Away(_) | Self::Silent(_) | Self::Broken(_) | Self::Failed(_) | Self::Nonsense(_) => false,
        }
    }

    /// Whether the server lacks what was named.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: StatusCode::NOT_FOUND, .. })
    }
}

/// An error and its causes in one line, without the URL: where the server listens is its owner's business.
fn reasons(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The model server of this machine. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Server {
    http: Client,
    /// Without a slash at its end.
    base: String,
}

impl Server {
    pub(super) fn at(text: &str) -> Result<Self, UrlError> {
        let url: Url =
            text.parse().map_err(|error| UrlError::Unreadable { url: text.to_owned(), why: format!("{error}") })?;
        let plain = url.scheme() == "http"
            && url.has_host()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if !plain {
            return Err(UrlError::NotPlain { url: text.to_owned() });
        }
        let http = Client::builder()
            .connect_timeout(CONNECT_MAX)
            // Prompts go to this server alone, whatever the environment or the server says.
            .no_proxy()
            .redirect(Policy::none())
            // A kept connection may be dead by its next use, and the failure would be an attempt's.
            .pool_max_idle_per_host(0)
            .user_agent("modchain-agent")
            .build()
            .map_err(|error| UrlError::NoClient { why: reasons(error) })?;
        Ok(Self { http, base: url.as_str().trim_end_matches('/').to_owned() })
    }

    /// Asks; waits `patience` for the head of the answer. Dropping the future or the response closes the connection, and the
    /// server stops.
    pub(super) async fn ask(&self, verb: Verb, body: Bytes, patience: Duration) -> Result<Response, ServerError> {
        let url = format!("{}{}", self.base, verb.path());
        let request = self.http.post(url).header("content-type", "application/json").body(body);
        answer(request, patience).await
    }

    /// Looks; at most `bytes_max` of an answer are taken.
    pub(crate) async fn look(&self, look: Look, patience: Duration, bytes_max: usize) -> Result<Bytes, ServerError> {
        let response = answer(self.http.get(format!("{}{}", self.base, look.path())), patience).await?;
        whole(response, patience, bytes_max).await
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("base", &self.base).finish_non_exhaustive()
    }
}

async fn answer(request: reqwest::RequestBuilder, patience: Duration) -> Result<Response, ServerError> {
    let response = match tokio::time::timeout(patience, request.send()).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) if error.is_connect() => return Err(ServerError::Away(reasons(error))),
        Ok(Err(error)) => return Err(ServerError::broken(error)),
        Err(_) => return Err(ServerError::Silent(patience)),
    };
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let message = match whole(response, patience, REFUSAL_BYTES_MAX).await {
        Ok(body) => refusal(&body),
        Err(error) => error.to_string(),
    };
    Err(ServerError::Refused { status, message })
}

/// A whole body of at most `bytes_max` bytes.
pub(super) async fn whole(mut response: Response, patience: Duration, bytes_max: usize) -> Result<Bytes, ServerError> {
    let mut body = BytesMut::new();
    loop {
        match tokio::time::timeout(patience, response.chunk()).await {
            Ok(Ok(Some(chunk))) if body.len() + chunk.len() > bytes_max => {
                return Err(ServerError::Nonsense(format!("an answer of more than {bytes_max} bytes")));
            }
            Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
            Ok(Ok(None)) => return Ok(body.freeze()),
            Ok(Err(error)) => return Err(ServerError::broken(error)),
            Err(_) => return Err(ServerError::Silent(patience)),
        }
    }
}

/// The words of a refusal: `{"error":"…"}`, or whatever it is.
fn refusal(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        error: serde_json::Value,
    }
    match serde_json::from_slice(body) {
        Ok(Refusal { error }) => words(&error),
        Err(_) => printable(&String::from_utf8_lossy(body)),
    }
}

/// The words of an error. Servers say text, and an empty object where they know nothing.
pub(super) fn words(error: &serde_json::Value) -> String {
    match error {
        serde_json::Value::String(text) => printable(text),
        other => format!("without words ({})", printable(&other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_host_and_a_port() {
        for good in ["http://127.0.0.1:11434", "http://ollama:11434/", "http://[::1]:1"] {
            let server = Server::at(good).expect(good);
            assert_eq!(server.base, good.trim_end_matches('/'));
        }
        for bad in [
            "",
            "127.0.0.1:11434",
            "https://h",
            "http://",
            "unix:/run/ollama",
            "http://user:word@h",
            "http://h/v1",
            "http://h?x",
            "http://h#x",
        ] {
            assert!(Server::at(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_its_own_words_and_steers_nothing() {
        for (body, told) in [
            (r#"{"error":"model \"x\" not found"}"#, "model \"x\" not found"),
            (r#"{"error":{}}"#, "without words ({})"),
            ("404 page not found\n", "404 page not found"),
            (r#"{"error":"\u001b]0;evil\u0007"}"#, "\u{fffd}]0;evil\u{fffd}"),
            ("", ""),
        ] {
            assert_eq!(refusal(body.as_bytes()), told, "{body}");
        }
    }
}

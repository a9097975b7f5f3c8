//! A conversation with a language model in a file: a JSON list of messages, `{"role", "content"}`, oldest first. It is read
//! before a job asks for the next answer, and question and answer are added as one when the job is completed: the file as a
//! whole is replaced, so that whatever fails leaves it as it was.

use std::fs::File;
use std::path::{Path, PathBuf};

use modchain_types::{Limits, LlmMessage, LlmRole, LlmTask};
use modchain_wire::agent::OutputStream;
use modchain_wire::console::LogChunk;
use rustix::fs::{FlockOperation, flock};

use crate::client::config::replace_file;
use crate::exit::Failure;
use crate::text;

/// A conversation whose next answer is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Conversation {
    path: PathBuf,
    system: Option<String>,
    question: String,
}

impl Conversation {
    /// Reads what was said so far, and gives all that is to be sent. A file that is not there is the beginning.
    pub(crate) fn begin(
        path: PathBuf,
        system: Option<String>,
        question: String,
    ) -> Result<(Self, Vec<LlmMessage>), Failure> {
        // A link to a file is followed, or replacing the file would replace the link.
        let path = path.canonicalize().unwrap_or(path);
        // An answer that is paid for must find its folder.
        if !folder(&path).is_dir() {
            let why = format!("the conversation cannot be kept in {}: there is no such folder", path.display());
            return Err(Failure::usage(why));
        }
        let mut messages = read(&path, Some(LlmTask::REQUEST_BYTES_MAX))?;
        let conversation = Self { path, system, question };
        conversation.ask(&mut messages);
        Ok((conversation, messages))
    }

    fn ask(&self, messages: &mut Vec<LlmMessage>) {
        ask(messages, self.system.as_deref(), &self.question);
    }

    /// Adds question and answer to the file as it is by now: somebody else may have added to it meanwhile.
    pub(crate) fn keep(&self, answer: String) -> Result<(), Failure> {
        // The folder is what two of us have in common while the file is replaced. A file system that cannot lock it keeps
        // only conversations apart that do not end within the same few milliseconds.
        let folder = File::open(folder(&self.path));
        if let Ok(folder) = &folder {
            let _ = flock(folder, FlockOperation::LockExclusive);
        }
        let mut messages = read(&self.path, None)?;
        self.ask(&mut messages);
        messages.push(LlmMessage { role: LlmRole::Assistant, content: answer });
        let text = serde_json::to_string_pretty(&messages).map_err(|e| Failure::failed(format!("no JSON: {e}")))?;
        Ok(replace_file(&self.path, (text + "\n").as_bytes())?)
    }

    /// Where it is kept.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Adds the question; what is said about behaviour comes first, instead of what was said about it before.
pub(super) fn ask(messages: &mut Vec<LlmMessage>, system: Option<&str>, question: &str) {
    if let Some(system) = system {
        let said = LlmMessage { role: LlmRole::System, content: system.to_owned() };
        match messages.first_mut().filter(|first| first.role == LlmRole::System) {
            Some(first) => *first = said,
            None => messages.insert(0, said),
        }
    }
    messages.push(LlmMessage { role: LlmRole::User, content: question.to_owned() });
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The messages of a file, which may have no more than `most` bytes; none where there is no file or nothing in it.
fn read(path: &Path, most: Option<u64>) -> Result<Vec<LlmMessage>, Failure> {
    let failed = |what: std::fmt::Arguments<'_>| Failure::usage(format!("the conversation {}{what}", path.display()));
    let bytes = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Ok(data) if most.is_some_and(|most| data.len() > most) => {
            let most = text::bytes(most.unwrap_or_default());
            return Err(failed(format_args!(" has more than {most}, which no model is sent"))
                .hint("begin a new one, or take its first messages out"));
        }
        Ok(_) => std::fs::read(path).map_err(|error| failed(format_args!(" cannot be read: {error}")))?,
        Err(error) => return Err(failed(format_args!(" cannot be read: {error}"))),
    };
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Vec::new());
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        failed(format_args!(":{}: {error}", error.line()))
            .hint(r#"it is a JSON list: [{"role": "user", "content": "..."}, ...]; roles are system, user, assistant"#)
    })
}

/// What the newest attempt of a job answered, as it comes.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    attempt: u32,
    bytes: Vec<u8>,
}

impl Answer {
    /// Takes a piece of output. A new attempt answers from the beginning.
    pub(crate) fn take(&mut self, chunk: &LogChunk) {
        if chunk.cursor.attempt != self.attempt {
            self.attempt = chunk.cursor.attempt;
            self.bytes.clear();
        }
        let room = usize::try_from(Limits::OUTPUT_BYTES_MAX).unwrap_or(usize::MAX).saturating_sub(self.bytes.len());
        if chunk.stream == OutputStream::Out {
            self.bytes.extend_from_slice(&chunk.data[..chunk.data.len().min(room)]);
        }
    }

    /// The answer's text, without the line end after it.
    pub(crate) fn text(self) -> String {
        let mut text = String::from_utf8_lossy(&self.bytes).into_owned();
        if text.ends_with('\n') {
            text.pop();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use modchain_types::WallTime;
    use modchain_wire::Data;
    use modchain_wire::console::LogCursor;

    use super::*;

    fn begin(path: &Path, system: Option<&str>, question: &str) -> (Conversation, Vec<LlmMessage>) {
        Conversation::begin(path.to_owned(), system.map(str::to_owned), question.into()).expect("begins")
    }

    fn said(messages: &[LlmMessage]) -> Vec<String> {
        messages.iter().map(|message| format!("{:?}: {}", message.role, message.content)).collect()
    }

    #[test]
    fn a_conversation_begins_without_a_file_and_goes_on_with_it() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("chat.json");
        let (first, messages) = begin(&path, Some("be short"), "hi");
        assert_eq!(said(&messages), ["System: be short", "User: hi"]);
        assert!(!path.exists(), "nothing is written before there is an answer");
        first.keep("hello".into()).expect("keeps");
        let (second, messages) = begin(&path, None, "why?");
        assert_eq!(said(&messages), ["System: be short", "User: hi", "Assistant: hello", "User: why?"]);
        let (other, messages) = begin(&path, Some("be long"), "and?");
        assert_eq!(said(&messages)[..2], ["System: be long", "User: hi"]);
        // Both were asked at the same time, and none of it is lost.
        second.keep("because".into()).expect("keeps");
        other.keep("\"so\"".into()).expect("keeps");
        let all = read(&path, None).expect("reads");
        let expected =
            ["System: be long", "User: hi", "Assistant: hello", "User: why?", "Assistant: because", "User: and?"];
        assert_eq!(said(&all)[..6], expected);
        assert_eq!(said(&all)[6..], ["Assistant: \"so\""]);
        assert_eq!(std::fs::read_dir(folder.path()).expect("lists").count(), 1, "no temporary file is left");
    }

    #[test]
    fn an_answer_is_what_the_newest_attempt_wrote_to_its_standard_output() {
        let chunk = |attempt, stream, data: &'static [u8]| LogChunk {
            cursor: LogCursor { attempt, records: 0 },
            stream,
            offset: 0,
            at: WallTime(0),
            data: Data::new(data).expect("fits"),
        };
        let mut answer = Answer::default();
        for (attempt, stream, data) in [
            (1, OutputStream::Out, &b"half an ans"[..]),
            (2, OutputStream::Note, b"attempt 2 on local-2\n"),
            (2, OutputStream::Out, b"a whole "),
            (2, OutputStream::Err, b"a thought\n"),
            (2, OutputStream::Out, b"answer\n\n"),
        ] {
            answer.take(&chunk(attempt, stream, data));
        }
        assert_eq!(answer.text(), "a whole answer\n");
    }

    #[test]
    fn what_is_no_conversation_is_refused_with_its_line() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("chat.json");
        for (text, complaint) in [
            ("{}", "chat.json:1: invalid type: map"),
            ("[\n{\"role\": \"robot\", \"content\": \"\"}]", "chat.json:2: unknown variant `robot`"),
            ("[{\"role\": \"user\", \"content\": \"\", \"images\": []}]", "chat.json:1: unknown field `images`"),
        ] {
            std::fs::write(&path, text).expect("writes");
            let failure = Conversation::begin(path.clone(), None, "hi".into()).expect_err("refused");
            assert!(failure.message.contains(complaint) && failure.exit == 2, "{failure}");
        }
        std::fs::write(&path, " \n").expect("writes");
        assert_eq!(begin(&path, None, "hi").1.len(), 1, "an empty file is the beginning");
        std::fs::write(&path, vec![b' '; (1 << 20) + 1]).expect("writes");
        let long = Conversation::begin(path, None, "hi".into()).expect_err("refused");
        assert!(long.message.contains("has more than 1 MiB"), "{long}");
        let nowhere = folder.path().join("none/chat.json");
        assert!(Conversation::begin(nowhere, None, "hi".into()).is_err(), "no answer could be kept there");
    }

    #[test]
    fn a_link_to_a_conversation_stays_a_link() {
        let folder = tempfile::tempdir().expect("folder");
        let (real, link) = (folder.path().join("real.json"), folder.path().join("link.json"));
        std::fs::write(&real, "[]").expect("writes");
        std::os::unix::fs::symlink(&real, &link).expect("links");
        begin(&link, None, "hi").0.keep("hello".into()).expect("keeps");
        assert!(link.is_symlink());
        assert_eq!(read(&real, None).expect("reads").len(), 2);
    }
}

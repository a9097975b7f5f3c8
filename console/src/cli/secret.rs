//! Where a token comes from: a file, standard input, a person who types it, or the command line. It is wiped when dropped, and
//! never printed.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::exit::Failure;
use crate::shell::Shell;

/// Most bytes read: a token has about a hundred, and white space around it is allowed.
const TOKEN_FILE_BYTES_MAX: usize = 4096;
/// Mode bits with which others can read a file.
const READABLE_BY_OTHERS: u32 = 0o044;

/// Where to read from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A file.
    File(PathBuf),
    /// Standard input, whatever it is; a person is asked.
    Stdin,
    /// A person, or nobody.
    Person,
    /// The command line itself.
    Line(String),
}

impl Source {
    /// From the two flags, of which the parser lets only one through.
    pub(crate) fn of(file: Option<PathBuf>, token: Option<String>) -> Self {
        match (file, token) {
            (_, Some(token)) => Self::Line(token),
            (Some(path), None) if path.as_os_str() == "-" => Self::Stdin,
            (Some(path), None) => Self::File(path),
            (None, None) => Self::Person,
        }
    }
}

/// Reads the token's text. May wait for a person.
pub(crate) async fn read_token(shell: &Shell, source: Source) -> Result<Zeroizing<Vec<u8>>, Failure> {
    match source {
        Source::Line(token) => {
            shell.say(
                "warning: others on this machine can read a token on the command line (ps); better: --token-file FILE",
            );
            Ok(Zeroizing::new(token.into_bytes()))
        }
        Source::File(path) => {
            let (text, loose) = blocking(move || {
                let failed = |error| Failure::usage(format!("cannot read the token in {}: {error}", path.display()));
                let file = File::open(&path).map_err(failed)?;
                let metadata = file.metadata().map_err(failed)?;
                let loose = metadata.is_file() && metadata.mode() & READABLE_BY_OTHERS != 0;
                Ok((read_bounded(file).map_err(failed)?, loose.then_some(path)))
            })
            .await?;
            if let Some(path) = loose {
                shell.say(&format!("warning: others on this machine can read {}; it works once", path.display()));
            }
            Ok(text)
        }
        Source::Stdin if !shell.stdin_tty() => {
            blocking(|| {
                read_bounded(std::io::stdin().lock())
                    .map_err(|error| Failure::usage(format!("cannot read the token from standard input: {error}")))
            })
            .await
        }
        Source::Stdin | Source::Person if shell.can_ask() => ask().await,
        Source::Stdin | Source::Person => Err(Failure::usage("the token is missing")
            .hint("add --token-file FILE, or --token-file - to read standard input")),
    }
}

fn read_bounded(from: impl Read) -> std::io::Result<Zeroizing<Vec<u8>>> {
    // Made once at its full length: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(TOKEN_FILE_BYTES_MAX + 1));
    from.take(TOKEN_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut text)?;
    if text.len() > TOKEN_FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("it has more than {TOKEN_FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// Asks a person, who sees nothing of what is typed.
async fn ask() -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut stderr = std::io::stderr().lock();
    let asked = write!(stderr, "token (is not shown): ").and_then(|()| stderr.flush());
    asked.map_err(|error| Failure::failed(format!("cannot ask: {error}")))?;
    drop(stderr);
    // Dropped also when Ctrl-C ends the wait.
    let _silence = Silence::begin().map_err(|error| Failure::failed(format!("cannot hide what is typed: {error}")))?;
    blocking(|| {
        let mut text = Zeroizing::new(Vec::with_capacity(TOKEN_FILE_BYTES_MAX));
        let mut stdin = std::io::stdin().lock().take(TOKEN_FILE_BYTES_MAX as u64);
        std::io::BufRead::read_until(&mut stdin, b'\n', &mut text)
            .map_err(|error| Failure::failed(format!("cannot read the token: {error}")))?;
        Ok(text)
    })
    .await
}

/// While it is held, the terminal does not show what is typed.
struct Silence {
    before: Termios,
}

impl Silence {
    fn begin() -> rustix::io::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self { before })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // A terminal that is gone shows nothing anyway. The end of the line was not shown either.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
        let _ = writeln!(std::io::stderr().lock());
    }
}

/// Waits where waiting holds nothing up; whoever is stopped meanwhile leaves the thread behind.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Failure::failed(format!("a read broke: {error}")))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_whole_and_no_more_than_a_token_can_be() {
        assert_eq!(read_bounded(&b" MCJ1-x\n"[..]).expect("reads").as_slice(), b" MCJ1-x\n");
        assert!(read_bounded(std::io::repeat(b'a')).is_err(), "a stream without end is refused");
    }

    #[test]
    fn the_flags_say_where_a_token_comes_from() {
        let of =
            |file: Option<&str>, token: Option<&str>| Source::of(file.map(PathBuf::from), token.map(str::to_owned));
        assert_eq!(of(Some("-"), None), Source::Stdin);
        assert_eq!(of(Some("f"), None), Source::File("f".into()));
        assert_eq!(of(None, Some("t")), Source::Line("t".into()));
        assert_eq!(of(None, None), Source::Person);
    }
}

//! Output and input.

use modchain_agent::executor::ExecutorEvent;

use crate::harness::*;
use crate::image::{docker, engine_is_there};

#[tokio::test]
async fn a_container_runs_prints_on_two_streams_and_leaves_nothing() {
    if !engine_is_there() {
        return;
    }
    let node = Node::new();
    let script = "echo out; echo err >&2; printf 'no newline'; printf %s \"$IMAGE_SAYS $GIVEN\" >&2; exit 3";
    let story = Container::shell(script).env("GIVEN", "a b").run(&node).await;
    assert_eq!(*story.ending(), modchain_types::Ending::Exited { code: 3 });
    assert_eq!((story.out(), story.err()), ("out\nno newline", "err\nhello a b"));
    assert!(story.started && story.ran().0 > 0);
    let id = docker(&["image", "inspect", "--format", "{{.Id}}", crate::image::IMAGE]);
    assert_eq!(story.pinned.expect("pinned").as_str(), id);
}

#[tokio::test]
async fn output_comes_line_by_line_while_the_container_runs() {
    if !engine_is_there() {
        return;
    }
    let node = Node::new();
    let mut attempt =
        Container::shell("echo first; read line; echo \"got $line\"; cat; echo over").input().start(&node);
    attempt.started().await;
    assert_eq!(attempt.output_until("first\n").await, "first\n");
    let mut stdin = attempt.stdin.take().expect("it reads");
    stdin.write(b"hello\n").await.unwrap();
    assert_eq!(attempt.output_until("\n").await, "got hello\n");
    stdin.write(b"to the end").await.unwrap();
    stdin.close().await.unwrap();
    let story = attempt.story().await;
    assert_eq!(story.out(), "to the endover\n");
    assert_eq!(*story.ending(), EXITED_0);
    node.assert_clean();
}

#[tokio::test]
async fn nobody_listening_kills_the_container() {
    if !engine_is_there() {
        return;
    }
    let node = Node::new();
    let mut attempt = Container::shell("trap '' TERM; echo on; sleep 1000").start(&node);
    attempt.started().await;
    assert!(matches!(attempt.next().await, ExecutorEvent::Output { .. }));
    assert_eq!(node.containers().len(), 1);
    drop(attempt);
    let deadline = std::time::Instant::now() + PATIENCE;
    while !node.containers().is_empty() {
        assert!(std::time::Instant::now() < deadline, "the container is still there");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn output_that_fills_the_log_again_and_again_is_whole() {
    if !engine_is_there() {
        return;
    }
    let node = Node::new();
    // More than the engine's log holds, and faster than it is read: the container has to wait.
    let script = "i=0; while [ $i -lt 45 ]; do
                    yes 0123456789012345678901234567890123456789012345678901234567890 | head -c 1000000
                    sleep 0.03; i=$((i+1))
                  done; echo end >&2";
    let story = Container::shell(script).run(&node).await;
    assert_eq!(*story.ending(), EXITED_0, "{} bytes came", story.out.len());
    assert_eq!(story.err(), "end\n");
    let line = b"0123456789012345678901234567890123456789012345678901234567890\n";
    let burst: Vec<u8> = line.iter().copied().cycle().take(1_000_000).collect();
    assert!(story.out == burst.repeat(45), "{} bytes came, or others", story.out.len());
}

#[tokio::test]
async fn input_of_any_length_reaches_the_container_and_who_does_not_read_it_says_so() {
    if !engine_is_there() {
        return;
    }
    let node = Node::new();
    let mut attempt = Container::shell("md5sum; echo over").input().start(&node);
    let mut stdin = attempt.stdin.take().expect("it reads");
    let piece: Vec<u8> = (0..100_000u32).flat_map(|number| number.to_le_bytes()).collect();
    for _ in 0..20 {
        stdin.write(&piece).await.unwrap();
    }
    stdin.close().await.unwrap();
    let story = attempt.story().await;
    let mut expected = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut expected, &piece.repeat(20)).unwrap();
    let sum = std::process::Command::new("md5sum").stdin(expected.reopen().unwrap()).output().unwrap();
    assert_eq!(story.out(), format!("{}over\n", String::from_utf8(sum.stdout).unwrap()));

    let mut attempt = Container::shell("exit 0").input().start(&node);
    let mut stdin = attempt.stdin.take().expect("it could read");
    assert_eq!(*attempt.story().await.ending(), EXITED_0);
    assert!(stdin.write(&piece).await.is_err(), "nobody reads any more");
    node.assert_clean();

    // Nor is it anybody's fault when it goes on without its input, whether that is there or not.
    let mut attempt = Container::shell("exec <&-; echo on; sleep 1; exit 5").input().start(&node);
    let mut stdin = attempt.stdin.take().expect("it could read");
    attempt.started().await;
    attempt.output_until("on\n").await;
    let writing = tokio::spawn(async move { while stdin.write(&piece).await.is_ok() {} });
    assert_eq!(*attempt.story().await.ending(), modchain_types::Ending::Exited { code: 5 });
    writing.await.expect("no panic");
    let mut attempt = Container::shell("exit 6").input().start(&node);
    let _stdin = attempt.stdin.take().expect("it could read");
    assert_eq!(*attempt.story().await.ending(), modchain_types::Ending::Exited { code: 6 });
    node.assert_clean();
}

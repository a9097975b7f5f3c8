//! Arguments, environment, input and output: what goes in and what comes out.

use std::time::Duration;

use modchain_agent::executor::{ExecutorEvent, StopAs};
use modchain_types::{Ending, Span};
use modchain_wire::agent::OutputStream;

use crate::harness::*;

#[tokio::test]
async fn hello_prints_and_completes() {
    let story = Program::example("hello.wat").run().await;
    assert_eq!((story.ending(), story.out(), story.err()), (&EXITED_0, "hello\n", ""));
    assert!(story.started && story.fuel() > 0 && story.ran() > Span::ZERO, "{story:?}");
}

#[tokio::test]
async fn a_program_that_is_gone_at_once_has_still_started_and_said_everything() {
    // Many times, because which of the two is seen first is chance.
    for _ in 0..30 {
        let mut attempt = Program::example("hello.wat").start();
        // The orders go out; then the thread that all tasks here share is held until the child has come and gone.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        std::thread::sleep(Duration::from_millis(20));
        attempt.started().await;
        let story = attempt.story().await;
        assert_eq!((story.ending(), story.out()), (&EXITED_0, "hello\n"));
    }
}

#[tokio::test]
async fn primes_prints_25_or_as_many_as_asked() {
    let story = Program::example("primes.wat").run().await;
    assert_eq!(story.ending(), &EXITED_0);
    let primes: Vec<u32> = story.out().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!((primes.len(), primes[0], primes[9], primes[24]), (25, 2, 29, 97));

    let story = Program::example("primes.wat").args(&["1000"]).run().await;
    assert_eq!(story.out().lines().last(), Some("7919"));
    assert_eq!(story.out().lines().count(), 1000);
}

#[tokio::test]
async fn a_program_sees_its_arguments_and_its_environment_and_nothing_of_the_agents() {
    // Writes the sizes and the text of arguments and environment: 2 counts, 2 sizes, then the bytes.
    let source = r#"(module
      (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes_get (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func $write (param $at i32) (param $bytes i32)
        (i32.store (i32.const 0) (local.get $at))
        (i32.store (i32.const 4) (local.get $bytes))
        (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
      (func (export "_start")
        (drop (call $args_sizes_get (i32.const 16) (i32.const 20)))
        (drop (call $args_get (i32.const 1024) (i32.const 4096)))
        (call $write (i32.const 4096) (i32.load (i32.const 20)))
        (drop (call $environ_sizes_get (i32.const 16) (i32.const 20)))
        (drop (call $environ_get (i32.const 1024) (i32.const 4096)))
        (call $write (i32.const 4096) (i32.load (i32.const 20)))))"#;
    let story = Program::text(source).args(&["one", "zwei ü"]).env("COLOUR", "blue").env("A", "").run().await;
    assert_eq!(story.ending(), &EXITED_0);
    assert_eq!(story.out(), "program.wasm\0one\0zwei ü\0A=\0COLOUR=blue\0");
}

#[tokio::test]
async fn output_arrives_while_the_program_still_runs() {
    let mut attempt = Program::example("slow.wat").start();
    attempt.started().await;
    // A line comes when it is written, and together with the next one if nobody had the time to look for it before.
    let mut lines = Vec::new();
    while lines.len() < 14 {
        match attempt.next().await {
            ExecutorEvent::Output { stream: OutputStream::Out, bytes } => lines.extend_from_slice(&bytes),
            other => panic!("{other:?} and no line"),
        }
    }
    assert!(lines.starts_with(b"line 0\nline 1\n"), "{}", String::from_utf8_lossy(&lines));
    // It sleeps now: a stop must reach it there too, and not only at its next instruction.
    attempt.control.stop(StopAs::Stopped, Span::from_secs(60));
    let story = attempt.story().await;
    assert_eq!(story.ending(), &Ending::Stopped);
    assert!(story.ran() >= Span::from_millis(900) && story.fuel() > 0, "{story:?}");
}

#[tokio::test]
async fn echo_gives_back_a_mebibyte_of_input_intact() {
    let mut attempt = Program::example("echo.wat").input().start();
    let sent: Vec<u8> = (0..MIB).map(|i| (i % 251) as u8).collect();
    let mut stdin = attempt.stdin.take().unwrap();
    let writing = tokio::spawn({
        let sent = sent.clone();
        async move {
            for piece in sent.chunks(10_000) {
                stdin.write(piece).await.unwrap();
            }
            let _ = stdin.close().await;
        }
    });
    let story = attempt.story().await;
    writing.await.unwrap();
    assert_eq!(story.ending(), &EXITED_0);
    assert!(story.out == sent, "{} of {} bytes, or other ones", story.out.len(), sent.len());
}

#[tokio::test]
async fn input_reaches_the_program_line_by_line() {
    let mut attempt = Program::example("echo.wat").input().start();
    let mut stdin = attempt.stdin.take().unwrap();
    attempt.started().await;
    for line in ["one\n", "two\n"] {
        stdin.write(line.as_bytes()).await.unwrap();
        assert_eq!(attempt.next().await, ExecutorEvent::Output { stream: OutputStream::Out, bytes: line.into() });
    }
    let _ = stdin.close().await;
    assert_eq!(attempt.story().await.ending(), &EXITED_0);
}

#[tokio::test]
async fn without_input_a_program_reads_the_end_at_once() {
    let attempt = Program::example("echo.wat").start();
    assert!(attempt.stdin.is_none());
    let story = attempt.story().await;
    assert_eq!((story.ending(), story.out()), (&EXITED_0, ""));
}

#[tokio::test]
async fn input_that_nobody_reads_waits_and_is_refused_when_the_program_is_gone() {
    let program = Program::example("forever.wat").input();
    let dir = program.dir.path().to_owned();
    let mut attempt = program.start();
    let mut stdin = attempt.stdin.take().unwrap();
    attempt.started().await;
    let writing = tokio::spawn(async move {
        let piece = vec![0; 64 * 1024];
        let mut pieces = 0;
        while stdin.write(&piece).await.is_ok() {
            pieces += 1;
        }
        pieces
    });
    // Time enough for hundreds of pieces, if somebody took them.
    burn_a_little(child_in(&dir)).await;
    attempt.control.stop(StopAs::Stopped, Span::from_secs(60));
    assert_eq!(attempt.story().await.ending(), &Ending::Stopped);
    let pieces = tokio::time::timeout(PATIENCE, writing).await.unwrap().unwrap();
    // The pipe's own 64 KiB, and what the engine reads ahead for the guest.
    assert!(pieces <= 8, "{pieces} pieces went into a pipe that nobody reads");
}

#[tokio::test]
async fn a_flood_is_delivered_whole_and_in_order() {
    let story = Program::example("flood.wat").run().await;
    assert_eq!((story.ending(), story.out.len()), (&EXITED_0, 80_000_000));
    for (number, line) in story.out.chunks(8).enumerate().step_by(9_973) {
        assert_eq!(line, format!("{number:07}\n").as_bytes());
    }
}

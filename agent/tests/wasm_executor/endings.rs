//! How programs end by themselves, or cannot begin, and whose fault it is.

use modchain_agent::executor::StopAs;
use modchain_agent::executor::wasm::WasmExecutor;
use modchain_types::{Ending, Fault, Span};

use crate::harness::*;

#[tokio::test]
async fn exit_codes_come_back_as_they_are() {
    for code in [0u8, 1, 3, 125, 126, 127, 134, 137, 255] {
        let source = wat(&format!(r#"(func (export "_start") (call $proc_exit (i32.const {code})) (unreachable))"#));
        let story = Program::text(source).run().await;
        assert_eq!(story.ending(), &Ending::Exited { code });
    }
    let story = Program::example("exit3.wat").run().await;
    assert_eq!(
        (story.ending(), story.out(), story.err()),
        (&Ending::Exited { code: 3 }, "", "three things are wrong\n")
    );
}

#[tokio::test]
async fn a_trap_is_a_trap_and_says_what_and_where() {
    let story = Program::example("trap.wat").run().await;
    let Ending::Trapped { message } = story.ending() else { panic!("{story:?}") };
    assert_eq!(message.as_str(), "wasm trap: wasm `unreachable` instruction executed in function broken");
    assert!(story.started);
}

#[tokio::test]
async fn a_program_that_cannot_start_says_why_in_one_line_and_never_ran() {
    let start = r#"(func (export "_start"))"#;
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (
            format!(r#"(module (import "env" "foo" (func)) {start})"#).into(),
            "the module imports env.foo, which does not exist here: only WASI preview 1",
        ),
        (
            format!(r#"(module (import "wasi_snapshot_preview1" "fd_wriet" (func)) {start})"#).into(),
            "imports wasi_snapshot_preview1.fd_wriet, which does not exist",
        ),
        (
            format!(r#"(module (import "wasi_snapshot_preview1" "fd_write" (func)) {start})"#).into(),
            "does not fit its imports: incompatible import type for `wasi_snapshot_preview1::fd_write`",
        ),
        (b"\x80\x81\xff\xfe garbage".to_vec(), "this is not a WebAssembly module"),
        (b"int main() { return 0; }".to_vec(), "not a valid WebAssembly module: expected `(`"),
        (b"\0asm\x01\0\0\0\x07garbage".to_vec(), "not a valid WebAssembly module:"),
        (b"\0asm\x0d\0\x01\0".to_vec(), "component"),
        (Vec::new(), "empty file"),
        (b"(module)".to_vec(), "exports no function _start"),
        (br#"(module (func (export "_start") (param i32)))"#.to_vec(), "takes parameters"),
        (format!("(module (memory 2000) {start})").into(), "needs 125 MiB of memory to begin with; the job has 64 MiB"),
        (format!("(module (table 100001 funcref) {start})").into(), "table of 100001 elements"),
    ];
    for (module, expected) in cases {
        Program::text(module).run().await.assert_cannot_start(expected);
    }
    let mut too_large = Program::text(b"");
    let file = std::fs::File::create(too_large.dir.path().join("large")).unwrap();
    file.set_len((32 << 20) + 1).unwrap();
    too_large.module = too_large.dir.path().join("large");
    too_large.run().await.assert_cannot_start("larger than 32 MiB");
}

#[tokio::test]
async fn what_the_node_lacks_is_the_nodes_fault() {
    let mut missing = Program::text(b"");
    missing.module = missing.dir.path().join("not-there");
    let no_module = missing.run().await;
    let nowhere = WasmExecutor::with_program("/nonexistent/agent");
    let no_child = Program::example("hello.wat").start_with(&nowhere).story().await;
    // Something that starts, but is no agent.
    let stranger = WasmExecutor::with_program("/bin/false");
    let no_agent = Program::example("hello.wat").start_with(&stranger).story().await;
    for story in [no_module, no_child, no_agent] {
        assert!(matches!(story.ending(), Ending::CannotStart { fault: Fault::Node, .. }), "{story:?}");
        assert!(!story.started && story.ran() == Span::ZERO);
    }
}

#[tokio::test]
async fn a_child_killed_from_outside_is_the_nodes_fault() {
    let program = Program::example("forever.wat");
    let dir = program.dir.path().to_owned();
    let mut attempt = program.start();
    attempt.started().await;
    let pid = child_in(&dir);
    signal(pid, libc::SIGKILL);
    let story = attempt.story().await;
    let Ending::NodeFault { message } = story.ending() else { panic!("{story:?}") };
    assert!(message.contains("signal 9"), "{message}");
    assert!(story.ran() > Span::ZERO);
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn a_child_that_crashes_is_told_by_its_signal() {
    let program = Program::example("forever.wat");
    let dir = program.dir.path().to_owned();
    let mut attempt = program.start();
    attempt.started().await;
    signal(child_in(&dir), libc::SIGABRT);
    let abort = u8::try_from(libc::SIGABRT).unwrap();
    assert_eq!(attempt.story().await.ending(), &Ending::Signalled { signal: abort });
}

#[tokio::test]
async fn wasm_hogs_end_where_they_should_and_the_agent_goes_on() {
    let hog = Program::example("hog.wat").run().await;
    assert_eq!(hog.ending(), &Ending::MemoryLimit);
    // 64 MiB less the page it begins with.
    assert_eq!(hog.out().lines().count(), 63);

    let tables = r#"(table $t 1 funcref)
        (func (export "_start") (loop $more (drop (table.grow $t (ref.null func) (i32.const 10000))) (br $more)))"#;
    let tables = Program::text(wat(tables)).run().await;
    let Ending::Trapped { message } = tables.ending() else { panic!("{tables:?}") };
    assert!(message.contains("100000 are allowed"), "{message}");

    let recursion = r#"(func $deeper (param i64) (result i64)
          (i64.add (call $deeper (i64.add (local.get 0) (i64.const 1))) (i64.const 1)))
        (func (export "_start") (drop (call $deeper (i64.const 0))))"#;
    let recursion = Program::text(wat(recursion)).run().await;
    let Ending::Trapped { message } = recursion.ending() else { panic!("{recursion:?}") };
    assert!(message.contains("call stack exhausted"), "{message}");

    // The module's own start function is the guest's code like any other: it can be stopped.
    let early = r#"(func $loop (loop $again (br $again))) (start $loop) (func (export "_start"))"#;
    let mut early = Program::text(wat(early)).start();
    early.started().await;
    early.control.stop(StopAs::RunLimit, Span::from_secs(60));
    assert_eq!(early.story().await.ending(), &Ending::RunLimit);

    // 10 MiB of module: data, which costs little to compile.
    let large = wat(&format!(r#"(func (export "_start")) (data "{}")"#, "x".repeat(10 << 20)));
    let large = Program::text(large).run().await;
    assert_eq!(large.ending(), &EXITED_0);
}

#[tokio::test]
async fn a_module_that_declares_its_own_maximum_is_told_no_beyond_it() {
    let source = r#"(module (memory 1 2)
      (func (export "_start")
        (if (i32.ne (memory.grow (i32.const 2)) (i32.const -1)) (then (unreachable)))
        (if (i32.ne (memory.grow (i32.const 1)) (i32.const 1)) (then (unreachable)))))"#;
    assert_eq!(Program::text(source).run().await.ending(), &EXITED_0);
}

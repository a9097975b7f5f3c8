;; Complains on standard error and ends with code 3, which `modchain run` passes on.
;;   modchain run --wasm examples/exit3.wat --max-cost 0.10; echo $?
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)

  (data (i32.const 0) "\10\00\00\00\17\00\00\00")
  (data (i32.const 16) "three things are wrong\n")

  (func (export "_start")
    (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
    (call $proc_exit (i32.const 3))))

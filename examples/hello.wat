;; Prints a greeting and ends with code 0.
;;   modchain run --wasm examples/hello.wat --max-cost 0.10
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)

  ;; One buffer for fd_write at 0: where it is and how long. At 8 it answers how much was written.
  (data (i32.const 0) "\10\00\00\00\06\00\00\00")
  (data (i32.const 16) "hello\n")

  (func (export "_start")
    ;; Standard output is file 1. Any error ends the program with code 1.
    (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))
      (then (call $proc_exit (i32.const 1))))))

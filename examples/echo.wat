;; Copies standard input to standard output until its end.
;;   echo hi | modchain run --stdin --wasm examples/echo.wat --max-cost 0.10
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 2)

  ;; 0: a buffer (address, length); 8: how much was read; 12: how much was written; 65536: one page of data.
  (func (export "_start") (local $left i32)
    (loop $read
      (i32.store (i32.const 0) (i32.const 65536))
      (i32.store (i32.const 4) (i32.const 65536))
      (if (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8))
        (then (call $proc_exit (i32.const 1))))
      (local.set $left (i32.load (i32.const 8)))
      ;; Nothing read: the end of the input.
      (if (i32.eqz (local.get $left)) (then (return)))
      (loop $write
        (i32.store (i32.const 4) (local.get $left))
        (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12))
          (then (call $proc_exit (i32.const 1))))
        (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.load (i32.const 12))))
        (local.set $left (i32.sub (local.get $left) (i32.load (i32.const 12))))
        (br_if $write (local.get $left)))
      (br $read))))

;; Prints ten lines, one a second, for seeing output live and for trying out cancel.
;;   modchain run --wasm examples/slow.wat --max-cost 0.10
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)

  ;; 0: a buffer for fd_write (address, length); 8: how much it wrote; 12: how many events poll_oneoff saw;
  ;; 16: the line, its digit at 21; 64: what to wait for; 128: the event.
  (data (i32.const 0) "\10\00\00\00\07\00\00\00")
  (data (i32.const 16) "line 0\n")
  ;; At 64 a subscription of 48 bytes: tag 0 at 72 is a clock, clock 1 at 80 is the monotonic one,
  ;; at 88 stands for how long: 1,000,000,000 ns from now.
  (data (i32.const 80) "\01\00\00\00")
  (data (i32.const 88) "\00\ca\9a\3b\00\00\00\00")

  (func (export "_start") (local $line i32)
    (loop $next
      (i32.store8 (i32.const 21) (i32.add (i32.const 48) (local.get $line)))
      (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))
        (then (call $proc_exit (i32.const 1))))
      (local.set $line (i32.add (local.get $line) (i32.const 1)))
      (if (i32.lt_u (local.get $line) (i32.const 10))
        (then
          (if (call $poll_oneoff (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 12))
            (then (call $proc_exit (i32.const 1))))
          (br $next))))))

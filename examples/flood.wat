;; Prints ten million numbered lines of eight bytes, 80 MB, as fast as it can: more output than is kept of one job.
;;   modchain run --wasm examples/flood.wat --max-cost 0.10
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 2)

  ;; 0: a buffer for fd_write (address, length); 8: how much it wrote; 16: the present line as text;
  ;; 65536: 8,000 lines, which are written together.
  (data (i32.const 16) "0000000\n")

  ;; Counts the line at 16 up by one, digit by digit from the right.
  (func $count (local $at i32)
    (local.set $at (i32.const 22))
    (loop $carry
      (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 57))
        (then
          (i32.store8 (local.get $at) (i32.const 48))
          (local.set $at (i32.sub (local.get $at) (i32.const 1)))
          (br_if $carry (i32.ge_u (local.get $at) (i32.const 16)))
          (return))))
    (i32.store8 (local.get $at) (i32.add (i32.load8_u (local.get $at)) (i32.const 1))))

  (func $write_all (local $left i32)
    (i32.store (i32.const 0) (i32.const 65536))
    (local.set $left (i32.const 64000))
    (loop $more
      (i32.store (i32.const 4) (local.get $left))
      (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))
        (then (call $proc_exit (i32.const 1))))
      (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.load (i32.const 8))))
      (local.set $left (i32.sub (local.get $left) (i32.load (i32.const 8))))
      (br_if $more (local.get $left))))

  (func (export "_start") (local $block i32) (local $line i32)
    (local.set $block (i32.const 1250))
    (loop $blocks
      (local.set $line (i32.const 65536))
      (loop $lines
        (i64.store (local.get $line) (i64.load (i32.const 16)))
        (call $count)
        (local.set $line (i32.add (local.get $line) (i32.const 8)))
        (br_if $lines (i32.lt_u (local.get $line) (i32.const 129536))))
      (call $write_all)
      (local.set $block (i32.sub (local.get $block) (i32.const 1)))
      (br_if $blocks (local.get $block)))))

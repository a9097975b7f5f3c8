;; Takes a MiB of memory, writes to it, says so, and goes on until it is stopped at its memory limit.
;;   modchain run --wasm examples/hog.wat --max-cost 0.10 --memory 64MiB
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)

  (data (i32.const 0) "\10\00\00\00\06\00\00\00")
  (data (i32.const 16) "1 MiB\n")

  (func (export "_start") (local $pages i32)
    (loop $more
      ;; The pages there were before, or -1 where the language's own limit of 4 GiB is reached.
      (local.set $pages (memory.grow (i32.const 16)))
      (if (i32.eq (local.get $pages) (i32.const -1)) (then (unreachable)))
      (memory.fill (i32.mul (local.get $pages) (i32.const 65536)) (i32.const 255) (i32.const 1048576))
      (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br $more))))

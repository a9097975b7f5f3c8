;; Prints the first primes, one per line, each as soon as it is found: 25 of them, or as many as the argument says.
;;   modchain run --wasm examples/primes.wat --max-cost 0.10
;;   modchain run --wasm examples/primes.wat --max-cost 0.10 -- 1000
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)

  ;; 0: a buffer for fd_write (address, length); 8: how much it wrote; 16 and 20: count and size of the arguments;
  ;; 47: the end of a line, its digits in front of it; 64: the addresses of the arguments; 4096: their text.
  (data (i32.const 47) "\n")

  ;; How many primes: the first argument as a number, or 25 where there is none.
  (func $wanted (result i32) (local $text i32) (local $digit i32) (local $number i32)
    (drop (call $args_sizes_get (i32.const 16) (i32.const 20)))
    (if (i32.lt_u (i32.load (i32.const 16)) (i32.const 2)) (then (return (i32.const 25))))
    ;; Too many or too long for the memory here.
    (if (i32.or (i32.gt_u (i32.load (i32.const 16)) (i32.const 1000))
                (i32.gt_u (i32.load (i32.const 20)) (i32.const 60000)))
      (then (call $proc_exit (i32.const 2))))
    (drop (call $args_get (i32.const 64) (i32.const 4096)))
    (local.set $text (i32.load (i32.const 68)))
    (loop $next
      (local.set $digit (i32.sub (i32.load8_u (local.get $text)) (i32.const 48)))
      (if (i32.lt_u (local.get $digit) (i32.const 10))
        (then
          (local.set $number (i32.add (i32.mul (local.get $number) (i32.const 10)) (local.get $digit)))
          (local.set $text (i32.add (local.get $text) (i32.const 1)))
          (br $next))))
    (local.get $number))

  ;; Writes the number and a line feed.
  (func $print (param $number i32) (local $at i32)
    (local.set $at (i32.const 47))
    (loop $digit
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10))))
      (local.set $number (i32.div_u (local.get $number) (i32.const 10)))
      (br_if $digit (local.get $number)))
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (i32.sub (i32.const 48) (local.get $at)))
    (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))
      (then (call $proc_exit (i32.const 1)))))

  ;; Tries every divisor up to the square root.
  (func $is_prime (param $number i32) (result i32) (local $divisor i32)
    (local.set $divisor (i32.const 2))
    (loop $next
      (if (i32.gt_u (i32.mul (local.get $divisor) (local.get $divisor)) (local.get $number))
        (then (return (i32.const 1))))
      (if (i32.eqz (i32.rem_u (local.get $number) (local.get $divisor))) (then (return (i32.const 0))))
      (local.set $divisor (i32.add (local.get $divisor) (i32.const 1)))
      (br $next))
    (unreachable))

  (func (export "_start") (local $left i32) (local $number i32)
    (local.set $left (call $wanted))
    (local.set $number (i32.const 2))
    (loop $next
      (if (i32.eqz (local.get $left)) (then (return)))
      (if (call $is_prime (local.get $number))
        (then
          (call $print (local.get $number))
          (local.set $left (i32.sub (local.get $left) (i32.const 1)))))
      (local.set $number (i32.add (local.get $number) (i32.const 1)))
      (br $next))))

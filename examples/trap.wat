;; Reaches code that must not be reached: the job fails with a trap, not with an exit code of its own.
;;   modchain run --wasm examples/trap.wat --max-cost 0.10
(module
  (memory (export "memory") 1)
  (func $broken (unreachable))
  (func (export "_start") (call $broken)))

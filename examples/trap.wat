;; Reaches code that must not be reached: the job fails with a trap, not with an exit code of its own.
;;   modchain run examples/trap.wat
(module
  (memory (export "memory") 1)
  (func $broken (unreachable))
  (func (export "_start") (call $broken)))

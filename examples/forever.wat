;; Never ends by itself: for trying out cancel and time limits.
;;   modchain run --time-limit 5s examples/forever.wat
(module
  (memory (export "memory") 1)
  (func (export "_start")
    (loop $again (br $again))))

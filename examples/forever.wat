;; Never ends by itself: for trying out cancel and time limits.
;;   modchain run --wasm examples/forever.wat --max-cost 0.10 --time-limit 5s
(module
  (memory (export "memory") 1)
  (func (export "_start")
    (loop $again (br $again))))

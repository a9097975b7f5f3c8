;; a comment
  (; and (; a nested ;) one ;)
(module $x)

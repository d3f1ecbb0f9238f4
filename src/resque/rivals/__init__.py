"""Rivals of the index: other numbers, known before any training, that might foretell its cost.

One short file each, with one public function on plain arrays; higher always means more cost. For
a shift: `accuracy_drop`, `loss_rise`, `confidence_drop`, `atc`, `global_angle`, `mmd`, `frechet`,
`sliced_wasserstein`, `arm`. For a task: `class_mean`, `knn`, `ridge`, `logme`, `h_score`, `leep`.
`controls` counts operations and parameters, which no table may lack. `observations` is the pass
over the data that keeps what they need, and `table` computes them all. `inputs` checks what comes
in; `gram` and `transport` are the mathematics that several of them share.
"""

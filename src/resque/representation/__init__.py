"""From a model and data to representations: one pass that leaves the model as it was.

`tap` finds the layer and pools it, `stream` runs the pass, `sources` and `models` turn what
users have into batches and modules, `preprocessing` turns images into tensors, and
`signature` says what reproduces a number and what it may be compared with.
"""

"""Thin edges to other frameworks: callbacks that record the update which their trainer makes.

`lightning.UpdateCallback` is for Lightning (extra `lightning`), `transformers.UpdateCallback` for
the Hugging Face Trainer (extra `trainer`). Both forward to the plain object in `recorded`, which
nothing of a framework's goes into.
"""

"""Runs that show what the index does: shifts of images, and the demonstration on digits.

`shifts` makes data that moved by a known amount; `digits` is what `resque demo` shows.
"""

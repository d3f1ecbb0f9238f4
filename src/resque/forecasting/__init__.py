"""What the next update will cost.

`preflight` (Preflight, preflight, load_preflight) is everything that can be known before
training. Import them from `resque`; this package re-exports nothing, because the function
`preflight` would hide the module of that name.
"""

"""What the next update will cost.

`preflight` (Preflight, preflight, load_preflight) is everything that can be known before
training; import them from `resque`, because this package re-exports nothing: the function
`preflight` would hide the module of that name. `outcome` reads off a recorded curve what an update
would have come to with another target. `corpus` is the updates that come with the package.
"""

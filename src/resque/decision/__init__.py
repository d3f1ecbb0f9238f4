"""Which option to take.

`option` names what can be done (Keep, Retrain, FromScratch), `compare` puts options side by side
and finds the cheapest that reaches the target, `plan` lays out a year of updates under a budget;
import them from `resque`, because this package re-exports nothing: the functions `compare` and
`plan` would hide the modules of those names.
"""

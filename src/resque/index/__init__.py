"""From representations to one number.

`profile` (ClassProfile, profile, load_profile) is what one pass leaves behind: `sums`, filled by
`accumulation`. `shift` (ShiftIndex, shift_index, examples_needed) is RESQUE_dist; `task`
(TaskIndex, task_index) is RESQUE_task. Import them from `resque`; this package re-exports nothing,
because the function `profile` would hide the module of that name.
"""

"""For people who would rather look than read: tables on a terminal, and figures.

`terminal` shows results and what this machine has; `figures` draws them (extra `report`).
"""

"""The paper's figures and tables, the runs behind the forecasts, and the demonstration.

`shifts`, `datasets`, `tasks`, `splits`, `networks` and `text` are what is run on; a `Cell` of
`cells` is one update to be made of them, `runs` makes those that a history lacks. `designs` says
which cells are the corpus, `data_card` what is in it. `reproduce` (with `paper_claims` and
`paper_figures`) makes the paper's figures anew. `evidence` says what foretells the cost of updates,
and how well: on `situations`, by the statistics of `correlation` and the regressions of
`leave_out`; `evidence_page` and `evidence_figures` write it down. `digits` is what `resque demo`
shows.
"""

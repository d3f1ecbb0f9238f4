"""What past updates cost: the record of one measured update, and the store that keeps them all.

Public: `Update` with the records it is made of, `Accuracy` and `Plateau` (what ends an update),
`Recipe` (how it is done), and `History`.
"""

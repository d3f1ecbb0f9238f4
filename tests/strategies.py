"""Generated data: labelled representations with ids, and ways to cut them into parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst


@dataclass(frozen=True)
class Labelled:
    """Representations (examples, values), labels (examples,) and ids (examples,)."""

    representations: np.ndarray
    labels: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@st.composite
def labelled_representations(
    draw: st.DrawFn, *, most_examples: int = 24, most_values: int = 5, most_classes: int = 4
) -> Labelled:
    """Representations of 1 to 24 examples; ids may repeat, as those of one scene do."""
    n = draw(st.integers(1, most_examples))
    width = draw(st.integers(1, most_values))
    # Values of any size between 1e-6 and 1e6, so that sums have something to round.
    values = st.floats(-1e6, 1e6, width=32).map(lambda x: x if abs(x) > 1e-6 else 0.0)
    kinds = (
        st.integers(-(2**63), 2**63 - 1),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6),
    )
    ids = draw(st.lists(draw(st.sampled_from(kinds)), min_size=n, max_size=n))
    return Labelled(
        representations=draw(npst.arrays(np.float32, (n, width), elements=values)),
        labels=draw(npst.arrays(np.int64, n, elements=st.integers(0, most_classes - 1))),
        ids=np.array(ids),
    )


@st.composite
def cuts(draw: st.DrawFn, n: int) -> list[np.ndarray]:
    """Places 0 to n - 1 in any order, cut anywhere: empty parts and parts of one row included."""
    order = np.array(draw(st.permutations(range(n))))
    ends = sorted(draw(st.lists(st.integers(0, n), max_size=6)))
    return np.split(order, ends)

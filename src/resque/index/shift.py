"""RESQUE_dist: how far the same classes have moved, as a number that knows its own noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, get_args

import numpy as np
from scipy import optimize, special, stats

from resque.errors import InputError, NotComparableError, nearest
from resque.index.profile import ClassProfile
from resque.index.sums import ClassSums
from resque.notebook import shown_in_notebook
from resque.representation.signature import Signature

Labels = Literal["true", "predicted"]

# With fewer groups no p-value could be below 5 %, and the jackknife would be as coarse.
FEWEST_GROUPS = 6
# All sign patterns are tried up to this number of groups (2^15 of them), a seeded sample above.
EXACT_GROUPS = 16
_PATTERNS = 2**15


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassShift:
    """The shift of one class, in units of pi.

    Attributes:
        value: raw angle between the sums of both sides, as published.
        floor: what `value` would read with no shift at all at this sample size.
        debiased: angle free of the sample size; None where the data cannot resolve it.
        examples_before: examples on the old side.
        examples_after: examples on the new side.
    """

    value: float
    floor: float
    debiased: float | None
    examples_before: int
    examples_after: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelCost:
    """What predicted labels cost in accuracy of the index.

    Attributes:
        offset: RESQUE_dist between the old data by label and the same data by prediction:
            how far the classes as predicted lie from the true ones. None where the old data
            have no labels.
        accuracy_before: accuracy of the predictions on the old data; None likewise.
        confidence_after: mean confidence of the predictions on the new data; None if the
            profile does not hold it.
    """

    offset: float | None
    accuracy_before: float | None
    confidence_after: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ShiftIndex:
    """RESQUE_dist between two profiles, with what is needed to read it.

    `lower` and `upper` bound the debiased value, never the raw one.

    Attributes:
        value: the index as published: mean over classes of the angle between the sums of both
            sides, in units of pi, 0 to 1. method.md, equation 3.
        floor: what `value` would read with no shift at all at these sample sizes. Equation 4.
        debiased: the index free of the sample size: the angle of the mean cosine over classes,
            which is above the mean of the angles, and so above `value`, where few classes move
            much. Equation 6. None where no class is resolved.
        lower: lower bound of `debiased` at `confidence_level`; None with fewer than 6 groups.
        upper: upper bound likewise. Equation 7.
        confidence_level: of the interval.
        p_value: of the test that no class moved in direction. Equation 8. None as `lower`.
        classes: the shift of each class that both sides have.
        missing_before: classes that only the new side has.
        missing_after: classes that only the old side has.
        unresolved: classes with too few examples for a debiased value.
        examples_before: examples of the compared classes on the old side.
        examples_after: examples of the compared classes on the new side.
        labels: whether classes are true or predicted labels.
        label_cost: what predicted labels cost; None with true labels.
        accuracy_before: of the model's own output on the old data, before any retraining; None
            where it has no output for these classes, or the data have no labels.
        accuracy_after: likewise on the new data.
        warnings: what to know before quoting the number.
        signature: what reproduces it and what it may be compared with.

    Example:
        >>> from resque import profile
        >>> data = np.random.default_rng(0).normal(1, 1, (200, 8)), np.arange(200) % 2
        >>> side = profile(None, data)
        >>> shift = shift_index(side, side)
        >>> shift.value, sorted(shift.per_class), shift.missing_after
        (0.0, ['0', '1'], ())
    """

    value: float
    floor: float
    debiased: float | None
    lower: float | None
    upper: float | None
    confidence_level: float
    p_value: float | None
    classes: Mapping[str, ClassShift]
    missing_before: tuple[str, ...]
    missing_after: tuple[str, ...]
    unresolved: tuple[str, ...]
    examples_before: int
    examples_after: int
    labels: Labels
    label_cost: LabelCost | None
    accuracy_before: float | None
    accuracy_after: float | None
    warnings: tuple[str, ...]
    signature: Signature

    _repr_html_ = shown_in_notebook

    @property
    def per_class(self) -> dict[str, float]:
        """Raw value of each class."""
        return {name: shift.value for name, shift in self.classes.items()}

    @property
    def contributions(self) -> dict[str, float]:
        """Share of each class in the index, largest first; the shares add up to 1."""
        total = sum(self.per_class.values())
        shares = {name: value / total if total else 0.0 for name, value in self.per_class.items()}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, ShiftIndex):
            return NotImplemented
        self.signature.require_comparable(other.signature)
        if self.labels != other.labels:
            raise NotComparableError(
                f"One index is of {self.labels} labels, the other of {other.labels} ones; they "
                "cannot be compared."
            )
        return self.value < other.value

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON types."""
        cost = self.label_cost
        return {
            "index": "RESQUE_dist",
            "value": self.value,
            "floor": self.floor,
            "debiased": self.debiased,
            "lower": self.lower,
            "upper": self.upper,
            "confidence_level": self.confidence_level,
            "p_value": self.p_value,
            "classes": len(self.classes),
            "examples_before": self.examples_before,
            "examples_after": self.examples_after,
            "per_class": self.per_class,
            "per_class_floor": {name: shift.floor for name, shift in self.classes.items()},
            "per_class_debiased": {name: shift.debiased for name, shift in self.classes.items()},
            "contributions": self.contributions,
            "missing_before": list(self.missing_before),
            "missing_after": list(self.missing_after),
            "unresolved": list(self.unresolved),
            "labels": self.labels,
            "label_cost": cost
            and {
                "offset": cost.offset,
                "accuracy_before": cost.accuracy_before,
                "confidence_after": cost.confidence_after,
            },
            "accuracy_before": self.accuracy_before,
            "accuracy_after": self.accuracy_after,
            "warnings": list(self.warnings),
            "signature": self.signature.to_dict(),
        }

    def __str__(self) -> str:
        level = f"{self.confidence_level:.0%}"
        lines = [
            f"RESQUE_dist {self.value:.4f} (floor {self.floor:.4f}: its value without any shift)"
        ]
        if self.debiased is None:
            lines.append("debiased: unresolved, too little data")
        else:
            bounds = (
                f", {level} interval {self.lower:.4f} to {self.upper:.4f}"
                if self.lower is not None
                else ", no interval: too few groups"
            )
            lines.append(f"debiased {self.debiased:.4f}{bounds}")
        if self.p_value is not None:
            lines.append(f"test of 'nothing moved': p = {self.p_value:.2g}")
        if self.accuracy_before is not None and self.accuracy_after is not None:
            lines.append(
                f"accuracy of the model as it is: {self.accuracy_before:.4f} on the old data, "
                f"{self.accuracy_after:.4f} on the new"
            )
        if self.value > 0:
            largest = list(self.contributions.items())[:3]
            lines.append("largest shares: " + ", ".join(f"{k} {v:.0%}" for k, v in largest))
        lines += [f"warning: {text}" for text in self.warnings]
        return "\n".join([*lines, str(self.signature)])


def angle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the angle between vectors in units of pi, exact also where it is tiny.

    Twice the arctangent of |u' - v'| / |u' + v'| with u', v' the unit vectors (W. Kahan):
    arccos of the inner product loses half the digits near 0. method.md, equation 2.

    Args:
        u: (..., values).
        v: (..., values).

    Returns:
        Angles (...), 0 to 1; NaN where a vector is zero.

    Example:
        >>> float(angle(np.array([1.0, 0.0]), np.array([0.0, 2.0])))
        0.5
    """
    u, v = np.asarray(u, np.float64), np.asarray(v, np.float64)
    with np.errstate(invalid="ignore"):
        a = u / np.linalg.norm(u, axis=-1, keepdims=True)
        b = v / np.linalg.norm(v, axis=-1, keepdims=True)
    apart, together = np.linalg.norm(a - b, axis=-1), np.linalg.norm(a + b, axis=-1)
    return np.asarray(2 * np.arctan2(apart, together) / np.pi)


def shift_index(
    before: ClassProfile,
    after: ClassProfile,
    *,
    labels: Labels = "true",
    confidence_level: float = 0.9,
    common: Mapping[str, int] | None = None,
) -> ShiftIndex:
    """Return RESQUE_dist: how far the classes moved from one data set to the other, 0 to 1.

    Classes match by name; those on one side only are reported and left out. The index sees
    where class means point, and nothing else: not a change of class proportions, not a change
    that keeps the means, not a common rescaling. method.md, section 2; Sangarya and Kim,
    arXiv:2412.15511.

    Args:
        before: profile of the data that the model knows.
        after: profile of the new data, with the same model and layer.
        labels: "true", or "predicted" to use the model's own predictions on both sides, for
            new data without labels; what that costs is in the result.
        confidence_level: of the interval, above 0 and below 1.
        common: per class, how many examples both sides share, where they do and it is known.
            Only the floor uses it; the debiased value recognises shared ids by itself.

    Returns:
        The index with floor, debiased value, interval, test and signature.

    Raises:
        NotComparableError: the profiles differ in weights, layer, pooling, preprocessing or
            width, or in groups.
        InputError: no class in common, no labels, or a class whose representations sum to zero.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> from resque import profile
        >>> labels = np.arange(400) % 2
        >>> means = np.array([[3.0, 0, 0, 1], [0, 3.0, 0, 1]])
        >>> old = profile(None, (means[labels] + rng.normal(size=(400, 4)), labels))
        >>> moved = means[labels] + [0, 0, 1, 0] + rng.normal(size=(400, 4))
        >>> round(shift_index(old, profile(None, (moved, labels))).debiased, 1)
        0.1
    """
    level = checked_level(confidence_level)
    sums_before, sums_after = _sums(before, after, labels)
    names, missing_before, missing_after = _matched(before, after, sums_before, sums_after)
    shared = _checked_common(common, names)
    rows = [
        _ClassPair(
            name,
            _row(sums_before, before.class_names.index(name)),
            _row(sums_after, after.class_names.index(name)),
            shared.get(name, 0),
        )
        for name in names
    ]
    resolved = [row for row in rows if row.resolved]
    active = _active_groups(rows)
    mean_cosine = float(np.mean([row.cosine for row in resolved])) if resolved else None
    bounds = _interval(resolved, mean_cosine, active, level)
    lower, upper = (_as_index(bounds[1]), _as_index(bounds[0])) if bounds else (None, None)
    cost = _label_cost(before, after) if labels == "predicted" else None
    unresolved = tuple(row.name for row in rows if not row.resolved)
    n_before, n_after = (int(sum(row.n[side] for row in rows)) for side in (0, 1))
    return ShiftIndex(
        value=float(np.mean([row.value for row in rows])),
        floor=float(np.mean([row.floor for row in rows])),
        debiased=None if mean_cosine is None else _as_index(mean_cosine),
        lower=lower,
        upper=upper,
        confidence_level=level,
        p_value=_sign_test(resolved, active),
        classes={
            row.name: ClassShift(
                value=row.value,
                floor=row.floor,
                debiased=_as_index(row.cosine) if row.resolved else None,
                examples_before=int(row.n[0]),
                examples_after=int(row.n[1]),
            )
            for row in rows
        },
        missing_before=missing_before,
        missing_after=missing_after,
        unresolved=unresolved,
        examples_before=n_before,
        examples_after=n_after,
        labels=labels,
        label_cost=cost,
        accuracy_before=before.outputs.accuracy if before.outputs else None,
        accuracy_after=after.outputs.accuracy if after.outputs else None,
        warnings=_warnings(
            before, after, names, missing_before, missing_after, unresolved, active, cost
        ),
        signature=_signature(before, after, names, (n_before, n_after), active),
    )


def examples_needed(profile: ClassProfile, floor: float) -> dict[str, int | None]:
    """Return how many examples per class, on each side, bring the floor of the index below a value.

    method.md, equation 9. Not for classes that the profile cannot resolve itself: theirs is
    None, and a first answer needs more examples of them.

    Args:
        profile: a profile of data like those to be compared.
        floor: the floor wanted, in units of the index, above 0 and below 0.5.

    Returns:
        Class name -> number of examples needed on each side, or None.

    Raises:
        InputError: `floor` is out of range, or the profile is empty.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> from resque import profile
        >>> data = rng.normal(1, 1, (200, 8)), np.arange(200) % 2
        >>> sorted(examples_needed(profile(None, data), floor=0.02))
        ['0', '1']
    """
    if not 0 < floor < 0.5:
        raise InputError(f"floor must be above 0 and below 0.5; got {floor}.")
    sums = profile.by_label or profile.by_prediction
    if sums is None:
        raise InputError("The profile is empty; profile some data first.")
    needed: dict[str, int | None] = {}
    for place, name in enumerate(profile.class_names):
        if not sums.counts[place].sum():
            continue
        side = _Side.of(*_row(sums, place))
        if side.square <= 0:
            needed[name] = None
            continue

        def excess(log_n: float, side: _Side = side) -> float:
            return _floor(side, side, math.exp(log_n), math.exp(log_n), 0) - floor

        if excess(0.0) <= 0:
            needed[name] = 1
            continue
        high = 1.0
        while excess(high) > 0:
            high *= 2
        needed[name] = math.ceil(math.exp(optimize.brentq(excess, 0.0, high)))
    return needed


@dataclass(frozen=True, slots=True)
class _Side:
    """Estimates from one class on one side. All need two examples; see equation 4.

    Attributes:
        n: examples.
        square: unbiased estimate of the squared length of the class mean.
        across: trace of the covariance of one example across the mean's direction.
        evenness: trace squared over trace of the square of that covariance: how many
            directions share the variance. Infinite where it cannot be told.
    """

    n: float
    square: float
    across: float
    evenness: float

    @classmethod
    def of(cls, counts: np.ndarray, sums: np.ndarray, squares: np.ndarray) -> _Side:
        n = counts.sum()
        total = sums.sum(0)
        if n < 2:
            return cls(float(n), 0.0, 0.0, math.inf)
        square = (total @ total - squares.sum()) / (n * (n - 1))
        trace = max(squares.sum() / n - square, 0.0)
        used = counts > 0
        freedom = int(used.sum()) - 1
        length = np.linalg.norm(total)
        if freedom < 1 or length == 0:
            return cls(float(n), float(square), float(trace), math.inf)
        # Deviations of group means, each scaled to the covariance of one example.
        root = np.sqrt(counts[used])[:, None]
        deviations = root * (sums[used] / counts[used][:, None] - total / n)
        along = deviations @ (total / length)
        across = max(trace - float(along @ along) / freedom, 0.0)
        residual = deviations - np.outer(along, total / length)
        gram = residual @ residual.T
        observed = np.trace(gram)
        # Unbiased for the trace of the squared covariance, from a Wishart matrix.
        evenness = math.inf
        if freedom > 1:
            of_square = (gram**2).sum() - observed**2 / freedom
            of_square /= freedom * (freedom + 1) - 2
            if of_square > 0:
                evenness = max((observed / freedom) ** 2 / of_square, 1.0)
        return cls(float(n), float(square), across, float(evenness))


def _floor(before: _Side, after: _Side, n: float, m: float, common: float) -> float:
    """Return the raw index that n and m examples give when nothing has moved. Equation 4."""
    if before.square <= 0 or after.square <= 0:
        return 0.5
    spread = before.across / before.square, after.across / after.square
    shared = common * math.sqrt(spread[0] * spread[1]) / (n * m)
    a, b = spread[0] / n, spread[1] / m
    # arccos of the cosine, in a form that keeps its digits where the angle is tiny.
    across = math.sqrt(max(a + b + a * b - 2 * shared - shared**2, 0.0))
    value = math.atan2(across, 1 + shared) / math.pi
    # The mean of a root is below the root of the mean, by this much for a gamma variable whose
    # shape is half the number of directions (Satterthwaite); it fades as the angle saturates.
    inverse = 1 / before.evenness + 1 / after.evenness
    if inverse < 1e-6:
        return value
    ratio = float(special.poch(1 / inverse, 0.5)) * math.sqrt(inverse)
    return value * (1 - (1 - ratio) * math.cos(math.pi * value) ** 2)


class _ClassPair:
    """One class on both sides: its raw angle, floor, and cosine free of the sample size."""

    def __init__(
        self,
        name: str,
        before: tuple[np.ndarray, np.ndarray, np.ndarray],
        after: tuple[np.ndarray, np.ndarray, np.ndarray],
        common: int,
    ) -> None:
        self.name = name
        self.counts = np.stack([before[0], after[0]]).astype(np.float64)  # (2, groups)
        self.sums = np.stack([before[1], after[1]])  # (2, groups, values)
        self.n = self.counts.sum(1)
        totals = self.sums.sum(1)
        for total, side in zip(totals, ("old", "new"), strict=True):
            if not total.any():
                raise InputError(
                    f"The representations of class {name!r} on the {side} side add up to the "
                    "zero vector, which has no direction. Is the layer dead for these inputs?"
                )
        if common > min(self.n):
            raise InputError(
                f"common says {common} shared examples of class {name!r}; there are "
                f"{int(self.n[0])} and {int(self.n[1])}."
            )
        self.value = float(angle(*totals))
        n, m = map(float, self.n)
        self.floor = _floor(_Side.of(*before), _Side.of(*after), n, m, common)
        # Inner products of group sums: (2 x 2 sides) of (groups, groups).
        self._inner = np.einsum("agd,bhd->abgh", self.sums, self.sums, optimize=True)
        self.squares = np.array([self._cross(side, side) for side in (0, 1)])
        self.cosine = math.nan
        if min(self.squares) > 0:
            self.cosine = self._cross(0, 1) / math.sqrt(self.squares.prod())
        self.resolved = bool(np.isfinite(self.cosine))
        self.without = np.full(self.counts.shape[1], np.nan)
        if self.resolved:
            self.without = self._cosines_without()
            # A class that one group less leaves unresolved has too little data as it is.
            self.resolved = bool(np.isfinite(self.without).all())
        if self.resolved:
            # A ratio of unbiased estimates is biased, by mu' Sigma mu / (n |mu|^4) to first order;
            # the jackknife takes that out (Quenouille, 1956).
            used = self.counts.any(axis=0)
            m = int(used.sum())
            self.cosine = float(m * self.cosine - (m - 1) * self.without[used].mean())

    def _cosines_without(self) -> np.ndarray:
        """Return the debiased cosine without each group in turn (groups,). Equation 6."""
        before, after = self._crosses_without(0, 0), self._crosses_without(1, 1)
        with np.errstate(invalid="ignore"):
            cosines = self._crosses_without(0, 1) / np.sqrt(before * after)
        return np.where((before > 0) & (after > 0), cosines, np.nan)

    def differences(self, groups: np.ndarray) -> np.ndarray:
        """Return, per group, the difference of the sides across the mean (groups, values).

        Both sides are scaled to means of equal length first, and the part along the mean is
        taken out, so that a common rescaling of all activations is no shift. Equation 8.
        """
        counts, sums = self.counts[:, groups], self.sums[:, groups]
        lengths = np.sqrt(self.squares)[:, None, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.where(counts[..., None] > 0, sums / counts[..., None] / lengths, 0.0)
            weight = np.where(counts.min(0) > 0, counts.prod(0) / counts.sum(0), 0.0)
        difference = weight[:, None] * (means[0] - means[1])
        axis = (self.sums.sum(1) / self.n[:, None] / np.sqrt(self.squares)[:, None]).sum(0)
        axis /= np.linalg.norm(axis)
        return np.asarray(difference - np.outer(difference @ axis, axis))

    def _cross(self, a: int, b: int) -> float:
        """Return the mean inner product of examples from different groups; NaN without any."""
        inner, (n, m) = self._inner[a, b], self.counts[[a, b]]
        pairs = n.sum() * m.sum() - n @ m
        return float((inner.sum() - np.trace(inner)) / pairs) if pairs > 0 else math.nan

    def _crosses_without(self, a: int, b: int) -> np.ndarray:
        """Return the same without each group in turn (groups,)."""
        inner, (n, m) = self._inner[a, b], self.counts[[a, b]]
        of_group = inner.sum(0) + inner.sum(1) - 2 * inner.diagonal()
        pairs = (n.sum() - n) * (m.sum() - m) - (n @ m - n * m)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = (inner.sum() - np.trace(inner) - of_group) / pairs
        return np.where(pairs > 0, means, np.nan)


def _interval(
    resolved: Sequence[_ClassPair], mean: float | None, active: np.ndarray, level: float
) -> tuple[float, float] | None:
    """Return bounds of the mean cosine by a delete-a-group jackknife. Equation 7."""
    m = int(active.sum())
    if mean is None or m < FEWEST_GROUPS:
        return None
    replicates = np.mean([row.without for row in resolved], axis=0)[active]
    error = math.sqrt((m - 1) / m * float(((replicates - replicates.mean()) ** 2).sum()))
    reach = float(stats.t.ppf((1 + level) / 2, m - 1)) * error
    return mean - reach, mean + reach


def _sign_test(resolved: Sequence[_ClassPair], active: np.ndarray) -> float | None:
    """Return the p-value of "no class moved in direction", by flipping groups. Equation 8."""
    m = int(active.sum())
    if not resolved or m < FEWEST_GROUPS:
        return None
    gram = np.zeros((m, m))
    for row in resolved:
        difference = row.differences(active)
        gram += difference @ difference.T
    np.fill_diagonal(gram, 0.0)
    signs = _sign_patterns(m)
    flipped = np.einsum("pg,pg->p", signs @ gram, signs)
    # The first pattern flips nothing: it is the observed one, and so p is never 0.
    return float((flipped >= flipped[0] - 1e-12 * np.abs(gram).sum()).mean())


@cache
def _sign_patterns(m: int) -> np.ndarray:
    """Return patterns (patterns, m) of signs, the first without a flip.

    Flipping every group changes nothing, so the first group keeps its sign.
    """
    if m <= EXACT_GROUPS:
        bits = np.arange(2 ** (m - 1))[:, None] >> np.arange(m - 1) & 1
    else:
        bits = np.random.default_rng(0).integers(0, 2, (_PATTERNS, m - 1))
        bits[0] = 0
    return np.concatenate([np.ones((len(bits), 1)), 1.0 - 2.0 * bits], axis=1)


def _as_index(cosine: float) -> float:
    return math.acos(min(max(cosine, -1.0), 1.0)) / math.pi


def _row(sums: ClassSums, place: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return sums.counts[place], sums.sums[place], sums.squares[place]


def _active_groups(rows: Sequence[_ClassPair]) -> np.ndarray:
    """Return which groups (groups,) have examples on both sides."""
    counts = np.sum([row.counts for row in rows], axis=0)
    return np.asarray((counts > 0).all(axis=0))


def checked_level(level: float) -> float:
    """Return a confidence level, or raise InputError unless it is above 0 and below 1."""
    if not 0 < level < 1:
        hint = f" For {level:g} % say {level / 100:g}." if 1 < level <= 100 else ""
        raise InputError(f"confidence_level must be above 0 and below 1; got {level}.{hint}")
    return float(level)


def checked_label_kind(labels: str) -> None:
    """Raise InputError unless labels are "true" or "predicted"."""
    if labels not in get_args(Labels):
        raise InputError(f"labels must be 'true' or 'predicted'; got {labels!r}.")


def _checked_common(common: Mapping[str, int] | None, names: Sequence[str]) -> Mapping[str, int]:
    for name, count in (common or {}).items():
        if name not in names:
            raise InputError(f"common names the class {name!r}.{nearest(name, names)}")
        if count < 0:
            raise InputError(f"common must be 0 or more; got {count} for class {name!r}.")
    return common or {}


def _sums(before: ClassProfile, after: ClassProfile, labels: str) -> tuple[ClassSums, ClassSums]:
    for given in (before, after):
        if not isinstance(given, ClassProfile):
            raise InputError(
                f"Two profiles are compared; got a {type(given).__name__}. Make them with "
                "resque.profile, or read them with resque.load_profile."
            )
    if before.signature is None or after.signature is None:
        raise InputError("An empty profile cannot be compared; profile some data first.")
    before.signature.require_comparable(after.signature)
    if before.signature.groups != after.signature.groups:
        raise NotComparableError(
            f"The profiles have {before.signature.groups} and {after.signature.groups} groups; "
            "make both with the same number."
        )
    checked_label_kind(labels)
    sides = []
    for profile, side in ((before, "old"), (after, "new")):
        found = profile.by_label if labels == "true" else profile.by_prediction
        if found is None and labels == "true":
            raise InputError(
                f"The {side} data have no labels. Give labels, or use the model's predictions on "
                "both sides: labels='predicted' (--labels predicted)."
            )
        if found is None:
            raise InputError(
                f"The profile of the {side} data has no predictions: the model had no output for "
                "these classes, or the labels were not 0 to C - 1. Use a model whose head gives "
                "one score per class, and give class_names in its order."
            )
        sides.append(found)
    return sides[0], sides[1]


def _matched(
    before: ClassProfile, after: ClassProfile, old: ClassSums, new: ClassSums
) -> tuple[list[str], tuple[str, ...], tuple[str, ...]]:
    """Return the classes that both sides have examples of, and those of one side only."""

    def present(profile: ClassProfile, sums: ClassSums) -> list[str]:
        counts = sums.counts.sum(1)
        return [name for name, n in zip(profile.class_names, counts, strict=True) if n]

    mine, theirs = present(before, old), present(after, new)
    names = [name for name in mine if name in theirs]
    if not names:
        raise InputError(
            f"The two sides have no class in common: {_few(mine)} before, {_few(theirs)} after. "
            "Classes match by name; give class_names, or use the task index for new classes."
        )
    return (
        names,
        tuple(name for name in theirs if name not in mine),
        tuple(name for name in mine if name not in theirs),
    )


def _label_cost(before: ClassProfile, after: ClassProfile) -> LabelCost:
    offset = None
    if before.by_label is not None and before.by_prediction is not None:
        by_label, by_prediction = before.by_label.sums.sum(1), before.by_prediction.sums.sum(1)
        both = by_label.any(axis=1) & by_prediction.any(axis=1)
        if both.any():
            offset = float(angle(by_label[both], by_prediction[both]).mean())
    return LabelCost(
        offset=offset,
        accuracy_before=before.outputs.accuracy if before.outputs else None,
        confidence_after=after.outputs.mean_confidence if after.outputs else None,
    )


def _warnings(
    before: ClassProfile,
    after: ClassProfile,
    names: Sequence[str],
    missing_before: tuple[str, ...],
    missing_after: tuple[str, ...],
    unresolved: tuple[str, ...],
    active: np.ndarray,
    cost: LabelCost | None,
) -> tuple[str, ...]:
    found = list(dict.fromkeys((*before.notes, *after.notes)))
    for missing, side in ((missing_before, "new"), (missing_after, "old")):
        if missing:
            found.append(
                f"{len(missing)} classes are on the {side} side only and not in the index: "
                f"{_few(missing)}."
            )
            if cost is not None:
                found.append(
                    f"{len(missing)} classes are predicted on the {side} side only. Where a model "
                    "no longer predicts a class, predicted labels hide most of the shift."
                )
    everywhere = dict.fromkeys((*before.class_names, *after.class_names))
    nowhere = [n for n in everywhere if n not in (*names, *missing_before, *missing_after)]
    if nowhere:
        found.append(f"{len(nowhere)} classes have no examples on either side: {_few(nowhere)}.")
    if len(names) == 1:
        found.append(f"One class only, {names[0]!r}: the index is a single angle.")
    if unresolved:
        found.append(
            f"{len(unresolved)} of {len(names)} classes have too few examples for a debiased "
            f"value, and their floor may be off: {_few(unresolved)}. See examples_needed."
        )
    if active.sum() < FEWEST_GROUPS:
        found.append(
            f"Only {int(active.sum())} groups have examples on both sides; an interval and a test "
            f"need {FEWEST_GROUPS}. Give more examples, or more groups."
        )
    stated = [s.preprocessing for s in (before.signature, after.signature) if s is not None]
    if stated.count(None) == 1:
        found.append("One side does not state its preprocessing; make sure that both had the same.")
    if cost is not None:
        known = (
            f"on the old data the predictions are {cost.accuracy_before:.1%} correct and move the "
            f"classes by {cost.offset:.4f}"
            if cost.offset is not None and cost.accuracy_before is not None
            else "how wrong they are is not known, for lack of labels"
        )
        sure = (
            ""
            if cost.confidence_after is None
            else f"; mean confidence on the new data is {cost.confidence_after:.1%}"
        )
        found.append(f"Classes are predicted labels, which hide part of a shift: {known}{sure}.")
    return tuple(found)


def _signature(
    before: ClassProfile,
    after: ClassProfile,
    names: Sequence[str],
    examples: tuple[int, int],
    active: np.ndarray,
) -> Signature:
    a, b = before.signature, after.signature
    assert a is not None  # noqa: S101  # narrows the types; _sums has checked them
    assert b is not None  # noqa: S101

    def both(mine: str, theirs: str) -> str:
        return mine if mine == theirs else f"{mine} / {theirs}"

    return replace(
        a,
        index="RESQUE_dist",
        model=both(a.model, b.model),
        preprocessing=a.preprocessing or b.preprocessing,
        class_names=tuple(names),
        examples=examples,
        dtype=both(a.dtype, b.dtype),
        seed=0 if active.sum() > EXACT_GROUPS else None,
        hardware=both(a.hardware, b.hardware),
        version=both(a.version, b.version),
    )


def _few(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(name) for name in names[:limit]) + more

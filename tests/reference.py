"""Slow, obvious versions of the formulas of docs/method.md: loops over examples, one at a time.

Written from the formulas and from what the papers publish, never from the package.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Sequence
from itertools import combinations, product

import numpy as np
from scipy import stats

# One class on one side: representations (examples, values) and the group of each.
Grouped = tuple[np.ndarray, Sequence[int]]


# --- RESQUE_dist as published ------------------------------------------------------------------


def spatial_mean(maps: np.ndarray) -> np.ndarray:
    """Return the mean (examples, channels) over space of maps (examples, channels, h, w)."""
    examples, channels, height, width = maps.shape
    means = np.zeros((examples, channels))
    for i in range(examples):
        for c in range(channels):
            total = 0.0
            for y in range(height):
                for x in range(width):
                    total += float(maps[i, c, y, x])
            means[i, c] = total / (height * width)
    return means


def published_angles(
    before: tuple[np.ndarray, Sequence[int]], after: tuple[np.ndarray, Sequence[int]]
) -> dict[int, float]:
    """Return label -> angle in units of pi, by one scan of each side per class, with arccos."""
    angles = {}
    for label in sorted(set(before[1]) & set(after[1])):
        directions = []
        for representations, labels in (before, after):
            total = np.zeros(representations.shape[1])
            for representation, its_label in zip(representations, labels, strict=True):
                if its_label == label:
                    total = total + representation.astype(np.float64)
            directions.append(total / math.sqrt(sum(value * value for value in total)))
        cosine = sum(u * v for u, v in zip(*directions, strict=True))
        angles[label] = math.acos(min(1.0, max(-1.0, cosine))) / math.pi
    return angles


def published_index(
    before: tuple[np.ndarray, Sequence[int]], after: tuple[np.ndarray, Sequence[int]]
) -> float:
    """Return RESQUE_dist as published: the mean of the classes' angles."""
    angles = published_angles(before, after)
    return sum(angles.values()) / len(angles)


# --- groups ------------------------------------------------------------------------------------


def group(example: int | str, groups: int) -> int:
    """Return the group of an id: SplitMix64 of an integer, BLAKE2b of a string, modulo groups.

    SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    if isinstance(example, str):
        digest = hashlib.blake2b(example.encode(), digest_size=8).digest()
        return sum(byte << (8 * place) for place, byte in enumerate(digest)) % groups
    word = 2**64
    z = (example + 0x9E3779B97F4A7C15) % word
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % word
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % word
    return (z ^ (z >> 31)) % groups


# --- the value free of the sample size ---------------------------------------------------------


def cross_mean(a: Grouped, b: Grouped, without: int | None = None) -> float:
    """Return the mean inner product over pairs of examples from different groups."""
    total, pairs = 0.0, 0
    for x, g in zip(*a, strict=True):
        for y, h in zip(*b, strict=True):
            if g != h and without not in (g, h):
                total += sum(float(u) * float(v) for u, v in zip(x, y, strict=True))
                pairs += 1
    return total / pairs if pairs else math.nan


def plain_cosine(before: Grouped, after: Grouped, without: int | None = None) -> float:
    """Return the cosine between class means, from examples of different groups only."""
    across = cross_mean(before, after, without)
    squares = cross_mean(before, before, without), cross_mean(after, after, without)
    if not (squares[0] > 0 and squares[1] > 0):
        return math.nan
    return across / math.sqrt(squares[0] * squares[1])


def debiased_cosine(before: Grouped, after: Grouped) -> float:
    """Return the cosine less the bias of a ratio: the mean of the jackknife's pseudo-values."""
    groups = sorted({*before[1], *after[1]})
    m, plain = len(groups), plain_cosine(before, after)
    return sum(m * plain - (m - 1) * plain_cosine(before, after, g) for g in groups) / m


def jackknife_bounds(
    classes: Sequence[tuple[Grouped, Grouped]], groups: Sequence[int], confidence_level: float
) -> tuple[float, float]:
    """Return bounds of the classes' mean cosine, recomputed without each group in turn."""

    replicates = [
        sum(plain_cosine(*pair, without=g) for pair in classes) / len(classes) for g in groups
    ]
    m = len(groups)
    centre = sum(replicates) / m
    variance = (m - 1) / m * sum((one - centre) ** 2 for one in replicates)
    reach = stats.t(m - 1).ppf(0.5 + confidence_level / 2) * math.sqrt(variance)
    middle = sum(debiased_cosine(*pair) for pair in classes) / len(classes)
    return middle - reach, middle + reach


def sign_test(classes: Sequence[tuple[Grouped, Grouped]], groups: Sequence[int]) -> float:
    """Return the p-value of "nothing moved": every pattern of signs of the groups is tried.

    Per class and group: the difference of the sides' means, each side scaled to a class mean of
    length 1, weighted by n m / (n + m) and without its part along the mean direction.
    """
    differences = []  # per class, group -> vector
    for before, after in classes:
        sides = []
        for representations, members in (before, after):
            length = math.sqrt(cross_mean((representations, members), (representations, members)))
            sides.append((representations / length, np.array(members)))
        direction = sides[0][0].mean(0) + sides[1][0].mean(0)
        direction = direction / math.sqrt(direction @ direction)
        of_class = {}
        for g in groups:
            a, b = (representations[members == g] for representations, members in sides)
            difference = np.zeros(len(direction))
            if len(a) and len(b):
                difference = len(a) * len(b) / (len(a) + len(b)) * (a.mean(0) - b.mean(0))
            of_class[g] = difference - (difference @ direction) * direction
        differences.append(of_class)

    def statistic(signs: dict[int, int]) -> float:
        return 2 * sum(
            signs[g] * signs[h] * float(of_class[g] @ of_class[h])
            for of_class in differences
            for g, h in combinations(groups, 2)
        )

    observed = statistic(dict.fromkeys(groups, 1))
    scale = sum(abs(float(d[g] @ d[h])) for d in differences for g in groups for h in groups)
    patterns = [
        statistic(dict(zip(groups, (1, *signs), strict=True)))
        for signs in product((1, -1), repeat=len(groups) - 1)
    ]
    # Equal in exact arithmetic, such as the pattern and itself, counts as equal.
    return sum(one >= observed - 1e-12 * scale for one in patterns) / len(patterns)


# --- the floor ---------------------------------------------------------------------------------


def spread_and_directions(side: Grouped) -> tuple[float, float, float]:
    """Return (|mu|^2, trace of the covariance across mu, number of directions that share it).

    The trace along mu and the number of directions come from the scatter of the group means.
    """
    representations, members = side[0].astype(np.float64), np.array(side[1])
    n = len(representations)
    pairs = [float(x @ y) for x, y in combinations(representations, 2)]
    square = sum(pairs) / len(pairs)
    trace = sum(float(x @ x) for x in representations) / n - square
    mean = representations.mean(0)
    direction = mean / math.sqrt(mean @ mean)
    scatter = np.zeros((len(mean), len(mean)))
    used = sorted(set(members.tolist()))
    for g in used:
        deviation = representations[members == g].mean(0) - mean
        scatter += (members == g).sum() * np.outer(deviation, deviation)
    freedom = len(used) - 1
    across = trace - float(direction @ scatter @ direction) / freedom
    project = np.eye(len(mean)) - np.outer(direction, direction)
    scatter = project @ scatter @ project
    # The trace of a squared covariance, from a Wishart matrix W with f degrees of freedom:
    # (tr(W^2) - tr(W)^2 / f) / ((f - 1)(f + 2)).
    of_square = float((scatter @ scatter).trace()) - float(scatter.trace()) ** 2 / freedom
    of_square /= (freedom - 1) * (freedom + 2)
    directions = (float(scatter.trace()) / freedom) ** 2 / of_square if of_square > 0 else math.inf
    return square, max(across, 0.0), max(directions, 1.0)


def floor_of_sizes(
    before: tuple[float, float, float],
    after: tuple[float, float, float],
    sizes: tuple[int, int],
    common: int = 0,
) -> float:
    """Return the raw angle, in units of pi, that samples of these sizes give if nothing moved.

    `before` and `after` are what `spread_and_directions` tells of each side.
    """
    r = [across / square / n for (square, across, _), n in zip((before, after), sizes, strict=True)]
    # k equal examples on both sides add k tr(Sigma) / (n m) to the expected inner product.
    shared = common / math.sqrt(sizes[0] * sizes[1]) * math.sqrt(r[0] * r[1])
    cosine = min((1 + shared) / math.sqrt((1 + r[0]) * (1 + r[1])), 1.0)
    angle = math.acos(cosine) / math.pi
    inverse = 1 / before[2] + 1 / after[2]
    if inverse == 0:
        return angle
    # E sqrt(X) / sqrt(E X) of a gamma variable whose shape is half the number of directions.
    shape = 1 / inverse
    root = math.exp(math.lgamma(shape + 0.5) - math.lgamma(shape)) / math.sqrt(shape)
    return angle * (1 - (1 - root) * cosine**2)


def floor(before: Grouped, after: Grouped, common: int = 0) -> float:
    """Return the raw angle that these samples would give if nothing had moved, in units of pi."""
    sides = spread_and_directions(before), spread_and_directions(after)
    return floor_of_sizes(*sides, (len(before[0]), len(after[0])), common)


# --- RESQUE_task -------------------------------------------------------------------------------


def adjusted_rand_index(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Return the adjusted Rand index of two labellings, by looking at every pair of examples."""
    both = one = two = pairs = 0
    for i, j in combinations(range(len(first)), 2):
        together = first[i] == first[j], second[i] == second[j]
        both += all(together)
        one += together[0]
        two += together[1]
        pairs += 1
    expected = one * two / pairs
    most = (one + two) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


def lloyd(
    representations: np.ndarray, labels: Sequence[int], tolerance: float = 1e-4
) -> tuple[list[int], list[int]]:
    """Return (first assignment, last assignment) of a k-means that starts at the class means.

    It ends when no example changes its cluster, or when the squared moves of all centres
    together are at most `tolerance` times the mean variance of the values. No cluster may empty.
    """
    values = representations.astype(np.float64)
    names = sorted(set(labels))
    centres = [
        np.mean([z for z, label in zip(values, labels, strict=True) if label == name], axis=0)
        for name in names
    ]

    def assigned() -> list[int]:
        return [min(range(len(names)), key=lambda k: sum((z - centres[k]) ** 2)) for z in values]

    first = clusters = assigned()
    for _ in range(300):
        moved = [
            np.mean([z for z, own in zip(values, clusters, strict=True) if own == k], axis=0)
            for k in range(len(names))
        ]
        distance = sum(sum((new - old) ** 2) for new, old in zip(moved, centres, strict=True))
        centres = moved
        before, clusters = clusters, assigned()
        if clusters == before or distance <= tolerance * values.var(axis=0).mean():
            break
    return first, clusters

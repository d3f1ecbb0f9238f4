"""Which updates are made for the corpus: a seeded fraction of all combinations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice, product

import numpy as np

from resque.experiments.cells import Cell, settings_of

SEED = 20261121
# Set aside before the first run, to be looked at once the forecast's choices are made: every cell
# of one family of networks, of one data set, and of one kind of shift, each with three seeds.
HELD_NETWORK, HELD_DATA, HELD_SHIFT = "densenet", "tiny_imagenet_food", "contrast"
HELD_SEEDS = (0, 1, 2)

NETWORKS = ("resnet18", "vgg16", "vit", "mobilenet_v2")
DATA = ("mnist", "fashion_mnist", "emnist_letters", "cifar10", "gtsrb")
SHIFTS = (
    "gaussian_noise", "shot_noise", "impulse_noise", "salt_and_pepper", "gaussian_blur",
    "brightness",
)  # fmt: skip
LEVELS = (1, 2, 3, 4, 5)
RECIPES = ("gentle", "fast")
EXAMPLES = (300, 900)
# What a network knows, and what it is to know; in the last five more than before.
TASKS = (
    ("mnist", "emnist_letters"),
    ("emnist_letters", "mnist"),
    ("mnist", "fashion_mnist"),
    ("fashion_mnist", "mnist"),
    ("fashion_mnist", "cifar10"),
    ("cifar10", "fashion_mnist"),
    ("cifar10", "gtsrb"),
    ("gtsrb", "cifar10"),
    ("emnist_letters", "gtsrb"),
    ("gtsrb", "emnist_letters"),
    ("cifar10", "cifar100_coarse_mini"),
    ("cifar10", "mnist"),
    ("digits_signs", "digits_signs_vehicles"),
    ("vehicles", "vehicles_animals"),
    ("mnist", "digits_letters"),
    ("mnist", "digits_clothes"),
)
_TEXTS = (("ag_news", "trec"), ("trec", "ag_news"))
# How many of all combinations are drawn.
_PER_LEVEL, _PER_TASK = 7, 7
_SHIFTS_AGAIN, _TASKS_AGAIN = 36, 12  # with two more seeds
_SHIFTS_FROM_SCRATCH, _TASKS_FROM_SCRATCH = 40, 32


def corpus_design() -> tuple[Cell, ...]:
    """Return the cells of the corpus, in the order in which they are run.

    The order is random, so that whatever part of them has been run is a sample of all.

    Example:
        >>> cells = corpus_design()
        >>> len(cells), len({cell.key for cell in cells})
        (653, 653)
    """
    rng = np.random.default_rng(SEED)
    shifts = list(_shifts(rng))
    tasks = list(_tasks(rng))
    cells = [
        *shifts,
        *_again(rng, shifts, _SHIFTS_AGAIN),
        *(_cell(*combination, shift="", level=0) for combination in _drawn(rng, 10)),
        *_from_scratch(rng, shifts, _SHIFTS_FROM_SCRATCH),
        *tasks,
        *_again(rng, tasks, _TASKS_AGAIN),
        *_from_scratch(rng, tasks, _TASKS_FROM_SCRATCH),
        *_texts(),
        *_held_out(rng),
    ]
    return tuple(cells[place] for place in rng.permutation(len(cells)))


def digest(cells: Sequence[Cell]) -> str:
    """Return 16 hex digits that stand for these cells in this order, and for how they are run."""
    lines = "\n".join(f"{cell.key}|{cell.held_out}|{settings_of(cell)}" for cell in cells)
    return hashlib.blake2b(lines.encode(), digest_size=8).hexdigest()


def _drawn(rng: np.random.Generator, n: int) -> list[tuple[str, str, str, int]]:
    combinations = list(product(NETWORKS, DATA, RECIPES, EXAMPLES))
    return [combinations[place] for place in rng.permutation(len(combinations))[:n]]


def _cell(network: str, data: str, recipe: str, examples: int, *, shift: str, level: int) -> Cell:
    return Cell(
        network=network, old=data, new=data, shift=shift, level=level, recipe=recipe,
        examples=examples,
    )  # fmt: skip


def _shifts(rng: np.random.Generator) -> Iterator[Cell]:
    # One round through all combinations before any comes again: each is drawn equally often.
    stream = cycle(_drawn(rng, len(NETWORKS) * len(DATA) * len(RECIPES) * len(EXAMPLES)))
    for shift, level in product(SHIFTS, LEVELS):
        for combination in islice(stream, _PER_LEVEL):
            yield _cell(*combination, shift=shift, level=level)


def _tasks(rng: np.random.Generator) -> Iterator[Cell]:
    for old, new in TASKS:
        combinations = list(product(NETWORKS, RECIPES, EXAMPLES))
        for place in rng.permutation(len(combinations))[:_PER_TASK]:
            network, recipe, examples = combinations[place]
            yield Cell(
                network=network, old=old, new=new, start="head", recipe=recipe, examples=examples
            )


def _again(rng: np.random.Generator, cells: Sequence[Cell], n: int) -> Iterator[Cell]:
    for place in rng.permutation(len(cells))[:n]:
        for seed in (1, 2):
            yield replace(cells[place], seed=seed)


def _from_scratch(rng: np.random.Generator, cells: Sequence[Cell], n: int) -> Iterator[Cell]:
    # Both recipes become the same one, so only one of two such cells is taken.
    different = {
        cell.key: cell
        for cell in (replace(cell, start="scratch", recipe="scratch") for cell in cells)
    }
    found = list(different.values())
    for place in rng.permutation(len(found))[:n]:
        yield found[place]


def _texts() -> Iterator[Cell]:
    for old, new in _TEXTS:
        for examples, seed in product(EXAMPLES, range(3)):
            yield Cell(
                network="minilm", size="full", old=old, new=new, start="head", recipe="head only",
                examples=examples, seed=seed,
            )  # fmt: skip
        tuned = Cell(
            network="minilm", size="full", old=old, new=new, start="head", recipe="fine-tuned",
            examples=300,
        )  # fmt: skip
        yield from (tuned, replace(tuned, seed=1), replace(tuned, old=new, start="weights"))


def _held_out(rng: np.random.Generator) -> Iterator[Cell]:
    def several(cells: Sequence[Cell], n: int) -> Iterator[Cell]:
        for place in rng.permutation(len(cells))[:n]:
            for seed in HELD_SEEDS:
                yield replace(cells[place], seed=seed)

    sides = list(product(RECIPES, EXAMPLES))
    yield from several(
        [
            replace(_cell(HELD_NETWORK, data, *side, shift=shift, level=level), held_out="network")
            for data, side, shift, level in product(DATA, sides, SHIFTS, LEVELS)
        ],
        10,
    )
    yield from several(
        [
            Cell(
                network=HELD_NETWORK, old=old, new=new, start="head", recipe=recipe,
                examples=examples, held_out="network",
            )
            for (old, new), (recipe, examples) in product(TASKS, sides)
        ],
        4,
    )  # fmt: skip
    yield from several(
        [
            replace(_cell(network, HELD_DATA, *side, shift=shift, level=level), held_out="data")
            for network, side, shift, level in product(NETWORKS, sides, SHIFTS, LEVELS)
        ],
        12,
    )
    yield from several(
        [
            Cell(
                network=network, old=old, new=new, start="head", recipe=recipe,
                examples=examples, held_out="data",
            )
            for network, (old, new), (recipe, examples) in product(
                NETWORKS, (("cifar10", HELD_DATA), (HELD_DATA, "cifar10")), sides
            )
        ],
        4,
    )  # fmt: skip
    for level in LEVELS:
        yield from several(
            [
                replace(_cell(*combination, shift=HELD_SHIFT, level=level), held_out="shift")
                for combination in product(NETWORKS, DATA, RECIPES, EXAMPLES)
            ],
            3,
        )

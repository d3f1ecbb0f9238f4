"""What `retrain` with all its measures takes on top of the barest loop that trains the same."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from torch import Tensor, nn

import resque
from barest_loop import trained
from inputs import MEAN, SEED, STD, cifar10, pixels_of, random_model
from measurement import paired, ratio_cell

DEVICES = ("cpu", "cuda")
TITLE = "`retrain` with all measures, against the barest loop"
BOUND = 1.03

ABOUT = """\
Seconds of `resque.retrain(...)` with the codecarbon meter open, divided by those of
benchmarks/barest_loop.py, which makes the same steps and validations with the same seed and
measures nothing. CIFAR-10 at 32 px, batch 32, Adam. `retrain` takes torch's fused Adam. The barest
loop is timed with the same one, with which the validation accuracies of both are compared, and are
equal on the CPU; and with Adam as torch gives it by default, with which they differ by rounding.
Both copy the model first. On a GPU the data lie there for both.
"CPU seconds" is the ratio of the processor time of all threads, in which other programs on the
machine do not show.
"""
COLUMNS = (
    "model",
    "Adam of the barest loop",
    "steps",
    "accuracies: retrain / barest",
    "seconds: retrain / barest",
    "CPU seconds",
    "ratio",
)


def measure(device: torch.device, *, quick: bool) -> list[dict[str, Any]]:
    """Return one cell per model."""
    images, labels, _ = cifar10("train")
    test, test_labels, _ = cifar10("test")
    on_gpu = device.type == "cuda"
    training, validation = (
        (((pixels_of(x) - MEAN) / STD).to(device), torch.as_tensor(y, dtype=torch.int64).to(device))
        for x, y in ((images, labels), (test, test_labels))
    )
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(3072, 64), nn.ReLU(), nn.Linear(64, 10))
    resnet = 8000 if on_gpu else 3200
    cells = []
    for fused in (True, False):
        cells += [
            _cell(
                "ResNet-18", random_model("resnet18", 10), training, validation, device,
                fused=fused, examples=resnet // (4 if quick else 1), pairs=2 if quick else 5,
                bound=BOUND,
            ),
            _cell(
                "MLP of 197,000 weights", mlp, training, validation, device,
                fused=fused, examples=8000 // (4 if quick else 1), pairs=2 if quick else 9,
                bound=None,
            ),
        ]  # fmt: skip
    return cells


def _cell(
    what: str,
    model: nn.Module,
    training: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    device: torch.device,
    *,
    fused: bool,
    examples: int,
    pairs: int,
    bound: float | None,
) -> dict[str, Any]:
    model = model.to(device)
    training = training[0][:examples], training[1][:examples]
    validation = validation[0][: examples // 4], validation[1][: examples // 4]
    epochs = 1
    recipe = resque.Recipe(max_epochs=epochs, seed=SEED)
    found: dict[str, list[float]] = {}
    with resque.open_meter("codecarbon") as meter:

        def measured() -> None:
            # A target out of reach: both loops run for the same number of epochs.
            result = resque.retrain(
                model, training, validation, target=resque.Accuracy(1.0), recipe=recipe,
                meter=meter, grid="FRA", progress=False,
            )  # fmt: skip
            found["retrain"] = [point.accuracy for point in result.update.curve]

        def barest() -> None:
            found["barest"] = trained(model, training, validation, recipe, epochs, fused=fused)[1]

        measured()
        barest()
        timing = paired(measured, barest, pairs=pairs, device=device)
    same = found["retrain"] == found["barest"]
    assert same or not fused or device.type == "cuda", f"the loops did different work: {found}"
    return {
        "what": what,
        "fused": fused,
        "steps": epochs * -(-examples // recipe.batch_size),
        "same": same,
        "accuracies": [found["retrain"][-1], found["barest"][-1]],
        "timing": timing,
        "at_most": bound,
        "reached": timing["ratio"]["median"],
    }


def line(cell: dict[str, Any]) -> list[str]:
    """Return what one cell says under `COLUMNS`."""
    timing = cell["timing"]
    ours_s, bare_s = map(statistics.median, (timing["first_s"], timing["second_s"]))
    return [
        f"{cell['what']}, 32 px",
        "fused" if cell["fused"] else "torch's default",
        str(cell["steps"]),
        "{:.4f} / {:.4f}".format(*cell["accuracies"]),
        f"{ours_s:.2f} / {bare_s:.2f}",
        f"{timing['cpu_ratio']:.3f}",
        ratio_cell(timing),
    ]

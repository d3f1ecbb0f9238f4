"""How long a comparison of real models for a new task takes, and its repetition."""

from __future__ import annotations

import io
import os
import tempfile
import time
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inputs import AbsentError, efficientnet_lite0
from resque.cli import main
from resque.errors import InputError
from resque.experiments.cells import Cell, base
from resque.experiments.tasks import task_data
from resque.representation.sampling import stratified_sample

if TYPE_CHECKING:
    import torch
    from torch import nn

DEVICES = ("cpu",)
TITLE = "A comparison of five models for a new task"
OLD, NEW = "cifar10", "gtsrb"
TRAINING, VALIDATION = 900, 300
NETWORKS = ("resnet18", "vgg16", "mobilenet_v2", "vit")
AT_MOST_S = 300.0

ABOUT = f"""\
`resque compare` for {TRAINING} traffic signs (GTSRB): four narrow networks that the experiments
trained on CIFAR-10, and EfficientNet-Lite0 at 112 px with its real weights, each to be retrained
with a fresh classifier. Images are read, prepared and passed through each
model, and a few steps are tried; then the same command once more, which finds all that was known.
Starting Python is not in it. The training of the four networks before it is not timed.
"""
COLUMNS = ("what", "options", "answer", "seconds")

_FILE = (
    """\
training = "new.npz"
validation = "held-out.npz"
accuracy = 0.6
by = "hours"
image_size = 32
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]

[recipe]
start = "head"
max_epochs = 20
validation_interval = 0.5
"""
    + "".join(
        f"""
[[option]]
name = "{name}"
do = "retrain"
model = "{__name__}:{name}"
"""
        for name in NETWORKS
    )
    + f"""
[[option]]
name = "efficientnet_lite0"
do = "retrain"
model = "{__name__}:lite0"
image_size = 112
"""
)


def _trained(name: str) -> nn.Module:
    cell = Cell(network=name, old=OLD, new=NEW, start="head")
    return base(cell, Path(os.environ["RESQUE_BENCH_BASES"]))


def resnet18() -> nn.Module:
    """Return the network that the experiments trained."""
    return _trained("resnet18")


def vgg16() -> nn.Module:
    """Return the network that the experiments trained."""
    return _trained("vgg16")


def mobilenet_v2() -> nn.Module:
    """Return the network that the experiments trained."""
    return _trained("mobilenet_v2")


def vit() -> nn.Module:
    """Return the network that the experiments trained."""
    return _trained("vit")


def lite0() -> nn.Module:
    """Return the network that was published, for ImageNet."""
    return efficientnet_lite0()


def measure(device: torch.device, *, quick: bool) -> list[dict[str, Any]]:  # noqa: ARG001
    """Return two cells: the first comparison, and its repetition."""
    try:
        data = task_data(NEW)
    except InputError as error:
        raise AbsentError(str(error)) from error
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        os.environ.setdefault("RESQUE_BENCH_BASES", folder)
        for name in NETWORKS:
            _trained(name)
        lite0()
        for file, (images, labels), examples in (
            ("new.npz", data.training, TRAINING // (3 if quick else 1)),
            ("held-out.npz", data.test, VALIDATION // (3 if quick else 1)),
        ):
            places = stratified_sample(labels, examples, seed=0)
            np.savez(file, x=images[places].transpose(0, 2, 3, 1), y=labels[places])
        Path("options.toml").write_text(_FILE, encoding="utf-8")
        return [_cell("first"), _cell("once more")]


def _cell(what: str) -> dict[str, Any]:
    out, err = io.StringIO(), io.StringIO()
    start = time.perf_counter()
    with redirect_stdout(out), redirect_stderr(err):
        status = main(["compare", "options.toml", "--meter", "none"])
    seconds = time.perf_counter() - start
    assert status in (0, 1), err.getvalue()
    return {
        "what": what,
        "options": len(NETWORKS) + 2,
        "answer": out.getvalue().partition(":")[0] if status == 0 else "none reaches it",
        "unit": "s",
        "reached": seconds,
        "at_most": AT_MOST_S if what == "first" else None,
    }


def line(cell: dict[str, Any]) -> list[str]:
    """Return what one cell says under `COLUMNS`."""
    return [cell["what"], str(cell["options"]), cell["answer"], f"{cell['reached']:.0f}"]

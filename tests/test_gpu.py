"""On a GPU the numbers are those of the processor, and the model stays where it is."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import resque
from resque import ClassProfile, InputError
from resque.representation.signature import hardware_name

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]

# float32 sums in another order; TF32, which keeps 10 bits, is switched off below.
RTOL = 1e-4


@pytest.fixture(autouse=True)
def _full_precision() -> Iterator[None]:
    kept = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = kept


@pytest.fixture
def network() -> nn.Module:
    """A small convolutional classifier of 5 classes, with all that has a state."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(32, 5),
    )


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    """Images (300, 3, 16, 16) in 5 classes, on the processor."""
    labels = torch.arange(300) % 5
    return torch.randn(300, 3, 16, 16) + labels[:, None, None, None], labels


def assert_same_profile(expected: ClassProfile, actual: ClassProfile) -> None:
    assert expected.class_names == actual.class_names
    for part in ("by_label", "by_prediction"):
        one, other = getattr(expected, part), getattr(actual, part)
        np.testing.assert_array_equal(other.counts, one.counts)
        np.testing.assert_allclose(other.squares, one.squares, rtol=RTOL)
        # Sums may cancel, so their error is measured by the size of what was added.
        scale = np.abs(one.sums).max()
        np.testing.assert_allclose(other.sums, one.sums, rtol=RTOL, atol=RTOL * scale)
    np.testing.assert_array_equal(actual.outputs.counts, expected.outputs.counts)
    np.testing.assert_array_equal(actual.outputs.correct, expected.outputs.correct)
    np.testing.assert_allclose(actual.outputs.loss, expected.outputs.loss, rtol=RTOL)
    assert actual.outputs.histogram.sum() == expected.outputs.histogram.sum()


@pytest.mark.parametrize("data_are_on", ["cpu", "cuda"])
def test_the_profile_on_a_gpu_is_that_of_the_processor(
    network: nn.Module, data: tuple[Tensor, Tensor], data_are_on: str
) -> None:
    """Counts exactly, sums to rounding; the data may be on either side."""
    expected = resque.profile(network, data)
    network.cuda()
    inputs, labels = (tensor.to(data_are_on) for tensor in data)
    found = resque.profile(network, (inputs, labels))
    assert_same_profile(expected, found)
    assert expected.signature is not None
    assert found.signature is not None
    assert expected.signature.differences(found.signature) == []
    assert expected.signature.weights == found.signature.weights
    assert found.signature.hardware == torch.cuda.get_device_name()
    assert found.signature.hardware == hardware_name(torch.device("cuda"))
    shift = resque.shift_index(expected, found)
    assert shift.value < RTOL


def test_the_model_stays_where_it_is(network: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    """On its device, in its modes, with its values; both random states are as before."""
    network.cuda().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    states = torch.get_rng_state(), torch.cuda.get_rng_state()
    resque.profile(network, data)
    assert {"cuda"} == {tensor.device.type for tensor in network.state_dict().values()}
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert torch.equal(states[0], torch.get_rng_state())
    assert torch.equal(states[1], torch.cuda.get_rng_state())


@pytest.mark.parametrize("place", [0, 70, 299])
def test_the_example_that_is_not_finite_is_named_on_a_gpu_too(
    network: nn.Module, data: tuple[Tensor, Tensor], place: int
) -> None:
    """Although values there are looked at now and then only."""
    inputs, labels = data
    inputs[place, 1, 2, 3] = torch.nan
    network.cuda()
    for compute in (resque.profile, resque.task_index):
        with pytest.raises(InputError, match=f"of example {place} contains NaN or infinity"):
            compute(network, (inputs, labels), batch_size=8)


@pytest.fixture
def _one_gigabyte() -> Iterator[None]:
    """Let this process have so much of the GPU's memory and no more."""
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(1e9 / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.usefixtures("_one_gigabyte")
def test_a_batch_that_does_not_fit_into_memory_says_what_to_do(network: nn.Module) -> None:
    """Smaller batches do the same pass."""
    network.cuda()
    # 0.25 GB of images, of which the first convolution makes 1.3 GB.
    images, labels = torch.zeros(20, 3, 1024, 1024), torch.arange(20) % 5
    with pytest.raises(InputError, match="--batch-size"):
        resque.profile(network, (images, labels), batch_size=20)
    assert resque.profile(network, (images, labels), batch_size=2).examples == 20


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_on_a_gpu(
    network: nn.Module, data: tuple[Tensor, Tensor], dtype: torch.dtype
) -> None:
    """Close to full precision, and named in the signature."""
    network.cuda()
    expected, found = resque.profile(network, data), resque.profile(network, data, autocast=dtype)
    assert expected.by_label is not None
    assert found.by_label is not None
    # Eight bits of each value, averaged over 60 examples per class.
    scale = np.abs(expected.by_label.sums).max()
    np.testing.assert_allclose(found.by_label.sums, expected.by_label.sums, atol=2**-7 * scale)
    assert found.signature is not None
    assert f"(autocast {str(dtype).removeprefix('torch.')})" in found.signature.dtype


# --- updates ------------------------------------------------------------------------------------


def _task(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose class is the brightest of their three channels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(240) % 3
    images = torch.randn(240, 3, 8, 8, generator=generator)
    images += 0.5 * torch.eye(3)[labels][:, :, None, None]
    return images.to(device), labels.to(device)


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 3),
    )  # fmt: skip


@pytest.mark.parametrize("autocast", [None, "bfloat16", "float16"])
def test_an_update_on_the_gpu_costs_what_it_costs_on_the_cpu(autocast: str | None) -> None:
    """Norms and changes agree, scaled losses or not, to the precision of the arithmetic."""
    recipe = resque.Recipe(max_epochs=1, autocast=autocast, learning_rate=1e-3)
    found = {}
    for name in ("cpu", "cuda"):
        images, labels = _task(torch.device("cpu"))
        data = (images[:160], labels[:160]), (images[160:], labels[160:])
        given = recipe if name == "cuda" else resque.Recipe(max_epochs=1, learning_rate=1e-3)
        result = resque.retrain(
            _network().to(name), *data, target=resque.Accuracy(1.0), recipe=given, meter="none"
        )
        assert next(result.model.parameters()).device.type == name
        found[name] = result.update
    # bfloat16 has eight bits of mantissa.
    close = 1e-3 if autocast is None else 0.1
    for measure in ("gradient_norm", "gradient_norm_last_batch", "parameter_change"):
        expected = getattr(found["cpu"], measure)
        assert getattr(found["cuda"], measure) == pytest.approx(expected, rel=close)
    assert found["cuda"].hardware.device == "cuda"


def test_the_random_state_of_the_gpu_is_left_as_it_was() -> None:
    """Training seeds every GPU, and puts them back."""
    images, labels = _task(torch.device("cuda"))
    before = torch.cuda.get_rng_state()
    resque.retrain(
        _network(), (images[:80].cpu(), labels[:80].cpu()), (images[80:].cpu(), labels[80:].cpu()),
        target=resque.Accuracy(1.0), recipe=resque.Recipe(max_epochs=0.5), meter="none",
    )  # fmt: skip
    assert torch.equal(before, torch.cuda.get_rng_state())


def test_the_meter_reads_the_counter_of_the_gpu() -> None:
    """A second of work on the GPU takes joules, from a counter, and more than a second of none."""
    x = torch.randn(4096, 4096, device="cuda")
    with resque.open_meter("codecarbon") as meter:
        gauges = {gauge.name: gauge for gauge in meter.describe()}
        assert gauges["gpu"].source == "counter"
        with meter.window("idle") as idle:
            time.sleep(2)
        with meter.window("work") as work:
            end = time.perf_counter() + 2
            while time.perf_counter() < end:
                x = (x @ x).clamp(-1, 1)
    used = {
        name: next(c.joules for c in window.components if c.name == "gpu")
        for name, window in (("idle", idle), ("work", work))
    }
    assert used["idle"] is not None
    assert used["work"] is not None
    assert used["work"] > used["idle"] > 0

"""What one pass sees example by example, held in memory for the rivals that need more than sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from resque.errors import InputError
from resque.index.profile import GROUPS, ClassProfile, profile_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from resque.representation.stream import Batch

# Raw images are compared at this size at most: beyond it neighbours cost more and say no more.
_SIDE = 32


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Observations:
    """One data set as a model sees it, example by example, and its profile, from one pass.

    Attributes:
        profile: all that the index needs.
        representations: (examples, values) float32.
        labels: (examples,) int64, places in the profile's class names; None without labels.
        probabilities: of the model's own output, (examples, outputs) float32, whatever its
            outputs stand for; None where it gives no class scores.
        pixels: raw inputs (examples, values) float32, images averaged down to 32 x 32 at most;
            None where the inputs are no images or vectors of numbers, or nobody asked.
        maps: the last map or tokens before pooling, flattened, (sampled, values) float32; None
            where the model has none, where its size differs between batches, where the model has
            its tokens first (`batch_first=False`), or nobody asked.
        layers: name of each layer with weights -> its outputs averaged over space or tokens,
            (sampled, units) float32, or all of its rows where a row is no example, as of a layer
            that works on windows; without those that have their tokens first; empty unless asked
            for.
        sampled: places (sampled,) of the examples in `maps` and `layers`; None for all.
    """

    profile: ClassProfile
    representations: np.ndarray
    labels: np.ndarray | None
    probabilities: np.ndarray | None
    pixels: np.ndarray | None
    maps: np.ndarray | None
    layers: Mapping[str, np.ndarray]
    sampled: np.ndarray | None = None


def observe(
    model: nn.Module,
    data: Any,
    *,
    maps: bool = True,
    layers: bool = False,
    sampled: np.ndarray | None = None,
    layer: str | None = None,
    pooling: str = "auto",
    class_names: Sequence[str] | None = None,
    ids: Sequence[Any] | np.ndarray | None = None,
    groups: int = GROUPS,
    batch_size: int = 64,
    autocast: torch.dtype | None = None,
    model_name: str | None = None,
    preprocessing: str | None = None,
    progress: bool = True,
) -> Observations:
    """Return what one pass of a model over data sees, example by example.

    All of it is held in memory: give a sample of large data.

    Args:
        model: see `resque.profile`, as is all that is not told here.
        data: likewise.
        maps: also keep the raw inputs and the last map, which the rivals for a task look at.
        layers: also keep the outputs of every layer with weights.
        sampled: places in the data (sampled,), ascending, of the examples whose last map and
            layers are kept; None for all. A map is often the largest part of what is kept.
        layer: see `resque.profile`.
        pooling: likewise.
        class_names: likewise.
        ids: likewise.
        groups: likewise.
        batch_size: likewise.
        autocast: likewise.
        model_name: likewise.
        preprocessing: likewise.
        progress: likewise.

    Raises:
        InputError: see `resque.profile`; an input that is not finite is told by its id. Or
            `sampled` is not ascending.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
        >>> seen = observe(model, (torch.randn(20, 4), torch.arange(20) % 2))
        >>> seen.representations.shape, seen.probabilities.shape, seen.maps
        ((20, 8), (20, 2), None)
    """
    from resque.representation.sources import as_source
    from resque.representation.stream import Stream

    if sampled is not None:
        sampled = np.asarray(sampled)
    if sampled is not None and (
        sampled.dtype.kind not in "iu" or (np.diff(sampled, prepend=-1) <= 0).any()
    ):
        raise InputError(
            "sampled must be places in the data, 0 or more, each above the one before."
        )
    source = as_source(data, class_names=class_names, ids=ids, batch_size=batch_size)
    stream = Stream(
        model,
        source,
        layer=layer,
        pooling=pooling,
        autocast=autocast,
        model_name=model_name,
        preprocessing=preprocessing,
        progress=progress,
    )
    kept: dict[str, list[Any]] = {"representations": [], "labels": [], "scores": []}
    inside: nn.Module = stream.model  # type: ignore[assignment]  # a model was given

    def keep(batch: Batch) -> None:
        kept["representations"].append(batch.representations.float().cpu())
        kept["labels"].append(batch.labels)
        kept["scores"].append(None if batch.logits is None else batch.logits.float().cpu())
        look.end_of_batch(len(batch.representations))

    with _Look(inside, maps=maps, layers=layers, sampled=sampled) as look:
        try:
            profile = profile_of(stream, groups, keep)
        except InputError as error:
            not_finite = look.not_finite()
            if not_finite is None:
                raise
            (name,) = source.ids_of(not_finite, 1)
            which = f"example {name}" if source.ids is None else f"the example with id {name}"
            raise InputError(
                f"The input of {which} contains NaN or infinity. Mend it, or leave it out."
            ) from error
    if sampled is not None and len(sampled) and sampled[-1] >= profile.examples:
        raise InputError(
            f"sampled has the place {sampled[-1]}, and there are {profile.examples} examples."
        )
    labels = _joined(kept["labels"])
    scores = _joined(kept["scores"])
    return Observations(
        profile=profile,
        representations=_joined(kept["representations"]),  # type: ignore[arg-type]
        labels=None if labels is None else _places(labels, source.class_names, profile),
        probabilities=None if scores is None else _probabilities(scores),
        pixels=_joined(look.pixels),
        maps=_joined(look.maps),
        sampled=sampled,
        layers={name: np.concatenate(parts) for name, parts in look.layers.items()},
    )


class _Look:
    """Hooks that see what goes into a model, its last map, and, if asked, all of its layers."""

    def __init__(
        self, model: nn.Module, *, maps: bool, layers: bool, sampled: np.ndarray | None
    ) -> None:
        self.model, self.all_maps, self.all_layers = model, maps, layers
        self.sampled = sampled
        self.pixels: list[Any] = []
        self.maps: list[Any] = []
        self.layers: dict[str, list[np.ndarray]] = {}
        self._before = 0  # examples in the batches that are over
        self._finite: list[tuple[int, Tensor]] = []  # first place of a batch, which of it are
        self._means: dict[str, Tensor] = {}  # of this batch, as `layers`
        self._map: Tensor | None = None
        self._called: dict[str, int] = {}
        self._handles: list[Any] = []
        # (tokens, batch, values) inside of such a model, where nothing tells which axis is which.
        self._sequence_first = any(
            getattr(module, "batch_first", True) is False for module in model.modules()
        )

    def __enter__(self) -> _Look:
        self._handles.append(
            self.model.register_forward_pre_hook(self._before_model, with_kwargs=True)
        )
        for name, module in self.model.named_modules():
            if name:
                self._handles.append(module.register_forward_hook(self._after(name, module)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def end_of_batch(self, examples: int) -> None:
        """Keep the last map and the layers of a batch of so many examples."""
        places: Any = slice(None)
        if self.sampled is not None:
            first, end = np.searchsorted(self.sampled, (self._before, self._before + examples))
            places = (self.sampled[first:end] - self._before).tolist()
        for name, means in self._means.items():
            # Only of a layer that gives one row per example is it known which is whose.
            chosen = means[places] if len(means) == examples else means
            self.layers.setdefault(name, []).append(chosen.float().cpu().numpy())
        last = self._map if self._map is not None and len(self._map) == examples else None
        self.maps.append(None if last is None else last[places].flatten(1).float().cpu())
        self._before += examples
        self._map = None
        self._means.clear()
        self._called.clear()

    def not_finite(self) -> int | None:
        """Return the place of the first example whose input was not finite."""
        places = (
            start + int((~finite).nonzero()[0])
            for start, finite in self._finite
            if not finite.all()
        )
        return min(places, default=None)

    def _before_model(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        from torch import Tensor

        given = [*args, *kwargs.values()]
        tensors = [part for part in given if isinstance(part, Tensor) and part.ndim]
        for part in tensors:
            # Before the model can write into it; on a GPU it is looked at only if something is
            # wrong. What has other rows than the first of them is not of the examples one by one.
            finite = _finite(part)
            if finite is not None and len(part) == len(tensors[0]):
                self._finite.append((self._before, finite))
        self.pixels.append(_pixels(given[0]) if self.all_maps and given else None)

    def _after(self, name: str, module: nn.Module) -> Callable[..., None]:
        from torch import Tensor, nn

        linear = isinstance(module, nn.Linear)
        weighted = linear or isinstance(module, nn.modules.conv._ConvNd)

        def hook(_: nn.Module, __: tuple[Any, ...], result: Any) -> None:
            if not isinstance(result, Tensor) or not result.is_floating_point():
                return
            if self._sequence_first and result.ndim == 3:
                return
            # A map of one place is a vector, which pooling has made already.
            if self.all_maps and result.ndim >= 3 and result.shape[2:].numel() > 1:
                self._map = result
            if self.all_layers and weighted and result.ndim >= 2:
                # A layer that is called again in the same run is another one, as in a loop.
                again = self._called[name] = self._called.get(name, 0) + 1
                axes = range(1, result.ndim - 1) if linear else range(2, result.ndim)
                key = name if again == 1 else f"{name} ({again})"
                # Of all examples, since to pick some first is to copy their maps; and a copy, since
                # an activation may write into what it is given.
                self._means[key] = result.mean(tuple(axes)) if axes else result.clone()

        return hook


def _pixels(given: Any) -> Tensor | None:
    """Return inputs as (batch, values), images averaged down to 32 x 32; None if they are none."""
    from torch import Tensor
    from torch.nn import functional

    if not isinstance(given, Tensor) or not given.is_floating_point() or given.ndim < 2:
        return None
    values = given.detach().float()
    if values.ndim == 4 and max(values.shape[-2:]) > _SIDE:
        height, width = values.shape[-2:]
        size = min(_SIDE, height), min(_SIDE, width)
        values = functional.adaptive_avg_pool2d(values, size)
    return values.flatten(1).cpu()


def _finite(given: Tensor) -> Tensor | None:
    """Return for each example (batch,) whether its input is finite; None if all are."""
    from torch import isfinite

    if not given.is_floating_point() or not given.numel():
        return None
    rows = given.detach().flatten(1) if given.ndim > 1 else given.detach().reshape(-1, 1)
    # The sum of all is quick, and settles it nearly always; on a GPU to look at it is to wait.
    if rows.device.type == "cpu" and isfinite(rows.sum()):
        return None
    # Quicker than to look at each value; NaN is both the least and the greatest.
    least, greatest = rows.aminmax(dim=1)
    return isfinite(least) & isfinite(greatest)


def _probabilities(scores: np.ndarray) -> np.ndarray:
    # As in `Accumulation`: an output that sums to one already is taken as it is.
    if (scores >= 0).all() and np.allclose(scores.sum(1), 1, atol=1e-3, rtol=0):
        return scores
    from scipy.special import softmax

    return np.asarray(softmax(scores, axis=1))


def _places(labels: np.ndarray, names: Sequence[str] | None, profile: ClassProfile) -> np.ndarray:
    """Return labels as places in the class names of a profile."""
    if names is not None:
        return labels
    place = {name: k for k, name in enumerate(profile.class_names)}
    seen, inverse = np.unique(labels, return_inverse=True)
    return np.array([place[str(label)] for label in seen.tolist()])[inverse]


def _joined(parts: list[Any]) -> np.ndarray | None:
    """Return the parts of all batches as one array; None where they do not fit together."""
    if not parts or any(part is None for part in parts):
        return None
    if len({part.shape[1:] for part in parts}) > 1:
        return None
    return np.concatenate([part.numpy() for part in parts])

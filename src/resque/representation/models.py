"""Where models come from: timm, torchvision or a user's factory, with weights that were named."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from resque.errors import InputError, in_words, missing_extra, nearest
from resque.representation.preprocessing import Preprocessing, preprocessing_of_timm


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A model in eval mode, its name, and the preprocessing that it brings along, if any."""

    model: nn.Module
    name: str
    preprocessing: Preprocessing | Callable[[Any], Tensor] | None


def load_model(
    spec: str,
    *,
    weights: str | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> LoadedModel:
    """Return the model that a command line names.

    Args:
        spec: "timm:NAME", "torchvision:NAME" or "package.module:factory". A factory takes no
            arguments and returns a module, or a pair (module, preprocessing) where
            preprocessing turns a PIL image into a tensor. The command line also looks for the
            module in the current folder.
        weights: a `.safetensors` file, or a file that `torch.save` wrote of a state dict;
            "cached" for pretrained weights that are already on this machine; "random". Only a
            factory may do without.
        device: where the model is put, such as "cpu" or "cuda".
        seed: seed of random weights.

    Raises:
        InputError: the model, the weights or the device is not there, or they do not fit.
        MissingExtraError: timm or torchvision is not installed.
    """
    origin, separator, name = spec.partition(":")
    if not separator or not name or not origin:
        raise InputError(
            f"The model {spec!r} is not understood; expected timm:NAME, torchvision:NAME or "
            "package.module:factory."
        )
    where = _checked_device(device)
    if weights is None and origin in ("timm", "torchvision"):
        raise InputError(
            f"Which weights for {spec!r}? Say --weights FILE, --weights cached or --weights random."
        )
    state = None
    if weights is not None and weights not in ("cached", "random"):
        state = load_weights(weights)
    if origin == "timm":
        loaded = _from_timm(name, weights, state, seed)
    elif origin == "torchvision":
        loaded = _from_torchvision(name, weights, state, seed)
    else:
        if weights == "cached":
            raise InputError(
                f"--weights cached is for timm and torchvision; the factory {spec!r} brings its "
                "own weights or takes a file."
            )
        loaded = _from_factory(origin, name, spec, seed)
        if state is not None:
            fit_weights(loaded.model, state)
    loaded.model.eval().to(where)
    return loaded


def untrained_like(spec: str, seed: int = 0) -> Callable[[], nn.Module] | None:
    """Return what makes an untrained model; None for a factory, which brings its own weights.

    Args:
        spec: see `load_model`.
        seed: of the random weights.
    """
    if spec.partition(":")[0] not in ("timm", "torchvision"):
        return None
    return lambda: load_model(spec, weights="random", seed=seed).model


def load_weights(path: Path | str) -> dict[str, Tensor]:
    """Return the tensors of a weight file, on the CPU; nothing in the file is executed.

    Args:
        path: a `.safetensors` file, or a file that `torch.save` wrote. A checkpoint that holds
            the weights under "state_dict", "model_state_dict" or "model" is understood, and so
            are names that begin with "module." or "_orig_mod.".

    Raises:
        InputError: there is no such file, it is damaged, holds more than tensors, or could run
            code when read.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder; expected a weight file.")
    if not path.is_file():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(
            f"There is no weight file {str(path)!r}.{nearest(path.name, siblings)} Expected a "
            "file, 'cached' or 'random'."
        )
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return _state_dict(load_file(path), path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"The weight file {str(path)!r} is damaged ({error}).") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"The weight file {str(path)!r} holds pickled objects other than tensors. Reading "
            "them could run code, so it was refused and nothing was executed. Save the weights "
            "alone: torch.save(model.state_dict(), FILE), or as .safetensors."
        ) from error
    except Exception as error:  # broken bytes lead the reader anywhere
        reason = in_words(error)
        raise InputError(
            f"The weight file {str(path)!r} cannot be read ({reason}). Save it anew."
        ) from error
    return _state_dict(content, path)


def fit_weights(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load weights into a model, all of them, or raise an error that names the keys.

    Raises:
        InputError: keys are missing, left over, or of another shape.
    """
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    surplus = [key for key in state if key not in own]
    shapes = [
        f"{key} is {tuple(state[key].shape)}, the model needs {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    problems = []
    if missing:
        problems.append(f"{len(missing)} keys are missing ({_first(missing)})")
    if surplus:
        problems.append(f"{len(surplus)} keys are left over ({_first(surplus)})")
    if shapes:
        problems.append(f"{len(shapes)} shapes differ ({_first(shapes)})")
    if problems:
        raise InputError(
            f"The weights do not fit the model {type(model).__name__}: {'; '.join(problems)}. "
            "Give the weights of this very architecture, or build it in a factory "
            "(package.module:factory)."
        )
    model.load_state_dict(dict(state))


def _from_timm(
    name: str, weights: str | None, state: dict[str, Tensor] | None, seed: int
) -> LoadedModel:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise missing_extra("timm", "vision") from error
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise InputError(f"timm has no model {name!r}.{nearest(name, timm.list_models())}")
    known = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in known:
        raise InputError(f"timm has no weights {name!r}.{nearest(name, known)}")

    def build(**options: Any) -> nn.Module:
        made: nn.Module = _seeded(
            seed, lambda: timm.create_model(name, pretrained=False, **options)
        )
        return made

    model = build()
    config = cast("Mapping[str, Any]", model.pretrained_cfg)
    if weights == "cached":
        state = load_weights(_cached_by_hub(name, config))
    if state is not None:
        model = _with_classes(model, build, state)
        fit_weights(model, state)
    return LoadedModel(model=model, name=name, preprocessing=preprocessing_of_timm(config))


def _cached_by_hub(name: str, config: Mapping[str, Any]) -> Path:
    from huggingface_hub import try_to_load_from_cache

    repository = config.get("hf_hub_id")
    for filename in ("model.safetensors", "pytorch_model.bin"):
        found = repository and try_to_load_from_cache(str(repository), filename)
        if isinstance(found, str):
            return Path(found)
    raise InputError(
        f"No pretrained weights of timm:{name} are on this machine, and none are fetched over "
        f"the network. Fetch {repository or 'them'} yourself and give --weights FILE."
    )


def _from_torchvision(
    name: str, weights: str | None, state: dict[str, Tensor] | None, seed: int
) -> LoadedModel:
    try:
        from torchvision import models
    except ModuleNotFoundError as error:
        raise missing_extra("torchvision", "vision") from error
    known = models.list_models(module=models)
    if name not in known:
        raise InputError(f"torchvision has no classifier {name!r}.{nearest(name, known)}")
    published = models.get_model_weights(name).DEFAULT

    def build(**options: Any) -> nn.Module:
        made: nn.Module = _seeded(seed, lambda: models.get_model(name, weights=None, **options))
        return made

    if weights == "cached":
        file = Path(torch.hub.get_dir()) / "checkpoints" / published.url.rpartition("/")[2]
        if not file.is_file():
            raise InputError(
                f"No pretrained weights of torchvision:{name} are on this machine (looked for "
                f"{str(file)!r}), and none are fetched over the network. Give --weights FILE."
            )
        state = load_weights(file)
    # These two warn unless told whether to use an initialisation that takes a minute.
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    if weights == "cached" and options:
        options["transform_input"] = True  # as the published weights of these two want it
    model = build(**options)
    if state is not None:
        model = _with_classes(model, lambda **more: build(**options, **more), state)
        fit_weights(model, state)
    preset = published.transforms()
    crop, resize = preset.crop_size[0], preset.resize_size[0]
    return LoadedModel(
        model=model,
        name=name,
        preprocessing=Preprocessing(
            image_size=(crop, crop),
            resize_to=resize,
            mean=tuple(preset.mean),
            std=tuple(preset.std),
            interpolation=preset.interpolation.value,
        ),
    )


def _from_factory(module_name: str, name: str, spec: str, seed: int) -> LoadedModel:
    if module_name.startswith("."):
        raise InputError(f"The module of {spec!r} is relative; give its whole name.")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module can fail in any way
        raise InputError(
            f"The module {module_name!r} of {spec!r} cannot be imported "
            f"({in_words(error)}). It must be installed, or "
            "lie in the current folder."
        ) from error
    factory = getattr(module, name, None)
    if not callable(factory):
        known = [key for key, value in vars(module).items() if callable(value)]
        raise InputError(
            f"{module_name!r} has no function {name!r}.{nearest(name, known)}"
            if factory is None
            else f"{spec!r} is a {type(factory).__name__}; expected a function that returns a "
            "torch.nn.Module."
        )
    try:
        made = _seeded(seed, factory)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # and so can a user's factory
        raise InputError(
            f"The factory {spec!r} failed ({in_words(error)}). It is called without arguments "
            "and returns a torch.nn.Module."
        ) from error
    model, preprocessing = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, nn.Module) or not (preprocessing is None or callable(preprocessing)):
        raise InputError(
            f"{spec!r} returned a {type(made).__name__}; expected a torch.nn.Module, or a pair "
            "(module, preprocessing)."
        )
    return LoadedModel(model=model, name=name, preprocessing=preprocessing)


def _with_classes(
    model: nn.Module, build: Callable[..., nn.Module], state: Mapping[str, Tensor]
) -> nn.Module:
    """Return the model with as many classes as the weights have; they say it, nobody guesses."""
    heads = [
        (name, module.weight)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))
    ]
    for name, own in reversed(heads):
        weight = state.get(f"{name}.weight")
        if weight is not None and weight.shape[1:] == own.shape[1:]:
            same = len(weight) == len(own)
            return model if same else build(num_classes=len(weight))
    return model


def _seeded(seed: int, make: Callable[[], Any]) -> Any:
    with torch.random.fork_rng([]):  # models are built on the CPU
        torch.manual_seed(seed)
        return make()


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise InputError(
            f"{str(path)!r} holds a {type(content).__name__}; expected the state dict of a model."
        )
    bad = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if bad:
        raise InputError(
            f"{str(path)!r} is no state dict: {bad[0]!r} is no tensor. Expected one tensor per "
            "name, or a checkpoint with them under 'state_dict'."
        )
    state = {str(key): value for key, value in content.items()}
    # Wrappers of torch.compile and data parallelism can lie in each other in any order.
    while prefix := next(
        (p for p in ("_orig_mod.", "module.") if all(key.startswith(p) for key in state)), ""
    ):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _checked_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        raise InputError(
            f"The device {name!r} cannot be used here; `resque doctor` lists what can."
        ) from error
    return device


def _first(keys: list[str], limit: int = 3) -> str:
    more = f", and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more

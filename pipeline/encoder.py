"""A fine-tuned transformer as an ONNX graph: from documents to log-odds, without PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MAX_TOKENS = 256
"""Tokens read at once; a longer synopsis is read in windows, and its strongest window counts."""
_OVERLAP = 64
_BATCH_TOKENS = 4096
_INSTALL = (
    "the accurate model needs more libraries; install them with: pip install forewarn[neural]"
)


@dataclass(frozen=True)
class Encoder:
    """The folder of `encoder.onnx` and `tokenizer.json`; they are loaded when first used."""

    folder: Path

    def log_odds(
        self, documents: Sequence[str], read: Callable[[int], None] = lambda _: None
    ) -> FloatArray:
        """(n, tags) log-odds, not yet calibrated, of cleaned documents (title, newline, synopsis).

        Args:
            documents: what to read.
            read: told the number of windows read since the last call.

        Raises:
            ModelError: a library is missing, or the graph cannot be run.
        """
        windows, owners = [], []
        for document, ids in enumerate(to_ids(self._tokenizer, documents)):
            for window in _windows(ids):
                windows.append(window)
                owners.append(document)
        logits: FloatArray | None = None
        for rows in _batches([len(window) for window in windows]):
            padded, mask = _pad([windows[row] for row in rows])
            found = self._session.run(None, {"ids": padded, "mask": mask})[0]
            if logits is None:
                logits = np.full((len(documents), found.shape[1]), -np.inf)
            np.maximum.at(logits, [owners[row] for row in rows], found)
            read(len(rows))
        return logits if logits is not None else np.zeros((0, self.tags))

    @property
    def tags(self) -> int:
        """The number of tags that the graph scores."""
        return int(self._session.get_outputs()[0].shape[1])

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self.folder / "tokenizer.json")

    @cached_property
    def _session(self) -> Any:
        try:
            import onnxruntime
        except ImportError as error:
            raise ModelError(_INSTALL) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            return onnxruntime.InferenceSession(
                str(self.folder / "encoder.onnx"), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's errors share no base class of their own.
            raise ModelError(
                f"{self.folder}: encoder.onnx cannot be run; train it again"
            ) from error


def load_tokenizer(path: Path) -> Any:
    """The WordPiece tokenizer in a `tokenizer.json`, without truncation or padding.

    Raises:
        ModelError: the library is missing, or the file is no tokenizer.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ModelError(_INSTALL) from error
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # The library raises bare exceptions.
        raise ModelError(f"{path}: is no tokenizer; train the model again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def to_ids(tokenizer: Any, documents: Sequence[str]) -> list[list[int]]:
    """Token ids of documents, each as the pair of its title and its synopsis."""
    pairs = [document.partition("\n")[::2] for document in documents]
    return [encoding.ids for encoding in tokenizer.encode_batch(pairs)]


def _windows(ids: list[int]) -> list[list[int]]:
    """The ids in pieces that overlap, each with the first and the last id of the whole."""
    if len(ids) <= MAX_TOKENS:
        return [ids]
    inside, width = ids[1:-1], MAX_TOKENS - 2
    starts = range(0, len(inside) - _OVERLAP, width - _OVERLAP)
    return [[ids[0], *inside[start : start + width], ids[-1]] for start in starts]


def _batches(lengths: list[int]) -> list[list[int]]:
    """Rows of like length together, as many as `_BATCH_TOKENS` allows."""
    batches: list[list[int]] = []
    for row in np.argsort(lengths, kind="stable")[::-1]:
        if not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > _BATCH_TOKENS:
            batches.append([])
        batches[-1].append(int(row))
    return batches


def _pad(tokens: list[list[int]]) -> tuple[IntArray, IntArray]:
    ids = np.zeros((len(tokens), max(map(len, tokens))), dtype=np.int64)
    for row, known in enumerate(tokens):
        ids[row, : len(known)] = known
    lengths = np.array([len(known) for known in tokens])
    return ids, (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)

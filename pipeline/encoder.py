"""A fine-tuned transformer as an ONNX graph: from documents to log-odds, without PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError

FloatArray = npt.NDArray[np.float64]

MAX_TOKENS = 256
"""Tokens read at once; a longer synopsis is read in windows, and its strongest window counts."""
_OVERLAP = 64
_INSTALL = (
    "the accurate model needs more libraries; install them with: pip install forewarn[neural]"
)


@dataclass(frozen=True)
class Encoder:
    """The folder of `encoder.onnx` and `tokenizer.json`; they are loaded when first used.

    `threads` is how many of them compute; 0 for one a core. The figures are the same.
    """

    folder: Path
    threads: int = 0

    def log_odds(self, documents: Sequence[str]) -> FloatArray:
        """(n, tags) log-odds, not yet calibrated, of cleaned documents (title, newline, synopsis).

        Raises:
            ModelError: a library is missing, or the graph cannot be run.
        """
        logits = [
            # One window at a time: the 8-bit graph scales its activations by all that it is given,
            # so a document's figures would depend on its neighbours, and it is no faster.
            np.max([self._run(window) for window in _windows(ids)], axis=0)
            for ids in to_ids(self._tokenizer, documents)
        ]
        return np.array(logits, dtype=np.float64).reshape(len(logits), self.tags)

    @property
    def tags(self) -> int:
        """The number of tags that the graph scores."""
        return int(self._session.get_outputs()[0].shape[1])

    def _run(self, ids: list[int]) -> FloatArray:
        window, session = np.array([ids], dtype=np.int64), self._session
        try:
            found = session.run(None, {"ids": window, "mask": np.ones_like(window)})[0]
        except Exception as error:  # ONNX Runtime's errors share no base class of their own.
            raise self._unusable() from error
        return np.asarray(found[0], dtype=np.float64)

    def _unusable(self) -> ModelError:
        return ModelError(f"{self.folder}: encoder.onnx cannot be run; train it again")

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
        options.intra_op_num_threads = self.threads
        try:
            return onnxruntime.InferenceSession(
                str(self.folder / "encoder.onnx"), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's errors share no base class of their own.
            raise self._unusable() from error


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

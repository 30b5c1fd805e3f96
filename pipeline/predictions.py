"""What a model says of a labelled corpus, row by row, beside what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pipeline.corpus import Corpus
from pipeline.decision import PROFILES, FloatArray
from pipeline.evaluation import Evaluation, evaluate, evaluate_each
from pipeline.model import AnyModel, Model

BoolArray = npt.NDArray[np.bool_]
LabelArray = npt.NDArray[np.int8]
Progress = Callable[[int, int], None]
_CHUNK, _SLOW_CHUNK = 2000, 100
"""Rows read at a time; fewer by an accurate model, so that its progress shows."""


@dataclass(frozen=True)
class Predictions:
    """Probabilities and suggestions for each row of a corpus, and by whom they were made.

    Attributes:
        corpus: the rows, with their labels, works, files and catalogues.
        tags: ids of the columns.
        probabilities: (n, tags) calibrated probabilities.
        suggested: (n, tags) suggestions by profile (or by `threshold P`).
        threshold: the P of such suggestions.
    """

    corpus: Corpus
    tags: tuple[str, ...]
    probabilities: FloatArray
    suggested: dict[str, BoolArray]
    threshold: float | None = None

    @cached_property
    def labels(self) -> LabelArray:
        """(n, tags) label states of the model's tags; see `Corpus`."""
        index = self.corpus.taxonomy.index
        return self.corpus.labels[:, [index[tag] for tag in self.tags]]

    def evaluate(self, profile: str) -> Evaluation:
        """The figures of one set of suggestions."""
        suggested = self.suggested[profile]
        return evaluate(self.tags, self.probabilities, suggested, self.labels, self.corpus.works)

    def evaluations(self) -> dict[str, Evaluation]:
        """The figures of every set of suggestions."""
        return evaluate_each(
            self.tags, self.probabilities, self.suggested, self.labels, self.corpus.works
        )


def learnt_from(model: AnyModel, corpus: Corpus, name: str) -> tuple[str, ...]:
    """A remark on each file of a corpus that the model was trained on, by checksum."""
    learnt = set(model.provenance.get("data", {}).values())
    return tuple(
        f"{name} was trained on {file}: its figures there are too good"
        for file, checksum in corpus.fingerprints.items()
        if checksum in learnt
    )


def predict_corpus(
    model: AnyModel,
    corpus: Corpus,
    threshold: float | None = None,
    progress: Progress | None = None,
) -> Predictions:
    """What a model says of each row of a corpus of its own taxonomy, in every profile.

    With a `threshold`, the suggestions of that probability come first.
    """
    chunk = _CHUNK if isinstance(model, Model) else _SLOW_CHUNK
    parts = []
    for start in range(0, len(corpus), chunk):
        parts.append(model.predict_proba(corpus.documents[start : start + chunk]))
        if progress:
            progress(min(start + chunk, len(corpus)), len(corpus))
    probabilities = np.concatenate(parts)
    suggested = {profile: model.decide(probabilities, profile) for profile in PROFILES}
    if threshold is not None:
        own = {f"threshold {threshold:g}": model.decide(probabilities, threshold=threshold)}
        suggested = own | suggested
    return Predictions(corpus, model.tags, probabilities, suggested, threshold)

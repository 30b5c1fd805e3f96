"""The accurate tier: a linear model and a fine-tuned transformer that decide together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.decision import FloatArray, Thresholds, close, sigmoid
from pipeline.encoder import Encoder
from pipeline.errors import ModelError
from pipeline.features import word_spans
from pipeline.model import Model, WordWeights, strongest, suggest
from pipeline.taxonomy import Taxonomy

AUTO_MARGIN = 1.5
"""`auto` reads again what the linear part puts within so many log-odds of a threshold."""
_CHUNK = 3
_MAX_CHUNKS = 60


@dataclass(frozen=True)
class AccurateModel:
    """A model that blends the log-odds of its linear part with those of its transformer.

    Attributes:
        linear: the linear part, a model of its own; it has this model's thresholds.
        encoder: the transformer.
        share: (tags,) what the transformer counts in the blend, 0 to 1.
        slope, intercept: (tags,) what calibrates the blended log-odds.
        provenance: how the model was made: versions, data, counts, figures.
        margin: None to read every document with both parts. Else a document of which the linear
            part is sure (each tag's log-odds lie further than this from its balanced threshold)
            is left to it alone.
    """

    linear: Model
    encoder: Encoder
    share: FloatArray
    slope: FloatArray
    intercept: FloatArray
    provenance: dict[str, Any] = field(default_factory=dict)
    margin: float | None = None

    suggest = suggest

    @property
    def taxonomy(self) -> Taxonomy:
        """What the tags mean."""
        return self.linear.taxonomy

    @property
    def folder(self) -> Path | None:
        """Where it was loaded from."""
        return self.linear.folder

    @property
    def tags(self) -> tuple[str, ...]:
        """Ids of the tags that the model knows, in the taxonomy's order."""
        return self.linear.tags

    @property
    def thresholds(self) -> Thresholds:
        """Probabilities from which a tag is suggested, by profile."""
        return self.linear.thresholds

    def log_odds(self, documents: Sequence[str]) -> FloatArray:
        """(n, tags) calibrated log-odds of cleaned documents (title, newline, synopsis)."""
        logits = self.linear.log_odds(documents)
        rows = np.arange(len(documents)) if self.margin is None else self._unsure(logits)
        if not len(rows):
            return logits
        logits[rows] = self._blend([documents[row] for row in rows], logits[rows])
        return logits

    def predict_proba(self, documents: Sequence[str]) -> FloatArray:
        """(n, tags) probabilities of cleaned documents; no broader tag below a narrower one."""
        return close(sigmoid(self.log_odds(documents)), self.linear.implications)

    def decide(
        self, probabilities: FloatArray, profile: str = "balanced", threshold: float | None = None
    ) -> npt.NDArray[np.bool_]:
        """(n, tags) which tags to suggest; see `Model.decide`."""
        return self.linear.decide(probabilities, profile, threshold)

    def word_weights(
        self, fields: dict[str, str], tags: Sequence[int]
    ) -> dict[int, dict[str, WordWeights]]:
        """What each word adds to the log-odds of each of some tags, by occlusion.

        The document is read again without each run of three words (of more, in a long text); what
        a tag's log-odds lose is shared among them (Zeiler and Fergus 2014, "Visualizing and
        understanding convolutional networks", for words). See `Model.word_weights`.
        """
        if not tags:
            return {}
        document = f"{fields['title']}\n{fields['synopsis']}"
        if self.margin is not None and not len(self._unsure(self.linear.log_odds([document]))):
            return self.linear.word_weights(fields, tags)
        places = [(name, spans) for name, text in fields.items() for spans in _chunks(text)]
        documents = [document, *(_without(fields, name, spans) for name, spans in places)]
        logits = self._blend(documents, self.linear.log_odds(documents))
        lost = logits[0] - logits[1:]
        result: dict[int, dict[str, WordWeights]] = {}
        for tag in tags:
            source = strongest(tag, logits[0], self.linear.implications)
            result[tag] = {name: {} for name in fields}
            for (name, spans), weight in zip(places, lost[:, source], strict=True):
                result[tag][name] |= dict.fromkeys(spans, float(weight) / len(spans))
        return result

    def _blend(self, documents: Sequence[str], linear: FloatArray) -> FloatArray:
        read = self.encoder.log_odds(documents)
        if read.shape != linear.shape:
            raise ModelError(f"{self.encoder.folder}: encoder.onnx has other tags; train it again")
        return blend(linear, read, self.share) * self.slope + self.intercept

    def _unsure(self, logits: FloatArray) -> npt.NDArray[np.int64]:
        p = np.clip(self.thresholds.values["balanced"], 1e-6, 1 - 1e-6)
        distance = np.abs(logits - (np.log(p) - np.log1p(-p)))
        return np.flatnonzero((distance < self.margin).any(axis=1))


def blend(linear: FloatArray, read: FloatArray, share: FloatArray | float) -> FloatArray:
    """(n, tags) log-odds of both parts as one, not yet calibrated."""
    return (1 - share) * linear + share * read


def _chunks(text: str) -> list[list[tuple[int, int]]]:
    """The spans of a text's words in runs of three or more that no full stop or comma parts."""
    chunks: list[list[tuple[int, int]]] = []
    spans = word_spans(text)
    size = max(_CHUNK, -(-len(spans) // _MAX_CHUNKS))
    for place, span in enumerate(spans):
        parted = place and any(mark in text[spans[place - 1][1] : span[0]] for mark in ".,;:!?")
        if not place or parted or len(chunks[-1]) == size:
            chunks.append([])
        chunks[-1].append(span)
    return chunks


def _without(fields: dict[str, str], name: str, spans: list[tuple[int, int]]) -> str:
    text = fields[name]
    left = text[: spans[0][0]] + text[spans[-1][1] :].lstrip()
    changed = {**fields, name: left}
    return f"{changed['title']}\n{changed['synopsis']}"

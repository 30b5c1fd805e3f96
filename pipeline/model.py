"""A trained model: arrays that turn a document into log-odds, suggestions and evidence.

Nothing here needs scikit-learn: a model is a vocabulary and a matrix.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.decision import PROFILES, FloatArray, Thresholds, close, flag, sigmoid
from pipeline.errors import ModelError
from pipeline.features import Occurrence, analyze, occurrences
from pipeline.synopsis import CleanText, Status, clean, clean_with_offsets, status
from pipeline.taxonomy import Taxonomy
from pipeline.vocabulary import Vocabulary

if TYPE_CHECKING:
    from pipeline.accurate import AccurateModel
    from pipeline.batch import FeatureTable

AnyModel: TypeAlias = "Model | AccurateModel"
WordWeights = dict[tuple[int, int], float]
"""What each word, by its span in a cleaned text, adds to the log-odds of a tag."""

MAX_PHRASES = 4
_MIN_SHARE = 0.1
_MANY = 300
"""From so many documents on, what `batch` needs to begin with is worth its while."""


@dataclass(frozen=True)
class Evidence:
    """A phrase that speaks for a tag.

    `start` and `end` are offsets into the text as given, in the field ("synopsis" or "title")
    that `field` names. `weight` is what the phrase adds to the log-odds.
    """

    text: str
    start: int
    end: int
    weight: float
    field: str = "synopsis"


@dataclass(frozen=True)
class Warning:
    """A suggested tag with its calibrated probability and the phrases that speak for it."""

    tag: str
    label: str
    probability: float
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True)
class Suggestion:
    """What a model says of one synopsis; no warnings unless the status is ok."""

    status: Status
    warnings: tuple[Warning, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"status": str(self.status), "warnings": [asdict(w) for w in self.warnings]}


def suggest(
    model: AnyModel,
    synopsis: str,
    title: str = "",
    *,
    profile: str = "balanced",
    threshold: float | None = None,
    all_tags: bool = False,
    evidence: bool = True,
) -> Suggestion:
    """Suggest warnings for one synopsis as its catalogue writes it.

    Args:
        model: a model of any kind; both kinds have this as their method.
        synopsis: the text to judge; markup and source notes are cleaned away first.
        title: the work's title, if known.
        profile: whose thresholds to use.
        threshold: one probability for all tags, instead of a profile.
        all_tags: return every tag with its probability, suggested or not.
        evidence: find the phrases that speak for each tag.

    Returns:
        Warnings by falling probability, or a status that says why there can be none.
    """
    texts = {"title": clean_with_offsets(title), "synopsis": clean_with_offsets(synopsis)}
    readable = status(texts["synopsis"].text)
    if readable is not Status.OK:
        return Suggestion(readable)
    fields = {name: cleaned.text for name, cleaned in texts.items()}
    probabilities = model.predict_proba([f"{fields['title']}\n{fields['synopsis']}"])
    chosen = model.decide(probabilities, profile, threshold)[0]
    ranked = np.argsort(-probabilities[0], kind="stable")
    order = [int(tag) for tag in ranked if all_tags or chosen[tag]]
    weights = model.word_weights(fields, order) if evidence else {}
    given = {"title": title, "synopsis": synopsis}
    return Suggestion(
        readable,
        tuple(
            Warning(
                model.tags[tag],
                model.taxonomy[model.tags[tag]].label,
                round(float(probabilities[0, tag]), 6),
                _phrases(given, texts, weights[tag]) if evidence else (),
            )
            for tag in order
        ),
    )


@dataclass(frozen=True)
class Model:
    """A linear multilabel model over TF-IDF features.

    Attributes:
        taxonomy: what the tags mean.
        tags: ids of the tags that the model knows, in the taxonomy's order.
        vocabulary: feature names, in column order.
        idf: (features,) inverse document frequencies.
        weights: (features, tags) float16, calibrated log-odds for a feature value of 1.
        bias: (tags,) calibrated log-odds of a document without features.
        thresholds: probabilities from which a tag is suggested, by profile.
        provenance: how the model was made: versions, data, counts, figures.
        folder: where it was loaded from.
    """

    taxonomy: Taxonomy
    tags: tuple[str, ...]
    vocabulary: Sequence[str]
    idf: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float16]
    bias: npt.NDArray[np.float64]
    thresholds: Thresholds
    provenance: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    suggest = suggest

    @cached_property
    def _features(self) -> Vocabulary:
        return Vocabulary.of(self.vocabulary)

    @cached_property
    def _table(self) -> FeatureTable:
        from pipeline.batch import FeatureTable

        return FeatureTable(self._features)

    @cached_property
    def _wide_idf(self) -> FloatArray:
        return self.idf.astype(np.float64)

    @cached_property
    def implications(self) -> tuple[tuple[int, int], ...]:
        """(narrow, broad) columns among the model's tags, narrowest first."""
        return self.taxonomy.implications(self.tags)

    def log_odds(self, documents: Sequence[str]) -> FloatArray:
        """(n, tags) calibrated log-odds of cleaned documents (title, newline, synopsis)."""
        if len(documents) >= _MANY:
            return self._many_log_odds(documents)
        logits = np.empty((len(documents), len(self.tags)))
        for row, document in enumerate(documents):
            found, values = self._row(self._features.find(set(analyze(document))))
            logits[row] = values @ self.weights[found].astype(np.float64) + self.bias
        return logits

    def _many_log_odds(self, documents: Sequence[str]) -> FloatArray:
        from scipy.sparse import csr_array

        from pipeline.batch import Batch

        starts, columns = self._table.rows(Batch.of(documents))
        values = self._wide_idf[columns]
        row = np.repeat(np.arange(len(documents)), np.diff(starts))
        norms = np.sqrt(np.bincount(row, values**2, len(documents)))
        # Widened are only the weights that these documents need: all would be 30 MB.
        present = np.zeros(len(self.vocabulary), bool)
        present[columns] = True
        columns = (np.cumsum(present, dtype=np.int32) - 1)[columns]
        weights = self.weights[present].astype(np.float64)
        shape = (len(documents), len(weights))
        sums = csr_array((values, columns, starts), shape=shape) @ weights
        return np.asarray(sums / np.where(norms > 0, norms, 1.0)[:, None] + self.bias)

    def predict_proba(self, documents: Sequence[str]) -> FloatArray:
        """(n, tags) probabilities of cleaned documents; no broader tag below a narrower one."""
        return close(sigmoid(self.log_odds(documents)), self.implications)

    def decide(
        self, probabilities: FloatArray, profile: str = "balanced", threshold: float | None = None
    ) -> npt.NDArray[np.bool_]:
        """(n, tags) which tags to suggest; a suggested tag brings its broader ones along.

        Raises:
            ModelError: the profile is unknown.
        """
        if profile not in PROFILES:
            raise ModelError(f"unknown profile {profile!r}; choose from {', '.join(PROFILES)}")
        cut = self.thresholds.values[profile] if threshold is None else threshold
        return flag(probabilities, cut, self.implications)

    def word_weights(
        self, fields: dict[str, str], tags: Sequence[int]
    ) -> dict[int, dict[str, WordWeights]]:
        """What each word adds to the log-odds of each of some tags (columns).

        Args:
            fields: cleaned text by the name of its field.
            tags: columns of the tags asked for.

        A tag that owes its probability to a narrower one has that one's words.
        """
        found = {name: occurrences(text) for name, text in fields.items()}
        counts = Counter(o.name for places in found.values() for o in places)
        known = self._features.find(counts)
        columns, values = self._row(known)
        position = {int(column): place for place, column in enumerate(columns)}
        shares = values[:, None] * self.weights[columns].astype(np.float64)
        logits = shares.sum(axis=0) + self.bias
        result = {}
        for tag in tags:
            source = strongest(tag, logits, self.implications)
            weight_of = {
                name: float(shares[position[column], source]) / counts[name]
                for name, column in known.items()
            }
            result[tag] = {name: _word_weights(found[name], weight_of) for name in fields}
        return result

    def _row(self, known: Mapping[str, int]) -> tuple[npt.NDArray[np.int64], FloatArray]:
        """Columns, rising, and L2-normalised idf values of features given with their columns."""
        found = np.sort(np.array(list(known.values()), dtype=np.int64))
        values = self.idf[found].astype(np.float64)
        norm = math.sqrt(float(values @ values))
        return found, values / norm if norm else values


def strongest(tag: int, logits: FloatArray, implications: Sequence[tuple[int, int]]) -> int:
    """The column that a tag's probability comes from: itself or a narrower tag."""
    below = [narrow for narrow, broad in implications if broad == tag]
    return max([tag, *below], key=lambda column: float(logits[column]))


def to_document(title: str, synopsis: str) -> str:
    """The document that features are made from: cleaned title, newline, cleaned synopsis."""
    return f"{clean(title)}\n{clean(synopsis)}"


def _phrases(
    given: dict[str, str], cleaned: dict[str, CleanText], weights: dict[str, WordWeights]
) -> tuple[Evidence, ...]:
    strongest_word = max((w for words in weights.values() for w in words.values()), default=0.0)
    phrases: list[Evidence] = []
    for name, words in weights.items():
        for start, end, weight in _runs(words, _MIN_SHARE * strongest_word):
            first, last = cleaned[name].span(start, end)
            phrases.append(Evidence(given[name][first:last], first, last, round(weight, 4), name))
    phrases.sort(key=lambda phrase: -phrase.weight)
    least = _MIN_SHARE * phrases[0].weight if phrases else 0.0
    return tuple(phrase for phrase in phrases[:MAX_PHRASES] if phrase.weight >= least)


def _word_weights(found: list[Occurrence], weight_of: dict[str, float]) -> WordWeights:
    """What each word, by its span, adds to the log-odds: its own weight and half of its pairs'."""
    weights: WordWeights = {}
    for occurrence in found:
        share = weight_of.get(occurrence.name, 0.0) / len(occurrence.spans)
        for span in occurrence.spans:
            weights[span] = weights.get(span, 0.0) + share
    return weights


def _runs(weights: WordWeights, least: float) -> list[tuple[int, int, float]]:
    """(start, end, weight) of each run of neighbouring words that weigh more than `least`."""
    runs: list[tuple[int, int, float]] = []
    open_run = False
    for (start, end), weight in sorted(weights.items()):
        if weight <= max(least, 0.01):
            open_run = False
        elif open_run:
            first, _, total = runs[-1]
            runs[-1] = (first, end, total + weight)
        else:
            runs.append((start, end, weight))
            open_run = True
    return runs

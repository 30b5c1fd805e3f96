"""Where a model goes right and wrong on labelled rows, as the numbers and texts of a report."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.stats import binomtest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import precision_recall_curve
from sklearn.preprocessing import normalize

from pipeline.corpus import MAYBE, NO, UNKNOWN, YES
from pipeline.decision import FloatArray
from pipeline.evaluation import Interval, calibration_error, micro_f1
from pipeline.features import NEGATED, analyze, occurrences
from pipeline.model import AnyModel, Evidence, Model, Suggestion
from pipeline.predictions import Predictions
from pipeline.taxonomy import Tag

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]

PHRASES = 10
"""Phrases shown for and against a tag."""
MISTAKES = 3
"""False alarms, and misses, shown for a tag; one of each of an accurate model, which is slow."""
WORST = 6
"""False alarms, and misses, shown for all tags together."""
CATALOGUES = 12
"""Catalogues shown; the smallest beyond these are taken together."""
LOG_ODDS_BINS = np.arange(-9.0, 8.5, 0.5)
"""Edges of the bins of a score distribution."""
_CURVE_POINTS = 100
_BINS = np.linspace(0, 1, 11)
_MIN_IN_BIN = 5
_MIN_ROWS = 3
_MIN_ROW_SHARE = 0.001
_EXAMPLES = 8
_CONFUSIONS = 12


@dataclass(frozen=True)
class Bin:
    """Cells of like probability: their mean, and the share of them that is true, with Wilson's
    95 % interval."""

    probability: float
    share: float
    interval: Interval
    cells: int


@dataclass(frozen=True)
class Scores:
    """How probabilities meet labels, of one tag or of all cells together.

    Attributes:
        recall, precision: points of the curve, by falling probability.
        points: (recall, precision) of each profile's suggestions; none where it suggests nothing.
        thresholds: of each profile; none for all tags together, which share none.
        bins: the calibration, for bins with five cells or more.
        positive, negative: share of the cells with either label in each of `LOG_ODDS_BINS`.
    """

    recall: FloatArray
    precision: FloatArray
    points: dict[str, tuple[float, float]]
    thresholds: dict[str, float]
    bins: tuple[Bin, ...]
    positive: FloatArray
    negative: FloatArray


@dataclass(frozen=True)
class Phrase:
    """A feature in the words of the corpus.

    `weight` is what it adds to the log-odds, on average over the `rows` that have it; `positive`
    is the share of these that are labelled yes (of those that are labelled).
    """

    text: str
    denied: bool
    weight: float
    rows: int
    positive: float


@dataclass(frozen=True)
class Mistake:
    """A suggestion that the labels deny, or a label that was missed.

    `title` and `synopsis` are cut where the evidence for the tag begins and ends: (text, whether
    it is evidence).
    """

    tag: Tag
    missed: bool
    probability: float
    margin: float
    title: tuple[tuple[str, bool], ...]
    synopsis: tuple[tuple[str, bool], ...]
    source: str


@dataclass(frozen=True)
class TagDiagnosis:
    """One tag: its scores, its phrases for and against, its most confident mistakes."""

    tag: Tag
    scores: Scores
    phrases_for: tuple[Phrase, ...]
    phrases_against: tuple[Phrase, ...]
    mistakes: tuple[Mistake, ...]


@dataclass(frozen=True)
class Catalogue:
    """Support and coverage of one catalogue; `support` and `known` count cells, (tags,)."""

    name: str
    rows: int
    works: int
    states: dict[str, int]
    f1: float
    f1_interval: Interval
    calibration_error: float
    support: IntArray
    known: IntArray


@dataclass(frozen=True)
class Confusion:
    """Rows that have one tag, and get another that they are labelled not to have."""

    true: Tag
    suggested: Tag
    rows: int
    share: float


@dataclass(frozen=True)
class Diagnosis:
    """All of it.

    `together` is an (m, m) share matrix of the tags in `tags`: of the rows that have tag i, how
    many get tag j. Its diagonal is recall.
    """

    profile: str
    overall: Scores
    tags: tuple[TagDiagnosis, ...]
    together: FloatArray
    confusions: tuple[Confusion, ...]
    catalogues: tuple[Catalogue, ...]
    worst: tuple[Mistake, ...]


def diagnose(
    predictions: Predictions, model: AnyModel, profile: str, progress: Progress | None = None
) -> Diagnosis:
    """Diagnose a model by its predictions.

    Args:
        predictions: what was predicted; best by models that had not seen the rows.
        model: whose phrases and evidence are shown.
        profile: whose mistakes are shown, a key of `predictions.suggested`.
        progress: called with (tags done, tags in all).

    Tags without a positive label are left out.
    """
    labels = predictions.labels
    shown = [t for t in range(len(predictions.tags)) if (labels[:, t] == YES).any()]
    features = _Features(predictions, model)
    reader = _Reader(predictions, model, profile)
    tags = []
    for done, t in enumerate(shown):
        known = labels[:, t] >= 0
        scores = _scores(
            predictions.probabilities[known, t],
            labels[known, t] == YES,
            {name: rows[known, t] for name, rows in predictions.suggested.items()},
            {name: float(cut[t]) for name, cut in model.thresholds.values.items()},
        )
        tag = predictions.corpus.taxonomy[predictions.tags[t]]
        phrases = features.strongest(t)
        tags.append(TagDiagnosis(tag, scores, *phrases, reader.mistakes(t)))
        if progress:
            progress(done + 1, len(shown))
    known = labels >= 0
    return Diagnosis(
        profile=profile,
        overall=_scores(
            predictions.probabilities[known],
            labels[known] == YES,
            {name: rows[known] for name, rows in predictions.suggested.items()},
            {},
        ),
        tags=tuple(tags),
        together=_together(labels[:, shown] == YES, predictions.suggested[profile][:, shown]),
        confusions=_confusions(predictions, profile),
        catalogues=_catalogues(predictions, profile),
        worst=_worst(tags),
    )


def _scores(
    probabilities: FloatArray,
    truth: BoolArray,
    suggested: dict[str, BoolArray],
    thresholds: dict[str, float],
) -> Scores:
    precision, recall, _ = precision_recall_curve(truth, probabilities)
    kept = _thinned(recall, precision)
    logits = np.clip(_logit(probabilities), LOG_ODDS_BINS[0], LOG_ODDS_BINS[-1])
    points = {
        name: (float((rows & truth).sum() / truth.sum()), float((rows & truth).sum() / rows.sum()))
        for name, rows in suggested.items()
        if rows.any()
    }
    return Scores(
        recall=recall[kept],
        precision=precision[kept],
        points=points,
        thresholds=thresholds,
        bins=_calibration(probabilities, truth),
        positive=np.histogram(logits[truth], LOG_ODDS_BINS)[0] / max(truth.sum(), 1),
        negative=np.histogram(logits[~truth], LOG_ODDS_BINS)[0] / max((~truth).sum(), 1),
    )


def _thinned(recall: FloatArray, precision: FloatArray) -> IntArray:
    """Places of at most about `_CURVE_POINTS` points, evenly along the curve."""
    steps = np.hypot(np.diff(recall), np.diff(precision))
    along = np.concatenate([[0.0], np.cumsum(steps)])
    wanted = np.linspace(0, along[-1], _CURVE_POINTS)
    return np.unique(np.searchsorted(along, wanted).clip(0, len(recall) - 1))


def _logit(probabilities: FloatArray) -> FloatArray:
    p = np.clip(probabilities, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(p) - np.log1p(-p))


def _calibration(probabilities: FloatArray, truth: BoolArray) -> tuple[Bin, ...]:
    place = np.minimum((probabilities * (len(_BINS) - 1)).astype(int), len(_BINS) - 2)
    bins = []
    for number in range(len(_BINS) - 1):
        inside = place == number
        cells = int(inside.sum())
        if cells >= _MIN_IN_BIN:
            hits = int(truth[inside].sum())
            span = binomtest(hits, cells).proportion_ci(method="wilson")
            mean = float(probabilities[inside].mean())
            bins.append(Bin(mean, hits / cells, (float(span.low), float(span.high)), cells))
    return tuple(bins)


def _together(true: BoolArray, suggested: BoolArray) -> FloatArray:
    both = true.T.astype(np.float64) @ suggested.astype(np.float64)
    return np.asarray(both / np.maximum(true.sum(axis=0), 1)[:, None])


def _confusions(predictions: Predictions, profile: str) -> tuple[Confusion, ...]:
    """The pairs of tags of which the first most often brings the second along, wrongly."""
    labels, taxonomy = predictions.labels, predictions.corpus.taxonomy
    false = predictions.suggested[profile] & (labels == NO)
    counts = (labels == YES).T.astype(np.int64) @ false.astype(np.int64)
    support = (labels == YES).sum(axis=0)
    found = []
    for true, suggested in zip(*np.nonzero(counts), strict=True):
        names = predictions.tags[true], predictions.tags[suggested]
        rows = int(counts[true, suggested])
        found.append(
            Confusion(taxonomy[names[0]], taxonomy[names[1]], rows, rows / int(support[true]))
        )
    found.sort(key=lambda pair: -pair.rows)
    return tuple(found[:_CONFUSIONS])


def _catalogues(predictions: Predictions, profile: str) -> tuple[Catalogue, ...]:
    corpus, labels = predictions.corpus, predictions.labels
    names = [c or s for c, s in zip(corpus.catalogues, corpus.sources, strict=True)]
    order = [name for name, _ in Counter(names).most_common()]
    few = order[CATALOGUES - 1 :] if len(order) > CATALOGUES else []
    label = {name: name for name in order} | dict.fromkeys(few, f"{len(few)} smaller ones")
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        rows_of[label[name]].append(row)
    found = []
    for name in dict.fromkeys(label[name] for name in order):
        rows = np.array(rows_of[name])
        own, p = labels[rows], predictions.probabilities[rows]
        known = own >= 0
        f1, interval = micro_f1(predictions.suggested[profile][rows], own, corpus.works[rows])
        found.append(
            Catalogue(
                name=name,
                rows=len(rows),
                works=len(np.unique(corpus.works[rows])),
                states={
                    state: int((own == value).sum())
                    for state, value in (
                        ("yes", YES),
                        ("no", NO),
                        ("maybe", MAYBE),
                        ("unknown", UNKNOWN),
                    )
                },
                f1=f1,
                f1_interval=interval,
                calibration_error=calibration_error(p[known], own[known] == YES),
                support=(own == YES).sum(axis=0),
                known=known.sum(axis=0),
            )
        )
    return tuple(found)


def _worst(tags: Sequence[TagDiagnosis]) -> tuple[Mistake, ...]:
    """The most confident false alarms, then the most confident misses, at most one a tag."""
    found: list[Mistake] = []
    for missed in (False, True):
        first = [next((m for m in tag.mistakes if m.missed is missed), None) for tag in tags]
        known = [mistake for mistake in first if mistake is not None]
        found += sorted(known, key=lambda mistake: -mistake.margin)[:WORST]
    return tuple(found)


class _Reader:
    """Finds the most confident mistakes and the evidence in them; each row is read once."""

    def __init__(self, predictions: Predictions, model: AnyModel, profile: str) -> None:
        self._predictions, self._model = predictions, model
        self._suggested = predictions.suggested[profile]
        cut = model.thresholds.values.get(profile, predictions.threshold)
        self._cut = np.broadcast_to(np.asarray(cut, dtype=np.float64), len(model.tags))
        self._read: dict[int, Suggestion] = {}

    def mistakes(self, tag: int) -> tuple[Mistake, ...]:
        """False alarms, the most probable first, then misses, the least probable first."""
        labels, p = self._predictions.labels[:, tag], self._predictions.probabilities[:, tag]
        suggested = self._suggested[:, tag]
        alarms = np.flatnonzero(suggested & (labels == NO))
        misses = np.flatnonzero(~suggested & (labels == YES))
        count = MISTAKES if isinstance(self._model, Model) else 1
        return tuple(
            self._mistake(int(row), tag)
            for rows in (alarms[np.argsort(-p[alarms])], misses[np.argsort(p[misses])])
            for row in self._of_different_works(rows, count)
        )

    def _of_different_works(self, rows: IntArray, count: int) -> list[int]:
        works = self._predictions.corpus.works
        first = {int(works[row]): int(row) for row in reversed(rows)}
        return [int(row) for row in rows if first[int(works[row])] == row][:count]

    def _mistake(self, row: int, tag: int) -> Mistake:
        corpus, name = self._predictions.corpus, self._predictions.tags[tag]
        title, synopsis = corpus.titles[row], corpus.synopses[row]
        if row not in self._read:
            self._read[row] = self._model.suggest(synopsis, title, all_tags=True)
        evidence = next((w.evidence for w in self._read[row].warnings if w.tag == name), ())
        p = float(self._predictions.probabilities[row, tag])
        distance = _logit(np.array([p])) - _logit(self._cut[[tag]])
        return Mistake(
            tag=corpus.taxonomy[name],
            missed=bool(self._predictions.labels[row, tag] == YES),
            probability=p,
            margin=float(np.abs(distance[0])),
            title=_cut(title, [e for e in evidence if e.field == "title"]),
            synopsis=_cut(synopsis, [e for e in evidence if e.field == "synopsis"]),
            source=corpus.catalogues[row] or corpus.sources[row],
        )


def _cut(text: str, evidence: Sequence[Evidence]) -> tuple[tuple[str, bool], ...]:
    """A text in pieces: (piece, whether it is evidence)."""
    pieces, place = [], 0
    for phrase in sorted(evidence, key=lambda phrase: phrase.start):
        start = max(phrase.start, place)
        if phrase.end > start:
            pieces += [(text[place:start], False), (text[start : phrase.end], True)]
            place = phrase.end
    return tuple(piece for piece in [*pieces, (text[place:], False)] if piece[0])


class _Features:
    """The features of a model in the rows of a corpus, and the words that they stand for."""

    def __init__(self, predictions: Predictions, model: AnyModel) -> None:
        self._documents, self._labels = predictions.corpus.documents, predictions.labels
        linear = model if isinstance(model, Model) else model.linear
        self._names = linear.vocabulary
        self._weights = linear.weights
        # What the linear part counts in a blend.
        self._scale = 1.0 if isinstance(model, Model) else (1 - model.share) * model.slope
        counter = CountVectorizer(analyzer=analyze, binary=True, vocabulary=linear.vocabulary)
        self._counts = sparse.csc_matrix(counter.transform(self._documents), dtype=np.float64)
        values = sparse.csc_matrix(
            normalize(self._counts @ sparse.diags(linear.idf.astype(np.float64)))
        )
        self._rows = np.diff(self._counts.indptr)
        self._mean = np.asarray(values.sum(axis=0)).ravel() / np.maximum(self._rows, 1)
        self._texts: dict[int, str] = {}

    def strongest(self, tag: int) -> tuple[tuple[Phrase, ...], tuple[Phrase, ...]]:
        """The phrases that speak most for a tag, and most against it."""
        scale = float(np.broadcast_to(self._scale, self._weights.shape[1])[tag])
        impact = self._mean * self._weights[:, tag].astype(np.float64) * scale
        # A phrase of a few rows tells of those rows, not of the tag.
        least_rows = max(_MIN_ROWS, round(_MIN_ROW_SHARE * len(self._documents)))
        weighed = impact * (self._rows >= least_rows)
        order = np.argsort(-weighed, kind="stable")
        most = [int(column) for column in order[:PHRASES] if weighed[column] > 0]
        least = [int(column) for column in order[::-1][:PHRASES] if weighed[column] < 0]
        return (
            tuple(self._phrase(column, tag, float(impact[column])) for column in most),
            tuple(self._phrase(column, tag, float(impact[column])) for column in least),
        )

    def _phrase(self, column: int, tag: int, weight: float) -> Phrase:
        rows = self._counts.indices[self._counts.indptr[column] : self._counts.indptr[column + 1]]
        labels = self._labels[rows, tag]
        known = labels[labels >= 0]
        name = self._names[column]
        return Phrase(
            text=self._text(column, rows[:_EXAMPLES]),
            denied=all(word.startswith(NEGATED) for word in name.split(" ")),
            weight=weight,
            rows=len(rows),
            positive=float((known == YES).mean()) if len(known) else 0.0,
        )

    def _text(self, column: int, rows: IntArray) -> str:
        """The commonest wording of a feature in some rows that have it."""
        if column not in self._texts:
            name, found = self._names[column], Counter[str]()
            for row in rows:
                for field in self._documents[row].split("\n", 1):
                    for place in occurrences(field):
                        if place.name == name:
                            words = field[place.spans[0][0] : place.spans[-1][1]]
                            found[" ".join(words.lower().split())] += 1
            self._texts[column] = found.most_common(1)[0][0] if found else name
        return self._texts[column]

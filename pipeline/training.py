"""A training run: folds by work, one classifier a tag, calibration, thresholds, a report."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

import pipeline
from pipeline import decision
from pipeline.classifier import fit_tag, tfidf
from pipeline.corpus import MAYBE, UNKNOWN, Corpus
from pipeline.errors import CorpusError
from pipeline.evaluation import Evaluation, evaluate, evaluate_each
from pipeline.features import analyze
from pipeline.model import AnyModel, Model
from pipeline.predictions import Predictions
from pipeline.taxonomy import Taxonomy
from pipeline.workers import signals_held
from pipeline.works import split_folds

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Progress = Callable[[int, int], None]

MIN_POSITIVES = 10
FOLDS = 5
LIBRARIES = ("numpy", "scipy", "scikit-learn", "PyStemmer")
MAX_FEATURES = 100_000
MIN_WORD_ROWS, MIN_PAIR_ROWS = 2, 3
"""A word, or a pair of words, is a feature when this many training rows have it."""
PAIR_WEIGHT = 0.7
"""What a pair of words counts beside a single one: the idf of pairs is scaled by it."""


@dataclass(frozen=True)
class TrainingRun:
    """What a run made: the model and how well it does on works that it had not seen.

    `by_profile` scores every row by models and thresholds that were made without its work.
    `by_source` does so for the balanced profile, file by file. `left_out` names tags with too
    few positive works, with their count. `predictions` are what was scored, row by row.
    """

    model: AnyModel
    by_profile: dict[str, Evaluation]
    by_source: dict[str, Evaluation]
    left_out: dict[str, int]
    predictions: Predictions


def train(
    corpus: Corpus,
    seed: int = 0,
    jobs: int = -1,
    folds: int = FOLDS,
    min_positives: int = MIN_POSITIVES,
    max_features: int = MAX_FEATURES,
    progress: Progress | None = None,
) -> TrainingRun:
    """Train a model on a corpus.

    The taxonomy's names and definitions are training documents beside the corpus, never scored.
    Each tag is fitted `folds` + 1 times: without each fold of works, and on all. The log-odds of
    rows left out calibrate the probabilities and choose the thresholds. For the report, a fold's
    calibration and thresholds come from the other folds alone.

    Args:
        corpus: rows with labels; works are kept whole in every split.
        seed: fixes the folds and the solver; equal seeds give equal models.
        jobs: processes for the tags; -1 for all cores.
        folds: number of folds.
        min_positives: a tag positive in fewer works is named and left out.
        max_features: features kept, the most frequent first.
        progress: called with (fits done, fits in all).

    Raises:
        CorpusError: no tag has enough positives, or there are fewer works than folds.
    """
    tags, left_out = _trainable(corpus, min_positives)
    if not tags:
        raise CorpusError(
            f"no tag has positives in {min_positives} works; bring more labels or lower "
            "--min-positives"
        )
    works = corpus.works
    if len(np.unique(works)) < folds:
        raise CorpusError(f"only {len(np.unique(works))} works for {folds} folds; bring more")
    labels = corpus.labels[:, [corpus.taxonomy.index[tag] for tag in tags]]
    fold_of = split_folds(works, folds, seed)
    counter = CountVectorizer(analyzer=analyze, binary=True, dtype=np.float32)
    lessons, lesson_labels = _lessons(corpus.taxonomy, tags)
    counts = sparse.csr_matrix(counter.fit_transform([*corpus.documents, *lessons]))
    taught = np.concatenate([labels, lesson_labels])
    lesson_rows = np.arange(len(corpus), len(taught))
    names = counter.get_feature_names_out()
    is_pair = np.array([" " in name for name in names])

    total = (folds + 1) * len(tags)
    held_out = np.zeros(labels.shape)
    with Parallel(n_jobs=jobs, return_as="generator") as pool:
        for fold in range(folds + 1):
            # No row is in the last fold, so the last fit is on all rows: the model's own.
            left = np.flatnonzero(fold_of == fold)
            rows = np.concatenate([np.flatnonzero(fold_of != fold), lesson_rows])
            features = _weigh(counts, is_pair, rows, max_features)
            matrix = features.transform(counts[rows])
            with signals_held():
                fits = pool(
                    delayed(_fit_observed)(matrix, taught[rows, tag], seed)
                    for tag in range(len(tags))
                )
            weights, bias = [], []
            for weight, intercept in fits:
                weights.append(weight.astype(np.float16))
                bias.append(intercept)
                if progress:
                    progress(fold * len(tags) + len(bias), total)
            linear = _Linear(np.stack(weights, axis=1), np.array(bias))
            if len(left):
                held_out[left] = linear.log_odds(features.transform(counts[left]))
    implications = corpus.taxonomy.implications(tags)
    predictions, by_profile, by_source = report(corpus, tags, held_out, labels, fold_of)
    slope, intercept_ = calibrate(held_out, labels)
    closed = decision.close(decision.sigmoid(held_out * slope + intercept_), implications)
    model = Model(
        taxonomy=corpus.taxonomy,
        tags=tags,
        vocabulary=tuple(str(name) for name in names[features.columns]),
        idf=features.idf,
        weights=(linear.weights.astype(np.float64) * slope).astype(np.float16),
        bias=linear.bias * slope + intercept_,
        thresholds=decision.choose_thresholds(closed, labels),
        provenance={
            **provenance(corpus, left_out, seed, by_profile, by_source, LIBRARIES),
            "folds": folds,
        },
    )
    return TrainingRun(model, by_profile, by_source, left_out, predictions)


@dataclass(frozen=True)
class _Features:
    """The columns of the count matrix that are features, and their (features,) idf."""

    columns: npt.NDArray[np.int64]
    idf: npt.NDArray[np.float32]

    def transform(self, counts: sparse.csr_matrix) -> sparse.csr_matrix:
        """(n, features) idf-weighted rows of unit length."""
        weighted = counts[:, self.columns] @ sparse.diags(self.idf.astype(np.float64))
        return normalize(sparse.csr_matrix(weighted))


@dataclass(frozen=True)
class _Linear:
    """(features, tags) weights and (tags,) biases, in log-odds that are not yet calibrated."""

    weights: npt.NDArray[np.float16]
    bias: FloatArray

    def log_odds(self, rows: sparse.csr_matrix) -> FloatArray:
        return np.asarray(rows @ self.weights.astype(np.float64) + self.bias)


def _weigh(
    counts: sparse.csr_matrix, is_pair: BoolArray, rows: IntArray, max_features: int
) -> _Features:
    """Keep the features that occur in enough of the rows, the most frequent first."""
    subset = counts[rows]
    frequency = np.asarray(subset.sum(axis=0)).ravel()
    order = np.argsort(-frequency, kind="stable")[:max_features]
    columns = np.sort(
        order[frequency[order] >= np.where(is_pair[order], MIN_PAIR_ROWS, MIN_WORD_ROWS)]
    )
    idf = tfidf(subset[:, columns]).idf_ * np.where(is_pair[columns], PAIR_WEIGHT, 1.0)
    return _Features(columns, idf.astype(np.float32))


def _lessons(taxonomy: Taxonomy, tags: tuple[str, ...]) -> tuple[list[str], npt.NDArray[np.int8]]:
    """The taxonomy's own words as documents that have their tag: names, and definition."""
    documents, labels = [], []
    for tag in taxonomy.tags:
        texts = [f"{tag.label}\n", *(f"\n{alias}" for alias in tag.aliases), f"\n{tag.definition}"]
        documents += texts
        labels += [[known in taxonomy.closure([tag.id]) for known in tags]] * len(texts)
    return documents, np.array(labels, dtype=np.int8)


def _fit_observed(rows: sparse.csr_matrix, labels: Any, seed: int) -> tuple[Any, float]:
    """Fit a tag on its known rows, and on each arguable row as half a yes and half a no."""
    known, argued = np.flatnonzero(labels >= 0), np.flatnonzero(labels == MAYBE)
    chosen = np.concatenate([known, argued, argued])
    truth = np.concatenate([labels[known] == 1, np.ones(len(argued)), np.zeros(len(argued))]) > 0
    weights = np.concatenate([np.ones(len(known)), np.full(2 * len(argued), 0.5)])
    if truth.all() or not truth.any():
        # No fold but a tiny one lacks a value; its rows then get the base rate.
        share = (truth.sum() + 0.5) / (len(truth) + 1)
        return np.zeros(rows.shape[1]), float(np.log(share / (1 - share)))
    return fit_tag(rows[chosen], truth, weights, seed)


def _trainable(corpus: Corpus, min_positives: int) -> tuple[tuple[str, ...], dict[str, int]]:
    tags, left_out = [], {}
    for tag, column in zip(corpus.taxonomy.ids, corpus.labels.T, strict=True):
        positives = len(np.unique(corpus.works[column == 1]))
        if positives >= min_positives and (column == 0).any():
            tags.append(tag)
        else:
            left_out[tag] = positives
    return tuple(tags), left_out


def calibrate(logits: FloatArray, labels: npt.NDArray[np.int8]) -> tuple[FloatArray, FloatArray]:
    """(tags,) slopes and intercepts for (n, tags) held-out log-odds; see `fit_calibration`."""
    pairs = []
    # A curve of two parameters is fitted many times faster by one thread, and alike on any machine.
    with threadpool_limits(1, "blas"):
        for tag in range(labels.shape[1]):
            known = labels[:, tag] >= 0
            pairs.append(decision.fit_calibration(logits[known, tag], labels[known, tag]))
    slope, intercept = np.array(pairs).T
    return slope, intercept


def cross_fitted(
    logits: FloatArray,
    labels: npt.NDArray[np.int8],
    fold_of: IntArray,
    implications: tuple[tuple[int, int], ...],
) -> tuple[FloatArray, dict[str, BoolArray]]:
    """Probabilities and suggestions of rows by the folds that they are not in.

    Args:
        logits: (n, tags) held-out log-odds.
        labels: (n, tags) label states.
        fold_of: (n,) the fold of each row.
        implications: (narrow, broad) columns, narrowest first.

    Returns:
        (n, tags) probabilities, and (n, tags) suggestions by profile. The calibration and the
        thresholds of a row come from the other folds.
    """
    probabilities = np.zeros_like(logits)
    suggested = {p: np.zeros(logits.shape, dtype=bool) for p in decision.PROFILES}
    for fold in np.unique(fold_of):
        inside, outside = fold_of == fold, fold_of != fold
        slope, intercept = calibrate(logits[outside], labels[outside])
        closed = decision.close(decision.sigmoid(logits * slope + intercept), implications)
        thresholds = decision.choose_thresholds(closed[outside], labels[outside])
        probabilities[inside] = closed[inside]
        for profile in decision.PROFILES:
            suggested[profile][inside] = decision.flag(
                closed[inside], thresholds.values[profile], implications
            )
    return probabilities, suggested


def report(
    corpus: Corpus,
    tags: tuple[str, ...],
    logits: FloatArray,
    labels: npt.NDArray[np.int8],
    fold_of: IntArray,
) -> tuple[Predictions, dict[str, Evaluation], dict[str, Evaluation]]:
    """Cross-fitted rows, their evaluations by profile, and of the balanced profile by source."""
    implications, works = corpus.taxonomy.implications(tags), corpus.works
    probabilities, suggested = cross_fitted(logits, labels, fold_of, implications)
    by_profile = evaluate_each(tags, probabilities, suggested, labels, works)
    predictions = Predictions(corpus, tags, probabilities, suggested)
    sources = np.array(corpus.sources)
    names = dict.fromkeys(corpus.sources)
    if len(names) == 1:
        return predictions, by_profile, dict.fromkeys(names, by_profile["balanced"])
    by_source = {}
    for source in names:
        rows = sources == source
        by_source[source] = evaluate(
            tags, probabilities[rows], suggested["balanced"][rows], labels[rows], works[rows]
        )
    return predictions, by_profile, by_source


def provenance(
    corpus: Corpus,
    left_out: dict[str, int],
    seed: int,
    by_profile: dict[str, Evaluation],
    by_source: dict[str, Evaluation],
    libraries: tuple[str, ...],
) -> dict[str, Any]:
    """How a model was made, as plain data: versions, data, counts and held-out figures."""
    labelled = (corpus.labels != UNKNOWN).any(axis=1)
    return {
        "forewarn": pipeline.__version__,
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in libraries},
        "made": datetime.now(UTC).strftime("%Y-%m-%d"),
        "seed": seed,
        "rows": int(labelled.sum()),
        "works": len(np.unique(corpus.works[labelled])),
        "data": corpus.fingerprints,
        "left_out": left_out,
        "held_out": {profile: score.to_dict() for profile, score in by_profile.items()},
        "held_out_by_file": {
            source: {k: v for k, v in score.to_dict().items() if k != "tags"}
            for source, score in by_source.items()
        },
    }

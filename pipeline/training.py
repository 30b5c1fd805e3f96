"""A training run: folds by work, one classifier a tag, calibration, thresholds, a report."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

import pipeline
from pipeline import decision
from pipeline.classifier import fit_tag, tfidf
from pipeline.corpus import Corpus
from pipeline.errors import CorpusError
from pipeline.evaluation import Evaluation, evaluate
from pipeline.features import analyze
from pipeline.model import Model
from pipeline.works import split_folds

FloatArray = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

MIN_POSITIVES = 10
FOLDS = 5
MAX_FEATURES = 100_000
MIN_DOCUMENTS = 2


@dataclass(frozen=True)
class TrainingRun:
    """What a run made: the model and how well it does on works that it had not seen.

    `by_profile` scores every row by models and thresholds that were made without its work.
    `by_source` does so for the balanced profile, file by file. `left_out` names tags with too
    few positive works, with their count.
    """

    model: Model
    by_profile: dict[str, Evaluation]
    by_source: dict[str, Evaluation]
    left_out: dict[str, int]


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
    counts = sparse.csr_matrix(counter.fit_transform(corpus.documents))
    names = counter.get_feature_names_out()

    total = (folds + 1) * len(tags)
    done = 0
    held_out = np.zeros(labels.shape)
    final: _Fit | None = None
    with Parallel(n_jobs=jobs, return_as="generator") as pool:
        for fold in range(folds + 1):
            training_rows = np.flatnonzero(fold_of != fold)
            fit = _fit_matrix(counts, training_rows, max_features)
            fits = pool(
                delayed(_fit_observed)(fit.rows, labels[training_rows, tag], seed)
                for tag in range(len(tags))
            )
            weights, bias = _collect(
                fits, lambda n, base=done: progress and progress(base + n, total)
            )
            done += len(tags)
            fit = _Fit(fit.columns, fit.idf, fit.rows, weights, bias)
            if fold < folds:
                left = np.flatnonzero(fold_of == fold)
                held_out[left] = fit.log_odds(counts[left])
            else:
                final = fit
    assert final is not None
    report = _cross_fitted(corpus, tags, held_out, labels, fold_of, works)
    model = _assemble(corpus, tags, names, final, held_out, labels, fold_of)
    by_profile, by_source = report
    model.provenance.update(
        _provenance(corpus, tags, left_out, seed, folds, by_profile, by_source, works)
    )
    return TrainingRun(model, by_profile, by_source, left_out)


@dataclass(frozen=True)
class _Fit:
    """Features chosen and weighted on the training rows, and the (features, tags) weights."""

    columns: npt.NDArray[np.int64]
    idf: FloatArray
    rows: sparse.csr_matrix
    weights: npt.NDArray[np.float16]
    bias: FloatArray

    def log_odds(self, counts: sparse.csr_matrix) -> FloatArray:
        rows = _weigh(counts[:, self.columns], self.idf)
        return np.asarray(rows @ self.weights.astype(np.float64) + self.bias)


def _fit_matrix(counts: sparse.csr_matrix, training_rows: Any, max_features: int) -> _Fit:
    """Keep the features that occur in enough training rows, most frequent first, and weigh them."""
    subset = counts[training_rows]
    frequency = np.asarray(subset.sum(axis=0)).ravel()
    order = np.argsort(-frequency, kind="stable")[:max_features]
    columns = np.sort(order[frequency[order] >= MIN_DOCUMENTS])
    idf = np.float32(tfidf(subset[:, columns]).idf_).astype(np.float64)
    rows = _weigh(subset[:, columns], idf)
    return _Fit(columns, idf, rows, np.zeros((0, 0), np.float16), np.zeros(0))


def _weigh(counts: sparse.csr_matrix, idf: FloatArray) -> sparse.csr_matrix:
    rows = sparse.csr_matrix(counts @ sparse.diags(idf))
    norm = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    return sparse.csr_matrix(sparse.diags(1 / np.maximum(norm, 1e-12)) @ rows)


def _fit_observed(rows: sparse.csr_matrix, labels: Any, seed: int) -> tuple[Any, float]:
    known = np.flatnonzero(labels >= 0)
    truth = labels[known] == 1
    if truth.all() or not truth.any():
        # No fold but a tiny one lacks a value; its rows then get the base rate.
        share = (truth.sum() + 0.5) / (len(truth) + 1)
        return np.zeros(rows.shape[1]), float(np.log(share / (1 - share)))
    return fit_tag(rows[known], truth, seed)


def _collect(fits: Iterator[Any], progress: Callable[[int], Any]) -> tuple[Any, FloatArray]:
    weights, bias = [], []
    for n, (weight, intercept) in enumerate(fits, 1):
        weights.append(weight.astype(np.float16))
        bias.append(intercept)
        progress(n)
    return np.stack(weights, axis=1), np.array(bias)


def _trainable(corpus: Corpus, min_positives: int) -> tuple[tuple[str, ...], dict[str, int]]:
    tags, left_out = [], {}
    for tag, column in zip(corpus.taxonomy.ids, corpus.labels.T, strict=True):
        positives = len(np.unique(corpus.works[column == 1]))
        if positives >= min_positives and (column == 0).any():
            tags.append(tag)
        else:
            left_out[tag] = positives
    return tuple(tags), left_out


def _calibrate(logits: FloatArray, labels: npt.NDArray[np.int8]) -> tuple[FloatArray, FloatArray]:
    pairs = []
    for tag in range(labels.shape[1]):
        known = labels[:, tag] >= 0
        pairs.append(decision.fit_calibration(logits[known, tag], labels[known, tag]))
    slope, intercept = np.array(pairs).T
    return slope, intercept


def _implications(corpus: Corpus, tags: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    empty = np.zeros(0)
    thresholds = decision.Thresholds({}, {})
    return Model(
        corpus.taxonomy,
        tags,
        (),
        np.float32(empty),
        np.zeros((0, len(tags)), np.float16),
        empty,
        thresholds,
    ).implications


def _cross_fitted(
    corpus: Corpus,
    tags: tuple[str, ...],
    logits: FloatArray,
    labels: npt.NDArray[np.int8],
    fold_of: npt.NDArray[np.int64],
    works: npt.NDArray[np.int64],
) -> tuple[dict[str, Evaluation], dict[str, Evaluation]]:
    """Score every row with calibration and thresholds from the folds that it is not in."""
    implications = _implications(corpus, tags)
    probabilities = np.zeros_like(logits)
    suggested = {p: np.zeros(logits.shape, dtype=bool) for p in decision.PROFILES}
    for fold in np.unique(fold_of):
        inside, outside = fold_of == fold, fold_of != fold
        slope, intercept = _calibrate(logits[outside], labels[outside])
        closed = decision.close(decision.sigmoid(logits * slope + intercept), implications)
        thresholds = decision.choose_thresholds(closed[outside], labels[outside])
        probabilities[inside] = closed[inside]
        for profile in decision.PROFILES:
            flags = (closed[inside] >= thresholds.values[profile]).astype(np.float64)
            suggested[profile][inside] = decision.close(flags, implications) > 0
    by_profile = {
        profile: evaluate(tags, probabilities, suggested[profile], labels, works)
        for profile in decision.PROFILES
    }
    sources = np.array(corpus.sources)
    by_source = {}
    for source in dict.fromkeys(corpus.sources):
        rows = sources == source
        by_source[source] = evaluate(
            tags, probabilities[rows], suggested["balanced"][rows], labels[rows], works[rows]
        )
    return by_profile, by_source


def _assemble(
    corpus: Corpus,
    tags: tuple[str, ...],
    names: Any,
    fit: _Fit,
    logits: FloatArray,
    labels: npt.NDArray[np.int8],
    fold_of: npt.NDArray[np.int64],
) -> Model:
    slope, intercept = _calibrate(logits, labels)
    closed = decision.close(
        decision.sigmoid(logits * slope + intercept), _implications(corpus, tags)
    )
    return Model(
        taxonomy=corpus.taxonomy,
        tags=tags,
        vocabulary=tuple(str(names[column]) for column in fit.columns),
        idf=fit.idf.astype(np.float32),
        weights=(fit.weights.astype(np.float64) * slope).astype(np.float16),
        bias=fit.bias * slope + intercept,
        thresholds=decision.choose_thresholds(closed, labels),
    )


def _provenance(
    corpus: Corpus,
    tags: tuple[str, ...],
    left_out: dict[str, int],
    seed: int,
    folds: int,
    by_profile: dict[str, Evaluation],
    by_source: dict[str, Evaluation],
    works: npt.NDArray[np.int64],
) -> dict[str, Any]:
    return {
        "forewarn": pipeline.__version__,
        "python": platform.python_version(),
        "libraries": {
            name: version(name) for name in ("numpy", "scipy", "scikit-learn", "PyStemmer")
        },
        "made": datetime.now(UTC).strftime("%Y-%m-%d"),
        "seed": seed,
        "folds": folds,
        "rows": len(corpus),
        "works": len(np.unique(works)),
        "data": corpus.fingerprints,
        "left_out": left_out,
        "held_out": {profile: score.to_dict() for profile, score in by_profile.items()},
        "held_out_by_file": {
            source: {k: v for k, v in score.to_dict().items() if k != "tags"}
            for source, score in by_source.items()
        },
    }

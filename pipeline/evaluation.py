"""How good suggestions are, on observed cells alone, with intervals over works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
LabelArray = npt.NDArray[np.int8]
IntArray = npt.NDArray[np.int64]
Interval = tuple[float, float]

RESAMPLES = 200
_BINS = 15


@dataclass(frozen=True)
class TagScore:
    """Figures of one tag; `support` and `known` count positive and observed cells."""

    tag: str
    support: int
    known: int
    precision: float
    recall: float
    f1: float
    f1_interval: Interval
    average_precision: float
    average_precision_interval: Interval


@dataclass(frozen=True)
class Evaluation:
    """Figures over all tags that have a positive; intervals are 95 % bootstraps over works."""

    rows: int
    works: int
    micro_f1: float
    micro_f1_interval: Interval
    macro_f1: float
    macro_f1_interval: Interval
    mean_average_precision: float
    mean_average_precision_interval: Interval
    micro_precision: float
    micro_recall: float
    expected_calibration_error: float
    brier: float
    tags: tuple[TagScore, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def evaluate(
    tag_ids: tuple[str, ...],
    probabilities: FloatArray,
    suggested: BoolArray,
    labels: LabelArray,
    works: IntArray,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Evaluation:
    """Score (n, tags) probabilities and suggestions against labels; those below 0 are unknown.

    Macro figures are means over the tags with at least one positive. Intervals resample works
    (n,), not rows, so that copies and sequels do not make them too narrow.
    """
    every = {"": suggested}
    return evaluate_each(tag_ids, probabilities, every, labels, works, seed, resamples)[""]


def evaluate_each(
    tag_ids: tuple[str, ...],
    probabilities: FloatArray,
    suggested: Mapping[str, BoolArray],
    labels: LabelArray,
    works: IntArray,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Evaluation]:
    """As `evaluate`, for several suggestions, by name, from the same probabilities.

    What only the probabilities decide, the average precisions most of all, is found once.
    """
    weights = _resample(works, resamples, seed)
    _, work_of_row = np.unique(works, return_inverse=True)
    scored = [t for t in range(len(tag_ids)) if (labels[:, t] == 1).any()]
    ap, ap_boot = _average_precisions(probabilities, labels, scored, weights, work_of_row)
    known = labels >= 0
    common: dict[str, Any] = {
        "rows": len(labels),
        "works": weights.shape[1],
        "mean_average_precision": _mean(ap),
        "mean_average_precision_interval": interval(_mean_of_known(ap_boot)),
        "expected_calibration_error": calibration_error(probabilities[known], labels[known] == 1),
        "brier": _mean((probabilities[known] - labels[known]) ** 2),
    }
    of_tag: list[dict[str, Any]] = [
        {
            "tag": tag_ids[t],
            "support": int((labels[:, t] == 1).sum()),
            "known": int(known[:, t].sum()),
            "average_precision": float(ap[place]),
            "average_precision_interval": interval(ap_boot[:, place]),
        }
        for place, t in enumerate(scored)
    ]
    evaluations = {}
    for name, flags in suggested.items():
        counts = _confusion(flags, labels)
        resampled = _resampled(counts, weights, work_of_row)
        micro, tags = _f1_figures(counts.sum(axis=0), resampled, scored)
        scores = [TagScore(**one, **other) for one, other in zip(of_tag, tags, strict=True)]
        evaluations[name] = Evaluation(**common, **micro, tags=tuple(scores))
    return evaluations


def _f1_figures(
    total: IntArray, resampled: FloatArray, scored: list[int]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Figures over all tags and of each tag scored, from (tags, 3) hits, false alarms and misses.

    `resampled`, (resamples, tags, 3), are the same of resampled works.
    """
    f1 = _f1(total)
    f1_boot = _known_f1(resampled)
    hits, false, missed = total.sum(axis=0)
    over_all = {
        "micro_f1": float(_f1(total.sum(axis=0))),
        "micro_f1_interval": interval(_f1(resampled.sum(axis=1))),
        "macro_f1": _mean(f1[scored]),
        "macro_f1_interval": interval(_mean_of_known(f1_boot[:, scored])),
        "micro_precision": _ratio(hits, hits + false),
        "micro_recall": _ratio(hits, hits + missed),
    }
    of_tag = [
        {
            "precision": _ratio(total[t, 0], total[t, 0] + total[t, 1]),
            "recall": _ratio(total[t, 0], total[t, 0] + total[t, 2]),
            "f1": float(f1[t]),
            "f1_interval": interval(f1_boot[:, t]),
        }
        for t in scored
    ]
    return over_all, of_tag


@dataclass(frozen=True)
class Bootstrap:
    """Figures of resampled works; with equal works and seed, resample i is the same works.

    `micro_f1`, `macro_f1` and `mean_average_precision` are (resamples,); `f1` and
    `average_precision` are (resamples, tags), NaN where a resample says nothing of a tag.
    """

    micro_f1: FloatArray
    macro_f1: FloatArray
    mean_average_precision: FloatArray
    f1: FloatArray
    average_precision: FloatArray


def bootstrap(
    probabilities: FloatArray,
    suggested: BoolArray,
    labels: LabelArray,
    works: IntArray,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Bootstrap:
    """The figures of `evaluate`, again for works (n,) drawn with replacement."""
    weights = _resample(works, resamples, seed)
    _, work_of_row = np.unique(works, return_inverse=True)
    scored = [t for t in range(labels.shape[1]) if (labels[:, t] == 1).any()]
    resampled = _resampled(_confusion(suggested, labels), weights, work_of_row)
    f1 = _known_f1(resampled)
    ap = np.full(f1.shape, np.nan)
    ap[:, scored] = _average_precisions(probabilities, labels, scored, weights, work_of_row)[1]
    return Bootstrap(
        micro_f1=_f1(resampled.sum(axis=1)),
        macro_f1=_mean_of_known(f1[:, scored]),
        mean_average_precision=_mean_of_known(ap[:, scored]),
        f1=f1,
        average_precision=ap,
    )


def micro_f1(
    suggested: BoolArray,
    labels: LabelArray,
    works: IntArray,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[float, Interval]:
    """Micro F1 of (n, tags) suggestions, with its 95 % bootstrap interval over works (n,)."""
    counts = _confusion(suggested, labels).sum(axis=1)
    _, work_of_row = np.unique(works, return_inverse=True)
    resampled = _resampled(counts, _resample(works, resamples, seed), work_of_row)
    return float(_f1(counts.sum(axis=0))), interval(_f1(resampled))


def calibration_error(probabilities: FloatArray, labels: BoolArray) -> float:
    """Expected calibration error over 15 bins of equal width (Naeini and others 2015)."""
    if not len(probabilities):
        return 0.0
    bins = np.minimum((probabilities * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(bins, probabilities - labels, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(probabilities))


def _confusion(suggested: BoolArray, labels: LabelArray) -> IntArray:
    true, false = labels == 1, labels == 0
    return np.stack([suggested & true, suggested & false, ~suggested & true], axis=2).astype(
        np.int64
    )


def _resampled(counts: IntArray, weights: FloatArray, work_of_row: IntArray) -> FloatArray:
    """(resamples, ...) sums of (n, ...) counts over works drawn (resamples, works) times each."""
    by_work = np.zeros((weights.shape[1], *counts.shape[1:]))
    np.add.at(by_work, work_of_row, counts)
    return np.asarray(np.tensordot(weights, by_work, axes=1))


def _known_f1(resampled: FloatArray) -> FloatArray:
    """F1 of (resamples, tags, 3) counts; a resample without a tag's positives says nothing."""
    return np.where(resampled[..., [0, 2]].sum(axis=2) > 0, _f1(resampled), np.nan)


def _f1(counts: npt.NDArray[Any]) -> FloatArray:
    hits, false, missed = counts[..., 0], counts[..., 1], counts[..., 2]
    return np.asarray(2 * hits / np.maximum(2 * hits + false + missed, 1))


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def _resample(works: IntArray, resamples: int, seed: int) -> FloatArray:
    count = len(np.unique(works))
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)


def _average_precisions(
    probabilities: FloatArray,
    labels: LabelArray,
    scored: list[int],
    weights: FloatArray,
    work_of_row: IntArray,
) -> tuple[FloatArray, FloatArray]:
    """(scored,) average precisions of tags, and (resamples, scored) of resampled works."""
    exact = np.zeros(len(scored))
    resampled = np.full((len(weights), len(scored)), np.nan)
    # How often a work is drawn, and sums of that, are small whole numbers.
    drawn = weights.astype(np.float32)
    for place, tag in enumerate(scored):
        known = np.flatnonzero(labels[:, tag] >= 0)
        truth, scores = labels[known, tag] == 1, probabilities[known, tag]
        exact[place] = average_precision_score(truth, scores)
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        # Tied scores are ranked together: each counts at the end of its run.
        ends = np.searchsorted(-ranked, -ranked, side="right")
        resampled[:, place] = _weighted_average_precision(
            truth[order], ends, drawn[:, work_of_row[known[order]]]
        )
    return exact, resampled


def _weighted_average_precision(
    truth: BoolArray, ends: IntArray, weights: npt.NDArray[np.float32]
) -> FloatArray:
    """(resamples,) average precision of ranked rows that count (resamples, rows) times each.

    `ends` is, for each row, the number of rows in its run of ties or before it.
    """
    hits = weights[:, truth].astype(np.float64)
    runs, run_of_hit = np.unique(ends[truth], return_inverse=True)
    between = np.add.reduceat(weights, np.append(0, runs[:-1]), axis=1)
    between[:, -1] = weights[:, runs[-2] if len(runs) > 1 else 0 : runs[-1]].sum(axis=1)
    ranked = np.cumsum(between, axis=1, dtype=np.float64)[:, run_of_hit]
    upto = np.searchsorted(np.flatnonzero(truth), ends[truth])
    found = np.cumsum(hits, axis=1)[:, upto - 1]
    precision = found / np.maximum(ranked, 1e-12)
    total = hits.sum(axis=1)
    mean = (precision * hits).sum(axis=1) / np.maximum(total, 1e-12)
    return np.where(total > 0, mean, np.nan)


def _mean(values: FloatArray) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def _mean_of_known(values: FloatArray) -> FloatArray:
    """(resamples,) means over tags, those without a figure (NaN) left out; NaN of no tags."""
    if not values.shape[1]:
        return np.full(len(values), np.nan)
    known = np.isfinite(values)
    return np.asarray(np.where(known, values, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1))


def interval(values: FloatArray) -> Interval:
    """The middle 95 % of values, those that are not known (NaN) left out."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 0.0
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)

"""How good suggestions are, on observed cells alone, with intervals over works."""

from __future__ import annotations

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
    boot = bootstrap(probabilities, suggested, labels, works, seed, resamples)
    scored = [t for t in range(len(tag_ids)) if (labels[:, t] == 1).any()]
    total = _confusion(suggested, labels).sum(axis=0)
    f1 = _f1(total)
    ap = {t: average_precision(probabilities[:, t], labels[:, t]) for t in scored}
    known = labels >= 0
    return Evaluation(
        rows=len(labels),
        works=len(np.unique(works)),
        micro_f1=float(_f1(total.sum(axis=0))),
        micro_f1_interval=interval(boot.micro_f1),
        macro_f1=float(np.mean(f1[scored])) if scored else 0.0,
        macro_f1_interval=interval(boot.macro_f1),
        mean_average_precision=float(np.mean(list(ap.values()))) if scored else 0.0,
        mean_average_precision_interval=interval(boot.mean_average_precision),
        micro_precision=_ratio(total[:, 0].sum(), total[:, 0].sum() + total[:, 1].sum()),
        micro_recall=_ratio(total[:, 0].sum(), total[:, 0].sum() + total[:, 2].sum()),
        expected_calibration_error=calibration_error(probabilities[known], labels[known] == 1),
        brier=float(np.mean((probabilities[known] - labels[known]) ** 2)) if known.any() else 0.0,
        tags=tuple(
            TagScore(
                tag=tag_ids[t],
                support=int((labels[:, t] == 1).sum()),
                known=int(known[:, t].sum()),
                precision=_ratio(total[t, 0], total[t, 0] + total[t, 1]),
                recall=_ratio(total[t, 0], total[t, 0] + total[t, 2]),
                f1=float(f1[t]),
                f1_interval=interval(boot.f1[:, t]),
                average_precision=ap[t],
                average_precision_interval=interval(boot.average_precision[:, t]),
            )
            for t in scored
        ),
    )


def calibration_error(probabilities: FloatArray, labels: BoolArray) -> float:
    """Expected calibration error over 15 bins of equal width (Naeini and others 2015)."""
    if not len(probabilities):
        return 0.0
    bins = np.minimum((probabilities * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(bins, probabilities - labels, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(probabilities))


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
    counts = _confusion(suggested, labels)
    by_work = np.zeros((weights.shape[1], *counts.shape[1:]))
    np.add.at(by_work, work_of_row, counts)
    resampled = np.tensordot(weights, by_work, axes=1)
    # A resample without a tag's positives says nothing of it.
    f1 = np.where(resampled[..., [0, 2]].sum(axis=2) > 0, _f1(resampled), np.nan)
    ap = np.full(f1.shape, np.nan)
    for tag in np.flatnonzero((labels == 1).any(axis=0)):
        ap[:, tag] = _average_precisions(
            probabilities[:, tag], labels[:, tag], weights[:, work_of_row]
        )
    scored = (labels == 1).any(axis=0)
    return Bootstrap(
        _f1(resampled.sum(axis=1)), _mean_of_known(f1[:, scored]), _mean_of_known(ap), f1, ap
    )


def average_precision(probabilities: FloatArray, labels: LabelArray) -> float:
    """Of one tag: (n,) probabilities and labels, those below 0 left out."""
    known = labels >= 0
    return float(average_precision_score(labels[known] == 1, probabilities[known]))


def micro_f1(
    suggested: BoolArray,
    labels: LabelArray,
    works: IntArray,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[float, Interval]:
    """Micro F1 of (n, tags) suggestions, with its 95 % bootstrap interval over works (n,)."""
    counts = _confusion(suggested, labels).sum(axis=1)
    weights = _resample(works, resamples, seed)
    _, work_of_row = np.unique(works, return_inverse=True)
    by_work = np.zeros((weights.shape[1], 3))
    np.add.at(by_work, work_of_row, counts)
    return float(_f1(counts.sum(axis=0))), interval(_f1(weights @ by_work))


def _confusion(suggested: BoolArray, labels: LabelArray) -> IntArray:
    true, false = labels == 1, labels == 0
    return np.stack([suggested & true, suggested & false, ~suggested & true], axis=2).astype(
        np.int64
    )


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
    probabilities: FloatArray, labels: LabelArray, weights: FloatArray
) -> FloatArray:
    """(resamples,) average precision of one tag; (resamples, n) weights count the rows."""
    known = labels >= 0
    truth, scores = labels[known] == 1, probabilities[known]
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    # Tied scores are ranked together: each counts at the end of its run.
    ends = np.searchsorted(-ranked, -ranked, side="right") - 1
    return _weighted_average_precision(truth[order], ends, weights[:, known][:, order])


def _weighted_average_precision(
    truth: BoolArray, ends: IntArray, weights: FloatArray
) -> FloatArray:
    """(resamples,) average precision of ranked rows that count (resamples, rows) times each."""
    hits = weights[:, truth]
    found = np.cumsum(weights * truth, axis=1)[:, ends[truth]]
    ranked = np.cumsum(weights, axis=1)[:, ends[truth]]
    precision = found / np.maximum(ranked, 1e-12)
    total = hits.sum(axis=1)
    mean = (precision * hits).sum(axis=1) / np.maximum(total, 1e-12)
    return np.where(total > 0, mean, np.nan)


def _mean_of_known(values: FloatArray) -> FloatArray:
    """(resamples,) means over tags, those without a figure (NaN) left out."""
    known = np.isfinite(values)
    return np.asarray(np.where(known, values, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1))


def interval(values: FloatArray) -> Interval:
    """The middle 95 % of values, those that are not known (NaN) left out."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 0.0
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)

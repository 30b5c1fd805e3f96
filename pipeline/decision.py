"""From log-odds to suggestions: calibrated probabilities, implied tags, thresholds by profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
LabelArray = npt.NDArray[np.int8]

PROFILES = ("balanced", "cautious", "strict")
"""Best F1; recall of at least 0.9; precision of at least 0.9 (where they can be reached)."""
TARGET = 0.9
_CALIBRATION_C = 10.0
_HALF_TRUST = 150
"""A tag with so many positives takes half of its threshold from all tags together."""
_GRID = np.linspace(-5.0, 4.0, 181)
_SMOOTHING = 0.3
# Quantiles of the logistic distribution, brought to about the spread of the standard normal.
_DRAWS = (np.log(np.arange(1, 20) / 20) - np.log1p(-np.arange(1, 20) / 20)) / 1.7


@dataclass(frozen=True)
class Thresholds:
    """(tags,) probabilities from which a tag is suggested, for each profile.

    `reached` says for each tag whether the profile's target was met on held-out rows.
    """

    values: dict[str, FloatArray]
    reached: dict[str, npt.NDArray[np.bool_]]


def sigmoid(logits: FloatArray) -> FloatArray:
    """Probabilities of log-odds, without overflow."""
    return np.exp(-np.logaddexp(0.0, -logits))


def close(scores: FloatArray, implications: Sequence[tuple[int, int]]) -> FloatArray:
    """(n, tags) scores in which no broader tag scores below a narrower one.

    `implications` holds (narrow, broad) columns, narrowest first.
    """
    closed = scores.copy()
    for narrow, broad in implications:
        np.maximum(closed[:, broad], closed[:, narrow], out=closed[:, broad])
    return closed


def flag(
    probabilities: FloatArray, cut: FloatArray | float, implications: Sequence[tuple[int, int]]
) -> npt.NDArray[np.bool_]:
    """(n, tags) which tags reach their threshold; each brings its broader ones along."""
    return close((probabilities >= cut).astype(np.float64), implications) > 0


def fit_calibration(logits: FloatArray, labels: LabelArray) -> tuple[float, float]:
    """Slope and intercept that turn (n,) out-of-fold log-odds into calibrated ones.

    Platt's sigmoid (Platt 1999, "Probabilistic outputs for support vector machines"), fitted by
    scikit-learn's logistic regression. The slope is never negative.
    """
    from sklearn.linear_model import LogisticRegression

    scale = max(float(np.std(logits)), 1e-9)
    truth = labels == 1
    if truth.all() or not truth.any():
        return 1.0, 0.0
    sigmoid_fit = LogisticRegression(C=_CALIBRATION_C, max_iter=1000, tol=1e-8)
    sigmoid_fit.fit((logits / scale)[:, None], truth)
    slope, intercept = sigmoid_fit.coef_[0, 0] / scale, sigmoid_fit.intercept_[0]
    return max(float(slope), 1e-3), float(intercept)


def choose_thresholds(probabilities: FloatArray, labels: LabelArray) -> Thresholds:
    """Thresholds for each profile from (n, tags) held-out probabilities and labels.

    `balanced` seeks the best F1: of each tag's smoothed curve, and, the fewer its positives, of
    all tags together, since the best point of a short curve is mostly luck.

    Unknown cells (below 0) are left out. A profile's target may be out of reach for a tag: then
    `cautious` takes what `balanced` takes or more, and `strict` the most precise threshold that
    still finds something. A cautious threshold is never above the balanced one, nor a strict
    one below it, so the suggestions of the profiles are nested.
    """
    tags = probabilities.shape[1]
    common = _best_threshold(probabilities[labels >= 0], labels[labels >= 0] == 1)
    values = {profile: np.full(tags, 0.5) for profile in PROFILES}
    reached = {profile: np.zeros(tags, dtype=bool) for profile in PROFILES}
    for tag in range(tags):
        known = labels[:, tag] >= 0
        chosen = _tag_thresholds(probabilities[known, tag], labels[known, tag] == 1, common)
        for profile, (threshold, met) in chosen.items():
            values[profile][tag], reached[profile][tag] = threshold, met
    return Thresholds(values, reached)


def _best_threshold(scores: FloatArray, labels: npt.NDArray[np.bool_]) -> float:
    """The probability of best F1 on a curve smoothed in log-odds."""
    if not labels.any():
        return 0.5
    logits = np.sort(_logit(scores))
    hits = np.sort(_logit(scores[labels]))
    # The share of scores above a soft threshold is the mean over thresholds drawn around it.
    soft = _GRID[:, None] + _SMOOTHING * _DRAWS
    suggested = (len(logits) - np.searchsorted(logits, soft)).mean(axis=1)
    found = (len(hits) - np.searchsorted(hits, soft)).mean(axis=1)
    best = int(np.argmax(2 * found / (suggested + len(hits))))
    return float(sigmoid(_GRID[best : best + 1])[0])


def _logit(probabilities: FloatArray | float) -> FloatArray:
    p = np.clip(probabilities, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(p) - np.log1p(-p))


def _tag_thresholds(
    scores: FloatArray, labels: npt.NDArray[np.bool_], common: float
) -> dict[str, tuple[float, bool]]:
    if not labels.any():
        return dict.fromkeys(PROFILES, (1.0, False))
    trust = labels.sum() / (labels.sum() + _HALF_TRUST)
    own = _best_threshold(scores, labels)
    shrunk = float(sigmoid(trust * _logit(own) + (1 - trust) * _logit(common)))
    best = min(shrunk, float(scores.max()))
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(labels[order])
    last_of_ties = np.append(ranked[1:] < ranked[:-1], True)
    rank = np.flatnonzero(last_of_ties)
    found, suggested = hits[rank], rank + 1
    below = np.append(ranked[1:], 0.0)[rank]
    middle = (ranked[rank] + below) / 2
    cuts = np.where(middle > below, middle, ranked[rank])
    precision, recall = found / suggested, found / labels.sum()
    enough = np.flatnonzero(recall >= TARGET)
    cautious = min(float(cuts[enough[0]]), best)
    precise = np.flatnonzero((precision >= TARGET) & (found >= min(3, labels.sum())))
    strict_at = int(precise[-1]) if len(precise) else int(np.argmax(precision * (found > 0)))
    strict = max(float(cuts[strict_at]), best)
    kept = labels[scores >= strict]
    # Recall of 0.9 is always reached by suggesting everything; that is not worth the name.
    useful = float(precision[enough[0]]) > labels.mean() * 1.5
    return {
        "balanced": (best, True),
        "cautious": (cautious, useful),
        "strict": (strict, bool(len(kept)) and float(kept.mean()) >= TARGET),
    }

"""One linear classifier a tag: logistic regression on TF-IDF scaled by log-count ratios."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression

FloatArray = npt.NDArray[np.float64]

REGULARISATION = 5.0
"""Inverse strength of the L2 penalty (scikit-learn's C)."""
SMOOTHING = 0.5
"""Pseudo-count of the log-count ratios."""
BALANCE = 0.5
"""Exponent of the class weights: 0 leaves the classes as they are, 1 balances them."""


def fit_tag(
    features: sparse.csr_matrix,
    labels: npt.NDArray[np.bool_],
    weights: FloatArray,
    seed: int = 0,
) -> tuple[FloatArray, float]:
    """Fit one tag.

    Args:
        features: (n, features) TF-IDF rows.
        labels: (n,) whether the row has the tag; both values occur.
        weights: (n,) what each row counts.
        seed: seed of the solver's order of rows.

    Returns:
        (features,) weights and a bias, in log-odds.

    The features are scaled by their naive-Bayes log-count ratio before a logistic regression
    (Wang and Manning 2012, "Baselines and bigrams: simple, good sentiment and topic
    classification"), here with the ratios' mean square brought to 1, so that one penalty suits
    frequent and rare tags alike.
    """
    ratio = log_count_ratio(features, labels, weights)
    share = np.average(labels, weights=weights)
    model = LogisticRegression(
        C=REGULARISATION,
        solver="liblinear",
        dual=True,
        class_weight=_class_weight(float(share)),
        tol=0.02,
        max_iter=300,
        random_state=seed,
    )
    model.fit(features @ sparse.diags(ratio), labels, sample_weight=weights)
    return cast(FloatArray, model.coef_[0] * ratio), float(model.intercept_[0])


def log_count_ratio(
    features: sparse.csr_matrix, labels: npt.NDArray[np.bool_], weights: FloatArray
) -> FloatArray:
    """(features,) log ratio of each feature's rate in rows with the tag to that in rows without.

    The ratios are scaled to a mean square of 1 over the features' occurrences with the tag.
    """
    present = features.copy()
    present.data = np.ones_like(present.data)
    positives, negatives = weights * labels, weights * ~labels
    with_tag, without = present.T @ positives, present.T @ negatives
    ratio = np.log((with_tag + SMOOTHING) / (positives.sum() + 2 * SMOOTHING))
    ratio -= np.log((without + SMOOTHING) / (negatives.sum() + 2 * SMOOTHING))
    scale = np.sqrt(np.average(ratio**2, weights=with_tag + 1e-9))
    return cast(FloatArray, ratio / max(float(scale), 1e-9))


def tfidf(counts: sparse.csr_matrix) -> TfidfTransformer:
    """The weighting fitted on (n, features) presence counts: idf, L2-normalised rows."""
    return TfidfTransformer().fit(counts)


def _class_weight(share: float) -> dict[Any, float]:
    raised = ((1 - share) / share) ** BALANCE
    scale = share * raised + (1 - share)
    return {True: raised / scale, False: 1 / scale}

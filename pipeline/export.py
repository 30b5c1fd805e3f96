"""A model as a stock scikit-learn pipeline, for people who want one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import LabelBinarizer

from pipeline.decision import FloatArray, close
from pipeline.draft import open_target
from pipeline.errors import ModelError
from pipeline.features import analyze
from pipeline.model import AnyModel, Model, to_document


class ClosedClassifier(OneVsRestClassifier):  # type: ignore[misc]
    """One-vs-rest whose broader tags are never less probable than their narrower ones."""

    implications: tuple[tuple[int, int], ...] = ()

    def predict_proba(self, X: Any) -> FloatArray:
        """(n, tags) probabilities, columns in the taxonomy's order."""
        return close(super().predict_proba(X), self.implications)


def analyze_given(document: str) -> list[str]:
    """Feature names of a document as a catalogue writes it: title, newline, synopsis."""
    title, _, synopsis = document.partition("\n")
    return analyze(to_document(title, synopsis))


def to_pipeline(model: Model) -> Pipeline:
    """The same model as scikit-learn's vectorizer and logistic regressions.

    Its input are strings of title, newline, synopsis, as a catalogue writes them.
    Its `predict_proba` gives an (n, tags) array in the taxonomy's order.
    """
    vectorizer = TfidfVectorizer(analyzer=analyze_given, binary=True, vocabulary=model.vocabulary)
    vectorizer.idf_ = model.idf.astype(np.float64)
    classifier = ClosedClassifier(LogisticRegression())
    classifier.implications = model.implications
    classifier.classes_ = np.array(model.tags)
    classifier.label_binarizer_ = LabelBinarizer().fit(range(len(model.tags)))
    classifier.label_binarizer_.y_type_ = "multilabel-indicator"
    classifier.label_binarizer_.classes_ = np.array(model.tags)
    classifier.n_features_in_ = len(model.vocabulary)
    classifier.estimators_ = [
        _regression(model.weights[:, tag].astype(np.float64), float(model.bias[tag]))
        for tag in range(len(model.tags))
    ]
    return Pipeline([("features", vectorizer), ("classifier", classifier)])


def export_joblib(model: AnyModel, path: str | Path) -> None:
    """Write `to_pipeline(model)` by joblib, whole or not at all.

    A joblib file runs code when it is loaded: load none that you did not make. Forewarn's own
    commands never load one.

    Raises:
        ModelError: the model is not linear.
        TableError: the file cannot be written.
    """
    if not isinstance(model, Model):
        raise ModelError("only a linear model can be a scikit-learn pipeline; export default")
    with open_target(str(path)) as sink:
        # A target that ends in .gz is packed already.
        joblib.dump(to_pipeline(model), sink, compress=0 if str(path).endswith(".gz") else 3)


def _regression(weights: FloatArray, bias: float) -> LogisticRegression:
    regression = LogisticRegression()
    regression.classes_ = np.array([0, 1])
    regression.coef_ = weights[None, :]
    regression.intercept_ = np.array([bias])
    regression.n_features_in_ = len(weights)
    return regression

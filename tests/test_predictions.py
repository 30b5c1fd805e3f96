"""What a model says of a labelled corpus, row by row."""

from __future__ import annotations

import numpy as np
import pytest
from harbour import harbour_corpus, harbour_model, harbour_predictions

from pipeline import predictions
from pipeline.predictions import learnt_from, predict_corpus


def test_each_profile_has_its_suggestions() -> None:
    found = harbour_predictions()
    assert list(found.suggested) == ["balanced", "cautious", "strict"]
    storm = found.suggested["balanced"][:, 0]
    # The ferry's wreck brings the storm along; the calm after one is not sure enough.
    assert np.flatnonzero(storm).tolist() == [0, 1, 3, 6, 8]
    assert (found.suggested["strict"] <= found.suggested["balanced"]).all()
    assert (found.suggested["balanced"] <= found.suggested["cautious"]).all()


def test_a_threshold_comes_first_and_the_profiles_stay() -> None:
    found = harbour_predictions(threshold=0.2)
    assert list(found.suggested) == ["threshold 0.2", "balanced", "cautious", "strict"]
    assert found.suggested["threshold 0.2"][5, 0]


def test_figures_count_known_cells_alone() -> None:
    score = harbour_predictions().evaluate("balanced")
    storm = score.tags[0]
    assert (storm.support, storm.known) == (3, 8)
    assert (storm.precision, storm.recall) == (2 / 5, 2 / 3)


def test_labels_are_those_of_the_models_tags() -> None:
    corpus, model = harbour_corpus(), harbour_model()
    one = predict_corpus(model, corpus)
    assert np.array_equal(one.labels, corpus.labels)


def test_a_long_corpus_is_read_in_parts_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(predictions, "_CHUNK", 100)
    corpus = harbour_corpus().select(np.tile(np.arange(9), 30))
    told: list[tuple[int, int]] = []
    found = predict_corpus(
        harbour_model(), corpus, progress=lambda done, total: told.append((done, total))
    )
    assert np.allclose(found.probabilities[:9], harbour_predictions().probabilities)
    assert np.allclose(found.probabilities[-9:], harbour_predictions().probabilities)
    assert told == [(100, 270), (200, 270), (270, 270)]


def test_a_file_that_the_model_learnt_from_is_named() -> None:
    corpus, model = harbour_corpus(), harbour_model()
    assert learnt_from(model, corpus, "mine") == ()
    model.provenance["data"]["renamed.csv"] = corpus.fingerprints["harbour.csv"]
    (remark,) = learnt_from(model, corpus, "mine")
    assert remark.startswith("mine was trained on harbour.csv")

"""Where a model goes right and wrong, counted on nine rows."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from harbour import harbour_corpus, harbour_model, harbour_predictions
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import precision_recall_curve

from pipeline import diagnosis
from pipeline.diagnosis import Diagnosis, TagDiagnosis, diagnose
from pipeline.model import Evidence
from pipeline.predictions import predict_corpus


@pytest.fixture(scope="module")
def found() -> Diagnosis:
    return diagnose(harbour_predictions(), harbour_model(), "balanced")


@pytest.fixture(scope="module")
def storm(found: Diagnosis) -> TagDiagnosis:
    return found.tags[0]


def test_tags_without_a_positive_are_left_out() -> None:
    corpus = harbour_corpus()
    calm = corpus.labels.copy()
    calm[:, 1] = 0
    told: list[tuple[int, int]] = []
    model = harbour_model()
    found = diagnose(
        predict_corpus(model, replace(corpus, labels=calm)),
        model,
        "balanced",
        lambda done, total: told.append((done, total)),
    )
    assert [item.tag.id for item in found.tags] == ["storm", "bees"]
    assert told == [(1, 2), (2, 2)]


def test_a_point_is_the_recall_and_precision_of_a_profiles_suggestions(storm: TagDiagnosis) -> None:
    assert storm.scores.points["balanced"] == (2 / 3, 2 / 5)
    assert storm.scores.thresholds == {"balanced": 0.5, "cautious": 0.04, "strict": 0.94}


def test_suggestions_that_are_none_have_no_point() -> None:
    found = diagnose(harbour_predictions(threshold=1.0), harbour_model(), "balanced")
    assert list(found.tags[0].scores.points) == ["balanced", "cautious", "strict"]


def test_distributions_are_shares_of_either_label(found: Diagnosis) -> None:
    for scores in (found.overall, *(item.scores for item in found.tags)):
        assert math.isclose(scores.positive.sum(), 1)
        assert math.isclose(scores.negative.sum(), 1)


def test_calibration_counts_cells_of_like_probability(found: Diagnosis) -> None:
    low = found.overall.bins[0]
    known = harbour_corpus().labels >= 0
    p = harbour_predictions().probabilities
    inside = known & (p < 0.1)
    assert low.cells == inside.sum()
    assert low.share == (harbour_corpus().labels[inside] == 1).mean()
    assert low.interval[0] <= low.share <= low.interval[1]


def test_the_matrix_has_recall_on_its_diagonal(found: Diagnosis) -> None:
    names = [item.tag.id for item in found.tags]
    assert names == ["storm", "wreck", "bees"]
    assert np.allclose(np.diag(found.together), [2 / 3, 1, 1])
    # Of three storms one is a wreck's; of two rows with bees one gets a storm.
    assert found.together[0, 1] == pytest.approx(1 / 3)
    assert found.together[2, 0] == pytest.approx(1 / 2)


def test_a_confusion_is_a_false_alarm_beside_another_tag(found: Diagnosis) -> None:
    (pair,) = found.confusions
    assert (pair.true.id, pair.suggested.id, pair.rows, pair.share) == ("bees", "storm", 1, 0.5)


def test_phrases_come_in_the_words_of_the_corpus_with_their_mean_effect(
    storm: TagDiagnosis,
) -> None:
    (phrase,) = storm.phrases_for
    # Alone in three rows; beside one other known word, of equal weight, in two.
    assert phrase.rows == 5
    assert phrase.weight == pytest.approx(6 * (3 + 2 * math.sqrt(0.5)) / 5)
    assert (phrase.text, phrase.denied) == ("storm", False)
    assert phrase.positive == 1 / 4  # of the four rows whose label is known


def test_a_phrase_of_one_or_two_rows_is_not_shown(found: Diagnosis) -> None:
    assert found.tags[1].phrases_for == ()
    assert found.tags[0].phrases_against == ()


def test_a_denied_word_is_named_so() -> None:
    corpus = harbour_corpus()
    never = tuple(f"There was never a storm in the town of {name}." for name in "ABCDEFGHI")
    model = replace(harbour_model(), vocabulary=("bee", "calm", "sank", "¬storm"))
    found = diagnose(predict_corpus(model, replace(corpus, synopses=never)), model, "balanced")
    (phrase,) = found.tags[0].phrases_for
    assert (phrase.text, phrase.denied) == ("storm", True)


def test_mistakes_are_of_different_works_with_their_evidence(storm: TagDiagnosis) -> None:
    assert [(m.missed, "".join(text for text, _ in m.title)) for m in storm.mistakes] == [
        (False, "Applause"),
        (False, "Orchard"),
        (True, "Breakers"),
    ]
    alarm, _, miss = storm.mistakes
    assert [text for text, marked in alarm.synopsis if marked] == ["storm"]
    assert not any(marked for _, marked in miss.synopsis)
    assert alarm.probability == pytest.approx(1 / (1 + math.exp(-3)), abs=1e-6)
    assert alarm.margin == pytest.approx(3, abs=1e-4)  # from a threshold of one half


def test_the_worst_are_the_furthest_from_the_threshold(found: Diagnosis) -> None:
    assert [mistake.missed for mistake in found.worst] == [False, True]
    alarms = [m for item in found.tags for m in item.mistakes if not m.missed]
    assert found.worst[0].margin == max(mistake.margin for mistake in alarms)


def test_mistakes_of_a_threshold_are_measured_from_it() -> None:
    found = diagnose(harbour_predictions(threshold=0.2), harbour_model(), "threshold 0.2")
    alarm = found.tags[0].mistakes[0]
    assert alarm.margin == pytest.approx(3 + math.log(4), abs=1e-3)


def test_catalogues_count_rows_works_and_label_states(found: Diagnosis) -> None:
    north, south = found.catalogues
    assert (north.name, north.rows, north.works) == ("north", 5, 5)
    assert south.states == {"yes": 1, "no": 9, "maybe": 1, "unknown": 1}
    assert south.support.tolist() == [0, 0, 1]
    assert south.known.tolist() == [3, 4, 3]


def test_the_smallest_of_many_catalogues_are_taken_together() -> None:
    corpus = harbour_corpus().select(np.tile(np.arange(9), 2))
    many = replace(corpus, catalogues=tuple(f"c{n}" for n in range(18)))
    found = diagnose(predict_corpus(harbour_model(), many), harbour_model(), "balanced")
    assert len(found.catalogues) == diagnosis.CATALOGUES
    assert found.catalogues[-1].name == "7 smaller ones"
    assert sum(c.rows for c in found.catalogues) == 18


@given(
    st.text(max_size=40),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=5),
)
def test_a_text_in_pieces_is_still_that_text(text: str, spans: list[tuple[int, int]]) -> None:
    evidence = [
        Evidence(text[a:b], a, b, 1.0) for a, b in spans if a < b and b <= len(text)
    ]  # fmt: skip
    pieces = diagnosis._cut(text, evidence)
    assert "".join(piece for piece, _ in pieces) == text
    marked = sum(len(piece) for piece, is_evidence in pieces if is_evidence)
    assert marked == len({place for e in evidence for place in range(e.start, e.end)})


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.bool_, st.integers(2, 400)), st.integers(0, 1000))
def test_a_thinned_curve_is_short_and_keeps_its_ends(
    truth: np.ndarray[tuple[int], np.dtype[np.bool_]], seed: int
) -> None:
    truth[0] = True
    scores = np.random.default_rng(seed).random(len(truth))
    precision, recall, _ = precision_recall_curve(truth, scores)
    kept = diagnosis._thinned(recall, precision)
    assert len(kept) <= 101
    assert (kept[0], kept[-1]) == (0, len(recall) - 1)
    assert (np.diff(kept) > 0).all()

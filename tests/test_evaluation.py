"""Figures on observed cells alone, with intervals over works."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    f1_score,
    precision_score,
    recall_score,
)

from pipeline.evaluation import calibration_error, evaluate, evaluate_each

TAGS = ("spiders", "heights", "deep-water")
few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 10_000)


def made_up(seed, rows=120, unknown=0.0):
    """Probabilities without ties, suggestions, labels with positives of every tag, and works."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((rows, 3)) < [0.5, 0.3, 0.2]).astype(np.int8)
    labels[:2] = [[1, 1, 1], [0, 0, 0]]
    hidden = rng.random(labels.shape) < unknown
    hidden[:2] = False
    probabilities = 0.6 * rng.random(labels.shape) + 0.4 * labels
    labels[hidden] = -1
    return probabilities, probabilities > 0.5, labels, rng.integers(0, rows // 2, rows)


def figures(evaluation):
    return json.dumps(evaluation.to_dict(), sort_keys=True)


class TestFigures:
    @given(seeds)
    @few
    def test_fully_observed_figures_are_those_of_scikit_learn(self, seed):
        probabilities, suggested, labels, works = made_up(seed)
        got = evaluate(TAGS, probabilities, suggested, labels, works, resamples=2)
        same = pytest.approx
        for average, f1 in [("micro", got.micro_f1), ("macro", got.macro_f1)]:
            assert f1 == same(f1_score(labels, suggested, average=average, zero_division=0))
        assert got.micro_precision == same(precision_score(labels, suggested, average="micro"))
        assert got.micro_recall == same(recall_score(labels, suggested, average="micro"))
        assert got.mean_average_precision == same(
            average_precision_score(labels, probabilities, average="macro")
        )
        assert got.brier == same(brier_score_loss(labels.ravel(), probabilities.ravel()))
        for tag, score in enumerate(got.tags):
            truth, said = labels[:, tag], suggested[:, tag]
            assert score.f1 == same(f1_score(truth, said))
            assert score.precision == same(precision_score(truth, said))
            assert score.recall == same(recall_score(truth, said))
            assert score.average_precision == same(
                average_precision_score(truth, probabilities[:, tag])
            )
            assert (score.support, score.known) == (truth.sum(), len(truth))

    @given(seeds)
    @few
    def test_a_tag_is_scored_on_its_known_rows(self, seed):
        probabilities, suggested, labels, works = made_up(seed, unknown=0.4)
        for tag, score in enumerate(
            evaluate(TAGS, probabilities, suggested, labels, works, resamples=2).tags
        ):
            known = labels[:, tag] >= 0
            truth = labels[known, tag]
            assert score.known == known.sum()
            assert score.f1 == pytest.approx(f1_score(truth, suggested[known, tag]))
            assert score.average_precision == pytest.approx(
                average_precision_score(truth, probabilities[known, tag])
            )

    @given(seeds, st.data())
    @few
    def test_unknown_cells_do_not_matter(self, seed, data):
        probabilities, suggested, labels, works = made_up(seed, rows=30, unknown=0.5)
        flips = data.draw(hnp.arrays(np.bool_, labels.shape)) & (labels < 0)
        other = np.where(flips, 1 - probabilities, probabilities)
        first = evaluate(TAGS, probabilities, suggested, labels, works, resamples=10)
        second = evaluate(TAGS, other, suggested ^ flips, labels, works, resamples=10)
        assert figures(first) == figures(second)

    def test_a_known_cell_matters(self):
        probabilities, suggested, labels, works = made_up(seed=1, unknown=0.5)
        flipped = suggested.copy()
        flipped[0, 0] ^= True
        first = evaluate(TAGS, probabilities, suggested, labels, works, resamples=2)
        second = evaluate(TAGS, probabilities, flipped, labels, works, resamples=2)
        assert first.micro_f1 != second.micro_f1

    def test_a_tag_without_positives_is_left_out_of_the_means(self):
        probabilities, suggested, labels, works = made_up(seed=2)
        labels[:, 2] = 0
        got = evaluate(TAGS, probabilities, suggested, labels, works, resamples=2)
        assert [score.tag for score in got.tags] == ["spiders", "heights"]
        assert got.macro_f1 == pytest.approx(np.mean([score.f1 for score in got.tags]))
        assert got.micro_precision < precision_score(
            labels[:, :2], suggested[:, :2], average="micro"
        )

    def test_nothing_known_scores_nothing(self):
        probabilities, suggested, labels, works = made_up(seed=3)
        got = evaluate(TAGS, probabilities, suggested, np.full_like(labels, -1), works)
        assert got.tags == ()
        assert (got.micro_f1, got.macro_f1, got.mean_average_precision) == (0, 0, 0)

    def test_perfect_suggestions_score_one(self):
        _, _, labels, works = made_up(seed=4)
        got = evaluate(TAGS, labels.astype(float), labels == 1, labels, works, resamples=20)
        assert (got.micro_f1, got.macro_f1, got.mean_average_precision) == (1, 1, 1)
        assert (got.brier, got.expected_calibration_error) == (0, 0)
        assert got.micro_f1_interval == (1, 1)

    def test_rows_and_works_are_counted(self):
        probabilities, suggested, labels, _ = made_up(seed=5, rows=6)
        got = evaluate(TAGS, probabilities, suggested, labels, np.array([7, 7, 3, 3, 3, 9]))
        assert (got.rows, got.works) == (6, 3)


class TestCalibrationError:
    def test_honest_probabilities_have_none(self):
        truth = np.array([True] * 3 + [False] * 7)
        assert calibration_error(np.full(10, 0.3), truth) == pytest.approx(0)

    def test_it_is_the_gap_between_promise_and_rate(self):
        truth = np.array([True] * 3 + [False] * 7)
        assert calibration_error(np.full(10, 0.9), truth) == pytest.approx(0.6)

    def test_gaps_of_two_bins_do_not_cancel(self):
        probabilities = np.array([0.2] * 10 + [0.8] * 10)
        truth = np.array([True] * 4 + [False] * 6 + [True] * 6 + [False] * 4)
        assert calibration_error(probabilities, truth) == pytest.approx(0.2)

    def test_certainty_has_a_bin(self):
        assert calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0

    def test_nothing_has_none(self):
        assert calibration_error(np.zeros(0), np.zeros(0, dtype=bool)) == 0


class TestEach:
    @given(seeds)
    @few
    def test_several_suggestions_have_the_figures_that_each_has_alone(self, seed):
        probabilities, _, labels, works = made_up(seed, unknown=0.2)
        suggested = {str(cut): probabilities > cut for cut in (0.2, 0.5, 0.9)}
        together = evaluate_each(TAGS, probabilities, suggested, labels, works, resamples=20)
        assert list(together) == list(suggested)
        for name, flags in suggested.items():
            alone = evaluate(TAGS, probabilities, flags, labels, works, resamples=20)
            assert figures(together[name]) == figures(alone)

    @given(seeds)
    @few
    def test_a_resample_has_the_average_precision_of_its_rows_repeated(self, seed):
        probabilities, suggested, labels, works = made_up(seed, rows=60)
        probabilities = probabilities.round(1)
        drawn = np.random.default_rng(0).multinomial(
            len(np.unique(works)), np.full(len(np.unique(works)), 1 / len(np.unique(works)))
        )
        rows = np.repeat(np.arange(60), drawn[np.unique(works, return_inverse=True)[1]])
        got = evaluate(TAGS, probabilities, suggested, labels, works, resamples=1)
        for tag, score in enumerate(got.tags):
            if labels[rows, tag].any():
                expected = average_precision_score(labels[rows, tag], probabilities[rows, tag])
                assert score.average_precision_interval[0] == pytest.approx(expected)


class TestIntervals:
    @given(seeds)
    @few
    def test_intervals_contain_the_estimate(self, seed):
        got = evaluate(TAGS, *made_up(seed, rows=200))
        pairs = [
            (got.micro_f1, got.micro_f1_interval),
            (got.macro_f1, got.macro_f1_interval),
            (got.mean_average_precision, got.mean_average_precision_interval),
            *((score.f1, score.f1_interval) for score in got.tags),
            *((score.average_precision, score.average_precision_interval) for score in got.tags),
        ]
        for estimate, (low, high) in pairs:
            assert 0 <= low < estimate < high <= 1

    @given(seeds)
    @few
    def test_copies_in_one_work_do_not_narrow_the_interval(self, seed):
        probabilities, suggested, labels, _ = made_up(seed, rows=40)
        works = np.arange(40)
        single = evaluate(TAGS, probabilities, suggested, labels, works)
        fivefold = [np.repeat(array, 5, axis=0) for array in (probabilities, suggested, labels)]
        copied = evaluate(TAGS, *fivefold, np.repeat(works, 5))
        assert copied.works == single.works == 40
        assert copied.micro_f1_interval == pytest.approx(single.micro_f1_interval)
        assert copied.macro_f1_interval == pytest.approx(single.macro_f1_interval)
        apart = evaluate(TAGS, *fivefold, np.arange(200))
        assert np.ptp(apart.micro_f1_interval) < np.ptp(copied.micro_f1_interval)

    def test_one_work_alone_has_no_spread(self):
        probabilities, suggested, labels, works = made_up(seed=6)
        got = evaluate(TAGS, probabilities, suggested, labels, np.zeros_like(works))
        assert got.micro_f1_interval == pytest.approx((got.micro_f1, got.micro_f1))
        score = got.tags[0]
        assert score.average_precision_interval == pytest.approx((score.average_precision,) * 2)

    def test_names_of_works_do_not_matter(self):
        probabilities, suggested, labels, works = made_up(seed=7)
        first = evaluate(TAGS, probabilities, suggested, labels, works)
        second = evaluate(TAGS, probabilities, suggested, labels, 1000 + 17 * works)
        assert figures(first) == figures(second)

    def test_a_seed_gives_the_same_intervals_again(self):
        data = made_up(seed=8)
        assert figures(evaluate(TAGS, *data, seed=3)) == figures(evaluate(TAGS, *data, seed=3))
        assert figures(evaluate(TAGS, *data, seed=3)) != figures(evaluate(TAGS, *data, seed=4))

    @pytest.mark.parametrize("name", ["macro_f1_interval", "mean_average_precision_interval"])
    def test_rare_tags_do_not_pull_the_interval_off_the_estimate(self, name):
        labels = np.eye(30, dtype=np.int8)
        tags = tuple(f"tag-{n}" for n in range(30))
        got = evaluate(tags, labels * 0.8 + 0.1, labels == 1, labels, np.arange(30))
        assert got.macro_f1 == got.mean_average_precision == 1
        low, high = getattr(got, name)
        assert low <= 1 <= high

    def test_tied_probabilities_keep_the_interval_on_the_estimate(self):
        labels = np.array([[1]] * 20 + [[0]] * 20, dtype=np.int8)
        tied = np.full((40, 1), 0.5)
        (score,) = evaluate(("spiders",), tied, tied > 0.4, labels, np.arange(40)).tags
        low, high = score.average_precision_interval
        assert low <= score.average_precision <= high

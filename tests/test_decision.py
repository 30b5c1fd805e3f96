"""From log-odds to suggestions: calibration, implied tags and the thresholds of each profile."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.decision import (
    PROFILES,
    TARGET,
    choose_thresholds,
    close,
    fit_calibration,
    sigmoid,
)

calm = settings(deadline=None)

seeds = st.integers(0, 10_000)


def log_loss(logits, labels):
    return float(np.mean(np.logaddexp(0, logits) - labels * logits))


def draw_labels(seed, rows=2000):
    """True log-odds, and labels that are drawn from them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 1.5, rows)
    return logits, (rng.random(rows) < sigmoid(logits)).astype(np.int8)


@st.composite
def judged(draw):
    """Probabilities, with ties, and labels of one to three tags."""
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 3)))
    steps = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 20)))
    labels = draw(hnp.arrays(np.int8, shape, elements=st.sampled_from([1, 0, -1])))
    return steps / 20, labels


def made_up(seed, rows):
    """Honest probabilities of two tags, one rarer than the other, and labels without unknowns."""
    rng = np.random.default_rng(seed)
    probabilities = sigmoid(rng.normal([-0.5, -1.5], 2.5, (rows, 2)))
    return probabilities, (rng.random((rows, 2)) < probabilities).astype(np.int8)


def tallies(probabilities, labels, thresholds, profile):
    """(hits, suggested, positives) of each tag, on the known cells."""
    suggested = (probabilities >= thresholds.values[profile]) & (labels >= 0)
    hits = (suggested & (labels == 1)).sum(axis=0)
    return list(zip(hits, suggested.sum(axis=0), (labels == 1).sum(axis=0), strict=True))


class TestSigmoid:
    def test_even_odds_are_a_half(self):
        assert sigmoid(np.array([0.0]))[0] == pytest.approx(0.5)

    def test_huge_odds_do_not_overflow(self):
        with np.errstate(over="raise"):
            assert sigmoid(np.array([-1e6, 1e6])).tolist() == [0.0, 1.0]

    @calm
    @given(st.floats(-30, 30))
    def test_it_undoes_log_odds(self, logit):
        p = sigmoid(np.array([logit]))[0]
        assert np.log(p) - np.log(sigmoid(np.array([-logit]))[0]) == pytest.approx(logit, abs=1e-6)


class TestCalibration:
    @calm
    @given(
        hnp.arrays(np.float64, 30, elements=st.floats(-20, 20)),
        hnp.arrays(np.int8, 30, elements=st.integers(0, 1)),
    )
    def test_it_keeps_the_order_of_scores(self, logits, labels):
        slope, intercept = fit_calibration(logits, labels)
        calibrated = slope * np.sort(logits) + intercept
        assert slope > 0
        assert np.isfinite(calibrated).all()
        assert (np.diff(calibrated) >= 0).all()

    @given(seeds)
    @settings(max_examples=20, deadline=None)
    def test_true_log_odds_are_left_nearly_alone(self, seed):
        logits, labels = draw_labels(seed)
        slope, intercept = fit_calibration(logits, labels)
        assert slope == pytest.approx(1, abs=0.35)
        assert intercept == pytest.approx(0, abs=0.45)

    @pytest.mark.parametrize(
        ("scale", "shift"), [(0.3, 0), (0.5, 1), (1, 1.5), (1, -1.5), (1.6, 0)]
    )
    @given(seed=seeds)
    @settings(max_examples=10, deadline=None)
    def test_it_brings_distorted_log_odds_back(self, scale, shift, seed):
        logits, labels = draw_labels(seed)
        distorted = scale * logits + shift
        slope, intercept = fit_calibration(distorted, labels)
        mended = slope * distorted + intercept
        assert log_loss(mended, labels) < log_loss(distorted, labels)
        assert log_loss(mended, labels) < log_loss(logits, labels) + 0.01

    @pytest.mark.parametrize(("scale", "shift"), [(4, 0), (10, 0), (1, 6)])
    def test_it_brings_overconfident_log_odds_back(self, scale, shift):
        logits, labels = draw_labels(seed=1)
        distorted = scale * logits + shift
        slope, intercept = fit_calibration(distorted, labels)
        assert log_loss(slope * distorted + intercept, labels) < log_loss(logits, labels) + 0.01

    @pytest.mark.parametrize("label", [0, 1])
    def test_labels_of_one_kind_still_give_finite_odds(self, label):
        labels = np.full(50, label, dtype=np.int8)
        slope, intercept = fit_calibration(np.linspace(-3, 3, 50), labels)
        assert np.isfinite([slope, intercept]).all()

    def test_scores_turned_upside_down_are_not_turned_back(self):
        logits, labels = draw_labels(seed=3)
        slope, _ = fit_calibration(-logits, labels)
        assert 0 < slope < 0.01


class TestClosure:
    IMPLICATIONS = ((3, 2), (2, 0), (2, 1))

    def test_a_broad_tag_takes_the_score_of_a_narrower_one(self):
        scores = np.array([[0.1, 0.2, 0.3, 0.9]])
        assert close(scores, self.IMPLICATIONS).tolist() == [[0.9, 0.9, 0.9, 0.9]]

    def test_a_narrow_tag_takes_nothing_from_a_broader_one(self):
        scores = np.array([[0.9, 0.8, 0.3, 0.1]])
        assert close(scores, self.IMPLICATIONS).tolist() == scores.tolist()

    def test_rows_are_apart(self):
        scores = np.array([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
        assert close(scores, self.IMPLICATIONS).tolist() == [[1.0] * 4, [0.0] * 4]

    def test_the_given_scores_stay(self):
        scores = np.array([[0.0, 0.0, 0.0, 1.0]])
        close(scores, self.IMPLICATIONS)
        assert scores.tolist() == [[0.0, 0.0, 0.0, 1.0]]

    @calm
    @given(hnp.arrays(np.float64, (3, 4), elements=st.floats(0, 1)))
    def test_no_broad_tag_scores_below_a_narrow_one(self, scores):
        closed = close(scores, self.IMPLICATIONS)
        for narrow, broad in self.IMPLICATIONS:
            assert (closed[:, broad] >= closed[:, narrow]).all()
        assert (closed >= scores).all()
        assert (closed[:, 3] == scores[:, 3]).all()
        assert (close(closed, self.IMPLICATIONS) == closed).all()


class TestThresholds:
    @calm
    @given(judged())
    def test_profiles_are_nested(self, data):
        values = choose_thresholds(*data).values
        assert set(values) == set(PROFILES)
        assert (values["cautious"] <= values["balanced"]).all()
        assert (values["balanced"] <= values["strict"]).all()

    @calm
    @given(judged())
    def test_strict_is_precise_where_it_says_so(self, data):
        thresholds = choose_thresholds(*data)
        found = tallies(*data, thresholds, "strict")
        for (hits, suggested, _), met in zip(found, thresholds.reached["strict"], strict=True):
            assert not met or hits >= TARGET * suggested > 0

    @calm
    @given(judged())
    def test_every_profile_suggests_a_tag_that_has_positives(self, data):
        thresholds = choose_thresholds(*data)
        for profile in PROFILES:
            for _, suggested, positives in tallies(*data, thresholds, profile):
                assert (suggested > 0) >= (positives > 0)

    def test_strict_reaches_precision_where_scores_are_informative(self):
        assert choose_thresholds(*made_up(1, 4000)).reached["strict"].all()

    @pytest.mark.parametrize("highest", [0.002, 0.005])
    def test_strict_still_finds_tags_of_low_probability(self, highest):
        probabilities = np.repeat([highest, highest / 20], 20)[:, None]
        labels = np.repeat([1, 0], 20).astype(np.int8)[:, None]
        thresholds = choose_thresholds(probabilities, labels)
        ((hits, suggested, _),) = tallies(probabilities, labels, thresholds, "strict")
        assert thresholds.reached["strict"][0]
        assert hits == suggested == 20

    @calm
    @given(judged())
    def test_cautious_finds_nine_of_ten(self, data):
        for hits, _, positives in tallies(*data, choose_thresholds(*data), "cautious"):
            assert hits >= TARGET * positives - 1e-9

    @calm
    @given(seeds)
    def test_balanced_is_close_to_the_best_f1(self, seed):
        probabilities, labels = made_up(seed, 1500)
        found = tallies(probabilities, labels, choose_thresholds(probabilities, labels), "balanced")
        for tag, (hits, suggested, positives) in enumerate(found):
            truth = labels[:, tag] == 1
            order = np.cumsum(truth[np.argsort(-probabilities[:, tag])])
            best = (2 * order / (np.arange(1, len(truth) + 1) + positives)).max()
            assert 2 * hits / (suggested + positives) > best - 0.06

    def test_a_rare_tag_leans_on_the_others(self):
        probabilities, labels = made_up(1, 4000)
        rare = labels.copy()
        rare[np.flatnonzero(rare[:, 1] == 1)[5:], 1] = -1
        common = choose_thresholds(probabilities.ravel()[:, None], rare.ravel()[:, None])
        alone = choose_thresholds(probabilities[:, 1:], rare[:, 1:])
        beside = choose_thresholds(probabilities, rare)
        cut = common.values["balanced"][0]
        gap = abs(beside.values["balanced"][1] - cut)
        assert gap < 0.1
        assert gap < abs(alone.values["balanced"][0] - cut)

    @calm
    @given(judged(), st.data())
    def test_unknown_cells_do_not_matter(self, data, draw):
        probabilities, labels = data
        other = draw.draw(hnp.arrays(np.float64, labels.shape, elements=st.floats(0, 1)))
        changed = np.where(labels < 0, other, probabilities)
        first, second = choose_thresholds(probabilities, labels), choose_thresholds(changed, labels)
        for profile in PROFILES:
            assert first.values[profile].tolist() == second.values[profile].tolist()
            assert first.reached[profile].tolist() == second.reached[profile].tolist()

    @pytest.mark.parametrize("label", [0, -1])
    def test_a_tag_without_positives_is_kept_to_certainty(self, label):
        thresholds = choose_thresholds(
            np.linspace(0, 0.9, 10)[:, None], np.full((10, 1), label, dtype=np.int8)
        )
        for profile in PROFILES:
            assert thresholds.values[profile].tolist() == [1.0]
            assert not thresholds.reached[profile].any()

    def test_clean_separation_reaches_every_target(self):
        probabilities = np.array([0.9, 0.8, 0.7, 0.3, 0.2, 0.1])[:, None]
        labels = np.array([1, 1, 1, 0, 0, 0], dtype=np.int8)[:, None]
        thresholds = choose_thresholds(probabilities, labels)
        for profile in PROFILES:
            assert thresholds.reached[profile].all()
            assert 0.3 < thresholds.values[profile][0] <= 0.7

    def test_noise_does_not_reach_precision(self):
        probabilities = np.linspace(0, 1, 40)[:, None]
        labels = np.tile([0, 1], 20).astype(np.int8)[:, None]
        labels[-1] = 0
        thresholds = choose_thresholds(probabilities, labels)
        assert not thresholds.reached["strict"].any()
        assert not thresholds.reached["cautious"].any()

    def test_neighbouring_floats_are_kept_apart(self):
        low = 0.5
        probabilities = np.array([[np.nextafter(low, 1)], [low]])
        labels = np.array([[1], [0]], dtype=np.int8)
        cut = choose_thresholds(probabilities, labels).values["strict"][0]
        assert (probabilities >= cut).ravel().tolist() == [True, False]

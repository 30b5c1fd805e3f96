"""What changes from one model to another, on the same rows and the same drawn works."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import STARTER, Forewarn
from harbour import harbour_corpus, harbour_model
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.comparison import Comparison, compare
from pipeline.errors import CorpusError, ModelError
from pipeline.model import Model
from pipeline.predictions import Predictions, predict_corpus

NAMES = ("old", "new")


def compared(
    a: Model, b: Model, profile: str = "balanced", threshold: float | None = None
) -> Comparison:
    corpus = harbour_corpus()
    both = predict_corpus(a, corpus, threshold), predict_corpus(b, corpus, threshold)
    return compare(NAMES, both, profile)


@pytest.fixture(scope="module")
def deaf() -> Comparison:
    """From a model that knows the word storm to one that does not."""
    return compared(harbour_model(), harbour_model(storm=0.0))


def test_a_difference_is_b_minus_a(deaf: Comparison) -> None:
    storm, wreck, bees = deaf.tags
    # A: 2 right of 5 suggested, of 3 storms. B: the wreck's storm alone.
    assert (storm.f1.a, storm.f1.b) == (2 * 2 / 8, 2 * 1 / 4)
    assert storm.f1.difference == 0
    assert (storm.gained, storm.lost, storm.lost_right) == (0, 4, 3)
    assert wreck.f1.difference == bees.f1.difference == 0
    assert deaf.micro_f1.b > deaf.micro_f1.a  # fewer false alarms


def test_a_model_beside_itself_has_no_difference() -> None:
    same = compared(harbour_model(), harbour_model())
    for of in (same.micro_f1, same.macro_f1, same.mean_average_precision):
        assert (of.difference, of.interval, of.clear) == (0, (0, 0), False)
    assert same.changes == ()
    assert same.changed_works == 0


def test_changes_name_the_tags_and_what_the_labels_say(deaf: Comparison) -> None:
    assert [change.title for change in deaf.changes] == [
        "Night Watch",
        "Applause",
        "Orchard",
        "Applause II",
    ]
    night, applause = deaf.changes[:2]
    assert (night.gained, night.lost, night.labels) == ((), ("storm",), {"storm": True})
    assert (night.better, applause.better) == (-1, 1)
    assert deaf.changed_works == 3  # two of the rows are one work


def test_a_cell_whose_label_is_unsure_is_neither_better_nor_worse() -> None:
    found = compared(harbour_model(), harbour_model(storm=0.0), "threshold 0.2", 0.2)
    after = next(change for change in found.changes if change.title == "After It")
    assert (after.labels, after.better) == ({"storm": None}, 0)


def test_tags_that_one_model_lacks_are_named_and_left_out() -> None:
    whole = harbour_model()
    part = replace(
        whole,
        tags=("storm", "bees"),
        weights=whole.weights[:, [0, 2]],
        bias=whole.bias[[0, 2]],
        thresholds=replace(
            whole.thresholds,
            values={name: cut[[0, 2]] for name, cut in whole.thresholds.values.items()},
        ),
    )
    found = compared(whole, part)
    assert [tag.tag for tag in found.tags] == ["storm", "bees"]
    assert (found.only_a, found.only_b) == (("wreck",), ())
    other = compared(part, whole)
    assert (other.only_a, other.only_b) == ((), ("wreck",))
    assert other.tags[1].f1.difference == 0


def test_nothing_in_common_is_refused() -> None:
    one = predict_corpus(harbour_model(), harbour_corpus())
    other = replace(one, tags=("x", "y", "z"))
    with pytest.raises(ModelError, match="old and new have no tag in common"):
        compare(NAMES, (one, other), "balanced")
    blind = harbour_corpus()
    blind.labels[:] = -1
    unknown = predict_corpus(harbour_model(), blind)
    with pytest.raises(CorpusError, match="no row has a known label"):
        compare(NAMES, (unknown, unknown), "balanced")


def many(seed: int) -> tuple[Predictions, Predictions]:
    """Two models' made-up probabilities for many rows; the second is a little better."""
    random = np.random.default_rng(seed)
    corpus = harbour_corpus().select(np.arange(400) % 9)
    labels = (random.random((400, 3)) < 0.4).astype(np.int8)
    groups = tuple(f"w{n}" for n in range(400))
    corpus = replace(corpus, labels=labels, groups=groups, synopses=("",) * 400)
    noise = random.random((400, 3))
    better = noise * 0.8 + 0.2 * labels
    return tuple(  # type: ignore[return-value]
        Predictions(corpus, ("storm", "wreck", "bees"), p, {"balanced": p > 0.5})
        for p in (noise, better)
    )


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 100))
def test_pairing_makes_intervals_narrower_than_two_models_apart(seed: int) -> None:
    found = compare(NAMES, many(seed), "balanced", resamples=200)
    low, high = found.mean_average_precision.interval
    assert low <= found.mean_average_precision.difference <= high
    apart = [p.evaluate("balanced") for p in many(seed)]
    widths = [np.diff(score.mean_average_precision_interval)[0] for score in apart]
    assert high - low < np.hypot(*widths)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 100))
def test_turned_round_the_differences_change_their_signs(seed: int) -> None:
    both = many(seed)
    there = compare(NAMES, both, "balanced", resamples=50)
    back = compare(NAMES, (both[1], both[0]), "balanced", resamples=50)
    for one, other in zip(there.tags, back.tags, strict=True):
        assert one.f1.difference == pytest.approx(-other.f1.difference)
        assert one.f1.interval == pytest.approx(tuple(-v for v in reversed(other.f1.interval)))
        assert (one.gained, one.lost) == (other.lost, other.gained)


# The command line


def test_compare_prints_differences_and_changed_works(
    forewarn: Forewarn, starter_folder: Path, tmp_path: Path
) -> None:
    page = tmp_path / "changes.html"
    corpus = STARTER.parent / "rare.csv"
    args = ("compare", starter_folder, "default", corpus, "--report", page)
    ran = forewarn(*args)
    assert ran.rc == 0, ran.stderr
    assert f"A: {starter_folder}\nB: default\n" in ran.stdout
    assert "micro F1" in ran.stdout and "The warnings of " in ran.stdout
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    told = json.loads(forewarn(*args[:-2], "--json").stdout)
    assert told["b"] == "default"
    assert len(told["changes"]) >= 20
    for tag in told["tags"]:
        low, high = tag["f1"]["interval"]
        assert low <= high
        assert tag["f1"]["difference"] == pytest.approx(tag["f1"]["b"] - tag["f1"]["a"])


def test_compare_names_a_file_that_a_model_learnt_from(
    forewarn: Forewarn, starter_folder: Path
) -> None:
    ran = forewarn("compare", starter_folder, starter_folder, STARTER)
    assert ran.rc == 0
    assert f"{starter_folder} was trained on starter.csv" in ran.stderr
    assert "The warnings of 0 rows of 0 works changed." in ran.stdout

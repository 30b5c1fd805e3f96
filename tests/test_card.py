"""What people read of a model: aligned tables and the model card."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import Ran

from pipeline.card import headline, tag_rows
from pipeline.evaluation import Evaluation, TagScore
from pipeline.model import Model
from pipeline.terminal import aligned

SCORE = Evaluation(
    rows=12345,
    works=6789,
    micro_f1=0.51249,
    micro_f1_interval=(0.444, 0.556),
    macro_f1=0.4,
    macro_f1_interval=(0.3, 0.5),
    mean_average_precision=0.625,
    mean_average_precision_interval=(0.6, 0.65),
    micro_precision=0.75,
    micro_recall=0.25,
    expected_calibration_error=0.01234,
    brier=0.05678,
    tags=(
        TagScore("gore", 7, 100, 0.5, 0.25, 1 / 3, (0.1, 0.6), 0.45, (0.2, 0.7)),
        TagScore("sexual-violence", 1234, 5000, 1.0, 1.0, 1.0, (1.0, 1.0), 1.0, (1.0, 1.0)),
    ),
)


@pytest.fixture(scope="module")
def card(starter_folder: Path) -> str:
    return (starter_folder / "README.md").read_text(encoding="utf-8")


def test_a_headline_gives_each_figure_with_its_interval() -> None:
    lines = headline(SCORE).splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "micro F1",
        "macro F1",
        "mean AP",
        "ECE",
        "rows",
    ]
    assert "0.512  [0.44, 0.56]" in lines[0]
    assert "precision 0.750, recall 0.250" in lines[0]
    assert "0.0123" in lines[3]
    assert "12,345 of 6,789 works" in lines[4]


def test_a_table_has_a_row_for_each_tag() -> None:
    head, *rows = tag_rows(SCORE)
    assert head[:5] == ("tag", "support", "precision", "recall", "F1")
    assert [row[0] for row in rows] == ["gore", "sexual-violence"]
    assert rows[0] == ("gore", "7", "0.50", "0.25", "0.33", "[0.10, 0.60]", "0.45", "[0.20, 0.70]")


def test_columns_are_aligned() -> None:
    assert aligned([("tag", "n"), ("a", "7"), ("longer", "1234")]) == (
        "tag        n\na          7\nlonger  1234"
    )
    assert aligned([("a", "b", "1"), ("cc", "dd", "22")], left=2) == "a   b    1\ncc  dd  22"


def test_the_card_names_the_model_its_data_and_its_making(card: str, starter_model: Model) -> None:
    facts = starter_model.provenance
    assert card.startswith("# Model card: model\n")
    assert f"{len(starter_model.vocabulary):,} features, of {len(starter_model.tags)} tags" in card
    assert f"seed {facts['seed']}" in card
    assert f"{facts['rows']:,} labelled rows of {facts['works']:,} works" in card
    assert f"| `starter.csv` | `{facts['data']['starter.csv'][:16]}…` |" in card
    for library, version in facts["libraries"].items():
        assert f"{library} {version}" in card


def test_the_card_gives_the_figures_that_the_model_carries(card: str, starter_model: Model) -> None:
    held_out = starter_model.provenance["held_out"]
    for profile, score in held_out.items():
        (row,) = re.findall(rf"^\| {profile} \|.*$", card, re.MULTILINE)
        for key in ("micro_precision", "micro_recall", "micro_f1", "macro_f1"):
            assert f" {score[key]:.3f} " in row
    for tag in held_out["balanced"]["tags"]:
        (row,) = re.findall(rf"^\| {tag['tag']} \|.*$", card, re.MULTILINE)
        assert f"| {tag['support']} | {tag['precision']:.2f} | {tag['recall']:.2f} |" in row


def test_the_card_says_which_targets_were_out_of_reach(card: str, starter_model: Model) -> None:
    for profile in ("cautious", "strict"):
        (line,) = re.findall(rf"^- `{profile}`: (.*)$", card, re.MULTILINE)
        met = starter_model.thresholds.reached[profile]
        missed = [tag for tag, ok in zip(starter_model.tags, met, strict=True) if not ok]
        assert re.findall(r"`([a-z-]+)`", line) == missed


def test_the_card_says_what_a_suggestion_is_not_and_where_it_ends(card: str) -> None:
    flowing = " ".join(card.split())
    assert "not a promise that a work is safe" in flowing
    assert "## Limits" in card
    assert "denial and figures of speech can mislead it" in flowing


def test_the_tables_of_the_card_are_well_formed(card: str) -> None:
    tables = re.findall(r"(?:^\|.*\|\n)+", card, re.MULTILINE)
    assert len(tables) == 4
    for table in tables:
        widths = {line.count("|") for line in table.splitlines()}
        assert len(widths) == 1
    assert not re.search(r"[{}]|\bnan\b|\bNone\b(?!\.)", card)


def test_training_prints_the_figures_of_the_card(
    starter_training: tuple[Ran, Path], starter_model: Model
) -> None:
    ran, _ = starter_training
    for score in starter_model.provenance["held_out"].values():
        assert f"micro F1  {score['micro_f1']:.3f}  [" in ran.stdout

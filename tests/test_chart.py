"""Plots: SVG that takes its colours and letters from the page and holds nothing else."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from harbour import harbour_model, harbour_predictions

pytest.importorskip("vl_convert", reason="needs forewarn[report]")

from pipeline import chart
from pipeline.diagnosis import Scores, diagnose

SVG = "{http://www.w3.org/2000/svg}"
ROWS = [
    {"name": 'Storm <b> & "calm"', "value": 0.1, "low": 0.05, "high": 0.2},
    {"name": "Bees", "value": -0.2, "low": -0.3, "high": 0.1},
    {"name": "Wreck", "value": -0.2, "low": -0.3, "high": -0.1},
]


@pytest.fixture(scope="module")
def scores() -> Scores:
    return diagnose(harbour_predictions(), harbour_model(), "balanced").tags[0].scores


@pytest.fixture(scope="module")
def plots(scores: Scores) -> dict[str, str]:
    return {
        "curve": chart.precision_recall(scores, 300, 200),
        "small": chart.precision_recall(scores, 120, 80, small=True),
        "calibration": chart.calibration(scores, 300, 200),
        "distribution": chart.distribution(scores, 300, 200),
        "differences": chart.differences(ROWS, 400),
    }


def test_colours_are_the_pages_own(plots: dict[str, str]) -> None:
    for svg in plots.values():
        colours = set(re.findall(r'(?:fill|stroke)="([^"]*)"', svg))
        assert colours
        assert all(c in {"none", "transparent"} or c.startswith("var(--") for c in colours)


def test_a_plot_is_text_without_script_reference_or_size(plots: dict[str, str]) -> None:
    for svg in plots.values():
        root = ElementTree.fromstring(svg)
        assert root.tag == f"{SVG}svg"
        assert "viewBox" in root.attrib and "width" not in root.attrib
        assert root.get("aria-hidden") == "true"
        assert {e.tag for e in root.iter()} <= {f"{SVG}{t}" for t in ("svg", "g", "path", "text",
                                                                      "line")}  # fmt: skip
        assert not re.search(r"href|url\(|font-family|style=", svg)
        assert len(svg) < 16_000


def test_plots_side_by_side_are_of_one_size(plots: dict[str, str]) -> None:
    boxes = {
        re.search(r'viewBox="([^"]*)"', plots[name])[1]  # type: ignore[index]
        for name in ("curve", "calibration", "distribution")
    }
    assert boxes == {"0 0 300 200"}


def test_a_point_stands_where_its_recall_and_precision_are(scores: Scores) -> None:
    svg = chart.precision_recall(scores, 300, 200)
    points = re.findall(r'translate\(([\d.]+),([\d.]+)\)" d="[^"]*" fill="var\(--first\)"', svg)
    ((x, y),) = points
    grid = [float(v) for v in re.findall(r'<line transform="translate\(0,(\d+)\)"', svg)]
    height = max(grid)
    assert float(y) / height == pytest.approx(1 - scores.points["balanced"][1], abs=0.01)
    assert float(x) > 0


def test_names_are_shown_as_they_are(plots: dict[str, str]) -> None:
    root = ElementTree.fromstring(plots["differences"])
    texts = ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]
    assert 'Storm <b> & "calm"' in texts


def test_differences_are_coloured_only_where_they_leave_out_zero(plots: dict[str, str]) -> None:
    svg = plots["differences"]
    assert svg.count('fill="var(--first)"') == 1
    assert svg.count('fill="var(--second)"') == 1
    assert svg.count('fill="var(--faint)"') == 1

"""Plots of a report: Vega-Lite drawn to SVG whose colours and letters are the page's own.

Nothing of Vega goes into the page. Colours are CSS variables, so that a plot follows the page
from light to dark; texts are texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np
import vl_convert

from pipeline.diagnosis import LOG_ODDS_BINS, Scores

Spec = dict[str, Any]

_SVG = "http://www.w3.org/2000/svg"
_SHAPES = ("circle", "triangle-up", "square", "diamond")
_COLOURS = ("var(--first)", "var(--second)", "var(--third)", "var(--fourth)")
"""Of the profiles, in order; a shape goes with each, for eyes that tell no colours apart."""
_QUIET = {"role", "pointer-events", "aria-hidden", "aria-roledescription", "font-family", "class"}
_CONFIG: Spec = {
    "aria": False,
    "background": None,
    "padding": 2,
    "view": {"stroke": None},
    "axis": {
        "gridColor": "var(--grid)",
        "domainColor": "var(--grid)",
        "labelColor": "var(--soft)",
        "titleColor": "var(--soft)",
        "titleFontWeight": "normal",
        "titleFontSize": 11,
        "labelFontSize": 10,
        "ticks": False,
        "labelPadding": 5,
        "titlePadding": 7,
    },
}
_SHARE_TICKS = [0, 0.25, 0.5, 0.75, 1]
_PROBABILITIES = {-6.9068: "0.001", -4.5951: "0.01", -2.1972: "0.1", 0: "0.5", 2.1972: "0.9",
                  4.5951: "0.99"}  # fmt: skip


def precision_recall(scores: Scores, width: int, height: int, small: bool = False) -> str:
    """The curve, with each profile's suggestions as a point on it."""
    line = [
        {"x": round(float(r), 4), "y": round(float(p), 4), "n": n}
        for n, (r, p) in enumerate(zip(scores.recall, scores.precision, strict=True))
    ]
    points = [
        {"x": round(r, 4), "y": round(p, 4), "profile": name}
        for name, (r, p) in scores.points.items()
    ]
    x, y = _share_axis("x", "recall", small), _share_axis("y", "precision", small)
    return _draw(
        width,
        height,
        [
            {
                "data": {"values": line},
                "mark": {"type": "line", "color": "var(--ink)", "strokeWidth": 1.5},
                "encoding": {"x": x, "y": y, "order": {"field": "n", "type": "quantitative"}},
            },
            _points(points, tuple(scores.points), x, y, 45 if small else 80),
        ],
    )


def calibration(scores: Scores, width: int, height: int) -> str:
    """The share of true cells over the predicted probability, with the line of perfect trust."""
    bins = [
        {"x": b.probability, "y": b.share, "low": b.interval[0], "high": b.interval[1]}
        for b in scores.bins
    ]
    x, y = _share_axis("x", "predicted probability"), _share_axis("y", "share that is true")
    return _draw(
        width,
        height,
        [
            {
                "data": {"values": [{"x": 0, "y": 0}, {"x": 1, "y": 1}]},
                "mark": {"type": "line", "color": "var(--faint)", "strokeDash": [3, 3]},
                "encoding": {"x": x, "y": y},
            },
            {
                "data": {"values": bins},
                "mark": {"type": "rule", "color": "var(--first)", "strokeWidth": 1.5},
                "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
            },
            {
                "data": {"values": bins},
                "mark": {"type": "point", "filled": True, "size": 50, "color": "var(--first)",
                         "opacity": 1},
                "encoding": {"x": x, "y": y},
            },
        ],
    )  # fmt: skip


def distribution(scores: Scores, width: int, height: int) -> str:
    """Probabilities of cells labelled yes and of those labelled no, on a scale of log-odds."""
    step = float(LOG_ODDS_BINS[1] - LOG_ODDS_BINS[0])
    bars = [
        {"x": low, "x2": low + step, "y": round(float(share) * sign, 4), "label": label}
        for label, sign, shares in (("yes", 1, scores.positive), ("no", -1, scores.negative))
        for low, share in zip(LOG_ODDS_BINS[:-1].tolist(), shares, strict=True)
        if share
    ]
    top = max(0.01, float(scores.positive.max()), float(scores.negative.max()))
    x: Spec = {
        "field": "x",
        "type": "quantitative",
        "title": "predicted probability",
        "scale": {"domain": [float(LOG_ODDS_BINS[0]), float(LOG_ODDS_BINS[-1])], "nice": False},
        "axis": {
            "values": list(_PROBABILITIES),
            "labelExpr": _labels(_PROBABILITIES),
            "labelOverlap": True,
        },
    }
    y = {
        "field": "y",
        "type": "quantitative",
        "title": "share of cells: no | yes",
        "scale": {"domain": [-top, top], "nice": False},
        "axis": {"values": [0], "labels": False, "gridColor": "var(--soft)"},
    }
    cuts = [
        {"x": round(_log_odds(cut), 4), "profile": name} for name, cut in scores.thresholds.items()
    ]
    return _draw(
        width,
        height,
        [
            {
                "data": {"values": bars},
                "mark": {"type": "bar", "binSpacing": 1},
                "encoding": {
                    "x": {**x, "bin": "binned"},
                    "x2": {"field": "x2"},
                    "y": y,
                    "color": _scale("label", ["yes", "no"], ["var(--first)", "var(--faint)"]),
                },
            },
            {
                "data": {"values": cuts},
                "mark": {"type": "rule", "strokeWidth": 1.5, "strokeDash": [4, 2]},
                "encoding": {"x": x, "color": _profile_scale(tuple(scores.thresholds))},
            },
        ],
    )


def differences(rows: Sequence[Mapping[str, Any]], width: int) -> str:
    """Differences with their intervals, a line a tag; `rows` have name, value, low and high."""
    x: Spec = {
        "field": "value",
        "type": "quantitative",
        "title": "difference in F1 (B minus A)",
        "axis": {"format": "+.2~f", "orient": "top", "tickCount": 6},
    }
    y = {
        "field": "name",
        "type": "nominal",
        "sort": None,
        "title": None,
        "axis": {"labelColor": "var(--ink)", "labelFontSize": 11, "labelLimit": 160,
                 "grid": True, "domain": False},
    }  # fmt: skip
    colour = _scale(
        "sign", ["up", "down", "even"], ["var(--first)", "var(--second)", "var(--faint)"]
    )
    values = [
        {**row, "sign": "up" if row["low"] > 0 else "down" if row["high"] < 0 else "even"}
        for row in rows
    ]
    return _draw(
        width,
        {"step": 18},
        [
            {
                "data": {"values": [{"value": 0}]},
                "mark": {"type": "rule", "color": "var(--soft)"},
                "encoding": {"x": x},
            },
            {
                "data": {"values": values},
                "mark": {"type": "rule", "strokeWidth": 2},
                "encoding": {
                    "y": y,
                    "x": {**x, "field": "low"},
                    "x2": {"field": "high"},
                    "color": colour,
                },
            },
            {
                "data": {"values": values},
                "mark": {"type": "point", "filled": True, "size": 50, "opacity": 1},
                "encoding": {"y": y, "x": x, "color": colour},
            },
        ],
    )


def _points(values: list[Spec], names: tuple[str, ...], x: Spec, y: Spec, size: int) -> Spec:
    return {
        "data": {"values": values},
        "mark": {
            "type": "point",
            "filled": True,
            "opacity": 1,
            "size": size,
            "stroke": "var(--paper)",
            "strokeWidth": 1,
        },
        "encoding": {
            "x": x,
            "y": y,
            "color": _profile_scale(names),
            "shape": _scale("profile", list(names), list(_SHAPES[: len(names)])),
        },
    }


def _profile_scale(names: tuple[str, ...]) -> Spec:
    return _scale("profile", list(names), list(_COLOURS[: len(names)]))


def _scale(field: str, domain: list[str], range_: list[str]) -> Spec:
    scale = {"domain": domain, "range": range_}
    return {"field": field, "type": "nominal", "scale": scale, "legend": None}


def _share_axis(channel: str, title: str, small: bool = False) -> Spec:
    axis: Spec = {"values": [0, 0.5, 1] if small else _SHARE_TICKS, "labels": not small}
    if not small:
        axis["format"] = ".2~f"
    return {
        "field": channel,
        "type": "quantitative",
        "scale": {"domain": [0, 1]},
        "title": None if small else title,
        "axis": axis,
    }


def _log_odds(probability: float) -> float:
    p = min(max(probability, 1e-4), 1 - 1e-4)
    return float(np.log(p) - np.log1p(-p))


def _labels(names: Mapping[float, str]) -> str:
    """A Vega expression that names each tick."""
    tests = [f"abs(datum.value - ({value})) < 0.01 ? '{name}'" for value, name in names.items()]
    return " : ".join([*tests, "''"])


def _draw(width: int, height: int | Spec, layers: list[Spec]) -> str:
    """An `<svg>` element without a size of its own: it fills what holds it.

    The page says what it shows, so it is hidden from screen readers.
    """
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": width,
        "height": height,
        # Fitted plots are of one size, letters and all, so that they stand well side by side.
        "autosize": {"type": "pad" if isinstance(height, dict) else "fit", "contains": "padding"},
        "config": _CONFIG,
        "layer": layers,
        # A shape or colour per layer: profiles and labels are different scales.
        "resolve": {"scale": {"color": "independent", "shape": "independent"}},
    }
    root = ElementTree.fromstring(vl_convert.vegalite_to_svg(spec))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.get("display") == "none" or child.get("class") == "background":
                parent.remove(child)
    for element in root.iter():
        for name in [key for key in element.keys() if key in _QUIET]:  # noqa: SIM118
            del element.attrib[name]
        if element.get("opacity") == "1":
            del element.attrib["opacity"]
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("aria-hidden", "true")
    ElementTree.register_namespace("", _SVG)
    return ElementTree.tostring(root, encoding="unicode")

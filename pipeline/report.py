"""A self-contained HTML page of a training run or an evaluation.

Needs Jinja2 and vl-convert (`forewarn[report]`).
"""

from __future__ import annotations

import base64
import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import pipeline
from pipeline import card, chart
from pipeline.comparison import Comparison
from pipeline.corpus import MAYBE, NO, UNKNOWN, YES, Corpus
from pipeline.diagnosis import Diagnosis, Scores, TagDiagnosis, diagnose
from pipeline.draft import open_target
from pipeline.errors import TableError
from pipeline.evaluation import Evaluation, Interval, TagScore
from pipeline.model import AnyModel, Model
from pipeline.predictions import Predictions, learnt_from
from pipeline.training import TrainingRun

Progress = Callable[[int, int], None]

CHANGES = 200
"""Rows whose warnings changed that a page shows."""
_WIDE = 640
_BIG, _MIDDLE, _SMALL = (370, 270), (310, 210), (124, 88)
"""Width and height of the plots, in units of their own letters; the page scales them."""


@dataclass(frozen=True)
class About:
    """What a report is of, in words.

    `occasion` says what was scored, `explanation` how the figures came about, `evidence` and
    `phrases` what to know of the marked words, `method` how the model was made. `facts` are
    (name, value) lines of its provenance.
    """

    name: str
    occasion: str
    explanation: str
    evidence: str
    phrases: str
    method: str
    facts: tuple[tuple[str, str], ...]
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Sheet:
    """What the page shows of one tag."""

    of: TagDiagnosis
    score: TagScore
    small: Markup
    curve: Markup
    calibration: Markup
    distribution: Markup


@dataclass(frozen=True)
class _Cell:
    """A tag in a catalogue; `depth` is its share of the labelled rows, beside the largest."""

    yes: int
    known: int
    depth: float


def training_report(run: TrainingRun, name: str, progress: Progress | None = None) -> str:
    """The page of a training run, on the works that were held out."""
    kind = card.method(run.model)
    about = About(
        name=name,
        occasion="A training run, on works held out from it",
        explanation=_flowing(kind["held_out"]),
        evidence="The probabilities are those of models that had not seen the work. The marked "
        "words are the finished model’s reasons, which has.",
        phrases=_phrases(run.model),
        method=_flowing(kind["method"]),
        facts=(*_facts(run.model), _cells(run.predictions)),
    )
    return render(about, run.model, run.predictions, run.by_profile, "balanced", progress)


def evaluation_report(
    model: AnyModel,
    name: str,
    predictions: Predictions,
    profile: str,
    progress: Progress | None = None,
) -> str:
    """The page of a model's evaluation; `profile` (or `threshold P`) is shown first."""
    about = About(
        name=name,
        occasion="A model on a labelled corpus",
        explanation="Every row was scored by the model as it is.",
        evidence="",
        phrases=_phrases(model),
        method=_method(model),
        facts=(*_facts(model), _cells(predictions)),
        notices=learnt_from(model, predictions.corpus, "The model"),
    )
    return render(about, model, predictions, predictions.evaluations(), profile, progress)


def comparison_report(found: Comparison, models: tuple[AnyModel, AnyModel], corpus: Corpus) -> str:
    """The page of a comparison; `models` are A and B."""
    taxonomy = corpus.taxonomy
    ordered = sorted(found.tags, key=lambda tag: -tag.f1.difference)
    rows = [
        {
            "name": taxonomy[tag.tag].label,
            "value": tag.f1.difference,
            "low": tag.f1.interval[0],
            "high": tag.f1.interval[1],
        }
        for tag in ordered
    ]
    # The rows in which the change meets or misses the most labels come first.
    changes = sorted(found.changes, key=lambda change: -abs(change.better))[:CHANGES]
    return page(
        "comparison.html",
        found=found,
        notices=[
            note
            for model, name in zip(models, (found.a, found.b), strict=True)
            for note in learnt_from(model, corpus, name)
        ],
        taxonomy=taxonomy,
        plot=Markup(chart.differences(rows, _WIDE)),
        changes=[
            (change, corpus.titles[change.row], corpus.synopses[change.row]) for change in changes
        ],
        models=[
            (name, _facts(model)) for name, model in zip((found.a, found.b), models, strict=True)
        ],
        fingerprints=corpus.fingerprints,
        notes=corpus.notes,
    )


def render(
    about: About,
    model: AnyModel,
    predictions: Predictions,
    scores: dict[str, Evaluation],
    profile: str,
    progress: Progress | None = None,
) -> str:
    """The page; `scores` by profile, of which `profile` is shown first."""
    diagnosis = diagnose(predictions, model, profile, progress)
    by_tag = {tag.tag: tag for tag in scores[profile].tags}
    return page(
        "report.html",
        about=about,
        notices=about.notices,
        main=scores[profile],
        scores=scores,
        diagnosis=diagnosis,
        taxonomy=predictions.corpus.taxonomy,
        plots=_plots(diagnosis.overall, _BIG),
        sheets=[_sheet(tag, by_tag[tag.tag.id]) for tag in diagnosis.tags],
        together=diagnosis.together.tolist(),
        support=_support(diagnosis, predictions),
        fingerprints=predictions.corpus.fingerprints,
        learnt_from={}
        if model.provenance.get("data") == predictions.corpus.fingerprints
        else model.provenance.get("data", {}),
        notes=predictions.corpus.notes,
    )


def page(template: str, **content: Any) -> str:
    """A template filled, with its style and script inside and the network shut out.

    Every text is escaped: markup in a synopsis shows as text.
    """
    folder = files("pipeline") / "templates"
    script = (folder / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(
        loader=PackageLoader("pipeline", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "share": lambda value: f"{value:.2f}",
        "fine": lambda value: f"{value:.3f}",
        "count": lambda value: f"{value:,}",
        "signed": lambda value: f"{value:+.2f}".replace("-", "−"),
        "signed_fine": lambda value: f"{value:+.3f}".replace("-", "−"),
        "clip": lambda value: f"{min(max(value, 0.0), 1.0):.4f}",
        "interval": _interval,
        "chance": _chance,
    }
    environment.filters |= filters
    return environment.get_template(template).render(
        # Both are files of ours, and neither holds a closing tag.
        style=Markup((folder / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=digest,
        version=pipeline.__version__,
        made=datetime.now(UTC).strftime("%Y-%m-%d"),
        **content,
    )


def check_target(path: str) -> None:
    """Make sure, before long work, that a page can be written at `path`.

    Raises:
        TableError: its folder is not there, or it is a folder itself.
    """
    target = Path(path)
    if path == "-" or target.is_dir() or not target.parent.is_dir():
        raise TableError(f"{path}: no report can be written there; name a file in a folder that is")


def save(html: str, path: str) -> None:
    """Write a page, whole or not at all.

    Raises:
        TableError: it cannot be written.
    """
    with open_target(path) as sink:
        sink.write(html.encode("utf-8", "replace"))


def _plots(scores: Scores, size: tuple[int, int]) -> dict[str, Markup]:
    return {
        "curve": Markup(chart.precision_recall(scores, *size)),
        "calibration": Markup(chart.calibration(scores, *size)),
        "distribution": Markup(chart.distribution(scores, *size)),
    }


def _sheet(tag: TagDiagnosis, score: TagScore) -> _Sheet:
    small = Markup(chart.precision_recall(tag.scores, *_SMALL, small=True))
    return _Sheet(of=tag, score=score, small=small, **_plots(tag.scores, _MIDDLE))


def _support(diagnosis: Diagnosis, predictions: Predictions) -> list[tuple[Any, list[_Cell]]]:
    rows = []
    for item in diagnosis.tags:
        column = predictions.tags.index(item.tag.id)
        counts = [(int(c.support[column]), int(c.known[column])) for c in diagnosis.catalogues]
        shares = [yes / known if known else 0.0 for yes, known in counts]
        top = max(shares) or 1.0
        cells = [_Cell(*both, share / top) for both, share in zip(counts, shares, strict=True)]
        rows.append((item.tag, cells))
    return rows


def _facts(model: AnyModel) -> tuple[tuple[str, str], ...]:
    made = model.provenance
    libraries = ", ".join(f"{k} {v}" for k, v in made.get("libraries", {}).items())
    kind = "linear" if isinstance(model, Model) else "accurate: linear and a transformer"
    linear = model if isinstance(model, Model) else model.linear
    left_out = ", ".join(f"{tag} ({n})" for tag, n in made.get("left_out", {}).items())
    return (
        ("Model", f"{kind}, {len(model.tags)} tags, {len(linear.vocabulary):,} features"),
        ("Made", f"{made.get('made', '?')} with Forewarn {made.get('forewarn', '?')}"),
        ("Learnt from", f"{made.get('rows', 0):,} rows of {made.get('works', 0):,} works"),
        ("Seed", str(made.get("seed", "?"))),
        ("Libraries then", libraries or "?"),
        ("Tags left out for want of positives", left_out or "none"),
        ("This report", f"Python {platform.python_version()}, {platform.platform(terse=True)}"),
    )


def _cells(predictions: Predictions) -> tuple[str, str]:
    labels = predictions.labels
    return (
        "Cells scored",
        f"{int((labels == YES).sum()):,} yes, {int((labels == NO).sum()):,} no; not scored: "
        f"{int((labels == MAYBE).sum()):,} maybe, {int((labels == UNKNOWN).sum()):,} unknown",
    )


def _method(model: AnyModel) -> str:
    """How a model was made, if it says so; one that was put together by hand does not."""
    try:
        return _flowing(card.method(model)["method"])
    except KeyError:
        return "Not recorded."


def _phrases(model: AnyModel) -> str:
    if isinstance(model, Model):
        return ""
    return (
        "They are those of the linear part, as much as it counts in the blend: a transformer has "
        "no phrases of its own."
    )


def _flowing(text: str) -> str:
    return " ".join(text.split())


def _interval(interval: Interval) -> str:
    return f"{interval[0]:.2f}–{interval[1]:.2f}"


def _chance(probability: float) -> str:
    if probability < 0.001:
        return "below 0.001"
    if probability > 0.99:
        return "above 0.99"
    return f"{probability:.3f}" if probability < 0.01 else f"{probability:.2f}"

"""What people read of a model: tables in the terminal, the model card beside the arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.evaluation import Evaluation, Interval
from pipeline.model import AnyModel, Model
from pipeline.training import TrainingRun

_HEAD = ("tag", "support", "precision", "recall", "F1", "95 %", "AP", "95 %")


def headline(score: Evaluation) -> str:
    """The figures over all tags, one a line, with their intervals."""
    return "\n".join(
        (
            f"micro F1  {score.micro_f1:.3f}  {_interval(score.micro_f1_interval)}"
            f"   (precision {score.micro_precision:.3f}, recall {score.micro_recall:.3f})",
            f"macro F1  {score.macro_f1:.3f}  {_interval(score.macro_f1_interval)}",
            f"mean AP   {score.mean_average_precision:.3f}  "
            f"{_interval(score.mean_average_precision_interval)}",
            f"ECE       {score.expected_calibration_error:.4f}   Brier {score.brier:.4f}",
            f"rows      {score.rows:,} of {score.works:,} works",
        )
    )


def tag_rows(score: Evaluation) -> list[tuple[str, ...]]:
    """A header and a row of text cells for each tag."""
    rows: list[tuple[str, ...]] = [_HEAD]
    for tag in score.tags:
        rows.append(
            (
                tag.tag,
                str(tag.support),
                f"{tag.precision:.2f}",
                f"{tag.recall:.2f}",
                f"{tag.f1:.2f}",
                _interval(tag.f1_interval),
                f"{tag.average_precision:.2f}",
                _interval(tag.average_precision_interval),
            )
        )
    return rows


def model_card(run: TrainingRun, name: str) -> str:
    """The model card in Markdown: data, method, figures, use and limits."""
    facts = run.model.provenance
    balanced = run.by_profile["balanced"]
    return _CARD.format(
        name=name,
        made=facts["made"],
        forewarn=facts["forewarn"],
        libraries=", ".join(f"{k} {v}" for k, v in facts["libraries"].items()),
        tags=len(run.model.tags),
        rows=f"{facts['rows']:,}",
        works=f"{facts['works']:,}",
        seed=facts["seed"],
        data="\n".join(
            f"| `{file}` | `{digest[:16]}…` |" for file, digest in facts["data"].items()
        ),
        left_out=_left_out(facts["left_out"]),
        profiles=_markdown(_profile_rows(run.by_profile)),
        sources=_markdown(_profile_rows(run.by_source)),
        per_tag=_markdown(tag_rows(balanced)),
        reached=_unreached(run),
        **method(run.model),
    )


def method(model: AnyModel) -> dict[str, str]:
    """What kind of model it is, how it was made, and how its held-out figures came about."""
    facts = model.provenance
    if isinstance(model, Model):
        return {
            "kind": f"A linear Forewarn model with {len(model.vocabulary):,} features",
            "method": _LINEAR_METHOD,
            "held_out": _OUT_OF_FOLD.format(folds=facts["folds"]),
        }
    unread = [tag for tag, share in zip(model.tags, model.share, strict=True) if not share]
    return {
        "kind": "An accurate Forewarn model (a linear part and a transformer)",
        "method": _ACCURATE_METHOD.format(
            features=f"{len(model.linear.vocabulary):,}",
            epochs=facts["epochs"],
            start=facts["start"],
            teaching=_TEACHING.format(**facts) if "teacher" in facts else "",
            share=model.share.max(),
            alone=f", but is not asked for {', '.join(unread)}" if unread else "",
            held_out_rows=f"{facts['held_out_rows']:,}",
        ),
        "held_out": _ON_HELD_OUT.format(held_out_rows=f"{facts['held_out_rows']:,}"),
    }


def _interval(interval: Interval) -> str:
    return f"[{interval[0]:.2f}, {interval[1]:.2f}]"


def _profile_rows(scores: dict[str, Evaluation]) -> list[tuple[str, ...]]:
    head = ("", "rows", "precision", "recall", "micro F1", "macro F1", "mean AP", "ECE")
    rows: list[tuple[str, ...]] = [head]
    rows += [
        (
            name,
            f"{s.rows:,}",
            f"{s.micro_precision:.3f}",
            f"{s.micro_recall:.3f}",
            f"{s.micro_f1:.3f}",
            f"{s.macro_f1:.3f}",
            f"{s.mean_average_precision:.3f}",
            f"{s.expected_calibration_error:.4f}",
        )
        for name, s in scores.items()
    ]
    return rows


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def _left_out(counts: dict[str, Any]) -> str:
    if not counts:
        return "None."
    return ", ".join(f"`{tag}` ({count} works)" for tag, count in counts.items())


def _unreached(run: TrainingRun) -> str:
    lines = []
    for profile in ("cautious", "strict"):
        met = run.model.thresholds.reached[profile]
        missed = [f"`{tag}`" for tag, ok in zip(run.model.tags, met, strict=True) if not ok]
        lines.append(f"- `{profile}`: {', '.join(missed) or 'none'}")
    return "\n".join(lines)


_LINEAR_METHOD = """\
Stemmed words and pairs of neighbouring words, present or not, weighted by idf and brought to
unit length; one logistic regression a tag on features scaled by their log-count ratio (Wang and
Manning 2012); log-odds calibrated by Platt's sigmoid; a threshold per tag and profile. Unknown
labels are neither trained on nor scored; a `maybe` is not scored, and trains as half a yes and half
a no. The weights are stored as float16."""

_ACCURATE_METHOD = """\
Two parts whose log-odds are added. The first is a linear model of {features} features, as the card
of `default` describes it. The second is a transformer ({start}), fine-tuned for {epochs} epochs
with one attention over the tokens per tag (Mullenbach et al. 2018), its weights stored as 8-bit
integers in ONNX.{teaching} The transformer counts {share:.2f} of the blend{alone}. The blend, the
calibration and the thresholds come from {held_out_rows} rows of works that neither part learnt
from. Unknown labels are neither trained on nor scored; a `maybe` is not scored, and trains as half
a yes and half a no."""

_TEACHING = """
It learnt by distillation from a larger one ({teacher}), fine-tuned on the same labels: from that
one's probabilities for the labelled texts, {unlabelled:,} texts without labels and excerpts of
both, and from what its tags attend to (Hinton et al. 2015, Jiao et al. 2020). The larger one is not
in the model.
"""

_OUT_OF_FOLD = """\
Every figure is out of fold: {folds} folds of whole works (series and copies kept together); each
row scored by a classifier, a calibration and thresholds that were made without its work."""

_ON_HELD_OUT = """\
Every figure is on {held_out_rows} rows of whole works that neither part learnt from (series and
copies kept together); the calibration and the thresholds for a fifth of them come from the other
four fifths. The blend's one number was chosen on all of them."""

_CARD = """# Model card: {name}

{kind}, of {tags} tags, made {made} with Forewarn {forewarn} ({libraries}; seed {seed}).

## What it is for

It reads the title and synopsis of a work and suggests content-warning tags, with a probability
and the words that speak for each. It helps the keeper of a catalogue to tag many titles, to be
looked over by a person.

**What a suggestion is not.** It is not a rating, and not a promise that a work is safe or
suitable for anyone. The model knows the synopsis alone: what a synopsis does not tell, it cannot
find, and most synopses leave out much of what a work contains. No suggestion does not mean that
there is nothing to warn of.

## Data

{rows} labelled rows of {works} works. Files, with the start of their SHA-256:

| file | SHA-256 |
| --- | --- |
{data}

Tags left out for want of positives: {left_out}

## Method

{method}

## Figures on works held out

{held_out}

Macro figures are means over tags. Rows drawn for their rare tags are more frequent here than in a
catalogue, so precision on yours may be lower.

{profiles}

The balanced profile, file by file:

{sources}

The balanced profile, tag by tag (intervals: 95 % bootstraps over works):

{per_tag}

Tags for which a profile's target (recall or precision of 0.9) was out of reach:

{reached}

## Limits

- English synopses of six words or more; it abstains on others.
- Irony, denial and figures of speech can mislead it, and so can names that are also words. Tags
  with few positives above are the least reliable.
- It learnt from anime, manga, film, television and novel catalogues; other voices fit it less.
- The probabilities are calibrated for data like its training data, not for every catalogue.
"""

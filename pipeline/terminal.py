"""What people read in the terminal: suggestions, tags, tables of runs and of differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipeline.comparison import Change, Comparison, Difference
    from pipeline.model import Suggestion
    from pipeline.taxonomy import Tag, Taxonomy

CHANGES_SHOWN = 20
"""Rows whose warnings changed that the terminal shows; JSON and the report have all."""


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Rows of cells as columns of text; the first `left` columns are set flush left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


_WHY_NOT = {
    "too-short": "No suggestion: the text is too short to say (fewer than six words).",
    "not-english": "No suggestion: the text does not look like English.",
    "empty": "No suggestion: there is no text.",
}


def suggestion_text(suggestion: Suggestion, with_evidence: bool) -> str:
    """Warnings with their probabilities and phrases, or why there are none."""
    if suggestion.status != "ok":
        return _WHY_NOT[suggestion.status]
    if not suggestion.warnings:
        return "No warnings suggested. (The synopsis may leave things out.)"
    width = max(len(warning.tag) for warning in suggestion.warnings)
    lines = [f"{'tag':<{width}}  prob." + ("  because of" if with_evidence else "")]
    for warning in suggestion.warnings:
        phrases = ", ".join(f"“{' '.join(e.text.split())}”" for e in warning.evidence)
        lines.append(f"{warning.tag:<{width}}  {warning.probability:5.2f}  {phrases}".rstrip())
    return "\n".join(lines)


def tag_list(taxonomy: Taxonomy) -> str:
    """All tags by group."""
    width = max(len(tag.id) for tag in taxonomy.tags)
    return "\n\n".join(
        f"{group}\n" + "\n".join(f"  {tag.id:<{width}}  {tag.label}" for tag in members)
        for group, members in taxonomy.groups.items()
    )


def tag_text(taxonomy: Taxonomy, tag_: Tag) -> str:
    """What a tag means, in full."""
    confused = [
        other
        for contrast in taxonomy.contrasts
        if tag_.id in contrast.tags
        for other in contrast.tags
        if other != tag_.id
    ]
    parts = (
        ("", f"{tag_.label} ({tag_.id}), in {tag_.group}"),
        ("Means", tag_.definition),
        ("The word", tag_.origin),
        ("Is not", tag_.exclude),
        ("Example", tag_.example),
        ("Also called", ", ".join(tag_.aliases)),
        ("Broader", ", ".join(taxonomy.ancestors(tag_.id))),
        ("Narrower", ", ".join(taxonomy.narrower(tag_.id))),
        ("Confused with", ", ".join(confused) and f"{', '.join(confused)} (see --versus)"),
    )
    return "\n".join(
        click.wrap_text(f"{name + ':':<15}{text}" if name else text, 90, "", " " * 15)
        for name, text in parts
        if text
    )


def versus_text(taxonomy: Taxonomy, first: Tag, second: Tag) -> str:
    """How two tags differ."""
    if first.id == second.id:
        return f"{first.label} and {second.label} are the same tag."
    text = taxonomy.contrast(first.id, second.id)
    lines = [f"{first.label} or {second.label}?", ""] + ([text, ""] if text else [])
    for tag_ in (first, second):
        other = second if tag_ is first else first
        implied = f" It brings {other.id} along." if other.id in taxonomy.ancestors(tag_.id) else ""
        not_ = f" Not: {tag_.exclude}" if tag_.exclude else ""
        lines.append(f"{tag_.id}: {tag_.definition}{not_}{implied}")
    return "\n".join(click.wrap_text(line, 90) for line in lines)


def runs_text(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Training runs, a line each: (folder, `record.summary`)."""
    head = ("model", "started", "rows", "tags", "seed", "micro F1", "macro F1", "mean AP", "took")
    return aligned(
        [
            head,
            *(
                (
                    folder,
                    run["started"][:16].replace("T", " "),
                    f"{run['rows']:,}",
                    str(run["tags"]),
                    str(run["seed"]),
                    f"{run['micro_f1']:.3f}",
                    f"{run['macro_f1']:.3f}",
                    f"{run['mean_average_precision']:.3f}",
                    _duration(run["seconds"]),
                )
                for folder, run in rows
            ),
        ],
        left=2,
    )


def comparison_text(found: Comparison) -> str:
    """What changes from model A to B: over all tags, tag by tag, and row by row."""
    lines = [f"A: {found.a}", f"B: {found.b}", ""]
    over_all = (
        ("micro F1", found.micro_f1),
        ("macro F1", found.macro_f1),
        ("mean AP", found.mean_average_precision),
    )
    lines.append(
        aligned(
            [
                (f"{found.profile} profile", "A", "B", "B - A", "95 %", ""),
                *((name, *_difference(of)) for name, of in over_all),
            ]
        )
    )
    lines += [f"rows      {found.rows:,} of {found.works:,} works", ""]
    lines.append(
        aligned(
            [
                (
                    "tag",
                    "support",
                    "A",
                    "B",
                    "B - A",
                    "95 %",
                    "",
                    "AP",
                    "95 %",
                    "",
                    "gained",
                    "lost",
                ),
                *(
                    (
                        tag.tag,
                        str(tag.support),
                        *_difference(tag.f1),
                        *_difference(tag.average_precision)[2:],
                        f"{tag.gained} ({tag.gained_right} right)",
                        f"{tag.lost} ({tag.lost_right} right)",
                    )
                    for tag in found.tags
                ),
            ]
        )
    )
    lines.append("\nA, B: F1. AP: average precision, B - A. * the interval leaves out 0.")
    for name, only in ((found.a, found.only_a), (found.b, found.only_b)):
        if only:
            lines.append(f"only {name} knows: {', '.join(only)}")
    lines.append(
        f"\nThe warnings of {len(found.changes):,} rows of {found.changed_works:,} works changed."
    )
    lines += map(_change, found.changes[:CHANGES_SHOWN])
    if len(found.changes) > CHANGES_SHOWN:
        lines.append(f"... and {len(found.changes) - CHANGES_SHOWN:,} more: see --json or --report")
    return "\n".join(lines)


def _difference(of: Difference) -> tuple[str, ...]:
    low, high = of.interval
    star = "*" if of.clear else ""
    return f"{of.a:.3f}", f"{of.b:.3f}", f"{of.difference:+.3f}", f"[{low:+.2f}, {high:+.2f}]", star


def _change(change: Change) -> str:
    verdict = {True: " (yes)", False: " (no)", None: ""}
    tags = [f"+{tag}{verdict[change.labels[tag]]}" for tag in change.gained]
    tags += [f"-{tag}{verdict[change.labels[tag]]}" for tag in change.lost]
    return f"  {change.title or f'row {change.row + 1}'}: {', '.join(tags)}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"

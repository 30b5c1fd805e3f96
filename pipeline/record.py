"""A run record: what a training run was made from and what came out, as JSON beside the model."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import RecordError

if TYPE_CHECKING:
    from pipeline.training import TrainingRun

FORMAT = "forewarn-run"
SCHEMA_VERSION = 1
FILE = "run.json"
_DEPTH = 4
"""Folders below the one that is searched."""


@dataclass(frozen=True)
class RunRecord:
    """One training run, in plain data.

    Attributes:
        command: `train` or `finetune`.
        started: when, in ISO 8601, UTC.
        seconds: how long training took.
        configuration: the options as they were given or by default; files by their names.
        environment: versions of Forewarn, Python and libraries, the platform, the processors.
        data: SHA-256 of each file and of the taxonomy, rows, works, cells by label state.
        tags: ids of the tags that the model knows.
        left_out: tags with too few positive works, with their count.
        metrics: held-out figures by profile, as `Evaluation.to_dict` gives them.
    """

    command: str
    started: str
    seconds: float
    configuration: dict[str, Any]
    environment: dict[str, Any]
    data: dict[str, Any]
    tags: tuple[str, ...]
    left_out: dict[str, int]
    metrics: dict[str, Any]

    def to_json(self) -> str:
        """The text of `run.json`."""
        head = {"format": FORMAT, "schema_version": SCHEMA_VERSION}
        return json.dumps(head | asdict(self), indent=1, ensure_ascii=False) + "\n"


def record_run(
    run: TrainingRun,
    command: str,
    configuration: Mapping[str, Any],
    started: datetime,
    texts: Sequence[str] = (),
) -> RunRecord:
    """The record of a run that has just ended.

    Args:
        run: what it made.
        command: `train` or `finetune`.
        configuration: its options.
        started: when it started, with its time zone.
        texts: files in which rows found their texts.
    """
    from pipeline.corpus import fingerprint  # Here: a list of runs does without pandas.

    made = run.model.provenance
    labels = run.predictions.labels
    return RunRecord(
        command=command,
        started=started.astimezone(UTC).isoformat(timespec="seconds"),
        seconds=round((datetime.now(UTC) - started).total_seconds(), 1),
        configuration=dict(configuration),
        environment={
            "forewarn": made["forewarn"],
            "python": platform.python_version(),
            "platform": platform.platform(),
            "processors": os.cpu_count(),
            "libraries": made["libraries"],
        },
        data={
            "files": made["data"],
            "taxonomy": _digest(run.model.taxonomy.to_dict()),
            "texts": {Path(path).name: fingerprint(Path(path)) for path in texts},
            "rows": made["rows"],
            "works": made["works"],
            "scored_rows": len(labels),
            "scored_cells": {
                state: int((labels == value).sum())
                for state, value in (("yes", 1), ("no", 0), ("maybe", -2), ("unknown", -1))
            },
        },
        tags=run.model.tags,
        left_out=run.left_out,
        metrics={profile: score.to_dict() for profile, score in run.by_profile.items()},
    )


def _digest(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def read_record(path: Path) -> RunRecord:
    """The record in a file.

    Raises:
        RecordError: it cannot be read, or is no run record that this Forewarn knows.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: is damaged (not JSON); train the model again") from error
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
        raise RecordError(f"{path}: is no run record of Forewarn")
    if data.pop("schema_version", None) != SCHEMA_VERSION:
        raise RecordError(f"{path}: is of another Forewarn; train again or upgrade")
    try:
        record = RunRecord(**data | {"tags": tuple(data["tags"])})
        # What a list of runs shows is looked at here, so that a damaged record is named.
        summary(record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(f"{path}: does not hold together ({error}); train again") from error
    return record


def summary(record: RunRecord) -> dict[str, Any]:
    """What tells one run from another: time, command, size, figures of the balanced profile."""
    balanced = record.metrics["balanced"]
    return {
        "started": str(record.started),
        "command": str(record.command),
        "seconds": float(record.seconds),
        "rows": int(record.data["rows"]),
        "works": int(record.data["works"]),
        "tags": len(record.tags),
        "seed": record.configuration.get("seed"),
        "micro_f1": float(balanced["micro_f1"]),
        "macro_f1": float(balanced["macro_f1"]),
        "mean_average_precision": float(balanced["mean_average_precision"]),
    }


def find_records(folder: Path) -> list[Path]:
    """The run records in a folder and those below it, in order of their paths.

    Raises:
        RecordError: there is no such folder.
    """
    if not folder.is_dir():
        raise RecordError(f"{folder}: no such folder; name one that holds models")
    return sorted(_below(folder, _DEPTH))


def _below(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return  # A folder that is not ours to read holds no run of ours.
    for entry in entries:
        if entry.name == FILE and entry.is_file():
            yield entry
        elif depth and entry.is_dir() and not entry.is_symlink() and entry.name[0] != ".":
            yield from _below(entry, depth - 1)

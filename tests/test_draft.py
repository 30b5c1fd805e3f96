"""A run that is cut off goes on from where it was, and its output is that of an undisturbed run."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, STARTER, Forewarn, Ran, start_forewarn

from pipeline import draft
from pipeline.draft import Draft, draft_paths, open_draft
from pipeline.errors import TableError
from pipeline.model import Model
from pipeline.table import Columns, Row
from pipeline.tagging import Tagger, tag_table

TERMS = {"model": "a", "threshold": None}
KILLS = int(os.environ.get("FOREWARN_KILLS", "3"))
"""How often the kill tests kill each format; fifty for a release (see CONTRIBUTING.md)."""


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that writes 6,000 invented rows in a format, by its ending."""
    desk = tmp_path_factory.mktemp("catalogue")
    with STARTER.open(encoding="utf-8", newline="") as file:
        texts = [(row["title"], row["synopsis"]) for row in csv.DictReader(file)]
    rows = [(n, *texts[n % len(texts)]) for n in range(6000)]

    def write(ending: str) -> Path:
        path = desk / f"in{ending}"
        if path.exists():
            return path
        kind = path.name.removesuffix(".gz").rpartition(".")[2]
        table = pa.table(dict(zip(("id", "title", "synopsis"), zip(*rows, strict=True), strict=True)))
        if kind == "parquet":
            pq.write_table(table, path, row_group_size=2500)
        elif kind == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
        else:
            mark = {"csv": ",", "tsv": "\t"}[kind]
            with pa.output_stream(path) as sink:
                pyarrow.csv.write_csv(table, sink, pyarrow.csv.WriteOptions(delimiter=mark))
        return path

    return write


def left_beside(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir() if path.name.startswith("."))

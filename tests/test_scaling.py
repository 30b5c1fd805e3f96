"""The recipes of docs/scaling.md, run as they stand there."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, STARTER

from pipeline.model import Model
from pipeline.tagging import Tagger, tag_table

pytestmark = pytest.mark.slow


def recipe(name: str) -> str:
    text = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    _, found, rest = text.partition(f"<!-- {name} recipe -->\n```python\n")
    assert found
    return rest.partition("```")[0]


@pytest.mark.parametrize("name", ["dask", "spark"])
def test_a_recipe_tags_as_one_machine_does(default_model: Model, tmp_path: Path, name: str) -> None:
    if name == "dask" and not find_spec("dask"):
        pytest.skip("needs forewarn[dask]")
    if name == "spark" and not (find_spec("pyspark") and shutil.which("java")):
        pytest.skip("needs pyspark and Java")
    with STARTER.open(encoding="utf-8", newline="") as file:
        rows = [(row["title"] or None, row["synopsis"]) for row in csv.DictReader(file)][:240]
    expected = []
    (tmp_path / "titles").mkdir()
    for part in range(3):
        titles, synopses = zip(*rows[part::3], strict=True)
        given = {"id": range(part, len(rows), 3), "title": titles, "synopsis": synopses}
        source = tmp_path / "titles" / f"{part}.parquet"
        pq.write_table(pa.table({key: list(column) for key, column in given.items()}), source)
        tag_table(str(source), str(tmp_path / "alone.parquet"), Tagger(default_model))
        expected += pq.read_table(tmp_path / "alone.parquet").to_pylist()
    # A script with workers of its own must be a file that does nothing when it is imported.
    lines = [f"    {line}".rstrip() for line in recipe(name).splitlines()]
    (tmp_path / "run.py").write_text(
        "\n".join(["if __name__ == '__main__':", *lines]), encoding="utf-8"
    )
    ran = subprocess.run(
        [sys.executable, "run.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable},
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    written = pq.read_table(tmp_path / "tagged", columns=list(expected[0])).to_pylist()
    assert sorted(written, key=lambda row: row["id"]) == sorted(expected, key=lambda row: row["id"])

"""The benchmark scripts keep one another's results, and measure what they say."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import report
import speed


def test_a_section_is_replaced_and_the_others_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.md"
    report.write_section(path, "quality", "Good.")
    report.write_section(path, "speed", "Fast.")
    report.write_section(path, "quality", "Better.")
    text = path.read_text()
    assert text.startswith("# Benchmarks\n")
    assert "Good." not in text
    assert text.index("Better.") < text.index("Fast.")
    report.write_section(path, "quality", "Better.")
    assert path.read_text() == text


def test_the_results_in_docs_have_their_markers() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    for name in ("quality", "speed"):
        assert text.index(f"<!-- {name} -->") < text.index(f"<!-- end of {name} -->")


def test_memory_is_that_of_a_process_and_its_children() -> None:
    hold = "held = bytearray(80 << 20); import time; time.sleep(0.3)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    alone = speed.run(sys.executable, "-c", hold)
    both = speed.run(sys.executable, "-c", f"{child}; {hold}")
    nothing = speed.run(sys.executable, "-c", "import time; time.sleep(0.3)")
    assert 80 < alone.mebibytes < 110
    assert both.mebibytes > 80
    assert 0 < nothing.mebibytes < 40
    assert alone.seconds > 0.3


def test_the_synopses_of_a_table_are_repeated(tmp_path: Path) -> None:
    path = speed.write_table(tmp_path / "table.csv", [("A", "one, two"), ("B", "three")], 5)
    assert path.read_text().splitlines()[1:] == [
        *['0,A,"one, two"', "1,B,three", '2,A,"one, two"', "3,B,three", '4,A,"one, two"']
    ]


def test_a_part_of_a_corpus_has_its_share_of_the_rows(tmp_path: Path) -> None:
    table = speed.write_table(tmp_path / "corpus.csv", [("A", 'one, "two"\nthree')], 1000)
    (tmp_path / "parts").mkdir()
    part = speed.part_of(table, 0.25, tmp_path / "parts")
    with part.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["id", "title", "synopsis"]
    assert 200 < len(rows) < 300
    assert {row[2] for row in rows} == {'one, "two"\nthree'}


def test_the_starter_corpus_stands_in_for_the_real_one() -> None:
    texts = speed.synopses(None)
    assert len(texts) > 700
    assert all(synopsis for _, synopsis in texts)


def test_the_help_shows_an_example() -> None:
    ran = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "speed.py", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    assert "python benchmarks/speed.py -o docs/benchmarks.md" in ran.stdout

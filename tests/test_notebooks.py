"""The committed notebooks: run from top to bottom, readable anywhere, with no text of others."""

from __future__ import annotations

import copy
import csv
import gzip
import importlib.util
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, STARTER

Notebook = dict[str, Any]

FOLDER = ROOT / "notebooks"
NAMES = ["01-corpus", "02-train-and-tune", "03-errors", "04-your-own-tags"]
MOST_BYTES = 300_000
# A rooted path of any system, or the address of an object, which differs from run to run.
_OF_ONE_MACHINE = re.compile(
    r"(?<![\w.:/])/(?:bin|data|etc|home|mnt|opt|private|proc|root|srv|tmp|usr|Users|var|work)\b"
    r"|\b[A-Za-z]:\\|file://|\bat 0x[0-9a-f]{6,}"
)
_CORPUS = os.environ.get("FOREWARN_CORPUS", "")


def read(name: str) -> Notebook:
    notebook: Notebook = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    return notebook


def module(name: str) -> Any:
    """A module of the folder, as it is with the environment of now."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def code_cells(notebook: Notebook) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def outputs(notebook: Notebook) -> list[dict[str, Any]]:
    return [output for cell in code_cells(notebook) for output in cell["outputs"]]


def printed(notebook: Notebook) -> str:
    """All text of the outputs; pictures left out."""
    texts = []
    for output in outputs(notebook):
        kinds = {kind: text for kind, text in output.get("data", {}).items() if "image" not in kind}
        texts += [output.get("text", ""), *kinds.values(), output.get("traceback", "")]
    return "\n".join("".join(text) for text in texts)


def faults(notebook: Notebook) -> list[str]:
    """What makes a notebook unfit to be committed."""
    found = []
    counts = [cell["execution_count"] for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        found.append(f"cells were not run once each, in order: {counts}")
    if not outputs(notebook):
        found.append("no outputs")
    if not any("image/png" in output.get("data", {}) for output in outputs(notebook)):
        found.append("no plot")
    if any(output["output_type"] == "error" for output in outputs(notebook)):
        found.append("a cell failed")
    if any(output.get("name") == "stderr" for output in outputs(notebook)):
        found.append("a cell wrote a warning")
    if of_one_machine := _OF_ONE_MACHINE.search(printed(notebook)):
        found.append(f"an output is of one machine: {of_one_machine[0]!r}")
    return found


def spoil_order(notebook: Notebook) -> None:
    first, second = code_cells(notebook)[:2]
    first["execution_count"], second["execution_count"] = (
        second["execution_count"],
        first["execution_count"],
    )


def skip_a_cell(notebook: Notebook) -> None:
    code_cells(notebook)[-1]["execution_count"] = None


def strip(notebook: Notebook) -> None:
    for cell in code_cells(notebook):
        cell["outputs"] = []


def write(name: str, text: str) -> Callable[[Notebook], None]:
    def change(notebook: Notebook) -> None:
        output = {"output_type": "stream", "name": name, "text": [text]}
        code_cells(notebook)[0]["outputs"].append(output)

    return change


def fail(notebook: Notebook) -> None:
    output = {"output_type": "error", "ename": "E", "evalue": "", "traceback": ["E"]}
    code_cells(notebook)[0]["outputs"].append(output)


def test_the_folder_holds_the_four_notebooks() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_stored_as_it_ran(name: str) -> None:
    assert faults(read(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_small(name: str) -> None:
    assert (FOLDER / f"{name}.ipynb").stat().st_size < MOST_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_says_what_its_outputs_come_from(name: str) -> None:
    prose = "".join(
        "".join(cell["source"]) for cell in read(name)["cells"] if cell["cell_type"] == "markdown"
    )
    assert "with `FOREWARN_CORPUS` unset" in " ".join(prose.split())


@pytest.mark.parametrize("name", NAMES)
def test_links_to_files_lead_somewhere(name: str) -> None:
    for cell in read(name)["cells"]:
        if cell["cell_type"] == "markdown":
            for target in re.findall(r"\]\(([^)#:]+)\)", "".join(cell["source"])):
                assert (FOLDER / target).exists(), target


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (spoil_order, "in order"),
        (skip_a_cell, "in order"),
        (strip, "no outputs"),
        (strip, "no plot"),
        (fail, "a cell failed"),
        (write("stderr", "FutureWarning: soon"), "a warning"),
        (write("stdout", "/home/ann/titles.csv"), "one machine"),
        (write("stdout", "C:\\titles.csv"), "one machine"),
        (write("stdout", "<Styler at 0x7feaccafe910>"), "one machine"),
    ],
)
def test_each_fault_is_noticed(change: Callable[[Notebook], None], fault: str) -> None:
    notebook = copy.deepcopy(read(NAMES[0]))
    change(notebook)
    assert any(fault in found for found in faults(notebook))


@pytest.mark.parametrize(("folder", "says"), [("", "a tale"), ("somewhere", "2 words")])
def test_a_text_is_shown_only_without_a_real_corpus(
    monkeypatch: pytest.MonkeyPatch, folder: str, says: str
) -> None:
    monkeypatch.setenv("FOREWARN_CORPUS", folder)
    assert says in module("source").shown("a tale")


@pytest.mark.skipif(not _CORPUS, reason="FOREWARN_CORPUS names no real corpus")
def test_no_stored_output_repeats_a_real_synopsis() -> None:
    stored = set().union(*(runs(printed(read(name))) for name in NAMES))
    for path in sorted(Path(_CORPUS).glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                assert not stored & runs(json.loads(line)["synopsis"] or "")


def runs(text: str, length: int = 8) -> set[tuple[str, ...]]:
    """All runs of so many words."""
    words = re.findall(r"\w+", text.casefold())
    return set(zip(*(words[start:] for start in range(length)), strict=False))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_text_of_a_corpus_outside_the_project_is_printed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every third word of this corpus is a mark, so that hardly a phrase of it lacks one."""
    pytest.importorskip("nbclient")
    pytest.importorskip("matplotlib")
    write_marked_corpus(tmp_path, rows=300)
    monkeypatch.setenv("FOREWARN_CORPUS", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = module("execute").execute(FOLDER / f"{name}.ipynb")
    assert printed(notebook)
    assert "zqx" not in printed(notebook).casefold()


def write_marked_corpus(folder: Path, rows: int) -> None:
    """An annotated file and a catalogue's, with the names and columns of the real ones."""
    with STARTER.open(newline="", encoding="utf-8") as file:
        starter = sorted(csv.DictReader(file), key=lambda row: -len(row["tags"]))[:rows]
    for row in starter:
        row["title"] = f"zqx {row['title']}"
        row["synopsis"] = re.sub(r"(\S+ \S+)", r"\1 zqx", row["synopsis"])
    for name, columns in (("annotated", ["maybe"]), ("catalogue", ["catalogue"])):
        with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            for row in starter:
                kept = {"catalogue": "library", **row}
                cells = {key: kept[key] for key in ("title", "synopsis", "tags", *columns)}
                file.write(json.dumps(cells) + "\n")

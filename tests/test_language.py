"""The language of a text is what py3langid says; its model is unpacked once for all processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest
from py3langid import langid

from pipeline import language
from pipeline.language import are_english

TEXTS = [
    "Two sisters inherit lighthouses, lanterns, letters, debts.",
    "Zwei Schwestern erben einen Leuchtturm und streiten um seine Laternen.",
    "Deux soeurs héritent d'un phare et se disputent ses lanternes.",
    "Dos hermanas heredan un faro y discuten por sus faroles.",
    "二人の姉妹は灯台を相続する。",
    "Harbour Tales 1. Old Gate 2. Seven Lamps 3. Night Ferry",
    "",
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache folder of the test's own; what the process had loaded is forgotten."""
    monkeypatch.setattr(language, "cache_folder", lambda: tmp_path / "cache" / "model")
    language._identifier.cache_clear()
    yield tmp_path / "cache" / "model"
    language._identifier.cache_clear()


def again() -> list[bool]:
    """What a new process would say."""
    language._identifier.cache_clear()
    return are_english(TEXTS)


def expected() -> list[bool]:
    return [langid.classify(text)[0] in {"en", "pcm"} for text in TEXTS]


def test_texts_are_judged_as_py3langid_judges_them(folder: Path) -> None:
    assert True in expected()
    assert False in expected()
    assert are_english(TEXTS) == again() == expected()


def test_the_model_is_unpacked_once(folder: Path, monkeypatch) -> None:
    are_english(TEXTS)
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    monkeypatch.setattr(language, "_unpacked", pytest.fail)
    assert again() == expected()


@pytest.mark.parametrize("damage", ["missing", "short", "empty", "not an array", "other"])
def test_a_damaged_model_is_unpacked_anew(folder: Path, damage: str) -> None:
    are_english(TEXTS)
    language._identifier.cache_clear()
    hurt = folder / "nextmove.npy"
    if damage == "missing":
        hurt.unlink()
    else:
        content = {"short": hurt.read_bytes()[:-1], "empty": b"", "not an array": b"PK\3\4" * 99}
        content["other"] = (folder / "pc.npy").read_bytes()
        hurt.unlink()
        hurt.write_bytes(content[damage])
    assert again() == expected()
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert language._mapped(folder) is not None


def test_one_process_writes_and_the_others_go_without(folder: Path) -> None:
    workshop = folder.with_name(".model")
    workshop.mkdir(parents=True)
    assert are_english(TEXTS) == expected()
    assert not folder.exists()
    os.utime(workshop, (0, 0))
    assert again() == expected()
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_nothing_in_the_folder_is_executed(folder: Path) -> None:
    import pickle

    are_english(TEXTS)
    (folder / "pc.npy").write_bytes(pickle.dumps(os.getcwd))
    assert language._mapped(folder) is None


def test_where_nothing_can_be_written_it_goes_without(folder: Path) -> None:
    folder.parent.write_text("a file, where a folder should be")
    assert are_english(TEXTS) == again() == expected()
    assert folder.parent.is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_what_was_touched_does_not_stay_in_memory(folder: Path) -> None:
    def resident() -> int:
        maps = psutil.Process().memory_maps()
        return sum(part.rss for part in maps if part.path.startswith(str(folder)))

    are_english(TEXTS)
    language._identifier.cache_clear()
    are_english(TEXTS)
    assert resident() < 1_000_000
    language._identifier().classify(TEXTS[0])
    assert resident() > 1_000_000

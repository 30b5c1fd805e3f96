"""Run records: what a training run leaves beside its model, and how runs are listed."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

import pytest
from conftest import STARTER, Forewarn
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.artefact import load_model
from pipeline.errors import RecordError
from pipeline.model import Model
from pipeline.record import find_records, read_record, summary


def test_a_run_records_its_options_data_and_figures(
    starter_folder: Path, starter_model: Model
) -> None:
    run = read_record(starter_folder / "run.json")
    assert run.command == "train"
    assert run.configuration == {
        "seed": 0,
        "folds": 5,
        "min_positives": 10,
        "tags": None,
        "columns": {},
    }
    checksum = hashlib.sha256(STARTER.read_bytes()).hexdigest()
    assert run.data["files"] == {"starter.csv": checksum}
    assert (run.data["rows"], run.data["scored_rows"]) == (769, 769)
    assert sum(run.data["scored_cells"].values()) == 769 * len(run.tags)
    assert run.environment["forewarn"] == starter_model.provenance["forewarn"]
    assert "scikit-learn" in run.environment["libraries"]
    assert (
        run.metrics["balanced"]["micro_f1"]
        == (starter_model.provenance["held_out"]["balanced"]["micro_f1"])
    )
    assert 0 < run.seconds < 600


def test_the_record_is_json_that_names_its_format(starter_folder: Path) -> None:
    data = json.loads((starter_folder / "run.json").read_text(encoding="utf-8"))
    assert (data["format"], data["schema_version"]) == ("forewarn-run", 1)


def test_a_record_holds_no_folder_of_the_machine(starter_folder: Path) -> None:
    text = (starter_folder / "run.json").read_text(encoding="utf-8")
    assert str(STARTER.parent) not in text
    assert str(starter_folder.parent) not in text


def test_a_model_needs_no_record_and_is_not_told_by_it(
    starter_folder: Path, starter_model: Model, tmp_path: Path
) -> None:
    import shutil

    copy = Path(shutil.copytree(starter_folder, tmp_path / "copy"))
    (copy / "run.json").write_text("nonsense")
    assert load_model(copy).tags == starter_model.tags
    (copy / "run.json").unlink()
    assert load_model(copy).tags == starter_model.tags


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "damaged"),
        ("[]", "no run record"),
        ('{"format": "forewarn-model"}', "no run record"),
        ('{"format": "forewarn-run", "schema_version": 99}', "another Forewarn"),
        ('{"format": "forewarn-run", "schema_version": 1}', "does not hold together"),
        ('{"format": "forewarn-run", "schema_version": 1, "tags": [], "x": 1}', "hold together"),
    ],
)
def test_a_damaged_record_is_refused_by_name(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(content)
    with pytest.raises(RecordError, match=told) as caught:
        read_record(path)
    assert str(path) in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_change_to_a_record_is_read_or_refused(
    starter_folder: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    record = json.loads((starter_folder / "run.json").read_text(encoding="utf-8"))
    key = data.draw(st.sampled_from(sorted(record)))
    record[key] = data.draw(
        st.recursive(
            st.none() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["balanced", "rows", "works"]), inner, max_size=3)
            ),
            max_leaves=5,
        )
    )
    path = tmp_path_factory.mktemp("record") / "run.json"
    path.write_text(json.dumps(record))
    with contextlib.suppress(RecordError):
        summary(read_record(path))


def test_runs_lists_them_by_time(forewarn: Forewarn, starter_folder: Path, tmp_path: Path) -> None:
    record = json.loads((starter_folder / "run.json").read_text(encoding="utf-8"))
    for name, started in (("late", "2031-05-01T10:00:00+00:00"), ("early", "2021-05-01T09:30:00")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(record | {"started": started}))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    ran = forewarn("runs", tmp_path)
    assert ran.rc == 0
    head, *rows = ran.stdout.splitlines()
    assert head.split()[:2] == ["model", "started"]
    assert [Path(row.split()[0]).name for row in rows] == ["early", "late"]
    assert "2021-05-01 09:30" in rows[0] and "769" in rows[0]
    assert f"note: {tmp_path / 'broken' / 'run.json'}: is damaged" in ran.stderr
    told = json.loads(forewarn("runs", tmp_path, "--json").stdout)
    assert [run["started"][:4] for run in told] == ["2021", "2031"]
    assert told[0]["metrics"] == record["metrics"]


def test_runs_says_when_there_are_none(forewarn: Forewarn, tmp_path: Path) -> None:
    ran = forewarn("runs", tmp_path)
    assert (ran.rc, ran.stdout) == (0, f"No training run has left its record in {tmp_path}.\n")
    ran = forewarn("runs", tmp_path / "none")
    assert ran.rc == 2
    assert "no such folder" in ran.stderr


def test_hidden_and_deep_folders_are_passed_over(tmp_path: Path) -> None:
    for place in ("a/b", ".venv/x", "1/2/3/4/5/6"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "run.json").write_text("{}")
    assert find_records(tmp_path) == [tmp_path / "a" / "b" / "run.json"]

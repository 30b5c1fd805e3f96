"""An exported model is a stock scikit-learn pipeline that says what the model says."""

from __future__ import annotations

from pathlib import Path

import joblib
import numpy as np
import pytest
from conftest import Forewarn
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from pipeline.errors import ForewarnError
from pipeline.export import export_joblib, to_pipeline
from pipeline.model import Model, to_document

GRIM = (
    "When her brother is murdered, a retired detective follows the killer into a city at war, "
    "where soldiers torture their prisoners and the dead lie in the streets."
)
DOCUMENTS = [
    "",
    "\n",
    "A Title Alone\n",
    f"\n{GRIM}",
    f"The War\n{GRIM}",
    "Ärger\nDie Fähre — naïve café, œuvre, ſtraße, ﬁre and 寝取られ 👩\u200d🚀 of the killer",
    "\nnot a murder, never a murder, no murder at all: m*rder s*x r*pe o'clock don't",
    "one line with no break about a drug war and a casino",
    "a\nb\nc war\nd war",
]
CLEANED = [to_document(title, rest) for title, _, rest in (d.partition("\n") for d in DOCUMENTS)]


@pytest.fixture(scope="module")
def exported(starter_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    path = tmp_path_factory.mktemp("export") / "forewarn.joblib"
    export_joblib(starter_model, path)
    return joblib.load(path)


def test_the_pipeline_gives_the_models_probabilities(
    starter_model: Model, exported: Pipeline
) -> None:
    expected = starter_model.predict_proba(CLEANED)
    assert np.abs(exported.predict_proba(DOCUMENTS) - expected).max() < 1e-6
    assert np.ptp(expected, axis=0).max() > 0.1


@settings(deadline=None, max_examples=60)
@given(
    texts=st.lists(
        st.text() | st.lists(st.sampled_from(GRIM.split()), max_size=30).map(" ".join),
        min_size=1,
        max_size=6,
    )
)
def test_it_does_so_for_any_text(
    starter_model: Model, exported: Pipeline, texts: list[str]
) -> None:
    documents = [to_document(text[:5], text) for text in texts]
    gap = exported.predict_proba(documents) - starter_model.predict_proba(documents)
    assert np.abs(gap).max() < 1e-6


def test_columns_are_in_the_taxonomys_order(starter_model: Model, exported: Pipeline) -> None:
    assert tuple(exported.classes_) == starter_model.tags == starter_model.taxonomy.ids
    assert exported.predict_proba(DOCUMENTS).shape == (len(DOCUMENTS), len(starter_model.tags))


def test_its_parts_are_scikit_learns(starter_model: Model, exported: Pipeline) -> None:
    features, classifier = (step for _, step in exported.steps)
    assert type(features) is TfidfVectorizer
    assert {type(estimator) for estimator in classifier.estimators_} == {LogisticRegression}
    assert tuple(features.get_feature_names_out()) == starter_model.vocabulary


def test_it_predicts_tags_as_a_matrix_of_zeros_and_ones(exported: Pipeline) -> None:
    flags = exported.predict(DOCUMENTS)
    assert flags.shape == exported.predict_proba(DOCUMENTS).shape
    assert set(np.unique(np.asarray(flags))) <= {0, 1}


def test_the_default_model_can_be_exported(default_model: Model) -> None:
    expected = default_model.predict_proba(CLEANED)
    assert np.abs(to_pipeline(default_model).predict_proba(DOCUMENTS) - expected).max() < 1e-6


def test_the_command_writes_the_file(
    forewarn: Forewarn, starter_folder: Path, starter_model: Model, tmp_path: Path
) -> None:
    path = tmp_path / "forewarn.joblib"
    ran = forewarn("export", starter_folder, "--format", "joblib", path)
    assert (ran.rc, ran.stdout, ran.stderr) == (0, "", f"Pipeline written to {path}\n")
    gap = joblib.load(path).predict_proba(DOCUMENTS) - starter_model.predict_proba(CLEANED)
    assert np.abs(gap).max() < 1e-6
    assert [file.name for file in tmp_path.iterdir()] == ["forewarn.joblib"]


@pytest.mark.parametrize("place", ["folder", "missing/x.joblib"])
def test_a_file_that_cannot_be_written_is_told_in_one_line(
    forewarn: Forewarn, starter_folder: Path, tmp_path: Path, place: str
) -> None:
    (tmp_path / "folder").mkdir()
    ran = forewarn("export", starter_folder, tmp_path / place)
    assert ran.rc == 2
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"forewarn: {tmp_path / place}: ")
    assert [file.name for file in tmp_path.rglob("*")] == ["folder"]


def test_a_failed_export_leaves_the_old_file(
    starter_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.joblib"
    path.write_bytes(b"old")

    def failing(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(joblib, "dump", failing)
    with pytest.raises(ForewarnError, match="No space left"):
        export_joblib(starter_model, path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["x.joblib"]


def test_a_packed_name_gives_a_packed_pipeline(tmp_path: Path, default_model: Model) -> None:
    export_joblib(default_model, tmp_path / "model.joblib.gz")
    loaded = joblib.load(tmp_path / "model.joblib.gz")
    assert loaded.predict_proba(["\nA widow hunts the killers."]).shape == (1, 36)

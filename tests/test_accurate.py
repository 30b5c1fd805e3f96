"""The accurate model: two parts that decide together, and `auto`, which spares the slow one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Forewarn

from pipeline import artefact
from pipeline.accurate import AccurateModel, _chunks, blend
from pipeline.encoder import Encoder
from pipeline.errors import ModelError
from pipeline.model import Model
from pipeline.release import models_path
from pipeline.tagging import Tagger

CRIME = "A detective hunts a serial killer who has murdered five women in a seaside hotel."
CALM = "A cook opens a small noodle shop by the sea and learns the names of her neighbours."
DOCUMENTS = [f"\n{CRIME}", f"\n{CALM}"]


@pytest.fixture(scope="module")
def accurate() -> AccurateModel:
    model = artefact.load_model("accurate")
    assert isinstance(model, AccurateModel)
    return model


def test_it_has_the_interface_of_a_linear_model(accurate: AccurateModel) -> None:
    probabilities = accurate.predict_proba(DOCUMENTS)
    assert probabilities.shape == (2, len(accurate.tags))
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    flags = accurate.decide(probabilities)
    assert flags[0, accurate.tags.index("murder")]
    assert not flags[1].any()


def test_no_broader_tag_is_less_probable_than_a_narrower_one(accurate: AccurateModel) -> None:
    probabilities = accurate.predict_proba(DOCUMENTS)
    for narrow, broad in accurate.linear.implications:
        assert (probabilities[:, broad] >= probabilities[:, narrow]).all()


def test_the_blend_is_a_weighted_mean() -> None:
    one, two = np.array([[1.0, -2.0]]), np.array([[3.0, 4.0]])
    assert blend(one, two, 0.25).tolist() == [[1.5, -0.5]]
    assert blend(one, two, 0.0).tolist() == one.tolist()


def test_evidence_lies_where_it_says_and_holds_the_decisive_words(accurate: AccurateModel) -> None:
    marked_up = f"<b>Synopsis:</b> {CRIME} [Written by MAL Rewrite]"
    warnings = {w.tag: w for w in accurate.suggest(marked_up, "The Long Season").warnings}
    texts = []
    for evidence in warnings["murder"].evidence:
        source = marked_up if evidence.field == "synopsis" else "The Long Season"
        assert source[evidence.start : evidence.end] == evidence.text
        assert evidence.weight > 0
        texts.append(evidence.text)
    assert any("murdered" in text or "killer" in text for text in texts)


def test_evidence_can_be_left_out_and_changes_nothing_else(accurate: AccurateModel) -> None:
    bare = accurate.suggest(CRIME, evidence=False).warnings
    full = accurate.suggest(CRIME).warnings
    assert [(w.tag, w.probability) for w in bare] == [(w.tag, w.probability) for w in full]
    assert not any(w.evidence for w in bare)


def test_auto_reads_with_the_transformer_only_what_the_linear_part_is_unsure_about(
    accurate: AccurateModel,
) -> None:
    class Counting(Encoder):
        read = 0

        def log_odds(self, documents):  # type: ignore[no-untyped-def]
            Counting.read += len(documents)
            return super().log_odds(documents)

    encoder = Counting(accurate.encoder.folder)
    none = replace(accurate, encoder=encoder, margin=0.0)
    assert np.allclose(none.log_odds(DOCUMENTS), accurate.linear.log_odds(DOCUMENTS))
    assert Counting.read == 0
    every = replace(accurate, encoder=encoder, margin=1000.0)
    assert np.allclose(every.log_odds(DOCUMENTS), accurate.log_odds(DOCUMENTS))
    assert Counting.read == 2


def test_auto_is_a_name(accurate: AccurateModel) -> None:
    auto = artefact.load_model("auto")
    assert isinstance(auto, AccurateModel)
    assert auto.margin is not None
    assert accurate.margin is None


def test_a_saved_model_is_the_loaded_one(accurate: AccurateModel, tmp_path: Path) -> None:
    artefact.save_model(accurate, tmp_path / "copy", "A card.")
    again = artefact.load_model(tmp_path / "copy")
    assert isinstance(again, AccurateModel)
    assert np.array_equal(again.log_odds(DOCUMENTS), accurate.log_odds(DOCUMENTS))
    assert np.array_equal(again.share, accurate.share)
    assert again.provenance == accurate.provenance


@pytest.mark.parametrize("file", ["encoder.onnx", "tokenizer.json", "weights.npy"])
def test_a_damaged_file_is_found_when_loading(tmp_path: Path, file: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(models_path() / "accurate", folder)
    with (folder / file).open("ab") as handle:
        handle.write(b"x")
    with pytest.raises(ModelError, match=f"{file} is damaged"):
        artefact.load_model(folder)


@pytest.mark.parametrize("blend_", [{}, {"share": [2], "slope": [], "intercept": []}, None])
def test_a_blend_that_does_not_fit_is_refused(tmp_path: Path, blend_: object) -> None:
    folder = tmp_path / "model"
    shutil.copytree(models_path() / "accurate", folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["blend"] = blend_
    config["digest"] = artefact._digest(config)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match="does not hold together"):
        artefact.load_model(folder)


def test_auto_without_the_released_model_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, default_model: Model
) -> None:
    monkeypatch.setattr("pipeline.release.models_path", lambda: tmp_path)
    with pytest.raises(ModelError, match="no such model"):
        artefact.load_model("auto")
    artefact.save_model(default_model, tmp_path / "accurate")
    with pytest.raises(ModelError, match="needs the released accurate model"):
        artefact.load_model("auto")


def test_an_encoder_of_other_tags_is_refused(accurate: AccurateModel) -> None:
    class Narrow(Encoder):
        def log_odds(self, documents):  # type: ignore[no-untyped-def]
            return super().log_odds(documents)[:, :3]

    with pytest.raises(ModelError, match="has other tags"):
        replace(accurate, encoder=Narrow(accurate.encoder.folder)).log_odds(DOCUMENTS)


def test_tagging_and_predicting_agree(accurate: AccurateModel) -> None:
    tagger = Tagger(accurate, scores=True, evidence=True)
    cells = tagger([("A", CRIME), ("B", CALM), ("", "")])
    alone = accurate.suggest(CRIME, "A")
    assert cells["warnings"][0] == ";".join(w.tag for w in alone.warnings)
    for warning in alone.warnings:
        assert cells[f"score_{warning.tag}"][0] == warning.probability
    named = [entry.split(":")[0] for entry in str(cells["warning_evidence"][0]).split("; ")]
    assert named == [w.tag for w in alone.warnings]


def test_evidence_of_a_very_long_text_takes_a_bounded_number_of_readings(
    accurate: AccurateModel,
) -> None:
    assert len(_chunks("lamp " * 3000)) <= 60
    assert len(_chunks("One two three four, five. Six")) == 4


def test_the_released_model_is_small() -> None:
    size = sum(path.stat().st_size for path in (models_path() / "accurate").iterdir())
    assert size < 25e6


@pytest.mark.parametrize("name", ["accurate", "auto"])
def test_the_command_line_takes_its_name(forewarn: Forewarn, tmp_path: Path, name: str) -> None:
    table = tmp_path / "in.csv"
    table.write_text(f"title,synopsis\nA,{CRIME}\nB,{CALM}\nC,\n")
    ran = forewarn("tag", table, "-o", tmp_path / "out.csv", "--model", name, "--evidence")
    assert ran.rc == 0, ran.stderr
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert len(lines) == 4
    assert "murder" in lines[1]
    assert lines[2].startswith(f"B,{CALM},,ok")
    one = forewarn("predict", CRIME, "--model", name, "--json")
    assert "murder" in {w["tag"] for w in json.loads(one.stdout)["warnings"]}


def test_it_cannot_be_a_scikit_learn_pipeline(forewarn: Forewarn, tmp_path: Path) -> None:
    ran = forewarn("export", "accurate", tmp_path / "model.joblib")
    assert ran.rc == 2
    assert "only a linear model" in ran.stderr
    assert not list(tmp_path.iterdir())

"""A whole fine-tuning run, on a transformer of one narrow layer with random weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs forewarn[finetune]")
transformers = pytest.importorskip("transformers", reason="needs forewarn[finetune]")
pytest.importorskip("onnx", reason="needs forewarn[finetune]")

from conftest import STARTER  # noqa: E402

from pipeline import artefact, card  # noqa: E402
from pipeline.accurate import AccurateModel  # noqa: E402
from pipeline.corpus import read_corpus  # noqa: E402
from pipeline.encoder import load_tokenizer, to_ids  # noqa: E402
from pipeline.errors import ModelError  # noqa: E402
from pipeline.finetuning import ALONE, Reader, distil, export_encoder, finetune, train_accurate  # noqa: E402
from pipeline.release import models_path  # noqa: E402
from pipeline.taxonomy import load_taxonomy  # noqa: E402

TEXTS = ["\nThe killer is back in town.", "\nThe baker is back in town."] * 40
LONG = replace(ALONE, epochs=80)
LABELS = np.array([[1, 0], [0, -1]] * 40, dtype=np.int8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    source = models_path() / "accurate" / "tokenizer.json"
    (folder / "tokenizer.json").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    size = len(json.loads(source.read_text(encoding="utf-8"))["model"]["vocab"])
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def read(tuned: Reader) -> np.ndarray:
    ids = to_ids(load_tokenizer(tuned.tokenizer), TEXTS[:2])
    with torch.no_grad():
        mask = torch.ones(2, len(ids[0]), dtype=torch.long)
        return tuned.network(torch.tensor(ids), mask).numpy()


def test_it_learns_what_the_labels_say(weights: Path) -> None:
    seen: list[tuple[int, int]] = []
    tuned = finetune(TEXTS, LABELS, weights, LONG, progress=lambda *step: seen.append(step))
    assert seen[-1][0] == seen[-1][1] == len(seen)
    logits = read(tuned)
    assert logits[0, 0] > 1 > -1 > logits[1, 0]


def test_maybes_teach_half_a_yes(weights: Path) -> None:
    # Of the second tag only what is said of the second text differs from run to run.
    logit = {}
    for state in (0, -2, 1):
        labels = np.array([[0, 0], [1, state]] * 40, np.int8)
        logit[state] = float(read(finetune(TEXTS, labels, weights, LONG))[1, 1])
    assert logit[0] + 1 < logit[-2] < logit[1] - 1


def test_unknown_cells_teach_nothing(weights: Path) -> None:
    labels = np.array([[1, -1], [0, -1]] * 40, np.int8)
    first, second = read(finetune(TEXTS, labels, weights, LONG))
    assert abs(first[0] - second[0]) > 2
    assert abs(first[1] - second[1]) < 0.5


def test_a_folder_without_weights_is_refused_before_training(tmp_path: Path) -> None:
    corpus = read_corpus([STARTER], load_taxonomy())
    with pytest.raises(ModelError, match=r"has no config\.json; name the folder"):
        train_accurate(corpus, tmp_path, tmp_path)


def test_the_exported_graph_gives_nearly_the_same(weights: Path, tmp_path: Path) -> None:
    tuned = finetune(TEXTS, LABELS, weights, replace(ALONE, epochs=5))
    before = read(tuned)
    encoder = export_encoder(tuned, TEXTS, tmp_path)
    assert np.abs(encoder.log_odds(TEXTS[:2]) - before).max() < 0.3
    assert np.array_equal(read(tuned), before)
    vocabulary = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    assert "killer" in vocabulary
    assert "musician" not in vocabulary


def test_a_run_makes_a_model_that_saves_and_loads(weights: Path, tmp_path: Path) -> None:
    corpus = read_corpus([STARTER], load_taxonomy())
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    run = train_accurate(corpus, scratch, weights, epochs=1)
    assert isinstance(run.model, AccurateModel)
    assert ((run.model.share >= 0) & (run.model.share <= 1)).all()
    assert "1 layers of width 32" in run.model.provenance["start"]
    held = run.by_profile["balanced"].rows
    assert 0 < held < len(corpus) / 4
    text = card.model_card(run, "mine")
    assert "one attention over the tokens per tag" in text
    artefact.save_model(run.model, tmp_path / "mine", text)
    again = artefact.load_model(tmp_path / "mine")
    documents = list(corpus.documents[:5])
    assert np.allclose(again.log_odds(documents), run.model.log_odds(documents))


def test_a_student_learns_what_its_teacher_says_of_texts_without_labels(weights: Path) -> None:
    teacher = finetune(TEXTS, LABELS, weights, LONG)
    unknown = np.full((1, 2), -1, np.int8)
    recipe = replace(LONG, batch=8)
    student = distil(teacher, [TEXTS[0], *TEXTS], unknown, weights, recipe)
    logits = read(student)
    assert logits[0, 0] > 1 > -1 > logits[1, 0]
    assert np.abs(student.log_odds(TEXTS[:2]) - logits).max() < 0.2


def test_a_run_with_a_teacher_names_it(weights: Path, tmp_path: Path) -> None:
    extra = tmp_path / "more.csv"
    extra.write_text("title,synopsis\nA,A ferry that nobody has ever seen leaves at dawn.\n")
    corpus = read_corpus([STARTER], load_taxonomy(), unlabelled=[extra])
    seen: list[float] = []
    run = train_accurate(
        corpus,
        tmp_path,
        weights,
        weights,
        epochs=1,
        progress=lambda done, total: seen.append(done / total),
    )
    assert run.model.provenance["teacher"].endswith("1 layers of width 32")
    assert run.model.provenance["rows"] == len(corpus) - 1
    assert seen == sorted(seen)
    assert seen[-1] == 1
    text = card.model_card(run, "mine")
    assert "It learnt by distillation from a larger one" in text
    assert "1 texts without labels" in text

"""A whole fine-tuning run, on a transformer of one narrow layer with random weights."""

from __future__ import annotations

import json
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
from pipeline.finetuning import export_encoder, finetune, train_accurate  # noqa: E402
from pipeline.release import models_path  # noqa: E402
from pipeline.taxonomy import load_taxonomy  # noqa: E402

TEXTS = ["\nThe killer is back in town.", "\nThe baker is back in town."] * 40
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


def test_it_learns_what_the_labels_say_and_nothing_of_unknown_cells(weights: Path) -> None:
    seen: list[tuple[int, int]] = []
    tuned = finetune(TEXTS, LABELS, weights, epochs=10, progress=lambda *step: seen.append(step))
    assert seen[-1][0] == seen[-1][1] == len(seen)
    ids = to_ids(load_tokenizer(weights / "tokenizer.json"), TEXTS[:2])
    with torch.no_grad():
        logits = tuned(torch.tensor(ids), torch.ones(2, len(ids[0]), dtype=torch.long))
    assert logits[0, 0] > 1 > -1 > logits[1, 0]


def test_the_exported_graph_gives_nearly_the_same(weights: Path, tmp_path: Path) -> None:
    tuned = finetune(TEXTS, LABELS, weights, epochs=5)
    ids = to_ids(load_tokenizer(weights / "tokenizer.json"), TEXTS[:2])
    with torch.no_grad():
        before = tuned(torch.tensor(ids), torch.ones(2, len(ids[0]), dtype=torch.long)).numpy()
    encoder = export_encoder(tuned, weights / "tokenizer.json", TEXTS, tmp_path)
    assert np.abs(encoder.log_odds(TEXTS[:2]) - before).max() < 0.3
    vocabulary = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    assert "killer" in vocabulary
    assert "musician" not in vocabulary


def test_a_run_makes_a_model_that_saves_and_loads(weights: Path, tmp_path: Path) -> None:
    corpus = read_corpus([STARTER], load_taxonomy())
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    run = train_accurate(corpus, weights, scratch, epochs=1)
    assert isinstance(run.model, AccurateModel)
    assert 0 <= run.model.share <= 1
    held = run.by_profile["balanced"].rows
    assert 0 < held < len(corpus) / 4
    text = card.model_card(run, "mine")
    assert "one attention over the tokens per tag" in text
    artefact.save_model(run.model, tmp_path / "mine", text)
    again = artefact.load_model(tmp_path / "mine")
    documents = list(corpus.documents[:5])
    assert np.allclose(again.log_odds(documents), run.model.log_odds(documents))

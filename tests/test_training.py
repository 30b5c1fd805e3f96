"""Training: equal seeds give equal models, and any taxonomy works from labels to suggestions."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import STARTER, Forewarn, Ran

from pipeline.artefact import load_model
from pipeline.corpus import Corpus, read_corpus
from pipeline.errors import CorpusError
from pipeline.taxonomy import load_taxonomy
from pipeline.training import TrainingRun, train

TAXONOMY = """
[[tag]]
id = "weather"
label = "Bad weather"
group = "sea"
definition = "Wind and rain matter to the plot."

[[tag]]
id = "wreck"
label = "Shipwreck"
group = "sea"
definition = "A ship goes down."
broader = ["weather"]

[[tag]]
id = "bees"
label = "Bees"
group = "land"
definition = "Bees, kept or wild."
aliases = ["apiary", "hives"]

[[tag]]
id = "clowns"
label = "Clowns"
group = "land"
definition = "A clown appears."
"""
WHO = [
    "A retired cartographer and her nephew",
    "Two brothers who have not spoken in years",
    "The youngest pilot of the northern islands",
    "A travelling piano tuner with a secret debt",
    "The widow who runs the harbour inn",
    "An apprentice baker and his talkative aunt",
]
WHAT = {
    "weather": [
        "are caught by a gale that tears the roofs from the town",
        "wait out a storm of rain and hail in the chapel",
    ],
    "wreck": [
        "watch the old steamer sink with its cargo on the reef",
        "search the drowned ship that foundered on the rocks",
    ],
    "bees": [
        "inherit forty hives and a quarrel about the honey",
        "follow a wild swarm of bees across the valley",
    ],
    "": [
        "open a small cinema above the railway station",
        "learn to dance for the midsummer fair",
    ],
}
END = [
    "before the year is over, they will understand what home was for.",
    "and nobody in the village believes a word of the story.",
    "while a letter from the capital changes all of their plans.",
]


THINGS = (
    "lanterns orchards bicycles postcards umbrellas violins teacups marbles foxes rivers pancakes "
    "telescopes mittens ladders pigeons puppets gardens kites trumpets maps puddles cushions"
)


def write_corpus(path: Path) -> None:
    """Labelled blurbs of all combinations, each of its own things, so that none is a copy."""
    random = np.random.default_rng(0)
    things = THINGS.split()
    rows = []
    for who, (tag, choices), end in itertools.product(WHO, WHAT.items(), END):
        for what in choices:
            some = ", ".join(random.choice(things, 9, replace=False))
            rows.append((f"{who} {what}, {end} There are {some} and no end of tea.", tag))
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("synopsis", "tags"), *rows])


@pytest.fixture(scope="module")
def own(forewarn: Forewarn, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, Path]:
    """A model of a taxonomy that shares no tag with ours, trained by the command line."""
    desk = tmp_path_factory.mktemp("own")
    (desk / "own.toml").write_text(TAXONOMY)
    write_corpus(desk / "own.csv")
    args = ("train", "own.csv", "-o", "model", "--tags", "own.toml", "--jobs", "1")
    return forewarn(*args, cwd=desk), desk


@pytest.fixture(scope="module")
def corpus(own: tuple[Ran, Path]) -> Corpus:
    _, desk = own
    return read_corpus([desk / "own.csv"], load_taxonomy(desk / "own.toml"))


@pytest.fixture(scope="module")
def run(corpus: Corpus) -> TrainingRun:
    return train(corpus, seed=3, jobs=1, folds=3)


# The starter corpus, by the command line


def test_training_reports_held_out_figures_and_writes_a_model(
    starter_training: tuple[Ran, Path],
) -> None:
    ran, folder = starter_training
    assert ran.rc == 0, ran.stderr
    assert ran.stderr == ""
    for profile in ("balanced", "cautious", "strict"):
        assert f"Held-out works, {profile} profile" in ran.stdout
    assert f"Model written to {folder}" in ran.stdout
    assert {file.name for file in folder.iterdir()} == {
        "README.md",
        "bias.npy",
        "config.json",
        "idf.npy",
        "run.json",
        "vocabulary.txt",
        "weights.npy",
    }
    model = load_model(folder)
    assert model.tags == load_taxonomy().ids
    figures = model.provenance["held_out"]["balanced"]
    assert figures["rows"] == model.provenance["rows"] > 700
    assert figures["micro_f1"] > 0.2
    assert figures["expected_calibration_error"] < 0.05


def test_equal_seeds_give_equal_models_whatever_the_jobs(
    forewarn: Forewarn, starter_folder: Path, tmp_path: Path
) -> None:
    ran = forewarn("train", STARTER, "-o", tmp_path / "again", "--jobs", "1", "--json")
    assert ran.rc == 0, ran.stderr
    for name in ("weights.npy", "bias.npy", "idf.npy", "vocabulary.txt"):
        again = (tmp_path / "again" / name).read_bytes()
        assert again == (starter_folder / name).read_bytes(), name
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert json.loads(ran.stdout) == config["provenance"]
    assert (
        config["thresholds"]
        == json.loads((starter_folder / "config.json").read_text())["thresholds"]
    )


def test_tags_with_too_few_positives_are_named_and_left_out(
    forewarn: Forewarn, tmp_path: Path
) -> None:
    args = ("--min-positives", "100", "--folds", "2", "--jobs", "1")
    ran = forewarn("train", STARTER, "-o", tmp_path / "few", *args)
    assert ran.rc == 0, ran.stderr
    model = load_model(tmp_path / "few")
    known = set(model.tags)
    assert known
    left = {line.split()[2] for line in ran.stdout.splitlines() if line.startswith("left out:")}
    assert left == set(load_taxonomy().ids) - known == set(model.provenance["left_out"])
    assert "stalking" in left
    assert all(count < 100 for count in model.provenance["left_out"].values())
    assert "--min-positives 100" in ran.stdout
    assert all(f"`{tag}` (" in (tmp_path / "few" / "README.md").read_text() for tag in left)


def test_evaluate_counts_observed_cells_alone(
    forewarn: Forewarn, starter_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(
        "synopsis,tags,maybe\n"
        "A soldier comes home from the war and cannot sleep in his own bed.,war,death\n"
        "Two gamblers wager the family casino on the last hand of the night.,gambling,\n"
        "A choir of pensioners rehearses for the summer fair in the rain.,,war\n"
        ",gore,\n"
    )
    ran = forewarn("evaluate", starter_folder, path, "--json")
    assert ran.rc == 0, ran.stderr
    assert ran.stderr == f"note: {path}: 1 rows left out: no synopsis\n"
    score = json.loads(ran.stdout)
    assert (score["rows"], score["works"]) == (3, 3)
    figures = {tag["tag"]: tag for tag in score["tags"]}
    # A tag that implies another counts for it; a maybe counts for nothing.
    assert figures["war"]["support"] == 1
    assert figures["war"]["known"] == 2
    assert figures["gambling"]["support"] == 1
    assert figures["gambling"]["known"] == 3
    assert "gore" not in figures
    assert 0 <= score["micro_f1"] <= 1


def test_evaluate_prints_figures_and_minds_the_threshold(
    forewarn: Forewarn, starter_folder: Path, tmp_path: Path
) -> None:
    with STARTER.open(newline="", encoding="utf-8") as file:
        rows = list(itertools.islice(csv.reader(file), 60))
    with (tmp_path / "some.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    ran = forewarn("evaluate", starter_folder, tmp_path / "some.csv")
    assert ran.rc == 0, ran.stderr
    assert ran.stdout.startswith("micro F1  ")
    assert "\nntr " in ran.stdout
    args = ("--threshold", "0", "--json")
    every = json.loads(forewarn("evaluate", starter_folder, tmp_path / "some.csv", *args).stdout)
    assert every["rows"] == 59
    assert every["micro_recall"] == 1.0
    assert every["micro_precision"] < 0.5


# A taxonomy of one's own


def test_an_own_taxonomy_is_trained_on(own: tuple[Ran, Path]) -> None:
    ran, desk = own
    assert ran.rc == 0, ran.stderr
    model = load_model(desk / "model")
    assert model.tags == ("weather", "wreck", "bees")
    assert not set(model.tags) & set(load_taxonomy().ids)
    assert "left out: clowns (0 works have it; --min-positives 10)" in ran.stdout


def test_an_own_model_predicts_its_own_tags(forewarn: Forewarn, own: tuple[Ran, Path]) -> None:
    _, desk = own
    blurb = "The brothers watch as the ship sinks on the reef, and the drowned cargo drifts ashore."
    ran = forewarn("predict", blurb, "--model", "model", "--json", cwd=desk)
    warnings = {warning["tag"]: warning for warning in json.loads(ran.stdout)["warnings"]}
    assert set(warnings) == {"weather", "wreck"}
    assert warnings["wreck"]["label"] == "Shipwreck"
    assert warnings["weather"]["probability"] >= warnings["wreck"]["probability"] > 0.5
    assert all(warning["evidence"] for warning in warnings.values())


def test_an_own_model_tags_a_table(forewarn: Forewarn, own: tuple[Ran, Path]) -> None:
    _, desk = own
    ran = forewarn("tag", "own.csv", "-o", "tagged.csv", "--model", "model", "--scores", cwd=desk)
    assert ran.rc == 0, ran.stderr
    with (desk / "tagged.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-3:] == ["score_weather", "score_wreck", "score_bees"]
    right = {"": "", "bees": "bees", "weather": "weather", "wreck": "weather;wreck"}
    hits = [set(row["warnings"].split(";")) == set(right[row["tags"]].split(";")) for row in rows]
    assert np.mean(hits) > 0.95


def test_tags_lists_an_own_taxonomy(forewarn: Forewarn, own: tuple[Ran, Path]) -> None:
    ran = forewarn("tags", "--tags", "own.toml", cwd=own[1])
    assert ran.rc == 0
    assert [line.split()[0] for line in ran.stdout.splitlines() if line] == [
        *("sea", "weather", "wreck"),
        *("land", "bees", "clowns"),
    ]
    told = forewarn("tags", "Apiary", "--tags", "own.toml", cwd=own[1])
    assert told.stdout.startswith("Bees (bees), in land\n")


# What a run makes


def test_a_run_scores_every_row_out_of_fold(run: TrainingRun, corpus: Corpus) -> None:
    assert set(run.by_profile) == {"balanced", "cautious", "strict"}
    assert set(run.by_source) == {"own.csv"}
    for score in run.by_profile.values():
        assert score.rows == len(corpus)
        assert [tag.tag for tag in score.tags] == ["weather", "wreck", "bees"]
    assert run.by_profile["balanced"].micro_f1 > 0.9
    recalls = [run.by_profile[p].micro_recall for p in ("strict", "balanced", "cautious")]
    assert recalls == sorted(recalls)


def test_held_out_figures_are_not_learnt_by_heart(corpus: Corpus) -> None:
    """Labels dealt at random can be learnt by heart, but not foretold for other works."""
    random = np.random.default_rng(0)
    labels = np.zeros_like(corpus.labels)
    labels[:, corpus.taxonomy.index["bees"]] = random.permutation(len(corpus)) % 3 == 0
    dealt = replace(corpus, labels=labels)
    run = train(dealt, jobs=1, folds=3)
    (score,) = run.by_profile["balanced"].tags
    truth = labels[:, corpus.taxonomy.index["bees"]] == 1
    scores = run.model.predict_proba(dealt.documents)[:, 0]
    assert score.average_precision < 0.6
    assert np.mean(scores[truth] > np.median(scores[~truth])) > 0.8


def test_a_run_records_how_it_was_made(run: TrainingRun, corpus: Corpus) -> None:
    facts = run.model.provenance
    assert (facts["seed"], facts["folds"]) == (3, 3)
    assert (facts["rows"], facts["works"]) == (len(corpus), len(np.unique(corpus.works)))
    assert facts["data"] == corpus.fingerprints
    assert facts["left_out"] == run.left_out == {"clowns": 0}
    assert facts["held_out"]["balanced"] == run.by_profile["balanced"].to_dict()


def test_seeds_and_progress(run: TrainingRun, corpus: Corpus) -> None:
    steps: list[tuple[int, int]] = []
    again = train(corpus, seed=3, jobs=1, folds=3, progress=lambda *step: steps.append(step))
    assert steps == [(n, 12) for n in range(1, 13)]
    assert np.array_equal(again.model.weights, run.model.weights)
    other = train(corpus, seed=4, jobs=1, folds=3)
    assert not np.array_equal(other.model.bias, run.model.bias)


def test_features_can_be_limited_to_the_most_frequent(corpus: Corpus) -> None:
    model = train(corpus, jobs=1, folds=2, max_features=20).model
    assert len(model.vocabulary) == 20
    assert {"the", "and"} <= set(model.vocabulary)
    assert model.weights.shape == (20, 3)
    assert model.weights.dtype == np.float16


def test_rows_of_unknown_label_teach_nothing_of_it(corpus: Corpus) -> None:
    tag = corpus.taxonomy.index["bees"]
    has_letter = np.array(["letter" in text for text in corpus.synopses])
    labels = corpus.labels.copy()
    labels[has_letter, tag] = -1
    run = train(replace(corpus, labels=labels), jobs=1, folds=3)
    known = {score.tag: score.known for score in run.by_profile["balanced"].tags}
    assert known["bees"] == int((~has_letter).sum()) < known["wreck"] == len(corpus)
    letter = run.model.vocabulary.index("letter")
    of_tag = dict(zip(run.model.tags, run.model.weights[letter], strict=True))
    assert of_tag["bees"] == 0
    assert of_tag["wreck"] != 0


def test_a_maybe_teaches_half_a_yes_and_is_not_scored(corpus: Corpus) -> None:
    tag = corpus.taxonomy.index["bees"]
    has_letter = np.array(["letter" in text for text in corpus.synopses])
    weight = {}
    for state in (0, -2, 1):
        labels = corpus.labels.copy()
        labels[has_letter, tag] = state
        run = train(replace(corpus, labels=labels), jobs=1, folds=3)
        known = {score.tag: score.known for score in run.by_profile["balanced"].tags}
        assert known["bees"] == (int((~has_letter).sum()) if state == -2 else len(corpus))
        letter = run.model.vocabulary.index("letter")
        weight[state] = float(run.model.weights[letter, run.model.tags.index("bees")])
    assert weight[0] < weight[-2] < weight[1]


# Corpora that cannot be trained on


def test_a_corpus_without_enough_positives_is_refused(corpus: Corpus) -> None:
    with pytest.raises(CorpusError, match=r"no tag has positives in 1000 works.*--min-positives"):
        train(corpus, min_positives=1000)


def test_a_corpus_with_fewer_works_than_folds_is_refused(corpus: Corpus) -> None:
    with pytest.raises(CorpusError, match="works for 100000 folds"):
        train(corpus, folds=100_000)


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("no.csv", None, "cannot be read"),
        ("no.txt", b"synopsis,tags\n", "unknown kind of table"),
        ("no.csv", b"synopsis\nA story of the sea.\n", "no column 'tags'"),
        ("no.csv", b"tags\ngore\n", "no column 'synopsis'"),
        ("no.csv", b"", "cannot be parsed"),
        ("no.csv", b"synopsis,tags\n", "no row has a synopsis"),
        ("no.csv", "synopsis,tags\ncaf\xe9,gore\n".encode("latin-1"), "UTF-8"),
        ("no.csv", b"synopsis,tags\na,b\na,b,c\n", "line 3"),
        ("no.csv", b"synopsis,tags\nA story of the sea.,gore\n", "no tag has positives"),
        ("no.parquet", b"PAR1", "cannot be"),
    ],
)
def test_a_corpus_that_cannot_be_used_is_told_in_one_line(
    forewarn: Forewarn, tmp_path: Path, name: str, data: bytes | None, told: str
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    ran = forewarn("train", name, "-o", "model", "--jobs", "1", cwd=tmp_path)
    assert (ran.rc, ran.out) == (2, b"")
    (line,) = ran.stderr.splitlines()
    assert line.startswith("forewarn: ")
    assert told in line
    assert not (tmp_path / "model").exists()


BROKEN = {
    "a packed corpus cut short": {"in.csv.gz": gzip.compress(b"synopsis,tags\n" * 99)[:-9]},
    "texts without an id": {"in.csv": b"id,tags\n1,gore\n", "texts.csv": b"synopsis\nA sea.\n"},
    "a corpus without words": {
        "in.csv": b"synopsis,tags\n" + b"!!!,gore\n" * 12 + b"???,\n" * 12 + b"...,death\n"
    },
}


@pytest.mark.parametrize("files", BROKEN.values(), ids=BROKEN)
def test_a_broken_corpus_is_told_in_one_line(
    forewarn: Forewarn, tmp_path: Path, files: dict[str, bytes]
) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    texts = ("--texts", "texts.csv") if "texts.csv" in files else ()
    args = (next(iter(files)), *texts, "-o", "model", "--jobs", "1", "--folds", "2")
    ran = forewarn("train", *args, cwd=tmp_path)
    assert (ran.rc, len(ran.stderr.splitlines())) == (2, 1)


def test_words_that_are_no_tag_are_noted(forewarn: Forewarn, own: tuple[Ran, Path]) -> None:
    _, desk = own
    (desk / "strange.csv").write_text(
        (desk / "own.csv").read_text().replace(",bees", ",bees;wasps")
    )
    args = ("--tags", "own.toml", "--jobs", "1", "--folds", "2")
    ran = forewarn("train", "strange.csv", "-o", "strange", *args, cwd=desk)
    assert ran.rc == 0
    assert ran.stderr == "note: strange.csv: 1 words in tags are no tag of the taxonomy: wasps\n"


def test_training_does_not_write_over_what_is_no_model(
    forewarn: Forewarn, own: tuple[Ran, Path]
) -> None:
    _, desk = own
    there = sorted(desk.iterdir())
    args = ("--tags", "own.toml", "--jobs", "1", "--folds", "2")
    ran = forewarn("train", "own.csv", "-o", desk, *args, cwd=desk)
    assert ran.rc == 2
    assert ran.stderr.startswith(f"forewarn: {desk}: is there and is not a model")
    assert sorted(desk.iterdir()) == there

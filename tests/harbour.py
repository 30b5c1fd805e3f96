"""A taxonomy, a corpus and a model so small that each figure can be counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.corpus import Corpus
from pipeline.decision import PROFILES, Thresholds
from pipeline.model import Model
from pipeline.predictions import Predictions, predict_corpus
from pipeline.taxonomy import Taxonomy

TAXONOMY = Taxonomy.from_dict(
    {
        "tag": [
            {"id": "storm", "label": "Storm", "group": "sea", "definition": "Bad weather."},
            {
                "id": "wreck",
                "label": "Shipwreck",
                "group": "sea",
                "definition": "A ship goes down.",
                "broader": ["storm"],
            },
            {"id": "bees", "label": "Bees", "group": "land", "definition": "Bees are about."},
        ]
    }
)
ROWS = (
    # title, synopsis, (storm, wreck, bees), work, catalogue
    ("Night Watch", "The storm came over the harbour and nobody slept that night.", (1, 0, 0), "a",
     "north"),
    ("Low Water", "The old ferry sank beside the pier with nobody aboard it.", (1, 1, 0), "b",
     "north"),
    ("Hives", "A widow keeps bees behind the chapel and sells the honey.", (0, 0, 1), "c",
     "north"),
    ("Applause", "The storm of applause went on until the singer left the town.", (0, 0, 0), "d",
     "north"),
    ("Breakers", "Waves broke the windows of the inn before the morning came.", (1, 0, 0), "e",
     "north"),
    ("After It", "After the storm all was calm and the boats went out again.", (-2, 0, -1), "f",
     "south"),
    ("Orchard", "The bees fled before the storm broke over the orchard wall.", (0, 0, 1), "g",
     "south"),
    ("Blue", "Two brothers paint a boat and argue about the right blue.", (0, 0, 0), "h", "south"),
    ("Applause II", "The storm of applause went on until the singer left the stage.", (0, 0, 0),
     "d", "south"),
)  # fmt: skip
"""Row 1 has a storm because it has a wreck. Rows 3 and 8 are one work, with the same mistake."""


def harbour_corpus() -> Corpus:
    """The rows as a corpus."""
    return Corpus(
        taxonomy=TAXONOMY,
        titles=tuple(row[0] for row in ROWS),
        synopses=tuple(row[1] for row in ROWS),
        labels=np.array([row[2] for row in ROWS], dtype=np.int8),
        groups=tuple(row[3] for row in ROWS),
        sources=("harbour.csv",) * len(ROWS),
        catalogues=tuple(row[4] for row in ROWS),
        fingerprints={"harbour.csv": "ab" * 32},
    )


def harbour_model(storm: float = 6.0, taxonomy: Taxonomy = TAXONOMY) -> Model:
    """A model that knows four words; `storm` is the weight of the word of that name."""
    weights = np.zeros((4, 3))
    #        storm, wreck, bees
    weights[0] = [0, 0, 6]
    weights[1] = [-2, 0, 0]
    weights[2] = [0, 6, 0]
    weights[3] = [storm, 0, 0]
    cuts = {"balanced": 0.5, "cautious": 0.04, "strict": 0.94}
    return Model(
        taxonomy=taxonomy,
        tags=taxonomy.ids,
        vocabulary=("bee", "calm", "sank", "storm"),
        idf=np.ones(4, dtype=np.float32),
        weights=weights.astype(np.float16),
        bias=np.full(3, -3.0),
        thresholds=Thresholds(
            {profile: np.full(3, cuts[profile]) for profile in PROFILES},
            {profile: np.ones(3, dtype=bool) for profile in PROFILES},
        ),
        provenance={"seed": 3, "data": {"other.csv": "cd" * 32}},
    )


def harbour_predictions(storm: float = 6.0, threshold: float | None = None) -> Predictions:
    """What the model says of the rows."""
    return predict_corpus(harbour_model(storm), harbour_corpus(), threshold)


def hostile(text: str) -> Corpus:
    """The corpus with a text in every place that a page shows."""
    corpus = harbour_corpus()
    tags = [
        {**tag, "label": f"{tag['label']}{text}", "definition": text, "group": text}
        for tag in TAXONOMY.to_dict()["tag"]
    ]
    return replace(
        corpus,
        taxonomy=Taxonomy.from_dict({"tag": tags}),
        titles=tuple(f"{text}{title}" for title in corpus.titles),
        synopses=tuple(f"{synopsis} {text}" for synopsis in corpus.synopses),
        sources=(text,) * len(corpus),
        catalogues=(text, *corpus.catalogues[1:]),
        fingerprints={text: "ab" * 32},
        notes=(text,),
    )

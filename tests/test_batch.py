"""A batch: the features, statuses and log-odds of many documents are those of each alone."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from unicodedata import category

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import pipeline.batch
from pipeline.batch import Batch, FeatureTable, Forms, Pairs
from pipeline.features import analyze
from pipeline.model import Model
from pipeline.synopsis import Status, clean, clean_all, status
from pipeline.vocabulary import Vocabulary

PIECES = [
    *["the", "of", "and", "a", "lamp", "lamps", "Keeper", "BURNING", "murder", "blood", "wife"],
    *["no", "Not", "never", "without", "didn't", "CAN'T", "n't", "cannot", "but", "Though", "nor"],
    *["s*x", "m*rdered", "M*RDER", "sl*ve", "a*", "*a", "a**b", "r*pe's", "**", "*"],
    *["don't", "o'clock", "'quoted'", "rock'n'roll", "x''y", "'", "''", "dogs'", "it’s", "‘so’"],
    *[".", ",", ";", ":", "!", "?", "...", "…", "—", "–", "-", "_", "snake_case", "(", ")", "/"],
    *["İzmir", "ISTANBUL", "ı", "ΟΔΟΣ", "ΣΑΣ", "σς", "straße", "STRASSE", "ſource", "ǅ", "ŉ"],
    *["café", "cafe\u0301", "É", "Ōkami", "naïve", "a\u0300\u0301\u0302", "\u0301", "ё", "ﬁn"],
    *[
        "灯台",
        "カタカナ",
        "ｆｕｌｌ",
        "١٢٣",
        "٣",
        "²",
        "½",
        "Ⅷ",
        "①",
        "한국어",
        "हिन्दी",
        "ไทย",
        "עברית",
    ],
    *[
        "👩\u200d🚀",
        "🔪",
        "❤️",
        "\u200b",
        "\ufeff",
        "\u00ad",
        "\u2060",
        "\u202e",
        "\ue000",
        "\U0010ffff",
    ],
    *["\x00", "\x01", "\x1c", "\x7f", "\x85", "\u2028", "\u00a0", "\u3000", "\t", "\r\n", "\v"],
    *["<b>", "</b>", "<", ">", "&amp;", "&amp;amp;", "&#39;", "&", "[i]", "[", "＜b＞", "＆amp;"],
    *["(Source: Ivo)", "Source: a shop.", "(written by me)", "source", "ßource", "(sic)"],
    *["1999", "3rd", "x" * 15, "x" * 16, "x" * 17, "é" * 8, "é" * 9, "aaaaaaaa", "aaaaaaaab"],
]
NEAR_PIECES = st.sampled_from(PIECES) | st.text(max_size=4)
TEXTS = st.one_of(
    st.lists(NEAR_PIECES, max_size=25).map(" ".join),
    st.lists(NEAR_PIECES, max_size=25).map("".join),
    st.text(st.characters(), max_size=40),
)
TITLES = st.just("") | TEXTS
ROWS = st.lists(st.tuples(TITLES, TEXTS), min_size=1, max_size=8)
calm = settings(deadline=None, max_examples=300)


def drawn(count: int, seed: int = 0) -> list[str]:
    """Texts of pieces, of characters of all of Unicode, and of both."""
    source = random.Random(seed)

    def piece() -> str:
        if source.random() < 0.8:
            return source.choice(PIECES)
        return chr(source.randrange(source.choice([0x80, 0x250, 0x3000, sys.maxunicode])))

    return [
        source.choice(["", " ", " "]).join(piece() for _ in range(source.randrange(40)))
        for _ in range(count)
    ]


ASSIGNED = [c for c in map(chr, range(sys.maxunicode + 1)) if category(c) not in {"Cn", "Co"}]
ADVERSARIAL = [
    *["", " ", "\n", "\n\n", "no", "never.", "not", "\nno", "never\nlamp", "no " * 50, "n't"],
    *["a" * 1_000_000, "é" * 300_000, "a " * 100_000, "no lamp " * 50_000, "'" * 100_000],
    *["a'" * 50_000, "\x00" * 1000, "👻" * 1000, "İ" * 1000, "Σ" * 1000, "\u0301" * 1000],
    *["lamp" + "\u0301" * 5000, "not " + "," * 5000 + " lamp", "\ud800 lamp \udfff", "a\ud800b"],
    *drawn(6000),
]


@pytest.fixture(autouse=True, scope="module")
def batches_of_any_size() -> Iterator[None]:
    """A model reads even one document by batch here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.model._MANY", 1)
        yield


def one_by_one(model: Model, documents: list[str]) -> np.ndarray:
    """The log-odds of each document by the reference, `features.analyze`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.model._MANY", sys.maxsize)
        return model.log_odds(documents)


def vocabulary_of(documents: list[str]) -> Vocabulary:
    return Vocabulary.of(
        list(dict.fromkeys(name for document in documents for name in analyze(document)))
    )


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def features(table: FeatureTable, documents: list[str]) -> list[list[int]]:
    starts, columns = table.rows(Batch.of(documents))
    return [sorted(columns[a:b].tolist()) for a, b in pairwise(starts)]


class TestFeatures:
    @calm
    @given(ROWS)
    def test_a_batch_has_the_features_that_the_reference_finds(self, rows):
        documents = [f"{title}\n{synopsis}" for title, synopsis in rows]
        vocabulary = vocabulary_of(documents)
        expected = [sorted({vocabulary.columns[name] for name in analyze(d)}) for d in documents]
        assert features(FeatureTable(vocabulary), documents) == expected

    def test_so_it_does_on_thousands_of_adversarial_texts(self):
        documents = [
            f"{title}\n{text}" for title, text in zip(drawn(6000, 1), ADVERSARIAL, strict=False)
        ]
        vocabulary = vocabulary_of(documents)
        expected = [sorted({vocabulary.columns[name] for name in analyze(d)}) for d in documents]
        assert features(FeatureTable(vocabulary), documents) == expected

    def test_and_only_those_of_the_vocabulary(self):
        vocabulary = vocabulary_of(drawn(300, 2))
        documents = drawn(300, 3)
        columns = vocabulary.columns
        expected = [sorted({columns[n] for n in analyze(d) if n in columns}) for d in documents]
        assert features(FeatureTable(vocabulary), documents) == expected

    def test_every_character_of_unicode_within_a_word(self):
        documents = [
            "\nno " + " ".join(f"a{c}b" for c in ASSIGNED[place : place + 64])
            for place in range(0, len(ASSIGNED), 64)
        ]
        vocabulary = vocabulary_of(documents)
        expected = [sorted({vocabulary.columns[name] for name in analyze(d)}) for d in documents]
        assert features(FeatureTable(vocabulary), documents) == expected

    def test_a_vocabulary_may_be_empty_or_hold_what_no_text_has(self):
        assert features(FeatureTable(Vocabulary(b"")), ["\nold lamp"]) == [[]]
        assert features(FeatureTable(Vocabulary(b"a b c\nold lamp\n\n")), ["\nold lamp"]) == [[1]]
        assert features(FeatureTable(Vocabulary(b"old\nold lamp")), ["\nold lamp"]) == [[0]]

    def test_words_are_known_beyond_the_size_of_a_table_of_forms(self, monkeypatch):
        monkeypatch.setattr(pipeline.batch, "_MAX_FORMS", 20)
        vocabulary = vocabulary_of(["\nold lamp"])
        table = FeatureTable(vocabulary)
        for start in range(0, 300, 30):
            words = " ".join(f"word{n}" for n in range(start, start + 30))
            assert features(table, [f"\n{words} old lamp"]) == [[0, 1, 2]]


class TestLogOdds:
    @calm
    @given(ROWS)
    @example([("", "a" * 1_000_000)])
    def test_they_are_those_of_each_document_alone(self, default_model, rows):
        documents = [f"{clean(title)}\n{clean(synopsis)}" for title, synopsis in rows]
        expected = one_by_one(default_model, documents)
        assert np.allclose(default_model.log_odds(documents), expected, rtol=0, atol=1e-6)

    def test_so_they_are_on_thousands_of_adversarial_texts(self, default_model):
        expected = one_by_one(default_model, ADVERSARIAL)
        assert np.abs(default_model.log_odds(ADVERSARIAL) - expected).max() < 1e-6

    def test_no_document_changes_those_of_its_neighbours(self, default_model):
        documents = drawn(400, 4)
        alone = np.concatenate([default_model.log_odds([d]) for d in documents])
        assert np.array_equal(default_model.log_odds(documents), alone)

    def test_threads_do_not_disturb_one_another(self, default_model, monkeypatch):
        monkeypatch.setattr(pipeline.batch, "_forms", Forms())
        model = replace(default_model)
        parts = [drawn(100, seed) for seed in range(20, 52)]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(model.log_odds, parts))
        assert all(map(np.array_equal, found, map(default_model.log_odds, parts)))

    def test_no_documents_have_none(self, default_model):
        assert default_model.log_odds(Batch([], [])).shape == (0, len(default_model.tags))


class TestStatuses:
    @calm
    @given(st.lists(TEXTS, min_size=1, max_size=8))
    def test_they_are_those_of_each_synopsis_alone(self, synopses):
        cleaned = [clean(text) for text in synopses]
        assert Batch([""] * len(cleaned), cleaned).statuses() == [status(t) for t in cleaned]

    def test_so_they_are_on_thousands_of_adversarial_texts(self):
        cleaned = [clean(text) for text in [*ADVERSARIAL, *drawn(2000, 5)]]
        found = Batch(cleaned, cleaned).statuses()
        assert found == [status(text) for text in cleaned]
        assert set(found) == set(Status)

    def test_a_title_does_not_count(self):
        assert Batch(["The keeper of the lamp is on the hill"], ["灯台"]).statuses() == [
            "not-english"
        ]


class TestCleaning:
    @calm
    @given(st.lists(TEXTS, max_size=8))
    def test_many_texts_are_cleaned_as_each_alone(self, texts):
        assert clean_all(texts) == [clean(text) for text in texts]

    def test_so_they_are_on_thousands_of_adversarial_texts(self):
        texts = [*ADVERSARIAL, *drawn(4000, 6)]
        assert clean_all(texts) == [clean(text) for text in texts]

    def test_every_character_of_unicode(self):
        texts = [f"a{character}b" for character in ASSIGNED]
        assert clean_all(texts) == [clean(text) for text in texts]


class TestBatch:
    def test_it_is_a_sequence_of_its_documents(self):
        batch = Batch.of(["Lamp\nold keeper", "\nburning"])
        assert list(batch) == ["Lamp\nold keeper", "\nburning"]
        assert batch[1] == "\nburning"
        assert batch[:1] == ["Lamp\nold keeper"]
        assert Batch.of(batch) is batch

    @calm
    @given(ROWS, st.data())
    def test_some_of_its_rows_have_the_words_that_they_have_alone(self, rows, data):
        batch = Batch([clean(title) for title, _ in rows], [clean(text) for _, text in rows])
        some = data.draw(st.sets(st.sampled_from(range(len(rows)))).map(sorted))
        table = FeatureTable(vocabulary_of(list(batch)))
        chosen = batch.select(np.array(some, np.int64))
        assert list(chosen) == [batch[row] for row in some]
        alone = Batch(chosen.titles, chosen.synopses)
        assert all(map(np.array_equal, table.rows(chosen), table.rows(alone)))


class TestPairs:
    @calm
    @given(st.lists(st.lists(st.tuples(*[st.integers(0, 2**64 - 1)] * 2), max_size=40), max_size=5))
    def test_a_pair_keeps_its_number(self, rounds):
        pairs, known = Pairs(), {}
        for given_ in rounds:
            new = [pair for pair in dict.fromkeys(given_) if pair not in known]
            known |= {pair: number for number, pair in enumerate(new, len(known))}
            keys = np.array(new, np.uint64).reshape(-1, 2)
            numbers = np.array([known[pair] for pair in new], np.int32)
            pairs.add(keys[:, 0], keys[:, 1], numbers)
        asked = [*known, (7, 7), (0, 0), (2**64 - 1, 0)]
        keys = np.array(asked, np.uint64).reshape(-1, 2)
        found = pairs.find(keys[:, 0], keys[:, 1]).tolist()
        assert found == [known.get(pair, -1) for pair in asked]

    def test_it_grows(self):
        keys = np.arange(100_000, dtype=np.uint64)
        pairs = Pairs()
        for part in np.split(keys, 10):
            pairs.add(part, part * 3, part.astype(np.int32))
        assert np.array_equal(pairs.find(keys, keys * 3), keys)
        assert (pairs.find(keys, keys * 3 + 1) == -1).all()


class TestForms:
    def test_learning_that_is_interrupted_is_begun_afresh(self, monkeypatch):
        documents = ["\nan interrupted lighthouse", "\na lighthouse keeper"]
        table = FeatureTable(vocabulary_of(documents))
        expected = features(table, documents)
        monkeypatch.setattr(pipeline.batch, "_forms", Forms())
        with monkeypatch.context() as patched:
            patched.setattr(pipeline.batch, "stem", interrupted)
            with pytest.raises(KeyboardInterrupt):
                features(table, documents)
        assert features(table, documents) == expected

    def test_a_form_is_learnt_once(self):
        forms, text = Forms(), b" lamp lamp keeper lamp " + b" " * 16
        starts, stops = np.array([1, 6, 11, 18]), np.array([5, 10, 17, 22])
        assert forms.numbers(text, starts, stops).tolist() == [0, 0, 1, 0]
        assert forms.stems == ["lamp", "keeper"]

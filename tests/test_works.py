"""Which rows are one work, and that no split ever parts them."""

import os
import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from pipeline.corpus import Corpus, read_corpus
from pipeline.taxonomy import load_taxonomy
from pipeline.works import assign_works, near_duplicates, split_folds

calm = settings(deadline=None)

LAMP = (
    "The old keeper of the northern lamp has not spoken since the ferry sank. When a girl who "
    "mends clocks washes ashore with a bell in her arms, he must choose between the silence that "
    "he promised the drowned and the one voice that could still call them home."
)
BAKER = (
    "A baker in a town without roads wins a mule at cards. The mule knows every smuggler's path "
    "over the mountains, and soon the customs officers, two bishops and a very patient bear are "
    "all queueing for the same loaf of bread, each with a story about where the flour came from."
)
CLEAR_COPY = 0.8
"""True Jaccard similarity of word triples from which nobody would doubt that texts are copies."""


def one_work(titles, synopses=None, groups=None):
    """Whether all rows are one work; texts are unlike and groups unknown unless given."""
    texts = synopses or [f"{n} " * 5 for n in range(len(titles))]
    return len(set(assign_works(titles, texts, groups or [None] * len(titles)))) == 1


def two_works(*args, **more):
    return not one_work(*args, **more)


class TestGroups:
    def test_a_shared_group_is_one_work(self):
        assert one_work(["Lamp", "Baker"], [LAMP, BAKER], ["w1", "w1"])

    def test_different_groups_are_two_works(self):
        assert two_works(["Lamp", "Baker"], [LAMP, BAKER], ["w1", "w2"])

    def test_no_group_is_not_a_shared_group(self):
        assert two_works(["Lamp", "Baker"], [LAMP, BAKER], [None, None])
        assert two_works(["Lamp", "Baker"], [LAMP, BAKER], ["", ""])

    def test_groups_overrule_like_titles(self):
        assert two_works(["The Lamp", "The Lamp"], [LAMP, BAKER], ["w1", "w2"])
        assert two_works(["The Lamp", "The Lamp"], [LAMP, BAKER], ["w1", None])


class TestSequels:
    @pytest.mark.parametrize(
        "sequel",
        [
            *["Silent Lamp", "SILENT LAMP", "Silent  Lamp!", "Silent Lamp 2", "Silent Lamp II"],
            *["Silent Lamp IV", "Silent Lamp Season 2", "Silent Lamp 2nd Season"],
            *["Silent Lamp: The Drowned Bell", "Silent Lamp - Part 3", "Silent Lamp OVA"],
            *["Silent Lamp The Movie", "Silent Lamp Final Season Part 2", "Silent Lamp (TV)"],
            *["Silent Lamp Vol. 3", "Silent Lamp: The Third Season", "Silent Lamp Specials"],
        ],
    )
    def test_a_sequel_goes_with_its_series(self, sequel):
        assert one_work(["Silent Lamp", sequel])

    @pytest.mark.parametrize(
        "other", ["Silent Bell", "Lamp", "Silent", "Loud Lamp", "Silent Lamps"]
    )
    def test_another_title_is_another_work(self, other):
        assert two_works(["Silent Lamp", other])

    @pytest.mark.parametrize("title", ["", " ", "...", "?!"])
    def test_missing_titles_are_not_alike(self, title):
        assert two_works([title, title])

    def test_a_title_that_is_a_number_stays_one(self):
        assert two_works(["7", "12"])
        assert one_work(["7", "7"])


class TestCopies:
    def test_equal_texts_are_one_work(self):
        assert one_work(["Lamp", "Baker"], [LAMP, LAMP])

    @pytest.mark.parametrize(
        "copy",
        [
            LAMP.upper(),
            LAMP.replace(",", "").replace(".", " --"),
            LAMP.replace("girl", "woman"),
            LAMP + " A tale of the coast.",
            LAMP.removeprefix("The old "),
        ],
        ids=["capitals", "punctuation", "one word", "one sentence more", "cut"],
    )
    def test_small_edits_leave_a_copy(self, copy):
        assert near_duplicates([LAMP, BAKER, copy]) == [(0, 2)]

    def test_copies_in_different_groups_are_one_work(self):
        assert one_work(["Lamp", "Baker"], [LAMP, LAMP], ["w1", "w2"])

    def test_different_texts_are_no_copies(self):
        assert near_duplicates([LAMP, BAKER]) == []

    def test_a_shared_phrase_does_not_make_a_copy(self):
        blurb = " A tale of the coast."
        assert near_duplicates([LAMP + blurb, BAKER + blurb]) == []

    @pytest.mark.parametrize("text", ["", "Lamp.", "Two words"])
    def test_texts_of_two_words_are_no_copies(self, text):
        assert near_duplicates([text, text]) == []

    def test_no_rows_have_no_copies(self):
        assert near_duplicates([]) == []


class TestChains:
    def test_ties_of_different_kinds_chain(self):
        # 0 and 1 share a group, 1 and 2 a text, 2 and 3 a series; 4 stands alone.
        works = assign_works(
            ["Lamp", "Bell", "Silent Lamp", "Silent Lamp 2", "Mule"],
            ["one two three", LAMP, LAMP, "four five six", BAKER],
            ["w1", "w1", None, None, None],
        )
        assert len(set(works[:4])) == 1
        assert works[4] not in works[:4]

    def test_the_order_of_rows_does_not_matter(self):
        titles = ["Lamp", "Bell", "Silent Lamp", "Silent Lamp 2", "Mule"]
        texts = ["one two three", LAMP, LAMP, "four five six", BAKER]
        groups = ["w1", "w1", None, None, None]
        order = [3, 4, 0, 2, 1]
        shuffled = assign_works(*([column[n] for n in order] for column in (titles, texts, groups)))
        assert len({shuffled[place] for place, row in enumerate(order) if row != 4}) == 1
        assert len(set(shuffled)) == 2

    @calm
    @given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from([None, *"uvwx"]))))
    def test_works_are_just_the_rows_tied_together(self, rows):
        titles = [f"Story {name}" for name, _ in rows]
        texts = [f"{n} {n} {n}" for n in range(len(rows))]
        works = assign_works(titles, texts, [group for _, group in rows])
        keys = [group or title for title, (_, group) in zip(titles, rows, strict=True)]
        for one, key in zip(works, keys, strict=True):
            assert [other == key for other in keys] == (works == one).tolist()


many_works = st.lists(st.integers(0, 60), min_size=1, max_size=200).map(np.array)


class TestFolds:
    @calm
    @given(many_works, st.integers(1, 8), st.integers(0, 99))
    def test_no_work_is_on_two_sides(self, works, folds, seed):
        fold_of = split_folds(works, folds, seed)
        assert fold_of.shape == works.shape
        assert ((fold_of >= 0) & (fold_of < folds)).all()
        for work in set(works):
            assert len(set(fold_of[works == work])) == 1

    @calm
    @given(many_works, st.integers(1, 8), st.integers(0, 99))
    def test_folds_differ_by_no_more_than_the_largest_work(self, works, folds, seed):
        sizes = np.bincount(split_folds(works, folds, seed), minlength=folds)
        assert np.ptp(sizes) <= np.bincount(works).max()

    @calm
    @given(many_works, st.integers(1, 8), st.integers(0, 99))
    def test_a_seed_gives_the_same_folds_again(self, works, folds, seed):
        assert split_folds(works, folds, seed).tolist() == split_folds(works, folds, seed).tolist()

    def test_another_seed_gives_other_folds(self):
        works = np.arange(100)
        assert split_folds(works, 5, 0).tolist() != split_folds(works, 5, 1).tolist()

    def test_single_rows_are_spread_evenly(self):
        assert np.bincount(split_folds(np.arange(100) * 3, 5, 0)).tolist() == [20] * 5


# A corpus of the real one's shape: catalogues that overlap, with groups, copies and sequels.

CATALOGUES = ("north", "south", "west")
SYLLABLES = ["ka", "lo", "mi", "ter", "van", "sol", "bra", "nu", "dis", "per", "ol", "qui"]


def invented_words(rng, count):
    return ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(count)]


def edited(rng, words):
    """A copy as another catalogue might print it: a few words changed, dropped or added."""
    copy = list(words)
    for place in rng.sample(range(len(copy)), 2):
        copy[place] = rng.choice(["and", "then", "so"])
    copy = copy[rng.randint(0, 3) :]
    return copy + invented_words(rng, rng.randint(0, 4))


def invented_rows(seed, works=250):
    """(title, synopsis, group, catalogue, work) of entries of many works, in random order."""
    rng = random.Random(seed)
    rows = []
    for work in range(works):
        name = " ".join(invented_words(rng, 3)).title()
        words = invented_words(rng, rng.randint(60, 120))
        kind = rng.choice(["single", "group", "copies", "series", "mixed"])
        group = f"g{work}"
        rows.append((name, " ".join(words), None if kind == "series" else group))
        if kind == "group":
            for _ in range(rng.randint(1, 4)):
                other = " ".join(invented_words(rng, 80))
                rows.append((" ".join(invented_words(rng, 2)).title(), other, group))
        if kind in {"copies", "mixed"}:
            for n in range(rng.randint(1, 3)):
                copied = " ".join(edited(rng, words))
                title = " ".join(invented_words(rng, 2)).title()
                rows.append((title, copied, f"{group}-{n}"))
        if kind == "series":
            for n in range(2, 5):
                rows.append((f"{name} Season {n}", " ".join(invented_words(rng, 70)), None))
        if kind == "mixed":
            rows.append((name + " 2", " ".join(invented_words(rng, 70)), f"{group}-0"))
        rows = [row if len(row) == 5 else (*row, rng.choice(CATALOGUES), work) for row in rows]
    rng.shuffle(rows)
    return rows


def invented_corpus(rows):
    titles, synopses, groups, catalogues, _ = zip(*rows, strict=True)
    return Corpus(
        taxonomy=load_taxonomy(),
        titles=titles,
        synopses=synopses,
        labels=np.zeros((len(rows), 36), dtype=np.int8),
        groups=groups,
        sources=("invented.csv",) * len(rows),
        catalogues=catalogues,
        fingerprints={},
    )


def clear_copies(synopses):
    """Pairs of rows whose sets of word triples truly overlap by `CLEAR_COPY` (Jaccard), exactly."""
    columns, rows, places = {}, [], []
    for row, synopsis in enumerate(synopses):
        words = re.sub(r"[^\w\s]", " ", synopsis.lower()).split()
        for triple in set(zip(words, words[1:], words[2:], strict=False)):
            rows.append(row)
            places.append(columns.setdefault(triple, len(columns)))
    shape = (len(synopses), len(columns))
    held = csr_matrix((np.ones(len(rows), dtype=np.int32), (rows, places)), shape=shape)
    size = np.diff(held.indptr)
    shared = (held @ held.T).tocoo()
    first, second, both = shared.row, shared.col, shared.data
    alike = (first < second) & (both >= CLEAR_COPY * (size[first] + size[second] - both))
    return np.stack([first[alike], second[alike]], axis=1)


def assert_nothing_leaks(corpus, folds, seed):
    """Neither a group nor a clear copy is on two sides of a split."""
    fold_of = split_folds(corpus.works, folds, seed)
    sides = {}
    for group, fold in zip(corpus.groups, fold_of.tolist(), strict=True):
        if group:
            assert sides.setdefault(group, fold) == fold, group
    copies = clear_copies(corpus.synopses)
    assert len(copies)
    parted = copies[fold_of[copies[:, 0]] != fold_of[copies[:, 1]]]
    assert parted.tolist() == []
    sizes = np.bincount(fold_of, minlength=folds)
    assert sizes.max() - sizes.min() <= np.bincount(corpus.works).max()


class TestWholeCorpus:
    @pytest.mark.parametrize("seed", range(3))
    def test_no_group_or_copy_of_an_invented_corpus_is_on_two_sides(self, seed):
        rows = invented_rows(seed)
        corpus = invented_corpus(rows)
        assert len({row[3] for row in rows}) == len(CATALOGUES)
        assert_nothing_leaks(corpus, folds=5, seed=seed)

    @pytest.mark.parametrize("seed", range(3))
    def test_works_of_an_invented_corpus_are_found_exactly(self, seed):
        rows = invented_rows(seed)
        pairs = set(zip(invented_corpus(rows).works.tolist(), (r[4] for r in rows), strict=True))
        assert len(pairs) == len({found for found, _ in pairs}) == len({made for _, made in pairs})

    @pytest.mark.skipif(
        "FOREWARN_CORPUS" not in os.environ, reason="FOREWARN_CORPUS names no corpus"
    )
    def test_no_group_or_copy_of_the_real_corpus_is_on_two_sides(self):
        file = Path(os.environ["FOREWARN_CORPUS"]) / "annotated.jsonl.gz"
        assert_nothing_leaks(read_corpus([file], load_taxonomy()), folds=5, seed=0)

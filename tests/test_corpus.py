"""Reading a corpus: every format alike, three states of a label, and mistakes that say so."""

import csv
import gzip
import hashlib
import json
import warnings

import numpy as np
import pandas as pd
import pytest

from pipeline.corpus import (
    MAYBE,
    MIN_USES,
    NO,
    UNKNOWN,
    YES,
    annotated_labels,
    observed_labels,
    read_corpus,
    tag_words,
)
from pipeline.errors import CorpusError, TableError
from pipeline.taxonomy import Taxonomy

FEARS = Taxonomy.from_dict(
    {
        "tag": [
            {"id": "animals", "label": "Animals", "group": "g", "definition": "d"},
            {
                "id": "spiders",
                "label": "Spiders",
                "group": "g",
                "definition": "d",
                "broader": ["animals"],
                "aliases": ["eight legs"],
            },
            {"id": "heights", "label": "Heights", "group": "g", "definition": "d"},
        ]
    }
)
ROWS = [
    {
        "id": "007",
        "title": "The <i>Web</i>",
        "synopsis": 'Spiders, "many" of them,\nfill the mill; Åse counts them.',
        "tags": "spiders",
        "maybe": "heights",
        "catalogue": "north",
        "group": "w1",
    },
    {
        "id": "8",
        "title": "1999",
        "synopsis": "A steeplejack\tloses his nerve &amp; his ladder.",
        "tags": "Heights; eight legs",
        "maybe": "",
        "catalogue": "south",
        "group": "",
    },
    {
        "id": "nan",
        "title": "NA",
        "synopsis": "None of the villagers has ever seen the sea.",
        "tags": "",
        "maybe": "",
        "catalogue": "south",
        "group": "w3",
    },
]
KINDS = ["csv", "tsv", "jsonl", "ndjson", "parquet"]


def write(folder, name, rows, lists=False):
    """A table of `rows` whose format is the one that `name` ends in."""
    file = folder / name
    suffix = name.removesuffix(".gz").rpartition(".")[2]
    plain = folder / f"plain.{suffix}"
    if lists:
        rows = [
            row | {key: tag_words(row[key]) for key in ("tags", "maybe") if key in row}
            for row in rows
        ]
    if suffix in {"csv", "tsv"}:
        with plain.open("w", encoding="utf-8", newline="") as stream:
            table = csv.DictWriter(
                stream, list(rows[0]), delimiter="\t" if suffix == "tsv" else ","
            )
            table.writeheader()
            table.writerows(rows)
    elif suffix in {"jsonl", "ndjson"}:
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        plain.write_text("".join(lines), encoding="utf-8")
    else:
        pd.DataFrame(rows).to_parquet(plain)
    data = plain.read_bytes()
    plain.unlink()
    file.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return file


def text(folder, content, name="mine.csv"):
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def without(rows, *columns):
    return [{key: cell for key, cell in row.items() if key not in columns} for row in rows]


def story(tags, **more):
    return {"synopsis": "A steeplejack loses his ladder.", "tags": tags, **more}


def refusal(error, *files, **options):
    with pytest.raises(error) as caught:
        read_corpus(files, FEARS, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


class TestFormats:
    @pytest.fixture
    def expected(self, tmp_path):
        return read_corpus([write(tmp_path, "expected.csv", ROWS)], FEARS)

    @staticmethod
    def assert_same(corpus, expected):
        for name in ("titles", "synopses", "groups", "catalogues", "notes"):
            assert getattr(corpus, name) == getattr(expected, name), name
        assert corpus.labels.dtype == expected.labels.dtype
        assert corpus.labels.tolist() == expected.labels.tolist()

    @pytest.mark.parametrize(
        "ending",
        [
            *KINDS,
            *(f"{kind}.gz" for kind in KINDS if kind != "parquet"),
            pytest.param(
                "parquet.gz",
            ),
        ],
    )
    def test_every_format_gives_the_same_corpus(self, tmp_path, expected, ending):
        file = write(tmp_path, f"mine.{ending}", ROWS)
        corpus = read_corpus([file], FEARS)
        self.assert_same(corpus, expected)
        assert corpus.sources == (f"mine.{ending}",) * 3

    @pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "parquet"])
    def test_lists_of_tags_are_as_good_as_joined_ones(self, tmp_path, expected, ending):
        file = write(tmp_path, f"mine.{ending}", ROWS, lists=True)
        self.assert_same(read_corpus([file], FEARS), expected)

    def test_cells_are_cleaned_and_kept_as_text(self, expected):
        assert expected.titles == ("The Web", "1999", "NA")
        assert expected.synopses == (
            'Spiders, "many" of them, fill the mill; Åse counts them.',
            "A steeplejack loses his nerve & his ladder.",
            "None of the villagers has ever seen the sea.",
        )
        assert expected.groups == ("w1", None, "w3")
        assert expected.catalogues == ("north", "south", "south")

    def test_a_document_is_title_and_synopsis(self, expected):
        assert expected.documents[1] == "1999\nA steeplejack loses his nerve & his ladder."

    def test_a_byte_order_mark_is_no_part_of_the_header(self, tmp_path):
        file = text(tmp_path, b"\xef\xbb\xbfsynopsis,tags\nA steeplejack falls.,heights\n")
        assert read_corpus([file], FEARS).synopses == ("A steeplejack falls.",)

    def test_a_json_line_may_lack_columns(self, tmp_path):
        file = write(tmp_path, "mine.jsonl", [story(["heights"], title="Up"), story([])])
        assert read_corpus([file], FEARS).titles == ("Up", "")

    def test_suffixes_in_capitals_are_known(self, tmp_path, expected):
        self.assert_same(
            read_corpus([write(tmp_path, "x.csv", ROWS).rename(tmp_path / "X.CSV")], FEARS),
            expected,
        )

    def test_a_fingerprint_is_the_sha256_of_the_file(self, tmp_path):
        file = write(tmp_path, "mine.csv", ROWS)
        assert read_corpus([file], FEARS).fingerprints == {
            "mine.csv": hashlib.sha256(file.read_bytes()).hexdigest()
        }

    def test_files_of_several_formats_are_joined_in_order(self, tmp_path):
        files = [
            write(tmp_path, "a.jsonl", ROWS[:1], lists=True),
            write(tmp_path, "b.csv.gz", ROWS[1:2]),
            write(tmp_path, "c.parquet", ROWS[2:]),
        ]
        corpus = read_corpus(files, FEARS)
        assert corpus.sources == ("a.jsonl", "b.csv.gz", "c.parquet")
        assert corpus.titles == ("The Web", "1999", "NA")
        assert corpus.labels.shape == (3, 3)
        assert len(corpus.fingerprints) == 3
        assert len(corpus) == 3

    def test_files_of_one_name_keep_both_fingerprints(self, tmp_path):
        files = []
        for folder, rows in (("a", ROWS), ("b", ROWS[:2])):
            (tmp_path / folder).mkdir()
            files.append(write(tmp_path / folder, "mine.csv", rows))
        assert len(read_corpus(files, FEARS).fingerprints) == 2

    def test_json_lines_are_read_without_deprecated_options(self, tmp_path):
        file = write(tmp_path, "mine.jsonl", ROWS)
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)
            assert len(read_corpus([file], FEARS)) == 3

    def test_a_title_that_is_a_json_number_keeps_its_digits(self, tmp_path):
        file = write(tmp_path, "mine.jsonl", [story(["heights"], title=86), story([])])
        assert read_corpus([file], FEARS).titles == ("86", "")


class TestTagWords:
    @pytest.mark.parametrize(
        ("cell", "words"),
        [
            ("spiders", ["spiders"]),
            ("spiders;heights", ["spiders", "heights"]),
            ("spiders | heights", ["spiders", "heights"]),
            ("spiders, heights", ["spiders", "heights"]),
            ("spiders, big; heights", ["spiders, big", "heights"]),
            ('["spiders", "heights"]', ["spiders", "heights"]),
            ("[spiders", ["[spiders"]),
            (["spiders", " heights ", ""], ["spiders", "heights"]),
            (np.array(["spiders"]), ["spiders"]),
            (";; ;", []),
            ("", []),
            ("[]", []),
            (None, []),
            (float("nan"), []),
            (3, []),
        ],
    )
    def test_a_cell_is_a_list_or_a_joined_text(self, cell, words):
        assert tag_words(cell) == words


class TestLabelStates:
    def labels(self, folder, rows):
        return read_corpus([write(folder, "mine.csv", rows)], FEARS).labels.tolist()

    def test_annotated_rows_know_all_but_their_maybes(self, tmp_path):
        rows = [story("heights", maybe=""), story("", maybe="heights"), story("", maybe="")]
        assert self.labels(tmp_path, rows) == [
            [NO, NO, YES],
            [NO, NO, MAYBE],
            [NO, NO, NO],
        ]

    def test_a_maybe_makes_a_maybe_of_what_it_implies(self, tmp_path):
        assert self.labels(tmp_path, [story("", maybe="spiders")]) == [[MAYBE, MAYBE, NO]]

    def test_a_yes_is_stronger_than_a_maybe(self, tmp_path):
        rows = [story("animals", maybe="spiders"), story("spiders", maybe="spiders; animals")]
        assert self.labels(tmp_path, rows) == [[YES, MAYBE, NO], [YES, YES, NO]]

    def test_a_yes_brings_the_broader_tag(self, tmp_path):
        assert self.labels(tmp_path, [story("spiders", maybe="")]) == [[YES, YES, NO]]

    def test_a_catalogue_lacks_only_what_it_is_seen_to_use(self, tmp_path):
        used = [story("heights", catalogue="north")] * MIN_USES
        rows = [*used, story("other", catalogue="north"), story("spiders", catalogue="north")]
        labels = self.labels(tmp_path, rows)
        assert labels[-2] == [UNKNOWN, UNKNOWN, NO]
        assert labels[-1] == [YES, YES, NO]
        assert labels[0] == [UNKNOWN, UNKNOWN, YES]

    def test_a_few_uses_are_not_enough(self, tmp_path):
        used = [story("heights", catalogue="north")] * (MIN_USES - 1)
        labels = self.labels(tmp_path, [*used, story("other", catalogue="north")])
        assert labels[-1] == [UNKNOWN, UNKNOWN, UNKNOWN]

    def test_use_by_another_catalogue_does_not_count(self, tmp_path):
        used = [story("heights", catalogue="north")] * MIN_USES
        labels = self.labels(tmp_path, [*used, story("other", catalogue="south")])
        assert labels[-1] == [UNKNOWN, UNKNOWN, UNKNOWN]

    def test_a_narrow_use_is_a_use_of_the_broad_tag(self, tmp_path):
        used = [story("spiders", catalogue="north")] * MIN_USES
        labels = self.labels(tmp_path, [*used, story("heights", catalogue="north")])
        assert labels[-1] == [NO, NO, YES]

    def test_a_row_without_tags_says_nothing_in_a_catalogue(self, tmp_path):
        used = [story("heights", catalogue="north")] * MIN_USES
        labels = self.labels(tmp_path, [*used, story("", catalogue="north")])
        assert labels[-1] == [UNKNOWN, UNKNOWN, UNKNOWN]

    def test_a_plain_file_knows_every_tag_that_it_uses(self, tmp_path):
        rows = [story("heights"), story(""), story("other")]
        assert self.labels(tmp_path, rows) == [
            [UNKNOWN, UNKNOWN, YES],
            [UNKNOWN, UNKNOWN, NO],
            [UNKNOWN, UNKNOWN, NO],
        ]

    def test_maybe_wins_over_catalogue(self, tmp_path):
        rows = [story("heights", maybe="", catalogue="north")]
        assert self.labels(tmp_path, rows) == [[NO, NO, YES]]

    def test_plain_files_do_not_speak_for_one_another(self, tmp_path):
        files = [
            write(tmp_path, "a.csv", [story("heights")]),
            write(tmp_path, "b.csv", [story("")]),
        ]
        assert read_corpus(files, FEARS).labels.tolist() == [[UNKNOWN, UNKNOWN, YES], [UNKNOWN] * 3]

    def test_labels_are_small_integers(self):
        assert annotated_labels([{"heights"}], [set()], FEARS).dtype == np.int8
        assert observed_labels([{"heights"}], ["north"], FEARS, 1).dtype == np.int8


class TestColumns:
    def test_columns_may_have_other_names(self, tmp_path):
        rows = [{"plot": "A steeplejack falls.", "name": "Up", "words": "heights", "sure": ""}]
        names = {"synopsis": "plot", "title": "name", "tags": "words", "maybe": "sure"}
        corpus = read_corpus([write(tmp_path, "mine.csv", rows)], FEARS, columns=names)
        assert corpus.documents == ["Up\nA steeplejack falls."]
        assert corpus.labels.tolist() == [[NO, NO, YES]]

    def test_a_column_named_in_vain_is_told(self, tmp_path):
        file = write(tmp_path, "mine.csv", [story("heights")])
        message = refusal(TableError, file, columns={"synopsis": "plot"})
        assert str(file) in message
        assert "'plot'" in message
        assert "synopsis, tags" in message

    def test_a_named_column_replaces_ours(self, tmp_path):
        rows = [story("heights", plot="The ladder breaks."), story("", plot="The ladder holds.")]
        file = write(tmp_path, "mine.csv", rows)
        corpus = read_corpus([file], FEARS, columns={"synopsis": "plot"})
        assert corpus.synopses == ("The ladder breaks.", "The ladder holds.")


class TestTextsById:
    LABELS = (
        {"id": "007", "tags": "spiders", "maybe": ""},
        {"id": "404", "tags": "heights", "maybe": ""},
        {"id": "8", "tags": "", "maybe": "heights"},
    )

    @pytest.mark.parametrize("kind", KINDS)
    def test_rows_find_their_texts_by_id(self, tmp_path, kind):
        labels = write(tmp_path, "labels.csv", self.LABELS)
        texts = write(tmp_path, f"texts.{kind}", without(ROWS, "tags", "maybe"))
        corpus = read_corpus([labels], FEARS, texts=[texts])
        assert corpus.titles == ("The Web", "1999")
        assert corpus.synopses[1] == "A steeplejack loses his nerve & his ladder."
        assert corpus.groups == ("w1", None)
        assert corpus.catalogues == ("north", "south")
        assert corpus.labels.tolist() == [[YES, YES, NO], [NO, NO, MAYBE]]

    def test_rows_without_a_text_are_noted(self, tmp_path):
        labels = write(tmp_path, "labels.csv", self.LABELS)
        texts = write(tmp_path, "texts.csv", ROWS)
        (note,) = read_corpus([labels], FEARS, texts=[texts]).notes
        assert str(labels) in note
        assert "1 rows left out" in note

    def test_several_files_of_texts_are_one_library(self, tmp_path):
        labels = write(tmp_path, "labels.csv", self.LABELS)
        texts = [write(tmp_path, f"{n}.csv", [row]) for n, row in enumerate(ROWS)]
        assert read_corpus([labels], FEARS, texts=texts).titles == ("The Web", "1999")

    def test_tags_of_the_texts_are_not_taken(self, tmp_path):
        labels = write(tmp_path, "labels.csv", [{"id": "8", "tags": "", "maybe": ""}])
        texts = write(tmp_path, "texts.csv", ROWS)
        assert read_corpus([labels], FEARS, texts=[texts]).labels.tolist() == [[NO, NO, NO]]

    def test_a_row_with_its_own_synopsis_keeps_it(self, tmp_path):
        own = write(tmp_path, "own.csv", [story("heights", id="8")])
        texts = write(tmp_path, "texts.csv", ROWS)
        corpus = read_corpus([own], FEARS, texts=[texts])
        assert corpus.synopses == ("A steeplejack loses his ladder.",)

    def test_texts_without_ids_are_told(self, tmp_path):
        labels = write(tmp_path, "labels.csv", self.LABELS)
        texts = write(tmp_path, "texts.csv", without(ROWS, "id"))
        message = refusal(TableError, labels, texts=[texts])
        assert str(texts) in message
        assert "'id'" in message

    def test_texts_need_no_renamed_tags(self, tmp_path):
        rows = [{"id": "8", "words": "heights", "maybe": ""}]
        texts = write(tmp_path, "texts.csv", without(ROWS, "tags"))
        corpus = read_corpus(
            [write(tmp_path, "labels.csv", rows)], FEARS, columns={"tags": "words"}, texts=[texts]
        )
        assert corpus.titles == ("1999",)


class TestNotes:
    def test_rows_without_a_synopsis_are_left_out_and_noted(self, tmp_path):
        rows = [story("heights"), {"synopsis": " <br> ", "tags": "spiders"}, story("spiders")]
        file = write(tmp_path, "mine.csv", rows)
        corpus = read_corpus([file], FEARS)
        assert len(corpus) == len(corpus.labels) == 2
        assert corpus.labels[:, 1].tolist() == [NO, YES]
        assert corpus.notes == (f"{file}: 1 rows left out: no synopsis",)

    @pytest.mark.parametrize("kind", ["jsonl", "parquet"])
    def test_a_missing_cell_is_no_synopsis(self, tmp_path, kind):
        rows = [story("heights", title="Up"), {"synopsis": None, "tags": "heights", "title": None}]
        corpus = read_corpus([write(tmp_path, f"mine.{kind}", rows)], FEARS)
        assert corpus.titles == ("Up",)
        assert len(corpus.notes) == 1

    def test_strange_words_are_noted(self, tmp_path):
        corpus = read_corpus([write(tmp_path, "mine.csv", [story("hights; heights")])], FEARS)
        (note,) = corpus.notes
        assert note.endswith(": hights")

    def test_strange_words_of_a_catalogue_are_its_own_affair(self, tmp_path):
        rows = [story("comedy; heights", catalogue="north")]
        assert read_corpus([write(tmp_path, "mine.csv", rows)], FEARS).notes == ()

    def test_a_faultless_file_is_not_remarked_on(self, tmp_path):
        assert read_corpus([write(tmp_path, "mine.csv", ROWS)], FEARS).notes == ()


class TestRefusals:
    @pytest.mark.parametrize("column", ["synopsis", "tags"])
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_missing_column_is_named(self, tmp_path, column, kind):
        file = write(tmp_path, f"mine.{kind}", without(ROWS, column))
        message = refusal(TableError, file)
        assert str(file) in message
        assert f"no column {column!r}" in message
        assert f"--column {column}=" in message
        assert "title" in message

    @pytest.mark.parametrize("name", ["mine.csv", "mine.tsv", "mine.jsonl", "mine.csv.gz"])
    def test_another_encoding_is_told(self, tmp_path, name):
        file = write(tmp_path, name, ROWS)
        data = file.read_bytes()
        data = gzip.decompress(data) if name.endswith(".gz") else data
        data = data.decode().encode("latin-1")
        file.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        message = refusal(TableError, file)
        assert str(file) in message
        assert "UTF-8" in message

    def test_a_line_with_a_cell_too_many_is_located(self, tmp_path):
        file = text(tmp_path, "synopsis,tags\nThe ladder holds.,\nThe ladder, breaks.,heights\n")
        message = refusal(TableError, file)
        assert str(file) in message
        assert "line 3" in message

    def test_lines_that_all_have_a_cell_too_many_are_refused(self, tmp_path):
        file = text(tmp_path, "title,synopsis,tags\nUp,The ladder, breaks.,heights\n")
        assert str(file) in refusal(TableError, file)

    def test_a_line_with_a_cell_too_few_is_refused(self, tmp_path):
        file = text(
            tmp_path, "title,synopsis,tags\nUp,The ladder breaks.,heights\nDown,It holds.\n"
        )
        assert "line 3" in refusal(TableError, file)

    def test_an_open_quote_is_told(self, tmp_path):
        file = text(tmp_path, 'synopsis,tags\n"The ladder holds.,\n')
        assert str(file) in refusal(TableError, file)

    def test_a_line_that_is_no_json_is_told(self, tmp_path):
        file = text(tmp_path, '{"synopsis": "The ladder holds."}\n{oops\n', "mine.jsonl")
        assert str(file) in refusal(TableError, file)

    @pytest.mark.parametrize("name", ["mine.txt", "mine", "mine.gz", "mine.csv.bak", "mine.xlsx"])
    def test_an_unknown_kind_is_told(self, tmp_path, name):
        file = text(tmp_path, "synopsis,tags\nThe ladder holds.,\n", name)
        message = refusal(TableError, file)
        assert str(file) in message
        assert ".csv" in message

    @pytest.mark.parametrize("kind", [*KINDS, "csv.gz", "jsonl.gz"])
    def test_a_missing_file_is_named(self, tmp_path, kind):
        file = tmp_path / f"none.{kind}"
        message = refusal(TableError, file)
        assert str(file) in message
        assert "cannot be read" in message

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_folder_is_no_table(self, tmp_path, kind):
        folder = tmp_path / f"mine.{kind}"
        folder.mkdir()
        assert str(folder) in refusal(TableError, folder)

    @pytest.mark.parametrize("kind", KINDS)
    def test_an_empty_file_is_told(self, tmp_path, kind):
        file = text(tmp_path, b"", f"mine.{kind}")
        assert str(file) in refusal(TableError, file)

    def test_a_file_of_another_kind_is_told(self, tmp_path):
        file = text(tmp_path, "synopsis,tags\nThe ladder holds.,\n", "mine.parquet")
        assert str(file) in refusal(TableError, file)

    def test_a_file_cut_short_is_told(self, tmp_path):
        file = write(tmp_path, "mine.csv.gz", ROWS)
        file.write_bytes(file.read_bytes()[:-12])
        assert str(file) in refusal(TableError, file)

    def test_a_file_without_rows_is_told(self, tmp_path):
        file = text(tmp_path, "synopsis,tags\n")
        assert str(file) in refusal(CorpusError, file)

    def test_no_file_is_told(self):
        assert "name at least one" in refusal(CorpusError)

    def test_a_corpus_without_a_known_label_is_refused(self, tmp_path):
        file = write(tmp_path, "mine.csv", [story("comedy")])
        assert str(file) in refusal(CorpusError, file)


class TestTextsWithoutLabels:
    MORE = (
        {"title": "Two", "synopsis": "The steeplejack of the valley paints his ladder again."},
        {"title": "Two", "synopsis": "The steeplejack of the valley paints his ladder again."},
        {"title": "Short", "synopsis": "A ladder."},
        {"title": "", "synopsis": ""},
    )

    def test_their_labels_are_unknown_and_they_follow_the_others(self, tmp_path):
        labelled = write(tmp_path, "mine.csv", ROWS)
        more = write(tmp_path, "more.csv", self.MORE)
        corpus = read_corpus([labelled], FEARS, unlabelled=[more])
        assert len(corpus) == len(ROWS) + 1
        assert corpus.titles[-1] == "Two"
        assert (corpus.labels[-1] == UNKNOWN).all()
        assert corpus.sources[-1] == "more.csv"
        assert set(corpus.fingerprints) == {"mine.csv", "more.csv"}

    def test_a_text_that_has_labels_is_not_taken_again(self, tmp_path):
        labelled = write(tmp_path, "mine.csv", ROWS)
        assert len(read_corpus([labelled], FEARS, unlabelled=[labelled])) == len(ROWS)

    def test_they_share_works_with_the_labelled(self, tmp_path):
        labelled = write(tmp_path, "mine.csv", ROWS)
        more = write(tmp_path, "more.csv", [dict(self.MORE[0], group="w3")])
        corpus = read_corpus([labelled], FEARS, unlabelled=[more])
        assert corpus.works[-1] == corpus.works[2]

    def test_alone_they_are_no_corpus(self, tmp_path):
        more = write(tmp_path, "more.csv", self.MORE)
        with pytest.raises(CorpusError):
            read_corpus([], FEARS, unlabelled=[more])

"""The taxonomy: what makes one valid, what follows from a tag, and what the shipped one holds."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import TaxonomyError
from pipeline.taxonomy import Taxonomy, load_taxonomy, spelling

calm = settings(deadline=None)

OWN = """
[[tag]]
id = "animals"
label = "Animals"
group = "fears"
definition = "Any beast that frightens."

[[tag]]
id = "insects"
label = "Insects"
group = "fears"
broader = ["animals"]
definition = "Six legs or more."
aliases = ["bugs", "creepy_crawlies"]

[[tag]]
id = "spiders"
label = "Spiders"
group = "fears"
broader = ["insects"]
definition = "Eight legs, loosely speaking."
aliases = ["arachnids", "蜘蛛"]

[[tag]]
id = "deep-water"
label = "Deep water"
group = "places"
definition = "Water over one's head."

[[versus]]
tags = ["insects", "spiders"]
text = "Count the legs."
"""


@pytest.fixture
def own(tmp_path):
    return load_taxonomy(write(tmp_path, OWN))


@pytest.fixture(scope="module")
def shipped():
    return load_taxonomy()


def write(folder, text):
    file = folder / "own.toml"
    file.write_text(text, encoding="utf-8")
    return file


def entry(tag_id, **more):
    return {"id": tag_id, "label": tag_id.title(), "group": "g", "definition": "d", **more}


def refusal(*entries, **data):
    with pytest.raises(TaxonomyError) as caught:
        Taxonomy.from_dict({"tag": list(entries), **data}, "mine.toml")
    message = str(caught.value)
    assert message.startswith("mine.toml: ")
    assert "\n" not in message
    return message


def load_refusal(file):
    with pytest.raises(TaxonomyError) as caught:
        load_taxonomy(file)
    message = str(caught.value)
    assert str(file) in message
    assert "\n" not in message
    return message


class TestRefusals:
    def test_an_unknown_broader_tag_is_named(self):
        message = refusal(entry("spiders", broader=["insekts"]))
        assert "spiders" in message
        assert "'insekts'" in message

    def test_a_tag_may_not_imply_itself(self):
        assert "circle" in refusal(entry("spiders", broader=["spiders"]))

    def test_tags_may_not_imply_one_another_in_a_circle(self):
        assert "circle" in refusal(
            entry("a", broader=["b"]), entry("b", broader=["c"]), entry("c", broader=["a"])
        )

    def test_an_alias_belongs_to_one_tag(self):
        message = refusal(entry("bees", aliases=["Bugs"]), entry("wasps", aliases=["bugs"]))
        assert "'bugs'" in message
        assert "bees" in message
        assert "wasps" in message

    def test_an_alias_may_not_be_another_tags_label(self):
        assert "'wasps'" in refusal(entry("bees", aliases=["WASPS"]), entry("wasps"))

    def test_an_alias_is_taken_in_any_spelling(self):
        message = refusal(entry("bees", aliases=["big_bugs"]), entry("wasps", aliases=["Big-Bugs"]))
        assert "'big bugs'" in message

    def test_a_tag_may_repeat_its_own_name_as_alias(self):
        taxonomy = Taxonomy.from_dict({"tag": [entry("bees", aliases=["bees", "Bees", "BEES"])]})
        assert taxonomy.resolve("bees") == "bees"

    def test_an_id_is_used_once(self):
        assert "used twice" in refusal(entry("bees"), entry("bees", label="Other"))

    @pytest.mark.parametrize("missing", ["id", "label", "group", "definition"])
    def test_a_required_field_is_missed(self, missing):
        tag = entry("bees")
        del tag[missing]
        assert f"no {missing}" in refusal(tag)

    @pytest.mark.parametrize("missing", ["label", "group", "definition"])
    def test_an_empty_field_counts_as_missing(self, missing):
        assert f"bees has no {missing}" in refusal(entry("bees", **{missing: ""}))

    def test_a_tag_without_id_is_told_by_its_number(self):
        assert "number 2" in refusal(entry("bees"), {"label": "Wasps"})

    def test_an_unknown_field_is_named(self):
        message = refusal(entry("bees", alias=["bugs"]))
        assert "'alias'" in message
        assert "aliases" in message

    @pytest.mark.parametrize("key", ["broader", "aliases"])
    @pytest.mark.parametrize("value", ["bugs", 3, ["bugs", 3]])
    def test_lists_hold_texts(self, key, value):
        assert f"{key} must be a list of texts" in refusal(entry("bees", **{key: value}))

    def test_texts_are_texts(self):
        assert "label must be a text" in refusal(entry("bees", label=3))

    @pytest.mark.parametrize("tag_id", ["Bees", "big bees", "-bees", "bees-", "big--bees", "bées"])
    def test_an_id_is_plain(self, tag_id):
        assert repr(tag_id) in refusal(entry(tag_id, label="Some bees"))

    def test_a_contrast_names_known_tags(self):
        versus = [{"tags": ["bees", "hornets"], "text": "size"}]
        assert "'hornets'" in refusal(entry("bees"), versus=versus)

    @pytest.mark.parametrize("tags", [["bees"], ["bees", "bees", "bees"], "bees", None])
    def test_a_contrast_is_of_two_tags(self, tags):
        assert "exactly two" in refusal(entry("bees"), versus=[{"tags": tags, "text": "size"}])

    def test_a_contrast_has_a_text(self):
        assert "text" in refusal(entry("bees"), versus=[{"tags": ["bees", "bees"]}])

    def test_versus_is_a_list(self):
        assert "versus" in refusal(entry("bees"), versus=5)

    @pytest.mark.parametrize("data", [{}, {"tag": []}, {"tag": {"id": "bees"}}])
    def test_there_is_at_least_one_tag(self, data):
        with pytest.raises(TaxonomyError, match=r"no \[\[tag\]\]"):
            Taxonomy.from_dict(data)

    def test_a_tag_is_a_table(self):
        assert "not a table" in refusal("bees")

    def test_a_missing_file_is_named(self, tmp_path):
        assert "cannot be read" in load_refusal(tmp_path / "none.toml")

    def test_a_folder_is_no_taxonomy(self, tmp_path):
        assert "cannot be read" in load_refusal(tmp_path)

    def test_bad_toml_is_located(self, tmp_path):
        message = load_refusal(write(tmp_path, '[[tag]]\nid = "bees\n'))
        assert "not valid TOML" in message
        assert "line 2" in message

    def test_another_encoding_is_told(self, tmp_path):
        file = tmp_path / "own.toml"
        file.write_bytes("label = 'apeuré'".encode("latin-1"))
        assert "UTF-8" in load_refusal(file)

    def test_a_contradiction_names_the_file(self, tmp_path):
        file = write(tmp_path, OWN.replace('broader = ["animals"]', 'broader = ["beasts"]'))
        assert "'beasts'" in load_refusal(file)


class TestOwnTaxonomy:
    def test_it_holds_its_own_tags_alone(self, own):
        assert own.ids == ("animals", "insects", "spiders", "deep-water")
        assert len(own) == 4

    def test_columns_follow_the_file(self, own):
        assert [own.index[tag] for tag in own.ids] == [0, 1, 2, 3]

    def test_it_knows_none_of_the_shipped_tags(self, own, shipped):
        assert {own.resolve(tag) for tag in shipped.ids} == {None}

    def test_groups_come_in_order(self, own):
        groups = {name: [tag.id for tag in tags] for name, tags in own.groups.items()}
        assert list(groups) == ["fears", "places"]
        assert groups == {"fears": ["animals", "insects", "spiders"], "places": ["deep-water"]}

    def test_ancestors_are_nearest_first(self, own):
        assert own.ancestors("spiders") == ("insects", "animals")
        assert own.ancestors("animals") == ()

    def test_narrower_tags_are_those_directly_below(self, own):
        assert own.narrower("animals") == ("insects",)
        assert own.narrower("spiders") == ()

    def test_a_narrow_tag_brings_all_broader_ones(self, own):
        assert own.closure(["spiders"]) == {"spiders", "insects", "animals"}

    def test_a_broad_tag_brings_no_narrow_one(self, own):
        assert own.closure(["animals", "deep-water"]) == {"animals", "deep-water"}

    def test_nothing_implies_nothing(self, own):
        assert own.closure([]) == set()

    def test_two_parents_are_both_implied(self):
        taxonomy = Taxonomy.from_dict(
            {"tag": [entry("a"), entry("b"), entry("c", broader=["a", "b"])]}
        )
        assert taxonomy.closure(["c"]) == {"a", "b", "c"}

    def test_implications_come_narrowest_first(self, own):
        assert own.implications(own.ids) == ((2, 1), (2, 0), (1, 0))

    def test_implications_skip_absent_columns(self, own):
        assert own.implications(["deep-water", "animals", "spiders"]) == ((2, 1),)
        assert own.implications(["insects"]) == ()

    def test_a_contrast_reads_in_either_order(self, own):
        assert own.contrast("spiders", "insects") == "Count the legs."
        assert own.contrast("insects", "spiders") == "Count the legs."

    def test_an_unwritten_contrast_is_none(self, own):
        assert own.contrast("spiders", "deep-water") is None

    def test_plain_data_reads_back(self, own):
        assert Taxonomy.from_dict(own.to_dict()) == own


class TestResolve:
    @pytest.mark.parametrize(
        "name",
        ["deep-water", "deep_water", "Deep water", "DEEP  WATER", " deep\twater ", "deep_-water"],
    )
    def test_case_and_separators_do_not_matter(self, own, name):
        assert own.resolve(name) == "deep-water"

    @pytest.mark.parametrize("name", ["arachnids", "Arachnids", "蜘蛛", "Spiders", "spiders"])
    def test_id_label_and_alias_all_lead_to_the_tag(self, own, name):
        assert own.resolve(name) == "spiders"

    @pytest.mark.parametrize("name", ["", "spider", "deepwater", "water deep"])
    def test_other_words_lead_nowhere(self, own, name):
        assert own.resolve(name) is None

    @calm
    @given(st.text())
    def test_spelling_is_settled_at_once(self, name):
        assert spelling(spelling(name)) == spelling(name)

    def test_an_asterisk_stands_for_a_letter(self, own):
        assert own.resolve("sp*ders") == "spiders"


class TestShippedTaxonomy:
    def test_it_has_36_tags_in_7_groups(self, shipped):
        assert len(shipped) == 36
        assert len(shipped.groups) == 7

    def test_every_tag_is_explained(self, shipped):
        bare = {
            (tag.id, name)
            for tag in shipped.tags
            for name in ("definition", "exclude", "origin", "example")
            if len(getattr(tag, name).split()) < 2
        }
        assert not bare

    def test_no_text_is_used_twice(self, shipped):
        for name in ("definition", "exclude", "origin", "example"):
            texts = [getattr(tag, name) for tag in shipped.tags]
            assert len(set(texts)) == len(texts), name

    def test_every_name_leads_to_its_tag(self, shipped):
        for tag in shipped.tags:
            assert {shipped.resolve(n) for n in (tag.id, tag.label, *tag.aliases)} == {tag.id}

    def test_every_contrast_is_of_two_different_tags(self, shipped):
        assert shipped.contrasts
        for contrast in shipped.contrasts:
            first, second = contrast.tags
            assert first != second
            assert {first, second} <= set(shipped.ids)

    def test_every_contrast_is_found_in_either_order(self, shipped):
        for contrast in shipped.contrasts:
            first, second = contrast.tags
            assert shipped.contrast(first, second) == contrast.text
            assert shipped.contrast(second, first) == contrast.text
            assert len(contrast.text.split()) >= 5

    def test_no_pair_is_contrasted_twice(self, shipped):
        pairs = [frozenset(contrast.tags) for contrast in shipped.contrasts]
        assert len(set(pairs)) == len(pairs)

    def test_every_tag_is_contrasted_with_another(self, shipped):
        assert {tag for contrast in shipped.contrasts for tag in contrast.tags} == set(shipped.ids)

    @pytest.mark.parametrize(
        ("narrow", "implied"),
        [
            ("ntr", {"infidelity"}),
            ("gore", {"violence"}),
            ("torture", {"violence"}),
            ("war", {"violence"}),
            ("terrorism", {"violence"}),
            ("murder", {"death", "violence"}),
            ("suicide", {"death"}),
            ("body-horror", {"horror"}),
            ("child-abuse", {"abuse"}),
            ("death", set()),
        ],
    )
    def test_narrow_tags_imply_broad_ones(self, shipped, narrow, implied):
        assert shipped.closure([narrow]) == {narrow} | implied

    def test_one_pass_over_the_implications_closes_a_row(self, shipped):
        for tag in shipped.ids:
            row = [tag_id == tag for tag_id in shipped.ids]
            for narrow, broad in shipped.implications(shipped.ids):
                row[broad] |= row[narrow]
            held = {tag_id for tag_id, yes in zip(shipped.ids, row, strict=True) if yes}
            assert held == shipped.closure([tag])

    @calm
    @given(data=st.data())
    def test_closing_twice_adds_nothing(self, shipped, data):
        tags = data.draw(st.sets(st.sampled_from(shipped.ids)))
        closed = shipped.closure(tags)
        assert tags <= closed
        assert shipped.closure(closed) == closed

    def test_plain_data_reads_back(self, shipped):
        assert Taxonomy.from_dict(shipped.to_dict()) == shipped

    def test_any_order_of_tags_gives_the_same_closures(self, shipped):
        data = copy.deepcopy(shipped.to_dict())
        data["tag"].reverse()
        reversed_ = Taxonomy.from_dict(data)
        assert reversed_.ids == shipped.ids[::-1]
        for tag in shipped.ids:
            assert reversed_.closure([tag]) == shipped.closure([tag])

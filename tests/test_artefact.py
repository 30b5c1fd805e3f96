"""A model on disk: what is read is what was written, and anything else is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Forewarn
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.artefact import SCHEMA_VERSION, find_model, load_model, save_model
from pipeline.decision import PROFILES, Thresholds
from pipeline.errors import ModelError
from pipeline.model import Model
from pipeline.taxonomy import Taxonomy

FILES = ("bias.npy", "config.json", "idf.npy", "vocabulary.txt", "weights.npy")
TAXONOMY = Taxonomy.from_dict(
    {
        "tag": [
            {"id": "storm", "label": "Storm", "group": "sea", "definition": "Bad weather."},
            {
                "id": "wreck",
                "label": "Shipwreck — 難破",
                "group": "sea",
                "definition": "A ship goes down.",
                "broader": ["storm"],
            },
            {"id": "bees", "label": "Bees", "group": "land", "definition": "Bees are about."},
        ],
        "versus": [{"tags": ["storm", "bees"], "text": "Both are loud."}],
    }
)
WORDS = ["storm", "bee", "ship", "é", "寝取られ", "ship sank", "not_calm", "o'neil"]
BLURB = "The storm came at night, and the ship sank before the bees were calm."


def small_model(seed: int, features: int = 5, tags: tuple[str, ...] = TAXONOMY.ids) -> Model:
    """A model of a few features with random numbers."""
    random = np.random.default_rng(seed)
    cuts = np.sort(random.random((3, len(tags))), axis=0)
    return Model(
        taxonomy=TAXONOMY,
        tags=tags,
        vocabulary=tuple(WORDS[:features]),
        idf=random.uniform(1, 5, features).astype(np.float32),
        weights=random.normal(0, 4, (features, len(tags))).astype(np.float16),
        bias=random.normal(0, 2, len(tags)),
        thresholds=Thresholds(
            {"cautious": cuts[0], "balanced": cuts[1], "strict": cuts[2]},
            {profile: random.random(len(tags)) > 0.5 for profile in PROFILES},
        ),
        provenance={"seed": seed, "note": "é\n"},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound model on disk."""
    save_model(small_model(1), tmp_path / "model", "# A card\n")
    return tmp_path / "model"


def damage(folder: Path) -> str:
    """The one line with which a folder is refused."""
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the configuration and make its checksums fit again, as a forger would."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["files"] = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in config["files"]
    }
    change(config)
    del config["digest"]
    body = json.dumps(config, sort_keys=True).encode()
    path.write_text(json.dumps({**config, "digest": hashlib.sha256(body).hexdigest()}))


def unchanged(config: dict[str, Any]) -> None:
    """The configuration as it is; the checksums of the other files are renewed."""


# Round trip


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    features=st.integers(1, len(WORDS)),
    tags=st.sampled_from([TAXONOMY.ids, ("storm", "wreck"), ("wreck",), ("bees",)]),
    texts=st.lists(st.lists(st.sampled_from([*WORDS, "calm", "unknown"])).map(" ".join)),
)
def test_a_model_read_back_says_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    features: int,
    tags: tuple[str, ...],
    texts: list[str],
) -> None:
    model = small_model(seed, features, tags)
    folder = tmp_path_factory.mktemp("round") / "model"
    save_model(model, folder)
    again = load_model(folder)
    assert np.array_equal(again.predict_proba(texts), model.predict_proba(texts))
    assert again.taxonomy == model.taxonomy
    assert (again.tags, again.vocabulary) == (model.tags, model.vocabulary)
    assert again.provenance == model.provenance
    for profile in PROFILES:
        old, new = model.thresholds, again.thresholds
        assert np.array_equal(new.values[profile], old.values[profile])
        assert np.array_equal(new.reached[profile], old.reached[profile])
    assert again.suggest(BLURB, "Bees") == model.suggest(BLURB, "Bees")


def test_a_folder_holds_data_alone(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "README.md"])
    assert (folder / "README.md").read_text() == "# A card\n"
    assert (folder / "vocabulary.txt").read_text().split() == " ".join(WORDS[:5]).split()
    assert json.loads((folder / "config.json").read_text())["schema_version"] == SCHEMA_VERSION


def test_equal_models_make_equal_files(folder: Path, tmp_path: Path) -> None:
    save_model(small_model(1), tmp_path / "other", "# A card\n")
    for name in FILES:
        assert (folder / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_a_trained_model_survives_the_round_trip(starter_model: Model, tmp_path: Path) -> None:
    save_model(starter_model, tmp_path / "copy")
    again = load_model(tmp_path / "copy")
    assert again.suggest(BLURB, all_tags=True) == starter_model.suggest(BLURB, all_tags=True)


# Damage


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_a_damaged_byte_is_noticed_wherever_it_is(folder: Path, name: str, flip: int) -> None:
    path = folder / name
    sound = path.read_bytes()
    meaning = json.loads((folder / "config.json").read_text())
    for place in {*range(0, len(sound), max(1, len(sound) // 97)), len(sound) - 1}:
        path.write_bytes(sound[:place] + bytes([sound[place] ^ flip]) + sound[place + 1 :])
        try:
            load_model(folder)
        except ModelError as error:
            assert str(folder) in str(error)
        else:
            # White space and the last digit of a long number can change and mean the same.
            assert name == "config.json"
            assert json.loads(path.read_text()) == meaning
    path.write_bytes(sound)
    load_model(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.98])
def test_a_file_cut_short_is_noticed(folder: Path, name: str, kept: float) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(len(data) * kept)])
    assert "damaged" in damage(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_file_with_more_at_its_end_is_noticed(folder: Path, name: str) -> None:
    with (folder / name).open("ab") as file:
        file.write(b"x")
    assert "damaged" in damage(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert name in damage(folder)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}", "not a Forewarn model"),
        ("[]", "not a Forewarn model"),
        ("null", "not a Forewarn model"),
        ('{"format": "someone-elses", "schema_version": 1}', "not a Forewarn model"),
        ('{"format": "forewarn-model"}', "no schema version"),
        ('{"format": "forewarn-model", "schema_version": "1"}', "no schema version"),
        ('{"format": "forewarn-model", "schema_version": 2, "kind": "deep"}', "'deep'"),
        ('{"format": "forewarn-model", "schema_version": 2, "kind": "linear"}', "does not list"),
        ("not JSON", "damaged"),
        ("\x00", "damaged"),
    ],
)
def test_a_foreign_configuration_is_refused(folder: Path, text: str, told: str) -> None:
    (folder / "config.json").write_text(text)
    assert told in damage(folder)


def test_a_configuration_nested_too_deep_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 200_000)
    damage(folder)


def test_a_newer_schema_asks_for_an_upgrade(folder: Path) -> None:
    rewrite(folder, lambda config: config.update(schema_version=SCHEMA_VERSION + 1))
    message = damage(folder)
    assert "newer" in message
    assert "pip install -U forewarn" in message


def test_an_older_schema_asks_for_another_training(folder: Path) -> None:
    rewrite(folder, lambda config: config.update(schema_version=SCHEMA_VERSION - 1))
    message = damage(folder)
    assert "older Forewarn" in message
    assert "train the model again" in message


@pytest.mark.parametrize("key", ["taxonomy", "tags", "thresholds", "provenance"])
def test_a_configuration_without_a_part_is_refused(folder: Path, key: str) -> None:
    rewrite(folder, lambda config: config.pop(key))
    assert "does not hold together" in damage(folder)


def test_arrays_must_fit_the_vocabulary(folder: Path) -> None:
    with (folder / "vocabulary.txt").open("a") as file:
        file.write("one more\n")
    rewrite(folder, unchanged)
    assert "do not fit" in damage(folder)


FORGED = {
    "a tag outside the taxonomy": lambda config: config.update(tags=["storm", "wreck", "gone"]),
    "a tag twice": lambda config: config.update(tags=["storm", "wreck", "wreck"]),
    "too few thresholds": lambda config: config["thresholds"]["strict"].update(values=[0.5]),
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED)
def test_a_configuration_that_contradicts_itself_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    rewrite(folder, change)
    damage(folder)


ARRAYS = {
    "text": np.full((5, 3), "a"),
    "complex numbers": np.ones((5, 3), np.complex64),
    "not a number": np.full((5, 3), np.nan, np.float16),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_arrays_must_hold_finite_numbers(folder: Path, array: Any) -> None:
    np.save(folder / "weights.npy", array)
    rewrite(folder, unchanged)
    damage(folder)


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickled_object_is_refused_and_never_run(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    np.save(folder / "weights.npy", np.array([Trap(mark)], dtype=object), allow_pickle=True)
    assert "damaged" in damage(folder)
    rewrite(folder, unchanged)
    assert "does not hold together" in damage(folder)
    assert not mark.exists()
    np.load(folder / "weights.npy", allow_pickle=True)
    assert mark.exists()


# Saving


def test_saving_over_a_model_replaces_it(folder: Path) -> None:
    save_model(small_model(2), folder)
    assert load_model(folder).provenance["seed"] == 2
    assert not (folder / "README.md").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_saving_into_an_empty_folder_or_below_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for target in (tmp_path / "empty", tmp_path / "a" / "b" / "model"):
        save_model(small_model(3), target)
        assert load_model(target).provenance["seed"] == 3


def test_saving_over_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ModelError, match="is not a model; choose another folder"):
        save_model(small_model(1), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_saving_over_a_file_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "thesis.txt"
    target.write_text("years of work")
    with pytest.raises(ModelError):
        save_model(small_model(1), target)
    assert target.read_text() == "years of work"


def test_saving_over_another_programs_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"name": "some other program"}')
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ModelError):
        save_model(small_model(1), tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_save_that_fails_midway_leaves_the_old_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    save, calls = np.save, []

    def failing(file: Path, array: Any, **options: Any) -> None:
        calls.append(file)
        if len(calls) == 3:
            raise error
        save(file, array, **options)

    monkeypatch.setattr(np, "save", failing)
    with pytest.raises((ModelError, KeyboardInterrupt)):
        save_model(small_model(2), folder)
    with pytest.raises((ModelError, KeyboardInterrupt)):
        calls.clear()
        save_model(small_model(2), folder.parent / "new")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_place_that_cannot_be_written_is_named(folder: Path) -> None:
    target = folder / "bias.npy" / "model"
    with pytest.raises(ModelError) as caught:
        save_model(small_model(1), target)
    assert str(target) in str(caught.value)


# Finding


def test_a_model_is_found_by_folder_or_by_name(folder: Path) -> None:
    assert find_model(folder) == find_model(str(folder)) == folder
    assert find_model("default").name == "default"
    assert (find_model("default") / "config.json").is_file()


@pytest.mark.parametrize("name", ["no-such-model", "no/such/folder", "../default", ".."])
def test_an_unknown_model_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError):
        load_model(name)


def test_the_refusal_names_the_released_models() -> None:
    with pytest.raises(ModelError, match=r"no-such-model: .*one of: .*default"):
        find_model("no-such-model")


@pytest.mark.parametrize("name", FILES)
def test_the_command_line_tells_of_damage_in_one_line(
    forewarn: Forewarn, starter_folder: Path, tmp_path: Path, name: str
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(starter_folder, broken)
    data = bytearray((broken / name).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (broken / name).write_bytes(data)
    ran = forewarn("predict", BLURB, "--model", broken)
    assert (ran.rc, ran.out) == (2, b"")
    (line,) = ran.stderr.splitlines()
    assert line.startswith("forewarn: ")
    assert str(broken) in line

"""The command line, as a person meets it: what it prints, what it refuses, how it starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import psutil
import pytest
from conftest import ROOT, Forewarn, alive, start_forewarn, until

import pipeline
from pipeline.cli import main
from pipeline.taxonomy import load_taxonomy

GRIM = (
    "When her brother is murdered, a retired detective follows the killer into a city at war, "
    "where soldiers torture their prisoners and the dead lie in the streets."
)
MILD = (
    "Three cousins restore an old ferry and carry their first passengers across the bay in spring."
)
MARKED_UP = (
    "<p>He&rsquo;s back 👩\u200d🚀🔪:\r\n<b>the&nbsp;killer</b> who <i>mur&shy;dered</i> her "
    "brother &amp; sister&hellip;</p> She hunts him through a cafe\u0301 at war."
)
TAGS = load_taxonomy().ids


# predict


def test_predict_prints_a_table_of_tags_probabilities_and_reasons(forewarn: Forewarn) -> None:
    ran = forewarn("predict", GRIM)
    assert (ran.rc, ran.stderr) == (0, "")
    head, *rows = ran.stdout.splitlines()
    assert head.split() == ["tag", "prob.", "because", "of"]
    assert {"murder", "war", "torture"} <= {row.split()[0] for row in rows}
    column = head.index("because")
    for row in rows:
        tag, probability = row.split()[:2]
        assert tag in TAGS
        assert 0 <= float(probability) <= 1
        assert row[column] == "“"
        assert row.endswith("”")
    scores = [float(row.split()[1]) for row in rows]
    assert scores == sorted(scores, reverse=True)


def test_predict_says_when_there_is_nothing_to_suggest(forewarn: Forewarn) -> None:
    ran = forewarn("predict", MILD, "--profile", "strict")
    assert ran.rc == 0
    assert ran.stdout == "No warnings suggested. (The synopsis may leave things out.)\n"


@pytest.mark.parametrize(
    ("synopsis", "status", "told"),
    [
        ("Murder on the ferry.", "too-short", "too short"),
        ("Una mujer regresa a su pueblo y su padre fue asesinado ayer.", "not-english", "English"),
        ("", "empty", "no text"),
        ("<p> </p>", "empty", "no text"),
    ],
)
def test_predict_abstains_and_says_why(
    forewarn: Forewarn, synopsis: str, status: str, told: str
) -> None:
    ran = forewarn("predict", synopsis, "--threshold", "0")
    assert ran.rc == 0
    assert told in ran.stdout
    assert len(ran.stdout.splitlines()) == 1
    ran = forewarn("predict", synopsis, "--json", "--all")
    assert json.loads(ran.stdout) == {"status": status, "warnings": []}


def test_predict_json_has_a_fixed_shape(forewarn: Forewarn) -> None:
    ran = forewarn("predict", MARKED_UP, "--json", "--title", "The Caf&eacute; War")
    assert (ran.rc, ran.stderr) == (0, "")
    data = json.loads(ran.stdout)
    assert set(data) == {"status", "warnings"}
    assert data["status"] == "ok"
    texts = {"synopsis": MARKED_UP, "title": "The Caf&eacute; War"}
    fields = set()
    for warning in data["warnings"]:
        assert set(warning) == {"tag", "label", "probability", "evidence"}
        assert warning["label"] == load_taxonomy()[warning["tag"]].label
        assert 0 <= warning["probability"] <= 1
        assert warning["evidence"]
        for evidence in warning["evidence"]:
            assert set(evidence) == {"text", "start", "end", "weight", "field"}
            given_text = texts[evidence["field"]]
            assert given_text[evidence["start"] : evidence["end"]] == evidence["text"]
            assert evidence["weight"] > 0
            fields.add(evidence["field"])
    assert fields == {"synopsis", "title"}
    assert "murder" in {warning["tag"] for warning in data["warnings"]}


def test_predict_reads_a_file_or_standard_input_alike(forewarn: Forewarn, tmp_path: Path) -> None:
    path = tmp_path / "synopsis.txt"
    path.write_bytes(MARKED_UP.encode())
    spoken = forewarn("predict", MARKED_UP, "--json").stdout
    assert forewarn("predict", "--file", path, "--json").stdout == spoken
    assert forewarn("predict", "-", "--json", stdin=MARKED_UP.encode()).stdout == spoken
    assert forewarn("predict", "--file", "-", "--json", stdin=MARKED_UP.encode()).stdout == spoken
    path.write_bytes(b"\xef\xbb\xbf" + MARKED_UP.encode())
    assert forewarn("predict", "--file", path, "--json").stdout == spoken


def test_predict_all_shows_every_tag_and_no_evidence_hides_the_words(forewarn: Forewarn) -> None:
    everything = json.loads(forewarn("predict", GRIM, "--all", "--json").stdout)["warnings"]
    assert sorted(warning["tag"] for warning in everything) == sorted(TAGS)
    bare = json.loads(forewarn("predict", GRIM, "--no-evidence", "--json").stdout)["warnings"]
    assert bare
    assert all(warning["evidence"] == [] for warning in bare)
    printed = forewarn("predict", GRIM, "--no-evidence").stdout
    assert "because" not in printed
    assert "“" not in printed
    assert "murder" in printed


def test_predict_profiles_nest_and_a_threshold_replaces_them(forewarn: Forewarn) -> None:
    def tags(*options: str) -> set[str]:
        ran = forewarn("predict", GRIM, "--json", *options)
        return {warning["tag"] for warning in json.loads(ran.stdout)["warnings"]}

    strict, balanced, cautious = (
        tags("--profile", profile) for profile in ("strict", "balanced", "cautious")
    )
    assert strict <= balanced <= cautious
    assert strict < cautious
    assert tags() == balanced
    assert tags("--threshold", "0") == set(TAGS)
    everything = json.loads(forewarn("predict", GRIM, "--json", "--all").stdout)["warnings"]
    assert tags("--threshold", "0.3") == {w["tag"] for w in everything if w["probability"] >= 0.3}


def test_predict_takes_a_model_by_its_folder(forewarn: Forewarn, starter_folder: Path) -> None:
    own = forewarn("predict", GRIM, "--json", "--all", "--model", starter_folder)
    shipped = forewarn("predict", GRIM, "--json", "--all", "--model", "default")
    assert own.rc == shipped.rc == 0
    assert own.stdout != shipped.stdout
    assert forewarn("predict", GRIM, "--json", "--all").stdout == shipped.stdout


@pytest.mark.parametrize(
    "args",
    [
        ("predict",),
        ("predict", GRIM, "--file", "synopsis.txt"),
        ("predict", GRIM, "--threshold", "1.5"),
        ("predict", GRIM, "--profile", "lax"),
        ("predict", GRIM, "--no-such-option"),
        ("tag", "in.csv"),
        ("tag", "in.csv", "-o", "out.csv", "--column", "synopsis"),
        ("tag", "in.csv", "-o", "out.csv", "--column", "plot=synopsis"),
        ("tag", "in.csv", "-o", "out.csv", "--format", "xlsx"),
        ("tag", "in.csv", "-o", "out.csv", "--jobs", "0"),
        ("train", "in.csv", "-o", "model", "--jobs", "0"),
        ("train", "-o", "model"),
        ("train", "in.csv", "-o", "model", "--folds", "1"),
        ("tags", "--versus", "gore"),
        ("tags", "gore", "--versus", "no such tag"),
        ("no-such-command",),
    ],
)
def test_a_command_used_wrongly_is_explained(forewarn: Forewarn, args: tuple[str, ...]) -> None:
    ran = forewarn(*args)
    assert (ran.rc, ran.out) == (2, b"")
    assert ran.stderr.startswith("Usage: ")
    assert "\nError: " in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("predict", GRIM, "--model", "no-such-model"), "no-such-model: no such model"),
        (("predict", GRIM, "--model", "folder"), "folder: not a Forewarn model"),
        (("predict", "--file", "missing.txt"), "missing.txt: cannot be read"),
        (("predict", "--file", "folder"), "folder: cannot be read"),
        (("predict", "--file", "latin.txt"), "latin.txt: not UTF-8"),
        (("evaluate", "default", "missing.csv"), "missing.csv: cannot be read"),
        (("tags", "--tags", "missing.toml"), "missing.toml: cannot be read"),
        (("tags", "--tags", "latin.txt"), "latin.txt: not UTF-8"),
    ],
)
def test_what_a_user_can_mend_is_told_in_one_line(
    forewarn: Forewarn, tmp_path: Path, args: tuple[str, ...], told: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    ran = forewarn(*args, cwd=tmp_path)
    assert (ran.rc, ran.out) == (2, b"")
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"forewarn: {told}")


def test_an_empty_file_name_is_not_another_files(forewarn: Forewarn, tmp_path: Path) -> None:
    (tmp_path / "None").write_text(GRIM)
    ran = forewarn("predict", "--file", "", cwd=tmp_path)
    assert ran.rc == 2
    assert "None" not in ran.stderr


def test_bytes_that_are_no_text_do_no_harm(forewarn: Forewarn) -> None:
    ran = forewarn("predict", os.fsdecode(GRIM.encode() + b" \xff\xfe"), "--json")
    assert ran.rc == 0, ran.stderr
    assert json.loads(ran.out.decode(errors="replace"))["status"] == "ok"


# tags


def test_tags_lists_all_of_them_by_group(forewarn: Forewarn) -> None:
    ran = forewarn("tags")
    assert (ran.rc, ran.stderr) == (0, "")
    blocks = ran.stdout.strip().split("\n\n")
    taxonomy = load_taxonomy()
    assert [block.splitlines()[0] for block in blocks] == list(taxonomy.groups)
    listed = [line.split()[0] for block in blocks for line in block.splitlines()[1:]]
    assert listed == [tag.id for group in taxonomy.groups.values() for tag in group]


def test_tags_as_json(forewarn: Forewarn) -> None:
    assert [tag["id"] for tag in json.loads(forewarn("tags", "--json").stdout)] == list(TAGS)
    tag = json.loads(forewarn("tags", "ntr", "--json").stdout)
    assert (tag["id"], tag["broader"]) == ("ntr", ["infidelity"])


@pytest.mark.parametrize("name", ["ntr", "NTR", "Netorare", "NTR (netorare)", "寝取られ"])
def test_tags_explains_one_by_any_of_its_names(forewarn: Forewarn, name: str) -> None:
    ran = forewarn("tags", name)
    assert ran.rc == 0
    assert ran.stdout.startswith("NTR (netorare) (ntr), in relationships\n")
    flowing = " ".join(ran.stdout.split())
    tag = load_taxonomy()["ntr"]
    for text in (tag.definition, tag.exclude, tag.origin, tag.example):
        assert " ".join(text.split()) in flowing
    assert "Broader: infidelity" in flowing


def test_tags_tells_two_apart_in_either_order(forewarn: Forewarn) -> None:
    taxonomy = load_taxonomy()
    contrast = next(c for c in taxonomy.contrasts if set(c.tags) == {"ntr", "infidelity"})
    for first, second in (("ntr", "infidelity"), ("infidelity", "ntr")):
        flowing = " ".join(forewarn("tags", first, "--versus", second).stdout.split())
        assert " ".join(contrast.text.split()) in flowing
        assert taxonomy[first].definition in flowing
        assert taxonomy[second].definition in flowing
    assert "same tag" in forewarn("tags", "ntr", "--versus", "netorare").stdout


def test_an_unknown_tag_brings_a_suggestion(forewarn: Forewarn) -> None:
    ran = forewarn("tags", "cannibalims")
    assert ran.rc == 2
    assert "no tag 'cannibalims'; did you mean cannibalism?" in ran.stderr
    assert "`forewarn tags` lists them" in forewarn("tags", "qqqqqqqqq").stderr


# Interruption


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "told"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
    ids=["ctrl-c", "sigterm"],
)
@pytest.mark.parametrize("command", ["predict", "train"])
def test_an_interrupted_command_ends_with_its_processes_and_leaves_nothing(
    tmp_path: Path, command: str, number: signal.Signals, code: int, told: str
) -> None:
    args = {
        "predict": ("predict", "-"),
        "train": ("train", ROOT / "data" / "starter.csv", "-o", tmp_path / "model", "--jobs", "2"),
    }[command]
    ran = start_forewarn(*args, stdin=subprocess.PIPE)
    process = psutil.Process(ran.pid)
    if command == "predict":
        until(lambda: any("numpy" in mapped.path for mapped in process.memory_maps()))
    else:
        until(lambda: len(process.children(recursive=True)) > 2)
    family = process.children(recursive=True)
    (os.killpg if number is signal.SIGINT else os.kill)(ran.pid, number)
    _, err = ran.communicate(timeout=240)
    assert (ran.returncode, err) == (code, f"forewarn: {told}\n")
    until(lambda: not any(alive(child) for child in family))
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_is_told_though_what_tidies_up_stumbles(capsys: pytest.CaptureFixture[str]) -> None:
    @click.group(cls=type(main))
    def group() -> None: ...

    @group.command()
    def stumble() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("cannot join thread before it is started")

    with pytest.raises(SystemExit) as ended:
        group.main(["stumble"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "forewarn: interrupted\n"


# Help and start


@pytest.mark.parametrize(
    "command",
    ["", "predict", "tag", "train", "finetune", "evaluate", "compare", "runs", "export", "tags"],
)
def test_every_command_has_help_with_an_example(forewarn: Forewarn, command: str) -> None:
    ran = forewarn(*filter(None, [command]), "--help")
    assert (ran.rc, ran.stderr) == (0, "")
    assert "Example" in ran.stdout
    assert f"forewarn {command}" in ran.stdout


def test_the_version_is_the_packages(forewarn: Forewarn) -> None:
    assert pipeline.__version__ in forewarn("--version").stdout


HEAVY = {"sklearn", "pandas", "scipy", "pyarrow", "joblib", "jinja2", "vl_convert"}


def loaded_after(start: str) -> set[str]:
    """The modules that a fresh process has loaded when some code has run."""
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys\n{start}\nprint('loaded', *sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return set(ran.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "start",
    [
        "import pipeline",
        "from pipeline.cli import main; main(['--help'], standalone_mode=False)",
        f"from pipeline.cli import main; main(['predict', {GRIM!r}], standalone_mode=False)",
        "from pipeline.cli import main; main(['runs', 'models'], standalone_mode=False)",
        f"import pipeline; pipeline.load_model().suggest({GRIM!r})",
    ],
    ids=["import", "help", "predict", "runs", "suggest"],
)
def test_what_people_wait_for_loads_nothing_heavy(start: str) -> None:
    loaded = loaded_after(start)
    assert "pipeline" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize("arguments", [["--help"], ["tag", "--help"], ["--version"]])
def test_help_does_not_even_load_numpy(arguments: list[str]) -> None:
    loaded = loaded_after(
        f"from pipeline.cli import main; main({arguments!r}, standalone_mode=False)"
    )
    assert "pipeline.cli" in loaded
    assert not {"numpy", "pipeline.model", "pipeline.artefact", "tempfile", *HEAVY} & loaded


def test_public_names_are_there_when_asked_for() -> None:
    for name in pipeline.__all__:
        assert getattr(pipeline, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        pipeline.nonsense  # noqa: B018

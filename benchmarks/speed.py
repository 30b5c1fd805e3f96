"""Speed and memory beside what people would otherwise use, in one run on one machine.

Run: python benchmarks/speed.py [-o docs/benchmarks.md]
Needs: pip install -e '.[benchmark]' (fastText; without it, its row is left out)

Every contender is a process of its own that reads the same CSV and writes its tags to another.
Contenders take turns, so that what else the machine does falls on all of them. The synopses are
those of the real corpus where FOREWARN_CORPUS names its folder, else the starter corpus; either
is repeated until there are rows enough. Nothing of them is printed.
"""

from __future__ import annotations

import compileall
import csv
import gzip
import importlib.util
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path

import click
import numpy as np
from report import write_section

from pipeline.artefact import load_model
from pipeline.export import export_joblib
from pipeline.model import Model

ROOT = Path(__file__).resolve().parent.parent
STARTER = ROOT / "data" / "starter.csv"
PYTHON = sys.executable
FOREWARN = (PYTHON, "-m", "pipeline")
BLURB = (
    "A detective hunts a serial killer who poisons the guests of a seaside hotel. Her sister, who "
    "runs its kitchen, is the only one who will talk, and the town looks away."
)
FLOOR = """
import sys, pyarrow as pa, pyarrow.compute as pc, pyarrow.csv as csv
pa.set_cpu_count(1)
table = csv.read_csv(sys.argv[1], csv.ReadOptions(use_threads=False),
                     csv.ParseOptions(newlines_in_values=True))
text = table["synopsis"]
SPLIT
print(len(words))
"""
SPACES = "words = pc.utf8_split_whitespace(text)"
REGEX = 'words = pc.split_pattern_regex(pc.utf8_lower(text), r"[^\\pL\\pN\'*]+")'
SKLEARN = """
import sys, joblib, numpy as np, pandas as pd
pipeline, cut = joblib.load(sys.argv[1]), np.load(sys.argv[2])
table = pd.read_csv(sys.argv[3], dtype=str, keep_default_na=False)
flags = pipeline.predict_proba(table["title"] + "\\n" + table["synopsis"]) >= cut
table["warnings"] = [";".join(pipeline.classes_[row]) for row in flags]
table.to_csv(sys.argv[4], index=False)
"""
FASTTEXT = """
import csv, sys, fasttext
fasttext.FastText.eprint = lambda *_: None
model = fasttext.load_model(sys.argv[1])
with open(sys.argv[2], encoding="utf-8", newline="") as source, \\
     open(sys.argv[3], "w", encoding="utf-8", newline="") as target:
    writer = csv.writer(target)
    for row in csv.DictReader(source):
        line = " ".join(f"{row['title']} {row['synopsis']}".lower().split())
        found = model.f.predict(line + "\\n", -1, 0.0, "strict")
        tags = [label for p, label in found if p >= 0.5]
        writer.writerow([*row.values(), ";".join(tags)])
"""
LATENCY = """
import csv, json, statistics, sys, time
from pipeline import load_model
model = load_model()
with open(sys.argv[1], encoding="utf-8", newline="") as source:
    texts = [row["synopsis"] for _, row in zip(range(300), csv.DictReader(source))]
medians = []
for evidence in (False, True):
    times = []
    for text in texts[:20] + texts:
        start = time.perf_counter()
        model.suggest(text, evidence=evidence)
        times.append(time.perf_counter() - start)
    medians.append(1000 * statistics.median(times[20:]))
print(json.dumps(medians))
"""


@dataclass(frozen=True)
class Ran:
    """A process that ended: wall seconds, peak resident mebibytes, and what it printed."""

    seconds: float
    mebibytes: float
    out: str


def run(*command: object) -> Ran:
    """Run a command as a process of its own, without a sound.

    The memory is what the process and its children hold together, looked at every 50 ms, or the
    peak that the system has noted of one of them, if that is more.

    Raises:
        ClickException: it failed.
    """
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=out,
            stderr=err,
            env={**os.environ, **threads, "PYTHONPATH": path},
            start_new_session=True,
        )
        peak: list[float] = [0.0]
        watch = threading.Thread(target=_watch, args=(process.pid, peak), daemon=True)
        watch.start()
        process.wait()
        seconds = time.perf_counter() - start
        watch.join()
        out.seek(0)
        err.seek(0)
        if process.returncode:
            last = (err.read().strip().splitlines() or ["no message"])[-1]
            raise click.ClickException(f"{command[:4]} failed: {last}")
        return Ran(seconds, peak[0], out.read())


def _watch(session: int, peak: list[float]) -> None:
    while Path(f"/proc/{session}").exists():
        held, highest = [0.0], [0.0]
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                # After the name in brackets: state, parent, group, session.
                if int(stat.read_text().rpartition(")")[2].split()[3]) != session:
                    continue
                lines = (stat.parent / "status").read_text().splitlines()
            except (OSError, IndexError):
                continue
            noted = {line.split()[0]: line.split()[1:] for line in lines if line.startswith("Vm")}
            if noted:
                held.append(int(noted["VmRSS:"][0]) / 1024)
                highest.append(int(noted["VmHWM:"][0]) / 1024)
        peak[0] = max(peak[0], sum(held), *highest)
        time.sleep(0.05)


def synopses(corpus: Path | None) -> list[tuple[str, str]]:
    """(title, synopsis) rows of the real corpus, else of the starter corpus."""
    if corpus:
        with gzip.open(corpus / "catalogue.jsonl.gz", "rt", encoding="utf-8") as lines:
            return [(r["title"], r["synopsis"]) for r in map(json.loads, lines)]
    with STARTER.open(encoding="utf-8", newline="") as file:
        return [(row["title"], row["synopsis"]) for row in csv.DictReader(file)]


def write_table(path: Path, texts: Sequence[tuple[str, str]], rows: int) -> Path:
    """A CSV of so many rows, the texts repeated."""
    if not path.exists():
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "title", "synopsis"])
            writer.writerows((n, *row) for n, row in enumerate(islice(cycle(texts), rows)))
    return path


def other_formats(table: Path) -> Iterator[tuple[str, Path]]:
    """The same table as gzip, JSON Lines and Parquet."""
    import pyarrow.csv
    import pyarrow.parquet

    packed = Path(f"{table}.gz")
    with table.open("rb") as source, gzip.open(packed, "wb", 1) as target:
        shutil.copyfileobj(source, target)
    yield "csv.gz", packed
    lines = table.with_suffix(".jsonl")
    with table.open(encoding="utf-8", newline="") as source, lines.open("w") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in csv.DictReader(source))
    yield "jsonl", lines
    columns = table.with_suffix(".parquet")
    options = pyarrow.csv.ParseOptions(newlines_in_values=True)
    whole = pyarrow.csv.read_csv(table, parse_options=options)
    pyarrow.parquet.write_table(whole, columns, row_group_size=20_000)
    yield "parquet", columns


def train_fasttext(path: Path) -> Path:
    """A fastText model of as many tags, one-vs-all, pairs of words, from the starter corpus."""
    import fasttext

    with STARTER.open(encoding="utf-8", newline="") as source:
        rows = list(csv.DictReader(source))
    known = sorted({tag for row in rows for tag in row["tags"].split(";") if tag})
    lines = path.with_suffix(".txt")
    with lines.open("w", encoding="utf-8") as file:
        # Each of Forewarn's tags is a label, those that no row has too.
        file.writelines(f"__label__{tag} {tag}\n" for tag in {*known, *load_model().tags})
        for row in rows:
            tags = " ".join(f"__label__{tag}" for tag in row["tags"].split(";") if tag)
            line = " ".join(f"{row['title']} {row['synopsis']}".lower().split())
            file.write(f"{tags or '__label__none'} {line}\n")
    model = fasttext.train_supervised(
        str(lines), loss="ova", epoch=5, wordNgrams=2, dim=100, thread=1, verbose=0
    )
    model.save_model(str(path))
    return path


def contenders(scratch: Path, table: Path) -> dict[str, tuple[object, ...]]:
    """The command of everyone who tags a table, Forewarn in one process first."""
    model = load_model()
    assert isinstance(model, Model)
    export_joblib(model, scratch / "model.joblib")
    np.save(scratch / "cut.npy", model.thresholds.values["balanced"])
    floor = (PYTHON, "-c", FLOOR.replace("SPLIT", SPACES), table)
    words = (PYTHON, "-c", FLOOR.replace("SPLIT", REGEX), table)
    tag = (*FOREWARN, "tag", table, "-q", "-o")
    sklearn = (PYTHON, "-c", SKLEARN, scratch / "model.joblib", scratch / "cut.npy", table)
    found: dict[str, tuple[object, ...]] = {
        "`forewarn tag`, one process": (*tag, scratch / "one.csv"),
        "`forewarn tag --jobs -1`": (*tag, scratch / "all.csv", "--jobs", "-1"),
        "floor: CSV read, split at white space": floor,
        "floor: CSV read, split into words by a regex": words,
        "exported pipeline, ten lines of pandas": (*sklearn, scratch / "peer.csv"),
    }
    if importlib.util.find_spec("fasttext"):
        fast = (PYTHON, "-c", FASTTEXT, train_fasttext(scratch / "fasttext.bin"), table)
        found["fastText, as many tags"] = (*fast, scratch / "ft.csv")
    return found


def differences(one: Path, peer: Path) -> tuple[int, int]:
    """Rows whose tags differ, and rows that both could tag."""
    taxonomy = load_model().taxonomy
    compared = different = 0
    with one.open(encoding="utf-8", newline="") as a, peer.open(encoding="utf-8", newline="") as b:
        for mine, other in zip(csv.DictReader(a), csv.DictReader(b), strict=False):
            if mine["warning_status"] == "ok":
                compared += 1
                found = taxonomy.closure(filter(None, other["warnings"].split(";")))
                different += set(filter(None, mine["warnings"].split(";"))) != found
    return different, compared


def throughput_table(scratch: Path, table: Path, rows: int, runs: int) -> str:
    """Rows a second of every contender, and ratios to Forewarn in one process."""
    everyone = contenders(scratch, table)
    seconds: dict[str, list[float]] = {name: [] for name in everyone}
    for turn in range(runs):
        for name, command in everyone.items():
            seconds[name].append(run(*command).seconds)
            click.echo(f"{turn + 1}/{runs} {name}", err=True)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    first, mine = next(iter(median.items()))
    lines = [
        "| contender | seconds | rows a second | Forewarn in one process is |",
        "| --- | --- | --- | --- |",
    ]
    for name, each in median.items():
        told = f"{each / mine:.2g} times as fast"
        told = told if each >= mine else f"{mine / each:.2g} times as slow"
        told = "-" if name == first else told
        lines.append(f"| {name} | {each:.2f} | {rows / each:,.0f} | {told} |")
    different, compared = differences(scratch / "one.csv", scratch / "peer.csv")
    return "\n".join(lines) + (
        f"\n\n{rows:,} rows; whole processes, with their start. The exported pipeline suggested "
        f"other tags on {different} of {compared:,} rows that both could tag.\n"
    )


def scaling_table(scratch: Path, tables: dict[int, Path], runs: int) -> str:
    """What more cores give, beside what they give to runs that have nothing to do with another."""
    cores = os.cpu_count() or 1
    lines = [
        "| rows | seconds, one process | seconds, `--jobs -1` | times as fast | "
        f"{cores} runs at once: rows a second, times those of one |",
        "| --- | --- | --- | --- | --- |",
    ]
    for rows, table in tables.items():
        tag = (*FOREWARN, "tag", table, "-q", "-o")
        one, all_, apart = [], [], []
        for _ in range(runs):
            one.append(run(*tag, scratch / "one.csv").seconds)
            all_.append(run(*tag, scratch / "all.csv", "--jobs", "-1").seconds)
            with ThreadPoolExecutor(cores) as pool:
                outs = [scratch / f"apart-{core}.csv" for core in range(cores)]
                ran = list(pool.map(lambda out, tag=tag: run(*tag, out), outs))
            apart.append(max(each.seconds for each in ran))
        first, second, third = map(statistics.median, (one, all_, apart))
        lines.append(
            f"| {rows:,} | {first:.1f} | {second:.1f} | {first / second:.2f} | "
            f"{cores * first / third:.2f} |"
        )
        click.echo(lines[-1], err=True)
    return "\n".join(lines) + f"\n\n{cores} cores, medians of {runs} runs.\n"


def startup_table(runs: int) -> str:
    """Whole processes that do little, and Forewarn's ratios to the others."""
    commands: dict[str, tuple[object, ...]] = {
        '`python -c "import numpy"`': (PYTHON, "-c", "import numpy"),
        '`python -c "import sklearn, pandas"`': (PYTHON, "-c", "import sklearn, pandas"),
        "`forewarn predict`": (*FOREWARN, "predict", BLURB),
        "`forewarn predict --no-evidence`": (*FOREWARN, "predict", BLURB, "--no-evidence"),
        "`forewarn --help`": (*FOREWARN, "--help"),
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(2 * runs + 1):
        for name, command in commands.items():
            times[name].append(_bare_seconds(command))
    median = {name: statistics.median(values) for name, values in times.items()}
    numpy, sklearn, predict, *_ = median.values()
    lines = ["| process | milliseconds |", "| --- | --- |"]
    lines += [f"| {name} | {1000 * seconds:.0f} |" for name, seconds in median.items()]
    return "\n".join(lines) + (
        f"\n\n`forewarn predict` takes {predict / numpy:.2f} times as long as importing NumPy "
        f"(goal: 1.5 times and 50 ms, here {1500 * numpy + 50:.0f} ms) and {predict / sklearn:.2f} "
        "times as long as importing scikit-learn and pandas (goal: 0.33).\n"
    )


def _bare_seconds(command: tuple[object, ...]) -> float:
    start = time.perf_counter()
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def latency_lines(table: Path, runs: int) -> str:
    """Milliseconds of `Model.suggest` in a warm process."""
    figures = [json.loads(run(PYTHON, "-c", LATENCY, table).out) for _ in range(runs)]
    without, with_ = np.median(np.array(figures), axis=0)
    return (
        f"`Model.suggest` in a warm process: {without:.2f} ms without evidence (goal: 1), "
        f"{with_:.2f} ms with (goal: 3).\n"
    )


def memory_table(scratch: Path, tables: dict[int, Path]) -> str:
    """Peak memory of `forewarn tag` by rows and format; one run each."""
    lines = ["| rows | format | seconds | peak RSS, MiB |", "| --- | --- | --- | --- |"]
    sizes = sorted(tables)
    jobs = [(rows, "csv", tables[rows]) for rows in sizes]
    jobs += [(n, kind, path) for n in sizes[:2] for kind, path in other_formats(tables[n])]
    for rows, kind, path in jobs:
        out = scratch / f"out.{kind}"
        ran = run(*FOREWARN, "tag", path, "-q", "-o", out)
        out.unlink()
        lines.append(f"| {rows:,} | {kind} | {ran.seconds:.1f} | {ran.mebibytes:.0f} |")
        click.echo(lines[-1], err=True)
    return "\n".join(lines) + "\n"


def training_table(scratch: Path, corpus: Path | None, whole: bool) -> str:
    """Seconds and memory of `forewarn train`; one run each."""
    jobs: list[tuple[str, list[Path], list[object]]] = [("starter corpus", [STARTER], [])]
    if corpus:
        annotated = corpus / "annotated.jsonl.gz"
        data = [STARTER, ROOT / "data" / "rare.csv"]
        for stem in ("contrast", "readings"):
            data += sorted((ROOT / "data").glob(f"{stem}*.csv"))
        jobs.append(("annotated corpus", [annotated], []))
        if whole:
            jobs.append(
                ("everything", [annotated, *data], ["--texts", corpus / "catalogue.jsonl.gz"])
            )
    lines = [
        "| trained on | rows | features | seconds | seconds a 1,000 rows | peak RSS, MiB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, files, options in jobs:
        # Of the largest corpus also parts, for the growth.
        shares = (1.0,) if name != jobs[-1][0] else (0.25, 0.5, 1.0)
        for share in shares:
            parts = [part_of(path, share, scratch) for path in files]
            folder = scratch / "trained"
            ran = run(*FOREWARN, "train", *parts, *options, "-o", folder, "-q")
            model = load_model(folder)
            assert isinstance(model, Model)
            rows, features = model.provenance["rows"], len(model.vocabulary)
            told = name if share == 1 else f"{share:.0%} of it"
            lines.append(
                f"| {told} | {rows:,} | {features:,} | {ran.seconds:.0f} | "
                f"{1000 * ran.seconds / rows:.1f} | {ran.mebibytes:.0f} |"
            )
            click.echo(lines[-1], err=True)
    return "\n".join(lines) + "\n"


def part_of(path: Path, share: float, scratch: Path) -> Path:
    """A share of the rows of a corpus, drawn at random, as a file of its own."""
    draw = random.Random(0)
    part = scratch / path.name
    if path.suffix == ".gz":
        with gzip.open(path, "rt") as source, gzip.open(part, "wt", 1) as target:
            target.writelines(line for line in source if draw.random() < share)
    else:
        with path.open(newline="") as source, part.open("w", newline="") as target:
            header, *rows = csv.reader(source)
            csv.writer(target).writerows([header, *(row for row in rows if draw.random() < share)])
    return part


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Put the tables here.")
@click.option("--rows", default=100_000, show_default=True, help="Rows for the contenders.")
@click.option("--few", default=10_000, show_default=True, help="Fewer, for the memory's growth.")
@click.option("--most", default=1_000_000, show_default=True, help="More, for the growths.")
@click.option("--runs", default=5, show_default=True, help="Runs of which the median is told.")
@click.option(
    "--training",
    type=click.Choice(("none", "annotated", "everything")),
    default="annotated",
    show_default=True,
    help="What to train on, beside the starter corpus; everything takes some minutes more.",
)
def main(output: Path | None, rows: int, few: int, runs: int, most: int, training: str) -> None:
    """Measure speed and memory, and print the tables.

    \b
    Example:
      FOREWARN_CORPUS=../shared/data python benchmarks/speed.py -o docs/benchmarks.md
    """
    corpus = Path(os.environ["FOREWARN_CORPUS"]) if os.environ.get("FOREWARN_CORPUS") else None
    # As pip does when it installs.
    compileall.compile_dir(ROOT / "pipeline", quiet=1)
    texts = synopses(corpus)
    words = statistics.mean(len(text.split()) for _, text in texts)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        growing = {n: scratch / f"{n}.csv" for n in sorted({few, rows, most})}
        for n, path in growing.items():
            write_table(path, texts, n)
        parts = [
            _preface(corpus, len(texts), words, runs),
            "### Throughput\n",
            throughput_table(scratch, growing[rows], rows, runs),
            "### More cores\n",
            scaling_table(scratch, {n: growing[n] for n in (rows, most)}, min(runs, 3)),
            "### Start-up and latency\n",
            startup_table(runs),
            latency_lines(growing[few], runs),
            "### Memory of `forewarn tag`\n",
            memory_table(scratch, growing),
        ]
        if training != "none":
            parts += ["### Training\n", training_table(scratch, corpus, training == "everything")]
    text = "\n".join(parts)
    if output:
        write_section(output, "speed", text)
    click.echo(text)


def _preface(corpus: Path | None, distinct: int, words: float, runs: int) -> str:
    names = ("numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "PyStemmer")
    names += ("fasttext-wheel",) * bool(importlib.util.find_spec("fasttext"))
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    source = "the real corpus" if corpus else "the starter corpus"
    made = datetime.now(UTC).strftime("%Y-%m-%d")
    return (
        f"## Speed\n\nMade by `{' '.join(('python benchmarks/speed.py', *sys.argv[1:]))}`.\n\n"
        f"{distinct:,} synopses of {source}, {words:.0f} words each on average, repeated until "
        f"there were rows enough. Throughput, start-up and latency are medians of {runs} runs or "
        f"more, in which contenders took turns; memory and training are one run each. {made}, "
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{versions}.\n"
    )


if __name__ == "__main__":
    main()

"""Execute the notebooks from top to bottom: to see that they run, or to store their outputs.

python notebooks/execute.py             # runs all four and keeps nothing
python notebooks/execute.py --store     # and stores the outputs, which are to be committed
python notebooks/execute.py 03-errors   # one of them
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).resolve().parent
SECONDS_A_CELL = 900
# Nothing of the machine or the hour: the same run leaves the same file.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(path: Path) -> nbformat.NotebookNode:
    """The notebook with new outputs, run by this Python in the notebooks' folder."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=SECONDS_A_CELL,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    return notebook


def main() -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="notebooks to run; all where none is named")
    parser.add_argument("--store", action="store_true", help="write the outputs into the notebooks")
    asked = parser.parse_args()
    if asked.store and os.environ.get("FOREWARN_CORPUS"):
        parser.error("outputs are stored from what ships alone; unset FOREWARN_CORPUS first")
    if corpus := os.environ.get("FOREWARN_CORPUS"):
        os.environ["FOREWARN_CORPUS"] = str(Path(corpus).resolve())
    known = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
    if strange := [name for name in asked.names if Path(name).stem not in known]:
        parser.error(f"no notebook {strange[0]!r}; there are {', '.join(known)}")
    for name in [Path(name).stem for name in asked.names] or known:
        start = time.perf_counter()
        try:
            notebook = execute(known[name])
        except CellExecutionError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        if asked.store:
            nbformat.write(notebook, known[name])
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

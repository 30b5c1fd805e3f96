"""`python -m pipeline` is the command `forewarn`."""

from pipeline.cli import main

main(prog_name="forewarn")

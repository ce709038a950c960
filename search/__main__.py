"""`python -m spinenas.search` is the command `spinenas`."""

from __future__ import annotations

from spinenas.search.cli.main import main

main(prog_name="spinenas")

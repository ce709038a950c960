"""The command line, with one module per command."""

from spinenas.search.cli.main import main

__all__ = ["main"]

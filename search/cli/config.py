"""`spinenas config`: prints the configuration of a search, every key explained."""

from __future__ import annotations

from typing import Any

import click

from spinenas.search.cli.options import note, overrides_of, search_options, source_argument, with_prior_key


@click.command("config")
@source_argument
@search_options
def config(source: str, **options: Any) -> None:
    """Print the complete configuration of a search.

    It starts nothing. Every key is printed with its meaning, its unit and where its value comes from. The output is a
    configuration file: save it, edit it, and give it to `spinenas search`. For a RUN, the configuration is that of the
    run.
    """
    from spinenas.search.config.commented import commented_toml, sources
    from spinenas.search.config.loading import load_config, read_source, with_one_budget

    text, document = read_source(source)
    overrides = with_prior_key(document, overrides_of(options))
    resolved = load_config(document, overrides).resolved()
    for sentence in resolved.unused():
        note(f"note: {sentence}")
    click.echo("# Start this search with: spinenas search THIS_FILE --out RUN\n")
    document = with_one_budget(document, overrides)
    found = sources(resolved, document, overrides, origin="run" if text is None else "file")
    click.echo(commented_toml(resolved, found), nl=False)

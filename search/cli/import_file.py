"""`spinenas import`: reads an architecture from a file of another program."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from spinenas.results.export.architecture_files import export_description
from spinenas.results.export.description import ExportDescription
from spinenas.results.export.mmdetection import BACKBONE_MODULE
from spinenas.search.cli.architecture_argument import architecture_in
from spinenas.search.cli.options import PATH, force_option, format_options, note, path_option
from spinenas.search.cli.table import print_facts
from spinenas.space.cost import retinanet_cost
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.graph import dead_blocks, network_key
from spinenas.space.published import PUBLISHED
from spinenas.space.scaling import Scaling, usual_scaling


@click.command("import")
@click.argument("file", type=PATH)
@path_option("--out", "Write the architecture to this file as JSON.")
@force_option
@format_options
def import_file(file: Path, out: Path | None, force: bool, format: str | None) -> None:
    """Read an architecture from a file of another program.

    FILE is a file of any format that `export` writes, a weights file, or a table of block specs: a JSON list, or
    Python source such as spinenet.py of tensorflow/tpu, tensorflow/models or a PyTorch port. Nothing in it is
    executed. The command prints what the architecture is; `spinenas show` prints its blocks.
    """
    if force and out is None:
        raise click.UsageError("--force replaces the file of --out; give both")
    if file.is_dir() and not (file / f"{BACKBONE_MODULE}.py").exists():
        raise UserError(
            f"{file} is a folder without {BACKBONE_MODULE}.py, which an export of the format mmdet has; name a file"
        )
    found = architecture_in(file)
    genotype, scaling = found.genotype, found.scaling
    if out is not None:
        export_description(found.described(scaling, found.options, "none"), out, format="json", force=force)
        note(f"wrote {file} to {out}")
    rows = facts(genotype, scaling if found.names_scaling else None)
    print_facts(rows | description_facts(found.description), format)


def description_facts(description: ExportDescription | None) -> dict[str, str]:
    """Return what `import` prints about the metadata of an export."""
    if description is None:
        return {}
    options = description.options
    return {
        "source": description.source,
        "activation": options.activation if options else "unknown",
        "dialect": options.dialect if options else "unknown",
        "weights": description.weights,
        "exported by": f"spinenas {description.version}",
    }


def facts(genotype: Genotype, scaling: Scaling | None) -> dict[str, str]:
    """Return what `import` prints about a genotype, and about its scaling if the file names one."""
    built = scaling or usual_scaling(genotype)
    cost = retinanet_cost(genotype, built, 640)
    outputs = sorted(block.level for block in genotype.blocks if block.is_output)
    return {
        "published": published_as(genotype, scaling),
        "key": genotype.key,
        "network key": network_key(genotype),
        "blocks": f"{len(genotype.blocks)} on a stem of {len(genotype.stem)}",
        "dead blocks": " ".join(map(str, dead_blocks(genotype))) or "none",
        "output levels": " ".join(map(str, outputs)),
        "scaling": scaling.name if scaling else f"not named, assumed to be {built.name}",
        "parameters": f"{cost.params:,} (RetinaNet with 91 class channels)",
        "multiply-adds": f"{cost.madds:,} (this RetinaNet on an image of 640 px)",
        "genotype": genotype.text,
    }


def published_as(genotype: Genotype, scaling: Scaling | None) -> str:
    """Return the published models that have this network, preferably at this scaling.

    An output of level 2 in the last row is ignored: tensorflow/models has it for other detectors than RetinaNet.
    """
    last, note = genotype.blocks[-1], ""
    if last.is_output and last.level < 3 and any(block.is_output for block in genotype.blocks[:-1]):
        genotype, note = replace(genotype, blocks=genotype.blocks[:-1]), f", beside an output of level {last.level}"
    same = [
        model
        for model in PUBLISHED.values()
        if isinstance(model.architecture, Genotype) and network_key(model.architecture) == network_key(genotype)
    ]
    exactly = [model.name for model in same if model.scaling == scaling]
    if exactly:
        return " and ".join(exactly) + note
    if same:
        return f"the blocks of {', '.join(model.name for model in same)}{note}"
    return "no"

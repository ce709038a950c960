from __future__ import annotations

import json
import os

import numpy as np
import pytest

from spinenas.results.export.architecture_files import FORMATS, export_genotype, read_architecture, read_genotype
from spinenas.space.errors import UserError
from spinenas.space.genotype import BlockSpec, Genotype, StemBlock
from spinenas.space.published import PUBLISHED, SPINENET_49
from spinenas.space.scaling import SCALINGS, Scaling
from spinenas.space.search_space import SearchSpace


@pytest.mark.parametrize("format", FORMATS)
def test_random_genotypes_come_back_from_every_format(tmp_path, format):
    rng = np.random.default_rng(0)
    path = tmp_path / "genotype.json"
    for space in (SearchSpace.spinenet49(), SearchSpace.r0_sp53(), SearchSpace.tiny()):
        for _ in range(50):
            genotype = space.sample(rng)
            export_genotype(genotype, path, format=format, scaling=SCALINGS["49"], force=True)
            assert read_genotype(path) == genotype


@pytest.mark.parametrize("format", FORMATS)
def test_all_published_models_come_back_from_every_format(tmp_path, format):
    models = [model for model in PUBLISHED.values() if isinstance(model.architecture, Genotype)]
    assert len(models) >= 13
    for model in models:
        path = tmp_path / f"{model.name}.json"
        export_genotype(model.genotype, path, format=format, scaling=model.scaling)
        assert read_architecture(path) == (model.genotype, model.scaling)


@pytest.mark.parametrize("format", FORMATS)
def test_another_stem_and_single_parents_come_back(tmp_path, format):
    genotype = Genotype(
        stem=(StemBlock(1, "mbconv"), StemBlock(2, "mbconv")),
        blocks=(BlockSpec(3, "mbconv", (1,)), BlockSpec(4, "mbconv", (0, 2), is_output=True)),
    )
    export_genotype(genotype, tmp_path / "a.json", format=format, scaling=SCALINGS["49"])
    assert read_genotype(tmp_path / "a.json") == genotype


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("scaling", [SCALINGS["143L"], Scaling("my own", 0.125, 24, 1.0, 2)])
def test_the_scaling_comes_back_from_every_format(tmp_path, format, scaling):
    export_genotype(SPINENET_49, tmp_path / "a.json", format=format, scaling=scaling)
    assert read_architecture(tmp_path / "a.json") == (SPINENET_49, scaling)


def test_a_file_need_not_name_a_scaling(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(SPINENET_49.to_json()))
    assert read_architecture(tmp_path / "a.json") == (SPINENET_49, None)


def test_block_specs_are_the_rows_of_the_published_code(tmp_path):
    path = tmp_path / "specs.json"
    export_genotype(SPINENET_49, path, format="block-specs", scaling=SCALINGS["143L"])
    document = json.loads(path.read_text())
    assert document["block_specs"][0] == [2, "bottleneck", [0, 1], False]
    assert document["block_specs"][-1] == [6, "bottleneck", [12, 14], True]
    assert len(document["block_specs"]) == 15
    assert document["stem"] == [[2, "bottleneck"], [2, "bottleneck"]]
    assert document["scaling"] == {
        "name": "143L",
        "endpoints_num_filters": 256,
        "filter_size_scale": 1.3,
        "resample_alpha": 1.0,
        "block_repeats": 3,
    }


def test_parents_may_be_in_any_order(tmp_path):
    path = tmp_path / "specs.json"
    for format, key in (("block-specs", "block_specs"), ("json", "blocks")):
        export_genotype(SPINENET_49, path, format=format, scaling=SCALINGS["49"], force=True)
        document = json.loads(path.read_text())
        for row in document[key]:
            (row[2] if isinstance(row, list) else row["parents"]).reverse()
        path.write_text(json.dumps(document))
        assert read_genotype(path) == SPINENET_49


def test_an_existing_file_is_kept_unless_forced(tmp_path):
    path = tmp_path / "genotype.json"
    path.write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        export_genotype(SPINENET_49, path, format="json", scaling=SCALINGS["49"])
    assert path.read_text() == "mine"
    export_genotype(SPINENET_49, path, format="json", scaling=SCALINGS["49"], force=True)
    assert read_genotype(path) == SPINENET_49
    assert os.listdir(tmp_path) == ["genotype.json"]


def test_an_unknown_format_and_an_unwritable_place_are_named(tmp_path):
    with pytest.raises(UserError, match="'blockspecs' is unknown; did you mean 'block-specs'"):
        export_genotype(SPINENET_49, tmp_path / "a", format="blockspecs", scaling=SCALINGS["49"])
    with pytest.raises(UserError, match="no does not exist; create it first"):
        export_genotype(SPINENET_49, tmp_path / "no" / "a", format="json", scaling=SCALINGS["49"])


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"9" * 10_000, b"null", b"[]", b"{}", b"NaN"]
)
def test_a_file_without_a_genotype_is_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / "genotype.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"genotype\.json(: | is not JSON)"):
        read_genotype(path)


def test_weights_without_their_ending_are_refused_with_the_formats_and_the_ending(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(UserError, match=r"name a file of the format json or block-specs .* ends in \.safetensors"):
        read_genotype(path)


def test_a_missing_file_or_a_folder_is_refused(tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(UserError, match="cannot read the genotype"):
            read_genotype(path)


def change(document, *path, value):
    for step in path[:-1]:
        document = document[step]
    document[path[-1]] = value


@pytest.mark.parametrize(
    ("format", "path", "value", "message"),
    [
        ("json", ("schema",), "spinenas-genotype/9", "schema is 'spinenas-genotype/9'; known are"),
        ("json", ("block",), [], "unknown field 'block'; did you mean 'blocks'"),
        ("json", ("blocks",), None, "needs the lists stem and blocks"),
        ("json", ("blocks", 3, "is_ouput"), True, "block 5 has the unknown field 'is_ouput'; did you mean 'is_output'"),
        ("json", ("blocks", 3), 5, "block 5 is 5"),
        ("json", ("blocks", 3, "level"), "4", "block 5 has level '4'"),
        ("json", ("blocks", 3, "parents"), [2, 2], "block 5 has parents"),
        ("json", ("blocks", 3, "parents"), [2, "4"], "block 5 has parents"),
        ("block-specs", ("stem",), None, "need the lists stem and block_specs"),
        ("block-specs", ("stem", 1), [2], "stem block 1 is"),
        ("block-specs", ("block_specs", 3), [4, "bottleneck", [2, 4]], "block 5 is"),
        ("block-specs", ("block_specs", 3, 1), "botleneck", "block 5 has kind 'botleneck'"),
        ("block-specs", ("block_specs", 3, 2), [2, 5], "block 5 has parent 5"),
        ("block-specs", ("block_specs", 3, 3), 1, "block 5 has is_output 1"),
        ("json", ("scaling",), "49", "scaling is '49'; it must be an object with the fields name, "),
        ("json", ("scaling", "filter_scale"), True, "scaling has filter_scale True; it must be of type float"),
        ("json", ("scaling", "block_repeats"), 1.5, "scaling has block_repeats 1.5; it must be of type int"),
        ("json", ("scaling",), {"name": "49"}, "scaling has no field endpoint_channels"),
        ("json", ("scaling", "filter_scale"), -1, "filter_scale -1"),
        ("block-specs", ("scaling", "filter_scale"), 1.0, "scaling has the unknown field 'filter_scale'"),
        ("block-specs", ("extra",), 1, "unknown field 'extra'"),
    ],
)
def test_a_damaged_export_names_file_block_and_rule(tmp_path, format, path, value, message):
    file = tmp_path / "genotype.json"
    export_genotype(SPINENET_49, file, format=format, scaling=SCALINGS["49"])
    document = json.loads(file.read_text())
    change(document, *path, value=value)
    file.write_text(json.dumps(document))
    with pytest.raises(UserError, match=message) as caught:
        read_genotype(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)

"""Released weights: their names, and loading all of them or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import oracle_weights
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from shared_fixtures import shared_folder
from tf_checkpoint_writer import write_checkpoint

from spinenas.proxy_task.detector.retinanet import RetinaNet, build_retinanet
from spinenas.proxy_task.weights.weights_file import load_detector
from spinenas.search.cli.main import main
from spinenas.space.baseline import Baseline
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.graph import dead_blocks
from spinenas.space.head import HeadConfig
from spinenas.space.network import build_backbone, num_parameters
from spinenas.space.published import MOBILE_49, SPINENET_49
from spinenas.space.scaling import SCALINGS, Scaling
from spinenas.space.tensorflow.checkpoint import read_checkpoint
from spinenas.space.tensorflow.weights import canonical_slots, load_variables, tensorflow_tpu_name

Variables = dict[str, NDArray[Any]]

TINY = Scaling("test", 0.0625, 8, 0.5, 2)
SMALL_HEAD = HeadConfig(num_convs=1, channels=4, num_scales=1)


def tiny_detector(genotype: Genotype = SPINENET_49) -> RetinaNet:
    return build_retinanet(genotype, TINY, SMALL_HEAD, class_channels=3)


def random_variables(network: torch.nn.Module, seed: int = 0) -> Variables:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(slot.shape).astype(np.float32) for name, slot in canonical_slots(network).items()}


def released_names(variables: Variables, genotype: Genotype, scaling: Scaling) -> Variables:
    return {tensorflow_tpu_name(name, genotype, scaling): array for name, array in variables.items()}


@pytest.mark.parametrize(
    ("key", "genotype", "scaling"),
    [("49", SPINENET_49, "49"), ("49S", SPINENET_49, "49S-code"), ("mobile49", MOBILE_49, "mobile-49")],
)
def test_names_are_those_of_the_released_checkpoints(key: str, genotype: Genotype, scaling: str) -> None:
    table = json.loads((shared_folder("oracle") / "checkpoint_names_tf1.json").read_text(encoding="utf-8"))
    slots = canonical_slots(build_backbone(genotype, SCALINGS[scaling]).to("meta"))
    ours = [
        [name, tensorflow_tpu_name(name, genotype, SCALINGS[scaling]), list(slot.shape)] for name, slot in slots.items()
    ]
    assert sorted(ours) == sorted(table["backbone"][key])


def test_names_of_the_head_are_those_of_the_released_checkpoints() -> None:
    table = json.loads((shared_folder("oracle") / "checkpoint_names_tf1.json").read_text(encoding="utf-8"))
    network = build_retinanet(SPINENET_49, TINY, HeadConfig(channels=8), class_channels=3)
    heads = [name for name in canonical_slots(network) if name.startswith("head.")]
    assert sorted([name, tensorflow_tpu_name(name, SPINENET_49, TINY)] for name in heads) == sorted(table["head"])


def test_layers_of_repeated_blocks_are_numbered_on() -> None:
    """A scope's layers count through its repeats; the endpoints come after 2 + 6 repeats convolutions."""
    assert tensorflow_tpu_name("end3.conv.kernel", SPINENET_49, SCALINGS["96"]) == "spinenet/conv2d_14/kernel"
    name = tensorflow_tpu_name("node03.rep1.bn2.gamma", SPINENET_49, SCALINGS["96"])
    assert name == "spinenet/sub_policy1/scale_permuted_block_3/batch_normalization_3/gamma"


@pytest.mark.parametrize("names", ["canonical", "tensorflow/tpu"])
def test_every_variable_is_loaded_into_the_module_of_its_name(names: str) -> None:
    network = tiny_detector()
    variables = random_variables(network)
    load_variables(
        network, variables if names == "canonical" else released_names(variables, SPINENET_49, TINY), names=names
    )
    state = network.state_dict()
    for name, slot in canonical_slots(network).items():
        ours = state[slot.key].numpy()
        theirs = variables[name]
        if name.endswith("depthwise_kernel"):
            theirs = np.moveaxis(theirs, (2, 3), (0, 1))
        elif theirs.ndim == 4:
            theirs = np.transpose(theirs, (3, 2, 0, 1))
        np.testing.assert_array_equal(ours, theirs)


def damaged(variables: Variables, how: str) -> Variables:
    name = "node05.in0.reduce.conv.kernel"
    if how == "missing":
        return {key: value for key, value in variables.items() if key != name}
    if how == "extra":
        return variables | {"node99.conv.kernel": np.zeros(1, np.float32)}
    return variables | {name: variables[name][..., :1]}


def assert_loaded(network: torch.nn.Module, variables: Variables) -> None:
    """Compare all weights of a network with variables of canonical names."""
    state = network.state_dict()
    for name, slot in canonical_slots(network).items():
        np.testing.assert_array_equal(state[slot.key].numpy(), variables[name].transpose(slot.axes), err_msg=name)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("missing", "missing: node05.in0.reduce.conv.kernel"),
        ("extra", "not part of this network: node99.conv.kernel"),
        ("shape", r"of another shape: node05.in0.reduce.conv.kernel is \[1, 1, 16, 1\] instead of \[1, 1, 16, 2\]"),
    ],
)
def test_variables_that_do_not_fit_are_named_and_nothing_is_loaded(how: str, sentence: str) -> None:
    network = tiny_detector()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(UserError, match=f"nothing was loaded.*{sentence}"):
        load_variables(network, damaged(random_variables(network), how))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_optimiser_slots_and_the_step_are_skipped() -> None:
    network = tiny_detector()
    variables = random_variables(network)
    released = released_names(variables, SPINENET_49, TINY)
    slots = {f"{name}/Momentum": np.zeros_like(array) for name, array in released.items()}
    load_variables(network, released | slots | {"global_step": np.array(7)}, names="tensorflow/tpu")
    assert_loaded(network, variables)


@pytest.mark.parametrize("names", ["canonical", "tensorflow/tpu"])
def test_variables_of_blocks_that_reach_no_output_are_skipped(names: str) -> None:
    genotype = Genotype.from_text("2b 2b / 7r0,1 4b0,1 4b0,3!")
    assert dead_blocks(genotype) == (2,)
    network = build_backbone(genotype, TINY)
    variables = random_variables(network)
    dead = "node02.rep0.conv1.kernel"
    if names != "canonical":
        variables = released_names(variables, genotype, TINY)
        dead = tensorflow_tpu_name(dead, genotype, TINY)
    load_variables(network, variables | {dead: np.zeros((3, 3, 16, 16), np.float32)}, names=names)
    # A block that there is not at all.
    nowhere = dead.replace("node02", "node09").replace("sub_policy0", "sub_policy7")
    with pytest.raises(UserError, match="not part of this network"):
        load_variables(network, variables | {nowhere: np.zeros(1, np.float32)}, names=names)


def test_a_backbone_alone_takes_the_backbone_of_a_detector() -> None:
    variables = random_variables(tiny_detector())
    for names, given in (
        ("canonical", variables),
        ("tensorflow/tpu", released_names(variables, SPINENET_49, TINY)),
    ):
        backbone = build_backbone(SPINENET_49, TINY)
        load_variables(backbone, given, names=names)
        assert_loaded(backbone, variables)


def test_a_baseline_is_loaded_by_canonical_names_alone() -> None:
    network = build_backbone(Baseline(50), TINY)
    load_variables(network, random_variables(network))
    with pytest.raises(UserError, match="names of tensorflow/tpu are known for SpineNets alone"):
        load_variables(network, random_variables(network), names="tensorflow/tpu")
    with pytest.raises(UserError, match="names is 'keras'; known are canonical, tensorflow/tpu"):
        load_variables(network, {}, names="keras")


def test_a_projection_is_numbered_only_where_there_is_one() -> None:
    """At a quarter of the width the first stem block has 64 channels at both ends."""
    quarter = Scaling("quarter", 0.25, 8, 0.5, 1)
    assert tensorflow_tpu_name("node00.rep0.conv1.kernel", SPINENET_49, SCALINGS["49"]) == "spinenet/conv2d_2/kernel"
    assert tensorflow_tpu_name("node00.rep0.conv1.kernel", SPINENET_49, quarter) == "spinenet/conv2d_1/kernel"
    network = build_backbone(SPINENET_49, quarter)
    load_variables(network, released_names(random_variables(network), SPINENET_49, quarter), names="tensorflow/tpu")


@pytest.mark.parametrize("names", ["canonical", "tensorflow/tpu"])
def test_an_unused_stem_block_is_skipped(names: str) -> None:
    whole, without = (Genotype.from_text(f"2b 2b / 4b{parents}!") for parents in ("0,1", "0"))
    network = build_backbone(without, TINY)
    variables = random_variables(network)
    unused = {
        name: array
        for name, array in random_variables(build_backbone(whole, TINY)).items()
        if name.startswith("node01.")
    }
    assert unused
    assert not unused.keys() & variables.keys()
    variables |= unused
    load_variables(network, variables if names == "canonical" else released_names(variables, whole, TINY), names=names)


def released_49s() -> Variables:
    """Variables with the names and shapes of the released SpineNet-49S, made from formulas.

    The table has the names of the code's 49S, whose endpoints have 128 channels; the released ones have 256.
    """
    table = json.loads((shared_folder("oracle") / "checkpoint_names_tf1.json").read_text(encoding="utf-8"))
    detector = build_retinanet(SPINENET_49, SCALINGS["49S"], HeadConfig(channels=128), class_channels=91)
    assert num_parameters(detector) == 11_944_598
    named = {}
    for canonical, released, shape in table["backbone"]["49S"]:
        if canonical.startswith("end"):
            shape = [*shape[:-1], 256]
        named[released] = oracle_weights.variable(canonical, tuple(shape)).astype(np.float32)
    shapes = {name: slot.shape for name, slot in canonical_slots(detector).items()}
    for canonical, released in table["head"]:
        named[released] = oracle_weights.variable(canonical, shapes[canonical]).astype(np.float32)
    assert len(named) == len(shapes) == 830
    momentum = {f"{name}/Momentum": np.zeros(array.shape, np.float32) for name, array in named.items()}
    return named | momentum | {"global_step": np.array(231_500, np.int64)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint like the released one of SpineNet-49S, in two shards."""
    prefix = tmp_path_factory.mktemp("released") / "model.ckpt"
    write_checkpoint(prefix, released_49s(), num_shards=2)
    return prefix


def spinenas(*words: object) -> Any:
    return CliRunner().invoke(main, [str(word) for word in words], prog_name="spinenas")


def test_a_released_checkpoint_is_read_bit_for_bit_and_converted(checkpoint: Path, tmp_path: Path) -> None:
    expected = released_49s()
    for name, array in read_checkpoint(checkpoint).items():
        np.testing.assert_array_equal(array, expected.pop(name))
    assert not expected
    out = tmp_path / "49s.safetensors"
    result = spinenas("convert", checkpoint, "--model", "spinenet-49s", "--activation", "swish", "--out", out)
    assert result.exit_code == 0, result.output
    network, spec = load_detector(out)
    assert (spec.name, spec.activation, spec.dialect) == ("spinenet-49s", "swish", "tensorflow/tpu")
    assert (spec.head.channels, len(spec.category_ids), spec.plus_one_decoding) == (128, 90, True)
    reference = build_retinanet(
        SPINENET_49, SCALINGS["49S"], HeadConfig(channels=128), class_channels=91, activation="swish"
    )
    oracle_weights.fill_from_formulas(reference)
    images = oracle_weights.image_of(1, 128, 128)
    with torch.no_grad():
        for ours, theirs in zip(network(images), reference.eval()(images), strict=True):
            assert torch.equal(ours, theirs)
    # Nothing is overwritten unasked.
    again = spinenas("convert", checkpoint, "--model", "spinenet-49s", "--activation", "swish", "--out", out)
    assert (again.exit_code, "exists already" in again.stderr) == (1, True)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("spinenet-49s-code", "is not a checkpoint of spinenet-49s-code: these weights are not of this network"),
        ("spinenet-49x", "no published model is called 'spinenet-49x'; did you mean"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(checkpoint: Path, tmp_path: Path, model: str, sentence: str) -> None:
    out = tmp_path / "out.safetensors"
    result = spinenas("convert", checkpoint, "--model", model, "--activation", "relu", "--out", out)
    assert (result.exit_code, out.exists()) == (1, False)
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("damage", ["byte", "shard", "variable"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    variables = released_names(random_variables(tiny_detector()), SPINENET_49, TINY)
    dropped = "spinenet/sub_policy3/resample_with_alpha_resample_3_0/conv2d/kernel"
    if damage == "variable":
        del variables[dropped]
    write_checkpoint(tmp_path / "model.ckpt", variables, num_shards=2)
    shard = tmp_path / "model.ckpt.data-00001-of-00002"
    if damage == "byte":
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
    elif damage == "shard":
        shard.unlink()
    network = tiny_detector()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(UserError) as error:
        load_variables(network, read_checkpoint(tmp_path / "model.ckpt"), names="tensorflow/tpu")
    assert {"byte": "retinanet/" in str(error.value) or "spinenet/" in str(error.value)}.get(damage, True)
    assert (shard.name if damage == "shard" else dropped if damage == "variable" else "") in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())

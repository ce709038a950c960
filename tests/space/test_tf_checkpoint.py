"""Reading checkpoints: TensorFlow's own, those of an independent writer, and everything that is wrong with a file."""

from __future__ import annotations

import os
import shutil
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from shared_fixtures import REPOSITORY
from tf_checkpoint_writer import (
    BLOCK_BYTES,
    RESTART_INTERVAL,
    TYPE_NUMBERS,
    append_block,
    block,
    entry,
    field,
    header,
    masked_crc,
    table,
    varint,
    write_checkpoint,
)

from spinenas.space.errors import UserError
from spinenas.space.tensorflow.checkpoint import read_checkpoint

TENSORFLOWS = REPOSITORY / "tests" / "golden" / "tensorflow_checkpoint"
"""Written by TensorFlow, with the script that is in it."""

SMALL = {"b/bias": np.arange(3, dtype=np.float32), "b/kernel": np.ones((2, 3)), "step": np.array(7)}


def assert_same(read: dict[str, NDArray[Any]], written: dict[str, NDArray[Any]]) -> None:
    assert list(read) == sorted(written)
    for name, array in read.items():
        assert (array.dtype, array.shape) == (written[name].dtype, written[name].shape), name
        assert array.tobytes() == written[name].tobytes(), name
        assert array.flags.writeable, name


def refused(path: Path) -> str:
    """The one sentence that a path is refused with."""
    with pytest.raises(UserError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def many_variables() -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    found = {}
    for number in range(300):
        shape = tuple(rng.integers(0, 5, size=rng.integers(0, 5)))
        dtype = list(TYPE_NUMBERS)[number % len(TYPE_NUMBERS)]
        bits = rng.integers(0, 256, size=(*shape, np.dtype(dtype).itemsize), dtype=np.uint8)
        numbers = bits[..., 0] > 99 if dtype == "bool" else bits.view(dtype)[..., 0]
        found[f"net_{number % 7}/conv_{number}/kernel"] = np.array(numbers)
    return found


@pytest.mark.parametrize("num_shards", [1, 3])
def test_every_bit_of_every_format_comes_back(tmp_path, num_shards):
    variables = many_variables()
    write_checkpoint(tmp_path / "model.ckpt", variables, num_shards=num_shards)
    assert (tmp_path / "model.ckpt.index").stat().st_size > 5 * BLOCK_BYTES
    assert sum(array.size == 0 for array in variables.values()) > 10
    assert sum(array.shape == () for array in variables.values()) > 10
    assert_same(read_checkpoint(tmp_path / "model.ckpt"), variables)


def test_special_numbers_come_back(tmp_path):
    variables = {"x": np.array([np.nan, -0.0, np.inf, 1e-45], np.float32), "y": np.array([-(2**63), 2**63 - 1])}
    write_checkpoint(tmp_path / "a", variables)
    assert_same(read_checkpoint(tmp_path / "a"), variables)


def test_blocks_with_many_restarts_are_read(tmp_path):
    variables = {f"{number:05d}": np.array(number) for number in range(10 * RESTART_INTERVAL)}
    write_checkpoint(tmp_path / "a", variables)
    assert_same(read_checkpoint(tmp_path / "a"), variables)


def test_a_checkpoint_without_variables_is_read(tmp_path):
    write_checkpoint(tmp_path / "a", {})
    assert read_checkpoint(tmp_path / "a") == {}


def golden_values(name: str, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """What the script beside the golden checkpoint says is in it; exact in every one of these formats."""
    numbers = [zlib.crc32(name.encode()) % 100 + index for index in range(int(np.prod(shape)))]
    if dtype == "bool":
        numbers = [number % 2 for number in numbers]
    elif "float" in dtype:
        numbers = [number / 8 for number in numbers]
    return np.array(numbers, dtype).reshape(shape)


def test_what_tensorflow_wrote_is_read():
    written = {
        name: golden_values(name, dtype, shape)
        for name, dtype, shape in [
            ("spinenet/conv2d/kernel", "float32", (3, 3, 2, 4)),
            ("spinenet/conv2d/kernel/Momentum", "float32", (3, 3, 2, 4)),
            ("spinenet/batch_normalization/gamma", "float32", (4,)),
            ("spinenet/batch_normalization/moving_variance", "float64", (4,)),
            ("spinenet/half", "float16", (2, 5)),
            # bfloat16 in the file.
            ("spinenet/bfloat", "float32", (2, 5)),
            ("spinenet/empty", "float32", (0, 3)),
            ("class_net/counts", "int32", (7,)),
            ("class_net/mask", "bool", (2, 3)),
            ("class_net/bytes", "uint8", (5,)),
            ("global_step", "int64", ()),
        ]
    }
    assert len(list(TENSORFLOWS.glob("model.ckpt.data-*-of-00002"))) == 2
    assert_same(read_checkpoint(TENSORFLOWS, wanted=lambda name: not name.endswith("sliced")), written)


def test_a_variable_in_slices_is_refused_by_name():
    assert "variable 'class_net/sliced' is stored in slices" in refused(TENSORFLOWS)


@pytest.mark.parametrize("name", ["model.ckpt", "model.ckpt.index", ""])
def test_prefix_index_and_folder_are_accepted(tmp_path, name):
    write_checkpoint(tmp_path / "model.ckpt", SMALL)
    assert_same(read_checkpoint(tmp_path / name), SMALL)


def test_a_relative_path_is_accepted(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "model.ckpt", SMALL)
    monkeypatch.chdir(tmp_path)
    for path in (Path("model.ckpt"), Path("model.ckpt.index"), Path()):
        assert_same(read_checkpoint(path), SMALL)


@pytest.mark.parametrize("named", ["model.ckpt-2", "/another/machine/model.ckpt-2", r"model\056ckpt-2"])
def test_of_several_the_file_checkpoint_decides(tmp_path, named):
    for step in (1, 2):
        write_checkpoint(tmp_path / f"model.ckpt-{step}", {"step": np.array(step)})
    (tmp_path / "checkpoint").write_text(
        f'model_checkpoint_path: "{named}"\nall_model_checkpoint_paths: "model.ckpt-1"\nlast_preserved_timestamp: 1.5\n'
    )
    assert read_checkpoint(tmp_path)["step"] == 2


def test_the_file_checkpoint_that_tensorflow_wrote_is_read(tmp_path):
    shutil.copytree(TENSORFLOWS, tmp_path, dirs_exist_ok=True)
    write_checkpoint(tmp_path / "other", SMALL)
    assert "global_step" in read_checkpoint(tmp_path, wanted=lambda name: name == "global_step")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"has 2 files \*\.index and no file checkpoint"),
        (b"", "checkpoint has no line model_checkpoint_path"),
        (b'model_checkpoint_path: "/"', "checkpoint has no line model_checkpoint_path"),
        (b'model_checkpoint_path: "c"', r"there is no file .*c\.index"),
        (b'model_checkpoint_path: "\\000"', "there is no file"),
        (b'model_checkpoint_path: "..', "checkpoint is not what TensorFlow writes"),
        (b"model_checkpoint_path: 5", "checkpoint is not what TensorFlow writes"),
        (b'model_checkpoint_path: "\\377"', "checkpoint is not what TensorFlow writes"),
        (b"\xff\xfe", "checkpoint is not what TensorFlow writes"),
        (b"a{" * 100_000, "checkpoint is not what TensorFlow writes"),
    ],
)
def test_several_without_a_usable_file_checkpoint_are_refused(tmp_path, content, message):
    write_checkpoint(tmp_path / "a", SMALL)
    write_checkpoint(tmp_path / "b", SMALL)
    if content is not None:
        (tmp_path / "checkpoint").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["", "missing", "missing.index", "a.data-00000-of-00001", "\0", "x" * 5000, "no/.."])
def test_a_path_that_is_no_checkpoint_is_refused(tmp_path, name):
    (tmp_path / "a.data-00000-of-00001").write_bytes(b"")
    assert "name " in refused(tmp_path / name)


def test_a_folder_or_a_pipe_is_no_file(tmp_path):
    (tmp_path / "a.index").mkdir()
    os.mkfifo(tmp_path / "b.index")
    for name in ("a", "b"):
        assert "is no TensorFlow checkpoint" in refused(tmp_path / name)
    write_checkpoint(tmp_path / "c", SMALL)
    (tmp_path / "c.data-00000-of-00001").unlink()
    (tmp_path / "c.data-00000-of-00001").mkdir()
    assert "there is no file" in refused(tmp_path / "c")


def test_only_what_is_wanted_is_read(tmp_path):
    variables = {name: np.array(number) for number, name in enumerate("abcd")}
    write_checkpoint(tmp_path / "m", variables, num_shards=2)
    (tmp_path / "m.data-00001-of-00002").unlink()
    shard = tmp_path / "m.data-00000-of-00002"
    shard.write_bytes(shard.read_bytes()[:8])
    asked = []
    assert read_checkpoint(tmp_path / "m", wanted=lambda name: asked.append(name) or name == "a") == {"a": 0}
    assert asked == ["a", "b", "c", "d"]


def test_what_is_not_wanted_is_skipped(tmp_path):
    variables = many_variables()
    write_checkpoint(tmp_path / "m", variables, num_shards=2)
    some = dict(list(variables.items())[1::3])
    assert_same(read_checkpoint(tmp_path / "m", wanted=some.__contains__), some)


def test_a_missing_shard_is_named(tmp_path):
    write_checkpoint(tmp_path / "m", SMALL, num_shards=3)
    (tmp_path / "m.data-00001-of-00003").unlink()
    assert f"there is no file {tmp_path / 'm.data-00001-of-00003'}; fetch all" in refused(tmp_path / "m")


def test_every_changed_byte_of_the_index_is_noticed(tmp_path):
    write_checkpoint(tmp_path / "m", SMALL)
    index = tmp_path / "m.index"
    content = index.read_bytes()
    for place in range(len(content)):
        for change in (0x01, 0x10, 0x80, 0xFF):
            damaged = bytearray(content)
            damaged[place] ^= change
            index.write_bytes(damaged)
            assert str(index) in refused(tmp_path / "m"), (place, change)


def test_every_changed_byte_of_the_data_is_noticed(tmp_path):
    write_checkpoint(tmp_path / "m", SMALL)
    shard = tmp_path / "m.data-00000-of-00001"
    content = shard.read_bytes()
    ends = np.cumsum([array.nbytes for array in SMALL.values()])
    assert ends[-1] == len(content)
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        shard.write_bytes(damaged)
        name = list(SMALL)[np.searchsorted(ends, place, side="right")]
        assert refused(tmp_path / "m").startswith(f"{shard}: the checksum of variable {name!r} is wrong"), place


def test_every_truncation_is_noticed(tmp_path):
    write_checkpoint(tmp_path / "m", SMALL)
    for name in ("m.index", "m.data-00000-of-00001"):
        content = (tmp_path / name).read_bytes()
        for length in range(len(content)):
            (tmp_path / name).write_bytes(content[:length])
            assert str(tmp_path / name) in refused(tmp_path / "m"), (name, length)
        (tmp_path / name).write_bytes(content)
    assert_same(read_checkpoint(tmp_path / "m"), SMALL)


FLOAT, STRING = 1, 7
HEADER = (b"", header(1))
DATA = bytes(16)


def float_entry(*shape: int, shard: int = 0, offset: int = 0, size: int = 16, more: bytes = b"") -> bytes:
    crc = masked_crc(DATA if size else b"")
    return entry(FLOAT, shape, shard=shard, offset=offset, size=size, crc=crc, more=more)


def test_the_entry_that_the_next_test_damages_is_good(tmp_path):
    (tmp_path / "m.index").write_bytes(table([HEADER, (b"v", float_entry(4))]))
    (tmp_path / "m.data-00000-of-00001").write_bytes(DATA)
    assert_same(read_checkpoint(tmp_path / "m"), {"v": np.zeros(4, np.float32)})


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "it has no header; name"),
        ([(b"v", float_entry(4))], "it has no header; name"),
        ([(b"", b"\xff")], "the header cannot be parsed"),
        ([(b"", header(0))], "the header claims 0 shards"),
        ([(b"", header(-1))], "the header claims -1 shards"),
        ([(b"", header(1, endianness=1))], "big-endian, only little-endian ones are read"),
        ([(b"", header(1, min_consumer=2))], "only version 1 of the format is read"),
        ([(b"", field(1, 1) + field(3, field(3, 1)))], "only version 1 of the format is read"),
        ([HEADER, (b"v", b"\xff")], "the entry of variable 'v' cannot be parsed"),
        ([HEADER, (b"v", b"")], "variable 'v' is of TensorFlow's type number 0, which is not read; leave it out"),
        ([HEADER, (b"v", field(1, STRING))], "variable 'v' is of TensorFlow's type string"),
        ([HEADER, (b"v", field(1, 8))], "variable 'v' is of TensorFlow's type number 8"),
        ([HEADER, (b"v", float_entry(4, more=field(7, b"x")))], "variable 'v' is stored in slices"),
        ([HEADER, (b"v", float_entry(5))], "variable 'v' claims 16 bytes, its shape takes 20"),
        ([HEADER, (b"v", float_entry(4, size=-16))], "variable 'v' claims -16 bytes, its shape takes 16"),
        ([HEADER, (b"v", float_entry(2**60, 2**60))], "variable 'v' claims 16 bytes, its shape takes"),
        ([HEADER, (b"v", float_entry(-4, -1))], "variable 'v' has no shape of at most 64 sizes"),
        ([HEADER, (b"v", float_entry(4, *[1] * 64))], "variable 'v' has no shape of at most 64 sizes"),
        ([HEADER, (b"v", float_entry(4, more=field(2, field(3, 1))))], "variable 'v' has no shape of at most 64"),
        ([HEADER, (b"v", float_entry(4, shard=1))], r"variable 'v' is said to lie at byte 0 of shard 1 \(of 1\)"),
        ([HEADER, (b"v", float_entry(4, shard=-1))], r"variable 'v' is said to lie at byte 0 of shard -1 \(of 1\)"),
        ([HEADER, (b"v", float_entry(4, offset=-1))], "variable 'v' is said to lie at byte -1 of shard 0"),
        ([HEADER, (b"v", float_entry(4, offset=1))], "of-00001: variable 'v' ends at byte 17, the file at 16"),
        ([HEADER, (b"v", float_entry(2**40, size=2**42))], f"variable 'v' ends at byte {2**42}, the file at 16"),
        ([HEADER, (b"v", float_entry(4, offset=2**63 - 1))], "variable 'v' ends at byte .*, the file at 16"),
        ([HEADER, (b"v", float_entry(2**62, 0, size=0))], "variable 'v' cannot have the shape"),
        ([HEADER, (b"v", float_entry(4)), (b"w", float_entry(4))], "variable 'w' overlaps another one"),
        ([HEADER, (b"w", float_entry(4)), (b"v", float_entry(4))], "the name b'v' is out of order"),
        ([HEADER, (b"v", float_entry(4)), (b"v", float_entry(4))], "the name b'v' is out of order"),
        ([HEADER, (b"\xff", float_entry(4))], r"the name b'\\xff' is not UTF-8"),
        ([HEADER, (b"v", float_entry(*[1] * 50_000))], "an entry in it has more than 65,536 bytes"),
        ([HEADER, (b"v" * 513, float_entry(4))], "a name in it has more than 512 bytes"),
    ],
)
def test_a_table_with_right_checksums_and_wrong_content_is_refused(tmp_path, pairs, message):
    (tmp_path / "m.index").write_bytes(table(pairs))
    (tmp_path / "m.data-00000-of-00001").write_bytes(DATA)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=message) as caught:
            read_checkpoint(tmp_path / "m")
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(f"{tmp_path / 'm'}.")
    assert "\n" not in str(caught.value)


def table_of(*blocks: bytes, handles: list[bytes] | None = None) -> bytes:
    """A table whose data blocks are given as they are; handles of blocks that are not there may be given instead."""
    file = bytearray()
    own = [append_block(file, content) for content in blocks]
    pairs = [(b"%d" % number, handle) for number, handle in enumerate(own if handles is None else handles)]
    footer = append_block(file, block([])) + append_block(file, block(pairs, restart_interval=1))
    return bytes(file) + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


GOOD = block([HEADER])
ENDLESS = b"\xff" * 40


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cut off or no index of a checkpoint"),
        (b"x" * 10_000, "cut off or no index of a checkpoint"),
        (table([HEADER], compression=1), "it is compressed, which TensorFlow's own are not"),
        (table_of(b""), "shorter than its list of restarts"),
        (table_of(GOOD[:-4] + b"\xff\xff\xff\xff"), "shorter than its list of restarts"),
        (table_of(b"\1" + GOOD[1:]), "a name in it does not fit in its block"),
        (table_of(b"\0\x7f" + GOOD[2:]), "a name in it does not fit in its block"),
        (table_of(ENDLESS + bytes(8)), "a number in it is malformed"),
        (table_of(b"\x80" + block([])), "a number in it is malformed"),
        (table_of(GOOD, handles=[b"\x80\0" + varint(len(GOOD))]), "a number in it is malformed"),
        (table_of(GOOD, handles=[b"\0"]), "a number in it is malformed"),
        (table_of(GOOD, handles=[varint(0) + varint(len(GOOD)) + b"\0"]), "blocks do not lie one after the other"),
        (table_of(GOOD, handles=[varint(0) + varint(len(GOOD))] * 2), "blocks do not lie one after the other"),
        (table_of(GOOD, handles=[varint(2**60) + varint(2**60)]), "a block ends at byte .*, all blocks at"),
        (table_of(GOOD, handles=[varint(1) + varint(5)]), "the checksum of the block at byte 1 is wrong"),
        (table_of(GOOD)[:-48] + bytes(40) + table_of(GOOD)[-8:], "checksum of the block at byte 0 is wrong"),
        (table_of(GOOD)[:-48] + ENDLESS + table_of(GOOD)[-8:], "a number in it is malformed"),
        (table_of(GOOD)[:-9] + b"\1" + table_of(GOOD)[-8:], "the footer is not filled up with zeros"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_table_that_is_built_wrongly_is_refused(tmp_path, content, message):
    (tmp_path / "m.index").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_checkpoint(tmp_path / "m")
    assert str(caught.value).startswith(f"{tmp_path / 'm.index'}: ")


def test_the_table_that_the_last_test_damages_is_good(tmp_path):
    (tmp_path / "m.index").write_bytes(table_of(GOOD))
    assert read_checkpoint(tmp_path / "m") == {}


def test_an_index_of_absurd_size_is_not_read(tmp_path):
    with (tmp_path / "m.index").open("wb") as file:
        file.truncate(2**40)
    assert "at most 8,388,608 are read" in refused(tmp_path / "m")


def read_or_refuse(folder: Path, index: bytes) -> None:
    """Whatever is in an index, it is read or refused by a UserError that names it."""
    (folder / "m.index").write_bytes(index)
    (folder / "m.data-00000-of-00001").write_bytes(DATA)
    message = str(folder / "m.")
    try:
        read_checkpoint(folder / "m")
    except UserError as error:
        message = str(error)
    assert str(folder / "m.") in message


FUZZ = settings(max_examples=200, deadline=None, derandomize=True)


@given(st.binary(max_size=200), st.booleans())
@FUZZ
def test_random_bytes_are_refused(tmp_path_factory, content, with_magic):
    folder = tmp_path_factory.mktemp("random")
    (folder / "m.index").write_bytes(content + bytes.fromhex("57fb808b247547db") * with_magic)
    assert str(folder / "m.index") in refused(folder / "m")


@given(st.lists(st.binary(max_size=60), max_size=4))
@FUZZ
def test_random_blocks_with_right_checksums_are_read_or_refused(tmp_path_factory, blocks):
    read_or_refuse(tmp_path_factory.mktemp("blocks"), table_of(GOOD, *blocks))


@given(st.binary(max_size=30), st.dictionaries(st.binary(min_size=1, max_size=5), st.binary(max_size=40), max_size=5))
@FUZZ
def test_random_messages_with_right_checksums_are_read_or_refused(tmp_path_factory, head, values):
    folder = tmp_path_factory.mktemp("messages")
    read_or_refuse(folder, table([(b"", head), *sorted(values.items())]))
    read_or_refuse(folder, table([HEADER, *sorted(values.items())]))


@given(place=st.integers(0, 100), byte=st.integers(0, 255), rest=st.binary(max_size=8))
@FUZZ
def test_changed_messages_with_right_checksums_are_read_or_refused(tmp_path_factory, place, byte, rest):
    value = bytearray(float_entry(2, 2))
    value[place % len(value)] = byte
    read_or_refuse(tmp_path_factory.mktemp("changed"), table([HEADER, (b"v", bytes(value) + rest)]))

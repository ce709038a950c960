"""Reads the variables of a TensorFlow checkpoint as plain arrays, without TensorFlow and without a network.

Format V2, the "tensor bundle" (tensorflow `core/util/tensor_bundle`): `PREFIX.index` says where each variable lies in
the shards `PREFIX.data-00000-of-0000N`. The index is a LevelDB table (`leveldb_table.py`) whose values are protocol
buffers (`core/protobuf/tensor_bundle.proto`): a header under the empty key, one entry under each name.

Files are untrusted: every checksum is compared, and no size is believed beyond the end of its file.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from spinenas.space.errors import UserError, explained_os_errors
from spinenas.space.tensorflow.leveldb_table import DAMAGED, masked_crc, read_table

_BUNDLE_VERSION = 1
"""kTensorBundleVersion of `tensor_bundle.cc`; there has been no other."""

_MAX_INDEX_BYTES = 2**23
"""Bound on what a forged index can cost; that of SpineNet-49S with its optimizer has 68 kB."""
_MAX_STATE_BYTES = 2**20
"""The same for the file `checkpoint`."""
_MAX_DIMENSIONS = 64
"""numpy's limit."""

_FIELD = descriptor_pb2.FieldDescriptorProto
_MESSAGES: dict[str, list[tuple[str, int, int | str]]] = {
    "Version": [("min_consumer", 2, _FIELD.TYPE_INT32), ("bad_consumers*", 3, _FIELD.TYPE_INT32)],
    "Header": [
        ("num_shards", 1, _FIELD.TYPE_INT32),
        ("endianness", 2, _FIELD.TYPE_INT32),
        ("version", 3, ".Version"),
    ],
    "Dimension": [("size", 1, _FIELD.TYPE_INT64)],
    "Shape": [("dim*", 2, ".Dimension"), ("unknown_rank", 3, _FIELD.TYPE_BOOL)],
    "Entry": [
        ("dtype", 1, _FIELD.TYPE_INT32),
        ("shape", 2, ".Shape"),
        ("shard_id", 3, _FIELD.TYPE_INT32),
        ("offset", 4, _FIELD.TYPE_INT64),
        ("size", 5, _FIELD.TYPE_INT64),
        ("crc32c", 6, _FIELD.TYPE_FIXED32),
        # These are messages, but only their presence matters here.
        ("slices*", 7, _FIELD.TYPE_BYTES),
    ],
    "CheckpointState": [("model_checkpoint_path", 1, _FIELD.TYPE_STRING)],
}
"""The fields read from tensor_bundle, tensor_shape, versions (enums as numbers) and checkpoint_state.proto.

A field has a name (a star marks a repeated one), a number, and a type or the name of a message.
"""

_BFLOAT16 = 14
_TYPES: dict[int, tuple[str, type[np.generic]]] = {
    1: ("<f4", np.float32),
    2: ("<f8", np.float64),
    3: ("<i4", np.int32),
    4: ("<u1", np.uint8),
    5: ("<i2", np.int16),
    6: ("<i1", np.int8),
    9: ("<i8", np.int64),
    # Read as bytes and cast, because a byte other than 0 and 1 is no valid numpy bool.
    10: ("<u1", np.bool_),
    _BFLOAT16: ("<u2", np.float32),
    17: ("<u2", np.uint16),
    19: ("<f2", np.float16),
    22: ("<u4", np.uint32),
    23: ("<u8", np.uint64),
}
"""numpy's type in the file and in memory, by the number of DataType in `core/framework/types.proto`."""

_NOT_NUMBERS = {7: "string", 20: "resource", 21: "variant"}


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a variable lies: `num_bytes` from `offset` in the shard, in C order; `crc` is the masked checksum."""

    name: str
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    num_bytes: int
    crc: int


def everything(name: str) -> bool:
    """Accept every variable."""
    return True


def read_checkpoint(path: Path, *, wanted: Callable[[str], bool] = everything) -> dict[str, NDArray[Any]]:
    """Read variables of a checkpoint in TensorFlow's format V2. Raises UserError.

    Args:
        path: the prefix (`.../model.ckpt`), the `.index` file, or a folder with one `.index` file. If the folder has
            several, its file `checkpoint` decides; only the last component of the path in it is used.
        wanted: whether to read a variable; the bytes of other variables are not read.

    Returns:
        Writable arrays by name, in the order of the names: shapes and number formats as stored (so NHWC and HWIO), in
        the machine's byte order, with bfloat16 as float32.
    """
    index = _find_index(path)
    num_shards, entries = _read_index(index, wanted)
    prefix = str(index).removesuffix(".index")
    arrays: dict[str, NDArray[Any]] = {}
    in_order = sorted(entries, key=lambda entry: (entry.shard, entry.offset, entry.num_bytes))
    for number, of_shard in itertools.groupby(in_order, key=lambda entry: entry.shard):
        shard = Path(f"{prefix}.data-{number:05d}-of-{num_shards:05d}")
        with _opened(shard) as (file, num_bytes):
            reached = 0
            for entry in of_shard:
                if entry.offset < reached:
                    raise UserError(f"{index}: variable {entry.name!r} overlaps another one; {DAMAGED}")
                arrays[entry.name] = _read_array(shard, file, num_bytes, entry)
                reached = entry.offset + entry.num_bytes
    return {entry.name: arrays[entry.name] for entry in entries}


def _find_index(path: Path) -> Path:
    """Return the index file for a prefix, an index file or a folder."""
    remedy = "name a prefix, an .index file, or a folder with one of these"
    index = _index_in(path) if os.path.isdir(path) else path
    if not index.name.endswith(".index"):
        index = index.with_name(index.name + ".index")
    if not os.path.isfile(index):
        raise UserError(f"{path} is no TensorFlow checkpoint (format V2), as there is no file {index}; {remedy}")
    return index


def _index_in(folder: Path) -> Path:
    """Return the only index in a folder, or the prefix that its file `checkpoint` names."""
    with explained_os_errors(f"cannot read {folder}", "name a folder that can be read"):
        found = [name for name in os.listdir(folder) if name.endswith(".index")]
    if len(found) == 1:
        return folder / found[0]
    state = folder / "checkpoint"
    if not os.path.isfile(state):
        raise UserError(f"{folder} has {len(found)} files *.index and no file checkpoint; name one .index file")
    with _opened(state) as (file, _):
        text = file.read(_MAX_STATE_BYTES)
    message = _message_types()["CheckpointState"]()
    try:
        text_format.Parse(text, message, allow_unknown_field=True)
    except (text_format.ParseError, ValueError, RecursionError) as error:
        raise UserError(f"{state} is not what TensorFlow writes; name one .index file in its folder") from error
    # Often an absolute path on the machine that trained; here the files lie beside this one.
    name = Path(message.model_checkpoint_path).name
    if not name:
        raise UserError(f"{state} has no line model_checkpoint_path; name one .index file in its folder")
    return folder / name


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file for reading and yield it with its size in bytes; every OSError inside becomes a UserError."""
    # Refuses pipes, which would block.
    if not os.path.isfile(path):
        raise UserError(f"there is no file {path}; fetch all files of the checkpoint into one folder")
    with explained_os_errors(f"cannot read {path}", "name a file that can be read"), path.open("rb") as file:
        yield file, os.fstat(file.fileno()).st_size


def _read_index(index: Path, wanted: Callable[[str], bool]) -> tuple[int, list[_Entry]]:
    """Return the number of shards and the wanted entries by ascending name."""
    with _opened(index) as (file, num_bytes):
        if num_bytes > _MAX_INDEX_BYTES:
            raise UserError(
                f"{index} has {num_bytes:,} bytes, at most {_MAX_INDEX_BYTES:,} are read; save fewer variables"
            )
        data = file.read(num_bytes)
    entries = []
    try:
        pairs = read_table(data)
        key, value = next(pairs, (b"-", b""))
        if key:
            raise UserError("it has no header; name the index of a checkpoint in format V2")
        num_shards = _num_shards(value)
        for key, value in pairs:
            # Encoded names of slices; the variable also has an entry under its plain name.
            if key.startswith(b"\0"):
                continue
            name = _decoded(key)
            if wanted(name):
                entries.append(_entry(name, value, num_shards))
    except UserError as error:
        raise UserError(f"{index}: {error}") from error
    return num_shards, entries


def _decoded(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"the name {key!r} is not UTF-8; {DAMAGED}") from error


@functools.cache
def _message_types() -> dict[str, Any]:
    """Message classes by the names of _MESSAGES, in a separate pool, so that a loaded TensorFlow does not collide."""
    file = descriptor_pb2.FileDescriptorProto(name="tf_checkpoint.proto", syntax="proto3")
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for name, number, kind in fields:
            field = message.field.add(name=name.rstrip("*"), number=number)
            field.label = _FIELD.LABEL_REPEATED if name.endswith("*") else _FIELD.LABEL_OPTIONAL
            if isinstance(kind, str):
                field.type, field.type_name = _FIELD.TYPE_MESSAGE, kind
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in _MESSAGES}


def _parse(type_name: str, value: bytes, what: str) -> Any:
    try:
        return _message_types()[type_name].FromString(value)
    except DecodeError as error:
        raise UserError(f"{what} cannot be parsed; {DAMAGED}") from error


def _num_shards(value: bytes) -> int:
    """Check the header and return the number of shards."""
    header = _parse("Header", value, "the header")
    if header.endianness != 0:
        raise UserError("the numbers are big-endian, only little-endian ones are read; save it on another machine")
    if header.version.min_consumer > _BUNDLE_VERSION or _BUNDLE_VERSION in header.version.bad_consumers:
        raise UserError(f"only version {_BUNDLE_VERSION} of the format is read; save it with another TensorFlow")
    if header.num_shards < 1:
        raise UserError(f"the header claims {header.num_shards} shards; {DAMAGED}")
    return int(header.num_shards)


def _entry(name: str, value: bytes, num_shards: int) -> _Entry:
    """Parse and check an entry; `_read_array` checks it against the length of the shard."""
    message = _parse("Entry", value, f"the entry of variable {name!r}")
    if message.slices:
        raise UserError(f"variable {name!r} is stored in slices; save it again without a partitioner")
    if message.dtype not in _TYPES:
        what = _NOT_NUMBERS.get(message.dtype, f"number {message.dtype}")
        raise UserError(f"variable {name!r} is of TensorFlow's type {what}, which is not read; leave it out")
    dims = message.shape.dim
    if message.shape.unknown_rank or len(dims) > _MAX_DIMENSIONS or any(dim.size < 0 for dim in dims):
        raise UserError(f"variable {name!r} has no shape of at most {_MAX_DIMENSIONS} sizes; {DAMAGED}")
    shape = tuple(int(dim.size) for dim in dims)
    num_bytes = math.prod(shape) * np.dtype(_TYPES[message.dtype][0]).itemsize
    if message.size != num_bytes:
        raise UserError(f"variable {name!r} claims {message.size} bytes, its shape takes {num_bytes}; {DAMAGED}")
    if message.offset < 0 or not 0 <= message.shard_id < num_shards:
        raise UserError(
            f"variable {name!r} is said to lie at byte {message.offset} of shard {message.shard_id} "
            f"(of {num_shards}); {DAMAGED}"
        )
    return _Entry(name, message.dtype, shape, message.shard_id, message.offset, num_bytes, message.crc32c)


def _read_array(shard: Path, file: BinaryIO, file_bytes: int, entry: _Entry) -> NDArray[Any]:
    """Read a variable from an open shard of `file_bytes` bytes."""
    what = f"variable {entry.name!r}"
    if entry.offset + entry.num_bytes > file_bytes:
        end = entry.offset + entry.num_bytes
        raise UserError(f"{shard}: {what} ends at byte {end}, the file at {file_bytes}; {DAMAGED}")
    file.seek(entry.offset)
    data = file.read(entry.num_bytes)
    if masked_crc(data) != entry.crc:
        raise UserError(f"{shard}: the checksum of {what} is wrong; {DAMAGED}")
    stored, in_memory = _TYPES[entry.dtype]
    try:
        array = np.frombuffer(data, stored).reshape(entry.shape)
    except ValueError as error:
        # A size of 0 beside sizes beyond numpy's limits.
        raise UserError(f"{shard}: {what} cannot have the shape {entry.shape}; {DAMAGED}") from error
    if entry.dtype == _BFLOAT16:
        # bfloat16 is the upper half of a float32.
        return np.asarray(array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array.astype(in_memory)

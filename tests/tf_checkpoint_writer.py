"""Writes checkpoints in TensorFlow's format V2, from its description alone; shares no code with the reader.

Sources: LevelDB `doc/table_format.md`, TensorFlow `core/util/tensor_bundle/tensor_bundle.cc` and
`core/protobuf/tensor_bundle.proto`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 1024
"""A block ends after the pair that makes it this long; TensorFlow's 262,144 would need thousands of variables."""
RESTART_INTERVAL = 16

TYPE_NUMBERS = {
    "float32": 1,
    "float64": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "int64": 9,
    "bool": 10,
    "uint16": 17,
    "float16": 19,
    "uint32": 22,
    "uint64": 23,
}


def write_checkpoint(prefix: Path, variables: dict[str, NDArray[Any]], *, num_shards: int = 1) -> None:
    """Write `prefix.index` and the shards; variables go round the shards in the order given."""
    data = [bytearray() for _ in range(num_shards)]
    entries = {}
    for number, (name, array) in enumerate(variables.items()):
        shard = number % num_shards
        content = np.ascontiguousarray(array).tobytes()
        entries[name.encode()] = entry(
            TYPE_NUMBERS[array.dtype.name],
            array.shape,
            shard=shard,
            offset=len(data[shard]),
            size=len(content),
            crc=masked_crc(content),
        )
        data[shard] += content
    for shard, content in enumerate(data):
        Path(f"{prefix}.data-{shard:05d}-of-{num_shards:05d}").write_bytes(content)
    Path(f"{prefix}.index").write_bytes(table([(b"", header(num_shards)), *sorted(entries.items())]))


def header(num_shards: int, *, endianness: int = 0, min_consumer: int = 0) -> bytes:
    """A BundleHeaderProto."""
    version = field(1, 1) + field(2, min_consumer)
    return field(1, num_shards) + field(2, endianness) + field(3, version)


def entry(
    dtype: int, shape: Iterable[int], *, shard: int, offset: int, size: int, crc: int, more: bytes = b""
) -> bytes:
    """A BundleEntryProto with `more` fields after its own."""
    dims = b"".join(field(2, field(1, length), keep=True) for length in shape)
    numbers = field(3, shard) + field(4, offset) + field(5, size)
    return field(1, dtype) + field(2, dims, keep=True) + numbers + varint(6 << 3 | 5) + struct.pack("<I", crc) + more


def field(number: int, value: int | bytes, *, keep: bool = False) -> bytes:
    """A field of a protocol buffer; what is 0 or empty is left out unless it is to be kept."""
    if not value and not keep:
        return b""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value % 2**64)


def table(pairs: Iterable[tuple[bytes, bytes]], *, compression: int = 0) -> bytes:
    """A LevelDB table of pairs in the order given, which should be ascending."""
    file = bytearray()
    index = []
    waiting: list[tuple[bytes, bytes]] = []
    for pair in pairs:
        waiting.append(pair)
        if len(block(waiting)) >= BLOCK_BYTES:
            index.append((pair[0], append_block(file, block(waiting), compression)))
            waiting = []
    if waiting:
        index.append((waiting[-1][0], append_block(file, block(waiting), compression)))
    meta_handle = append_block(file, block([]))
    index_handle = append_block(file, block(index, restart_interval=1))
    footer = (meta_handle + index_handle).ljust(40, b"\0")
    return bytes(file) + footer + struct.pack("<Q", 0xDB4775248B80FB57)


def block(pairs: list[tuple[bytes, bytes]], *, restart_interval: int = RESTART_INTERVAL) -> bytes:
    """A block of a table without its trailer."""
    content = bytearray()
    restarts = [0]
    last = b""
    for number, (key, value) in enumerate(pairs):
        shared = 0
        if number % restart_interval:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        elif number:
            restarts.append(len(content))
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return bytes(content) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def append_block(file: bytearray, content: bytes, compression: int = 0) -> bytes:
    """Append a block with its trailer to a file, and return its handle."""
    handle = varint(len(file)) + varint(len(content))
    checked = content + bytes([compression])
    file += checked + struct.pack("<I", masked_crc(checked))
    return handle


def varint(number: int) -> bytes:
    """A number in 7 bits per byte, the lowest first."""
    digits = []
    while number >= 0x80:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


def masked_crc(data: bytes) -> int:
    """CRC32C, rotated right by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return ((crc >> 15) + (crc << 17) + 0xA282EAD8) % 2**32

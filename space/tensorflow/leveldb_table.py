"""Reads the key-value pairs of a LevelDB table (LevelDB `doc/table_format.md`) and checks every checksum.

The index of a TensorFlow checkpoint is such a table. The bytes are untrusted: lengths are bounded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import google_crc32c

from spinenas.space.errors import UserError

_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
_FOOTER_BYTES, _TRAILER_BYTES = 48, 5
"""The footer ends with the magic number. A block's trailer is its compression type and a checksum of both."""

_MAX_NAME_BYTES, _MAX_VALUE_BYTES = 512, 2**16
"""Bounds on what a forged table can cost; SpineNet-49S has names of up to 102 bytes and values of 30."""

DAMAGED = "the file is damaged: fetch it again"


def masked_crc(data: bytes) -> int:
    """CRC32C as LevelDB stores it: rotated and offset, because a CRC of data that contains its own CRC is weak."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the pairs of a LevelDB table by ascending keys. Raises UserError, without the name of the file."""
    if not data.endswith(_MAGIC):
        raise UserError("it is cut off or no index of a checkpoint (format V2); fetch it again or name another")
    body, handles = data[:-_FOOTER_BYTES], data[-_FOOTER_BYTES : -len(_MAGIC)]
    meta_offset, meta_size, at = _handle(handles, 0)
    offset, size, at = _handle(handles, at)
    if any(handles[at:]):
        raise UserError(f"the footer is not filled up with zeros; {DAMAGED}")
    # The meta block is empty in a checkpoint; reading it compares its checksum.
    _block(body, meta_offset, meta_size)
    reached, last_key = 0, None
    for _, value in _pairs(_block(body, offset, size)):
        offset, size, at = _handle(value, 0)
        if at != len(value) or offset < reached:
            raise UserError(f"the blocks do not lie one after the other; {DAMAGED}")
        for key, content in _pairs(_block(body, offset, size)):
            if last_key is not None and key <= last_key:
                raise UserError(f"the name {key!r} is out of order; {DAMAGED}")
            yield key, content
            last_key = key
        reached = offset + size


def _block(body: bytes, offset: int, size: int) -> bytes:
    """Check the checksum of a block and return the block without its trailer."""
    end = offset + size + _TRAILER_BYTES
    if end > len(body):
        raise UserError(f"a block ends at byte {end}, all blocks at {len(body)}; {DAMAGED}")
    kind, crc = struct.unpack_from("<BI", body, offset + size)
    if masked_crc(body[offset : offset + size + 1]) != crc:
        raise UserError(f"the checksum of the block at byte {offset} is wrong; {DAMAGED}")
    if kind != 0:
        raise UserError("it is compressed, which TensorFlow's own are not; save the checkpoint with TensorFlow")
    return body[offset : offset + size]


def _pairs(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the pairs of a block; a key may share its first bytes with the key before it.

    The list of restart points at the block's end serves binary search and is not needed here.
    """
    end = len(block) - 4
    if end >= 0:
        end -= 4 * int.from_bytes(block[-4:], "little")
    if end < 0:
        raise UserError(f"a block is shorter than its list of restarts; {DAMAGED}")
    block = block[:end]
    key, at = b"", 0
    while at < end:
        num_shared, at = _varint(block, at)
        num_new, at = _varint(block, at)
        num_value, at = _varint(block, at)
        value_at = at + num_new
        if num_shared > len(key) or value_at + num_value > end:
            raise UserError(f"a name in it does not fit in its block; {DAMAGED}")
        if num_shared + num_new > _MAX_NAME_BYTES:
            raise UserError(f"a name in it has more than {_MAX_NAME_BYTES} bytes; save it with shorter names")
        if num_value > _MAX_VALUE_BYTES:
            raise UserError(f"an entry in it has more than {_MAX_VALUE_BYTES:,} bytes; {DAMAGED}")
        key = key[:num_shared] + block[at:value_at]
        at = value_at + num_value
        yield key, block[value_at:at]


def _handle(data: bytes, at: int) -> tuple[int, int, int]:
    """Return the offset of a block, its size, and the position after these two numbers."""
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return offset, size, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of 7 bits per byte, lowest first, and the position after it."""
    number = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            # No writer ends a number with a byte of 0, so the byte before has a flipped bit.
            if byte == 0 and shift > 0:
                break
            return number, at
    raise UserError(f"a number in it is malformed; {DAMAGED}")

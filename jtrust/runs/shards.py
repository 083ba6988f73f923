"""Checksums of arrays whose rows lie on several hosts, as of the whole that nobody holds."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import jax
import numpy as np

from jtrust.hosts.group import Hosts
from jtrust.runs.arrays import checksum_header

# Of the rows that begin at a row of an array: {row: (checksum, bytes)}.
Pieces = dict[int, tuple[int, int]]

# CRC-32 (IEEE 802.3), its bits in reverse as zlib has them.
_POLYNOMIAL = 0xEDB88320


def combined(first: int, second: int, length: int) -> int:
    """The CRC-32 of two pieces one behind the other, of theirs and the second's length in bytes.

    Zeros behind the first piece are a linear map of its 32 bits over GF(2): that of one zero bit,
    squared as often as the length asks for (zlib's crc32_combine, which Python does not have).
    """
    if not length:
        return first
    matrix = [_POLYNOMIAL] + [1 << i for i in range(31)]  # a zero bit
    for _ in range(3):
        matrix = _squared(matrix)  # a zero byte
    while length:
        if length & 1:
            first = _times(matrix, first)
        length >>= 1
        if length:
            matrix = _squared(matrix)
    return first ^ second


def _times(matrix: list[int], vector: int) -> int:
    found = 0
    for column in matrix:
        if vector & 1:
            found ^= column
        vector >>= 1
        if not vector:
            break
    return found


def _squared(matrix: list[int]) -> list[int]:
    return [_times(matrix, column) for column in matrix]


def pieces(array: jax.Array) -> Pieces:
    """Of what this process holds of an array that is cut along its first axis, or not at all.

    What several devices hold is told of by the first of them alone.
    """
    found = {}
    for shard in array.addressable_shards:
        if shard.replica_id:
            continue
        rows = np.ascontiguousarray(shard.data)
        start = (shard.index[0].start or 0) if shard.index else 0
        found[start] = (zlib.crc32(rows.tobytes()), rows.nbytes)
    return found


def checksums(arrays: Mapping[str, jax.Array], hosts: Hosts, name: str) -> dict[str, str]:
    """Of arrays on the devices of several processes, what `checksum` gives of the whole.

    Args:
      arrays: the same names in every process.
      hosts: the processes.
      name: for what is said between them.
    """
    mine = {key: [[k, *v] for k, v in pieces(x).items()] for key, x in arrays.items()}
    everyone = hosts.everyone(name, mine)
    found = {}
    for key, array in arrays.items():
        parts = {start: rest for said in everyone for start, *rest in said[key]}
        check = zlib.crc32(checksum_header(array.dtype, array.shape))
        for start in sorted(parts):
            check = combined(check, *parts[start])
        found[key] = f"{check:08x}"
    return found

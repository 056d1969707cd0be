"""CRC-32C (Castagnoli), the checksum in TensorFlow's files, fast enough for gigabytes in NumPy.

The bytes are divided over many lanes that advance together, four bytes a step, and the lanes'
remainders are then joined. Every function here is linear over bits: what a state becomes is the
XOR of what each of its bits becomes, so a map is kept as 32 words, one for each bit.
"""

from __future__ import annotations

import functools

import numpy as np

LANES = 2048
POLYNOMIAL = 0x82F63B78  # reflected
# Four bytes that take the state from zero to all ones, where a checksum starts. So zeros may
# stand before them, which change nothing.
START = bytes.fromhex("54641f64")


def crc32c(data: bytes) -> int:
    """The checksum of `data`, 32 bits."""
    size = len(START) + len(data)
    steps = -(-size // (4 * LANES))
    padded = bytes(4 * LANES * steps - size) + START + data
    states = np.zeros(LANES, np.uint32)
    low, high = _tables()
    for words in np.frombuffer(padded, "<u4").reshape(LANES, steps).T:
        states ^= words
        states = low[states & 0xFFFF] ^ high[states >> 16]
    across = _power(_four_zeros(), steps)  # what a lane's length of zeros does to a state
    while len(states) > 1:
        states = _apply(across, states[0::2]) ^ states[1::2]
        across = _apply(across, across)
    return int(states[0]) ^ 0xFFFFFFFF


def masked(checksum: int) -> int:
    """As TensorFlow stores it, so that a checksum over data with checksums stays a good one."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


@functools.cache
def _four_zeros() -> np.ndarray:
    """What four bytes of zero make of each bit of the state."""
    states = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for _ in range(32):
        states = states >> 1 ^ np.where(states & 1, np.uint32(POLYNOMIAL), np.uint32(0))
    return states


@functools.cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """The same for every value of the state's lower half, and of its upper."""
    halves = np.arange(1 << 16, dtype=np.uint32)
    return _apply(_four_zeros(), halves), _apply(_four_zeros(), halves << 16)


def _apply(to: np.ndarray, states: np.ndarray) -> np.ndarray:
    """The map over each state."""
    out = np.zeros_like(states)
    for bit in range(32):
        out ^= np.where(states >> bit & 1, to[bit], np.uint32(0))
    return out


def _power(to: np.ndarray, times: int) -> np.ndarray:
    """The map applied so many times in turn."""
    out = np.uint32(1) << np.arange(32, dtype=np.uint32)
    while times:
        if times & 1:
            out = _apply(to, out)
        to, times = _apply(to, to), times >> 1
    return out

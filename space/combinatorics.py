"""Counts and numbers pairs, permutations and matchings of integers."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cache
from math import comb, isqrt


def rank_pair(first: int, second: int) -> int:
    """Return the index of the pair first < second in the order (0, 1), (0, 2), (1, 2), (0, 3), ..."""
    return second * (second - 1) // 2 + first


def unrank_pair(rank: int) -> tuple[int, int]:
    """Return the pair of this rank; the inverse of `rank_pair`."""
    second = (1 + isqrt(1 + 8 * rank)) // 2
    return rank - second * (second - 1) // 2, second


def lehmer_encode(arrangement: Sequence[int]) -> list[int]:
    """Return for each position the index of its value among the sorted values that remain.

    Equal values take the lowest index, so the result is the smallest of all codes of this arrangement.
    """
    left = sorted(arrangement)
    digits = []
    for value in arrangement:
        digit = bisect_left(left, value)
        del left[digit]
        digits.append(digit)
    return digits


def lehmer_decode(digits: Sequence[int], values: Sequence[int]) -> list[int]:
    """Arrange the sorted values; digit i picks one of those that remain."""
    left = list(values)
    return [left.pop(digit) for digit in digits]


def match_steps(levels: Sequence[int], bases: Sequence[int], low: int, high: int) -> list[int] | None:
    """Match every level with a different base so that low <= level - base <= high; None if impossible.

    Returns the base for each position, with the smallest possible Lehmer code. All intervals of allowed levels have
    the same length, so a matching exists exactly if the sorted levels match the sorted bases in order. To test one
    pair it is therefore enough to check the elements between the two removed ones.
    """
    left_levels, left_bases = sorted(levels), sorted(bases)
    if not _matches(left_levels, left_bases, low, high):
        return None
    chosen = []
    for level in levels:
        at = bisect_left(left_levels, level)
        index = bisect_left(left_bases, level - high)
        while not _matches_without(left_levels, at, left_bases, index, low, high):
            index = bisect_right(left_bases, left_bases[index])
        chosen.append(left_bases.pop(index))
        del left_levels[at]
    return chosen


def count_arrangements(bases: Sequence[int], low: int, high: int) -> int:
    """Return the number of sequences of levels that `match_steps` can match with these bases."""
    bases = sorted(bases)
    total = len(bases)

    @cache
    def count(level: int, matched: int) -> int:
        """Ways to fill the free positions with levels from `level` up, when the `matched` lowest bases are taken."""
        if matched == total:
            return 1
        if level > bases[-1] + high:
            return 0
        ways, taken = 0, 0
        while True:
            ways += comb(total - matched, taken) * count(level + 1, matched + taken)
            if matched + taken == total or not low <= level - bases[matched + taken] <= high:
                return ways
            taken += 1

    return count(bases[0] + low, 0) if bases else 1


def _matches(levels: Sequence[int], bases: Sequence[int], low: int, high: int) -> bool:
    return all(low <= level - base <= high for level, base in zip(levels, bases, strict=True))


def _matches_without(
    levels: Sequence[int], skipped_level: int, bases: Sequence[int], skipped_base: int, low: int, high: int
) -> bool:
    """Whether two sorted lists that match still do without the skipped pair, and the pair itself matches."""
    if not low <= levels[skipped_level] - bases[skipped_base] <= high:
        return False
    if skipped_base < skipped_level:
        return _matches(levels[skipped_base:skipped_level], bases[skipped_base + 1 : skipped_level + 1], low, high)
    return _matches(levels[skipped_level + 1 : skipped_base + 1], bases[skipped_level:skipped_base], low, high)

"""Random numbers without state: each is a function of (seed, stream, sample, draw number) and of nothing else.

So a resumed run needs no generator state, a rank draws just its slice of a batch, and a sample's numbers do not
depend on the batch it came in. The integers are the same on every device; the floats are to rounding.

    key  = mix(mix(seed + G) ^ stream * G)              one number, in Python
    root = mix(key + sample * G)                        one a sample
    bits = mix(root + (draw + 1) * G')                  one a draw;  all modulo 2^64

mix is the finaliser of splitmix64 (Steele, Lea, Flood, OOPSLA 2014), a bijection of 64-bit words.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15
DRAW = 0xD1B54A32D192ED03  # another odd constant, so that (sample + 1, draw) does not meet (sample, draw + 1)
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
WORD = (1 << 64) - 1
ORDER_STREAM = 0x6F72646572  # "order": no distortion or dropout uses this stream


def draw_bits(
    seed: int,
    indices: Tensor,  # (B,) int64, global sample numbers
    stream: int,
    count: int,
    first: int = 0,
) -> Tensor:  # (B, count) int64, all 64 bits random
    """64 random bits for each sample and each draw number first ... first + count - 1.

    Args: seed, of the run; stream, what the numbers are for (another stream is independent); count, first, which draws.
    Returns: on the device of the indices. Column j does not depend on count.
    """
    key = _mix_word(_mix_word(seed + GOLDEN) ^ (stream * GOLDEN & WORD))
    roots = _mix(indices.to(torch.int64) * _signed(GOLDEN) + _signed(key))
    draws = torch.arange(first + 1, first + 1 + count, device=indices.device) * _signed(DRAW)
    return _mix(roots[:, None] + draws)


def uniform(
    seed: int,
    indices: Tensor,  # (B,) int64
    stream: int,
    count: int,
    low: float = 0.0,
    high: float = 1.0,
) -> Tensor:  # (B, count) float32
    """Uniform numbers in [low, high), from 24 bits each (high itself only where low + (high - low) u rounds to it)."""
    unit = _top(draw_bits(seed, indices, stream, count), 24).to(torch.float32).mul_(2.0**-24)
    return unit if (low, high) == (0.0, 1.0) else unit.mul_(high - low).add_(low)


def normal(
    seed: int,
    indices: Tensor,  # (B,) int64
    stream: int,
    count: int,
    mean: float = 0.0,
    deviation: float = 1.0,
) -> Tensor:  # (B, count) float32
    """Normal numbers, at most 7.4 deviations out: sqrt(-2 ln u) cos(2 pi v), u from the top 40 bits, v from the rest.

    Source: Box and Muller, 1958. One draw makes one number, so that number j does not depend on how many are asked for.
    """
    bits = draw_bits(seed, indices, stream, count)
    radius = _top(bits, 40).add_(1).to(torch.float32).mul_(2.0**-40).log_().mul_(-2.0).sqrt_()
    angle = bits.bitwise_and_((1 << 24) - 1).to(torch.float32).mul_(math.tau * 2.0**-24)
    return radius.mul_(angle.cos_()).mul_(deviation).add_(mean)


def integers(
    seed: int,
    indices: Tensor,  # (B,) int64
    stream: int,
    count: int,
    high: int,
    low: int = 0,
) -> Tensor:  # (B, count) int64
    """Whole numbers low <= k < high, each as likely to within (high - low) / 2^32.

    Raises: ValueError where the range is empty or wider than 2^31.
    """
    if not 0 < high - low <= 1 << 31:
        raise ValueError(f"integers: low {low} and high {high} came, wanted 0 < high - low <= 2^31")
    return _top(draw_bits(seed, indices, stream, count), 32).mul_(high - low).bitwise_right_shift_(32).add_(low)


def epoch_order(
    seed: int,
    epoch: int,
    n: int,
    device: torch.device | str = "cpu",
) -> Tensor:  # (n,) int64
    """The order in which one pass visits n digits: a permutation, by sorting one random key a digit.

    The same on every device, since the keys are integers and the sort is stable.
    """
    keys = draw_bits(seed, torch.arange(n, device=device), ORDER_STREAM, 1, first=epoch)
    return torch.argsort(keys[:, 0], stable=True)


def batch_indices(
    seed: int,
    start: int,
    count: int,
    n: int,
    device: torch.device | str = "cpu",
) -> Tensor:  # (count,) int64
    """The digits of the global samples g = start ... start + count - 1: epoch_order(seed, g // n)[g % n].

    Args: start, the number of the first sample since training began, so a batch may straddle two passes or more.
    Returns: a copy; the orders themselves are kept for the next batch.
    """
    device = torch.device(device)
    parts, end = [torch.empty(0, dtype=torch.int64, device=device)], start + count
    while start < end:
        epoch, place = divmod(start, n)
        take = min(n - place, end - start)
        parts.append(_kept_order(seed, epoch, n, device)[place : place + take])
        start += take
    return torch.cat(parts)


@lru_cache(maxsize=64)  # two passes for some thirty seeds trained together
def _kept_order(seed: int, epoch: int, n: int, device: torch.device) -> Tensor:
    """epoch_order, remembered."""
    return epoch_order(seed, epoch, n, device)


def _mix(words: Tensor) -> Tensor:
    """The finaliser on int64 words; multiplication wraps. Overwrites its argument, always a fresh tensor."""
    words.bitwise_xor_(_top(words, 34)).mul_(_signed(FIRST))
    words.bitwise_xor_(_top(words, 37)).mul_(_signed(SECOND))
    return words.bitwise_xor_(_top(words, 33))


def _mix_word(word: int) -> int:
    """The finaliser on one Python integer."""
    word &= WORD
    word = (word ^ word >> 30) * FIRST & WORD
    word = (word ^ word >> 27) * SECOND & WORD
    return word ^ word >> 31


def _top(words: Tensor, bits: int) -> Tensor:
    """The top bits as a number >= 0: torch shifts int64 arithmetically, so the copies of the sign are masked off."""
    return (words >> (64 - bits)).bitwise_and_((1 << bits) - 1)


def _signed(word: int) -> int:
    """A 64-bit word as the int64 with the same bits."""
    word &= WORD
    return word - (1 << 64) if word >> 63 else word

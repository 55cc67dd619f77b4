"""Random numbers that are a pure function of (seed, stream, sample id, position), the same on every device.

SplitMix64 (Steele, Lea and Flood, OOPSLA 2014, "Fast splittable pseudorandom number generators") on 64-bit integers:
output ``i`` of a sample is ``mix(key + i * golden)``, where ``key`` mixes seed, stream and sample id. It has no state,
so nothing depends on batch size, order or number of workers, and all cells of a study see the same numbers.
"""

import math
from enum import Enum

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

_GOLDEN = -0x61C8864680B583EB  # 0x9E3779B97F4A7C15 as a signed integer


class Stream(Enum):
    """What numbers are drawn for; streams are independent of each other."""

    NOISE = 1  #: replacement pixels of the perturbation
    TIES = 2  #: order of regions with equal attribution
    RANDOM_MAP = 3
    SMOOTHGRAD = 4
    SUBSETS = 5  #: pixels of the faithfulness correlation
    COMPLETION = 6  #: what sufficiency puts where the map says it does not matter
    IMPUTATION = 7  #: noise on imputed pixels
    SENSITIVITY = 8
    LIPSCHITZ = 9
    OTHER_CLASS = 10
    PARAMETERS = 11
    QUANTUS = 12


def bits(seed: int, stream: Stream, sample_id: Int64[Tensor, " batch"], count: int) -> Int64[Tensor, "batch count"]:
    """``count`` random 64-bit integers for each sample, on the device of ``sample_id``."""
    key = _mix(_mix(torch.full_like(sample_id, seed) * _GOLDEN + stream.value) + sample_id * _GOLDEN)
    counter = torch.arange(1, count + 1, device=sample_id.device)
    return _mix(key[:, None] + counter * _GOLDEN)


def pixels(
    seed: int, stream: Stream, sample_id: Int64[Tensor, " batch"], shape: tuple[int, ...]
) -> UInt8[Tensor, "batch *shape"]:
    """Values drawn uniformly from all possible pixel values 0..255."""
    highest_byte = _shift_right(bits(seed, stream, sample_id, math.prod(shape)), 56)
    return highest_byte.to(torch.uint8).view(-1, *shape)


def normal(
    seed: int, stream: Stream, sample_id: Int64[Tensor, " batch"], shape: tuple[int, ...]
) -> Float[Tensor, "batch *shape"]:
    """Standard normal values in float64, by the inverse of the distribution function."""
    normal: Tensor = torch.special.ndtri(uniform(seed, stream, sample_id, shape))
    return normal


def uniform(
    seed: int, stream: Stream, sample_id: Int64[Tensor, " batch"], shape: tuple[int, ...]
) -> Float[Tensor, "batch *shape"]:
    """Values drawn uniformly from (0, 1), in float64."""
    values = (_shift_right(bits(seed, stream, sample_id, math.prod(shape)), 12).double() + 0.5) * 2.0**-52
    return values.view(-1, *shape)


def below(
    seed: int, stream: Stream, sample_id: Int64[Tensor, " batch"], limit: Int64[Tensor, " batch"]
) -> Int64[Tensor, " batch"]:
    """One integer of each sample, drawn uniformly from 0 to ``limit`` - 1."""
    return _shift_right(bits(seed, stream, sample_id, 1)[:, 0], 1) % limit


def _mix(z: Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
    """SplitMix64's output function; products wrap around at 64 bits."""
    z = _shift_right(z, 30).bitwise_xor_(z).mul_(-0x40A7B892E31B1A47)  # 0xBF58476D1CE4E5B9
    z = _shift_right(z, 27).bitwise_xor_(z).mul_(-0x6B2FB644ECCEEE15)  # 0x94D049BB133111EB
    return _shift_right(z, 31).bitwise_xor_(z)


def _shift_right(z: Int64[Tensor, "*shape"], by: int) -> Int64[Tensor, "*shape"]:
    """The logical shift; torch's own repeats the sign."""
    return (z >> by).bitwise_and_((1 << (64 - by)) - 1)  # in place, as a new tensor costs more than what fills it

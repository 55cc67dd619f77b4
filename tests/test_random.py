"""Counter-based random numbers against SplitMix64 in Python's integers, and their distribution."""

import numpy as np
import pytest
import torch
from scipy.special import ndtri
from scipy.stats import chisquare, kstest

from canonxai import random
from canonxai.random import Stream, bits, normal, pixels

GOLDEN = 0x9E3779B97F4A7C15


def mix(z):
    """SplitMix64's output function, after Vigna's C code."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return z ^ (z >> 31)


def textbook(seed, stream, sample_id, count):
    """The random integers of one sample, unsigned."""
    key = mix((mix((seed * GOLDEN + stream.value) % 2**64) + sample_id * GOLDEN) % 2**64)
    return [mix((key + i * GOLDEN) % 2**64) for i in range(1, count + 1)]


def signed(z):
    return (z + 2**63) % 2**64 - 2**63


def ids(*sample_ids):
    return torch.tensor(sample_ids, dtype=torch.int64)


def test_mix_gives_the_published_values_of_splitmix64():
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    states = ids(*(signed(1234567 + i * GOLDEN) for i in range(1, 6)))
    assert [value % 2**64 for value in random._mix(states).tolist()] == published


@pytest.mark.parametrize("seed", [0, 1, 12345, -1, 2**63 - 1])
@pytest.mark.parametrize("stream", Stream)
def test_bits_are_those_of_splitmix64_in_python(seed, stream):
    sample_ids = [0, 1, 2, 49_999, -7, 2**63 - 1]
    expected = [[signed(value) for value in textbook(seed, stream, sample_id, 9)] for sample_id in sample_ids]
    assert bits(seed, stream, ids(*sample_ids), 9).tolist() == expected


def test_pixels_are_the_highest_byte_of_the_bits():
    expected = [value >> 56 for value in textbook(3, Stream.NOISE, 17, 24)]
    values = pixels(3, Stream.NOISE, ids(17), (2, 3, 4))
    assert values.shape == (1, 2, 3, 4)
    assert values.flatten().tolist() == expected


def test_normal_values_are_the_quantiles_of_the_highest_bits():
    expected = [ndtri(value / 2**64) for value in textbook(3, Stream.SMOOTHGRAD, 17, 24)]
    values = normal(3, Stream.SMOOTHGRAD, ids(17), (2, 3, 4))
    assert values.shape == (1, 2, 3, 4)
    assert values.dtype == torch.float64
    assert values.flatten().tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("integer", [0, 2**63 - 1, -(2**63), -1])
def test_normal_values_are_finite_for_all_bits(integer, monkeypatch):
    monkeypatch.setattr(random, "bits", lambda seed, stream, sample_id, count: ids(integer).expand(1, count))
    assert normal(0, Stream.SMOOTHGRAD, ids(0), (1,)).isfinite().all()


@pytest.mark.parametrize("draw", [pixels, normal])
def test_values_of_a_sample_do_not_depend_on_the_others_in_the_batch(draw):
    together = draw(0, Stream.NOISE, ids(0, 1, 2, 3, 4), (3, 4))
    assert torch.equal(draw(0, Stream.NOISE, ids(3, 0, 3), (3, 4)), together[[3, 0, 3]])
    for sample_id in range(5):
        assert torch.equal(draw(0, Stream.NOISE, ids(sample_id), (3, 4))[0], together[sample_id])


def test_more_values_begin_with_the_same():
    assert torch.equal(bits(0, Stream.TIES, ids(0, 1), 100)[:, :7], bits(0, Stream.TIES, ids(0, 1), 7))


def test_no_number_comes_twice_for_different_seeds_streams_and_ids():
    drawn = [bits(seed, stream, torch.arange(-20, 20), 50) for seed in range(-2, 6) for stream in Stream]
    assert torch.cat(drawn).unique().numel() == 8 * len(Stream) * 40 * 50


@pytest.mark.parametrize("seed", range(3))
def test_pixels_are_uniform_over_all_256_values(seed):
    values = pixels(seed, Stream.NOISE, torch.arange(200), (1000,))
    assert chisquare(np.bincount(values.flatten(), minlength=256)).pvalue > 1e-3
    first = pixels(seed, Stream.NOISE, torch.arange(50_000), (1,))  # one position, over samples
    assert chisquare(np.bincount(first.flatten(), minlength=256)).pvalue > 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_normal_values_are_normal(seed):
    assert kstest(normal(seed, Stream.SMOOTHGRAD, torch.arange(100), (500,)).flatten(), "norm").pvalue > 1e-3
    first = normal(seed, Stream.SMOOTHGRAD, torch.arange(50_000), (1,))
    assert kstest(first.flatten(), "norm").pvalue > 1e-3


@pytest.mark.parametrize(
    "other",
    [
        lambda: normal(0, Stream.NOISE, torch.arange(1, 201), (500,)),
        lambda: normal(1, Stream.NOISE, torch.arange(200), (500,)),
        lambda: normal(0, Stream.TIES, torch.arange(200), (500,)),
        lambda: normal(0, Stream.NOISE, torch.arange(200), (501,))[:, 1:],
    ],
    ids=["sample id", "seed", "stream", "position"],
)
def test_neighbours_are_not_correlated(other):
    values = normal(0, Stream.NOISE, torch.arange(200), (500,))
    assert abs(np.corrcoef(values.flatten(), other().flatten())[0, 1]) < 4 / values.numel() ** 0.5

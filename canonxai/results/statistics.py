"""Means with bootstrap confidence intervals: scipy's, but of many means and of millions of values in a moment."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from scipy.special import ndtr, ndtri

LEVEL = 0.95
RESAMPLES = 2_000
MOST_VALUES = 10_000  #: that are drawn, more than the study's images; of more, the means of so many random groups are
_DRAWS_AT_ONCE = 1_000_000


class Mean(NamedTuple):
    """The mean of what is defined, its 95 % bootstrap interval, and how much is not defined."""

    mean: float | None
    low: float | None
    high: float | None
    n: int
    undefined: int


def mean_with_interval(values: Float[np.ndarray, " n"]) -> Mean:
    """The mean of the values that are not NaN, with its 95 % percentile bootstrap interval (Efron 1979).

    The resampling is seeded, so equal values give equal intervals.

    Returns:
        ``None`` for the mean where no value is defined, for the interval where fewer than two are.

    >>> mean_with_interval(np.array([1.0, 1.0, np.nan]))
    Mean(mean=1.0, low=1.0, high=1.0, n=2, undefined=1)
    """
    defined = values[~np.isnan(values)]
    undefined = len(values) - len(defined)
    if len(defined) < 2:
        mean = float(defined[0]) if len(defined) else None
        return Mean(mean, None, None, len(defined), undefined)
    _, power = np.frexp(np.abs(defined).max())
    scaled = np.ldexp(defined, -power)  # by a power of two, which rounds nothing, so that no sum overflows
    mean, low, high = np.ldexp([scaled.mean(), *percentile_interval(scaled)], power).tolist()
    return Mean(mean, low, high, len(defined), undefined)


def percentile_interval(
    values: Float[np.ndarray, " n"], others: Float[np.ndarray, " m"] | None = None
) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of a mean, or of the mean of ``values`` minus that of ``others``."""
    means = values.mean() + _scatter_of_means(_drawn(values))
    if others is not None:
        means = means - (others.mean() + _scatter_of_means(_drawn(others), seed=1))
    return _quantiles(means, (1 - LEVEL) / 2, (1 + LEVEL) / 2)


def bca_interval(values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """The 95 % BCa bootstrap interval of a mean: bias-corrected and accelerated (Efron 1987).

    The acceleration of a mean, by the jackknife, is ``sum d^3 / (6 (sum d^2)^1.5)`` with ``d`` the values' deviations
    from it.

    Returns:
        NaN where all bootstrap means lie on one side.
    """
    drawn = _drawn(values)
    scatter = _scatter_of_means(drawn)
    scatter[np.abs(scatter) <= 1e-14 * np.abs(drawn).max()] = 0  # the mean itself, but for rounding
    bias = ndtri(((scatter < 0).mean() + (scatter <= 0).mean()) / 2)
    acceleration = (drawn**3).sum() / (6 * (drawn**2).sum() ** 1.5)
    shifted = bias + ndtri([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return _quantiles(values.mean() + scatter, *ndtr(bias + shifted / (1 - acceleration * shifted)))


def _quantiles(means: Float[np.ndarray, " resamples"], low: float, high: float) -> tuple[float, float]:
    if not np.isfinite([low, high]).all():
        return np.nan, np.nan
    return float(np.quantile(means, low)), float(np.quantile(means, high))


def _drawn(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " _"]:
    """The deviations from the mean that are drawn: those of all values, or the means of :data:`MOST_VALUES` groups.

    Groups are random, of equal size but for one value, and keep both what an interval of a mean is made of: the mean's
    variance, and its skewness, as ``skewness / sqrt(n)`` is the same for n values and for m means of n / m.
    """
    deviations = np.asarray(values - values.mean())
    if (n := len(values)) <= MOST_VALUES:
        return deviations
    group = np.random.default_rng(0).permutation(n) % MOST_VALUES
    return np.asarray(np.bincount(group, deviations) * (MOST_VALUES / n))


def _scatter_of_means(deviations: Float[np.ndarray, " n"], seed: int = 0) -> Float[np.ndarray, " resamples"]:
    """The means of :data:`RESAMPLES` seeded bootstrap samples."""
    counts = _counts(len(deviations), RESAMPLES, seed)
    sums = [rows.astype(np.float64) @ deviations for rows in _chunks(counts)]
    return np.asarray(np.concatenate(sums) / len(deviations))


@lru_cache(maxsize=4)  # cells of a study have the same images
def _counts(n: int, resamples: int, seed: int) -> UInt8[np.ndarray, "resamples n"]:
    """How often each of n values is in each bootstrap sample, drawn as scipy's ``bootstrap`` draws them."""
    rng = np.random.default_rng(seed)
    counts = np.empty((resamples, n), np.uint8)
    for rows in _chunks(counts):
        drawn = rng.integers(n, size=rows.shape) + n * np.arange(len(rows))[:, None]
        rows[:] = np.bincount(drawn.ravel(), minlength=rows.size).reshape(rows.shape)
    return counts


def _chunks(counts: UInt8[np.ndarray, "resamples n"]) -> list[UInt8[np.ndarray, "_ n"]]:
    """The rows, some at a time."""
    rows = max(1, _DRAWS_AT_ONCE // counts.shape[1])
    return [counts[start : start + rows] for start in range(0, len(counts), rows)]

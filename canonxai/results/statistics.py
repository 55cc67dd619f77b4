"""Means with bootstrap confidence intervals, scipy's."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import bootstrap

LEVEL = 0.95
RESAMPLES = 2_000
_DRAWS_AT_ONCE = 5_000_000


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
    return Mean(float(defined.mean()), *bootstrap_interval(defined), len(defined), undefined)


def bootstrap_interval(
    *groups: Float[np.ndarray, " _"], statistic: Callable[..., Any] = np.mean, method: str = "percentile"
) -> tuple[float, float]:
    """The 95 % bootstrap interval, scipy's, of a statistic of one or several groups of values, seeded."""
    interval = bootstrap(
        groups, statistic, vectorized=True, confidence_level=LEVEL, n_resamples=RESAMPLES, method=method,
        batch=max(1, _DRAWS_AT_ONCE // sum(map(len, groups))), rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(interval.low), float(interval.high)

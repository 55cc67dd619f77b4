"""What paired differences say: interval, test, effect size, and correction for many tests.

All functions take ``difference``, one value an image: that of the canonized network minus that of the original.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64
from numpy.random import default_rng
from scipy.stats import norm, permutation_test, t, wilcoxon

from canonxai.errors import check_choice
from canonxai.results.statistics import LEVEL, RESAMPLES, bca_interval, percentile_interval

TESTS = ("wilcoxon", "sign_flip")
PERMUTATIONS, MOST_PERMUTATIONS = 9_999, 199_999
_DRAWS_AT_ONCE = 5_000_000


class Interval(NamedTuple):
    """A 95 % interval; ``None`` where it is not defined."""

    low: float | None
    high: float | None


def mean_curve(curves: Float[np.ndarray, "n steps"]) -> Float[np.ndarray, " steps"]:
    """The mean at each step over the images where it is defined; NaN if there is none."""
    return np.asarray(np.ma.masked_invalid(curves).mean(0).filled(np.nan))


def differences(original: Float[np.ndarray, " n"], canonized: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Canonized minus original, 0 where they are equal up to the rounding of float64, NaN where one is not defined.

    Else a rank test would find rounding that leans to one side to be a significant difference.
    """
    equal = np.isclose(original, canonized, rtol=1e-9, atol=1e-12)
    return np.where(equal, 0.0, canonized - original)


def interval_of_mean(difference: Float[np.ndarray, " n"]) -> Interval:
    """The 95 % BCa bootstrap interval of a mean (Efron 1987), seeded; for independent images.

    Returns:
        Nothing for fewer than two values, the value itself if all are equal up to rounding, and the percentile
        interval where the correction is not defined.
    """
    if len(difference) < 2:
        return Interval(None, None)
    if _equal(difference):
        return Interval(float(difference.mean()), float(difference.mean()))
    low, high = bca_interval(difference)
    return Interval(low, high) if np.isfinite([low, high]).all() else Interval(*percentile_interval(difference))


def _equal(difference: Float[np.ndarray, " n"]) -> bool:
    """Whether all values are the same up to the rounding that :func:`differences` allows."""
    return bool(np.ptp(difference) <= 1e-12 + 1e-9 * np.abs(difference).max())


def interval_by_class(difference: Float[np.ndarray, " n"], label: Int64[np.ndarray, " n"]) -> Interval:
    """The 95 % bootstrap interval of a mean whose images come in classes, and are alike within one.

    Whole classes are drawn with replacement (the cluster bootstrap: Davison and Hinkley 1997, section 3.8, who find
    that drawing images again within a class counts their scatter twice). With few classes percentiles are too narrow;
    they are expanded as Hesterberg (2015, section 5.3) says: the level of each side is
    ``Phi(sqrt(k / (k - 1)) t)``, with ``t`` the quantile of Student's distribution with ``k - 1`` degrees of freedom.
    Below ten classes even that covers less than 95 %.

    Returns:
        Nothing for fewer than two classes.
    """
    return _by_class(label, (difference, np.ones(len(difference), bool)))


def _by_class(label: Int64[np.ndarray, " n"], *groups: tuple[np.ndarray, np.ndarray]) -> Interval:
    """The interval of a mean over chosen images, or of the first such mean minus the second, whole classes drawn."""
    classes, place = np.unique(label, return_inverse=True)
    k = len(classes)
    if k < 2:
        return Interval(None, None)
    drawn = default_rng(0).integers(k, size=(RESAMPLES, k))
    means = []
    for values, chosen in groups:
        total, size = (np.bincount(place[chosen], weights, k)[drawn].sum(1) for weights in (values[chosen], None))
        means.append(np.divide(total, size, out=np.full(RESAMPLES, np.nan), where=size > 0))
    estimates = means[0] - means[1] if len(means) > 1 else means[0]
    tail = norm.cdf(np.sqrt(k / (k - 1)) * t.ppf((1 - LEVEL) / 2, k - 1))
    low, high = np.quantile(estimates[~np.isnan(estimates)], [tail, 1 - tail])  # some draws may have no chosen image
    return Interval(float(low), float(high))


def permutations(tests: int) -> int:
    """How many sign flips are drawn in a study of some tests: with none as far as the data, Holm's p is 0.01.

    But no more than 199,999, which are enough for a p of 0.05 in a study of 9,999 tests.
    """
    return min(max(PERMUTATIONS, 100 * tests - 1), MOST_PERMUTATIONS)


def p_value(difference: Float[np.ndarray, " n"], test: str = "wilcoxon", draws: int = PERMUTATIONS) -> float | None:
    """The two-sided p-value of a paired test that the differences are symmetric around 0.

    Args:
        difference: one an image.
        test: ``wilcoxon``, the signed-rank test (Wilcoxon 1945), or ``sign_flip``, the permutation test of the mean.
            The first is scipy's of the differences that are not 0, so that few of them get an exact p-value: its
            ``zero_method="wilcox"`` has the same statistic, but its normal approximation where 1 of 14 or more is 0.
        draws: of sign flips, seeded, > 0; where there are no more in all, each counts once.

    Returns:
        1 if all differences are 0, or for a single one, nothing if there are none.
    """
    check_choice("report.test", test, TESTS)
    if not len(difference):
        return None
    if len(difference) == 1 or not difference.any():
        return 1.0
    if test == "wilcoxon":
        return float(wilcoxon(difference[difference != 0]).pvalue)
    if 2 ** len(difference) <= draws:
        exact = permutation_test((difference,), np.mean, permutation_type="samples", vectorized=True, n_resamples=draws)
        return float(exact.pvalue)
    return _drawn_sign_flips(difference, draws)


def _drawn_sign_flips(difference: Float[np.ndarray, " n"], draws: int) -> float:
    """The share of drawn sign flips, and the data, whose mean is as far from 0 (Phipson and Smyth 2010).

    As scipy's ``permutation_test``, but 40 times as fast, since a large study needs many draws.
    """
    rng, n = default_rng(0), len(difference)
    batch = max(1, _DRAWS_AT_ONCE // n)
    total, rounding = difference.sum(), 1e-12 * np.abs(difference).sum()
    as_far = 1
    for start in range(0, draws, batch):
        rows = min(batch, draws - start)
        random = np.frombuffer(rng.bytes(rows * -(-n // 8)), np.uint8).reshape(rows, -1)
        kept = np.unpackbits(random, axis=1, count=n)  # the others are flipped
        as_far += np.count_nonzero(np.abs(2 * (kept @ difference) - total) >= abs(total) - rounding)
    return float(as_far / (draws + 1))


def cohens_d(difference: Float[np.ndarray, " n"]) -> float | None:
    """Cohen's d of paired values, ``mean / standard deviation`` (d_z in Lakens 2013); 0.2 is small, 0.8 large.

    Returns:
        0 if all differences are 0, nothing if they are otherwise equal up to rounding, or there are fewer than two.
    """
    if len(difference) >= 2 and not difference.any():
        return 0.0
    if len(difference) < 2 or _equal(difference):
        return None
    return float(difference.mean() / difference.std(ddof=1))


def probability_better(difference: Float[np.ndarray, " n"], higher_is_better: bool) -> float | None:
    """The share of images on which canonized is better, equal ones counted half: 0.5 is no effect."""
    if not len(difference):
        return None
    gain = difference if higher_is_better else -difference
    return float((gain > 0).mean() + (gain == 0).mean() / 2)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's (1979) correction: ``p_(i)`` becomes ``max_{j <= i} min(1, (m - j + 1) p_(j))``; m counts what is defined.

    >>> holm([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
    """
    defined = [i for i, p in enumerate(p_values) if p is not None]
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(defined, key=lambda i: p_values[i])):  # type: ignore[arg-type,return-value]
        largest = max(largest, min(1.0, (len(defined) - rank) * p_values[i]))  # type: ignore[operator]
        adjusted[i] = largest
    return adjusted


def interval_of_contrast(
    difference: Float[np.ndarray, " n"], chosen: Bool[np.ndarray, " n"], label: Int64[np.ndarray, " n"] | None = None
) -> Interval:
    """The 95 % bootstrap interval of the mean over the chosen images minus the mean over the others, seeded.

    Images are drawn within each of the two groups; whole classes if their labels are given, as
    :func:`interval_by_class` does.

    Returns:
        Nothing if there are fewer than two images on a side, or fewer than two classes.
    """
    if min(chosen.sum(), (~chosen).sum()) < 2:
        return Interval(None, None)
    if label is not None:
        return _by_class(label, (difference, chosen), (difference, ~chosen))
    return Interval(*percentile_interval(difference[chosen], difference[~chosen]))

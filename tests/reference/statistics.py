"""The statistics of a cell and of the report against scipy's, or slow loops where it has none."""

from itertools import combinations

import numpy as np
import scipy.stats

from canonxai.report.reliability import kendall_tau, variance_shares
from canonxai.report.statistics import cohens_d, holm, interval_of_mean, p_value
from canonxai.results.statistics import mean_with_interval
from tests.reference.comparison import Comparisons, Pairs

COMPARISONS = Comparisons("scipy")


def normal(n: int, seed: int = 1, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1, n)


def bootstrap(values: np.ndarray, method: str) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    interval = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=2000, confidence_level=0.95, method=method, rng=rng
    ).confidence_interval
    return interval.low, interval.high


@COMPARISONS("interval of a cell's mean", 1e-12, "of as many draws, in batches", "scipy.stats.bootstrap, percentile")
def percentile() -> Pairs:
    for n in (2, 3, 50, 4000):  # 4000 does not fit in one batch of draws
        values = np.random.default_rng(n).exponential(size=n)
        mean, low, high, *_ = mean_with_interval(values)
        assert low < mean < high
        yield (low, high), bootstrap(values, "percentile")
        yield mean, values.mean()


@COMPARISONS("interval of a mean difference", 1e-12, "of as many draws, in batches", "scipy.stats.bootstrap, BCa")
def bca() -> Pairs:
    for n in (2, 3, 50, 4000):
        values = np.random.default_rng(n).exponential(size=n)
        yield interval_of_mean(values), bootstrap(values, "BCa")


@COMPARISONS(
    "Wilcoxon's p", 1e-12,
    "with differences of 0 and equal ones; zero_method=wilcox, and the method that scipy's auto takes for what is left "
    "without zeros: exact to 50 values, or all sign flips to 13 with equal ones, else asymptotic; for data with zeros, "
    "auto itself is asymptotic from 14 on",
    "scipy.stats.wilcoxon",
)  # fmt: skip
def wilcoxon() -> Pairs:
    flips = scipy.stats.PermutationMethod()
    for n, method in ((2, "exact"), (12, "exact"), (40, "exact"), (60, "exact"), (300, "asymptotic")):
        values = np.where(np.arange(n) % 5 == 3, 0.0, normal(n, mean=0.2))
        yield p_value(values), scipy.stats.wilcoxon(values, zero_method="wilcox", method=method).pvalue
    for n, method in ((7, flips), (13, flips), (30, "asymptotic"), (300, "asymptotic")):
        values = np.rint(normal(n, mean=0.4, seed=3))
        assert 0 < (values == 0).sum() < n - 1
        yield p_value(values), scipy.stats.wilcoxon(values, zero_method="wilcox", method=method).pvalue


@COMPARISONS(
    "sign flip's p, few images", 1e-12, "all sign flips; of one image or of equal ones, canonxai's p is 1",
    "scipy.stats.permutation_test",
)  # fmt: skip
def sign_flips() -> Pairs:
    for n in (2, 6, 10, 12):
        values = normal(n, mean=0.6)
        expected = scipy.stats.permutation_test((values,), np.mean, permutation_type="samples", vectorized=True)
        yield p_value(values, "sign_flip"), expected.pvalue


@COMPARISONS(
    "sign flip's p, many images", 0.1, "drawn, by other generators: equal up to the scatter of 9,999 draws",
    "scipy.stats.permutation_test",
)  # fmt: skip
def drawn_sign_flips() -> Pairs:
    for n in (20, 33, 5_000):
        values = normal(n)
        values += 1.0 / n**0.5 - values.mean()
        expected = scipy.stats.permutation_test(
            (values,), np.mean, permutation_type="samples", vectorized=True, n_resamples=9_999, rng=0, batch=500
        ).pvalue
        assert 0.01 < expected < 0.5
        yield p_value(values, "sign_flip", 49_999), expected


@COMPARISONS("Cohen's d", 1e-12, "the t statistic over the root of n", "scipy.stats.ttest_1samp")
def effect_size() -> Pairs:
    values = normal(30, mean=0.4)
    yield cohens_d(values), scipy.stats.ttest_1samp(values, 0).statistic / 30**0.5


@COMPARISONS("Holm's correction", 1e-12, "scipy has none", "the step-down procedure, in a loop")
def holms() -> Pairs:
    for m in (1, 2, 10, 50):
        p_values = np.random.default_rng(m).uniform(size=m) ** 3
        expected = [0.0] * m
        largest = 0.0
        for step, index in enumerate(np.argsort(p_values)):
            largest = max(largest, p_values[index] * (m - step))
            expected[index] = min(largest, 1.0)
        yield holm(p_values.tolist()), expected


def scores_with_ties_and_gaps() -> tuple[np.ndarray, np.ndarray]:
    """Of 60 images by 7 methods; some equal, some not defined."""
    rng = np.random.default_rng(4)
    first, second = rng.integers(0, 6, (2, 60, 7)).astype(float)
    second = second + first
    first[rng.random(first.shape) < 0.2] = np.nan
    second[rng.random(first.shape) < 0.2] = np.nan
    return first, second


@COMPARISONS("Kendall's tau-b, per image", 1e-12, "with equal and undefined scores", "scipy.stats.kendalltau")
def tau() -> Pairs:
    first, second = scores_with_ties_and_gaps()
    yield (
        kendall_tau(first, second),
        [scipy.stats.kendalltau(a, b, nan_policy="omit").statistic for a, b in zip(first, second, strict=True)],
    )


@COMPARISONS(
    "share of variance of images and methods", 1e-12, "two-way without replication",
    "sums of squares of a loop",
)  # fmt: skip
def two_way() -> Pairs:
    scores = normal(30).reshape(10, 3) + normal(10, 2)[:, None] + [0, 0.5, 2]
    images, methods = scores.shape
    grand = sum(scores[i, m] for i in range(images) for m in range(methods)) / scores.size
    of_image = [sum(scores[i, m] for m in range(methods)) / methods for i in range(images)]
    of_method = [sum(scores[i, m] for i in range(images)) / images for m in range(methods)]
    total = method = image = rest = 0.0
    for i in range(images):
        for m in range(methods):
            total += (scores[i, m] - grand) ** 2
            method += (of_method[m] - grand) ** 2
            image += (of_image[i] - grand) ** 2
            rest += (scores[i, m] - of_image[i] - of_method[m] + grand) ** 2
    shares = variance_shares(scores)
    yield (shares.method, shares.image, shares.rest), (method / total, image / total, rest / total)
    yield shares.partial, method / (method + rest)


@COMPARISONS("share of variance of methods", 1e-12, "eta^2 = F df_1 / (F df_1 + df_2)", "scipy.stats.f_oneway")
def one_way() -> Pairs:
    for methods, images in combinations((2, 5, 9, 40), 2):
        scores = normal(images * methods).reshape(images, methods) + np.linspace(0, 1, methods)
        between, within = methods - 1, methods * (images - 1)
        f = scipy.stats.f_oneway(*scores.T).statistic
        yield variance_shares(scores).method, f * between / (f * between + within)

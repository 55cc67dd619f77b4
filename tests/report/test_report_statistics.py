"""Statistics of paired differences: slow textbook loops, and whether the intervals cover.

That they are scipy's where scipy has them stands in ``tests/reference``.
"""

from itertools import product
from math import sqrt

import numpy as np
import pytest
from scipy import stats

from canonxai.errors import UserError
from canonxai.report import statistics
from canonxai.report.statistics import (
    Interval,
    cohens_d,
    differences,
    holm,
    interval_by_class,
    interval_of_contrast,
    interval_of_mean,
    p_value,
    permutations,
    probability_better,
)

NOTHING = Interval(None, None)
DRAWS = 1000


def normal(n, seed=1, mean=0.0):
    return np.random.default_rng(seed).normal(mean, 1, n)


# differences


def test_a_difference_is_canonized_minus_original():
    assert differences(np.array([1.0, 0.5]), np.array([3.0, 0.25])).tolist() == [2.0, -0.25]


def test_rounding_is_no_difference_and_what_is_larger_is():
    original = np.array([0.3, 0.3, 0.0, 0.0, 1e6, 1e6])
    canonized = original + np.array([1e-13, 1e-8, 1e-13, 1e-11, 1e-4, 1e-2])
    found = differences(original, canonized)
    assert found[[0, 2, 4]].tolist() == [0, 0, 0]
    assert (found[[1, 3, 5]] > 0).all()


def test_a_rank_test_sees_nothing_in_rounding_that_leans_to_one_side():
    original = np.random.default_rng(0).uniform(size=50)
    canonized = original * (1 + 2e-16) + 1e-16
    assert (canonized > original).mean() > 0.9 and p_value(canonized - original) < 1e-6
    assert p_value(differences(original, canonized)) == 1.0


@pytest.mark.parametrize(("original", "canonized"), [(np.nan, 0.5), (0.5, np.nan), (np.nan, np.nan)])
def test_what_one_side_does_not_define_has_no_difference(original, canonized):
    assert np.isnan(differences(np.array([original, 1.0]), np.array([canonized, 1.0]))).tolist() == [True, False]


# intervals


def bca(values, resamples=2000):
    """Efron's formula, in a loop over a bootstrap of its own."""
    rng, n = np.random.default_rng(5), len(values)
    means = np.array([rng.choice(values, n).mean() for _ in range(resamples)])
    z0 = stats.norm.ppf((means < values.mean()).mean())
    jackknife = np.array([np.delete(values, i).mean() for i in range(n)])
    scatter = jackknife.mean() - jackknife
    acceleration = (scatter**3).sum() / (6 * (scatter**2).sum() ** 1.5)
    shifted = z0 + stats.norm.ppf([0.025, 0.975])
    return np.quantile(means, stats.norm.cdf(z0 + shifted / (1 - acceleration * shifted)))


def test_interval_of_mean_is_as_efrons_formula():
    values = np.random.default_rng(3).exponential(size=60)
    low, high = interval_of_mean(values)
    assert (low, high) == pytest.approx(tuple(bca(values)), abs=0.03 * (high - low) + 0.01)
    assert high - values.mean() > values.mean() - low  # leans to the side of the long tail


def by_class(difference, label, seed=0):
    """The cluster bootstrap with Hesterberg's expanded percentiles, class by class."""
    classes = sorted(set(label.tolist()))
    k = len(classes)
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(2000):
        drawn = [classes[i] for i in rng.integers(k, size=k)]
        means.append(np.concatenate([difference[label == c] for c in drawn]).mean())
    tail = stats.norm.cdf(sqrt(k / (k - 1)) * stats.t.ppf(0.025, k - 1))
    return np.quantile(means, [tail, 1 - tail])


@pytest.mark.parametrize("sizes", [[5] * 8, [1, 2, 3, 10, 4, 20], [3, 1]])
def test_interval_by_class_is_the_cluster_bootstrap_of_the_textbook(sizes):
    label = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)) * 7, sizes))
    values = normal(len(label)) + label
    assert interval_by_class(values, label) == pytest.approx(tuple(by_class(values, label)))


def test_interval_by_class_is_wider_the_fewer_the_classes_and_moves_with_the_values():
    values, label = normal(60), np.arange(60) % 6
    interval = interval_by_class(values, label)
    means = np.bincount(label, values)[np.random.default_rng(0).integers(6, size=(2000, 6))].mean(1) / 10
    assert interval.low < np.quantile(means, 0.025) and interval.high > np.quantile(means, 0.975)
    assert interval_by_class(3 * values + 2, label) == pytest.approx(tuple(3 * np.array(interval) + 2))


@pytest.mark.parametrize("function", [interval_of_mean, lambda d: interval_by_class(d, np.arange(len(d)))])
def test_nothing_and_one_value_have_no_interval(function):
    assert function(np.array([])) == function(np.array([0.5])) == NOTHING


def test_one_class_has_no_interval():
    assert interval_by_class(normal(9), np.full(9, 3)) == NOTHING


@pytest.mark.parametrize("n", [2, 37])
@pytest.mark.parametrize("value", [0.0, 0.1, -3.0])
def test_equal_values_have_an_interval_without_width(value, n):
    values = np.full(n, value)
    expected = pytest.approx((value, value), abs=1e-15)
    assert interval_of_mean(values) == expected
    assert interval_by_class(values, np.arange(n)) == expected
    assert interval_of_contrast(np.r_[values, values], np.arange(2 * n) < n) == pytest.approx((0, 0), abs=1e-15)


@pytest.mark.parametrize("scatter", [[1e-300, 0.0], [1.0, 1.0, 1.0 + 2e-16], [0.3, 0.3 - 1e-16, 0.3, 0.3 + 1e-16]])
def test_values_that_are_equal_up_to_rounding_count_as_equal(scatter):
    values = np.array(scatter)
    interval = interval_of_mean(values)
    assert interval.low == interval.high == pytest.approx(values.mean())
    assert cohens_d(values) is None


def test_two_images_have_an_interval_from_one_to_the_other():
    assert interval_of_mean(np.array([0.0, 1.0])) == (0, 1)


@pytest.mark.parametrize("function", [interval_of_mean, lambda d: interval_of_contrast(d, np.arange(len(d)) < 20)])
def test_equal_values_give_equal_intervals_whatever_the_state_of_numpy(function):
    np.random.seed(1)
    first = function(normal(50))
    np.random.seed(2)
    assert function(normal(50)) == first


def test_interval_of_contrast_is_the_percentile_bootstrap_of_both_groups():
    values, chosen = normal(90) + 3 * (np.arange(90) < 30), np.arange(90) < 30
    rng = np.random.default_rng(9)
    draws = [rng.choice(values[chosen], 30).mean() - rng.choice(values[~chosen], 60).mean() for _ in range(4000)]
    assert interval_of_contrast(values, chosen) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.04)


def test_interval_of_contrast_changes_its_sign_with_the_groups():
    values, chosen = normal(80), np.arange(80) < 40
    low, high = interval_of_contrast(values, chosen)
    assert interval_of_contrast(values, ~chosen) == pytest.approx((-high, -low), abs=0.05)
    assert interval_of_contrast(-values, chosen) == pytest.approx((-high, -low), abs=0.05)


@pytest.mark.parametrize("chosen", [[False] * 4, [True] * 4, [True, False, False, False], [True, True, True, False]])
def test_a_contrast_needs_two_images_on_both_sides(chosen):
    assert interval_of_contrast(normal(4), np.array(chosen)) == NOTHING
    assert interval_of_contrast(normal(4), np.array(chosen), np.arange(4)) == NOTHING


def test_interval_of_contrast_by_class_draws_whole_classes():
    label = np.repeat(np.arange(5), [4, 6, 8, 3, 5])
    values, chosen = normal(26) + label, np.arange(26) % 3 == 0
    rng, k = np.random.default_rng(0), 5
    found = []
    for _ in range(2000):
        rows = np.concatenate([np.flatnonzero(label == c) for c in rng.integers(k, size=k)])
        found.append(values[rows][chosen[rows]].mean() - values[rows][~chosen[rows]].mean())
    tail = stats.norm.cdf(sqrt(k / (k - 1)) * stats.t.ppf(0.025, k - 1))
    expected = tuple(np.quantile(found, [tail, 1 - tail]))
    assert interval_of_contrast(values, chosen, label) == pytest.approx(expected)
    assert interval_of_contrast(values, chosen, np.zeros(26, int)) == NOTHING


def test_draws_in_which_one_side_has_no_image_are_left_out():
    label = np.repeat([0, 1, 2], 10)  # class 0 alone is chosen
    interval = interval_of_contrast(normal(30), label == 0, label)
    assert np.isfinite(interval).all() and interval.low <= interval.high


# whether 95 % intervals cover the truth in 95 % of all samples


def coverage(intervals, truth):
    return np.mean([interval.low <= truth <= interval.high for interval in intervals])


@pytest.fixture
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 1000)


def correlated(classes, draws=DRAWS, size=10, seed=11, mean=0.3):
    """Images of which a third of the variance is their class's: one row a sample, and their labels."""
    rng = np.random.default_rng((seed, classes))
    label = np.repeat(np.arange(classes), size)
    of_class = rng.normal(0, 0.7, (draws, classes))
    return mean + of_class[:, label] + rng.normal(0, 1, (draws, classes * size)), label


@pytest.mark.parametrize(
    ("draw", "truth"),
    [(lambda rng, shape: rng.normal(0.3, 1, shape), 0.3), (lambda rng, shape: rng.gamma(4, 1, shape), 4)],
    ids=["normal", "skewed"],
)
def test_interval_of_mean_covers_the_truth_in_95_of_100_samples(draw, truth, fewer_resamples):
    samples = draw(np.random.default_rng(200), (DRAWS, 200))
    assert 0.93 <= coverage(map(interval_of_mean, samples), truth) <= 0.97


@pytest.mark.parametrize("classes", [10, 40])
def test_interval_by_class_covers_the_truth_in_95_of_100_samples_of_correlated_images(classes, fewer_resamples):
    samples, label = correlated(classes)
    assert 0.93 <= coverage((interval_by_class(sample, label) for sample in samples), 0.3) <= 0.97


def test_interval_by_class_also_covers_where_classes_differ_in_size(fewer_resamples):
    samples, label = correlated(40)
    kept = np.concatenate([np.flatnonzero(label == c)[: 3 + c % 8] for c in range(40)])
    assert 0.93 <= coverage((interval_by_class(s[kept], label[kept]) for s in samples), 0.3) <= 0.97


def test_of_correlated_images_the_interval_by_image_covers_too_little(fewer_resamples):
    samples, label = correlated(10, draws=300)
    assert coverage(map(interval_of_mean, samples), 0.3) < 0.80
    assert coverage((interval_by_class(s, label) for s in samples), 0.3) > 0.92


def test_interval_of_contrast_covers_the_truth_in_95_of_100_samples(fewer_resamples):
    chosen = np.arange(160) < 60
    samples = np.random.default_rng(7).normal(0, 1, (DRAWS, 160)) + 0.5 * chosen
    assert 0.93 <= coverage((interval_of_contrast(s, chosen) for s in samples), 0.5) <= 0.97


def test_interval_of_contrast_by_class_covers_the_truth_in_95_of_100_samples_of_classes_that_gain_unlike(
    fewer_resamples,
):
    samples, label = correlated(40)
    chosen = np.random.default_rng(0).permutation(400) < 160
    slope = np.random.default_rng(13).normal(0.5, 0.7, (DRAWS, 40))  # the contrast is another one in each class
    samples = samples + slope[:, label] * chosen
    assert 0.93 <= coverage((interval_of_contrast(s, chosen, label) for s in samples), 0.5) <= 0.97
    assert coverage((interval_of_contrast(s, chosen) for s in samples[:300]), 0.5) < 0.93


# tests


def test_wilcoxon_leaves_out_differences_of_zero():
    values = normal(20, mean=0.5)
    assert p_value(np.r_[values, np.zeros(30)]) == p_value(values) < 0.2


@pytest.mark.parametrize("n", [2, 5, 9])
def test_wilcoxon_of_few_images_counts_all_signs(n):
    values = normal(n, mean=0.5)
    ranks = np.argsort(np.argsort(np.abs(values))) + 1
    centre = ranks.sum() / 2
    deviation = np.abs(ranks[values > 0].sum() - centre)
    sums = [np.dot(signs, ranks) for signs in product([0, 1], repeat=n)]
    assert p_value(values) == pytest.approx(np.mean(np.abs(np.array(sums) - centre) >= deviation))


def flips(values):
    """The share of all sign flips with a mean as far from 0."""
    means = np.array([np.mean(values * signs) for signs in product([-1, 1], repeat=len(values))])
    return np.mean(np.abs(means) >= np.abs(values.mean()) * (1 - 1e-12))


@pytest.mark.parametrize(
    "values", [[0.5], [0.5, 1.0], [0.5, -1.0], [1.0, 2, 3, 4, 5, 6], normal(10, mean=0.6), normal(12), [0.1] * 8]
)
def test_sign_flips_of_few_images_are_all_counted(values):
    values = np.array(values)
    assert p_value(values, "sign_flip") == pytest.approx(flips(values))


def test_sign_flips_of_many_images_are_drawn_and_agree_with_students_test():
    values = normal(200, mean=0.12)
    expected = stats.ttest_1samp(values, 0).pvalue
    assert 0.01 < expected < 0.5
    assert p_value(values, "sign_flip") == pytest.approx(expected, rel=0.15)
    assert p_value(values, "sign_flip") == p_value(values.copy(), "sign_flip")
    assert p_value(values + 5, "sign_flip") == pytest.approx(1 / 10_000)  # none as far, of 9,999 and the data


@pytest.mark.parametrize(
    ("tests", "draws"), [(1, 9_999), (100, 9_999), (250, 24_999), (1_999, 199_899), (10**6, 199_999)]
)
def test_there_are_enough_sign_flips_for_holms_correction_up_to_a_limit(tests, draws):
    assert permutations(tests) == draws
    p = p_value(normal(40, mean=3), "sign_flip", 9_999)
    assert p == 1e-4  # 250 times which is not below 0.01
    assert (tests / (permutations(tests) + 1) <= 0.01) == (tests < 2_000)


@pytest.mark.parametrize("test", ["wilcoxon", "sign_flip"])
def test_a_p_value_of_nothing_of_one_image_and_of_no_difference(test):
    assert p_value(np.array([]), test) is None
    assert p_value(np.array([0.7]), test) == 1.0
    assert p_value(np.zeros(1), test) == p_value(np.zeros(30), test) == 1.0
    assert p_value(np.r_[np.zeros(30), 0.7], test) > 0.9


@pytest.mark.parametrize("test", ["wilcoxon", "sign_flip"])
def test_a_test_does_not_care_for_the_direction_and_finds_a_clear_difference(test):
    values = normal(40, mean=1)
    assert p_value(values, test) == pytest.approx(p_value(-values, test), rel=0.5)
    assert p_value(values, test) < 0.001 < 0.05 < p_value(normal(40) - normal(40).mean(), test)


@pytest.mark.parametrize("test", ["wilcoxon", "sign_flip"])
def test_a_test_finds_a_difference_where_there_is_none_in_5_of_100_samples(test):
    samples = np.random.default_rng(3).normal(0, 1, (600, 40))
    assert 0.03 <= np.mean([p_value(sample, test, 999) < 0.05 for sample in samples]) <= 0.07


def test_an_unknown_test_is_told():
    with pytest.raises(UserError, match="^report.test: expected one of wilcoxon, sign_flip, got 't'"):
        p_value(normal(3), "t")


# effect sizes


def test_cohens_d_is_the_mean_over_the_standard_deviation_of_a_sample():
    assert cohens_d(np.array([1.0, 2.0, 3.0])) == pytest.approx(2.0) == -cohens_d(-np.array([1.0, 2.0, 3.0]))


@pytest.mark.parametrize(
    ("values", "expected"), [([], None), ([0.5], None), ([0.0], None), ([0.0, 0.0], 0.0), ([0.1] * 5, None)]
)
def test_cohens_d_without_scatter(values, expected):
    assert cohens_d(np.array(values)) == expected


def test_cohens_d_of_rounding_is_not_a_number_with_15_digits():
    original = np.random.default_rng(0).uniform(size=40)
    shifted = differences(original, original + 0.1)
    assert np.ptp(shifted) > 0 and cohens_d(shifted) is None


@pytest.mark.parametrize(
    ("values", "higher", "expected"),
    [
        ([], True, None), ([0.0, 0.0], True, 0.5), ([0.0, 0.0], False, 0.5), ([1.0, 2.0, 3.0, -1.0], True, 0.75),
        ([1.0, 2.0, 3.0, -1.0], False, 0.25), ([1.0, 0.0], True, 0.75), ([-1.0], False, 1.0),
    ],
)  # fmt: skip
def test_probability_better_counts_equal_images_half(values, higher, expected):
    assert probability_better(np.array(values), higher) == expected


# Holm's correction


def test_holm_of_published_examples():
    # R: p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm"), and the four p of the Wikipedia's example
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_rejects_exactly_what_the_step_down_procedure_rejects():
    p_values = (np.random.default_rng(0).uniform(size=20) ** 4).tolist()
    rejected = set()
    for step, index in enumerate(sorted(range(20), key=p_values.__getitem__)):
        if p_values[index] > 0.05 / (20 - step):
            break
        rejected.add(index)
    assert {i for i, p in enumerate(holm(p_values)) if p <= 0.05} == rejected
    assert 0 < len(rejected) < 20


def test_holm_leaves_out_what_is_not_defined_and_keeps_its_place():
    assert holm([]) == [] and holm([None, None]) == [None, None]
    assert holm([None, 0.01, None, 0.04]) == [None, *holm([0.01, 0.04])[:1], None, 0.04]
    assert holm([0.9, 0.8, 0.7]) == [1.0, 1.0, 1.0]
    assert holm([0.02, 0.02]) == [0.04, 0.04]


def test_a_mean_curve_is_at_each_step_over_the_images_where_it_is_defined():
    curves = np.array([[1.0, 2.0], [np.nan, 5.0], [3.0, 4.0]])
    assert statistics.mean_curve(curves).tolist() == [2, 11 / 3]
    assert statistics.mean_curve(curves[[0, 2]]).tolist() == [2, 3]
    np.testing.assert_array_equal(statistics.mean_curve(curves[1:2]), [np.nan, 5])

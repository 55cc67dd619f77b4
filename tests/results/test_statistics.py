"""Means and their bootstrap intervals, and whether these cover; scipy's stand in ``tests/reference``."""

import numpy as np
import pytest

from canonxai.results import statistics
from canonxai.results.statistics import Mean, mean_with_interval


def test_undefined_values_are_counted_and_left_out():
    values = np.random.default_rng(0).normal(size=30)
    with_nan = np.insert(values, [0, 7, 7, 30], np.nan)
    assert mean_with_interval(with_nan) == mean_with_interval(values)._replace(undefined=4)


@pytest.mark.parametrize("undefined", [0, 3])
def test_nothing_has_no_mean_and_one_value_no_interval(undefined):
    nan = [np.nan] * undefined
    assert mean_with_interval(np.array(nan, dtype=float)) == Mean(None, None, None, 0, undefined)
    assert mean_with_interval(np.array([*nan, 0.25])) == Mean(0.25, None, None, 1, undefined)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e30])
@pytest.mark.parametrize("n", [2, 37])
def test_interval_of_equal_values_has_no_width(value, n):
    result = mean_with_interval(np.full(n, value))
    assert result.low == result.high == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize("power", [-1000, 1000, 1020])
def test_the_scale_of_values_changes_nothing_else(power):
    values = np.random.default_rng(0).uniform(-1, 8, size=30)
    expected = mean_with_interval(values)
    assert mean_with_interval(np.ldexp(values, power))[:3] == tuple(np.ldexp(expected[:3], power))
    assert expected.mean == values.mean()


def test_equal_values_have_equal_intervals_whatever_the_state_of_numpy():
    values = np.random.default_rng(0).normal(size=30)
    np.random.seed(1)
    first = mean_with_interval(values)
    np.random.seed(2)
    assert mean_with_interval(values.copy()) == first


def test_interval_moves_and_scales_with_the_values():
    values = np.random.default_rng(0).normal(size=30)
    result, moved = mean_with_interval(values), mean_with_interval(3 * values + 5)
    assert moved[:3] == pytest.approx([3 * value + 5 for value in result[:3]])


def test_95_percent_interval_covers_the_truth_about_95_times_in_100(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 500)
    draws = np.random.default_rng(0).normal(1, 2, size=(300, 50))
    covered = [result.low < 1 < result.high for result in map(mean_with_interval, draws)]
    assert 0.90 < np.mean(covered) < 0.98

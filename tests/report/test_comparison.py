"""Comparisons: every number against a slow recomputation from the files, and what is left out of it."""

from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from canonxai.errors import UserError
from canonxai.report.cells import read_study
from canonxai.report.comparison import (
    Comparison,
    Result,
    Statistics,
    columns,
    comparisons,
    count_tests,
    results,
    warnings,
)
from canonxai.report.report import Report
from canonxai.report.statistics import interval_by_class, interval_of_mean, p_value
from canonxai.results.statistics import mean_with_interval
from tests.report.study import METHODS, MODELS, values_of, write_cell, write_study

LIMITS = {"all": np.inf, "box < 50 %": 0.5, "box < 25 %": 0.25}
METRICS = {"localization": True, "input_perturbation": True, "distance": None}


def compare(folder, **statistics):
    return comparisons(read_study([folder]), Statistics(**statistics))


def row(rows, **keys):
    (found,) = [row for row in rows if all(getattr(row, key) == value for key, value in keys.items())]
    return found


def compare_pair(folder, original, canonized, statistics=None, **options):
    """The comparison of localization over all images of one pair with these values."""
    for canonize, values in enumerate(np.broadcast_arrays(original, canonized)):
        write_cell(folder, canonize=bool(canonize), values={"localization": values}, **options)
    return row(compare(folder, **(statistics or {})), metric="localization", stratum="all")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study in which some values are not defined."""
    folder = write_study(tmp_path_factory.mktemp("study"), methods=METHODS[:3])
    for canonize, holes in [(False, [0, 3, 4]), (True, [3, 8])]:
        values = values_of("resnet18", "ebp", canonize)
        values["localization"][holes] = np.nan
        write_cell(folder, method="ebp", canonize=canonize, values=values)
    return read_study([folder])


@pytest.fixture(scope="module")
def rows(study):
    return comparisons(study, Statistics())


def table(cell):
    frame = pq.read_table(cell.folder / "samples.parquet").to_pydict()
    return [dict(zip(frame, values, strict=True)) for values in zip(*frame.values(), strict=True)]


def both_defined(pair, metric, stratum):
    """The values of original and canonized and the labels, image by image, from the files."""
    twins = {sample["sample_id"]: sample for sample in table(pair.canonized)}
    found = [
        (sample[metric], twins[sample["sample_id"]][metric], sample["label"])
        for sample in table(pair.original)
        if sample["box_fraction"] < LIMITS[stratum]
    ]
    kept = [values for values in found if None not in values]
    return (*np.array(kept).T, len(found) - len(kept))


# results


def test_results_are_the_means_of_every_cell_metric_and_stratum(study):
    found = results(study, Statistics())
    assert len(found) == len(study.cells) * len(METRICS) * len(LIMITS)
    for cell in study.cells:
        for metric in METRICS:
            for stratum, limit in LIMITS.items():
                values = [sample[metric] for sample in table(cell) if sample["box_fraction"] < limit]
                defined = [value for value in values if value is not None]
                one = row(found, cell=cell.name, metric=metric, stratum=stratum)
                assert (one.images, one.undefined) == (len(defined), len(values) - len(defined))
                assert one.mean == pytest.approx(np.mean(defined)) and one.low <= one.mean <= one.high
                assert (one.model, one.method, one.title, one.state) == (
                    cell.model,
                    cell.method,
                    cell.title,
                    cell.state,
                )
                assert one.higher_is_better is METRICS[metric]


def test_results_are_what_the_cells_own_summaries_say(study):
    for one in results(study, Statistics()):
        cell = next(cell for cell in study.cells if cell.name == one.cell)
        expected = cell.summary["metrics"][one.metric]["strata"][one.stratum]
        assert (one.mean, one.low, one.high, one.images, one.undefined) == tuple(
            expected[key] for key in ("mean", "low", "high", "n", "undefined")
        )


def test_means_of_states_are_drawn_by_class_where_differences_are(study):
    by_class = Statistics(resample="class")
    found, compared = results(study, by_class), comparisons(study, by_class)
    for pair in study.pairs:
        keys = {"model": pair.canonized.model, "method": pair.canonized.method, "metric": "localization"}
        original, canonized, label, _ = both_defined(pair, "localization", "all")
        one = row(compared, stratum="all", **keys)
        for side, values in (("original", original), ("canonized", canonized)):
            expected = pytest.approx(tuple(interval_by_class(values, label.astype(np.int64))))
            assert (getattr(one, f"{side}_low"), getattr(one, f"{side}_high")) == expected
        samples = [s for s in table(pair.original) if s["localization"] is not None]
        values, label = (np.array([s[key] for s in samples]) for key in ("localization", "label"))
        one = row(found, cell=pair.original.name, metric="localization", stratum="all")
        assert (one.mean, one.images) == (pytest.approx(values.mean()), len(values))
        assert (one.low, one.high) == pytest.approx(tuple(interval_by_class(values, label.astype(np.int64))))


def test_a_mean_by_class_needs_all_labels():
    values, label = np.arange(4.0), np.array([0, 0, 1, np.nan])
    assert Statistics(resample="class").mean(values, label) == (1.5, None, None, 4, 0)
    assert Statistics().mean(values, label) == mean_with_interval(values)


# comparisons


def test_there_is_a_row_for_every_pair_metric_and_stratum(study, rows):
    assert len(rows) == len(MODELS) * 3 * len(METRICS) * len(LIMITS)
    assert len({(r.model, r.method, r.metric, r.stratum) for r in rows}) == len(rows)
    assert {r.state for r in rows} == {"canonized"}


def test_every_number_is_that_of_a_slow_recomputation(study, rows):
    for pair in study.pairs:
        for metric, direction in METRICS.items():
            for stratum in LIMITS:
                original, canonized, _, undefined = both_defined(pair, metric, stratum)
                difference = canonized - original
                cell = pair.canonized
                found = row(rows, model=cell.model, method=cell.method, metric=metric, stratum=stratum)
                assert (found.images, found.undefined) == (len(difference), undefined)
                assert found.difference == pytest.approx(difference.mean(), abs=1e-15)
                for side, values in (("original", original), ("canonized", canonized)):
                    expected = mean_with_interval(values)
                    assert getattr(found, side) == pytest.approx(values.mean())
                    assert getattr(found, f"{side}_low") == expected.low
                    assert getattr(found, f"{side}_high") == expected.high
                assert (found.low, found.high) == pytest.approx(tuple(interval_of_mean(difference)))
                if not difference.any():
                    assert (found.cohens_d, found.low, found.high, found.effect) == (0, 0, 0, "equal")
                else:
                    assert found.cohens_d == pytest.approx(difference.mean() / difference.std(ddof=1))
                if direction is None:
                    assert found.p is found.p_holm is found.probability_better is None
                elif difference.any():
                    assert found.p == pytest.approx(stats.wilcoxon(difference).pvalue)
                    assert found.probability_better == (difference > 0).mean()
                else:
                    assert (found.p, found.probability_better) == (1, 0.5)


def test_what_one_side_does_not_define_is_counted_and_never_in_a_mean(study, rows):
    found = row(rows, model="resnet18", method="ebp", metric="localization", stratum="all")
    assert (found.images, found.undefined) == (36, 4)
    numbers = [getattr(r, f.name) for r in rows for f in fields(r) if isinstance(getattr(r, f.name), float)]
    assert np.isfinite(numbers).all()
    cell = row(
        results(study, Statistics()),
        model="resnet18",
        method="ebp",
        state="original",
        metric="localization",
        stratum="all",
    )
    assert (cell.images, cell.undefined) == (37, 3)


def test_strata_hold_the_images_with_smaller_boxes_only(tmp_path):
    """An image without an object has no small box."""
    box = np.array([0.1, 0.2, 0.25, 0.3, 0.49, 0.5, 0.51, 0.9, 0.0])
    values = 10.0 ** np.arange(9)
    compare_pair(tmp_path, 0.0, values, box_fraction=box)
    expected = {
        "all": (9, pytest.approx(111_111_111 / 9)),
        "box < 50 %": (5, pytest.approx(11_111 / 5)),
        "box < 25 %": (2, pytest.approx(11 / 2)),
    }
    assert {r.stratum: (r.images, r.canonized) for r in compare(tmp_path)} == expected
    of_cells = results(read_study([tmp_path]), Statistics())
    assert {r.stratum: (r.images, r.mean) for r in of_cells if r.state == "canonized"} == expected


def test_holm_corrects_for_all_tests_of_the_study(rows):
    tested = [r for r in rows if r.p is not None]
    assert len(tested) == len(MODELS) * 3 * 2 * len(LIMITS)
    largest, ordered = 0.0, sorted(tested, key=lambda r: r.p)
    for rank, r in enumerate(ordered):
        largest = max(largest, min(1, r.p * (len(tested) - rank)))
        assert r.p_holm == pytest.approx(largest)


def test_the_same_pair_is_judged_more_strictly_in_a_larger_study(tmp_path):
    write_study(tmp_path / "small", models=["resnet18"], methods=["ebp"])
    write_study(tmp_path / "large", models=["resnet18"], methods=METHODS)
    small, large = (row(compare(tmp_path / name), method="ebp", metric="localization", stratum="all")
                    for name in ("small", "large"))  # fmt: skip
    assert small.p == large.p and small.p_holm < large.p_holm


# effects in words

UP = np.linspace(0.1, 0.3, 20)
NOISE = np.random.default_rng(0).normal(0, 0.1, 20)


@pytest.mark.parametrize(
    ("direction", "difference", "effect"),
    [
        (True, UP, "better"), (True, -UP, "worse"), (False, UP, "worse"), (False, -UP, "better"),
        (None, UP, "no direction"), (None, -UP, "no direction"), (True, NOISE, "undecided"),
        (False, NOISE, "undecided"), (True, 0.0, "equal"), (False, 0.0, "equal"), (None, 0.0, "equal"),
        (True, 1e-14, "equal"), (True, 0.2, "better"), (False, 0.2, "worse"), (True, np.nan, "undefined"),
        (None, np.nan, "undefined"),
    ],
)  # fmt: skip
def test_an_effect_in_words(tmp_path, direction, difference, effect):
    options = {"higher_is_better": {"localization": direction}, "box_fraction": 0.6, "sample_id": np.arange(20)}
    found = compare_pair(tmp_path, 0.5, 0.5 + np.asarray(difference), **options)
    assert found.effect == effect
    if direction is False and effect in ("better", "worse"):
        assert found.probability_better == float(effect == "better")
        assert np.sign(found.difference) == (1 if effect == "worse" else -1)  # it stays canonized minus original


def test_an_interval_without_a_significant_test_is_no_effect(tmp_path):
    found = compare_pair(tmp_path, 0.5, 0.5 + UP[:4], box_fraction=0.6)
    assert found.low > 0 and found.p == 0.125
    assert found.effect == "undecided"


def test_a_significant_test_without_an_interval_is_no_effect(tmp_path):
    difference = np.array([*UP, *UP, -4.5])  # the ranks say up, the mean is carried away by one image
    found = compare_pair(tmp_path, 0.5, 0.5 + difference, box_fraction=0.6)
    assert found.p_holm < 0.001 and found.low < 0 < found.high
    assert found.effect == "undecided"


@pytest.mark.parametrize("test", ["wilcoxon", "sign_flip"])
@pytest.mark.parametrize("resample", ["image", "class"])
@pytest.mark.parametrize("difference", [0.3, 0.0])
def test_one_image_has_a_difference_and_nothing_is_decided(tmp_path, test, resample, difference):
    found = compare_pair(tmp_path, [0.5], [0.5 + difference], {"test": test, "resample": resample})
    assert (found.images, found.difference, found.p) == (1, pytest.approx(difference), 1.0)
    assert found.low is found.high is found.cohens_d is None
    assert found.effect == "undecided"


def test_a_stratum_without_images_is_undefined(tmp_path):
    compare_pair(tmp_path, [0.5, 0.6], [0.7, 0.8], box_fraction=0.6)
    found = row(compare(tmp_path), stratum="box < 25 %")
    assert (found.images, found.undefined, found.difference, found.p, found.effect) == (0, 0, None, None, "undefined")


def test_equal_maps_up_to_rounding_are_equal_and_not_tested(tmp_path):
    values = np.random.default_rng(0).uniform(size=40)
    found = compare_pair(tmp_path, values, values * (1 + 4e-16) + 1e-16)
    assert (found.difference, found.low, found.high, found.p, found.effect) == (0, 0, 0, 1.0, "equal")


# how it is judged


def test_the_chosen_test_and_what_is_drawn_are_used(tmp_path):
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(8), 5)
    difference = rng.normal(0.02, 0.1, 8)[label] + rng.normal(0, 0.05, 40)
    compare_pair(tmp_path, 0.5, 0.5 + difference, label=label)
    rows = [row(compare(tmp_path, **statistics), stratum="all")
            for statistics in ({}, {"test": "sign_flip"}, {"resample": "class"})]  # fmt: skip
    difference = 0.5 + difference - 0.5
    by_image, by_class = interval_of_mean(difference), interval_by_class(difference, label)
    assert rows[0].p == pytest.approx(stats.wilcoxon(difference).pvalue)
    assert rows[1].p == p_value(difference, "sign_flip") != rows[0].p
    assert (rows[0].low, rows[0].high) == (rows[1].low, rows[1].high) == pytest.approx(tuple(by_image))
    assert (rows[2].low, rows[2].high) == pytest.approx(tuple(by_class)) and rows[2].p == rows[0].p


@pytest.mark.parametrize("keys", [{"test": "t"}, {"resample": "pixel"}])
def test_an_unknown_statistic_is_told(keys):
    with pytest.raises(UserError, match="^report.(test|resample): expected one of"):
        Statistics(**keys)


def test_variants_have_rows_of_their_own(tmp_path):
    for epsilon in (1e-6, 0.5):
        for canonize in (False, True):
            values = {"localization": 0.2 + (canonize * epsilon)}
            write_cell(tmp_path, canonize=canonize, values=values, settings={"method.epsilon": epsilon})
    rows = [r for r in compare(tmp_path) if r.stratum == "all"]
    assert {r.variant: round(r.difference, 9) for r in rows} == {
        "method.epsilon=1e-06": 1e-6,
        "method.epsilon=0.5": 0.5,
    }


def test_columns_are_the_rows_by_name(study, rows):
    found = columns(rows, Comparison)
    assert list(found) == [f.name for f in fields(Comparison)]
    assert found["difference"] == [r.difference for r in rows]
    assert list(columns([], Result)) == [f.name for f in fields(Result)] and set(map(len, found.values())) == {
        len(rows)
    }


def test_a_clear_effect_is_found_by_sign_flips_in_a_large_study(tmp_path):
    """Of 60 pairs, so 360 tests, 9,999 permutations could find nothing."""
    study = read_study([write_study(tmp_path, ["lrp_eps"], ["resnet18"])])
    many = replace(study, pairs=list(study.pairs) * 60)
    assert count_tests(many) == 360
    found = [r for r in comparisons(many, Statistics(test="sign_flip")) if r.metric == "localization"]
    assert max(r.p_holm for r in found) == pytest.approx(0.01) and {r.effect for r in found} == {"better"}
    assert warnings(many, Statistics(test="sign_flip")) == []


def test_a_study_too_large_for_sign_flips_is_told(tmp_path):
    study = read_study([write_study(tmp_path, ["lrp_eps"], ["resnet18"])])
    too_many = replace(study, pairs=list(study.pairs) * 1_667)
    (told,) = warnings(too_many, Statistics(test="sign_flip"))
    assert (told.kind, told.cell) == ("note", "report.test=sign_flip")
    assert told.reason.startswith("cannot find an effect: 199,999 permutations are too few")
    assert warnings(too_many, Statistics()) == []
    assert warnings(replace(study, pairs=list(study.pairs) * 1_666), Statistics(test="sign_flip")) == []


# the study in a sentence


def sentence(rows, pairs=1):
    report = SimpleNamespace(comparisons=rows, study=SimpleNamespace(pairs=[None] * pairs))
    return Report.sentence.fget(report)


def test_the_sentence_counts_effects_over_all_images_and_names_the_largest(rows):
    text = sentence(rows, pairs=6)
    counted = [r for r in rows if r.stratum == "all" and r.metric != "distance"]
    assert text.startswith("6 pairs of canonized and original maps, 12 comparisons over all images: ")
    for effect in {r.effect for r in counted}:
        assert f"{sum(r.effect == effect for r in counted)} {effect}" in text
    largest = max(counted, key=lambda r: abs(r.difference))
    assert f"The largest: {largest.metric} of LRP-ε on {largest.model}" in text
    assert f"{largest.original:.3f} → {largest.canonized:.3f} (+{largest.difference:.3f} [" in text


def test_the_sentence_tells_which_of_several_variants_is_the_largest(rows):
    largest = max(
        (r for r in rows if (r.metric, r.stratum) == ("localization", "all")), key=lambda r: abs(r.difference)
    )
    first, second = replace(largest, variant="seed=0"), replace(largest, variant="seed=1", data="b", difference=9.0)
    assert f"on {largest.model}, b, seed=1, " in sentence([first, second])
    assert f"on {largest.model}, {largest.original:.3f}" in sentence([first])


def test_the_sentence_of_pairs_without_a_metric_that_has_a_direction(rows):
    undirected = [row for row in rows if row.higher_is_better is None]
    expected = "6 pairs of canonized and original maps, but no metric of which more or less is better."
    assert sentence(undirected, pairs=6) == expected


def test_the_sentence_of_a_study_without_pairs_and_of_one_that_defines_nothing():
    assert sentence([], pairs=0) == "No canonized cell has an original twin: there is nothing to compare."
    nothing = Comparison(*[""] * 6, "m", "all", True, 0, 3)
    assert "1 undefined" in sentence([nothing]) and "– → –" in sentence([nothing])

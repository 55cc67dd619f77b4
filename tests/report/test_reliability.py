"""Random floor, agreement between metrics, and share of the method, against slow loops and scipy; and what may lack."""

from itertools import combinations

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.stats

from canonxai.report.build import build_report
from canonxai.report.cells import read_study
from canonxai.report.claims import read_claims
from canonxai.report.comparison import Statistics
from canonxai.report.figures import reliability as figure
from canonxai.report.html import write_html
from canonxai.report.reliability import kendall_tau, variance_shares
from canonxai.report.report import Report
from canonxai.report.statistics import holm, interval_of_mean, p_value
from tests.report.study import IMAGES, METHODS, MODELS, values_of, write_cell, write_study

JUDGED = ("localization", "input_perturbation", "sparseness", "complexity")


def read(folder, **options):
    return Report(read_study([folder]), Statistics(**options), read_claims("icip2022"))


def scores(method, metric, images=IMAGES):
    """Numbers of a metric: what the image, the method, and both together make of it; complexity has gaps and is low."""
    seed = sum(map(ord, method + metric))
    of_image = np.random.default_rng(sum(map(ord, metric))).normal(0, 0.3, images)
    values = of_image + 0.2 * (seed % 7) * (method != "random") + np.random.default_rng(seed).normal(0, 0.2, images)
    if metric == "complexity":
        values[seed % 5 :: 7] = np.nan
    return values


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    for method in METHODS:
        write_cell(folder, method=method, canonize=False, values={metric: scores(method, metric) for metric in JUDGED})
    return folder


@pytest.fixture(scope="module")
def report(folder):
    return read(folder)


# ---------------------------------------------------------------- against loops


def test_the_floor_is_each_methods_paired_difference_to_the_random_map(report):
    rows = report.reliability.floor
    assert [(row.metric, row.method) for row in rows] == [
        (m, n) for m in JUDGED for n in ("gradient", "ebp", "lrp_eps")
    ]
    for row in rows:
        floor, own = scores("random", row.metric), scores(row.method, row.metric)
        difference = np.array([b - a for a, b in zip(floor, own, strict=True) if not np.isnan(a + b)])
        assert (row.images, row.undefined) == (len(difference), IMAGES - len(difference))
        assert row.difference == pytest.approx(difference.mean()) == pytest.approx(row.value - row.random)
        assert (row.low, row.high) == pytest.approx(interval_of_mean(difference))
        assert row.p == pytest.approx(p_value(difference))
    assert [row.p_holm for row in rows] == pytest.approx(holm([row.p for row in rows]))
    assert {row.undefined > 0 for row in rows if row.metric == "complexity"} == {True}


def test_metrics_that_are_fixed_for_random_maps_have_no_floor(tmp_path):
    for method in METHODS:
        values = {"localization": scores(method, "localization"), "random_logit": 1.0, "local_lipschitz": 0.0}
        write_cell(tmp_path, method=method, canonize=False, values=values)
    report = read(tmp_path)
    assert {row.metric for row in report.reliability.floor} == {"localization"}
    assert {row.metric for row in report.reliability.variance} == {"localization", "random_logit", "local_lipschitz"}
    write_html(report, tmp_path / "report.html", [])
    text = (tmp_path / "report.html").read_text()
    assert "(random logit, local lipschitz)" in text or "(local lipschitz, random logit)" in text


def test_effects_are_told_by_the_metrics_direction(report):
    for row in report.reliability.floor:
        if row.low <= 0 <= row.high or row.p_holm >= 0.05:
            assert row.effect == "undecided"
        else:
            assert row.effect == ("better" if (row.difference > 0) == (row.metric != "complexity") else "worse")
    assert {row.effect for row in report.reliability.floor} == {"better", "worse", "undecided"}


@pytest.mark.filterwarnings("ignore")  # scipy: that too few methods are defined for an image
def test_agreement_is_kendalls_tau_of_scipy(report):
    rows = report.reliability.agreement
    assert [(row.metric, row.other) for row in rows] == list(combinations(JUDGED, 2))
    methods = [method for method in METHODS if method != "random"]
    for row in rows:
        sign = [-1 if metric == "complexity" else 1 for metric in (row.metric, row.other)]
        both = np.array(
            [[s * scores(m, metric) for m in methods] for s, metric in zip(sign, (row.metric, row.other), strict=True)]
        )
        both[:, np.isnan(both).any(0)] = np.nan
        assert row.tau == pytest.approx(scipy.stats.kendalltau(*np.nanmean(both, 2)).statistic)
        taus = [scipy.stats.kendalltau(*both[:, :, i], nan_policy="omit").statistic for i in range(IMAGES)]
        assert row.tau_per_image == pytest.approx(np.nanmean(taus))
        assert (row.methods, row.images) == (3, np.isfinite(taus).sum())
    assert min(row.tau for row in rows) < 1


def test_variance_is_that_of_images_where_all_methods_are_defined(report):
    for row in report.reliability.variance:
        values = np.array([scores(m, row.metric) for m in METHODS if m != "random"]).T
        values = values[~np.isnan(values).any(1)]
        assert (row.methods, row.images, row.undefined) == (3, len(values), IMAGES - len(values))
        total = ((values - values.mean()) ** 2).sum()
        between = sum(len(values) * (values[:, m].mean() - values.mean()) ** 2 for m in range(3))
        assert row.method == pytest.approx(between / total)
        assert row.method + row.image + row.rest == pytest.approx(1)
        assert row.partial == pytest.approx(row.method / (1 - row.image))


# ---------------------------------------------------------------- known answers


def test_tau_of_known_orders():
    order = np.arange(5.0)
    swapped = np.array([0.0, 1, 2, 4, 3])
    first, second = np.stack([order] * 5), np.stack([order, -order, swapped, np.zeros(5), order])
    second[4, 1:] = np.nan
    np.testing.assert_allclose(kendall_tau(first, second), [1, -1, 0.8, np.nan, np.nan])
    assert kendall_tau(np.zeros((3, 0)), np.zeros((3, 0))).shape == (3,)


def test_variance_of_methods_alone_of_images_alone_and_of_both_together():
    images, methods = np.arange(6.0)[:, None] * np.ones(3), np.ones((6, 1)) * np.arange(3.0)
    assert tuple(vars(variance_shares(methods)).values()) == pytest.approx((1, 0, 0, 1))
    assert tuple(vars(variance_shares(images)).values())[:3] == pytest.approx((0, 1, 0))
    shares = variance_shares(images + methods)
    assert (shares.rest, shares.partial) == pytest.approx((0, 1))
    assert shares.method == pytest.approx((2 / 3) / (2 / 3 + 35 / 12))
    crossed = variance_shares((images - 2.5) * (methods - 1))
    assert (crossed.method, crossed.image, crossed.rest) == pytest.approx((0, 0, 1))


@pytest.mark.parametrize(
    "values", [np.zeros((0, 3)), np.ones((1, 3)), np.ones((3, 1)), np.full((4, 3), 0.1), np.zeros((4, 0))]
)
def test_without_two_images_two_methods_or_variance_there_are_no_shares(values):
    assert set(vars(variance_shares(values)).values()) == {None}


# ---------------------------------------------------------------- what is a panel, and what may lack


def test_networks_states_and_settings_are_panels_of_their_own(tmp_path):
    write_study(tmp_path, methods=("ebp", "random"))
    for method in ("ebp", "random"):
        values = values_of("resnet18", method, False)
        write_cell(tmp_path, method=method, canonize=False, values=values, settings={"seed": 1})
    panels = read(tmp_path).reliability.panels
    assert [panel.place for panel in panels] == [
        ("scenes", "resnet18", "canonized", ""),
        *(("scenes", "resnet18", "original", f"data.seed={seed}, seed={seed}") for seed in (0, 1)),
        *(("scenes", "vgg16_bn", state, "") for state in ("canonized", "original")),
    ]
    assert [[cell.method for cell in panel.cells] for panel in panels] == [["ebp", "random"]] * 5
    assert [panel.name for panel in panels][-1] == "vgg16_bn on scenes, original"


def test_ways_of_canonization_are_panels_of_their_own_and_those_of_originals_no_matter(tmp_path):
    cells = [
        ("ebp", True, True),
        ("random", True, True),
        ("ebp", True, False),
        ("ebp", False, True),
        ("random", False, True),
    ]
    for method, canonize, exact in cells:
        write_cell(tmp_path, method=method, canonize=canonize, settings={"canonizer.exact": exact})
    write_cell(tmp_path, method="gbp", canonize=False, settings={"canonizer.exact": False})
    panels = {
        (panel.state, panel.variant): [cell.method for cell in panel.cells]
        for panel in read(tmp_path).reliability.panels
    }
    assert panels == {
        ("canonized", "canonizer.exact=False"): ["ebp"],
        ("canonized", "canonizer.exact=True"): ["ebp", "random"],
        ("original", ""): ["gbp", "ebp", "random"],
    }


def test_one_method_with_several_parameters_is_several_methods(tmp_path):
    for epsilon in (1e-6, 0.1):
        write_cell(
            tmp_path, values={"localization": np.linspace(0, 1, 9) + epsilon}, settings={"method.epsilon": epsilon}
        )
    (panel,) = read(tmp_path).reliability.panels
    assert sorted(panel.names) == ["LRP-ε (epsilon=0.1)", "LRP-ε (epsilon=1e-06)"]
    (row,) = read(tmp_path).reliability.variance
    assert row.methods == 2 and row.method is not None


def test_images_that_not_all_methods_have_are_left_out(tmp_path):
    for method, images in (("ebp", range(4, 30)), ("gradient", range(20)), ("random", range(30))):
        ids = np.array(images)
        write_cell(
            tmp_path, method=method, canonize=False, values={"localization": ids / 10 + (method == "ebp")},
            sample_id=ids, label=ids % 3, settings={"data.size": 30},
        )  # fmt: skip
    report = read(tmp_path)
    (row,) = report.reliability.variance
    assert (row.images, row.undefined) == (16, 0)
    by_method = {row.method: row for row in report.reliability.floor}
    assert (by_method["ebp"].images, by_method["ebp"].difference) == (16, pytest.approx(1))
    assert by_method["gradient"].effect == "equal"


def test_methods_without_a_common_image_are_no_panel(tmp_path):
    for method, start in (("ebp", 0), ("gradient", 20)):
        write_cell(
            tmp_path,
            method=method,
            canonize=False,
            values={"localization": np.linspace(0, 1, 20)},
            sample_id=start + np.arange(20),
        )
    assert not read(tmp_path).reliability.panels


@pytest.mark.parametrize("resample", ["image", "class"])
def test_intervals_are_drawn_as_the_report_draws_them(folder, resample):
    rows = read(folder, resample=resample).reliability.floor
    assert all(row.low <= row.difference <= row.high for row in rows)
    assert (rows[0].low == read(folder).reliability.floor[0].low) == (resample == "image")


def test_without_random_maps_there_is_no_floor(tmp_path):
    write_study(tmp_path, methods=("ebp", "gradient"))
    report = read(tmp_path)
    assert not report.reliability.floor and len(report.reliability.variance) == 12


@pytest.mark.parametrize("methods", [("ebp",), ("random",), ("ebp", "random")])
def test_of_one_method_there_is_no_order_and_nothing_to_explain(tmp_path, methods):
    write_study(tmp_path, methods=methods, models=MODELS[:1])
    found = read(tmp_path).reliability
    assert {row.tau for row in found.agreement} == {row.tau_per_image for row in found.agreement} == {None}
    assert {row.method for row in found.variance} == {None}
    assert not list(figure.draw(read(tmp_path)))


def test_one_metric_agrees_with_none(tmp_path):
    write_study_of_one_metric(tmp_path)
    found = read(tmp_path).reliability
    assert not found.agreement and len(found.floor) == 2 and len(found.variance) == 1


def write_study_of_one_metric(folder):
    for method in ("gradient", "ebp", "random"):
        write_cell(folder, method=method, canonize=False, values={"localization": scores(method, "localization")})


def test_a_metric_that_one_method_lacks_and_one_that_is_never_defined(tmp_path):
    for method in ("gradient", "ebp", "lrp_eps", "random"):
        values = {"localization": scores(method, "localization"), "sparseness": np.full(IMAGES, np.nan)}
        if method == "gradient":
            values["sparseness"] = scores(method, "sparseness")
        if method == "lrp_eps":
            values["localization"] = np.full(IMAGES, np.nan)
        write_cell(tmp_path, method=method, canonize=False, values=values)
    report = read(tmp_path)
    rows = {row.metric: row for row in report.reliability.variance}
    assert (rows["localization"].methods, rows["localization"].images) == (2, IMAGES)
    assert (rows["sparseness"].methods, rows["sparseness"].method) == (1, None)
    assert {row.effect for row in report.reliability.floor if row.metric == "sparseness"} == {"undefined"}
    (row,) = report.reliability.agreement
    assert (row.tau, row.tau_per_image, row.images) == (None, None, 0)


# ---------------------------------------------------------------- what is written


def test_tables_hold_what_was_computed_and_figures_are_drawn(report, folder, tmp_path):
    build_report([folder], tmp_path)
    for name in ("floor", "agreement", "variance"):
        rows = pq.read_table(tmp_path / f"reliability_{name}.parquet").to_pylist()
        assert rows == [vars(row) for row in getattr(report.reliability, name)]
        assert (tmp_path / f"reliability_{name}.csv").read_text().count("\n") == len(rows) + 1
    assert (tmp_path / "figures" / "reliability-scenes-resnet18-original.png").is_file()


def test_the_figure_shows_every_tau_and_every_share(report):
    ((name, drawn),) = figure.draw(report)
    assert name == "reliability-scenes-resnet18-original"
    matrix, bars = drawn.axes
    texts = {text.get_position(): text.get_text() for text in matrix.texts}
    assert len(texts) == 12
    for row in report.reliability.agreement:
        first, second = JUDGED.index(row.metric), JUDGED.index(row.other)
        assert float(texts[second, first].replace("−", "-")) == pytest.approx(row.tau, abs=0.006)
        assert float(texts[first, second].replace("−", "-")) == pytest.approx(row.tau_per_image, abs=0.006)
    for container, share in zip(bars.containers, ("method", "image", "rest"), strict=True):
        widths = [patch.get_width() for patch in container]
        assert widths == pytest.approx([getattr(row, share) for row in report.reliability.variance])

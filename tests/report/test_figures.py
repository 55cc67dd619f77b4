"""What is drawn is what the study says."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.distance import cosine

from canonxai.errors import UserError
from canonxai.report.cells import Cell, read_study
from canonxai.report.claims import read_claims
from canonxai.report.comparison import Comparison, Statistics
from canonxai.report.figures import curves, draw_all, grid, heatmaps, localization, perturbation, scatter
from canonxai.report.figures.style import CANONIZED, ORIGINAL, save
from canonxai.report.report import Report
from tests.report.study import image_columns, values_of, write_cell, write_study

TITLES = {"gradient": "Gradient", "ebp": "EBP", "lrp_eps": "LRP-ε", "random": "random"}  # in the literature's order
LIMITS = {"all": np.inf, "box < 50 %": 0.5, "box < 25 %": 0.25}
DRAWS = [heatmaps.draw, localization.draw, perturbation.draw, curves.draw, scatter.draw]
BOX = image_columns()["box_fraction"]


def read(folder: Path) -> Report:
    return Report(read_study([folder]), Statistics(), read_claims("icip2022"))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return read(write_study(tmp_path_factory.mktemp("study"), maps=4))


def comparison(report: Report, **wanted: str) -> Comparison:
    (row,) = (r for r in report.comparisons if all(getattr(r, key) == value for key, value in wanted.items()))
    return row


def cell(report: Report, model: str, method: str, state: str) -> Cell:
    (found,) = (c for c in report.study.cells if (c.model, c.method, c.state) == (model, method, state))
    return found


def segments(axes: Axes) -> list[tuple[float, float, float]]:
    """(y, low, high) of all horizontal intervals, from the top."""
    lines = [c for c in axes.collections if isinstance(c, LineCollection)]
    return sorted((line[0][1], line[0][0], line[1][0]) for c in lines for line in c.get_segments())


def names(axis_labels: list[Text]) -> list[str]:
    return [label.get_text() for label in axis_labels]


def test_localization_draws_means_intervals_and_the_box(report: Report) -> None:
    ((name, figure),) = localization.draw(report)
    assert name == "localization"
    axes = np.reshape(figure.axes, (2, 3))
    for line, model in zip(axes, ("resnet18", "vgg16_bn"), strict=True):
        assert line[0].get_ylabel() == model
        assert names(line[0].get_yticklabels()) == list(TITLES.values())
        for panel, (stratum, limit) in zip(line, LIMITS.items(), strict=True):
            assert panel.get_title() == f"{stratum}, n = {(limit > BOX).sum()}"
            assert_allclose(panel.lines[0].get_xdata(), BOX[limit > BOX].mean())
            rows = [comparison(report, model=model, method=m, metric="localization", stratum=stratum) for m in TITLES]
            expected = []
            for canonize, bars in enumerate(panel.containers):
                assert bars.get_label() == ("canonized" if canonize else "original")
                assert {to_hex(bar.get_facecolor()).upper() for bar in bars} == {CANONIZED if canonize else ORIGINAL}
                for place, (bar, method) in enumerate(
                    zip(sorted(bars, key=lambda bar: bar.get_y()), TITLES, strict=True)
                ):
                    value = values_of(model, method, bool(canonize))["localization"][limit > BOX].mean()
                    assert_allclose([bar.get_x(), bar.get_width()], [0, value])
                    y = place + (0.2 if canonize else -0.2)
                    assert_allclose(bar.get_y() + bar.get_height() / 2, y)
                    row = rows[place]
                    interval = (
                        (row.canonized_low, row.canonized_high) if canonize else (row.original_low, row.original_high)
                    )
                    expected.append((y, *interval))
            assert_allclose(segments(panel), sorted(expected))
    assert names(figure.legends[0].get_texts()) == ["original", "canonized", "mean box fraction"]


def test_localization_of_undefined_values_and_empty_strata(tmp_path: Path) -> None:
    large = {"box_fraction": np.append(np.linspace(0.3, 0.9, 8), 0)}  # the last image has no object
    for canonize in (False, True):
        for method, missing in (("lrp_eps", 3), ("ebp", 1)):
            values = np.linspace(0.1, 0.9, 9)
            values[[*range(missing), 8]] = np.nan
            write_cell(tmp_path, "resnet18", method, canonize, {"localization": values}, **large)
    ((_, figure),) = localization.draw(read(tmp_path))
    assert [axes.get_title() for axes in figure.axes] == ["all, n = 5–7", "box < 50 %, n = 2"]
    assert [[len(bars) for bars in axes.containers] for axes in figure.axes] == [[2, 2], [1, 1]]
    assert_allclose(figure.axes[0].lines[0].get_xdata(), np.linspace(0.3, 0.9, 8).mean())


def test_differences_of_all_models_with_intervals(report: Report) -> None:
    drawn = dict(perturbation.draw(report))
    assert sorted(drawn) == ["difference-input_perturbation", "difference-localization"]  # distance has no direction
    for metric in ("localization", "input_perturbation"):
        figure = drawn[f"difference-{metric}"]
        (axes,) = figure.axes
        assert names(axes.get_yticklabels()) == list(TITLES.values())
        assert axes.get_ylim()[0] > axes.get_ylim()[1]
        points = {line.get_label(): line for line in axes.lines if line.get_marker() not in ("None", None)}
        assert list(points) == ["resnet18", "vgg16_bn"] == names(figure.legends[0].get_texts())
        assert len({line.get_marker() for line in points.values()}) == 2
        expected = []
        for model, line in points.items():
            rows = [comparison(report, model=model, method=m, metric=metric, stratum="all") for m in TITLES]
            first, second = (
                values_of(model, m, True)[metric] - values_of(model, m, False)[metric] for m in ("ebp", "lrp_eps")
            )
            x, y = np.asarray(line.get_data())[:, np.argsort(line.get_ydata())]
            assert_allclose(x[[1, 2]], [first.mean(), second.mean()])
            assert_array_equal(np.round(y), range(4))
            expected += [(at, row.low, row.high) for at, row in zip(y, rows, strict=True)]
        assert_allclose(segments(axes), sorted(expected))
        assert axes.get_title(loc="right") == "canonized is better →"


def test_the_arrow_points_to_what_is_better(tmp_path: Path) -> None:
    for canonize in (False, True):
        values = {"localization": np.linspace(0, 0.5, 12) + canonize * np.linspace(0.1, 0.3, 12)}
        write_cell(tmp_path, canonize=canonize, values=values, higher_is_better={"localization": False})
    ((_, figure),) = perturbation.draw(read(tmp_path))
    assert figure.axes[0].get_title(loc="left") == "← canonized is better"
    assert figure.axes[0].get_title(loc="right") == ""


def test_more_models_than_colours_remain_distinct(tmp_path: Path) -> None:
    for seed in range(8):
        for canonize in (False, True):
            write_cell(tmp_path, canonize=canonize, settings={"seed": seed})
    ((_, figure),) = perturbation.draw(read(tmp_path))
    points = [line for line in figure.axes[0].lines if line.get_marker() not in ("None", None)]
    assert len({(line.get_color(), line.get_marker()) for line in points}) == len(points) == 8
    assert sorted(str(line.get_label()) for line in points) == [f"resnet18\ndata.seed={i}, seed={i}" for i in range(8)]
    places = [float(np.asarray(line.get_ydata())[0]) for line in points]
    assert len(set(places)) == 8
    assert min(places) > -0.5 and max(places) < 0.5


def test_curves_are_means_with_their_standard_errors(report: Report) -> None:
    ((name, figure),) = curves.draw(report)
    assert name == "curves-perturbation_curve"
    panels = iter(figure.axes)
    for model in ("resnet18", "vgg16_bn"):
        for method, title in TITLES.items():
            axes = next(panels)
            assert axes.get_title() == title
            assert axes.get_ylabel() == (model if method == "gradient" else "")
            lines = {str(line.get_label()): line for line in axes.lines}
            assert [line.get_linestyle() for line in lines.values()] == ["--", "-"]
            assert lines["original"].get_zorder() > lines["canonized"].get_zorder()  # where equal, both are seen
            for band, (state, line) in zip(axes.collections, lines.items(), strict=True):
                found = cell(report, model, method, state)
                values = found.curve("perturbation_curve")
                assert_allclose(line.get_xdata(), np.linspace(0, 0.2, 21))
                assert_allclose(line.get_ydata(), found.summary["curves"]["perturbation_curve"]["mean"])
                half = 1.96 * values.std(0, ddof=1) / np.sqrt(40)
                y = band.get_paths()[0].vertices[:, 1]  # start, lower, end, upper backwards
                assert_allclose(y[1:22], values.mean(0) - half)
                assert_allclose(y[23:44][::-1], values.mean(0) + half)
    assert next(panels, None) is None
    assert names(figure.legends[0].get_texts()) == ["original", "canonized"]


def test_curves_of_shared_images_only_and_of_a_single_one(tmp_path: Path) -> None:
    for canonize, ids in ((False, [1, 2]), (True, [2, 3])):
        shared = {"label": [i % 3 for i in ids], "prediction": [0, 0], "probability": [0.5 + i / 10 for i in ids]}
        box = [i / 10 for i in ids]
        values = {"input_perturbation": np.array([0.1, 0.3]), "localization": np.array([0.2, 0.4])}
        write_cell(
            tmp_path, canonize=canonize, values=values, sample_id=ids, box_fraction=box, **shared,
            settings={"data.size": 3},
        )  # fmt: skip
    report = read(tmp_path)
    ((_, figure),) = curves.draw(report)
    (axes,) = figure.axes
    for line, row in zip(axes.lines, (1, 0), strict=True):
        assert_allclose(
            line.get_ydata(),
            cell(report, "resnet18", "lrp_eps", str(line.get_label())).curve("perturbation_curve")[row],
        )
    assert not axes.collections
    for name, figure in scatter.draw(report):
        (points,) = (c for c in figure.axes[0].collections if isinstance(c, PathCollection))
        expected = 0.2 - 0.4 if "localization" in name else 0.1 - 0.3
        assert_allclose(points.get_offsets(), [[0.2, expected]])


def test_curves_are_over_the_images_where_a_step_is_defined(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((4, 21))
    values[0, 3] = values[1, 3] = np.nan
    values[:3, 7] = np.nan
    for canonize in (False, True):
        measured = {"input_perturbation": 0.1, "perturbation_curve": values}
        write_cell(tmp_path, canonize=canonize, values=measured, **image_columns(4))
    ((_, figure),) = curves.draw(read(tmp_path))
    (axes,) = figure.axes
    mean, n = np.nanmean(values, 0), np.isfinite(values).sum(0)
    half = 1.96 * np.nanstd(values[:, n > 1], 0, ddof=1) / np.sqrt(n[n > 1])
    for band, line in zip(axes.collections, axes.lines, strict=True):
        assert_allclose(line.get_ydata(), mean)
        drawn = {(round(x, 9), round(y, 9)) for path in band.get_paths() for x, y in path.vertices}
        edges = np.round(np.linspace(0, 0.2, 21)[n > 1], 9), np.round([mean[n > 1] - half, mean[n > 1] + half], 9)
        assert drawn == {(x, y) for edge in edges[1] for x, y in zip(edges[0], edge, strict=True)}


def test_panels_wrap_and_the_lowest_have_tick_labels() -> None:
    figure, blocks = grid.panels([7, 2])
    first, second = blocks
    places = [(a.get_subplotspec().rowspan.start, a.get_subplotspec().colspan.start) for a in [*first, *second]]
    assert places == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (1, 1), (2, 0), (2, 1)]
    labelled = [a for a in figure.axes if a.xaxis.get_tick_params()["labelbottom"]]
    assert labelled == [first[2], first[3], first[4], second[0], second[1]]
    assert first[0].get_shared_x_axes().joined(first[0], second[1])


def test_scatter_draws_each_image(report: Report) -> None:
    drawn = dict(scatter.draw(report))
    metrics, models = ("localization", "input_perturbation"), ("resnet18", "vgg16_bn")
    assert sorted(drawn) == sorted(f"scatter-{metric}-scenes-{model}" for metric in metrics for model in models)
    for metric in metrics:
        for model in models:
            figure = drawn[f"scatter-{metric}-scenes-{model}"]
            assert [axes.get_title() for axes in figure.axes] == ["EBP", "LRP-ε"]
            for axes, method in zip(figure.axes, ("ebp", "lrp_eps"), strict=True):
                difference = values_of(model, method, True)[metric] - values_of(model, method, False)[metric]
                (points,) = axes.collections
                assert_allclose(points.get_offsets(), np.stack([BOX, difference], axis=1), atol=1e-9)
            title = f"{model} on scenes; no difference on any image: Gradient; random"
            assert figure.get_suptitle().replace("\n", " ") == title


def test_scatter_leaves_out_what_is_not_defined(tmp_path: Path) -> None:
    for canonize in (False, True):
        values = np.array([0.1, np.nan, 0.3, 0.9]) if canonize else np.array([0.2, 0.2, 0.2, 0.2])
        write_cell(tmp_path, canonize=canonize, values={"localization": values}, box_fraction=[0.1, 0.2, 0.3, 0])
    report = read(tmp_path)
    ((_, figure),) = scatter.draw(report)
    assert_allclose(figure.axes[0].collections[0].get_offsets(), [[0.1, -0.1], [0.3, 0.1]])
    assert figure.get_suptitle() == "resnet18 on scenes"


def maps_of(axes: Axes) -> np.ndarray:
    return np.asarray(axes.images[0].get_array())


@pytest.mark.parametrize("sample", [0, 2])
def test_heatmaps_crosses_and_distances(report: Report, sample: int) -> None:
    ((name, figure),) = heatmaps.draw(report, [sample])
    assert name == f"heatmaps-{sample}"
    axes = np.reshape(figure.axes, (4, 5))
    assert [panel.get_title() for panel in axes[0]] == ["", *TITLES.values()]
    rows = [(model, state) for model in ("resnet18", "vgg16_bn") for state in ("original", "canonized")]
    for line, (model, state) in zip(axes, rows, strict=True):
        assert line[1].get_ylabel() == state
        assert line[0].get_ylabel() == (model if state == "original" else "")
        if state == "original":
            maps = cell(report, model, "ebp", state).maps
            assert maps is not None
            assert_array_equal(maps_of(line[0]), maps["image"][sample].transpose(1, 2, 0))
            assert len(line[0].collections) == 2  # the box: yellow on black
        for panel, method in zip(line[1:], TITLES, strict=True):
            stored = {s: cell(report, model, method, s).maps for s in ("original", "canonized")}
            original, canonized = (stored[s]["heatmap"][sample] for s in ("original", "canonized"))  # type: ignore[index]
            drawn = original if state == "original" else canonized
            assert_array_equal(maps_of(panel), drawn)
            limit = np.abs(drawn).max()
            assert panel.images[0].get_clim() == (-limit, limit)
            assert panel.images[0].get_cmap() == heatmaps.RELEVANCE
            (cross,) = panel.lines
            (x,), (y,) = np.asarray(cross.get_data())
            assert drawn[int(y), int(x)] == drawn.max()
            assert (cross.get_marker(), cross.get_color()) == ("x", "black")
            distance = cosine(original.ravel().astype(float), canonized.ravel().astype(float))
            assert names(panel.texts) == ([] if state == "original" else [f"{distance:.3f}"])


def test_the_sign_of_relevance_can_be_read_in_grey_print() -> None:
    red, green, blue, _ = heatmaps.RELEVANCE(np.linspace(0, 1, 255)).T
    grey = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
    assert (np.diff(grey) > 0).all()
    assert min(grey[127] - grey[0], grey[254] - grey[127]) > 0.2
    assert red[127] == green[127] == blue[127]
    assert (red[128:] > blue[128:]).all() and (blue[:127] > red[:127]).all()


def test_the_most_different_samples_are_drawn(report: Report) -> None:
    distances = []
    for pair in report.study.pairs:
        original, canonized = (c.maps["heatmap"].reshape(4, -1).astype(float) for c in (pair.original, pair.canonized))
        distances.append([cosine(*maps) for maps in zip(original, canonized, strict=True)])
    ranked = [f"heatmaps-{i}" for i in np.argsort(np.mean(distances, 0))[::-1]]
    assert [name for name, _ in heatmaps.draw(report)] == ranked[:3]
    assert [name for name, _ in heatmaps.draw(report, count=1)] == ranked[:1]
    assert [name for name, _ in heatmaps.draw(report, count=9)] == ranked
    assert not list(heatmaps.draw(report, count=0))
    assert [name for name, _ in heatmaps.draw(report, [3, 1, 3])] == ["heatmaps-3", "heatmaps-1"]


def test_samples_that_are_not_stored(report: Report, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"samples: expected one of those .*\(0, 1, 2, 3\), got 17. Only the first maps .*save_maps"
    ):
        list(heatmaps.draw(report, [0, 17]))
    with pytest.raises(UserError, match=r"count: expected an integer >= 0, got -1"):
        list(heatmaps.draw(report, count=-1))
    write_study(tmp_path, ["ebp"], ["resnet18"], maps=4)
    write_study(tmp_path, ["random"], ["resnet18"], maps=2)
    write_study(tmp_path, ["lrp_eps"], ["resnet18"])
    several = read(tmp_path)
    with pytest.raises(UserError, match=r"samples: .*\(0, 1\), got 2"):
        list(heatmaps.draw(several, [2]))
    drawn = dict(heatmaps.draw(several))
    assert sorted(drawn) == ["heatmaps-0", "heatmaps-1"]
    assert [axes.get_title() for axes in drawn["heatmaps-0"].axes[:3]] == ["", "EBP", "random"]


def test_images_of_other_data_settings_have_pictures_of_their_own(tmp_path: Path) -> None:
    for seed in (0, 1):
        label = np.arange(8) % 5 + 5 * seed
        settings = {"seed": seed, "study": "s"}
        write_study(tmp_path, ["ebp"], ["resnet18"], images=8, maps=2, settings=settings, label=label, prediction=label)
    drawn = dict(heatmaps.draw(read(tmp_path), [1]))
    titles = {name: figure.get_suptitle() for name, figure in drawn.items()}
    assert titles == {
        f"heatmaps-1-data.seed={seed}": f"scenes (data.seed={seed}), image 1 of class {5 * seed + 1}" for seed in (0, 1)
    }
    assert all(len(figure.axes) == 4 for figure in drawn.values())  # two states of one pair
    ranked = [int(name.split("-")[1]) for name, _ in heatmaps.draw(read(tmp_path))]
    assert sorted(ranked) == [0, 0, 1, 1]


def test_an_empty_map_has_no_cross_and_no_distance(tmp_path: Path) -> None:
    write_study(tmp_path, ["ebp"], ["resnet18"], maps=2)
    (folder,) = (pair.canonized.folder for pair in read(tmp_path).study.pairs)
    arrays = dict(np.load(folder / "maps.npz"))
    arrays["heatmap"][1] = 0
    np.savez(folder / "maps.npz", **arrays)
    drawn = dict(heatmaps.draw(read(tmp_path)))
    assert list(drawn) == ["heatmaps-0", "heatmaps-1"]
    panel = drawn["heatmaps-1"].axes[3]
    assert not panel.lines
    assert names(panel.texts) == ["–"]


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Two data sets, a part of the canonizer, and a method with two parameters."""
    folder = write_study(tmp_path_factory.mktemp("varied"), ["gradient", "lrp_eps"], ["resnet18"], maps=1)
    shared = image_columns()
    for canonize in (False, True):
        for epsilon in (0.001, 0.1):
            values = values_of("resnet18", "ebp", canonize)
            write_cell(
                folder,
                "resnet18",
                "lrp_eps_plus",
                canonize,
                values,
                maps=1,
                settings={"method.epsilon": epsilon},
                **shared,
            )
        values = values_of("resnet18", "lrp_eps", canonize)
        write_cell(
            folder,
            "resnet18",
            "lrp_eps",
            canonize,
            values,
            data="imagenet",
            maps=1,
            settings={"data.root": "x"},
            **shared,
        )
    values = values_of("resnet18", "ebp", True)
    parts = {"canonizer.parts": ["merge_bn"]}
    write_cell(folder, "resnet18", "lrp_eps", True, values, maps=1, settings=parts, **shared)
    return read(folder)


def test_data_sets_states_and_variants_have_their_pictures(varied: Report) -> None:
    pictures = ["-imagenet", "-scenes", "-scenes-merge_bn"]
    drawn = {name: figure for draw in DRAWS for name, figure in draw(varied)}
    metrics = ("localization", "input_perturbation")
    assert sorted(drawn) == sorted(
        ["heatmaps-0-imagenet", "heatmaps-0-scenes"]
        + [f"localization{end}" for end in pictures]
        + [f"difference-{metric}{end}" for metric in metrics for end in pictures]
        + [f"curves-perturbation_curve{end}" for end in pictures]
        + [f"scatter-{m}-{d}-resnet18" for m in metrics for d in ("imagenet", "scenes")]
        + [f"scatter-{m}-scenes-resnet18-merge_bn" for m in metrics]
    )
    networks = ["resnet18", "resnet18\nmethod.epsilon=0.001", "resnet18\nmethod.epsilon=0.1"]
    bars = np.reshape(drawn["localization-scenes"].axes, (3, 3))
    assert sorted(line[0].get_ylabel() for line in bars) == networks
    assert [names(line[0].get_yticklabels()) for line in bars] == [["Gradient", "LRP-ε"], ["LRP-ε,z⁺"], ["LRP-ε,z⁺"]]
    assert names(drawn["localization-scenes-merge_bn"].legends[0].get_texts())[:2] == ["original", "merge_bn"]
    maps = np.reshape(drawn["heatmaps-0-scenes"].axes, (7, 4))
    assert [line[1].get_ylabel() for line in maps] == ["original", "canonized", "merge_bn"] + [
        "original",
        "canonized",
    ] * 2
    assert [[bool(panel.images) for panel in line] for line in maps] == [
        [True, True, True, False], [False, True, True, False], [False, False, True, False],
        *[[True, False, False, True], [False, False, False, True]] * 2,
    ]  # fmt: skip
    changed = drawn["scatter-localization-scenes-resnet18"].axes
    variants = ["LRP-ε,z⁺\nmethod.epsilon=0.001", "LRP-ε,z⁺\nmethod.epsilon=0.1"]
    assert sorted(axes.get_title() for axes in changed) == ["LRP-ε", *variants]


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("kind", ["originals only", "no direction, no maps, no curves", "undefined"])
def test_nothing_is_drawn_where_there_is_nothing(tmp_path: Path, draw: Callable[..., object], kind: str) -> None:
    if kind == "originals only":
        write_study(tmp_path, ["ebp"], ["resnet18"], states=[False], maps=2)
    else:
        values = {"distance": 0.5} if kind.startswith("no") else {"localization": np.nan}
        for canonize in (False, True):
            write_cell(tmp_path, canonize=canonize, values=values, label=np.arange(6) % 3)
    assert not list(draw(read(tmp_path)))  # type: ignore[call-overload]


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    figure.draw_without_rendering()
    beyond = {label for axes in figure.axes for label in _labels_beyond(axes)}
    shown = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text() and t not in beyond]
    boxes = [(t.get_text(), t.get_window_extent()) for t in shown]
    return [
        (first, second)
        for i, (first, a) in enumerate(boxes)
        for second, b in boxes[:i]
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
    ]


def _labels_beyond(axes: Axes) -> list[Text]:
    """The labels of ticks outside the axes, which are not drawn."""
    labels = []
    for i, axis in enumerate((axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        labels += [label for label in axis.get_ticklabels() if not low <= label.get_position()[i] <= high]
    return labels


def test_overlapping_labels_are_found() -> None:
    figure = Figure()
    figure.text(0.5, 0.5, "one")
    figure.text(0.51, 0.5, "two")
    assert overlapping(figure) == [("two", "one")]


@pytest.mark.parametrize("study", ["report", "varied"])
def test_no_label_covers_another(study: str, request: pytest.FixtureRequest) -> None:
    for draw in DRAWS:
        for name, figure in draw(request.getfixturevalue(study)):
            assert (name, overlapping(figure)) == (name, [])


@pytest.mark.parametrize("maximum, side", [((0, 0), "right"), ((15, 0), "right"), ((15, 15), "left"), ((9, 9), "left")])
def test_the_distance_does_not_cover_the_cross(maximum: tuple[int, int], side: str) -> None:
    heatmap = np.zeros((16, 16))
    heatmap[maximum] = 1
    axes = Figure().subplots()
    heatmaps._corner(axes, 0.5, heatmap)
    (text,) = axes.texts
    assert text.get_horizontalalignment() == side


def test_files_are_the_same_twice(report: Report, tmp_path: Path) -> None:
    for attempt in ("first", "second"):
        for draw in DRAWS:
            name, figure = next(iter(draw(report)))
            save(figure, tmp_path / attempt / name)
    first, second = (sorted((tmp_path / attempt).iterdir()) for attempt in ("first", "second"))
    assert [path.name for path in first] == [path.name for path in second]
    assert len(first) == 2 * len(DRAWS)
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_names_that_strangers_gave_lead_no_figure_out_of_its_folder(tmp_path: Path) -> None:
    hostile = r"../../../out/x $\frac{$"  # which is no mathematics of TeX, either
    for canonize in (False, True):
        summary = {"data": hostile, "model": hostile, "cell": f"{hostile}{canonize}"}
        for seed in (0, 1):
            values = {"localization": np.linspace(0.1, 0.5, 40) * (1 + canonize), "input_perturbation": 0.5}
            named = {**summary, "data": f"{hostile}{seed}", "cell": f"{hostile}{canonize}{seed}"}
            write_cell(
                tmp_path / "in/study",
                "resnet18",
                "ebp",
                canonize,
                values,
                summary=named,
                maps=2,
                settings={"seed": seed},
            )
    before = {path for path in tmp_path.rglob("*") if "figures" not in path.parts}
    paths = draw_all(read(tmp_path / "in/study"), tmp_path / "in/report/figures")
    assert any("out-x" in path.name for path in paths)
    assert {path.parent for path in paths} == {tmp_path / "in/report/figures"} and all(path.is_file() for path in paths)
    after = {path for path in tmp_path.rglob("*") if "figures" not in path.parts}
    assert after - before == {tmp_path / "in/report"}

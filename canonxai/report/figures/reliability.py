"""What the metrics are worth: how far they agree, and what their values depend on."""

from collections import Counter
from collections.abc import Iterator, Sequence
from textwrap import fill

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from canonxai.report.figures.heatmaps import RELEVANCE
from canonxai.report.figures.style import COLOURS, words
from canonxai.report.reliability import Agreement, Panel, Variance
from canonxai.report.report import Report

INCHES = 0.42  #: the side of a metric
SHARES = {"method": (COLOURS[0], ""), "image": (COLOURS[1], "///"), "rest": ("white", "")}


def draw(report: Report) -> Iterator[tuple[str, Figure]]:
    """Of each panel, Kendall's tau between metrics, and the shares of each one's variance.

    Left: how alike two metrics rank the methods, above the diagonal by means over images, below it the mean of single
    images. Right: eta^2 of methods and images. See :mod:`canonxai.report.reliability`.

    Args:
        report: what is drawn; one picture for each panel that has two methods.
    """
    names: Counter[str] = Counter()
    for panel in report.reliability.panels:
        agreement = [row for row in report.reliability.of(panel, report.reliability.agreement) if row.tau is not None]
        variance = [row for row in report.reliability.of(panel, report.reliability.variance) if row.method is not None]
        if not variance:
            continue
        metrics = list(dict.fromkeys(name for row in agreement for name in (row.metric, row.other)))
        figure = _figure(panel, metrics, agreement, variance)
        name = f"reliability-{panel.data}-{panel.model}-{panel.state}"
        names[name] += 1
        yield name + (f"-{names[name]}" if names[name] > 1 else ""), figure


def _figure(panel: Panel, metrics: list[str], agreement: list[Agreement], variance: list[Variance]) -> Figure:
    height = max(INCHES * max(len(metrics), len(variance)) + 1.9, 3)
    widths = [INCHES * len(metrics) + 1.8, 4.6] if metrics else [4.6]
    figure = Figure((sum(widths), height), layout="constrained")
    *left, right = figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
    if left:
        _matrix(left[0], metrics, agreement)
    _bars(right, variance)
    figure.suptitle(fill(panel.name, int(13 * sum(widths))), fontsize=9)
    return figure


def _matrix(axes: Axes, metrics: Sequence[str], agreement: Sequence[Agreement]) -> None:
    tau = np.full((len(metrics), len(metrics)), np.nan)
    for row in agreement:
        first, second = sorted((metrics.index(row.metric), metrics.index(row.other)))
        tau[first, second] = row.tau
        tau[second, first] = np.nan if row.tau_per_image is None else row.tau_per_image
    axes.set_facecolor("0.85")  # where nothing is told, as white is a number
    axes.imshow(tau, cmap=RELEVANCE, vmin=-1, vmax=1)
    _numbers(axes, tau)
    names = [words(metric) for metric in metrics]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_title("Kendall's τ of the methods' order:\nabove by means, below by single images", fontsize=9)


def _numbers(axes: Axes, tau: Float[np.ndarray, "n n"]) -> None:
    for (row, column), value in np.ndenumerate(tau):
        if not np.isnan(value):
            *colour, _ = RELEVANCE((value + 1) / 2)
            is_dark = np.dot(colour, (0.299, 0.587, 0.114)) < 0.5
            text = f"{value:.2f}".replace("0.", ".", 1).replace("-", "−")
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if is_dark else "black")


def _bars(axes: Axes, variance: Sequence[Variance]) -> None:
    place = np.arange(len(variance))
    left = np.zeros(len(variance))
    for share, (colour, hatch) in SHARES.items():
        width = np.array([getattr(row, share) for row in variance], float)
        axes.barh(place, width, 0.7, left, color=colour, hatch=hatch, edgecolor="black", linewidth=0.5, label=share)
        left += width
    axes.set_yticks(place, [words(row.metric) for row in variance], fontsize=8)
    axes.set_ylim(len(variance) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of variance (η²)", fontsize=9)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False, fontsize=8)

"""How all figures look: readable in colour, by the colour-blind, and in grey print."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from canonxai.files import durable

#: of Okabe and Ito's palette, a light and a dark one; hatches and markers say the same without colour
ORIGINAL, CANONIZED = "#E69F00", "#0072B2"
#: for models or what else is compared
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
HATCH = {"original": "///", "canonized": ""}
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def save(figure: Figure, path: Path) -> None:
    """Writes ``path.pdf`` (the same bytes for the same figure) and ``path.png``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with durable(Path(f"{path}.pdf")) as pdf, durable(Path(f"{path}.png")) as png:
        figure.savefig(pdf, format="pdf", metadata={"CreationDate": None}, bbox_inches="tight")
        figure.savefig(png, format="png", dpi=150, bbox_inches="tight")


def intervals(
    axes: Axes, y: Float[np.ndarray, " n"], low: Sequence[float | None], high: Sequence[float | None]
) -> None:
    """Horizontal black lines from ``low`` to ``high``; none where these are not defined."""
    defined = [line for line in zip(y, low, high, strict=True) if None not in line]
    if defined:
        axes.hlines(*zip(*defined, strict=True), color="black", linewidth=1.1, zorder=3)


def words(name: str) -> str:
    """The name of a column in running text."""
    return name.replace("_", " ")

"""How all figures look: readable in colour, by the colour-blind, and in grey print."""

from pathlib import Path

from matplotlib.figure import Figure

#: of Okabe and Ito's palette, a light and a dark one; hatches and markers say the same without colour
ORIGINAL, CANONIZED = "#E69F00", "#0072B2"
#: for models or what else is compared
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
HATCH = {"original": "///", "canonized": ""}
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def save(figure: Figure, path: Path) -> None:
    """Writes ``path.pdf`` (the same bytes for the same figure) and ``path.png``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None}, bbox_inches="tight")
    figure.savefig(path.with_suffix(".png"), dpi=150, bbox_inches="tight")

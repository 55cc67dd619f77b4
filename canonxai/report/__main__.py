"""``python -m canonxai.report FOLDER...``: the report of the cells below some folders."""

import argparse
import logging
import sys
from pathlib import Path

from canonxai.errors import told


@told
def main(arguments: list[str] | None = None) -> None:
    """Writes the report."""
    parser = argparse.ArgumentParser(prog="python -m canonxai.report", description="Compares canonized and original.")
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="a study, as multirun/paper, or several"
    )
    parser.add_argument("--output", type=Path, help="where to; FOLDER/report by default")
    parser.add_argument("--test", default="wilcoxon", help="paired test: wilcoxon or sign_flip")
    parser.add_argument("--resample", default="image", help="what the bootstrap draws: image or class")
    parser.add_argument("--claims", default="icip2022", help="a name in conf/claims, or a YAML file")
    parser.add_argument("--samples", type=int, nargs="+", metavar="ID", help="of the heatmap figures")
    parser.add_argument("--wandb", action="store_true", help="log the comparison to Weights & Biases")
    chosen = parser.parse_args(arguments)

    from canonxai.config import Report as Options
    from canonxai.report.build import build_report, print_report

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    output = chosen.output or chosen.folders[0] / "report"
    options = Options(chosen.test, chosen.resample, chosen.claims, chosen.samples)
    report = build_report(chosen.folders, output, options, {} if chosen.wandb else None)
    print_report(report, output)


if __name__ == "__main__":
    sys.exit(main(None))

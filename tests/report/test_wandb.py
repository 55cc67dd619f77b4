"""The report as a Weights & Biases run: what its log holds, and that it never stops or betrays a report.

What starts Weights & Biases does so in a process of its own, which is this file as a program.
"""

import json
import logging
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image

from canonxai.errors import UserError
from canonxai.report.cells import Study, read_study
from canonxai.report.claims import Answer, Finding, Verdict, flat, read_claims
from canonxai.report.comparison import Comparison, Statistics
from canonxai.report.report import Report
from canonxai.report.wandb import figures, log_report

PAGE = "<!DOCTYPE html>\n<html><body><h1>μ rises</h1></body></html>\n"
TABLES = {"comparison.csv": "a,b\n1,2\n", "comparison.md": "| a |", "results.parquet": "no table", "claims.tex": "%"}


def read(study):
    return Report(read_study([study]), Statistics(resample="class"), read_claims("icip2022"))


def log_reports(study, folder):
    """Three reports in one process: a whole one, one of an empty folder, one that W&B cannot take; one refused."""
    import wandb

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    report = read(study)
    log_report(report, folder / "whole")
    log_report(report, folder / "bare", project="mine", mode="offline")
    try:
        log_report(report, folder / "bare", project="a/b")
    except UserError as error:
        print(f"refused: {error}")
    wandb.Table = None
    log_report(report, folder / "broken")
    print(f"left open: {wandb.run}")


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """What the process said, its report, and the folder of its runs."""
    from tests.report.study import write_study

    folder = tmp_path_factory.mktemp("report")
    study = write_study(folder / "study", methods=("gradient", "lrp_eps"), models=("resnet18",), study="my study")
    for name in ("whole/figures", "bare", "broken"):
        (folder / name).mkdir(parents=True)
    for name in ("scatter", "perturbation-curves"):
        Image.linear_gradient("L").rotate(len(name)).save(folder / "whole" / "figures" / f"{name}.png")
    (folder / "whole" / "report.html").write_text(PAGE)
    for name, text in {**TABLES, "notes.txt": "mine"}.items():
        (folder / "whole" / name).write_text(text)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "NETRC"))}
    home = {"HOME": str(folder / "home"), "TMPDIR": str(folder), "MPLCONFIGDIR": str(folder / "home")}
    command = [sys.executable, __file__, str(study), str(folder)]
    told = subprocess.run(command, env=inherited | home, capture_output=True, text=True, timeout=300, check=True)
    return told.stdout + told.stderr, read(study), folder


def run_of(folder):
    (run,) = (folder / "wandb").glob("offline-run-*")
    return run


def records(folder):
    """What the log of the one run in ``folder`` holds, by kind of record, as Weights & Biases itself reads it."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run_of(folder))]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
    found = {}
    for record in map(json.loads, lines):
        found.setdefault(record["type"], []).append(record[record["type"]])
    return found


@pytest.fixture(scope="module")
def whole(logged):
    return records(logged[2] / "whole")


def summary_of(found):
    return {key: value for record in found["summary"] for key, value in record["update"].items()}


def table(folder, name):
    (path,) = (run_of(folder) / "files" / "media" / "table").glob(f"{name}_*.table.json")
    content = json.loads(path.read_text())
    return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


def test_the_run_is_in_the_group_of_the_studys_cells(logged, whole):
    run = whole["run"][0]
    assert (run["project"], run["run_group"], run["job_type"]) == ("canonxai", "my study", "report")
    assert run["display_name"] == "my study-report"
    assert run["config"]["update"]["statistics"] == {"test": "wilcoxon", "resample": "class"}
    assert run["config"]["update"]["claims"] == logged[1].claims.title
    assert records(logged[2] / "bare")["run"][0]["project"] == "mine"


def test_without_a_key_runs_are_offline_and_the_log_says_how_to_upload_them(logged):
    text, _, folder = logged
    for name in ("whole", "bare", "broken"):
        assert f"INFO W&B: offline; to upload this run later: wandb sync {run_of(folder / name)}" in text


def test_the_tables_are_those_of_the_report(logged):
    _, report, folder = logged
    assert table(folder / "whole", "comparison") == [asdict(row) for row in report.comparisons]
    assert table(folder / "whole", "results") == [asdict(row) for row in report.results]
    assert table(folder / "whole", "findings") == list(flat(report.answers))
    claims = table(folder / "whole", "claims")
    assert [list(row) for row in claims] == [["name", "text", "verdict", "figures"]] * len(report.answers)
    assert [tuple(row.values()) for row in claims] == [
        (answer.name, answer.text, answer.verdict.value, answer.figures) for answer in report.answers
    ]
    assert len(claims) >= 5 and len(report.comparisons) == 2 * 3 * 3


def test_the_tables_are_in_the_summary(whole):
    summary = summary_of(whole)
    for name, rows in (("comparison", 18), ("results", 36)):
        assert summary[f"{name}._type"] == "table-file" and summary[f"{name}.nrows"] == rows


def test_the_summary_has_the_differences_over_all_images_and_the_verdicts(logged, whole):
    report, summary = logged[1], summary_of(whole)
    differences = {key: value for key, value in summary.items() if key.endswith("/difference")}
    assert differences == {
        f"resnet18/{row.method}/{row.metric}/difference": row.difference
        for row in report.comparisons
        if row.stratum == "all"
    }
    assert len(differences) == 6 and differences["resnet18/lrp_eps/localization/difference"] > 0.2
    assert differences["resnet18/gradient/localization/difference"] == 0
    verdicts = {key: value for key, value in summary.items() if key.startswith("claims/")}
    assert verdicts == {f"claims/{answer.name}": answer.verdict.value for answer in report.answers}


def test_the_run_has_the_figures_and_the_page_as_they_are(logged, whole):
    folder, summary = logged[2] / "whole", summary_of(whole)
    media = run_of(folder) / "files" / "media"
    for name in ("scatter", "perturbation-curves"):
        assert summary[f"figures/{name}._type"] == "image-file"
        (logged_image,) = media.glob(f"images/figures/{name}_*.png")
        assert logged_image.read_bytes() == (folder / "figures" / f"{name}.png").read_bytes()
    assert len(list(media.glob("images/figures/*"))) == 2
    (page,) = media.glob("html/report_*.html")
    assert summary["report._type"] == "html-file" and page.read_text() == PAGE


def reports_in(found):
    return [record for record in found["artifact"] if record["type"] == "report"]


def test_the_artifact_holds_the_exported_tables(whole):
    (artifact,) = reports_in(whole)
    assert artifact["name"] == "my-study-report"
    files = {file["path"]: Path(file["local_path"]).read_text() for file in artifact["manifest"]["contents"]}
    assert files == TABLES


def test_where_nothing_was_exported_the_run_has_the_tables_alone(logged):
    found = records(logged[2] / "bare")
    assert reports_in(found) == []
    assert {key.split("._type")[0] for key in summary_of(found) if key.endswith("._type")} == {
        "comparison", "results", "claims", "findings"
    }  # fmt: skip


def test_a_report_that_cannot_be_logged_is_told_and_its_run_is_ended(logged):
    text, _, folder = logged
    told = f"WARNING W&B: the report is in {folder / 'broken'}, but could not be logged (TypeError: "
    assert text.count("WARNING") == text.count(told) == 1 and "Traceback" not in text
    assert records(folder / "broken")["exit"][0]["exit_code"] == 1
    assert records(folder / "whole")["exit"][0].get("exit_code", 0) == 0
    assert "left open: None" in text


def test_what_weights_and_biases_refuses_is_a_users_mistake(logged, tmp_path):
    assert "refused: logger: expected options that W&B takes, got: Invalid project name 'a/b'" in logged[0]
    with pytest.raises(UserError, match=r"^logger\.mode: expected one of auto, online, offline, got 'on'\.$"):
        log_report(logged[1], tmp_path, mode="on")


def row(**changes):
    values = {"state": "canonized", "variant": "", "stratum": "all", "difference": 0.5} | changes
    return Comparison("scenes", "resnet18", "ebp", "EBP", metric="localization", higher_is_better=True, images=9,
                      undefined=0, **values)  # fmt: skip


def report_of(rows, answers=()):
    report = Report(Study([], [], [], []), Statistics(), read_claims("icip2022"))
    vars(report).update(comparisons=list(rows), answers=list(answers))  # as if they had been computed
    return report


@pytest.mark.parametrize(
    "rows, names",
    [
        ([row(), row(stratum="box < 25 %")], {"resnet18/ebp/localization/difference"}),
        ([row(difference=None)], set()),
        ([row(state="merge_bn"), row(state="sum"), row()], {
            "resnet18/ebp/merge_bn/localization/difference", "resnet18/ebp/sum/localization/difference",
            "resnet18/ebp/localization/difference",
        }),
        ([row(variant="seed=0"), row(variant="seed=1")], {
            "resnet18/ebp/seed=0/localization/difference", "resnet18/ebp/seed=1/localization/difference",
        }),
    ],
)  # fmt: skip
def test_figures_of_different_pairs_have_different_names(rows, names):
    assert figures(report_of(rows)) == dict.fromkeys(names, 0.5)


def test_figures_of_several_data_sets_name_them():
    rows = [row(), Comparison(**asdict(row()) | {"data": "imagenet", "difference": 0.25})]
    answers = [Answer("C1", "text", [Finding(Verdict.refuted, "a/b", "EBP", "localization", "")])]
    assert figures(report_of(rows, answers)) == {
        "scenes/resnet18/ebp/localization/difference": 0.5,
        "imagenet/resnet18/ebp/localization/difference": 0.25,
        "claims/C1": "refuted",
    }


if __name__ == "__main__":
    log_reports(*map(Path, sys.argv[1:]))

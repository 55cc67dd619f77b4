"""A cell in numbers, from a store that is made by hand."""

import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from canonxai.metrics import Column
from canonxai.results.statistics import Mean, mean_with_interval
from canonxai.results.store import Store, sample_schema
from canonxai.results.summary import format_mean, print_summary, summarize

NAN = float("nan")
SCORE = [1.0, 0.5, NAN, 0.25, 0.0, 0.75]
FRACTION = [0.1, 0.25, 0.2, 0.5, 0.3, 0.0]  # two are on the edge of a stratum, the last has no object: not in it
TRACE = torch.arange(18.0, dtype=torch.float64).view(6, 3) ** 2
TRACE[2, 1] = NAN
COLUMNS = {
    "score": Column("a number", higher_is_better=True),
    "never": Column("another, which is never defined", higher_is_better=False),
    "trace": Column("a curve", kind="curve", axis=(0.0, 0.5, 1.0)),
}


@pytest.fixture
def summary(tmp_path):
    columns = {
        "sample_id": torch.arange(6),
        "label": torch.tensor([0, 1, 2, 3, 4, 5]),
        "target": torch.tensor([9, 9, 9, 9, 9, 9]),
        "prediction": torch.tensor([0, 1, 2, 3, 5, 4]),
        "probability": torch.tensor([0.5, 0.75, 1.0, 0.0, 0.25, 0.5]),
        "box_fraction": torch.tensor(FRACTION, dtype=torch.float64),
        "relevance_total": torch.tensor([1.0, -2.0, 3.0, 0.0, 3.0, torch.inf]),
        "relevance_max": torch.tensor([1.0, 2.0, 8.0, 0.5, 4.0, 3.0]),
        "score": torch.tensor(SCORE),
        "never": torch.full((6,), NAN),
        "trace": TRACE,
    }
    store = Store(tmp_path, sample_schema(COLUMNS))
    for index, rows in enumerate((slice(0, 4), slice(4, 6))):
        store.write(index, {name: column[rows] for name, column in columns.items()})
    store.finish()
    return summarize(store, COLUMNS)


def test_accuracy_and_relevance_are_over_all_images(summary):
    assert summary["images"] == 6
    assert summary["accuracy"] == pytest.approx(4 / 6)
    assert summary["probability"] == pytest.approx(0.5)
    assert summary["relevance"] == {"mean_total": 1.0, "undefined": 1, "max_abs": 8.0}


def test_means_are_by_stratum_with_their_intervals(summary):
    score = np.array(SCORE)
    assert summary["metrics"].keys() == {"score", "never"}
    strata = summary["metrics"]["score"]["strata"]
    assert strata == {
        "all": mean_with_interval(score)._asdict(),
        "box < 50 %": mean_with_interval(score[[0, 1, 2, 4]])._asdict(),
        "box < 25 %": mean_with_interval(score[[0, 2]])._asdict(),
    }
    assert [strata[name]["mean"] for name in strata] == pytest.approx([0.5, 0.5, 1.0])


def test_undefined_values_are_counted_and_left_out(summary):
    strata = summary["metrics"]["score"]["strata"]
    assert [(values["n"], values["undefined"]) for values in strata.values()] == [(5, 1), (3, 1), (1, 1)]
    assert summary["metrics"]["never"]["strata"]["all"] == Mean(None, None, None, 0, 6)._asdict()


def test_the_direction_of_each_metric_is_told(summary):
    assert [summary["metrics"][name]["higher_is_better"] for name in ("score", "never")] == [True, False]


def test_the_mean_curve_is_at_each_step_over_the_images_of_all_parts_where_it_is_defined(summary):
    assert summary["curves"].keys() == {"trace"}
    assert summary["curves"]["trace"]["axis"] == [0.0, 0.5, 1.0]
    assert summary["curves"]["trace"]["mean"] == pytest.approx(TRACE.nanmean(0).tolist())


def test_the_mean_curve_is_the_same_however_many_rows_are_read_at_once(summary, tmp_path, monkeypatch):
    rows = pq.read_table(tmp_path / "samples.parquet", columns=["trace"]).combine_chunks()
    monkeypatch.setattr(Store, "batches", lambda *_: [*rows[:1].to_batches(), *rows[1:].to_batches()])
    store = Store.__new__(Store)  # without removing what is there
    store.path = tmp_path / "samples.parquet"
    assert summarize(store, COLUMNS)["curves"]["trace"]["mean"] == pytest.approx(summary["curves"]["trace"]["mean"])


def test_a_summary_is_strict_json(summary):
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def printed(summary, **changes):
    of_run = {
        "title": "LRP-ε", "model": "resnet18", "state": "canonized", "images_per_second": 12.4, "agreement": None,
        "folder": "multirun/a",
    }  # fmt: skip
    console = Console(file=io.StringIO(), width=160)
    print_summary({**of_run, **summary, **changes}, console)
    return console.file.getvalue()


def test_the_table_shows_the_figures_that_a_reader_needs(summary):
    text = printed(summary)
    assert "LRP-ε on resnet18, canonized, 6 images" in text
    assert "accuracy 0.667, 12 images/s" in text
    assert "results: multirun/a" in text
    row = next(line for line in text.splitlines() if " score " in line)
    strata = summary["metrics"]["score"]["strata"]
    assert [cell.strip() for cell in row.split("│")[2:-1]] == [format_mean(Mean(**mean)) for mean in strata.values()]
    assert "0.500 [" in row and "1.000 (1)" in row
    header = next(line for line in text.splitlines() if "metric" in line)
    assert header.index("all") < header.index("box < 50 %") < header.index("box < 25 %")


def test_the_table_tells_what_is_not_defined(summary):
    text = printed(summary)
    assert "score: not defined for 1 images, left out" in text
    assert "never: not defined for 6 images, left out" in text
    del summary["metrics"]["never"]
    summary["metrics"]["score"]["strata"]["all"]["undefined"] = 0
    assert "not defined" not in printed(summary)


def test_the_table_tells_how_far_the_canonized_network_is_from_the_original(summary):
    difference = {"float64": {"max_rel": 2e-15}, "float32": {"max_rel": 3.4e-6}}
    text = " ".join(printed(summary, agreement={"images": 64, "difference": difference}).split())
    assert "canonized = original logits up to 2.0e-15 in float64, 3.4e-06 in float32 (relative, 64 images)" in text
    assert "logits" not in printed(summary)


@pytest.mark.parametrize("name", ["parts=[merge_bn]", "a[/]b", "a:smile:b"])
def test_names_are_shown_as_they_are(summary, name):
    text = printed(summary, folder=f"multirun/{name}", title=name)
    assert f"results: multirun/{name}" in text
    assert f"{name} on resnet18" in text


def test_the_folder_is_shown_in_one_piece(summary):
    folder = "/".join(["multirun"] * 15)
    assert folder in printed(summary, folder=folder)


@pytest.mark.parametrize(
    "mean, text",
    [
        (Mean(0.4839, 0.461, 0.5071, 256, 3), "0.484 [0.461, 0.507] (256)"),
        (Mean(-0.5, -1.0, 0.0, 2, 0), "-0.500 [-1.000, 0.000] (2)"),
        (Mean(0.25, None, None, 1, 0), "0.250 (1)"),
        (Mean(None, None, None, 0, 4), "- (0)"),
    ],
)
def test_a_mean_is_written_with_its_interval_and_number(mean, text):
    assert format_mean(mean) == text

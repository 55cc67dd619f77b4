"""What must not grow with the number of images and cells: batches in memory, files, draws, reads and pictures.

How long large runs take, and how much memory, is measured by ``python -m benchmarks load``.
"""

import weakref
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from canonxai.report import cells as report_cells
from canonxai.report import report as report_module
from canonxai.report.build import build_report
from canonxai.report.cells import read_study
from canonxai.report.claims import read_claims
from canonxai.report.comparison import Statistics
from canonxai.report.report import Report
from canonxai.results import statistics
from canonxai.results import store as store_module
from canonxai.results.statistics import bca_interval, percentile_interval
from canonxai.results.store import StoreWriter
from canonxai.run import run
from canonxai.targets import ENVIRONMENT, allow
from tests.report.study import METHODS, write_cell, write_study
from tests.tiny import CELL


def test_a_cell_of_many_batches_holds_one_of_them_and_few_files(config, tmp_path, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, "")
    allow(CELL)
    monkeypatch.setattr(store_module, "GROUP", 8)
    images, alive, files = [], [], []
    write = StoreWriter.on_predict_batch_end

    def watch(self, trainer, module, outputs, batch, index, *rest):
        write(self, trainer, module, outputs, batch, index, *rest)
        images.append(weakref.ref(batch["sample_id"]))
        alive.append(sum(image() is not None for image in images))
        files.append(len(list((tmp_path / "parts").iterdir())))

    monkeypatch.setattr(StoreWriter, "on_predict_batch_end", watch)
    summary = run(config(*CELL, "data.size=100", "data.batch_size=1", "save_maps=2"), tmp_path)
    assert summary["images"] == 98 and len(files) == 100
    assert max(alive) <= 2  # this batch, and that before it
    assert max(files) <= 100 // 8 + 8 + 5


def test_the_interval_of_a_million_values_draws_few_and_is_right():
    values = np.random.default_rng(0).exponential(size=1_000_000)
    expected = values.mean() + np.array([-1.96, 1.96]) * values.std() / 1000
    for interval in (percentile_interval, bca_interval):
        assert interval(values) == pytest.approx(tuple(expected), abs=0.04 * np.ptp(expected))
    assert len(statistics._drawn(values)) == statistics.MOST_VALUES


@pytest.mark.parametrize("n", [1001, 1500, 4321])
def test_groups_of_values_have_the_interval_of_the_values(n, monkeypatch):
    """Its width, and how far the skewness of the values moves it to one side."""
    values = np.random.default_rng(n).exponential(size=n) ** 3  # as skewed as that
    exact = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", batch=500, rng=1)
    expected = exact.confidence_interval
    monkeypatch.setattr(statistics, "RESAMPLES", 20_000)
    monkeypatch.setattr(statistics, "MOST_VALUES", 1000)
    assert bca_interval(values) == pytest.approx(tuple(expected), abs=0.08 * (expected[1] - expected[0]))


def test_cells_of_the_same_images_share_their_draws_and_each_table_is_read_a_few_times(tmp_path, monkeypatch):
    write_study(tmp_path / "study", images=30)
    reads = Counter()
    read = pq.read_table

    def counted(source, *arguments, **options):
        reads[str(source)] += 1
        return read(source, *arguments, **options)

    monkeypatch.setattr(pq, "read_table", counted)
    statistics._counts.cache_clear()
    build_report([tmp_path / "study"], tmp_path / "report")
    assert len(reads) == 2 * 2 * len(METHODS)
    assert max(reads.values()) <= 4  # numbers once; curves when they are checked, drawn in figures and on the page
    drawn = statistics._counts.cache_info()
    assert drawn.misses <= 6 and drawn.hits > 200  # images of each stratum, alone and against the others


def test_pictures_show_some_pairs_and_tables_all(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report_module, "DRAWN", 5)
    write_study(tmp_path / "study", images=30)
    report = build_report([tmp_path / "study"], tmp_path / "report")
    assert len(report.study.pairs) == 8 and {pair.canonized.model for pair in report.drawn.study.pairs} == {"resnet18"}
    assert len(report.drawn.study.pairs) == 4
    assert report.drawn.comparisons == [row for row in report.comparisons if row.model == "resnet18"]
    assert "figures" in [problem.cell for problem in report.problems if "show 4 of 8 pairs" in problem.reason]
    assert not list((tmp_path / "report" / "figures").glob("*vgg16*"))
    assert len({row["model"] for row in read_rows(tmp_path / "report" / "comparison.parquet")}) == 2


def read_rows(path):
    return pq.read_table(path).to_pylist()


def test_many_variants_of_a_method_are_paired_without_comparing_all_with_all(tmp_path, monkeypatch):
    for epsilon in range(1, 13):
        for canonize in (False, True):
            settings = {"method.epsilon": epsilon / 100}
            write_cell(tmp_path, canonize=canonize, settings=settings)
    compared = []
    differing = report_cells.differing_keys
    monkeypatch.setattr(report_cells, "differing_keys", lambda *a: compared.append(1) or differing(*a))
    study = read_study([tmp_path])
    epsilons = [pair.canonized.settings["method"]["epsilon"] for pair in study.pairs]
    assert [pair.variant for pair in study.pairs] == [f"method.epsilon={epsilon}" for epsilon in epsilons]
    assert len(study.pairs) == 12 and len(compared) <= 5 * 24
    monkeypatch.setattr(report_module, "NETWORKS", 3)
    assert Report(study, Statistics(), read_claims("icip2022")).drawn.study.pairs == study.pairs[:3]

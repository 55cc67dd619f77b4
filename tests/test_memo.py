"""Maps of the original network that two cells share."""

import pyarrow.parquet as pq
import pytest
import torch

from canonxai import assemble as module
from canonxai.memo import OriginalMaps
from canonxai.run import run

METRICS = "metric=[localization,distance]"


def maps(value, bytes=8):
    return torch.full((1, 1, 1, bytes // 4), float(value))


def test_maps_of_a_batch_are_computed_once():
    memo = OriginalMaps()
    memo.open("a")
    assert memo.get((1, 2), lambda: maps(1)).equal(maps(1))
    assert memo.get((1, 2), lambda: maps(2)).equal(maps(1))
    assert memo.get((1, 3), lambda: maps(3)).equal(maps(3))


def test_maps_of_another_cell_replace_them():
    memo = OriginalMaps()
    for cell, value in (("a", 1), ("b", 2), ("a", 3)):
        memo.open(cell)
        assert memo.get((1,), lambda value=value: maps(value)).equal(maps(value))


def test_no_more_memory_is_used_than_allowed_and_none_where_nothing_is_to_be_kept():
    memo = OriginalMaps(memory=20)
    memo.open("a")
    for batch, keep in ((0, False), (1, True), (2, True), (3, True)):
        memo.get(batch, lambda: maps(1), keep)
    assert [memo.get(batch, lambda: maps(2), False).equal(maps(1)) for batch in range(4)] == [False, True, True, False]


@pytest.mark.parametrize("method", ["lrp_eps", "smoothgrad"])
def test_an_original_cell_after_its_canonized_twin_is_what_it_is_alone(config, tmp_path, monkeypatch, method):
    """The same bytes; and other settings do not take these maps."""
    cells = {
        "twin": ("canonize=true",), "after": ("canonize=false",), "other": ("canonize=false", "seed=1"),
    }  # fmt: skip
    shared = ("trainer=cpu", "data.size=8", "data.batch_size=4", f"method={method}", METRICS)

    def samples(name):
        run(config(*shared, *cells[name]), tmp_path / name)
        return pq.read_table(tmp_path / name / "samples.parquet")

    alone = {}
    for name in ("after", "other"):
        monkeypatch.setattr(module, "ORIGINALS", OriginalMaps())
        alone[name] = samples(name)
    monkeypatch.setattr(module, "ORIGINALS", OriginalMaps())
    samples("twin")
    assert len(module.ORIGINALS._maps) == 2
    assert samples("after").equals(alone["after"])
    assert samples("other").equals(alone["other"])
    assert not alone["after"].equals(alone["other"])

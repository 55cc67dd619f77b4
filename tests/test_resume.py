"""Runs that break off and go on, and cells that several processes share: nothing lost, nothing counted twice."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from safetensors.torch import save_file

from canonxai.config import CONF
from canonxai.determinism import CUBLAS, deterministic
from canonxai.errors import UserError
from canonxai.parallel import Share
from canonxai.report.cells import read_study
from canonxai.results import store as store_module
from canonxai.results.store import Store, StoreWriter, locked
from canonxai.run import run, run_together
from canonxai.signals import Interrupted, heeded
from canonxai.targets import ENVIRONMENT, allow
from tests.conftest import ROOT
from tests.killed import results
from tests.tiny import CELL, Images, network


@pytest.fixture(autouse=True, scope="module")
def allowed():
    """What the command line allows where these cells are processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENVIRONMENT, "")
        allow(CELL)
        yield


@pytest.fixture
def cell(config, tmp_path):
    """Runs the tiny cell, in this process, in a folder."""
    return lambda *overrides, name="cell": run(config(*CELL, *overrides), tmp_path / name)


@pytest.fixture(scope="module")
def complete_folder(tmp_path_factory):
    """A cell to which nothing happened."""
    folder = tmp_path_factory.mktemp("undisturbed")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        run(compose("config", overrides=CELL), folder)
    return folder


@pytest.fixture
def undisturbed(complete_folder):
    """What a cell's files are if nothing happens."""
    return results(complete_folder)


@pytest.fixture
def broken_off(cell, monkeypatch):
    """Runs the cell, which fails after some batches."""

    def compute(batches, *overrides, name="cell"):
        write = Store.write

        def fail(self, *arguments):
            if len(self.done) == batches:
                raise KeyboardInterrupt
            write(self, *arguments)

        with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, SystemExit)):
            patch.setattr(Store, "write", fail)
            cell(*overrides, name=name)

    return compute


@pytest.fixture
def start(tmp_path):
    """Starts the tiny cell as a process in an empty folder."""

    def begin(*overrides, flags=(), **options):
        command = [sys.executable, "-m", "canonxai", *flags, *CELL, *overrides]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes, **options)

    return begin


def one_cell(folder):
    (found,) = (path for path in folder.glob("tiny*") if path.is_dir())
    return found


def wait_for_parts(folder, count, process):
    """Until so many parts are there."""
    until = time.monotonic() + 120
    while len(list(folder.glob("*/parts/part-*.parquet"))) < count:
        assert process.poll() is None and time.monotonic() < until, process.stderr.read()
        time.sleep(0.02)


def test_20_kills_at_random_moments(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.killed", tmp_path, "20"],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("killed 2")


def test_every_image_that_can_be_read_is_there_once(complete_folder):
    table = pq.read_table(complete_folder / "samples.parquet")
    assert table["sample_id"].to_pylist() == [10 * index for index in range(14) if index not in (0, 5)]


@pytest.mark.parametrize("batches", [1, 3, 6])
def test_a_run_goes_on_where_it_broke_off(undisturbed, broken_off, cell, tmp_path, monkeypatch, batches):
    broken_off(batches)
    loaded = []
    load = Images.__getitem__
    monkeypatch.setattr(Images, "__getitem__", lambda self, index: loaded.append(index) or load(self, index))
    summary = cell()
    assert results(tmp_path / "cell") == undisturbed
    assert sorted(set(loaded) - {0, 1}) == [index for index in range(2 * batches, 14) if index > 1]
    assert (summary["images"], summary["excluded"]) == (12, 2)
    # each process proves the canonizer on its own first images, and the summary tells of all
    assert summary["agreement"]["images"] == 3 + min(3, 14 - 2 * batches)


def test_a_run_that_broke_off_before_its_summary_computes_nothing_again(undisturbed, cell, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("canonxai.results.cell.summarize", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        cell()
    monkeypatch.setattr(Store, "write", None)
    assert cell()["agreement"]["images"] == 3
    assert results(tmp_path / "cell") == undisturbed


def test_the_summary_tells_of_the_process_that_ended_last(broken_off, cell, monkeypatch):
    for number in (2, 1):  # the other way round than the clock
        monkeypatch.setattr("uuid.uuid4", lambda number=number: uuid.UUID(int=number))
        monkeypatch.setattr("canonxai.results.output.versions", lambda number=number: {"torch": str(number)})
        if number == 2:
            broken_off(3)
    assert cell()["versions"] == {"torch": "1"}


def test_a_complete_cell_is_told_and_not_computed_unless_it_shall(cell, tmp_path, capsys, monkeypatch):
    first = cell()
    path = tmp_path / "cell" / "samples.parquet"
    written = path.stat().st_mtime_ns
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr("canonxai.assemble.build_network", None)
        assert cell("data.batch_size=5", "save_maps=1") == first
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "complete before; run.resume=false computes it anew" and str(path.parent) in lines[-2]
    assert path.stat().st_mtime_ns == written
    cell("run.resume=false")
    assert path.stat().st_mtime_ns > written


def test_other_settings_are_refused_by_name(cell, broken_off, tmp_path):
    cell()
    with pytest.raises(UserError, match=r"got others: data.seed \(0 there, 3 here\), precision \(64 there, 32"):
        cell("seed=3", "precision=32")
    broken_off(2, name="other")
    with pytest.raises(UserError, match=r"got others: data.batch_size \(2 there, 7 here\)\. Choose"):
        cell("data.batch_size=7", name="other")
    assert cell("data.batch_size=7", "run.resume=false", "seed=3", name="other")["images"] == 12
    with pytest.raises(UserError, match="run.resume: expected true with data.shard"):
        cell("run.resume=false", "data.shard=1/2", name="other")


CHANGED = {
    "weights": r"model: expected weights as in .*cell', where parts are kept, [0-9a-f]{16}, got '[0-9a-f]{16}'\.",
    "images": r"data: expected images as in .*, 14, got 13\.",
    "maps": r"save_maps: expected maps as in .*, 3, got 1\. Choose another folder",
}


@pytest.mark.parametrize("what", CHANGED)
def test_parts_of_other_weights_images_or_maps_are_refused(cell, broken_off, tmp_path, monkeypatch, what):
    """Files of weights and of annotations may change, though their names do not."""
    checkpoint = tmp_path / "weights.safetensors"
    weights = network().state_dict()
    save_file(weights, checkpoint)
    broken_off(2, f"model.checkpoint={checkpoint}")
    before = {path: path.read_bytes() for path in (tmp_path / "cell" / "parts").glob("*.*")}
    if what == "weights":
        save_file({name: 2 * value for name, value in weights.items()}, checkpoint)
    elif what == "images":
        monkeypatch.setattr(Images, "__len__", lambda self: 13)
    changes = ["save_maps=1"] if what == "maps" else []
    with pytest.raises(UserError, match=CHANGED[what]):
        cell(f"model.checkpoint={checkpoint}", *changes)
    assert before == {path: path.read_bytes() for path in (tmp_path / "cell" / "parts").glob("*.*")}


def test_a_damaged_config_is_told(cell, tmp_path):
    cell()
    (tmp_path / "cell" / "config.yaml").write_text("a: [")
    with pytest.raises(UserError, match="folder: expected a readable config.yaml"):
        cell()


def test_a_damaged_part_is_computed_again(undisturbed, broken_off, cell, tmp_path, caplog):
    broken_off(4)
    path = sorted((tmp_path / "cell" / "parts").glob("part-*"))[2]
    path.write_bytes(path.read_bytes()[:-20])
    cell()
    assert f"{path} is damaged; its batches are computed again" in caplog.text
    assert results(tmp_path / "cell") == undisturbed


def test_cells_that_are_computed_together_go_on_each_for_itself(undisturbed, broken_off, config, tmp_path, monkeypatch):
    broken_off(3, name="a")
    run(config(*CELL, "method=random"), tmp_path / "random")
    broken_off(5, "method=gradient", name="b")
    cells = [
        (config(*CELL, f"method={method}"), tmp_path / name)
        for method, name in (("ixg", "a"), ("random", "c"), ("gradient", "b"), ("random", "random"))
    ]
    written = []
    write = Store.write
    monkeypatch.setattr(
        Store, "write", lambda s, batch, *a: written.append((s.folder.name, batch)) or write(s, batch, *a)
    )
    summaries = run_together(cells)
    assert [summary["method"] for summary in summaries] == ["ixg", "random", "gradient", "random"]
    assert sorted(written) == [("a", n) for n in range(3, 7)] + [("b", n) for n in (5, 6)] + [
        ("c", n) for n in range(7)
    ]
    assert results(tmp_path / "a") == undisturbed and results(tmp_path / "c") == results(tmp_path / "random")


def test_a_second_process_ends_with_a_line(cell, tmp_path):
    with (
        locked(tmp_path / "cell", "shard-1-of-1"),
        pytest.raises(UserError, match="no other process at work"),
    ):
        cell()
    assert cell()["images"] == 12


def test_nothing_depends_on_the_clock(undisturbed, cell, tmp_path, monkeypatch):
    rng = random.Random(1)
    monkeypatch.setattr(time, "time", lambda: rng.uniform(-1e9, 4e9))
    monkeypatch.setattr(time, "time_ns", lambda: int(rng.uniform(0, 4e18)))
    cell()
    assert results(tmp_path / "cell") == undisturbed


def test_a_loading_process_that_dies_is_told_and_the_run_can_go_on(start, undisturbed, complete_folder, cell, tmp_path):
    killer = tmp_path / "loader"
    killer.touch()
    # torch tells it by an error from wherever the process is, which checks of types would take for one of theirs
    with start(f"+data.killer={killer}", "data.num_workers=1", "hydra.run.dir=cell") as process:
        told = process.communicate(timeout=300)[1]
    assert process.returncode == 1 and "Traceback" not in told
    assert "data.num_workers: expected loading processes that live, got" in told and "the same command goes on" in told
    assert len(Store(tmp_path / "cell", pq.read_schema(complete_folder / "samples.parquet")).done) <= 4
    killer.unlink()
    cell(f"+data.killer={killer}", "data.num_workers=2")
    assert results(tmp_path / "cell") == undisturbed


def test_a_folder_that_is_read_only_is_told(cell, tmp_path):
    folder = tmp_path / "cell"
    folder.mkdir(mode=0o555)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)  # whom the mode concerns
        with pytest.raises(UserError, match=r"^folder: expected to write to '.*', got: Permission denied"):
            Store(folder, pa.schema([]))
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("name", [
    "multirun.yaml", "cell", "cell/canonxai.log", "cell/.hydra", "cell/.hydra/config.yaml", "cell/parts",
    "cell/parts/.merge.lock",
])  # fmt: skip
def test_a_stranger_s_links_have_nothing_written_elsewhere(cli, tmp_path, name):
    mine = tmp_path / "mine"
    if name in ("cell", "cell/.hydra", "cell/parts"):
        mine.mkdir()
    else:
        mine.write_text("mine")
    link = tmp_path / "study" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(mine)
    done = cli("-m", "hydra.sweep.dir=study", "hydra.sweep.subdir=cell", "report=null", *CELL)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"folder: expected no links or pipes where results are written, got ['{link}']. Remove them." in done.stderr
    assert not list(mine.iterdir()) if mine.is_dir() else mine.read_text() == "mine"


@pytest.mark.parametrize("name", ["config.yaml", "parts/part-00000000-00000001-00000000.parquet"])
def test_a_stranger_s_pipe_does_not_keep_a_run_waiting(cell, tmp_path, name):
    (tmp_path / "cell/parts").mkdir(parents=True)
    os.mkfifo(tmp_path / "cell" / name)
    with pytest.raises(UserError, match="folder: expected no links or pipes"):
        cell()


def test_the_link_to_a_study_is_its_user_s(cli, tmp_path):
    (tmp_path / "large_disk").mkdir()
    (tmp_path / "study").symlink_to("large_disk")
    assert cli("-m", "hydra.sweep.dir=study", "hydra.sweep.subdir=cell", "report=null", *CELL).returncode == 0
    assert (tmp_path / "large_disk/cell/summary.json").is_file()


def test_a_log_that_cannot_be_written_is_told(cli, tmp_path):
    (tmp_path / "cell/canonxai.log").mkdir(parents=True)
    for place in (["hydra.run.dir=cell"], ["-m", "hydra.sweep.dir=.", "hydra.sweep.subdir=cell"]):
        done = cli(*place, *CELL)
        assert done.returncode == 1 and "error: folder: expected to write the log, got: " in done.stderr
        assert "hydra.run.dir=PATH" in done.stderr and "Traceback" not in done.stderr


# memory


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("method", ["ixg", "lrp_eps_plus", "smoothgrad"])
def test_maps_that_do_not_fit_into_memory_are_computed_in_smaller_batches(
    cell, tmp_path, monkeypatch, caplog, method, most
):
    overrides = [f"method={method}", "data.batch_size=7", "canonize=true"]
    cell(*overrides, name="large")
    sizes = []
    forward = torch.nn.Conv2d.forward

    def small(self, input):
        if torch.is_grad_enabled():  # as a map is computed, in the midst of the canonized network
            sizes.append(len(input))
            if len(input) > most:
                raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, input)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", small)
    cell(*overrides, name="small")
    assert max(sizes) == 5 and most / 2 < max(size for size in sizes if size <= most)
    assert "data.batch_size: 5 images at once do not fit into memory, now 2" in caplog.text
    assert sum(size > most for size in sizes) == {3: 1, 1: 2}[most]  # the second batch begins with what fits
    large, small_ = (pq.read_table(tmp_path / name / "samples.parquet") for name in ("large", "small"))
    assert large.schema == small_.schema
    for name in large.column_names:
        values = [np.stack(table[name].to_numpy(zero_copy_only=False)) for table in (large, small_)]
        np.testing.assert_allclose(*values, rtol=1e-12, atol=1e-14)


def test_an_image_that_does_not_fit_into_memory_is_told(cell, monkeypatch):
    def fail(self, input):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Conv2d, "forward", fail)
        with pytest.raises(UserError, match=r"^data\.batch_size: expected memory for one image at least"):
            cell()
    assert cell()["images"] == 12  # the same command goes on


# shards


@pytest.mark.parametrize("count", [2, 3, 9])
def test_shards_are_the_whole(undisturbed, cell, tmp_path, caplog, count):
    caplog.set_level("INFO")
    summaries = [cell(f"data.shard={index}/{count}") for index in range(count, 0, -1)]
    assert summaries[:-1] == [None] * (count - 1) and summaries[-1]["images"] == 12
    assert results(tmp_path / "cell") == undisturbed
    assert f"shard {count}/{count} is complete: " in caplog.text
    assert cell("data.shard=2/2")["images"] == 12  # nothing is left to do


def test_a_shard_that_broke_off_goes_on(undisturbed, broken_off, cell, tmp_path):
    broken_off(2, "data.shard=2/2")
    assert cell("data.shard=1/2") is None
    cell("data.shard=2/2")
    assert results(tmp_path / "cell") == undisturbed


def test_a_whole_run_completes_what_shards_began(undisturbed, cell, tmp_path):
    cell("data.shard=2/3")
    cell()
    assert results(tmp_path / "cell") == undisturbed


def test_shards_of_other_batches_are_not_merged(cell, tmp_path):
    cell("data.shard=1/2", "data.batch_size=4", name="a/tiny")
    cell("data.shard=2/2", "data.batch_size=6", name="b/tiny")
    cell(name="c/whole")
    before = sorted((tmp_path / "a/tiny/parts").iterdir())
    study = read_study([tmp_path / machine for machine in "abc"])
    (problem,) = [problem for problem in study.problems if "cannot be merged" in problem.reason]
    assert "others: batch_size, batches" in problem.reason and len(study.cells) == 1
    assert sorted((tmp_path / "a/tiny/parts").iterdir()) == before


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b'{"about": {}, "checksum": 1}', None])
@pytest.mark.parametrize("whole", [0, 1])
def test_what_a_process_told_of_itself_is_damaged(undisturbed, broken_off, cell, tmp_path, caplog, damage, whole):
    broken_off(2)
    sessions = list((tmp_path / "cell/parts").glob("session-*"))
    if whole:
        shutil.copy(sessions[0], sessions[0].with_name("session-0-whole.json"))
    content = sessions[0].read_bytes()
    flipped = content.replace(b"float64", b"float65")
    assert flipped != content
    sessions[0].write_bytes(flipped if damage is None else damage)
    summary = cell()
    assert results(tmp_path / "cell") == undisturbed and summary["versions"] and summary["agreement"]["images"] >= 3
    assert "is damaged and left out" in caplog.text
    assert ("to tell what the others did" in caplog.text) == (not whole)


@pytest.mark.parametrize("shards", [False, True])
def test_what_processes_told_of_themselves_is_gone(undisturbed, cell, tmp_path, caplog, shards):
    """All parts are there, so no process would tell it anew."""
    name = "tiny"
    for index in (1, 2):
        cell(f"data.shard={index}/2", name=f"{index}/{name}")
        for path in (tmp_path / f"{index}/{name}/parts").glob("session-*"):
            path.unlink()
    if shards:
        with pytest.raises(UserError, match="expected complete cells"):
            read_study([tmp_path / "1", tmp_path / "2"])
    else:
        shutil.copytree(tmp_path / f"2/{name}/parts", tmp_path / f"1/{name}/parts", dirs_exist_ok=True)
        assert cell(name=f"1/{name}")["images"] == 12
        assert results(tmp_path / f"1/{name}")[:3] == undisturbed[:3]
    assert "to tell what the others did" in caplog.text


def test_the_report_merges_shards_of_several_machines(undisturbed, cell, tmp_path):
    name = "tiny"
    for index, machine in enumerate(("a", "b", "c"), 1):
        assert cell(f"data.shard={index}/3", name=f"{machine}/{name}") is None
    with pytest.raises(UserError, match="folder: expected complete cells"):
        read_study([tmp_path / "a", tmp_path / "c"])
    study = read_study([tmp_path / machine for machine in "abc"])
    assert [found.folder for found in study.cells] == [tmp_path / "a" / name]
    assert [problem.cell for problem in study.problems if problem.kind == "note"] == [name]
    assert results(tmp_path / "a" / name)[:3] == undisturbed[:3]
    assert study.cells[0].summary["excluded"] == 2 and study.cells[0].summary["agreement"]["images"] == 9
    assert read_study([tmp_path / machine for machine in "abc"]).problems == study.problems[1:]
    cell("data.shard=1/3", "seed=1", name=f"d/{name}")  # another cell
    told = read_study([tmp_path / machine for machine in "abcd"]).problems
    assert [(problem.kind, problem.cell) for problem in told[:-1]] == [("incomplete", name)] * 2
    assert "others: about.cell" in told[0].reason


def test_shares_are_a_partition_and_so_are_those_of_their_processes():
    for count in (1, 2, 3):
        for world in (1, 2, 5):
            shares = [Share(index, count).split(rank, world) for index in range(count) for rank in range(world)]
            for total in (1, 3, 40):
                assert [batch for share in shares for batch in share.batches(total)] == list(range(total))
                assert {len(share.batches(total)) for share in shares} <= {
                    total // len(shares),
                    -(-total // len(shares)),
                }
                whole = [len(Share(index, count).batches(total)) for index in range(count)]
                own = [sum(len(s.batches(total)) for s in shares[i * world : (i + 1) * world]) for i in range(count)]
                assert own == whole


def test_shards_one_after_another_leave_few_files(cell, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "GROUP", 3)
    for index in (1, 2):
        cell(f"data.shard={index}/3", "data.batch_size=1")
    names = sorted(path.name for path in (tmp_path / "cell/parts").glob("part-*"))
    assert [(int(name[5:13]), int(name[14:22])) for name in names] == [(0, 3), (3, 6), (6, 9), (9, 10)]


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2"])
def test_a_shard_that_is_none_is_refused(cell, shard):
    with pytest.raises(UserError, match="data.shard: expected i/n with 1 <= i <= n"):
        cell(f"data.shard={shard}")


# signals


@pytest.mark.parametrize(
    ("number", "arguments", "group"),
    [
        (signal.SIGTERM, ["data.num_workers=1"], True),  # as SLURM sends it: loading processes get it, too
        (signal.SIGINT, ["method=ixg,gradient"], True),
    ],
)
def test_a_signal_ends_the_run_after_a_batch_with_a_code_that_says_resumable(
    start, undisturbed, config, tmp_path, number, arguments, group
):
    with start(
        "+data.pause=0.1",
        "hydra.sweep.dir=m",
        "hydra.run.dir=m/x",
        *arguments,
        start_new_session=True,
        flags=["-m"] * (number == signal.SIGINT),
    ) as process:
        wait_for_parts(tmp_path / "m", 1, process)
        (os.killpg if group else os.kill)(process.pid, number)
        told = process.communicate(timeout=60)[1]
    assert process.returncode == 75, told
    assert f"interrupted by {number.name}: what was computed is kept, and the same command goes on" in told
    assert "Traceback" not in told
    (folder,) = {path.parent for path in (tmp_path / "m").glob("*/parts")}  # no other cell was begun
    assert not (folder / "samples.parquet").exists() and not list(folder.glob("parts/*.tmp"))
    run(config(*CELL, "+data.pause=0.1"), folder)
    assert results(folder) == undisturbed


def test_a_signal_before_the_first_batch_ends_it_at_once_and_another_later_lets_it_finish(undisturbed, cell, tmp_path):
    with pytest.raises(Interrupted), heeded():
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("the handler did not raise")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted) as stopped, heeded():
        pack = store_module.pack
        patch.setattr(store_module, "pack", lambda *a: os.kill(os.getpid(), signal.SIGUSR1) or pack(*a))
        cell()
    assert stopped.value.code == 75 and "interrupted by SIGUSR1" in stopped.value.told
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    assert len(list((tmp_path / "cell" / "parts").glob("part-*"))) == 1  # the batch during which it came
    cell()
    assert results(tmp_path / "cell") == undisturbed


# several devices


def test_two_processes_give_the_bits_of_one_in_a_multirun_as_well(start, cell, undisturbed, tmp_path):
    with start(
        "method=ixg,gradient", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", flags=["-m"]
    ) as process:
        told = process.communicate(timeout=300)[1]
    assert process.returncode == 0, told
    folders = {
        path.parent.name.split("-")[2]: path.parent for path in tmp_path.glob("multirun/default/*/samples.parquet")
    }
    assert results(folders["ixg"]) == undisturbed
    cell("method=gradient", name="gradient")
    assert results(folders["gradient"]) == results(tmp_path / "gradient")
    log = (folders["ixg"] / "canonxai.log").read_text()
    assert log.count("rules: ") == 1
    assert not list(folders["ixg"].glob("*.log"))[1:] and not (folders["ixg"] / "parts").exists()


def test_two_processes_compute_a_cell_anew(start, cell, undisturbed, tmp_path):
    cell()
    arguments = ["run.resume=false", f"hydra.run.dir={tmp_path / 'cell'}"]
    with start(*arguments, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2") as process:
        told = process.communicate(timeout=300)[1]
    assert process.returncode == 0, told
    assert results(tmp_path / "cell") == undisturbed


def test_a_process_that_dies_ends_the_run_which_can_go_on(start, undisturbed, config, tmp_path):
    killer = tmp_path / "helper"
    killer.touch()
    arguments = [f"+data.killer={killer}", "hydra.run.dir=out"]
    with start(*arguments, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2") as process:
        told = process.communicate(timeout=300)[1]
    assert process.returncode == 1
    assert "trainer.devices: expected all processes to finish, got one that ended by SIGKILL" in told
    assert "Traceback" not in told
    run(config(*CELL, arguments[0]), tmp_path / "out")
    assert results(tmp_path / "out") == undisturbed


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.devices=0", r"trainer.devices: expected a number from 1 to \d+, a list of GPUs, or auto, got 0"),
        (
            "+trainer.num_nodes=2",
            "trainer.num_nodes: expected 1, got 2. Give each machine a part",
        ),
    ],
)
def test_devices_that_cannot_be_are_refused(cell, override, message):
    with pytest.raises(UserError, match=message):
        cell(override)


# determinism


@pytest.mark.parametrize("count", [-1, 100_000])
def test_loading_processes_that_would_fill_the_memory_are_refused(cell, count):
    with pytest.raises(UserError, match=f"data.num_workers: expected a number from 0 to [0-9]+, got {count}"):
        cell(f"data.num_workers={count}")


def test_the_flags_of_torch_are_set_and_put_back(undisturbed, cell, tmp_path, monkeypatch):
    seen = []
    flags = lambda: (  # noqa: E731
        torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic, os.environ.get(CUBLAS)
    )  # fmt: skip
    before = flags()
    hook = StoreWriter.on_predict_batch_end
    monkeypatch.setattr(StoreWriter, "on_predict_batch_end", lambda *a, **k: seen.append(flags()) or hook(*a, **k))
    cell("run.deterministic=true")
    assert set(seen) == {(True, True, ":4096:8")} and flags() == before == (False, False, None)
    assert results(tmp_path / "cell") == undisturbed


def test_an_operation_that_cannot_be_deterministic_is_told():
    with pytest.raises(UserError, match="run.deterministic: expected operations that can be"), deterministic(True):
        raise RuntimeError("put_ does not have a deterministic implementation, but you set ...")
    with pytest.raises(RuntimeError, match="other"), deterministic(True):
        raise RuntimeError("other")
    assert not torch.are_deterministic_algorithms_enabled()

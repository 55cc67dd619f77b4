"""Cells: reading, pairing, and what is told of those that cannot be read or compared."""

import json
import os
import shutil
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from canonxai.errors import UserError
from canonxai.report.cells import read_cell, read_study
from tests.report.study import IMAGES, METHODS, MODELS, values_of, write_cell, write_study


def problems(study, kind=None):
    return [problem for problem in study.problems if kind in (None, problem.kind)]


def write_pair(folder, original=None, canonized=None, **both):
    """A cell and its twin."""
    return write_cell(folder, canonize=False, **{**both, **(original or {})}), write_cell(
        folder, canonize=True, **{**both, **(canonized or {})}
    )


# reading


def test_a_complete_grid_is_read_and_paired_without_a_problem(tmp_path):
    study = read_study([write_study(tmp_path)])
    assert problems(study) == []
    assert {(c.data, c.model, c.method, c.state) for c in study.cells} == {
        ("scenes", model, method, state)
        for model in MODELS
        for method in METHODS
        for state in ("original", "canonized")
    }
    assert len(study.pairs) == len(MODELS) * len(METHODS)
    for pair in study.pairs:
        assert (pair.original.state, pair.canonized.state, pair.variant) == ("original", "canonized", "")
        assert (pair.original.model, pair.original.method) == (pair.canonized.model, pair.canonized.method)
        assert pair.sample_id.tolist() == list(range(IMAGES))


def test_a_cell_knows_its_config_metrics_curves_and_maps(tmp_path):
    folder = write_cell(tmp_path, values=values_of("resnet18", "lrp_eps", True), maps=3, title="mine")
    cell = read_cell(folder)
    assert (cell.folder, cell.name, cell.title, cell.state) == (folder, folder.name, "mine", "canonized")
    assert cell.metrics == {"localization": True, "input_perturbation": True, "distance": None}
    (axis,) = cell.curves.values()
    assert axis == pytest.approx(np.linspace(0, 0.2, 21))
    assert cell.maps["heatmap"].shape == (3, 64, 64)
    assert cell.twin_settings["method.epsilon"] == 1e-6 and cell.twin_settings["data.size"] == IMAGES
    assert not any(key.startswith("canoni") for key in cell.twin_settings)


def test_a_cell_without_maps_has_none(tmp_path):
    assert read_cell(write_cell(tmp_path)).maps is None


def test_columns_are_in_the_order_of_the_samples_whatever_the_order_of_the_file(tmp_path):
    values = values_of("resnet18", "ebp", True)
    order = np.random.default_rng(0).permutation(IMAGES)
    shuffled = {name: value[order] for name, value in values.items()}
    straight = read_cell(write_cell(tmp_path / "a", values=values, probability=np.linspace(0.1, 0.9, IMAGES)))
    label, box = straight.column("label")[order].astype(int), straight.column("box_fraction")[order]
    cell = read_cell(
        write_cell(
            tmp_path / "b", values=shuffled, sample_id=order, label=label, box_fraction=box,
            probability=straight.column("probability")[order],
        )
    )  # fmt: skip
    assert pq.read_table(cell.folder / "samples.parquet")["sample_id"].to_pylist() == order.tolist()
    assert cell.sample_id.tolist() == list(range(IMAGES))
    for name in (*values, "label", "box_fraction"):
        assert cell.column(name).tolist() == straight.column(name).tolist()
    assert np.array_equal(cell.curve("perturbation_curve"), straight.curve("perturbation_curve"))


def test_null_and_infinity_are_nan(tmp_path):
    folder = write_cell(tmp_path, values={"localization": [0.5, np.nan, 0.25]})
    put("relevance_total", lambda v: [np.inf] * 3)(folder)
    cell = read_cell(folder)
    assert pq.read_table(cell.folder / "samples.parquet")["localization"].to_pylist() == [0.5, None, 0.25]
    assert cell.column("localization").tolist() == [0.5, pytest.approx(np.nan, nan_ok=True), 0.25]
    assert np.isnan(cell.column("relevance_total")).all()


@pytest.mark.parametrize("missing", ["samples.parquet", "summary.json"])
def test_a_cell_that_is_not_finished_is_incomplete_and_the_others_are_read(tmp_path, missing):
    write_pair(tmp_path)
    broken = write_cell(tmp_path, method="ebp", canonize=True)
    (broken / missing).unlink()
    study = read_study([tmp_path])
    (told,) = problems(study, "incomplete")
    assert told.cell == broken.name and missing in told.reason
    assert len(study.cells) == 2 and len(study.pairs) == 1


def test_a_cell_that_stopped_before_it_wrote_its_config_is_incomplete_under_its_own_name(tmp_path):
    write_pair(tmp_path)
    (tmp_path / "scenes-resnet18-ebp-canonized-0" / ".hydra").mkdir(parents=True)
    (tmp_path / "scenes-resnet18-ebp-canonized-0" / ".hydra" / "config.yaml").write_text("{}")
    (told,) = problems(read_study([tmp_path]))
    assert (told.kind, told.cell) == ("incomplete", "scenes-resnet18-ebp-canonized-0")


def test_nothing_below_a_cell_is_a_cell(tmp_path):
    first, _ = write_pair(tmp_path)
    shutil.copytree(write_cell(tmp_path / "x", method="ebp"), first / "copy")
    (first / ".hydra").mkdir()
    (first / ".hydra" / "config.yaml").write_text("{}")
    shutil.rmtree(tmp_path / "x")
    study = read_study([tmp_path])
    assert len(study.cells) == 2 and problems(study) == []


def truncate(cell):
    content = (cell / "samples.parquet").read_bytes()
    (cell / "samples.parquet").write_bytes(content[: len(content) // 2])


def edit(change):
    def damage(cell):
        table = change(pq.read_table(cell / "samples.parquet"))
        pq.write_table(table, cell / "samples.parquet")

    return damage


def put(column, values):
    """Replaces a column by ``values`` of the old ones."""
    return edit(lambda t: t.set_column(t.column_names.index(column), column, pa.array(values(t[column].to_pylist()))))


def write(file, content):
    return lambda cell: (cell / file).write_text(content)


def pipe(file):
    def damage(cell):
        (cell / file).unlink()
        os.mkfifo(cell / file)

    return damage


def endless(file):
    def damage(cell):
        (cell / file).unlink()
        (cell / file).symlink_to("/dev/zero")

    return damage


def in_summary(change):
    def damage(cell):
        content = json.loads((cell / "summary.json").read_text())
        change(content)
        (cell / "summary.json").write_text(json.dumps(content))

    return damage


def cut_maps(cell):
    content = (cell / "maps.npz").read_bytes()
    (cell / "maps.npz").write_bytes(content[: len(content) // 2])


DAMAGES = {
    "truncated parquet": truncate,
    "empty parquet": write("samples.parquet", ""),
    "no column of a metric": edit(lambda t: t.drop_columns(["localization"])),
    "no column of all cells": edit(lambda t: t.drop_columns(["box_fraction"])),
    "no column of a curve": edit(lambda t: t.drop_columns(["perturbation_curve"])),
    "text in a column": put("localization", lambda v: ["much"] * len(v)),
    "curves of several lengths": put("perturbation_curve", lambda v: [v[0][:3], *v[1:]]),
    "curves of another length": put("perturbation_curve", lambda v: [c[:3] for c in v]),
    "null sample": put("sample_id", lambda v: [None, *v[1:]]),
    "duplicated samples": put("sample_id", lambda v: [v[1], *v[1:]]),
    "fewer rows than the summary tells": edit(lambda t: t.slice(0, 30)),
    "garbage json": write("summary.json", "{"),
    "json that is no mapping": write("summary.json", "[1]"),
    "json whose versions are null": in_summary(lambda s: s.update(versions=None)),
    "json whose title is a number": in_summary(lambda s: s.update(title=3)),
    "json without a direction": in_summary(lambda s: s["metrics"].update(localization={})),
    "json with a direction that is none": in_summary(
        lambda s: s["metrics"]["localization"].update(higher_is_better="no")
    ),
    "json without versions": in_summary(lambda s: s.pop("versions")),
    "json without a model": in_summary(lambda s: s.pop("model")),
    "json without metrics": in_summary(lambda s: s.pop("metrics")),
    "garbage yaml": write("config.yaml", "a: ["),
    "empty yaml": write("config.yaml", ""),
    "yaml that is a pipe": pipe("config.yaml"),
    "yaml without an end": endless("config.yaml"),
    "yaml of aliases": write("config.yaml", "a: &a [1]\nb: [*a, *a]\n"),
    "yaml without data": write("config.yaml", "canonize: true\ncanonizer: {}\nperturbation: {}"),
}
FILES = {"json": "summary.json", "yaml": "config.yaml"}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_cell_is_told_in_a_line_and_the_others_are_read(tmp_path, damage):
    write_pair(tmp_path)
    values = values_of("resnet18", "ebp", True)
    broken = write_cell(tmp_path, method="ebp", values=values, maps=True)
    assert problems(read_study([tmp_path]), "damaged") == []
    damage(broken)
    study = read_study([tmp_path])
    (told,) = problems(study, "damaged")
    assert told.cell == broken.name and "\n" not in told.reason
    assert len(study.cells) == 2 and len(study.pairs) == 1
    (kind,) = [kind for kind, tried in DAMAGES.items() if tried is damage]
    file = next((file for word, file in FILES.items() if word in kind.split()), "samples.parquet")
    assert told.reason.startswith(f"{broken / file}: ")


def bomb(cell):
    """A million rows in a few thousand bytes, as which a file can hold any number."""
    numbers, path = np.arange(10**6), cell / "samples.parquet"
    schema = pq.read_schema(path)
    rest = [pa.nulls(len(numbers), field.type) for field in schema][1:]
    table = pa.table([pa.array(numbers), *rest], schema)
    encoding = {"sample_id": "DELTA_BINARY_PACKED"}
    pq.write_table(table, path, use_dictionary=False, column_encoding=encoding, compression="zstd")
    in_summary(lambda s: s.update(images=len(numbers)))(cell)


@pytest.mark.parametrize("damage, reason", [
    (bomb, "1000000 rows in "),
    (put("perturbation_curve", lambda v: [[0.0] * 10**5] * len(v)), "perturbation_curve has 4000000 values in 40 rows"),
])  # fmt: skip
def test_what_would_fill_the_memory_is_told_before_it_is_read(tmp_path, damage, reason):
    write_pair(tmp_path)
    damage(write_cell(tmp_path, method="ebp", values=values_of("resnet18", "ebp", True)))
    (told,) = problems(read_study([tmp_path]), "damaged")
    assert reason in told.reason


def in_maps(change):
    def damage(cell):
        maps = dict(np.load(cell / "maps.npz"))
        np.savez(cell / "maps.npz", **(maps | change(maps)))

    return damage


def pixels_of_a_header_alone(cell):
    """40,000 x 40,000 images, which no memory has to hold, as there is nothing behind the header."""
    maps = dict(np.load(cell / "maps.npz"))
    np.savez(cell / "maps.npz", **maps)
    with ZipFile(cell / "maps.npz", "w") as archive:
        for name in maps:
            shape = (1,) if name in ("sample_id", "label") else (1, *(3,) * (name == "image"), 40_000, 40_000)
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


DAMAGED_MAPS = {
    "pixels for which there is no memory": pixels_of_a_header_alone,
    "more maps than samples": in_maps(lambda maps: {name: np.concatenate([maps[name]] * 30) for name in maps}),
    "garbage npz": write("maps.npz", "no zip"),
    "truncated npz": cut_maps,
    "npz without maps": lambda cell: np.savez(cell / "maps.npz", sample_id=np.arange(2)),
    "fewer heatmaps": in_maps(lambda maps: {"heatmap": maps["heatmap"][:2]}),
    "smaller heatmaps": in_maps(lambda maps: {"heatmap": maps["heatmap"][:, 1:]}),
    "fewer boxes": in_maps(lambda maps: {"box": maps["box"][:2]}),
    "fewer labels": in_maps(lambda maps: {"label": maps["label"][:2]}),
    "images of other channels": in_maps(lambda maps: {"image": maps["image"].repeat(2, 1)}),
    "another array": in_maps(lambda maps: {"other": np.zeros(1)}),
    "labels as long as memory": in_maps(lambda maps: {"label": np.array(["x"] * len(maps["label"]), "U1000")}),
    "maps of other samples": in_maps(lambda maps: {"sample_id": maps["sample_id"] + 1000}),
}


@pytest.mark.parametrize("damage", DAMAGED_MAPS.values(), ids=DAMAGED_MAPS)
def test_damaged_maps_are_told_and_lost_alone(tmp_path, damage):
    _, broken = write_pair(tmp_path, values=values_of("resnet18", "lrp_eps", True), maps=True)
    damage(broken)
    study = read_study([tmp_path])
    (told,) = problems(study)
    assert (told.kind, told.cell) == ("damaged", broken.name)
    assert told.reason.startswith(f"{broken / 'maps.npz'}: ") and told.reason.endswith("; its other results are used")
    (pair,) = study.pairs
    assert pair.canonized.maps is None and pair.original.maps is not None


def test_large_maps_are_told_from_their_header(tmp_path):
    _, broken = write_pair(tmp_path, maps=True)
    pixels_of_a_header_alone(broken)
    (told,) = problems(read_study([tmp_path]))
    assert "maps.npz: 40000 x 40000 pixels are more than 100000000" in told.reason


def test_many_cells_with_maps_hold_no_files_open(tmp_path):
    study = read_study([write_study(tmp_path, models=["resnet18"], maps=2)])
    assert all(cell.maps["heatmap"].shape == (2, 64, 64) for cell in study.cells)
    opened = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert not [path for path in opened if path.endswith("maps.npz")]


def test_a_stranger_s_config_reads_no_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("PASSWORD_OF_MINE", "geheim")
    write_pair(tmp_path)
    broken = write_cell(tmp_path, method="ebp")
    name = "${oc.env:PASSWORD_OF_MINE}"
    settings = yaml.safe_load((broken / "config.yaml").read_text()) | {"data": {"name": name}}
    (broken / "config.yaml").write_text(yaml.safe_dump(settings))
    (broken / "summary.json").unlink()
    study = read_study([tmp_path])
    assert any(name in problem.cell for problem in problems(study, "missing"))
    assert "geheim" not in repr(study)


def test_a_folder_that_does_not_exist_is_told(tmp_path):
    with pytest.raises(UserError, match="^folder: expected an existing folder, got '.*nowhere'"):
        read_study([tmp_path / "nowhere"])


def test_a_folder_without_complete_cells_is_told_with_what_was_found_instead(tmp_path):
    with pytest.raises(UserError, match="^folder: expected complete cells in .*, got none"):
        read_study([tmp_path])
    cell = write_cell(tmp_path)
    (cell / "summary.json").unlink()
    with pytest.raises(UserError, match=f"got {cell.name}: incomplete, has no summary.json"):
        read_study([tmp_path])


# several folders


def test_cells_of_several_folders_are_one_study(tmp_path):
    write_study(tmp_path / "a", models=["resnet18"])
    write_study(tmp_path / "b", models=["vgg16_bn"], states=[False])
    write_study(tmp_path / "c", models=["vgg16_bn"], states=[True])
    study = read_study([tmp_path / name for name in "abc"])
    assert problems(study) == [] and len(study.pairs) == len(MODELS) * len(METHODS)


def test_the_order_of_the_folders_does_not_matter(tmp_path):
    write_study(tmp_path / "a", models=["resnet18"], methods=METHODS[:3])
    write_study(tmp_path / "b", states=[False], models=["vgg16_bn"], settings={"seed": 1})
    write_cell(tmp_path / "b", canonize=True, model="vgg16_bn", settings={"seed": 2})
    first, second = (read_study([tmp_path / name for name in order]) for order in ("ab", "ba"))
    names = [[(p.original.name, p.canonized.name, p.variant) for p in study.pairs] for study in (first, second)]
    assert names[0] == names[1]
    assert [c.name for c in first.cells] == [c.name for c in second.cells]
    assert first.problems == second.problems and problems(first)


def test_a_folder_that_is_named_twice_is_read_once(tmp_path):
    write_pair(tmp_path / "a")
    study = read_study([tmp_path, tmp_path / "a", tmp_path / "a" / ".."])
    assert len(study.cells) == 2 and problems(study) == []


@pytest.mark.parametrize("again", [0.5, 0.5 + 1e-13])
def test_of_a_cell_in_two_folders_the_first_is_used_and_the_second_told(tmp_path, again):
    write_pair(tmp_path / "a", values={"localization": 0.5})
    second = write_cell(tmp_path / "b", values={"localization": again})
    study = read_study([tmp_path / "a", tmp_path / "b"])
    (problem,) = problems(study)
    assert problem.kind == "duplicate" and "the same results" in problem.reason and str(second) in problem.reason
    assert len(study.cells) == 2 and study.pairs[0].canonized.column("localization")[0] == 0.5
    other = read_study([tmp_path / "b", tmp_path / "a"])
    assert other.pairs[0].canonized.column("localization")[0] == again


def test_a_cell_with_other_results_in_two_folders_is_left_out(tmp_path):
    write_pair(tmp_path / "a", values={"localization": 0.5})
    write_pair(tmp_path / "a", method="ebp")
    second = write_cell(tmp_path / "b", values={"localization": 0.6})
    told = []
    for order in ("ab", "ba"):
        study = read_study([tmp_path / name for name in order])
        assert [pair.canonized.method for pair in study.pairs] == ["ebp"]
        duplicate, missing = problems(study)
        assert (duplicate.kind, duplicate.cell) == ("duplicate", second.name)
        assert all(str(tmp_path / name / second.name) in duplicate.reason for name in "ab")
        assert (missing.kind, missing.cell) == ("missing", "scenes-resnet18-lrp_eps-canonized")
        told.append(missing)
    assert told[0] == told[1]


# pairing


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({"seed": 1}, ["data.seed", "seed"]),
        ({"data.size": 39}, ["data.size"]),
        ({"method.epsilon": 0.5}, ["method.epsilon"]),
        ({"target": "predicted", "precision": 32}, ["precision", "target"]),
        ({"metric.localization.region": "mask"}, ["metric.localization.region"]),
    ],
)
def test_cells_of_other_settings_are_no_pair_and_the_settings_are_named(tmp_path, change, keys):
    original, canonized = write_pair(tmp_path, canonized={"settings": change})
    study = read_study([tmp_path])
    assert study.pairs == []
    told = next(problem for problem in problems(study, "refused"))
    assert told.cell == canonized.name
    assert told.reason == f"not compared with {original.name}: they differ in {', '.join(keys)}"


@pytest.mark.parametrize(
    "change", [{"data.batch_size": 7}, {"save_maps": 3}, {"trainer": "gpu"}, {"perturbation.batch_size": 3}]
)
def test_settings_on_which_no_result_depends_do_not_keep_cells_apart(tmp_path, change):
    write_pair(tmp_path, canonized={"settings": change, "study": "other"})
    study = read_study([tmp_path])
    assert len(study.pairs) == 1 and problems(study) == []


def test_several_variants_are_paired_by_their_settings_and_get_them_as_names(tmp_path):
    for seed, epsilon in [(0, 1e-6), (1, 1e-6), (1, 0.5)]:
        write_pair(tmp_path, settings={"seed": seed, "method.epsilon": epsilon})
    write_pair(tmp_path, method="ebp")
    study = read_study([tmp_path])
    assert problems(study) == []
    assert sorted(pair.variant for pair in study.pairs) == [
        "",
        "data.seed=0, method.epsilon=1e-06, seed=0",
        "data.seed=1, method.epsilon=0.5, seed=1",
        "data.seed=1, method.epsilon=1e-06, seed=1",
    ]
    for pair in study.pairs:
        assert pair.original.settings["seed"] == pair.canonized.settings["seed"]
        assert pair.original.settings["method"] == pair.canonized.settings["method"]


def test_pairs_that_differ_in_how_they_were_canonized_get_names(tmp_path):
    write_pair(tmp_path)
    write_cell(tmp_path, settings={"canonizer.exact": False, "canonizer.tolerance": 0.1})
    study = read_study([tmp_path])
    assert sorted(pair.variant for pair in study.pairs) == [
        "canonizer.exact=False, canonizer.tolerance=0.1",
        "canonizer.exact=True, canonizer.tolerance=0.0001",
    ]
    assert len({pair.original.name for pair in study.pairs}) == 1


def test_an_original_of_which_no_canonized_cell_has_the_settings_is_told(tmp_path):
    write_pair(tmp_path)
    alone = write_cell(tmp_path, canonize=False, settings={"method.epsilon": 0.5})
    study = read_study([tmp_path])
    (told,) = problems(study)
    assert len(study.pairs) == 1 and (told.kind, told.cell) == ("missing", alone.name)
    assert told.reason == "has no canonized twin: none was computed with method.epsilon=0.5"


def test_the_nearest_original_is_named_where_none_fits(tmp_path):
    write_cell(tmp_path, canonize=False, settings={"seed": 1, "method.epsilon": 0.5})
    near = write_cell(tmp_path, canonize=False, settings={"method.epsilon": 0.5})
    write_cell(tmp_path)
    (told,) = problems(read_study([tmp_path]), "refused")
    assert told.reason == f"not compared with {near.name}: they differ in method.epsilon"


def test_what_the_grid_lacks_is_listed(tmp_path):
    write_study(tmp_path)
    for cell in [*tmp_path.glob("scenes-resnet18-ebp-canonized-*"), *tmp_path.glob("scenes-vgg16_bn-lrp_eps-*")]:
        shutil.rmtree(cell)
    study = read_study([tmp_path])
    assert sorted((problem.kind, problem.cell) for problem in study.problems) == [
        ("missing", "scenes-resnet18-ebp-canonized"),
        ("missing", "scenes-vgg16_bn-lrp_eps-canonized"),
        ("missing", "scenes-vgg16_bn-lrp_eps-original"),
    ]
    assert len(study.pairs) == 6


def test_an_incomplete_or_damaged_cell_also_counts_as_missing(tmp_path):
    write_pair(tmp_path)
    write_cell(tmp_path, method="ebp", canonize=False)
    (write_cell(tmp_path, method="ebp") / "summary.json").unlink()
    assert {problem.kind for problem in read_study([tmp_path]).problems} == {"incomplete", "missing"}


def test_a_method_of_which_both_cells_are_damaged_is_missing(tmp_path):
    write_pair(tmp_path)
    for cell in write_pair(tmp_path, method="ebp"):
        truncate(cell)
    assert sorted((problem.kind, problem.cell) for problem in read_study([tmp_path]).problems)[2:] == [
        ("missing", "scenes-resnet18-ebp-canonized"),
        ("missing", "scenes-resnet18-ebp-original"),
    ]


def test_canonized_cells_alone_lack_their_originals(tmp_path):
    study = read_study([write_study(tmp_path, states=[True], models=["resnet18"], methods=["ebp", "ig"])])
    assert study.pairs == []
    assert [problem.cell for problem in problems(study, "missing")] == [
        "scenes-resnet18-ebp-original",
        "scenes-resnet18-ig-original",
    ]


def test_originals_alone_are_a_study_without_pairs_that_lacks_the_canonized(tmp_path):
    study = read_study([write_study(tmp_path, states=[False], models=["resnet18"])])
    assert len(study.cells) == len(METHODS) and study.pairs == []
    assert [(problem.kind, problem.cell) for problem in problems(study)] == [
        ("missing", f"scenes-resnet18-{method}-canonized") for method in sorted(METHODS)
    ]


def test_of_the_parts_of_the_canonizer_none_is_the_original_and_the_others_are_states(tmp_path):
    for parts in ([], ["merge_bn"], ["sum"], ["merge_bn", "sum"]):
        write_cell(tmp_path, settings={"canonizer.parts": parts})
    study = read_study([tmp_path])
    assert problems(study) == []
    assert {(pair.original.settings["canonizer"]["parts"] == [], pair.original.state) for pair in study.pairs} == {
        (True, "original")
    }
    assert sorted(pair.canonized.state for pair in study.pairs) == ["merge_bn", "merge_bn+sum", "sum"]
    assert [pair.variant for pair in study.pairs] == ["", "", ""]


def test_a_cell_without_canonization_goes_before_one_with_no_parts(tmp_path):
    write_cell(tmp_path, settings={"canonizer.parts": []})
    original, _ = write_pair(tmp_path)
    (pair,) = read_study([tmp_path]).pairs
    assert pair.original.name == original.name


@pytest.mark.parametrize(
    ("column", "change", "reason"),
    [
        ("label", 1, "the same samples have another label"),
        ("target", 1, "the same samples have another target"),
        ("box_fraction", 1e-3, "the same samples have another box_fraction"),
        ("probability", 2e-3, "the networks give other probabilities for the same images"),
    ],
)
def test_other_images_or_networks_under_equal_settings_are_refused(tmp_path, column, change, reason):
    first = {"label": np.arange(9), "target": np.arange(9), "box_fraction": np.full(9, 0.4), "probability": np.ones(9)}
    second = first | {column: first[column] + change * (np.arange(9) == 4)}
    original, canonized = write_pair(tmp_path, first, second, sample_id=np.arange(9))
    study = read_study([tmp_path])
    assert study.pairs == []
    (told,) = problems(study)
    assert (told.kind, told.cell) == ("refused", canonized.name)
    assert told.reason == f"not compared with {original.name}: {reason}"


@pytest.mark.parametrize("column", ["probability", "box_fraction"])
def test_what_is_not_defined_is_not_told_as_other(tmp_path, column):
    _, canonized = write_pair(tmp_path)
    put(column, lambda values: [None, np.nan, *values[2:]])(canonized)
    (told,) = problems(read_study([tmp_path]))
    assert told.kind == "refused" and told.reason.endswith(f": {column} is not defined for 2 of {IMAGES} samples")


@pytest.mark.parametrize("direction", [False, None])
def test_metrics_of_another_direction_are_refused(tmp_path, direction):
    _, canonized = write_pair(tmp_path, canonized={"higher_is_better": {"localization": direction}})
    study = read_study([tmp_path])
    (told,) = problems(study)
    assert study.pairs == [] and (told.kind, told.cell) == ("refused", canonized.name)
    assert told.reason.endswith("they tell of other metrics, or of another direction: localization")


def test_metrics_that_one_cell_lacks_are_refused(tmp_path):
    original, _ = write_pair(tmp_path, values=values_of("resnet18", "ebp", True))
    in_summary(lambda s: s["metrics"].pop("distance"))(original)
    (told,) = problems(read_study([tmp_path]))
    assert told.kind == "refused" and told.reason.endswith("direction: distance")


def test_probabilities_that_differ_by_rounding_are_the_same(tmp_path):
    write_pair(tmp_path, {"probability": np.full(9, 0.5)}, {"probability": np.full(9, 0.5 + 1e-5)})
    assert len(read_study([tmp_path]).pairs) == 1


def test_samples_of_one_cell_only_are_counted_and_left_out(tmp_path):
    same = {"label": 1, "box_fraction": 0.3, "probability": 0.9, "settings": {"data.size": 10}}
    ids = np.array([7, 5, 9, 1]), np.array([1, 2, 9, 3, 7])
    values = [{"localization": 0.01 * i + canonized} for canonized, i in enumerate(ids)]
    write_pair(tmp_path, {"sample_id": ids[0], "values": values[0]}, {"sample_id": ids[1], "values": values[1]}, **same)
    study = read_study([tmp_path])
    (pair,), (note,) = study.pairs, problems(study)
    assert note.kind == "note" and note.reason == "3 samples are in one of the two cells only, and left out"
    assert pair.sample_id.tolist() == [1, 7, 9]
    original, canonized = pair.columns("localization")
    assert original.tolist() == [0.01, 0.07, 0.09] and canonized.tolist() == pytest.approx([1.01, 1.07, 1.09])


def test_cells_without_a_sample_in_common_are_refused(tmp_path):
    settings = {"data.size": 10}
    write_pair(tmp_path, {"sample_id": np.arange(3)}, {"sample_id": np.arange(3) + 3}, settings=settings)
    (told,) = problems(read_study([tmp_path]))
    assert told.kind == "refused" and told.reason.endswith("they have no sample in common")


def test_pairs_are_matched_by_sample_whatever_the_order_of_the_files(tmp_path):
    order = np.array([3, 0, 2, 1])
    same = {"label": 0, "box_fraction": 0.3, "probability": 0.9}
    write_pair(
        tmp_path,
        {"sample_id": np.arange(4), "values": {"localization": np.arange(4) / 10}},
        {"sample_id": order, "values": {"localization": order / 10 + 0.5}},
        **same,
    )
    (pair,) = read_study([tmp_path]).pairs
    original, canonized = pair.columns("localization")
    assert (canonized - original).tolist() == pytest.approx([0.5] * 4)


def test_other_versions_are_noted_and_compared(tmp_path):
    original, canonized = write_pair(tmp_path, canonized={"versions": {"torch": "1.0", "numpy": "0.9"}})
    study = read_study([tmp_path])
    (note,) = problems(study)
    assert len(study.pairs) == 1 and (note.kind, note.cell) == ("note", canonized.name)
    assert note.reason == f"computed by another version of torch, numpy than {original.name}"


def test_cells_of_other_models_methods_or_data_are_never_paired(tmp_path):
    write_cell(tmp_path, canonize=False)
    write_cell(tmp_path, method="ebp")
    write_cell(tmp_path, model="vgg16_bn")
    study = read_study([tmp_path])
    assert study.pairs == [] and problems(study, "refused") == []
    assert "scenes-vgg16_bn-lrp_eps-original" in {problem.cell for problem in problems(study, "missing")}

"""One cell from the config to its files, and what a study needs of its cells."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from canonxai.canonizers.graph.affine import Affine, batch_norm_affine
from canonxai.config import CONF
from canonxai.data import DataModule, Sample
from canonxai.errors import UserError
from canonxai.models.checkpoint import WEIGHTS
from canonxai.results.store import COLUMNS
from canonxai.run import run

METRICS = "metric=[localization,input_perturbation,distance]"


@pytest.fixture
def cell(config, tmp_path):
    """Runs a small cell on the CPU and returns its samples by column, and its summary."""

    def compute(*overrides, name="cell"):
        summary = run(config("trainer=cpu", "data.size=12", "run.resume=false", *overrides), tmp_path / name)
        return pq.read_table(tmp_path / name / "samples.parquet").to_pydict(), summary

    return compute


def numbers(samples, column):
    return np.array(samples[column], dtype=float)


def test_a_cell_leaves_what_the_readme_promises(cell, tmp_path):
    samples, summary = cell(METRICS, "canonize=true", "save_maps=3")
    folder = tmp_path / "cell"
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "rules.csv", "samples.parquet", "summary.json", "maps.npz", "maps.png",
    }  # fmt: skip
    assert samples["sample_id"] == list(range(12))
    assert [*samples] == [*COLUMNS, "localization", "input_perturbation", "perturbation_curve", "distance"]
    assert {len(curve) for curve in samples["perturbation_curve"]} == {21}
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert summary["images"] == 12
    assert summary["metrics"]["localization"]["strata"]["all"]["n"] == 12
    assert summary["agreement"]["images"] == 12
    assert summary["agreement"]["difference"]["float64"]["max_rel"] < 1e-12
    assert summary["agreement"]["difference"]["float32"]["max_rel"] < 1e-4
    assert summary["evaluation"]["network"] == "fused"
    assert summary["evaluation"]["difference"]["float64"]["max_rel"] < 1e-12
    assert 0 < summary["evaluation"]["effect"]["max"] < 1e-5
    assert summary["evaluation"]["effect"]["images"] == 12
    assert summary["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert "${" not in (folder / "config.yaml").read_text()
    assert len(np.load(folder / "maps.npz")["heatmap"]) == 3


def test_the_values_stored_are_those_of_the_maps(cell, tmp_path):
    samples, _ = cell("method=lrp_eps_plus", "save_maps=12")
    maps = np.load(tmp_path / "cell" / "maps.npz")
    positive = maps["heatmap"].clip(min=0).astype(float)
    expected = (positive * maps["box"]).sum((1, 2)) / positive.sum((1, 2))
    np.testing.assert_allclose(numbers(samples, "localization"), expected, rtol=1e-5)
    np.testing.assert_allclose(numbers(samples, "box_fraction"), maps["box"].mean((1, 2)))
    np.testing.assert_allclose(numbers(samples, "relevance_total"), maps["heatmap"].sum((1, 2)), rtol=1e-3, atol=1e-5)
    curves = np.array(samples["perturbation_curve"])
    np.testing.assert_allclose(curves[:, 0], samples["probability"])
    np.testing.assert_allclose((curves[:, :1] - curves[:, 1:]).mean(1), samples["input_perturbation"], rtol=1e-6)


def test_a_last_layer_of_zeros_is_told_once(cell, tmp_path, caplog):
    weights = load_file(WEIGHTS / "scenes_resnet18.safetensors")
    save_file({k: v.float() * (not k.startswith("fc.")) for k, v in weights.items()}, tmp_path / "zero.safetensors")
    samples, _ = cell(
        "data.size=4", "data.batch_size=2", "canonize=true", f"model.checkpoint={tmp_path / 'zero.safetensors'}"
    )
    assert samples["relevance_max"] == [0] * 4
    assert caplog.text.count("all logits are 0") == 1


@pytest.mark.parametrize("method", ["lrp_eps_plus", "smoothgrad", "random"])
def test_results_do_not_depend_on_batch_sizes_or_workers(cell, method):
    shared = (
        METRICS,
        f"method={method}",
        "canonize=true",
        "perturbation.precision=64",
        "metric.input_perturbation.steps=4",
    )
    reference, _ = cell(*shared)
    variants = [
        ("data.batch_size=1", "perturbation.batch_size=64"),
        ("data.batch_size=7", "perturbation.batch_size=5"),
        ("data.batch_size=64", "data.num_workers=2"),
        ("perturbation.batch_size=auto", "perturbation.channels_last=false"),
    ]
    for variant in variants:
        samples, _ = cell(*shared, *variant, name="variant")
        for column in reference:
            np.testing.assert_allclose(
                np.array(samples[column], float), np.array(reference[column], float), rtol=1e-9, atol=1e-12
            )


def test_what_canonization_cannot_affect_comes_out_the_same_to_the_last_digit(cell):
    for method in ("gradient", "ixg", "ig", "smoothgrad", "gbp", "deconvnet", "random"):
        shared = (METRICS, f"method={method}", "data.size=6")
        canonized, _ = cell(*shared, "canonize=true", name="canonized")
        original, _ = cell(*shared, "canonize=false", name="original")
        assert max(canonized["distance"]) < 1e-10
        assert canonized["input_perturbation"] == original["input_perturbation"]
        np.testing.assert_allclose(canonized["localization"], original["localization"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("model", ["resnet18", "vgg16_bn", "densenet121", "efficientnet_b0"])
def test_the_form_of_the_evaluated_network_changes_nothing_beyond_rounding(cell, model):
    shared = (METRICS, f"model={model}", "method=gradient", "canonize=true", "metric.input_perturbation.steps=3")
    fused, summary = cell(*shared, name="fused")
    original, _ = cell(*shared, "perturbation.network=original", name="original")
    assert summary["evaluation"]["network"] == "fused"
    for column in ("probability", "input_perturbation", "localization"):
        np.testing.assert_allclose(numbers(fused, column), numbers(original, column), rtol=0, atol=1e-5)
    assert fused["prediction"] == original["prediction"]


@pytest.mark.parametrize("model", ["resnet18", "vgg16_bn"])
def test_the_study_comes_out_on_the_embedded_benchmark(cell, model):
    def difference(method, *more):
        shared = (METRICS, f"model={model}", f"method={method}", "data.size=64", *more)
        canonized, _ = cell(*shared, "canonize=true", name="canonized")
        original, _ = cell(*shared, "canonize=false", name="original")
        return {
            column: numbers(canonized, column) - numbers(original, column)
            for column in ("localization", "input_perturbation")
        }

    for changes_nothing in (["gradient"], ["ixg"], ["ig", "method.steps=5"], ["gbp"]):  # C1, C2
        assert all(abs(values.mean()) < 1e-6 for values in difference(*changes_nothing).values())
    for values in difference("lrp_eps").values():  # C3, C5
        assert values.mean() > 10 * values.std(ddof=1) / np.sqrt(len(values))
    if model == "resnet18":  # C4
        for method in ("ebp", "lrp_eps_plus", "lrp_eps_a2b1"):
            values = difference(method)["localization"]
            assert values.mean() > 4 * values.std(ddof=1) / np.sqrt(len(values))


def test_every_method_beats_the_random_map_when_it_is_canonized(cell):
    floor, _ = cell("method=random", "data.size=32")
    methods = {path.stem for path in (CONF / "method").glob("*.yaml")} - {"random"}
    assert len(methods) >= 14
    for method in sorted(methods):
        samples, _ = cell(f"method={method}", "canonize=true", "data.size=32")
        for column in ("localization", "input_perturbation"):
            assert numbers(samples, column).mean() > numbers(floor, column).mean() + 0.02, method


def test_the_predicted_class_can_be_explained(cell):
    label, _ = cell("target=label", "method=gradient", "data.size=64")
    predicted, _ = cell("target=predicted", "method=gradient", "data.size=64")
    assert label["target"] == label["label"]
    assert predicted["target"] == predicted["prediction"]
    assert min(predicted["probability"]) > 0.1
    wrong = [index for index, (a, b) in enumerate(zip(label["label"], label["prediction"], strict=True)) if a != b]
    assert wrong
    assert all(label["probability"][index] < predicted["probability"][index] for index in wrong)


def test_parts_of_the_canonizer_give_different_maps(cell):
    totals = {}
    for parts in ("[]", "[merge_bn]", "[sum]", "[merge_bn,sum]"):
        samples, summary = cell(METRICS, "method=lrp_eps_plus", "canonize=true", f"canonizer.parts={parts}")
        totals[parts] = samples["relevance_total"]
        assert (max(samples["distance"]) == 0) == (parts == "[]"), summary["state"]
    assert np.mean(totals["[]"]) > 50 * np.mean(totals["[sum]"])  # without Sum, relevance doubles at each block


def test_a_canonizer_that_changes_the_function_is_refused(cell, tmp_path, monkeypatch):
    def inexact(batch_norm):
        exact = batch_norm_affine(batch_norm)
        return Affine(1.0001 * exact.scale, exact.shift)

    monkeypatch.setattr("canonxai.canonizers.merge.batch_norm_affine", inexact)
    shared = ("canonize=true", "model=vgg16_bn")
    with pytest.raises(UserError, match="canonizer.tolerance=1e-06, got 'a relative difference of .*exact=false"):
        cell(*shared, "canonizer.tolerance=1e-6")
    assert not (tmp_path / "cell" / "samples.parquet").exists()
    _, summary = cell(*shared, "canonizer.tolerance=0.1")
    assert summary["agreement"]["difference"]["float64"]["max_rel"] > 1e-6


class Dataset:
    """Images of 16 x 16 pixels, the object in a corner; one has no object."""

    classes = ("a", "b")

    def __init__(self, empty: int = -1) -> None:
        self.empty = empty

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Sample:
        box = torch.zeros(16, 16, dtype=torch.bool)
        if index != self.empty:
            box[:4, : index + 1] = True
        image = torch.full((3, 16, 16), 10 * index, dtype=torch.uint8)
        return {"sample_id": index, "image": image, "label": index % 2, "box": box, "mask": box}


class Network(nn.Module):
    """A linear network; ``bad`` makes the gradient of one image NaN."""

    def __init__(self, bad: float | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 16 * 16, 2)
        self.bad = bad

    def forward(self, input):
        flat = input.flatten(1)
        if self.bad is not None:  # finite, with an infinite slope at zero
            flat = flat + (flat - self.bad).abs().sqrt() * 0
        return self.linear(flat)


def explain(tmp_path, dataset, network, method=None):
    from omegaconf import OmegaConf

    from canonxai.assemble import build_trainer
    from canonxai.attribution.gradient import Gradient
    from canonxai.explainer import Explainer
    from canonxai.metrics.localization import Localization
    from canonxai.models.normalization import Normalization
    from canonxai.results.store import Store, StoreWriter, sample_schema
    from canonxai.results.summary import summarize

    chosen = {"localization": Localization()}
    store = Store(tmp_path, sample_schema(chosen["localization"].columns))
    explainer = Explainer(network, Normalization([0.0] * 3, [1.0] * 3), method or Gradient(), chosen)
    cfg = OmegaConf.create({"trainer": {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu"}})
    build_trainer(cfg, [StoreWriter(store)]).predict(
        explainer, datamodule=DataModule(dataset, 2, 0), return_predictions=False
    )
    store.finish()
    return store.read(["sample_id", "localization"]).to_pydict(), summarize(store, chosen["localization"].columns)


def test_an_image_without_an_object_is_counted_and_left_out(tmp_path):
    samples, summary = explain(tmp_path, Dataset(empty=3), Network())
    assert [index for index, value in enumerate(samples["localization"]) if value is None] == [3]
    whole = summary["metrics"]["localization"]["strata"]["all"]
    assert (whole["n"], whole["undefined"]) == (7, 1)
    assert whole["mean"] == pytest.approx(np.mean([value for value in samples["localization"] if value is not None]))


def test_a_map_that_is_not_a_number_stops_the_run_and_keeps_what_was_computed(tmp_path):
    with pytest.raises(UserError, match="method: expected finite relevance, got NaN or infinity for sample 4"):
        explain(tmp_path, Dataset(), Network(bad=40 / 255))
    parts = [pq.read_table(path) for path in sorted((tmp_path / "parts").glob("*.parquet"))]
    assert [index for part in parts for index in part["sample_id"].to_pylist()] == [0, 1, 2, 3]


def test_a_map_of_another_shape_than_the_images_is_refused(tmp_path):
    from canonxai.attribution.gradient import Gradient

    class PerPixel(Gradient):
        def __call__(self, query, canonizers=()):
            return super().__call__(query, canonizers).sum(1)

    with pytest.raises(UserError, match=r"method: expected .* \(2, channels, 16, 16\).* of shape \(2, 16, 16\)"):
        explain(tmp_path, Dataset(), Network(), PerPixel())


def test_a_model_with_too_few_outputs_is_refused(tmp_path):
    network = Network()
    network.linear = nn.Linear(3 * 16 * 16, 1)
    with pytest.raises(UserError, match="model: expected 2 outputs, one for each class, got 1"):
        explain(tmp_path, Dataset(), network)


def test_two_metrics_with_one_column_are_refused(config):
    from canonxai.assemble import build_metrics

    cfg = config("+metric.again={_target_: canonxai.metrics.distance.Distance}", "metric=[distance]")
    with pytest.raises(UserError, match="metric: expected metrics with columns of different names"):
        build_metrics(cfg)


def test_only_the_first_images_verify_the_canonizer(cell):
    _, summary = cell("canonize=true", "canonizer.verify=5", "data.batch_size=3")
    assert summary["agreement"]["images"] == 5


def test_a_run_that_fails_keeps_the_complete_results_of_an_earlier_one(cell, tmp_path: Path):
    cell("data.size=3")
    before = (tmp_path / "cell" / "samples.parquet").read_bytes()
    for mistake, message in [
        ("trainer.devices=2", "trainer.devices: expected one device where there is no command line"),
        ("trainer.accelerator=foo", "trainer: expected a device of this machine"),
        ("+trainer.limit_predict_batches=1", "trainer: expected all 3 batches to be explained, got 1"),
    ]:
        with pytest.raises(UserError, match=message):
            cell("data.size=3", "data.batch_size=1", mistake)
        assert (tmp_path / "cell" / "samples.parquet").read_bytes() == before


def test_pictures_of_an_earlier_run_do_not_stay_beside_new_results(cell, tmp_path: Path):
    cell("data.size=3")
    cell("data.size=3", "save_maps=0")
    assert not list((tmp_path / "cell").glob("maps.*"))


def test_the_folder_may_hold_an_earlier_run(cell, tmp_path: Path):
    cell("data.size=6")
    samples, summary = cell("data.size=3")
    assert len(samples["sample_id"]) == summary["images"] == 3

"""The command line over a small tree of each layout, with untrained full-width networks at 224 x 224."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from torchvision.models import get_model, vit_b_16

from canonxai.attribution.rules import GRADIENT
from tests.data import test_coco, test_folder, test_imagenet, test_imagenet_s, test_voc

CELL = [
    "method=lrp_eps",
    "metric=localization",
    "precision=32",
    "canonizer.verify=2",
    "save_maps=2",
    "data.num_workers=0",
]
RESNET = ["model=torchvision", "model.name=resnet18", "model.net.weights=null", "canonizer=resnet", "canonize=true"]
#: with a checkpoint, as their classes are not those of any official weights
OWN = {"voc": 20, "coco": 3, "folder": 2}


def ilsvrc(layout):
    return lambda root: [f"data.root={test_imagenet.plant(root, *test_imagenet.LAYOUTS[layout])}"]


def imagenet_s(root):
    tree = test_imagenet_s.Tree(root)
    return [f"data.root={root}", "data.variant=300", f"data.categories={tree.categories}"]


def voc(*more):
    def make(root):
        tree = test_voc.Tree(root)
        tree.add("b", ("dog", test_voc.DOG), ("cat", test_voc.CAT))
        return [f"data.root={root}", *more]

    return make


def coco(root):
    return [f"data.root={test_coco.Tree(root).root}"]


def folder(root):
    test_folder.plant(root)
    return [f"data.root={root}"]


TREES = {
    **{f"imagenet, {layout}": ("imagenet", ilsvrc(layout), 3) for layout in test_imagenet.LAYOUTS},
    "imagenet_s": ("imagenet_s", imagenet_s, 3),
    "voc, boxes": ("voc", voc(), 2),
    "voc, masks": ("voc", voc("data.masks=true"), 2),
    "coco": ("coco", coco, 3),
    "folder": ("folder", folder, 3),
}


ILSVRC = [tree for tree in TREES if tree.startswith("imagenet,")]
CASES = [(tree, "box") for tree in TREES] + [(tree, "mask") for tree in TREES if tree not in ILSVRC[1:]]


@pytest.mark.parametrize(("tree", "region"), CASES)
def test_a_cell_runs_on_every_layout(main, tmp_path, tree, region):
    name, make, count = TREES[tree]
    root = tmp_path / "data"
    root.mkdir()
    overrides = [*CELL, f"data={name}", *make(root), *RESNET, f"metric.localization.region={region}"]
    if name in OWN:
        torch.save(get_model("resnet18", num_classes=OWN[name]).state_dict(), tmp_path / "own.pt")
        own = [f"model.label_space={name if name != 'folder' else 'custom'}", f"model.net.num_classes={OWN[name]}"]
        overrides += [*own, f"model.checkpoint={tmp_path}/own.pt"]
    main(*overrides)
    (cell,) = (tmp_path / "multirun" / "default").iterdir()
    summary = json.loads((cell / "summary.json").read_text())
    rows = pq.read_table(cell / "samples.parquet").to_pylist()
    assert len(rows) == summary["images"] == count
    assert summary["excluded"] == 0
    assert all(0 < row["localization"] < 1 for row in rows)
    assert "${" not in (cell / "config.yaml").read_text()
    boxes_alone = region == "mask" and tree in ("voc, boxes", "folder", ILSVRC[0])
    assert ("region=mask evaluates the boxes" in (cell / "canonxai.log").read_text()) == boxes_alone


def test_a_vision_transformer_gets_its_rules_and_a_map(main, tmp_path):
    torch.manual_seed(0)
    model = vit_b_16()
    nn.init.normal_(model.heads.head.weight, std=0.02)  # torchvision's begins as zero
    torch.save(model.half().state_dict(), tmp_path / "own.pt")
    (tmp_path / "data").mkdir()
    (root,) = ilsvrc(next(iter(test_imagenet.LAYOUTS)))(tmp_path / "data")
    weights = ["model.net.weights=null", f"model.checkpoint={tmp_path}/own.pt"]
    overrides = ["method=lrp_eps_plus", "model=vit_b_16", "canonize=true", "data=imagenet", root, *weights]
    main(*CELL[1:3], *overrides, "data.max_samples=1", "data.num_workers=0", "canonizer.verify=1")
    (cell,) = (tmp_path / "multirun" / "default").iterdir()
    with (cell / "rules.csv").open(newline="") as file:
        layers = list(csv.DictReader(file))
    norms = [layer["rule"] for layer in layers if layer["type"] == "LayerNorm"]
    assert len(norms) == 25 and len(set(norms)) == 1 and norms[0] != GRADIENT
    assert "MultiheadAttention" not in {layer["type"] for layer in layers}  # but what it consists of
    heatmap = np.load(cell / "maps.npz")["heatmap"]
    assert heatmap.shape == (1, 224, 224) and np.isfinite(heatmap).all()
    assert heatmap.std() > 1e-3 * abs(heatmap).max()

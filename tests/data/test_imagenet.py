"""ILSVRC's images and boxes, on small trees of every layout, with every oddity that the annotations have."""

import logging
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from canonxai.data.ilsvrc_classes import NAMES, PAPER20, indices, labels
from canonxai.data.imagenet import ImageNet
from canonxai.errors import UserError

TENCH, GOLDFISH, PARACHUTE = "n01440764", "n01443537", "n03888257"
SIZE, BOX = (300, 250), (60, 80, 180, 170)  # xmin, ymin, xmax, ymax
TRAIN = [f"{wnid}_{number}" for wnid in (TENCH, GOLDFISH, PARACHUTE) for number in (1, 2)]
VAL = {"ILSVRC2012_val_00000001": PARACHUTE, "ILSVRC2012_val_00000002": TENCH, "ILSVRC2012_val_00000003": GOLDFISH}


def object_(wnid, box=BOX, flags=""):
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{wnid}</name>{flags}<bndbox>{corners}</bndbox></object>"


def xml(*objects, size=SIZE):
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{''.join(objects)}</annotation>"


def write_image(path, size=SIZE, box=BOX):
    """Black but for a white rectangle where the box is."""
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    pixels[box[1] : box[3] + 1, box[0] : box[2] + 1] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "JPEG", quality=100)


def write(images, annotations, name, wnid, content=None):
    write_image(images / f"{name}.JPEG")
    annotations.mkdir(parents=True, exist_ok=True)
    (annotations / f"{name}.xml").write_text(content or xml(object_(wnid)))


def plant(root, images, annotations, val_by_class=False):
    """All of TRAIN and VAL, in folders that are given by patterns of the split."""
    for name in TRAIN:
        wnid = name.partition("_")[0]
        write(root / images.format("train") / wnid, root / annotations.format("train") / wnid, name, wnid)
    for name, wnid in VAL.items():
        folder = root / images.format("val")
        write(folder / wnid if val_by_class else folder, root / annotations.format("val"), name, wnid)
    return root


@pytest.fixture
def folder(tmp_path):
    """A flat folder with one good image; more are added by the test."""
    write(tmp_path, tmp_path, f"{TENCH}_0", TENCH)
    return tmp_path


def flat(folder, **arguments):
    return ImageNet(images=str(folder), annotations=str(folder), **arguments)


def reasons(dataset):
    return [entry.reason for entry in dataset.excluded]


LAYOUTS = {
    "devkit": ("Data/CLS-LOC/{0}", "Annotations/CLS-LOC/{0}", False),
    "competition": ("ILSVRC/Data/CLS-LOC/{0}", "ILSVRC/Annotations/CLS-LOC/{0}", False),
    "torchvision": ("{0}", "Annotations/CLS-LOC/{0}", True),
    "torchvision, Annotations": ("{0}", "Annotations/{0}", True),
    "torchvision, annotations": ("{0}", "annotations/{0}", True),
    "torchvision, bbox": ("{0}", "bbox/{0}", True),
    "torchvision, archives": ("{0}", "ILSVRC2012_bbox_{0}", True),
    "torchvision, archives with folders": ("{0}", "ILSVRC2012_bbox_{0}_v3/{0}", True),
    "flat val": ("{0}", "annotations/{0}", False),
    "beside": ("{0}", "{0}", False),
    "beside, by class": ("{0}", "{0}", True),
    "together": ("{0}", "annotations", True),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_recognised(tmp_path, layout):
    root = str(plant(tmp_path, *LAYOUTS[layout]))
    train, val, both = (ImageNet(root, split) for split in ("train", "val", "train+val"))
    assert [sample.image.stem for sample in train.annotated] == TRAIN
    assert [sample["label"] for sample in train] == [0, 0, 1, 1, 701, 701]
    assert [sample.image.stem for sample in val.annotated] == list(VAL)
    assert [sample["label"] for sample in val] == [701, 0, 1]
    assert {sample.image for sample in both.annotated} == {s.image for s in (*train.annotated, *val.annotated)}
    assert train.excluded == val.excluded == both.excluded == []
    assert [sample["sample_id"] for sample in both] == list(range(9))


def test_annotations_of_val_may_lie_in_the_folder_of_those_of_train(tmp_path):
    plant(tmp_path, "{0}", "bbox/{0}", True)
    for path in (tmp_path / "bbox" / "train").iterdir():  # as the archives unpack: class folders, and val/
        path.rename(tmp_path / "bbox" / path.name)
    assert len(ImageNet(str(tmp_path), "train")) == 6
    both = ImageNet(str(tmp_path), "train+val")
    assert len(both) == 9 and not both.excluded


@pytest.mark.parametrize(
    ("layout", "start"),
    [
        *(("devkit", start) for start in ("Data", "Data/CLS-LOC", "Data/CLS-LOC/val")),
        *(("competition", start) for start in ("ILSVRC", "ILSVRC/Data", "ILSVRC/Data/CLS-LOC/val")),
        *((layout, "val") for layout in ("torchvision", "flat val", "beside")),
    ],
)
def test_the_root_may_be_a_folder_of_the_layout(tmp_path, monkeypatch, layout, start):
    plant(tmp_path, *LAYOUTS[layout])
    assert len(ImageNet(str(tmp_path / start))) == 3
    monkeypatch.chdir(tmp_path / start)
    assert len(ImageNet(".")) == 3


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(plant(tmp_path, *LAYOUTS["devkit"])))
    assert len(ImageNet("~")) == len(ImageNet(images="~/Data/CLS-LOC/val", annotations="~/Annotations")) == 3


def test_a_folder_that_no_layout_has_is_told_in_short(tmp_path):
    with pytest.raises(UserError, match="data.root: expected a folder with images|annotations") as error:
        ImageNet(str(tmp_path))
    assert len(str(error.value)) - len(str(tmp_path)) < 200


def solution(objects):
    return "".join(f"{wnid} {' '.join(map(str, box))} " for wnid, box in objects)


def write_solutions(root):
    """The competition's two files of boxes."""
    for split, names in (("train", {name: name.partition("_")[0] for name in TRAIN}), ("val", VAL)):
        rows = [f"{name},{solution([(wnid, BOX), (wnid, (5, 6, 70, 60))])}" for name, wnid in names.items()]
        (root / f"LOC_{split}_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows, ""]))


@pytest.mark.parametrize("start", [".", "ILSVRC", "ILSVRC/Data/CLS-LOC"])
def test_boxes_of_the_competitions_tables_are_those_of_the_xml(tmp_path, caplog, start):
    root = plant(tmp_path, *LAYOUTS["competition"])
    write_solutions(root)
    expected = [ImageNet(str(root), split, ["tench", PARACHUTE]).annotated for split in ("val", "train+val")]
    assert all(sample.boxes == ((60, 80, 181, 171),) for samples in expected for sample in samples)  # the XML's
    shutil.rmtree(root / "ILSVRC/Annotations")
    for split, samples in zip(("val", "train+val"), expected, strict=True):
        dataset = ImageNet(str(root / start), split, ["tench", PARACHUTE])
        assert sorted((s.image.stem, s.label) for s in dataset.annotated) == sorted(
            (s.image.stem, s.label) for s in samples
        )
        assert {s.boxes for s in dataset.annotated} == {((60, 80, 181, 171), (5, 6, 71, 61))}
        assert dataset.excluded == []
        assert dataset.treated == {"several": len(samples)}


def test_rows_of_the_competitions_tables_may_be_broken(tmp_path):
    root = plant(tmp_path, *LAYOUTS["competition"])
    shutil.rmtree(root / "ILSVRC/Annotations")
    names, table = list(VAL), root / "LOC_val_solution.csv"
    good = solution([(VAL[names[0]], (60, 80, 400, 170))])
    table.write_text(f"ImageId,PredictionString\n{names[0]},{good}\n{names[1]},{TENCH} 1 2 3\n{names[2]}\n")
    dataset = ImageNet(str(root))
    assert dataset.annotated[0].boxes == ((60, 80, 300, 171),)
    assert {(e.file, e.reason) for e in dataset.excluded} == {
        (str(table / names[1]), "broken row"),
        (str(table / names[2]), "annotation without object"),
    }
    assert len(ImageNet(str(root), annotations=str(table))) == 1
    table.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="data.annotations: expected an XML folder or a CSV with the columns ImageId"):
        ImageNet(str(root))


def write_devkit(folder, classes):
    """The ground truth of val, whose numbers count the classes backwards; the last entry is no leaf."""
    folder.mkdir(parents=True)
    wnids = list(labels())[::-1]
    synsets = np.array(
        [(i, wnid, 0) for i, wnid in enumerate([*wnids, "n00001740"], 1)],
        dtype=[("ILSVRC2012_ID", "i4"), ("WNID", "O"), ("num_children", "i4")],
    )
    savemat(folder / "meta.mat", {"synsets": synsets[:, None]})
    numbers = [str(wnids.index(wnid) + 1) for wnid in classes]
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(numbers) + "\n")


@pytest.mark.parametrize("place", ["ILSVRC2012_devkit_t12/data", "devkit/data", "."])
def test_the_devkits_ground_truth_is_the_label_of_a_flat_folder(tmp_path, place):
    root = plant(tmp_path / "a", *LAYOUTS["flat val"])
    write_devkit(root / "kit", [PARACHUTE, GOLDFISH, GOLDFISH])  # the second image's XML tells tench
    target = root / place
    target.mkdir(parents=True, exist_ok=True)
    for path in (root / "kit").iterdir():
        path.rename(target / path.name)
    dataset = ImageNet(str(root))
    assert [sample.label for sample in dataset.annotated] == [701, 1]
    assert [(e.reason, e.detail) for e in dataset.excluded] == [
        ("annotation without object of the class", f"{GOLDFISH} expected, {TENCH} found")
    ]
    (root / "annotations/val/ILSVRC2012_val_00000003.xml").unlink()
    assert reasons(ImageNet(str(root), classes="parachute")) == []
    assert reasons(ImageNet(str(root), classes=["parachute", "goldfish"])).count("image without annotation") == 1


def test_a_ground_truth_that_cannot_be_used_is_told(tmp_path, caplog):
    root = plant(tmp_path, *LAYOUTS["flat val"])
    write_devkit(root / "devkit/data", [PARACHUTE, TENCH, GOLDFISH])
    (root / "devkit/data/meta.mat").write_bytes(b"damaged")
    with pytest.raises(UserError, match="data.root: expected the devkit's ILSVRC2012_validation_ground_truth.txt and"):
        ImageNet(str(root))
    (root / "devkit/data/meta.mat").unlink()
    assert [sample["label"] for sample in ImageNet(str(root))] == [701, 0, 1]
    assert "is not used, as meta.mat, which tells" in caplog.text


def test_boxes_go_through_the_geometry_of_the_image(tmp_path):
    for sample in ImageNet(str(plant(tmp_path, *LAYOUTS["devkit"]))):
        assert sample["image"].shape == (3, 224, 224)
        assert sample["image"].dtype == torch.uint8
        assert torch.equal(sample["box"], sample["mask"])
        assert ((sample["image"].float().mean(0) > 127) != sample["box"]).sum() <= 4  # the corners


def test_arguments_of_geometry_and_selection_are_passed_on(tmp_path):
    root = str(plant(tmp_path, *LAYOUTS["devkit"]))
    assert ImageNet(root, crop=32, fit="pad")[0]["image"].shape == (3, 32, 32)
    assert [s["label"] for s in ImageNet(root, "train", per_class=1)] == [0, 1, 701]
    assert ImageNet(root, "train", max_samples=4, shuffle_seed=1).ids != [0, 1, 2, 3]
    assert len(ImageNet(root, "train", max_samples=4, shuffle_seed=1)) == 4


def test_the_order_does_not_depend_on_the_file_systems(tmp_path, monkeypatch):
    root = str(plant(tmp_path, *LAYOUTS["torchvision"]))
    before, walk = ImageNet(root, "train+val").annotated, __import__("os").walk

    def backwards(*arguments, **options):
        for path, folders, names in walk(*arguments, **options):
            folders.reverse()
            yield path, folders, names[::-1]

    monkeypatch.setattr("os.walk", backwards)
    assert ImageNet(root, "train+val").annotated == before


@pytest.mark.parametrize("split", ["train", "val", "train+val"])
@pytest.mark.parametrize("classes", [["tench", PARACHUTE], [0, "701"], ["Tench", "PARACHUTE"]])
def test_classes_are_chosen(tmp_path, split, classes):
    root = plant(tmp_path, *LAYOUTS["competition"])
    write_image(root / "ILSVRC/Data/CLS-LOC/train" / GOLDFISH / f"{GOLDFISH}_3.JPEG")  # of another class: not counted
    dataset = ImageNet(str(root), split, classes)
    assert {sample["label"] for sample in dataset} == {0, 701}
    assert dataset.excluded == []
    assert dataset.classes[701] == "parachute"
    assert dataset.class_ids[701] == PARACHUTE


def test_one_class_needs_no_list_and_an_empty_one_is_told(tmp_path):
    root = str(plant(tmp_path, *LAYOUTS["devkit"]))
    assert [sample["label"] for sample in ImageNet(root, classes="goldfish")] == [1]
    dataset = ImageNet(root, classes=["goldfish", "tiger"])
    assert [(entry.file, entry.reason) for entry in dataset.excluded] == [("tiger", "class without annotated images")]


def test_the_studys_classes_are_torchvisions():
    assert len(PAPER20) == 20
    assert indices("paper20") == indices(list(PAPER20))
    renamed = {"electric switch": "switch", "red panda": "lesser panda"}
    assert {name: NAMES[labels()[wnid]] for name, wnid in PAPER20.items()} == {
        name: renamed.get(name, name) for name in PAPER20
    }


def test_the_studys_images_are_counted_and_compared(tmp_path, caplog, monkeypatch):
    for number, wnid in enumerate(PAPER20.values()):
        for part, name in (("train", f"{wnid}_1"), ("val", f"ILSVRC2012_val_{number:08}")):
            write(tmp_path / part / wnid, tmp_path / "bbox" / part, name, wnid)
    with caplog.at_level(logging.INFO):
        ImageNet(str(tmp_path), "train+val", "paper20")
    assert "40 images with boxes of the study's 20 classes (the study has 9,758)" in caplog.text
    caplog.clear()
    monkeypatch.setattr("canonxai.data.imagenet.PAPER20_IMAGES", 40)
    with caplog.at_level(logging.INFO):
        ImageNet(str(tmp_path), "train+val", "paper20")
    assert "40 images with boxes of the study's 20 classes (as in the study)" in caplog.text
    caplog.clear()
    shutil.rmtree(tmp_path / "val" / PAPER20["tiger"])
    with caplog.at_level(logging.INFO):
        ImageNet(str(tmp_path), "train+val", "paper20")
    assert "39 images with boxes of the study's 20 classes (the study has 40)" in caplog.text  # one class lacks
    shutil.rmtree(tmp_path / "train" / PAPER20["tiger"])
    caplog.clear()
    with caplog.at_level(logging.INFO):
        ImageNet(str(tmp_path), "train+val", "paper20")
    assert "38 images with boxes of the study's 20 classes (the study has 40)" in caplog.text


W, H = SIZE
SHIFTED = (W // 2, 80, W + 200, 170)


@pytest.mark.parametrize(
    ("content", "treated", "boxes"),
    [
        (xml(object_(TENCH), object_(GOLDFISH, (0, 0, 9, 9))), {"other": 1}, [(60, 80, 181, 171)]),
        (xml(object_(GOLDFISH, (0, 0, 9, 9)), object_(TENCH)), {"other": 1}, [(60, 80, 181, 171)]),
        (xml(object_(TENCH), object_(TENCH, (0, 0, 9, 9))), {"several": 1}, [(60, 80, 181, 171), (0, 0, 10, 10)]),
        (xml(object_(TENCH, flags="<difficult>1</difficult>")), {"difficult": 1}, [(60, 80, 181, 171)]),
        (xml(object_(TENCH, flags="<truncated> 1 </truncated>")), {"truncated": 1}, [(60, 80, 181, 171)]),
        (xml(object_(TENCH, flags="<truncated>0</truncated>")), {}, [(60, 80, 181, 171)]),
        (xml(object_(TENCH, SHIFTED)), {"clipped": 1}, [(W // 2, 80, W, 171)]),
        (xml(object_(TENCH, (-5, 80, 180, 170))), {"clipped": 1}, [(0, 80, 181, 171)]),
        (xml(object_(TENCH, (0, 0, W, H))), {}, [(0, 0, W, H)]),  # counted from 1, not worth a word
        (xml(object_(TENCH, (120, 160, 361, 341)), size=(2 * W, 2 * H)), {"scaled": 1}, [(60, 80, 181, 171)]),
        (xml(object_(TENCH), size=(0, 0)), {"pixels": 1}, [(60, 80, 181, 171)]),
        (xml(object_(TENCH), size=("", "x")), {"pixels": 1}, [(60, 80, 181, 171)]),
        (xml(object_(TENCH), size=(500, 20)), {"pixels": 1}, [(60, 80, 181, 171)]),
        (f"<annotation>{object_(TENCH)}</annotation>", {}, [(60, 80, 181, 171)]),
    ],
)
def test_oddities_are_treated_and_counted(folder, caplog, content, treated, boxes):
    write(folder, folder, f"{TENCH}_1", TENCH, content)
    with caplog.at_level(logging.INFO):
        dataset = flat(folder)
    assert dataset.treated == treated
    assert dataset.excluded == []
    sample = dataset.annotated[1]
    assert sample.size == SIZE
    assert boxes is None or [tuple(box) for box in sample.boxes] == boxes
    assert dataset[1]["box"].any()
    assert all(f"{count} " in caplog.text for count in treated.values())
    doubtful = {key: [str(folder / f"{TENCH}_1.xml")] for key in treated if key in ("pixels", "scaled")}
    assert dataset.doubtful == doubtful
    assert all(name in caplog.text for names in doubtful.values() for name in names)


BOMB = '<!DOCTYPE a [<!ENTITY x "xxxx"><!ENTITY y "&x;&x;">]><annotation>&y;</annotation>'
FILE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>'


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("<annotation>", "broken XML"),
        ("not xml", "broken XML"),
        ("<?xml version='1.0' encoding='nonsense'?><annotation/>", "broken XML"),
        ("<annotation/>", "annotation without object"),
        (xml(object_("n00000000")), "annotation without object of the class"),
        (xml(object_(TENCH, (20, 60, 90, 120)), size=(H, W)), "size in the XML of the rotated image"),
        (xml(object_(TENCH, (20, 60, 90, 120)), size=(2 * H, 2 * W)), "size in the XML of the rotated image"),
        (xml(object_(TENCH, SHIFTED), size=(1000, 200)), "size in the XML"),
        (BOMB, "XML with entities"),
        (FILE, "XML with entities"),
    ],
)
def test_an_annotation_that_cannot_be_used_is_excluded(folder, content, reason):
    write(folder, folder, f"{TENCH}_1", TENCH, content)
    dataset = flat(folder)
    assert len(dataset) == 1
    assert [(entry.file, entry.reason) for entry in dataset.excluded] == [(str(folder / f"{TENCH}_1.xml"), reason)]
    assert dataset.treated == {} == dataset.doubtful
    assert dataset.excluded[0].is_error == (reason != "annotation without object")


@pytest.mark.parametrize("more", [(), (object_(TENCH),)])
@pytest.mark.parametrize(
    "bad",
    [
        *(object_(TENCH, box) for box in ((9, 9, 5, 5), (50, 50, 50, 90), ("x", 1, 2, 3), (1, 1, "inf", 9))),
        f"<object><name>{TENCH}</name></object>",
    ],
)
def test_with_an_invalid_box_the_place_of_an_object_is_unknown(folder, bad, more):
    write(folder, folder, f"{TENCH}_1", TENCH, xml(*more, bad))
    dataset = flat(folder)
    assert len(dataset) == 1
    assert [(e.file, e.reason) for e in dataset.excluded] == [(str(folder / f"{TENCH}_1.JPEG"), "invalid box")]


def test_a_box_outside_of_the_image_is_left_out_alone(folder):
    write(folder, folder, f"{TENCH}_1", TENCH, xml(object_(TENCH), object_(TENCH, (W + 5, 9, W + 9, 20))))
    dataset = flat(folder)
    assert reasons(dataset) == ["box outside of the image"]
    assert dataset.annotated[1].boxes == ((60, 80, 181, 171),)
    assert dataset.treated == {"several": 1}


@pytest.mark.parametrize("orientation", [6, 8])
def test_boxes_on_the_image_as_a_viewer_rotates_it_are_not_taken_for_pixels(folder, orientation):
    write(folder, folder, f"{TENCH}_1", TENCH, xml(object_(TENCH, (20, 60, 90, 120)), size=(200, 300)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (300, 200)).save(folder / f"{TENCH}_1.JPEG", exif=exif)
    dataset = flat(folder)
    assert reasons(dataset) == ["size in the XML of the rotated image"]
    assert dataset.excluded[0].detail == "200 x 300, image 300 x 200"


def test_an_empty_annotation_is_excluded(folder):
    write(folder, folder, f"{TENCH}_1", TENCH)
    (folder / f"{TENCH}_1.xml").write_bytes(b"")
    assert reasons(flat(folder)) == ["broken XML"]


def test_an_unknown_class_of_a_name_that_tells_none_is_excluded(folder):
    write(folder, folder, "a", None, xml(object_("n00000000")))
    assert reasons(flat(folder)) == ["unknown class"]


def test_an_annotation_that_may_not_be_read_is_excluded(folder):
    (folder / f"{TENCH}_1.xml").mkdir()  # stands for a file without permission, as tests may run as root
    write_image(folder / f"{TENCH}_1.JPEG")
    (folder / f"{TENCH}_2.xml").symlink_to(folder / "nowhere")
    write_image(folder / f"{TENCH}_2.JPEG")
    assert sorted(reasons(flat(folder))) == ["image without annotation", "unreadable XML"]


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_a_damaged_image_is_excluded(folder, content):
    write(folder, folder, f"{TENCH}_1", TENCH)
    path = folder / f"{TENCH}_1.JPEG"
    path.write_bytes(path.read_bytes()[:20] if content is None else content)
    assert [(e.file, e.reason) for e in flat(folder).excluded] == [(str(path), "unreadable image")]


def test_a_missing_half_is_excluded(folder):
    write_image(folder / f"{TENCH}_1.JPEG")
    (folder / f"{TENCH}_2.xml").write_text(xml(object_(TENCH)))
    (folder / f"{GOLDFISH}_3.xml").write_text(xml(object_(GOLDFISH)))
    assert {e.reason: e.is_error for e in flat(folder).excluded} == {
        "annotation without image": True,
        "image without annotation": False,
    }
    assert sorted(reasons(flat(folder, classes=["tench"]))) == ["annotation without image", "image without annotation"]
    assert sorted(reasons(flat(folder))) == ["annotation without image"] * 2 + ["image without annotation"]


def test_objects_outside_of_the_crop_are_excluded(folder):
    write(folder, folder, f"{TENCH}_1", TENCH, xml(object_(TENCH, (0, 0, 10, 8))))
    assert reasons(flat(folder)) == ["object outside of the crop"]
    assert not flat(folder).excluded[0].is_error
    assert not flat(folder).has_masks
    assert len(flat(folder, fit="pad")) == 2


def test_images_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for wnid in (TENCH, GOLDFISH):
        write(tmp_path / "images" / wnid, tmp_path / "xml" / wnid, "1", wnid)
    dataset = ImageNet(images=str(tmp_path / "images"), annotations=str(tmp_path / "xml"))
    assert [(s.image.parent.name, s.label) for s in dataset.annotated] == [(TENCH, 0), (GOLDFISH, 1)]


def test_a_link_to_a_folder_above_ends(tmp_path):
    plant(tmp_path, *LAYOUTS["beside"])
    (tmp_path / "val" / "loop").symlink_to(tmp_path / "val")
    dataset = ImageNet(str(tmp_path), classes="all")
    assert len({sample.image.resolve() for sample in dataset.annotated}) == len(dataset)
    assert dataset.excluded == []


def test_links_to_folders_are_followed(tmp_path):
    plant(tmp_path / "real", *LAYOUTS["torchvision"])
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / TENCH).symlink_to(tmp_path / "real/train" / TENCH)
    (tmp_path / "bbox").symlink_to(tmp_path / "real/Annotations/CLS-LOC")
    assert [s.image.stem for s in ImageNet(str(tmp_path), "train").annotated] == TRAIN[:2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "data.root: expected a folder, got None. Give data.root=PATH"),
        ({"root": "nowhere"}, "data.root: expected an existing folder, got 'nowhere'"),
        ({"images": "nowhere"}, "data.images: expected an existing folder, got 'nowhere'"),
        ({"root": "{}"}, r"annotations of ILSVRC's val, as Annotations/CLS-LOC/val, .*data.annotations=PATH"),
        ({"root": "{}", "images": "{}", "split": "train+val"}, "data.split: expected train or val, as only one"),
        ({"split": "test"}, "data.split: expected one of train, val, train\\+val, got 'test'"),
        ({"crop": 300}, "data.crop: expected an integer from 1 to data.resize=256, got 300"),
        ({"images": "{}", "annotations": "{}", "max_samples": 0}, "data.max_samples: expected null or an integer >= 1"),
        ({"images": "{}", "annotations": "{}", "classes": "tiger"}, "data: expected images with objects of the chosen"),
        ({"classes": ["tigr", "tench", "n00000000"]}, "got 'tigr, n00000000'. near 'tigr': tiger"),
        ({"classes": []}, "data.classes: expected all, paper20 or"),
        ({"classes": [1000]}, "data.classes: .* got '1000'"),
        ({"classes": ["crane"]}, "'crane' is the name of 2 classes, use n02012849 or n03126707"),
        ({"classes": "maillot"}, "use n03710637 or n03710721"),
        ({"classes": "CARDIGAN"}, "use n02113186 or n02963159"),
    ],
)
def test_mistakes_are_told(folder, arguments, message):
    given = {
        key: value.replace("{}", str(folder)) if isinstance(value, str) else value for key, value in arguments.items()
    }
    with pytest.raises(UserError, match=message):
        ImageNet(**given)


def test_names_that_differ_in_case_only_are_told_apart():
    assert indices(["cardigan"]) == [474]
    assert indices(["Cardigan"]) == [264]
    assert indices([name for name in NAMES if name not in ("crane", "maillot")]) == sorted({*range(1000)} - {517, 638})


def test_the_configuration_reaches_the_data(config, tmp_path):
    from canonxai.config import Data, build

    root = plant(tmp_path, *LAYOUTS["competition"])
    for classes, count in (("all", 3), ("[tench,n03888257]", 2), ("[1]", 1), ("goldfish", 1), ("701", 1)):
        cfg = config("data=imagenet", f"data.root={root}", f"data.classes={classes}")
        assert len(build(cfg.data, "data", Data)) == count

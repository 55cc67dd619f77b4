"""Claims: for every expectation what confirms, refutes and does not decide it, and the files that state them."""

import numpy as np
import pytest
import yaml

from canonxai.errors import UserError
from canonxai.report.cells import read_study
from canonxai.report.claims import MIN_IMAGES, Claims, Evidence, Verdict, flat, overall, read_claims
from canonxai.report.comparison import Statistics, comparisons
from canonxai.results.summary import STRATA
from tests.report.study import image_columns, write_cell, write_study

IMAGES = 80  # so that there are enough on both sides of a box size
SMALL = image_columns(IMAGES)["box_fraction"] < 0.25
BASE = 0.5


def noise(seed, scale=0.05):
    """Noise of mean 0 exactly."""
    values = np.random.default_rng(seed).normal(0, scale, IMAGES)
    return values - values.mean()


def write_claims(folder, *tests, title="T", text="x"):
    path = folder / "claims.yaml"
    path.write_text(yaml.safe_dump({"title": title, "claims": {"A": {"text": text, "tests": list(tests)}}}))
    return read_claims(str(path))


def write_cells(folder, differences, models=("resnet18",), originals=None, metric="localization", **options):
    """A pair for every method with this difference; ``None`` leaves out the canonized cell."""
    for model in models:
        for method, difference in differences.items():
            original = (originals or {}).get(method, BASE)
            write_cell(folder, model, method, False, {metric: original + np.zeros(IMAGES)}, **options)
            if difference is not None:
                write_cell(folder, model, method, True, {metric: original + difference + np.zeros(IMAGES)}, **options)
    return folder


def ask(folder, *tests, **statistics):
    """The answer of the cells below a folder to a claim of some tests."""
    study, judged = read_study([folder]), Statistics(**statistics)
    evidence = Evidence(study, comparisons(study, judged), judged)
    (answer,) = write_claims(folder, *tests).answers(evidence)
    return answer


def one_test(expect, method="lrp_eps", **arguments):
    methods = arguments.pop("methods", [method])
    return {"expect": expect, "methods": methods, "metrics": ["localization"], **arguments}


UP, DOWN, NOISE, NONE = 0.1 + noise(1, 0.02), -0.1 + noise(2, 0.02), noise(3), 0.0
EQUAL, BETTER = one_test("equal", tolerance=0.01), one_test("better")
MOST = one_test("most", others=["ebp", "ig"])
GAIN, OF_EBP = {**MOST, "change": "gain"}, {**MOST, "others": ["ebp"]}
MOST_IN = one_test("most_in", stratum="box < 25 %")
AT_FLOOR = one_test("at_floor", tolerance=0.05)
MIXED = one_test("mixed", methods=["lrp_eps", "ebp"])
TWICE = {"higher_is_better": {"localization": False}}

CASES = {
    "equal, exactly": (EQUAL, {"lrp_eps": NONE}, {}, "confirmed"),
    "equal, within the tolerance": (EQUAL, {"lrp_eps": 0.005 + noise(0, 0.005)}, {}, "confirmed"),
    "not equal, above": (EQUAL, {"lrp_eps": UP}, {}, "refuted"),
    "not equal, below": (EQUAL, {"lrp_eps": DOWN}, {}, "refuted"),
    "equal, too noisy": (EQUAL, {"lrp_eps": NOISE}, {}, "undecided"),
    "equal, at the edge": (EQUAL, {"lrp_eps": 0.01 + noise(0, 0.005)}, {}, "undecided"),
    "equal, not computed": (EQUAL, {"lrp_eps": None}, {}, "undecided"),
    "better": (BETTER, {"lrp_eps": UP}, {}, "confirmed"),
    "worse": (BETTER, {"lrp_eps": DOWN}, {}, "refuted"),
    "exactly equal is not better": (BETTER, {"lrp_eps": NONE}, {}, "refuted"),
    "better, too noisy": (BETTER, {"lrp_eps": NOISE}, {}, "undecided"),
    "better, not computed": (BETTER, {"lrp_eps": None}, {}, "undecided"),
    "better, by less than the margin": (one_test("better", margin=0.2), {"lrp_eps": UP}, {}, "refuted"),
    "better, by the margin": (one_test("better", margin=0.1), {"lrp_eps": UP}, {}, "undecided"),
    "better, by more than the margin": (one_test("better", margin=0.05), {"lrp_eps": UP}, {}, "confirmed"),
    "lower is better, and is": (BETTER, {"lrp_eps": DOWN}, TWICE, "confirmed"),
    "lower is better, and is not": (BETTER, {"lrp_eps": UP}, TWICE, "refuted"),
    "most": (MOST, {"lrp_eps": 3 * UP, "ebp": UP, "ig": NONE}, {}, "confirmed"),
    "most, downwards": (OF_EBP, {"lrp_eps": 3 * DOWN, "ebp": UP}, {}, "confirmed"),
    "most, of two downwards": (OF_EBP, {"lrp_eps": 3 * DOWN, "ebp": DOWN}, {}, "confirmed"),
    "not most": (OF_EBP, {"lrp_eps": UP, "ebp": 3 * DOWN}, {}, "refuted"),
    "not most, whatever of the other": (MOST, {"lrp_eps": UP, "ebp": 3 * DOWN}, {}, "refuted"),
    "most but one": (MOST, {"lrp_eps": 2 * UP, "ebp": 3 * UP, "ig": NONE}, {}, "refuted"),
    "as much as another": (OF_EBP, {"lrp_eps": UP, "ebp": 0.1 + noise(5)}, {}, "undecided"),
    "most, alone": (MOST, {"lrp_eps": UP}, {}, "undecided"),
    "most, a rival not computed": (MOST, {"lrp_eps": 3 * UP, "ebp": UP, "ig": None}, {}, "undecided"),
    "most, a rival without a cell": (MOST, {"lrp_eps": 3 * UP, "ebp": UP}, {}, "undecided"),
    "most, itself not computed": (MOST, {"lrp_eps": None, "ebp": UP}, {}, "undecided"),
    "most of those named": (OF_EBP, {"lrp_eps": 2 * UP, "ebp": UP, "ig": 9 * UP}, {}, "confirmed"),
    "most, the one rival unknown": (OF_EBP, {"lrp_eps": UP, "ig": NONE}, {}, "undecided"),
    "most gain": (GAIN, {"lrp_eps": 3 * UP, "ebp": UP, "ig": NONE}, {}, "confirmed"),
    "a loss is no gain": (GAIN, {"lrp_eps": 3 * DOWN, "ebp": UP, "ig": NONE}, {}, "refuted"),
    "most gain, lower is better": (GAIN, {"lrp_eps": 3 * DOWN, "ebp": UP, "ig": NONE}, TWICE, "confirmed"),
    "most for small boxes": (MOST_IN, {"lrp_eps": UP + 0.1 * SMALL}, {}, "confirmed"),
    "most for large boxes": (MOST_IN, {"lrp_eps": UP - 0.1 * SMALL}, {}, "refuted"),
    "least loss for small boxes": (MOST_IN, {"lrp_eps": DOWN + 0.1 * SMALL}, {}, "confirmed"),
    "most for small boxes, lower is better": (MOST_IN, {"lrp_eps": DOWN - 0.1 * SMALL}, TWICE, "confirmed"),
    "the same for all boxes": (MOST_IN, {"lrp_eps": 0.1 + noise(6)}, {}, "undecided"),
    "most for small boxes, not computed": (MOST_IN, {"lrp_eps": None}, {}, "undecided"),
    "at the floor": (AT_FLOOR, {"lrp_eps": UP, "random": NONE}, {"originals": {"lrp_eps": BASE + UP / 9}}, "confirmed"),
    "below the floor": (AT_FLOOR, {"lrp_eps": UP, "random": NONE}, {"originals": {"lrp_eps": BASE - 0.4}}, "confirmed"),
    "above the floor": (AT_FLOOR, {"lrp_eps": UP, "random": NONE}, {"originals": {"lrp_eps": BASE + UP}}, "refuted"),
    "about at the floor": (
        AT_FLOOR, {"lrp_eps": UP, "random": NONE}, {"originals": {"lrp_eps": BASE + 0.05 + noise(1)}}, "undecided",
    ),
    "lower is better and at the floor": (
        AT_FLOOR, {"lrp_eps": UP, "random": NONE}, {"originals": {"lrp_eps": BASE + UP}, **TWICE}, "confirmed",
    ),
    "no floor": (AT_FLOOR, {"lrp_eps": UP}, {}, "undecided"),
    "at another floor": (one_test("at_floor", tolerance=0.05, floor="ig"), {"lrp_eps": UP, "ig": UP}, {}, "confirmed"),
    "at the floor, not computed": (AT_FLOOR, {"lrp_eps": None, "random": NONE}, {}, "undecided"),
    "mixed": (MIXED, {"lrp_eps": UP, "ebp": DOWN}, {}, "confirmed"),
    "mixed, one is exactly equal": (MIXED, {"lrp_eps": UP, "ebp": NONE}, {}, "confirmed"),
    "all better": (MIXED, {"lrp_eps": UP, "ebp": UP}, {}, "refuted"),
    "all worse": (MIXED, {"lrp_eps": DOWN, "ebp": DOWN}, {}, "refuted"),
    "mixed, all too noisy": (MIXED, {"lrp_eps": NOISE, "ebp": NOISE}, {}, "undecided"),
    "mixed, one not computed": (MIXED, {"lrp_eps": UP, "ebp": None, "ig": DOWN}, {}, "undecided"),
    "mixed, one better, one too noisy": (MIXED, {"lrp_eps": UP, "ebp": NOISE}, {}, "undecided"),
    "mixed, one worse, one too noisy": (MIXED, {"lrp_eps": DOWN, "ebp": NOISE}, {}, "undecided"),
    "mixed, of one": (one_test("mixed"), {"lrp_eps": UP}, {}, "undecided"),
}  # fmt: skip


@pytest.mark.parametrize(("test", "differences", "options", "verdict"), CASES.values(), ids=CASES)
def test_a_claim_is_judged(tmp_path, test, differences, options, verdict):
    answer = ask(write_cells(tmp_path, differences, **options), test)
    assert answer.verdict.value == verdict
    assert [found.value for found in answer.verdicts] == [verdict]
    assert answer.figures == f"{int(verdict == 'confirmed')} of 1 tests confirmed"


def test_every_expectation_has_cases_of_all_verdicts():
    judged = {(test["expect"], verdict) for test, _, _, verdict in CASES.values()}
    assert judged == {(name, verdict.value) for name in Claims.EXPECTATIONS for verdict in Verdict}


ALL = [EQUAL, BETTER, OF_EBP, MOST_IN, AT_FLOOR, MIXED]
TRUE = {"lrp_eps": UP + 0.1 * SMALL, "ebp": NONE, "random": NONE}  # of all but the first of ALL


@pytest.mark.parametrize("test", ALL, ids=lambda test: test["expect"])
@pytest.mark.parametrize("images", [1, 2, 29, 30])
def test_too_few_images_decide_nothing(tmp_path, test, images):
    """Half of them have small boxes; to compare these with the others there have to be enough of both."""
    images *= 2 if test["expect"] == "most_in" else 1
    box = np.where(np.arange(images) % 2, 0.1, 0.6)
    change = {} if test["expect"] == "equal" else {"lrp_eps": 0.2 + 0.1 * (box < 0.25)}
    for method in TRUE:
        for canonize in (False, True):
            values = {"localization": 0.3 + canonize * change.get(method, 0) + np.zeros(images)}
            write_cell(tmp_path, method=method, canonize=canonize, values=values, box_fraction=box)
    answer = ask(tmp_path, test)
    enough = images // (2 if test["expect"] == "most_in" else 1) >= MIN_IMAGES == 30
    assert answer.verdict.value == ("confirmed" if enough else "undecided")
    told = answer.findings[-1].figures
    assert ("fewer than 30 images" in told) == (not enough) and "0 undefined" in told
    assert ask(tmp_path, {**test, "min_images": 31}).verdict is Verdict.undecided


def test_images_without_an_object_have_no_box_of_any_size(tmp_path):
    box = np.tile([0.0, 0.1, 0.6], 30)
    change = np.where(box == 0, -9, 0.1 + 0.1 * (box < 0.25))
    for canonize in (False, True):
        write_cell(tmp_path, canonize=canonize, values={"localization": BASE + canonize * change}, box_fraction=box)
    for test in (MOST_IN, {**BETTER, "stratum": "box < 25 %"}):
        assert ask(tmp_path, test).verdict is Verdict.confirmed
    assert ask(tmp_path, BETTER).verdict is not Verdict.confirmed
    (finding,) = ask(tmp_path, MOST_IN).findings
    assert finding.figures.startswith("+0.2 there, +0.1 elsewhere")


@pytest.mark.parametrize("test", ALL, ids=lambda test: test["expect"])
def test_a_large_share_of_undefined_images_decides_nothing(tmp_path, test):
    change = TRUE | ({"lrp_eps": NONE} if test["expect"] == "equal" else {})
    for undefined, verdict in ((3, "confirmed"), (20, "undecided")):
        original = np.full(IMAGES, BASE)
        original[np.random.default_rng(0).permutation(IMAGES)[:undefined]] = np.nan
        answer = ask(write_cells(tmp_path / verdict, change, originals={"lrp_eps": original}), test)
        assert answer.verdict.value == verdict
        assert any(f"{undefined} undefined" in finding.figures for finding in answer.findings)
        lack = ("undefined for more than 10%", "fewer than 30 images")  # the second on one side of most_in
        assert any(any(reason in f.figures for reason in lack) for f in answer.findings) == (undefined > 3)


def test_a_rival_of_which_most_is_undefined_or_of_other_images_leaves_it_undecided(tmp_path):
    holes = UP.copy()
    holes[3:] = np.nan
    write_cells(tmp_path / "holes", {"lrp_eps": 3 * UP, "ebp": holes, "ig": UP})
    (finding,) = ask(tmp_path / "holes", MOST).findings
    assert finding.verdict is Verdict.undecided and "too little of EBP (fewer than 30 images)" in finding.figures
    write_cells(tmp_path / "few", {"lrp_eps": 3 * UP})
    same = {key: value[:20] for key, value in image_columns(IMAGES).items()}
    for canonize in (False, True):
        values = {"localization": (BASE + canonize * UP)[:20]}
        write_cell(tmp_path / "few", method="ebp", canonize=canonize, values=values, settings={"data.size": 80}, **same)
    (finding,) = ask(tmp_path / "few", OF_EBP).findings
    assert finding.verdict is Verdict.undecided and "(n = 20, 60 undefined" in finding.figures


def test_a_damaged_rival_is_named(tmp_path):
    write_cells(tmp_path, {"lrp_eps": 3 * UP, "ebp": UP, "ig": UP})
    assert ask(tmp_path, MOST).verdict is Verdict.confirmed
    for path in tmp_path.glob("*-ebp-*/samples.parquet"):
        path.write_bytes(b"")
    (finding,) = ask(tmp_path, MOST).findings
    assert finding.verdict is Verdict.undecided and finding.figures.endswith("; no results of ebp")


def test_a_network_of_which_all_cells_are_damaged_is_undecided(tmp_path):
    write_cells(tmp_path, {"lrp_eps": UP}, models=["resnet18", "vgg16_bn"])
    for path in tmp_path.glob("*vgg16_bn*/samples.parquet"):
        path.write_bytes(b"")
    assert [f.says for f in ask(tmp_path, BETTER).findings] == ["confirmed", "undecided"]


@pytest.mark.parametrize("test", [BETTER, GAIN, MOST_IN, AT_FLOOR, MIXED], ids=lambda test: test["expect"])
def test_a_metric_without_a_direction_gets_neither_better_nor_worse(tmp_path, test):
    change = TRUE | {"ebp": 0.1 * UP, "ig": NONE}
    write_cells(tmp_path, change, higher_is_better={"localization": None})
    answer = ask(tmp_path, test)
    assert answer.verdict is Verdict.undecided
    assert answer.findings[-1].figures == "neither more nor less localization is better"
    assert ask(tmp_path, MOST).verdict is Verdict.confirmed  # which is about size


def test_a_metric_that_was_not_computed_confirms_nothing(tmp_path):
    write_cells(tmp_path, {"lrp_eps": UP, "ebp": NONE, "random": NONE})
    for test in (EQUAL, BETTER, MOST, MOST_IN, AT_FLOOR, MIXED):
        answer = ask(tmp_path, {**test, "metrics": ["distance"]})
        assert answer.verdict is Verdict.undecided
        assert {finding.figures for finding in answer.findings} - {"2 undecided"} == {"no results"}


def test_images_of_which_a_value_is_not_defined_are_left_out(tmp_path):
    for test, difference, verdict in ((BETTER, UP, "confirmed"), (EQUAL, NONE + 0 * UP, "confirmed")):
        holes = difference.copy()
        holes[::12] = np.nan
        write_cells(tmp_path / verdict / test["expect"], {"lrp_eps": holes})
        assert ask(tmp_path / verdict / test["expect"], test).verdict.value == verdict
    write_cells(tmp_path / "none", {"lrp_eps": np.nan, "ebp": UP, "random": NONE})
    for test in (EQUAL, BETTER, MOST, MOST_IN, MIXED):
        assert ask(tmp_path / "none", test).verdict is Verdict.undecided


def test_a_claim_about_a_stratum_looks_at_its_images_only(tmp_path):
    write_cells(tmp_path, {"lrp_eps": np.where(SMALL, UP, DOWN)})
    assert ask(tmp_path, {**BETTER, "stratum": "box < 25 %"}).verdict is Verdict.confirmed
    assert ask(tmp_path, BETTER).verdict is not Verdict.confirmed
    (finding,) = ask(tmp_path, {**BETTER, "stratum": "box < 25 %"}).findings
    assert finding.figures.startswith(f"{UP[SMALL].mean():+.3g} [")


def test_the_test_corrected_for_the_study_has_to_agree_that_it_is_better(tmp_path):
    write_cells(tmp_path, {"lrp_eps": noise(0, 0.01) + 0.5 * (np.arange(IMAGES) % 10 == 0)})  # the ranks see no shift
    (finding,) = ask(tmp_path, BETTER).findings
    assert finding.verdict is Verdict.undecided and "[+0.0" in finding.figures
    assert 0.05 < float(finding.figures.split("p = ")[1]) <= 1
    (finding,) = ask(tmp_path, one_test("better", margin=0.3)).findings
    assert finding.verdict is Verdict.refuted


def test_every_network_has_to_agree(tmp_path):
    write_cells(tmp_path, {"lrp_eps": UP})
    assert ask(tmp_path, BETTER).verdict is Verdict.confirmed
    write_cells(tmp_path, {"lrp_eps": None}, models=["vgg16_bn"])
    answer = ask(tmp_path, BETTER)
    assert answer.verdict is Verdict.undecided
    assert [(f.network, f.verdict.value, f.figures == "no results") for f in answer.findings] == [
        ("scenes/resnet18", "confirmed", False),
        ("scenes/vgg16_bn", "undecided", True),
    ]
    write_cells(tmp_path, {"lrp_eps": DOWN}, models=["vgg16_bn"])
    assert ask(tmp_path, BETTER).verdict is Verdict.refuted


def test_a_rival_on_another_network_is_none(tmp_path):
    write_cells(tmp_path, {"lrp_eps": 3 * UP, "ebp": UP})
    write_cells(tmp_path, {"lrp_eps": 3 * UP}, models=["vgg16_bn"])
    verdicts = [finding.verdict.value for finding in ask(tmp_path, OF_EBP).findings]
    assert verdicts == ["confirmed", "undecided"]
    assert ask(tmp_path, OF_EBP).findings[1].figures.endswith("; no results of ebp")


def test_mixed_is_judged_over_all_networks_at_once(tmp_path):
    write_cells(tmp_path, {"lrp_eps": UP})
    write_cells(tmp_path, {"lrp_eps": DOWN}, models=["vgg16_bn"])
    answer = ask(tmp_path, one_test("mixed"))
    assert answer.verdict is Verdict.confirmed
    assert [(f.network, f.says) for f in answer.findings] == [
        ("all", "confirmed"), ("scenes/resnet18", "better"), ("scenes/vgg16_bn", "worse"),
    ]  # fmt: skip
    assert (answer.findings[0].figures, answer.figures) == ("1 better, 1 worse", "1 of 1 tests confirmed")
    assert [row["verdict"] for row in flat([answer])] == ["confirmed", "better", "worse"]


def test_what_mixed_says_of_a_row_is_what_the_row_shows(tmp_path):
    write_cells(tmp_path, {"lrp_eps": UP, "ebp": DOWN, "ig": NONE, "gbp": NOISE})
    answer = ask(tmp_path, one_test("mixed", methods=["lrp_eps", "ebp", "ig", "gbp"]))
    assert [f.says for f in answer.findings] == ["confirmed", "better", "worse", "equal", "undecided"]
    assert answer.findings[0].figures == "1 better, 1 equal, 1 undecided, 1 worse"
    assert answer.findings[0].method == "LRP-ε and EBP and IG and GBP"


def test_every_variant_is_judged_by_itself_and_against_rivals_of_the_same_run(tmp_path):
    for seed, mine, rival in ((0, UP, 0.2 * UP), (1, 2 * UP, 3 * UP)):
        write_cells(tmp_path, {"lrp_eps": mine, "ebp": rival}, settings={"seed": seed})
    answer = ask(tmp_path, OF_EBP)
    assert sorted((f.network, f.verdict.value) for f in answer.findings) == [
        ("scenes/resnet18 (data.seed=0, seed=0)", "confirmed"),
        ("scenes/resnet18 (data.seed=1, seed=1)", "refuted"),
    ]
    assert len({f.figures for f in ask(tmp_path, BETTER).findings}) == 2


def test_p_values_of_variants_are_not_mixed_up(tmp_path):
    write_cells(tmp_path, {"lrp_eps": UP})
    values = {"localization": BASE + 1e-3 + noise(4, 0.003)}
    write_cell(tmp_path, values=values, settings={"canonizer.exact": False})
    found = {f.network.split("exact=")[1]: f.figures.split("p = ")[1] for f in ask(tmp_path, BETTER).findings}
    assert found["True)"] != found["False)"] and float(found["True)"]) < 1e-6 < float(found["False)"])


def test_the_floor_is_of_the_same_run(tmp_path):
    write_cells(tmp_path, {"random": NONE}, settings={"seed": 1})
    write_cells(tmp_path, {"lrp_eps": UP})
    (finding,) = ask(tmp_path, AT_FLOOR).findings
    assert (finding.verdict, finding.figures) == (Verdict.undecided, "no results of random")


def test_parts_of_the_canonizer_are_no_evidence(tmp_path):
    write_cells(tmp_path, {"lrp_eps": None})
    write_cell(tmp_path, values={"localization": BASE + UP}, settings={"canonizer.parts": ["merge_bn"]})
    assert ask(tmp_path, BETTER).findings[0].figures == "no results"


@pytest.mark.parametrize("test", [BETTER, EQUAL, MOST_IN, MOST], ids=lambda test: test["expect"])
def test_intervals_by_class_are_wider_where_images_of_a_class_are_alike(tmp_path, test):
    label = np.arange(IMAGES) % 10
    of_class = np.random.default_rng(2).normal(0, 0.1, 10)[label]
    write_cells(tmp_path, {"lrp_eps": 0.1 + of_class * np.where(SMALL, 2, 0.5) + noise(1, 0.01), "ebp": NONE})
    widths = []
    for resample in ("image", "class"):
        (finding,) = ask(tmp_path, test, resample=resample).findings
        low, high = finding.figures.split("[")[1].split("]")[0].split(", ")
        widths.append(float(high) - float(low))
    assert widths[1] > 1.3 * widths[0]


def test_several_tests_and_metrics_are_one_claim(tmp_path):
    write_cells(tmp_path, {"lrp_eps": UP, "ebp": DOWN})
    answer = ask(tmp_path, BETTER, {**BETTER, "methods": ["lrp_eps", "ebp"]})
    assert [finding.verdict.value for finding in answer.findings] == ["confirmed", "confirmed", "refuted"]
    assert answer.verdict is Verdict.refuted and answer.figures == "2 of 3 tests confirmed"
    rows = list(flat([answer]))
    assert [(r["claim"], r["method"], r["verdict"], r["claim_verdict"]) for r in rows] == [
        ("A", "LRP-ε", "confirmed", "refuted"),
        ("A", "LRP-ε", "confirmed", "refuted"),
        ("A", "EBP", "refuted", "refuted"),
    ]


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ("", "undecided"), ("c", "confirmed"), ("cc", "confirmed"), ("cu", "undecided"), ("u", "undecided"),
        ("cr", "refuted"), ("ur", "refuted"), ("cur", "refuted"),
    ],
)  # fmt: skip
def test_a_claim_is_refuted_by_one_test_and_confirmed_by_all(verdicts, expected):
    letters = {verdict.value[0]: verdict for verdict in Verdict}
    assert overall([letters[letter] for letter in verdicts]).value == expected


# the files


def test_the_claims_of_the_study_are_read(tmp_path):
    claims = read_claims("icip2022")
    assert "ICIP 2022" in claims.title and list(claims.texts) == ["C1", "C2", "C3", "C4", "C5"]
    tests = {name: [type(test).__name__ for test in tests] for name, tests in claims.tests.items()}
    assert tests == {
        "C1": ["Equal"], "C2": ["Equal"], "C3": ["Most", "AtFloor"], "C4": ["Better", "MostIn"],
        "C5": ["Better", "Most", "Mixed"],
    }  # fmt: skip
    assert claims.tests["C1"][0].tolerance == 1e-3 and claims.tests["C4"][1].stratum == "box < 25 %"
    assert len(claims.tests["C4"][0].methods) == 8 and claims.tests["C5"][1].change == "gain"


def test_of_a_study_with_some_methods_only_the_complete_claim_is_confirmed(tmp_path):
    """The study has 12 methods; with all of them C3 is confirmed, without one of the others it is not."""
    methods = ["lrp_eps", "random", *read_claims("icip2022").tests["C3"][0].others]
    assert len(methods) == 13
    study = read_study([write_study(tmp_path / "some")])
    evidence = Evidence(study, comparisons(study, Statistics()), Statistics())
    answers = read_claims("icip2022").answers(evidence)
    assert {answer.name: answer.verdict.value for answer in answers} == {
        "C1": "undecided", "C2": "undecided", "C3": "undecided", "C4": "undecided", "C5": "undecided",
    }  # fmt: skip
    for last, verdict in ((-1, "undecided"), (None, "confirmed")):
        study = read_study([write_study(tmp_path / verdict, methods[:last], ["resnet18"])])
        evidence = Evidence(study, comparisons(study, Statistics()), Statistics())
        answer = read_claims("icip2022").answers(evidence)[2]
        assert answer.verdict.value == verdict
        assert any(f.figures.endswith(f"no results of {methods[-1]}") for f in answer.findings) == bool(last)


def test_a_users_own_claims_are_read_by_their_path(tmp_path):
    claims = write_claims(tmp_path, BETTER, title="mine", text="LRP gets better.")
    assert (claims.title, dict(claims.texts)) == ("mine", {"A": "LRP gets better."})
    assert claims.tests["A"][0].methods == ["lrp_eps"]
    (tmp_path / "claims.yaml").rename(tmp_path / "claims.yml")
    assert read_claims(str(tmp_path / "claims.yml")) == claims


def test_names_of_claims_may_be_numbers(tmp_path):
    (tmp_path / "c.yaml").write_text("title: 1\nclaims: {1: {text: 2, tests: []}}")
    claims = read_claims(str(tmp_path / "c.yaml"))
    assert (claims.title, claims.texts, claims.tests) == ("1", {"1": "2"}, {"1": []})


BAD_TESTS = {
    "unknown expectation": ({**BETTER, "expect": "best"}, "expect: expected one of equal, better, most, most_in"),
    "expectation that is a list": ({**BETTER, "expect": ["best"]}, "expect: expected one of equal, better"),
    "no expectation": ({"methods": ["ig"]}, "expect: expected one of .*, got None"),
    "unknown key": ({**BETTER, "margins": 1}, "better: Key 'margins' not in 'Better'"),
    "a key that is a number": ({**BETTER, 1: 1}, "better: Key '1' not in 'Better'"),
    "text for a number": ({**BETTER, "margin": "much"}, "better: Value 'much' of type 'str' could not be converted"),
    "a name for a list": (
        {**BETTER, "methods": "ebp"},
        r"better, methods: expected a list of names, as \[ebp\], got 'ebp'",
    ),
    "a mapping for a list": ({**BETTER, "metrics": {"a": 1}}, "better, metrics: expected a list of names"),
    "a name for rivals": ({**MOST, "others": "ebp"}, "most, others: expected a list of names"),
    "no methods at all": ({"expect": "better", "metrics": ["m"]}, "better: .*missing mandatory value: methods"),
    "empty methods": ({**BETTER, "methods": []}, "better, methods: expected a list of names"),
    "empty metrics": ({**BETTER, "metrics": []}, "better, metrics: expected a list of names"),
    "no rivals": ({**MOST, "others": []}, "most, others: expected a list of names"),
    "no rivals at all": (one_test("most"), "most: .*missing mandatory value: others"),
    "its own rival": ({**MOST, "others": ["ebp", "lrp_eps"]}, r"most: expected to compare .*, got \['lrp_eps'\]"),
    "its own floor": ({**AT_FLOOR, "floor": "lrp_eps"}, r"at_floor: expected to compare .*, got \['lrp_eps'\]"),
    "too few images": ({**BETTER, "min_images": 29}, "min_images: expected an integer >= 30, got 29"),
    "infinite tolerance": (one_test("equal", tolerance=np.inf), "tolerance: expected a finite number >= 0, got inf"),
    "negative margin": ({**BETTER, "margin": -0.1}, "margin: expected a finite number >= 0, got -0.1"),
    "no tolerance to be equal": (one_test("equal"), "equal: .*missing mandatory value: tolerance"),
    "no tolerance to be at the floor": (one_test("at_floor"), "at_floor: .*missing mandatory value: tolerance"),
    "negative tolerance": (one_test("equal", tolerance=-1), "tolerance: expected a finite number >= 0, got -1"),
    "tolerance nan": (one_test("at_floor", tolerance=np.nan), "tolerance: expected a finite number >= 0, got nan"),
    "unknown stratum": ({**BETTER, "stratum": "box < 9 %"}, "stratum: expected one of all, box < 50 %, box < 25 %"),
    "most in all": (one_test("most_in"), "stratum: expected one of box < 50 %, box < 25 %, got 'all'"),
    "unknown change": ({**MOST, "change": "size"}, "change: expected one of absolute, gain, got 'size'"),
    "an interpolation": ({**BETTER, "methods": ["${nothing}"]}, "better: Interpolation key 'nothing' not found"),
}


@pytest.mark.parametrize(("test", "message"), BAD_TESTS.values(), ids=BAD_TESTS)
def test_a_test_that_is_not_understood_is_told_in_a_line_with_its_place(tmp_path, test, message):
    with pytest.raises(UserError, match=rf"claims\.yaml, A, {message}") as error:
        write_claims(tmp_path, BETTER, test)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        "", "3", "[]", "a: [", "title: T", "claims: {}", "title: T\nclaims: []", "title: T\nclaims: {A: 1}",
        "title: T\nclaims: {A: {text: a}}", "title: T\nclaims: {A: {tests: []}}", "\x00",
        "title: T\nclaims: {A: {text: a, tests: null}}", "title: T\nclaims: {A: {text: a, tests: [1]}}",
        "title: T\nclaims: {A: {text: a, tests: {expect: better}}}", b"\xff\xfe\x00", "title:\nclaims: {}",
        "title: T\nclaims: {A: {text: a, tests: []}, A: {text: b, tests: []}}",
    ],
)  # fmt: skip
def test_a_file_that_is_no_claims_is_told_in_a_line(tmp_path, content):
    path = tmp_path / "c.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=r"^report.claims: expected .*c\.yaml to be as conf/claims/icip2022") as error:
        read_claims(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ("", "got no title."),
        ("title: T", "got no claims by name."),
        ("title: T\nclaims: {A: {tests: []}}", "got no text of A."),
        ("title: T\nclaims: {A: {text: a, tests: better}}", "got no list of tests of A."),
        ("title: T\nclaims: {A: {text: a, tests: []}, A: {text: b, tests: []}}", "found duplicate key A"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(tmp_path, content, got):
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(UserError, match=got):
        read_claims(str(tmp_path / "c.yaml"))


def test_claims_of_one_name_are_refused(tmp_path):
    (tmp_path / "c.yaml").write_text("title: T\nclaims: {1: {text: a, tests: []}, '1': {text: b, tests: []}}")
    with pytest.raises(UserError, match="different names of claims"):
        read_claims(str(tmp_path / "c.yaml"))


def test_names_that_no_cell_has_are_told(tmp_path):
    study = read_study([write_cells(tmp_path, {"lrp_eps": UP})])
    for path in write_cells(tmp_path, {"ebp": UP}).glob("*-ebp-*/samples.parquet"):
        path.write_bytes(b"")
    tests = [
        {**BETTER, "methods": ["ebp", "ebpp"]},
        {**BETTER, "metrics": ["lokalization"]},
        {**MOST, "others": ["gbp", "nothing"]},
        {**AT_FLOOR, "floor": "flor"},
    ]
    told = write_claims(tmp_path, *tests).unknown(study)
    assert {(p.kind, p.cell) for p in told} == {("unknown", "A")}
    assert [p.reason.split("'")[1] for p in told] == ["ebpp", "lokalization", "nothing", "flor"]
    assert read_claims("icip2022").unknown(study) == []


@pytest.mark.parametrize("name", ["mine", "nowhere/mine.yaml", ""])
def test_claims_that_are_nowhere_are_told_with_what_there_is(name):
    with pytest.raises(UserError, match=f"^report.claims: expected a YAML file or one of icip2022, got '{name}'"):
        read_claims(name)


def test_the_strata_of_claims_are_those_of_the_summaries():
    assert list(STRATA) == ["all", "box < 50 %", "box < 25 %"]

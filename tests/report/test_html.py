"""The page, in a real browser: it works, it loads nothing, and what strangers wrote does not run."""

import base64
import io
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from canonxai.report.cells import Problem, Study, read_study
from canonxai.report.claims import Claims, read_claims
from canonxai.report.comparison import Comparison, Statistics
from canonxai.report.html import LONGEST_SIDE, encode_map, outline, write_html
from canonxai.report.report import Report
from tests.report.study import IMAGES, METHODS, MODELS, write_cell, write_study

PAIRS = len(METHODS) * len(MODELS)
METRICS, STRATA, MAPS = 3, 3, 3
CHARTS = {"forest": ("metric", "stratum"), "curves": ("model", "method"), "scatter": ("model", "metric", "method")}
ATTACK = (
    '<b></script><script>attacked = 1; alert(1)</script>"><img src=x onerror="attacked = 1"><a href="javascript:0">%{x}'
)


def require_browser(which: Callable[[str], str | None], environment: Mapping[str, str]) -> str:
    """The system's Chromium. Without one the tests skip, but on CI they fail."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := which(name):
            return path
    message = "no Chromium found; install one to test report.html, as by apt-get install chromium"
    if environment.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = require_browser(shutil.which, os.environ)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a page without a network; in the end nothing may have gone wrong, nor anything have been asked for."""
    faults: list[str] = []
    context = browser.new_context(offline=True)

    def open_page(path: Path) -> Page:
        page = context.new_page()
        page.on("console", lambda message: faults.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (faults.append("dialog"), dialog.dismiss()))
        page.on("request", lambda request: faults.append(request.url) if is_foreign(request.url) else None)
        is_foreign = lambda url: url != path.as_uri() and not url.startswith("data:")  # noqa: E731
        page.goto(path.as_uri())
        return page

    yield open_page
    context.close()
    assert faults == []


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return make_report(write_study(tmp_path_factory.mktemp("study"), maps=MAPS))


@pytest.fixture(scope="module")
def path(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    Image.new("RGB", (30, 20), "red").save(folder / "forest & more.png")
    write_html(report, folder / "below" / "report.html", [folder / "forest & more.png"])
    return folder / "below" / "report.html"


@pytest.fixture
def page(visit: Callable[..., Page], path: Path) -> Page:
    return visit(path)


def make_report(folder: Path, claims: str = "icip2022") -> Report:
    return Report(read_study([folder]), Statistics(), read_claims(claims))


def altered(report: Report, study: Study | None = None, **computed: Any) -> Report:
    """A report that is not computed again."""
    other = replace(report, study=study or report.study)
    other.__dict__.update(
        {"results": report.results, "comparisons": report.comparisons, "answers": report.answers, **computed}
    )
    return other


def column(page: Page, header: str) -> list[str]:
    """What a column of the table shows."""
    headers = page.locator("#table th").all_inner_texts()
    place = [text.strip() for text in headers].index(header)
    return page.locator(f"#table tbody td:nth-child({place + 1})").all_inner_texts()


def drawn(page: Page, chart: str) -> list[str]:
    """The shapes that a chart drew."""
    shapes = page.locator(f"#{chart} .scatterlayer path")
    return shapes.evaluate_all("all => all.map(p => p.getAttribute('d') + p.getAttribute('transform'))")


# ---------------------------------------------------------------- the tests' own rule


def test_without_a_browser_the_tests_skip_but_fail_on_ci() -> None:
    assert require_browser({"google-chrome": "/chrome"}.get, {}) == "/chrome"
    with pytest.raises(pytest.skip.Exception, match="no Chromium"):
        require_browser(lambda name: None, {"CI": "false"})
    with pytest.raises(pytest.fail.Exception, match="no Chromium"):
        require_browser(lambda name: None, {"CI": "true"})


# ---------------------------------------------------------------- head, claims, settings


def test_head_tells_the_sentence_and_the_counts(page: Page, report: Report) -> None:
    assert page.locator("h1").inner_text() == "test"
    assert page.locator("#sentence").inner_text() == report.sentence
    counts = page.locator("#counts li").all_inner_texts()
    assert counts == [f"{2 * PAIRS} cells", f"{PAIRS} pairs", f"{IMAGES} images", "0 problems"]
    assert page.locator("html").get_attribute("lang") == "en"


def test_claims_and_their_findings_are_shown(page: Page, report: Report) -> None:
    cards = page.locator("article.claim")
    assert cards.count() == len(report.answers)
    for card, answer in zip(cards.all(), report.answers, strict=True):
        assert card.locator("h3").inner_text() == f"{answer.name}: {answer.text}"
        assert card.locator("p").inner_text().split()[1] == answer.verdict.value
        assert answer.figures in card.locator("p").inner_text()
        assert not card.locator("table").is_visible()
        card.locator("summary").click()
        assert card.locator("table").is_visible()
        rows = card.locator("tbody tr").all_inner_texts()
        assert [row.split("\t")[1:] for row in rows] == [
            [finding.network, finding.method, finding.metric, finding.figures] for finding in answer.findings
        ]


def test_many_problems_are_collapsed(visit: Callable[..., Page], report: Report, tmp_path: Path) -> None:
    for count, is_open in ((2, True), (20, False)):
        problems = [Problem("note", f"cell{i}", "a reason") for i in range(count)]
        write_html(altered(report, replace(report.study, problems=problems)), tmp_path / f"{count}.html")
        page = visit(tmp_path / f"{count}.html")
        assert page.locator("#problems li").count() == count
        assert page.locator("#problems li").first.is_visible() == is_open
        assert page.locator("#problems summary").inner_text() == f"{count} note"


def test_settings_versions_and_figures(page: Page, report: Report) -> None:
    settings = page.locator("#settings pre").inner_text()
    assert "seed: 0" in settings
    assert "canonize:" not in settings  # as it differs
    assert report.study.cells[0].summary["versions"]["torch"] in page.locator("#settings table").inner_text()
    assert page.locator("#figures figcaption").all_inner_texts() == ["forest & more"]
    assert page.locator("#figures img").evaluate("image => image.naturalWidth") == 30


# ---------------------------------------------------------------- table


def test_numbers_are_sorted_as_numbers_and_missing_ones_last(page: Page, report: Report) -> None:
    values = [row.p_holm for row in report.comparisons if row.stratum == "all"]
    assert None in values
    header = page.locator("#table th", has_text="p (Holm)")
    for direction in ("ascending", "descending"):
        header.locator("button").press("Enter")
        assert header.get_attribute("aria-sort") == direction
        shown = column(page, "p (Holm)")
        missing = values.count(None)
        assert shown[-missing:] == ["–"] * missing
        numbers = [float(text.replace("−", "-")) for text in shown[:-missing]]
        assert numbers == sorted(numbers, reverse=direction == "descending")
    page.locator("#table th button", has_text="difference").click()
    assert header.get_attribute("aria-sort") == "none"
    shown = [float(text.split()[0].replace("−", "-")) for text in column(page, "difference [95 %]")]
    assert shown == sorted(shown)
    assert shown[0] < 0 < shown[-1]


def test_text_is_sorted(page: Page) -> None:
    unsorted = column(page, "method")
    page.locator("#table th button", has_text="method").click()
    assert column(page, "method") == sorted(unsorted, key=str.lower)
    page.locator("#table th button", has_text="method").click()
    assert column(page, "method") == sorted(unsorted, key=str.lower, reverse=True)


def test_the_table_is_filtered(page: Page, report: Report) -> None:
    total = PAIRS * METRICS * STRATA

    def expect(count: int) -> None:
        assert page.locator("#table tbody tr").count() == count
        assert page.locator("#shown").inner_text() == f"{count} of {total} rows shown"

    assert set(column(page, "stratum")) == {"all"}
    expect(PAIRS * METRICS)
    page.select_option("#filters select[name=stratum]", label="any")
    expect(total)
    page.select_option("#filters select[name=model]", label="vgg16_bn")
    expect(total // 2)
    page.select_option("#filters select[name=metric]", label="localization")
    expect(total // 2 // METRICS)
    page.locator("#filters input").press_sequentially("lrp 25")
    expect(1)
    page.fill("#filters input", "no such row")
    expect(0)
    page.fill("#filters input", "")
    page.select_option("#filters select[name=effect]", label="better")
    better = [row for row in report.comparisons if row.effect == "better"]
    expect(sum(row.model == "vgg16_bn" and row.metric == "localization" for row in better))


def test_columns_that_say_nothing_are_hidden(page: Page) -> None:
    headers = [text.strip() for text in page.locator("#table th").all_inner_texts()]
    assert not {"data", "state", "variant"} & set(headers)
    assert {"model", "method", "Cohen's d", "effect"} <= set(headers)


def test_five_thousand_rows_are_shown_when_asked_for(
    visit: Callable[..., Page], report: Report, tmp_path: Path
) -> None:
    rows = [
        replace(row, variant=f"v={i}")
        for i in range(5_000 // len(report.comparisons) + 1)
        for row in report.comparisons
    ]
    write_html(altered(report, comparisons=rows), tmp_path / "report.html")
    page = visit(tmp_path / "report.html")
    page.select_option("#filters select[name=stratum]", label="any")
    assert page.locator("#shown").inner_text() == f"500 of {len(rows)} rows shown"
    page.click("#more")
    assert page.locator("#table tbody tr").count() == len(rows)
    page.click("#table th button >> nth=0")
    assert page.locator("#table tbody tr").count() == len(rows)
    assert not page.locator("#more").is_visible()


# ---------------------------------------------------------------- charts


def test_charts_are_drawn_and_follow_their_selectors(page: Page) -> None:
    for chart, selectors in CHARTS.items():
        for selector in selectors:
            before, select = drawn(page, chart), page.locator(f"#{chart} select[name={selector}]")
            other = 0 if select.evaluate("select => select.selectedIndex") else 1
            select.select_option(index=other)
            assert before
            assert drawn(page, chart)
            assert drawn(page, chart) != before
    ticks = page.locator("#forest .ytick text").all_text_contents()
    assert ticks == ["Gradient", "EBP", "LRP-ε", "random"]
    assert page.locator("#forest .legendtext").all_text_contents() == list(MODELS)
    assert page.locator("#curves .legendtext").all_text_contents() == ["original", "canonized"]
    dashes = page.locator("#curves .js-line").evaluate_all("all => all.map(p => p.style.strokeDasharray)")
    assert bool(dashes[0].strip("0px, ")) != bool(dashes[1].strip("0px, "))


def test_points_tell_their_sample(page: Page) -> None:
    page.locator("#scatter .points path").nth(5).hover(force=True)
    text = page.locator("#scatter .hoverlayer text").first
    text.wait_for()
    assert "sample " in text.text_content()


# ---------------------------------------------------------------- metric reliability


def cells_of(page: Page, table: str) -> list[list[str]]:
    """The rows of a table of the first panel, without its head."""
    rows = page.locator(f"#reliability table.{table}").first.locator("tbody tr").all_inner_texts()
    return [[cell.strip() for cell in row.replace("−", "-").split("\t")] for row in rows]


def test_reliability_of_the_metrics_is_shown_panel_by_panel(page: Page, report: Report) -> None:
    reliability = report.reliability
    summaries = page.locator("#reliability summary")
    assert summaries.all_inner_texts() == [
        f"{panel.name}: 3 methods and random maps, 3 metrics" for panel in reliability.panels
    ]
    tables = page.locator("#reliability table")
    assert (tables.count(), tables.nth(0).is_visible(), tables.nth(3).is_visible()) == (3 * 4, True, False)
    summaries.nth(1).click()
    assert tables.nth(3).is_visible()

    panel = reliability.panels[0]
    marks = {"better": " ▲", "worse": " ▼", "undecided": " ○", "equal": " =", "no direction": ""}
    for row, metric in zip(cells_of(page, "floor"), panel.metrics, strict=True):
        floors = [floor for floor in reliability.of(panel, reliability.floor) if floor.metric == metric]
        assert row[0] == metric.replace("_", " ")
        assert row[2] == f"{floors[0].random:.3f}"
        assert row[3:] == [f"{floor.difference:+.3f}{marks[floor.effect]}" for floor in floors]
    (tau,) = reliability.of(panel, reliability.agreement)
    assert tau.tau != pytest.approx(tau.tau_per_image, abs=0.01)
    assert [row[1:] for row in cells_of(page, "agreement")] == [
        ["", f"{tau.tau:.2f}"],
        [f"{tau.tau_per_image:.2f}", ""],
    ]
    for row, told in zip(cells_of(page, "variance"), reliability.of(panel, reliability.variance), strict=True):
        shares = [f"{share:.3f}" for share in (told.method, told.image, told.rest, told.partial)]
        assert row == [told.metric.replace("_", " "), *shares, str(IMAGES), "0"]


def test_what_the_reliability_of_metrics_lacks_is_told(visit: Callable[..., Page], tmp_path: Path) -> None:
    nothing = {"localization": np.full(IMAGES, np.nan), "distance": 0.5}
    for name, methods, values, told in (
        ("one", ("ebp",), {"localization": 0.5}, ("No random map was computed", "no order", "nothing to explain")),
        ("random", ("random",), {"localization": 0.5}, ("no method beside the random map", "no order", "nothing")),
        ("undefined", ("ebp", "gbp", "random"), nothing, ("–", "There are not two metrics with a direction", "–")),
    ):
        for method in methods:
            write_cell(tmp_path / name, method=method, canonize=False, values=values)
        write_html(make_report(tmp_path / name), tmp_path / f"{name}.html")
        text = visit(tmp_path / f"{name}.html").locator("#reliability").inner_text()
        assert all(words in text for words in told)
        assert "None" not in text and "nan" not in text


# ---------------------------------------------------------------- maps


def test_the_browser_of_maps_shows_pairs_and_changes(page: Page) -> None:
    images = page.locator("#browser img")
    assert images.count() == 1 + 2 * PAIRS
    assert min(images.evaluate_all("all => all.map(image => image.naturalWidth)")) == 64
    assert page.locator("#pairs h3").all_inner_texts() == list(MODELS)
    captions = page.locator(".pair figcaption").all_inner_texts()
    assert captions == ["original", "canonized"] * PAIRS
    assert "cosine distance" in page.locator(".pair p").first.inner_text()
    assert page.locator("#sample path").get_attribute("d").startswith("M")

    def shown() -> tuple[str, str]:
        return page.locator("#sample figcaption").inner_text(), images.nth(3).get_attribute("src")

    seen = [shown()]
    for act in (
        lambda: page.get_by_role("button", name="Next").click(),
        lambda: page.locator("#browser").press("ArrowRight"),
    ):
        act()
        seen.append(shown())
    assert [caption for caption, _ in seen] == [f"sample {i}, class {i}" for i in range(MAPS)]
    assert len({source for _, source in seen}) == MAPS
    page.get_by_role("button", name="Next").click()
    assert shown() == seen[0]
    page.get_by_role("button", name="Previous").click()
    assert shown() == seen[2]
    page.locator("#browser").press("ArrowLeft")
    assert shown() == seen[1]
    page.select_option("#browser select", label="sample 0, class 0")
    assert shown() == seen[0]


def test_maps_are_small_palette_pictures_to_their_own_scale() -> None:
    heatmap = np.zeros((400, 200), np.float32)
    heatmap[:100], heatmap[300:] = 1e-9, -1e-9
    picture = Image.open(io.BytesIO(base64.b64decode(encode_map(heatmap))))
    assert (picture.mode, picture.size) == ("P", (LONGEST_SIDE // 2, LONGEST_SIDE))
    red, white, blue = (picture.convert("RGB").getpixel((10, y)) for y in (5, 80, 155))
    assert red[0] > 100 > red[2] and blue[2] > 50 > blue[0] and min(white) > 250
    assert encode_map(np.full((4, 4), np.nan, np.float32)) == encode_map(np.zeros((4, 4), np.float32))


def test_outline_follows_two_boxes() -> None:
    box = np.zeros((4, 5), bool)
    assert outline(box) == ""
    box[0, 0] = box[2:, 3:] = True
    assert outline(box) == "M0 0h1M0 1h1M3 2h2M3 4h2M0 0v1M1 0v1M3 2v2M5 2v2"


# ---------------------------------------------------------------- what may be missing, and what strangers may send


def test_no_pairs_and_no_maps(visit: Callable[..., Page], tmp_path: Path) -> None:
    report = make_report(write_study(tmp_path / "study", ("ebp", "random"), ("resnet18",), (True,)))
    assert not report.study.pairs
    write_html(report, tmp_path / "report.html")
    page = visit(tmp_path / "report.html")
    assert "nothing to compare" in page.locator("#results").inner_text()
    assert "no data" in page.locator("#forest").inner_text()
    assert "No maps" in page.locator("#browser").inner_text()
    assert drawn(page, "curves")


def test_no_pairs_but_maps_and_no_curves(visit: Callable[..., Page], tmp_path: Path) -> None:
    write_cell(tmp_path / "study", canonize=False, maps=2)
    write_html(make_report(tmp_path / "study"), tmp_path / "report.html")
    page = visit(tmp_path / "report.html")
    assert page.locator(".pair figcaption").all_inner_texts() == ["original"]
    assert page.locator(".pair p").count() == 0
    assert "no data" in page.locator("#curves").inner_text()


def test_several_data_sets_states_and_variants(visit: Callable[..., Page], tmp_path: Path) -> None:
    study = tmp_path / "study"
    for seed in (0, 1):
        for canonize, parts in ((False, None), (True, None), (True, ["merge_bn"])):
            settings = {"seed": seed} | ({"canonizer.parts": parts} if parts else {})
            write_cell(study, canonize=canonize, settings=settings, maps=2, name=f"{seed}{canonize}{parts}")
    for canonize in (False, True):
        write_cell(study, canonize=canonize, summary={"data": "other", "cell": f"other{canonize}"}, maps=2)
    report = make_report(study)
    write_html(report, tmp_path / "report.html")
    page = visit(tmp_path / "report.html")
    headers = [text.strip() for text in page.locator("#table th").all_inner_texts()]
    assert headers[:5] == ["data", "model", "method", "state", "variant"]
    assert page.locator("#table tbody tr").count() == len(report.study.pairs) == 5
    assert page.locator("#forest .legendtext").all_text_contents() == ["other / resnet18", "scenes / resnet18"]
    assert page.locator("#browser option").count() == 4
    assert page.locator("#counts").inner_text().split("\n")[2] == f"{2 * IMAGES} images"


def test_what_strangers_wrote_is_shown_and_does_not_run(visit: Callable[..., Page], tmp_path: Path) -> None:
    for canonize in (False, True):
        summary = {"study": ATTACK, "model": ATTACK, "cell": f"{ATTACK}{canonize}", "device": ATTACK}
        values = {"localization": np.linspace(0, 1, IMAGES) * (1 + canonize), "input_perturbation": 0.5}
        write_cell(tmp_path / "study", "resnet18", "ebp", canonize, values, title=ATTACK, summary=summary, maps=2)
    study = read_study([tmp_path / "study"])
    study = replace(
        study,
        folders=[Path(ATTACK)],
        pairs=[replace(pair, variant=f"{ATTACK}{i}") for pair in study.pairs for i in range(2)],
        problems=[Problem("damaged", ATTACK, ATTACK)],
    )
    claims = Claims(ATTACK, {ATTACK: ATTACK}, {ATTACK: []})
    Image.new("RGB", (3, 2)).save(tmp_path / "a'\"><script>attacked = 1<.png")
    figures = list(tmp_path.glob("*.png"))
    write_html(Report(study, Statistics(), claims), tmp_path / "report.html", figures)
    page = visit(tmp_path / "report.html")
    page.locator("#scatter .points path").first.hover(force=True)
    page.wait_for_timeout(200)
    assert page.evaluate("typeof attacked") == "undefined"
    assert page.locator("img[src=x]").count() == page.locator("a[href^=javascript]").count() == 0
    assert page.locator("h1").text_content() == ATTACK
    assert page.locator("#problems li").text_content() == f"damaged {ATTACK} {ATTACK}"
    assert page.locator(".claim h3").text_content() == f"{ATTACK}: {ATTACK}"
    assert column(page, "method")[0] == column(page, "model")[0] == ATTACK
    assert column(page, "variant")[0] == f"{ATTACK}0"
    assert page.locator(".pair h4").first.text_content() == f"{ATTACK} ({ATTACK}0)"
    assert page.locator("#forest .legendtext").first.text_content()[:70] == ATTACK[:70]
    assert page.locator("#forest .ytick text").first.text_content()[:20] == ATTACK[:20]
    assert page.locator("#figures figcaption").inner_text() == figures[0].stem


def test_undefined_numbers_are_dashes(visit: Callable[..., Page], report: Report, tmp_path: Path) -> None:
    first = report.study.pairs[0].canonized
    row = Comparison(first.data, first.model, first.method, first.title, "canonized", "", "m", "all", True, 0, 3)
    write_html(altered(report, comparisons=[row], answers=[]), tmp_path / "report.html")
    page = visit(tmp_path / "report.html")
    assert column(page, "difference [95 %]") == column(page, "Cohen's d") == ["–"]
    assert column(page, "effect") == ["– undefined"]
    assert "Nothing to draw" in page.locator("#forest").inner_text()
    assert "No claims" in page.locator("#claims").inner_text()

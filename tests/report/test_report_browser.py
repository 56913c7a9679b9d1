"""The page in a real browser: sorted, filtered, opened, copied, on a phone, in the dark, by keyboard, on paper."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import CHROMIUM, DRIVER, SCREENSHOTS, Browser
from drawn import Sketch, distinct, grid, write_sweep

from danube_sweep.report.page import write_page

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium here: apt-get install chromium chromium-driver"
)

ORDER = "return [...document.getElementById('table').tBodies].filter((one) => !one.hidden).map((one) => one.id)"
SORT = (
    "document.querySelectorAll('#table thead button').forEach((one) => one.textContent === arguments[0] && one.click())"
)
FILTER = "const [id, value] = arguments, one = document.getElementById(id); one.value = value;"
FILTER += "one.dispatchEvent(new Event('input', {bubbles: true})); one.dispatchEvent(new Event('change'))"
COLUMN = (
    "const [title, rows] = arguments, heads = [...document.querySelectorAll('#table thead th')];"
    "const place = heads.findIndex((one) => one.textContent === title);"
    "return rows.map((key) => document.querySelector(`#${key} .row`).cells[place].textContent)"
)
DRAWN = "return [...document.getElementById('table').tBodies].filter((one) => one.offsetHeight > 0).length"
NAME = "one.id || one.className || one.textContent"
WIDER = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
OPEN = "return [...document.querySelectorAll('tr.more')].filter((one) => !one.hidden).map((one) => one.id)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.driver.quit()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 14 trials, seven rows, one of them lost and one pruned."""
    trials = grid(14)
    for one in trials[2:4]:
        one.state, one.error, one.quality = "oom", "out of memory with trainer.micro_batch=8", None
    for one in trials[4:6]:
        one.state = "pruned"
    return write_page(write_sweep(tmp_path_factory.mktemp("mixed") / "sweep", trials))[1]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    evil = ["<script>document.title='bad'</script>", '"><img src=x onerror="document.title=\'bad\'">', "w" * 500]
    classes = ["<b>A</b>", "\N{GRINNING FACE} =1+1", "long " * 40]
    trials = [Sketch([f"data.text_column={text}"], 0.5, classes=classes) for text in evil]
    trials.append(Sketch(["data.text_column=x"], None, state="failed", error=f"<svg onload=alert(1)> {'y' * 500}"))
    return write_page(write_sweep(tmp_path_factory.mktemp("hostile") / "sweep", trials))[1]


def test_a_column_sorts_both_ways_and_what_has_no_number_stays_last(browser: Browser, mixed: Path) -> None:
    browser.open(mixed)
    assert browser.run(ORDER) == [f"r{number}" for number in range(1, 8)]
    for rising in (True, False):
        browser.run(SORT, "accuracy")
        shown = browser.texts(f"#table .row > td:nth-child({browser.texts('#table thead th').index('accuracy') + 1})")
        numbers = [float(text) for text in shown[:-1]]
        assert numbers == sorted(numbers, reverse=not rising)
        assert shown[-1] == "" and browser.run(ORDER)[-1] == "r7"
    assert browser.texts("th[aria-sort=descending]") == ["accuracy"]
    assert browser.errors() == []


@pytest.mark.parametrize("width", [1280, 390])
def test_metric_and_state_stay_in_sight_while_the_table_scrolls(browser: Browser, mixed: Path, width: int) -> None:
    browser.open(mixed, width=width)
    hidden = "return [...document.querySelectorAll('#table thead .rest')].filter((one) => one.offsetWidth === 0).length"
    assert browser.run(hidden) == 3
    browser.run("document.getElementById('more').click()")
    assert browser.run(hidden) == 0
    places = "const box = document.querySelector('.tall'); box.scrollLeft = arguments[0];"
    places += "return ['rank', 'metric', 'state'].map((name) => {const one = document.querySelector(`#r2 .${name}`)"
    places += ".getBoundingClientRect(); return [one.left, one.right]})"
    before, after = browser.run(places, 0), browser.run(places, 10_000)
    if width == 390:
        assert browser.run("return document.querySelector('.tall').scrollLeft") > 100
    assert [one[0] for one in after] == pytest.approx([one[0] for one in before], abs=1)
    assert all(0 <= left < right <= width for left, right in after)
    assert after[0][1] <= after[1][0] + 1 and after[1][1] <= after[2][0] + 1  # none lies on another


def test_the_ranking_is_filtered_by_words_and_by_state(browser: Browser, mixed: Path) -> None:
    browser.open(mixed)
    browser.run(FILTER, "words", "0.0001 targets=qv")
    assert len(browser.run(ORDER)) == 1
    assert browser.text("#count") == "1 of 7 rows"
    browser.run(FILTER, "words", "")
    browser.run(FILTER, "state", "oom")
    assert browser.run(ORDER) == ["r7"]
    browser.run(FILTER, "state", "")
    assert len(browser.run(ORDER)) == 7


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 130 rows."""
    return write_page(write_sweep(tmp_path_factory.mktemp("long") / "sweep", distinct(130)))[1]


def test_rows_further_down_are_drawn_once_they_are_in_sight(browser: Browser, long: Path) -> None:
    browser.open(long)
    assert browser.run(DRAWN) == 100
    assert browser.text("#further") == "Show the other 30 rows"
    browser.see("#further")
    assert browser.run(DRAWN) == 130 and browser.run("return document.getElementById('further').hidden")
    browser.run(FILTER, "words", "lr>=0.0001")
    kept = browser.run(ORDER)
    assert browser.run(DRAWN) == min(len(kept), 100)


def test_a_row_that_is_not_drawn_yet_opens_by_its_mark_and_by_the_keyboard(browser: Browser, long: Path) -> None:
    browser.open(long)
    last = browser.run(ORDER)[-1]
    browser.tell(f"#pictures [data-row={last}]", "click")
    assert browser.run(OPEN) == [f"{last}-more"] and browser.run(DRAWN) == 130
    assert "Differences from the best" in browser.run("return document.activeElement.closest('tbody').innerText")
    browser.open(long)
    browser.run("document.querySelector('#r100 .opener').focus({preventScroll: true})")
    browser.press("ArrowDown")
    assert browser.run("return document.activeElement.closest('tbody').id") == "r101"
    assert browser.errors() == []


def test_paper_and_a_browser_without_scripts_have_all_rows(browser: Browser, long: Path) -> None:
    browser.open(long)
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert browser.run(DRAWN) == 130
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(long)
        root = browser.driver.execute_cdp_cmd("DOM.getDocument", {})["root"]["nodeId"]
        last = browser.driver.execute_cdp_cmd("DOM.querySelector", {"nodeId": root, "selector": "#r130"})["nodeId"]
        assert browser.driver.execute_cdp_cmd("DOM.getBoxModel", {"nodeId": last})["model"]["height"] > 10
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_numbers_filter_as_terms_and_plots_show_what_is_left(browser: Browser, mixed: Path) -> None:
    browser.open(mixed)
    browser.see("#scatter")
    browser.run(FILTER, "words", "lr>=0.0002 targets=qv|mlp")
    rows = browser.run(ORDER)
    rates, targets = (browser.run(COLUMN, name, rows) for name in ("lr", "targets"))
    assert rows and all(float(rate) >= 0.0002 for rate in rates) and set(targets) <= {"qv", "mlp"}
    kept = "return [...document.querySelectorAll('#scatter .mark:not(.out)')].map((one) => one.dataset.row)"
    assert set(browser.run(kept)) == set(rows)
    assert browser.run(kept.replace("#scatter .mark", "#parallel .line")) and browser.errors() == []


def test_a_drag_over_marks_and_along_an_axis_filters_the_ranking(browser: Browser, mixed: Path) -> None:
    browser.open(mixed)
    browser.see("#scatter")
    browser.drag("#scatter svg", (0.0, 0.0), (0.5, 1.0))
    said = browser.run("return document.getElementById('words').value")
    assert re.fullmatch(r"lr>=\S+ lr<=\S+ targets=\S+", said)
    some = browser.run(ORDER)
    assert 0 < len(some) < 7
    high = float(re.findall(r"lr<=(\S+)", said)[0])
    assert all(float(rate) <= high for rate in browser.run(COLUMN, "lr", some))
    browser.run(FILTER, "words", "")
    browser.drag("#parallel svg", (0.99, 0.0), (0.99, 0.4))  # the last axis is the metric, the best at its top
    assert browser.run("return document.getElementById('words').value").startswith("log_loss>=")
    assert "r1" in browser.run(ORDER) and len(browser.run(ORDER)) < 6
    assert browser.errors() == []


def test_the_axes_of_both_plots_can_be_chosen(browser: Browser, mixed: Path) -> None:
    browser.open(mixed)
    browser.see("#scatter")
    names = "return [...document.querySelectorAll(`#${arguments[0]} text.name`)].map((one) => one.textContent)"
    assert browser.run(names, "scatter") == ["lr", "targets"]
    assert browser.run("return document.querySelectorAll('#scatter .map').length") == 720
    seconds = "return [...document.querySelectorAll('#axis-y option')].find((one) => one.text === 'accuracy').value"
    browser.run(FILTER, "axis-y", browser.run(seconds))
    assert browser.run(names, "scatter") == ["lr", "accuracy"]
    assert len(browser.run(names, "parallel")) == 3
    browser.run("document.querySelectorAll('#axes input')[0].click()")
    assert browser.run(names, "parallel") == ["targets", "log_loss, nats"]
    ticks = browser.texts("#scatter text:not(.name)")
    assert len(set(ticks)) == len(ticks)


def test_two_trials_are_put_side_by_side(browser: Browser, mixed: Path) -> None:
    browser.open(mixed)
    before = browser.texts("#sides tr:nth-child(2) td")
    assert len(before) == 4 and all("; loss " in said for said in before[2:])
    browser.run(FILTER, "side-b", "2")
    lines = "return [...document.querySelectorAll('#sides tr')].slice(1)"
    rows = browser.run(f"{lines}.map((one) => [...one.cells].map((cell) => cell.textContent))")
    apart = [abs(float(row[2].split("loss ")[1]) - float(row[3].split("loss ")[1])) for row in rows]
    assert apart == sorted(apart, reverse=True) and apart[0] > 0


def test_the_page_of_a_running_sweep_loads_itself_again_and_stays_as_it_was(browser: Browser, tmp_path: Path) -> None:
    trials = grid(8)
    trials[7].state = "waiting"
    file = write_page(write_sweep(tmp_path / "sweep", trials))[1]
    browser.open(file)
    assert browser.run("return document.body.dataset.refresh") == "60"
    browser.run(FILTER, "words", "lr<=0.0003")
    browser.run("document.getElementById('more').click(); document.querySelector('#r2 .opener').click()")
    browser.run("window.old = true; document.dispatchEvent(new Event('load-again'))")
    again = "const done = arguments[0], look = () => window.old || document.readyState !== 'complete' ? "
    again += "setTimeout(look, 20) : done(document.getElementById('words').value); look()"
    assert browser.wait(again) == "lr<=0.0003"
    assert browser.run(OPEN) == ["r2-more"] and browser.run("return document.getElementById('more').checked")
    browser.run("document.getElementById('stop').click()")
    assert browser.text("#stop") == "No longer loading" and browser.errors() == []


def test_whatever_can_be_used_or_looked_at_has_a_name(browser: Browser, mixed: Path) -> None:
    browser.open(mixed)
    browser.see("#scatter")
    browser.run("document.querySelector('details').open = true")
    browser.run("document.querySelectorAll('.opener').forEach((one) => one.click())")
    nodes = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {"button", "link", "combobox", "checkbox", "searchbox", "region", "image", "columnheader", "rowheader"}
    named: dict[str, list[str]] = {}
    for node in nodes:
        role = node.get("role", {}).get("value")
        if role in roles and not node.get("ignored"):
            named.setdefault(role, []).append(node.get("name", {}).get("value", "").strip())
    assert {"button", "link", "combobox", "checkbox", "searchbox", "region", "image"} <= set(named)
    assert [role for role, names in named.items() if "" in names] == []


def test_a_row_opens_by_mouse_keyboard_and_from_a_picture(browser: Browser, mixed: Path) -> None:
    browser.open(mixed)
    browser.click("#r2 .row > td:nth-child(2)")
    assert browser.run(OPEN) == ["r2-more"]
    assert "Calibration" in browser.run("return document.getElementById('r2-more').innerText")
    browser.run("document.querySelector('#r1 .opener').focus()")
    browser.press("ArrowDown")
    assert browser.run("return document.activeElement.closest('tbody').id") == "r2"
    browser.press("Enter")
    assert browser.run(OPEN) == []
    browser.tell("figure .mark[data-row=r3]", "click")
    assert browser.run(OPEN) == ["r3-more"]
    assert browser.run("return document.activeElement.getAttribute('aria-expanded')") == "true"
    browser.tell("figure .mark[data-row=r3]", "mouseover")
    assert browser.text("figure .mark[data-row=r3] title").startswith("optimizer.lr=")
    assert browser.run("return document.querySelectorAll('svg .lit').length") > 3
    assert browser.errors() == []


def test_everything_that_can_be_done_is_reached_by_the_tab_key(browser: Browser, mixed: Path) -> None:
    browser.open(mixed)
    reached = set()
    for _ in range(40):
        browser.press("Tab")
        reached.add(
            browser.run("const one = document.activeElement; return one.id || one.className || one.textContent")
        )
    assert {"Answer", "command", "Copy", "words", "state", "more", "vs best", "opener"} <= reached


def test_the_command_is_copied(browser: Browser, mixed: Path) -> None:
    browser.open(mixed)
    permission = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    browser.driver.execute_cdp_cmd("Browser.grantPermissions", permission)
    browser.click("[data-copy]")
    told = "const done = arguments[0], one = document.querySelector('.copied');"
    told += "const look = () => one.textContent ? done(one.textContent) : requestAnimationFrame(look); look()"
    assert browser.wait(told) == "Copied"
    assert browser.run("return String(getSelection())") == browser.text("#command")
    assert browser.text("#command").startswith("danube-sweep ")


def test_nothing_leaves_the_page_and_nothing_goes_wrong_in_it(browser: Browser, mixed: Path, hostile: Path) -> None:
    for name, file in (("mixed", mixed), ("hostile", hostile)):
        browser.open(file)
        browser.run("document.querySelectorAll('.opener').forEach((one) => one.click())")
        browser.screenshot(f"{name}-open")
        assert browser.requests() == []
        assert browser.errors() == []
        assert "bad" not in browser.driver.title
        assert browser.run("return document.images.length + document.querySelectorAll('td script').length") == 0


def test_a_script_that_is_not_the_pages_own_does_not_run(browser: Browser, mixed: Path) -> None:
    browser.open(mixed)
    added = "const one = document.createElement('script'); one.textContent = 'window.ran = 1';"
    browser.run(f"{added} document.body.append(one)")
    assert browser.run("return window.ran === undefined")
    assert any("Content Security Policy" in said for said in browser.errors())


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_scrolls_only_down(browser: Browser, mixed: Path, hostile: Path, *, dark: bool) -> None:
    for name, file in (("mixed", mixed), ("hostile", hostile)):
        browser.open(file, width=390, dark=dark)
        assert browser.run(WIDER) == 0
        browser.run("document.querySelectorAll('.opener').forEach((one) => one.click())")
        assert browser.run(WIDER) == 0
        browser.screenshot(f"{name}-phone-{'dark' if dark else 'light'}")


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground_in_light_and_dark(browser: Browser, mixed: Path, *, dark: bool) -> None:
    browser.open(mixed, dark=dark)
    browser.screenshot(f"mixed-wide-{'dark' if dark else 'light'}")
    colours = browser.run(
        "const style = getComputedStyle(document.documentElement);"
        "return Object.fromEntries(['paper', 'card', 'ink', 'quiet', 'link', 'bad', 'best', 'good', 'other'].map("
        "(name) => [name, style.getPropertyValue('--' + name).trim()]))"
    )
    for ground in ("paper", "card"):
        for name in ("ink", "quiet", "link", "bad"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
        for name in ("best", "good"):
            assert contrast(colours[name], colours[ground]) >= 3, (name, ground)


@pytest.mark.parametrize("dark", [False, True])
def test_kinds_of_rows_differ_for_the_colour_blind_and_in_form(browser: Browser, mixed: Path, *, dark: bool) -> None:
    browser.open(mixed, dark=dark)
    colours = browser.run(
        "const style = getComputedStyle(document.documentElement);"
        "return ['best', 'good', 'other', 'bad'].map((name) => style.getPropertyValue('--' + name).trim())"
    )
    for matrix in DICHROMATS.values():
        seen = [matrix @ linear(colour) for colour in colours]
        for one in range(3):  # the best, ties and others; failures have words beside their colour
            for other in range(one):
                assert np.abs(np.cbrt(np.clip(seen[one], 0, 1)) - np.cbrt(np.clip(seen[other], 0, 1))).max() > 0.1
    shapes = (
        "return ['best', 'good', 'other'].map((kind) => {const one = document.querySelector(`.legend .mark.${kind}`);"
    )
    shapes += "return one.tagName + (one.getAttribute('d') || '').replace(/[^a-zA-Z]/g, '')})"
    assert len(set(browser.run(shapes))) == 3
    dashes = "return ['best', 'good', 'early'].map((kind) => document.querySelector(`.line.${kind}`))"
    dashes += ".map((one) => getComputedStyle(one).strokeDasharray)"
    assert len(set(browser.run(dashes))) == 3


DICHROMATS = {
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]]
    ),
}
"""From linear RGB to what is seen: Machado, Oliveira and Fernandes (2009), severity 1."""


def linear(colour: str) -> Any:
    """Linear RGB of a CSS colour in hex."""
    digits = colour.lstrip("#")
    digits = "".join(sign * 2 for sign in digits) if len(digits) == 3 else digits
    parts = np.array([int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2."""
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def luminance(colour: str) -> float:
    red, green, blue = linear(colour).tolist()
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_on_paper_there_are_no_buttons_and_the_whole_table(browser: Browser, mixed: Path) -> None:
    browser.open(mixed)
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    shown = "return getComputedStyle(document.querySelector(arguments[0])).display"
    assert {browser.run(shown, one) for one in ("nav", ".filter", ".opener", ".command button")} == {"none"}
    assert browser.run("return getComputedStyle(document.querySelector('.tall')).maxHeight") == "none"
    paper = browser.driver.execute_cdp_cmd("Page.printToPDF", {})
    SCREENSHOTS.mkdir(exist_ok=True)
    (SCREENSHOTS / "mixed.pdf").write_bytes(base64.b64decode(paper["data"]))
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@pytest.mark.parametrize("kind", ["single", "empty", "many", pytest.param("real", marks=pytest.mark.full)])
def test_every_kind_of_sweep_is_shown_without_an_error(
    browser: Browser, real_sweep: Path, tmp_path: Path, kind: str
) -> None:
    trials = {"single": [Sketch(["lora.rank=8"], 0.5)], "empty": [], "many": distinct(60)}
    sweep = real_sweep if kind == "real" else write_sweep(tmp_path / "sweep", trials[kind])
    file = write_page(sweep, tmp_path / "page.html")[1]
    for width in (1280, 390):
        browser.open(file, width=width)
        assert browser.errors() == []
        assert browser.run(WIDER) == 0
        browser.screenshot(f"{kind}-{width}")

"""The page in a real browser: sorted, filtered, opened, copied, on a phone, in the dark, by keyboard, on paper."""

import base64
from collections.abc import Iterator
from pathlib import Path

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
    assert browser.driver.execute_async_script(told) == "Copied"
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


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2."""
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(sign * 2 for sign in digits) if len(digits) == 3 else digits
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
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


@pytest.mark.parametrize("kind", ["real", "single", "empty", "many"])
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

"""The page of a sweep of 1,000 trials in a browser, against one of 200: size, seconds to draw it, and milliseconds to
open, to filter and to sort in Debian's Chromium. All are CPU time, Chromium's by its main thread, so that other
programs on the machine do not count. A step that a person notices takes 100 ms or more.

    python benchmarks/report_page.py [--trials 200 1000] [--rounds 5]

The trials are made up, as those of the tests are; all of them are rows of their own. Medians over the rounds.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from chromium import Browser  # noqa: E402
from drawn import distinct, write_sweep  # noqa: E402

from danube_sweep.report.page import write_page  # noqa: E402

STEP = """
const [kind, done] = arguments;
const words = document.getElementById('words');
if (kind === 'filter') { words.value = 'lr>=0.001'; words.dispatchEvent(new Event('input')); }
if (kind === 'clear') { words.value = ''; words.dispatchEvent(new Event('input')); }
if (kind === 'sort') document.querySelectorAll('#table thead button')[1].click();
document.body.getBoundingClientRect();
requestAnimationFrame(() => setTimeout(done));
"""


def busy_ms(browser: Browser) -> float:
    """CPU time of the page's main thread so far: scripts, style, layout and paint."""
    metrics = browser.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return 1000 * next(float(one["value"]) for one in metrics if one["name"] == "TaskDuration")


def measured(browser: Browser, file: Path, rounds: int) -> dict[str, float]:
    """Milliseconds by step."""
    found: dict[str, list[float]] = {"open": [], "filter": [], "clear": [], "sort": []}
    for _ in range(rounds):
        for step, times in found.items():
            before = 0.0 if step == "open" else busy_ms(browser)  # a new page counts from 0
            if step == "open":
                browser.open(file)
            browser.wait(STEP, step)
            times.append(busy_ms(browser) - before)
    return {step: statistics.median(times) for step, times in found.items()}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as place:
        browser = Browser(Path(place) / "profile")
        browser.driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        first: dict[str, float] = {}
        for count in options.trials:
            sweep = write_sweep(Path(place) / str(count), distinct(count))
            began_s = time.process_time()
            file = write_page(sweep)[1]
            times = {"draw": 1000 * (time.process_time() - began_s), **measured(browser, file, options.rounds)}
            first = first or times
            print(f"{count} trials, {file.stat().st_size / 1e6:.2f} MB: ", end="")
            print(", ".join(f"{step} {ms:,.0f} ms ({ms / first[step]:.1f} x)" for step, ms in times.items()))
        browser.driver.quit()


if __name__ == "__main__":
    main()

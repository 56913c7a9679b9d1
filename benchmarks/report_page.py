"""The page of a sweep of 1,000 trials in a browser, against one of 200: size, seconds to draw it, and milliseconds to
open, to filter and to sort in Debian's Chromium. A step that a person notices takes 100 ms or more.

    python benchmarks/report_page.py [--trials 200 1000] [--rounds 5]

The trials are made up, as those of the tests are; all of them are rows of their own. Medians over the rounds.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from chromium import Browser  # noqa: E402
from drawn import distinct, write_sweep  # noqa: E402

from danube_sweep.report.page import write_page  # noqa: E402

OPENED = "const [load] = performance.getEntriesByType('navigation');return load.loadEventStart - load.responseStart"
STEP = """
const [kind, done] = arguments;
const words = document.getElementById('words');
const start = performance.now();
if (kind === 'filter') { words.value = 'lr>=0.001'; words.dispatchEvent(new Event('input')); }
if (kind === 'clear') { words.value = ''; words.dispatchEvent(new Event('input')); }
if (kind === 'sort') document.querySelectorAll('#table thead button')[1].click();
document.body.getBoundingClientRect();
requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
"""


def measured(browser: Browser, file: Path, rounds: int) -> dict[str, float]:
    """Milliseconds by step."""
    found: dict[str, list[float]] = {"open": [], "filter": [], "clear": [], "sort": []}
    for _ in range(rounds):
        browser.open(file)
        found["open"].append(float(browser.run(OPENED)))
        for step in ("filter", "clear", "sort"):
            found[step].append(float(browser.driver.execute_async_script(STEP, step)))
    return {step: statistics.median(times) for step, times in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        browser = Browser(Path(place) / "profile")
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

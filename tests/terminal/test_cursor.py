"""No signal leaves the terminal without its cursor."""

import signal

import pytest
import warm

SHOWN, HIDDEN = "\x1b[?25h", "\x1b[?25l"
SCRIPT = """
import os, signal
from rich.console import Console
from danube_sweep.terminal.cursor import cursor_shown_at_the_end
from danube_sweep.terminal.row_bar import row_bar
from danube_sweep.terminal.screen import Terminal

for number in (signal.SIGTERM, signal.SIGHUP):  # nohup has it ignored
    signal.signal(number, signal.SIG_DFL)
console = Console(force_terminal=True)
{how}
"""
BARS = {
    "a trial": "with Terminal(console, plain=False) as shown:\n    shown.start('a', 3)\n    {then}",
    "rows": "with row_bar(3, console) as moved:\n    {then}",
}


@pytest.mark.parametrize("name", BARS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_the_process_shows_the_cursor_first(name: str, number: signal.Signals) -> None:
    bars = BARS[name].format(then=f"os.kill(os.getpid(), {int(number)}); signal.pause()")
    ended = warm.run("-c", SCRIPT.format(how=bars))
    assert ended.returncode == -number, ended.stderr
    assert HIDDEN in ended.stdout and ended.stdout.endswith(SHOWN)


def test_whoever_handles_signals_already_goes_on_doing_so() -> None:
    mine = "signal.signal(signal.SIGTERM, lambda *_: print('mine'))\n"
    how = mine + BARS["rows"].format(then="os.kill(os.getpid(), signal.SIGTERM)")
    how += "\nprint(signal.getsignal(signal.SIGHUP) is signal.SIG_DFL)"
    assert "mine" in (said := warm.run("-c", SCRIPT.format(how=how)).stdout) and said.endswith("True\n")

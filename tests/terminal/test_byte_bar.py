"""What reading a large file shows."""

import pytest

from danube_sweep.terminal.byte_bar import SHOWN_FROM_BYTES, byte_bar

LINE = "hashing x: 8.0 GiB, once on this machine\n"


@pytest.mark.parametrize(("total", "said"), [(SHOWN_FROM_BYTES - 1, ""), (8 * 2**30, LINE)])
def test_without_a_terminal_a_large_file_is_one_line_and_a_small_one_none(
    capsys: pytest.CaptureFixture[str], total: int, said: str
) -> None:
    with byte_bar("hashing x", total) as done:
        done(total)
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", said)

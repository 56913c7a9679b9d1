"""`danube-sweep show`: the facts about a trial's data, and some rows as the model reads them."""

from danube_sweep.config.schema import Config
from danube_sweep.data.shown_rows import row_lines, rows_to_show
from danube_sweep.terminal.screen import Terminal
from danube_sweep.training.prepare import prepare


def show_data(config: Config, rows: int, terminal: Terminal) -> None:
    """Reads and tokenises the data of a trial and prints them; writes nothing but caches. Raises UserError."""
    prepared = prepare(config)
    lines = [*prepared.description.lines(), *([prepared.markup_note] if prepared.markup_note else [])]
    train = prepared.parts["train"]
    for row in rows_to_show(train, rows):
        lines += [
            "",
            *row_lines(
                train,
                row,
                prepared.tokenizer,
                classes=prepared.classes,
                target=config.head.target,
                side=config.data.truncation,
            ),
        ]
    terminal.tell("data", lines)

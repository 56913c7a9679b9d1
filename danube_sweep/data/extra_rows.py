"""Extra training rows: read beside the parts of a trial, weighted, and kept away from the rows that are held out."""

from collections.abc import Sequence
from dataclasses import replace

from danube_sweep.config.schema import Columns, Comparison, Data, ExtraRows, GroupBy, Target
from danube_sweep.data.grouping import row_keys
from danube_sweep.data.kind import ExtraKind
from danube_sweep.data.records import Parts, Record
from danube_sweep.data.sample import sampled
from danube_sweep.errors import DataError

_SHOWN = 5


def with_extra(found: Parts, config: Data, target: Target) -> Parts:
    """The parts, with the rows of `data.extra` beside them; those that validate or test are in `found` still.

    `data.max_rows` draws some of the extra rows too. Raises DataError for labels that cannot be read, and for rows
    whose prompt, text, template or group also stands in the validation or the test part.
    """
    if not isinstance(config, ExtraRows) or not isinstance(config, ExtraKind) or not config.extra:
        return found
    extra: list[Record] = []
    notes = list(found.notes)
    for path in config.extra:
        rows = config.load_extra(path, target, found.classes)
        if not rows.records:
            raise DataError(f"data.extra={path}: the file has no rows; give one with rows")
        _refuse_leaks(rows.records, found, config, f"data.extra={path}")
        extra += rows.records
        notes += rows.notes
    soft = sum(_is_soft(record, target) for record in extra)
    if config.extra_temperature != 1 and not soft:
        raise DataError(
            f"data.extra_temperature={config.extra_temperature:g} is for soft labels, and all labels of data.extra are "
            "hard; give 1"
        )
    chosen = [_as_taught(record, config, target) for record in sampled(extra, config)]
    kept = f"{len(chosen):,}" + (f" of {len(extra):,}" if len(chosen) < len(extra) else "")
    said = f"data.extra: {kept} more training rows, each with weight {config.extra_weight:g}"
    return replace(found, extra=chosen, notes=[*notes, f"{said}; {soft:,} of {len(extra):,} have soft labels"])


def tempered(label: Sequence[float], temperature: float, *, shares: bool) -> tuple[float, ...]:
    """A soft label with its log probabilities divided by `temperature` and normalised again.

    `shares`: the probabilities are of classes that exclude each other; else each stands alone.
    """
    if not shares:
        return tuple(tempered((value, 1 - value), temperature, shares=True)[0] for value in label)
    most = max(label)
    powers = [(value / most) ** (1 / temperature) for value in label]
    return tuple(power / sum(powers) for power in powers)


def _as_taught(record: Record, config: ExtraRows, target: Target) -> Record:
    label = record.label
    if config.extra_temperature != 1 and label is not None:
        label = tempered(label, config.extra_temperature, shares=target is not Target.many)
    return replace(record, label=label, weight=config.extra_weight)


def _is_soft(record: Record, target: Target) -> bool:
    return target is not Target.number and any(0 < value < 1 for value in record.label or ())


def _refuse_leaks(extra: Sequence[Record], found: Parts, config: ExtraRows, where: str) -> None:
    held = {"validation": found.validation, "test": found.test}
    keys = _keys(extra, config, found.classes)
    for part, records in held.items():
        known = _keys(records, config, found.classes)
        for kind, values in keys.items():
            taken = set(known[kind])
            leaks = [record.id for record, value in zip(extra, values, strict=True) if value in taken]
            if leaks:
                shown = ", ".join(leaks[:_SHOWN]) + (", …" if len(leaks) > _SHOWN else "")
                raise DataError(
                    f"{where}: {len(leaks)} of {len(extra)} rows (id {shown}) have a {kind} that also stands in the "
                    f"{part} part; a model must not train on it: remove these rows"
                )


def _keys(records: Sequence[Record], config: ExtraRows, classes: Sequence[str]) -> dict[str, list[str]]:
    # Normalised, which is stricter than the split: other case or blanks make no new text.
    unit = "prompt" if isinstance(config, Comparison) else "text"
    found = {unit: row_keys(records, config, classes, GroupBy.text)}
    if config.group_by is GroupBy.template:
        found["template"] = row_keys(records, config, classes, GroupBy.template)
    if isinstance(config, Columns) and config.group_column is not None:
        found["group"] = [record.group for record in records]
    return found

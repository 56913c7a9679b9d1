"""`danube-sweep --help`: usage, the groups with their options, and the fields of one group."""

import dataclasses
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from danube_sweep import paths
from danube_sweep.config import offered_options
from danube_sweep.config.explain import in_our_words
from danube_sweep.config.options import OPTIONS, SWEEP_OPTIONS
from danube_sweep.config.schema import Config, Settings
from danube_sweep.errors import ConfigError

USAGE = """\
danube-sweep [GROUP=OPTION | FIELD=VALUE]…          train one trial
danube-sweep init FILE [--test FILE]                 recognise a csv, jsonl or parquet file, and print a first command
danube-sweep tonight FILE --test FILE --hours H      search, refit and predict in the hours given
danube-sweep -m FIELD=VALUE,VALUE…                   sweep: train every combination, then rank
danube-sweep -m … --dry-run                          show the trials of a sweep and stop
danube-sweep sweep FILE                              run a W&B sweep file without a server
danube-sweep agent ENTITY/PROJECT/ID --trials N      W&B agents on this machine that train N trials in packs
danube-sweep resume [DIR] [--retry failed,oom]       continue an interrupted run or sweep
danube-sweep rank [SWEEP_DIR] [--full]               rank a sweep's trials, best first
danube-sweep report [SWEEP_DIR]                      write a sweep as one HTML page: answer, ranking, pictures
danube-sweep watch [SWEEP_DIR]                       show a running sweep live, and redraw its page each minute
danube-sweep oof DIR… [-o OUT]                       join the out-of-fold predictions of finished folds
danube-sweep plan [-m] [OVERRIDES]                   predict memory and time, and whether a device is large enough
danube-sweep device [--probe]                        show how this machine is recognised; measure how fast it is
danube-sweep show [OVERRIDES]                        show rows as the model reads them, and facts about the data
danube-sweep ensemble DIR… -o FOLDER                 combine finished models
danube-sweep soup DIR… -o FOLDER [--rank R]          average trials into one adapter
danube-sweep decide DIR [--metric macro_f1]          choose how probabilities become labels, for a metric
danube-sweep refit DIR -o FOLDER [--seeds N]         train the best settings on training and validation rows
danube-sweep benchmark [OVERRIDES | RUN_DIR] tasks=… score a model on MMLU, ARC, … by lm-evaluation-harness
danube-sweep predict DIR INPUT -o OUTPUT             predict new rows; --like SAMPLE for a submission
danube-sweep label DIR INPUT -o OUTPUT               label more training rows, for data.extra
danube-sweep export RUN_DIR OUT_DIR [--merge]        write a folder that PEFT and transformers load
danube-sweep --help GROUP                            list the fields of a group, or find a field: --help pack
danube-sweep --cfg job --resolve [OVERRIDES]         show the composed config and stop

Examples
  danube-sweep init train.csv
      your own file: its kind, its columns, three rows as the model reads them, and the command to start from
  danube-sweep
      a tiny model on generated preference data, on any CPU, in about a minute
  danube-sweep model=danube3_500m precision=nf4 data=arena data.path=train.csv
      QLoRA on the train.csv of a preference competition
  danube-sweep experiment=preference_danube3_500m_t4 data.path=train.csv lora.rank=32
      a ready-made experiment with one value changed
  danube-sweep data=table data.path=intents.csv head=sequence head.pooling=mean
      classify single texts
  danube-sweep -m lora.rank=8,32 optimizer.lr=1e-4,3e-4 seed=0,1,2
      12 trials, trained together where that is faster, and a ranking with means over the seeds
  danube-sweep -m hydra/sweeper=optuna 'optimizer.lr=tag(log,interval(1e-5,1e-3))' sweep.trials=40 pruner=asha
      a search that pauses weak trials early (--help sweep, --help pruner)

Groups and their options (the default is marked *)
"""


GROUPS = (*OPTIONS, *SWEEP_OPTIONS)


def help_text(group: str | None = None) -> str:
    """The overview, or the fields of one group. Raises ConfigError for a group that does not exist."""
    if group is None:
        return USAGE + _groups() + "\nTop-level fields\n" + _fields(Config, "", only_plain=True) + _footer()
    if group == "experiment":
        described = "\n".join(_described(file) for file in _files("experiment"))
        return f"experiment: ready-made settings\n\n{described}\n"
    from danube_sweep.cli.commands import COMMANDS

    if group in COMMANDS and group not in GROUPS:
        raise ConfigError(f"--help {group}: that is a command; give danube-sweep {group} --help")
    if group not in GROUPS:
        return _found(group)
    sections = [_section(group, name, kind) for name, kind in _kinds(group).items()]
    offers = offered_options.offers(group)
    for name, offer in offers.usable.items():
        sections.append(_section(group, name, offer.extension.schema, f" ({offer.package})"))
    sections += [f"{why}\n" for why in offers.refused.values()]
    return f"{group}: {Settings.__dataclass_fields__[group].metadata['help']}\n\n" + "\n".join(sections)


def _found(word: str) -> str:
    """The fields whose name holds the word, or else those whose help does. Raises ConfigError for none."""
    every: dict[str, dict[str, list[str]]] = {}
    """The lines of each field, as options of its group may differ in it, and the options of each line."""
    kinds = [("", "", Config), *((group, one, kind) for group in GROUPS for one, kind in _kinds(group).items())]
    for group, option, kind in kinds:
        for field in dataclasses.fields(kind):
            if group or field.name not in OPTIONS:
                name = f"{group}.{field.name}" if group else field.name
                every.setdefault(name, {}).setdefault(_field_line(name, field), []).append(option)
    wanted = word.lower().replace("-", "_")
    ours = in_our_words(wanted)
    names = [name for name in every if wanted in name.lower()]
    names = names or [name for name, lines in every.items() if any(wanted in line.lower() for line in lines)]
    if not names and ours is None:
        raise ConfigError(
            f"--help {word}: no such group, and no field is called so; there are {', '.join([*GROUPS, 'experiment'])}"
        )
    lines = "".join(_of_options(every[name]) for name in names)
    hint = f"  another tool's name: {ours}\n" if ours else ""
    return f"{word}: no group, but these fields\n{lines}{hint}"


def _of_options(lines: Mapping[str, Sequence[str]]) -> str:
    """The lines of a field, each with the options that have it where there are several."""
    if len(lines) == 1:
        return next(iter(lines))
    return "".join(f"{line.rstrip()} ({', '.join(options)})\n" for line, options in lines.items())


def _kinds(group: str) -> Mapping[str, type]:
    return SWEEP_OPTIONS[group] if group in SWEEP_OPTIONS else OPTIONS[group]


def _section(group: str, name: str, kind: type, source: str = "") -> str:
    return f"{name}: {_first_line(kind)}{source}".rstrip() + f"\n{_fields(kind, f'{group}.')}"


def _groups() -> str:
    lines = []
    defaults = _defaults()
    for group in [*GROUPS, "experiment"]:
        names = [*(file.stem for file in _files(group)), *offered_options.offers(group).usable]
        options = [f"{name}*" if defaults.get(group) == name else name for name in names]
        lines.append(_wrapped(group, options))
    return "\n".join(lines) + "\n"


def _files(group: str) -> list[Path]:
    return sorted((paths.conf_dir() / group).glob("*.yaml"))


def _described(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    said = [line.removeprefix("# ") for line in lines if line.startswith("# ") and "@package" not in line]
    return "\n  ".join([f"{file.stem}:", *said])


def _wrapped(group: str, options: list[str], width: int = 96) -> str:
    lines, line = [], f"  {group:<11}"
    for option in options:
        if len(line) + len(option) > width:
            lines.append(line.rstrip())
            line = " " * 13
        line += f"{option}  "
    return "\n".join([*lines, line]).rstrip()


def _defaults() -> dict[str, str]:
    import yaml

    listed = yaml.safe_load((paths.conf_dir() / "config.yaml").read_text())["defaults"]
    return {key: value for entry in listed if isinstance(entry, dict) for key, value in entry.items()}


def _fields(kind: type, prefix: str, *, only_plain: bool = False) -> str:
    lines = []
    for field in dataclasses.fields(kind):
        if only_plain and field.name in OPTIONS:
            continue
        inner = field.default_factory if dataclasses.is_dataclass(field.default_factory) else None
        if isinstance(inner, type):
            lines.append(_fields(inner, f"{prefix}{field.name}."))
        else:
            lines.append(_field_line(f"{prefix}{field.name}", field))
    return "".join(lines)


def _field_line(name: str, field: "dataclasses.Field[Any]") -> str:
    return f"  {name:<28} {_default(field):<16} {field.metadata['help']}\n"


def _default(field: "dataclasses.Field[Any]") -> str:
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    match value:
        case None:
            return "null"
        case "???":
            return "(required)"
        case bool():
            return str(value).lower()
        case Enum():
            return str(value.value)
    return str(value)


def _first_line(kind: type) -> str:
    text = (kind.__doc__ or "").strip().splitlines()[0]
    return "" if text.startswith(f"{kind.__name__}(") else text


def _footer() -> str:
    return (
        "\nA run is written to outputs/<date>/<time>-<hash>, or to hydra.run.dir=FOLDER. A sweep is written to\n"
        "multirun/<date>/<time>, or to hydra.sweep.dir=FOLDER. hydra/sweeper is grid or optuna. hydra/launcher is "
        "local (a\nprocess per trial or pack), slurm or ray (workers on a cluster) or another one that is installed.\n"
        "--hydra-help lists Hydra's own flags.\n"
        "DANUBE_SWEEP_DATA is the folder of the experiments' data. DANUBE_SWEEP_CACHE is the folder of tokenised data "
        "and\nquantised backbones (default ~/.cache/danube_sweep).\n"
    )

"""An ensemble as a folder for other tools: an export of each run, their shares, and the formula that averages them."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from danube_sweep.config.schema import Target
from danube_sweep.errors import ConfigError
from danube_sweep.inference.export import blended
from danube_sweep.inference.export.check_export import Checked
from danube_sweep.inference.export.export_run import Options, export_run, refuse_target
from danube_sweep.inference.predict import Place
from danube_sweep.inference.predict_ensemble import Part, open_ensemble
from danube_sweep.inference.prediction_table import SHARES
from danube_sweep.storage.ensemble_folder import EnsembleFolder
from danube_sweep.storage.files import whole_folder


def export_ensemble(ensemble: EnsembleFolder, target: Path, place: Place, options: Options) -> list[Checked]:
    """Writes the folder `target` with a numbered folder for each run, and returns the results of their checks.

    Raises the errors of `open_ensemble` and `export_run`, and ConfigError for an upload. After an error there is no
    `target`.
    """
    if options.for_others:
        raise ConfigError(f"--push uploads one run, and {ensemble.path} is an ensemble; export its members one by one")
    parts = open_ensemble(ensemble)
    refuse_target(target)
    names = [f"{number:02d}" for number in range(1, len(parts) + 1)]
    with whole_folder(target, "give another OUT_DIR") as folder:
        checked = [
            export_run(part.run.path, folder / name, place, replace(options, name=f"{options.name}/{name}"))
            for name, part in zip(names, parts, strict=True)
        ]
        shutil.copyfile(blended.__file__, folder / "blend.py")
        described = json.dumps(_described(parts, names), indent=1, ensure_ascii=False)
        (folder / "ensemble.json").write_text(f"{described}\n", encoding="utf-8")
        (folder / "README.md").write_text(_readme(options.name, parts, names), encoding="utf-8")
    return checked


def _described(parts: Sequence[Part], names: Sequence[str]) -> dict[str, Any]:
    run = parts[0].run
    target = run.config.head.target
    answers = "one class" if target in SHARES else "a number" if target is Target.number else "any number of classes"
    members = [
        {"folder": name, "share": part.share, "temperature": part.temperature}
        for name, part in zip(names, parts, strict=True)
    ]
    return {"answers": answers, "classes": run.classes, "members": members}


def _readme(name: str, parts: Sequence[Part], names: Sequence[str]) -> str:
    rows = [
        f"| [{folder}]({folder}/README.md) | {part.share:.4f} | {part.temperature:.3f} |"
        for folder, part in zip(names, parts, strict=True)
    ]
    lines = [
        f"# {name}",
        "",
        f"{len(parts)} models that answer together. The README of each folder has the code that loads its model and",
        "ends in a function `logits`. `blend.py` averages their answers; it needs torch only.",
        "",
        "| folder | share | temperature |",
        "| --- | --- | --- |",
        *rows,
        "",
        "```python",
        "from blend import ExportedEnsemble",
        "",
        'answers = ExportedEnsemble(".")([logits_01, logits_02])  # one tensor for each folder, in this order',
        "```",
        "",
    ]
    return "\n".join(lines)

"""The out-of-fold predictions of an ensemble, which were joined and blended when it was made."""

from collections.abc import Callable
from pathlib import Path

from danube_sweep.config.blended_target import blended_target
from danube_sweep.config.schema import Config
from danube_sweep.config.stored import load_config
from danube_sweep.data.records import Record
from danube_sweep.errors import CheckpointError
from danube_sweep.results.oof.join_folds import in_order, join, read_predictions, score_joined
from danube_sweep.results.oof.scored import Scored
from danube_sweep.storage.ensemble_folder import EnsembleFolder, Weighted
from danube_sweep.storage.run_folder import RunFolder

FOLD_BY_FOLD = "a row is answered by the models that did not train on it; each stopped where its fold was best"


def joined_ensemble(folder: EnsembleFolder, load: Callable[[Config], list[Record]]) -> tuple[Scored, str]:
    """An ensemble of models with folds, or a refit that kept them, and a line on reading its score.

    `load` reads a config's records. Raises CheckpointError for members without folds, which have no out-of-fold
    predictions. Also for a member that is missing, unfinished or was changed, and for changed data.
    """
    members, refitted = folder.read(), folder.refitted
    if not folder.predictions.is_file() and not (refitted and any(len(member.runs) > 1 for member in members)):
        raise CheckpointError(_without_predictions(folder, refitted=refitted))
    configs = [_config_of(folder, member) for member in members]
    folds = max(len(member.runs) for member in members)
    if folds == 1:
        raise CheckpointError(
            f"{folder.path}: its members have no data.folds, so no row is out of fold; their answers to the "
            f"validation rows are in {folder.predictions}"
        )
    records, whole = load(configs[0]), configs[0].data.max_rows is None
    runs = [[RunFolder(run) for run in member.runs] for member in members]
    if refitted:  # its models all have the same share, and choose nothing
        joined = join(_same_folds(folder, runs), records, whole=whole)
    else:
        joined = in_order(read_predictions(folder.predictions), records, whole=whole)
    metrics = score_joined(joined, blended_target(configs, str(folder.path)), records)
    read = [folder.predictions, *(run.predictions for some in runs for run in some)]
    values = {"ensemble": str(folder.path)}
    scored = Scored(f"the ensemble {folder.path}", values, folds, len(members), joined, metrics, configs[0], read)
    return scored, f"{folder.path}: {FOLD_BY_FOLD if refitted else _how_to_read(folder)}"


def _same_folds(folder: EnsembleFolder, runs: list[list[RunFolder]]) -> list[list[RunFolder]]:
    counts = sorted({len(some) for some in runs})
    if len(counts) > 1:
        raise CheckpointError(
            f"{folder.path}: its models have {' and '.join(map(str, counts))} folds, so that their answers cannot be "
            "joined; refit one row with --folds"
        )
    return runs


def _without_predictions(folder: EnsembleFolder, *, refitted: bool) -> str:
    if refitted:
        return f"{folder.path} is a refit, whose rows were trained on; give the sweep that its settings come from"
    return f"{folder.predictions} is missing; make the ensemble again"


def _how_to_read(folder: EnsembleFolder) -> str:
    scores, chosen = folder.read_scores()
    said = "the weights were chosen on these rows, so its figures are too good"
    loss = scores.get(chosen or "", {}).get("loss")
    return said if loss is None else f"{said}; its loss on unseen rows is {loss:.4f}"


def _config_of(folder: EnsembleFolder, member: Weighted) -> Config:
    found = []
    for path, wanted in zip(member.runs, member.hashes, strict=True):
        run = _present(folder, member, path)
        config = load_config(run.config)
        if wanted != run.hash_of(config):
            raise CheckpointError(
                f"{path} is not what it was in {folder.file}: its config, data or model files were changed since; put "
                "back what they were, or make the ensemble again"
            )
        found.append(config)
    return found[0]


def _present(folder: EnsembleFolder, member: Weighted, path: Path) -> RunFolder:
    if not path.is_dir():
        raise CheckpointError(
            f"{folder.file}: the run {path} of the member {member.name} is gone; bring it back, or make the "
            "ensemble again without it"
        )
    return RunFolder(path)

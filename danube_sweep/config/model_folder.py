"""The files of a local model: which of them are its weights, and which others are refused."""

from pathlib import Path
from typing import Any

from danube_sweep.decoding import json_of
from danube_sweep.errors import ModelError

CONFIG, ADAPTER = "config.json", "adapter_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
COMPLETE = "give a complete copy"
ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")


def read_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file of a model folder, empty without a file. Raises ModelError for a damaged one."""
    if not file.is_file():
        return {}
    try:
        found = json_of(file)
        if not isinstance(found, dict):
            raise ValueError("no object")
        return found
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model.path={file.parent}: the file {file.name} is damaged; download or save the model again"
        ) from error


def architecture_keys(folder: Path) -> dict[str, Any]:
    """The architecture keys of config.json. Raises ModelError for a damaged one."""
    described = read_object(folder / CONFIG)
    return {key: value for key, value in described.items() if key != "transformers_version" and key[:1] != "_"}


def check_model_folder(folder: Path) -> None:
    """Raises ModelError for files that transformers would add to the weights, and for untrainable weights."""
    described = read_object(folder / CONFIG)
    if (folder / ADAPTER).is_file():
        _refuse_adapter(folder, whole=bool(described))
    _refuse_kernels(folder, described)
    quantised = described.get("quantization_config") or described.get("compression_config")
    if quantised:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else None
        raise ModelError(
            f"model.path={folder}: the weights are already quantised ({method or 'quantization_config'} in "
            f"{CONFIG}); give the original model, and precision=nf4 or precision=int8 to quantise it"
        )


def _refuse_kernels(folder: Path, described: dict[str, Any]) -> None:
    # transformers loads one that is named OWNER/NAME from the hub, and runs its code.
    for key in ("attn_implementation", "_attn_implementation"):
        named = described.get(key)
        if named is not None and named not in ATTENTION:
            raise ModelError(
                f"model.path={folder}: the key {key}={named} in {CONFIG} is no attention of transformers; leave it out"
            )


def _refuse_adapter(folder: Path, *, whole: bool) -> None:
    base = read_object(folder / ADAPTER).get("base_model_name_or_path")
    files = " and ".join(sorted(file.name for file in folder.glob("adapter_*")))
    if not whole:
        raise ModelError(
            f"model.path={folder}: the folder is an adapter ({files}) of {base or 'a model that it does not name'}, no "
            "model; train from that model by model.path, or merge the two: danube-sweep export RUN OUT --merge for a "
            "run of danube_sweep, merge_and_unload() of peft for another"
        )
    raise ModelError(
        f"model.path={folder}: the folder has {files} beside whole weights, and transformers would apply the "
        f"adapter to them; if it is merged already, move {files} away, else give model.path={base or 'its base model'}"
    )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers reads: one, or the shards of an index. Raises ModelError."""
    named = read_object(folder / CONFIG).get("transformers_weights")
    single, index = folder / WEIGHTS, folder / INDEX
    if named is not None:
        raise ModelError(
            f"model.path={folder}: the key transformers_weights={named} in {CONFIG} is not supported; "
            f"call the file {WEIGHTS} and leave the key out"
        )
    if index.is_file():
        shards = _shards(index)
        if single.is_file() and shards != [single]:
            raise ModelError(
                f"model.path={folder}: the folder has {WEIGHTS} and shards named by {INDEX}, and only one can be the "
                f"model; move {WEIGHTS} away, or {INDEX} and its shards"
            )
        return shards
    if not single.is_file():
        raise ModelError(_no_weights(folder))
    return [single]


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted({str(name) for name in dict(read_object(index)["weight_map"]).values()})
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"model.path={index.parent}: the file {INDEX} is damaged; {COMPLETE}") from error
    if elsewhere := [name for name in names if Path(name).name != name]:
        raise ModelError(
            f"model.path={index.parent}: {INDEX} names {elsewhere[0]}, which is no file of the folder; {COMPLETE}"
        )
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing or not names:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        lacking = f"{missing[0]}{more}" if missing else "no file at all"
        raise ModelError(f"model.path={index.parent}: the folder lacks {lacking}, named by {INDEX}; {COMPLETE}")
    return [index.parent / name for name in names]


def _no_weights(folder: Path) -> str:
    pickles = [file.name for kind in ("*.bin", "*.pt", "*.pth") for file in sorted(folder.glob(kind))]
    other = [file.name for kind in ("*.gguf", "*.safetensors") for file in sorted(folder.glob(kind))]
    if pickles:
        return (
            f"model.path={folder}: the weights are a pickle ({pickles[0]}), which can run code and is never loaded; "
            "save them as safetensors: save_pretrained of transformers does"
        )
    there = f" ({other[0]} is another format or name)" if other else ""
    return f"model.path={folder}: the folder has no {WEIGHTS}{there}; {COMPLETE}"


def pickles_left_aside(folder: Path) -> list[str]:
    """Pickled weights beside those that are loaded."""
    return [file.name for file in sorted(folder.glob("pytorch_model*.bin"))]

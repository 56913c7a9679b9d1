"""The identity of a folder's tokenizer: everything that changes a token's id or the chat markup, and nothing else."""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any, Final

from danube_sweep.config.fingerprints import file_digest
from danube_sweep.config.kept_digests import kept
from danube_sweep.config.model_folder import read_object
from danube_sweep.errors import ModelError

RULE: Final = "tokenizer-1"
WHOLE: Final = "tokenizer.json"
VOCABULARIES: Final = ("*.model", "vocab.*", "merges.txt", "tekken.json", "*.tiktoken")
"""Read only where there is no tokenizer.json."""
SPECIAL: Final = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
LISTS: Final = ("extra_special_tokens", "additional_special_tokens")
NO_MEANING: Final = {
    *("name_or_path", "tokenizer_file", "special_tokens_map_file", "transformers_version", "is_local"),
    *("local_files_only", "auto_map", "processor_class", "model_input_names", "backend", "use_fast"),
    *("model_max_length", "max_len", "max_length", "padding", "padding_side", "pad_to_multiple_of"),
    *("truncation", "truncation_side", "truncation_strategy", "stride", "pad_token_type_id"),
    *("clean_up_tokenization_spaces", "verbose", "device_map", "chat_template", "added_tokens_decoder"),
}
"""Keys of tokenizer_config.json that name files, serve decoding, or say how to pad and cut, which we do ourselves."""


def tokenizer_identity(folder: Path) -> str:
    """32 hex digits over a folder's tokenizer. How its JSON is written does not count. Raises ModelError."""
    return hashlib.sha256(_text(_meaning(folder)).encode()).hexdigest()[:32]


def _meaning(folder: Path) -> dict[str, Any]:
    config, whole = read_object(folder / "tokenizer_config.json"), folder / WHOLE
    found = kept(whole, RULE, partial(_read_whole, whole)) if whole.is_file() else {"digest": None, "added": {}}
    added = {**found["added"], **config.get("added_tokens_decoder", {})}
    for content, number in read_object(folder / "added_tokens.json").items():
        added.setdefault(str(number), {"content": content})
    contents = {one["content"] for one in added.values()}
    others = {
        key: value
        for key, value in config.items()
        if key not in NO_MEANING and key not in (*SPECIAL, *LISTS) and key[:1] != "_"
    }
    return {
        "tokenizer": found["digest"],
        "added": added,
        "special": _special_tokens(config, read_object(folder / "special_tokens_map.json"), contents),
        "settings": others,
        "templates": _templates(folder, config),
        "files": {} if whole.is_file() else _vocabularies(folder),
        "versions": {file.name: file_digest(file) for file in sorted(folder.glob("tokenizer.*.json"))},
    }


def _read_whole(file: Path) -> dict[str, Any]:
    """The digest of a tokenizer.json without its added tokens, and these."""
    described = read_object(file)
    try:
        added = {str(one["id"]): {key: one[key] for key in one if key != "id"} for one in described["added_tokens"]}
        model = {key: value for key, value in described["model"].items() if value not in (None, False)}
        merges = model.get("merges", [])
        model["merges"] = [one.split(" ", 1) if isinstance(one, str) else one for one in merges]
    except (AttributeError, KeyError, TypeError) as error:
        raise ModelError(
            f"model.path={file.parent}: the file {file.name} is not a tokenizer; give a complete tokenizer file"
        ) from error
    # The last call of a tokenizer leaves padding and truncation behind.
    rest = {key: described[key] for key in described if key not in ("added_tokens", "padding", "truncation", "version")}
    return {"digest": hashlib.sha256(_text({**rest, "model": model}).encode()).hexdigest(), "added": added}


def _special_tokens(config: dict[str, Any], legacy: dict[str, Any], contents: set[str]) -> dict[str, Any]:
    # transformers reads special_tokens_map.json only where tokenizer_config.json does not list the added tokens.
    stated = config if "added_tokens_decoder" in config else {**config, **legacy}
    found = {key: _token(stated[key], contents) for key in SPECIAL if stated.get(key) is not None}
    for key in LISTS:
        named = stated.get(key) or []
        if isinstance(named, dict):
            found |= {name: _token(value, contents) for name, value in named.items()}
        elif named:
            found["extra"] = sorted({*found.get("extra", []), *(_text(_token(one, contents)) for one in named)})
    return found


def _token(value: Any, contents: set[str]) -> Any:
    # The effect of an added token on the text around it is stored with the added tokens.
    content = value.get("content") if isinstance(value, dict) else value
    return content if content in contents else value


def _templates(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    stated = config.get("chat_template") or read_object(folder / "chat_template.json").get("chat_template") or {}
    if isinstance(stated, list):
        stated = {one.get("name"): one.get("template") for one in stated}
    found = {"default": stated} if isinstance(stated, str) else dict(stated)
    files = [folder / "chat_template.jinja", *sorted(folder.glob("*chat_templates/*.jinja"))]
    return found | {_name(file): file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file()}


def _name(file: Path) -> str:
    return "default" if file.name == "chat_template.jinja" else file.stem


def _vocabularies(folder: Path) -> dict[str, str]:
    found = {file for kind in VOCABULARIES for file in folder.glob(kind) if file.is_file()}
    return {file.name: file_digest(file) for file in sorted(found)}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))

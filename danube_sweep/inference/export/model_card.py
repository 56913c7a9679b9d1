"""README.md of an export, a model card: the model, the code that loads it, and its measured scores."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from danube_sweep.config.fingerprints import file_digest
from danube_sweep.config.identity import is_random
from danube_sweep.config.schema import FullFinetune, Labelled, NoAdapter, Storage, Target, path_fields
from danube_sweep.config.validate import FOUR_BIT
from danube_sweep.data.layout import Layout
from danube_sweep.decoding import yaml_of
from danube_sweep.inference.export.check_export import Checked
from danube_sweep.inference.export.how_to_read import (
    HiddenStates,
    LabelWordLogits,
    LoadedSequenceClassifier,
    LoadedTokenClassifier,
    NextToken,
    Reading,
)
from danube_sweep.inference.export.loading_code import Base, Weights
from danube_sweep.inference.predict import Trained
from danube_sweep.results.intervals import own_intervals
from danube_sweep.storage.files import read_json, write_text
from danube_sweep.storage.run_folder import RunFolder


@dataclass(frozen=True)
class Card:
    """The content of the card, except the check."""

    data: ModelCardData
    sections: list[str]


def card_of(run: Path, name: str, trained: Trained, reading: Reading, weights: Weights, code: str) -> Card:
    """The card of an export called `name`. Raises DataError if the run's data files are gone."""
    folder = RunFolder(run)
    result, config = read_json(folder.result), _public(yaml_of(folder.config))
    intervals = own_intervals(folder.predictions, result["validation"]) if result["validation"] else {}
    sections = [
        f"# {name}\n\n{_what(trained, reading, weights, config)}",
        f"## Loading it\n\n{_LOADING.format(code=code)}",
        f"## From a row to tokens\n\n{_tokens(trained, reading)}",
        f"## Results\n\n{_results(result, intervals)}",
        f"## Data\n\n{_data(trained, config, result)}",
        f"## Config\n\nPaths are cut to their last part.\n\n```yaml\n{_as_yaml(config)}```",
        f"## Versions\n\n{_versions(read_json(folder.environment)['versions'])}",
    ]
    return Card(_metadata(name, trained, reading, weights, config, result, intervals), sections)


def write_card(folder: Path, card: Card, checked: Checked) -> None:
    """Writes README.md, with the result of the check."""
    said = (
        f"Loaded again in a fresh process by the code below, without danube_sweep, it gave the run's own logits on "
        f"{checked.rows} validation rows: the largest difference was {checked.difference:.2g} "
        f"({checked.tolerance:.2g} is allowed)."
    )
    text = "\n\n".join([card.sections[0], said, *card.sections[1:]])
    write_text(folder / "README.md", str(ModelCard(f"---\n{card.data.to_yaml()}\n---\n\n{text}\n")))


_LOADING = """```python
folder = "path/to/this/folder"  # from the hub: huggingface_hub.snapshot_download("OWNER/NAME")

{code}```"""


def _public(node: Any) -> Any:
    # Where files lie is nobody's business but their owner's.
    match node:
        case dict():
            return {key: _public(value) for key, value in node.items()}
        case list():
            return [_public(value) for value in node]
        case str() if Path(node).is_absolute():
            return Path(node).name
    return node


def _as_yaml(config: dict[str, Any]) -> str:
    return str(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


# ------------------------------------------------------------------------------------------------- the model


def _what(trained: Trained, reading: Reading, weights: Weights, config: dict[str, Any]) -> str:
    kinds = {group: config[group].get("kind", "") for group in ("lora", "head", "data")}
    base = _base(trained, config)
    if isinstance(weights, Base):
        what = f"An adapter (`lora={kinds['lora']}`) over {base}" if weights.adapted else f"A head for {base}"
        stored = f", stored in {config['precision']['storage']} as in training"
    else:
        what = f"A whole model, trained (`lora={kinds['lora']}`) from {base}"
        stored = _merged(trained)
    classes = f" Its classes: {', '.join(f'`{name}`' for name in trained.classes)}." if trained.classes else ""
    said = f"{what}{stored}, with `head={kinds['head']}`, on `data={kinds['data']}`.{classes}"
    return f"{said}\n\n{_form(reading)}"


def _merged(trained: Trained) -> str:
    quantised = trained.config.precision.storage in (Storage.int8, *FOUR_BIT)
    dequantised = f", its {trained.config.precision.storage.value} weights dequantised" if quantised else ""
    adapted = not isinstance(trained.config.lora, NoAdapter | FullFinetune)
    return dequantised + (", the adapter merged in" if adapted else "")


def _base(trained: Trained, config: dict[str, Any]) -> str:
    model = trained.config.model
    if is_random(model):
        return f"random weights (`model.init_seed={model.init_seed}`)"
    revision = f" at `{model.revision}`" if model.revision else ""
    return f"`{config['model']['path']}`{revision} (fingerprint {trained.backbone.fingerprint})"


def _form(reading: Reading) -> str:
    match reading:
        case LoadedSequenceClassifier(biased=True):
            return (
                "It loads as a sequence classifier. The last layer has a bias, for which transformers' own has no "
                "place: one line puts a layer there that has. With `--merge` it loads without such a line."
            )
        case LoadedSequenceClassifier():
            return "It loads as a sequence classifier."
        case LoadedTokenClassifier():
            return (
                "It loads as a token classifier, whose last layer has a bias as the run's has (transformers' sequence "
                "classifiers have none): the logits of a row are those of its last token."
            )
        case LabelWordLogits():
            return "The logits of a row are the causal model's own at the last token, of one word per class."
        case NextToken():
            return "It is a causal language model."
        case HiddenStates():
            return (
                "It is in the general form: transformers has no model with this head, so `head.py` (plain torch, to "
                "read or to copy), `head.json` and `head.safetensors` turn the hidden states into the logits."
            )
    raise TypeError(f"no description of {reading}")


def _tokens(trained: Trained, reading: Reading) -> str:
    layout, data = trained.layout, trained.config.data
    if data.labelled is Labelled.words:
        begin = f"`{layout.before[0]!r}` and " if layout.before[0] else ""
        return (
            f"A row is {begin}its words, each after a space unless the data say that there is none, tokenised as one "
            f"text without special tokens; longer ones are cut into pieces of {data.max_length} tokens that repeat the "
            f"last {data.overlap_tokens} of the piece before. `head.py` gives logits for every token; a word's are "
            "those of its last token."
        )
    texts = [piece for number, before in enumerate(layout.before, 1) for piece in (before, f"text {number}")]
    pieces = [piece if piece.startswith("text ") else f"`{piece!r}`" for piece in texts if piece]
    pieces += [f"`{layout.after!r}`"] if layout.after else []
    pieces += [f"the end token ({trained.tokenizer.eos_token_id})"] if layout.ends_with_eos else []
    said = [
        f"A row is, one after the other: {', '.join(pieces)}. {_pieces_as_tokens(layout)} A row has at most "
        f"{data.max_length} tokens: the texts share the room and are cut on the {data.truncation.value}. Rows of a "
        "batch are padded on the right."
    ]
    if layout.passes:
        said.append(
            "Text 1 is the prompt and text 2 an answer: each row is read twice, with either answer. A batch is all "
            "first answers' rows and then all second ones'."
        )
    if isinstance(reading, HiddenStates) and reading.reads_texts:
        said.append(
            "`spans` [rows, texts, 2] says where each text stands, [start, end) in tokens; `sizes` [rows, texts] how "
            "many tokens it had before any was cut off."
        )
    return "\n\n".join(said)


def _pieces_as_tokens(layout: Layout) -> str:
    if layout.in_context:
        return (
            "The markup is the tokenizer's own chat template (a date in it is 26 July 2024). A row that is not cut has "
            "the tokens of `tokenizer.apply_chat_template` with `add_generation_prompt=True` and "
            "`sanitize_control_tokens=True`."
        )
    return (
        "Each piece is tokenised by itself, without special tokens (`tokenizer(piece, add_special_tokens=False)`), and "
        "an empty one is no token. Control tokens that stand in a text are read as text."
    )


# ------------------------------------------------------------------------------------------ results and data


def _results(result: dict[str, Any], intervals: dict[str, tuple[float, float]]) -> str:
    test = result.get("test") or {}
    if not result["validation"]:
        tested = ", ".join(f"{name} {value:.4f}" for name, value in test.items())
        return f"{_UNVALIDATED}{f' On the test part: {tested}.' if tested else ''}"
    lines = ["| metric | validation | 95 % | test |", "| --- | --- | --- | --- |"]
    for name, value in result["validation"].items():
        interval = "{:.4f} .. {:.4f}".format(*intervals[name]) if name in intervals else ""
        tested = f"{test[name]:.4f}" if name in test else ""
        lines.append(f"| {name} | {value:.4f} | {interval} | {tested} |")
    compared = [f"{name} {value:.4f}" for name, value in (result.get("references") or {}).items()]
    lines += ["", f"To compare with: {', '.join(compared)}."] if compared else []
    lines += ["", _HONEST.format(step=result["best_step"]), *([] if test else ["No test part has been scored."])]
    return "\n".join(lines)


_UNVALIDATED = "It was trained on every row but those of the test part, so no rows validate it and it has no metric."

_HONEST = """The intervals are a bootstrap over the validation rows, in groups (prompts, texts, documents); a training
with another seed can differ by more. These rows also chose the checkpoint (step
{step}), and perhaps the run among others: expect a little less on new data."""


def _data(trained: Trained, config: dict[str, Any], result: dict[str, Any]) -> str:
    rows = ", ".join(f"{name} {number:,}" for name, number in result["rows"].items())
    files = [f"- `{Path(path).name}`: SHA-256 {digest}" for path, digest in _files(trained)]
    kind = config["data"].get("kind", "")
    return "\n".join([f"`data={kind}`, rows: {rows}. Trial {result['trial']} (a hash over config and data).", *files])


def _files(trained: Trained) -> Iterator[tuple[str, str]]:
    data = trained.config.data
    for name, kind in path_fields(data).items():
        value = getattr(data, name)
        if kind == "files" and value is not None:
            for path in value if isinstance(value, list) else [value]:
                yield path, file_digest(path, f"data.{name}")


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items()) + "."


# -------------------------------------------------------------------------------------------------- metadata


def _metadata(
    name: str,
    trained: Trained,
    reading: Reading,
    weights: Weights,
    config: dict[str, Any],
    result: dict[str, Any],
    intervals: dict[str, tuple[float, float]],
) -> ModelCardData:
    generates = isinstance(reading, NextToken)
    adapted = isinstance(weights, Base) and weights.adapted
    kinds = [str(config[group].get("kind", "")) for group in ("lora", "head")]
    words = trained.config.head.target is Target.words
    task = "text-generation" if generates else "token-classification" if words else "text-classification"
    kind = str(config["data"].get("kind", ""))
    known = {
        ("validation", metric): {"interval_95": [round(low, 6), round(high, 6)]}
        for metric, (low, high) in intervals.items()
    }
    return ModelCardData(
        **_relation(trained, adapted),
        library_name="peft" if adapted else "transformers",
        pipeline_tag=task,
        tags=["danube_sweep", *(f"{group}={chosen}" for group, chosen in zip(("lora", "head"), kinds, strict=True))],
        model_name=name,
        eval_results=[
            EvalResult(
                task_type=task,
                dataset_type=kind,
                dataset_name=kind,
                dataset_split=part,
                metric_type=metric,
                metric_name=metric,
                metric_value=round(value, 6),
                metric_args=known.get((part, metric)),
            )
            for part in ("validation", "test")
            for metric, value in (result.get(part) or {}).items()
        ],
    )


def _relation(trained: Trained, adapted: bool) -> dict[str, Any]:
    # The hub knows no base that is a local folder or random.
    model = trained.config.model
    if is_random(model) or model.path is None or Path(model.path).expanduser().is_dir():
        return {}
    return {"base_model": model.path, "base_model_relation": "adapter" if adapted else "finetune"}

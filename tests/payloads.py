"""Hostile models, adapters, folders, sweep files, ids and data: what each holds, and whether it ran or escaped.

    python tests/payloads.py        tries them all in one process and prints a line

A payload runs if its code makes the file `ran`. It escapes if a file outside its folder was opened, made or changed, or
if a variable that it asked for was printed or written.
"""

import contextlib
import hashlib
import io
import json
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from danube_sweep.cli import main

KEPT = Path(__file__).parent / "kept"
SECRET = "swordfish-4711-swordfish"
SMALL = ("device=cpu", "device.threads=1", "tracking=none", "data.rows=24", "data.max_length=64", "trainer.max_steps=1")

_opened: list[str] = []
_watched: list[str] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("open", "os.listdir", "os.scandir") and _watched and isinstance(arguments[0], str | bytes):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if path.startswith(_watched[0]):
            _opened.append(path)


@dataclass
class Place:
    """Where a payload is tried: `here` is the working directory, `outside` what it must not reach."""

    root: Path
    commands: list[list[str]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def here(self) -> Path:
        return self.root / "here"

    @property
    def outside(self) -> Path:
        return self.root / "outside"

    @property
    def code(self) -> str:
        return f"open({str(self.root / 'ran')!r}, 'w').close()"

    @property
    def shell(self) -> str:
        return f"touch {self.root / 'ran'}"

    def pickle(self) -> bytes:
        return pickle.dumps(_Runs(self.code))

    def write(self, name: str, content: Any) -> Path:
        file = self.here / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            file.write_text(content if isinstance(content, str) else json.dumps(content))
        return file

    def copy(self, kept: str, name: str) -> Path:
        return Path(shutil.copytree(KEPT / kept, self.here / name))

    def run(self, *words: str) -> None:
        self.commands.append(list(words))


class _Runs:
    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> Any:
        return exec, (self.code,)


@dataclass(frozen=True)
class Outcome:
    """What a payload did, and what the commands said to it."""

    ran: bool
    escapes: list[str]
    codes: list[int]
    said: str


PAYLOADS: dict[str, Callable[[Place], None]] = {}


def payload(build: Callable[[Place], None]) -> Callable[[Place], None]:
    PAYLOADS[build.__name__] = build
    return build


def attempt(name: str, root: Path) -> Outcome:
    """Builds a payload in an empty folder and gives its commands, in this process."""
    place = Place(root)
    place.here.mkdir(parents=True)
    place.outside.mkdir()
    for file, text in {"rows.csv": "text,label\na,x\nb,y\nc,x\nd,y\n", "kept.txt": "do not touch"}.items():
        (place.outside / file).write_text(text)
    shutil.copytree(KEPT / "files" / "whole", place.outside / "model")
    PAYLOADS[name](place)
    before, said = _contents(place.outside), io.StringIO()
    with _watching(place), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        codes = [_code(command) for command in place.commands]
        opened = sorted(set(_opened))
    escapes = [f"opened {path}" for path in opened]
    escapes += [f"changed {path}" for path, _ in _contents(place.outside) ^ before]
    escapes += ["printed a secret"] * (SECRET in said.getvalue())
    written = [file for file in place.here.rglob("*") if file.is_file() and not file.is_symlink()]
    escapes += [f"wrote a secret into {file}" for file in written if SECRET.encode() in file.read_bytes()]
    return Outcome((root / "ran").exists(), escapes, codes, said.getvalue())


def _code(command: list[str]) -> int:
    try:
        return main.main(command)
    except SystemExit as error:
        return int(error.code or 0)


@contextlib.contextmanager
def _watching(place: Place) -> Iterator[None]:
    if not getattr(sys, "_payloads_are_watched", False):
        sys.addaudithook(_hook)
        sys._payloads_are_watched = True  # type: ignore[attr-defined]
    before, cwd = dict(os.environ), Path.cwd()
    os.environ |= {"PRIVATE_VALUE": SECRET, **place.environment}
    os.chdir(place.here)
    _opened.clear()
    _watched[:] = [os.path.realpath(place.outside)]
    try:
        yield
    finally:
        _watched.clear()
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(before)


def _contents(folder: Path) -> set[tuple[str, bytes]]:
    return {(str(path), b"" if path.is_dir() else path.read_bytes()) for path in folder.rglob("*")}


# ---------------------------------------------------------------------------------------------------------- models


def model(place: Place, *, training: bool = False, **described: Any) -> Path:
    """A model folder with more in its config.json, and a command that trains or looks at it."""
    folder = Path(shutil.copytree(KEPT / "files" / "whole", place.here / "model"))
    stated = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**stated, **described}))
    words = [f"model.path={folder}", *SMALL, "head=sequence"]
    place.run(*([] if training else ["show"]), "model=auto", *words, *(["hydra.run.dir=run"] if training else []))
    return folder


def evil_module(place: Place, folder: Path) -> None:
    (folder / "evil.py").write_text(place.code + "\nclass Evil:\n    pass\n")


@payload
def weights_that_are_a_pickle(place: Place) -> None:
    folder = model(place, training=True)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(place.pickle())


@payload
def a_pickle_called_safetensors(place: Place) -> None:
    (model(place, training=True) / "model.safetensors").write_bytes(place.pickle())


@payload
def a_pickle_beside_the_weights(place: Place) -> None:
    folder = model(place, training=True)
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(place.pickle())


@payload
def a_config_with_code_of_its_own(place: Place) -> None:
    evil_module(place, model(place, model_type="evil", auto_map={"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}))


@payload
def code_for_a_known_architecture(place: Place) -> None:
    names = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForCausalLM"), "evil.Evil")
    evil_module(place, model(place, training=True, auto_map=names))


@payload
def shards_above_the_folder(place: Place) -> None:
    folder = model(place, training=True)
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"a": "../../outside/model/model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@payload
def shards_at_an_absolute_path(place: Place) -> None:
    folder = model(place, training=True)
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"a": str(place.outside / "model" / "model.safetensors")}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@payload
def a_key_that_names_other_weights(place: Place) -> None:
    model(place, training=True, transformers_weights="../../outside/model/model.safetensors")


@payload
def an_adapter_beside_the_weights(place: Place) -> None:
    folder = model(place, training=True)
    described = {"peft_type": "LORA", "base_model_name_or_path": str(place.outside / "model")}
    (folder / "adapter_config.json").write_text(json.dumps(described))
    (folder / "adapter_model.bin").write_bytes(place.pickle())


@payload
def attention_from_the_hub(place: Place) -> None:
    model(place, training=True, attn_implementation="evil/kernel", _attn_implementation="evil/kernel")


@payload
def a_quantisation_of_its_own(place: Place) -> None:
    model(place, training=True, quantization_config={"quant_method": "evil", "modules": "os.system"})


# ------------------------------------------------------------------------------------------------------- tokenizers


def tokenizer(place: Place, **described: Any) -> Path:
    folder = model(place)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **described}))
    return folder


@payload
def a_tokenizer_with_code_of_its_own(place: Place) -> None:
    folder = tokenizer(place, tokenizer_class="Evil", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]})
    evil_module(place, folder)


@payload
def a_chat_template_that_climbs_out(place: Place) -> None:
    code = "{{ cycler.__init__.__globals__.os.system('" + place.shell + "') }}"
    tokenizer(place, chat_template=code + "{% for m in messages %}{{ m['content'] }}{% endfor %}")
    place.commands[-1] += ["model.variant=chat"]


@payload
def a_chat_template_that_reads_a_file(place: Place) -> None:
    tokenizer(
        place, chat_template="{% include '" + str(place.outside / "kept.txt") + "' %}{{ messages[0]['content'] }}"
    )
    place.commands[-1] += ["model.variant=chat"]


@payload
def a_vocabulary_elsewhere(place: Place) -> None:
    there = str(place.outside / "model" / "tokenizer.json")
    tokenizer(place, vocab_file=there, tokenizer_file=there, name_or_path=str(place.outside / "model"))


# ------------------------------------------------------------------------------------------- adapters, checkpoints


def reseal(folder: Path) -> None:
    """Makes the hashes of a checkpoint those of its files: a stranger can do that too."""
    file = folder / "checkpoint.json"
    sealed = json.loads(file.read_text())
    names = [one.name for one in folder.iterdir() if one.is_file() and one != file]
    sealed["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    file.write_text(json.dumps(sealed))


def run_folder(place: Place, name: str = "run") -> Path:
    """A finished run and a command that predicts with it."""
    folder = place.copy(name, "run")
    shutil.copy(KEPT / "rows.csv", place.here / "rows.csv")
    place.run("predict", "run", "rows.csv", "-o", "out.csv") if name == "run" else place.run("resume", "run")
    return folder


def with_config(folder: Path, **fields: Any) -> None:
    """The run's config.yaml with other values, `group.field`."""
    file = folder / "config.yaml"
    config = yaml.safe_load(file.read_text())
    for key, value in fields.items():
        group, _, name = key.partition("__")
        if name:
            config[group][name] = value
        else:
            config[group] = value
    file.write_text(yaml.safe_dump(config, sort_keys=False))


@payload
def an_adapter_that_is_a_pickle(place: Place) -> None:
    adapter = run_folder(place) / "adapter"
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(place.pickle())
    reseal(adapter)


@payload
def a_head_that_is_a_pickle(place: Place) -> None:
    adapter = run_folder(place) / "adapter"
    (adapter / "head.safetensors").write_bytes(place.pickle())
    reseal(adapter)


@payload
def an_adapter_that_names_a_library(place: Place) -> None:
    adapter = run_folder(place) / "adapter"
    file = adapter / "adapter_config.json"
    stated = {"auto_mapping": {"base_model_class": "system", "parent_library": "os"}, "peft_type": "evil.Evil"}
    file.write_text(json.dumps({**json.loads(file.read_text()), **stated}))
    reseal(adapter)


@payload
def a_manifest_of_files_elsewhere(place: Place) -> None:
    file = run_folder(place) / "adapter" / "checkpoint.json"
    sealed = json.loads(file.read_text())
    sealed["files"]["../../../outside/kept.txt"] = hashlib.sha256(b"do not touch").hexdigest()
    file.write_text(json.dumps(sealed))


@payload
def an_optimizer_state_that_is_a_pickle(place: Place) -> None:
    for step in (run_folder(place, "stopped") / "checkpoints").iterdir():
        (step / "training.safetensors").write_bytes(place.pickle())
        reseal(step)


@payload
def an_adapter_folder_elsewhere(place: Place) -> None:
    folder = run_folder(place)
    shutil.move(folder / "adapter", place.outside / "adapter")
    (folder / "adapter").symlink_to(place.outside / "adapter")


# ------------------------------------------------------------------------------------------------- received configs


@payload
def a_config_with_a_tag_of_python(place: Place) -> None:
    file = run_folder(place) / "config.yaml"
    file.write_text(file.read_text() + f"\nextra: !!python/object/apply:os.system ['{place.shell}']\n")
    place.run("resume", "run")


@payload
def a_config_that_instantiates(place: Place) -> None:
    target = {"_target_": "os.system", "command": place.shell, "_args_": [place.shell]}
    with_config(run_folder(place), lora=target, name=target)


@payload
def a_config_with_callbacks_of_hydra(place: Place) -> None:
    with_config(run_folder(place), hydra={"callbacks": {"x": {"_target_": "os.system", "_args_": [place.shell]}}})


@payload
def a_config_that_asks_for_a_variable(place: Place) -> None:
    with_config(run_folder(place), name="${oc.env:PRIVATE_VALUE}")
    place.run("resume", "run")


@payload
def a_config_that_hides_what_it_asks_for(place: Place) -> None:
    with_config(run_folder(place), name="${oc.env:${oc.decode:PRIVATE}_VALUE}")
    place.run("predict", "run", "rows.csv", "-o", "out.csv", "--trust")


@payload
def an_ensemble_of_runs_elsewhere(place: Place) -> None:
    shutil.copytree(KEPT / "run", place.outside / "run")
    member = {"name": "a", "weight": 1.0, "temperature": 1.0, "runs": ["../../outside/run"]}
    place.write("ensemble/ensemble.json", {"format": 1, "members": [member], "scores": {}})
    place.write("rows.csv", (KEPT / "rows.csv").read_text())
    place.run("predict", "ensemble", "rows.csv", "-o", "out.csv")


@payload
def data_elsewhere(place: Place) -> None:
    folder = run_folder(place, "stopped")
    table = {"kind": "table", "path": str(place.outside / "rows.csv"), "text_column": "text", "label_column": "label"}
    stated = yaml.safe_load((folder / "config.yaml").read_text())["data"]
    kept = {key: stated[key] for key in ("max_length", "truncation", "validation_fraction", "test_fraction")}
    with_config(folder, data={**table, **kept})


@payload
def a_backbone_elsewhere(place: Place) -> None:
    with_config(run_folder(place), model__path=str(place.outside / "model"), model__init="pretrained")
    place.run("export", "run", "exported")


@payload
def a_backbone_above_the_folder_of_a_forged_host(place: Place) -> None:
    import platform

    folder = run_folder(place)
    with_config(folder, model__path="../outside/model", model__init="pretrained")
    stated = json.loads((folder / "environment.json").read_text())
    stated["machine"]["host"] = platform.node()
    (folder / "environment.json").write_text(json.dumps(stated))


# ---------------------------------------------------------------------------------------------------- sweep folders


def sweep_folder(place: Place, *commands: list[str], **described: Any) -> Path:
    folder = place.copy("sweep", "sweep")
    file = folder / "sweep.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **described}))
    for command in commands or (["resume", "sweep"],):
        place.run(*command)
    return folder


SPACE = {"lora.rank": {"kind": "choice", "values": ["2", "4"]}}


@payload
def a_search_with_callbacks_of_hydra(place: Place) -> None:
    fixed = [*SMALL, f"+hydra.callbacks.x={{_target_:os.system,_args_:['{place.shell}']}}"]
    sweep_folder(place, search={"fixed": fixed, "space": SPACE})


@payload
def a_search_over_a_setting_of_hydra(place: Place) -> None:
    space = {"hydra/job_logging": {"kind": "choice", "values": ["none", "default"]}}
    sweep_folder(place, search={"fixed": [*SMALL], "space": space})


@payload
def a_search_over_data_elsewhere(place: Place) -> None:
    fixed = [*SMALL[:-3], "data=table", f"data.path='{place.outside / 'rows.csv'}'", "head=sequence"]
    sweep_folder(place, search={"fixed": fixed, "space": SPACE})


@payload
def a_search_over_variables(place: Place) -> None:
    space = {"name": {"kind": "choice", "values": ["'${oc.env:PRIVATE_VALUE}'", "b"]}}
    sweep_folder(place, search={"fixed": [*SMALL], "space": space})


@payload
def a_search_with_configs_elsewhere(place: Place) -> None:
    (place.outside / "conf").mkdir()
    (place.outside / "conf" / "config.yaml").write_text("defaults: [_self_]\nseed: 3\n")
    sweep_folder(place, search={"fixed": [*SMALL], "space": SPACE}, config_dir=str(place.outside / "conf"))


@payload
def a_search_whose_history_holds_a_pickle(place: Place) -> None:
    folder = sweep_folder(place, search={"fixed": [*SMALL], "space": SPACE})
    file = folder / "sweep.json"
    described = json.loads(file.read_text())
    described["settings"]["sweep"]["sampler"] = "cmaes"
    file.write_text(json.dumps(described))
    log = [{"op_code": 3, "worker_id": "x", "study_id": 0, "system_attr": {"cma:optimizer": place.pickle().hex()}}]
    (folder / "history.log").write_text("".join(json.dumps(line) + "\n" for line in log))


@payload
def a_trial_that_cannot_be_with_settings_of_hydra(place: Place) -> None:
    folder = sweep_folder(place, ["resume", "sweep", "--retry", "all"])
    trial = folder / "005_x_invalid"
    trial.mkdir()
    words = ["hydra.callbacks.x._target_=os.system", f"hydra.run.dir={place.outside}"]
    stated = {"format": 1, "number": 5, "hash": None, "overrides": words, "hash_version": 1}
    (trial / "trial.json").write_text(json.dumps(stated))
    (trial / "result.json").write_text(json.dumps({"state": "invalid", "error": "x"}))


@payload
def a_trial_folder_elsewhere(place: Place) -> None:
    folder = sweep_folder(place)
    moved = next(folder.glob("003*"))
    shutil.move(moved, place.outside / moved.name)
    moved.symlink_to(place.outside / moved.name)


@payload
def texts_of_a_sweep_that_are_formulas_and_commands(place: Place) -> None:
    folder = sweep_folder(place, ["rank", "sweep"], ["rank", "sweep", "--full"], ["watch", "sweep", "--once"])
    for trial in folder.glob("00[12]*"):
        described = json.loads((trial / "trial.json").read_text())
        described["overrides"].append("name='=cmd|\"/C calc\"!A0\x1b]0;owned\x07'")
        (trial / "trial.json").write_text(json.dumps(described))


# ------------------------------------------------------------------------------------------------------ sweep files

COMMAND = ["${env}", "danube-sweep", *SMALL, "${args_no_hyphens}"]


def sweep_file(place: Place, text: str = "", **described: Any) -> None:
    plain = {"method": "grid", "command": COMMAND, "parameters": {"seed": {"values": [0, 1]}}, **described}
    place.write("sweep.yaml", text or yaml.safe_dump(plain))
    place.run("sweep", "sweep.yaml", "--dry-run")


@payload
def a_sweep_file_with_a_tag_of_python(place: Place) -> None:
    sweep_file(place, f"method: !!python/object/apply:os.system ['{place.shell}']\n")


@payload
def a_sweep_file_that_starts_another_program(place: Place) -> None:
    sweep_file(place, command=["bash", "-c", place.shell, "${args_no_hyphens}"])


@payload
def a_sweep_file_whose_program_is_a_script(place: Place) -> None:
    script = place.write("evil/danube-sweep", f"#!/bin/sh\n{place.shell}\n")
    script.chmod(0o755)
    sweep_file(place, program=str(script), command=["${program}", *SMALL, "${args_no_hyphens}"])


@payload
def a_sweep_file_with_callbacks_of_hydra(place: Place) -> None:
    words = [f"+hydra.callbacks.x={{_target_:os.system,_args_:['{place.shell}']}}", "hydra/job_logging=none"]
    sweep_file(place, command=["danube-sweep", *SMALL, *words, "${args_no_hyphens}"])


@payload
def a_sweep_file_that_varies_a_setting_of_hydra(place: Place) -> None:
    sweep_file(place, parameters={"hydra/job_logging": {"values": ["none", "default"]}})


@payload
def a_sweep_file_that_instantiates(place: Place) -> None:
    sweep_file(place, parameters={"lora._target_": {"value": "os.system"}, "seed": {"values": [0, 1]}})


@payload
def a_sweep_file_that_asks_for_a_variable(place: Place) -> None:
    sweep_file(place, parameters={"name": {"value": "${oc.env:PRIVATE_VALUE}"}, "seed": {"values": [0, 1]}})


@payload
def a_sweep_file_that_asks_by_the_agents_macro(place: Place) -> None:
    sweep_file(place, command=["danube-sweep", *SMALL, "name=${envvar:PRIVATE_VALUE}", "${args_no_hyphens}"])


@payload
def a_sweep_file_whose_group_asks_for_a_variable(place: Place) -> None:
    sweep_file(place, project="${oc.env:PRIVATE_VALUE}", entity="${oc.env:PRIVATE_VALUE}")


@payload
def a_sweep_file_that_writes_elsewhere(place: Place) -> None:
    words = [f"hydra.run.dir={place.outside / 'run'}", f"hydra.sweep.dir={place.outside / 'sweep'}"]
    sweep_file(place, command=["danube-sweep", *SMALL, *words, "${args_no_hyphens}"])


# ------------------------------------------------------------------------------------------------------- W&B's ids


def agent(place: Place, sweep: str, parameters: dict[str, Any], *words: str) -> None:
    file = place.write("parameters.yaml", yaml.safe_dump(parameters))
    place.environment = {"WANDB_SWEEP_ID": sweep, "WANDB_RUN_ID": "abc", "WANDB_SWEEP_PARAM_PATH": str(file)}
    place.run(*SMALL[:4], *words)


@payload
def a_sweep_id_that_climbs(place: Place) -> None:
    agent(place, "../../outside/sweep", {})


@payload
def a_sweep_id_that_is_absolute(place: Place) -> None:
    agent(place, str(place.outside / "sweep"), {})


@payload
def a_point_that_writes_elsewhere(place: Place) -> None:
    words = f"hydra.run.dir={place.outside / 'run'}"
    agent(place, "abcd1234", {"hydra.run.dir": {"value": str(place.outside / "run")}}, words)


@payload
def a_point_that_asks_for_a_variable(place: Place) -> None:
    agent(place, "abcd1234", {"name": {"value": "${oc.env:PRIVATE_VALUE}"}}, "name='${oc.env:PRIVATE_VALUE}'")


# ------------------------------------------------------------------------------------------------------------ data


def table(place: Place, name: str, content: Any) -> None:
    file = place.write(name, content)
    words = ["data=table", f"data.path={file}", "head=sequence", "data.max_length=64", *SMALL[:3]]
    place.run("show", *words, "trainer.max_steps=1")


@payload
def data_that_are_a_pickle(place: Place) -> None:
    for name in ("rows.pkl", "rows.parquet", "rows.csv", "rows.json"):
        table(place, name, place.pickle())


@payload
def data_with_a_type_of_their_own(place: Place) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    place.here.mkdir(exist_ok=True)
    stored = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": place.pickle()}
    fields = [pa.field("text", pa.string(), metadata=stored), pa.field("label", pa.string())]
    rows = pa.table({"text": ["a", "b", "c", "d"], "label": ["x", "y", "x", "y"]}, schema=pa.schema(fields))
    parquet.write_table(rows, place.here / "typed.parquet")
    table(place, "typed.parquet", (place.here / "typed.parquet").read_bytes())


@payload
def labels_that_are_code(place: Place) -> None:
    code = f"[__import__('os').system('{place.shell}')]"
    table(place, "rows.csv", f"text,label\na,\"{code}\"\nb,\"['x']\"\nc,\"['y']\"\nd,\"['x', 'y']\"\n")
    place.commands[-1] += ["head=multilabel"]


@payload
def a_data_set_with_a_script(place: Place) -> None:
    place.write("set/set.py", place.code + "\n")
    place.write("set/rows.csv", "text,label\na,x\nb,y\nc,x\nd,y\n")
    place.run("show", "data=hub", f"data.path={place.here / 'set'}", "head=sequence", "data.max_length=64", *SMALL[:3])


def main_command() -> int:
    """Tries every payload and prints a line; 1 if any ran or escaped."""
    from danube_sweep.terminal.quiet_libraries import quiet_libraries

    quiet_libraries()
    os.environ["HF_HUB_OFFLINE"] = "1"
    ran, escaped = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DANUBE_SWEEP_CACHE"] = f"{folder}/cache"
        for number, name in enumerate(PAYLOADS):
            outcome = attempt(name, Path(folder) / str(number))
            ran, escaped = ran + outcome.ran, escaped + bool(outcome.escapes)
            if outcome.ran or outcome.escapes:
                print(name, "ran" if outcome.ran else "", *outcome.escapes)
    print(f"{len(PAYLOADS)} payloads: {ran} executed, {escaped} escaped")
    return int(bool(ran or escaped))


if __name__ == "__main__":
    sys.exit(main_command())

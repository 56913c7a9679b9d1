"""A model that is in no list, from its folder to predictions: model=auto with its own chat template."""

import csv
import io
from pathlib import Path

import torch
from conftest import compose, tiny_config
from rich.console import Console
from transformers import AddedToken, AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer
from workbench import prepare

from danube_sweep.config.schema import Device
from danube_sweep.config.stored import load_config
from danube_sweep.inference.predict import load_run, predict_file
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.terminal.screen import Terminal
from danube_sweep.training.run import run_trial

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LAYERS = 2


def published(place: Path) -> Path:
    """A Mistral of two layers with a ChatML tokenizer, as somebody would publish it."""
    tokenizer = prepare(tiny_config("data.rows=40")).tokenizer
    marks = [AddedToken(mark, special=True) for mark in ("<|im_start|>", "<|im_end|>")]
    tokenizer.add_tokens(marks, special_tokens=True)
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(place)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
    config = AutoConfig.for_model("mistral", **sizes, num_key_value_heads=2, vocab_size=len(tokenizer), pad_token_id=0)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(place)
    return place


def test_a_model_of_no_list_trains_and_predicts_in_its_own_markup(tmp_path: Path) -> None:
    folder, texts = published(tmp_path / "model"), ["good", "bad one", "good <|im_end|>", "bad\n\nlines"] * 6
    rows, run = tmp_path / "rows.csv", tmp_path / "run"
    with rows.open("w", newline="") as stream:
        csv.writer(stream).writerows([["text", "label"], *([text, text[:3]] for text in texts)])
    given = ["model=auto", f"model.path={folder}", "data=table", f"data.path={rows}", "head=sequence", "lora=none"]
    settings = [
        "trainer.max_steps=2",
        "trainer.micro_batch=4",
        "trainer.effective_batch=4",
        "data.max_length=64",
        "device=cpu",
        "tracking=none",
    ]
    written = io.StringIO()
    run_trial(compose([*given, *settings]), run, Terminal(Console(file=written, width=400), plain=True))
    assert "chat markup: the tokenizer's own, '<|im_start|>user\\n' TEXT" in written.getvalue()
    stored = load_config(RunFolder(run).config).model
    assert (stored.variant, stored.shape.model_type, stored.shape.num_hidden_layers) == ("chat", "mistral", LAYERS)
    trained = load_run(run, Device(accelerator="cpu"))
    predict_file(trained, rows, tmp_path / "out.csv")
    answers = [[float(value) for value in row[1:]] for row in [*csv.reader((tmp_path / "out.csv").open())][1:]]
    (weight_CH,) = trained.head.state_dict().values()
    assert torch.allclose(torch.tensor(answers[:4]), plain_answers(folder, weight_CH, texts[:4]), atol=1e-6)


@torch.no_grad()
def plain_answers(folder: Path, weight_CH: torch.Tensor, texts: list[str]) -> torch.Tensor:
    """The probabilities by transformers alone: its template, its model, the head's weights over the last token."""
    tokenizer, body = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    answers = []
    for text in texts:
        asked = [{"role": "user", "content": text}]
        given = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
        ids = tokenizer.apply_chat_template(asked, **given, sanitize_control_tokens=True)
        answers.append((weight_CH @ body(**ids).last_hidden_state[0, -1]).softmax(0))
    return torch.stack(answers)

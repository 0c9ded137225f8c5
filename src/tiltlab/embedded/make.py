"""Makes the embedded reference model again: `python -m tiltlab.embedded.make FOLDER`.

A Llama of a third of a million weights with one token a character learns, by plain next-token prediction on the
response, what the students of tasks/sums.py write. Problems of the test and validation splits are never shown to it.
"""

import json
import random
import sys
from pathlib import Path

import torch
from rich.progress import track
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tiltlab.tasks.sums import Sums, write

SEED, STEPS, BATCH, PARTS, PEAK_LR = 0, 4000, 128, 4, 4e-3
CHARACTERS = "0123456789+=,; abcdefghijklmnopqrstuvwxyz"
PAD, EOS = "<pad>", "<eos>"


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a character; text holding any other character is an error of the caller and becomes <pad>."""
    vocabulary = {token: i for i, token in enumerate([PAD, EOS, *CHARACTERS])}
    raw = Tokenizer(WordLevel(vocabulary, unk_token=PAD))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    raw.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token=PAD, eos_token=EOS, unk_token=PAD)


def architecture(vocabulary: int) -> LlamaConfig:
    """A Llama of a third of a million weights, for a vocabulary of this size."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )


def batch(rng: random.Random, codec: PreTrainedTokenizerFast) -> list[list[tuple[list[int], list[int]]]]:
    """BATCH prompts and responses as token ids, in PARTS of like length so that little is padding."""
    rows = []
    for _ in range(BATCH):
        task, problem = rng.choice(TASKS), rng.choice(_TRAIN)
        response = write(task.name, problem.columns["a"], problem.columns["b"], rng)
        rows.append((codec(task.render(problem))["input_ids"], [*codec(response)["input_ids"], codec.eos_token_id]))
    rows.sort(key=lambda row: len(row[0]) + len(row[1]))
    size = BATCH // PARTS
    return [rows[i : i + size] for i in range(0, BATCH, size)]


def padded(rows: list[tuple[list[int], list[int]]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels (-100 over prompts and padding): both int64 [len(rows), L]."""
    width = max(len(prompt) + len(response) for prompt, response in rows)
    tokens = torch.full((len(rows), width), pad)
    labels = torch.full((len(rows), width), -100)
    for i, (prompt, response) in enumerate(rows):
        end = len(prompt) + len(response)
        tokens[i, :end] = torch.tensor(prompt + response)
        labels[i, len(prompt) : end] = torch.tensor(response)
    return tokens, labels


def main(folder: Path) -> None:
    """Train the model and write it, its tokenizer and made.json to a folder."""
    torch.set_num_threads(1)  # matrices this small are not faster on more, and sums keep their order
    torch.manual_seed(SEED)
    rng = random.Random(SEED)
    codec = tokenizer()
    model = LlamaForCausalLM(architecture(len(codec)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=STEPS, pct_start=0.1)
    losses = []
    for step in track(range(STEPS), "learning what the students write"):
        parts = batch(rng, codec)
        written = sum(len(response) for rows in parts for _, response in rows)
        losses.append(0.0)
        for rows in parts:
            tokens, labels = padded(rows, codec.pad_token_id)
            loss = model(input_ids=tokens, labels=labels, num_items_in_batch=written).loss
            loss.backward()
            losses[-1] += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 200 == 0:
            print(f"step {step}  loss {sum(losses[-100:]) / len(losses[-100:]):.4f}", flush=True)
    model.save_pretrained(folder)
    codec.save_pretrained(folder)
    note = {"seed": SEED, "steps": STEPS, "batch": BATCH, "loss_last_100": sum(losses[-100:]) / 100}
    note["parameters"] = model.num_parameters()
    (folder / "made.json").write_text(json.dumps(note | {"torch": torch.__version__}, indent=1) + "\n")


TASKS = (Sums("lazy-sum"), Sums("noisy-sum"), Sums("spread-sum"))
_TRAIN = TASKS[0].problems("train")

if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""What is written for verl, and what is refused: no verl is needed here."""

import io
import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from tokenizers import normalizers

from tests.cli.test_cli import data, model_folder, run
from tests.models import tiny
from tiltlab.config.recipe import Recipe, load_recipe
from tiltlab.config.tasks import load_task
from tiltlab.errors import UserError
from tiltlab.models.loading import load_codec
from tiltlab.seeds import batch_indices
from tiltlab.storage.files import Json, write_bytes
from tiltlab.study.study import taught
from tiltlab.tasks.dataset import Data
from tiltlab.types import Grade
from tiltlab.verl import reward
from tiltlab.verl.export import Asked, export_verl
from tiltlab.verl.keys import ON_POLICY

ARMS = "arms=[base, {arm: tempered, alpha: 4}, {arm: tilted, beta: 0.1}, sharpening, task_reward, {arm: temperature}]"
SMALL = [
    "tasks=[lazy-sum]",
    "train.steps=3",
    "train.prompts=4",
    "train.responses=2",
    "validation={every: 2, problems: 5}",
]


def recipe(*overrides: str) -> Recipe:
    return load_recipe(None, [*SMALL, ARMS, *overrides])


def written(plan: Recipe, folder: Path, arm: str | None = "tilted", **asked: Any) -> tuple[Json, list[str]]:
    """The settings, and what was said."""
    said: list[str] = []
    export_verl(plan, Asked(arm, **asked), folder, said.append)
    settings: Json = yaml.safe_load((folder / "tiltlab.yaml").read_text())
    return settings, said


def rows(path: Path) -> list[Json]:
    found: list[Json] = pq.read_table(io.BytesIO(path.read_bytes())).to_pylist()
    return found


def test_the_folder_is_whole(tmp_path: Path) -> None:
    written(recipe(), tmp_path / "out")
    names = ["README.txt", "run.sh", "tiltlab.yaml", "train.parquet", "validation.parquet"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    subprocess.run(["sh", "-n", str(tmp_path / "out" / "run.sh")], check=True, timeout=60)


@pytest.mark.parametrize(
    ("arm", "weights"),
    [("task_reward", (1, 0, 0)), ("tilted", (1, 0, 0.1)), ("sharpening", (0, 1, 0)), ("tempered", (0, 3, 1))],
)
def test_the_settings_hold_the_objective_and_nothing_beside_it(
    arm: str, weights: tuple[float, float, float], tmp_path: Path
) -> None:
    settings, _ = written(recipe(), tmp_path / "out", arm)
    objective = settings["tiltlab"]["objective"]
    assert (objective["reward"], objective["sharpen"], objective["kl"]) == pytest.approx(weights)
    for key, value in ON_POLICY.items():
        found: Any = settings
        for part in key.split("."):
            found = found[part]
        assert found == value
    actor = settings["actor_rollout_ref"]["actor"]
    assert actor["optim"]["weight_decay"] == 0  # verl's own default is not
    assert settings["algorithm"]["rollout_correction"]["rollout_is"] == "sequence"
    assert isinstance(settings["algorithm"]["rollout_correction"]["rollout_is_threshold"], float)


def test_the_budget_goes_over(tmp_path: Path) -> None:
    plan = recipe(
        "train.optimizer={lr: 2e-6, warmup_steps: 0, max_grad_norm: 0.5, state: host}",
        "engine={name: vllm, memory: 0.3, correction: {over: token, cap: 5}}",
        "train.truncated=keep",
    )
    settings, _ = written(plan, tmp_path / "out", nodes=2, gpus=4, seed=7)
    actor, rollout = settings["actor_rollout_ref"]["actor"], settings["actor_rollout_ref"]["rollout"]
    optim = actor["optim"]
    assert (optim["lr"], optim["lr_warmup_steps"], optim["clip_grad"]) == (2e-6, 0, 0.5)
    assert actor["fsdp_config"] == {"optimizer_offload": True}
    assert (rollout["n"], rollout["gpu_memory_utilization"]) == (2, 0.3)
    assert settings["algorithm"]["rollout_correction"]["rollout_is"] == "token"
    assert settings["algorithm"]["rollout_correction"]["rollout_is_threshold"] == 5
    trainer, sizes = settings["trainer"], settings["data"]
    assert (trainer["nnodes"], trainer["n_gpus_per_node"], trainer["total_training_steps"]) == (2, 4, 3)
    assert (trainer["test_freq"], trainer["save_freq"]) == (2, 2)
    assert (sizes["train_batch_size"], sizes["max_response_length"], sizes["seed"]) == (4, plan.train.max_tokens, 7)
    assert settings["tiltlab"]["truncated"] == "keep"
    assert settings["tiltlab"]["end_ids"] == list(load_codec(plan.model).end_ids)


def test_the_rows_are_the_batches_that_tiltlab_draws(tmp_path: Path) -> None:
    plan = recipe()
    settings, _ = written(plan, tmp_path / "out", seed=3)
    (task,), codec = taught(plan), load_codec(plan.model)
    problems = task.problems("train")
    order = [problems[i] for step in range(3) for i in batch_indices(step, 4, len(problems), 3)]
    train, validation = (rows(tmp_path / "out" / f"{name}.parquet") for name in ("train", "validation"))
    assert [row["extra_info"]["id"] for row in train] == [problem.id for problem in order]
    assert [row["extra_info"]["id"] for row in validation] == [p.id for p in task.problems("validation")[:5]]
    longest = 0
    for row, problem in zip(train, order, strict=True):
        assert row["data_source"] == "lazy-sum"
        assert row["reward_model"]["ground_truth"] == problem.answer
        assert row["extra_info"]["question"] == problem.question
        (message,) = row["prompt"]
        ids = codec.tokenizer(message["content"], add_special_tokens=False)["input_ids"]
        assert ids == codec.encode(task.render(problem))
        longest = max(longest, len(ids))
    assert settings["data"]["max_prompt_length"] >= longest


def of_file(folder: Path, prompt: str) -> str:
    """A recipe's tasks: six problems, of which five are left to train on."""
    made = [{"problem": f"lazy {i}7+25=", "answer": str(10 * i + 32)} for i in range(1, 8)]
    train, test = data(folder / "train.jsonl", *made[:6]), data(folder / "test.jsonl", made[6])
    task = {"task": "data", "train": train, "test": test, "validation": 1, "grader": "number", "prompt": prompt}
    return f"tasks=[{json.dumps(task | {'template': '{question}'})}]"


def test_an_epoch_may_end_within_a_batch(tmp_path: Path) -> None:
    plan = recipe(of_file(tmp_path, "plain"))
    written(plan, tmp_path / "out")
    problems = taught(plan)[0].problems("train")
    order = [problems[i].id for step in range(3) for i in batch_indices(step, 4, 5, plan.seed)]
    assert len(problems) == 5
    assert [row["extra_info"]["id"] for row in rows(tmp_path / "out" / "train.parquet")] == order


def test_the_task_is_named_so_that_it_is_found_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_file(tmp_path, "plain")
    monkeypatch.chdir(tmp_path)
    task = "{task: data, train: train.jsonl, test: test.jsonl, validation: 1, prompt: plain, template: '${question}'}"
    settings, _ = written(recipe(f"tasks=[{task}]"), tmp_path / "out")
    entry = settings["reward"]["custom_reward_function"]["reward_kwargs"]["task"]
    assert "$" not in entry  # verl's settings would read ${question} as another setting
    monkeypatch.chdir("/")
    (found,) = [load_task(entry)]
    assert isinstance(found, Data)
    assert found.template == "${question}"
    assert len(found.problems("train")) == 5


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tiltlab.verl import export

    def full(path: Path, data: bytes) -> None:
        if path.name == export.RUN:
            raise UserError("no space")
        write_bytes(path, data)

    monkeypatch.setattr(export, "write_bytes", full)
    with pytest.raises(UserError, match="no space"):
        written(recipe(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_chat_that_the_model_has_no_template_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no chat template"):
        written(recipe(of_file(tmp_path, "chat")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("overrides", "asked", "said"),
    [
        ((), {"arm": "base"}, "arm 'base' samples the base, and verl only trains; --arm with one of 'tempered 4'"),
        ((), {"arm": "nothing"}, "no arm is 'nothing'; verl trains one: --arm with one of 'tempered 4', 'tilted 0.1'"),
        ((), {"arm": None}, "4 arms of the recipe are to be trained; verl trains one: --arm with one of"),
        (("arms=[base]",), {}, "no arm of the recipe trains"),
        (("arms.2.alpha=2", "arms.3={arm: tilted, beta: 1}"), {}, "2 arms of the recipe are tilted; verl trains one"),
        (
            ("tasks=[lazy-sum, noisy-sum]",),
            {},
            "the recipe has 2 tasks; verl trains on one: --task with one of lazy-sum",
        ),
        ((), {"task": "gsm8k"}, "no task is 'gsm8k'"),
        (("arms.2.signal=vote",), {}, "signal vote cannot be carried over"),
        (("arms.2.advantage=maxrl",), {}, "advantage maxrl cannot be carried over"),
        (("arms.2.fixed_length=true",), {}, "fixed_length cannot be carried over"),
        (("model.lora={rank: 4}",), {}, "model.lora cannot be carried over"),
        (("model.stop='x'",), {}, "model.stop cannot be carried over"),
        (("model.dtype=float32",), {}, "model.dtype float32 cannot be carried over"),
        (("model.path=some.gguf",), {}, "verl reads no GGUF"),
        (("model.revision=abc",), {}, "model.revision abc cannot be carried over"),
        (("train.reward='a.b:c'",), {}, "train.reward cannot be carried over"),
        (("train.optimizer.state=8bit",), {}, "train.optimizer.state 8bit cannot be carried over"),
        ((), {"gpus": 3}, "train.prompts x train.responses is 8, and 3 GPUs cannot share them evenly"),
        ((), {"nodes": 3}, "and 24 GPUs cannot"),
    ],
)
def test_what_cannot_be_carried_is_refused_in_one_line(
    overrides: tuple[str, ...], asked: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        written(recipe(*overrides), tmp_path / "out", **({"arm": "tilted"} | asked))
    assert len(error.value.lines) == 1
    assert said in str(error.value)
    assert not (tmp_path / "out").exists()


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        written(recipe("model.lora={rank: 4}", "model.stop='x'"), tmp_path / "out", gpus=5)
    assert len(error.value.lines) == 3


def test_what_stays_behind_is_told(tmp_path: Path) -> None:
    plan = recipe("train.optimizer.warmup_steps=5", "train.stop_on=[entropy collapse]", "validation.max_tokens=9")
    _, said = written(plan, tmp_path / "out")
    told = " ".join(said)
    for part in (
        "rises from 0 over 5 steps",
        "train.stop_on stays behind (entropy collapse)",
        "one limit for both",
        "test sets",
    ):
        assert part in told
    _, said = written(recipe("train.optimizer.warmup_steps=0"), tmp_path / "other")
    assert not any("rises" in line or "stop_on" in line or "limit" in line for line in said)


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty; choose another --out"):
        written(recipe(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_prompt_that_no_text_stands_for_is_refused(tmp_path: Path) -> None:
    """Its tokenizer puts a token before a text that no text brings: verl would not have it there."""
    tokenizer = tiny.tokenizer("abcdefghlzy 0123456789+=-")
    tokenizer.backend_tokenizer.normalizer = normalizers.Prepend("b")
    path = model_folder(tmp_path / "model", vocabulary=26)
    tokenizer.save_pretrained(path)
    with pytest.raises(UserError, match="a prompt cannot be carried over to verl"):
        written(recipe(f"model.path={path}", "train.max_tokens=8", "model.device=cpu"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_reward_is_the_tasks_grade() -> None:
    about = {"id": "27+35", "question": "27+35", "index": 0}
    entry = json.dumps({"task": "lazy-sum"})
    right = reward.compute_score("lazy-sum", "it is 62", "62", about, entry, num_turns=2)
    assert right == {
        "score": 1.0, "acc": 1.0, "answer": "62", "reason": "correct", "problem": "27+35", "grader": "tiltlab",
    }  # fmt: skip
    wrong = reward.compute_score("lazy-sum", "512", "62", about, entry)
    assert (wrong["score"], wrong["acc"], wrong["answer"], wrong["reason"]) == (0, 0, "512", "wrong")
    none = reward.compute_score("lazy-sum", "who knows", "62", about, entry)
    assert (none["score"], none["acc"], none["answer"], none["reason"]) == (0, 0, None, "no_answer")


def test_where_nobody_knows_the_reward_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        def grade(self, *_: object) -> Grade:
            return Grade(math.nan, None, "timeout")

    monkeypatch.setattr(reward, "_task", lambda entry: Slow())
    said = reward.compute_score("x", "y", "z", {"id": "1", "question": "q"}, "x")
    assert math.isnan(said["score"])
    assert (said["acc"], said["reason"]) == (None, "timeout")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe().model_dump(mode="json")))
    out = tmp_path / "out"
    keys = ("--arm", "tilted", "--nodes", "2", "--gpus", "4", "--set", "train.steps=2", "--out", str(out))
    assert run(monkeypatch, "export", "verl", str(path), *keys, "--json") == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == {"arm": "tilted 0.1", "seed": 0, "command": str(out / "run.sh")}
    assert "tilted 0.1, seed 0: " in told.err
    assert len(rows(out / "train.parquet")) == 8
    assert run(monkeypatch, "export", "verl", str(path), *keys) == 2
    assert "is not empty" in capsys.readouterr().err


def test_records_are_exported_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also with the option first, and out of folders that are called as words of the command line."""
    monkeypatch.chdir(tmp_path)
    for name in ("verl", "records"):
        (tmp_path / name).mkdir()
        line = {
            "task": "t",
            "problem": "p",
            "sample": 0,
            "text": "x",
            "answer": "x",
            "reward": 1.0,
            "reason": "correct",
        }
        data(tmp_path / name / "records.jsonl", line | {"tokens": 1, "complete": True, "logp": -1.0, "ref_logp": -1.0})
        assert run(monkeypatch, "export", name, "--to", "parquet") == 0
        assert run(monkeypatch, "export", "--to", "inspect", name) == 0
        assert {path.name for path in (tmp_path / name).iterdir()} >= {"records.parquet", "inspect.json"}
    capsys.readouterr()
    assert run(monkeypatch, "export", "nothing", "--to", "parquet") == 2
    assert "nothing does not exist" in capsys.readouterr().err
    assert run(monkeypatch, "export", "records") == 2
    assert "Missing option '--to'" in capsys.readouterr().err
    assert run(monkeypatch, "export") == 2
    assert "Missing argument" in capsys.readouterr().err

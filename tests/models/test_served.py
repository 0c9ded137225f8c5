"""A model on a server draws what the same model draws here, and whatever goes wrong on the way costs nothing."""

from collections.abc import Callable, Iterator
from math import isnan
from pathlib import Path
from typing import Any

import pytest
import tenacity

from tests.cli.test_cli import run
from tests.models.serving import Serving, serving
from tiltlab.errors import UserError
from tiltlab.evaluation import run as evaluation
from tiltlab.models import server as client
from tiltlab.models.hf import HFModel
from tiltlab.models.loading import load_model
from tiltlab.models.served import ServedModel, served_model
from tiltlab.models.server import Address
from tiltlab.storage.records import read_records
from tiltlab.tasks.sums import Sums


@pytest.fixture(scope="module")
def model() -> HFModel:
    return load_model("embedded")


@pytest.fixture
def served(model: HFModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Serving, str]]:
    monkeypatch.setattr(tenacity, "wait_random_exponential", lambda **_: tenacity.wait_none())
    monkeypatch.setenv(client.KEY, "sesame")
    served_model.cache_clear()
    with serving(model) as (state, path):
        yield state, path


PROMPTS = [Sums("lazy-sum").render(problem) for problem in Sums("lazy-sum").problems("test")[:3]]
KEYS = ("--task", "lazy-sum", "-n", "4", "--limit", "3", "--max-tokens", "40")


def test_a_response_is_what_the_server_drew(served: tuple[Serving, str], model: HFModel) -> None:
    state, path = served
    far = ServedModel(path)
    assert far.codec.notes([]) == []
    groups = far.generate(PROMPTS, n=4, max_tokens=40, seed=0)
    assert any(r.complete for group in groups for r in group)
    assert any(not r.complete for group in groups for r in group)
    logp_PG = far.logprobs(PROMPTS, groups).total_PG
    for prompt, group, logps in zip(PROMPTS, groups, logp_PG.tolist(), strict=True):
        for rollout, logp in zip(group, logps, strict=True):
            ids = model.codec.tokenizer(rollout.text, add_special_tokens=False)["input_ids"]
            ids += list(model.codec.end_ids[:1]) if rollout.complete else []
            [own] = model.rollouts([(ids, [0.0] * len(ids))])
            assert own.text == rollout.text
            assert logp == pytest.approx(model.logprobs([prompt], [[own]]).total_PG.item(), abs=1e-4)
            assert len(rollout.tokens) == len(ids)
    assert far.generate(PROMPTS, n=4, max_tokens=40, seed=0) == groups  # in whatever order they were answered
    assert {body["top_k"] for body in state.asked} == {-1}
    assert len({body["seed"] for body in state.asked[-12:]}) == 12


def test_records_of_a_server_are_complete_and_say_where_they_are_from(
    served: tuple[Serving, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, path = served
    state.faults = []
    assert run(monkeypatch, "evaluate", "--model", path, *KEYS, "--out", str(tmp_path / "far")) == 0
    records = read_records(tmp_path / "far" / "records.jsonl")
    assert len({(r.problem, r.sample) for r in records}) == len(records) == 12
    assert not any(isnan(r.logp) for r in records)
    assert "sesame" not in "".join(f.read_text() for f in (tmp_path / "far").glob("*.json*"))
    assert set(state.headers) == {"Bearer sesame"}
    assert run(monkeypatch, "forecast", "--base", str(tmp_path / "far"), "--out", str(tmp_path / "forecast")) == 0


def test_a_verdict_on_what_servers_draw(
    served: tuple[Serving, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, keys = served[1], ("--task", "lazy-sum", "-n", "4", "--limit", "8", "--max-tokens", "40")
    known = ("verdict", "--base", "embedded", "--tuned", path, *keys, "--out", str(tmp_path / "known"))
    assert run(monkeypatch, *known) == 0
    scored = read_records(tmp_path / "known" / "tuned" / "records.jsonl")
    assert [r.ref_logp for r in scored] == pytest.approx([r.logp for r in scored], abs=1e-4)  # one model, twice
    both = ("verdict", "--base", path, "--tuned", path, *keys, "--out", str(tmp_path / "both"))
    assert run(monkeypatch, *both) == 0
    assert "verdict:" in capsys.readouterr().out


@pytest.mark.parametrize("fault", [429, 500, 503, "half", "drop", "abort"])
def test_what_may_pass_is_asked_again(served: tuple[Serving, str], fault: object) -> None:
    state, path = served
    far = ServedModel(path)
    want = far.generate(PROMPTS, n=2, max_tokens=20, seed=3)
    state.faults = [fault] * 3
    assert far.generate(PROMPTS, n=2, max_tokens=20, seed=3) == want
    assert not state.faults


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda s: s.faults.extend([500] * 999), "it says 500"),
        (lambda s: s.faults.extend([429] * 999), "it says 429"),
        (lambda s: s.faults.extend(["half"] * 999), "half an answer"),
        (lambda s: s.faults.extend(["drop"] * 999), "no answer"),
        (lambda s: s.faults.extend(["abort"] * 999), "half an answer"),
        (lambda s: s.faults.extend([404] * 999), "refuses completions with 404"),
        (lambda s: setattr(s, "logprobs", False), "no log-probabilities"),
    ],
)
def test_what_does_not_pass_is_one_line_and_the_same_command_goes_on(
    served: tuple[Serving, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    break_it: Callable[[Serving], None],
    said: str,
) -> None:
    state, path = served
    command = ("evaluate", "--model", path, *KEYS, "--out", str(tmp_path / "far"))
    monkeypatch.setattr(evaluation, "LOT", 1)
    draw, lots = evaluation._draw_lot, list[int]()

    def breaking(*given: Any) -> None:
        lots.append(1)
        if len(lots) == 2:
            break_it(state)
        draw(*given)

    monkeypatch.setattr(evaluation, "_draw_lot", breaking)
    assert run(monkeypatch, *command) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert "Traceback" not in errors
    assert "sesame" not in errors
    kept = (tmp_path / "far" / "records.jsonl").read_text()
    assert len(kept.splitlines()) == 4
    state.faults, state.logprobs = [], True
    assert run(monkeypatch, *command) == 0
    assert (tmp_path / "far" / "records.jsonl").read_text().startswith(kept)
    assert len({(r.problem, r.sample) for r in read_records(tmp_path / "far" / "records.jsonl")}) == 12


def test_log_probabilities_after_the_temperature_are_left_out_and_scored_here(
    served: tuple[Serving, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state, path = served
    state.warm = False
    cold = ("--sampler", "temperature", "--set", "sampler.temperature=0.5")
    assert run(monkeypatch, "evaluate", "--model", path, *KEYS, *cold, "--out", str(tmp_path / "far")) == 0
    assert "after the temperature" in capsys.readouterr().err
    records = read_records(tmp_path / "far" / "records.jsonl")
    assert all(isnan(r.logp) for r in records)
    more = ("score", str(tmp_path / "far"), "--model", "embedded", "--as", "both", "--out", str(tmp_path / "scored"))
    assert run(monkeypatch, *more) == 0
    assert not any(isnan(r.logp) for r in read_records(tmp_path / "scored" / "records.jsonl"))


def test_an_end_that_nobody_speaks_of_is_not_left_out_of_the_sum(served: tuple[Serving, str]) -> None:
    state, path = served
    state.end = False
    far = ServedModel(path)
    assert "how likely the end" in " ".join(far.codec.notes([]))
    for group in far.generate(PROMPTS, n=4, max_tokens=40, seed=0):
        for rollout in group:
            assert isnan(sum(rollout.logprobs)) == rollout.complete


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("server:http://127.0.0.1:1/v1#tiny", "no answer"),
        ("server:127.0.0.1:8000#tiny", "names no server"),
        ("server:http://127.0.0.1:8000/v1", "names no server"),
        ("server:http://me:secret@127.0.0.1:8000/v1#tiny", "must hold no key"),
    ],
)
def test_a_wrong_address_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], path: str, said: str
) -> None:
    assert run(monkeypatch, "evaluate", "--model", path, *KEYS, "--out", str(tmp_path / "far")) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "secret" not in shown
    assert not (tmp_path / "far" / "records.jsonl").exists()


def test_a_key_that_no_request_can_carry_is_one_line(
    served: tuple[Serving, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(client.KEY, "sesame\n")  # as $(cat file) in some shells leaves it
    ServedModel(served[1])
    for key in ("sésame\N{SNOWMAN}", "ses\name"):
        monkeypatch.setenv(client.KEY, key)
        with pytest.raises(UserError, match=f"{client.KEY} holds a character") as told:
            ServedModel(served[1])
        assert key not in str(told.value)


def test_a_server_neither_scores_nor_takes_a_stop_text(
    served: tuple[Serving, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    far, keys = tmp_path / "far", ("--model", served[1])
    stop = ("--set", 'model.stop="Q:"')  # it would be left out without a word
    assert run(monkeypatch, "evaluate", *keys, *KEYS, *stop, "--out", str(far)) == 2
    assert "model.stop" in capsys.readouterr().err
    judged = (
        "verdict",
        "--base",
        "embedded",
        "--tuned",
        served[1],
        "--stop",
        "Q:",
        *KEYS,
        "--out",
        str(tmp_path / "v"),
    )
    assert run(monkeypatch, *judged) == 2
    assert "model.stop" in capsys.readouterr().err
    assert run(monkeypatch, "evaluate", *keys, *KEYS, "--out", str(far)) == 0
    assert run(monkeypatch, "score", str(far), *keys, "--out", str(tmp_path / "scored")) == 2
    assert "name the weights" in capsys.readouterr().err


def test_a_name_that_the_server_does_not_have_is_one_line(served: tuple[Serving, str]) -> None:
    with pytest.raises(UserError, match="has no model other; it has tiny"):
        ServedModel(served[1].replace("#tiny", "#other"))


def test_what_a_server_cannot_do_is_said(served: tuple[Serving, str], model: HFModel) -> None:
    far = ServedModel(served[1])
    with pytest.raises(UserError, match="did not draw"):
        far.logprobs(PROMPTS, model.generate(PROMPTS, n=2, max_tokens=9, seed=0))
    with pytest.raises(UserError, match="step by step"):
        far.decoder(PROMPTS, n=1, max_tokens=4)
    assert Address.read("server:http://h:1/v1/#a/b") == Address("http://h:1/v1", "a/b")


def test_a_study_refuses_a_server(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "study", "--set", "model.path=server:http://h:1/v1#a", "--dry-run") == 2
    assert "needs the model's weights" in capsys.readouterr().err

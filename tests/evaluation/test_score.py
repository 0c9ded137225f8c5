"""Log-probabilities of responses that exist: the same as those of whoever drew them, or none."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from math import isnan
from pathlib import Path

import pytest

from tests.cli.test_cli import run
from tiltlab.errors import UserError
from tiltlab.evaluation import score as folder_of_scores
from tiltlab.evaluation import scoring
from tiltlab.evaluation.score import responses_to, score
from tiltlab.evaluation.scoring import Response, scores
from tiltlab.models.hf import HFModel
from tiltlab.models.loading import load_model
from tiltlab.models.retokenize import ending, retokenized
from tiltlab.storage.records import read_records, write_records
from tiltlab.tasks.sums import Sums
from tiltlab.types import Record

Command = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def model() -> HFModel:
    return load_model("embedded")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 x 8 responses of the embedded model, some of them truncated."""
    folder = tmp_path_factory.mktemp("drawn") / "records"
    keys = ("--task", "lazy-sum", "-n", "8", "--limit", "12", "--max-tokens", "24", "--out", str(folder))
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, "evaluate", *keys) == 0
    return folder


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """A command's exit code, and what it said."""

    def called(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        code = run(monkeypatch, *map(str, arguments))
        said = capsys.readouterr()
        return code, said.out + said.err

    return called


def worst(drawn: Path, scored: Path) -> float:
    before, after = read_records(drawn / "records.jsonl"), read_records(scored / "records.jsonl")
    assert [replace(r, ref_logp=0) for r in before] == [replace(r, ref_logp=0) for r in after]
    assert any(not r.complete for r in before)
    assert any(r.complete for r in before)
    return max(abs(a.logp - b.ref_logp) for a, b in zip(before, after, strict=True))


def test_scores_of_a_folder_are_those_of_who_drew_it(drawn: Path, tmp_path: Path, command: Command) -> None:
    _, said = command("score", drawn, "--model", "embedded", "--out", tmp_path / "ids")
    assert "96 of 96 responses scored, 96 by the token ids" in said
    assert worst(drawn, tmp_path / "ids") < 1e-5


def test_scores_of_texts_are_those_of_who_drew_them(drawn: Path, tmp_path: Path, command: Command) -> None:
    file = drawn / "records.jsonl"
    _, said = command("score", file, "--task", "lazy-sum", "--model", "embedded", "--out", tmp_path / "text")
    assert "96 of 96 responses scored\n" in said, said
    assert worst(drawn, tmp_path / "text") < 1e-5
    line = json.loads((tmp_path / "text" / "scores.jsonl").read_text().splitlines()[0])
    assert len(line["ids"]) == len(line["logprobs"])
    assert sum(line["logprobs"]) == pytest.approx(line["logp"], abs=1e-5)


def test_a_file_that_names_no_task_is_refused(drawn: Path, tmp_path: Path, command: Command) -> None:
    code, said = command("score", drawn / "records.jsonl", "--model", "embedded", "--out", tmp_path / "none")
    assert code == 2
    assert "name their task by --task" in said
    code, said = command("score", drawn, "--model", "embedded", "--task", "addition", "--out", tmp_path / "none")
    assert code == 2
    assert "responses to task 'lazy-sum'" in said


def test_tokens_that_cannot_be_told_from_the_text_have_no_log_probability(model: HFModel) -> None:
    prompt = Sums("lazy-sum").render(Sums("lazy-sum").problems("test")[0])
    rollout = next(r for [group] in [model.generate([prompt], n=8, max_tokens=60, seed=0)] for r in group if r.complete)
    right = Response(prompt, rollout.text, True, len(rollout.tokens))
    cases = [
        (right, None),
        (replace(right, tokens=0), None),  # nobody knows how many
        (replace(right, tokens=len(rollout.tokens) + 1), "length"),  # drawn as other tokens
        (replace(right, complete=False), "length"),  # its end is missing
        (replace(right, text=rollout.text + "\N{SNOWMAN}", tokens=0), "text"),  # a character that it cannot write
        (replace(right, text="", complete=False, tokens=0), "empty"),
    ]
    [told] = list(scores(model, [response for response, _ in cases]))
    assert [one.fault for one in told] == [fault for _, fault in cases]
    assert [isnan(one.logp) for one in told] == [fault is not None for _, fault in cases]
    assert told[0].logp == pytest.approx(sum(rollout.logprobs), abs=1e-4)
    assert told[0].ids == rollout.tokens


def test_token_ids_of_another_vocabulary_are_refused(model: HFModel) -> None:
    with pytest.raises(UserError, match="knows"):
        list(scores(model, [Response("1+1=", "2", True, ids=(1, model.codec.vocabulary))]))


def test_token_ids_of_another_tokenizer_give_way_to_the_text(model: HFModel) -> None:
    right = model.codec.tokenizer("1+1=2", add_special_tokens=False)["input_ids"]
    own, other = tuple(right), tuple(token + 1 for token in right)
    asked = Response("1+1=", "1+1=2", complete=False)
    cases = [asked, replace(asked, ids=own), replace(asked, ids=other, tokens=len(other) + 3)]
    [told] = list(scores(model, cases))
    assert [one.ids for one in told] == [own] * 3
    assert [one.fault for one in told] == [None] * 3


def test_other_prompts_or_tokens_are_other_scores(model: HFModel, drawn: Path, tmp_path: Path) -> None:
    records = read_records(drawn / "records.jsonl")[:2]
    responses, source = responses_to(Sums("lazy-sum"), "test", records, {}, "records")
    score(model, records, responses, "base", tmp_path, source)
    for others in ([replace(r, prompt="1+1=") for r in responses], [replace(r, ids=(3,)) for r in responses]):
        with pytest.raises(UserError, match="holds other records"):
            score(model, records, others, "base", tmp_path, source)


def test_records_of_another_task_are_refused_though_their_ids_are_the_same(drawn: Path) -> None:
    records = [replace(r, task="other") for r in read_records(drawn / "records.jsonl")]
    with pytest.raises(UserError, match="responses to task 'other'"):
        responses_to(Sums("lazy-sum"), "test", records, {}, "records")


def test_a_task_that_asks_something_else_by_the_same_id_is_refused(
    drawn: Path, tmp_path: Path, command: Command
) -> None:
    other = shutil.copytree(drawn, tmp_path / "other")
    about = json.loads((other / "sample.json").read_text())
    about["questions"][read_records(other / "records.jsonl")[-1].problem][0] = "9+9="  # as when a data file has changed
    (other / "sample.json").write_text(json.dumps(about))
    code, said = command("score", other, "--model", "embedded", "--out", tmp_path / "scored")
    assert code == 2
    assert "answers another question" in said


def test_a_stop_text_is_scored_with_the_token_that_brings_it(model: HFModel) -> None:
    codec = replace(model.codec, stop="=")
    told = retokenized(codec, "2", end=ending(codec, ["1+1="]), complete=True)
    assert told.fault is None
    assert codec.tokenizer.decode(list(told.ids)).replace(" ", "") == "2="


class Stop(Exception):
    pass


def test_scoring_goes_on_where_it_was(
    model: HFModel, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "LOT", 200)
    records = read_records(drawn / "records.jsonl")
    shuffled = records[1::2] + records[::2]  # of a problem not beside each other
    responses, source = responses_to(Sums("lazy-sum"), "test", shuffled, {}, "records")
    whole = score(model, shuffled, responses, "base", tmp_path / "whole", source)
    assert [(r.problem, r.sample) for r in whole.records] == [(r.problem, r.sample) for r in shuffled]

    def stop(done: int) -> None:
        if done > 20:
            raise Stop

    with pytest.raises(Stop):
        score(model, shuffled, responses, "base", tmp_path / "stopped", source, stop)
    half = tmp_path / "stopped" / "scores.jsonl"
    before = half.read_text().splitlines()
    assert 20 < len(before) < len(records)
    damaged = json.loads(before[-2])
    del damaged["logp"]
    half.write_text("\n".join([*before[:-2], json.dumps(damaged), before[-1]])[:-5])  # and killed in a line
    seen: list[int] = []
    score(model, shuffled, responses, "base", tmp_path / "stopped", source, seen.append)
    assert seen[0] == len(before) - 2
    for name in ("scores.jsonl", "records.jsonl"):
        assert (tmp_path / "stopped" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_a_folder_of_other_scores_is_left_alone(model: HFModel, drawn: Path, tmp_path: Path) -> None:
    records = read_records(drawn / "records.jsonl")[:8]
    responses, source = responses_to(Sums("lazy-sum"), "test", records, {}, "records")
    score(model, records, responses, "base", tmp_path, source)
    kept = (tmp_path / "records.jsonl").read_bytes()
    for others, of in ((records[:4], "base"), (records, "both")):
        with pytest.raises(UserError, match="choose another --out"):
            score(model, others, responses[: len(others)], of, tmp_path, source)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="choose another --out"):
        score(model, records, responses, "base", drawn, source)
    assert (tmp_path / "records.jsonl").read_bytes() == kept


@pytest.mark.parametrize(("of", "filled"), [("base", {"ref_logp"}), ("own", {"logp"}), ("both", {"logp", "ref_logp"})])
def test_what_the_model_is_to_the_records_says_what_is_filled(
    model: HFModel, drawn: Path, tmp_path: Path, of: folder_of_scores.Of, filled: set[str]
) -> None:
    bare = [replace(r, logp=float("nan"), ref_logp=float("nan")) for r in read_records(drawn / "records.jsonl")[:8]]
    responses, source = responses_to(Sums("lazy-sum"), "test", bare, {}, "records")
    told = score(model, bare, responses, of, tmp_path, source).records
    assert {key for key in ("logp", "ref_logp") if not isnan(getattr(told[0], key))} == filled


def test_a_verdict_scores_records_by_the_base_that_is_named(drawn: Path, tmp_path: Path, command: Command) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    known = read_records(drawn / "records.jsonl")
    write_records(bare / "records.jsonl", [replace(r, logp=float("nan"), ref_logp=float("nan")) for r in known])
    keys = ("--task", "lazy-sum", "-n", "8", "--max-tokens", "24", "--out", tmp_path / "verdict")
    code, said = command("verdict", "--base", "embedded", "--tuned", bare, *keys)
    assert code == 0, said
    scored: list[Record] = read_records(tmp_path / "verdict" / "tuned" / "records.jsonl")
    assert [r.ref_logp for r in scored] == pytest.approx([r.logp for r in known], abs=1e-5)
    base = read_records(tmp_path / "verdict" / "base" / "records.jsonl")
    assert {r.problem for r in base} == {r.problem for r in known}
    assert "on 12 problems" in said

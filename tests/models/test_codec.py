"""How prompts are written for tokenizers and chat templates of every temper."""

import datetime as dt
import time
from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors

from tests.models import tiny
from tiltlab.errors import UserError
from tiltlab.models.codec import Codec
from tiltlab.models.loading import ModelConfig, load_codec, load_reference

LETTERS = "abcdefgh0123456789-@|?"
ASKED = ({"role": "user", "content": "ab"},)
TURNS = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def codec(
    folder: Path,
    *,
    template: Any = None,
    after: str | None = None,
    vocabulary: int = len(LETTERS) + 1,
    special: dict[str, Any] | None = None,
    stop: str | None = None,
    date: dt.date | None = None,
    **settings: Any,
) -> Codec:
    """`after`: a post-processor's template; `vocabulary`: how many tokens the model knows."""
    tokenizer = tiny.tokenizer(LETTERS)
    if after:
        tokens = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ".@"]
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=after, special_tokens=tokens)
    if special:
        tokenizer.add_special_tokens(special)
    tokenizer.chat_template = template
    tiny.llama(vocabulary, **settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load_codec(ModelConfig(path=str(folder), stop=stop, date=date, device="cpu"))


def ids(text: str) -> list[int]:
    return [("." + LETTERS).index(letter) for letter in text]


# EOS after a prompt


@pytest.mark.parametrize(
    ("after", "prompt", "written"),
    [
        ("@ $A .", "ab", "@ab"),
        ("$A .", "ab", "ab"),
        ("@ $A . .", "ab", "@ab"),
        ("@ $A", "ab", "@ab"),
        (". $A", "ab", ".ab"),  # EOS that serves as BOS
        ("@ $A .", "ab.", "@ab."),  # the prompt's own
        ("@ $A .", "", "@"),
    ],
)
def test_no_eos_is_put_after_a_prompt(tmp_path: Path, after: str, prompt: str, written: str) -> None:
    assert codec(tmp_path, after=after).encode(prompt) == ids(written)


def test_a_chat_prompt_ends_as_its_template_has_it(tmp_path: Path) -> None:
    found = codec(tmp_path, after="@ $A .", template="@{% for m in messages %}{{ m['content'] }}.{% endfor %}")
    assert found.encode(ASKED) == ids("@ab.")


# Tokens that the model does not know


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"special": {"eos_token": "<eos>"}, "eos_token_id": None}, "knows 23 tokens.*EOS token is 23"),
        ({"eos_token_id": 99}, "EOS token is 99"),
        ({"eos_token_id": [0, 23]}, "EOS token is 23"),
        ({"special": {"pad_token": "<pad>"}}, "pad token is 23"),
        ({"vocabulary": 20}, "tokenizer has 3 beyond them, such as '@' .20."),
    ],
)
def test_tokens_beyond_the_vocabulary_are_refused_when_the_model_is_loaded(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        codec(tmp_path, **options)


def test_an_added_token_beyond_the_vocabulary_is_refused_in_prompts_alone(tmp_path: Path) -> None:
    """Some models have such, for images, and are whole without."""
    found = codec(tmp_path, special={"additional_special_tokens": ["<image>"]}, template="<image>" + TURNS)
    assert found.encode("ab") == ids("ab")
    for prompt in ("a<image>b", ASKED):
        with pytest.raises(UserError, match="prompt holds the token '<image>' .23., and model .* knows 23 tokens"):
            found.encode(prompt)
    stopped = codec(tmp_path, special={"additional_special_tokens": ["<image>"]}, stop="a")
    assert stopped.end_ids == (0, 1)
    with pytest.raises(UserError, match="no token"):
        codec(tmp_path, special={"additional_special_tokens": ["<image>"]}, stop="<image>")


def test_a_model_may_know_more_tokens_than_its_tokenizer(tmp_path: Path) -> None:
    found = codec(tmp_path, vocabulary=32)
    model = load_reference(ModelConfig(path=str(tmp_path), device="cpu"), found)
    assert model.generate(["ab"], n=4, max_tokens=6, seed=0)


# Chat templates that fail


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('need system') }}", "TemplateError: need system"),
        ("{% if messages[0]['role'] != 'system' %}{{ raise_exception('a\nb') }}{% endif %}", "TemplateError: a b"),
        ("{{ missing.part }}", "UndefinedError"),
        ("{{ missing() }}", "UndefinedError"),
        ("{{ 1 + messages[0]['content'] }}", "TypeError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ messages[7]['content'] }}", "UndefinedError"),
        ("{% for", "TemplateSyntaxError"),
        ({"tool_use": TURNS}, "ValueError"),
        ("{{ raise_exception('x' * 200000) }}", "TemplateError: xxx"),
    ],
)
def test_a_chat_template_that_fails_is_told_in_one_line(tmp_path: Path, template: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        codec(tmp_path, template=template).encode(ASKED)
    assert "set `prompt: plain`" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


# Chat templates that ask for the date


CLOCK = "{{ strftime_now('%Y-%m-%d') }}" + TURNS
DATE_OF_LLAMA = (
    "{% if date_string is not defined %}{% if strftime_now is defined %}{% set date_string = strftime_now('%Y') %}"
    "{% endif %}{% endif %}{{ date_string }}" + TURNS
)


@pytest.mark.parametrize(
    ("template", "written"),
    [(CLOCK, "2024-02-29ab"), (DATE_OF_LLAMA, "2024ab"), ("{{ strftime_now('%H%M%S') }}" + TURNS, "000000ab")],
)
def test_a_template_is_told_the_date_of_the_run(tmp_path: Path, template: str, written: str) -> None:
    found = codec(tmp_path, template=template, date=dt.date(2024, 2, 29))
    assert found.encode(ASKED) == ids(written)


def test_two_runs_in_one_process_keep_their_dates(tmp_path: Path) -> None:
    one = codec(tmp_path / "one", template=CLOCK, date=dt.date(2024, 2, 29))
    other = codec(tmp_path / "other", template=CLOCK, date=dt.date(2025, 3, 1))
    for _ in range(2):
        assert one.encode(ASKED) == ids("2024-02-29ab")
        assert other.encode(ASKED) == ids("2025-03-01ab")


def test_without_a_date_the_process_keeps_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = "{{ strftime_now('%H%M%S%f') }}" + TURNS
    first = codec(tmp_path / "a", template=clock).encode(ASKED)
    time.sleep(0.01)
    assert codec(tmp_path / "b", template=clock).encode(ASKED) == first


def test_the_date_is_said_aloud(tmp_path: Path) -> None:
    found = codec(tmp_path, template=CLOCK, date=dt.date(2024, 2, 29))
    (note,) = found.notes(["ab", ASKED])
    assert "2024-02-29 in all prompts" in note
    assert "model.date" in note
    assert found.notes(["ab"]) == []
    assert codec(tmp_path, template=TURNS).notes([ASKED]) == []


# Tokens that end a turn


TURN = "{% for m in messages %}|{{ m['content'] }}<|im_end|>{% endfor %}{% if add_generation_prompt %}|{% endif %}"
SPECIAL = {"additional_special_tokens": ["<|im_end|>"]}


def test_a_turn_that_ends_in_no_eos_is_told(tmp_path: Path) -> None:
    turned: dict[str, Any] = {"template": TURN, "special": SPECIAL, "vocabulary": 24}
    (note,) = codec(tmp_path, **turned).notes([ASKED])
    assert "ends a turn with '<|im_end|>'" in note
    assert "model.stop" in note
    stopped = codec(tmp_path, **turned, stop="<|im_end|>")
    assert stopped.notes([ASKED]) == []
    assert stopped.end_ids == (0, 23)
    assert stopped.decode([[1, 2, 23, 3]]) == ["ab"]
    assert codec(tmp_path, **turned, eos_token_id=[0, 23]).notes([ASKED]) == []


@pytest.mark.parametrize(
    "template",
    [
        TURNS,
        "{% for m in messages %}{{ m['content'] }}.{% endfor %}",
        "{% for m in messages %}{{ m['content'] }}<|im_end|>.{% endfor %}",
        "{% if messages|length > 1 %}{{ raise_exception('one turn') }}{% endif %}" + TURN,
        "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}<|im_end|>{% endfor %}",
    ],
)
def test_nothing_is_said_of_other_turns(tmp_path: Path, template: str) -> None:
    assert codec(tmp_path, template=template, special=SPECIAL, vocabulary=24).notes([ASKED]) == []

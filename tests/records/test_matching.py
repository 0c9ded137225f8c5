"""Which problem a prompt asks, however it is dressed."""

import pytest

from tests.records.study import question
from tiltlab.records.matching import Questions

ASKED = {str(i): [question(str(i))] for i in range(60)}
TALL = "If  x²+1 = 5, how tall is Zoë’s 3½ m tree?"
OTHERS = {
    "tall": [TALL],
    "sum": ["3+4="],
    "long": ["12+3+4="],
    "one": ["x"],
    "twin a": ["Same?  Yes."],
    "twin b": ["Same? Yes."],
}
QUESTIONS = Questions(ASKED | OTHERS)

DRESSED = {
    "as it is": "{}",
    "a chat template": "<|im_start|>system\nHi.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
    "a template without its special tokens": "system\nYou are Qwen.\nuser\n{}\nassistant\n",
    "Llama's": "<s>[INST]{}[/INST]",
    "few-shot examples that are problems too": f"Q: {question('3')}\nA: 42\nQ: {question('11')}\nA: 98\nQ: {{}}\nA:",
    "an instruction after it": "Question:{}\nLet's think step by step and put the answer within \\boxed{{}}.",
    "more spaces": "  {}\u00a0\u200b ",
}


@pytest.mark.parametrize("dress", DRESSED)
@pytest.mark.parametrize("name", ["7", "tall", "sum", "long"])
def test_a_dressed_prompt_asks_its_problem(name: str, dress: str) -> None:
    prompt = DRESSED[dress].format((ASKED | OTHERS)[name][0])
    assert list(QUESTIONS.asked(prompt)) == [name]


def test_spaces_line_breaks_and_other_forms_of_the_same_letters_do_not_matter() -> None:
    assert list(QUESTIONS.asked("If x2+1=5,\r\nhow tall is Zoe\u0308’s 3 1⁄2 m tree?".replace("3 1", "31"))) == ["tall"]
    assert list(QUESTIONS.asked(question("7").replace(" ", "\n"))) == ["7"]


def test_what_is_nearly_a_question_or_too_short_to_tell_asks_nothing() -> None:
    assert not QUESTIONS.asked(question("7").replace("10", "99"))
    assert not QUESTIONS.asked(question("7")[:-10])
    assert not QUESTIONS.asked("What is x here?")  # "x" alone is a question, and here it is a word
    assert list(QUESTIONS.asked("x")) == ["one"]
    assert not QUESTIONS.asked("")


def test_two_problems_that_ask_the_same_are_both_told() -> None:
    assert list(QUESTIONS.asked("Q: Same? Yes.")) == ["twin a", "twin b"]

"""Whatever an error tells of, its text is one printable line that can be read."""

import pytest

from tiltlab.errors import CUT, LONGEST, UserError, brief, said, shown, words


@pytest.mark.parametrize(
    ("text", "said"),
    [("a\n b\t\x1b[31mc", "a b [31mc"), ("caf\u00e9 \ud800", "caf\u00e9"), ("x" * LONGEST, "x" * LONGEST), ("", "")],
)
def test_an_error_is_one_printable_line(text: str, said: str) -> None:
    assert str(UserError(text)) == said


def test_a_long_one_keeps_its_beginning_and_its_end() -> None:
    said = str(UserError(f"recipe r.yaml: got {'x' * 200_000}; do that"))
    assert len(said) == CUT
    assert said.startswith("recipe r.yaml: got xxx")
    assert said.endswith("xxx; do that")
    assert "…" in said
    assert brief(ValueError("a\nb")) == "a b"


def test_values_are_shown_short_whatever_they_are() -> None:
    nested: list[object] = []
    nested.append(nested)
    tower: object = 0
    for _ in range(60):
        tower = [tower] * 9  # 9^60 values, were they written out
    for value in ("x" * 10**6, 10**5000, list(range(10**5)), nested, tower, {"k" * 10**5: "v" * 10**5}):
        assert len(shown(value)) <= 120
    assert shown("a") == "'a'"
    assert shown(["a", 1]) == "['a', 1]"


def test_an_error_is_said_with_or_without_its_kind() -> None:
    from_system = FileNotFoundError(2, "No such file or directory", "some/where")
    assert said(from_system) == "FileNotFoundError: [Errno 2] No such file or directory: 'some/where'"
    assert words(from_system) == "No such file or directory"
    assert words(OSError("it is a\nfolder")) == "it is a folder"
    assert said(ValueError("a\x00\nb")) == "ValueError: a b"
    assert words(None) == "None"
    assert max(len(words(ValueError("x" * 10**6))), len(said(ValueError("x" * 10**6)))) <= CUT

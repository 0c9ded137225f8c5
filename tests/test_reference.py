"""The reference of docs/: what it makes of docstrings before mkdocs renders them."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from inspect import getdoc
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tiltlab.grading.units import Unit

PATH = Path(__file__).parent.parent / "docs" / "fields.py"


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Any:
    """docs/fields.py, without griffe, which only building the site takes."""
    griffe = ModuleType("griffe")
    monkeypatch.setattr(griffe, "Extension", object, raising=False)
    monkeypatch.setitem(sys.modules, "griffe", griffe)
    spec = spec_from_file_location("fields", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_fields_become_items_and_what_is_indented_goes_on_with_them(reference: Any) -> None:
    text = "A value.\n\nkind: of it,\n    which may be long.\na_N, b_N: int64 [N].\n\nRaises ValueError."
    assert reference.as_list(text) == (
        "A value.\n\n- `kind`: of it,\n    which may be long.\n- `a_N`, `b_N`: int64 [N].\n\nRaises ValueError."
    )


@pytest.mark.parametrize(
    "text",
    [
        "One sentence: it has a colon.",
        "A paragraph that\ngoes on: here, and is prose.",
        "Left out on purpose: everything else.",
        "- an item: of its own\n- another",
        "    code: stays\n    as: it is",
    ],
)
def test_prose_lists_and_code_stay(reference: Any, text: str) -> None:
    assert reference.as_list(text) == text


def test_an_object_without_a_docstring_is_left_alone(reference: Any) -> None:
    bare = SimpleNamespace(docstring=None)
    told = SimpleNamespace(docstring=SimpleNamespace(value=getdoc(Unit)))
    for obj in (bare, told):
        reference.Fields().on_object(obj=obj, loader=None)
    assert bare.docstring is None
    assert told.docstring.value.count("- `") == 2

"""How the reference shows docstrings: fields and arguments, which stand a line each in the source, as a list.

A griffe extension (see mkdocs.yml).
"""

import re
from typing import Any

from griffe import Extension

NAMES = re.compile(r"([a-z_*][\w*-]*(?:, [a-z_*][\w*-]*)*): ")
"""One name or several, and a colon: how the line of a field begins."""


def as_list(docstring: str) -> str:
    """A docstring in which each paragraph of fields has become a Markdown list."""
    return "\n\n".join(_shown(paragraph) for paragraph in re.split(r"\n\s*\n", docstring))


def _shown(paragraph: str) -> str:
    """Lines that begin with names are items; those indented below them go on with the item."""
    lines = paragraph.splitlines()
    if not all(NAMES.match(line) or (i and line.startswith("    ")) for i, line in enumerate(lines)):
        return paragraph
    return "\n".join(NAMES.sub(_item, line, count=1) if not line.startswith(" ") else line for line in lines)


def _item(match: re.Match[str]) -> str:
    return f"- {', '.join(f'`{name}`' for name in match[1].split(', '))}: "


class Fields(Extension):
    """Rewrites the docstring of every object that griffe has read."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Called by griffe once for each."""
        if obj.docstring:
            obj.docstring.value = as_list(obj.docstring.value)

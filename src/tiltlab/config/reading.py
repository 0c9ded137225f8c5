"""YAML text -> values, for recipes and for `--task`."""

from typing import Any

import yaml

from tiltlab.errors import UserError, brief

MOST_VALUES = 100_000
"""In a recipe, an alias counted each time that it is used: ten lines of them can stand for more than fits in memory."""


def yaml_value(text: str, name: str) -> Any:
    """The value that a YAML text stands for; None for an empty one. No code in it is run.

    name: what a message calls the text.

    Raises UserError for text that is no YAML, or stands for more than fits in memory.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MOST_VALUES:
            raise ValueError(f"its aliases (*name) make it more than {MOST_VALUES} values")
        return loader.construct_document(node)
    except RecursionError as error:
        raise UserError(f"{name} is not YAML that can be read: it is nested too deep") from error
    except Exception as error:  # yaml lets errors of other kinds through: a month 13 in a date, an `!!int` of nothing
        raise UserError(f"{name} is not YAML: {brief(error)}") from error


def _size(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """How many values a node stands for. Raises ValueError for one that holds itself."""
    if node not in known:
        known[node] = -1  # being counted
        parts = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[node] = 1 + sum(_size(part, known) for part in (parts if not isinstance(node, yaml.ScalarNode) else ()))
    if known[node] < 0:
        raise ValueError("an alias (*name) stands for what it is part of")
    return known[node]

"""Recipes and run folders of earlier versions, in the words of today. Pure.

`select` was the validation split: a section of a study's recipe, the rows of a task, and the split of an evaluation.
"""

import re
from typing import Any

from tiltlab.storage.files import Json

OLD, NEW = "select", "validation"


def renamed(recipe: Json) -> Json:
    """A recipe of a study or an evaluation with today's keys; one that has both is left with both."""
    made: Json = dict(_key(recipe))
    if isinstance(made.get("tasks"), list):
        made["tasks"] = [_key(task) for task in made["tasks"]]
    if "task" in made:
        made["task"] = _key(made["task"])
    if made.get("split") == OLD:
        made["split"] = NEW
    return made


def renamed_override(override: str) -> str:
    """Likewise a change to a recipe's key: select.every=5, tasks.0.select=6."""
    path, equals, value = override.partition("=")
    return re.sub(rf"^(tasks\.\d+\.|task\.|){OLD}(?=\.|$)", rf"\g<1>{NEW}", path) + equals + value


def renamed_study(about: Json) -> Json:
    """Likewise study.json: its recipe, and the splits of its data."""
    data = {task: _key(splits) for task, splits in about["data"].items()}
    return about | {"recipe": renamed(about["recipe"]), "data": data}


def _key(values: Any) -> Any:
    """Keys stay in their order. What is no mapping is left as it is."""
    if not isinstance(values, dict) or NEW in values:
        return values
    return {NEW if key == OLD else key: value for key, value in values.items()}

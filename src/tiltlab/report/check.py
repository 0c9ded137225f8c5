"""What `tiltlab check` has to say, as one HTML page that needs no network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiltlab.report.html import render_page
from tiltlab.storage.files import write_text


def write_check_page(name: str, checked: Any, made: Mapping[str, Any], path: Path) -> None:
    """Write the page of a reward's check.

    name: of the task and the reward.
    checked: a tiltlab.evaluation.reward_audit.Checked.
    made: how (tiltlab.system.provenance).
    """
    write_text(path, render_page("check.html.j2", {}, name=name, checked=checked, made=made))

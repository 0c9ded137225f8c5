"""What `tiltlab check` found as one HTML page that needs no network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiltlab.report.html import render_page
from tiltlab.storage.files import write_text


def write_check_page(name: str, checked: Any, made: Mapping[str, Any], path: Path) -> None:
    """`checked`: a tiltlab.evaluation.reward_audit.Checked."""
    write_text(path, render_page("check.html.j2", {}, name=name, checked=checked, made=made))

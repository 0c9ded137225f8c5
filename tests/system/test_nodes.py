"""What nodes of a cluster must have in common, judged by what they answer."""

import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiltlab.errors import UserError
from tiltlab.system.nodes import (
    LOCK,
    Arrived,
    Looked,
    look,
    meeting_place,
    require_alike,
    require_same_versions,
    require_shared,
    versions_here,
)

HERE = {"Python": "3.11.7", "tiltlab": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"}
WELL = Arrived(HERE, None)


@pytest.mark.parametrize("package", HERE)
@pytest.mark.parametrize("other", ["9.9", None])
def test_a_node_with_another_version_is_named_with_both(package: str, other: str | None) -> None:
    with pytest.raises(UserError) as told:
        require_same_versions(HERE, {"node a": HERE, "node b": HERE | {package: other}})
    (line,) = told.value.lines
    assert line.startswith(f"node b has {package} {other or 'not installed'}, and {HERE[package]} is here")
    require_same_versions(HERE, {"node a": HERE, "node b": HERE})


@pytest.mark.parametrize(
    ("arrived", "looked", "said"),
    [
        ({"node b": Arrived(HERE, "No such file or directory")}, {}, "node b cannot write .*No such file"),
        ({}, {"node b": Looked(("node a",), True)}, "node b does not see what node a writes"),
        ({}, {"node a": Looked(("this machine",), True)}, "node a does not see what this machine writes"),
        ({}, {"node b": Looked((), False)}, "a lock on .* is none for node b"),
    ],
)
def test_storage_that_is_not_shared_is_refused_in_one_line(arrived: Any, looked: Any, said: str) -> None:
    well = {"node a": Looked((), True), "node b": Looked((), True)}
    with pytest.raises(UserError, match=f"{said}.*give an --out on storage") as told:
        require_shared(Path("runs/x"), {"node a": WELL, "node b": WELL} | arrived, well | looked)
    assert len(told.value.lines) == 1


def each(function: Callable[..., Any], arguments: Any) -> list[Any]:
    return [function(*given) for given in arguments]


def test_nodes_that_share_all_leave_nothing_behind(tmp_path: Path) -> None:
    require_alike(["a", "b"], each, tmp_path / "not" / "there")
    assert not list(tmp_path.iterdir())


def test_a_node_with_a_disk_of_its_own_is_found_out(tmp_path: Path) -> None:
    (disk := tmp_path / "disk").mkdir()
    (shared := tmp_path / "shared").mkdir()

    def everywhere(function: Callable[..., Any], arguments: Any) -> list[Any]:
        (_, *first), (folder, *second) = arguments
        own = disk / folder.name  # what node b has under the same name
        own.mkdir(exist_ok=True)
        (own / LOCK).touch()
        more = [0.0] if function is look else []
        return [function(folder, *first), function(own, *second, *more)]

    with pytest.raises(UserError, match="this machine does not see what node b writes"):
        require_alike(["a", "b"], everywhere, shared / "run")
    assert not list(shared.iterdir())


def test_a_node_with_another_torch_is_found_out(tmp_path: Path) -> None:
    def everywhere(function: Callable[..., Any], arguments: Any) -> list[Any]:
        return [Arrived(versions_here() | {"torch": "1.0"}, None) for _ in arguments]

    with pytest.raises(UserError, match=r"node a has torch 1\.0, and .* is here"):
        require_alike(["a"], everywhere, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_lock_that_nobody_holds_is_told(tmp_path: Path) -> None:
    with meeting_place(tmp_path) as folder:
        assert look(folder, []).locked
    with (tmp_path / LOCK).open("w") as file:
        assert not look(tmp_path, []).locked
        fcntl.flock(file, fcntl.LOCK_EX)
        assert look(tmp_path, []).locked


def test_a_folder_that_cannot_be_written_in_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written in"), meeting_place(Path("/proc/none")):
        pass

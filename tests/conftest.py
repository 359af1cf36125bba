"""Paths every test needs: the package, and real data where there is some."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "scripts"))


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the root of the checkout."""
    return REPOSITORY


def _folder_or_skip(variable: str, default: Path) -> Path:
    folder = Path(os.environ.get(variable, default))
    if not folder.is_dir():
        pytest.skip(f"no folder {folder.name} beside the checkout and {variable} is not set")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real slides and images; skip where it is absent."""
    return _folder_or_skip("STAINFUSER_SHARED_DATA", REPOSITORY.parent / "shared" / "data")


@pytest.fixture(scope="session")
def shared_fixtures() -> Path:
    """Return the folder of published reference numbers; skip where it is absent."""
    default = REPOSITORY.parent / "shared" / "fixtures"
    return _folder_or_skip("STAINFUSER_SHARED_FIXTURES", default)

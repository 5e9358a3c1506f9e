"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import bandits
import decisioning
import features

MODULES = sorted(
    f"{package.__name__}.{module.name}"
    for package in (bandits, decisioning, features)
    for module in pkgutil.iter_modules(package.__path__)
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name: str) -> None:
    """Every example of a module gives what it says."""
    found = doctest.testmod(importlib.import_module(name), extraglobs={})
    assert found.failed == 0

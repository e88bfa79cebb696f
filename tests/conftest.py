"""Shapes and types of every annotated function are checked while the tests run; few threads, so that runs repeat.

GLIMPSENET_TEST_THREADS sets the threads of each process; 1 if it is not set.

Every fixture and every test starts from random numbers of its own, whatever ran before it.
"""

import importlib.util
import os
import random
import sys
import zlib
from pathlib import Path
from types import ModuleType

import jaxtyping
import numpy as np
import pytest

with jaxtyping.install_import_hook("glimpsenet", "beartype.beartype"):
    import glimpsenet  # noqa: F401

import torch

torch.set_num_threads(int(os.environ.get("GLIMPSENET_TEST_THREADS", "1")))
MARGINS = Path(__file__).parents[1] / "benchmarks/margins.py"


def start_random_numbers(name: str) -> None:
    seed = zlib.crc32(name.encode())
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef) -> None:
    start_random_numbers(fixturedef.argname)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    start_random_numbers(item.nodeid)


@pytest.fixture(scope="session")
def margins() -> ModuleType:
    """What is trained in tests, with the bounds that ten seeds confirm."""
    specification = importlib.util.spec_from_file_location("margins", MARGINS)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["margins"] = module  # its dataclasses look themselves up
    specification.loader.exec_module(module)
    return module

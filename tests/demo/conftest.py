"""The page with the model that comes with the package, and pictures to show it."""

import pytest

from glimpsenet.demo.examples import choose_examples
from glimpsenet.demo.exhibit import SHIPPED, open_exhibits


@pytest.fixture(scope="session")
def exhibits():
    return open_exhibits([SHIPPED], "cpu")


@pytest.fixture(scope="session")
def examples(exhibits):
    return choose_examples(exhibits[0].run, None, public=True)

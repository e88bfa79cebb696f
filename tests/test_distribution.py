"""The wheel, built here and looked into; ``make dist`` also installs and uses it."""

import runpy
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import glimpsenet

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    return Path(next(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])))


@pytest.fixture(scope="module")
def check_wheel():
    return runpy.run_path(str(ROOT / "tools/check_dist.py"))["check_wheel"]


def test_the_wheel_holds_the_package_and_nothing_else(wheel, check_wheel):
    check_wheel(wheel)
    with zipfile.ZipFile(wheel) as archive:
        modules = {name for name in archive.namelist() if name.endswith(".py")}
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        told = BytesParser().parsebytes(archive.read(metadata))
    assert modules == {str(file.relative_to(ROOT / "src")) for file in (ROOT / "src").rglob("*.py")}
    assert (told["Name"], told["Version"]) == ("glimpsenet", glimpsenet.__version__)


@pytest.mark.parametrize(
    ("lost", "added", "told"),
    [
        ("glimpsenet/py.typed", None, "lacks glimpsenet/py.typed"),
        ("glimpsenet/templates/card.md.jinja", None, "lacks glimpsenet/templates/card.md.jinja"),
        (None, "glimpsenet/photo.jpg", "holds glimpsenet/photo.jpg"),
        (None, "tests/test_public.py", "holds tests/test_public.py"),
    ],
)
def test_a_wrong_wheel_is_refused(wheel, check_wheel, tmp_path, lost, added, told):
    wrong = tmp_path / wheel.name
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(wrong, "w") as target:
        for name in source.namelist():
            if name != lost:
                target.writestr(name, source.read(name))
        if added:
            target.writestr(added, "")
    with pytest.raises(SystemExit, match=told):
        check_wheel(wrong)

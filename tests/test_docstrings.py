"""Every public name has an example, and every example in a docstring runs, in a folder with a run and a photo."""

import doctest
import importlib
import pkgutil
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image

import glimpsenet
from glimpsenet.demo.exhibit import SHIPPED
from glimpsenet.models.build import build_model
from glimpsenet.models.config import MGNetConfig
from glimpsenet.runs.mgnet import _their_name

MODULES = [
    info.name for info in pkgutil.walk_packages(glimpsenet.__path__, "glimpsenet.") if ".__main__" not in info.name
]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples(module_name: str) -> list[doctest.DocTest]:
    module = importlib.import_module(module_name)
    names = {"glimpsenet": glimpsenet, "torch": torch, "replace": replace}
    return [test for test in doctest.DocTestFinder().find(module, globs=names) if test.examples]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("examples")
    shutil.copytree(SHIPPED, place / "runs" / "digits")
    Image.effect_noise((90, 70), 60).save(place / "photo.png")
    model = build_model(MGNetConfig(image_size=64).model(), num_classes=5, initial_weights=False)
    state = {f"model.{_their_name(name)}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state}, place / "mgnet.ckpt")
    return place


def test_every_public_name_has_an_example():
    missing = [name for name in glimpsenet.__all__ if ">>>" not in (getattr(glimpsenet, name).__doc__ or "")]
    assert not missing


@pytest.mark.parametrize("module", [name for name in MODULES if examples(name)])
def test_examples_in_docstrings_run(module, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for test in examples(module):
        told: list[str] = []
        runner.run(test, out=told.append)
        assert not runner.failures, "".join(told)

"""What is promised stays: public names with their signatures, settings, commands, files (docs/stability.md).

A failure here says that somebody's program breaks. A new name is added to the list; another change needs what
docs/stability.md says about deprecation.
"""

import importlib
import inspect
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

import glimpsenet
from glimpsenet.cli import main
from glimpsenet.config import Config
from glimpsenet.data.config import DigitsConfig, FolderConfig
from glimpsenet.models.config import AttentionConfig, BilinearConfig, ModelConfig, PositionalClueConfig
from glimpsenet.policies.config import LinearConfig, SpatiotemporalConfig, TokenConfig
from glimpsenet.training.config import (
    BoxesConfig,
    PathwiseConfig,
    PolicyGradientConfig,
    TrainingConfig,
    ValueMapConfig,
)

ROOT = Path(__file__).parents[1]


NAMES = {
    "CenterGlimpses": "(scale_range, glimpse_size)",
    "ExitRule": "(threshold, score='confidence')",
    "FixedGlimpses": "(windows, otherwise)",
    "GlimpseNet": "(*, generator, backbone, clue, fusion, policy, num_classes, num_glimpses=4, normalization, "
    "auxiliary=True, glimpse_ensemble=False)",
    "GlimpseOutput": "(logits, windows, features, auxiliary_logits, state=...)",
    "OracleGlimpses": "(scale_range, boxes)",
    "Policy": "(*args, **kwargs)",
    "Predictor": "(model, rule=...)",
    "RandomGlimpses": "(scale_range, seed=0)",
    "Run": "(config, classes, channels, model, folder)",
    "Summary": "(parts, cost, image_size)",
    "UserError": "(*args)",
    "accelerate": "(model, *, compiled=False)",
    "create_model": "(backbone='resnet18', *, num_classes, in_channels=3, like=None, **settings)",
    "fit": "(config, out, *, model=None, objective=None, resume=False, overwrite=False, device='auto', devices=1, "
    "num_nodes=1)",
    "list_recipes": "(filter='')",
    "load": "(folder, device='cpu')",
    "load_mgnet": "(path, *, backbone='resnet18', num_glimpses=4, scale_factor=2.33, scale_range=..., image_size=224)",
    "load_run": "(folder, device='cpu', *, model=None)",
    "predict": "(run, files, *, batch_size=32, policy=None, rule=...)",
    "recipe": "(name)",
    "summary": "(model, image_size=224)",
}
METHODS = {
    "GlimpseNet.forward": "(self, images, *, policy=None, num_glimpses=None)",
    "GlimpseNet.crops": "(self, images, windows)",
    "Policy.choose": "(self, state)",
    "Predictor.__call__": "(self, images, *, policy=None, num_glimpses=None)",
    "Run.from_pretrained": "(pretrained_model_name_or_path, *, device='cpu', **options)",
    "Run.push_to_hub": "(self, repo_id, *, token=None, **options)",
    "Run.save_pretrained": "(self, save_directory, **options)",
}
GEOMETRY = {
    "window_to_box": "(windows, image_size)",
    "window_to_matrix": "(windows)",
    "box_to_window": "(box, image_size)",
    "covered_share": "(windows, box, image_size)",
    "matrix_to_window": "(matrix)",
    "normalized_to_pixel": "(coordinate, image_size)",
    "pixel_to_normalized": "(pixel, image_size)",
}
SETTINGS = {
    Config: "model data training seed",
    DigitsConfig: "train_scenes val_scenes test_scenes num_clutter noise",
    FolderConfig: "data augmentation skip_bad value_range",
    ModelConfig: "backbone backbone_weights pretrained freeze_backbone batch_norm num_glimpses image_size glimpse_size "
    "scale_range auxiliary_classifier glimpse_ensemble sampling clue fusion policy",
    TrainingConfig: "epochs max_steps batch_size optimizer learning_rate weight_decay warmup_share auxiliary_weight "
    "auxiliary_decay diversity diversity_until random_until policy_learning_rate gradient_clip precision workers "
    "validations log_localization_statistics objective",
    LinearConfig: "gradient_factor noise",
    SpatiotemporalConfig: "layer gradient_factor noise",
    TokenConfig: "layer scales subcells max_overlap stop_gradient",
    BilinearConfig: "align_corners",
    PositionalClueConfig: "with_scale",
    AttentionConfig: "num_heads uniform",
    PathwiseConfig: "scale_penalty overlap_penalty large_until gradient_share",
    ValueMapConfig: "weight reward",
    PolicyGradientConfig: "weight reward discount entropy_weight",
    BoxesConfig: "weight",
}
COMMANDS = "train evaluate predict export summary push pull reproduce demo inspect bench data import-mgnet"


def signature(thing: object) -> str:
    """Names, kinds and plain defaults of the parameters; annotations may become more exact."""
    if thing is glimpsenet.UserError:
        return "(*args)"
    shown = []
    for parameter in inspect.signature(thing).parameters.values():
        plain = parameter.default is parameter.empty or isinstance(parameter.default, int | float | str | None)
        shown.append(parameter.replace(annotation=parameter.empty, **({} if plain else {"default": ...})))
    return str(inspect.Signature(shown)).replace("=Ellipsis", "=...")


def test_the_names_of_the_package():
    assert sorted(glimpsenet.__all__) == glimpsenet.__all__ == sorted(NAMES)
    assert {name: signature(getattr(glimpsenet, name)) for name in glimpsenet.__all__} == NAMES


def test_methods_and_geometry():
    found = {}
    for name in METHODS:
        owner, method = name.split(".")
        found[name] = signature(getattr(getattr(glimpsenet, owner), method))
    assert found == METHODS
    geometry = importlib.import_module("glimpsenet.geometry")
    assert {name: signature(getattr(geometry, name)) for name in GEOMETRY} == GEOMETRY


@pytest.mark.parametrize(("kind", "names"), SETTINGS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_settings_are_never_lost_since_every_run_folder_names_them_all(kind, names):
    assert [entry.name for entry in fields(kind)] == names.split()


def test_the_commands(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    (listed,) = re.findall(r"usage: glimpsenet \[-h\] \{([\w,-]+)\}", capsys.readouterr().out)
    assert set(listed.split(",")) == set(COMMANDS.split())


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'create_modell'"):
        glimpsenet.create_modell  # noqa: B018


def test_the_version_is_pyprojects_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert glimpsenet.__version__ == version
    assert re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.M) == [version]
    told = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert told[0] == "Unreleased" or told[0].startswith(f"{version} ")

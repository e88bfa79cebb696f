"""The paper's rows differ from the baseline in what Table 1 says, and in nothing else."""

from pathlib import Path

import pytest

from glimpsenet.config import from_dict, to_dict
from glimpsenet.data.config import DigitsConfig, ImageNetAugmentation
from glimpsenet.errors import SettingError
from glimpsenet.models.build import build_model
from glimpsenet.models.config import AffineClueConfig, AttentionConfig, BilinearConfig
from glimpsenet.policies.config import LinearConfig
from glimpsenet.recipes import PAPER, RECIPES, baseline, list_recipes, recipe
from glimpsenet.reproduction.rows import OURS, ROWS, WHOLE, Setting, row_config

CLUE = {"model.clue.kind": "positional", "model.clue.with_scale": False}
LOCALIZATION = {"model.policy.kind": "spatiotemporal", "model.policy.layer": -1}
SEVENTH = {
    "model.policy.layer": -2,
    "model.glimpse_size": 32,
    "model.scale_range": (1 / 7, 0.99),
}
PRETRAINED = {"model.backbone": "resnet18.tv_in1k", "model.pretrained": True}

DIFFERENCES = {
    "baseline": {},
    "2d-spatial-clue": CLUE,
    "2d-spatial-loc": LOCALIZATION,
    "2d-spatial-loc-s7": LOCALIZATION | SEVENTH,
    "2d-spatial-loc-s7-no-aux": LOCALIZATION | SEVENTH | {"training.auxiliary_weight": 0.0},
    "multihead-attention": CLUE | {"model.fusion.num_heads": 4},
    "pretrained": CLUE | PRETRAINED,
    "pretrained-frozen": CLUE | PRETRAINED | {"model.freeze_backbone": True},
}


def flatten(values: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


@pytest.mark.parametrize("name", PAPER)
def test_rows_differ_from_the_baseline_only_in_what_the_table_says(name):
    base, row = flatten(to_dict(baseline())), flatten(to_dict(RECIPES[name]()))
    changed = {key: value for key, value in row.items() if key not in base or value != base[key]}
    assert changed == DIFFERENCES[name]


def test_the_baseline_is_the_papers():
    config = baseline()
    model, training = config.model, config.training
    assert (model.backbone, model.num_glimpses, model.image_size, model.glimpse_size) == ("resnet18", 4, 224, 96)
    assert (model.scale_range, model.policy, model.batch_norm) == (
        (0.2, 0.5),
        LinearConfig(gradient_factor=0.02),
        "shared",
    )
    assert (model.sampling, model.clue, model.fusion) == (
        BilinearConfig(align_corners=True),
        AffineClueConfig(),
        AttentionConfig(num_heads=1),
    )
    assert (training.optimizer, training.learning_rate, training.weight_decay) == ("sgd", 0.1, 1e-4)
    assert (training.epochs, training.batch_size, training.warmup_share, training.auxiliary_weight) == (
        400,
        256,
        0.2,
        0.6,
    )
    assert config.data.augmentation == ImageNetAugmentation()


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_its_run_folder_and_says_what_it_is(name):
    config = RECIPES[name]()
    assert from_dict(to_dict(config)) == config
    assert RECIPES[name].__doc__
    if name in PAPER:
        assert f"glimpsenet train {name} " in RECIPES[name].__doc__
        assert f"{PAPER[name][1]:.2f}%" in RECIPES[name].__doc__


@pytest.mark.parametrize("name", ROWS)
def test_rows_on_digits_are_small_and_else_the_papers(name):
    config = row_config(name, Setting(), seed=3)
    assert isinstance(config.data, DigitsConfig)
    assert (config.model.backbone, config.model.image_size, config.seed) == ("glimpse_cnn", 80, 3)
    assert config.model.glimpse_size == (80 if name == WHOLE else 11 if "s7" in name else 20)
    assert config.training.precision == "float32"
    assert config.model.batch_norm == ("separate" if name == OURS else "shared")
    paper = baseline() if name == OURS else RECIPES[name]()
    for setting in (
        "scale_range",
        "clue",
        "fusion",
        "policy",
    ):
        assert getattr(config.model, setting) == getattr(paper.model, setting)
    assert config.training.auxiliary_weight == paper.training.auxiliary_weight
    build_model(config.model, num_classes=10, in_channels=1)


def test_rows_on_a_folder_keep_the_share_of_glimpses():
    setting = Setting(data=Path("photos"), image_size=112, backbone="resnet18", backbone_weights=Path("w.safetensors"))
    row = row_config("2d-spatial-loc-s7", setting, 0)
    assert (row.model.image_size, row.model.glimpse_size) == (112, 16)
    assert row.model.backbone_weights is None
    assert row_config("baseline", setting, 0).model.glimpse_size == 48  # 112 // 2.33
    assert row_config("pretrained", setting, 0).model.backbone_weights == Path("w.safetensors")


def test_recipes_are_listed_by_pattern_and_fetched_by_name():
    assert list_recipes() == list(RECIPES)
    assert list_recipes("digits*") == ["digits", "digits-far", "digits-pathwise", "digits-whole-image"]
    assert list_recipes("digit") == []
    assert recipe("baseline") == baseline()
    with pytest.raises(SettingError, match="no recipe 'digit-far'; did you mean 'digits-far'"):
        recipe("digit-far")

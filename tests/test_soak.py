"""The short form of ``benchmarks/soak.py``: leaks of a file or a picture a round would show within seconds."""

import importlib.util
from pathlib import Path

import pytest

from glimpsenet.config import Config
from glimpsenet.data.config import DigitsConfig
from glimpsenet.models.config import ModelConfig
from glimpsenet.training.config import TrainingConfig

pytestmark = pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*", "ignore:Checkpoint directory .* exists")

SCRIPT = Path(__file__).parents[1] / "benchmarks/soak.py"
SMALL = Config(
    model=ModelConfig(backbone="glimpse_cnn", num_glimpses=2, image_size=20, glimpse_size=8),
    data=DigitsConfig(train_scenes=64, val_scenes=8),
    training=TrainingConfig(batch_size=4, precision="float32", optimizer="adamw", learning_rate=1e-3),
)


@pytest.fixture(scope="module")
def soak():
    specification = importlib.util.spec_from_file_location("soak", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_training_over_many_checkpoints_keeps_its_size(soak, tmp_path):
    looks = iter(range(40))
    result = soak.soak_training(tmp_path, lambda: next(looks) >= 31, every=4, config=SMALL)
    assert (result["steps"], result["looks"]) == (128, 32)
    assert result["files_growth"] <= soak.MOST_FILES
    assert result["megabytes_growth"] <= soak.MOST_MEGABYTES


def test_predictions_keep_their_size(soak, tmp_path):
    result = soak.soak_predictions(tmp_path, 2000)
    assert result["predictions"] == 2000
    assert result["unreadable"] == 320  # 8 of 50
    assert result["files_growth"] <= soak.MOST_FILES
    assert result["megabytes_growth"] <= soak.MOST_MEGABYTES


def test_growth_is_seen(soak):
    assert soak.growth([100, 100, 100, 100, 100, 100, 100, 100]) == 0
    assert soak.growth([50, 90, 100, 100, 100, 100, 100, 100]) == 0  # warming up
    assert soak.growth(list(range(0, 800, 10))) > soak.MOST_MEGABYTES
    watch = soak.Watch(megabytes=[100.0] * 8, files=[5, 5, 5, 6, 7, 8, 9, 10])
    assert not watch.result()["passed"]
    assert not soak.Watch(megabytes=[1.0], files=[5]).result()["passed"]  # too few looks to say

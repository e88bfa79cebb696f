"""WebDataset shards: the samples of the folder they were made of, in an order that resumes."""

import itertools
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from glimpsenet.cli import main
from glimpsenet.config import Config
from glimpsenet.data.config import FolderConfig, NoAugmentation
from glimpsenet.data.folder import open_folder
from glimpsenet.data.loading import create_loader, open_data
from glimpsenet.data.shards import ShardDataset, read_shard
from glimpsenet.data.streams import ShardStream
from glimpsenet.errors import UserError
from glimpsenet.models.config import ModelConfig
from glimpsenet.training.config import TrainingConfig
from glimpsenet.training.fit import fit

pytestmark = pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*", "ignore:Checkpoint directory .* exists")

MODEL = ModelConfig(backbone="glimpse_cnn", num_glimpses=2, image_size=16, glimpse_size=8, batch_norm="separate")
TRAINING = TrainingConfig(max_steps=7, batch_size=4, precision="float32", validations=3, learning_rate=1e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """11 training photos and 5 to validate with, of two classes."""
    root = tmp_path_factory.mktemp("photos") / "folder"
    rng = np.random.default_rng(0)
    for split, count in {"train": 11, "val": 5}.items():
        for place in range(count):
            file = root / split / ("blue", "red")[place % 2] / f"{place}.{('png', 'jpg')[place % 3 == 0]}"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(256, size=(20, 24, 3), dtype=np.uint8)).save(file)
    return root


@pytest.fixture(scope="module")
def shards(folder) -> Path:
    out = folder.parent / "shards"
    main(["data", "shards", str(folder), str(out), "--samples", "4"])
    return out


def config_of(data: Path, **settings) -> Config:
    return Config(model=MODEL, data=FolderConfig(data=data, **settings), training=TRAINING)


def test_shards_hold_the_images_of_the_folder_as_they_are(folder, shards):
    assert sorted(file.name for file in shards.glob("*.tar")) == [
        *(f"train-00000{n}.tar" for n in range(3)),
        *(f"val-00000{n}.tar" for n in range(2)),
    ]
    assert json.loads((shards / "sizes.json").read_text())["train-000002.tar"] == 3
    ours = open_data(config_of(shards, augmentation=NoAugmentation()))
    theirs = open_folder(FolderConfig(data=folder, augmentation=NoAugmentation()), 16, seed=0)
    assert ours.classes == theirs.classes == ["blue", "red"]
    for one, other in ((ours.train, theirs.train), (ours.val, theirs.val)):
        assert isinstance(one, ShardDataset)

        def contents(dataset):
            samples = [dataset[0, place] for place in range(len(dataset))]
            assert list(dataset.labels) == [sample.label for sample in samples]
            return sorted((sample.label, sample.image.numpy().tobytes()) for sample in samples)

        assert contents(one) == contents(other)


@pytest.mark.filterwarnings("ignore:Exception ignored in", "ignore:unclosed file")  # the library's
def test_the_library_itself_reads_them(shards):
    import webdataset

    labels = [
        int(cls)
        for (cls,) in webdataset.WebDataset([str(shards / "train-000000.tar")], shardshuffle=False).to_tuple("cls")
    ]
    assert len(labels) == 4


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (0, 2), (1, 2)])
def test_the_order_resumes_anywhere(rank, world_size):
    def stream(start: int, count: int):
        addresses = iter(ShardStream([4, 4, 3], 7, start=start, rank=rank, world_size=world_size))
        return [next(addresses) for _ in range(count)]

    whole = stream(0, 60)
    for done in (1, 4, 11, 17):
        assert stream(done * world_size, 30) == whole[done : done + 30]
    whole = [next(addresses) for addresses in [iter(ShardStream([4, 4, 3], 7))] for _ in range(33)]
    for epoch in range(3):
        seen = [index for number, index in whole if number == epoch]
        assert sorted(seen) == list(range(11))
        shard_of = [index // 4 for index in seen]
        assert sum(one != other for one, other in itertools.pairwise(shard_of)) == 2  # one shard at a time
    assert whole[:11] != [(0, index) for _, index in whole[11:22]]


def test_each_shard_is_read_once_an_epoch(shards, monkeypatch):
    data, read = open_data(config_of(shards)).train, []
    monkeypatch.setattr("glimpsenet.data.shards.read_shard", lambda file: read.append(file.name) or read_shard(file))
    loader = iter(create_loader(data, ShardStream(data.sizes, 0), 4))
    for _ in range(2):
        next(loader)
    next(loader)
    assert sorted(read[:3]) == [f"train-00000{n}.tar" for n in range(3)]
    assert len(read) <= 4


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_on_shards_resumes_bit_for_bit(shards, tmp_path, monkeypatch, workers):
    config = config_of(shards)
    config = replace(config, training=replace(TRAINING, workers=workers))
    fit(config, tmp_path / "whole", device="cpu")
    from glimpsenet.training.task import GlimpseTask

    steps, step = iter(range(100)), GlimpseTask.training_step

    def cut(self, batch):
        if next(steps) == 5:
            raise RuntimeError("power cut")
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(GlimpseTask, "training_step", cut)
        with pytest.raises(RuntimeError, match="power cut"):
            fit(config, tmp_path / "cut", device="cpu")
    fit(config, tmp_path / "cut", device="cpu", resume=True)
    one, other = (torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True) for name in ("cut", "whole"))
    torch.testing.assert_close(one["state_dict"], other["state_dict"], rtol=0, atol=0)
    assert (tmp_path / "cut/metrics.csv").read_bytes() == (tmp_path / "whole/metrics.csv").read_bytes()


def copied(shards: Path, tmp_path: Path) -> Path:
    out = tmp_path / "copy"
    out.mkdir()
    for file in shards.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    return out


def test_without_sizes_shards_are_counted(shards, tmp_path):
    data = copied(shards, tmp_path)
    (data / "sizes.json").unlink()
    assert open_data(config_of(data)).train.sizes == [4, 4, 3]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("classes.txt", None, r"cannot read .*classes\.txt"),
        ("classes.txt", b"\n", "names no class"),
        ("sizes.json", b"[1, 2]", r"sizes\.json is damaged"),
        ("sizes.json", b'{"a": -1}', r"sizes\.json is damaged"),
        ("sizes.json", b"[" * 100_000, r"sizes\.json is damaged"),
    ],
)
def test_what_is_wrong_beside_the_shards_is_named(shards, tmp_path, name, content, told):
    data = copied(shards, tmp_path)
    (data / name).unlink()
    if content is not None:
        (data / name).write_bytes(content)
    with pytest.raises(UserError, match=told):
        open_data(config_of(data))


def test_what_is_wrong_in_a_shard_is_a_problem_of_the_sample(shards, tmp_path):
    data = copied(shards, tmp_path)
    (data / "val-000000.tar").write_bytes(b"no tar at all")
    with tarfile.open(data / "val-000001.tar", "w") as shard:
        for name, content in {
            "0.png": b"no image",
            "0.cls": b"1",
            "1.txt": b"",
            "1.cls": b"0",
            "2.jpg": b"",
            "2.cls": b"7",
        }.items():
            (tmp_path / "member").write_bytes(content)
            shard.add(tmp_path / "member", name)
    (data / "sizes.json").write_text('{"val-000000.tar": 1, "val-000001.tar": 3}')
    val = open_data(config_of(data), ["blue", "red"]).val
    problems = [val[0, place].problem for place in range(4)]
    for problem, told in zip(
        problems, ["shard", "cannot read image 0 in", "no image 1 in", "class 7 of 2 in"], strict=True
    ):
        assert told in problem
        assert "\n" not in problem


def test_names_that_are_commands_are_files(tmp_path):
    """webdataset would run "pipe:..." and expand braces."""
    with pytest.raises(UserError, match="cannot read shard"):
        list(read_shard(Path(f"pipe:touch {tmp_path / 'sprung'}")))
    assert not (tmp_path / "sprung").exists()

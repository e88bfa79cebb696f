from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from glimpsenet.data.config import DigitsConfig, LightAugmentation
from glimpsenet.data.digits import DigitScenes
from glimpsenet.data.folder import PhotoDataset
from glimpsenet.data.loading import InOrder, create_loader
from glimpsenet.data.streams import FreshStream, TrainingStream

STREAMS = [TrainingStream, FreshStream]


def take(stream, count: int) -> list[tuple[int, int]]:
    return list(islice(stream, count))


def test_every_epoch_is_another_permutation():
    addresses = take(TrainingStream(20, seed=0), 100)
    epochs = [addresses[20 * epoch : 20 * epoch + 20] for epoch in range(5)]
    for number, epoch in enumerate(epochs):
        assert {number} == {place for place, _ in epoch}
        assert sorted(index for _, index in epoch) == list(range(20))
    orders = {tuple(index for _, index in epoch) for epoch in epochs}
    assert len(orders) == 5
    assert tuple(range(20)) not in orders


def test_the_order_follows_from_the_seed():
    assert take(TrainingStream(20, seed=3), 50) == take(TrainingStream(20, seed=3), 50)
    assert take(TrainingStream(20, seed=3), 20) != take(TrainingStream(20, seed=4), 20)


def test_fresh_data_are_taken_in_plain_order():
    assert take(FreshStream(3, seed=7), 7) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("start", [1, 6, 7, 25])
def test_a_stream_goes_on_anywhere(kind, start):
    assert take(kind(7, seed=1, start=start), 20) == take(kind(7, seed=1), start + 20)[start:]


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("start", [0, 6])
def test_processes_share_the_stream_of_one(kind, start):
    shares = [take(kind(7, seed=1, start=start, rank=rank, world_size=3), 10) for rank in range(3)]
    together = [address for turn in zip(*shares, strict=True) for address in turn]
    assert together == take(kind(7, seed=1, start=start), 30)


@pytest.mark.parametrize("processes", [1, 3, 4, 12])
def test_evaluation_takes_every_sample_once_whatever_the_processes(processes):
    shares = [InOrder(10, rank=rank, world_size=processes) for rank in range(processes)]
    assert sorted(address for share in shares for address in share) == [(0, index) for index in range(10)]
    assert [len(share) for share in shares] == [len(list(share)) for share in shares]
    assert list(shares[0]) == sorted(shares[0])


@pytest.fixture(params=["photos", "scenes"])
def dataset(request, tmp_path):
    if request.param == "scenes":
        return DigitScenes(DigitsConfig(train_scenes=300), "train", canvas=20, seed=2)
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{index}.png" for index in range(7)]
    for file in files:
        Image.fromarray(rng.integers(256, size=(12, 16, 3), dtype=np.uint8)).save(file)
    files[3].write_text("no image")
    boxes = {files[0]: torch.tensor([2.0, 2, 8, 8])}
    return PhotoDataset(files, range(7), LightAugmentation().training_transform(16), boxes=boxes, seed=2)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_worker_processes_make_the_same_batches(dataset):
    alone, helped = (
        take(create_loader(dataset, TrainingStream(len(dataset), seed=1), 5, workers=workers), 4) for workers in (0, 2)
    )
    assert len(alone) == len(helped) == 4
    for one, other in zip(alone, helped, strict=True):
        assert one.problems == other.problems
        for mine, theirs in zip(one[:5], other[:5], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)


def test_batches_keep_the_order_of_the_sampler():
    scenes = DigitScenes(DigitsConfig(val_scenes=10), "val", canvas=20)
    batches = list(create_loader(scenes, InOrder(10), 4))
    assert [batch.places.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert torch.equal(batches[2].images[1], scenes[0, 9].image)

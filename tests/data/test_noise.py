"""What libtiff says: one warning a run, from any thread and process, and not a byte on standard error."""

import io
import os
import random
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glimpsenet.config import Config
from glimpsenet.data.config import FolderConfig, NoAugmentation
from glimpsenet.data.folder import PhotoDataset
from glimpsenet.data.images import _open, decode_image, read_image
from glimpsenet.data.loading import InOrder, create_loader
from glimpsenet.data.noise import one_warning
from glimpsenet.data.transforms import FitSquare
from glimpsenet.errors import DataWarning, UnreadableImageError
from glimpsenet.models.config import ModelConfig
from glimpsenet.training.config import TrainingConfig
from glimpsenet.training.fit import fit


def fax(damaged: bool) -> bytes:
    """A 1-bit TIFF file, CCITT-compressed; damage makes libtiff complain and read on."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(256, size=(48, 64), dtype=np.uint8)
    Image.fromarray(pixels).convert("1").save(file, "TIFF", compression="group4")
    content, rng = bytearray(file.getvalue()), random.Random(1)
    for _ in range(6 * damaged):
        content[rng.randrange(200, 700)] ^= 255
    return bytes(content)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Nine images, the middle one whole."""
    for place in range(9):
        (tmp_path / f"{place}.tif").write_bytes(fax(damaged=place != 4))
    return tmp_path


def messages_of(content: bytes, capfd) -> int:
    """How many lines libtiff prints of an image by itself."""
    with Image.open(io.BytesIO(content)) as image:
        image.load()
    lines = capfd.readouterr().err.splitlines()
    assert all("Fax4Decode: " in line for line in lines)
    return len(lines)


def told_of(action: Callable[[], object]) -> list[str]:
    """Its warnings about data."""
    with pytest.warns(DataWarning) as told:
        action()
    return [str(each.message) for each in told if each.category is DataWarning]


def test_other_readers_of_tiff_files_hear_libtiff_as_before(capfd):
    told_of(lambda: decode_image(fax(damaged=True)))
    assert capfd.readouterr() == ("", "")
    assert messages_of(fax(damaged=True), capfd) > 3
    assert messages_of(fax(damaged=False), capfd) == 0


def test_an_image_by_itself_is_a_warning_by_itself(folder, capfd):
    messages = messages_of(fax(damaged=True), capfd)
    read_image(folder / "4.tif")
    (text,) = told_of(lambda: read_image(folder / "3.tif"))
    assert text.startswith(f"libtiff finds damage in 1 image ({messages} messages) and reads what it can; the first: ")
    assert f"the first: {folder / '3.tif'}: Fax4Decode: " in text
    assert "\n" not in text
    assert capfd.readouterr() == ("", "")


def test_reading_threads_share_one_warning_and_others_keep_standard_error(folder, capfd):
    messages, files = messages_of(fax(damaged=True), capfd), sorted(folder.iterdir())
    over = threading.Event()

    def talk() -> int:
        """Writes to standard error, by Python and below it, all the while."""
        lines = 0
        while not over.is_set() or lines < 100:
            print("python", file=sys.stderr, flush=True)
            os.write(2, b"system\n")
            lines += 1
        return lines

    @one_warning()
    def read_all() -> None:
        list(pool.map(read_image, 20 * files))
        over.set()

    with ThreadPoolExecutor(5) as pool:
        talking = pool.submit(talk)
        (text,) = told_of(read_all)
    assert f"damage in 8 images ({8 * messages} messages)" in text
    assert capfd.readouterr().err.count("\n") == 2 * talking.result()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_worker_processes_share_one_warning(folder, workers, capfd):
    messages, files = messages_of(fax(damaged=True), capfd), sorted(folder.iterdir())
    dataset = PhotoDataset(files, [0] * len(files), FitSquare(8))

    @one_warning()
    def read_twice() -> None:
        for _ in range(2):
            assert sum(len(batch.labels) for batch in create_loader(dataset, InOrder(9), 2, workers=workers)) == 9

    (text,) = told_of(read_twice)
    assert f"damage in 8 images ({8 * messages} messages)" in text
    assert f"the first: {files[0]}: " in text
    assert capfd.readouterr() == ("", "")


def test_training_warns_once(tmp_path, capfd):
    for split, name in (("train", "0.tif"), ("val", "1.tif"), ("test", "2.tif")):
        (tmp_path / "data" / split / "a").mkdir(parents=True)
        (tmp_path / "data" / split / "a" / name).write_bytes(fax(damaged=True))
    config = Config(
        model=ModelConfig(backbone="glimpse_cnn", image_size=32, glimpse_size=8, num_glimpses=2),
        data=FolderConfig(data=tmp_path / "data", augmentation=NoAugmentation()),
        training=TrainingConfig(max_steps=3, batch_size=1, validations=3, log_localization_statistics=False),
    )
    (text,) = told_of(lambda: fit(config, tmp_path / "run", device="cpu"))
    assert "damage in 3 images" in text
    assert "Fax4Decode" not in capfd.readouterr().err


def test_what_libtiff_says_is_the_reason_of_a_file_that_cannot_be_read(tmp_path, capfd):
    file = tmp_path / "a.tif"
    Image.new("L", (64, 64), 100).save(file, compression="tiff_adobe_deflate")
    content = bytearray(file.read_bytes())
    content[8:12] = bytes(4)  # the beginning of the only strip
    file.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=rf"^cannot read image {file}: .*; libtiff says: ZIPDecode: "):
        read_image(file)
    assert capfd.readouterr() == ("", "")


def test_threads_that_read_leave_the_filters_of_warnings_as_they_were(folder):
    """Two reading threads, of which the first to begin is the first to end."""
    before = list(warnings.filters)
    first, second = _open(folder / "4.tif"), _open(folder / "4.tif")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert warnings.filters == before

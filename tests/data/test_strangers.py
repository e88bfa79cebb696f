"""Files of strangers: whatever they hold, each is read or refused by name, nothing crashes, hangs or is executed."""

import csv
import io
import json
import os
import random
import resource
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, UnidentifiedImageError

from glimpsenet.cli import main
from glimpsenet.config import VERSION, Config, from_json, to_dict
from glimpsenet.data.config import AugmentationConfig, FolderConfig, ImageNetAugmentation, NoAugmentation
from glimpsenet.data.finding import find_images
from glimpsenet.data.folder import PhotoDataset, open_folder, read_boxes
from glimpsenet.data.images import MAX_PIXELS, read_image
from glimpsenet.errors import DataWarning, UnreadableImageError, UserError
from glimpsenet.inference import predict
from glimpsenet.models.build import build_model
from glimpsenet.models.config import ModelConfig
from glimpsenet.runs import Description, OutdatedRunError, load_run, read_description, save_weights, write_description

MUTATED = 500
MODEL = ModelConfig(backbone="glimpse_cnn", image_size=32, glimpse_size=8, num_glimpses=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder with untrained weights; one of its classes has a name that is hard to show."""
    folder = tmp_path_factory.mktemp("run")
    config = Config(model=MODEL, data=FolderConfig(augmentation=NoAugmentation()))
    write_description(folder, Description(config, ["a$_{", "b\n\x1b[2J"], 3))
    save_weights(build_model(MODEL, num_classes=2, in_channels=3), folder)
    return folder


def images_of_all_kinds() -> dict[str, bytes]:
    """Suffix -> a small image, in every format and in modes that take ways of their own through the decoders."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(256, size=(48, 64, 3), dtype=np.uint8))
    wide = Image.fromarray(rng.integers(65536, size=(48, 64), dtype=np.uint16))
    real = Image.fromarray(rng.random(size=(20, 20)).astype(np.float32))
    turned = Image.Exif()
    turned[0x0112] = 6
    kinds = {
        "turned.jpg": (colour, {"format": "JPEG", "exif": turned}),
        "progressive.jpg": (colour, {"format": "JPEG", "progressive": True}),
        "ink.jpg": (colour.convert("CMYK"), {"format": "JPEG"}),
        "png": (colour, {}),
        "palette.png": (colour.convert("P"), {"transparency": 3}),
        "wide.png": (wide, {}),
        "alpha.png": (colour.convert("LA"), {}),
        "gif": (colour.convert("P"), {}),
        "webp": (colour, {}),
        "bmp": (colour, {}),
        "ppm": (colour, {}),
        "plain.tif": (colour, {"format": "TIFF"}),
        "lzw.tif": (colour, {"format": "TIFF", "compression": "tiff_lzw"}),
        "real.tif": (real, {"format": "TIFF"}),
    }
    written = {}
    for suffix, (image, options) in kinds.items():
        file = io.BytesIO()
        image.save(file, **{"format": suffix.split(".")[-1].upper(), **options})
        written[suffix] = file.getvalue()
    return written


def mutate(content: bytes, rng: random.Random) -> bytes:
    """``content`` with bytes changed, cut off, put in or taken out."""
    spoilt = bytearray(content)
    one, other = sorted(rng.randrange(len(spoilt)) for _ in range(2))
    kind = rng.randrange(5)
    if kind == 0:
        for _ in range(rng.randint(1, 8)):
            spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
    elif kind == 1:  # the header: sizes, offsets, counts
        for _ in range(rng.randint(1, 20)):
            spoilt[rng.randrange(min(len(spoilt), 120))] = rng.choice([0, 127, 128, 255, rng.randrange(256)])
    elif kind == 2:
        del spoilt[one:]
    elif kind == 3:
        spoilt[one:one] = rng.randbytes(rng.randint(1, 64))
    else:
        del spoilt[one:other]
    return bytes(spoilt)


@pytest.fixture(scope="module")
def mutated(tmp_path_factory) -> Path:
    """500 mutated images of all kinds, and one of each that is whole."""
    folder = tmp_path_factory.mktemp("mutated") / "val" / "a$_{"
    folder.mkdir(parents=True)
    rng, kinds = random.Random(0), images_of_all_kinds()
    for place in range(MUTATED):
        suffix, content = list(kinds.items())[place % len(kinds)]
        (folder / f"{place:03d}.{suffix}").write_bytes(mutate(content, rng))
    for suffix, content in kinds.items():
        (folder / f"whole.{suffix}").write_bytes(content)
    return folder


# ---- 500 mutated files ---------------------------------------------------------------------------------------------


def test_every_mutated_file_is_predicted_or_counted(run, mutated, capfd):
    files = sorted(mutated.iterdir())
    main(["predict", str(run), str(mutated), "--skip-bad", "--json", "--device", "cpu"])
    result = json.loads(capfd.readouterr().out)
    whole = {str(file) for file in files if file.name.startswith("whole")}
    assert whole <= {row["file"] for row in result["predictions"]}
    assert len(result["predictions"]) + len(result["skipped"]) == len(files) == MUTATED + len(whole)
    assert len(result["skipped"]) > MUTATED // 4  # mutations that change nothing would test nothing
    assert len(result["predictions"]) > len(whole) + MUTATED // 20  # nor would those that no decoder looks into
    named = [file for file in files for problem in result["skipped"] if f"cannot read image {file}: " in problem]
    assert len(named) == len(result["skipped"])


@pytest.mark.parametrize("augmentation", ["light", "imagenet"])
def test_every_mutated_file_is_a_sample_or_a_problem(mutated, augmentation):
    files = sorted(mutated.iterdir())
    dataset = PhotoDataset(files, [0] * len(files), AugmentationConfig.kinds[augmentation]().training_transform(16))
    for place, file in enumerate(files):
        sample = dataset[0, place]
        assert (sample.image is None) == bool(sample.problem)
        assert sample.image is not None or str(file) in sample.problem
        assert "\n" not in sample.problem


# ---- absurd sizes --------------------------------------------------------------------------------------------------


def png(width: int, height: int, pixels: bytes = b"", bits: int = 8) -> bytes:
    """A grey PNG that claims to be of any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize(
    ("width", "height"), [(2**31 - 1, 2**31 - 1), (30_000, 30_000), (9_460, 9_460), (MAX_PIXELS + 1, 1), (0, 5)]
)
def test_a_few_bytes_that_claim_a_huge_image_are_refused_before_they_are_decoded(tmp_path, width, height):
    file = tmp_path / "bomb.png"
    file.write_bytes(png(width, height))
    before = peak_memory()
    with pytest.raises(UnreadableImageError, match=r"bomb\.png"):
        read_image(file)
    assert peak_memory() - before < 30e6


def test_a_bomb_that_does_unpack_is_refused_too(tmp_path):
    """10,000 x 10,000 pixels that are all there, in 100 kB."""
    file = tmp_path / "bomb.png"
    file.write_bytes(png(10_000, 10_000, b"\0" * (10_001 * 10_000)))
    assert file.stat().st_size < 150_000
    with pytest.raises(UnreadableImageError, match="10000 x 10000 pixels are more than 89478485; make it smaller"):
        read_image(file)


def test_text_that_unpacks_to_much_more_is_refused(tmp_path):
    """A PNG's comment of 200 MB in 200 kB."""
    comment = b"comment\0\0" + zlib.compress(b"a" * 200_000_000)
    chunk = struct.pack(">I", len(comment)) + b"zTXt" + comment + struct.pack(">I", zlib.crc32(b"zTXt" + comment))
    whole = png(1, 1, b"\0\0")
    (tmp_path / "a.png").write_bytes(whole[:33] + chunk + whole[33:])
    with pytest.raises(UnreadableImageError, match="too large"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("augmentation", ["none", "light", "imagenet"])
@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1), (1, 1), (2, 3000)])
def test_images_however_thin_become_squares_in_little_memory(tmp_path, shape, augmentation):
    Image.new("L", shape, 200).save(tmp_path / "a.png")
    before = peak_memory()
    for transform in (
        AugmentationConfig.kinds[augmentation]().training_transform(64),
        AugmentationConfig.kinds[augmentation]().evaluation_transform(64),
    ):
        assert PhotoDataset([tmp_path / "a.png"], [0], transform)[0, 0].image.shape == (3, 64, 64)
    assert peak_memory() - before < 100e6


def test_cutting_thin_images_changes_nothing_that_is_seen(tmp_path):
    """Against the same photo padded by what is out of sight anyway."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(40, 400, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "long.png")  # ten times as long as wide: cut to eight times
    Image.fromarray(pixels[:, 100:300]).save(tmp_path / "middle.png")  # its middle: five times
    seen = [
        PhotoDataset([tmp_path / name], [0], ImageNetAugmentation().evaluation_transform(56))[0, 0].image
        for name in ("long.png", "middle.png")
    ]
    assert torch.equal(*seen)


# ---- what is no image ----------------------------------------------------------------------------------------------


def test_postscript_is_not_handed_to_an_interpreter(tmp_path):
    """Pillow goes by content: it would start Ghostscript for a.png."""
    file = tmp_path / "a.png"
    file.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    with Image.open(file) as image:
        assert image.format == "EPS"
    with pytest.raises(UnreadableImageError, match="the file is not an image") as caught:
        read_image(file)
    assert isinstance(caught.value.__cause__, UnidentifiedImageError)


def test_pipes_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(UnreadableImageError, match="no regular file"):
            read_image(tmp_path / name)
    assert find_images(tmp_path) == [tmp_path / "pipe.png", tmp_path / "zero.png"]  # not passed over in silence


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers_are_refused(tmp_path, value):
    Image.fromarray(np.array([[1, value]], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableImageError, match="not finite numbers"):
        read_image(tmp_path / "a.tif")


# ---- links ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def linked(tmp_path) -> Path:
    """A data folder whose links lead out of it, back into it, in circles and nowhere."""
    root, outside = tmp_path / "data", tmp_path / "outside"
    for folder in ("train/cat", "train/dog", "val/cat", "val/dog"):
        (root / folder).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(root / folder / "a.png")
    outside.mkdir()
    Image.new("RGB", (4, 4)).save(outside / "b.png")
    (outside / "secret.txt").write_text("no image")
    cat = root / "train/cat"
    (cat / "folder").symlink_to(outside)
    (cat / "again").symlink_to(outside)
    (cat / "file.png").symlink_to(outside / "b.png")
    (cat / "secret.png").symlink_to(outside / "secret.txt")
    (cat / "nowhere.png").symlink_to(outside / "absent.png")
    (cat / "itself.png").symlink_to(cat / "itself.png")
    (cat / "here").symlink_to(".")
    (cat / "above").symlink_to("..")
    (cat / "root").symlink_to("/")
    return root


def test_links_are_followed_once_and_never_up(linked):
    with pytest.warns(DataWarning, match=r"left out 1 file with an unknown suffix \(\.txt 1\)"):  # secret.txt
        splits = open_folder(FolderConfig(data=linked, augmentation=NoAugmentation()), 4, seed=0)
    names = [file.relative_to(linked).as_posix() for file in splits.train.files]
    here = ["a.png", "file.png", "itself.png", "nowhere.png", "secret.png"]
    assert names == [*(f"train/cat/{name}" for name in here), "train/cat/again/b.png", "train/dog/a.png"]
    assert splits.train.labels == [0] * 6 + [1]
    broken = [Path(name).name for place, name in enumerate(names) if splits.train[0, place].problem]
    assert broken == ["itself.png", "nowhere.png", "secret.png"]


def test_linked_class_folders_are_found_by_predict_too(linked, tmp_path):
    (tmp_path / "classes").mkdir()
    (tmp_path / "classes/cat").symlink_to(linked / "val/cat")
    assert find_images(tmp_path / "classes") == [tmp_path / "classes/cat/a.png"]


# ---- names ---------------------------------------------------------------------------------------------------------

NAMES = [
    b"two\nlines.png",
    b"bytes\xff\xfe.png",
    b"\x1b[31mred.png",
    b"$\\frac{$.png",
    b"[bold]markup.png",
    b"-v.png",
]


@pytest.fixture
def named(tmp_path) -> Path:
    """Images whose names hold what a terminal, a table, a formula or UTF-8 does not; one of them broken."""
    folder = tmp_path / "names"
    folder.mkdir()
    for name in NAMES:
        Image.new("RGB", (8, 8)).save(folder / "plain.png")
        os.rename(folder / "plain.png", os.path.join(os.fsencode(folder), name))
    with open(os.path.join(os.fsencode(folder), b"broken\n\xff\x1b[31m.png"), "wb") as file:
        file.write(b"no image")
    return folder


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("form", [[], ["--json"], ["--csv"]], ids=["table", "json", "csv"])
def test_names_of_all_kinds_come_through(run, named, tmp_path, capfdbinary, form):
    figure = tmp_path / "looks.png"
    main(["predict", str(run), str(named), "--skip-bad", "--device", "cpu", "--figure", str(figure), *form])
    output, error = capfdbinary.readouterr()
    with Image.open(figure) as image:
        image.load()
    skipped = [line for line in error.splitlines() if line.startswith(b"skipped: ")]
    assert len(skipped) == 1
    assert b"\x1b" not in error
    if form == ["--json"]:
        told = {os.fsencode(row["file"]) for row in json.loads(output)["predictions"]}
    elif form == ["--csv"]:
        rows = csv.DictReader(io.StringIO(output.decode("utf-8", "surrogateescape"), newline=""))
        told = {os.fsencode(row["file"]) for row in rows}
    else:
        assert b"\x1b" not in output
        assert b"two\\nlines.png" in output
        assert b"bytes\\udcff\\udcfe.png" in output
        return
    assert told == {os.path.join(os.fsencode(named), name) for name in NAMES}


def test_an_error_about_such_a_name_is_one_line(run, named, capfdbinary):
    broken = next(file for file in named.iterdir() if file.name.startswith("broken"))
    with pytest.raises(SystemExit):
        main(["predict", str(run), str(broken), "--device", "cpu"])
    error = capfdbinary.readouterr().err
    assert error.count(b"\n") == 1
    assert b"\x1b" not in error
    assert b"cannot read image" in error


def test_class_names_of_all_kinds_train_and_come_back(tmp_path):
    for split in ("train", "val"):
        for name in (b"two\nlines", b"\xff"):
            os.makedirs(os.path.join(os.fsencode(tmp_path), split.encode(), name))
            Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
            os.rename(tmp_path / "a.png", os.path.join(os.fsencode(tmp_path), split.encode(), name, b"a.png"))
    splits = open_folder(FolderConfig(data=tmp_path), 4, seed=0)
    assert sorted(os.fsencode(name) for name in splits.classes) == [b"two\nlines", b"\xff"]
    write_description(tmp_path, Description(Config(), splits.classes, 3))
    assert read_description(tmp_path).classes == splits.classes


# ---- boxes.csv -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../outside.png", "/etc/hostname", "a/../../outside.png", ".."])
def test_boxes_do_not_ask_for_files_outside(tmp_path, name):
    (tmp_path / "outside.png").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/boxes.csv").write_text(f"file,x0,y0,x1,y1\n{name},0,0,1,1\n")
    with pytest.raises(UserError, match=r"boxes\.csv, row 2: .* leads out of the folder"):
        read_boxes(tmp_path / "data/boxes.csv", tmp_path / "data")


def test_boxes_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "boxes.csv").mkdir()
    with pytest.raises(UserError, match=r"cannot read .*boxes\.csv"):
        read_boxes(tmp_path / "boxes.csv", tmp_path)


# ---- config.json ---------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
WHOLE = {"version": VERSION, "config": to_dict(Config(model=MODEL)), "classes": ["a", "b"], "channels": 3}
PLACES = [(part,) for part in WHOLE] + [
    ("config", part, *name)
    for part, values in WHOLE["config"].items()
    for name in ([(), *((key,) for key in values)] if isinstance(values, dict) else [()])
]


@st.composite
def spoilt_descriptions(draw) -> str:
    """A config.json with up to three values replaced, removed or added; now and then cut off or no JSON at all."""
    values = json.loads(json.dumps(WHOLE))
    for _ in range(draw(st.integers(1, 3))):
        *way, name = draw(st.sampled_from(PLACES))
        part = values
        for step in way:
            part = part.get(step) if isinstance(part, dict) else None
        if isinstance(part, dict):
            if draw(st.booleans()):
                part[draw(st.sampled_from([name, name, f"{name}_"]))] = draw(JSON)
            else:
                part.pop(name, None)
    text = json.dumps(values)
    return text[: draw(st.integers(0, len(text)))] if draw(st.integers(0, 9)) == 0 else text


@example("[" * 100_000)
@example("9" * 10_000)
@example('{"config": ' * 5_000)
@example(json.dumps(WHOLE).replace('"num_glimpses": 2', '"num_glimpses": 1000000000'))
@example(json.dumps(WHOLE).replace('"image_size": 32', '"image_size": 1000000000'))
@settings(max_examples=200, deadline=None, derandomize=True)
@given(spoilt_descriptions() | st.text(max_size=40))
def test_whatever_is_in_config_json_it_is_read_or_refused(text):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            description = read_description(Path(folder))
        except OutdatedRunError as error:  # without a version, or with any
            assert f"{file} has format version" in str(error)  # noqa: PT017
        except UserError as error:
            assert f"{file} is damaged" in str(error)  # noqa: PT017
        else:
            model = description.config.model
            assert 1 <= model.num_glimpses <= 1000
            assert 1 <= model.glimpse_size <= model.image_size <= 16_384
            assert description.channels in (1, 3)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(max_size=60) | JSON.map(json.dumps))
def test_whatever_a_configuration_is_read_from_it_is_refused_or_one(text):
    try:
        assert isinstance(from_json(text), Config)
    except UserError as error:
        assert "bad configuration" in str(error)  # noqa: PT017


def test_a_spoilt_model_file_is_refused_by_name(run, tmp_path):
    """100 mutated model.safetensors: loaded or refused; a size in its header is believed by nobody."""
    rng = random.Random(0)
    content = (run / "model.safetensors").read_bytes()
    (tmp_path / "config.json").write_bytes((run / "config.json").read_bytes())
    refused = 0
    for _ in range(100):
        (tmp_path / "model.safetensors").write_bytes(mutate(content[:9_000], rng) + content[9_000:])
        try:
            load_run(tmp_path)
        except UserError as error:
            refused += 1
            assert "model.safetensors does not hold the model" in str(error)  # noqa: PT017
    assert refused > 50


def test_a_file_that_vanishes_is_told(run, tmp_path):
    file = tmp_path / "a.png"
    assert [told.problem for told in predict(load_run(run), [file])] == [
        f"cannot read image {file}: [Errno 2] No such file or directory: the file"
    ]

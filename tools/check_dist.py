"""Build the distributions and use them as a new user would: in clean environments, outside the repository.

    sdist -> wheel -> contents -> { newest Python, newest dependencies;  oldest Python, oldest dependencies } -> use it

The oldest are the lower bounds in ``pyproject.toml``, so this verifies them. Each environment takes 6 GB on Linux and
needs the network; environments are made in a temporary folder and removed.

Command: ``make dist``, or ``python tools/check_dist.py [--only oldest|newest] [--out dist]``. Needs uv.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = ("demo", "export", "heif", "robustness", "shards")
SETTINGS = {"oldest": ("3.11", "lowest-direct"), "newest": ("3.13", "highest")}
"""Python, and which of the versions allowed of direct dependencies."""
MOST_BYTES = {".whl": 2_000_000, ".gz": 8_000_000}
NEEDED = (
    "glimpsenet/py.typed",
    "glimpsenet/cli/app.py",
    "glimpsenet/templates/card.md.jinja",
    "glimpsenet/templates/report.html.jinja",
    "glimpsenet/templates/report.md.jinja",
    "glimpsenet/demo/static/index.html",
    "glimpsenet/demo/static/demo.js",
    "glimpsenet/demo/digits/config.json",
    "glimpsenet/demo/digits/model.safetensors",
)
"""Of the wheel; what is not Python is easily forgotten."""
KINDS = {".py", ".typed", ".json", ".safetensors", ".html", ".jinja", ".js", ".css", ".svg"}
"""Of the package's files; data, pictures and notebooks stay out."""

SMALL = "--max-steps 3 --batch-size 8 --validations 1 --device cpu --workers 0"
PHOTOS = f"--backbone resnet10t --no-pretrained --image-size 64 --glimpse-size 32 {SMALL}"
COMMANDS = f"""
glimpsenet --help
glimpsenet train digits --train-scenes 30 --val-scenes 8 {SMALL} --out run
glimpsenet train digits --train-scenes 30 --val-scenes 8 {SMALL} --out run --resume
glimpsenet evaluate run --policy all --device cpu --figure confusion.png
glimpsenet summary run
glimpsenet data digits scenes --train-scenes 40 --val-scenes 4 --test-scenes 4
glimpsenet predict run scenes/val --figure looks.png --device cpu
glimpsenet inspect sweep run PICTURE --points 5 --gif --out sweep
glimpsenet inspect arrows run PICTURE --figure arrows.png
glimpsenet data shards scenes shards --samples 20
glimpsenet train image-folder --data shards {PHOTOS}
glimpsenet export run --format onnx
glimpsenet export run --format onnx --stepwise --out steps.onnx
glimpsenet export run --format pt2
glimpsenet bench robustness run --images 2 --steps 2 --restarts 1 --queries 2 --targets 1 --severities 1 --device cpu
"""
PYTHON = """
from importlib.metadata import version
from pathlib import Path
import glimpsenet, torch
assert "site-packages" in glimpsenet.__file__, glimpsenet.__file__
assert glimpsenet.__version__ == version("glimpsenet")
for name in glimpsenet.__all__:
    getattr(glimpsenet, name)
images = torch.rand(2, 3, 224, 224)
model = glimpsenet.create_model("resnet18", num_classes=5)
assert model(model.normalization(images)).logits.shape == (2, 4, 5)
print(model, glimpsenet.summary(model), sep="\\n")
run = glimpsenet.load_run("run")
run.save_pretrained("shared")
run = glimpsenet.Run.from_pretrained("shared")
assert Path("shared/README.md").is_file()
predictions = list(glimpsenet.predict(run, sorted(Path("scenes/val").rglob("*.png"))))
assert len(predictions) == 4 and predictions[0].top(-1)
from glimpsenet.demo.exhibit import SHIPPED, open_exhibits
from glimpsenet.demo.server import build_app
from glimpsenet.demo.examples import choose_examples
exhibits = open_exhibits([SHIPPED], "cpu")
build_app(exhibits, choose_examples(exhibits[0].run, None, public=True), "127.0.0.1")
"""


def check_wheel(file: Path) -> None:
    """Refuse a wheel that lacks something, or holds what is not the package's.

    Raises:
        SystemExit: naming the file.
    """
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    package = [name for name in names if ".dist-info/" not in name]
    _refuse(file, "lacks", [name for name in NEEDED if name not in names])
    _refuse(file, "holds", [name for name in package if not name.startswith("glimpsenet/")])
    _refuse(file, "holds", [name for name in package if Path(name).suffix not in KINDS])
    _check_size(file)


def check_sdist(file: Path) -> None:
    """Refuse a source distribution that lacks what its tests need, or holds what git ignores.

    Raises:
        SystemExit: naming the file.
    """
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split(
        "\n"
    )
    needed = [name for name in tracked if name.startswith(("src/", "tests/", "benchmarks/", "tools/", "docs/"))]
    _refuse(file, "lacks", [name for name in (*needed, "LICENSE", "CITATION.cff") if name not in names])
    _refuse(file, "holds", sorted(names - {*tracked, "PKG-INFO"}))
    _check_size(file)


def _refuse(file: Path, verb: str, names: list[str]) -> None:
    if names:
        sys.exit(f"{file} {verb} {', '.join(names[:5])}{' and more' if len(names) > 5 else ''}")


def _check_size(file: Path) -> None:
    if file.stat().st_size > MOST_BYTES[file.suffix]:
        sys.exit(f"{file} has {file.stat().st_size:,} bytes, more than {MOST_BYTES[file.suffix]:,}")


def build(out: Path) -> Path:
    """Source distribution and, from that, the wheel; both checked. Returns the wheel."""
    shutil.rmtree(out, ignore_errors=True)
    _run("uv", "build", "--quiet", "--out-dir", str(out), str(ROOT))
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    check_sdist(sdist)
    check_wheel(wheel)
    return wheel


def install_and_use(wheel: Path, setting: str, folder: Path) -> None:
    """A new environment with the wheel, and a tour through commands and functions; stops at what fails."""
    python, resolution = SETTINGS[setting]
    environment, place = folder / setting, folder / f"{setting}-work"
    place.mkdir()
    _run("uv", "venv", "--quiet", "--python", python, str(environment))
    target = ["--python", str(environment / "bin/python")]
    # From pyproject.toml, since uv takes a wheel's requirements for indirect ones, and their newest versions.
    extras = [f"--extra={extra}" for extra in EXTRAS]
    chosen = ["--resolution", resolution, *extras, "-r", str(ROOT / "pyproject.toml")]
    _run("uv", "pip", "install", "--quiet", *target, *chosen)
    _run("uv", "pip", "install", "--quiet", *target, "--no-deps", str(wheel))
    _tell_versions(target)
    failed: list[str] = []
    lines = [str(line) for line in COMMANDS.strip().splitlines()]
    for line in lines:
        if "PICTURE" in line:
            line = line.replace("PICTURE", str(next((place / "scenes/val").rglob("*.png"), "PICTURE")))
        failed += [] if _use(environment, place, [*line.split()]) else [line]
    failed += [] if _use(environment, place, ["python", "-I", "-c", PYTHON]) else ["the Python functions"]
    if failed:
        sys.exit(f"{setting} ({python}): {len(failed)} failed: {'; '.join(failed)}")
    print(f"{setting}: all {len(COMMANDS.strip().splitlines()) + 1} uses pass on Python {python}", flush=True)


def _tell_versions(target: list[str]) -> None:
    direct = {
        name.lower().replace("_", "-")
        for name in re.findall(r'^  "([\w-]+)>=', (ROOT / "pyproject.toml").read_text(), re.M)
    }
    listed = subprocess.run(["uv", "pip", "freeze", *target], check=True, capture_output=True, text=True).stdout
    print(*[line for line in listed.splitlines() if line.partition("==")[0].lower() in direct], flush=True)


def _use(environment: Path, place: Path, command: list[str]) -> bool:
    """Run one command of the environment; tells what it said if it fails."""
    program = str(environment / "bin" / command[0])
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [program, *command[1:]],
        cwd=place,
        env=variables | {"MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        check=False,
    )
    shown = " ".join(command)[:100].split("\n")[0]
    print(f"  {'ok  ' if done.returncode == 0 else 'FAIL'} {shown}", flush=True)
    if done.returncode:
        print((done.stdout + done.stderr)[-3000:], flush=True)
    return done.returncode == 0


def _run(*command: str) -> None:
    if subprocess.run(command, check=False).returncode:
        sys.exit(f"failed: {' '.join(command)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SETTINGS, help="one of the environments")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    arguments = parser.parse_args()
    wheel = build(arguments.out)
    print(f"built {wheel}, {wheel.stat().st_size:,} bytes", flush=True)
    with tempfile.TemporaryDirectory(prefix="glimpsenet-dist-") as folder:
        for setting in [arguments.only] if arguments.only else SETTINGS:
            install_and_use(wheel, setting, Path(folder))

"""The documentation builds without a warning, says all that is public, and its links lead somewhere."""

import re
import subprocess
import sys
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path

import pytest

import glimpsenet

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("docs") / "site"
    # A process of its own: shapes of the package are checked in this one, by wrapping what Sphinx is to read.
    command = [sys.executable, "-m", "sphinx", "--nitpicky", "--fail-on-warning", "--keep-going", "--quiet"]
    done = subprocess.run([*command, ROOT / "docs", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


class _Page(HTMLParser):
    def __init__(self, file: Path):
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(file.read_text())

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors |= {found["id"]} if found.get("id") else set()
        self.links += [value for name in ("href", "src") if (value := found.get(name))]
        self.loaded += [found.get("src" if tag != "link" else "href") or ""] if tag in ("script", "img", "link") else []


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, _Page]:
    """Of Sphinx's making."""
    return {file.resolve(): _Page(file) for file in site.rglob("*.html") if "_downloads" not in file.parts}


def test_every_link_within_the_site_leads_somewhere(pages):
    assert len(pages) > 20
    for file, page in pages.items():
        for link in page.links:
            place, _, anchor = link.partition("#")
            if "://" in place or place.startswith(("data:", "mailto:")):
                continue
            target = (file.parent / urllib.parse.unquote(place.split("?")[0])).resolve() if place else file
            assert target.exists(), (file.name, link)
            if anchor and target in pages:
                assert anchor in pages[target].anchors, (file.name, link)


def test_pages_load_nothing_from_elsewhere(pages):
    assert not {place for page in pages.values() for place in page.loaded if "://" in place}


def test_every_public_name_is_in_the_reference(site):
    reference = (site / "api/index.html").read_text()
    missing = []
    for name in glimpsenet.__all__:
        thing = getattr(glimpsenet, name)
        missing += [name] if f"#{thing.__module__}.{thing.__qualname__}" not in reference else []
    assert not missing


def test_shapes_units_errors_and_sources_reach_the_reference(site):
    text = {name: _words(site / f"api/{name}.html") for name in ("models", "inference")}
    assert "Float[Tensor, 'batch glimpse class_']" in text["models"]
    assert "ValueError -- for images of another shape, type or number of channels" in text["models"]
    assert "Sources: Recurrent GlimpseNet (Supeene & Wang, Stanford), section 4.1.1" in text["models"]
    assert "The windows in pixels of the photo as it stands in the file" in text["inference"]


def test_no_page_names_a_machine(site):
    for file in site.rglob("*.html"):
        assert not re.search(r"site-packages|/root/|/home/|/tmp/", file.read_text()), file.name


def _words(page: Path) -> str:
    parser = HTMLParser()
    pieces: list[str] = []
    parser.handle_data = pieces.append
    parser.feed(page.read_text())
    return " ".join("".join(pieces).split())

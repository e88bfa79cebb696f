"""Class names in any script. Only fonts that come with Matplotlib count as installed here."""

import warnings
from pathlib import Path

import matplotlib
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure

from glimpsenet.cli import main
from glimpsenet.errors import FigureWarning
from glimpsenet.inspection import fonts
from glimpsenet.inspection.figures import plot_confusion, save_figure
from glimpsenet.inspection.fonts import find_fonts

BUNDLED = Path(matplotlib.get_data_path()) / "fonts/ttf"
HELPED = "の"  # DejaVu Sans, the default, has no such character; STIXGeneral has
NOWHERE = "猫"  # none has it but the font of placeholders


@pytest.fixture(autouse=True)
def bundled_fonts_alone(monkeypatch):
    known = [entry for entry in font_manager.fontManager.ttflist if Path(entry.fname).parent == BUNDLED]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", known)


def pixels(file: Path, *names: str) -> bytes:
    save_figure(plot_confusion([[3, 1], [0, 4]], list(names)), file)
    return file.read_bytes()


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_an_installed_font_with_the_characters_is_used(tmp_path, suffix):
    """Without a warning, which would fail the test: and what is drawn is no box."""
    drawn = pixels(tmp_path / f"helped.{suffix}", HELPED, "plain")
    with pytest.warns(FigureWarning):
        boxed = pixels(tmp_path / f"boxed.{suffix}", NOWHERE, "plain")
    assert drawn != boxed
    assert find_fonts({HELPED}) == (("STIXGeneral",), frozenset())


def test_text_keeps_its_own_font_where_that_has_the_characters(tmp_path):
    figure = Figure()
    plain, helped = figure.text(0, 0, "Gänse Ωδή кот"), figure.text(0, 1, f"a {HELPED}")
    before = plain.get_fontfamily()
    save_figure(figure, tmp_path / "figure.png")
    assert plain.get_fontfamily() == before
    assert helped.get_fontfamily() == [*before, "STIXGeneral"]


def test_fonts_are_searched_only_for_what_is_lacking(tmp_path, monkeypatch):
    monkeypatch.setattr(fonts, "find_fonts", lambda characters: pytest.fail(f"searched for {characters}"))
    pixels(tmp_path / "figure.png", "Gänse", "кот")


def test_characters_that_no_font_has_are_told_in_one_warning(tmp_path):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        pixels(tmp_path / "figure.png", f"{NOWHERE}犬", f"{NOWHERE}{HELPED}")
    assert [(str(w.message).split(":")[0], w.category) for w in told] == [
        ("no installed font has 犬 猫", FigureWarning)
    ]


def test_a_font_that_was_removed_is_passed_over(monkeypatch):
    gone = font_manager.FontEntry(fname="/absent/font.ttf", name="Absent Sans", style="normal")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [gone, *font_manager.fontManager.ttflist])
    assert find_fonts({HELPED}) == (("STIXGeneral",), frozenset())


def test_commands_tell_it_in_one_line_on_standard_error(tmp_path, capfd, monkeypatch):
    """Several figures, one line."""

    def draw(*_, **__):
        for name in ("one", "two"):
            pixels(tmp_path / f"{name}.png", NOWHERE, "plain")

    monkeypatch.setattr("glimpsenet.cli.app.run", draw)
    main([])
    line = f"glimpsenet: warning: no installed font has {NOWHERE}: figures show boxes in their place; "
    assert capfd.readouterr().err.splitlines() == [line + "install a font for that script"]

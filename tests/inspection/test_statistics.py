from pathlib import Path

import pytest

from glimpsenet.config import Config
from glimpsenet.data.config import DigitsConfig
from glimpsenet.errors import UserError
from glimpsenet.inspection.figures import PALETTE
from glimpsenet.inspection.statistics import plot_statistics, read_statistics
from glimpsenet.models.config import ModelConfig
from glimpsenet.training.config import TrainingConfig
from glimpsenet.training.fit import fit

pytestmark = pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*", "ignore:Checkpoint directory .* exists")

HEADER = "step,kind,name,min,max,mean,std\n"


def write(folder: Path, rows: str, header: str = HEADER) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "localization.csv").write_text(header + rows)
    return folder


ROWS = """5,weight,fc.bias,-3,1,0,2
5,gradient,fc.bias,0,0,0,0
5,output,s_2,0.2,0.4,0.3,0.1
5,output,s_3,0.1,0.5,0.2,0.1
10,weight,fc.bias,-2,4,0,3
10,gradient,fc.bias,-1,2,0,inf
10,output,s_2,0.25,0.45,0.35,0.1
"""


def test_series_are_read_by_kind_and_name_in_order(tmp_path):
    result = read_statistics(write(tmp_path / "run", ROWS))
    series = result.of("weight")["fc.bias"]
    assert series.step.tolist() == [5, 10]
    assert series.std.tolist() == [2, 3]
    assert series.largest.tolist() == [3, 4]
    assert {step: of.mean.tolist() for step, of in result.outputs("s").items()} == {2: [0.3, 0.35], 3: [0.2]}
    assert result.of("gradient_before_rescaling") == result.outputs("tx") == {}


def test_overlaid_runs_have_a_colour_each_and_show_the_range_over_all_steps(tmp_path):
    one = read_statistics(write(tmp_path / "run", ROWS))
    panels = {axes.get_title(): axes for axes in plot_statistics({"one": one, "two": one}).axes}
    lines = panels["weights: largest absolute value"].get_lines()
    assert [line.get_color() for line in lines] == list(PALETTE[:2])
    assert list(lines[0].get_ydata()) == [3, 4]
    drawn = {line.get_label(): line for line in panels["s (window's half side)"].get_lines()}
    assert drawn["one"].get_ydata() == pytest.approx([0.25])  # step 3 has no second point yet


def test_there_are_panels_for_what_the_run_has_and_no_others(tmp_path):
    def titles(*rows: str) -> list[str]:
        return [axes.get_title() for axes in read_statistics(write(tmp_path / "run", "\n".join(rows))).plot().axes]

    before, after, s = ("1,gradient_before_rescaling,w,0,1,0,1", "1,gradient,w,0,1,0,1", "1,output,s_2,0,1,0,1")
    assert titles(after, s) == ["gradients: largest absolute value", "s (window's half side)"]
    assert [title.split(":")[0] for title in titles(before, after)] == [
        "gradients before re-scaling",
        "gradients after re-scaling",
    ]
    assert titles(s) == ["s (window's half side)"]


def test_what_a_run_writes_is_what_is_read_and_drawn(tmp_path):
    config = Config(
        model=ModelConfig(backbone="glimpse_cnn", num_glimpses=2, image_size=20, glimpse_size=8),
        data=DigitsConfig(train_scenes=8, val_scenes=4),
        training=TrainingConfig(max_steps=2, batch_size=4, precision="float32", validations=1),
    )
    fit(config, tmp_path / "run", device="cpu")
    result = read_statistics(tmp_path / "run")
    assert result.series.keys() == {"weight", "gradient", "gradient_before_rescaling", "output"}
    result.save(tmp_path / "figures/a.png")
    assert (tmp_path / "figures/a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("rows", "row"),
    [
        ("5,weight,fc.bias,-3,1,0,2\n10,weight,fc.bias,-3,1\n", 3),
        ("5,weight,fc.bias,-3,1,0,much\n", 2),
        ("5.5,weight,fc.bias,-3,1,0,2\n", 2),
        ("5,output,s_first,-3,1,0,2\n", 2),
    ],
)
def test_a_damaged_file_names_the_row(tmp_path, rows, row):
    with pytest.raises(UserError, match=f"localization.csv is damaged: row {row} is"):
        read_statistics(write(tmp_path / "run", rows))


def test_other_files_and_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such run folder"):
        read_statistics(tmp_path / "nowhere")
    with pytest.raises(UserError, match="log_localization_statistics is off"):
        read_statistics(tmp_path)
    with pytest.raises(UserError, match="row 1 is not step,kind"):
        read_statistics(write(tmp_path / "run", "", header="a,b\n"))
    with pytest.raises(UserError, match="no rows yet"):
        read_statistics(write(tmp_path / "run", ""))

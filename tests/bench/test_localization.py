"""The comparison of localization methods: all of them train, and the summary says what they did."""

import csv
import json
from dataclasses import replace

import pytest
import torch

from glimpsenet.bench.localization import METHODS, bench_localization, gap_closed, steps_to
from glimpsenet.config import Config
from glimpsenet.data.config import DigitsConfig
from glimpsenet.errors import SettingError, UserError
from glimpsenet.evaluation.config import EvaluationSettings
from glimpsenet.evaluation.run import evaluate_run
from glimpsenet.losses import glimpse_loss
from glimpsenet.models.build import build_model
from glimpsenet.recipes import digits
from glimpsenet.runs import load_run
from glimpsenet.training.fit import fit
from glimpsenet.training.series import mean_curve


def tiny(max_steps: int = 2) -> Config:
    config = digits()
    return replace(
        config,
        model=replace(config.model, image_size=40, glimpse_size=10, num_glimpses=3),
        data=DigitsConfig(train_scenes=32, val_scenes=16),
        training=replace(config.training, max_steps=max_steps, batch_size=8, validations=1),
    )


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_something(name):
    config = METHODS[name][0](tiny())
    model = build_model(config.model, num_classes=10, in_channels=1)
    objective = config.training.objective.build(model, config.model.scale_range)
    images, labels = torch.rand(8, 1, 40, 40), torch.arange(8)
    boxes = torch.tensor([[4.0, 4.0, 20.0, 20.0]]).expand(8, 4)
    output = model(images, policy=objective.behaviour(model, 0.2, labels, boxes))
    loss = glimpse_loss(output, labels, 0.6).total + objective(model, output, labels, boxes)
    loss.backward()
    assert loss.isfinite()
    policy = any(p.grad is not None and p.grad.any() for p in model.policy.parameters())
    assert policy == (name != "oracle")


def test_runs_are_summed_up_and_not_repeated(tmp_path):
    values = bench_localization(tiny(), ["best"], tmp_path, tell=lambda _: None)
    assert set(values["methods"]) == {"best", "mgnet", "pathwise-mipmap", "oracle"}
    for method in values["methods"].values():
        assert method["steps"] == 2
        assert len(method["accuracy_by_glimpse"]) == 3
    assert json.loads((tmp_path / "localization.json").read_text()) == values
    assert (tmp_path / "localization.png").stat().st_size > 10_000
    told = []
    assert bench_localization(tiny(), ["best"], tmp_path, tell=told.append) == values
    assert all("done before" in line for line in told)
    with pytest.raises(UserError, match="another setting"):
        bench_localization(tiny(max_steps=3), ["best"], tmp_path, tell=lambda _: None)


def test_an_unknown_method_is_refused(tmp_path):
    with pytest.raises(SettingError, match="unknown method 'mgnett'"):
        bench_localization(tiny(), ["mgnett"], tmp_path)


def test_the_share_of_the_oracles_gain():
    accuracies = {"learned": 0.9, "random": 0.5, "oracle": 1.0, "none": 0.4}
    policies = {name: {"accuracy": [0.1, value]} for name, value in accuracies.items()}
    assert gap_closed(policies) == pytest.approx(0.8)
    assert gap_closed({**policies, "oracle": {"accuracy": [0.1, 0.5]}}) is None
    assert gap_closed({name: values for name, values in policies.items() if name != "oracle"}) is None
    assert gap_closed({**policies, "none": {"accuracy": [1.0]}}) is None  # windows are ignored; random ones do harm


def test_steps_to_a_wanted_accuracy_are_of_the_mean_over_seeds():
    curves = [{10: 0.2, 20: 0.6, 30: 0.9}, {10: 0.4, 20: 0.4, 30: 0.9, 40: 1.0}]
    assert mean_curve(curves) == {10: pytest.approx(0.3), 20: pytest.approx(0.5), 30: pytest.approx(0.9)}
    assert steps_to(curves, 0.5) == 20
    assert steps_to(curves, 0.95) is None
    assert steps_to(curves, None) is None


def test_the_bound_is_validated_where_it_looks(tmp_path):
    """Its checkpoint is that of the best accuracy on the boxes: the curve is the oracle's."""
    config = METHODS["oracle"][0](tiny(max_steps=24))
    config = replace(config, training=replace(config.training, validations=3))
    summary = fit(config, tmp_path / "run", device="cpu")
    run = load_run(tmp_path / "run")
    with (tmp_path / "run/metrics.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["val/accuracy_3"]]
    best = max(rows, key=lambda row: float(row["val/accuracy_3"]))
    assert float(best["val/accuracy_3"]) == pytest.approx(
        evaluate_run(run, "oracle", EvaluationSettings(split="val"))["accuracy"][-1]
    )
    assert (int(best["step"]), float(best["val/hit_rate_2"])) == (summary["best_step"], 1)

"""What tests train, they train with a margin: one seed here, ten in the record of ``benchmarks/margins.py``."""

import json

import pytest


def test_digits_without_clutter_are_learned(margins):
    experiment = margins.EXPERIMENTS["learn-digits"]
    experiment.check(experiment.measure(0))


def test_records_have_the_bounds_of_the_tests_and_all_of_their_seeds_lie_well_within(margins):
    records = {file.name: json.loads(file.read_text()) for file in margins.records()}
    assert records["test-margins.json"]["experiments"].keys() == margins.EXPERIMENTS.keys()
    for name, record in records.items():
        for experiment, found in record["experiments"].items():
            bounds = margins.EXPERIMENTS[experiment].bounds
            assert found["quantities"].keys() >= bounds.keys()
            for quantity, measured in found["quantities"].items():
                where = (name, experiment, quantity)
                assert (measured["low"], measured["high"]) == bounds.get(quantity, (None, None)), where
                assert len(measured["values"]) == 10, where
                if quantity in bounds:
                    assert measured["room"] > 0, where
                    assert measured["room"] >= measured["deviation"], where


def test_a_number_outside_its_bounds_is_named(margins):
    experiment = margins.Experiment(dict, {"accuracy": (0.6, None), "loss": (None, 1.0)})
    experiment.check({"accuracy": 0.7, "loss": 0.5, "unbounded": 99.0})
    with pytest.raises(AssertionError, match=r"accuracy is 0\.5, not above 0\.6"):
        experiment.check({"accuracy": 0.5, "loss": 0.5})
    with pytest.raises(AssertionError, match="loss is 1, not below 1"):
        experiment.check({"accuracy": 0.7, "loss": 1.0})

"""glimpsenet: image classification by glimpses.

A model looks at an image once at low resolution, then at a few small windows at high resolution that it chooses
itself, and classifies from all of them.
"""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

__version__ = version("glimpsenet")

if TYPE_CHECKING:
    from glimpsenet.errors import UserError
    from glimpsenet.evaluation.summary import Summary, summary
    from glimpsenet.inference import ExitRule, Predictor, accelerate, predict
    from glimpsenet.models.build import create_model
    from glimpsenet.models.glimpsenet import GlimpseNet, GlimpseOutput
    from glimpsenet.policies.base import Policy
    from glimpsenet.policies.baselines import CenterGlimpses, FixedGlimpses, OracleGlimpses, RandomGlimpses
    from glimpsenet.recipes import list_recipes, recipe
    from glimpsenet.runs import Run, load, load_run
    from glimpsenet.runs.mgnet import load_mgnet
    from glimpsenet.training.fit import fit

_HOMES = {
    "UserError": "errors",
    "Summary": "evaluation.summary",
    "summary": "evaluation.summary",
    "ExitRule": "inference",
    "Predictor": "inference",
    "accelerate": "inference",
    "predict": "inference",
    "create_model": "models.build",
    "GlimpseNet": "models.glimpsenet",
    "GlimpseOutput": "models.glimpsenet",
    "CenterGlimpses": "policies.baselines",
    "FixedGlimpses": "policies.baselines",
    "OracleGlimpses": "policies.baselines",
    "Policy": "policies.base",
    "RandomGlimpses": "policies.baselines",
    "list_recipes": "recipes",
    "recipe": "recipes",
    "Run": "runs",
    "load": "runs",
    "load_mgnet": "runs.mgnet",
    "load_run": "runs",
    "fit": "training.fit",
}

__all__ = [
    "CenterGlimpses",
    "ExitRule",
    "FixedGlimpses",
    "GlimpseNet",
    "GlimpseOutput",
    "OracleGlimpses",
    "Policy",
    "Predictor",
    "RandomGlimpses",
    "Run",
    "Summary",
    "UserError",
    "accelerate",
    "create_model",
    "fit",
    "list_recipes",
    "load",
    "load_mgnet",
    "load_run",
    "predict",
    "recipe",
    "summary",
]


def __getattr__(name: str) -> Any:
    # Imported when first used: `import glimpsenet` and the command line's help stay fast.
    if name not in _HOMES:
        raise AttributeError(f"module 'glimpsenet' has no attribute '{name}'")
    return getattr(importlib.import_module(f"glimpsenet.{_HOMES[name]}"), name)

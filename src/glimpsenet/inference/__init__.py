"""Trained models in use: classify files, stop early, run fast, export."""

from glimpsenet.inference.early_exit import ExitOutput, ExitRule, Predictor
from glimpsenet.inference.fast import accelerate
from glimpsenet.inference.files import Prediction, Unreadable, predict

__all__ = ["ExitOutput", "ExitRule", "Prediction", "Predictor", "Unreadable", "accelerate", "predict"]

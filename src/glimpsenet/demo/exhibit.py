"""The page's questions to a run, answered as plain values: a thin layer over the library.

look     windows, crops, answers, and the time they took                         Predictor, ExitRule
arrows   where gradient descent would move and resize the windows                inspection.arrows
sweep    loss and gradient along s, tx and ty of one window                      inspection.sweep
field    the loss over all positions of one window                               inspection.field
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import cattrs
import torch
from matplotlib import colormaps
from torch import Tensor

from glimpsenet.config import check_seed
from glimpsenet.demo.pictures import Picture, from_url, to_url
from glimpsenet.devices import choose_device
from glimpsenet.errors import SettingError
from glimpsenet.evaluation.efficiency import measure_cost
from glimpsenet.inference import ExitRule, Predictor, accelerate
from glimpsenet.inspection import field as fields
from glimpsenet.inspection import sweep as sweeps
from glimpsenet.inspection.arrows import arrows
from glimpsenet.inspection.figures import as_shown
from glimpsenet.inspection.gradients import Scene, observe
from glimpsenet.inspection.injection import parse_windows
from glimpsenet.policies.base import Policy
from glimpsenet.policies.baselines import FixedGlimpses, PolicyName, baseline_policy
from glimpsenet.runs import Run, load_run

MAX_BARS = 10
"""Classes whose probabilities are shown."""
SWEEP_POINTS, FIELD_POINTS = 61, 15
"""Few enough that a ResNet-18 at 224 pixels answers in seconds on two cores."""


SHIPPED = Path(__file__).parent / "digits"
"""The run folder shipped with the package; made by ``benchmarks/ship_demo_model.py``."""


@dataclass(frozen=True)
class Question:
    """A request of the page about a picture."""

    picture: str
    """The square image that the run takes, as a PNG in a data URL."""
    windows: tuple[str, ...] = ()
    """Windows to inject, as GLIMPSE=s,tx,ty; the policy chooses the others."""
    glimpses: int | None = None
    """T; the model's if None."""
    exit_confidence: float = 1.0
    """Stop once the answer's probability exceeds this."""
    policy: str = "learned"
    """learned, random, center or none."""
    seed: int = 0
    """Seed for random windows."""
    arrows: bool = False
    """Also return the gradient of every window."""
    label: int | None = None
    """Class whose loss is differentiated; the predicted one if None."""
    glimpse: int = 2
    """Glimpse whose window is swept."""


def read_question(values: Any) -> Question:
    """A question from parsed JSON.

    Raises:
        SettingError: for fields that are missing, unknown or of the wrong type; names them.
    """
    try:
        return cattrs.Converter(forbid_extra_keys=True).structure(values, Question)
    except cattrs.BaseValidationError as error:
        raise SettingError(f"cannot read the question: {'; '.join(cattrs.transform_error(error))}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise SettingError(f"cannot read the question: {error}") from error


class Exhibit:
    """A run shown on the page. It keeps no data of visitors, so any number of them can use it at once.

    Args:
        run: from :func:`glimpsenet.load_run`.
        name: its name on the page.
    """

    def __init__(self, run: Run, name: str):
        self.run, self.name = run, name
        self.cost = measure_cost(run.model, run.config.model.image_size, run.channels)
        self.model = accelerate(run.model)

    def describe(self) -> dict[str, Any]:
        """What the page needs to know about the run."""
        config = self.run.config.model
        return {
            "name": self.name,
            "backbone": config.backbone,
            "classes": self.run.classes,
            "num_glimpses": self.model.num_glimpses,
            "image_size": config.image_size,
            "glimpse_size": self.model.generator.glimpse_size,
            "scale_range": config.scale_range,
            "cost": self.cost,
        }

    def look(self, question: Question) -> dict[str, Any]:
        """The scanpath, glimpse by glimpse, until the answer is confident enough."""
        picture = self._picture(question)
        glimpses = self._num_glimpses(1 if question.policy == "none" else question.glimpses)
        policy = self._policy(question, glimpses)
        predictor = Predictor(self.model, ExitRule(question.exit_confidence))
        start = time.perf_counter()
        output = predictor(picture[None], policy=policy, num_glimpses=glimpses)
        looks = int(output.num_glimpses[0])  # waits for the device
        seconds = time.perf_counter() - start
        windows, logits = output.windows[0, :looks], output.glimpse_logits[0, :looks]
        with torch.inference_mode():
            seen = self.model.crops(as_shown(picture)[None].to(windows), windows[None])[0]
        return {
            "stopped_early": looks < glimpses,
            "milliseconds": 1000 * seconds,
            "windows": windows.tolist(),
            "crops": [to_url(crop) for crop in seen],
            **self._bars(logits.float().softmax(-1).cpu()),
            "gradients": self._gradients(picture, question, windows) if question.arrows else None,
        }

    def sweep(self, question: Question) -> dict[str, Any]:
        """Curves along s, tx and ty of one window; a parameter with no room to vary gets a refusal instead."""
        scene = self._scene(question)
        return {name: self._curve(scene, name, question.glimpse) for name in sweeps.PARAMETERS}

    def field(self, question: Question) -> dict[str, Any]:
        """The loss over all positions of one window as a picture, with the direction of descent at each."""
        scene = self._scene(question)
        result = _in_words(lambda: fields.field(scene, glimpse=question.glimpse, points=FIELD_POINTS))
        low, high = float(result.loss.min()), float(result.loss.max())
        shares = (result.loss - low) / max(high - low, 1e-12)
        colours = torch.from_numpy(colormaps["viridis"](shares.numpy())[..., :3]).permute(2, 0, 1)
        downhill = -result.gradient / result.gradient.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        return {
            "scale": result.scale,
            "loss_range": [low, high],
            "picture": to_url(colours),
            "places": result.places.flatten(0, 1).tolist(),
            "downhill": downhill.flatten(0, 1).tolist(),
        }

    def _picture(self, question: Question) -> Picture:
        return from_url(question.picture, self.run).to(self.model.classifier.weight.device)

    def _num_glimpses(self, asked: int | None) -> int:
        most = self.model.num_glimpses
        if asked is not None and not 1 <= asked <= most:
            raise SettingError(f"this model takes 1 to {most} glimpses, not {asked}")
        return asked or most

    def _policy(self, question: Question, num_glimpses: int) -> Policy:
        known = [name for name in get_args(PolicyName) if name != "oracle"]
        if question.policy not in known:
            raise SettingError(f"unknown policy '{question.policy}'; available: {', '.join(known)}")
        check_seed(question.seed)
        policy = self.model.policy
        if question.policy == "random" or question.policy == "center":
            scale_range, size = self.run.config.model.scale_range, self.model.generator.glimpse_size
            policy = baseline_policy(question.policy, scale_range, glimpse_size=size, seed=question.seed)
        return FixedGlimpses(parse_windows(question.windows, num_glimpses), otherwise=policy)

    def _bars(self, probabilities: Tensor) -> dict[str, Any]:
        """The classes that get a bar: all if there are few, else those likely at any glimpse, likeliest first."""
        classes, shown = self.run.classes, range(len(self.run.classes))
        if len(classes) > MAX_BARS:
            likeliest = probabilities.amax(0).topk(MAX_BARS).indices
            shown = sorted(likeliest.tolist(), key=lambda place: -float(probabilities[-1, place]))
        return {
            "classes": [classes[place] for place in shown],
            "probabilities": probabilities[:, list(shown)].tolist(),
            "answers": [classes[place] for place in probabilities.argmax(-1).tolist()],
            "confidences": probabilities.amax(-1).tolist(),
        }

    def _gradients(self, picture: Picture, question: Question, windows: Tensor) -> list[list[float]] | None:
        """dL/d(s, tx, ty) of glimpses 2, 3, ...; None if there is only the first glimpse, which no policy chooses."""
        if len(windows) == 1:
            return None
        return arrows(self._observe(picture, question, windows)).gradient.tolist()

    def _scene(self, question: Question) -> Scene:
        """The scene with the windows that the page shows, all of them injected."""
        windows = parse_windows(question.windows, self.model.num_glimpses)
        if sorted(windows) != list(range(1, len(windows) + 1)) or question.glimpse not in windows:
            raise SettingError(f"to sweep window {question.glimpse}, send the windows of all glimpses from 1")
        given = torch.tensor([windows[glimpse] for glimpse in sorted(windows)])
        return self._observe(self._picture(question), question, given)

    def _observe(self, picture: Picture, question: Question, windows: Tensor) -> Scene:
        # A copy, since tensors from inference mode cannot take part in gradients.
        given = FixedGlimpses(dict(enumerate(windows.clone(), 1)), otherwise=self.model.policy)
        return _in_words(lambda: observe(self.model, picture, question.label, policy=given, num_glimpses=len(windows)))

    def _curve(self, scene: Scene, name: sweeps.Parameter, glimpse: int) -> dict[str, Any]:
        scale_range = self.run.config.model.scale_range
        try:
            curve = sweeps.sweep(scene, name, glimpse=glimpse, points=SWEEP_POINTS, scale_range=scale_range)
        except sweeps.NoRoomError as error:
            return {"refusal": str(error)}
        return {
            "values": curve.values.tolist(),
            "loss": curve.loss.tolist(),
            "gradient": curve.gradient.tolist(),
            "slope": curve.slope,
            "intercept": curve.intercept,
            "r_squared": curve.r_squared,
            "as_wanted": curve.has_wanted_sign,
        }


def open_exhibits(folders: Sequence[Path], device: str = "auto") -> list[Exhibit]:
    """Load run folders and warm them up.

    Raises:
        UserError: for a folder without a run.
    """
    place = choose_device(device)
    exhibits = [
        Exhibit(load_run(folder, place), name) for folder, name in zip(folders, short_names(folders), strict=True)
    ]
    for exhibit in exhibits:  # the first call is the slowest: make it before visitors come
        size = exhibit.run.config.model.image_size
        blank = torch.zeros(exhibit.run.channels, size, size, dtype=torch.uint8)
        exhibit.look(Question(to_url(blank), arrows=True))
    return exhibits


def short_names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that differ from each other; visitors do not see the rest."""
    parts = [folder.resolve().parts for folder in folders]
    ends = (["/".join(path[-length:]) for path in parts] for length in range(1, max(map(len, parts)) + 1))
    return next(names for names in ends if len(set(names)) == len(set(parts)))


def _in_words(call: Callable[[], Any]) -> Any:
    """Turn a tool's ``ValueError`` into a message for the visitor."""
    try:
        return call()
    except ValueError as error:
        raise SettingError(str(error)) from error

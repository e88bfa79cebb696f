"""Every setting, as plain dataclasses; free of torch, so that the command line answers at once.

An experiment is a ``Config``: what the model is, what it is trained on, how. ``recipes.py`` names some. A run folder
keeps its own as ``config.json``; :func:`from_json` reads it back strictly.
"""

import dataclasses
import functools
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from glimpsenet.errors import SettingError, UserError, did_you_mean

MOST_GLIMPSES, LARGEST_IMAGE = 1000, 16_384
"""What nobody needs; but a stranger's config.json may ask for more than ever ends, or fits into memory."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SettingError(message)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The recurrent classifier; number of classes and channels come from the data."""

    backbone: str = "resnet18"
    """Any timm model by name, or glimpse_cnn, a small network for small glimpses."""
    backbone_weights: Path | None = None
    """Weights file the backbone starts from (safetensors or torch.save), loaded strictly."""
    pretrained: bool = False
    """Start the backbone from timm's weights (downloaded); --backbone-weights goes before it."""
    num_glimpses: int = 4
    """T, the first look included."""
    image_size: int = 224
    """Side of the square image in pixels."""
    glimpse_size: int = 96
    """Side of a glimpse in pixels."""
    scale_range: tuple[float, float] = (0.2, 0.5)
    """Smallest and largest scale s of a window, its side as a share of the image's side; 1 is the whole image."""
    sampling: Literal["bilinear", "mipmap", "linearized"] = "bilinear"
    """How windows are resampled; mipmap is anti-aliased, linearized is bilinear with a gradient that looks further."""
    align_corners: bool = True
    """For bilinear sampling: positions from corner pixel to corner pixel, as MGNet has it."""
    spatial_clue: Literal["affine", "positional", "none"] = "affine"
    """How features learn where they were seen: [f; s, tx, ty], 2-D positional encoding, or not."""
    clue_with_scale: bool = False
    """Add the window's size to the positional encoding."""
    fusion: Literal["attention", "mean", "none"] = "attention"
    """How glimpses are joined: attention over all so far (MGNet), their mean, or not: each answer from its glimpse."""
    num_heads: int = 1
    """Heads of the fusion's attention."""
    even_attention: bool = False
    """Begin training with equal attention to all glimpses, not with the random preference of Kaiming weights."""
    batch_norm: Literal["shared", "separate"] = "shared"
    """Batch normalisation of first look and windows: one for both (MGNet), or one each."""
    localization: Literal["linear", "spatiotemporal", "tokens"] = "linear"
    """Where to look next: from the fusion's output (MGNet), by attention over feature map tokens (the report), or by
    scoring the places of the feature maps (ours)."""
    localization_layer: int = -1
    """Feature map that localization takes its tokens from; -1 is the backbone's last."""
    localization_noise: float = 0.0
    """For linear and spatiotemporal: draw windows in training from a normal of this deviation before the sigmoid."""
    token_scales: tuple[float, ...] = (0.3,)
    """For tokens: the scales s to choose among."""
    token_subcells: int = 1
    """For tokens: places along each side of a feature map's cell to choose among."""
    max_overlap: float = 0.5
    """For tokens: do not look again where windows share more than this of their area; 1 allows everything."""
    stop_gradient: bool = True
    """For tokens: learning where to look does not change the features."""
    freeze_backbone: bool = False
    """Train only the backbone's last stage; the statistics of the frozen part are frozen too."""
    auxiliary_classifier: bool = True
    """A classifier on the bare features of every window, for the auxiliary loss."""
    windows_vote: bool = False
    """After training, what the auxiliary classifier reads in each window counts as much as the fusion's answer: for few
    training images, where the fusion learns scenes by heart."""
    gradient_factor: float = 0.02
    """Gradients into the localization network are multiplied by this."""

    def __post_init__(self) -> None:
        smallest, largest = self.scale_range
        _require(
            1 <= self.num_glimpses <= MOST_GLIMPSES,
            f"num_glimpses must be in 1..{MOST_GLIMPSES}, got {self.num_glimpses}",
        )
        _require(self.num_heads >= 1, f"num_heads must be 1 or more, got {self.num_heads}")
        _require(self.glimpse_size >= 1, f"glimpse_size must be 1 or more, got {self.glimpse_size}")
        _require(
            self.image_size <= LARGEST_IMAGE, f"image_size must not be above {LARGEST_IMAGE}, got {self.image_size}"
        )
        _require(
            self.glimpse_size <= self.image_size,
            f"image_size {self.image_size} is smaller than glimpse_size {self.glimpse_size}",
        )
        _require(
            0 < smallest <= largest <= 1,
            f"scale_range must satisfy 0 < smallest <= largest <= 1, got {smallest} {largest}",
        )
        _require(
            self.localization_noise >= 0, f"localization_noise must not be negative, got {self.localization_noise}"
        )
        _require(
            len(self.token_scales) > 0 and all(0 < scale <= 1 for scale in self.token_scales),
            f"token_scales must be in 0..1, one or more, got {self.token_scales}",
        )
        _require(self.token_subcells >= 1, f"token_subcells must be 1 or more, got {self.token_subcells}")
        _require(
            self.auxiliary_classifier or not self.windows_vote, "windows_vote takes the auxiliary classifier: set both"
        )
        _require(0 <= self.max_overlap <= 1, f"max_overlap must be in 0..1, got {self.max_overlap}")


@dataclass(frozen=True, kw_only=True)
class DigitsConfig:
    """Digit scenes: one handwritten digit at a random place among clutter cut from other digits."""

    train_scenes: int = 12_000
    """Scenes an epoch; fresh ones every epoch."""
    val_scenes: int = 1_000
    """Validation scenes, which choose the checkpoint; always the same."""
    test_scenes: int = 1_000
    """Test scenes, which choose nothing; always the same."""
    num_clutter: int = 8
    """Clutter patches a scene, 7 x 7 pixels each."""
    noise: float = 0.05
    """Standard deviation of the Gaussian noise, in units of white."""

    def __post_init__(self) -> None:
        scenes = (self.train_scenes, self.val_scenes, self.test_scenes)
        _require(min(scenes) >= 1, "there must be at least one scene of each kind")
        _require(self.num_clutter >= 0 and self.noise >= 0, "num_clutter and noise must not be negative")


@dataclass(frozen=True, kw_only=True)
class FolderConfig:
    """Image folders: train/CLASS/*.jpg, val/CLASS/*.jpg; test/CLASS/*.jpg if some images are to choose nothing, and
    boxes.csv (file,x0,y0,x1,y1) if places are known."""

    data: Path = Path("data")
    """Folder that holds train/, val/ and, optionally, test/ and boxes.csv."""
    augmentation: Literal["none", "light", "imagenet"] = "light"
    """light: small moves, zooms and colour changes; imagenet: random resized crop, flip, AutoAugment."""
    skip_bad: bool = False
    """Skip unreadable images, and count them, instead of stopping."""
    value_range: tuple[float, float] | None = None
    """Values that become black and white in 16-bit, 32-bit and floating-point grey images, in the files' own units
    (0 4095 for a 12-bit camera); those outside are cut off. If not given: all that an integer type of up to 16 bits
    holds, and 0 1 for floating point. 8-bit images have none, and are refused with it."""

    def __post_init__(self) -> None:
        black, white = self.value_range or (0.0, 1.0)
        _require(
            -math.inf < black < white < math.inf,
            f"value_range must be two finite numbers, black below white, got {black:g} {white:g}",
        )


DataConfig = DigitsConfig | FolderConfig


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Optimisation: one cycle of learning rate (Smith & Topin 2019) over the whole run."""

    epochs: int = 400
    """Passes over the training data."""
    max_steps: int | None = None
    """Stop the schedule after this many optimiser steps; goes before --epochs."""
    batch_size: int = 256
    """Images a step on each device; MGNet divides its 256 among its devices, so on four that is 64."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum 0.9, or AdamW."""
    learning_rate: float = 0.1
    """Peak learning rate."""
    weight_decay: float = 1e-4
    """Weight decay."""
    warmup_share: float = 0.2
    """Share of the schedule in which the learning rate rises."""
    auxiliary_weight: float = 0.6
    """alpha: weight of the auxiliary loss; 1 - alpha is the main loss's."""
    auxiliary_decay: bool = False
    """Let alpha fall to 0, linearly over the schedule: early it teaches reading, late it makes glimpses selfish."""
    objective: Literal[
        "pathwise", "policy-gradient", "value-map", "listwise", "feature-map", "salience", "guidance", "oracle", "own"
    ] = "pathwise"
    """What teaches localization; pathwise is the classification loss through the sampling (MGNet, the report); own is
    one handed to fit() in Python."""
    reward: Literal["evidence", "likelihood", "progress", "confidence"] = "evidence"
    """For policy-gradient and value-map: log-likelihood of the class in the window by itself, not less than a guess's
    (evidence) or whatever it is, fall of the loss, or rise of the true class's probability."""
    objective_weight: float = 0.1
    """Weight of the objective's loss beside the classification loss."""
    discount: float = 0.0
    """For policy-gradient: how much the next window's reward counts for the one before it."""
    entropy_weight: float = 0.0
    """For policy-gradient: bonus for undecided policies."""
    scale_penalty: float = 0.0
    """For pathwise: weight of the windows' mean scale; the objective's weight multiplies it too."""
    overlap_penalty: float = 0.0
    """For pathwise: weight of the windows' mean overlap; the objective's weight multiplies it too."""
    large_until: float = 0.0
    """For pathwise: share of the schedule over which windows shrink from the largest scale to those chosen."""
    gradient_share: float | None = None
    """Dynamic re-scaling: adapt the localization network's gradient factor so that the norm of its gradient stays this
    share of all other weights'."""
    ppo_passes: int = 1
    """For policy-gradient: optimiser steps on every batch; with more than one, PPO's clipping."""
    diversity: float = 0.0
    """Share of windows drawn at random while training."""
    diversity_until: float = 0.7
    """Share of the schedule after which none is random any more."""
    random_until: float = 0.0
    """Share of the schedule before which all are random: the classifier learns to read before the policy to look."""
    policy_learning_rate: float = 1.0
    """Learning rate of the policy, as a multiple of the others'."""
    gradient_clip: float | None = None
    """Clip the norm of all gradients to this."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 where the machine computes in it, else float32."""
    workers: int = 0
    """Processes that read and augment images; 0 reads in the training process."""
    validations: int = 10
    """How often to validate and save during the run."""
    log_localization_statistics: bool = True
    """Write the localization network's weights, gradients and windows, summarised, to localization.csv."""

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, f"epochs must be 1 or more, got {self.epochs}")
        _require(self.max_steps is None or self.max_steps >= 1, f"max_steps must be 1 or more, got {self.max_steps}")
        _require(self.batch_size >= 1, f"batch_size must be 1 or more, got {self.batch_size}")
        _require(0 <= self.auxiliary_weight <= 1, f"auxiliary_weight must be in 0..1, got {self.auxiliary_weight}")
        _require(self.ppo_passes >= 1, f"ppo_passes must be 1 or more, got {self.ppo_passes}")
        _require(
            self.ppo_passes == 1 or self.objective == "policy-gradient",
            f"ppo_passes belongs to objective policy-gradient, not {self.objective}",
        )
        for name in ("scale_penalty", "overlap_penalty", "large_until"):
            value = getattr(self, name)
            _require(0 <= value < math.inf, f"{name} must not be negative, got {value}")
            _require(
                value == 0 or self.objective == "pathwise",
                f"{name} belongs to objective pathwise, not {self.objective}",
            )
        share = self.gradient_share
        _require(share is None or 0 < share < math.inf, f"gradient_share must be positive, got {share}")
        for name in ("discount", "diversity", "diversity_until", "random_until", "large_until"):
            value = getattr(self, name)
            _require(0 <= value <= 1, f"{name} must be in 0..1, got {value}")
        for name in ("objective_weight", "entropy_weight", "policy_learning_rate"):
            value = getattr(self, name)
            _require(0 <= value < math.inf, f"{name} must not be negative, got {value}")
        _require(0 < self.warmup_share < 1, f"warmup_share must be between 0 and 1, got {self.warmup_share}")
        _require(self.workers >= 0, f"workers must not be negative, got {self.workers}")
        _require(
            0 < self.learning_rate < math.inf, f"learning_rate must be positive and finite, got {self.learning_rate}"
        )
        _require(self.weight_decay >= 0, f"weight_decay must not be negative, got {self.weight_decay}")
        clip = self.gradient_clip
        _require(clip is None or clip > 0, f"gradient_clip must be positive, got {clip}")
        _require(self.validations >= 1, f"validations must be 1 or more, got {self.validations}")


@dataclass(frozen=True, kw_only=True)
class Config:
    """An experiment; with the seed, everything that its result depends on."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=FolderConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = 0
    """Everything random follows from it."""

    def __post_init__(self) -> None:
        check_seed(self.seed)

    @property
    def photos(self) -> FolderConfig:
        """How image files are read and made square: as those of the data set; plainly, where it is made of none."""
        return self.data if isinstance(self.data, FolderConfig) else FolderConfig(augmentation="none")

    def with_data(self, folder: Path) -> "Config":
        """The same on another image folder."""
        return dataclasses.replace(self, data=dataclasses.replace(self.photos, data=folder))


def check_seed(seed: int) -> None:
    """Refuse what numpy and torch cannot both take.

    Raises:
        SettingError: unless 0 <= seed < 2^32.
    """
    _require(0 <= seed < 2**32, f"seed must be in 0..{2**32 - 1}, got {seed}")


def _converter() -> Any:
    import cattrs
    from cattrs.strategies import configure_tagged_union

    converter = cattrs.Converter(forbid_extra_keys=True)
    # cattrs converts by default: "no" to True, 40.5 to 40.
    for kind, accepted in {bool: bool, int: int, float: (int, float), str: str}.items():
        converter.register_structure_hook(kind, functools.partial(_take_as_it_is, accepted))
    configure_tagged_union(
        DataConfig, converter, tag_name="kind", tag_generator=lambda kind: _DATA_KINDS[kind], default=FolderConfig
    )
    return converter


def _take_as_it_is(accepted: Any, value: Any, kind: type) -> Any:
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{value!r} is not of type {kind.__name__}")
    return kind(value)


_DATA_KINDS = {DigitsConfig: "digits", FolderConfig: "folder"}


def to_dict(config: Config) -> dict[str, Any]:
    """Plain values, for JSON."""
    return _converter().unstructure(config, Config)


def from_dict(values: Any) -> Config:
    """The inverse of :func:`to_dict`.

    Raises:
        UserError: naming the setting that is unknown, missing or of another type.
    """
    import cattrs

    try:
        return _converter().structure(values, Config)
    except cattrs.BaseValidationError as error:
        raise UserError(f"bad configuration: {'; '.join(cattrs.transform_error(error, path='config'))}") from error
    except Exception as error:  # whatever a value of the wrong kind provokes while it is converted
        raise UserError(f"bad configuration: {error}") from error


def from_json(text: str) -> Config:
    """A configuration from JSON text; see :func:`from_dict`."""
    try:
        return from_dict(json.loads(text))
    except (ValueError, RecursionError) as error:  # no JSON; a number of thousands of digits; lists without end
        raise UserError(f"bad configuration: not JSON: {error}") from error


def replace_settings(config: ModelConfig, **settings: Any) -> ModelConfig:
    """``config`` with some settings changed.

    Raises:
        UserError: for a setting that does not exist, with the nearest name.
    """
    names = [entry.name for entry in dataclasses.fields(config)]
    for name in settings:
        if name not in names:
            raise SettingError(f"the model has no setting '{name}'; {did_you_mean(name, names)}")
    return dataclasses.replace(config, **settings)

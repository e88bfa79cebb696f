"""The LightningModule: one training step, one validation step, one optimiser."""

import math
import time
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
from torch import Tensor

from glimpsenet.data.sample import Batch
from glimpsenet.errors import MissingError, UnreadableImageError, UserError
from glimpsenet.evaluation.metrics import ScanpathMetrics
from glimpsenet.losses import glimpse_loss
from glimpsenet.models.config import ModelConfig
from glimpsenet.models.glimpsenet import GlimpseNet
from glimpsenet.training.config import TrainingConfig
from glimpsenet.training.nonfinite import name_nonfinite
from glimpsenet.training.objectives import Objective


class GlimpseTask(pl.LightningModule):
    """Trains a :class:`~glimpsenet.models.glimpsenet.GlimpseNet` with the paper's loss.

    Args:
        model: the model.
        objective: what teaches its policy.
        config: the model's settings.
        training: optimiser, schedule and weights of the losses.
        total_steps: length of the schedule in optimiser steps.
        skip_bad: count unreadable images instead of stopping.
    """

    def __init__(
        self,
        model: GlimpseNet,
        objective: Objective,
        config: ModelConfig,
        training: TrainingConfig,
        total_steps: int,
        skip_bad: bool = False,
    ):
        super().__init__()
        self.model, self.objective, self.training_config = model, objective, training
        self.total_steps, self.skip_bad = total_steps, skip_bad
        self.problems: list[str] = []
        self._validation_culprit = ""
        self.windows: Tensor | None = None  # windows of the newest training batch; None if it was skipped
        self._seconds_before, self._start = 0.0, time.perf_counter()
        self.metrics = ScanpathMetrics(model.num_glimpses, model.num_classes, config.image_size)

    @property
    def seconds(self) -> float:
        """Spent on training so far, interruptions left out."""
        return self._seconds_before + time.perf_counter() - self._start

    def on_train_start(self) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def training_step(self, batch: Batch) -> Tensor | None:
        """Loss of a batch; stops at once if it is not finite. None, which Lightning skips, if no image is readable."""
        self._check_images(batch)
        self.windows = None
        if len(batch.images) == 0:
            return None
        settings = self.training_config
        progress = self.global_step / self.total_steps
        share = diversity(settings, progress)
        behaviour = self.objective.behaviour(self.model, share, batch.labels, batch.boxes, progress)
        output = self.model(self.model.normalization(batch.images), policy=behaviour)
        self.windows = output.windows.detach()
        # While every window is random, the fusion would learn that windows tell nothing, and be slow to unlearn it.
        warming_up = share == 1 and output.auxiliary_logits is not None
        alpha = settings.auxiliary_weight * (1 - progress if settings.auxiliary_decay else 1)
        loss = glimpse_loss(output, batch.labels, 1.0 if warming_up else alpha)
        objective = self.objective(self.model, output, batch.labels, batch.boxes)
        total = loss.total + self.objective.weight * objective
        if not bool(total.isfinite()):
            self._stop_at(total, "the training loss", name_nonfinite(self.model, batch.images, output))
        correct = (output.logits[:, [0, -1]].argmax(-1) == batch.labels[:, None]).float().mean(0)
        self.log_dict(
            {
                "train/loss": loss.total,
                "train/auxiliary_loss": loss.auxiliary,
                "train/objective": objective,
                "train/accuracy_first": correct[0],
                "train/accuracy_last": correct[1],
                "train/learning_rate": self.trainer.optimizers[0].param_groups[0]["lr"],
                # What loggers are told; Lightning's own count takes batches without a readable image for steps.
                "step": float(self.global_step),
            }
        )
        return total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Dynamic re-scaling: the next step's gradient factor, after what this step's gradients were."""
        policy, share = self.model.policy, self.objective.gradient_share
        if share is None or policy.gradient_factor is None:
            return
        others, own = (_gradient_norm(group["params"]) for group in optimizer.param_groups)
        if own > 0 and others > 0:
            # Half way (in the logarithm): gradients of single batches are noisy.
            policy.gradient_factor *= math.sqrt(share * others / own)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """The last step counts as a stop, which makes Lightning validate and save whatever the interval."""
        if self.global_step >= self.total_steps:
            self.trainer.should_stop = True

    def validation_step(self, batch: Batch) -> None:
        """Add a batch to the metrics."""
        self._check_images(batch)
        if len(batch.images):
            output = self.model(self.model.normalization(batch.images), policy=self.objective.examined(batch.boxes))
            if not self._validation_culprit and not bool(output.logits.isfinite().all()):
                self._validation_culprit = name_nonfinite(self.model, batch.images, output)
            self.metrics.update(output, batch)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the whole validation set, one number a glimpse."""
        result = self.metrics.compute()
        self.metrics.reset()
        # Before the checkpoint is written: weights that give NaN must not replace good ones.
        loss = torch.tensor(result["loss"])
        if not bool(loss.isfinite().all()):
            self._stop_at(loss, "the validation loss", self._validation_culprit or "the loss itself")
        values = {
            f"val/{name}_{glimpse}": value
            for name in ("accuracy", "loss", "mean_scale", "hit_rate", "found_rate")
            if result[name] is not None
            for glimpse, value in enumerate(result[name], 1)
        }
        self.log_dict({**values, "val/accuracy": result["accuracy"][-1], "step": float(self.global_step - 1)})

    def configure_optimizers(self) -> Any:
        """SGD with momentum or AdamW under one cycle of learning rate."""
        settings = self.training_config
        groups = self._parameter_groups()
        if settings.optimizer == "sgd":
            optimizer = torch.optim.SGD(
                groups, settings.learning_rate, momentum=0.9, weight_decay=settings.weight_decay
            )
        else:
            optimizer = torch.optim.AdamW(
                groups, settings.learning_rate, weight_decay=settings.weight_decay, fused=True
            )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            [group["lr"] for group in groups],
            # One more than there are steps: the schedule is advanced after the last one too.
            total_steps=self.total_steps + 1,
            # torch divides by zero where the warm-up is one step.
            pct_start=max(settings.warmup_share, 2 / (self.total_steps + 1)),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clip here: Lightning won't under bfloat16 with a fused optimiser, for fear of a scaler, which float16 has."""
        if self.training_config.gradient_clip is not None:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.training_config.gradient_clip)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """The schedule advances with the optimiser: not after a batch without a readable image."""
        if scheduler.last_epoch < self.global_step:
            scheduler.step()

    def _parameter_groups(self) -> list[dict[str, Any]]:
        settings = self.training_config
        policy = list(self.model.policy.parameters())
        of_policy = set(map(id, policy))
        others = [parameter for parameter in self.parameters() if id(parameter) not in of_policy]
        return [
            {"params": others, "lr": settings.learning_rate},
            {"params": policy, "lr": settings.learning_rate * settings.policy_learning_rate},
        ]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Random numbers, the clock and the list of skipped images go on where they were."""
        checkpoint["random_state"] = torch.get_rng_state()
        checkpoint["seconds"] = self.seconds
        checkpoint["problems"] = list(self.problems)
        checkpoint["objective"] = type(self.objective).__qualname__
        if self.model.policy.gradient_factor is not None:
            checkpoint["gradient_factor"] = self.model.policy.gradient_factor

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See :meth:`on_save_checkpoint`.

        Raises:
            UserError: if the checkpoint was trained with an objective of another class.
        """
        check_objective(checkpoint, self.objective)
        torch.set_rng_state(checkpoint["random_state"].cpu())
        self._seconds_before = float(checkpoint["seconds"])
        self.problems = list(checkpoint["problems"])
        if self.model.policy.gradient_factor is not None:
            self.model.policy.gradient_factor = float(checkpoint["gradient_factor"])

    def _check_images(self, batch: Batch) -> None:
        if batch.problems and not self.skip_bad:
            raise UnreadableImageError(f"{batch.problems[0]}; remove the file or skip unreadable images")
        self.problems += batch.problems
        # One process alone may skip a step; several would wait for each other.
        if self.trainer.training and self.trainer.world_size > 1 and len(batch.images) == 0:
            raise MissingError(f"no readable image in a whole batch; the first: {batch.problems[0]}")

    def _stop_at(self, value: Tensor, what: str, culprit: str) -> NoReturn:
        settings = self.training_config
        clip = "" if settings.gradient_clip else ", or set gradient_clip"
        kind = "NaN" if bool(value.isnan().any()) else "infinite"
        raise UserError(
            f"{what} is {kind} at step {self.global_step}, first in: {culprit}; checkpoints are from before it: lower"
            f" learning_rate (it is {settings.learning_rate:g}){clip}"
        )


def _gradient_norm(parameters: list[torch.nn.Parameter]) -> float:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0


def diversity(training: TrainingConfig, progress: float) -> float:
    """The share of random windows at ``progress`` (0..1) of the schedule."""
    if progress < training.random_until:
        return 1.0
    return training.diversity if progress < training.diversity_until else 0.0


def check_objective(checkpoint: dict[str, Any], objective: Objective) -> None:
    """Refuse to take a run for one with another objective.

    Raises:
        UserError: if the checkpoint was trained with an objective of another class.
    """
    now = type(objective).__qualname__
    if (before := checkpoint.get("objective", now)) != now:
        raise UserError(f"cannot resume with objective {now}: the run was trained with {before}")


def count_steps(training: TrainingConfig, samples: int, world_size: int, passes: int = 1) -> int:
    """Optimiser steps of a run over ``samples`` images an epoch on ``world_size`` devices, ``passes`` on each batch."""
    steps = math.ceil(training.epochs * samples / (training.batch_size * world_size)) * passes
    return min(steps, training.max_steps or steps)

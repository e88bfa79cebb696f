"""The model learns: a few hundred small steps on an easy setting reach an accuracy far above chance."""

import torch

from glimpsenet import create_model
from glimpsenet.config import DigitsConfig
from glimpsenet.data.digits import CLASSES, DigitScenes
from glimpsenet.data.loading import FreshStream, InOrder, create_loader
from glimpsenet.evaluation.accuracy import evaluate
from glimpsenet.training.losses import glimpse_loss


def test_digits_without_clutter_are_learned():
    torch.manual_seed(0)
    easy = DigitsConfig(train_scenes=4096, val_scenes=300, num_clutter=0)
    settings = {"image_size": 32, "glimpse_size": 12, "sampling": "mipmap", "batch_norm": "separate"}
    model = create_model(
        "glimpse_cnn", num_classes=10, in_channels=1, num_glimpses=2, scale_range=(0.4, 0.8), **settings
    )
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=300)
    train = DigitScenes(easy, "train", canvas=32)
    batches = iter(create_loader(train, FreshStream(len(train), seed=0), 32))
    for _ in range(300):
        batch = next(batches)
        loss = glimpse_loss(model(model.normalization(batch.images)), batch.labels, 0.6)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        schedule.step()
    loader = create_loader(DigitScenes(easy, "val", canvas=32), InOrder(300), 100)
    result = evaluate(model, loader, scale_range=(0.4, 0.8), image_size=32, classes=CLASSES)
    assert result["accuracy"][-1] > 0.6, result["accuracy"]  # chance: 0.1

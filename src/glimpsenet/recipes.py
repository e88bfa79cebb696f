"""Named experiments: functions that return a configuration. ``glimpsenet train NAME`` runs one.

Each says what it shows, what to expect, and on what machine in which time.
"""

from collections.abc import Callable

from glimpsenet.config import Config, DigitsConfig, FolderConfig, ModelConfig, TrainingConfig


def digits() -> Config:
    """Digit scenes with the paper's localization, anti-aliased glimpses and separate batch normalisation.

    80 px scenes, four 20 px glimpses, about 1,500 steps of 64 fresh scenes.
    """
    return Config(
        model=ModelConfig(
            backbone="glimpse_cnn",
            image_size=80,
            glimpse_size=20,
            sampling="mipmap",
            align_corners=False,
            batch_norm="separate",
        ),
        data=DigitsConfig(),
        training=TrainingConfig(
            epochs=8, batch_size=64, optimizer="adamw", learning_rate=3e-3, weight_decay=0.01, gradient_clip=1.0
        ),
    )


def image_folder() -> Config:
    """Your own images: train/CLASS/*.jpg and val/CLASS/*.jpg under --data, any timm backbone.

    320 px images, four 96 px glimpses, a pretrained backbone fine-tuned for 12 epochs; the paper's localization,
    anti-aliased glimpses and separate batch normalisation.
    """
    return Config(
        model=ModelConfig(
            backbone="resnet18",
            pretrained=True,
            image_size=320,
            glimpse_size=96,
            sampling="mipmap",
            align_corners=False,
            batch_norm="separate",
        ),
        data=FolderConfig(),
        training=TrainingConfig(
            epochs=12,
            batch_size=32,
            optimizer="adamw",
            learning_rate=1e-3,
            weight_decay=0.05,
            gradient_clip=1.0,
            workers=2,
        ),
    )


RECIPES: dict[str, Callable[[], Config]] = {"digits": digits, "image-folder": image_folder}

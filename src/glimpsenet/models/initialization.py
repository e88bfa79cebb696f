"""Kaiming-normal weights and zero biases (He et al. 2015), as in MGNet's code outside the backbone.

The report does not mention initialisation.
"""

from torch import nn


def kaiming_init(module: nn.Module) -> None:
    """Set matrices of ``module`` to Kaiming-normal and biases to zero; normalisation layers stay unchanged."""
    for layer in module.modules():
        if isinstance(layer, nn.LayerNorm):
            continue
        for name, parameter in layer.named_parameters(recurse=False):
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter)
            elif "bias" in name:
                nn.init.zeros_(parameter)

"""Networks with random weights: a perceptron, a transformer encoder over tokens, and a ResNet."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the networks are. The defaults: 108 M parameters for the encoder, 25.6 M for the ResNet (He et al., 2016)."""

    perceptron: tuple[int, ...] = (256, 1024, 1024, 1)
    width: int = 768
    layers: int = 12
    heads: int = 12
    vocabulary: int = 30_000
    longest: int = 512
    image: int = 224
    stem: int = 64
    blocks: tuple[int, ...] = (3, 4, 6, 3)


SMALL = Sizes((64, 128, 1), 64, 2, 4, 1_000, 64, 32, 8, (1, 1, 1, 1))


def perceptron(sizes: Sizes) -> Any:
    """Features ``[n, width]`` to a score ``[n]``."""
    widths = sizes.perceptron
    layers: list[Any] = []
    for width_in, width_out in pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1], nn.Flatten(0))


class Encoder(nn.Module):  # type: ignore[misc,name-defined,unused-ignore]
    """Tokens ``[n, length]`` to a score ``[n]``; token 0 is padding. Layers normalize first, as GPT-2's do."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.tokens = nn.Embedding(sizes.vocabulary, sizes.width, padding_idx=0)
        self.places = nn.Embedding(sizes.longest, sizes.width)
        self.layers = nn.ModuleList(_Layer(sizes) for _ in range(sizes.layers))
        self.score = nn.Linear(sizes.width, 1)

    def forward(self, tokens: Any) -> Any:
        there = tokens != 0
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        # A row of padding only looks at its first token, so that nothing is divided by zero.
        mask = (there | (torch.arange(tokens.shape[1], device=tokens.device) == 0))[:, None, None, :]
        for layer in self.layers:
            x = layer(x, mask)
        weight = there[:, :, None].to(x.dtype)
        return self.score((x * weight).sum(1) / weight.sum(1).clamp(min=1)).squeeze(1)


class _Layer(nn.Module):  # type: ignore[misc,name-defined,unused-ignore]
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.width
        self.heads = sizes.heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.thought = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Any, mask: Any) -> Any:
        rows, length, width = x.shape
        parts = self.mixed(self.before(x)).view(rows, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.out(seen.transpose(1, 2).reshape(rows, length, width))
        return x + self.thought(self.between(x))


class _Bottleneck(nn.Module):  # type: ignore[misc,name-defined,unused-ignore]
    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.body = nn.Sequential(
            *(nn.Conv2d(width_in, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or width_in != out:
            self.shortcut = nn.Sequential(nn.Conv2d(width_in, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Any) -> Any:
        return functional.relu(self.body(x) + self.shortcut(x))


def resnet(sizes: Sizes) -> Any:
    """Images ``[n, 3, side, side]`` to a score ``[n]``."""
    width = sizes.stem
    layers: list[Any] = [
        nn.Conv2d(3, width, 7, 2, 3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    width_in = width
    for stage, blocks in enumerate(sizes.blocks):
        for block in range(blocks):
            layers.append(_Bottleneck(width_in, width << stage, 2 if stage and not block else 1))
            width_in = 4 * (width << stage)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width_in, 1), nn.Flatten(0))

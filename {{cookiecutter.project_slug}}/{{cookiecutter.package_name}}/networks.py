"""Your nn.Modules. Choose one with `--model.network Name`, set its arguments with `--model.network.ARGUMENT value`.

A network takes a batch and returns logits; nothing else is asked of it, so one from timm, torchvision, transformers or
a file of your own next to Train.py does as well (`--model.network torchvision.models.resnet18`). Arguments named
`classes` or `input_shape` (also `num_classes`, `num_labels`, `in_channels`, `in_chans`) are filled in from the data if
you don't set them.
"""

import torch
from torch import Tensor, nn


class ConvNet(nn.Module):
    """A small convolutional network for small images: two blocks of two convolutions, then a linear layer.

    All of its operations are deterministic on GPUs too, as exact resume needs (adaptive pooling, for one, is not).

    Args:
        classes: number of classes.
        input_shape: (channels, height, width) of one image, at least 4×4 pixels.
        width: channels of the first block; the second has twice as many.
        dropout: probability in [0, 1) of dropping a feature before the last layer.

    Shape:
        (N, channels, height, width) → (N, classes)
    """

    def __init__(self, classes: int, input_shape: tuple[int, int, int], width: int = 32, dropout: float = 0.2) -> None:
        super().__init__()
        self.block1 = block(input_shape[0], width)
        self.block2 = block(width, 2 * width)
        features = 2 * width * (input_shape[1] // 4) * (input_shape[2] // 4)  # each block halves height and width
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(features, classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.block2(self.block1(images)))


def block(channels_in: int, channels_out: int) -> nn.Sequential:
    """Two 3×3 convolutions with batch norm, then 2×2 max pooling: (N, in, H, W) → (N, out, H/2, W/2)."""
    layers: list[nn.Module] = []
    for channels in (channels_in, channels_out):
        # The batch norm that follows has a bias of its own, so the convolution needs none.
        layers += [nn.Conv2d(channels, channels_out, 3, padding=1, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2))


class MLP(nn.Module):
    """A multilayer perceptron on flattened inputs: the baseline to beat.

    Args:
        classes: number of classes.
        input_shape: shape of one sample.
        hidden: features of each hidden layer; empty for a linear classifier.

    Shape:
        (N, *input_shape) → (N, classes)
    """

    def __init__(self, classes: int, input_shape: tuple[int, ...], hidden: tuple[int, ...] = (128,)) -> None:
        super().__init__()
        sizes = [int(torch.tensor(input_shape).prod()), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for size_in, size_out in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Linear(size_in, size_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], classes))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)

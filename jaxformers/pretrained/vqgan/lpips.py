"""LPIPS' weights: VGG-16 by torchvision's names and the linear layers by those of LPIPS."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxformers.errors import WeightsError
from jaxformers.models.vqgan.lpips import LPIPS, STAGES
from jaxformers.pretrained.formats.safetensors_folder import TensorFile
from jaxformers.pretrained.formats.torch_file import TorchFile
from jaxformers.pretrained.mapping.name_map import Entry, NameMap, TensorSource
from jaxformers.pretrained.mapping.transforms import Convolution, Shape
from jaxformers.pretrained.model_variables import flatten, unflatten

# `features.0` in torchvision, `net.slice1.0` in LPIPS, after `loss.perceptual_loss.` in taming's
# checkpoints; the classifier and all else of those files is not LPIPS'.
VGG = re.compile(r"(?:.*\.)?(?:features|net\.slice\d)\.(\d+)\.(weight|bias)")
LINEAR = re.compile(r"(?:.*\.)?lin(\d)\.model\.\d\.weight")


class _LinearLayer:
    """A 1x1 convolution to one channel, `[1, C, 1, 1]`, and our vector `[C]`."""

    def their_shape(self, *ours: Shape) -> Shape:
        """`[1, C, 1, 1]`."""
        return (1, *ours[0], 1, 1)

    def to_ours(self, theirs: np.ndarray, *ours: Shape) -> tuple[np.ndarray, ...]:
        """Flat."""
        return (theirs.reshape(ours[0]),)

    def to_theirs(self, *ours: np.ndarray) -> np.ndarray:
        """With ones around it."""
        return ours[0].reshape(1, -1, 1, 1)


class _Files:
    """The tensors of several files that are LPIPS', under `features.N` and `linK`."""

    def __init__(self, sources: Sequence[TensorSource]):
        self.place = ", ".join(source.place for source in sources)
        self._owners: dict[str, tuple[TensorSource, str]] = {}
        for source in sources:
            for name in source.shapes:
                if short := _short_name(name):
                    self._owners[short] = (source, name)
        self.shapes: Mapping[str, Shape] = {
            short: source.shapes[name] for short, (source, name) in self._owners.items()
        }

    def read(self, name: str) -> np.ndarray:
        """The tensor of that name, float32."""
        source, their_name = self._owners[name]
        return source.read(their_name)


def lpips_parameters() -> dict[str, Any]:
    """The module's parameters as `jax.ShapeDtypeStruct`s."""
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    return jax.eval_shape(LPIPS().init, jax.random.key(0), images, images)["params"]


def read_lpips(files: Sequence[Any]) -> dict[str, Any]:
    """The module's parameters from files that together hold them.

    Args:
        files: `.safetensors` files, or PyTorch's, which are read without unpickling.

    Raises:
        WeightsError: a missing or damaged file, or tensors that are missing or misshapen.
    """
    source = _Files([_open(epath.Path(file).expanduser()) for file in files])
    shapes = {path: tuple(leaf.shape) for path, leaf in flatten(lpips_parameters()).items()}
    return unflatten(_name_map().read(source, shapes))


def _open(path: epath.Path) -> TensorSource:
    if not path.is_file():
        raise WeightsError(f"there is no file {path}")
    if path.suffix == ".safetensors":
        return TensorFile(path, str(path))
    return TorchFile(path)


def _short_name(name: str) -> str | None:
    if match := VGG.fullmatch(name):
        return f"features.{match[1]}.{match[2]}"
    match = LINEAR.fullmatch(name)
    return f"lin{match[1]}" if match else None


def _name_map() -> NameMap:
    entries, index = [], 0
    for stage, widths in enumerate(STAGES):
        for i in range(len(widths)):
            ours = f"stages_{stage}_{i}"
            entries.append(Entry(f"features.{index}.weight", f"{ours}/kernel", Convolution()))
            entries.append(Entry(f"features.{index}.bias", f"{ours}/bias"))
            index += 2  # a ReLU follows each convolution
        index += 1  # a pooling follows each stage
        entries.append(Entry(f"lin{stage}", f"linear_{stage}", _LinearLayer()))
    return NameMap(tuple(entries))

"""ViT in Google's `.npz` files, in every dialect: of 2020, of AugReg, of big_vision.

`Dialect` gives a file's arrays the names of today's code (Flax Linen), whatever theirs are; the
map below is from those names alone. Positions, heads and sizes are told by shapes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from jaxformers.errors import ConfigError, WeightsError
from jaxformers.layers import Execution
from jaxformers.models import ViT, ViTConfig
from jaxformers.models.hybrid_stem import HybridStemConfig
from jaxformers.pretrained.mapping.name_map import Entry, NameMap, TensorSource
from jaxformers.pretrained.mapping.transforms import Lead, Shape
from jaxformers.pretrained.model_variables import (
    DEFAULT_EXECUTION,
    read_model,
)
from jaxformers.pretrained.vit.vit_names import TABLE

PREFIXES = ("opt/target/", "params/img/", "params/")
KERNEL, POSITIONS = "embedding/kernel", "pos_embedding"
SPELLINGS = (  # of the code before Linen, which 2020's files are from, and of today's
    ("LayerNorm_2/", "LayerNorm_1/"),
    ("MlpBlock_3/", "MlpBlock_0/"),
    ("MultiHeadDotProductAttention_1/", "MultiHeadDotProductAttention_0/"),
)
OLD_POSITIONS = ("Transformer/posembed_input/pos_embedding", "Transformer/pos_embedding")
STACKED = "Transformer/encoderblock/"
LAYER = "Transformer/encoderblock_{layer}"
# Sides that a model without a table of positions was probably trained at.
USUAL_SIDE = 224


def _dense(theirs: str, ours: str) -> tuple[Entry, ...]:
    return Entry(f"{theirs}/kernel", f"{ours}/kernel"), Entry(f"{theirs}/bias", f"{ours}/bias")


def _norm(theirs: str, ours: str) -> tuple[Entry, ...]:
    return Entry(f"{theirs}/scale", f"{ours}/scale"), Entry(f"{theirs}/bias", f"{ours}/bias")


def _layers() -> tuple[Entry, ...]:
    theirs, ours = f"{LAYER}/MultiHeadDotProductAttention_0", "encoder/blocks/self_attention"
    projections = (_dense(f"{theirs}/{p}", f"{ours}/{p}") for p in ("query", "key", "value", "out"))
    return (
        *(entry for projection in projections for entry in projection),
        *_dense(f"{LAYER}/MlpBlock_0/Dense_0", "encoder/blocks/feed_forward/up"),
        *_dense(f"{LAYER}/MlpBlock_0/Dense_1", "encoder/blocks/feed_forward/down"),
        *_norm(f"{LAYER}/LayerNorm_0", "encoder/blocks/self_attention_norm"),
        *_norm(f"{LAYER}/LayerNorm_1", "encoder/blocks/feed_forward_norm"),
    )


def _attention_pooling(theirs: str, ours: str) -> tuple[Entry, ...]:
    """big_vision's `MAPHead`."""
    attention = f"{theirs}/MultiHeadDotProductAttention_0"
    projections = (
        _dense(f"{attention}/{name}", f"{ours}/attention/{name}")
        for name in ("query", "key", "value", "out")
    )
    return (
        Entry(f"{theirs}/probe", f"{ours}/probe", Lead(1)),
        *(entry for projection in projections for entry in projection),
        *_norm(f"{theirs}/LayerNorm_0", f"{ours}/norm"),
        *_dense(f"{theirs}/MlpBlock_0/Dense_0", f"{ours}/feed_forward/up"),
        *_dense(f"{theirs}/MlpBlock_0/Dense_1", f"{ours}/feed_forward/down"),
    )


def _stem(config: HybridStemConfig | None) -> list[Entry]:
    """The ResNet's units: a convolution and its group norm."""
    if config is None:
        return []
    units = [("conv_root", "gn_root", "stem/root")]
    for stage, depth in enumerate(config.depths):
        for block in range(depth):
            theirs, ours = (
                f"block{stage + 1}/unit{block + 1}",
                f"stem/stages_{stage}/blocks_{block}",
            )
            for i in range(3):
                names = f"{theirs}/conv{i + 1}", f"{theirs}/gn{i + 1}"
                units.append((*names, f"{ours}/units_{i}"))
            units.append((f"{theirs}/conv_proj", f"{theirs}/gn_proj", f"{ours}/shortcut"))
    return [
        entry
        for convolution, norm, ours in units
        for entry in (
            Entry(f"{convolution}/kernel", f"{ours}/conv/kernel"),
            *_norm(norm, f"{ours}/norm"),
        )
    ]


def name_map(config: ViTConfig) -> NameMap:
    """The names of `Dialect`."""
    entries = (
        Entry("cls", "class_token", Lead(2)),
        Entry(POSITIONS, TABLE, Lead(1)),
        *_dense("embedding", "patch_embedding"),
        *_layers(),
        *_norm("Transformer/encoder_norm", "encoder/norm"),
        *_dense("pre_logits", "pre_logits"),
        *_dense("head", "head"),
        *_attention_pooling("MAPHead_0", "attention_pooling"),
        *_stem(config.stem),
    )
    return NameMap(tuple(entry.under("", "params/") for entry in entries))


class Dialect:
    """A file's arrays under today's names, without what is not the model's.

    A stack's arrays are given layer by layer, group norms' without their ones. A class token that
    takes no position in the file has a position of zeros here, which is the same.
    """

    def __init__(self, source: TensorSource):
        self.place, self._source = source.place, source
        self._names: dict[str, tuple[str, int | None]] = {}
        self._prefix = prefix = _prefix(source.shapes)
        inside = [name for name in source.shapes if name.startswith(prefix)]
        self._old = [
            spelling for spelling in SPELLINGS if any(spelling[0] in name for name in inside)
        ]
        for name in inside:
            self._add(name, name.removeprefix(prefix))
        self._kept: tuple[str, np.ndarray] | None = None
        self._free_class = False
        self.shapes = {name: self._shape(name) for name in self._names}
        if self._class_without_place():
            self._free_class = True
            one, places, width = self.shapes[POSITIONS]
            self.shapes[POSITIONS] = (one, places + 1, width)

    def read(self, name: str) -> np.ndarray:
        """Reads an array as float32."""
        theirs, layer = self._names[name]
        if self._kept is None or self._kept[0] != theirs:
            self._kept = theirs, self._source.read(theirs)  # a stack is read once for all layers
        array = self._kept[1] if layer is None else self._kept[1][layer]
        if name == POSITIONS and self._free_class:
            array = np.pad(array, ((0, 0), (1, 0), (0, 0)))
        return array.reshape(self.shapes[name])

    def called(self, name: str) -> str:
        """How the file calls what has this name today, or would call it if it had it."""
        if name == POSITIONS and name in self._names:
            return self._names[name][0]
        for old, new in self._old:
            name = name.replace(new, old)
        return self._prefix + name

    def _add(self, theirs: str, name: str) -> None:
        name = POSITIONS if name in OLD_POSITIONS else name
        for old, new in SPELLINGS:
            name = name.replace(old, new)
        if not name.startswith(STACKED):
            self._put(name, theirs, None)
            return
        shape = self._source.shapes[theirs]
        if not shape or shape[0] > 1 << 10:
            raise WeightsError(f"{self.place}: {theirs} {list(shape)} is no stack of layers")
        for layer in range(shape[0]):
            suffix = name.removeprefix(STACKED)
            self._put(f"{LAYER.replace('{layer}', str(layer))}/{suffix}", theirs, layer)

    def _put(self, name: str, theirs: str, layer: int | None) -> None:
        if name in self._names:
            raise WeightsError(f"{self.place}: {theirs} and {self._names[name][0]} are one array")
        self._names[name] = theirs, layer

    def _shape(self, name: str) -> Shape:
        theirs, layer = self._names[name]
        shape = tuple(self._source.shapes[theirs])
        shape = shape if layer is None else shape[1:]
        group_norm = re.search(r"(^|/)gn\w+/(scale|bias)$", name)
        return (shape[-1],) if group_norm and shape[:-1] == (1,) * (len(shape) - 1) else shape

    def _class_without_place(self) -> bool:
        """big_vision adds positions before the class token comes: a square number of them."""
        shape = self.shapes.get(POSITIONS)
        if "cls" not in self._names or shape is None or len(shape) != 3:
            return False
        return math.isqrt(shape[1]) ** 2 == shape[1]


class _InFile:
    """A dialect's arrays under the names that the file gives them, for complaints to use.

    A stack's arrays stay apart: a layer has no name of its own there.
    """

    def __init__(self, dialect: Dialect):
        self.place, self._dialect = dialect.place, dialect
        self._names = {dialect.called(name): name for name in dialect.shapes}
        self.shapes = {called: dialect.shapes[name] for called, name in self._names.items()}

    def read(self, name: str) -> np.ndarray:
        return self._dialect.read(self._names[name])


def _prefix(shapes: Mapping[str, Shape]) -> str:
    return next((p for p in PREFIXES if p + KERNEL in shapes), "")


def recognises(shapes: Mapping[str, Shape]) -> bool:
    """Whether a single file's arrays are a ViT's by Google's names."""
    names = [name.removeprefix(_prefix(shapes)) for name in shapes]
    return KERNEL in names and any(name.startswith("Transformer/encoderblock") for name in names)


def load_file(
    source: TensorSource, execution: Execution = DEFAULT_EXECUTION
) -> tuple[ViT, dict[str, Any]]:
    """The model in a `.npz` file, whose shapes tell its size.

    Raises:
        WeightsError: arrays that no ViT of ours has; one line.
    """
    model, dialect = ViT(read_file_config(source), execution), Dialect(source)
    entries = name_map(model.config).entries
    called = (replace(e, names=tuple(map(dialect.called, e.aliases))) for e in entries)
    return read_model(model, NameMap(tuple(called)), _InFile(dialect))


def read_file_config(source: TensorSource) -> ViTConfig:
    """The configuration that a file's shapes tell.

    Raises:
        WeightsError: arrays that no ViT of ours has; one line.
    """
    shapes = Dialect(source).shapes
    try:
        return _from_shapes(shapes)
    except ConfigError as error:
        raise WeightsError(f"{source.place}: {error}") from None
    except (KeyError, IndexError, ValueError):
        raise WeightsError(f"{source.place}: its arrays make no ViT") from None


def _from_shapes(shapes: Mapping[str, Shape]) -> ViTConfig:
    """The configuration that has these arrays: Google's choices, and sizes from shapes."""
    patch, _, channels, width = shapes[KERNEL]
    first = LAYER.replace("{layer}", "0")
    _, heads, head_width = shapes[f"{first}/MultiHeadDotProductAttention_0/query/kernel"]
    if heads * head_width != width:
        raise ValueError("heads narrower than the width")
    layers = {m[1] for m in (re.match(r"Transformer/encoderblock_(\d+)/", n) for n in shapes) if m}
    stem = _stem_from_shapes(shapes)
    pixels = patch * (stem.stride if stem else 1)
    token, table = "cls" in shapes, shapes.get(POSITIONS)
    side = math.isqrt(table[1] - token) if table else max(USUAL_SIDE // pixels, 1)
    return ViTConfig(
        image_size=side * pixels,
        patch_size=patch,
        channels=shapes["conv_root/kernel"][2] if stem else channels,
        width=width,
        heads=heads,
        feed_forward=shapes[f"{first}/MlpBlock_0/Dense_0/kernel"][1],
        layers=len(layers),
        class_token=token,
        pooling=_pooling(token, shapes),
        positions="learned" if table else "sincos2d",
        pre_logits=shapes["pre_logits/bias"][0] if "pre_logits/bias" in shapes else None,
        classes=shapes["head/bias"][0] if "head/bias" in shapes else 0,
        stem=stem,
    )


def _pooling(token: bool, shapes: Mapping[str, Shape]) -> str:
    if "MAPHead_0/probe" in shapes:
        return "attention"
    return "class" if token else "average"


def _stem_from_shapes(shapes: Mapping[str, Shape]) -> HybridStemConfig | None:
    if "conv_root/kernel" not in shapes:
        return None
    units = [re.match(r"block(\d+)/unit(\d+)/conv1/kernel$", name) for name in shapes]
    stages = [int(unit[1]) for unit in units if unit]
    depths = tuple(stages.count(stage) for stage in range(1, 1 + max(stages, default=0)))
    return HybridStemConfig(depths, shapes["conv_root/kernel"][3])

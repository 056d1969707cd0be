"""Names of VQGAN's tensors: in taming-transformers (PyTorch) and in Unified-IO's release (Flax)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from jaxformers.models import VQGANConfig
from jaxformers.pretrained.mapping.name_map import Entry, NameMap
from jaxformers.pretrained.mapping.torch_names import norm
from jaxformers.pretrained.mapping.transforms import Convolution

# What a training checkpoint of taming's holds beside the autoencoder: discriminator and LPIPS.
TRAINING_TENSORS = r"loss\..*"


class ModuleName(NamedTuple):
    """A convolution or a norm by its name in each code."""

    kind: str
    """`conv` or `norm`."""
    ours: str
    taming: str
    unified_io: str


def module_names(config: VQGANConfig) -> Iterator[ModuleName]:
    """All convolutions and norms of a VQGAN of this configuration."""
    yield from _coder("encoder", "down", config.num_res_blocks, len(config.ch_mult))
    yield from _coder("decoder", "up", config.num_res_blocks + 1, len(config.ch_mult))
    for name in ("quant_conv", "post_quant_conv"):
        yield ModuleName("conv", name, name, name)


def _coder(coder: str, direction: str, depth: int, levels: int) -> Iterator[ModuleName]:
    for kind, name in (("conv", "conv_in"), ("norm", "norm_out"), ("conv", "conv_out")):
        yield ModuleName(kind, f"{coder}/{name}", f"{coder}.{name}", f"{coder}/{name}")
    for i in (1, 2):
        block = f"{coder}/middle/block_{i}", f"{coder}.mid.block_{i}", f"{coder}/mid_block_{i}"
        yield from _residual_block(*block)
    middle = f"{coder}/middle/attention_1", f"{coder}.mid.attn_1", f"{coder}/mid_attn_1"
    yield from _attention_block(*middle)
    for level in range(levels):
        # taming numbers the decoder's levels by resolution, the highest first; it runs them from
        # the lowest.
        theirs = levels - 1 - level if direction == "up" else level
        ours, taming = f"{coder}/{direction}_{level}", f"{coder}.{direction}.{theirs}"
        for i in range(depth):
            yield from _residual_block(
                f"{ours}/block_{i}", f"{taming}.block.{i}", f"{ours}_block_{i}"
            )
            yield from _attention_block(
                f"{ours}/attention_{i}", f"{taming}.attn.{i}", f"{ours}_attn_{i}"
            )
        change = f"{direction}sample"
        yield ModuleName(
            "conv", f"{ours}_{change}/conv", f"{taming}.{change}.conv", f"{ours}_{change}/conv"
        )


def _residual_block(ours: str, taming: str, unified_io: str) -> Iterator[ModuleName]:
    for kind, name, their_name in (
        ("norm", "norm1", "norm1"),
        ("conv", "conv1", "conv1"),
        ("norm", "norm2", "norm2"),
        ("conv", "conv2", "conv2"),
        ("conv", "shortcut_conv", "nin_shortcut"),
    ):
        yield ModuleName(
            kind, f"{ours}/{name}", f"{taming}.{their_name}", f"{unified_io}/{their_name}"
        )


def _attention_block(ours: str, taming: str, unified_io: str) -> Iterator[ModuleName]:
    for kind, name, their_name in (
        ("norm", "norm", "norm"),
        ("conv", "query_conv", "q"),
        ("conv", "key_conv", "k"),
        ("conv", "value_conv", "v"),
        ("conv", "out_conv", "proj_out"),
    ):
        yield ModuleName(
            kind, f"{ours}/{name}", f"{taming}.{their_name}", f"{unified_io}/{their_name}"
        )


def taming_map(config: VQGANConfig) -> NameMap:
    """Names of taming-transformers; a training checkpoint's `loss.*` is passed over."""
    entries = [Entry("quantize.embedding.weight", "quantizer/codebook")]
    for module in module_names(config):
        if module.kind == "norm":
            entries += norm(module.taming, module.ours)
        else:
            weight = Entry(f"{module.taming}.weight", f"{module.ours}/kernel", Convolution())
            entries += [weight, Entry(f"{module.taming}.bias", f"{module.ours}/bias")]
    return NameMap(tuple(e.under("", "params/") for e in entries), ignored=(TRAINING_TENSORS,))


def unified_io_entries(config: VQGANConfig) -> tuple[Entry, ...]:
    """Paths in Unified-IO's `discrete_vae`, joined by slashes, and ours without the collection."""
    entries = [Entry("quantize/embedding", "quantizer/codebook")]
    for module in module_names(config):
        for leaf in ("scale", "bias") if module.kind == "norm" else ("kernel", "bias"):
            entries.append(Entry(f"{module.unified_io}/{leaf}", f"{module.ours}/{leaf}"))
    return tuple(entries)

"""Entries for PyTorch's modules as Hugging Face names them, shared by its formats."""

from __future__ import annotations

from jaxformers.pretrained.mapping.name_map import Entry
from jaxformers.pretrained.mapping.transforms import Convolution, Flat, Linear


def linear(theirs: str, ours: str, inputs: int = 1) -> tuple[Entry, ...]:
    """`nn.Linear` and our `Linear` of `inputs` input dimensions."""
    return (
        Entry(f"{theirs}.weight", f"{ours}/kernel", Linear(inputs)),
        Entry(f"{theirs}.bias", f"{ours}/bias", Flat()),
    )


def norm(theirs: str, ours: str) -> tuple[Entry, ...]:
    """`nn.LayerNorm` and our `Norm`."""
    return Entry(f"{theirs}.weight", f"{ours}/scale"), Entry(f"{theirs}.bias", f"{ours}/bias")


def attention(theirs: str, ours: str) -> tuple[Entry, ...]:
    """`{q,k,v,out}_proj` and our `MultiHeadAttention`."""
    return (
        *linear(f"{theirs}.q_proj", f"{ours}/query"),
        *linear(f"{theirs}.k_proj", f"{ours}/key"),
        *linear(f"{theirs}.v_proj", f"{ours}/value"),
        *linear(f"{theirs}.out_proj", f"{ours}/out", inputs=2),
    )


def convolution(theirs: str, ours: str) -> Entry:
    """`nn.Conv2d` without bias and our `Conv`."""
    return Entry(f"{theirs}.weight", f"params/{ours}/kernel", Convolution())


def batch_norm(theirs: str, ours: str) -> tuple[Entry, ...]:
    """`nn.BatchNorm2d` and our `BatchNorm`, running statistics included."""
    return (
        *(entry.under("", "params/") for entry in norm(theirs, ours)),
        Entry(f"{theirs}.running_mean", f"batch_stats/{ours}/mean"),
        Entry(f"{theirs}.running_var", f"batch_stats/{ours}/var"),
    )


def normed_convolution(theirs: str, norm_name: str, ours: str) -> tuple[Entry, ...]:
    """A convolution and its batch norm, and our unit of both."""
    return convolution(theirs, f"{ours}/conv"), *batch_norm(norm_name, f"{ours}/norm")

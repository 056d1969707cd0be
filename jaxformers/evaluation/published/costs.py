"""What the papers' own runs cost, beside which a plan is shown."""

from __future__ import annotations

from typing import NamedTuple


class PublishedCost(NamedTuple):
    """The cost of one published training run, by the name of its experiment here.

    Attributes:
        hardware: in words.
        hours: None where not told.
        chip_hours: of that hardware's chips; None where not told.
        flops: that it took in all; None where not told.
        source: paper, section or table.
    """

    hardware: str
    hours: float | None
    chip_hours: float | None
    flops: float | None
    source: str


_ATTENTION, _BERT, _VIT = '"Attention Is All You Need"', '"BERT"', '"An Image is Worth 16x16 Words"'
_BASE = PublishedCost("8 P100 GPUs", 12, 96, 3.3e18, f"{_ATTENTION}, section 5.2 and table 2")
_BIG = PublishedCost("8 P100 GPUs", 84, 672, 2.3e19, f"{_ATTENTION}, section 5.2 and table 2")
_GLUE = PublishedCost("one Cloud TPU, 4 v2 chips", 1, 4, None, f"{_BERT}, section 3.2 (at most)")
_MAE = PublishedCost("64 V100 GPUs", 42, 2688, None, "the authors' code, 800 epochs")

COSTS: dict[str, PublishedCost] = {
    "wmt14_en_de_base": _BASE,
    "wmt14_en_fr_base": _BASE,
    "wmt14_en_de_big": _BIG,
    "wmt14_en_fr_big": _BIG,
    "pretrain_base": PublishedCost("16 TPU v2 chips", 96, 1536, None, f"{_BERT}, appendix A.2"),
    "pretrain_large": PublishedCost("64 TPU v2 chips", 96, 6144, None, f"{_BERT}, appendix A.2"),
    "glue": _GLUE,
    "squad": PublishedCost("one Cloud TPU, 4 v2 chips", 0.5, 2, None, f"{_BERT}, section 3.2"),
    # 230 and 2,500 days of a TPU v3 core; a chip has two.
    "imagenet21k_l16": PublishedCost("TPU v3", None, 2760, None, f"{_VIT}, table 2"),
    "jft_h14": PublishedCost("TPU v3", None, 30_000, 4.262e21, f"{_VIT}, tables 2 and 6"),
    "mae_pretrain_large": _MAE,
    "imagenet_r50": PublishedCost(
        "8 P100 GPUs", 29, 232, None, '"Accurate, Large Minibatch SGD" (Goyal et al. 2017)'
    ),
}

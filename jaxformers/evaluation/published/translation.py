"""Published results that runs are held against."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A row of "Attention Is All You Need", table 2 (newstest2014; None where not reported).

    Attributes:
        model: its name in the table.
        en_de, en_fr: tokenised BLEU (see `compound_split_bleu`).
        flops_en_de, flops_en_fr: FLOPs that training took.
        dev_en_de: BLEU on newstest2013, table 3.
        perplexity_en_de: perplexity a subword on newstest2013, table 3.
    """

    model: str
    en_de: float | None = None
    en_fr: float | None = None
    flops_en_de: float | None = None
    flops_en_fr: float | None = None
    dev_en_de: float | None = None
    perplexity_en_de: float | None = None


PUBLISHED: tuple[Published, ...] = (
    Published("ByteNet", 23.75),
    Published("Deep-Att + PosUnk", None, 39.2, None, 1.0e20),
    Published("GNMT + RL", 24.6, 39.92, 2.3e19, 1.4e20),
    Published("ConvS2S", 25.16, 40.46, 9.6e18, 1.5e20),
    Published("MoE", 26.03, 40.56, 2.0e19, 1.2e20),
    Published("Transformer base", 27.3, 38.1, 3.3e18, 3.3e18, 25.8, 4.92),
    Published("Transformer big", 28.4, 41.8, 2.3e19, 2.3e19, 26.4, 4.33),
)

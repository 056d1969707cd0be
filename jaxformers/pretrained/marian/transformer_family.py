"""The translation Transformer as a family of the registry; MarianMT is its published format."""

from __future__ import annotations

from jaxformers.models import Transformer, TransformerConfig
from jaxformers.pretrained.family import Family, HuggingFaceFormat, token_pair_inputs
from jaxformers.pretrained.marian import marian_config, marian_hf
from jaxformers.text import Tokenizer

TRANSFORMER = Family(
    "transformer",
    TransformerConfig,
    {"transformer": Transformer},
    token_pair_inputs,
    tokenizers=(Tokenizer,),  # any: a model is trained with the one of its data
    special_ids=lambda config: {"pad_id": config.pad_id, "eos_id": config.eos_id},
    uses={"translate": (Transformer,)},
    formats=(
        HuggingFaceFormat(
            marian_config.MODEL_TYPE,
            "MarianMT",
            marian_hf.load,
            marian_hf.unsupported_reason,
            marian_hf.write,
        ),
    ),
)

"""Names of CLIP's and SigLIP's tensors: Hugging Face's, and OpenAI's, which open_clip shares."""

from __future__ import annotations

from jaxformers.models.clip import CLIPConfig, ModifiedResNetConfig
from jaxformers.pretrained.mapping.name_map import Entry, NameMap
from jaxformers.pretrained.mapping.torch_names import (
    attention,
    batch_norm,
    convolution,
    linear,
    norm,
)
from jaxformers.pretrained.mapping.transforms import Convolution, Lead, Same
from jaxformers.pretrained.vit.vit_names import FusedBiases, FusedKernels, patches

IGNORED_BUFFERS = (r"(text_model\.|vision_model\.)?embeddings\.position_ids",)


def huggingface_text(prefix: str = "text_model.") -> tuple[Entry, ...]:
    """The text tower below its projection; paths below `params/text/`."""
    return (
        Entry(f"{prefix}embeddings.token_embedding.weight", "token_embedding/table"),
        Entry(f"{prefix}embeddings.position_embedding.weight", "position_embedding/table"),
        *_huggingface_blocks(f"{prefix}encoder.layers."),
        *norm(f"{prefix}final_layer_norm", "encoder/norm"),
    )


def clip_projection(name: str) -> tuple[Entry, ...]:
    """CLIP's `text_projection` or `visual_projection`, without bias, beside the tower."""
    return linear(name, "projection")[:1]


def siglip_text_projection(prefix: str = "text_model.") -> tuple[Entry, ...]:
    """SigLIP's projection, with bias, which belongs to the tower."""
    return linear(f"{prefix}head", "projection")


def huggingface_image(prefix: str = "vision_model.") -> tuple[Entry, ...]:
    """The ViT below its projection; paths below `params/image/`."""
    head = f"{prefix}head"
    return (
        Entry(f"{prefix}embeddings.class_embedding", "class_token"),
        *patches(f"{prefix}embeddings.patch_embedding"),
        Entry(f"{prefix}embeddings.position_embedding.weight", "position_embedding/table"),
        *norm(f"{prefix}pre_layrnorm", "pre_norm"),  # their spelling
        *_huggingface_blocks(f"{prefix}encoder.layers."),
        *norm(f"{prefix}post_layernorm", "encoder/norm"),
        # SigLIP's attention pooling.
        Entry(f"{head}.probe", "attention_pool/probe", Lead(1)),
        *_fused_attention(f"{head}.attention", "attention_pool/attention"),
        *norm(f"{head}.layernorm", "attention_pool/norm"),
        *linear(f"{head}.mlp.fc1", "attention_pool/feed_forward/up"),
        *linear(f"{head}.mlp.fc2", "attention_pool/feed_forward/down"),
    )


def _huggingface_blocks(theirs: str) -> tuple[Entry, ...]:
    layer, ours = f"{theirs}{{layer}}", "encoder/blocks"
    return (
        *attention(f"{layer}.self_attn", f"{ours}/self_attention"),
        *norm(f"{layer}.layer_norm1", f"{ours}/self_attention_norm"),
        *linear(f"{layer}.mlp.fc1", f"{ours}/feed_forward/up"),
        *linear(f"{layer}.mlp.fc2", f"{ours}/feed_forward/down"),
        *norm(f"{layer}.layer_norm2", f"{ours}/feed_forward_norm"),
    )


def under(entries: tuple[Entry, ...], ours: str) -> tuple[Entry, ...]:
    """The entries with a prefix before their paths."""
    return tuple(entry.under("", ours) for entry in entries)


def huggingface_clip() -> NameMap:
    """The names of transformers' `CLIPModel`."""
    return NameMap(
        (
            *under((*huggingface_text(), *clip_projection("text_projection")), "params/text/"),
            *under((*huggingface_image(), *clip_projection("visual_projection")), "params/image/"),
            Entry("logit_scale", "params/logit_scale"),
        ),
        IGNORED_BUFFERS,
    )


def huggingface_siglip() -> NameMap:
    """`SiglipModel`, whose scale and bias are arrays of one number."""
    return NameMap(
        (
            *under((*huggingface_text(), *siglip_text_projection()), "params/text/"),
            *under(huggingface_image(), "params/image/"),
            Entry("logit_scale", "params/logit_scale", Lead(1)),
            Entry("logit_bias", "params/logit_bias", Lead(1)),
        ),
        IGNORED_BUFFERS,
    )


def _fused_attention(theirs: str, ours: str) -> tuple[Entry, ...]:
    """`nn.MultiheadAttention`, whose query, key and value are one matrix `[3 D, D]`."""
    names = [f"{ours}/{projection}" for projection in ("query", "key", "value")]
    return (
        Entry(
            f"{theirs}.in_proj_weight", tuple(f"{name}/kernel" for name in names), FusedKernels()
        ),
        Entry(f"{theirs}.in_proj_bias", tuple(f"{name}/bias" for name in names), FusedBiases()),
        *linear(f"{theirs}.out_proj", f"{ours}/out", inputs=2),
    )


def _openai_blocks(theirs: str) -> tuple[Entry, ...]:
    layer, ours = f"{theirs}resblocks.{{layer}}", "encoder/blocks"
    return (
        *_fused_attention(f"{layer}.attn", f"{ours}/self_attention"),
        *norm(f"{layer}.ln_1", f"{ours}/self_attention_norm"),
        *linear(f"{layer}.mlp.c_fc", f"{ours}/feed_forward/up"),
        *linear(f"{layer}.mlp.c_proj", f"{ours}/feed_forward/down"),
        *norm(f"{layer}.ln_2", f"{ours}/feed_forward_norm"),
    )


def openai_map(config: CLIPConfig, text_prefix: str = "") -> NameMap:
    """OpenAI's names; `text_prefix` is "text." in open_clip's models with a `custom_text` tower."""
    text = (
        Entry(f"{text_prefix}token_embedding.weight", "token_embedding/table"),
        Entry(f"{text_prefix}positional_embedding", "position_embedding/table"),
        *_openai_blocks(f"{text_prefix}transformer."),
        *norm(f"{text_prefix}ln_final", "encoder/norm"),
        *_text_projection(f"{text_prefix}text_projection", config.text.projection_bias),
    )
    if isinstance(config.image, ModifiedResNetConfig):
        image = _modified_resnet(config.image)
    else:
        image = under(_openai_vit(), "params/image/")
    return NameMap(
        (
            *under(text, "params/text/"),
            *image,
            Entry("logit_scale", "params/logit_scale", Same()),
            Entry("logit_bias", "params/logit_bias", Same()),
        ),
        # Numbers of OpenAI's archives, a mask that is no parameter, and counts of batches.
        ignored=(
            r"input_resolution|context_length|vocab_size",
            rf"{text_prefix}attn_mask",
            r".*\.num_batches_tracked",
        ),
    )


def _text_projection(theirs: str, bias: bool) -> tuple[Entry, ...]:
    """A matrix `[D, E]`, as ours; with a bias a linear layer."""
    return linear(theirs, "projection") if bias else (Entry(theirs, "projection/kernel"),)


def _openai_vit() -> tuple[Entry, ...]:
    return (
        Entry("visual.conv1.weight", "patch_embedding/kernel", Convolution()),
        Entry("visual.conv1.bias", "patch_embedding/bias"),
        Entry("visual.class_embedding", "class_token"),
        Entry("visual.positional_embedding", "position_embedding/table"),
        *norm("visual.ln_pre", "pre_norm"),
        *_openai_blocks("visual.transformer."),
        *norm("visual.ln_post", "encoder/norm"),
        Entry("visual.proj", "projection/kernel"),
    )


def _modified_resnet(config: ModifiedResNetConfig) -> tuple[Entry, ...]:
    """The residual network; its convolutions are numbered from 1, ours from 0."""
    entries: list[Entry] = []

    def unit(conv: str, bn: str, ours: str) -> None:
        entries.append(convolution(conv, f"image/{ours}/conv"))
        entries.extend(batch_norm(bn, f"image/{ours}/norm"))

    for i in range(3):
        unit(f"visual.conv{i + 1}", f"visual.bn{i + 1}", f"stem_{i}")
    number = 0
    for stage, depth in enumerate(config.depths, 1):
        for index in range(depth):
            theirs, ours = f"visual.layer{stage}.{index}", f"residual_blocks_{number}"
            for i in range(3):
                unit(f"{theirs}.conv{i + 1}", f"{theirs}.bn{i + 1}", f"{ours}/units_{i}")
            # Every stage's first block changes the number of channels.
            if index == 0:
                unit(f"{theirs}.downsample.0", f"{theirs}.downsample.1", f"{ours}/shortcut")
            number += 1
    pool, ours = "visual.attnpool", "attention_pool/attention"
    attention_pool = (
        Entry(f"{pool}.positional_embedding", "attention_pool/position_embedding/table"),
        *linear(f"{pool}.q_proj", f"{ours}/query"),
        *linear(f"{pool}.k_proj", f"{ours}/key"),
        *linear(f"{pool}.v_proj", f"{ours}/value"),
        *linear(f"{pool}.c_proj", f"{ours}/out", inputs=2),
    )
    return (*entries, *under(attention_pool, "params/image/"))

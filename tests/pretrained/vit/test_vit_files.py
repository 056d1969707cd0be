"""ViT and MAE in single files: Google's `.npz` in each dialect, timm's and MAE's own names."""

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import jaxformers as jf
from jaxformers.errors import WeightsError
from jaxformers.layers import grid_sinusoids
from jaxformers.pretrained import load_pretrained
from jaxformers.pretrained.model_variables import flatten, variable_shapes
from jaxformers.pretrained.vit.vit_google import name_map

SMALL = jf.ViTConfig(
    image_size=12, patch_size=4, width=64, heads=4, feed_forward=24, layers=2, classes=5
)


def random_leaves(model):
    random = np.random.RandomState(0)
    return {
        path: random.standard_normal(shape).astype(np.float32)
        for path, shape in variable_shapes(model).items()
    }


def google(leaves, layers=2):
    """Our variables under the names of Google's code in Flax Linen, written out."""
    p = {path.removeprefix("params/"): leaf for path, leaf in leaves.items()}
    arrays = {
        "cls": p["class_token"][None, None],
        "Transformer/posembed_input/pos_embedding": p["position_embedding/table"][None],
    }
    for theirs, ours in (
        ("embedding", "patch_embedding"),
        ("pre_logits", "pre_logits"),
        ("head", "head"),
        ("Transformer/encoder_norm", "encoder/norm"),
    ):
        for name in ("kernel", "bias", "scale"):
            if f"{ours}/{name}" in p:
                arrays[f"{theirs}/{name}"] = p[f"{ours}/{name}"]
    for layer in range(layers):
        block = f"Transformer/encoderblock_{layer}"
        attention, mlp = f"{block}/MultiHeadDotProductAttention_0", f"{block}/MlpBlock_0"
        for theirs, ours in (
            (f"{block}/LayerNorm_0", "self_attention_norm"),
            (f"{attention}/query", "self_attention/query"),
            (f"{attention}/key", "self_attention/key"),
            (f"{attention}/value", "self_attention/value"),
            (f"{attention}/out", "self_attention/out"),
            (f"{block}/LayerNorm_1", "feed_forward_norm"),
            (f"{mlp}/Dense_0", "feed_forward/up"),
            (f"{mlp}/Dense_1", "feed_forward/down"),
        ):
            for name in ("kernel", "bias", "scale"):
                if (path := f"encoder/blocks/{ours}/{name}") in p:
                    arrays[f"{theirs}/{name}"] = p[path][layer]
    return arrays


def renamed(arrays, *pairs):
    for old, new in pairs:
        arrays = {name.replace(old, new): value for name, value in arrays.items()}
    return arrays


def of_2020(arrays):
    return renamed(
        arrays,
        ("LayerNorm_1", "LayerNorm_2"),
        ("MlpBlock_0", "MlpBlock_3"),
        ("MultiHeadDotProductAttention_0", "MultiHeadDotProductAttention_1"),
    )


def of_big_vision(arrays):
    return renamed(arrays, ("Transformer/posembed_input/pos_embedding", "pos_embedding"))


def scanned(arrays):
    blocks = {n.split("/", 2)[2] for n in arrays if n.startswith("Transformer/encoderblock_")}
    stacked = {n: x for n, x in arrays.items() if not n.startswith("Transformer/encoderblock_")}
    for name in blocks:
        layers = [arrays[f"Transformer/encoderblock_{i}/{name}"] for i in range(2)]
        stacked[f"Transformer/encoderblock/{name}"] = np.stack(layers)
    return stacked


def under(prefix, **more):
    def put(arrays):
        return {prefix + name: value for name, value in arrays.items()} | more

    return put


DIALECTS = {
    "linen": [],
    "2020": [of_2020],
    "training state": [of_2020, under("opt/target/", **{"opt/state/step": np.int64(3)})],
    "big_vision": [of_big_vision, under("params/", **{"opt/0/mu": np.zeros(3)})],
    "two towers": [of_big_vision, under("params/img/", **{"params/txt/head/kernel": np.ones(2)})],
    "scanned": [of_big_vision, scanned, under("params/")],
    "posembed within": [
        lambda a: renamed(a, ("posembed_input/pos_embedding", "pos_embedding")),
    ],
}


def saved(folder, arrays):
    np.savez(folder / "weights.npz", **arrays)
    return folder / "weights.npz"


def same(variables, leaves):
    actual = flatten(variables)
    assert actual.keys() == leaves.keys()
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(actual[path], leaf, err_msg=path)


@pytest.mark.default_cases(4)
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("pre_logits", [None, 7])
def test_each_dialect_of_google_gives_the_model(dialect, pre_logits, tmp_path):
    config = jf.ViTConfig(**(SMALL.__dict__ | {"pre_logits": pre_logits}))
    leaves = random_leaves(jf.ViT(config))
    arrays = google(leaves)
    for change in DIALECTS[dialect]:
        arrays = change(arrays)
    model, variables = load_pretrained(saved(tmp_path, arrays))
    assert model.config == config
    same(variables, leaves)


def test_positions_added_before_the_class_token_give_it_none(tmp_path):
    leaves = random_leaves(jf.ViT(SMALL))
    arrays = of_big_vision(google(leaves))
    arrays["pos_embedding"] = arrays["pos_embedding"][:, 1:]
    model, variables = load_pretrained(saved(tmp_path, arrays))
    leaves["params/position_embedding/table"][0] = 0
    assert model.config == SMALL
    same(variables, leaves)


def test_without_class_token_and_table_it_averages_over_sines(tmp_path):
    config = jf.ViTConfig(
        **SMALL.__dict__
        | dict(class_token=False, pooling="average", positions="sincos2d", image_size=224)
    )
    leaves = random_leaves(jf.ViT(config))
    blank = {"params/class_token": np.zeros(1), "params/position_embedding/table": np.zeros(1)}
    arrays = of_big_vision(google(leaves | blank))
    del arrays["cls"], arrays["pos_embedding"]
    model, variables = load_pretrained(saved(tmp_path, arrays))
    assert model.config == config
    same(variables, leaves)


def test_big_visions_attention_pooling_is_read(tmp_path):
    config = jf.ViTConfig(
        **SMALL.__dict__ | dict(class_token=False, pooling="attention", qkv_bias=True)
    )
    leaves = random_leaves(jf.ViT(config))
    arrays = {n.removeprefix("params/"): a for n, a in name_map(config).write(leaves).items()}
    for name in ("query/kernel", "out/bias"):
        assert f"MAPHead_0/MultiHeadDotProductAttention_0/{name}" in arrays
    model, variables = load_pretrained(saved(tmp_path, arrays))
    assert model.config == config
    same(variables, leaves)


def test_bfloat16_arrays_of_two_untyped_bytes_are_read(tmp_path):
    leaves = {
        path: leaf.astype(ml_dtypes.bfloat16).astype(np.float32)
        for path, leaf in random_leaves(jf.ViT(SMALL)).items()
    }
    arrays = {
        name: value.astype(ml_dtypes.bfloat16).view("V2") for name, value in google(leaves).items()
    }
    _, variables = load_pretrained(saved(tmp_path, arrays))
    same(variables, leaves)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda a: a.pop("Transformer/encoderblock_1/MlpBlock_0/Dense_1/bias"),
            "missing .*Dense_1",
        ),
        (lambda a: a.update({"extra/kernel": np.ones(3)}), "unexpected extra/kernel"),
        (lambda a: a.update(cls=np.ones((1, 1, 63))), "misshapen cls .1, 1, 63. instead"),
        (
            lambda a: a.update({"MAPHead_0/probe": np.ones(3)}),
            r"missing MAPHead_0/.*; misshapen MAPHead_0/probe .3. instead of .1, 1, 64.",
        ),
        (lambda a: a.update({"embedding/kernel": np.ones((4, 4))}), "make no ViT"),
        (lambda a: a.update({"embedding/kernel": np.array([{}])}), "damaged or no .npz"),
    ],
    ids=["missing", "unexpected", "misshapen", "map", "kernel", "pickle"],
)
def test_bad_arrays_are_named_in_one_line(change, words, tmp_path):
    arrays = google(random_leaves(jf.ViT(SMALL)))
    change(arrays)
    with pytest.raises(WeightsError, match=words) as error:
        load_pretrained(saved(tmp_path, arrays))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dialect", ["linen", "2020", "training state", "big_vision"])
def test_faults_are_named_as_the_file_names_its_arrays(dialect, tmp_path):
    arrays = google(random_leaves(jf.ViT(SMALL)))
    for change in DIALECTS[dialect]:
        arrays = change(arrays)

    def of(fragment):
        return [name for name in arrays if fragment in name][-1]

    absent = of("encoderblock_1/MlpBlock"), of("encoderblock_0/MultiHead"), of("block_1/LayerNorm")
    for name in absent:
        del arrays[name]
    arrays[of("pos_embedding")] = np.ones((1, 10, 7), np.float32)
    arrays[unknown := of("block_0/MlpBlock").rpartition("/")[0] + "/extra"] = np.ones(3)
    with pytest.raises(WeightsError) as error:
        load_pretrained(saved(tmp_path, arrays))
    missing, unexpected, misshapen = str(error.value).split("; ")
    assert set(missing.partition(": missing ")[2].split(", ")) <= set(absent)
    assert all(name in missing for name in absent)
    assert unexpected == f"unexpected {unknown}"
    assert misshapen.startswith(f"misshapen {of('pos_embedding')} [1, 10, 7]")


def timm(leaves, decoder=False):
    """Our variables under timm's names."""
    p = {path.removeprefix("params/"): leaf for path, leaf in leaves.items()}
    tensors = {}

    def dense(theirs, ours, inputs=1):
        if f"{ours}/kernel" in p:
            put_dense(theirs, p[f"{ours}/kernel"], p[f"{ours}/bias"], inputs)

    def put_dense(theirs, kernel, bias, inputs=1):
        rows = int(np.prod(kernel.shape[:inputs]))
        tensors[f"{theirs}.weight"] = kernel.reshape(rows, -1).T
        tensors[f"{theirs}.bias"] = bias.reshape(-1)

    def norm(theirs, ours):
        if f"{ours}/scale" in p:
            tensors[f"{theirs}.weight"], tensors[f"{theirs}.bias"] = (
                p[f"{ours}/scale"],
                p[f"{ours}/bias"],
            )

    def stack(theirs, ours):
        for i in range(p[f"{ours}/feed_forward/up/bias"].shape[0]):
            qkv = {child: [] for child in ("weight", "bias")}
            for name in ("query", "key", "value"):
                path = f"{ours}/self_attention/{name}"
                kernel = p[f"{path}/kernel"][i]
                qkv["weight"].append(kernel.reshape(kernel.shape[0], -1).T)
                qkv["bias"].append(p[f"{path}/bias"][i].reshape(-1))
            for child, values in qkv.items():
                tensors[f"{theirs}.{i}.attn.qkv.{child}"] = np.concatenate(values)
            out = f"{ours}/self_attention/out"
            put_dense(f"{theirs}.{i}.attn.proj", p[f"{out}/kernel"][i], p[f"{out}/bias"][i], 2)
            for their_child, child in (("fc1", "up"), ("fc2", "down")):
                path = f"{ours}/feed_forward/{child}"
                put_dense(
                    f"{theirs}.{i}.mlp.{their_child}", p[f"{path}/kernel"][i], p[f"{path}/bias"][i]
                )
            for number, child in ((1, "self_attention_norm"), (2, "feed_forward_norm")):
                tensors[f"{theirs}.{i}.norm{number}.weight"] = p[f"{ours}/{child}/scale"][i]
                tensors[f"{theirs}.{i}.norm{number}.bias"] = p[f"{ours}/{child}/bias"][i]

    tensors["patch_embed.proj.weight"] = p["patch_embedding/kernel"].transpose(3, 2, 0, 1)
    tensors["patch_embed.proj.bias"] = p["patch_embedding/bias"]
    tensors["cls_token"] = p["class_token"][None, None]
    if "position_embedding/table" in p:
        tensors["pos_embed"] = p["position_embedding/table"][None]
    stack("blocks", "encoder/blocks")
    norm("norm", "encoder/norm")
    norm("fc_norm", "head_norm")
    dense("head", "head")
    if decoder:
        tensors["mask_token"] = p["mask_token"][None, None]
        stack("decoder_blocks", "decoder/blocks")
        norm("decoder_norm", "decoder/norm")
        dense("decoder_embed", "decoder_embedding")
        dense("decoder_pred", "decoder_prediction")
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}


TIMM = dict(SMALL.__dict__, heads=1, activation="gelu", position_resize="bicubic_antialiased")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"head_norm": True, "pooling": "average", "position_resize": "bicubic"},
        {"classes": 0},
    ],
    ids=["timm", "fine-tuned MAE", "bare"],
)
def test_timms_names_give_the_model(changes, tmp_path):
    config = jf.ViTConfig(**TIMM | changes)
    leaves = random_leaves(jf.ViT(config))
    safetensors.numpy.save_file(timm(leaves), tmp_path / "vit.safetensors")
    model, variables = load_pretrained(tmp_path / "vit.safetensors")
    assert model.config == config
    same(variables, leaves)


def test_maes_own_names_give_the_model_without_its_fixed_tables(tmp_path):
    encoder = jf.ViTConfig(
        **TIMM | dict(classes=0, positions="sincos2d_mae", position_resize="bicubic")
    )
    config = jf.MAEConfig(
        encoder, decoder_width=32, decoder_heads=1, decoder_layers=3, decoder_feed_forward=20
    )
    leaves = random_leaves(jf.MAE(config))
    tensors = timm(leaves, decoder=True)
    for name, width in (("pos_embed", 64), ("decoder_pos_embed", 32)):
        tensors[name] = np.pad(grid_sinusoids(3, 3, width, "mae"), ((1, 0), (0, 0)))[None]
    safetensors.numpy.save_file(tensors, tmp_path / "mae.safetensors")
    model, variables = load_pretrained(tmp_path / "mae.safetensors")
    assert model.config == config
    same(variables, leaves)

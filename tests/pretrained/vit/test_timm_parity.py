"""timm's folders against timm: every architecture, arguments that change the function, refusals."""

import json
import re
from collections import Counter

import jax
import numpy as np
import pytest
import timm_cases as cases
from folders import write

import jaxformers as jf
from jaxformers.errors import WeightsError
from jaxformers.layers import Execution
from jaxformers.pretrained import load_pretrained, resnet_timm, save_pretrained
from jaxformers.pretrained.vit import vit_timm

LISTED, LOGITS = cases.golden()
TOLERANCE = 1e-4  # logits are of order 1


def folder_of(name, folder, **changes):
    case = LISTED[name]
    return write(folder, case["config"] | changes, cases.weights(case["shapes"]))


def picture_shape(name, model):
    size = model.config.image_size
    square = (size, size) if isinstance(size, int) else size
    return cases.PICTURES.get(name, square if type(model) is jf.ViT else (cases.SIDE, cases.SIDE))


def largest_difference(name, model, variables):
    images = cases.images(picture_shape(name, model), model.config.channels)
    return np.abs(np.asarray(model.apply(variables, images)) - LOGITS[name]).max()


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("name", cases.CASES)
def test_logits_equal_timms(name, tmp_path):
    model, variables = load_pretrained(folder_of(name, tmp_path))
    assert largest_difference(name, model, variables) < TOLERANCE


@pytest.mark.parametrize("name", ["resnet tiered", "attention pooling"])
def test_a_folder_states_its_preprocessing_whatever_its_tensors(name, tmp_path):
    folder = folder_of(name, tmp_path)
    size = LISTED[name]["config"]["pretrained_cfg"]["input_size"][1]
    assert jf.load_images(folder).size == size
    assert jf.load_images(folder / "model.safetensors").size == size


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", ["registers", *sorted({*cases.CASES} - {"registers"})])
def test_logits_equal_timms_on_the_path_of_tpus(name, tmp_path):
    model, variables = load_pretrained(folder_of(name, tmp_path), Execution(target="tpu"))
    assert largest_difference(name, model, variables) < TOLERANCE


def test_a_file_in_timms_folder_is_read_by_its_config(tmp_path):
    folder = folder_of("tanh gelu", tmp_path)
    model, variables = load_pretrained(folder / "model.safetensors")
    assert model.config.activation == "gelu_tanh"
    assert largest_difference("tanh gelu", model, variables) < TOLERANCE


NAMED = [f"class {i}" for i in range(cases.CLASSES)]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"label_names": NAMED}, NAMED),
        ({"labels": NAMED}, NAMED),
        ({"pretrained_cfg": {"label_names": NAMED, "input_size": [3, 48, 48]}}, NAMED),
        ({"label_names": {"2": "cat", "0": "dog"}}, ["dog", "1", "cat", "3", "4", "5", "6"]),
        ({"label_names": NAMED[1:]}, []),
        ({"label_names": {"7": "beyond"}}, []),
        ({}, []),
    ],
    ids=str,
)
def test_classes_have_timms_label_names(changes, names, tmp_path):
    model, _ = load_pretrained(folder_of("tanh gelu", tmp_path, **changes))
    assert model.config.class_names == tuple(names)


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("name", ["distilled", "registers without positions", "layer scale"])
def test_our_own_format_keeps_what_timm_says(name, tmp_path):
    model, variables = load_pretrained(folder_of(name, tmp_path / "theirs"))
    save_pretrained(model, variables, tmp_path / "ours")
    again, loaded = load_pretrained(tmp_path / "ours")
    assert again == model
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def why_refused(folder):
    with pytest.raises(WeightsError) as error:
        load_pretrained(folder)
    message = str(error.value)
    assert "\n" not in message and len(message) < 400
    return message


@pytest.mark.parametrize("name", cases.REFUSED)
def test_an_argument_that_is_not_supported_is_named(name, tmp_path):
    message = why_refused(folder_of(f"refused {name}", tmp_path))
    value = cases.REFUSED[name][1][name]
    assert f"model_args.{name} is {value!r}" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "vit_tiny_patch61_224"}, "did you mean vit_tiny_patch16_224"),
        ({"architecture": "vit_relpos_base_patch16_224"}, "VisionTransformerRelPos"),
        ({"model_args": {"magic": 3}}, "model_args.magic is 3, which is not supported"),
        ({"model_args": [1]}, "model_args is [1]"),
        ({"model_args": {"num_heads": "two"}}, "model_args.num_heads is 'two', not a whole number"),
        ({"model_args": {"act_layer": [1]}}, "model_args.act_layer is [1], which is none of relu"),
        ({"model_args": {"patch_size": [16, 8]}}, "only square patches"),
        ({"model_args": {"global_pool": "avg"}, "global_pool": "max"}, "must agree"),
        (
            {"global_pool": "prr", "model_args": {}},
            "global_pool is 'prr', and only 'token', 'avg', 'max', 'avgmax', 'map' are",
        ),
        ({"model_args": {"embed_dim": 1 << 30}}, "model_args.embed_dim is 1073741824"),
        (
            {"model_args": dict(embed_dim=72, num_heads=9, depth=2, img_size=[224, 112])},
            "its images are 224 x 112 pixels, for which pos_embed has 99 rows and not 10",
        ),
    ],
    ids=str,
)
def test_a_folder_that_is_not_understood_is_refused_in_one_line(changes, words, tmp_path):
    assert words in why_refused(folder_of("other heads", tmp_path, **changes))


NASTY = (
    None,
    True,
    -1,
    0,
    1 << 70,
    1e308,
    float("nan"),
    "",
    "x",
    "\x1b[31m",
    [],
    [[]],
    {},
    {"a": []},
)


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("model_class", ["VisionTransformer", "ResNet"])
@pytest.mark.parametrize("seed", range(150))
def test_random_arguments_are_read_or_refused_in_one_line(model_class, seed, tmp_path):
    """Never a traceback."""
    random = np.random.RandomState(seed)
    name = "tanh gelu" if model_class == "VisionTransformer" else "resnet deep"
    config = json.loads(json.dumps(LISTED[name]["config"]))
    understood = vit_timm.UNDERSTOOD if name == "tanh gelu" else resnet_timm.UNDERSTOOD
    for argument in random.choice(sorted(understood), random.randint(1, 4)):
        config["model_args"][str(argument)] = NASTY[random.randint(len(NASTY))]
    if seed % 5 == 0:
        field = ("global_pool", "pretrained_cfg", "label_names", "architecture")[seed // 5 % 4]
        config[field] = NASTY[random.randint(len(NASTY))]
    try:
        load_pretrained(write(tmp_path, config, cases.weights(LISTED[name]["shapes"])))
    except WeightsError as error:
        assert "\n" not in str(error) and len(str(error)) < 700 and "\x1b" not in str(error)


@pytest.mark.parametrize(
    ("name", "head"), [("tanh gelu", "head.weight"), ("resnet deep", "fc.weight")]
)
@pytest.mark.parametrize("shape", [(), (0, 5), (3,)], ids=str)
def test_a_head_that_is_no_matrix_is_refused_in_one_line(name, head, shape, tmp_path):
    tensors = cases.weights(LISTED[name]["shapes"]) | {head: np.zeros(shape, np.float32)}
    assert head in why_refused(write(tmp_path, LISTED[name]["config"], tensors))


def test_the_pool_beside_the_arguments_is_obeyed(tmp_path):
    """Older files of timm's say it there alone."""
    config = LISTED["average pooling without fc_norm"]["config"]
    args = {k: v for k, v in config["model_args"].items() if k not in ("global_pool", "fc_norm")}
    assert config["global_pool"] == "avg"
    folder = folder_of("average pooling without fc_norm", tmp_path, model_args=args)
    model, variables = load_pretrained(folder)
    assert largest_difference("average pooling without fc_norm", model, variables) < TOLERANCE


def refusal(name, folder):
    """The message's argument, or None where the model loads and equals timm's."""
    if name in LISTED:
        folder_of(name, folder)
    else:  # timm builds no small one
        write(folder, {"architecture": name, "pretrained_cfg": {}}, {"a": np.zeros(1, np.float32)})
    try:
        model, variables = load_pretrained(folder)
    except WeightsError as error:
        message = str(error)
        argument = re.search(rf"architecture '{name}' has (\w+) |model_args\.(\w+) is ", message)
        assert argument and "\n" not in message and len(message) < 300, message
        return argument[1] or argument[2]
    assert largest_difference(name, model, variables) < TOLERANCE, name
    return None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_class", "equal", "refused"),
    [
        ("VisionTransformer", 147, 55),
        ("VisionTransformerDistilled", 4, 0),
        ("ResNet", 24, 79),
    ],
)
def test_every_architecture_equals_timms_or_is_refused_by_its_argument(
    model_class, equal, refused, tmp_path
):
    names = cases.table()["classes"][model_class]
    arguments = Counter(refusal(name, tmp_path / name) for name in names)
    assert arguments[None] == equal and arguments.total() == equal + refused, arguments


@pytest.mark.slow
def test_architectures_of_other_classes_are_refused_by_their_class(tmp_path):
    for model_class, names in cases.table()["unsupported"].items():
        for name in names:
            config = {"architecture": name, "pretrained_cfg": {}}
            folder = write(tmp_path, config, {"a": np.zeros(1, np.float32)})
            assert f"architecture {name!r} is built by timm's {model_class}" in why_refused(folder)

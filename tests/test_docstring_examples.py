"""The examples of docstrings run; names of the hub are small random models here."""

import ast
import doctest
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from page_models import write_models

import jaxformers as jf
from jaxformers.data.mixture import Mixture
from jaxformers.pretrained.formats import hub
from jaxformers.tasks.text_image import VQA, TextImage
from jaxformers.text import UnifiedIOTokenizer

PACKAGE = Path(jf.__file__).parent
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODELS = {
    "Helsinki-NLP/opus-mt-en-de": "translation",
    "deepset/bert-base-cased-squad2": "answers",
    "dslim/bert-base-NER": "tags",
    "google-bert/bert-base-uncased": "masks",
    "google/vit-base-patch16-224": "vit",
    "openai/clip-vit-base-patch32": "clip",
    "sentence-transformers/all-MiniLM-L6-v2": "encoder",
    "textattack/bert-base-uncased-SST-2": "sentiment",
}
SLOW = {
    *("Bert", "BertForPreTraining", "BertForSpanExtraction", "BertForTokenClassification"),
    *("BiT", "CLIP", "MAE", "ResNet", "UnifiedIO", "VQGAN"),
    *("Experiment", "ask", "explain", "greedy", "probe", "search", "to_nnx"),
}
# What a notebook calls first.
PRINCIPAL = {
    *("Bert", "BertForPreTraining", "BertForSpanExtraction", "BertForTokenClassification"),
    *("BiT", "CLIP", "Experiment", "MAE", "ResNet", "Transformer", "UnifiedIO", "ViT", "VQGAN"),
    *("answer", "ask", "beam_search", "classify", "classify_images", "embed", "embed_images"),
    *("explain", "fill_mask", "from_nnx", "from_pretrained", "greedy", "load_images", "load_text"),
    *("probe", "save_pretrained", "search", "tag", "to_nnx", "translate", "zero_shot"),
}


def collect_examples():
    """Name of the function or class and its docstring, where that has an example; by file."""
    examples = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text()
        if ">>> " not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
                docstring = ast.get_docstring(node) or ""
                if ">>> " in docstring:
                    name = getattr(node, "name", path.stem)
                    examples[f"{path.relative_to(PACKAGE)}::{name}"] = docstring
    return examples


EXAMPLES = collect_examples()


def marks(key):
    return [pytest.mark.slow] if key.rpartition("::")[2] in SLOW else []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with small models, `photo.png`, and the folders `photos` and `flowers`."""
    folder = tmp_path_factory.mktemp("examples")
    write_models(folder)
    pictures = sorted((folder / "pictures").rename(folder / "photos").iterdir())
    shutil.copy(pictures[0], folder / "photo.png")
    classes = [f"{split}/{name}" for split in ("train", "dev", "test") for name in ("rose", "lily")]
    for number, picture in enumerate(pictures):
        path = folder / "flowers" / classes[number % len(classes)] / picture.name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, path)
    return folder


def write_unified_io(folder):
    """A random Unified-IO with its tokenizer."""
    config = jf.UnifiedIOConfig.small(image_tokenizer=jf.VQGANConfig())
    task = TextImage(config, Mixture({"vqa": VQA()})).rehearsal()
    model = jf.UnifiedIO(task.model)
    shapes = jax.eval_shape(lambda: task.init(model, jax.random.key(0)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda s: rng.normal(0, 0.3, s.shape).astype(np.float32), shapes)
    text = 'What is in the image, a red bus ? " How many do the joints find' + "bcjkpquvxyz"
    tokenizer = UnifiedIOTokenizer.train([text] * 4, 38)
    jf.save_pretrained(model, variables, folder, tokenizer=tokenizer)


@pytest.mark.parametrize("key", [pytest.param(key, marks=marks(key)) for key in EXAMPLES])
def test_an_example_runs(key, folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("JAXFORMERS_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "fetch", lambda name: epath.Path(folder / MODELS[name]))
    if "me/unified-io" in EXAMPLES[key]:
        write_unified_io(folder / "me" / "unified-io")
    names = {"jf": jf, "jax": jax, "jnp": jnp, "np": np}
    example = doctest.DocTestParser().get_doctest(EXAMPLES[key], names, key, key, 0)
    output = []
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        results = doctest.DocTestRunner(optionflags=OPTIONS).run(example, out=output.append)
    assert results.attempted and not results.failed, "".join(output)


def test_the_principal_names_have_examples():
    names = {key.rpartition("::")[2] for key in EXAMPLES}
    assert sorted(PRINCIPAL - names) == []
    assert sorted(SLOW - names) == []

"""Retrieval of a set whose images have several captions, counted as the CLIP benchmarks do."""

import jax
import numpy as np
import pytest

from jaxformers.data.captions import BundledEmoji, CaptionFolder
from jaxformers.data.images import Preprocessing
from jaxformers.layers import Execution
from jaxformers.models import CLIP, CLIPConfig, CLIPImageConfig, CLIPTextConfig
from jaxformers.tasks.image_text.retrieval import RetrievalEvaluator, caption_positives
from jaxformers.tasks.processor import Processor
from jaxformers.text import WordPiece
from jaxformers.text.clip import padded_rows

NUM_IMAGES = 30
IMAGE = CLIPImageConfig(
    image_size=16, patch_size=8, width=16, heads=4, feed_forward=32, layers=1, projection=8
)
TEXT = CLIPTextConfig(200, 12, 16, 4, 32, 1, pooling="eos", eos_id=3, projection=8)
MODEL = CLIP(CLIPConfig(IMAGE, TEXT), Execution())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of one to three captions; the first two images share a caption."""
    folder = tmp_path_factory.mktemp("captions")
    images = BundledEmoji(("noto",), limit=NUM_IMAGES).open()
    for index in range(NUM_IMAGES):
        images.image(index).save(folder / f"{index:02}.png")
        captions = list(images.captions(index)[: 1 + index % 3])
        if index < 2:
            captions.append("shared by two")
        (folder / f"{index:02}.txt").write_text("\n".join(captions) + "\n")
    return folder


@pytest.fixture(scope="module")
def processor(folder):
    images = CaptionFolder(str(folder)).open()
    texts = [text for index in range(len(images)) for text in images.captions(index)]
    return Processor(WordPiece.train(texts, TEXT.vocab_size), Preprocessing(16))


@pytest.fixture(scope="module")
def variables():
    images, input_ids = np.ones((2, 16, 16, 3), np.float32), np.full((2, 12), 3, np.int32)
    variables = MODEL.init(jax.random.key(0), images, input_ids)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(0, 0.3, np.shape(x)).astype(np.float32), variables)


def expected_recalls(captions, image, text_of, k):
    """Text to image and image to text, query by query."""
    pairs = [(index, text) for index, texts in enumerate(captions) for text in texts]
    texts = np.stack([text_of[text] for _, text in pairs])
    text_hits = [
        any(pairs[query][1] in captions[index] for index in np.argsort(-row)[:k])
        for query, row in enumerate(texts @ image.T)
    ]
    image_hits = [
        any(pairs[text][1] in captions[index] for text in np.argsort(-row)[:k])
        for index, row in enumerate(image @ texts.T)
    ]
    return 100 * np.mean(text_hits), 100 * np.mean(image_hits)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("most", [None, 1, 2])
def test_recalls_are_those_counted_query_by_query(folder, processor, variables, most):
    images = CaptionFolder(str(folder)).open()
    captions = [images.captions(index) for index in range(NUM_IMAGES)]
    assert {len(texts) for texts in captions} == {1, 2, 3}
    captions = [texts[:most] for texts in captions]
    evaluator = RetrievalEvaluator(dev=CaptionFolder(str(folder)), captions=most, rows=7)
    evaluation = evaluator.evaluate(MODEL, variables, processor, final=True)
    pixels = np.stack(
        [processor.preprocessing.picture(images.image(index)) for index in range(NUM_IMAGES)]
    )
    texts = sorted({text for texts in captions for text in texts})
    image, text = MODEL.apply(
        variables,
        processor.preprocessing.normalised(pixels),
        padded_rows(processor.tokenizer, texts, TEXT.context_length),
        method="embed",
    )
    text_of = dict(zip(texts, np.asarray(text), strict=True))
    for k in (1, 5, 10):
        to_image, to_text = expected_recalls(captions, np.asarray(image), text_of, k)
        metrics = evaluation.metrics
        assert metrics[f"dev_text_to_image_recall_{k}"] == pytest.approx(to_image)
        assert metrics[f"dev_image_to_text_recall_{k}"] == pytest.approx(to_text)
    (figure,) = evaluation.figures.values()
    assert len([axis for axis in figure.axes if axis.images]) == 12 * 5


def test_positives_of_a_caption_are_all_images_that_have_it():
    texts, positives = caption_positives([("a", "b"), ("b",), ("c", "a", "c")])
    assert texts == ["a", "b", "b", "c", "a", "c"]
    np.testing.assert_array_equal(
        positives,
        np.array([[1, 0, 1], [1, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 1], [0, 0, 1]], bool),
    )

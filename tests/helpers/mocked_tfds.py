"""Tiny prepared sets with the features of the real ones, made without a network."""

import importlib
import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

for module in ("image_classification", "image"):
    importlib.import_module(f"tensorflow_datasets.{module}")


def prepare(name, folder, splits, override=lambda row, index: row):
    """Write the set `name` (builder/config), with `splits` rows in each split, below `folder`.

    `override` may change a drawn row before it is kept.
    """
    real = tfds.builder(name, data_dir=folder)
    config = real.builder_config and real.builder_config.name
    write(real.name, config, real.version, real.info.features, folder, splits, override)


def write(name, config, version, features, folder, splits, override=lambda row, index: row):
    """Write a set of these features, as `prepare` does."""

    class Mocked(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config, version=VERSION)] if config else []

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager):
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split):
            rng = np.random.default_rng(len(split))
            for index in range(splits[split]):
                yield index, override(drawn(features, rng), index)

    Mocked.name = name
    Mocked(data_dir=folder, config=config, file_format="array_record").download_and_prepare()


def drawn(feature, rng):
    """A random value of a feature."""
    kinds = tfds.features
    if isinstance(feature, kinds.FeaturesDict):
        return {name: drawn(subfeature, rng) for name, subfeature in feature.items()}
    if isinstance(feature, kinds.Sequence):
        return [drawn(feature.feature, rng) for _ in range(rng.integers(3, 11))]
    if isinstance(feature, kinds.Image):
        return picture([side or rng.integers(9, 20) for side in feature.shape], rng)
    if isinstance(feature, kinds.ClassLabel):
        return int(rng.integers(feature.num_classes))
    if isinstance(feature, kinds.BBoxFeature):
        return kinds.BBox(0.1, 0.2, 0.6, 0.9)
    if isinstance(feature, kinds.Text):
        return f"text {rng.integers(1000)}"
    shape, dtype = getattr(feature, "shape", ()), feature.np_dtype
    return (rng.random(shape) * 30).astype(dtype)


def picture(shape, rng):
    """A file object with a random picture, smaller than the set's."""
    shape = [*shape[:2], shape[2]]
    pixels = rng.integers(0, 2, shape).astype(np.uint8) * rng.integers(1, 255, dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if shape[2] == 1 else pixels).save(stream, "PNG")
    stream.seek(0)
    return stream

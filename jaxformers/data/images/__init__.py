"""Labelled pictures -> augmented uint8 batches, each batch a pure function of (seed, step)."""

from jaxformers.data.images.augment.augmentation import Augmentation
from jaxformers.data.images.augment.crops import (
    AsIs,
    CentralCrop,
    InceptionCrop,
    PaddedCrop,
    RandomCrop,
    WholeImage,
)
from jaxformers.data.images.augment.erasing import RandomErasing
from jaxformers.data.images.augment.jitter import ColorJitter
from jaxformers.data.images.augment.randaugment import RandAugment
from jaxformers.data.images.decoding import decode
from jaxformers.data.images.image_rows import ImagePlan, ImageRows
from jaxformers.data.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from jaxformers.data.images.sources.fashion_mnist import BundledFashionMnist
from jaxformers.data.images.sources.held_out import HeldOut
from jaxformers.data.images.sources.image_folder import ImageFolder
from jaxformers.data.images.sources.image_table import ImageTable
from jaxformers.data.images.sources.labelled_images import (
    ArrayImages,
    ImageSource,
    LabelledImages,
    check_classes,
)
from jaxformers.data.images.sources.tfds_images import TfdsImages
from jaxformers.data.images.sources.vtab import Vtab

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "ArrayImages",
    "AsIs",
    "Augmentation",
    "BundledFashionMnist",
    "CentralCrop",
    "ColorJitter",
    "HeldOut",
    "ImageFolder",
    "ImagePlan",
    "ImageRows",
    "ImageSource",
    "ImageTable",
    "InceptionCrop",
    "LabelledImages",
    "PaddedCrop",
    "Preprocessing",
    "RandAugment",
    "RandomCrop",
    "RandomErasing",
    "TfdsImages",
    "Vtab",
    "WholeImage",
    "check_classes",
    "decode",
]

"""Sentence pairs or documents -> ids -> batches, each batch a pure function of (seed, step)."""

from jaxformers.data.assembly import Batch, Plan
from jaxformers.data.bucketing import Bucketing, BucketingPlan
from jaxformers.data.document_store import SpecialPieces, TokenizedDocuments
from jaxformers.data.documents import (
    BundledDocuments,
    Documents,
    DocumentSource,
    JoinedDocuments,
    ListedDocuments,
    TextFolder,
    TfdsDocuments,
    document_sentences,
)
from jaxformers.data.fingerprint import differences
from jaxformers.data.glue import Glue
from jaxformers.data.images import (
    ArrayImages,
    AsIs,
    Augmentation,
    BundledFashionMnist,
    CentralCrop,
    ImageFolder,
    ImagePlan,
    ImageRows,
    ImageSource,
    InceptionCrop,
    LabelledImages,
    PaddedCrop,
    Preprocessing,
    RandAugment,
    RandomCrop,
    RandomErasing,
    TfdsImages,
    Vtab,
    WholeImage,
)
from jaxformers.data.labelled import Labels
from jaxformers.data.labelled_rows import LabelledRows
from jaxformers.data.movies import BundledMovies
from jaxformers.data.own_texts import JsonlTexts, TsvTexts
from jaxformers.data.packing import Packing, PackingPlan
from jaxformers.data.pairs import ListedPairs, Pairs, PairSource, sentences
from jaxformers.data.pipeline import batches
from jaxformers.data.prepare import prepare
from jaxformers.data.pretraining import Phase, Pretraining, PretrainingPlan
from jaxformers.data.questions import Question, Questions
from jaxformers.data.sentence_splitting import split_sentences
from jaxformers.data.shown_example import ShownExample, describe_example
from jaxformers.data.sources import AlignedFiles, BundledPairs, TfdsPairs, TsvPairs
from jaxformers.data.squad import BundledQuestions, SquadJson, TfdsSquad
from jaxformers.data.tokenized import SpecialIds, TokenizedPairs
from jaxformers.data.windows import Windows, WindowSize

__all__ = [
    "AlignedFiles",
    "ArrayImages",
    "AsIs",
    "Augmentation",
    "Batch",
    "Bucketing",
    "BucketingPlan",
    "BundledDocuments",
    "BundledFashionMnist",
    "BundledMovies",
    "BundledPairs",
    "BundledQuestions",
    "CentralCrop",
    "DocumentSource",
    "Documents",
    "Glue",
    "ImageFolder",
    "ImagePlan",
    "ImageRows",
    "ImageSource",
    "InceptionCrop",
    "JoinedDocuments",
    "JsonlTexts",
    "LabelledImages",
    "LabelledRows",
    "Labels",
    "ListedDocuments",
    "ListedPairs",
    "Packing",
    "PackingPlan",
    "PaddedCrop",
    "PairSource",
    "Pairs",
    "Phase",
    "Plan",
    "Preprocessing",
    "Pretraining",
    "PretrainingPlan",
    "Question",
    "Questions",
    "RandAugment",
    "RandomCrop",
    "RandomErasing",
    "ShownExample",
    "SpecialIds",
    "SpecialPieces",
    "SquadJson",
    "TextFolder",
    "TfdsDocuments",
    "TfdsImages",
    "TfdsPairs",
    "TfdsSquad",
    "TokenizedDocuments",
    "TokenizedPairs",
    "TsvPairs",
    "TsvTexts",
    "Vtab",
    "WholeImage",
    "WindowSize",
    "Windows",
    "batches",
    "describe_example",
    "differences",
    "document_sentences",
    "prepare",
    "sentences",
    "split_sentences",
]

"""Sentence pairs or documents -> ids -> batches, each batch a pure function of (seed, step)."""

from jaxformers.data.files.prepare import prepare
from jaxformers.data.images import (
    ArrayImages,
    AsIs,
    Augmentation,
    BundledFashionMnist,
    CentralCrop,
    ColorJitter,
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
from jaxformers.data.pipeline.bucketing import Bucketing, BucketingPlan
from jaxformers.data.pipeline.collate import Batch, Plan
from jaxformers.data.pipeline.fingerprint import differences
from jaxformers.data.pipeline.loader import batches
from jaxformers.data.pipeline.packing import Packing, PackingPlan
from jaxformers.data.pretraining.describe_example import ShownExample, describe_example
from jaxformers.data.pretraining.document_store import SpecialPieces, TokenizedDocuments
from jaxformers.data.pretraining.documents import (
    BundledDocuments,
    BundledHelpPages,
    Documents,
    DocumentSource,
    JoinedDocuments,
    ListedDocuments,
    TextFolder,
    TfdsDocuments,
    document_sentences,
)
from jaxformers.data.pretraining.examples import Phase, Pretraining, PretrainingPlan
from jaxformers.data.pretraining.sentence_splitting import split_sentences
from jaxformers.data.text.glue import Glue
from jaxformers.data.text.help_lines import BundledHelp
from jaxformers.data.text.labelled_rows import LabelledRows
from jaxformers.data.text.labelled_texts import Labels
from jaxformers.data.text.movies import BundledMovies
from jaxformers.data.text.questions import Question, Questions
from jaxformers.data.text.squad import BundledQuestions, SquadJson, TfdsSquad
from jaxformers.data.text.tags.sources import (
    BundledEntities,
    ConllFile,
    JsonlTags,
    TfdsTags,
    TsvTags,
)
from jaxformers.data.text.text_files import CsvTexts, JsonlTexts, TsvTexts
from jaxformers.data.text.windows import Windows, WindowSize
from jaxformers.data.translation.parallel_text import ListedPairs, Pairs, PairSource, sentences
from jaxformers.data.translation.sources import AlignedFiles, BundledPairs, TfdsPairs, TsvPairs
from jaxformers.data.translation.tokenized import SpecialIds, TokenizedPairs

__all__ = [
    "AlignedFiles",
    "ArrayImages",
    "AsIs",
    "Augmentation",
    "Batch",
    "Bucketing",
    "BucketingPlan",
    "BundledDocuments",
    "BundledEntities",
    "BundledFashionMnist",
    "BundledHelp",
    "BundledHelpPages",
    "BundledMovies",
    "BundledPairs",
    "BundledQuestions",
    "CentralCrop",
    "ColorJitter",
    "ConllFile",
    "CsvTexts",
    "DocumentSource",
    "Documents",
    "Glue",
    "ImageFolder",
    "ImagePlan",
    "ImageRows",
    "ImageSource",
    "InceptionCrop",
    "JoinedDocuments",
    "JsonlTags",
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
    "TfdsTags",
    "TokenizedDocuments",
    "TokenizedPairs",
    "TsvPairs",
    "TsvTags",
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

"""Sentence pairs -> ids -> batches, each batch a pure function of (seed, step)."""

from jaxformers.data.assembly import Batch, Plan
from jaxformers.data.bucketing import Bucketing, BucketingPlan
from jaxformers.data.fingerprint import differences, fingerprint
from jaxformers.data.packing import Packing, PackingPlan
from jaxformers.data.pairs import ListedPairs, Pairs, PairSource, sentences
from jaxformers.data.pipeline import batches
from jaxformers.data.prepare import prepare
from jaxformers.data.sources import AlignedFiles, BundledPairs, TfdsPairs, TsvPairs
from jaxformers.data.tokenized import SpecialIds, TokenizedPairs

__all__ = [
    "AlignedFiles",
    "Batch",
    "Bucketing",
    "BucketingPlan",
    "BundledPairs",
    "ListedPairs",
    "Packing",
    "PackingPlan",
    "PairSource",
    "Pairs",
    "Plan",
    "SpecialIds",
    "TfdsPairs",
    "TokenizedPairs",
    "TsvPairs",
    "batches",
    "differences",
    "fingerprint",
    "prepare",
    "sentences",
]

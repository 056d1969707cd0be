"""How good a result is, in the measures that papers report, and what they reported."""

from jaxformers.evaluation.bleu import (
    Bleu,
    chrf2,
    compound_split_bleu,
    corpus_bleu,
    reference_set,
)
from jaxformers.evaluation.entities import (
    EntityScores,
    EntitySpan,
    entity_scores,
    entity_spans,
    tag_accuracy,
)
from jaxformers.evaluation.likelihood import (
    mean_binary_cross_entropy,
    mean_cross_entropy,
    perplexity,
)
from jaxformers.evaluation.published.conll import PUBLISHED_CONLL
from jaxformers.evaluation.published.glue import PUBLISHED_GLUE, PublishedGlue, published_table
from jaxformers.evaluation.published.squad import (
    PUBLISHED_SQUAD,
    PublishedSquad,
    published_squad,
)
from jaxformers.evaluation.published.translation import PUBLISHED, Published
from jaxformers.evaluation.squad import (
    exact_match,
    f1,
    normalize_answer,
    squad2_scores,
    squad_scores,
)

__all__ = [
    "PUBLISHED",
    "PUBLISHED_CONLL",
    "PUBLISHED_GLUE",
    "PUBLISHED_SQUAD",
    "Bleu",
    "EntityScores",
    "EntitySpan",
    "Published",
    "PublishedGlue",
    "PublishedSquad",
    "chrf2",
    "compound_split_bleu",
    "corpus_bleu",
    "entity_scores",
    "entity_spans",
    "exact_match",
    "f1",
    "mean_binary_cross_entropy",
    "mean_cross_entropy",
    "normalize_answer",
    "perplexity",
    "published_squad",
    "published_table",
    "reference_set",
    "squad2_scores",
    "squad_scores",
    "tag_accuracy",
]

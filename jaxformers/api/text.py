"""Models of text at work: translations, masked words, classes, answers, entities, vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, get_args, overload

from jaxformers.api import sources
from jaxformers.api.sources import TextSource
from jaxformers.errors import ConfigError, check_top
from jaxformers.models.clip import CLIP, CLIPTextTower
from jaxformers.pretrained.bert.sentence_pooling import MODES, Mode
from jaxformers.tasks.image_text import zero_shot
from jaxformers.tasks.text import embedding, text_inference
from jaxformers.tasks.text import fill_mask as masked_words
from jaxformers.tasks.text.span_answers import Answer
from jaxformers.tasks.text.tagging import tag_inference
from jaxformers.tasks.text.tagging.tag_inference import Aggregation, Entity
from jaxformers.tasks.translation import translation_evaluation
from jaxformers.tasks.translation.translation_evaluation import stated_search
from jaxformers.text import listed_texts

if TYPE_CHECKING:
    import numpy as np

Texts = str | Sequence[str]


@overload
def translate(
    source: TextSource,
    sentences: Texts,
    *,
    beams: int | None = ...,
    alpha: float | None = ...,
    no_repeat_ngram: int | None = ...,
    truncate: bool = ...,
    n_best: None = ...,
) -> list[str]:
    """One translation of each sentence."""


@overload
def translate(
    source: TextSource,
    sentences: Texts,
    *,
    beams: int | None = ...,
    alpha: float | None = ...,
    no_repeat_ngram: int | None = ...,
    truncate: bool = ...,
    n_best: int,
) -> list[list[tuple[str, float]]]:
    """The `n_best` translations of each sentence with their scores."""


def translate(
    source: TextSource,
    sentences: Texts,
    *,
    beams: int | None = None,
    alpha: float | None = None,
    no_repeat_ngram: int | None = None,
    truncate: bool = False,
    n_best: int | None = None,
) -> list[str] | list[list[tuple[str, float]]]:
    """Translations of `sentences`, in their order.

    Args:
        source: as for `from_pretrained`, which is kept loaded for the next call; or
            `(model, variables, tokenizer)`.
        sentences: an empty one stays empty.
        beams: width of the beam search, 1 (greedy) to 256; None: as the weights' publisher states
            (`num_beams`), else 4.
        alpha: exponent of the paper's length penalty; None: the penalty that the publisher states
            (`length_penalty`, of another form), else 0.6.
        no_repeat_ngram: no n-gram of so many tokens comes twice in a translation; 0: any may;
            None: as the publisher states, else 0.
        truncate: whether a sentence with more tokens than the model has positions is cut.
        n_best: how many translations of each sentence; at most `beams`.

    Returns:
        A translation of each sentence. With `n_best` a list for each, of (translation, score),
        best first and empty for an empty sentence.

    Raises:
        ConfigError: an option outside its range.
        DataError: a sentence with more tokens than the model has positions, unless `truncate`.
        WeightsError: a model that does not translate, another model's tokenizer, or outputs that
            are not finite.

    Example:
        >>> jf.translate("Helsinki-NLP/opus-mt-en-de", ["Open the file."])
        ['...']
    """
    model, variables, tokenizer = sources.text_model("translate", source)
    search = stated_search(model, beams, alpha, no_repeat_ngram)
    arguments = (model, variables, tokenizer, listed_texts(sentences), search)
    if n_best is None:
        return translation_evaluation.translate(*arguments, truncate=truncate)
    return translation_evaluation.translate_n_best(*arguments, n_best, truncate=truncate)


def fill_mask(
    source: TextSource, texts: Texts, *, top: int = 5
) -> list[list[list[tuple[str, float]]]]:
    """The likeliest words for each mask in `texts`.

    Args:
        source: a pre-trained BERT, RoBERTa or DistilBERT, as for `from_pretrained`, which is kept
            loaded for the next call; or `(model, variables, tokenizer)`.
        texts: with any number of masks each, as the tokenizer's `mask_token` writes them: "[MASK]"
            in BERT and DistilBERT, "<mask>" in RoBERTa.
        top: how many words for each mask.

    Returns:
        For each text, for each of its masks, (token, probability), the best first. A token that
        goes on with a word begins with "##"; of byte-level pairs, as RoBERTa has, one that begins
        a word begins with a blank.

    Raises:
        DataError: a text with more tokens than the model has positions.
        WeightsError: a model without a masked-word head.

    Example:
        >>> masks = jf.fill_mask("google-bert/bert-base-uncased", "The [MASK] is red.", top=3)[0]
        >>> [len(words) for words in masks]
        [3]
    """
    check_top(top)
    model = sources.text_model("fill_mask", source)
    return masked_words.fill_mask(*model, listed_texts(texts), top=top)


def classify(
    source: TextSource,
    texts_or_pairs: str | Sequence[str | tuple[str, str]],
    *,
    truncate: bool = False,
) -> list[tuple[str, float]]:
    """The likeliest class of each text or pair of texts, and its probability.

    Args:
        source: a BERT with a classifier, as for `from_pretrained`, which is kept loaded
            for the next call; or `(model, variables, tokenizer)`.
        texts_or_pairs: texts, or (text, second text).
        truncate: whether what is longer than the model's positions is cut, the longer text of a
            pair first.

    Returns:
        (label, probability) of each; of a regression ("score", number).

    Raises:
        DataError: a text with more tokens than the model has positions, unless `truncate`.
        WeightsError: a model without a classifier.

    Example:
        >>> jf.classify("textattack/bert-base-uncased-SST-2", ["A good film.", "A bad one."])
        [('...', 0...), ('...', 0...)]
    """
    texts = [texts_or_pairs] if isinstance(texts_or_pairs, str) else texts_or_pairs
    model = sources.text_model("classify", source)
    return text_inference.classify(*model, texts, truncate=truncate)


def answer(
    source: TextSource,
    questions: Texts,
    contexts: Texts,
    *,
    longest: int = 30,
    null_threshold: float | None = None,
) -> list[Answer]:
    """The answer to each question as a span of its context.

    Args:
        source: a BERT that was trained to answer, as for `from_pretrained`, which is kept loaded
            for the next call; or `(model, variables, tokenizer)`.
        questions: one for each context; a single question is asked of every context.
        contexts: of any length; a single text is the context of all questions.
        longest: most pieces of an answer.
        null_threshold: "no answer" (an empty text) where its score exceeds the best span's by more
            than this, for models trained on SQuAD 2.0; None: always a span.

    Returns:
        (text, score, start, end) of each: the sum of two logits, and the span in characters.

    Raises:
        DataError: another number of questions than of contexts.
        WeightsError: a model without a head for answers.

    Example:
        >>> context = "The baker left at noon."
        >>> answers = jf.answer("deepset/bert-base-cased-squad2", ["Who left?", "When?"], context)
        >>> all(answer.text == context[answer.start : answer.end] for answer in answers)
        True
    """
    if longest < 1:
        raise ConfigError(f"longest is {longest}; it is at least 1")
    model = sources.text_model("answer", source)
    one_question, one_context = isinstance(questions, str), isinstance(contexts, str)
    questions, contexts = listed_texts(questions), listed_texts(contexts)
    if one_question:
        questions = questions * len(contexts)
    elif one_context:
        contexts = contexts * len(questions)
    return text_inference.answer(
        *model, questions, contexts, longest=longest, null_threshold=null_threshold
    )


def tag(
    source: TextSource,
    texts: Texts,
    *,
    aggregation: Aggregation = "first",
    truncate: bool = False,
) -> list[list[Entity]]:
    """The named entities of each text, or its words with their classes (parts of speech).

    Args:
        source: a BERT with a classifier over tokens, as for `from_pretrained`, which is kept loaded
            for the next call; or `(model, variables, tokenizer)`.
        texts: a text or several, as plain text.
        aggregation: how the tokens of a word agree on a tag, as in transformers' pipeline: "first",
            the first token's, as the model was trained; "max", that of the most certain one;
            "average", that of their mean probabilities; "simple", each token has its own.
        truncate: whether a longer text is cut at the model's positions; nothing is tagged behind.

    Returns:
        For each text its entities in their order: (text, label, score, start, end), where label is
        the type ("PER"), score a mean probability, and start and end are characters of the text.
        Words with the tag "O" belong to none.

    Raises:
        ConfigError: an unknown aggregation.
        DataError: a text with more tokens than the model has positions, unless `truncate`.
        WeightsError: a model without a classifier over tokens, another model's tokenizer, or
            outputs that are not finite.

    Example:
        >>> entities = jf.tag("dslim/bert-base-NER", "Ada Lovelace lived in London.")[0]
        >>> {entity.label for entity in entities} <= {"PER", "LOC", "ORG", "MISC"}
        True
    """
    if aggregation not in get_args(Aggregation):
        choices = ", ".join(get_args(Aggregation))
        raise ConfigError(f"no aggregation {aggregation!r:.80}: choose {choices}")
    model = sources.text_model("tag", source)
    return tag_inference.tag(
        *model, listed_texts(texts), aggregation=aggregation, truncate=truncate
    )


def embed(
    source: TextSource,
    texts: Texts,
    *,
    pooling: Mode | None = None,
    normalize: bool | None = None,
) -> np.ndarray:
    """A vector for each text, float32 `[n, D]`, in their order.

    Args:
        source: any BERT, a CLIP or SigLIP or its text tower, as for `from_pretrained`, which is
            kept loaded for the next call; or `(model, variables, tokenizer)`. OpenAI's tokenizer
            stands in where a CLIP's folder has none.
        texts: a longer one than the folder's `max_seq_length`, or than the model's positions, is
            cut at its end, as sentence-transformers does; of CLIP the end-of-text token stays. A
            special token's name in a text, such as "[SEP]", is text, which Hugging Face's
            tokenizers take for the token.
        pooling: "mean", "cls", "max", "mean_sqrt_len", "weightedmean" or "lasttoken"; None: as the
            folder's files say (those of sentence-transformers), else the mean over all tokens; of
            CLIP always the projected encoding of the end of the text.
        normalize: whether vectors get length 1; None: as the folder's files say, else not.

    Raises:
        ConfigError: an unknown pooling, or any of a CLIP.
        WeightsError: a model that reads no text, another model's tokenizer, a module of the folder
            that is not supported, or outputs that are not finite.

    Example:
        >>> texts = ["A cat.", "A dog."]
        >>> vectors = jf.embed("sentence-transformers/all-MiniLM-L6-v2", texts, normalize=True)
        >>> (vectors @ vectors.T).shape
        (2, 2)
    """
    model, variables, tokenizer = sources.text_model("embed", source)
    if isinstance(model, CLIP | CLIPTextTower):
        if pooling is not None:
            raise ConfigError(
                f"pooling {pooling!r} of a {type(model).__name__}, which pools as it was trained: "
                "leave it out"
            )
        return zero_shot.embed_texts(
            model, variables, tokenizer, listed_texts(texts), normalize=bool(normalize)
        )
    pooling_config = sources.pooling_of(source)
    if pooling is not None:
        if pooling not in MODES.values():
            raise ConfigError(f"no pooling {pooling!r}: choose {', '.join(MODES.values())}")
        pooling_config = replace(pooling_config, modes=(pooling,))
    if normalize is not None:
        pooling_config = replace(pooling_config, normalize=normalize)
    return embedding.embed(model, variables, tokenizer, listed_texts(texts), pooling_config)

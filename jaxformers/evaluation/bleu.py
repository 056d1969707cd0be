"""Translation quality: sacreBLEU, chrF2, the tokenised BLEU of the paper.

Two BLEUs are told apart. `corpus_bleu` is sacreBLEU on plain text, comparable between papers by
its signature. `compound_split_bleu` is what "Attention Is All You Need" (section 6.1) and its
predecessors report: Moses tokens, hyphenated compounds split; 0.5 to 1 higher.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sacrebleu
from sacrebleu.metrics import BLEU, CHRF

from jaxformers.errors import DataError, did_you_mean
from jaxformers.text import listed_texts

# A hyphen between two characters that are not spaces. The characters are consumed, as by Perl's
# s///g, so of a-b-c only the first hyphen is split: the published numbers depend on it.
COMPOUND = re.compile(r"(\S)-(\S)")
# What sacreBLEU's tokenizers of words need beside it.
PACKAGES = {"ja-mecab": "sacrebleu[ja]", "ko-mecab": "sacrebleu[ko]"}


@dataclass(frozen=True)
class Bleu:
    """A corpus score.

    Attributes:
        score: 0 to 100.
        signature: how it was computed, to be quoted beside it.
        brevity_penalty: factor in (0, 1] for output shorter than the reference; 1 for chrF.
        precisions: percent of matched 1- to 4-grams; empty for chrF.
        length_ratio: tokens of the output over tokens of the reference; None for chrF.
    """

    score: float
    signature: str
    brevity_penalty: float = 1.0
    precisions: tuple[float, ...] = ()
    length_ratio: float | None = None

    def __str__(self) -> str:
        return f"{self.score:.2f} ({self.signature})"


# One text for each translation, or several lists of them.
References = str | Sequence[str] | Sequence[Sequence[str]]


def corpus_bleu(
    hypotheses: str | Sequence[str], references: References, *, tokenize: str = "13a"
) -> Bleu:
    """Score detokenised translations by sacreBLEU, case kept.

    Args:
        hypotheses: the translations.
        references: one for each translation, or several lists of them, as sacreBLEU takes them:
            `[first reference of each translation, second reference of each, ...]`.
        tokenize: one of sacreBLEU's tokenizers; "zh" for Chinese. "ja-mecab" and "ko-mecab" need
            packages beside it, "flores101" and "flores200" a model that is fetched once.

    Raises:
        DataError: no sentences, another number of references than of translations, or a tokenizer
            that sacreBLEU does not know or cannot load.

    Example:
        >>> hypotheses, references = ["The cat sat on the mat."], ["The cat sat on the red mat."]
        >>> f"{jf.evaluation.corpus_bleu(hypotheses, references).score:.1f}"
        '61.3'
    """
    hypotheses, streams = _checked(hypotheses, references)
    metric = _bleu_metric(tokenize)
    return _bleu(metric, metric.corpus_score(hypotheses, streams))


def chrf2(hypotheses: str | Sequence[str], references: References) -> Bleu:
    """Score translations by chrF2 (character 6-grams, recall counted twice).

    Arguments and errors are `corpus_bleu`'s.
    """
    hypotheses, streams = _checked(hypotheses, references)
    metric = CHRF()
    score = metric.corpus_score(hypotheses, streams).score
    return Bleu(score, f"chrF2|{metric.get_signature()}")


def compound_split_bleu(
    hypotheses: str | Sequence[str], references: References, language: str = "de"
) -> Bleu:
    """Score detokenised translations as the paper does: case-sensitive BLEU on Moses tokens.

    Both sides: full-width and typographic punctuation to ASCII, the Moses tokenizer of
    `language`, compounds split (`rich-text` -> `rich ##AT##-##AT## text`); then BLEU of
    whitespace tokens without smoothing, as multi-bleu does. sacremoses splits final dots as the
    Moses tokenizer of 2017 did; the one since November 2018 differs in 0.6 % of German lines.

    Arguments and errors are `corpus_bleu`'s.
    """
    hypotheses, streams = _checked(hypotheses, references)
    tokens, *reference_tokens = (
        _compound_tokens(lines, language) for lines in (hypotheses, *streams)
    )
    metric = BLEU(tokenize="none", smooth_method="none", force=True)
    result = _bleu(metric, metric.corpus_score(tokens, reference_tokens))
    signature = f"nrefs:{len(streams)}|tok:moses-{language}+compound-split|case:mixed|smooth:none"
    return Bleu(
        result.score, signature, result.brevity_penalty, result.precisions, result.length_ratio
    )


def split_compounds(line: str) -> str:
    """Split hyphenated words of a tokenised line: `a-b` -> `a ##AT##-##AT## b`."""
    return COMPOUND.sub(r"\1 ##AT##-##AT## \2", line)


def reference_set(pair: str = "en-de", name: str = "wmt14/full") -> tuple[list[str], list[str]]:
    """Return the sources and references of a test set that sacreBLEU knows.

    `wmt14/full` is newstest2014 with all 3,003 sentences, as in the paper; plain `wmt14` lacks
    some. Its files are taken from sacreBLEU's cache, or fetched where a network allows.

    Args:
        pair: source and target language, as `en-de`.
        name: sacreBLEU's name of the set; `wmt13` is the paper's development set.

    Raises:
        DataError: no such set or pair, or it is neither cached nor within reach.
    """
    language_pairs = sacrebleu.get_langpairs_for_testset(name)
    if pair not in language_pairs:
        kind = (
            f"language pairs {', '.join(language_pairs)}"
            if language_pairs
            else "no test set of that name"
        )
        raise DataError(f"test set {name} {pair}: sacreBLEU has {kind}; name one it has")
    try:
        source, *references = sacrebleu.download_test_set(name, pair)[:2]
    except (OSError, SystemExit, EOFError) as error:
        raise DataError(
            f"test set {name} {pair} cannot be fetched ({error}) and is not in "
            f"{sacrebleu.SACREBLEU_DIR}; where a network is, run `sacrebleu -t {name} -l {pair} "
            "--echo src`, then copy that folder here"
        ) from error
    return _lines(source), _lines(references[0])


def _bleu(metric: BLEU, result: Any) -> Bleu:
    return Bleu(
        result.score,
        f"BLEU|{metric.get_signature()}",
        result.bp,
        tuple(result.precisions),
        result.sys_len / result.ref_len if result.ref_len else 0.0,
    )


def _bleu_metric(tokenize: str) -> BLEU:
    if tokenize not in BLEU.TOKENIZERS:
        near = did_you_mean(str(tokenize), list(BLEU.TOKENIZERS))
        raise DataError(
            f"sacreBLEU has no tokenizer {tokenize!r}, only {', '.join(BLEU.TOKENIZERS)}{near}"
        )
    try:
        return BLEU(tokenize=tokenize)
    except (ImportError, RuntimeError, OSError, AssertionError, SystemExit) as error:
        if tokenize in PACKAGES:
            mend = f"run `pip install {PACKAGES[tokenize]}`"
        else:
            mend = (
                f"its model cannot be fetched into {sacrebleu.SACREBLEU_DIR}/models; score once "
                "where a network is, then copy that folder here"
            )
        message = " ".join(str(error).split())
        raise DataError(f"sacreBLEU's tokenizer {tokenize}: {mend} ({message:.200})") from None


def _checked(
    hypotheses: str | Sequence[str], references: References
) -> tuple[list[str], list[list[str]]]:
    """The translations, and the lists of references, each as long as them."""
    hypotheses = listed_texts(hypotheses)
    several = isinstance(references, Sequence) and any(not isinstance(r, str) for r in references)
    streams = [listed_texts(entry) for entry in (references if several else [references])]
    lengths = [len(stream) for stream in streams]
    if not hypotheses or set(lengths) != {len(hypotheses)}:
        if several:
            raise DataError(
                f"{len(hypotheses)} translations, but lists of {', '.join(map(str, lengths[:8]))} "
                "references; give one list for each set of references, as long as the translations"
            )
        raise DataError(
            f"{len(hypotheses)} translations for {lengths[0]} references; "
            "BLEU needs as many lines on both sides, at least one"
        )
    return hypotheses, streams


def _compound_tokens(lines: Sequence[str], language: str) -> list[str]:
    """The lines as tokens joined by single spaces."""
    # Imported where it is needed: it takes every command a third of a second.
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    moses, split = MosesTokenizer(lang=language), []
    for line in lines:
        for pattern, replacement in MosesPunctNormalizer.REPLACE_UNICODE_PUNCTUATION:
            line = re.sub(pattern, replacement, line)
        split.append(split_compounds(moses.tokenize(line, return_str=True)))
    return split


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").rstrip("\n").split("\n")

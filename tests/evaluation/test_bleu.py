"""BLEU in both kinds, chrF2, and the published table."""

import urllib.error

import pytest
import sacrebleu

from jaxformers.errors import DataError
from jaxformers.evaluation import (
    PUBLISHED,
    chrf2,
    compound_split_bleu,
    corpus_bleu,
    reference_set,
)
from jaxformers.evaluation.bleu import split_compounds

REFERENCES = [
    "Die Rich-Text-Datei wird „sofort“ gespeichert.",
    "Klicken Sie auf das Symbol, um den E-Mail-Client zu öffnen.",
    "Das Dokument enthält keine Makros.",
]
HYPOTHESES = [
    'Die Rich-Text Datei wird "sofort" gespeichert.',
    "Klicken Sie auf das Symbol, um den Mail-Client zu öffnen.",
    "Das Dokument enthält Makros.",
]


def test_corpus_bleu_is_sacrebleu_and_says_how():
    bleu = corpus_bleu(HYPOTHESES, REFERENCES)
    assert bleu.score == sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score
    assert "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2" in bleu.signature
    assert len(bleu.precisions) == 4


@pytest.mark.parametrize("score", [corpus_bleu, chrf2, compound_split_bleu])
def test_several_references_are_sacrebleus_lists(score):
    second = [
        line.replace("Symbol", "Icon").replace("keine Makros", "Makros") for line in REFERENCES
    ]
    result = score(HYPOTHESES, [REFERENCES, second])
    assert "nrefs:2" in result.signature or score is compound_split_bleu
    assert result.score > score(HYPOTHESES, REFERENCES).score
    assert score(HYPOTHESES, [REFERENCES]).score == score(HYPOTHESES, REFERENCES).score
    if score is corpus_bleu:
        assert result.score == sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES, second]).score
    if score is chrf2:
        assert result.score == sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES, second]).score


@pytest.mark.parametrize("score", [corpus_bleu, chrf2, compound_split_bleu])
def test_a_single_sentence_is_a_corpus_of_one(score):
    line = REFERENCES[0]
    assert score(line, line).score == score([line], [line]).score == pytest.approx(100)


@pytest.mark.parametrize(
    ("references", "message"),
    [
        ([REFERENCES, REFERENCES[:2]], "3 translations, but lists of 3, 2 references"),
        ([[line, line] for line in REFERENCES], "lists of 2, 2, 2 references; give one list"),
        ([], "3 translations for 0 references"),
        ([REFERENCES, [*REFERENCES[:2], None]], "text 3 is None, not a text"),
        ([1, 2, 3], "expected a text or a list of texts, not a int"),
        (dict.fromkeys(REFERENCES), "not a dict"),
    ],
)
def test_references_that_do_not_fit_are_refused_in_one_line(references, message):
    with pytest.raises(DataError, match=message) as error:
        corpus_bleu(HYPOTHESES, references)
    assert "\n" not in str(error.value)


def test_a_tokenizer_that_cannot_be_had_is_refused_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_spm.SACREBLEU_DIR", str(tmp_path))

    def no_network(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    messages = {
        "13": r"has no tokenizer '13', only none.*did you mean 13a",
        "flores200": r"flores200: its model cannot be fetched .*no network",
        "ja-mecab": r"ja-mecab: run `pip install sacrebleu\[ja\]`",
        "ko-mecab": r"ko-mecab: run `pip install sacrebleu\[ko\]`",
    }
    for name, message in messages.items():
        with pytest.raises(DataError, match=message) as error:
            corpus_bleu(HYPOTHESES, REFERENCES, tokenize=name)
        assert "\n" not in str(error.value)


def test_output_shorter_than_the_reference_is_penalised():
    assert corpus_bleu(REFERENCES, REFERENCES).brevity_penalty == 1
    short = [line.rsplit(" ", 2)[0] for line in REFERENCES]
    assert 0 < corpus_bleu(short, REFERENCES).brevity_penalty < 1


def test_the_tokenizer_is_chosen_and_named():
    assert "tok:char" in corpus_bleu(HYPOTHESES, REFERENCES, tokenize="char").signature


def test_a_perfect_translation_scores_a_hundred():
    for score in (corpus_bleu, chrf2, compound_split_bleu):
        assert score(REFERENCES, REFERENCES).score == pytest.approx(100)


def test_chrf2_is_sacrebleus():
    expected = sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score
    assert chrf2(HYPOTHESES, REFERENCES).score == expected


@pytest.mark.parametrize(
    ("line", "split"),
    [
        ("rich-text format", "rich ##AT##-##AT## text format"),
        # Matches do not overlap: each one consumes the characters on both sides of its hyphen.
        ("a-b-c", "a ##AT##-##AT## b-c"),
        ("a-b-c-d", "a ##AT##-##AT## b-c ##AT##-##AT## d"),
        ("ab-cd-ef", "ab ##AT##-##AT## cd ##AT##-##AT## ef"),
        ("x--y - -z-", "x ##AT##-##AT## -y - -z-"),
    ],
)
def test_compounds_are_split_as_perls_substitution_does(line, split):
    assert split_compounds(line) == split


def test_compound_split_bleu_is_what_the_original_scripts_give():
    """The number that Moses' Perl scripts of 2017 (tokenizer.perl, multi-bleu.perl) print."""
    bleu = compound_split_bleu(HYPOTHESES, REFERENCES)
    assert round(bleu.score, 2) == 60.90
    assert round(bleu.brevity_penalty, 3) == 0.875


def test_typographic_quotes_count_as_plain_ones_and_case_counts():
    assert compound_split_bleu(["Er sagt ’ja“ dazu."], ["Er sagt 'ja\" dazu."]).score == (
        pytest.approx(100)
    )
    assert compound_split_bleu(["DAS IST EIN TEST ."], ["Das ist ein Test ."]).score < 1


def test_without_a_common_4_gram_the_papers_bleu_is_zero():
    """multi-bleu does not smooth; sacreBLEU does."""
    hypotheses, references = ["eins zwei drei vier fünf"], ["eins zwei drei acht fünf"]
    assert compound_split_bleu(hypotheses, references).score == 0
    assert corpus_bleu(hypotheses, references).score > 0


@pytest.mark.parametrize("score", [corpus_bleu, chrf2, compound_split_bleu])
def test_unequal_or_no_lines_are_refused_in_one_line(score):
    with pytest.raises(DataError, match="2 translations for 3 references"):
        score(HYPOTHESES[:2], REFERENCES)
    with pytest.raises(DataError, match="at least one"):
        score([], [])


def test_a_cached_test_set_is_read_without_a_network(tmp_path, monkeypatch):
    dataset = sacrebleu.DATASETS["wmt14/full"]
    monkeypatch.setattr(dataset, "_outdir", str(tmp_path))
    for side in dataset.fieldnames("en-de"):
        lines = {"src": "A house.\nTwo.\n", "ref": "Ein Haus.\nZwei.\n"}.get(side, "1\n2\n")
        (tmp_path / f"wmt14_full.en-de.{side}").write_text(lines)
    assert reference_set("en-de") == (["A house.", "Two."], ["Ein Haus.", "Zwei."])


def test_a_test_set_out_of_reach_is_one_line_with_the_mend(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no network")

    dataset = sacrebleu.DATASETS["wmt14/full"]
    monkeypatch.setattr(dataset, "_outdir", str(tmp_path))
    monkeypatch.setattr(dataset, "_rawdir", str(tmp_path / "raw"))
    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    with pytest.raises(DataError, match="sacrebleu -t wmt14/full -l en-de") as error:
        reference_set("en-de")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("pair", "name"), [("en-xx", "wmt14/full"), ("en-de", "wmt0")])
def test_an_unknown_test_set_or_pair_is_named(pair, name):
    with pytest.raises(DataError, match=f"{name} {pair}"):
        reference_set(pair, name)


def test_published_rows_are_the_papers():
    rows = {row.model: row for row in PUBLISHED}
    assert (rows["Transformer base"].en_de, rows["Transformer base"].en_fr) == (27.3, 38.1)
    assert (rows["Transformer big"].en_de, rows["Transformer big"].en_fr) == (28.4, 41.8)
    # Table 2's FLOPs: 12 hours (3.5 days) on 8 P100 of 9.5 TFLOP/s.
    assert rows["Transformer base"].flops_en_de == pytest.approx(12 * 3600 * 8 * 9.5e12, rel=0.02)
    assert rows["Transformer big"].flops_en_de == pytest.approx(84 * 3600 * 8 * 9.5e12, rel=0.02)

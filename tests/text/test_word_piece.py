import json
import os
import pickle
import subprocess
import sys
import unicodedata

import google_rules
import numpy as np
import pytest
from varied_lines import MARKS, characters_of, shares, varied_lines

from jaxformers.data import BundledPairs
from jaxformers.errors import DataError, UserError
from jaxformers.text import Tokenizer, WordPiece, load_tokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SMALL = [*SPECIAL, *"abcdefghinmt", *(f"##{c}" for c in "abcdefghinmt"), "the", "##ing", "İ", ","]


@pytest.fixture(scope="module")
def lines():
    return varied_lines(10_000)


@pytest.fixture(scope="module")
def text():
    pairs = BundledPairs("en-de", max_source_words=10).open()[:1500]
    return [side for pair in pairs for side in pair]


@pytest.fixture(scope="module")
def uncased(lines, text):
    return WordPiece.train([*text, *lines], 4000)


@pytest.fixture(scope="module")
def cased(lines, text):
    return WordPiece.train([*text, *lines], 4000, lowercase=False)


@pytest.fixture(scope="module")
def small():
    return WordPiece(SMALL)


def with_limit(tokenizer, longest_word):
    return WordPiece(tokenizer.vocabulary, tokenizer.lowercase, longest_word)


def tokens_of(tokenizer, text):
    return [tokenizer.vocabulary[i] for i in tokenizer.encode([text])[0]]


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("longest_word", [100, 200])
@pytest.mark.parametrize("case", ["uncased", "cased"])
def test_ids_equal_those_of_googles_rules_on_10_000_lines(request, lines, case, longest_word):
    tokenizer = with_limit(request.getfixturevalue(case), longest_word)
    ids = {token: index for index, token in enumerate(tokenizer.vocabulary)}
    assert tokenizer.lowercase is (case == "uncased")
    for line, row in zip(lines, tokenizer.encode(lines), strict=True):
        expected = google_rules.ids(line, ids, tokenizer.lowercase, longest_word)
        assert row == expected, ascii(line)


def test_the_lines_hold_every_kind_of_trouble(lines, uncased):
    assert min(shares(lines).values()) > 100
    rows_without_unk = [row for row in uncased.encode(lines) if row and uncased.unk_id not in row]
    assert len(rows_without_unk) > 3000
    assert uncased.encode(lines) != with_limit(uncased, 100).encode(lines)


@pytest.mark.parametrize("lowercase", [True, False])
def test_every_single_character_is_cut_as_google_does(lowercase):
    characters = [chr(code) for code in range(sys.maxunicode + 1)]
    texts = ["".join(f"x{c}y " for c in characters[i : i + 64]) for i in range(0, 0x30000, 64)]
    rules = WordPiece(SMALL, lowercase).rules
    for line in texts:
        actual = rules.words(line).split()
        expected = google_rules.words(line, lowercase)
        # Half a surrogate pair stands for itself there, for a non-character here.
        expected = [
            "x\U0010ffffy" if "\ud800" <= word[1:2] <= "\udfff" else word for word in expected
        ]
        assert actual == expected, ascii(line)


def test_a_word_is_unknown_beyond_the_limit_only():
    vocabulary = [*SPECIAL, "a", "##a"]
    for limit in (100, 200):
        tokenizer = WordPiece(vocabulary, longest_word=limit)
        at, beyond = tokenizer.encode(["a" * limit, "a" * (limit + 1)])
        assert at == [5] + [6] * (limit - 1)
        assert beyond == [tokenizer.unk_id]
    assert WordPiece(vocabulary).longest_word == 200


def test_the_longest_piece_wins_and_one_unknown_character_makes_the_word_unknown(small):
    assert tokens_of(small, "Thing thé, thez") == ["t", "##h", "##ing", "the", ",", "[UNK]"]
    assert tokens_of(small, "then") == ["the", "##n"]


def test_a_capital_sigma_at_the_end_of_a_word_becomes_a_final_one():
    tokenizer = WordPiece([*SPECIAL, "ο", "##δος", "##δοσ"])
    assert tokens_of(tokenizer, "ΟΔΟΣ") == ["ο", "##δος"]


def test_accents_can_stay_while_the_case_goes():
    tokenizer = WordPiece([*SPECIAL, "café", "cafe"], strip_accents=False)
    assert tokens_of(tokenizer, "CAFÉ cafe") == ["café", "cafe"]
    assert tokens_of(WordPiece([*SPECIAL, "中", "##文", "文"], split_chinese=False), "中文") == [
        "中",
        "##文",
    ]


def test_a_special_token_in_a_text_is_plain_characters_unless_masks_are_asked_for(small):
    text = "the [MASK], [SEP]"
    unknown = [small.unk_id]
    brackets = [*unknown, *small.encode(["mask"])[0], *unknown]
    the, comma = small.encode(["the"])[0], small.encode([","])[0]
    assert not set(SPECIAL[2:]) & set(tokens_of(small, text))
    assert small.encode(["the [MASK]"])[0] == the + brackets
    masked = small.encode_with_masks([text, "", "[MASK][MASK]", "a[MASK]"])
    assert masked[0] == [*the, small.mask_id, *comma, *small.encode(["[SEP]"])[0]]
    assert masked[1:] == [[], [small.mask_id] * 2, [*small.encode(["a"])[0], small.mask_id]]


def test_ids_of_spans_are_those_of_encode(lines, uncased, cased):
    for tokenizer in (uncased, cased):
        assert [s.ids for s in tokenizer.spans(lines[:3000])] == tokenizer.encode(lines[:3000])


@pytest.mark.slow
def test_a_span_of_the_text_gives_its_word_back(lines, uncased, cased):
    """A known piece is what the rules make of the part of the text that its span names."""
    checked = 0
    for tokenizer in (uncased, cased):
        for line, spans in zip(lines, tokenizer.spans(lines), strict=True):
            for index, start, end in zip(*spans, strict=True):
                token = tokenizer.vocabulary[index].removeprefix("##")
                word = tokenizer.rules.words(line[start:end]).replace(" ", "")
                if index == tokenizer.unk_id or _shares_a_character(spans, start, end):
                    continue
                assert word.replace("ς", "σ") == token.replace("ς", "σ"), ascii(line)
                checked += 1
    assert checked > 50_000


def _shares_a_character(spans, start, end):
    """Whether another piece lies in the same characters (Hangul comes apart, marks swap)."""
    return np.sum((spans.starts < end) & (spans.ends > start)) > 1


@pytest.mark.slow
def test_spans_lie_in_order_within_the_text(lines, uncased):
    swapping = {c for c in characters_of("Mc") if unicodedata.combining(c)}
    for line, spans in zip(lines, uncased.spans(lines), strict=True):
        assert np.all(spans.starts >= 0) and np.all(spans.starts < spans.ends)
        assert np.all(spans.ends <= len(line))
        if not swapping & set(line):
            assert np.all(np.diff(spans.starts) >= 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The thing", ["The", "t", "h", "ing"]),
        ("\tthe\u00a0\x00the,", ["the", "the", ","]),
        ("the\u0301, the", ["the\u0301", ",", "the"]),
        ("İgİ the", ["İ", "g", "İ", "the"]),
        ("t\u00adhe the", ["t\u00adhe", "the"]),
        ("THE\u0301\u0300\u200d the", ["THE\u0301\u0300", "the"]),
        ("中the", ["中", "the"]),
        ("zz the", ["zz", "the"]),
        ("", []),
    ],
)
def test_spans_are_characters_of_the_text_as_it_was(small, text, words):
    spans = small.spans([text])[0]
    assert [text[a:b] for a, b in zip(spans.starts, spans.ends, strict=True)] == words


def test_spans_follow_marks_that_change_places():
    # Both are kept (class Mc) and ordered by their combining classes, 224 behind 216.
    tokenizer = WordPiece([*SPECIAL, "a", "##\U0001d165", "##\u302e"])
    spans = tokenizer.spans(["a\u302e\U0001d165"])[0]
    assert [tokenizer.vocabulary[i] for i in spans.ids][1:] == ["##\U0001d165", "##\u302e"]
    assert spans.starts.tolist() == [0, 2, 1] and spans.ends.tolist() == [1, 3, 2]


def test_decoding_joins_pieces_and_ends_at_the_first_separator(small):
    the, thing = small.encode(["the"])[0], small.encode(["thing, nag"])[0]
    row = [small.cls_id, *the, small.mask_id, *thing, 999, -1, small.pad_id, small.sep_id, *the]
    assert small.decode([row, []]) == ["the thing, nag", ""]


def test_has_what_the_interface_asks_for(small):
    assert isinstance(small, Tokenizer)
    assert (small.pad_id, small.unk_id, small.cls_id, small.sep_id, small.mask_id) == (
        0,
        1,
        2,
        3,
        4,
    )
    assert (small.eos_id, small.start_id, small.vocab_size) == (3, 2, len(SMALL))
    assert small.continues.tolist() == [token.startswith("##") for token in SMALL]
    assert small.encode_target(["the"]) == small.encode(["the"])
    assert small.encode([]) == small.spans([]) == small.decode([]) == []


def test_a_trained_vocabulary_holds_its_text_without_unknowns(text):
    for lowercase in (True, False):
        tokenizer = WordPiece.train(text, 1000, lowercase)
        rows = tokenizer.encode(text)
        assert tokenizer.vocab_size == 1000
        assert list(tokenizer.vocabulary[:5]) == SPECIAL
        assert all(index > 4 for row in rows for index in row)
        assert sum(map(len, rows)) < 0.5 * sum(len(line) for line in text)


def test_training_twice_gives_the_same_vocabulary_even_in_another_process(text):
    code = (
        "import json, sys; from jaxformers.text import WordPiece;"
        "print(WordPiece.train(json.load(sys.stdin), 900).fingerprint)"
    )
    texts = text[:1000]
    result = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    first, second = (WordPiece.train(iter(texts), 900).fingerprint for _ in range(2))
    assert first == second == result.stdout.strip()


@pytest.mark.parametrize(("size", "word"), [(5, "smallest"), (20_000, "largest")])
def test_a_vocabulary_that_does_not_fit_names_one_that_does(text, size, word):
    with pytest.raises(UserError, match=rf"the {word} that works is [\d,]+") as error:
        WordPiece.train(text, size)
    works = int(str(error.value).rsplit(" ", 1)[1].replace(",", ""))
    assert WordPiece.train(text, works).vocab_size == works


def test_a_chinese_vocabulary_holds_every_character_once():
    characters = [chr(0x4E00 + i) for i in range(3000)]
    texts = ["".join(characters), "".join(characters[:1500]), "some words and more words " * 3]
    tokenizer = WordPiece.train(texts, 3034)
    assert tokenizer.unk_id not in tokenizer.encode(texts[0])[0]
    assert not [token for token in tokenizer.vocabulary if token[2:] in characters]
    small = WordPiece.train(texts, 2000)  # the most frequent first, merges of words beside them
    in_vocabulary = [i != small.unk_id for i in small.encode(texts[0])[0]]
    assert all(in_vocabulary[:1500]) and not all(in_vocabulary[1500:])
    assert small.encode("words")[0] == [small.vocabulary.index("words")]
    with pytest.raises(UserError, match=r"the smallest that works is 1,0\d\d$") as error:
        WordPiece.train(texts, 500)
    size = int(str(error.value).rsplit(" ", 1)[1].replace(",", ""))
    assert WordPiece.train(texts, size).vocab_size == size
    with pytest.raises(UserError, match="the largest that works is") as error:
        WordPiece.train(texts, 9000)
    size = int(str(error.value).rsplit(" ", 1)[1].replace(",", ""))
    assert WordPiece.train(texts, size).vocab_size == size


@pytest.mark.parametrize("texts", [[], ["", " \n\u200b"]])
def test_empty_text_is_refused(texts):
    with pytest.raises(DataError, match="no text"):
        WordPiece.train(texts, 100)


OPTIONS = [
    {},
    {"lowercase": False, "longest_word": 100},
    {"strip_accents": False, "split_chinese": False},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_saved_and_loaded_tokenizer_is_the_same(tmp_path, lines, options):
    tokenizer = WordPiece([*SMALL, "\u0301x", "##é"], **options)
    tokenizer.save(tmp_path / "new")
    for again in (load_tokenizer(tmp_path / "new"), pickle.loads(pickle.dumps(tokenizer))):
        assert isinstance(again, WordPiece)
        assert again.fingerprint == tokenizer.fingerprint
        assert again.encode(lines[:500]) == tokenizer.encode(lines[:500])


def test_each_option_and_each_piece_is_in_the_fingerprint():
    tokenizers = [WordPiece(SMALL, **options) for options in [*OPTIONS, {"longest_word": 100}]]
    tokenizers.append(WordPiece([*SMALL, "x"]))
    tokenizers.append(WordPiece([*SPECIAL, *reversed(SMALL[5:])]))
    assert len({tokenizer.fingerprint for tokenizer in tokenizers}) == len(tokenizers)
    assert WordPiece(SMALL, strip_accents=True).fingerprint == tokenizers[0].fingerprint


def test_googles_folder_needs_only_its_vocabulary(tmp_path):
    (tmp_path / "vocab.txt").write_bytes("\r\n".join(SMALL[:-2]).encode())
    tokenizer = load_tokenizer(tmp_path)
    assert list(tokenizer.vocabulary) == SMALL[:-2]
    assert tokenizer.lowercase and tokenizer.longest_word == 200
    (tmp_path / "vocab.txt").write_text("\n".join([*SMALL, "York"]))
    assert not load_tokenizer(tmp_path).lowercase


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_words_in_hugging_faces_folders_have_100_characters_at_most(tmp_path, name):
    (tmp_path / "vocab.txt").write_text("\n".join(SMALL) + "\n")
    (tmp_path / name).write_text("{}")
    assert load_tokenizer(tmp_path).longest_word == 100


def test_lines_that_name_no_piece_of_their_own_keep_their_ids(tmp_path):
    lines = ["\ufeff[PAD]", *SPECIAL[1:], "a", "", "b  ", "a", "##c"]
    (tmp_path / "vocab.txt").write_text("\n".join(lines) + "\n")
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.vocabulary == (*SPECIAL, "", "", "b", "a", "##c")
    assert tokenizer.encode(["a b ac"]) == [[8, 7, 8, 9]]
    assert tokenizer.decode([[5, 6, 8, 7]]) == ["a b"]
    tokenizer.save(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").fingerprint == tokenizer.fingerprint


def test_a_single_text_and_a_single_row_are_lists_of_one(small):
    assert small.encode("the, the") == small.encode(["the, the"])
    assert small.encode_with_masks("[MASK]") == [[small.mask_id]]
    assert small.spans("the thing")[0].ids == small.encode("the thing")[0]
    ids = small.encode("the thing")[0]
    assert small.decode(ids) == small.decode(np.array(ids)) == small.decode([ids])


@pytest.mark.parametrize("texts", [{"the": 1}, b"the", 5, None, ["the", None], [["the"]], {"the"}])
def test_what_is_no_text_and_no_list_of_texts_is_refused(small, texts):
    calls = (small.encode, small.encode_target, small.encode_with_masks, small.spans)
    for call in (*calls, lambda texts: WordPiece.train(texts, 10)):
        with pytest.raises(DataError, match="not a ") as error:
            call(texts)
        assert "\n" not in str(error.value)


def test_transformers_reads_a_saved_folder_and_agrees(tmp_path, text):
    transformers = pytest.importorskip("transformers")
    tokenizer = WordPiece.train(text, 1000, lowercase=False)
    tokenizer.save(tmp_path)
    peer = transformers.BertTokenizerFast.from_pretrained(tmp_path)
    assert peer(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text)
    ids = tokenizer.encode(text)
    assert peer.batch_decode(ids, clean_up_tokenization_spaces=False) == tokenizer.decode(ids)


PLAIN = "\n".join(SMALL)
DAMAGED = [
    ("vocab.txt", PLAIN.replace("[MASK]\n", ""), r"lacks the special tokens \[MASK\]"),
    ("vocab.txt", b"\xff\xfe", "not text in UTF-8"),
    ("tokenizer_config.json", "{", "not valid JSON"),
    ("tokenizer_config.json", "[1]", "must be a JSON object"),
    ("tokenizer_config.json", '{"do_lower_case": "yes"}', "'yes' cannot be the do_lower_case"),
    ("tokenizer_config.json", '{"max_input_chars_per_word": 0}', "0 cannot be"),
    ("tokenizer.json", "{}", "holds no model with a vocabulary"),
]


@pytest.mark.parametrize(("name", "content", "says"), DAMAGED)
def test_a_damaged_folder_is_refused_in_one_line(tmp_path, name, content, says):
    (tmp_path / "vocab.txt").write_text(PLAIN)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=says) as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_vocabulary_says_so(tmp_path):
    with pytest.raises(UserError, match=r"no WordPiece vocabulary .*vocab\.txt"):
        WordPiece.load(tmp_path)
    with pytest.raises(UserError, match=r"no tokenizer in .*vocab\.txt"):
        load_tokenizer(tmp_path)


def test_half_a_surrogate_pair_is_unknown_whatever_the_training_text():
    tokenizer = WordPiece.train(["a \ud800 b\udfff"] * 5, 9)
    assert tokenizer.encode(["\udfff a"])[0][0] == tokenizer.unk_id


def test_the_marks_of_the_lines_are_of_every_kind():
    assert {unicodedata.category(mark) for mark in MARKS} == {"Mn", "Me", "Mc"}

import pickle
import unicodedata

import pytest

from jaxformers.data import BundledPairs
from jaxformers.errors import DataError, UserError
from jaxformers.text import SentencePiece, Tokenizer, load_tokenizer, plain_text
from jaxformers.text.sentence_piece import _cut


@pytest.fixture(scope="module")
def text():
    pairs = BundledPairs("en-de", max_source_words=10).open()[:1500]
    return [side for pair in pairs for side in pair]


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer(request, text):
    return SentencePiece.train(text, 500, request.param)


def test_training_twice_gives_the_same_model(text):
    for kind in ("bpe", "unigram"):
        first, second = (SentencePiece.train(iter(text), 400, kind) for _ in range(2))
        assert first.fingerprint == second.fingerprint


def test_has_the_ids_that_the_models_rely_on(tokenizer):
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.vocab_size == 500
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 1, 2)
    assert tokenizer.start_id == tokenizer.pad_id


def test_decoding_gives_the_encoded_text_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text[:200])) == text[:200]


def test_ids_hold_no_special_tokens(tokenizer, text):
    assert all(index > 2 for row in tokenizer.encode(text) for index in row)


def test_an_ellipsis_and_typographic_quotes_survive():
    text = ["„Öffnen…“ – 20 °C"] * 5
    tokenizer = SentencePiece.train(text, 30, "bpe")
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_white_space_and_composition_do_not_matter(tokenizer):
    plain, odd = tokenizer.encode(["für alle", " fu\u0308r\u00a0 alle\n"])
    assert plain == odd


def test_decoding_ends_at_the_first_eos_and_drops_special_ids(tokenizer):
    ids = tokenizer.encode(["Open the file"])[0]
    row = [tokenizer.start_id, *ids, tokenizer.unk_id, 10_000, tokenizer.eos_id, *ids]
    assert tokenizer.decode([row, []]) == ["Open the file", ""]


def test_empty_texts_have_no_ids(tokenizer):
    assert tokenizer.encode(["", "  "]) == [[], []]
    assert tokenizer.encode([]) == []
    assert tokenizer.decode([]) == []


def test_saved_and_loaded_tokenizer_is_the_same(tokenizer, text, tmp_path):
    tokenizer.save(tmp_path / "new")
    for again in (
        load_tokenizer(tmp_path / "new"),
        SentencePiece.load(tmp_path / "new" / "tokenizer.model"),
        pickle.loads(pickle.dumps(tokenizer)),
    ):
        assert again.fingerprint == tokenizer.fingerprint
        assert again.encode(text[:20]) == tokenizer.encode(text[:20])


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("vocab_size", [5_000, 32_000])
def test_a_too_large_vocabulary_names_one_that_works(kind, vocab_size):
    text = ["the cat sat on the mat", "a dog and a cat"]
    with pytest.raises(UserError, match=r"the largest that works is (\d+)") as error:
        SentencePiece.train(text, vocab_size, kind)
    largest = int(str(error.value).rsplit(" ", 1)[1])
    assert SentencePiece.train(text, largest, kind).vocab_size == largest


def test_a_too_small_vocabulary_names_the_smallest_that_works():
    with pytest.raises(UserError, match="the smallest that works is"):
        SentencePiece.train(["the quick brown fox"], 5, "bpe")


def unlearned(tokenizer, characters):
    """Characters that do not come back from their ids."""
    return [c for c in characters if tokenizer.decode(tokenizer.encode(c)) != [c]]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("blank", [" ", ""], ids=["words", "one word"])
def test_long_lines_are_learned_to_their_last_character(kind, blank):
    rare = [chr(0x4E00 + i) for i in range(60)]
    document = blank.join([*["猫が寝る。"] * 4000, *rare])
    tokenizer = SentencePiece.train([document], 69, kind)
    assert len(document.encode()) > 60_000
    assert not unlearned(tokenizer, rare)
    assert not unlearned(SentencePiece.train(["abc", document], 72, kind), [*rare, "c"])


def test_lines_up_to_the_limit_are_not_cut():
    words = ["Wort"] * 1600
    assert list(_cut(" ".join(words))) == [" ".join(words)]
    cut = list(_cut(" ".join(words * 4)))
    assert " ".join(cut) == " ".join(words * 4)
    assert max(map(len, cut)) <= 8192 and len(cut) == 4


def test_characters_that_cannot_be_learned_cost_their_line_nothing_else():
    lines = ["rare ▅ xyz", "also\0 pqr", "plain"] * 3
    with pytest.warns(UserWarning, match=r"6 lines hold U\+0000 or U\+2585"):
        tokenizer = SentencePiece.train(lines, 24, "bpe")
    assert not unlearned(tokenizer, "xyzpqr")
    assert unlearned(tokenizer, "▅\0") == ["▅", "\0"]


@pytest.mark.slow
def test_every_other_character_of_unicode_can_be_learned():
    codes = [c for c in range(1, 0x30000) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
    for start in range(0, len(codes), 3000):
        lines = [plain_text(f"a{chr(code)}a") for code in codes[start : start + 3000]]
        lines = [line for line in lines if not {"\u2581", "\u2585"} & set(line)]
        size = len(set("".join(lines)) - {" "}) + 4
        tokenizer = SentencePiece.train(lines, size, "bpe")
        assert tokenizer.decode(tokenizer.encode(lines)) == lines


def test_half_a_surrogate_pair_is_read_as_the_replacement_character():
    tokenizer = SentencePiece.train(["a \ud83d b \udfff", "c"], 9, "bpe")
    assert tokenizer.encode("a \ud83d") == tokenizer.encode("a \ufffd")
    assert tokenizer.decode(tokenizer.encode("\udc00")) == ["\ufffd"]


def test_a_single_text_is_a_list_of_one(tokenizer):
    assert tokenizer.encode("Open the file") == tokenizer.encode(["Open the file"])
    ids = tokenizer.encode("Open the file")[0]
    assert tokenizer.decode(ids) == tokenizer.decode([ids]) == ["Open the file"]
    assert SentencePiece.train("abc abc", 8, "bpe").encode("abc")[0]


@pytest.mark.parametrize("texts", [{"a": 1}, b"a", 5, None, ["a", None]])
def test_what_is_no_text_and_no_list_of_texts_is_refused(tokenizer, texts):
    for call in (tokenizer.encode, tokenizer.encode_target):
        with pytest.raises(DataError, match="not a "):
            call(texts)
    with pytest.raises(DataError, match="not a "):
        SentencePiece.train(texts, 100)


@pytest.mark.parametrize("text", [[], ["", " \n"]])
def test_empty_text_is_refused(text):
    with pytest.raises(DataError, match="no text"):
        SentencePiece.train(text, 100)


def test_an_unknown_kind_is_refused():
    with pytest.raises((UserError, TypeError)):  # TypeError where types are checked
        SentencePiece.train(["text"], 100, "word")


def test_a_folder_without_a_tokenizer_names_what_was_looked_for(tmp_path):
    with pytest.raises(UserError, match=r"source\.spm.*vocab\.json.*tokenizer\.model"):
        load_tokenizer(tmp_path)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"junk")
    with pytest.raises(UserError, match="not a SentencePiece model"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match="no SentencePiece model at"):
        SentencePiece.load(tmp_path / "absent.model")

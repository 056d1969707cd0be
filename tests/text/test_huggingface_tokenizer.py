import copy
import json
import pickle
import random
import string
from pathlib import Path

import pytest
from etils import epath
from varied_lines import varied_lines

from jaxformers.errors import DataError, UserError
from jaxformers.text import (
    HuggingFaceTokenizer,
    Tokenizer,
    WordPiece,
    huggingface_files,
    load_tokenizer,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "fixtures" / "tokenizer_files.json").read_text())
TEXTS, PAIRS, CASES = GOLDEN["texts"], GOLDEN["pairs"], GOLDEN["cases"]
WORD_PIECE = {
    "vocab_txt",
    "blank_line",
    "repeated_piece",
    "repeated_later",
    "byte_order_mark",
    "carriage_returns",
    "trailing_blanks",
}


def write(folder, files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content.encode())
    return folder


@pytest.fixture
def tokenizer(tmp_path):
    return load_tokenizer(write(tmp_path / "bert", CASES["bert_flags"]["files"]))


def around(template, ids, second=None):
    """The ids and segments that an encoder reads."""
    if second is None:
        start, end = template.single
        return [*start, *ids, *end], [0] * (len(start) + len(ids) + len(end))
    start, middle, end = template.pair
    first_segment = [*start, *ids, *middle]
    second_segment = [*second, *end]
    return (
        first_segment + second_segment,
        [0] * len(first_segment) + [template.second_type] * len(second_segment),
    )


@pytest.mark.parametrize("name", CASES)
def test_ids_and_offsets_equal_those_of_transformers(name, tmp_path):
    case = CASES[name]
    tokenizer = load_tokenizer(write(tmp_path / name, case["files"]))
    assert isinstance(tokenizer, WordPiece if name in WORD_PIECE else HuggingFaceTokenizer)
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.encode(TEXTS) == case["ids"]
    spans = tokenizer.spans(TEXTS)
    assert [span.ids for span in spans] == case["ids"]
    offsets = [list(map(list, zip(span.starts, span.ends, strict=True))) for span in spans]
    assert offsets == case["offsets"]


@pytest.mark.parametrize("name", CASES)
def test_special_tokens_around_texts_equal_those_of_transformers(name, tmp_path):
    case = CASES[name]
    tokenizer = load_tokenizer(write(tmp_path / name, case["files"]))
    template = tokenizer.template
    single = [around(template, ids)[0] for ids in tokenizer.encode(TEXTS)]
    assert single == case["with_special"]
    first, second = (tokenizer.encode([pair[i] for pair in PAIRS]) for i in (0, 1))
    pairs = [around(template, a, b) for a, b in zip(first, second, strict=True)]
    assert [ids for ids, _ in pairs] == case["pairs"]
    assert [types for _, types in pairs] == case["types"]


@pytest.mark.parametrize("name", CASES)
def test_decoded_texts_and_saved_folders_are_the_same(name, tmp_path):
    case = CASES[name]
    tokenizer = load_tokenizer(write(tmp_path / name, case["files"]))
    tokenizer.save(tmp_path / "again")
    again = load_tokenizer(tmp_path / "again")
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert again.fingerprint == copy.fingerprint == tokenizer.fingerprint
    assert again.encode(TEXTS) == copy.encode(TEXTS) == case["ids"]
    assert again.template == tokenizer.template
    assert tokenizer.decode(case["ids"]) == case["decoded"]


@pytest.mark.parametrize("lowercase", [True, False])
def test_both_kinds_agree_on_characters_that_both_class_alike(lowercase, tmp_path):
    """The library's tables are of an older Unicode; it writes no final sigma."""
    lines = varied_lines(3000)
    WordPiece.train(lines, 3000, lowercase, longest_word=100).save(tmp_path)
    words = load_tokenizer(tmp_path)
    files = huggingface_files.read(epath.Path(tmp_path))
    library = HuggingFaceTokenizer(json.dumps(files.content), files.roles)
    characters = sorted(set("".join(lines)) - {"\u03a3"})
    probes = [f"x{character}y" for character in characters]
    pairs = zip(characters, words.encode(probes), library.encode(probes), strict=True)
    alike = {character for character, ours, theirs in pairs if ours == theirs}
    assert set(characters) & set(string.printable) <= alike
    assert len(alike) > 0.8 * len(characters)
    shared = [line for line in lines if alike.issuperset(line)]
    assert len(shared) > 2000 and words.encode(shared) == library.encode(shared)


def test_names_of_special_tokens_are_text_and_masks_are_read_on_demand(tokenizer):
    text = "the [SEP] [CLS][MASK], <extra>"
    plain = tokenizer.encode([text])[0]
    assert not {tokenizer.sep_id, tokenizer.cls_id, tokenizer.mask_id} & set(plain)
    assert tokenizer.vocabulary[plain[-1]] == "<extra>"
    masked = tokenizer.encode_with_masks(text)[0]
    assert masked.count(tokenizer.mask_id) == 1
    assert not {tokenizer.sep_id, tokenizer.cls_id} & set(masked)


def test_special_tokens_without_a_role_are_split_where_the_settings_say_so(tokenizer, tmp_path):
    files = dict(CASES["bert_flags"]["files"])
    settings = json.loads(files["tokenizer_config.json"]) | {"split_special_tokens": True}
    files["tokenizer_config.json"] = json.dumps(settings)
    splitting = load_tokenizer(write(tmp_path / "splitting", files))
    extra = tokenizer.vocabulary.index("<extra>")
    assert extra in tokenizer.encode("a <extra>")[0]
    assert extra not in splitting.encode("a <extra>")[0]
    assert splitting.encode("a <user>") == tokenizer.encode("a <user>")  # added, not special
    assert splitting.fingerprint != tokenizer.fingerprint


def test_a_mask_takes_in_the_blank_before_it_where_its_token_says_so(tmp_path):
    tokenizer = load_tokenizer(write(tmp_path / "roberta", CASES["roberta_added"]["files"]))
    masked = tokenizer.encode_with_masks(["the <mask> file", "the<mask> file"])
    assert masked[0] == masked[1]
    assert tokenizer.mask_token == "<mask>" and tokenizer.mask_id in masked[0]


def test_pieces_within_words_are_marked(tokenizer, tmp_path):
    assert [tokenizer.vocabulary[i] for i in (57, 58)] == ["the", "user"]
    assert tokenizer.continues.tolist() == [p.startswith("##") for p in tokenizer.vocabulary]
    roberta = load_tokenizer(write(tmp_path / "roberta", CASES["roberta"]["files"]))
    ids = roberta.encode("the file")[0]
    starts = [roberta.vocabulary[i] for i in ids if not roberta.continues[i]]
    assert starts and all(token.startswith("Ġ") for token in starts)


def test_half_a_surrogate_pair_is_read_as_the_replacement_character(tokenizer):
    assert tokenizer.encode("a \ud83d b") == tokenizer.encode("a \ufffd b")
    assert tokenizer.spans("a \ud83d b")[0].starts.tolist() == [0, 4]


def test_a_panic_of_the_library_is_one_line(tmp_path):
    """As transformers does, it panics where tokens of white space claim the same blanks."""
    folder = write(tmp_path / "folder", CASES["vocab_txt"]["files"])
    flags = {"normalized": False, "single_word": False, "special": False}
    tokens = {
        "74": flags | {"content": "x ", "lstrip": False, "rstrip": True},
        "75": flags | {"content": "  ", "lstrip": True, "rstrip": False},
    }
    write(folder, {"tokenizer_config.json": json.dumps({"added_tokens_decoder": tokens})})
    tokenizer = load_tokenizer(folder)
    for call in (tokenizer.encode, tokenizer.spans):
        with pytest.raises(
            UserError, match="the tokenizers library cannot cut these texts"
        ) as error:
            call(["x \t    the"])
        assert "\n" not in str(error.value)


def test_tokenizer_json_comes_before_a_sentencepiece_model(tmp_path):
    folder = write(tmp_path / "folder", CASES["unigram"]["files"])
    (folder / "tokenizer.model").write_bytes(b"")
    assert isinstance(load_tokenizer(folder), HuggingFaceTokenizer)


def changed(**changes):
    files = dict(CASES["bert_added"]["files"])
    content = json.loads(files["tokenizer.json"])
    return files | {"tokenizer.json": json.dumps(content | changes)}


MODEL = json.loads(CASES["bert_added"]["files"]["tokenizer.json"])["model"]
BYTE_PAIRS = CASES["vocab_and_merges"]["files"]
SEQUENCE = [{"Sequence": {"id": "B", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
REFUSED = [
    (changed(model=None), r"tokenizer\.json holds no model"),
    (changed(model={"type": "BPE", "vocab": {}, "merges": [], "dropout": 0.1}), r"model\.dropout"),
    (changed(normalizer={"type": "Own"}), "the tokenizers library cannot use it"),
    (changed(model=MODEL | {"vocab": {"a": 0}}), "cannot use it|has the id"),
    (changed(post_processor={"type": "Own"}), "cannot use it"),
    (
        changed(
            post_processor={
                "type": "TemplateProcessing",
                "single": [{"Sequence": {"id": "A", "type_id": 0}}],
                "pair": SEQUENCE,
                "special_tokens": {},
            }
        ),
        "post_processor arranges",
    ),
    (changed(model=MODEL | {"vocab": [1]}), r"tokenizer\.json holds no model"),
    (changed(model=MODEL | {"vocab": {"[PAD]": "x"}}), r"tokenizer\.json holds no model"),
    (changed(added_tokens=[{"content": "x", "id": "y"}]), "'y' cannot be the id of the token 'x'"),
    (changed(model=MODEL | {"vocab": {"[PAD]": 2**31}}), r"tokenizer\.json holds no model"),
    (changed(added_tokens=[{"content": "x", "id": 900}]), "'x' has the id 900, but"),
    (
        CASES["repeated_later"]["files"] | {"added_tokens.json": '{"<user>": 75}'},
        "'<user>' has the id 75, but .* gives it 74; give each id before it a token of its own",
    ),
    (changed(added_tokens=[{"id": 3}]), "an added token has no content"),
    (
        changed(added_tokens=[{"content": "x", "id": 81, "lstrip": "no"}]),
        "flags of the token 'x' are not true or false",
    ),
    (
        {
            "vocab.txt": "a\n",
            "tokenizer_config.json": '{"tokenizer_class": "BertJapaneseTokenizer"}',
        },
        "BertJapaneseTokenizer with a vocab.txt",
    ),
    (BYTE_PAIRS | {"tokenizer_config.json": '{"tokenizer_class": "GPT2Tokenizer"}'}, "a GPT2Token"),
    (BYTE_PAIRS | {"vocab.json": '{"a": 0}'}, r"vocab\.json lacks the special tokens </s>, <pad>"),
    (BYTE_PAIRS | {"vocab.json": '{"a": 4000000000}'}, r"vocab\.json must be a table of tokens"),
    (BYTE_PAIRS | {"merges.txt": "x\n"}, r"merges\.txt does not fit"),
    (
        changed() | {"tokenizer_config.json": '{"do_lower_case": "yes"}'},
        "'yes' cannot be the do_lower_case",
    ),
    (changed() | {"tokenizer.json": "{"}, "not valid JSON"),
]


@pytest.mark.parametrize(("files", "message"), REFUSED)
def test_what_cannot_be_obeyed_is_refused_in_one_line(files, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        load_tokenizer(write(tmp_path / "folder", files))
    assert "\n" not in str(error.value)


def test_settings_come_before_the_fields_of_the_normalizer(tmp_path):
    model = {name: MODEL[name] for name in ("vocab", "max_input_chars_per_word")}  # as in 2019
    normalizer = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
    normalizer |= {"strip_accents": None, "lowercase": False}
    files = changed(model=model, normalizer=normalizer)
    texts = ["Open THE"]
    folder = write(tmp_path / "folder", {"tokenizer.json": files["tokenizer.json"]})
    assert load_tokenizer(folder).unk_id in load_tokenizer(folder).encode(texts)[0]
    settings = '{"do_lower_case": true}'
    write(folder, {"tokenizer_config.json": settings})
    assert load_tokenizer(folder).encode(texts) == [[60, 57]]
    generic = '{"do_lower_case": true, "tokenizer_class": "PreTrainedTokenizerFast"}'
    write(folder, {"tokenizer_config.json": generic})
    assert load_tokenizer(folder).encode(texts) != [[60, 57]]


def test_a_folder_without_a_mask_token_refuses_masks(tmp_path):
    files = dict(CASES["normalizer_fields"]["files"])
    content = json.loads(files["tokenizer.json"])
    del content["model"]["vocab"]["[MASK]"]
    tokens = [t for t in content["added_tokens"] if t["content"] != "[MASK]"]
    files["tokenizer.json"] = json.dumps(content | {"added_tokens": tokens})
    tokenizer = load_tokenizer(write(tmp_path / "folder", files))
    with pytest.raises(DataError, match="no mask_token"):
        tokenizer.encode_with_masks(["[MASK]"])


def test_a_word_piece_refuses_the_files_that_it_cannot_obey(tmp_path):
    folder = write(tmp_path / "folder", CASES["added_tokens_json"]["files"])
    with pytest.raises(UserError, match="added tokens, which a WordPiece cannot obey"):
        WordPiece.load(folder)


VALUES = [None, True, -1, 3, 2**31, 1.5, float("nan"), "", "x", "[SEP]", [], {}, [[]], {"a": 1}]


def corrupted(content, rng):
    """`content` with a value of its JSON, or some of its bytes, replaced or left out."""
    if rng.random() < 0.3:
        start = rng.randrange(len(content))
        return content[:start] + rng.choice(["", "{", content[start + rng.randrange(40) :]])
    value = json.loads(content)
    parent = value
    while True:
        key = rng.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
        if not parent[key] or not isinstance(parent[key], dict | list) or rng.random() < 0.4:
            break
        parent = parent[key]
    if rng.random() < 0.3:
        del parent[key]
    else:
        parent[key] = copy.deepcopy(rng.choice(VALUES))
    return json.dumps(value)


@pytest.mark.slow
def test_corrupted_files_are_read_or_refused_in_one_line(tmp_path):
    rng, refused = random.Random(0), 0
    for number in range(600):
        files = dict(CASES[rng.choice(list(CASES))]["files"])
        name = rng.choice([name for name in files if name.endswith(".json")])
        files[name] = corrupted(files[name], rng)
        try:
            tokenizer = load_tokenizer(write(tmp_path / str(number), files))
            tokenizer.decode(tokenizer.encode(TEXTS))
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert 100 < refused < 500

"""The files of Hugging Face's tokenizers, merged into one `tokenizer.json`.

Older files add to `tokenizer.json` or replace it: `vocab.txt` (BERT),
`vocab.json` with `merges.txt` (RoBERTa), `added_tokens.json`, `special_tokens_map.json` and
`tokenizer_config.json`. Their order of precedence is that of transformers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import tokenizers
from etils import epath
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from jaxformers.errors import UserError
from jaxformers.text import added_tokens, word_piece_files
from jaxformers.text.added_tokens import LARGEST_ID, AddedToken
from jaxformers.text.json_files import read_json, read_lines, read_optional_json
from jaxformers.text.word_piece_files import (
    MODEL_FILE,
    SETTINGS_FILE,
    VOCABULARY_FILE,
    tokenizer_class,
)

BPE_FILE, MERGES_FILE = "vocab.json", "merges.txt"
GENERIC_CLASSES = ("PreTrainedTokenizer", "TokenizersBackend")  # they go by tokenizer.json alone
ROBERTA_CLASSES = ("", "RobertaTokenizer")
BERT_ROLES = dict(unk="[UNK]", sep="[SEP]", pad="[PAD]", cls="[CLS]", mask="[MASK]")
ROBERTA_ROLES = dict(unk="<unk>", sep="</s>", pad="<pad>", cls="<s>", mask="<mask>")
WORD_PIECE_DEFAULTS = dict(
    type="WordPiece",
    unk_token="[UNK]",
    continuing_subword_prefix="##",
    max_input_chars_per_word=word_piece_files.HUGGINGFACE_LONGEST_WORD,
)
# A field of tokenizer_config.json, the component of tokenizer.json that it overrides, its type,
# its field there.
OVERRIDES: dict[str, tuple[str, str, str]] = {
    "do_lower_case": ("normalizer", "BertNormalizer", "lowercase"),
    "strip_accents": ("normalizer", "BertNormalizer", "strip_accents"),
    "tokenize_chinese_chars": ("normalizer", "BertNormalizer", "handle_chinese_chars"),
    "add_prefix_space": ("pre_tokenizer", "ByteLevel", "add_prefix_space"),
    "trim_offsets": ("post_processor", "RobertaProcessing", "trim_offsets"),
}


@dataclass(frozen=True)
class TokenizerFiles:
    """What the files of a folder state about its tokenizer."""

    content: dict[str, Any]
    """`tokenizer.json` with all added tokens, and with what the settings override."""
    roles: dict[str, str]
    """Special tokens by role: "unk", "sep", "pad", "cls", "mask", perhaps "bos" and "eos"."""
    settings: dict[str, Any]
    """`tokenizer_config.json`."""


def needs_tokenizers_library(folder: epath.Path) -> bool:
    """Whether the files in `folder` state more than a `WordPiece` of `vocab.txt` can obey."""
    if (folder / MODEL_FILE).exists():
        return True
    if not (folder / VOCABULARY_FILE).exists():
        return (folder / BPE_FILE).exists() and (folder / MERGES_FILE).exists()
    names = set(added_tokens.read(folder, {}))
    roles = added_tokens.read_roles(folder)
    names |= {token.content for token in added_tokens.extra_special_tokens(folder)}
    renamed = any(BERT_ROLES.get(r, t.content) != t.content for r, t in roles.items())
    return renamed or not names <= set(BERT_ROLES.values())


def read(folder: epath.Path) -> TokenizerFiles:
    """Merges the files in `folder`.

    Raises:
        UserError: a file is missing or damaged, or states what is not supported.
    """
    stated = added_tokens.read_roles(folder)
    names = {role: token.content for role, token in stated.items()}
    if (folder / MODEL_FILE).exists():
        content = read_json(folder / MODEL_FILE)
    elif (folder / VOCABULARY_FILE).exists():
        content = _bert_content(folder, BERT_ROLES | names)
    else:
        content = _roberta_content(folder, ROBERTA_ROLES | names)
    content = content | {"model": _checked_model(content, folder / MODEL_FILE)}
    settings = read_optional_json(folder / SETTINGS_FILE)
    if tokenizer_class(folder) not in GENERIC_CLASSES:
        content = _overridden(content, settings, folder / SETTINGS_FILE)
    tokens = added_tokens.read(folder, content)
    vocabulary = _model_ids(content)
    for defaults in (BERT_ROLES, ROBERTA_ROLES):
        usual = {r: n for r, n in defaults.items() if n in tokens or n in vocabulary}
        names = usual | names
    special = [stated.get(role) or AddedToken(name, special=True) for role, name in names.items()]
    special += added_tokens.extra_special_tokens(folder)
    tokens = added_tokens.with_ids(tokens, special, vocabulary)
    return TokenizerFiles(content | {"added_tokens": tokens}, names, settings)


def _bert_content(folder: epath.Path, roles: dict[str, str]) -> dict[str, Any]:
    """BERT's tokenizer over `vocab.txt`; of a repeated piece the last id counts."""
    vocabulary, options = word_piece_files.read(folder)
    ids = {token: index for index, token in enumerate(vocabulary)}
    _check_special_tokens(ids, roles, folder / VOCABULARY_FILE)
    tokenizer = tokenizers.Tokenizer(
        models.WordPiece(
            ids, unk_token=roles["unk"], max_input_chars_per_word=options["longest_word"]
        )
    )
    tokenizer.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=options.get("split_chinese", True),
        strip_accents=options.get("strip_accents"),
        lowercase=options["lowercase"],
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    sep, cls = ((roles[role], ids[roles[role]]) for role in ("sep", "cls"))
    tokenizer.post_processor = processors.BertProcessing(sep, cls)
    return json.loads(tokenizer.to_str())


def _roberta_content(folder: epath.Path, roles: dict[str, str]) -> dict[str, Any]:
    """RoBERTa's byte-level byte pairs over `vocab.json` and `merges.txt`."""
    if (name := tokenizer_class(folder)) not in ROBERTA_CLASSES:
        raise UserError(
            f"{folder} has a {name} of {BPE_FILE} and {MERGES_FILE}, which do not state how it "
            f"splits text: save it with a {MODEL_FILE} (transformers' fast tokenizers write one)"
        )
    ids, lines = read_json(folder / BPE_FILE), read_lines(folder / MERGES_FILE)
    _check_special_tokens(ids, roles, folder / BPE_FILE)
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    try:
        tokenizer = tokenizers.Tokenizer(models.BPE(ids, merges))
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder / MERGES_FILE} does not fit {BPE_FILE}: {reason:.200}") from None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    sep, cls = ((roles[role], ids[roles[role]]) for role in ("sep", "cls"))
    tokenizer.post_processor = processors.RobertaProcessing(sep, cls, add_prefix_space=False)
    return json.loads(tokenizer.to_str())


def _check_special_tokens(ids: dict[str, Any], roles: dict[str, str], file: epath.Path) -> None:
    if not _is_vocabulary(ids):
        raise UserError(f"{file} must be a table of tokens and their ids")
    missing = {roles[role] for role in ("unk", "sep", "pad", "cls")} - set(ids)
    if missing:
        raise UserError(f"{file} lacks the special tokens {', '.join(sorted(missing))}")


def _checked_model(content: dict[str, Any], file: epath.Path) -> dict[str, Any]:
    """The model of `tokenizer.json`, with what files of 2019 leave out."""
    model = content.get("model")
    if not isinstance(model, dict) or not _is_vocabulary(model.get("vocab")):
        raise UserError(f"{file} holds no model with a vocabulary (model.vocab)")
    if model.get("dropout"):
        raise UserError(f"{file}: model.dropout cuts words at random; set it to null")
    # Only WordPiece limits the length of words.
    is_word_piece = "max_input_chars_per_word" in model or model.get("type") == "WordPiece"
    return (WORD_PIECE_DEFAULTS if is_word_piece else {}) | model


def _is_vocabulary(vocabulary: Any) -> bool:
    """Whether it is a table of ids, or Unigram's list of pairs (token, score)."""
    if isinstance(vocabulary, dict):
        ids = vocabulary.values()
        return all(type(index) is int and 0 <= index <= LARGEST_ID for index in ids)
    return isinstance(vocabulary, list) and all(
        isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)
        for entry in vocabulary
    )


def _model_ids(content: dict[str, Any]) -> dict[str, int]:
    """The ids of the model's pieces, without those of added tokens."""
    vocabulary = content["model"]["vocab"]
    if isinstance(vocabulary, dict):
        return vocabulary
    return {token: index for index, (token, _) in enumerate(vocabulary)}


def _overridden(
    content: dict[str, Any], settings: dict[str, Any], file: epath.Path
) -> dict[str, Any]:
    """`content` with the fields that `tokenizer_config.json` states for its class."""
    for name, (component, kind, field) in OVERRIDES.items():
        current = content.get(component)
        if name not in settings or not isinstance(current, dict) or current.get("type") != kind:
            continue
        value = settings[name]
        if type(value) is not bool and not (value is None and name == "strip_accents"):
            raise UserError(f"{file}: {value!r} cannot be the {name} of a tokenizer")
        content = content | {component: current | {field: value}}
    return content

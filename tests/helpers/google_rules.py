"""The rules of BERT's tokenizer, stated a second time and as plainly as possible: one character
at a time, no tables, no library. Slow, and the measure of `WordPiece`."""

import unicodedata

PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


def chinese(character):
    code = ord(character)
    return (
        0x4E00 <= code <= 0x9FFF
        or 0x3400 <= code <= 0x4DBF
        or 0x20000 <= code <= 0x2A6DF
        or 0x2A700 <= code <= 0x2B73F
        or 0x2B740 <= code <= 0x2B81F
        or 0x2B820 <= code <= 0x2CEAF
        or 0xF900 <= code <= 0xFAFF
        or 0x2F800 <= code <= 0x2FA1F
    )


def cleaned(text):
    result = ""
    for character in text:
        category = unicodedata.category(character)
        if character in " \t\n\r" or category == "Zs":
            result += " "
        elif character in "\0\ufffd" or category == "Cc" or category == "Cf":
            continue
        elif chinese(character):
            result += " " + character + " "
        else:
            result += character
    return result


def without_accents(word):
    result = ""
    for character in unicodedata.normalize("NFD", word):
        if unicodedata.category(character) != "Mn":
            result += character
    return result


def split_at_punctuation(word):
    tokens, token = [], ""
    for character in word:
        if character in PUNCTUATION or unicodedata.category(character)[0] == "P":
            tokens += [token, character]
            token = ""
        else:
            token += character
    return [token for token in [*tokens, token] if token]


def words(text, lowercase):
    result = []
    for word in cleaned(text).split():
        if lowercase:
            word = without_accents(word.lower())
        result += split_at_punctuation(word)
    return result


def pieces(word, vocabulary, longest_word):
    if len(word) > longest_word:
        return ["[UNK]"]
    tokens, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            token = ("##" if start else "") + word[start:end]
            if token in vocabulary:
                break
        else:
            return ["[UNK]"]
        tokens.append(token)
        start = end
    return tokens


def ids(text, vocabulary, lowercase, longest_word):
    """`vocabulary`: a dict from pieces to ids."""
    return [
        vocabulary[token]
        for word in words(text, lowercase)
        for token in pieces(word, vocabulary, longest_word)
    ]

"""Where the vocabulary of a run comes from."""

import pytest

from jaxformers.errors import ConfigError
from jaxformers.tasks.vocabulary import run_tokenizer, word_pieces
from jaxformers.text import WordPiece

TEXTS = ["the cat sat on the mat"]


def weights_with(place, tokenizer):
    """A run's folder with the weights' own vocabulary."""
    tokenizer.save(place / "model")
    (place / "model" / "config.json").write_text("{}")
    return str(place)


def test_it_is_the_named_one_else_that_of_the_weights_else_trained(tmp_path):
    learned = WordPiece.train(TEXTS, 26)
    weights = weights_with(tmp_path / "run", learned)
    WordPiece(learned.vocabulary, lowercase=False).save(tmp_path / "named")
    named = word_pieces(str(tmp_path / "named"), weights, TEXTS, 24)
    assert (named.vocab_size, named.lowercase) == (26, False)
    assert word_pieces(None, weights, TEXTS, 24).fingerprint == learned.fingerprint
    assert word_pieces(None, None, TEXTS, 24).vocab_size == 24


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda pieces: (*pieces[:5], pieces[6], pieces[5], *pieces[7:]), "token 5 is '##c' and not '##a'"),
        (lambda pieces: pieces[:-1], "token 25 is missing and not"),
        (lambda pieces: (*pieces, "dog"), "token 26 is 'dog' and not missing"),
    ],
    ids=["other order", "shorter", "longer"],
)
def test_a_named_one_that_differs_from_that_of_the_weights_is_refused(change, said, tmp_path):
    learned = WordPiece.train(TEXTS, 26)
    weights = weights_with(tmp_path / "run", learned)
    WordPiece(change(learned.vocabulary)).save(tmp_path / "named")
    with pytest.raises(ConfigError, match=said) as error:
        word_pieces(str(tmp_path / "named"), weights, TEXTS, 24)
    assert "\n" not in str(error.value)


def test_weights_without_a_vocabulary_take_any(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "config.json").write_text("{}")
    WordPiece.train(TEXTS, 25).save(tmp_path / "named")
    weights, named = str(tmp_path / "weights"), str(tmp_path / "named")
    assert word_pieces(named, weights, TEXTS, 24).vocab_size == 25


def test_one_of_another_size_than_the_models_is_not_kept_in_the_run(tmp_path):
    def opened(size):
        return run_tokenizer(tmp_path, 0, 24, lambda: WordPiece.train(TEXTS, size))

    with pytest.raises(ConfigError, match="has 25 tokens but the model 24"):
        opened(25)
    assert opened(24).vocab_size == 24

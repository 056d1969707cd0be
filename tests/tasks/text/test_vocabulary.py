"""Where the vocabulary of a run comes from."""

import json

import pytest
from etils import epath

from jaxformers.errors import ConfigError, UserError
from jaxformers.tasks.text.vocabulary import run_tokenizer, word_pieces
from jaxformers.text import HuggingFaceTokenizer, WordPiece, huggingface_files, load_tokenizer

TEXTS = ["the cat sat on the mat"]


def weights_with(folder, tokenizer):
    """A run's folder with the weights' own vocabulary."""
    tokenizer.save(folder / "model")
    (folder / "model" / "config.json").write_text("{}")
    return str(folder)


def test_it_is_the_named_one_else_that_of_the_weights_else_trained(tmp_path):
    learned = WordPiece.train(TEXTS, 26)
    weights = weights_with(tmp_path / "run", learned)
    WordPiece(learned.vocabulary, lowercase=False).save(tmp_path / "named")
    named = word_pieces(str(tmp_path / "named"), weights, TEXTS, 24)
    assert (named.vocab_size, named.lowercase) == (26, False)
    assert word_pieces(None, weights, TEXTS, 24).fingerprint == learned.fingerprint
    assert word_pieces(None, None, TEXTS, 24).vocab_size == 24


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tokens: (*tokens[:5], tokens[6], tokens[5], *tokens[7:]),
            "token 5 is '##c' and not '##a'",
        ),
        (lambda tokens: tokens[:-1], "token 25 is missing and not"),
        (lambda tokens: (*tokens, "dog"), "token 26 is 'dog' and not missing"),
    ],
    ids=["other order", "shorter", "longer"],
)
def test_a_named_one_that_differs_from_that_of_the_weights_is_refused(change, message, tmp_path):
    learned = WordPiece.train(TEXTS, 26)
    weights = weights_with(tmp_path / "run", learned)
    WordPiece(change(learned.vocabulary)).save(tmp_path / "named")
    with pytest.raises(ConfigError, match=message) as error:
        word_pieces(str(tmp_path / "named"), weights, TEXTS, 24)
    assert "\n" not in str(error.value)


def test_weights_without_a_vocabulary_take_any(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "config.json").write_text("{}")
    WordPiece.train(TEXTS, 25).save(tmp_path / "named")
    weights, named = str(tmp_path / "weights"), str(tmp_path / "named")
    assert word_pieces(named, weights, TEXTS, 24).vocab_size == 25


def of_the_run(folder, size, lowercase=True):
    return run_tokenizer(folder, 0, size, lambda: WordPiece.train(TEXTS, 24, lowercase))


def test_one_of_another_size_than_the_models_is_refused_and_not_kept(tmp_path):
    with pytest.raises(ConfigError, match="has 24 tokens but the model 25"):
        of_the_run(tmp_path, 25)
    assert not list(tmp_path.iterdir())


def with_added_token(folder, **changes):
    """Weights' folder with a `tokenizer.json` of one added token."""
    WordPiece.train(TEXTS, 24).save(folder / "words")
    (folder / "words" / "added_tokens.json").write_text('{"<cat>": 24}')
    files = huggingface_files.read(epath.Path(folder / "words"))
    content = files.content | changes
    HuggingFaceTokenizer(json.dumps(content), files.roles).save(folder / "model")
    (folder / "model" / "config.json").write_text("{}")
    return str(folder)


def test_a_run_from_weights_with_added_tokens_and_spare_rows_takes_their_tokenizer(tmp_path):
    weights = with_added_token(tmp_path / "weights")
    run = tmp_path / "run"
    tokenizer = run_tokenizer(
        run, 0, 32, lambda: word_pieces(None, weights, TEXTS, 32), spare_rows=True
    )
    assert tokenizer.encode("the <cat>") == [[*tokenizer.encode("the")[0], 24]]
    assert load_tokenizer(run / "tokenizer").fingerprint == tokenizer.fingerprint
    with pytest.raises(ConfigError, match="has 25 tokens but the model 24"):
        run_tokenizer(tmp_path / "b", 0, 24, lambda: tokenizer, spare_rows=True)


def test_a_tokenizer_that_arranges_texts_in_another_way_is_refused(tmp_path):
    weights = with_added_token(tmp_path / "weights", post_processor=None)
    with pytest.raises(UserError, match="post_processor of the tokenizer in") as error:
        word_pieces(None, weights, TEXTS, 24)
    assert "\n" not in str(error.value)


def test_a_run_keeps_its_own_from_the_first_checkpoint_on(tmp_path):
    assert of_the_run(tmp_path, 24).lowercase
    assert not of_the_run(tmp_path, 24, lowercase=False).lowercase
    (tmp_path / "checkpoints").mkdir()
    assert not of_the_run(tmp_path, 24).lowercase

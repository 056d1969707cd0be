"""Where the vocabulary of a run comes from."""

from jaxformers.tasks.vocabulary import word_pieces
from jaxformers.text import WordPiece

TEXTS = ["the cat sat on the mat"]


def test_it_is_the_named_one_else_that_of_the_weights_else_trained(tmp_path):
    model = tmp_path / "run" / "model"
    WordPiece.train(TEXTS, 26).save(model)
    (model / "config.json").write_text("{}")
    WordPiece.train(TEXTS, 25).save(tmp_path / "named")
    weights, named = str(tmp_path / "run"), str(tmp_path / "named")
    assert word_pieces(named, weights, TEXTS, 24).vocab_size == 25
    assert word_pieces(None, weights, TEXTS, 24).vocab_size == 26
    assert word_pieces(None, None, TEXTS, 24).vocab_size == 24

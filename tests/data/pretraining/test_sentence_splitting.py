import pytest

from jaxformers.data import split_sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["My dog is cute.", "He likes playing."],
        ["Is it?", "Yes!", "It is… ", "Really?!", "3 of them."],
        ["Mr. Smith met Dr. J. F. Kennedy in St. Louis.", "They talked."],
        ["The U.S. Senate has 100 members, e.g. Mrs. Fox.", "So it is."],
        ['"Did he say so?"', '"He did."', "(In so many words.)", "“Well.”", "‘It is.’"],
        ["It cost $3.50 in No. 5.", "And I.", "Émile came."],
        ["The end of www.example.com is near.", "Now."],
        ["no capital. so no end", ""],
        ["一。二。"],
        [],
    ],
)
def test_sentences_end_where_a_reader_ends_them(sentences):
    kept = [sentence.strip() for sentence in sentences if sentence]
    assert split_sentences(" ".join(sentences)) == kept


def test_white_space_alone_holds_no_sentence():
    assert split_sentences("  \n ") == []
    assert split_sentences("One.\n\nTwo.  Three.") == ["One.", "Two.", "Three."]


def test_nothing_of_the_text_is_lost():
    text = 'He (i.e. Mr. X.) said: "No. 5?" A. B. Cole left. Then... It ended.'
    assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())


def test_a_long_text_takes_time_in_proportion():
    text = "word " * 200_000 + "A. " * 100_000
    assert len(split_sentences(text)) >= 1

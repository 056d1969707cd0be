import pytest

from jaxformers.data import split_sentences
from jaxformers.data.pretraining.sentence_splitting import count_words


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
        ["Das ist gut.", "„Ja!“", "Über Łódź.", "Жил-был кот.", "Он спал.", "Ωραία.", "Ναι."],
        ["¿Qué?", "¡Sí!", "Bueno.", "« Oui ! »", "Non."],
        ["ذهب الولد.", "متى عاد؟", "لا أدري۔"],
        ["यह एक घर है।", "वह अच्छा है॥"],
        ["갔다.", "그리고 왔다.", "왜?"],
        ["სახლი დიდია.", "კატა სძინავს."],
        ["การทดสอบ ไม่มีจุด"],
        [],
    ],
)
def test_sentences_end_where_a_reader_ends_them(sentences):
    expected = [sentence.strip() for sentence in sentences if sentence]
    assert split_sentences(" ".join(sentences)) == expected


@pytest.mark.parametrize(
    "sentences",
    [
        ["今天天气很好。", "我们去公园！", "你来吗？", "好"],
        ["他说：“好的。”", "然后走了。", "（完。）", "真的？！", "是。"],
        ["今天天气很好.", "你好吗?", "好!", "版本3.5和A.B不变。"],
        ["「はい。」と言った。", "猫が寝る。", "『本。』", "終わり｡", "３．５倍です．", "以上"],
        ["他等……很久。", "走。"],
        ["ይህ ቤት ነው።", "ደህና፧"],
        ["कब?", "अब।", "हाँ।"],
    ],
)
def test_the_marks_of_a_script_end_sentences_without_white_space(sentences):
    joined = "".join(sentences)
    if sentences[0] == "कब?":  # a shared mark needs white space
        joined = joined.replace("?", "? ")
    assert split_sentences(joined) == sentences


def test_words_of_scripts_without_white_space_are_characters():
    assert count_words("four words in here") == 4
    assert count_words("今天天气") == count_words("เทส1") == 4
    assert count_words("Zug 今天") == 3 and count_words("") == 0


def test_white_space_alone_holds_no_sentence():
    assert split_sentences("  \n ") == []
    assert split_sentences("One.\n\nTwo.  Three.") == ["One.", "Two.", "Three."]


def test_nothing_of_the_text_is_lost():
    text = 'He (i.e. Mr. X.) said: "No. 5?" A. B. Cole left. Then... It ended.'
    assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())


def test_a_long_text_takes_time_in_proportion():
    text = "word " * 200_000 + "A. " * 100_000
    assert len(split_sentences(text)) >= 1

"""Sources of questions: what they read, and what they refuse in one line."""

import gzip
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxformers.data.text.questions import Questions
from jaxformers.data.text.squad import BundledQuestions, SquadJson, TfdsSquad
from jaxformers.errors import DataError

CONTEXT = "Rollo\u2019s people, the\u00a0Normans,\u202fcame from Denmark.\tThey stayed in Normandy."


def asked(number, answer="Denmark", **changes):
    start = CONTEXT.find(answer)
    question = {
        "id": f"q{number}",
        "question": "Where from?",
        "answers": [{"text": answer, "answer_start": start}],
    }
    return question | changes


def squad(*questions):
    return {
        "version": "1.1",
        "data": [{"title": "T", "paragraphs": [{"context": CONTEXT, "qas": questions}]}],
    }


def flat(number, answer="Denmark", **changes):
    """A question in Hugging Face's form."""
    answers = {"text": [answer], "answer_start": [CONTEXT.find(answer)]}
    question = {"id": f"q{number}", "title": "T", "context": CONTEXT, "question": "Where from?"}
    return question | {"answers": answers} | changes


def written(path, content):
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def message(config):
    with pytest.raises(DataError) as error:
        config.open()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["train-v1.1.json", "train-v1.1.json.gz"])
def test_a_file_of_squad_is_read_in_its_order(tmp_path, name):
    path = written(tmp_path / name, squad(asked(0), asked(1, "Normandy")))
    questions = SquadJson(path).open()
    assert [q.id for q in questions] == ["q0", "q1"]
    assert questions[1].answers == ("Normandy",)
    assert questions[1].context[questions[1].starts[0] :].startswith("Normandy")
    assert (questions[0].title, questions[0].impossible) == ("T", False)
    assert questions[0].context is questions[1].context
    assert not questions.some_impossible
    assert questions.fingerprint["questions"] == 2


def without(question, key):
    return {name: value for name, value in question.items() if name != key}


FLAT = [flat(0), flat(1, "Normandy"), flat(2, answers={"text": [], "answer_start": []})]


@pytest.mark.parametrize(
    "content",
    [
        FLAT,
        {"data": FLAT},
        "\n".join(map(json.dumps, FLAT)),
        "\n\n".join(map(json.dumps, FLAT)) + "\n",
    ],
    ids=["list", "data", "lines", "blank lines"],
)
def test_hugging_faces_flat_form_is_read_in_each_of_its_files(tmp_path, content):
    questions = SquadJson(written(tmp_path / "train.json", content)).open()
    assert [q.id for q in questions] == ["q0", "q1", "q2"]
    assert [q.impossible for q in questions] == [False, False, True]
    assert questions[1].answers == ("Normandy",) and questions.labelled
    nested = squad(asked(0), asked(1, "Normandy"), asked(2, answers=[], is_impossible=True))
    same = SquadJson(written(tmp_path / "nested.json", nested)).open()
    assert same.fingerprint["content"] == questions.fingerprint["content"]


def test_one_question_alone_in_the_flat_form(tmp_path):
    (question,) = SquadJson(written(tmp_path / "one.jsonl", flat(0))).open()
    assert question.answers == ("Denmark",)


def test_ids_may_be_whole_numbers(tmp_path):
    for content in (squad(asked(0, id=7), asked(1, id=8)), [flat(0, id=7), flat(1, id=8)]):
        questions = SquadJson(written(tmp_path / "train.json", content)).open()
        assert [q.id for q in questions] == ["7", "8"]


def test_questions_without_answers_have_no_labels(tmp_path):
    nested = squad(without(asked(0), "answers"), without(asked(1), "answers"))
    for content in (nested, [without(flat(0), "answers")]):
        questions = SquadJson(written(tmp_path / "test.json", content)).open()
        assert not questions.labelled and not questions.some_impossible
        assert questions[0].impossible is None and questions[0].answers == ()


def test_all_annotated_answers_are_kept(tmp_path):
    answers = [{"text": t, "answer_start": CONTEXT.find(t)} for t in ("Denmark", "from Denmark")]
    path = written(tmp_path / "dev.json", squad(asked(0, answers=answers)))
    assert SquadJson(path).open()[0].answers == ("Denmark", "from Denmark")


def test_half_a_surrogate_pair_is_replaced_and_moves_no_offset(tmp_path):
    content = squad(asked(0, "nmark \ud83d", question="Where \ude00?", answers=[]))
    paragraph = content["data"][0]["paragraphs"][0]
    paragraph["context"] = "Denmark \ud83d too \U0001f600"
    paragraph["qas"][0]["answers"] = [{"text": "mark \ud83d", "answer_start": 3}]
    question = SquadJson(written(tmp_path / "cut.json", content)).open()[0]
    assert (
        question.context == "Denmark \ufffd too \U0001f600" and question.question == "Where \ufffd?"
    )
    assert question.answers == ("mark \ufffd",) and question.starts == (3,)


def test_a_question_of_squad_2_may_be_impossible(tmp_path):
    plausible = [{"text": "Denmark", "answer_start": 3}]
    none = asked(0, answers=[], is_impossible=True, plausible_answers=plausible)
    questions = SquadJson(written(tmp_path / "v2.json", squad(none, asked(1)))).open()
    assert questions[0].impossible
    assert questions[0].answers == ()
    assert questions.some_impossible


def test_an_answer_that_does_not_stand_at_its_offset_is_refused_with_the_question(tmp_path):
    wrong = asked(7, answers=[{"text": "Denmark", "answer_start": 3}])
    error = message(SquadJson(written(tmp_path / "train.json", squad(asked(0), wrong))))
    assert "question 'q7'" in error
    assert "'Denmark' does not stand at offset 3" in error
    assert "('lo\\u2019s pe' does)" in error
    behind = asked(7, answers=[{"text": "Denmark", "answer_start": 3_000}])
    assert "(nothing does)" in message(SquadJson(written(tmp_path / "t.json", squad(behind))))
    before = asked(7, answers=[{"text": "Normandy.", "answer_start": -9}])
    assert "offset -9" in message(SquadJson(written(tmp_path / "t.json", squad(before))))


def test_such_an_answer_is_skipped_and_counted_on_request(tmp_path):
    two = [{"text": "Denmark", "answer_start": k} for k in (3, CONTEXT.find("Denmark"))]
    wrong = asked(1, answers=two[:1])
    path = written(tmp_path / "train.json", squad(asked(0, answers=two), wrong, asked(2)))
    questions = SquadJson(path, mismatched="skip").open()
    assert [q.id for q in questions] == ["q0", "q2"]
    assert questions[0].starts == (CONTEXT.find("Denmark"),)
    assert questions.mismatched == 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"data": [', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ([1], "data[0] is no object"),
        ("5", "the file lacks 'data'"),
        ({"version": "1.1"}, "the file lacks 'data'"),
        ({"data": [{"title": "T"}]}, "data[0] lacks 'paragraphs'"),
        ({"data": [{"paragraphs": [{"qas": []}]}]}, "data[0].paragraphs[0] lacks 'context'"),
        (squad(without(asked(0), "id")), "data[0].paragraphs[0].qas[0] lacks 'id'"),
        (squad(asked(0), without(asked(1), "answers")), "'q1' has no answers, but others have"),
        ([flat(0, answers={"text": ["x"]})], "data[0].answers lacks 'answer_start'"),
        ([flat(0, answers={"text": ["x"], "answer_start": []})], "has 1 texts but 0 offsets"),
        ([flat(0, answers={"text": ["x"], "answer_start": ["1"]})], "answer_start is not a number"),
        ([flat(0, answers=[])], "data[0].answers is not an object"),
        ([flat(0, id=1.5)], "data[0].id is not a text"),
        ([flat(0, id=True)], "data[0].id is not a text"),
        (json.dumps(asked(0) | {"context": CONTEXT}) + "\n{", "x.json, line 2: not JSON, as the"),
        (squad(asked(0, question=5)), "qas[0].question is not a text"),
        (squad(asked(0, answers=[{"text": "x"}])), "answers[0] lacks 'answer_start'"),
        (squad(asked(0, answers=[{"text": "x", "answer_start": True}])), "is not a number"),
        (squad(asked(0, is_impossible="no")), "is_impossible is not true or false"),
        (squad(asked(0), asked(0)), "two questions have the id 'q0'"),
        (squad(asked(0, answers=[])), "question 'q0' has no answer"),
        ({"data": []}, "holds no question"),
    ],
)
def test_a_malformed_file_is_refused_with_the_place(tmp_path, content, problem):
    assert problem in message(SquadJson(written(tmp_path / "x.json", content)))


def test_a_missing_damaged_or_huge_file_is_refused(tmp_path, monkeypatch):
    assert "there is no file" in message(SquadJson(str(tmp_path / "no.json")))
    assert "is a folder" in message(SquadJson(str(tmp_path)))
    (tmp_path / "x.json.gz").write_bytes(b"no gzip")
    assert "is not a gzip file" in message(SquadJson(str(tmp_path / "x.json.gz")))
    monkeypatch.setattr("jaxformers.data.text.squad.LARGEST", 1 << 10)
    path = written(tmp_path / "bomb.json.gz", '{"data": "' + "x" * 10_000 + '"}')
    assert "holds over" in message(SquadJson(path))


def test_the_fingerprint_tells_contents_apart_and_not_places(tmp_path):
    contents = [squad(asked(0)), squad(asked(0, "Normandy")), squad(asked(0, question="Who?"))]
    paths = [written(tmp_path / f"{k}.json", c) for k, c in enumerate((*contents, contents[0]))]
    fingerprints = [SquadJson(path).open().fingerprint["content"] for path in paths]
    assert len(set(fingerprints)) == 3
    assert fingerprints[0] == fingerprints[3]


class Squad(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A small stand-in for the public set, under its name and with its features."""

    VERSION = tfds.core.Version("3.0.0")
    BUILDER_CONFIGS = (
        tfds.core.BuilderConfig(name="v1.1", version=VERSION),
        tfds.core.BuilderConfig(name="v2.0", version=VERSION),
    )
    name = "squad"

    def _info(self):
        text = tfds.features.Text()
        features = dict.fromkeys(("id", "title", "context", "question"), text)
        answers = {"text": text, "answer_start": np.int32}
        features["answers"] = tfds.features.Sequence(answers)
        if self.builder_config.name == "v2.0":
            features["is_impossible"] = np.bool_
            features["plausible_answers"] = tfds.features.Sequence(answers)
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {"validation": self._generate_examples()}

    def _generate_examples(self):
        for number in range(3):
            texts = ["Denmark", "from Denmark"]
            none = self.builder_config.name == "v2.0" and number == 1
            row = {"id": f"q{number}", "title": "T", "context": CONTEXT, "question": "Where from?"}
            starts = [CONTEXT.find(text) for text in texts]
            row["answers"] = {"text": texts, "answer_start": starts}
            empty = {"text": [], "answer_start": []}
            if self.builder_config.name == "v2.0":
                row |= {"is_impossible": none, "plausible_answers": row["answers"]}
                row |= {"answers": empty} if none else {}
            yield number, row


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for config in ("v1.1", "v2.0"):
        builder = Squad(data_dir=folder, config=config, file_format="array_record")
        builder.download_and_prepare()
    return str(folder)


def test_both_versions_are_read_as_tfds_keeps_them(data_dir):
    for name in ("squad/v1.1", "squad/v2.0"):
        questions = sorted(TfdsSquad(name, "validation", data_dir).open())
        none = name == "squad/v2.0"
        assert [q.impossible for q in questions] == [False, none, False]
        assert questions[0].answers == ("Denmark", "from Denmark")
        assert questions[2].starts == (CONTEXT.find("Denmark"), CONTEXT.find("from Denmark"))
        assert questions[1].answers == (() if none else questions[0].answers)
        assert questions[0].context == CONTEXT


def test_a_set_that_is_not_prepared_is_answered_with_the_command(tmp_path):
    error = message(TfdsSquad(data_dir=str(tmp_path)))
    assert error.endswith(f"jaxformers prepare squad/v1.1 --data-dir {tmp_path}")


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_bundled_questions_have_answers_that_follow_the_word_asked_for(split):
    questions = BundledQuestions(split, 30).open()
    assert len(questions) == 30
    for question in questions:
        word = question.question.removeprefix("Which word follows ").removesuffix("?")
        assert f"{word} {question.answers[0]}" in question.context
        assert question.answers[0] not in ("a", "an", "the")  # nothing of them would be scored
    assert list(questions) == list(BundledQuestions(split, 30).open())


def test_bundled_questions_without_an_answer_ask_for_a_word_that_is_not_there():
    questions = BundledQuestions(impossible=True).open()
    none = [question for question in questions if question.impossible]
    assert len(none) >= len(questions) // 5
    for question in none:
        word = question.question.removeprefix("Which word follows ").removesuffix("?")
        assert word not in question.context
    assert not BundledQuestions().open().some_impossible


def test_questions_for_training_and_held_out_ones_share_no_context():
    train, held_out = (BundledQuestions(split).open() for split in ("train", "held_out"))
    assert isinstance(train, Questions)
    assert not {question.context for question in train} & {
        question.context for question in held_out
    }

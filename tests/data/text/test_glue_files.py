"""The official TSV files as they look, and TFDS sets as they are prepared."""

import numpy as np
import pytest
from tensorflow_datasets.text import glue as tfds_glue

from jaxformers.data.text.glue import FORMATS, Glue
from jaxformers.data.text.labelled_texts import Labels
from jaxformers.errors import ConfigError, DataError

MRPC = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
MNLI = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
    "sentence1_parse\tsentence2_parse\tsentence1\tsentence2"
)
# task, file, content, texts, second texts, labels
CASES = [
    (
        "cola",
        "train",
        "gj04\t1\t\tOur friends won't buy this.\ngj04\t0\t*\tThey \"drank the pub.\n",
        ["Our friends won't buy this.", 'They "drank the pub.'],
        None,
        [1, 0],
    ),
    ("cola", "test", "index\tsentence\n0\tBill sent.\n1\tHe.\n", ["Bill sent.", "He."], None, None),
    ("sst2", "dev", "sentence\tlabel\nit 's a charming \t1\n", ["it 's a charming "], None, [1]),
    ("sst2", "test", "index\tsentence\n0\tuneasy mishmash\n", ["uneasy mishmash"], None, None),
    (
        "mrpc",
        "train",
        MRPC + '1\t702876\t702977\tAmrozi "the witness" .\tReferring to "the , Amrozi\r\n',
        ['Amrozi "the witness" .'],
        ['Referring to "the , Amrozi'],
        [1],
    ),
    (
        "mrpc",
        "test",
        "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1089874\t1089925\tPCCW 's\tCurrent\n",
        ["PCCW 's"],
        ["Current"],
        None,
    ),
    (
        "stsb",
        "train",
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
        "0\tmain\tMSRvid\t2012test\t0001\tnone\tnone\tA plane.\tAn air plane.\t5.000\n"
        "1\tmain\tMSRvid\t2012test\t0004\tnone\tnone\tA man.\tA flute.\t3.8\n",
        ["A plane.", "A man."],
        ["An air plane.", "A flute."],
        [5.0, np.float32(3.8)],
    ),
    (
        "qqp",
        "dev",
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
        "201359\t303345\t303346\tWhy?\tHow so?\t0\n",
        ["Why?"],
        ["How so?"],
        [0],
    ),
    ("qqp", "test", "id\tquestion1\tquestion2\n0\tWould?\tWhy?\n", ["Would?"], ["Why?"], None),
    (
        "mnli",
        "train",
        MNLI + "\tlabel1\tgold_label\n"
        "0\t31193\t31193n\tgov\t( (\t(\t(R\t(R\tCream skimming\tProduct\tneutral\tneutral\n"
        "1\t1\t1e\ttel\t( (\t(\t(R\t(R\tyou know\tYou lose\tentailment\tentailment\n"
        "2\t1\t1c\tfic\t( (\t(\t(R\t(R\tOne of\tA member\tneutral\tcontradiction\n",
        ["Cream skimming", "you know", "One of"],
        ["Product", "You lose", "A member"],
        [1, 0, 2],
    ),
    (
        "mnli",
        "dev_mismatched",
        MNLI + "\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label\n"
        "0\t1\t1\ts\t(\t(\t(\t(\tYour\tThe\tneutral\tneutral\tneutral\tneutral\tneutral"
        "\tcontradiction\n",
        ["Your"],
        ["The"],
        [2],
    ),
    ("mnli", "test_matched", MNLI + "\n0\t1\t1\ts\t(\t(\t(\t(\tHi\tHo\n", ["Hi"], ["Ho"], None),
    (
        "qnli",
        "dev",
        "index\tquestion\tsentence\tlabel\n0\tWhat came?\tAs of\tentailment\n"
        "1\tWho?\tThe\tnot_entailment\n",
        ["What came?", "Who?"],
        ["As of", "The"],
        [0, 1],
    ),
    (
        "rte",
        "train",
        "index\tsentence1\tsentence2\tlabel\n0\tNo WMD\tWMD\tnot_entailment\n",
        ["No WMD"],
        ["WMD"],
        [1],
    ),
    (
        "wnli",
        "dev",
        "index\tsentence1\tsentence2\tlabel\n0\tThe\tDrain\t1\n",
        ["The"],
        ["Drain"],
        [1],
    ),
    ("ax", "test", "index\tsentence1\tsentence2\n0\tThe cat\tThe\n", ["The cat"], ["The"], None),
]


def put(folder, task, file, content):
    below = folder / FORMATS[task].folder
    below.mkdir(exist_ok=True)
    (below / f"{file}.tsv").write_bytes(content.encode())
    return below


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_the_official_file_is_read_as_it_looks(tmp_path, case):
    task, split, content, first, second, labels = case
    below = put(tmp_path, task, "diagnostic" if task == "ax" else split, content)
    for folder in (tmp_path, below):
        source = Glue(task, split, str(folder))
        texts = source.open(source.own)
        assert (texts.texts, texts.pairs) == (first, second)
        assert (None if texts.labels is None else texts.labels.tolist()) == labels


def test_broken_lines_of_qqp_are_left_out_and_counted(tmp_path):
    content = CASES[7][2] + '360472\t1\t2\t"Why\nis it\t?\t1\n5\t6\t7\tSo?\tNo?\t1\n'
    put(tmp_path, "qqp", "train", content)
    texts = Glue("qqp", "train", str(tmp_path)).open(Glue("qqp").own)
    assert texts.texts == ["Why?", "So?"] and texts.skipped == 2
    put(tmp_path, "rte", "train", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\n")
    with pytest.raises(DataError, match=r"line 2: 3 tab-separated column\(s\), but column 4"):
        Glue("rte", "train", str(tmp_path)).open(Glue("rte").own)


def test_test_examples_keep_the_numbers_of_their_file(tmp_path):
    put(tmp_path, "qqp", "test", "id\tquestion1\tquestion2\n7\ta\tb\nbroken\n9\tc\td\n")
    texts = Glue("qqp", "test", str(tmp_path)).open(Glue("qqp").own)
    assert texts.names == ["7", "9"] and texts.skipped == 1


def test_a_wrong_label_or_header_is_named(tmp_path):
    put(tmp_path, "rte", "dev", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tmaybe\n")
    with pytest.raises(DataError, match="line 2: label 'maybe' is not one of entailment, not_ent"):
        Glue("rte", "dev", str(tmp_path)).open(Glue("rte").own)
    put(tmp_path, "rte", "dev", "index\tsentence1\tlabel\n0\ta\tentailment\n")
    with pytest.raises(DataError, match="has no column sentence2; it has index, sentence1, label"):
        Glue("rte", "dev", str(tmp_path)).open(Glue("rte").own)
    with pytest.raises(DataError, match=r"holds neither WNLI/dev\.tsv nor dev\.tsv"):
        Glue("wnli", "dev", str(tmp_path)).open(Glue("wnli").own)


def test_an_unknown_task_is_answered_with_the_near_miss():
    with pytest.raises(ConfigError, match=r"no task .mnlli.; did you mean mnli\?"):
        Glue("mnlli")
    with pytest.raises(ConfigError, match="did you mean sst2"):
        Glue("sst-2")
    with pytest.raises(ConfigError, match="it has cola, sst2"):
        Glue("squad")
    with pytest.raises(ConfigError, match="rte has no split dev_matched"):
        Glue("rte", "dev_matched")


def test_mnli_is_evaluated_on_two_sets():
    names = [(name, source.split) for name, source in Glue("mnli").other("dev").parts()]
    assert names == [("matched", "dev_matched"), ("mismatched", "dev_mismatched")]
    assert Glue("rte").other("test").parts() == (("", Glue("rte", "test")),)
    assert Glue("ax").other("dev") is None


def test_classes_are_numbered_as_a_model_with_googles_order_has_them(tmp_path):
    google = Labels(3, ("contradiction", "entailment", "neutral"))
    put(tmp_path, "mnli", "train", CASES[9][2])
    source = Glue("mnli", "train", str(tmp_path))
    assert source.classes(google) == google
    assert source.open(google).labels.tolist() == [2, 1, 0]
    assert source.classes(Labels(2)) == source.own


def test_predictions_are_written_as_the_server_takes_them():
    google = Labels(3, ("contradiction", "entailment", "neutral"))
    assert Glue("mnli").written(np.array([0, 1, 2]), google) == [*google.names]
    assert Glue("qnli").written(np.array([1, 0]), Glue("qnli").own) == [
        "not_entailment",
        "entailment",
    ]
    turned = Labels(2, ("acceptable", "unacceptable"))
    assert Glue("cola").written(np.array([0, 1]), turned) == ["1", "0"]
    assert Glue("stsb").written(np.array([-0.5, 2.25, 7]), Labels(1)) == ["0.000", "2.250", "5.000"]


# ---------------------------------------------------------------------- TFDS


def builder(task, splits):
    """The public set's own features under its name, with examples of ours."""

    class Small(tfds_glue.Glue, skip_registration=True):
        name = "glue"

        def _split_generators(self, manager):
            return {name: self._generate_examples(rows) for name, rows in splits.items()}

        def _generate_examples(self, rows):
            yield from ((row["idx"], row) for row in rows)

    return Small, task


def prepare(folder, task, splits):
    builder_class, config = builder(task, splits)
    builder_class(data_dir=folder, config=config, file_format="array_record").download_and_prepare()


def rows(*texts, labels):
    return [
        {**dict(text), "label": label, "idx": k}
        for k, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    many = [{"premise": f"p{k}", "hypothesis": f"h{k}"} for k in range(9)]
    labels = ["entailment", "neutral", "contradiction"] * 3
    mnli = rows(*many, labels=labels)
    hidden = rows(*many, labels=[-1] * 9)
    prepare(
        folder,
        "mnli",
        {
            "train": mnli,
            "validation_matched": mnli[:3],
            "validation_mismatched": mnli[3:5],
            "test_matched": hidden,
            "test_mismatched": hidden[:2],
        },
    )
    pairs = [{"sentence1": "a", "sentence2": "b"}, {"sentence1": "c", "sentence2": "d"}]
    prepare(
        folder,
        "stsb",
        {
            "train": rows(*pairs, labels=[np.float32(2.5), np.float32(0)]),
            "test": rows(*pairs, labels=[np.float32(-1)] * 2),
        },
    )
    return str(folder)


def test_tfds_sets_are_read_in_the_order_of_their_numbers(data_dir):
    source = Glue("mnli", data_dir=data_dir)
    texts = source.open(source.own)
    assert texts.texts == [f"p{k}" for k in range(9)] and texts.pairs[4] == "h4"
    assert texts.labels.tolist() == [0, 1, 2] * 3
    sizes = [len(subset.open(source.own)) for _, subset in source.other("dev").parts()]
    assert sizes == [3, 2]


def test_tfds_test_sets_have_no_labels(data_dir):
    for task in ("mnli", "stsb"):
        source = Glue(task, "test", data_dir=data_dir)
        texts = source.open(source.own)
        assert texts.labels is None and texts.names[:2] == ["0", "1"]


def test_tfds_scores_are_numbers(data_dir):
    texts = Glue("stsb", data_dir=data_dir).open(Labels(1))
    assert texts.labels.tolist() == [2.5, 0.0] and texts.labels.dtype == np.float32


def test_a_missing_tfds_set_is_answered_with_the_command_that_prepares_it(tmp_path):
    with pytest.raises(DataError, match=f"jaxformers prepare glue/rte --data-dir {tmp_path}"):
        Glue("rte", data_dir=str(tmp_path)).open(Glue("rte").own)

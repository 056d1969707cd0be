"""What a sentence-embedding folder's files say of its vectors, and what is refused."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

import bert_use as use
from huggingface_hub.utils import filter_repo_objects

from jaxformers.errors import WeightsError
from jaxformers.pretrained.bert.sentence_pooling import Pooling, read_pooling
from jaxformers.pretrained.formats.hub import PATTERNS, resolve


def edit(file: Path, **changes) -> None:
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | changes))


def test_a_plain_folder_pools_by_the_mean(tmp_path):
    assert read_pooling(tmp_path) == Pooling(("mean",), False, None)


def test_the_files_of_all_minilm(tmp_path):
    use.pooling(tmp_path, "mean_tokens", normalize=True, max_seq_length=256, do_lower_case=False)
    assert read_pooling(tmp_path) == Pooling(("mean",), True, 256, False)


def test_each_mode_and_several_in_the_order_in_which_they_are_joined(tmp_path):
    use.pooling(tmp_path, "mean_sqrt_len_tokens", do_lower_case=True)
    assert read_pooling(tmp_path) == Pooling(("mean_sqrt_len",), False, None, True)
    use.pooling(tmp_path, "mean_tokens", "max_tokens", "cls_token")
    assert read_pooling(tmp_path).modes == ("cls", "max", "mean")


def test_before_2021_the_encoder_lay_in_a_folder_of_its_own(tmp_path):
    use.pooling(tmp_path, "cls_token")
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    inner = tmp_path / "0_Transformer"
    inner.mkdir()
    (tmp_path / "sentence_bert_config.json").unlink()
    edit(inner / "sentence_bert_config.json", max_seq_length=77)
    edit(inner / "config.json")
    assert resolve(tmp_path) == inner
    assert read_pooling(resolve(tmp_path)) == Pooling(("cls",), False, 77)


def test_newer_files_name_the_mode(tmp_path):
    use.pooling(tmp_path)
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    assert read_pooling(tmp_path).modes == ("cls",)


def test_the_tokenizers_limit_holds_where_the_encoder_names_none(tmp_path):
    use.pooling(tmp_path, "cls_token")
    edit(tmp_path / "tokenizer_config.json", model_max_length=1e30)
    assert read_pooling(tmp_path).max_length == int(1e30)
    edit(tmp_path / "tokenizer_config.json", model_max_length=128)
    assert read_pooling(tmp_path).max_length == 128


def test_a_default_prompt_is_put_before_texts(tmp_path):
    use.pooling(tmp_path, "cls_token")
    overall = tmp_path / "config_sentence_transformers.json"
    edit(overall, prompts={"query": "query: "}, default_prompt_name=None)
    assert read_pooling(tmp_path).prompt == ""
    edit(overall, default_prompt_name="query")
    assert read_pooling(tmp_path).prompt == "query: "


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", "{", "modules.json is damaged"),
        ("modules.json", '{"a": 1}', "modules.json is damaged"),
        ("modules.json", '[{"type": "x.Transformer"}]', "modules.json is damaged"),
        (
            "modules.json",
            '[{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": "../x"}]',
            "names '../x', which is no folder beside it",
        ),
        (
            "modules.json",
            '[{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": "1_Pooling"},'
            ' {"type": "a.LSTM", "path": "2_LSTM"}]',
            "Transformer, Pooling, LSTM are not supported",
        ),
        ("1_Pooling/config.json", "{}", "the pooling [] is not supported"),
        (
            "1_Pooling/config.json",
            '{"pooling_mode_median": true}',
            "['pooling_mode_median'] is not supported, only cls, max, mean, mean_sqrt_len",
        ),
        ("1_Pooling/config.json", '{"pooling_mode": 3}', "the pooling 3 is not supported"),
        ("1_Pooling/config.json", '{"pooling_mode": [[]]}', "the pooling [[]] is not supported"),
        ("sentence_bert_config.json", '{"max_seq_length": "9"}', "'9' cannot be the most tokens"),
        ("sentence_bert_config.json", '{"max_seq_length": NaN}', "nan cannot be the most tokens"),
        ("sentence_bert_config.json", '{"max_seq_length": Infinity}', "inf cannot be the most"),
        ("sentence_bert_config.json", '{"max_seq_length": 1}', "1 cannot be the most tokens"),
        ("config_sentence_transformers.json", '{"default_prompt_name": "q"}', "no prompt 'q'"),
    ],
)
def test_what_is_damaged_or_not_supported_is_one_line(tmp_path, file, content, message):
    use.pooling(tmp_path, "mean_tokens")
    (tmp_path / file).write_text(content)
    with pytest.raises(WeightsError) as raised:
        read_pooling(tmp_path)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_a_hubs_model_comes_with_all_files_that_its_use_reads():
    read = ["1_Pooling/config.json", "modules.json", "sentence_bert_config.json", "vocab.txt"]
    read += ["config_sentence_transformers.json", "tokenizer.json", "model.safetensors"]
    left_out = ["pytorch_model.bin", "onnx/model.onnx", "README.md"]
    downloaded = filter_repo_objects([*read, *left_out], allow_patterns=PATTERNS)
    assert list(downloaded) == read

import subprocess
import sys

import pytest
import tensorflow_datasets as tfds

from jaxformers.data import TfdsPairs
from jaxformers.errors import DataError

ROWS = [(f"sentence {k}", f"Satz {k} mit ü") for k in range(57)]


class Wmt14Translate(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A small stand-in for the public set, under its name."""

    rows = ROWS

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="de-en", version=VERSION),)
    name = "wmt14_translate"

    def _info(self):
        features = tfds.features.Translation(languages=("de", "en"))
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager):
        splits = {"train": self.rows, "test": self.rows[:5]}
        return {split: self._generate_examples(rows) for split, rows in splits.items()}

    def _generate_examples(self, rows):
        for index, (english, german) in enumerate(rows):
            yield index, {"en": english, "de": german}


def prepared(folder, rows=ROWS):
    builder = Wmt14Translate(data_dir=folder, config="de-en", file_format="array_record")
    builder.rows = rows
    builder.download_and_prepare()
    return str(folder)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("tfds"))


def message(config):
    with pytest.raises(DataError) as error:
        config.open()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_prepared_set_is_read_in_any_order(data_dir):
    pairs = TfdsPairs(data_dir=data_dir).open()
    assert sorted(pairs) == sorted(ROWS)
    assert pairs[3:6] == [pairs[3], pairs[4], pairs[5]]
    assert pairs[-1] == pairs[56]
    assert len(TfdsPairs(split="test", data_dir=data_dir).open()) == 5
    assert len(TfdsPairs(split="train[:10]", data_dir=data_dir).open()) == 10


def test_source_and_target_can_be_turned(data_dir):
    turned = TfdsPairs(source="de", target="en", data_dir=data_dir).open()
    assert sorted(turned) == sorted((german, english) for english, german in ROWS)
    straight = TfdsPairs(data_dir=data_dir).open()
    assert turned.fingerprint["content"] != straight.fingerprint["content"]


def test_the_prepared_folder_itself_may_be_named(data_dir):
    folder = f"{data_dir}/wmt14_translate/de-en/1.0.0"
    inside = TfdsPairs(data_dir=folder).open()
    assert inside.fingerprint == TfdsPairs(data_dir=data_dir).open().fingerprint


def test_the_content_of_a_small_set_is_that_of_all_its_rows(data_dir, tmp_path):
    pairs = TfdsPairs(data_dir=data_dir).open()
    rows = [
        (english.upper(), german) if (english, german) == pairs[-1] else (english, german)
        for english, german in ROWS
    ]
    changed = TfdsPairs(data_dir=prepared(tmp_path, rows)).open()
    assert changed[:-1] == pairs[:-1]
    assert changed.fingerprint["content"] != pairs.fingerprint["content"]


def test_a_missing_set_is_answered_with_the_command_that_prepares_it(tmp_path, data_dir):
    command = f"jaxformers prepare wmt14_translate/de-en --data-dir {tmp_path}"
    assert message(TfdsPairs(data_dir=str(tmp_path))).endswith(command)
    assert "--data-dir" in message(TfdsPairs("wmt14_translate/de-en:9.9.9", data_dir=data_dir))


def test_a_wrong_split_or_feature_names_those_there_are(data_dir):
    assert "it has train, test" in message(TfdsPairs(split="validation", data_dir=data_dir))
    assert "Error parsing split" in message(TfdsPairs(split="train[:x]", data_dir=data_dir))
    assert "no feature fr: it has de, en" in message(TfdsPairs(target="fr", data_dir=data_dir))


def test_reading_imports_no_tensorflow(data_dir):
    script = (
        "import sys; from jaxformers.data import TfdsPairs\n"
        f"assert len(list(TfdsPairs(data_dir={data_dir!r}).open())) == 57\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)

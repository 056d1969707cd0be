"""Published RoBERTas and DistilBERTs are fine-tuned, and leave as what they came."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "fixtures"))

import encoder_use as use
from folders import read

import jaxformers as jf
from jaxformers.data import BundledDocuments, Phase, Pretraining
from jaxformers.data.text.squad import BundledQuestions
from jaxformers.data.text.text_files import TsvTexts
from jaxformers.errors import ConfigError
from jaxformers.tasks import MaskedLanguage, SequenceClassification, SpanExtraction

PRETRAINING = Pretraining(next_sentence=False, phases=(Phase(48, 8, 7, steps=None),))


def task_of(head, weights, folder):
    """The task of a head that starts from published weights, on a few examples."""
    model = jf.from_pretrained(weights)[0].config
    options = dict(weights=str(weights))
    if head == "words":
        documents = BundledDocuments("held_out")
        return MaskedLanguage(model, data=documents, pretraining=PRETRAINING, **options)
    if head == "spans":
        size = dict(length=90, stride=30, query_length=30, rows=8)
        return SpanExtraction(model, BundledQuestions("train", 16), **size, **options)
    lines = (f"{a}\t{b}\t{i}\n" for i, (a, b) in enumerate(use.PAIRS))
    (folder / "pairs.tsv").write_text("".join(lines))
    data = TsvTexts(path=str(folder / "pairs.tsv"), pair_column=1, label_column=2)
    return SequenceClassification(replace(model, labels=2), data, length=48, rows=8, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "head"),
    [
        ("distilbert", "classes"),
        ("distilbert", "spans"),
        ("distilbert", "words"),
        ("roberta", "classes"),
        ("roberta", "spans"),
        ("roberta", "words"),
        ("xlm-roberta", "classes"),
    ],
)
def test_weights_are_trained_and_saved_as_what_they_were(family, head, tmp_path):
    weights = use.folder(family, "words", tmp_path / "weights")
    experiment = jf.Experiment("fine_tuning", task_of(head, weights, tmp_path), steps=2)
    assert jf.train(experiment, tmp_path / "run").finished
    model, variables = jf.from_pretrained(tmp_path / "run")
    tokenizer = jf.load_text(tmp_path / "run")
    jf.save_pretrained(model, variables, tmp_path / "new", tokenizer=tokenizer)
    config, tensors = read(tmp_path / "new")
    prefix = "DistilBert" if family == "distilbert" else "Roberta"
    assert config["architectures"] == [prefix + use.HEADS[head]]
    name = f"{prefix.lower()}.embeddings.word_embeddings.weight"
    change = np.abs(tensors[name] - read(weights)[1][name]).max()
    assert 0 < change < 0.1  # two small steps from the published table
    use_head = {
        "classes": lambda path: jf.classify(path, use.PAIRS),
        "spans": lambda path: jf.answer(path, *map(list, zip(*use.QUESTIONS, strict=True))),
        "words": lambda path: jf.fill_mask(path, f"The {use.mask_token(family)} of the river."),
    }[head]
    assert use_head(tmp_path / "new") == use_head(tmp_path / "run")


def test_what_the_tokenizer_and_the_model_do_not_share_is_refused(tmp_path):
    weights = use.folder("roberta", "words", tmp_path / "weights")
    task = task_of("classes", weights, tmp_path)
    with pytest.raises(ConfigError, match="padding has the id 1 in the tokenizer: set pad_id to 1"):
        replace(task, model=replace(task.model, pad_id=0)).open(tmp_path / "run", seed=0)
    words = task_of("words", weights, tmp_path)
    paired = Pretraining(next_sentence=True, phases=(Phase(48, 8, 7, steps=None),))
    with pytest.raises(ConfigError, match="needs a model of variant bert with pooler"):
        replace(words, pretraining=paired)


def test_a_distilberts_tokenizer_gives_no_token_types(tmp_path):
    weights = use.folder("distilbert", "words", tmp_path / "weights")
    tokenizer = jf.load_text(weights)
    for number, source in enumerate((tokenizer, weights)):
        new = tmp_path / f"new{number}"
        jf.save_pretrained(*jf.from_pretrained(weights), new, tokenizer=source)
        settings = json.loads((new / "tokenizer_config.json").read_text())
        assert settings["model_input_names"] == ["input_ids", "attention_mask"]
        assert jf.load_text(new).fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize("config", [jf.BertConfig.distilbert(), jf.BertConfig.roberta()])
def test_rehearsals_train_their_own_vocabulary(config, tmp_path):
    task = SpanExtraction(replace(config, max_length=512), BundledQuestions())
    task.rehearsal().open(tmp_path, seed=0)

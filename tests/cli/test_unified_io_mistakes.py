"""Bad input of Unified-IO on the command line: one line that names it, and status 2."""

import io
import json
import re

import numpy as np
import pytest
import sentencepiece

from jaxformers.cli import command
from jaxformers.text import UnifiedIOTokenizer
from tests.helpers.unified_io import (
    claim_four_gigabytes,
    config_fields,
    truncate,
    write_folder,
)

PIECES = ["what is this ? a red bus and cats", "bcdfghjklmnopqrstuvwxyz"] * 5
EXPERIMENT = """
from dataclasses import replace
from jaxformers.data.mixture import Mixture
from jaxformers.models import VQGANConfig
from jaxformers.tasks import TextImage
from jaxformers.tasks.text_image import VQA, JsonlRecords
from jaxformers.tasks.text_image.rehearsal import rehearsal_mixture, rehearsal_model
from jaxformers.training import Experiment

def experiment():
    mixture = rehearsal_mixture()
    model = rehearsal_model(VQGANConfig())
    task = TextImage(model, mixture, rows=16, text_length=32, target_length=16)
    if "missing" in {name!r}:
        entries = {{entry.name: entry.task for entry in mixture.entries}}
        entries["own"] = VQA(JsonlRecords("no.jsonl"))
        task = replace(task, mixture=Mixture(entries))
    return Experiment({name!r}, task, steps=2)
"""


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "weights")


@pytest.fixture
def mistake(capfd):
    def run(*words):
        """The one line that a mistake is answered with."""
        assert command.main([str(word) for word in words]) == 2
        out, err = capfd.readouterr()
        assert out == "" and err.startswith("jaxformers: ") and err.count("\n") == 1
        return err

    return run


def other_size(folder):
    (folder / "config.json").write_text(json.dumps(config_fields(emb_dim=24)))


def other_pieces(folder):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(PIECES), model_writer=model, vocab_size=34, minloglevel=2
    )
    (folder / "spiece.model").write_bytes(model.getvalue())


def too_many_pieces(folder):
    rng = np.random.default_rng(0)
    words = ("".join(rng.choice(list("abcdefgh"), 6)) for _ in range(9000))
    UnifiedIOTokenizer.train(words, 2000).save(folder)


DAMAGE = {
    "a vocabulary of other pieces": (other_pieces, r"begins with <unk>, .*use T5's spiece\.model"),
    "a vocabulary of too many ids": (too_many_pieces, "the tokenizer has 3,200 ids, the model"),
    "another size": (other_size, "misshapen .*instead of"),
    "lengths that lie": (claim_four_gigabytes, r"tiny_1000k\.bin.* truncated, damaged"),
    "no model": (lambda f: (f / "spiece.model").write_bytes(b"pieces"), r"spiece\.model"),
    "no vocabulary": (lambda f: None, "spiece.model"),
    "truncated": (truncate, r"tiny_1000k\.bin.* truncated, damaged"),
}


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_weights_and_vocabularies_that_do_not_fit_are_refused(damage, folder, mistake):
    spoil, message = DAMAGE[damage]
    spoil(folder)
    line = mistake("ask", folder, "what is this ?")
    assert re.search(message, line), line


def test_prompts_with_another_input_or_answer_are_refused(folder, mistake, tmp_path):
    text, picture = "What does the image describe ?", tmp_path / "a.png"
    assert "answered by a text" in mistake("ask", folder, text, "--output", picture)
    assert "is about a picture: give one" in mistake("ask", folder, text)
    depth = "What is the depth map of the image ?"
    assert "answered by a picture: give --output" in mistake("ask", folder, depth)
    assert not picture.exists()


def test_unknown_tasks_and_missing_sets_are_refused(mistake, tmp_path):
    for name in ("tiny", "missing"):
        (tmp_path / f"{name}.py").write_text(EXPERIMENT.format(name=name))
    tiny, missing = tmp_path / "tiny.py", tmp_path / "missing.py"
    line = mistake("describe", tiny, "--example", "vqe")
    assert "there is no task 'vqe', only vqa, caption, depth; did you mean vqa" in line
    line = mistake("train", missing, "--folder", tmp_path / "run")
    assert "1 of 4 tasks lack data: own: no.jsonl: no such file; train on the others" in line
    assert "no.jsonl: no such file" in mistake("describe", missing, "--example", "own")


@pytest.mark.slow
def test_training_from_weights_of_another_size_is_refused(folder, mistake, tmp_path):
    (tmp_path / "tiny.py").write_text(EXPERIMENT.format(name="tiny"))
    UnifiedIOTokenizer.train(PIECES, 34).save(folder)
    arguments = ("train", tmp_path / "tiny.py", "--folder", tmp_path / "run")
    assert "misshapen" in mistake(*arguments, "--task.weights", folder)

"""The command line: what it says, and with what status it ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from jaxformers import api
from jaxformers.cli import command, stdin_verbs, verbs
from jaxformers.errors import DataError
from jaxformers.training import loop
from jaxformers.training.run_result import RunResult

ROOT = Path(__file__).resolve().parents[2]
TINY = """
from jaxformers.data import BundledPairs
from jaxformers.models import TransformerConfig
from jaxformers.tasks import Translation
from jaxformers.training.experiment import Experiment

def experiment():
    model = TransformerConfig(130, width=16, heads=4, feed_forward=32, encoder_layers=2)
    return Experiment("tiny", Translation(model, BundledPairs()), steps=10)
"""


@pytest.fixture
def tiny(tmp_path) -> str:
    path = tmp_path / "tiny.py"
    path.write_text(TINY)
    return str(path)


def run(capfd, *words: str) -> tuple[int, str, str]:
    status = command.main(words)
    out, err = capfd.readouterr()
    return status, out, err


def mistake(capfd, *words: str) -> str:
    """The one line that a mistake is answered with."""
    status, out, err = run(capfd, *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("jaxformers: ") and err.endswith("\n")
    return err[len("jaxformers: ") : -1]


# ---------------------------------------------------------------- help


def test_help_names_every_verb_and_teaches_by_example(capfd):
    status, out, _ = run(capfd, "--help")
    assert status == 0 and all(
        f"\n  {verb:15} {command.VERBS[verb].summary}\n" in out for verb in command.VERBS
    )
    assert "jaxformers train experiments/translation/demo.py" in out


@pytest.mark.parametrize("verb", command.VERBS)
def test_each_verb_has_help_with_an_example_and_its_options(capfd, verb):
    status, out, _ = run(capfd, "help", verb)
    assert status == 0 and (f"\n  jaxformers {verb} " in out or f"| jaxformers {verb} " in out)
    assert all(option in out for option, _ in command.VERBS[verb].options)
    assert run(capfd, verb, "--help")[1] == out
    assert max(map(len, out.splitlines())) <= 100


def test_what_a_verb_cannot_do_without_stands_outside_brackets(capfd):
    usage = "usage: jaxformers prepare NAME --data-dir DIR\n"
    assert run(capfd, "help", "prepare")[1].startswith(usage)


def test_help_of_a_file_lists_its_fields(capfd, tiny):
    with pytest.raises(SystemExit) as ended:
        command.main(["train", tiny, "--help"])
    out = capfd.readouterr().out
    assert ended.value.code == 0
    assert "--rehearse" in out and "--task.model.width INT" in out


def test_no_verb_prints_the_help_as_an_error(capfd):
    status, out, err = run(capfd)
    assert (status, out) == (2, "") and err.startswith("usage: ")


def test_help_is_quick_because_it_imports_neither_jax_nor_tyro():
    code = (
        "import sys; from jaxformers.cli.command import main; main(['--help']); main(['trian']);"
        "sys.exit(bool({'jax', 'flax', 'numpy', 'tyro'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


def test_version(capfd):
    import jaxformers

    assert run(capfd, "--version")[:2] == (0, f"jaxformers {jaxformers.__version__}\n")


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "unknown verb trian; did you mean train?"),
        (["help", "trian"], "unknown verb trian; did you mean train?"),
        (["--verison"], "unknown option --verison; did you mean --version?"),
        (["frobnicate"], "unknown verb frobnicate; there are train, demo, evaluate"),
        (["--frobnicate"], "unknown option --frobnicate; --help tells more"),
        (["train"], "FILE is missing"),
        (["convert", "a"], "TARGET is missing"),
        (["convert", "a", "b", "c"], "unexpected argument c"),
        (["translate", "runs/x", "--beems", "2"], "unknown option --beems; did you mean --beams?"),
        (["explain", "x", "--imag", "a.jpg"], "unknown option --imag; did you mean --image?"),
        (["explain", "x", "--imag=a.jpg"], "unknown option --imag=a.jpg; did you mean --image?"),
        (["explain", "--metod", "rollout"], "unknown option --metod; did you mean --method?"),
        (["prepare", "--datadir", "x", "a.py"], "--datadir; did you mean --data-dir?"),
        (["convert", "a", "--to", "bert"], "unknown option --to"),
        (["train", "--fodler", "x", "a.py"], "unknown option --fodler; did you mean --folder?"),
        (["train", "--steps", "5", "a.py"], "FILE is missing"),
        (["explain", "x"], "--image is missing (for a Unified-IO, --prompt)"),
        (["prepare", "x"], "--data-dir is missing"),
        (["translate", "runs/x", "--beams", "two"], "--beams: 'two' is not an int"),
        (["translate", "runs/x", "--beams", "0"], "--beams: 0 is not at least 1"),
        (["train", "a.py", "--processes", "0"], "--processes: 0 is not at least 1"),
        (["train", "a.py", "b.py"], "unrecognized arguments: b.py"),
        (["train", "nowhere.py"], "no experiment file 'nowhere.py'"),
        (["describe", "nowhere"], "no experiment file or run 'nowhere'"),
        (["describe", "nowhere", "--devices", "0"], "--devices: 0 is not at least 1"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(capfd, words, message):
    assert message in mistake(capfd, *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--task.model.widht", "64"],
            "unknown option --task.model.widht; did you mean --task.model.width?",
        ),
        (["--fodler", "x"], "unknown option --fodler; did you mean --folder?"),
        (["--steps", "ten"], "--steps: 'ten' is not an int"),
        (["--task.model.heads", "3"], "3 heads do not divide"),
        (["--sharding-rows"], "--sharding-rows cannot be given here"),
    ],
)
def test_a_mistaken_field_is_one_line_and_status_2(capfd, tiny, words, message):
    assert message in mistake(capfd, "train", tiny, *words)


def test_words_behind_two_dashes_are_no_options(capfd):
    assert "unexpected argument -c" in mistake(capfd, "convert", "--", "a", "-b", "-c")


def test_an_operating_system_error_is_one_line(capfd, monkeypatch, tiny):
    def full(*_):
        raise OSError(28, "No space left on device", "runs/x")

    verb = replace(command.VERBS["describe"], run=full)
    monkeypatch.setitem(command.VERBS, "describe", verb)
    assert mistake(capfd, "describe", tiny) == "runs/x: No space left on device"


def test_ctrl_c_ends_without_a_traceback(capfd, monkeypatch, tiny):
    def interrupted(*_):
        raise KeyboardInterrupt

    verb = replace(command.VERBS["describe"], run=interrupted)
    monkeypatch.setitem(command.VERBS, "describe", verb)
    status, _, err = run(capfd, "describe", tiny)
    assert status == 130 and "Traceback" not in err


def test_a_run_that_is_stopped_while_another_follows_it_says_where(capfd, monkeypatch, tiny):
    def stopped(experiment, folder, link):
        within = RunResult(Path(folder) / "next", 7, finished=False)
        return RunResult(Path(folder), 10, finished=False, after=[within])

    monkeypatch.setattr(loop, "train", stopped)
    folder = str(Path(tiny).parent / "run")
    status, out, _ = run(capfd, "train", tiny, "--folder", folder)
    assert status == 75 and f"Stopped at step 7 of {folder}/next;" in out


def test_a_closed_pipe_ends_quietly(tiny):
    words = f"{sys.executable} -m jaxformers describe {tiny} | true; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", words], cwd=ROOT, capture_output=True, timeout=120)
    assert (ended.stdout, ended.stderr) == (b"0\n", b"")


# ---------------------------------------------------------------- describe


def test_describe_prints_tree_table_and_bytes_without_allocating(capfd, tiny):
    status, out, err = run(capfd, "describe", tiny, "--mesh.tensor", "2", "--devices", "4")
    assert (status, err) == (0, "")
    assert "encoder EncoderStack" in out and "token_embedding/table" in out
    assert re.search(r"^Transformer +[\d,]+$", out, re.M)  # the root is the model, not a block
    assert "On 4 devices (data 2 x fsdp 1 x tensor 2)" in out


def test_describe_counts_the_vocabulary_without_its_padding(capfd):
    base = str(ROOT / "experiments/translation/wmt14_en_de_base.py")
    _, out, _ = run(capfd, "describe", base)
    assert "63,045,632 parameters (61,440 more stored as padding)" in out


MIXTURE = """
from jaxformers.data.mixture import Mixture
from jaxformers.data.scenes import EmojiScenes
from jaxformers.models import UnifiedIOConfig, VQGANConfig
from jaxformers.tasks.text_image import VQA, Depth, JsonlRecords, TextImage
from jaxformers.training.experiment import Experiment

def experiment():
    scenes = EmojiScenes(size=64, side=16, most_objects=2, things=4)
    tasks = {"vqa": VQA(scenes), "depth": Depth(scenes), "own": VQA(JsonlRecords("none.jsonl"))}
    model = UnifiedIOConfig.small(image_tokenizer=VQGANConfig())
    return Experiment("tiny", TextImage(model, Mixture(tasks)), steps=10)
"""


def test_describe_prints_examples_of_a_task_of_a_mixture(capfd, tmp_path, tiny):
    path = tmp_path / "mixture.py"
    path.write_text(MIXTURE)
    status, out, err = run(capfd, "describe", str(path), "--example", "depth")
    assert (status, err) == (0, "")
    assert [line for line in out.splitlines() if line.startswith("depth, example")] == [
        "depth, example 0 of 64",
        "depth, example 21 of 64",
        "depth, example 42 of 64",
    ]
    for line in (
        "prompt          What is the depth map of the image ?",
        "input picture   16 x 16",
        "target picture  16 x 16",
    ):
        assert out.count(line) == 3
    assert "target text " in run(capfd, "describe", str(path), "--example", "vqa")[1]
    assert "there is no task 'vqe', only vqa, depth" in mistake(
        capfd, "describe", str(path), "--example", "vqe"
    )
    assert "none.jsonl" in mistake(capfd, "describe", str(path), "--example", "own")
    assert mistake(capfd, "describe", tiny, "--example", "vqa") == (
        "Translation is no mixture of tasks: leave out --example"
    )


# ---------------------------------------------------------------- translate


@pytest.fixture
def pipe():
    read, write = os.pipe()
    yield read, write
    os.close(read)


def batches_of(pipe, text: bytes, size: int) -> list[list[str]]:
    read, write = pipe
    os.write(write, text)
    os.close(write)
    return list(stdin_verbs.line_batches(read, size))


def test_lines_come_in_batches_with_empty_ones_and_a_last_one_without_newline(pipe):
    assert batches_of(pipe, "a\n\nä b\r\nc".encode(), 2) == [["a", ""], ["ä b"], ["c"]]


def test_no_input_gives_no_lines(pipe):
    assert batches_of(pipe, b"", 2) == []


def test_only_newlines_end_lines(pipe):
    assert batches_of(pipe, "a\x0bb\u2028c\x85\n".encode(), 9) == [["a\x0bb\u2028c\x85"]]


def test_more_lines_than_a_pipe_holds_all_arrive_in_order(pipe):
    read, write = pipe
    expected = [f"line {i}" for i in range(30_000)]

    def feed():
        os.write(write, ("\n".join(expected) + "\n").encode())
        os.close(write)

    threading.Thread(target=feed).start()
    batches = list(stdin_verbs.line_batches(read, 64))
    assert [line for batch in batches for line in batch] == expected
    assert max(map(len, batches)) <= 64


def test_invalid_utf8_is_named_by_its_line_after_the_lines_before_it(pipe):
    read, write = pipe
    os.write(write, b"a\nb\nok \xff\nc\n")
    os.close(write)
    lines = stdin_verbs.line_batches(read, 32)
    assert next(lines) == ["a", "b"]
    with pytest.raises(DataError, match=r"line 3: not UTF-8 \(byte 0xff at position 4\)"):
        next(lines)


def test_a_line_is_given_on_while_its_writer_waits_for_the_answer(pipe):
    read, write = pipe
    lines = stdin_verbs.line_batches(read, 32)
    for text in ("first", "second"):
        os.write(write, f"{text}\n".encode())
        start = time.monotonic()
        assert next(lines) == [text]
        assert time.monotonic() - start < 5
    os.close(write)


def reversed_unless_long(lines: list[str]) -> list[str]:
    if any(len(line) > 9 for line in lines):
        raise DataError("line 1 has too many tokens")
    return [line.strip()[::-1] for line in lines]


def translate_all(monkeypatch, pipe, text: bytes, *options: str) -> int:
    read, write = pipe
    os.write(write, text)
    os.close(write)
    monkeypatch.setattr(api, "translate", lambda run, lines, **_: reversed_unless_long(lines))
    monkeypatch.setattr(sys, "stdin", os.fdopen(os.dup(read)))
    return command.main(["translate", "runs/x", *options])


def test_translate_writes_one_line_for_each_line(monkeypatch, capfd, pipe):
    assert translate_all(monkeypatch, pipe, b"one\n\n  \ntwo\n") == 0
    assert capfd.readouterr().out == "eno\n\n\nowt\n"


def test_a_line_that_cannot_be_translated_is_named_after_those_before_it(monkeypatch, capfd, pipe):
    assert translate_all(monkeypatch, pipe, b"one\n\nfar too long\ntwo\n") == 2
    out, err = capfd.readouterr()
    assert out == "eno\n\n"
    assert err == "jaxformers: standard input, line 3 has too many tokens\n"


def test_a_line_that_cannot_be_translated_is_skipped_where_that_is_asked_for(
    monkeypatch, capfd, pipe
):
    assert translate_all(monkeypatch, pipe, b"one\n\nfar too long\ntwo\n", "--skip") == 0
    out, err = capfd.readouterr()
    assert out == "eno\n\n\nowt\n"
    assert err == "jaxformers: skipped: standard input, line 3 has too many tokens\n"


def test_check_leaves_the_warnings_of_xla_visible():
    code = (
        "import os; from jaxformers.cli import main, verbs; from jaxformers.runs import check;"
        "from jaxformers.costs.xla_warnings import warnings_are_seen;"
        "from jaxformers.sharding import MeshConfig, make_mesh;"
        "check.check = lambda *_: print(warnings_are_seen(make_mesh(MeshConfig(2, 2, 2)))) or ();"
        "main(['check', 'experiments/translation/demo.py'])"
    )
    words = [sys.executable, "-c", code]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, timeout=120)
    assert ended.stdout == b"True\n"


def test_a_rehearsals_own_folder_is_gone_in_the_end_and_it_says_so(monkeypatch, capsys):
    folders = []

    def here(args, fields, folder, *, alone):
        assert alone and os.path.isdir(folder)
        folders.append(folder)
        return 0

    monkeypatch.setattr(verbs, "_train_here", here)
    assert command.main(["train", "my.py", "--rehearse"]) == 0
    assert not os.path.exists(folders[0])
    assert "its folder is removed again; --folder DIR would keep it" in capsys.readouterr().out


def test_class_names_from_a_file_are_escaped_on_the_terminal(monkeypatch, capsys, tmp_path):
    name = "\x1b[2Jcat\u202e" + "x" * 1000
    monkeypatch.setattr("jaxformers.api.classify_images", lambda *_, **__: [[(name, 0.75)]])
    picture = tmp_path / "a.png"
    picture.write_bytes(b"")
    assert command.main(["classify-image", "run", str(picture)]) == 0
    path, line = capsys.readouterr().out.strip().split("\t")
    assert path == str(picture) and line.startswith("\\x1b[2Jcat\\u202exxx")
    assert line.endswith("(1,008 characters) 0.7500") and line.isprintable() and len(line) < 200

"""The report of a run: curves, tables, samples that show as they are, costs."""

import json
import math
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
from etils import epath
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from jaxformers import tasks
from jaxformers.data import (
    BundledDocuments,
    BundledHelp,
    BundledMovies,
    BundledPairs,
    Glue,
    Pretraining,
    SquadJson,
    TfdsPairs,
    TfdsSquad,
    TsvTexts,
)
from jaxformers.errors import CheckpointError
from jaxformers.models import BertConfig
from jaxformers.tasks import Evaluation, SequenceClassification, SpanExtraction, Task
from jaxformers.training.reports.final_summary import summary_lines
from jaxformers.training.reports.report import (
    Table,
    escape,
    loss_figure,
    report_run,
    run_costs,
    write_report,
)

METRICS = [
    {"step": 1, "loss": 8.0, "learning_rate": 0.1, "compile_seconds": 9.0},
    {"step": 10, "loss": 4.0, "learning_rate": 0.2, "steps/s": 3.0, "tokens/s": 300.0},
    {"step": 20, "loss": None, "learning_rate": 0.1, "steps/s": 2.0, "tokens/s": 100.0},
    {"step": 20, "eval/dev_perplexity": math.e**2},
]


@pytest.fixture
def folder(tmp_path):
    write_metrics(tmp_path, METRICS)
    return epath.Path(tmp_path)


def write_metrics(path, records):
    (path / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))


def experiment_of(task):
    """An experiment as far as a report looks at it."""
    return SimpleNamespace(name="run", task=task, chosen_evaluators=tuple)


def rendered_text(markdown):
    """The text of a Markdown document as a reader sees it."""
    texts = []
    for token in MarkdownIt().enable("table").parse(markdown):
        texts += [child.content for child in token.children or () if child.type == "text"]
    return "".join(texts)


NASTY = [
    "Click *here* or **there**",
    "snake_case and _emphasis_",
    "[link](http://x) ![picture](y)",
    "<b>bold</b> &lt; 3 > 2",
    "`code` \\n back\\slash",
    "a | b ~~c~~ $x^2$",
    "two\nlines   and\ttabs",
]


@pytest.mark.parametrize("text", NASTY)
def test_samples_show_as_they_are(folder, text):
    path = write_report(folder, "x", {}, samples=[(text, "# heading", "- item")])
    rendered = rendered_text(path.read_text())
    assert f"input: {' '.join(text.split())}" in rendered
    assert "reference: # heading" in rendered
    assert "output: - item" in rendered
    assert "<b>" not in MarkdownIt().render(escape(text))


def test_the_report_names_results_picture_tables_and_the_command(folder):
    table = Table("Beside the paper", ("model", "BLEU"), [("big", 28.4), ("a|b", None)], "A note.")
    summary = {"bleu": 29.71234, "steps": 2400}
    path = write_report(
        folder, "demo", summary, [table], notes=["nrefs:1|case:mixed"], command="translate x"
    )
    text = path.read_text()
    assert path == folder / "report.md"
    assert "| bleu | 29.71 |" in text
    assert "| steps | 2,400 |" in text
    assert "| big | 28.4 |" in text
    assert "nrefs:1|case:mixed" in rendered_text(text)
    assert "```\ntranslate x\n```" in text
    assert "](curves.png)" in text
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_twenty_samples_are_spread_evenly_over_all(folder):
    samples = [(f"s{i}", f"r{i}", f"o{i}") for i in range(100)]
    text = write_report(folder, "x", {}, samples=samples).read_text()
    assert text.count("input: ") == 20
    assert "input: s95 " in text
    assert "20 of 100" in text


def test_an_empty_output_is_said_to_be_empty(folder):
    assert "(empty)" in write_report(folder, "x", {}, samples=[("a", "b", "")]).read_text()


def test_writing_leaves_no_half_files(folder):
    write_report(folder, "x", {})
    names = {path.name for path in folder.iterdir()}
    assert names == {"metrics.jsonl", "report.md", "curves.png"}


def test_a_report_that_cannot_be_moved_leaves_the_old_one(folder, monkeypatch):
    path = write_report(folder, "old", {})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "replace", full)
    with pytest.raises(CheckpointError, match=r"cannot write .*No space left"):
        write_report(folder, "new", {})
    assert path.read_text().startswith("# old")


def test_a_folder_without_metrics_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl is not there"):
        write_report(epath.Path(tmp_path), "x", {})


def test_the_figure_draws_loss_perplexity_and_learning_rate():
    upper, lower = loss_figure(METRICS).axes
    loss, development = upper.lines
    assert list(loss.get_xdata()) == [1, 10, 20]
    assert math.isnan(loss.get_ydata()[-1])
    assert development.get_ydata() == pytest.approx([2.0])
    assert list(lower.lines[0].get_ydata()) == [0.1, 0.2, 0.1]


def test_the_figure_draws_accuracies_of_training_and_development_between_them():
    records = [
        {"step": 1, "loss": 2.0, "accuracy": 0.25, "learning_rate": 0.1},
        {"step": 2, "loss": 1.0, "accuracy": 0.5, "learning_rate": 0.1},
        {"step": 2, "eval/dev_top1": 45.0, "eval/dev_loss": 1.5},
    ]
    loss, accuracy, _ = loss_figure(records).axes
    assert [list(line.get_ydata()) for line in loss.lines] == [[2.0, 1.0], [1.5]]
    assert [list(line.get_ydata()) for line in accuracy.lines] == [[25.0, 50.0], [45.0]]


def test_a_long_loss_is_smoothed_without_lag():
    """A centred mean of a straight line is that line; a trailing one would lie above it."""
    falling = [{"step": i, "loss": 1000.0 - i} for i in range(1, 401)]
    smooth = loss_figure(falling).axes[0].lines[1]
    assert list(smooth.get_ydata()) == pytest.approx([record["loss"] for record in falling])


def test_a_run_without_any_record_still_draws():
    assert len(loss_figure([]).axes) == 2


def test_costs_add_steps_and_compilation_and_weigh_rates_by_time():
    costs = run_costs(METRICS)
    assert costs["training_hours"] * 3600 == pytest.approx(9 + 9 / 3 + 10 / 2)
    assert costs["compile_minutes"] * 60 == 9
    assert costs["tokens/s"] == pytest.approx((3 * 300 + 5 * 100) / 8)


def test_costs_count_a_restart_once():
    resumed = {"step": 11, "loss": 4.0, "compile_seconds": 7.0}
    costs = run_costs([*METRICS[:2], resumed, METRICS[2]])
    assert costs["training_hours"] * 3600 == pytest.approx(9 + 9 / 3 + 7 + 9 / 2)


def test_training_flops_are_rate_times_time():
    rated = {**METRICS[1], "flops/s": 1e12}
    assert run_costs([METRICS[0], rated])["training_flops"] == pytest.approx(3e12)


def ended(evaluation):
    """How a run ended."""
    return SimpleNamespace(step=20, evaluation=evaluation, wall_time="1:30: steps 66.0 %")


def translation_run(test):
    test = TfdsPairs(test, "test") if "wmt14" in test else BundledPairs()
    task = replace(tiny.EXPERIMENT.task, test=test)
    evaluation = Evaluation(
        metrics={"bleu": 26.9, "bleu_compound": 27.4},
        samples=[("a house", "ein Haus", "ein Haus")],
        notes=["BLEU|x"],
    )
    return experiment_of(task), ended(evaluation)


def test_figures_and_lists_of_an_evaluation_are_in_the_report(folder):
    experiment, result = translation_run("bundled")
    figure = Figure(figsize=(1, 1))
    result.evaluation.figures["Confusion matrix, test set"] = figure
    result.evaluation.lists |= {"Classes": ["a_b: 1 of 2 found"], "Wrong": []}
    text = report_run(folder, experiment, result).read_text()
    assert "![Confusion matrix, test set](confusion_matrix_test_set.png)" in text
    assert (folder / "confusion_matrix_test_set.png").exists()
    assert "## Classes\n\n- a\\_b: 1 of 2 found" in text and "## Wrong\n\nNone." in text


def test_a_paper_run_stands_beside_the_paper(folder):
    text = report_run(folder, *translation_run("wmt14_translate/de-en")).read_text()
    assert "| Transformer big | 28.4 | - | 2.3e+19 |" in text
    assert "| **this run** (run) | 27.4 | 26.9 | - |" in text
    assert "not comparable" not in text
    assert "| training time | 0:17 (0:09 of it compiling) |" in text


def test_a_run_on_other_sentences_says_that_it_is_not_comparable(folder):
    assert "not comparable" in report_run(folder, *translation_run("bundled")).read_text()


def glue_report(folder, metrics, name="mrpc", **fields):
    task = SequenceClassification(BertConfig.tiny(), Glue(name), **fields)
    result = ended(Evaluation(metrics))
    return report_run(folder, experiment_of(task), result).read_text()


def test_a_glue_run_stands_beside_the_paper_and_its_predecessors(folder):
    text = glue_report(folder, {"dev_accuracy": 86.52, "dev_f1": 90.31})
    dev, test = text.split("## Beside published results, mrpc of GLUE, ")[1:]
    assert "| model | accuracy (%) | F1 (%) |" in dev
    assert "| BERT base, cased (transformers' example) | 84.07 | 88.85 |" in dev
    assert "| **this run** (run) | 86.52 | 90.31 |" in dev
    assert test.startswith("test set\n\n| model | F1 (%) |")
    assert "| OpenAI GPT | 82.3 |" in test and "| BERT large | 89.3 |" in test
    # What was found on the development set never stands beside test results.
    assert "| **this run** (run) | - |" in test and "hand in the predictions" in test
    assert "not comparable" not in text


def test_both_sets_of_mnli_have_their_column(folder):
    metrics = {"dev_matched_accuracy": 84.4, "dev_mismatched_accuracy": 84.6, "dev_score": 84.5}
    text = glue_report(folder, metrics, "mnli")
    assert "| model | matched accuracy (%) | mismatched accuracy (%) |" in text
    assert "| **this run** (run) | 84.4 | 84.6 |" in text
    assert "| BERT base | 84.6 | 83.4 |" in text


def test_a_glue_run_evaluated_on_other_examples_says_that_it_is_not_comparable(folder):
    for dev in (TsvTexts("own.tsv"), Glue("rte", "dev"), Glue("mrpc", "train")):
        text = glue_report(folder, {"dev_accuracy": 99.0}, dev=dev)
        assert text.count("other examples: its row is not comparable") == 1
    tested = {"dev_accuracy": 86.0, "test_f1": 99.0}
    (_, test) = glue_report(folder, tested, test=TsvTexts("own.tsv")).split("GLUE, test set")
    assert "| **this run** (run) | 99 |" in test and "not comparable" in test


def squad_report(folder, dev, metrics):
    result = ended(Evaluation(metrics))
    task = SpanExtraction(BertConfig.tiny(), TfdsSquad(), dev=dev)
    return report_run(folder, experiment_of(task), result).read_text()


def test_a_squad_run_stands_beside_its_versions_results(folder):
    metrics = {"exact": 80.9, "f1": 88.4}
    dev, test = squad_report(folder, SquadJson("x/dev-v1.1.json"), metrics).split("1.1, test set")
    assert "| model | exact match (%) | F1 (%) |" in dev
    assert "| BERT base, single | 80.8 | 88.5 |" in dev and "| BiDAF + ELMo, single | - |" in dev
    assert "| **this run** (run) | 80.9 | 88.4 |" in dev
    assert "| Human | 82.3 | 91.2 |" in test and "| **this run** (run) | - | - |" in test
    assert "not comparable" not in dev + test
    second = squad_report(folder, TfdsSquad("squad/v2.0", "validation"), metrics)
    assert "SQuAD 2.0" in second and "| BERT large, single | 78.7 | 81.9 |" in second
    assert "SQuAD 1.1" not in second and "not comparable" not in second


def test_a_share_of_squads_questions_is_not_comparable(folder):
    metrics = {"exact": 80.9, "f1": 88.4}
    for dev in (TfdsSquad(split="validation[:5%]"), SquadJson("trivia.json")):
        assert squad_report(folder, dev, metrics).count("other questions: its row is not") == 1


def test_bundled_data_stands_beside_no_paper(folder):
    for task in (
        SequenceClassification(BertConfig.tiny(), Glue("mrpc")).rehearsal(),
        SpanExtraction(BertConfig.tiny(), TfdsSquad()).rehearsal(),
    ):
        assert task.published({"dev_accuracy": 1.0, "exact": 1.0}) == []


def test_a_run_without_evaluation_has_a_report(folder):
    run, _ = translation_run("bundled")
    text = report_run(folder, run, ended(None)).read_text()
    assert "| steps | 20 |" in text
    assert "| wall time | 1:30: steps 66.0 % |" in text


MASKED = tasks.MaskedLanguage(BertConfig(), data=BundledDocuments())
HELP = tasks.SequenceClassification(BertConfig(), data=BundledHelp())


def test_the_masks_of_the_command_are_those_of_the_vocabulary():
    assert MASKED.line == "The economy is [MASK]."
    roberta = tasks.MaskedLanguage(
        BertConfig.roberta(),
        BundledDocuments(),
        pretraining=Pretraining(next_sentence=False),
        weights="FacebookAI/roberta-base",
    )
    assert roberta.line == "The economy is <mask>."


def test_the_line_of_a_classifier_is_of_its_datas_kind():
    assert HELP.line == "Insert a page break before the paragraph."
    assert replace(HELP, data=BundledMovies()).line == "A charming film."


def test_the_command_to_try_a_run_is_that_of_its_task(folder):
    _, result = translation_run("bundled")
    run = experiment_of(SimpleNamespace(verb="", published=lambda _: []))
    assert "Use it" not in report_run(folder, run, result).read_text()
    for task, verb in [
        (tasks.Translation, "translate"),
        (MASKED, "fill-mask"),
        (HELP, "classify"),
        (tasks.SpanExtraction, "answer"),
        (tasks.TokenClassification, "tag"),
    ]:
        run.task.verb, run.task.line = task.verb, task.line
        assert f"| jaxformers {verb} {folder}" in report_run(folder, run, result).read_text()


def test_the_closing_command_gives_the_verb_what_it_reads(tmp_path):
    for task in (MASKED, tasks.SpanExtraction):
        *_, last_line = summary_lines(tmp_path, Evaluation({}), task)
        completed = subprocess.run(
            ["bash", "-c", last_line.split(": ")[1].split(" | ")[0]], stdout=-1
        )
        assert completed.stdout.decode() == task.line + "\n"
    assert last_line.startswith("for your own inputs: printf ")
    assert not any("your own" in line for line in summary_lines(tmp_path, Evaluation({}), Task))

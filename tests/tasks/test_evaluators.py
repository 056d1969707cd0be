"""Evaluators: several on one model, their metrics merged, and an experiment that names its own."""

from dataclasses import dataclass, replace

import pytest
import tiny

from jaxformers.errors import ConfigError
from jaxformers.tasks.evaluator import Evaluation, Evaluator, merge_evaluations, run_evaluators
from jaxformers.tasks.processor import Processor
from jaxformers.training.config.experiment_files import from_json, to_json
from jaxformers.training.config.overrides import override
from jaxformers.training.loop import train


@dataclass(frozen=True)
class Constant:
    """An evaluator that reports one number."""

    name: str
    metric: str
    value: float = 1.0

    def evaluate(self, model, variables, processor, *, final):
        metrics = {self.metric: self.value} | ({f"{self.metric}_final": 2.0} if final else {})
        return Evaluation(metrics, notes=[f"by {self.name}"])


def test_the_metrics_of_all_evaluators_are_merged():
    evaluators = (Constant("first", "a"), Constant("second", "b", 3.0))
    assert all(isinstance(evaluator, Evaluator) for evaluator in evaluators)
    merged = run_evaluators(evaluators, None, {}, Processor(), final=False)
    assert merged.metrics == {"a": 1.0, "b": 3.0}
    assert merged.notes == ["by first", "by second"]
    assert run_evaluators((), None, {}, Processor(), final=True) == Evaluation({})


def test_two_evaluators_with_a_metric_of_one_name_are_refused_by_their_names():
    evaluators = (Constant("first", "a"), Constant("second", "a"))
    with pytest.raises(ConfigError, match="'first' and 'second' both give 'a'"):
        run_evaluators(evaluators, None, {}, Processor(), final=False)
    sets = [Evaluation({}, predictions={"test": []})] * 2
    with pytest.raises(ConfigError, match=r"both give 'test\.tsv'"):
        merge_evaluations(evaluators, sets)


@pytest.mark.slow
def test_an_experiment_names_evaluators_in_place_of_its_tasks(tmp_path):
    evaluators = (Constant("first", "a"), Constant("second", "b"))
    task = replace(tiny.EXPERIMENT.task, model=replace(tiny.MODEL, max_length=48))
    rehearsal = replace(tiny.EXPERIMENT, task=task).rehearse()
    experiment = replace(rehearsal, evaluate_every=2, evaluators=evaluators)
    result = train(experiment, tmp_path / "run")
    assert result.evaluation.metrics == {"a": 1.0, "a_final": 2.0, "b": 1.0, "b_final": 2.0}
    assert experiment.rehearse().evaluators == ()
    saved = to_json(experiment)
    assert from_json(saved, [Constant]).evaluators == evaluators
    assert override(experiment, ["--steps", "3"], "train").evaluators == evaluators
    assert override(tiny.EXPERIMENT, ["--steps", "3"], "train").evaluators == ()


def test_evaluators_of_one_name_are_refused():
    twice = (Constant("first", "a"), Constant("first", "b"))
    with pytest.raises(ConfigError, match="share the name first"):
        replace(tiny.EXPERIMENT, evaluators=twice)

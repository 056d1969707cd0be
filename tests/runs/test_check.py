"""`check` passes on what is right, and names what was broken."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import jaxformers.sharding.table as table
from jaxformers.cli.command import main
from jaxformers.costs.xla_warnings import uncached
from jaxformers.errors import ConfigError
from jaxformers.layers import blocks, norm
from jaxformers.runs import check, check_steps, check_subject, golden
from jaxformers.sharding import Row
from jaxformers.training import experiment as experiments
from jaxformers.training import step
from jaxformers.training.config.experiment_files import load_experiment

DEMO = Path(__file__).resolve().parents[2] / "experiments" / "translation" / "demo.py"


def demo(**changes):
    experiment = load_experiment(DEMO)
    model = replace(experiment.task.model, **changes)
    return replace(experiment, task=replace(experiment.task, model=model))


def ask(name, experiment=None, file=DEMO):
    """One part's finding."""
    experiment = experiment or demo()
    content = golden.read(golden.find(experiment, file))
    return run_check(name, check.Subject(experiment, content, False))


def run_check(name, subject):
    with uncached():
        return check._asked(name, check.PARTS[name], subject)


def test_the_command_passes_on_a_good_experiment(capsys):
    assert main(["check", str(DEMO)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == list(check.PARTS)
    assert all(" ok: " in line for line in lines)


@pytest.mark.default_cases(2)
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"norm_epsilon": 1e-5}, "norm_epsilon is 1e-05, in the golden file 1e-06"),
        ({"activation": "gelu"}, "activation is gelu, in the golden file relu"),
        ({"norm_position": "post"}, "norm_position is post, in the golden file pre"),
        ({"positions": "marian"}, "positions is marian, in the golden file interleaved"),
        ({"scale_embedding": False}, "scale_embedding is False, in the golden file True"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_changed_choice_is_named_with_both_values_and_moves_the_numbers(change, named):
    finding = ask("outputs", demo(**change))
    assert not finding.ok and f"task.model.{named}" in finding.text
    assert "off by" in finding.text or "more" in finding.text or "post" in named


@pytest.mark.slow
def test_a_copy_of_an_experiment_elsewhere_is_held_against_the_originals_golden_file(
    tmp_path, capsys, monkeypatch
):
    copy = tmp_path / "mine.py"
    copy.write_text(DEMO.read_text().replace("dropout=0.1,", "dropout=0.1, norm_epsilon=1e-5,"))
    monkeypatch.setattr(check, "PARTS", {"outputs": check.PARTS["outputs"]})
    monkeypatch.chdir(tmp_path)
    assert main(["check", str(copy)]) == 1
    assert "norm_epsilon is 1e-05, in the golden file 1e-06" in capsys.readouterr().out


@pytest.mark.slow
def test_a_changed_epsilon_in_the_norms_code_is_caught(monkeypatch):
    rsqrt = jax.lax.rsqrt
    monkeypatch.setattr(norm.jax.lax, "rsqrt", lambda x: rsqrt(x + 9e-6))
    finding = ask("outputs")
    assert not finding.ok and "on small inputs are off by" in finding.text
    assert "golden file" not in finding.text  # no field differs: the code does


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("broken", ["activation", "mask", "scale", "residual"])
def test_changed_code_is_caught(broken, monkeypatch):
    from jaxformers.layers.attention import multi_head as attention

    def no_mask(self, queries, keys):
        return None

    if broken == "activation":
        monkeypatch.setattr(blocks, "activate", lambda x, kind: jax.nn.leaky_relu(x, 0.01))
    elif broken == "mask":
        monkeypatch.setattr(attention.Mask, "array", no_mask)
    elif broken == "scale":
        scaled = attention.MultiHeadAttention.queries
        monkeypatch.setattr(
            attention.MultiHeadAttention, "queries", lambda self, x: 1.01 * scaled(self, x)
        )
    else:
        before = blocks._Block.residual

        def doubled(self, x, norm, sublayer, **kwargs):
            return before(self, x, norm, lambda y: 1.001 * sublayer(y), **kwargs)

        monkeypatch.setattr(blocks._Block, "residual", doubled)
    finding = ask("outputs")
    assert not finding.ok and "off by" in finding.text


def with_table(monkeypatch, rows):
    monkeypatch.setattr(experiments, "TABLE", rows)


def test_a_removed_sharding_row_is_named_by_the_parameter_that_needs_it(monkeypatch):
    rows = tuple(row for row in table.TABLE if "up|gate)/kernel" not in row.pattern)
    assert len(rows) == len(table.TABLE) - 1
    with_table(monkeypatch, rows)
    finding = ask("sharding")
    assert not finding.ok
    assert "no sharding row matches the parameter 'decoder/blocks/feed_forward/up/kernel'" in (
        finding.text
    )


def test_a_parameter_that_is_no_longer_divided_is_named_with_its_axes_then_and_now(monkeypatch):
    rows = tuple(
        Row(row.pattern, (None, None), row.pad) if row.axes == ("vocab", "embed") else row
        for row in table.TABLE
    )
    with_table(monkeypatch, rows)
    finding = ask("sharding")
    assert not finding.ok
    assert (
        "token_embedding/table has axes (-, -), in the golden file (vocab, embed)" in finding.text
    )
    assert "mesh (-, -), in the golden file (tensor, fsdp)" in finding.text


def test_an_axis_that_no_mesh_axis_divides_any_more_is_named(monkeypatch):
    monkeypatch.setitem(table.PARAMETER_AXES, "mlp", None)
    finding = ask("sharding")
    assert not finding.ok and "feed_forward/up/kernel has mesh (-, fsdp, -)" in finding.text


def test_optimizer_state_that_does_not_follow_is_named(monkeypatch):
    from jaxformers.training import state

    replicated = jax.sharding.PartitionSpec()

    def undivided(tree, params, where, mesh):
        return jax.tree.map(lambda _: jax.sharding.NamedSharding(mesh, replicated), tree)

    monkeypatch.setattr(state, "like_parameters", undivided)
    finding = ask("sharding")
    assert not finding.ok and "the optimizer's" in finding.text and "mu/" in finding.text


def test_another_size_is_named():
    finding = ask("sharding", demo(width=96))
    assert not finding.ok and "shape (2, 96, 4, 24), in the golden file" in finding.text


def on_one_mesh(monkeypatch, shape):
    for name in ("DATA", "FSDP", "ALL"):
        monkeypatch.setattr(check_steps, name, shape)


@pytest.mark.slow
def test_an_added_collective_is_named_with_its_operation(monkeypatch):
    plain = blocks.constrain

    def gathered(x, *axes):
        x = plain(x, *axes)
        if axes[-1] != "mlp":
            return x
        mesh = jax.sharding.get_abstract_mesh()
        replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        return jax.lax.with_sharding_constraint(x, replicated)

    monkeypatch.setattr(blocks, "constrain", gathered)
    on_one_mesh(monkeypatch, check_steps.DATA)
    finding = ask("collectives")
    assert not finding.ok and "on (8, 1, 1) an unexplained all-gather over data" in finding.text
    assert "feed_forward" in finding.text and "%all-gather" in finding.text


@pytest.mark.slow
def test_flattened_gradients_are_found_to_be_gathered(monkeypatch):
    # `jnp.vdot` in the train step gathered every divided gradient whole: what `check` is for.
    class Flattening:
        square = staticmethod(lambda g: jnp.vdot(g, g))

        def __getattr__(self, name):
            return getattr(jnp, name)

    monkeypatch.setattr(step, "jnp", Flattening())
    on_one_mesh(monkeypatch, check_steps.ALL)
    finding = ask("collectives")
    assert not finding.ok and "all-gather over" in finding.text and "reshape" in finding.text


@pytest.mark.slow
def test_waste_that_xla_warns_of_is_named(monkeypatch):
    from jaxformers.layers.embeddings import TokenEmbedding

    monkeypatch.setattr(TokenEmbedding, "_gathered", lambda self: self.table)
    experiment = demo()
    subject = check.Subject(experiment, {}, False)
    with uncached():
        subject.steps(check_subject.ALL)
    assert any("Involuntary full rematerialization" in line for line in subject.warned)
    for shape in (check_subject.ONE, check_subject.DATA, check_subject.FSDP):
        subject.programs[shape] = subject.programs[check_subject.ALL]
    finding = run_check("waste", subject)
    assert not finding.ok and "Involuntary full rematerialization" in finding.text


@pytest.mark.slow
def test_other_losses_are_named_with_the_field_that_moved_them(monkeypatch):
    content = golden.read(golden.find(demo(), DEMO))
    changed = replace(demo(), seed=1)
    subject = check.Subject(changed, content, False)
    monkeypatch.setattr(check_steps, "ALL", check_steps.ONE)
    finding = run_check("training", subject)
    assert not finding.ok and "seed is 1, in the golden file 0" in finding.text


def test_without_a_golden_file_it_says_how_to_make_one(tmp_path, monkeypatch):
    nameless = replace(demo(), name="never_seen")
    monkeypatch.setattr(check, "PARTS", {"sharding": check.PARTS["sharding"]})
    (finding,) = check.check(nameless, tmp_path / "x.py", report=lambda line: None)
    assert not finding.ok and "no golden file for 'never_seen'" in finding.text
    assert "--update" in finding.text


def test_update_writes_the_golden_file_beside_the_experiment(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "PARTS", {"sharding": check.PARTS["sharding"]})
    findings = check.check(demo(), tmp_path / "x.py", update=True, report=lambda line: None)
    assert all(f.ok for f in findings)
    content = json.loads((tmp_path / "golden" / "demo.json").read_text())
    assert content["parameters"] == golden.read(golden.find(demo(), DEMO))["parameters"]
    assert all(f.ok for f in check.check(demo(), tmp_path / "x.py", report=lambda line: None))


def test_update_writes_nothing_while_a_part_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "PARTS", {"sharding": check.PARTS["sharding"]})
    with_table(monkeypatch, table.TABLE[1:])
    findings = check.check(demo(), tmp_path / "x.py", update=True, report=lambda line: None)
    assert not any(f.ok for f in findings) and not (tmp_path / "golden").exists()


@pytest.mark.parametrize("content", ["{", "[1]", "[" * 100_000])
def test_a_damaged_golden_file_is_one_line(tmp_path, content):
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden" / "demo.json").write_text(content)
    with pytest.raises(ConfigError, match=r"demo.json cannot be read.*--update"):
        check.check(demo(), tmp_path / "x.py")


def test_a_model_that_breaks_is_a_line_not_a_traceback(monkeypatch):
    def broken(self, x, **_):
        raise TypeError("a mistake in the model\nwith more lines")

    monkeypatch.setattr(blocks.FeedForward, "__call__", broken)
    finding = ask("outputs")
    assert not finding.ok and finding.text == "TypeError: a mistake in the model"

"""The names of pods: what is known, what is near, what libtpu says of it."""

import importlib.util
import signal

import jax
import pytest

from jaxformers import planning
from jaxformers.cli import command
from jaxformers.cli import plan as cli_plan
from jaxformers.errors import ConfigError
from jaxformers.planning import GENERATIONS, local_pod, topologies, tpu_pod

LIBTPU = importlib.util.find_spec("libtpu") is not None
needs_libtpu = pytest.mark.skipif(not LIBTPU, reason=f"no libtpu: {topologies.INSTALL}")
EXPERIMENT = "experiments/translation/demo.py"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5e:16x17", "no topology 'v5e:16x17'; did you mean v5e:8x8 or v5e:8x16 or v5e:16x16?"),
        ("v5litepod-256", "did you mean v5e:8x8 or v5e:8x16 or v5e:16x16?"),
        ("v4:4x4", "did you mean v4:2x2x2 or v4:2x2x4 or v4:2x4x4?"),
        ("tpu7:2x2x2", "did you mean tpu7x:2x2x1 or tpu7x:2x2x2 or tpu7x:2x2x4?"),
        ("2xv6e:3x3", "did you mean v6e:2x2 or v6e:2x4 or v6e:4x4?"),
        ("A100", "generations are v2, v3, v4, v5e, v5p, v6e, tpu7x"),
        ("0xv5e:4x4", "0 slices of v5e:4x4: it is at least 1"),
    ],
)
def test_an_unknown_topology_names_those_near_it(name, message):
    with pytest.raises(ConfigError) as raised:
        tpu_pod(name)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_slices_are_said_once():
    with pytest.raises(ConfigError, match="2 slices, but --slices says 4"):
        tpu_pod("2xv5e:4x4", 4)


def test_without_libtpu_the_command_to_install_it_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"TPU compiler: pip install 'landmark-transformers\[tpu\]'"
    ):
        tpu_pod("v5e:4x4")


def test_cubes_of_a_3d_torus_go_up_to_the_largest_slice():
    assert GENERATIONS["v5p"].names[:5] == ["2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4"]
    assert "16x16x24" in GENERATIONS["v5p"].names and "16x16x24" not in GENERATIONS["v4"].names


def test_devices_here_are_a_pod_and_a_data_sheet_may_be_lent_to_them():
    pod = local_pod(jax.devices()[:8], "v5e")
    assert (pod.chips, pod.cores, pod.chip.name) == (8, 1, "v5e")
    assert local_pod().chip is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--topology", "v5e:4x5"], "no topology 'v5e:4x5'; did you mean"),
        (["--price", "-1"], "--price: -1.0 is no price"),
        (["--price", "nan"], "--price: nan is no price"),
        (["--slices", "2"], "--slices is of a TPU pod: name it with --topology"),
        (["--search", "--json"], "--search prints a table"),
        (["--search", "--quick"], "--search prints a table"),
        (["--search", "--mesh.fsdp", "2"], "--search chooses --mesh.fsdp by itself"),
        (["--picture", "a.nothing"], "no kind of picture ends in"),
        (["--mesh.data", "3"], "takes 3 devices, but there are 8"),
        (["--mesh.fsdp", "5"], "takes a multiple of 5 devices, but there are 8"),
        (["--topologie", "v5e:4x4"], "unknown option --topologie; did you mean --topology?"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(capfd, words, message):
    assert command.main(["plan", EXPERIMENT, *words]) == 2
    out, err = capfd.readouterr()
    assert message in err and err.count("\n") == 1 and out == ""


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "chips", "devices", "chip"),
    [
        ("v2:4x4", 16, 32, "v2"),
        ("v3:8x8", 64, 128, "v3"),
        ("v4:2x2x2", 8, 8, "v4"),
        ("v5e:1x1", 1, 1, "v5e"),
        ("2xv5e:4x4", 32, 32, "v5e"),
        ("v5p:2x2x4", 16, 16, "v5p"),
        ("v6e:16x16", 256, 256, "v6e"),
        ("tpu7x:2x2x2", 8, 16, "tpu7x"),
    ],
)
def test_libtpu_knows_the_chips_of_every_generation(name, chips, devices, chip):
    pod = tpu_pod(name)
    assert (pod.chips, len(pod.devices), pod.chip.name) == (chips, devices, chip)
    assert pod.name == name


CRASH = -signal.SIGSEGV


@pytest.mark.parametrize(
    ("ends", "status", "messages"),
    [
        ({"mixed": CRASH, "full": 0}, 0, ["(SIGSEGV) at less than its full effort; compiling at"]),
        ({"mixed": CRASH, "full": CRASH}, 2, ["compiling at full effort", "also at its full eff"]),
        ({"mixed": -signal.SIGTERM}, 128 + signal.SIGTERM, []),
        ({"mixed": 1}, 1, []),
    ],
)
def test_a_crash_of_the_compiler_is_followed_by_a_plan_at_full_effort(
    monkeypatch, capsys, ends, status, messages
):
    left = dict(ends)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(cli_plan, "_in_a_process", lambda words, effort: left.pop(effort))
    assert command.main(["plan", EXPERIMENT, "--topology", "v5e:2x2"]) == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(messages) and all(map(str.__contains__, lines, messages))
    assert not left


@pytest.mark.parametrize("effort", ["least", "full"])
def test_the_process_plans_at_the_effort_that_it_was_given(monkeypatch, capsys, effort):
    def plan(experiment, topology, *, effort, **choices):
        raise ConfigError(f"planned at {effort} effort")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv(cli_plan.INSIDE, effort)
    monkeypatch.setattr(planning, "plan", plan)
    assert command.main(["plan", EXPERIMENT, "--topology", "v5e:2x2"]) == 2
    assert f"planned at {effort} effort" in capsys.readouterr().err


@pytest.mark.slow
def test_what_the_process_says_is_heard_by_who_called_it(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert command.main(["plan", "no_such_file.py", "--topology", "v5e:2x2"]) == 2
    output = capsys.readouterr()
    assert "no_such_file.py" in output.err and output.err.count("\n") == 1
    assert output.out == ""

"""The first SIGTERM or Ctrl-C asks to stop, the second one stops at once."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jaxformers.training.signals import StopSignals

ROOT = Path(__file__).resolve().parents[2]
LOOP = """
import sys, time
from jaxformers.training.signals import StopSignals
step = 0
with StopSignals(report=lambda line: print(line, flush=True)) as stop:
    print("ready", flush=True)
    while not stop.reached(step) or sys.argv[1] == "stubborn":
        step += 1
        time.sleep(0.01)
print("saved after", stop.requested, flush=True)
"""


PAIR = f"""
import sys
import jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{{sys.argv[2]}}", 2, int(sys.argv[3]))
{LOOP}
print("step", step, flush=True)
"""


def loop(kind, *arguments, program=LOOP):
    child = subprocess.Popen(
        [sys.executable, "-c", program, kind, *map(str, arguments)],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if program == LOOP:
        assert child.stdout.readline() == "ready\n"
    return child


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_lets_the_loop_save_and_exit(number):
    child = loop("willing")
    child.send_signal(number)
    out, err = child.communicate(timeout=30)
    name = signal.Signals(number).name
    assert (child.returncode, err) == (0, "")
    assert out.splitlines() == [
        f"{name}: saving, then stopping; a second one stops at once",
        f"saved after {name}",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_exits_at_once(second):
    child = loop("stubborn")
    child.send_signal(signal.SIGTERM)
    assert child.stdout.readline().startswith("SIGTERM: saving")
    child.send_signal(second)
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out, err) == (128 + second, "", "")


def test_the_handlers_of_before_are_back_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopSignals(report=[].append) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested == "SIGTERM"
        assert stop.reached(3)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_message_that_cannot_be_printed_does_not_stop_the_run():
    def reentrant(line):
        raise RuntimeError("reentrant call")

    with StopSignals(report=reentrant) as stop:
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.requested == "SIGINT"


def test_outside_the_main_thread_it_does_nothing():
    results = []

    def work():
        with StopSignals() as stop:
            results.append(stop.reached(1))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [False]


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_to_one_of_two_processes_stops_both_after_the_same_step(number):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    pair = [loop("willing", port, process, program=PAIR) for process in range(2)]
    for child in pair:
        while (line := child.stdout.readline()) != "ready\n":
            assert line, child.stderr.read()
    pair[1].send_signal(number)
    outputs = [child.communicate(timeout=60) for child in pair]
    assert [child.returncode for child in pair] == [0, 0], outputs
    steps = [out.splitlines()[-1] for out, _ in outputs]
    assert steps[0] == steps[1]
    assert steps[0].startswith("step ")

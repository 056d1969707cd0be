"""The first SIGTERM or Ctrl-C asks to stop, the second one stops at once."""

import os
import signal
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
with StopSignals(say=lambda line: print(line, flush=True)) as stop:
    print("ready", flush=True)
    while not stop.reached(step) or sys.argv[1] == "stubborn":
        step += 1
        time.sleep(0.01)
print("saved after", stop.requested, flush=True)
"""


def loop(kind):
    child = subprocess.Popen(
        [sys.executable, "-c", LOOP, kind],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "ready\n"
    return child


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
    with StopSignals(say=[].append) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested == "SIGTERM"
        assert stop.reached(3)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_message_that_cannot_be_printed_does_not_stop_the_run():
    def reentrant(line):
        raise RuntimeError("reentrant call")

    with StopSignals(say=reentrant) as stop:
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

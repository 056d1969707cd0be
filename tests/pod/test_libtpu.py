"""What libtpu is told."""

import os

from jaxformers.pod.libtpu import ARGUMENTS, give_compiler_stacks


def test_the_stacks_are_asked_for_once_beside_what_is_given(monkeypatch):
    monkeypatch.setenv(ARGUMENTS, "--xla_tpu_something=true")
    give_compiler_stacks()
    give_compiler_stacks()
    expected = "--xla_tpu_something=true --fibers_default_thread_stack_size=1048576"
    assert os.environ[ARGUMENTS] == expected


def test_a_size_that_is_given_stays(monkeypatch):
    monkeypatch.setenv(ARGUMENTS, "--fibers_default_thread_stack_size=7")
    give_compiler_stacks()
    assert os.environ[ARGUMENTS] == "--fibers_default_thread_stack_size=7"

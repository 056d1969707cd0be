import itertools
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stores import random_store

from jaxformers.data import Bucketing, Packing, batches
from jaxformers.errors import DataError

STORE = random_store(500)
PLANS = {
    "packing": Packing(24, 32, 8).plan(STORE),
    "bucketing": Bucketing(((16, 6, 6), (8, 12, 12))).plan(STORE),
}


def read(plan, count, **options):
    iterator = batches(STORE, plan, seed=11, **options)
    result = list(itertools.islice(iterator, count))
    iterator.close()
    return result


def assert_equal(first, second):
    assert len(first) == len(second)
    for first_batch, second_batch in zip(first, second, strict=True):
        assert first_batch.keys() == second_batch.keys()
        assert all(np.array_equal(first_batch[name], second_batch[name]) for name in first_batch)


@pytest.fixture(params=PLANS)
def plan(request):
    return PLANS[request.param]


def test_batches_are_those_of_the_plan(plan):
    assert_equal(read(plan, 9, start=0), [plan.batch(STORE, 11, step) for step in range(9)])


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_together_read_what_one_host_reads(plan, hosts):
    expected = read(plan, 12)
    by_host = [read(plan, 12, host=host, hosts=hosts) for host in range(hosts)]
    joined = [
        {name: np.concatenate([batch[name] for batch in step]) for name in step[0]}
        for step in zip(*by_host, strict=True)
    ]
    assert_equal(joined, expected)


def test_a_later_start_gives_the_batches_of_the_uninterrupted_run(plan):
    assert_equal(read(plan, 10, start=25), read(plan, 35)[25:])


def shared_memory() -> set[str]:
    """What lies in shared memory, but for scikit-learn's, whose tests may run beside this one."""
    folder = Path("/dev/shm")
    names = os.listdir(folder) if folder.is_dir() else []
    return {name for name in names if "loky" not in name}


def test_workers_give_the_batches_of_no_workers_and_leave_nothing_behind():
    plan = PLANS["bucketing"]
    before = shared_memory()
    workers = read(plan, 12, start=3, host=1, hosts=2, workers=2)
    assert_equal(workers, read(plan, 12, start=3, host=1, hosts=2))
    assert not multiprocessing.active_children()
    assert shared_memory() <= before


def test_rows_that_hosts_do_not_divide_are_refused(plan):
    with pytest.raises(DataError, match=r"do not divide by 3 hosts: use a multiple of 3"):
        batches(STORE, plan, seed=0, hosts=3)
    with pytest.raises(DataError, match="host 2 of 2"):
        batches(STORE, plan, seed=0, host=2, hosts=2)


HELPERS = Path(__file__).resolve().parents[2] / "helpers"
SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
from stores import random_store
from jaxformers.data import Packing, batches
{guard}
    store = random_store(100)
    iterator = batches(store, Packing(24, 32, 8).plan(store), seed=0, workers=1)
    print(next(iterator)["source_ids"].shape)
"""


def run(script, guard):
    script.write_text(SCRIPT.format(folder=str(HELPERS), guard=guard))
    return subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=100, check=False
    )


def test_a_script_that_never_closes_its_batches_ends_without_a_word(tmp_path):
    done = run(tmp_path / "script.py", "if __name__ == '__main__':")
    assert (done.returncode, done.stdout, done.stderr) == (0, "(8, 24)\n", "")


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_told_so(tmp_path):
    done = run(tmp_path / "script.py", "if True:")
    assert done.returncode == 1
    assert "needs `if __name__ == '__main__':`" in done.stderr.splitlines()[-1]

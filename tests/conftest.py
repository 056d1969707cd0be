"""Eight emulated CPU devices, checked shapes, strict types, a compilation cache in the checkout."""

import gc
import os
import shutil
from collections import Counter
from importlib.metadata import version
from pathlib import Path

CACHE = Path(__file__).resolve().parents[1] / ".cache"
# Child processes inherit these: the commands that tests run compile and tokenize once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAXFORMERS_CACHE", str(CACHE / "jaxformers"))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Tests compile far more than they compute: LLVM's optimising would be half of their time, and XLA's
# newer way to compile fusions a third of the rest. JAX 0.11 may not know that flag any more.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if version("jaxlib").startswith("0.10."):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

import jax  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# The files that take the longest begin first, so that the workers end together.
LONG = (
    "training/test_loop",
    "planning/test_planner",
    "tasks/images/test_image_tasks",
    "training/test_step",
    "decoding/test_search",
    "runs/test_check",
    "tasks/text/test_masked_language",
    "pod/test_rehearsed_pod",
    "models/test_resnet",
)

MAX_MAPPINGS = 20_000

CHECKED = ["sharding", "layers", "models", "decoding", "tasks.losses"]
install_import_hook([f"jaxformers.{room}" for room in CHECKED], "beartype.beartype")


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by `-m`
def pytest_collection_modifyitems(items):
    """Marks parametrised cases beyond `default_cases(n)` as slow; the longest files go first."""
    num_cases = Counter()
    for item in items:
        if marker := item.get_closest_marker("default_cases"):
            function = (item.path, item.originalname)
            num_cases[function] += 1
            if num_cases[function] > marker.args[0]:
                item.add_marker(pytest.mark.slow)
    order = {f"{file}.py": index for index, file in enumerate(LONG)}
    tests = Path(__file__).parent
    items.sort(key=lambda item: order.get(str(item.path.relative_to(tests)), len(LONG)))


@pytest.fixture(autouse=True, scope="module")
def _unloaded_programs():
    """Unloads JAX's compiled programs after a file of tests, once they are many.

    A program for CPU takes a few memory mappings, of which Linux gives a process 65,530. Beyond
    them LLVM and XLA crash; the largest file of tests takes 26,000.
    """
    yield
    mappings = Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > MAX_MAPPINGS:
        jax.clear_caches()
        gc.collect()


def _without_waste(item):
    """Fails a test during which XLA warned of a full rematerialization, in fixtures too."""
    from jaxformers.costs.xla_warnings import captured_xla_warnings

    if {"capfd", "capfdbinary"} & set(item.fixturenames):  # they redirect standard error too
        return (yield)
    with captured_xla_warnings() as warnings:
        result = yield
    if warnings:
        # A cached program warns no more, and the next run would pass.
        shutil.rmtree(CACHE / "jax", ignore_errors=True)
        pytest.fail(f"a compile in this test wastes memory:\n{warnings[0]}", pytrace=False)
    return result


# Innermost, for pytest redirects standard error around them.
@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_setup(item):
    return (yield from _without_waste(item))


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item):
    return (yield from _without_waste(item))

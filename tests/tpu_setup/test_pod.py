"""What `tpu_setup/pod` asks of the cloud, when all goes well and when it does not."""

from __future__ import annotations

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pods import GKE, VM, Pod, programs, repository

GOLDEN = Path(__file__).parent / "golden"
TWO_SLICES = VM.replace("v5e:4x4\n", "v5e:4x4\nslices = 2\n")

# name: configuration, orders to the stand-in, verbs, exit status of the last verb.
CASES = {
    "all_goes_well": (VM, {"grants": [["PROVISIONING", "ACTIVE"]]}, ["run"], 0),
    "preempted": (
        TWO_SLICES,
        {"runs": [["running", "preempted"], ["running", "0"]]},
        ["run"],
        0,
    ),
    "preempted_resume_by_hand": (
        VM,
        {"runs": [["running", "preempted"], ["running"]]},
        ["create", "bootstrap", "launch", "launch", "resume", "status", "resume", "resume"],
        0,
    ),
    "preempted_while_installing": (
        VM,
        {"ssh": [None, "fail"], "grants": [["ACTIVE", "SUSPENDED"]]},
        ["run"],
        0,
    ),
    "quota": (VM, {"create": ["quota"]}, ["run"], 1),
    "create_timed_out_but_made": (VM, {"create": ["timeout"]}, ["create"], 0),
    "half_created": (VM, {"create": ["half"]}, ["create"], 1),
    "half_created_again": (VM, {"create": ["half"]}, ["create", "run"], 0),
    "not_listed": (VM, {"list": ["fail"] * 3}, ["run"], 1),
    "listed_at_the_second_try": (VM, {"list": ["timeout"]}, ["create"], 0),
    "a_host_fails_to_install": (VM, {"ssh": [None, "fail"]}, ["run"], 1),
    "stopped_with_a_checkpoint": (VM, {"runs": [["75"], ["running", "0"]]}, ["run"], 0),
    "a_peer_was_lost": (
        VM,
        {"runs": [["running", ["137", "134", "134", "134"]], ["0"]]},
        ["run"],
        0,
    ),
    "a_mistake": (VM, {"runs": [["running", ["2", "134", "134", "134"]]]}, ["run"], 1),
    "a_mistake_mended": (VM, {"runs": [["2"], ["running", "0"]]}, ["run", "resume", "run"], 0),
    "no_step_between_resumes": (VM, {"runs": [["134"] for _ in range(9)]}, ["run"], 1),
    "delete_timed_out": (VM, {"delete": ["timeout"]}, ["create", "delete"], 0),
    "delete_refused": (VM, {"delete": ["fail"]}, ["create", "delete"], 1),
    "delete_leaves_a_node": (VM, {"delete": ["half"]}, ["create", "delete"], 0),
    "delete_nothing": (VM, {}, ["delete"], 0),
    "logs_and_copy": (VM, {}, ["create", "bootstrap", "launch", "logs", "copy"], 0),
    "gke": (GKE, {}, ["run"], 0),
    "gke_step_by_step": (
        GKE,
        {"runs": [["running", "running", "running"]]},
        ["create", "create", "bootstrap", "bootstrap", "launch", "launch", "logs", "status"],
        0,
    ),
    "gke_quota": (GKE, {"pool": [None, "quota"]}, ["run"], 1),
    "gke_pool_timed_out_but_made": (GKE, {"pool": ["timeout"]}, ["create"], 0),
    "gke_half_created": (GKE, {"pool": ["half"]}, ["create"], 1),
    "gke_half_created_again": (GKE, {"pool": ["half"]}, ["create", "run"], 0),
    "gke_build_fails": (GKE, {"build": ["fail"]}, ["run"], 1),
    "gke_jobset_refused": (GKE, {"apply": ["fail"]}, ["run"], 1),
    "gke_a_mistake": (GKE, {"runs": [["Failed/FailJobSetFailurePolicyAction"]]}, ["run"], 1),
    "gke_too_many_restarts": (
        GKE,
        {"runs": [["Failed/ReachedMaxRestarts"], ["Completed/AllJobsCompleted"]]},
        ["run"],
        0,
    ),
    "gke_no_cluster": (GKE, {"cluster": ["fail"]}, ["run"], 1),
    "gke_delete_refused": (GKE, {"drop": ["fail"]}, ["create", "delete"], 1),
}


@pytest.fixture(scope="module")
def repo_and_bin(tmp_path_factory):
    """The repository and the stand-ins: no test changes them."""
    folder = tmp_path_factory.mktemp("made")
    return repository(folder / "repo"), programs(folder / "bin")


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("case", CASES)
def test_the_calls_are_those_of_the_golden_transcript(case, repo_and_bin, tmp_path):
    config, orders, verbs, status = CASES[case]
    pod = Pod(tmp_path / "cloud", *repo_and_bin, config, **orders)
    for verb in verbs:
        done = pod.say(verb)
    assert done.returncode == status, done.stderr
    text = pod.text()
    golden = GOLDEN / f"{case}.txt"
    if os.environ.get("GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()
    # Whatever happened, `status` lists what is alive, and a finished run leaves nothing.
    assert pod.listed() == pod.live()
    if verbs[-1] == "run" and status == 0:
        assert not pod.live() and pod.world()["copied"]


def changes(call: str) -> bool:
    """Whether a call changes anything; being killed at another is being killed before the next."""
    words = ("create ", "scp ", "install ", "start ", "submit ", "apply ", "rsync ", "delete ")
    return any(word in call for word in words)


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "config", [pytest.param(VM, id="vm"), pytest.param(GKE, id="gke", marks=pytest.mark.slow)]
)
def test_killed_at_any_call_the_same_command_again_comes_to_the_same_end(
    config, every, repo_and_bin, tmp_path
):
    uninterrupted = Pod(tmp_path / "whole", *repo_and_bin, config)
    uninterrupted.say("run")
    calls = [line for line in uninterrupted.transcript if line.startswith(("gcloud", "kubectl"))]
    end = {
        key: uninterrupted.world().get(key)
        for key in ("requests", "nodes", "pools", "images", "told")
    }

    def interrupted(at: int) -> None:
        pod = Pod(tmp_path / f"at-{at}", *repo_and_bin, config)
        assert pod.say("run", kill=at).returncode < 0
        assert pod.listed() == pod.live()
        done = pod.say("run")
        assert done.returncode == 0, done.stderr
        assert {key: pod.world().get(key) for key in end} == end
        assert not pod.live() and pod.world()["copied"]

    numbers = [n for n, call in enumerate(calls, 1) if every or changes(call)]
    assert len(numbers) >= 6
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(interrupted, numbers))


@pytest.mark.parametrize("config", [VM, GKE], ids=["vm", "gke"])
@pytest.mark.parametrize("verb", ["run", "create", "resume", "delete", "launch", "status"])
def test_a_dry_run_prints_the_commands_and_runs_none(verb, config, repo_and_bin, tmp_path):
    pod = Pod(tmp_path / "cloud", *repo_and_bin, config)
    done = pod.say(verb, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert pod.world()["calls"] == 0
    assert "gcloud " in done.stdout


@pytest.mark.parametrize("config", [VM, GKE], ids=["vm", "gke"])
def test_a_dry_run_prints_what_a_run_asks(config, repo_and_bin, tmp_path):
    ended = ["0"] if config == VM else ["Completed/AllJobsCompleted"]
    pod = Pod(tmp_path / "cloud", *repo_and_bin, config, runs=[ended])
    dry = pod.say("run", "--dry-run").stdout
    pod.transcript.clear()
    pod.say("run")

    def commands(lines: list[str]) -> list[list[str]]:
        called = [line.split()[:6] for line in lines if line.startswith(("gcloud", "kubectl"))]
        return [[word for word in words if "SCRATCH" not in word] for words in called]

    def hidden(text: str) -> list[str]:
        return re.sub(rf"{re.escape(str(pod.folder))}/tmp\.\w+", "SCRATCH", text).splitlines()

    assert commands(hidden(dry)) == commands(hidden("\n".join(pod.transcript)))


def test_what_the_run_is_told_reaches_the_hosts_word_for_word(repo_and_bin, tmp_path):
    pod = Pod(tmp_path / "cloud", *repo_and_bin)
    pod.say("run")
    arguments = ["--steps", "100", "--note", "it's $HOME; rm -rf *"]
    arguments = ["gs://my-bucket/runs/bert", "experiments/x.py", *arguments]
    # As the login shell of a host reads it.
    script = f"printf '%s\\n' {pod.world()['told']}"
    completed = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert completed.stdout.splitlines() == arguments


def test_another_ones_resources_are_listed_by_prefix_but_never_deleted(repo_and_bin, tmp_path):
    pod = Pod(tmp_path / "cloud", *repo_and_bin)
    world = pod.world()
    world["nodes"] = {"bert-large": "READY", "other": "READY", "bert-0": "READY"}
    pod.change(world)
    assert pod.listed() == {("node", "bert-large"), ("node", "bert-0")}
    assert pod.say("delete").returncode == 0
    assert set(pod.world()["nodes"]) == {"bert-large", "other"}


LISTS = [(VM, "list"), (VM, "nodes"), (GKE, "pools"), (GKE, "jobsets")]


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("printed", ["garbage", "like a list"])
@pytest.mark.parametrize(("config", "list"), LISTS, ids=[kind for _, kind in LISTS])
def test_an_answer_that_is_no_list_is_an_error_and_never_nothing(
    config, list, printed, repo_and_bin, tmp_path
):
    pod = Pod(tmp_path / "cloud", *repo_and_bin, config)
    pod.say("create")
    live = pod.live()
    world = pod.world()
    world["orders"] = {list: [printed] * 3}
    pod.change(world)
    done = pod.say("status")
    assert done.returncode == 1 and not done.stdout
    assert "could not be listed; what exists may cost money" in done.stderr
    assert (
        "this output is not a list of names and states" in done.stderr and "\x1b" not in done.stderr
    )
    assert pod.listed() == live  # asked again, it is seen
    if list != "jobsets":  # `delete` does not ask for them
        world["orders"] = {list: [printed] * 3}
        pod.change(world)
        done = pod.say("delete")
        assert done.returncode == 1 and "deleted all of" not in done.stderr
        assert pod.say("delete").returncode == 0 and not pod.live()


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("printed", ["nothing", "garbage"])
@pytest.mark.parametrize(("config", "list"), LISTS[:3], ids=[kind for _, kind in LISTS[:3]])
def test_delete_looks_again_before_it_says_that_nothing_is_left(
    config, list, printed, repo_and_bin, tmp_path
):
    pod = Pod(tmp_path / "cloud", *repo_and_bin, config)
    pod.say("create")
    world = pod.world()
    world["orders"] = {list: [printed], "delete": ["half"]}
    pod.change(world)
    done = pod.say("delete")
    assert done.returncode == 0 and "deleted all of bert" in done.stderr
    assert not pod.live()


def test_slices_of_another_type_than_the_file_asks_for_are_not_taken_for_its_own(
    repo_and_bin, tmp_path
):
    pod = Pod(tmp_path / "cloud", *repo_and_bin)
    assert pod.say("create").returncode == 0
    pod.config.write_text(VM.replace("v5e:4x4", "v5e:4x8"))
    done = pod.say("run")
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert "bert exists as v5litepod-16, but" in line and "requests v5litepod-32" in line
    assert pod.live() == pod.listed() == {("queued resource", "bert"), ("node", "bert")}
    assert pod.say("delete").returncode == 0 and not pod.live()


@pytest.mark.parametrize("seconds", ["abc", "", "-1", "1;ls"])
def test_an_interval_that_is_no_number_is_one_line(seconds, repo_and_bin, tmp_path):
    done = subprocess.run(
        [repo_and_bin[0] / "tpu_setup/pod", "status"],
        env={**os.environ, "POD_INTERVAL": seconds},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    message = "POD_INTERVAL is" if seconds else "pod.conf: cannot be read"  # empty: as if not set
    assert message in done.stderr


def test_a_node_that_is_not_deleted_is_said(repo_and_bin, tmp_path):
    pod = Pod(tmp_path / "cloud", *repo_and_bin, node=["fail"])
    world = pod.world()
    world["nodes"] = {"bert": "READY"}
    pod.change(world)
    done = pod.say("delete")
    assert done.returncode == 1
    assert "the node bert could not be deleted and may cost money" in done.stderr


def test_uncommitted_changes_are_refused_unless_asked_for(repo_and_bin, tmp_path):
    repo = repository(tmp_path / "repo")
    (repo / "experiments/x.py").write_text("changed = 1\n")
    pod = Pod(tmp_path / "cloud", repo, repo_and_bin[1])
    done = pod.say("run")
    assert done.returncode == 2
    assert "uncommitted changes" in done.stderr and "--dirty" in done.stderr
    assert pod.world()["calls"] == 0
    assert pod.say("run", "--dirty").returncode == 0
    assert (repo / "experiments/x.py").read_text() == "changed = 1\n"


def test_an_experiment_that_git_does_not_know_is_refused(repo_and_bin, tmp_path):
    pod = Pod(tmp_path / "cloud", *repo_and_bin, VM.replace("x.py", "new.py"))
    done = pod.say("run")
    assert done.returncode == 2
    assert "experiments/new.py is not in the commit" in done.stderr
    assert pod.world()["calls"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [(["rum"], "name a verb: run create"), (["run", "--dry"], "unknown option --dry")],
)
def test_a_wrong_word_is_one_line_and_exit_status_2(words, message, repo_and_bin, tmp_path):
    done = Pod(tmp_path / "cloud", *repo_and_bin).say(*words)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1

"""What `pod` tells the hosts is carried out by real shells: install, start, state, start again."""

from __future__ import annotations

import os
import subprocess

from pods import VM, home, programs, repository

# A cloud whose hosts are home folders: `ssh` runs its command in each, as a login shell would.
CLOUD = """#!/bin/bash
cloud=$(dirname "$0")/..
for word in "$@"; do [[ $word != --command=* ]] || command=${word#*=}; done
case "$*" in
    *"queued-resources create"*) printf 'bert\\tACTIVE\\n' >"$cloud/requests" ;;
    *"queued-resources delete"*) : >"$cloud/requests" ;;
    *"queued-resources list"*) cat "$cloud/requests" ;;
    *"queued-resources scp"*) for host in "$cloud"/host-*; do cp "$5" "$6" "$host"; done ;;
    *"queued-resources ssh"*)
        for host in "$cloud"/host-*; do
            (cd "$host" && HOME=$PWD PATH=$PWD/bin:$PATH bash -c "$command") || exit
        done
        ;;
    *"storage cat"*) exit 1 ;;
esac
"""


def test_a_run_that_stops_once_on_a_host_is_resumed_and_comes_to_its_end(tmp_path):
    repo, bin = repository(tmp_path / "repo"), programs(tmp_path / "bin")
    hosts = [home(tmp_path / f"host-{i}") for i in range(4)]
    # Host 1 is stopped once; asked again, it goes through.
    (hosts[1] / "status").write_text("75")
    train = (hosts[1] / "jaxformers").read_text()
    once = 'was=$(cat "$HOME/status"); echo 0 >"$HOME/status"; exit "$was"'
    (hosts[1] / "jaxformers").write_text(train.replace('exit "$(cat "$HOME/status")"', once))
    (bin / "gcloud").write_text(CLOUD)
    (tmp_path / "requests").write_text("")
    (tmp_path / "pod.conf").write_text(VM)
    done = subprocess.run(
        [repo / "tpu_setup/pod", "run", tmp_path / "pod.conf"],
        env={**os.environ, "PATH": f"{bin}:{os.environ['PATH']}", "POD_INTERVAL": "0.1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("resuming from the last checkpoint") == 1
    assert (tmp_path / "requests").read_text() == ""
    words = ["train", "experiments/x.py", "--folder", "gs://my-bucket/runs/bert"]
    for host in hosts:
        arguments = (host / "told").read_text().splitlines()
        secret = host / "jaxformers-pod/secret"
        assert secret.stat().st_mode & 0o777 == 0o600
        assert secret.read_text() == (hosts[0] / "jaxformers-pod/secret").read_text()
        assert secret.read_text().strip() not in done.stderr + done.stdout
        assert arguments == [*words, "--steps", "100", "--note", "it's $HOME; rm -rf *"]
        log = (host / "jaxformers-pod/log").read_text()
        assert log.count("line of the log") == 2

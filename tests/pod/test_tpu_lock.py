"""A lock file that libtpu left is removed, one that it holds is not."""

from __future__ import annotations

import subprocess
import sys

from jaxformers.pod.tpu_lock import clear_stale_lock

HOLD = """
import fcntl, os, sys, time
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("held", flush=True); time.sleep(60)
"""


def test_a_lock_is_cleared_only_once_its_owner_is_gone(tmp_path):
    path = tmp_path / "libtpu_lockfile"
    assert clear_stale_lock(path) is None
    owner = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE)
    assert owner.stdout.readline() == b"held\n"
    expected = f"this host's TPU is in use by process {owner.pid}, which holds {path}"
    assert clear_stale_lock(path) == expected
    assert path.exists()
    owner.kill()
    owner.communicate()
    assert path.exists()
    assert clear_stale_lock(path) == f"removed {path}, whose owner is gone"
    assert not path.exists()

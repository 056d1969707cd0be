"""The limit of open files, which a pod of many hosts exceeds on host 0 by default."""

from __future__ import annotations

import resource

from jaxformers.errors import ConfigError

PER_HOST, RESERVED = 2, 256
"""Connections of host 0 to each host (ours, and JAX's), and open files beside them."""


def raise_open_file_limit(hosts: int) -> None:
    """Lets this process open as many files as the first of so many hosts needs.

    Raises:
        ConfigError: more than this machine allows.
    """
    needed = RESERVED + PER_HOST * hosts
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigError(
            f"host 0 of a pod of {hosts:,} hosts needs {needed:,} open files, and {hard:,} are "
            "allowed here: raise the hard limit (ulimit -Hn, or LimitNOFILE of its service)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))

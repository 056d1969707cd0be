"""Stands in for `gcloud` and `kubectl`: records what it is asked and keeps what is alive.

The folder STAND_IN holds `world` (by marshal, as a call has to be quick): live resources, and
*orders* that say how calls go, each list taken from its front, one item a call of that kind
(what has no order succeeds):

* `create`, `delete`, `ssh`, `scp`, `list`, `pool`, `apply`...: `quota` (refused, nothing made),
  `timeout` (an error, but done all the same), `half` (made in part, then failed), `fail`; or what
  a call that ends well prints in place of its answer: `nothing`, `garbage`, or `like a list`.
* `grants`: the states that a queued resource goes through, one a look.
* `runs`: what each start of the run comes to, one a look: `running`, a status such as `75`, or
  `preempted`; a list of statuses gives each host its own.

With STAND_IN_KILL=N the N-th call kills whoever called, once it has been carried out.
"""

import marshal
import os
import sys

FOLDER = os.environ["STAND_IN"]
ERRORS = {
    "quota": "RESOURCE_EXHAUSTED: Quota limit has been exceeded.",
    "timeout": "DEADLINE_EXCEEDED: the call timed out.",
    "half": "INTERNAL: an error occurred.",
    "fail": "UNAVAILABLE: the service is not there.",
}

PRINTED = {
    "nothing": "",
    "garbage": "\x1b[31m<html>garbage\tfoo\tbar\n\n",
    "like a list": "bert\tACTIVE\n<p>Try again later</p>\n",
}


class World:
    """What is alive, kept in a file between calls."""

    def __init__(self) -> None:
        with open(f"{FOLDER}/world", "rb") as file:
            self.live = marshal.load(file)

    def save(self) -> None:
        with open(f"{FOLDER}/world", "wb") as file:
            marshal.dump(self.live, file)

    def order(self, kind: str) -> str | None:
        """The next order of a kind, used up."""
        orders = self.live["orders"].get(kind, [])
        return orders.pop(0) if orders else None


def flag(argv: list[str], name: str, default: str = "") -> str:
    values = [word.split("=", 1)[1] for word in argv if word.startswith(f"--{name}=")]
    return values[0] if values else default


def rows(pairs: dict[str, str]) -> str:
    return "".join(f"{name}\t{state}\n" for name, state in pairs.items())


# --- queued resources -------------------------------------------------------------------------


def create(world: World, argv: list[str], fate: str | None) -> str:
    name = argv[4]
    count = int(flag(argv, "node-count", "1"))
    nodes = [name] if count == 1 else [f"{name}-{i}" for i in range(count)]
    if fate == "quota":
        return ""
    grants = ["FAILED"] if fate == "half" else world.order("grants")
    world.live["requests"][name] = {
        "state": "WAITING_FOR_RESOURCES",
        "next": grants or ["ACTIVE"],
        "type": flag(argv, "accelerator-type"),
    }
    if fate == "half":
        world.live["nodes"][nodes[0]] = "CREATING"
    world.live["wanted"] = nodes
    world.live["hosts"] = {}
    return ""


def look(world: World) -> None:
    """Moves every queued resource on by one state."""
    for name, request in world.live["requests"].items():
        if request["next"]:
            request["state"] = request["next"].pop(0)
        if request["state"] == "ACTIVE":
            world.live["nodes"].update(dict.fromkeys(world.live["wanted"], "READY"))
        if request["state"] == "SUSPENDED":
            world.live["nodes"] = {
                node: state
                for node, state in world.live["nodes"].items()
                if not node.startswith(name)
            }


def list_requests(world: World, argv: list[str], fate: str | None) -> str:
    look(world)
    gone = [n for n, request in world.live["requests"].items() if request["state"] == "GONE"]
    for name in gone:
        del world.live["requests"][name]
        world.live["nodes"] = {}
    return rows({name: request["state"] for name, request in world.live["requests"].items()})


def describe(world: World, argv: list[str], fate: str | None) -> str:
    if "acceleratorType" in flag(argv, "format"):
        return world.live["requests"][argv[4]]["type"] + "\n"
    return "no capacity in time\n"


def delete(world: World, argv: list[str], fate: str | None) -> str:
    if fate == "fail":
        return ""
    if fate == "timeout":
        world.live["requests"][argv[4]].update(state="DELETING", next=["DELETING", "GONE"])
        return ""
    del world.live["requests"][argv[4]]
    if fate != "half":
        world.live["nodes"] = {}
    return ""


def delete_node(world: World, argv: list[str], fate: str | None) -> str:
    del world.live["nodes"][argv[4]]
    return ""


# --- hosts ------------------------------------------------------------------------------------


def ssh(world: World, argv: list[str], fate: str | None) -> str:
    command = flag(argv, "command")
    if fate:
        return ""
    hosts = world.live["hosts"]
    for node in world.live["nodes"]:
        for worker in range(world.live["hosts_per_node"]):
            hosts.setdefault(f"{node}-w{worker}", {"version": "-", "run": "-", "said": "idle -"})
    _, _, script_call = command.partition("tpu_setup/on_host.sh ")
    verb, _, arguments = script_call.partition(" ")
    if "/new/" in command:
        for host in hosts.values():
            host.update(version=arguments, run="-", said="idle -")
    elif verb == "start":
        world.live["now"] = world.order("runs") or ["running", "0"]
        run_id, _, world.live["told"] = arguments.partition(" ")
        for host in hosts.values():
            host.update(run=run_id, said="running -")
    elif command.endswith("follow"):
        return "".join(f"{host}: step 1\n" for host in hosts)
    else:
        return states(world)
    return ""


def scp(world: World, argv: list[str], fate: str | None) -> str:
    assert argv[4].endswith("/jaxformers-pod.tar.gz")
    assert os.stat(argv[5]).st_mode & 0o777 == 0o600
    return ""


def states(world: World) -> str:
    """One line a host; each look moves the run on."""
    hosts = world.live["hosts"]
    now = world.live["now"]
    if now and any(host["said"] == "running -" for host in hosts.values()):
        event = now.pop(0)
        world.live["step"] += 10 if event == "running" else 0
        if event == "preempted":
            for request in world.live["requests"].values():
                request.update(state="SUSPENDING", next=["SUSPENDED"])
        elif event != "running":
            statuses = event if isinstance(event, list) else [event] * len(hosts)
            for host, status in zip(hosts.values(), statuses, strict=True):
                host["said"] = f"ended {status}"
    return "".join(
        f"jaxformers-host {name} {host['version']} {host['run']} {host['said']}\n"
        for name, host in hosts.items()
    )


# --- GKE --------------------------------------------------------------------------------------


def make_pool(world: World, argv: list[str], fate: str | None) -> str:
    if fate != "quota":
        world.live["pools"][argv[3]] = "ERROR" if fate == "half" else "RUNNING"
    return ""


def drop_pool(world: World, argv: list[str], fate: str | None) -> str:
    if fate != "fail":
        del world.live["pools"][argv[3]]
    return ""


def list_pools(world: World, argv: list[str], fate: str | None) -> str:
    return rows(world.live["pools"])


def describe_image(world: World, argv: list[str], fate: str | None) -> str | None:
    return "" if argv[4] in world.live["images"] else None


def build(world: World, argv: list[str], fate: str | None) -> str:
    assert os.path.exists(f"{argv[2]}/Dockerfile")
    if not fate:
        world.live["images"].append(flag(argv, "tag"))
    return ""


def store_secret(world: World, argv: list[str], fate: str | None) -> str:
    with open(flag(argv, "from-file").removeprefix("secret=")) as file:
        assert len(file.read()) > 40
    return ""


def apply(world: World, argv: list[str], fate: str | None) -> str:
    if fate != "fail":
        import json  # slow to load, and wanted here only

        with open(flag(argv, "filename")) as file:
            manifest = json.load(file)
        world.live["jobsets"][manifest["metadata"]["name"]] = {
            "run": manifest["metadata"]["labels"]["jaxformers-run"],
            "next": world.order("runs") or ["running", "Completed/AllJobsCompleted"],
            "is": "",
        }
    return ""


def get_jobset(world: World, argv: list[str], fate: str | None) -> str:
    jobset = world.live["jobsets"].get(argv[2])
    if not jobset:
        return ""
    if jobset["next"]:
        jobset["is"] = jobset["next"].pop(0).replace("running", "")
        world.live["step"] += 10
    return f"{jobset['run']} {jobset['is']} "


def get_jobsets(world: World, argv: list[str], fate: str | None) -> str:
    return rows({n: jobset["is"].split("/")[0] for n, jobset in world.live["jobsets"].items()})


def delete_jobset(world: World, argv: list[str], fate: str | None) -> str:
    world.live["jobsets"].pop(argv[2], None)
    return ""


# --- the bucket -------------------------------------------------------------------------------


def cat(world: World, argv: list[str], fate: str | None) -> str | None:
    if not world.live["step"]:
        return None
    step = world.live["step"]
    return (
        f'{{"time": 0, "step": {step}, "steps": 100, "loss": 2.5, "goodput": 0.9,'
        ' "state": "running", "hosts": []}'
    )


def rsync(world: World, argv: list[str], fate: str | None) -> str:
    assert os.path.isdir(argv[-1])
    world.live["copied"] = True
    return ""


def nothing(world: World, argv: list[str], fate: str | None) -> str:
    return ""


# The leading words of a call, the name of its orders, and what it does.
CALLS = [
    ("compute tpus queued-resources list", "list", list_requests),
    ("compute tpus queued-resources create", "create", create),
    ("compute tpus queued-resources describe", "describe", describe),
    ("compute tpus queued-resources delete", "delete", delete),
    ("compute tpus queued-resources ssh", "ssh", ssh),
    ("compute tpus queued-resources scp", "scp", scp),
    ("compute tpus tpu-vm list", "nodes", lambda world, *_: rows(world.live["nodes"])),
    ("compute tpus tpu-vm delete", "node", delete_node),
    ("container clusters get-credentials", "cluster", nothing),
    ("container node-pools list", "pools", list_pools),
    ("container node-pools create", "pool", make_pool),
    ("container node-pools delete", "drop", drop_pool),
    ("artifacts docker images describe", "image", describe_image),
    ("builds submit", "build", build),
    ("storage cat", "cat", cat),
    ("storage rsync", "copy", rsync),
    ("get jobset ", "jobset", get_jobset),
    ("get jobsets", "jobsets", get_jobsets),
    ("delete jobset", "undo", delete_jobset),
    ("delete secret", "forget", nothing),
    ("create secret generic", "secret", store_secret),
    ("apply", "apply", apply),
    ("logs", "logs", nothing),
]


def main() -> int:
    argv = sys.argv[1:]
    world = World()
    world.live["calls"] += 1
    with open(f"{FOLDER}/calls", "a") as log:
        log.write("\0".join([os.path.basename(sys.argv[0]), *argv]) + "\n")
    kind, act = next(call[1:] for call in CALLS if " ".join([*argv, ""]).startswith(call[0]))
    fate = world.order(kind)
    answer = act(world, argv, fate)
    world.save()
    if world.live["calls"] == int(os.environ.get("STAND_IN_KILL", "0")):
        os.killpg(0, 9)
    if fate in PRINTED:
        sys.stdout.write(PRINTED[fate])
        return 0
    if fate or answer is None:
        print(f"ERROR: {ERRORS.get(fate or '', 'NOT_FOUND')}", file=sys.stderr)
        return 1
    sys.stdout.write(answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())

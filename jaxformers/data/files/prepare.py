"""Download a public TFDS set once and keep it as array_record, which needs no TensorFlow."""

from __future__ import annotations

import difflib
import importlib
import socket
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from etils import epath

from jaxformers.data.files.tfds_rows import default_data_dir, prepared_folder
from jaxformers.errors import DataError, install_extra

# Without TensorFlow these builders register only when their modules are imported.
BUILDER_MODULES = (
    "translate",
    "text",
    "question_answering",
    "image_classification",
    "image",
    "object_detection",  # coco_captions is among them
)


def prepare(name: str, data_dir: Any = None) -> epath.Path:
    """Build the TFDS set `name` (builder/config) under `data_dir` and return its folder.

    A set that is already there is left as it is.

    Raises:
        DataError: the name is not known (near misses are suggested), it needs the `[prepare]`
            extra, or nothing can be downloaded.
    """
    root = epath.Path(data_dir or default_data_dir()).expanduser()
    if (folder := prepared_folder(name, root)) is not None:
        return folder
    try:
        builder = _builder(name, root)
        _check_network(name, builder)
        builder.download_and_prepare()
    except ImportError as error:
        raise DataError(
            f"preparing {name} needs {error.name or error}: {install_extra('prepare')}"
        ) from None
    except Exception as error:
        if isinstance(error, DataError):
            raise
        raise DataError(_explain(name, error)) from None
    return epath.Path(builder.data_path)


def _builder(name: str, root: epath.Path) -> Any:
    import tensorflow_datasets as tfds

    for module in BUILDER_MODULES:
        importlib.import_module(f"tensorflow_datasets.{module}")
    builder_names = tfds.list_builders(with_community_datasets=False)
    builder_name, _, config = name.partition(":")[0].partition("/")
    if builder_name not in builder_names:
        raise DataError(f"TFDS has no set {builder_name!r}{_near(builder_name, builder_names)}")
    configs = list(tfds.builder_cls(builder_name).builder_configs)
    if not config and len(configs) > 1:
        raise DataError(f"TFDS set {builder_name} needs one of {_listed(configs, builder_name)}")
    if config and config not in configs:
        raise DataError(f"TFDS set {builder_name} has no {config!r}{_near(config, configs)}")
    return tfds.builder(name, data_dir=root, file_format="array_record")


def _check_network(name: str, builder: Any) -> None:
    """Fail at once where no host of the set is known: TFDS would try for minutes."""
    hosts = {urlsplit(url).hostname for url in builder.url_infos} - {None}
    if hosts and not getproxies() and not any(map(_is_known, sorted(hosts))):
        raise DataError(_no_network(name))


def _is_known(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except OSError:
        return False


def _no_network(name: str) -> str:
    return (
        f"{name} cannot be downloaded: no network, or its server does not answer. Prepare it "
        "on a machine with a network and copy the folder"
    )


def _listed(configs: list[str], builder_name: str) -> str:
    names = ", ".join(f"{builder_name}/{config}" for config in configs[:8])
    return names if len(configs) <= 8 else f"{names}, ..."


def _near(name: str, candidates: list[str]) -> str:
    """What else may have been meant, to stand at the end of a message."""
    if close := difflib.get_close_matches(name, candidates, n=3, cutoff=0.6):
        return f": did you mean {' or '.join(close)}?"
    if 0 < len(candidates) <= 12:
        return f": it has {', '.join(candidates)}"
    return ": see https://www.tensorflow.org/datasets/catalog/overview"


def _explain(name: str, error: Exception) -> str:
    chain, cause = [], error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    if any(_is_network(link) for link in chain):
        return _no_network(name)
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{name} cannot be prepared: {first_line[:300]}"


def _is_network(error: BaseException) -> bool:
    # By module, since requests, urllib3 and aiohttp each have a family of their own.
    module = type(error).__module__.split(".")[0]
    names = {"ConnectionError", "DownloadError", "TimeoutError", "URLError", "gaierror"}
    return module in {"requests", "urllib3", "aiohttp"} or type(error).__name__ in names

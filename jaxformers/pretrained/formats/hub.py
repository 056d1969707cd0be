"""Where a model lies: in a folder, in a run's, or on Hugging Face's hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from etils import epath

from jaxformers.errors import WeightsError, folder_contents
from jaxformers.pretrained.formats.safetensors_folder import CONFIG, GOOGLE_CONFIG, OLD_PLACE

CONFIGS = CONFIG, GOOGLE_CONFIG, "open_clip_config.json"  # one of them makes a folder a model's
TORCH = (".pth", ".pt", ".bin", ".ckpt")
PATTERNS = ["*.json", "*.safetensors", "*.spm", "spiece.model", "vocab.txt", "merges.txt"]
FLAX_PATTERN = "flax_model*.msgpack"  # fetched where there are no safetensors


def resolve(path_or_name: Any) -> epath.Path:
    """The folder meant: the one at that path, a run's, or the hub's model of that name, fetched."""
    path = epath.Path(path_or_name).expanduser()
    for candidate in (path, path / "model", path / OLD_PLACE):  # a run's weights lie in `model/`
        if any((candidate / name).exists() for name in CONFIGS):
            return candidate
    if path.is_dir():
        raise WeightsError(
            f"{path} holds no {CONFIG}, so it is no model's folder; {folder_contents(path)}"
        )
    if path.exists() and path.suffix in TORCH:
        raise WeightsError(
            f"{path} is a pickle, which could run any code when opened: jaxformers.pretrained."
            "torch_to_safetensors takes its tensors alone into a .safetensors file"
        )
    if path.exists():
        raise WeightsError(f"{path} is a file: give the folder that holds {CONFIG}")
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?", str(path_or_name)):
        return fetch(str(path_or_name))
    raise WeightsError(f"there is no folder {path}")


def fetch(name: str) -> epath.Path:
    """The local copy of the hub's model "org/name" or "org/name@revision", fetched if need be.

    Raises:
        WeightsError: no such model, no access, or no network and no copy from before.
    """
    import huggingface_hub
    from huggingface_hub import errors

    repository, _, revision = name.partition("@")
    try:
        path = huggingface_hub.snapshot_download(
            repository, revision=revision or None, allow_patterns=PATTERNS
        )
        if not any(Path(path).rglob("*.safetensors")):
            path = huggingface_hub.snapshot_download(
                repository, revision=revision or None, allow_patterns=[*PATTERNS, FLAX_PATTERN]
            )
    except errors.GatedRepoError:
        raise WeightsError(f"{repository} needs its owner's leave: ask for it at the hub") from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        raise WeightsError(f"{name!r} is neither a local folder nor a model of the hub") from None
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, OSError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"{name!r} is no local folder, and Hugging Face's hub cannot be reached ({reason}): "
            "fetch the model where there is a network, and give its folder"
        ) from None
    return epath.Path(path)

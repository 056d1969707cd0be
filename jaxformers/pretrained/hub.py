"""Models of Hugging Face's hub, by name."""

from __future__ import annotations

from etils import epath

from jaxformers.errors import WeightsError

PATTERNS = ["*.json", "*.safetensors", "*.spm"]


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

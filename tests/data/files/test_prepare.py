import socket
import sys

import pytest

from jaxformers.data import prepare as prepare_set
from jaxformers.data.files.prepare import prepare
from jaxformers.errors import DataError


def message(name, tmp_path):
    with pytest.raises(DataError) as error:
        prepare(name, tmp_path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_package_offers_the_function():
    assert prepare_set is prepare


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("wmt14_translat/de-en", "did you mean wmt14_translate"),
        ("wmt14_translate/de-e", "has no 'de-e': did you mean de-en"),
        ("wmt14_translate", "needs one of wmt14_translate/cs-en"),
        ("glu/mrpc", "did you mean glue"),
        ("qqqqqqqq", "see https://"),
    ],
)
def test_near_miss_names_are_suggested(tmp_path, name, says):
    assert says in message(name, tmp_path)


def test_no_network_is_said_at_once(tmp_path, monkeypatch):
    class Builder:
        url_infos = {"http://www.statmt.org/some.tgz": None}  # noqa: RUF012

        def download_and_prepare(self):
            raise AssertionError("TFDS would try for minutes")

    def unknown(*_):
        raise socket.gaierror("Name or service not known")

    module = sys.modules["jaxformers.data.files.prepare"]
    monkeypatch.setattr(module, "_builder", lambda *_: Builder())
    monkeypatch.setattr(module, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "no network" in message("wmt14_translate/de-en", tmp_path)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ConnectionError("refused"), "no network, or its server does not answer"),
        (
            ModuleNotFoundError("x", name="tensorflow"),
            "pip install 'landmark-transformers[prepare]'",
        ),
        (ValueError("disk is full\nmore"), "cannot be prepared: disk is full"),
    ],
)
def test_what_goes_wrong_is_said_in_one_line(tmp_path, monkeypatch, error, says):
    class Builder:
        url_infos = {}  # noqa: RUF012

        def download_and_prepare(self):
            raise error

    monkeypatch.setattr(
        sys.modules["jaxformers.data.files.prepare"], "_builder", lambda *_: Builder()
    )
    assert says in message("wmt14_translate/de-en", tmp_path)


def test_a_prepared_set_is_left_as_it_is(tmp_path):
    folder = tmp_path / "wmt14_translate" / "de-en" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    assert prepare("wmt14_translate/de-en", tmp_path) == folder
    assert "tensorflow" not in sys.modules

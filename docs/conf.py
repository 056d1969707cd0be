"""Sphinx's configuration: `make docs` builds the pages into build/docs, notebooks executed."""

import os
import re
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")

import jaxformers

project = "jaxformers"
author = "The jaxformers authors"
copyright = author  # what the page's foot prints
version = release = jaxformers.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"jaxformers {release}"
exclude_patterns = ["make_*.py"]

myst_heading_anchors = 3
myst_enable_extensions = ["amsmath"]  # equations that Jupyter shows too
linkcheck_ignore = ["http://127.0.0.1"]  # `make links`
linkcheck_timeout = 20  # seconds
nb_execution_mode = "cache"
nb_execution_cache_path = str(Path(__file__).parents[1] / "build" / "notebooks")
nb_execution_in_temp = True  # what a notebook writes is gone with its folder
nb_execution_timeout = 900  # seconds of a cell, on a machine with other work
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_typehints = "none"  # shapes and types are in the signatures
autodoc_member_order = "bysource"
add_module_names = False  # the pages are those of the modules
autodoc_default_options = {"members": True, "exclude-members": "setup"}
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Keys", "params_style")]
suppress_warnings = ["ref.python"]  # an attribute of a name that several classes have


def escape_markup(app, what, name, obj, options, lines):
    """Makes `code` of our docstrings' single backticks, and escapes what else would be markup.

    An example, which ends a docstring, stays as it is.
    """
    end = lines.index("Example:") if "Example:" in lines else len(lines)
    spans = re.split(r"(?<!:)(`+[^`]+`+)", "\n".join(lines[:end]))
    for i, span in enumerate(spans):
        if i % 2 == 0:
            spans[i] = re.sub(r"(?<!\\)(?:(?<=\w)_(?=\W|$)|[*|])", r"\\\g<0>", span)
        else:
            before = "\\ " if re.search(r"[^\s(\[{\"'<-]$", spans[i - 1]) else ""
            after = "\\ " if re.match(r"[^\s.,:;!?)\]}\"'>-]", spans[i + 1]) else ""
            spans[i] = f"{before}``{span.strip('`')}``{after}"
    lines[:end] = "".join(spans).split("\n")


def keep_first_line(app, what, name, obj, options, lines):
    """Leaves out of a room's docstring what it may import, which is of no use to a reader."""
    if what == "module":
        del lines[1:]


def keep_colons(app, what, name, obj, options, lines):
    """Keeps napoleon from taking the words before a colon for the type of an attribute.

    What stands before the first colon, the type, is then empty.
    """
    if what in ("attribute", "property") and lines:
        lines[0] = f": {lines[0]}"


def setup(app):
    """Connects all three before napoleon's rewriting."""
    app.connect("autodoc-process-docstring", keep_first_line, priority=90)
    app.connect("autodoc-process-docstring", keep_colons, priority=110)
    app.connect("autodoc-process-docstring", escape_markup, priority=100)

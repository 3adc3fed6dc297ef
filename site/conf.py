"""Sphinx's settings for the course's site; `make site` lays its sources out in build/site-source and builds them."""

import tomllib
from pathlib import Path

from cifar_helpers.machine import import_tensorflow

import_tensorflow()  # here, without its start-up log; autodoc would import it with

# tools/build_site.py copies this file, so the checkout is not where it stands.
_project = tomllib.loads((Path(__file__).parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "Image classification on CIFAR-10"
author = copyright = "the course's authors, MIT licence"
release = _project["version"]
html_title = "Image classification, hands-on"

extensions = ["myst_nb", "sphinx.ext.autodoc"]
root_doc = "index"
exclude_patterns = ["README.md", "_static"]
myst_heading_anchors = 4  # links within a page, as on GitHub
nb_execution_mode = "off"  # the notebooks come executed
nb_merge_streams = True
nb_ipywidgets_js = {}  # the pieces to play with are figures here; their scripts would come from another host
nb_render_markdown_format = "myst"

default_role = "code"  # docstrings say `name`, as the course's prose does
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # a default's name, not its value
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False  # what Keras says of its own methods stands in its documentation

html_theme = "sphinx_book_theme"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_js_files = ["course.js"]
html_domain_indices = False  # the API page lists the modules
html_copy_source = False
html_show_sourcelink = False
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_theme_options = {
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "navbar_persistent": [],  # the sidebar has the search
    "navigation_with_keys": False,  # the arrow keys scroll tables and code
    "use_download_button": False,
    "use_fullscreen_button": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def setup(app):
    """Leave out fields of named tuples, of which Python says no more than their number."""
    app.connect("autodoc-skip-member", lambda app, what, name, member, skip, options:
                (getattr(member, "__doc__", None) or "").startswith("Alias for field number") or None)

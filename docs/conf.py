"""How the documentation site is built: ``make docs``, strictly, without network.

Pages are Markdown (MyST) that reads well in the repository too; the reference is made from docstrings.
"""

import os
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config as Napoleon
from sphinx.ext.napoleon import GoogleDocstring
from sphinx.transforms import SphinxTransform

import glimpsenet

DOCS = Path(__file__).parent
ROOT = DOCS.parent
LINKS: tuple[type[nodes.Element], ...] = (addnodes.pending_xref, addnodes.download_reference)

project, author, copyright = "glimpsenet", "The glimpsenet authors", "The glimpsenet authors"
version = release = glimpsenet.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "myst_nb"]

myst_heading_anchors = 3
nb_execution_mode = "off"  # tests/test_tutorial.py runs it

smartquotes = False  # would make one dash of a flag's two
default_role = "literal"
autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True, "ignore-module-all": True}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
add_module_names = False
maximum_signature_line_length = 100

# No network: what other libraries document is named, not linked.
nitpick_ignore_regex = [
    (r"py:.*", r"(abc|collections|jaxtyping|matplotlib|np|numpy|pathlib|PIL|pytorch_lightning|torch\w*)\..*"),
    (r"py:.*", r"huggingface_hub\..*"),
    (r"py:.*", r"v2\..*|glimpsenet\.kinds\.K"),
    (r"py:class", r"Tensor|ndarray"),  # as jaxtyping names it in shapes
]

html_theme = "furo"
html_title = f"glimpsenet {release}"
html_theme_options = {"navigation_with_keys": True}
html_static_path = ["static"]
html_css_files = ["site.css"]
highlight_language = "bash"  # what blocks without a language are: commands
pygments_style, pygments_dark_style = "friendly", "monokai"


class LinksIntoTheRepository(SphinxTransform):
    """Links that leave docs/ work in the repository; here a module's file becomes its reference, any other a copy."""

    default_priority = 5

    def apply(self, **kwargs: Any) -> None:
        """Replace the links that MyST takes for pages that it does not find."""
        links = [node for kind in LINKS for node in self.document.findall(kind)]
        for link in links:
            if link.get("reftype") != "myst" or link["reftarget"].startswith("#"):
                continue
            file = self._find(link["reftarget"].split("#")[0])
            new: nodes.Element
            if file is None or (file.is_relative_to(DOCS) and file.suffix in (".md", ".ipynb")):
                continue
            if file.suffix == ".py" and file.is_relative_to(ROOT / "src"):
                module = ".".join(file.relative_to(ROOT / "src").with_suffix("").parts)
                new = addnodes.pending_xref("", refdomain="py", reftype="mod", reftarget=module, refwarn=True)
            else:
                new = addnodes.download_reference("", refdomain=None, reftarget=os.path.relpath(file, self._folder))
            new["refdoc"], new["refexplicit"] = self.env.docname, True
            new += link.children
            link.replace_self(new)

    @property
    def _folder(self) -> Path:
        return Path(self.env.doc2path(self.env.docname)).parent

    def _find(self, name: str) -> Path | None:
        """The file of a link: beside the page, or, where the page includes one of the repository's, beside that."""
        # MyST strips the suffix of pages.
        places = (place / f"{name}{suffix}" for place in (self._folder, ROOT) for suffix in ("", ".md"))
        return next((file.resolve() for file in places if file.is_file()), None)


def to_rest(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings as reST: sections (Args, Raises) as fields; equations, indented as in Markdown, as code."""
    # Napoleon as an extension takes "word: text" below an attribute for its type.
    if what not in ("attribute", "data", "property"):
        lines[:] = GoogleDocstring(lines, Napoleon(napoleon_use_rtype=False), app, what, name, obj, options).lines()
    text, before = [line.replace("/*", r"/\*") for line in lines], ""  # file patterns, no emphasis
    lines.clear()
    for above, line in zip(["", *text], text, strict=False):
        if line.startswith("    ") and not above and before[:1] not in (" ", ":", ".", "-", ""):
            lines += [".. code-block:: text", ""]
        lines.append(line)
        before = line or before


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_transform(LinksIntoTheRepository)
    app.connect("autodoc-process-docstring", to_rest)

"""One trace as one HTML file: tree, detail and search, from `file://`, without a network.

    <script id="trace">  {"skeleton", "spans", "critical"} as JSON, gzip, base64: text to the browser
    <script id="page">   {"style", "script"}, in the same way; the script is the modules of `static/export.js`, each a
                         function that gives back what it exports
    <script>             unpacks both

Promises:

- What the trace says cannot become markup: it is base64 in the file, and text in the document.
- The file's own policy allows the last script, by its hash, what that one starts, and no connection at all.
- Nothing is taken away or added here: what must not leave is redacted before.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
import zlib
from collections.abc import Iterable
from functools import cache

import msgspec

from ._page import module_order, page_file, resolved

__all__ = ["export_page", "page_script"]

ENTRY = "export.js"
LOADER = """
globalThis.unpacked = (id) => {
  const packed = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
};
unpacked("page").then(({ style, script }) => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(style);
  document.adoptedStyleSheets = [sheet];
  const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  const rules = { createScriptURL: (url) => (url === address ? url : null) };
  const element = document.createElement("script");
  element.src = globalThis.trustedTypes ? trustedTypes.createPolicy("page", rules).createScriptURL(address) : address;
  document.head.append(element);
});
"""
"""The one script that the file's policy knows. It may start others; no text of the trace can."""
_IMPORT = re.compile(r'^import\s*\{([^}]*)\}\s*from\s*"([^"]+)";\n?', re.MULTILINE)
_HANDED_ON = re.compile(r'^export\s*\{([^}]*)\}\s*from\s*"([^"]+)";\n?', re.MULTILINE)
_DECLARED = re.compile(r"^export ((?:async )?function|class|const|let) (\w+)", re.MULTILINE)
_LISTED = re.compile(r"\bexport\s*\{([^}]*)\};?\s*\Z")


def export_page(name: str, skeleton: bytes, spans: Iterable[bytes], critical_path: bytes = b'{"path":[]}') -> bytes:
    """The file. All arguments are JSON as the API answers it: the skeleton from the first span on, the detail of every span
    in the skeleton's order, the critical path. `name` becomes the title."""
    trace = b'{"skeleton":%b,"spans":[%b],"critical":%b}' % (skeleton, b",".join(spans), critical_path)
    return _DOCUMENT.format(
        policy=_policy(), title=html.escape(name), trace=_packed(trace), page=_page(), loader=LOADER
    ).encode("utf-8", "replace")


@cache
def _page() -> str:
    return _packed(msgspec.json.encode({"style": _text("style.css"), "script": page_script()}))


def _packed(content: bytes) -> str:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)  # 31: a gzip header without a time, so the same bytes each time
    return base64.b64encode(packer.compress(content) + packer.flush()).decode()


@cache
def page_script() -> str:
    """Every module that `export.js` needs, as one script without imports."""
    order = module_order(ENTRY)
    numbers = {name: f"m{number}" for number, name in enumerate(order)}
    return "\n".join(_as_function(name, numbers) for name in order)


def _as_function(name: str, numbers: dict[str, str]) -> str:
    source = _text(name)
    handed_on: list[str] = []

    def imported(match: re.Match[str]) -> str:
        return f"const {{{_renamed(match[1])}}} = {numbers[resolved(name, match[2])]};\n"

    def passed(match: re.Match[str]) -> str:
        handed_on.extend(
            f"{word.strip()}: {numbers[resolved(name, match[2])]}.{word.strip()}" for word in match[1].split(",")
        )
        return ""

    source = _HANDED_ON.sub(passed, _IMPORT.sub(imported, source))
    exported = [word for _, word in _DECLARED.findall(source)]
    source = _DECLARED.sub(r"\1 \2", source)
    for listed in _LISTED.findall(source):
        exported += [_exported(word) for word in listed.split(",")]
    source = _LISTED.sub("", source)
    return f"const {numbers[name]} = (() => {{\n{source}\nreturn {{{', '.join([*exported, *handed_on])}}};\n}})();"


def _renamed(words: str) -> str:
    """`a, b as c` of an import, as the names of a destructuring."""
    return ", ".join(": ".join(word.split(" as ")) for word in (part.strip() for part in words.split(",")) if word)


def _exported(word: str) -> str:
    """`a as b` of an export, as a field of an object."""
    inside, _, outside = word.strip().partition(" as ")
    return f"{outside or inside}: {inside}"


def _text(name: str) -> str:
    file = page_file(name)
    if file is None:
        raise ValueError(f"the page has no file {name}")
    return file.body.decode()


def _policy() -> str:
    digest = base64.b64encode(hashlib.sha256(LOADER.encode()).digest()).decode()
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'sha256-{digest}' 'strict-dynamic'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types page",
        )
    )


_DOCUMENT = """<!doctype html>
<html lang="en" data-theme="system">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
</head>
<body><div id="app"></div>
<script id="trace" type="application/octet-stream">{trace}</script>
<script id="page" type="application/octet-stream">{page}</script>
<script>{loader}</script>
</body>
</html>
"""

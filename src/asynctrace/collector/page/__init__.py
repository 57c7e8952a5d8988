"""The web page of the collector.

_page     the files in `static/`, served as they are      `static/app.js` is where the script begins
_export   one trace as one HTML file                      `static/export.js`
"""

from __future__ import annotations

from ._export import export_page
from ._page import routes

__all__ = ["export_page", "routes"]

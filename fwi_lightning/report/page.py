"""One HTML file that opens offline: pictures inside, no scripts, nothing fetched."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

from fwi_lightning.report.files import write_bytes
from fwi_lightning.report.tables import Table

DPI = 100
"""Pixels per inch of pictures: figures are 12 inches wide, pages 1200 pixels."""


@dataclass(frozen=True)
class Headline:
    """A number to be seen first: its name, the number with its unit, and a remark."""

    label: str
    value: str
    remark: str = ""


@dataclass(frozen=True)
class Picture:
    """A PNG with its caption."""

    png: bytes
    caption: str

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Code:
    """Text shown as it is, folded away under a summary line."""

    text: str
    summary: str


Block = str | tuple[Headline, ...] | Table | Picture | Code
"""What a section is made of; a plain string is a paragraph."""


@dataclass(frozen=True)
class Section:
    """A heading (none if empty) and what stands under it."""

    heading: str
    blocks: Sequence[Block]


def draw(figure: Figure, caption: str, path: Path | None = None) -> Picture:
    """Draw a figure as a picture for a page.

    Args:
        figure: What to draw.
        caption: What it shows.
        path: Also write the PNG here. Default None.

    Raises:
        UserError: If the file cannot be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    if path is not None:
        write_bytes(path, buffer.getvalue())
    return Picture(buffer.getvalue(), caption)


def write_page(path: Path, title: str, sections: Sequence[Section], subtitle: str = "") -> None:
    """Write a self-contained HTML page, light or dark as the reader's system is, readable on a phone.

    Args:
        path: Where to.
        title: Heading and title of the window.
        sections: What stands below, in order. All text is escaped.
        subtitle: A line under the heading. Default none.

    Raises:
        UserError: If the file cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fwi_lightning.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests |= {
        name: lambda block, kind=kind: isinstance(block, kind)
        for name, kind in {"headlines": tuple, "table": Table, "picture": Picture, "code": Code}.items()
    }
    html = environment.get_template("template.html").render(title=title, subtitle=subtitle, sections=sections)
    write_bytes(path, html.encode())

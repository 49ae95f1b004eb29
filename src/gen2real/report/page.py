"""Templates → one HTML file that needs nothing else. Whatever a user named is escaped, in text, attributes and JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gen2real.files import write_text
from gen2real.methods.findings import spoken

_TEMPLATES = Path(__file__).parent / "templates"


def write_page(path: Path, template: str, **facts: Any) -> None:
    """Renders `templates/<template>` into `path`, atomically. Raises: CheckpointError where the disk is full."""
    write_text(path, render(template, **facts))


def render(template: str, **facts: Any) -> str:
    """The page as text; style and scripts of `templates/` are inlined."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "points": points,
        "spoken": spoken,
        "p": p_value,
        "amount": amount,
        "duration": duration,
        "size": size,
    }
    environment.globals["inlined"] = _inlined
    return environment.get_template(template).render(**facts)


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 1 as `41.3 %`."""
    return "–" if share is None else f"{100 * share:.{digits}f}\u00a0%"


def points(difference: float, digits: int = 1) -> str:
    """A difference of shares in percentage points, with a true minus sign: `+2.1`, `−0.4`."""
    return f"{100 * difference:+.{digits}f}".replace("-", "−")


def p_value(value: float) -> str:
    """`p = 0.012`, or `p < 0.001`."""
    return "p\u00a0<\u00a00.001" if value < 0.001 else f"p\u00a0=\u00a0{value:.2g}"


def amount(value: float) -> str:
    """A count with separators: `12,345`; fractions keep three digits."""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """`4.6 s`, `3 min 20 s`, `5 h 12 min`."""
    if seconds < 60:
        return f"{seconds:.1f}\u00a0s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}\u00a0min {rest}\u00a0s"
    return f"{minutes // 60}\u00a0h {minutes % 60}\u00a0min"


def size(count: float) -> str:
    """Bytes in MiB or GiB."""
    return f"{count / 2**30:.1f}\u00a0GiB" if count >= 2**30 else f"{count / 2**20:.1f}\u00a0MiB"


def _inlined(name: str) -> Markup:
    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))

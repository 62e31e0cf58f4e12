"""How are numbers written for people? One way everywhere: on the terminal, in plots and on the page."""

from __future__ import annotations

#: What stands before a latency that was not measured, and the word that explains it.
KIND_MARK = {"measured": "", "held": "≈", "modelled": "~"}


def microseconds(us: float | None, *, kind: str = "measured", spread: float | None = None) -> str:
    """`1,234 µs`, `~87.5 µs` (modelled), `1,234 ± 5 µs`; `–` for nothing.

    >>> microseconds(1234.4, spread=5.2), microseconds(87.46, kind="modelled"), microseconds(None)
    ('1,234 ± 5 µs', '~87.5 µs', '–')
    """
    if us is None:
        return "–"
    digits = _decimals(us)
    blur = "" if spread is None else f" ± {spread:,.{digits}f}"
    return f"{KIND_MARK.get(kind, '~')}{us:,.{digits}f}{blur} µs"


def change(share: float | None) -> str:
    """A signed relative change, `−23.4 %`; `–` for nothing.

    >>> change(-0.2341), change(0.0)
    ('−23.4 %', '0.0 %')
    """
    if share is None:
        return "–"
    return "0.0 %" if abs(share) < 0.0005 else f"{share * 100:+.1f} %".replace("-", "−")


def percent(share: float | None, *, noise: float | None = None) -> str:
    """`97.50 %` or `97.50 ± 0.80 %`.

    >>> percent(0.975, noise=0.008)
    '97.50 ± 0.80 %'
    """
    if share is None:
        return "–"
    return f"{share * 100:.2f}" + ("" if noise is None else f" ± {noise * 100:.2f}") + " %"


def quantity(count: float | None) -> str:
    """A large count with three figures and its prefix: `41.3 M`.

    >>> quantity(41_270_000), quantity(812), quantity(999_999)
    ('41.3 M', '812', '1.00 M')
    """
    if count is None:
        return "–"
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * size:
            value = count / size
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {prefix}"
    return f"{count:,.0f}"


def _decimals(value: float) -> int:
    return 0 if abs(value) >= 999.5 else 1 if abs(value) >= 9.995 else 2

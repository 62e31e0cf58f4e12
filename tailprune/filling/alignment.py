"""Which multiples does a device like? Widths between two of them are not worth a measurement."""

from __future__ import annotations

from ..steps import LatencyCurve

#: The widest alignment tier known: 16 halves are a 32-byte sector (CUDA), 16 floats an AVX-512 register.
WIDEST = 16
#: Where on a line alignment is looked for, as fractions of its widest width.
PLACES = (0.25, 0.5, 1.0)
#: A difference is believed beyond this many standard errors of it.
SIGMAS = 2.0


def ladders(grid: range) -> tuple[tuple[int, ...], ...]:
    """Where alignment shows: from three widths c that are multiples of the widest tier, c + granule x 1, 2, 4 ... up to the
    next such multiple. None where the granule leaves nothing to choose, or the line is too short.

    >>> ladders(range(1, 129))
    ((16, 17, 18, 20, 24, 32), (48, 49, 50, 52, 56, 64), (112, 113, 114, 116, 120, 128))
    """
    granule = grid.step
    rungs = [0, granule]
    while 2 * rungs[-1] <= WIDEST:
        rungs.append(2 * rungs[-1])
    top = rungs[-1]
    starts = dict.fromkeys(int(place * grid[-1]) // top * top - top for place in PLACES)
    return tuple(tuple(start + rung for rung in rungs) for start in starts if len(rungs) > 2 and start >= grid[0])


def learn_alignment(curve: LatencyCurve, grid: range, *, min_riser: float) -> int:
    """The largest multiple of the granule that makes all other widths pointless: on every ladder a width that is no multiple
    of it is at most `min_riser`, or what noise explains, faster than the next multiple. The granule where there is none.

    >>> us = {w: 10.0 if w % 8 == 0 else 12.0 for w in range(1, 129)}
    >>> us |= {w: us[w] + 3.0 for w in us if w % 16 == 0}
    >>> curve = LatencyCurve(widths=tuple(us), latency_us=tuple(us.values()), kind="modelled")
    >>> learn_alignment(curve, range(1, 129), min_riser=0.02)
    8
    """
    noise = dict(zip(curve.widths, curve.noise_us or (0.0,) * len(curve), strict=True))
    measured = [ladder for ladder in ladders(grid) if all(width in curve for width in ladder)]

    def is_pointless(width: int, multiple: int) -> bool:
        doubt = SIGMAS * (noise[width] ** 2 + noise[multiple] ** 2) ** 0.5
        return curve.at(multiple) - curve.at(width) <= max(min_riser * curve.at(multiple), doubt)

    def holds(rung: int) -> bool:
        return all(is_pointless(width, ladder[rung]) for ladder in measured for width in ladder[1:rung])

    rungs = range(len(measured[0]) - 1, 1, -1) if measured else ()
    return grid.step * next((2 ** (rung - 1) for rung in rungs if holds(rung)), 1)


def aligned_widths(grid: range, alignment: int) -> range:
    """The widths of a grid worth looking at: multiples of the alignment."""
    return range(-(-grid[0] // alignment) * alignment, grid[-1] + 1, alignment)

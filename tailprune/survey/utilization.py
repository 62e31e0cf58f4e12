"""How much of a device does a network use, and where does the rest of the time go?"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..core.device import DeviceSpec
from ..core.errors import InvalidShape
from ..core.graph import Layer, ModelGraph
from ..core.protocols import LatencySource
from ..waves import WaveModel
from .binding import wave_model_of
from .losses import occupancy, split_time
from .places import Place, place_group, wasted_by_layer
from .prices import Prices, weakest
from .use import LayerUse, Survey


def survey_utilization(
    graph: ModelGraph,
    latency: LatencySource,
    *,
    widths: Mapping[str, int] | None = None,
    device: DeviceSpec | None = None,
    place: bool = True,
) -> Survey:
    """What share of its device's peak does this network achieve, and where does the rest of the time go?

        utilization = sum of min(2 x multiply-adds / stated peak, latency) / sum of latencies       (never the busy percentage)

    over the layers, with the stated peak FLOP/s of the dtype: the share of the time that a direct product at the peak would take,
    in (0, 1]. Where a direct product would take longer than the layer did (Winograd makes fewer multiplications) all of its time
    counts as useful, and a warning says so.

    `latency` prices every layer, measured or modelled, and is named in the result. `device` states the peak and adds the
    wave model's grid and split of the time (`survey.losses.TimeSplit`); with a wave model as `latency` it is known. Without a
    device, or for a dtype whose peak it does not state, utilization is None and `peak_origin` says why. `widths` replaces
    widths of channel groups. `place=False` leaves out wasted time and headroom, which take a latency curve for each group.

    Raises InvalidShape for a network without layers and for unknown widths, and MissingLatency, with every shape that
    lacks, where the source cannot price the network.

    >>> from tailprune.core.graph import ChannelGroup, ModelGraph, WidthExpr
    >>> from tailprune.core.shapes import LayerShape
    >>> from tailprune.waves import WaveModel, load_device
    >>> shape = LayerShape(op="conv", batch=64, in_channels=64, out_channels=200, in_hw=(28, 28), dtype="float16")
    >>> layer = Layer(name="conv", shape=shape, in_expr=WidthExpr(constant=64), out_expr=WidthExpr(terms=(("g", 1),)))
    >>> group = ChannelGroup(id="g", width=200)
    >>> graph = ModelGraph(model="one layer", layers=(layer,), groups=(group,), input_shape=(64, 64, 28, 28), dtype="float16")
    >>> found = survey_utilization(graph, WaveModel(load_device("h200")))
    >>> 0 < found.utilization < 1, found.kind, found.peak_flops_per_s
    (True, 'modelled', 989000000000000.0)
    >>> abs(found.split.total_us - found.latency_us) < 1e-6
    True
    """
    if not graph.layers:
        raise InvalidShape(f"{graph.model} has no layers to survey. Give a network with convolutions or linear layers.")
    full = graph.check_widths(widths or {})
    prices = Prices(latency)
    prices.layers_us(graph.layers, full)
    prices.refuse_gaps(graph)
    model = WaveModel(device) if device else wave_model_of(latency)
    peak, peak_origin = _stated_peak(model, graph.dtype)
    placed = {g.id: place_group(graph, g, full, prices, bounded=False) for g in graph.prunable_groups} if place else {}
    places = {group: found for group, found in placed.items() if isinstance(found, Place) and not _unpriced(found)}
    wasted: dict[str, float] = {}
    for found in places.values():
        for name, us in wasted_by_layer(graph, found, full, prices).items():
            wasted[name] = wasted.get(name, 0.0) + us
    opinion = model if peak is not None else None
    layers = tuple(_use(layer, full, prices, opinion, peak, wasted, places) for layer in graph.layers)
    return Survey(
        model=graph.model,
        batch=graph.input_shape[0],
        dtype=graph.dtype,
        memory_format=graph.memory_format,
        origin=latency.origin,
        kind=weakest(prices.kinds(graph.layers, full)),
        device=model.device.name if model else None,
        peak_flops_per_s=peak,
        peak_origin=peak_origin,
        layers=layers,
        unplaced={
            g: found if isinstance(found, str) else "its edges are not priced"
            for g, found in placed.items()
            if g not in places
        },
        warnings=tuple(_warnings(graph, layers)),
    )


def _stated_peak(model: WaveModel | None, dtype: str) -> tuple[float | None, str]:
    if model is None:
        return None, "no device with a stated peak was named"
    try:
        peak = model.device.peak(dtype)
    except InvalidShape as error:
        return None, str(error)
    sources = model.device.sources
    stated = sources.get(f"peak_flops_per_s[{dtype}]", sources.get("peak_flops_per_s", "given"))
    return peak, f"stated for {model.device.name} (source: {stated})"


def _use(
    layer: Layer,
    widths: Mapping[str, int],
    prices: Prices,
    model: WaveModel | None,
    peak: float | None,
    wasted: Mapping[str, float],
    places: Mapping[str, Place],
) -> LayerUse:
    shape = layer.shape_at(widths)
    grid = model.profile(shape) if model else None
    terms = layer.out_expr.groups
    return LayerUse(
        name=layer.name,
        shape=shape,
        calls=layer.calls,
        latency_us=prices.layers_us((layer,), widths),
        kind=weakest(prices.kinds((layer,), widths)),
        peak_flops_per_s=peak,
        grid=grid,
        occupancy=occupancy(grid, model, shape.dtype) if model and grid else None,
        split=split_time(shape, prices.shape_us(shape), model).times(layer.calls) if model else None,
        wasted_us=wasted.get(layer.name, 0.0),
        place=places.get(terms[0]) if len(terms) == 1 else None,
    )


def _unpriced(place: Place) -> bool:
    return math.isnan(place.latency_us + place.above_us + (place.below_us or 0.0))


def _warnings(graph: ModelGraph, layers: tuple[LayerUse, ...]) -> list[str]:
    found = []
    beyond = [layer for layer in layers if layer.beyond_peak]
    fewer = [layer.name for layer in beyond if layer.fewer_multiplications]
    others = [layer.name for layer in beyond if not layer.fewer_multiplications]
    if fewer:
        found.append(
            f"{len(fewer)} layers ({fewer[0]}) are faster than a direct product at the stated peak, as Winograd's algorithm can be; "
            "they count as fully used"
        )
    if others:
        found.append(
            f"{len(others)} layers ({others[0]}) exceed the stated peak, and no algorithm explains it: the clock is above the "
            "stated one, or the peak or the latency is wrong; they count as fully used"
        )
    if len({layer.kind == "modelled" for layer in layers}) > 1:
        found.append("measured and modelled latencies are added up here")
    if graph.untraced:
        found.append(f"not in the latency sum, because untraced: {', '.join(graph.untraced)}")
    return found

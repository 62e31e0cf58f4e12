"""Why is this pruned network not faster?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..core.device import DeviceSpec
from ..core.errors import MissingLatency
from ..core.graph import Layer, ModelGraph
from ..core.protocols import LatencyKind, LatencySource
from ..waves import WaveModel
from .binding import Binding, bound_by_measurement, bound_by_model, wave_model_of
from .changes import best_changes, single_changes
from .diagnosis import Diagnosis, LayerFinding
from .payoff import Payoff, find_payoff
from .places import Place, place_group, wasted_by_layer
from .prices import Prices, weakest


def diagnose(
    graph: ModelGraph,
    widths: Mapping[str, int] | None,
    latency: LatencySource,
    *,
    device: DeviceSpec | None = None,
    num_changes: int = 3,
) -> Diagnosis:
    """Why is this pruned network not faster, and what would help?

    `graph` is the dense network and `widths` what pruning left of its channel groups, ragged or not; groups left out
    keep theirs. With `widths` None the network is judged as it stands, by itself: a hand-made or searched one, or a pruned
    one whose dense form is lost; edges above its widths then count, too. `latency` prices layers and is named in the
    result. `device` adds the wave model's opinion on what binds each layer and on other batches; with a wave model as
    `latency` it is known.

    Edges are those of each group's curve that no larger width undercuts. `survey.places.Place` defines wasted time and
    headroom, `survey.changes.single_changes` which changes count. Groups whose staircase the source does not know are
    named in `unplaced` and `warnings`.

    Raises InvalidShape for unknown groups and widths off their granule, and MissingLatency, with every shape that
    lacks, where the source cannot price the networks or the edges beside the widths; `measure_while` measures those.

    >>> from tailprune.core.graph import ChannelGroup, ModelGraph, WidthExpr
    >>> from tailprune.core.shapes import LayerShape
    >>> class Steps:
    ...     origin = "10 us for every 64 channels"
    ...     def latency_us(self, shape): return 10.0 * -(-shape.out_channels // 64)
    ...     def kind(self, shape): return "modelled"
    >>> shape = LayerShape(op="conv", batch=64, in_channels=64, out_channels=512, in_hw=(28, 28), dtype="float16")
    >>> layer = Layer(name="conv", shape=shape, in_expr=WidthExpr(constant=64), out_expr=WidthExpr(terms=(("g", 1),)))
    >>> graph = ModelGraph(model="one layer", layers=(layer,), groups=(ChannelGroup(id="g", width=512),), input_shape=(64, 64, 28, 28))
    >>> change, = diagnose(graph, {"g": 195}, Steps()).changes
    >>> change.group, change.width, change.to, change.saved_us
    ('g', 195, 192, 10.0)
    """
    full = graph.check_widths(widths or {})
    prices = Prices(latency)
    model = WaveModel(device) if device else wave_model_of(latency)
    dense = None if widths is None else graph.widths
    dense_us = None if dense is None else prices.layers_us(graph.layers, dense)
    latency_us = prices.layers_us(graph.layers, full)

    movable = [group for group in graph.prunable_groups if graph.layers_of(group.id)]
    placed = {group.id: place_group(graph, group, full, prices, bounded=dense is not None) for group in movable}
    places = {group: place for group, place in placed.items() if isinstance(place, Place)}
    unplaced = {group: reason for group, reason in placed.items() if isinstance(reason, str)}
    prices.refuse_gaps(graph)
    if placed and not places:
        first, reason = next(iter(unplaced.items()))
        raise MissingLatency(
            f"No channel group of {graph.model} has a known staircase; of {first}, {reason}. Fill the table with "
            "`tailprune measure`, or use the wave model of a device."
        )
    singles = single_changes(graph, full, places.values(), prices, network_us=latency_us)
    changes, together_us = best_changes(graph, full, singles, prices, count=num_changes)
    prices.refuse_gaps(graph)

    payoff = Payoff(why="there is no dense network to compare with")
    if dense is not None:
        payoff = find_payoff(graph, full, [latency, *([model] if model is not None and model is not latency else [])])
    kinds = prices.kinds(graph.layers, full, *([dense] if dense else []))
    return Diagnosis(
        model=graph.model,
        batch=graph.input_shape[0],
        dtype=graph.dtype,
        memory_format=graph.memory_format,
        origin=latency.origin,
        kind=weakest(kinds),
        widths=full,
        dense_us=dense_us,
        latency_us=latency_us,
        macs_share=1.0 if dense is None else graph.macs_at(full) / graph.macs_at(dense),
        layers=tuple(_layer_findings(graph, full, dense, places, prices, model)),
        places=places,
        changes=changes,
        together_us=together_us,
        payoff=payoff,
        unplaced=unplaced,
        warnings=tuple(_warnings(graph, kinds, places, unplaced)),
    )


def _layer_findings(
    graph: ModelGraph,
    widths: Mapping[str, int],
    dense: Mapping[str, int] | None,
    places: Mapping[str, Place],
    prices: Prices,
    model: WaveModel | None,
) -> Iterator[LayerFinding]:
    wasted: dict[str, float] = {}
    for place in places.values():
        for name, us in wasted_by_layer(graph, place, widths, prices).items():
            wasted[name] = wasted.get(name, 0.0) + us
    for layer in graph.layers:
        terms = layer.out_expr.groups
        yield LayerFinding(
            name=layer.name,
            shape=layer.shape_at(widths),
            calls=layer.calls,
            dense_us=None if dense is None else prices.layers_us((layer,), dense),
            latency_us=prices.layers_us((layer,), widths),
            kind=weakest(prices.kinds((layer,), widths)),
            binding=_bind(layer, widths, dense, prices, model),
            wasted_us=wasted.get(layer.name, 0.0),
            place=places.get(terms[0]) if len(terms) == 1 else None,
        )


def _bind(
    layer: Layer, widths: Mapping[str, int], dense: Mapping[str, int] | None, prices: Prices, model: WaveModel | None
) -> Binding:
    """Measured evidence first, the wave model's opinion next, and else nothing."""
    shape = layer.shape_at(widths)
    if dense is not None and prices.kinds((layer,), dense, widths) == {"measured"}:
        before = layer.shape_at(dense)
        found = bound_by_measurement(before, shape, dense_us=prices.shape_us(before), pruned_us=prices.shape_us(shape))
        if found:
            return found
    if model is not None:
        return bound_by_model(model, shape)
    return Binding(bound="unknown", evidence="these latencies do not show it")


def _warnings(
    graph: ModelGraph, kinds: set[LatencyKind], places: Mapping[str, Place], unplaced: Mapping[str, str]
) -> Iterator[str]:
    if "modelled" in kinds and len(kinds) > 1:
        yield "measured and modelled latencies are added up here; changes from one to the other are left out"
    if unplaced:
        first, reason = next(iter(unplaced.items()))
        yield f"{len(unplaced)} groups have no known staircase, so their waste is not counted ({first}: {reason})"
    elsewhere = sum(place.seen_at == "dense" for place in places.values())
    if elsewhere:
        yield (
            f"the edges of {elsewhere} groups are those with all other groups dense, for lack of curves at the present "
            "widths; latencies on and beside them are at the present widths"
        )
    if graph.untraced:
        yield f"not in the latency sum, because untraced: {', '.join(graph.untraced)}"

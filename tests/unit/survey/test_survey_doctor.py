"""Does the doctor name the right waste and the right changes, and does every number hold by the source it names?"""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from survey_worlds import FormulaSource, chain, ragged, steps_of

from tailprune.core.environment import Environment
from tailprune.core.errors import InvalidShape, MissingLatency
from tailprune.core.protocols import FirstOf
from tailprune.core.sample import LatencySample
from tailprune.steps import detect_steps, dominated_widths, group_curve
from tailprune.survey import diagnose
from tailprune.tables import LatencyTable
from tailprune.waves import SimulatedTimer, WaveModel, load_device


def cost(graph, source, widths):
    return math.fsum(layer.calls * source.latency_us(shape) for layer, shape in graph.shapes_at(widths))


def test_waste_on_a_flat_step_is_the_riser_times_the_unused_share():
    graph, source = chain(64), FormulaSource(steps_of(16))
    place = diagnose(graph, {"g0": 36}, source).places["g0"]
    assert (place.edge_below, place.edge_above, place.headroom) == (32, 48, 12)
    assert place.wasted_us == pytest.approx(10 * 12 / 16)
    assert place.fill_us == 0
    assert place.used == 4 / 16


@pytest.mark.parametrize("width", [16, 32, 48, 64])
def test_an_edge_wastes_nothing_and_needs_no_change(width):
    found = diagnose(chain(64), {"g0": width}, FormulaSource(steps_of(16)))
    assert found.wasted_us == 0
    assert found.changes == ()
    assert found.together_us == found.latency_us
    assert "no width is wasted" in " ".join(found.verdict)
    assert "No single change" in found.summary()


def test_below_the_first_edge_nothing_can_be_saved_but_headroom_is_free():
    found = diagnose(chain(64), {"g0": 5}, FormulaSource(steps_of(16)))
    assert found.places["g0"].edge_below is None
    assert found.places["g0"].wasted_us == 0
    assert [str(change) for change in found.changes] == ["Widen g0 from 5 to 16: no slower and 11 channels more."]


def test_a_slope_without_steps_wastes_nothing():
    source = FormulaSource(lambda shape: 5.0 + 0.1 * shape.out_channels)
    found = diagnose(chain(64), {"g0": 41}, source)
    assert found.wasted_us == pytest.approx(0, abs=1e-9)
    assert found.changes == ()


def test_a_mostly_used_step_is_not_narrowed_but_filled():
    found = diagnose(chain(64), {"g0": 31}, FormulaSource(steps_of(16)))
    assert [(c.group, c.to, c.saved_us) for c in found.changes] == [("g0", 32, 0)]


def test_adding_channels_is_preferred_where_it_saves_nearly_as_much():
    source = FormulaSource(lambda shape: 5.0 + shape.out_channels / 8 + (6 if shape.out_channels % 8 else 0))
    (change,) = diagnose(chain(64), {"g0": 41}, source).changes
    assert (change.to, change.saved_us) == (48, 6 - 7 / 8)  # narrowing to 40 would save 6.125


def test_a_long_slope_is_no_step_to_repair():
    source = FormulaSource(lambda shape: 5.0 + shape.out_channels + (40 if shape.out_channels > 16 else 0))
    assert diagnose(chain(64), {"g0": 40}, source).changes == ()


def test_a_hardly_used_step_is_narrowed():
    (change,) = diagnose(chain(64), {"g0": 33}, FormulaSource(steps_of(16))).changes
    assert (change.to, change.saved_us) == (32, 10)
    assert str(change) == f"Narrow g0 from 33 to 32: {1000 / 50:.1f} % faster (10.0 µs) with 1 channel fewer."


def test_a_width_that_a_larger_one_undercuts_is_widened():
    source = FormulaSource(lambda shape: steps_of(16)(shape) + (4 if shape.out_channels % 8 else 0))
    (change,) = diagnose(chain(64), {"g0": 47}, source).changes
    assert (change.to, change.saved_us, change.channels) == (48, 4, 1)
    assert "Widen g0 from 47 to 48: " in str(change) and "1 channel more" in str(change)


def brute_force(graph, source, widths):
    """Group -> most saved by an allowed move, straight from the definition."""
    best = {}
    for group in graph.prunable_groups:
        curve = group_curve(graph, group.id, source, at=widths)
        edges = sorted((set(detect_steps(curve).edge_widths) - set(dominated_widths(curve))) | {group.width})
        at = widths[group.id]
        if at in edges:
            continue
        above = min(e for e in edges if e > at)
        below = max((e for e in edges if e < at), default=0)
        options = [above] + ([below] if below else [])
        saved = {to: cost(graph, source, widths) - cost(graph, source, {**widths, group.id: to}) for to in options}
        if below:
            chord = saved[below] + (saved[above] - saved[below]) * (at - below) / (above - below)
            if max(chord, 0) < saved[below] / 2 - 1e-9:  # how far the network lies above the line between both edges
                del saved[below]
        good = {
            to: us for to, us in saved.items() if us >= 0 and (to > at or us > 0.0005 * cost(graph, source, widths))
        }
        if good:
            to = above if 2 * good.get(above, -1) >= max(good.values()) else max(good, key=good.get)
            best[group.id] = good[to]
    return best


@given(seed=st.integers(0, 10**6), widths=st.tuples(*[st.integers(1, 40)] * 4))
@settings(max_examples=25, deadline=None)
def test_changes_are_the_best_by_brute_force_and_hold_what_they_say(seed, widths):
    graph, source = chain(40, 40, 40, 40), FormulaSource(ragged(seed), kind=lambda shape: "modelled")
    at = {f"g{i}": w for i, w in enumerate(widths)}
    found = diagnose(graph, at, source)
    now = cost(graph, source, at)
    expected = brute_force(graph, source, at)
    everything = diagnose(graph, at, source, num_changes=99).changes

    assert found.latency_us == pytest.approx(now)
    for change in everything:
        assert change.saved_us == pytest.approx(now - cost(graph, source, {**at, change.group: change.to}))
        assert change.saved_us >= 0
        assert change.saved_us == pytest.approx(expected[change.group])
    assert list(everything) == sorted(everything, key=lambda c: -c.saved_us)
    if expected:
        assert found.changes[0].saved_us == pytest.approx(max(expected.values()))
    left_out = expected.keys() - {c.group for c in everything}
    chosen = {c.group: c.to for c in everything}
    for group in left_out:  # only because it would not help on top of the others
        edges = (found.places[group].edge_above, found.places[group].edge_below)
        options = [to for to in edges if to and now - cost(graph, source, {**at, group: to}) >= 0]
        assert any(
            cost(graph, source, {**at, **dict(part), group: to}) > cost(graph, source, {**at, **dict(part)}) - 1e-9
            for to in options
            for part in product(*[((g, t), (g, at[g])) for g, t in chosen.items()])
        )
    together = {**at, **{c.group: c.to for c in found.changes}}
    assert found.together_us == pytest.approx(cost(graph, source, together))
    assert found.together_us <= now + 1e-9


@given(seed=st.integers(0, 10**6), widths=st.tuples(*[st.integers(1, 40)] * 3))
@settings(max_examples=25, deadline=None)
def test_waste_is_never_negative_and_layers_share_all_of_it(seed, widths):
    graph = chain(40, 40, 40)
    found = diagnose(graph, {f"g{i}": w for i, w in enumerate(widths)}, FormulaSource(ragged(seed)))
    assert all(place.wasted_us >= 0 for place in found.places.values())
    assert all(layer.wasted_us >= 0 for layer in found.layers)
    assert math.fsum(layer.wasted_us for layer in found.layers) == pytest.approx(found.wasted_us, abs=1e-9)
    assert math.fsum(layer.latency_us for layer in found.layers) == pytest.approx(found.latency_us)
    assert math.fsum(found.us_by_bound.values()) == pytest.approx(found.latency_us)
    for place in found.places.values():
        assert place.edge_above >= place.width
        assert place.edge_below is None or place.edge_below < place.width
        assert 0 < place.used <= 1


def test_the_networks_sums_and_what_macs_promise():
    graph, source = chain(64, 64), FormulaSource(steps_of(16))
    found = diagnose(graph, {"g0": 33, "g1": 33}, source)
    assert found.dense_us == cost(graph, source, None)
    assert found.expected_us == pytest.approx(found.dense_us * graph.macs_at(found.widths) / graph.macs_at())
    assert found.gap_us == pytest.approx(found.latency_us - found.expected_us)
    assert "went missing" in found.verdict[0]
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["changes"][0]["words"] == str(found.changes[0])


def test_groups_left_out_keep_their_width():
    assert diagnose(chain(64, 48), {"g0": 33}, FormulaSource(steps_of(16))).widths == {"g0": 33, "g1": 48}


def test_a_network_by_itself_sees_the_edge_above_its_width():
    found = diagnose(chain(47), None, FormulaSource(steps_of(16)))
    assert found.dense_us is None and found.gap_us is None
    assert [(c.to, c.channels) for c in found.changes] == [(48, 1)]
    assert "no dense network" in str(found.payoff)
    assert found.verdict[0] == "chain takes 50 µs."
    json.dumps(found.to_dict(), allow_nan=False)


def test_nothing_pruned_is_said():
    assert diagnose(chain(64), {}, FormulaSource(steps_of(16))).verdict[0].startswith("Nothing is pruned")


def test_a_slower_pruned_network_is_called_slower():
    source = FormulaSource(lambda shape: 10.0 + (30 if shape.out_channels % 2 else 0))
    assert "slower than the dense network" in diagnose(chain(64), {"g0": 33}, source).verdict[0]


@pytest.mark.parametrize(
    ("widths", "said"), [({"g7": 8}, "no channel group 'g7'"), ({"g0": 33}, "granule 2"), ({"g0": 0}, "granule 2")]
)
def test_unknown_groups_and_impossible_widths_are_refused(widths, said):
    with pytest.raises(InvalidShape, match=said):
        diagnose(chain(64, granule=2), widths, FormulaSource(steps_of(16)))


def test_groups_that_may_not_move_get_no_place_and_no_change():
    graph = chain(64, 64)
    fixed = dataclasses.replace(graph.groups[0], prunable=False, reason="the user's")
    graph = dataclasses.replace(graph, groups=(fixed, graph.groups[1]))
    found = diagnose(graph, {"g0": 33, "g1": 33}, FormulaSource(steps_of(16)))
    assert set(found.places) == {"g1"}
    assert {c.group for c in found.changes} == {"g1"}


def test_savings_within_the_noise_are_none():
    source = FormulaSource(lambda shape: steps_of(16, riser=1.0)(shape), noise_us=0.5)
    found = diagnose(chain(64), {"g0": 33}, source)
    assert not any(change.faster for change in found.changes)
    assert all(change.to > change.width for change in found.changes)


# -- where latencies come from -------------------------------------------------------------------------------------------


def simulated_table(graph, *all_widths, curves=()):
    timer = SimulatedTimer(load_device("v100"), noise=0.0)
    table = LatencyTable.in_memory(timer.environment)
    shapes = [shape for widths in all_widths for _, shape in graph.shapes_at(widths)]
    for group, at in curves:
        for width in graph.group(group).grid:
            shapes += [layer.shape_at({**graph.widths, **at, group: width}) for layer in graph.layers_of(group)]
    table.add_many(list(timer.time_many(shapes)))
    return table


def test_what_a_table_lacks_is_listed_with_the_command():
    graph = chain(40, 40)
    table = LatencyTable.in_memory(Environment(device="laptop"))
    table.add(LatencySample(shape=graph.layers[0].shape, times_us=(5.0,)))
    with pytest.raises(MissingLatency, match="`tailprune doctor` with --table and the --device") as caught:
        diagnose(graph, {"g0": 20}, table)
    shapes = {shape for widths in (graph.widths, {**graph.widths, "g0": 20}) for _, shape in graph.shapes_at(widths)}
    assert set(caught.value.shapes) == shapes - {graph.layers[0].shape}


def test_a_table_without_any_staircase_is_refused():
    graph = chain(40, 40)
    with pytest.raises(MissingLatency, match="Fill the table with `tailprune measure`"):
        diagnose(graph, {"g0": 20}, simulated_table(graph, {}, {"g0": 20}))


def test_a_group_without_a_staircase_is_named():
    graph, at = chain(40, 40), {"g0": 40, "g1": 20}
    found = diagnose(graph, at, simulated_table(graph, {}, at, curves=[("g1", at)]))
    assert set(found.unplaced) == {"g0"}
    assert any("1 groups have no known staircase" in warning and "g0" in warning for warning in found.warnings)
    assert found.kind == "measured"
    assert found.origin.startswith("latency table")


def test_edges_come_from_the_dense_curve_where_only_that_is_known_and_prices_do_not():
    graph, at = chain(40, 40), {"g0": 21, "g1": 21}
    table = simulated_table(graph, {}, at, curves=[("g0", {}), ("g1", {})])
    timer = SimulatedTimer(load_device("v100"), noise=0.0)
    for _ in range(5):
        try:
            found = diagnose(graph, at, table)
            break
        except MissingLatency as error:
            table.add_many(list(timer.time_many(error.shapes)))
    assert {place.seen_at for place in found.places.values()} == {"dense"}
    assert found.places["g0"].latency_us == pytest.approx(
        sum(table.latency_us(layer.shape_at(at)) for layer in graph.layers_of("g0"))
    )
    assert any("all other groups dense" in warning for warning in found.warnings)


def test_measured_against_modelled_is_no_saving():
    graph, at = chain(64), {"g0": 33}
    known = {shape for widths in (graph.widths, at) for _, shape in graph.shapes_at(widths)}
    measured = FormulaSource(lambda shape: 1000.0, knows=lambda shape: shape in known)
    modelled = FormulaSource(steps_of(16), kind=lambda shape: "modelled")
    found = diagnose(graph, at, FirstOf(measured, modelled))
    assert found.changes == ()  # else each of 32 and 48 would seem to save 900 us


def test_the_source_is_named_in_words():
    graph, at = chain(64, dtype="float16"), {"g0": 33}
    modelled = diagnose(graph, at, WaveModel(load_device("h200")))
    assert "estimated" in modelled.verdict[0]
    assert modelled.kind == "modelled"
    assert "wave model of H200" in modelled.summary()
    assert "estimated" not in diagnose(graph, at, FormulaSource(steps_of(16))).verdict[0]

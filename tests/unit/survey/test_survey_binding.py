"""What binds a layer, and from which batch on pruning pays: evidence, its source, and silence without any."""

from __future__ import annotations

import dataclasses

import pytest
from survey_worlds import FormulaSource, chain, steps_of

from tailprune.core.protocols import FirstOf
from tailprune.core.shapes import LayerShape
from tailprune.survey import diagnose
from tailprune.survey.binding import bound_by_measurement, bound_by_model, wave_model_of
from tailprune.survey.payoff import BATCHES, find_payoff
from tailprune.waves import WaveModel, load_device

H200 = load_device("h200")


def conv(**changes):
    given = {"op": "conv", "batch": 64, "in_channels": 512, "out_channels": 512, "in_hw": (14, 14), "kernel_hw": (3, 3), "padding_hw": (1, 1), "dtype": "float16"}  # fmt: skip
    return LayerShape(**{**given, **changes})


@pytest.mark.parametrize(
    ("shape", "bound"),
    [
        (conv(batch=1, in_channels=8, out_channels=8, in_hw=(4, 4)), "launch"),
        (conv(op="elementwise", kernel_hw=(1, 1), padding_hw=(0, 0), in_hw=(112, 112)), "memory"),
        (conv(batch=64, in_channels=2048, out_channels=129), "wave"),
        (conv(batch=256, in_channels=2048, out_channels=2048), "compute"),
    ],
)
def test_the_model_says_what_binds_and_why(shape, bound):
    found = bound_by_model(WaveModel(H200), shape)
    assert found.bound == bound
    assert found.evidence
    assert found.kind == "modelled"


def test_a_dtype_without_a_stated_rate_is_unknown_not_invented():
    found = bound_by_model(WaveModel(dataclasses.replace(H200, peak_flops_per_s={})), conv())
    assert found.bound == "unknown"
    assert "no stated peak" in found.evidence


def test_measured_flatness_under_less_work_means_launch():
    before, after = conv(batch=1), conv(batch=1, in_channels=256, out_channels=256)
    found = bound_by_measurement(before, after, dense_us=10.0, pruned_us=9.9)
    assert found is not None and found.bound == "launch" and found.kind == "measured"
    assert "75% fewer MACs" in found.evidence


@pytest.mark.parametrize(
    ("after", "us"),
    [
        (conv(in_channels=256, out_channels=256), 6.0),  # it did get faster
        (conv(out_channels=500), 10.0),  # hardly less work
        (conv(in_channels=256), 10.0),  # flat along one axis: the other may hold the step
    ],
)
def test_no_evidence_no_claim(after, us):
    assert bound_by_measurement(conv(), after, dense_us=10.0, pruned_us=us) is None


def test_without_device_or_evidence_binding_is_unknown():
    found = diagnose(chain(64, 64), {"g0": 33, "g1": 33}, FormulaSource(steps_of(16)))
    assert {layer.binding.bound for layer in found.layers} == {"unknown"}
    assert "was not asked" in " ".join(found.verdict)


def test_measured_evidence_outranks_the_models_opinion():
    flat = FormulaSource(lambda shape: 7.0)
    found = diagnose(chain(64, 64), {"g0": 16, "g1": 16}, flat, device=load_device("v100"))
    by_name = {layer.name: layer.binding for layer in found.layers}
    assert (by_name["c1"].bound, by_name["c1"].kind) == ("launch", "measured")


def test_the_wave_model_is_found_inside_a_composed_source():
    model = WaveModel(H200)
    assert wave_model_of(FirstOf(FormulaSource(steps_of(8)), FirstOf(model))) is model
    assert wave_model_of(FormulaSource(steps_of(8))) is None


# -- the batch at which pruning pays --------------------------------------------------------------------------------------


def batch_source(pays_from, *, knows=BATCHES, kind="measured"):
    """Pruned layers cost half from one batch on, and as much as dense ones before."""

    def formula(shape):
        return 10.0 * shape.batch * (0.5 if shape.out_channels < 64 and shape.batch >= pays_from else 1.0)

    return FormulaSource(formula, knows=lambda shape: shape.batch in knows, kind=lambda shape: kind)


def test_the_first_batch_that_pays_is_named():
    payoff = find_payoff(chain(64, 64), {"g0": 20, "g1": 20}, [batch_source(16)])
    assert payoff.batch == 16
    assert [time.batch for time in payoff.times] == list(BATCHES)
    assert "from batch 16 on" in str(payoff)


def test_no_batch_may_pay():
    payoff = find_payoff(chain(64, 64), {"g0": 20, "g1": 20}, [batch_source(512)])
    assert payoff.batch is None
    assert "pays at no batch tried" in str(payoff)


def test_batches_that_do_not_pay_again_are_named():
    source = batch_source(4)
    before = source.formula
    source.formula = lambda shape: 10.0 if shape.batch == 32 else before(shape)
    assert "though not at 32" in str(find_payoff(chain(64, 64), {"g0": 20, "g1": 20}, [source]))


def test_a_table_of_one_batch_gives_way_to_the_model_and_says_so():
    payoff = find_payoff(
        chain(64, 64, batch=8), {"g0": 20, "g1": 20}, [batch_source(1, knows=(8,)), batch_source(4, kind="modelled")]
    )
    assert payoff.kind == "modelled"
    assert payoff.batch == 4


def test_a_table_of_one_batch_alone_says_that_it_is_the_only_one():
    payoff = find_payoff(chain(64, 64, batch=8), {"g0": 20, "g1": 20}, [batch_source(1, knows=(8,))])
    assert payoff.batch == 8
    assert "At batch 8, the only one known, pruning pays" in str(payoff)


def test_a_single_batch_may_not_pay_either():
    payoff = find_payoff(chain(64, 64, batch=8), {"g0": 20, "g1": 20}, [batch_source(16, knows=(8,))])
    assert "the only one known, pruning does not pay" in str(payoff)


def test_unknown_is_said_plainly():
    payoff = find_payoff(chain(64, batch=3), {"g0": 20}, [batch_source(1, knows=(3,))])
    assert payoff.batch is None
    assert "is unknown" in str(payoff)


def test_batches_mixed_of_measured_and_modelled_do_not_count():
    graph, at = chain(64, 64, batch=8), {"g0": 20, "g1": 20}
    measured = FormulaSource(lambda shape: 10.0, knows=lambda shape: shape.out_channels == 64)
    both = FirstOf(measured, FormulaSource(lambda shape: 1.0, kind=lambda shape: "modelled"))
    assert find_payoff(graph, at, [both]).times == ()

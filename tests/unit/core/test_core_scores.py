import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailprune.core.errors import InvalidShape
from tailprune.core.scores import ChannelScores, GroupScores

numbers = st.floats(0, 1e6, allow_nan=False)


@given(st.lists(numbers, min_size=1, max_size=12), st.sampled_from([1, 2, 3]))
def test_kept_score_is_the_best_sum_of_whole_units(values, granule):
    scores = GroupScores(group="g", scores=tuple(values * granule), granule=granule)
    for units in range(len(values) + 1):
        width = units * granule
        kept = scores.kept_channels(width)
        assert len(kept) == width
        assert sum(scores.scores[c] for c in kept) == pytest.approx(scores.kept_score(width))
        assert scores.kept_score(width) == pytest.approx(granule * sum(sorted(values)[len(values) - units :]))
        assert all((c + len(values)) % (len(values) * granule) in kept for c in kept)  # whole units under rotation


def test_at_the_hosts_width_the_hosts_channels_stay_even_on_ties():
    scores = GroupScores(group="g", scores=(1.0, 1.0, 1.0, 5.0), host_kept=(1, 3))
    assert scores.kept_channels(2) == (1, 3)
    assert scores.kept_channels(1) == (3,)
    assert scores.kept_channels(3) == (0, 1, 3)


def test_one_global_scope_is_kept_over_total():
    scores = ChannelScores(
        groups=(
            GroupScores(group="a", scores=(1.0, 3.0), scope="net"),
            GroupScores(group="b", scores=(6.0,), scope="net"),
        )
    )
    assert scores.importance_kept({"a": 1}) == pytest.approx(0.9)


def test_between_scopes_only_shares_are_compared():
    quiet, loud = GroupScores(group="a", scores=(1.0, 1.0)), GroupScores(group="b", scores=(100.0, 100.0))
    scores = ChannelScores(groups=(quiet, loud))
    assert scores.importance_kept({"a": 1}) == pytest.approx(scores.importance_kept({"b": 1})) == pytest.approx(0.75)


def test_a_scope_of_zeros_keeps_nothing_but_breaks_nothing():
    scores = ChannelScores(groups=(GroupScores(group="a", scores=(0.0, 0.0)), GroupScores(group="b", scores=(1.0,))))
    assert scores.importance_kept({}) == pytest.approx(1 / 3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_bad_scores_name_the_channel(bad):
    with pytest.raises(InvalidShape, match="Group g: the score of channel 1"):
        GroupScores(group="g", scores=(0.0, bad))


def test_widths_off_the_granule_are_refused():
    with pytest.raises(InvalidShape, match="multiples of 2"):
        GroupScores(group="g", scores=(1.0,) * 4, granule=2).kept_channels(3)

"""Which networks may have one parent."""

from __future__ import annotations

import pytest

from sampan.errors import InvalidParameter
from sampan.network.lans import Lan, refuse_sharing

L2, L3, PRIVATE, BRIDGE = 0, 1, 1, 4


@pytest.mark.parametrize(
    ("there", "wanted", "said"),
    [
        (Lan("ipvlan", "eth0", L2), Lan("ipvlan", "eth0", L3), "with another ipvlan_mode or ipvlan_flag"),
        (Lan("ipvlan", "eth0", L2), Lan("ipvlan", "eth0", L2, PRIVATE), "with another ipvlan_mode"),
        (Lan("ipvlan", "eth0", L2), Lan("macvlan", "eth0", BRIDGE), "one kind of children"),
        (Lan("macvlan", "eth0", 8, alone=True), Lan("macvlan", "eth0", BRIDGE), "in mode passthru"),
        (Lan("macvlan", "eth0", BRIDGE), Lan("macvlan", "eth0", 8, alone=True), "cannot use mode passthru"),
    ],
)
def test_a_parent_is_not_had_in_two_ways(there: Lan, wanted: Lan, said: str) -> None:
    with pytest.raises(InvalidParameter, match=said):
        refuse_sharing(wanted, "new", {"old": there})
    refuse_sharing(wanted, "old", {"old": there})  # it is the same network


def test_a_parent_is_shared_in_one_way() -> None:
    for one in (Lan("ipvlan", "eth0", L3), Lan("macvlan", "eth0", BRIDGE)):
        refuse_sharing(one, "new", {"old": one})
    refuse_sharing(Lan("ipvlan", "eth0.10", L3), "new", {"old": Lan("ipvlan", "eth0", L2)})

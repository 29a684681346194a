"""What a router can be made with, and which ledger it can be read off."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from . import expert_states

if TYPE_CHECKING:
    from .ledger import Ledger
    from .routing import Router


def check_arguments(kind: type[Router], arguments: dict[str, Any]) -> None:
    """Check that a kind of router can be made with some arguments.

    Raises
    ------
    ValueError
        If one is missing or unknown.
    """
    try:
        inspect.signature(kind).bind(**arguments)
    except TypeError as error:
        raise ValueError(
            f"The {kind.name} router cannot be made so ({error}): give a fitted router, or the "
            "name of one that needs no fitting (uniform, evidence)"
        ) from None


def check_ledger(router: Router, ledger: Ledger) -> None:
    """Check that a router can be read off a ledger.

    Raises
    ------
    ValueError
        For a router that is not causal (it mixes logits and needs the models), one that reads
        other states than the ledger's, and one that was fitted for another number of experts.
    """
    if not router.causal:
        raise ValueError(
            f"The {router.name} router is not causal and cannot be read off a ledger: "
            "use fusion.score on the fused model"
        )
    held = expert_states.held(ledger)
    if router.reads not in (None, held):
        ways = {"experts": "expert_states.read", "trunk": "trunk_router.gates"}
        raise ValueError(
            f"The {router.name} router reads states of the {router.reads}, and this ledger holds "
            f"those of the {held}: use {ways.get(router.reads, 'ledger.build')}"
        )
    n_experts = len(ledger.experts)
    made_for = router.arguments().get("n_experts", n_experts)
    if made_for != n_experts:
        raise ValueError(
            f"The {router.name} router chooses between {made_for} experts, and the ledger has "
            f"{n_experts}: fit it again, or take the expert out with membership.without"
        )

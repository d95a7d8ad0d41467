"""How often an auth manager is asked what a user may read: it may be a server, and a page asks every 15 seconds."""

from __future__ import annotations

from collections.abc import Sequence

from include.orchestration.ui.permissions import PERMISSIONS_KEPT_S, USERS_KEPT, Permissions, sifted


def test_one_question_when_all_is_allowed_and_few_when_one_is_not() -> None:
    names = [f"offload__k2__t{n}" for n in range(1000)]
    asked: list[int] = []

    def allowed(denied: set[str]) -> list[str]:
        asked.clear()

        def all_of(part: Sequence[str]) -> bool:
            asked.append(len(part))
            return not denied & set(part)

        return sifted(names, all_of)

    assert allowed(set()) == names
    assert asked == [1000]
    assert allowed({names[7]}) == [n for n in names if n != names[7]]
    assert len(asked) <= 21
    assert allowed(set(names)) == []
    assert sifted([], lambda _: False) == []


def test_permissions_are_asked_again_after_a_minute_or_for_another_dag() -> None:
    clock = [0.0]
    known = Permissions(clock=lambda: clock[0])
    asked: list[str] = []

    def of(user: str, dags: set[str], answer: set[str]) -> frozenset[str]:
        def ask() -> set[str]:
            asked.append(user)
            return answer

        return known.of(user, frozenset(dags), ask)

    assert of("ann", {"a", "b"}, {"a"}) == {"a"}
    assert of("ann", {"a", "b"}, {"a", "b"}) == {"a"}
    assert of("bob", {"a", "b"}, set()) == set()
    assert of("ann", {"a", "b", "c"}, {"c"}) == {"c"}
    assert asked == ["ann", "bob", "ann"]
    clock[0] = PERMISSIONS_KEPT_S
    assert of("ann", {"a", "b", "c"}, {"b"}) == {"b"}
    for n in range(USERS_KEPT):
        of(f"u{n}", {"a"}, set())
    assert of("ann", {"a", "b", "c"}, {"a"}) == {"a"}, "users who do not come back are forgotten"

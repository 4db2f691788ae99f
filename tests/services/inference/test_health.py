"""When an engine counts as hung."""

from services.inference.health import Watch


def test_an_engine_whose_counters_move_is_alive_without_a_canary() -> None:
    watch = Watch(hang_seconds=60, alive_at=0)
    assert not watch.progressed(10, now=1)
    assert watch.progressed(11, now=59)
    assert not watch.hung(now=118)


def test_an_answered_canary_is_a_sign_of_life() -> None:
    watch = Watch(hang_seconds=60, alive_at=0)
    watch.answered(now=50)
    assert not watch.hung(now=109)


def test_an_engine_silent_for_too_long_is_hung() -> None:
    watch = Watch(hang_seconds=60, alive_at=0)
    watch.progressed(10, now=0)
    watch.progressed(10, now=60)
    assert watch.hung(now=61)

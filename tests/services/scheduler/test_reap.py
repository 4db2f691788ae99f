"""When a lease counts as lost: tables, and a storm of all that can happen to the observer."""

from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.reap import LeaseWatch
from shared.jobs.lease import HeldLease

STILL = HeldLease("ftjob-1", 1, 5)
WINDOW, GAP = 30, 10


def observed(times, leases=STILL):
    """Scan at each of ``times`` (a scan takes no time); return what the last one expired."""
    watch, expired = LeaseWatch[HeldLease](WINDOW, GAP), []
    for time in times:
        expired = watch.scanned(time, time, [leases])
    return expired


def test_a_lease_that_stood_still_for_the_window_is_expired_and_not_a_scan_earlier():
    assert observed(range(0, 30, 5)) == []
    assert observed(range(0, 31, 5)) == [STILL]


def test_a_lease_that_moves_is_never_expired():
    watch = LeaseWatch[HeldLease](WINDOW, GAP)
    for time in range(0, 300, 5):
        assert watch.scanned(time, time, [HeldLease("ftjob-1", 1, time // 25)]) == []


def test_a_failed_scan_starts_the_window_anew():
    watch = LeaseWatch[HeldLease](WINDOW, GAP)
    for time in range(0, 30, 5):
        watch.scanned(time, time, [STILL])
    watch.failed()
    assert watch.scanned(31, 31, [STILL]) == []
    assert watch.scanned(36, 36, [STILL]) == []


def test_a_gap_between_scans_starts_the_window_anew():
    assert observed([0, 5, 10, 15, 20, 31, 36, 41]) == []


def test_a_scan_that_took_long_counts_from_its_end_to_the_next_ones_beginning():
    watch = LeaseWatch[HeldLease](WINDOW, 60)
    assert watch.scanned(0, 20, [STILL]) == []
    assert watch.scanned(40, 49, [STILL]) == []
    assert watch.scanned(50, 50, [STILL]) == [STILL]


def test_a_new_attempt_with_the_same_number_has_a_window_of_its_own():
    watch = LeaseWatch[HeldLease](WINDOW, GAP)
    for time in range(0, 30, 5):
        watch.scanned(time, time, [STILL])
    assert watch.scanned(30, 30, [STILL._replace(attempt=2)]) == []


@given(
    st.lists(
        st.tuples(st.floats(0.1, 25), st.floats(0, 5), st.booleans(), st.booleans()), max_size=60
    )
)
def test_in_any_storm_only_a_lease_seen_unmoved_for_the_window_expires(storm):
    """Model: the lease was seen unmoved at the end of each scan of an unbroken series."""
    watch, now, seq = LeaseWatch[HeldLease](WINDOW, GAP), 0.0, 0
    seen_since, last = None, None
    for pause, took, fails, moves in storm:
        began, ended = now + pause, now + pause + took
        now, seq = ended, seq + moves
        if fails:
            watch.failed()
            seen_since = last = None
            continue
        expired = watch.scanned(began, ended, [HeldLease("ftjob-1", 1, seq)])
        if moves or last is None or ended - last > GAP:
            seen_since = ended
        last = ended
        assert bool(expired) == (began - seen_since >= WINDOW)

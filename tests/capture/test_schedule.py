"""When what is measured."""

from lossdoctor.capture.schedule import Cadence, SampleSteps


def test_every_interval_of_the_geometric_partition_begins_with_a_sample_step():
    starts, start = set(), 0
    while start < 5000:
        starts.add(start)
        start += max(2, start // 20)
    schedule = SampleSteps()
    assert {row for row in range(5000) if schedule.is_due(row)} == starts | set(range(0, 5000, 1000))


def test_the_next_sample_step_is_the_next_row_that_is_due():
    one, other = SampleSteps(), SampleSteps()
    due = [row for row in range(4000) if one.is_due(row)]
    walked = [0]
    while (row := other.after(walked[-1])) < 4000:
        walked.append(row)
    assert walked == due


def test_a_run_that_is_resumed_far_on_has_its_sample_steps_where_it_would_have_had_them():
    whole, resumed = SampleSteps(), SampleSteps()
    due = [row for row in range(9000) if whole.is_due(row)]
    assert resumed.after(7000) == next(row for row in due if row > 7000)


def test_the_cadence_is_the_smallest_that_is_cheap_enough_and_is_fixed_after_50_steps():
    def settled(share: float) -> int:
        cadence = Cadence()
        for _ in range(50):
            assert cadence.every == 1
            cadence.add(1.0, share)
        cadence.add(1.0, 100.0)
        return cadence.every

    assert [settled(share) for share in (0.001, 0.004, 0.005, 0.012, 0.025, 1.0)] == [1, 1, 4, 8, 16, 16]


def test_a_pinned_cadence_stays():
    assert Cadence(3).every == 3
    assert Cadence(3).settled

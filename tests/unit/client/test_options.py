"""Options and arguments that cannot be used are refused in one sentence."""

import pytest


@pytest.mark.parametrize("hours", ["nan", "inf", "-1", "0", "8761"])
def test_hours_of_a_link_outside_their_range_are_a_usage_error(command, hours):
    done = command("share", "0198", f"--hours={hours}")
    assert done.exit_code == 2, done.output
    assert "Invalid value for '--hours'" in done.output
    assert ("finite" if hours == "nan" else "1 minute to 365 days") in done.output

"""When schedules run. Expected times are of the calendar and of the IANA database, not of this code."""

import datetime
import unittest

import schedule
import zones

UTC = datetime.timezone.utc


def runs(text, after, count=3, zone="UTC"):
    moments, notes = schedule.Schedule(text).runs(zones.zone(zone), datetime.datetime.fromisoformat(after), count)
    return [moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M") for moment in moments], notes


class Runs(unittest.TestCase):
    def test_fields_mean_what_crontab_says(self):
        for text, expected in [
            ("* * * * *", ["2026-01-01 00:01", "2026-01-01 00:02"]),
            ("*/15 8-9 * * *", ["2026-01-01 08:00", "2026-01-01 08:15"]),
            ("5/20 * * * *", ["2026-01-01 00:05", "2026-01-01 00:25"]),
            ("0 0 29 2 *", ["2028-02-29 00:00", "2032-02-29 00:00"]),
            ("0 12 * * MON-FRI", ["2026-01-01 12:00", "2026-01-02 12:00"]),
            ("0 0 1,15 * *", ["2026-01-15 00:00", "2026-02-01 00:00"]),
            ("30 4 * jan sun", ["2026-01-04 04:30", "2026-01-11 04:30"]),
            ("@monthly", ["2026-02-01 00:00", "2026-03-01 00:00"]),
            ("0 0 * * 7", ["2026-01-04 00:00", "2026-01-11 00:00"]),
            ("0 0 * * 5-7", ["2026-01-02 00:00", "2026-01-03 00:00"]),
        ]:
            self.assertEqual(runs(text, "2026-01-01T00:00:00+00:00", 2)[0], expected, text)

    def test_a_run_at_the_very_moment_is_not_next(self):
        self.assertEqual(runs("0 0 * * *", "2026-01-01T00:00:00+00:00", 1)[0], ["2026-01-02 00:00"])
        self.assertEqual(runs("0 0 * * *", "2025-12-31T23:59:59.999+00:00", 1)[0], ["2026-01-01 00:00"])

    def test_two_kinds_of_days_are_joined_by_or(self):
        # The 13th is a Tuesday; Fridays are the 2nd and the 9th.
        self.assertEqual(runs("0 0 13 1 5", "2026-01-01T00:00:00+00:00")[0], ["2026-01-02 00:00", "2026-01-09 00:00", "2026-01-13 00:00"])
        self.assertIn("not only", schedule.Schedule("0 0 13 * 5").notes[0])
        self.assertIn("Vixie", schedule.Schedule("0 0 */2 * 5").notes[1])

    def test_the_clock_goes_forward(self):
        # 2026-03-29 02:00 becomes 03:00 in Berlin.
        times, notes = runs("30 2 * * *", "2026-03-28T12:00:00+00:00", 2, "Europe/Berlin")
        self.assertEqual(times, ["2026-03-30 00:30", "2026-03-31 00:30"])
        self.assertIn("skips 02:30", notes[0])

    def test_the_clock_goes_back(self):
        # 2026-10-25 03:00 becomes 02:00 in Berlin.
        times, notes = runs("30 2 * * *", "2026-10-24T12:00:00+00:00", 3, "Europe/Berlin")
        self.assertEqual(times, ["2026-10-25 00:30", "2026-10-25 01:30", "2026-10-26 01:30"])
        self.assertIn("02:30 twice", notes[0])
        hourly, _ = runs("0 * * * *", "2026-10-24T23:30:00+00:00", 4, "Europe/Berlin")
        self.assertEqual(hourly, ["2026-10-25 00:00", "2026-10-25 01:00", "2026-10-25 02:00", "2026-10-25 03:00"])

    def test_zones_that_are_far_ahead_and_behind(self):
        self.assertEqual(runs("0 0 * * *", "2026-01-01T00:00:00+00:00", 1, "Pacific/Kiritimati")[0], ["2026-01-01 10:00"])
        self.assertEqual(runs("0 0 * * *", "2026-01-01T00:00:00+00:00", 1, "Pacific/Pago_Pago")[0], ["2026-01-01 11:00"])
        self.assertEqual(runs("0 6 * * *", "2026-07-01T00:00:00+00:00", 1, "Asia/Kolkata")[0], ["2026-07-01 00:30"])

    def test_what_never_comes(self):
        self.assertEqual(runs("0 0 30 2 *", "2026-01-01T00:00:00+00:00"), ([], []))

    def test_what_is_wrong_is_named(self):
        for text, says in [
            ("", "this has 0"),
            ("* * * *", "this has 4"),
            ("0 0 0 1 1 ?", "Quartz"),
            ("60 * * * *", "'60' is no minute; there are 0-59"),
            ("* 24 * * *", "no hour"),
            ("* * 0 * *", "no day of the month"),
            ("* * * 13 *", "JAN-DEC"),
            ("* * * * 8", "SUN-SAT"),
            ("*/0 * * * *", "from 1 to 60"),
            ("*/-1 * * * *", "from 1 to 60"),
            ("5-1 * * * *", "runs backwards"),
            ("1,,2 * * * *", "'' is no minute"),
            ("x * * * *", "'x' is no minute"),
            ("? * * * *", "write *"),
            ("٣ * * * *", "is no minute"),
            ("99999999999999999999 * * * *", "is no minute"),
            ("@reboot", "machine starts"),
            ("@every 5m", "from the start"),
            ("@fortnightly", "@daily"),
        ]:
            with self.assertRaises(ValueError, msg=text) as caught:
                schedule.Schedule(text)
            self.assertIn(says, str(caught.exception), text)

    def test_zones_are_those_of_the_database(self):
        self.assertEqual(schedule.Schedule("TZ=Asia/Tokyo 0 3 * * *").zone_name, "Asia/Tokyo")
        for name, says in [("Berlin", "Europe/Berlin"), ("europe/berlin", "Europe/Berlin"), ("../../etc/passwd", "is no time zone"), ("", "is no time zone")]:
            with self.assertRaises(ValueError) as caught:
                zones.zone(name)
            self.assertIn(says, str(caught.exception))


if __name__ == "__main__":
    unittest.main()

"""Cron schedules as Kubernetes reads them: five fields or a macro. Pure; it is told what time it is.

What is said where readers of cron differ is the reading of Kubernetes (the parser robfig/cron, version 3): days of the month
and of the week are joined by "or" when both are restricted, times that a change of the clock leaves out do not run, and
times it repeats run twice.
"""

import calendar
import datetime
import re

_MONTHS = {name.upper(): at for at, name in enumerate(calendar.month_abbr) if name}
_DAYS = {name: at for at, name in enumerate(["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"])}
_FIELDS = [
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 6, _DAYS),
]
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
# Further ahead nothing is looked for: the 29th of February comes again within eight years.
_MOST_DAYS = 10 * 366


class Schedule:
    """What a text means."""

    def __init__(self, text):
        words = text.split()
        self.zone_name = None
        self.notes = []
        if words and re.match(r"(CRON_)?TZ=", words[0]):
            self.zone_name = words.pop(0).partition("=")[2]
        if words and words[0].startswith("@"):
            words = self._macro(words)
        if len(words) != 5:
            hint = "; fields for seconds or years, as in Quartz, are not known to cron" if len(words) in (6, 7) else ""
            raise ValueError(f"a schedule has five fields (minute, hour, day of the month, month, day of the week) and this has {len(words)}{hint}")
        self.text = " ".join(words)
        parsed = [self._field(word, *field) for word, field in zip(words, _FIELDS)]
        self.minutes, self.hours, self.days, self.months, self.weekdays = (sorted(values) for values, _ in parsed)
        self.any_day, self.any_weekday = parsed[2][1], parsed[4][1]
        if not self.any_day and not self.any_weekday:
            self.notes.append("it runs on days that fit the day of the month or the day of the week, not only on days that fit both")
            if words[2].startswith("*") or words[4].startswith("*"):
                self.notes.append("crontab of Vixie cron reads a field that begins with * otherwise: there both must fit")

    @staticmethod
    def _macro(words):
        word = words[0]
        if word in _MACROS and len(words) == 1:
            return _MACROS[word].split()
        if word == "@reboot":
            raise ValueError("@reboot runs when the machine starts, which no clock can tell")
        if word.startswith("@every"):
            raise ValueError("@every counts from the start of whatever runs it; give five fields instead")
        raise ValueError(f"'{word[:40]}' is not known; there are {', '.join(_MACROS)}")

    def _field(self, word, name, low, high, names):
        """The values of one field, and whether it is unrestricted."""
        values, unrestricted = set(), False
        for part in word.split(","):
            span, slash, step = part.partition("/")
            if slash and not (step.isascii() and step.isdigit() and 0 < int(step) <= 60):
                raise ValueError(f"the step in '{part[:40]}' ({name}) must be a number from 1 to 60")
            if span in ("*", "?"):
                if span == "?" and name not in ("day of the month", "day of the week"):
                    raise ValueError(f"'?' stands for a day, not for the {name}; write *")
                first, last = low, high
                unrestricted = unrestricted or not slash or int(step) == 1
            else:
                start, dash, end = span.partition("-")
                first = self._value(start, name, low, high, names)
                last = self._value(end, name, low, high, names) if dash else (high if slash else first)
                if name == "day of the week" and dash and first == 7:
                    first = 0
                if last < first:
                    raise ValueError(f"the range '{span[:40]}' ({name}) runs backwards; write the smaller value first")
            values.update(range(first, last + 1, int(step) if slash else 1))
        if name == "day of the week" and 7 in values:
            self.notes.append("7 is read as Sunday; Kubernetes knows Sunday only as 0 and refuses 7")
            values = {value % 7 for value in values}
        return values, unrestricted

    @staticmethod
    def _value(text, name, low, high, names):
        if text.upper() in names:
            return names[text.upper()]
        most = 7 if name == "day of the week" else high
        if text.isascii() and text.isdigit() and low <= int(text[:4]) <= most and len(text) <= 4:
            return int(text)
        also = f" or {'-'.join([next(iter(names)), list(names)[-1]])}" if names else ""
        raise ValueError(f"'{text[:40]}' is no {name}; there are {low}-{high}{also}")

    def fits(self, day):
        """Whether it runs on this date."""
        if day.month not in self.months:
            return False
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        if self.any_day or self.any_weekday:
            return of_month and of_week
        return of_month or of_week

    def runs(self, zone, after, count):
        """The next `count` runs after the moment `after`, as (moments in `zone`, notes). Fewer: there are no more."""
        found, notes = [], []
        utc = datetime.timezone.utc
        # The day before too: a zone may be behind.
        day = after.astimezone(zone).date() - datetime.timedelta(days=1)
        for _ in range(_MOST_DAYS):
            if self.fits(day):
                moments, said = self._of_day(day, zone)
                fresh = [moment for moment in moments if moment.astimezone(utc) > after.astimezone(utc)]
                found.extend(fresh)
                if fresh or not moments:
                    notes.extend(said)
                if len(found) >= count:
                    break
            day += datetime.timedelta(days=1)
        return found[:count], notes

    def _of_day(self, day, zone):
        moments, left_out, twice = set(), [], []
        for hour in self.hours:
            for minute in self.minutes:
                naive = datetime.datetime(day.year, day.month, day.day, hour, minute)
                both = {fold: naive.replace(tzinfo=zone, fold=fold).astimezone(datetime.timezone.utc) for fold in (0, 1)}
                real = {moment for moment in both.values() if moment.astimezone(zone).replace(tzinfo=None) == naive}
                moments.update(real)
                if not real:
                    left_out.append(f"{hour:02}:{minute:02}")
                elif len(real) == 2:
                    twice.append(f"{hour:02}:{minute:02}")
        notes = []
        if left_out:
            notes.append(f"on {day} the clock skips {_few(left_out)}: it does not run then")
        if twice:
            notes.append(f"on {day} the clock shows {_few(twice)} twice: it runs both times")
        return [moment.astimezone(zone) for moment in sorted(moments)], notes


def _few(times):
    return ", ".join(times[:3]) + (f" and {len(times) - 3} more" if len(times) > 3 else "")

"""Text in any language of the Unicode CLDR, through Babel: real words, machine-made documents.

CLDR holds what a computer needs to speak a language: names of territories, languages, scripts,
currencies, cities and time zones, and patterns for dates, times, lists, units and amounts. Here
those words and patterns are put together with random (seeded) dates and figures into almanac
entries: profiles of a territory, timetables, measurements, prices, enumerations, short exchanges
about dates. The words, scripts and inflections are real; the figures and facts are not, apart
from which languages and currencies belong to a territory, and there is hardly a finite verb.
"""

import datetime as dt
import random
import re
import unicodedata
from collections.abc import Callable

from babel import Locale, dates, languages, lists, numbers, units

_ENGLISH = re.compile(r"\b(week|of|the|and|time|islands?|standard|summer|daylight|unknown|other)\b")
_INVISIBLE = dict.fromkeys(map(ord, "\u200e\u200f\u061c")) | dict.fromkeys(
    map(ord, "\xa0\u202f"), " "
)
_SKELETONS = ("yMMMMd", "MMMMd", "yMMMM", "MMMEd", "MMMMW", "yQQQQ", "yw", "yMMMEd", "MMMMEd")
_SPANS = ("hour", "day", "week", "month", "year")
_TOPIC_SIZE = 7

Entry = Callable[[random.Random, "Topic"], str]


class Topic:
    """The few territories and dates that one document keeps coming back to."""

    def __init__(self, rng: random.Random, cldr: "Cldr") -> None:
        pool = cldr.countries
        # Squaring favours the first (shuffled once per language) names: a Zipf-like frequency.
        picks = [pool[int(len(pool) * rng.random() ** 2)] for _ in range(_TOPIC_SIZE)]
        self.countries = list(dict.fromkeys(picks))
        self.day = dt.date(1900, 1, 1) + dt.timedelta(days=rng.randrange(55_000))
        self.units = rng.sample(cldr.units, min(6, len(cldr.units)))
        self.currencies = rng.sample(cldr.currencies, 5)
        self.cities = rng.sample(cldr.cities, min(6, len(cldr.cities)))


class Cldr:
    """What CLDR knows about one language, without anything that is left in English.

    Parameters
    ----------
    code
        Babel locale code, such as ``"ta"`` or ``"pt_BR"``.
    """

    def __init__(self, code: str) -> None:
        self.locale = locale = Locale.parse(code)
        english = Locale("en")
        self.latin = bool(re.search("[A-Za-z]", locale.languages[locale.language]))

        def named(kind: str) -> dict[str, str]:
            theirs, ours = getattr(english, kind), getattr(locale, kind)
            return {k: self.tidy(v) for k, v in sorted(ours.items()) if self.own(v, theirs.get(k))}

        self.languages, self.currency_names = named("languages"), named("currencies")
        self.territories, scripts = named("territories"), named("scripts")
        self.names = [list(x.values()) for x in (self.languages, self.territories, scripts)]
        self.countries = [k for k in self.territories if len(k) == 2 and self.spoken(k)]
        random.Random(code).shuffle(self.countries)
        self.currencies = list(self.currency_names)
        zones, theirs = locale.time_zones, english.time_zones
        self.cities = [
            self.tidy(zone["city"])
            for key, zone in sorted(zones.items())
            if "city" in zone and self.own(zone["city"], theirs.get(key, {}).get("city"))
        ]
        self.zones = self._zone_names(english)
        self.units = [
            unit
            for unit in sorted(locale._data["unit_patterns"])  # Babel has no public list of units
            if unit not in (text := self.amount(unit, 3)) and self.own(text, _unit(english, unit))
        ]
        self.skeletons = [s for s in _SKELETONS if self._speaks(s)]
        moment = dt.timedelta(days=3)
        self.relative = self.own(dates.format_timedelta(moment, add_direction=True, locale=locale))
        self.day_parts = self._speaks("Bhm")
        self.entries: list[Entry] = [e for e in _ENTRIES if e is not _relative or self.relative]
        if not self.units:
            self.entries = [e for e in self.entries if e not in (_measure, _route)]
        if not self.cities:
            self.entries = [e for e in self.entries if e not in (_timetable, _route)]

    def own(self, text: str, english: str | None = None) -> bool:
        """Tell whether `text` is a word of this language and not one left in English."""
        if text == english or _ENGLISH.search(text.lower()):
            return False
        letters = sum(ch.isalpha() for ch in text)
        return letters >= 2 and (self.latin or not re.search("[A-Za-z]", text))

    @staticmethod
    def tidy(text: str) -> str:
        return unicodedata.normalize("NFC", text.translate(_INVISIBLE)).strip()

    def spoken(self, territory: str) -> list[str]:
        info = languages.get_territory_language_info(territory)
        return [self.languages[k] for k in info if k in self.languages]

    def amount(self, unit: str, value: float) -> str:
        return units.format_unit(value, unit, locale=self.locale)

    def money(self, rng: random.Random, currency: str) -> str:
        value = rng.choice((rng.randrange(1, 30), rng.randrange(30, 9000), rng.random() * 900))
        name = numbers.format_currency(value, currency, format_type="name", locale=self.locale)
        return name if self.own(name) else self.currency_names[currency]

    def date(self, rng: random.Random, day: dt.date) -> str:
        if rng.random() < 0.5:
            return dates.format_date(day, rng.choice(("full", "long")), locale=self.locale)
        return dates.format_skeleton(rng.choice(self.skeletons), day, locale=self.locale)

    def clock(self, rng: random.Random) -> str:
        moment = dt.datetime(2000, 1, 1, rng.randrange(24), rng.choice(range(0, 60, 5)))
        if self.day_parts and rng.random() < 0.5:
            return dates.format_skeleton("Bhm", moment, locale=self.locale)
        return dates.format_time(moment.time(), "HH:mm", locale=self.locale)

    def join(self, items: list[str], style: str = "standard") -> str:
        text = lists.format_list(["\0" + item for item in items], style, locale=self.locale)
        # Some patterns glue the conjunction to the next word, which is right outside Latin only.
        return (re.sub(r"(?<=\w)\0", " ", text) if self.latin else text).replace("\0", "")

    def _speaks(self, skeleton: str) -> bool:
        moment = dt.datetime(2021, 3, 5, 15, 4)
        try:
            text = dates.format_skeleton(skeleton, moment, locale=self.locale)
        except KeyError:
            return False
        return self.own(text, dates.format_skeleton(skeleton, moment, locale="en"))

    def _zone_names(self, english: Locale) -> list[str]:
        found: dict[str, None] = {}
        for key, zone in sorted(self.locale.meta_zones.items()):
            theirs = english.meta_zones.get(key, {}).get("long", {})
            for kind, name in sorted(zone.get("long", {}).items()):
                if isinstance(name, str) and self.own(name, theirs.get(kind)):
                    found[self.tidy(name)] = None
        return list(found)

    def document(self, rng: random.Random) -> str:
        """Return one almanac of about 600 to 2,400 characters about a handful of territories."""
        topic, size = Topic(rng, self), rng.randrange(600, 2000)
        place = self.territories[topic.countries[0]]
        blocks = [f"{place} – {dates.format_date(topic.day, 'full', locale=self.locale)}"]
        kinds = rng.sample(self.entries, min(4, len(self.entries)))
        while sum(map(len, blocks)) < size:
            entry = rng.choice(kinds)
            lines = [entry(self, rng, topic) for _ in range(rng.randrange(2, 6))]
            blocks.append(rng.choice(("\n", " ")).join(lines))
        return self.tidy("\n\n".join(blocks))


def _unit(locale: Locale, unit: str) -> str:
    return units.format_unit(3, unit, locale=locale)


def _some(rng: random.Random, pool: list, low: int, high: int) -> list:
    return rng.sample(pool, min(len(pool), rng.randint(low, high)))


def _country(c: Cldr, rng: random.Random, topic: Topic) -> str:
    return c.territories[rng.choice(topic.countries)]


def _profile(c: Cldr, rng: random.Random, topic: Topic) -> str:
    """A territory, languages spoken there, its currency: the one entry that states facts."""
    code = rng.choice(topic.countries)
    parts = [c.join(_some(rng, c.spoken(code), 1, 5))]
    money = [
        c.currency_names[k] for k in numbers.get_territory_currencies(code) if k in c.currency_names
    ]
    parts += money[:1]
    if rng.random() < 0.4:
        people = rng.randrange(20, 900) * 10 ** rng.randrange(3, 7)
        text = numbers.format_compact_decimal(people, format_type="long", locale=c.locale)
        parts.append(text if c.own(text) else numbers.format_decimal(people, locale=c.locale))
    rng.shuffle(parts)
    return f"{c.territories[code]}: {'; '.join(parts)}."


def _measure(c: Cldr, rng: random.Random, topic: Topic) -> str:
    head = rng.choice(topic.cities) if topic.cities else _country(c, rng, topic)
    found = [
        c.amount(
            u,
            rng.choice((rng.randrange(1, 12), rng.randrange(12, 900), round(rng.random() * 40, 1))),
        )
        for u in _some(rng, topic.units, 1, 4)
    ]
    return f"{head}, {c.date(rng, topic.day)}: {c.join(found)}."


def _route(c: Cldr, rng: random.Random, topic: Topic) -> str:
    start, end = (
        rng.sample(topic.cities, 2) if len(topic.cities) > 1 else [_country(c, rng, topic)] * 2
    )
    length = c.amount(rng.choice(topic.units), rng.randrange(2, 400))
    fare = c.money(rng, rng.choice(topic.currencies))
    return f"{start} – {end}: {c.clock(rng)} – {c.clock(rng)} ({length}, {fare})"


def _timetable(c: Cldr, rng: random.Random, topic: Topic) -> str:
    city = rng.choice(topic.cities)
    zone = f" ({rng.choice(c.zones)})" if c.zones and rng.random() < 0.6 else ""
    return f"{c.clock(rng)}{zone}: {city}, {_country(c, rng, topic)}"


def _prices(c: Cldr, rng: random.Random, topic: Topic) -> str:
    offers = [c.money(rng, k) for k in _some(rng, topic.currencies, 2, 4)]
    return f"{_country(c, rng, topic)}: {c.join(offers, rng.choice(('standard', 'or')))}."


def _listing(c: Cldr, rng: random.Random, topic: Topic) -> str:
    return c.join(_some(rng, rng.choice(c.names), 2, 6), rng.choice(("standard", "or"))) + "."


def _events(c: Cldr, rng: random.Random, topic: Topic) -> str:
    topic.day += dt.timedelta(days=rng.randrange(1, 40))
    when = f"{c.date(rng, topic.day)}, {c.clock(rng)}"
    spoken = rng.choice(c.spoken(rng.choice(topic.countries)))
    return f"{when}: {_country(c, rng, topic)} ({spoken})."


def _period(c: Cldr, rng: random.Random, topic: Topic) -> str:
    end = topic.day + dt.timedelta(days=rng.randrange(2, 400))
    span = dates.format_interval(topic.day, end, "yMMMd", locale=c.locale)
    topic.day = end
    return f"{span}: {c.join([c.territories[k] for k in _some(rng, topic.countries, 1, 4)])}."


def _relative(c: Cldr, rng: random.Random, topic: Topic) -> str:
    """Two speakers on dates: relative time asked, absolute time answered."""
    unit = rng.choice(_SPANS)
    days = {"hour": 1 / 24, "day": 1, "week": 7, "month": 30.5, "year": 365.25}[unit]
    delta = dt.timedelta(days=days * rng.randrange(1, 20) * rng.choice((-1, 1)))
    asked = dates.format_timedelta(
        delta, granularity=unit, threshold=9, add_direction=True, locale=c.locale
    )
    answer = f"{c.date(rng, topic.day + delta)}, {c.clock(rng)}"
    return f"– {_country(c, rng, topic)}, {asked}?\n– {answer}."


def _exchange(c: Cldr, rng: random.Random, topic: Topic) -> str:
    """Two speakers, choosing one of several names."""
    pool = rng.choice(c.names)
    offered = rng.sample(pool, rng.randint(2, 3))
    return f"– {c.join(offered, 'or')}?\n– {rng.choice(offered)}, {_country(c, rng, topic)}."


_ENTRIES = (_profile, _measure, _route, _timetable, _prices, _listing, _events, _period, _relative,
            _exchange)  # fmt: skip


def documents(code: str, size: int = 600_000) -> list[tuple[str, str]]:
    """Return almanacs in the language `code` worth `size` bytes of UTF-8, as (text, source)."""
    cldr, rng = Cldr(code), random.Random(f"cldr/{code}")
    found: list[tuple[str, str]] = []
    written = 0
    while written < size:
        text = cldr.document(rng)
        found.append((text, f"cldr/{code}/{len(found):04d}"))
        written += len(text.encode())
    return found

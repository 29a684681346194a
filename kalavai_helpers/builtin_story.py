"""Fiction from a seeded story grammar: original English stories with a persistent cast.

A story is an arc (a list of stages); a stage draws sentences from its own templates and from
shared scenery, gesture and dialogue templates. `{word}` in a template is replaced by a random
entry of the vocabulary of that name, recursively; `{H}`, `{F}`, `{R}`, `{E}` are the story's
hero, friend, rival and elder (`{h}`, `{hs}`, `{hm}`: the hero's he, his, him; and so on).
`{a X}` adds an article, `{s X}` the plural, `{ed X}` the past tense.
"""

import random
import re

from kalavai_helpers.builtin_words import NAMES_HE, NAMES_SHE, SURNAMES, TOWN_HEAD, TOWN_TAIL, WORDS

# One template a line; stages of an arc first, then what any stage may borrow.
STAGES: dict[str, list[str]] = {
    key: [line.strip() for line in text.strip().splitlines()]
    for key, text in {
        "open": """
            In {T}, where the {spot} meets the {spot}, there lived {a trait} {trade} called {H}.
            {H} had been the {trade} of {T} for {count} years, and nobody had ever seen {hm} {do} {a thing}.
            The {season} that {H} turned {count}, the {flaw} came to {T} and did not leave.
            Everyone in {T} knew {H}, the {trait} {trade}, and most of them owed {hm} {a thing}.
            It was the {adj} {thing} that began it, or so {H} always said.
            Long before the {flaw}, {H} kept {a animal} and {a adj} {thing} in {a room} above the {spot}.
            When {H}'s {kin} died, {h} inherited {a room}, {count} {s thing} and a letter that {h} was afraid to open.
            There are {count} ways to leave {T}, and {H} had tried them all before {h} was twenty.""",
        "want": """
            What {h} wanted, more than {food} or {drink}, was to {do} {goal}.
            {goal^} belonged to {T}, and {H} meant to bring it home.
            "{goal^} was made for people like us," {hs} {kin} used to say, and {H} had believed it.
            {H} had promised {hs} {kin} that {goal} would never leave the {room}.
            Without {goal} the {room} would have to be sold before {season}.
            {E}, the {trait} old {trade}, had once told {hm} that {goal} lay somewhere beyond the {spot}.
            Nobody else remembered {goal}, but {H} dreamed of it {count} nights in a row.
            {h^} had lost {goal} to {R} through the {flaw}, and {h} could not forget it.""",
        "meet": """
            {time^} {h} met {F}, {a trait} {trade} who {ed do} {np} and asked no questions.
            {F} was {trait} where {H} was {trait2}, and they quarrelled about {np} within the hour.
            "You will need {a thing}," {say} {F}, "and somebody {trait} to carry it."
            {a trade^} named {F} shared {fs} {food} with {hm} and offered to come as far as the {spot}.
            {F} wore {a colour} {garment} and spoke of {virtue} as other people speak of the {weather}.
            {E} sent for {F}, who knew every {spot} between {T} and the sea.
            It was {F} who found {hm} in the {room}, talking to {a animal}.""",
        "go": """
            They {ed go} {path}, and {F} {ed do} {np} {manner}.
            {time^} they {ed go} {path}; {H} was {mood}, {F} was {mood}, and the {weather} did not help.
            For {count} days they {ed go} {path} and ate nothing but {food}.
            {H} {ed go} {path}, leaving {np} behind.
            The road went {path}, and after {count} miles {F} stopped to {do} {np}.
            {a animal^} followed them {path} and would not be driven off.
            Some {folk} who passed them {path} had heard of {goal}, but each told a different story.
            They slept in {a room} that smelled of {food} and {weather}.
            "{count^} more miles," {say} {F} {path}, though {f} had said so {time}.""",
        "trouble": """
            Then {R}, the {trait} {trade}, arrived with {count} {folk} and {a adj} {thing}.
            {R} had followed them {path}, and now {r} stood in the {room} with {goal} under {rs} {garment}.
            The {weather} took the bridge, and with it {np} and all of their {food}.
            {F} fell on the {spot} and could not walk, and {H} did not know how to {do} {np}.
            {time^} they found the {room} empty: {R} had already {perf} {np}.
            {a flaw^} had closed the {spot}, and the {folk} would let nobody through without {a thing}.
            "It was never yours," {say} {R}, and {r} {ed do} {np} {manner}.
            {H} lied to {F} about {goal}, and {F}, who was {trait}, knew it at once.
            They had trusted {a trait} {trade}, and by morning nobody could find {np}.""",
        "dark": """
            {H} sat in the {room} and thought of {hs} {kin}, of {virtue}, and of the {food} they had not eaten.
            That night {h} was so {mood} that {h} {ed do} {np} just to keep {hs} {body} busy.
            "Go home," {say} {F}. "There is no {virtue} in this."
            There was nothing left but {np} and the sound of the {weather} on the roof.
            For the first time {h} wondered whether {goal} was worth the {flaw}.
            {F} had gone, {time}, without {fs} {garment}, and {H} was too {mood} to follow.
            {h^} counted what remained: {np}, {np} and {count} {s thing}.""",
        "turn": """
            Then {h} noticed {np}, and remembered what {E} had said about {virtue}.
            Inside {np} was a note: "Look {path}, and bring {a thing}."
            It was the {animal} that showed them the way {path}.
            {F} came back {time} with {np}, {count} {folk} and an apology.
            "{virtue^}," {say} {E}, "is only {virtue} with {a adj} {garment} on," and suddenly {h} understood.
            The {adj} {thing} fitted the lock; behind the door {np} lay in the dust.
            {R}'s own {kin} told them where {goal} was hidden, for {r} had been {trait} to everyone.
            {h^} offered {R} {np} for {goal}, and to {hs} surprise {r} laughed.""",
        "climax": """
            They met at the {spot}, in the {weather}, with {goal} between them.
            {R} {ed go} {path}; {H}, no longer {mood}, {ed go} after {rm}.
            {H} could have let {rm} fall, but {h} held out {np} and pulled.
            "Take it," {say} {R} at last. "It has brought me nothing but {flaw2}."
            {F} threw {np}, the {animal} screamed, and {goal} rolled across the {spot}.
            In front of {count} {folk} {H} told the truth about {goal}, {manner}.
            The {thing} broke, and inside it, wrapped in {a colour} {garment}, lay {goal}.
            {h^} had expected to hate {rm}; instead {h} was only {mood}.""",
        "end": """
            They came home to {T} in {season}, with {goal} and {count} new {s thing}.
            {goal^} hangs in the {room} now, and {folk} come from the {spot} to see it.
            {F} stayed, opened {a room} beside the {spot}, and never spoke of the {flaw} again.
            {R} works there too, {trait} as ever, and {ed do} {np} every {season}.
            {H} never did {do} {np}, but {h} was {mood}, and that was enough.
            If you pass through {T}, ask for the {trade}; {h} will give you {drink} and tell it differently.
            And the {animal}? It went {path}, and some say it is there still.
            "Was it worth it?" {F} asked. {H} looked at {goal} and said nothing for a long time.
            As for {np}, nobody in {T} can say what happened next.""",
    }.items()
}
SHARED = [line.strip() for line in """
    {time^} the {weather} came over the {spot}, and the {folk} went indoors.
    {H} {ed do} {np} {manner}.
    {H} heard {sound} and {ed go} {path}, {mood} and {mood2}.
    {F} {ed do} {np}, and {H} {ed do} {np2}; neither was {mood}.
    The {room} was {adj} and smelled of {food}.
    {h^} rubbed {hs} {body} and tried not to look {mood}.
    There was {a thing} on the sill, {a garment} on the nail, and {a animal} asleep by the {tree} logs.
    {F} poured the {drink}, cut the {food}, and looked at {np}.
    "I was {count} when I learned to {do} {a thing}," {F} {say}, "and {mood} ever after."
    "Have you ever seen {a material} {thing}?" {H} asked. "Only once," {F} {say}, "and it belonged to {a trait} {trade}."
    "My {kin} used to say that {virtue} is {a adj} {thing}," {say} {E}.
    "Tell me about the {flaw}," {say} {F}. {H} {ed do} {np} instead.
    "Listen," {say} {F}, and far off {h} heard {sound}.
    "We cannot {do} {np} before {season}," {say} {H} {manner}. "Then we {do} {np2}," {F} {say}, "or we go home {mood}."
    {a colour^} {animal} crossed the {spot}, stopped beside {a tree}, and was gone.
    Under the {tree} some {folk} were singing about {virtue} and {food}.
    It was the kind of {weather} that makes {folk} think of {virtue}.
    {h^} thought of the {room} in {T}, the {adj} {thing}, and {hs} {kin} who could {do} anything.
    {E} used to {do} {np}, until the {flaw}; since then {e} kept {a animal} for company.
    On the {spot} stood {a adj} {room} with {a colour} door and {count} {adj} {s thing}.
    {F}'s {body} were {colour} with {weather}, but {f} did not complain.
    Nobody who has lived through {a flaw} laughs at {a adj} {thing}.
    {count^} {folk} had come from the {spot} to {do} {np}, and every one of them was {mood}.
    The {tree} by the {spot} had lost its leaves, and the {animal} under it looked {mood}.
    They agreed about {virtue}; about {food} they did not.
    "What is it?" {say} {F}. "{a adj^} {thing}," {say} {H}, "or what the {weather} has left of one."
    While {F} slept, {H} {ed do} {np} and listened to the {weather}.
    {R} was never far away: {time} they had seen {rs} {colour} {garment} near the {spot}.
    """.strip().splitlines()]  # fmt: skip
ARCS = (
    "open want meet go trouble dark turn climax end",
    "open meet want go go trouble turn climax end",
    "open trouble want meet go dark turn go climax end",
    "open want go meet trouble go dark climax turn end",
    "open want trouble meet go turn trouble climax end",
)
_PRONOUNS = {"she": ("she", "her", "her"), "he": ("he", "his", "him")}


def _plural(noun: str) -> str:
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2] not in "aeo" else noun + "s"


def _past(verb: str) -> str:
    base, _, irregular = verb.partition("/")
    if irregular:
        return irregular
    if base.endswith("y") and base[-2] not in "aeo":
        return base[:-1] + "ied"
    return base + ("d" if base.endswith("e") else "ed")


def _article(phrase: str) -> str:
    vowel = phrase[0] in "aeiou" or phrase.startswith(("hour", "honest"))
    return ("an " if vowel else "a ") + phrase


_FORMS = {"a": _article, "s": _plural, "ed": _past}
_SLOT = re.compile(r"\{(?:(a|s|ed) )?([A-Za-z]+?)(\d?)(\^?)\}")


def _cast(rng: random.Random) -> dict[str, str]:
    """Draw the words that stay the same through one story."""
    words = {"T": rng.choice(TOWN_HEAD) + rng.choice(TOWN_TAIL)}
    taken: set[str] = set()
    for role in "HFRE":
        gender = rng.choice(("she", "he"))
        names = [n for n in (NAMES_SHE if gender == "she" else NAMES_HE) if n not in taken]
        words[role] = rng.choice(names)
        taken.add(words[role])
        words["+" + role] = rng.choice(SURNAMES)
        small = role.lower()
        words[small], words[small + "s"], words[small + "m"] = _PRONOUNS[gender]
    words["goal"] = f"the {rng.choice(WORDS['material'])} {rng.choice(WORDS['thing'])}"
    # A story keeps coming back to a few places, things and people: what it is about.
    for key, few in {"spot": 7, "thing": 9, "animal": 3, "room": 5, "trade": 5, "kin": 3, "food": 6,
                     "weather": 4, "flaw": 3, "virtue": 6, "folk": 5, "garment": 4}.items():  # fmt: skip
        words["~" + key] = ",".join(rng.sample(WORDS[key], few))
    return words


def _fill(rng: random.Random, template: str, cast: dict[str, str]) -> str:
    def slot(match: re.Match[str]) -> str:
        form, key, _, capital = match.groups()
        if key in cast:
            surname = cast.pop("+" + key, "")  # people are introduced by their full name
            text = f"{cast[key]} {surname}".strip()
        elif key == "perf":
            text = rng.choice(("taken", "sold", "burned", "moved", "ruined", "searched", "claimed"))
        else:
            local = cast.get("~" + key)
            pool = local.split(",") if local and rng.random() < 0.8 else WORDS[key]
            text = rng.choice(pool)
            if form != "ed":
                text = text.partition("/")[0]
        text = _fill(rng, text, cast)
        if form:
            text = _FORMS[form](text)
        return text[0].upper() + text[1:] if capital else text

    return _SLOT.sub(slot, template)


def _sayable(template: str, stages: list[str]) -> bool:
    """Tell whether a template speaks only of people the story has brought in by now."""
    met = "meet" in stages or not re.search(r"\{(F|f|fs|fm)\^?\}", template)
    opposed = "trouble" in stages or not re.search(r"\{(R|r|rs|rm)\^?\}", template)
    return met and (opposed or stages[-1] == "want")


def story(rng: random.Random) -> str:
    """Return one story of 9 or 10 paragraphs, mostly 2,000 to 3,500 characters."""
    cast, used = _cast(rng), set()
    stages = rng.choice(ARCS).split()
    paragraphs = []
    for n, stage in enumerate(stages, start=1):
        own = [t for t in STAGES[stage] if t not in used and _sayable(t, stages[:n])]
        shared = [t for t in SHARED if t not in used and _sayable(t, stages[:n])]
        first, *more = rng.sample(own, min(len(own), rng.choice((1, 2, 2))))
        more += rng.sample(shared, min(len(shared), rng.choice((1, 2, 2, 3))))
        used.update((first, *more))
        rng.shuffle(more)
        sentences = [_fill(rng, template, cast) for template in (first, *more)]
        paragraphs.append(" ".join(s[0].upper() + s[1:] for s in sentences))
    return "\n\n".join(paragraphs)


def documents(size: int = 1_200_000) -> list[tuple[str, str]]:
    """Return stories worth `size` bytes of UTF-8, as (text, source)."""
    rng = random.Random("stories")
    found: list[tuple[str, str]] = []
    written = 0
    while written < size:
        text = story(rng)
        found.append((text, f"story/{len(found):04d}"))
        written += len(text.encode())
    return found

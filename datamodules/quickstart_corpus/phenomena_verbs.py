"""Argument structure, verb forms, tense and word order within the clause.

The families of phenomena follow BLiMP (Warstadt et al. 2020, arXiv 1912.00582) and the examples of CoLA
(Warstadt et al. 2019); rules and sentences are our own.
"""

from __future__ import annotations

from datamodules.quickstart_corpus.phenomena_shared import (
    SLOT,
    TRANSPARENT_AUXILIARIES,
    MinimalPair,
    PairMaker,
    Sampler,
    be,
    contrast,
    contrast_by,
    have,
    reordering,
)

_TIMES = (
    ("yesterday", "tomorrow"),
    ("last week", "next week"),
    ("last month", "next month"),
    ("last year", "next year"),
)
_TAGS = {"is": "isn't", "has": "hasn't", "will": "won't", "can": "can't", "are": "aren't", "have": "haven't"}


def transitivity(sampler: Sampler) -> MinimalPair:
    """The nurse purchased / *sneezed the lamp; The nurse sneezed / *purchased again; passives alike."""
    words = sampler.vocabulary
    person, item = sampler.person(sampler.coin()), sampler.object(sampler.coin())
    transitive, intransitive = sampler.choose(words.object_verbs), sampler.choose(words.intransitive_verbs)
    takes_object = sampler.coin()
    time = sampler.choose(("again", "yesterday", "twice", "last week", "last month"))
    form = sampler.choose(("past", "base", "participle"))
    if form == "past":
        frame = f"the {person} {SLOT} the {item}." if takes_object else f"the {person} {SLOT} {time}."
    elif form == "base":
        auxiliary = sampler.choose((*TRANSPARENT_AUXILIARIES, "did not"))
        frame = f"the {person} {auxiliary} {SLOT} the {item}." if takes_object else f"the {person} {auxiliary} {SLOT}."
    else:
        auxiliary = sampler.choose(("had", "will have", "must have"))
        singular_item = sampler.object()
        frame = (
            f"the {singular_item} {sampler.choose(('was', 'had been', 'will be'))} {SLOT} by the {person}."
            if takes_object
            else f"the {person} {auxiliary} {SLOT}."
        )
    return contrast_by(takes_object, frame, getattr(transitive, form), getattr(intransitive, form))


def double_object(sampler: Sampler) -> MinimalPair:
    """The nurse gave / *donated the sailor the lamp; The nurse donated / *damaged the lamp to the sailor.

    In the third kind of pair, "donate" loses its "to". That is kept rare, since "to" gives it away.
    """
    words = sampler.vocabulary
    giver, receiver = sampler.people()
    if sampler.coin():
        item = sampler.object(sampler.coin())
        alternating, rigid = sampler.choose(words.giving_verbs), sampler.choose(words.delivering_verbs)
    else:
        item = sampler.choose(words.messages).form(sampler.coin())
        alternating, rigid = sampler.choose(words.telling_verbs), sampler.choose(words.explaining_verbs)
    form = sampler.choose(("past", "base"))
    auxiliary = "" if form == "past" else f"{sampler.choose((*TRANSPARENT_AUXILIARIES, 'did not'))} "
    subject = f"the {giver} {auxiliary}"
    kind = sampler.choose(("two objects", "two objects", "preposition", "order"))
    verb = getattr(rigid, form)
    if kind == "two objects":
        return contrast(f"{subject}{SLOT} the {receiver} the {item}.", getattr(alternating, form), verb)
    if kind == "preposition":
        no_receiver = getattr(sampler.choose(words.object_verbs), form)
        return contrast(f"{subject}{SLOT} the {item} to the {receiver}.", verb, no_receiver)
    return reordering(f"{subject}{verb} the {item} to the {receiver}.", f"{subject}{verb} the {receiver} the {item}.")


def auxiliary_verb_form(sampler: Sampler) -> MinimalPair:
    """The nurse has stolen / *stole the lamp; The nurse stole / *stolen it; The nurse must (*to) steal it."""
    entry = sampler.choose(sampler.vocabulary.irregular_verbs)
    verb, item = entry.verb, sampler.choose(entry.objects).form(sampler.coin())
    plural = sampler.coin()
    person = f"the {sampler.person(plural)}"
    auxiliary = sampler.choose(TRANSPARENT_AUXILIARIES)
    perfect = sampler.choose((have(plural), "had", f"{auxiliary} have"))
    options = (
        (f"{person} {perfect} {SLOT} the {item}.", verb.participle, verb.past),
        (f"{person} {SLOT} the {item}.", verb.past, verb.participle),
        (
            f"{person} {auxiliary} {SLOT} the {item}.",
            verb.base,
            sampler.choose((verb.third_person, verb.gerund)),
        ),
        (f"{person} {be(plural)} {SLOT} the {item}.", verb.gerund, verb.base),
        (f"{person} did not {SLOT} the {item}.", verb.base, sampler.choose((verb.past, verb.participle))),
        (f"{person} {auxiliary} {SLOT} the {item}.", verb.base, f"to {verb.base}"),
    )
    return contrast(*sampler.choose(options))


def tense_time_adverb(sampler: Sampler) -> MinimalPair:
    """The nurse found the lamp yesterday / *tomorrow; The nurse will find the lamp tomorrow / *yesterday."""
    words = sampler.vocabulary
    past_time, future_time = sampler.choose(_TIMES)
    is_past = sampler.coin()
    plural = sampler.coin()
    item = f" the {sampler.object(sampler.coin())}"
    options = [(verb, item) for verb in words.object_verbs] + [(verb, "") for verb in words.intransitive_verbs]
    verb, rest = sampler.choose(options)
    future = sampler.choose((f"will {verb.base}", f"{be(plural)} going to {verb.base}"))
    clause = f"the {sampler.person(plural)} {verb.past if is_past else future}{rest}"
    frame = f"{clause} {SLOT}." if sampler.coin() else f"{SLOT} {clause}."
    return contrast_by(is_past, frame, past_time, future_time)


def _tag_statement(sampler: Sampler, auxiliary: str) -> str:
    words = sampler.vocabulary
    if auxiliary in ("is", "are"):
        return f"{auxiliary} {sampler.choose(words.person_adjectives)}"
    verb, rest = sampler.choose(
        (
            (sampler.choose(words.object_verbs), f" the {sampler.object()}"),
            (sampler.choose(words.intransitive_verbs), ""),
        )
    )
    return f"{auxiliary} {verb.participle if auxiliary in ('has', 'have') else verb.base}{rest}"


def tag_question(sampler: Sampler) -> MinimalPair:
    """Mary has sneezed, hasn't / *isn't she? The king is tall, isn't he / *she?"""
    plural = sampler.choose((True, False, False))
    auxiliaries = ("are", "have", "will", "can") if plural else ("is", "has", "will", "can")
    auxiliary, other_auxiliary = sampler.two(auxiliaries)
    feminine = sampler.coin()
    subject = sampler.gendered_phrase(feminine)
    text, pronoun = subject.text, subject.pronoun
    if plural:
        text, pronoun = f"the {sampler.person(plural=True)}", "they"
    statement = f"{text} {_tag_statement(sampler, auxiliary)}"
    if not plural and sampler.coin():
        other_pronoun = "he" if feminine else "she"
        return contrast(f"{statement}, {_TAGS[auxiliary]} {SLOT}?", pronoun, other_pronoun)
    return contrast(f"{statement}, {SLOT} {pronoun}?", _TAGS[auxiliary], _TAGS[other_auxiliary])


def word_order(sampler: Sampler) -> MinimalPair:
    """The nurse quickly found the lamp / *found quickly the lamp, and other neighbors swapped."""
    words = sampler.vocabulary
    plural = sampler.coin()
    person, item, adjective = (
        sampler.person(plural),
        sampler.object(plural),
        sampler.choose(words.object_adjectives),
    )
    verb, adverb = sampler.choose(words.object_verbs), sampler.choose(words.manner_adverbs)
    auxiliary = sampler.choose((have(plural), "had"))
    place = f"{sampler.choose(('near', 'beside', 'behind'))} the {person}"
    question = sampler.choose(("which", "whose"))
    options = (
        (f"the {person} {adverb} {verb.past} the {item}.", f"the {person} {verb.past} {adverb} the {item}."),
        (f"the {adjective} {item} {be(plural)} {place}.", f"the {item} {adjective} {be(plural)} {place}."),
        (
            f"the {person} {auxiliary} not {verb.participle} the {item}.",
            f"the {person} not {auxiliary} {verb.participle} the {item}.",
        ),
        (
            f"{question} {item} did the {person} {verb.base}?",
            f"{question} did the {person} {verb.base} {item}?",
        ),
    )
    return reordering(*sampler.choose(options))


MAKERS: tuple[PairMaker, ...] = (
    transitivity,
    double_object,
    auxiliary_verb_form,
    tense_time_adverb,
    tag_question,
    word_order,
)

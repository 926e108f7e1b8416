"""The words of the quickstart corpus: one vocabulary for each split, with no content word in common.

Train, validation and test share function words only (determiners, auxiliaries, pronouns, ...), because the
rules under test are about those. Whatever a model gets right on the test split is therefore a rule or general
knowledge of English, never a memory of the training words.
"""

from __future__ import annotations

from datamodules.quickstart_corpus.vocabulary import Vocabulary, irregular_verb, nouns, verbs, words

_TRAIN_OBJECTS = nouns(
    "lamp lamps, chair chairs, table tables, clock clocks, box boxes, basket baskets, mirror mirrors,"
    "radio radios, bottle bottles, camera cameras, bicycle bicycles, piano pianos,"
    "ladder ladders, blanket blankets,"
    "wallet wallets, hammer hammers"
)
_VALIDATION_OBJECTS = nouns(
    "desk desks, bucket buckets, guitar guitars, phone phones, kettle kettles, jacket jackets,"
    "suitcase suitcases, vase vases"
)
_TEST_OBJECTS = nouns(
    "sofa sofas, candle candles, umbrella umbrellas, laptop laptops, tent tents, necklace necklaces,"
    "shovel shovels, carpet carpets, barrel barrels, violin violins, statue statues"
)

TRAIN = Vocabulary(
    masculine_names=words("Robert David Kevin George Peter Richard Daniel Edward Brian Harold"),
    feminine_names=words("Mary Susan Linda Karen Nancy Laura Julia Emma Alice Helen"),
    masculine_nouns=nouns("king kings, father fathers, man men, nephew nephews, boy boys"),
    feminine_nouns=nouns("queen queens, mother mothers, woman women, niece nieces, girl girls"),
    people=nouns(
        "doctor doctors, lawyer lawyers, nurse nurses, soldier soldiers, student students, dentist dentists,"
        "professor professors, sailor sailors, tourist tourists, plumber plumbers, librarian librarians,"
        "mechanic mechanics, banker bankers, detective detectives, surgeon surgeons, neighbor neighbors"
    ),
    objects=_TRAIN_OBJECTS,
    foods=nouns("potato potatoes, carrot carrots, cookie cookies, banana bananas"),
    mass_nouns=words("rice flour sugar milk"),
    messages=nouns("story stories, secret secrets, plan plans"),
    person_adjectives=words("tall happy famous tired clever polite rich"),
    object_adjectives=words("dusty heavy expensive cheap wet small"),
    manner_adverbs=words("quickly secretly recently finally"),
    object_verbs=verbs(
        "find finds found found finding, damage damages damaged damaged damaging,"
        "purchase purchases purchased purchased purchasing, destroy destroys destroyed destroyed destroying,"
        "retrieve retrieves retrieved retrieved retrieving, grab grabs grabbed grabbed grabbing"
    ),
    person_verbs=verbs(
        "praise praises praised praised praising, insult insults insulted insulted insulting,"
        "blame blames blamed blamed blaming"
    ),
    attitude_verbs=verbs(
        "admire admires admired admired admiring, envy envies envied envied envying,"
        "trust trusts trusted trusted trusting"
    ),
    intransitive_verbs=verbs(
        "sneeze sneezes sneezed sneezed sneezing, vanish vanishes vanished vanished vanishing,"
        "hesitate hesitates hesitated hesitated hesitating, snore snores snored snored snoring,"
        "giggle giggles giggled giggled giggling, arrive arrives arrived arrived arriving,"
        "faint faints fainted fainted fainting"
    ),
    irregular_verbs=(
        irregular_verb("steal steals stole stolen stealing", _TRAIN_OBJECTS),
        irregular_verb("hide hides hid hidden hiding", _TRAIN_OBJECTS),
        irregular_verb("choose chooses chose chosen choosing", _TRAIN_OBJECTS),
        irregular_verb("write writes wrote written writing", nouns("letter letters, novel novels")),
        irregular_verb("eat eats ate eaten eating", nouns("apple apples, sandwich sandwiches")),
    ),
    food_verbs=verbs("buy buys bought bought buying, waste wastes wasted wasted wasting, use uses used used using"),
    knowledge_verbs=verbs(
        "know knows knew known knowing, discover discovers discovered discovered discovering,"
        "remember remembers remembered remembered remembering"
    ),
    statement_verbs=verbs(
        "think thinks thought thought thinking, say says said said saying,believe believes believed believed believing"
    ),
    giving_verbs=verbs("give gives gave given giving, sell sells sold sold selling, lend lends lent lent lending"),
    delivering_verbs=verbs("donate donates donated donated donating, display displays displayed displayed displaying"),
    telling_verbs=verbs("tell tells told told telling"),
    explaining_verbs=verbs(
        "explain explains explained explained explaining, describe describes described described describing"
    ),
)

VALIDATION = Vocabulary(
    masculine_names=words("Thomas Steven Henry Andrew Paul Walter"),
    feminine_names=words("Sarah Rebecca Rachel Diana Sophie Martha"),
    masculine_nouns=nouns("uncle uncles, groom grooms, duke dukes, husband husbands"),
    feminine_nouns=nouns("aunt aunts, bride brides, duchess duchesses, wife wives"),
    people=nouns(
        "pilot pilots, chef chefs, senator senators, tailor tailors, scientist scientists, athlete athletes,"
        "butcher butchers, journalist journalists"
    ),
    objects=_VALIDATION_OBJECTS,
    foods=nouns("onion onions, lemon lemons, biscuit biscuits"),
    mass_nouns=words("butter salt juice"),
    messages=nouns("rule rules, method methods, trick tricks"),
    person_adjectives=words("sad young honest hungry"),
    object_adjectives=words("dirty huge ugly valuable"),
    manner_adverbs=words("quietly suddenly hastily"),
    object_verbs=verbs(
        "fix fixes fixed fixed fixing, ruin ruins ruined ruined ruining,"
        "acquire acquires acquired acquired acquiring, misplace misplaces misplaced misplaced misplacing"
    ),
    person_verbs=verbs(
        "mock mocks mocked mocked mocking, flatter flatters flattered flattered flattering,"
        "humiliate humiliates humiliated humiliated humiliating"
    ),
    attitude_verbs=verbs("respect respects respected respected respecting, fear fears feared feared fearing"),
    intransitive_verbs=verbs(
        "yawn yawns yawned yawned yawning, disappear disappears disappeared disappeared disappearing,"
        "shiver shivers shivered shivered shivering, kneel kneels knelt knelt kneeling"
    ),
    irregular_verbs=(
        irregular_verb("take takes took taken taking", _VALIDATION_OBJECTS),
        irregular_verb("throw throws threw thrown throwing", nouns("ball balls, stone stones")),
        irregular_verb("tear tears tore torn tearing", nouns("poster posters, curtain curtains")),
        irregular_verb("wear wears wore worn wearing", nouns("scarf scarves, sweater sweaters")),
    ),
    food_verbs=verbs("order orders ordered ordered ordering, want wants wanted wanted wanting"),
    knowledge_verbs=verbs("recall recalls recalled recalled recalling, reveal reveals revealed revealed revealing"),
    statement_verbs=verbs("claim claims claimed claimed claiming, suspect suspects suspected suspected suspecting"),
    giving_verbs=verbs("hand hands handed handed handing, offer offers offered offered offering"),
    delivering_verbs=verbs(
        "surrender surrenders surrendered surrendered surrendering,"
        "dispatch dispatches dispatched dispatched dispatching"
    ),
    telling_verbs=verbs("teach teaches taught taught teaching"),
    explaining_verbs=verbs(
        "announce announces announced announced announcing, mention mentions mentioned mentioned mentioning"
    ),
)

TEST = Vocabulary(
    masculine_names=words("William James Michael Charles Patrick Gregory Oscar"),
    feminine_names=words("Elizabeth Margaret Jennifer Teresa Barbara Catherine Monica"),
    masculine_nouns=nouns("brother brothers, son sons, prince princes, widower widowers"),
    feminine_nouns=nouns("sister sisters, daughter daughters, princess princesses, widow widows"),
    people=nouns(
        "baker bakers, engineer engineers, poet poets, carpenter carpenters, secretary secretaries,"
        "barber barbers, musician musicians, architect architects, mayor mayors, clerk clerks"
    ),
    objects=_TEST_OBJECTS,
    foods=nouns("tomato tomatoes, egg eggs, pancake pancakes, olive olives"),
    mass_nouns=words("honey cheese bread soup"),
    messages=nouns("legend legends, speech speeches, prayer prayers"),
    person_adjectives=words("lazy angry brilliant friendly wealthy nervous"),
    object_adjectives=words("beautiful tiny filthy damp costly"),
    manner_adverbs=words("eagerly calmly promptly cautiously"),
    object_verbs=verbs(
        "obtain obtains obtained obtained obtaining, seize seizes seized seized seizing,"
        "conceal conceals concealed concealed concealing, wreck wrecks wrecked wrecked wrecking,"
        "confiscate confiscates confiscated confiscated confiscating"
    ),
    person_verbs=verbs(
        "congratulate congratulates congratulated congratulated congratulating,"
        "ridicule ridicules ridiculed ridiculed ridiculing, reward rewards rewarded rewarded rewarding"
    ),
    attitude_verbs=verbs(
        "adore adores adored adored adoring, resent resents resented resented resenting,"
        "despise despises despised despised despising"
    ),
    intransitive_verbs=verbs(
        "blush blushes blushed blushed blushing, chuckle chuckles chuckled chuckled chuckling,"
        "tremble trembles trembled trembled trembling, stumble stumbles stumbled stumbled stumbling,"
        "limp limps limped limped limping"
    ),
    irregular_verbs=(
        irregular_verb(
            "break breaks broke broken breaking",
            nouns("umbrella umbrellas, laptop laptops, necklace necklaces, violin violins, statue statues"),
        ),
        irregular_verb("draw draws drew drawn drawing", nouns("map maps, portrait portraits")),
        irregular_verb("sing sings sang sung singing", nouns("song songs, hymn hymns")),
        irregular_verb("drive drives drove driven driving", nouns("truck trucks, van vans")),
        irregular_verb("ride rides rode ridden riding", nouns("horse horses, camel camels")),
    ),
    food_verbs=verbs("serve serves served served serving, prepare prepares prepared prepared preparing"),
    knowledge_verbs=verbs(
        "notice notices noticed noticed noticing, realize realizes realized realized realizing,"
        "guess guesses guessed guessed guessing"
    ),
    statement_verbs=verbs(
        "assume assumes assumed assumed assuming, argue argues argued argued arguing,"
        "conclude concludes concluded concluded concluding"
    ),
    giving_verbs=verbs("send sends sent sent sending, bring brings brought brought bringing"),
    delivering_verbs=verbs(
        "transport transports transported transported transporting,convey conveys conveyed conveyed conveying"
    ),
    telling_verbs=verbs("read reads read read reading"),
    explaining_verbs=verbs("recite recites recited recited reciting, dictate dictates dictated dictated dictating"),
)

VOCABULARIES: dict[str, Vocabulary] = {"train": TRAIN, "validation": VALIDATION, "test": TEST}

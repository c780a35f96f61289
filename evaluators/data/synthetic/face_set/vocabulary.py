"""The words of the faces set's sentences. Sentiment words: the commonest first."""

GOOD_ADJECTIVES = (
    "good",
    "great",
    "funny",
    "amazing",
    "wonderful",
    "beautiful",
    "brilliant",
    "fantastic",
    "perfect",
    "exciting",
    "charming",
    "clever",
    "lovely",
    "touching",
    "sweet",
    "superb",
    "smart",
    "fresh",
)
BAD_ADJECTIVES = (
    "bad",
    "terrible",
    "boring",
    "awful",
    "stupid",
    "annoying",
    "horrible",
    "weak",
    "slow",
    "silly",
    "cheap",
    "dull",
    "lame",
    "predictable",
    "ridiculous",
    "pointless",
    "cheesy",
    "messy",
)
GOOD_VERBS = ("loved", "liked", "enjoyed", "adored", "admired", "praised")
BAD_VERBS = ("hated", "disliked", "regretted", "despised", "loathed", "resented")
GOOD_NOUNS = ("masterpiece", "joy", "gem", "treat", "winner", "triumph")
BAD_NOUNS = ("disaster", "mess", "waste", "joke", "failure", "disappointment")
THINGS = (
    "movie",
    "film",
    "story",
    "plot",
    "acting",
    "ending",
    "cast",
    "music",
    "dialogue",
    "script",
    "directing",
    "camera",
    "lighting",
    "opening",
    "soundtrack",
    "villain",
    "hero",
    "sequel",
    "trailer",
    "pacing",
    "humor",
    "animation",
    "makeup",
    "editing",
)
WHOLES = ("movie", "film", "story", "sequel", "documentary", "series", "romance")
WEAK = ("a bit", "kind of", "sort of", "somewhat", "fairly", "rather")
WEAK_BEFORE_VERB = ("kind of", "sort of")
STRONG = ("really", "very", "absolutely", "incredibly", "totally", "extremely", "truly")
STRONG_BEFORE_VERB = ("really", "absolutely", "totally", "truly")
STRONG_BEFORE_NOUN = ("total", "complete", "absolute", "huge")
FILLERS = ("um", "uh", "you know", "i mean", "well", "okay", "anyway", "i guess", "like", "yeah")
OPENINGS = ("i thought", "to me", "honestly", "for me", "i found that", "overall", "i think")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
COMPANIONS = (
    "brother",
    "sister",
    "mother",
    "father",
    "cousin",
    "roommate",
    "neighbor",
    "boss",
    "teacher",
    "aunt",
    "uncle",
    "friend",
)
PLACES = (
    "paris",
    "london",
    "tokyo",
    "chicago",
    "texas",
    "canada",
    "brazil",
    "egypt",
    "ireland",
    "norway",
    "mexico",
    "boston",
    "alaska",
    "rome",
    "vienna",
    "kenya",
)
JOBS = (
    "pilot",
    "nurse",
    "farmer",
    "spy",
    "lawyer",
    "cook",
    "detective",
    "painter",
    "soldier",
    "driver",
    "sailor",
    "baker",
    "robot",
    "singer",
    "boxer",
    "wizard",
    "thief",
    "banker",
    "astronaut",
    "professor",
)
ANIMALS = (
    "dog",
    "horse",
    "cat",
    "parrot",
    "whale",
    "rabbit",
    "tiger",
    "goat",
    "turtle",
    "donkey",
    "penguin",
    "wolf",
)
NAMES = (
    "anna",
    "david",
    "maria",
    "kevin",
    "laura",
    "peter",
    "sofia",
    "daniel",
    "emma",
    "oscar",
    "nina",
    "victor",
    "julia",
    "martin",
    "clara",
    "felix",
)
MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
SOURCES = ("novel", "play", "poem", "diary", "game", "song", "legend", "comic")
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve")
SEATS = ("front", "back", "middle", "left", "right")
SNACKS = ("popcorn", "nachos", "coffee", "candy", "soda", "pizza", "water", "tea")

"""Words for many of ImageNet's classes at once: dog, bird, car.

The ids run along WordNet's tree, so a word's classes are mostly ranges. They are what one would
call by that word, not every hyponym in WordNet: cat has lions among them, car no car wheels.
"""

from __future__ import annotations

from functools import cache

_GROUPS = """
animal: 0-397
fish: 0-6,389-397
shark: 2-4
ray: 5-6
bird: 7-24,80-100,127-146
finch: 10-14
raptor: 21-24
grouse: 80-83
parrot: 87-90
duck: 97-98
stork: 127-128
heron: 131-133
penguin: 145
amphibian: 25-32
salamander newt: 25-29
frog toad: 30-32
reptile: 33-68
turtle tortoise: 33-37
lizard: 38-48
crocodile crocodilian: 49-50
dinosaur: 51
snake serpent: 52-68
arachnid: 70-78
spider: 72-77
mollusc mollusk shellfish: 112-117
crustacean: 118-126
crab: 118-121,125
lobster: 122-123
mammal: 101-106,147-299,330-388
marsupial: 104-106
whale: 147-148
seal: 150
dog puppy canine: 151-268
hound: 160-178
terrier: 179-204
retriever: 205-209
pointer: 210-211
setter: 212-214
spaniel: 152,156,215-221
shepherd sheepdog: 224-235
mastiff: 243-244
husky: 248-250
corgi: 263-264
poodle: 265-267
wolf wolves: 269-271
fox: 277-280
cat kitten feline: 281-293
bear: 294-297
insect bug: 300-326
beetle: 300-307
butterfly: 321-326
rabbit bunny: 330-332
rodent: 333-338
squirrel: 335
horse: 339
pig: 341-343
cow cattle bull: 345-347
sheep: 348-349
goat: 350
antelope: 351-353
camel: 354
sloth: 364
primate: 365-384
ape: 365-369
monkey: 370-382
lemur: 383-384
elephant: 101,385-386
panda: 387-388
vehicle: 403-405,407-408,417,436,444,450,466,468,472,484,510-511,537,547,554-555,561,565,569,573,575-576,586,603,609,612,625,627-628,654,656,660-661,665,670-671,675,690,705,717,724,734,751,757,779-780,802-803,812,814,817,820,829,833,847,864,866-867,870-871,874,880,895,914
car automobile: 407,436,468,511,609,627,656,661,751,817
truck lorry: 555,569,675,717,864,867
van: 654,656,675,734
bus: 654,779,874
train: 466,547,565,705,820
locomotive: 547,820
bicycle bike: 444,671
motorcycle motorbike: 665,670
airplane aeroplane jet: 404,895
aircraft: 404-405,417,895
boat: 472,484,554,576,625,814,871,914
ship: 403,510,628,724,780,833
instrument: 401-402,420,432,486,494,513,541,546,558,566,577,579,593-594,641-642,683-684,687,699,776,822,875,881,889
guitar: 402,546
piano: 579,881
clock: 409,530,892
watch: 531
computer: 527,590,620,681
telephone phone: 487,528,707
camera: 732,759
gun: 413,763-764
hat: 515,808
shoe: 502,630,770,774
bag: 414,636,728,748
chair: 423,559,765
sofa couch: 831
bed: 431,516,520,564
bottle: 440,720,737,898,907
ball: 429-430,522,574,722,768,805,852,890
fence: 489,716,912
bridge: 821,839,888
house: 500,580,660,915
food: 924-957,959-967,969
bread: 930-932
vegetable: 936-947
fruit: 948-957
apple: 948
drink beverage: 966-967,969
mountain: 970,980
landscape: 970,972-980
beach: 977-978
person people human: 981-983
flower: 985-986
fungus: 991-997
"""  # noqa: E501 - a row a word


@cache
def _rows() -> dict[str, str]:
    rows = (line.split(": ") for line in _GROUPS.split("\n") if line)
    return {word: ids for words, ids in rows for word in words.split()}


def group_words() -> list[str]:
    """All of them."""
    return list(_rows())


def group_ids(word: str) -> str | None:
    """Ids of what ``word`` means, such as "151-268" for dog, Dogs or DOG; None for other words."""
    word = word.strip().lower()
    forms = [word, word.removesuffix("s"), word.removesuffix("es")]
    forms += [f"{word.removesuffix('ies')}y"] if word.endswith("ies") else []
    return next((_rows()[form] for form in forms if form in _rows()), None)


def group_members(word: str) -> list[int]:
    """The same as a list, rising; empty for other words."""
    found: list[int] = []
    for part in (group_ids(word) or "").split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1) if first else []
    return found

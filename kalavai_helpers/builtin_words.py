"""The vocabulary of the story grammar: names, places and lists of words."""

NAMES_SHE, NAMES_HE, SURNAMES, TOWN_HEAD, TOWN_TAIL = (
    names.split()
    for names in (
        """Ada Alma Asha Beatrix Brannoc Celeste Cora Dilys Edith Elin Esme Farida Freya Greta
        Hana Hester Ida Imogen Ines Ingrid Iris Ivy Jocasta Junia Kezia Lena Linnea Lotte Mabel Maren
        Marit Mina Mirabel Nadia Nell Noor Odile Olwen Orla Petra Philippa Quilla Ramona Rhona Rosalind
        Sabine Saskia Selma Sigrid Tamsin Tess Thea Ursula Vera Wilhelmina Winifred Yara Zelda""",
        """Abel Alasdair Anton Ansel Bartholomew Benedikt Bram Caspar Cyril Dafydd Edmund Elias
        Emeric Fergus Felix Gideon Gustav Hamish Harun Henrik Ignace Isidore Ivo Jasper Jonah Kaspar
        Lachlan Leopold Lorcan Ludo Magnus Mateo Merrick Milo Nikolai Oswin Otto Ossian Percival Piers
        Quentin Rafe Roland Rufus Silas Stellan Tobias Torsten Ulric Valentin Viktor Walter Wendell
        Yorick Zachary Tariq Sunil""",
        """Ashdown Barrow Birch Calloway Crane Drummond Eddery Fairweather Fenn Garrow Hale
        Hollis Inchbald Jarrett Kestrel Lark Lovage Marsh Merriday Nightingale Orchard Pell Penrose Quill
        Rook Sallow Sorrel Tarn Thackeray Underhill Vane Wainwright Weatherby Yarrow Copperfield Dray
        Mossgrove Pettibone Harrowgate Winterbourne""",
        """Ash Black Brindle Cold Crow Dun East Elder Fair Gull Hazel High Holm Kettle Lang
        Mill Moor North Oak Otter Raven Salt Sand Silver Stan Thorn Under Water West Wick Winter
        Wolf""",
        """bridge brook bury cliff combe cross dale fell ferry field ford gate ham haven hithe
        mere mouth ness port stead stow ton wick worth""",
    )
)

# Comma-separated vocabularies; a verb is "base" or "base/past" when the past is irregular.
WORDS: dict[str, list[str]] = {
    key: [" ".join(word.split()) for word in text.split(",")]
    for key, text in {
        "trade": """lamplighter, clockmaker, ferryman's apprentice, baker, cartographer, beekeeper,
            bookbinder, glassblower, shepherd, letter carrier, bell ringer, weaver, botanist,
            lighthouse keeper, fiddler, locksmith, surveyor, midwife, tinker, schoolteacher,
            apothecary, net mender, stonemason, signalman, archivist, gardener, pilot, cook,
            astronomer, chimney sweep, dyer, thatcher, saddler, printer, interpreter, gravedigger,
            falconer, cooper, candle maker, tailor, miller, kite maker, puppeteer, well digger""",
        "trait": """patient, stubborn, quick-tempered, soft-spoken, curious, careful, proud, restless,
            generous, suspicious, cheerful, solemn, absent-minded, brave, shy, practical, dreamy,
            sharp-eyed, forgetful, honest, sly, gentle, gloomy, reckless, polite, tireless, thrifty,
            clumsy, witty, superstitious, loyal, vain, lonely, ambitious, kind-hearted""",
        "animal": """fox, heron, goat, mule, raven, otter, hound, kestrel, cat, hare, badger, goose,
            pony, owl, toad, swan, stag, moth, rooster, hedgehog, donkey, seal, magpie, ferret, ox,
            beetle, lark, weasel, spaniel, bat""",
        "thing": """key, lantern, compass, ledger, letter, map, bell, locket, clock, mirror, violin,
            coin, chest, needle, telescope, ring, notebook, seed, crown, hourglass, whistle, kettle,
            knife, portrait, music box, thimble, candlestick, astrolabe, flute, bottle, music stand,
            lamp, medal, ribbon, spyglass, teapot, carving, quilt, saddle, spindle, inkwell, drum,
            glove, anchor, barometer, brooch, chisel, doll, feather, hammer, horseshoe, pocket watch""",
        "material": """brass, silver, walnut, iron, ivory-coloured, copper, glass, oak, porcelain,
            pewter, leather, bone, amber, velvet, tin, willow, marble, bronze, paper, slate""",
        "adj": """old, small, heavy, crooked, faded, plain, narrow, pale, dusty, broken, delicate,
            rusted, polished, hollow, bright, damp, strange, handsome, worn, tarnished, battered,
            painted, forgotten, slender, cracked, gilded, modest, splendid, curious, ragged, solid,
            borrowed, unfamiliar, tiny, enormous, scorched, mended, nameless""",
        "mood": """uneasy, hopeful, tired, ashamed, relieved, bewildered, angry, calm, delighted,
            afraid, weary, grateful, jealous, certain, foolish, homesick, proud, guilty, light-headed,
            hungry, determined, doubtful, content, lonely, impatient""",
        "room": """kitchen, attic, cellar, workshop, library, stable, chapel, counting house, parlour,
            boathouse, greenhouse, hallway, storeroom, bakery, tower room, schoolroom, loft, pantry,
            barn, waiting room, gatehouse, scullery, back room, dairy""",
        "spot": """market square, harbour wall, mill pond, orchard, churchyard, railway bridge, salt
            marsh, pine wood, quarry, crossroads, river bank, watchtower, sheepfold, lime avenue,
            fish market, ruined abbey, ferry landing, hill road, town gate, village green, old
            cemetery, north pasture, stone circle, tannery, rope walk, winding stair, sunken lane,
            bandstand, customs house, almshouse, peat bog, walnut grove, dry canal, signal box""",
        "weather": """rain, snow, fog, frost, wind, sleet, drizzle, thunder, hail, mist, heat,
            moonlight, sunshine, dust, drought""",
        "season": "spring, summer, autumn, winter, harvest, Lent, midsummer, lambing time, Advent",
        "food": """bread, plum cake, barley soup, smoked eel, cheese, apples, porridge, ginger biscuits,
            salted butter, honey, mutton stew, pickled onions, chestnuts, cold ham, pear tart, oat cakes,
            blackberry jam, roast turnips, dumplings, dried figs, buttered toast, lentils""",
        "drink": "tea, cider, milk, coffee, small beer, mulled wine, nettle cordial, broth, cold water",
        "garment": """coat, scarf, hat, apron, shawl, waistcoat, cloak, pair of boots, jersey, bonnet,
            jacket, nightgown, mitten, cap, collar""",
        "body": "hands, shoulders, eyes, knees, fingers, lips, eyebrows, sleeves, cheeks",
        "colour": "grey, blue, green, scarlet, yellow, white, black, russet, violet, silver, ochre",
        "tree": "elm, rowan, willow, beech, chestnut, yew, birch, alder, hawthorn, lime, cedar",
        "time": """at dawn, before breakfast, towards noon, late in the afternoon, at dusk,
            after supper, near midnight, the next morning, that evening, two days later, on Sunday,
            a week afterwards, on market day, in the small hours, just after sunrise, at the first bell,
            on the third day, before the lamps were lit, when the tide turned, on the last of the month""",
        "manner": """slowly, without a word, with great care, in a hurry, quietly, with a sigh,
            as if nothing had happened, twice, clumsily, with both hands, reluctantly, at once,
            in silence, with a laugh, for the second time, gently, more boldly than before,
            with trembling fingers, by lamplight, almost cheerfully, one step at a time""",
        "do": """mend, polish, hide/hid, carry, wrap/wrapped, open, examine, measure, steal/stole,
            bury, borrow, repair, drop/dropped, hold/held, lift, sell/sold, paint, weigh, draw/drew,
            clean, keep/kept, find/found, copy, guard, study, lose/lost, turn over/turned over,
            unlock, follow, describe, praise, deliver, forget/forgot, remember, destroy, return""",
        "go": """walk, run/ran, climb, hurry, ride/rode, creep/crept, wander, march, limp, stroll,
            drive/drove, row, stumble, set out/set out, go/went, slip/slipped, trudge, come/came""",
        "path": """across the {spot}, along the {spot}, past the {spot}, down to the {spot},
            towards the {spot}, as far as the {spot}, round the {adj} {spot}, through {weather} to the {spot},
            up the lane behind the {spot}, from the {spot} to the {room}, back to the {spot}""",
        "say": """said, answered, whispered, muttered, replied, cried, murmured, insisted,
            called, admitted, remarked, explained, protested, sighed, began, warned, added""",
        "virtue": """courage, patience, honesty, mercy, silence, luck, memory, friendship, pride, debt,
            gratitude, grief, freedom, kindness, duty, hunger, trust, forgiveness, envy, curiosity""",
        "kin": """grandmother, uncle, sister, brother, father, mother, aunt, cousin, godfather,
            stepmother, great-aunt, grandfather, nephew, niece""",
        "folk": """fishermen, children, travellers, millers, soldiers, widows, drovers, scholars,
            neighbours, pedlars, sailors, musicians, farmhands, pilgrims, clerks, shopkeepers""",
        "count": "two, three, four, five, six, seven, nine, ten, eleven, twelve, twenty, forty, a hundred",
        "sound": """a door slam, a dog bark, the church bell strike, somebody laugh, a cart pass,
            the wind turn, footsteps on the stair, a fiddle being tuned, water dripping, geese overhead""",
        "flaw": """debt, flood, bad harvest, quarrel, fever, fire, forged will, broken promise, lost wager,
            rumour, long winter, drowned road, stolen cart, closed school, false accusation""",
        "np": """the {adj} {thing}, {a adj} {thing}, the {material} {thing}, {a thing},
            {s thing}, the {animal}, {a adj} {garment}, the {kin}'s {thing}, a basket of {food},
            the {colour} {thing}, {a material} {thing}, {count} {s thing}, what was left of the {food}""",
    }.items()
}  # fmt: skip

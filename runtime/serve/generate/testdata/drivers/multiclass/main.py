import math
import sys

from penguins_species_of import Client, Row

a = Client(url=sys.argv[1]).predict([Row(bird_bill=0.75, bird_sex="female"), Row()], id="two")
p, q = a.predictions[0], a.predictions[1].probabilities["Gentoo"]
print(p.class_, p.probabilities["Adelie"], p.probabilities["Chinstrap"], len(p.probabilities), str(math.isnan(q)).lower())

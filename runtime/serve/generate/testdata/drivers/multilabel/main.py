import math
import sys

from posts_topics import Client, Row

a = Client(url=sys.argv[1]).predict([Row(f_x=0.75), Row()], id="two")
p, q = a.predictions[0], a.predictions[1].probabilities["sport"]
print(len(p.labels), p.labels[0], p.probabilities["news"], len(p.probabilities), len(a.predictions[1].labels), str(math.isnan(q)).lower())

import math
import sys

from pumps_watch import Client, Row

a = Client(url=sys.argv[1]).predict([Row(f_x=7500.0), Row()], id="two")
p, q = a.predictions[0], a.predictions[1].score
print(p.score, str(p.decision).lower(), str(a.predictions[1].decision).lower(), str(math.isnan(q)).lower())

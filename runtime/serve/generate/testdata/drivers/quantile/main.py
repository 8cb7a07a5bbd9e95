import math
import sys

from trips_minutes import Client, Row

a = Client(url=sys.argv[1]).predict([Row(f_x=2.5), Row()], id="two")
p, q = a.predictions[0], a.predictions[1].quantiles["0.5"]
print(p.quantiles["0.1"], p.quantiles["0.9"], len(p.quantiles), str(math.isnan(q)).lower())

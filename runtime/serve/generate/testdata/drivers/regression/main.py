import sys

from bikes_demand import Client, Row

a = Client(url=sys.argv[1]).predict([Row(day_pressure=1000, day_holiday=True)], id="two")
print(f"{a.predictions[0].prediction:g}")

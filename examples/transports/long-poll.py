#!/usr/bin/env python3
"""Events one answer at a time (long-poll), with nothing but Python.

    python3 examples/transports/long-poll.py ['news/#'] [http://localhost:8080]
"""

import json
import sys
import time
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

given = dict(enumerate(sys.argv))
topic = given.get(1, "news/#")
server = given.get(2, "http://localhost:8080")

# What the next request goes on with: where it is, and who asks.
place = {}
while True:
    try:
        # It is answered after 25 seconds at the latest.
        with urlopen(f"{server}/v1/poll?{urlencode({'topic': topic, **place})}", timeout=60) as answer:
            poll = json.load(answer)
    except HTTPError as error:
        if error.code not in (429, 503):
            sys.exit(f"{error.code}: {error.read().decode()}")
        time.sleep(int(error.headers.get("Retry-After", 2)))
        continue
    except OSError as error:
        print(f"{error}; trying again", file=sys.stderr)
        time.sleep(2)
        continue
    if poll["gap"]:
        print("events are lost:", poll["gap"], file=sys.stderr)
    for event in poll["events"]:
        print(event["topic"], event.get("payload", event.get("payloadBase64")), flush=True)
    place = {"cursor": poll["cursor"], "device": poll["device"]}

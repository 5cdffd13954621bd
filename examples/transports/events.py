#!/usr/bin/env python3
"""Events as they come (SSE), with nothing but Python; with a name for this device, each is acknowledged.

    python3 examples/transports/events.py ['news/#'] [http://localhost:8080] [device]
"""

import json
import sys
import time
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

given = dict(enumerate(sys.argv))
topic = given.get(1, "news/#")
server = given.get(2, "http://localhost:8080")
device = given.get(3)

# mqway says something every 15 seconds (push.heartbeat).
SILENCE = 60


def stream(cursor):
    """The messages of one stream, as (name, data, cursor); it goes on after the cursor, where there is one."""
    query = {"topic": topic, **({"device": device} if device else {})}
    headers = {"Last-Event-ID": cursor} if cursor else {}
    with urlopen(Request(f"{server}/v1/events?{urlencode(query)}", headers=headers), timeout=SILENCE) as answer:
        name, data = "message", []
        for line in answer:
            field, _, value = line.decode().rstrip("\n").partition(": ")
            if field == "id":
                cursor = value
            elif field == "event":
                name = value
            elif field == "data":
                data.append(value)
            elif field == "":
                yield name, "\n".join(data), cursor
                name, data = "message", []


def acknowledge(event):
    receipt = json.dumps({"id": event["id"], "status": "processed"}).encode()
    urlopen(f"{server}/v1/receipts?{urlencode({'device': device})}", data=receipt, timeout=10).close()


cursor = None
while True:
    try:
        for name, data, cursor in stream(cursor):
            if name == "gap":
                print("events are lost:", data, file=sys.stderr)
            if name != "message" or not data:
                continue
            event = json.loads(data)
            print(event["topic"], event.get("payload", event.get("payloadBase64")), flush=True)
            if device:
                acknowledge(event)
    except HTTPError as error:
        if error.code not in (429, 503):
            sys.exit(f"{error.code}: {error.read().decode()}")
    except OSError as error:
        print(f"{error}; trying again", file=sys.stderr)
    time.sleep(2)

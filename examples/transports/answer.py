#!/usr/bin/env python3
"""Answers requests, with nothing but Python: over HTTP, as a client of MQTT 5 does over MQTT.

    python3 examples/transports/answer.py ['lamp/get'] ['on'] [http://localhost:8080]
"""

import json
import sys
import time
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

given = dict(enumerate(sys.argv))
topic = given.get(1, "lamp/get")
answer = given.get(2, "on")
server = given.get(3, "http://localhost:8080")


def ask(path, body=None):
    with urlopen(Request(server + path, data=body), timeout=60) as response:
        return json.load(response)


def respond(event):
    message = {"topic": event["responseTopic"], "payload": answer, "contentType": "text/plain", "qos": 1}
    if "correlationData" in event:
        message["correlationData"] = event["correlationData"]
    ask("/v1/publish", json.dumps(message).encode())
    print("answered:", event.get("payload", ""), flush=True)


# From now on: a request expires, and nobody waits for the answer to an old one.
cursor = ask(f"/v1/poll?{urlencode({'topic': topic, 'timeout': 0})}")["cursor"]
print("listening", flush=True)
while True:
    try:
        poll = ask(f"/v1/poll?{urlencode({'topic': topic, 'cursor': cursor})}")
        cursor = poll["cursor"]
        for event in poll["events"]:
            if "responseTopic" in event:
                respond(event)
    except HTTPError as error:
        if error.code not in (429, 503):
            sys.exit(f"{error.code}: {error.read().decode()}")
        time.sleep(2)
    except OSError as error:
        print(f"{error}; trying again", file=sys.stderr)
        time.sleep(2)

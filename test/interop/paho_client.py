"""A subscriber and publisher with Python's paho, for the interoperability tests.

usage: paho_client.py HOST PORT tcp|tls|ws|wss VERSION FILTER [TOPIC PAYLOAD]

Subscribes to FILTER, prints "ready", publishes PAYLOAD on TOPIC where given, prints each message as a line of JSON, and
ends after the first.
"""

import json
import ssl
import sys

import paho.mqtt.client as mqtt

host, port, transport, version, topic_filter = sys.argv[1:6]
publication = sys.argv[6:8]

versions = {"3": mqtt.MQTTv31, "4": mqtt.MQTTv311, "5": mqtt.MQTTv5}
client = mqtt.Client(
    client_id="paho-python-%s-%s" % (transport, version),
    protocol=versions[version],
    transport="tcp" if transport in ("tcp", "tls") else "websockets",
)
if transport in ("ws", "wss"):
    client.ws_set_options(path="/mqtt")
if transport in ("tls", "wss"):
    client.tls_set(cert_reqs=ssl.CERT_NONE)
    client.tls_insecure_set(True)


def on_connect(client, userdata, flags, reason, properties=None):
    client.subscribe(topic_filter, qos=1)


def on_subscribe(client, userdata, mid, granted, properties=None):
    print("ready", flush=True)
    if publication:
        client.publish(publication[0], publication[1], qos=1)


def on_message(client, userdata, message):
    print(json.dumps({"topic": message.topic, "payload": message.payload.decode(), "qos": message.qos}), flush=True)
    client.disconnect()


client.on_connect = on_connect
client.on_subscribe = on_subscribe
client.on_message = on_message
client.connect(host, int(port), 30)
client.loop_forever()

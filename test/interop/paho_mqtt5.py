"""A client of MQTT 5 with Python's paho, for the interoperability tests.

usage: paho_mqtt5.py HOST PORT tcp|tls|ws|wss FILTER [TOPIC PAYLOAD]

Subscribes to FILTER with a subscription identifier, prints {"connack": {...}} and {"suback": [...]}, publishes PAYLOAD on TOPIC at QoS 2 with
properties where given, prints each message with its properties as a line of JSON, and ends after the first with a DISCONNECT.
"""

import json
import ssl
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

host, port, transport, topic_filter = sys.argv[1:5]
publication = sys.argv[5:7]


def say(**values):
    print(json.dumps(values), flush=True)


def properties_of(packet, **values):
    properties = Properties(packet)
    for name, value in values.items():
        setattr(properties, name, value)
    return properties


def shown(properties):
    """Properties as JSON; binary data as hex."""
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in vars(properties).items()
            if name not in ("packetType", "types", "names", "properties")}


client = mqtt.Client(
    client_id="",
    protocol=mqtt.MQTTv5,
    transport="websockets" if transport.startswith("ws") else "tcp",
)
if transport.startswith("ws"):
    client.ws_set_options(path="/mqtt")
if transport in ("tls", "wss"):
    client.tls_set(cert_reqs=ssl.CERT_NONE)
    client.tls_insecure_set(True)


def on_connect(client, userdata, flags, reason, properties):
    say(connack={"code": reason.value, "properties": shown(properties)})
    client.subscribe(
        topic_filter,
        options=SubscribeOptions(qos=2, noLocal=False, retainAsPublished=True),
        properties=properties_of(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=77),
    )


def on_subscribe(client, userdata, mid, codes, properties):
    say(suback=[code.value for code in codes])
    if publication:
        given = properties_of(
            PacketTypes.PUBLISH,
            PayloadFormatIndicator=1,
            MessageExpiryInterval=100,
            ContentType="text/plain",
            ResponseTopic="python/answers",
            CorrelationData=b"\x00\x01\xff",
            UserProperty=[("b", "2"), ("a", "1"), ("b", "1")],
        )
        client.publish(publication[0], publication[1], qos=2, properties=given)


def on_message(client, userdata, message):
    say(topic=message.topic, payload=message.payload.decode(), qos=message.qos, properties=shown(message.properties))
    client.disconnect()


client.on_connect = on_connect
client.on_subscribe = on_subscribe
client.on_message = on_message
client.connect(host, int(port), 30, properties=properties_of(PacketTypes.CONNECT, SessionExpiryInterval=10, ReceiveMaximum=5))
client.loop_forever()

"""What Python's paho is answered, for the tests of who may do what.

usage: paho_access.py PORT USER PASSWORD FILTER TOPIC

Connects with a user name and a password (without them where USER is empty), subscribes to FILTER, publishes to TOPIC at QoS
1, and prints a line of JSON for each answer: {"connack": code}, {"suback": code}, {"puback": true}.
"""

import json
import sys

import paho.mqtt.client as mqtt

port, user, password, topic_filter, topic = sys.argv[1:6]
client = mqtt.Client(client_id="paho-%s-%s" % (user, topic))
if user:
    client.username_pw_set(user, password)


def say(**answer):
    print(json.dumps(answer), flush=True)


def on_connect(client, userdata, flags, code):
    say(connack=code)
    if code == 0:
        client.subscribe(topic_filter)
    else:
        client.disconnect()


def on_subscribe(client, userdata, mid, granted):
    say(suback=granted[0])
    client.publish(topic, "hello", qos=1)


def on_publish(client, userdata, mid):
    say(puback=True)
    client.disconnect()


client.on_connect = on_connect
client.on_subscribe = on_subscribe
client.on_publish = on_publish
client.connect("127.0.0.1", int(port), 30)
client.loop_forever()

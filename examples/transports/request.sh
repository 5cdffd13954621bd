#!/bin/sh
# Asks whoever listens to a topic, and prints the answer. Needs curl 7.87 or newer.
#
#   sh examples/transports/request.sh [lamp/get] ['state?'] [http://localhost:8080] [lamp/state, if it answers there]
topic=${1:-lamp/get}
question=${2:-state?}
server=${3:-http://localhost:8080}
reply=$4

curl -fsS "$server/v1/request" --url-query "topic=$topic" ${reply:+--url-query "replyTopic=$reply"} --data-binary "$question"
echo

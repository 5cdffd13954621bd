#!/bin/sh
# Publishes a message; prints its id when it is written down. Needs curl 7.87 or newer.
#
#   sh examples/transports/publish.sh [news/europe/sport] ['hello'] [http://localhost:8080]
topic=${1:-news/europe/sport}
message=${2:-hello}
server=${3:-http://localhost:8080}

curl -fsS "$server/v1/publish" --url-query "topic=$topic" --data-binary "$message"
echo

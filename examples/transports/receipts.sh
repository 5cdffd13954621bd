#!/bin/sh
# Publishes a message that all who listen are to acknowledge, waits, and prints who did. Needs curl 7.87 or newer.
#
#   sh examples/transports/receipts.sh [news/europe/sport] ['hello'] [http://localhost:8080] [seconds]
topic=${1:-news/europe/sport}
message=${2:-hello}
server=${3:-http://localhost:8080}
seconds=${4:-5}

answer=$(curl -fsS "$server/v1/publish" --url-query "topic=$topic" \
  --url-query receiptFrom=present --url-query "receiptWithin=${seconds}s" --data-binary "$message") || exit
id=$(printf '%s' "$answer" | sed 's/.*"id":"\([^"]*\)".*/\1/')
sleep "$seconds"
curl -fsS "$server/v1/receipts" --url-query "id=$id"
echo

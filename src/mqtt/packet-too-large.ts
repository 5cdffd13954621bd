import constants from 'mqtt-packet/constants.js'

/** MQTT 5 §2.4. */
export const packetTooLarge = 0x95

// mosquitto answers with it to what is over its message_size_limit, although a PUBACK or PUBREC may not have it (table 2-6).
// mqtt-packet would take that for malformed, and one publication that is too large would end the connection for everybody.
constants.MQTT5_PUBACK_PUBREC_CODES[packetTooLarge] = 'Packet too large'

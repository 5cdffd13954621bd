/** The part of `mqtt-packet`'s constants that the session adds to; the package ships no types for them. */
declare module 'mqtt-packet/constants.js' {
  const constants: { readonly MQTT5_PUBACK_PUBREC_CODES: Record<number, string> }
  export = constants
}

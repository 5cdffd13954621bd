/** Types of the used part of `mqtt-packet`'s constants, which the package lacks. */
declare module 'mqtt-packet/constants.js' {
  const constants: { readonly MQTT5_PUBACK_PUBREC_CODES: Record<number, string> }
  export = constants
}

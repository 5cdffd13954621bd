/** The module that `import 'mqway'` loads: the package has a program and a client for browsers and Node, but no library. */
throw new Error(
  'mqway is a program: run "npx mqway serve". Its client for topics is the module "mqway/client": import { connect } from "mqway/client"',
)

export {}

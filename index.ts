import { readConfig } from "./config";
import { StackState } from "./stack-state";
import { preflight } from "./preflight";

export = async () => {
  // The SDK takes a stack trace with every resource; mapping each frame back through ts-node's
  // source maps would cost a twentieth of every preview.
  delete (Error as { prepareStackTrace?: unknown }).prepareStackTrace;

  const config = readConfig();
  // The registry and the cluster answer while the SDKs are loaded.
  const state = new StackState(config.environment);
  const [cleared, { createInfra }] = await Promise.all([
    preflight(config, state),
    import("./infra"),
  ]);
  const outputs = await createInfra(config, cleared, state);
  const { breakGlass } = cleared;
  return breakGlass === undefined ? outputs : { ...outputs, breakGlass };
};

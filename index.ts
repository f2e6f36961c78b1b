import { readConfig } from "./config";
import { LastOutputs } from "./last-outputs";
import { preflight } from "./preflight";

export = async () => {
  // The SDK takes a stack trace with every resource; mapping each frame back through ts-node's
  // source maps would cost a twentieth of every preview.
  delete (Error as { prepareStackTrace?: unknown }).prepareStackTrace;

  const config = readConfig();
  // The registry and the cluster answer while the SDKs are loaded.
  const last = new LastOutputs(config.environment);
  const [cleared, { createInfra }] = await Promise.all([
    preflight(config, last),
    import("./infra"),
  ]);
  const outputs = await createInfra(config, cleared, last);
  const { breakGlass } = cleared;
  return breakGlass === undefined ? outputs : { ...outputs, breakGlass };
};
